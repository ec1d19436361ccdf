//! The version of the data's schema: who writes it, what a pod and the commands do with data of another version, and `migrate`.

/// What 0.1.0 has written, migrated and held against the model.
mod old_data;

use serde_json::{Value, json};

use crate::support::refusal::{imkit_refusal, native_refusal, sendbird_refusal, tencent_refusal};
use crate::support::servers::Cluster;
use crate::support::{App, Config, Own, Pod, RedisServer, Wait, run_unread, until};

const KEY: &str = "unread:schema";
const COPIES: [&str; 3] = [
    "unread:schema:{b}",
    "unread:schema:{c}",
    "unread:schema:{d}",
];

/// What `/readyz` says.
pub(super) fn readyz(pod: &Pod) -> Value {
    let answer = pod.admin_get("/readyz").unwrap_or_default();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    serde_json::from_str(body).unwrap_or_default()
}

/// Waits until `/readyz` gives the data that version, and answers why.
pub(super) fn schema(pod: &Pod, wanted: &str) -> String {
    until(&format!("/readyz says {wanted}"), || {
        let said = readyz(pod);
        let state = &said["components"]["schema"];
        (state == wanted).then(|| said["reason"].as_str().unwrap_or_default().to_owned())
    })
}

/// The log lines about the version: level, version and reason.
fn logged(pod: &Pod) -> Vec<(String, String, String)> {
    let lines = pod.log().into_iter();
    let lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    let lines = lines.filter(|line| line["schema"].is_string());
    lines
        .map(|line| {
            let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
            (text("level"), text("schema"), text("reason"))
        })
        .collect()
}

fn event(id: &str) -> Value {
    json!({"type": "message.sent", "to": "alice", "sender": "bob", "id": id})
}

/// Every dialect refuses, in its own form.
async fn all_refuse(app: &App) {
    let tags: Option<&[&str]> = None;
    let reply = app.events(&event("refused"), Wait::Applied).await;
    native_refusal(&reply).unwrap();
    let detail = reply.body["detail"].as_str().unwrap();
    assert!(detail.contains("of another version"), "{detail}");
    native_refusal(&app.unread("alice", true).await).unwrap();
    native_refusal(&app.unread_many(&["alice"]).await).unwrap();
    native_refusal(&app.room_unread::<&str>("r", None).await).unwrap();
    imkit_refusal(&app.imkit_badges("alice", tags).await).unwrap();
    imkit_refusal(&app.imkit_rooms("alice", &[]).await).unwrap();
    tencent_refusal(&app.tencent_total("alice").await).unwrap();
    tencent_refusal(&app.tencent_peers("alice", &["bob"]).await).unwrap();
    sendbird_refusal(&app.sendbird("alice", None, None).await).unwrap();
}

