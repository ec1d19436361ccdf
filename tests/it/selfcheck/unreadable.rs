//! What can't be read is named, and hides nothing else.

use serde_json::{Value, json};

use super::{ALICE, ROOM, Scene, sh};
use crate::support::{Wait, assert_no_drift, eventually};

/// What one event came to.
async fn outcome(scene: &Scene, event: &Value) -> String {
    let reply = scene.app.events(event, Wait::Applied).await;
    reply.outcomes().remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_named_beside_what_can_be() {
    let scene = Scene::new().await;
    let right = scene.answers().await;
    let doctor = scene.run("doctor", &[]).code;
    let put = |key: &str, field: &str, value: &str| {
        scene.redis.cli(&["HSET", key, field, value]);
    };
    let (counts, rooms, profile) = (
        format!("{ALICE}counts"),
        format!("{ALICE}rooms"),
        format!("{ALICE}profile"),
    );
    let (meta, members) = (format!("{ROOM}meta"), format!("{ROOM}members"));
    scene.redis.cli(&["DEL", &counts]);
    scene.redis.cli(&["SET", &counts, "poison \u{1b}[2J"]);
    put(&rooms, "other", "j|cut");
    put(&profile, "is_robot", "perhaps");
    put(&meta, "head", "-6");
    put(&members, "carol", "j");
    // A text is a message's, whatever its bytes are.
    let broken = "printf 'HSET \"%s\" last_text \"\\xff the secret text\"' ";
    sh(&format!(
        "{broken} '{meta}' | redis-cli -p {}",
        scene.redis.port
    ));

    let ran = scene.run("verify", &[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let said = &ran.stdout;
    for line in [
        format!(
            "can't be read: {counts}: a string where a hash belongs: \"poison \\u{{1b}}[2J\" (#"
        ),
        format!("can't be read: {rooms} other: not in the form of a record: \"j|cut\" (#"),
        format!("can't be read: {profile} is_robot: neither 0 nor 1: \"perhaps\" (#"),
        format!("can't be read: {meta} head: not a number from 0 to 2^53: \"-6\" (#"),
        format!("can't be read: {members} carol: not in the form of a record: \"j\" (#"),
        format!("can't be read: {meta} last_text: not UTF-8 (#"),
        "no drift in what can be read: 3 users".to_owned(),
    ] {
        // What a terminal would obey is written out.
        let line = line.replace("\\u{1b}", "\\\\u{1b}");
        assert!(said.contains(&line), "{line}\n{said}");
    }
    assert!(
        !said.contains('\u{1b}') && !said.contains("secret"),
        "{said}"
    );
    // One user of a room that can't be read: the room is named.
    let ran = scene.run("verify", &["--app", "app-0", "--user", "bob"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains(&format!("{meta} head")), "{ran:?}");
    assert!(!ran.stdout.contains(&counts), "{ran:?}");

    // What can be shown is shown.
    let ran = scene.run("inspect", &["--app", "app-0", "--user", "alice", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let shown = ran.json();
    let named = |list: &Value| -> Vec<String> {
        let rows = list["list"].as_array().unwrap().iter();
        rows.map(|row| format!("{} {}", row["key"].as_str().unwrap(), row["field"]))
            .collect()
    };
    let unreadable = named(&shown["unreadable"]);
    assert_eq!(
        unreadable,
        [
            format!("{counts} null"),
            format!("{rooms} \"other\""),
            format!("{profile} \"is_robot\"")
        ]
    );
    let listed: Vec<&Value> = shown["rooms"]["list"].as_array().unwrap().iter().collect();
    assert_eq!(listed.len(), 3, "{shown}");
    assert_eq!(shown["supergroups"]["list"][0]["unread"], 2);
    let ran = scene.run("inspect", &["--app", "app-0", "--user", "alice"]);
    assert!(ran.stdout.contains("\nunreadable: 3\n"), "{ran:?}");
    let ran = scene.run("inspect", &["--app", "app-0", "--room", "group", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let shown = ran.json();
    assert_eq!(shown["unreadable"]["count"], 3);
    assert_eq!(shown["members"]["list"].as_array().unwrap().len(), 2);
    assert_eq!(shown["members"]["count"], 3);
    assert_eq!(shown["history"]["count"], 6);
    let ran = scene.run("inspect", &["--app", "app-0", "--memory", "--json"]);
    assert_eq!((ran.code, &ran.json()["users"]), (0, &json!(3)));
    let one = ["--app", "app-0", "--memory", "--user", "alice"];
    assert_eq!(scene.run("inspect", &one).code, 0);
    assert_eq!(scene.run("doctor", &[]).code, doctor);

    // It is mended only if that is asked for.
    let ran = scene.run("rebuild", &[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("; left alone\n"), "{ran:?}");
    assert!(ran.stdout.contains("`unread rebuild --mend`"), "{ran:?}");
    assert_eq!(scene.run("rebuild", &["--dry-run"]).code, 2);
    let ran = scene.run("rebuild", &["--mend", "--dry-run"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let would = format!("would be mended: {meta} head: not a number from 0 to 2^53: \"-6\" (#");
    assert!(ran.stdout.contains(&would), "{ran:?}");
    assert!(
        ran.stdout
            .ends_with("6 keys and fields would be mended or removed; nothing was written\n"),
        "{ran:?}"
    );
    assert_eq!(scene.redis.cli(&["HGET", &meta, "head"]), "-6");
    let ran = scene.run("rebuild", &["--mend"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for line in ["; is \"6\"\n", "removed: ", "mended: "] {
        assert!(ran.stdout.contains(line), "{line}: {ran:?}");
    }
    assert!(!ran.stdout.contains("secret"), "{ran:?}");
    assert_no_drift(&scene.redis.url(), "app-0");
    assert_eq!(scene.answers().await, right);
}

/// Where the sources of a record can't be read either, nothing is taken for gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_not_judged_by_what_cannot_be_read() {
    let scene = Scene::new().await;
    let right = scene.answers().await;
    let meta = format!("{ROOM}meta");
    let all = scene.redis.cli(&["HGETALL", &meta]);
    let record = scene
        .redis
        .cli(&["HGET", &format!("{ALICE}rooms"), "group"]);
    for poison in [
        vec!["HDEL", &meta, "born"],
        vec!["HDEL", &meta, "head"],
        vec!["HSET", &meta, "kind", "party"],
        vec!["HSET", &meta, "tags", "a b"],
        vec!["DEL", &meta],
    ] {
        scene.redis.cli(&poison);
        if poison[0] == "DEL" {
            scene.redis.cli(&["SET", &meta, "poison"]);
        }
        let ran = scene.run("verify", &["--json"]);
        assert_eq!(
            (ran.code, &ran.json()["drift"]),
            (1, &json!([])),
            "{poison:?}"
        );
        assert_eq!(scene.run("rebuild", &[]).code, 1, "{poison:?}");
        let now = scene
            .redis
            .cli(&["HGET", &format!("{ALICE}rooms"), "group"]);
        assert_eq!(now, record, "{poison:?}");
        scene.redis.cli(&["DEL", &meta]);
        let mut restore = vec!["HSET", meta.as_str()];
        restore.extend(all.lines());
        scene.redis.cli(&restore);
    }
    // A record that can't be read keeps what it counted, until it is mended.
    let (rooms, counts) = (format!("{ALICE}rooms"), format!("{ALICE}counts"));
    scene.redis.cli(&["HSET", &rooms, "other", "j|cut"]);
    let before = scene.redis.cli(&["HGETALL", &counts]);
    scene
        .redis
        .cli(&["HINCRBY", &counts, "messages:direct", "5"]);
    let ran = scene.run("rebuild", &["--json"]);
    assert_eq!((ran.code, &ran.json()["rebuilt"]), (1, &json!([])));
    // What drifts beside it is not put right either, and nothing is said to be rebuilt.
    let record = scene.redis.cli(&["HGET", &rooms, "group"]);
    scene.redis.cli(&["HDEL", &rooms, "group"]);
    let ran = scene.run("rebuild", &[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stdout
            .contains("left alone, not all can be read: app app-0, user \"alice\"\n"),
        "{ran:?}"
    );
    let sums = "nothing rebuilt, 1 user still drifts: ";
    assert!(
        ran.stdout.lines().last().unwrap().starts_with(sums),
        "{ran:?}"
    );
    let ran = scene.run("rebuild", &["--json"]);
    assert_eq!(
        (&ran.json()["rebuilt_users"], &ran.json()["users_left"]),
        (&json!(0), &json!(1))
    );
    scene.redis.cli(&["HSET", &rooms, "group", &record]);
    scene
        .redis
        .cli(&["HINCRBY", &counts, "messages:direct", "-5"]);
    assert_eq!(scene.redis.cli(&["HGETALL", &counts]), before);
    assert_eq!(scene.run("rebuild", &["--mend"]).code, 0);
    assert_no_drift(&scene.redis.url(), "app-0");
    assert_eq!(scene.answers().await, right);
}

/// An event of one user whose slot can't be read is rejected, and half of it is nowhere. The room keeps it: once the slot is mended
/// the user gets it, also where nobody sends it again, and whoever does is told that it was known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_rejected_for_a_slot_that_cannot_be_read_is_not_lost() {
    let scene = Scene::new().await;
    let counts = format!("{ALICE}counts");
    let prefs = format!("{ALICE}prefs");
    let read = json!({"type": "room.read", "room": "group", "user": "alice", "key": "k1"});
    let pref = json!({"type": "pref.updated", "room": "other", "user": "alice", "count": "none", "key": "k2"});
    let reset = json!({"type": "room.unread", "room": "super", "user": "alice", "from_id": "m2", "key": "k3"});
    let set =
        json!({"type": "counts.set", "room": "super", "user": "alice", "unread": 1, "key": "k4"});
    scene.redis.cli(&["DEL", &counts]);
    scene.redis.cli(&["SET", &counts, "poison"]);
    let told = async |event: &Value| outcome(&scene, event).await;
    for event in [&read, &pref, &reset, &set] {
        for _ in 0..2 {
            assert_eq!(told(event).await, "unreadable", "{event}");
        }
    }
    assert_eq!(scene.redis.cli(&["HGETALL", &prefs]), "");
    assert_eq!(scene.run("rebuild", &["--mend"]).code, 0);
    // Nobody sends the first one again.
    eventually("the room tells what it has kept", || async {
        match scene.app.room_unread("group", Some(&["alice"])).await.ok()["unread"]["alice"] == 0 {
            true => Ok(()),
            false => Err("not yet".to_owned()),
        }
    })
    .await;
    for (event, word) in [
        (&read, "duplicate"),
        (&pref, "duplicate"),
        (&reset, "duplicate"),
        (&set, "applied"),
    ] {
        assert_eq!(told(event).await, word, "{event}");
    }
    let rows = scene.app.unread("alice", true).await.ok();
    let row = |room: &str| {
        let mut all = rows["rooms"].as_array().unwrap().iter();
        let row = all.find(|row| row["room"] == room).unwrap();
        (row["messages"].clone(), row["count"].clone())
    };
    assert_eq!(row("group"), (json!(0), json!("all")), "{rows}");
    assert_eq!(row("other"), (json!(1), json!("none")), "{rows}");
    assert_eq!(row("super"), (json!(1), json!("all")), "{rows}");
    assert_no_drift(&scene.redis.url(), "app-0");
}

/// What is a member's own alone is not to be taken for the event of a stranger: it is sent again when the entry is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_a_member_whose_entry_cannot_be_read_is_unreadable() {
    let scene = Scene::new().await;
    let outcomes = async |events: &Value| scene.app.events(events, Wait::Applied).await.outcomes();
    for room in ["group", "super"] {
        let members = format!("unread:v1:{{app-0:r:{room}}}:members");
        let own = json!([
            {"type": "room.read", "room": room, "user": "alice"},
            {"type": "room.read", "room": room, "user": "alice", "up_to_id": "m1"},
            {"type": "room.unread", "room": room, "user": "alice", "from_id": "m1"},
            {"type": "counts.set", "room": room, "user": "alice", "unread": 1},
            {"type": "pref.updated", "room": room, "user": "alice", "muted": true},
        ]);
        let whole = scene.redis.cli(&["HGET", &members, "alice"]);
        for damaged in [
            "",
            "garbage",
            "1234567890",
            "1234567890|abc",
            "HOEBFZ46S0",
            "hoebfz46s0|",
            "hoebfz46s0|0|0",
            "hoebfz46s0|1234567890123456",
            "j|",
            "x|hoebfz46s0|0",
        ] {
            scene.redis.cli(&["HSET", &members, "alice", damaged]);
            assert_eq!(outcomes(&own).await, ["unreadable"; 5], "{room} {damaged}");
        }
        // An entry of a user who has left can be read: that user is no member.
        scene
            .redis
            .cli(&["HSET", &members, "alice", "l|hoebfz46s0|hoebfz46r0"]);
        assert_eq!(outcomes(&own).await, ["not_a_member"; 5], "{room}");
        scene.redis.cli(&["HSET", &members, "alice", &whole]);
        assert_eq!(outcomes(&own).await, ["applied"; 5], "{room}");
    }
}

/// The pod knows the list of members, so it tells alice too; her slot refuses that, and the room can't say what she is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_member_whose_entry_cannot_be_read_holds_up_no_message() {
    let scene = Scene::new().await;
    let members = format!("{ROOM}members");
    let before = scene.app.unread("bob", true).await.ok();
    scene
        .redis
        .cli(&["HSET", &members, "alice", "1234567890|abc"]);
    outcome(&scene, &json!({"type": "user.deleted", "user": "alice"})).await;
    let sent =
        |id: &str| json!({"type": "message.sent", "room": "group", "id": id, "sender": "bob"});
    for id in ["after-1", "after-2"] {
        assert_eq!(outcome(&scene, &sent(id)).await, "applied");
    }
    let after = scene.app.unread("bob", true).await.ok();
    assert_eq!(before["messages"], after["messages"]);
    assert_eq!(scene.redis.cli(&["HLEN", &format!("{ROOM}pending")]), "0");
}
