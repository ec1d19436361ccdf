//! `check-config`: a file with what the environment adds, and each mistake in it.

use super::{REDIS, check, file, parsed};
use crate::support::{Config, Pod, RedisServer, run, unread};

#[test]
fn a_valid_file_is_printed_whole_and_without_secrets() {
    let mut config = Config::apps(1);
    config.extra =
        "[history]\nmax_messages = 77\nmax_age_days = 3\n[log]\nlevel = \"warn\"\n".to_owned();
    let text = config.toml(REDIS);
    let said = run(&mut check(&file(&text)));
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    let app = &config.apps[0];
    for secret in app
        .secrets()
        .into_iter()
        .chain([app.client_key.as_str(), "a-password"])
    {
        assert!(
            !said.stdout.contains(secret),
            "{secret} is shown:\n{}",
            said.stdout
        );
    }

    // Everything that was given is there, as it was given or masked.
    fn same(given: &toml::Value, shown: &toml::Value, path: &str) {
        match (given, shown) {
            (toml::Value::Table(given), toml::Value::Table(shown)) => {
                for (key, value) in given {
                    let path = format!("{path}.{key}");
                    same(
                        value,
                        shown.get(key).unwrap_or_else(|| panic!("no {path}")),
                        &path,
                    );
                }
            }
            (toml::Value::Array(given), toml::Value::Array(shown)) => {
                assert_eq!(given.len(), shown.len(), "{path}");
                given
                    .iter()
                    .zip(shown)
                    .for_each(|(given, shown)| same(given, shown, path));
            }
            _ if [
                "server_keys",
                "_key",
                "_keys",
                "_secret",
                "_token",
                "_tokens",
            ]
            .iter()
            .any(|end| path.ends_with(end)) =>
            {
                assert_eq!(shown.as_str(), Some("****"), "{path}");
            }
            _ if path.ends_with(".url") => {
                assert_eq!(
                    shown.as_str(),
                    Some("redis://somebody:****@127.0.0.1:6399/3"),
                    "{path}"
                );
            }
            _ => assert_eq!(given, shown, "{path}"),
        }
    }
    let shown = parsed(&said.stdout);
    same(&parsed(&text).into(), &shown.clone().into(), "");
    // With the defaults of the contract beside it.
    assert_eq!(shown["server"]["workers"].as_integer(), Some(0));
    assert_eq!(shown["redis"]["data_dir"].as_str(), Some("./data"));

    // The output is a configuration again, and comes to itself.
    let again = run(&mut check(&file(&said.stdout)));
    assert_eq!((again.code, again.stdout), (0, said.stdout));
}

/// Weak secrets are named on standard error, one line each; the configuration can be run with all the same.
#[test]
fn weak_secrets_are_warned_of_by_the_setting_they_stand_in() {
    let mut config = Config::apps(2);
    config.apps[0].server_key = "demo-server-key".to_owned();
    config.apps[0].jwt_secret = "tiny-secret".to_owned();
    config.apps[1].jwt_secret = config.apps[1].secret_key.clone();
    let file = file(&config.toml(REDIS));
    let said = run(&mut check(&file));
    assert_eq!(said.code, 0, "{}", said.stderr);
    let lines: Vec<&str> = said.stderr.lines().collect();
    let expected = [
        ("apps[0].server_keys[0]", "published"),
        ("apps[0].imkit.jwt_secret", "short"),
        (
            "apps[1].tencent.secret_key",
            "the same as apps[1].imkit.jwt_secret",
        ),
    ];
    assert_eq!(lines.len(), expected.len(), "{}", said.stderr);
    for (line, (setting, why)) in lines.iter().zip(expected) {
        let start = format!("unread: warning: {setting} is ");
        assert!(line.starts_with(&start) && line.contains(why), "{line}");
    }
    for app in &config.apps {
        for secret in app.secrets() {
            assert!(!said.stderr.contains(secret), "{}", said.stderr);
        }
    }
    // What is printed is the configuration and nothing else.
    assert!(parsed(&said.stdout).contains_key("apps"));

    // A pod says the same in its log, and runs.
    let redis = RedisServer::start();
    let pod = Pod::start(&config, &redis);
    let log = pod.log();
    for (setting, why) in expected {
        let about = log.iter().filter(|line| {
            line.contains("\"WARN\"") && line.contains(setting) && line.contains(why)
        });
        assert_eq!(about.count(), 1, "{setting}: {}", pod.log_tail());
    }
    pod.assert_no_secret_logged(&config);
}

