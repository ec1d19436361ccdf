//! `POST /v1/events?include=counts`: the new totals with the answer.

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::problem;
use crate::support::{App, app};

async fn counted(app: &App, events: &Value) -> Value {
    let request = app.native(Method::POST, "/v1/events?include=counts");
    App::send(request.json(events)).await.ok()
}

/// The users of an answer; each must have the totals that `POST /v1/unread` answers.
async fn users(app: &App, answer: &Value) -> Vec<String> {
    let counts = answer["counts"].as_object().unwrap();
    let users: Vec<String> = counts.keys().cloned().collect();
    let asked = app.unread_many(&users).await.ok();
    assert_eq!(asked["users"], answer["counts"]);
    users
}

fn total(answer: &Value, user: &str, family: &str) -> u64 {
    answer["counts"][user][family]["total"].as_u64().unwrap()
}

#[tokio::test]
async fn an_answer_holds_the_totals_of_those_whom_the_events_concern() {
    let app = app();
    let all = [
        json!({"type": "room.updated", "room": "r"}),
        json!({"type": "room.updated", "room": "s", "kind": "supergroup"}),
        json!({"type": "member.joined", "room": "r", "users": ["a", "b"]}),
        json!({"type": "member.invited", "room": "r", "user": "guest"}),
        json!({"type": "member.joined", "room": "s", "users": ["a", "b", "c"]}),
    ];
    for event in &all {
        app.must(event).await;
    }
    let message =
        json!({"type": "message.sent", "room": "r", "id": "1", "sender": "b", "mentions": ["a"]});
    // A duplicate still gets them.
    for status in ["applied", "duplicate"] {
        let answer = counted(&app, &message).await;
        assert_eq!(answer["results"][0]["status"], status);
        assert_eq!(users(&app, &answer).await, ["a", "b", "guest"]);
        assert_eq!(total(&answer, "a", "messages"), 1);
        assert_eq!(total(&answer, "a", "mentions"), 1);
        assert_eq!(total(&answer, "b", "messages"), 0);
        assert_eq!(answer.get("counts_truncated"), None);
    }
    for (event, concerned) in [
        // In a supergroup only the sender and those named are told.
        (
            json!({"type": "message.sent", "room": "s", "id": "1", "sender": "b", "mentions": ["c"]}),
            &["b", "c"][..],
        ),
        (
            json!({"type": "message.sent", "room": "s", "id": "2", "sender": "b", "mentions": "all"}),
            &["b"],
        ),
        (json!({"type": "message.sent", "room": "s", "id": "3"}), &[]),
        (
            json!({"type": "message.recalled", "room": "s", "id": "1"}),
            &[],
        ),
        (
            json!({"type": "room.updated", "room": "s", "kind": "supergroup"}),
            &[],
        ),
        (
            json!({"type": "room.updated", "room": "s", "tags": ["t"]}),
            &[],
        ),
        (
            json!({"type": "message.sent", "to": "d", "id": "1", "sender": "c"}),
            &["c", "d"],
        ),
        (
            json!({"type": "room.read", "peer": "c", "user": "d"}),
            &["d"],
        ),
        (
            json!({"type": "room.read", "room": "r", "user": "a"}),
            &["a"],
        ),
        (
            json!({"type": "pref.updated", "room": "r", "user": "b", "muted": true}),
            &["b"],
        ),
        (
            json!({"type": "message.recalled", "room": "r", "id": "1"}),
            &["a", "b", "guest"],
        ),
        (json!({"type": "user.read_all", "user": "c"}), &["c"]),
        (
            json!({"type": "user.updated", "user": "new", "nickname": "New"}),
            &["new"],
        ),
        (
            json!({"type": "member.left", "room": "r", "users": ["guest", "nobody"]}),
            &["guest", "nobody"],
        ),
        (json!({"type": "user.deleted", "user": "new"}), &["new"]),
        // Everybody who was in it, and the same if it becomes a supergroup.
        (
            json!({"type": "room.updated", "room": "r", "kind": "supergroup"}),
            &["a", "b"],
        ),
        (json!({"type": "room.deleted", "room": "r"}), &["a", "b"]),
        (
            json!({"type": "room.deleted", "room": "s"}),
            &["a", "b", "c"],
        ),
    ] {
        let answer = counted(&app, &event).await;
        assert_eq!(answer["applied"], 1, "{event}: {answer}");
        assert_eq!(users(&app, &answer).await, concerned, "{event}");
    }
}

