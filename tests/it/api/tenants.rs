//! Two apps with the same ids: nothing crosses.

use reqwest::Method;
use serde_json::json;

use super::{imkit_error, problem, sendbird_error, tencent_error};
use crate::support::model::ITEM_KEYS;
use crate::support::{App, Reply, app, escaped, imkit_token, now_seconds, tencent_usersig};

/// So many messages to `alice`, in a room and directly, of the same ids in either app.
async fn fill(app: &App, count: u64) {
    let mut events = vec![
        json!({"type": "room.updated", "room": "r", "tags": ["t"], "custom_type": "c", "name": app.keys.id}),
        json!({"type": "member.joined", "room": "r", "users": ["alice", "bob"]}),
    ];
    for n in 0..count {
        events.push(
            json!({"type": "message.sent", "room": "r", "id": n.to_string(), "sender": "bob"}),
        );
        events.push(
            json!({"type": "message.sent", "to": "alice", "id": n.to_string(), "sender": "bob"}),
        );
    }
    app.must(&json!(events)).await;
}

async fn shows(app: &App, count: u64) {
    let native = app.unread("alice", true).await.ok();
    assert_eq!(
        native["messages"],
        json!({"total": 2 * count, "direct": count, "group": count, "supergroup": 0})
    );
    assert_eq!(native["tags"], json!({"t": count}));
    assert_eq!(native["types"], json!({"c": count}));
    assert_eq!(
        native["rooms"].as_array().map(Vec::len),
        Some(2),
        "{native}"
    );
    let many = app.unread_many(&["alice"]).await.ok();
    assert_eq!(many["users"]["alice"]["messages"], native["messages"]);
    let room = app.room_unread::<&str>("r", None).await.ok();
    assert_eq!(room, json!({"unread": {"alice": count, "bob": 0}}));
    assert_eq!(
        app.tencent_total("alice").await.ok()["AllC2CUnreadMsgNum"],
        count
    );
    let peers = app.tencent_peers("alice", &["bob"]).await.ok();
    assert_eq!(peers["C2CUnreadMsgNumList"][0]["C2CUnreadMsgNum"], count);
    let key = ITEM_KEYS[2];
    assert_eq!(
        app.sendbird("alice", Some(key), None).await.ok(),
        json!({key: 2 * count})
    );
    assert_eq!(
        app.sendbird("alice", Some(key), Some("c")).await.ok(),
        json!({key: count})
    );
    let badges = app.imkit_badges::<&str>("alice", None).await.ok();
    assert_eq!(
        badges["result"],
        json!({"totalBadge": count, "data": {"t": count}})
    );
    let rooms = app
        .imkit_rooms("alice", &[("q".to_owned(), r#"{"_id":"r"}"#.to_owned())])
        .await
        .ok();
    assert_eq!(rooms["result"]["data"][0]["unread"], count);
    assert_eq!(rooms["result"]["data"][0]["name"], app.keys.id);
}

#[tokio::test]
async fn the_same_ids_in_two_apps_are_strangers() {
    let (one, two) = (app(), app());
    let (first, second) = (3, 5);
    fill(&one, first).await;
    fill(&two, second).await;
    shows(&one, first).await;
    shows(&two, second).await;

    one.must(&json!([{"type": "room.read", "room": "r", "user": "alice"}, {"type": "user.updated", "user": "only"}])).await;
    shows(&two, second).await;
    one.must(
        &json!([{"type": "room.deleted", "room": "r"}, {"type": "user.deleted", "user": "alice"}]),
    )
    .await;
    shows(&two, second).await;
    problem(&one.unread("alice", false).await, 404);
    problem(&one.room_unread::<&str>("r", None).await, 404);
    problem(&two.unread("only", false).await, 404);
    assert_eq!(
        two.unread_many(&["only"]).await.ok()["users"]["only"],
        json!(null)
    );
    sendbird_error(&two.sendbird("only", None, None).await, 400, 400_201);
    tencent_error(&two.tencent_total("only").await, 90003);
    assert_eq!(
        two.imkit_rooms("only", &[]).await.ok()["result"]["totalCount"],
        0
    );
}

/// Asks Tencent's endpoint for alice's total, with that application, administrator and signature.
async fn ask_tencent(app: &App, sdkappid: u64, admin: &str, usersig: &str) -> Reply {
    let path = format!(
        "/v4/openim/get_c2c_unread_msg_num?sdkappid={sdkappid}&identifier={admin}&usersig={}",
        escaped(usersig)
    );
    let request = app.request(Method::POST, &path);
    App::send(request.body(r#"{"To_Account":"alice"}"#)).await
}

#[tokio::test]
async fn a_credential_of_one_app_never_shows_another() {
    let (one, two) = (app(), app());
    fill(&one, 1).await;
    fill(&two, 2).await;
    let soon = now_seconds() + 3600;
    for (method, path) in [
        (Method::POST, "/badges/byRoomTags"),
        (Method::GET, "/rooms"),
    ] {
        let request = one.request(method, path);
        let request = request.header("IM-CLIENT-KEY", &one.keys.client_key);
        let foreign = imkit_token(&two.keys.jwt_secret, "alice", soon);
        imkit_error(
            &App::send(request.header("IM-Authorization", foreign)).await,
            401,
            "INVALID_TOKEN",
        );
    }
    for (sdkappid, admin, signer, code) in [
        (&one, &two.keys.admin, &two, 70014),
        (&one, &one.keys.admin, &two, 70014),
        (&two, &two.keys.admin, &one, 70014),
    ] {
        let keys = &signer.keys;
        let usersig = tencent_usersig(keys.sdkappid, &keys.secret_key, admin, now_seconds(), 3600);
        let reply = ask_tencent(&one, sdkappid.keys.sdkappid, admin, &usersig).await;
        tencent_error(&reply, code);
    }
    // With the right number but the other's key; and the other's administrator signed by ours.
    let usersig = tencent_usersig(
        one.keys.sdkappid,
        &two.keys.secret_key,
        &one.keys.admin,
        now_seconds(),
        3600,
    );
    let foreign = tencent_usersig(
        one.keys.sdkappid,
        &one.keys.secret_key,
        &two.keys.admin,
        now_seconds(),
        3600,
    );
    for (admin, usersig, code) in [
        (&one.keys.admin, usersig, 70009),
        (&two.keys.admin, foreign, 60010),
    ] {
        let reply = ask_tencent(&one, one.keys.sdkappid, admin, &usersig).await;
        tencent_error(&reply, code);
    }
    let host = format!("api-{}.sendbird.com", two.keys.application_id);
    let request = one
        .sendbird_request("alice", None, None)
        .header("Host", host);
    sendbird_error(&App::send(request).await, 400, 400_401);
}
