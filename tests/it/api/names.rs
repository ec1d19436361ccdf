//! Ids that Redis, a glob, a URL or a list could misread, through all events and back through all endpoints.

use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Map, Value, json};

use super::{fields, problem, sendbird_error, tencent_error};
use crate::support::{App, app, escaped, raw};

/// All of them live in one app, so that two that are taken for one another show.
fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "{",
        "}",
        "{}",
        "a{b}c",
        "{a}",
        "*",
        "a*",
        "?",
        "[a-z]",
        "\\",
        "\\*",
        ":",
        "a:b",
        "a:u:b",
        "demo:r:orders",
        "unread:v1:{demo:u:x}:counts",
        "/",
        "//",
        "a/b",
        "a%2Fb",
        "a%2fb",
        "%",
        "%%",
        "%25",
        "%2",
        "100%",
        " ",
        "a b",
        " a",
        "a ",
        "a+b",
        "'",
        "\"",
        "`",
        "a\"b'c",
        ",",
        "a,b",
        ",a",
        ";",
        "|",
        "a|b",
        "&",
        "a=b&c=d",
        "#",
        "$in",
        "a.b",
        "...",
        "-1",
        "0",
        "00",
        "null",
        "true",
        "all",
        "__proto__",
        "<b>",
        "A",
        "a",
        "\u{a0}",
        "é",
        "e\u{301}",
        "🙂",
        "👩\u{200d}👩\u{200d}👧",
        "未读消息",
        "未读",
        "שלום",
        "\u{202e}abc",
        "\u{feff}x",
        "\u{10ffff}",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("x".repeat(255));
    names.push("{".repeat(255));
    names.push("未".repeat(85));
    names
}

/// A custom type has no comma.
fn custom_type(name: &str) -> &str {
    if name.contains(',') { "a comma" } else { name }
}

/// One unread in the room (with a mention), one in the direct room, one invitation; `peer` sent all of it.
fn history(n: usize, name: &str) -> Vec<Value> {
    vec![
        json!({"type": "user.updated", "user": name, "nickname": name, "avatar_url": name}),
        json!({"type": "room.updated", "room": name, "name": name, "cover": name, "description": name, "webhook": name,
               "bot_state": name, "tags": [name], "custom_type": custom_type(name)}),
        json!({"type": "member.invited", "room": name, "user": name}),
        json!({"type": "member.joined", "room": name, "users": [name, "peer"]}),
        json!({"type": "member.joined", "room": name, "user": "leaver"}),
        json!({"type": "member.left", "room": name, "user": "leaver"}),
        json!({"type": "room.updated", "room": format!("other {n}"), "kind": "supergroup", "tags": [name],
               "custom_type": custom_type(name)}),
        json!({"type": "member.invited", "room": format!("other {n}"), "user": name}),
        json!({"type": "message.sent", "room": name, "id": name, "sender": "peer", "mentions": [name], "text": name}),
        json!({"type": "message.sent", "room": name, "id": "second", "sender": "peer", "mentions": [name]}),
        json!({"type": "message.sent", "room": name, "id": "third", "sender": "peer", "mentions": [name]}),
        json!({"type": "message.sent", "room": name, "id": "last", "sender": name, "silent": true, "text": name,
               "message_type": name, "mark_read": false}),
        json!({"type": "room.read", "room": name, "user": name, "up_to_id": name}),
        json!({"type": "message.recalled", "room": name, "id": "third"}),
        json!({"type": "message.sent", "to": name, "sender": "peer", "id": name, "text": name}),
        json!({"type": "message.sent", "to": name, "sender": "peer", "id": "second"}),
        json!({"type": "room.read", "peer": "peer", "user": name, "up_to_id": name}),
        json!({"type": "message.sent", "to": "peer", "sender": name, "id": "answer", "mark_read": false}),
        json!({"type": "pref.updated", "room": name, "user": name, "tags": [name], "tag_colors": {name: name},
               "folder": name}),
    ]
}

fn kinds(direct: u64, group: u64, supergroup: u64) -> Value {
    json!({"total": direct + group + supergroup, "direct": direct, "group": group, "supergroup": supergroup})
}

