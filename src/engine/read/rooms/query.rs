//! Queries for a page of rooms: which rooms, in which order, as far as the user's own slot knows them.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

use crate::counts::record::RoomRecord;
use crate::counts::room::{Last, millis};
use crate::counts::{Kind, Pref};
use crate::error::Result;
use crate::keys::decoded;

/// What rooms are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SortBy {
    /// The last message: its time, then the order of acceptance. A room without a message comes first.
    LastMessage,
    /// When the room was made.
    Created,
    /// The room's id.
    Id,
    /// The shown name.
    Name,
    /// The description.
    Description,
    /// Direct rooms before all others.
    Direct,
    /// Service status.
    ServiceStatus,
    /// The user's unread messages.
    Unread,
}

impl SortBy {
    /// Whether only the room knows it, not the user's slot.
    fn is_remote(self) -> bool {
        matches!(self, Self::Name | Self::Description | Self::ServiceStatus)
    }

    fn compare(self, a: &Facts<'_>, b: &Facts<'_>) -> Ordering {
        match self {
            Self::LastMessage => a.last.map(Last::order).cmp(&b.last.map(Last::order)),
            Self::Created => a.created.cmp(&b.created),
            Self::Id => by_id(a, b),
            Self::Name => a.name.cmp(b.name),
            Self::Description => a.description.cmp(b.description),
            Self::Direct => (a.kind != Kind::Direct).cmp(&(b.kind != Kind::Direct)),
            Self::ServiceStatus => a.service_status.cmp(&b.service_status),
            Self::Unread => a.unread.cmp(&b.unread),
        }
    }
}

/// One room's values to sort by.
pub(super) struct Facts<'a> {
    /// The room's id, as stored.
    pub(super) room: &'a str,
    pub(super) kind: Kind,
    pub(super) created: i64,
    pub(super) last: Option<Last>,
    pub(super) unread: u64,
    pub(super) name: &'a str,
    pub(super) description: &'a str,
    pub(super) service_status: i64,
}

fn by_id(a: &Facts<'_>, b: &Facts<'_>) -> Ordering {
    match a.room.contains('%') || b.room.contains('%') {
        true => decoded(a.room).cmp(&decoded(b.room)),
        false => a.room.cmp(b.room),
    }
}

/// Which of a user's rooms to list, and in which order.
pub(crate) struct RoomQuery<'a> {
    /// Whether a room is listed.
    pub matches: &'a (dyn Fn(&RoomBrief<'_>) -> bool + Sync),
    /// A condition on the user's preferences of the room.
    pub by_pref: Option<PrefQuery<'a>>,
    /// What to sort by, and whether in descending order. Rooms that are equal in all of it are sorted by id.
    pub sort: &'a [(SortBy, bool)],
    /// Rooms with unread messages before the others.
    pub unread_first: bool,
    /// How many rooms to leave out at the beginning.
    pub skip: usize,
    /// How many rooms the page has; 0: all.
    pub limit: usize,
}

/// The preferences that stand in a user's record of a room, as their first letters.
const FLAGS: [&str; 3] = ["hidden", "sticky", "muted"];

/// A condition on a user's preferences of a room.
pub(crate) struct PrefQuery<'a> {
    /// The preferences that the condition uses, each once: `tags`, `tag_colors`, `hidden`, `sticky`, `muted`, `folder`.
    pub preferences: Vec<&'static str>,
    /// Whether a room with these preferences is listed. The preferences that the condition does not use have their defaults.
    pub matches: &'a (dyn Fn(&Pref) -> bool + Sync),
}

impl PrefQuery<'_> {
    /// Whether the user's records hold all preferences that the condition uses.
    pub(super) fn is_recorded(&self) -> bool {
        self.preferences
            .iter()
            .all(|preference| FLAGS.contains(preference))
    }
}

/// One of a user's rooms, as the user's slot has it.
pub(crate) struct RoomBrief<'a> {
    pub(super) stored: &'a str,
    pub(super) epoch: u64,
    pub(super) kind: Kind,
    pub(super) tags: &'a str,
    pub(super) created: i64,
    pub(super) last: Option<Last>,
    pub(super) unread: u64,
    /// The preferences that are true, as their first letters.
    pub(super) flags: &'a str,
}

