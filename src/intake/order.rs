//! Keeps the order of events that several requests apply at the same time.
//!
//! [`Writer::apply`] keeps the events of one request in order. Among several requests, an event has to stay behind the earlier
//! events that it builds on. Most events build only on those of the same room, so all events of a room go to the same *lane*. A
//! few build on all earlier events. An event that names a direct room by its two users belongs to the lane of that room, which
//! Redis knows, unless an earlier event that is not done yet lets one of the two into a direct room or out of one.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::engine::Writer;
use crate::error::Result;
use crate::event::{Change, Event, Subject};
use crate::names::{AppId, DirectRoomIds, RoomId, UserId};

/// How much is remembered at most. Beyond this, all lanes have to become idle, so that it can be forgotten.
const REMEMBERED: usize = 100_000;

/// Which earlier events an event has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// For those with the same number: they go to the same lane.
    Lane(u64),
    /// For all. All later events wait for this one too.
    Alone,
}

/// What is known of the events that may not be done yet.
#[derive(Default)]
pub(super) struct Order {
    ids: DirectRoomIds,
    /// The direct rooms of pairs of users that events have named, as Redis knew them.
    pairs: HashMap<(UserId, UserId), Vec<RoomId>>,
    /// The users in these pairs.
    paired: HashSet<UserId>,
    /// Whether a room is direct.
    direct: HashMap<RoomId, bool>,
    /// Users who have joined or left direct rooms.
    moved: HashSet<UserId>,
    /// Whether any user may have left a direct room, because one was deleted.
    any_moved: bool,
}

impl Order {
    /// An order without events, for an app that makes the ids of its direct rooms in this way.
    pub(super) fn new(ids: DirectRoomIds) -> Self {
        Self {
            ids,
            ..Self::default()
        }
    }

    /// Forgets everything, because all events so far are done.
    pub(super) fn settled(&mut self) {
        *self = Self::new(self.ids);
    }

    /// Whether an event may be given to a lane now; if not, all earlier events have to be done first.
    pub(super) fn may_go(&self, event: &Event) -> bool {
        if self.pairs.len() + self.moved.len() + self.direct.len() >= REMEMBERED {
            return false;
        }
        match &event.change {
            Change::Member { room, users, .. } => {
                !self.may_be_direct(room) || !users.iter().any(|user| self.paired.contains(user))
            }
            Change::RoomDeleted { room } => !self.may_be_direct(room) || self.paired.is_empty(),
            _ => match pair(event) {
                Some((one, two)) => {
                    !self.any_moved && !self.moved.contains(one) && !self.moved.contains(two)
                }
                None => true,
            },
        }
    }

    /// Adds an event to those that may not be done yet, and returns what it has to wait for.
    pub(super) fn turn(&mut self, event: &Event) -> Result<Turn> {
        self.note_moves(&event.change);
        match event.change.subject() {
            Some(Subject::User(user)) => Ok(lane(&("user", user))),
            Some(Subject::Room(room)) => Ok(lane(&("room", room))),
            Some(Subject::Pair(one, two)) => self.turn_of_pair(one, two),
            Some(Subject::RoomsOf(_)) | None => Ok(Turn::Alone),
        }
    }

    /// Whether a room may be direct. A room of which nothing is known may be.
    fn may_be_direct(&self, room: &RoomId) -> bool {
        self.direct.get(room).is_none_or(|direct| *direct)
    }

    /// Remembers what a change does to direct rooms: which become direct, and who joins or leaves them.
    fn note_moves(&mut self, change: &Change) {
        match change {
            Change::RoomUpdated { room, kind, .. } if *kind == Some("direct") => {
                self.direct.insert(room.clone(), true);
            }
            Change::Member { room, users, .. } if self.may_be_direct(room) => {
                self.moved.extend(users.iter().cloned());
            }
            Change::RoomDeleted { room } => self.any_moved |= self.may_be_direct(room),
            _ => {}
        }
    }

    /// The turn of an event that names a direct room by its two users, of whom `one` acts.
    fn turn_of_pair(&mut self, one: &UserId, two: &UserId) -> Result<Turn> {
        let made = self.ids.of(one, two, 0)?;
        self.paired.extend([one.clone(), two.clone()]);
        self.direct.insert(made.clone(), true);
        let rooms = self.pairs.get(&(one.clone(), two.clone()));
        let others = self.pairs.get(&(two.clone(), one.clone()));
        Ok(match rooms.map(Vec::as_slice) {
            None | Some([]) => {
                let has_other_rooms =
                    |rooms: &Vec<RoomId>| !rooms.is_empty() && *rooms != [made.clone()];
                match others.is_some_and(has_other_rooms) {
                    // This user has left their room, and the other one may still be in it.
                    true => Turn::Alone,
                    false => lane(&("room", &made)),
                }
            }
            // The room was made by an event that may not be done yet, and not under the first of its possible ids.
            Some([room]) if *room != made && others.is_some_and(Vec::is_empty) => Turn::Alone,
            Some([room]) => lane(&("room", room)),
            // The two have several rooms, and a read event is for all of them.
            Some(_) => Turn::Alone,
        })
    }
}

fn lane(name: &impl Hash) -> Turn {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    Turn::Lane(hasher.finish())
}

/// The two users by whom an event names a room.
fn pair(event: &Event) -> Option<(&UserId, &UserId)> {
    match event.change.subject() {
        Some(Subject::Pair(one, two)) => Some((one, two)),
        _ => None,
    }
}

