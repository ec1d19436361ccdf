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

    fn counts(&self) -> (u64, u64) {
        let room = &self.model.rooms[&self.room];
        (room.unread(&self.name("a")), room.mentions(&self.name("a")))
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

/// All histories of so many events, in every order of arrival that `orders` names, against the model.
async fn histories(kind: &str, length: u32, orders: &[&[usize]]) {
    let app = app();
    let start = now() - 300_000;
    let (mut stories, mut first) = (Vec::new(), Vec::new());
    let count = kinds(start, 0, 0, (0, 0)).len();
    for history in 0..count.pow(length) {
        for (which, order) in orders.iter().enumerate() {
            let (mut story, before) =
                Story::start(format!("{kind} {history} {which}"), kind, start);
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
            stories.push(story);
            first.extend(before);
        }
    }
    for part in first.chunks(6000) {
        send(&app, "", part).await;
    }
    for place in 0..orders[0].len() {
        let events: Vec<Value> = stories
            .iter()
            .map(|story| story.events[place].clone())
            .collect();
        let results = send(&app, "?order=time", &events).await;
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
        let users: Vec<String> = stories.iter().map(|story| story.name("a")).collect();
        let ask = app
            .native(Method::POST, "/v1/unread")
            .json(&json!({ "users": users }));
        let answer = App::send(ask).await.ok();
        for story in stories {
            let own = &answer["users"][story.name("a")];
            let got = (
                own["messages"]["total"].as_u64(),
                own["mentions"]["total"].as_u64(),
            );
            let (messages, mentions) = story.counts();
            assert_eq!(
                got,
                (Some(messages), Some(mentions)),
                "{kind}: {:#?}",
                story.events
            );
        }
    }
    let keys = &app.keys.id;
    crate::support::assert_no_drift(&app.redis_url(), keys);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_events_in_both_orders_and_again() {
    for kind in ["group", "supergroup"] {
        histories(kind, 2, &[&[0, 1, 0], &[1, 0, 1], &[1, 1, 0]]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_events_with_neighbours_changed() {
    histories("group", 3, &[&[1, 0, 2]]).await;
    histories("supergroup", 3, &[&[2, 0, 1]]).await;
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
