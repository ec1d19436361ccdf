//! Messages to a room, or to the direct room of two users.

use super::room::{RoomWorker, pair_of, with_event_and_time_keys};
use super::steps::{Found, IncomingMessage, RoomSteps, SentAt, Step};
use super::unexpected_reply;
use crate::counts::room::Job;
use crate::engine::deliver::LEASE_MICROS;
use crate::error::Result;
use crate::event::{
    Change, Edit, EventOutcome, Mentions, Message, RoomOrPeer, Subject, UnreadFrom, Wait,
};
use crate::keys::{Enc, encode};
use crate::names::{MessageId, RoomId, UserId};
use crate::scripts::{self, ScriptCall};

impl RoomWorker<'_> {
    pub(super) async fn send(&mut self, messages: Vec<IncomingMessage>) -> Result<()> {
        let Some(first) = messages.first() else {
            return Ok(());
        };
        let found = first.found;
        let pair = match (&first.message.place, &first.message.sender) {
            (RoomOrPeer::With(to), Some(sender)) => {
                Some((encode(sender.as_str()), encode(to.as_str())))
            }
            _ => None,
        };
        let mut reply = self
            .accept(|token| self.send_call(token, pair.as_ref(), found, &messages))
            .await?;
        let last_id = Found::New(self.writer.direct_room_ids(self.app).last());
        match reply.text()?.as_str() {
            "OK" => {
                self.read_accepted(&mut reply)?;
                self.wants_trim |= reply.number()? == 1;
                for IncomingMessage { index, .. } in &messages {
                    let status = reply.text()?;
                    let position = Some(reply.number()?).filter(|p| *p > 0);
                    let outcome = match status.as_str() {
                        "A" => EventOutcome::Applied { position },
                        "D" => EventOutcome::Duplicate { position },
                        _ => return Err(unexpected_reply()),
                    };
                    // A repeated message whose job is unfinished is delivered again: with this call's outcome the caller is
                    // promised that the counts include the message.
                    self.work.jobs.extend(Job::read(&mut reply)?);
                    self.outcomes.push((*index, outcome));
                }
                let mut unread = Vec::new();
                for _ in 0..reply.number()? {
                    let (user, time) = (reply.text()?, reply.text()?);
                    let time = crate::counts::number::parse(Some(&time))?;
                    unread.push((Enc::stored(user), time, reply.text()?, reply.number()?));
                }
                // What else has waited for these messages.
                while !reply.is_empty() {
                    self.work.jobs.extend(Job::read(&mut reply)?);
                }
                for (user, time, id, accepted) in unread {
                    let Ok(id) = MessageId::parse(crate::keys::decode(&id)) else {
                        continue;
                    };
                    // It was answered when it came. That it is late by now tells nobody.
                    let from = UnreadFrom::Id(id);
                    let sent_at = SentAt::placed(time);
                    // The script keeps it for the next call with this message. By this key the room carries it out only once.
                    let key = self.writer.key_of_waiting(&user, accepted);
                    let _ = Box::pin(self.unread_from(&user, &from, sent_at, &key)).await?;
                }
            }
            // The room is no longer the two users' own (their slots may not know that yet), so the messages go to another one.
            "FULL" | "KIND" | "LEFT" if pair.is_some() && found != last_id => {
                self.has_rejected = true;
                self.send_elsewhere(messages, found).await?;
            }
            code => {
                let rejected = self.reject(code)?;
                for IncomingMessage { index, .. } in &messages {
                    self.outcomes.push((*index, rejected.clone()));
                }
            }
        }
        Ok(())
    }

    /// The call by which the room, or the direct room of a pair of users, accepts messages.
    fn send_call(
        &self,
        token: u64,
        pair: Option<&(Enc, Enc)>,
        found: Found,
        messages: &[IncomingMessage],
    ) -> ScriptCall {
        let history = &self.writer.inner.history;
        let keys = &self.keys;
        let [timed, bounds, arrived] = keys.of_time();
        let order = messages.first().map(|first| first.sent_at.order_and_time());
        let mut call = scripts::MESSAGE_SEND
            .call(&[
                keys.meta(),
                keys.members(),
                keys.ids(),
                keys.log(),
                keys.allmentions(),
                keys.pending(),
                timed,
                bounds,
                arrived,
                keys.recalled(),
            ])
            .arg(token)
            .arg(LEASE_MICROS)
            .arg(history.max_messages)
            .arg(history.max_age_micros())
            .arg(pair.map_or("", |(sender, _)| sender.as_str()))
            .arg(pair.map_or("", |(_, to)| to.as_str()))
            .arg(match found {
                Found::New(_) => "new",
                Found::Existing => "existing",
                Found::Rejoined => "rejoined",
            })
            .arg(order.unwrap_or_default().0);
        for incoming in messages {
            let IncomingMessage {
                message, sent_at, ..
            } = incoming;
            push_message(&mut call, message, *sent_at, history.text_characters);
        }
        call
    }

    /// Changes a message.
    pub(super) async fn edit(
        &mut self,
        edit: &Edit,
        sent_at: SentAt,
        key: &str,
    ) -> Result<EventOutcome> {
        let history = &self.writer.inner.history;
        let keys = &self.keys;
        let [one, two] = pair_of(&edit.place, edit.sender.as_ref());
        let given =
            |value: Option<&str>| value.map(|value| format!("={value}")).unwrap_or_default();
        let text = edit.text.as_deref();
        let text = text.map(|text| first_characters(text, history.text_characters));
        let mentions = edit.mentions.as_ref().map(mention_list);
        let earlier = self.writer.inner.redis.earlier_versions_until();
        let mut reply = self
            .accept(|token| {
                let own = [
                    keys.meta(),
                    keys.members(),
                    keys.ids(),
                    keys.allmentions(),
                    keys.pending(),
                ];
                scripts::MESSAGE_UPDATE
                    .call(&with_event_and_time_keys(keys, own))
                    .arg(token)
                    .arg(LEASE_MICROS)
                    .arg(key)
                    .arg(history.max_messages)
                    .arg(history.max_age_micros())
                    .arg(encode(edit.id.as_str()).as_str())
                    .arg(&one)
                    .arg(&two)
                    .arg(given(text))
                    .arg(given(edit.message_type.as_deref()))
                    .arg(given(edit.payload.as_deref()))
                    .arg(given(mentions.as_deref()))
                    .arg(earlier)
                    .arg(sent_at.order_and_time().0)
            })
            .await?;
        let outcome = match reply.text()?.as_str() {
            "OK" => EventOutcome::Applied { position: None },
            "DUP" => EventOutcome::Duplicate { position: None },
            code => return self.reject(code),
        };
        self.read_accepted(&mut reply)?;
        self.wants_trim |= reply.number()? == 1;
        // The edit before it may not have reached everybody.
        self.work
            .repeated
            .extend(Some(reply.number()?).filter(|at| *at > 0));
        Ok(outcome)
    }

    /// Sends to another room that the two users have, or to a new one with the next id that it may have.
    async fn send_elsewhere(&mut self, messages: Vec<IncomingMessage>, tried: Found) -> Result<()> {
        let Some(Message {
            place: RoomOrPeer::With(to),
            sender: Some(sender),
            ..
        }) = messages.first().map(|incoming| &incoming.message)
        else {
            return Err(unexpected_reply());
        };
        let ids = self.writer.direct_room_ids(self.app);
        let (name, found) = match tried {
            Found::Existing => self.look_for_room(sender, to).await?,
            Found::Rejoined => (ids.of(sender, to, 0)?, Found::New(0)),
            Found::New(n) => (ids.of(sender, to, n + 1)?, Found::New(n + 1)),
        };
        let step = |incoming: IncomingMessage| Step {
            index: incoming.index,
            sent_at: incoming.sent_at,
            found,
            ..Step::internal(Change::Message(incoming.message))
        };
        let steps = messages.into_iter().map(step).collect();
        let applied = self
            .writer
            .apply_room(self.app, RoomSteps { name, steps }, Wait::Applied);
        self.outcomes.extend(Box::pin(applied).await?);
        Ok(())
    }

    /// What waits for a message between two users, whose room others have taken, waits in the room that the message would make.
    pub(super) async fn wait_elsewhere(
        &mut self,
        (tried, change): (Found, Change),
        sent_at: SentAt,
        key: String,
    ) -> Result<EventOutcome> {
        let ids = self.writer.direct_room_ids(self.app);
        let (Found::New(n), Some(Subject::Pair(one, two))) = (tried, change.subject()) else {
            return self.reject("MESSAGE");
        };
        if n == ids.last() {
            return self.reject("MESSAGE");
        }
        let name = ids.of(one, two, n + 1)?;
        let step = Step {
            sent_at,
            key,
            found: Found::New(n + 1),
            ..Step::internal(change)
        };
        let steps = vec![step];
        let applied = self
            .writer
            .apply_room(self.app, RoomSteps { name, steps }, Wait::Applied);
        let outcome = Box::pin(applied).await?.pop();
        outcome.map_or_else(|| Err(unexpected_reply()), |(_, outcome)| Ok(outcome))
    }

    /// Looks for the direct room of two users after one of them has left the room of this worker: another room that either of
    /// them has by now, or else this one again.
    async fn look_for_room(&self, one: &UserId, two: &UserId) -> Result<(RoomId, Found)> {
        let pairs = [(one.clone(), two.clone()), (two.clone(), one.clone())];
        let by_pair = self.writer.direct_rooms_of(self.app, &pairs).await?;
        let by_pair: Vec<Vec<RoomId>> = by_pair.into_values().collect::<Result<_>>()?;
        let rooms: Vec<&RoomId> = by_pair.iter().flatten().collect();
        let other = rooms.iter().find(|room| **room != self.id);
        Ok(match other.or(rooms.first()) {
            Some(room) => ((*room).clone(), Found::Rejoined),
            None => {
                let ids = self.writer.direct_room_ids(self.app);
                (ids.of(one, two, 0)?, Found::New(0))
            }
        })
    }
}

