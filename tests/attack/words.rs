//! What each of them is told, dialect by dialect.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::peer::{
    Answer, DIALECTS, Dialect, answer, complaints, connect, exchange, metric_until, rest,
};
use crate::pipelining::warm;
use crate::support::{App, Config, Pod, RateLimit, RedisServer, Wait};

async fn pod() -> (RedisServer, Config, Pod) {
    let (redis, config) = (RedisServer::start(), Config::apps(1));
    let pod = warm(&config, &redis).await;
    (redis, config, pod)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_head_is_answered_in_the_words_of_its_path() {
    let (_redis, _config, pod) = pod().await;
    let mut sent = 0;
    for dialect in DIALECTS {
        let path = dialect.path();
        let line = format!("GET {path} HTTP/1.1\r\n");
        let post = format!("POST {path} HTTP/1.1\r\nHost: x\r\n");
        let long = "x".repeat(40_000);
        let cases: Vec<(u16, Vec<u8>)> = [
            // Bytes that no line of a request has.
            (400, format!("GET {path}/a b HTTP/1.1\r\nHost: x\r\n\r\n")),
            (400, format!("GET {path}/\u{1} HTTP/1.1\r\nHost: x\r\n\r\n")),
            (400, format!("GET {path}/\t HTTP/1.1\r\nHost: x\r\n\r\n")),
            (
                400,
                format!("GET {path}/\u{7f} HTTP/1.1\r\nHost: x\r\n\r\n"),
            ),
            (
                400,
                format!("GET {path}/\u{0}x HTTP/1.1\r\nHost: x\r\n\r\n"),
            ),
            (400, format!("G(T {path} HTTP/1.1\r\nHost: x\r\n\r\n")),
            // Another protocol.
            (400, format!("GET {path}\r\n\r\n")),
            (400, format!("GET {path} HTTP/2.0\r\nHost: x\r\n\r\n")),
            (400, format!("GET {path} HTTP/1.2\r\nHost: x\r\n\r\n")),
            (400, format!("CONNECT {path} HTTP/1.1\r\nHost: x\r\n\r\n")),
            // Whose the request is.
            (400, format!("{line}\r\n")),
            (400, format!("{line}Host: x\r\nHost: y\r\n\r\n")),
            // Where its body ends.
            (
                400,
                format!("{post}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{{}}"),
            ),
            (
                400,
                format!("{post}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{{}}"),
            ),
            (400, format!("{post}Content-Length: two\r\n\r\n{{}}")),
            (400, format!("{post}Content-Length: -2\r\n\r\n{{}}")),
            (400, format!("{post}Transfer-Encoding: gzip\r\n\r\n{{}}")),
            (400, format!("POST {path} HTTP/1.0\r\n\r\n{{}}")),
            (
                400,
                format!("GET {path} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            ),
            // Headers that are none.
            (400, format!("{line}Host: x\r\nNo colon\r\n\r\n")),
            (400, format!("{line}Host: x\r\nA b: c\r\n\r\n")),
            (400, format!("{line}Host: x\r\nA: b\u{0}c\r\n\r\n")),
            (400, format!("{line}Host: x\r\nA: b\r\n folded\r\n\r\n")),
            (400, format!("{line}: x\r\nHost: x\r\n\r\n")),
            // Too much of it.
            (
                414,
                format!("GET {path}/{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
            ),
            (
                414,
                format!("GET {path}?{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
            ),
            (431, format!("{line}Host: x\r\nA: {long}\r\n\r\n")),
            (431, format!("{line}Host: x\r\n{long}: a\r\n\r\n")),
            (
                431,
                format!("{line}Host: x\r\n{}\r\n", "A: b\r\n".repeat(97)),
            ),
            (
                431,
                format!("{line}Host: x\r\n{}\r\n", "A: b\r\n".repeat(10_000)),
            ),
        ]
        .map(|(status, text)| (status, text.into_bytes()))
        .into();
        let mut cases = cases;
        // No UTF-8 and no percent-encoding either.
        let mut latin = format!("GET {path}/").into_bytes();
        latin.extend_from_slice(b"\xe9 HTTP/1.1\r\nHost: x\r\n\r\n");
        cases.push((400, latin));
        for (status, bytes) in cases {
            let answer = exchange(&pod, &bytes).await;
            println!("{status}: {:.60}", String::from_utf8_lossy(&bytes));
            dialect.assert_refusal(status, &answer);
            sent += 1;
        }
    }
    // What shows no path is answered in the native form.
    for bytes in [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00\x00\x00\x00",
        b"\xff\xfe\xfd \x80\x81 \x90\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"{\"type\":\"user.updated\"}\n",
        b"GET",
    ] {
        let mut stream = connect(&pod).await;
        stream.write_all(bytes).await.unwrap();
        if bytes == b"GET" {
            // Not bad yet, until its end.
            stream.shutdown().await.unwrap();
        }
        let answer = Answer::parse(&rest(&mut stream).await);
        Dialect::Native.assert_refusal(400, &answer);
        sent += 1;
    }
    let mut counted = 0;
    for reason in ["malformed", "target_too_long", "head_too_large"] {
        let name = format!("unread_http_requests_unreadable_total{{reason=\"{reason}\"}}");
        counted += pod.metric::<u64>(&name).unwrap();
    }
    assert_eq!(counted, sent);
    // Not a line of it in the log, at the level that everybody has.
    // What the pod says of its Redis at the start is not about them.
    let warned = |line: &String| line.contains("WARN") && !line.contains("redis should be set up");
    let warnings: Vec<String> = pod.log().into_iter().filter(warned).collect();
    assert_eq!(warnings, [""; 0]);
    assert_eq!(complaints(&pod), [""; 0]);
}

/// A port scan in small: bytes at random, all of them answered or met with silence, none of them noted as an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_make_no_errors() {
    let (_redis, config, pod) = pod().await;
    let good = Dialect::Sendbird.request(&config.apps[0]);
    for n in 0..400_u32 {
        let length = (n as usize * 37) % 700 + 1;
        let mut bytes: Vec<u8> = (0..length).map(|_| rand::random()).collect();
        if n % 2 == 0 {
            // A good request with some bytes of it changed.
            bytes = good.clone().into_bytes();
            for _ in 0..n % 7 + 1 {
                let at = rand::random::<u32>() as usize % bytes.len();
                bytes[at] = rand::random();
            }
            bytes.extend_from_slice(b"Connection: close\r\n\r\n");
        }
        let mut stream = connect(&pod).await;
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let text = rest(&mut stream).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1."), "{text}");
    }
    assert_eq!(complaints(&pod), [""; 0]);
    metric_until(&pod, "unread_connections", |open| open == 0).await;
}

/// After good answers on the same connection, and after requests that came with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_head_behind_good_requests_is_answered_after_them() {
    let (_redis, config, pod) = pod().await;
    for dialect in DIALECTS {
        let good = dialect.request(&config.apps[0]);
        let bad = format!("GET {}/a b HTTP/1.1\r\n\r\n", dialect.path());
        let mut stream = connect(&pod).await;
        stream
            .write_all(format!("{good}{good}{bad}{good}").as_bytes())
            .await
            .unwrap();
        for _ in 0..2 {
            dialect.assert_good(&answer(&mut stream, false).await);
        }
        dialect.assert_refusal(400, &Answer::parse(&rest(&mut stream).await));
    }
}

/// Chunks that are none are told in the words for a broken body, by the handler that was reading it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_chunks_are_told_by_the_dialect() {
    let (_redis, config, pod) = pod().await;
    let keys = &config.apps[0];
    for broken in [
        "x\r\n",
        "2\r\n{}x",
        "-1\r\n",
        "2\n{}\r\n0\r\n\r\n",
        "ffffffffffffffff\r\n{}",
    ] {
        let imkit = Dialect::Imkit
            .head(keys)
            .replace("GET /rooms", "POST /badges/byRoomTags");
        let tencent = Dialect::Tencent.head(keys);
        let native = format!(
            "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n",
            keys.server_key
        );
        for (dialect, head) in [
            (Dialect::Imkit, imkit),
            (Dialect::Tencent, tencent),
            (Dialect::Native, native),
        ] {
            let request = format!("{head}Transfer-Encoding: chunked\r\n\r\n{broken}");
            dialect.assert_refusal(400, &with_date(exchange(&pod, request.as_bytes()).await));
        }
    }
    assert_eq!(complaints(&pod), [""; 0]);
}

/// The engine's answers have their date and id as well.
fn with_date(answer: Answer) -> Answer {
    assert!(answer.header("date").is_some(), "{answer:?}");
    answer
}

/// A path with the bytes of its characters as they are, as many a client sends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_utf_8_in_a_url_is_as_good_as_percent_encoded() {
    let (_redis, config, pod) = pod().await;
    let keys = &config.apps[0];
    let app = App::new(keys, &pod.base);
    let user = "日本 é<\">`{}|\\^";
    app.must(&json!([
        {"type": "room.updated", "room": "ü", "kind": "group", "custom_type": "größe"},
        {"type": "member.joined", "room": "ü", "users": [user, "bob"]},
        {"type": "message.sent", "room": "ü", "id": "1", "sender": "bob"},
    ]))
    .await;
    let raw = user.replace(' ', "%20");
    let authorization = format!("Authorization: Bearer {}\r\n", keys.server_key);
    let token = format!("Api-Token: {}\r\n", keys.api_token);
    for (path, headers, field) in [
        (
            format!("/v1/users/{raw}/unread"),
            &authorization,
            "/messages/total",
        ),
        (
            format!("/v1/rooms/ü/unread?users={raw}"),
            &authorization,
            &format!("/unread/{}", user.replace('~', "~0")),
        ),
        (
            format!(
                "/v3/users/{raw}/unread_item_count?custom_types=größe&item_keys=group_channel_unread_message_count"
            ),
            &token,
            "/group_channel_unread_message_count",
        ),
    ] {
        for method in ["GET", "HEAD"] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n"
            );
            let answer = exchange(&pod, request.as_bytes()).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            if method == "GET" {
                assert_eq!(
                    answer.body.pointer(field),
                    Some(&json!(1)),
                    "{path}: {answer:?}"
                );
            }
        }
    }
}

