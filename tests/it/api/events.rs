//! `POST /v1/events`: bodies, wrong fields, limits, every rejection code.

/// Each field of each event.
mod fields;

/// How much a request may hold.
mod limits;

/// The new totals with the answer.
mod counts;

/// Read positions that go back, and numbers that another system knows.
mod resets;
/// The order of time.
mod order;

/// Of the order of time each case that has a name.
mod placed;

use reqwest::Method;
use serde_json::{Value, json};

use super::{is_json, problem};
use crate::support::{App, Reply, Wait, app, eventually};

async fn post(app: &App, query: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Reply {
    App::send(
        app.native(Method::POST, &format!("/v1/events{query}"))
            .header("content-type", content_type)
            .body(body),
    )
    .await
}

async fn total(app: &App, user: &str) -> Value {
    app.unread(user, false).await.ok()["messages"]["total"].clone()
}

/// What has to become of an event.
fn applied() -> Value {
    json!({"status": "applied"})
}

fn at(status: &str, position: u64) -> Value {
    json!({"status": status, "position": position})
}

#[tokio::test]
async fn what_is_not_json_is_refused_as_a_whole() {
    let app = app();
    let good = r#"{"type":"user.updated","user":"alice"}"#;
    for (content_type, body) in [
        ("application/json", String::new()),
        ("application/json", "  \r\n".to_owned()),
        ("application/json", "nope".to_owned()),
        ("application/json", "\"text\"".to_owned()),
        ("application/json", "17".to_owned()),
        ("application/json", "true".to_owned()),
        ("application/json", "null".to_owned()),
        ("application/json", format!("[{good}")),
        ("application/json", format!("[{good},]")),
        ("application/json", format!("{good}\n{good}")),
        ("application/json", "[".repeat(10_000)),
        (
            "application/json",
            format!("[{good},{{\"x\":{}1{}}}]", "[".repeat(200), "]".repeat(200)),
        ),
    ] {
        let reply = post(&app, "", content_type, body).await;
        problem(&reply, 400);
    }
    let reply = post(&app, "", "application/json", &b"[\xff]"[..]).await;
    problem(&reply, 400);
    // The good event before the fault was not taken.
    problem(&app.unread("alice", false).await, 404);
}

/// What is told of an event that can't be read.
fn refused(message: &str) -> Value {
    json!({"status": "rejected", "error": {"code": "invalid", "message": message}})
}

#[tokio::test]
async fn one_event_that_cannot_be_read_is_rejected_alone() {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "r"},
        {"type": "member.joined", "room": "r", "user": "u"},
    ]))
    .await;
    let sent = |id: &str| format!(r#"{{"type":"message.sent","room":"r","id":"{id}"}}"#);
    // A list: what is wrong in a string is the event's own fault, behind a byte order mark and all.
    let mut body = b"\xef\xbb\xbf".to_vec();
    body.extend_from_slice(format!("[{},\n", sent("1")).as_bytes());
    body.extend_from_slice(b"{\"type\":\"message.sent\",\"room\":\"r\",\"id\":\"\xff\"},");
    body.extend_from_slice(br#"{"type":"message.sent","room":"r","id":"\ud83d"},"#);
    body.extend_from_slice(
        b"{\"type\":\"message.sent\",\"room\":\"r\",\"id\":\"2\",\"text\":\"a\nb\"},\"\xff\",",
    );
    body.extend_from_slice(format!("{}]", sent("3")).as_bytes());
    let reply = post(&app, "", "application/json", body).await.ok();
    assert_eq!(
        reply["results"],
        json!([
            at("applied", 1),
            refused("id: is not valid UTF-8: line 2, column 41"),
            refused("id: holds an unpaired surrogate: line 2, column 85"),
            refused("text: holds a control character that is not escaped: line 2, column 146"),
            refused("event: must be an object"),
            at("applied", 2),
        ])
    );

    // Lines: a line that is cut or broken is.
    let lines = format!(
        "\u{feff}{}\n{{\"type\":\"message.sent\",\"room\":\"r\",\"id\":\r\n\n[{}\n{}\n{}]\nnope\n{}",
        sent("4"),
        sent("x"),
        sent("5"),
        sent("y"),
        sent("6")
    );
    let reply = post(&app, "", "application/x-ndjson", lines).await.ok();
    assert_eq!(
        reply["results"],
        json!([
            at("applied", 3),
            refused("not JSON: line 2, column 40"),
            refused("not JSON: line 4, column 44"),
            at("applied", 4),
            refused("not JSON: line 6, column 44"),
            refused("not JSON: line 7, column 2"),
            at("applied", 5),
        ])
    );
    assert_eq!(total(&app, "u").await, 5);
}

#[tokio::test]
async fn half_an_emoji_costs_no_message_and_no_name() {
    let app = app();
    let body = r#"[
        {"type":"room.updated","room":"r","name":"n\ude00","description":"\ud83dd"},
        {"type":"member.joined","room":"r","users":["u","s"]},
        {"type":"user.updated","user":"s","nickname":"nick\ud83d"},
        {"type":"message.sent","room":"r","id":"1","sender":"s","text":"hi \ud83d"},
        {"type":"message.sent","room":"r","id":"2\ud83d","sender":"s","text":"\ud83d\ude00 \ud83d\ud83d\ude00"},
        {"type":"message.sent","room":"r","id":"3","sender":"s","text":"hi \ud83d\ud83d\ude00"}
    ]"#;
    let reply = post(&app, "", "application/json", body).await.ok();
    assert_eq!(
        (&reply["applied"], &reply["rejected"]),
        (&json!(5), &json!(1))
    );
    assert_eq!(reply["results"][4]["error"]["code"], "invalid");
    assert_eq!(total(&app, "u").await, 2);
    let room = &app.imkit_rooms("u", &[]).await.ok()["result"]["data"][0];
    assert_eq!(
        (&room["name"], &room["description"]),
        (&json!("n\u{fffd}"), &json!("\u{fffd}d"))
    );
    let last = &room["lastMessage"];
    assert_eq!(
        (&last["message"], &last["sender"]["nickname"]),
        (&json!("hi \u{fffd}\u{1f600}"), &json!("nick\u{fffd}"))
    );
}