/// What is configured and of no use is named on standard error; a pod says the same in its log.
#[test]
fn an_app_that_nobody_can_call_and_users_without_a_secret_are_warned_of() {
    const KEYS: &str = "server_keys = [\"k3v9x0c2-ye5tq7wb-d81m\"]\n";
    const NOBODY: &str = "apps[0] has no server_keys, no token_secret and no section of a dialect: every call for it will be refused";
    const SECRET: &str = "apps[0].users has no token_secret: nobody can call with a user token";
    let dialect =
        "[apps.sendbird]\napplication_id = \"A\"\nmaster_token = \"m3v9x0c2-ye5tq7wb-d81m\"\n";
    let origins = "[apps.users]\nallowed_origins = [\"https://a\"]\n";
    let limit = "[apps.users]\nrate_limit = { per_second = 5 }\n";
    let secret = "token_secret = [\"t3v9x0c2-ye5tq7wb-d81m\"]\n";
    let mut configs = Vec::new();
    for (of, expected) in [
        (String::new(), &[NOBODY][..]),
        (origins.to_owned(), &[NOBODY, SECRET]),
        (KEYS.to_owned(), &[]),
        (dialect.to_owned(), &[]),
        (format!("{KEYS}{origins}"), &[SECRET]),
        (format!("{KEYS}{limit}"), &[SECRET]),
        (format!("{limit}{secret}"), &[]),
        // IMKIT's calls have these origins, too.
        (format!("{KEYS}{origins}{dialect}"), &[]),
        (format!("{KEYS}{limit}{dialect}"), &[SECRET]),
    ] {
        let toml = format!("[[apps]]\nid = \"a\"\n{of}");
        let said = run(&mut check(&file(&toml)));
        let expected: String = expected
            .iter()
            .map(|one| format!("unread: warning: {one}\n"))
            .collect();
        assert_eq!((said.code, said.stderr), (0, expected), "{toml}");
        configs.push(toml);
    }
    let redis = RedisServer::start();
    let ports = "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n";
    let toml = format!(
        "[server]\n{ports}[redis]\nurl = \"{}\"\n{}",
        redis.url(),
        configs[1]
    );
    let pod = Pod::start_toml(&toml);
    pod.until_ready();
    for warning in [NOBODY, SECRET] {
        let mut log = pod.log().into_iter();
        assert!(
            log.any(|line| line.contains("\"WARN\"") && line.contains(warning)),
            "{warning}: {}",
            pod.log_tail()
        );
    }
}

#[test]
fn nothing_configured_is_all_defaults() {
    let said = run(unread().arg("check-config"));
    // `serve` logs the same.
    let warning = "unread: warning: no app is configured: every call will be refused\n";
    assert_eq!((said.code, said.stderr.as_str()), (0, warning));
    let shown = parsed(&said.stdout);
    assert_eq!(shown["server"]["listen"].as_str(), Some("127.0.0.1:8080"));
    assert_eq!(
        shown["server"]["admin_listen"].as_str(),
        Some("127.0.0.1:9090")
    );
    assert_eq!(shown["history"]["max_messages"].as_integer(), Some(1000));
    assert_eq!(shown["history"]["max_age_days"].as_integer(), Some(7));
    assert!(shown["redis"].get("url").is_none());
}

