use serde_json::{Value, json};

use super::story::{
    APPLIED, DUPLICATE, Story, at, cleared, counts, edit, message, of_a, own, read, recall, unread,
    with,
};
use crate::support::model::{Kind, Outcome, Peer};

const NO_ROOM: Outcome = Outcome::Rejected("room_not_found");
const NO_USER: Outcome = Outcome::Rejected("user_not_found");

fn member(kind: &str, user: &str) -> Value {
    json!({"type": format!("member.{kind}"), "room": "r", "user": user, "time": at(9)})
}

#[test]
fn a_state_that_is_there_already_is_applied_and_changes_nothing() {
    let mut story = Story::with_messages(2);
    story.arrives(member("invited", "i"));
    for by_time in [false, true] {
        for event in [
            member("joined", "a"),
            member("invited", "a"),
            member("invited", "i"),
            member("left", "c2"),
        ] {
            let outcome = if by_time {
                story.placed(event.clone())
            } else {
                story.arrives(event.clone())
            };
            assert_eq!(outcome, APPLIED, "{event}");
            assert_eq!(story.unread("a"), 2);
            assert_eq!(story.model.rooms["r"].invited("i"), 1);
            assert_eq!(story.model.rooms["r"].invited("a"), 0);
        }
    }
}

#[test]
fn who_was_invited_joins_as_everybody_does() {
    let mut story = Story::with_messages(2);
    for user in ["i", "j"] {
        story.arrives(member("invited", user));
    }
    story.arrives(message(3));
    story.arrives(member("joined", "i"));
    story.placed(with(member("joined", "j"), json!({"time": at(1)})));
    assert_eq!((story.unread("i"), story.unread("j")), (0, 2));
    assert_eq!(story.model.rooms["r"].invited("i"), 0);
}

#[test]
fn settings_of_a_room_end_with_the_membership() {
    let mut story = Story::new();
    let settings = json!({"muted": true, "folder": "f", "count": "none", "extra": {"n": 1}});
    story.arrives(with(of_a("pref.updated", 1), settings));
    story.arrives(member("left", "a"));
    story.arrives(member("joined", "a"));
    let pref = story.model.rooms["r"].pref("a");
    assert_eq!(json!([pref["muted"], pref["folder"]]), json!([false, ""]));
    assert!(!pref.contains_key("count") && !pref.contains_key("extra"));
}

#[test]
fn an_unknown_room_or_user_is_told_apart() {
    let mut story = Story::new();
    let elsewhere = json!({"room": "nowhere"});
    for event in [
        json!({"type": "room.deleted"}),
        message(1),
        recall(1, "1"),
        edit(1, "1", json!([])),
        member("joined", "a"),
        member("invited", "a"),
        member("left", "a"),
        of_a("pref.updated", 1),
        read(1, json!({})),
        unread(1, json!({"from_id": "1"})),
        counts(1, 1),
        cleared(1, json!({})),
    ] {
        let event = with(with(event, elsewhere.clone()), json!({"time": at(1)}));
        assert_eq!(story.arrives(event.clone()), NO_ROOM, "{event}");
        assert_eq!(story.placed(event.clone()), NO_ROOM, "{event}, by time");
    }
    for kind in ["user.deleted", "user.read_all"] {
        let event = json!({"type": kind, "user": "nobody", "time": at(1)});
        assert_eq!(story.arrives(event.clone()), NO_USER);
        assert_eq!(story.placed(event), NO_USER);
    }
    assert!(!story.model.users.contains_key("nobody"));
}

#[test]
fn one_of_its_users_or_fields_is_enough_to_refuse_an_event() {
    let mut story = Story::with_messages(1);
    let before = story.model.native("a", true);
    for event in [
        json!({"type": "member.joined", "room": "r", "users": ["new", ""]}),
        json!({"type": "member.joined", "room": "d", "users": ["a", "new"]}),
        with(
            of_a("pref.updated", 1),
            json!({"muted": true, "count": "some"}),
        ),
        with(counts(1, 9), json!({"mentions": "many"})),
        with(edit(1, "1", json!(["a"])), json!({"payload": 1})),
        with(message(2), json!({"sender": "new", "except": "a"})),
        unread(1, json!({"from_id": "1", "from_position": 1})),
    ] {
        let outcome = story.arrives(event.clone());
        assert!(matches!(outcome, Outcome::Rejected(_)), "{event}");
        assert_eq!(story.model.native("a", true), before, "{event}");
        assert!(!story.model.users.contains_key("new"), "{event}");
    }
}

