//! What the log must not show: secrets, tokens, queries, ids, texts — whatever a request says and however it ends.

use reqwest::Method;
use serde_json::json;

use super::problem;
use crate::support::{
    App, Config, Own, Pod, Wait, escaped, imkit_token, now_seconds, tencent_usersig, until,
};

#[tokio::test]
async fn no_log_line_tells_who_asked_what() {
    let (app, pod, mut redis) = Own::start("[log]\nlevel = \"debug\"\n").parts();
    let keys = &app.keys;
    // Any of these in a line, plain or encoded, is a leak.
    let [user, room, id, tag, kind, text, query, path] = [
        "user", "room", "message", "tag", "type", "text", "query", "path",
    ]
    .map(|what| format!("MARKED-{what}"));
    let token = imkit_token(&keys.jwt_secret, &user, now_seconds() + 3600);
    let usersig = tencent_usersig(
        keys.sdkappid,
        &keys.secret_key,
        &keys.admin,
        now_seconds(),
        3600,
    );

    let mut asked = 0;
    for down in [false, true] {
        if down {
            redis.stop();
        }
        let events = json!([
            {"type": "room.updated", "room": room, "tags": [tag], "custom_type": kind, "name": text},
            {"type": "member.joined", "room": room, "user": user},
            {"type": "message.sent", "room": room, "id": id, "sender": user, "text": text, "mentions": [user]},
            {"type": "message.sent", "room": format!("{room}-2"), "id": id},
            {"type": "message.sent", "to": user, "sender": format!("{user}-2"), "id": id},
            {"type": "user.updated", "user": 17, query.clone(): 1},
            {"type": query, "user": user},
        ]);
        app.events(&events, Wait::Applied).await;
        app.unread(&user, true).await;
        app.unread_many(&[&user]).await;
        app.room_unread(&room, Some(&[&user])).await;
        app.imkit_badges(&user, Some(&[&tag])).await;
        app.imkit_rooms(&user, &[("q".to_owned(), json!({"_id": room}).to_string())])
            .await;
        app.imkit_rooms(&user, &[("q".to_owned(), query.clone())])
            .await;
        app.tencent_total(&user).await;
        app.tencent_peers(&user, &[&format!("{user}-2")]).await;
        app.sendbird(&user, None, Some(&kind)).await;
        asked += 10;

        let get = |path: String| app.request(Method::GET, &path);
        let post = |path: String| app.request(Method::POST, &path);
        for request in [
            // Bad bodies and bad queries, with the right credentials.
            app.native(Method::POST, "/v1/events")
                .body(format!("{{\"type\": {text}")),
            app.native(Method::POST, &format!("/v1/events?wait={query}"))
                .body("[]"),
            app.native(
                Method::GET,
                &format!("/v1/users/{user}/unread?include={query}"),
            ),
            app.imkit(Method::POST, "/badges/byRoomTags", &user)
                .body(text.clone()),
            app.tencent(&json!({"To_Account": [user]})),
            app.sendbird_request(&user, Some(&query), None),
            // Right credentials in wrong places, wrong ones in right places.
            get(format!("/{path}?token={token}&key={}", keys.server_key)),
            get(format!("/v1/users/{user}/{path}")),
            post(format!("/v1/events?key={}", keys.server_key)).bearer_auth(&query),
            post("/v1/events".to_owned()).bearer_auth(format!("{}x", keys.server_key)),
            get(format!("/rooms/{path}")).header("IM-CLIENT-KEY", &keys.client_key),
            get("/rooms".to_owned())
                .header("IM-CLIENT-KEY", &query)
                .header("IM-Authorization", &token),
            get("/rooms".to_owned())
                .header("IM-CLIENT-KEY", &keys.client_key)
                .header("IM-Authorization", format!("{token}x")),
            post(format!("/v4/openim/{path}?usersig={}", escaped(&usersig))),
            post(format!(
                "/v4/openim/get_c2c_unread_msg_num?sdkappid={}&identifier={user}&usersig={}",
                keys.sdkappid,
                escaped(&usersig)
            )),
            get(format!("/v3/users/{user}/{path}")).header("Api-Token", &keys.api_token),
            get(format!("/v3/users/{user}/unread_item_count"))
                .header("Api-Token", format!("{}x", keys.api_token)),
            get(format!("/v3/users/{user}/unread_item_count"))
                .header("Api-Token", &keys.api_token)
                .header("Host", format!("api-{path}.sendbird.com")),
            // Headers that end up in many a log.
            get("/v1".to_owned())
                .header("Referer", &query)
                .header("User-Agent", &query)
                .header("X-Forwarded-For", &query)
                .header("X-Request-Id", format!("\"{query}\""))
                .header("Traceparent", &query),
            app.request(Method::from_bytes(b"MARKED-METHOD").unwrap(), "/v1/events"),
        ] {
            App::send(request).await;
            asked += 1;
        }
    }
    problem(&app.unread(&user, false).await, 503);
    asked += 1;

    // Each request has its line, so what is not found below was not merely late.
    until("a line for each request", || {
        let lines = pod
            .log()
            .iter()
            .filter(|line| line.contains("\"message\":\"request\""))
            .count();
        (lines == asked).then_some(())
    });
    let mut secrets = keys.secrets().to_vec();
    secrets.extend([
        keys.client_key.as_str(),
        "MARKED",
        &token,
        &usersig,
        &usersig[..40],
        &token[..40],
    ]);
    for line in pod.log() {
        for secret in &secrets {
            assert!(!line.contains(secret), "the log shows {secret}: {line}");
        }
    }
}

#[test]
fn a_redis_that_is_not_there_is_named_without_its_password() {
    let config = Config::apps(1);
    // Port 1 is nobody's.
    let pod = Pod::start_unready(&config, "redis://somebody:MARKED-password@127.0.0.1:1/0");
    until("a line about Redis", || {
        pod.log()
            .iter()
            .any(|line| line.contains("redis"))
            .then_some(())
    });
    assert_eq!(pod.admin_status("/readyz"), Some(503));
    let log = pod.log().join("\n");
    assert!(!log.contains("MARKED"), "{log}");
}
