//! Streams of counts on two pods while something goes wrong. Every other storm has watchers too; these are about what makes them
//! wait: nobody says that something has changed, or the pod is gone that would have.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::proxy::Proxy;
use crate::report;
use crate::storm::{Seen, config, set_up, storm, storm_on};
use crate::support::servers::Cluster;
use crate::support::traffic::everybody;
use crate::support::watchers::{PROMISE, Watchers, change};
use crate::support::{App, Config, Pod, RedisServer, eventually, until};

/// Two pods, and an app of theirs with the rooms of a storm.
async fn pair(config: &Config, url: &str) -> ([Pod; 2], App) {
    let pods = [(); 2].map(|()| Pod::start_at(config, url));
    let app = App::new(&config.apps[0], &pods[0].base);
    set_up(&app).await;
    (pods, app)
}

/// A storm at two pods of one Redis.
async fn over(
    redis: RedisServer,
    seed: u64,
    fault: &str,
    injected: &str,
    inject: impl FnOnce(&mut RedisServer, &Seen) + Send + 'static,
) {
    let (pods, app) = pair(&config(""), &redis.url()).await;
    let bases = pods.each_ref().map(|pod| pod.base.clone()).into();
    let (after, _redis) = storm_on(redis, &app, bases, seed, inject).await;
    after.nothing_lost().await;
    after.report(fault, injected, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_are_told_all_after_redis_was_killed() {
    let redis = RedisServer::start_durable();
    let (fault, injected) = (
        "watched: Redis `kill -9`, `appendfsync always`",
        "twice under load at two pods, restarted",
    );
    over(redis, 60, fault, injected, |redis, seen| {
        for _ in 0..2 {
            redis.kill9();
            seen.refused_more(20);
            redis.restart();
            seen.acknowledged_more(60);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_are_told_all_after_their_subscriptions_were_killed() {
    let (fault, injected) = (
        "watched: `CLIENT KILL TYPE pubsub`",
        "under load at two pods, until 10 were killed",
    );
    over(RedisServer::start(), 61, fault, injected, |redis, seen| {
        // A pod that loses one again and again waits for up to a second.
        let mut killed = 0;
        until("ten subscriptions are killed", || {
            let answer = redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            killed += answer.parse::<u64>().unwrap();
            seen.acknowledged_more(10);
            (killed >= 10).then_some(())
        });
    })
    .await;
}

/// Nothing is heard of what changes, during the storm and after it, and nobody knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_are_told_in_time_of_what_nobody_hears() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let (pods, app) = pair(&config(""), &proxy.url()).await;
    let bases = pods.each_ref().map(|pod| pod.base.clone()).into();
    let (after, proxy) = storm(&app, bases, 62, move |seen| {
        seen.acknowledged_more(50);
        proxy.loses_notices(true);
        // Longer than a user is read every second because somebody has just begun to watch.
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            seen.acknowledged_more(20);
        }
        proxy
    })
    .await;
    after.all_counted_and_told().await;
    let notices = || {
        pods.each_ref()
            .map(|pod| pod.metric::<u64>("unread_live_notices_total"))
    };
    let before = notices();
    after.change().await;
    after.all_told().await;
    assert_eq!(notices(), before);
    proxy.loses_notices(false);
    after.changes_are_heard().await;
    after.report(
        "watched: notices lost",
        "all of them at two pods, under load and at the change after it",
        0,
    );
}

/// How many streams a pod has.
fn streams(pod: &Pod) -> u64 {
    pod.metric("unread_live_streams").unwrap()
}

/// A pod is drained while messages come. Its clients come to the other pod one by one, and each of them is told everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_a_drained_pod_come_to_the_other_one_by_one() {
    const STREAMS: usize = 100;
    const GRACE: u64 = 8;
    let redis = RedisServer::start();
    let mut config = config("");
    config.server += &format!("grace_seconds = {GRACE}\n");
    let ([mut drained, stays], app) = pair(&config, &redis.url()).await;
    let app = app.on(&stays.base);
    let addresses = Arc::new(Mutex::new(vec![drained.base.clone()]));
    let users = (0..STREAMS).map(|n| vec![format!("user {}", n % 10)]);
    let watchers = Watchers::many(&app, &addresses, users.collect());
    watchers.agree(&app, PROMISE).await;
    assert_eq!((streams(&drained), streams(&stays)), (100, 0));

    *addresses.lock().unwrap() = vec![stays.base.clone()];
    let start = Instant::now();
    drained.ask_to_end();
    let mut sent = 0;
    eventually("all streams are at the other pod", || {
        sent += 1;
        let event = change(sent);
        let (app, streams) = (&app, streams(&stays));
        async move {
            app.must(&event).await;
            let all = streams == STREAMS as u64;
            all.then_some(()).ok_or_else(|| format!("{streams}"))
        }
    })
    .await;
    let told = watchers.agree(&app, PROMISE).await;
    app.must(&change(0)).await;
    let heard = watchers.hear(&app).await;
    assert_eq!(drained.ended(), Some(0));

    let came = watchers.opened(&stays.base);
    let mut came: Vec<Duration> = came.iter().map(|at| at.unwrap() - start).collect();
    came.sort();
    let most = came.iter().map(|from| {
        came.iter()
            .filter(|at| **at >= *from && **at < *from + Duration::from_secs(1))
    });
    let most = most.map(Iterator::count).max().unwrap();
    // Evenly it would be 14 in a second.
    assert!(most <= 35, "{most} came within a second: {came:?}");
    let (first, last) = (came[0], came[STREAMS - 1]);
    let spread = last - first;
    assert!(
        spread > Duration::from_secs(GRACE / 2),
        "{first:?} {last:?}"
    );
    let injected = format!(
        "a pod with {STREAMS} streams, {GRACE} s; they came over {:.1} s, {most} in a second at most",
        spread.as_secs_f64()
    );
    report::told("watched: drain", &injected, told, heard);
}

/// A pod is killed with its streams, again and again. Their clients come to the other one with the stamps that they have, and are told
/// what they don't know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_a_killed_pod_come_to_the_other_and_miss_nothing() {
    const KILLS: usize = 4;
    let redis = RedisServer::start();
    let config = config("");
    let (pods, app) = pair(&config, &redis.url()).await;
    let bases = pods.each_ref().map(|pod| pod.base.clone()).into();
    let url = redis.url();
    let (after, mut pods) = storm(&app, bases, 63, move |seen| {
        let mut pods = pods;
        for kill in 0..KILLS {
            let (victim, other) = (kill % 2, 1 - kill % 2);
            seen.acknowledged_more(50);
            pods[victim].kill9();
            until("all streams are at the other pod", || {
                (streams(&pods[other]) >= 2).then_some(())
            });
            seen.acknowledged_more(50);
            pods[victim] = Pod::start_at(&config, &url);
            seen.addresses.lock().unwrap()[victim].clone_from(&pods[victim].base);
        }
        pods
    })
    .await;
    after.nothing_lost().await;
    // What changes while they are nowhere, and nothing after that.
    let [dies, stays] = pods.each_ref().map(|pod| pod.base.clone());
    assert_eq!(streams(&pods[0]), 2);
    *after.seen.addresses.lock().unwrap() = vec![dies];
    pods[0].kill9();
    app.on(&stays).must(&change(0)).await;
    *after.seen.addresses.lock().unwrap() = vec![stays];
    after.all_told().await;
    after.report(
        "watched: pod `SIGKILL`",
        &format!("{KILLS} times, one of two pods with its streams"),
        0,
    );
}

/// A server that has given a slot away refuses to be told that nobody listens there any more. Who went on waiting for its answer took
/// the next time at which it gave the slot away for that answer, and heard nothing from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_goes_and_comes_back_is_heard() {
    let cluster = Cluster::start(15_000);
    let (pods, app) = pair(&config(""), &cluster.url()).await;
    let bases = pods.each_ref().map(|pod| pod.base.as_str());
    let watchers = Watchers::start(&app, &bases, &everybody());
    let tag = format!("unread:v1:{{{}:u:user%201}}", app.keys.id);
    let (slot, channel) = (cluster.slot(&tag), format!("{tag}:live"));
    let home = cluster.owner(slot, 0);
    let other = (home + 1) % 3;
    let both_hear = |node: usize| {
        until("both pods hear the user there", || {
            let answer = cluster.nodes[node].cli(&["PUBSUB", "SHARDNUMSUB", &channel]);
            answer.ends_with("\n2").then_some(())
        });
    };
    both_hear(home);
    for (from, to) in [(home, other), (other, home)] {
        cluster.move_slot(slot, from, to);
        both_hear(to);
    }
    // Away and back before anybody knows.
    cluster.move_slot(slot, home, other);
    cluster.move_slot(slot, other, home);
    both_hear(home);
    app.must(&change(0)).await;
    watchers.hear(&app).await;
}
