//! The native reads.

mod tags;

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use super::{is_json, problem};
use crate::support::{App, Own, Reply, app, escaped, raw};

async fn ask(app: &App, body: impl Into<reqwest::Body>) -> Reply {
    let request = app.native(Method::POST, "/v1/unread");
    App::send(
        request
            .header("content-type", "application/json")
            .body(body),
    )
    .await
}

/// `r` with two of whom one has a message, a direct message and an invitation.
async fn filled() -> App {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "r", "tags": ["t", "u"], "custom_type": "c"},
        {"type": "room.updated", "room": "i", "kind": "supergroup"},
        {"type": "member.joined", "room": "r", "users": ["alice", "bob"]},
        {"type": "member.invited", "room": "i", "user": "alice"},
        {"type": "message.sent", "room": "r", "id": "1", "sender": "bob", "mentions": "all"},
        {"type": "message.sent", "to": "alice", "id": "1", "sender": "bob"},
    ]))
    .await;
    app
}

fn kinds(direct: u64, group: u64, supergroup: u64) -> Value {
    json!({"total": direct + group + supergroup, "direct": direct, "group": group, "supergroup": supergroup})
}

fn alice() -> Value {
    json!({"messages": kinds(1, 1, 0), "mentions": kinds(0, 1, 0), "invitations": kinds(0, 0, 1),
           "unread_rooms": kinds(1, 1, 0)})
}

/// The counts of one user, without their stamp.
fn without_stamp(reply: Reply) -> Value {
    let mut body = reply.ok();
    let stamp = body.as_object_mut().unwrap().remove("stamp");
    assert!(stamp.is_some_and(|stamp| stamp.is_string()));
    body
}

#[tokio::test]
async fn a_user_is_answered_with_and_without_rooms() {
    let app = filled().await;
    let mut expected = alice();
    expected["user"] = json!("alice");
    expected["tags"] = json!({"t": 1, "u": 1});
    expected["types"] = json!({"c": 1});
    for query in ["", "?include=", "?include=,"] {
        let path = format!("/v1/users/alice/unread{query}");
        let reply = App::send(app.native(Method::GET, &path)).await;
        is_json(&reply);
        assert_eq!(without_stamp(reply), expected, "{query}");
    }
    let mut reply = app.unread("alice", true).await.ok();
    let rooms = reply["rooms"].take();
    assert_eq!(rooms.as_array().map(Vec::len), Some(2), "{rooms}");
    let row = json!({"room": "r", "kind": "group", "custom_type": "c", "tags": ["t", "u"], "messages": 1, "mentions": 1,
                     "muted": false, "hidden": false, "count": "all", "read_position": 0, "head": 1});
    assert!(rooms.as_array().unwrap().contains(&row), "{rooms}");

    for query in [
        "?include=bogus",
        "?include=rooms,bogus",
        "?include=Rooms",
        "?include=rooms&include=x",
    ] {
        let path = format!("/v1/users/alice/unread{query}");
        problem(&App::send(app.native(Method::GET, &path)).await, 400);
    }
    problem(&app.unread("nobody", false).await, 404);
    problem(&app.unread("Alice", false).await, 404);
}

