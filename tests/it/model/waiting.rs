use serde_json::{Value, json};

use super::story::{
    APPLIED, DUPLICATE, Story, at, cleared, counts, edit, join, leave, message, read, recall, told,
    unread, unread_after, with,
};
use crate::support::model::{Outcome, TEN_MINUTES};

const NO_MESSAGE: Outcome = Outcome::Rejected("message_not_found");

#[test]
fn what_names_an_unknown_message_waits_for_it() {
    let named = with(message(1), json!({"mentions": ["a"]}));
    for (event, counts) in [
        (recall(2, "1"), (0, 0)),
        (edit(2, "1", json!([])), (1, 0)),
        (read(2, json!({"up_to_id": "1"})), (0, 0)),
        (unread(2, json!({"from_id": "1"})), (1, 1)),
    ] {
        let mut story = Story::new();
        assert_eq!(story.arrives(event.clone()), NO_MESSAGE);
        assert_eq!(story.placed(event.clone()), APPLIED);
        assert_eq!(story.placed(event.clone()), APPLIED);
        assert_eq!(story.placed(named.clone()), Outcome::Applied(Some(1)));
        assert_eq!(story.counts("a"), counts, "{event}");
        // The message may come by arrival.
        let mut story = Story::new();
        story.placed(event.clone());
        story.arrives(named.clone());
        assert_eq!(story.counts("a"), counts, "{event}");
        // For ten minutes.
        let mut story = Story::new();
        story.placed(event.clone());
        story.passes(TEN_MINUTES);
        story.placed(named.clone());
        assert_eq!(story.counts("a"), (1, 1), "{event}");
        // Another message is another matter.
        let mut story = told(std::slice::from_ref(&event));
        story.placed(with(named.clone(), json!({"id": "other"})));
        assert_eq!(story.counts("a"), (1, 1), "{event}");
    }
    // Clearing does not wait.
    let mut story = Story::new();
    assert_eq!(
        story.placed(cleared(2, json!({"up_to_id": "1"}))),
        NO_MESSAGE
    );
}

#[test]
fn what_has_waited_comes_to_what_it_is_afterwards() {
    // Recalled as the second time.
    let mut story = told(&[recall(2, "1"), message(1)]);
    assert_eq!(story.placed(recall(2, "1")), DUPLICATE);
    // The last edit that the room accepted holds.
    let story = told(&[
        edit(3, "1", json!(["a"])),
        edit(2, "1", json!(["c"])),
        message(1),
    ]);
    assert_eq!((story.counts("a"), story.counts("c")), ((1, 0), (1, 1)));
    // The read has a moment, and its message is a bound.
    let mut story = told(&[read(5, json!({"up_to_id": "3"})), message(3)]);
    assert_eq!(story.placed(counts(5, 9)), DUPLICATE);
    story.placed(message(2));
    assert_eq!(story.unread("a"), 0);
    story.placed(message(4));
    assert_eq!(story.unread("a"), 1);
}

#[test]
fn a_mark_waits_for_a_message_that_would_be_read_on_arrival() {
    assert_eq!(
        unread_after(&[
            read(3, json!({})),
            unread(5, json!({"from_id": "1"})),
            message(1)
        ]),
        1
    );
    // A read of later has the last word.
    let events = [
        unread(5, json!({"from_id": "1"})),
        read(7, json!({})),
        message(1),
    ];
    assert_eq!(unread_after(&events), 0);
}

#[test]
fn a_later_mark_or_number_cancels_waiting_reads() {
    let waits = |second: i64| read(second, json!({"up_to_id": "9"}));
    let mark = |second: i64| unread(second, json!({"from_time": at(0)}));
    for reset in [mark, |second| counts(second, 1)] {
        let base = [message(1), with(read(1, json!({})), json!({"user": "c"}))];
        let after = |events: &[Value]| unread_after(&[&base[..], events, &[message(9)]].concat());
        // Of earlier and of the same time it is cancelled, of a later time not. (A number speaks of 9 too.)
        let unread_then = |reset: &Value| 1 + u64::from(reset["type"] == "room.unread");
        assert_eq!(after(&[waits(20), reset(30)]), unread_then(&reset(30)));
        assert_eq!(after(&[waits(20), reset(20)]), unread_then(&reset(20)));
        assert_eq!(after(&[waits(20), reset(15)]), 0);
        // By arrival whatever was told before.
        let mut story = told(&base);
        story.placed(waits(20));
        story.arrives(reset(10));
        story.placed(message(9));
        assert_eq!(story.unread("a"), 2);
        // Others' stay.
        let mut story = told(&base);
        story.placed(with(waits(20), json!({"user": "c"})));
        story.placed(reset(30));
        story.placed(message(9));
        assert_eq!(story.unread("c"), 0);
    }
}

#[test]
fn leaving_ends_what_waits() {
    let waits = [
        read(2, json!({"up_to_id": "9"})),
        unread(3, json!({"from_id": "9"})),
    ];
    let mut story = told(&waits);
    story.placed(leave(4, "a"));
    story.placed(join(5, "a"));
    story.placed(message(9));
    assert_eq!(story.unread("a"), 1);
    let mut story = told(&waits);
    story.arrives(leave(4, "a"));
    story.placed(message(9));
    assert!(!story.model.rooms["r"].has_joined("a"));
}

#[test]
fn a_recall_between_two_waits_without_a_room() {
    let mut story = Story::new();
    let pair = |kind: &str, id: &str| json!({"type": kind, "sender": "x", "to": "y", "id": id, "time": at(2)});
    let rooms = story.model.rooms.len();
    assert_eq!(story.placed(pair("message.recalled", "1")), APPLIED);
    assert_eq!(
        story.placed(with(
            pair("message.updated", "2"),
            json!({"mentions": "all"})
        )),
        APPLIED
    );
    assert_eq!(
        (story.model.rooms.len(), story.model.users.contains_key("x")),
        (rooms, false)
    );
    for id in ["1", "2", "3"] {
        story.placed(pair("message.sent", id));
    }
    let native = story.model.native("y", false).unwrap();
    assert_eq!(
        json!([native["messages"]["total"], native["mentions"]["total"]]),
        json!([2, 1])
    );
}
