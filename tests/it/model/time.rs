use serde_json::{Value, json};

use super::story::{
    APPLIED, DUPLICATE, Story, at, cleared, counts, edit, join, leave, message, of_a, own, read,
    read_all, recall, told, unread, unread_after, with,
};
use crate::support::model::{Order, Outcome, TEN_MINUTES};

const INVALID: Outcome = Outcome::Rejected("invalid");
const NO_MESSAGE: Outcome = Outcome::Rejected("message_not_found");

#[test]
fn by_time_an_event_has_a_time() {
    for event in [
        message(1),
        read(1, json!({})),
        counts(1, 1),
        json!({"type": "user.updated", "user": "a", "time": at(1)}),
        json!({"type": "room.updated", "room": "r", "time": at(1)}),
    ] {
        let mut story = Story::new();
        let without = with(event.clone(), json!({"time": null}));
        assert_eq!(story.placed(without.clone()), INVALID, "{event}");
        assert!(matches!(story.placed(event), Outcome::Applied(_)));
        assert!(!matches!(story.arrives(without), Outcome::Rejected(_)));
    }
}

#[test]
fn a_message_that_is_not_after_the_bound_is_read_on_arrival() {
    for (bound, second) in [
        (read(5, json!({})), 5),
        (read(5, json!({"up_to_time": at(3)})), 3),
        (read(5, json!({"up_to_time": at(8)})), 8),
        (cleared(5, json!({})), 5),
        (cleared(5, json!({"up_to_time": at(3)})), 3),
        (read_all(5, json!({})), 5),
        (read_all(5, json!({"up_to_time": at(3)})), 3),
        (own(5), 5),
        (with(own(5), json!({"silent": true})), 5),
        (counts(5, 0), 5),
    ] {
        // At the bound, and just after it.
        for (late, unread) in [(0, 0), (1, 1)] {
            let mut late_message = message(1);
            late_message["time"] = json!(at(second) + late);
            let got = unread_after(&[bound.clone(), late_message]);
            assert_eq!(got, unread, "{bound}, {late} ms later");
        }
    }
}

#[test]
fn a_read_by_id_or_position_is_bound_by_that_message() {
    for up_to in [
        json!({"up_to_id": "3"}),
        json!({"up_to_position": 1}),
        // Beyond the head it means the head.
        json!({"up_to_position": 9}),
    ] {
        for event in [read(8, up_to.clone()), cleared(8, up_to.clone())] {
            let before = [message(3), event];
            let after = |second: i64| unread_after(&[&before[..], &[message(second)]].concat());
            assert_eq!((after(2), after(4)), (0, 1), "{up_to}");
        }
    }
}

#[test]
fn what_sets_no_bound_reads_nothing_on_arrival() {
    for event in [
        with(own(5), json!({"mark_read": false})),
        edit(5, "7", json!([])),
        read_all(5, json!({"kinds": ["direct"]})),
        // Others' are no bound of a.
        with(read(5, json!({})), json!({"user": "c"})),
        message(5),
    ] {
        let before = unread_after(std::slice::from_ref(&event));
        assert_eq!(
            unread_after(&[event.clone(), message(1)]),
            before + 1,
            "{event}"
        );
    }
    // Nor does anything by arrival, and a message by arrival is not compared with a bound.
    let mut story = Story::new();
    story.arrives(read(5, json!({})));
    story.placed(message(1));
    assert_eq!(story.unread("a"), 1);
    let mut story = told(&[read(5, json!({}))]);
    story.arrives(message(1));
    assert_eq!(story.unread("a"), 1);
}

#[test]
fn a_fast_clock_reads_nothing_in_advance() {
    for event in [
        read(5, json!({"up_to_time": at(9999)})),
        read(9999, json!({})),
        own(9999),
        counts(9999, 0),
        cleared(9999, json!({})),
    ] {
        // Accepted at second 300, and that to its end.
        for (milliseconds, unread) in [(299_000, 0), (300_999, 0), (301_000, 1)] {
            let mut late = message(1);
            late["time"] = json!(at(0) + milliseconds);
            assert_eq!(unread_after(&[event.clone(), late]), unread, "{event}");
        }
    }
}