/// A user's rooms as the answer to a query lists them.
async fn rows(app: &App, user: &str, query: &str) -> Vec<Value> {
    let path = format!("/v1/users/{user}/unread?{query}");
    let reply = App::send(app.native(Method::GET, &path)).await.ok();
    reply["rooms"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_row_says_how_far_the_user_has_read_and_what_the_user_has_set() {
    let app = app();
    for (kind, room) in [("group", "g"), ("supergroup", "s")] {
        let message = |id: &str, sender: &str, mark_read: bool| json!({"type": "message.sent", "room": room, "id": id, "sender": sender, "mark_read": mark_read});
        app.must(&json!([
            {"type": "room.updated", "room": room, "kind": kind},
            message("1", "bob", true),
            {"type": "member.joined", "room": room, "users": ["alice", "bob"]},
            message("2", "bob", true),
            message("3", "alice", false),
            message("4", "bob", true),
        ]))
        .await;
        let row = |read: u64, head: u64, messages: u64, muted: bool, hidden: bool| {
            json!([{"room": room, "kind": kind, "custom_type": null, "tags": [], "messages": messages, "mentions": 0,
                    "muted": muted, "hidden": hidden, "count": "all", "read_position": read, "head": head}])
        };
        let only = || async {
            let rows = rows(&app, "alice", "include=rooms").await;
            let rows = rows.into_iter().filter(|row| row["room"] == room);
            Value::from(rows.collect::<Vec<_>>())
        };
        assert_eq!(only().await, row(1, 4, 2, false, false));
        app.must(&json!([
            {"type": "pref.updated", "room": room, "user": "alice", "muted": true, "sticky": true},
            {"type": "room.read", "room": room, "user": "alice", "up_to_id": "2"},
        ]))
        .await;
        assert_eq!(only().await, row(2, 4, 1, true, false));
        app.must(&json!([
            {"type": "pref.updated", "room": room, "user": "alice", "hidden": true, "muted": false},
            message("5", "alice", true),
        ]))
        .await;
        assert_eq!(only().await, row(5, 5, 0, false, true));
    }
}

#[tokio::test]
async fn rows_come_in_pages_and_only_where_something_is_unread() {
    let app = app();
    let mut events = Vec::new();
    let mut names: Vec<String> = ["a", "A", "%", "b,c", "ä", "z", "Z/1", "00"]
        .map(str::to_owned)
        .into();
    for (at, room) in names.iter().enumerate() {
        let kind = if at % 3 == 0 { "supergroup" } else { "group" };
        events.push(json!({"type": "room.updated", "room": room, "kind": kind}));
        events.push(json!({"type": "member.joined", "room": room, "users": ["alice", "bob"]}));
        if at % 2 == 0 {
            events.push(json!({"type": "message.sent", "room": room, "id": "1", "sender": "bob"}));
        }
    }
    app.must(&Value::from(events)).await;
    let unread: Vec<String> = names.iter().step_by(2).cloned().collect();
    names.sort();
    let all = rows(&app, "alice", "include=rooms").await;
    let ids = |rows: &[Value]| -> Vec<String> {
        let ids = rows.iter().map(|row| row["room"].as_str().unwrap());
        ids.map(str::to_owned).collect()
    };
    assert_eq!(ids(&all), names);
    for (query, keep) in [("include=rooms", None), ("only=unread", Some(&unread))] {
        let kept = |row: &&Value| keep.is_none_or(|keep| keep.contains(&ids(&[(*row).clone()])[0]));
        let expected: Vec<Value> = all.iter().filter(kept).cloned().collect();
        for limit in 1..=names.len() {
            let mut found: Vec<Value> = Vec::new();
            loop {
                let after = found.last().map_or(String::new(), |row| {
                    format!("&after={}", escaped(row["room"].as_str().unwrap()))
                });
                let page = rows(&app, "alice", &format!("{query}&limit={limit}{after}")).await;
                let is_last = page.len() < limit;
                found.extend(page);
                if is_last {
                    break;
                }
            }
            assert_eq!(found, expected, "{query} {limit}");
        }
    }
    // The sums are those of all rooms.
    let of = |query: &'static str| {
        let path = format!("/v1/users/alice/unread?{query}");
        let request = app.native(Method::GET, &path);
        async move { App::send(request).await.ok() }
    };
    let (whole, page) = (of("include=rooms").await, of("only=unread&limit=1").await);
    for family in ["messages", "mentions", "invitations", "tags", "types"] {
        assert_eq!(whole[family], page[family]);
    }
    assert_eq!(rows(&app, "bob", "only=unread").await, [] as [Value; 0]);
    assert_eq!(
        rows(&app, "alice", "after=~").await,
        rows(&app, "alice", "after=z").await
    );
    // An empty one stands before the first page.
    for query in ["include=rooms&after=", "limit=100&after="] {
        assert_eq!(rows(&app, "alice", query).await, all, "{query}");
    }
    for query in [
        "only=read",
        "only=",
        "only=unread&only=unread",
        "limit=0",
        "limit=%2B5",
        "limit=10001",
        "limit=-1",
        "limit=",
        "limit=1.5",
        "after=%0a",
        "limit=1&limit=1",
    ] {
        let path = format!("/v1/users/alice/unread?include=rooms&{query}");
        problem(&App::send(app.native(Method::GET, &path)).await, 400);
    }
}

/// Which commands a read takes, those in scripts included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_takes_no_more_commands_than_it_needs() {
    let (app, _pod, redis) = Own::start("").parts();
    app.must(&json!([
        {"type": "room.updated", "room": "g"},
        {"type": "room.updated", "room": "s", "kind": "supergroup"},
        {"type": "member.joined", "room": "g", "users": ["alice", "bob", "carol"]},
        {"type": "member.joined", "room": "s", "user": "bob"},
        {"type": "message.sent", "room": "g", "id": "1"},
        {"type": "message.sent", "room": "s", "id": "1"},
    ]))
    .await;
    let taken = |method: Method, path: &'static str| {
        let (app, redis) = (&app, &redis);
        async move {
            // The sweeps of the pod go on, so the least of some.
            let mut least: Option<[u64; 4]> = None;
            for _ in 0..12 {
                let before = redis.calls();
                let body = json!({"users": ["alice", "bob"]});
                let mut request = app.native(method.clone(), path);
                if method == Method::POST {
                    request = request.json(&body);
                }
                App::send(request).await.ok();
                let after = redis.calls();
                let counts = ["evalsha", "hget", "hgetall", "hmget"].map(|name| {
                    let of = |calls: &BTreeMap<String, u64>| calls.get(name).copied();
                    of(&after).unwrap_or(0) - of(&before).unwrap_or(0)
                });
                let is_less =
                    |least: [u64; 4]| counts.iter().sum::<u64>() < least.iter().sum::<u64>();
                if least.is_none_or(is_less) {
                    least = Some(counts);
                }
            }
            least.unwrap()
        }
    };
    let get = Method::GET;
    for (method, path, expected) in [
        // A user without supergroups: one script, which reads three or four hashes.
        (get.clone(), "/v1/users/alice/unread", [1, 0, 3, 0]),
        (
            get.clone(),
            "/v1/users/alice/unread?include=rooms",
            [1, 0, 4, 0],
        ),
        // A supergroup: its script reads its meta; and the rooms take the user's settings of it.
        (get.clone(), "/v1/users/bob/unread", [2, 0, 3, 1]),
        (
            get.clone(),
            "/v1/users/bob/unread?include=rooms",
            [2, 0, 4, 2],
        ),
        // For each user the record of the supergroup, which is not there, and the count; read positions take the record.
        (Method::POST, "/v1/rooms/g/unread", [2, 1 + 2 * 2, 0, 1]),
        (
            Method::POST,
            "/v1/rooms/g/unread?include=read",
            [2, 1 + 2 * 3, 0, 1],
        ),
    ] {
        assert_eq!(taken(method, path).await, expected, "{path}");
    }
}

