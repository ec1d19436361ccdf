use serde_json::{Value, json};

use crate::support::{App, Own, Pod, RedisServer, Wait, eventually};

/// A room of alice, bob and carol, and another one of alice and carol.
struct Beside {
    redis: RedisServer,
    _pod: Pod,
    app: App,
}

impl Beside {
    async fn new() -> Self {
        let (app, pod, redis) = Own::start("").parts();
        let events = json!([
            {"type": "room.updated", "room": "one", "kind": "group"},
            {"type": "member.joined", "room": "one", "users": ["alice", "bob", "carol"]},
            {"type": "room.updated", "room": "two", "kind": "group"},
            {"type": "member.joined", "room": "two", "users": ["alice", "carol"]},
            message("one", "m1"),
        ]);
        app.must(&events).await;
        Self {
            redis,
            _pod: pod,
            app,
        }
    }

    fn key(&self, slot: &str, what: &str) -> String {
        format!("unread:v1:{{{}:{slot}}}:{what}", self.app.keys.id)
    }

    /// What these events come to: the code of an error, or the status.
    async fn outcomes(&self, events: &Value) -> Vec<String> {
        self.app.events(events, Wait::Applied).await.outcomes()
    }

    async fn count(&self, user: &str) -> u64 {
        let counts = self.app.unread(user, false).await.ok();
        counts["messages"]["total"].as_u64().unwrap()
    }

    fn dump(&self, keys: &[String]) -> Vec<String> {
        let dump = |key: &String| self.redis.cli(&["DUMP", key]);
        keys.iter().map(dump).collect()
    }
}

