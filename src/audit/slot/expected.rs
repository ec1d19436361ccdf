//! What a user's slot has to hold, by its positions.

use std::collections::{BTreeMap, BTreeSet};

use crate::audit::drift::Drift;
use crate::audit::form::marked_position;
use crate::audit::record::AuditRecord;

/// The records of a slot that can be read, with the numbers that follow from its marks.
#[derive(Debug, Default)]
pub(super) struct SlotRecords {
    pub(super) rooms: BTreeMap<String, AuditRecord>,
    /// Holes by room.
    pub(super) holes: BTreeMap<String, BTreeSet<i64>>,
    /// Marks without a meaning.
    pub(super) stale: Vec<String>,
}

impl SlotRecords {
    /// Adds a mark if it is of this letter: all holes have to be added before any mention.
    pub(super) fn add_mark(&mut self, mark: &str, letter: &str) {
        let parts: Vec<&str> = mark.split('|').collect();
        let (room, is, digits) = match parts.as_slice() {
            [room, is @ ("h" | "m" | "x"), digits] => (*room, *is, *digits),
            [room, "e", digits, _, _] => (*room, "e", *digits),
            _ => ("", "", ""),
        };
        let Some(at) = marked_position(digits) else {
            if letter == "h" {
                self.stale.push(mark.to_owned());
            }
            return;
        };
        if is != letter {
            return;
        }
        let holes = self.holes.entry(room.to_owned()).or_default();
        match self.rooms.get_mut(room) {
            Some(record) if record.state == 'j' && at > record.read => {
                let has_meaning = match is {
                    "m" => !holes.contains(&at),
                    "h" => at > 0,
                    // Only a supergroup counts mentions of everybody by itself.
                    "x" => record.reset.is_some() && record.head.is_none(),
                    _ => true,
                };
                if !has_meaning {
                    return self.stale.push(mark.to_owned());
                }
                match is {
                    "h" => {
                        holes.insert(at);
                        record.holes += 1;
                    }
                    "e" => record.edited(),
                    "m" => record.mentions += 1,
                    _ => {}
                }
                let top = u64::try_from(at).unwrap_or(0);
                record.head = record.head.map(|head| head.max(top));
            }
            _ => self.stale.push(mark.to_owned()),
        }
    }
}

/// What has to be in the hashes.
#[derive(Default)]
pub(super) struct Expected {
    pub(super) counts: BTreeMap<String, String>,
    pub(super) rooms: BTreeMap<String, String>,
    pub(super) supers: BTreeMap<String, String>,
    pub(super) refs: BTreeMap<String, String>,
}

impl Expected {
    fn count(map: &mut BTreeMap<String, String>, field: String, by: u64) {
        if by > 0 {
            let sum = map.get(&field).and_then(|n| n.parse().ok()).unwrap_or(0);
            map.insert(field, u64::saturating_add(sum, by).to_string());
        }
    }

    pub(super) fn add(&mut self, room: &str, record: &AuditRecord) {
        let line = record.record();
        if record.head.is_none() {
            self.supers.insert(room.to_owned(), line);
            Self::count(&mut self.counts, "supers".into(), 1);
            return;
        }
        self.rooms.insert(room.to_owned(), line);
        let active = record.status == "1";
        let unread = record.unread();
        let counted = active && record.state == 'j';
        let (with_messages, with_mentions) = record.counted();
        let summed = if with_messages { unread } else { 0 };
        let with_mentions = counted && with_mentions;
        let families = [
            ("messages", summed),
            ("mentions", if with_mentions { record.mentions } else { 0 }),
            ("invitations", u64::from(active && record.state == 'i')),
        ];
        for (family, n) in families {
            let by_kind = format!("{family}:{}", record.kind);
            if !record.custom_type.is_empty() {
                let by_type = format!("{by_kind}:{}", record.custom_type);
                Self::count(&mut self.counts, by_type, n);
            }
            Self::count(&mut self.counts, by_kind, n);
        }
        let unread_rooms = format!("unread_rooms:{}", record.kind);
        Self::count(&mut self.counts, unread_rooms, u64::from(summed > 0));
        Self::count(&mut self.counts, format!("room:{room}"), unread);
        for tag in record.tags() {
            Self::count(&mut self.counts, format!("tag:{tag}"), summed);
        }
        if counted {
            for tag in record.tags() {
                Self::count(&mut self.refs, format!("tag:{tag}"), 1);
            }
            if !record.custom_type.is_empty() {
                Self::count(&mut self.refs, format!("type:{}", record.custom_type), 1);
            }
        }
        if !record.peer.is_empty() {
            Self::count(&mut self.counts, format!("peer:{}", record.peer), summed);
            // Rooms are added in their order, so the list is sorted.
            let list = self
                .refs
                .entry(format!("direct:{}", record.peer))
                .or_default();
            if !list.is_empty() {
                list.push(',');
            }
            list.push_str(room);
        }
    }
}

pub(super) fn compare(
    key: &'static str,
    stored: &BTreeMap<String, String>,
    expected: &BTreeMap<String, String>,
    drift: &mut Vec<Drift>,
) {
    let fields: BTreeSet<&String> = stored.keys().chain(expected.keys()).collect();
    for field in fields {
        let (is, ought) = (stored.get(field), expected.get(field));
        let listed = key == "refs" && field.starts_with("direct:");
        let same = match (is, ought) {
            // The order of a list has no meaning.
            (Some(is), Some(ought)) if listed => names(is) == names(ought),
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

fn names(list: &str) -> BTreeSet<&str> {
    list.split(',').collect()
}
