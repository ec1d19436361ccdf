//! Connections to Redis misbehave at random, or in one chosen way.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::proxy::Treatment;
use crate::report::{self, Row};
use crate::storm::{DEADLINE, Scene, config, storm};
use crate::support::refusal::native_refusal;
use crate::support::{PATIENCE, RedisServer, Wait};

async fn at_random(seed: u64) {
    let redis = RedisServer::start();
    let Scene {
        pod, app, proxy, ..
    } = Scene::new(&redis, config("")).await;
    let (after, proxy) = storm(&app, vec![pod.base.clone()], seed, move |seen| {
        proxy.random(seed);
        for _ in 0..4 {
            seen.acknowledged_more(300);
        }
        proxy.heal();
        proxy
    })
    .await;
    println!("seed {seed}: {}", proxy.done());
    after.nothing_lost().await;
    after.report(
        &format!("random connection faults, seed {seed}"),
        &proxy.done(),
        0,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_connections_misbehave_at_random() {
    at_random(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_connections_misbehave_by_another_seed() {
    at_random(2).await;
}

/// Every step that a message takes, one after the other: whatever the fault, sent again the message counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_message_counts_once_whichever_of_its_steps_goes_wrong() {
    let redis = RedisServer::start();
    let Scene {
        pod: _pod,
        app,
        proxy,
        ..
    } = Scene::new(&redis, config("")).await;
    app.must(&json!([
        {"type": "room.updated", "room": "steps"},
        {"type": "member.joined", "room": "steps", "users": ["alice", "bob"]},
    ]))
    .await;
    let treatments = [
        ("reply swallowed", Treatment::SwallowReply),
        ("request cut off", Treatment::CutRequest(20)),
        ("reply cut off", Treatment::CutReply(3)),
        ("reset in the reply", Treatment::ResetReply(3)),
        ("connection gone silent", Treatment::Silence),
    ];
    let mut sent = 0;
    for (name, treatment) in treatments {
        let (mut requests, mut refused) = (0, 0);
        let (mut slowest, mut recovery) = (Duration::ZERO, Duration::ZERO);
        let before = sent;
        for step in 0..6 {
            proxy.once(step, treatment);
            // One message does not take that many steps; the fault then hits the next one.
            while proxy.waiting() {
                sent += 1;
                let event = json!({"type": "message.sent", "room": "steps", "sender": "alice",
                    "id": format!("m{sent}")});
                let first = Instant::now();
                loop {
                    let start = Instant::now();
                    let reply = app.events(&event, Wait::Applied).await;
                    requests += 1;
                    slowest = slowest.max(start.elapsed());
                    if reply.status == 200 {
                        let result = &reply.body["results"][0];
                        assert_eq!(result["position"], json!(sent), "{name}, step {step}");
                        break;
                    }
                    native_refusal(&reply).unwrap();
                    refused += 1;
                    assert!(first.elapsed() < PATIENCE, "{name}, step {step}: {reply:?}");
                }
                recovery = recovery.max(first.elapsed());
                let counts = app.unread("bob", false).await;
                // A read may meet the fault as well, where the message did not.
                if counts.status == 200 {
                    assert_eq!(
                        counts.body["messages"]["total"],
                        json!(sent),
                        "{name}, step {step}"
                    );
                }
            }
        }
        proxy.heal();
        assert!(slowest < DEADLINE, "{name}: answered after {slowest:?}");
        report::fault(Row {
            fault: format!("one message, {name} at each step"),
            injected: "once at each of 6 steps".to_owned(),
            requests,
            refused,
            acknowledged: sent - before,
            lost: 0,
            slowest,
            recovery,
        });
    }
    println!("{}", proxy.done());
}

/// The machine of Redis vanishes without a word, and connections can be made again: all those before are dead for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_that_fell_silent_are_replaced() {
    let redis = RedisServer::start();
    let Scene {
        pod, app, proxy, ..
    } = Scene::new(&redis, config("")).await;
    let (after, _proxy) = storm(&app, vec![pod.base.clone()], 3, move |seen| {
        for _ in 0..2 {
            seen.acknowledged_more(50);
            proxy.always(Treatment::Silence);
            seen.refused_more(20);
            proxy.heal();
        }
        proxy
    })
    .await;
    after.nothing_lost().await;
    after.report(
        "half-open",
        "connections accepted and never answered, twice",
        0,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_nobody_listens() {
    let redis = RedisServer::start();
    let Scene {
        pod, app, proxy, ..
    } = Scene::new(&redis, config("")).await;
    let (after, _proxy) = storm(&app, vec![pod.base.clone()], 4, move |seen| {
        for _ in 0..3 {
            seen.acknowledged_more(50);
            proxy.refuse();
            seen.refused_more(50);
            proxy.heal();
        }
        proxy
    })
    .await;
    after.nothing_lost().await;
    after.report("refused", "connections reset and refused, 3 times", 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_every_answer_is_late() {
    let redis = RedisServer::start();
    let Scene {
        pod, app, proxy, ..
    } = Scene::new(&redis, config("")).await;
    let (after, _proxy) = storm(&app, vec![pod.base.clone()], 5, move |seen| {
        proxy.always(Treatment::Delay(Duration::from_millis(50)));
        seen.acknowledged_more(300);
        proxy.heal();
        proxy
    })
    .await;
    after.nothing_lost().await;
    after.report("slow", "every request 50 ms late", 0);
}
