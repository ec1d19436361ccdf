//! Redis is gone for a while: each dialect says so in its own words, soon, and service comes back by itself.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{imkit_error, problem, sendbird_error, tencent_error};
use crate::support::{Config, Own, RedisServer, Reply, Wait, eventually};

/// Long before any caller would have given up.
const SOON: Duration = Duration::from_secs(10);

async fn timed(what: &str, call: impl Future<Output = Reply>) -> Reply {
    let start = Instant::now();
    let reply = call.await;
    assert!(
        start.elapsed() < SOON,
        "{what} took {:?}: {reply:?}",
        start.elapsed()
    );
    reply
}

#[tokio::test]
async fn each_dialect_says_that_redis_is_gone_and_recovers() {
    let config = Config::apps(1);
    let (app, pod, mut redis) = Own::on(RedisServer::start_durable(), config.clone()).parts();
    let message = json!({"type": "message.sent", "room": "r", "id": "during"});
    app.must(&json!([
        {"type": "room.updated", "room": "r", "tags": ["t"]},
        {"type": "member.joined", "room": "r", "user": "alice"},
        {"type": "message.sent", "room": "r", "id": "before"},
    ]))
    .await;

    redis.stop();
    // Twice: once with connections that just broke, once without any.
    for _ in 0..2 {
        for wait in [Wait::Applied, Wait::Accepted] {
            let reply = timed("events", app.events(&message, wait)).await;
            problem(&reply, 503);
            assert!(reply.header("retry-after").is_some(), "{reply:?}");
        }
        for reply in [
            timed("user", app.unread("alice", true)).await,
            timed("users", app.unread_many(&["alice", "ghost"])).await,
            timed("room", app.room_unread::<&str>("r", None)).await,
        ] {
            problem(&reply, 503);
            assert!(reply.header("retry-after").is_some(), "{reply:?}");
        }
        for reply in [
            timed("badges", app.imkit_badges::<&str>("alice", None)).await,
            timed("rooms", app.imkit_rooms("alice", &[])).await,
        ] {
            imkit_error(&reply, 503, "SERVICE_UNAVAILABLE");
        }
        for reply in [
            timed("total", app.tencent_total("alice")).await,
            timed("peers", app.tencent_peers("alice", &["bob"])).await,
        ] {
            tencent_error(&reply, 91000);
        }
        let reply = timed("items", app.sendbird("alice", None, None)).await;
        sendbird_error(&reply, 500, 500_901);
    }
    // What needs no Redis is answered as ever.
    problem(&app.events(&json!("x"), Wait::Applied).await, 400);
    assert_eq!(pod.admin_status("/livez"), Some(200));

    redis.restart();
    eventually("service is back", || async {
        let reply = app.events(&message, Wait::Applied).await;
        let result = reply.body["results"][0]["status"].clone();
        match result.as_str() {
            Some("applied" | "duplicate") => Ok(()),
            _ => Err(reply.text),
        }
    })
    .await;
    // Everything from before, and the repeated message once.
    eventually("all counts are back", || async {
        let native = app.unread("alice", false).await;
        let badges = app.imkit_badges::<&str>("alice", None).await;
        let tencent = app.tencent_total("alice").await;
        let sendbird = app.sendbird("alice", None, None).await;
        let found: Value = json!([
            native.body["messages"]["total"],
            badges.body["result"]["totalBadge"],
            tencent.body["AllC2CUnreadMsgNum"],
            sendbird.body["group_channel_unread_message_count"],
        ]);
        if found == json!([2, 2, 0, 2]) {
            Ok(())
        } else {
            Err(found.to_string())
        }
    })
    .await;
    pod.assert_no_secret_logged(&config);
}
