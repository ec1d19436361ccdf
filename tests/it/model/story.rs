//! A group `r` of `a`, `b` and `c`, and a direct room `d` of `a` and `b`. All have joined by arrival, before anything else.

use serde_json::{Value, json};

use crate::support::model::{Model, Order, Outcome, TEN_MINUTES};

/// When everything is accepted, unless a test lets time pass.
const NOW: i64 = 1_760_000_000_000;

pub(super) const APPLIED: Outcome = Outcome::Applied(None);
pub(super) const DUPLICATE: Outcome = Outcome::Duplicate(None);

/// A time: so many seconds after one that is five minutes before the moment of acceptance.
pub(super) fn at(seconds: i64) -> i64 {
    NOW - TEN_MINUTES / 2 + seconds * 1000
}

#[derive(Clone)]
pub(super) struct Story {
    pub(super) model: Model,
}

impl Story {
    pub(super) fn new() -> Self {
        let mut story = Self {
            model: Model::default(),
        };
        story.model.now = Some(NOW);
        story.arrives(json!({"type": "room.updated", "room": "r"}));
        story.arrives(json!({"type": "room.updated", "room": "d", "kind": "direct"}));
        for user in ["a", "b", "c"] {
            story.arrives(json!({"type": "member.joined", "room": "r", "user": user}));
        }
        story.arrives(json!({"type": "member.joined", "room": "d", "users": ["a", "b"]}));
        story
    }

    /// The same with so many messages by `b` in `r`, at the seconds 1, 2, 3, ….
    pub(super) fn with_messages(count: i64) -> Self {
        let mut story = Self::new();
        for n in 1..=count {
            story.arrives(message(n));
        }
        story
    }

    /// Time passes.
    pub(super) fn passes(&mut self, milliseconds: i64) {
        self.model.now = self.model.now.map(|now| now + milliseconds);
    }

    pub(super) fn arrives(&mut self, event: Value) -> Outcome {
        self.model.apply(&event)
    }

    /// The same by time.
    pub(super) fn placed(&mut self, event: Value) -> Outcome {
        self.model.apply_in(Order::Time, &event)
    }

    /// Unread messages and mentions of a user in `r`.
    pub(super) fn counts(&self, user: &str) -> (u64, u64) {
        let room = &self.model.rooms["r"];
        (room.unread(user), room.mentions(user))
    }

    pub(super) fn unread(&self, user: &str) -> u64 {
        self.counts(user).0
    }

    pub(super) fn read_position(&self, user: &str) -> i64 {
        self.model.rooms["r"].read_position(user).unwrap()
    }
}

/// An event with more fields, or with others.
pub(super) fn with(mut event: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

/// A message by `b` in `r` whose id is the second of its time.
pub(super) fn message(second: i64) -> Value {
    json!({"type": "message.sent", "room": "r", "id": second.to_string(), "sender": "b", "time": at(second)})
}

/// The same by `a`.
pub(super) fn own(second: i64) -> Value {
    with(message(second), json!({"sender": "a"}))
}

/// An event about `a` in `r`.
pub(super) fn of_a(kind: &str, second: i64) -> Value {
    json!({"type": kind, "room": "r", "user": "a", "time": at(second)})
}

pub(super) fn read(second: i64, up_to: Value) -> Value {
    with(of_a("room.read", second), up_to)
}

pub(super) fn unread(second: i64, from: Value) -> Value {
    with(of_a("room.unread", second), from)
}

pub(super) fn cleared(second: i64, up_to: Value) -> Value {
    let event = json!({"type": "room.cleared", "room": "r", "time": at(second)});
    with(event, up_to)
}

pub(super) fn counts(second: i64, unread: u64) -> Value {
    with(of_a("counts.set", second), json!({ "unread": unread }))
}

pub(super) fn recall(second: i64, id: &str) -> Value {
    json!({"type": "message.recalled", "room": "r", "id": id, "time": at(second)})
}

pub(super) fn edit(second: i64, id: &str, mentions: Value) -> Value {
    json!({"type": "message.updated", "room": "r", "id": id, "mentions": mentions, "time": at(second)})
}

/// A story to which these came by time, none of them rejected.
pub(super) fn told(events: &[Value]) -> Story {
    let mut story = Story::new();
    for event in events {
        let outcome = story.placed(event.clone());
        assert!(
            !matches!(outcome, Outcome::Rejected(_)),
            "{event}: {outcome:?}"
        );
    }
    story
}

/// What `a` has unread after these.
pub(super) fn unread_after(events: &[Value]) -> u64 {
    told(events).unread("a")
}

pub(super) fn join(second: i64, user: &str) -> Value {
    json!({"type": "member.joined", "room": "r", "user": user, "time": at(second)})
}

pub(super) fn leave(second: i64, user: &str) -> Value {
    with(join(second, user), json!({"type": "member.left"}))
}

pub(super) fn read_all(second: i64, more: Value) -> Value {
    with(
        json!({"type": "user.read_all", "user": "a", "time": at(second)}),
        more,
    )
}
