//! `?order=time`: small histories in several orders of arrival, as the model says; and what the parameter itself takes.

use reqwest::Method;
use serde_json::{Value, json};

use super::{at, post, total};
use crate::support::model::{Model, Order, Outcome};
use crate::support::{App, app};

/// A second of a history: all of them are a few minutes ago.
fn second(start: i64, second: i64) -> Value {
    json!(start + second * 1000)
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_millis()).unwrap()
}

/// The kinds of events that follow each other, each with its fields; `last` is the second of the last message.
fn kinds(start: i64, now: i64, last: i64, counts: (u64, u64)) -> Vec<Value> {
    let time = second(start, now);
    let message =
        |sender: &str| json!({"type": "message.sent", "id": now.to_string(), "sender": sender});
    let of_a = |kind: &str, fields: Value| {
        let mut event = json!({"type": kind, "user": "a"});
        event
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        event
    };
    let edit =
        |whom: Value| json!({"type": "message.updated", "id": last.to_string(), "mentions": whom});
    let mut all = vec![
        message("b"),
        message("a"),
        of_a("room.read", json!({})),
        of_a("room.read", json!({"up_to_time": second(start, last)})),
        of_a("room.read", json!({"up_to_id": last.to_string()})),
        of_a("room.unread", json!({"from_id": last.to_string()})),
        of_a("room.unread", json!({"from_time": second(start, 0)})),
        json!({"type": "room.cleared"}),
        of_a(
            "counts.set",
            json!({"unread": counts.0, "mentions": counts.1}),
        ),
        of_a("counts.set", json!({"unread": 2, "mentions": 1})),
        json!({"type": "message.recalled", "id": last.to_string()}),
        edit(json!(["a"])),
        edit(json!([])),
        of_a("member.joined", json!({})),
        of_a("member.left", json!({})),
    ];
    for event in &mut all {
        event["time"] = time.clone();
    }
    all
}

/// One history in a room of its own: its events as they come, and what the model says.
struct Story {
    room: String,
    model: Model,
    events: Vec<Value>,
}

impl Story {
    fn name(&self, user: &str) -> String {
        format!("{user} {}", self.room)
    }

    /// The same event in this room, by its own users.
    fn placed(&self, mut event: Value) -> Value {
        event["room"] = self.room.clone().into();
        for field in ["user", "sender"] {
            if let Some(user) = event[field].as_str().map(str::to_owned) {
                event[field] = self.name(&user).into();
            }
        }
        if let Some(users) = event["mentions"].as_array() {
            event["mentions"] = users
                .iter()
                .map(|user| self.name(user.as_str().unwrap()))
                .collect();
        }
        event
    }

    fn counts(&self, user: &str) -> (u64, u64) {
        let (room, user) = (&self.model.rooms[&self.room], self.name(user));
        (room.unread(&user), room.mentions(&user))
    }

    fn start(room: String, kind: &str, start: i64) -> (Self, Vec<Value>) {
        let mut story = Self {
            room,
            model: Model::default(),
            events: Vec::new(),
        };
        let users: Vec<String> = ["a", "b", "c"]
            .iter()
            .map(|user| story.name(user))
            .collect();
        let first = vec![
            json!({"type": "room.updated", "room": story.room, "kind": kind}),
            json!({"type": "member.joined", "room": story.room, "users": users}),
            story.placed(
                json!({"type": "message.sent", "id": "1", "sender": "b", "time": second(start, 1)}),
            ),
        ];
        for event in &first {
            story.model.apply(event);
        }
        (story, first)
    }
}

async fn send(app: &App, query: &str, events: &[Value]) -> Vec<Value> {
    let body = Value::from(events.to_vec()).to_string();
    let reply = post(app, query, "application/json", body).await.ok();
    reply["results"].as_array().unwrap().clone()
}

