//! Long random histories against the model, step by step.
//!
//! `TEST_SEED=n` runs one seed, `TEST_STEPS=n` sets the number of events for each. A failure names its seed and leaves
//! all that was sent in a file. Where the definition is silent (see [`Universe::is_defined`]) nothing is generated.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::check::{self, Questions};
use crate::model::{Condition, Kind, Model, Outcome, Room, RoomsQuery, SortBy};
use crate::support::{App, Config, Pod, RedisServer, Wait, app, assert_no_drift};

/// No sequence is random that cannot be had again.
const SEEDS: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

const START: i64 = 1_750_000_000_000;
/// A time that is still to come.
const FUTURE: i64 = 4_000_000_000_000;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}"))
    })
}

/// Runs all seeds at the same time, each in an app of its own.
async fn histories(label: &'static str, seeds: &[u64], twice: bool) {
    let seeds = setting("TEST_SEED").map_or_else(|| seeds.to_vec(), |seed| vec![seed]);
    let steps = setting("TEST_STEPS").unwrap_or(500);
    let apps: Vec<App> = seeds.iter().map(|_| app()).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for (seed, app) in seeds.into_iter().zip(&apps) {
        let app = app.clone();
        tasks.spawn(async move {
            let mut history = History::new(app, seed);
            history.run(steps, twice).await.map_err(|reason| {
                let file = history.save(label);
                format!(
                    "TEST_SEED={seed} (all events in {file}), after {} events: {reason}",
                    history.sent.len()
                )
            })
        });
    }
    let failures: Vec<String> = tasks
        .join_all()
        .await
        .into_iter()
        .filter_map(Result::err)
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    apps[0].assert_no_secret_logged();
    // Nor is there anything that no endpoint shows and that does not add up.
    for app in &apps {
        assert_no_drift(&app.redis_url(), &app.keys.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_agrees_with_the_model() {
    histories("once", &SEEDS, false).await;
}

/// A room that has forgotten all but its last four messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_older_than_the_history_is_answered_as_the_model_does() {
    let redis = RedisServer::start();
    let seeds = setting("TEST_SEED").map_or_else(|| vec![201, 202, 203], |seed| vec![seed]);
    let mut config = Config::apps(seeds.len());
    config.extra = "[history]\nmax_messages = 4\n".to_owned();
    let pod = Pod::start(&config, &redis);
    for (seed, keys) in seeds.into_iter().zip(config.apps) {
        let mut history = History::new(App::new(&keys, &pod.base), seed);
        history.model.history = Some(4);
        if let Err(reason) = history
            .run(setting("TEST_STEPS").unwrap_or(400), false)
            .await
        {
            let file = history.save("edges");
            panic!("TEST_SEED={seed} (all events in {file}): {reason}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_may_be_sent_twice() {
    histories("twice", &[101, 102], true).await;
}

// ---------------------------------------------------------------------------------------------------------- a history

pub struct History {
    app: App,
    model: Model,
    universe: Universe,
    rng: StdRng,
    sent: Vec<Value>,
    /// Whether users may be deleted.
    pub deletes_users: bool,
    /// What happens before each request; it may choose another pod.
    pub before: Box<dyn FnMut(&mut App) + Send>,
    /// Requests with events, and the slowest answer to one.
    #[allow(dead_code, reason = "only the fault tests report it")]
    pub asked: (usize, Duration),
}

impl History {
    pub fn new(app: App, seed: u64) -> Self {
        let universe = Universe::new();
        Self {
            app,
            model: Model::default(),
            universe,
            rng: StdRng::seed_from_u64(seed),
            sent: Vec::new(),
            deletes_users: true,
            before: Box::new(|_| ()),
            asked: (0, Duration::ZERO),
        }
    }

    pub async fn run(&mut self, steps: u64, twice: bool) -> check::Check {
        self.compare(true).await?;
        let mut since_all = 0;
        while (self.sent.len() as u64) < steps {
            let (events, outcomes) = self.batch();
            since_all += events.len();
            self.send(&events, &outcomes).await?;
            self.learn(&events).await?;
            if twice
                && events
                    .iter()
                    .all(|event| self.universe.is_defined(&self.model, event))
            {
                let again: Vec<Outcome> =
                    events.iter().map(|event| self.model.apply(event)).collect();
                self.send(&events, &again).await?;
                self.learn(&events).await?;
            }
            let all = since_all >= 60;
            if all {
                since_all = 0;
            }
            self.compare(all).await.map_err(|reason| {
                let lines: Vec<String> = events.iter().map(Value::to_string).collect();
                format!("{reason}\nafter the request\n{}", lines.join("\n"))
            })?;
        }
        self.compare(true).await
    }

    /// The next request. It ends where a room is made whose id only the server knows.
    fn batch(&mut self) -> (Vec<Value>, Vec<Outcome>) {
        let size = *[1, 1, 1, 2, 4, 8, 20].choose(&mut self.rng).unwrap();
        let (mut events, mut outcomes) = (Vec::new(), Vec::new());
        while events.len() < size {
            let event = if !self.sent.is_empty() && self.rng.random_bool(0.06) {
                self.sent.choose(&mut self.rng).unwrap().clone()
            } else {
                self.universe.event(&self.model, &mut self.rng)
            };
            let deletes = event["type"] == "user.deleted" && !self.deletes_users;
            if deletes || !self.universe.is_defined(&self.model, &event) {
                continue;
            }
            outcomes.push(self.model.apply(&event));
            self.sent.push(event.clone());
            events.push(event);
            if self.model.rooms.keys().any(|id| id.starts_with('\u{1}')) {
                break;
            }
        }
        (events, outcomes)
    }

    async fn send(&mut self, events: &[Value], expected: &[Outcome]) -> check::Check {
        (self.before)(&mut self.app);
        let start = Instant::now();
        let reply = match events {
            [one] if self.rng.random_bool(0.6) => self.app.events(one, Wait::Applied).await,
            _ if self.rng.random_bool(0.5) => self.app.events_ndjson(events, Wait::Applied).await,
            _ => self.app.events(&json!(events), Wait::Applied).await,
        };
        self.asked = (self.asked.0 + 1, self.asked.1.max(start.elapsed()));
        check::results(events, &reply, expected, false)
    }

    /// How many events were sent so far.
    #[allow(dead_code, reason = "only the fault tests report it")]
    pub fn events(&self) -> usize {
        self.sent.len()
    }

    /// Everything, as that pod shows it.
    #[allow(dead_code, reason = "only the fault tests have several pods")]
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
        let some: Vec<String> = self
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
            check::room(app, model, &room, &some).await?;
        }
        Ok(())
    }

    fn questions(&mut self) -> Questions {
        let rng = &mut self.rng;
        let some = |rng: &mut StdRng, from: &[&str]| {
            let count = rng.random_range(0..=3);
            from.choose_multiple(rng, count)
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        Questions {
            tags: some(rng, &[TAGS, &["no such tag"]].concat()),
            types: some(rng, &[TYPES, &["no such type"]].concat()),
            peers: self
                .universe
                .everybody
                .choose_multiple(rng, 10)
                .cloned()
                .collect(),
            rooms: vec![RoomsQuery::default(), self.universe.query(rng)],
        }
    }

    fn save(&self, label: &str) -> String {
        let file = format!(
            "{}/unread-{label}-{}.ndjson",
            env!("CARGO_TARGET_TMPDIR"),
            self.app.keys.id
        );
        let mut text = String::new();
        for event in &self.sent {
            writeln!(text, "{event}").unwrap();
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

// ---------------------------------------------------------------------------------------------------------- a universe

const TAGS: &[&str] = &[
    "work",
    "w*rk",
    "a b",
    "ta{g}",
    "50%",
    "日本",
    "comma,tag",
    "\"q\"",
];
const TYPES: &[&str] = &["support", "type {1}", "類型", "a%2Cb"];
const FOLDERS: &[&str] = &["Work", "", "f/o"];

/// Who and what there is: few enough that everything meets everything, with names that are made to be misread.
struct Universe {
    users: Vec<String>,
    /// The users and one who is never mentioned.
    everybody: Vec<String>,
    groups: Vec<String>,
    /// Direct rooms and the two who may ever be in them; those made by `to` are added when they are known.
    pairs: Vec<(String, [String; 2])>,
}

impl Universe {
    fn new() -> Self {
        let users: Vec<String> = [
            "alice",
            "b{ob}",
            "c*r?l [x]",
            "d%2Fe%",
            "e/f g//h",
            "quo\"te'\\",
            "用户:七+8",
            &format!("😀{}x", "é".repeat(125)),
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(users[7].len(), 255);
        let groups = [
            "r1",
            "room{1}",
            "*",
            "a%2Fb",
            "x/y z",
            "li,st:of?",
            "日本語🎉",
            &"}{".repeat(127),
        ]
        .map(str::to_owned)
        .to_vec();
        let pair = |a: usize, b: usize| [users[a].clone(), users[b].clone()];
        let pairs = vec![
            ("dir{ect}:1".to_owned(), pair(0, 1)),
            ("direct 2".to_owned(), pair(2, 3)),
        ];
        let everybody = users
            .iter()
            .cloned()
            .chain(["gho{s}t".to_owned()])
            .collect();
        Self {
            users,
            everybody,
            groups,
            pairs,
        }
    }

    fn pair_of(&self, room: &str) -> Option<&[String; 2]> {
        self.pairs
            .iter()
            .rev()
            .find(|(id, _)| id == room)
            .map(|(_, pair)| pair)
    }

    /// Whether the documents say what this event does now.
    fn is_defined(&self, model: &Model, event: &Value) -> bool {
        let field = |name: &str| event[name].as_str().unwrap_or("");
        let room = model.rooms.get(field("room"));
        // Several rooms may be that of two users; which of them a message goes to is left open.
        let between = |one: &str, two: &str| -> Vec<String> {
            let rooms = model.direct_rooms(one, two);
            rooms.into_iter().map(str::to_owned).collect()
        };
        let users: Vec<&str> = match event["users"].as_array() {
            Some(users) => users.iter().filter_map(Value::as_str).collect(),
            None => vec![field("user")],
        };
        match field("type") {
            // Whether leaving brings somebody unknown into being.
            "member.left" => {
                users.iter().all(|user| model.users.contains_key(*user)) || room.is_none()
            }
            // A deleted direct room of unknown name is not made again by that name.
            "room.updated" => {
                room.is_some() || self.is_given(field("room")) || event["room"].is_null()
            }
            "message.sent" if event.get("to").is_some() => {
                let (sender, to) = (field("sender"), field("to"));
                let theirs = between(sender, to);
                // One that is empty is found by its name, and only the server knows which of several names comes first.
                let empty = |id: &String| model.rooms[id].members.is_empty();
                let made = self
                    .rooms_between(sender, to)
                    .filter(|id| !self.is_given(id));
                let open = theirs.iter().any(empty) && made.count() > 1;
                // A message that is sent again into another room would be the last of two at the same time.
                let elsewhere = model.rooms.iter().any(|(id, room)| {
                    let known = room.message(field("id"));
                    !theirs.contains(id) && known.is_some_and(|m| m.time == time_of(event))
                });
                theirs.len() <= 1 && !open && !elsewhere
            }
            _ => true,
        }
    }

    /// The rooms whose names the tests choose.
    fn is_given(&self, room: &str) -> bool {
        self.groups.iter().any(|group| group == room)
            || self.pairs[..2].iter().any(|(id, _)| id == room)
    }

    fn rooms_between<'a>(&'a self, a: &'a str, b: &'a str) -> impl Iterator<Item = &'a str> {
        let theirs = move |pair: &[String; 2]| pair == &[a, b] || pair == &[b, a];
        self.pairs
            .iter()
            .filter(move |(_, pair)| theirs(pair))
            .map(|(id, _)| id.as_str())
    }

    /// A time that no other room's messages have, so that the order of rooms is never a matter of luck; two messages
    /// of one room may well share it.
    fn time(rng: &mut StdRng, lane: usize) -> i64 {
        // Every now and then a clock is far ahead.
        let start = if rng.random_bool(0.05) { FUTURE } else { START };
        start + rng.random_range(0..600) * 500 + lane as i64
    }

    /// Whose times a room's messages have. A direct room that a message makes is the next in the list.
    fn lane(&self, room: Option<&str>) -> usize {
        let at = |room: &str| self.groups.iter().position(|group| group == room);
        if let Some(group) = room.and_then(at) {
            return group;
        }
        match room.map(|room| self.pairs.iter().position(|(id, _)| id == room)) {
            Some(None) => 99,
            Some(Some(at)) => 100 + at % 400,
            None => 100 + self.pairs.len() % 400,
        }
    }

    fn user<'a>(&'a self, rng: &mut StdRng) -> &'a str {
        self.users.choose(rng).unwrap()
    }

    /// A known room as a rule; now and then any name there is, or none that there is.
    fn room(&self, model: &Model, rng: &mut StdRng) -> String {
        if rng.random_bool(0.02) {
            return "no such room".to_owned();
        }
        let known: Vec<&String> = model.rooms.keys().collect();
        match known.choose(rng) {
            Some(id) if rng.random_bool(0.93) => (*id).clone(),
            _ if rng.random_bool(0.7) => self.groups.choose(rng).unwrap().clone(),
            _ => self.pairs.choose(rng).unwrap().0.clone(),
        }
    }

    fn event(&self, model: &Model, rng: &mut StdRng) -> Value {
        let mut event = match rng.random_range(0..100) {
            0..34 => self.message(model, rng),
            34..39 => self.message_to(model, rng),
            39..45 => self.recall(model, rng),
            45..58 => self.read(model, rng),
            58..61 => self.read_all(model, rng),
            61..75 => self.membership(model, rng),
            75..87 => self.room_update(model, rng),
            87..89 => json!({"type": "room.deleted", "room": self.room(model, rng)}),
            89..91 => self.user_update(rng),
            91..92 => json!({"type": "user.deleted", "user": self.everybody.choose(rng).unwrap()}),
            92..97 => self.pref(model, rng),
            _ => invalid(rng),
        };
        if event.get("time").is_none() {
            event["time"] = (START + rng.random_range(0..300_000)).into();
        }
        if rng.random_bool(0.15) {
            event["key"] = self.key(&event, rng).into();
        }
        // Every now and then with fields that hold nothing.
        if rng.random_bool(0.05) {
            for field in may_be_null(&event) {
                let fields = event.as_object_mut().unwrap();
                fields.entry(*field).or_insert(Value::Null);
            }
        }
        // Every now and then as RFC 3339.
        if let (Some(ms), true) = (event["time"].as_i64(), rng.random_bool(0.1)) {
            event["time"] = jiff::Timestamp::from_millisecond(ms)
                .unwrap()
                .to_string()
                .into();
        }
        event
    }

    /// One of a few keys, so that some come again; now and then that of another type of event. Two users who read each other's
    /// rooms by the peer have keys of their own: of several rooms each says what it knows.
    fn key(&self, event: &Value, rng: &mut StdRng) -> String {
        let n = rng.random_range(0..12);
        if event.get("peer").is_some() {
            let at = |field: &str| self.users.iter().position(|user| event[field] == **user);
            return format!("{{{:?} {:?}}}|#:{n}", at("user"), at("peer"));
        }
        let name = match rng.random_range(0..20) {
            0 => "any",
            _ => event["type"].as_str().unwrap_or_default(),
        };
        format!("{{{name}}}|#:{n}")
    }

    fn read_all(&self, model: &Model, rng: &mut StdRng) -> Value {
        let mut event = json!({"type": "user.read_all", "user": self.user(rng)});
        if rng.random_bool(0.4) {
            let rooms: Vec<&Room> = model.rooms.values().collect();
            let messages = rooms.choose(rng).map_or(&[][..], |room| &room.messages);
            let time = messages.choose(rng).map_or(START, |m| m.time) + rng.random_range(-1..=1);
            event["up_to_time"] = time.into();
        }
        if rng.random_bool(0.4) {
            let count = rng.random_range(1..=3);
            let kinds = ["direct", "group", "supergroup"].choose_multiple(rng, count);
            event["kinds"] = kinds.copied().collect();
        }
        event
    }

    fn message_id(&self, rng: &mut StdRng) -> String {
        match rng.random_range(0..10) {
            0 => format!("few {}", rng.random_range(0..20)),
            1 => format!("m/{{{}}}*:\"", rng.random_range(0..1000)),
            _ => format!("m{}", rng.random::<u32>()),
        }
    }

    fn message(&self, model: &Model, rng: &mut StdRng) -> Value {
        let room = self.room(model, rng);
        let lane = self.lane(Some(&room));
        let mut event = json!({
            "type": "message.sent", "room": room, "id": self.message_id(rng), "time": Self::time(rng, lane),
            "text": format!("text {} é\"\u{1F600}", rng.random::<u16>()),
        });
        if rng.random_bool(0.9) {
            event["sender"] = self.user(rng).into();
        }
        self.spice(&mut event, rng);
        event
    }

    fn spice(&self, event: &mut Value, rng: &mut StdRng) {
        match rng.random_range(0..10) {
            0..3 => {
                let count = rng.random_range(0..4);
                event["mentions"] = self
                    .everybody
                    .choose_multiple(rng, count)
                    .map(String::as_str)
                    .collect();
            }
            3 => event["mentions"] = "all".into(),
            _ => {}
        }
        if rng.random_bool(0.12) {
            event["silent"] = rng.random_bool(0.9).into();
        }
        if rng.random_bool(0.25) {
            event["mark_read"] = rng.random_bool(0.2).into();
        }
        if rng.random_bool(0.1) {
            event["message_type"] = "image".into();
        }
        if rng.random_bool(0.1) {
            event["payload"] = json!({"extra": {"n": rng.random::<u8>()}, "message": "no"});
        }
    }

    fn message_to(&self, model: &Model, rng: &mut StdRng) -> Value {
        let two: Vec<usize> = rand::seq::index::sample(rng, self.users.len(), 2).into_vec();
        let lane = self.lane(model.direct_room(&self.users[two[0]], &self.users[two[1]]));
        let mut event = json!({
            "type": "message.sent", "to": self.users[two[0]], "sender": self.users[two[1]],
            "id": self.message_id(rng), "text": "to you", "time": Self::time(rng, lane),
        });
        self.spice(&mut event, rng);
        event
    }

    /// The id of some message of that room; sometimes of none.
    fn known_message(&self, model: &Model, room: &str, rng: &mut StdRng) -> String {
        let known = model
            .rooms
            .get(room)
            .and_then(|room| room.messages.choose(rng));
        match known {
            Some(message) if rng.random_bool(0.92) => message.id.clone(),
            _ => "no such message".to_owned(),
        }
    }

    fn recall(&self, model: &Model, rng: &mut StdRng) -> Value {
        let room = self.room(model, rng);
        // The last message more often than chance would have it: it is shown.
        let last = model
            .rooms
            .get(&room)
            .and_then(|room| room.last())
            .map(|m| m.id.clone());
        let id = match last {
            Some(id) if rng.random_bool(0.3) => id,
            _ => self.known_message(model, &room, rng),
        };
        json!({"type": "message.recalled", "room": room, "id": id})
    }

    fn read(&self, model: &Model, rng: &mut StdRng) -> Value {
        let room = self.room(model, rng);
        let mut event = json!({"type": "room.read", "user": self.user(rng)});
        if rng.random_bool(0.15) {
            // Of somebody who has a direct room, as a rule: mostly the peer of now, now and then one who is it no more.
            let members = |room: &Room| room.members.keys().cloned().collect::<Vec<_>>();
            let direct = model
                .rooms
                .values()
                .filter(|room| room.kind == Kind::Direct);
            let met: Vec<(String, Option<String>)> = direct
                .flat_map(|room| {
                    members(room).into_iter().map(|user| {
                        let peer = room.peer_of(&user).map(str::to_owned);
                        (user, peer)
                    })
                })
                .collect();
            event["peer"] = self.user(rng).into();
            if let (Some((user, peer)), true) = (met.choose(rng), rng.random_bool(0.8)) {
                event["user"] = user.clone().into();
                if let (Some(peer), true) = (peer, rng.random_bool(0.8)) {
                    event["peer"] = peer.clone().into();
                }
            }
            return event;
        }
        let joined: Vec<&str> = model
            .rooms
            .get(&room)
            .into_iter()
            .flat_map(|room| room.joined())
            .collect();
        if let (Some(user), true) = (joined.choose(rng), rng.random_bool(0.9)) {
            event["user"] = (*user).into();
        }
        match rng.random_range(0..10) {
            0..5 => event["up_to_id"] = self.known_message(model, &room, rng).into(),
            5..8 => {
                let messages = model
                    .rooms
                    .get(&room)
                    .map_or(&[][..], |room| &room.messages);
                let time =
                    messages.choose(rng).map_or(START, |m| m.time) + rng.random_range(-1..=1);
                event["up_to_time"] = time.into();
            }
            _ => {}
        }
        event["room"] = room.into();
        event
    }

    fn membership(&self, model: &Model, rng: &mut StdRng) -> Value {
        let room = self.room(model, rng);
        let kind = [
            "member.joined",
            "member.joined",
            "member.joined",
            "member.invited",
            "member.left",
        ]
        .choose(rng)
        .unwrap();
        let mut users: Vec<&str> = match self.pair_of(&room) {
            Some(pair) if rng.random_bool(0.8) => pair.iter().map(String::as_str).collect(),
            _ => self.users.iter().map(String::as_str).collect(),
        };
        let count = if *kind == "member.joined" {
            rng.random_range(1..=5)
        } else {
            rng.random_range(1..=2)
        };
        users = users.choose_multiple(rng, count).copied().collect();
        if let ([user], true) = (users.as_slice(), rng.random_bool(0.5)) {
            return json!({"type": kind, "room": room, "user": user});
        }
        json!({"type": kind, "room": room, "users": users})
    }

    fn room_update(&self, model: &Model, rng: &mut StdRng) -> Value {
        // One that is missing, if there is one, as a rule.
        let given: Vec<&str> = self
            .groups
            .iter()
            .map(String::as_str)
            .chain(self.pairs[..2].iter().map(|p| p.0.as_str()))
            .collect();
        let missing: Vec<&&str> = given
            .iter()
            .filter(|id| !model.rooms.contains_key(**id))
            .collect();
        let room = match missing.choose(rng) {
            Some(id) if rng.random_bool(0.5) => (**id).to_owned(),
            _ => self.room(model, rng),
        };
        let mut event = json!({"type": "room.updated", "room": room});
        // Few creation times, so that some are the same.
        event["time"] = (START + rng.random_range(0..5) * 60_000).into();
        let known = model.rooms.get(&room);
        if known.is_none() && self.pair_of(&room).is_some() {
            event["kind"] = "direct".into();
        } else if known.is_none() && rng.random_bool(0.5) {
            event["kind"] = (*["group", "supergroup"].choose(rng).unwrap()).into();
        } else if known.is_some() && rng.random_bool(0.15) {
            event["kind"] = (*["group", "supergroup", "supergroup", "direct"]
                .choose(rng)
                .unwrap())
            .into();
        }
        if rng.random_bool(0.5) {
            let count = rng.random_range(0..4);
            event["tags"] = TAGS.choose_multiple(rng, count).copied().collect();
        }
        if rng.random_bool(0.4) {
            event["custom_type"] = (*TYPES.choose(rng).unwrap()).into();
        }
        if rng.random_bool(0.3) {
            event["status"] = i32::from(rng.random_bool(0.6)).into();
        }
        if rng.random_bool(0.2) {
            event["name"] = format!("name {}", rng.random_range(0..6)).into();
            event["description"] = "d".into();
            event["bot_mode"] = rng.random_bool(0.5).into();
            event["service_status"] = rng.random_range(0..3).into();
        }
        event
    }

    fn user_update(&self, rng: &mut StdRng) -> Value {
        let mut event = json!({"type": "user.updated", "user": self.user(rng)});
        if rng.random_bool(0.7) {
            event["nickname"] = format!("nick {}", rng.random::<u8>()).into();
        }
        if rng.random_bool(0.5) {
            event["avatar_url"] = "https://example.org/a.png".into();
            event["is_robot"] = rng.random_bool(0.5).into();
            event["last_login_time"] = START.into();
        }
        event
    }

    fn pref(&self, model: &Model, rng: &mut StdRng) -> Value {
        let room = self.room(model, rng);
        let joined: Vec<&str> = model
            .rooms
            .get(&room)
            .into_iter()
            .flat_map(|room| room.joined())
            .collect();
        let user = match joined.choose(rng) {
            Some(user) if rng.random_bool(0.9) => user,
            _ => self.user(rng),
        };
        let mut event = json!({"type": "pref.updated", "room": room, "user": user});
        for flag in ["hidden", "sticky", "muted"] {
            if rng.random_bool(0.4) {
                event[flag] = rng.random_bool(0.6).into();
            }
        }
        if rng.random_bool(0.5) {
            event["folder"] = (*FOLDERS.choose(rng).unwrap()).into();
        }
        if rng.random_bool(0.5) {
            event["tags"] = ["vip", "later", "a b"]
                .choose_multiple(rng, 2)
                .copied()
                .collect();
            event["tag_colors"] = json!({"vip": "#336699"});
        }
        event
    }

    fn query(&self, rng: &mut StdRng) -> RoomsQuery {
        let mut query = RoomsQuery {
            unread_first: rng.random_bool(0.4),
            as_iso: rng.random_bool(0.5),
            q_members: rng.random_bool(0.3),
            ..RoomsQuery::default()
        };
        if rng.random_bool(0.5) {
            query.sort.push((SortBy::LastMessage, rng.random_bool(0.5)));
        }
        if rng.random_bool(0.4) {
            query.sort.push((SortBy::CreatedTime, rng.random_bool(0.5)));
        }
        while rng.random_bool(0.3) {
            let by = SortBy::ALL[rng.random_range(0..SortBy::ALL.len())];
            let at = rng.random_range(0..=query.sort.len());
            query.sort.insert(at, (by, rng.random_bool(0.5)));
        }
        if rng.random_bool(0.4) {
            query.skip = rng.random_range(0..5);
            query.limit = rng.random_range(0..5);
        }
        if rng.random_bool(0.3) {
            // All was accepted after the one, and before the other.
            let start = if rng.random_bool(0.5) { FUTURE } else { START };
            query.updated_after = Some(start + rng.random_range(0..300_000));
        }
        let tag = |rng: &mut StdRng| json!(TAGS.choose(rng).unwrap());
        match rng.random_range(0..10) {
            0 => query.q.push(("roomTags", Condition::Equal(tag(rng)))),
            1 => query
                .q
                .push(("roomTags", Condition::In(vec![tag(rng), tag(rng)]))),
            2 => query
                .q
                .push(("roomTags", Condition::All(vec![tag(rng), tag(rng)]))),
            3 => query.q.push(("roomType", Condition::Equal(json!("group")))),
            4 => {
                query.q.push((
                    "roomType",
                    Condition::In(vec![json!("direct"), json!("custom")]),
                ));
                query.q.push(("roomTags", Condition::Equal(tag(rng))));
            }
            5 => query.q.push((
                "_id",
                Condition::Equal(json!(self.groups.choose(rng).unwrap())),
            )),
            6 => query.q.push((
                "_id",
                Condition::In(self.groups[..4].iter().map(|id| json!(id)).collect()),
            )),
            _ => {}
        }
        match rng.random_range(0..12) {
            0 => query.pref.push(("tags", Condition::Equal(json!("vip")))),
            1 => query
                .pref
                .push(("tags", Condition::All(vec![json!("vip"), json!("a b")]))),
            2 => query
                .pref
                .push(("folder", Condition::NotEqual(json!("Work")))),
            3 => query.pref.push(("hidden", Condition::Equal(json!(false)))),
            7 => query.pref.push(("muted", Condition::Equal(json!(true)))),
            8 => query.pref.extend([
                ("sticky", Condition::Equal(json!(true))),
                ("hidden", Condition::NotEqual(json!(true))),
            ]),
            4 => query
                .pref
                .push(("tags", Condition::In(vec![json!("later"), json!("x")]))),
            5 => query
                .pref
                .push(("sticky", Condition::Exists(rng.random_bool(0.7)))),
            6 => query
                .pref
                .push(("folder", Condition::In(vec![json!("Work"), json!("f/o")]))),
            _ => {}
        }
        query
    }
}

/// Fields that may be left out of such an event.
fn may_be_null(event: &Value) -> &'static [&'static str] {
    match event["type"].as_str().unwrap_or_default() {
        "user.updated" => &["nickname", "is_robot", "last_login_time"],
        "room.updated" => &[
            "kind",
            "tags",
            "status",
            "name",
            "encrypted",
            "service_status",
        ],
        "member.joined" | "member.invited" | "member.left" => &["user", "users"],
        "message.sent" => &["room", "to", "text", "mentions", "silent", "mark_read"],
        "room.read" => &["peer", "room", "up_to_id", "up_to_time", "key"],
        "user.read_all" => &["up_to_time", "kinds", "key"],
        "pref.updated" => &["tags", "tag_colors", "hidden", "folder"],
        _ => &[],
    }
}

/// Events that have to be refused for themselves, whatever there is.
fn invalid(rng: &mut StdRng) -> Value {
    let long = "x".repeat(256);
    let tags: Vec<String> = (0..101).map(|n| format!("t{n}")).collect();
    let all = [
        json!({"type": "no.such.type", "room": "r1"}),
        json!({"room": "r1"}),
        json!({"type": "user.updated"}),
        json!({"type": "user.updated", "user": ""}),
        json!({"type": "user.updated", "user": long}),
        json!({"type": "user.updated", "user": "tab\there"}),
        json!({"type": "user.updated", "user": 7}),
        json!({"type": "room.updated", "room": "r1", "kind": "channel"}),
        json!({"type": "room.updated", "room": "r1", "status": 2}),
        json!({"type": "room.updated", "room": "r1", "custom_type": "a,b"}),
        json!({"type": "room.updated", "room": "r1", "tags": ["ok", ""]}),
        json!({"type": "room.updated", "room": "r1", "tags": "work"}),
        json!({"type": "room.updated", "room": "r1", "tags": tags}),
        json!({"type": "member.joined", "room": "r1"}),
        json!({"type": "member.joined", "room": "r1", "users": ["never seen", ""]}),
        json!({"type": "member.joined", "room": "r1", "users": ["never seen", "nul\u{0}"]}),
        json!({"type": "message.sent", "room": "r1", "sender": "alice"}),
        json!({"type": "message.sent", "id": "lost", "sender": "alice"}),
        json!({"type": "message.sent", "id": "from nobody", "to": "never seen"}),
        json!({"type": "message.sent", "room": "r1", "id": "x", "mentions": "everybody"}),
        json!({"type": "message.sent", "room": "r1", "id": "x", "silent": "yes"}),
        json!({"type": "message.sent", "room": "r1", "id": "x", "time": "yesterday"}),
        json!({"type": "message.recalled", "room": "r1"}),
        json!({"type": "room.read", "user": "alice"}),
        json!({"type": "room.read", "room": "r1"}),
        json!({"type": "room.read", "room": "r1", "user": "alice", "key": ""}),
        json!({"type": "user.read_all", "user": "alice", "kinds": []}),
        json!({"type": "user.read_all", "user": "alice", "kinds": ["channel"]}),
        json!({"type": "user.read_all", "user": "alice", "kinds": "group"}),
        json!({"type": "pref.updated", "room": "r1", "user": "alice", "hidden": "yes"}),
    ];
    all.choose(rng).unwrap().clone()
}

#[test]
fn the_generator_reaches_every_outcome() {
    let universe = Universe::new();
    let mut rng = StdRng::seed_from_u64(1);
    let mut model = Model::default();
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..20_000 {
        let event = universe.event(&model, &mut rng);
        // Nobody here to name the rooms that `to` makes.
        if event.get("to").is_some() || !universe.is_defined(&model, &event) {
            continue;
        }
        let outcome = match model.apply(&event) {
            Outcome::Applied(_) => "applied",
            Outcome::Duplicate(_) => "duplicate",
            Outcome::Rejected(code) => code,
        };
        *seen
            .entry((event["type"].as_str().unwrap_or("").to_owned(), outcome))
            .or_insert(0) += 1;
    }
    for expected in [
        ("message.sent", "applied"),
        ("message.sent", "duplicate"),
        ("message.sent", "room_not_found"),
        ("message.recalled", "applied"),
        ("message.recalled", "duplicate"),
        ("message.recalled", "message_not_found"),
        ("room.read", "applied"),
        ("room.read", "not_a_member"),
        ("room.read", "message_not_found"),
        ("room.updated", "kind_change"),
        ("member.joined", "direct_room_full"),
        ("member.joined", "room_not_found"),
        ("pref.updated", "applied"),
        ("pref.updated", "not_a_member"),
        ("user.deleted", "user_not_found"),
        ("user.read_all", "applied"),
        ("user.read_all", "duplicate"),
        ("room.read", "duplicate"),
        ("room.read", "invalid"),
        ("room.updated", "duplicate"),
        ("member.joined", "duplicate"),
        ("pref.updated", "duplicate"),
        ("user.updated", "invalid"),
    ] {
        let count = seen
            .get(&(expected.0.to_owned(), expected.1))
            .copied()
            .unwrap_or(0);
        assert!(count >= 3, "{expected:?} came {count} times: {seen:?}");
    }
}
