//! A whole user's slot, for the self-check: its positions, and the plain counts that follow from them. This was written from the
//! definition of the counts and not from the script that keeps them, so that each finds the other's faults.

#[cfg(test)]
mod tests;

mod expected;

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;

use self::expected::{Expected, SlotRecords, compare};
use crate::audit::drift::Drift;
use crate::audit::form::{self, SlotKind};
use crate::audit::record::AuditRecord;
use crate::counts::number::whole_number;
use crate::engine::reply::{Reply, bytes};
use crate::error::Result;
use crate::keys::{Enc, is_encoded};

/// What records have for a user's count preference: nothing for the default, else one of these digits.
const COUNT_PREFS: [(char, &str); 3] = [('1', "messages"), ('2', "mentions"), ('3', "none")];

/// The text as it stands. Bytes that are no UTF-8 are escaped, in a form that no name has.
pub(super) fn text_or_escaped(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

/// Something in a slot that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad {
    /// Which of the slot's keys.
    pub(super) what: &'static str,
    /// The field, the member of a sorted set, or the element of a list; `None`: the key as a whole.
    pub(super) field: Option<Vec<u8>>,
    /// The value of the field.
    pub(super) value: Vec<u8>,
    pub(super) why: &'static str,
}

/// A user's slot at one instant.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Microseconds of the server's clock.
    pub(super) taken: u64,
    profile: bool,
    /// Whether the data may be of an earlier version, which did not keep the numbers of unread rooms.
    pub(super) old: bool,
    /// Whether the user was deleted and still has to leave rooms: these may list the user although the slot has no record.
    pub(super) leaving: bool,
    pub(super) counts: BTreeMap<String, String>,
    pub(super) rooms: BTreeMap<String, String>,
    pub(super) supers: BTreeMap<String, String>,
    pub(super) refs: BTreeMap<String, String>,
    pub(super) left: BTreeMap<String, String>,
    /// The user's preferences of rooms: `room|preference`, `stamp|JSON`.
    pub(super) prefs: BTreeMap<String, String>,
    /// Sorted.
    pub(super) marks: Vec<String>,
    /// What can't be read. Counts, references, marks and records of this list are in the maps above as well, so that they are
    /// compared with what has to be there.
    pub(super) bad: Vec<Bad>,
    /// The keys that are of another type.
    wrong: BTreeSet<&'static str>,
    /// Rooms whose only record can't be read: what it contributes to the plain counts is not known.
    pub(super) blocked: BTreeSet<String>,
}

impl Slot {
    /// Reads what `user_dump.lua` answers.
    pub(super) fn read(mut reply: Reply) -> Result<Self> {
        let mut slot = Self {
            taken: reply.number()?,
            ..Self::default()
        };
        slot.counts = slot.hash("counts", reply.value()?)?;
        slot.rooms = slot.hash("rooms", reply.value()?)?;
        slot.supers = slot.hash("supers", reply.value()?)?;
        slot.refs = slot.hash("refs", reply.value()?)?;
        slot.left = slot.hash("left", reply.value()?)?;
        slot.prefs = slot.hash("prefs", reply.value()?)?;
        let profile = slot.hash("profile", reply.value()?)?;
        let pending = slot.hash("pending", reply.value()?)?;
        let more = |slot: &Self, what| slot.bad.iter().any(|bad| bad.what == what);
        slot.profile = slot.has("profile") && (!profile.is_empty() || more(&slot, "profile"));
        // A job that can't be read may be the one to leave rooms.
        slot.leaving = !pending.is_empty() || more(&slot, "pending");
        slot.marks = slot.hash("marks", reply.value()?)?.into_keys().collect();
        slot.block();
        Ok(slot)
    }

