//! What once went wrong: a test for each. A pod that dies in these tests dies right after Redis has taken its event.

/// Work that a dead pod left.
mod dead_pods;

/// Short histories against the model.
mod histories;

/// A room that is deleted and made again.
mod made_again;

/// What a room and its history take.
mod bounds;

/// Resets of read positions that a dead pod left, or that a server has lost.
mod resets;

/// Memberships that were placed by their time, and what reads and marks messages beside them.
mod placed;

use std::ops::Deref;

use serde_json::{Value, json};

use crate::support::stopped::Stopped;
use crate::support::{App, Own, Wait, app, eventually};

/// A Redis of its own, and the pod that outlives the others.
struct Scene(Own);

impl Deref for Scene {
    type Target = Own;

    fn deref(&self) -> &Own {
        &self.0
    }
}

impl Scene {
    fn new() -> Self {
        Self::with("")
    }

    fn with(extra: &str) -> Self {
        // A stopped pod, or one on a loaded machine, may wait as long as it takes.
        Self(Own::start(&format!("response_timeout_ms = 60000\n{extra}")))
    }

    /// Another pod takes an event of that room by that script, and stops.
    async fn stops(&self, script: &str, room: &str, event: Value) -> Stopped {
        let pending = room_key(room, "pending");
        Stopped::at(
            &self.config,
            &self.redis,
            &self.app,
            script,
            &pending,
            event,
        )
        .await
    }

    /// Another pod takes an event of that room by that script, and dies.
    async fn dies(&self, script: &str, room: &str, event: Value) {
        self.stops(script, room, event).await.dies().await;
    }

    /// The same for an event of a user.
    async fn dies_deleting(&self, user: &str) {
        let event = json!({"type": "user.deleted", "user": user});
        let pending = user_key(user, "pending");
        let stopped = Stopped::at(
            &self.config,
            &self.redis,
            &self.app,
            "user_delete",
            &pending,
            event,
        );
        stopped.await.dies().await;
    }

    /// Until nothing is left of what dead pods did not finish.
    async fn finished(&self, pending: &str) {
        eventually("what the dead pod left is finished", || async {
            match self.redis.cli(&["HLEN", pending]).as_str() {
                "0" => Ok(()),
                jobs => Err(format!("{jobs} jobs left")),
            }
        })
        .await;
    }

    /// How often Redis has run that command since the statistics were reset.
    fn calls(&self, command: &str) -> u64 {
        self.redis.calls().get(command).copied().unwrap_or(0)
    }
}

fn room_key(room: &str, what: &str) -> String {
    format!("unread:v1:{{app-0:r:{room}}}:{what}")
}

fn user_key(user: &str, what: &str) -> String {
    format!("unread:v1:{{app-0:u:{user}}}:{what}")
}

fn sent(room: &str, id: &str, sender: &str) -> Value {
    json!({"type": "message.sent", "room": room, "id": id, "sender": sender})
}

/// So many messages, `m0` and on.
fn many(room: &str, n: usize, sender: &str) -> Vec<Value> {
    (0..n)
        .map(|i| sent(room, &format!("m{i}"), sender))
        .collect()
}

/// A room and who has joined it.
fn made(room: &str, users: &[&str]) -> Vec<Value> {
    vec![
        json!({"type": "room.updated", "room": room}),
        json!({"type": "member.joined", "room": room, "users": users}),
    ]
}

/// The same for two.
fn made_direct(room: &str, users: [&str; 2]) -> Vec<Value> {
    vec![
        json!({"type": "room.updated", "room": room, "kind": "direct"}),
        json!({"type": "member.joined", "room": room, "users": users}),
    ]
}

/// By room, unread messages and mentions; null: nobody knows that user.
async fn counts(app: &App, user: &str) -> Value {
    let reply = app.unread(user, true).await;
    if reply.status == 404 {
        return Value::Null;
    }
    let answer = reply.ok();
    let rooms = answer["rooms"].as_array().unwrap().iter();
    let of = |room: &Value| json!([room["messages"], room["mentions"]]);
    rooms
        .map(|room| (room["room"].as_str().unwrap().to_owned(), of(room)))
        .collect()
}

/// What each event of a request came to: its status, or why it was rejected.
async fn outcomes(app: &App, events: &Value) -> Vec<String> {
    app.events(events, Wait::Applied).await.outcomes()
}

