//! Long random histories against the model, step by step.
//!
//! `TEST_SEED=n` runs one seed, `TEST_SEEDS=a..b` those from a to b (see `make soak-model`), `TEST_STEPS=n` sets the number of
//! events for each. A failure names its seed and leaves all that was sent in a file; what was sent by time says so there. Where
//! the definition is silent (see [`Universe::is_defined`]) nothing is generated.

mod events;
mod later;
mod queries;
mod universe;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::check::{self, Questions};
use super::model::{Model, Order, Outcome, RoomsQuery};
use super::{App, Wait};
use universe::{TAGS, TYPES};

pub use universe::Universe;

/// A number that the environment sets.
pub fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}"))
    })
}

/// The seeds that the environment sets.
pub fn chosen_seeds() -> Option<Vec<u64>> {
    let range = std::env::var("TEST_SEEDS").ok().map(|text| {
        let ends = text
            .split_once("..")
            .map(|(from, to)| (from.parse(), to.parse()));
        match ends {
            Some((Ok(from), Ok(to))) => (from..=to).collect(),
            _ => panic!("TEST_SEEDS is no range: {text}"),
        }
    });
    range.or_else(|| setting("TEST_SEED").map(|seed| vec![seed]))
}

pub struct History {
    app: App,
    pub model: Model,
    universe: Universe,
    rng: StdRng,
    sent: Vec<(Order, Value)>,
    /// Whether users may be deleted.
    pub deletes_users: bool,
    /// Runs before each request; it may choose another pod.
    pub before: Box<dyn FnMut(&mut App) + Send>,
    /// How far the server's clock is ahead of the true one, in milliseconds, where the model has to know.
    pub ahead: Box<dyn Fn() -> Option<i64> + Send>,
    /// Requests with events, and the slowest answer to one.
    pub asked: (usize, Duration),
}

impl History {
    pub fn new(app: App, seed: u64) -> Self {
        Self::of(Universe::new(), app, seed)
    }

    /// Some of its requests are by time, or all.
    pub fn by_time(app: App, seed: u64) -> Self {
        let mut universe = Universe::with_everything();
        universe.by_time = [0.1, 0.5, 0.9, 1.0][seed as usize % 4];
        Self::of(universe, app, seed)
    }

    fn of(universe: Universe, app: App, seed: u64) -> Self {
        Self {
            app,
            model: Model::default(),
            universe,
            rng: StdRng::seed_from_u64(seed),
            sent: Vec::new(),
            deletes_users: true,
            before: Box::new(|_| ()),
            ahead: Box::new(|| None),
            asked: (0, Duration::ZERO),
        }
    }

    pub async fn run(&mut self, steps: u64, twice: bool) -> check::Check {
        self.compare(true).await?;
        let mut since_all = 0;
        while (self.sent.len() as u64) < steps {
            self.prepare();
            let (order, events, outcomes) = self.batch();
            self.app.by_time = order == Order::Time;
            since_all += events.len();
            self.send(&events, &outcomes).await?;
            self.learn(&events).await?;
            if twice
                && events
                    .iter()
                    .all(|event| self.universe.is_defined(&self.model, event))
            {
                self.prepare();
                let again: Vec<Outcome> = events
                    .iter()
                    .map(|event| self.model.apply_in(order, event))
                    .collect();
                self.send(&events, &again).await?;
                self.learn(&events).await?;
            }
            let all = since_all >= 60;
            if all {
                since_all = 0;
            }
            self.compare(all).await.map_err(|reason| {
                let lines: Vec<String> = events.iter().map(Value::to_string).collect();
                format!(
                    "{reason}\nafter the request, by {order:?},\n{}",
                    lines.join("\n")
                )
            })?;
        }
        self.compare(true).await
    }

    /// What has to be before a request, and what time it is then.
    fn prepare(&mut self) {
        (self.before)(&mut self.app);
        if let Some(ahead) = (self.ahead)() {
            self.model.now = Some(jiff::Timestamp::now().as_millisecond() + ahead);
        }
    }

    /// The next request. It ends where a room is made whose id only the server knows.
    fn batch(&mut self) -> (Order, Vec<Value>, Vec<Outcome>) {
        let order = self.universe.order(&mut self.rng);
        let size = *[1, 1, 1, 2, 4, 8, 20].choose(&mut self.rng).unwrap();
        let (mut events, mut outcomes) = (Vec::new(), Vec::new());
        while events.len() < size {
            let event = if !self.sent.is_empty() && self.rng.random_bool(0.06) {
                self.sent.choose(&mut self.rng).unwrap().1.clone()
            } else {
                self.universe.event(&self.model, &mut self.rng)
            };
            let deletes = event["type"] == "user.deleted" && !self.deletes_users;
            if deletes || !self.universe.is_defined(&self.model, &event) {
                continue;
            }
            outcomes.push(self.model.apply_in(order, &event));
            self.sent.push((order, event.clone()));
            events.push(event);
            if self.model.rooms.keys().any(|id| id.starts_with('\u{1}')) {
                break;
            }
        }
        (order, events, outcomes)
    }

