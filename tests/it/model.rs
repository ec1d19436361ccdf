//! The model's own tests: examples computed by hand from the definition of the counts.

/// What sets a read position, by arrival, and what a count consists of.
mod positions;

/// Numbers that another system knows.
mod counts_set;

/// The edges of the definition, one by one.
mod edges;

/// The order of time: bounds, what is read on arrival, and who is in a room.
mod time;

/// The order of time: what names a message that has not arrived.
mod waiting;

/// The order of time: marks and numbers, and what comes late after them or is older.
mod resets;

/// The order of time in a history that is shorter than it, and by a clock that steps back.
mod short;

/// The order of time, all orders of arrival of small histories.
mod orders;

/// The order of time, longer histories of kinds whose order never shows.
mod any_order;

/// A room with three users, and what is told of it.
mod story;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::model::{Condition, Model, Outcome, Peer, RoomsQuery, SortBy};

fn model(events: &[Value]) -> Model {
    let mut model = Model::default();
    for event in events {
        assert!(
            !matches!(model.apply(event), Outcome::Rejected(_)),
            "{event}"
        );
    }
    model
}

/// A group of alice, bob and carol, with the tags a and b.
fn group() -> Model {
    model(&[
        json!({"type": "room.updated", "room": "r", "tags": ["a", "b"], "custom_type": "t", "time": 1000}),
        json!({"type": "member.joined", "room": "r", "users": ["alice", "bob", "carol"]}),
    ])
}

fn send(model: &mut Model, id: &str, sender: &str) -> Outcome {
    model.apply(
        &json!({"type": "message.sent", "room": "r", "id": id, "sender": sender, "time": 2000}),
    )
}

#[test]
fn positions_are_given_once_and_not_to_silent_messages() {
    let mut m = group();
    assert_eq!(send(&mut m, "1", "alice"), Outcome::Applied(Some(1)));
    let silent =
        json!({"type": "message.sent", "room": "r", "id": "s", "sender": "alice", "silent": true});
    assert_eq!(m.apply(&silent), Outcome::Applied(None));
    assert_eq!(m.apply(&silent), Outcome::Duplicate(None));
    assert_eq!(send(&mut m, "2", "alice"), Outcome::Applied(Some(2)));
    assert_eq!(send(&mut m, "1", "bob"), Outcome::Duplicate(Some(1)));
    let room = &m.rooms["r"];
    assert_eq!(
        (
            room.unread("alice"),
            room.unread("bob"),
            room.unread("dave")
        ),
        (0, 2, 0)
    );
}

#[test]
fn sending_reads_unless_told_not_to() {
    let mut m = group();
    send(&mut m, "1", "alice");
    m.apply(&json!({"type": "message.sent", "room": "r", "id": "2", "sender": "bob", "mark_read": false}));
    assert_eq!(m.rooms["r"].unread("bob"), 1);
    send(&mut m, "3", "bob");
    assert_eq!(m.rooms["r"].unread("bob"), 0);
    assert_eq!(m.rooms["r"].unread("carol"), 3);
    send(&mut m, "4", "alice");
    m.apply(
        &json!({"type": "message.sent", "room": "r", "id": "s", "sender": "bob", "silent": true}),
    );
    assert_eq!(m.rooms["r"].unread("bob"), 0);
}

#[test]
fn reading_never_moves_back() {
    let mut m = group();
    for (id, time) in [("1", 500), ("2", 100), ("3", 900)] {
        m.apply(&json!({"type": "message.sent", "room": "r", "id": id, "time": time}));
    }
    let read = |m: &mut Model, how: Value| {
        let mut event = json!({"type": "room.read", "room": "r", "user": "bob"});
        event
            .as_object_mut()
            .unwrap()
            .extend(how.as_object().unwrap().clone());
        (m.apply(&event), m.rooms["r"].unread("bob"))
    };
    assert_eq!(
        read(&mut m, json!({"up_to_time": 99})),
        (Outcome::Applied(None), 3)
    );
    // The second message is the highest position at or before 100, and takes the first with it.
    assert_eq!(
        read(&mut m, json!({"up_to_time": 100})),
        (Outcome::Applied(None), 1)
    );
    assert_eq!(
        read(&mut m, json!({"up_to_id": "1"})),
        (Outcome::Applied(None), 1)
    );
    assert_eq!(
        read(&mut m, json!({"up_to_id": "x"})),
        (Outcome::Rejected("message_not_found"), 1)
    );
    assert_eq!(read(&mut m, json!({})), (Outcome::Applied(None), 0));
    let stranger = json!({"type": "room.read", "room": "r", "user": "dave"});
    assert_eq!(m.apply(&stranger), Outcome::Rejected("not_a_member"));
}