impl Order {
    /// Asks Redis what the order of these events depends on. The answers hold as long as each event [may go](Order::may_go).
    pub(super) async fn look_up(
        &mut self,
        writer: &Writer,
        app: &AppId,
        events: &[&Event],
    ) -> Result<()> {
        let order = self;
        let mut pairs: Vec<(UserId, UserId)> = events
            .iter()
            .filter_map(|event| pair(event))
            .map(|(one, two)| (one.clone(), two.clone()))
            .filter(|pair| !order.pairs.contains_key(pair))
            .collect();
        pairs.sort();
        pairs.dedup();
        let mut found = writer.direct_rooms_of(app, &pairs).await?;
        let asked = pairs.iter().map(|(one, two)| (one, two));
        writer.add_reversed(app, asked, &mut found).await?;
        let others = found.keys().filter(|pair| !order.pairs.contains_key(*pair));
        for pair in others.cloned().collect::<Vec<_>>() {
            // If the rooms can't be read, the writer will reject the event.
            let rooms = found.remove(&pair).and_then(Result::ok).unwrap_or_default();
            for room in &rooms {
                order.direct.insert(room.clone(), true);
            }
            order.pairs.insert(pair, rooms);
        }
        let mut rooms: Vec<&RoomId> = events
            .iter()
            .filter_map(|event| match &event.change {
                Change::Member { room, .. } | Change::RoomDeleted { room } => Some(room),
                _ => None,
            })
            .filter(|room| !order.direct.contains_key(room))
            .collect();
        rooms.sort();
        rooms.dedup();
        let kinds = writer.are_direct(app, &rooms).await?;
        for (room, is_direct) in rooms.into_iter().zip(kinds) {
            order.direct.insert(room.clone(), is_direct);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn event(value: Value) -> Event {
        let line = value.to_string();
        crate::event::read_line(line.as_bytes()).unwrap().unwrap()
    }

    fn sent(sender: &str, to: &str) -> Event {
        event(json!({"type": "message.sent", "id": "1", "sender": sender, "to": to}))
    }

    fn member(what: &str, room: &str, user: &str) -> Event {
        event(json!({"type": format!("member.{what}"), "room": room, "user": user}))
    }

    fn known(rooms: &[(&str, bool)]) -> Order {
        let mut order = Order::default();
        for (room, direct) in rooms {
            order.direct.insert(RoomId::parse(*room).unwrap(), *direct);
        }
        order
    }

    #[test]
    fn one_room_is_one_lane_however_it_is_named() {
        let mut order = known(&[("dm", true), ("group", false)]);
        let pair = |one, two| (UserId::parse(one).unwrap(), UserId::parse(two).unwrap());
        for (one, two) in [("a", "b"), ("b", "a")] {
            order
                .pairs
                .insert(pair(one, two), vec![RoomId::parse("dm").unwrap()]);
        }
        let by_name = event(json!({"type": "message.recalled", "room": "dm", "id": "1"}));
        let dm = order.turn(&by_name).unwrap();
        assert_eq!(order.turn(&sent("a", "b")).unwrap(), dm);
        assert_eq!(order.turn(&sent("b", "a")).unwrap(), dm);
        let group = event(json!({"type": "message.recalled", "room": "group", "id": "1"}));
        assert_ne!(order.turn(&group).unwrap(), dm);
        // The room that a first message makes has the same lane for both senders, and by its own name.
        let made = order.turn(&sent("a", "c")).unwrap();
        assert_eq!(order.turn(&sent("c", "a")).unwrap(), made);
        let (a, c) = pair("a", "c");
        let name = DirectRoomIds::Own.of(&a, &c, 0).unwrap();
        let by_name = event(json!({"type": "room.read", "room": name.as_str(), "user": "a"}));
        assert_eq!(order.turn(&by_name).unwrap(), made);
    }

    #[test]
    fn who_moves_between_direct_rooms_holds_up_whom_they_write_to_and_nobody_else() {
        let mut order = known(&[("dm", true), ("group", false)]);
        order.turn(&member("joined", "group", "a")).unwrap();
        assert!(order.may_go(&sent("a", "b")));
        order.turn(&member("joined", "dm", "a")).unwrap();
        assert!(!order.may_go(&sent("a", "b")));
        assert!(!order.may_go(&sent("b", "a")));
        assert!(order.may_go(&sent("b", "c")));
        order.turn(&sent("b", "c")).unwrap();
        assert!(order.may_go(&member("left", "group", "b")));
        assert!(!order.may_go(&member("left", "dm", "b")));
        let deleted = |room: &str| event(json!({"type": "room.deleted", "room": room}));
        assert!(order.may_go(&deleted("group")));
        assert!(!order.may_go(&deleted("dm")));
        order.settled();
        order.direct.insert(RoomId::parse("dm").unwrap(), true);
        assert!(order.may_go(&deleted("dm")));
        order.turn(&deleted("dm")).unwrap();
        assert!(!order.may_go(&sent("x", "y")));
        // A room counts as direct as soon as an event makes it direct.
        let mut order = known(&[("new", false)]);
        let made = event(json!({"type": "room.updated", "room": "new", "kind": "direct"}));
        order.turn(&made).unwrap();
        order.turn(&member("joined", "new", "a")).unwrap();
        assert!(!order.may_go(&sent("a", "b")));
    }

    #[test]
    fn what_concerns_all_rooms_of_a_user_goes_alone() {
        let mut order = Order::default();
        for kind in ["user.deleted", "user.read_all"] {
            let event = event(json!({"type": kind, "user": "a"}));
            assert_eq!(order.turn(&event).unwrap(), Turn::Alone);
        }
    }
}
