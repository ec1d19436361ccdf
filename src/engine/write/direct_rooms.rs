//! The direct rooms that two users have with each other.

use std::collections::{BTreeSet, HashMap};

use super::Writer;
use super::steps::{DirectRooms, Found, Numbered, PairRooms};
use crate::connection::Item;
use crate::engine::reply::maybe_text;
use crate::error::{Error, Result};
use crate::event::{Change, Event, Subject};
use crate::keys::{self, RoomKeys, UserKeys, encode};
use crate::names::{AppId, DirectRoomIds, RoomId, UserId};

/// Sender and receiver of the message that an event is about, if it was sent to a user.
fn sender_and_receiver(event: &Event) -> Option<(&UserId, &UserId)> {
    match (event.change.message_id(), event.change.subject()) {
        (Some(_), Some(Subject::Pair(sender, to))) => Some((sender, to)),
        _ => None,
    }
}

impl Writer {
    /// How an app names the direct rooms that messages make.
    pub(crate) fn direct_room_ids(&self, app: &AppId) -> DirectRoomIds {
        let ids = self.inner.direct_rooms.get(app);
        ids.copied().unwrap_or_default()
    }

    /// Looks up the direct rooms of the pairs of users whom the events name. If a message's sender has none with the receiver, it
    /// looks up those that the receiver has with the sender.
    pub(super) async fn direct_rooms(
        &self,
        app: &AppId,
        events: &[Numbered<Event>],
    ) -> Result<DirectRooms> {
        let pair = |event: &Event| match event.change.subject() {
            Some(Subject::Pair(one, two)) => Some((one.clone(), two.clone())),
            _ => None,
        };
        let mut pairs: Vec<_> = events.iter().filter_map(|(_, event)| pair(event)).collect();
        pairs.sort();
        pairs.dedup();
        let mut by_pair = self.direct_rooms_of(app, &pairs).await?;
        let sent = events
            .iter()
            .filter_map(|(_, event)| sender_and_receiver(event));
        self.add_reversed(app, sent, &mut by_pair).await?;
        let known_in = self.rooms_that_know(app, events, &by_pair).await?;
        Ok(DirectRooms { by_pair, known_in })
    }

    /// The rooms that an event is for, and how they were found. An empty list: the two users of a read have no room.
    pub(super) fn rooms_for(
        &self,
        app: &AppId,
        index: usize,
        change: &Change,
        direct: &DirectRooms,
    ) -> Result<(Vec<RoomId>, Found)> {
        let (one, two) = match change.subject() {
            Some(Subject::Room(room)) => return Ok((vec![room.clone()], Found::Existing)),
            Some(Subject::Pair(one, two)) => (one, two),
            _ => return Err(Error::Internal("an event that is of no room".into())),
        };
        let rooms = match direct.by_pair.get(&(one.clone(), two.clone())) {
            Some(Ok(rooms)) => rooms.as_slice(),
            Some(Err(error)) => return Err(error.clone()),
            None => &[],
        };
        if matches!(change, Change::CountsSet { .. }) {
            // The numbers are of one room.
            return Ok((rooms.iter().take(1).cloned().collect(), Found::Existing));
        }
        if change.message_id().is_none() {
            return Ok((rooms.to_vec(), Found::Existing));
        }
        if let Some(room) = direct.known_in.get(&index).or(rooms.first()) {
            return Ok((vec![room.clone()], Found::Existing));
        }
        // A user who has left the room is still the peer of the user who is in it.
        let others = direct.by_pair.get(&(two.clone(), one.clone()));
        let other = others.and_then(|rooms| rooms.as_ref().ok()?.first());
        Ok(match other {
            Some(room) => (vec![room.clone()], Found::Rejoined),
            None => {
                let made = self.direct_room_ids(app).of(one, two, 0)?;
                (vec![made], Found::New(0))
            }
        })
    }

