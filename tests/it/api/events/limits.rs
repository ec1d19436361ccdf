//! How much a request may hold, and every code of a rejection.

use serde_json::{Value, json};

use super::{at, post, total};
use crate::api::{fields, problem};
use crate::support::{Wait, app};

#[tokio::test]
async fn ten_thousand_events_are_taken_and_one_more_is_not() {
    let app = app();
    let users: Vec<String> = (0..5).map(|n| format!("u{n}")).collect();
    let mut events: Vec<Value> = Vec::new();
    for room in 0..10 {
        events.push(json!({"type": "room.updated", "room": format!("r{room}"), "tags": ["t"]}));
        events.push(json!({"type": "member.joined", "room": format!("r{room}"), "users": users}));
    }
    let setup = events.len();
    for n in setup..10_000 {
        events.push(
            json!({"type": "message.sent", "room": format!("r{}", n % 10), "id": n.to_string(),
                           "sender": users[0]}),
        );
    }
    let messages = 10_000 - setup;
    events.push(json!({"type": "user.updated", "user": "late"}));
    let reply = app.events(&json!(events), Wait::Applied).await;
    problem(&reply, 413);
    problem(&app.unread("u0", false).await, 404);

    events.pop();
    let reply = app.events_ndjson(&events, Wait::Applied).await.ok();
    assert_eq!(
        (&reply["applied"], &reply["duplicate"], &reply["rejected"]),
        (&json!(10_000), &json!(0), &json!(0))
    );
    let results = reply["results"].as_array().unwrap();
    assert_eq!(results.len(), 10_000);
    assert_eq!(results[9_999], at("applied", messages as u64 / 10));
    for user in &users {
        let expected = if *user == users[0] { 0 } else { messages };
        let counts = app.unread(user, false).await.ok();
        assert_eq!(counts["messages"]["group"], json!(expected), "{user}");
        assert_eq!(counts["tags"]["t"], json!(expected), "{user}");
    }
}

#[tokio::test]
async fn a_body_of_more_than_eight_mib_is_too_large() {
    let app = app();
    const LIMIT: usize = 8 * 1024 * 1024;
    let event = r#"{"type":"user.updated","user":"alice"}"#;
    let body = |length: usize| format!("{event}{}", " ".repeat(length - event.len()));
    for more in [1, LIMIT] {
        let reply = post(&app, "", "application/json", body(LIMIT + more)).await;
        problem(&reply, 413);
    }
    problem(&app.unread("alice", false).await, 404);
    post(&app, "", "application/json", body(LIMIT)).await.ok();
    total(&app, "alice").await;
}

#[tokio::test]
async fn every_rejection_has_its_code_and_changes_nothing() {
    let app = app();
    app.must(&json!([
        {"type": "user.updated", "user": "outsider"},
        {"type": "room.updated", "room": "r", "tags": ["t"]},
        {"type": "member.joined", "room": "r", "user": "u"},
        {"type": "member.invited", "room": "r", "user": "guest"},
        {"type": "message.sent", "room": "r", "id": "1"},
        {"type": "room.updated", "room": "d", "kind": "direct"},
        {"type": "member.joined", "room": "d", "users": ["u", "v"]},
        {"type": "room.updated", "room": "s", "kind": "supergroup"},
    ]))
    .await;
    let before = app.unread("u", true).await.ok();

    let by_code = [
        (
            "room_not_found",
            json!([
                {"type": "room.deleted", "room": "nowhere"},
                {"type": "member.joined", "room": "nowhere", "user": "new"},
                {"type": "member.invited", "room": "nowhere", "user": "new"},
                {"type": "member.left", "room": "nowhere", "user": "u"},
                {"type": "message.sent", "room": "nowhere", "id": "1", "sender": "new"},
                {"type": "message.recalled", "room": "nowhere", "id": "1"},
                {"type": "room.read", "room": "nowhere", "user": "u"},
                {"type": "pref.updated", "room": "nowhere", "user": "u"},
            ]),
        ),
        (
            "user_not_found",
            json!([
                {"type": "user.deleted", "user": "nobody"},
                {"type": "user.read_all", "user": "nobody"},
            ]),
        ),
        (
            "message_not_found",
            json!([
                {"type": "message.recalled", "room": "r", "id": "no"},
                {"type": "room.read", "room": "r", "user": "u", "up_to_id": "no"},
            ]),
        ),
        (
            "not_a_member",
            json!([
                {"type": "room.read", "room": "r", "user": "outsider"},
                {"type": "room.read", "room": "r", "user": "guest"},
                {"type": "pref.updated", "room": "r", "user": "outsider", "muted": true},
                {"type": "pref.updated", "room": "r", "user": "guest", "muted": true},
            ]),
        ),
        (
            "kind_change",
            json!([
                {"type": "room.updated", "room": "r", "kind": "direct", "tags": ["no"]},
                {"type": "room.updated", "room": "s", "kind": "group"},
                {"type": "room.updated", "room": "d", "kind": "supergroup", "status": 0},
            ]),
        ),
        (
            "direct_room_full",
            json!([
                {"type": "member.joined", "room": "d", "user": "new"},
                {"type": "member.invited", "room": "d", "users": ["u", "new"]},
            ]),
        ),
    ];
    let rejected: Vec<(&str, &Value)> = by_code
        .iter()
        .flat_map(|(code, events)| {
            events
                .as_array()
                .unwrap()
                .iter()
                .map(|event| (*code, event))
        })
        .collect();
    let events: Value = rejected.iter().map(|(_, event)| (*event).clone()).collect();
    let reply = app.events(&events, Wait::Applied).await.ok();
    assert_eq!(reply["rejected"], json!(rejected.len()));
    for ((code, event), result) in rejected.iter().zip(reply["results"].as_array().unwrap()) {
        assert_eq!(fields(result), ["error", "status"], "{event}: {result}");
        assert_eq!(result["status"], "rejected", "{event}: {result}");
        assert_eq!(result["error"]["code"], *code, "{event}: {result}");
        assert!(result["error"]["message"].is_string(), "{event}: {result}");
    }
    assert_eq!(app.unread("u", true).await.ok(), before);
    for nobody in ["new", "nobody"] {
        problem(&app.unread(nobody, false).await, 404);
    }
    problem(&app.room_unread::<&str>("nowhere", None).await, 404);
    // Sent one by one it is the same.
    for (code, event) in &rejected {
        let reply = app.events(event, Wait::Accepted).await.ok();
        assert_eq!(
            reply["results"][0]["error"]["code"], *code,
            "{event}: {reply}"
        );
    }
}
