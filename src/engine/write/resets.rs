//! Resets of a member's read position: `room.unread` and `counts.set`.

use std::time::Duration;

use super::room::{RoomWorker, unreadable_user, with_event_and_time_keys};
use super::steps::SentAt;
use crate::counts::room::{Job, Membership};
use crate::engine::deliver::LEASE_MICROS;
use crate::engine::reply::{Reply, maybe_text};
use crate::engine::snapshot::Snapshot;
use crate::error::{Error, Result};
use crate::event::{EventOutcome, Rejection, RoomOrPeer, UnreadFrom};
use crate::keys::{Enc, encode};
use crate::names::UserId;
use crate::scripts;

/// How often a room is asked at most while jobs of the member are pending. Two rounds are enough unless other calls keep adding
/// jobs about this very member.
const ROUNDS: u32 = 8;

/// With so many jobs, those that this call has added are delivered before a reset: the room looks through all pending jobs at each
/// reset, and so a call with thousands of them would ask for the square of their number.
const JOBS_AT_RESET: usize = 64;

impl RoomWorker<'_> {
    /// Marks messages as unread for one member.
    pub(super) async fn unread_from(
        &mut self,
        user: &Enc,
        from: &UnreadFrom,
        sent_at: SentAt,
        key: &str,
    ) -> Result<EventOutcome> {
        let (how, value) = match from {
            UnreadFrom::Id(id) => ("id", encode(id.as_str()).as_str().to_owned()),
            UnreadFrom::Time(time) => ("time", time.to_string()),
            UnreadFrom::Position(position) => ("position", position.to_string()),
        };
        self.reset(user, [how, &value, ""], sent_at, key).await
    }

    /// Sets how many messages one member has unread, and if given how many of them are mentions.
    pub(super) async fn set_counts(
        &mut self,
        user: &Enc,
        unread: u64,
        mentions: Option<u64>,
        sent_at: SentAt,
        key: &str,
    ) -> Result<EventOutcome> {
        let mentions = mentions.map(|mentions| mentions.min(unread).to_string());
        let mentions = mentions.unwrap_or_default();
        self.reset(
            user,
            ["count", &unread.to_string(), &mentions],
            sent_at,
            key,
        )
        .await
    }

    /// Has the room accept a reset. Whatever is pending for the member is delivered before.
    async fn reset(
        &mut self,
        user: &Enc,
        what: [&str; 3],
        sent_at: SentAt,
        key: &str,
    ) -> Result<EventOutcome> {
        let (order, time) = sent_at.order_and_time();
        if self.work.jobs.len() >= JOBS_AT_RESET {
            self.deliver_so_far().await?;
        }
        for round in 0..ROUNDS {
            let history = &self.writer.inner.history;
            let keys = &self.keys;
            let own = || {
                [
                    keys.meta(),
                    keys.members(),
                    keys.ids(),
                    keys.log(),
                    keys.allmentions(),
                    keys.pending(),
                ]
            };
            let mut reply = self
                .accept(|token| {
                    scripts::READ_RESET
                        .call(&with_event_and_time_keys(keys, own()))
                        .arg(token)
                        .arg(LEASE_MICROS)
                        .arg(key)
                        .arg(history.max_messages)
                        .arg(history.max_age_micros())
                        .arg(user.as_str())
                        .arg(&what)
                        .arg(order)
                        .arg(&time)
                })
                .await?;
            match reply.text()?.as_str() {
                "WAIT" => self.deliver_before(reply).await?,
                "BUSY" => self.deliver_so_far().await?,
                code => {
                    let outcome = self.outcome(code, reply)?;
                    if self.has_passing() {
                        // The user may be a member by a passing job that has not reached the user's slot.
                        self.work.refresh.insert(user.clone());
                    }
                    return Ok(outcome);
                }
            }
            // What the reset waits for can't be delivered either.
            if self.unreadable.contains(user) {
                return Ok(EventOutcome::Rejected(unreadable_user()));
            }
            // Other calls are adding jobs: they get time to finish them.
            if round > 1 {
                tokio::time::sleep(Duration::from_millis(5 << round)).await;
            }
        }
        let why = "too many deliveries of the room are pending";
        Err(Error::Unavailable(why.into()))
    }

    /// Delivers the pending jobs that a reset has to wait for, and all that this request has accepted in the room so far.
    async fn deliver_before(&mut self, mut reply: Reply) -> Result<()> {
        let _no_job = Job::read(&mut reply)?;
        let pending = reply.list()?.pairs()?;
        let snapshot = Snapshot::read(&mut reply)?;
        self.work.snapshot = snapshot;
        // Members who get these jobs get the marks of other pending jobs with them.
        self.read_unfinished(reply.list()?)?;
        for (id, record) in pending {
            let job = Job::parse(&id, &record)?;
            if self.work.jobs.iter().all(|known| known.stamp != job.stamp) {
                self.work.jobs.push(job);
            }
        }
        self.deliver_so_far().await
    }

    /// The outcome of an event that may have named the peer. A user who has left the room has none with this peer.
    pub(super) async fn with_peer(
        &self,
        place: &RoomOrPeer,
        user: &Enc,
        outcome: EventOutcome,
    ) -> Result<EventOutcome> {
        let RoomOrPeer::With(peer) = place else {
            return Ok(outcome);
        };
        match outcome {
            EventOutcome::Rejected(Rejection::RoomNotFound(_)) => Ok(no_room_with(peer)),
            EventOutcome::Rejected(Rejection::NotAMember) if !self.is_invited(user).await? => {
                Ok(no_room_with(peer))
            }
            outcome => Ok(outcome),
        }
    }

    /// Whether the user is invited to the room.
    pub(super) async fn is_invited(&self, user: &Enc) -> Result<bool> {
        let mut get = redis::cmd("HGET");
        get.arg(self.keys.members()).arg(user.as_str());
        let membership = maybe_text(self.writer.inner.redis.query(&get).await?)?;
        let membership = membership
            .map(|text| Membership::parse(&text))
            .transpose()?;
        Ok(membership.is_some_and(|membership| membership.state == 'i'))
    }
}

fn no_room_with(peer: &UserId) -> EventOutcome {
    EventOutcome::Rejected(Rejection::NoDirectRoom(peer.clone()))
}
