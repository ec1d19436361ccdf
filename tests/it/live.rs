//! Streams of counts as they change: what comes, when, and to whom.

/// Who gets a stream, and how one ends.
mod entry;

/// Over WebSocket.
mod socket;

/// With rooms.
mod rooms;

/// In supergroups.
mod supergroups;

/// Random histories with watchers, and what goes wrong beneath them.
mod histories;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::stream::Events;
use crate::support::{
    App, Config, Own, PATIENCE, Pod, RedisServer, app, eventually, signal, unread, until,
};

/// A group of these users.
fn group(room: &str, users: &[&str]) -> Value {
    json!([
        {"type": "room.updated", "room": room, "kind": "group"},
        {"type": "member.joined", "room": room, "users": users},
    ])
}

fn message(room: &str, sender: &str, id: &str) -> Value {
    json!({"type": "message.sent", "room": room, "sender": sender, "id": id})
}

/// What is read of a user, in the form in which a stream has it.
async fn read(app: &App, user: &str) -> Value {
    let mut read = app.unread(user, false).await.ok();
    let read = read.as_object_mut().unwrap();
    read.remove("tags");
    read.remove("types");
    json!(read)
}

/// Waits until the stream has said what is read.
async fn catches_up(stream: &mut Events, app: &App, user: &str) -> Value {
    let expected = read(app, user).await;
    stream
        .until("what is read", |counts| *counts == expected)
        .await;
    expected
}

#[tokio::test]
async fn counts_come_at_once_and_with_every_change_on_any_pod() {
    let redis = RedisServer::start();
    let config = Config::apps(1);
    let pods = [(); 2].map(|()| Pod::start(&config, &redis));
    let [one, other] = pods
        .each_ref()
        .map(|pod| App::new(&config.apps[0], &pod.base));
    one.must(&group("r", &["alice", "bob"])).await;
    one.must(&message("r", "bob", "1")).await;
    let mut streams = [
        one.watch_users(&["alice"]).await,
        other.watch_users(&["alice"]).await,
    ];
    for stream in &mut streams {
        let counts = stream.counts().await;
        assert_eq!(counts, read(&one, "alice").await);
        assert_eq!(counts["messages"]["total"], 1);
    }
    for (n, app) in [&one, &other, &one].into_iter().enumerate() {
        app.must(&message("r", "bob", &format!("more {n}"))).await;
        for stream in &mut streams {
            catches_up(stream, app, "alice").await;
        }
    }
    other
        .must(&json!({"type": "room.read", "room": "r", "user": "alice"}))
        .await;
    for stream in &mut streams {
        let counts = catches_up(stream, &one, "alice").await;
        assert_eq!(counts["messages"]["total"], 0);
        // Nothing comes that says the same again.
        assert!(stream.is_silent_for(Duration::from_millis(300)).await);
    }
}

#[tokio::test]
async fn every_sort_of_change_is_told_without_waiting_for_the_sweep() {
    let app = app();
    app.must(&group("r", &["bob"])).await;
    let mut stream = app.watch_users(&["alice"]).await;
    // A user whom nobody knows has nothing unread.
    assert_eq!(stream.counts().await["messages"]["total"], 0);
    let change =
        async |event: Value, stream: &mut Events, what: &str, is: &dyn Fn(&Value) -> bool| {
            app.must(&event).await;
            let took = stream.until(what, is).await;
            assert!(took < Duration::from_secs(5), "{what} took {took:?}");
        };
    let total = |family: &'static str, n: u64| move |counts: &Value| counts[family]["total"] == n;
    change(
        json!({"type": "member.invited", "room": "r", "users": ["alice"]}),
        &mut stream,
        "an invitation",
        &total("invitations", 1),
    )
    .await;
    change(
        json!([
            {"type": "member.joined", "room": "r", "users": ["alice"]},
            {"type": "message.sent", "room": "r", "sender": "bob", "id": "1", "mentions": ["alice"]},
        ]),
        &mut stream,
        "a mention",
        &total("mentions", 1),
    )
    .await;
    change(
        json!({"type": "message.recalled", "room": "r", "id": "1"}),
        &mut stream,
        "a recall",
        &total("messages", 0),
    )
    .await;
    change(
        message("r", "bob", "2"),
        &mut stream,
        "a message",
        &total("messages", 1),
    )
    .await;
    let pref =
        |count| json!({"type": "pref.updated", "room": "r", "user": "alice", "count": count});
    change(
        pref("none"),
        &mut stream,
        "a preference",
        &total("messages", 0),
    )
    .await;
    change(
        pref("all"),
        &mut stream,
        "another preference",
        &total("messages", 1),
    )
    .await;
    change(
        json!({"type": "room.updated", "room": "r", "status": 0}),
        &mut stream,
        "an inactive room",
        &total("messages", 0),
    )
    .await;
    change(
        json!({"type": "room.updated", "room": "r", "status": 1}),
        &mut stream,
        "an active room",
        &total("messages", 1),
    )
    .await;
    change(
        json!({"type": "room.read", "room": "r", "user": "alice"}),
        &mut stream,
        "a read",
        &total("messages", 0),
    )
    .await;
    change(
        json!({"type": "room.unread", "room": "r", "user": "alice", "from_position": 2}),
        &mut stream,
        "a reset",
        &total("messages", 1),
    )
    .await;
    change(
        json!({"type": "message.sent", "to": "alice", "sender": "carol", "id": "1"}),
        &mut stream,
        "a direct message",
        &total("messages", 2),
    )
    .await;
    change(
        json!({"type": "user.deleted", "user": "alice"}),
        &mut stream,
        "a deletion",
        &total("messages", 0),
    )
    .await;
}

