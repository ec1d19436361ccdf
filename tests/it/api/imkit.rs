//! IMKIT's two endpoints.

/// What a browser asks for a page.
mod browser;

/// `GET /rooms`.
mod rooms;

use reqwest::Method;
use serde_json::{Value, json};

use super::{imkit_error, is_json};
use crate::support::{App, app, imkit_token, imkit_token_of, now_seconds, raw};

const BADGES: &str = "/badges/byRoomTags";

async fn filled() -> App {
    let app = app();
    app.must(&json!([
        {"type": "user.updated", "user": "bob", "nickname": "Bob", "avatar_url": "https://x/b.png", "is_robot": true,
         "last_login_time": 1_600_000_000_000_u64},
        {"type": "room.updated", "room": "r", "tags": ["work", "idle"], "name": "Orders"},
        {"type": "member.joined", "room": "r", "users": ["alice", "bob"]},
        {"type": "message.sent", "room": "r", "id": "1", "sender": "bob", "text": "hello", "time": 1_700_000_000_123_u64},
    ]))
    .await;
    app
}

async fn post(app: &App, body: impl Into<reqwest::Body>) -> crate::support::Reply {
    App::send(app.imkit(Method::POST, BADGES, "alice").body(body)).await
}

#[tokio::test]
async fn a_badge_answer_is_right_in_every_field() {
    let app = filled().await;
    let all =
        json!({"RC": 0, "RM": "OK", "result": {"totalBadge": 2, "data": {"idle": 1, "work": 1}}});
    for body in [
        "",
        " \n",
        "{}",
        r#"{"tags":null}"#,
        r#"{"tags":[]}"#,
        r#"{"tags":[],"more":[1]}"#,
    ] {
        let reply = post(&app, body).await;
        is_json(&reply);
        assert_eq!(reply.ok(), all, "{body:?}");
    }
    let of_tags = post(&app, r#"{"tags":["work","none","work"]}"#).await.ok();
    assert_eq!(
        of_tags["result"],
        json!({"totalBadge": 1, "data": {"work": 1, "none": 0}})
    );
    // The type of the body is nobody's business.
    let request = app
        .imkit(Method::POST, BADGES, "alice")
        .header("content-type", "text/plain");
    assert_eq!(App::send(request.body("{}")).await.ok(), all);
    // Somebody with a token whom nobody has mentioned.
    let nobody = app.imkit_badges::<&str>("nobody", None).await.ok();
    assert_eq!(
        nobody,
        json!({"RC": 0, "RM": "OK", "result": {"totalBadge": 0, "data": {}}})
    );
    let asked = app.imkit_badges("nobody", Some(&["work"])).await.ok();
    assert_eq!(
        asked["result"],
        json!({"totalBadge": 0, "data": {"work": 0}})
    );
}

#[tokio::test]
async fn bad_bodies_and_bad_tags_are_refused() {
    let app = filled().await;
    for body in [
        "nope",
        "[]",
        "null",
        "17",
        "\"tags\"",
        r#"{"tags":["work"]"#,
        "{} {}",
        "[[\"work\"]]",
    ] {
        imkit_error(&post(&app, body).await, 400, "INVALID_BODY");
    }
    imkit_error(
        &post(&app, &b"{\"tags\":[\"\xff\"]}"[..]).await,
        400,
        "INVALID_BODY",
    );
    for tags in [
        "\"work\"",
        "{}",
        "1",
        "true",
        "[1]",
        "[null]",
        "[true]",
        "[[\"work\"]]",
        "[\"work\",{}]",
    ] {
        let reply = post(&app, format!("{{\"tags\":{tags}}}")).await;
        imkit_error(&reply, 400, "INVALID_TAGS");
    }
    let many = json!({"tags": (0..1_001).map(|n| n.to_string()).collect::<Vec<_>>()});
    imkit_error(&post(&app, many.to_string()).await, 400, "INVALID_TAGS");
    let large = json!({"tags": [], "padding": "x".repeat(70_000)}).to_string();
    imkit_error(&post(&app, large).await, 413, "BODY_TOO_LARGE");
    // Without a length in front.
    let token = imkit_token(&app.keys.jwt_secret, "alice", now_seconds() + 3600);
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    let request = format!(
        "POST {BADGES} HTTP/1.1\r\nHost: x\r\nIM-CLIENT-KEY: {}\r\nIM-Authorization: {token}\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{}0\r\n\r\n",
        app.keys.client_key,
        chunk.repeat(17)
    );
    let answer = raw(app.address(), request.as_bytes()).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.contains("BODY_TOO_LARGE"),
        "{answer}"
    );
    let encoded = app
        .imkit(Method::POST, BADGES, "alice")
        .header("content-encoding", "gzip");
    imkit_error(
        &App::send(encoded.body("{}")).await,
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    );
}

