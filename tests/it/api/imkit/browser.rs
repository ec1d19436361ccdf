//! What a browser asks for a page, and whose pages can read the answers.

use reqwest::Method;

use super::{BADGES, filled};
use crate::api::imkit_error;
use crate::support::{App, Config, Pod, RedisServer, app};

#[tokio::test]
async fn wrong_methods_and_unknown_paths_are_refused_and_a_preflight_is_answered() {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_pages_of_the_origins_that_an_app_names_can_read_its_answers() {
    const OTHER: &str = "https://other.example";
    let redis = RedisServer::start();
    let config = Config::apps(2);
    let named = format!("[apps.users]\nallowed_origins = [\"{ORIGIN}\"]");
    let others = format!("[apps.users]\nallowed_origins = [\"{OTHER}\"]");
    let toml = config.toml(&redis.url());
    let (first, second) = toml.split_once("[apps.sendbird]").unwrap();
    let toml = format!(
        "{}[apps.sendbird]{}",
        first.replace("[apps.users]", &named),
        second.replace("[apps.users]", &others)
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
