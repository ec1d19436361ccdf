//! What callers send in good faith and not quite right: times in the wrong unit, one bad name among good ones, parameters that
//! nobody knows, slashes at the end.

/// Times in the wrong unit or form.
mod times;

use reqwest::Method;
use serde_json::{Value, json};

use super::{fields, is_json, problem, sendbird_error, tencent_error};
use crate::support::{App, Reply, Wait, app};

async fn result_of(app: &App, event: &Value) -> Value {
    let reply = app.events(event, Wait::Applied).await.ok();
    reply["results"][0].clone()
}

/// Sends one event whose field is written just like that.
async fn written(app: &App, event: &Value, field: &str, value: &str) -> Value {
    let mut body = event.to_string();
    body.pop();
    let body = format!("{body},\"{field}\":{value}}}");
    let request = app.native(Method::POST, "/v1/events").body(body);
    App::send(request).await.ok()["results"][0].clone()
}

#[tokio::test]
async fn one_unusable_name_among_the_mentions_does_not_cost_the_message() {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "r"},
        {"type": "member.joined", "room": "r", "users": ["a", "b", "c"]},
    ]))
    .await;
    let long = "y".repeat(300);
    let body = format!(
        r#"[{{"type":"message.sent","room":"r","id":"1","sender":"b",
             "mentions":["a","","{long}","tab\there",7,null,["c"],"\ud800x","c"]}},
            {{"type":"message.sent","room":"r","id":"2","sender":"b","mentions":["a"]}}]"#
    );
    let request = app.native(Method::POST, "/v1/events").body(body);
    let reply = App::send(request).await.ok();
    let noted = &reply["results"][0];
    assert_eq!(fields(noted), ["notes", "position", "status"], "{reply}");
    assert_eq!(
        noted["notes"],
        json!([
            "mentions: \"\" is left out: must not be empty",
            format!(
                "mentions: \"{}…\" is left out: must be at most 255 bytes of UTF-8",
                "y".repeat(32)
            ),
            "mentions: \"tabhere\" is left out: must not hold control characters",
            "mentions: 7 is left out: must be a string",
            "mentions: null is left out: must be a string",
            "mentions: [\"c\"] is left out: must be a string",
            "mentions: \"\u{fffd}x\" is left out: holds an unpaired surrogate",
        ])
    );
    assert_eq!(
        fields(&reply["results"][1]),
        ["position", "status"],
        "{reply}"
    );
    for (user, mentions) in [("a", 2), ("c", 1)] {
        let counts = app.unread(user, false).await.ok();
        assert_eq!(counts["messages"]["total"], 2, "{counts}");
        assert_eq!(counts["mentions"]["total"], mentions, "{counts}");
    }

    // Bytes that are no UTF-8, and what is told again of a message that is sent again.
    let mut body =
        br#"{"type":"message.sent","room":"r","id":"3","sender":"b","mentions":["a","x"#.to_vec();
    body.extend_from_slice(b"\xff\"]}");
    for status in ["applied", "duplicate"] {
        let request = app.native(Method::POST, "/v1/events").body(body.clone());
        let reply = App::send(request).await.ok();
        assert_eq!(reply["results"][0]["status"], status, "{reply}");
        assert_eq!(
            reply["results"][0]["notes"],
            json!(["mentions: \"x\u{fffd}\" is left out: is not valid UTF-8"])
        );
    }
    assert_eq!(app.unread("a", false).await.ok()["mentions"]["total"], 3);

    // Of many only the first are named, and a list that holds nothing else mentions nobody.
    let event =
        json!({"type": "message.sent", "room": "r", "id": "4", "mentions": vec![""; 20_000]});
    let result = result_of(&app, &event).await;
    assert_eq!(result["status"], "applied", "{result}");
    let notes = result["notes"].as_array().unwrap();
    assert_eq!(notes.len(), 11, "{result}");
    assert_eq!(notes[10], "mentions: 19990 more names are left out");
    let event = json!({"type": "message.sent", "room": "r", "id": "5", "mentions": vec![1; 11]});
    let result = result_of(&app, &event).await;
    assert_eq!(result["notes"][10], "mentions: 1 more name is left out");
    assert_eq!(app.unread("a", false).await.ok()["mentions"]["total"], 3);

    // A rejected event has its notes too. What is no list is still no list, and a user to be told is not left out.
    let elsewhere = json!({"type": "message.sent", "room": "nowhere", "id": "1", "mentions": [""]});
    let result = result_of(&app, &elsewhere).await;
    assert_eq!(result["error"]["code"], "room_not_found", "{result}");
    assert_eq!(
        result["notes"].as_array().map(Vec::len),
        Some(1),
        "{result}"
    );
    for bad in [
        json!({"type": "message.sent", "room": "r", "id": "6", "mentions": "a"}),
        json!({"type": "message.sent", "room": "r", "id": "6", "mentions": {"a": 1}}),
        json!({"type": "member.joined", "room": "r", "users": ["d", ""]}),
    ] {
        let result = result_of(&app, &bad).await;
        assert_eq!(result["error"]["code"], "invalid", "{bad}: {result}");
    }
}

