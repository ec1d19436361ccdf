//! Messages on their way into a room, or into the direct room of two.

use super::room::Worker;
use super::steps::{Found, RoomSteps, Sent, SentAt, Step};
use super::unexpected;
use crate::counts::room::Job;
use crate::engine::deliver::LEASE_MICROS;
use crate::error::Result;
use crate::event::{Change, EventOutcome, Mentions, Message, Place, Wait};
use crate::keys::{Enc, encode};
use crate::names::{RoomId, UserId};
use crate::scripts::{self, Call};

impl Worker<'_> {
    pub(super) async fn send(&mut self, messages: Vec<Sent>) -> Result<()> {
        let Some(Sent {
            message: first,
            how,
            ..
        }) = messages.first()
        else {
            return Ok(());
        };
        let how = *how;
        let pair = match (&first.place, &first.sender) {
            (Place::With(to), Some(sender)) => Some((encode(sender.as_str()), encode(to.as_str()))),
            _ => None,
        };
        let history = &self.writer.inner.history;
        let keys = &self.keys;
        let mut reply = self
            .accept(|token| {
                let mut call = scripts::MESSAGE_SEND
                    .call(&[
                        keys.meta(),
                        keys.members(),
                        keys.ids(),
                        keys.log(),
                        keys.allmentions(),
                        keys.pending(),
                    ])
                    .arg(token)
                    .arg(LEASE_MICROS)
                    .arg(history.max_messages)
                    .arg(history.max_age_micros())
                    .arg(pair.as_ref().map_or("", |(one, _)| one.as_str()))
                    .arg(pair.as_ref().map_or("", |(_, two)| two.as_str()))
                    .arg(match how {
                        Found::Made(_) => 0,
                        Found::There => 1,
                        Found::Again => 2,
                    });
                for sent in &messages {
                    push_message(&mut call, &sent.message, sent.at, history.text_characters);
                }
                call
            })
            .await?;
        let last = Found::Made(self.writer.direct_room_ids(self.app).last());
        match reply.text()?.as_str() {
            "OK" => {
                self.take(&mut reply)?;
                self.much |= reply.number()? == 1;
                for Sent { index, .. } in &messages {
                    let status = reply.text()?;
                    let position = Some(reply.number()?).filter(|p| *p > 0);
                    let outcome = match status.as_str() {
                        "A" => EventOutcome::Applied { position },
                        "D" => EventOutcome::Duplicate { position },
                        _ => return Err(unexpected()),
                    };
                    // A known message whose fan-out is unfinished is delivered again: whoever waits for the answer
                    // of this call is promised that the counts show it.
                    self.work.jobs.extend(Job::read(&mut reply)?);
                    self.outcomes.push((*index, outcome));
                }
            }
            // The room that the two had is no longer theirs, whether or not they have been told: they have none then, and get
            // one.
            "FULL" | "KIND" | "LEFT" if pair.is_some() && how != last => {
                self.was_refused = true;
                self.send_elsewhere(messages, how).await?;
            }
            code => {
                let refused = self.refused(code)?;
                for Sent { index, .. } in &messages {
                    self.outcomes.push((*index, refused.clone()));
                }
            }
        }
        Ok(())
    }

    /// Sends to another room that the two have, or to the next one that they may have.
    pub(super) async fn send_elsewhere(&mut self, messages: Vec<Sent>, tried: Found) -> Result<()> {
        let Some(Message {
            place: Place::With(to),
            sender: Some(sender),
            ..
        }) = messages.first().map(|sent| &sent.message)
        else {
            return Err(unexpected());
        };
        let ids = self.writer.direct_room_ids(self.app);
        let (name, how) = match tried {
            Found::There => self.look_for_room(sender, to).await?,
            Found::Again => (ids.of(sender, to, 0)?, Found::Made(0)),
            Found::Made(n) => (ids.of(sender, to, n + 1)?, Found::Made(n + 1)),
        };
        let step = |sent: Sent| Step {
            index: sent.index,
            sent: sent.at,
            how,
            ..Step::own(Change::Message(sent.message))
        };
        let steps = messages.into_iter().map(step).collect();
        let sent = self
            .writer
            .room(self.app, RoomSteps { name, steps }, Wait::Applied);
        self.outcomes.extend(Box::pin(sent).await?);
        Ok(())
    }

    /// The direct room of two, of whom one is not in the room that was theirs a moment ago: another one that either of them
    /// has by now, else that one again.
    pub(super) async fn look_for_room(
        &self,
        one: &UserId,
        two: &UserId,
    ) -> Result<(RoomId, Found)> {
        let pairs = [(one.clone(), two.clone()), (two.clone(), one.clone())];
        let met = self.writer.direct_rooms_of(self.app, &pairs).await?;
        let met: Vec<Vec<RoomId>> = met.into_values().collect::<Result<_>>()?;
        let rooms: Vec<&RoomId> = met.iter().flatten().collect();
        let other = rooms.iter().find(|room| **room != self.id);
        Ok(match other.or(rooms.first()) {
            Some(room) => ((*room).clone(), Found::Again),
            None => {
                let ids = self.writer.direct_room_ids(self.app);
                (ids.of(one, two, 0)?, Found::Made(0))
            }
        })
    }
}

/// The first characters of a text.
pub(super) fn first(text: &str, characters: usize) -> &str {
    let end = text.char_indices().nth(characters).map(|(at, _)| at);
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

pub(super) fn push_message(call: &mut Call, message: &Message, at: SentAt, characters: usize) {
    let mentions = match &message.mentions {
        Mentions::All => "*".to_owned(),
        Mentions::Users(users) => {
            let users: Vec<Enc> = users.iter().map(|u| encode(u.as_str())).collect();
            let users: Vec<&str> = users.iter().map(Enc::as_str).collect();
            users.join(",")
        }
    };
    call.push(encode(message.id.as_str()).as_str());
    call.push(
        message
            .sender
            .as_ref()
            .map(|s| encode(s.as_str()).as_str().to_owned())
            .unwrap_or_default(),
    );
    call.push(at.time);
    call.push(u8::from(message.silent));
    call.push(u8::from(message.mark_read));
    call.push(mentions);
    call.push(first(&message.text, characters));
    call.push(&message.message_type);
    call.push(u8::from(at.given));
    call.push(message.payload.as_deref().unwrap_or_default());
}
