//! A whole user's slot, for the self-check: its positions, and the plain counts that follow from them. This was written from the
//! definition of the counts and not from the script that keeps them, so that each finds the other's faults.

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

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn slot() -> Slot {
        Slot {
            counts: map(&[
                ("known", "5"),
                ("supers", "1"),
                ("messages:direct", "2"),
                ("messages:group", "3"),
                ("messages:group:t", "3"),
                ("mentions:group", "1"),
                ("mentions:group:t", "1"),
                ("invitations:group", "1"),
                ("room:d", "2"),
                ("room:g", "3"),
                ("peer:bob", "2"),
                ("tag:x", "3"),
                ("unread_rooms:direct", "1"),
                ("unread_rooms:group", "1"),
            ]),
            rooms: map(&[
                ("d", "j|5|9|1|3|0|0|d|1|||bob|-3|0,-2"),
                ("g", "j|6|9|4|8|1|1|g|1|t|x,y||0|"),
                ("i", "i|7|9|0|4|0|0|g|1||x||0|"),
                ("off", "j|7|9|0|4|0|0|g|0||x||0|"),
            ]),
            supers: map(&[("s", "j|8|9|2|0|0")]),
            refs: map(&[
                ("direct:bob", "d"),
                ("tag:x", "1"),
                ("tag:y", "1"),
                ("type:t", "1"),
            ]),
            marks: vec!["g|h|0000000000000006".into(), "g|m|0000000000000007".into()],
            ..Slot::default()
        }
    }

    /// The same, with the count of the tag `y`, too.
    fn right() -> Slot {
        let mut slot = slot();
        slot.counts.insert("tag:y".into(), "3".into());
        slot
    }

    #[test]
    fn a_slot_that_adds_up_has_no_drift() {
        assert_eq!(right().drift(), vec![]);
        assert_eq!(Slot::default().drift(), vec![]);
    }

    #[test]
    fn records_tell_the_preferences_that_are_true() {
        let mut slot = right();
        for (field, stored) in [
            ("g|sticky", "5|true"),
            ("g|muted", "5|false"),
            ("g|folder", "5|\"hidden|true\""),
            ("g|hidden", "6|true"),
            ("d|tags", "7|[\"|true\"]"),
            ("s|sticky", "7|true"),
        ] {
            slot.prefs.insert(field.into(), stored.into());
        }
        let drift = slot.drift();
        assert_eq!(drift.len(), 1, "{drift:?}");
        let expected = "j|6|9|4|8|1|1|g|1|t|x,y||0||hs";
        assert_eq!(drift[0].expected.as_deref(), Some(expected));
        slot.rooms.insert("g".into(), expected.into());
        assert_eq!(slot.drift(), vec![]);
    }

    #[test]
    fn what_is_missing_wrong_or_too_much_is_named() {
        let drift = slot().drift();
        assert_eq!(drift.len(), 1);
        assert_eq!((drift[0].key, drift[0].field.as_str()), ("counts", "tag:y"));
        assert_eq!(drift[0].stored, None);
        assert_eq!(drift[0].expected.as_deref(), Some("3"));

        let mut slot = right();
        slot.marks.push("g|m|0000000000000006".into());
        slot.marks.push("g|h|0000000000000002".into());
        slot.marks.push("gone|h|0000000000000002".into());
        slot.marks.push("nonsense".into());
        assert_eq!(slot.drift().len(), 4);

        let mut slot = right();
        slot.marks.pop();
        let fields: Vec<String> = slot.drift().into_iter().map(|d| d.field).collect();
        assert_eq!(fields, ["mentions:group", "mentions:group:t", "g"]);

        let mut slot = right();
        slot.counts.remove("known");
        slot.rooms.insert("bad".into(), "j|x".into());
        let drift = slot.drift();
        assert_eq!(drift.len(), 2);
        assert_eq!(drift[0].expected.as_deref(), Some("5"));
        assert_eq!(drift[1].expected, None);
    }

    type Pairs<'a> = &'a [(&'a str, &'a [u8])];

    /// As `user_dump.lua` answers it.
    fn dump(keys: [Option<Pairs<'_>>; 9]) -> Slot {
        let names = [
            "counts", "rooms", "supers", "refs", "left", "prefs", "profile", "pending", "marks",
        ];
        let bulk = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
        let mut reply = vec![Value::Int(9)];
        for (name, key) in names.into_iter().zip(keys) {
            reply.push(match key {
                None => bulk(name.as_bytes()),
                Some(pairs) => {
                    let flat = pairs
                        .iter()
                        .flat_map(|(f, v)| [bulk(f.as_bytes()), bulk(v)]);
                    Value::Array(flat.collect())
                }
            });
        }
        Slot::read(Reply::new(Value::Array(reply)).unwrap()).unwrap()
    }

    const NONE: Option<Pairs<'static>> = Some(&[]);

    #[test]
    fn what_follows_from_records_that_cannot_be_read_is_not_judged() {
        let counts: Pairs<'_> = &[("known", b"5"), ("room:g", b"3"), ("tag:x", b"bad")];
        let rooms: Pairs<'_> = &[
            ("g", b"j|cut"),
            ("a b", b"x"),
            ("ok", b"j|6|9|4|4|0|0|g|1||||0|"),
        ];
        let mut slot = dump([
            Some(counts),
            Some(rooms),
            NONE,
            NONE,
            NONE,
            NONE,
            NONE,
            NONE,
            NONE,
        ]);
        let bad: Vec<&str> = slot.bad.iter().map(|bad| bad.what).collect();
        assert_eq!(bad, ["counts", "rooms", "rooms"]);
        assert_eq!(slot.blocked, BTreeSet::from(["g".to_owned()]));
        assert!(!slot.is_whole() && !slot.is_readable("g") && slot.is_readable("ok"));
        // Only the record under an invalid name is drift; the counts may be right.
        let fields = |slot: &Slot| -> Vec<String> {
            let drift = slot.drift().into_iter();
            drift.map(|drift| drift.field).collect()
        };
        assert_eq!(fields(&slot), ["a b"]);
        assert_eq!(slot.hinted_rooms().len(), 2);
        assert_eq!(slot.recorded_rooms().len(), 1);
        assert!(!slot.bad.iter().any(|bad| slot.is_derived(bad)));
        // The room says that the user is not there.
        slot.release("g");
        assert_eq!(fields(&slot), ["room:g", "tag:x", "a b", "g"]);
        assert!(slot.bad.iter().all(|bad| slot.is_derived(bad)));
    }

    #[test]
    fn a_key_of_another_type_is_none_that_is_empty() {
        let record: Pairs<'_> = &[("g", b"j|6|9|4|8|1|1|g|1|t|x||0||h")];
        for wrong in 0..9 {
            let mut keys = [NONE; 9];
            keys[1] = Some(record);
            keys[wrong] = None;
            let slot = dump(keys);
            assert_eq!(slot.bad.len(), 1);
            let drift: BTreeSet<&str> = slot.drift().iter().map(|drift| drift.key).collect();
            let expected: &[&str] = match wrong {
                // Without records and marks nothing can be compared.
                1 | 2 | 8 => &[],
                0 => &["refs", "rooms"],
                3 => &["counts", "rooms"],
                _ => &["counts", "refs", "rooms"],
            };
            assert_eq!(drift, expected.iter().copied().collect(), "{wrong}");
            assert_eq!(slot.leaving, wrong == 7);
            // Preferences that can't be read leave the letters of the record as they are.
            let recorded = slot.recorded_preferences();
            assert_eq!(recorded.contains_key("g|hidden"), wrong != 1);
        }
    }
}
