//! The self-check on the command line: `verify`, `rebuild`, `inspect` and `doctor`.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::support::check;
use crate::support::history::History;
use crate::support::traffic::{self, Answered, Writer};
use crate::support::{
    self, App, Config, Own, Pod, Ran, RedisServer, Wait, assert_no_drift, eventually,
};

/// A Redis, a pod, and an app in which there is something of everything.
struct Scene {
    redis: RedisServer,
    _pod: Pod,
    app: App,
}

const ALICE: &str = "unread:v1:{app-0:u:alice}:";
const ROOM: &str = "unread:v1:{app-0:r:group}:";

impl Scene {
    async fn new() -> Self {
        let (app, pod, redis) = Own::start("").parts();
        let message = |room: &str, n: u64, mentions: Value| {
            json!({"type": "message.sent", "room": room, "id": format!("m{n}"), "sender": "bob", "time": 1_700_000_000_000_u64 + n,
                   "mentions": mentions})
        };
        let mut events = vec![
            json!({"type": "room.updated", "room": "group", "tags": ["work", "x"], "custom_type": "support"}),
            json!({"type": "room.updated", "room": "other", "tags": ["work"]}),
            json!({"type": "room.updated", "room": "super", "kind": "supergroup", "tags": ["x"]}),
            json!({"type": "room.updated", "room": "it's {odd}", "tags": ["x"]}),
            json!({"type": "member.joined", "room": "group", "users": ["alice", "bob", "carol"]}),
            json!({"type": "member.joined", "room": "other", "users": ["alice", "bob"]}),
            json!({"type": "member.joined", "room": "super", "users": ["alice", "bob"]}),
            json!({"type": "member.invited", "room": "it's {odd}", "users": ["alice"]}),
            json!({"type": "message.sent", "to": "alice", "sender": "bob", "id": "d1"}),
            json!({"type": "member.joined", "room": "it's {odd}", "users": ["bob"]}),
        ];
        for n in 1..=6 {
            let mentions = if n == 5 { json!(["alice"]) } else { json!([]) };
            events.push(message("group", n, mentions));
        }
        events.push(message("other", 1, json!([])));
        events.push(message("super", 1, json!("all")));
        events.push(message("super", 2, json!([])));
        events
            .push(json!({"type": "room.read", "room": "group", "user": "alice", "up_to_id": "m2"}));
        events.push(json!({"type": "message.recalled", "room": "group", "id": "m3"}));
        app.must(&json!(events)).await;
        Self {
            redis,
            _pod: pod,
            app,
        }
    }

    fn run(&self, command: &str, more: &[&str]) -> Ran {
        let url = self.redis.url();
        support::ran(&[&[command, "--redis-url", &url], more].concat())
    }

    /// All that the endpoints say of alice.
    async fn answers(&self) -> Value {
        let mut all = vec![self.app.unread("alice", true).await.ok()];
        all.push(self.app.sendbird("alice", None, None).await.ok());
        all.push(self.app.imkit_badges::<&str>("alice", None).await.ok());
        all.push(self.app.tencent_peers("alice", &["bob"]).await.ok());
        all.into()
    }

    /// One drift: verify names it, rebuild repairs it, verify finds nothing, and the answers are what they were.
    async fn found_and_repaired(&self, what: &str, key: &str, field: &str, right: &Value) {
        let ran = self.run("verify", &["--json"]);
        assert_eq!(ran.code, 1, "{what}: {}{}", ran.stdout, ran.stderr);
        let result = ran.json();
        let named = |row: &Value| {
            row["fields"]
                .as_array()
                .unwrap()
                .iter()
                .any(|drift| drift["key"] == key && drift["field"] == field)
        };
        let drift = result["drift"].as_array().unwrap();
        assert!(
            drift.iter().any(|row| row["user"] == "alice" && named(row)),
            "{what}: {result}"
        );
        assert!(
            drift.iter().all(|row| row["user"] == "alice"),
            "{what}: {result}"
        );
        let ran = self.run("verify", &["--app", "app-0", "--user", "alice"]);
        assert_eq!(ran.code, 1, "{what}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains(field), "{what}: {}", ran.stdout);
        let ran = self.run("verify", &["--app", "app-0", "--user", "bob"]);
        assert_eq!(ran.code, 0, "{what}: {}{}", ran.stdout, ran.stderr);

        let ran = self.run("rebuild", &[]);
        assert_eq!(ran.code, 0, "{what}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains("rebuilt: app app-0, user \"alice\""));
        assert_no_drift(&self.redis.url(), "app-0");
        let ran = self.run("rebuild", &["--json"]);
        assert_eq!((ran.code, &ran.json()["rebuilt"]), (0, &json!([])));
        assert_eq!(self.answers().await, *right, "{what}");
    }
}

/// A stamp as records have it.
fn stamp(text: &str) -> i64 {
    i64::from_str_radix(text, 36).unwrap()
}

