//! The reads of rooms: what a room is, who is in it, and how far they have read.

use reqwest::Method;
use serde_json::{Value, json};

use super::problem;
use crate::support::{App, Reply, app, escaped, now_seconds};

async fn get(app: &App, path: &str) -> Reply {
    App::send(app.native(Method::GET, path)).await
}

#[tokio::test]
async fn a_room_shows_what_it_is() {
    let app = app();
    for path in ["/v1/rooms/r", "/v1/rooms/r/members"] {
        problem(&get(&app, path).await, 404);
    }
    app.must(&json!([
        {"type": "room.updated", "room": "r", "time": 1_700_000_000_000_i64},
        {"type": "room.updated", "room": "a/b", "kind": "supergroup", "custom_type": "c", "tags": ["t,1", "s"], "name": "N",
         "cover": "http://c", "description": "D", "webhook": "w", "bot_state": "on", "bot_mode": true, "encrypted": true,
         "service_status": -3, "status": 0, "time": 1_700_000_000_001_i64},
    ]))
    .await;
    let mut plain = json!({
        "room": "r", "kind": "group", "custom_type": null, "tags": [], "status": 1, "name": "", "cover": "",
        "description": "", "webhook": "", "bot_state": "", "bot_mode": false, "encrypted": false, "service_status": 0,
        "created": 1_700_000_000_000_i64, "head": 0, "members": 0});
    assert_eq!(get(&app, "/v1/rooms/r").await.ok(), plain);
    let full = json!({
        "room": "a/b", "kind": "supergroup", "custom_type": "c", "tags": ["t,1", "s"], "status": 0, "name": "N",
        "cover": "http://c", "description": "D", "webhook": "w", "bot_state": "on", "bot_mode": true, "encrypted": true,
        "service_status": -3, "created": 1_700_000_000_001_i64, "head": 0, "members": 0});
    assert_eq!(get(&app, "/v1/rooms/a%2Fb").await.ok(), full);
    app.must(&json!([
        {"type": "member.joined", "room": "r", "users": ["a", "b", "c"]},
        {"type": "member.invited", "room": "r", "user": "d"},
        {"type": "message.sent", "room": "r", "id": "1"},
        {"type": "message.sent", "room": "r", "id": "2", "silent": true},
        {"type": "message.sent", "room": "r", "id": "3"},
        {"type": "member.left", "room": "r", "user": "b"},
    ]))
    .await;
    plain["head"] = json!(2);
    plain["members"] = json!(3);
    assert_eq!(get(&app, "/v1/rooms/r").await.ok(), plain);
    app.must(&json!({"type": "room.deleted", "room": "r"}))
        .await;
    problem(&get(&app, "/v1/rooms/r").await, 404);
    problem(&get(&app, "/v1/rooms/r/members").await, 404);
    // The name is given again: it is another room.
    app.must(&json!({"type": "room.updated", "room": "r", "time": 1_700_000_000_000_i64}))
        .await;
    plain["head"] = json!(0);
    plain["members"] = json!(0);
    assert_eq!(get(&app, "/v1/rooms/r").await.ok(), plain);
    assert_eq!(
        get(&app, "/v1/rooms/r/members").await.ok(),
        json!({"members": []})
    );
    for path in [
        "/v1/rooms/r?x=1",
        "/v1/rooms/%ff",
        "/v1/rooms/r/members?x=1",
    ] {
        problem(&get(&app, path).await, 400);
    }
}

/// User and state, as the pages of a list have them.
async fn walked(app: &App, room: &str, limit: usize) -> Vec<(String, String)> {
    let before = i64::try_from(now_seconds()).unwrap() * 1_000 - 600_000;
    let mut found: Vec<(String, String)> = Vec::new();
    loop {
        let after = found.last().map_or(String::new(), |(user, _)| {
            format!("&after={}", escaped(user))
        });
        let path = format!("/v1/rooms/{}/members?limit={limit}{after}", escaped(room));
        let page = get(app, &path).await.ok();
        let page = page["members"].as_array().unwrap();
        for row in page {
            let since = row["since"].as_i64().unwrap();
            assert!(since > before && since < before + 1_200_000, "{row}");
            let text = |field: &str| row[field].as_str().unwrap().to_owned();
            found.push((text("user"), text("state")));
        }
        if page.len() < limit {
            return found;
        }
    }
}

