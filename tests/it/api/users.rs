//! The calls of users' own devices: user tokens, and pages of other origins.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::problem;
use crate::support::{
    App, Config, Pod, RedisServer, Reply, app, imkit_token_of, now_seconds, user_token,
};

const PATH: &str = "/v1/me/unread";
const ORIGIN: &str = "https://chat.example";

async fn filled() -> App {
    let app = app();
    app.must(&json!([
        {"type": "room.updated", "room": "r", "tags": ["t"]},
        {"type": "member.joined", "room": "r", "users": ["alice", "bob"]},
        {"type": "message.sent", "room": "r", "id": "1", "sender": "bob", "mentions": ["alice"]},
    ]))
    .await;
    app
}

fn with(app: &App, token: &str) -> RequestBuilder {
    app.request(Method::GET, PATH).bearer_auth(token)
}

#[tokio::test]
async fn a_user_is_answered_the_same_as_the_back_end_is() {
    let app = filled().await;
    for query in ["", "?include=rooms", "?only=unread&limit=1"] {
        for user in ["alice", "bob"] {
            let path = format!("/v1/users/{user}/unread{query}");
            let expected = App::send(app.native(Method::GET, &path)).await.ok();
            let reply = App::send(app.me(query, user)).await;
            assert_eq!(reply.ok(), expected, "{user}{query}");
        }
    }
    problem(&App::send(app.me("", "nobody")).await, 404);
    problem(&App::send(app.me("?user=bob", "alice")).await, 400);
    problem(&App::send(app.me("?include=x", "alice")).await, 400);
    let tag = App::send(app.me("", "alice")).await.headers["etag"].clone();
    let again = app.me("", "alice").header("If-None-Match", &tag);
    assert_eq!(App::send(again).await.status, 304);
    // Another user's tag says nothing of this one.
    let other = app.me("", "bob").header("If-None-Match", &tag);
    assert_eq!(App::send(other).await.status, 200);
}

#[tokio::test]
async fn only_a_user_token_lets_in_and_only_here() {
    let app = filled().await;
    let (keys, soon) = (&app.keys, now_seconds() + 3600);
    let secret = &keys.user_secret;
    let good = user_token(secret, "alice", soon);
    let basic = app
        .request(Method::GET, PATH)
        .header("Authorization", format!("Basic {good}"));
    for (what, request) in [
        ("nothing", app.request(Method::GET, PATH)),
        ("another scheme", basic),
        (
            "no scheme",
            app.request(Method::GET, PATH)
                .header("Authorization", &good),
        ),
        ("a server key", with(&app, &keys.server_key)),
        (
            "another secret",
            with(&app, &user_token("another", "alice", soon)),
        ),
        (
            "another dialect's secret",
            with(&app, &user_token(&keys.jwt_secret, "alice", soon)),
        ),
        (
            "another claim",
            with(
                &app,
                &imkit_token_of(secret, &json!({"id": "alice", "exp": soon})),
            ),
        ),
        (
            "no end",
            with(&app, &imkit_token_of(secret, &json!({"sub": "alice"}))),
        ),
        (
            "an end that has come",
            with(&app, &user_token(secret, "alice", now_seconds())),
        ),
        ("no user", with(&app, &user_token(secret, "", soon))),
        ("what is cut", with(&app, &good[..good.len() - 1])),
        (
            "a parameter",
            app.request(Method::GET, &format!("{PATH}?token={good}")),
        ),
    ] {
        let reply = App::send(request).await;
        assert_eq!(reply.status, 401, "{what}: {reply:?}");
        problem(&reply, 401);
    }
    // One of the app's own says what is wrong. As JavaScript has the time:
    let in_milliseconds = user_token(secret, "alice", soon * 1_000);
    for (token, why) in [
        (user_token(secret, "alice", 1), "the token has expired"),
        (in_milliseconds, "exp must be in seconds since the epoch"),
    ] {
        let reply = App::send(with(&app, &token)).await;
        problem(&reply, 401);
        let detail = reply.body["detail"].as_str().unwrap();
        assert!(detail.contains(why), "{detail}");
    }
    App::send(with(&app, &good)).await.ok();
    for path in ["/v1/users/alice/unread", "/v1/rooms/r/unread"] {
        let request = app.request(Method::GET, path).bearer_auth(&good);
        problem(&App::send(request).await, 401);
    }
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let reply = App::send(app.request(method, PATH).bearer_auth(&good)).await;
        problem(&reply, 405);
        assert_eq!(reply.header("allow"), Some("GET, HEAD, OPTIONS"));
    }
}

