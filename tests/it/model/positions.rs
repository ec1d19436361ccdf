use serde_json::{Value, json};

use super::story::{
    APPLIED, DUPLICATE, Story, at, cleared, edit, message, of_a, own, read, recall, unread, with,
};
use crate::support::model::{Model, Outcome, Peer};

const INVALID: Outcome = Outcome::Rejected("invalid");
const NO_MESSAGE: Outcome = Outcome::Rejected("message_not_found");
const NO_MEMBER: Outcome = Outcome::Rejected("not_a_member");
const NO_ROOM: Outcome = Outcome::Rejected("room_not_found");

#[test]
fn a_message_does_not_count_for_those_excepted() {
    let mut story = Story::new();
    let event = with(message(1), json!({"except": ["a", ""], "mentions": "all"}));
    assert_eq!(story.arrives(event), Outcome::Applied(Some(1)));
    assert_eq!((story.counts("a"), story.counts("c")), ((0, 0), (1, 1)));
    // Nor after it has been marked as unread.
    story.arrives(unread(2, json!({"from_id": "1"})));
    assert_eq!(story.counts("a"), (0, 0));
    let many: Vec<String> = (0..1001).map(|n| n.to_string()).collect();
    assert_eq!(
        story.arrives(with(message(2), json!({ "except": many }))),
        INVALID
    );
}

#[test]
fn a_read_by_position_is_up_to_it_and_forward_only() {
    let mut story = Story::with_messages(5);
    let mut read_to = |position: Value| {
        let outcome = story.arrives(read(9, json!({ "up_to_position": position })));
        (outcome, story.read_position("a"))
    };
    assert_eq!(read_to(json!(2)), (APPLIED, 2));
    assert_eq!(read_to(json!(1)), (APPLIED, 2));
    assert_eq!(read_to(json!(0)), (INVALID, 2));
    assert_eq!(read_to(json!(-1)), (INVALID, 2));
    assert_eq!(read_to(json!("3")), (INVALID, 2));
    // Beyond the head it means the head.
    assert_eq!(read_to(json!(99)), (APPLIED, 5));
    let two = json!({"up_to_position": 2, "up_to_id": "1"});
    assert_eq!(story.arrives(read(9, two)), INVALID);
}

#[test]
fn positions_are_known_however_far_back_and_ids_only_within_the_history() {
    let mut story = Story::with_messages(9);
    story.model.history = Some(3);
    let outcomes = [
        read(9, json!({"up_to_position": 2})),
        read(9, json!({"up_to_id": "6"})),
        read(9, json!({"up_to_id": "7"})),
    ]
    .map(|event| story.arrives(event));
    assert_eq!(outcomes, [APPLIED, NO_MESSAGE, APPLIED]);
    assert_eq!(story.unread("a"), 2);
    for (from, outcome, left) in [
        (json!({"from_id": "6"}), NO_MESSAGE, 2),
        (json!({"from_position": 6}), NO_MESSAGE, 2),
        (json!({"from_position": 7}), APPLIED, 3),
    ] {
        assert_eq!(
            (story.arrives(unread(9, from)), story.unread("a")),
            (outcome, left)
        );
    }
    // By time it goes as far as the history does.
    story.arrives(read(9, json!({})));
    story.arrives(unread(9, json!({"from_time": 0})));
    assert_eq!(story.unread("a"), 3);
}

#[test]
fn the_last_message_is_known_by_its_id_however_old() {
    let mut story = Story::with_messages(3);
    // Late ones do not take the place of the last.
    for n in 10..15 {
        story.arrives(with(message(n), json!({"time": at(1)})));
    }
    story.model.history = Some(2);
    assert_eq!(story.arrives(read(9, json!({"up_to_id": "3"}))), APPLIED);
    assert_eq!(story.read_position("a"), 3);
    assert_eq!(story.arrives(read(9, json!({"up_to_id": "2"}))), NO_MESSAGE);
}

