//! What is remembered for a time, and a step in that time: ids, tombstones, deletions.

use serde_json::json;

use super::*;
use crate::support::clock::{HOUR, MINUTE, SECOND, YEAR, in_words};
use crate::support::stopped::Stopped;

/// An id that was sent is known after any step back, and after one forward that is shorter than the memory for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_sent_again_after_a_step_is_a_duplicate() {
    let (redis, clock) = one_redis();
    let mut story = Story::start(&redis.url(), 2);
    story.users = ["a", "b"].map(str::to_owned).to_vec();
    let setup = vec![
        room("r", "group"),
        joined("r", &["a", "b"]),
        message("r", "first", "a"),
        message("r", "second", "b"),
    ];
    story.tell(0, setup).await.unwrap();
    let steps = [9 * MINUTE, -HOUR, -20 * MINUTE, -YEAR, 9 * MINUTE, -SECOND];
    for (n, step) in steps.into_iter().enumerate() {
        clock.step(step);
        let old = if n == 0 {
            "second".to_owned()
        } else {
            format!("m{}", n - 1)
        };
        let again = vec![
            message("r", "first", "a"),
            message("r", "second", "b"),
            message("r", &format!("m{n}"), "b"),
            message("r", &format!("m{n}"), "b"),
            message("r", &old, "a"),
            json!({"type": "room.read", "room": "r", "user": "a", "up_to_id": old}),
        ];
        story.tell(n % 2, again).await.unwrap();
    }
    let recalled = json!({"type": "message.recalled", "room": "r", "id": "m5"});
    story.tell(0, vec![recalled.clone()]).await.unwrap();
    clock.step(-HOUR);
    story.tell(1, vec![recalled]).await.unwrap();
}

/// A delivery that comes late finds that the user has left, however the clock stepped in between and however many rooms the
/// user has left since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_was_left_does_not_come_back_after_a_step() {
    // More than are kept without a look at their age.
    const ROOMS: usize = 600;
    let mut failures = Vec::new();
    for steps in [
        [-SECOND, 0],
        [-HOUR, 9 * MINUTE],
        [-YEAR, 5 * MINUTE],
        [0, -HOUR],
        [0, -YEAR],
    ] {
        let (redis, clock) = one_redis();
        let mut story = Story::start(&redis.url(), 1);
        story.users = ["u", "w"].map(str::to_owned).to_vec();
        let rooms: Vec<String> = (0..ROOMS).map(|n| format!("r{n}")).collect();
        let each = |what: fn(&str) -> Value| rooms.iter().map(|room| what(room)).collect();
        let done = async {
            story
                .send(0, vec![room("r", "group"), joined("r", &["u", "w"])])
                .await?;
            story.send(0, each(|name| room(name, "group"))).await?;
            story.send(0, each(|name| joined(name, &["u"]))).await?;
            // Its list of members has `u` in it, and it is slow.
            let late = story.timed(vec![message("r", "late", "w")]);
            story.model.apply(&late[0]);
            let mut config = Config::apps(1);
            config.extra = "response_timeout_ms = 60000\n".to_owned();
            let stalled = Stopped::before(&config, &redis, &story.apps[0], "deliver", json!(late));
            clock.step(steps[0]);
            story.send(0, vec![left("r", "u")]).await?;
            clock.step(steps[1]);
            story.send(0, each(|name| left(name, "u"))).await?;
            let reply = stalled.goes_on().await;
            if reply.status != 200 && reply.status != 503 {
                return Err(reply.text);
            }
            story.compare().await?;
            story.tell(0, vec![message("r", "after", "w")]).await
        };
        let done: Check = done.await;
        failures.extend(
            done.err()
                .map(|why| format!("steps of {:?}: {why}", steps.map(in_words))),
        );
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Tombstones of rooms left are taken away when their time is over, by the clock as it is and not as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tombstones_do_not_pile_up_after_a_step_back() {
    let (redis, clock) = one_redis();
    let mut story = Story::start(&redis.url(), 1);
    let batches = [(600, -YEAR), (600, 61 * MINUTE), (10, 0)];
    for (batch, (rooms, step)) in batches.into_iter().enumerate() {
        let names: Vec<String> = (0..rooms).map(|n| format!("r{batch}-{n}")).collect();
        let made = names
            .iter()
            .flat_map(|name| [room(name, "group"), joined(name, &["u"])]);
        story.send(0, made.collect()).await.unwrap();
        let gone = names.iter().map(|name| left(name, "u"));
        story.send(0, gone.collect()).await.unwrap();
        clock.step(step);
    }
    let kept: usize = redis
        .cli(&["HLEN", "unread:v1:{app-0:u:u}:left"])
        .parse()
        .unwrap();
    assert!(
        kept < 600,
        "{kept} tombstones are left of rooms that were left an hour ago"
    );
}

/// A pod learned the members of a room while a user's deletion was under way, and keeps that list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_user_stays_unknown_when_the_deletion_is_long_ago() {
    let (redis, clock) = one_redis();
    let mut story = Story::start(&redis.url(), 1);
    story.users = ["a", "b", "u"].map(str::to_owned).to_vec();
    let setup = vec![
        room("r", "group"),
        joined("r", &["a", "b", "u", "v"]),
        message("r", "one", "a"),
        deleted("v"),
    ];
    story.tell(0, setup).await.unwrap();
    let end = story.timed(vec![deleted("u")]);
    story.model.apply(&end[0]);
    let mut config = Config::apps(1);
    config.extra = "response_timeout_ms = 60000\n".to_owned();
    // The user's departure is in the room, and is being told.
    let pending = "unread:v1:{app-0:r:r}:pending";
    let app = story.apps[0].clone();
    let stopped = Stopped::at(&config, &redis, &app, "deliver", pending, json!(end)).await;
    story.send(0, vec![message("r", "two", "a")]).await.unwrap();
    let reply = stopped.goes_on().await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    story.compare().await.unwrap();
    story
        .tell(0, vec![message("r", "three", "b")])
        .await
        .unwrap();
    clock.step(25 * HOUR);
    story
        .tell(0, vec![message("r", "four", "a")])
        .await
        .unwrap();
    // Named by somebody, the user is known again.
    story
        .tell(0, vec![joined("r", &["u"]), message("r", "five", "a")])
        .await
        .unwrap();
}

