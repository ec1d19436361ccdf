//! Sendbird's endpoint.

use reqwest::Method;
use serde_json::{Value, json};

use super::{is_json, sendbird_error};
use crate::support::model::ITEM_KEYS;
use crate::support::{App, Reply, app, escaped, raw};

async fn filled() -> App {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "g", "custom_type": "one"},
        {"type": "room.updated", "room": "h", "custom_type": "two words"},
        {"type": "room.updated", "room": "s", "kind": "supergroup", "custom_type": "one"},
        {"type": "room.updated", "room": "i", "kind": "supergroup"},
        {"type": "member.joined", "room": "g", "user": "a/b c"},
        {"type": "member.joined", "room": "h", "user": "a/b c"},
        {"type": "member.joined", "room": "s", "user": "a/b c"},
        {"type": "member.invited", "room": "i", "user": "a/b c"},
        {"type": "message.sent", "room": "g", "id": "1", "mentions": "all"},
        {"type": "message.sent", "room": "h", "id": "1"},
        {"type": "message.sent", "room": "h", "id": "2"},
        {"type": "message.sent", "room": "s", "id": "1", "mentions": ["a/b c"]},
        {"type": "message.sent", "to": "a/b c", "sender": "bob", "id": "1"},
    ]))
    .await;
    app
}

async fn get(app: &App, path_and_query: &str) -> Reply {
    let request = app.request(Method::GET, path_and_query);
    App::send(request.header("Api-Token", &app.keys.api_token)).await
}

const PATH: &str = "/v3/users/a%2Fb%20c/unread_item_count";

/// In the order of [`ITEM_KEYS`]'s families: ordinary, super, both.
fn all(messages: [u64; 2], mentions: [u64; 2], invitations: [u64; 2]) -> Value {
    let mut expected = json!({});
    for (family, [ordinary, large]) in [
        ("unread_message_count", messages),
        ("unread_mention_count", mentions),
        ("invitation_count", invitations),
    ] {
        expected[format!("non_super_group_channel_{family}")] = json!(ordinary);
        expected[format!("super_group_channel_{family}")] = json!(large);
        expected[format!("group_channel_{family}")] = json!(ordinary + large);
    }
    expected
}

#[tokio::test]
async fn keys_come_in_every_encoding() {
    let app = filled().await;
    let every = all([4, 1], [1, 1], [0, 1]);
    for query in ["", "?", "?item_keys=", "?item_keys=,", "?other=x"] {
        let reply = get(&app, &format!("{PATH}{query}")).await;
        is_json(&reply);
        assert_eq!(reply.ok(), every, "{query}");
    }
    let (a, b) = (ITEM_KEYS[2], ITEM_KEYS[3]);
    for query in [
        format!("item_keys={a},{b}"),
        format!("item_keys={a}%2C{b}"),
        format!("item_keys={a}&item_keys={b}"),
        format!("item_keys={a}&x=y&item_keys={b},{a}"),
        format!("item_keys={a},%20{b}"),
        format!("item_keys[]={a}&item_keys[]={b}"),
    ] {
        let reply = get(&app, &format!("{PATH}?{query}")).await;
        assert_eq!(reply.ok(), json!({a: every[a], b: every[b]}), "{query}");
    }
    for key in ITEM_KEYS {
        assert_eq!(
            get(&app, &format!("{PATH}?item_keys={key}")).await.ok(),
            json!({key: every[key]})
        );
    }
    for wrong in [
        "nope",
        &format!("{a},nope"),
        &a.to_uppercase(),
        "unread_item_count",
        "*",
        "group_channel",
        "%ff",
    ] {
        sendbird_error(
            &get(&app, &format!("{PATH}?item_keys={wrong}")).await,
            400,
            400_111,
        );
    }
}

#[tokio::test]
async fn custom_types_go_by_both_names() {
    let app = filled().await;
    let (one, two) = (all([1, 1], [1, 1], [0, 0]), all([2, 0], [0, 0], [0, 0]));
    let both = all([3, 1], [1, 1], [0, 0]);
    for (query, expected) in [
        ("custom_types=one", &one),
        ("custom_type=one", &one),
        ("custom_types=two%20words", &two),
        ("custom_types=two+words", &two),
        ("custom_types=one,two%20words", &both),
        ("custom_types=one%2Ctwo+words", &both),
        ("custom_types=one&custom_types=two%20words", &both),
        (
            "custom_type=one&custom_types=two%20words&custom_type=none",
            &both,
        ),
        ("custom_types=none", &all([0, 0], [0, 0], [0, 0])),
        ("custom_types=One", &all([0, 0], [0, 0], [0, 0])),
        ("custom_types=*", &all([0, 0], [0, 0], [0, 0])),
        ("custom_types=", &all([4, 1], [1, 1], [0, 1])),
    ] {
        assert_eq!(
            get(&app, &format!("{PATH}?{query}")).await.ok(),
            *expected,
            "{query}"
        );
    }
    // No room can have these.
    for none in [&"x".repeat(256), "a%0Ab"] {
        let path = format!("{PATH}?custom_types={none}");
        assert_eq!(
            get(&app, &path).await.ok(),
            all([0, 0], [0, 0], [0, 0]),
            "{none}"
        );
    }
    let longest = format!("{PATH}?custom_types={},one", "x".repeat(255));
    assert_eq!(get(&app, &longest).await.ok(), one);
}

