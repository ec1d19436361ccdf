//! The same on a cluster, behind sentinels and over TLS; slots move, masters freeze and die.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::random::History;
use crate::servers::{Cluster, Sentinels, TlsServer};
use crate::support::{App, Config, PATIENCE, Pod, RedisServer, Reply, Wait, eventually, until};
use crate::traffic::{self, Answered, Writer};

/// How long a caller may be left without an answer, whatever Redis does.
const ANSWER: Duration = Duration::from_secs(8);

// ---------------------------------------------------------------------------------------------------------- histories

/// Random histories, step by step against the model, wherever the counts are.
async fn histories(config: &mut Config, url: &str, seeds: std::ops::Range<u64>, steps: u64) {
    *config = Config {
        redis: config.redis.clone(),
        ..Config::apps(seeds.clone().count())
    };
    let pod = Pod::start_at(config, url);
    let mut tasks = tokio::task::JoinSet::new();
    for (seed, keys) in seeds.zip(&config.apps) {
        let app = App::new(keys, &pod.base);
        tasks.spawn(async move {
            let mut history = History::new(app, seed);
            history
                .run(steps, false)
                .await
                .map_err(|reason| format!("seed {seed}: {reason}"))
        });
    }
    for outcome in tasks.join_all().await {
        outcome.unwrap();
    }
    pod.assert_no_secret_logged(config);
}

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