/// Histories of so many events, in orders of arrival, against the model. `is_run`: which of the histories, in which of the orders.
async fn histories(
    kind: &str,
    length: u32,
    orders: &[Vec<usize>],
    is_run: impl Fn(usize, usize) -> bool,
) {
    let app = app();
    for (which, order) in orders.iter().enumerate() {
        let start = now() - 300_000;
        let count = kinds(start, 0, 0, (0, 0)).len();
        let numbers = (0..count.pow(length)).filter(|history| is_run(*history, which));
        let (stories, first): (Vec<Story>, Vec<Vec<Value>>) = numbers
            .map(|history| story(kind, history, length, (which, order), start))
            .unzip();
        run(&app, stories, &first.concat(), order.len()).await;
    }
    crate::support::assert_no_drift(&app.redis_url(), &app.keys.id);
}

/// The history of that number, whose events come in that order; and what there is before them.
fn story(
    kind: &str,
    history: usize,
    length: u32,
    (which, order): (usize, &[usize]),
    start: i64,
) -> (Story, Vec<Value>) {
    let count = kinds(start, 0, 0, (0, 0)).len();
    let (mut story, before) = Story::start(format!("{kind} {history} {which}"), kind, start);
    let mut model = story.model.clone();
    let (mut events, mut last) = (Vec::new(), 1);
    for place in 0..length {
        let when = i64::from(place + 1) * 10;
        let room = &model.rooms[&story.room];
        let counts = (
            room.unread(&story.name("a")),
            room.mentions(&story.name("a")),
        );
        let chosen = history / count.pow(place) % count;
        let event = kinds(start, when, last, counts).swap_remove(chosen);
        if event["type"] == "message.sent" {
            last = when;
        }
        let event = story.placed(event);
        model.apply_in(Order::Time, &event);
        events.push(event);
    }
    story.events = order.iter().map(|at| events[*at].clone()).collect();
    (story, before)
}

