use serde_json::json;

use super::story::{
    APPLIED, DUPLICATE, Story, at, counts, edit, message, of_a, own, read, recall, unread, with,
};
use crate::support::model::Outcome;

const INVALID: Outcome = Outcome::Rejected("invalid");

fn mentions(unread: u64, mentions: u64) -> serde_json::Value {
    with(counts(9, unread), json!({ "mentions": mentions }))
}

#[test]
fn a_room_without_history_takes_what_is_told() {
    let mut story = Story::new();
    assert_eq!(story.arrives(mentions(5, 2)), APPLIED);
    assert_eq!((story.counts("a"), story.read_position("a")), ((5, 2), -5));
    story.arrives(message(10));
    assert_eq!((story.counts("a"), story.unread("b")), ((6, 2), 0));
    story.arrives(read(11, json!({})));
    assert_eq!(story.counts("a"), (0, 0));
}

#[test]
fn the_position_is_the_largest_that_leaves_so_many() {
    let mut story = Story::with_messages(2);
    story.arrives(own(3));
    story.arrives(with(message(4), json!({"except": ["a"]})));
    story.arrives(message(5));
    story.arrives(message(6));
    story.arrives(recall(7, "6"));
    // 1 2 own except 5 recalled
    for (unread, position) in [
        (0, 6),
        (1, 4),
        (2, 1),
        (3, 0),
        (4, -1),
        (7, -4),
        (2, 1),
        (0, 6),
    ] {
        assert_eq!(story.arrives(counts(9, unread)), APPLIED);
        assert_eq!(
            (story.unread("a"), story.read_position("a")),
            (unread, position)
        );
    }
}

#[test]
fn a_partial_read_leaves_what_is_above_it() {
    let mut story = Story::with_messages(2);
    story.arrives(mentions(5, 1));
    story.arrives(read(9, json!({"up_to_position": 1})));
    // The newest was made the mention.
    assert_eq!(story.counts("a"), (1, 1));
    story.arrives(mentions(5, 5));
    // Before every message that is here: what is below 1 is read.
    story.arrives(read(9, json!({"up_to_time": 0})));
    assert_eq!(story.counts("a"), (2, 2));
}

#[test]
fn what_is_older_than_the_history_counts_as_one_each() {
    let mut story = Story::new();
    for n in 1..=6 {
        // All by a but the last.
        story.arrives(if n == 6 { message(n) } else { own(n) });
    }
    story.model.history = Some(2);
    // 1 2 3 4 are forgotten; 5 is known as a's own.
    story.arrives(counts(9, 3));
    assert_eq!((story.unread("a"), story.read_position("a")), (3, 2));
    story.model.history = None;
    assert_eq!(story.unread("a"), 3);
    story.arrives(counts(9, 3));
    assert_eq!(story.read_position("a"), -2);
}

#[test]
fn known_mentions_are_kept_newest_first_and_the_newest_others_made() {
    let mut story = Story::with_messages(1);
    for (second, names) in [(2, "a"), (3, "c"), (4, "a"), (5, "c")] {
        story.arrives(with(message(second), json!({"mentions": [names]})));
    }
    // The positions that mention a, seen by reading them one by one.
    let mentioned = |story: &Story| -> Vec<i64> {
        let mut story = story.clone();
        let mut found = Vec::new();
        for position in 1..=5 {
            let before = story.counts("a").1;
            story.arrives(read(9, json!({ "up_to_position": position })));
            if story.counts("a").1 < before {
                found.push(position);
            }
        }
        found
    };
    for (unread, told, positions) in [
        (5, Some(2), vec![2, 4]),
        (5, Some(1), vec![4]),
        // What was made no mention is none any more, and not the first to be made one.
        (5, Some(2), vec![4, 5]),
        (5, Some(4), vec![2, 3, 4, 5]),
        (5, None, vec![2, 3, 4, 5]),
        (5, Some(0), vec![]),
        // More than there are: all.
        (3, Some(9), vec![3, 4, 5]),
    ] {
        let event = match told {
            Some(told) => mentions(unread, told),
            None => counts(9, unread),
        };
        story.arrives(event);
        assert_eq!(mentioned(&story), positions, "{unread} {told:?}");
    }
}

