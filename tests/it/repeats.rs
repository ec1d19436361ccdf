//! Events with keys, and requests with one as a whole: sent again they change nothing.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::stopped::Stopped;
use crate::support::{App, Own, Reply, Wait, app, assert_no_drift};

async fn post(app: &App, key: &str, events: &Value) -> Reply {
    App::send(
        app.native(Method::POST, "/v1/events")
            .header("idempotency-key", key.as_bytes())
            .json(events),
    )
    .await
}

async fn total(app: &App, user: &str) -> Value {
    app.unread(user, false).await.ok()["messages"]["total"].clone()
}

fn made(room: &str, users: &[&str]) -> Value {
    json!([{"type": "room.updated", "room": room}, {"type": "member.joined", "room": room, "users": users}])
}

fn message(room: &str, id: &str) -> Value {
    json!({"type": "message.sent", "room": room, "id": id, "sender": "bob"})
}

/// Every type of event that has no id of its own, each followed by one that undoes it.
#[tokio::test]
async fn an_event_whose_key_is_known_changes_nothing() {
    let app = app();
    app.must(&made("r", &["bob", "eve"])).await;
    let events = [
        json!({"type": "member.joined", "room": "r", "user": "al", "key": "k1"}),
        json!({"type": "pref.updated", "room": "r", "user": "al", "hidden": true, "key": "k2"}),
        json!({"type": "room.read", "room": "r", "user": "al", "key": "k3"}),
        json!({"type": "user.read_all", "user": "al", "key": "k4"}),
        json!({"type": "member.left", "room": "r", "user": "al", "key": "k5"}),
        json!({"type": "member.invited", "room": "r", "user": "al", "key": "k6"}),
        json!({"type": "room.updated", "room": "r", "tags": ["work"], "key": "k7"}),
        json!({"type": "user.updated", "user": "al", "nickname": "Al", "key": "k8"}),
        json!({"type": "user.deleted", "user": "al", "key": "k9"}),
        json!({"type": "room.deleted", "room": "r", "key": "k10"}),
    ];
    for (n, event) in events.iter().enumerate() {
        assert_eq!(
            app.events(event, Wait::Applied).await.outcomes(),
            ["applied"],
            "{event}"
        );
        app.events(&message("r", &format!("m{n}")), Wait::Applied)
            .await;
    }
    // Neither the room nor the user is there any more; each name still knows.
    for event in &events {
        assert_eq!(
            app.events(event, Wait::Applied).await.outcomes(),
            ["duplicate"],
            "{event}"
        );
    }
    assert_eq!(app.unread("al", false).await.status, 404);
    app.must(&made("r", &["bob", "al"])).await;
    app.must(&message("r", "new")).await;
    for event in &events {
        assert_eq!(
            app.events(event, Wait::Applied).await.outcomes(),
            ["duplicate"],
            "{event}"
        );
    }
    assert_eq!(total(&app, "al").await, 1);
    let listed = app.imkit_rooms("al", &[]).await.ok();
    assert_eq!(listed["result"]["data"][0]["roomTags"], json!([]));
    assert_eq!(listed["result"]["data"][0]["pref"]["hidden"], false);
}