#[test]
fn unread_goes_back_to_just_before() {
    let mut story = Story::with_messages(2);
    story.arrives(own(3));
    story.arrives(with(message(4), json!({"silent": true})));
    story.arrives(with(message(5), json!({"mentions": ["a"]})));
    story.arrives(read(9, json!({})));
    let all_read = story;
    for (from, position, counts) in [
        (json!({"from_id": "1"}), 0, (3, 1)),
        // The own message does not count, whether it is the one that is named or not.
        (json!({"from_id": "3"}), 2, (1, 1)),
        // A silent one: to the last counted before it.
        (json!({"from_id": "4"}), 3, (1, 1)),
        (json!({"from_position": 2}), 1, (2, 1)),
        // Beyond the head it means the head.
        (json!({"from_position": 9}), 3, (1, 1)),
        (json!({"from_time": at(2)}), 1, (2, 1)),
        (json!({"from_time": at(4)}), 3, (1, 1)),
        (json!({"from_time": 0}), 0, (3, 1)),
        // Nothing is at or after it.
        (json!({"from_time": at(6)}), 4, (0, 0)),
    ] {
        let mut story = all_read.clone();
        assert_eq!(story.arrives(unread(9, from.clone())), APPLIED);
        let got = (story.read_position("a"), story.counts("a"));
        assert_eq!(got, (position, counts), "{from}");
        // The others are not concerned.
        assert_eq!(story.unread("c"), 4);
    }
}

#[test]
fn unread_goes_to_the_lowest_position_of_that_time_or_later() {
    let mut story = Story::new();
    for n in [5, 2, 7, 1] {
        story.arrives(message(n));
    }
    story.arrives(read(9, json!({})));
    story.arrives(unread(9, json!({"from_time": at(6)})));
    // 7 has the position 3, and 1 came after it.
    assert_eq!((story.read_position("a"), story.unread("a")), (2, 2));
}

#[test]
fn unread_never_moves_forward() {
    let mut story = Story::with_messages(3);
    story.arrives(read(9, json!({"up_to_position": 1})));
    assert_eq!(story.arrives(unread(9, json!({"from_id": "3"}))), APPLIED);
    assert_eq!(story.read_position("a"), 1);
    // Where nothing was ever sent there is nothing to go back to.
    let mut story = Story::new();
    assert_eq!(
        story.arrives(unread(9, json!({"from_position": 1}))),
        APPLIED
    );
    assert_eq!(story.unread("a"), 0);
}

#[test]
fn unread_says_from_where_once() {
    let mut story = Story::with_messages(3);
    for (from, outcome) in [
        (json!({}), INVALID),
        (json!({"from_position": 0}), INVALID),
        (json!({"from_position": 1, "from_time": at(1)}), INVALID),
        (json!({"from_id": "no such"}), NO_MESSAGE),
        (json!({"from_id": "1", "user": "nobody"}), NO_MEMBER),
        (json!({"from_id": "1", "room": "nowhere"}), NO_ROOM),
    ] {
        assert_eq!(story.arrives(unread(9, from.clone())), outcome, "{from}");
    }
}

#[test]
fn what_is_unread_again_is_without_what_was_recalled() {
    let mut story = Story::with_messages(3);
    story.arrives(read(9, json!({})));
    story.arrives(recall(9, "2"));
    story.arrives(unread(9, json!({"from_id": "1"})));
    assert_eq!(story.unread("a"), 2);
    // A read of a recalled message reads up to it all the same.
    story.arrives(read(9, json!({"up_to_id": "2"})));
    assert_eq!(story.unread("a"), 1);
}