#[test]
fn what_was_made_a_mention_is_forgotten_once_it_is_read() {
    let mut story = Story::with_messages(2);
    story.arrives(mentions(2, 2));
    assert_eq!(story.counts("a"), (2, 2));
    story.arrives(read(9, json!({"up_to_id": "1"})));
    story.arrives(unread(9, json!({"from_id": "1"})));
    assert_eq!(story.counts("a"), (2, 1));
    // The same for what was made none.
    let mut story = Story::new();
    story.arrives(with(message(1), json!({"mentions": "all"})));
    story.arrives(mentions(1, 0));
    assert_eq!(story.counts("a"), (1, 0));
    story.arrives(read(9, json!({})));
    story.arrives(unread(9, json!({"from_id": "1"})));
    assert_eq!(story.counts("a"), (1, 1));
}

#[test]
fn what_was_made_a_mention_is_forgotten_for_whom_an_edit_concerns() {
    let mut story = Story::new();
    story.arrives(with(message(1), json!({"mentions": ["a"]})));
    story.arrives(message(2));
    story.arrives(mentions(2, 0));
    // a was named before: nothing changes for a.
    story.arrives(edit(9, "1", json!(["a", "c"])));
    assert_eq!(story.counts("a"), (2, 0));
    story.arrives(edit(9, "1", json!(["c"])));
    story.arrives(edit(9, "1", json!(["a", "c"])));
    assert_eq!(story.counts("a"), (2, 1));
    // Made a mention, named, and not named any more.
    story.arrives(mentions(2, 2));
    story.arrives(edit(9, "2", json!(["c"])));
    assert_eq!(story.counts("a"), (2, 2));
    story.arrives(edit(9, "2", json!(["a"])));
    story.arrives(edit(9, "2", json!([])));
    assert_eq!(story.counts("a"), (2, 1));
}

#[test]
fn it_moves_in_both_directions_and_says_it_to_one_member() {
    let mut story = Story::with_messages(4);
    story.arrives(counts(9, 1));
    story.arrives(counts(9, 3));
    assert_eq!((story.unread("a"), story.unread("c")), (3, 4));
    story.arrives(unread(9, json!({"from_id": "1"})));
    assert_eq!(story.unread("a"), 4);
    story.arrives(own(5));
    assert_eq!(story.unread("a"), 0);
}

#[test]
fn it_needs_a_number() {
    let mut story = Story::with_messages(1);
    for fields in [
        json!({"unread": null}),
        json!({"unread": -1}),
        json!({"unread": 1.5}),
        json!({"unread": "1"}),
        json!({"mentions": -1}),
        json!({"peer": "b"}),
        json!({"room": null}),
    ] {
        let event = with(counts(9, 1), fields);
        assert_eq!(story.arrives(event.clone()), INVALID, "{event}");
    }
    assert_eq!(story.unread("a"), 1);
}

#[test]
fn told_again_by_arrival_it_is_the_same() {
    let mut story = Story::with_messages(3);
    for _ in 0..2 {
        assert_eq!(story.arrives(mentions(2, 1)), APPLIED);
        assert_eq!(story.counts("a"), (2, 1));
    }
}

#[test]
fn by_time_it_speaks_of_the_messages_up_to_its_time() {
    let mut story = Story::with_messages(5);
    let event =
        |second: i64, unread: u64| with(counts(second, unread), json!({"time": at(second) + 500}));
    assert_eq!(story.placed(event(3, 1)), APPLIED);
    assert_eq!((story.unread("a"), story.read_position("a")), (3, 2));
    assert_eq!(story.placed(event(2, 0)), DUPLICATE);
    assert_eq!(story.placed(event(3, 0)), DUPLICATE);
    assert_eq!(story.unread("a"), 3);
    // What has a later time counts on top, also where its position is among the others.
    let mut story = Story::new();
    for n in [1, 9, 2, 3] {
        story.arrives(message(n));
    }
    assert_eq!(story.placed(event(4, 3)), APPLIED);
    assert_eq!(story.unread("a"), 4);
    let mut story = Story::new();
    for n in [1, 9, 2, 3] {
        story.arrives(message(n));
    }
    assert_eq!(story.placed(event(4, 2)), APPLIED);
    assert_eq!((story.unread("a"), story.read_position("a")), (2, 2));
    // None of them is as old.
    assert_eq!(
        story.placed(with(event(5, 2), json!({"mentions": 1}))),
        APPLIED
    );
    assert_eq!(story.counts("a"), (2, 1));
    let mut story = Story::with_messages(2);
    assert_eq!(story.placed(event(0, 3)), APPLIED);
    assert_eq!((story.unread("a"), story.read_position("a")), (5, -3));
}

