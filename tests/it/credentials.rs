//! Credentials that are refused again and again: what the address they come from is told, and whom that must not concern.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{
    App, Config, Own, Pod, RedisServer, Reply, imkit_token, now_seconds, tencent_usersig,
    user_token,
};

/// Three at once and hardly any more.
const TIGHT: &str = "refused_credentials = { per_second = 1, burst = 3 }\n";

struct Scene {
    _redis: RedisServer,
    pod: Pod,
    app: App,
}

async fn scene(server: &str) -> Scene {
    let mut config = Config::apps(1);
    config.server = server.to_owned();
    let (app, pod, redis) = Own::with(config).parts();
    app.must(&json!({"type": "user.updated", "user": "alice"}))
        .await;
    Scene {
        _redis: redis,
        pod,
        app,
    }
}

/// A call with a credential that nobody was given, and what its dialect says to it.
#[derive(Clone, Copy, Debug)]
enum Dialect {
    Native,
    UserToken,
    ImkitKey,
    ImkitToken,
    Tencent,
    Sendbird,
}

const ALL: [Dialect; 6] = [
    Dialect::Native,
    Dialect::UserToken,
    Dialect::ImkitKey,
    Dialect::ImkitToken,
    Dialect::Tencent,
    Dialect::Sendbird,
];

impl Dialect {
    fn bad(self, app: &App, n: usize) -> RequestBuilder {
        let soon = now_seconds() + 3_600;
        let guess = format!("guess-{n}");
        match self {
            Dialect::Native => app
                .request(Method::GET, "/v1/users/alice/unread")
                .bearer_auth(guess),
            Dialect::UserToken => app
                .request(Method::GET, "/v1/me/unread")
                .bearer_auth(user_token(&guess, "alice", soon)),
            Dialect::ImkitKey => app
                .request(Method::POST, "/badges/byRoomTags")
                .header("IM-CLIENT-KEY", guess),
            Dialect::ImkitToken => app
                .request(Method::GET, "/rooms")
                .header("IM-CLIENT-KEY", &app.keys.client_key)
                .header("IM-Authorization", imkit_token(&guess, "alice", soon)),
            Dialect::Tencent => {
                let (id, admin) = (app.keys.sdkappid, &app.keys.admin);
                let usersig = tencent_usersig(id, &guess, admin, now_seconds(), 3_600);
                app.request(
                    Method::POST,
                    &format!(
                        "/v4/openim/get_c2c_unread_msg_num?sdkappid={id}&identifier={admin}&usersig={usersig}"
                    ),
                )
            }
            Dialect::Sendbird => app
                .request(Method::GET, "/v3/users/alice/unread_item_count")
                .header("Api-Token", guess),
        }
    }

    fn is_refusal(self, reply: &Reply) -> bool {
        match self {
            Dialect::Native | Dialect::UserToken => reply.status == 401,
            Dialect::ImkitKey => reply.status == 403,
            Dialect::ImkitToken => reply.status == 401,
            Dialect::Tencent => reply.body["ErrorCode"] == 70009,
            Dialect::Sendbird => reply.status == 400 && reply.body["code"] == 400_401,
        }
    }

    /// In the dialect's own words, with the time to wait.
    fn is_too_many(self, reply: &Reply) -> bool {
        let said = match self {
            Dialect::Native | Dialect::UserToken => {
                reply.status == 429
                    && reply.header("content-type") == Some("application/problem+json")
                    && reply.body["status"] == 429
            }
            Dialect::ImkitKey | Dialect::ImkitToken => {
                reply.status == 429
                    && reply.body["RC"] == 429
                    && reply.body["error"]["code"] == "RATE_LIMIT_EXCEEDED"
                    && reply.header("access-control-allow-origin") == Some("*")
            }
            Dialect::Tencent => {
                reply.status == 200
                    && reply.body["ErrorCode"] == 60007
                    && reply.body["ActionStatus"] == "FAIL"
            }
            Dialect::Sendbird => {
                reply.status == 429 && reply.body["code"] == 500_910 && reply.body["error"] == true
            }
        };
        said && reply.header("retry-after") == Some("1")
    }

    /// The same with a good one.
    async fn good(self, app: &App) -> Value {
        match self {
            Dialect::Native => app.unread("alice", false).await.ok(),
            Dialect::UserToken => App::send(app.me("", "alice")).await.ok(),
            Dialect::ImkitKey => app.imkit_badges::<&str>("alice", None).await.ok(),
            Dialect::ImkitToken => app.imkit_rooms("alice", &[]).await.ok(),
            Dialect::Tencent => {
                let reply = app.tencent_total("alice").await.ok();
                assert_eq!(reply["ErrorCode"], 0, "{reply}");
                reply
            }
            Dialect::Sendbird => app.sendbird("alice", None, None).await.ok(),
        }
    }
}

