//! Direct rooms: who the other one is when somebody has left, what is asked by that name, and who comes in by a message.

mod vendor_names;

use serde_json::{Value, json};

use crate::support::{App, Own, Wait, app, assert_no_drift, run_unread};

fn to(sender: &str, to: &str, id: &str) -> Value {
    json!({"type": "message.sent", "sender": sender, "to": to, "id": id})
}

fn sent(room: &str, id: &str, sender: &str) -> Value {
    json!({"type": "message.sent", "room": room, "sender": sender, "id": id})
}

fn member(what: &str, room: &str, user: &str) -> Value {
    json!({"type": format!("member.{what}"), "room": room, "user": user})
}

fn deleted(user: &str) -> Value {
    json!({"type": "user.deleted", "user": user})
}

fn recall(sender: &str, to: &str, id: &str) -> Value {
    json!({"type": "message.recalled", "sender": sender, "to": to, "id": id})
}

fn read(user: &str, peer: &str) -> Value {
    json!({"type": "room.read", "user": user, "peer": peer})
}

/// How a direct room comes about.
#[derive(Clone, Copy, Debug)]
enum Made {
    /// By a message.
    ByMessage,
    /// By events that name it.
    ByName,
}

const WAYS: [Made; 2] = [Made::ByMessage, Made::ByName];

/// A direct room of alice and bob; answers its id.
async fn made(app: &App, how: Made) -> String {
    match how {
        Made::ByMessage => app.must(&to("bob", "alice", "first")).await,
        Made::ByName => {
            let events = json!([
                {"type": "room.updated", "room": "dm", "kind": "direct"},
                {"type": "member.joined", "room": "dm", "users": ["alice", "bob"]},
                sent("dm", "first", "bob"),
            ]);
            app.must(&events).await
        }
    };
    the_room(app, "alice").await
}

/// The only room that the user has joined.
async fn the_room(app: &App, user: &str) -> String {
    let rooms = rooms(app, user).await;
    assert_eq!(rooms.len(), 1, "rooms of {user}: {rooms:?}");
    rooms[0].clone()
}

async fn rooms(app: &App, user: &str) -> Vec<String> {
    let reply = app.imkit_rooms(user, &[]).await.ok();
    let rows = reply["result"]["data"].as_array().unwrap();
    rows.iter()
        .map(|row| row["_id"].as_str().unwrap().to_owned())
        .collect()
}

/// What Tencent counts for each of these; `None`: unknown.
async fn by_peer(app: &App, user: &str, peers: &[&str]) -> Vec<Option<u64>> {
    let reply = app.tencent_peers(user, peers).await.ok();
    let of = |peer: &&str| {
        let list = reply["C2CUnreadMsgNumList"].as_array();
        let row = list
            .into_iter()
            .flatten()
            .find(|row| row["Peer_Account"] == **peer);
        let unknown = reply["ErrorList"].as_array().into_iter().flatten();
        let unknown = unknown.filter(|row| row["Peer_Account"] == **peer).count();
        assert_eq!(unknown, usize::from(row.is_none()), "{reply}");
        row.map(|row| row["C2CUnreadMsgNum"].as_u64().unwrap())
    };
    peers.iter().map(of).collect()
}

