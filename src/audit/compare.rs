//! Compares a user's record of a room with the room.

use std::collections::{BTreeMap, BTreeSet};

use crate::audit::drift::Drift;
use crate::audit::record::AuditRecord;
use crate::audit::slot::{Slot, text_or_escaped};
use crate::counts::number::whole_number;
use crate::counts::room::{Last, Membership};
use crate::engine::reply::{Reply, bytes};
use crate::engine::snapshot::Snapshot;
use crate::error::Result;
use crate::keys::Enc;

/// A room as `room_view.lua` answers it: its snapshot, and what concerns one user.
#[derive(Debug, Clone, Default)]
pub(super) struct RoomView {
    pub(super) snapshot: Snapshot,
    pub(super) entry: Option<Membership>,
    pub(super) peer: String,
    /// Positions that don't count for the user: recalled ones, and those that were read on arrival.
    pub(super) recalled: Vec<u64>,
    pub(super) jobs: BTreeSet<String>,
}

impl RoomView {
    pub(super) fn read(mut reply: Reply) -> Result<Self> {
        let snapshot = Snapshot::read(&mut reply)?;
        let entry = reply.text()?;
        let peer = reply.text()?;
        let recalled = reply.text()?;
        let mut list = reply.list()?;
        let mut jobs = BTreeSet::new();
        while !list.is_empty() {
            jobs.insert(text_or_escaped(&bytes(list.value()?)?));
        }
        Ok(Self {
            snapshot,
            entry: (!entry.is_empty())
                .then(|| Membership::parse(&entry))
                .transpose()?,
            peer,
            // The check of the room reports what is no position.
            recalled: recalled.split(',').filter_map(whole_number).collect(),
            jobs,
        })
    }

    /// The user's membership, if there is one that is not older than the room.
    pub(super) fn member(&self) -> Option<Membership> {
        self.entry
            .filter(|entry| entry.is_member(self.snapshot.born))
    }
}

/// How a user's record differs from its room. The caller has read `first` before the slot, and `last` after it. The jobs that
/// were pending in `first` had reached everybody before the caller read the slot.
pub(super) fn differences(
    slot: &Slot,
    room: &str,
    first: &RoomView,
    last: &RoomView,
) -> Vec<Drift> {
    let Some(record) = &slot.record_of(room) else {
        return missing_record(slot, room, first, last)
            .into_iter()
            .collect();
    };
    let key = match slot.supers.contains_key(room) {
        true => "supers",
        false => "rooms",
    };
    let compared = Compared { room, key, record };
    // The room's revision has expired too, so the room was deleted at least a day ago.
    if last.snapshot.rev == 0 {
        return vec![compared.too_much()];
    }
    let mut drift = compared.ahead_of(last);
    // The membership began after the first look, so the first look can't show it.
    if record.epoch > first.snapshot.rev {
        return drift;
    }
    let Some(entry) = first.member() else {
        return vec![compared.too_much()];
    };
    if entry.epoch != record.epoch {
        drift.push(compared.differs("epoch", record.epoch, entry.epoch));
        return drift;
    }
    if entry.state != record.state {
        drift.push(compared.differs("state", record.state, entry.state));
    }
    let reset = record.reset.map(|reset| reset.rev);
    // A later one than in the first look is of a reset since.
    if reset < entry.reset {
        let shown = |reset: Option<u64>| reset.map_or("none".to_owned(), |rev| rev.to_string());
        drift.push(compared.differs("reset", shown(reset), shown(entry.reset)));
    }
    if first.snapshot.kind != "supergroup" {
        drift.extend(compared.behind(slot, first));
    }
    // A record with a later revision has newer details than the first look.
    if record.rev <= first.snapshot.rev {
        drift.extend(compared.other_details(first));
    }
    drift
}

/// The record that a member lacks, if both looks at the room show the membership.
fn missing_record(slot: &Slot, room: &str, first: &RoomView, last: &RoomView) -> Option<Drift> {
    let (before, after) = (first.member()?, last.member()?);
    // A deleted user is listed by rooms that it still has to leave.
    if !slot.is_readable(room) || before.epoch != after.epoch || slot.leaving {
        return None;
    }
    let key = match last.snapshot.kind == "supergroup" {
        true => "supers",
        false => "rooms",
    };
    Some(Drift {
        key,
        field: room.to_owned(),
        part: Some("record"),
        stored: None,
        expected: Some(format!("{} since {}", after.state, after.epoch)),
    })
}

/// A user's record of a room, and the key that has it.
struct Compared<'a> {
    room: &'a str,
    key: &'static str,
    record: &'a AuditRecord,
}

