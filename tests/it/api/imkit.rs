//! IMKIT's two endpoints.

use reqwest::Method;
use serde_json::{Value, json};

use super::{fields, imkit_error, is_json};
use crate::support::{
    App, Config, Pod, RedisServer, app, imkit_token, imkit_token_of, now_seconds, raw,
};

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
async fn a_badge_answer_field_by_field() {
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
    let some = post(&app, r#"{"tags":["work","none","work"]}"#).await.ok();
    assert_eq!(
        some["result"],
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
async fn a_room_answer_field_by_field() {
    let app = filled().await;
    let reply = app.imkit_rooms("alice", &[]).await;
    is_json(&reply);
    let mut reply = reply.ok();
    let result = &mut reply["result"];
    assert_eq!(fields(result), ["data", "inspect", "totalCount"]);
    assert_eq!(fields(&result["inspect"]), ["query", "tookMS"]);
    assert!(result["inspect"]["tookMS"].is_u64());
    let query = json!({"appID": app.keys.id, "members": "alice", "status": 1});
    assert_eq!(result["inspect"]["query"], query);
    let room = &mut result["data"][0];
    assert!(room["createdTimeMS"].take().as_u64() > Some(1_700_000_000_000));
    assert!(room["lastMessage"]["updatedAtMS"].take().is_u64());
    room["members"]
        .as_array_mut()
        .unwrap()
        .sort_by_key(|member| member["_id"].to_string());
    let bob = json!({"_id": "bob", "id": "bob", "nickname": "Bob", "avatarUrl": "https://x/b.png", "isRobot": true,
                     "lastLoginTimeMS": 1_600_000_000_000_u64, "clientType": "user"});
    let alice = json!({"_id": "alice", "id": "alice", "nickname": "", "avatarUrl": "", "isRobot": false,
                       "lastLoginTimeMS": 0, "clientType": "user"});
    assert_eq!(
        *room,
        json!({
            "_id": "r", "id": "r", "name": "Orders", "cover": "", "description": "", "roomType": "group", "webhook": "",
            "botState": "", "botMode": false, "encrypted": false, "serviceStatus": 0, "roomTags": ["work", "idle"],
            "status": 1, "unread": 1, "muted": false, "createdTimeMS": null, "members": [alice, bob],
            "pref": {"tags": [], "tagColors": {}, "hidden": false, "sticky": false, "muted": false, "folder": ""},
            "lastMessage": {
                "_id": "1", "id": "1", "message": "hello", "room": "r", "sender": bob, "messageType": "text",
                "appID": app.keys.id, "messageTime": "2023-11-14T22:13:20.123Z", "messageTimeMS": 1_700_000_000_123_u64,
                "updatedAtMS": null, "createdAtMS": 1_700_000_000_123_u64, "reactionCount": 0,
            },
        })
    );
    let nobody = app.imkit_rooms("nobody", &[]).await.ok();
    assert_eq!(
        (&nobody["result"]["totalCount"], &nobody["result"]["data"]),
        (&json!(0), &json!([]))
    );
}

#[tokio::test]
async fn bad_bodies_and_bad_tags() {
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
    let answer = raw(
        app.base.strip_prefix("http://").unwrap(),
        request.as_bytes(),
    )
    .unwrap();
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
async fn credentials_of_every_wrong_kind() {
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
async fn wrong_methods_unknown_paths_and_a_browsers_question() {
    let app = filled().await;
    for (path, method, allowed) in [
        (BADGES, "POST", "POST, OPTIONS"),
        ("/rooms", "GET", "GET, HEAD, OPTIONS"),
    ] {
        for wrong in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            if wrong != method {
                let wrong = Method::from_bytes(wrong.as_bytes()).unwrap();
                let reply = App::send(app.imkit(wrong, path, "alice")).await;
                imkit_error(&reply, 405, "METHOD_NOT_ALLOWED");
                assert_eq!(reply.header("allow"), Some(allowed), "{reply:?}");
            }
        }
        // Without credentials: a browser sends none with this.
        let preflight = app
            .request(Method::OPTIONS, path)
            .header("Origin", "https://chat.example")
            .header("Access-Control-Request-Method", method);
        let reply = App::send(preflight).await;
        assert_eq!(reply.status, 204, "{reply:?}");
        assert_eq!(reply.text, "");
        assert_eq!(
            reply.header("access-control-allow-origin"),
            Some("*"),
            "{reply:?}"
        );
        let methods = reply
            .header("access-control-allow-methods")
            .unwrap_or_default();
        assert!(methods.contains(method), "{reply:?}");
        let headers = reply
            .header("access-control-allow-headers")
            .unwrap_or_default()
            .to_lowercase();
        for name in [
            "im-client-key",
            "im-client-id",
            "im-authorization",
            "client_key",
            "authorization",
            "content-type",
        ] {
            assert!(
                headers.split(", ").any(|header| header == name),
                "no {name}: {reply:?}"
            );
        }
    }
    for path in [
        "/badges",
        "/badges/",
        "/badges/byRoomTags/x",
        "/badges/byroomtags",
        "/rooms/r",
        "/rooms/r/",
        "/me",
        "/messages",
        "/roomPrefs/r",
        "/socket.io/",
        "/rooms/r/messages",
    ] {
        for method in [Method::GET, Method::POST] {
            imkit_error(
                &App::send(app.imkit(method, path, "alice")).await,
                404,
                "NOT_FOUND",
            );
        }
    }
}

#[tokio::test]
async fn every_wrong_parameter_of_a_room_list_is_named() {
    let app = filled().await;
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let long = json!({"_id": "x".repeat(9_000)}).to_string();
    for (name, values) in [
        (
            "skip",
            &["-1", "1.5", "x", "1x", "99999999999999999999999", "0x1"][..],
        ),
        (
            "limit",
            &["-1", "1.5", "x", "true", "99999999999999999999999"],
        ),
        (
            "sort",
            &[
                "nope",
                "lastMessage nope",
                "--lastMessage",
                "lastMessage,createdTime",
                "$where",
                "unread.x",
            ],
        ),
        (
            "updatedAfter",
            &[
                "yesterday",
                "2020-13-01T00:00:00Z",
                "2020-10-16T24:00:01",
                "2020-10-16T03:01:07.5x",
                "2020-02-30",
                "1.5",
                "99999999999999999999999",
            ],
        ),
        ("sortUnreadFirst", &["yes", "truer", "1.5"]),
        (
            "q",
            &[
                "nope",
                "[]",
                "17",
                "null",
                "{",
                r#"{"$where":"1"}"#,
                r#"{"$or":[]}"#,
                r#"{"unread":1}"#,
                r#"{"name":"x"}"#,
                r#"{"members":"bob"}"#,
                r#"{"members":{"$in":["alice","bob"]}}"#,
                r#"{"members":null}"#,
                r#"{"roomTags":{"$nin":["x"]}}"#,
                r#"{"roomTags":{"$in":"x"}}"#,
                r#"{"roomTags":{"$in":[{}]}}"#,
                r#"{"_id":{"$gt":""}}"#,
                r#"{"_id":{"$ne":"x"}}"#,
                r#"{"_id":{"$regex":".*"}}"#,
                r#"{"_id":{"a":"b"}}"#,
                &deep,
                &long,
            ],
        ),
        (
            "pref",
            &[
                "nope",
                "[]",
                "\"x\"",
                r#"{"$or":[]}"#,
                r#"{"colour":"x"}"#,
                r#"{"sticky":{"$gt":0}}"#,
                r#"{"sticky":{"a":1}}"#,
                r#"{"tags":{"$in":"x"}}"#,
                r#"{"tags":{"$all":{}}}"#,
                r#"{"tags":{"$exists":"yes"}}"#,
                r#"{"tags":{"$ne":{"a":{}}}}"#,
                r#"{"tags":{"$in":["x"],"$size":1}}"#,
                &long,
            ],
        ),
    ] {
        for value in values {
            let reply = app
                .imkit_rooms("alice", &[(name.to_owned(), (*value).to_owned())])
                .await;
            imkit_error(&reply, 400, "INVALID_QUERY");
            let message = reply.body["error"]["message"].as_str().unwrap_or_default();
            assert!(message.starts_with(name), "{name}={value}: {message}");
        }
        let twice = [
            (name.to_owned(), "1".to_owned()),
            (name.to_owned(), "1".to_owned()),
        ];
        imkit_error(
            &app.imkit_rooms("alice", &twice).await,
            400,
            "INVALID_QUERY",
        );
    }
    // What is empty, large or unknown is no fault.
    let fine: [(&str, &str, Value); 12] = [
        ("skip", "", json!(1)),
        ("skip", "4000000000", json!(0)),
        ("limit", "0", json!(1)),
        ("limit", "4000000000", json!(1)),
        ("sort", "", json!(1)),
        (
            "sort",
            "-name unread _id -roomType serviceStatus description",
            json!(1),
        ),
        ("updatedAfter", "2020-10-16T03:01:07.923Z", json!(1)),
        ("updatedAfter", "2020-10-16T03:01:07+08:00", json!(1)),
        ("updatedAfter", "-1", json!(1)),
        ("q", "{\"members\":\"alice\"}", json!(1)),
        ("pref", "{\"hidden\":{\"$ne\":true}}", json!(1)),
        ("roomType", "nope", json!(1)),
    ];
    for (name, value, listed) in fine {
        let reply = app
            .imkit_rooms("alice", &[(name.to_owned(), value.to_owned())])
            .await
            .ok();
        let rows = reply["result"]["data"].as_array().map(Vec::len);
        assert_eq!(json!(rows), listed, "{name}={value}: {reply}");
        assert_eq!(reply["result"]["totalCount"], 1, "{name}={value}: {reply}");
    }
    // A body that nobody asked for does no harm.
    let request = app.imkit(Method::GET, "/rooms", "alice").body("nope");
    App::send(request).await.ok();
}

const ORIGIN: &str = "https://chat.example";

/// What a browser asks before a page's call.
async fn preflight(app: &App, path: &str, method: &str, headers: &str) -> crate::support::Reply {
    let asked = app
        .request(Method::OPTIONS, path)
        .header("Origin", ORIGIN)
        .header("Access-Control-Request-Method", method)
        .header("Access-Control-Request-Headers", headers);
    App::send(asked).await
}

#[tokio::test]
async fn a_page_may_send_the_headers_and_methods_that_it_asks_for_on_every_path_of_a_vendor() {
    let app = app();
    for (path, method) in [
        ("/rooms", "GET"),
        ("/rooms/", "POST"),
        ("/rooms/x/lastRead", "PUT"),
        ("/badges/byRoomTags", "POST"),
        ("/badges", "POST"),
        ("/me/pref", "GET"),
        ("/roomPrefs/x", "POST"),
        ("/messages", "POST"),
        ("/v3/users/u/unread_item_count", "GET"),
        ("/v3/group_channels/x/messages/mark_as_read", "PUT"),
        ("/v4/openim/get_c2c_unread_msg_num", "POST"),
        ("/v4/openim/sendmsg", "POST"),
    ] {
        let headers = "im-client-key,x-timezone,traceparent,api-token";
        let reply = preflight(&app, path, method, headers).await;
        assert_eq!(
            (reply.status, reply.text.as_str()),
            (204, ""),
            "{path}: {reply:?}"
        );
        let header = |name: &str| reply.header(name).unwrap_or_default().to_lowercase();
        assert_eq!(header("access-control-allow-origin"), "*", "{path}");
        let methods = header("access-control-allow-methods");
        assert!(
            methods.split(", ").any(|one| one == method.to_lowercase()),
            "{path}: {methods}"
        );
        let allowed = header("access-control-allow-headers");
        for name in headers.split(',') {
            assert!(
                allowed.split(", ").any(|one| one == name),
                "{path}: {allowed}"
            );
        }
    }
}

#[tokio::test]
async fn a_page_can_read_every_answer_of_a_vendor_refusals_included() {
    let app = filled().await;
    let long = "x".repeat(40_000);
    for (method, path, status) in [
        ("GET", "/rooms".to_owned(), 403),
        ("GET", "/rooms/x".to_owned(), 404),
        ("PUT", "/rooms".to_owned(), 405),
        ("GET", format!("/rooms?q={long}"), 414),
        ("GET", "/me".to_owned(), 404),
        ("GET", "/v3/users/u/unread_item_count".to_owned(), 400),
        ("GET", "/v3/nothing".to_owned(), 400),
        ("GET", format!("/v3/{long}"), 400),
        ("POST", "/v4/openim/get_c2c_unread_msg_num".to_owned(), 200),
        ("POST", "/v4/nothing".to_owned(), 200),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let reply = App::send(app.request(method, &path).header("Origin", ORIGIN)).await;
        let path = path.get(..40).unwrap_or(&path);
        assert_eq!(reply.status, status, "{path}: {reply:?}");
        assert_eq!(
            reply.header("access-control-allow-origin"),
            Some("*"),
            "{path}: {reply:?}"
        );
        let exposed = reply
            .header("access-control-expose-headers")
            .unwrap_or_default();
        for name in ["RateLimit", "RateLimit-Policy", "Retry-After"] {
            assert!(
                exposed.split(", ").any(|one| one == name),
                "{path}: {exposed}"
            );
        }
    }
}

#[tokio::test]
async fn slashes_at_the_end_and_head_are_as_without() {
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
async fn a_filter_in_brackets_or_dots_filters() {
    let app = filled().await;
    app.must(&json!([
        {"type": "room.updated", "room": "s", "tags": ["home"]},
        {"type": "member.joined", "room": "s", "users": ["alice", "bob"]},
        {"type": "pref.updated", "room": "s", "user": "alice", "tags": ["vip"], "hidden": true},
    ]))
    .await;
    for (query, room) in [
        ("?q%5BroomTags%5D=work", "r"),
        ("?q[roomTags]=home", "s"),
        ("?q.roomTags=home", "s"),
        ("?q[roomTags][$in][]=home&q[roomTags][$in][]=none", "s"),
        ("?q[roomTags][$all][0]=work&q[roomTags][$all][1]=idle", "r"),
        ("?pref%5Btags%5D=vip", "s"),
        ("?pref.tags=vip", "s"),
        ("?pref[hidden]=false", "r"),
        ("?pref[hidden]=1&sort=name&x=y&utm[source]=z", "s"),
        ("?q[members]=alice&q[_id]=s&sortUnreadFirst=true", "s"),
    ] {
        let (total, rooms) = listed(&app, query).await;
        assert_eq!((total, &rooms[0]["_id"]), (1, &json!(room)), "{query}");
    }
    for bad in [
        "?q[roomTags=work",
        "?pref[nope]=1",
        "?q[members]=bob",
        "?pref[tags]=a&pref[tags]=b",
    ] {
        let reply = App::send(app.imkit(Method::GET, &format!("/rooms{bad}"), "alice")).await;
        imkit_error(&reply, 400, "INVALID_QUERY");
    }
}

#[tokio::test]
async fn a_moment_is_understood_as_libraries_write_it() {
    let app = filled().await;
    for (after, count) in [
        ("2020-10-15T03:28:54", 1),
        ("2020-10-15+03:28:54", 1),
        ("2020-10-15", 1),
        ("2020-10-15T24:00:00Z", 1),
        ("2020-10-15T03:28:54.123456789012", 1),
        ("1602732534000", 1),
        ("2999-10-15", 0),
    ] {
        let (total, _) = listed(&app, &format!("?updatedAfter={after}")).await;
        assert_eq!(total, count, "{after}");
    }
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

#[tokio::test]
async fn a_payload_is_shown_with_the_last_message_until_that_is_recalled() {
    let app = filled().await;
    let sent = |id: &str, payload: Value| {
        json!([{"type": "message.sent", "room": "r", "id": id, "sender": "bob", "text": "see",
                "message_type": "sticker", "payload": payload}])
    };
    let last = async || listed(&app, "").await.1[0]["lastMessage"].clone();
    app.must(&sent(
        "2",
        json!({"sticker": "s1", "message": "no", "extra": {"k": 1}}),
    ))
    .await;
    let message = last().await;
    assert_eq!(
        (
            &message["messageType"],
            &message["sticker"],
            &message["extra"],
            &message["message"]
        ),
        (
            &json!("sticker"),
            &json!("s1"),
            &json!({"k": 1}),
            &json!("see")
        )
    );
    // The next one has nothing of it.
    app.must(&sent("3", Value::Null)).await;
    let message = last().await;
    assert_eq!(
        (&message["messageType"], message.get("sticker")),
        (&json!("text"), None)
    );
    app.must(&sent("4", json!({"sticker": "s2"}))).await;
    app.must(&json!([{"type": "message.recalled", "room": "r", "id": "4"}]))
        .await;
    let message = last().await;
    assert_eq!(
        (&message["messageType"], message.get("sticker")),
        (&json!("recall"), None)
    );
    for bad in [json!([]), json!("x"), json!({"k": "x".repeat(4096)})] {
        let reply = app
            .events(&sent("5", bad), crate::support::Wait::Applied)
            .await
            .ok();
        assert_eq!(reply["results"][0]["error"]["code"], "invalid", "{reply}");
        let message = reply["results"][0]["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("payload: "), "{message}");
    }
}

#[tokio::test]
async fn of_a_text_of_any_length_the_first_thousand_characters_are_kept() {
    let app = filled().await;
    for (id, text) in [
        ("2", "é".repeat(300_000)),
        ("3", "\u{1F600}".repeat(1_000)),
        ("4", "x".repeat(1_001)),
    ] {
        app.must(&json!([{"type": "message.sent", "room": "r", "id": id, "text": &text}]))
            .await;
        let shown = listed(&app, "").await.1[0]["lastMessage"]["message"].clone();
        let kept: String = text.chars().take(1_000).collect();
        assert_eq!(shown, json!(kept), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_pages_of_the_origins_that_an_app_names_can_read_its_answers() {
    const OTHER: &str = "https://other.example";
    let redis = RedisServer::start();
    let config = Config::apps(2);
    let named = format!("[apps.users]\nallowed_origins = [\"{ORIGIN}\"]\n[apps.imkit]");
    let others = format!("[apps.users]\nallowed_origins = [\"{OTHER}\"]\n[apps.imkit]");
    let toml = config.toml(&redis.url());
    let (first, second) = toml.split_once("[apps.sendbird]").unwrap();
    let toml = format!(
        "{}[apps.sendbird]{}",
        first.replace("[apps.imkit]", &named),
        second.replace("[apps.imkit]", &others)
    );
    let pod = Pod::start_toml(&toml);
    let app = App::new(&config.apps[0], &pod.base);
    let told = |reply: &crate::support::Reply| {
        assert_eq!(reply.header("vary"), Some("Origin"), "{reply:?}");
        reply
            .header("access-control-allow-origin")
            .map(str::to_owned)
    };
    for (origin, allowed) in [
        (ORIGIN, Some(ORIGIN.to_owned())),
        (OTHER, None),
        ("https://third.example", None),
    ] {
        let request = app
            .imkit(Method::GET, "/rooms", "alice")
            .header("Origin", origin);
        let reply = App::send(request).await;
        assert_eq!(reply.status, 200);
        assert_eq!(told(&reply), allowed, "{origin}");
    }
    // Who asks is not known yet, or can't be: any app's origins.
    for (origin, allowed) in [
        (ORIGIN, true),
        (OTHER, true),
        ("https://third.example", false),
    ] {
        let asked = app
            .request(Method::OPTIONS, "/rooms")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "GET");
        let asked = App::send(asked).await;
        let stranger = App::send(app.request(Method::GET, "/rooms").header("Origin", origin)).await;
        assert_eq!((asked.status, stranger.status), (204, 403));
        for reply in [asked, stranger] {
            assert_eq!(
                told(&reply).as_deref() == Some(origin),
                allowed,
                "{origin}: {reply:?}"
            );
        }
    }
}