impl<'a> RoomBrief<'a> {
    /// The room's id.
    pub(crate) fn room(&self) -> Cow<'a, str> {
        decoded(self.stored)
    }

    /// Its kind.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Its tags, in the order given.
    pub(crate) fn tags(&self) -> impl Iterator<Item = Cow<'a, str>> {
        let names = self.tags.split(',').filter(|tag| !tag.is_empty());
        names.map(decoded)
    }

    /// When it was made, in milliseconds since 1970.
    pub(crate) fn created(&self) -> i64 {
        self.created
    }

    /// The last message's time, in milliseconds since 1970.
    pub(crate) fn last_time(&self) -> Option<i64> {
        self.last.map(|last| last.time)
    }

    /// When the newest message was accepted, in milliseconds since 1970. By its time it may come before the last message.
    pub(crate) fn newest(&self) -> Option<i64> {
        self.last.map(|last| millis(last.newest))
    }

    /// Reads a record. `None`: the user has not joined the room, or it is not active.
    pub(super) fn read(stored: &'a str, record: &'a str) -> Result<Option<Self>> {
        let Some(record) = RoomRecord::read_listed(record)? else {
            return Ok(None);
        };
        let record = record.sound()?;
        Ok(Some(Self {
            stored,
            epoch: record.epoch,
            kind: record.kind,
            tags: record.tags,
            created: record.created(),
            last: record.last,
            unread: record.unread(),
            flags: record.flags,
        }))
    }

    /// The preferences that stand in the record.
    pub(super) fn recorded(&self) -> Pref {
        Pref {
            hidden: self.flags.contains('h'),
            sticky: self.flags.contains('s'),
            muted: self.flags.contains('m'),
            ..Pref::default()
        }
    }

    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            room: self.stored,
            kind: self.kind,
            created: self.created,
            last: self.last,
            unread: self.unread,
            name: "",
            description: "",
            service_status: 0,
        }
    }
}

impl RoomQuery<'_> {
    fn compare(&self, sort: &[(SortBy, bool)], a: &Facts<'_>, b: &Facts<'_>) -> Ordering {
        let by_unread = match self.unread_first {
            true => (a.unread == 0).cmp(&(b.unread == 0)),
            false => Ordering::Equal,
        };
        sort.iter().fold(by_unread, |sofar, (by, down)| {
            sofar.then_with(|| {
                let order = by.compare(a, b);
                if *down { order.reverse() } else { order }
            })
        })
    }

    /// Compares two rooms by everything, and in the end by id.
    pub(super) fn compare_all(&self, a: &Facts<'_>, b: &Facts<'_>) -> Ordering {
        let by_fields = self.compare(self.sort, a, b);
        by_fields.then_with(|| by_id(a, b))
    }

    /// The first part of the order, which the user's slot knows. `None`: the slot knows all of it.
    fn known_part(&self) -> Option<&[(SortBy, bool)]> {
        let remote = self.sort.iter().position(|(by, _)| by.is_remote())?;
        self.sort.get(..remote)
    }

    /// Puts the rooms of the page in their places in `order`, as far as the user's slot knows it. Returns the places of the page,
    /// and the places of all rooms that are equal to one of its rooms so far: their order depends on what only these rooms know.
    pub(super) fn arrange(
        &self,
        found: &[RoomBrief<'_>],
        order: &mut [usize],
    ) -> (Range<usize>, Range<usize>) {
        let total = order.len();
        let skip = self.skip.min(total);
        let end = match self.limit {
            0 => total,
            limit => skip.saturating_add(limit).min(total),
        };
        let facts: Vec<Facts<'_>> = found.iter().map(RoomBrief::facts).collect();
        let compare = |a: &usize, b: &usize, by: &dyn Fn(&Facts<'_>, &Facts<'_>) -> Ordering| match (
            facts.get(*a),
            facts.get(*b),
        ) {
            (Some(a), Some(b)) => by(a, b),
            _ => Ordering::Equal,
        };
        if skip == end {
            return (skip..end, skip..end);
        }
        let Some(part) = self.known_part() else {
            // Only the page has to be in order, not all the other rooms. No two rooms are equal, so the page is the same as if
            // all were sorted.
            let all = |a: &usize, b: &usize| compare(a, b, &|a, b| self.compare_all(a, b));
            let mut page = order;
            if end < total {
                page.select_nth_unstable_by(end - 1, all);
                page = page.get_mut(..end).unwrap_or_default();
            }
            if skip > 0 {
                page.select_nth_unstable_by(skip, all);
                page = page.get_mut(skip..).unwrap_or_default();
            }
            page.sort_unstable_by(all);
            return (skip..end, skip..end);
        };
        let known = |a: &usize, b: &usize| compare(a, b, &|a, b| self.compare(part, a, b));
        order.sort_by(known);
        let same = |a: usize, b: usize| match (order.get(a), order.get(b)) {
            (Some(a), Some(b)) => known(a, b).is_eq(),
            _ => false,
        };
        let (mut from, mut to) = (skip, end);
        while from > 0 && same(from - 1, skip) {
            from -= 1;
        }
        while to < total && same(to, end - 1) {
            to += 1;
        }
        (skip..end, from..to)
    }
}