#[tokio::test]
async fn credentials_of_every_wrong_kind_are_refused() {
    let (app, other) = (filled().await, app());
    let soon = now_seconds() + 3600;
    let (key, secret) = (&app.keys.client_key, &app.keys.jwt_secret);
    let good = imkit_token(secret, "alice", soon);
    for (method, path) in [(Method::POST, BADGES), (Method::GET, "/rooms")] {
        let call = |headers: &[(&str, &str)]| {
            let request = app.request(method.clone(), path);
            let request = headers.iter().fold(request, |request, (name, value)| {
                request.header(*name, *value)
            });
            App::send(request)
        };
        // The current names, the old ones, and any mixture.
        for headers in [
            [("IM-CLIENT-KEY", key), ("IM-Authorization", &good)],
            [("CLIENT_KEY", key), ("Authorization", &good)],
            [("client_key", key), ("im-authorization", &good)],
        ] {
            let headers = headers.map(|(name, value)| (name, value.as_str()));
            call(&headers).await.ok();
            call(&[headers[0], headers[1], ("IM-CLIENT-ID", "alice")])
                .await
                .ok();
        }
        let wrong_key = format!("{key}x");
        for headers in [
            &[][..],
            &[("IM-Authorization", good.as_str())],
            &[("IM-CLIENT-KEY", ""), ("IM-Authorization", &good)],
            &[("IM-CLIENT-KEY", &wrong_key), ("IM-Authorization", &good)],
            &[
                ("IM-CLIENT-KEY", &app.keys.server_key),
                ("IM-Authorization", &good),
            ],
            &[("IM-CLIENT-KEY", "nope")],
        ] {
            imkit_error(&call(headers).await, 403, "INVALID_CLIENT_KEY");
        }
        let mut tokens = vec![
            String::new(),
            "nope".to_owned(),
            "a.b.c".to_owned(),
            format!("{good}x"),
            format!("x{good}"),
            good.rsplit_once('.').unwrap().0.to_owned(),
            format!("{}.", good.rsplit_once('.').unwrap().0),
            imkit_token(secret, "alice", now_seconds() - 1),
            imkit_token(secret, "alice", 0),
            imkit_token(secret, "", soon),
            imkit_token(secret, "a\nb", soon),
            imkit_token(secret, &"x".repeat(256), soon),
            imkit_token("another secret", "alice", soon),
            imkit_token(&other.keys.jwt_secret, "alice", soon),
            imkit_token("", "alice", soon),
            "x".repeat(3_000),
        ];
        for claims in [
            json!({"id": "alice"}),
            json!({"exp": soon}),
            json!({"id": 17, "exp": soon}),
            json!({"id": null, "exp": soon}),
            json!({"id": "alice", "exp": "never"}),
            json!({"id": "alice", "exp": null}),
            json!({"id": "alice", "exp": -1}),
            json!({"id": "alice", "exp": soon, "nbf": soon - 10}),
            json!({"sub": "alice", "exp": soon}),
            json!(["alice", soon]),
            json!("alice"),
        ] {
            tokens.push(imkit_token_of(secret, &claims));
        }
        // `{"alg":"none","typ":"JWT"}`, with the signature of the good one and without.
        let rest = good.split_once('.').unwrap().1;
        tokens.push(format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{rest}"));
        tokens.push(format!(
            "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.",
            rest.split_once('.').unwrap().0
        ));
        for token in &tokens {
            let reply = call(&[("IM-CLIENT-KEY", key), ("IM-Authorization", token)]).await;
            imkit_error(&reply, 401, "INVALID_TOKEN");
        }
        imkit_error(&call(&[("IM-CLIENT-KEY", key)]).await, 401, "INVALID_TOKEN");
        for id in ["bob", "Alice", "alice,bob"] {
            let reply = call(&[
                ("IM-CLIENT-KEY", key),
                ("IM-Authorization", &good),
                ("IM-CLIENT-ID", id),
            ])
            .await;
            imkit_error(&reply, 401, "INVALID_TOKEN");
        }
    }
}

#[tokio::test]
async fn slashes_at_the_end_and_head_change_nothing() {
    let app = filled().await;
    let (_, plain) = listed(&app, "").await;
    for path in ["/rooms/", "/rooms//"] {
        let reply = App::send(app.imkit(Method::GET, path, "alice")).await.ok();
        assert_eq!(reply["result"]["data"], json!(plain));
    }
    let tags = app
        .imkit(Method::POST, "/badges/byRoomTags/", "alice")
        .body("{}");
    assert_eq!(App::send(tags).await.ok()["result"]["totalBadge"], 2);
    for path in ["/rooms", "/rooms/"] {
        let reply = App::send(app.imkit(Method::HEAD, path, "alice")).await;
        assert_eq!((reply.status, reply.text.as_str()), (200, ""), "{reply:?}");
    }
}

/// How many rooms there are, and those that are listed.
async fn listed(app: &App, query: &str) -> (u64, Vec<Value>) {
    let reply = App::send(app.imkit(Method::GET, &format!("/rooms{query}"), "alice")).await;
    let result = &reply.ok()["result"];
    let rooms = result["data"].as_array().unwrap().clone();
    (result["totalCount"].as_u64().unwrap(), rooms)
}

#[tokio::test]
async fn a_tag_that_no_room_can_have_has_nothing_unread() {
    let app = filled().await;
    let long = "x".repeat(256);
    let tags = json!({"tags": ["", "work", &long, "\u{1}", "none"]}).to_string();
    let reply = post(&app, tags).await.ok();
    let data = json!({"": 0, "work": 1, long: 0, "\u{1}": 0, "none": 0});
    assert_eq!(reply["result"], json!({"totalBadge": 1, "data": data}));
    let reply = post(&app, r#"{"tags":[""]}"#).await.ok();
    assert_eq!(reply["result"], json!({"totalBadge": 0, "data": {"": 0}}));
}

#[tokio::test]
async fn a_token_may_come_behind_bearer_and_name_its_user_by_another_claim() {
    let app = filled().await;
    let soon = now_seconds() + 3600;
    let (key, secret) = (&app.keys.client_key, &app.keys.jwt_secret);
    let ours = imkit_token(secret, "alice", soon);
    let theirs = imkit_token_of(secret, &json!({"_id": "alice", "exp": soon}));
    for token in [ours, theirs] {
        for (header, scheme) in [
            ("IM-Authorization", ""),
            ("IM-Authorization", "Bearer "),
            ("Authorization", "bearer "),
            ("Authorization", "Bearer  "),
        ] {
            let request = app
                .request(Method::GET, "/rooms")
                .header("IM-CLIENT-KEY", key)
                .header(header, format!("{scheme}{token}"));
            let reply = App::send(request).await.ok();
            assert_eq!(reply["result"]["totalCount"], 1, "{header}: {scheme}");
        }
        let request = app
            .request(Method::GET, "/rooms")
            .header("IM-CLIENT-KEY", key)
            .header("IM-Authorization", format!("Basic {token}"));
        imkit_error(&App::send(request).await, 401, "INVALID_TOKEN");
    }
}