    /// Reads one key, and adds what can't be read to `bad`.
    fn hash(&mut self, what: &'static str, value: Value) -> Result<BTreeMap<String, String>> {
        let mut map = BTreeMap::new();
        if !matches!(value, Value::Array(_)) {
            // The script answers the name of a key of another type instead of its value.
            self.wrong.insert(what);
            self.bad.push(Bad {
                what,
                field: None,
                value: Vec::new(),
                why: form::WRONG_TYPE,
            });
            return Ok(map);
        }
        let mut list = Reply::new(value)?;
        while !list.is_empty() {
            let (field, value) = (bytes(list.value()?)?, bytes(list.value()?)?);
            if what == "counts" && field == b"live" {
                // The mark of a watched user, which is no count.
                continue;
            }
            let form = SlotKind::User.check(what, &field, &value);
            if form.is_ok() || matches!(what, "counts" | "refs" | "marks" | "rooms" | "supers") {
                map.insert(text_or_escaped(&field), text_or_escaped(&value));
            }
            if let Err(why) = form {
                self.bad.push(Bad {
                    what,
                    field: Some(field),
                    value,
                    why,
                });
            }
        }
        Ok(map)
    }

    /// Fills in the rooms whose only record can't be read.
    fn block(&mut self) {
        for (one, other) in [("rooms", "supers"), ("supers", "rooms")] {
            for bad in self.bad.iter().filter(|bad| bad.what == one) {
                let Some(field) = &bad.field else { continue };
                let room = text_or_escaped(field);
                let others = if other == "rooms" {
                    &self.rooms
                } else {
                    &self.supers
                };
                let doubled = others.contains_key(&room) && !self.is_bad(other, &room);
                if is_encoded(&room) && !doubled {
                    self.blocked.insert(room);
                }
            }
        }
    }

    fn is_bad(&self, what: &str, field: &str) -> bool {
        let is = |bad: &Bad| bad.what == what && bad.field.as_deref() == Some(field.as_bytes());
        self.bad.iter().any(is)
    }

    /// Notes that the user is not in a room: a record of it contributes nothing and may be removed, even if it can't be read.
    pub(super) fn release(&mut self, room: &str) {
        self.blocked.remove(room);
    }

    /// The user's preferences that the records have as true, as they would stand in `prefs`.
    pub(super) fn recorded_preferences(&self) -> BTreeMap<String, String> {
        let mut recorded = BTreeMap::new();
        for room in self.rooms.keys().chain(self.supers.keys()) {
            let Some(record) = self.record_of(room).filter(|_| is_encoded(room)) else {
                continue;
            };
            for (letter, preference) in [('h', "hidden"), ('s', "sticky"), ('m', "muted")] {
                if record.flags.contains(letter) {
                    recorded.insert(
                        format!("{room}|{preference}"),
                        format!("{}|true", record.rev),
                    );
                }
            }
            for (digit, word) in COUNT_PREFS {
                if record.flags.ends_with(digit) {
                    let text = format!("{}|\"{word}\"", record.rev);
                    recorded.insert(format!("{room}|count"), text);
                }
            }
        }
        recorded
    }

    /// Whether a key is of the right type.
    pub(super) fn has(&self, what: &str) -> bool {
        !self.wrong.contains(what)
    }

    /// Whether the positions of all rooms can be read. Then all plain counts follow from them.
    pub(super) fn is_whole(&self) -> bool {
        let derived = ["counts", "rooms", "supers", "refs", "marks"];
        self.blocked.is_empty() && derived.iter().all(|what| self.has(what))
    }

    /// Whether the repair makes this anew, because it follows from data that can be read.
    pub(super) fn is_derived(&self, bad: &Bad) -> bool {
        let Some(field) = &bad.field else {
            return false;
        };
        self.is_whole()
            && match bad.what {
                "counts" | "refs" | "marks" => true,
                "rooms" | "supers" => !self.blocked.contains(&text_or_escaped(field)),
                _ => false,
            }
    }

    /// Whether the slot shows for certain if it has a record of a room: no key or record that can't be read stands in the way.
    pub(super) fn is_readable(&self, room: &str) -> bool {
        self.has("rooms") && self.has("supers") && !self.blocked.contains(room)
    }

