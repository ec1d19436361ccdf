//! `GET /rooms`: its answer field by field, and its parameters.

use reqwest::Method;
use serde_json::{Value, json};

use super::{filled, listed};
use crate::api::{fields, imkit_error, is_json};
use crate::support::App;

#[tokio::test]
async fn a_room_answer_is_right_in_every_field() {
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
