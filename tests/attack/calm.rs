//! Well-behaved callers, in all the ways that the bounds could get in theirs.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::peer::{
    Answer, DIALECTS, Dialect, answer, complaints, connect, exchange, metric_until, rest,
};
use crate::pipelining::{config, warm};
use crate::support::{App, Pod, RedisServer, Wait, until};

/// Sixteen requests of all dialects in one write: sixteen answers, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_requests_at_once_get_sixteen_answers_in_order() {
    let (redis, config) = (RedisServer::start(), config());
    let pod = warm(&config, &redis).await;
    for together in [true, false] {
        let mut stream = connect(&pod).await;
        let sixteen = DIALECTS.iter().cycle().take(16);
        let requests: Vec<String> = sixteen
            .clone()
            .map(|d| d.request(&config.apps[0]))
            .collect();
        let all = requests.concat();
        if together {
            stream.write_all(all.as_bytes()).await.unwrap();
        } else {
            // Cut anywhere.
            for part in all.as_bytes().chunks(100) {
                stream.write_all(part).await.unwrap();
                stream.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        }
        for dialect in sixteen {
            dialect.assert_good(&answer(&mut stream, false).await);
        }
    }
    assert_eq!(complaints(&pod), [""; 0]);
}

/// Uploads and answers of megabytes, counted and chunked, on one connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_go_in_and_large_answers_come_out() {
    let (redis, config) = (RedisServer::start(), config());
    let pod = warm(&config, &redis).await;
    let key = &config.apps[0].server_key;
    let room = "r".repeat(250);
    let event = json!({"type": "member.joined", "room": room, "user": "u"}).to_string();
    let body = format!("[{}]", vec![event; 10_000].join(","));
    assert!(body.len() > 2 << 20);
    let head = format!("POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n");
    let counted = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let waiting = counted.replacen("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n", 1);
    let mut chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    for chunk in body.as_bytes().chunks(60_000) {
        let chunk = std::str::from_utf8(chunk).unwrap();
        chunked.push_str(&format!("{:x};name=value\r\n{chunk}\r\n", chunk.len()));
    }
    chunked.push_str("0\r\nTrailer: x\r\n\r\n");
    let mut stream = connect(&pod).await;
    let mut texts = Vec::new();
    for request in [&counted, &chunked, &waiting] {
        let (mut read, mut write) = stream.split();
        // Both at once: an answer may begin before the request has ended.
        let writing = async { write.write_all(request.as_bytes()).await.unwrap() };
        let reading = async {
            let mut go_on = [0; 25];
            if request.contains("Expect") {
                read.read_exact(&mut go_on).await.unwrap();
                assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
            }
        };
        tokio::join!(writing, reading);
        let answer = answer(&mut stream, false).await;
        assert_eq!(answer.status, 200, "{}", answer.head);
        texts.push(answer.text);
    }
    assert!(texts[0].len() > 2 << 20, "{}", texts[0].len());
    assert!(texts[0] == texts[1] && texts[1] == texts[2]);
    // The connection is as good as before.
    stream
        .write_all(Dialect::Imkit.request(&config.apps[0]).as_bytes())
        .await
        .unwrap();
    Dialect::Imkit.assert_good(&answer(&mut stream, false).await);
    assert_eq!(complaints(&pod), [""; 0]);
}

/// Slow, but steady: whoever goes on taking its answer gets all of it, however long that is after the deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_but_steady_reader_gets_its_whole_answer() {
    let (redis, config) = (RedisServer::start(), config());
    let toml = config.toml(&redis.url());
    let pod = Pod::start_toml(&toml.replace("[server]\n", "[server]\nwrite_timeout_ms = 1000\n"));
    pod.until_ready();
    let app = App::new(&config.apps[0], &pod.base);
    let event = json!({"type": "member.joined", "room": "r".repeat(250), "user": "u"});
    let events = serde_json::Value::from(vec![event; 2_000]);
    let expected = app.events(&events, Wait::Applied).await.text;
    let body = events.to_string();
    let request = format!(
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        config.apps[0].server_key,
        body.len()
    );
    let mut stream = crate::peer::narrow(&pod).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let start = Instant::now();
    let mut all = Vec::new();
    let mut part = vec![0; 8_000];
    // Some 100 KB a second.
    while let Ok(bytes @ 1..) = stream.read(&mut part).await {
        all.extend_from_slice(&part[..bytes]);
        if start.elapsed() < Duration::from_secs(4) {
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    }
    let answer = Answer::parse(&String::from_utf8(all).unwrap());
    assert!(
        start.elapsed() > Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    assert_eq!((answer.status, answer.text.len()), (200, expected.len()));
    assert_eq!(
        pod.metric("unread_connections_cut_total{reason=\"write\"}"),
        Some(0)
    );
}

/// While the pod drains, every answer closes its connection, so callers go to another pod. When the pod stops, it closes the
/// connections that only wait, and finishes the requests that it works on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_pod_cuts_nobody_off() {
    let (redis, config) = (RedisServer::start(), config());
    let toml = config.toml(&redis.url());
    let mut command = crate::support::unread();
    command.env("UNREAD_SERVER__DRAIN_SECONDS", "2");
    let mut pod = Pod::start_by(command, &toml);
    pod.until_ready();
    let request = Dialect::Sendbird.request(&config.apps[0]);
    let mut idle = connect(&pod).await;
    let mut used = connect(&pod).await;
    for stream in [&mut idle, &mut used] {
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(answer(stream, false).await.header("connection"), None);
    }
    let body = json!({"type": "user.updated", "user": "u"}).to_string();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
        config.apps[0].server_key,
        body.len()
    );
    let mut served = connect(&pod).await;
    served.write_all(head.as_bytes()).await.unwrap();
    metric_until(&pod, "unread_http_requests_in_flight", |busy| busy == 1).await;
    pod.ask_to_end();
    let said = |word: &str| {
        pod.log()
            .iter()
            .any(|line| line.contains(&format!("\"message\":\"{word}\"")))
    };
    until("the drain", || said("draining").then_some(()));
    used.write_all(request.as_bytes()).await.unwrap();
    let last = Answer::parse(&rest(&mut used).await);
    assert_eq!(last.header("connection"), Some("close"), "{last:?}");
    until("the stop", || said("stopping").then_some(()));
    let soon = Instant::now();
    assert_eq!(rest(&mut idle).await, "");
    assert!(
        soon.elapsed() < Duration::from_secs(5),
        "{:?}",
        soon.elapsed()
    );
    served.write_all(body.as_bytes()).await.unwrap();
    let last = Answer::parse(&rest(&mut served).await);
    assert_eq!(
        (last.status, last.header("connection")),
        (200, Some("close")),
        "{last:?}"
    );
    assert_eq!(pod.ended(), Some(0));
}

/// An answer to somebody who closes its own side right after asking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_closes_its_own_side_still_gets_its_answers() {
    let (redis, config) = (RedisServer::start(), config());
    let pod = warm(&config, &redis).await;
    for dialect in DIALECTS {
        let request = dialect.request(&config.apps[0]);
        let mut stream = connect(&pod).await;
        stream
            .write_all(request.repeat(3).as_bytes())
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
        for _ in 0..3 {
            dialect.assert_good(&answer(&mut stream, false).await);
        }
        assert_eq!(rest(&mut stream).await, "");
        let closing = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        dialect.assert_good(&exchange(&pod, closing.as_bytes()).await);
    }
}
