//! A user's slot as a whole, for the self-check: the positions in it, and the plain counts that follow from them. Written
//! from the definition of the records and not from the script that keeps them, so that one finds the other's faults.

use std::collections::{BTreeMap, BTreeSet};

use super::Drift;
use super::position::Position;
use super::reply::{Reply, text};
use crate::error::Result;
use crate::keys::Enc;

/// A user's slot at one instant.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Microseconds of the slot's server clock.
    pub(super) taken: u64,
    pub(super) profile: bool,
    /// Rooms that a deleted user still has to leave are under way.
    pub(super) leaving: bool,
    pub(super) counts: BTreeMap<String, String>,
    pub(super) rooms: BTreeMap<String, String>,
    pub(super) supers: BTreeMap<String, String>,
    pub(super) refs: BTreeMap<String, String>,
    pub(super) left: BTreeMap<String, String>,
    /// The user's own settings of rooms: `room|setting`, `stamp|JSON`.
    pub(super) prefs: BTreeMap<String, String>,
    /// In their order.
    pub(super) marks: Vec<String>,
}

/// The positions that can be read out of a slot, with the numbers that follow from its marks.
#[derive(Debug, Default)]
struct Positions {
    rooms: BTreeMap<String, Position>,
    /// Positions that don't count, by room.
    holes: BTreeMap<String, BTreeSet<u64>>,
    /// Marks that say nothing.
    stale: Vec<String>,
}

impl Slot {
    /// Reads what `user_dump.lua` answers.
    pub(super) fn read(mut reply: Reply) -> Result<Self> {
        let (taken, profile, pending) = (reply.number()?, reply.number()?, reply.number()?);
        let mut hash = || -> Result<BTreeMap<String, String>> {
            Ok(reply.list()?.pairs()?.into_iter().collect())
        };
        let (counts, rooms, supers, refs) = (hash()?, hash()?, hash()?, hash()?);
        let (left, prefs) = (hash()?, hash()?);
        let mut list = reply.list()?;
        let mut marks = Vec::new();
        while !list.is_empty() {
            marks.push(text(list.value()?)?);
        }
        marks.sort();
        Ok(Self {
            taken,
            profile: profile == 1,
            leaving: pending > 0,
            counts,
            rooms,
            supers,
            refs,
            left,
            prefs,
            marks,
        })
    }

    /// The epoch at which the user left a room, as far as that is remembered.
    pub(super) fn left_since(&self, room: &str) -> u64 {
        let epoch = self.left.get(room).and_then(|text| text.split('|').next());
        epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(0)
    }

    /// The positions of a room that carry a mark, as a comma list.
    pub(super) fn marked(&self, room: &str, letter: char) -> String {
        let start = format!("{room}|{letter}|");
        let marked: Vec<String> = self
            .marks
            .iter()
            .filter_map(|mark| mark.strip_prefix(&start)?.parse::<u64>().ok())
            .map(|at| at.to_string())
            .collect();
        marked.join(",")
    }

    /// Whether a position of a room is marked as one that does not count.
    pub(super) fn has_hole(&self, room: &str, at: u64) -> bool {
        self.marks
            .binary_search(&format!("{room}|h|{at:016}"))
            .is_ok()
    }

    /// The rooms that the slot has a record of.
    pub(super) fn named(&self) -> BTreeSet<Enc> {
        let names = self.rooms.keys().chain(self.supers.keys());
        names.map(Enc::stored).collect()
    }

    /// What a room's record says; of two, that which was told last.
    pub(super) fn position(&self, room: &str) -> Option<Position> {
        let one = self.rooms.get(room).and_then(|r| Position::room(r).ok());
        let two = self
            .supers
            .get(room)
            .and_then(|r| Position::supergroup(r).ok());
        match (one, two) {
            (Some(one), Some(two)) if (two.epoch, two.rev) > (one.epoch, one.rev) => Some(two),
            (Some(one), _) => Some(one),
            (None, two) => two,
        }
    }

    /// Which settings of a room are true, as its record is to have it.
    fn flags(&self, room: &str) -> String {
        let is_true = |setting: &&str| {
            let stored = self.prefs.get(&format!("{room}|{setting}"));
            stored.is_some_and(|stored| stored.ends_with("|true"))
        };
        let set = ["hidden", "sticky", "muted"].into_iter().filter(is_true);
        set.filter_map(|setting| setting.chars().next()).collect()
    }

    /// The positions, by room, with holes and mentions as the marks have them.
    fn positions(&self) -> Positions {
        let mut found = Positions::default();
        for room in self.rooms.keys().chain(self.supers.keys()) {
            if let Some(mut position) = self.position(room) {
                (position.holes, position.mentions) = (0, 0);
                position.flags = self.flags(room);
                found.rooms.insert(room.clone(), position);
            }
        }
        for letter in ["h", "m"] {
            for mark in &self.marks {
                found.take(mark, letter);
            }
        }
        for position in found.rooms.values_mut() {
            position.head = position.head.map(|head| head.max(position.read));
        }
        found.stale.sort();
        found
    }