#[cfg(test)]
impl RoomQuery<'_> {
    /// For the tests of callers: how many of these rooms match, and the ids of the page.
    pub(crate) fn choose(&self, rooms: &[crate::counts::RoomEntry]) -> (u64, Vec<String>) {
        use crate::keys::{Enc, encode};
        let stored: Vec<(Enc, String)> = rooms
            .iter()
            .map(|room| {
                let tags: Vec<Enc> = room.tags.iter().map(|t| encode(t.as_str())).collect();
                let tags: Vec<&str> = tags.iter().map(Enc::as_str).collect();
                (encode(room.room.as_str()), tags.join(","))
            })
            .collect();
        let mut found: Vec<RoomBrief> = Vec::new();
        for (room, (name, tags)) in rooms.iter().zip(&stored) {
            let last = room.last_message.as_ref();
            let brief = RoomBrief {
                stored: name.as_str(),
                epoch: 0,
                kind: room.kind,
                tags,
                created: room.created,
                last: last.map(|last| Last {
                    time: last.time,
                    at: last.order,
                    newest: last.order,
                }),
                unread: room.unread,
                flags: "",
            };
            let by_pref = self.by_pref.as_ref();
            if (self.matches)(&brief) && by_pref.is_none_or(|by| (by.matches)(&room.pref)) {
                found.push(brief);
            }
        }
        let mut order: Vec<usize> = (0..found.len()).collect();
        let (page, around) = self.arrange(&found, &mut order);
        assert_eq!(page, around);
        let ids = order[page].iter().map(|at| found[*at].room().into_owned());
        (order.len() as u64, ids.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_stands() {
        let record = "j|hoebfz46s0|2bc|2|9|1|0|d|1|t%2C|a%20b,c|bob|-3|3000,7";
        let room = RoomBrief::read("r%2F1", record).unwrap().unwrap();
        assert_eq!(room.room(), "r/1");
        assert_eq!((room.kind(), room.unread), (Kind::Direct, 6));
        assert_eq!(room.tags().collect::<Vec<_>>(), ["a b", "c"]);
        assert_eq!(room.created(), 1_795_347_910_016);
        let last = Last {
            time: 1_795_347_910_026,
            at: 1_795_347_910_019_664,
            newest: 1_795_347_910_019_664,
        };
        assert_eq!(room.last, Some(last));
        for left_out in ["i|5|9|1|3|0|0|d|1|||bob|0|", "j|5|9|1|3|0|0|d|0|||bob|0|"] {
            assert!(RoomBrief::read("r", left_out).unwrap().is_none());
        }
        let quiet = RoomBrief::read("r", "j|5|9|1|3|0|0|g|1||||0|")
            .unwrap()
            .unwrap();
        assert_eq!((quiet.last, quiet.tags().count()), (None, 0));
        for bad in [
            "j|5|9|1|3|0|0|g|1||||0",
            "j|5|9|1|3|0|0|g|1||||x|",
            "j|5|9|1|3|0|0|g|1||||0|1",
            "j|5|-9|1|3|0|0|g|1||||0|",
            "j|5||1|3|0|0|g|1||||0|",
            "j|5|1234567890123|1|3|0|0|g|1||||0|",
            "j|5|9|12345678901234567890|3|0|0|g|1||||0|",
            "j|x",
            "",
        ] {
            assert!(RoomBrief::read("r", bad).is_err(), "{bad}");
        }
    }

    /// Rooms of few different values, so that many are alike; names and the like are the room's own.
    fn rooms() -> (Vec<RoomBrief<'static>>, Vec<(&'static str, i64)>) {
        const NAMES: [&str; 5] = ["a", "b%20", "b", "%7Ec", "d"];
        let brief = |n: usize| RoomBrief {
            stored: format!("{}{}", NAMES[n % 5], (n * 37) % 101).leak(),
            epoch: 0,
            kind: [Kind::Direct, Kind::Group, Kind::Supergroup][n % 3],
            tags: "",
            created: (n % 7) as i64,
            last: (!n.is_multiple_of(5)).then_some(Last {
                time: (n % 4) as i64,
                at: (n % 2) as u64,
                newest: n as u64,
            }),
            unread: (n % 3) as u64,
            flags: "",
        };
        let remote = |n: usize| (["x", "", "y", "z"][n * 7 % 4], (n % 2) as i64);
        ((0..60).map(brief).collect(), (0..60).map(remote).collect())
    }

    #[test]
    fn a_page_is_what_the_whole_order_has_in_its_place() {
        use SortBy::{Created, Direct, Id, LastMessage, Name, ServiceStatus, Unread};
        let (found, remote) = rooms();
        let facts = |at: usize| Facts {
            name: remote[at].0,
            service_status: remote[at].1,
            ..found[at].facts()
        };
        let sorts: &[&[(SortBy, bool)]] = &[
            &[],
            &[(LastMessage, true), (Created, true)],
            &[(Unread, true), (Direct, false)],
            &[(Name, false)],
            &[(LastMessage, true), (Name, false), (Id, true)],
            &[
                (Created, false),
                (ServiceStatus, true),
                (LastMessage, false),
            ],
            &[(Id, true), (Name, false)],
        ];
        for sort in sorts {
            for (skip, limit) in [
                (0, 0),
                (0, 1),
                (0, 9),
                (7, 9),
                (20, 20),
                (58, 9),
                (59, 1),
                (60, 3),
                (99, 0),
            ] {
                for unread_first in [false, true] {
                    let query = RoomQuery {
                        matches: &|_| true,
                        by_pref: None,
                        sort,
                        unread_first,
                        skip,
                        limit,
                    };
                    let mut all: Vec<usize> = (0..60).collect();
                    all.sort_by(|a, b| query.compare_all(&facts(*a), &facts(*b)));
                    let limit = if limit == 0 { 60 } else { limit };
                    let wanted: Vec<usize> = all.iter().copied().skip(skip).take(limit).collect();

                    let mut order: Vec<usize> = (0..60).rev().collect();
                    let (page, around) = query.arrange(&found, &mut order);
                    let mut near = order[around.clone()].to_vec();
                    let remote = sort.iter().any(|(by, _)| by.is_remote());
                    assert!(remote || page == around);
                    if remote {
                        near.sort_by(|a, b| query.compare_all(&facts(*a), &facts(*b)));
                    }
                    let cut = &near[page.start - around.start..page.end - around.start];
                    assert_eq!(cut, wanted, "{sort:?} {skip} {limit} {unread_first}");
                }
            }
        }
        // No more rooms are asked than are in question.
        let query = RoomQuery {
            matches: &|_| true,
            by_pref: None,
            sort: &[(Created, false), (Name, false)],
            unread_first: false,
            skip: 20,
            limit: 3,
        };
        let mut order: Vec<usize> = (0..60).collect();
        let (page, around) = query.arrange(&found, &mut order);
        assert_eq!((page, around), (20..23, 18..27));
    }
}
