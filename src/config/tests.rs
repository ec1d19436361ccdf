//! Layers, types, every rule of validation, and what is printed again. Defaults are tested with `settings`, credentials with
//! `secrets`.

use std::path::PathBuf;

use super::load::load_from;
use super::settings::RefusedCredentials;
use super::*;
use crate::http::imkit::ImkitConfig;
use crate::http::sections;
use crate::http::sendbird::SendbirdConfig;
use crate::http::tencent::TencentConfig;

pub(super) const APP: &str = r#"
[[apps]]
id = "a"
server_keys = ["key-a"]
[apps.imkit]
client_keys = ["client-a"]
jwt_secret = "jwt-a"
[apps.tencent]
sdkappid = 1
secret_key = "tencent-a"
[apps.sendbird]
application_id = "APP-A"
master_token = "master-a"
api_tokens = ["token-a"]
"#;

pub(super) fn with(file: &str, env: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    with_flags(file, env, Flags::default())
}

pub(super) fn with_flags(
    file: &str,
    env: &[(&str, &str)],
    mut flags: Flags,
) -> Result<Config, Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("unread.toml");
    std::fs::write(&path, file).unwrap();
    flags.file = Some(path.clone());
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load_from(&flags, env, &sections()).map_err(|error| {
        let path = path.display().to_string();
        let lines = error.0.into_iter();
        lines.map(|line| line.replace(&path, "FILE")).collect()
    })
}

pub(super) fn problems(file: &str, env: &[(&str, &str)]) -> Vec<String> {
    with(file, env).expect_err("a problem")
}

#[test]
fn the_environment_goes_over_the_file_and_flags_over_both() {
    let file = "[server]\nlisten = \"1.1.1.1:1\"\nadmin_listen = \"1.1.1.1:2\"\nworkers = 3\n";
    let env = [
        ("UNREAD_SERVER__LISTEN", "2.2.2.2:1"),
        ("unread_server__Workers", "5"),
        ("UNREAD_REDIS__URL", "redis://env"),
    ];
    let flags = Flags {
        listen: Some("3.3.3.3:1".to_owned()),
        redis_url: Some("redis://flag".to_owned()),
        data_dir: Some("/d".into()),
        ..Flags::default()
    };
    let config = with_flags(file, &env, flags).unwrap();
    assert_eq!(config.server.listen, "3.3.3.3:1");
    assert_eq!(config.server.admin_listen, "1.1.1.1:2");
    assert_eq!(config.server.workers, 5);
    assert_eq!(config.redis.url.unwrap().0, "redis://flag");
    assert_eq!(config.redis.data_dir, PathBuf::from("/d"));
}

