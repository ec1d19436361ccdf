//! `room.unread` and `counts.set`: each rule of theirs.

use serde_json::{Value, json};

use super::applied;
use crate::support::{App, Config, Pod, RedisServer, Wait, app, eventually};

const KINDS: [&str; 3] = ["direct", "group", "supergroup"];

/// A room by the name of its kind, with alice and bob in it.
async fn room(app: &App, kind: &str) {
    app.must(&json!([
        {"type": "room.updated", "room": kind, "kind": kind},
        {"type": "member.joined", "room": kind, "users": ["alice", "bob"]},
    ]))
    .await;
}

/// Messages by bob in it, by these ids.
async fn hear(app: &App, room: &str, ids: &[&str]) {
    let sent = |id: &&str| json!({"type": "message.sent", "room": room, "id": id, "sender": "bob"});
    let events: Vec<Value> = ids.iter().map(sent).collect();
    app.must(&json!(events)).await;
}

/// Messages and mentions of alice, and her read position in that room.
async fn counts(app: &App, room: &str) -> [i64; 3] {
    let answer = app.unread("alice", true).await.ok();
    let rooms = answer["rooms"].as_array().unwrap();
    let row = rooms.iter().find(|row| row["room"] == room).unwrap();
    ["messages", "mentions", "read_position"].map(|field| row[field].as_i64().unwrap())
}

async fn one(app: &App, event: Value) -> Value {
    let reply = app.events(&event, Wait::Applied).await.ok();
    let result = reply["results"][0].clone();
    match result["error"]["code"].as_str() {
        Some(code) => json!(code),
        None => result,
    }
}

fn unread(room: &str, field: &str, value: impl Into<Value>) -> Value {
    json!({"type": "room.unread", "room": room, "user": "alice", field: value.into()})
}

fn set(room: &str, unread: u64, mentions: impl Into<Value>) -> Value {
    let mentions: Value = mentions.into();
    json!({"type": "counts.set", "room": room, "user": "alice", "unread": unread, "mentions": mentions})
}

fn read(room: &str) -> Value {
    json!({"type": "room.read", "room": room, "user": "alice"})
}

#[tokio::test]
async fn what_is_marked_as_unread_counts_as_if_never_read() {
    let app = app();
    for kind in KINDS {
        room(&app, kind).await;
        app.must(&json!([
            {"type": "message.sent", "room": kind, "id": "1", "sender": "bob", "time": 1750000001000_i64},
            {"type": "message.sent", "room": kind, "id": "2", "sender": "alice", "mark_read": false},
            {"type": "message.sent", "room": kind, "id": "3", "sender": "bob", "mentions": ["alice"]},
            {"type": "message.sent", "room": kind, "id": "q", "sender": "bob", "silent": true},
            {"type": "message.sent", "room": kind, "id": "4", "sender": "bob", "except": ["alice"]},
            {"type": "message.sent", "room": kind, "id": "5", "sender": "bob", "mentions": "all"},
            {"type": "message.sent", "room": kind, "id": "6", "sender": "bob", "mentions": ["bob"]},
            {"type": "message.recalled", "room": kind, "id": "6"},
            {"type": "message.sent", "room": kind, "id": "7"},
            {"type": "message.updated", "room": kind, "id": "7", "mentions": ["alice"]},
            read(kind),
        ]))
        .await;
        assert_eq!(counts(&app, kind).await, [0, 0, 7], "{kind}");
        // Of its seven messages one is alice's own, one does not count for her, and one was recalled.
        for (field, value, expected) in [
            ("from_id", json!("7"), [1, 1, 6]),
            // Never forward.
            ("from_id", json!("q"), [2, 2, 3]),
            ("from_position", json!(7), [2, 2, 3]),
            ("from_position", json!(3), [3, 3, 2]),
            ("from_id", json!("2"), [3, 3, 1]),
            ("from_time", json!(1750000001001_i64), [3, 3, 1]),
            ("from_time", json!("2025-06-15T15:06:41Z"), [4, 3, 0]),
        ] {
            let event = unread(kind, field, value);
            assert_eq!(one(&app, event.clone()).await, applied(), "{event}");
            assert_eq!(counts(&app, kind).await, expected, "{event}");
        }
        // From here on all is as ever.
        app.must(&json!({"type": "room.read", "room": kind, "user": "alice", "up_to_id": "3"}))
            .await;
        assert_eq!(counts(&app, kind).await, [2, 2, 3], "{kind}");
        app.must(&json!([
            {"type": "message.recalled", "room": kind, "id": "5"},
            {"type": "message.updated", "room": kind, "id": "7", "mentions": []},
        ]))
        .await;
        assert_eq!(counts(&app, kind).await, [1, 0, 3], "{kind}");
        app.must(&json!({"type": "message.sent", "room": kind, "id": "8", "sender": "alice"}))
            .await;
        assert_eq!(counts(&app, kind).await, [0, 0, 8], "{kind}");
    }
}