#[tokio::test]
async fn what_is_rejected_concerns_nobody() {
    let app = app();
    let answer = counted(
        &app,
        &json!([
            {"type": "message.sent", "room": "nowhere", "id": "1", "sender": "a"},
            {"type": "message.sent", "room": 7},
            {"type": "message.sent", "to": "b", "id": "1", "sender": "c"},
        ]),
    )
    .await;
    assert_eq!(answer["rejected"], 2);
    assert_eq!(users(&app, &answer).await, ["b", "c"]);
    let answer = counted(&app, &json!([])).await;
    assert_eq!(answer["counts"], json!({}));
    // Without being asked, an answer has none.
    let answer = app.events(&json!([]), crate::support::Wait::Applied).await;
    assert_eq!(answer.ok().get("counts"), None);
}

#[tokio::test]
async fn beyond_a_thousand_users_the_first_are_answered() {
    let app = app();
    let names = |from: u32, to: u32| (from..to).map(|n| format!("u{n:05}")).collect::<Vec<_>>();
    app.must(&json!([
        {"type": "room.updated", "room": "r"},
        {"type": "member.joined", "room": "r", "users": names(0, 999)},
        {"type": "room.updated", "room": "large"},
    ]))
    .await;
    for first in (0..5_500).step_by(500) {
        let users = names(first, first + 500);
        app.must(&json!({"type": "member.joined", "room": "large", "users": users}))
            .await;
    }
    let message = json!({"type": "message.sent", "room": "r", "id": "1"});
    let answer = counted(&app, &message).await;
    assert_eq!(users(&app, &answer).await.len(), 999);
    assert_eq!(answer.get("counts_truncated"), None);
    let to = |to: &str| json!({"type": "message.sent", "to": to, "id": "1", "sender": "a"});
    // The users of the first events come first.
    let answer = counted(&app, &json!([to("b"), message])).await;
    let found = users(&app, &answer).await;
    assert_eq!(found.len(), 1_000);
    assert!(found.contains(&"a".to_owned()) && found.contains(&"b".to_owned()));
    assert_eq!(answer["counts_truncated"], true);
    let answer = counted(&app, &json!([message, to("b")])).await;
    let found = users(&app, &answer).await;
    assert_eq!(found.len(), 1_000);
    assert!(found.contains(&"a".to_owned()) && !found.contains(&"b".to_owned()));
    assert_eq!(answer["counts_truncated"], true);
    let large = json!({"type": "message.sent", "room": "large", "id": "1"});
    let answer = counted(&app, &large).await;
    assert_eq!(users(&app, &answer).await.len(), 1_000);
    assert_eq!(answer["counts_truncated"], true);
}

#[tokio::test]
async fn counts_need_events_that_are_applied() {
    let app = app();
    for query in [
        "?include=counts&wait=accepted",
        "?wait=accepted&include=counts",
        "?include=rooms",
        "?include=counts,rooms",
        "?Include=counts",
    ] {
        let request = app.native(Method::POST, &format!("/v1/events{query}"));
        problem(&App::send(request.json(&json!([]))).await, 400);
    }
    for query in ["?include=", "?include=counts&wait=applied"] {
        let request = app.native(Method::POST, &format!("/v1/events{query}"));
        let answer = App::send(request.json(&json!([]))).await.ok();
        assert_eq!(answer.get("counts").is_some(), query.contains("counts"));
    }
}
