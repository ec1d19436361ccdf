use serde_json::json;

use super::story::{
    APPLIED, DUPLICATE, Story, at, cleared, counts, message, of_a, own, read, read_all, recall,
    unread, with,
};
use crate::support::model::{Outcome, TEN_MINUTES};

const NO_MESSAGE: Outcome = Outcome::Rejected("message_not_found");

/// The room has the last two messages only: 3, which came late for `a`, and 9, which is later than everything.
fn late_in_a_short_history() -> Story {
    let mut story = Story::new();
    story.model.history = Some(2);
    for second in [1, 2, 4] {
        story.placed(message(second));
    }
    story.placed(read(5, json!({"up_to_time": at(3)})));
    assert_eq!((story.unread("a"), story.unread("c")), (1, 3));
    story.placed(message(3));
    story.placed(message(9));
    assert_eq!((story.unread("a"), story.unread("c")), (2, 5));
    story
}

#[test]
fn a_read_is_refused_if_what_is_forgotten_may_be_unread() {
    // Of a's, 4 is forgotten and unread.
    for event in [
        read(8, json!({"up_to_time": at(3)})),
        read(8, json!({"up_to_id": "3"})),
        read(8, json!({})),
    ] {
        let mut story = late_in_a_short_history();
        assert_eq!(story.placed(event.clone()), NO_MESSAGE, "{event}");
        assert_eq!(story.unread("a"), 2, "{event}");
        // For the others the room knows a message of that time.
        let others = with(event.clone(), json!({"user": "c"}));
        assert_eq!(story.placed(others), APPLIED, "{event}");
        assert_eq!(story.unread("c"), 1, "{event}");
        // And so for who has read what is forgotten.
        story.placed(read(7, json!({"up_to_position": 3})));
        assert_eq!(story.placed(event.clone()), APPLIED, "{event}");
        assert_eq!(story.unread("a"), 1, "{event}");
    }
    let mut story = late_in_a_short_history();
    assert_eq!(story.placed(read_all(8, json!({}))), APPLIED);
    assert_eq!(story.unread("a"), 2);
}

#[test]
fn a_clearing_and_a_read_that_has_waited_go_as_far_as_is_known() {
    for up_to in [
        json!({"up_to_time": at(3)}),
        json!({"up_to_id": "3"}),
        json!({}),
    ] {
        let mut story = late_in_a_short_history();
        assert_eq!(story.placed(cleared(8, up_to.clone())), APPLIED, "{up_to}");
        assert_eq!((story.unread("a"), story.unread("c")), (2, 1), "{up_to}");
    }
    // Of a time of which the room knows nothing at all it is refused.
    let mut story = late_in_a_short_history();
    let up_to = json!({"up_to_time": at(2)});
    assert_eq!(story.placed(cleared(8, up_to)), NO_MESSAGE);
    // One that has waited moves nothing, but is remembered.
    let mut story = late_in_a_short_history();
    assert_eq!(story.placed(read(10, json!({"up_to_id": "2x"}))), APPLIED);
    story.placed(with(message(2), json!({"id": "2x"})));
    assert_eq!(story.unread("a"), 2);
    assert_eq!(story.placed(counts(10, 7)), DUPLICATE);
}

#[test]
fn a_mark_reaches_as_far_back_as_the_history() {
    let mut story = Story::new();
    story.model.history = Some(2);
    story.placed(read(9, json!({})));
    for second in [1, 2, 3] {
        story.placed(message(second));
    }
    assert_eq!(story.unread("a"), 0);
    // The first one stays read on arrival.
    story.placed(unread(10, json!({"from_time": at(1)})));
    assert_eq!(story.unread("a"), 2);
}

/// The server's clock steps back: by less than ten minutes, and by more.
#[test]
fn what_is_remembered_holds_for_so_much_longer_or_is_forgotten() {
    let base = || {
        let mut story = Story::new();
        story.placed(read(50, json!({})));
        story.placed(recall(51, "late"));
        story
    };
    let late = || with(message(20), json!({"id": "late"}));
    for (back, holds) in [(TEN_MINUTES / 2, true), (TEN_MINUTES, false)] {
        let mut story = base();
        story.passes(-back);
        assert_eq!(story.placed(counts(40, 7)) == APPLIED, !holds, "{back}");
        story = base();
        story.passes(-back);
        story.placed(message(30));
        assert_eq!(story.unread("a") == 0, holds, "{back}");
        story.arrives(late());
        assert_eq!(story.unread("c"), if holds { 1 } else { 2 }, "{back}");
        if holds {
            // In sum it is ten minutes of the clock.
            story.passes(back + TEN_MINUTES - 1);
            story.placed(message(31));
            assert_eq!(story.unread("a"), 0);
        }
    }
}

/// By arrival an own message is remembered by the room's stamp, which never steps back.
#[test]
fn an_own_message_after_the_clock_has_stepped_back_is_of_the_rooms_time() {
    let mut story = Story::new();
    story.arrives(message(1));
    story.passes(-TEN_MINUTES / 2);
    story.arrives(own(2));
    assert_eq!(
        story.placed(with(of_a("counts.set", 299), json!({"unread": 3}))),
        DUPLICATE
    );
}
