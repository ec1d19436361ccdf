//! Cases of the order of time, by name: what was not right once, and each way in which a number may be told.

use serde_json::{Value, json};

use super::{App, applied, at};
use crate::support::{
    Config, Pod, RedisServer, Wait, app, assert_no_drift, eventually, run_unread,
};

const KINDS: [&str; 3] = ["direct", "group", "supergroup"];

/// A room `r` of a kind with `a` and `b` in it, to which events come by time or by arrival.
struct Story {
    by_arrival: App,
    by_time: App,
    start: i64,
}

impl Story {
    async fn of(by_arrival: App, kind: &str) -> Self {
        let mut by_time = by_arrival.clone();
        by_time.by_time = true;
        let start = jiff::Timestamp::now().as_millisecond() - 300_000;
        let events = json!([
            {"type": "room.updated", "room": "r", "kind": kind},
            {"type": "member.joined", "room": "r", "users": ["a", "b"]},
        ]);
        by_arrival.must(&events).await;
        Self {
            by_arrival,
            by_time,
            start,
        }
    }

    async fn new(kind: &str) -> Self {
        Self::of(app(), kind).await
    }

    fn at(&self, second: i64) -> Value {
        json!(self.start + second * 1000)
    }

    /// An event of that second in the room.
    fn event(&self, second: i64, kind: &str, fields: Value) -> Value {
        let mut event = json!({"type": kind, "room": "r", "time": self.at(second)});
        event
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        event
    }

    async fn sent(&self, app: &App, event: Value) -> Value {
        let reply = app.events(&event, Wait::Applied).await.ok();
        let result = reply["results"][0].clone();
        assert!(result["error"].is_null(), "{event}: {result}");
        result
    }

    async fn placed(&self, second: i64, kind: &str, fields: Value) -> Value {
        let event = self.event(second, kind, fields);
        self.sent(&self.by_time, event).await
    }

    async fn arrives(&self, second: i64, kind: &str, fields: Value) -> Value {
        let event = self.event(second, kind, fields);
        self.sent(&self.by_arrival, event).await
    }

    /// A message by `b`, whose id is its second.
    async fn message(&self, second: i64) -> Value {
        let fields = json!({"id": second.to_string(), "sender": "b"});
        self.placed(second, "message.sent", fields).await
    }

    async fn silent(&self, second: i64) {
        let fields = json!({"id": second.to_string(), "sender": "b", "silent": true});
        self.placed(second, "message.sent", fields).await;
    }

    /// What a user has unread in the room, and the mentions.
    async fn counts(&self, user: &str) -> (i64, i64) {
        let answer = self.by_arrival.unread(user, true).await.ok();
        let rows = answer["rooms"].as_array().unwrap();
        let row = rows.iter().find(|row| row["room"] == "r").unwrap();
        let of = |field: &str| row[field].as_i64().unwrap();
        (of("messages"), of("mentions"))
    }

    async fn unread(&self, user: &str) -> i64 {
        self.counts(user).await.0
    }

    fn is_whole(&self) {
        assert_no_drift(&self.by_arrival.redis_url(), &self.by_arrival.keys.id);
    }
}

fn of_a(fields: Value) -> Value {
    let mut all = json!({"user": "a"});
    all.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    all
}

fn duplicate() -> Value {
    json!({"status": "duplicate"})
}

#[tokio::test]
async fn a_silent_message_that_was_read_on_arrival_is_a_message_again_after_a_mark() {
    for kind in KINDS {
        let story = Story::new(kind).await;
        story.message(10).await;
        story.message(20).await;
        let read = of_a(json!({"up_to_time": story.at(25)}));
        story.placed(25, "room.read", read).await;
        story.silent(15).await;
        let mark = of_a(json!({"from_time": story.at(12)}));
        story.placed(30, "room.unread", mark).await;
        assert_eq!(story.unread("a").await, 1, "{kind}");
        // It is after both messages, and not where its time says.
        story
            .placed(40, "room.read", of_a(json!({"up_to_id": "15"})))
            .await;
        assert_eq!(story.unread("a").await, 0, "{kind}");
        story.is_whole();
    }
}

/// There is nothing that would be unread: only the silent message is later.
#[tokio::test]
async fn a_mark_of_a_silent_message_only_makes_it_a_message_again() {
    for kind in KINDS {
        let story = Story::new(kind).await;
        story.message(10).await;
        let read = of_a(json!({"up_to_time": story.at(25)}));
        story.placed(25, "room.read", read).await;
        story.silent(15).await;
        let mark = of_a(json!({"from_time": story.at(12)}));
        story.placed(30, "room.unread", mark).await;
        // Its time is before that of the silent message, and its place is after it.
        let message = json!({"id": "11", "sender": "b"});
        story.arrives(11, "message.sent", message).await;
        story
            .placed(40, "room.read", of_a(json!({"up_to_id": "15"})))
            .await;
        assert_eq!(story.unread("a").await, 1, "{kind}");
        story.is_whole();
    }
}

