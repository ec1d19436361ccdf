//! Small histories by time, in every order of arrival, against the same history in the order of its times.
//!
//! A history begins with one message that is unread, and goes on with so many events of any kind, ten seconds apart. An event
//! that names a message names the last one before it. What is compared is what `a` and `c` have unread in the end, with their
//! mentions, and whether `a` is still there.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::story::{
    Story, at, cleared, counts, edit, message, of_a, own, read, recall, unread, with,
};

/// What there is before an event.
struct Before {
    /// The second of the event.
    now: i64,
    /// That of the last message.
    last: i64,
    /// What `a` has unread, and the mentions.
    counts: (u64, u64),
}

/// A kind of event: a name, and the event itself.
type Maker = (&'static str, fn(&Before) -> Value);

const KINDS: [Maker; 15] = [
    ("message", |b| message(b.now)),
    ("own message", |b| own(b.now)),
    ("read", |b| read(b.now, json!({}))),
    ("read by time", |b| {
        read(b.now, json!({"up_to_time": at(b.last)}))
    }),
    ("read by id", |b| {
        read(b.now, json!({"up_to_id": b.last.to_string()}))
    }),
    ("unread by id", |b| {
        unread(b.now, json!({"from_id": b.last.to_string()}))
    }),
    ("unread by time", |b| {
        unread(b.now, json!({"from_time": at(0)}))
    }),
    ("cleared", |b| cleared(b.now, json!({}))),
    // As another system does that has the same feed.
    ("number that agrees", |b| {
        with(counts(b.now, b.counts.0), json!({"mentions": b.counts.1}))
    }),
    ("other number", |b| {
        with(counts(b.now, 2), json!({"mentions": 1}))
    }),
    ("recalled", |b| recall(b.now, &b.last.to_string())),
    ("edited", |b| edit(b.now, &b.last.to_string(), json!(["a"]))),
    ("edited back", |b| {
        edit(b.now, &b.last.to_string(), json!([]))
    }),
    ("joined", |b| of_a("member.joined", b.now)),
    ("left", |b| of_a("member.left", b.now)),
];

/// The kind of that name.
pub(super) fn kind_named(name: &str) -> usize {
    KINDS.iter().position(|kind| kind.0 == name).unwrap()
}

/// What there is before a history.
pub(super) fn start() -> Story {
    Story::with_messages(1)
}

/// The events of a history of these kinds.
pub(super) fn events(kinds: &[usize]) -> Vec<Value> {
    let mut story = start();
    let mut last = 1;
    let mut events = Vec::new();
    for (kind, now) in kinds.iter().zip((1..).map(|n| n * 10)) {
        let counts = story.counts("a");
        let (name, make) = KINDS[*kind];
        let event = make(&Before { now, last, counts });
        if name.ends_with("message") {
            last = now;
        }
        story.placed(event.clone());
        events.push(event);
    }
    events
}

/// All histories of that length.
fn histories(length: u32) -> impl Iterator<Item = Vec<usize>> {
    let of =
        move |number: usize| (0..length).map(move |at| number / KINDS.len().pow(at) % KINDS.len());
    (0..KINDS.len().pow(length)).map(move |number| of(number).collect())
}

/// All orders of so many events.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else {
        return vec![Vec::new()];
    };
    let mut all = Vec::new();
    for order in orders(last) {
        for place in 0..=order.len() {
            let mut order = order.clone();
            order.insert(place, last);
            all.push(order);
        }
    }
    all
}

/// What is compared.
pub(super) type End = ((u64, u64), (u64, u64), bool);

pub(super) fn end(story: &Story) -> End {
    let is_there = story.model.rooms["r"].has_joined("a");
    (story.counts("a"), story.counts("c"), is_there)
}

/// The end of a story to which these come by time.
pub(super) fn told<'a>(events: impl IntoIterator<Item = &'a Value>) -> End {
    let mut story = start();
    for event in events {
        story.placed(event.clone());
    }
    end(&story)
}

/// The end of one to which these come by arrival, each at its own time.
fn happened(events: &[Value]) -> End {
    let mut story = start();
    for event in events {
        story.model.now = event["time"].as_i64();
        story.arrives(event.clone());
    }
    end(&story)
}

/// In how many cases something comes out differently, of how many.
#[derive(Default)]
struct Tally {
    more: usize,
    fewer: usize,
    otherwise: usize,
    of: usize,
}

impl Tally {
    fn add(&mut self, right: &End, got: &End) {
        let unread = |end: &End| end.0.0;
        self.of += 1;
        if got == right {
            return;
        }
        match unread(got).cmp(&unread(right)) {
            Ordering::Greater => self.more += 1,
            Ordering::Less => self.fewer += 1,
            Ordering::Equal => self.otherwise += 1,
        }
    }

    fn differs(&self) -> usize {
        self.more + self.fewer + self.otherwise
    }
}

/// Cases by their names.
#[derive(Default)]
struct Table(BTreeMap<String, Tally>);

impl Table {
    fn add(&mut self, name: &str, right: &End, got: &End) {
        self.0.entry(name.to_owned()).or_default().add(right, got);
    }

