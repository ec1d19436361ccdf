//! The order of time by a clock that has stepped back.

use serde_json::{Value, json};

use super::*;
use crate::support::assert_no_drift;
use crate::support::clock::{MINUTE, SECOND};

async fn total(app: &App, user: &str) -> Value {
    app.unread(user, false).await.ok()["messages"]["total"].clone()
}

/// By the clock they are at the same moment, or the clearing is earlier; by the room's revisions it is the later one. So it is a read
/// bound for the member, as it is for everybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clearing_that_follows_a_mark_at_once_is_a_bound_for_that_member_too() {
    for kind in ["direct", "group", "supergroup"] {
        for mark in [
            json!({"from_id": "1"}),
            json!({"from_time": 4_000_000_000_000_i64}),
        ] {
            let (redis, clock) = one_redis();
            let story = Story::start(&redis.url(), 1);
            let mut app = story.apps[0].clone();
            let now = jiff::Timestamp::now().as_millisecond();
            let of = |seconds: i64, mut event: Value| {
                event["time"] = (now - seconds * 1_000).into();
                event
            };
            app.must(&json!([
                room("r", kind),
                joined("r", &["a", "b"]),
                of(300, message("r", "1", "b")),
            ]))
            .await;
            clock.step(-(MINUTE + 30 * SECOND));
            let mut event = json!({"type": "room.unread", "room": "r", "user": "a"});
            event
                .as_object_mut()
                .unwrap()
                .extend(mark.as_object().unwrap().clone());
            app.must(&event).await;
            app.by_time = true;
            let cleared = json!({"type": "room.cleared", "room": "r"});
            app.must(&of(200, cleared)).await;
            app.must(&of(250, message("r", "2", "b"))).await;
            assert_eq!(total(&app, "a").await, 0, "{kind} {mark}");
            app.must(&of(150, message("r", "3", "b"))).await;
            assert_eq!(total(&app, "a").await, 1, "{kind} {mark}");
            assert_no_drift(&redis.url(), "app-0");
        }
    }
}
