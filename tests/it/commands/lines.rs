//! The lines that `inspect` shows can be pasted into a shell, and print what stands in Redis.

use std::process::{Command, Stdio};

use serde_json::json;

use super::one_of_each;
use crate::support::servers::{Cluster, Sentinels, TlsServer};
use crate::support::{App, Config, Pod, Ran, RedisServer, run_unread};

/// What the lines of a command that begin with a dollar print when they are pasted, one after the other, in another directory,
/// with these variables.
fn pasted(shown: &Ran, environment: &[(&str, &str)]) -> Vec<(String, String)> {
    assert_eq!(shown.code, 0, "{shown:?}");
    let lines = shown.stdout.lines();
    let lines = lines.filter_map(|line| line.trim().strip_prefix("$ "));
    let all: Vec<(String, String)> = lines
        .map(|line| {
            let out = Command::new("sh")
                .args(["-c", line])
                .current_dir("/")
                .env_remove("REDISCLI_AUTH")
                .envs(environment.iter().copied())
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let (text, errors) = (
                String::from_utf8_lossy(&out.stdout).into_owned(),
                String::from_utf8_lossy(&out.stderr).into_owned(),
            );
            assert!(
                out.status.success() && errors.is_empty(),
                "{line}: {text}{errors}"
            );
            // An answer of more than one line, or a value; a refusal is neither.
            for refusal in [
                "ERR",
                "WRONG",
                "NOAUTH",
                "NOPERM",
                "MOVED",
                "CROSSSLOT",
                "(error)",
            ] {
                assert!(!text.starts_with(refusal), "{line}: {text}");
            }
            (line.to_owned(), text)
        })
        .collect();
    assert!(all.len() >= 5, "{shown:?}");
    all
}

/// Names that a shell, or `redis-cli`, would take apart.
const USER: &str = "al ice's \"$(echo x)\" \\x41 é \u{1f600} `id` -n";
const ROOM: &str = "-h 'no' \"such\" {host} \\n #1|2*?";

/// A user and a room of such names, with something of everything, and what `inspect` shows of them run line by line.
async fn every_line_runs(config: &Config, url: &str, environment: &[(&str, &str)]) {
    let pod = Pod::start_at(config, url);
    App::new(&config.apps[0], &pod.base)
        .must(&json!([
            {"type": "room.updated", "room": ROOM, "tags": ["a b", "it's"], "custom_type": "c d"},
            {"type": "room.updated", "room": "super $1", "kind": "supergroup"},
            {"type": "member.joined", "room": ROOM, "users": [USER, "bob"]},
            {"type": "member.joined", "room": "super $1", "users": [USER, "bob"]},
            {"type": "message.sent", "room": ROOM, "sender": "bob", "id": "1"},
            {"type": "message.sent", "room": "super $1", "sender": "bob", "id": "1"},
            {"type": "message.sent", "to": USER, "sender": "bob", "id": "1"},
        ]))
        .await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("unread.toml");
    std::fs::write(&file, config.toml(url)).unwrap();
    for (what, name) in [("--user", USER), ("--room", ROOM), ("--room", "super $1")] {
        let what = format!("{what}={name}");
        let of = [
            "inspect",
            "--app",
            "app-0",
            "--config",
            file.to_str().unwrap(),
        ];
        let shown = run_unread(&[&of[..], &[&what]].concat());
        let all = pasted(&shown, environment);
        assert!(
            all.iter().any(|(_, text)| !text.trim().is_empty()),
            "{all:?}"
        );
        if name == USER {
            let (line, heads) = all
                .iter()
                .find(|(line, _)| line.ends_with(" head"))
                .unwrap();
            assert_eq!(heads.trim(), "1", "{line}");
        }
        for (name, secret) in environment {
            assert!(!shown.stdout.contains(secret), "{name} is shown: {shown:?}");
        }
    }
}

