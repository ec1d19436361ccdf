//! Messages: sent, edited, recalled.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::fields::{INVALID, except, flag, id, mentions, object, optional_id, text};
use super::time::{Awaited, Waiting, When};
use super::{Checked, Kind, Mentions, Message, Model, Outcome, Room};

/// What `message.updated` replaces; none: it stays.
#[derive(Clone)]
pub(super) struct Edit {
    text: Option<String>,
    message_type: Option<String>,
    mentions: Option<Mentions>,
    payload: Option<Map<String, Value>>,
}

/// Where a message is.
enum Place {
    Room(String),
    /// Two users who have no room.
    Pair(BTreeSet<String>),
}

impl Room {
    /// A message of the history, by its id.
    fn message_known(&mut self, id: &str, history: Option<usize>) -> Checked<&mut Message> {
        let known = self.known(history);
        let mut messages = self.messages[known..].iter_mut();
        messages.find(|m| m.id == id).ok_or("message_not_found")
    }

    /// A recalled message counts for nobody any more. Twice changes nothing.
    pub(super) fn recall(&mut self, id: &str, history: Option<usize>) -> Checked<Outcome> {
        let message = self.message_known(id, history)?;
        if message.recalled {
            return Ok(Outcome::Duplicate(None));
        }
        message.recalled = true;
        Ok(Outcome::Applied(None))
    }

    /// An edit replaces what is given; the last one that the room accepted holds. What a `counts.set` said of the message is
    /// forgotten for a user whom the edit names, or no longer names. Open: that is where it changes whether the message names the
    /// user; and of a recalled message an edit changes nothing.
    pub(super) fn edit(
        &mut self,
        id: &str,
        edit: &Edit,
        history: Option<usize>,
    ) -> Checked<Outcome> {
        let message = self.message_known(id, history)?;
        let before = message.clone();
        if message.recalled {
            return Ok(Outcome::Duplicate(None));
        }
        let edit = edit.clone();
        message.text = edit.text.unwrap_or(before.text.clone());
        message.message_type = edit.message_type.unwrap_or(before.message_type.clone());
        // A silent message mentions nobody, whatever an edit says.
        if let (Some(mentions), Some(_)) = (edit.mentions, message.position) {
            message.mentions = mentions;
        }
        message.payload = edit.payload.unwrap_or(before.payload.clone());
        let after = message.clone();
        if let Some(position) = after.position {
            for (user, membership) in self.memberships_mut() {
                if before.mentions.name(user) != after.mentions.name(user) {
                    membership.set_mentions.remove(&(position as i64));
                }
            }
        }
        let is_same = after.text == before.text
            && after.message_type == before.message_type
            && after.mentions == before.mentions
            && after.payload == before.payload;
        Ok(match is_same {
            true => Outcome::Duplicate(None),
            false => Outcome::Applied(None),
        })
    }
}

