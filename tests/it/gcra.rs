//! The rate limiter's script by itself: whatever stands in its key, nobody is refused for longer than one burst.

use redis::Connection;

use crate::support::{RedisServer, scripts, until};

const KEY: &str = "unread:v1:{app-0:limit:tencent-unread}";

/// 20 ms of 1 ms calls: short, so that a test can wait for all of it.
const SHORT: Limit = Limit {
    emission: 1_000,
    burst: 20,
};

/// Microseconds for each call, and calls that may come at once.
#[derive(Clone, Copy)]
struct Limit {
    emission: i64,
    burst: i64,
}

impl Limit {
    fn whole(self) -> i64 {
        self.emission * self.burst
    }
}

/// What the script answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    granted: i64,
    remaining: i64,
    wait: i64,
    reset: i64,
}

struct Scene {
    _redis: RedisServer,
    connection: Connection,
    script: redis::Script,
}

impl Scene {
    fn new() -> Self {
        let redis = RedisServer::start();
        Self {
            connection: redis.connect(),
            _redis: redis,
            script: redis::Script::new(&scripts::text("gcra")),
        }
    }

    fn ask(&mut self, limit: Limit, calls: i64, owed: bool) -> redis::RedisResult<Answer> {
        let mut call = self.script.key(KEY);
        call.arg(limit.emission)
            .arg(limit.burst)
            .arg(calls)
            .arg(u8::from(owed));
        let (granted, remaining, wait, reset) = call.invoke(&mut self.connection)?;
        Ok(Answer {
            granted,
            remaining,
            wait,
            reset,
        })
    }

    #[track_caller]
    fn call(&mut self, limit: Limit) -> Answer {
        let said = self.ask(limit, 1, false).unwrap();
        assert!(said.wait <= limit.whole(), "{said:?}");
        assert!(said.reset <= limit.whole(), "{said:?}");
        said
    }

    fn raw<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        command.query(&mut self.connection).unwrap()
    }

    fn now(&mut self) -> i64 {
        let (seconds, micros): (i64, i64) = self.raw(&["TIME"]);
        seconds * 1_000_000 + micros
    }

    fn stored(&mut self) -> i64 {
        self.raw(&["GET", KEY])
    }

    /// As a clock that steps back by `ahead` leaves it: the value and its expiry are that far ahead.
    fn step_back(&mut self, ahead: i64) {
        let value = (self.now() + ahead).to_string();
        let expiry = (ahead / 1_000 + 1).to_string();
        let _: () = self.raw(&["SET", KEY, &value, "PX", &expiry]);
    }

    /// Waits by the server's clock, as a caller would who was told to.
    fn pass(&mut self, time: i64) {
        let from = self.now();
        until("time passes", || (self.now() >= from + time).then_some(()));
    }
}

const MILLISECOND: i64 = 1_000;
const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
const STEPS: [i64; 9] = [
    MILLISECOND,
    19 * MILLISECOND,
    21 * MILLISECOND,
    39 * MILLISECOND,
    100 * MILLISECOND,
    10 * SECOND,
    HOUR,
    30 * 24 * HOUR,
    365 * 24 * HOUR,
];

#[test]
fn a_clock_that_steps_back_costs_one_burst_at_most() {
    let mut scene = Scene::new();
    for ahead in STEPS {
        scene.step_back(ahead);
        let first = scene.call(SHORT);
        // One that asks again as soon as it may is let through: what it was told is true.
        if first.granted == 0 {
            assert!(first.wait > 0, "{ahead}: {first:?}");
            scene.pass(first.wait);
            let second = scene.call(SHORT);
            assert_eq!(second.granted, 1, "{ahead}: {first:?}, then {second:?}");
        }
        // The key is back in this clock's time, and so is its expiry.
        let furthest = scene.now() + 2 * SHORT.whole();
        assert!(scene.stored() <= furthest, "{ahead}");
        let expiry: i64 = scene.raw(&["PTTL", KEY]);
        assert!((0..=41).contains(&expiry), "{ahead}: expires in {expiry}");
    }
}

/// A flood at a limit whose clock stepped back: refusals put off nothing.
#[test]
fn refused_calls_do_not_make_the_wait_longer() {
    let mut scene = Scene::new();
    for ahead in [30 * MILLISECOND, HOUR] {
        scene.step_back(ahead);
        let from = scene.now();
        let mut granted = 0;
        while scene.now() < from + 3 * SHORT.whole() {
            granted += scene.call(SHORT).granted;
        }
        // All of the time but the first burst, and a few calls for what the loop itself takes.
        let due = 2 * SHORT.burst;
        assert!(granted >= due - 5, "{ahead}: {granted} of {due}");
    }
}