/// Two apps, of which the first has two secrets; the third takes no user tokens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_says_which_app_is_meant_and_older_secrets_stay_good() {
    let redis = RedisServer::start();
    let config = Config::apps(3);
    let [one, two, three] = [0, 1, 2].map(|n| config.apps[n].clone());
    let toml = config.toml(&redis.url());
    let listed = |secret: &str| format!("token_secret = [\"{secret}\"]");
    let older = "the-older-secret-of-the-first-app";
    let both = format!("token_secret = [\"{}\", \"{older}\"]", one.user_secret);
    let toml = toml.replace(&listed(&one.user_secret), &both);
    let toml = toml.replace(&listed(&three.user_secret), "");
    let pod = Pod::start_toml(&toml);
    let apps = [&one, &two, &three].map(|keys| App::new(keys, &pod.base));
    for (n, app) in apps.iter().enumerate() {
        for id in 0..=n {
            app.must(&json!({"type": "message.sent", "to": "alice", "sender": "bob", "id": id.to_string()}))
                .await;
        }
    }
    let total = |reply: Reply| reply.ok()["messages"]["total"].clone();
    let soon = now_seconds() + 3600;
    for (secret, expected) in [(&*one.user_secret, 1), (older, 1), (&*two.user_secret, 2)] {
        // By way of whichever client: the token alone counts.
        let token = user_token(secret, "alice", soon);
        for app in &apps {
            assert_eq!(total(App::send(with(app, &token)).await), json!(expected));
        }
    }
    let token = user_token(&three.user_secret, "alice", soon);
    problem(&App::send(with(&apps[2], &token)).await, 401);
}

