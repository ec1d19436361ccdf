//! Which states a history can have come to: what the model says after every serial order of its events.

use serde_json::Value;

use crate::support::check;
use crate::support::model::{Model, Order};

/// A request: what was sent, what was answered, and when that was on the history's own clock.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub order: Order,
    pub events: Vec<Value>,
    /// None: no answer, or one that says that nobody knows. Some of the events may have taken effect, the first ones first.
    pub results: Option<Vec<Value>>,
    pub invoked: u32,
    /// None: it was never answered, so that what it does may happen at any time.
    pub answered: Option<u32>,
}

/// The states to which a serial order of the events can lead in which each is answered as it was: those of a request in their
/// order, and a request that was answered before another one was made before that.
#[derive(Default)]
pub(crate) struct States {
    /// When all that was answered has happened.
    pub complete: Vec<Model>,
    /// On the way there.
    pub partial: Vec<Model>,
}

impl States {
    /// Adds those that follow from `start`. `named` gives rooms the ids that the server gives them.
    pub(crate) fn add(
        &mut self,
        start: &Model,
        calls: &[Call],
        named: &dyn Fn(&Model, &mut Model),
    ) {
        self.walk(start, calls, &mut vec![0; calls.len()], named);
    }

    fn walk(
        &mut self,
        model: &Model,
        calls: &[Call],
        done: &mut [usize],
        named: &dyn Fn(&Model, &mut Model),
    ) {
        let complete =
            |call: &Call, done: usize| call.results.is_none() || done == call.events.len();
        match calls
            .iter()
            .zip(done.iter())
            .all(|(call, done)| complete(call, *done))
        {
            true => self.complete.push(model.clone()),
            false => self.partial.push(model.clone()),
        }
        for (at, call) in calls.iter().enumerate() {
            let Some(event) = call.events.get(done[at]) else {
                continue;
            };
            let waits = calls.iter().zip(done.iter()).any(|(other, done)| {
                let before = other
                    .answered
                    .is_some_and(|answered| answered < call.invoked);
                before && !complete(other, *done)
            });
            if waits {
                continue;
            }
            let mut next = model.clone();
            let outcome = next.apply_in(call.order, event);
            named(model, &mut next);
            let as_answered = call.results.as_ref().is_none_or(|results| {
                let result = &results[done[at]];
                check::result(event, result, &outcome, true).is_ok()
                    || is_repeated(event, result, calls, at)
            });
            if as_answered {
                done[at] += 1;
                self.walk(&next, calls, done, named);
                done[at] -= 1;
            }
        }
    }
}

/// Two deletions of one user at the same time may both be told that they were applied. A request whose answer was lost is sent
/// again, and has to be answered like that until the deletion has reached all rooms; which of the two it is nobody can tell.
fn is_repeated(event: &Value, result: &Value, calls: &[Call], at: usize) -> bool {
    let deletes = |event: &Value| event["type"] == "user.deleted";
    let meets = |other: &Call| {
        let before = other
            .answered
            .is_some_and(|answered| answered < calls[at].invoked);
        !before
            && other
                .events
                .iter()
                .any(|other| deletes(other) && other["user"] == event["user"])
    };
    let others = calls.iter().enumerate().filter(|(n, _)| *n != at);
    deletes(event)
        && result["status"] == "applied"
        && others.into_iter().any(|(_, other)| meets(other))
}

#[test]
fn orders_are_those_that_the_answers_allow() {
    use serde_json::json;
    let mut start = Model::default();
    for event in [
        json!({"type": "room.updated", "room": "r"}),
        json!({"type": "member.joined", "room": "r", "user": "a"}),
    ] {
        start.apply(&event);
    }
    let sent = |id: &str| json!({"type": "message.sent", "room": "r", "id": id, "sender": "b"});
    let read = json!({"type": "room.read", "room": "r", "user": "a"});
    let call = |event: Value, result: Option<Value>, invoked, answered| Call {
        order: Order::Arrival,
        events: vec![event],
        results: result.map(|result| vec![result]),
        invoked,
        answered,
    };
    let applied = json!({"status": "applied"});
    let first = json!({"status": "applied", "position": 1});
    let unread = |calls: &[Call]| {
        let mut states = States::default();
        states.add(&start, calls, &|_, _| {});
        let mut unread: Vec<u64> = states
            .complete
            .iter()
            .map(|model| model.rooms["r"].unread("a"))
            .collect();
        unread.sort_unstable();
        unread
    };
    // At the same time: read before or after.
    let both = [
        call(sent("1"), Some(first.clone()), 1, Some(4)),
        call(read.clone(), Some(applied.clone()), 2, Some(3)),
    ];
    assert_eq!(unread(&both), [0, 1]);
    // One after the other.
    let after = [
        call(sent("1"), Some(first), 1, Some(2)),
        call(read.clone(), Some(applied.clone()), 3, Some(4)),
    ];
    assert_eq!(unread(&after), [0]);
    // Unanswered: not at all, before or after.
    let lost = [
        call(sent("1"), None, 1, None),
        call(read, Some(applied), 2, Some(3)),
    ];
    assert_eq!(unread(&lost), [0, 0, 1]);
    // An answer that no order gives.
    let wrong = [call(
        sent("1"),
        Some(json!({"status": "applied", "position": 2})),
        1,
        Some(2),
    )];
    assert!(unread(&wrong).is_empty());
}
