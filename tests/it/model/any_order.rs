//! Longer histories by time, in every order of arrival in which messages come in their own order; each event but the last comes
//! again later.
//!
//! Events of kinds that are in [one list](NEVER_SHOWS) may come in whatever order: the counts are those of the history in order. Of
//! all kinds together `orders.rs` says where the order shows.

use serde_json::Value;

use super::orders::{End, end, events, kind_named, start, told};
use super::story::Story;

/// Kinds whose order never shows, if all of a history are in one of these lists. The first one is the message, without which
/// nothing is seen.
const NEVER_SHOWS: [&[&str]; 3] = [
    &[
        "message",
        "own message",
        "read",
        "read by time",
        "read by id",
        "cleared",
        "number that agrees",
        "other number",
        "edited back",
        "joined",
    ],
    &[
        "message",
        "own message",
        "read",
        "read by time",
        "read by id",
        "unread by time",
        "cleared",
        "recalled",
        "edited",
        "left",
    ],
    &[
        "message",
        "own message",
        "unread by id",
        "recalled",
        "edited",
        "joined",
    ],
];

/// Goes on from `story`, to which the events `come` have come, in every order. Answers the orders in which the end is another one.
fn walk(story: &Story, events: &[Value], come: &mut Vec<usize>, right: &End, wrong: &mut Wrong) {
    if come.len() == events.len() {
        wrong.orders += 1;
        if end(story) != *right {
            wrong.found.push(come.clone());
        }
        return;
    }
    let is_message = |at: &usize| events[*at]["type"] == "message.sent";
    // Messages have the positions in which they come, so they keep their order.
    let first = (0..events.len()).find(|at| is_message(at) && !come.contains(at));
    let may_be_next = |at: &usize| !is_message(at) || Some(*at) == first;
    let nexts: Vec<usize> = (0..events.len())
        .filter(|at| !come.contains(at) && may_be_next(at))
        .collect();
    for next in nexts {
        let mut story = story.clone();
        story.placed(events[next].clone());
        // Another one at each step: in the end each has come again, but the last.
        if let Some(again) = come.last() {
            story.placed(events[*again].clone());
        }
        come.push(next);
        walk(&story, events, come, right, wrong);
        come.pop();
    }
}

#[derive(Default)]
struct Wrong {
    orders: usize,
    found: Vec<Vec<usize>>,
}

/// All histories of so many events of these kinds.
fn compare(kinds: &[usize], length: u32) -> usize {
    let mut orders = 0;
    for number in 0..kinds.len().pow(length) {
        let of = |at| kinds[number / kinds.len().pow(at) % kinds.len()];
        let history: Vec<usize> = (0..length).map(of).collect();
        let events = events(&history);
        let right = told(&events);
        let mut wrong = Wrong::default();
        walk(&start(), &events, &mut Vec::new(), &right, &mut wrong);
        orders += wrong.orders;
        if let Some(order) = wrong.found.first() {
            let come: Vec<&Value> = order.iter().map(|at| &events[*at]).collect();
            panic!(
                "in {} of {} orders, as in {order:?}, {come:#?} do not lead to {right:?}",
                wrong.found.len(),
                wrong.orders
            );
        }
    }
    orders
}

/// `TEST_ORDERS=all`: more of them in longer histories.
#[test]
fn the_order_of_some_kinds_never_shows() {
    let is_all = std::env::var("TEST_ORDERS").is_ok_and(|orders| orders == "all");
    for names in NEVER_SHOWS {
        let kinds: Vec<usize> = names.iter().map(|name| kind_named(name)).collect();
        let mut orders = 0;
        for length in 1..=if is_all { 4 } else { 3 } {
            orders += compare(&kinds, length);
        }
        // In longer histories some of them with the messages.
        let (message, others) = kinds.split_first().unwrap();
        for (at, one) in others.iter().enumerate() {
            orders += compare(&[*message, *one], if is_all { 6 } else { 4 });
            for other in others[at + 1..].iter().filter(|_| is_all) {
                orders += compare(&[*message, *one, *other], 5);
            }
        }
        println!("{orders} orders of {}", names.join(", "));
    }
    let [message, read] = ["message", "read"].map(kind_named);
    println!("{} orders of six", compare(&[message, read], 6));
}
