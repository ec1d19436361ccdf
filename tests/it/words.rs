//! What events can say beside "sent" and "read": a room cleared for everybody, a message that does not count for some, a read up
//! to a position, and what a room adds to a user's sums.

use serde_json::{Value, json};

use crate::support::{App, Wait, app, assert_no_drift};

fn sent(room: &str, id: &str, sender: &str) -> Value {
    json!({"type": "message.sent", "room": room, "id": id, "sender": sender})
}

fn made(room: &str, kind: &str, users: &[&str]) -> Value {
    json!([
        {"type": "room.updated", "room": room, "kind": kind, "tags": ["work"], "custom_type": "t"},
        {"type": "member.joined", "room": room, "users": users},
    ])
}

async fn total(app: &App, user: &str) -> u64 {
    let counts = app.unread(user, false).await.ok();
    counts["messages"]["total"].as_u64().unwrap()
}

async fn totals(app: &App, users: [&str; 3]) -> [u64; 3] {
    [
        total(app, users[0]).await,
        total(app, users[1]).await,
        total(app, users[2]).await,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_cleared_for_all_who_have_joined_it_whatever_its_kind() {
    for kind in ["group", "supergroup"] {
        let app = app();
        app.must(&made("r", kind, &["a", "b", "c"])).await;
        app.must(&json!([
            {"type": "member.invited", "room": "r", "user": "guest"},
            sent("r", "1", "b"),
            {"type": "message.sent", "room": "r", "id": "2", "sender": "b", "mark_read": false, "mentions": ["a", "c"]},
            sent("r", "3", "a"),
            {"type": "room.cleared", "room": "r", "up_to_id": "2"},
        ]))
        .await;
        assert_eq!(totals(&app, ["a", "b", "c"]).await, [0, 1, 1], "{kind}");
        let c = app.unread("c", false).await.ok();
        assert_eq!(c["mentions"]["total"], 0, "{kind}: {c}");
        // Nobody's position moves back, and who joins afterwards has nothing to do with it.
        app.must(&json!([
            {"type": "room.cleared", "room": "r", "up_to_position": 1},
            {"type": "member.joined", "room": "r", "users": ["guest", "d"]},
            sent("r", "4", "x"),
            {"type": "member.left", "room": "r", "user": "b"},
            {"type": "member.joined", "room": "r", "user": "b"},
            sent("r", "5", "x"),
        ]))
        .await;
        assert_eq!(totals(&app, ["a", "b", "c"]).await, [2, 1, 3], "{kind}");
        assert_eq!(totals(&app, ["guest", "d", "a"]).await, [2, 2, 2], "{kind}");
        app.must(&json!({"type": "room.cleared", "room": "r", "up_to_position": 99}))
            .await;
        assert_eq!(totals(&app, ["a", "b", "d"]).await, [0, 0, 0], "{kind}");
        app.must(&json!([
            sent("r", "6", "x"),
            {"type": "message.recalled", "room": "r", "id": "4"},
        ]))
        .await;
        assert_eq!(totals(&app, ["a", "b", "c"]).await, [1, 1, 1], "{kind}");
        assert_no_drift(&app.redis_url(), &app.keys.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_cleared_in_a_group_stays_so_when_it_grows() {
    let app = app();
    app.must(&made("r", "group", &["a", "b"])).await;
    app.must(&json!([
        sent("r", "1", "x"),
        {"type": "room.cleared", "room": "r"},
        sent("r", "2", "x"),
        {"type": "room.updated", "room": "r", "kind": "supergroup"},
        {"type": "room.cleared", "room": "r", "up_to_id": "1"},
        sent("r", "3", "x"),
    ]))
    .await;
    assert_eq!(totals(&app, ["a", "b", "a"]).await, [2, 2, 2]);
    // The room by that name is another one.
    app.must(
        &json!([{"type": "room.cleared", "room": "r"}, {"type": "room.deleted", "room": "r"}]),
    )
    .await;
    app.must(&made("r", "supergroup", &["a"])).await;
    app.must(&sent("r", "1", "x")).await;
    assert_eq!(total(&app, "a").await, 1);
    assert_no_drift(&app.redis_url(), &app.keys.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_does_not_count_for_those_whom_it_excepts() {
    for kind in ["group", "supergroup"] {
        let app = app();
        app.must(&made("r", kind, &["a", "b", "c"])).await;
        let event = json!({"type": "message.sent", "room": "r", "id": "1", "sender": "b", "mentions": "all",
                           "except": ["a", "stranger", ""]});
        let reply = app.events(&event, Wait::Applied).await.ok();
        let note = "except: \"\" is left out: must not be empty";
        assert_eq!(
            reply["results"][0]["notes"],
            json!([note]),
            "{kind}: {reply}"
        );
        app.must(&sent("r", "2", "b")).await;
        assert_eq!(totals(&app, ["a", "b", "c"]).await, [1, 0, 2], "{kind}");
        let a = app.unread("a", false).await.ok();
        assert_eq!(a["mentions"]["total"], 0, "{kind}: {a}");
        // It is subtracted once, whoever takes it back.
        app.must(&json!({"type": "message.recalled", "room": "r", "id": "1"}))
            .await;
        assert_eq!(totals(&app, ["a", "b", "c"]).await, [1, 0, 1], "{kind}");
        app.must(&json!({"type": "room.read", "room": "r", "user": "a", "up_to_position": 1}))
            .await;
        assert_eq!(total(&app, "a").await, 1, "{kind}");
        app.must(&json!({"type": "room.read", "room": "r", "user": "a", "up_to_position": 2}))
            .await;
        assert_eq!(total(&app, "a").await, 0, "{kind}");
        assert_no_drift(&app.redis_url(), &app.keys.id);
    }
}

/// All sums of `a`, as each dialect has them: messages, mentions, unread rooms; Tencent's are of direct rooms.
async fn sums(app: &App) -> [Value; 6] {
    let native = app.unread("a", true).await.ok();
    let nine = app.sendbird("a", None, None).await.ok();
    let badges = app.imkit_badges("a", Some(&["work"])).await.ok();
    let row = &native["rooms"][0];
    [
        native["messages"]["total"].clone(),
        native["mentions"]["total"].clone(),
        native["unread_rooms"]["total"].clone(),
        json!([
            native["tags"]["work"],
            native["types"]["t"],
            badges["result"]["totalBadge"]
        ]),
        json!([
            nine["group_channel_unread_message_count"],
            nine["group_channel_unread_mention_count"]
        ]),
        json!([row["messages"], row["mentions"]]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_says_what_a_room_adds_to_the_sums() {
    for kind in ["direct", "group", "supergroup"] {
        let app = app();
        app.must(&made("r", kind, &["a", "b"])).await;
        app.must(&json!([
            sent("r", "1", "b"),
            {"type": "message.sent", "room": "r", "id": "2", "sender": "b", "mentions": ["a"]},
        ]))
        .await;
        for (count, with_messages, with_mentions) in [
            ("none", 0, 0),
            ("messages", 1, 0),
            ("mentions", 0, 1),
            ("all", 1, 1),
        ] {
            let pref = |count: &str| json!({"type": "pref.updated", "room": "r", "user": "a", "count": count});
            app.must(&pref(count)).await;
            let expected = |messages: u64, mentions: u64| {
                let (n, m) = (messages * with_messages, mentions * with_mentions);
                [
                    json!(n),
                    json!(m),
                    json!(u64::from(n > 0)),
                    json!([n, n, n]),
                    json!([n, m]),
                    json!([messages, mentions]),
                ]
            };
            assert_eq!(sums(&app).await, expected(2, 1), "{kind} {count}");
            // What comes, goes and is read moves by the same rule.
            app.must(&json!([
                sent("r", &format!("{count} 1"), "b"),
                sent("r", &format!("{count} 2"), "b")
            ]))
            .await;
            assert_eq!(sums(&app).await, expected(4, 1), "{kind} {count}");
            for n in 1..=2 {
                app.must(
                    &json!({"type": "message.recalled", "room": "r", "id": format!("{count} {n}")}),
                )
                .await;
            }
            assert_eq!(sums(&app).await, expected(2, 1), "{kind} {count}");
            assert_no_drift(&app.redis_url(), &app.keys.id);
        }
        app.must(&json!([
            {"type": "pref.updated", "room": "r", "user": "a", "count": "none", "muted": true, "extra": {"colour": [1]}},
            {"type": "room.read", "room": "r", "user": "a"},
            sent("r", "3", "b"),
        ]))
        .await;
        let rooms = app.imkit_rooms("a", &[]).await.ok();
        let row = &rooms["result"]["data"][0];
        assert_eq!(
            (&row["unread"], &row["pref"]["count"], &row["pref"]["extra"]),
            (&json!(1), &json!("none"), &json!({"colour": [1]})),
            "{kind}: {row}"
        );
        // The preference ends with the membership.
        app.must(&json!([
            {"type": "member.left", "room": "r", "user": "a"},
            {"type": "member.joined", "room": "r", "user": "a"},
            sent("r", "4", "b"),
        ]))
        .await;
        assert_eq!(total(&app, "a").await, 1, "{kind}");
        assert_no_drift(&app.redis_url(), &app.keys.id);
    }
}

async fn mentioned(app: &App, users: [&str; 3]) -> [u64; 3] {
    let mut found = [0; 3];
    for (user, place) in users.into_iter().zip(&mut found) {
        let counts = app.unread(user, false).await.ok();
        *place = counts["mentions"]["total"].as_u64().unwrap();
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_moves_mentions_for_those_who_have_not_read_the_message() {
    for kind in ["group", "supergroup"] {
        let app = app();
        app.must(&made("r", kind, &["a", "b", "c", "s"])).await;
        let edit = |mentions: Value| json!({"type": "message.updated", "room": "r", "id": "1", "mentions": mentions});
        app.must(&json!([
            {"type": "message.sent", "room": "r", "id": "1", "sender": "s", "mentions": ["c"]},
            {"type": "room.read", "room": "r", "user": "b"},
        ]))
        .await;
        let all = ["a", "b", "c"];
        for (mentions, status, expected) in [
            (json!(["a", "b"]), "applied", [1, 0, 0]),
            (json!(["b", "a"]), "duplicate", [1, 0, 0]),
            (json!("all"), "applied", [1, 0, 1]),
            (json!("all"), "duplicate", [1, 0, 1]),
            (json!(["c", "stranger"]), "applied", [0, 0, 1]),
            (json!("all"), "applied", [1, 0, 1]),
            (json!([]), "applied", [0, 0, 0]),
            (json!(["s", "a"]), "applied", [1, 0, 0]),
        ] {
            let reply = app
                .events(&edit(mentions.clone()), Wait::Applied)
                .await
                .ok();
            assert_eq!(reply["results"][0]["status"], status, "{kind} {mentions}");
            assert_eq!(mentioned(&app, all).await, expected, "{kind} {mentions}");
            assert_eq!(
                mentioned(&app, ["s", "s", "s"]).await,
                [0; 3],
                "{kind} {mentions}"
            );
            assert_no_drift(&app.redis_url(), &app.keys.id);
        }
        // A repair makes nothing of it undone, and a read ends it.
        app.must(&json!({"type": "room.read", "room": "r", "user": "a"}))
            .await;
        app.must(&edit(json!("all"))).await;
        assert_eq!(mentioned(&app, all).await, [0, 0, 1], "{kind}");
        app.must(&json!({"type": "message.recalled", "room": "r", "id": "1"}))
            .await;
        let reply = app.events(&edit(json!(["a"])), Wait::Applied).await.ok();
        assert_eq!(
            reply["results"][0]["status"], "duplicate",
            "{kind}: {reply}"
        );
        assert_eq!(mentioned(&app, all).await, [0; 3], "{kind}");
        assert_no_drift(&app.redis_url(), &app.keys.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_of_the_last_message_is_shown_and_one_that_changes_nothing_is_known() {
    let app = app();
    app.must(
        &json!([{"type": "message.sent", "to": "a", "sender": "b", "id": "1", "text": "one"}]),
    )
    .await;
    let edit = |more: Value| {
        let mut event = json!({"type": "message.updated", "sender": "a", "to": "b", "id": "1"});
        event
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        event
    };
    let status = async |event: Value| {
        let reply = app.events(&event, Wait::Applied).await.ok();
        reply["results"][0]["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status(edit(json!({}))).await, "duplicate");
    assert_eq!(status(edit(json!({"text": "one"}))).await, "duplicate");
    assert_eq!(
        status(edit(json!({"text": "two", "payload": {"x": 1}}))).await,
        "applied"
    );
    let last = async || {
        let rooms = app.imkit_rooms("a", &[]).await.ok();
        rooms["result"]["data"][0]["lastMessage"].clone()
    };
    let shown = last().await;
    assert_eq!(
        (&shown["message"], &shown["x"]),
        (&json!("two"), &json!(1)),
        "{shown}"
    );
    assert_eq!(total(&app, "a").await, 1);
    // When it is not the last one any more, an edit is still known when it comes again.
    app.must(&json!({"type": "message.sent", "to": "a", "sender": "b", "id": "2", "text": "last"}))
        .await;
    assert_eq!(status(edit(json!({"text": "two"}))).await, "duplicate");
    assert_eq!(status(edit(json!({"text": "three"}))).await, "applied");
    assert_eq!(status(edit(json!({"text": "three"}))).await, "duplicate");
    assert_eq!(last().await["message"], "last");
    // A key tells a repetition from a second edit.
    let keyed = edit(json!({"text": "four", "key": "k"}));
    assert_eq!(status(keyed.clone()).await, "applied");
    assert_eq!(status(edit(json!({"text": "five"}))).await, "applied");
    assert_eq!(status(keyed).await, "duplicate");
    assert_no_drift(&app.redis_url(), &app.keys.id);
}