    /// Every difference between what is stored and what follows from the positions.
    pub(super) fn drift(&self) -> Vec<Drift> {
        let found = self.positions();
        let mut want = Want::default();
        for (room, position) in &found.rooms {
            want.add(room, position);
        }
        let since = self
            .counts
            .get("known")
            .filter(|since| since.parse::<u64>().is_ok());
        let first = found.rooms.values().map(|p| p.epoch).min();
        match (since, first, self.profile) {
            (Some(since), ..) => want.counts.insert("known".into(), since.clone()),
            (None, Some(first), _) => want.counts.insert("known".into(), first.to_string()),
            (None, None, true) => want.counts.insert("known".into(), self.taken.to_string()),
            _ => None,
        };
        let mut drift = Vec::new();
        compare("counts", &self.counts, &want.counts, &mut drift);
        compare("rooms", &self.rooms, &want.rooms, &mut drift);
        compare("supers", &self.supers, &want.supers, &mut drift);
        compare("refs", &self.refs, &want.refs, &mut drift);
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

impl Positions {
    fn take(&mut self, mark: &str, letter: &str) {
        let parts: Vec<&str> = mark.split('|').collect();
        let (room, is, digits) = match parts.as_slice() {
            [room, is @ ("h" | "m"), digits]
                if digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit()) =>
            {
                (*room, *is, *digits)
            }
            _ if letter == "h" => return self.stale.push(mark.to_owned()),
            _ => return,
        };
        if is != letter {
            return;
        }
        let at: u64 = digits.parse().unwrap_or(0);
        let holes = self.holes.entry(room.to_owned()).or_default();
        match self.rooms.get_mut(room) {
            Some(position) if position.state == 'j' && at > position.read => {
                if is == "m" && holes.contains(&at) {
                    return self.stale.push(mark.to_owned());
                }
                if is == "h" {
                    holes.insert(at);
                    position.holes += 1;
                } else {
                    position.mentions += 1;
                }
                position.head = position.head.map(|head| head.max(at));
            }
            _ => self.stale.push(mark.to_owned()),
        }
    }
}

/// What ought to be in the hashes.
#[derive(Default)]
struct Want {
    counts: BTreeMap<String, String>,
    rooms: BTreeMap<String, String>,
    supers: BTreeMap<String, String>,
    refs: BTreeMap<String, String>,
}

impl Want {
    fn count(map: &mut BTreeMap<String, String>, field: String, by: u64) {
        if by > 0 {
            let sum = map.get(&field).and_then(|n| n.parse().ok()).unwrap_or(0);
            map.insert(field, u64::saturating_add(sum, by).to_string());
        }
    }

    fn add(&mut self, room: &str, position: &Position) {
        let record = position.record();
        if position.head.is_none() {
            self.supers.insert(room.to_owned(), record);
            Self::count(&mut self.counts, "supers".into(), 1);
            return;
        }
        self.rooms.insert(room.to_owned(), record);
        let active = position.status == "1";
        let unread = position.unread();
        let counted = active && position.state == 'j';
        let families = [
            ("messages", unread),
            ("mentions", if counted { position.mentions } else { 0 }),
            ("invitations", u64::from(active && position.state == 'i')),
        ];
        for (family, n) in families {
            let by_kind = format!("{family}:{}", position.kind);
            if !position.custom_type.is_empty() {
                let by_type = format!("{by_kind}:{}", position.custom_type);
                Self::count(&mut self.counts, by_type, n);
            }
            Self::count(&mut self.counts, by_kind, n);
        }
        Self::count(&mut self.counts, format!("room:{room}"), unread);
        for tag in position.tags() {
            Self::count(&mut self.counts, format!("tag:{tag}"), unread);
        }
        if counted {
            for tag in position.tags() {
                Self::count(&mut self.refs, format!("tag:{tag}"), 1);
            }
            if !position.custom_type.is_empty() {
                Self::count(&mut self.refs, format!("type:{}", position.custom_type), 1);
            }
        }
        if !position.peer.is_empty() {
            Self::count(&mut self.counts, format!("peer:{}", position.peer), unread);
            // Rooms come in their order, so the list is sorted.
            let list = self
                .refs
                .entry(format!("direct:{}", position.peer))
                .or_default();
            if !list.is_empty() {
                list.push(',');
            }
            list.push_str(room);
        }
    }
}

fn compare(
    key: &'static str,
    stored: &BTreeMap<String, String>,
    want: &BTreeMap<String, String>,
    drift: &mut Vec<Drift>,
) {
    let fields: BTreeSet<&String> = stored.keys().chain(want.keys()).collect();
    for field in fields {
        let (is, ought) = (stored.get(field), want.get(field));
        let listed = key == "refs" && field.starts_with("direct:");
        let same = match (is, ought) {
            // A list's order means nothing.
            (Some(is), Some(ought)) if listed => set(is) == set(ought),
            _ => is == ought,
        };
        if !same {
            drift.push(Drift {
                key,
                field: field.clone(),
                part: None,
                stored: is.cloned(),
                expected: ought.cloned(),
            });
        }
    }
}

fn set(list: &str) -> BTreeSet<&str> {
    list.split(',').collect()
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

    /// The tag `y` has the count of its room too.
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
    fn records_tell_the_settings_that_are_true() {
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
        let told = "j|6|9|4|8|1|1|g|1|t|x,y||0||hs";
        assert_eq!(drift[0].expected.as_deref(), Some(told));
        slot.rooms.insert("g".into(), told.into());
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
}
