//! Streams over WebSocket.

use serde_json::json;

use super::{group, message, read};
use crate::support::stream::{Closed, WebSocket};
use crate::support::{
    App, Config, Own, Pod, RedisServer, app, eventually, now_seconds, unread, user_token,
};

#[tokio::test]
async fn a_back_end_subscribes_and_unsubscribes() {
    let app = app();
    app.must(&group("r", &["alice", "bob", "carol"])).await;
    let mut socket = WebSocket::of(&app, "?users=alice").await;
    assert!(
        socket
            .head
            .to_lowercase()
            .contains("\r\nsec-websocket-accept: "),
        "{}",
        socket.head
    );
    let mut counts = socket.counts().await;
    counts.as_object_mut().unwrap().remove("event");
    assert_eq!(counts, read(&app, "alice").await);
    socket.say(&json!({"subscribe": ["carol", "alice"]})).await;
    assert_eq!(socket.counts().await["user"], "carol");
    socket
        .say(&json!({"unsubscribe": ["alice", "nobody"]}))
        .await;
    socket.send(9, b"still there?").await;
    assert_eq!(socket.frame().await, Some((10, b"still there?".to_vec())));
    app.must(&message("r", "bob", "1")).await;
    let counts = socket.counts().await;
    assert_eq!(
        (&counts["user"], &counts["messages"]["total"]),
        (&json!("carol"), &json!(1))
    );
    socket.send(8, &1000_u16.to_be_bytes()).await;
    assert_eq!(socket.next().await.unwrap_err().code, 1000);
}

#[tokio::test]
async fn what_may_not_be_said_closes_it_with_a_reason() {
    let app = app();
    let back_end = format!("Authorization: Bearer {}\r\n", app.keys.server_key);
    let users = user_token(&app.keys.user_secret, "alice", now_seconds() + 600);
    let users = format!("Authorization: Bearer {users}\r\n");
    for (headers, text, code) in [
        (&back_end, "{\"token\": \"x\"}", 1008),
        (&back_end, "{\"subscribe\": [\"\"]}", 1008),
        (&back_end, "{\"subscribe\": [], \"unsubscribe\": []}", 1008),
        (&back_end, "hello", 1008),
        (&back_end, "[[[[", 1008),
        (&users, "{\"subscribe\": [\"bob\"]}", 1008),
        (&users, "{\"token\": \"x\"}", 1008),
    ] {
        let mut socket = WebSocket::open(&app, "", headers).await.unwrap();
        socket.say(&json!({})).await;
        let Closed { code: closed, why } = last(&mut socket).await;
        assert!(closed == 1008 && !why.is_empty());
        let mut socket = WebSocket::open(&app, "", headers).await.unwrap();
        socket.send(1, text.as_bytes()).await;
        let closed = last(&mut socket).await;
        assert!(
            closed.code == code && !closed.why.is_empty(),
            "{text}: {closed:?}"
        );
    }
    let mut socket = WebSocket::open(&app, "", &back_end).await.unwrap();
    socket.send(2, b"bytes").await;
    assert_eq!(last(&mut socket).await.code, 1008);
    let mut socket = WebSocket::open(&app, "", &back_end).await.unwrap();
    socket.send(1, &vec![b' '; 100_000]).await;
    assert_eq!(last(&mut socket).await.code, 1009);
    // A frame that never comes to its end is not waited for.
    let mut socket = WebSocket::open(&app, "", &back_end).await.unwrap();
    let mut frame = vec![0x81, 0xff];
    frame.extend((1_u64 << 40).to_be_bytes());
    frame.resize(80_000, b' ');
    socket.send_raw(&frame).await;
    assert_eq!(last(&mut socket).await.code, 1009);
}

#[tokio::test]
async fn a_bad_user_id_is_named_as_the_reason() {
    let app = app();
    let many: Vec<String> = (0..1_001).map(|n| n.to_string()).collect();
    let bad = "a user id";
    for (said, reason) in [
        (json!({"subscribe": [""]}), bad),
        (json!({"unsubscribe": ["alice", ""]}), bad),
        (json!({"subscribe": ["x".repeat(2_000)]}), bad),
        (json!({"subscribe": many}), "at most 1000"),
    ] {
        let mut socket = WebSocket::of(&app, "").await;
        socket.say(&said).await;
        let Closed { code, why } = last(&mut socket).await;
        assert!(code == 1008 && why.contains(reason), "{said}: {code} {why}");
    }
}

