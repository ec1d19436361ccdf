//! The least rights that `docs/redis.md` gives, as they stand there, on whatever server the tests run: all works with them, and
//! nothing is even tried that they do not cover.

use serde_json::json;

use crate::support::scenarios::histories;
use crate::support::servers::rights_were_enough;
use crate::support::{App, Config, Pod, RedisServer, run_unread};

const DOCUMENT: &str = include_str!("../../docs/redis.md");

/// What stands in the document between these.
fn between(start: &str, end: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(start).expect(start);
    rest.split_once(end).expect(end).0
}

/// No denial stands in the log of them, nor was a command sent that this server does not know, which no right covers.
#[track_caller]
fn nothing_was_denied(redis: &RedisServer) {
    rights_were_enough(redis);
    let errors = redis.cli(&["INFO", "errorstats"]);
    assert!(!errors.contains("errorstat_ERR:"), "{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_acl_line_is_enough_and_makes_no_denial() {
    let redis = RedisServer::start_with(&["--appendonly", "yes"]);
    let line = format!(
        "ACL SETUSER unread {}",
        between("\nACL SETUSER unread ", "\n")
    );
    let line = line.replace(">PASSWORD", ">secret-of-24-characters");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(redis.cli(&words), "OK", "{line}");
    let address = format!("unread:secret-of-24-characters@127.0.0.1:{}", redis.port);
    let url = format!("redis://{address}");

    // Pods, with and without replicas to wait for.
    histories(&mut Config::apps(0), &url, 361..363, 150).await;
    let _replica = redis.replica();
    let mut config = Config::apps(1);
    config.redis = "durability = \"wait\"".to_owned();
    let pod = Pod::start_at(&config, &url);
    let app = App::new(&config.apps[0], &pod.base);
    app.must(&json!([
        {"type": "room.updated", "room": "r", "kind": "supergroup"},
        {"type": "member.joined", "room": "r", "users": ["alice", "bob"]},
        {"type": "message.sent", "room": "r", "sender": "bob", "id": "1"},
        {"type": "message.sent", "to": "alice", "sender": "bob", "id": "1"},
    ]))
    .await;
    nothing_was_denied(&redis);

    // Another database than 0.
    redis.cli(&["ACL", "SETUSER", "unread", "+select"]);
    let elsewhere = Pod::start_at(&config, &format!("{url}/3"));
    let there = App::new(&config.apps[0], &elsewhere.base);
    there
        .must(&json!({"type": "user.updated", "user": "carol"}))
        .await;
    nothing_was_denied(&redis);

    // The commands beside the pods.
    let more = between(
        "`verify`, `rebuild`, `migrate`, `inspect`, `export`, `compare` and `doctor` also use `",
        "`",
    );
    let words: Vec<&str> = more.split_whitespace().collect();
    let setting = [&["ACL", "SETUSER", "unread"][..], &words].concat();
    assert_eq!(redis.cli(&setting), "OK", "{more}");
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("events.ndjson");
    let event = json!({"type": "message.sent", "to": "alice", "sender": "bob", "id": "2"});
    std::fs::write(&events, format!("{event}\n")).unwrap();
    let counts = dir.path().join("counts.csv");
    std::fs::write(&counts, "room,user,unread\nr,alice,1\nr,bob,0\n").unwrap();
    for command in [
        &["verify"][..],
        &["rebuild"],
        &["migrate"],
        &["rebuild", "--mend"],
        &["inspect", "--app", "app-0", "--user", "alice"],
        &["inspect", "--app", "app-0", "--room", "r"],
        &["inspect", "--app", "app-0", "--memory"],
        &["import", "--app", "app-0", events.to_str().unwrap()],
        &["export", "--counts", "--app", "app-0"],
        &[
            "compare",
            "--only-listed",
            "--app",
            "app-0",
            counts.to_str().unwrap(),
        ],
        &["doctor"],
    ] {
        let ran = run_unread(&[command, &["--redis-url", &url]].concat());
        assert_eq!(ran.code, 0, "{command:?}: {ran:?}");
        nothing_was_denied(&redis);
    }
    // `doctor` says so too, and knows what it talks to.
    let doctor = run_unread(&["doctor", "--redis-url", &url]).stdout;
    assert!(
        doctor.contains("\nok    rights: user \"unread\" may run all"),
        "{doctor}"
    );
    assert!(doctor.contains("\nok    version: "), "{doctor}");
}