#[tokio::test]
async fn an_unknown_parameter_of_the_native_api_is_named() {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "r"},
        {"type": "member.joined", "room": "r", "users": ["a", "b"]},
    ]))
    .await;
    let event = json!({"type": "user.updated", "user": "x"}).to_string();
    let users = json!({"users": ["a"]}).to_string();
    let long = "z".repeat(500);
    for (method, path, body, bad) in [
        ("GET", "/v1/rooms/r/unread?users[]=a", "", "users[]"),
        ("GET", "/v1/rooms/r/unread?users%5B%5D=a", "", "users[]"),
        ("GET", "/v1/rooms/r/unread?users=a&Users=b", "", "Users"),
        ("GET", "/v1/rooms/r/unread?=a", "", "\"\""),
        ("GET", "/v1/rooms/r/unread?users=a&%0ax%00y", "", "xy"),
        ("HEAD", "/v1/rooms/r/unread?user_ids=a", "", "user_ids"),
        ("POST", "/v1/rooms/r/unread?users=a", &users, "users"),
        ("GET", "/v1/users/a/unread?room=r", "", "room"),
        ("GET", "/v1/users/a/unread?include=rooms&limit", "", "limit"),
        ("POST", "/v1/unread?include=rooms", &users, "include"),
        ("POST", "/v1/events?wait=applied&sync=1", &event, "sync"),
        ("POST", "/v1/events?wiat=accepted", &event, "wiat"),
        // Known ones, of which it is not plain what they say.
        (
            "POST",
            "/v1/events?wait=applied&wait=accepted",
            &event,
            "wait",
        ),
        (
            "POST",
            "/v1/events?wait=applied&wait=applied",
            &event,
            "wait",
        ),
        ("POST", "/v1/events?wait=1", &event, "wait"),
        ("GET", "/v1/rooms/r/unread?users=a,%ff", "", "users"),
        ("GET", "/v1/rooms/r/unread?user=a%C3", "", "user"),
        ("GET", "/v1/users/a/unread?include=%ff", "", "include"),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let head = method == Method::HEAD;
        let reply = App::send(app.native(method, path).body(body.to_owned())).await;
        if head {
            assert_eq!(reply.status, 400, "{path}: {reply:?}");
            continue;
        }
        problem(&reply, 400);
        let detail = reply.body["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(bad), "{path}: {detail}");
    }
    let path = format!("/v1/users/a/unread?{long}=1");
    let reply = App::send(app.native(Method::GET, &path)).await;
    problem(&reply, 400);
    assert!(
        reply.body["detail"].as_str().unwrap().len() < 200,
        "{reply:?}"
    );
    // Nothing of it was done.
    problem(&app.unread("x", false).await, 404);
    // Who has no key is told of that first, and what is no path of that.
    problem(
        &App::send(app.request(Method::GET, "/v1/users/a/unread?x=1")).await,
        401,
    );
    problem(
        &App::send(app.native(Method::GET, "/v1/nope?x=1")).await,
        404,
    );
    // Lists may come in parts, and an empty query is none.
    for path in [
        "/v1/rooms/r/unread?users=a&users=b&user=a&",
        "/v1/rooms/r/unread?",
        "/v1/users/a/unread?include=rooms&include=rooms&&",
    ] {
        App::send(app.native(Method::GET, path)).await.ok();
    }
}