#[test]
fn whole_apps_can_come_from_the_environment() {
    let env = [
        ("UNREAD_APPS__1__ID", "b"),
        ("UNREAD_APPS__0__ID", "007"),
        ("UNREAD_APPS__0__SERVER_KEYS", r#"["x", "y"]"#),
        ("UNREAD_APPS__0__RATE_LIMIT", "{ per_second = 5 }"),
        ("UNREAD_APPS__0__RATE_LIMIT__SCOPE", "pod"),
        ("UNREAD_APPS__0__IMKIT__CLIENT_KEYS__0", "123"),
        ("UNREAD_APPS__0__IMKIT__JWT_SECRET", "456"),
        ("UNREAD_APPS__0__TENCENT__SDKAPPID", "1400000001"),
        ("UNREAD_APPS__0__TENCENT__SECRET_KEY", "true"),
        ("UNREAD_APPS__0__TENCENT__ADMINS", "[\"root\"]"),
        ("UNREAD_APPS__0__SENDBIRD__APPLICATION_ID", "99"),
        ("UNREAD_APPS__0__SENDBIRD__MASTER_TOKEN", "1e5"),
    ];
    let config = with("", &env).unwrap();
    let [app, other] = config.apps.as_slice() else {
        panic!("two apps");
    };
    assert_eq!((app.id.as_str(), other.id.as_str()), ("007", "b"));
    let keys: Vec<&str> = app.server_keys.iter().map(|key| key.0.as_str()).collect();
    assert_eq!(keys, ["x", "y"]);
    let limit = RateLimit {
        per_second: 5,
        burst: 5,
        scope: LimitScope::Pod,
    };
    assert_eq!(app.rate_limit, limit);
    let imkit: &ImkitConfig = app.section().unwrap();
    assert_eq!(imkit.client_keys[0].0, "123");
    assert_eq!(imkit.jwt_secret.0, "456");
    let tencent: &TencentConfig = app.section().unwrap();
    assert_eq!(tencent.sdkappid, 1_400_000_001);
    assert_eq!(tencent.secret_key.0, "true");
    assert_eq!(tencent.admins, ["root"]);
    let sendbird: &SendbirdConfig = app.section().unwrap();
    assert_eq!(sendbird.application_id, "99");
    assert_eq!(sendbird.master_token.0, "1e5");
}

#[test]
fn an_environment_variable_changes_one_field_of_an_app_in_the_file() {
    let env = [("UNREAD_APPS__0__IMKIT__JWT_SECRET", "other")];
    let config = with(APP, &env).unwrap();
    let imkit: &ImkitConfig = config.apps[0].section().unwrap();
    assert_eq!(imkit.jwt_secret.0, "other");
    assert_eq!(imkit.client_keys[0].0, "client-a");
}

#[test]
fn unknown_keys_are_named_with_their_path() {
    let file = "x = 1\n[server]\nlisen = \"a\"\n[[apps]]\nid = \"a\"\n[apps.imkit]\nclient_keys=[\"k\"]\njwt_secret=\"s\"\nkey = 1\n";
    assert_eq!(
        problems(
            file,
            &[
                ("UNREAD_REDIS__URLL", "x"),
                ("UNREAD_REDSI__URL", "x"),
                ("UNREAD_LISTEN", "x")
            ]
        ),
        [
            "server.lisen: unknown key",
            "redis.urll: unknown key (from UNREAD_REDIS__URLL)",
            "apps[0].imkit.key: unknown key",
            "listen: unknown key (from UNREAD_LISTEN)",
            "redsi: unknown key (from UNREAD_REDSI__URL)",
            "x: unknown key",
        ]
    );
}

#[test]
fn a_variable_with_one_underscore_between_levels_is_told_of_two() {
    let env = [
        ("UNREAD_REDIS_URL", "redis://h"),
        ("UNREAD_HISTORY_MAX_MESSAGES", "5"),
        ("UNREAD_APPS_0_ID", "a"),
        ("UNREAD_SOMETHING_ELSE", "x"),
    ];
    const HINT: &str = "two underscores stand between levels, as in";
    assert_eq!(
        problems("", &env),
        [
            format!("apps_0_id: unknown key (from UNREAD_APPS_0_ID): {HINT} UNREAD_APPS__0__ID"),
            format!(
                "history_max_messages: unknown key (from UNREAD_HISTORY_MAX_MESSAGES): {HINT} UNREAD_HISTORY__MAX_MESSAGES"
            ),
            format!("redis_url: unknown key (from UNREAD_REDIS_URL): {HINT} UNREAD_REDIS__URL"),
            "something_else: unknown key (from UNREAD_SOMETHING_ELSE)".to_owned(),
        ]
    );
}

#[test]
fn variables_that_lead_nowhere_are_named() {
    assert_eq!(
        problems("", &[("UNREAD_APPS__1__ID", "a")]),
        ["UNREAD_APPS__1__ID: index 1 leaves a gap: there are 0 before it"]
    );
    assert_eq!(
        problems(
            "[server]\nworkers = 1\n",
            &[("UNREAD_SERVER__WORKERS__X", "a")]
        ),
        ["UNREAD_SERVER__WORKERS__X: goes into a setting that has no parts"]
    );
    assert_eq!(
        problems("", &[("UNREAD_SERVER__", "a")]),
        ["UNREAD_SERVER__: is no setting"]
    );
}

#[test]
fn variables_that_kubernetes_makes_for_a_service_of_our_name_are_no_settings() {
    let env = [
        ("UNREAD_SERVICE_HOST", "10.0.0.1"),
        ("UNREAD_SERVICE_PORT", "80"),
        ("UNREAD_SERVICE_PORT_HTTP", "80"),
        ("UNREAD_PORT", "tcp://10.0.0.1:80"),
        ("UNREAD_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("UNREAD_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("UNREAD_ADMIN_SERVICE_HOST", "10.0.0.2"),
        ("UNREAD_ADMIN_PORT_9090_TCP_PROTO", "tcp"),
    ];
    with("", &env).unwrap();
    assert_eq!(problems("", &[("UNREAD_REPORT", "x")]).len(), 1);
}

#[test]
fn the_file_can_be_named_by_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, "[history]\nmax_messages = 5\n").unwrap();
    let name = path.display().to_string();
    let config = load_from(&Flags::default(), [("UNREAD_CONFIG".to_owned(), name)], &[]).unwrap();
    assert_eq!(config.history.max_messages, 5);
    let missing = load_from(
        &Flags::default(),
        [("UNREAD_CONFIG".to_owned(), "/no/such".to_owned())],
        &[],
    );
    assert!(missing.unwrap_err().0[0].starts_with("/no/such: cannot be read: "));
}

