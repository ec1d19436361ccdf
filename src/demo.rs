//! What `unread demo` runs with: the example configuration, sample data, and a `redis-server` of our own, which a pod without
//! an address of Redis starts too.

pub(crate) mod private_redis;
mod sample;

pub(crate) use sample::send_sample;

use crate::config::{self, Config, ConfigError, EXAMPLE, Flags, SectionKind};

/// The demo's configuration: the example file, under the flags.
pub(crate) fn config(
    flags: &Flags,
    sections: &[&'static SectionKind],
) -> Result<Config, ConfigError> {
    let mut config = config::load_text(EXAMPLE, flags, sections)?;
    // The terminal belongs to the calls to paste, and the Redis to the demo.
    config.log.level = "warn,unread::redis_setup=error".to_owned();
    // Nothing balances load to a demo.
    config.server.drain_seconds = 0;
    config.server.grace_seconds = 2;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LimitScope, RateLimit};
    use crate::http;

    #[test]
    fn the_example_file_is_the_demo_app_of_the_contract() {
        let config = config(&Flags::default(), &http::sections()).unwrap();
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