#[test]
fn clearing_reads_for_everybody_who_has_joined() {
    let mut story = Story::with_messages(3);
    story.arrives(json!({"type": "member.invited", "room": "r", "user": "i"}));
    story.arrives(read(9, json!({"up_to_position": 2})));
    for (up_to, a, c) in [
        (json!({"up_to_id": "1"}), 1, 2),
        (json!({"up_to_position": 2}), 1, 1),
        (json!({"up_to_time": at(1)}), 1, 1),
        (json!({}), 0, 0),
    ] {
        assert_eq!(story.arrives(cleared(9, up_to.clone())), APPLIED);
        assert_eq!((story.unread("a"), story.unread("c")), (a, c), "{up_to}");
    }
    assert_eq!(story.model.rooms["r"].invited("i"), 1);
    assert_eq!(
        story.arrives(cleared(9, json!({"up_to_id": "no such"}))),
        NO_MESSAGE
    );
    assert_eq!(
        story.arrives(cleared(9, json!({"room": "nowhere"}))),
        NO_ROOM
    );
    assert_eq!(
        story.arrives(cleared(9, json!({"up_to_position": 0}))),
        INVALID
    );
    // Who joins later starts where everybody does.
    story.arrives(message(4));
    assert_eq!(story.unread("c"), 1);
}

#[test]
fn an_edit_replaces_whom_a_message_mentions() {
    let mut story = Story::with_messages(1);
    assert_eq!(story.arrives(edit(2, "1", json!(["c", ""]))), APPLIED);
    assert_eq!((story.counts("a"), story.counts("c")), ((1, 0), (1, 1)));
    assert_eq!(story.arrives(edit(3, "1", json!("all"))), APPLIED);
    assert_eq!(story.counts("a"), (1, 1));
    // The last one accepted holds, whatever its time says.
    assert_eq!(story.arrives(edit(2, "1", json!(["a"]))), APPLIED);
    assert_eq!((story.counts("a"), story.counts("c")), ((1, 1), (1, 0)));
    // What it does not give stays.
    let text = json!({"type": "message.updated", "room": "r", "id": "1", "text": "new"});
    assert_eq!(story.arrives(text.clone()), APPLIED);
    assert_eq!(story.counts("a"), (1, 1));
    // An edit that changes nothing.
    assert_eq!(story.arrives(text), DUPLICATE);
    assert_eq!(story.arrives(edit(9, "1", json!(["a"]))), DUPLICATE);
    // For those who have read it nothing moves, until they mark it as unread.
    story.arrives(read(9, json!({})));
    story.arrives(edit(9, "1", json!([])));
    story.arrives(edit(9, "1", json!(["a", "c"])));
    assert_eq!(story.counts("a"), (0, 0));
    story.arrives(unread(9, json!({"from_id": "1"})));
    assert_eq!(story.counts("a"), (1, 1));
}

#[test]
fn an_edit_shows_in_the_list_of_rooms() {
    let mut story = Story::with_messages(1);
    let event = json!({
        "type": "message.updated", "room": "r", "id": "1", "text": "new", "message_type": "sticker",
        "payload": {"extra": 1},
    });
    assert_eq!(story.arrives(event.clone()), APPLIED);
    let last = |story: &Story| {
        let (_, rows) = story.model.rooms("a", &Default::default());
        let row = rows.iter().find(|row| row["_id"] == "r").unwrap();
        let last = &row["lastMessage"];
        json!([last["message"], last["messageType"], last["extra"]])
    };
    assert_eq!(last(&story), json!(["new", "sticker", 1]));
    story.arrives(recall(2, "1"));
    assert_eq!(
        story.arrives(with(event, json!({"text": "newer"}))),
        DUPLICATE
    );
    assert_eq!(last(&story), json!(["", "recall", null]));
}

#[test]
fn an_edit_needs_a_message_that_is_known() {
    let mut story = Story::with_messages(5);
    story.model.history = Some(2);
    for (fields, outcome) in [
        (json!({"id": "no such"}), NO_MESSAGE),
        (json!({"id": "3"}), NO_MESSAGE),
        (json!({"room": "nowhere"}), NO_ROOM),
        (json!({"mentions": "everybody"}), INVALID),
        (json!({"payload": []}), INVALID),
        (json!({"id": ""}), INVALID),
    ] {
        let event = with(edit(9, "4", json!(["a"])), fields);
        assert_eq!(story.arrives(event.clone()), outcome, "{event}");
    }
}

