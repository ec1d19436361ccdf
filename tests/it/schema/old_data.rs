//! `0.1.0.events.ndjson` has events, and `0.1.0.redis.ndjson` what 0.1.0 (commit 285ad68) had in Redis after it had taken them,
//! one command a line; without times to live. Each time that the pod had accepted one of the last six events and had told nobody,
//! it was killed, so six jobs are left. No event is one that 0.1.0 understood otherwise than the definition of today: no message
//! has a `time` before that of an earlier one, and nobody writes to somebody who was only invited.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{COPIES, KEY, everything, readyz, schema};
use crate::support::check::{self, Questions};
use crate::support::clock::{Clock, MINUTE};
use crate::support::model::{Condition, Model, Outcome, RoomsQuery, SortBy};
use crate::support::servers::Cluster;
use crate::support::stopped::Wire;
use crate::support::{
    App, Config, Own, Pod, RedisServer, Wait, assert_no_drift, eventually, now_seconds, run_unread,
    unread, until,
};

/// When the commands were taken, in microseconds.
const TAKEN: i64 = 1_795_738_475_084_173;

fn lines(text: &str) -> impl Iterator<Item = Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap())
}

fn commands() -> impl Iterator<Item = Vec<String>> {
    lines(include_str!("0.1.0.redis.ndjson")).map(|line| serde_json::from_value(line).unwrap())
}

/// A server whose clock is a minute further than when the data were taken, with the data.
fn redis_with_old_data() -> RedisServer {
    let clock = Clock::new();
    clock.set(TAKEN + MINUTE - now_seconds() as i64 * 1_000_000);
    let redis = RedisServer::by_clock(&clock, &["--appendonly", "no"]);
    for command in commands() {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        redis.cli(&command);
    }
    redis
}

/// The model after all events, and how an event that makes a direct room names the two.
fn model() -> (Model, BTreeSet<(String, String)>) {
    let (mut model, mut pairs) = (Model::default(), BTreeSet::new());
    for event in lines(include_str!("0.1.0.events.ndjson")) {
        let outcome = model.apply(&event);
        assert!(
            matches!(outcome, Outcome::Applied(_)),
            "{event}: {outcome:?}"
        );
        if let (Some(sender), Some(to)) = (event["sender"].as_str(), event["to"].as_str()) {
            let (one, other) = (sender.min(to), sender.max(to));
            pairs.insert((one.to_owned(), other.to_owned()));
        }
    }
    // 0.1.0 did not keep who has left a direct room.
    for room in model.rooms.values_mut() {
        room.parted.clear();
    }
    (model, pairs)
}

/// The same with the ids of direct rooms as the data have them.
async fn learned(app: &App) -> Model {
    let (mut model, pairs) = model();
    for (one, other) in pairs {
        let rows = app.imkit_rooms(&one, &[]).await.ok();
        let rows = rows["result"]["data"].as_array().unwrap().iter();
        let room = rows.into_iter().find(|row| {
            let mut members = row["members"].as_array().unwrap().iter();
            row["roomType"] == "direct" && members.any(|member| member["_id"] == other.as_str())
        });
        let room = room.unwrap_or_else(|| panic!("no room of {one:?} and {other:?}"));
        model.learn(&one, &other, room["_id"].as_str().unwrap());
    }
    model
}

/// What the model says of everybody and of every room.
async fn agrees(app: &App, model: &Model) -> check::Check {
    let mut users: Vec<String> = model.users.keys().cloned().collect();
    users.extend(["zoe".to_owned(), "nobody".to_owned()]);
    check::many(app, model, &users).await?;
    let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let pref = |name, value: Value| RoomsQuery {
        pref: vec![(name, Condition::Equal(value))],
        ..RoomsQuery::default()
    };
    let ask = Questions {
        tags: texts(&[
            "work", "home", "a:b{c}*", "before", "after", "gone", "many", "moved", "none",
        ]),
        types: texts(&["support", "feed", "old-type", "new-type", "t|y%", "none"]),
        peers: texts(&[
            "alice", "bob", "carol", "dave", "erin", "stranger", "peer-0", "zoe", "nobody",
        ]),
        rooms: vec![
            RoomsQuery::default(),
            pref("hidden", true.into()),
            pref("sticky", true.into()),
            pref("muted", true.into()),
            pref("tags", "vip".into()),
            pref("folder", "F 1".into()),
            RoomsQuery {
                sort: vec![(SortBy::CreatedTime, false)],
                unread_first: true,
                ..RoomsQuery::default()
            },
            RoomsQuery {
                q: vec![("roomTags", Condition::Equal("work".into()))],
                ..RoomsQuery::default()
            },
        ],
    };
    for user in &users {
        check::user(app, model, user, &ask).await?;
    }
    let some = texts(&["alice", "bob", "carol", "frank", "zoe"]);
    for room in model.rooms.keys().map(String::as_str).chain(["gone"]) {
        check::room(app, model, room, &some).await?;
    }
    Ok(())
}

