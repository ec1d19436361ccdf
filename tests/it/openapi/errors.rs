//! Calls that fail, in every way that can be brought about: each answer is one that the document has for that operation, and of
//! what the document has nothing is left that was not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::calls::{Call, call, plain, send};
use super::demo_config;
use super::document::{Document, Operation};
use crate::support::{
    App, Config, PATIENCE, Pod, RateLimit, RedisServer, Reply, escaped, now_seconds,
    tencent_usersig, user_token,
};

/// What can't be brought about: an event whose room or user can't be read is rejected by itself, so a 500 would be a bug.
const NOT_SEEN: [(&str, u16); 1] = [("postEvents", 500)];

/// What was seen of each operation.
#[derive(Default)]
struct Seen {
    statuses: BTreeMap<String, BTreeSet<u16>>,
    /// Codes that stand behind one status.
    codes: BTreeSet<String>,
}

impl Seen {
    #[track_caller]
    fn note(&mut self, document: &Document, operation: &Operation, reply: &Reply, what: &str) {
        let status = document
            .check(operation, reply)
            .unwrap_or_else(|why| panic!("{}: {what}: {why}: {reply:?}", operation.id));
        self.statuses
            .entry(operation.id.clone())
            .or_default()
            .insert(status);
        self.note_code(reply);
    }

    fn note_code(&mut self, reply: &Reply) {
        let body = &reply.body;
        for code in [&body["ErrorCode"], &body["code"], &body["error"]["code"]] {
            self.codes.insert(plain(code));
        }
    }
}

/// A pod with more lines in its table `[server]`.
fn pod(redis: &RedisServer, server: &str, limit: Option<RateLimit>) -> (Pod, App) {
    let mut config: Config = demo_config();
    if !server.is_empty() {
        config.server = format!("{server}\n");
    }
    if let Some(limit) = limit {
        config.apps[0].rate_limit = limit;
        config.apps[0].users_rate_limit = limit;
    }
    let pod = Pod::start(&config, redis);
    let app = App::new(&config.apps[0], &pod.base);
    (pod, app)
}

fn public(document: &Document) -> Vec<Operation> {
    let operations = document.operations().into_iter();
    operations.filter(|operation| !operation.admin).collect()
}

/// The first example of an operation that is no error.
fn good(document: &Document, app: &App, pod: &Pod, operation: &Operation) -> Call {
    let names = operation.example_names();
    let good = names.iter().flatten().find(|name| {
        let answer = operation.answer_example(document, name);
        answer.is_none_or(|(status, answer)| status < 400 && answer["ActionStatus"] != "FAIL")
    });
    call(document, app, pod, operation, good.map(String::as_str))
}

fn without_credentials(call: &mut Call) {
    let secret = [
        "Authorization",
        "IM-CLIENT-KEY",
        "IM-Authorization",
        "Api-Token",
    ];
    call.headers
        .retain(|(name, _)| !secret.contains(&name.as_str()));
    call.query.retain(|(name, _)| name != "usersig");
}

/// The head of a call as bytes, with more lines; the body is not announced.
fn head(call: &Call, more: &str) -> String {
    let mut head = format!("{} {} HTTP/1.1\r\nHost: x\r\n", call.method, call.target());
    for (name, value) in &call.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + more
}

/// The answer to these bytes, after which nothing more is sent.
fn sent_raw(call: &Call, bytes: &str) -> Reply {
    let mut stream = TcpStream::connect(call.authority()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        // A connection that is closed with bytes unread may end in a reset; what came before is there.
        let read = stream.read(&mut piece).unwrap_or(0);
        answer.extend_from_slice(&piece[..read]);
        let reply = taken_apart(&String::from_utf8_lossy(&answer));
        let length = reply.header("content-length");
        let is_whole = length.and_then(|text| text.parse().ok()) == Some(reply.text.len());
        // The pod closes the connection only when the caller had time to read.
        if read == 0 || is_whole {
            return reply;
        }
    }
}

fn taken_apart(answer: &str) -> Reply {
    let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok());
    Reply {
        status: status.unwrap_or_default(),
        headers: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect(),
        body: serde_json::from_str(text).unwrap_or(Value::Null),
        text: text.to_owned(),
    }
}

