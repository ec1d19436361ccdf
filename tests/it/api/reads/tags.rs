//! Stamps and entity tags of answers.

use reqwest::Method;
use serde_json::json;

use super::filled;
use crate::api::problem;
use crate::support::{App, Reply};

/// Stamp and entity tag of an answer.
fn marks(reply: &Reply) -> (String, String) {
    let stamp = reply.body["stamp"].as_str().unwrap().to_owned();
    (stamp, reply.header("etag").unwrap().to_owned())
}

#[tokio::test]
async fn stamp_and_tag_stay_the_same_until_something_changes_that_was_asked_for() {
    let app = filled().await;
    let get = |query: &str| {
        let request = app.native(Method::GET, &format!("/v1/users/alice/unread{query}"));
        App::send(request)
    };
    let all = || async {
        let [plain, rooms] = [get("").await, get("?include=rooms").await];
        (marks(&plain), marks(&rooms))
    };
    let ((mut stamp, mut tag), (mut stamp_of_rooms, mut tag_of_rooms)) = all().await;
    assert_ne!(stamp, stamp_of_rooms);
    // The event, and whether the totals, the tags and types, and the rows change by it.
    for (event, totals, others, rows) in [
        (
            json!({"type": "user.updated", "user": "alice", "nickname": "A"}),
            false,
            false,
            false,
        ),
        (
            json!({"type": "room.updated", "room": "r", "name": "R"}),
            false,
            false,
            false,
        ),
        (
            json!({"type": "message.sent", "room": "r", "id": "2", "sender": "bob"}),
            true,
            true,
            true,
        ),
        (
            json!({"type": "message.sent", "room": "r", "id": "2", "sender": "bob"}),
            false,
            false,
            false,
        ),
        (
            json!({"type": "room.updated", "room": "r", "tags": ["u", "v"]}),
            false,
            true,
            true,
        ),
        (
            json!({"type": "room.updated", "room": "r", "custom_type": "d"}),
            false,
            true,
            true,
        ),
        (
            json!({"type": "pref.updated", "room": "r", "user": "alice", "muted": true}),
            false,
            false,
            true,
        ),
        (
            json!({"type": "message.sent", "room": "r", "id": "3", "sender": "alice", "mark_read": false}),
            false,
            false,
            true,
        ),
        (
            json!({"type": "member.joined", "room": "i", "user": "alice"}),
            true,
            false,
            true,
        ),
        (
            json!({"type": "pref.updated", "room": "i", "user": "alice", "hidden": true}),
            false,
            false,
            true,
        ),
        (
            json!({"type": "message.sent", "room": "i", "id": "1", "sender": "bob"}),
            true,
            false,
            true,
        ),
        (
            json!({"type": "room.read", "room": "i", "user": "alice"}),
            true,
            false,
            true,
        ),
        (
            json!({"type": "room.read", "room": "i", "user": "alice"}),
            false,
            false,
            false,
        ),
    ] {
        app.must(&event).await;
        let (plain, rooms) = all().await;
        assert_eq!(plain.0 != stamp, totals, "stamp: {event}");
        assert_eq!(plain.1 != tag, totals || others, "tag: {event}");
        assert_eq!(
            rooms.0 != stamp_of_rooms,
            totals || rows,
            "stamp of rooms: {event}"
        );
        assert_eq!(
            rooms.1 != tag_of_rooms,
            totals || others || rows,
            "tag of rooms: {event}"
        );
        ((stamp, tag), (stamp_of_rooms, tag_of_rooms)) = (plain, rooms);
    }
    // The user's own device gets the same stamp.
    let own = App::send(app.me("?include=rooms", "alice")).await;
    assert_eq!(marks(&own), (stamp_of_rooms, tag_of_rooms));
}

#[tokio::test]
async fn whoever_has_the_tag_is_not_sent_the_same_again() {
    let app = filled().await;
    let get = |method: Method, known: Option<String>| {
        let request = app.native(method, "/v1/users/alice/unread?include=rooms");
        App::send(match known {
            Some(tag) => request.header("If-None-Match", tag),
            None => request,
        })
    };
    let reply = get(Method::GET, None).await;
    assert_eq!(reply.header("cache-control"), Some("private, no-cache"));
    let (_, tag) = marks(&reply);
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2);
    for known in [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"a,b\", {tag}"),
        format!("{tag},\"x\""),
        "*".to_owned(),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let reply = get(method, Some(known.clone())).await;
            assert_eq!((reply.status, reply.text.as_str()), (304, ""), "{known}");
            assert_eq!(reply.header("etag"), Some(tag.as_str()), "{known}");
            assert_eq!(reply.header("content-type"), None, "{known}");
        }
    }
    for known in ["\"x\"".to_owned(), tag.replace('"', ""), String::new()] {
        let reply = get(Method::GET, Some(known)).await;
        assert_eq!((reply.status, marks(&reply).1), (200, tag.clone()));
    }
    app.must(&json!({"type": "room.read", "room": "r", "user": "alice"}))
        .await;
    let reply = get(Method::GET, Some(tag.clone())).await;
    assert_eq!(reply.status, 200);
    assert_ne!(marks(&reply).1, tag);
    let path = "/v1/users/nobody/unread";
    let request = app.native(Method::GET, path).header("If-None-Match", "*");
    problem(&App::send(request).await, 404);
}
