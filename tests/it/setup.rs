//! What a pod says of a Redis that is not set up as it should be: once, in the log, while it serves.

use serde_json::{Value, json};

use crate::support::servers::{Cluster, Sentinels};
use crate::support::{App, Config, Pod, RedisServer, until};

/// The warnings about Redis so far: the check and what was found.
fn warned(pod: &Pod) -> Vec<(String, String)> {
    let lines = pod.log().into_iter();
    let warnings = lines.filter_map(|line| {
        let line: Value = serde_json::from_str(&line).ok()?;
        (line["message"] == "redis should be set up otherwise").then_some(line)
    });
    warnings
        .map(|line| {
            assert_eq!(line["level"], "WARN", "{line}");
            let advice = line["advice"].as_str().unwrap_or_default();
            assert!(!advice.is_empty(), "{line}");
            let text = |field: &str| line[field].as_str().unwrap().to_owned();
            (text("check"), text("found"))
        })
        .collect()
}

fn of<'a>(warned: &'a [(String, String)], check: &str) -> Vec<&'a str> {
    let same = warned.iter().filter(|(name, _)| name == check);
    same.map(|(_, found)| found.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_finding_is_one_warning_when_a_server_first_answers() {
    const SECRET: &str = "a-password-of-24-letters";
    let mut redis = RedisServer::start_in(
        tempfile::tempdir().unwrap(),
        Some(("default".to_owned(), SECRET.to_owned())),
        &[
            "--appendonly",
            "no",
            "--maxmemory",
            "1gb",
            "--maxmemory-policy",
            "allkeys-lru",
            "--requirepass",
            SECRET,
        ],
    );
    let url = format!("redis://:{SECRET}@127.0.0.1:{}", redis.port);
    let config = Config::apps(1);
    let pod = Pod::start_at(&config, &url);
    until("the first warnings", || {
        (!of(&warned(&pod), "maxmemory-policy").is_empty()).then_some(())
    });
    let first = until("all warnings of the first server", || {
        let first = warned(&pod);
        (!of(&first, "hash encoding").is_empty()).then_some(first)
    });
    assert_eq!(of(&first, "maxmemory-policy"), ["allkeys-lru"]);
    assert_eq!(of(&first, "persistence"), ["none"]);

    // It serves, and says nothing twice.
    let app = App::new(&config.apps[0], &pod.base);
    app.must(&json!({"type": "user.updated", "user": "alice"}))
        .await;
    redis.restart();
    let second = until("the warnings of the next server", || {
        let all = warned(&pod);
        let of_second = all.get(first.len()..).unwrap_or_default().to_vec();
        (!of(&of_second, "hash encoding").is_empty()).then_some(of_second)
    });
    assert_eq!(second, first);
    assert!(!pod.log().join("\n").contains(SECRET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_set_up_well_is_not_warned_of() {
    let mut redis = RedisServer::start_with(&[
        "--appendonly",
        "yes",
        "--maxmemory-policy",
        "noeviction",
        "--hash-max-listpack-entries",
        "512",
        "--hash-max-listpack-value",
        "256",
    ]);
    let pod = Pod::start(&Config::apps(1), &redis);
    let checked = |redis: &RedisServer| {
        until("the server is checked", || {
            let run = redis.cli(&["INFO", "commandstats"]);
            run.contains("cmdstat_config|get:").then_some(())
        });
    };
    checked(&redis);
    // One server is checked after the other: what there was to say of the first has been said when the second is looked at.
    redis.restart();
    checked(&redis);
    let said = warned(&pod);
    for check in ["maxmemory-policy", "persistence", "hash encoding"] {
        assert_eq!(of(&said, check), [""; 0], "{said:?}");
    }
}

/// Redis may come later than the pod.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_late_is_checked_when_it_comes() {
    let mut redis =
        RedisServer::start_with(&["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"]);
    redis.stop();
    let pod = Pod::start_unready(&Config::apps(1), &redis.url());
    assert_eq!(warned(&pod), []);
    redis.restart();
    until("the warning", || {
        (of(&warned(&pod), "maxmemory-policy") == ["allkeys-lru"]).then_some(())
    });
}

/// The nodes that a finding was said of.
fn nodes(pod: &Pod, check: &str) -> Vec<String> {
    let lines = pod.log().into_iter();
    let of = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    of.filter(|line| line["check"] == check)
        .map(|line| line["node"].as_str().unwrap().to_owned())
        .collect()
}

/// With the least rights that `docs/redis.md` gives: nothing that they do not cover is even tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_master_of_a_cluster_is_checked() {
    let cluster = Cluster::start(60_000);
    let pod = Pod::start_at(&Config::apps(1), &cluster.url());
    let mut said = until("a warning of each master", || {
        let said = nodes(&pod, "persistence");
        (said.len() >= 3).then_some(said)
    });
    said.sort();
    let mut masters: Vec<String> = cluster
        .masters()
        .map(|index| format!("127.0.0.1:{}", cluster.nodes[index].port))
        .collect();
    masters.sort();
    assert_eq!(said, masters);
    cluster.rights_were_enough();
}

/// The pod sees no gap where sentinels switch quickly: the next master is another server all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_is_checked() {
    let mut sentinels = Sentinels::start(1_000);
    let pod = Pod::start_at(&Config::apps(1), &sentinels.url());
    until("a warning of the master", || {
        (nodes(&pod, "persistence").len() == 1).then_some(())
    });
    sentinels.replicated();
    let old = sentinels.master();
    sentinels.servers[old].kill9();
    until("a warning of the next one", || {
        (nodes(&pod, "persistence").len() == 2).then_some(())
    });
}