#[test]
fn a_bound_holds_for_ten_minutes() {
    for (passed, unread) in [(TEN_MINUTES - 1, 0), (TEN_MINUTES, 1)] {
        let mut story = told(&[read(5, json!({}))]);
        story.passes(passed);
        story.placed(message(1));
        assert_eq!(story.unread("a"), unread);
    }
    // A lower one that is told later does not prolong a higher one.
    let mut story = told(&[read(5, json!({}))]);
    story.passes(TEN_MINUTES / 2);
    story.placed(read(3, json!({})));
    story.passes(TEN_MINUTES / 2);
    story.placed(message(4));
    story.placed(message(2));
    assert_eq!(story.unread("a"), 1);
}

#[test]
fn what_was_read_on_arrival_is_as_if_never_sent() {
    // 3 has the position 3, after 9 at position 2.
    let mut story = told(&[message(1), read(5, json!({})), message(9), message(3)]);
    assert_eq!((story.unread("a"), story.unread("c")), (1, 3));
    for event in [
        read(6, json!({})),
        read(6, json!({"up_to_time": at(4)})),
        read(6, json!({"up_to_id": "3"})),
        read_all(6, json!({})),
        cleared(6, json!({})),
    ] {
        let mut later = story.clone();
        assert_eq!(later.placed(event.clone()), APPLIED);
        assert_eq!(
            (later.unread("a"), later.read_position("a")),
            (1, 1),
            "{event}"
        );
    }
    // A mention in it is none, and its recall takes nothing away.
    story.placed(edit(6, "3", json!(["a"])));
    assert_eq!(story.counts("a"), (1, 0));
    story.placed(recall(6, "3"));
    assert_eq!(story.counts("a"), (1, 0));
    // By its position it is read with what is before it.
    story.placed(read(6, json!({"up_to_position": 3})));
    assert_eq!(story.unread("a"), 0);
}

#[test]
fn a_mark_takes_the_bound_back() {
    let before = [
        message(1),
        message(9),
        read(10, json!({})),
        message(4),
        message(2),
    ];
    assert_eq!(unread_after(&before), 0);
    for (from, unread_now, late) in [
        // 4 counts again, and so do 9 and what is told later; 2 was read as of 10.
        (json!({"from_time": at(3)}), 2, (0, 1)),
        (json!({"from_id": "4"}), 1, (0, 1)),
        (json!({"from_id": "9"}), 1, (0, 0)),
        (json!({"from_position": 1}), 4, (1, 1)),
        (json!({"from_time": 0}), 4, (1, 1)),
        // Nothing is at or after it.
        (json!({"from_time": at(10)}), 0, (0, 0)),
    ] {
        for by_time in [true, false] {
            let mut story = told(&before);
            let mark = unread(11, from.clone());
            let outcome = if by_time {
                story.placed(mark)
            } else {
                story.arrives(mark)
            };
            assert_eq!(outcome, APPLIED);
            assert_eq!(story.unread("a"), unread_now, "{from}");
            let told_now = |late: Value| {
                let mut story = story.clone();
                story.placed(late);
                story.unread("a") - unread_now
            };
            let mut early = message(5);
            early["time"] = json!(at(1) + 500);
            assert_eq!((told_now(early), told_now(message(8))), late, "{from}");
        }
    }
}

#[test]
fn a_join_is_placed_by_its_time() {
    let mut story = told(&[
        message(1),
        with(message(3), json!({"mentions": "all"})),
        message(2),
    ]);
    let joined = |second: i64| {
        let mut story = story.clone();
        assert_eq!(story.placed(join(second, "d")), APPLIED);
        (story.read_position("d"), story.counts("d"))
    };
    assert_eq!(joined(0), (0, (3, 1)));
    assert_eq!(joined(1), (1, (2, 1)));
    // 2 has the position 3, after that of 3.
    assert_eq!(joined(2), (3, (0, 0)));
    assert_eq!(joined(9), (3, (0, 0)));
    // It is a bound too.
    story.placed(join(5, "d"));
    story.placed(message(4));
    assert_eq!(story.counts("d"), (0, 0));
    story.placed(message(6));
    assert_eq!(story.counts("d"), (1, 0));
    // By arrival it is at the head.
    story.arrives(join(0, "e"));
    assert_eq!(story.counts("e"), (0, 0));
}

#[test]
fn a_join_is_placed_among_what_came_within_ten_minutes() {
    let mut story = told(&[message(1), message(2)]);
    story.passes(TEN_MINUTES + 1);
    story.placed(message(3));
    let joined = |order: Order| {
        let mut story = story.clone();
        story.model.apply_in(order, &join(0, "d"));
        story.unread("d")
    };
    assert_eq!(joined(Order::Time), 1);
    // An import goes as far back as it says.
    assert_eq!(joined(Order::Import), 3);
    assert_eq!(joined(Order::Arrival), 0);
}