fn message(room: &str, id: &str) -> Value {
    json!({"type": "message.sent", "room": room, "id": id, "sender": "alice"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whose_slot_cannot_be_read_keeps_nobody_else_from_being_told() {
    for what in [
        "counts", "rooms", "left", "marks", "refs", "supers", "prefs",
    ] {
        let beside = Beside::new().await;
        let key = beside.key("u:bob", what);
        beside.redis.cli(&["DEL", &key]);
        beside.redis.cli(&["SET", &key, "poison"]);
        let mut events = vec![message("one", "m2"), message("two", "t1")];
        events.extend([
            json!({"type": "message.sent", "room": "one", "id": "m3", "sender": "alice", "mentions": "all"}),
            json!({"type": "message.recalled", "room": "one", "id": "m1"}),
            json!({"type": "room.updated", "room": "one", "tags": ["t"]}),
            json!({"type": "pref.updated", "room": "one", "user": "carol", "hidden": true}),
        ]);
        for event in &events {
            assert_eq!(beside.outcomes(event).await, ["applied"], "{what} {event}");
        }
        assert_eq!(beside.count("carol").await, 3, "{what}");
        // The fan-outs are finished: they don't pile up for as long as nobody mends it.
        let pending = beside.key("r:one", "pending");
        assert_eq!(beside.redis.cli(&["HLEN", &pending]), "0", "{what}");
        // What is bob's alone is not done, and the room keeps it.
        let read = json!({"type": "room.read", "room": "one", "user": "bob", "up_to_id": "m2"});
        let own = beside.outcomes(&json!([read, message("two", "t2")])).await;
        if ["counts", "rooms"].contains(&what) {
            assert_eq!(own, ["unreadable", "applied"], "{what}");
        }
        let kept = u8::from(own[0] == "unreadable").to_string();
        assert_eq!(beside.redis.cli(&["HLEN", &pending]), kept, "{what}");
        let url = beside.redis.url();
        let ran = crate::support::run_unread(&["rebuild", "--mend", "--redis-url", &url, "--json"]);
        assert_eq!(ran.code, 0, "{what} {ran:?}");
        if ["counts", "rooms"].contains(&what) {
            // Within seconds the room tells bob what it has kept.
            assert!([1, 2].contains(&beside.count("bob").await), "{what}");
        }
        assert_eq!(beside.outcomes(&read).await, ["applied"], "{what}");
        assert_eq!(beside.count("bob").await, 1, "{what}");
    }
}

/// What a slot names when it refuses may be garbled, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_cannot_be_read_keeps_nobody_else_from_being_told() {
    for (field, value) in [
        ("*", "x"),
        ("*", "9007199254740993"),
        ("*", "9000000000000000"),
        ("one", "9999999999999999|5"),
    ] {
        let beside = Beside::new().await;
        beside
            .redis
            .cli(&["HDEL", &beside.key("u:bob", "rooms"), "one"]);
        let left = beside.key("u:bob", "left");
        beside.redis.cli(&["HSET", &left, field, value]);
        let outcomes = beside.outcomes(&message("one", "m2")).await;
        assert_eq!(outcomes, ["applied"], "{field} {value}");
        assert_eq!(beside.count("carol").await, 2, "{field} {value}");
        let pending = beside.key("r:one", "pending");
        assert_eq!(beside.redis.cli(&["HLEN", &pending]), "0");
        let rev = beside.key("r:one", "meta");
        let rev: u64 = beside.redis.cli(&["HGET", &rev, "rev"]).parse().unwrap();
        assert!(rev < 1 << 52, "the room goes on at {rev}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_everything_is_done_when_all_of_it_can_be_read() {
    let beside = Beside::new().await;
    beside.app.must(&json!([message("two", "t1")])).await;
    let meta = beside.key("r:one", "meta");
    let right = beside.redis.cli(&["HGET", &meta, "rev"]);
    beside.redis.cli(&["HSET", &meta, "rev", "inf"]);
    let read_all = json!({"type": "user.read_all", "user": "carol"});
    assert_eq!(beside.outcomes(&read_all).await, ["unreadable"]);
    beside.redis.cli(&["HSET", &meta, "rev", &right]);
    assert_eq!(beside.outcomes(&read_all).await, ["applied"]);
    assert_eq!(beside.count("carol").await, 0);
}

/// An entry of a member says more where its slot had refused it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_membership_that_was_vouched_for_can_be_read_by_all() {
    let beside = Beside::new().await;
    let events = json!([
        {"type": "room.updated", "room": "dm", "kind": "direct"},
        {"type": "member.joined", "room": "dm", "users": ["alice", "bob"]},
        message("dm", "d1"),
    ]);
    beside.app.must(&events).await;
    let members = beside.key("r:dm", "members");
    // Until then it has the epoch alone.
    let epoch = beside.redis.cli(&["HGET", &members, "bob"]);
    for more in ["|5|", "|5|7"] {
        let vouched = format!("j|{epoch}|0{more}");
        beside.redis.cli(&["HSET", &members, "bob", &vouched]);
        // A record that is wrong is only found by whoever can read the room.
        let counts = beside.key("u:bob", "rooms");
        beside.redis.cli(&["HDEL", &counts, "dm"]);
        let url = beside.redis.url();
        let found = crate::support::run_unread(&["verify", "--redis-url", &url, "--json"]);
        assert_eq!(found.code, 1, "{found:?}");
        let mended = crate::support::run_unread(&["rebuild", "--redis-url", &url, "--json"]);
        assert_eq!(mended.code, 0, "{mended:?}");
        assert_eq!(beside.count("bob").await, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_room_that_cannot_be_read_are_rejected_alone() {
    let poisons: [(&str, &[&str]); 10] = [
        ("meta", &["HSET", "status", "x"]),
        ("meta", &["HSET", "kind", "channel"]),
        ("meta", &["HSET", "tags", "a|b"]),
        ("meta", &["HSET", "last_time", "x"]),
        ("meta", &["HSET", "rev", "inf"]),
        ("meta", &["HDEL", "head"]),
        ("meta", &["HSET", "accepted", "9007199254740993"]),
        ("meta", &["SET", "poison"]),
        ("pending", &["SET", "poison"]),
        ("members", &["SET", "poison"]),
    ];
    for (what, poison) in poisons {
        let beside = Beside::new().await;
        let key = beside.key("r:one", what);
        let (command, rest) = poison.split_first().unwrap();
        if *command == "SET" {
            beside.redis.cli(&["DEL", &key]);
        }
        beside
            .redis
            .cli(&[&[*command, key.as_str()], rest].concat());
        let all = ["meta", "members", "ids", "log", "recalled", "pending"];
        let all: Vec<String> = all.iter().map(|what| beside.key("r:one", what)).collect();
        let before = beside.dump(&all);
        let events = [
            message("one", "m2"),
            json!({"type": "message.recalled", "room": "one", "id": "m1"}),
            json!({"type": "member.joined", "room": "one", "users": ["dave"]}),
            json!({"type": "room.read", "room": "one", "user": "bob"}),
            json!({"type": "room.updated", "room": "one", "tags": ["t"]}),
            json!({"type": "pref.updated", "room": "one", "user": "bob", "hidden": true}),
        ];
        for event in events {
            // Not all of them need what is poisoned.
            if what == "members"
                && event["type"] != "message.sent"
                && event["type"] != "member.joined"
            {
                continue;
            }
            if poison.contains(&"accepted") && event["type"] != "message.sent" {
                continue;
            }
            let both = json!([event, message("two", &format!("t {}", event["type"]))]);
            let outcomes = beside.outcomes(&both).await;
            assert_eq!(
                outcomes,
                ["unreadable", "applied"],
                "{what} {poison:?} {event}"
            );
        }
        assert_eq!(
            beside.dump(&all),
            before,
            "{what} {poison:?}: something was written"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_call_is_done_where_one_id_cannot_be_read() {
    let beside = Beside::new().await;
    let ids = beside.key("r:one", "ids");
    let right = beside.redis.cli(&["HGET", &ids, "m1"]);
    beside.redis.cli(&["HSET", &ids, "m1", "poison"]);
    let events = json!([
        message("one", "m2"),
        message("one", "m1"),
        message("one", "m3")
    ]);
    let all = ["meta", "members", "ids", "log", "pending"];
    let all: Vec<String> = all.iter().map(|what| beside.key("r:one", what)).collect();
    let before = beside.dump(&all);
    assert_eq!(beside.outcomes(&events).await, ["unreadable"; 3]);
    assert_eq!(beside.dump(&all), before);
    beside.redis.cli(&["HSET", &ids, "m1", &right]);
    assert_eq!(
        beside.outcomes(&events).await,
        ["applied", "duplicate", "applied"]
    );
    assert_eq!(beside.count("bob").await, 3);
    // A garbled line of the history is in nobody's way, and goes when it is the oldest.
    let log = beside.key("r:one", "log");
    beside.redis.cli(&["LPUSH", &log, "poison"]);
    assert_eq!(beside.outcomes(&message("one", "m4")).await, ["applied"]);
    assert_eq!(beside.count("bob").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_entry_cannot_be_read_keeps_nobody_else_from_being_told() {
    let beside = Beside::new().await;
    let members = beside.key("r:one", "members");
    beside.redis.cli(&["HSET", &members, "bob", "poison"]);
    // The list of members is another one now, so the pod reads it.
    assert_eq!(
        beside
            .outcomes(&json!({"type": "member.joined", "room": "one", "user": "dave"}))
            .await,
        ["applied"]
    );
    assert_eq!(beside.outcomes(&message("one", "m2")).await, ["applied"]);
    assert_eq!(beside.count("carol").await, 2);
    assert_eq!(beside.count("dave").await, 1);
    let url = beside.redis.url();
    let ran = crate::support::run_unread(&["rebuild", "--mend", "--redis-url", &url, "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(beside.outcomes(&message("one", "m3")).await, ["applied"]);
    assert_eq!(beside.count("bob").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_do_nothing_by_halves() {
    let beside = Beside::new().await;
    for (slot, event) in [
        ("u:bob", json!({"type": "user.deleted", "user": "bob"})),
        ("r:one", json!({"type": "room.deleted", "room": "one"})),
    ] {
        let pending = beside.key(slot, "pending");
        beside.redis.cli(&["DEL", &pending]);
        beside.redis.cli(&["SET", &pending, "poison"]);
        let keys: Vec<String> = ["counts", "rooms", "profile", "meta", "ids", "log"]
            .iter()
            .map(|what| beside.key(slot, what))
            .collect();
        let before = beside.dump(&keys);
        let both = json!([event, message("two", slot)]);
        assert_eq!(beside.outcomes(&both).await, ["unreadable", "applied"]);
        assert_eq!(beside.dump(&keys), before, "{event}");
        beside.redis.cli(&["DEL", &pending]);
        assert_eq!(beside.outcomes(&event).await, ["applied"]);
    }
    eventually("carol has only the other room", || async {
        match beside.count("carol").await {
            2 => Ok(()),
            n => Err(format!("{n} unread")),
        }
    })
    .await;
}
