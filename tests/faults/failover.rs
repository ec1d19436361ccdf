//! The master dies and a replica takes over: what was acknowledged is there with `durability = "wait"`, and what is lost
//! without it is counted.

use crate::proxy::Proxy;
use crate::storm::{Scene, config, storm};
use crate::support::RedisServer;

const WAIT: &str = "durability = \"wait\"\ndurability_replicas = 1\ndurability_timeout_ms = 500\n";

/// How the master goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Death {
    /// In the middle of it all.
    Sudden,
    /// Some time after nothing has reached its replica any more.
    CutOff,
}

async fn failover(seed: u64, death: Death, wait: bool) {
    let mut master = RedisServer::start();
    let link = Proxy::start(master.address());
    let replica = RedisServer::start_with(&[
        "--appendonly",
        "no",
        "--replicaof",
        "127.0.0.1",
        &link.port().to_string(),
    ]);
    replica.in_step();
    let Scene {
        pod, app, proxy, ..
    } = Scene::new(&master, config(if wait { WAIT } else { "" })).await;
    let (after, _kept) = storm(&app, vec![pod.base.clone()], seed, move |seen| {
        seen.acknowledged_more(200);
        if !wait {
            seen.may_lose();
        }
        if death == Death::CutOff {
            link.refuse();
            if wait {
                seen.refused_more(10);
            } else {
                seen.acknowledged_more(200);
            }
        }
        master.kill9();
        seen.refused_more(10);
        assert_eq!(replica.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
        // With `wait` the new master needs a replica of its own before anything can be safe again.
        let next = replica.replica();
        proxy.point_at(replica.address());
        (replica, next, link, proxy)
    })
    .await;
    let lost = if wait {
        after.nothing_lost().await;
        0
    } else {
        after.lost().await
    };
    if death == Death::CutOff && !wait {
        assert_ne!(lost, 0, "nothing was lost that no replica had");
    }
    let how = match death {
        Death::Sudden => "master `kill -9`, replica promoted",
        Death::CutOff => "replica cut off, then master `kill -9`, replica promoted",
    };
    let durability = if wait { "wait" } else { "none" };
    after.report(&format!("failover, durability `{durability}`"), how, lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_wait_a_sudden_failover_loses_nothing() {
    failover(40, Death::Sudden, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_wait_a_failover_to_a_replica_that_is_behind_loses_nothing() {
    failover(41, Death::CutOff, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_wait_a_sudden_failover_is_right_after_all_is_sent_again() {
    failover(42, Death::Sudden, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_wait_a_failover_to_a_replica_that_is_behind_loses_something() {
    failover(43, Death::CutOff, false).await;
}
