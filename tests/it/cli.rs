//! The command line: every command, its exit code, and the one line that says what was wrong.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use reqwest::Method;
use serde_json::{Value, json};

use crate::model::ITEM_KEYS;
use crate::support::{
    App, Config, PATIENCE, Pod, RedisServer, escaped, quoted, signal, unread, until,
};

/// What a command said that ended by itself.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(command: &mut Command) -> Said {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Little is said, so no pipe fills up meanwhile.
    let code = match wait(&mut child) {
        Some(code) => code,
        None => {
            child.kill().unwrap();
            panic!("{command:?} does not end");
        }
    };
    let (mut out, mut err) = (String::new(), String::new());
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    Said { code, out, err }
}

/// The exit code, or nothing when patience has run out.
fn wait(child: &mut Child) -> Option<Option<i32>> {
    let start = std::time::Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status.code());
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    None
}

/// Nothing but one line on standard error, that names all of these, and an exit code that says failure.
#[track_caller]
fn one_line(said: &Said, names: &[&str]) {
    assert!(
        said.code.is_some_and(|code| code != 0),
        "{:?}: {}",
        said.code,
        said.err
    );
    assert_eq!(said.out, "", "{}", said.err);
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    assert!(said.err.starts_with("unread: "), "{}", said.err);
    for name in names {
        assert!(said.err.contains(name), "no {name:?} in {}", said.err);
    }
}

struct File {
    dir: tempfile::TempDir,
    path: PathBuf,
}

fn file(toml: &str) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("unread.toml");
    std::fs::write(&path, toml).unwrap();
    File { dir, path }
}

fn check(file: &File) -> Command {
    let mut command = unread();
    command.arg("check-config").arg("--config").arg(&file.path);
    command
}

fn parsed(toml: &str) -> toml::Table {
    toml.parse()
        .unwrap_or_else(|error| panic!("{error}\n{toml}"))
}

const REDIS: &str = "redis://somebody:a-password-of-24-letters@127.0.0.1:6399/3";

// check-config.

