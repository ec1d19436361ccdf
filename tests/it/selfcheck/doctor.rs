//! What `doctor` says of a server, and of rights that are missing.

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::support::traffic::{self, Writer};
use crate::support::{self, App, Config, Pod, Ran, RedisServer, Wait, eventually};

/// Check by check: its result and what was found.
fn checks(ran: &Ran) -> std::collections::BTreeMap<String, (String, String)> {
    let result = ran.json();
    let rows = result["checks"].as_array().unwrap();
    rows.iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            (
                text("check"),
                (
                    text("result"),
                    format!("{}; {}", text("found"), text("advice")),
                ),
            )
        })
        .collect()
}

#[test]
fn doctor_tells_a_good_redis_from_a_bad_one() {
    let good = RedisServer::start_with(&[
        "--appendonly",
        "yes",
        "--hash-max-listpack-entries",
        "512",
        "--hash-max-listpack-value",
        "256",
    ]);
    let ran = support::run_unread(&["doctor", "--redis-url", &good.url(), "--json"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    for (name, (result, said)) in checks(&ran) {
        // The version's number says nothing of what a distribution has mended in it; this machine may be busy.
        let allowed: &[&str] = if name.starts_with("CVE") || name == "round trip" {
            &["ok", "warn"]
        } else {
            &["ok"]
        };
        assert!(
            allowed.contains(&result.as_str()),
            "{name}: {result}: {said}"
        );
    }
    let ran = support::run_unread(&["doctor", "--redis-url", &good.url()]);
    assert!(
        ran.stdout.contains("ok    maxmemory-policy: noeviction\n"),
        "{}",
        ran.stdout
    );

    let bad = RedisServer::start_with(&["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"]);
    let ran = support::run_unread(&["doctor", "--redis-url", &bad.url(), "--json"]);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    let all = checks(&ran);
    assert_eq!(all["maxmemory-policy"].0, "fail");
    assert!(
        all["maxmemory-policy"]
            .1
            .contains("CONFIG SET maxmemory-policy noeviction")
    );
    assert_eq!(all["persistence"].0, "fail");
    assert_eq!(all["hash encoding"].0, "warn");
    assert_eq!(all["scripts"].0, "ok");
    // What it says to do is what helps.
    bad.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    bad.cli(&["CONFIG", "SET", "appendonly", "yes"]);
    let ran = support::run_unread(&["doctor", "--redis-url", &bad.url()]);
    assert_eq!(ran.code, 0, "{}", ran.stdout);
}

/// With the rights that `docs/redis.md` gives to a pod nothing fails: what only commands need is a warning that names them.
#[test]
fn the_rights_of_a_pod_are_enough_and_doctor_names_the_commands_that_need_more() {
    let document = include_str!("../../../docs/redis.md");
    let (_, line) = document.split_once("\nACL SETUSER unread ").unwrap();
    let line = line.lines().next().unwrap();
    let line = line.replace(">PASSWORD", ">secret-of-24-characters");
    let redis = RedisServer::start_with(&["--appendonly", "yes"]);
    let words: Vec<&str> = ["ACL", "SETUSER", "unread"]
        .into_iter()
        .chain(line.split_whitespace())
        .collect();
    assert_eq!(redis.cli(&words), "OK", "{line}");
    let url = redis
        .url()
        .replace("redis://", "redis://unread:secret-of-24-characters@");
    let ran = support::run_unread(&["doctor", "--redis-url", &url, "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let all = checks(&ran);
    let (level, said) = &all["rights for commands"];
    assert_eq!(level, "warn");
    let named = "may not run ZCARD (inspect --room), MEMORY USAGE (inspect --memory)";
    assert!(said.contains(named), "{said}");
    let (level, said) = &all["rights"];
    assert_eq!(level, "ok", "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_names_missing_rights_and_shows_no_password() {
    let redis = RedisServer::start();
    let url = |user: &str| {
        redis
            .url()
            .replace("redis://", &format!("redis://{user}:s3cret-pw@"))
    };
    redis.cli(&[
        "ACL",
        "SETUSER",
        "poor",
        "on",
        ">s3cret-pw",
        "~unread:*",
        "+@all",
        "-@dangerous",
        "-zadd",
        "-hscan",
        "+info",
    ]);
    let ran = support::run_unread(&["doctor", "--redis-url", &url("poor"), "--json"]);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    let all = checks(&ran);
    assert_eq!(all["rights"].0, "fail");
    assert!(
        all["rights"]
            .1
            .contains("user \"poor\" may not run HSCAN, ZADD"),
        "{:?}",
        all["rights"]
    );
    assert_eq!(all["hash encoding"].0, "warn");

    // The line that is advised suffices for all of it, and not for foreign keys.
    let advice = all["rights"].1.split("; ").last().unwrap().to_owned();
    let words = advice
        .replace("NAME", "least")
        .replace(">PASSWORD", ">s3cret-pw");
    let words: Vec<&str> = words.split_whitespace().collect();
    assert_eq!(redis.cli(&words), "OK", "{advice}");
    let ran = support::run_unread(&["doctor", "--redis-url", &url("least"), "--json"]);
    let all = checks(&ran);
    assert_eq!(all["rights"].0, "ok", "{:?}", all["rights"]);
    assert_eq!(all["scripts"].0, "ok", "{:?}", all["scripts"]);
    assert_eq!(all["replicas"].0, "ok", "{:?}", all["replicas"]);
    assert!(
        redis
            .cli(&["ACL", "DRYRUN", "least", "FLUSHALL"])
            .contains("no permissions")
    );
    let pod = Pod::start_unready(&Config::apps(1), &url("least"));
    eventually("a pod with the least rights is ready", || async {
        pod.is_ready().then_some(()).ok_or("not ready".to_owned())
    })
    .await;
    let app = App::new(&Config::apps(1).apps[0], &pod.base);
    app.must(&traffic::setup()).await;
    let events = Writer::new(0, StdRng::seed_from_u64(1)).batch(40);
    app.events(&events, Wait::Applied).await.ok();
    for command in ["verify", "rebuild"] {
        let ran = support::run_unread(&[command, "--redis-url", &url("least")]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    // Nor does the mending of what can't be read take more.
    for (room, what) in [
        ("super", "meta"),
        ("group%20a", "members"),
        ("group%20b", "ids"),
        ("group%20b", "log"),
    ] {
        let key = format!("unread:v1:{{app-0:r:{room}}}:{what}");
        redis.cli(&["DEL", &key]);
        redis.cli(&["SET", &key, "poison"]);
    }
    let ran = support::run_unread(&["rebuild", "--mend", "--redis-url", &url("least")]);
    assert_eq!(ran.code, 0, "{ran:?}");

    for user in ["poor", "nobody"] {
        for command in ["doctor", "verify"] {
            let ran = support::run_unread(&[command, "--redis-url", &url(user)]);
            assert!(!format!("{ran:?}").contains("s3cret-pw"), "{ran:?}");
        }
    }
    let ran = support::run_unread(&["doctor", "--redis-url", &url("nobody")]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stdout.starts_with("fail  reachable: "), "{ran:?}");
    let ran = support::run_unread(&["verify", "--redis-url", &url("nobody")]);
    assert_eq!(ran.code, 3, "{ran:?}");
}