#[test]
fn a_membership_is_what_the_latest_event_says() {
    let is_in = |events: &[Value]| told(events).model.rooms["r"].has_joined("d");
    assert!(!is_in(&[join(1, "d"), leave(2, "d")]));
    // Told the other way round.
    assert!(!is_in(&[leave(2, "d"), join(1, "d")]));
    assert!(is_in(&[join(1, "d"), join(3, "d"), leave(2, "d")]));
    assert!(is_in(&[
        join(1, "d"),
        leave(2, "d"),
        join(3, "d"),
        leave(2, "d")
    ]));
    // At the same time the one that comes later.
    assert!(!is_in(&[join(1, "d"), leave(1, "d")]));
    assert!(is_in(&[leave(1, "d"), join(1, "d")]));
    let invite = with(join(2, "d"), json!({"type": "member.invited"}));
    let mut story = told(std::slice::from_ref(&invite));
    assert_eq!(story.placed(leave(1, "d")), DUPLICATE);
    assert_eq!(story.model.rooms["r"].invited("d"), 1);
    let mut story = told(&[leave(3, "d")]);
    assert_eq!(story.placed(invite), DUPLICATE);
    assert_eq!(story.model.rooms["r"].invited("d"), 0);
    assert!(!story.model.users.contains_key("d"));
}

#[test]
fn of_several_users_those_in_time_are_taken() {
    let mut story = told(&[leave(5, "d")]);
    let both = json!({"type": "member.joined", "room": "r", "users": ["d", "e"], "time": at(3)});
    assert_eq!(story.placed(both.clone()), APPLIED);
    let room = &story.model.rooms["r"];
    assert_eq!((room.has_joined("d"), room.has_joined("e")), (false, true));
    story.placed(leave(6, "e"));
    assert_eq!(story.placed(both), DUPLICATE);
}

#[test]
fn the_state_of_a_membership_is_remembered_for_ten_minutes() {
    for (passed, outcome) in [(TEN_MINUTES - 1, DUPLICATE), (TEN_MINUTES, APPLIED)] {
        let mut story = told(&[join(1, "d"), leave(5, "d")]);
        story.passes(passed);
        assert_eq!(story.placed(join(3, "d")), outcome);
    }
    // What is done by arrival has no time that a later event could be before.
    let mut story = told(&[join(5, "d")]);
    story.arrives(leave(9, "d"));
    assert_eq!(story.placed(join(1, "d")), APPLIED);
    assert_eq!(story.arrives(leave(0, "d")), APPLIED);
    assert!(!story.model.rooms["r"].has_joined("d"));
    // By arrival nothing is late.
    let mut story = told(&[join(5, "d")]);
    story.arrives(leave(1, "d"));
    assert!(!story.model.rooms["r"].has_joined("d"));
    // A user who was deleted does not come back by a join of before.
    let mut story = told(&[join(1, "d")]);
    story.placed(json!({"type": "user.deleted", "user": "d", "time": at(5)}));
    assert_eq!(story.placed(join(3, "d")), DUPLICATE);
    assert!(!story.model.users.contains_key("d"));
}

#[test]
fn a_message_to_somebody_counts_for_who_is_brought_in_by_it() {
    let to = |second: i64| {
        json!({
            "type": "message.sent", "sender": "b", "to": "d", "id": second.to_string(), "time": at(second),
        })
    };
    let unread = |events: &[Value]| told(events).model.tencent_total("d");
    assert_eq!(unread(&[to(1), to(2)]), Some(2));
    // Told the other way round.
    assert_eq!(unread(&[to(2), to(1)]), Some(2));
    // A leave of before does not take out whom the message has brought in.
    let mut story = told(&[to(2)]);
    story.model.learn("b", "d", "bd");
    let gone = |second: i64| with(leave(second, "d"), json!({"room": "bd"}));
    assert_eq!(story.placed(gone(1)), DUPLICATE);
    assert_eq!(story.placed(gone(3)), APPLIED);
    assert_eq!(story.placed(to(4)), Outcome::Applied(Some(2)));
    assert_eq!(story.model.tencent_total("d"), Some(1));
}

