//! Rooms of 100,000 and of 10,000: what a message costs, that everybody gets it, and that others are not held up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::proxy::{Proxy, Treatment};
use crate::report;
use crate::storm::pod;
use crate::support::{App, Config, Own, Pod, RedisServer};

/// Events and users in one request.
const CHUNK: usize = 10_000;

fn user(n: usize) -> String {
    format!("u{n}")
}

/// A room and so many members.
async fn fill(app: &App, room: &str, kind: &str, members: usize) {
    app.must(&json!({"type": "room.updated", "room": room, "kind": kind}))
        .await;
    for first in (0..members).step_by(CHUNK) {
        let users: Vec<String> = (first..members.min(first + CHUNK)).map(user).collect();
        let event = json!({"type": "member.joined", "room": room, "users": users});
        app.must(&event).await;
    }
}

fn message(room: &str, id: usize) -> Value {
    json!({"type": "message.sent", "room": room, "id": format!("m{id}"), "sender": "u0", "text": "hello"})
}

/// Calls of every command so far, but for what this asks itself.
fn commands(redis: &RedisServer) -> BTreeMap<String, u64> {
    let mut calls = redis.calls();
    calls.remove("info");
    calls
}

fn total(redis: &RedisServer) -> u64 {
    commands(redis).values().sum()
}

/// What one message costs in commands, those inside of scripts included. The pod also looks around by itself once a second,
/// so the least of many is the message's own.
async fn cost(redis: &RedisServer, app: &App, room: &str) -> (u64, Duration) {
    let (mut least, mut fastest) = (u64::MAX, Duration::MAX);
    for n in 0..40 {
        let before = total(redis);
        let start = Instant::now();
        app.must(&message(room, n)).await;
        fastest = fastest.min(start.elapsed());
        least = least.min(total(redis) - before);
    }
    (least, fastest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supergroup_of_100_000_costs_what_one_of_10_costs() {
    const MEMBERS: usize = 100_000;
    let (app, _pod, redis) = Own::start("").parts();
    fill(&app, "small", "supergroup", 10).await;
    fill(&app, "large", "supergroup", MEMBERS).await;
    let (small, small_time) = cost(&redis, &app, "small").await;
    let (large, large_time) = cost(&redis, &app, "large").await;
    assert_eq!(small, large, "commands for one message");
    for n in [1, 9, 10, 4_711, MEMBERS - 1] {
        let counts = app.unread(&user(n), false).await.ok();
        let rooms = if n < 10 { 2 } else { 1 };
        assert_eq!(
            counts["messages"]["supergroup"],
            json!(40 * rooms),
            "user {n}"
        );
    }
    report::size(
        "a message into a supergroup of 10, of 100,000: Redis commands",
        &small.to_string(),
        &large.to_string(),
    );
    report::size(
        "a message into a supergroup of 10, of 100,000: fastest answer of 40",
        &format!("{:.1} ms", small_time.as_secs_f64() * 1e3),
        &format!("{:.1} ms", large_time.as_secs_f64() * 1e3),
    );
}

/// How long each of the messages into a room of two takes, for as long as `go` says.
async fn latencies(
    app: &App,
    ids: std::ops::RangeFrom<usize>,
    go: impl Fn(usize) -> bool,
) -> Vec<Duration> {
    let mut times = Vec::new();
    for id in ids {
        if !go(times.len()) {
            break;
        }
        let start = Instant::now();
        app.must(&message("other", id)).await;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_to_10_000_reaches_all_and_holds_up_nobody() {
    const MEMBERS: usize = 10_000;
    const MESSAGES: usize = 5;
    let (app, _pod, redis) = Own::start("").parts();
    fill(&app, "other", "group", 2).await;
    fill(&app, "large", "group", MEMBERS).await;

    let alone = latencies(&app, 0.., |done| done < 100).await;
    let before = commands(&redis);
    let large = app.on(&app.base);
    let sending = tokio::spawn(async move {
        let start = Instant::now();
        for n in 0..MESSAGES {
            large.must(&message("large", n)).await;
        }
        start.elapsed() / MESSAGES as u32
    });
    let beside = latencies(&app, 1_000.., |_| !sending.is_finished()).await;
    let each = sending.await.unwrap();
    let scripts = |of: &BTreeMap<String, u64>| of.get("evalsha").copied().unwrap_or(0);
    let fan_out = scripts(&commands(&redis)) - scripts(&before);

    for first in (0..MEMBERS).step_by(1_000) {
        let users: Vec<String> = (first..first + 1_000).map(user).collect();
        let reply = app.unread_many(&users).await.ok();
        for user in users {
            // The sender has read its own; the two of the other room have that besides.
            let large = if user == "u0" { 0 } else { MESSAGES };
            let other = if user == "u1" { 100 + beside.len() } else { 0 };
            let counts = &reply["users"][&user]["messages"];
            assert_eq!(counts["group"], json!(large + other), "{user}");
        }
    }
    // The fan-out's own, not those of the messages beside it (some five each) and of the pod's looking around.
    let own = fan_out.saturating_sub(10 * beside.len() as u64 + 1_000);
    let bound = (MESSAGES * MEMBERS / 10) as u64;
    assert!(own < bound, "{fan_out} calls for {MESSAGES} messages");
    let median = |times: &[Duration]| times[times.len() / 2];
    let ratio = median(&beside).as_secs_f64() / median(&alone).as_secs_f64();
    // Twice is the aim on a quiet machine; this one may be anything.
    assert!(
        ratio < 20.0,
        "messages elsewhere take {ratio:.1} times as long"
    );
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    report::size(
        "a message to two, alone and beside messages to 10,000 (median)",
        &ms(median(&alone)),
        &format!("{}, {ratio:.1} times", ms(median(&beside))),
    );
    report::size(
        "a message to two, to 10,000, until all have it",
        &ms(median(&alone)),
        &ms(each),
    );
}

/// A fan-out that takes longer than a lease keeps it: neither its own pod's sweep nor another pod begins it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fan_out_longer_than_its_lease_is_made_once() {
    let redis = RedisServer::start();
    let config = Config::apps(1);
    let proxy = Proxy::start(redis.address());
    let slow = pod(&config, &proxy);
    let other = Pod::start(&config, &redis);
    let app = App::new(&config.apps[0], &slow.base);
    let members = 4_500;
    fill(&app, "wide", "group", members).await;
    let count = |pod: &Pod, name: &str| pod.metric::<u64>(name).unwrap();
    let before = count(&slow, "unread_deliveries_total");

    // 180 calls, two at a time: some nine seconds, and a lease is five.
    proxy.always(Treatment::Delay(Duration::from_millis(100)));
    let start = Instant::now();
    app.must(&message("wide", 1)).await;
    assert!(
        start.elapsed() > Duration::from_secs(5),
        "it was no long fan-out"
    );
    proxy.heal();
    assert_eq!(
        count(&slow, "unread_deliveries_total") - before,
        members as u64
    );
    for one in [&slow, &other] {
        assert_eq!(count(one, "unread_fanouts_recovered_total"), 0);
    }
    assert_eq!(count(&other, "unread_deliveries_total"), 0);
}