/// Everything of a `GET` but the body, counted by its limit, on a connection that stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_is_get_without_the_body() {
    let redis = RedisServer::start();
    let limit = RateLimit {
        per_second: 1,
        burst: 20,
        scope: "pod",
    };
    let config = Config::limited(1, limit);
    let pod = warm(&config, &redis).await;
    let keys = &config.apps[0];
    let app = App::new(keys, &pod.base);
    app.must(&json!([{"type": "room.updated", "room": "r"}]))
        .await;
    let authorization = format!("Host: x\r\nAuthorization: Bearer {}\r\n", keys.server_key);
    let room = format!("GET /v1/rooms/r/unread HTTP/1.1\r\n{authorization}");
    for get in [
        room,
        Dialect::Native.head(keys),
        Dialect::Imkit.head(keys),
        Dialect::Sendbird.head(keys),
    ] {
        let head = get.replacen("GET", "HEAD", 1);
        let mut stream = connect(&pod).await;
        let mut remaining = Vec::new();
        for (request, without_body) in [(&get, false), (&head, true), (&get, false)] {
            stream
                .write_all(format!("{request}\r\n").as_bytes())
                .await
                .unwrap();
            let answer = answer(&mut stream, without_body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let left = answer.header("ratelimit").map(|limit| {
                let left = limit.split("r=").nth(1).unwrap().split(';').next();
                left.unwrap().parse::<i64>().unwrap()
            });
            let length = answer.header("content-length").unwrap().to_owned();
            remaining.push((length, left));
        }
        let [(one, first), (two, second), (three, third)] = &remaining[..] else {
            panic!("{remaining:?}");
        };
        // The list of rooms tells how long it took.
        if !get.contains("/rooms HTTP") {
            assert!(one == two && two == three, "{remaining:?}");
        }
        // Something may come back meanwhile, one a second.
        if let (Some(first), Some(second), Some(third)) = (first, second, third) {
            assert!(
                (0..=1).contains(&(first - second)) || first > second,
                "{remaining:?}"
            );
            assert!(third <= second, "{remaining:?}");
        }
    }
    // And where there is nothing to get, it is told as ever, without the words.
    for request in [
        "HEAD /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "HEAD /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "HEAD /badges/byRoomTags HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "HEAD /v4/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "HEAD /v3/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "HEAD /v3/x y HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let answer = exchange(&pod, request.as_bytes()).await;
        assert!(
            answer.status >= 200 && answer.text.is_empty(),
            "{request}: {answer:?}"
        );
        assert_ne!(
            answer.header("content-length"),
            Some("0"),
            "{request}: {answer:?}"
        );
    }
}