#[tokio::test]
async fn a_mark_in_a_room_without_messages_is_later_than_an_older_read() {
    for kind in KINDS {
        let story = Story::new(kind).await;
        let mark = of_a(json!({"from_position": 1}));
        assert_eq!(story.placed(30, "room.unread", mark).await, applied());
        let read = story.placed(20, "room.read", of_a(json!({}))).await;
        assert_eq!(read, duplicate(), "{kind}");
        // So that read is no bound.
        story.message(15).await;
        assert_eq!(story.unread("a").await, 1, "{kind}");
        story.is_whole();
    }
}

/// A number of long ago is for those who have not been here.
#[tokio::test]
async fn who_has_cleared_a_room_without_messages_has_been_here() {
    for kind in KINDS {
        let story = Story::new(kind).await;
        story.arrives(0, "room.cleared", json!({})).await;
        assert_eq!(
            story.placed(-800, "counts.set", number(5, 0)).await,
            duplicate()
        );
        assert_eq!(story.unread("a").await, 0, "{kind}");
        story.is_whole();
    }
}

#[tokio::test]
async fn a_clearing_by_a_silent_message_goes_by_its_time_for_whom_it_came_late() {
    for kind in ["group", "supergroup"] {
        let story = Story::new(kind).await;
        let joins = json!({"user": "c"});
        story.arrives(0, "member.joined", joins).await;
        story.message(10).await;
        let read = of_a(json!({"up_to_time": story.at(25)}));
        story.placed(25, "room.read", read).await;
        story.message(35).await;
        story.silent(20).await;
        story
            .placed(40, "room.cleared", json!({"up_to_id": "20"}))
            .await;
        assert_eq!(
            (story.unread("a").await, story.unread("c").await),
            (1, 0),
            "{kind}"
        );
        story.is_whole();
    }
}

#[tokio::test]
async fn a_mark_or_a_number_by_arrival_cancels_reads_that_wait() {
    for kind in KINDS {
        for (reset, fields, then) in [
            ("room.unread", json!({"from_id": "10"}), 2),
            (
                "room.unread",
                json!({"from_time": 4_000_000_000_000_i64}),
                2,
            ),
            ("counts.set", json!({"unread": 1}), 2),
        ] {
            let story = Story::new(kind).await;
            story.message(10).await;
            let read = of_a(json!({"up_to_id": "50"}));
            assert_eq!(story.placed(60, "room.read", read.clone()).await, applied());
            assert_eq!(
                story.arrives(1, reset, of_a(fields.clone())).await,
                applied()
            );
            story.message(50).await;
            assert_eq!(story.unread("a").await, then, "{kind} {reset} {fields}");
            // A read that is sent after the reset waits.
            let read = of_a(json!({"up_to_id": "90"}));
            story.placed(95, "room.read", read).await;
            story.message(90).await;
            assert_eq!(story.unread("a").await, 0, "{kind} {reset} {fields}");
            story.is_whole();
        }
    }
}

/// The room that bob and alice had is alice's and carol's by now.
#[tokio::test]
async fn what_waits_for_a_message_between_two_waits_although_others_have_their_first_room() {
    let story = Story::new("group").await;
    let to = |id: &str| json!({"type": "message.sent", "sender": "bob", "to": "alice", "id": id, "time": story.at(50)});
    let app = &story.by_arrival;
    app.must(&to("first")).await;
    let first = app.unread("alice", true).await.ok()["rooms"][0]["room"].clone();
    app.must(&json!([
        {"type": "member.left", "room": first, "user": "bob"},
        {"type": "member.joined", "room": first, "user": "carol"},
        {"type": "room.read", "room": first, "user": "alice"},
    ]))
    .await;
    let between = |kind: &str, id: &str| json!({"type": kind, "sender": "bob", "to": "alice", "id": id, "time": story.at(60)});
    let mut edit = between("message.updated", "2");
    edit["mentions"] = json!(["alice"]);
    for event in [between("message.recalled", "1"), edit.clone()] {
        let not_known = app.events(&event, Wait::Applied).await.ok();
        assert_eq!(
            not_known["results"][0]["error"]["code"],
            "message_not_found"
        );
        assert_eq!(story.sent(&story.by_time, event).await, applied());
    }
    story.is_whole();
    for id in ["1", "2", "3"] {
        app.must(&to(id)).await;
    }
    let counts = app.unread("alice", false).await.ok();
    let totals = [&counts["messages"]["total"], &counts["mentions"]["total"]];
    assert_eq!(totals, [2, 1]);
    story.is_whole();
}

