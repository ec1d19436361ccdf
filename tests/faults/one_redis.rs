//! One Redis is killed, frozen, flushed, full, loading, read only, or wants another password.

use std::time::Duration;

use crate::storm::{Scene, Seen, config, storm, storm_on};
use crate::support::{Pod, RedisServer, until};

/// Longer than a connection tries to be made before it gives up.
const OUTAGE: Duration = Duration::from_secs(4);

/// How often the pod counted that error of Redis.
fn errors(pod: &Pod, kind: &str) -> u64 {
    let name = format!("unread_redis_errors_total{{kind=\"{kind}\"}}");
    pod.metric(&name).unwrap_or(0)
}

/// A storm over a Redis that is handed to the injection; `kind` of errors has to come up.
async fn over(
    redis: RedisServer,
    seed: u64,
    fault: &str,
    injected: &str,
    kind: Option<&str>,
    inject: impl FnOnce(&mut RedisServer, &Seen) + Send + 'static,
) {
    let Scene {
        pod,
        app,
        proxy: _proxy,
        ..
    } = Scene::new(&redis, config("")).await;
    let (after, _redis) = storm_on(redis, &app, vec![pod.base.clone()], seed, inject).await;
    after.nothing_lost().await;
    if let Some(kind) = kind {
        assert_ne!(errors(&pod, kind), 0, "no error of the kind {kind}");
    }
    after.report(fault, injected, 0);
}