#[tokio::test]
async fn the_user_in_the_path_is_decoded_once_and_strictly() {
    let app = filled().await;
    for path in [
        PATH,
        "//v3/users/a%2Fb%20c/unread_item_count",
        "/v3/users/%61%2fb%20c/unread_item_count",
    ] {
        get(&app, path).await.ok();
    }
    for user in [
        "nobody",
        "a%252Fb%20c",
        "a%2Fb+c",
        "A%2Fb%20c",
        "%0a",
        "",
        &"x".repeat(256),
        "*",
    ] {
        let reply = get(&app, &format!("/v3/users/{user}/unread_item_count")).await;
        sendbird_error(&reply, 400, 400_201);
        assert_eq!(reply.body["message"], "\"User\" not found.");
    }
    for broken in ["%", "%4", "%zz", "%ff", "%C3"] {
        let request = format!(
            "GET /v3/users/{broken}/unread_item_count HTTP/1.1\r\nHost: x\r\nApi-Token: {}\r\nConnection: close\r\n\r\n",
            app.keys.api_token
        );
        // As bytes, since a client library would mend or refuse some of them.
        let answer = raw(app.address(), request.as_bytes()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{broken}: {answer}");
        assert!(answer.contains("400111"), "{broken}: {answer}");
    }
    // A body that nobody asked for does no harm.
    let request = app.sendbird_request("a/b c", None, None).body("nope");
    App::send(request).await.ok();
}

#[tokio::test]
async fn credentials_of_every_wrong_kind_are_refused() {
    let (app, other) = (filled().await, app());
    let ask = |headers: &[(&str, &str)]| {
        let request = app.request(Method::GET, PATH);
        App::send(headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        }))
    };
    let keys = &app.keys;
    for token in [&keys.api_token, &keys.master_token] {
        ask(&[("Api-Token", token)]).await.ok();
        // One SDK sends the header twice, first without a value.
        ask(&[("Api-Token", ""), ("api-token", token)]).await.ok();
    }
    for headers in [
        &[][..],
        &[("Api-Token", "")],
        &[("Api-Token", "nope")],
        &[("Api-Token", &keys.server_key)],
        &[("Api-Token", &keys.client_key)],
        &[("Api-Token", &keys.api_token[1..])],
        &[("Api-Token", &keys.api_token.to_uppercase())],
        &[("Authorization", &keys.api_token)],
        &[("Session-Key", &keys.api_token)],
    ] {
        sendbird_error(&ask(headers).await, 400, 400_401);
    }
    // Another app's token finds another app's users.
    sendbird_error(
        &ask(&[("Api-Token", &other.keys.api_token)]).await,
        400,
        400_201,
    );

    let host = |application_id: &str| format!("api-{application_id}.sendbird.com");
    for (host, good) in [
        (host(&keys.application_id), true),
        (host(&keys.application_id.to_lowercase()), true),
        (format!("{}:443", host(&keys.application_id)), true),
        (host("SOMEBODY-ELSE"), true),
        ("127.0.0.1".to_owned(), true),
        (other.keys.application_id.clone(), true),
        (host(&other.keys.application_id), false),
        (host(&other.keys.application_id.to_lowercase()), false),
        (format!("{}:443", host(&other.keys.application_id)), false),
    ] {
        let reply = ask(&[("Api-Token", &keys.api_token), ("Host", &host)]).await;
        match good {
            true => drop(reply.ok()),
            false => sendbird_error(&reply, 400, 400_401),
        }
    }
}

#[tokio::test]
async fn wrong_methods_and_unknown_paths_are_refused() {
    let app = filled().await;
    let token = &app.keys.api_token;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let request = app.request(Method::from_bytes(method.as_bytes()).unwrap(), PATH);
        let reply = App::send(request.header("Api-Token", token).body("x".repeat(100_000))).await;
        sendbird_error(&reply, 400, 400_930);
        assert_eq!(reply.header("allow"), Some("GET"), "{reply:?}");
    }
    for path in [
        "/v3".to_owned(),
        "/v3/".to_owned(),
        "/v3/users".to_owned(),
        format!("/v3/users/{}", escaped("a/b c")),
        "/v3/users/a/b/unread_item_count".to_owned(),
        format!("{PATH}/x"),
        format!("{PATH}s"),
        "/v3/users//a/unread_item_count".to_owned(),
        "/v3/group_channels".to_owned(),
    ] {
        sendbird_error(&get(&app, &path).await, 400, 400_114);
    }
}
