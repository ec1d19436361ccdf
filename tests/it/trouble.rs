//! What a pod says of a Redis that can't do its work: one line in the log when that begins and one when it ends, the cause to
//! whoever sends an event, the state in `/readyz`, and one word for it in the metrics, whatever the dialect answers.

/// One word for each outcome in the metrics.
mod metrics;

use serde_json::{Value, json};

use crate::support::servers::{Cluster, Sentinels};
use crate::support::{
    App, Config, Own, Pod, RedisServer, Reply, Wait, eventually, free_port, raw, run_unread, until,
};

/// What `/readyz` says.
fn readyz(pod: &Pod) -> Value {
    let answer = pod.admin_get("/readyz").unwrap_or_default();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    serde_json::from_str(body).unwrap_or_default()
}

/// Waits until `/readyz` gives Redis that state, and answers why.
fn state(pod: &Pod, wanted: &str) -> String {
    until(&format!("/readyz says {wanted}"), || {
        let said = readyz(pod);
        let state = &said["components"]["redis"];
        (state == wanted).then(|| said["reason"].as_str().unwrap_or_default().to_owned())
    })
}

/// The log lines about how Redis is: its state, and why.
fn logged_states(pod: &Pod) -> Vec<(String, String)> {
    let lines = pod.log().into_iter();
    let lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    let lines = lines.filter(|line| line["state"].is_string() && line["server"].is_string());
    lines
        .map(|line| {
            let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
            // That it answers for the first time is no news to wake anybody for; all that comes after is.
            let first = line["message"] == "redis answers";
            assert_eq!(line["level"], if first { "INFO" } else { "WARN" }, "{line}");
            (text("state"), text("reason"))
        })
        .collect()
}

/// The states alone.
fn states(pod: &Pod) -> Vec<String> {
    logged_states(pod)
        .into_iter()
        .map(|(state, _)| state)
        .collect()
}

/// These states have been logged and no others. A line may come a moment after what it tells of.
#[track_caller]
fn assert_states(pod: &Pod, wanted: &[&str]) {
    until("the lines of all states", || {
        (states(pod).len() >= wanted.len()).then_some(())
    });
    assert_eq!(states(pod), wanted);
}

/// All warnings and errors but those about how Redis is set up.
fn complaints(pod: &Pod) -> Vec<String> {
    let loud = |line: &String| {
        let loud = ["\"WARN\"", "\"ERROR\"", "panicked"];
        loud.iter().any(|word| line.contains(word)) && !line.contains("set up otherwise")
    };
    pod.log().into_iter().filter(loud).collect()
}

/// How many calls of that app's endpoint came to that.
fn outcomes(pod: &Pod, app: &str, endpoint: &str, outcome: &str) -> Option<u64> {
    pod.metric(&format!(
        "unread_requests_total{{app=\"{app}\",endpoint=\"{endpoint}\",outcome=\"{outcome}\"}}"
    ))
}

/// All outcomes of that app's endpoint that have been seen.
fn seen(pod: &Pod, app: &str, endpoint: &str) -> Vec<(String, u64)> {
    let metrics = pod.admin_get("/metrics").unwrap_or_default();
    let name = format!("unread_requests_total{{app=\"{app}\",endpoint=\"{endpoint}\",outcome=\"");
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(&name));
    let counts = lines.filter_map(|rest| {
        let (outcome, count) = rest.split_once("\"} ")?;
        Some((outcome.to_owned(), count.parse().ok()?))
    });
    counts.filter(|(_, count)| *count > 0).collect()
}

fn event(id: &str) -> Value {
    json!({"type": "message.sent", "to": "alice", "sender": "bob", "id": id})
}

/// What the answer to an event says of Redis.
fn detail(reply: &Reply) -> String {
    assert_eq!(reply.status, 503, "{}", reply.text);
    assert_eq!(reply.header("retry-after"), Some("1"), "{}", reply.text);
    let detail = reply.body["detail"].as_str().unwrap().to_owned();
    for word in ["pool", "in time", "127.0.0.1"] {
        assert!(!detail.contains(word), "{detail}");
    }
    detail
}

struct Scene {
    redis: RedisServer,
    pod: Pod,
    app: App,
}

impl Scene {
    async fn new() -> Self {
        let (app, pod, redis) = Own::start("").parts();
        app.must(&event("first")).await;
        Self { redis, pod, app }
    }

    fn ok(&self, command: &[&str]) {
        assert_eq!(self.redis.cli(command), "OK", "{command:?}");
    }

