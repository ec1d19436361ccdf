use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::support::history::Universe;
use crate::support::model::{Model, Order, Outcome};
use crate::support::traffic::Writer;
use crate::support::words::{self, ALL};

/// Random events of every sort. `apply` has the model take each of them.
fn walk(
    seed: u64,
    steps: usize,
    history: Option<usize>,
    apply: impl FnMut(&mut Model, Order, &Value),
) {
    walk_in(Universe::with_everything(), seed, steps, history, apply);
}

fn walk_in(
    mut universe: Universe,
    seed: u64,
    steps: usize,
    history: Option<usize>,
    mut apply: impl FnMut(&mut Model, Order, &Value),
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut model = Model::default();
    model.history = history;
    let mut sent: Vec<Value> = Vec::new();
    let mut step = 0;
    while step < steps {
        // Long enough in one order that what needs it comes about.
        if step % 100 == 0 {
            universe.by_time = [0.0, 0.5, 1.0][rng.random_range(0..3)];
        }
        let order = universe.order(&mut rng);
        let event = match sent.len() {
            1.. if rng.random_bool(0.06) => sent[rng.random_range(0..sent.len())].clone(),
            _ => universe.event(&model, &mut rng),
        };
        let field = |name: &str| event[name].as_str().unwrap_or_default();
        // Nobody here to name the rooms that `to` makes.
        let makes = field("type") == "message.sent"
            && model.direct_room(field("sender"), field("to")).is_none();
        if event.get("to").is_some() && makes || !universe.is_defined(&model, &event) {
            continue;
        }
        apply(&mut model, order, &event);
        sent.push(event);
        step += 1;
    }
}

/// All that a user can be shown as a number.
fn shown(model: &Model) -> Vec<(String, String, u64, u64, u64, Option<i64>)> {
    let mut all = Vec::new();
    for (id, room) in &model.rooms {
        for user in model.users.keys() {
            let (unread, mentions) = (room.unread(user), room.mentions(user));
            let position = room.read_position(user);
            all.push((
                id.clone(),
                user.clone(),
                unread,
                mentions,
                room.invited(user),
                position,
            ));
        }
    }
    all
}

#[test]
fn what_is_refused_or_repeated_changes_nothing() {
    for (seed, history) in [(1, None), (2, None), (3, Some(4))] {
        walk(seed, 800, history, |model, order, event| {
            let before = shown(model);
            let outcome = model.apply_in(order, event);
            if !matches!(outcome, Outcome::Applied(_)) {
                assert_eq!(before, shown(model), "{order:?} {event}: {outcome:?}");
            }
        });
    }
}

#[test]
fn counts_are_no_more_than_what_they_are_of() {
    for (seed, history) in [(4, None), (5, None), (6, Some(4))] {
        walk(seed, 800, history, |model, order, event| {
            model.apply_in(order, event);
            for (room, user, unread, mentions, invited, position) in shown(model) {
                let what = || format!("{user} in {room} after {order:?} {event}");
                assert!(mentions <= unread, "{}", what());
                let above = position.map_or(0, |read| model.rooms[&room].head() - read);
                assert!(above >= 0 && unread <= above as u64, "{}", what());
                assert!(invited == 0 || unread == 0, "{}", what());
            }
        });
    }
}

#[test]
fn a_number_that_is_taken_is_shown() {
    let mut taken = 0;
    for (seed, history) in [(7, None), (8, None), (9, Some(4))] {
        walk(seed, 4000, history, |model, order, event| {
            let outcome = model.apply_in(order, event);
            let is_number = event["type"] == "counts.set" && order == Order::Arrival;
            if !is_number || !matches!(outcome, Outcome::Applied(_)) {
                return;
            }
            let (Some(room), Some(user)) = (event["room"].as_str(), event["user"].as_str()) else {
                return;
            };
            let room = &model.rooms[room];
            if room.active {
                taken += 1;
                let unread = event["unread"].as_u64().unwrap();
                assert_eq!(room.unread(user), unread, "{event}");
                if let Some(mentions) = event["mentions"].as_u64() {
                    assert_eq!(room.mentions(user), mentions.min(unread), "{event}");
                }
            }
        });
    }
    assert!(taken > 100, "only {taken} numbers were taken");
}

