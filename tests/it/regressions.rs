//! What once went wrong, each by name. Where a pod dies, it does so right after Redis has taken its event.

use std::ops::Deref;

use serde_json::{Value, json};

use crate::support::stopped::Stopped;
use crate::support::{App, Own, PATIENCE, Wait, app, eventually, scripts};

/// A Redis of its own, and the pod that outlives the others.
struct Scene(Own);

impl Deref for Scene {
    type Target = Own;

    fn deref(&self) -> &Own {
        &self.0
    }
}

impl Scene {
    fn new() -> Self {
        Self::with("")
    }

    fn with(extra: &str) -> Self {
        // A stopped pod, or one on a loaded machine, may wait as long as it takes.
        Self(Own::start(&format!("response_timeout_ms = 60000\n{extra}")))
    }

    /// Another pod takes an event of that room by that script, and stops.
    async fn stops(&self, script: &str, room: &str, event: Value) -> Stopped {
        let pending = room_key(room, "pending");
        Stopped::at(
            &self.config,
            &self.redis,
            &self.app,
            script,
            &pending,
            event,
        )
        .await
    }

    /// Another pod takes an event of that room by that script, and dies.
    async fn dies(&self, script: &str, room: &str, event: Value) {
        self.stops(script, room, event).await.dies().await;
    }

    /// The same for an event of a user.
    async fn dies_deleting(&self, user: &str) {
        let event = json!({"type": "user.deleted", "user": user});
        let pending = user_key(user, "pending");
        let stopped = Stopped::at(
            &self.config,
            &self.redis,
            &self.app,
            "user_delete",
            &pending,
            event,
        );
        stopped.await.dies().await;
    }

    /// Until nothing is left of what dead pods did not finish.
    async fn finished(&self, pending: &str) {
        eventually("what the dead pod left is finished", || async {
            match self.redis.cli(&["HLEN", pending]).as_str() {
                "0" => Ok(()),
                jobs => Err(format!("{jobs} jobs left")),
            }
        })
        .await;
    }

    /// How often Redis has run that command since the statistics were reset.
    fn calls(&self, command: &str) -> u64 {
        self.redis.calls().get(command).copied().unwrap_or(0)
    }
}

fn room_key(room: &str, what: &str) -> String {
    format!("unread:v1:{{app-0:r:{room}}}:{what}")
}

fn user_key(user: &str, what: &str) -> String {
    format!("unread:v1:{{app-0:u:{user}}}:{what}")
}

fn sent(room: &str, id: &str, sender: &str) -> Value {
    json!({"type": "message.sent", "room": room, "id": id, "sender": sender})
}

/// So many messages, `m0` and on.
fn many(room: &str, n: usize, sender: &str) -> Vec<Value> {
    (0..n)
        .map(|i| sent(room, &format!("m{i}"), sender))
        .collect()
}

/// A room and who has joined it.
fn made(room: &str, users: &[&str]) -> Vec<Value> {
    vec![
        json!({"type": "room.updated", "room": room}),
        json!({"type": "member.joined", "room": room, "users": users}),
    ]
}

/// The same for two.
fn made_direct(room: &str, users: [&str; 2]) -> Vec<Value> {
    vec![
        json!({"type": "room.updated", "room": room, "kind": "direct"}),
        json!({"type": "member.joined", "room": room, "users": users}),
    ]
}

/// By room, unread messages and mentions; null: nobody knows that user.
async fn counts(app: &App, user: &str) -> Value {
    let reply = app.unread(user, true).await;
    if reply.status == 404 {
        return Value::Null;
    }
    let answer = reply.ok();
    let rooms = answer["rooms"].as_array().unwrap().iter();
    let of = |room: &Value| json!([room["messages"], room["mentions"]]);
    rooms
        .map(|room| (room["room"].as_str().unwrap().to_owned(), of(room)))
        .collect()
}