#[test]
fn a_valid_file_is_printed_whole_and_without_secrets() {
    let mut config = Config::apps(1);
    config.extra =
        "[history]\nmax_messages = 77\nmax_age_days = 3\n[log]\nlevel = \"warn\"\n".to_owned();
    let text = config.toml(REDIS);
    let said = run(&mut check(&file(&text)));
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let app = &config.apps[0];
    for secret in app
        .secrets()
        .into_iter()
        .chain([app.client_key.as_str(), "a-password"])
    {
        assert!(
            !said.out.contains(secret),
            "{secret} is shown:\n{}",
            said.out
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
    let shown = parsed(&said.out);
    same(&parsed(&text).into(), &shown.clone().into(), "");
    // With the defaults of the contract beside it.
    assert_eq!(shown["server"]["workers"].as_integer(), Some(0));
    assert_eq!(shown["redis"]["data_dir"].as_str(), Some("./data"));

    // The output is a configuration again, and comes to itself.
    let again = run(&mut check(&file(&said.out)));
    assert_eq!((again.code, again.out), (Some(0), said.out));
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
    assert_eq!(said.code, Some(0), "{}", said.err);
    let lines: Vec<&str> = said.err.lines().collect();
    let expected = [
        ("apps[0].server_keys[0]", "published"),
        ("apps[0].imkit.jwt_secret", "short"),
        (
            "apps[1].tencent.secret_key",
            "the same as apps[1].imkit.jwt_secret",
        ),
    ];
    assert_eq!(lines.len(), expected.len(), "{}", said.err);
    for (line, (setting, why)) in lines.iter().zip(expected) {
        let start = format!("unread: warning: {setting} is ");
        assert!(line.starts_with(&start) && line.contains(why), "{line}");
    }
    for app in &config.apps {
        for secret in app.secrets() {
            assert!(!said.err.contains(secret), "{}", said.err);
        }
    }
    // What is printed is the configuration and nothing else.
    assert!(parsed(&said.out).contains_key("apps"));

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

#[test]
fn nothing_configured_is_all_defaults() {
    let said = run(unread().arg("check-config"));
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let shown = parsed(&said.out);
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
        one_line(&said, &names);
        for app in &two.apps {
            for secret in app.secrets() {
                assert!(!said.err.contains(secret), "{}", said.err);
            }
        }
        assert!(!said.err.contains("a-password"), "{}", said.err);
        // `serve` says the same, at once.
        let file = file(&toml);
        let served = run(unread().arg("serve").arg("--config").arg(&file.path));
        one_line(&served, &names);
    }
    let missing = run(unread().args(["check-config", "--config", "/nowhere/unread.toml"]));
    one_line(&missing, &["/nowhere/unread.toml"]);
    let wrong = run(unread().args(["check-confg"]));
    assert_ne!(wrong.code, Some(0));
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
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let shown = parsed(&said.out);
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
        parsed(&by_name.out)["apps"][0]["id"].as_str(),
        Some("app-0")
    );

    for (name, value, named) in [
        ("UNREAD_SERVER__LISEN", "x", "UNREAD_SERVER__LISEN"),
        ("UNREAD_SERVER__WORKERS", "5000", "server.workers"),
        ("UNREAD_SERVER__WORKERS", "many", "server.workers"),
    ] {
        one_line(&run(check(&file).env(name, value)), &[named]);
    }
}

// token, and secrets from files.

fn token(file: &File, args: &[&str]) -> Command {
    let mut command = unread();
    command
        .arg("token")
        .args(args)
        .arg("--config")
        .arg(&file.path);
    command
}

/// The one line of a command that went well.
#[track_caller]
fn printed(said: &Said) -> String {
    assert_eq!(
        (said.code, said.err.as_str()),
        (Some(0), ""),
        "{}",
        said.out
    );
    assert_eq!(said.out.lines().count(), 1, "{}", said.out);
    said.out.trim_end().to_owned()
}

#[tokio::test]
async fn tokens_are_accepted_and_secrets_come_from_files() {
    let redis = RedisServer::start();
    let config = Config::apps(1);
    let keys = &config.apps[0];
    let secrets = tempfile::tempdir().unwrap();
    let mut toml = config.toml(&redis.url());
    // A line break at the end, as every editor leaves one.
    for (name, one) in [
        ("jwt_secret", &keys.jwt_secret),
        ("secret_key", &keys.secret_key),
        ("master_token", &keys.master_token),
    ] {
        let path = secrets.path().join(name);
        std::fs::write(&path, format!("{one}\n")).unwrap();
        let before = format!("{name} = {}", quoted(one));
        assert!(toml.contains(&before));
        toml = toml.replace(
            &before,
            &format!("{name}_file = {}", quoted(path.to_str().unwrap())),
        );
    }
    for (name, one) in [
        ("server_keys", &keys.server_key),
        ("client_keys", &keys.client_key),
        ("api_tokens", &keys.api_token),
    ] {
        let path = secrets.path().join(name);
        std::fs::write(&path, format!("{one}\r\n{one}-next\n")).unwrap();
        let before = format!("{name} = [{}]", quoted(one));
        assert!(toml.contains(&before));
        toml = toml.replace(
            &before,
            &format!("{name}_file = {}", quoted(path.to_str().unwrap())),
        );
    }
    let file = file(&toml);
    let shown = run(&mut check(&file));
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    for secret in keys.secrets() {
        assert!(!shown.out.contains(secret), "{}", shown.out);
    }

    let pod = Pod::start_toml(&toml);
    until("the pod's /readyz", || pod.is_ready().then_some(()));
    let app = App::new(keys, &pod.base);
    app.must(&json!({"type": "message.sent", "to": "ali ce", "sender": "bob", "id": "1"}))
        .await;
    let next = app.request(Method::GET, "/v1/users/ali%20ce/unread");
    App::send(next.bearer_auth(format!("{}-next", keys.server_key)))
        .await
        .ok();
    assert_eq!(
        app.sendbird("ali ce", None, None).await.ok()[ITEM_KEYS[2]],
        1
    );
    let mut master = app.clone();
    master.keys.api_token = keys.master_token.clone();
    assert_eq!(
        master.sendbird("ali ce", None, None).await.ok()[ITEM_KEYS[2]],
        1
    );

    let jwt = printed(&run(&mut token(
        &file,
        &["imkit", "--app", "app-0", "--user", "ali ce"],
    )));
    let request = app
        .request(Method::GET, "/rooms")
        .header("IM-CLIENT-KEY", &keys.client_key)
        .header("IM-CLIENT-ID", "ali ce")
        .header("IM-Authorization", &jwt);
    assert_eq!(
        App::send(request).await.ok()["result"]["data"][0]["unread"],
        1
    );

    let ask = |identifier: &str, usersig: &str| {
        let query = format!(
            "sdkappid={}&identifier={}&usersig={}",
            keys.sdkappid,
            escaped(identifier),
            escaped(usersig)
        );
        let request = app.request(
            Method::POST,
            &format!("/v4/openim/get_c2c_unread_msg_num?{query}"),
        );
        App::send(request.body(r#"{"To_Account":"ali ce"}"#))
    };
    let admin = keys.admin.as_str();
    let usersig = printed(&run(&mut token(
        &file,
        &["tencent", "--app", "app-0", "--identifier", admin],
    )));
    assert_eq!(ask(admin, &usersig).await.ok()["AllC2CUnreadMsgNum"], 1);
    let nobody = printed(&run(&mut token(
        &file,
        &["tencent", "--app", "app-0", "--identifier", "测试"],
    )));
    assert_eq!(ask("测试", &nobody).await.ok()["ErrorCode"], 60010);

    for (args, names) in [
        (
            &["imkit", "--app", "nope", "--user", "u"][..],
            &["nope"][..],
        ),
        (
            &["tencent", "--app", "nope", "--identifier", "u"],
            &["nope"],
        ),
        (&["imkit", "--app", "app-0", "--user", ""], &["--user"]),
    ] {
        one_line(&run(&mut token(&file, args)), names);
    }
    pod.assert_no_secret_logged(&config);
}

#[test]
fn a_token_needs_its_dialect() {
    let file = file("[[apps]]\nid = \"bare\"\nserver_keys = [\"k\"]\n");
    one_line(
        &run(&mut token(
            &file,
            &["imkit", "--app", "bare", "--user", "u"],
        )),
        &["bare", "apps.imkit"],
    );
    one_line(
        &run(&mut token(
            &file,
            &["tencent", "--app", "bare", "--identifier", "u"],
        )),
        &["bare", "apps.tencent"],
    );
}

// serve.

fn private(config: &Config, data: &Path) -> String {
    config.toml_with(&format!("data_dir = {}", quoted(data.to_str().unwrap())))
}

/// The process behind a private Redis's socket.
fn redis_pid(data: &Path) -> Option<String> {
    let mut stream = UnixStream::connect(data.join("redis.sock")).ok()?;
    stream.write_all(b"INFO server\r\nQUIT\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let pid = answer.split("process_id:").nth(1)?.lines().next()?;
    Some(pid.to_owned())
}

fn lives(pid: &str) -> bool {
    let mut signal = Command::new("kill");
    signal
        .args(["-0", pid])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    signal.status().unwrap().success()
}

#[tokio::test]
async fn a_private_redis_keeps_the_counts_and_leaves_nothing_behind() {
    let config = Config::apps(1);
    let dir = tempfile::tempdir().unwrap();
    // Not made yet.
    let data = dir.path().join("data");
    let toml = private(&config, &data);
    for round in 1..=2 {
        let mut pod = Pod::start_toml(&toml);
        until("the pod's /readyz", || pod.is_ready().then_some(()));
        let app = App::new(&config.apps[0], &pod.base);
        if round > 1 {
            assert_eq!(
                app.unread("alice", false).await.ok()["messages"]["total"],
                round - 1
            );
        }
        app.must(&json!([
            {"type": "message.sent", "to": "alice", "sender": "bob", "id": "1"},
            {"type": "message.sent", "to": "alice", "sender": "bob", "id": format!("round {round}")},
            {"type": "room.read", "peer": "bob", "user": "alice", "up_to_id": "1"},
        ]))
        .await;
        assert_eq!(
            app.unread("alice", false).await.ok()["messages"]["total"],
            round
        );

        // Nobody else may use the directory meanwhile.
        if round == 1 {
            let second = file(&toml);
            one_line(
                &run(unread().arg("serve").arg("--config").arg(&second.path)),
                &[data.to_str().unwrap(), "in use"],
            );
        }
        let pid = redis_pid(&data).expect("a private Redis answers");
        assert!(lives(&pid));
        assert_eq!(pod.term(), Some(0));
        assert!(!lives(&pid), "redis-server outlived the pod");
        assert_eq!(redis_pid(&data), None);
    }
}

#[test]
fn what_keeps_a_pod_from_starting_is_one_line() {
    let config = Config::apps(1);
    let dir = tempfile::tempdir().unwrap();
    let toml = private(&config, &dir.path().join("data"));

    // Nothing is installed.
    let bare = file(&toml);
    let said = run(unread()
        .arg("serve")
        .arg("--config")
        .arg(&bare.path)
        .env("PATH", bare.dir.path()));
    one_line(&said, &["redis-server", "install", "redis.url"]);

    // A port is taken, of either listener; before that is known nothing has been started.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, setting) in [
        ("--listen", "server.listen"),
        ("--admin-listen", "server.admin_listen"),
    ] {
        let file = file(&toml);
        let said = run(unread()
            .arg("serve")
            .arg("--config")
            .arg(&file.path)
            .args([flag, &address]));
        one_line(&said, &[&address, setting, flag]);
    }
    assert!(!dir.path().join("data/redis.sock").exists());

    // The data directory is a file.
    let blocked = dir.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let blocked = file(&private(&config, &blocked));
    let said = run(unread().arg("serve").arg("--config").arg(&blocked.path));
    one_line(&said, &[dir.path().join("file").to_str().unwrap()]);
}

/// A request whose body has not come whole: its first half sent.
fn half_a_request(app: &App, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(app.base.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
        app.keys.server_key,
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
        .write_all(&body.as_bytes()[..body.len() / 2])
        .unwrap();
    stream
}

fn in_flight(pod: &Pod) -> Option<u64> {
    let metrics = pod.admin_get("/metrics")?;
    let line = metrics
        .lines()
        .find(|line| line.starts_with("unread_http_requests_in_flight "))?;
    line.split(' ').nth(1)?.parse().ok()
}

#[tokio::test]
async fn a_request_in_flight_is_finished_after_sigterm() {
    let redis = RedisServer::start();
    let mut pod = Pod::start(&Config::apps(1), &redis);
    let app = App::new(&Config::apps(1).apps[0], &pod.base);
    let body =
        json!({"type": "message.sent", "to": "alice", "sender": "bob", "id": "1"}).to_string();
    let mut stream = half_a_request(&app, &body);
    until("the request in flight", || {
        (in_flight(&pod)? == 1).then_some(())
    });
    pod.ask_to_end();
    until("the pod's stopping", || {
        pod.log()
            .iter()
            .any(|line| line.contains("\"message\":\"stopping\""))
            .then_some(())
    });
    // Nobody new gets in.
    until("the listener's end", || {
        TcpStream::connect(app.base.strip_prefix("http://").unwrap())
            .is_err()
            .then_some(())
    });
    stream
        .write_all(&body.as_bytes()[body.len() / 2..])
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\"applied\":1"), "{answer}");
    assert_eq!(pod.ended(), Some(0));

    let pod = Pod::start(&Config::apps(1), &redis);
    let counts = app.on(&pod.base).unread("alice", false).await.ok();
    assert_eq!(counts["messages"]["total"], 1);
}

#[test]
fn a_request_that_never_ends_does_not_keep_the_pod() {
    let redis = RedisServer::start();
    let config = Config::apps(1);
    let toml = config.toml(&redis.url()).replace(
        "[server]",
        // Longer than the test waits: only the grace time can end it.
        "[server]\ngrace_seconds = 1\nbody_timeout_ms = 600000",
    );
    let mut pod = Pod::start_toml(&toml);
    let app = App::new(&config.apps[0], &pod.base);
    let _stream = half_a_request(&app, "{\"type\": \"user.updated\", \"user\": \"x\"}");
    until("the request in flight", || {
        (in_flight(&pod)? == 1).then_some(())
    });
    assert_eq!(pod.term(), Some(0));
}

// demo.

/// A running `unread demo` and what it printed up to the event; told to end, and waited for, when dropped.
pub struct Demo {
    child: Child,
    /// Every line that is one `curl`.
    calls: Vec<String>,
    /// The addresses, each in a line that says what answers there.
    addresses: Vec<String>,
    /// The line that shows what stands in Redis.
    inspect: String,
    temp: tempfile::TempDir,
}

impl Demo {
    pub fn start() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut child = unread()
            .args([
                "demo",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .env("TMPDIR", temp.path())
            .current_dir(temp.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (found, lines) = mpsc::channel();
        // Ends with the demo's standard output.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = found.send(line);
            }
        });
        let mut demo = Self {
            child,
            calls: Vec::new(),
            addresses: Vec::new(),
            inspect: String::new(),
            temp,
        };
        while !demo.calls.iter().any(|call| call.contains("/v1/events")) {
            let line = lines
                .recv_timeout(PATIENCE)
                .expect("the demo prints its calls");
            if line.starts_with("curl ") {
                demo.calls.push(line);
            } else if line.contains(" inspect ") {
                demo.inspect = line;
            } else if line.contains(" http://") {
                demo.addresses.push(line);
            }
        }
        demo
    }

    /// `HOST:PORT` where that is answered.
    pub fn address(&self, what: &str) -> String {
        let line = self.addresses.iter().find(|line| line.contains(what));
        let (_, address) = line.and_then(|line| line.split_once(" http://")).unwrap();
        address.to_owned()
    }

    /// The address of its Redis.
    pub fn redis_url(&self) -> &str {
        let (_, rest) = self.inspect.split_once("--redis-url ").unwrap();
        rest.split(' ').next().unwrap()
    }

    fn call(&self, part: &str) -> &str {
        let mut found = self.calls.iter().filter(|call| call.contains(part));
        let call = found
            .next()
            .unwrap_or_else(|| panic!("no call of {part}: {:?}", self.calls));
        assert!(found.next().is_none(), "{:?}", self.calls);
        call
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pastes a line into a shell. Without `curl` the shell still takes the line apart, and the call is made from here.
async fn paste(line: &str) -> Value {
    let shell = |line: &str| {
        Command::new("sh")
            .args(["-c", line])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let out = shell(line);
    // What a shell says when there is no such program.
    if out.status.code() != Some(127) {
        assert!(
            out.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        return serde_json::from_slice(&out.stdout)
            .unwrap_or_else(|_| panic!("{line}: {}", String::from_utf8_lossy(&out.stdout)));
    }
    let out = shell(&format!("curl() {{ printf '%s\\0' \"$@\"; }}; {line}"));
    let words = String::from_utf8(out.stdout).unwrap();
    let mut words = words.split_terminator('\0');
    let (mut method, mut url, mut body) = (Method::GET, "", None);
    let mut headers = BTreeMap::new();
    while let Some(word) = words.next() {
        match word {
            "-sS" => {}
            "-X" => method = Method::from_bytes(words.next().unwrap().as_bytes()).unwrap(),
            "-H" => drop(headers.insert(words.next().unwrap().split_once(": ").unwrap(), ())),
            "-d" => body = words.next(),
            word => url = word,
        }
    }
    let mut request = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .request(method, url);
    for ((name, value), ()) in headers {
        request = request.header(name, value);
    }
    if let Some(body) = body {
        request = request.body(body.to_owned());
    }
    App::send(request).await.body
}

/// The line as it stands, in any directory, and the lines that it prints in turn.
#[tokio::test]
async fn the_demo_prints_an_inspect_line_for_its_own_redis() {
    let demo = Demo::start();
    let paste = |line: &str| {
        let out = Command::new("sh")
            .args(["-c", line])
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.success() && errors.is_empty(),
            "{line}: {errors}"
        );
        String::from_utf8(out.stdout).unwrap()
    };
    assert_ne!(demo.inspect, "", "no line of inspect was printed");
    let shown = paste(&demo.inspect);
    assert!(shown.starts_with("app: demo\nuser: alice\n"), "{shown}");
    assert!(shown.contains("\n  messages:direct 4\n"), "{shown}");
    let lines: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.trim().strip_prefix("$ "))
        .collect();
    assert!(lines.len() >= 8, "{shown}");
    for line in &lines {
        let answer = paste(line);
        assert!(!answer.starts_with("ERR"), "{line}: {answer}");
    }
    assert!(
        paste(lines[0]).contains("\nmessages:direct\n4\n"),
        "{shown}"
    );
}

#[tokio::test]
async fn the_demo_prints_calls_that_work() {
    let mut demo = Demo::start();
    let calls: [&str; 4] = [
        "/badges/byRoomTags",
        "/rooms?",
        "/v4/openim/get_c2c_unread_msg_num",
        "/v3/users/alice/unread_item_count",
    ];
    let event = "/v1/events";
    assert_eq!(demo.calls.len(), 5, "{:?}", demo.calls);

    let mut seen = Vec::new();
    for round in 0..2 {
        let badges = paste(demo.call(calls[0])).await;
        assert_eq!(badges["RC"], 0, "{badges}");
        assert!(
            badges["result"]["totalBadge"].as_u64() > Some(0),
            "{badges}"
        );
        let rooms = paste(demo.call(calls[1])).await;
        assert_eq!(rooms["RC"], 0, "{rooms}");
        let rows = rooms["result"]["data"].as_array().unwrap();
        assert!(
            rows.iter()
                .any(|row| row["unread"].as_u64() > Some(0) && row["pref"]["sticky"] == true),
            "{rooms}"
        );
        let direct: u64 = rows
            .iter()
            .filter(|row| row["roomType"] == "direct")
            .filter_map(|row| row["unread"].as_u64())
            .sum();
        let tencent = paste(demo.call(calls[2])).await;
        assert_eq!(tencent["ActionStatus"], "OK", "{tencent}");
        let sendbird = paste(demo.call(calls[3])).await;
        for key in ITEM_KEYS {
            assert!(sendbird[key].as_u64() > Some(0), "{key}: {sendbird}");
        }
        let found = (
            direct,
            tencent["AllC2CUnreadMsgNum"].as_u64().unwrap(),
            sendbird[ITEM_KEYS[2]].as_u64().unwrap(),
        );
        assert!(found.0 > 0 && found.0 == found.1, "{found:?}");
        seen.push(found);
        if round == 0 {
            let sent = paste(demo.call(event)).await;
            assert_eq!(sent["applied"], 1, "{sent}");
        }
    }
    let (before, after) = (seen[0], seen[1]);
    assert_eq!(after, (before.0 + 1, before.1 + 1, before.2 + 1));

    // Its data is thrown away with it.
    let data = std::fs::read_dir(demo.temp.path())
        .unwrap()
        .next()
        .expect("the demo's directory")
        .unwrap()
        .path();
    let pid = redis_pid(&data).expect("the demo's Redis answers");
    signal(&demo.child, "TERM");
    let code = until("the demo's end", || demo.child.try_wait().unwrap()).code();
    assert_eq!(code, Some(0));
    assert!(!lives(&pid), "redis-server outlived the demo");
    assert_eq!(std::fs::read_dir(demo.temp.path()).unwrap().count(), 0);
    let mut said = String::new();
    demo.child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(said, "");
}

#[tokio::test]
async fn signals_that_ask_for_nothing_we_do_end_no_demo() {
    let mut demo = Demo::start();
    for name in ["HUP", "USR1", "USR2", "PIPE"] {
        signal(&demo.child, name);
        let badges = paste(demo.call("/badges/byRoomTags")).await;
        assert_eq!(badges["RC"], 0, "{name}: {badges}");
    }
    signal(&demo.child, "TERM");
    let code = until("the demo's end", || demo.child.try_wait().unwrap()).code();
    assert_eq!(code, Some(0));
    let mut said = String::new();
    let stderr = demo.child.stderr.take();
    stderr.unwrap().read_to_string(&mut said).unwrap();
    for name in ["SIGHUP", "SIGUSR1", "SIGUSR2"] {
        assert_eq!(said.matches(name).count(), 1, "{said}");
    }
    assert_eq!(said.lines().count(), 3, "{said}");
}