#[tokio::test]
async fn a_position_beyond_the_last_message_is_the_last_one() {
    let app = app();
    for kind in KINDS {
        room(&app, kind).await;
        // There is nothing yet that could be unread.
        assert_eq!(one(&app, unread(kind, "from_position", 9)).await, applied());
        assert_eq!(counts(&app, kind).await, [0, 0, 0], "{kind}");
        hear(&app, kind, &["1", "2"]).await;
        app.must(&read(kind)).await;
        let late = unread(kind, "from_time", "9999-01-01T00:00:00Z");
        assert_eq!(one(&app, late).await, applied());
        assert_eq!(counts(&app, kind).await, [0, 0, 2], "{kind}");
        assert_eq!(one(&app, unread(kind, "from_position", 9)).await, applied());
        assert_eq!(counts(&app, kind).await, [1, 0, 1], "{kind}");
    }
}

#[tokio::test]
async fn what_cannot_be_marked_is_rejected_and_changes_nothing() {
    let app = app();
    room(&app, "group").await;
    hear(&app, "group", &["1", "2"]).await;
    app.must(&json!([
        read("group"),
        {"type": "member.invited", "room": "group", "user": "carol"},
        {"type": "user.updated", "user": "dan"},
    ]))
    .await;
    for (event, code) in [
        (unread("group", "from_id", "3"), "message_not_found"),
        (unread("group", "from_position", 0), "invalid"),
        (unread("group", "from_position", -1), "invalid"),
        (unread("group", "from_time", 17), "invalid"),
        (unread("nowhere", "from_id", "1"), "room_not_found"),
        (set("nowhere", 1, Value::Null), "room_not_found"),
        (
            json!({"type": "room.unread", "room": "group", "user": "alice"}),
            "invalid",
        ),
        (
            json!({"type": "room.unread", "room": "group", "user": "alice", "from_id": "1", "from_position": 1}),
            "invalid",
        ),
        (
            json!({"type": "room.unread", "room": "group", "peer": "bob", "user": "alice", "from_id": "1"}),
            "invalid",
        ),
        (
            json!({"type": "counts.set", "room": "group", "user": "alice"}),
            "invalid",
        ),
        (set("group", 1_000_000_001, Value::Null), "invalid"),
        (set("group", 10_001, 10_001), "invalid"),
        (
            json!({"type": "room.unread", "user": "alice", "peer": "dan", "from_position": 1}),
            "room_not_found",
        ),
        (
            json!({"type": "counts.set", "user": "alice", "peer": "dan", "unread": 1}),
            "room_not_found",
        ),
    ] {
        assert_eq!(one(&app, event.clone()).await, code, "{event}");
    }
    for user in ["carol", "dan"] {
        let mut event = unread("group", "from_id", "1");
        event["user"] = user.into();
        assert_eq!(one(&app, event).await, "not_a_member", "{user}");
        let mut event = set("group", 1, Value::Null);
        event["user"] = user.into();
        assert_eq!(one(&app, event).await, "not_a_member", "{user}");
    }
    assert_eq!(counts(&app, "group").await, [0, 0, 2]);
}