    async fn send(&mut self, events: &[Value], expected: &[Outcome]) -> check::Check {
        let start = Instant::now();
        let reply = match events {
            [one] if self.rng.random_bool(0.6) => self.app.events(one, Wait::Applied).await,
            _ if self.rng.random_bool(0.5) => self.app.events_ndjson(events, Wait::Applied).await,
            _ => self.app.events(&json!(events), Wait::Applied).await,
        };
        self.asked = (self.asked.0 + 1, self.asked.1.max(start.elapsed()));
        check::results(events, &reply, expected, false)
    }

    /// All users that there can be.
    pub fn everybody(&self) -> &[String] {
        &self.universe.everybody
    }

    /// How many events were sent so far.
    pub fn events(&self) -> usize {
        self.sent.len()
    }

    /// Everything, as that pod shows it.
    pub async fn compare_on(&mut self, base: &str) -> check::Check {
        self.app.base = base.to_owned();
        self.compare(true).await
    }

    /// Finds out the id of the room that a `to` message has just made.
    async fn learn(&mut self, events: &[Value]) -> check::Check {
        if !self.model.rooms.keys().any(|id| id.starts_with('\u{1}')) {
            return Ok(());
        }
        let event = events.last().unwrap();
        let (sender, to) = (
            event["sender"].as_str().unwrap(),
            event["to"].as_str().unwrap(),
        );
        let rows = self.app.imkit_rooms(sender, &[]).await.ok();
        let new = rows["result"]["data"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|row| {
                let has = |user: &str| {
                    row["members"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|member| member["_id"] == user)
                };
                row["roomType"] == "direct"
                    && has(sender)
                    && has(to)
                    && !self.model.rooms.contains_key(id_of(row))
            });
        let Some(new) = new else {
            return Err(format!("no room after {event}: {rows}"));
        };
        self.universe
            .pairs
            .push((id_of(new).to_owned(), [sender.to_owned(), to.to_owned()]));
        self.model.learn(sender, to, id_of(new));
        Ok(())
    }

    /// All endpoints for a few users, or for all of them.
    pub async fn compare(&mut self, all: bool) -> check::Check {
        check::many(&self.app, &self.model, &self.universe.everybody).await?;
        let users: Vec<String> = if all {
            self.universe.everybody.clone()
        } else {
            self.universe
                .everybody
                .choose_multiple(&mut self.rng, 2)
                .cloned()
                .collect()
        };
        let asked: Vec<Questions> = users.iter().map(|_| self.questions()).collect();
        let (app, model) = (&self.app, &self.model);
        let checks = users
            .iter()
            .zip(&asked)
            .map(|(user, ask)| check::user(app, model, user, ask));
        futures_util::future::try_join_all(checks).await?;

        // No commas: these names go into a comma list.
        let asked: Vec<String> = self
            .universe
            .everybody
            .choose_multiple(&mut self.rng, 3)
            .cloned()
            .collect();
        let mut rooms: Vec<String> = self.model.rooms.keys().cloned().collect();
        rooms.push("no such room".to_owned());
        if !all {
            rooms = rooms.choose_multiple(&mut self.rng, 1).cloned().collect();
        }
        for room in rooms {
            check::room(app, model, &room, &asked).await?;
        }
        Ok(())
    }

    fn questions(&mut self) -> Questions {
        let rng = &mut self.rng;
        let choose = |rng: &mut StdRng, from: &[&str]| {
            let count = rng.random_range(0..=3);
            from.choose_multiple(rng, count)
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        Questions {
            tags: choose(rng, &[TAGS, &["no such tag"]].concat()),
            types: choose(rng, &[TYPES, &["no such type"]].concat()),
            peers: self
                .universe
                .everybody
                .choose_multiple(rng, 10)
                .cloned()
                .collect(),
            rooms: vec![RoomsQuery::default(), self.universe.query(rng)],
        }
    }

    pub fn save(&self, label: &str) -> String {
        let file = format!(
            "{}/unread-{label}-{}.ndjson",
            env!("CARGO_TARGET_TMPDIR"),
            self.app.keys.id
        );
        let mut text = String::new();
        for (order, event) in &self.sent {
            match order {
                Order::Arrival => writeln!(text, "{event}").unwrap(),
                _ => writeln!(text, "{}", json!({"order": "time", "event": event})).unwrap(),
            }
        }
        std::fs::write(&file, text).unwrap();
        file
    }
}

/// The time of an event that has one, in either form.
fn time_of(event: &Value) -> i64 {
    let text = event["time"].as_str();
    let parsed = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let parsed = parsed.map(|time| time.as_millisecond());
    parsed.or(event["time"].as_i64()).unwrap_or(0)
}

fn id_of(row: &Value) -> &str {
    row["_id"].as_str().unwrap_or("")
}
