//! Random events of the sorts that have [words](crate::support::words).

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use super::universe::{START, Universe};
use crate::support::model::{Kind, Model, Order, Room};

/// What is an event of its own sort, and which of them how often.
const SORTS: [(&str, u32); 8] = [
    ("room.unread", 20),
    ("counts.set", 20),
    ("room.cleared", 8),
    ("message.updated", 20),
    ("recall.to", 6),
    ("position", 10),
    ("count", 12),
    ("extra", 3),
];

impl Universe {
    /// One of those events, every now and then; none: one of the others is due.
    pub(super) fn later_event(&self, model: &Model, rng: &mut StdRng) -> Option<Value> {
        let sorts: Vec<&(&str, u32)> = SORTS.iter().filter(|(sort, _)| self.knows(sort)).collect();
        if sorts.is_empty() || rng.random_bool(0.65) {
            return None;
        }
        let (sort, _) = sorts.choose_weighted(rng, |(_, weight)| *weight).unwrap();
        Some(match *sort {
            "room.unread" => self.unread(model, rng),
            "counts.set" => self.counts_set(model, rng),
            "room.cleared" => self.cleared(model, rng),
            "message.updated" => self.edit(model, rng),
            "recall.to" => self.recall_between(model, rng),
            "position" => self.read_by_position(model, rng),
            "count" => {
                let counts = ["all", "all", "messages", "mentions", "none", "some"];
                self.preference(json!({"count": counts.choose(rng).unwrap()}), model, rng)
            }
            _ => {
                let extra = json!({"extra": {"é": rng.random::<u8>(), "list": [1, null]}});
                self.preference(extra, model, rng)
            }
        })
    }

    /// An event of that type by somebody who is in the room, as a rule; now and then by the peer.
    fn by_member(&self, kind: &str, model: &Model, rng: &mut StdRng) -> Value {
        let room = self.room(model, rng);
        let joined: Vec<&str> = model.joined(&room).collect();
        let user = match joined.choose(rng) {
            Some(user) if rng.random_bool(0.92) => user,
            _ => self.user(rng),
        };
        let peer = model.rooms.get(&room).and_then(|room| match room.kind {
            Kind::Direct => room.peer_of(user),
            _ => None,
        });
        match peer {
            Some(peer) if rng.random_bool(0.4) => json!({"type": kind, "user": user, "peer": peer}),
            _ => json!({"type": kind, "user": user, "room": room}),
        }
    }

