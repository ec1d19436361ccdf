//! Streams whose readers stop, and streams that are opened and dropped by the thousand.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::peer::{Costs, complaints, connect, metric_until, narrow, raise_files};
use crate::support::{App, Config, Pod, RedisServer, Wait};

/// A user in so many rooms that the kernels of both sides can't hold its rows.
const ROOMS: usize = 800;

async fn begin() -> (RedisServer, Pod, App) {
    let redis = RedisServer::start();
    let mut config = Config::apps(1);
    config.extra = "[live]\nbeat_ms = 1000\n".to_owned();
    let pod = Pod::start(&config, &redis);
    let app = App::new(&config.apps[0], &pod.base);
    let mut events = vec![json!({"type": "room.updated", "room": "calm", "kind": "group"})];
    events.push(json!({"type": "member.joined", "room": "calm", "users": ["bob", "carol"]}));
    for n in 0..ROOMS {
        let room = format!("{n:03}{}", "x".repeat(230));
        events.push(json!({"type": "room.updated", "room": room, "kind": "group"}));
        events.push(json!({"type": "member.joined", "room": room, "users": ["alice", "bob"]}));
    }
    app.must(&json!(events)).await;
    (redis, pod, app)
}

/// Asks for a stream, and reads nothing of it.
async fn ask(mut stream: TcpStream, app: &App, user: &str) -> TcpStream {
    let head = format!(
        "GET /v1/live?include=rooms&users={user} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        app.keys.server_key
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn message(app: &App, room: &str, id: usize) {
    let event: Value =
        json!({"type": "message.sent", "room": room, "sender": "bob", "id": id.to_string()});
    assert_eq!(app.events(&event, Wait::Applied).await.status, 200);
}

/// One pauses for half a minute and goes on with the newest counts. One never reads: it is gone within a minute. Somebody else
/// does not notice, and the pod holds little for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stop_cost_little_and_are_cut_off() {
    let (_redis, pod, app) = begin().await;
    let costs = Costs::of(&pod);
    let mut others = app.watch_users(&["carol"]).await;
    others.counts().await;
    let before = costs.memory();
    let begun = Instant::now();
    let mut pauses = Vec::new();
    for _ in 0..20 {
        pauses.push(ask(narrow(&pod).await.unwrap(), &app, "alice").await);
    }
    let mut never = Vec::new();
    for _ in 0..20 {
        never.push(ask(narrow(&pod).await.unwrap(), &app, "alice").await);
    }
    let mut sent = 0;
    while begun.elapsed() < Duration::from_secs(25) {
        for _ in 0..20 {
            sent += 1;
            let room = format!("{:03}{}", sent % ROOMS, "x".repeat(230));
            message(&app, &room, sent).await;
        }
        message(&app, "calm", sent).await;
        let took = others
            .until("the message", |counts| counts["user"] == "carol")
            .await;
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
    let grown = costs.memory().saturating_sub(before);
    assert!(grown < 48 << 20, "{} MB", grown >> 20);
    // Those that go on get the newest counts.
    let newest = format!("\"total\":{sent},");
    for mut stream in pauses {
        let mut all = Vec::new();
        let reading = async {
            while !String::from_utf8_lossy(&all).contains(&newest) {
                assert_ne!(stream.read_buf(&mut all).await.unwrap(), 0);
            }
        };
        let read = tokio::time::timeout(Duration::from_secs(30), reading).await;
        assert!(read.is_ok(), "{} bytes", all.len());
    }
    metric_until(&pod, "unread_live_streams", |streams| streams == 1).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(75), "{took:?}");
    let cut: u64 = pod
        .metric("unread_connections_cut_total{reason=\"write\"}")
        .unwrap();
    assert_eq!(cut, 20);
    drop(never);
    assert_eq!(complaints(&pod), [""; 0]);
}

/// Opened and dropped, most of them before anything was sent on them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_streams_are_opened_and_dropped() {
    raise_files();
    let (_redis, pod, app) = begin().await;
    let mut open = tokio::task::JoinSet::new();
    for n in 0..5_000 {
        let stream = connect(&pod).await;
        let app = app.clone();
        open.spawn(async move {
            let mut stream = ask(stream, &app, &format!("user{}", n % 700)).await;
            if n % 3 == 0 {
                let _ = stream.read(&mut [0; 256]).await;
            }
            stream
        });
    }
    let streams = open.join_all().await;
    drop(streams);
    metric_until(&pod, "unread_live_streams", |streams| streams == 0).await;
    metric_until(&pod, "unread_live_users", |users| users == 0).await;
    let mut stream = app.watch_users(&["carol"]).await;
    stream.counts().await;
    message(&app, "calm", 1).await;
    stream
        .until("the message", |counts| counts["messages"]["total"] == 1)
        .await;
    assert_eq!(complaints(&pod), [""; 0]);
}
