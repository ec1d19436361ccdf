//! More connections than there are places, and fewer files than there should be.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::peer::{
    Answer, Costs, DIALECTS, Dialect, answer, complaints, connect, connect_from, metric_until,
    narrow, raise_files, rest,
};
use crate::pipelining::config;
use crate::support::{App, Config, Pod, RedisServer, Wait, unread, until};

fn start(config: &Config, redis: &RedisServer, settings: &str) -> Pod {
    let toml = config.toml(&redis.url());
    let pod = Pod::start_toml(&toml.replace("[server]\n", &format!("[server]\n{settings}\n")));
    pod.until_ready();
    pod
}

/// A connection in the middle of a request: nothing makes it go before its deadline.
async fn busy(pod: &Pod, config: &Config, last: u8) -> TcpStream {
    let mut stream = connect_from(pod, last).await.unwrap();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 2\r\n\r\n[",
        config.apps[0].server_key
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_a_place_is_refused_at_once_in_the_words_of_its_dialect() {
    let (redis, config) = (RedisServer::start(), config());
    let pod = start(&config, &redis, "max_connections = 50");
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(busy(&pod, &config, 1).await);
    }
    metric_until(&pod, "unread_http_requests_in_flight", |busy| busy == 50).await;
    let mut refused = 0;
    for dialect in DIALECTS {
        let soon = Instant::now();
        let mut stream = connect(&pod).await;
        stream
            .write_all(dialect.request(&config.apps[0]).as_bytes())
            .await
            .unwrap();
        let answer = Answer::parse(&rest(&mut stream).await);
        dialect.assert_refusal(503, &answer);
        assert!(
            soon.elapsed() < Duration::from_secs(2),
            "{:?}",
            soon.elapsed()
        );
        refused += 1;
    }
    // Who does not say what it wants is told in the native form, and soon.
    let mut silent = connect(&pod).await;
    let soon = Instant::now();
    Dialect::Native.assert_refusal(503, &Answer::parse(&rest(&mut silent).await));
    assert!(
        soon.elapsed() < Duration::from_secs(2),
        "{:?}",
        soon.elapsed()
    );
    refused += 1;
    // A thousand at once: all of them hear something, and nobody waits.
    raise_files();
    let request = Dialect::Sendbird.request(&config.apps[0]);
    let mut streams = Vec::new();
    for _ in 0..1_000 {
        let mut stream = connect(&pod).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        streams.push(stream);
        refused += 1;
    }
    for stream in &mut streams {
        Dialect::Sendbird.assert_refusal(503, &Answer::parse(&rest(stream).await));
    }
    let counted = "unread_connections_refused_total{reason=\"full\"}";
    assert_eq!(pod.metric(counted), Some(refused));
    assert_eq!(pod.admin_status("/livez"), Some(200));
    let warned = |pod: &Pod| {
        pod.log()
            .iter()
            .filter(|line| line.contains("full: new"))
            .count()
    };
    assert_eq!(warned(&pod), 1, "{}", pod.log_tail());
    // Those who were there first have noticed nothing.
    for stream in &mut held {
        stream.write_all(b"]").await.unwrap();
        let answer = answer(stream, false).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    drop(held);
    metric_until(&pod, "unread_connections", |open| open == 0).await;
    let mut stream = connect(&pod).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_ne!(answer(&mut stream, false).await.status, 503);
    assert_eq!(complaints(&pod), [""; 0]);
}

/// Those that only wait make room for those that want something, and of them those of whoever has most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_make_room() {
    let (redis, config) = (RedisServer::start(), config());
    let pod = start(&config, &redis, "max_connections = 64\nworkers = 1");
    let mut greedy = Vec::new();
    let mut modest = Vec::new();
    for n in 0..62 {
        let last = if n % 16 == 0 { 3 } else { 2 };
        let stream = connect_from(&pod, last).await.unwrap();
        if last == 3 { &mut modest } else { &mut greedy }.push(stream);
    }
    metric_until(
        &pod,
        "unread_connections_cut_total{reason=\"room\"}",
        |cut| cut >= 2,
    )
    .await;
    let request = Dialect::Sendbird.request(&config.apps[0]);
    for _ in 0..100 {
        let mut stream = connect_from(&pod, 4).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = answer(&mut stream, false).await;
        assert_eq!(answer.body["code"], 400_201, "{answer:?}");
    }
    for stream in &mut modest {
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = answer(stream, false).await;
        assert_eq!(answer.body["code"], 400_201, "{answer:?}");
    }
    let mut gone = 0;
    for stream in &mut greedy {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut byte));
        gone += usize::from(matches!(read.await, Ok(Ok(0))));
    }
    assert!((2..20).contains(&gone), "{gone}");
    assert_eq!(
        pod.metric("unread_connections_refused_total{reason=\"full\"}"),
        Some(0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_has_its_share_only() {
    let (redis, config) = (RedisServer::start(), config());
    let pod = start(&config, &redis, "max_connections_per_address = 10");
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(busy(&pod, &config, 2).await);
    }
    metric_until(&pod, "unread_http_requests_in_flight", |busy| busy == 10).await;
    let request = Dialect::Imkit.request(&config.apps[0]);
    let mut stream = connect_from(&pod, 2).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    Dialect::Imkit.assert_refusal(503, &Answer::parse(&rest(&mut stream).await));
    assert_eq!(
        pod.metric("unread_connections_refused_total{reason=\"address\"}"),
        Some(1)
    );
    let mut stream = connect_from(&pod, 3).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    Dialect::Imkit.assert_good(&answer(&mut stream, false).await);
    held.pop();
    metric_until(&pod, "unread_connections", |open| open == 10).await;
    let mut stream = connect_from(&pod, 2).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    Dialect::Imkit.assert_good(&answer(&mut stream, false).await);
}

/// A proxy stands for many callers: what bounds one of them does not bound all of them together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_is_not_bound_like_one_address() {
    let (redis, config) = (RedisServer::start(), config());
    let settings = "max_connections_per_address = 10\ntrusted_proxies = [\"127.0.0.2\"]";
    let pod = start(&config, &redis, settings);
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(busy(&pod, &config, 2).await);
    }
    for _ in 0..10 {
        held.push(busy(&pod, &config, 3).await);
    }
    metric_until(&pod, "unread_http_requests_in_flight", |busy| busy == 40).await;
    let request = Dialect::Imkit.request(&config.apps[0]);
    let mut stream = connect_from(&pod, 2).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    Dialect::Imkit.assert_good(&answer(&mut stream, false).await);
    let mut stream = connect_from(&pod, 3).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    Dialect::Imkit.assert_refusal(503, &Answer::parse(&rest(&mut stream).await));
    assert_eq!(
        pod.metric("unread_connections_refused_total{reason=\"address\"}"),
        Some(1)
    );
}