/// All keys but the version, and what they hold.
fn everything(redis: &RedisServer) -> String {
    redis.cli(&["EVAL", "local all = {} for _, key in ipairs(redis.call('KEYS', 'unread:v1:*')) do all[#all + 1] = key .. ' ' .. redis.sha1hex(redis.call('DUMP', key)) end table.sort(all) return all", "0"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_data_begin_with_the_version() {
    let own = Own::start("");
    let is_written = |key| {
        until(key, || {
            (own.redis.cli(&["GET", key]) == "2 2").then_some(())
        })
    };
    assert_eq!(own.redis.cli(&["GET", KEY]), "2 2");
    COPIES.iter().for_each(|key| is_written(key));
    let said = readyz(&own.pod);
    assert_eq!(said["components"]["schema"], "current", "{said}");
    assert_eq!(said["reason"], Value::Null, "{said}");
    assert_eq!(logged(&own.pod), []);
    own.app.must(&event("1")).await;
    // Whoever comes later leaves it as it is.
    let other = Pod::start(&own.config, &own.redis);
    assert_eq!(readyz(&other)["components"]["schema"], "current");
    assert_eq!(own.redis.cli(&["GET", KEY]), "2 2");
    let url = own.redis.url();
    let ran = run_unread(&["migrate", "--redis-url", &url]);
    let text = "nothing to migrate: the data are of schema 2\n";
    assert_eq!((ran.code, ran.stdout.as_str()), (0, text));
    let doctor = run_unread(&["doctor", "--redis-url", &url]).stdout;
    assert!(doctor.contains("\nok    schema: 2, "), "{doctor}");
    // A later version that this one can read stays.
    own.redis.cli(&["SET", KEY, "3 2"]);
    let third = Pod::start(&own.config, &own.redis);
    assert_eq!(readyz(&third)["components"]["schema"], "current");
    let ran = run_unread(&["migrate", "--redis-url", &url]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(own.redis.cli(&["GET", KEY]), "3 2");
}

/// Keys of other programs are no data, and a command that only looks begins none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_pod_begins_data() {
    let redis = RedisServer::start();
    redis.cli(&["SET", "somebody:else", "1"]);
    let url = redis.url();
    for command in ["verify", "rebuild", "doctor"] {
        let ran = run_unread(&[command, "--redis-url", &url]);
        // The server is not set up as `doctor` wants it.
        assert_eq!(
            ran.code,
            i32::from(command == "doctor"),
            "{command}: {ran:?}"
        );
    }
    assert_eq!(redis.cli(&["EXISTS", KEY]), "0");
    let _pod = Pod::start(&Config::apps(1), &redis);
    assert_eq!(redis.cli(&["GET", KEY]), "2 2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_meets_a_later_version_is_not_ready_and_touches_nothing() {
    let own = Own::start("");
    own.app.must(&event("1")).await;
    for (value, state, words) in [
        (
            "3 3",
            "newer",
            "the data are of schema 3, which takes a program that knows schema 3",
        ),
        ("nonsense", "unreadable", "does not hold a version"),
    ] {
        own.redis.cli(&["SET", KEY, value]);
        let before = everything(&own.redis);
        // A pod that runs, and one that starts.
        let new = Pod::start_unready(&own.config, &own.redis.url());
        for pod in [&own.pod, &new] {
            let why = schema(pod, state);
            assert!(why.contains(words), "{why}");
            assert_eq!(pod.admin_status("/readyz"), Some(503));
            all_refuse(&App::new(&own.config.apps[0], &pod.base)).await;
            assert_eq!(readyz(pod)["components"]["redis"], "up");
        }
        let lines = logged(&new);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!((&*lines[0].0, &*lines[0].1), ("ERROR", state));
        assert!(lines[0].2.contains(words), "{lines:?}");
        assert_eq!(own.redis.cli(&["GET", KEY]), value);
        assert_eq!(everything(&own.redis), before);
        let errors = new.metric::<u64>("unread_redis_errors_total{kind=\"schema\"}");
        assert!(errors > Some(0), "{errors:?}");
        // Until the version is one that it can read.
        own.redis.cli(&["SET", KEY, "2 2"]);
        for pod in [&own.pod, &new] {
            pod.until_ready();
            let app = App::new(&own.config.apps[0], &pod.base);
            assert_eq!(
                app.tencent_total("alice").await.body["AllC2CUnreadMsgNum"],
                1
            );
        }
    }
    let lines = logged(&own.pod);
    let words: Vec<&str> = lines.iter().map(|line| line.1.as_str()).collect();
    assert_eq!(words, ["newer", "current", "unreadable", "current"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_refuse_a_later_version() {
    let (app, mut pod, redis) = Own::start("").parts();
    app.must(&event("1")).await;
    pod.term();
    redis.cli(&["SET", KEY, "3 3"]);
    let before = everything(&redis);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events");
    std::fs::write(&file, event("2").to_string()).unwrap();
    let rows = dir.path().join("rows");
    std::fs::write(&rows, "room,user,unread\nr,alice,1\n").unwrap();
    let url = redis.url();
    for command in [
        &["verify"][..],
        &["verify", "--json"],
        &["rebuild"],
        &["rebuild", "--mend"],
        &["migrate"],
        &["migrate", "--dry-run"],
        &["inspect", "--app", "app-0", "--user", "alice"],
        &["inspect", "--app", "app-0", "--memory"],
        &["import", "--app", "app-0", file.to_str().unwrap()],
        &["export", "--counts", "--app", "app-0"],
        &["export", "--counts", "--app", "another"],
        &["compare", "--app", "app-0", rows.to_str().unwrap()],
        &["compare", "--app", "another", rows.to_str().unwrap()],
    ] {
        let ran = run_unread(&[command, &["--redis-url", &url]].concat());
        assert_eq!(ran.code, 2, "{command:?}: {ran:?}");
        ran.assert_failed_in_one_line(&["the data are of schema 3", "this one knows 2"]);
    }
    let doctor = run_unread(&["doctor", "--redis-url", &url]);
    assert_eq!(doctor.code, 1, "{doctor:?}");
    assert!(
        doctor
            .stdout
            .contains("\nfail  schema: the data are of schema 3"),
        "{doctor:?}"
    );
    assert_eq!(everything(&redis), before);
    assert_eq!(redis.cli(&["GET", KEY]), "3 3");
}

/// Neither a pod that runs nor one that starts needs the master that has the version. Who starts takes what a copy says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_pod_needs_the_master_that_has_the_version() {
    let cluster = Cluster::start(60_000);
    let config = Config::apps(1);
    let pod = Pod::start_at(&config, &cluster.url());
    let app = App::new(&config.apps[0], &pod.base);
    let victim = cluster.owner(cluster.slot(KEY), 0);
    let elsewhere = |user: &String| {
        let key = format!("unread:v1:{{app-0:u:{user}}}:counts");
        cluster.owner(cluster.slot(&key), 0) != victim
    };
    let user = (0..100).map(|n| format!("user-{n}")).find(elsewhere);
    let user = user.expect("a user of another master");
    app.must(&json!({"type": "user.updated", "user": user}))
        .await;
    cluster.nodes[victim].freeze();
    until("the pod has seen it", || {
        (readyz(&pod)["components"]["redis"] == "partly").then_some(())
    });
    let said = app.tencent_total(&user).await.ok();
    assert_eq!(said["AllC2CUnreadMsgNum"], 0, "{said}");
    assert_eq!(pod.admin_status("/readyz"), Some(200));
    assert_eq!(readyz(&pod)["components"]["schema"], "current");
    let late = Pod::start_at(&config, &cluster.url());
    assert_eq!(readyz(&late)["components"]["schema"], "current");
    let late_app = App::new(&config.apps[0], &late.base);
    let said = late_app.tencent_total(&user).await.ok();
    assert_eq!(said["AllC2CUnreadMsgNum"], 0, "{said}");
    // A copy that says that the data are of a later version is believed, too.
    let other = usize::from(victim == 0);
    for key in COPIES {
        if cluster.owner(cluster.slot(key), other) != victim {
            cluster.nodes[other].cli(&["-c", "SET", key, "3 3"]);
        }
    }
    let refused = Pod::start_unready(&config, &cluster.url());
    schema(&refused, "newer");
    let owner = cluster.owner(cluster.slot(KEY), other);
    assert_eq!(owner, victim, "a replica has taken over meanwhile");
    // The version itself is believed before its copies.
    cluster.nodes[victim].thaw();
    refused.until_ready();
}