#[tokio::test]
async fn a_long_list_of_a_rooms_members_is_asked_for_by_post() {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "a/b"},
        {"type": "member.joined", "room": "a/b", "users": ["a", "b", "x,y"]},
        {"type": "message.sent", "room": "a/b", "id": "1", "sender": "b"},
        {"type": "member.invited", "room": "a/b", "user": "guest"},
    ]))
    .await;
    let post = async |path: &str, body: &Value| -> Reply {
        App::send(app.native(Method::POST, path).json(body)).await
    };
    let path = "/v1/rooms/a%2Fb/unread";
    let reply = post(path, &json!({"users": ["x,y", "b", "ghost", "guest", "b"]})).await;
    is_json(&reply);
    assert_eq!(reply.ok(), json!({"unread": {"x,y": 1, "b": 0}}));
    assert_eq!(
        post(path, &json!({"users": []})).await.ok(),
        json!({"unread": {}})
    );

    let mut users: Vec<String> = (0..999).map(|n| format!("{n:0255}")).collect();
    users.push("a".to_owned());
    assert_eq!(
        post(path, &json!({"users": users})).await.ok(),
        json!({"unread": {"a": 1}})
    );
    users.push("b".to_owned());
    problem(&post(path, &json!({"users": users})).await, 413);

    problem(
        &post("/v1/rooms/nowhere/unread", &json!({"users": ["a"]})).await,
        404,
    );
    for body in [
        json!({}),
        json!(["a"]),
        json!({"users": null}),
        json!({"users": "a"}),
        json!({"users": [""]}),
        json!({"users": ["a"], "include": "read"}),
    ] {
        problem(&post(path, &body).await, 400);
    }
    let request = app
        .native(Method::POST, path)
        .header("content-type", "text/html");
    problem(&App::send(request.body(r#"{"users":["a"]}"#)).await, 415);
    for method in [Method::PUT, Method::DELETE] {
        let reply = App::send(app.native(method, path)).await;
        problem(&reply, 405);
        assert_eq!(reply.header("allow"), Some("GET, POST"), "{reply:?}");
    }
}

#[tokio::test]
async fn a_slash_at_the_end_changes_nothing() {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "r", "custom_type": "t"},
        {"type": "member.joined", "room": "r", "users": ["a", "b"]},
        {"type": "message.sent", "room": "r", "id": "1", "sender": "b"},
    ]))
    .await;
    let event = json!({"type": "user.updated", "user": "x"}).to_string();
    for (method, path, body) in [
        (Method::POST, "/v1/events/", event.as_str()),
        (Method::POST, "/v1/unread/", r#"{"users":["a"]}"#),
        (Method::GET, "/v1/users/a/unread/", ""),
        (Method::GET, "/v1/rooms/r/unread/?users=a", ""),
        (Method::GET, "//v1/rooms/r/unread//", ""),
    ] {
        App::send(app.native(method, path).body(body.to_owned()))
            .await
            .ok();
    }
    let sendbird = app.request(Method::GET, "/v3/users/a/unread_item_count/?custom_types=t");
    let sendbird = App::send(sendbird.header("Api-Token", &app.keys.api_token))
        .await
        .ok();
    assert_eq!(
        sendbird["group_channel_unread_message_count"], 1,
        "{sendbird}"
    );
    let tencent = app.tencent(&json!({"To_Account": "a"})).build().unwrap();
    let mut url = tencent.url().clone();
    url.set_path(&format!("{}/", url.path()));
    let path = url.as_str().strip_prefix(&app.base).unwrap();
    let tencent = app
        .request(Method::POST, path)
        .body(r#"{"To_Account":"a"}"#);
    assert_eq!(App::send(tencent).await.ok()["ErrorCode"], 0);
    let imkit = app.imkit(Method::GET, "/rooms/", "a");
    assert_eq!(App::send(imkit).await.ok()["RC"], 0);
    // An id that is empty is not a slash at the end.
    problem(
        &App::send(app.native(Method::GET, "/v1/users//unread")).await,
        400,
    );
    problem(
        &App::send(app.native(Method::GET, "/v1/users/unread/")).await,
        404,
    );
    let nobody = app.request(Method::GET, "/v3/users//unread_item_count/");
    let nobody = App::send(nobody.header("Api-Token", &app.keys.api_token)).await;
    sendbird_error(&nobody, 400, 400_201);
}

#[tokio::test]
async fn a_head_is_answered_as_its_get_without_the_body() {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "r"},
        {"type": "member.joined", "room": "r", "users": ["a", "b"]},
    ]))
    .await;
    let of = |method: &Method, path: &str| {
        let request = app.native(method.clone(), path);
        App::send(request.header("Api-Token", &app.keys.api_token))
    };
    for path in [
        "/v1/users/a/unread?include=rooms",
        "/v1/users/nobody/unread",
        "/v1/rooms/r/unread",
        "/v1/events",
        "/nope",
        "/v3/users/a/unread_item_count",
        "/v3/users/nobody/unread_item_count/",
        "/v3/nope",
        "/v4/openim/get_c2c_unread_msg_num",
        "/v4/nope",
    ] {
        let (get, head) = (of(&Method::GET, path).await, of(&Method::HEAD, path).await);
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.body, Value::Null, "{path}: {head:?}");
        for name in [
            "content-type",
            "content-length",
            "allow",
            "access-control-allow-origin",
        ] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
    }
    // Tencent's one call is a POST, whatever else is right about another.
    let request = app.tencent(&json!({"To_Account": "a"})).build().unwrap();
    let path = request
        .url()
        .as_str()
        .strip_prefix(&app.base)
        .unwrap()
        .to_owned();
    tencent_error(&App::send(app.request(Method::GET, &path)).await, 60002);
}