#[tokio::test]
async fn members_come_in_pages_with_their_state() {
    let app = app();
    for (room, kind) in [("g", "group"), ("s", "supergroup")] {
        app.must(&json!([
            {"type": "room.updated", "room": room, "kind": kind},
            {"type": "member.joined", "room": room, "users": ["b", "B", "ä", "%", "x,y", "left"]},
            {"type": "member.invited", "room": room, "users": ["a", "c", "b"]},
            {"type": "member.left", "room": room, "user": "left"},
        ]))
        .await;
        let mut expected: Vec<(String, String)> = ["b", "B", "ä", "%", "x,y"]
            .map(|user| (user.to_owned(), "joined".to_owned()))
            .into();
        expected.extend(["a", "c"].map(|user| (user.to_owned(), "invited".to_owned())));
        expected.sort();
        for limit in [1, 2, 3, 7, 8, 10_000] {
            assert_eq!(walked(&app, room, limit).await, expected, "{kind} {limit}");
        }
        let all = get(&app, &format!("/v1/rooms/{room}/members")).await.ok();
        assert_eq!(all["members"].as_array().map(Vec::len), Some(7));
        // A rejoined member is one since then.
        let since = |all: &Value| {
            let rows = all["members"].as_array().unwrap().iter();
            let mut rows = rows.filter(|row| row["user"] == "b");
            rows.next().unwrap()["since"].as_i64().unwrap()
        };
        app.must(&json!([
            {"type": "member.left", "room": room, "user": "b"},
            {"type": "member.joined", "room": room, "user": "b"},
        ]))
        .await;
        let again = get(&app, &format!("/v1/rooms/{room}/members")).await.ok();
        assert!(since(&again) > since(&all));
    }
    let first = get(&app, "/v1/rooms/g/members?limit=2").await.ok();
    let path = "/v1/rooms/g/members?limit=2&after=";
    assert_eq!(get(&app, path).await.ok(), first);
    for query in [
        "limit=0",
        "limit=%2B5",
        "limit=10001",
        "limit=x",
        "after=a&after=b",
        "after=%00",
    ] {
        problem(
            &get(&app, &format!("/v1/rooms/g/members?{query}")).await,
            400,
        );
    }
}

/// More members than are read at once.
#[tokio::test]
async fn the_members_of_a_large_room_come_in_the_same_order() {
    let app = app();
    app.must(&json!({"type": "room.updated", "room": "large", "kind": "supergroup"}))
        .await;
    let names: Vec<String> = (0..5_400)
        .map(|n| format!("u{:05}", n * 7 % 5_400))
        .collect();
    for users in names.chunks(900) {
        app.must(&json!({"type": "member.joined", "room": "large", "users": users}))
            .await;
    }
    let mut expected: Vec<_> = names
        .into_iter()
        .map(|user| (user, "joined".to_owned()))
        .collect();
    expected.sort();
    for limit in [1_000, 5_399, 5_400, 10_000] {
        assert_eq!(walked(&app, "large", limit).await, expected, "{limit}");
    }
    let room = get(&app, "/v1/rooms/large").await.ok();
    assert_eq!(room["members"], 5_400);
}

#[tokio::test]
async fn a_room_says_how_far_its_members_have_read() {
    let app = app();
    for (room, kind) in [("d", "direct"), ("g", "group"), ("s", "supergroup")] {
        app.must(&json!([
            {"type": "room.updated", "room": room, "kind": kind},
            {"type": "message.sent", "room": room, "id": "1"},
            {"type": "member.joined", "room": room, "users": ["a", "b"]},
            {"type": "message.sent", "room": room, "id": "2", "sender": "b"},
            {"type": "message.sent", "room": room, "id": "3", "sender": "a", "mark_read": false},
            {"type": "message.sent", "room": room, "id": "4", "sender": "b"},
            {"type": "message.sent", "room": room, "id": "5"},
        ]))
        .await;
        let path = |query: &str| format!("/v1/rooms/{room}/unread{query}");
        let expected = |a: (u64, u64), b: (u64, u64)| json!({"unread": {"a": a.0, "b": b.0}, "read": {"a": a.1, "b": b.1}});
        let include = path("?include=read");
        assert_eq!(
            get(&app, &include).await.ok(),
            expected((3, 1), (1, 4)),
            "{kind}"
        );
        app.must(&json!([
            {"type": "room.read", "room": room, "user": "a", "up_to_id": "3"},
            {"type": "room.read", "room": room, "user": "b"},
        ]))
        .await;
        assert_eq!(
            get(&app, &include).await.ok(),
            expected((2, 3), (0, 5)),
            "{kind}"
        );
        let one = get(&app, &path("?users=a,nobody&include=read")).await.ok();
        assert_eq!(one, json!({"unread": {"a": 2}, "read": {"a": 3}}));
        let body = json!({"users": ["b", "nobody"]});
        let post = app.native(Method::POST, &include).json(&body);
        let expected = json!({"unread": {"b": 0}, "read": {"b": 5}});
        assert_eq!(App::send(post).await.ok(), expected);
        // Unless asked for, it is left out.
        assert_eq!(
            get(&app, &path("?users=a")).await.ok(),
            json!({"unread": {"a": 2}})
        );
        for query in ["?include=rooms", "?include=read,x"] {
            problem(&get(&app, &path(query)).await, 400);
            let post = app.native(Method::POST, &path(query)).json(&body);
            problem(&App::send(post).await, 400);
        }
        // An inactive room counts nothing, and forgets nothing.
        app.must(&json!({"type": "room.updated", "room": room, "status": 0}))
            .await;
        let one = get(&app, &path("?users=a&include=read")).await.ok();
        assert_eq!(one, json!({"unread": {"a": 0}, "read": {"a": 3}}));
    }
}