#[test]
fn a_recall_is_subtracted_from_those_who_had_not_read() {
    let mut m = group();
    m.apply(&json!({"type": "message.sent", "room": "r", "id": "1", "sender": "alice", "mentions": ["bob", "x"]}));
    m.apply(&json!({"type": "message.sent", "room": "r", "id": "2", "sender": "alice", "mentions": "all"}));
    m.apply(&json!({"type": "room.read", "room": "r", "user": "carol", "up_to_id": "1"}));
    assert_eq!(
        (m.rooms["r"].mentions("bob"), m.rooms["r"].mentions("carol")),
        (2, 1)
    );
    let recall = json!({"type": "message.recalled", "room": "r", "id": "1"});
    assert_eq!(m.apply(&recall), Outcome::Applied(None));
    assert_eq!(m.apply(&recall), Outcome::Duplicate(None));
    assert_eq!(
        (m.rooms["r"].unread("bob"), m.rooms["r"].unread("carol")),
        (1, 1)
    );
    assert_eq!(m.rooms["r"].mentions("alice"), 0);
}

#[test]
fn joining_starts_at_the_head() {
    let mut m = group();
    send(&mut m, "1", "alice");
    m.apply(&json!({"type": "member.invited", "room": "r", "user": "dave"}));
    send(&mut m, "2", "alice");
    assert_eq!(
        (m.rooms["r"].invited("dave"), m.rooms["r"].unread("dave")),
        (1, 0)
    );
    m.apply(&json!({"type": "member.joined", "room": "r", "user": "dave"}));
    m.apply(&json!({"type": "member.left", "room": "r", "user": "bob"}));
    send(&mut m, "3", "alice");
    m.apply(&json!({"type": "member.joined", "room": "r", "user": "bob"}));
    let room = &m.rooms["r"];
    assert_eq!(
        (
            room.invited("dave"),
            room.unread("dave"),
            room.unread("bob")
        ),
        (0, 1, 0)
    );
}

#[test]
fn inactive_left_and_deleted_rooms_show_up_nowhere() {
    let mut m = group();
    send(&mut m, "1", "alice");
    assert_eq!(
        m.badges("bob", None),
        BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 1)])
    );
    m.apply(&json!({"type": "room.updated", "room": "r", "status": 0}));
    assert!(m.badges("bob", None).is_empty());
    assert_eq!(
        m.badges("bob", Some(&["a".to_owned()])),
        BTreeMap::from([("a".to_owned(), 0)])
    );
    assert_eq!(m.native("bob", true).unwrap()["rooms"], json!([]));
    assert_eq!(
        m.sendbird("bob", None).unwrap()["group_channel_unread_message_count"],
        0
    );
    m.apply(&json!({"type": "room.updated", "room": "r", "status": 1, "kind": "supergroup"}));
    let nine = m.sendbird("bob", Some(&["t".to_owned()])).unwrap();
    assert_eq!(nine["super_group_channel_unread_message_count"], 1);
    assert_eq!(nine["non_super_group_channel_unread_message_count"], 0);
    assert_eq!(
        m.sendbird("bob", Some(&["u".to_owned()])).unwrap()["group_channel_unread_message_count"],
        0
    );
    m.apply(&json!({"type": "room.deleted", "room": "r"}));
    assert_eq!(m.native("bob", false).unwrap()["messages"]["total"], 0);
    assert_eq!(
        send(&mut m, "2", "alice"),
        Outcome::Rejected("room_not_found")
    );
}

#[test]
fn the_other_member_of_a_direct_room_is_the_peer() {
    let mut m = Model::default();
    let hello =
        json!({"type": "message.sent", "to": "bob", "sender": "alice", "id": "1", "time": 5});
    assert_eq!(m.apply(&hello), Outcome::Applied(Some(1)));
    assert_eq!(m.apply(&hello), Outcome::Duplicate(Some(1)));
    m.learn("bob", "alice", "d");
    assert_eq!(m.tencent_total("bob"), Some(1));
    let asked = ["alice", "ghost", "bob", "alice"].map(str::to_owned);
    assert_eq!(
        m.tencent_peers("bob", &asked).unwrap(),
        [
            ("alice".to_owned(), Peer::Count(1)),
            ("ghost".to_owned(), Peer::Unknown),
            ("bob".to_owned(), Peer::Count(0))
        ]
    );
    assert_eq!(m.tencent_total("ghost"), None);
    let third = json!({"type": "member.joined", "room": "d", "users": ["carol"]});
    assert_eq!(m.apply(&third), Outcome::Rejected("direct_room_full"));
    assert!(!m.users.contains_key("carol"));
    // bob leaves and is fetched back by the next message: only that one is unread.
    m.apply(&json!({"type": "member.left", "room": "d", "user": "bob"}));
    m.apply(&json!({"type": "message.sent", "to": "bob", "sender": "alice", "id": "2", "time": 6}));
    assert_eq!(m.tencent_total("bob"), Some(1));
    assert_eq!(
        m.apply(&json!({"type": "room.read", "peer": "alice", "user": "bob"})),
        Outcome::Applied(None)
    );
    assert_eq!(m.tencent_total("bob"), Some(0));
}