#[tokio::test]
async fn null_is_a_field_left_out() {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "r", "name": "n", "custom_type": "t", "tags": ["a"]},
        {"type": "room.updated", "room": "r", "name": null, "custom_type": null, "tags": null, "kind": null,
         "status": null, "encrypted": null, "service_status": null, "time": null},
        {"type": "member.joined", "room": "r", "users": ["u", "s"], "user": null},
        {"type": "user.updated", "user": "s", "nickname": "nick"},
        {"type": "user.updated", "user": "s", "nickname": null, "is_robot": null, "last_login_time": null},
        {"type": "pref.updated", "room": "r", "user": "u", "folder": "f", "tags": ["x"]},
        {"type": "pref.updated", "room": "r", "user": "u", "folder": null, "tags": null, "tag_colors": null, "muted": null},
        {"type": "message.sent", "room": "r", "id": "0", "sender": "s"},
        {"type": "room.read", "room": "r", "peer": null, "user": "u", "up_to_id": null, "up_to_time": null},
        {"type": "message.sent", "room": "r", "to": null, "id": "1", "sender": null, "text": null, "mentions": null,
         "message_type": null, "silent": null, "mark_read": null, "time": null},
    ]))
    .await;
    let room = &app.imkit_rooms("u", &[]).await.ok()["result"]["data"][0];
    assert_eq!(
        (&room["name"], &room["roomTags"], &room["unread"]),
        (&json!("n"), &json!(["a"]), &json!(1))
    );
    assert_eq!(
        (&room["pref"]["folder"], &room["pref"]["tags"]),
        (&json!("f"), &json!(["x"]))
    );
    let names: Vec<_> = room["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["nickname"])
        .collect();
    assert!(names.contains(&&json!("nick")), "{names:?}");
    assert_eq!(app.unread("u", false).await.ok()["types"], json!({"t": 1}));
    // What is needed is still needed.
    let reply = app
        .events(
            &json!({"type": "message.sent", "room": "r", "id": null}),
            Wait::Applied,
        )
        .await
        .ok();
    assert_eq!(reply["results"], json!([refused("id: is missing")]));
}