    /// The epoch in the tombstone of a room; 0 if there is none.
    pub(super) fn left_since(&self, room: &str) -> u64 {
        let epoch = self.left.get(room).and_then(|text| text.split('|').next());
        epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(0)
    }

    /// The positions of a room with marks of one letter, as a comma list.
    pub(super) fn marked(&self, room: &str, letter: char) -> String {
        let start = format!("{room}|{letter}|");
        let marked: Vec<String> = self
            .marks
            .iter()
            .filter_map(|mark| form::marked_position(mark.strip_prefix(&start)?))
            .map(|at| at.to_string())
            .collect();
        marked.join(",")
    }

    /// The edits of a room's messages, as `user_room.lua` gives them.
    pub(super) fn edited(&self, room: &str) -> String {
        let start = format!("{room}|e|");
        let edits = self.marks.iter().filter_map(|mark| {
            let (position, rest) = mark.strip_prefix(&start)?.split_once('|')?;
            let (stamp, _) = rest.split_once('|')?;
            Some(format!("{}:{stamp}", form::marked_position(position)?))
        });
        edits.collect::<Vec<_>>().join(",")
    }

    /// Whether a position of a room is a hole.
    pub(super) fn has_hole(&self, room: &str, at: u64) -> bool {
        self.marks
            .binary_search(&format!("{room}|h|{at:016}"))
            .is_ok()
    }

    /// The rooms with a record that can be read.
    pub(super) fn recorded_rooms(&self) -> BTreeSet<Enc> {
        let names = self.rooms.keys().chain(self.supers.keys());
        let names = names.filter(|room| is_encoded(room) && self.record_of(room).is_some());
        names.map(Enc::stored).collect()
    }

    /// All rooms that the slot names anywhere, also those without a record.
    pub(super) fn hinted_rooms(&self) -> BTreeSet<Enc> {
        let counted = self.counts.keys().filter_map(|f| f.strip_prefix("room:"));
        let marked = self.marks.iter().filter_map(|m| m.split('|').next());
        let direct = self.refs.iter().filter(|(f, _)| f.starts_with("direct:"));
        let direct = direct.flat_map(|(_, rooms)| rooms.split(','));
        let kept = self.prefs.keys().filter_map(|f| f.split('|').next());
        let recorded = self.rooms.keys().chain(self.supers.keys());
        let all = counted.chain(marked).chain(direct).chain(kept);
        let all = all.chain(recorded.map(String::as_str));
        let all = all.filter(|room| is_encoded(room));
        all.map(Enc::stored).collect()
    }

    /// The record of a room. If both hashes have one, the one that was delivered last.
    pub(super) fn record_of(&self, room: &str) -> Option<AuditRecord> {
        let one = self
            .rooms
            .get(room)
            .and_then(|r| AuditRecord::of_room(r).ok());
        let two = self
            .supers
            .get(room)
            .and_then(|r| AuditRecord::of_supergroup(r).ok());
        match (one, two) {
            (Some(one), Some(two)) if (two.epoch, two.rev) > (one.epoch, one.rev) => Some(two),
            (Some(one), _) => Some(one),
            (None, two) => two,
        }
    }

    /// The user's preferences of a room, each with its value as JSON. They stand in `prefs` as `stamp|JSON`.
    pub(super) fn preferences_of(&self, room: &str) -> Vec<(String, String)> {
        let start = format!("{room}|");
        let fields = self.prefs.range(start.clone()..);
        fields
            .map_while(|(field, stored)| Some((field.strip_prefix(&start)?, stored)))
            .map(|(preference, stored)| {
                let (_, value) = stored.split_once('|').unwrap_or(("", stored));
                (preference.to_owned(), value.to_owned())
            })
            .collect()
    }

