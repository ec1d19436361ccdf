//! Changes of a user's own slot: the profile, the deletion, and the keys of events that touch several rooms.

use futures_util::{StreamExt, stream};

use super::steps::{Numbered, SentAt, UserUpdates};
use super::{ROOMS_AT_ONCE, Writer, set_outcome, unexpected_reply};
use crate::connection::Item;
use crate::counts::room::{Act, Audience, Job};
use crate::engine::deliver::LEASE_MICROS;
use crate::error::Result;
use crate::event::{Event, EventOutcome, Rejection};
use crate::keys::{self, Enc, UserKeys, encode};
use crate::names::{AppId, UserId};
use crate::scripts;

impl Writer {
    /// The reads and resets that have a key and name a peer instead of a room: index, user, key. When such an event is repeated
    /// the two users may have another room. So the user's slot keeps the key too, for this peer.
    pub(super) fn reads_by_peer(&self, events: &[Numbered<Event>]) -> Vec<(usize, Enc, String)> {
        let by_peer = |(index, event): &Numbered<Event>| {
            let (user, peer) = event.change.peer()?;
            let key = self.key_of(event, peer);
            (!key.is_empty()).then(|| (*index, encode(user.as_str()), key))
        };
        events.iter().filter_map(by_peer).collect()
    }

    pub(super) async fn update_users(
        &self,
        app: &AppId,
        mut users: UserUpdates,
        outcomes: &mut [Option<EventOutcome>],
    ) -> Result<()> {
        // Each round makes one update of each user, because a user's updates have to keep their order. Mostly one round is
        // enough.
        while !users.0.is_empty() {
            let mut items = Vec::with_capacity(users.0.len());
            let mut under_way = Vec::with_capacity(users.0.len());
            users.0.retain(|user, updates| {
                if let Some(update) = updates.pop_front() {
                    let keys = UserKeys::new(app, user);
                    let [one, two] = keys.event_keys();
                    let mut call =
                        scripts::USER_UPDATE.call(&[keys.counts(), keys.profile(), one, two]);
                    call.push(&update.key);
                    for (field, value) in update.profile {
                        call.push(field);
                        call.push(value);
                    }
                    items.push(Item::Script(call));
                    under_way.push(update.indices);
                }
                !updates.is_empty()
            });
            let answers = self.inner.redis.send_each(&items).await?;
            for (answer, indices) in answers.into_iter().zip(under_way) {
                let outcome = self.reject_unreadable(answer.and_then(key_outcome))?;
                for index in indices {
                    set_outcome(outcomes, index, outcome.clone());
                }
            }
        }
        Ok(())
    }

    pub(super) async fn delete_user(
        &self,
        app: &AppId,
        user: &UserId,
        sent_at: SentAt,
        key: String,
    ) -> Result<EventOutcome> {
        let name = encode(user.as_str());
        let entry = keys::user_entry(app, &name);
        let keys = UserKeys::new(app, &name);
        let [one, two] = &keys.event_keys();
        let mut reply = self
            .accept(&entry, |token| {
                scripts::USER_DELETE
                    .call(&[
                        keys.counts(),
                        keys.rooms(),
                        keys.supers(),
                        keys.refs(),
                        keys.marks(),
                        keys.left(),
                        keys.prefs(),
                        keys.profile(),
                        keys.pending(),
                        one.clone(),
                        two.clone(),
                    ])
                    .arg(token)
                    .arg(LEASE_MICROS)
                    .arg(&key)
                    .arg(sent_at.order_and_time().1)
            })
            .await?;
        match reply.text()?.as_str() {
            code @ ("OK" | "DUP") => {
                if let Some(job) = Job::read(&mut reply)? {
                    self.leave_rooms(app, &name, &[job]).await?;
                }
                Ok(match code {
                    "OK" => EventOutcome::Applied { position: None },
                    _ => EventOutcome::Duplicate { position: None },
                })
            }
            "KEY" => Ok(EventOutcome::Rejected(Rejection::KeyTaken)),
            "USER" => Ok(EventOutcome::Rejected(Rejection::UserNotFound(
                user.clone(),
            ))),
            _ => Err(unexpected_reply()),
        }
    }

    /// Ends the memberships of a deleted user in the rooms that still have them, and then clears the user's jobs.
    pub(crate) async fn leave_rooms(&self, app: &AppId, user: &Enc, jobs: &[Job]) -> Result<()> {
        let mut rooms = Vec::new();
        for job in jobs {
            if let Audience::Leave(left) = &job.audience {
                let as_of = match job.act {
                    Act::AsOf(time) => Some(time),
                    _ => None,
                };
                let left = left.iter().cloned();
                rooms.extend(left.map(|(room, epoch)| (room, epoch.unwrap_or(job.stamp), as_of)));
            }
        }
        // A membership that began after the deletion stays. One room's failure does not keep the user in the others.
        let left: Vec<Result<()>> = stream::iter(rooms)
            .map(|(room, epoch, as_of)| async move {
                self.leave(app, &room, user, Some(epoch), as_of).await
            })
            .buffer_unordered(ROOMS_AT_ONCE)
            .collect()
            .await;
        left.into_iter().collect::<Result<()>>()?;
        let keys = UserKeys::new(app, user);
        let mut call = scripts::USER_DONE.call(&[keys.pending(), keys.left()]);
        for job in jobs {
            call.push(job.stamp);
        }
        self.inner.redis.call(&call).await?;
        Ok(())
    }

    /// Looks whether the users' slots have the keys of these events already. Returns the outcomes of the events whose keys they
    /// have. With `take` the slots keep the other keys.
    pub(super) async fn user_keys(
        &self,
        app: &AppId,
        events: &[(usize, Enc, String)],
        take: bool,
    ) -> Result<Vec<Numbered<EventOutcome>>> {
        let item = |(_, user, key): &(usize, Enc, String)| {
            let call = scripts::USER_KEY.call(&UserKeys::new(app, user).event_keys());
            Item::Script(call.arg(key).arg(u8::from(take)))
        };
        let mut known = Vec::new();
        if events.is_empty() {
            return Ok(known);
        }
        let items: Vec<Item> = events.iter().map(item).collect();
        let answers = self.inner.redis.send_each(&items).await?;
        for ((index, _, _), answer) in events.iter().zip(answers) {
            let outcome = self.reject_unreadable(answer.and_then(key_outcome))?;
            if !matches!(outcome, EventOutcome::Applied { .. }) {
                known.push((*index, outcome));
            }
        }
        Ok(known)
    }
}

/// The outcome that a script's code stands for, if the script answers nothing else.
fn key_outcome(answer: redis::Value) -> Result<EventOutcome> {
    match crate::engine::reply::text(answer)?.as_str() {
        "OK" => Ok(EventOutcome::Applied { position: None }),
        "DUP" => Ok(EventOutcome::Duplicate { position: None }),
        "KEY" => Ok(EventOutcome::Rejected(Rejection::KeyTaken)),
        _ => Err(unexpected_reply()),
    }
}
