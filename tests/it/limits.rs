//! Rate limits: how many calls get through, and what a refusal looks like in each dialect.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::MissedTickBehavior;

use crate::support::{App, Config, Own, Pod, RateLimit, RedisServer, Reply, until};

const CLUSTER: RateLimit = RateLimit {
    per_second: 200,
    burst: 200,
    scope: "cluster",
};

/// What became of many calls.
struct Tally {
    admitted: usize,
    refused: usize,
    /// From the first call's start to the last one's start and to the end of all.
    offered_for: Duration,
    lasted: Duration,
}

/// Calls Tencent's total at an even pace, pods in turn, without waiting for answers.
async fn offer(app: &App, pods: &[Pod], per_second: u32, count: u32) -> Tally {
    let body = json!({"To_Account": "alice"});
    let requests: Vec<_> = pods
        .iter()
        .map(|pod| app.on(&pod.base).tencent(&body))
        .collect();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
    // Who falls behind catches up: the number of calls offered is what matters.
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = tokio::task::JoinSet::new();
    pace.tick().await;
    let start = Instant::now();
    for n in 0..count as usize {
        let request = requests[n % requests.len()].try_clone().unwrap();
        calls.spawn(App::try_send(request));
        pace.tick().await;
    }
    let offered_for = start.elapsed();
    let (mut admitted, mut refused) = (0, 0);
    for reply in calls.join_all().await {
        let reply = reply.unwrap();
        match reply.body["ErrorCode"].as_i64() {
            Some(0) => admitted += 1,
            Some(60007) => refused += 1,
            _ => panic!(
                "neither admitted nor refused: {} {}",
                reply.status, reply.text
            ),
        }
    }
    Tally {
        admitted,
        refused,
        offered_for,
        lasted: start.elapsed(),
    }
}