#[tokio::test]
async fn what_another_system_knows_stands_until_it_is_read() {
    let app = app();
    for kind in KINDS {
        room(&app, kind).await;
        // A room without any message.
        assert_eq!(one(&app, set(kind, 5, 2)).await, applied());
        assert_eq!(counts(&app, kind).await, [5, 2, -5], "{kind}");
        // Again, and otherwise.
        assert_eq!(one(&app, set(kind, 5, 2)).await, applied());
        assert_eq!(counts(&app, kind).await, [5, 2, -5], "{kind}");
        assert_eq!(one(&app, set(kind, 3, Value::Null)).await, applied());
        assert_eq!(counts(&app, kind).await, [3, 2, -3], "{kind}");
        assert_eq!(one(&app, set(kind, 4, 9)).await, applied());
        assert_eq!(counts(&app, kind).await, [4, 4, -4], "{kind}");
        // What comes counts on top.
        hear(&app, kind, &["1"]).await;
        app.must(&json!({"type": "message.sent", "room": kind, "id": "2", "sender": "alice", "mark_read": false}))
            .await;
        assert_eq!(counts(&app, kind).await, [5, 4, -4], "{kind}");
        // The newest that is no mention yet becomes one; the own message is none.
        assert_eq!(one(&app, set(kind, 5, 5)).await, applied());
        assert_eq!(counts(&app, kind).await, [5, 5, -4], "{kind}");
        assert_eq!(one(&app, set(kind, 5, 1)).await, applied());
        assert_eq!(counts(&app, kind).await, [5, 1, -4], "{kind}");
        app.must(&json!({"type": "room.read", "room": kind, "user": "alice", "up_to_position": 1}))
            .await;
        assert_eq!(counts(&app, kind).await, [0, 0, 1], "{kind}");
        // After the read the message is what its sender made it: no mention.
        assert_eq!(one(&app, unread(kind, "from_id", "1")).await, applied());
        assert_eq!(counts(&app, kind).await, [1, 0, 0], "{kind}");
        assert_eq!(one(&app, set(kind, 1, 1)).await, applied());
        assert_eq!(counts(&app, kind).await, [1, 1, 0], "{kind}");
        assert_eq!(one(&app, set(kind, 0, Value::Null)).await, applied());
        assert_eq!(counts(&app, kind).await, [0, 0, 2], "{kind}");
        assert_eq!(one(&app, set(kind, 1_000_000_000, 1)).await, applied());
        assert_eq!(counts(&app, kind).await[..2], [1_000_000_000, 1], "{kind}");
        let cleared = json!({"type": "room.cleared", "room": kind});
        assert_eq!(one(&app, cleared).await, applied());
        assert_eq!(counts(&app, kind).await, [0, 0, 2], "{kind}");
        // A new membership knows nothing of it.
        app.must(&json!([
            set(kind, 7, 7),
            {"type": "member.left", "room": kind, "user": "alice"},
            {"type": "member.joined", "room": kind, "user": "alice"},
        ]))
        .await;
        assert_eq!(counts(&app, kind).await, [0, 0, 2], "{kind}");
    }
}

/// A room whose read positions are below 0 and that has no message is read all the same.
#[tokio::test]
async fn an_empty_room_can_be_read_when_another_system_knew_better() {
    let app = app();
    for kind in KINDS {
        room(&app, kind).await;
        for event in [
            read(kind),
            json!({"type": "room.cleared", "room": kind}),
            json!({"type": "user.read_all", "user": "alice"}),
            json!({"type": "room.read", "room": kind, "user": "alice", "up_to_time": 1750000000000_i64}),
            json!({"type": "message.sent", "room": kind, "id": "q", "sender": "alice", "silent": true}),
        ] {
            app.must(&set(kind, 6, 1)).await;
            assert_eq!(counts(&app, kind).await, [6, 1, -6], "{kind}");
            assert_eq!(one(&app, event.clone()).await["status"], "applied");
            assert_eq!(counts(&app, kind).await, [0, 0, 0], "{event}");
        }
    }
}

#[tokio::test]
async fn in_a_direct_room_the_peer_names_the_room() {
    let app = app();
    app.must(&json!([
        {"type": "message.sent", "to": "alice", "sender": "bob", "id": "1"},
        {"type": "message.sent", "to": "alice", "sender": "bob", "id": "2"},
        {"type": "room.read", "user": "alice", "peer": "bob"},
    ]))
    .await;
    let total = async || app.unread("alice", false).await.ok()["messages"]["total"].clone();
    let back = json!({"type": "room.unread", "user": "alice", "peer": "bob", "from_id": "2"});
    assert_eq!(one(&app, back).await, applied());
    assert_eq!(total().await, 1);
    let five = json!({"type": "counts.set", "user": "alice", "peer": "bob", "unread": 5});
    assert_eq!(one(&app, five.clone()).await, applied());
    assert_eq!(total().await, 5);
    let answer = app.tencent_peers("alice", &["bob"]).await.ok();
    assert_eq!(answer["C2CUnreadMsgNumList"][0]["C2CUnreadMsgNum"], 5);
    // One who has left the room has none with that peer.
    let room = app.unread("alice", true).await.ok()["rooms"][0]["room"].clone();
    app.must(&json!({"type": "member.left", "room": room, "user": "alice"}))
        .await;
    assert_eq!(one(&app, five).await, "room_not_found");
}