/// Alice and bob, who have never met, and a message.
fn two() -> Model {
    let mut model = Model::default();
    for id in ["1", "2"] {
        let event = json!({"type": "message.sent", "sender": "alice", "to": "bob", "id": id});
        model.apply(&event);
    }
    model
}

#[test]
fn a_message_between_two_is_named_by_the_two() {
    let mut model = two();
    let pair = |kind: &str, sender: &str, to: &str| json!({"type": kind, "sender": sender, "to": to, "id": "1"});
    let recall = pair("message.recalled", "alice", "bob");
    assert_eq!(model.tencent_total("bob"), Some(2));
    let edit = with(
        pair("message.updated", "bob", "alice"),
        json!({"mentions": ["bob"]}),
    );
    assert_eq!(model.apply(&edit), APPLIED);
    assert_eq!(model.native("bob", false).unwrap()["mentions"]["direct"], 1);
    assert_eq!(model.apply(&recall), APPLIED);
    assert_eq!(
        model.apply(&pair("message.recalled", "bob", "alice")),
        DUPLICATE
    );
    assert_eq!(model.tencent_total("bob"), Some(1));
    // Two who have no room: the message is unknown, and nothing is made.
    for (kind, sender, to, outcome) in [
        ("message.recalled", "alice", "carol", NO_MESSAGE),
        ("message.updated", "alice", "carol", NO_MESSAGE),
        ("message.recalled", "alice", "alice", INVALID),
    ] {
        assert_eq!(model.apply(&pair(kind, sender, to)), outcome);
    }
    assert_eq!((model.rooms.len(), model.users.len()), (1, 2));
    assert_eq!(
        model.apply(&json!({"type": "message.recalled", "to": "bob", "id": "1"})),
        INVALID
    );
    let both =
        json!({"type": "message.recalled", "room": "r", "to": "bob", "sender": "alice", "id": "1"});
    assert_eq!(model.apply(&both), INVALID);
}

#[test]
fn unread_by_the_peer_is_that_of_the_direct_room() {
    let mut story = Story::new();
    story.arrives(with(message(1), json!({"room": "d"})));
    let by_peer =
        |kind: &str, more: Value| with(json!({"type": kind, "user": "a", "peer": "b"}), more);
    let total = |story: &Story| story.model.tencent_total("a");
    assert_eq!(story.arrives(by_peer("room.read", json!({}))), APPLIED);
    assert_eq!(total(&story), Some(0));
    assert_eq!(
        story.arrives(by_peer("room.unread", json!({"from_id": "1"}))),
        APPLIED
    );
    assert_eq!(total(&story), Some(1));
    assert_eq!(
        story.arrives(by_peer("counts.set", json!({"unread": 4}))),
        APPLIED
    );
    assert_eq!(total(&story), Some(4));
    // Nothing to read without a room, and nothing to mark.
    let nobody = json!({"peer": "nobody", "from_id": "1", "unread": 1});
    for (kind, outcome) in [
        ("room.read", APPLIED),
        ("room.unread", NO_ROOM),
        ("counts.set", NO_ROOM),
    ] {
        assert_eq!(story.arrives(by_peer(kind, nobody.clone())), outcome);
    }
}

