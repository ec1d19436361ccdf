//! Heads that are slow, endless, or no heads.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;

use crate::peer::{
    Answer, Costs, DIALECTS, assert_cheap, complaints, connect, metric_until, raise_files, rest,
    stuff,
};
use crate::pipelining::{config, warm};
use crate::support::RedisServer;

/// As much of a head as is taken without being whole.
fn unfinished(path: &str, bytes: usize) -> Vec<u8> {
    let start = format!("GET {path} HTTP/1.1\r\nHost: x\r\nX: ");
    let filler = "x".repeat(bytes - start.len());
    (start + &filler).into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_heads_cost_their_bytes_and_end() {
    const NUMBER: u64 = 1_000;
    raise_files();
    let (redis, config) = (RedisServer::start(), config());
    let pod = warm(&config, &redis).await;
    let costs = Costs::of(&pod);
    let before = costs.memory();
    let (just, too_long) = (unfinished("/v3/x", 32_000), unfinished("/v3/x", 130_000));
    let mut streams = Vec::new();
    for _ in 0..NUMBER {
        let mut stream = connect(&pod).await;
        stuff(&mut stream, &just).await;
        streams.push(stream);
        // Refused before it is all there.
        let mut stream = connect(&pod).await;
        stuff(&mut stream, &too_long).await;
        streams.push(stream);
    }
    let grown = costs.peak().saturating_sub(before);
    assert_cheap(grown, NUMBER);
    metric_until(
        &pod,
        "unread_http_requests_unreadable_total{reason=\"head_too_large\"}",
        |refused| refused == NUMBER as i64,
    )
    .await;
    metric_until(&pod, "unread_connections", |open| open == 0).await;
    for (n, stream) in streams.iter_mut().enumerate().take(20) {
        let answer = Answer::parse(&rest(stream).await);
        let status = if n % 2 == 0 { 408 } else { 431 };
        crate::peer::Dialect::Sendbird.assert_refusal(status, &answer);
    }
    let left = costs.memory().saturating_sub(before);
    assert!(left < 32 << 20, "{} MB are not given back", left >> 20);
    assert_eq!(complaints(&pod), [""; 0]);
}

/// Byte by byte there is no end of it, but for the deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_comes_byte_by_byte_has_a_deadline() {
    let (redis, config) = (RedisServer::start(), config());
    let pod = warm(&config, &redis).await;
    let start = Instant::now();
    let slow = DIALECTS.map(|dialect| {
        let head = unfinished(dialect.path(), 10_000);
        let pod = &pod;
        async move {
            let mut stream = connect(pod).await;
            let mut sent = 0;
            // Until it is refused.
            while stream.write_all(&head[sent..sent + 1]).await.is_ok() && sent < 9_000 {
                sent += 1;
                let mut peeked = [0];
                if tokio::time::timeout(Duration::from_millis(100), stream.peek(&mut peeked))
                    .await
                    .is_ok()
                {
                    break;
                }
            }
            let answer = Answer::parse(&rest(&mut stream).await);
            dialect.assert_refusal(408, &answer);
        }
    });
    futures_util::future::join_all(slow).await;
    let took = start.elapsed();
    assert!((14..25).contains(&took.as_secs()), "{took:?}");
    // Whoever says nothing is told nothing.
    assert_eq!(complaints(&pod), [""; 0]);
}

/// A head that is sent byte by byte is not read again from its front for each of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_in_many_parts_costs_what_its_parts_cost() {
    let (redis, config) = (RedisServer::start(), config());
    let pod = warm(&config, &redis).await;
    let costs = Costs::of(&pod);
    let head = unfinished("/x", 30_000);
    let mut stream = connect(&pod).await;
    stream.set_nodelay(true).unwrap();
    let before = costs.cpu();
    for byte in &head {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    stream
        .write_all(b"\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let answer = Answer::parse(&rest(&mut stream).await);
    assert_eq!(answer.status, 404, "{answer:?}");
    let spent = costs.cpu() - before;
    // At most a wake and a read for each byte; reading all of it each time would be half a gigabyte of parsing.
    assert!(spent < Duration::from_secs(5), "{spent:?}");
}