#[tokio::test]
async fn a_request_that_is_sent_again_with_its_key_changes_nothing() {
    let app = app();
    app.must(&made("r", &["al", "bob"])).await;
    // One that can't be read and one with a key of its own count in the places of the others.
    let events = json!([
        message("r", "1"),
        {"type": "room.read", "room": "r", "user": "al"},
        message("r", "2"),
        {"type": "no.such.type"},
        {"type": "member.left", "room": "r", "user": "cy", "key": "own"},
        {"type": "member.joined", "room": "r", "user": "cy"},
        message("r", "3"),
    ]);
    let first = post(&app, "q", &events).await.outcomes();
    assert_eq!(
        first,
        [
            "applied", "applied", "applied", "invalid", "applied", "applied", "applied"
        ]
    );
    assert_eq!(
        (total(&app, "al").await, total(&app, "cy").await),
        (json!(2), json!(1))
    );
    app.must(&message("r", "4")).await;
    for _ in 0..2 {
        let again = post(&app, "q", &events).await.outcomes();
        let known = ["duplicate"; 3]
            .into_iter()
            .chain(["invalid"])
            .chain(["duplicate"; 3]);
        assert_eq!(again, known.collect::<Vec<_>>());
        assert_eq!(
            (total(&app, "al").await, total(&app, "cy").await),
            (json!(3), json!(2))
        );
    }
    // The same keys, said one by one.
    let read = json!({"type": "room.read", "room": "r", "user": "al", "key": "q/1"});
    assert_eq!(
        app.events(&read, Wait::Applied).await.outcomes(),
        ["duplicate"]
    );
    let left = json!({"type": "member.left", "room": "r", "user": "al", "key": "own"});
    assert_eq!(post(&app, "other", &left).await.outcomes(), ["duplicate"]);
    assert_eq!(total(&app, "al").await, 3);
}

#[tokio::test]
async fn a_key_of_another_type_of_event_is_invalid_and_one_of_a_rejected_event_is_free() {
    let app = app();
    app.must(&made("r", &["al", "bob"])).await;
    app.must(&message("r", "1")).await;
    let read =
        json!({"type": "room.read", "room": "r", "user": "al", "up_to_id": "none", "key": "k"});
    assert_eq!(
        app.events(&read, Wait::Applied).await.outcomes(),
        ["message_not_found"]
    );
    let left = json!({"type": "member.left", "room": "r", "user": "bob", "key": "k"});
    assert_eq!(
        app.events(&left, Wait::Applied).await.outcomes(),
        ["applied"]
    );
    let read = json!({"type": "room.read", "room": "r", "user": "al", "key": "k"});
    assert_eq!(
        app.events(&read, Wait::Applied).await.outcomes(),
        ["invalid"]
    );
    assert_eq!(total(&app, "al").await, 1);
    // An event with an id is known by that.
    let again = json!({"type": "message.sent", "room": "r", "id": "2", "key": "k"});
    assert_eq!(
        app.events(&again, Wait::Applied).await.outcomes(),
        ["applied"]
    );
    // In another room, or for another user, it is another key.
    app.must(&made("s", &["al", "bob"])).await;
    let read = json!({"type": "room.read", "room": "s", "user": "al", "key": "k"});
    assert_eq!(
        app.events(&read, Wait::Applied).await.outcomes(),
        ["applied"]
    );
}

#[tokio::test]
async fn invalid_keys_are_refused() {
    let app = app();
    app.must(&made("r", &["al", "bob"])).await;
    for key in [
        json!(""),
        json!("x".repeat(256)),
        json!("a\tb"),
        json!(7),
        json!(["k"]),
    ] {
        let read = json!({"type": "room.read", "room": "r", "user": "al", "key": key});
        let reply = app.events(&read, Wait::Applied).await.ok();
        let error = &reply["results"][0]["error"];
        assert_eq!(error["code"], "invalid", "{reply}");
        assert!(
            error["message"].as_str().unwrap().starts_with("key: "),
            "{reply}"
        );
    }
    for key in ["x".repeat(255), "日本 {*}".to_owned()] {
        let read = json!({"type": "room.read", "room": "r", "user": "al", "key": key});
        assert_eq!(
            app.events(&read, Wait::Applied).await.outcomes(),
            ["applied"]
        );
        assert_eq!(
            app.events(&read, Wait::Applied).await.outcomes(),
            ["duplicate"]
        );
    }
    let read = json!({"type": "room.read", "room": "r", "user": "al"});
    let request = || app.native(Method::POST, "/v1/events").json(&read);
    for request in [
        request().header("idempotency-key", ""),
        request().header("idempotency-key", "x".repeat(256)),
        request()
            .header("idempotency-key", "a")
            .header("idempotency-key", "b"),
        request().header("idempotency-key", &b"\xff\xfe"[..]),
    ] {
        let reply = App::send(request).await;
        assert_eq!(reply.status, 400, "{}", reply.text);
        assert!(reply.text.contains("Idempotency-Key"), "{}", reply.text);
    }
    let long = "x".repeat(255);
    assert_eq!(post(&app, &long, &read).await.outcomes(), ["applied"]);
    assert_eq!(post(&app, &long, &read).await.outcomes(), ["duplicate"]);
}

