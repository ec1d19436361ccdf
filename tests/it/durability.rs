//! Durability `wait`: events are answered when a replica has them, and otherwise the outcome is said to be unknown.

use serde_json::json;

use crate::support::{Config, Own, RedisServer, Wait};

fn waiting(timeout_ms: u32) -> Config {
    let mut config = Config::apps(1);
    config.redis = format!(
        "durability = \"wait\"\ndurability_replicas = 1\ndurability_timeout_ms = {timeout_ms}\n"
    );
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_answered_is_on_the_replica() {
    let redis = RedisServer::start();
    let replica = redis.replica();
    let (app, _pod, _redis) = Own::on(redis, waiting(5_000)).parts();
    for n in 0..20 {
        let event =
            json!({"type": "message.sent", "sender": "a", "to": "b", "id": format!("m{n}")});
        let reply = app.events(&event, Wait::Applied).await;
        assert_eq!(reply.status, 200);
        // At once, without waiting for replication to get there: the answer said that it has.
        let field = replica.cli(&["HGET", "unread:v1:{app-0:u:b}:counts", "messages:direct"]);
        assert_eq!(field, (n + 1).to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_replica_the_outcome_is_unknown_and_the_event_counts_once_all_the_same() {
    let redis = RedisServer::start();
    let replica = redis.replica();
    let (app, _pod, _redis) = Own::on(redis, waiting(300)).parts();
    let event = json!({"type": "message.sent", "sender": "a", "to": "b", "id": "m1"});

    replica.freeze();
    let reply = app.events(&event, Wait::Applied).await;
    assert_eq!(reply.status, 503);
    assert!(reply.header("retry-after").is_some());
    let detail = reply.body["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("unknown"), "{detail}");
    replica.thaw();

    // The replica has to catch up first, so the outcome may be unknown once more.
    let mut again = app.events(&event, Wait::Applied).await;
    for _ in 0..100 {
        if again.status != 503 {
            break;
        }
        again = app.events(&event, Wait::Applied).await;
    }
    let again = again.ok();
    assert_eq!(
        again["results"][0],
        json!({"status": "duplicate", "position": 1})
    );
    let counts = app.unread("b", false).await.ok();
    assert_eq!(counts["messages"]["total"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_share_the_waits_for_replicas() {
    let redis = RedisServer::start();
    let _replica = redis.replica();
    let (app, _pod, redis) = Own::on(redis, waiting(5_000)).parts();
    let calls = (0..200).map(|n| {
        let app = app.clone();
        async move {
            let event = json!({"type": "message.sent", "sender": format!("s{n}"), "to": "b", "id": format!("m{n}")});
            app.events(&event, Wait::Applied).await.ok()
        }
    });
    futures_util::future::join_all(calls).await;
    let waits = redis.calls()["wait"];
    assert!((1..200).contains(&waits), "{waits} rounds for 200 calls");
}