/// Few files: it says so at the start, keeps some for itself, and never runs out of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_with_few_files_keeps_some_for_itself() {
    let (redis, config) = (RedisServer::start(), config());
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -n 256; exec \"$0\" \"$@\""]);
    limited.arg(unread().get_program());
    let pod = Pod::start_by(limited, &config.toml(&redis.url()));
    pod.until_ready();
    let warned = pod
        .log()
        .iter()
        .any(|line| line.contains("limit of open files"));
    assert!(warned, "{}", pod.log_tail());
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(connect_from(&pod, 2).await.unwrap());
    }
    metric_until(
        &pod,
        "unread_connections_refused_total{reason=\"full\"}",
        |refused| refused > 50,
    )
    .await;
    let costs = Costs::of(&pod);
    costs.quiet("few files").await;
    assert_eq!(pod.admin_status("/livez"), Some(200));
    // It takes a moment until those who only wait have made room.
    let request = Dialect::Imkit.request(&config.apps[0]);
    let start = Instant::now();
    loop {
        let mut stream = connect(&pod).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = answer(&mut stream, false).await;
        if answer.status == 200 {
            break;
        }
        Dialect::Imkit.assert_refusal(503, &answer);
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "nobody makes room"
        );
    }
    assert_eq!(complaints(&pod), [""; 0]);
}

/// The soft limit is what a shell gives; the pod takes what it may have.
#[test]
fn the_limit_of_files_is_raised() {
    let (redis, config) = (RedisServer::start(), config());
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -Sn 512; exec \"$0\" \"$@\""]);
    limited.arg(unread().get_program());
    let pod = Pod::start_by(limited, &config.toml(&redis.url()));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", pod.pid())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "{line}");
}

/// Large answers with good credentials, and nobody takes them: they have a sum of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_that_nobody_takes_cost_a_bounded_sum() {
    const SUM: u64 = 16 << 20;
    // Twice as much as the sum.
    const ASKED: i64 = 100;
    let (redis, config) = (RedisServer::start(), config());
    // Nobody is cut for a write that waits: on a slow machine that would come before the sum is reached.
    let settings = format!("max_answers_bytes = {SUM}\nwrite_timeout_ms = 600000");
    let pod = start(&config, &redis, &settings);
    let keys = &config.apps[0];
    let app = App::new(keys, &pod.base);
    // 1,000 rejections that name a long room each: 300 KB.
    let room = "r".repeat(250);
    let event = json!({"type": "member.joined", "room": room, "user": "u"});
    let events = serde_json::Value::from(vec![event; 1_000]);
    let answer_bytes = app.events(&events, Wait::Applied).await.text.len() as u64;
    assert!(answer_bytes > 200_000, "{answer_bytes}");
    let body = events.to_string();
    let request = format!(
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
        keys.server_key,
        body.len()
    );
    let costs = Costs::of(&pod);
    let before = costs.memory();
    let mut streams = Vec::new();
    let done = "unread_http_request_duration_seconds_count{endpoint=\"native_events\",method=\"POST\",status=\"";
    let handled = || {
        ["200", "503"].map(|status| {
            let name = format!("{done}{status}\"}}");
            pod.metric(&name).unwrap_or(0)
        })
    };
    for n in 0..ASKED {
        let mut stream = narrow(&pod).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        streams.push(stream);
        // One after the other: what is measured is what waits, not what is being worked on.
        until("the answer", || {
            (handled().iter().sum::<i64>() > n + 1).then_some(())
        });
    }
    let [_, refused] = handled();
    println!("{refused} of {ASKED} were refused in words");
    metric_until(
        &pod,
        "unread_connections_cut_total{reason=\"answers\"}",
        |cut| cut > 10,
    )
    .await;
    let grown = costs.peak().saturating_sub(before);
    // The sum, what is just being built and parsed, and what the engine has of each.
    assert!(grown < SUM + (32 << 20), "{} MB", grown >> 20);
    // Somebody who takes it gets it.
    let start = Instant::now();
    loop {
        let reply = app.events(&events, Wait::Applied).await;
        if reply.status == 200 {
            assert_eq!(reply.text.len() as u64, answer_bytes);
            break;
        }
        assert_eq!(reply.status, 503, "{reply:?}");
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
        assert!(start.elapsed() < Duration::from_secs(20), "still refused");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(complaints(&pod), [""; 0]);
}