#[test]
fn the_last_message_of_a_room_is_not_one_that_is_late() {
    let story = told(&[message(1), message(5), message(3)]);
    assert_eq!(story.model.rooms["r"].last().unwrap().id, "5");
}

/// The page's own example: two neighbours of a feed change places.

#[test]
fn two_neighbours_may_change_places() {
    let start = [message(1), read(2, json!({}))];
    for (one, other) in [
        (message(3), read(4, json!({}))),
        (message(3), read(4, json!({"up_to_id": "3"}))),
        (message(3), recall(4, "3")),
        (message(3), edit(4, "3", json!(["a"]))),
        (message(3), counts(4, 5)),
        (message(3), unread(4, json!({"from_id": "1"}))),
        (message(3), unread(4, json!({"from_id": "3"}))),
        (message(3), cleared(4, json!({}))),
        (message(3), join(4, "d")),
        (message(3), own(4)),
        (join(3, "d"), message(4)),
        (join(3, "d"), leave(4, "d")),
        (counts(3, 5), message(4)),
        (read(3, json!({})), unread(4, json!({"from_id": "1"}))),
        (unread(3, json!({"from_id": "1"})), read(4, json!({}))),
        (unread(3, json!({"from_id": "1"})), own(4)),
        (counts(3, 5), read(4, json!({}))),
        (read(3, json!({})), counts(4, 5)),
        (counts(3, 5), counts(4, 2)),
        (counts(3, 5), cleared(4, json!({}))),
    ] {
        let after = |events: &[&Value]| {
            let events: Vec<Value> = events.iter().map(|event| (*event).clone()).collect();
            let story = told(&[&start[..], &events].concat());
            (story.counts("a"), story.counts("d"), story.counts("c"))
        };
        let (in_order, swapped) = (after(&[&one, &other]), after(&[&other, &one]));
        assert_eq!(in_order, swapped, "{one}\n{other}");
        // A feed repeats itself.
        assert_eq!(in_order, after(&[&other, &one, &other]), "{one}\n{other}");
        assert_eq!(in_order, after(&[&one, &other, &one]), "{one}\n{other}");
    }
}

/// An own message is a position of its own, so what came before it, though it is of a later time, is read.

#[test]
fn an_own_message_reads_what_was_accepted_before_it() {
    assert_eq!(unread_after(&[own(3), message(4)]), 1);
    assert_eq!(unread_after(&[message(4), own(3)]), 0);
}

#[test]
fn users_and_settings_go_by_arrival() {
    let name = |second: i64, name: &str| json!({"type": "room.updated", "room": "r", "name": name, "time": at(second)});
    let story = told(&[name(5, "new"), name(1, "old")]);
    assert_eq!(story.model.rooms["r"].details["name"], "old");
    let told_of = of_a("pref.updated", 1);
    let mut story = told(&[with(told_of, json!({"count": "none"}))]);
    story.placed(message(3));
    assert_eq!(
        story.model.native("a", false).unwrap()["messages"]["total"],
        0
    );
}

#[test]
fn the_bound_goes_back_to_before_the_time_that_a_mark_names() {
    let before = [
        message(1),
        message(9),
        read(10, json!({})),
        unread(11, json!({"from_time": at(3)})),
    ];
    for (second, unread) in [(2, 1), (3, 2), (4, 2)] {
        let events = [&before[..], &[message(second)]].concat();
        assert_eq!(unread_after(&events), unread, "{second}");
    }
}

#[test]
fn what_the_room_has_forgotten_is_placed_before_everything() {
    let mut story = Story::with_messages(5);
    story.model.history = Some(2);
    story.placed(join(0, "d"));
    assert_eq!(story.unread("d"), 2);
    // A position is known, but not the time of its message.
    story.placed(read(6, json!({"up_to_position": 1})));
    story.placed(with(message(9), json!({"time": at(1)})));
    assert_eq!(story.unread("a"), 5);
}

#[test]
fn what_was_read_on_arrival_is_forgotten_with_the_history() {
    let mut story = told(&[read(5, json!({})), message(1), message(8), message(9)]);
    story.model.history = Some(2);
    let up_to = read(9, json!({"up_to_id": "1"}));
    assert_eq!(story.arrives(up_to.clone()), NO_MESSAGE);
    // By time it waits, as for one that was never sent.
    assert_eq!(story.placed(up_to), APPLIED);
    assert_eq!(story.unread("a"), 2);
}