#[tokio::test]
async fn a_key_makes_a_repetition_a_duplicate() {
    let app = app();
    room(&app, "group").await;
    app.must(&json!([
        {"type": "message.sent", "to": "alice", "sender": "bob", "id": "1"},
    ]))
    .await;
    hear(&app, "group", &["1", "2"]).await;
    let by_peer = json!({"type": "counts.set", "user": "alice", "peer": "bob", "unread": 3});
    for (mut event, then) in [
        (unread("group", "from_id", "1"), read("group")),
        (set("group", 9, 9), read("group")),
        (
            by_peer,
            json!({"type": "room.read", "user": "alice", "peer": "bob"}),
        ),
    ] {
        event["key"] = event.to_string()[..40].into();
        assert_eq!(one(&app, event.clone()).await, applied());
        app.must(&then).await;
        let again = one(&app, event.clone()).await;
        assert_eq!(again, json!({"status": "duplicate"}), "{event}");
        let total = app.unread("alice", false).await.ok();
        let of = if event["peer"] == "bob" {
            "direct"
        } else {
            "group"
        };
        assert_eq!(total["messages"][of], 0, "{event}");
        event["type"] = "room.read".into();
        for field in ["from_id", "unread", "mentions"] {
            event.as_object_mut().unwrap().remove(field);
        }
        assert_eq!(one(&app, event).await, "invalid");
    }
}

/// Events of one request take effect in their order, whatever is still under way.
#[tokio::test]
async fn events_of_one_request_take_effect_in_their_order() {
    let app = app();
    for kind in KINDS {
        room(&app, kind).await;
        hear(&app, kind, &["1", "2", "3"]).await;
        for wait in [Wait::Applied, Wait::Accepted] {
            let events = json!([
                read(kind),
                unread(kind, "from_position", 3),
                {"type": "room.read", "room": kind, "user": "alice", "up_to_id": "3"},
                unread(kind, "from_position", 2),
                set(kind, 9, 2),
                unread(kind, "from_position", 1),
                {"type": "room.read", "room": kind, "user": "alice", "up_to_id": "1"},
                {"type": "counts.set", "room": kind, "user": "bob", "unread": 4},
            ]);
            let reply = app.events(&events, wait).await.ok();
            assert_eq!(reply["rejected"], 0, "{reply}");
            eventually("the counts of the request's end", || async {
                match counts(&app, kind).await {
                    // Those that were made mentions are not read.
                    [2, 2, 1] => Ok(()),
                    other => Err(format!("{kind}: {other:?}")),
                }
            })
            .await;
        }
    }
}

/// A room that has forgotten all but its last three messages.
#[tokio::test]
async fn only_what_the_room_remembers_can_be_marked() {
    let redis = RedisServer::start();
    let mut config = Config::apps(1);
    config.extra = "[history]\nmax_messages = 3\n".to_owned();
    let pod = Pod::start(&config, &redis);
    let app = App::new(&config.apps[0], &pod.base);
    for kind in KINDS {
        room(&app, kind).await;
        app.must(&json!([
            {"type": "message.sent", "room": kind, "id": "1", "sender": "alice"},
            {"type": "message.sent", "room": kind, "id": "2", "sender": "bob"},
            {"type": "message.recalled", "room": kind, "id": "2"},
            {"type": "message.sent", "room": kind, "id": "3", "sender": "alice"},
            {"type": "message.sent", "room": kind, "id": "4", "sender": "bob", "mentions": "all"},
            {"type": "message.sent", "room": kind, "id": "5", "sender": "alice"},
        ]))
        .await;
        for (field, value) in [("from_id", json!("2")), ("from_position", json!(2))] {
            let event = unread(kind, field, value);
            assert_eq!(
                one(&app, event.clone()).await,
                "message_not_found",
                "{event}"
            );
        }
        assert_eq!(counts(&app, kind).await, [0, 0, 5], "{kind}");
        let from = json!(1750000000000_i64);
        assert_eq!(one(&app, unread(kind, "from_time", from)).await, applied());
        assert_eq!(counts(&app, kind).await, [1, 1, 2], "{kind}");
        // Older positions count as one each, whatever they were.
        assert_eq!(one(&app, set(kind, 3, Value::Null)).await, applied());
        assert_eq!(counts(&app, kind).await, [3, 1, 0], "{kind}");
        assert_eq!(one(&app, set(kind, 5, 3)).await, applied());
        assert_eq!(counts(&app, kind).await, [5, 3, -2], "{kind}");
        app.must(&json!({"type": "room.read", "room": kind, "user": "alice", "up_to_position": 1}))
            .await;
        assert_eq!(counts(&app, kind).await, [2, 2, 1], "{kind}");
    }
}