/// Makes the user `me&you`, with a password that an address has to encode.
fn allow_me(redis: &RedisServer) {
    redis.cli(&[
        "ACL",
        "SETUSER",
        "me&you",
        "on",
        ">p@ss of length",
        "~*",
        "+@all",
    ]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_inspect_run_on_one_server() {
    let redis = RedisServer::start();
    every_line_runs(&Config::apps(1), &redis.url(), &[]).await;
    let login = |user: &str| {
        redis
            .url()
            .replace("redis://", &format!("redis://{user}:p%40ss%20of%20length@"))
    };
    allow_me(&redis);
    let password = [("REDISCLI_AUTH", "p@ss of length")];
    every_line_runs(
        &Config::apps(1),
        &format!("{}/2", login("me%26you")),
        &password,
    )
    .await;
    redis.cli(&["CONFIG", "SET", "requirepass", "p@ss of length"]);
    every_line_runs(&Config::apps(1), &login(""), &password).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_inspect_run_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("it's a $HOME %20 so?ck#et");
    let redis = RedisServer::start_with(&["--unixsocket", socket.to_str().unwrap()]);
    allow_me(&redis);
    let path = socket.to_str().unwrap();
    let path = path
        .replace('%', "%25")
        .replace('?', "%3F")
        .replace('#', "%23")
        .replace(' ', "%20");
    every_line_runs(&Config::apps(1), &format!("redis+unix://{path}"), &[]).await;
    let url = format!("redis+unix://{path}?db=3&user=me%26you&pass=p%40ss%20of%20length");
    every_line_runs(
        &Config::apps(1),
        &url,
        &[("REDISCLI_AUTH", "p@ss of length")],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_inspect_run_over_tls() {
    let tls = TlsServer::start();
    let login = ["ACL", "SETUSER", "unread", "+@all"];
    assert_eq!(tls.server.cli(&login), "OK");
    let mut config = Config::apps(1);
    config.redis = tls.settings();
    every_line_runs(&config, &tls.url(), &[("REDISCLI_AUTH", "p@ss word")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_inspect_run_on_a_cluster() {
    let cluster = Cluster::start(15_000);
    every_line_runs(&Config::apps(1), &cluster.operators_url(), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_inspect_run_behind_sentinels() {
    let sentinels = Sentinels::start(20_000);
    for server in &sentinels.servers {
        server.cli(&["ACL", "SETUSER", "unread", "+@all"]);
    }
    let password = [("REDISCLI_AUTH", "p@ss word")];
    every_line_runs(&Config::apps(1), &sentinels.url(), &password).await;
    for sentinel in &sentinels.sentinels {
        let set = [
            "ACL",
            "SETUSER",
            "watch&er",
            "on",
            ">sentinel's password",
            "+@all",
        ];
        assert_eq!(sentinel.cli(&set), "OK");
    }
    let url = format!(
        "{}?sentinel_user=watch%26er&sentinel_password=sentinel%27s%20password",
        sentinels.url()
    );
    let passwords = [password[0], ("SENTINEL_AUTH", "sentinel's password")];
    every_line_runs(&Config::apps(1), &url, &passwords).await;
}

/// What somebody else has put there is named as unreadable, and no line is made of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_inspect_hold_only_names_that_can_be_ids() {
    let redis = one_of_each().await;
    let member = "j|hoebfz46s0|0";
    let fields: [&[u8]; 4] = [b"a\xffb", b"a\nb", b"\x1b[31m", b"a b"];
    let mut client = redis.connect();
    for field in fields {
        for key in [
            "unread:v1:{app-0:r:r}:members",
            "unread:v1:{app-0:r:r}:pending",
        ] {
            let mut set = ::redis::cmd("HSET");
            let _: u64 = set
                .arg(key)
                .arg(field)
                .arg(member)
                .query(&mut client)
                .unwrap();
        }
    }
    let url = redis.url();
    let inspected = |more: &[&str]| {
        let room = ["--app", "app-0", "--room", "r", "--redis-url", &url];
        run_unread(&[&["inspect"], &room[..], more].concat())
    };
    for more in [&[][..], &["--json"]] {
        let shown = inspected(more);
        assert_eq!(shown.code, 0, "{shown:?}");
        for line in shown
            .stdout
            .lines()
            .filter(|line| line.contains("redis-cli"))
        {
            for bad in ["xff", "\\n", "u001b", "x1b", "a b"] {
                assert!(!line.contains(bad), "{line}");
            }
        }
    }
    let shown = inspected(&[]);
    pasted(&shown, &[]);
    assert!(shown.stdout.contains("\nunreadable: "), "{shown:?}");
}