    /// The rows in which something differs, those with most of it first, and a row for all.
    fn text(&self, title: &str, what: &str) -> String {
        let mut rows: Vec<_> = self.0.iter().filter(|(_, row)| row.differs() > 0).collect();
        rows.sort_by_key(|(name, row)| (Reverse(row.differs()), *name));
        let mut text = format!("## {title}\n\n| {what} | more unread | fewer | otherwise | of |\n");
        text.push_str("| --- | --- | --- | --- | --- |\n");
        let mut all = Tally::default();
        for row in self.0.values() {
            all.more += row.more;
            all.fewer += row.fewer;
            all.otherwise += row.otherwise;
            all.of += row.of;
        }
        let name = "all".to_owned();
        for (name, row) in rows.into_iter().chain([(&name, &all)]) {
            let (more, fewer, otherwise, of) = (row.more, row.fewer, row.otherwise, row.of);
            writeln!(text, "| {name} | {more} | {fewer} | {otherwise} | {of} |").unwrap();
        }
        text
    }
}

fn name(kinds: &[usize], places: &[usize]) -> String {
    let names: Vec<&str> = places.iter().map(|place| KINDS[kinds[*place]].0).collect();
    names.join(", then ")
}

/// Compares with the section of `orders.md`, which shows what differs and why. `TEST_LENGTH` is for longer histories, which are
/// only printed.
fn compare(length: u32, table: &Table, title: &str, what: &str) {
    let text = table.text(title, what);
    println!("\nHistories of {length} events\n\n{text}");
    if std::env::var("TEST_LENGTH").is_err() {
        let written = include_str!("orders.md");
        assert!(written.contains(&text), "orders.md does not say:\n{text}");
    }
}

fn length(usual: u32) -> u32 {
    let set = std::env::var("TEST_LENGTH");
    set.map_or(usual, |length| length.parse().unwrap())
}

#[test]
fn two_neighbours_change_places() {
    let (length, mut table) = (length(3), Table::default());
    for kinds in histories(length) {
        let events = events(&kinds);
        let right = told(&events);
        for first in 0..kinds.len() - 1 {
            let mut swapped: Vec<&Value> = events.iter().collect();
            swapped.swap(first, first + 1);
            let name = name(&kinds, &[first, first + 1]);
            table.add(&name, &right, &told(swapped));
        }
    }
    compare(length, &table, "Two neighbours change places", "in order");
}

/// How many pairs come the other way round.
fn inversions(order: &[usize]) -> usize {
    let after = |at: usize| {
        order[at + 1..]
            .iter()
            .filter(move |other| **other < order[at])
    };
    (0..order.len()).map(|at| after(at).count()).sum()
}

#[test]
fn every_order_of_arrival() {
    let (length, mut table) = (length(3), Table::default());
    let orders = orders(length as usize);
    for kinds in histories(length) {
        let events = events(&kinds);
        let right = told(&events);
        for order in &orders {
            let name = format!("{} pairs the other way round", inversions(order));
            table.add(&name, &right, &told(order.iter().map(|at| &events[*at])));
        }
    }
    compare(length, &table, "Every order", "order");
}

#[test]
fn every_event_comes_again_at_every_place() {
    let (length, mut table) = (length(3), Table::default());
    for kinds in histories(length) {
        let events = events(&kinds);
        let right = told(&events);
        for again in 0..kinds.len() {
            for place in again + 1..=kinds.len() {
                let mut repeated: Vec<&Value> = events.iter().collect();
                repeated.insert(place, &events[again]);
                table.add(&name(&kinds, &[again]), &right, &told(repeated));
            }
        }
    }
    compare(length, &table, "An event comes again", "which");
}

/// In order, by time and by arrival are the same.
#[test]
fn in_order_it_is_what_it_is_by_arrival() {
    let (length, mut table) = (length(3), Table::default());
    for kinds in histories(length) {
        let events = events(&kinds);
        let last = name(&kinds, &[kinds.len() - 1]);
        table.add(&last, &happened(&events), &told(&events));
    }
    compare(length, &table, "By time, and not by arrival", "last event");
}

/// The rows of the table under a heading: the cells, the first one a name.
fn rows<'a>(text: &'a str, heading: &str) -> Vec<(&'a str, [usize; 4])> {
    let (_, table) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let lines = table.lines().filter(|line| line.starts_with("| "));
    let row = |line: &'a str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let number = |at: usize| cells[at].replace(',', "").parse().unwrap();
        (cells[1], [2, 3, 4, 5].map(number))
    };
    lines.skip(2).map(row).collect()
}

/// `docs/order.md` has the rows in which most differs, and the sum of all others.
#[test]
fn the_document_says_what_is_found() {
    let document = include_str!("../../../docs/order.md");
    let shown = rows(document, "Where the order still shows");
    let found = rows(include_str!("orders.md"), "Two neighbours change places");
    let (all, found) = found.split_last().unwrap();
    let (others, shown) = shown.split_last().unwrap();
    assert_eq!(shown, &found[..shown.len()]);
    let mut rest = all.1;
    for (_, numbers) in shown {
        for (rest, number) in rest.iter_mut().zip(numbers) {
            *rest -= number;
        }
    }
    assert_eq!((others.0, others.1), ("all others", rest));
    let differs: usize = all.1[..3].iter().sum();
    assert!(document.contains(&format!(" {differs} of 6,750\n")));
}
