//! Poisoned data: every key of a user's and a room's slot becomes one of another type, or holds what no version writes.
//!
//! Each case has an app of its own with the same users and rooms, so that one run of a command meets all of them: what one
//! poison hides from it shows in the others.

/// What is sent of each app, and its model.
mod story;

/// What the endpoints answer: what is right, or an error.
mod answers;

/// Calls that meet poisoned data: what they leave undone, and what they do all the same.
mod beside;

/// Which poison goes where.
mod cases;

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use self::answers::{all_right, none_failed, questions, right_or_error};
use self::cases::{After, Bytes, Case, cases, command, shown};
use crate::support::check::{self, Questions};
use crate::support::{App, Config, Pod, RedisServer, Wait, eventually, run_unread};

const PEOPLE: [&str; 4] = ["alice", "erin", "bob", "carol"];

struct Attack {
    redis: RedisServer,
    pod: Pod,
    apps: Vec<App>,
}

impl Attack {
    /// So many apps with the history in them.
    async fn new(count: usize) -> Self {
        let redis = RedisServer::start();
        let config = Config::apps(count);
        let pod = Pod::start(&config, &redis);
        let apps: Vec<App> = config
            .apps
            .iter()
            .map(|keys| App::new(keys, &pod.base))
            .collect();
        let events: Value = story::history().into();
        stream::iter(&apps)
            .for_each_concurrent(8, |app| {
                let events = &events;
                async move {
                    app.must(events).await;
                }
            })
            .await;
        Self { redis, pod, apps }
    }

    fn send(&self, commands: impl IntoIterator<Item = Vec<Bytes>>) {
        let mut connection = self.redis.connect();
        for words in commands {
            let mut cmd = redis::Cmd::new();
            for word in &words {
                cmd.arg(word);
            }
            let answer = cmd.query::<redis::Value>(&mut connection);
            assert!(answer.is_ok(), "{answer:?}: {words:?}");
        }
    }

    fn run(&self, command: &str, more: &[&str]) -> (i32, Value) {
        let url = self.redis.url();
        let ran = run_unread(&[&[command, "--redis-url", &url, "--json"], more].concat());
        assert!(ran.code < 2, "{ran:?}");
        (ran.code, ran.json())
    }
}

/// The words of a case, of one of the apps.
fn filled(words: &[Bytes], app: usize) -> Vec<Bytes> {
    let prefix = format!("unread:v1:{{app-{app}:");
    words
        .iter()
        .map(|word| match word.strip_prefix(b"{}") {
            Some(rest) => [prefix.as_bytes(), rest].concat(),
            None => word.clone(),
        })
        .collect()
}