#[test]
fn a_key_outlives_the_room_and_the_user() {
    let mut story = Story::with_messages(1);
    let keyed = |event: Value| with(event, json!({"key": "k"}));
    let number = keyed(counts(1, 5));
    let all = keyed(json!({"type": "user.read_all", "user": "b", "time": at(1)}));
    assert_eq!(story.arrives(number.clone()), APPLIED);
    assert_eq!(story.arrives(all.clone()), APPLIED);
    story.arrives(json!({"type": "room.deleted", "room": "r"}));
    story.arrives(json!({"type": "user.deleted", "user": "b"}));
    assert_eq!(story.arrives(number.clone()), DUPLICATE);
    assert_eq!(story.arrives(all), DUPLICATE);
    story.arrives(json!({"type": "room.updated", "room": "r"}));
    story.arrives(member("joined", "a"));
    assert_eq!(story.placed(number), DUPLICATE);
    assert_eq!(story.unread("a"), 0);
}

#[test]
fn a_message_to_somebody_brings_in_who_is_not_there() {
    let mut story = Story::new();
    let to = |id: &str| json!({"type": "message.sent", "sender": "b", "to": "a", "id": id});
    let state = |story: &Story| {
        let room = &story.model.rooms["d"];
        (room.has_joined("a"), room.invited("a"), room.unread("a"))
    };
    story.arrives(json!({"type": "member.left", "room": "d", "user": "a"}));
    story.arrives(json!({"type": "member.invited", "room": "d", "user": "a"}));
    assert_eq!(story.arrives(to("1")), Outcome::Applied(Some(1)));
    // An invited one stays invited.
    assert_eq!(state(&story), (false, 1, 0));
    story.arrives(json!({"type": "member.left", "room": "d", "user": "a"}));
    assert_eq!(story.arrives(to("2")), Outcome::Applied(Some(2)));
    assert_eq!(state(&story), (true, 0, 1));
}

#[test]
fn the_peer_is_the_other_one_or_who_was_it_last() {
    let mut story = Story::new();
    story.arrives(with(message(1), json!({"room": "d"})));
    let asked = |peer: &str| [peer.to_owned()];
    let of = |story: &Story, peer: &str| {
        let answer = story.model.tencent_peers("a", &asked(peer)).unwrap();
        answer[0].1.clone()
    };
    assert_eq!(of(&story, "b"), Peer::Count(1));
    assert_eq!(of(&story, "a"), Peer::Count(0));
    assert_eq!(of(&story, "c"), Peer::Count(0));
    assert_eq!(of(&story, "nobody"), Peer::Unknown);
    story.arrives(json!({"type": "user.deleted", "user": "b"}));
    // Nobody knows such a user, but the room with that one is there.
    assert!(!story.model.users.contains_key("b"));
    assert_eq!(of(&story, "b"), Peer::Count(1));
    story.arrives(json!({"type": "room.deleted", "room": "d"}));
    assert_eq!(of(&story, "b"), Peer::Unknown);
}

#[test]
fn a_system_message_counts_for_everybody() {
    let mut story = Story::new();
    story.arrives(with(message(1), json!({"sender": null})));
    // A sender need not be a member.
    story.arrives(with(message(2), json!({"sender": "guest"})));
    assert_eq!(["a", "b", "c"].map(|user| story.unread(user)), [2, 2, 2]);
    assert_eq!(story.unread("guest"), 0);
    assert!(story.model.users.contains_key("guest"));
}

#[test]
fn who_was_deleted_is_unknown_until_mentioned_again() {
    let mut story = Story::with_messages(2);
    story.arrives(own(3));
    story.arrives(json!({"type": "user.deleted", "user": "b"}));
    assert_eq!(story.model.native("b", false), None);
    assert_eq!((story.unread("a"), story.unread("c")), (0, 3));
    story.arrives(member("joined", "b"));
    assert!(story.model.native("b", false).is_some());
    assert_eq!(story.unread("b"), 0);
}

#[test]
fn what_is_unread_moves_with_what_the_room_is() {
    let mut story = Story::with_messages(2);
    story.arrives(counts(9, 5));
    let native = |story: &Story| {
        let native = story.model.native("a", false).unwrap();
        json!([
            native["messages"]["group"],
            native["messages"]["supergroup"],
            native["tags"],
            native["types"]
        ])
    };
    story.arrives(json!({"type": "room.updated", "room": "r", "tags": ["t"], "custom_type": "x"}));
    assert_eq!(native(&story), json!([5, 0, {"t": 5}, {"x": 5}]));
    let change = json!({"type": "room.updated", "room": "r", "tags": ["u"], "custom_type": "y", "kind": "supergroup"});
    story.arrives(change);
    assert_eq!(story.model.rooms["r"].kind, Kind::Supergroup);
    assert_eq!(native(&story), json!([0, 5, {"u": 5}, {"y": 5}]));
    story.arrives(json!({"type": "room.updated", "room": "r", "status": 0}));
    assert_eq!(native(&story), json!([0, 0, {}, {}]));
    // What is told of an inactive room shows when it is active again.
    story.arrives(counts(9, 7));
    story.arrives(json!({"type": "room.updated", "room": "r", "status": 1}));
    assert_eq!(native(&story), json!([0, 7, {"u": 7}, {"y": 7}]));
}
