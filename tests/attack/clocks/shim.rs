//! The library that gives a process another realtime clock: all of Redis goes by it, and nothing else does.

use std::time::{SystemTime, UNIX_EPOCH};

use super::one_redis;
use crate::support::clock::{Clock, DAY, HOUR, MS, SECOND, YEAR};
use crate::support::{App, Config, Pod, RedisServer, imkit_token, now_seconds, until};

fn true_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_micros().try_into().unwrap()
}

/// Microseconds by `TIME`, plainly or in a script.
fn micros(redis: &RedisServer, command: &[&str]) -> i64 {
    let answer = redis.cli(command);
    let mut numbers = answer.lines().map(|line| line.parse::<i64>().unwrap());
    numbers.next().unwrap() * SECOND + numbers.next().unwrap()
}

#[test]
fn all_of_redis_goes_by_the_clock_that_is_set() {
    let (redis, clock) = one_redis();
    let script = ["EVAL", "return redis.call('TIME')", "0"];
    for ahead in [0, -20 * MS, 300 * MS, -HOUR, HOUR, -YEAR, YEAR] {
        clock.set(ahead);
        for command in [&["TIME"][..], &script] {
            let before = true_micros() + ahead;
            let at = micros(&redis, command);
            let after = true_micros() + ahead;
            assert!(
                (before..=after).contains(&at),
                "{ahead}: {before} {at} {after}"
            );
        }
    }

    // Keys end by it: a step forward ends them, a step back keeps them longer.
    clock.set(0);
    assert_eq!(redis.cli(&["SET", "key", "value", "PX", "3600000"]), "OK");
    clock.step(HOUR - 10 * SECOND);
    assert_eq!(redis.cli(&["EXISTS", "key"]), "1");
    let left: i64 = redis.cli(&["PTTL", "key"]).parse().unwrap();
    assert!((1..=10_000).contains(&left), "{left}");
    clock.step(-DAY);
    let left: i64 = redis.cli(&["PTTL", "key"]).parse().unwrap();
    assert!(left > 24 * 3_600_000 - 3_000, "{left}");
    clock.step(DAY + 11 * SECOND);
    assert_eq!(redis.cli(&["EXISTS", "key"]), "0");
    // Also when nobody asks for them: Redis' own timers have not stopped.
    assert_eq!(redis.cli(&["SET", "key", "value", "PX", "1000"]), "OK");
    until("a key ends by itself", || {
        (redis.info("expired_keys")? == "2").then_some(())
    });
}

/// A pod dates its log by it and knows by it which tokens have expired.
#[tokio::test]
async fn a_pod_goes_by_the_clock_that_is_set() {
    let redis = RedisServer::start();
    let clock = Clock::new();
    clock.set(-YEAR);
    let config = Config::apps(1);
    let pod = Pod::by_clock(&clock, &config, &redis.url());
    let app = App::new(&config.apps[0], &pod.base);
    let expired = imkit_token(&app.keys.jwt_secret, "alice", now_seconds() - 3_600);
    let badges = || {
        app.request(reqwest::Method::POST, "/badges/byRoomTags")
            .header("IM-CLIENT-KEY", &app.keys.client_key)
            .header("IM-Authorization", &expired)
    };
    assert_eq!(App::send(badges()).await.status, 200);
    clock.set(0);
    assert_eq!(App::send(badges()).await.status, 401);
    let line: serde_json::Value = serde_json::from_str(&pod.log()[0]).unwrap();
    let at: jiff::Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
    let ago = true_micros() - at.as_microsecond();
    assert!((YEAR..YEAR + HOUR).contains(&ago), "{line}");
}
