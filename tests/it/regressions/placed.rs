use serde_json::{Value, json};

use super::{Scene, room_key};
use crate::support::{App, assert_no_drift};

/// A room of that kind that bob has joined.
async fn room(app: &App, kind: &str) {
    let made = json!([
        {"type": "room.updated", "room": "r", "kind": kind},
        {"type": "member.joined", "room": "r", "user": "bob"},
    ]);
    app.must(&made).await;
}

/// Sends events by time.
fn by_time(scene: &Scene) -> App {
    let mut app = scene.app.clone();
    app.by_time = true;
    app
}

/// An event of a minute ago, or of so many seconds after that.
fn at(seconds: i64, mut event: Value) -> Value {
    event["room"] = "r".into();
    event["time"] = (jiff::Timestamp::now().as_millisecond() - 60_000 + seconds * 1_000).into();
    event
}

fn message(second: i64, sender: &str) -> Value {
    let id = second.to_string();
    at(
        second,
        json!({"type": "message.sent", "id": id, "sender": sender}),
    )
}

/// What alice has unread and up to where she has read.
async fn alice(app: &App) -> (Value, Value) {
    let answer = app.unread("alice", true).await.ok();
    let row = &answer["rooms"][0];
    (row["messages"].clone(), row["read_position"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_in_the_same_request_leaves_a_membership_the_marks_that_it_began_with() {
    for kind in ["direct", "group", "supergroup"] {
        let scene = Scene::new();
        let (by_arrival, by_time) = (&scene.app, by_time(&scene));
        room(by_arrival, kind).await;
        let sent = ["bob", "alice", "bob"].into_iter().zip(2..);
        let sent: Vec<Value> = sent.map(|(by, second)| message(second, by)).collect();
        by_time.must(&json!(sent)).await;
        let reset = json!({"type": "room.unread", "user": "alice", "from_position": 3});
        let joined = at(1, json!({"type": "member.joined", "user": "alice"}));
        by_time.must(&json!([joined, at(9, reset)])).await;
        // Not the one that she had sent herself.
        assert_eq!(alice(by_arrival).await, (json!(2), json!(0)), "{kind}");
        assert_no_drift(&scene.redis.url(), &by_arrival.keys.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clearing_counts_for_who_began_by_time_below_an_earlier_one() {
    let scene = Scene::new();
    let (by_arrival, by_time) = (&scene.app, by_time(&scene));
    room(by_arrival, "supergroup").await;
    let sent: Vec<Value> = (1..=9).map(|second| message(second, "bob")).collect();
    by_time.must(&json!(sent)).await;
    let clear = |to: u64| json!({"type": "room.cleared", "room": "r", "up_to_position": to});
    by_arrival.must(&clear(9)).await;
    let joined = at(2, json!({"type": "member.joined", "user": "alice"}));
    by_time.must(&joined).await;
    by_arrival.must(&clear(5)).await;
    assert_eq!(alice(by_arrival).await, (json!(4), json!(5)));
    by_arrival.must(&clear(3)).await;
    assert_eq!(alice(by_arrival).await, (json!(4), json!(5)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_edits_that_wait_for_their_message_a_room_keeps_what_no_later_one_replaces() {
    let scene = Scene::new();
    let (by_arrival, by_time) = (&scene.app, by_time(&scene));
    room(by_arrival, "group").await;
    let joined = json!({"type": "member.joined", "room": "r", "user": "alice"});
    by_arrival.must(&joined).await;
    let edit = |n: usize, mut event: Value| {
        event["type"] = "message.updated".into();
        event["id"] = "5".into();
        event["payload"] = json!({"n": n, "long": "x".repeat(3_000)});
        at(9, event)
    };
    let mut edits = vec![edit(0, json!({"mentions": ["alice"]}))];
    edits.extend((1..200).map(|n| edit(n, json!({"text": n.to_string()}))));
    by_time.must(&json!(edits)).await;
    let timed = room_key("r", "timed");
    let kept = scene.redis.cli(&["HSTRLEN", &timed, "w|5"]);
    let kept: usize = kept.trim().parse().unwrap();
    assert!((3_000..7_000).contains(&kept), "{kept} bytes");

    by_time.must(&message(5, "bob")).await;
    let meta = room_key("r", "meta");
    let last = |field: &str| scene.redis.cli(&["HGET", &meta, field]);
    assert_eq!(last("last_text").trim(), "199");
    assert!(last("last_payload").contains("\"n\":199"));
    let mentions = by_arrival.unread("alice", false).await.ok();
    assert_eq!(mentions["mentions"]["total"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_read_on_arrival_is_forgotten_with_the_history() {
    let scene = Scene::with("[history]\nmax_messages = 5\n");
    let (by_arrival, by_time) = (&scene.app, by_time(&scene));
    room(by_arrival, "group").await;
    let joined = json!({"type": "member.joined", "room": "r", "user": "alice"});
    by_arrival.must(&joined).await;
    let read = at(59, json!({"type": "room.read", "user": "alice"}));
    by_time.must(&read).await;
    let late = |n: usize| {
        let silent = n.is_multiple_of(3);
        at(
            1,
            json!({"type": "message.sent", "id": n.to_string(), "sender": "bob", "silent": silent}),
        )
    };
    by_time.must(&(0..300).map(late).collect()).await;
    let kept = scene
        .redis
        .cli(&["HSTRLEN", &room_key("r", "arrived"), "alice"]);
    let kept: usize = kept.trim().parse().unwrap();
    assert!((20..400).contains(&kept), "{kept} bytes");
    assert_eq!(alice(by_arrival).await.0, json!(0));
    assert_no_drift(&scene.redis.url(), &by_arrival.keys.id);
    // What the history still has counts again when it is marked as unread.
    let unread = at(
        60,
        json!({"type": "room.unread", "user": "alice", "from_time": 0}),
    );
    by_time.must(&unread).await;
    assert_eq!(alice(by_arrival).await.0, json!(4));
}