#[test]
fn a_rejected_event_changes_nothing() {
    let mut m = group();
    let change = json!({"type": "room.updated", "room": "r", "kind": "direct", "tags": []});
    assert_eq!(m.apply(&change), Outcome::Rejected("kind_change"));
    assert_eq!(m.rooms["r"].tags.len(), 2);
    let bad = json!({"type": "member.joined", "room": "r", "users": ["dave", ""]});
    assert_eq!(m.apply(&bad), Outcome::Rejected("invalid"));
    assert!(!m.users.contains_key("dave"));
    assert_eq!(
        m.apply(&json!({"type": "user.deleted", "user": "dave"})),
        Outcome::Rejected("user_not_found")
    );
    assert_eq!(
        m.apply(&json!({"type": "user.read_all", "user": "dave"})),
        Outcome::Rejected("user_not_found")
    );
    assert_eq!(
        m.apply(&json!({"type": "nonsense"})),
        Outcome::Rejected("invalid")
    );
}

#[test]
fn the_list_of_rooms_is_filtered_and_sorted() {
    let mut m = model(&[
        json!({"type": "room.updated", "room": "old", "time": 1000}),
        json!({"type": "room.updated", "room": "new", "time": 2000, "tags": ["x"]}),
        json!({"type": "room.updated", "room": "busy", "time": 1000}),
        json!({"type": "member.joined", "room": "old", "user": "u"}),
        json!({"type": "member.joined", "room": "new", "user": "u"}),
        json!({"type": "member.joined", "room": "busy", "user": "u"}),
        json!({"type": "message.sent", "room": "busy", "id": "1", "sender": "v", "text": "hi", "time": 3500}),
        json!({"type": "pref.updated", "room": "old", "user": "u", "tags": ["vip"], "sticky": true}),
    ]);
    let ids = |m: &Model, query: &RoomsQuery| {
        let (total, rows) = m.rooms("u", query);
        (
            total,
            rows.iter()
                .map(|row| row["_id"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
                .join(" "),
        )
    };
    let of = |total, ids: &str| (total, ids.to_owned());
    let query = RoomsQuery::default();
    assert_eq!(ids(&m, &query), of(3, "busy new old"));
    let ascending = RoomsQuery {
        sort: vec![(SortBy::LastMessage, false)],
        ..query.clone()
    };
    assert_eq!(ids(&m, &ascending), of(3, "new old busy"));
    let created = RoomsQuery {
        sort: vec![(SortBy::CreatedTime, false)],
        ..query.clone()
    };
    assert_eq!(ids(&m, &created), of(3, "busy old new"));
    assert_eq!(
        ids(
            &m,
            &RoomsQuery {
                skip: 1,
                limit: 1,
                ..query.clone()
            }
        ),
        of(3, "new")
    );
    assert_eq!(
        ids(
            &m,
            &RoomsQuery {
                updated_after: Some(3999),
                ..query.clone()
            }
        ),
        of(1, "busy")
    );
    assert_eq!(
        ids(
            &m,
            &RoomsQuery {
                updated_after: Some(1999),
                ..query.clone()
            }
        ),
        of(2, "busy new")
    );
    assert_eq!(
        ids(
            &m,
            &RoomsQuery {
                updated_after: Some(2000),
                ..query.clone()
            }
        ),
        of(1, "busy")
    );
    let pref = |c| RoomsQuery {
        pref: vec![("tags", c)],
        ..query.clone()
    };
    assert_eq!(ids(&m, &pref(Condition::Equal(json!("vip")))), of(1, "old"));
    assert_eq!(
        ids(&m, &pref(Condition::NotEqual(json!("vip")))),
        of(2, "busy new")
    );
    let tagged = RoomsQuery {
        q: vec![("roomTags", Condition::In(vec![json!("x"), json!("y")]))],
        ..query.clone()
    };
    assert_eq!(ids(&m, &tagged), of(1, "new"));
    assert_eq!(m.rooms("u", &query).1[0]["lastMessage"]["message"], "hi");
    m.apply(&json!({"type": "message.recalled", "room": "busy", "id": "1"}));
    let last = m.rooms("u", &query).1[0]["lastMessage"].clone();
    assert_eq!(
        (&last["messageType"], &last["message"]),
        (&json!("recall"), &json!(""))
    );
    assert_eq!(m.rooms("u", &query).1[0]["unread"], 0);
    let unread_first = RoomsQuery {
        unread_first: true,
        ..ascending
    };
    assert_eq!(ids(&m, &unread_first), of(3, "new old busy"));
    m.apply(&json!({"type": "message.sent", "room": "busy", "id": "2", "time": 3600}));
    assert_eq!(ids(&m, &unread_first), of(3, "busy new old"));
}

#[test]
fn a_message_older_than_the_last_one_does_not_take_its_place() {
    let mut m = Model::default();
    m.apply(&json!({"type": "room.updated", "room": "r"}));
    let future = 4_000_000_000_000_i64;
    for (id, time, last) in [
        ("a", Some(2_000), "a"),
        ("late", Some(1_000), "a"),
        ("same", Some(2_000), "same"),
        ("future", Some(future), "future"),
        ("past", Some(3_000), "future"),
        ("sooner", Some(future - 9_000), "sooner"),
        ("now", None, "now"),
    ] {
        let mut event = json!({"type": "message.sent", "room": "r", "id": id});
        if let Some(time) = time {
            event["time"] = time.into();
        }
        m.apply(&event);
        assert_eq!(m.rooms["r"].last().unwrap().id, last);
    }
}
