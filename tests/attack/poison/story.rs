//! What is sent of each app before and after it is poisoned, and the model of that.

use serde_json::{Value, json};

use crate::support::model::{Model, Outcome};

/// What is sent of each app. Only erin reads anything.
pub(super) fn history() -> Vec<Value> {
    let mut events = vec![
        json!({"type": "user.updated", "user": "alice", "nickname": "Alice", "last_login_time": 1_700_000_000_000_u64}),
        json!({"type": "user.updated", "user": "carol", "nickname": "Carol"}),
        json!({"type": "room.updated", "room": "group", "tags": ["work", "x"], "custom_type": "support", "name": "Group"}),
        json!({"type": "room.updated", "room": "other", "tags": ["work"]}),
        json!({"type": "room.updated", "room": "super", "kind": "supergroup", "tags": ["x"], "custom_type": "large"}),
        json!({"type": "room.updated", "room": "dm", "kind": "direct"}),
        json!({"type": "room.updated", "room": "their dm", "kind": "direct"}),
        json!({"type": "room.updated", "room": "asked", "tags": ["x"]}),
        json!({"type": "room.updated", "room": "left"}),
        json!({"type": "member.joined", "room": "group", "users": ["alice", "erin", "bob"]}),
        json!({"type": "member.joined", "room": "other", "users": ["alice", "carol", "bob"]}),
        json!({"type": "member.joined", "room": "super", "users": ["alice", "erin", "bob"]}),
        json!({"type": "member.joined", "room": "dm", "users": ["alice", "bob"]}),
        json!({"type": "member.joined", "room": "their dm", "users": ["carol", "bob"]}),
        json!({"type": "member.invited", "room": "asked", "users": ["alice", "carol"]}),
        json!({"type": "member.joined", "room": "left", "users": ["alice", "bob"]}),
        json!({"type": "member.left", "room": "left", "users": ["alice"]}),
        json!({"type": "pref.updated", "room": "group", "user": "alice", "hidden": true, "tags": ["mine"], "folder": "f"}),
        json!({"type": "pref.updated", "room": "other", "user": "alice", "sticky": true}),
    ];
    for event in &mut events {
        event["time"] = 1_690_000_000_000_u64.into();
    }
    let mut time = 1_700_000_000_000_u64;
    let mut message = |room: &str, id: &str, sender: &str, more: Value| {
        time += 1_000;
        let mut event = json!({"type": "message.sent", "room": room, "id": id, "sender": sender, "time": time, "text": "t"});
        for (field, value) in more.as_object().into_iter().flatten() {
            event[field] = value.clone();
        }
        events.push(event);
    };
    for n in 1..=4 {
        message("group", &format!("g{n}"), "bob", json!({}));
        message("super", &format!("s{n}"), "bob", json!({}));
    }
    message("group", "g5", "bob", json!({"mentions": ["alice"]}));
    message("super", "s5", "bob", json!({"mentions": ["alice"]}));
    message("group", "own", "alice", json!({"mark_read": false}));
    message("super", "own", "alice", json!({"mark_read": false}));
    message("group", "quiet", "bob", json!({"silent": true}));
    message("group", "g6", "bob", json!({"mentions": "all"}));
    message("super", "s6", "bob", json!({"mentions": "all"}));
    message("other", "o1", "bob", json!({}));
    message("other", "o2", "bob", json!({"mentions": ["carol"]}));
    message("dm", "d1", "bob", json!({}));
    message("dm", "d2", "bob", json!({}));
    message("their dm", "t1", "bob", json!({}));
    message("left", "l1", "bob", json!({}));
    events.extend([
        json!({"type": "message.recalled", "room": "group", "id": "g3"}),
        json!({"type": "message.recalled", "room": "super", "id": "s3"}),
        json!({"type": "room.read", "room": "group", "user": "erin", "up_to_id": "g2"}),
        json!({"type": "room.read", "room": "super", "user": "erin", "up_to_id": "s2"}),
    ]);
    events
}

/// The model of it, without what somebody has read in the group.
pub(super) fn model(unread: Option<&str>) -> Model {
    let mut model = Model::default();
    for event in history() {
        let read = event["type"] == "room.read" && event["room"] == "group";
        if read && event["user"].as_str() == unread {
            continue;
        }
        let outcome = model.apply(&event);
        assert!(
            !matches!(outcome, Outcome::Rejected(_)),
            "{event}: {outcome:?}"
        );
    }
    model
}

/// What comes after all is mended.
pub(super) fn more(model: &mut Model) -> Vec<Value> {
    let mut events = Vec::new();
    for (n, room) in ["group", "other", "super", "dm", "their dm"]
        .iter()
        .enumerate()
    {
        let time = 1_700_000_900_000_u64 + n as u64;
        let mut event = json!({"type": "message.sent", "room": room, "id": "later", "sender": "bob", "time": time});
        if *room == "group" || *room == "super" {
            event["mentions"] = json!(["alice"]);
        }
        events.push(event);
    }
    events
        .push(json!({"type": "room.read", "room": "group", "user": "alice", "up_to_id": "later"}));
    events.push(json!({"type": "member.joined", "room": "left", "user": "alice"}));
    events.push(json!({"type": "member.joined", "room": "asked", "user": "carol"}));
    for event in &events {
        model.apply(event);
    }
    events
}