fn migrate(url: &str) -> String {
    let ran = run_unread(&["migrate", "--redis-url", url]);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_0_1_0_are_read_right_and_migrated() {
    let redis = redis_with_old_data();
    let url = redis.url();
    let doctor = run_unread(&["doctor", "--redis-url", &url]).stdout;
    assert!(
        doctor.contains("\nwarn  schema: the data are of schema 1"),
        "{doctor}"
    );
    let config = Config::apps(1);
    let pod = Pod::start(&config, &redis);
    let app = App::new(&config.apps[0], &pod.base);
    // Every number is right before it is migrated, too.
    let why = schema(&pod, "old");
    assert!(why.contains("run `unread migrate`"), "{why}");
    assert_eq!(readyz(&pod)["ready"], true);
    let model = learned(&app).await;
    eventually("the jobs that were left are done", || agrees(&app, &model)).await;
    assert_no_drift(&url, "app-0");

    // A version that is not theirs would be believed. Without it they are old data again.
    redis.cli(&["SET", KEY, "2 2"]);
    schema(&pod, "current");
    let wrong = agrees(&app, &model).await.unwrap_err();
    assert!(wrong.contains("unread_rooms"), "{wrong}");
    redis.cli(&["DEL", KEY]);
    schema(&pod, "old");
    agrees(&app, &model).await.unwrap();

    // Where no pod writes.
    drop((app, pod));
    let before = everything(&redis);
    let ran = run_unread(&["migrate", "--dry-run", "--redis-url", &url]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("nothing was written"), "{ran:?}");
    assert_eq!(everything(&redis), before);
    assert_eq!(redis.cli(&["EXISTS", KEY]), "0");

    let pod = Pod::start(&config, &redis);
    let app = App::new(&config.apps[0], &pod.base);
    schema(&pod, "old");
    let said = migrate(&url);
    assert!(said.starts_with("migrated to schema 2: "), "{said}");
    // With the moment: what 0.1.0 did not put down stays unknown.
    let value = redis.cli(&["GET", KEY]);
    let (version, since) = value.rsplit_once(' ').unwrap();
    assert_eq!(version, "2 2");
    let taken = TAKEN as u64 / 1_000_000;
    assert!(since.parse::<u64>().unwrap() > taken, "{value}");
    schema(&pod, "current");
    agrees(&app, &model).await.unwrap();
    assert_no_drift(&url, "app-0");

    drop((app, pod));
    let after = everything(&redis);
    assert_eq!(
        migrate(&url),
        "nothing to migrate: the data are of schema 2\n"
    );
    // Nor does it write anything but the version where that is gone.
    redis.cli(&["DEL", KEY]);
    assert_eq!(
        migrate(&url),
        "nothing to migrate: the data are of schema 2\n"
    );
    assert!(redis.cli(&["GET", KEY]).starts_with("2 2 "));
    assert_eq!(everything(&redis), after);
}

/// Migrated before any pod of this version has seen them, with all that was left unfinished.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_0_1_0_are_migrated_on_a_cluster() {
    let cluster = Cluster::start(5_000);
    for command in commands() {
        let mut words = vec!["-c"];
        words.extend(command.iter().map(String::as_str));
        cluster.nodes[0].cli(&words);
    }
    let url = cluster.operators_url();
    let said = migrate(&url);
    assert!(said.starts_with("migrated to schema 2: "), "{said}");
    for key in [&[KEY][..], &COPIES].concat() {
        let value = cluster.nodes[0].cli(&["-c", "GET", key]);
        assert!(value.starts_with("2 2 "), "{key}: {value}");
    }
    let config = Config::apps(1);
    let pod = Pod::start_at(&config, &cluster.url());
    assert_eq!(readyz(&pod)["components"]["schema"], "current");
    let app = App::new(&config.apps[0], &pod.base);
    let model = learned(&app).await;
    eventually("the jobs that were left are done", || agrees(&app, &model)).await;
    assert_no_drift(&url, "app-0");
}

