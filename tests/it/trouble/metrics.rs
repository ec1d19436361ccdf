//! One word for each outcome in the metrics, whatever the dialect answers.

use serde_json::json;

use super::{event, outcomes, seen};
use crate::support::{App, Config, Own, Pod, RateLimit, RedisServer, eventually, raw, until};

/// Every refusal of every dialect under its true word, whatever its status.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_counted_under_its_true_word() {
    let (app, pod, _redis) = Own::start("").parts();
    let id = app.keys.id.clone();
    app.must(&event("first")).await;
    assert_eq!(seen(&pod, &id, "native_events"), [("ok".to_owned(), 1)]);

    // (endpoint, whether it is known whose call it is, outcome, request)
    let post = reqwest::Method::POST;
    let get = reqwest::Method::GET;
    let tencent = "/v4/openim/get_c2c_unread_msg_num";
    let sendbird = "/v3/users/alice/unread_item_count";
    let badges = "/badges/byRoomTags";
    let requests = [
        (
            "tencent_unread",
            true,
            "ok",
            app.tencent(&json!({"To_Account": "alice"})),
        ),
        (
            "tencent_unread",
            true,
            "not_found",
            app.tencent(&json!({"To_Account": "nobody"})),
        ),
        (
            "tencent_unread",
            true,
            "bad_request",
            app.tencent(&json!({"To_Account": 1})),
        ),
        (
            "tencent_unread",
            true,
            "bad_request",
            app.tencent(&json!({})),
        ),
        (
            "tencent_unread",
            false,
            "unauthorized",
            app.request(post.clone(), tencent),
        ),
        (
            "tencent_unread",
            false,
            "bad_request",
            app.request(get.clone(), tencent),
        ),
        (
            "unknown",
            false,
            "not_found",
            app.request(post.clone(), "/v4/openim/other"),
        ),
        (
            "sendbird_unread_item_count",
            true,
            "ok",
            app.sendbird_request("alice", None, None),
        ),
        (
            "sendbird_unread_item_count",
            true,
            "not_found",
            app.sendbird_request("nobody", None, None),
        ),
        (
            "sendbird_unread_item_count",
            true,
            "bad_request",
            app.sendbird_request("alice", Some("x"), None),
        ),
        (
            "sendbird_unread_item_count",
            false,
            "unauthorized",
            app.request(get.clone(), sendbird),
        ),
        (
            "unknown",
            false,
            "not_found",
            app.request(get.clone(), "/v3/other"),
        ),
        (
            "imkit_badges",
            true,
            "ok",
            app.imkit(post.clone(), badges, "alice"),
        ),
        (
            "imkit_badges",
            true,
            "bad_request",
            app.imkit(post.clone(), badges, "alice").body("[]"),
        ),
        (
            "imkit_badges",
            false,
            "unauthorized",
            app.request(post.clone(), badges),
        ),
        (
            "imkit_rooms",
            true,
            "bad_request",
            app.imkit(get.clone(), "/rooms?limit=x", "alice"),
        ),
        (
            "unknown",
            false,
            "not_found",
            app.request(get.clone(), "/rooms/other"),
        ),
        (
            "native_user_unread",
            true,
            "not_found",
            app.native(get.clone(), "/v1/users/nobody/unread"),
        ),
        (
            "native_events",
            true,
            "bad_request",
            app.native(post.clone(), "/v1/events").body("{"),
        ),
        (
            "native_events",
            false,
            "unauthorized",
            app.request(post.clone(), "/v1/events"),
        ),
        (
            "native_events",
            false,
            "bad_request",
            app.native(get.clone(), "/v1/events"),
        ),
        ("unknown", false, "not_found", app.native(get, "/other")),
    ];
    for (endpoint, known, outcome, request) in requests {
        let of = if known { id.as_str() } else { "" };
        let before = outcomes(&pod, of, endpoint, outcome);
        let reply = App::send(request).await;
        let after = outcomes(&pod, of, endpoint, outcome);
        let counted = before.zip(after).map(|(before, after)| after - before);
        assert_eq!(
            counted,
            Some(1),
            "{endpoint} {outcome}: {} {}",
            reply.status,
            reply.text
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_over_its_limit_is_counted_as_limited_in_every_dialect() {
    let limit = RateLimit {
        per_second: 1,
        burst: 1,
        scope: "pod",
    };
    let config = Config::limited(1, limit);
    let (app, pod, _redis) = Own::with(config).parts();
    app.must(&event("first")).await;
    let post = reqwest::Method::POST;
    for (endpoint, request) in [
        (
            "tencent_unread",
            app.tencent(&json!({"To_Account": "alice"})),
        ),
        (
            "sendbird_unread_item_count",
            app.sendbird_request("alice", None, None),
        ),
        (
            "imkit_badges",
            app.imkit(post, "/badges/byRoomTags", "alice"),
        ),
        (
            "imkit_rooms",
            app.imkit(reqwest::Method::GET, "/rooms", "alice"),
        ),
    ] {
        eventually("a call over the limit", || async {
            App::send(request.try_clone().unwrap()).await;
            let limited = outcomes(&pod, &app.keys.id, endpoint, "limited");
            (limited > Some(0))
                .then_some(())
                .ok_or(format!("{endpoint}: {limited:?}"))
        })
        .await;
    }
}

/// What this pod refuses because it has too much to do is not the fault of Redis, be the words the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_to_do_is_counted_as_overload() {
    let mut config = Config::apps(1);
    config.server.push_str("max_reads = 1\n");
    let (app, pod, redis) = Own::with(config).parts();
    let id = &app.keys.id;
    app.must(&event("first")).await;
    redis.freeze();
    let calls = (0..10).map(|_| app.tencent_total("alice"));
    for reply in futures_util::future::join_all(calls).await {
        assert_eq!(
            (reply.status, &reply.body["ErrorCode"]),
            (200, &json!(91000))
        );
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    redis.thaw();
    let overloaded = outcomes(&pod, id, "tencent_unread", "overloaded");
    let late = outcomes(&pod, id, "tencent_unread", "redis");
    assert!(
        overloaded > Some(0) && late > Some(0),
        "{overloaded:?} {late:?}"
    );
    assert_eq!(overloaded.zip(late).map(|(a, b)| a + b), Some(10));
}

/// A connection that has no place is answered, so it counts, too.
#[test]
fn a_connection_too_many_is_counted_as_overload() {
    let redis = RedisServer::start();
    let mut config = Config::apps(1);
    config.server.push_str("max_connections = 1\n");
    let pod = Pod::start(&config, &redis);
    let address = pod.address();
    let _first = std::net::TcpStream::connect(address).unwrap();
    until("one is refused", || {
        let _ = raw(
            address,
            b"GET /v1/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        );
        (outcomes(&pod, "", "none", "overloaded")? > 0).then_some(())
    });
}

/// The families of `/metrics` that have a number.
fn families(pod: &Pod) -> Vec<String> {
    let metrics = pod.admin_get("/metrics").unwrap();
    let typed = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let typed = typed.filter_map(|line| line.split(' ').next());
    let filled = typed.filter(|name| metrics.lines().any(|line| line.starts_with(name)));
    filled.map(ToOwned::to_owned).collect()
}

/// An alert on a counter that comes with its first failure would miss that one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_outcome_is_there_from_the_start() {
    let redis = RedisServer::start();
    let config = Config::apps(2);
    let pod = Pod::start(&config, &redis);
    let at_first = families(&pod);
    for app in &config.apps {
        for endpoint in [
            "imkit_badges",
            "imkit_rooms",
            "tencent_unread",
            "sendbird_unread_item_count",
            "native_events",
            "native_unread",
            "native_user_unread",
            "native_me_unread",
            "native_live",
            "native_live_js",
            "native_room",
            "native_room_members",
            "native_room_unread",
        ] {
            for outcome in [
                "ok",
                "bad_request",
                "unauthorized",
                "not_found",
                "limited",
                "overloaded",
                "redis",
                "internal",
            ] {
                let count = outcomes(&pod, &app.id, endpoint, outcome);
                assert_eq!(count, Some(0), "{} {endpoint} {outcome}", app.id);
            }
        }
    }
    assert_eq!(outcomes(&pod, "", "unknown", "not_found"), Some(0));
    assert_eq!(outcomes(&pod, "", "none", "bad_request"), Some(0));

    // Calls bring nothing new, only numbers.
    let app = App::new(&config.apps[0], &pod.base);
    app.must(&event("first")).await;
    let stranger = app.request(reqwest::Method::GET, "/v1/users/alice/unread");
    assert_eq!(App::send(stranger).await.status, 401);
    assert_eq!(app.tencent_total("alice").await.status, 200);
    assert_eq!(families(&pod), at_first);
}