/// What is unusual and right is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_unusual_is_served() {
    let (_redis, config, pod) = pod().await;
    for dialect in DIALECTS {
        let request = dialect.request(&config.apps[0]);
        let older = request.replace("HTTP/1.1", "HTTP/1.0");
        let proxied = request.replacen(" /", " http://somewhere/", 1);
        let lines = request.replacen("\r\n", "\r\nA: b\r\n", 1);
        let slashes = request.replacen(" /", " ///", 1);
        let framed = match dialect {
            // It has one already.
            Dialect::Tencent => request.clone(),
            // A body that nobody has asked for.
            _ => request.replace("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\n{} "),
        };
        for request in [
            &older,
            &proxied,
            &lines,
            &slashes,
            &framed,
            &format!("\r\n\r\n{request}"),
        ] {
            let mut stream = connect(&pod).await;
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = answer(&mut stream, false).await;
            println!("{request}");
            dialect.assert_good(&answer);
        }
    }
    // A method that nobody knows is for the dialect to say.
    let app = App::new(&config.apps[0], &pod.base);
    let brew = reqwest::Method::from_bytes(b"BREW").unwrap();
    let reply = App::send(app.request(brew, "/v1/events")).await;
    assert_eq!(reply.status, 405);
    app.events(&json!([]), Wait::Applied).await.ok();
}