/// A room that has forgotten all but its last messages.
async fn forgetful(messages: usize, kind: &str) -> (Story, Pod, RedisServer) {
    let redis = RedisServer::start();
    let mut config = Config::apps(1);
    config.extra = format!("[history]\nmax_messages = {messages}\n");
    let pod = Pod::start(&config, &redis);
    let story = Story::of(App::new(&config.apps[0], &pod.base), kind).await;
    (story, pod, redis)
}

/// What alice read on arrival is all that the room still has of that time. Others are read all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clearing_is_not_refused_for_whom_a_message_came_late() {
    for kind in ["group", "supergroup"] {
        let (story, _pod, redis) = forgetful(2, kind).await;
        let joins = json!({"user": "c"});
        story.arrives(0, "member.joined", joins).await;
        for second in [10, 11, 12] {
            story.message(second).await;
        }
        let read = of_a(json!({"up_to_time": story.at(20)}));
        story.placed(20, "room.read", read).await;
        story.message(15).await;
        story.message(30).await;
        let clears = json!({"up_to_time": story.at(16)});
        assert_eq!(
            story.placed(40, "room.cleared", clears).await,
            applied(),
            "{kind}"
        );
        assert_eq!(
            (story.unread("a").await, story.unread("c").await),
            (1, 1),
            "{kind}"
        );
        assert_no_drift(&redis.url(), &story.by_arrival.keys.id);
    }
}