#[tokio::test]
async fn of_a_key_given_twice_the_last_one_holds() {
    let app = app();
    let body = r#"[
        {"type":"room.updated","room":"r","tags":["x"],"tags":["work"]},
        {"type":"member.joined","room":"nowhere","room":"r","users":["\ud800"],"users":["u","p"]},
        {"type":"message.sent","room":"r","id":"1","i\u0064":"2"}
    ]"#;
    let reply = post(&app, "", "application/json", body).await.ok();
    assert_eq!(reply["applied"], 3, "{reply}");
    let asked = app.native(Method::POST, "/v1/unread");
    let asked = App::send(asked.body(r#"{"users":["p"],"users":["u"]}"#))
        .await
        .ok();
    assert_eq!(asked["users"]["u"]["messages"]["total"], 1, "{asked}");
    assert!(asked["users"].get("p").is_none(), "{asked}");
    let badges = app.imkit(Method::POST, "/badges/byRoomTags", "u");
    let badges = App::send(badges.body(r#"{"tags":["x"],"tags":["work"]}"#))
        .await
        .ok();
    assert_eq!(
        badges["result"],
        json!({"totalBadge": 1, "data": {"work": 1}})
    );
    let tencent = app.tencent(&json!({}));
    let tencent = tencent.body(
        r#"{"To_Account":"nobody","To_Account":"u","Peer_Account":["a"],"Peer_Account":null}"#,
    );
    let tencent = App::send(tencent).await.ok();
    assert_eq!(
        (&tencent["ErrorCode"], &tencent["AllC2CUnreadMsgNum"]),
        (&json!(0), &json!(0))
    );
}

#[tokio::test]
async fn an_empty_list_is_nothing_to_do() {
    let app = app();
    let nothing = json!({"applied": 0, "duplicate": 0, "rejected": 0, "results": []});
    for (content_type, body) in [
        ("application/json", "[]"),
        ("application/x-ndjson", ""),
        ("application/x-ndjson", "\r\n \n\t\r\n"),
    ] {
        let reply = post(&app, "", content_type, body).await;
        is_json(&reply);
        assert_eq!(reply.ok(), nothing, "{body:?}");
    }
}

#[tokio::test]
async fn ndjson_takes_blank_lines_and_crlf() {
    let app = app();
    let body = "\r\n{\"type\":\"room.updated\",\"room\":\"r\"}\r\n\n  \n\
                {\"type\":\"member.joined\",\"room\":\"r\",\"user\":\"u\"}\n\t\r\n\
                {\"type\":\"message.sent\",\"room\":\"r\",\"id\":\"1\"}";
    for content_type in [
        "application/x-ndjson",
        "Application/X-NDJSON; charset=utf-8",
    ] {
        let reply = post(&app, "", content_type, body).await.ok();
        assert_eq!(reply["rejected"], 0, "{reply}");
        assert_eq!(reply["results"].as_array().unwrap().len(), 3, "{reply}");
    }
    assert_eq!(total(&app, "u").await, 1);
    // A line may hold anything that is JSON; what is no object is one bad event among the others.
    let lines = "17\n[]\n{\"type\":\"message.sent\",\"room\":\"r\",\"id\":\"2\"}\nnull";
    let reply = post(&app, "", "application/x-ndjson", lines).await.ok();
    assert_eq!(
        (&reply["applied"], &reply["rejected"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(reply["results"][2], at("applied", 2));
    assert_eq!(total(&app, "u").await, 2);
}

#[tokio::test]
async fn only_plain_json_types_are_taken() {
    let app = app();
    let event = r#"{"type":"user.updated","user":"alice"}"#;
    for content_type in [
        "application/xml",
        "multipart/form-data; boundary=x",
        "image/png",
    ] {
        let reply = post(&app, "", content_type, event).await;
        problem(&reply, 415);
        let detail = reply.body["detail"].as_str().unwrap();
        for taken in ["application/json", "text/plain", "application/x-ndjson"] {
            assert!(detail.contains(taken), "{detail}");
        }
    }
    for encoding in ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, identity"] {
        let request = app.native(Method::POST, "/v1/events");
        let request = request.header("content-type", "application/json");
        let request = request.header("content-encoding", encoding);
        problem(&App::send(request.body(event)).await, 415);
    }
    problem(&app.unread("alice", false).await, 404);
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
    ] {
        post(&app, "", content_type, event).await.ok();
    }
    let bare = app.native(Method::POST, "/v1/events");
    let bare = bare.header("content-encoding", "identity");
    App::send(bare.body(event)).await.ok();
    total(&app, "alice").await;
}

#[tokio::test]
async fn nobody_gets_in_without_the_key() {
    let app = app();
    let event = r#"{"type":"user.updated","user":"alice"}"#;
    let key = &app.keys.server_key;
    for path in [
        "/v1/events",
        "/v1/unread",
        "/v1/users/alice/unread",
        "/v1/rooms/r/unread",
    ] {
        let method = match path.ends_with("/unread") && path != "/v1/unread" {
            true => Method::GET,
            false => Method::POST,
        };
        let none = app.request(method.clone(), path).body(event);
        problem(&App::send(none).await, 401);
        for wrong in [
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            "Bearer nope".to_owned(),
            format!("Basic {key}"),
            key.clone(),
            format!("Bearer {key}x"),
            format!("Bearer {}", &key[1..]),
            format!("Bearer {}", key.to_uppercase()),
            format!("Bearer {}", app.keys.api_token),
            format!("Bearer {}", app.keys.client_key),
        ] {
            let request = app.request(method.clone(), path).body(event);
            let reply = App::send(request.header("authorization", &wrong)).await;
            problem(&reply, 401);
        }
    }
    let lower = app.request(Method::POST, "/v1/events").body(event);
    let lower = lower.header("authorization", format!("bearer {key}"));
    App::send(lower).await.ok();
}

#[tokio::test]
async fn wrong_methods_and_paths_are_told_apart() {
    let app = app();
    for (path, allowed) in [
        ("/v1/events", "POST"),
        ("/v1/unread", "POST"),
        ("/v1/users/alice/unread", "GET"),
        ("/v1/rooms/r/unread", "GET, POST"),
    ] {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "BREW"] {
            if !allowed.contains(method) {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let reply = App::send(app.native(method, path)).await;
                problem(&reply, 405);
                assert_eq!(reply.header("allow"), Some(allowed), "{reply:?}");
            }
        }
    }
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v2/events",
        "/v1/event",
        "/v1/events/x",
        "/v1/users/alice",
        "/v1/users/a/b/unread",
        "/v1/rooms/r/unread/x",
        "/nope",
        "/readyz",
        "/metrics",
        "/%2e%2e/etc/passwd",
    ] {
        for method in [Method::GET, Method::POST] {
            problem(&App::send(app.native(method, path)).await, 404);
        }
    }
}

#[tokio::test]
async fn wait_says_when_to_answer() {
    let app = app();
    let setup = json!([
        {"type": "room.updated", "room": "r"},
        {"type": "member.joined", "room": "r", "user": "u"},
    ]);
    app.must(&setup).await;
    let sent = |id: &str| json!({"type": "message.sent", "room": "r", "id": id});
    for wrong in [
        "?wait=",
        "?wait=never",
        "?wait=Applied",
        "?wait=accepted,applied",
        "?other=1",
    ] {
        let reply = post(&app, wrong, "application/json", sent("no").to_string()).await;
        problem(&reply, 400);
    }
    assert_eq!(total(&app, "u").await, 0);

    let reply = app
        .events(&json!([sent("1"), sent("1")]), Wait::Accepted)
        .await
        .ok();
    assert_eq!(
        reply,
        json!({"applied": 0, "accepted": 1, "duplicate": 1, "rejected": 0,
               "results": [at("accepted", 1), at("duplicate", 1)]})
    );
    eventually("an accepted event takes effect", || async {
        match total(&app, "u").await {
            n if n == json!(1) => Ok(()),
            n => Err(n.to_string()),
        }
    })
    .await;
    for query in ["", "?wait=applied"] {
        let id = format!("by{query}");
        let reply = post(&app, query, "application/json", sent(&id).to_string())
            .await
            .ok();
        assert_eq!(reply["results"][0]["status"], "applied", "{reply}");
    }
    assert_eq!(total(&app, "u").await, 3);
}

#[tokio::test]
async fn the_same_event_twice_in_one_request_counts_once() {
    let app = app();
    let sent = json!({"type": "message.sent", "room": "r", "id": "1", "mentions": ["u"]});
    let reply = app
        .events(
            &json!([
                {"type": "room.updated", "room": "r"},
                {"type": "member.joined", "room": "r", "users": ["u", "u"]},
                sent, sent,
                {"type": "message.sent", "room": "r", "id": "2", "silent": true},
                {"type": "message.sent", "room": "r", "id": "2", "silent": true},
                {"type": "message.sent", "room": "r", "id": "3"},
                {"type": "message.recalled", "room": "r", "id": "3"},
                {"type": "message.recalled", "room": "r", "id": "3"},
                sent,
            ]),
            Wait::Applied,
        )
        .await
        .ok();
    // Only a message that counts has a position, and keeps it.
    let one = at("duplicate", 1);
    let expected = [
        applied(),
        applied(),
        at("applied", 1),
        one.clone(),
        applied(),
        json!({"status": "duplicate"}),
        at("applied", 2),
        applied(),
        json!({"status": "duplicate"}),
        one,
    ];
    let got = reply["results"].as_array().unwrap();
    for (n, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert_eq!(got["status"], expected["status"], "event {n}: {reply}");
        if n != 8 {
            assert_eq!(got, expected, "event {n}: {reply}");
        }
    }
    assert_eq!(
        (&reply["applied"], &reply["duplicate"], &reply["rejected"]),
        (&json!(6), &json!(4), &json!(0))
    );
    let counts = app.unread("u", false).await.ok();
    assert_eq!(
        (&counts["messages"]["total"], &counts["mentions"]["total"]),
        (&json!(1), &json!(1))
    );
}
