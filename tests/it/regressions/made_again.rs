//! A room that is deleted and made again: nothing of the old one reaches the new one.

use serde_json::{Value, json};

use super::{Scene, counts, made, many, room_key, sent, user_key};
use crate::support::{App, scripts};

/// What a delivery of the room that was could bring: much to count, and a mention of everybody.
async fn an_old_room(app: &App) -> Value {
    let mut events = made("mix", &["zoe", "yan"]);
    events.extend(many("mix", 10, "yan"));
    app.must(&events.into()).await;
    let mut late = sent("mix", "late", "yan");
    late["mentions"] = "all".into();
    late
}

async fn a_new_room(app: &App) {
    let mut events = vec![json!({"type": "room.deleted", "room": "mix"})];
    events.extend(made("mix", &["zoe", "wim"]));
    app.must(&events.into()).await;
}

/// Nothing of the old room is there, now and after the first message of the new one.
async fn only_the_new_room(app: &App) {
    for user in ["zoe", "wim"] {
        assert_eq!(counts(app, user).await, json!({"mix": [0, 0]}), "{user}");
    }
    assert_eq!(counts(app, "yan").await, json!({}));
    app.must(&sent("mix", "n1", "wim")).await;
    assert_eq!(counts(app, "zoe").await, json!({"mix": [1, 0]}));
    assert_eq!(counts(app, "wim").await, json!({"mix": [0, 0]}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_stalled_over_the_making_of_a_new_room_leaves_it_alone() {
    let scene = Scene::new();
    let late = an_old_room(&scene.app).await;
    let stopped = scene.stops("message_send", "mix", late).await;
    a_new_room(&scene.app).await;
    let told = stopped.goes_on().await.ok();
    assert_eq!(told["applied"], 1);
    only_the_new_room(&scene.app).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_pods_message_to_the_old_room_finished_later_leaves_the_new_one_alone() {
    let scene = Scene::new();
    let late = an_old_room(&scene.app).await;
    scene.dies("message_send", "mix", late).await;
    a_new_room(&scene.app).await;
    scene.finished(&room_key("mix", "pending")).await;
    only_the_new_room(&scene.app).await;
}

/// The script's own guard: whoever calls it, a snapshot is not for a membership that began after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_the_old_room_told_to_a_member_of_the_new_one_changes_nothing() {
    let scene = Scene::new();
    let mut connection = scene.redis.connect();
    let late = an_old_room(&scene.app).await;
    scene.app.must(&late).await;
    let snapshot: Vec<String> = redis::cmd("HMGET")
        .arg(room_key("mix", "meta"))
        .arg(&["rev", "head", "kind", "status", "type", "tags", "created"])
        .query(&mut connection)
        .unwrap();
    a_new_room(&scene.app).await;
    // Of a member who has joined an empty room and done nothing, an entry has the epoch alone.
    let epoch = scene
        .redis
        .cli(&["HGET", &room_key("mix", "members"), "zoe"]);

    let slot = [
        "counts", "rooms", "supers", "refs", "marks", "left", "prefs",
    ]
    .map(|what| user_key("zoe", what));
    let mut state_of = || -> Vec<Vec<u8>> {
        let dump = |key| redis::cmd("DUMP").arg(key).query(&mut connection).unwrap();
        slot.iter()
            .map(dump)
            .map(Option::unwrap_or_default)
            .collect()
    };
    let before = state_of();
    let told: Vec<String> = redis::cmd("EVAL")
        .arg(scripts::text("deliver"))
        .arg(slot.len())
        .arg(&slot)
        .arg("mix")
        .arg(snapshot)
        .arg(&["", "", ""])
        .arg(&[&format!("j|{epoch}"), "", "0", "\n\n\n\n11\n"])
        .query(&mut scene.redis.connect())
        .unwrap();
    assert_eq!(told, ["K"]);
    assert_eq!(state_of(), before);
    only_the_new_room(&scene.app).await;
}
