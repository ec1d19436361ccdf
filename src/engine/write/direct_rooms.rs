//! Which direct rooms two users have with each other.

use std::collections::{BTreeSet, HashMap};

use super::steps::Found;
use super::{Numbered, Writer};
use crate::connection::Item;
use crate::engine::reply::maybe_text;
use crate::error::{Error, Result};
use crate::event::{Change, Event, Subject};
use crate::keys::{self, RoomKeys, UserKeys, encode};
use crate::names::{AppId, DirectRoomIds, RoomId, UserId};

/// What is known of the direct rooms of those whom a request names as two.
pub(super) struct DirectRooms {
    /// By who acts and by the other one.
    met: Met,
    /// By the event's place in the request: of several rooms the one that knows the message.
    known_in: HashMap<usize, RoomId>,
}

/// The direct rooms that the first of two has with the second; what can't be read has that as its own answer.
pub(crate) type Met = HashMap<(UserId, UserId), Result<Vec<RoomId>>>;

/// Sender and receiver of a message to a user.
fn sent_to(event: &Event) -> Option<(&UserId, &UserId)> {
    match (&event.change, event.change.subject()) {
        (Change::Message(_), Some(Subject::Pair(sender, to))) => Some((sender, to)),
        _ => None,
    }
}

impl Writer {
    /// How the direct rooms of an app are called that messages make.
    pub(crate) fn direct_room_ids(&self, app: &AppId) -> DirectRoomIds {
        let ids = self.inner.direct_rooms.get(app);
        ids.copied().unwrap_or_default()
    }

    /// The direct rooms of the pairs of users whom the events name; of a message's sender who has none those of the receiver too.
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
        let mut met = self.direct_rooms_of(app, &pairs).await?;
        let sent = events.iter().filter_map(|(_, event)| sent_to(event));
        self.of_the_others(app, sent, &mut met).await?;
        let known_in = self.rooms_that_know(app, events, &met).await?;
        Ok(DirectRooms { met, known_in })
    }

    /// The rooms that an event is for, and how they were found. None: the two have no room in which anything could be read.
    pub(super) fn rooms_for(
        &self,
        app: &AppId,
        index: usize,
        change: &Change,
        direct: &DirectRooms,
    ) -> Result<(Vec<RoomId>, Found)> {
        let (one, two) = match change.subject() {
            Some(Subject::Room(room)) => return Ok((vec![room.clone()], Found::There)),
            Some(Subject::Pair(one, two)) => (one, two),
            _ => return Err(Error::Internal("an event that is of no room".into())),
        };
        let rooms = match direct.met.get(&(one.clone(), two.clone())) {
            Some(Ok(rooms)) => rooms.as_slice(),
            Some(Err(error)) => return Err(error.clone()),
            None => &[],
        };
        if !matches!(change, Change::Message(_)) {
            return Ok((rooms.to_vec(), Found::There));
        }
        if let Some(room) = direct.known_in.get(&index).or(rooms.first()) {
            return Ok((vec![room.clone()], Found::There));
        }
        // Who has left it is still the peer of the one who is there.
        let others = direct.met.get(&(two.clone(), one.clone()));
        let other = others.and_then(|rooms| rooms.as_ref().ok()?.first());
        Ok(match other {
            Some(room) => (vec![room.clone()], Found::Again),
            None => {
                let made = self.direct_room_ids(app).of(one, two, 0)?;
                (vec![made], Found::Made(0))
            }
        })
    }

    /// Looks also at the direct rooms that the second of two has with the first, where the first has none.
    pub(crate) async fn of_the_others(
        &self,
        app: &AppId,
        pairs: impl Iterator<Item = (&UserId, &UserId)>,
        met: &mut Met,
    ) -> Result<()> {
        let mut missing = BTreeSet::new();
        for (one, two) in pairs {
            let (pair, other) = ((one.clone(), two.clone()), (two.clone(), one.clone()));
            let none = met
                .get(&pair)
                .is_some_and(|rooms| matches!(rooms, Ok(rooms) if rooms.is_empty()));
            if none && !met.contains_key(&other) {
                missing.insert(other);
            }
        }
        let missing: Vec<(UserId, UserId)> = missing.into_iter().collect();
        if !missing.is_empty() {
            met.extend(self.direct_rooms_of(app, &missing).await?);
        }
        Ok(())
    }

    /// Of messages to somebody with whom the sender has several rooms: the room that knows the message. It was sent before, when
    /// that was the one that the two had.
    pub(super) async fn rooms_that_know(
        &self,
        app: &AppId,
        events: &[Numbered<Event>],
        met: &Met,
    ) -> Result<HashMap<usize, RoomId>> {
        let (mut items, mut asked) = (Vec::new(), Vec::new());
        for (index, event) in events {
            let (Change::Message(message), Some((sender, to))) = (&event.change, sent_to(event))
            else {
                continue;
            };
            let id = &message.id;
            let Some(Ok(rooms)) = met.get(&(sender.clone(), to.clone())) else {
                continue;
            };
            for room in rooms.iter().filter(|_| rooms.len() > 1) {
                let mut get = redis::cmd("HGET");
                get.arg(RoomKeys::new(app, &encode(room.as_str())).ids())
                    .arg(encode(id.as_str()).as_str());
                items.push(Item::Plain(get));
                asked.push((*index, room));
            }
        }
        let mut known = HashMap::new();
        if items.is_empty() {
            return Ok(known);
        }
        let answers = self.inner.redis.each(&items).await?;
        for ((index, room), answer) in asked.into_iter().zip(answers) {
            // What can't be read there the room finds out for itself.
            if matches!(answer, Ok(redis::Value::BulkString(_))) {
                known.insert(index, room.clone());
            }
        }
        Ok(known)
    }

    /// The direct rooms that each of these has with the other; what can't be read has that as its own answer.
    pub(crate) async fn direct_rooms_of(
        &self,
        app: &AppId,
        pairs: &[(UserId, UserId)],
    ) -> Result<Met> {
        let items: Vec<Item> = pairs
            .iter()
            .map(|(user, peer)| {
                let mut get = redis::cmd("HGET");
                get.arg(UserKeys::of(app, user).refs())
                    .arg(format!("direct:{}", encode(peer.as_str()).as_str()));
                Item::Plain(get)
            })
            .collect();
        let answers = self.inner.redis.each(&items).await?;
        let mut met = HashMap::new();
        for (pair, answer) in pairs.iter().zip(answers) {
            let list = answer.and_then(|answer| {
                self.inner
                    .faults
                    .at(maybe_text(answer), || UserKeys::of(app, &pair.0).refs())
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
            met.insert(pair.clone(), rooms);
        }
        Ok(met)
    }

    /// Whether each of these rooms is a direct one. A room that is not there yet is not: an event that says so makes it one, or a
    /// message between two.
    pub(crate) async fn are_direct(&self, app: &AppId, rooms: &[&RoomId]) -> Result<Vec<bool>> {
        let kind_of = |room: &&RoomId| {
            let mut get = redis::cmd("HGET");
            get.arg(RoomKeys::new(app, &encode(room.as_str())).meta())
                .arg("kind");
            Item::Plain(get)
        };
        let items: Vec<Item> = rooms.iter().map(kind_of).collect();
        let kinds = self.inner.redis.each(&items).await?;
        let is_direct = |kind| match kind {
            Err(Error::Unreadable(_)) => Ok(false),
            kind => Ok(matches!(maybe_text(kind?), Ok(Some(kind)) if kind == "direct")),
        };
        kinds.into_iter().map(is_direct).collect()
    }
}
