//! The tests of this binary.

use crate::support::Config;
use crate::support::scenarios::{failovers, histories, replicas_take_over, slots_move};
use crate::support::servers::{Cluster, Sentinels};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_histories_agree_with_the_model_on_a_cluster() {
    let cluster = Cluster::start(15_000);
    histories(&mut Config::apps(0), &cluster.url(), 401..405, 500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_histories_agree_with_the_model_behind_sentinels() {
    let sentinels = Sentinels::start(20_000);
    histories(&mut Config::apps(0), &sentinels.url(), 411..415, 500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_many_slots_move() {
    slots_move(500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_one_master_after_the_other_is_killed() {
    replicas_take_over(5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_failover_after_the_other_is_followed() {
    failovers(3).await;
}
