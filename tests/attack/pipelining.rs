//! Requests by the thousand on one connection, and nobody reads the answers.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::peer::{
    Costs, DIALECTS, Dialect, answer, assert_cheap, complaints, connect, metric_until, narrow,
    raise_files, stuff,
};
use crate::support::{App, Config, PATIENCE, Pod, RedisServer};

/// Without a line in the log for each of a hundred thousand answers.
pub(crate) fn config() -> Config {
    let mut config = Config::apps(1);
    config.extra = "[log]\nlevel = \"warn,unread::app=info\"\n".to_owned();
    config
}

/// A pod that has met every dialect once.
pub(crate) async fn warm(config: &Config, redis: &RedisServer) -> Pod {
    let pod = Pod::start(config, redis);
    let app = App::new(&config.apps[0], &pod.base);
    app.must(&json!([{"type": "user.updated", "user": "alice"}]))
        .await;
    for dialect in DIALECTS {
        let mut stream = connect(&pod).await;
        let request = dialect.request(&config.apps[0]);
        stream.write_all(request.as_bytes()).await.unwrap();
        dialect.assert_good(&answer(&mut stream, false).await);
    }
    pod
}

/// So many connections, each with all that is taken of 224 KB of requests, and nothing read.
pub(crate) async fn stuffed(pod: &Pod, number: u64) -> Vec<TcpStream> {
    let bytes: &'static [u8] = Box::leak(repeated(UNKNOWN, 224_000).into_boxed_slice());
    let mut tasks = Vec::new();
    for _ in 0..number {
        let mut stream = narrow(pod).await.unwrap();
        tasks.push(tokio::spawn(async move {
            stuff(&mut stream, bytes).await;
            stream
        }));
    }
    let mut streams = Vec::new();
    for task in tasks {
        streams.push(task.await.unwrap());
    }
    streams
}

pub(crate) fn repeated(request: &str, bytes: usize) -> Vec<u8> {
    request.repeat(bytes / request.len() + 1).into_bytes()
}

pub(crate) const UNKNOWN: &str = "GET /x HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_cost_no_cpu_and_little_memory() {
    // So many that the bound of each is not drowned in what the allocator takes for all of them: it takes memory by the megabyte.
    const OF_EACH: usize = 100;
    raise_files();
    let (redis, config) = (RedisServer::start(), config());
    let pod = warm(&config, &redis).await;
    let keys = &config.apps[0];
    let events = r#"[{"type":"user.updated","user":"bob"}]"#;
    let posted = format!(
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{events}",
        keys.server_key,
        events.len()
    );
    let mut requests = vec![UNKNOWN.to_owned(), posted];
    requests.extend(DIALECTS.map(|dialect| dialect.request(keys)));

    let costs = Costs::of(&pod);
    let before = costs.memory();
    let mut streams = Vec::new();
    let mut tasks = Vec::new();
    for request in requests.iter().cycle().take(OF_EACH * requests.len()) {
        let mut stream = narrow(&pod).await.unwrap();
        let bytes = repeated(request, 600_000);
        tasks.push(tokio::spawn(async move {
            stuff(&mut stream, &bytes).await;
            stream
        }));
    }
    for task in tasks {
        streams.push(task.await.unwrap());
    }
    let number = streams.len() as i64;
    costs.quiet("unread answers").await;
    let grown = costs.memory().saturating_sub(before);
    assert_cheap(grown, number as u64);
    // All of them go, and nobody else has noticed.
    metric_until(
        &pod,
        "unread_connections_cut_total{reason=\"write\"}",
        |cut| cut == number,
    )
    .await;
    metric_until(&pod, "unread_connections", |open| open == 0).await;
    let mut stream = connect(&pod).await;
    stream
        .write_all(Dialect::Sendbird.request(keys).as_bytes())
        .await
        .unwrap();
    Dialect::Sendbird.assert_good(&answer(&mut stream, false).await);
    assert_eq!(complaints(&pod), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_connections_cost_their_bound_and_give_it_back() {
    const NUMBER: u64 = 2_000;
    raise_files();
    let (redis, config) = (RedisServer::start(), config());
    let pod = warm(&config, &redis).await;
    let costs = Costs::of(&pod);
    let before = costs.memory();
    let streams = stuffed(&pod, NUMBER).await;
    let grown = costs.peak().saturating_sub(before);
    assert_cheap(grown, NUMBER);
    metric_until(&pod, "unread_connections", |open| open == 0).await;
    // The allocator gives pages back when it is called some ten thousand times, so while somebody asks.
    let request = Dialect::Sendbird.request(&config.apps[0]);
    let mut stream = connect(&pod).await;
    let begun = Instant::now();
    loop {
        let left = costs.memory().saturating_sub(before);
        if left < 32 << 20 {
            break;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{} MB are not given back",
            left >> 20
        );
        for _ in 0..100 {
            stream.write_all(request.as_bytes()).await.unwrap();
            Dialect::Sendbird.assert_good(&answer(&mut stream, false).await);
        }
    }
    drop(streams);
}

/// A peer that reads, but so little that it would hold its connection for days.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_reads_a_byte_now_and_then_goes_too() {
    let redis = RedisServer::start();
    let config = config();
    let toml = config.toml(&redis.url());
    let pod = Pod::start_toml(&toml.replace("[server]\n", "[server]\nwrite_timeout_ms = 2000\n"));
    let mut stream = narrow(&pod).await.unwrap();
    stuff(&mut stream, &repeated(UNKNOWN, 600_000)).await;
    let (mut read, _write) = stream.into_split();
    let reading = tokio::spawn(async move {
        let mut byte = [0];
        while let Ok(1) = read.read(&mut byte).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let start = Instant::now();
    metric_until(
        &pod,
        "unread_connections_cut_total{reason=\"write\"}",
        |cut| cut == 1,
    )
    .await;
    // The deadline, and what the little that is read can earn.
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    reading.abort();
}

/// Half-closed or reset in the middle of it: the connection is gone at once, or when its time is up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_closed_and_reset_connections_leave_nothing_behind() {
    const NUMBER: u64 = 600;
    raise_files();
    let (redis, config) = (RedisServer::start(), config());
    let pod = warm(&config, &redis).await;
    let costs = Costs::of(&pod);
    let before = costs.memory();
    let bytes = repeated(UNKNOWN, 200_000);
    let mut half_closed: Vec<TcpStream> = Vec::new();
    for n in 0..NUMBER {
        let mut stream = narrow(&pod).await.unwrap();
        let sent = stream.write(&bytes).await.unwrap();
        assert!(sent > 0);
        if n % 2 == 0 {
            stream.shutdown().await.unwrap();
            half_closed.push(stream);
        } else {
            stream.set_zero_linger().unwrap();
        }
    }
    costs.quiet("half-closed and reset connections").await;
    metric_until(&pod, "unread_connections", |open| open == 0).await;
    let grown = costs.memory().saturating_sub(before);
    assert_cheap(grown, NUMBER);
    assert_eq!(complaints(&pod), [""; 0]);
}
