//! How far the history goes, and what much of one thing costs.

use serde_json::{Value, json};

use super::{Scene, counts, made, many, outcomes, room_key, sent};
use crate::support::{Wait, app, assert_no_drift, eventually};

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

/// Each of them looks through what is pending of the room, which is never much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_numbers_for_one_room_fit_into_one_request() {
    const MEMBERS: usize = 5_200;
    let app = app();
    let users: Vec<String> = (0..MEMBERS).map(|n| format!("u{n}")).collect();
    let joined = json!([
        {"type": "room.updated", "room": "h", "kind": "supergroup"},
        {"type": "member.joined", "room": "h", "users": users},
    ]);
    app.must(&joined).await;
    app.must(&many("h", 9, "b").into()).await;
    let number = |(n, user): (usize, &String)| json!({"type": "counts.set", "room": "h", "user": user, "unread": n % 10});
    let numbers: Vec<Value> = users.iter().enumerate().map(number).collect();
    app.must(&numbers.into()).await;
    let found = app.room_unread("h", Some(&users[..1_000])).await.ok();
    for (n, user) in users[..1_000].iter().enumerate() {
        assert_eq!(found["unread"][user], n % 10, "{user}");
    }
    assert_no_drift(&app.redis_url(), &app.keys.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_looks_at_ten_thousand_messages_of_a_longer_history() {
    const MESSAGES: usize = 10_020;
    let scene = Scene::with("[history]\nmax_messages = 20000\n");
    let app = &scene.app;
    app.must(&made("h", &["a", "b"]).into()).await;
    let mut events = many("h", MESSAGES, "b");
    // Messages of the user's own, one that is looked at and one that is too old.
    for own in [5, MESSAGES - 5] {
        events[own]["sender"] = json!("a");
    }
    let later = events.split_off(MESSAGES / 2);
    app.must(&events.into()).await;
    app.must(&later.into()).await;
    let set =
        |unread: usize| json!({"type": "counts.set", "room": "h", "user": "a", "unread": unread});
    // What is older counts as one each, as what is older than the history does.
    for unread in [0, 4, 5, 9_998, 9_999, 10_018, 10_019, 10_020] {
        app.must(&set(unread)).await;
        assert_eq!(counts(app, "a").await, json!({"h": [unread, 0]}));
    }
    app.must(&set(0)).await;
    let from =
        |at: usize| json!({"type": "room.unread", "room": "h", "user": "a", "from_position": at});
    let asked = json!([from(20), from(21)]);
    assert_eq!(
        outcomes(app, &asked).await,
        ["message_not_found", "applied"]
    );
    assert_eq!(counts(app, "a").await, json!({"h": [9_999, 0]}));
    assert_no_drift(&scene.redis.url(), &app.keys.id);
}