impl Compared<'_> {
    fn differs(&self, part: &'static str, stored: impl ToString, expected: impl ToString) -> Drift {
        Drift {
            key: self.key,
            field: self.room.to_owned(),
            part: Some(part),
            stored: Some(stored.to_string()),
            expected: Some(expected.to_string()),
        }
    }

    /// The user is not in the room, so there must be no record.
    fn too_much(&self) -> Drift {
        let AuditRecord { state, epoch, .. } = self.record;
        Drift {
            key: self.key,
            field: self.room.to_owned(),
            part: Some("record"),
            stored: Some(format!("{state} since {epoch}")),
            expected: None,
        }
    }

    /// What the record has of a later time than the last look at the room.
    fn ahead_of(&self, last: &RoomView) -> Vec<Drift> {
        let (record, now) = (self.record, &last.snapshot);
        let mut drift = Vec::new();
        if record.rev > now.rev {
            drift.push(self.differs("rev", record.rev, now.rev));
        }
        if let Some(entry) = last.member()
            && entry.epoch == record.epoch
        {
            let (part, top) = match record.head {
                Some(head) => ("head", head),
                None => ("read", u64::try_from(record.read).unwrap_or(0)),
            };
            if top > now.head {
                drift.push(self.differs(part, top, now.head));
            }
        }
        drift
    }

    /// What the record lacks that the first look shows: messages and recalls.
    fn behind(&self, slot: &Slot, first: &RoomView) -> Vec<Drift> {
        let record = self.record;
        let mut drift = Vec::new();
        let Some(head) = record.head else {
            return drift;
        };
        if head < first.snapshot.head {
            drift.push(self.differs("head", head, first.snapshot.head));
        }
        if record.state == 'j' && slot.has("marks") {
            let missing: Vec<String> = first
                .recalled
                .iter()
                .filter(|at| record.has_holes_at(**at) && !slot.has_hole(self.room, **at))
                .map(u64::to_string)
                .collect();
            if !missing.is_empty() {
                drift.push(Drift {
                    key: "marks",
                    field: self.room.to_owned(),
                    part: Some("recalled"),
                    stored: None,
                    expected: Some(missing.join(",")),
                });
            }
        }
        drift
    }

    /// The details that the record has otherwise than the first look.
    fn other_details(&self, first: &RoomView) -> Vec<Drift> {
        let (record, then) = (self.record, &first.snapshot);
        let mut details = vec![("kind", &record.kind, &then.kind)];
        // A supergroup's record has no other details.
        if record.head.is_some() {
            details.extend([
                ("status", &record.status, &then.status),
                ("type", &record.custom_type, &then.custom_type),
                ("tags", &record.tags, &then.tags),
                ("peer", &record.peer, &first.peer),
            ]);
        }
        let mut drift = Vec::new();
        for (part, stored, expected) in details {
            if stored != expected {
                drift.push(self.differs(part, stored, expected));
            }
        }
        if record.head.is_none() {
            return drift;
        }
        let created = i64::try_from(then.created).unwrap_or(i64::MAX);
        if record.created() != created {
            drift.push(self.differs("created", record.created(), created));
        }
        if record.last != then.last {
            let shown = |last: Option<Last>| match last {
                Some(last) => format!("{} of {}", last.accepted(), last.time),
                None => "none".to_owned(),
            };
            drift.push(self.differs("last", shown(record.last), shown(then.last)));
        }
        drift
    }
}

/// Releases the records that can't be read of rooms that the user is not in: the repair may remove these.
pub(super) fn release_others(slot: &mut Slot, views: &BTreeMap<Enc, RoomView>) {
    for (room, view) in views {
        if view.member().is_none() {
            slot.release(room.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(record: &str) -> Slot {
        let mut slot = Slot::default();
        slot.rooms.insert("r".into(), record.into());
        slot
    }

    fn view(rev: u64, head: u64, entry: &str) -> RoomView {
        RoomView {
            snapshot: Snapshot {
                taken: 1,
                rev,
                head,
                kind: "group".into(),
                status: "1".into(),
                custom_type: "t".into(),
                tags: "x".into(),
                born: 5,
                mrev: "5".into(),
                created: 2,
                last: Some(Last {
                    time: 3,
                    at: 19,
                    newest: 19,
                }),
                ..Snapshot::default()
            },
            entry: (!entry.is_empty()).then(|| Membership::parse(entry).unwrap()),
            ..RoomView::default()
        }
    }

    fn parts(slot: &Slot, first: &RoomView, last: &RoomView) -> Vec<&'static str> {
        differences(slot, "r", first, last)
            .iter()
            .filter_map(|drift| drift.part)
            .collect()
    }

    #[test]
    fn a_record_is_behind_ahead_or_as_its_room() {
        let mine = slot("j|7|d|1|4|0|0|g|1|t|x||2|1,3");
        let same = view(20, 4, "j|7|0");
        assert_eq!(parts(&mine, &same, &same), Vec::<&str>::new());
        // The record has later changes than the first look.
        assert_eq!(
            parts(&mine, &view(15, 2, "j|7|0"), &same),
            Vec::<&str>::new()
        );
        assert_eq!(
            parts(&mine, &view(25, 5, "j|7|0"), &view(25, 5, "j|7|0")),
            ["head"]
        );
        assert_eq!(parts(&mine, &same, &view(19, 3, "j|7|0")), ["rev", "head"]);
        assert_eq!(parts(&mine, &view(25, 4, ""), &same), ["record"]);
        assert_eq!(parts(&mine, &view(25, 4, "j|9|0"), &same), ["epoch"]);
        assert_eq!(parts(&mine, &view(25, 4, "i|7|0"), &same), ["state"]);
        // Joined after the first look.
        assert_eq!(parts(&mine, &view(6, 4, ""), &same), Vec::<&str>::new());
        let mut other = view(25, 4, "j|7|0");
        other.snapshot.tags = "y".into();
        other.recalled = vec![1, 3];
        assert_eq!(parts(&mine, &other, &other), ["recalled", "tags"]);
        let mut other = view(25, 4, "j|7|0");
        other.snapshot.created = 1;
        other.snapshot.last = None;
        assert_eq!(parts(&mine, &other, &other), ["created", "last"]);
        let nothing = RoomView::default();
        assert_eq!(parts(&mine, &nothing, &nothing), ["record"]);
    }

    #[test]
    fn a_member_without_a_record_is_missing_one() {
        let mut mine = Slot::default();
        let listed = view(20, 4, "j|7|0");
        assert_eq!(parts(&mine, &listed, &listed), ["record"]);
        assert_eq!(parts(&mine, &listed, &view(21, 4, "")), Vec::<&str>::new());
        mine.leaving = true;
        assert_eq!(parts(&mine, &listed, &listed), Vec::<&str>::new());
    }
}
