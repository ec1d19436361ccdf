//! Traffic whose outcome does not depend on the order in which it arrives, and the model of that outcome.
//!
//! Order decides only which message gets which position, and the server answers the positions. So the model can be told the same
//! events in the order of the positions.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use super::check::{self, Questions};
use super::model::{Model, Outcome, RoomsQuery};
use super::{App, Reply};

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
    /// Room and id.
    sent: Vec<(&'static str, String)>,
}

impl Writer {
    pub fn new(name: usize, rng: StdRng) -> Self {
        Self {
            name,
            rng,
            sent: Vec::new(),
        }
    }

    /// The next request.
    pub fn batch(&mut self, size: usize) -> Value {
        (0..size).map(|_| self.event()).collect()
    }

    fn event(&mut self) -> Value {
        let rng = &mut self.rng;
        let (room, _, users) = rooms().choose(rng).unwrap().clone();
        let old = self.sent.choose(rng).cloned();
        match (rng.random_range(0..10), old) {
            (0, Some((room, id))) => {
                let (_, _, users) = rooms().into_iter().find(|known| known.0 == room).unwrap();
                json!({"type": "room.read", "room": room, "user": users.choose(rng).unwrap(), "up_to_id": id})
            }
            (1, Some((room, id))) => json!({"type": "message.recalled", "room": room, "id": id}),
            _ => {
                let id = format!("{}-{}", self.name, self.sent.len());
                self.sent.push((room, id.clone()));
                let mut event = json!({
                    "type": "message.sent", "room": room, "id": id, "sender": users.choose(rng).unwrap(),
                    "mark_read": rng.random_bool(0.2), "text": "hello",
                    // No two messages share a time, so that the list of rooms has only one right order.
                    "time": 1_700_000_000_000_i64 + (self.sent.len() * 100 + self.name) as i64,
                });
                if rng.random_bool(0.2) {
                    event["mentions"] = json!(users.choose(rng).into_iter().collect::<Vec<_>>());
                }
                event
            }
        }
    }
}

/// Everything that was answered.
#[derive(Default)]
pub struct Answered(Mutex<Vec<(Value, Value)>>);

impl Answered {
    /// Takes the results of one request; none of its events may have been rejected.
    pub fn record(&self, events: &Value, reply: &Reply) {
        assert_eq!(reply.status, 200, "{}", reply.text);
        let results = reply.body["results"].as_array().unwrap();
        let events = events.as_array().unwrap();
        assert_eq!(results.len(), events.len(), "{}", reply.text);
        let pairs: Vec<(Value, Value)> = events
            .iter()
            .cloned()
            .zip(results.iter().cloned())
            .collect();
        for (event, result) in &pairs {
            assert_ne!(result["status"], "rejected", "{event}: {result}");
        }
        self.0.lock().unwrap().extend(pairs);
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The one state that all this leads to. Panics when the answers contradict each other.
    pub fn model(&self) -> Model {
        let all = self.0.lock().unwrap();
        let mut messages: BTreeMap<(String, u64), &Value> = BTreeMap::new();
        let mut positions: BTreeMap<(String, String), (u64, usize)> = BTreeMap::new();
        let mut others = Vec::new();
        for (event, result) in all.iter() {
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

        let mut model = Model::default();
        for event in setup().as_array().unwrap() {
            assert_eq!(model.apply(event), Outcome::Applied(None));
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
    for (room, _, users) in rooms() {
        check::room(app, model, room, &users[..1]).await?;
    }
    Ok(())
}
