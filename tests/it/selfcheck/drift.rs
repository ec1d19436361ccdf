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

/// A command that spoils one of alice's keys, and the key and field that `verify` has to name for it.
struct Spoiled {
    command: Vec<String>,
    key: &'static str,
    field: &'static str,
}

/// `verb` on alice's `key`, with more words behind it.
fn spoiled(verb: &str, key: &'static str, field: &'static str, more: &[&str]) -> Spoiled {
    let mut command = vec![verb.to_owned(), format!("{ALICE}{key}")];
    command.extend(more.iter().map(ToString::to_string));
    Spoiled {
        command,
        key,
        field,
    }
}

fn set(key: &'static str, field: &'static str, value: &str) -> Spoiled {
    spoiled("HSET", key, field, &[field, value])
}

fn add(key: &'static str, field: &'static str, by: &str) -> Spoiled {
    spoiled("HINCRBY", key, field, &[field, by])
}

fn remove(key: &'static str, field: &'static str) -> Spoiled {
    spoiled("HDEL", key, field, &[field])
}

/// The whole key; `field` is one of those that are missing then.
fn delete(key: &'static str, field: &'static str) -> Spoiled {
    spoiled("DEL", key, field, &[])
}

fn mark(field: &'static str) -> Spoiled {
    spoiled("ZADD", "marks", field, &["0", field])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_made_on_purpose_is_found_named_and_repaired() {
    let scene = Scene::new().await;
    let right = scene.answers().await;
    assert_no_drift(&scene.redis.url(), "app-0");
    let (rooms, supers) = (format!("{ALICE}rooms"), format!("{ALICE}supers"));
    let record = scene.redis.cli(&["HGET", &rooms, "group"]);
    let parts: Vec<&str> = record.split('|').collect();
    let with = |at: usize, value: &str| {
        let mut parts = parts.clone();
        parts[at] = value;
        parts.join("|")
    };
    let large = scene.redis.cli(&["HGET", &supers, "super"]);
    let too_many = "j|1|1|0|4|0|0|g|1||gone||0|";
    let all = [
        add("counts", "messages:group", "1"),
        add("counts", "messages:direct", "-1"),
        add("counts", "unread_rooms:group", "1"),
        remove("counts", "unread_rooms:direct"),
        remove("counts", "room:group"),
        remove("counts", "known"),
        set("counts", "tag:work", "77"),
        set("counts", "tag:ghost", "7"),
        set("counts", "tag:work", "many"),
        remove("counts", "mentions:group:support"),
        remove("counts", "invitations:group"),
        remove("counts", "supers"),
        set("counts", "supers", "9"),
        delete("counts", "messages:group"),
        set("refs", "tag:stale", "1"),
        add("refs", "tag:work", "3"),
        remove("refs", "type:support"),
        remove("refs", "direct:bob"),
        set("refs", "direct:carol", "group"),
        delete("refs", "tag:x"),
        mark("group|h|0000000000000001"),
        mark("nowhere|m|0000000000000001"),
        mark("group|e|0000000000000001|5|1"),
        // A recalled message counts again. The room knows of the recall, so the record is what is wrong.
        Spoiled {
            key: "rooms",
            ..spoiled("ZREM", "marks", "group", &["group|h|0000000000000003"])
        },
        // The head: behind what the room accepted, and ahead of it.
        set("rooms", "group", &with(4, "5")),
        set("rooms", "group", &with(4, "60")),
        // Tags, kind, peer, the time at which the room was made.
        set("rooms", "group", &with(10, "work,y")),
        set("rooms", "group", &with(7, "d")),
        set("rooms", "group", &with(11, "dave")),
        set("rooms", "group", &with(12, "-77")),
        // The last message: an older one, and none.
        set("rooms", "group", &with(13, "7,0")),
        set("rooms", "group", &with(13, "")),
        // A setting that alice has not made: pinned.
        set("rooms", "group", &format!("{}|s", with(0, "j"))),
        // A count preference that alice does not have, and edits that there were not.
        set("rooms", "group", &format!("{}|2", with(0, "j"))),
        set("rooms", "group", &format!("{}|e", with(0, "j"))),
        set("supers", "super", &format!("{}|3", large.trim())),
        // A record too many: of no room, of a room whose record has the other form, in no form at all.
        set("rooms", "nowhere", too_many),
        set("rooms", "super", too_many),
        set("supers", "group", "j|1|1|0|0|0"),
        set("rooms", "broken", "j|x"),
        // A record that is lost.
        remove("rooms", "it%27s%20%7Bodd%7D"),
        remove("supers", "super"),
        // The state.
        set("rooms", "group", &with(0, "i")),
    ];
    for Spoiled {
        command,
        key,
        field,
    } in all
    {
        let what = command.join(" ");
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        scene.redis.cli(&words);
        scene.found_and_repaired(&what, key, field, &right).await;
        // The repaired record is the one that was there, but for the revision and the state.
        if field == "group" {
            let now = scene.redis.cli(&["HGET", &rooms, "group"]);
            let now: Vec<&str> = now.split('|').collect();
            assert_eq!(now[3..13], parts[3..13], "{what}");
            assert_eq!(last_message(&now), last_message(&parts), "{what}");
        }
    }
    let now = scene.redis.cli(&["HGET", &supers, "super"]);
    assert_eq!(now.split('|').next(), large.split('|').next());
}

/// `verify` finds drift, `rebuild` repairs it, and `verify` finds none any more.
fn is_repaired(scene: &Scene, of: &[&str]) {
    assert_eq!(scene.run("verify", of).code, 1);
    assert_eq!(scene.run("rebuild", of).code, 0);
    assert_no_drift(&scene.redis.url(), "app-0");
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
    is_repaired(&scene, &[]);
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
    is_repaired(&scene, &[]);
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
    let counts = format!("{ALICE}counts");
    for field in [
        "messages:group",
        "messages:group:support",
        "room:group",
        "tag:work",
        "tag:x",
    ] {
        scene.redis.cli(&["HINCRBY", &counts, field, "-1"]);
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
            let ran = support::run_unread(&["verify", "--redis-url", &url]);
            assert_eq!(ran.code, 0, "run {runs}: {}{}", ran.stdout, ran.stderr);
            let ran = support::run_unread(&["rebuild", "--redis-url", &url]);
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
            let ran = support::run_unread(&["rebuild", "--redis-url", &spoiled.url()]);
            assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
            assert!(ran.stdout.contains("tag:stale"), "{}", ran.stdout);
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
    for (seed, keys) in [603, 604].into_iter().zip(&config.apps) {
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
        assert!(spoiled > 5, "{spoiled} of {}", all.lines().count());
        let of = ["--redis-url", &redis.url(), "--app", &keys.id];
        assert_eq!(
            support::run_unread(&[&["verify"], &of[..]].concat()).code,
            1
        );
        let ran = support::run_unread(&[&["rebuild"], &of[..]].concat());
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        assert_no_drift(&redis.url(), &keys.id);
        history.compare(true).await.unwrap();
    }
}