async fn total(app: &App, user: &str) -> u64 {
    let reply = app.tencent_total(user).await.ok();
    reply["AllC2CUnreadMsgNum"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_who_has_left_stays_the_peer() {
    for how in WAYS {
        for by_leaving in [true, false] {
            let app = app();
            let room = made(&app, how).await;
            let what = format!("{how:?}, by leaving: {by_leaving}");
            let goes = match by_leaving {
                true => member("left", &room, "bob"),
                false => deleted("bob"),
            };
            app.must(&goes).await;
            assert_eq!(total(&app, "alice").await, 1, "{what}");
            let peers = by_peer(&app, "alice", &["bob", "nobody"]).await;
            assert_eq!(peers, [Some(1), None], "{what}");
            // What comes in without the other one is still of that room.
            app.must(&json!({"type": "message.sent", "room": room, "id": "system"}))
                .await;
            assert_eq!(by_peer(&app, "alice", &["bob"]).await, [Some(2)], "{what}");
            app.must(&read("alice", "bob")).await;
            assert_eq!(total(&app, "alice").await, 0, "{what}");
            assert_eq!(by_peer(&app, "alice", &["bob"]).await, [Some(0)], "{what}");
            // The next message goes on in the same room, whoever writes.
            let results = app.must(&to("bob", "alice", "next")).await;
            assert_eq!(results[0]["position"], 3, "{what}");
            assert_eq!(the_room(&app, "bob").await, room, "{what}");
            assert_eq!(the_room(&app, "alice").await, room, "{what}");
            assert_eq!(by_peer(&app, "alice", &["bob"]).await, [Some(1)], "{what}");
            app.must(&goes).await;
            let results = app.must(&to("alice", "bob", "answer")).await;
            assert_eq!(results[0]["position"], 4, "{what}");
            assert_eq!(the_room(&app, "bob").await, room, "{what}");
            assert_eq!(by_peer(&app, "bob", &["alice"]).await, [Some(1)], "{what}");
            assert_no_drift(&app.redis_url(), &app.keys.id);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_in_place_of_one_who_left_becomes_the_peer() {
    for how in WAYS {
        for word in ["joined", "invited"] {
            let app = app();
            let room = made(&app, how).await;
            let what = format!("{how:?}, {word}");
            app.must(&json!([
                member("left", &room, "bob"),
                member(word, &room, "carol")
            ]))
            .await;
            assert_eq!(
                by_peer(&app, "alice", &["bob", "carol"]).await,
                [Some(0), Some(1)],
                "{what}"
            );
            // And stays it after leaving, or declining.
            app.must(&member("left", &room, "carol")).await;
            assert_eq!(
                by_peer(&app, "alice", &["bob", "carol"]).await,
                [Some(0), Some(1)],
                "{what}"
            );
            // The room is not that of the first two any more: neither sees what was written to the third.
            app.must(&to("bob", "alice", "elsewhere")).await;
            assert_ne!(the_room(&app, "bob").await, room, "{what}");
            assert_eq!(
                by_peer(&app, "alice", &["bob", "carol"]).await,
                [Some(1), Some(1)],
                "{what}"
            );
            assert_eq!(total(&app, "alice").await, 2, "{what}");
            app.must(&to("carol", "alice", "here")).await;
            assert_eq!(the_room(&app, "carol").await, room, "{what}");
            assert_eq!(
                by_peer(&app, "alice", &["bob", "carol"]).await,
                [Some(1), Some(2)],
                "{what}"
            );
            assert_no_drift(&app.redis_url(), &app.keys.id);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_who_comes_back_into_an_empty_room_has_the_peer_of_before() {
    for together in [true, false] {
        for back in ["alice", "bob"] {
            let app = app();
            let other = if back == "alice" { "bob" } else { "alice" };
            let room = made(&app, Made::ByName).await;
            if together {
                let both = json!({"type": "member.left", "room": room, "users": ["alice", "bob"]});
                app.must(&both).await;
            } else {
                app.must(&json!([
                    member("left", &room, "alice"),
                    member("left", &room, "bob")
                ]))
                .await;
            }
            app.must(&json!([
                member("joined", &room, back),
                sent(&room, "hello", "dave")
            ]))
            .await;
            assert_eq!(total(&app, back).await, 1);
            assert_eq!(
                by_peer(&app, back, &[other, "dave"]).await,
                [Some(1), Some(0)]
            );
            app.must(&to(other, back, "again")).await;
            assert_eq!(the_room(&app, other).await, room);
            assert_eq!(by_peer(&app, back, &[other]).await, [Some(2)]);
            assert_no_drift(&app.redis_url(), &app.keys.id);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_made_again_has_no_peer_of_before() {
    let app = app();
    let room = made(&app, Made::ByName).await;
    let again = json!([
        member("left", &room, "bob"),
        {"type": "room.deleted", "room": room},
        {"type": "room.updated", "room": room, "kind": "direct"},
        member("joined", &room, "alice"),
        sent(&room, "hello", "dave"),
    ]);
    app.must(&again).await;
    assert_eq!(total(&app, "alice").await, 1);
    assert_eq!(by_peer(&app, "alice", &["bob"]).await, [Some(0)]);
    app.must(&to("bob", "alice", "elsewhere")).await;
    assert_ne!(the_room(&app, "bob").await, room);
    assert_no_drift(&app.redis_url(), &app.keys.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_what_is_not_there_is_applied() {
    let app = app();
    let nothing = [
        // Neither of them is known.
        read("alice", "bob"),
        json!({"type": "room.read", "user": "alice", "peer": "bob", "up_to_id": "no such"}),
        json!({"type": "room.read", "user": "alice", "peer": "bob", "up_to_time": 1_800_000_000_000_u64}),
        read("alice", "alice"),
    ];
    for event in &nothing {
        let results = app.must(event).await;
        assert_eq!(results[0], json!({"status": "applied"}), "{event}");
    }
    // It brings nobody into being, and no room.
    assert_eq!(app.unread("alice", true).await.status, 404);
    let room = made(&app, Made::ByMessage).await;
    app.must(&json!([read("alice", "carol"), read("bob", "carol")]))
        .await;
    assert_eq!(
        by_peer(&app, "alice", &["bob", "carol"]).await,
        [Some(1), None]
    );
    // Who has left has nothing to read there.
    app.must(&json!([
        member("left", &room, "alice"),
        read("alice", "bob")
    ]))
    .await;
    // A room that is there and not joined is another matter.
    app.must(&member("invited", &room, "alice")).await;
    let reply = app.events(&read("alice", "bob"), Wait::Applied).await.ok();
    assert_eq!(reply["results"][0]["error"]["code"], "not_a_member");
    let reply = app
        .events(
            &json!({"type": "room.read", "user": "alice", "room": "none"}),
            Wait::Applied,
        )
        .await
        .ok();
    assert_eq!(reply["results"][0]["error"]["code"], "room_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_unknown_only_without_a_room_of_the_two() {
    let app = app();
    let room = made(&app, Made::ByMessage).await;
    app.must(&deleted("bob")).await;
    assert_eq!(
        by_peer(&app, "alice", &["bob", "alice", "nobody"]).await,
        [Some(1), Some(0), None]
    );
    app.must(&read("alice", "bob")).await;
    assert_eq!(by_peer(&app, "alice", &["bob"]).await, [Some(0)]);
    app.must(&json!({"type": "room.updated", "room": room, "status": 0}))
        .await;
    assert_eq!(by_peer(&app, "alice", &["bob"]).await, [Some(0)]);
    app.must(&member("left", &room, "alice")).await;
    assert_eq!(by_peer(&app, "alice", &["bob"]).await, [None]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_leaves_an_invited_receiver_invited() {
    for (sender, receiver) in [("alice", "bob"), ("bob", "alice")] {
        let app = app();
        // Alice has joined, bob is only invited.
        let events = json!([
            {"type": "room.updated", "room": "dm", "kind": "direct"},
            member("joined", "dm", "alice"),
            member("invited", "dm", "bob"),
            to(sender, receiver, "1"),
        ]);
        let results = app.must(&events).await;
        assert_eq!(results[3]["position"], 1);
        let bob = app.unread("bob", true).await.ok();
        assert_eq!(bob["invitations"]["direct"], 1, "{sender}: {bob}");
        assert_eq!(bob["messages"]["total"], 0, "{sender}: {bob}");
        let unread = u64::from(sender == "bob");
        assert_eq!(total(&app, "alice").await, unread);
        assert_eq!(by_peer(&app, "alice", &["bob"]).await, [Some(unread)]);
        let of_room = app.room_unread::<&str>("dm", None).await.ok();
        assert_eq!(of_room["unread"], json!({"alice": unread}));
        // Joining begins at the head of then.
        app.must(&json!([
            member("joined", "dm", "bob"),
            to("alice", "bob", "2")
        ]))
        .await;
        assert_eq!(by_peer(&app, "bob", &["alice"]).await, [Some(1)]);
        assert_no_drift(&app.redis_url(), &app.keys.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_brings_back_a_user_who_declined_and_leaves_the_invited_invited() {
    let app = app();
    let events = json!([
        {"type": "room.updated", "room": "dm", "kind": "direct"},
        {"type": "member.invited", "room": "dm", "users": ["alice", "bob"]},
        to("alice", "bob", "1"),
    ]);
    app.must(&events).await;
    for user in ["alice", "bob"] {
        let counts = app.unread(user, true).await.ok();
        assert_eq!(counts["invitations"]["direct"], 1, "{counts}");
        assert_eq!(counts["messages"]["total"], 0, "{counts}");
    }
    app.must(&json!([
        member("left", "dm", "bob"),
        to("alice", "bob", "2")
    ]))
    .await;
    assert_eq!(by_peer(&app, "bob", &["alice"]).await, [Some(1)]);
    let alice = app.unread("alice", true).await.ok();
    assert_eq!(alice["invitations"]["direct"], 1, "{alice}");
    assert_no_drift(&app.redis_url(), &app.keys.id);
}

fn key(room: &str, what: &str) -> String {
    format!("unread:v1:{{app-0:r:{room}}}:{what}")
}

fn record_of(user: &str) -> String {
    format!("unread:v1:{{app-0:u:{user}}}:rooms")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_room_remembers_the_peer_and_a_repair_brings_it_back() {
    let own = Own::start("");
    let app = &own.app;
    let room = made(app, Made::ByName).await;
    app.must(&json!([
        member("left", &room, "bob"),
        sent(&room, "second", "bob")
    ]))
    .await;
    // Nothing is left of the membership itself.
    let members = own.redis.cli(&["HKEYS", &key(&room, "members")]);
    assert_eq!(members.trim(), "alice");
    assert_eq!(
        own.redis
            .cli(&["HGET", &key(&room, "meta"), "parted"])
            .trim(),
        "bob"
    );
    let url = own.redis.url();
    assert_no_drift(&url, "app-0");
    // Somebody takes the name out of the record, and the whole record.
    let record = own
        .redis
        .cli(&["HGET", &record_of("alice"), &room])
        .trim()
        .to_owned();
    assert!(record.contains("|bob|"), "{record}");
    for broken in [Some(record.replace("|bob|", "||")), None] {
        match &broken {
            Some(broken) => own.redis.cli(&["HSET", &record_of("alice"), &room, broken]),
            None => own.redis.cli(&["HDEL", &record_of("alice"), &room]),
        };
        let rebuilt = run_unread(&["rebuild", "--redis-url", &url, "--app", "app-0"]);
        assert_eq!(rebuilt.code, 0, "{rebuilt:?}");
        assert_no_drift(&url, "app-0");
        assert_eq!(
            by_peer(app, "alice", &["bob"]).await,
            [Some(2)],
            "{broken:?}"
        );
    }
    // What the room remembers can't be read any more. It is not taken for nobody, and follows from the record.
    let meta = key(&room, "meta");
    own.redis.cli(&["HSET", &meta, "parted", "a b"]);
    let left = member("left", &room, "alice");
    let refused = app.events(&left, Wait::Applied).await.ok();
    assert_eq!(
        refused["results"][0]["error"]["code"], "unreadable",
        "{refused}"
    );
    let mended = run_unread(&["rebuild", "--redis-url", &url, "--app", "app-0", "--mend"]);
    assert_eq!(mended.code, 0, "{mended:?}");
    assert_eq!(own.redis.cli(&["HGET", &meta, "parted"]).trim(), "bob");
    assert_eq!(by_peer(app, "alice", &["bob"]).await, [Some(2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_of_an_earlier_version_reads_as_it_did() {
    let own = Own::start("");
    let app = &own.app;
    for room in ["dm", "dm2"] {
        let events = json!([
            {"type": "room.updated", "room": room, "kind": "direct"},
            {"type": "member.joined", "room": room, "users": ["alice", "bob"]},
            member("left", room, "bob"),
        ]);
        app.must(&events).await;
        // As an earlier version left it: nobody remembers who was the other one.
        own.redis.cli(&["HDEL", &key(room, "meta"), "parted"]);
        app.must(&sent(room, "1", "bob")).await;
    }
    assert_eq!(total(app, "alice").await, 2);
    assert_eq!(by_peer(app, "alice", &["bob"]).await, [Some(0)]);
    assert_no_drift(&own.redis.url(), "app-0");
    // From the next change on it is remembered.
    app.must(&json!([
        member("joined", "dm", "carol"),
        member("left", "dm", "carol")
    ]))
    .await;
    assert_eq!(by_peer(app, "alice", &["carol"]).await, [Some(1)]);
    app.must(&json!([
        member("joined", "dm2", "bob"),
        member("left", "dm2", "bob")
    ]))
    .await;
    assert_eq!(by_peer(app, "alice", &["bob"]).await, [Some(1)]);
    assert_eq!(total(app, "alice").await, 2);
    assert_no_drift(&own.redis.url(), "app-0");
}

/// A note to oneself goes to a room of one's own, and not to one in which somebody else has been.
#[tokio::test]
async fn a_note_to_oneself_avoids_a_room_in_which_somebody_else_has_been() {
    let app = app();
    let note = |id: &str| json!({"type": "message.sent", "sender": "own", "to": "own", "id": id});
    app.must(&note("1")).await;
    let listed = app.imkit_rooms("own", &[]).await.ok();
    let room = listed["result"]["data"][0]["_id"].clone();
    app.must(&json!([
        {"type": "member.joined", "room": room, "user": "ann"},
        {"type": "member.left", "room": room, "user": "ann"},
        note("2"),
    ]))
    .await;
    let listed = app.imkit_rooms("own", &[]).await.ok();
    assert_eq!(listed["result"]["totalCount"], 2, "{listed}");
    app.must(&note("3")).await;
    let listed = app.imkit_rooms("own", &[]).await.ok();
    assert_eq!(listed["result"]["totalCount"], 2, "{listed}");
}

/// What the events come to: the status of each, or the code of its rejection.
async fn outcomes(app: &App, events: &Value) -> Vec<String> {
    app.events(events, Wait::Applied).await.outcomes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_recalled_by_its_two_users_whoever_is_in_the_room() {
    for how in WAYS {
        let app = app();
        assert_eq!(
            outcomes(&app, &json!([recall("bob", "alice", "first")])).await,
            ["message_not_found"]
        );
        let room = made(&app, how).await;
        app.must(&json!([
            sent(&room, "2", "bob"),
            sent(&room, "3", "alice"),
            sent(&room, "4", "bob")
        ]))
        .await;
        assert_eq!(by_peer(&app, "alice", &["bob"]).await, [Some(1)]);
        let events = json!([
            recall("bob", "alice", "4"),
            recall("alice", "bob", "4"),
            recall("bob", "alice", "none"),
            recall("bob", "carol", "3"),
            // In one request with the message that makes the room.
            to("carol", "bob", "c"),
            recall("carol", "bob", "c"),
        ]);
        assert_eq!(
            outcomes(&app, &events).await,
            [
                "applied",
                "duplicate",
                "message_not_found",
                "message_not_found",
                "applied",
                "applied"
            ],
            "{how:?}"
        );
        assert_eq!(by_peer(&app, "alice", &["bob"]).await, [Some(0)]);
        assert_eq!(
            by_peer(&app, "bob", &["alice", "carol"]).await,
            [Some(0), Some(0)]
        );
        // One of the two has left: the room is still theirs.
        app.must(&json!([
            sent(&room, "5", "alice"),
            member("left", &room, "alice")
        ]))
        .await;
        assert_eq!(by_peer(&app, "bob", &["alice"]).await, [Some(1)]);
        let events = json!([recall("alice", "bob", "5"), recall("bob", "alice", "3")]);
        assert_eq!(
            outcomes(&app, &events).await,
            ["applied", "applied"],
            "{how:?}"
        );
        assert_eq!(by_peer(&app, "bob", &["alice"]).await, [Some(0)]);
        // Somebody else takes the place: the room is no longer that of the two.
        app.must(&json!([
            member("joined", &room, "dave"),
            sent(&room, "6", "dave")
        ]))
        .await;
        assert_eq!(
            outcomes(&app, &json!([recall("alice", "bob", "6")])).await,
            ["message_not_found"],
            "{how:?}"
        );
        assert_eq!(by_peer(&app, "bob", &["dave"]).await, [Some(1)]);
        assert_no_drift(&app.redis_url(), &app.keys.id);
    }
}
