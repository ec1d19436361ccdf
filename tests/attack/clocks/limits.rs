//! A rate limit after a step of Redis' clock: a caller who keeps to it is refused for one burst at most, and the limit holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::*;
use crate::support::check;
use crate::support::clock::{HOUR, MINUTE, SECOND, YEAR, in_words};
use crate::support::servers::Sentinels;
use crate::support::{PATIENCE, RateLimit};

/// Twenty a second, ten at once: after half a second of rest the whole burst is there.
const LIMIT: RateLimit = RateLimit {
    per_second: 20,
    burst: 10,
    scope: "cluster",
};
const BURST: Duration = Duration::from_millis(500);
/// What a loaded machine may take to answer one call.
const SLOW: Duration = Duration::from_secs(1);

fn config() -> Config {
    Config::limited(1, LIMIT)
}

/// Whether a call is let through; nothing when Redis could not say.
async fn call(app: &App) -> Option<bool> {
    let reply = app.sendbird("somebody", None, None).await;
    match (reply.status, reply.body["code"].as_u64()) {
        (429, _) => Some(false),
        (400, Some(400_201)) => Some(true),
        (500, _) => None,
        _ => panic!("neither let through nor refused: {}", reply.text),
    }
}

/// Calls at half the limit's rate, for so long; answers when the last one was refused.
async fn steady(app: &App, time: Duration) -> Option<Duration> {
    let start = Instant::now();
    let mut refused = None;
    while start.elapsed() < time {
        let at = start.elapsed();
        if call(app).await == Some(false) {
            refused = Some(at);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    refused
}

/// Calls far too often, until `enough`; answers how many were let through, how many refused, and how long it took.
async fn hammer(app: &App, enough: impl Fn(u32) -> bool) -> (u32, u32, Duration) {
    let start = Instant::now();
    let (mut through, mut refused) = (0, 0);
    while !enough(refused) && start.elapsed() < PATIENCE {
        match call(app).await {
            Some(true) => through += 1,
            Some(false) => refused += 1,
            None => {}
        }
        // Many times the limit, and not all that the machine can do.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (through, refused, start.elapsed())
}

/// `step` is made while calls come far too often. From then on a caller who keeps to the limit is refused for one burst at
/// most, and one who does not is let through no more often than before.
async fn over(app: &App, step: impl FnOnce()) -> Check {
    let stepped = Arc::new(AtomicBool::new(false));
    let calls = tokio::spawn({
        let (app, stepped) = (app.clone(), Arc::clone(&stepped));
        async move { hammer(&app, |_| stepped.load(Ordering::Relaxed)).await }
    });
    hammer(app, |refused| refused > 3).await;
    tokio::task::block_in_place(step);
    stepped.store(true, Ordering::Relaxed);
    calls.await.unwrap();
    if let Some(at) = steady(app, BURST + SLOW * 2).await
        && at > BURST + SLOW
    {
        return Err(format!("still refused {at:?} after the step"));
    }
    let (through, refused, time) = hammer(app, |refused| refused >= 20).await;
    let allowed = f64::from(LIMIT.burst) + time.as_secs_f64() * f64::from(LIMIT.per_second) + 2.0;
    match f64::from(through) <= allowed && refused >= 20 {
        true => Ok(()),
        false => Err(format!("{through} calls, where {allowed} are allowed")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_step_back_refuses_calls_for_one_burst_at_most() {
    // One Redis for each, all at the same time; the last one's clock was an hour ahead, and is put right.
    let mut steps = tokio::task::JoinSet::new();
    for (from, to) in [(0, -5 * SECOND), (0, -MINUTE), (0, -YEAR), (HOUR, 0)] {
        steps.spawn(async move {
            let (redis, clock) = one_redis();
            clock.set(from);
            let config = config();
            let pod = Pod::start(&config, &redis);
            let app = App::new(&config.apps[0], &pod.base);
            let done = over(&app, || clock.set(to)).await;
            done.map_err(|why| format!("a step of {}: {why}", in_words(to - from)))
        });
    }
    check::all(steps).await;
}

/// The new master's clock is an hour behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failover_refuses_calls_for_one_burst_at_most() {
    let sentinels = Sentinels::start_by_clocks(60_000);
    let master = sentinels.master();
    sentinels.clocks[1 - master].set(-HOUR);
    let config = config();
    let pod = Pod::start_at(&config, &sentinels.url());
    let app = App::new(&config.apps[0], &pod.base);
    over(&app, || sentinels.hand_over()).await.unwrap();
}