    /// The room that such an event is about.
    fn room_of<'a>(event: &Value, model: &'a Model) -> Option<&'a Room> {
        let field = |name: &str| event[name].as_str().unwrap_or_default();
        match event.get("peer") {
            None => model.rooms.get(field("room")),
            Some(_) => {
                let mut rooms = model.rooms_with(field("user"), field("peer"));
                let id = rooms.next().map(|(id, _)| id.to_owned());
                model.rooms.get(&id?)
            }
        }
    }

    /// Adds one of the three fields that name a place in the history.
    fn place(&self, event: &mut Value, prefix: &str, model: &Model, rng: &mut StdRng) {
        let room = Self::room_of(event, model);
        let messages = room.map_or(&[][..], |room| &room.messages);
        // A recent one, as a rule.
        let from = messages.len().saturating_sub(8);
        let recent = &messages[if rng.random_bool(0.8) { from } else { 0 }..];
        let message = recent.choose(rng);
        match rng.random_range(0..10) {
            0..5 => {
                let unknown = rng.random_bool(0.08).then(|| self.message_id(rng));
                let id = unknown.or(message.map(|m| m.id.clone()));
                event[format!("{prefix}_id")] = id.unwrap_or_else(|| "none".to_owned()).into();
            }
            5..8 => {
                let time = message.map_or(START, |m| m.time) + rng.random_range(-1..=1);
                event[format!("{prefix}_time")] = time.into();
            }
            _ => {
                let head = room.map_or(0, Room::head);
                let first = head.min(3) - 3;
                event[format!("{prefix}_position")] = rng.random_range(first..=head + 2).into();
            }
        }
    }

    fn unread(&self, model: &Model, rng: &mut StdRng) -> Value {
        let mut event = self.by_member("room.unread", model, rng);
        if rng.random_bool(0.98) {
            self.place(&mut event, "from", model, rng);
        }
        event
    }

    fn counts_set(&self, model: &Model, rng: &mut StdRng) -> Value {
        let mut event = self.by_member("counts.set", model, rng);
        event["unread"] = match rng.random_range(0..20) {
            0 => json!(-1),
            1 => json!(rng.random_range(20..60)),
            2..5 => json!(0),
            _ => json!(rng.random_range(0..9)),
        };
        if rng.random_bool(0.5) {
            event["mentions"] = rng.random_range(0..5).into();
        }
        event
    }

    fn cleared(&self, model: &Model, rng: &mut StdRng) -> Value {
        let mut event = json!({"type": "room.cleared", "room": self.room(model, rng)});
        if rng.random_bool(0.8) {
            self.place(&mut event, "up_to", model, rng);
        }
        event
    }

    fn read_by_position(&self, model: &Model, rng: &mut StdRng) -> Value {
        let mut event = self.by_member("room.read", model, rng);
        let head = Self::room_of(&event, model).map_or(0, Room::head);
        event["up_to_position"] = rng.random_range(-1..=head + 2).into();
        event
    }

    fn edit(&self, model: &Model, rng: &mut StdRng) -> Value {
        let room = self.room(model, rng);
        let messages = model
            .rooms
            .get(&room)
            .map_or(&[][..], |room| &room.messages);
        let recent = &messages[messages.len().saturating_sub(6)..];
        let id = match recent.choose(rng) {
            Some(message) if rng.random_bool(0.92) => message.id.clone(),
            _ => self.message_id(rng),
        };
        let mut event = json!({"type": "message.updated", "room": room, "id": id});
        if rng.random_bool(0.85) {
            let count = rng.random_range(0..4);
            event["mentions"] = match rng.random_bool(0.2) {
                true => "all".into(),
                false => self
                    .everybody
                    .choose_multiple(rng, count)
                    .map(String::as_str)
                    .collect(),
            };
        }
        if rng.random_bool(0.3) {
            event["text"] = format!("edited {}", rng.random::<u16>()).into();
        }
        if rng.random_bool(0.1) {
            event["message_type"] = "image".into();
            event["payload"] = json!({"extra": {"n": rng.random::<u8>()}});
        }
        self.between(event, model, rng)
    }

    fn recall_between(&self, model: &Model, rng: &mut StdRng) -> Value {
        let direct: Vec<(&String, &Room)> = model
            .rooms
            .iter()
            .filter(|(_, room)| room.kind == Kind::Direct && !room.messages.is_empty())
            .collect();
        let Some((id, room)) = direct.choose(rng) else {
            return self.recall(model, rng);
        };
        let message = &room.messages.choose(rng).unwrap().id;
        let event = json!({"type": "message.recalled", "room": id, "id": message});
        self.between(event, model, rng)
    }

    /// The same event by the two who are in the direct room, instead of by the room.
    fn between(&self, mut event: Value, model: &Model, rng: &mut StdRng) -> Value {
        let room = model.rooms.get(event["room"].as_str().unwrap_or_default());
        let direct = room.filter(|room| room.kind == Kind::Direct);
        let one = direct.and_then(|room| room.members.keys().next());
        let two = one.and_then(|one| direct.and_then(|room| room.peer_of(one)));
        if let (Some(one), Some(two), true) =
            (one, two, self.knows("recall.to") && rng.random_bool(0.7))
        {
            let fields = event.as_object_mut().unwrap();
            fields.remove("room");
            fields.insert("sender".to_owned(), one.as_str().into());
            fields.insert("to".to_owned(), two.into());
        }
        event
    }

    fn preference(&self, fields: Value, model: &Model, rng: &mut StdRng) -> Value {
        let mut event = self.by_member("pref.updated", model, rng);
        if event.get("peer").is_some() {
            event = json!({"type": "pref.updated", "user": event["user"], "room": self.room(model, rng)});
        }
        for (name, value) in fields.as_object().unwrap() {
            event[name] = value.clone();
        }
        event
    }

    /// The order of the next request. A history has one of them more than the other, or only one.
    pub fn order(&self, rng: &mut StdRng) -> Order {
        if self.knows("order") && rng.random_bool(self.by_time) {
            Order::Time
        } else {
            Order::Arrival
        }
    }

    /// Whether the definition says what such an event does at this moment.
    pub(super) fn is_later_defined(&self, model: &Model, event: &Value) -> bool {
        let field = |name: &str| event[name].as_str().unwrap_or_default();
        match field("type") {
            // What is kept of a message that is not the last one is whom it mentions; of a recalled one nothing.
            "message.updated" if !self.is_edit_defined(model, event) => false,
            // Between two: which of several rooms; and whether users come to be by being named so.
            "message.updated" | "message.recalled" if event.get("to").is_some() => {
                let (one, two) = (field("sender"), field("to"));
                model.direct_rooms(one, two).len() <= 1
                    && [one, two]
                        .iter()
                        .all(|user| model.users.contains_key(*user))
            }
            "room.unread" | "counts.set" if event.get("peer").is_some() => {
                model.rooms_with(field("user"), field("peer")).count() <= 1
            }
            // Whether the last message can be marked that is older than the history.
            "room.unread" if model.history.is_some() => {
                let last = model.rooms.get(field("room")).and_then(Room::last);
                last.is_none_or(|last| last.id != field("from_id"))
            }
            _ => true,
        }
    }

    fn is_edit_defined(&self, model: &Model, event: &Value) -> bool {
        let field = |name: &str| event[name].as_str().unwrap_or_default();
        let room = match event.get("to") {
            Some(_) => model.direct_room(field("sender"), field("to")),
            None => Some(field("room")),
        };
        let room = room.and_then(|room| model.rooms.get(room));
        let Some((room, message)) = room.and_then(|room| Some((room, room.message(field("id"))?)))
        else {
            return true;
        };
        let is_last = room.last().is_some_and(|last| last.id == message.id);
        !message.recalled
            && (is_last
                || (message.position.is_some()
                    && event
                        .get("mentions")
                        .is_some_and(|m| !message.mentions.is(m))))
    }
}