    /// Events are refused because of that, which is said in these words; `/readyz` gives the state, and the log has had one line
    /// of it.
    async fn refuses(&self, trouble: &str, words: &str, cause: &str) {
        eventually("an event is refused", || async {
            let reply = self.app.events(&event("next"), Wait::Applied).await;
            (reply.status == 503).then_some(()).ok_or(reply.text)
        })
        .await;
        let why = state(&self.pod, trouble);
        assert!(why.contains(words) && why.contains(cause), "{why}");
        for _ in 0..20 {
            let reply = self.app.events(&event("next"), Wait::Applied).await;
            let detail = detail(&reply);
            assert!(detail.contains(words), "{detail}");
        }
        assert_states(&self.pod, &["up", trouble]);
        assert!(
            logged_states(&self.pod)[1].1.contains(cause),
            "{:?}",
            logged_states(&self.pod)
        );
        assert_eq!(self.pod.admin_status("/livez"), Some(200));
    }

    /// Events are taken again, and the log has had one line of that.
    async fn recovers(&self, trouble: &str) {
        eventually("an event is taken", || async {
            let reply = self.app.events(&event("next"), Wait::Applied).await;
            (reply.status == 200).then_some(()).ok_or(reply.text)
        })
        .await;
        assert_eq!(state(&self.pod, "up"), "");
        assert_states(&self.pod, &["up", trouble, "up"]);
        let outcome = |outcome| outcomes(&self.pod, &self.app.keys.id, "native_events", outcome);
        assert!(outcome("redis") >= Some(20), "{:?}", outcome("redis"));
        assert!(outcome("ok") >= Some(2), "{:?}", outcome("ok"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_is_said_to_be_full() {
    let scene = Scene::new().await;
    scene.ok(&["CONFIG", "SET", "maxmemory", "1"]);
    scene.refuses("full", "redis is full", "OOM").await;
    scene.ok(&["CONFIG", "SET", "maxmemory", "0"]);
    scene.recovers("full").await;
}

/// Nobody has to send anything for it to be seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_is_seen_without_a_call() {
    let scene = Scene::new().await;
    scene.ok(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(state(&scene.pod, "full").contains("OOM"));
    assert_eq!(scene.pod.metric("unread_redis_up"), Some(0));
    // Who only reads is served.
    assert_eq!(scene.app.unread("alice", false).await.status, 200);
    assert!(scene.pod.is_ready());
    scene.ok(&["CONFIG", "SET", "maxmemory", "0"]);
    state(&scene.pod, "up");
    assert_states(&scene.pod, &["up", "full", "up"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_said_to_be_read_only() {
    let scene = Scene::new().await;
    let nobody = free_port().to_string();
    scene.ok(&["REPLICAOF", "127.0.0.1", &nobody]);
    scene
        .refuses("read_only", "redis is read-only", "READONLY")
        .await;
    scene.ok(&["REPLICAOF", "NO", "ONE"]);
    scene.recovers("read_only").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_its_master_is_said_to_be_one() {
    let scene = Scene::new().await;
    scene.ok(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    let nobody = free_port().to_string();
    scene.ok(&["REPLICAOF", "127.0.0.1", &nobody]);
    scene
        .refuses("master_down", "lost its master", "MASTERDOWN")
        .await;
    // Reads are refused, too: with status 200 where the dialect has no other.
    let tencent = scene.app.tencent_total("alice").await;
    assert_eq!(
        (tencent.status, &tencent.body["ErrorCode"]),
        (200, &json!(91000))
    );
    let refused = outcomes(&scene.pod, &scene.app.keys.id, "tencent_unread", "redis");
    assert_eq!(refused, Some(1));
    scene.ok(&["REPLICAOF", "NO", "ONE"]);
    scene.recovers("master_down").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_cannot_save_is_said_to_be_unsaved() {
    let scene = Scene::new().await;
    // Where its file should be there is a directory, and nothing can be put in its place.
    let dir = scene.redis.cli(&["CONFIG", "GET", "dir"]);
    let file = std::path::Path::new(dir.lines().nth(1).unwrap()).join("dump.rdb");
    std::fs::create_dir_all(file.join("x")).unwrap();
    scene.ok(&["CONFIG", "SET", "save", "3600 1000000"]);
    until("a save that fails", || {
        scene.redis.cli(&["BGSAVE"]);
        (scene.redis.info("rdb_last_bgsave_status")? == "err").then_some(())
    });
    scene.refuses("unsaved", "can't save", "MISCONF").await;
    std::fs::remove_dir_all(&file).unwrap();
    // Another that fails may be under way.
    until("a save that succeeds", || {
        scene.redis.cli(&["BGSAVE"]);
        (scene.redis.info("rdb_last_bgsave_status")? == "ok").then_some(())
    });
    scene.recovers("unsaved").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_without_its_replicas_is_said_to_have_too_few() {
    let scene = Scene::new().await;
    scene.ok(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    scene
        .refuses("too_few_replicas", "too few", "NOREPLICAS")
        .await;
    scene.ok(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    scene.recovers("too_few_replicas").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_is_refused_is_said_to_be_refused() {
    let scene = Scene::new().await;
    scene.ok(&["ACL", "SETUSER", "operator", "on", "nopass", "~*", "+@all"]);
    scene.ok(&["CONFIG", "SET", "requirepass", "not-the-one-of-the-pod"]);
    scene.redis.cli(&[
        "--user", "operator", "--pass", "x", "CLIENT", "KILL", "TYPE", "normal",
    ]);
    scene
        .refuses("login_refused", "refuses the login", "NOAUTH")
        .await;
    let asked = [
        "--user",
        "operator",
        "--pass",
        "x",
        "CONFIG",
        "SET",
        "requirepass",
        "",
    ];
    assert!(scene.redis.cli(&asked).ends_with("OK"));
    scene.recovers("login_refused").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_are_missing_are_said_to_be_missing() {
    let scene = Scene::new().await;
    scene.ok(&["ACL", "SETUSER", "default", "-evalsha", "-eval"]);
    scene.refuses("not_allowed", "denies", "NOPERM").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_away_is_said_to_be_away() {
    let mut scene = Scene::new().await;
    scene.redis.kill9();
    scene.refuses("down", "can't be reached", "refused").await;
    for (reply, endpoint) in [
        (scene.app.tencent_total("alice").await, "tencent_unread"),
        (scene.app.imkit_rooms("alice", &[]).await, "imkit_rooms"),
        (
            scene.app.imkit_badges::<&str>("alice", None).await,
            "imkit_badges",
        ),
        (
            scene.app.sendbird("alice", None, None).await,
            "sendbird_unread_item_count",
        ),
        (scene.app.unread("alice", false).await, "native_user_unread"),
        (scene.app.unread_many(&["alice"]).await, "native_unread"),
        (
            scene.app.room_unread::<&str>("room", None).await,
            "native_room_unread",
        ),
    ] {
        assert!(!reply.text.contains("pool"), "{}", reply.text);
        let seen = seen(&scene.pod, &scene.app.keys.id, endpoint);
        assert_eq!(
            seen,
            [("redis".to_owned(), 1)],
            "{endpoint}: {}",
            reply.text
        );
    }
    assert_states(&scene.pod, &["up", "down"]);
    scene.redis.restart();
    scene.recovers("down").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_frozen_is_one_line() {
    let scene = Scene::new().await;
    scene.redis.freeze();
    let reply = scene.app.events(&event("next"), Wait::Applied).await;
    assert_eq!(reply.status, 503, "{}", reply.text);
    assert!(
        reply.body["detail"]
            .as_str()
            .unwrap()
            .contains("did not answer in time")
    );
    state(&scene.pod, "down");
    scene.redis.thaw();
    state(&scene.pod, "up");
    assert_states(&scene.pod, &["up", "down", "up"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_loads_its_data_is_said_to_do_so() {
    let mut redis = RedisServer::start_durable();
    let config = Config::apps(1);
    let pod = Pod::start(&config, &redis);
    // Something to load: 60,000 writes, each to take 100 microseconds.
    let junk = "for i = 1, 60000 do redis.call('SET', 'junk:' .. i, i) end";
    redis.cli(&["EVAL", junk, "0"]);
    redis.restart_loading(&["--key-load-delay", "100"]);
    assert!(state(&pod, "loading").contains("LOADING"));
    let app = App::new(&config.apps[0], &pod.base);
    let reply = app.events(&event("next"), Wait::Applied).await;
    assert!(detail(&reply).contains("redis is loading its data"));
    state(&pod, "up");
    // That it was gone in between may have been seen, or not.
    let seen = || -> Vec<String> { states(&pod).into_iter().filter(|s| s != "down").collect() };
    until("the line of its return", || {
        (seen().len() == 3).then_some(())
    });
    assert_eq!(seen(), ["up", "loading", "up"]);
}

/// Each server says how it is, and the one that has gone says nothing more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_a_line_for_each_server() {
    let mut sentinels = Sentinels::start(1_000);
    let config = Config::apps(1);
    let pod = Pod::start_at(&config, &sentinels.url());
    sentinels.replicated();
    let old = sentinels.master();
    let ports: Vec<u16> = sentinels.servers.iter().map(|server| server.port).collect();
    sentinels.servers[old].kill9();
    until("its end is seen", || {
        states(&pod).contains(&"down".to_owned()).then_some(())
    });
    let app = App::new(&config.apps[0], &pod.base);
    eventually("an event is taken", || async {
        let reply = app.events(&event("next"), Wait::Applied).await;
        (reply.status == 200).then_some(()).ok_or(reply.text)
    })
    .await;
    state(&pod, "up");
    let of = |server: usize| -> Vec<String> {
        let name = format!("127.0.0.1:{}", ports[server]);
        let lines = pod.log().into_iter();
        let lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let own = lines.filter(|line| line["server"] == name.as_str());
        own.filter_map(|line| line["state"].as_str().map(ToOwned::to_owned))
            .collect()
    };
    until("the new master's line", || {
        (of(1 - old).last()? == "up").then_some(())
    });
    assert_eq!(of(1 - old)[0], "up", "{:?}", of(1 - old));
    assert_eq!(of(old), ["up", "down"]);
}

/// A pod that comes before its Redis says so once, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_never_there_is_one_line() {
    let mut redis = RedisServer::start();
    redis.stop();
    let pod = Pod::start_unready(&Config::apps(1), &redis.url());
    assert!(state(&pod, "down").contains("can't be reached"));
    assert_eq!(pod.admin_status("/readyz"), Some(503));
    redis.restart();
    state(&pod, "up");
    assert_states(&pod, &["down", "up"]);
    assert_eq!(pod.admin_status("/readyz"), Some(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_with_one_master_away_is_there_in_part() {
    let mut cluster = Cluster::start(600_000);
    let pod = Pod::start_at(&Config::apps(1), &cluster.url());
    state(&pod, "up");
    let away = cluster.masters().next().unwrap();
    let port = cluster.nodes[away].port;
    cluster.nodes[away].kill9();
    let why = state(&pod, "partly");
    assert!(
        why.contains(&port.to_string()) && why.contains("can't be reached"),
        "{why}"
    );
    assert!(pod.is_ready());
    let server = format!("127.0.0.1:{port}");
    let of = |pod: &Pod| {
        let lines = pod.log().into_iter();
        let lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let states = lines.filter(|line| line["server"] == server.as_str());
        let states = states.filter_map(|line| line["state"].as_str().map(ToOwned::to_owned));
        // One that comes back may not know the others at first, and says so; it is up before and after that.
        let states = states.filter(|state| state != "cluster_down");
        let mut states: Vec<String> = states.collect();
        states.dedup();
        states
    };
    until("the line of its end", || {
        (of(&pod).len() == 2).then_some(())
    });
    assert_eq!(of(&pod), ["up", "down"]);
    cluster.nodes[away].restart();
    state(&pod, "up");
    until("the line of its return", || {
        (of(&pod).len() == 3).then_some(())
    });
    assert_eq!(of(&pod), ["up", "down", "up"]);
}

/// What the commands say of a Redis that is away: no word of how its connections are kept.
#[test]
fn commands_say_that_redis_is_away_without_a_word_of_the_pool() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    let commands: [&[&str]; 5] = [
        &["verify"],
        &["rebuild"],
        &["doctor"],
        &["inspect", "--app", "app-1", "--user", "alice"],
        &["inspect", "--app", "app-1", "--memory"],
    ];
    for command in commands {
        let ran = run_unread(&[command, &["--redis-url", &url]].concat());
        let said = format!("{}{}", ran.stdout, ran.stderr).to_lowercase();
        assert_ne!(ran.code, 0, "{command:?}: {said}");
        assert!(
            said.contains("redis can't be reached"),
            "{command:?}: {said}"
        );
        for word in ["pool", "creating a new object", "unavailable"] {
            assert!(!said.contains(word), "{command:?}: {said}");
        }
    }
}

/// Who looks what is behind a port is no failure of ours.
#[test]
fn a_port_scan_leaves_no_error_in_the_log() {
    let redis = RedisServer::start();
    let pod = Pod::start(&Config::apps(1), &redis);
    let random: Vec<u8> = (0..4_096_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let tls = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03";
    let scans: [&[u8]; 8] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        &random,
        tls,
        b"\r\n\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x00\x00\x00\x00",
    ];
    let public = pod.address();
    for address in [public, pod.admin.as_str()] {
        for scan in scans {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            std::io::Write::write_all(&mut stream, scan).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // Whatever it is answered, and be it nothing.
            let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
        }
    }
    let _ = raw(
        public,
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(complaints(&pod), [""; 0]);
    assert!(outcomes(&pod, "", "none", "bad_request") >= Some(3));
}