#[test]
fn a_file_that_is_not_toml_gets_its_line_named_but_not_quoted() {
    let [line] = problems("[server]\nworkers = 1\nsecret = = hush\n", &[])
        .try_into()
        .unwrap();
    assert!(line.starts_with("FILE: line 3: "), "{line}");
    assert!(!line.contains("hush"), "{line}");
}

#[test]
fn all_problems_are_listed() {
    let file = r#"
[server]
listen = "nowhere"
workers = 5000
max_events = "many"
body_timeout_ms = -1
[redis]
connections = 0
[history]
max_age_days = 4000
text_characters = 100001
key_hours = 0
[log]
format = "xml"
level = "loud"
[[apps]]
id = "a b"
server_keys = ["", " k"]
rate_limit = { per_second = 1, burst = 0, scope = "world" }
[[apps]]
imkit = { client_keys = [] }
tencent = { sdkappid = 0, secret_key = 5, admins = [""] }
sendbird = { application_id = "a.b", master_token = "" }
"#;
    assert_eq!(
        problems(file, &[]),
        [
            "server.listen: must be host:port, such as `127.0.0.1:8080` or `[::]:8080`",
            "server.workers: must be 0 to 512",
            "server.max_events: must be an integer",
            "server.body_timeout_ms: must be 100 to 600000",
            "redis.connections: must be 1 to 64",
            "history.max_age_days: must be 1 to 3650",
            "history.text_characters: must be 0 to 100000",
            "history.key_hours: must be 1 to 8760",
            "log.format: must be `text` or `json`",
            "log.level: must be off, error, warn, info, debug or trace, or several such as `info,unread=debug`",
            "apps[0].id: must be 1 to 64 of A-Z a-z 0-9 _ . -",
            "apps[0].server_keys[0]: must not be empty",
            "apps[0].server_keys[1]: must not begin or end with a blank or hold control characters",
            "apps[0].rate_limit.burst: must be 1 to 1000000",
            "apps[0].rate_limit.scope: must be `pod` or `cluster`",
            "apps[1].id: is missing",
            "apps[1].imkit.client_keys: is missing",
            "apps[1].imkit.jwt_secret: is missing",
            "apps[1].tencent.sdkappid: must be 1 to 9223372036854775807",
            "apps[1].tencent.secret_key: must be a string",
            "apps[1].tencent.admins: must not hold an empty name",
            "apps[1].sendbird.application_id: must be 1 to 63 of A-Z a-z 0-9 - _",
            "apps[1].sendbird.master_token: must not be empty",
        ]
    );
}

