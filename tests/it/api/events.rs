//! `POST /v1/events`: bodies, wrong fields, limits, every rejection code.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{fields, is_json, problem};
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
        problem(&post(&app, "", content_type, event).await, 415);
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

// Fields.

/// What a field takes, and so what it does not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Id,
    CustomType,
    Ids,
    Tags,
    Mentions,
    Text,

    Flag,
    Integer,
    Time,
    /// A time that may be 0.
    Bound,
    Kind,
    Status,
    Colors,
}

impl Takes {
    fn not(self) -> Vec<Value> {
        let long = "x".repeat(256);
        let cjk = "未".repeat(86);
        let id = [
            json!(""),
            json!("a\u{0}b"),
            json!("\u{7f}"),
            json!("a\nb"),
            json!("\u{85}"),
            json!(long),
            json!(cjk),
        ];
        let mut wrong = vec![json!({}), json!({"a": 1})];
        match self {
            Self::Id => wrong.extend(id),
            Self::CustomType => {
                wrong.extend(id);
                wrong.push(json!("a,b"));
            }
            Self::Ids | Self::Tags => {
                wrong.extend(id.iter().map(|id| json!(["fine", id])));
                wrong.extend([json!("fine"), json!([1]), json!([null]), json!([["fine"]])]);
                match self {
                    Self::Ids => wrong.push(json!([])),
                    _ => wrong.push((0..101).map(|n| n.to_string()).collect()),
                }
            }
            // One bad name in a list of them costs nothing (`input`).
            Self::Mentions => wrong.extend([json!("fine"), json!("All"), json!("")]),
            Self::Text => {}
            Self::Flag => wrong.extend([json!("true"), json!("")]),
            Self::Integer => wrong.extend([json!("1"), json!(1.5), json!(1e300)]),
            Self::Time | Self::Bound => wrong.extend([
                json!(1_795_670_799),
                json!("1973-03-03T09:46:39Z"),
                json!("yesterday"),
                json!(""),
                json!("2024-01-01"),
                json!("2024-13-01T00:00:00Z"),
                json!(-1),
                json!(1.5),
                json!(1e300),
                json!(u64::MAX),
                json!("1969-12-31T23:59:59Z"),
            ]),
            Self::Kind => wrong.extend([json!("Group"), json!("super"), json!("")]),
            Self::Status => wrong.extend([json!(2), json!(-1), json!("1"), json!(0.5)]),
            Self::Colors => wrong.extend([
                json!("red"),
                json!([["a", "b"]]),
                json!({"a": null}),
                json!({"a": {}}),
            ]),
        }
        if self == Self::Time {
            wrong.extend([json!(0), json!("1970-01-01T00:00:00Z")]);
        }
        if self == Self::Colors {
            wrong.remove(0);
        } else if self != Self::Mentions {
            wrong.push(json!([{}]));
        }
        if !matches!(self, Self::Flag | Self::Status) {
            wrong.push(json!(true));
        }
        if !matches!(
            self,
            Self::Integer | Self::Time | Self::Bound | Self::Status
        ) {
            wrong.push(json!(1));
        }
        wrong
    }
}