/// The first characters of a text.
fn first_characters(text: &str, characters: usize) -> &str {
    let end = text.char_indices().nth(characters).map(|(at, _)| at);
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

fn push_message(call: &mut ScriptCall, message: &Message, sent_at: SentAt, characters: usize) {
    let mentions = mention_list(&message.mentions);
    call.push(encode(message.id.as_str()).as_str());
    call.push(
        message
            .sender
            .as_ref()
            .map(|s| encode(s.as_str()).as_str().to_owned())
            .unwrap_or_default(),
    );
    call.push(sent_at.time);
    call.push(u8::from(message.silent));
    call.push(u8::from(message.mark_read));
    call.push(mentions);
    call.push(first_characters(&message.text, characters));
    call.push(&message.message_type);
    call.push(u8::from(sent_at.given));
    call.push(message.payload.as_deref().unwrap_or_default());
    call.push(user_list(&message.except));
}

/// Whom a message mentions, as the scripts take it.
fn mention_list(mentions: &Mentions) -> String {
    match mentions {
        Mentions::All => "*".to_owned(),
        Mentions::Users(users) => user_list(users),
    }
}

/// Users as a comma list.
fn user_list(users: &[UserId]) -> String {
    let users: Vec<Enc> = users.iter().map(|user| encode(user.as_str())).collect();
    let users: Vec<&str> = users.iter().map(Enc::as_str).collect();
    users.join(",")
}
