//! Random histories with watchers on every user, on two pods: at every quiet moment what was sent last is what is read, which is what
//! the model says. Whatever goes wrong beneath is made good within fifteen seconds.

use serde_json::json;

use super::{group, message};
use crate::support::history::{History, setting};
use crate::support::servers::{Cluster, Sentinels};
use crate::support::watchers::{PROMISE, Watchers};
use crate::support::{App, Config, Pod, RedisServer, eventually, until};

/// Two pods and an app of theirs.
fn pods(config: &Config, url: &str) -> ([Pod; 2], App) {
    let pods = [(); 2].map(|()| Pod::start_at(config, url));
    let app = App::new(&config.apps[0], &pods[0].base);
    (pods, app)
}

async fn history(url: &str, seed: u64, by_time: bool) {
    let config = Config::apps(1);
    let (pods, app) = pods(&config, url);
    let mut history = match by_time {
        true => History::by_time(app.clone(), seed),
        false => History::new(app.clone(), seed),
    };
    let bases = [pods[0].base.as_str(), pods[1].base.as_str()];
    let watchers = Watchers::start(&app, &bases, history.everybody());
    let steps = setting("TEST_STEPS").unwrap_or(240);
    for step in 1..=steps / 40 {
        history
            .run(step * 40, false)
            .await
            .unwrap_or_else(|reason| panic!("TEST_SEED={seed}: {reason}"));
        let took = watchers.agree(&app, PROMISE).await;
        println!(
            "seed {seed}, {} events: all told {took:?} later",
            history.events()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_on_two_pods_are_told_what_is_read() {
    for (seed, by_time) in [(901, false), (902, true)] {
        let redis = RedisServer::start();
        history(&redis.url(), seed, by_time).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_of_a_cluster_are_told_what_is_read() {
    let cluster = Cluster::start(15_000);
    history(&cluster.url(), 903, false).await;
    cluster.rights_were_enough();
}

/// Users of a group, and their watchers on two pods.
async fn watched(app: &App, pods: &[Pod; 2], count: usize) -> Watchers {
    let users: Vec<String> = (0..count).map(|n| format!("user {n}")).collect();
    let names: Vec<&str> = users.iter().map(String::as_str).collect();
    app.must(&group("r", &names)).await;
    app.must(&json!([
        {"type": "room.updated", "room": "super", "kind": "supergroup"},
        {"type": "member.joined", "room": "super", "users": users},
    ]))
    .await;
    let bases = [pods[0].base.as_str(), pods[1].base.as_str()];
    let watchers = Watchers::start(app, &bases, &users);
    watchers.agree(app, PROMISE).await;
    watchers
}

/// A message to the group and one to the supergroup, sent until they are taken.
async fn messages(app: &App, id: &str) {
    let events = json!([message("r", "user 0", id), message("super", "user 0", id)]);
    eventually("the messages are taken", || async {
        let reply = app.try_events(&events, crate::support::Wait::Applied).await;
        match reply {
            Ok(reply) if reply.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_redis_loses_is_made_good() {
    let mut redis = RedisServer::start_durable();
    let config = Config::apps(1);
    let (pods, app) = pods(&config, &redis.url());
    let watchers = watched(&app, &pods, 8).await;
    messages(&app, "quiet").await;
    watchers.agree(&app, PROMISE).await;

    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    messages(&app, "killed connections").await;
    watchers.agree(&app, PROMISE).await;

    redis.kill9();
    redis.restart();
    messages(&app, "a restart").await;
    watchers.agree(&app, PROMISE).await;

    // The marks are gone, so nobody is told.
    for n in 0..8 {
        let key = format!("unread:v1:{{{}:u:user%20{n}}}:counts", app.keys.id);
        redis.cli(&["HDEL", &key, "live"]);
    }
    redis.cli(&[
        "HDEL",
        &format!("unread:v1:{{{}:r:super}}:meta", app.keys.id),
        "live",
    ]);
    messages(&app, "lost marks").await;
    watchers.agree(&app, PROMISE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_follow_a_failover() {
    let mut sentinels = Sentinels::start(4_000);
    let config = Config::apps(1);
    let (pods, app) = pods(&config, &sentinels.url());
    let watchers = watched(&app, &pods, 8).await;
    sentinels.replicated();
    let old = sentinels.master();
    sentinels.servers[old].kill9();
    messages(&app, "after a death").await;
    watchers.agree(&app, PROMISE).await;
    sentinels.agree_on(1 - old);
    sentinels.servers[old].restart();
    until("the old master is told to follow", || {
        (sentinels.servers[old].info("role")? == "slave").then_some(())
    });
    messages(&app, "later").await;
    watchers.agree(&app, PROMISE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_follow_slots_that_move() {
    let cluster = Cluster::start(15_000);
    let config = Config::apps(1);
    let (pods, app) = pods(&config, &cluster.url());
    let watchers = watched(&app, &pods, 8).await;
    let user = |n: usize| format!("unread:v1:{{{}:u:user%20{n}}}:counts", app.keys.id);
    let room = format!("unread:v1:{{{}:r:super}}:meta", app.keys.id);
    for (round, key) in [user(1), user(2), room, user(1)].iter().enumerate() {
        let slot = cluster.slot(key);
        let from = cluster.owner(slot, 0);
        cluster.move_slot(slot, from, (from + 1) % 3);
        messages(&app, &format!("{round}")).await;
        watchers.agree(&app, PROMISE).await;
    }
    cluster.rights_were_enough();
}