#[tokio::test]
async fn ids_in_a_path_are_decoded_once_and_strictly() {
    let app = filled().await;
    for path in [
        "/v1/users/%61lice/unread",
        "//v1/users/alice/unread",
        "/v1/users/alice/unread?",
    ] {
        App::send(app.native(Method::GET, path)).await.ok();
    }
    for path in [
        "/v1/users/%2561lice/unread",
        "/v1/users/alice%20/unread",
        "/v1/users/alice+/unread",
    ] {
        problem(&App::send(app.native(Method::GET, path)).await, 404);
    }
    let long = "x".repeat(256);
    // As bytes, since a client library would mend or refuse some of them.
    for segment in [
        "%", "%4", "%zz", "%ff", "%C3", "%00", "%0a", "%7f", "%C2%85", "", &long,
    ] {
        for place in ["users", "rooms"] {
            let address = app.address();
            let request = format!(
                "GET /v1/{place}/{segment}/unread HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
                app.keys.server_key
            );
            let answer = raw(address, request.as_bytes()).unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 400 "),
                "{place} {segment}: {answer}"
            );
            assert!(
                answer.contains("application/problem+json"),
                "{place} {segment}: {answer}"
            );
        }
    }
}

#[tokio::test]
async fn many_users_are_answered_in_one_call() {
    let app = filled().await;
    let none = json!({"messages": kinds(0, 0, 0), "mentions": kinds(0, 0, 0), "invitations": kinds(0, 0, 0),
                      "unread_rooms": kinds(0, 0, 0)});
    let reply = app
        .unread_many(&["ghost", "alice", "bob", "alice", "ghost"])
        .await;
    is_json(&reply);
    assert_eq!(
        reply.ok(),
        json!({"users": {"alice": alice(), "bob": none, "ghost": null}})
    );
    assert_eq!(
        app.unread_many::<&str>(&[]).await.ok(),
        json!({"users": {}})
    );

    let mut users: Vec<String> = (0..998).map(|n| format!("{n:0255}")).collect();
    users.extend(["alice".to_owned(), "bob".to_owned()]);
    let reply = app.unread_many(&users).await.ok();
    let answered = reply["users"].as_object().unwrap();
    assert_eq!(answered.len(), 1_000);
    assert_eq!(answered["alice"], alice());
    assert_eq!(
        answered.values().filter(|counts| counts.is_null()).count(),
        998
    );

    users.push("carol".to_owned());
    problem(&app.unread_many(&users).await, 413);
}

