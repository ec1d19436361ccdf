//! The same on a cluster, behind sentinels and over TLS; slots move, masters freeze and die.

use std::collections::BTreeSet;

use crate::support::scenarios::{
    failovers, freeze_a_master, histories, replicas_take_over, slots_move,
};
use crate::support::servers::{Cluster, RIGHTS, Sentinels, TlsServer};
use crate::support::{Config, RedisServer, assert_no_drift, run_unread};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_agree_with_the_model_on_one_server() {
    let redis = RedisServer::start();
    histories(&mut Config::apps(0), &redis.url(), 301..303, 250).await;
}

/// Every script declares every key: a cluster would refuse it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_agree_with_the_model_on_a_cluster() {
    let cluster = Cluster::start(15_000);
    histories(&mut Config::apps(0), &cluster.url(), 311..313, 250).await;
    cluster.rights_were_enough();
}

/// An operator's commands look at every node, and repair what lies on any of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_self_check_finds_and_repairs_on_every_node() {
    let cluster = Cluster::start(15_000);
    let url = cluster.operators_url();
    histories(&mut Config::apps(0), &url, 351..352, 200).await;
    assert_no_drift(&url, "app-0");
    let users = ["alice", "b%7Bob%7D", "e%2Ff%20g%2F%2Fh", "用户%3A七%2B8"];
    for user in users {
        let key = format!("unread:v1:{{app-0:u:{user}}}:counts");
        let command = ["-c", "HINCRBY", &key, "messages:group", "7"];
        assert_ne!(cluster.nodes[0].cli(&command), "");
    }
    let of = ["--redis-url", url.as_str(), "--app", "app-0"];
    assert_eq!(run_unread(&[&["verify"], &of[..]].concat()).code, 1);
    assert_eq!(run_unread(&[&["rebuild"], &of[..]].concat()).code, 0);
    let answer = run_unread(&[&["verify", "--json"], &of[..]].concat());
    assert_eq!(
        (answer.code, &answer.json()["drift"]),
        (0, &serde_json::json!([]))
    );
    let memory = run_unread(&[&["inspect", "--memory", "--json"], &of[..]].concat());
    assert_eq!(memory.code, 0, "{memory:?}");
    let weighed = memory.json();
    assert!(weighed["users"].as_u64() > Some(3), "{weighed}");
    assert!(weighed["bytes_per_pair"].as_f64() > Some(20.0), "{weighed}");
    // What can't be read is named on every node, hides nothing on the others, and is mended there.
    let mut keys: Vec<String> = users
        .iter()
        .zip(["counts", "refs", "counts", "refs"])
        .map(|(user, what)| format!("unread:v1:{{app-0:u:{user}}}:{what}"))
        .collect();
    keys.extend((0..6).map(|n| format!("unread:v1:{{app-0:x:{n}}}:nothing")));
    for key in &keys {
        cluster.nodes[0].cli(&["-c", "DEL", key]);
        assert_eq!(cluster.nodes[0].cli(&["-c", "SET", key, "poison"]), "OK");
    }
    let answer = run_unread(&[&["verify", "--json"], &of[..]].concat());
    assert_eq!(answer.code, 1, "{answer:?}");
    let result = answer.json();
    let named = result["unreadable"].as_array().unwrap().iter();
    let named: BTreeSet<&str> = named.filter_map(|row| row["key"].as_str()).collect();
    assert_eq!(named, keys.iter().map(String::as_str).collect());
    assert_eq!(result["drift"], serde_json::json!([]));
    let answer = run_unread(&[&["rebuild", "--mend"], &of[..]].concat());
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_no_drift(&url, "app-0");
    let doctor = run_unread(&["doctor", "--redis-url", &url]);
    let looked_at = doctor.stdout.matches("ok    cluster [").count();
    assert_eq!(looked_at, 3, "{doctor:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_agree_with_the_model_behind_sentinels() {
    // Nothing is to fail here, however slow the machine is.
    let sentinels = Sentinels::start(20_000);
    histories(&mut Config::apps(0), &sentinels.url(), 321..323, 250).await;
    sentinels.rights_were_enough();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_agree_with_the_model_on_a_cluster_over_tls() {
    let cluster = Cluster::start_tls(15_000);
    let mut config = Config::apps(0);
    config.redis = cluster.settings();
    histories(&mut config, &cluster.url(), 341..342, 250).await;
    cluster.rights_were_enough();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_agree_with_the_model_over_tls_with_the_least_rights() {
    let tls = TlsServer::start();
    let mut config = Config::apps(0);
    config.redis = tls.settings();
    histories(&mut config, &tls.url(), 331..333, 250).await;
    tls.rights_were_enough();
}

/// Slots go from master to master and back, key by key, while events flow.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_slots_move() {
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
    freeze_a_master("unread:v1:{app-0:u:user%200}:counts").await;
}

/// Neither that readiness looks there first, nor that the limits of an endpoint are there, makes a master needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_frozen_master_that_has_the_first_index_or_a_limit_is_not_needed() {
    freeze_a_master("unread:v1:{pending:0}").await;
    freeze_a_master("unread:v1:{app-0:limit:tencent-unread}").await;
}

/// The rights are those of the commands that the scripts use and that the program sends itself, and no others.
#[test]
fn no_right_is_missing_or_given_for_nothing() {
    let mut used: BTreeSet<String> = BTreeSet::new();
    let files = |folder: &str| {
        let folder = format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(folder).unwrap();
        files.map(|file| file.unwrap().path())
    };
    let scripts = files("lua").chain(files("lua/lib"));
    for file in scripts.filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(file).unwrap();
        let text = text.replace("redis.pcall('", "call('");
        // Also of a script that has a short name for it.
        for call in text.split("call('").skip(1) {
            used.insert(call.split('\'').next().unwrap().to_lowercase());
        }
    }
    // Reads of its own, scripts, the look at the version, the pool's checks, and what finds a master or a node.
    let own = "hmget hget hexists hscan get scan zrange zmscore set wait ssubscribe sunsubscribe eval evalsha script|load info ping unwatch role asking";
    used.extend(own.split(' ').map(str::to_owned));
    used.insert("cluster|slots".to_owned());
    let given: BTreeSet<String> = RIGHTS
        .split_whitespace()
        .filter_map(|right| right.strip_prefix('+'))
        .map(str::to_owned)
        .collect();
    assert_eq!(given, used);
}