#[test]
fn by_time_it_is_late_after_what_has_set_the_position() {
    let first = |event: serde_json::Value, by_time: bool| {
        let mut story = Story::with_messages(3);
        let _ = if by_time {
            story.placed(event)
        } else {
            story.arrives(event)
        };
        story
    };
    for (mut story, moment) in [
        (first(read(5, json!({})), true), Some(5)),
        (first(read(5, json!({"up_to_time": at(4)})), true), Some(4)),
        // Of a read by id it is the time of the read.
        (first(read(5, json!({"up_to_id": "1"})), true), Some(5)),
        (first(super::story::cleared(5, json!({})), true), Some(5)),
        (
            first(
                json!({"type": "user.read_all", "user": "a", "time": at(5)}),
                true,
            ),
            Some(5),
        ),
        (first(own(5), true), Some(5)),
        (first(unread(5, json!({"from_id": "1"})), true), Some(5)),
        (first(counts(5, 1), true), Some(5)),
        // By arrival it is the moment of acceptance, which is later than all.
        (first(read(5, json!({})), false), None),
        (first(own(5), false), None),
        (first(counts(5, 1), false), None),
        (first(unread(5, json!({"from_id": "1"})), false), None),
        // What sets no position has no moment.
        (
            first(with(own(5), json!({"mark_read": false})), true),
            Some(0),
        ),
        (first(edit(5, "1", json!(["a"])), true), Some(0)),
    ] {
        let moment = moment.unwrap_or(299);
        if moment > 0 {
            assert_eq!(story.placed(counts(moment, 7)), DUPLICATE);
        }
        assert_eq!(story.placed(counts(moment + 2, 2)), APPLIED);
    }
}

#[test]
fn by_time_a_join_by_arrival_has_no_moment() {
    let mut story = Story::new();
    assert_eq!(story.placed(counts(1, 2)), APPLIED);
    let mut story = Story::new();
    let join = json!({"type": "member.joined", "room": "r", "user": "d", "time": at(3)});
    story.placed(join);
    let of_d = |second| with(counts(second, 2), json!({"user": "d"}));
    assert_eq!(story.placed(of_d(3)), DUPLICATE);
    assert_eq!(story.placed(of_d(4)), APPLIED);
}

#[test]
fn by_time_an_old_number_is_for_those_who_have_not_been_here() {
    let old = |unread: u64| with(counts(0, unread), json!({"time": at(-1000)}));
    let mut story = Story::with_messages(3);
    assert_eq!(story.placed(old(8)), APPLIED);
    assert_eq!(story.unread("a"), 11);
    for been_here in [
        read(5, json!({})),
        with(own(5), json!({"mark_read": false})),
        super::story::cleared(5, json!({})),
        json!({"type": "user.read_all", "user": "a"}),
    ] {
        let mut story = Story::with_messages(3);
        story.arrives(been_here);
        story.passes(3_600_000);
        let before = story.counts("a");
        assert_eq!(story.placed(old(8)), DUPLICATE);
        assert_eq!(story.counts("a"), before);
        // A number of the last ten minutes is taken.
        assert_eq!(
            story.placed(with(counts(0, 1), json!({"time": at(300 + 3_590)}))),
            APPLIED
        );
        // Rejoining begins anew.
        story.arrives(of_a("member.left", 9));
        story.arrives(of_a("member.joined", 9));
        assert_eq!(story.placed(old(8)), APPLIED);
    }
}

#[test]
fn a_mention_that_is_unread_is_known_although_its_message_is_forgotten() {
    let mut story = Story::new();
    story.arrives(with(message(1), json!({"mentions": ["a"]})));
    story.arrives(message(2));
    story.arrives(message(3));
    story.model.history = Some(2);
    story.arrives(counts(9, 3));
    assert_eq!(story.counts("a"), (3, 1));
    // Of one that was read nothing is known.
    story.arrives(read(9, json!({})));
    story.arrives(counts(9, 3));
    assert_eq!(story.counts("a"), (3, 0));
}
