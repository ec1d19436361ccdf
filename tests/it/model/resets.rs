use serde_json::json;

use super::story::{
    APPLIED, DUPLICATE, at, cleared, counts, message, own, read, read_all, told, unread,
    unread_after, with,
};
use crate::support::model::{Outcome, TEN_MINUTES};

#[test]
fn a_number_forgets_what_was_read_on_arrival() {
    let before = [message(1), read(5, json!({})), message(3), message(2)];
    assert_eq!(unread_after(&before), 0);
    let mut story = told(&before);
    story.placed(counts(6, 2));
    // The newest two, and not those before.
    assert_eq!((story.unread("a"), story.read_position("a")), (2, 1));
    // It is a bound: what it speaks of is not counted on top.
    story.placed(message(4));
    assert_eq!(story.unread("a"), 2);
    story.placed(message(7));
    assert_eq!(story.unread("a"), 3);
}

#[test]
fn what_is_older_than_a_reset_neither_moves_nor_bounds() {
    let resets = [unread(10, json!({"from_time": 0})), counts(10, 2)];
    for reset in resets {
        for (older, outcome) in [
            (read(10, json!({})), DUPLICATE),
            (read(9, json!({"up_to_id": "1"})), DUPLICATE),
            (read(9, json!({"up_to_id": "unknown"})), DUPLICATE),
            (read(11, json!({"up_to_time": at(10)})), DUPLICATE),
            (cleared(10, json!({})), APPLIED),
            (cleared(11, json!({"up_to_time": at(9)})), APPLIED),
            (read_all(10, json!({})), APPLIED),
            (own(10), Outcome::Applied(Some(3))),
        ] {
            let mut story = told(&[message(1), message(2), reset.clone()]);
            assert_eq!(story.placed(older.clone()), outcome, "{older}");
            assert_eq!(story.unread("a"), 2, "{older}");
            let is_told = matches!(reset["type"].as_str(), Some("counts.set"));
            story.placed(message(8));
            // A number is a bound itself.
            assert_eq!(story.unread("a"), if is_told { 2 } else { 3 }, "{older}");
            // By arrival it is a read like any other.
            let mut story = told(&[message(1), message(2), reset.clone()]);
            if !matches!(story.arrives(older), Outcome::Rejected(_)) {
                assert!(story.unread("a") < 2);
            }
        }
        // Of a later moment it counts.
        for later in [
            read(11, json!({})),
            read(9, json!({"up_to_time": at(11)})),
            cleared(11, json!({})),
            read_all(11, json!({})),
            own(11),
        ] {
            let events = [message(1), message(2), reset.clone(), later];
            assert_eq!(unread_after(&events), 0);
        }
    }
    // A reset by arrival has no time.
    let mut story = told(&[message(1)]);
    story.arrives(unread(10, json!({"from_id": "1"})));
    assert_eq!(story.placed(read(9, json!({}))), APPLIED);
    assert_eq!(story.unread("a"), 0);
}

#[test]
fn clearing_reads_for_the_others_where_one_has_a_reset() {
    let story = told(&[
        message(1),
        unread(10, json!({"from_id": "1"})),
        cleared(5, json!({})),
    ]);
    assert_eq!((story.unread("a"), story.unread("c")), (1, 0));
}

#[test]
fn a_mark_is_late_after_what_has_set_the_position() {
    for (event, by_time, moment) in [
        (read(5, json!({})), true, 5),
        (read(5, json!({"up_to_time": at(7)})), true, 7),
        (cleared(5, json!({})), true, 5),
        (own(5), true, 5),
        (counts(5, 0), true, 5),
        (unread(5, json!({"from_id": "1"})), true, 5),
        (read(5, json!({})), false, 300),
    ] {
        let mut before = told(&[message(1)]);
        let _ = if by_time {
            before.placed(event.clone())
        } else {
            before.arrives(event.clone())
        };
        let count = before.unread("a");
        for (second, outcome) in [(moment, DUPLICATE), (moment + 1, APPLIED)] {
            let mut story = before.clone();
            let mark = unread(second, json!({"from_id": "1"}));
            assert_eq!(story.placed(mark.clone()), outcome, "{event}");
            assert_eq!(
                story.unread("a"),
                if outcome == APPLIED { 1 } else { count }
            );
            // Also where it would wait.
            let waits = with(mark.clone(), json!({"from_id": "unknown"}));
            assert_eq!(before.clone().placed(waits), outcome, "{event}");
            // By arrival it is not.
            let mut story = before.clone();
            assert_eq!(story.arrives(mark), APPLIED);
            assert_eq!(story.unread("a"), 1);
        }
        let mut story = before.clone();
        story.passes(TEN_MINUTES);
        assert_eq!(
            story.placed(unread(moment, json!({"from_id": "1"}))),
            APPLIED
        );
    }
}

#[test]
fn the_last_reset_is_that_of_the_latest_time() {
    let mut story = told(&[message(1), message(2), unread(10, json!({"from_id": "2"}))]);
    story.passes(TEN_MINUTES);
    // It is not late any more, and yet not the last.
    assert_eq!(story.placed(unread(5, json!({"from_id": "1"}))), APPLIED);
    assert_eq!(story.placed(read(7, json!({}))), DUPLICATE);
    assert_eq!(story.unread("a"), 2);
}

#[test]
fn the_time_of_a_number_is_remembered_longer() {
    let mut story = told(&[counts(5, 3)]);
    story.passes(TEN_MINUTES);
    assert_eq!(story.placed(counts(5, 4)), DUPLICATE);
    assert_eq!(story.placed(counts(6, 4)), APPLIED);
    assert_eq!(story.unread("a"), 4);
}