/// Three pods on one Redis, and in each app somebody to ask about.
async fn three_pods(config: &Config) -> (RedisServer, Vec<Pod>, Vec<App>) {
    let redis = RedisServer::start();
    let pods: Vec<Pod> = (0..3).map(|_| Pod::start(config, &redis)).collect();
    let apps: Vec<App> = config
        .apps
        .iter()
        .map(|keys| App::new(keys, &pods[0].base))
        .collect();
    for app in &apps {
        app.must(&json!({"type": "user.updated", "user": "alice"}))
            .await;
    }
    (redis, pods, apps)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_cluster_limit_admits_what_it_says_over_three_pods() {
    let (_redis, pods, apps) = three_pods(&Config::limited(1, CLUSTER)).await;
    let tally = offer(&apps[0], &pods, 1000, 10_000).await;
    // What the bucket held and what ran into it. A slow machine only makes this longer, not wrong.
    let until = |time: Duration| 200.0 * time.as_secs_f64() + 200.0;
    let (least, most) = (until(tally.offered_for) * 0.98, until(tally.lasted) * 1.02);
    let admitted = tally.admitted as f64;
    assert!(
        least <= admitted && admitted <= most,
        "admitted {admitted} of {}, expected {least:.0} to {most:.0} in {:?}",
        tally.admitted + tally.refused,
        tally.lasted
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_below_the_limit_is_never_refused() {
    let (_redis, pods, apps) = three_pods(&Config::limited(1, CLUSTER)).await;
    let tally = offer(&apps[0], &pods, 190, 950).await;
    assert_eq!((tally.admitted, tally.refused), (950, 0));
}

/// Far from the limit calls do not wait for their charge; each is charged all the same, and once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_let_through_on_credit_is_charged() {
    const CALLS: u32 = 600;
    let config = Config::limited(
        1,
        RateLimit {
            per_second: 100,
            burst: 100_000,
            scope: "cluster",
        },
    );
    let (redis, pods, apps) = three_pods(&config).await;
    let now = || -> u64 {
        let time = redis.cli(&["TIME"]);
        let parts: Vec<u64> = time.lines().map(|part| part.parse().unwrap()).collect();
        parts[0] * 1_000_000 + parts[1]
    };
    let key = format!("unread:v1:{{{}:limit:tencent-unread}}", config.apps[0].id);
    let before = now();
    let tally = offer(&apps[0], &pods, 2_000, CALLS).await;
    assert_eq!((tally.admitted, tally.refused), (CALLS as usize, 0));
    let after = now();
    // Each call moves the arrival time by 10 ms, from when the first one was charged.
    let shares = u64::from(CALLS) * 10_000;
    let arrival = until("all calls charged", || {
        let arrival: u64 = redis.cli(&["GET", &key]).parse().ok()?;
        (arrival >= before + shares).then_some(arrival)
    });
    assert!(arrival <= after + shares, "charged more than once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_apps_flood_does_not_refuse_another() {
    let (_redis, pods, apps) = three_pods(&Config::limited(2, CLUSTER)).await;
    let (flood, neighbour) = tokio::join!(
        offer(&apps[0], &pods, 1000, 2000),
        offer(&apps[1], &pods, 100, 200)
    );
    assert!(flood.refused > 0);
    assert_eq!((neighbour.admitted, neighbour.refused), (200, 0));
}

/// Calls until refused; every call before has to be answered and to tell of the limit as well.
async fn until_refused<F: Future<Output = Reply>>(
    mut call: impl FnMut() -> F,
    refused: impl Fn(&Reply) -> bool,
) -> Reply {
    for n in 0..1000 {
        let reply = call().await;
        for name in ["ratelimit-policy", "ratelimit"] {
            assert!(
                reply.header(name).is_some(),
                "call {n}: no {name}: {reply:?}"
            );
        }
        if refused(&reply) {
            assert!(n > 0, "the very first call was refused: {reply:?}");
            let after = reply
                .header("retry-after")
                .unwrap_or_else(|| panic!("no Retry-After: {reply:?}"));
            assert!(
                after.parse::<u64>().is_ok_and(|seconds| seconds >= 1),
                "Retry-After: {after}"
            );
            return reply;
        }
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(
            reply.header("retry-after").is_none(),
            "Retry-After without refusal: {reply:?}"
        );
    }
    panic!("never refused");
}

/// Every endpoint of every dialect has a bucket of its own and refuses in its own words.
async fn every_dialect_refuses(scope: &'static str) {
    let config = Config::limited(
        1,
        RateLimit {
            per_second: 1,
            burst: 2,
            scope,
        },
    );
    let (app, _pod, _redis) = Own::with(config).parts();
    app.must(&json!({"type": "user.updated", "user": "alice"}))
        .await;

    let tags: Option<&[&str]> = None;
    for imkit in [
        until_refused(
            || app.imkit_badges("alice", tags),
            |reply| reply.status == 429,
        )
        .await,
        until_refused(
            || app.imkit_rooms("alice", &[]),
            |reply| reply.status == 429,
        )
        .await,
    ] {
        assert_eq!(imkit.body["RC"], 429, "{imkit:?}");
        assert_eq!(
            imkit.body["error"]["code"], "RATE_LIMIT_EXCEEDED",
            "{imkit:?}"
        );
    }
    let tencent = until_refused(
        || app.tencent_total("alice"),
        |reply| reply.body["ErrorCode"] != 0,
    )
    .await;
    assert_eq!(tencent.status, 200, "{tencent:?}");
    assert_eq!(tencent.body["ErrorCode"], 60007, "{tencent:?}");
    assert_eq!(tencent.body["ActionStatus"], "FAIL", "{tencent:?}");
    let sendbird = until_refused(
        || app.sendbird("alice", None, None),
        |reply| reply.status != 200,
    )
    .await;
    assert_eq!(sendbird.status, 429, "{sendbird:?}");
    assert_eq!(
        (&sendbird.body["error"], &sendbird.body["code"]),
        (&json!(true), &json!(500_910)),
        "{sendbird:?}"
    );
    for name in [
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "x-ratelimit-retryafter",
    ] {
        assert!(sendbird.header(name).is_some(), "no {name}: {sendbird:?}");
    }
    // The native API is the app's own back end: never limited.
    for _ in 0..20 {
        app.unread("alice", false).await.ok();
    }
}

#[tokio::test]
async fn a_cluster_limit_refuses_in_every_dialect() {
    every_dialect_refuses("cluster").await;
}

#[tokio::test]
async fn a_pod_limit_refuses_in_every_dialect() {
    every_dialect_refuses("pod").await;
}

/// Redis' clock steps back by an hour, as a failover to a server whose clock is behind does: what is stored lies an hour
/// ahead then, and so does its expiry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_an_hour_back_refuses_for_one_burst_at_most() {
    const HOUR: u64 = 3_600_000_000;
    let (redis, pods, apps) = three_pods(&Config::limited(1, CLUSTER)).await;
    let app = &apps[0];
    let key = format!("unread:v1:{{{}:limit:tencent-unread}}", app.keys.id);
    let time = redis.cli(&["TIME"]);
    let parts: Vec<u64> = time.lines().map(|part| part.parse().unwrap()).collect();
    let ahead = (parts[0] * 1_000_000 + parts[1] + HOUR).to_string();
    assert_eq!(redis.cli(&["SET", &key, &ahead, "PX", "3600000"]), "OK");
    let start = Instant::now();
    for pod in &pods {
        let app = app.on(&pod.base);
        loop {
            let reply = app.tencent_total("alice").await;
            if reply.body["ErrorCode"] == 0 {
                break;
            }
            assert_eq!(reply.body["ErrorCode"], 60007, "{reply:?}");
            // A burst of this limit is a second.
            assert_eq!(reply.header("retry-after"), Some("1"), "{reply:?}");
            let standing = reply.header("ratelimit").unwrap();
            assert!(standing.ends_with(";r=0;t=1"), "{standing}");
            assert!(
                start.elapsed() < Duration::from_secs(1 + 4),
                "refused for longer than a burst"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let expiry: i64 = redis.cli(&["PTTL", &key]).parse().unwrap();
    assert!(expiry <= 2_001, "the key expires in {expiry} ms");
}

/// A garbled key is mended by the next call.
#[tokio::test]
async fn a_garbled_limit_refuses_nobody() {
    let (app, _pod, redis) = Own::with(shared(1.0, "cluster")).parts();
    app.must(&json!({"type": "user.updated", "user": "alice"}))
        .await;
    let key = format!("unread:v1:{{{}:limit:tencent-unread}}", app.keys.id);
    for garbage in [&["SET", &key, "x"][..], &["LPUSH", &key, "x"]] {
        redis.cli(&["DEL", &key]);
        redis.cli(garbage);
        let reply = app.tencent_total("alice").await;
        assert_eq!(reply.body["ErrorCode"], 0, "{garbage:?}: {reply:?}");
        assert_eq!(redis.cli(&["TYPE", &key]), "string");
    }
}

// A user's share.

/// Calls until refused, and answers how many were let through and the refusal.
async fn until_over(app: &App, user: &str) -> (usize, Reply) {
    for n in 0..1_000 {
        let reply = app.imkit_badges::<&str>(user, None).await;
        if reply.status != 200 {
            return (n, reply);
        }
    }
    panic!("never refused");
}

fn shared(share: f64, scope: &'static str) -> Config {
    let mut config = Config::limited(
        1,
        RateLimit {
            per_second: 1,
            burst: 20,
            scope,
        },
    );
    config.apps[0].user_share = share;
    config
}

#[tokio::test]
async fn one_device_uses_up_its_own_share_and_no_more() {
    for scope in ["pod", "cluster"] {
        let (app, pod, _redis) = Own::with(shared(0.25, scope)).parts();
        let (let_through, reply) = until_over(&app, "greedy").await;
        // One more a second, so a slow machine may see some more.
        assert!((5..=9).contains(&let_through), "{let_through}");
        assert_eq!(reply.status, 429, "{reply:?}");
        assert_eq!(reply.body["error"]["code"], "RATE_LIMIT_EXCEEDED");
        assert_eq!(reply.header("retry-after"), Some("1"), "{reply:?}");
        assert_eq!(
            reply.header("ratelimit-policy"),
            Some(r#""imkit-badges";q=1;w=1, "imkit-badges-user";q=1;w=1"#)
        );
        let standing = reply.header("ratelimit").unwrap();
        assert!(
            standing.starts_with(r#""imkit-badges-user";r=0;t="#),
            "{standing}"
        );
        // The rest is the others', on this endpoint and on the other one.
        let modest = app.imkit_badges::<&str>("modest", None).await;
        assert_eq!(modest.status, 200, "{modest:?}");
        let standing = modest.header("ratelimit").unwrap();
        assert!(standing.starts_with(r#""imkit-badges";r="#), "{standing}");
        assert!(
            standing.contains(r#", "imkit-badges-user";r=4;t="#),
            "{standing}"
        );
        assert_eq!(app.imkit_rooms("greedy", &[]).await.status, 200);
        let counted = pod.metric(r#"unread_rate_limited_total{stage="user"}"#);
        assert_eq!(counted, Some(1));
    }
}

#[tokio::test]
async fn a_share_of_one_is_the_whole_limit() {
    let (app, _pod, _redis) = Own::with(shared(1.0, "cluster")).parts();
    let (let_through, reply) = until_over(&app, "only").await;
    assert!(let_through >= 20, "{let_through}");
    let standing = reply.header("ratelimit").unwrap();
    assert!(!standing.contains("user"), "{standing}");
}

/// With a user token: the app itself has no such limit, so what one user asks too often costs nobody else anything.
#[tokio::test]
async fn user_tokens_have_a_limit_of_each_user() {
    for scope in ["pod", "cluster"] {
        let mut config = Config::apps(1);
        config.apps[0].users_rate_limit = RateLimit {
            per_second: 1,
            burst: 5,
            scope,
        };
        let (app, pod, _redis) = Own::with(config).parts();
        app.must(&json!([
            {"type": "user.updated", "user": "greedy"},
            {"type": "user.updated", "user": "modest"},
        ]))
        .await;
        let mut let_through = 0;
        let refused = loop {
            let reply = App::send(app.me("", "greedy")).await;
            if reply.status != 200 {
                break reply;
            }
            let standing = reply.header("ratelimit").unwrap();
            assert!(
                standing.starts_with(r#""native-me-unread";r="#),
                "{standing}"
            );
            let_through += 1;
        };
        // One more a second, so a slow machine may see some more.
        assert!((5..=9).contains(&let_through), "{let_through}");
        assert_eq!(refused.status, 429, "{refused:?}");
        assert_eq!(refused.body["status"], 429);
        let header = |name: &str| refused.header(name);
        assert_eq!(header("content-type"), Some("application/problem+json"));
        assert_eq!(header("retry-after"), Some("1"), "{refused:?}");
        assert_eq!(
            header("ratelimit-policy"),
            Some(r#""native-me-unread";q=1;w=1"#)
        );
        // A page may read why.
        assert_eq!(header("access-control-allow-origin"), Some("*"));
        let exposed = header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("Retry-After"), "{exposed}");
        assert_eq!(App::send(app.me("", "modest")).await.status, 200);
        // What the app's back end asks about the same user is not counted.
        assert_eq!(app.unread("greedy", false).await.status, 200);
        let counted = pod.metric(r#"unread_rate_limited_total{stage="user"}"#);
        assert_eq!(counted, Some(1));
    }
}

/// A device that spreads its calls over pods has one share all the same: pods that have spent nothing of it hear of it
/// through Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_hold_a_user_to_one_share_together() {
    let mut config = Config::limited(
        1,
        RateLimit {
            per_second: 10,
            burst: 200,
            scope: "cluster",
        },
    );
    config.apps[0].user_share = 0.5;
    let (redis, pods, apps) = three_pods(&config).await;
    let greedy: Vec<App> = pods.iter().map(|pod| apps[0].on(&pod.base)).collect();
    // Twelve in each pod are not told to the others, and what comes until a report is through.
    let mut let_through = 0;
    let mut refused = [false; 3];
    let start = Instant::now();
    'all: loop {
        for (pod, app) in greedy.iter().enumerate() {
            let reply = app.imkit_badges::<&str>("greedy", None).await;
            match reply.status {
                200 => let_through += 1,
                429 => refused[pod] = true,
                _ => panic!("{reply:?}"),
            }
            // A device's pace, at which the pods' reports get through.
            tokio::time::sleep(Duration::from_millis(5)).await;
            if refused.iter().all(|refused| *refused) {
                break 'all;
            }
        }
    }
    // 100 at once and five a second; by the pods' own counts alone it would be 200, all that the app may.
    let share = 100 + 5 * start.elapsed().as_secs() as usize;
    assert!(
        let_through >= 90 && let_through <= share + 60,
        "{let_through} of a share of {share}"
    );
    let key = format!(
        "unread:v1:{{{}:limit:imkit-badges:greedy}}",
        apps[0].keys.id
    );
    let expiry: i64 = redis.cli(&["PTTL", &key]).parse().unwrap();
    assert!(expiry > 0, "the user's key expires in {expiry} ms");
    let modest = greedy[0].imkit_badges::<&str>("modest", None).await;
    assert_eq!(modest.status, 200, "{modest:?}");
}