/// Which room a peer's is may be another one by the time the event is sent again.
#[tokio::test]
async fn a_read_by_peer_with_a_key_reads_no_later_room() {
    let app = app();
    app.must(&json!([
        {"type": "message.sent", "to": "al", "sender": "bob", "id": "1"},
    ]))
    .await;
    let read = json!({"type": "room.read", "peer": "bob", "user": "al", "key": "k"});
    assert_eq!(
        app.events(&read, Wait::Applied).await.outcomes(),
        ["applied"]
    );
    let room = app.unread("al", true).await.ok()["rooms"][0]["room"].clone();
    app.must(&json!([{"type": "room.deleted", "room": room}]))
        .await;
    app.must(&json!({"type": "message.sent", "to": "al", "sender": "bob", "id": "2"}))
        .await;
    assert_eq!(
        app.events(&read, Wait::Applied).await.outcomes(),
        ["duplicate"]
    );
    assert_eq!(total(&app, "al").await, 1);
}

#[tokio::test]
async fn a_key_of_a_read_by_peer_is_meant_for_that_peer() {
    let app = app();
    let to =
        |sender: &str| json!({"type": "message.sent", "to": "al", "sender": sender, "id": "1"});
    app.must(&json!([to("bob"), to("cy"), to("dan"), to("eve")]))
        .await;
    let read = |peer: &str| json!({"type": "room.read", "peer": peer, "user": "al", "key": "k"});
    assert_eq!(
        app.events(&read("bob"), Wait::Applied).await.outcomes(),
        ["applied"]
    );
    assert_eq!(
        app.events(&read("cy"), Wait::Applied).await.outcomes(),
        ["applied"]
    );
    let both = json!([read("dan"), read("eve"), read("dan")]);
    assert_eq!(
        app.events(&both, Wait::Applied).await.outcomes(),
        ["applied", "applied", "duplicate"]
    );
    assert_eq!(total(&app, "al").await, 0);
    // Nobody has a room with fay.
    let both = json!([read("fay"), read("fay")]);
    assert_eq!(
        app.events(&both, Wait::Applied).await.outcomes(),
        ["applied", "duplicate"]
    );
    // Nor is it one of the user's own events.
    let updated = json!({"type": "user.updated", "user": "al", "nickname": "Al", "key": "k"});
    assert_eq!(
        app.events(&updated, Wait::Applied).await.outcomes(),
        ["applied"]
    );
}

/// A key in a room's memory says nothing of another user's read of everything, nor does that of another event.
#[tokio::test]
async fn each_user_reads_everything_with_the_same_key() {
    let app = app();
    app.must(&made("r", &["al", "bob", "cy"])).await;
    let tags = json!({"type": "room.updated", "room": "r", "tags": ["x"], "key": "k"});
    app.must(&json!([tags, message("r", "1")])).await;
    let read = |user: &str| json!({"type": "user.read_all", "user": user, "key": "k"});
    for user in ["al", "cy"] {
        assert_eq!(
            app.events(&read(user), Wait::Applied).await.outcomes(),
            ["applied"]
        );
        assert_eq!(total(&app, user).await, 0, "{user}");
    }
    app.must(&message("r", "2")).await;
    for user in ["al", "cy"] {
        assert_eq!(
            app.events(&read(user), Wait::Applied).await.outcomes(),
            ["duplicate"]
        );
        assert_eq!(total(&app, user).await, 1, "{user}");
    }
}