/// What each event of a request came to: its status, or why it was rejected.
async fn outcomes(app: &App, events: &Value) -> Vec<String> {
    let answer = app.events(events, Wait::Applied).await.ok();
    let results = answer["results"].as_array().unwrap().iter();
    results
        .map(|result| {
            let rejected = result["error"]["code"].as_str();
            rejected.or(result["status"].as_str()).unwrap().to_owned()
        })
        .collect()
}

async fn outcome(app: &App, event: Value) -> String {
    outcomes(app, &json!([event])).await.remove(0)
}

// ---------------------------------------------------------------------------------------------------------- dead pods

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

// ---------------------------------------------------------------------------------------------------------- a room made again

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
    let entry = scene
        .redis
        .cli(&["HGET", &room_key("mix", "members"), "zoe"]);
    let [state, epoch, base]: [&str; 3] = entry.split('|').collect::<Vec<_>>().try_into().unwrap();

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
        .arg(&[&format!("{state}|{epoch}"), "", base, "\n\n\n\n11\n"])
        .query(&mut scene.redis.connect())
        .unwrap();
    assert_eq!(told, ["K"]);
    assert_eq!(state_of(), before);
    only_the_new_room(&scene.app).await;
}

// ---------------------------------------------------------------------------------------------------------- history

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_request_sent_again_is_known_from_end_to_end() {
    const MESSAGES: usize = 2_500;
    let app = app();
    app.must(&made("h", &["a", "b"]).into()).await;
    let events: Value = many("h", MESSAGES, "b").into();
    let first = app.must(&events).await;
    let again = app.must(&events).await;
    for (n, (first, again)) in first.iter().zip(&again).enumerate() {
        let position = n + 1;
        assert_eq!(*first, json!({"status": "applied", "position": position}));
        assert_eq!(*again, json!({"status": "duplicate", "position": position}));
    }
    assert_eq!(again.len(), MESSAGES);
    assert_eq!(counts(&app, "a").await, json!({"h": [MESSAGES, 0]}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_ends_where_it_is_said_to_although_ids_are_known_for_longer() {
    let scene = Scene::with("[history]\nmax_messages = 10\n");
    let app = &scene.app;
    let mut events = made("h", &["a", "b"]);
    for n in 0..25 {
        let mut message = sent("h", &format!("m{n}"), "b");
        message["time"] = json!(1_700_000_000_000_u64 + n);
        events.push(message);
    }
    app.must(&events.clone().into()).await;

    let recall = |id: &str| json!({"type": "message.recalled", "room": "h", "id": id});
    let read = |id: &str| json!({"type": "room.read", "room": "h", "user": "a", "up_to_id": id});
    let read_time = |n: u64| {
        let time = 1_700_000_000_000_u64 + n;
        json!({"type": "room.read", "room": "h", "user": "a", "up_to_time": time})
    };
    // Ten are 15 to 24.
    let asked = json!([
        recall("m14"),
        read("m14"),
        read_time(14),
        recall("m0"),
        read("m0")
    ]);
    assert_eq!(outcomes(app, &asked).await, ["message_not_found"; 5]);
    let again: Value = events[2..].to_vec().into();
    assert_eq!(outcomes(app, &again).await, ["duplicate"; 25]);
    assert_eq!(counts(app, "a").await, json!({"h": [25, 0]}));

    let asked = json!([recall("m15"), recall("m20"), read_time(15), read("m16")]);
    assert_eq!(outcomes(app, &asked).await, ["applied"; 4]);
    assert_eq!(counts(app, "a").await, json!({"h": [7, 0]}));
    // All that is forgotten has been read by now, so a time in it asks for nothing; the last message is known by its id.
    let asked = json!([read_time(3), read("m14"), read("m24")]);
    let expected = ["applied", "message_not_found", "applied"];
    assert_eq!(outcomes(app, &asked).await, expected);
    assert_eq!(counts(app, "a").await, json!({"h": [0, 0]}));
    // In one request with what reads it, too.
    app.must(&json!([{"type": "room.updated", "room": "h2"}, {"type": "member.joined", "room": "h2", "users": ["a", "c"]}]))
        .await;
    let mut events: Vec<Value> = events[2..].to_vec();
    for event in &mut events {
        event["room"] = json!("h2");
    }
    app.must(&events.into()).await;
    let at = |mut read: Value| {
        (read["room"], read["user"]) = (json!("h2"), json!("c"));
        read
    };
    let asked = json!([at(read_time(3)), at(read("m20")), at(read_time(3))]);
    let expected = ["message_not_found", "applied", "applied"];
    assert_eq!(outcomes(app, &asked).await, expected);
    assert_eq!(counts(app, "c").await, json!({"h2": [4, 0]}));
}

// ---------------------------------------------------------------------------------------------------------- size

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_user_of_many_rooms_does_not_look_through_all_of_them_for_each() {
    const ROOMS: u64 = 1_500;
    let scene = Scene::new();
    let app = &scene.app;
    let rooms: Vec<Value> = (0..ROOMS)
        .flat_map(|n| made(&format!("r{n}"), &["big"]))
        .collect();
    app.must(&rooms.into()).await;
    scene.redis.cli(&["CONFIG", "RESETSTAT"]);
    app.must(&json!({"type": "user.deleted", "user": "big"}))
        .await;
    let looks = scene.calls("hgetall");
    assert!(looks < ROOMS / 10, "{looks} times");
    assert_eq!(counts(app, "big").await, Value::Null);
    let members = app.room_unread("r7", Some(&["big"])).await.ok();
    assert_eq!(members["unread"], json!({}));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_mentions_of_everybody_take_little_memory() {
    const MEMBERS: usize = 500;
    const MESSAGES: usize = 2_000;
    let scene = Scene::new();
    let app = &scene.app;
    let users: Vec<String> = (0..MEMBERS).map(|n| format!("u{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    app.must(&made("g", &users).into()).await;
    let events: Value = (0..MESSAGES)
        .map(|n| json!({"type": "message.sent", "room": "g", "id": format!("m{n}"), "mentions": "all"}))
        .collect();
    app.must(&events).await;
    let peak = scene.pod.peak_memory() >> 20;
    assert!(peak < 300, "{peak} MiB");
    for user in [users[0], users[MEMBERS - 1]] {
        assert_eq!(counts(app, user).await, json!({"g": [MESSAGES, MESSAGES]}));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_everybody_has_read_of_recalled_messages_and_mentions_is_forgotten() {
    const MESSAGES: u64 = 1_000;
    let scene = Scene::with("[history]\nmax_messages = 200\n");
    let app = &scene.app;
    let sent = |id: String| json!({"type": "message.sent", "room": "s", "id": id, "sender": "b", "mentions": "all"});
    let recalled = |id: String| json!({"type": "message.recalled", "room": "s", "id": id});
    let mut events = vec![
        json!({"type": "room.updated", "room": "s", "kind": "supergroup"}),
        json!({"type": "member.joined", "room": "s", "users": ["a", "b", "late"]}),
    ];
    for n in 1..=MESSAGES {
        events.push(sent(format!("m{n}")));
        if n % 100 != 0 {
            events.push(recalled(format!("m{n}")));
        }
    }
    app.must(&events.into()).await;
    let key = |what: &str| room_key("s", what);
    let held = |what: &str| -> u64 { scene.redis.cli(&["ZCARD", &key(what)]).parse().unwrap() };
    let read = |user: &str, id: u64| json!({"type": "room.read", "room": "s", "user": user, "up_to_id": format!("m{id}")});
    let forgotten = async |what: &str, left: u64| {
        eventually("what all have read is forgotten", || async {
            match held(what) {
                n if n <= left => Ok(()),
                n => Err(format!("{n} positions are left")),
            }
        })
        .await;
        assert_eq!(held(what), left, "what somebody counts by stays");
    };
    assert_eq!(held("recalled"), 990, "nobody but the sender has read any");
    app.must(&json!([read("a", 1_000), read("late", 900)]))
        .await;
    // As fifteen minutes later, when requests that are sent again may have been forgotten.
    scene.redis.cli(&["LTRIM", &key("log"), "-10", "-1"]);
    // As of years in which somebody had read nothing: more than goes by one call.
    let backlog = "for n = 1, 25000 do redis.call('ZADD', KEYS[1], n / 100000, 'old' .. n) end";
    scene.redis.cli(&["EVAL", backlog, "1", &key("recalled")]);
    for n in 0..40 {
        let id = format!("more{n}");
        app.must(&json!([sent(id.clone()), recalled(id)])).await;
    }
    // 99 of the hundred that one member has not read, and those that have come since.
    forgotten("recalled", 99 + 40).await;
    assert_eq!(counts(app, "late").await, json!({"s": [1, 1]}));
    assert_eq!(counts(app, "a").await, json!({"s": [0, 0]}));

    // Mentions of everybody go by the same rule.
    let mentions: Value = (0..1_000).map(|n| sent(format!("all{n}"))).collect();
    app.must(&mentions).await;
    let read_all = |user: &str| json!({"type": "room.read", "room": "s", "user": user});
    app.must(&json!([read_all("a"), read_all("late")])).await;
    scene.redis.cli(&["LTRIM", &key("log"), "-1", "-1"]);
    let mentions: Value = (0..30).map(|n| sent(format!("last{n}"))).collect();
    app.must(&mentions).await;
    forgotten("allmentions", 31).await;
    assert_eq!(counts(app, "late").await, json!({"s": [30, 30]}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_who_reads_nothing_is_not_looked_up_at_every_recall() {
    let scene = Scene::new();
    let app = &scene.app;
    let mut events = vec![
        json!({"type": "room.updated", "room": "s", "kind": "supergroup"}),
        json!({"type": "member.joined", "room": "s", "users": ["a"]}),
    ];
    for n in 0..1_200 {
        let id = format!("m{n}");
        events.push(json!({"type": "message.sent", "room": "s", "id": id}));
        events.push(json!({"type": "message.recalled", "room": "s", "id": id}));
    }
    app.must(&events.into()).await;
    let looks = scene.calls("hscan");
    for n in 0..100 {
        let id = format!("more{n}");
        app.must(&json!([
            {"type": "message.sent", "room": "s", "id": id},
            {"type": "message.recalled", "room": "s", "id": id},
        ]))
        .await;
    }
    let looks = scene.calls("hscan") - looks;
    assert!(looks < 5, "{looks} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_names_ten_thousand_users_and_no_more() {
    const MOST: usize = 10_000;
    let scene = Scene::new();
    let app = &scene.app;
    app.must(&made("g", &["a", "b", "u7"]).into()).await;
    let naming = |id: &str, n: usize| {
        let users: Vec<String> = (0..n).map(|n| format!("u{n}")).collect();
        json!({"type": "message.sent", "room": "g", "id": id, "sender": "b", "mentions": users})
    };
    let answer = app.events(&naming("1", MOST + 1), Wait::Applied).await.ok();
    assert_eq!(answer["results"][0]["error"]["code"], "invalid");
    let said = answer["results"][0]["error"]["message"].as_str().unwrap();
    assert!(said.contains("mentions"), "{said}");
    assert_eq!(counts(app, "a").await, json!({"g": [0, 0]}));

    scene.redis.cli(&["CONFIG", "RESETSTAT"]);
    app.must(&naming("2", MOST)).await;
    // Looked up by the thousand, not one by one.
    let looks = scene.calls("hget");
    assert!(looks < 1_000, "{looks} times");
    assert_eq!(counts(app, "u7").await, json!({"g": [1, 1]}));
    assert_eq!(counts(app, "a").await, json!({"g": [1, 0]}));
}

// ---------------------------------------------------------------------------------------------------------- order

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_all_of_a_peer_keeps_its_place_before_what_follows() {
    let app = app();
    let mut events = made_direct("d1", ["me", "peer"]);
    events.extend(made_direct("d2", ["me", "peer"]));
    events.extend([sent("d1", "0", "peer"), sent("d2", "0", "peer")]);
    app.must(&events.into()).await;
    for (n, room) in ["d1", "d2"].into_iter().enumerate() {
        let events = json!([
            {"type": "room.read", "user": "me", "peer": "peer"},
            sent(room, &format!("after {n}"), "peer"),
        ]);
        app.must(&events).await;
        let mut expected = json!({"d1": [0, 0], "d2": [0, 0]});
        expected[room] = json!([1, 0]);
        assert_eq!(counts(&app, "me").await, expected, "{room}");
    }
    let total = app.tencent_peers("me", &["peer"]).await.ok();
    assert_eq!(total["C2CUnreadMsgNumList"][0]["C2CUnreadMsgNum"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_is_what_the_next_request_builds_on() {
    const TIMES: usize = 50;
    let app = app();
    let accepted = async |events: Vec<Value>| {
        let n = events.len();
        let answer = app.events(&events.into(), Wait::Accepted).await.ok();
        assert_eq!(answer["rejected"], 0, "{answer}");
        assert_eq!(answer["results"].as_array().unwrap().len(), n);
    };
    for n in 0..TIMES {
        let (room, direct) = (format!("g{n}"), format!("d{n}"));
        let [one, two, three, four] = ["a", "b", "c", "d"].map(|name| format!("{name}{n}"));

        let mut events = made(&room, &[&one]);
        events.push(json!({"type": "message.sent", "room": room, "id": "1"}));
        accepted(events).await;
        let all = json!({"type": "user.read_all", "user": one});
        assert_eq!(outcome(&app, all).await, "applied", "{n}");
        assert_eq!(counts(&app, &one).await[&room], json!([0, 0]), "{n}");

        accepted(vec![
            json!({"type": "member.joined", "room": room, "user": two}),
        ])
        .await;
        let deleted = json!({"type": "user.deleted", "user": two});
        assert_eq!(outcome(&app, deleted).await, "applied", "{n}");
        assert_eq!(counts(&app, &two).await, Value::Null, "{n}");

        accepted(made_direct(&direct, [&three, &four])).await;
        let message = json!({"type": "message.sent", "sender": three, "to": four, "id": "1"});
        assert_eq!(outcome(&app, message).await, "applied", "{n}");
        let expected: Value = [(direct, json!([1, 0]))].into_iter().collect();
        assert_eq!(counts(&app, &four).await, expected, "{n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_whose_room_was_taken_over_get_another() {
    let app = app();
    let to = |id: &str| json!({"type": "message.sent", "sender": "f1", "to": "f2", "id": id});
    app.must(&to("1")).await;
    let rooms = counts(&app, "f2").await;
    let first = rooms.as_object().unwrap().keys().next().unwrap().clone();
    app.must(&json!([
        {"type": "member.left", "room": first, "user": "f1"},
        {"type": "member.joined", "room": first, "user": "f3"},
    ]))
    .await;
    let results = app.must(&json!([to("1"), to("2")])).await;
    assert_eq!(results[0], json!({"status": "applied", "position": 1}));
    assert_eq!(results[1], json!({"status": "applied", "position": 2}));
    // The new room is found again, by either.
    let results = app.must(&json!([to("2"), to("3")])).await;
    assert_eq!(results[0], json!({"status": "duplicate", "position": 2}));
    assert_eq!(results[1], json!({"status": "applied", "position": 3}));

    let rooms = counts(&app, "f2").await;
    assert_eq!(rooms[&first], json!([1, 0]));
    assert_eq!(rooms.as_object().unwrap().len(), 2, "{rooms}");
    assert_eq!(counts(&app, "f1").await.as_object().unwrap().len(), 1);
    assert_eq!(counts(&app, "f3").await.as_object().unwrap().len(), 1);
    let peers = app.tencent_peers("f2", &["f1", "f3"]).await.ok();
    assert_eq!(peers["C2CUnreadMsgNumList"][0]["C2CUnreadMsgNum"], 3);
    assert_eq!(peers["C2CUnreadMsgNumList"][1]["C2CUnreadMsgNum"], 1);
}