/// App, key and field of all that was named.
fn named(result: &Value) -> BTreeSet<(usize, String, Option<String>)> {
    let rows = result["unreadable"].as_array().unwrap();
    assert_eq!(result["unreadable_total"], rows.len(), "{result}");
    rows.iter()
        .map(|row| {
            let key = row["key"].as_str().unwrap();
            let (app, key) = key
                .strip_prefix("unread:v1:{app-")
                .and_then(|rest| rest.split_once(':'))
                .unwrap_or_else(|| panic!("{row}"));
            let field = row["field"].as_str();
            assert!(
                row["reason"].as_str().is_some_and(|why| !why.is_empty()),
                "{row}"
            );
            let field = field.map(|field| field.chars().take(60).collect());
            (app.parse().unwrap(), key.to_owned(), field)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_named_and_hides_nothing_else() {
    let cases = cases();
    let attack = Attack::new(cases.len() + 1).await;
    let (code, clean) = attack.run("verify", &[]);
    assert_eq!(code, 0, "{clean}");
    let commands = cases.iter().zip(1..).flat_map(|(case, app)| {
        let commands = case.commands.iter();
        commands.map(move |words| filled(words, app))
    });
    attack.send(commands);

    // All are named, and nothing else.
    let expected = |asked: &dyn Fn(&Case) -> bool| -> BTreeSet<_> {
        let cases = cases.iter().zip(1..).filter(|(case, _)| asked(case));
        cases
            .flat_map(|(case, app)| {
                let named = case.named.iter();
                named.map(move |(key, field)| {
                    let field = field.as_ref().map(|field| field.chars().take(60).collect());
                    (app, key.clone(), field)
                })
            })
            .collect()
    };
    let differs = |found: &BTreeSet<(usize, String, Option<String>)>, wanted: &BTreeSet<_>| {
        let of = |(app, key, field): &(usize, String, Option<String>)| {
            format!(
                "{key} {field:?} ({})",
                app.checked_sub(1).map_or("nothing", |at| &cases[at].what)
            )
        };
        let missing: Vec<String> = wanted.difference(found).map(of).collect();
        let more: Vec<String> = found.difference(wanted).map(of).collect();
        assert!(
            missing.is_empty() && more.is_empty(),
            "not named: {missing:#?}\nnamed as well: {more:#?}"
        );
    };
    let (code, result) = attack.run("verify", &[]);
    assert_eq!(code, 1);
    differs(&named(&result), &expected(&|_| true));
    assert_eq!(result["users"], clean["users"], "all users were looked at");

    // Who has nothing to do with it is served; the others get what is right, or an error in their dialect.
    let (model, ask) = (story::model(None), questions());
    let failed: Vec<String> = stream::iter(attack.apps.iter().enumerate())
        .map(|(at, app)| {
            let (model, ask) = (&model, &ask);
            let cases = &cases;
            async move {
                let case = at.checked_sub(1).map(|at| &cases[at]);
                let what = case.map_or("nothing", |case| &case.what);
                let limited = what == "a limit is a list";
                // Who has a profile that can't be read is shown without one.
                let profile = what.starts_with("u:alice}:profile");
                let ask = Questions {
                    rooms: ask.rooms.iter().filter(|_| !profile).cloned().collect(),
                    ..ask.clone()
                };
                let mut failed = Vec::new();
                if !limited && let Err(why) = check::user(app, model, "carol", &ask).await {
                    failed.push(format!("{what}: {why}"));
                }
                let erin = what.contains("erin") || what.starts_with("r:");
                let hit = &["alice", "bob", "erin"][..if erin { 3 } else { 2 }];
                for user in hit {
                    if let Err(why) = right_or_error(app, model, user).await {
                        failed.push(format!("{what}: {why}"));
                    }
                }
                failed
            }
        })
        .buffer_unordered(4)
        .collect::<Vec<_>>()
        .await
        .concat();
    none_failed(&failed);
    let log = attack.pod.log();
    for line in &log {
        assert!(!line.contains("panicked"), "{line}");
        for name in PEOPLE {
            assert!(!line.contains(name), "{line}");
        }
    }
    let hashes: BTreeSet<&str> = result["unreadable"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|row| row["log"].as_str())
        .collect();
    let said = log
        .iter()
        .filter(|line| hashes.iter().any(|hash| line.contains(hash)))
        .count();
    assert!(said > 100, "{said} lines of the log say which key it is");
    let metrics = attack.pod.admin_get("/metrics").unwrap();
    for kind in ["user_counts", "user_rooms", "room_meta"] {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(&format!("unread_unreadable_total{{key=\"{kind}\"}}")));
        assert!(line.is_some(), "{kind}: {metrics}");
    }

    // Without being asked the repair makes anew what follows from other data, and leaves the rest alone.
    let (code, result) = attack.run("rebuild", &[]);
    assert_eq!(code, 1);
    let rest = expected(&|case| !case.derived);
    differs(&named(&result), &rest);
    let (code, result) = attack.run("verify", &[]);
    assert_eq!(code, 1);
    differs(&named(&result), &rest);
    // What would be done is told.
    let (code, tried) = attack.run("rebuild", &["--mend", "--dry-run"]);
    assert_eq!((code, &tried["mended_total"]), (1, &json!(rest.len())));
    let (_, again) = attack.run("verify", &[]);
    assert_eq!(named(&again), named(&result));

    // Asked, it mends and removes.
    let (code, mended) = attack.run("rebuild", &["--mend"]);
    let rows = mended["mended"].as_array().unwrap();
    assert!(rows.len() >= rest.len());
    assert_eq!(
        code,
        0,
        "{}",
        json!([
            mended["unreadable"],
            mended["rebuilt"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|row| row["left"] != json!([]))
                .collect::<Vec<_>>()
        ])
    );
    let (code, result) = attack.run("verify", &[]);
    assert_eq!(code, 0, "{result}");
    assert_eq!(
        (&result["drift"], &result["unreadable_total"]),
        (&json!([]), &json!(0))
    );
    let unread = story::model(Some("erin"));
    let failed: Vec<String> = stream::iter(attack.apps.iter().enumerate())
        .map(|(at, app)| {
            let case = at.checked_sub(1).map(|at| &cases[at]);
            let (model, unread) = (&model, &unread);
            async move {
                let what = case.map_or("nothing", |case| &case.what);
                let after = case.map_or(After::Same, |case| case.after);
                let mut model = match after {
                    After::Unread(_) => unread.clone(),
                    _ => model.clone(),
                };
                let check = async {
                    if after == After::Less {
                        for user in PEOPLE {
                            check::sums(app, user).await?;
                        }
                        return Ok(());
                    }
                    let rooms = after != After::Counts;
                    let erin = what.contains("erin") || what.contains("r:");
                    let hit = &["alice", "erin"][..if erin { 2 } else { 1 }];
                    all_right(app, &model, rooms, hit).await?;
                    // A message that is known stays known, and all goes on as it would have.
                    let old = story::history()
                        .into_iter()
                        .find(|event| event["id"] == "g4")
                        .unwrap();
                    let result = app.must(&json!([old])).await;
                    if result[0]["status"] != "duplicate" {
                        return Err(format!("{result:?}"));
                    }
                    let events = story::more(&mut model);
                    app.must(&events.into()).await;
                    let people = PEOPLE.map(str::to_owned);
                    check::many(app, &model, &people).await
                };
                check
                    .await
                    .err()
                    .map(|why: String| format!("{what}: {why}"))
            }
        })
        .buffer_unordered(4)
        .filter_map(std::future::ready)
        .collect()
        .await;
    none_failed(&failed);
    let (code, result) = attack.run("verify", &[]);
    assert_eq!(code, 0, "{result}");
}

/// One sixteenth of all rooms is announced in each index, and recovery finds by it what a dead pod has left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_that_cannot_be_read_are_mended_and_nothing_pending_is_lost() {
    let attack = Attack::new(1).await;
    let app = &attack.apps[0];
    // As a pod leaves it that has died before it told anybody.
    let pending = "unread:v1:{app-0:r:group}:pending";
    attack
        .redis
        .cli(&["HSET", pending, "1700000000000000", "1\nall"]);
    let key = |n: usize, what: &str| format!("unread:v1:{{pending:{n}}}:{what}");
    let mut commands = Vec::new();
    let mut wanted = BTreeSet::new();
    for n in 0..16 {
        let (index, look) = (key(n, "index"), key(n, "look"));
        for (key, poison) in [(&index, "list"), (&look, "string")] {
            let key = key.as_bytes();
            if n % 2 == 0 {
                let put = match poison {
                    "list" => command(&[b"RPUSH", key, b"poison"]),
                    _ => command(&[b"SET", key, b"poison"]),
                };
                commands.extend([command(&[b"DEL", key]), put]);
                wanted.insert((key.to_vec(), None));
                continue;
            }
            let entries: [(&[u8], &[u8]); 5] = [
                (b"1", b"foreign"),
                (b"1", b"app-0:r:a b"),
                (b"1", b"app-0:x:a"),
                (b"1", b"\xff\xfe"),
                (b"inf", b"app-0:r:far"),
            ];
            for (score, entry) in entries {
                commands.push(command(&[b"ZADD", key, score, entry]));
                wanted.insert((key.to_vec(), Some(shown(entry))));
            }
        }
    }
    // Keys of nobody, and of an app that is not configured.
    let nobody: [&[u8]; 6] = [
        b"unread:v1:plain",
        b"unread:v1:{pending:99}:index",
        b"unread:v1:{pending:3}:other",
        b"unread:v1:{}:counts",
        b"unread:v1:{ghost:u:x}:rooms",
        b"unread:v1:\xff",
    ];
    for key in nobody {
        commands.push(command(&[b"SET", key, b"poison"]));
        wanted.insert((shown(key).into_bytes(), None));
    }
    commands.push(command(&[b"RPUSH", b"unread:v1:{durable:3}", b"poison"]));
    wanted.insert((b"unread:v1:{durable:3}".to_vec(), None));
    attack.send(commands);
    let named = |result: &Value| -> BTreeSet<(Bytes, Option<String>)> {
        let rows = result["unreadable"].as_array().unwrap().iter();
        rows.map(|row| {
            let field = row["field"].as_str().map(str::to_owned);
            (row["key"].as_str().unwrap().into(), field)
        })
        .collect()
    };
    let (code, result) = attack.run("verify", &[]);
    assert_eq!((code, named(&result)), (1, wanted.clone()));
    // What is asked does not depend on them.
    let model = story::model(None);
    all_right(app, &model, true, &["alice", "erin"])
        .await
        .unwrap();
    let (code, result) = attack.run("rebuild", &[]);
    assert_eq!((code, named(&result)), (1, wanted));
    let (code, result) = attack.run("rebuild", &["--mend"]);
    assert_eq!(code, 0, "{result}");
    let (code, result) = attack.run("verify", &[]);
    assert_eq!(code, 0, "{result}");
    // What was pending is announced again, found and finished.
    eventually("the fan-out is finished", || async {
        match attack.redis.cli(&["HLEN", pending]).as_str() {
            "0" => Ok(()),
            n => Err(format!("{n} pending")),
        }
    })
    .await;
    let mut model = model;
    app.must(&story::more(&mut model).into()).await;
    all_right(app, &model, true, &["alice", "erin"])
        .await
        .unwrap();
}

/// Numbers that a script would count down from, or up to, for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_number_keeps_redis_or_a_pod_busy() {
    let attack = Attack::new(1).await;
    let app = &attack.apps[0];
    let meta = "unread:v1:{app-0:r:group}:meta";
    let right = attack.redis.cli(&["HGETALL", meta]);
    let right: Vec<&str> = right.lines().collect();
    let events = |n: usize| {
        [
            json!({"type": "member.joined", "room": "group", "user": format!("new {n}")}),
            json!({"type": "member.left", "room": "group", "user": "erin"}),
            json!({"type": "message.sent", "room": "group", "id": format!("n{n}"), "sender": "bob"}),
            json!({"type": "message.recalled", "room": "group", "id": "g4"}),
            json!({"type": "room.read", "room": "group", "user": "bob"}),
            json!({"type": "room.updated", "room": "group", "name": "other"}),
            json!({"type": "pref.updated", "room": "group", "user": "bob", "muted": true}),
        ]
    };
    let huge = [
        "inf",
        "-inf",
        "nan",
        "1e308",
        "-1e308",
        "9007199254740993",
        "0x7fffffffffffffff",
    ];
    for (n, value) in huge.iter().enumerate() {
        for field in [
            "rev", "born", "mrev", "head", "accepted", "mintime", "maxtime", "last_at",
        ] {
            attack.redis.cli(&["HSET", meta, field, value]);
            for event in events(n) {
                let reply = app.events(&event, Wait::Applied).await;
                assert!(
                    matches!(reply.status, 200 | 500),
                    "{field} {value} {event}: {reply:?}"
                );
            }
            app.unread("carol", true).await.ok();
            assert_eq!(attack.redis.cli(&["PING"]), "PONG", "{field} {value}");
            attack
                .redis
                .cli(&["DEL", meta, "unread:v1:{app-0:r:group}:pending"]);
            let mut restore = vec!["HSET", meta];
            restore.extend(&right);
            attack.redis.cli(&restore);
        }
    }
    let log = attack.pod.log().join("\n");
    assert!(!log.contains("panicked"), "{log}");
}