#[test]
fn each_mistake_is_one_line_that_names_it() {
    let two = Config::apps(2);
    let good = two.toml(REDIS);
    let shared = |what: fn(&mut crate::support::AppKeys) -> &mut String| {
        let mut config = two.clone();
        let first = what(&mut config.apps[0]).clone();
        *what(&mut config.apps[1]) = first;
        config.toml(REDIS)
    };
    let replaced = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    };
    for (toml, names) in [
        (
            replaced("[server]", "[server]\nlisen = \"x\""),
            vec!["server.lisen"],
        ),
        (
            replaced("[server]", "[sever]\nx = 1\n[server]"),
            vec!["sever"],
        ),
        (
            replaced("[apps.imkit]", "[apps.imkit]\nsecret = \"x\""),
            vec!["apps[0].imkit.secret"],
        ),
        (
            replaced("id = ", "name = \"x\"\nid = "),
            vec!["apps[0].name"],
        ),
        (
            replaced("[server]", "[server]\nworkers = 5000"),
            vec!["server.workers"],
        ),
        (
            replaced("[server]", "[server]\nworkers = -1"),
            vec!["server.workers"],
        ),
        (
            replaced("[server]", "[server]\nworkers = \"many\""),
            vec!["server.workers"],
        ),
        (
            replaced("[redis]", "[history]\nmax_messages = 0\n[redis]"),
            vec!["history.max_messages"],
        ),
        (
            replaced("per_second = 0", "per_second = 9999999"),
            vec!["apps[0].rate_limit.per_second"],
        ),
        (
            replaced("scope = \"pod\"", "scope = \"world\""),
            vec!["apps[0].rate_limit.scope", "pod", "cluster"],
        ),
        (
            replaced("sdkappid = 1400000000", "sdkappid = 0"),
            vec!["apps[0].tencent.sdkappid"],
        ),
        (
            replaced("sdkappid = 1400000000\n", ""),
            vec!["apps[0].tencent.sdkappid", "missing"],
        ),
        (
            replaced("\"jwt-secret-of-0-not-a-real-one\"", "\"\""),
            vec!["apps[0].imkit.jwt_secret"],
        ),
        (
            replaced(
                "jwt_secret = \"jwt-secret-of-0-not-a-real-one\"",
                "jwt_secret_file = \"/nowhere\"",
            ),
            vec!["apps[0].imkit.jwt_secret_file", "/nowhere"],
        ),
        (
            replaced("listen = \"127.0.0.1:0\"", "listen = \"8080\""),
            vec!["server.listen"],
        ),
        (replaced(REDIS, "http://127.0.0.1"), vec!["redis.url"]),
        (
            replaced("id = \"app-0\"", "id = \"a b\""),
            vec!["apps[0].id"],
        ),
        (
            replaced("id = \"app-1\"", "id = \"app-0\""),
            vec!["apps[1].id"],
        ),
        (replaced("[[apps]]", "[[apps"), vec!["line "]),
        (
            shared(|app| &mut app.server_key),
            vec!["apps[1].server_keys", "apps[0]"],
        ),
        (
            shared(|app| &mut app.user_secret),
            vec!["apps[1].users.token_secret", "apps[0]"],
        ),
        (
            shared(|app| &mut app.client_key),
            vec!["apps[1].imkit.client_keys", "apps[0]"],
        ),
        (
            shared(|app| &mut app.api_token),
            vec!["apps[1].sendbird.api_tokens", "apps[0]"],
        ),
        (
            shared(|app| &mut app.master_token),
            vec!["apps[1].sendbird.master_token", "apps[0]"],
        ),
        (
            shared(|app| &mut app.application_id),
            vec!["apps[1].sendbird.application_id", "apps[0]"],
        ),
        (
            replaced("sdkappid = 1400000001", "sdkappid = 1400000000"),
            vec!["apps[1].tencent.sdkappid", "apps[0]"],
        ),
    ] {
        let said = run(&mut check(&file(&toml)));
        said.assert_failed_in_one_line(&names);
        for app in &two.apps {
            for secret in app.secrets() {
                assert!(!said.stderr.contains(secret), "{}", said.stderr);
            }
        }
        assert!(!said.stderr.contains("a-password"), "{}", said.stderr);
        // `serve` says the same, at once.
        let file = file(&toml);
        let served = run(unread().arg("serve").arg("--config").arg(&file.path));
        served.assert_failed_in_one_line(&names);
    }
    let missing = run(unread().args(["check-config", "--config", "/nowhere/unread.toml"]));
    missing.assert_failed_in_one_line(&["/nowhere/unread.toml"]);
    let wrong = run(unread().args(["check-confg"]));
    assert_ne!(wrong.code, 0);
}

#[test]
fn the_environment_goes_over_the_file() {
    let config = Config::apps(1);
    let file = file(&config.toml(REDIS));
    let said = run(check(&file)
        .env("UNREAD_SERVER__WORKERS", "3")
        .env(
            "UNREAD_REDIS__URL",
            "redis://:other-password-of-length@example.org",
        )
        .env("UNREAD_HISTORY__MAX_AGE_DAYS", "30")
        .env("UNREAD_APPS__0__TENCENT__SDKAPPID", "1500000000")
        .env(
            "UNREAD_APPS__0__SERVER_KEYS",
            r#"["one-of-two-server-keys", "two-of-two-server-keys"]"#,
        )
        .env("UNREAD_APPS__1__ID", "another"));
    let warning = "unread: warning: apps[1] has no server_keys, no token_secret and no section of a dialect: every call for it will be refused\n";
    assert_eq!((said.code, said.stderr.as_str()), (0, warning));
    let shown = parsed(&said.stdout);
    assert_eq!(shown["server"]["workers"].as_integer(), Some(3));
    assert_eq!(shown["history"]["max_age_days"].as_integer(), Some(30));
    let url = shown["redis"]["url"].as_str().unwrap();
    assert!(
        url.ends_with("@example.org") && !url.contains("other-password"),
        "{url}"
    );
    let apps = shown["apps"].as_array().unwrap();
    assert_eq!(
        apps[0]["tencent"]["sdkappid"].as_integer(),
        Some(1_500_000_000)
    );
    assert_eq!(apps[0]["server_keys"].as_array().map(Vec::len), Some(2));
    assert_eq!(apps[1]["id"].as_str(), Some("another"));

    let by_name = run(unread()
        .arg("check-config")
        .env("UNREAD_CONFIG", &file.path));
    assert_eq!(
        parsed(&by_name.stdout)["apps"][0]["id"].as_str(),
        Some("app-0")
    );

    for (name, value, named) in [
        ("UNREAD_SERVER__LISEN", "x", "UNREAD_SERVER__LISEN"),
        ("UNREAD_SERVER__WORKERS", "5000", "server.workers"),
        ("UNREAD_SERVER__WORKERS", "many", "server.workers"),
    ] {
        run(check(&file).env(name, value)).assert_failed_in_one_line(&[named]);
    }
}
