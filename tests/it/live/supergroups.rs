//! Supergroups that watched users are in: a change of one is worked out for all of them at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::message;
use crate::support::stream::Events;
use crate::support::{App, Config, PATIENCE, Pod, RedisServer};

/// Less than after which a user is read again whatever is heard.
const BEFORE_A_SWEEP: Duration = Duration::from_secs(8);

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

#[tokio::test]
async fn a_message_does_not_have_every_user_of_a_supergroup_read() {
    let redis = RedisServer::start();
    let config = Config::apps(1);
    let pod = Pod::start(&config, &redis);
    let app = App::new(&config.apps[0], &pod.base);
    let users = names(200);
    app.must(&supergroup("r", &users)).await;
    let mut stream = Stream::of(&app, &users).await;
    // Each read of a watched user sets a mark in this way. All are read again every second at first, and every ten seconds later.
    let reads = || redis.calls().get("hsetnx").copied().unwrap_or(0);
    let mut fewest = u64::MAX;
    let begun = Instant::now();
    for total in 1_u64.. {
        let before = reads();
        app.must(&message("r", "writer", &total.to_string())).await;
        let is_told = |_: &str, totals: &Value| totals["messages"]["supergroup"] == total;
        stream.until(&users, "of a message", is_told).await;
        fewest = fewest.min(reads() - before);
        if fewest < 50 {
            break;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{fewest} reads for a message to 200 users"
        );
    }
}

#[tokio::test]
async fn what_a_supergroup_adds_is_told_soon_whatever_happens_in_it() {
    let app = crate::support::app();
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
    let app = crate::support::app();
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