/// 0.1.0 did not put down whom a message mentions: an edit of such a message takes the mentions of all others away all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_0_1_0_are_edited_recalled_and_read() {
    for migrated in [false, true] {
        let redis = redis_with_old_data();
        let url = redis.url();
        if migrated {
            migrate(&url);
        }
        let config = Config::apps(1);
        let pod = Pod::start(&config, &redis);
        let app = App::new(&config.apps[0], &pod.base);
        let mut model = learned(&app).await;
        eventually("the jobs that were left are done", || agrees(&app, &model)).await;
        let time = TAKEN / 1_000;
        let text = "another";
        for event in [
            // A list, everybody and nobody, in the place of a list, of everybody and of nobody; the same again.
            json!({"type": "message.updated", "room": "orders", "id": "o9", "mentions": ["bob"], "time": time}),
            json!({"type": "message.updated", "room": "orders", "id": "o9", "mentions": ["bob"], "time": time}),
            json!({"type": "message.updated", "room": "orders", "id": "late1", "mentions": [], "time": time}),
            json!({"type": "message.updated", "room": "orders", "id": "late1", "mentions": [], "time": time}),
            json!({"type": "message.updated", "room": "orders", "id": "late1", "mentions": "all", "text": text, "time": time}),
            json!({"type": "message.updated", "room": "plain", "id": "late2", "mentions": ["dave"], "time": time}),
            json!({"type": "message.updated", "room": "plain", "id": "pl1", "mentions": ["dave"], "time": time}),
            json!({"type": "message.updated", "room": "pair", "id": "p2", "mentions": [], "time": time}),
            // In supergroups: one that was a group before, and one that was not.
            json!({"type": "message.updated", "room": "grown", "id": "m30", "mentions": ["carol"], "time": time}),
            json!({"type": "message.updated", "room": "grown", "id": "g1", "mentions": [], "time": time}),
            json!({"type": "message.updated", "room": "grown", "id": "g2", "mentions": ["dave"], "time": time}),
            json!({"type": "message.updated", "room": "news", "id": "n9", "mentions": ["alice", "dave"], "time": time}),
            json!({"type": "message.updated", "room": "news", "id": "n9", "mentions": "all", "time": time}),
            json!({"type": "message.recalled", "room": "orders", "id": "late1", "time": time}),
            json!({"type": "message.recalled", "room": "news", "id": "m23", "time": time}),
            json!({"type": "room.read", "room": "family", "user": "erin", "up_to_id": "m10", "time": time}),
            json!({"type": "room.read", "room": "retagged", "user": "alice", "up_to_position": 3, "time": time}),
            json!({"type": "pref.updated", "room": "plain", "user": "alice", "count": "mentions", "time": time}),
            json!({"type": "room.cleared", "room": "news", "up_to_position": 2, "time": time}),
            json!({"type": "message.sent", "room": "plain", "id": "new", "sender": "erin", "mentions": ["bob"], "time": time}),
            json!({"type": "message.sent", "to": "alice", "sender": "bob", "id": "new", "time": time}),
        ] {
            let expected = model.apply(&event);
            let reply = app.events(&event, Wait::Applied).await;
            check::results(&[event], &reply, &[expected], false).unwrap();
        }
        agrees(&app, &model).await.unwrap();
        assert_no_drift(&url, "app-0");
        if !migrated {
            schema(&pod, "old");
            migrate(&url);
            schema(&pod, "current");
            agrees(&app, &model).await.unwrap();
            assert_no_drift(&url, "app-0");
        }
    }
}

/// Users whose numbers of unread rooms are there.
fn with_unread_rooms(redis: &RedisServer) -> u64 {
    let count = "local n = 0 for _, key in ipairs(redis.call('KEYS', 'unread:v1:*}:counts')) do \
                 n = n + redis.call('HEXISTS', key, 'unread_rooms:group') end return n";
    redis.cli(&["EVAL", count, "0"]).parse().unwrap()
}