fn families() -> Value {
    json!({"messages": kinds(1, 1, 0), "mentions": kinds(0, 1, 0), "invitations": kinds(0, 0, 1),
           "unread_rooms": kinds(1, 1, 0)})
}

async fn native(app: &App, name: &str) {
    let reply = app.unread(name, true).await.ok();
    let mut expected = families();
    expected["user"] = json!(name);
    expected["tags"] = json!({name: 1});
    expected["types"] = json!({custom_type(name): 1});
    let rooms = reply["rooms"].as_array().unwrap();
    let row = json!({"room": name, "kind": "group", "custom_type": custom_type(name), "tags": [name], "messages": 1,
                     "mentions": 1, "muted": false, "hidden": false, "count": "all", "read_position": 1, "head": 3});
    assert!(rooms.contains(&row), "{name:?}: {reply}");
    assert_eq!(rooms.len(), 2, "{name:?}: {reply}");
    expected["rooms"] = reply["rooms"].clone();
    expected["stamp"] = reply["stamp"].clone();
    assert_eq!(reply, expected, "{name:?}");

    let members = json!({"unread": {name: 1, "peer": 0}});
    assert_eq!(app.room_unread::<&str>(name, None).await.ok(), members);
    let path = format!("/v1/rooms/{0}/unread?user={0}", escaped(name));
    let reply = App::send(app.native(Method::GET, &path)).await.ok();
    assert_eq!(reply, json!({"unread": {name: 1}}));
}