/// The last message of a room can be read by its id however old it is, in a room of any kind; an older one is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_message_can_be_read_by_its_id_after_eight_days() {
    const DAY: i64 = 24 * HOUR;
    let (redis, clock) = one_redis();
    let mut story = Story::start(&redis.url(), 1);
    story.users = ["a", "b"].map(str::to_owned).to_vec();
    let kinds = ["direct", "group", "supergroup"];
    for kind in kinds {
        let setup = vec![
            room(kind, kind),
            joined(kind, &["a", "b"]),
            message(kind, "first", "b"),
            message(kind, "last", "b"),
        ];
        story.tell(0, setup).await.unwrap();
        // A silent one stands where the last counted one before it does.
        let quiet = format!("quiet {kind}");
        let also = vec![
            room(&quiet, kind),
            joined(&quiet, &["a", "b"]),
            message(&quiet, "first", "b"),
            json!({"type": "message.sent", "room": quiet, "id": "silent", "silent": true}),
        ];
        story.tell(0, also).await.unwrap();
    }
    clock.step(8 * DAY);
    let read = |room: &str, id: &str| json!({"type": "room.read", "room": room, "user": "a", "up_to_id": id});
    for kind in kinds {
        let old = story.apps[0]
            .events(&read(kind, "first"), Wait::Applied)
            .await
            .ok();
        assert_eq!(old["results"][0]["error"]["code"], "message_not_found");
        let quiet = format!("quiet {kind}");
        story
            .tell(0, vec![read(kind, "last"), read(&quiet, "silent")])
            .await
            .unwrap();
        for room in [kind, &quiet] {
            let unread = story.apps[0].room_unread(room, Some(&["a"])).await.ok();
            assert_eq!(unread["unread"]["a"], 0, "{room}");
        }
    }
}
