//! Supergroups that watched users are in: a change of one is worked out for all of them at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::message;
use crate::support::stream::Events;
use crate::support::{App, Own, PATIENCE, RedisServer, eventually, until};

/// Less than after which a user is read again whatever is heard, unless the user is watched only since lately. What a test does before
/// it waits takes part of that time.
const BEFORE_A_SWEEP: Duration = Duration::from_secs(5);

fn supergroup(room: &str, users: &[String]) -> Value {
    json!([
        {"type": "room.updated", "room": room, "kind": "supergroup"},
        {"type": "member.joined", "room": room, "users": users},
    ])
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("u{n}")).collect()
}

/// A stream of users, and what it said last of each.
struct Stream {
    events: Events,
    told: BTreeMap<String, Value>,
}

impl Stream {
    async fn of(app: &App, users: &[String]) -> Self {
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        Self {
            events: app.watch_users(&users).await,
            told: BTreeMap::new(),
        }
    }

    /// Reads until this holds of every user's totals, and answers how long that took.
    async fn until(
        &mut self,
        users: &[String],
        what: &str,
        is: impl Fn(&str, &Value) -> bool,
    ) -> Duration {
        let begun = Instant::now();
        let done = |told: &BTreeMap<String, Value>| {
            let is = |user: &String| told.get(user).is_some_and(|totals| is(user, totals));
            users.iter().all(is)
        };
        while !done(&self.told) {
            let wait = PATIENCE.saturating_sub(begun.elapsed());
            let counts = tokio::time::timeout(wait, self.events.counts()).await;
            let counts = counts.unwrap_or_else(|_| panic!("not told {what}: {:?}", self.told));
            self.told
                .insert(counts["user"].as_str().unwrap().to_owned(), counts);
        }
        begun.elapsed()
    }
}

/// How often watched users were read: each read sets a mark in this way. So does each look at one of their supergroups.
fn reads(redis: &RedisServer) -> u64 {
    redis.calls().get("hsetnx").copied().unwrap_or(0)
}

/// Waits until users are no longer read every second, as all are at first, so that a change that nobody hears of is seen late.
async fn settled(redis: &RedisServer) {
    let mut last = (reads(redis), Instant::now());
    eventually("users are read less often", || {
        let now = reads(redis);
        if now != last.0 {
            last = (now, Instant::now());
        }
        let (quiet, is_read) = (last.1.elapsed(), now > 0);
        async move {
            match is_read && quiet > Duration::from_secs(2) {
                true => Ok(()),
                false => Err(format!("{now} reads, the last {quiet:?} ago")),
            }
        }
    })
    .await;
}

/// Each message is sent as soon as the streams have shown the one before.
#[tokio::test]
async fn messages_do_not_have_every_user_of_a_supergroup_read() {
    const MESSAGES: u64 = 20;
    let Own {
        app,
        redis,
        pod: _pod,
        ..
    } = Own::start("");
    let users = names(200);
    app.must(&supergroup("r", &users)).await;
    let mut stream = Stream::of(&app, &users).await;
    settled(&redis).await;
    let before = reads(&redis);
    for total in 1..=MESSAGES {
        app.must(&message("r", "writer", &total.to_string())).await;
        let is_told = |_: &str, totals: &Value| totals["messages"]["supergroup"] == total;
        stream.until(&users, "of a message", is_told).await;
    }
    // One by one, these would be 200 for each message. In between all may be read again as all are every ten seconds.
    let made = reads(&redis) - before;
    assert!(
        made < 200 * MESSAGES / 4,
        "{made} reads for {MESSAGES} messages to 200 users"
    );
}

/// What supergroups add comes when the window of the user is over, as one, and without a read of the user.
#[tokio::test]
async fn a_supergroup_is_asked_also_for_users_who_were_told_something_just_now() {
    const ROUNDS: u64 = 3;
    const USERS: usize = 20;
    let window = Duration::from_secs(1);
    let Own {
        app,
        redis,
        pod: _pod,
        ..
    } = Own::start("[live]\nwindow_ms = 1000\n");
    let users = names(USERS);
    app.must(&supergroup("r", &users)).await;
    app.must(&supergroup("s", &users)).await;
    let in_group: Vec<&str> = users.iter().map(String::as_str).collect();
    app.must(&super::group("g", &in_group)).await;
    let mut stream = Stream::of(&app, &users).await;
    let total = |n: u64| move |_: &str, totals: &Value| totals["messages"]["total"] == n;
    settled(&redis).await;
    let before = reads(&redis);
    for round in 0..ROUNDS {
        let said = 3 * round;
        app.must(&message("g", "writer", &round.to_string())).await;
        stream.until(&users, "of the group", total(said + 1)).await;
        let told = Instant::now();
        let both = ["r", "s"].map(|room| message(room, "writer", &round.to_string()));
        app.must(&json!(both)).await;
        for _ in 0..USERS {
            let counts = stream.events.counts().await;
            assert_eq!(counts["messages"]["total"], said + 3, "{counts}");
        }
        let took = told.elapsed();
        assert!(took > window / 2, "told after {took:?}");
    }
    // One of each user for what happens in the group, and perhaps a further one since all are read again every ten seconds.
    let made = reads(&redis) - before;
    assert!(
        made < ROUNDS * USERS as u64 * 3 / 2,
        "{made} reads in {ROUNDS} rounds"
    );
}