/// Calls that are wrong in themselves.
fn wrong_calls(app: &App, operation: &Operation, good: &Call) -> Vec<(&'static str, Call)> {
    let mut calls = Vec::new();
    let mut add = |what, change: &dyn Fn(&mut Call)| {
        let mut call = good.clone();
        change(&mut call);
        calls.push((what, call));
    };
    add("no credentials", &without_credentials);
    add("another's credentials", &|call| {
        for (name, value) in &mut call.headers {
            if name != "IM-CLIENT-KEY" {
                value.push('x');
            }
        }
        for (name, value) in &mut call.query {
            if name == "usersig" {
                value.push('x');
            }
        }
    });
    add("a parameter that is not known", &|call| {
        call.query.push(("colour".into(), "red".into()));
    });
    add("a parameter that is wrong", &|call| {
        for name in ["wait", "include", "limit", "item_keys", "sdkappid"] {
            call.query.retain(|(known, _)| known != name);
            call.query.push((name.into(), "red".into()));
        }
    });
    // An event would make one of them.
    let ids = if operation.id == "postEvents" {
        [].as_slice()
    } else {
        &["alice", "orders"]
    };
    add("nobody's id", &|call| {
        for id in ids {
            call.url = call.url.replace(id, "nobody");
            if let Some((_, body)) = &mut call.body {
                *body = String::from_utf8_lossy(body)
                    .replace(id, "nobody")
                    .into_bytes();
            }
        }
    });
    if operation.id.ends_with("Live") {
        add("an answer that is no stream", &|call| {
            call.headers
                .push(("Accept".into(), "application/json".into()));
        });
    }
    if operation.id == "getMyUnread" {
        let (secret, soon) = (&app.keys.user_secret, now_seconds() + 3600);
        for (user, end) in [("nobody", soon), ("alice", 1)] {
            let token = user_token(secret, user, end);
            add("another token", &|call| {
                for (_, value) in call
                    .headers
                    .iter_mut()
                    .filter(|(name, _)| name == "Authorization")
                {
                    *value = format!("Bearer {token}");
                }
            });
        }
    }
    add("an id that can't be decoded", &|call| {
        call.url = call.url.replace("alice", "%ff").replace("orders", "%ff");
    });
    for (name, value) in [
        ("sdkappid", "red"),
        ("sdkappid", ""),
        ("sdkappid", "7"),
        ("identifier", ""),
        ("identifier", "somebody"),
        ("usersig", ""),
        ("usersig", "eJw-"),
    ] {
        if good.query.iter().any(|(known, _)| known == name) {
            add("another parameter of the signature", &|call| {
                for (_, given) in call.query.iter_mut().filter(|(known, _)| known == name) {
                    *given = value.into();
                }
            });
        }
    }
    if operation.tag() == "tencent" {
        let (now, keys) = (now_seconds(), &app.keys);
        let (id, key, admin) = (keys.sdkappid, keys.secret_key.as_str(), keys.admin.as_str());
        for (identifier, usersig) in [
            ("alice", tencent_usersig(id, key, "alice", now, 3600)),
            (admin, tencent_usersig(id, key, admin, now - 7200, 3600)),
            (admin, tencent_usersig(id, "another key", admin, now, 3600)),
            (admin, tencent_usersig(7, key, admin, now, 3600)),
        ] {
            add("another signature", &|call| {
                for (name, value) in [("identifier", identifier), ("usersig", &usersig)] {
                    call.query.retain(|(known, _)| known != name);
                    call.query.push((name.into(), escaped(value)));
                }
            });
        }
    }
    if operation.tag() == "sendbird" {
        add("too many types", &|call| {
            let types: Vec<String> = (0..=1_000).map(|n| n.to_string()).collect();
            call.query.push(("custom_types".into(), types.join(",")));
        });
    }
    if operation.takes_a_body() {
        for body in [
            "nope",
            "[]",
            "7",
            "{}",
            r#"{"users": 7}"#,
            r#"{"tags": 7}"#,
            r#"{"To_Account": 7}"#,
            r#"{"To_Account": "alice", "Peer_Account": ["1","2","3","4","5","6","7","8","9","10","11"]}"#,
        ] {
            add("another body", &|call| {
                call.body = Some(("application/json".into(), body.into()));
            });
        }
        add("a body that is compressed", &|call| {
            call.headers
                .push(("Content-Encoding".into(), "gzip".into()));
        });
        add("a body of another type", &|call| {
            if let Some((content_type, _)) = &mut call.body {
                *content_type = "text/xml".into();
            }
        });
    }
    calls
}

/// What is wrong on the wire.
fn wrong_bytes(operation: &Operation, good: &Call) -> Vec<(&'static str, String)> {
    let long = "x".repeat(70_000);
    let mut target = good.clone();
    target.query.push(("q".into(), long.clone()));
    let mut all = vec![
        ("a long URL", head(&target, "\r\n")),
        (
            "a long header",
            head(good, &format!("X-Long: {long}\r\n\r\n")),
        ),
        ("a header twice", head(good, "Host: y\r\n\r\n")),
    ];
    if operation.takes_a_body() {
        let large = "Content-Length: 99999999999\r\n\r\n{}";
        all.push(("a large body", head(good, large)));
        let broken = "Transfer-Encoding: chunked\r\n\r\nzz\r\n";
        all.push(("a broken body", head(good, broken)));
    }
    all
}

