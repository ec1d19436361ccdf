//! Far more callers than can be served: Redis is frozen and five hundred ask in every dialect at once.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::report::{self, Row};
use crate::storm::config;
use crate::support::check;
use crate::support::refusal::{imkit_refusal, native_refusal, sendbird_refusal, tencent_refusal};
use crate::support::traffic::{self, Answered};
use crate::support::{Own, PATIENCE, Reply, Wait, eventually};

/// Two steps of 2 s at most; the rest is this process getting round to 2,500 connections.
const SOON: Duration = Duration::from_secs(10);
const CALLERS: usize = 500;
/// More memory than that for 2,500 callers would mean that something piles up.
const MEMORY: u64 = 150 << 20;

/// All callers of one dialect at once; every one of them is refused in time and told when to come back.
async fn refused<F: Future<Output = Reply>>(
    call: impl Fn(usize) -> F,
    refusal: fn(&Reply) -> check::Check,
) -> Duration {
    let calls = (0..CALLERS).map(|n| {
        let (start, call) = (Instant::now(), call(n));
        async move { (call.await, start.elapsed()) }
    });
    let replies = join_all(calls).await;
    let mut slowest = Duration::ZERO;
    for (reply, time) in replies {
        refusal(&reply).unwrap();
        let later = reply.header("retry-after").is_some();
        assert!(later, "not told when to come back: {reply:?}");
        assert!(time < SOON, "refused after {time:?}: {reply:?}");
        slowest = slowest.max(time);
    }
    slowest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn five_hundred_callers_of_each_dialect_are_refused_in_time_while_redis_is_frozen() {
    let (app, pod, redis) = Own::with(config("")).parts();
    app.must(&traffic::setup()).await;
    let answered = Answered::default();
    let before = pod.memory();

    redis.freeze();
    let mut slowest = Duration::ZERO;
    let mut most = before;
    let mut recovery = None;
    let user = "user 1";
    let tags: Option<&[&str]> = None;
    let message = |n: usize| {
        json!([{"type": "message.sent", "room": "group a", "sender": user, "id": format!("m{n}"), "text": "hello",
            "time": 1_700_000_000_000_i64 + n as i64, "mark_read": false}])
    };
    let (app, message) = (&app, &message);
    for _ in 0..3 {
        let five = tokio::join!(
            refused(
                |n| async move { app.events(&message(n), Wait::Applied).await },
                native_refusal
            ),
            refused(|_| app.unread(user, true), native_refusal),
            refused(|_| app.imkit_badges(user, tags), imkit_refusal),
            refused(|_| app.tencent_total(user), tencent_refusal),
            refused(|_| app.sendbird(user, None, None), sendbird_refusal),
        );
        for time in [five.0, five.1, five.2, five.3, five.4] {
            slowest = slowest.max(time);
        }
        most = most.max(pod.memory());
    }
    redis.thaw();

    // Whatever of it was taken or not: sent again it counts once, and the pod is as it was before.
    let thawed = Instant::now();
    let mut refused = 0;
    for n in 0..CALLERS {
        loop {
            let reply = app.events(&message(n), Wait::Applied).await;
            if reply.status == 200 {
                answered.record(&message(n), &reply);
                break;
            }
            native_refusal(&reply).unwrap();
            refused += 1;
            assert!(thawed.elapsed() < PATIENCE, "still refused: {reply:?}");
        }
        recovery.get_or_insert_with(|| thawed.elapsed());
    }
    let model = answered.model();
    eventually("all right after the thaw", || traffic::compare(app, &model)).await;
    let grown = most.saturating_sub(before);
    assert!(grown < MEMORY, "grown by {} MB", grown >> 20);
    report::fault(Row {
        fault: "overload".to_owned(),
        injected: format!(
            "Redis `SIGSTOP`, {CALLERS} callers of each dialect at once, 3 times; the pod grew by {} MB",
            grown >> 20
        ),
        requests: 3 * 5 * CALLERS + CALLERS + refused,
        refused: 3 * 5 * CALLERS + refused,
        acknowledged: answered.count(),
        lost: 0,
        slowest,
        recovery: recovery.unwrap_or_default(),
    });
}
