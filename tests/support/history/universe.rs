//! Who and what there is in a random history.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::Value;

use super::time_of;
use crate::support::model::{Model, TEN_MINUTES};
use crate::support::words::{ALL, by_arrival};

/// The time of the first messages.
pub(super) const START: i64 = 1_750_000_000_000;
/// A time that is still to come.
pub(super) const FUTURE: i64 = 4_000_000_000_000;

pub(super) const TAGS: &[&str] = &[
    "work",
    "w*rk",
    "a b",
    "ta{g}",
    "50%",
    "日本",
    "comma,tag",
    "\"q\"",
];
pub(super) const TYPES: &[&str] = &["support", "type {1}", "類型", "a%2Cb"];
pub(super) const FOLDERS: &[&str] = &["Work", "", "f/o"];

/// The users, rooms and words of a history: few, so that everything meets everything, with names that are easy to misread.
pub struct Universe {
    pub(super) users: Vec<String>,
    /// The users and one who is never mentioned.
    pub(super) everybody: Vec<String>,
    pub(super) groups: Vec<String>,
    /// Direct rooms and the two who may ever be in them; those made by `to` are added when they are known.
    pub(super) pairs: Vec<(String, [String; 2])>,
    /// The [words](crate::support::words) of what may be in the history.
    knows: &'static [&'static str],
    /// The first of the times that are a few minutes ago.
    recent: i64,
    /// How many of the requests are by time.
    pub by_time: f64,
}

impl Universe {
    /// With all of it, by arrival.
    pub fn new() -> Self {
        Self::with(by_arrival())
    }

    /// With all that the definition has.
    pub fn with_everything() -> Self {
        Self::with(&ALL)
    }

