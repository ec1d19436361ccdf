//! What `unread demo` runs with: the example configuration, sample data, and a `redis-server` of our own, which a pod without
//! an address of Redis starts too.

pub(crate) mod private_redis;
mod sample;

pub(crate) use sample::send_sample;

use crate::config::{self, Config, ConfigError, EXAMPLE, Flags, SectionKind};

/// The sections that the environment may set: the app is the example file's, and the Redis is the demo's own.
const FROM_ENVIRONMENT: [&str; 2] = ["server", "log"];

/// What the demo sets by itself, as if the environment did. A variable of the environment wins.
const OWN: [(&str, &str); 3] = [
    // The terminal belongs to the calls to paste, and the Redis to the demo.
    ("UNREAD_LOG__LEVEL", "warn,unread::redis_setup=error"),
    // Nothing balances load to a demo.
    ("UNREAD_SERVER__DRAIN_SECONDS", "0"),
    ("UNREAD_SERVER__GRACE_SECONDS", "2"),
];

/// The demo's configuration: the example file, under the `variables` of the environment and the flags.
pub(crate) fn config(
    flags: &Flags,
    variables: Vec<(String, String)>,
    sections: &[&'static SectionKind],
) -> Result<Config, ConfigError> {
    let own = OWN.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let variables = own.into_iter().chain(variables).collect();
    config::load_text_under(EXAMPLE, &FROM_ENVIRONMENT, variables, flags, sections)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LimitScope, RateLimit};
    use crate::http;

    #[test]
    fn the_environment_and_then_the_flags_go_over_the_demos_own_settings() {
        let variables = [
            ("UNREAD_SERVER__LISTEN", "127.0.0.1:8081"),
            ("UNREAD_SERVER__ADMIN_LISTEN", "127.0.0.1:9091"),
            ("UNREAD_SERVER__GRACE_SECONDS", "7"),
            ("unread_log__level", "debug"),
            ("UNREAD_REDIS__URL", "redis://elsewhere"),
            ("UNREAD_APPS__0__ID", "other"),
            ("UNREAD_CONFIG", "/nowhere"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let flags = Flags {
            admin_listen: Some("127.0.0.1:9092".to_owned()),
            ..Flags::default()
        };
        let config = config(&flags, variables.to_vec(), &http::sections()).unwrap();
        assert_eq!(config.server.listen, "127.0.0.1:8081");
        assert_eq!(config.server.admin_listen, "127.0.0.1:9092");
        assert_eq!(config.server.drain_seconds, 0);
        assert_eq!(config.server.grace_seconds, 7);
        assert_eq!(config.log.level, "debug");
        assert!(config.redis.url.is_none());
        assert_eq!(config.apps[0].id.as_str(), "demo");
    }

    #[test]
    fn a_variable_that_names_no_setting_of_the_server_stops_the_demo() {
        let variables = vec![("UNREAD_SERVER__LISEN".to_owned(), "x".to_owned())];
        let refused = config(&Flags::default(), variables, &http::sections()).unwrap_err();
        assert!(
            refused.to_string().contains("UNREAD_SERVER__LISEN"),
            "{refused}"
        );
    }

    #[test]
    fn the_example_file_is_the_demo_app_of_the_contract() {
        let config = config(&Flags::default(), Vec::new(), &http::sections()).unwrap();
        assert_eq!(config.server.listen, "127.0.0.1:8080");
        assert_eq!(config.server.admin_listen, "127.0.0.1:9090");
        assert!(config.redis.url.is_none());
        let [app] = config.apps.as_slice() else {
            panic!("one app");
        };
        assert_eq!(app.id.as_str(), "demo");
        assert_eq!(app.server_keys[0].0, "demo-server-key");
        assert_eq!(app.users.token_secret[0].0, "demo-user-secret");
        let limit = RateLimit {
            per_second: 200,
            burst: 200,
            scope: LimitScope::Cluster,
        };
        assert_eq!(app.rate_limit, limit);
        let imkit: &http::imkit::ImkitConfig = app.section().unwrap();
        assert_eq!(imkit.client_keys[0].0, "demo-client-key");
        assert_eq!(imkit.jwt_secret.0, "demo-imkit-secret");
        let tencent: &http::tencent::TencentConfig = app.section().unwrap();
        assert_eq!(tencent.sdkappid, 1_400_000_001);
        let key = "unread-test-key-0001-not-a-real-secret";
        assert_eq!(tencent.secret_key.0, key);
        assert_eq!(tencent.admins, ["administrator"]);
        let sendbird: &http::sendbird::SendbirdConfig = app.section().unwrap();
        assert_eq!(sendbird.application_id, "DEMO-APP");
        assert_eq!(sendbird.master_token.0, "demo-master-token");
        assert_eq!(sendbird.api_tokens[0].0, "demo-api-token");
    }
}