/// How it was closed, after whatever else was said.
async fn last(socket: &mut WebSocket) -> Closed {
    loop {
        if let Err(closed) = socket.next().await {
            return closed;
        }
    }
}

#[tokio::test]
async fn a_token_can_be_renewed_and_ends_the_stream_if_it_is_not() {
    let app = app();
    let token =
        |user: &str, seconds: u64| user_token(&app.keys.user_secret, user, now_seconds() + seconds);
    let open = async |token: String| {
        WebSocket::open(&app, &format!("?token={token}"), "")
            .await
            .unwrap()
    };
    let mut short = open(token("alice", 3)).await;
    assert_eq!(short.counts().await["user"], "alice");
    let bye = short.next().await.unwrap();
    assert_eq!(
        (&bye["event"], &bye["reason"]),
        (&json!("bye"), &json!("expired"))
    );
    assert_eq!(short.next().await.unwrap_err().code, 4401);

    let mut renewed = open(token("alice", 8)).await;
    renewed.counts().await;
    renewed.say(&json!({"token": token("alice", 600)})).await;
    let ends = tokio::time::Duration::from_secs(6);
    assert!(tokio::time::timeout(ends, renewed.next()).await.is_err());
    renewed.say(&json!({"token": token("bob", 600)})).await;
    assert_eq!(renewed.next().await.unwrap_err().code, 1008);
}

#[tokio::test]
async fn an_origin_has_to_be_let_in() {
    let redis = RedisServer::start();
    let config = Config::apps(1);
    let toml = config.toml(&redis.url()).replace(
        "[apps.users]\n",
        "[apps.users]\nallowed_origins = [\"https://chat.example\"]\n",
    );
    let pod = Pod::start_toml(&format!("{toml}\n"));
    pod.until_ready();
    let app = App::new(&config.apps[0], &pod.base);
    let token = user_token(&app.keys.user_secret, "alice", now_seconds() + 600);
    let query = format!("?token={token}");
    let own = format!("http://{}", app.address());
    for (origin, let_in) in [
        ("https://chat.example", true),
        ("https://CHAT.example", true),
        (own.as_str(), true),
        ("https://evil.example", false),
        ("null", false),
    ] {
        let headers =
            format!("Origin: {origin}\r\nSec-WebSocket-Protocol: x, unread.live, {token}\r\n");
        match WebSocket::open(&app, &query, &headers).await {
            Ok(mut socket) => {
                assert!(let_in, "{origin}");
                assert!(
                    socket
                        .head
                        .to_lowercase()
                        .contains("\r\nsec-websocket-protocol: unread.live\r\n")
                );
                assert_eq!(socket.counts().await["user"], "alice");
            }
            Err(head) => {
                assert!(!let_in, "{origin}: {head}");
                assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
            }
        }
    }
    let head = WebSocket::open(&app, "?token=x", "").await.err().unwrap();
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    let expired = user_token(&app.keys.user_secret, "alice", now_seconds() - 5);
    let mut socket = WebSocket::open(&app, &format!("?token={expired}"), "")
        .await
        .unwrap();
    assert_eq!(socket.next().await.unwrap()["reason"], "expired");
    assert_eq!(socket.next().await.unwrap_err().code, 4401);
}