#[test]
fn proxies_are_addresses_and_networks() {
    let env = [(
        "UNREAD_SERVER__TRUSTED_PROXIES",
        r#"["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"]"#,
    )];
    let file =
        "[server]\nclient_address_header = \"X-Real-IP\"\nrefused_credentials = { burst = 9 }\n";
    let server = with(file, &env).unwrap().server;
    let networks: Vec<String> = server
        .trusted_proxies
        .iter()
        .map(ToString::to_string)
        .collect();
    let expected = ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "::1/128"];
    assert_eq!(networks, expected);
    assert_eq!(server.client_address_header, "x-real-ip");
    let limit = RefusedCredentials {
        per_second: 20,
        burst: 9,
    };
    assert_eq!(server.refused_credentials, limit);
    let bad = r#"
[server]
trusted_proxies = ["10.0.0.0/33", "::1", "proxy.example"]
client_address_header = "x forwarded"
refused_credentials = { per_second = -1, burst = 0, more = 1 }
"#;
    assert_eq!(
        problems(bad, &[]),
        [
            "server.trusted_proxies[0]: must be an address or a network such as `10.0.0.0/8`",
            "server.trusted_proxies[2]: must be an address or a network such as `10.0.0.0/8`",
            "server.client_address_header: must be the name of a header, such as `x-forwarded-for` or `forwarded`",
            "server.refused_credentials.per_second: must be 0 to 1000000",
            "server.refused_credentials.burst: must be 1 to 1000000",
            "server.refused_credentials.more: unknown key",
        ]
    );
}

#[test]
fn there_is_room_for_the_longest_body_and_others() {
    let room = |file: &str| with(file, &[]).unwrap().server.max_bodies_bytes;
    assert_eq!(room("[server]\nmax_events_bytes = 1024\n"), 32 << 20);
    assert_eq!(
        room("[server]\nmax_events_bytes = 1_073_741_824\n"),
        4 << 30
    );
    assert_eq!(room("[server]\nmax_body_bytes = 67_108_864\n"), 256 << 20);
    assert_eq!(
        room("[server]\nmax_bodies_bytes = 40_000_000\n"),
        40_000_000
    );
    assert_eq!(
        problems("[server]\nmax_bodies_bytes = 33_554_431\n", &[]),
        ["server.max_bodies_bytes: must be at least 4 times max_events_bytes and max_body_bytes"]
    );
}

#[test]
fn direct_rooms_are_called_by_one_of_two_rules() {
    let ids = |env: &[(&str, &str)]| with(APP, env).map(|config| config.apps[0].direct_room_ids());
    assert_eq!(ids(&[]), Ok(DirectRoomIds::Own));
    let name = "UNREAD_APPS__0__IMKIT__DIRECT_ROOM_IDS";
    for (text, expected) in [
        ("own", DirectRoomIds::Own),
        ("imkit", DirectRoomIds::LoweredMd5),
    ] {
        assert_eq!(ids(&[(name, text)]), Ok(expected));
        let shown = effective(&with(APP, &[(name, text)]).unwrap());
        assert!(
            shown.contains(&format!("direct_room_ids = \"{text}\"")),
            "{shown}"
        );
    }
    assert!(ids(&[(name, "md5")]).is_err());
}

#[test]
fn a_users_share_is_a_part_of_the_whole() {
    let share = |text: &str| {
        let env = [("UNREAD_APPS__0__IMKIT__USER_SHARE", text)];
        let config = with(APP, &env)?;
        Ok(config.apps[0].section::<ImkitConfig>().unwrap().user_share)
    };
    for (text, expected) in [("0.25", 0.25), ("1", 1.0), ("1.0", 1.0), ("0.001", 0.001)] {
        assert_eq!(share(text), Ok(expected), "{text}");
    }
    let default = with(APP, &[]).unwrap();
    assert_eq!(
        default.apps[0].section::<ImkitConfig>().unwrap().user_share,
        0.5
    );
    for text in ["0", "0.0", "-0.5", "1.01", "2", "nan", "inf", "-1", "1e-9"] {
        let expected = vec!["apps[0].imkit.user_share: must be 0.001 to 1".to_owned()];
        assert_eq!(share(text), Err(expected), "{text}");
    }
    for text in ["half", "[1]", "true"] {
        let expected = vec!["apps[0].imkit.user_share: must be a number".to_owned()];
        assert_eq!(share(text), Err(expected), "{text}");
    }
}