#[tokio::test]
async fn wrong_questions_about_many_users_are_refused() {
    let app = filled().await;
    for body in [
        "",
        "nope",
        "null",
        "[\"alice\"]",
        "\"alice\"",
        "{}",
        r#"{"users": null}"#,
        r#"{"users": "alice"}"#,
        r#"{"users": {"alice": 1}}"#,
        r#"{"users": [1]}"#,
        r#"{"users": ["alice", null]}"#,
        r#"{"users": [["alice"]]}"#,
        r#"{"users": ["alice", ""]}"#,
        r#"{"users": ["a\nb"]}"#,
        r#"{"users": ["alice"], "user": "bob"}"#,
        r#"{"user": ["alice"]}"#,
        r#"{"users": ["alice"]"#,
    ] {
        problem(&ask(&app, body).await, 400);
    }
    let long = json!({"users": ["x".repeat(256)]}).to_string();
    problem(&ask(&app, long).await, 400);
    problem(
        &ask(&app, format!("{{\"users\": []{}}}", " ".repeat(9 << 20))).await,
        413,
    );
    for (name, value) in [("content-type", "text/html"), ("content-encoding", "gzip")] {
        let request = app.native(Method::POST, "/v1/unread").header(name, value);
        problem(&App::send(request.body(r#"{"users": []}"#)).await, 415);
    }
}

#[tokio::test]
async fn a_room_answers_for_all_or_some_of_its_members() {
    let app = filled().await;
    app.must(&json!([
        {"type": "room.updated", "room": "a/b"},
        {"type": "member.joined", "room": "a/b", "users": ["x,y", "alice"]},
        {"type": "room.updated", "room": "a%2Fb"},
        {"type": "member.joined", "room": "a%2Fb", "user": "bob"},
        {"type": "message.sent", "room": "a/b", "id": "1"},
        {"type": "member.invited", "room": "a/b", "user": "guest"},
    ]))
    .await;
    let get = |path: &'static str| {
        let request = app.native(Method::GET, path);
        async move { App::send(request).await }
    };
    for (path, expected) in [
        ("/v1/rooms/r/unread", json!({"alice": 1, "bob": 0})),
        ("/v1/rooms/r/unread?users=alice", json!({"alice": 1})),
        (
            "/v1/rooms/r/unread?users=bob,alice,ghost,bob",
            json!({"alice": 1, "bob": 0}),
        ),
        (
            "/v1/rooms/r/unread?users=bob%2Calice",
            json!({"alice": 1, "bob": 0}),
        ),
        (
            "/v1/rooms/r/unread?users=bob&users=alice",
            json!({"alice": 1, "bob": 0}),
        ),
        ("/v1/rooms/r/unread?users=ghost", json!({})),
        ("/v1/rooms/a%2Fb/unread", json!({"x,y": 1, "alice": 1})),
        (
            "/v1/rooms/a%2fb/unread?users=alice,guest",
            json!({"alice": 1}),
        ),
        ("/v1/rooms/a%2Fb/unread?user=x,y", json!({"x,y": 1})),
        ("/v1/rooms/a%252Fb/unread", json!({"bob": 0})),
    ] {
        assert_eq!(get(path).await.ok(), json!({"unread": expected}), "{path}");
    }
    for path in [
        "/v1/rooms/nowhere/unread",
        "/v1/rooms/nowhere/unread?users=alice",
        "/v1/rooms/a%20b/unread",
    ] {
        problem(&get(path).await, 404);
    }
    problem(&get("/v1/rooms/r/unread?users=alice,%0a").await, 400);
    for nobody in [
        "/v1/rooms/r/unread?users=",
        "/v1/rooms/r/unread?users=,",
        "/v1/rooms/r/unread?users=&include=read",
    ] {
        let reply = get(nobody).await;
        problem(&reply, 400);
        assert_eq!(reply.body["detail"], "users names nobody", "{nobody}");
    }
    let long = format!("/v1/rooms/r/unread?users={}", "x".repeat(256));
    problem(&App::send(app.native(Method::GET, &long)).await, 400);
    let many = format!("/v1/rooms/r/unread?users={}", vec!["u"; 1_001].join(","));
    problem(&App::send(app.native(Method::GET, &many)).await, 400);
}