/// Clients that come again at once whenever a socket was closed, but wait longer and longer after a 503. An `EventSource` is the
/// other way round: it comes again after a stream that has ended, and never after a 503.
#[tokio::test]
async fn a_socket_for_which_there_is_no_room_is_refused_with_503() {
    let redis = RedisServer::start();
    let mut config = Config::apps(1);
    config.extra += "[live]\nmax_streams = 2\nmax_users = 2\n";
    let mut command = unread();
    command.env("UNREAD_SERVER__DRAIN_SECONDS", "60");
    let pod = Pod::start_by(command, &config.toml(&redis.url()));
    pod.until_ready();
    let app = App::new(&config.apps[0], &pod.base);
    let key = format!("Authorization: Bearer {}\r\n", app.keys.server_key);
    let refused = async |query: &str, seconds: std::ops::RangeInclusive<u64>| {
        let head = WebSocket::open(&app, query, &key).await.err();
        let head = head.expect("no socket").to_lowercase();
        assert!(head.starts_with("http/1.1 503 "), "{head}");
        assert!(
            head.contains("\r\ncontent-type: application/problem+json\r\n"),
            "{head}"
        );
        let (_, after) = head.split_once("\r\nretry-after: ").unwrap();
        let after: u64 = after.split("\r\n").next().unwrap().parse().unwrap();
        assert!(seconds.contains(&after), "{after}");
    };
    refused("?users=a,b,c", 5..=30).await;
    let mut first = app.watch_users(&["alice"]).await;
    first.counts().await;
    let mut second = WebSocket::of(&app, "?users=alice").await;
    second.counts().await;
    refused("?users=alice", 5..=30).await;
    drop(second);
    eventually("the socket is gone", || async {
        let open = pod.metric::<u64>("unread_live_streams");
        (open == Some(1)).then_some(()).ok_or(format!("{open:?}"))
    })
    .await;
    pod.ask_to_end();
    assert_eq!(first.next().await.unwrap().data["reason"], "draining");
    assert!(first.next().await.is_none());
    // The pod still serves.
    refused("?users=alice", 1..=3).await;
    let mut stream = app.watch_users(&["alice"]).await;
    let bye = stream.next().await.unwrap();
    assert_eq!(bye.data["reason"], "draining");
    assert_eq!(bye.data["retry_ms"].as_u64(), stream.retry);
    assert!(stream.next().await.is_none());
}

/// A page can't read the status of a socket that was refused, so one whose token has expired is opened to say so.
#[tokio::test]
async fn who_comes_again_at_once_with_an_expired_token_is_held_up() {
    let app = app();
    let expired = user_token(&app.keys.user_secret, "alice", now_seconds() - 5);
    let query = format!("?token={expired}");
    let mut socket = WebSocket::open(&app, &query, "").await.unwrap();
    let bye = socket.next().await.unwrap();
    assert_eq!(bye["reason"], "expired");
    let told = std::time::Instant::now();
    assert_eq!(socket.next().await.unwrap_err().code, 4401);
    assert!(told.elapsed().as_millis() >= 1_000);
    // Who goes by itself is not held up.
    let mut socket = WebSocket::open(&app, &query, "").await.unwrap();
    socket.next().await.unwrap();
    socket.say(&json!({"token": expired})).await;
    socket.send(8, &1000_u16.to_be_bytes()).await;
    assert_eq!(socket.next().await.unwrap_err().code, 1000);
    // Who says what is no frame is held up as well, and not looked at again and again.
    let mut socket = WebSocket::open(&app, &query, "").await.unwrap();
    socket.next().await.unwrap();
    socket.send_raw(&[0x81, 0]).await;
    assert_eq!(socket.next().await.unwrap_err().code, 4401);
}

#[tokio::test]
async fn a_socket_for_nobody_is_refused_if_users_are_named() {
    let app = app();
    let key = format!("Authorization: Bearer {}\r\n", app.keys.server_key);
    for query in ["?users=", "?users=,"] {
        let head = WebSocket::open(&app, query, &key).await.err();
        let head = head.unwrap_or_else(|| panic!("{query} is a socket"));
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    }
    // Without the parameter it begins with nobody.
    let mut socket = WebSocket::open(&app, "", &key).await.unwrap();
    socket.say(&json!({"subscribe": ["alice"]})).await;
    assert_eq!(socket.counts().await["user"], "alice");
}

#[tokio::test]
async fn twenty_thousand_users_on_one_connection_are_refused() {
    let Own {
        app,
        pod,
        redis: _redis,
        ..
    } = Own::start("");
    let mut socket = WebSocket::of(&app, "").await;
    for hundred in 0..200 {
        let users: Vec<String> = (0..100).map(|n| format!("user {hundred}-{n}")).collect();
        socket.say(&json!({"subscribe": users})).await;
    }
    let mut bye = None;
    let closed = loop {
        match socket.next().await {
            Ok(message) if message["event"] == "bye" => bye = Some(message),
            Ok(_) => {}
            Err(closed) => break closed,
        }
    };
    assert_eq!(bye.unwrap()["reason"], "full");
    assert_eq!(closed.code, 4429);
    eventually("nobody is watched", || async {
        match pod.metric::<u64>("unread_live_users") {
            Some(0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}