/// A clearing that is too old for a member is no reason to forget what was recalled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_has_not_read_is_not_forgotten_for_a_clearing_that_is_too_old() {
    let (story, _pod, redis) = forgetful(1000, "supergroup").await;
    for second in 1..=5 {
        story.message(second).await;
    }
    story.placed(10, "room.read", of_a(json!({}))).await;
    story
        .placed(50, "room.unread", of_a(json!({"from_id": "2"})))
        .await;
    story.placed(40, "room.cleared", json!({})).await;
    story
        .arrives(60, "message.recalled", json!({"id": "3"}))
        .await;
    assert_eq!(story.unread("a").await, 3);
    // As if the history were as short as that, and the room were full of recalled messages.
    let key = |what: &str| format!("unread:v1:{{app-0:r:r}}:{what}");
    redis.cli(&["LTRIM", &key("log"), "-1", "-1"]);
    redis.cli(&["HSET", &key("meta"), "trim", "1"]);
    story
        .arrives(60, "message.recalled", json!({"id": "4"}))
        .await;
    eventually("the room was trimmed", || async {
        match redis.cli(&["HGET", &key("meta"), "trim"]).trim() {
            "1024" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    assert_eq!(story.unread("a").await, 2);
}

/// What a member read on arrival is a hole in that member's slot. The room remembers it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_of_a_message_that_came_late_is_put_back() {
    for kind in ["direct", "group"] {
        let (story, _pod, redis) = forgetful(1000, kind).await;
        story.placed(30, "room.read", of_a(json!({}))).await;
        story.message(20).await;
        story.message(40).await;
        assert_eq!(story.unread("a").await, 1, "{kind}");
        let marks = "unread:v1:{app-0:u:a}:marks";
        let hole = redis.cli(&["ZRANGE", marks, "0", "-1"]);
        assert!(hole.starts_with("r|h|"), "{hole}");
        redis.cli(&["DEL", marks]);
        let of = ["--redis-url", &redis.url(), "--app", "app-0"];
        assert_eq!(
            run_unread(&[&["verify"], &of[..]].concat()).code,
            1,
            "{kind}"
        );
        let rebuilt = run_unread(&[&["rebuild"], &of[..]].concat());
        assert_eq!(
            rebuilt.code, 0,
            "{kind}: {}{}",
            rebuilt.stdout, rebuilt.stderr
        );
        assert_eq!(redis.cli(&["ZRANGE", marks, "0", "-1"]), hole, "{kind}");
        assert_eq!(story.unread("a").await, 1, "{kind}");
        assert_no_drift(&redis.url(), "app-0");
    }
}

fn number(unread: u64, mentions: u64) -> Value {
    of_a(json!({"unread": unread, "mentions": mentions}))
}

#[tokio::test]
async fn a_number_that_is_told_late_changes_nothing() {
    for kind in KINDS {
        for setter in [
            "room.read",
            "message.sent",
            "room.cleared",
            "counts.set",
            "room.unread",
        ] {
            let story = Story::new(kind).await;
            story.message(10).await;
            story.message(20).await;
            let fields = match setter {
                "message.sent" => json!({"id": "30", "sender": "a"}),
                "room.cleared" => json!({}),
                "counts.set" => number(1, 0),
                "room.unread" => of_a(json!({"from_id": "20"})),
                _ => of_a(json!({})),
            };
            story.placed(30, setter, fields).await;
            let before = story.counts("a").await;
            for second in [25, 30] {
                let late = story.placed(second, "counts.set", number(9, 9)).await;
                assert_eq!(late, duplicate(), "{kind} {setter} {second}");
                assert_eq!(story.counts("a").await, before, "{kind} {setter} {second}");
            }
            assert_eq!(
                story.placed(31, "counts.set", number(9, 9)).await,
                applied()
            );
            assert_eq!(story.counts("a").await, (9, 9), "{kind} {setter}");
            story.is_whole();
        }
    }
}

#[tokio::test]
async fn a_number_that_is_told_twice_is_told_once() {
    for kind in KINDS {
        let story = Story::new(kind).await;
        story.message(10).await;
        story.message(20).await;
        assert_eq!(
            story.placed(30, "counts.set", number(1, 1)).await,
            applied()
        );
        story.message(40).await;
        assert_eq!(
            story.placed(30, "counts.set", number(1, 1)).await,
            duplicate()
        );
        assert_eq!(story.counts("a").await, (2, 1), "{kind}");
        // By arrival it is as of now.
        for _ in 0..2 {
            assert_eq!(
                story.arrives(30, "counts.set", number(1, 1)).await,
                applied()
            );
            assert_eq!(story.counts("a").await, (1, 1), "{kind}");
        }
        story.is_whole();
    }
}

#[tokio::test]
async fn a_number_may_be_told_before_the_messages_that_it_covers() {
    for kind in KINDS {
        let story = Story::new(kind).await;
        story.message(5).await;
        assert_eq!(
            story.placed(30, "counts.set", number(3, 1)).await,
            applied()
        );
        assert_eq!(story.counts("a").await, (3, 1), "{kind}");
        for second in [10, 20, 30] {
            story.message(second).await;
            assert_eq!(story.counts("a").await, (3, 1), "{kind} {second}");
        }
        story.message(40).await;
        assert_eq!(story.counts("a").await, (4, 1), "{kind}");
        story.placed(50, "room.read", of_a(json!({}))).await;
        assert_eq!(story.counts("a").await, (0, 0), "{kind}");
        story.is_whole();
    }
}

#[tokio::test]
async fn a_number_of_after_a_read_holds() {
    for kind in KINDS {
        let story = Story::new(kind).await;
        for second in [10, 15, 20] {
            story.message(second).await;
        }
        // The number comes first, and the read, which is older, is late.
        for numbers_first in [false, true] {
            let second = if numbers_first { 40 } else { 25 };
            let number = number(2, 0);
            if numbers_first {
                assert_eq!(
                    story.placed(second + 5, "counts.set", number).await,
                    applied()
                );
                let read = story.placed(second, "room.read", of_a(json!({}))).await;
                assert_eq!(read, duplicate(), "{kind}");
            } else {
                assert_eq!(
                    story.placed(second, "room.read", of_a(json!({}))).await,
                    applied()
                );
                assert_eq!(
                    story.placed(second + 5, "counts.set", number).await,
                    applied()
                );
            }
            assert_eq!(story.counts("a").await, (2, 0), "{kind}");
        }
        story.is_whole();
    }
}

#[tokio::test]
async fn a_number_stands_in_a_room_without_history_and_above_the_head() {
    for kind in KINDS {
        let story = Story::new(kind).await;
        for (second, position) in [(10, 1), (30, 3)] {
            assert_eq!(
                story.placed(second, "counts.set", number(7, 2)).await,
                applied()
            );
            assert_eq!(story.counts("a").await, (7, 2), "{kind}");
            assert_eq!(story.message(second + 5).await, at("applied", position));
            assert_eq!(story.counts("a").await, (8, 2), "{kind}");
            story.message(second + 6).await;
            let read = of_a(json!({"up_to_time": story.at(second + 6)}));
            story.placed(second + 7, "room.read", read).await;
            assert_eq!(story.counts("a").await, (0, 0), "{kind}");
        }
        story.is_whole();
    }
}
