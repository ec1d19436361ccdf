//! `verify` finds what is wrong, and nothing else; `rebuild` repairs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::{ALICE, ROOM, Scene, last_message};
use crate::support::check;
use crate::support::history::History;
use crate::support::traffic::{self, Answered, Writer};
use crate::support::{self, App, Config, Own, Pod, RedisServer, Wait, assert_no_drift, eventually};

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