/// Whatever says that a pod has to look is lost: within 15 seconds it looks all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_heard_is_seen_within_fifteen_seconds() {
    let Own {
        app,
        redis,
        pod: _pod,
        ..
    } = Own::start("");
    app.must(&group("r", &["alice", "bob"])).await;
    let mut stream = app.watch_users(&["alice"]).await;
    stream.counts().await;
    let key = format!("unread:v1:{{{}:u:alice}}:counts", app.keys.id);
    eventually("the mark is there", || async {
        match redis.cli(&["HGET", &key, "live"]).as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    redis.cli(&["HDEL", &key, "live"]);
    app.must(&message("r", "bob", "1")).await;
    let took = stream
        .until("the message", |counts| counts["messages"]["total"] == 1)
        .await;
    assert!(took < Duration::from_secs(15), "{took:?}");
    // The same when the connection breaks on which they are heard.
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    app.must(&message("r", "bob", "2")).await;
    let took = stream
        .until("the next message", |counts| {
            counts["messages"]["total"] == 2
        })
        .await;
    assert!(took < Duration::from_secs(15), "{took:?}");
}

/// What many changes in a row cost: a few messages on the channel and a few on the stream, the last of them the newest state.
#[tokio::test]
async fn many_changes_are_few_messages() {
    let Own {
        app, redis, pod, ..
    } = Own::start("");
    app.must(&group("r", &["alice", "bob"])).await;
    let mut stream = app.watch_users(&["alice"]).await;
    stream.counts().await;
    let before = redis.calls().get("spublish").copied().unwrap_or(0);
    for n in 0..30 {
        let ten: Vec<Value> = (0..10)
            .map(|m| message("r", "bob", &format!("{n}-{m}")))
            .collect();
        app.must(&json!(ten)).await;
    }
    let mut messages = 0;
    loop {
        messages += 1;
        if stream.counts().await["messages"]["total"] == 300 {
            break;
        }
    }
    let published = redis.calls().get("spublish").copied().unwrap_or(0) - before;
    assert!(
        messages <= 200 && published <= 200,
        "{messages} {published}"
    );
    let updates: u64 = pod.metric("unread_live_updates_total").unwrap();
    assert_eq!(updates, messages + 1);
}

/// Nobody watches: no command more.
#[tokio::test]
async fn a_delivery_to_nobody_who_watches_costs_no_command_more() {
    let Own {
        app,
        redis,
        pod: _pod,
        ..
    } = Own::start("");
    app.must(&group("r", &["alice", "bob", "carol"])).await;
    app.must(&message("r", "bob", "1")).await;
    let before = redis.calls();
    app.must(&message("r", "bob", "2")).await;
    let after = redis.calls();
    for never in ["spublish", "hsetnx", "ssubscribe"] {
        assert_eq!(after.get(never), before.get(never), "{never}");
    }
    // Once the stream has ended, a change takes the mark away, and that is all.
    let mut stream = app.watch_users(&["alice"]).await;
    stream.counts().await;
    drop(stream);
    eventually("nobody is heard", || async {
        let channels = redis.cli(&["PUBSUB", "SHARDCHANNELS"]);
        let only = channels == "unread:v1:{live}:apps";
        only.then_some(()).ok_or(channels)
    })
    .await;
    app.must(&message("r", "bob", "3")).await;
    let before = redis.calls();
    app.must(&message("r", "bob", "4")).await;
    assert_eq!(redis.calls().get("spublish"), before.get("spublish"));
}

#[tokio::test]
async fn the_command_watch_prints_counts_as_they_change() {
    let Own {
        app,
        redis,
        pod: _pod,
        ..
    } = Own::start("");
    app.must(&group("r", &["alice", "bob"])).await;
    let url = redis.url();
    let arguments = ["watch", "--app", &app.keys.id, "--user", "alice", "--json"];
    let mut child = unread()
        .args(arguments)
        .args(["--redis-url", &url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, lines) = mpsc::channel();
    let out = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            let line: Value = serde_json::from_str(&line).unwrap();
            let _ = sender.send(line);
        }
    });
    let next = || lines.recv_timeout(PATIENCE).unwrap();
    assert_eq!(next()["messages"]["total"], 0);
    app.must(&message("r", "bob", "1")).await;
    let line = next();
    assert_eq!(line["messages"]["group"], 1);
    assert_eq!(line, read(&app, "alice").await);
    signal(&child, "TERM");
    assert_eq!(
        until("the end of the command", || child.try_wait().unwrap()).code(),
        Some(0)
    );
}

/// Zeros of an app that is misspelt would look like those of a user who has read everything.
#[tokio::test]
async fn the_command_watch_ends_where_the_app_is_not_there() {
    let Own {
        app,
        redis,
        pod: _pod,
        ..
    } = Own::start("");
    app.must(&group("r", &["alice"])).await;
    let url = redis.url();
    let watch = |of: &str| {
        let arguments = ["watch", "--app", of, "--user", "nobody"];
        let mut child = unread()
            .args(arguments)
            .args(["--redis-url", &url])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        if !line.is_empty() {
            signal(&child, "TERM");
        }
        let ran = child.wait_with_output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        (ran.status.code(), line, said)
    };
    let (code, line, said) = watch("nope");
    assert_eq!((code, line.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains("nothing is kept of app \"nope\""), "{said}");
    // A user may come later.
    let (code, line, said) = watch(&app.keys.id);
    assert_eq!(code, Some(0), "{said}");
    assert!(line.starts_with("nobody: messages 0"), "{line}");
}