/// Every type, what makes it a whole event, and its fields.
fn every_event() -> Vec<(Value, Vec<(&'static str, Takes)>)> {
    use Takes::*;
    vec![
        (
            json!({"type": "user.updated", "user": "x"}),
            vec![
                ("user", Id),
                ("nickname", Text),
                ("avatar_url", Text),
                ("is_robot", Flag),
                ("last_login_time", Bound),
            ],
        ),
        (
            json!({"type": "user.deleted", "user": "x"}),
            vec![("user", Id)],
        ),
        (
            json!({"type": "room.updated", "room": "x"}),
            vec![
                ("room", Id),
                ("kind", Kind),
                ("custom_type", CustomType),
                ("tags", Tags),
                ("name", Text),
                ("cover", Text),
                ("description", Text),
                ("webhook", Text),
                ("bot_state", Text),
                ("bot_mode", Flag),
                ("encrypted", Flag),
                ("service_status", Integer),
                ("status", Status),
            ],
        ),
        (
            json!({"type": "room.deleted", "room": "x"}),
            vec![("room", Id)],
        ),
        (
            json!({"type": "member.joined", "room": "r", "users": ["x"]}),
            vec![("room", Id), ("users", Ids)],
        ),
        (
            json!({"type": "member.joined", "room": "r", "user": "x"}),
            vec![("user", Id)],
        ),
        (
            json!({"type": "member.invited", "room": "r", "users": ["x"]}),
            vec![("room", Id), ("users", Ids)],
        ),
        (
            json!({"type": "member.left", "room": "r", "users": ["x"]}),
            vec![("room", Id), ("users", Ids)],
        ),
        (
            json!({"type": "message.sent", "room": "r", "id": "x"}),
            vec![
                ("room", Id),
                ("id", Id),
                ("sender", Id),
                ("text", Text),
                ("message_type", Id),
                ("mentions", Mentions),
                ("silent", Flag),
                ("mark_read", Flag),
            ],
        ),
        (
            json!({"type": "message.sent", "to": "x", "sender": "y", "id": "x"}),
            vec![("to", Id), ("sender", Id)],
        ),
        (
            json!({"type": "message.recalled", "room": "r", "id": "x"}),
            vec![("room", Id), ("id", Id)],
        ),
        (
            json!({"type": "room.read", "room": "r", "user": "u"}),
            vec![
                ("room", Id),
                ("user", Id),
                ("up_to_id", Id),
                ("up_to_time", Bound),
            ],
        ),
        (
            json!({"type": "room.read", "peer": "x", "user": "u"}),
            vec![("peer", Id)],
        ),
        (
            json!({"type": "user.read_all", "user": "u"}),
            vec![("user", Id)],
        ),
        (
            json!({"type": "pref.updated", "room": "r", "user": "u"}),
            vec![
                ("room", Id),
                ("user", Id),
                ("tags", Tags),
                ("tag_colors", Colors),
                ("hidden", Flag),
                ("sticky", Flag),
                ("muted", Flag),
                ("folder", Text),
            ],
        ),
    ]
}

/// The event with one field replaced.
fn with(event: &Value, field: &str, value: Value) -> Value {
    let mut event = event.clone();
    event[field] = value;
    event
}

#[tokio::test]
async fn a_wrong_field_is_named_and_stops_nothing_else() {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "r"},
        {"type": "member.joined", "room": "r", "user": "u"},
    ]))
    .await;

    // Pairs of a wrong event and the field to be named.
    let mut wrong: Vec<(Value, &str)> = Vec::new();
    let every = every_event();
    for (event, fields) in &every {
        let required = event.as_object().unwrap().keys();
        for (field, takes) in fields {
            wrong.extend(
                takes
                    .not()
                    .into_iter()
                    .map(|value| (with(event, field, value), *field)),
            );
        }
        for field in required.filter(|field| *field != "type") {
            let mut without = event.clone();
            without.as_object_mut().unwrap().remove(field);
            // Where another field could have stood for it the message may name either.
            let named = match field.as_str() {
                "user" if event["type"] == "member.joined" => "users",
                "to" | "peer" => "room",
                other => other,
            };
            wrong.push((without, named));
        }
        wrong.extend(
            Takes::Time
                .not()
                .into_iter()
                .map(|time| (with(event, "time", time), "time")),
        );
        wrong.push((with(event, "colour", json!(1)), "colour"));
        wrong.push((with(event, "Type", json!("x")), "Type"));
    }
    for (event, field) in [
        (json!({}), "type"),
        (json!({"type": 1}), "type"),
        (json!({"type": null, "user": "x"}), "type"),
        (json!({"type": "", "user": "x"}), "type"),
        (json!({"type": "user.created", "user": "x"}), "type"),
        (json!({"type": "USER.UPDATED", "user": "x"}), "type"),
        (json!("user.updated"), "event"),
        (json!(null), "event"),
        (json!([]), "event"),
        (
            json!({"type": "member.joined", "room": "r", "user": "x", "users": ["x"]}),
            "user",
        ),
        (
            json!({"type": "message.sent", "room": "r", "to": "x", "sender": "y", "id": "1"}),
            "to",
        ),
        (
            json!({"type": "message.sent", "to": "x", "id": "1"}),
            "sender",
        ),
        (
            json!({"type": "room.read", "room": "r", "peer": "x", "user": "u"}),
            "peer",
        ),
        (
            json!({"type": "room.read", "room": "r", "user": "u", "up_to_id": "1", "up_to_time": 1}),
            "up_to_time",
        ),
    ] {
        wrong.push((event, field));
    }

    // A good message after each.
    let events: Value = wrong
        .iter()
        .enumerate()
        .flat_map(|(n, (event, _))| {
            [
                event.clone(),
                json!({"type": "message.sent", "room": "r", "id": format!("good-{n}")}),
            ]
        })
        .collect();
    let reply = app.events(&events, Wait::Applied).await.ok();
    let results = reply["results"].as_array().unwrap();
    assert_eq!(results.len(), 2 * wrong.len());
    for (n, ((event, field), pair)) in wrong.iter().zip(results.chunks(2)).enumerate() {
        let [refused, good] = pair else {
            unreachable!()
        };
        assert_eq!(fields(refused), ["error", "status"], "{event}: {refused}");
        assert_eq!(refused["status"], "rejected", "{event}: {refused}");
        assert_eq!(refused["error"]["code"], "invalid", "{event}: {refused}");
        let message = refused["error"]["message"].as_str().unwrap_or_default();
        assert!(
            message.starts_with(&format!("{field}: ")),
            "{event}: {refused}"
        );
        assert_eq!(*good, at("applied", n as u64 + 1));
    }
    assert_eq!(reply["rejected"], json!(wrong.len()));
    assert_eq!(reply["applied"], json!(wrong.len()));
    assert_eq!(total(&app, "u").await, json!(wrong.len()));
    for stranger in ["x", "y", "fine"] {
        problem(&app.unread(stranger, false).await, 404);
    }
}