async fn tencent(app: &App, name: &str) {
    let ok = json!({"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0});
    let mut expected = ok.clone();
    expected["AllC2CUnreadMsgNum"] = json!(1);
    assert_eq!(app.tencent_total(name).await.ok(), expected, "{name:?}");
    for (user, peer) in [(name, "peer"), ("peer", name)] {
        let mut expected = ok.clone();
        expected["C2CUnreadMsgNumList"] = json!([{"Peer_Account": peer, "C2CUnreadMsgNum": 1}]);
        assert_eq!(
            app.tencent_peers(user, &[peer]).await.ok(),
            expected,
            "{user:?}, {peer:?}"
        );
    }
}

async fn sendbird(app: &App, name: &str) {
    let count = |group: u64, supergroup: u64, family: &str| {
        [
            (format!("non_super_group_channel_{family}"), json!(group)),
            (format!("super_group_channel_{family}"), json!(supergroup)),
            (format!("group_channel_{family}"), json!(group + supergroup)),
        ]
    };
    let all = |messages| -> Map<String, Value> {
        count(messages, 0, "unread_message_count")
            .into_iter()
            .chain(count(1, 0, "unread_mention_count"))
            .chain(count(0, 1, "invitation_count"))
            .collect()
    };
    assert_eq!(
        app.sendbird(name, None, None).await.ok(),
        json!(all(2)),
        "{name:?}"
    );
    let reply = app.sendbird(name, None, Some(custom_type(name))).await.ok();
    assert_eq!(reply, json!(all(1)), "{name:?}");
}

async fn imkit(app: &App, name: &str) {
    let badges = json!({"RC": 0, "RM": "OK", "result": {"totalBadge": 1, "data": {name: 1}}});
    assert_eq!(
        app.imkit_badges::<&str>(name, None).await.ok(),
        badges,
        "{name:?}"
    );
    assert_eq!(
        app.imkit_badges(name, Some(&[name, name])).await.ok(),
        badges,
        "{name:?}"
    );

    for (parameter, filter) in [
        ("q", json!({"_id": name})),
        ("q", json!({"roomTags": {"$in": [name]}, "members": name})),
        ("pref", json!({"tags": {"$all": [name]}, "folder": name})),
    ] {
        let parameters = [(parameter.to_owned(), filter.to_string())];
        let reply = app.imkit_rooms(name, &parameters).await.ok();
        let result = &reply["result"];
        assert_eq!(result["totalCount"], 1, "{name:?}, {filter}: {reply}");
        let room = &result["data"][0];
        for field in [
            "_id",
            "id",
            "name",
            "cover",
            "description",
            "webhook",
            "botState",
        ] {
            assert_eq!(room[field], name, "{name:?}: {reply}");
        }
        assert_eq!(room["roomTags"], json!([name]), "{reply}");
        assert_eq!(room["unread"], 1, "{reply}");
        let pref = &room["pref"];
        assert_eq!(
            (&pref["tags"], &pref["tagColors"], &pref["folder"]),
            (&json!([name]), &json!({name: name}), &json!(name)),
            "{reply}"
        );
        let last = &room["lastMessage"];
        assert_eq!(
            (
                &last["_id"],
                &last["message"],
                &last["messageType"],
                &last["room"]
            ),
            (&json!("last"), &json!(name), &json!(name), &json!(name)),
            "{reply}"
        );
        for client in [
            &last["sender"],
            room["members"]
                .as_array()
                .unwrap()
                .iter()
                .find(|m| m["_id"] == name)
                .unwrap(),
        ] {
            for field in ["_id", "id", "nickname", "avatarUrl"] {
                assert_eq!(client[field], name, "{reply}");
            }
        }
    }
    // A header loses the blanks around its value.
    if name.trim() == name {
        let request = app.imkit(Method::GET, "/rooms", name);
        let request = request.header(
            "IM-CLIENT-ID",
            HeaderValue::from_bytes(name.as_bytes()).unwrap(),
        );
        App::send(request).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_name_works_everywhere() {
    let app = app();
    let names = names();
    for (n, name) in names.iter().enumerate() {
        app.must(&json!(history(n, name))).await;
        let again = json!({"type": "message.sent", "room": name, "id": name});
        let again = app.must(&again).await;
        assert_eq!(
            again[0],
            json!({"status": "duplicate", "position": 1}),
            "{name:?}"
        );
    }
    let many = app.unread_many(&names).await.ok();
    assert_eq!(many["users"].as_object().map(Map::len), Some(names.len()));
    for name in &names {
        assert_eq!(many["users"][name], families(), "{name:?}");
        native(&app, name).await;
        tencent(&app, name).await;
        sendbird(&app, name).await;
        imkit(&app, name).await;
    }
    // Everybody's direct room with `peer` was one of its own.
    let total = app.tencent_total("peer").await.ok();
    assert_eq!(total["AllC2CUnreadMsgNum"], json!(names.len()));

    // And out again, one by one: what is left of the others shows whether the right one went.
    for (n, name) in names.iter().enumerate() {
        app.must(&json!([
            {"type": "user.read_all", "user": name},
            {"type": "room.deleted", "room": format!("other {n}")},
        ]))
        .await;
        let counts = app.unread(name, false).await.ok();
        for family in fields(&families()) {
            assert_eq!(counts[family]["total"], 0, "{name:?}: {counts}");
        }
        app.must(&json!([
            {"type": "member.left", "room": name, "user": name},
            {"type": "room.deleted", "room": name},
            {"type": "user.deleted", "user": name},
        ]))
        .await;
        problem(&app.unread(name, false).await, 404);
        problem(&app.room_unread::<&str>(name, None).await, 404);
        sendbird_error(&app.sendbird(name, None, None).await, 400, 400_201);
        tencent_error(&app.tencent_total(name).await, 90003);
        if let Some(next) = names.get(n + 1) {
            native(&app, next).await;
        }
    }
}

/// The two segments that a client library would take for directories.
#[tokio::test]
async fn dots_are_names_too() {
    let app = app();
    let address = app.address();
    for name in [".", ".."] {
        app.must(&json!([
            {"type": "room.updated", "room": name},
            {"type": "member.joined", "room": name, "user": name},
            {"type": "message.sent", "room": name, "id": name},
        ]))
        .await;
        for (path, header, part) in [
            (
                "/v1/users/*/unread",
                format!("Authorization: Bearer {}", app.keys.server_key),
                "\"total\":1",
            ),
            (
                "/v1/rooms/*/unread",
                format!("Authorization: Bearer {}", app.keys.server_key),
                ":1}",
            ),
            (
                "/v3/users/*/unread_item_count",
                format!("Api-Token: {}", app.keys.api_token),
                "\"group_channel_unread_message_count\":1",
            ),
        ] {
            let path = path.replace('*', name);
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: x\r\n{header}\r\nConnection: close\r\n\r\n");
            let answer = raw(address, request.as_bytes()).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
            assert!(answer.contains(part), "{path}: {answer}");
        }
    }
}