    /// With what these words stand for.
    pub fn with(knows: &'static [&'static str]) -> Self {
        let users: Vec<String> = [
            "alice",
            "b{ob}",
            "c*r?l [x]",
            "d%2Fe%",
            "e/f g//h",
            "quo\"te'\\",
            "用户:七+8",
            &format!("😀{}x", "é".repeat(125)),
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(users[7].len(), 255);
        let groups = [
            "r1",
            "room{1}",
            "*",
            "a%2Fb",
            "x/y z",
            "li,st:of?",
            "日本語🎉",
            &"}{".repeat(127),
        ]
        .map(str::to_owned)
        .to_vec();
        let pair = |a: usize, b: usize| [users[a].clone(), users[b].clone()];
        let pairs = vec![
            ("dir{ect}:1".to_owned(), pair(0, 1)),
            ("direct 2".to_owned(), pair(2, 3)),
        ];
        let everybody = users
            .iter()
            .cloned()
            .chain(["gho{s}t".to_owned()])
            .collect();
        Self {
            users,
            everybody,
            groups,
            pairs,
            knows,
            recent: jiff::Timestamp::now().as_second() * 1000 - TEN_MINUTES * 3 / 5,
            by_time: 0.5,
        }
    }

    pub(super) fn knows_all(&self) -> bool {
        ALL.iter().all(|word| self.knows(word))
    }

    pub(super) fn knows(&self, word: &str) -> bool {
        self.knows.contains(&word)
    }

    pub(super) fn pair_of(&self, room: &str) -> Option<&[String; 2]> {
        self.pairs
            .iter()
            .rev()
            .find(|(id, _)| id == room)
            .map(|(_, pair)| pair)
    }

    /// Whether the documents define what this event does at this moment.
    pub fn is_defined(&self, model: &Model, event: &Value) -> bool {
        if !self.is_later_defined(model, event) {
            return false;
        }
        let field = |name: &str| event[name].as_str().unwrap_or("");
        let room = model.rooms.get(field("room"));
        // Several rooms may be that of two users; which of them a message goes to is left open.
        let between = |one: &str, two: &str| -> Vec<String> {
            let rooms = model.direct_rooms(one, two);
            rooms.into_iter().map(str::to_owned).collect()
        };
        let users: Vec<&str> = match event["users"].as_array() {
            Some(users) => users.iter().filter_map(Value::as_str).collect(),
            None => vec![field("user")],
        };
        match field("type") {
            // Whether leaving brings somebody unknown into being.
            "member.left" => {
                users.iter().all(|user| model.users.contains_key(*user)) || room.is_none()
            }
            // A deleted direct room of unknown name is not made again by that name.
            "room.updated" => {
                room.is_some() || self.is_given(field("room")) || event["room"].is_null()
            }
            "message.sent" if event.get("to").is_some() => {
                let (sender, to) = (field("sender"), field("to"));
                let theirs = between(sender, to);
                // One that is empty is found by its name, and only the server knows which of several names comes first.
                let empty = |id: &String| model.rooms[id].members.is_empty();
                let made = self
                    .rooms_between(sender, to)
                    .filter(|id| !self.is_given(id));
                let open = theirs.iter().any(empty) && made.count() > 1;
                // A message that is sent again into another room would be the last of two at the same time.
                let elsewhere = model.rooms.iter().any(|(id, room)| {
                    let known = room.message(field("id"));
                    !theirs.contains(id) && known.is_some_and(|m| m.time == time_of(event))
                });
                theirs.len() <= 1 && !open && !elsewhere
            }
            _ => true,
        }
    }

    /// The rooms whose names the tests choose.
    pub(super) fn is_given(&self, room: &str) -> bool {
        self.groups.iter().any(|group| group == room)
            || self.pairs[..2].iter().any(|(id, _)| id == room)
    }

    pub(super) fn rooms_between<'a>(
        &'a self,
        a: &'a str,
        b: &'a str,
    ) -> impl Iterator<Item = &'a str> {
        let theirs = move |pair: &[String; 2]| pair == &[a, b] || pair == &[b, a];
        self.pairs
            .iter()
            .filter(move |(_, pair)| theirs(pair))
            .map(|(id, _)| id.as_str())
    }

    /// A time that no other room's messages have, so that the order of rooms is never a matter of luck; two messages
    /// of one room may well share it.
    pub(super) fn time(&self, rng: &mut StdRng, lane: usize) -> i64 {
        // Every now and then a clock is far ahead.
        let start = if rng.random_bool(0.05) {
            FUTURE
        } else if self.knows("order") && rng.random_bool(0.7) {
            self.recent
        } else {
            START
        };
        start + rng.random_range(0..600) * 500 + lane as i64
    }

    /// A time of some other event: where the order of time is known, a few minutes ago as a rule.
    pub(super) fn other_time(&self, rng: &mut StdRng) -> i64 {
        let is_recent = self.knows("order") && rng.random_bool(0.85);
        let start = if is_recent { self.recent } else { START };
        start + rng.random_range(0..300_000)
    }

    /// Whose times a room's messages have. A direct room that a message makes is the next in the list.
    pub(super) fn lane(&self, room: Option<&str>) -> usize {
        let at = |room: &str| self.groups.iter().position(|group| group == room);
        if let Some(group) = room.and_then(at) {
            return group;
        }
        match room.map(|room| self.pairs.iter().position(|(id, _)| id == room)) {
            Some(None) => 99,
            Some(Some(at)) => 100 + at % 400,
            None => 100 + self.pairs.len() % 400,
        }
    }

    pub(super) fn user<'a>(&'a self, rng: &mut StdRng) -> &'a str {
        self.users.choose(rng).unwrap()
    }

    /// A known room as a rule; now and then any name there is, or none that there is.
    pub(super) fn room(&self, model: &Model, rng: &mut StdRng) -> String {
        if rng.random_bool(0.02) {
            return "no such room".to_owned();
        }
        let known: Vec<&String> = model.rooms.keys().collect();
        match known.choose(rng) {
            Some(id) if rng.random_bool(0.93) => (*id).clone(),
            _ if rng.random_bool(0.7) => self.groups.choose(rng).unwrap().clone(),
            _ => self.pairs.choose(rng).unwrap().0.clone(),
        }
    }
}
