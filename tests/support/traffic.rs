//! Traffic whose outcome does not depend on the order in which it arrives, and the model of that outcome.
//!
//! Order decides only which message gets which position, and the server answers the positions. So the model can be told the same
//! events in the order of the positions. What moves a read position back, and what goes by time, depends on the order: a writer sends
//! that to [rooms of its own](alone), and the model is told of these in the writer's order.

/// A writer's own rooms.
mod alone;

use std::collections::BTreeMap;
use std::sync::Mutex;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use super::check::{self, Questions};
use super::model::{Model, Outcome, RoomsQuery};
use super::{App, Reply};
use alone::Alone;

/// Rooms of all kinds, and who is in them.
fn rooms() -> Vec<(&'static str, Value, Vec<String>)> {
    let people = |range: std::ops::Range<usize>| range.map(user).collect();
    vec![
        (
            "direct {1}",
            json!({"kind": "direct", "tags": ["x"]}),
            people(0..2),
        ),
        (
            "direct 2",
            json!({"kind": "direct", "custom_type": "t"}),
            people(2..4),
        ),
        ("group a", json!({"tags": ["x"]}), people(0..10)),
        (
            "group b",
            json!({"tags": ["x", "y"], "custom_type": "t"}),
            people(3..8),
        ),
        (
            "super",
            json!({"kind": "supergroup", "tags": ["y"], "custom_type": "s"}),
            people(0..10),
        ),
    ]
}

fn user(n: usize) -> String {
    format!("user {n}")
}

pub fn everybody() -> Vec<String> {
    (0..10).map(user).collect()
}

/// What has to be sent before anything else.
pub fn setup() -> Value {
    let mut events = Vec::new();
    for (room, mut settings, users) in rooms() {
        settings["type"] = "room.updated".into();
        settings["room"] = room.into();
        settings["time"] = 1_700_000_000_000_i64.into();
        events.push(settings);
        events.push(json!({"type": "member.joined", "room": room, "users": users}));
    }
    events.into()
}

/// A caller whose events refer only to its own messages.
pub struct Writer {
    name: usize,
    rng: StdRng,
    sent: Vec<Sent>,
    /// Which preferences it has not said yet.
    preferences: Vec<Value>,
    alone: Option<Alone>,
}

/// A message that a writer has sent to a room of all.
struct Sent {
    room: &'static str,
    id: String,
    /// It may be edited: once, so that no order of edits matters, and not after it was recalled.
    is_whole: bool,
}

/// One request. By time, or as it arrives.
pub struct Batch {
    pub by_time: bool,
    pub events: Value,
}

impl Writer {
    pub fn new(name: usize, rng: StdRng) -> Self {
        Self {
            name,
            rng,
            sent: Vec::new(),
            preferences: preferences(name),
            alone: None,
        }
    }

    /// It also sends what depends on the order, to rooms of its own. Nothing that was acknowledged may be lost then: what is sent
    /// again would come after what was kept.
    pub fn with_rooms_of_its_own(mut self) -> Self {
        self.alone = Some(Alone::new(self.name));
        self
    }

    /// The next request, by arrival and to the rooms of all.
    pub fn batch(&mut self, size: usize) -> Value {
        (0..size).map(|_| self.event()).collect()
    }

    /// The next request, whatever it may send.
    pub fn next(&mut self, size: usize) -> Batch {
        let Some(mut alone) = self.alone.take() else {
            return Batch {
                by_time: false,
                events: self.batch(size),
            };
        };
        let by_time = alone.is_there && self.rng.random_bool(0.2);
        let mut events = alone.first();
        for _ in 0..size {
            events.push(match by_time || self.rng.random_bool(0.4) {
                true => alone.event(by_time, &mut self.rng),
                false => self.event(),
            });
        }
        self.alone = Some(alone);
        Batch {
            by_time,
            events: events.into(),
        }
    }

    fn event(&mut self) -> Value {
        let (room, _, users) = rooms().choose(&mut self.rng).unwrap().clone();
        let rng = &mut self.rng;
        let old = match self.sent.len() {
            0 => None,
            count => Some(rng.random_range(0..count)),
        };
        match (rng.random_range(0..20), old) {
            (0..2, Some(old)) => {
                let Sent { room, id, .. } = &self.sent[old];
                json!({"type": "room.read", "room": room, "user": users_of(room).choose(rng).unwrap(), "up_to_id": id})
            }
            (2..4, Some(old)) => {
                let Sent { room, id, is_whole } = &mut self.sent[old];
                *is_whole = false;
                let users = users_of(room);
                match users.len() {
                    2 if rng.random_bool(0.5) => {
                        json!({"type": "message.recalled", "sender": users[0], "to": users[1], "id": id})
                    }
                    _ => json!({"type": "message.recalled", "room": room, "id": id}),
                }
            }
            (4, Some(old)) => {
                // So many are there, whatever the others have sent: the position is below the head.
                let room = self.sent[old].room;
                let count = self.sent.iter().filter(|sent| sent.room == room).count();
                let position = rng.random_range(1..=count);
                json!({"type": "room.read", "room": room, "user": users_of(room).choose(rng).unwrap(), "up_to_position": position})
            }
            (5..7, Some(old)) if self.sent[old].is_whole => {
                let Sent { room, id, is_whole } = &mut self.sent[old];
                *is_whole = false;
                let users = users_of(room);
                let count = rng.random_range(0..3);
                let whom: Vec<&String> = users.choose_multiple(rng, count).collect();
                json!({"type": "message.updated", "room": room, "id": id, "mentions": whom})
            }
            (7, Some(old)) if rng.random_bool(0.3) => {
                let Sent { room, id, .. } = &self.sent[old];
                json!({"type": "room.cleared", "room": room, "up_to_id": id})
            }
            (8, _) if !self.preferences.is_empty() => self.preferences.pop().unwrap(),
            _ => {
                let id = format!("{}-{}", self.name, self.sent.len());
                let mut event = json!({
                    "type": "message.sent", "room": room, "id": id, "sender": users.choose(rng).unwrap(),
                    "mark_read": rng.random_bool(0.2), "text": "hello",
                    // No two messages share a time, so that the list of rooms has only one right order.
                    "time": 1_700_000_000_000_i64 + (self.sent.len() * 100 + self.name) as i64,
                });
                if rng.random_bool(0.2) {
                    event["mentions"] = json!(users.choose(rng).into_iter().collect::<Vec<_>>());
                }
                if rng.random_bool(0.1) {
                    event["except"] = json!(users.choose(rng).into_iter().collect::<Vec<_>>());
                }
                self.sent.push(Sent {
                    room,
                    id,
                    is_whole: true,
                });
                event
            }
        }
    }
}