impl Model {
    pub(super) fn message_sent(&mut self, event: &Value, when: &When) -> Checked<Outcome> {
        let room = optional_id(event, "room")?;
        let to = optional_id(event, "to")?;
        let message_id = id(event, "id")?;
        let sender = optional_id(event, "sender")?;
        let content = text(event, "text")?.unwrap_or_default();
        let message_type = text(event, "message_type")?.unwrap_or_else(|| "text".to_owned());
        let payload = object(event, "payload")?.unwrap_or_default();
        let given = event.get("time").is_some();
        let mentions = mentions(event)?.unwrap_or_else(|| Mentions::Users(BTreeSet::new()));
        let except = except(event)?;
        let silent = flag(event, "silent")?.unwrap_or(false);
        let mark_read = flag(event, "mark_read")?.unwrap_or(true);
        let room_id = match (room, to, sender) {
            (Some(room), None, _) => room.to_owned(),
            (None, Some(to), Some(sender)) if to != sender => self
                .direct_room(sender, to)
                .map_or_else(|| Self::unlearned(sender, to), str::to_owned),
            _ => return Err(INVALID),
        };
        if to.is_none() && !self.rooms.contains_key(&room_id) {
            return Err("room_not_found");
        }
        if let Some(first) = self
            .rooms
            .get(&room_id)
            .and_then(|room| room.message(message_id))
        {
            return Ok(Outcome::Duplicate(first.position));
        }

        let history = self.history;
        if let (Some(to), Some(sender)) = (to, sender) {
            let pair = BTreeSet::from([to.to_owned(), sender.to_owned()]);
            // Open: what waits for a message between the two waits for the room that it makes.
            let makes = !self.rooms.contains_key(&room_id);
            let waiting: Vec<Waiting> = self
                .waiting
                .extract_if(.., |(two, _)| makes && *two == pair)
                .map(|(_, waiting)| waiting)
                .collect();
            let room = self.rooms.entry(room_id.clone()).or_insert_with(|| {
                let mut room = Room::new(Kind::Direct, when.time);
                room.pair = Some(pair);
                room
            });
            room.waiting.extend(waiting);
            for user in [to, sender] {
                room.bring_in(user, when, history);
            }
            self.come_to_exist(to);
        }
        if let Some(sender) = sender {
            self.come_to_exist(sender);
        }
        self.accepted += 1;
        let serial = self.accepted;
        let by_stamp = self.stamped(&room_id, when);
        let accepted = self.stamp(&room_id);
        let room = self.room_mut(&room_id)?;
        let position = (!silent).then(|| room.head() as u64 + 1);
        room.messages.push(Message {
            id: message_id.to_owned(),
            position,
            sender: sender.map(str::to_owned),
            time: when.time,
            mentions,
            except,
            recalled: false,
            text: content,
            message_type,
            payload,
            given,
            accepted,
            serial,
        });
        room.read_on_arrival(message_id, when);
        if let Some(sender) = sender {
            room.sent_by(sender, mark_read, &by_stamp);
        }
        room.waited_for(message_id, when.accepted, history);
        Ok(Outcome::Applied(position))
    }

    /// Where the message is that an event names: in a room, or between `sender` and `to`. Open: where the two have several rooms,
    /// in the first one that knows the message.
    fn place_of_message(&self, event: &Value, message: &str) -> Checked<Place> {
        let room = optional_id(event, "room")?;
        let (to, sender) = (optional_id(event, "to")?, optional_id(event, "sender")?);
        match (room, to, sender) {
            (Some(room), None, _) if self.rooms.contains_key(room) => {
                Ok(Place::Room(room.to_owned()))
            }
            (Some(_), None, _) => Err("room_not_found"),
            (None, Some(to), Some(sender)) if to != sender => {
                let rooms = self.direct_rooms(sender, to);
                let knows = |room: &&&str| self.rooms[**room].message(message).is_some();
                let room = rooms.iter().find(knows).or(rooms.first());
                Ok(match room {
                    Some(room) => Place::Room((*room).to_owned()),
                    None => Place::Pair(BTreeSet::from([sender.to_owned(), to.to_owned()])),
                })
            }
            _ => Err(INVALID),
        }
    }

    /// Does something to a message that is known; by time what names an unknown one waits. Open: also where the two have no room
    /// yet; nothing is made then. By arrival the message is unknown there, and not the room.
    fn known_or_awaited(
        &mut self,
        event: &Value,
        what: Awaited,
        when: &When,
        known: impl FnOnce(&mut Room, &str, Option<usize>) -> Checked<Outcome>,
    ) -> Checked<Outcome> {
        let message = id(event, "id")?;
        let history = self.history;
        match self.place_of_message(event, message)? {
            Place::Room(room) => {
                let room = self.room_mut(&room)?;
                match known(room, message, history) {
                    Err("message_not_found") if when.is_by_time() => {
                        Ok(room.wait(message, what, *when))
                    }
                    outcome => outcome,
                }
            }
            Place::Pair(pair) if when.is_by_time() => {
                let id = message.to_owned();
                let when = *when;
                self.waiting.push((pair, Waiting { id, what, when }));
                Ok(Outcome::Applied(None))
            }
            Place::Pair(_) => Err("message_not_found"),
        }
    }

    pub(super) fn message_recalled(&mut self, event: &Value, when: &When) -> Checked<Outcome> {
        self.known_or_awaited(event, Awaited::Recall, when, Room::recall)
    }

    pub(super) fn message_updated(&mut self, event: &Value, when: &When) -> Checked<Outcome> {
        let edit = Edit {
            text: text(event, "text")?,
            message_type: text(event, "message_type")?,
            mentions: mentions(event)?,
            payload: object(event, "payload")?,
        };
        let what = Awaited::Edit(edit.clone());
        self.known_or_awaited(event, what, when, |room, id, history| {
            room.edit(id, &edit, history)
        })
    }
}