/// Events that have to be refused for themselves, whatever there is.
pub(super) fn later_invalid(rng: &mut StdRng) -> Value {
    let many: Vec<String> = (0..1001).map(|n| n.to_string()).collect();
    let all = [
        json!({"type": "room.unread", "room": "r1", "user": "alice"}),
        json!({"type": "room.unread", "room": "r1", "from_id": "x"}),
        json!({"type": "room.unread", "room": "r1", "user": "alice", "from_position": 0}),
        json!({"type": "room.unread", "room": "r1", "user": "alice", "from_id": "x", "from_time": START}),
        json!({"type": "room.unread", "room": "r1", "peer": "alice", "user": "alice", "from_id": "x"}),
        json!({"type": "room.read", "room": "r1", "user": "alice", "up_to_position": -1}),
        json!({"type": "room.read", "room": "r1", "user": "alice", "up_to_position": "1"}),
        json!({"type": "room.cleared"}),
        json!({"type": "room.cleared", "room": "r1", "up_to_position": 0}),
        json!({"type": "room.cleared", "room": "r1", "up_to_time": START, "up_to_id": "x"}),
        json!({"type": "counts.set", "room": "r1", "user": "alice"}),
        json!({"type": "counts.set", "room": "r1", "user": "alice", "unread": -1}),
        json!({"type": "counts.set", "room": "r1", "user": "alice", "unread": "1"}),
        json!({"type": "counts.set", "room": "r1", "user": "alice", "unread": 1, "mentions": -1}),
        json!({"type": "counts.set", "user": "alice", "unread": 1}),
        json!({"type": "message.updated", "room": "r1"}),
        json!({"type": "message.updated", "id": "x", "to": "alice"}),
        json!({"type": "message.updated", "id": "x", "room": "r1", "mentions": "everybody"}),
        json!({"type": "message.updated", "id": "x", "room": "r1", "payload": [1]}),
        json!({"type": "message.recalled", "id": "x", "to": "alice"}),
        json!({"type": "message.recalled", "room": "r1", "id": ""}),
        json!({"type": "message.sent", "room": "r1", "id": "x", "except": many}),
        json!({"type": "message.sent", "room": "r1", "id": "x", "except": "alice"}),
        json!({"type": "pref.updated", "room": "r1", "user": "alice", "count": "some"}),
        json!({"type": "pref.updated", "room": "r1", "user": "alice", "extra": [1]}),
        json!({"type": "pref.updated", "room": "r1", "user": "alice", "extra": {"long": "x".repeat(2000)}}),
    ];
    all.choose(rng).unwrap().clone()
}