    /// For pairs where the first user has no direct room with the second: adds those that the second has with the first.
    pub(crate) async fn add_reversed(
        &self,
        app: &AppId,
        pairs: impl Iterator<Item = (&UserId, &UserId)>,
        by_pair: &mut PairRooms,
    ) -> Result<()> {
        let mut missing = BTreeSet::new();
        for (one, two) in pairs {
            let (pair, reversed) = ((one.clone(), two.clone()), (two.clone(), one.clone()));
            let has_none = by_pair
                .get(&pair)
                .is_some_and(|rooms| matches!(rooms, Ok(rooms) if rooms.is_empty()));
            if has_none && !by_pair.contains_key(&reversed) {
                missing.insert(reversed);
            }
        }
        let missing: Vec<(UserId, UserId)> = missing.into_iter().collect();
        if !missing.is_empty() {
            by_pair.extend(self.direct_rooms_of(app, &missing).await?);
        }
        Ok(())
    }

    /// For messages where the sender has several rooms with the receiver: the room that knows the message. A repetition, or what
    /// concerns the message later, goes to the room where it was sent first.
    async fn rooms_that_know(
        &self,
        app: &AppId,
        events: &[Numbered<Event>],
        by_pair: &PairRooms,
    ) -> Result<HashMap<usize, RoomId>> {
        let (mut items, mut asked_rooms) = (Vec::new(), Vec::new());
        for (index, event) in events {
            let (Some(id), Some((sender, to))) =
                (event.change.message_id(), sender_and_receiver(event))
            else {
                continue;
            };
            let Some(Ok(rooms)) = by_pair.get(&(sender.clone(), to.clone())) else {
                continue;
            };
            for room in rooms.iter().filter(|_| rooms.len() > 1) {
                let mut get = redis::cmd("HGET");
                get.arg(RoomKeys::new(app, &encode(room.as_str())).ids())
                    .arg(encode(id.as_str()).as_str());
                items.push(Item::Plain(get));
                asked_rooms.push((*index, room));
            }
        }
        let mut known = HashMap::new();
        if items.is_empty() {
            return Ok(known);
        }
        let answers = self.inner.redis.send_each(&items).await?;
        for ((index, room), answer) in asked_rooms.into_iter().zip(answers) {
            // An unreadable answer is no failure here: the room meets it again when it accepts the message.
            if matches!(answer, Ok(redis::Value::BulkString(_))) {
                known.insert(index, room.clone());
            }
        }
        Ok(known)
    }

    /// Looks up the direct rooms that the first user of each pair has with the second.
    pub(crate) async fn direct_rooms_of(
        &self,
        app: &AppId,
        pairs: &[(UserId, UserId)],
    ) -> Result<PairRooms> {
        let items: Vec<Item> = pairs
            .iter()
            .map(|(user, peer)| {
                let mut get = redis::cmd("HGET");
                get.arg(UserKeys::of(app, user).refs())
                    .arg(format!("direct:{}", encode(peer.as_str()).as_str()));
                Item::Plain(get)
            })
            .collect();
        let answers = self.inner.redis.send_each(&items).await?;
        let mut by_pair = HashMap::new();
        for (pair, answer) in pairs.iter().zip(answers) {
            let list = answer.and_then(|answer| {
                self.inner
                    .faults
                    .at_key(maybe_text(answer), || UserKeys::of(app, &pair.0).refs())
            });
            let rooms = match list {
                Ok(list) => Ok(list
                    .unwrap_or_default()
                    .split(',')
                    .filter_map(|room| RoomId::parse(keys::decode(room)).ok())
                    .collect()),
                Err(error @ Error::Unreadable(_)) => Err(error),
                Err(error) => return Err(error),
            };
            by_pair.insert(pair.clone(), rooms);
        }
        Ok(by_pair)
    }

    /// Whether each of these rooms is a direct one. A room that does not exist is none yet: it becomes one by an event that names
    /// the kind, or by a message between two users.
    pub(crate) async fn are_direct(&self, app: &AppId, rooms: &[&RoomId]) -> Result<Vec<bool>> {
        let kind_of = |room: &&RoomId| {
            let mut get = redis::cmd("HGET");
            get.arg(RoomKeys::new(app, &encode(room.as_str())).meta())
                .arg("kind");
            Item::Plain(get)
        };
        let items: Vec<Item> = rooms.iter().map(kind_of).collect();
        let kinds = self.inner.redis.send_each(&items).await?;
        let is_direct = |kind| match kind {
            Err(Error::Unreadable(_)) => Ok(false),
            kind => Ok(matches!(maybe_text(kind?), Ok(Some(kind)) if kind == "direct")),
        };
        kinds.into_iter().map(is_direct).collect()
    }
}