async fn outcome(app: &App, event: Value) -> String {
    outcomes(app, &json!([event])).await.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_all_of_a_peer_keeps_its_place_before_what_follows() {
    let app = app();
    let mut events = made_direct("d1", ["me", "peer"]);
    events.extend(made_direct("d2", ["me", "peer"]));
    events.extend([sent("d1", "0", "peer"), sent("d2", "0", "peer")]);
    app.must(&events.into()).await;
    for (n, room) in ["d1", "d2"].into_iter().enumerate() {
        let events = json!([
            {"type": "room.read", "user": "me", "peer": "peer"},
            sent(room, &format!("after {n}"), "peer"),
        ]);
        app.must(&events).await;
        let mut expected = json!({"d1": [0, 0], "d2": [0, 0]});
        expected[room] = json!([1, 0]);
        assert_eq!(counts(&app, "me").await, expected, "{room}");
    }
    let total = app.tencent_peers("me", &["peer"]).await.ok();
    assert_eq!(total["C2CUnreadMsgNumList"][0]["C2CUnreadMsgNum"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_is_what_the_next_request_builds_on() {
    const TIMES: usize = 50;
    let app = app();
    let accepted = async |events: Vec<Value>| {
        let n = events.len();
        let answer = app.events(&events.into(), Wait::Accepted).await.ok();
        assert_eq!(answer["rejected"], 0, "{answer}");
        assert_eq!(answer["results"].as_array().unwrap().len(), n);
    };
    for n in 0..TIMES {
        let (room, direct) = (format!("g{n}"), format!("d{n}"));
        let [one, two, three, four] = ["a", "b", "c", "d"].map(|name| format!("{name}{n}"));

        let mut events = made(&room, &[&one]);
        events.push(json!({"type": "message.sent", "room": room, "id": "1"}));
        accepted(events).await;
        let all = json!({"type": "user.read_all", "user": one});
        assert_eq!(outcome(&app, all).await, "applied", "{n}");
        assert_eq!(counts(&app, &one).await[&room], json!([0, 0]), "{n}");

        accepted(vec![
            json!({"type": "member.joined", "room": room, "user": two}),
        ])
        .await;
        let deleted = json!({"type": "user.deleted", "user": two});
        assert_eq!(outcome(&app, deleted).await, "applied", "{n}");
        assert_eq!(counts(&app, &two).await, Value::Null, "{n}");

        accepted(made_direct(&direct, [&three, &four])).await;
        let message = json!({"type": "message.sent", "sender": three, "to": four, "id": "1"});
        assert_eq!(outcome(&app, message).await, "applied", "{n}");
        let expected: Value = [(direct, json!([1, 0]))].into_iter().collect();
        assert_eq!(counts(&app, &four).await, expected, "{n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_whose_room_was_taken_over_get_another() {
    let app = app();
    let to = |id: &str| json!({"type": "message.sent", "sender": "f1", "to": "f2", "id": id});
    app.must(&to("1")).await;
    let rooms = counts(&app, "f2").await;
    let first = rooms.as_object().unwrap().keys().next().unwrap().clone();
    app.must(&json!([
        {"type": "member.left", "room": first, "user": "f1"},
        {"type": "member.joined", "room": first, "user": "f3"},
    ]))
    .await;
    let results = app.must(&json!([to("1"), to("2")])).await;
    assert_eq!(results[0], json!({"status": "applied", "position": 1}));
    assert_eq!(results[1], json!({"status": "applied", "position": 2}));
    // The new room is found again, by either.
    let results = app.must(&json!([to("2"), to("3")])).await;
    assert_eq!(results[0], json!({"status": "duplicate", "position": 2}));
    assert_eq!(results[1], json!({"status": "applied", "position": 3}));

    let rooms = counts(&app, "f2").await;
    assert_eq!(rooms[&first], json!([1, 0]));
    assert_eq!(rooms.as_object().unwrap().len(), 2, "{rooms}");
    assert_eq!(counts(&app, "f1").await.as_object().unwrap().len(), 1);
    assert_eq!(counts(&app, "f3").await.as_object().unwrap().len(), 1);
    let peers = app.tencent_peers("f2", &["f1", "f3"]).await.ok();
    assert_eq!(peers["C2CUnreadMsgNumList"][0]["C2CUnreadMsgNum"], 3);
    assert_eq!(peers["C2CUnreadMsgNumList"][1]["C2CUnreadMsgNum"], 1);
}
