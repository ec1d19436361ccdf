//! `serve`: its private Redis, what keeps it from starting, and requests in flight when it ends.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use serde_json::json;

use super::{file, lives, redis_pid};
use crate::support::{App, Config, PATIENCE, Pod, RedisServer, quoted, run, unread, until};

fn private(config: &Config, data: &Path) -> String {
    config.toml_with(&format!("data_dir = {}", quoted(data.to_str().unwrap())))
}

#[tokio::test]
async fn a_private_redis_keeps_the_counts_and_leaves_nothing_behind() {
    let config = Config::apps(1);
    let dir = tempfile::tempdir().unwrap();
    // Not made yet.
    let data = dir.path().join("data");
    let toml = private(&config, &data);
    for round in 1..=2 {
        let mut pod = Pod::start_toml(&toml);
        pod.until_ready();
        let app = App::new(&config.apps[0], &pod.base);
        if round > 1 {
            assert_eq!(
                app.unread("alice", false).await.ok()["messages"]["total"],
                round - 1
            );
        }
        app.must(&json!([
            {"type": "message.sent", "to": "alice", "sender": "bob", "id": "1"},
            {"type": "message.sent", "to": "alice", "sender": "bob", "id": format!("round {round}")},
            {"type": "room.read", "peer": "bob", "user": "alice", "up_to_id": "1"},
        ]))
        .await;
        assert_eq!(
            app.unread("alice", false).await.ok()["messages"]["total"],
            round
        );

        // Nobody else may use the directory meanwhile.
        if round == 1 {
            let second = file(&toml);
            run(unread().arg("serve").arg("--config").arg(&second.path))
                .assert_failed_in_one_line(&[data.to_str().unwrap(), "in use"]);
        }
        let pid = redis_pid(&data).expect("a private Redis answers");
        assert!(lives(&pid));
        assert_eq!(pod.term(), Some(0));
        assert!(!lives(&pid), "redis-server outlived the pod");
        assert_eq!(redis_pid(&data), None);
    }
}

#[test]
fn what_keeps_a_pod_from_starting_is_one_line() {
    let config = Config::apps(1);
    let dir = tempfile::tempdir().unwrap();
    let toml = private(&config, &dir.path().join("data"));

    // Nothing is installed.
    let bare = file(&toml);
    let said = run(unread()
        .arg("serve")
        .arg("--config")
        .arg(&bare.path)
        .env("PATH", bare.dir.path()));
    said.assert_failed_in_one_line(&["redis-server", "install", "redis.url"]);

    // A port is taken, of either listener; before that is known nothing has been started.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, setting) in [
        ("--listen", "server.listen"),
        ("--admin-listen", "server.admin_listen"),
    ] {
        let file = file(&toml);
        let said = run(unread()
            .arg("serve")
            .arg("--config")
            .arg(&file.path)
            .args([flag, &address]));
        said.assert_failed_in_one_line(&[&address, setting, flag]);
    }
    assert!(!dir.path().join("data/redis.sock").exists());

    // The data directory is a file.
    let blocked = dir.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let blocked = file(&private(&config, &blocked));
    let said = run(unread().arg("serve").arg("--config").arg(&blocked.path));
    said.assert_failed_in_one_line(&[dir.path().join("file").to_str().unwrap()]);
}

/// A request whose body has not come whole: its first half sent.
fn half_a_request(app: &App, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(app.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
        app.keys.server_key,
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
        .write_all(&body.as_bytes()[..body.len() / 2])
        .unwrap();
    stream
}

fn in_flight(pod: &Pod) -> Option<u64> {
    pod.metric("unread_http_requests_in_flight")
}

#[tokio::test]
async fn a_request_in_flight_is_finished_after_sigterm() {
    let redis = RedisServer::start();
    let mut pod = Pod::start(&Config::apps(1), &redis);
    let app = App::new(&Config::apps(1).apps[0], &pod.base);
    let body =
        json!({"type": "message.sent", "to": "alice", "sender": "bob", "id": "1"}).to_string();
    let mut stream = half_a_request(&app, &body);
    until("the request in flight", || {
        (in_flight(&pod)? == 1).then_some(())
    });
    pod.ask_to_end();
    until("the pod's stopping", || {
        pod.log()
            .iter()
            .any(|line| line.contains("\"message\":\"stopping\""))
            .then_some(())
    });
    // Nobody new gets in.
    until("the listener's end", || {
        TcpStream::connect(app.address()).is_err().then_some(())
    });
    stream
        .write_all(&body.as_bytes()[body.len() / 2..])
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\"applied\":1"), "{answer}");
    assert_eq!(pod.ended(), Some(0));

    let pod = Pod::start(&Config::apps(1), &redis);
    let counts = app.on(&pod.base).unread("alice", false).await.ok();
    assert_eq!(counts["messages"]["total"], 1);
}

#[test]
fn a_request_that_never_ends_does_not_keep_the_pod() {
    let redis = RedisServer::start();
    let config = Config::apps(1);
    let toml = config.toml(&redis.url()).replace(
        "[server]",
        // Longer than the test waits: only the grace time can end it.
        "[server]\ngrace_seconds = 1\nbody_timeout_ms = 600000",
    );
    let mut pod = Pod::start_toml(&toml);
    let app = App::new(&config.apps[0], &pod.base);
    let _stream = half_a_request(&app, "{\"type\": \"user.updated\", \"user\": \"x\"}");
    until("the request in flight", || {
        (in_flight(&pod)? == 1).then_some(())
    });
    assert_eq!(pod.term(), Some(0));
}