#[tokio::test]
async fn what_a_supergroup_adds_is_told_soon_whatever_happens_in_it() {
    let Own {
        app,
        redis,
        pod: _pod,
        ..
    } = Own::start("");
    let users = names(4);
    app.must(&supergroup("r", &users)).await;
    app.must(&supergroup("s", &users)).await;
    app.must(&json!([
        {"type": "room.updated", "room": "g", "kind": "group"},
        {"type": "member.joined", "room": "g", "users": users},
        {"type": "member.invited", "room": "r", "users": ["u4"]},
        {"type": "pref.updated", "room": "r", "user": "u2", "count": "mentions"},
        message("s", "writer", "1"),
        message("g", "writer", "1"),
    ]))
    .await;
    let watched = names(5);
    let mut stream = Stream::of(&app, &watched).await;
    settled(&redis).await;
    let named = |id: &str, mentions: Value| json!({"type": "message.sent", "room": "r", "sender": "u0", "id": id, "mentions": mentions});
    for event in [
        message("r", "writer", "1"),
        named("2", json!("all")),
        named("3", json!(["u1", "u2"])),
        json!({"type": "message.sent", "room": "r", "id": "4", "sender": "u1", "mark_read": false, "except": ["u3"]}),
        json!({"type": "room.read", "room": "r", "user": "u3", "up_to_position": 2}),
        json!({"type": "message.recalled", "room": "r", "id": "2"}),
        json!({"type": "counts.set", "room": "r", "user": "u1", "unread": 9, "mentions": 4}),
        json!({"type": "message.updated", "room": "r", "id": "3", "mentions": "all"}),
        json!({"type": "room.unread", "room": "r", "user": "u3", "from_position": 1}),
        json!({"type": "pref.updated", "room": "r", "user": "u2", "count": "none"}),
        message("r", "u2", "5"),
        json!({"type": "room.updated", "room": "r", "status": 0}),
        message("r", "writer", "6"),
        json!({"type": "room.updated", "room": "r", "status": 1}),
        json!({"type": "room.cleared", "room": "r", "up_to_position": 4}),
        json!({"type": "member.joined", "room": "r", "users": ["u4"]}),
        message("r", "writer", "7"),
        json!({"type": "member.left", "room": "r", "users": ["u1"]}),
        message("r", "writer", "8"),
        json!({"type": "room.deleted", "room": "r"}),
    ] {
        app.must(&event).await;
        let mut read = BTreeMap::new();
        for user in &watched {
            read.insert(user.clone(), super::read(&app, user).await);
        }
        let is_read = |user: &str, totals: &Value| *totals == read[user];
        let took = stream.until(&watched, &event.to_string(), is_read).await;
        assert!(took < BEFORE_A_SWEEP, "{event} was told after {took:?}");
    }
}

#[tokio::test]
async fn busy_supergroups_do_not_keep_others_waiting() {
    let Own {
        app,
        redis,
        pod: _pod,
        ..
    } = Own::start("");
    let users = names(300);
    for users in users.chunks(100) {
        let made: Vec<Value> = users
            .iter()
            .flat_map(|user| {
                let made = supergroup(&format!("of {user}"), std::slice::from_ref(user));
                made.as_array().unwrap().clone()
            })
            .collect();
        app.must(&json!(made)).await;
    }
    let mut stream = Stream::of(&app, &users).await;
    settled(&redis).await;
    let writer = {
        let (app, users) = (app.clone(), users.clone());
        tokio::spawn(async move {
            for n in 1.. {
                for users in users.chunks(100) {
                    let sent = |user| message(&format!("of {user}"), "writer", &n.to_string());
                    let sent: Vec<Value> = users.iter().map(sent).collect();
                    app.must(&json!(sent)).await;
                }
            }
        })
    };
    // So often are all of them told, while all rooms change all the time.
    for _ in 0..5 {
        let before: BTreeMap<String, u64> = (stream.told.iter())
            .map(|(user, totals)| (user.clone(), totals["messages"]["total"].as_u64().unwrap()))
            .collect();
        let is_further = |user: &str, totals: &Value| {
            totals["messages"]["total"].as_u64().unwrap() > before.get(user).copied().unwrap_or(0)
        };
        let took = stream.until(&users, "in time", is_further).await;
        assert!(took < BEFORE_A_SWEEP, "all were told after {took:?}");
    }
    writer.abort();
}

/// One of the supergroups can't be looked at, the others can. It is tried again as soon as a user who can't be read.
#[tokio::test]
async fn a_supergroup_that_can_not_be_looked_at_is_tried_again_soon() {
    let Own {
        app,
        redis,
        pod: _pod,
        ..
    } = Own::start("");
    let users = names(1);
    app.must(&supergroup("r", &users)).await;
    app.must(&supergroup("s", &users)).await;
    let mut stream = Stream::of(&app, &users).await;
    settled(&redis).await;
    let slot = format!("unread:v1:{{{}:r:r}}", app.keys.id);
    let (meta, away, channel) = (
        format!("{slot}:meta"),
        format!("{slot}:away"),
        format!("{slot}:live"),
    );
    assert_eq!(redis.cli(&["HDEL", &meta, "live"]), "1");
    redis.cli(&["RENAME", &meta, &away]);
    redis.cli(&["SET", &meta, "no hash"]);
    assert_eq!(redis.cli(&["SPUBLISH", &channel, ""]), "1");
    until("the room is looked at in vain", || {
        let failed = redis.cli(&["INFO", "errorstats"]);
        failed.contains("errorstat_WRONGTYPE").then_some(())
    });
    redis.cli(&["RENAME", &away, &meta]);
    let back = Instant::now();
    until("the room's mark is set again", || {
        (redis.cli(&["HGET", &meta, "live"]) == "1").then_some(())
    });
    let took = back.elapsed();
    assert!(took < BEFORE_A_SWEEP, "looked at after {took:?}");
    app.must(&message("r", "writer", "1")).await;
    let is_told = |_: &str, totals: &Value| totals["messages"]["total"] == 1;
    stream.until(&users, "of a message", is_told).await;
}