/// Killed after it has changed a part of the users, it goes on when it is run again. Pods are right all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_was_killed_is_finished_by_the_next_one() {
    const USERS: u64 = 450;
    let own = Own::start("");
    let users: Vec<String> = (0..USERS).map(|n| format!("user-{n}")).collect();
    own.app
        .must(&json!([
            {"type": "room.updated", "room": "r"},
            {"type": "member.joined", "room": "r", "users": users},
            {"type": "message.sent", "room": "r", "id": "1"},
        ]))
        .await;
    // As an earlier version leaves them.
    own.redis.cli(&["DEL", KEY]);
    let forget = "for _, key in ipairs(redis.call('KEYS', 'unread:v1:*}:counts')) do \
                redis.call('HDEL', key, 'unread_rooms:group') end";
    own.redis.cli(&["EVAL", forget, "0"]);
    assert_eq!(with_unread_rooms(&own.redis), 0);
    let right = || async {
        for user in ["user-0", "user-200", "user-449"] {
            let said = own.app.unread(user, false).await.ok();
            assert_eq!(said["unread_rooms"]["total"], 1, "{said}");
        }
        let said = own.app.unread_many(&["user-1", "user-448"]).await.ok();
        assert_eq!(
            said["users"]["user-448"]["unread_rooms"]["group"], 1,
            "{said}"
        );
    };
    schema(&own.pod, "old");
    right().await;

    let wire = Wire::to(&own.redis);
    let mut command = unread();
    command.args(["migrate", "--redis-url", &wire.url()]);
    // The end of the first call that writes: not that of a look, which has a 0.
    wire.hold_at_text(":rooms\r\n$1\r\n1\r\n");
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    until("some users are migrated", || {
        (wire.is_holding() && with_unread_rooms(&own.redis) > 0).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    drop(wire);
    let done = with_unread_rooms(&own.redis);
    assert!(done < USERS, "{done}");
    assert_eq!(own.redis.cli(&["EXISTS", KEY]), "0");
    assert_eq!(readyz(&own.pod)["components"]["schema"], "old");
    right().await;

    let said = migrate(&own.redis.url());
    let rest = USERS - done;
    let text = format!("migrated to schema 2: {rest} of {USERS} users changed\n");
    assert_eq!(said, text);
    assert_eq!(with_unread_rooms(&own.redis), USERS);
    schema(&own.pod, "current");
    right().await;
    assert_no_drift(&own.redis.url(), "app-0");
}

/// What can't be read is not migrated, and holds up the version until it is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_read_holds_a_migration_up() {
    let redis = redis_with_old_data();
    let url = redis.url();
    redis.cli(&["HSET", "unread:v1:{app-0:u:bob}:rooms", "orders", "garbage"]);
    for _ in 0..2 {
        let ran = run_unread(&["migrate", "--redis-url", &url, "--json"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        let said = ran.json();
        assert_eq!(
            (&said["unreadable"], &said["migrated"]),
            (&json!(1), &json!(false))
        );
        assert_eq!(redis.cli(&["EXISTS", KEY]), "0");
    }
    let ran = run_unread(&["migrate", "--redis-url", &url]);
    assert!(
        ran.stdout
            .contains("1 user can't be read; `unread rebuild --mend`"),
        "{ran:?}"
    );
    let ran = run_unread(&["rebuild", "--mend", "--redis-url", &url]);
    assert!(ran.stdout.contains("garbage"), "{ran:?}");
    migrate(&url);
    assert!(redis.cli(&["GET", KEY]).starts_with("2 2 "));
}

/// A pod of an earlier version can't read a short entry. It may run until the data are migrated, and the clocks of two servers may
/// differ by a day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_members_are_short_once_the_data_are_migrated() {
    let redis = redis_with_old_data();
    let config = Config::apps(1);
    let pod = Pod::start(&config, &redis);
    let app = App::new(&config.apps[0], &pod.base);
    schema(&pod, "old");
    let made = json!({"type": "room.updated", "room": "later"});
    let joined = |user: &str| json!({"type": "member.joined", "room": "later", "user": user});
    let entry = |user: &str| redis.cli(&["HGET", "unread:v1:{app-0:r:later}:members", user]);
    app.must(&json!([made, joined("al")])).await;
    let long = entry("al");
    assert!(long.starts_with("j|") && long.ends_with("|0"), "{long}");

    migrate(&redis.url());
    schema(&pod, "current");
    app.must(&joined("bo")).await;
    assert!(entry("bo").starts_with("j|"), "{}", entry("bo"));
    // The day is over. The pod looks at it once a second.
    let version = redis.cli(&["GET", KEY]);
    let (_, migrated) = version.rsplit_once(' ').unwrap();
    let earlier = migrated.parse::<u64>().unwrap() - 3 * 24 * 3600;
    redis.cli(&["SET", KEY, &format!("2 2 {earlier}")]);
    eventually("entries are short", || async {
        let left = json!({"type": "member.left", "room": "later", "user": "bo"});
        app.must(&json!([left, joined("bo")])).await;
        let entry = entry("bo");
        match entry.contains('|') {
            true => Err(entry),
            false => Ok(()),
        }
    })
    .await;
    let short = entry("bo");
    assert_eq!(short.len(), 10, "{short}");
    app.must(&json!({"type": "message.sent", "room": "later", "id": "1", "sender": "al"}))
        .await;
    app.must(&joined("cy")).await;
    assert_eq!(entry("cy").len(), 12);
    assert!(entry("cy").ends_with("|1"));
    // The room writes out the entry of a member who has read.
    app.must(&json!({"type": "room.read", "room": "later", "user": "bo"}))
        .await;
    let read = entry("bo");
    assert!(read.starts_with(&format!("j|{short}|0h")), "{read}");
    app.must(&json!({"type": "message.sent", "room": "later", "id": "2", "sender": "bo"}))
        .await;
    for (user, unread) in [("al", 1), ("bo", 0), ("cy", 1)] {
        let members = app.room_unread("later", Some(&[user])).await.ok();
        assert_eq!(members["unread"][user], unread, "{user}");
    }
}