fn ok(answer: &str) {
    assert_eq!(answer, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_scripts_are_flushed_all_the_time() {
    let redis = RedisServer::start();
    let (fault, injected) = ("`SCRIPT FLUSH`", "50 times under load");
    over(redis, 10, fault, injected, None, |redis, seen| {
        for _ in 0..50 {
            ok(&redis.cli(&["SCRIPT", "FLUSH"]));
            seen.acknowledged_more(10);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_connections_are_killed_all_the_time() {
    let redis = RedisServer::start();
    let (fault, injected) = ("`CLIENT KILL TYPE normal`", "30 times under load");
    over(redis, 11, fault, injected, Some("io"), |redis, seen| {
        for _ in 0..30 {
            redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
            seen.acknowledged_more(10);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_redis_is_paused() {
    let redis = RedisServer::start();
    let (fault, injected) = ("`CLIENT PAUSE`", "1.5 s `ALL`, then 1.5 s `WRITE`");
    over(
        redis,
        12,
        fault,
        injected,
        Some("timeout"),
        |redis, seen| {
            for what in ["ALL", "WRITE"] {
                ok(&redis.cli(&["CLIENT", "PAUSE", "1500", what]));
                seen.refused_more(8);
                seen.acknowledged_more(50);
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_when_redis_is_killed_with_every_write_on_disk() {
    let redis = RedisServer::start_durable();
    let (fault, injected) = (
        "Redis `kill -9`, `appendfsync always`",
        "3 times under load, restarted",
    );
    over(redis, 13, fault, injected, Some("io"), |redis, seen| {
        for _ in 0..3 {
            seen.acknowledged_more(100);
            redis.kill9();
            seen.refused_more(20);
            redis.restart();
        }
    })
    .await;
}

/// With `everysec` the process may die before what it answered is written: that is measured, and sending again heals it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_not_on_disk_is_right_after_it_is_sent_again() {
    let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let Scene {
        pod,
        app,
        proxy: _proxy,
        ..
    } = Scene::new(&redis, config("")).await;
    // That the rooms are there is not in question.
    until("the rooms are written", || {
        let info = redis.cli(&["INFO", "persistence"]);
        ["aof_buffer_length:0", "aof_pending_bio_fsync:0"]
            .iter()
            .all(|field| info.contains(field))
            .then_some(())
    });
    let (after, _redis) = storm(&app, vec![pod.base.clone()], 14, move |seen| {
        let mut redis = redis;
        seen.acknowledged_more(300);
        seen.may_lose();
        redis.kill9();
        seen.refused_more(20);
        redis.restart();
        redis
    })
    .await;
    let lost = after.lost().await;
    after.report(
        "Redis `kill -9`, `appendfsync everysec`",
        "once under load, restarted",
        lost,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_redis_is_frozen() {
    let redis = RedisServer::start();
    let (fault, injected) = ("Redis `SIGSTOP`", "3 s under load, then `SIGCONT`");
    over(
        redis,
        15,
        fault,
        injected,
        Some("timeout"),
        |redis, seen| {
            redis.freeze();
            seen.refused_for(Duration::from_secs(3));
            redis.thaw();
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_redis_is_loading() {
    let redis = RedisServer::start_durable();
    let (fault, injected) = (
        "`-LOADING`",
        "killed, then some 3 s of loading the append-only file",
    );
    over(
        redis,
        16,
        fault,
        injected,
        Some("loading"),
        |redis, seen| {
            // Something to load: 20,000 writes, each to take 100 microseconds.
            let junk = "for i = 1, 20000 do redis.call('SET', 'junk:' .. i, i) end";
            redis.cli(&["EVAL", junk, "0"]);
            redis.kill9();
            redis.restart_loading(&["--key-load-delay", "100"]);
            seen.refused_more(20);
            until("loaded", || (redis.cli(&["PING"]) == "PONG").then_some(()));
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_redis_is_read_only() {
    let redis = RedisServer::start();
    let (fault, injected) = ("`-READONLY`", "`REPLICAOF` on and off, 3 times");
    over(
        redis,
        17,
        fault,
        injected,
        Some("readonly"),
        |redis, seen| {
            for _ in 0..3 {
                // Of nobody: port 1 has no Redis, so the data stays.
                ok(&redis.cli(&["REPLICAOF", "127.0.0.1", "1"]));
                seen.refused_more(30);
                ok(&redis.cli(&["REPLICAOF", "NO", "ONE"]));
                seen.acknowledged_more(50);
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_redis_is_full() {
    let redis = RedisServer::start();
    let (fault, injected) = ("`-OOM`", "`maxmemory 1`, 3 times");
    over(redis, 18, fault, injected, Some("oom"), |redis, seen| {
        for _ in 0..3 {
            ok(&redis.cli(&["CONFIG", "SET", "maxmemory", "1"]));
            seen.refused_more(30);
            ok(&redis.cli(&["CONFIG", "SET", "maxmemory", "0"]));
            seen.acknowledged_more(50);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_redis_wants_a_password() {
    let redis = RedisServer::start();
    let (fault, injected) = (
        "`-NOAUTH`",
        "`requirepass` set and connections killed, then taken back",
    );
    over(redis, 19, fault, injected, Some("auth"), |redis, seen| {
        let word = ["-a", "other", "--no-auth-warning"];
        ok(&redis.cli(&["CONFIG", "SET", "requirepass", "other"]));
        redis.cli(&[&word[..], &["CLIENT", "KILL", "TYPE", "normal"]].concat());
        seen.refused_for(OUTAGE);
        ok(&redis.cli(&[&word[..], &["CONFIG", "SET", "requirepass", ""]].concat()));
    })
    .await;
}

/// The pod has a password, and it is not the right one any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_redis_has_another_password() {
    let redis = RedisServer::start();
    ok(&redis.cli(&["CONFIG", "SET", "requirepass", "one"]));
    let proxy = crate::proxy::Proxy::start(redis.address());
    let config = config("");
    let url = format!("redis://:one@127.0.0.1:{}", proxy.port());
    let pod = Pod::start_unready(&config, &url);
    pod.until_ready();
    let app = crate::support::App::new(&config.apps[0], &pod.base);
    crate::storm::set_up(&app).await;
    let (after, _kept) = storm(&app, vec![pod.base.clone()], 20, move |seen| {
        let cli = |password: &str, command: &[&str]| {
            redis.cli(&[&["-a", password, "--no-auth-warning"], command].concat())
        };
        seen.acknowledged_more(50);
        ok(&cli("one", &["CONFIG", "SET", "requirepass", "two"]));
        cli("two", &["CLIENT", "KILL", "TYPE", "normal"]);
        seen.refused_for(OUTAGE);
        ok(&cli("two", &["CONFIG", "SET", "requirepass", "one"]));
        (redis, proxy)
    })
    .await;
    after.nothing_lost().await;
    assert_ne!(errors(&pod, "auth"), 0);
    let log = pod.log().join("\n");
    assert!(!log.contains("one@"), "the log shows the password");
    after.report(
        "`-WRONGPASS`",
        "password changed and connections killed, then changed back",
        0,
    );
}