#[tokio::test]
async fn a_prefix_before_v3_is_passed_over_where_a_token_comes_with_it() {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "r"},
        {"type": "member.joined", "room": "r", "users": ["a", "v3", "b"]},
        {"type": "message.sent", "room": "r", "id": "1", "sender": "b"},
    ]))
    .await;
    let get = |path: &str| {
        let request = app.request(Method::GET, path);
        App::send(request.header("Api-Token", &app.keys.api_token))
    };
    for path in [
        "/sb/v3/users/a/unread_item_count",
        "/sb//v3/users/a/unread_item_count",
        "//api/sendbird/v3/users/v3/unread_item_count/",
        "/chat%20api/v3/users/%61/unread_item_count?item_keys=group_channel_unread_message_count",
    ] {
        let counts = get(path).await.ok();
        assert_eq!(
            counts["group_channel_unread_message_count"], 1,
            "{path}: {counts}"
        );
    }
    // Errors are in its words too.
    sendbird_error(
        &get("/sb/v3/users/nobody/unread_item_count").await,
        400,
        400_201,
    );
    sendbird_error(&get("/sb/v3/nope").await, 400, 400_114);
    let wrong = app.request(Method::GET, "/sb/v3/users/a/unread_item_count");
    sendbird_error(
        &App::send(wrong.header("Api-Token", "wrong")).await,
        400,
        400_401,
    );
    let long = format!(
        "/sb/v3/users/a/unread_item_count?custom_types={}",
        "x".repeat(40_000)
    );
    sendbird_error(&get(&long).await, 400, 400_110);
    // Without a token nobody says that it is meant, and another dialect's paths stay its own.
    problem(
        &App::send(app.request(Method::GET, "/sb/v3/users/a/unread_item_count")).await,
        404,
    );
    problem(&get("/sb/users/a/unread_item_count").await, 404);
    problem(&get("/v1/v3/users/a/unread_item_count").await, 404);
    tencent_error(&get("/v4/v3/users/a/unread_item_count").await, 60009);
}