#[tokio::test]
async fn everything_is_read_up_to_a_time_in_rooms_of_some_kinds() {
    let app = app();
    let at = |second: u64| 1_760_000_000_000 + second * 1_000;
    let mut events = vec![];
    for (room, kind) in [("g", "group"), ("s", "supergroup")] {
        events.push(json!({"type": "room.updated", "room": room, "kind": kind}));
        events.push(json!({"type": "member.joined", "room": room, "users": ["al", "bob"]}));
    }
    for second in 1..=3 {
        let id = format!("m{second}");
        for place in [
            json!({"room": "g"}),
            json!({"room": "s"}),
            json!({"to": "al"}),
        ] {
            let mut event =
                json!({"type": "message.sent", "sender": "bob", "id": id, "time": at(second)});
            event
                .as_object_mut()
                .unwrap()
                .extend(place.as_object().unwrap().clone());
            events.push(event);
        }
    }
    app.must(&json!(events)).await;
    let unread = async |user: &str| {
        let counts = app.unread(user, false).await.ok()["messages"].clone();
        ["direct", "group", "supergroup"].map(|kind| counts[kind].as_u64().unwrap())
    };
    assert_eq!(unread("al").await, [3, 3, 3]);
    let read = |up_to: u64, kinds: Value| json!({"type": "user.read_all", "user": "al", "up_to_time": at(up_to), "kinds": kinds});
    app.must(&read(1, json!(["group"]))).await;
    assert_eq!(unread("al").await, [3, 2, 3]);
    app.must(&read(2, json!(["direct", "supergroup", "direct"])))
        .await;
    assert_eq!(unread("al").await, [1, 2, 1]);
    // Never back, and null is all kinds.
    app.must(&read(1, Value::Null)).await;
    assert_eq!(unread("al").await, [1, 2, 1]);
    app.must(&json!({"type": "user.read_all", "user": "al", "kinds": ["supergroup"], "up_to_time": null})).await;
    assert_eq!(unread("al").await, [1, 2, 0]);
    for kinds in [json!([]), json!(["channel"]), json!("group"), json!([1])] {
        let reply = app.events(&read(3, kinds), Wait::Applied).await.ok();
        assert_eq!(reply["results"][0]["error"]["code"], "invalid", "{reply}");
    }
    assert_eq!(unread("al").await, [1, 2, 0]);
}

/// A read of everything leaves its key in every room that it reads: sent again after a failure in the middle, it reads nothing
/// that has come since in those that it had reached.
#[tokio::test]
async fn a_read_of_everything_that_stopped_half_way_reads_nothing_newer_when_it_is_sent_again() {
    let (app, _pod, redis) = Own::start("").parts();
    for room in ["r1", "r2"] {
        app.must(&made(room, &["al", "bob"])).await;
        app.must(&message(room, "1")).await;
    }
    // What stands where the second room keeps its keys is none of that.
    let keys = format!("unread:v1:{{{}:r:r2}}:keys0", app.keys.id);
    assert_eq!(redis.cli(&["SET", &keys, "spoiled"]), "OK");
    let read = json!({"type": "user.read_all", "user": "al", "key": "k"});
    assert_eq!(
        app.events(&read, Wait::Applied).await.outcomes(),
        ["unreadable"]
    );
    app.must(&message("r1", "2")).await;
    assert_eq!(total(&app, "al").await, 2);
    assert_eq!(redis.cli(&["DEL", &keys]), "1");
    assert_eq!(
        app.events(&read, Wait::Applied).await.outcomes(),
        ["applied"]
    );
    assert_eq!(total(&app, "al").await, 1);
    assert_eq!(
        app.events(&read, Wait::Applied).await.outcomes(),
        ["duplicate"]
    );
}