/// Sends what is before, then of each history one event after the other, and asks in the end.
async fn run(app: &App, mut stories: Vec<Story>, first: &[Value], length: usize) {
    for part in first.chunks(6000) {
        send(app, "", part).await;
    }
    for place in 0..length {
        let events: Vec<Value> = stories
            .iter()
            .map(|story| story.events[place].clone())
            .collect();
        let results = send(app, "?order=time", &events).await;
        for (story, result) in stories.iter_mut().zip(results) {
            let expected = match story.model.apply_in(Order::Time, &story.events[place]) {
                Outcome::Applied(_) => "applied",
                Outcome::Duplicate(_) => "duplicate",
                Outcome::Rejected(code) => code,
            };
            let got = result["error"]["code"]
                .as_str()
                .or(result["status"].as_str());
            assert_eq!(
                got,
                Some(expected),
                "event {place} of {:#?}: {result}",
                story.events
            );
        }
    }
    for stories in stories.chunks(300) {
        let users: Vec<String> = stories
            .iter()
            .flat_map(|story| ["a", "c"].map(|user| story.name(user)))
            .collect();
        let ask = app
            .native(Method::POST, "/v1/unread")
            .json(&json!({ "users": users }));
        let answer = App::send(ask).await.ok();
        for story in stories {
            for user in ["a", "c"] {
                let own = &answer["users"][story.name(user)];
                let got = (
                    own["messages"]["total"].as_u64(),
                    own["mentions"]["total"].as_u64(),
                );
                let (messages, mentions) = story.counts(user);
                assert_eq!(
                    got,
                    (Some(messages), Some(mentions)),
                    "{user} in {}: {:#?}",
                    story.room,
                    story.events
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_events_in_both_orders_and_again() {
    let orders = [vec![0, 1, 0], vec![1, 0, 1], vec![1, 1, 0]];
    for kind in ["group", "supergroup"] {
        histories(kind, 2, &orders, |_, _| true).await;
    }
}

/// Each history in one of the orders, another one in a group than in a supergroup; `TEST_ORDERS=all`: in all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_events_in_every_order() {
    let orders = [
        vec![0, 1, 2],
        vec![0, 2, 1],
        vec![1, 0, 2],
        vec![1, 2, 0],
        vec![2, 0, 1],
        vec![2, 1, 0],
    ];
    let is_all = std::env::var("TEST_ORDERS").is_ok_and(|orders| orders == "all");
    // Not by the number itself, in which the last event decides little.
    let lot = |history: usize| history.wrapping_mul(0x9E37_79B1) >> 8;
    let is_run = |add: usize| {
        move |history: usize, which: usize| is_all || (lot(history) + add) % 6 == which
    };
    tokio::join!(
        histories("group", 3, &orders, is_run(0)),
        histories("supergroup", 3, &orders, is_run(3)),
    );
}

#[tokio::test]
async fn a_clearing_that_is_too_old_for_a_member_takes_no_later_one_back() {
    let app = app();
    let start = now() - 60_000;
    let room = |event: Value, at: i64| {
        let mut event = event;
        event["room"] = "r".into();
        event["time"] = second(start, at);
        event
    };
    let first = [
        json!({"type": "room.updated", "room": "r", "kind": "supergroup"}),
        json!({"type": "member.joined", "room": "r", "users": ["a", "b"]}),
        room(json!({"type": "message.sent", "id": "1", "sender": "b"}), 1),
    ];
    send(&app, "", &first).await;
    let cleared = json!({"type": "room.cleared"});
    let unread = json!({"type": "room.unread", "user": "a", "from_id": "1"});
    let events = [
        room(unread, 20),
        room(cleared.clone(), 30),
        room(cleared, 10),
    ];
    send(&app, "?order=time", &events).await;
    assert_eq!(total(&app, "a").await, 0);
}

#[tokio::test]
async fn the_order_is_arrival_or_time() {
    let app = app();
    let event = json!({"type": "user.updated", "user": "alice"});
    for (query, status) in [
        ("?order=arrival", 200),
        ("?order=time", 200),
        ("?order=", 400),
        ("?order=Time", 400),
    ] {
        let reply = post(&app, query, "application/json", event.to_string()).await;
        assert_eq!(reply.status, status, "{query}");
    }
}

#[tokio::test]
async fn by_time_an_event_without_a_time_is_invalid_and_the_others_are_taken() {
    let app = app();
    let with = json!({"type": "user.updated", "user": "alice", "time": now()});
    let without = json!({"type": "user.updated", "user": "bob"});
    let results = send(
        &app,
        "?order=time",
        &[without.clone(), with.clone(), json!(7), without, with],
    )
    .await;
    let statuses: Vec<_> = results
        .iter()
        .map(|result| result["status"].as_str().unwrap())
        .collect();
    assert_eq!(
        statuses,
        ["rejected", "applied", "rejected", "rejected", "applied"]
    );
    let error = &results[0]["error"];
    assert_eq!(error["code"], "invalid");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with("time: is missing"),
        "{error}"
    );
}

#[tokio::test]
async fn a_read_that_is_told_before_its_message_reads_it_on_arrival() {
    let app = app();
    let start = now() - 60_000;
    let first = [
        json!({"type": "room.updated", "room": "r"}),
        json!({"type": "member.joined", "room": "r", "users": ["a", "b"]}),
    ];
    send(&app, "", &first).await;
    let message = |id: i64| json!({"type": "message.sent", "room": "r", "id": id.to_string(), "sender": "b", "time": second(start, id)});
    let read = json!({"type": "room.read", "room": "r", "user": "a", "time": second(start, 5)});
    let results = send(&app, "?order=time", &[read, message(3), message(6)]).await;
    assert_eq!(results[1], at("applied", 1));
    assert_eq!(total(&app, "a").await, 1);
    // By arrival a message is not compared with the bound.
    send(&app, "", &[message(4)]).await;
    assert_eq!(total(&app, "a").await, 2);
}
