//! The self-check on the command line: `verify`, `rebuild`, `inspect` and `doctor`.

/// Counts and records that are wrong without being unreadable.
mod drift;

/// What can't be read.
mod unreadable;

/// What `inspect` shows.
mod inspect;

/// What `doctor` says of a server.
mod doctor;

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{self, App, Own, Pod, Ran, RedisServer, assert_no_drift};

/// A Redis, a pod, and an app in which there is something of everything.
struct Scene {
    redis: RedisServer,
    _pod: Pod,
    app: App,
}

const ALICE: &str = "unread:v1:{app-0:u:alice}:";

const ROOM: &str = "unread:v1:{app-0:r:group}:";

impl Scene {
    async fn new() -> Self {
        let (app, pod, redis) = Own::start("").parts();
        let message = |room: &str, n: u64, mentions: Value| {
            json!({"type": "message.sent", "room": room, "id": format!("m{n}"), "sender": "bob", "time": 1_700_000_000_000_u64 + n,
                   "mentions": mentions})
        };
        let mut events = vec![
            json!({"type": "room.updated", "room": "group", "tags": ["work", "x"], "custom_type": "support"}),
            json!({"type": "room.updated", "room": "other", "tags": ["work"]}),
            json!({"type": "room.updated", "room": "super", "kind": "supergroup", "tags": ["x"]}),
            json!({"type": "room.updated", "room": "it's {odd}", "tags": ["x"]}),
            json!({"type": "member.joined", "room": "group", "users": ["alice", "bob", "carol"]}),
            json!({"type": "member.joined", "room": "other", "users": ["alice", "bob"]}),
            json!({"type": "member.joined", "room": "super", "users": ["alice", "bob"]}),
            json!({"type": "member.invited", "room": "it's {odd}", "users": ["alice"]}),
            json!({"type": "message.sent", "to": "alice", "sender": "bob", "id": "d1"}),
            json!({"type": "member.joined", "room": "it's {odd}", "users": ["bob"]}),
        ];
        for n in 1..=6 {
            let mentions = if n == 5 { json!(["alice"]) } else { json!([]) };
            events.push(message("group", n, mentions));
        }
        events.push(message("other", 1, json!([])));
        events.push(message("super", 1, json!("all")));
        events.push(message("super", 2, json!([])));
        events
            .push(json!({"type": "room.read", "room": "group", "user": "alice", "up_to_id": "m2"}));
        events.push(json!({"type": "message.recalled", "room": "group", "id": "m3"}));
        app.must(&json!(events)).await;
        Self {
            redis,
            _pod: pod,
            app,
        }
    }

    fn run(&self, command: &str, more: &[&str]) -> Ran {
        let url = self.redis.url();
        support::run_unread(&[&[command, "--redis-url", &url], more].concat())
    }

    /// All that the endpoints say of alice.
    async fn answers(&self) -> Value {
        let mut all = vec![self.app.unread("alice", true).await.ok()];
        all.push(self.app.sendbird("alice", None, None).await.ok());
        all.push(self.app.imkit_badges::<&str>("alice", None).await.ok());
        all.push(self.app.tencent_peers("alice", &["bob"]).await.ok());
        all.into()
    }

    /// One drift: verify names it, rebuild repairs it, verify finds nothing, and the answers are what they were.
    async fn found_and_repaired(&self, what: &str, key: &str, field: &str, right: &Value) {
        let ran = self.run("verify", &["--json"]);
        assert_eq!(ran.code, 1, "{what}: {}{}", ran.stdout, ran.stderr);
        let result = ran.json();
        let named = |row: &Value| {
            row["fields"]
                .as_array()
                .unwrap()
                .iter()
                .any(|drift| drift["key"] == key && drift["field"] == field)
        };
        let drift = result["drift"].as_array().unwrap();
        assert!(
            drift.iter().any(|row| row["user"] == "alice" && named(row)),
            "{what}: {result}"
        );
        assert!(
            drift.iter().all(|row| row["user"] == "alice"),
            "{what}: {result}"
        );
        let ran = self.run("verify", &["--app", "app-0", "--user", "alice"]);
        assert_eq!(ran.code, 1, "{what}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains(field), "{what}: {}", ran.stdout);
        let ran = self.run("verify", &["--app", "app-0", "--user", "bob"]);
        assert_eq!(ran.code, 0, "{what}: {}{}", ran.stdout, ran.stderr);

        let ran = self.run("rebuild", &[]);
        assert_eq!(ran.code, 0, "{what}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains("rebuilt: app app-0, user \"alice\""));
        assert_no_drift(&self.redis.url(), "app-0");
        let ran = self.run("rebuild", &["--json"]);
        assert_eq!((ran.code, &ran.json()["rebuilt"]), (0, &json!([])));
        assert_eq!(self.answers().await, *right, "{what}");
    }
}

/// A stamp as records have it.
fn stamp(text: &str) -> i64 {
    i64::from_str_radix(text, 36).unwrap()
}

/// Order and time of the last message in a record: microseconds and milliseconds.
fn last_message(record: &[&str]) -> (i64, i64) {
    let (back, after) = record[13].split_once(',').unwrap();
    let rev = stamp(record[1]) + stamp(record[2]);
    let at = rev - back.parse::<i64>().unwrap();
    (at, at / 1_000 + after.parse::<i64>().unwrap())
}

fn sh(line: &str) -> String {
    let out = Command::new("sh")
        .args(["-c", line])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(out.status.success(), "{line}: {out:?}");
    String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn a_command_that_cannot_run_says_so() {
    let ran = support::run_unread(&["verify", "--redis-url", "redis://127.0.0.1:1"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(
        ran.stderr.starts_with("unread: could not run to its end"),
        "{ran:?}"
    );
    assert_eq!(ran.stdout, "");
    let redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    for (args, code) in [
        (
            vec!["verify", "--user", "alice", "--redis-url", &redis.url()],
            2,
        ),
        (
            vec![
                "verify",
                "--app",
                "no such app",
                "--redis-url",
                &redis.url(),
            ],
            2,
        ),
        (vec!["inspect", "--app", "a"], 2),
        (
            vec!["inspect", "--app", "a", "--user", "u", "--room", "r"],
            2,
        ),
        (vec!["verify", "--redis-url", &redis.url()], 0),
        (vec!["rebuild", "--redis-url", &redis.url()], 0),
    ] {
        let ran = support::run_unread(&args);
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
    }
    // Without an address: the private server of a pod that runs in the data directory, and here runs none.
    let file = format!("{dir}/unread.toml");
    std::fs::write(&file, format!("[redis]\ndata_dir = \"{dir}\"\n")).unwrap();
    let ran = support::run_unread(&["doctor", "--config", &file]);
    assert_eq!(ran.code, 3);
    assert!(
        ran.stderr.contains("no private redis-server runs in"),
        "{ran:?}"
    );
}