#[tokio::test]
async fn every_field_takes_what_it_should() {
    let app = app();
    let long = "x".repeat(255);
    app.must(&json!([
        {"type": "user.updated", "user": long, "nickname": "", "avatar_url": null, "is_robot": false,
         "last_login_time": "2024-02-29T23:59:59.999+05:30",
         "time": 100_000_000_000_u64},
        {"type": "room.updated", "room": long, "kind": "supergroup", "custom_type": long, "tags": [], "name": null,
         "cover": null, "description": null, "webhook": null, "bot_state": null, "bot_mode": true, "encrypted": true,
         "service_status": -3, "status": 0, "time": 1_700_000_000_000_u64},
        {"type": "room.updated", "room": long, "custom_type": null, "status": 1,
         "tags": (0..100).map(|n| format!("{n:0255}")).collect::<Value>()},
        {"type": "room.updated", "room": "g"},
        {"type": "room.updated", "room": "g", "kind": "supergroup"},
        {"type": "room.updated", "room": "g", "kind": "supergroup"},
        {"type": "member.invited", "room": long, "users": [long, "b", long]},
        {"type": "member.joined", "room": long, "user": long, "time": "1973-03-03T09:46:40Z"},
        {"type": "message.sent", "room": long, "id": long, "text": "", "message_type": long, "mentions": [],
         "silent": false, "mark_read": false},
        {"type": "message.sent", "room": long, "id": "2", "mentions": "all", "text": "a\u{0}\n\u{1}b"},
        {"type": "message.sent", "room": long, "id": "3", "mentions": [long, long, "nobody"]},
        {"type": "room.read", "room": long, "user": long, "up_to_time": 0},
        {"type": "pref.updated", "room": long, "user": long, "tags": ["a", "a"], "tag_colors": {"a": "", "": "b"},
         "hidden": true, "sticky": false, "muted": true, "folder": null},
    ]))
    .await;
    let counts = app.unread(&long, true).await.ok();
    assert_eq!(
        counts["messages"],
        json!({"total": 3, "direct": 0, "group": 0, "supergroup": 3})
    );
    assert_eq!(counts["mentions"]["supergroup"], 2);
    assert_eq!(counts["tags"].as_object().map(Map::len), Some(100));
}

// Limits.

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

// Rejections.

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

    let rejected = [
        (
            "room_not_found",
            json!({"type": "room.deleted", "room": "nowhere"}),
        ),
        (
            "room_not_found",
            json!({"type": "member.joined", "room": "nowhere", "user": "new"}),
        ),
        (
            "room_not_found",
            json!({"type": "member.invited", "room": "nowhere", "user": "new"}),
        ),
        (
            "room_not_found",
            json!({"type": "member.left", "room": "nowhere", "user": "u"}),
        ),
        (
            "room_not_found",
            json!({"type": "message.sent", "room": "nowhere", "id": "1", "sender": "new"}),
        ),
        (
            "room_not_found",
            json!({"type": "message.recalled", "room": "nowhere", "id": "1"}),
        ),
        (
            "room_not_found",
            json!({"type": "room.read", "room": "nowhere", "user": "u"}),
        ),
        (
            "room_not_found",
            json!({"type": "pref.updated", "room": "nowhere", "user": "u"}),
        ),
        (
            "user_not_found",
            json!({"type": "user.deleted", "user": "nobody"}),
        ),
        (
            "user_not_found",
            json!({"type": "user.read_all", "user": "nobody"}),
        ),
        (
            "message_not_found",
            json!({"type": "message.recalled", "room": "r", "id": "no"}),
        ),
        (
            "message_not_found",
            json!({"type": "room.read", "room": "r", "user": "u", "up_to_id": "no"}),
        ),
        (
            "not_a_member",
            json!({"type": "room.read", "room": "r", "user": "outsider"}),
        ),
        (
            "not_a_member",
            json!({"type": "room.read", "room": "r", "user": "guest"}),
        ),
        (
            "not_a_member",
            json!({"type": "pref.updated", "room": "r", "user": "outsider", "muted": true}),
        ),
        (
            "not_a_member",
            json!({"type": "pref.updated", "room": "r", "user": "guest", "muted": true}),
        ),
        (
            "kind_change",
            json!({"type": "room.updated", "room": "r", "kind": "direct", "tags": ["no"]}),
        ),
        (
            "kind_change",
            json!({"type": "room.updated", "room": "s", "kind": "group"}),
        ),
        (
            "kind_change",
            json!({"type": "room.updated", "room": "d", "kind": "supergroup", "status": 0}),
        ),
        (
            "direct_room_full",
            json!({"type": "member.joined", "room": "d", "user": "new"}),
        ),
        (
            "direct_room_full",
            json!({"type": "member.invited", "room": "d", "users": ["u", "new"]}),
        ),
    ];
    let events: Value = rejected.iter().map(|(_, event)| event.clone()).collect();
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