#[test]
fn a_limit_of_each_user_lets_twice_as_many_calls_come_at_once() {
    let limit = |more: &str| {
        let text = format!("[[apps]]\nid = \"a\"\n[apps.users]\n{more}");
        let config = with(&text, &[])?;
        let limit = config.apps[0].users.rate_limit;
        Ok::<_, Vec<String>>((limit.per_second, limit.burst, limit.scope))
    };
    let all = LimitScope::Cluster;
    assert_eq!(limit(""), Ok((10, 20, all)));
    assert_eq!(limit("rate_limit = { per_second = 3 }"), Ok((3, 6, all)));
    assert_eq!(limit("rate_limit = { per_second = 0 }"), Ok((0, 1, all)));
    let pod = "rate_limit = { per_second = 3, burst = 1, scope = \"pod\" }";
    assert_eq!(limit(pod), Ok((3, 1, LimitScope::Pod)));
    let expected = vec!["apps[0].users.rate_limit.burst: must be 1 to 1000000".to_owned()];
    assert_eq!(limit("rate_limit = { burst = 0 }"), Err(expected));
    assert!(limit("rate_limit = { per_minute = 1 }").is_err());
}

/// Settings of weak secrets and, shortly, why.
#[test]
fn the_two_listeners_need_two_addresses() {
    let file = "[server]\nlisten = \"h:1\"\nadmin_listen = \"h:1\"\n";
    assert_eq!(
        problems(file, &[]),
        ["server.admin_listen: must differ from server.listen"]
    );
    with("[server]\nlisten = \"h:0\"\nadmin_listen = \"h:0\"\n", &[]).unwrap();
}

#[test]
fn redis_addresses_of_this_version() {
    let said = |url: &str| match with("", &[("UNREAD_REDIS__URL", url)]) {
        Ok(_) => String::new(),
        Err(lines) => lines.join("\n"),
    };
    for good in [
        "redis://h",
        "redis://h:6379/2",
        "redis://user:p:w@h:1",
        "redis://[::1]:6379/0?protocol=resp3",
        "redis+unix:///run/r.sock?db=1",
        "unix:///run/r.sock",
        "rediss://user:pw@h:6380/1",
        "redis+cluster://a,b:7001,[::1]:7002",
        "redis+cluster://user:pw@a",
        "rediss+cluster://a,b/",
        "redis+sentinel://a,b,c/mymaster",
        "redis+sentinel://:pw@a:26380/mymaster/2?sentinel_user=u&sentinel_password=pw",
        "rediss+sentinel://a/m",
    ] {
        assert_eq!(said(good), "", "{good}");
    }
    for bad in [
        "h:6379",
        "redis://",
        "redis://:hush@",
        "redis://h:port",
        "redis://h/x",
        "unix://run",
        "http://h",
        "rediss://h#insecure",
        "redis+cluster://",
        "redis+cluster://a,,b",
        "redis+cluster://:hush@a,b/3",
        "redis+cluster://a/?tls=hush",
        "redis+sentinel://a,b",
        "redis+sentinel://a/",
        "redis+sentinel://a/m/x",
        "redis+sentinel://a/m?hush=hush",
    ] {
        let line = said(bad);
        assert!(line.starts_with("redis.url: "), "{bad}: {line}");
        assert!(!line.contains("hush"), "{line}");
    }
    // The settings of TLS are told to be of no use before anybody wonders why they have none.
    let set =
        |url: &str, key: &str, file: &str| problems("", &[("UNREAD_REDIS__URL", url), (key, file)]);
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let ca = "UNREAD_REDIS__CA_FILE";
    assert!(set("redis://h", ca, here)[0].starts_with("redis.ca_file: is of use only with TLS"));
    assert!(set("rediss://h", ca, "/no/such")[0].starts_with("redis.ca_file: /no/such: cannot"));
    let key = "UNREAD_REDIS__KEY_FILE";
    assert_eq!(
        set("rediss+cluster://h", key, here),
        ["redis.cert_file: and key_file go together"]
    );
    assert!(with("", &[("UNREAD_REDIS__URL", "rediss://h"), (ca, here)]).is_ok());
}