    /// The letters of preferences, and the digit of the count preference, that a record has to have. Where the preferences can't
    /// be read, the record keeps what it has.
    fn flags(&self, room: &str, recorded: String, is_supergroup: bool) -> String {
        let preferences = ["hidden", "sticky", "muted", "count"];
        let preferences = preferences.map(|preference| format!("{room}|{preference}"));
        if !self.has("prefs") || preferences.iter().any(|field| self.is_bad("prefs", field)) {
            return recorded;
        }
        let is_true = |preference: &&str| {
            let stored = self.prefs.get(&format!("{room}|{preference}"));
            stored.is_some_and(|stored| stored.ends_with("|true"))
        };
        let set = ["hidden", "sticky", "muted"].into_iter().filter(is_true);
        // A supergroup's record has no letters.
        let set = set.filter(|_| !is_supergroup);
        let letters = set.filter_map(|preference| preference.chars().next());
        let count = self.prefs.get(&format!("{room}|count"));
        let is_set =
            |word: &str| count.is_some_and(|count| count.ends_with(&format!("|\"{word}\"")));
        let digit = COUNT_PREFS.into_iter().find(|(_, word)| is_set(word));
        letters.chain(digit.map(|(digit, _)| digit)).collect()
    }

    /// The records by room, with holes and mentions counted from the marks.
    fn records(&self) -> SlotRecords {
        let mut found = SlotRecords::default();
        for room in self.rooms.keys().chain(self.supers.keys()) {
            if let Some(mut record) = self.record_of(room)
                && is_encoded(room)
            {
                (record.holes, record.mentions) = (0, 0);
                record.flags.retain(|letter| letter != 'e');
                record.flags = self.flags(room, record.flags, record.head.is_none());
                found.rooms.insert(room.clone(), record);
            }
        }
        for letter in ["h", "m", "e", "x"] {
            for mark in &self.marks {
                // A mark of a room whose record can't be read may be right.
                if mark
                    .split('|')
                    .next()
                    .is_none_or(|room| self.is_readable(room))
                {
                    found.add_mark(mark, letter);
                }
            }
        }
        for record in found.rooms.values_mut() {
            let read = u64::try_from(record.read).unwrap_or(0);
            record.head = record.head.map(|head| head.max(read));
        }
        found.stale.sort();
        found
    }

    /// All differences between what is stored and what follows from the positions.
    pub(super) fn drift(&self) -> Vec<Drift> {
        let found = self.records();
        let mut expected = Expected::default();
        for (room, record) in &found.rooms {
            expected.add(room, record);
        }
        let since = self
            .counts
            .get("known")
            .filter(|since| whole_number(since).is_some());
        let first = found.rooms.values().map(|p| p.epoch).min();
        match (since, first, self.profile) {
            (Some(since), ..) => expected.counts.insert("known".into(), since.clone()),
            (None, Some(first), _) => expected.counts.insert("known".into(), first.to_string()),
            (None, None, true) => expected
                .counts
                .insert("known".into(), self.taken.to_string()),
            _ => None,
        };
        let mut drift = Vec::new();
        // Without these keys it is not known what follows.
        let known = ["rooms", "supers", "marks"];
        let known = known.iter().all(|what| self.has(what));
        for (what, stored, expected) in [
            ("counts", &self.counts, &expected.counts),
            ("rooms", &self.rooms, &expected.rooms),
            ("supers", &self.supers, &expected.supers),
            ("refs", &self.refs, &expected.refs),
        ] {
            let records = matches!(what, "rooms" | "supers");
            if known && self.has(what) && (records || self.blocked.is_empty()) {
                compare(what, stored, expected, &mut drift);
            }
        }
        drift.retain(|drift| {
            let record = matches!(drift.key, "rooms" | "supers");
            !record || !self.blocked.contains(&drift.field)
        });
        drift.retain(|drift| !(self.old && drift.field.starts_with("unread_rooms:")));
        drift.extend(found.stale.into_iter().map(|mark| Drift {
            key: "marks",
            field: mark.clone(),
            part: None,
            stored: Some(mark),
            expected: None,
        }));
        drift
    }
}