#[test]
fn the_preference_says_what_a_room_adds_to_sums() {
    let mut story = Story::with_messages(2);
    story.arrives(with(message(3), json!({"mentions": "all"})));
    story.arrives(json!({"type": "room.updated", "room": "r", "tags": ["t"], "custom_type": "x"}));
    for (count, messages, mentions) in [
        (None, 3, 1),
        (Some("none"), 0, 0),
        (Some("messages"), 3, 0),
        (Some("mentions"), 0, 1),
        (Some("all"), 3, 1),
    ] {
        if let Some(count) = count {
            let event = with(of_a("pref.updated", 9), json!({ "count": count }));
            assert_eq!(story.arrives(event), APPLIED);
        }
        let native = story.model.native("a", true).unwrap();
        let nine = story.model.sendbird("a", None).unwrap();
        let got = json!([
            native["messages"]["total"],
            native["messages"]["group"],
            native["tags"]["t"],
            native["types"]["x"],
            story.model.badges("a", None)["t"],
            nine["group_channel_unread_message_count"],
        ]);
        assert_eq!(
            got,
            json!([messages, messages, messages, messages, messages, messages])
        );
        assert_eq!(
            native["mentions"],
            json!({"total": mentions, "direct": 0, "group": mentions, "supergroup": 0})
        );
        assert_eq!(nine["group_channel_unread_mention_count"], mentions);
        let unread_rooms = u64::from(messages > 0);
        let expected =
            json!({"total": unread_rooms, "direct": 0, "group": unread_rooms, "supergroup": 0});
        assert_eq!(native["unread_rooms"], expected);
        // The room's own row shows both, whatever the preference.
        let row = &native["rooms"].as_array().unwrap()[1];
        assert_eq!(json!([row["messages"], row["mentions"]]), json!([3, 1]));
        assert_eq!(story.model.native_room("r", None).unwrap()["a"], 3);
        let (_, rows) = story.model.rooms("a", &Default::default());
        assert_eq!(rows[0]["unread"], 3);
    }
    let wrong = with(of_a("pref.updated", 9), json!({"count": "some"}));
    assert_eq!(story.arrives(wrong), INVALID);
}

#[test]
fn the_preference_holds_for_a_peer_and_ends_with_the_membership() {
    let mut story = Story::new();
    story.arrives(with(message(1), json!({"room": "d"})));
    let none = json!({"type": "pref.updated", "room": "d", "user": "a", "count": "none"});
    story.arrives(none);
    let asked = ["b".to_owned()];
    let peers = |story: &Story| story.model.tencent_peers("a", &asked).unwrap()[0].1.clone();
    assert_eq!(
        (peers(&story), story.model.tencent_total("a")),
        (Peer::Count(0), Some(0))
    );
    story.arrives(json!({"type": "member.left", "room": "d", "user": "a"}));
    story.arrives(json!({"type": "member.joined", "room": "d", "user": "a"}));
    story.arrives(with(message(2), json!({"room": "d"})));
    assert_eq!(
        (peers(&story), story.model.tencent_total("a")),
        (Peer::Count(1), Some(1))
    );
}

#[test]
fn rooms_with_something_unread_are_counted_by_kind() {
    let mut story = Story::with_messages(2);
    let rooms = |story: &Story| story.model.native("a", false).unwrap()["unread_rooms"].clone();
    assert_eq!(
        rooms(&story),
        json!({"total": 1, "direct": 0, "group": 1, "supergroup": 0})
    );
    story.arrives(with(message(3), json!({"room": "d"})));
    story.arrives(json!({"type": "room.updated", "room": "r", "kind": "supergroup"}));
    assert_eq!(
        rooms(&story),
        json!({"total": 2, "direct": 1, "group": 0, "supergroup": 1})
    );
    story.arrives(json!({"type": "room.updated", "room": "d", "status": 0}));
    story.arrives(read(9, json!({})));
    assert_eq!(
        rooms(&story),
        json!({"total": 0, "direct": 0, "group": 0, "supergroup": 0})
    );
}

#[test]
fn what_else_a_user_keeps_of_a_room_is_shown() {
    let mut story = Story::new();
    let extra = |value: Value| with(of_a("pref.updated", 9), json!({ "extra": value }));
    assert_eq!(story.arrives(extra(json!({"pin": 3}))), APPLIED);
    assert_eq!(story.model.rooms["r"].pref("a")["extra"], json!({"pin": 3}));
    assert_eq!(story.arrives(extra(json!([1]))), INVALID);
    assert_eq!(
        story.arrives(extra(json!({"x": "y".repeat(1100)}))),
        INVALID
    );
    assert_eq!(story.model.rooms["r"].pref("a")["extra"], json!({"pin": 3}));
}