fn users_of(room: &str) -> Vec<String> {
    let (_, _, users) = rooms().into_iter().find(|known| known.0 == room).unwrap();
    users
}

/// What a writer says of one user in one room, of whom no other writer says it; and it does so once.
fn preferences(name: usize) -> Vec<Value> {
    let pairs = rooms().into_iter().flat_map(|(room, _, users)| {
        let of = move |user| (room, user);
        users.into_iter().map(of)
    });
    // The rooms of many first.
    let pair = pairs.skip(4).nth(name);
    let said = |(room, user)| {
        let count = ["none", "messages", "mentions"][name % 3];
        vec![
            json!({"type": "pref.updated", "room": room, "user": user, "extra": {"by": name}}),
            json!({"type": "pref.updated", "room": room, "user": user, "count": count}),
        ]
    };
    pair.map_or_else(Vec::new, said)
}

/// Everything that was answered.
#[derive(Default)]
pub struct Answered(Mutex<Vec<Told>>);

/// An event, and what was answered.
#[derive(Clone)]
struct Told {
    by_time: bool,
    event: Value,
    result: Value,
}

impl Answered {
    /// Takes the results of one request; none of its events may have been rejected.
    pub fn record(&self, events: &Value, reply: &Reply) {
        self.take(false, events, reply);
    }

    /// The same of a request that may have been by time.
    pub fn record_batch(&self, batch: &Batch, reply: &Reply) {
        self.take(batch.by_time, &batch.events, reply);
    }

    fn take(&self, by_time: bool, events: &Value, reply: &Reply) {
        assert_eq!(reply.status, 200, "{}", reply.text);
        let results = reply.body["results"].as_array().unwrap();
        let events = events.as_array().unwrap();
        assert_eq!(results.len(), events.len(), "{}", reply.text);
        let told = events.iter().cloned().zip(results.iter().cloned());
        let told: Vec<Told> = told
            .map(|(event, result)| Told {
                by_time,
                event,
                result,
            })
            .collect();
        for Told { event, result, .. } in &told {
            assert_ne!(result["status"], "rejected", "{event}: {result}");
        }
        self.0.lock().unwrap().extend(told);
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The one state that all this leads to. Panics when the answers contradict each other.
    pub fn model(&self) -> Model {
        let all = self.0.lock().unwrap();
        let mut model = Model::default();
        for event in setup().as_array().unwrap() {
            assert_eq!(model.apply(event), Outcome::Applied(None));
        }
        let (alone, all): (Vec<&Told>, Vec<&Told>) =
            all.iter().partition(|told| alone::is_alone(&told.event));
        alone::apply(&mut model, &alone);

        let mut messages: BTreeMap<(String, u64), &Value> = BTreeMap::new();
        let mut positions: BTreeMap<(String, String), (u64, usize)> = BTreeMap::new();
        let mut others = Vec::new();
        for Told { event, result, .. } in all {
            if event["type"] != "message.sent" {
                others.push(event);
                continue;
            }
            let name = |field: &str| event[field].as_str().unwrap().to_owned();
            let position = result["position"]
                .as_u64()
                .unwrap_or_else(|| panic!("no position: {event}: {result}"));
            let known = positions
                .entry((name("room"), name("id")))
                .or_insert((position, 0));
            assert_eq!(known.0, position, "two positions for {event}");
            known.1 += usize::from(result["status"] != "duplicate");
            assert!(known.1 <= 1, "applied twice: {event}");
            let at = messages.entry((name("room"), position)).or_insert(event);
            assert_eq!(*at, event, "one position for two messages");
        }
        for ((_, position), event) in messages {
            // Fails on a gap: every position belongs to a message that was answered.
            assert_eq!(
                model.apply(event),
                Outcome::Applied(Some(position)),
                "{event}"
            );
        }
        for event in others {
            assert!(
                !matches!(model.apply(event), Outcome::Rejected(_)),
                "{event}"
            );
        }
        model
    }
}

/// All endpoints for everybody.
pub async fn compare(app: &App, model: &Model) -> check::Check {
    let users = everybody();
    let ask = Questions {
        tags: vec!["x".to_owned(), "z".to_owned()],
        types: vec!["t".to_owned()],
        peers: users.clone(),
        rooms: vec![RoomsQuery::default()],
    };
    check::many(app, model, &users).await?;
    for user in &users {
        check::user(app, model, user, &ask).await?;
    }
    for (id, room) in &model.rooms {
        let users: Vec<String> = room.joined().take(2).map(str::to_owned).collect();
        check::room(app, model, id, &users).await?;
    }
    Ok(())
}