#[tokio::test]
async fn every_answer_is_in_the_document_and_every_answer_of_the_document_is_seen() {
    let document = Document::read();
    let operations = public(&document);
    let mut redis = RedisServer::start();
    let mut seen = Seen::default();

    let (own, app) = pod(&redis, "", None);
    // The events first, so that the others have something to show.
    let mut in_order: Vec<&Operation> = operations.iter().collect();
    in_order.sort_by_key(|operation| operation.id != "postEvents");
    for operation in &in_order {
        let good = good(&document, &app, &own, operation);
        let reply = send(good.clone()).await;
        seen.note(&document, operation, &reply, "a good call");
        if let Some(tag) = reply.header("etag") {
            let mut again = good.clone();
            again
                .headers
                .push(("If-None-Match".to_owned(), tag.to_owned()));
            seen.note(&document, operation, &send(again).await, "the same again");
        }
        for (what, call) in wrong_calls(&app, operation, &good) {
            seen.note(&document, operation, &send(call).await, what);
        }
        for (what, bytes) in wrong_bytes(operation, &good) {
            seen.note(&document, operation, &sent_raw(&good, &bytes), what);
        }
        // The document has these at no operation, but for the dialects that have one status for them all.
        let (mut nowhere, mut brewed) = (good.clone(), good);
        nowhere.url.push_str("/nope");
        brewed.method = "BREW".to_owned();
        for call in [nowhere, brewed] {
            let reply = send(call).await;
            seen.note_code(&reply);
            if ["tencent", "sendbird"].contains(&operation.tag()) {
                seen.note(&document, operation, &reply, "another path or method");
            }
        }
    }

    // Two calls of one, and of one address none without good credentials.
    let limit = RateLimit {
        per_second: 1,
        burst: 1,
        scope: "cluster",
    };
    let once = "refused_credentials = { per_second = 1, burst = 1 }";
    let (limited, its_app) = pod(&redis, once, Some(limit));
    for operation in &operations {
        let good = good(&document, &its_app, &limited, operation);
        let mut refused = good.clone();
        without_credentials(&mut refused);
        for (what, call) in [("a limit", good), ("an address", refused)] {
            for _ in 0..3 {
                seen.note(&document, operation, &send(call.clone()).await, what);
            }
        }
    }

    let hasty = "head_timeout_ms = 100\nbody_timeout_ms = 100";
    let (hasty, its_app) = pod(&redis, hasty, None);
    for operation in &operations {
        let good = good(&document, &its_app, &hasty, operation);
        let reply = sent_raw(&good, &head(&good, ""));
        seen.note(&document, operation, &reply, "half a head");
        if operation.takes_a_body() {
            let reply = sent_raw(&good, &head(&good, "Content-Length: 9\r\n\r\n{"));
            seen.note(&document, operation, &reply, "half a body");
        }
    }

    // A stream of events would be told so; a WebSocket is refused.
    let mut config = demo_config();
    config.extra = "[live]\nmax_streams = 0\n".to_owned();
    let toml = config.toml(&redis.url()).replace(
        "[apps.users]\n",
        "[apps.users]\nallowed_origins = [\"https://chat.example\"]\n",
    );
    let full = Pod::start_toml(&toml);
    full.until_ready();
    let its_app = App::new(&config.apps[0], &full.base);
    for operation in operations.iter().filter(|one| one.id == "getLive") {
        let good = good(&document, &its_app, &full, operation);
        let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        let reply = sent_raw(&good, &head(&good, upgrade));
        seen.note(&document, operation, &reply, "no room");
        let from_elsewhere = format!("Origin: https://elsewhere.example\r\n{upgrade}");
        let reply = sent_raw(&good, &head(&good, &from_elsewhere));
        seen.note(&document, operation, &reply, "another origin");
    }

    // What is stored is of another type than it should be.
    for key in [
        "{demo:u:alice}:counts",
        "{demo:u:alice}:rooms",
        "{demo:r:orders}:meta",
        "{demo:r:orders}:members",
    ] {
        let key = format!("unread:v1:{key}");
        redis.cli(&["DEL", &key]);
        assert_eq!(redis.cli(&["SET", &key, "garbage"]), "OK");
    }
    for operation in &operations {
        let good = good(&document, &app, &own, operation);
        seen.note(&document, operation, &send(good).await, "garbage");
    }

    redis.stop();
    // Side by side: each waits for the time that Redis has to answer.
    let calls = operations
        .iter()
        .map(|operation| send(good(&document, &app, &own, operation)));
    let replies = futures_util::future::join_all(calls).await;
    for (operation, reply) in operations.iter().zip(&replies) {
        seen.note(&document, operation, reply, "no Redis");
    }

    for operation in &operations {
        let mut missing = operation.statuses();
        for status in &seen.statuses[&operation.id] {
            missing.remove(status);
        }
        missing.retain(|status| !NOT_SEEN.contains(&(operation.id.as_str(), *status)));
        assert!(
            missing.is_empty(),
            "{} was never answered {missing:?}",
            operation.id
        );
    }
    for place in [
        "TencentError/properties/ErrorCode",
        "SendbirdError/properties/code",
        "ImkitError/properties/error/properties/code",
    ] {
        let codes = document.at(&format!("/components/schemas/{place}/enum"));
        let codes: BTreeSet<String> = codes.as_array().unwrap().iter().map(plain).collect();
        let missing: Vec<_> = codes.difference(&seen.codes).collect();
        assert!(missing.is_empty(), "never answered: {place}: {missing:?}");
    }
}
