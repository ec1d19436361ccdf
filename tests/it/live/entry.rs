//! Who gets a stream, and how one ends.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{group, message};
use crate::support::stream::Events;
use crate::support::{App, Config, Own, Pod, app, eventually, now_seconds, raw, user_token};

/// The status and body of a call that opens no stream.
async fn refused(request: reqwest::RequestBuilder) -> (u16, String) {
    let reply = App::send(request).await;
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json")
    );
    (
        reply.status,
        reply.body["detail"].as_str().unwrap().to_owned(),
    )
}

fn token(app: &App, user: &str, seconds: i64) -> String {
    let until = now_seconds().checked_add_signed(seconds).unwrap();
    user_token(&app.keys.user_secret, user, until)
}

/// A stream that says goodbye at once: the reason.
async fn goodbye(mut stream: Events) -> String {
    let bye = stream.next().await.unwrap();
    assert_eq!(bye.name, "bye");
    assert_eq!(bye.data["retry_ms"].as_u64(), stream.retry);
    assert!(stream.next().await.is_none());
    bye.data["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_user_sees_its_own_counts_by_a_token_in_any_of_three_places() {
    let Own {
        app,
        pod,
        config,
        redis: _redis,
        ..
    } = Own::start("[live]\ntoken_cookie = \"unread_token\"\n");
    app.must(&group("r", &["alice", "bob"])).await;
    app.must(&message("r", "bob", "1")).await;
    let good = token(&app, "alice", 3600);
    for request in [
        app.to_watch("").bearer_auth(&good),
        app.to_watch(&format!("?token={good}")),
        app.to_watch("")
            .header("cookie", format!("a=b; unread_token={good}; c")),
    ] {
        let mut stream = app.watch_by(request).await;
        let event = stream.next().await.unwrap();
        assert_eq!(event.data["user"], "alice");
        assert_eq!(event.data["messages"]["total"], 1);
        assert_eq!(event.id.as_deref(), event.data["stamp"].as_str());
        assert_eq!(stream.header("x-accel-buffering"), Some("no"));
        assert_eq!(
            stream.header("cache-control"),
            Some("no-store, no-transform")
        );
        assert_eq!(stream.header("access-control-allow-origin"), Some("*"));
    }
    let preflight = app.request(reqwest::Method::OPTIONS, "/v1/live");
    let preflight = preflight
        .header("origin", "https://chat.example")
        .header("access-control-request-method", "GET")
        .header(
            "access-control-request-headers",
            "authorization, last-event-id",
        );
    let reply = App::send(preflight).await;
    assert_eq!(reply.status, 204);
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    let named = reply.header("access-control-allow-headers");
    assert_eq!(named, Some("authorization, last-event-id"));
    let reply = App::send(app.request(reqwest::Method::GET, "/v1/live.js")).await;
    assert_eq!(
        (reply.status, reply.text.contains("export function watch(")),
        (200, true)
    );
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    // An EventSource would give up for good after another status than 200.
    let expired = token(&app, "alice", -5);
    let stream = app
        .watch_by(app.to_watch(&format!("?token={expired}")))
        .await;
    assert_eq!(goodbye(stream).await, "expired");
    // One that nobody has signed does not come back.
    let forged = user_token("another secret", "alice", now_seconds() + 60);
    assert_eq!(refused(app.to_watch("").bearer_auth(&forged)).await.0, 401);
    assert_eq!(refused(app.to_watch("")).await.0, 401);
    let (status, _) = refused(app.to_watch("?users=bob").bearer_auth(&good)).await;
    assert_eq!(status, 400);
    pod.assert_no_secret_logged(&config);
    let log = pod.log().join("\n");
    assert!(!log.contains(&good) && !log.contains(&expired), "{log}");
}

#[tokio::test]
async fn what_is_no_stream_is_told_in_problem_details() {
    let app = app();
    let key = &app.keys.server_key;
    let get = |query: &str| app.to_watch(query).bearer_auth(key);
    assert_eq!(
        refused(get("")).await,
        (400, "users are missing".to_owned())
    );
    assert_eq!(refused(get("?users=a&x=1")).await.0, 400);
    assert_eq!(refused(get("?users=a&include=tags")).await.0, 400);
    let request = app.native(reqwest::Method::GET, "/v1/live?users=a");
    assert_eq!(
        refused(request.header("accept", "application/json"))
            .await
            .0,
        406
    );
    let post = |body: &str| {
        let request = app.native(reqwest::Method::POST, "/v1/live");
        request
            .header("content-type", "application/json")
            .body(body.to_owned())
    };
    for body in [
        "{",
        "{}",
        "{\"users\": 1}",
        "{\"users\": [\"a\"], \"x\": 1}",
        "{\"users\": []}",
        "{\"users\": [\"\"]}",
    ] {
        assert_eq!(refused(post(body)).await.0, 400, "{body}");
    }
    let many: Vec<String> = (0..1_001).map(|n| n.to_string()).collect();
    assert_eq!(
        refused(post(&json!({"users": many}).to_string())).await.0,
        413
    );
    let reply = App::send(app.native(reqwest::Method::DELETE, "/v1/live")).await;
    assert_eq!(
        (reply.status, reply.header("allow")),
        (405, Some("GET, POST, OPTIONS"))
    );
}

#[tokio::test]
async fn a_stream_of_many_users_begins_where_the_caller_is() {
    let app = app();
    app.must(&group("r", &["alice", "bob", "carol"])).await;
    app.must(&message("r", "bob", "1")).await;
    let stamp = async |user: &str| {
        let read = app.unread(user, false).await.ok();
        read["stamp"].as_str().unwrap().to_owned()
    };
    let body = json!({"users": ["alice", "carol", "alice"], "stamps": {"alice": stamp("alice").await, "carol": "old"}});
    let request = app.to_watch("").bearer_auth(&app.keys.server_key);
    let request = request.build().unwrap();
    let mut post = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .post(request.url().clone());
    post = post
        .bearer_auth(&app.keys.server_key)
        .body(body.to_string());
    let mut stream = app.watch_by(post).await;
    let event = stream.next().await.unwrap();
    assert_eq!((&event.data["user"], event.id), (&json!("carol"), None));
    assert!(stream.is_silent_for(Duration::from_millis(500)).await);
    app.must(&message("r", "bob", "2")).await;
    let mut told = [stream.counts().await, stream.counts().await];
    told.sort_by_key(|counts| counts["user"].to_string());
    assert_eq!(
        (&told[0]["user"], &told[0]["messages"]["total"]),
        (&json!("alice"), &json!(2))
    );
    assert_eq!(
        (&told[1]["user"], &told[1]["messages"]["total"]),
        (&json!("carol"), &json!(2))
    );
    // The same by the header that a browser sends, and by what libraries send in its place.
    let stamp = stamp("alice").await;
    for query in [
        format!("&stamp={stamp}"),
        format!("&lastEventId={stamp}"),
        format!("&last_event_id={stamp}"),
    ] {
        let mut stream = app.watch(&format!("?users=alice{query}")).await;
        assert!(
            stream.is_silent_for(Duration::from_millis(300)).await,
            "{query}"
        );
    }
    let request = app
        .to_watch("?users=alice")
        .bearer_auth(&app.keys.server_key);
    let mut stream = app.watch_by(request.header("last-event-id", &stamp)).await;
    assert!(stream.is_silent_for(Duration::from_millis(300)).await);
    app.must(&message("r", "bob", "3")).await;
    assert_eq!(stream.counts().await["messages"]["total"], 3);
}

/// An `EventSource` comes back with the same token for ever.
#[tokio::test]
async fn who_comes_with_an_expired_token_comes_again_after_seconds() {
    let app = app();
    let expired = token(&app, "alice", -5);
    for _ in 0..5 {
        let request = app.to_watch(&format!("?token={expired}"));
        let mut stream = app.watch_by(request).await;
        let bye = stream.next().await.unwrap();
        assert_eq!(bye.data["reason"], "expired");
        assert_eq!(bye.data["retry_ms"].as_u64(), stream.retry);
        let retry = stream.retry.unwrap();
        assert!((5_000..=15_000).contains(&retry), "{retry}");
    }
    // Who had a stream until its token expired comes again with another one.
    let request = app.to_watch("").bearer_auth(token(&app, "alice", 2));
    let mut stream = app.watch_by(request).await;
    stream.counts().await;
    let bye = stream.next().await.unwrap();
    assert_eq!(bye.data["reason"], "expired");
    assert!(stream.retry.unwrap() <= 1_000, "{:?}", stream.retry);
}

#[tokio::test]
async fn a_stamp_in_the_address_is_refused_where_there_is_not_one_user() {
    let app = app();
    for query in ["?users=a&users=b&stamp=x", "?stamp=x&users=a,b"] {
        let request = app.to_watch(query).bearer_auth(&app.keys.server_key);
        // A stream would have no end.
        let request = request.timeout(Duration::from_secs(20));
        let (status, detail) = refused(request).await;
        assert_eq!(status, 400);
        assert!(detail.starts_with("stamp "), "{detail}");
    }
    // What libraries send by themselves is no mistake of the caller's.
    let request = app
        .to_watch("?users=a,b&lastEventId=x")
        .bearer_auth(&app.keys.server_key);
    let mut stream = app.watch_by(request.header("last-event-id", "x")).await;
    stream.counts().await;
    stream.counts().await;
}

#[tokio::test]
async fn streams_end_by_themselves_and_beat_until_then() {
    let Own {
        app,
        pod,
        redis: _redis,
        ..
    } = Own::start("[live]\nbeat_ms = 200\nmax_seconds = 4\n");
    let start = Instant::now();
    let mut stream = app.watch_users(&["alice"]).await;
    let mut beats = 0;
    let bye = loop {
        let event = stream.next_of_all().await.unwrap();
        match event.name.as_str() {
            "beat" => beats += 1,
            "counts" => {}
            _ => break event,
        }
    };
    assert_eq!(
        (bye.name.as_str(), &bye.data["reason"]),
        ("bye", &json!("lifetime"))
    );
    assert!(stream.next().await.is_none());
    let took = start.elapsed();
    assert!(
        (Duration::from_secs(2)..Duration::from_secs(10)).contains(&took),
        "{took:?}"
    );
    assert!(beats >= 5, "{beats}");
    // A token ends before it expires.
    let request = app.to_watch("").bearer_auth(token(&app, "alice", 3));
    let mut stream = app.watch_by(request).await;
    stream.counts().await;
    assert_eq!(stream.next().await.unwrap().data["reason"], "expired");
    eventually("both are gone", || async {
        match pod.metric::<u64>("unread_live_streams") {
            Some(0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_full_pod_says_so_and_calls_go_on() {
    let Own {
        app,
        pod,
        redis: _redis,
        ..
    } = Own::start("[live]\nmax_streams = 3\nmax_users = 2\n");
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = app.watch_users(&["alice"]).await;
        stream.counts().await;
        streams.push(stream);
    }
    assert_eq!(goodbye(app.watch_users(&["alice"]).await).await, "full");
    assert_eq!(app.unread("alice", false).await.status, 404);
    // A client that goes makes room at once, without having to be written to.
    streams.pop();
    eventually("there is room", || async {
        match pod.metric::<u64>("unread_live_streams") {
            Some(2) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(
        goodbye(app.watch_users(&["a", "b", "c"]).await).await,
        "full"
    );
    let mut stream = app.watch_users(&["a", "b"]).await;
    stream.counts().await;
}

#[tokio::test]
async fn one_users_devices_have_so_many_streams_and_no_more() {
    let Own {
        app,
        pod: _pod,
        redis: _redis,
        ..
    } = Own::start("[live]\nmax_streams_per_user = 2\n");
    let of = |user: &str| {
        let token = user_token(&app.keys.user_secret, user, now_seconds() + 600);
        app.watch_by(app.to_watch("").bearer_auth(token))
    };
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = of("alice").await;
        stream.counts().await;
        streams.push(stream);
    }
    assert_eq!(goodbye(of("alice").await).await, "full");
    // Others, and back ends, have their own.
    of("bob").await.counts().await;
    app.watch_users(&["alice"]).await.counts().await;
}

/// An app's back end may watch a user by as many streams as it likes: each of the user's devices has its place all the same.
#[tokio::test]
async fn a_back_ends_streams_take_no_place_of_a_users_devices() {
    let Own {
        app,
        pod,
        redis: _redis,
        ..
    } = Own::start("[live]\nmax_streams_per_user = 2\n");
    let own = || app.watch_by(app.to_watch("").bearer_auth(token(&app, "alice", 600)));
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = app.watch_users(&["alice"]).await;
        stream.counts().await;
        streams.push(stream);
    }
    for _ in 0..2 {
        let mut stream = own().await;
        assert_eq!(stream.next().await.unwrap().name, "counts");
        streams.push(stream);
    }
    assert_eq!(goodbye(own().await).await, "full");
    // A device that goes makes room for another one, and a back end that goes does not.
    drop(streams.remove(0));
    eventually("a back end's stream is gone", || async {
        let open = pod.metric::<u64>("unread_live_streams");
        (open == Some(4)).then_some(()).ok_or(format!("{open:?}"))
    })
    .await;
    assert_eq!(goodbye(own().await).await, "full");
    drop(streams.pop());
    eventually("a device's stream is gone", || async {
        let open = pod.metric::<u64>("unread_live_streams");
        (open == Some(3)).then_some(()).ok_or(format!("{open:?}"))
    })
    .await;
    own().await.counts().await;
}

/// Some clients make a message of every block, whether an event stands in it or not.
#[tokio::test]
async fn the_first_block_has_an_event_and_says_when_to_come_again() {
    let Own {
        app,
        pod: _pod,
        redis: _redis,
        ..
    } = Own::start("[live]\nbeat_ms = 200\n");
    let stamp = app.watch_users(&["alice"]).await.counts().await["stamp"].clone();
    for (stamp, first) in [("", "counts"), (stamp.as_str().unwrap(), "beat")] {
        let request = app.to_watch(&format!("?users=alice&stamp={stamp}"));
        let mut answer = request
            .bearer_auth(&app.keys.server_key)
            .send()
            .await
            .unwrap();
        let mut text = String::new();
        while text.matches("\n\n").count() < 2 {
            let chunk = answer.chunk().await.unwrap().unwrap();
            text += std::str::from_utf8(&chunk).unwrap();
        }
        let mut blocks = text.split("\n\n").map(|block| {
            let lines = block
                .lines()
                .map(|line| line.split(": ").next().unwrap_or(""));
            (block, lines.collect::<Vec<_>>())
        });
        let (block, lines) = blocks.next().unwrap();
        let rest: &[&str] = if first == "counts" {
            &["id", "data"]
        } else {
            &["data"]
        };
        assert_eq!(lines, [&["", "retry", "event"], rest].concat(), "{text}");
        assert!(block.starts_with(": unread\n"), "{text}");
        assert!(block.contains(&format!("\nevent: {first}\n")), "{text}");
        // It is said once.
        assert_eq!(blocks.next().unwrap().1[0], "event", "{text}");
    }
}

/// What is wrong is said as it is: the user token is good, and the method is not the one for it.
#[tokio::test]
async fn a_user_token_is_told_what_it_is_good_for() {
    let app = app();
    let good = token(&app, "alice", 600);
    let ask = |method, query: &str| {
        let request = app.request(method, &format!("/v1/live{query}"));
        refused(request.bearer_auth(&good))
    };
    let (status, detail) = ask(reqwest::Method::POST, "").await;
    assert_eq!(
        (status, detail.as_str()),
        (
            400,
            "POST is for server keys: with a user token ask by GET, and for its own user"
        )
    );
    for query in ["?users=bob", "?users=alice", "?users="] {
        let (status, detail) = ask(reqwest::Method::GET, query).await;
        assert_eq!(
            (status, detail.as_str()),
            (
                400,
                "users is for server keys: a user token asks for its own user"
            ),
            "{query}"
        );
    }
}

/// HEAD asks for no stream: it has the head of one, and the connection goes on.
#[tokio::test]
async fn what_asks_for_the_head_alone_opens_no_stream() {
    let Own {
        app,
        pod,
        redis: _redis,
        ..
    } = Own::start("");
    let head = |version: &str, method: &str, more: &str| {
        format!(
            "{method} /v1/live?users=a HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer {}\r\n{more}\r\n",
            app.keys.server_key
        )
    };
    let next = "GET /nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let both = head("1.1", "HEAD", "") + next;
    let answer = raw(app.address(), both.as_bytes()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\r\n\r\nHTTP/1.1 404 "), "{answer}");
    assert_eq!(pod.metric::<u64>("unread_live_streams"), Some(0));
    let old = raw(app.address(), head("1.0", "GET", "").as_bytes()).unwrap();
    assert!(old.contains(" 400 "), "{old}");
    let socket = "Connection: upgrade, close\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    for more in [
        "Upgrade: xwebsocketx\r\nAccept: text/html\r\n",
        "Upgrade: websocket\r\nContent-Length: 5\r\n",
    ] {
        let request = head("1.1", "GET", &format!("{socket}{more}")) + "12345";
        let answer = raw(app.address(), request.as_bytes()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 40"), "{answer}");
    }
}

/// Streams of a pod that stops end over the time that it has, and none of them without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_stops_ends_its_streams_one_by_one() {
    let mut config = Config::apps(1);
    config.server += "grace_seconds = 5\n";
    let Own {
        app,
        mut pod,
        redis: _redis,
        ..
    } = Own::with(config);
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let mut stream = app.watch_users(&["alice"]).await;
        stream.counts().await;
        streams.spawn(async move {
            let bye = stream.next().await.expect("a goodbye");
            assert_eq!(bye.data["reason"], "draining");
            Instant::now()
        });
    }
    let start = Instant::now();
    pod.ask_to_end();
    let mut ends: Vec<Duration> = streams
        .join_all()
        .await
        .into_iter()
        .map(|end| end - start)
        .collect();
    ends.sort();
    let (first, last) = (ends[0], ends[ends.len() - 1]);
    assert!(last - first > Duration::from_secs(2), "{first:?} {last:?}");
    let together = ends
        .windows(10)
        .filter(|ten| ten[9] - ten[0] < Duration::from_millis(300));
    assert_eq!(together.count(), 0, "{ends:?}");
    assert_eq!(pod.ended(), Some(0));
}

/// The mark of a watched user is a field of the user's counts. Of a user of whom nothing else is known, it would stay there for ever.
#[tokio::test]
async fn nothing_is_left_of_an_unknown_user_who_was_watched() {
    let Own {
        app, redis, config, ..
    } = &Own::start("");
    let other = Pod::start(config, redis);
    let other = App::new(&config.apps[0], &other.base);
    let counts = |user: &str| format!("unread:v1:{{app-0:u:{user}}}:counts");
    let marked = async |user: &str, wanted: &str| {
        eventually("the mark", || async {
            match redis.cli(&["HGET", &counts(user), "live"]) {
                mark if mark == wanted => Ok(()),
                mark => Err(mark),
            }
        })
        .await;
    };
    app.must(&json!([
        {"type": "room.updated", "room": "r"},
        {"type": "member.joined", "room": "r", "users": ["known", "gone"]},
    ]))
    .await;
    let mut stream = app.watch_users(&["nobody", "known", "gone"]).await;
    for _ in 0..3 {
        stream.counts().await;
    }
    for user in ["nobody", "known", "gone"] {
        marked(user, "1").await;
    }
    app.must(&json!({"type": "user.deleted", "user": "gone"}))
        .await;
    marked("gone", "1").await;

    // Where another pod watches the user, the mark comes back.
    let mut kept = other.watch_users(&["nobody"]).await;
    kept.counts().await;
    drop(stream);
    eventually("the mark is gone", || async {
        match redis.cli(&["EXISTS", &counts("gone")]).as_str() {
            "0" => Ok(()),
            _ => Err(redis.cli(&["HGETALL", &counts("gone")])),
        }
    })
    .await;
    marked("nobody", "1").await;
    assert_eq!(redis.cli(&["HGET", &counts("known"), "live"]), "1");
    app.must(&json!({"type": "member.joined", "room": "r", "user": "nobody"}))
        .await;
    let sent = json!({"type": "message.sent", "room": "r", "sender": "known", "id": "1"});
    app.must(&sent).await;
    let is_told = |counts: &Value| counts["messages"]["total"] == 1;
    kept.until("the first message", is_told).await;
    app.must(&json!({"type": "user.deleted", "user": "nobody"}))
        .await;
    marked("nobody", "1").await;
    drop(kept);
    eventually("nothing is left", || async {
        match redis.cli(&["EXISTS", &counts("nobody")]).as_str() {
            "0" => Ok(()),
            _ => Err(redis.cli(&["HGETALL", &counts("nobody")])),
        }
    })
    .await;
}
