//! The configuration of a pod, and the credentials in it.

use std::fmt::Write as _;

use serde_json::Value;

#[derive(Clone, Copy)]
pub struct RateLimit {
    pub per_second: u32,
    pub burst: u32,
    pub scope: &'static str,
}

impl RateLimit {
    fn toml(&self) -> String {
        let Self {
            per_second,
            burst,
            scope,
        } = self;
        format!("{{ per_second = {per_second}, burst = {burst}, scope = \"{scope}\" }}")
    }
}

/// No limit at all.
const UNLIMITED: RateLimit = RateLimit {
    per_second: 0,
    burst: 1,
    scope: "pod",
};

/// All that a client of one app has to know.
#[derive(Clone)]
pub struct AppKeys {
    pub id: String,
    pub server_key: String,
    pub user_secret: String,
    pub client_key: String,
    pub jwt_secret: String,
    pub sdkappid: u64,
    pub secret_key: String,
    pub admin: String,
    pub application_id: String,
    pub master_token: String,
    pub api_token: String,
    pub rate_limit: RateLimit,
    /// What each user may ask with user tokens.
    pub users_rate_limit: RateLimit,
    /// How much of that one IMKIT user may use.
    pub user_share: f64,
}

impl AppKeys {
    fn numbered(n: usize) -> Self {
        Self {
            id: format!("app-{n}"),
            server_key: format!("server-key-of-app-{n}"),
            user_secret: format!("user-secret-of-{n}-not-a-real-one"),
            client_key: format!("client-key-of-app-{n}"),
            jwt_secret: format!("jwt-secret-of-{n}-not-a-real-one"),
            sdkappid: 1_400_000_000 + n as u64,
            secret_key: format!("tencent-secret-of-{n}-not-a-real-one"),
            admin: format!("administrator{n}"),
            application_id: format!("APP-{n}"),
            master_token: format!("master-token-of-app-{n}"),
            api_token: format!("api-token-of-app-{n}"),
            rate_limit: UNLIMITED,
            users_rate_limit: UNLIMITED,
            // Most tests ask about one user.
            user_share: 1.0,
        }
    }

    /// What must never be seen in a log.
    pub fn secrets(&self) -> [&str; 6] {
        [
            &self.server_key,
            &self.user_secret,
            &self.jwt_secret,
            &self.secret_key,
            &self.master_token,
            &self.api_token,
        ]
    }
}

/// The configuration of a pod: numbered apps, everything else as it comes.
#[derive(Clone)]
pub struct Config {
    pub apps: Vec<AppKeys>,
    /// More TOML, whole tables, for what a test needs beyond the apps.
    pub extra: String,
    /// More lines of the table `[redis]`.
    pub redis: String,
    /// More lines of the table `[server]`.
    pub server: String,
}

impl Config {
    /// So many apps without a rate limit.
    pub fn apps(count: usize) -> Self {
        Self {
            apps: (0..count).map(AppKeys::numbered).collect(),
            extra: String::new(),
            redis: String::new(),
            // All tests call from one address, and many with credentials that are refused.
            server: "refused_credentials = { burst = 1_000_000 }\n".to_owned(),
        }
    }

    /// So many apps, each with that limit.
    pub fn limited(count: usize, limit: RateLimit) -> Self {
        let mut config = Self::apps(count);
        for app in &mut config.apps {
            app.rate_limit = limit;
        }
        config
    }

    pub fn toml(&self, redis_url: &str) -> String {
        self.toml_with(&format!("url = {}", quoted(redis_url)))
    }

    /// With that in the table `[redis]`.
    pub fn toml_with(&self, redis: &str) -> String {
        // A machine with too much to do must not look like a Redis that does not answer.
        let said = [redis, &self.redis, &self.extra];
        let patient = match said.iter().any(|text| text.contains("response_timeout_ms")) {
            true => "",
            false => "response_timeout_ms = 3000\n",
        };
        let mut text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{}\n[redis]\n{redis}\n{patient}{}\n\n{}\n",
            self.server, self.redis, self.extra
        );
        for app in &self.apps {
            write!(
                text,
                "[[apps]]\nid = {}\nserver_keys = [{}]\n\
                 rate_limit = {}\n\
                 [apps.users]\ntoken_secret = [{}]\nrate_limit = {}\n\
                 [apps.imkit]\nclient_keys = [{}]\njwt_secret = {}\nuser_share = {:?}\n\
                 [apps.tencent]\nsdkappid = {}\nsecret_key = {}\nadmins = [{}]\n\
                 [apps.sendbird]\napplication_id = {}\nmaster_token = {}\napi_tokens = [{}]\n\n",
                quoted(&app.id),
                quoted(&app.server_key),
                app.rate_limit.toml(),
                quoted(&app.user_secret),
                app.users_rate_limit.toml(),
                quoted(&app.client_key),
                quoted(&app.jwt_secret),
                app.user_share,
                app.sdkappid,
                quoted(&app.secret_key),
                quoted(&app.admin),
                quoted(&app.application_id),
                quoted(&app.master_token),
                quoted(&app.api_token),
            )
            .unwrap();
        }
        text
    }
}

/// A TOML basic string; JSON's escapes are a subset of TOML's.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