#[test]
fn a_clock_that_steps_lets_no_more_calls_through() {
    let mut scene = Scene::new();
    let slow = Limit {
        emission: SECOND,
        burst: 5,
    };
    for ahead in [6 * SECOND, HOUR, 365 * 24 * HOUR] {
        scene.step_back(ahead);
        let said = scene.ask(slow, 5, false).unwrap();
        assert_eq!(said.granted, 0, "{ahead}: {said:?}");
        assert!(
            (0..=5 * SECOND).contains(&said.wait) && said.reset == 5 * SECOND,
            "{ahead}: {said:?}"
        );
    }
}

/// What was let through on credit is charged past the point where nothing is left, up to a burst, and held against the
/// calls that follow. It is no clock that stepped back.
#[test]
fn a_debt_is_kept_up_to_one_burst() {
    let mut scene = Scene::new();
    let slow = Limit {
        emission: SECOND,
        burst: 10,
    };
    let from = scene.now();
    assert_eq!(scene.ask(slow, 10, false).unwrap().granted, 10);
    let said = scene.ask(slow, 4, true).unwrap();
    assert_eq!((said.granted, said.remaining), (4, 0));
    let owing = scene.stored();
    assert!((from + 14 * SECOND..=from + 15 * SECOND).contains(&owing));
    let refused = scene.call(slow);
    assert_eq!((refused.granted, refused.reset), (0, 10 * SECOND));
    assert!(
        (4 * SECOND..=5 * SECOND).contains(&refused.wait),
        "{refused:?}"
    );
    assert_eq!(scene.stored(), owing, "a refusal changed what is owed");
    // However much it is.
    let said = scene.ask(slow, 1_000, true).unwrap();
    assert_eq!((said.granted, said.wait), (1_000, 10 * SECOND));
    let refused = scene.call(slow);
    assert!(
        refused.granted == 0 && refused.wait > 9 * SECOND,
        "{refused:?}"
    );
}

#[test]
fn garbage_in_the_key_is_mended() {
    let mut scene = Scene::new();
    let texts = [
        "",
        "x",
        "nan",
        "-nan",
        "inf",
        "-inf",
        "1e999",
        "-1",
        "0",
        "0x10",
        "12 monkeys",
        "\0\u{fffd}",
        "99999999999999999999999999",
    ];
    for text in texts {
        let _: () = scene.raw(&["SET", KEY, text]);
        let said = scene.call(SHORT);
        if said.granted == 0 {
            scene.pass(said.wait);
            assert_eq!(scene.call(SHORT).granted, 1, "{text:?}: {said:?}");
        }
        let (now, stored): (_, Option<i64>) = (scene.now(), scene.raw(&["GET", KEY]));
        // On a busy machine the burst may be over by now, and the key with it.
        let is_mended = |stored| (now - SECOND..now + SECOND).contains(&stored);
        assert!(stored.is_none_or(is_mended), "{text:?}: {stored:?}");
    }
    for garbage in [
        &["LPUSH", KEY, "x"][..],
        &["HSET", KEY, "f", "v"],
        &["SADD", KEY, "x"],
        &["ZADD", KEY, "1", "x"],
        &["XADD", KEY, "*", "f", "v"],
    ] {
        let _: () = scene.raw(&["DEL", KEY]);
        let _: redis::Value = scene.raw(garbage);
        // Long enough for the key to be there still when it is looked at.
        let long = Limit {
            emission: 60 * SECOND,
            burst: 10,
        };
        let said = scene.call(long);
        assert_eq!((said.granted, said.remaining), (1, long.burst - 1));
        let kind: String = scene.raw(&["TYPE", KEY]);
        let expiry: i64 = scene.raw(&["PTTL", KEY]);
        assert!(kind == "string" && expiry > 0, "{garbage:?}");
    }
}

/// Whoever may not read the key hears of it: a limit that is never read would let everything through.
#[test]
fn a_refusal_by_redis_itself_is_told() {
    let mut scene = Scene::new();
    let _: () = scene.raw(&["ACL", "SETUSER", "default", "-get"]);
    let error = scene.ask(SHORT, 1, false).unwrap_err().to_string();
    // Redis 7.0 says the first, later versions and Valkey the second.
    let refusals = [
        "The user executing the script can't run this command",
        "ACL failure in script: User default has no permissions to run the 'get' command",
    ];
    assert!(refusals.iter().any(|why| error.contains(why)), "{error}");
}
