use serde_json::{Value, json};

use super::{Scene, room_key, sent, user_key};
use crate::support::stopped::Stopped;
use crate::support::{assert_no_drift, eventually, run_unread};

/// A room of that kind with four messages, all of which alice has read.
async fn all_read(scene: &Scene, kind: &str) {
    let mut events = vec![
        json!({"type": "room.updated", "room": "r", "kind": kind}),
        json!({"type": "member.joined", "room": "r", "users": ["alice", "bob"]}),
    ];
    events.extend(["1", "2", "3", "4"].map(|id| sent("r", id, "bob")));
    events.push(read("4"));
    scene.app.must(&json!(events)).await;
}

fn read(id: &str) -> Value {
    json!({"type": "room.read", "room": "r", "user": "alice", "up_to_id": id})
}

fn unread(id: &str) -> Value {
    json!({"type": "room.unread", "room": "r", "user": "alice", "from_id": id})
}

async fn total(scene: &Scene) -> Value {
    scene.app.unread("alice", false).await.ok()["messages"]["total"].clone()
}

/// Puts a text in place of what stands in a field.
fn change(scene: &Scene, key: &str, field: &str, to: impl Fn(&str) -> String) {
    let stored = scene.redis.cli(&["HGET", key, field]);
    scene.redis.cli(&["HSET", key, field, &to(stored.trim())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_after_a_reset_that_a_dead_pod_left_comes_after_it() {
    for kind in ["direct", "group", "supergroup"] {
        let scene = Scene::new();
        all_read(&scene, kind).await;
        scene.dies("read_reset", "r", unread("1")).await;
        // Of the reset nothing is delivered yet; this read brings it along.
        scene.app.must(&read("2")).await;
        assert_eq!(total(&scene).await, 2, "{kind}");
        assert_no_drift(&scene.redis.url(), &scene.app.keys.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_comes_after_a_read_that_a_dead_pod_left() {
    for kind in ["direct", "group", "supergroup"] {
        let scene = Scene::new();
        all_read(&scene, kind).await;
        scene.app.must(&unread("1")).await;
        scene.dies("room_read", "r", read("4")).await;
        scene.app.must(&unread("4")).await;
        assert_eq!(total(&scene).await, 1, "{kind}");
        // The sweep finds nothing any more that would read all again.
        eventually("nothing is pending", || async {
            match scene.redis.cli(&["HLEN", &room_key("r", "pending")]).trim() {
                "0" => Ok(()),
                jobs => Err(format!("{jobs} jobs")),
            }
        })
        .await;
        assert_eq!(total(&scene).await, 1, "{kind}");
    }
}

/// A failover of the user's node has lost the reset. What comes later counts all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_that_the_users_server_has_lost_stops_nothing() {
    let scene = Scene::new();
    all_read(&scene, "group").await;
    scene.app.must(&unread("2")).await;
    let rooms = user_key("alice", "rooms");
    let forget = |record: &str| {
        let parts: Vec<&str> = record.split('|').collect();
        assert_eq!(parts.len(), 16, "{record}");
        parts[..14].join("|")
    };
    change(&scene, &rooms, "r", forget);
    scene.app.must(&read("3")).await;
    assert_eq!(total(&scene).await, 1);
    assert_no_drift(&scene.redis.url(), &scene.app.keys.id);

    // The self-check sees it, and the repair mends it.
    change(&scene, &rooms, "r", forget);
    let (url, app) = (scene.redis.url(), &scene.app.keys.id);
    let verified = run_unread(&["verify", "--redis-url", &url, "--app", app, "--json"]);
    assert_eq!(verified.code, 1);
    assert_eq!(
        verified.json()["drift"][0]["fields"][0]["part"],
        "reset",
        "{}",
        verified.stdout
    );
    let rebuilt = run_unread(&["rebuild", "--redis-url", &url, "--app", app]);
    assert_eq!(rebuilt.code, 0, "{}{}", rebuilt.stdout, rebuilt.stderr);
    assert_no_drift(&url, app);
    assert_eq!(total(&scene).await, 1);
}

/// A failover of the room's node has lost the reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_that_the_rooms_server_has_lost_stops_nothing() {
    for kind in ["group", "supergroup"] {
        let scene = Scene::new();
        all_read(&scene, kind).await;
        scene.app.must(&unread("2")).await;
        change(&scene, &room_key("r", "members"), "alice", |entry| {
            let parts: Vec<&str> = entry.split('|').collect();
            assert_eq!(parts.len(), 6, "{entry}");
            parts[..3].join("|")
        });
        scene
            .app
            .must(&json!([sent("r", "5", "bob"), read("3")]))
            .await;
        assert_eq!(total(&scene).await, 2, "{kind}");
        scene.app.must(&sent("r", "6", "alice")).await;
        assert_eq!(total(&scene).await, 0, "{kind}");
        assert_no_drift(&scene.redis.url(), &scene.app.keys.id);
    }
}

/// The order of time: alice has read the message and marked it as unread before it comes. The pod that takes it dies before it
/// has come to the mark; whoever is sent the message again makes up for that, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_that_waited_outlives_the_pod_that_took_its_message() {
    let now = jiff::Timestamp::now().as_millisecond();
    let by_time = |mut event: Value, seconds: i64| {
        event["time"] = (now - seconds * 1000).into();
        event
    };
    for kind in ["direct", "group", "supergroup"] {
        let scene = Scene::new();
        let made = json!([
            {"type": "room.updated", "room": "r", "kind": kind},
            {"type": "member.joined", "room": "r", "users": ["alice", "bob"]},
        ]);
        scene.app.must(&made).await;
        let mut app = scene.app.clone();
        app.by_time = true;
        app.must(&json!([by_time(read_all(), 20), by_time(unread("1"), 10)]))
            .await;
        let message = by_time(sent("r", "1", "bob"), 30);
        let (config, redis, pending) = (&scene.config, &scene.redis, room_key("r", "pending"));
        let at = "message_send";
        Stopped::at(config, redis, &app, at, &pending, message.clone())
            .await
            .dies()
            .await;
        let again = app.must(&message).await;
        assert_eq!(again[0]["status"], "duplicate", "{kind}");
        assert_eq!(total(&scene).await, 1, "{kind}");
        // A read by arrival: the mark does not come again with the message.
        scene.app.must(&read("1")).await;
        app.must(&message).await;
        assert_eq!(total(&scene).await, 0, "{kind}");
        assert_no_drift(&redis.url(), &scene.app.keys.id);
    }
}

fn read_all() -> Value {
    json!({"type": "room.read", "room": "r", "user": "alice"})
}

/// A pod has died that took two messages: one that does not count for bob, and a mention of alice, which her reset waits for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reset_waits_for_is_told_with_the_other_marks_of_the_room() {
    let scene = Scene::new();
    all_read(&scene, "group").await;
    let mut excepted = sent("r", "5", "carol");
    excepted["except"] = json!(["bob"]);
    let mut mention = sent("r", "6", "carol");
    mention["mentions"] = json!(["alice"]);
    let both = json!([excepted, mention]);
    scene.dies("message_send", "r", both).await;
    scene.app.must(&unread("3")).await;
    assert_eq!(total(&scene).await, 4);
    let bob = scene.app.unread("bob", false).await.ok();
    assert_eq!(bob["messages"]["total"], 1);
}
