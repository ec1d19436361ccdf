//! Work that a dead pod left: the next request that builds on it, or repeats it, finishes it first.

use serde_json::{Value, json};

use super::{Scene, counts, made, many, outcome, room_key, sent, user_key};
use crate::support::{PATIENCE, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_is_never_quiet_gets_a_dead_pods_work_finished() {
    let scene = Scene::new();
    let app = &scene.app;
    let mut events = made("busy", &["a", "b"]);
    events.extend(many("busy", 3, "b"));
    app.must(&events.into()).await;
    let recalled = json!({"type": "message.recalled", "room": "busy", "id": "m1"});
    scene.dies("message_recall", "busy", recalled).await;

    let start = std::time::Instant::now();
    for n in 1.. {
        app.must(&sent("busy", &format!("x{n}"), "b")).await;
        if counts(app, "a").await == json!({"busy": [3 + n - 1, 0]}) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "never finished");
        // The pace of the room, nothing that is waited for.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_of_a_newer_version_do_not_keep_a_rooms_other_work_waiting() {
    let scene = Scene::new();
    let app = &scene.app;
    let mut events = made("g", &["a", "b"]);
    events.extend(many("g", 3, "b"));
    app.must(&events.into()).await;
    let _: i64 = redis::cmd("HSET")
        .arg(room_key("g", "pending"))
        .arg("1700000000000000")
        .arg("1\neverybody-and-their-dog\n")
        .query(&mut scene.redis.connect())
        .unwrap();
    let recalled = json!({"type": "message.recalled", "room": "g", "id": "m1"});
    scene.dies("message_recall", "g", recalled).await;
    eventually("the recall is told", || async {
        match counts(app, "a").await {
            right if right == json!({"g": [2, 0]}) => Ok(()),
            wrong => Err(wrong.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_deleted_by_a_dead_pod_is_out_of_all_rooms_when_the_retry_is_answered() {
    let scene = Scene::new();
    let app = &scene.app;
    app.must(&made("g", &["al", "bo"]).into()).await;
    scene.dies_deleting("al").await;
    assert_eq!(counts(app, "al").await, Value::Null);
    let again = json!({"type": "user.deleted", "user": "al"});
    assert_eq!(outcome(app, again.clone()).await, "applied");
    assert_eq!(scene.redis.cli(&["HLEN", &user_key("al", "pending")]), "0");
    let members = app.room_unread("g", Some(&["al", "bo"])).await.ok();
    assert_eq!(members["unread"], json!({"bo": 0}));
    assert_eq!(outcome(app, again).await, "user_not_found");

    let events = json!([
        {"type": "member.joined", "room": "g", "user": "al"},
        sent("g", "1", "bo"),
    ]);
    app.must(&events).await;
    assert_eq!(counts(app, "al").await, json!({"g": [1, 0]}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_deleted_by_a_dead_pod_can_join_again_at_once_and_stays() {
    let scene = Scene::new();
    let app = &scene.app;
    let mut events = made("g", &["al", "bo"]);
    events.extend(made("other", &["al", "bo"]));
    app.must(&events.into()).await;
    scene.dies_deleting("al").await;
    let events = json!([
        {"type": "member.joined", "room": "g", "user": "al"},
        sent("g", "1", "bo"),
    ]);
    app.must(&events).await;
    assert_eq!(counts(app, "al").await, json!({"g": [1, 0]}));

    scene.finished(&user_key("al", "pending")).await;
    assert_eq!(counts(app, "al").await, json!({"g": [1, 0]}));
    app.must(&json!([sent("g", "2", "bo"), sent("other", "1", "bo")]))
        .await;
    assert_eq!(counts(app, "al").await, json!({"g": [2, 0]}));
    let members = app.room_unread("g", Some(&["al", "bo"])).await.ok();
    assert_eq!(members["unread"], json!({"al": 2, "bo": 0}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_deleted_by_a_dead_pod_counts_the_message_that_names_it_again() {
    let scene = Scene::new();
    let app = &scene.app;
    let to = |id: &str| json!({"type": "message.sent", "sender": "bo", "to": "al", "id": id});
    app.must(&json!([to("1"), to("2")])).await;
    scene.dies_deleting("al").await;
    app.must(&to("3")).await;
    let total = app.tencent_total("al").await.ok();
    assert_eq!(total["AllC2CUnreadMsgNum"], 1, "{total}");

    scene.finished(&user_key("al", "pending")).await;
    app.must(&to("4")).await;
    let total = app.tencent_total("al").await.ok();
    assert_eq!(total["AllC2CUnreadMsgNum"], 2, "{total}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn former_members_do_not_see_the_room_made_after_a_dead_pod_deleted_theirs() {
    let scene = Scene::new();
    let app = &scene.app;
    app.must(&made("lk", &["spy", "x"]).into()).await;
    let deleted = json!({"type": "room.deleted", "room": "lk"});
    scene.dies("room_delete", "lk", deleted).await;
    app.must(&json!([
        {"type": "room.updated", "room": "lk", "name": "secret"},
        {"type": "member.joined", "room": "lk", "user": "x"},
        {"type": "message.sent", "room": "lk", "id": "1", "sender": "x", "text": "top secret"},
    ]))
    .await;
    let check = async || {
        let seen = app.imkit_rooms("spy", &[]).await;
        assert!(!seen.text.contains("secret"), "{}", seen.text);
        assert_eq!(seen.ok()["result"]["totalCount"], 0);
        let own = app.imkit_rooms("x", &[]).await.ok();
        assert_eq!(own["result"]["totalCount"], 1);
    };
    check().await;
    scene.finished(&room_key("lk", "pending")).await;
    check().await;
    assert_eq!(counts(app, "spy").await, json!({}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_set_by_a_dead_pod_show_when_the_retry_is_answered() {
    let scene = Scene::new();
    let app = &scene.app;
    let mut events = made("g", &["a", "b"]);
    events.push(sent("g", "1", "b"));
    app.must(&events.into()).await;
    let tagged = json!({"type": "room.updated", "room": "g", "tags": ["work"]});
    scene.dies("room_update", "g", tagged.clone()).await;
    assert_eq!(outcome(app, tagged).await, "applied");
    let shown = app.unread("a", false).await.ok();
    assert_eq!(shown["tags"], json!({"work": 1}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_of_a_room_deleted_by_a_dead_pod_are_gone_when_the_retry_is_answered() {
    let scene = Scene::new();
    let app = &scene.app;
    let mut events = made("g", &["a", "b"]);
    events.push(sent("g", "1", "b"));
    app.must(&events.into()).await;
    let deleted = json!({"type": "room.deleted", "room": "g"});
    scene.dies("room_delete", "g", deleted.clone()).await;
    assert_eq!(outcome(app, deleted).await, "room_not_found");
    let shown = app.unread("a", true).await.ok();
    assert_eq!(shown["messages"]["total"], 0);
    assert_eq!(shown["rooms"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_after_a_dead_pods_conversion_shows_at_once() {
    let scene = Scene::new();
    let app = &scene.app;
    let mut events = made("g", &["a", "b", "c"]);
    events.push(sent("g", "1", "b"));
    app.must(&events.into()).await;
    let converted = json!({"type": "room.updated", "room": "g", "kind": "supergroup"});
    scene.dies("room_update", "g", converted).await;
    app.must(&sent("g", "2", "b")).await;
    for (user, unread) in [("a", 2), ("b", 0), ("c", 2)] {
        let shown = app.unread(user, false).await.ok();
        let expected = json!({"total": unread, "direct": 0, "group": 0, "supergroup": unread});
        assert_eq!(shown["messages"], expected, "{user}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_whose_message_a_dead_pod_took_becomes_known_although_the_room_is_deleted() {
    let scene = Scene::new();
    let app = &scene.app;
    app.must(&made("g", &["a"]).into()).await;
    scene.dies("message_send", "g", sent("g", "1", "bot")).await;
    assert_eq!(counts(app, "bot").await, Value::Null);
    app.must(&json!({"type": "room.deleted", "room": "g"}))
        .await;
    eventually("the stranger is known", || async {
        match counts(app, "bot").await {
            Value::Null => Err("unknown".into()),
            rooms => {
                assert_eq!(rooms, json!({}));
                Ok(())
            }
        }
    })
    .await;
    assert_eq!(counts(app, "a").await, json!({}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_an_earlier_room_of_that_name_still_lists_becomes_known() {
    let scene = Scene::new();
    let app = &scene.app;
    app.must(&made("g", &["x", "y"]).into()).await;
    let deleted = json!({"type": "room.deleted", "room": "g"});
    scene.dies("room_delete", "g", deleted).await;
    app.must(&json!({"type": "user.deleted", "user": "x"}))
        .await;
    assert_eq!(counts(app, "x").await, Value::Null);
    let mut events = made("g", &["y"]);
    events.push(sent("g", "1", "x"));
    app.must(&events.into()).await;
    assert_eq!(counts(app, "x").await, json!({}));
    assert_eq!(counts(app, "y").await, json!({"g": [1, 0]}));
}

/// A supergroup and who has joined it.
fn made_super(room: &str, users: &[&str]) -> Vec<Value> {
    let mut events = made(room, users);
    events[0]["kind"] = "supergroup".into();
    events
}

/// Jobs that nobody finishes, since their words are a newer version's. A script's reply has 64, and a delivery takes 2,000 along.
fn fill_with_jobs(scene: &Scene, room: &str, jobs: u64) {
    if jobs == 0 {
        return;
    }
    let mut fill = redis::cmd("HSET");
    fill.arg(room_key(room, "pending"));
    for job in 0..jobs {
        fill.arg(1_700_000_000_000_000_u64 + job)
            .arg("1\neverybody-and-their-dog\n");
    }
    let _: i64 = fill.query(&mut scene.redis.connect()).unwrap();
}

/// A supergroup's counts go by its pending jobs, too. The later edit has reached al's slot, and the earlier one is still pending.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_a_dead_pod_left_does_not_outlast_a_later_one() {
    let scene = Scene::new();
    let app = &scene.app;
    let mut events = made_super("s", &["al", "bo"]);
    events.push(sent("s", "to-nobody", "bo"));
    events.push(json!({"type": "message.sent", "room": "s", "id": "to-al", "sender": "bo", "mentions": ["al"]}));
    app.must(&events.into()).await;
    fill_with_jobs(&scene, "s", 70);

    let edit = |id: &str, mentions: &[&str]| json!({"type": "message.updated", "room": "s", "id": id, "mentions": mentions});
    let mentions = async || counts(app, "al").await["s"][1].clone();
    for (id, before, after, shown) in [
        ("to-nobody", &["al"][..], &[][..], [2, 1]),
        ("to-al", &[], &["al"], [0, 1]),
    ] {
        scene.dies("message_update", "s", edit(id, before)).await;
        assert_eq!(mentions().await, shown[0], "{id}");
        assert_eq!(outcome(app, edit(id, after)).await, "applied");
        assert_eq!(mentions().await, shown[1], "{id}");
    }
    // The dead pod's jobs are finished, and nothing changes by it.
    eventually("the edits are told", || async {
        match scene
            .redis
            .cli(&["HLEN", &room_key("s", "pending")])
            .as_str()
        {
            "70" => Ok(()),
            jobs => Err(format!("{jobs} jobs left")),
        }
    })
    .await;
    assert_eq!(mentions().await, 1);
}

/// By its pending job the message mentions al; by an edit, which has reached al, it no longer does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_a_dead_pod_left_does_not_outlast_an_edit() {
    let scene = Scene::new();
    let app = &scene.app;
    app.must(&made_super("s", &["al", "bo"]).into()).await;
    fill_with_jobs(&scene, "s", 70);
    let message =
        json!({"type": "message.sent", "room": "s", "id": "m", "sender": "bo", "mentions": ["al"]});
    scene.dies("message_send", "s", message).await;
    assert_eq!(counts(app, "al").await, json!({"s": [1, 1]}));
    let edit = json!({"type": "message.updated", "room": "s", "id": "m", "mentions": []});
    assert_eq!(outcome(app, edit).await, "applied");
    assert_eq!(counts(app, "al").await, json!({"s": [1, 0]}));
}

/// What an edit keeps of cy's mention, who has had a reset, is what the edit before it has made of it, and that is still pending.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_to_everybody_comes_after_one_that_a_dead_pod_left() {
    let scene = Scene::new();
    let app = &scene.app;
    let mut events = made_super("s", &["al", "bo", "cy"]);
    events.extend([
        sent("s", "before", "bo"),
        json!({"type": "room.read", "room": "s", "user": "cy"}),
        json!({"type": "room.unread", "room": "s", "user": "cy", "from_id": "before"}),
        sent("s", "m", "bo"),
    ]);
    app.must(&events.into()).await;
    fill_with_jobs(&scene, "s", 2_100);
    let edit = |mentions: Value| json!({"type": "message.updated", "room": "s", "id": "m", "mentions": mentions});
    let mentions = async || counts(app, "cy").await["s"][1].clone();
    assert_eq!(mentions().await, 0);
    scene
        .dies("message_update", "s", edit(json!(["cy", "al"])))
        .await;
    assert_eq!(mentions().await, 1);
    for (after, shown) in [(json!("all"), 1), (json!(["al"]), 0), (json!("all"), 1)] {
        assert_eq!(outcome(app, edit(after.clone())).await, "applied");
        assert_eq!(mentions().await, shown, "{after}");
    }
}

/// Without a key, a repeated edit is known only by what it would change: nothing. Its answer still waits for the first one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_a_dead_pod_left_shows_when_the_retry_is_answered() {
    for (jobs, mentions) in [
        (0, json!(["al"])),
        (0, json!("all")),
        (70, json!(["al", "cy"])),
        (2_100, json!("all")),
    ] {
        let scene = Scene::new();
        let app = &scene.app;
        let mut events = made("g", &["al", "bo", "cy"]);
        events.push(sent("g", "1", "bo"));
        app.must(&events.into()).await;
        fill_with_jobs(&scene, "g", jobs);
        let edit = json!({"type": "message.updated", "room": "g", "id": "1", "mentions": mentions});
        scene.dies("message_update", "g", edit.clone()).await;
        assert_eq!(counts(app, "al").await, json!({"g": [1, 0]}));
        assert_eq!(outcome(app, edit).await, "duplicate");
        assert_eq!(counts(app, "al").await, json!({"g": [1, 1]}), "{mentions}");
    }
}