#[tokio::test]
async fn a_page_of_another_origin_may_ask_and_read() {
    let app = filled().await;
    let preflight = app
        .request(Method::OPTIONS, PATH)
        .header("Origin", ORIGIN)
        .header("Access-Control-Request-Method", "GET")
        .header(
            "Access-Control-Request-Headers",
            "authorization,if-none-match",
        );
    let reply = App::send(preflight).await;
    assert_eq!((reply.status, reply.text.as_str()), (204, ""));
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    let allowed = reply.header("access-control-allow-headers");
    assert_eq!(allowed, Some("authorization, if-none-match"));
    let methods = reply.header("access-control-allow-methods").unwrap();
    assert!(
        methods.split(", ").any(|method| method == "GET"),
        "{methods}"
    );
    // Also what is refused, so that the page can tell.
    let tag = App::send(app.me("", "alice")).await.headers["etag"].clone();
    for (status, request) in [
        (200, app.me("", "alice")),
        (304, app.me("", "alice").header("If-None-Match", tag)),
        (400, app.me("?x=1", "alice")),
        (401, app.request(Method::GET, PATH)),
        (404, app.me("", "nobody")),
        (404, app.request(Method::GET, "/v1/me/nothing")),
        (405, app.request(Method::POST, PATH)),
    ] {
        let reply = App::send(request.header("Origin", ORIGIN)).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(
            reply.header("access-control-allow-origin"),
            Some("*"),
            "{reply:?}"
        );
        let exposed = reply.header("access-control-expose-headers").unwrap();
        assert!(exposed.split(", ").any(|name| name == "ETag"), "{exposed}");
    }
    // Not what takes server keys.
    for (method, path) in [
        (Method::OPTIONS, "/v1/unread"),
        (Method::GET, "/v1/users/alice/unread"),
    ] {
        let request = app.native(method, path).header("Origin", ORIGIN);
        let request = request.header("Access-Control-Request-Method", "POST");
        let reply = App::send(request).await;
        assert_eq!(
            reply.header("access-control-allow-origin"),
            None,
            "{reply:?}"
        );
    }
    // No preflight, since it does not ask for a method.
    problem(&App::send(app.request(Method::OPTIONS, PATH)).await, 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_pages_of_the_origins_that_the_app_names_may_read() {
    const OTHER: &str = "https://other.example";
    let redis = RedisServer::start();
    let config = Config::apps(3);
    let mut toml = config.toml(&redis.url());
    for (keys, origin) in config
        .apps
        .iter()
        .zip([ORIGIN, OTHER, "https://none.example"])
    {
        let line = format!("token_secret = [\"{}\"]", keys.user_secret);
        let named = format!("allowed_origins = [\"{origin}\"]");
        // The third app takes no user tokens.
        let lines = match origin.contains("none") {
            true => named,
            false => format!("{line}\n{named}"),
        };
        toml = toml.replace(&line, &lines);
    }
    let pod = Pod::start_toml(&toml);
    let app = App::new(&config.apps[0], &pod.base);
    app.must(&json!({"type": "user.updated", "user": "alice"}))
        .await;
    let allowed = |reply: &Reply| {
        assert_eq!(reply.header("vary"), Some("Origin"), "{reply:?}");
        reply
            .header("access-control-allow-origin")
            .map(str::to_owned)
    };
    for (origin, own, any) in [
        (ORIGIN, true, true),
        (OTHER, false, true),
        ("https://none.example", false, false),
        ("https://third.example", false, false),
    ] {
        let expected = |is: bool| is.then(|| origin.to_owned());
        let reply = App::send(app.me("", "alice").header("Origin", origin)).await;
        assert_eq!(
            (reply.status, allowed(&reply)),
            (200, expected(own)),
            "{origin}"
        );
        // Whose call it is nobody knows.
        let stranger = app.request(Method::GET, PATH).header("Origin", origin);
        let reply = App::send(stranger).await;
        assert_eq!(
            (reply.status, allowed(&reply)),
            (401, expected(any)),
            "{origin}"
        );
        let preflight = app
            .request(Method::OPTIONS, PATH)
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "GET");
        let reply = App::send(preflight).await;
        assert_eq!(
            (reply.status, allowed(&reply)),
            (204, expected(any)),
            "{origin}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_and_calls_are_counted() {
    let redis = RedisServer::start();
    let config = Config::apps(1);
    let pod = Pod::start(&config, &redis);
    let app = App::new(&config.apps[0], &pod.base);
    app.must(&json!({"type": "user.updated", "user": "alice"}))
        .await;
    let count = |outcome: &str, of: &str| {
        let name = format!(
            "unread_requests_total{{app=\"{of}\",endpoint=\"native_me_unread\",outcome=\"{outcome}\"}}"
        );
        pod.metric::<u64>(&name).unwrap_or_default()
    };
    let secret = &app.keys.user_secret;
    let tag = App::send(app.me("", "alice")).await.headers["etag"].clone();
    for (request, status) in [
        (app.me("", "alice").header("If-None-Match", tag), 304),
        (app.me("", "nobody"), 404),
        (app.request(Method::GET, PATH), 401),
        (with(&app, &user_token(secret, "alice", 1)), 401),
    ] {
        assert_eq!(App::send(request).await.status, status);
    }
    let own = app.keys.id.as_str();
    assert_eq!((count("ok", own), count("not_found", own)), (2, 1));
    assert_eq!(count("unauthorized", ""), 2);
    let refused = pod.metric::<u64>(r#"unread_auth_failures_total{reason="native"}"#);
    assert_eq!(refused, Some(2));
    let _: Value = app.unread("alice", false).await.ok();
}