#[test]
fn who_has_not_joined_has_nothing_to_set() {
    let mut story = Story::with_messages(1);
    story.arrives(json!({"type": "member.invited", "room": "r", "user": "i"}));
    for user in ["i", "nobody"] {
        for (kind, more) in [
            ("room.read", json!({})),
            ("room.read", json!({"up_to_position": 1})),
            ("room.unread", json!({"from_position": 1})),
            ("counts.set", json!({"unread": 1})),
            ("pref.updated", json!({"count": "none"})),
        ] {
            let event = with(with(of_a(kind, 9), json!({ "user": user })), more);
            assert_eq!(story.arrives(event.clone()), NO_MEMBER, "{event}");
            assert_eq!(story.placed(event.clone()), NO_MEMBER, "{event}, by time");
        }
    }
}

#[test]
fn a_repeated_key_changes_nothing() {
    let mut story = Story::with_messages(2);
    story.arrives(read(9, json!({})));
    let mark = unread(9, json!({"from_id": "2", "key": "k"}));
    assert_eq!(story.arrives(mark.clone()), APPLIED);
    story.arrives(read(9, json!({})));
    assert_eq!(story.arrives(mark), DUPLICATE);
    assert_eq!(story.unread("a"), 0);
    let other = with(super::story::counts(9, 4), json!({"key": "k"}));
    assert_eq!(story.arrives(other), INVALID);
}

#[test]
fn an_edit_with_a_key_is_taken_once() {
    let mut story = Story::with_messages(1);
    let mut model = two();
    let between = json!({"type": "message.updated", "sender": "alice", "to": "bob", "id": "1"});
    let fields = |mentions: Value, key: &str| json!({"mentions": mentions, "key": key});
    for (mentions, key, outcome) in [
        (json!(["c", "bob"]), "one", APPLIED),
        (json!([]), "two", APPLIED),
        (json!(["c", "bob"]), "one", DUPLICATE),
    ] {
        let fields = fields(mentions, key);
        assert_eq!(
            story.arrives(with(edit(9, "1", json!([])), fields.clone())),
            outcome
        );
        assert_eq!(model.apply(&with(between.clone(), fields)), outcome);
    }
    assert_eq!(story.counts("c"), (1, 0));
    assert_eq!(model.native("bob", false).unwrap()["mentions"]["total"], 0);
}

#[test]
fn leaving_ends_all_of_it() {
    let mut story = Story::with_messages(3);
    story.arrives(super::story::counts(9, 9));
    story.arrives(of_a("member.left", 9));
    assert_eq!(story.counts("a"), (0, 0));
    story.arrives(of_a("member.joined", 9));
    assert_eq!((story.unread("a"), story.read_position("a")), (0, 3));
}

#[test]
fn a_room_that_is_made_again_is_new() {
    let mut story = Story::with_messages(3);
    story.arrives(super::story::counts(9, 9));
    story.arrives(json!({"type": "room.deleted", "room": "r"}));
    for event in [
        unread(9, json!({"from_id": "1"})),
        super::story::counts(9, 1),
        cleared(9, json!({})),
        edit(9, "1", json!([])),
    ] {
        assert_eq!(story.arrives(event.clone()), NO_ROOM, "{event}");
        assert_eq!(story.placed(event.clone()), NO_ROOM, "{event}, by time");
    }
    story.arrives(json!({"type": "room.updated", "room": "r"}));
    story.arrives(of_a("member.joined", 9));
    assert_eq!(story.arrives(message(1)), Outcome::Applied(Some(1)));
    assert_eq!(story.unread("a"), 1);
}