/// The pod that took it dies before it has told anybody. Whoever sends it again is answered when the counts show it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_by_its_key_waits_for_what_the_first_one_began() {
    let own = Own::start("");
    let (app, redis) = (&own.app, &own.redis);
    app.must(&made("r", &["al", "bob"])).await;
    app.must(&message("r", "1")).await;
    let pending = format!("unread:v1:{{{}:r:r}}:pending", app.keys.id);
    for event in [
        json!({"type": "room.read", "room": "r", "user": "al", "key": "k1"}),
        json!({"type": "room.updated", "room": "r", "status": 0, "key": "k2"}),
        json!({"type": "member.left", "room": "r", "user": "al", "key": "k3"}),
    ] {
        let script = match event["type"].as_str().unwrap() {
            "room.read" => "room_read",
            "room.updated" => "room_update",
            _ => "member_change",
        };
        let held = Stopped::at(&own.config, redis, app, script, &pending, event.clone()).await;
        held.dies().await;
        assert_eq!(
            app.events(&event, Wait::Applied).await.outcomes(),
            ["duplicate"]
        );
        assert_eq!(redis.cli(&["HLEN", &pending]), "0", "{event}");
        match event["key"].as_str().unwrap() {
            "k1" => assert_eq!(total(app, "al").await, 0),
            "k2" => {
                assert_eq!(
                    app.imkit_rooms("al", &[]).await.ok()["result"]["totalCount"],
                    0
                );
                app.must(
                    &json!([{"type": "room.updated", "room": "r", "status": 1}, message("r", "2")]),
                )
                .await;
                assert_eq!(total(app, "al").await, 1);
            }
            _ => assert_eq!(total(app, "al").await, 0),
        }
    }
}

/// Sent again, a message by `to` is known, although the two have come to share another room that is first in the order of names.
#[tokio::test]
async fn a_message_to_somebody_is_known_in_whichever_of_their_rooms_it_is() {
    let app = app();
    let to = json!({"type": "message.sent", "to": "al", "sender": "bob", "id": "1"});
    app.must(&to).await;
    for room in ["000", "zzz"] {
        app.must(&json!([
            {"type": "room.updated", "room": room, "kind": "direct"},
            {"type": "member.joined", "room": room, "users": ["al", "bob"]},
        ]))
        .await;
        assert_eq!(
            app.events(&to, Wait::Applied).await.outcomes(),
            ["duplicate"]
        );
        assert_eq!(total(&app, "al").await, 1);
    }
}

/// The longest key of a request is one that `verify` reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_reads_the_longest_key_of_a_request() {
    let (app, _pod, redis) = Own::start("").parts();
    app.must(&made("r", &["al", "bob"])).await;
    let read = json!([
        {"type": "room.read", "room": "r", "user": "al"},
        {"type": "user.read_all", "user": "al"},
    ]);
    for key in ["x".repeat(255), "é".repeat(127)] {
        assert_eq!(post(&app, &key, &read).await.outcomes(), ["applied"; 2]);
        assert_eq!(post(&app, &key, &read).await.outcomes(), ["duplicate"; 2]);
    }
    assert_no_drift(&redis.url(), &app.keys.id);
}

/// A back-fill tells the room of older messages, until the history no longer holds the one that its members see as the last.
#[tokio::test]
async fn the_last_message_is_known_by_its_id_however_many_came_after_it() {
    let own = Own::start("[history]\nmax_messages = 5\n");
    let app = &own.app;
    for kind in ["group", "supergroup"] {
        let room = json!({"type": "room.updated", "room": kind, "kind": kind});
        let joined = json!({"type": "member.joined", "room": kind, "users": ["al", "bob"]});
        let sent = |id: &str, time: u64| json!({"type": "message.sent", "room": kind, "id": id, "sender": "bob", "time": time});
        app.must(&json!([room, joined, sent("last", 1_770_000_000_000)]))
            .await;
        let older: Vec<Value> = (0..10)
            .map(|n| sent(&format!("m{n}"), 1_760_000_000_000 + n))
            .collect();
        app.must(&json!(older)).await;
        let read =
            |id: &str| json!({"type": "room.read", "room": kind, "user": "al", "up_to_id": id});
        assert_eq!(
            app.events(&read("m0"), Wait::Applied).await.outcomes(),
            ["message_not_found"]
        );
        let row =
            || async { app.room_unread(kind, Some(&["al"])).await.ok()["unread"]["al"].clone() };
        assert_eq!(row().await, 11);
        assert_eq!(
            app.events(&read("last"), Wait::Applied).await.outcomes(),
            ["applied"]
        );
        assert_eq!(row().await, 10);
    }
}
