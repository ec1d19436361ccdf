//! Rooms to which only one writer sends: what comes of them is what comes of its events in its own order.
//!
//! A request that is sent again repeats its events in their order, so each takes effect where it stands: a message is known by its id
//! and everything else by its key. One room is told by arrival, the other by time, as a feed tells it that is a few minutes late.

use std::collections::BTreeSet;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use super::{Told, user};
use crate::support::model::{Model, Order, Outcome};
use crate::support::tokens::now_seconds;

/// With what the names of these rooms begin.
const NAMES: &str = "of writer ";
/// How late the feed is.
const LATE_SECONDS: u64 = 240;

/// A writer's rooms.
pub(super) struct Alone {
    by_arrival: Own,
    by_time: Own,
    /// They have been made.
    pub(super) is_there: bool,
}

struct Own {
    writer: usize,
    room: String,
    kind: &'static str,
    users: Vec<String>,
    /// Events so far, and the time of the first one.
    count: usize,
    start: i64,
    messages: Vec<String>,
    /// Of these, those that no event has recalled.
    whole: Vec<String>,
}

impl Alone {
    pub(super) fn new(writer: usize) -> Self {
        let kinds = ["group", "supergroup", "direct"];
        // Whole tenths of a second: the writer's number makes each time its own.
        let now = i64::try_from((now_seconds() - LATE_SECONDS) * 1000).unwrap();
        let own = |what: &str, kind: &'static str, start| Own {
            writer,
            room: format!("{NAMES}{writer} {what}"),
            kind,
            users: match kind {
                "direct" => vec![user(writer % 10), format!("guest {writer} {what}")],
                _ => (0..4).map(|n| user((writer + n) % 10)).collect(),
            },
            count: 0,
            start,
            messages: Vec::new(),
            whole: Vec::new(),
        };
        Self {
            by_arrival: own("by arrival", kinds[writer % 3], 1_690_000_000_000),
            by_time: own("by time", kinds[(writer + 1) % 3], now),
            is_there: false,
        }
    }

    /// What makes the rooms, if they are still to be made.
    pub(super) fn first(&mut self) -> Vec<Value> {
        if std::mem::replace(&mut self.is_there, true) {
            return Vec::new();
        }
        let mut events = Vec::new();
        for own in [&self.by_arrival, &self.by_time] {
            events.push(json!({
                "type": "room.updated", "room": own.room, "kind": own.kind, "time": 1_680_000_000_000_i64,
                "key": "made", "tags": ["x"],
            }));
            events.push(
                json!({"type": "member.joined", "room": own.room, "users": own.users, "key": "joined"}),
            );
        }
        events
    }

    pub(super) fn event(&mut self, by_time: bool, rng: &mut StdRng) -> Value {
        match by_time {
            true => self.by_time.event(true, rng),
            false => self.by_arrival.event(false, rng),
        }
    }
}

impl Own {
    fn event(&mut self, by_time: bool, rng: &mut StdRng) -> Value {
        let mut event = self.some_event(rng);
        self.count += 1;
        let time = self.start + (self.count * 100 + self.writer) as i64;
        if by_time || event["type"] == "message.sent" {
            event["time"] = time.into();
        }
        if event["type"] != "message.sent" {
            event["key"] = self.count.to_string().into();
        }
        event
    }

    fn some_event(&mut self, rng: &mut StdRng) -> Value {
        let user = self.users.choose(rng).unwrap().clone();
        let of = |kind: &str| json!({"type": kind, "room": self.room, "user": user});
        let message = self.messages.choose(rng).cloned();
        let whole = self.whole.choose(rng).cloned();
        match (rng.random_range(0..20), message, whole) {
            (0, ..) => of("room.read"),
            (1, Some(id), _) => with(of("room.read"), "up_to_id", id),
            (2, Some(_), _) => {
                let position = rng.random_range(1..=self.messages.len() + 1);
                with(of("room.read"), "up_to_position", position)
            }
            (3..5, Some(id), _) => with(of("room.unread"), "from_id", id),
            (5, Some(_), _) => {
                let position = rng.random_range(1..=self.messages.len());
                with(of("room.unread"), "from_position", position)
            }
            (6..8, ..) => {
                let event = with(of("counts.set"), "unread", rng.random_range(0..6));
                match rng.random_bool(0.5) {
                    true => with(event, "mentions", rng.random_range(0..3)),
                    false => event,
                }
            }
            (8, message, _) => {
                let event = json!({"type": "room.cleared", "room": self.room});
                match message.filter(|_| rng.random_bool(0.7)) {
                    Some(id) => with(event, "up_to_id", id),
                    None => event,
                }
            }
            (9..11, _, Some(id)) => {
                let count = rng.random_range(0..=2);
                let whom: Vec<&String> = self.users.choose_multiple(rng, count).collect();
                with(
                    json!({"type": "message.updated", "room": self.room, "id": id}),
                    "mentions",
                    json!(whom),
                )
            }
            (11, _, Some(id)) => {
                self.whole.retain(|other| *other != id);
                let event = json!({"type": "message.recalled", "id": id});
                match self.kind {
                    // By the two who are in it, now and then.
                    "direct" if rng.random_bool(0.5) => {
                        let event = with(event, "sender", self.users[0].as_str());
                        with(event, "to", self.users[1].as_str())
                    }
                    _ => with(event, "room", self.room.as_str()),
                }
            }
            (12, ..) => {
                let counts = ["all", "messages", "mentions", "none"];
                let event = with(of("pref.updated"), "count", *counts.choose(rng).unwrap());
                with(event, "extra", json!({"n": rng.random::<u8>()}))
            }
            _ => {
                let id = format!("{}-{}", self.writer, self.count);
                self.messages.push(id.clone());
                self.whole.push(id.clone());
                let mut event = json!({
                    "type": "message.sent", "room": self.room, "id": id, "sender": user, "text": "hello",
                    "mark_read": rng.random_bool(0.3),
                });
                if rng.random_bool(0.3) {
                    event["mentions"] = json!([self.users.choose(rng).unwrap()]);
                }
                if rng.random_bool(0.1) {
                    event["except"] = json!([self.users.choose(rng).unwrap()]);
                }
                event
            }
        }
    }
}

fn with(mut event: Value, field: &str, value: impl Into<Value>) -> Value {
    event[field] = value.into();
    event
}

/// Whether an event is about such a room.
pub(super) fn is_alone(event: &Value) -> bool {
    let begins =
        |field: &str, with: &str| event[field].as_str().is_some_and(|v| v.starts_with(with));
    begins("room", NAMES) || begins("to", "guest ")
}

/// Tells the model of these in their order, each once. What was applied was so by the model, too, and at the same position.
pub(super) fn apply(model: &mut Model, told: &[&Told]) {
    let mut seen = BTreeSet::new();
    let applied: BTreeSet<String> = told
        .iter()
        .filter(|told| told.result["status"] != "duplicate")
        .map(|told| told.event.to_string())
        .collect();
    for told in told {
        let name = told.event.to_string();
        if !seen.insert(name.clone()) {
            continue;
        }
        let order = match told.by_time {
            true => Order::Time,
            false => Order::Arrival,
        };
        let outcome = model.apply_in(order, &told.event);
        let position = told.result["position"].as_u64();
        let is_same = match outcome {
            Outcome::Applied(at) => at == position,
            Outcome::Duplicate(_) => !applied.contains(&name),
            Outcome::Rejected(_) => false,
        };
        assert!(is_same, "{name}: {}, and not {outcome:?}", told.result);
    }
}