#[test]
fn the_generator_reaches_every_outcome_of_every_event() {
    let mut seen: BTreeMap<(String, Order, &str), usize> = BTreeMap::new();
    for seed in 10..18 {
        let history = (seed % 3 == 0).then_some(4);
        walk(seed, 4000, history, |model, order, event| {
            let outcome = match model.apply_in(order, event) {
                Outcome::Applied(_) => "applied",
                Outcome::Duplicate(_) => "duplicate",
                Outcome::Rejected(code) => code,
            };
            let kind = event["type"].as_str().unwrap_or_default().to_owned();
            *seen.entry((kind, order, outcome)).or_default() += 1;
        });
    }
    for (kind, by_arrival, by_time) in [
        (
            "room.unread",
            "applied not_a_member message_not_found room_not_found invalid",
            "applied duplicate",
        ),
        ("room.read", "applied duplicate", "applied duplicate"),
        (
            "room.cleared",
            "applied message_not_found room_not_found invalid",
            "applied message_not_found",
        ),
        (
            "counts.set",
            "applied not_a_member room_not_found invalid",
            "applied duplicate",
        ),
        (
            "message.updated",
            "applied duplicate message_not_found room_not_found invalid",
            "applied duplicate",
        ),
        (
            "message.recalled",
            "applied duplicate message_not_found invalid",
            "applied duplicate",
        ),
        (
            "message.sent",
            "applied duplicate room_not_found invalid",
            "applied duplicate",
        ),
        (
            "member.joined",
            "applied",
            "applied duplicate direct_room_full",
        ),
        ("member.left", "applied", "applied duplicate"),
        ("member.invited", "applied", "applied duplicate"),
        ("pref.updated", "applied not_a_member invalid", "applied"),
        ("user.read_all", "applied", "applied duplicate invalid"),
        ("user.deleted", "applied user_not_found", "applied"),
    ] {
        for (order, outcomes) in [(Order::Arrival, by_arrival), (Order::Time, by_time)] {
            for outcome in outcomes.split(' ') {
                let count = seen
                    .get(&(kind.to_owned(), order, outcome))
                    .copied()
                    .unwrap_or(0);
                assert!(
                    count >= 3,
                    "{kind} {order:?} {outcome} came {count} times: {seen:#?}"
                );
            }
        }
    }
}

#[test]
fn each_word_can_be_let_in_alone() {
    for at in 0..ALL.len() {
        let mut seen = 0;
        let universe = Universe::with(&ALL[at..=at]);
        walk_in(
            universe,
            20 + at as u64,
            1500,
            None,
            |model, order, event| {
                let words = words::of(order, event);
                assert!(
                    words.iter().all(|word| *word == ALL[at]),
                    "{}: {event}",
                    ALL[at]
                );
                seen += words.len();
                model.apply_in(order, event);
            },
        );
        assert!(seen > 5, "{} came {seen} times", ALL[at]);
    }
    walk_in(
        Universe::with(&[]),
        19,
        1500,
        None,
        |model, order, event| {
            assert!(words::of(order, event).is_empty(), "{event}");
            model.apply_in(order, event);
        },
    );
}

/// What is sent while pods and servers are killed: there, too, every sort of event comes.
#[test]
fn writers_send_every_word() {
    let (mut all, mut of_all_rooms) = (BTreeMap::new(), BTreeMap::new());
    for name in 0..8 {
        let rng = StdRng::seed_from_u64(name as u64);
        let mut writer = Writer::new(name, rng.clone()).with_rooms_of_its_own();
        let mut other = Writer::new(name, rng);
        for _ in 0..75 {
            let batch = writer.next(5);
            let order = if batch.by_time {
                Order::Time
            } else {
                Order::Arrival
            };
            for word in counted(order, &batch.events) {
                *all.entry(word).or_insert(0) += 1;
            }
            for word in counted(Order::Arrival, &other.batch(5)) {
                *of_all_rooms.entry(word).or_insert(0) += 1;
            }
        }
    }
    for word in ALL {
        assert!(all.get(word) > Some(&7), "{word}: {all:?}");
    }
    // What sets a read position back, and what goes by time, depends on the order.
    for word in ALL {
        let depends = ["room.unread", "counts.set", "order"].contains(&word);
        let count = of_all_rooms.get(word).copied().unwrap_or(0);
        assert!((count > 7) != depends, "{word}: {of_all_rooms:?}");
    }
}

fn counted(order: Order, events: &Value) -> Vec<&'static str> {
    let events = events.as_array().unwrap().iter();
    events.flat_map(|event| words::of(order, event)).collect()
}