#[tokio::test]
async fn too_many_refusals_are_told_in_each_dialect_and_good_credentials_pass() {
    for dialect in ALL {
        let scene = scene(TIGHT).await;
        let app = &scene.app;
        let mut refused = 0;
        let mut too_many = 0;
        for n in 0..30 {
            let reply = App::send(dialect.bad(app, n)).await;
            match (dialect.is_refusal(&reply), dialect.is_too_many(&reply)) {
                (true, false) => refused += 1,
                (false, true) => too_many += 1,
                _ => panic!("{dialect:?}: {reply:?}"),
            }
            assert!(n >= 3 || too_many == 0, "{dialect:?}: {reply:?}");
        }
        // Three, and one more a second.
        assert!(refused >= 3 && too_many >= 10, "{dialect:?}: {too_many}");
        // The same address, at the same time, with credentials that this pod has not seen yet.
        for good in ALL {
            good.good(app).await;
        }
        let over = scene
            .pod
            .metric::<u64>(r#"unread_rate_limited_total{stage="address"}"#);
        assert_eq!(over, Some(too_many), "{dialect:?}");
    }
}

/// A thousand devices behind one address whose tokens expire at the same time all have to hear that.
#[tokio::test]
async fn an_expired_token_is_not_counted_as_a_guess() {
    let scene = scene(TIGHT).await;
    let app = &scene.app;
    let keys = &app.keys;
    for n in 0..20 {
        let token = imkit_token(&keys.jwt_secret, &format!("user-{n}"), now_seconds() - 1);
        let request = app
            .request(Method::GET, "/rooms")
            .header("IM-CLIENT-KEY", &keys.client_key)
            .header("IM-Authorization", token);
        let reply = App::send(request).await;
        assert_eq!(reply.status, 401, "{reply:?}");

        let token = user_token(&keys.user_secret, &format!("user-{n}"), now_seconds() - 1);
        let request = app.request(Method::GET, "/v1/me/unread").bearer_auth(token);
        let reply = App::send(request).await;
        assert_eq!(reply.status, 401, "{reply:?}");

        let usersig = tencent_usersig(
            keys.sdkappid,
            &keys.secret_key,
            &keys.admin,
            now_seconds() - 3_600 - n,
            1_800,
        );
        let path = format!(
            "/v4/openim/get_c2c_unread_msg_num?sdkappid={}&identifier={}&usersig={usersig}",
            keys.sdkappid, keys.admin
        );
        let reply = App::send(app.request(Method::POST, &path)).await;
        assert_eq!(reply.body["ErrorCode"], 70001, "{reply:?}");
    }
    let reply = App::send(Dialect::Sendbird.bad(app, 0)).await;
    assert!(Dialect::Sendbird.is_refusal(&reply), "{reply:?}");
}

async fn forwarded(scene: &Scene, value: &str) -> bool {
    let request = Dialect::Native
        .bad(&scene.app, 0)
        .header("X-Forwarded-For", value);
    let reply = App::send(request).await;
    let too_many = Dialect::Native.is_too_many(&reply);
    assert!(too_many || Dialect::Native.is_refusal(&reply), "{reply:?}");
    too_many
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_caller_is_counted_by_itself() {
    let proxied = format!("{TIGHT}trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n");
    let scene = scene(&proxied).await;
    let mut too_many = false;
    for n in 0..30 {
        // What the caller itself writes in front changes nothing.
        too_many = forwarded(&scene, &format!("6.6.6.{n}, 203.0.113.1, 10.0.0.9")).await;
    }
    assert!(too_many);
    assert!(!forwarded(&scene, "203.0.113.2, 10.0.0.9").await);
    assert!(!forwarded(&scene, "2001:db8::1").await);
    // All of a /64 is one caller.
    for n in 0..30 {
        too_many = forwarded(&scene, &format!("2001:db8::{n:x}")).await;
    }
    assert!(too_many);
    assert!(!forwarded(&scene, "2001:db8:0:1::1").await);
}

#[tokio::test]
async fn without_a_trusted_proxy_the_header_is_not_believed() {
    let scene = scene(TIGHT).await;
    let mut too_many = false;
    for n in 0..30 {
        too_many = forwarded(&scene, &format!("203.0.113.{n}")).await;
    }
    assert!(too_many);
}