#[test]
fn what_is_shown_can_be_read_again_and_holds_no_secret() {
    let config = with(APP, &[("UNREAD_REDIS__URL", "redis://me:hush@h:1/2")]).unwrap();
    let shown = effective(&config);
    for secret in [
        "key-a",
        "client-a",
        "jwt-a",
        "tencent-a",
        "master-a",
        "token-a",
        "hush",
    ] {
        assert!(!shown.contains(secret), "{secret} in\n{shown}");
    }
    assert!(
        shown.contains("url = \"redis://me:****@h:1/2\"\n"),
        "{shown}"
    );
    assert!(shown.contains("admins = [\"administrator\"]\n"), "{shown}");
    let again = load_text(&shown, &Flags::default(), &sections()).unwrap();
    assert_eq!(effective(&again), shown);
    assert!(!format!("{config:?}").contains("hush"));

    for (url, masked) in [
        ("redis://:hush@h", "redis://:****@h"),
        ("redis://h", "redis://h"),
        (
            "unix:///s?db=1&pass=hush&user=u",
            "unix:///s?db=1&pass=****&user=u",
        ),
        (
            "redis+sentinel://:hush@a,b/m?sentinel_password=hush",
            "redis+sentinel://:****@a,b/m?sentinel_password=****",
        ),
        ("rediss+cluster://u:hush@a,b", "rediss+cluster://u:****@a,b"),
    ] {
        let config = with("", &[("UNREAD_REDIS__URL", url)]).unwrap();
        let line = format!("url = \"{masked}\"\n");
        assert!(effective(&config).contains(&line), "{}", effective(&config));
    }
}

#[test]
fn origins_are_any_or_those_that_are_named() {
    let origins = |setting: &str| {
        let config = with(&format!("[[apps]]\nid = \"a\"\n{setting}"), &[])?;
        Ok::<_, Vec<String>>(config.apps[0].users.allowed_origins.clone())
    };
    assert_eq!(origins("").unwrap(), ["*"]);
    assert_eq!(origins("[apps.users]").unwrap(), ["*"]);
    let named = r#"users = { allowed_origins = ["https://Chat.example.com", "http://localhost:3000", "capacitor://localhost"] }"#;
    assert_eq!(
        origins(named).unwrap(),
        [
            "https://chat.example.com",
            "http://localhost:3000",
            "capacitor://localhost"
        ]
    );
    assert!(
        origins("users = { allowed_origins = [] }")
            .unwrap()
            .is_empty()
    );
    for bad in [
        "",
        "chat.example.com",
        "https://",
        "https://a/",
        "https://a/b",
        "https://a b",
        "https://*.a",
        "null",
    ] {
        let setting = format!("users = {{ allowed_origins = [\"{bad}\"] }}");
        let said = origins(&setting).unwrap_err().join("\n");
        assert!(
            said.ends_with("without a path or a slash at the end"),
            "{said}"
        );
    }
    let config = with(&format!("[[apps]]\nid = \"a\"\n{named}"), &[]).unwrap();
    let shown = effective(&config);
    assert!(
        shown.contains("[apps.users]\nallowed_origins = [\"https://chat.example.com\", "),
        "{shown}"
    );
}
