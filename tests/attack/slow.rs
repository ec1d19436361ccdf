//! Bodies that are slow or endless, and connections on which nothing happens.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::peer::{
    Answer, Costs, Dialect, answer, assert_cheap, complaints, connect, metric_until, raise_files,
    rest,
};
use crate::pipelining::{config, warm};
use crate::support::{Config, Pod, RedisServer};

/// Sends the parts one after the other, until there is an answer, and reads that to the end of the connection.
async fn slowly(pod: &Pod, head: &str, part: &[u8], pause: Duration) -> (Answer, Duration) {
    let mut stream = connect(pod).await;
    stream.set_nodelay(true).unwrap();
    let start = Instant::now();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut peeked = [0];
    while tokio::time::timeout(pause, stream.peek(&mut peeked))
        .await
        .is_err()
    {
        if stream.write_all(part).await.is_err() {
            break;
        }
    }
    let answer = Answer::parse(&rest(&mut stream).await);
    (answer, start.elapsed())
}

fn imkit_head(config: &Config, with: &str) -> String {
    let head = Dialect::Imkit.head(&config.apps[0]);
    head.replace("GET /rooms", "POST /badges/byRoomTags") + with + "\r\n"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_endless_bodies_have_a_deadline_and_hold_little() {
    const OF_EACH: usize = 40;
    let (redis, config) = (RedisServer::start(), config());
    let pod = warm(&config, &redis).await;
    let costs = Costs::of(&pod);
    let before = costs.memory();
    let second = Duration::from_secs(1);
    let chunked = imkit_head(&config, "Transfer-Encoding: chunked\r\n");
    let counted = imkit_head(&config, "Content-Length: 60000\r\n");
    let tencent = Dialect::Tencent.head(&config.apps[0]) + "Content-Length: 60000\r\n\r\n";
    let stranger = "POST /badges/byRoomTags HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n";
    let tick = Duration::from_millis(5);
    let extension = chunked.clone() + "1;";
    let letters = "x".repeat(200);
    let trailer = chunked.clone() + "2\r\n{}\r\n0\r\n";
    let lines = "x: yyyyy\r\n".repeat(20);
    // (what is sent, then again and again, how fast, what it comes to: a status, or the 401 of whoever is no one)
    let kinds: [(&str, &str, Duration, u16); 7] = [
        (&counted, " ", second, 408),
        (&tencent, " ", second, 408),
        (stranger, " ", second, 403),
        (&chunked, "1\r\n \r\n", tick, 408),
        (&chunked, "1;x=y\r\n \r\n", second, 408),
        (&extension, &letters, tick, 400),
        (&trailer, &lines, tick, 400),
    ];
    let calls = kinds
        .iter()
        .flat_map(|kind| std::iter::repeat_n(kind, OF_EACH));
    let calls = calls.map(|(head, part, pause, status)| {
        let pod = &pod;
        async move {
            let (answer, took) = slowly(pod, head, part.as_bytes(), *pause).await;
            let kind = (head.lines().next(), part);
            assert!(took < Duration::from_secs(30), "{kind:?}: {took:?}");
            match status {
                403 => assert_eq!(answer.body["RC"], 403, "{answer:?}"),
                408 if head.contains("/v4/") => {
                    assert_eq!(answer.body["ErrorCode"], 60008, "{answer:?}");
                }
                _ => assert_eq!(answer.body["RC"], *status, "{kind:?}: {answer:?}"),
            }
            assert_eq!(
                answer.header("connection"),
                Some("close"),
                "{kind:?}: {answer:?}"
            );
        }
    });
    futures_util::future::join_all(calls).await;
    let number = (OF_EACH * kinds.len()) as u64;
    let grown = costs.peak().saturating_sub(before);
    assert_cheap(grown, number);
    metric_until(&pod, "unread_connections", |open| open == 0).await;
    assert_eq!(complaints(&pod), [""; 0]);
}

/// What a stalled body pins is bounded by what its handler has read, not by what its sender has sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_no_handler_reads_costs_no_memory() {
    const NUMBER: u64 = 500;
    raise_files();
    let (redis, config) = (RedisServer::start(), config());
    let pod = warm(&config, &redis).await;
    let costs = Costs::of(&pod);
    let before = costs.memory();
    // Too large by its own account, so that nobody reads it; sent all the same.
    let head = imkit_head(&config, "Content-Length: 1000000\r\n");
    let body = vec![b' '; 1_000_000];
    let mut tasks = Vec::new();
    for _ in 0..NUMBER {
        let mut stream = connect(&pod).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let body = body[..100_000].to_vec();
        tasks.push(tokio::spawn(async move {
            let _ = stream.write_all(&body).await;
            Answer::parse(&rest(&mut stream).await)
        }));
    }
    for task in tasks {
        let answer = task.await.unwrap();
        assert_eq!(answer.body["RC"], 413, "{answer:?}");
    }
    let grown = costs.peak().saturating_sub(before);
    assert_cheap(grown, NUMBER);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_come_after_100_continue_is_timed_out() {
    let (redis, config) = (RedisServer::start(), config());
    let pod = warm(&config, &redis).await;
    let head = imkit_head(&config, "Expect: 100-continue\r\nContent-Length: 20\r\n");
    let mut stream = connect(&pod).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let all = rest(&mut stream).await;
    let all = all.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    assert_eq!(Answer::parse(all).body["RC"], 408, "{all}");
}

/// A connection that only waits costs next to nothing, and is closed when it has waited long enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_cost_next_to_nothing() {
    const NUMBER: u64 = 3_000;
    raise_files();
    let (redis, config) = (RedisServer::start(), config());
    warm(&config, &redis).await;
    let toml = config.toml(&redis.url());
    let pod = Pod::start_toml(&toml.replace("[server]\n", "[server]\nkeep_alive_seconds = 8\n"));
    let costs = Costs::of(&pod);
    let request = Dialect::Sendbird.request(&config.apps[0]);
    let mut first = connect(&pod).await;
    first.write_all(request.as_bytes()).await.unwrap();
    Dialect::Sendbird.assert_good(&answer(&mut first, false).await);
    let before = costs.memory();
    let mut streams: Vec<TcpStream> = Vec::new();
    for _ in 0..NUMBER {
        let mut stream = connect(&pod).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        Dialect::Sendbird.assert_good(&answer(&mut stream, false).await);
        streams.push(stream);
    }
    // Two seconds after its last answer the pod keeps nothing of a connection but the socket. Not a condition to wait for: the
    // first ones are closed after eight seconds, and that must not be what makes the memory small.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let grown = costs.memory().saturating_sub(before);
    assert!(grown < NUMBER * (8 << 10), "{} KB", grown >> 10);
    // It wakes up when it is used, and is as good as new.
    let last = streams.last_mut().unwrap();
    for _ in 0..2 {
        last.write_all(request.as_bytes()).await.unwrap();
        Dialect::Sendbird.assert_good(&answer(last, false).await);
    }
    metric_until(&pod, "unread_connections", |open| open == 0).await;
    let mut byte = [0];
    assert_eq!(
        streams[0].read(&mut byte).await.unwrap(),
        0,
        "closed without a word"
    );
}