/// Order and time of the last message in a record: microseconds and milliseconds.
fn last_message(record: &[&str]) -> (i64, i64) {
    let (back, after) = record[13].split_once(',').unwrap();
    let rev = stamp(record[1]) + stamp(record[2]);
    let at = rev - back.parse::<i64>().unwrap();
    (at, at / 1_000 + after.parse::<i64>().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_made_on_purpose_is_found_named_and_repaired() {
    let scene = Scene::new().await;
    let right = scene.answers().await;
    assert_no_drift(&scene.redis.url(), "app-0");
    let key = |what: &str| format!("{ALICE}{what}");
    let (counts, refs, marks) = (key("counts"), key("refs"), key("marks"));
    let (rooms, supers) = (key("rooms"), key("supers"));
    let record = scene.redis.cli(&["HGET", &rooms, "group"]);
    let parts: Vec<&str> = record.split('|').collect();
    let with = |at: usize, value: &str| {
        let mut parts = parts.clone();
        parts[at] = value;
        parts.join("|")
    };
    let large = scene.redis.cli(&["HGET", &supers, "super"]);
    // What is done, and the key and field under which it has to be named.
    let odd = "it%27s%20%7Bodd%7D";
    let bad: Vec<(Vec<&str>, &str, &str)> = vec![
        (
            vec!["HINCRBY", &counts, "messages:group", "1"],
            "counts",
            "messages:group",
        ),
        (
            vec!["HINCRBY", &counts, "messages:direct", "-1"],
            "counts",
            "messages:direct",
        ),
        (vec!["HDEL", &counts, "room:group"], "counts", "room:group"),
        (vec!["HDEL", &counts, "known"], "counts", "known"),
        (
            vec!["HSET", &counts, "tag:work", "77"],
            "counts",
            "tag:work",
        ),
        (
            vec!["HSET", &counts, "tag:ghost", "7"],
            "counts",
            "tag:ghost",
        ),
        (
            vec!["HSET", &counts, "tag:work", "many"],
            "counts",
            "tag:work",
        ),
        (
            vec!["HDEL", &counts, "mentions:group:support"],
            "counts",
            "mentions:group:support",
        ),
        (
            vec!["HDEL", &counts, "invitations:group"],
            "counts",
            "invitations:group",
        ),
        (vec!["HDEL", &counts, "supers"], "counts", "supers"),
        (vec!["HSET", &counts, "supers", "9"], "counts", "supers"),
        (vec!["DEL", &counts], "counts", "messages:group"),
        (vec!["HSET", &refs, "tag:stale", "1"], "refs", "tag:stale"),
        (vec!["HINCRBY", &refs, "tag:work", "3"], "refs", "tag:work"),
        (vec!["HDEL", &refs, "type:support"], "refs", "type:support"),
        (vec!["HDEL", &refs, "direct:bob"], "refs", "direct:bob"),
        (
            vec!["HSET", &refs, "direct:carol", "group"],
            "refs",
            "direct:carol",
        ),
        (vec!["DEL", &refs], "refs", "tag:x"),
        (
            vec!["ZADD", &marks, "0", "group|h|0000000000000001"],
            "marks",
            "group|h|0000000000000001",
        ),
        (
            vec!["ZADD", &marks, "0", "nowhere|m|0000000000000001"],
            "marks",
            "nowhere|m|0000000000000001",
        ),
        // A recalled message counts again: the room knows better.
        (
            vec!["ZREM", &marks, "group|h|0000000000000003"],
            "rooms",
            "group",
        ),
        // A record that missed what its room accepted.
    ];
    let behind = with(4, "5");
    let foreign = "j|1|1|0|4|0|0|g|1||gone||0|".to_owned();
    let wrong_tags = with(10, "work,y");
    let wrong_state = with(0, "i");
    let ahead = with(4, "60");
    let wrong_kind = with(7, "d");
    let peer = with(11, "dave");
    let made = with(12, "-77");
    let (older, silent) = (with(13, "7,0"), with(13, ""));
    let sticky = format!("{}|s", with(0, "j"));
    let more: Vec<(Vec<&str>, &str, &str)> = vec![
        (vec!["HSET", &rooms, "group", &behind], "rooms", "group"),
        (vec!["HSET", &rooms, "group", &ahead], "rooms", "group"),
        (vec!["HSET", &rooms, "group", &wrong_tags], "rooms", "group"),
        (vec!["HSET", &rooms, "group", &wrong_kind], "rooms", "group"),
        (vec!["HSET", &rooms, "group", &peer], "rooms", "group"),
        (vec!["HSET", &rooms, "group", &made], "rooms", "group"),
        (vec!["HSET", &rooms, "group", &older], "rooms", "group"),
        (vec!["HSET", &rooms, "group", &silent], "rooms", "group"),
        (vec!["HSET", &rooms, "group", &sticky], "rooms", "group"),
        (
            vec!["HSET", &rooms, "nowhere", &foreign],
            "rooms",
            "nowhere",
        ),
        (vec!["HSET", &rooms, "super", &foreign], "rooms", "super"),
        (
            vec!["HSET", &supers, "group", "j|1|1|0|0|0"],
            "supers",
            "group",
        ),
        (vec!["HSET", &rooms, "broken", "j|x"], "rooms", "broken"),
        (vec!["HDEL", &rooms, odd], "rooms", odd),
        (vec!["HDEL", &supers, "super"], "supers", "super"),
        (
            vec!["HSET", &rooms, "group", &wrong_state],
            "rooms",
            "group",
        ),
    ];
    for (command, key, field) in bad.iter().chain(&more) {
        let what = command.join(" ");
        scene.redis.cli(command);
        scene.found_and_repaired(&what, key, field, &right).await;
        // What was not repaired by telling anew is the very record there was.
        if field == &"group" {
            let now = scene.redis.cli(&["HGET", &rooms, "group"]);
            let now: Vec<&str> = now.split('|').collect();
            assert_eq!(now[3..13], parts[3..13], "{what}");
            assert_eq!(last_message(&now), last_message(&parts), "{what}");
        }
    }
    assert_eq!(
        scene
            .redis
            .cli(&["HGET", &supers, "super"])
            .split('|')
            .next(),
        large.split('|').next()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_lost_begins_anew_and_one_too_many_goes() {
    let scene = Scene::new().await;
    let rooms = format!("{ALICE}rooms");
    // Gone is how far alice had read: what is left is where she joined. Nobody can know better.
    scene.redis.cli(&["HDEL", &rooms, "group"]);
    let ran = scene.run("verify", &[]);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert!(
        ran.stdout
            .contains("rooms group record: stored nothing, expected j since "),
        "{}",
        ran.stdout
    );
    assert_eq!(scene.run("verify", &["--json"]).json()["drifting_users"], 1);
    assert_eq!(scene.run("rebuild", &[]).code, 0);
    assert_no_drift(&scene.redis.url(), "app-0");
    let answer = scene.app.unread("alice", true).await.ok();
    let room = |answer: &Value, name: &str| {
        let rooms = answer["rooms"].as_array().unwrap().clone();
        rooms.into_iter().find(|room| room["room"] == name)
    };
    // Six messages, one of them recalled.
    assert_eq!(room(&answer, "group").unwrap()["messages"], 5);

    // The room has lost a member: the record goes, and what it counted.
    scene
        .redis
        .cli(&["HDEL", &format!("{ROOM}members"), "alice"]);
    assert_eq!(scene.run("verify", &[]).code, 1);
    assert_eq!(scene.run("rebuild", &[]).code, 0);
    assert_no_drift(&scene.redis.url(), "app-0");
    let answer = scene.app.unread("alice", true).await.ok();
    assert_eq!(room(&answer, "group"), None);
    assert_eq!(answer["messages"]["group"], 1);
    // And she can join again.
    scene
        .app
        .must(&json!([
            {"type": "member.joined", "room": "group", "users": ["alice"]},
            {"type": "message.sent", "room": "group", "id": "m7", "sender": "bob"},
        ]))
        .await;
    let answer = scene.app.unread("alice", true).await.ok();
    assert_eq!(room(&answer, "group").unwrap()["messages"], 1);

    // The room has lost that she left: her tombstone stands, and the room follows.
    let entry = scene
        .redis
        .cli(&["HGET", &format!("{ROOM}members"), "alice"]);
    scene
        .app
        .must(&json!({"type": "member.left", "room": "group", "user": "alice"}))
        .await;
    scene
        .redis
        .cli(&["HSET", &format!("{ROOM}members"), "alice", &entry]);
    assert_eq!(scene.run("verify", &[]).code, 1);
    assert_eq!(scene.run("rebuild", &[]).code, 0);
    assert_no_drift(&scene.redis.url(), "app-0");
    let answer = scene.app.unread("alice", true).await.ok();
    assert_eq!(room(&answer, "group"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_still_to_be_delivered_is_no_drift() {
    let scene = Scene::new().await;
    let rooms = format!("{ALICE}rooms");
    let record = scene.redis.cli(&["HGET", &rooms, "group"]);
    let mut parts: Vec<&str> = record.split('|').collect();
    let head = parts[4].to_owned();
    parts[4] = "5";
    let behind = parts.join("|");
    scene.redis.cli(&["HSET", &rooms, "group", &behind]);
    scene
        .redis
        .cli(&["HINCRBY", &format!("{ALICE}counts"), "messages:group", "-1"]);
    scene.redis.cli(&[
        "HINCRBY",
        &format!("{ALICE}counts"),
        "messages:group:support",
        "-1",
    ]);
    scene
        .redis
        .cli(&["HINCRBY", &format!("{ALICE}counts"), "room:group", "-1"]);
    for tag in ["tag:work", "tag:x"] {
        scene
            .redis
            .cli(&["HINCRBY", &format!("{ALICE}counts"), tag, "-1"]);
    }
    // As a pod leaves it that has accepted the sixth message and not delivered it.
    let pending = format!("{ROOM}pending");
    scene
        .redis
        .cli(&["HSET", &pending, "77", "9999999999999999\nall\n\nm|6|n||"]);
    let ran = scene.run("verify", &["--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stdout);
    assert_eq!(ran.json()["in_flight"], 1, "{}", ran.stdout);
    let ran = scene.run("verify", &[]);
    assert!(
        ran.stdout
            .contains("; 1 user not judged, since fan-outs stayed under way\n"),
        "{}",
        ran.stdout
    );
    // Done, and alice has not got it: that is drift.
    scene.redis.cli(&["HDEL", &pending, "77"]);
    let ran = scene.run("verify", &["--app", "app-0", "--user", "alice"]);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    let said = format!("rooms group head: stored 5, expected {head}");
    assert!(ran.stdout.contains(&said), "{}", ran.stdout);
    assert_eq!(
        scene
            .run("rebuild", &["--app", "app-0", "--user", "alice"])
            .code,
        0
    );
    assert_no_drift(&scene.redis.url(), "app-0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn beside_live_traffic_nothing_drifts() {
    const SEEDS: [u64; 3] = [301, 302, 303];
    let redis = RedisServer::start();
    let config = Config::apps(SEEDS.len() + 1);
    let pods = [Pod::start(&config, &redis), Pod::start(&config, &redis)];
    let over = Arc::new(AtomicUsize::new(SEEDS.len() + 4));
    let mut tasks = tokio::task::JoinSet::new();
    for (seed, keys) in SEEDS.into_iter().zip(&config.apps) {
        let mut history = History::new(App::new(keys, &pods[0].base), seed);
        let over = Arc::clone(&over);
        tasks.spawn(async move {
            let ran = history.run(250, false).await;
            over.fetch_sub(1, Ordering::Relaxed);
            ran.map_err(|reason| format!("seed {seed}: {reason}"))
        });
    }
    // Writers who do not wait, so that fan-outs overlap, in one app through two pods.
    let app = App::new(&config.apps[SEEDS.len()], &pods[1].base);
    app.must(&traffic::setup()).await;
    let answered = Arc::new(Answered::default());
    for name in 0..4 {
        let app = app.on(&pods[name % 2].base);
        let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
        tasks.spawn(async move {
            let mut writer = Writer::new(name, StdRng::seed_from_u64(400 + name as u64));
            for _ in 0..80 {
                let events = writer.batch(3);
                answered.record(&events, &app.events(&events, Wait::Accepted).await);
            }
            over.fetch_sub(1, Ordering::Relaxed);
            Ok(())
        });
    }
    let url = redis.url();
    let watching = Arc::clone(&over);
    let checks = tokio::task::spawn_blocking(move || {
        let mut runs = 0;
        while runs < 3 || watching.load(Ordering::Relaxed) > 0 {
            let ran = support::ran(&["verify", "--redis-url", &url]);
            assert_eq!(ran.code, 0, "run {runs}: {}{}", ran.stdout, ran.stderr);
            let ran = support::ran(&["rebuild", "--redis-url", &url]);
            assert_eq!(ran.code, 0, "run {runs}: {}{}", ran.stdout, ran.stderr);
            assert!(
                ran.stdout.starts_with("nothing to rebuild"),
                "{}",
                ran.stdout
            );
            runs += 1;
        }
        runs
    });
    let checked = checks.await;
    check::all(tasks).await;
    assert!(checked.unwrap() >= 3);
    let model = answered.model();
    eventually("everything delivered", || traffic::compare(&app, &model)).await;
    for keys in &config.apps {
        assert_no_drift(&redis.url(), &keys.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rebuilt_while_events_flow_every_count_is_right_in_the_end() {
    let (app, pod, redis) = Own::start("").parts();
    let redis = Arc::new(redis);
    app.must(&traffic::setup()).await;
    let over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(Answered::default());
    let mut writers = tokio::task::JoinSet::new();
    for name in 0..4 {
        let app = app.on(&pod.base);
        let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
        writers.spawn(async move {
            let mut writer = Writer::new(name, StdRng::seed_from_u64(500 + name as u64));
            // No room may outgrow its history.
            for round in 0..200 {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let events = writer.batch(3);
                let wait = [Wait::Accepted, Wait::Applied][round % 2];
                answered.record(&events, &app.events(&events, wait).await);
            }
        });
    }
    let spoiled = Arc::clone(&redis);
    tokio::task::spawn_blocking(move || {
        let mut rng = StdRng::seed_from_u64(9);
        for _ in 0..6 {
            for _ in 0..5 {
                let user = format!("user%20{}", rng.random_range(0..10));
                let slot = format!("unread:v1:{{app-0:u:{user}}}:");
                let field = *[
                    "messages:group",
                    "tag:x",
                    "room:group%20a",
                    "supers",
                    "mentions:group",
                ]
                .choose(&mut rng)
                .unwrap();
                let by = rng.random_range(1..50).to_string();
                spoiled.cli(&["HINCRBY", &format!("{slot}counts"), field, &by]);
                spoiled.cli(&["HINCRBY", &format!("{slot}refs"), "tag:stale", "1"]);
            }
            let ran = support::ran(&["rebuild", "--redis-url", &spoiled.url()]);
            assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
            assert!(
                ran.stdout.contains("tag:stale: was 1, is nothing")
                    || ran.stdout.contains("tag:stale")
            );
        }
    })
    .await
    .unwrap();
    over.store(true, Ordering::Relaxed);
    writers.join_all().await;
    let model = answered.model();
    eventually("everything delivered", || traffic::compare(&app, &model)).await;
    assert_no_drift(&redis.url(), "app-0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoiled_history_is_rebuilt_to_what_the_model_says() {
    let redis = RedisServer::start();
    let config = Config::apps(2);
    let pod = Pod::start(&config, &redis);
    for (seed, keys) in [601, 602].into_iter().zip(&config.apps) {
        let mut history = History::new(App::new(keys, &pod.base), seed);
        history.run(300, true).await.unwrap();
        assert_no_drift(&redis.url(), &keys.id);
        let mut rng = StdRng::seed_from_u64(seed);
        let all = redis.cli(&[
            "--scan",
            "--pattern",
            &format!("unread:v1:{{{}:u:*", keys.id),
        ]);
        let mut spoiled = 0;
        for key in all.lines() {
            let (_, what) = key.rsplit_once(':').unwrap();
            if what == "refs" && rng.random_bool(0.5) {
                redis.cli(&["DEL", key]);
                spoiled += 1;
            }
            if what == "counts" {
                for field in redis.cli(&["HKEYS", key]).lines() {
                    match rng.random_range(0..4) {
                        // Nothing tells since when a user without any room is known.
                        _ if field == "known" => {}
                        0 => spoiled += redis.cli(&["HDEL", key, field]).len(),
                        1 => spoiled += redis.cli(&["HINCRBY", key, field, "3"]).len(),
                        _ => {}
                    }
                }
            }
        }
        assert!(spoiled > 5);
        let of = ["--redis-url", &redis.url(), "--app", &keys.id];
        assert_eq!(support::ran(&[&["verify"], &of[..]].concat()).code, 1);
        let ran = support::ran(&[&["rebuild"], &of[..]].concat());
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        assert_no_drift(&redis.url(), &keys.id);
        history.compare(true).await.unwrap();
    }
}

// ---------------------------------------------------------------------------------------------------------- unreadable

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
    scene
        .redis
        .cli(&["HINCRBY", &counts, "messages:direct", "-5"]);
    assert_eq!(scene.redis.cli(&["HGETALL", &counts]), before);
    assert_eq!(scene.run("rebuild", &["--mend"]).code, 0);
    assert_no_drift(&scene.redis.url(), "app-0");
    assert_eq!(scene.answers().await, right);
}

// ---------------------------------------------------------------------------------------------------------- inspect

fn sh(line: &str) -> String {
    let out = Command::new("sh")
        .args(["-c", line])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(out.status.success(), "{line}: {out:?}");
    String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
}

/// The pairs that `HGETALL` prints.
fn hash(line: &str) -> Value {
    let text = sh(line);
    let lines: Vec<&str> = text.lines().collect();
    lines
        .chunks(2)
        .map(|pair| (pair[0].to_owned(), Value::from(pair[1])))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inspect_shows_what_its_redis_cli_lines_show() {
    let scene = Scene::new().await;
    scene
        .app
        .must(&json!([
            {"type": "room.updated", "room": "left"},
            {"type": "member.joined", "room": "left", "users": ["alice"]},
            {"type": "member.left", "room": "left", "user": "alice"},
        ]))
        .await;
    let ran = scene.run("inspect", &["--app", "app-0", "--user", "alice", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let shown = ran.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();

    let counts = hash(&text(&shown["counts"]["redis_cli"]));
    assert!(counts.as_object().unwrap().len() > 10, "{counts}");
    for (field, n) in shown["counts"]["fields"].as_object().unwrap() {
        assert_eq!(counts[field], n.to_string(), "{field}");
    }
    assert_eq!(shown["counts"]["fields"]["messages:group"], 4);
    let rooms = shown["rooms"]["list"].as_array().unwrap();
    assert_eq!(rooms.len(), 4);
    let all = hash(&text(&shown["rooms"]["redis_cli"]));
    assert_eq!(all.as_object().unwrap().len(), 4);
    for room in rooms {
        let record = sh(&text(&room["redis_cli"][0]));
        let parts: Vec<&str> = record.split('|').collect();
        for (at, name) in [(3, "read"), (4, "head"), (5, "holes"), (6, "mentions")] {
            assert_eq!(parts[at], room[name].to_string(), "{room}");
        }
        let (epoch, after) = (stamp(parts[1]), stamp(parts[2]));
        assert_eq!(room["epoch"], epoch, "{room}");
        assert_eq!(room["rev"], epoch + after, "{room}");
        if parts[13].is_empty() {
            assert_eq!(room["last_at"], Value::Null);
        } else {
            let (at, time) = last_message(&parts);
            assert_eq!(
                (&room["last_at"], &room["last_time"]),
                (&json!(at), &json!(time))
            );
        }
        assert_eq!(parts[7], &room["kind"].as_str().unwrap()[..1]);
    }
    let group = rooms.iter().find(|room| room["room"] == "group").unwrap();
    assert_eq!((&group["unread"], &group["holes"]), (&json!(3), &json!(1)));
    assert!(
        rooms
            .iter()
            .any(|room| room["room"] == "it's {odd}" && room["state"] == "invited")
    );

    let large = &shown["supergroups"]["list"][0];
    assert_eq!(
        (&large["room"], &large["unread"], &large["mentions"]),
        (&json!("super"), &json!(2), &json!(1))
    );
    let lines: Vec<String> = large["redis_cli"]
        .as_array()
        .unwrap()
        .iter()
        .map(text)
        .collect();
    let record = sh(&lines[0]);
    let read: u64 = record.split('|').nth(3).unwrap().parse().unwrap();
    let (head, recalled): (u64, u64) = (
        sh(&lines[1]).parse().unwrap(),
        sh(&lines[2]).parse().unwrap(),
    );
    assert_eq!(head - read - recalled, 2);
    assert_eq!(
        hash(&text(&shown["references"]["redis_cli"])),
        shown["references"]["fields"]
    );
    assert_eq!(
        sh(&text(&shown["marks"]["redis_cli"])),
        shown["marks"]["count"].to_string()
    );
    let tombs = hash(&text(&shown["tombstones"]["redis_cli"]));
    assert!(
        tombs["left"]
            .as_str()
            .unwrap()
            .starts_with(shown["tombstones"]["list"][0]["epoch"].as_str().unwrap())
    );

    // A room, by a name that a shell would trip over.
    let ran = scene.run(
        "inspect",
        &["--app", "app-0", "--room", "it's {odd}", "--json"],
    );
    let shown = ran.json();
    let line = text(&shown["members"]["redis_cli"]);
    assert_eq!(
        (sh(&line), &shown["members"]["count"]),
        ("2".to_owned(), &json!(2))
    );
    for member in shown["members"]["list"].as_array().unwrap() {
        let entry = sh(&text(&member["redis_cli"]));
        let epoch = stamp(entry.split('|').nth(1).unwrap());
        assert_eq!(member["epoch"], epoch);
    }
    let ran = scene.run("inspect", &["--app", "app-0", "--room", "group", "--json"]);
    let shown = ran.json();
    assert_eq!(shown["meta"]["fields"]["head"], "6");
    let fields = shown["meta"]["fields"].as_object().unwrap();
    let values: Vec<&str> = fields
        .values()
        .map(|value| value.as_str().unwrap())
        .collect();
    assert_eq!(
        sh(&text(&shown["meta"]["redis_cli"]))
            .lines()
            .collect::<Vec<_>>(),
        values
    );
    for part in ["members", "pending", "history", "recalled"] {
        let line = text(&shown[part]["redis_cli"]);
        assert_eq!(sh(&line), shown[part]["count"].to_string(), "{part}");
    }
    assert_eq!(
        (&shown["history"]["count"], &shown["recalled"]["count"]),
        (&json!(6), &json!(1))
    );

    // The text for people carries the same lines, and they run as they stand.
    let ran = scene.run("inspect", &["--app", "app-0", "--user", "alice"]);
    let lines: Vec<&str> = ran
        .stdout
        .lines()
        .filter_map(|l| l.trim().strip_prefix("$ "))
        .collect();
    assert!(lines.len() >= 8, "{}", ran.stdout);
    for line in lines {
        assert!(!sh(line).is_empty(), "{line}");
    }
    let ran = scene.run("inspect", &["--app", "app-0", "--user", "nobody"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        "unread: nothing is kept of user \"nobody\" in app \"app-0\"\n"
    );
}

// ---------------------------------------------------------------------------------------------------------- doctor

/// Check by check: its result and what was found.
fn checks(ran: &Ran) -> std::collections::BTreeMap<String, (String, String)> {
    let result = ran.json();
    let rows = result["checks"].as_array().unwrap();
    rows.iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            (
                text("check"),
                (
                    text("result"),
                    format!("{}; {}", text("found"), text("advice")),
                ),
            )
        })
        .collect()
}

#[test]
fn doctor_tells_a_good_redis_from_a_bad_one() {
    let good = RedisServer::start_with(&[
        "--appendonly",
        "yes",
        "--hash-max-listpack-entries",
        "512",
        "--hash-max-listpack-value",
        "256",
    ]);
    let ran = support::ran(&["doctor", "--redis-url", &good.url(), "--json"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    for (name, (result, said)) in checks(&ran) {
        // The version's number says nothing of what a distribution has mended in it; this machine may be busy.
        let allowed: &[&str] = if name.starts_with("CVE") || name == "round trip" {
            &["ok", "warn"]
        } else {
            &["ok"]
        };
        assert!(
            allowed.contains(&result.as_str()),
            "{name}: {result}: {said}"
        );
    }
    let ran = support::ran(&["doctor", "--redis-url", &good.url()]);
    assert!(
        ran.stdout.contains("ok    maxmemory-policy: noeviction\n"),
        "{}",
        ran.stdout
    );

    let bad = RedisServer::start_with(&["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"]);
    let ran = support::ran(&["doctor", "--redis-url", &bad.url(), "--json"]);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    let all = checks(&ran);
    assert_eq!(all["maxmemory-policy"].0, "fail");
    assert!(
        all["maxmemory-policy"]
            .1
            .contains("CONFIG SET maxmemory-policy noeviction")
    );
    assert_eq!(all["persistence"].0, "fail");
    assert_eq!(all["hash encoding"].0, "warn");
    assert_eq!(all["scripts"].0, "ok");
    // What it says to do is what helps.
    bad.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    bad.cli(&["CONFIG", "SET", "appendonly", "yes"]);
    let ran = support::ran(&["doctor", "--redis-url", &bad.url()]);
    assert_eq!(ran.code, 0, "{}", ran.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_names_missing_rights_and_shows_no_password() {
    let redis = RedisServer::start();
    let url = |user: &str| {
        redis
            .url()
            .replace("redis://", &format!("redis://{user}:s3cret-pw@"))
    };
    redis.cli(&[
        "ACL",
        "SETUSER",
        "poor",
        "on",
        ">s3cret-pw",
        "~unread:v1:*",
        "+@all",
        "-@dangerous",
        "-zadd",
        "-hscan",
        "+info",
    ]);
    let ran = support::ran(&["doctor", "--redis-url", &url("poor"), "--json"]);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    let all = checks(&ran);
    assert_eq!(all["rights"].0, "fail");
    assert!(
        all["rights"]
            .1
            .contains("user \"poor\" may not run HSCAN, ZADD"),
        "{:?}",
        all["rights"]
    );
    assert_eq!(all["hash encoding"].0, "warn");

    // The line that is advised suffices for all of it, and not for foreign keys.
    let advice = all["rights"].1.split("; ").last().unwrap().to_owned();
    let words = advice
        .replace("NAME", "least")
        .replace(">PASSWORD", ">s3cret-pw");
    let words: Vec<&str> = words.split_whitespace().collect();
    assert_eq!(redis.cli(&words), "OK", "{advice}");
    let ran = support::ran(&["doctor", "--redis-url", &url("least"), "--json"]);
    let all = checks(&ran);
    assert_eq!(all["rights"].0, "ok", "{:?}", all["rights"]);
    assert_eq!(all["scripts"].0, "ok", "{:?}", all["scripts"]);
    assert_eq!(all["replicas"].0, "ok", "{:?}", all["replicas"]);
    assert!(
        redis
            .cli(&["ACL", "DRYRUN", "least", "FLUSHALL"])
            .contains("no permissions")
    );
    let pod = Pod::start_unready(&Config::apps(1), &url("least"));
    eventually("a pod with the least rights is ready", || async {
        pod.is_ready().then_some(()).ok_or("not ready".to_owned())
    })
    .await;
    let app = App::new(&Config::apps(1).apps[0], &pod.base);
    app.must(&traffic::setup()).await;
    let events = Writer::new(0, StdRng::seed_from_u64(1)).batch(40);
    app.events(&events, Wait::Applied).await.ok();
    for command in ["verify", "rebuild"] {
        let ran = support::ran(&[command, "--redis-url", &url("least")]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    // Nor does the mending of what can't be read take more.
    for (room, what) in [
        ("super", "meta"),
        ("group%20a", "members"),
        ("group%20b", "ids"),
        ("group%20b", "log"),
    ] {
        let key = format!("unread:v1:{{app-0:r:{room}}}:{what}");
        redis.cli(&["DEL", &key]);
        redis.cli(&["SET", &key, "poison"]);
    }
    let ran = support::ran(&["rebuild", "--mend", "--redis-url", &url("least")]);
    assert_eq!(ran.code, 0, "{ran:?}");

    for user in ["poor", "nobody"] {
        for command in ["doctor", "verify"] {
            let ran = support::ran(&[command, "--redis-url", &url(user)]);
            assert!(!format!("{ran:?}").contains("s3cret-pw"), "{ran:?}");
        }
    }
    let ran = support::ran(&["doctor", "--redis-url", &url("nobody")]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stdout.starts_with("fail  reachable: "), "{ran:?}");
    let ran = support::ran(&["verify", "--redis-url", &url("nobody")]);
    assert_eq!(ran.code, 3, "{ran:?}");
}

#[test]
fn a_command_that_cannot_run_says_so() {
    let ran = support::ran(&["verify", "--redis-url", "redis://127.0.0.1:1"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(
        ran.stderr.starts_with("unread: could not run to its end"),
        "{ran:?}"
    );
    assert_eq!(ran.stdout, "");
    let redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    for (args, code) in [
        (
            vec!["verify", "--user", "alice", "--redis-url", &redis.url()],
            2,
        ),
        (
            vec![
                "verify",
                "--app",
                "no such app",
                "--redis-url",
                &redis.url(),
            ],
            2,
        ),
        (vec!["inspect", "--app", "a"], 2),
        (
            vec!["inspect", "--app", "a", "--user", "u", "--room", "r"],
            2,
        ),
        (vec!["verify", "--redis-url", &redis.url()], 0),
        (vec!["rebuild", "--redis-url", &redis.url()], 0),
    ] {
        let ran = support::ran(&args);
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
    }
    // Without an address: the private server of a pod that runs in the data directory, and here runs none.
    let file = format!("{dir}/unread.toml");
    std::fs::write(&file, format!("[redis]\ndata_dir = \"{dir}\"\n")).unwrap();
    let ran = support::ran(&["doctor", "--config", &file]);
    assert_eq!(ran.code, 3);
    assert!(
        ran.stderr.contains("no private redis-server runs in"),
        "{ran:?}"
    );
}

// ---------------------------------------------------------------------------------------------------------- memory

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_users_and_rooms_take_is_weighed() {
    let scene = Scene::new().await;
    let weighed = |more: &[&str]| {
        let ran = scene.run(
            "inspect",
            &[&["--app", "app-0", "--memory", "--json"], more].concat(),
        );
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        ran.json()
    };
    let usage = |key: &str| -> u64 {
        let bytes = scene.redis.cli(&["MEMORY", "USAGE", key]);
        bytes.parse().unwrap_or(0)
    };
    // alice is in five rooms: two groups, a supergroup, a direct room, and asked into another.
    let one = weighed(&["--user", "alice"]);
    assert_eq!((&one["users"], &one["pairs"]), (&json!(1), &json!(5)));
    let mut sum = 0;
    for what in ["counts", "rooms", "supers", "refs", "marks"] {
        let bytes = usage(&format!("{ALICE}{what}"));
        assert_eq!(one["user_keys"][what]["bytes"], bytes, "{what}: {one}");
        sum += bytes;
    }
    let others = ["left", "prefs", "profile", "pending"];
    sum += others
        .map(|what| usage(&format!("{ALICE}{what}")))
        .iter()
        .sum::<u64>();
    let lists = one["members_key"]["bytes"].as_f64().unwrap() / one["members"].as_f64().unwrap();
    let expected = sum as f64 / 5.0 + lists;
    let shown = one["bytes_per_pair"].as_f64().unwrap();
    assert!((shown - expected).abs() < 0.2, "{shown}, {expected}: {one}");

    let all = weighed(&[]);
    // alice, bob, carol; three groups, a supergroup and a direct room of 3 + 2 + 2 + 2 + 2 members.
    assert_eq!((&all["users"], &all["pairs"]), (&json!(3), &json!(11)));
    assert_eq!((&all["rooms"], &all["members"]), (&json!(5), &json!(11)));
    assert!(all["user_keys"]["rooms"]["keys"] == 3, "{all}");
    assert_eq!(weighed(&["--sample", "1"])["users"], 1);
    let table = scene.run("inspect", &["--app", "app-0", "--memory"]);
    assert_eq!(table.code, 0, "{}", table.stderr);
    let shown = all["bytes_per_pair"].as_f64().unwrap();
    let line = format!("bytes for each user and room: {shown:.1}\n");
    assert!(table.stdout.contains(&line), "{line}{}", table.stdout);

    let nobody = scene.run(
        "inspect",
        &["--app", "app-0", "--memory", "--user", "nobody"],
    );
    assert_eq!(nobody.code, 1, "{}", nobody.stdout);
    let nothing = scene.run("inspect", &["--app", "other", "--memory"]);
    assert_eq!(nothing.code, 1, "{}", nothing.stdout);
    for args in [
        &["--memory", "--room", "r"][..],
        &["--sample", "5", "--user", "x"],
        &[],
    ] {
        let ran = scene.run("inspect", &[&["--app", "app-0"], args].concat());
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
    }
}