#[tokio::test]
async fn a_custom_type_that_no_room_can_have_counts_nothing() {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "r", "custom_type": "t"},
        {"type": "room.updated", "room": "s", "kind": "supergroup", "custom_type": "t"},
        {"type": "member.joined", "room": "r", "users": ["a", "b"]},
        {"type": "member.joined", "room": "s", "users": ["a", "b"]},
        {"type": "message.sent", "room": "r", "id": "1", "sender": "b"},
        {"type": "message.sent", "room": "s", "id": "1", "sender": "b"},
    ]))
    .await;
    let ask = |user: &str, query: String| {
        let path = format!("/v3/users/{user}/unread_item_count?{query}");
        let request = app.request(Method::GET, &path);
        App::send(request.header("Api-Token", &app.keys.api_token))
    };
    let long = "x".repeat(256);
    for (query, expected) in [
        (format!("custom_types={long}"), 0),
        ("custom_type=a%0Ab".to_owned(), 0),
        ("custom_types=%7F".to_owned(), 0),
        (format!("custom_types={long},a%00"), 0),
        (format!("custom_types=t,{long}"), 2),
        (format!("custom_types={long}&custom_type=t"), 2),
        ("custom_types=".to_owned(), 2),
    ] {
        let counts = ask("a", query.clone()).await.ok();
        assert_eq!(
            counts["group_channel_unread_message_count"], expected,
            "{query}"
        );
        let counts = counts.as_object().unwrap();
        assert_eq!(counts.len(), 9, "{query}");
        assert_eq!(
            counts.values().all(|count| *count == 0),
            expected == 0,
            "{query}"
        );
    }
    // Whether there is such a user is asked all the same.
    sendbird_error(
        &ask("nobody", format!("custom_types={long}")).await,
        400,
        400_201,
    );
}

#[tokio::test]
async fn of_a_key_given_twice_in_a_filter_the_last_one_holds() {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "r", "tags": ["work"]},
        {"type": "room.updated", "room": "s", "tags": ["home"]},
        {"type": "member.joined", "room": "r", "users": ["a", "b"]},
        {"type": "member.joined", "room": "s", "users": ["a", "b"]},
        {"type": "pref.updated", "room": "s", "user": "a", "folder": "f"},
    ]))
    .await;
    for (query, room) in [
        (r#"q={"roomTags":"home","roomTags":"work"}"#, "r"),
        (r#"q={"roomTags":"work","room\u0054ags":"home"}"#, "s"),
        (r#"q={"roomTags":{"$in":["home"],"$in":["work"]}}"#, "r"),
        (
            r#"q={"nonsense":1,"_id":"r","_id":"s","nonsense":{"roomTags":1},"nonsense":null}"#,
            "",
        ),
        (r#"pref={"folder":"none","folder":"f"}"#, "s"),
        (r#"pref={"folder":{"$ne":"none","$ne":"f"}}"#, "r"),
    ] {
        let (name, filter) = query.split_once('=').unwrap();
        let query_of = [(name.to_owned(), filter.to_owned())];
        let reply = app.imkit_rooms("a", &query_of).await;
        if room.is_empty() {
            assert_eq!(reply.body["error"]["code"], "INVALID_QUERY", "{query}");
            continue;
        }
        let found = reply.ok();
        let rooms = found["result"]["data"].as_array().unwrap();
        let rooms: Vec<&Value> = rooms.iter().map(|room| &room["_id"]).collect();
        assert_eq!(rooms, [room], "{query}");
    }
}

#[tokio::test]
async fn a_byte_order_mark_before_any_body_is_passed_over() {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "r", "tags": ["work"]},
        {"type": "member.joined", "room": "r", "users": ["a", "b"]},
        {"type": "message.sent", "room": "r", "id": "1", "sender": "b"},
    ]))
    .await;
    let marked = |body: &str| format!("\u{feff}{body}");
    let native = app.native(Method::POST, "/v1/unread");
    let native = App::send(native.body(marked(r#"{"users":["a"]}"#)))
        .await
        .ok();
    assert_eq!(native["users"]["a"]["messages"]["total"], 1);
    let room = app.native(Method::POST, "/v1/rooms/r/unread");
    let room = App::send(room.body(marked(r#"{"users":["a"]}"#)))
        .await
        .ok();
    assert_eq!(room["unread"]["a"], 1);
    let badges = app.imkit(Method::POST, "/badges/byRoomTags", "a");
    let badges = App::send(badges.body(marked("{}"))).await.ok();
    assert_eq!(badges["result"]["totalBadge"], 1);
    let tencent = app.tencent(&json!({}));
    let tencent = App::send(tencent.body(marked(r#"{"To_Account":"a"}"#)))
        .await
        .ok();
    assert_eq!(tencent["ErrorCode"], 0);
    for event in ["[]", r#"{"type":"user.updated","user":"a"}"#] {
        let request = app.native(Method::POST, "/v1/events").body(marked(event));
        assert_eq!(App::send(request).await.ok()["rejected"], 0, "{event}");
    }
}
