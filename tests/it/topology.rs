//! The same on a cluster, behind sentinels and over TLS; slots move, masters freeze and die.

use crate::scenarios::{failovers, freeze_a_master, histories, replicas_take_over, slots_move};
use crate::servers::{Cluster, Sentinels, TlsServer};
use crate::support::{Config, RedisServer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_on_one_server() {
    let redis = RedisServer::start();
    histories(&mut Config::apps(0), &redis.url(), 301..303, 250).await;
}

/// Every script declares every key: a cluster would refuse it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_on_a_cluster() {
    let cluster = Cluster::start(15_000);
    histories(&mut Config::apps(0), &cluster.url(), 311..313, 250).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_behind_sentinels() {
    let sentinels = Sentinels::start();
    histories(&mut Config::apps(0), &sentinels.url(), 321..323, 250).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_over_tls_with_the_least_rights() {
    let tls = TlsServer::start();
    let mut config = Config::apps(0);
    config.redis = tls.settings();
    histories(&mut config, &tls.url(), 331..333, 250).await;
    // Nothing was tried that these rights do not cover.
    assert_eq!(tls.server.cli(&["ACL", "LOG"]), "");
}

/// Slots go from master to master and back, key by key, while events flow.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slots_move_while_events_flow() {
    slots_move(60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_takes_over_from_a_killed_master() {
    replicas_take_over(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failover_is_followed_and_the_old_master_left_alone() {
    failovers(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_frozen_master_holds_up_only_those_who_need_it() {
    freeze_a_master().await;
}
