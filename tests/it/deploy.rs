//! What is in `deploy/`: the files agree with the program and with each other. `make test-deploy` runs what they describe.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::openapi::document::read_yaml;
use crate::support::{Config, Pod, Ran, RedisServer, free_port, run_unread, unread};

const TOML: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/unread.toml");

fn deployed(name: &str) -> String {
    let path = format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// The services of `compose.yaml` that are pods.
fn pods() -> BTreeMap<String, Value> {
    let compose = read_yaml(&deployed("compose.yaml"));
    let services = compose["services"].as_object().unwrap().clone();
    let pods = services
        .into_iter()
        .filter(|(_, service)| service["image"] == "unread");
    pods.collect()
}

/// The environment of a pod, with a secret of its own in place of each variable.
fn environment(pod: &Value) -> Vec<(String, String)> {
    let of = |(name, value): (&String, &Value)| {
        let mut value = value.as_str().unwrap().to_owned();
        if let Some((before, rest)) = value.split_once("${") {
            let (variable, after) = rest.split_once(":?}").unwrap();
            let secret = format!("{variable}-5f0c2b7a9e31");
            value = format!("{before}{secret}{after}");
        }
        assert!(!value.contains("${"), "{value}");
        (name.clone(), value)
    };
    pod["environment"]
        .as_object()
        .unwrap()
        .iter()
        .map(of)
        .collect()
}

fn with_environment(pod: &Value, args: &[&str]) -> Ran {
    let out = unread().args(args).envs(environment(pod)).output().unwrap();
    Ran::from(out)
}

/// The value of a setting of a unit.
fn of_unit(name: &str) -> Vec<String> {
    let unit = deployed("unread.service");
    let values = unit
        .lines()
        .filter_map(|line| line.strip_prefix(&format!("{name}=")).map(str::to_owned));
    values.collect()
}

/// The value of a directive of nginx where it stands first.
fn of_nginx(name: &str) -> String {
    let conf = deployed("nginx.conf");
    let line = conf
        .lines()
        .find_map(|line| line.trim().strip_prefix(&format!("{name} ")));
    line.unwrap().trim_end_matches(';').to_owned()
}

fn number(text: &str) -> u64 {
    text.trim_end_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .unwrap()
}

/// What pods come to is right, warns of no secret, and fits what is around them.
#[test]
fn the_pods_are_configured_and_fit_what_is_around_them() {
    let pods = pods();
    assert_eq!(pods.len(), 2);
    for (name, pod) in &pods {
        let ran = with_environment(pod, &["check-config", "--config", TOML]);
        assert_eq!(
            (ran.code, ran.stderr.as_str()),
            (0, ""),
            "{name}: {}",
            ran.stdout
        );
        let config: toml::Table = toml::from_str(&ran.stdout).unwrap();
        let app = &config["apps"][0];
        for dialect in ["imkit", "tencent", "sendbird"] {
            assert!(app.get(dialect).is_some(), "{name}: {dialect}");
        }
        let server = |setting: &str| {
            config["server"][setting]
                .as_integer()
                .unwrap()
                .try_into()
                .unwrap()
        };
        let stopping: u64 = server("drain_seconds") + server("grace_seconds");
        assert!(number(pod["stop_grace_period"].as_str().unwrap()) > stopping + 5);
        assert!(number(&of_unit("TimeoutStopSec")[0]) > stopping + 5);
        // One for each connection; what a pod needs beside them is little.
        let files: u64 = server("max_connections") + 1_000;
        assert!(pod["ulimits"]["nofile"].as_u64().unwrap() > files);
        assert!(number(&of_unit("LimitNOFILE")[0]) > files);
        // nginx closes idle connections first, and leaves it to the pod to say that a body is too long.
        let nginx = deployed("nginx.conf");
        let kept = of_nginx("keepalive_timeout");
        assert!(number(&kept) < server("keep_alive_seconds"), "{kept}");
        let most = of_nginx("client_max_body_size");
        assert!(most.ends_with('m') && number(&most) << 20 > server("max_events_bytes"));
        assert!(nginx.contains(&format!("server {name}:8080 ")), "{name}");
    }
    let environments: Vec<_> = pods.values().map(environment).collect();
    assert!(environments.windows(2).all(|pair| pair[0] == pair[1]));
}

/// Each secret that a pod wants is named where it is told how to make them.
#[test]
fn the_secrets_of_the_pods_are_documented() {
    let compose = deployed("compose.yaml");
    let variables: Vec<&str> = compose
        .split("${")
        .skip(1)
        .map(|rest| rest.split_once(":?}").unwrap().0)
        .collect();
    assert!(variables.len() > 5);
    let docs = format!("{}/docs/deploy.md", env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_to_string(docs).unwrap();
    for variable in variables {
        assert!(docs.contains(variable), "{variable}");
    }
}

/// A list of words in the form of JSON, after that.
fn words(text: &str, after: &str) -> Vec<String> {
    let (_, rest) = text.split_once(after).unwrap_or_else(|| panic!("{after}"));
    serde_json::from_str(rest.lines().next().unwrap()).unwrap()
}

/// The command line takes what is given there.
#[test]
fn the_program_takes_the_commands_of_the_deployment() {
    let dockerfile = deployed("Dockerfile");
    let health = words(&dockerfile, "--retries=3 CMD ");
    assert_eq!(health[0], "/usr/bin/unread");
    let help = run_unread(&[&health[1], "--help"]);
    assert_eq!(help.code, 0, "{help:?}");
    assert!(
        help.stdout.contains("http://127.0.0.1:9090/readyz"),
        "{help:?}"
    );
    assert!(dockerfile.contains("UNREAD_SERVER__ADMIN_LISTEN=0.0.0.0:9090"));

    let unit = of_unit("ExecStart");
    let unit: Vec<&str> = unit[0].split(' ').collect();
    assert_eq!(unit[0], health[0]);
    let mut of_image = words(&dockerfile, "\nENTRYPOINT ");
    of_image.extend(words(&dockerfile, "\nCMD "));
    assert_eq!(of_image, ["/usr/bin/unread", "serve"]);
    for (name, pod) in &pods() {
        let command = pod["command"].as_array().unwrap();
        let command: Vec<&str> = command.iter().map(|word| word.as_str().unwrap()).collect();
        assert_eq!(command, unit[1..], "{name}");
        let file = command.last().unwrap();
        let mounted = format!("./unread.toml:{file}:ro");
        assert!(
            pod["volumes"]
                .as_array()
                .unwrap()
                .contains(&Value::from(mounted)),
            "{name}"
        );
    }
    // The same flags, with the file that is here: the configuration is read, and an address that can't be had ends it.
    let out = unread()
        .args(&unit[1..unit.len() - 1])
        .arg(TOML)
        .args(["--listen", "192.0.2.1:1", "--admin-listen", "192.0.2.1:2"])
        .envs(environment(pods().values().next().unwrap()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot listen on 192.0.2.1:1"), "{said}");
}

#[test]
fn a_probe_says_whether_a_pod_is_ready() {
    let redis = RedisServer::start();
    let ready = Pod::start(&Config::apps(1), &redis);
    let away = format!("redis://127.0.0.1:{}", free_port());
    let unready = Pod::start_unready(&Config::apps(1), &away);
    let probe = |url: &str| run_unread(&["probe", "--url", url, "--timeout-seconds", "1"]);

    let said = probe(&format!("http://{}/readyz", ready.admin));
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    assert_eq!(said.json()["ready"], true, "{said:?}");

    // Nobody answers; somebody takes the connection and says nothing; somebody says what is no HTTP.
    let nobody = format!("http://127.0.0.1:{}/readyz", free_port());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}/", silent.local_addr().unwrap());
    for (url, why) in [
        (
            format!("http://{}/readyz", unready.admin),
            "\"ready\":false",
        ),
        (format!("http://{}/nope", ready.admin), "404"),
        (nobody, "refused"),
        (silent, "does not answer in time"),
        (
            format!("http://{}/", away.trim_start_matches("redis://")),
            "refused",
        ),
        (format!("http://127.0.0.1:{}/", redis.port), "not"),
    ] {
        let said = probe(&url);
        assert_eq!(
            (said.code, said.stdout.as_str()),
            (1, ""),
            "{url}: {said:?}"
        );
        assert!(
            said.stderr.starts_with("unread: not ready: "),
            "{url}: {said:?}"
        );
        assert!(said.stderr.contains(why), "{url}: {said:?}");
        assert_eq!(said.stderr.lines().count(), 1, "{url}: {said:?}");
    }
    for url in ["https://127.0.0.1/", "127.0.0.1:9090", "http://a b/"] {
        assert_eq!(probe(url).code, 2, "{url}");
    }
}

/// The names of all commands.
fn commands() -> Vec<String> {
    let help = run_unread(&["--help"]).stdout;
    let (_, listed) = help.split_once("\nCommands:\n").unwrap();
    let listed = listed.lines().take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !name.is_empty()).map(str::to_owned);
    names.collect()
}

#[test]
fn each_shell_gets_a_script_that_names_every_command() {
    let commands = commands();
    assert!(commands.len() > 10, "{commands:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = run_unread(&["completions", shell]);
        assert_eq!((script.code, script.stderr.as_str()), (0, ""), "{shell}");
        for command in &commands {
            assert!(
                script.stdout.contains(command.as_str()),
                "{shell}: {command}"
            );
        }
    }
    assert_eq!(run_unread(&["completions", "cmd.exe"]).code, 2);
}

/// What a bash that has read the script offers for the last word of a line.
fn offered(line: &[&str]) -> Vec<String> {
    let script = run_unread(&["completions", "bash"]).stdout;
    let words = line.join(" ");
    let (last, before) = (line.len() - 1, line[line.len() - 2]);
    let ask = format!(
        "{script}\nCOMP_WORDS=({words} '')\nCOMP_CWORD={last}\n_unread unread '{}' '{before}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        line[last]
    );
    let out = Command::new("bash")
        .args(["--norc", "-c", &ask])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    let offered = String::from_utf8(out.stdout).unwrap();
    offered.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_flags() {
    assert_eq!(offered(&["unread", "check"]), ["check-config"]);
    assert!(offered(&["unread", "serve", "--"]).contains(&"--admin-listen".to_owned()));
    assert!(offered(&["unread", "token", "t"]).contains(&"tencent".to_owned()));
}
