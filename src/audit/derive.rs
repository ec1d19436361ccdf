//! Works out what a room's slot must have held where it can't be read. The sources are the history, the members, and the
//! records that users have of the room. No I/O.

use std::collections::BTreeMap;

use crate::audit::form::KnownId;
use crate::audit::record::AuditRecord;
use crate::counts::room::{Last, Membership, millis};

/// A message in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogLine {
    pub(super) rev: u64,
    /// 0: silent.
    pub(super) position: u64,
    pub(super) time: i64,
    pub(super) id: String,
}

impl LogLine {
    /// Its time, but not later than its acceptance.
    fn moment(&self) -> i64 {
        self.time.min(millis(self.rev))
    }

    pub(super) fn text(&self) -> String {
        let Self {
            rev,
            position,
            time,
            id,
        } = self;
        format!("{rev}|{position}|{time}|{id}")
    }
}

/// All that can be read of a room and of users' records of it.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Microseconds of the server's clock.
    pub(super) now: u64,
    /// The fields of the meta that can be read.
    pub(super) meta: BTreeMap<String, String>,
    /// The history in its order; `None` for an element that can't be read.
    pub(super) log: Vec<Option<LogLine>>,
    /// The elements of the history that can't be read: their places and contents.
    pub(super) malformed: Vec<(usize, Vec<u8>)>,
    pub(super) ids: BTreeMap<String, KnownId>,
    /// The least epoch of a membership, and the greatest epoch of any entry in the list of members.
    pub(super) least_epoch: Option<u64>,
    pub(super) greatest_epoch: u64,
    /// Recalled positions.
    pub(super) recalled: Vec<u64>,
    /// The records that some members have of the room.
    pub(super) records: Vec<AuditRecord>,
}

impl Sources {
    fn number(&self, field: &str) -> Option<u64> {
        self.meta.get(field).and_then(|text| text.parse().ok())
    }

    fn lines(&self) -> impl DoubleEndedIterator<Item = &LogLine> {
        self.log.iter().flatten()
    }

    /// Takes an entry of the list of members into account.
    pub(super) fn add_member(&mut self, entry: &Membership) {
        self.greatest_epoch = self.greatest_epoch.max(entry.epoch);
        if entry.state != 'l' {
            self.least_epoch = Some(
                self.least_epoch
                    .map_or(entry.epoch, |least| least.min(entry.epoch)),
            );
        }
    }

    /// Whether anything shows that the room exists.
    pub(super) fn is_room(&self) -> bool {
        self.least_epoch.is_some() || self.lines().next().is_some() || !self.records.is_empty()
    }

    /// The last message by the rule of `message_send.lua`, as if the events had given all times. The history does not show which
    /// messages were given none; `message_send.lua` takes those for the last message in any case.
    fn last_line(&self) -> Option<&LogLine> {
        self.lines()
            .reduce(|last, line| match line.moment() < last.moment() {
                true => last,
                false => line,
            })
    }

    fn head(&self) -> u64 {
        let logged = self.lines().map(|line| line.position);
        let known = self.ids.values().map(|id| id.position);
        let recorded = self.records.iter().filter_map(|record| record.head);
        logged.chain(known).chain(recorded).max().unwrap_or(0)
    }

    /// A revision that is greater than all before it.
    pub(super) fn next_rev(&self) -> u64 {
        // The version of the list of members begins with the revision that changed it.
        let version = self
            .meta
            .get("mrev")
            .and_then(|text| text.split('.').next());
        let version = version.and_then(|rev| rev.parse().ok());
        let stamps = ["rev", "born"].map(|field| self.number(field));
        let accepted = self.meta.get("last_at").map(String::as_str);
        let accepted = accepted.and_then(|at| Last::stored(at, "").ok().flatten());
        let stamps = stamps
            .into_iter()
            .chain([version, accepted.map(|last| last.newest)]);
        let recorded = self.records.iter().map(|record| record.rev);
        let logged = self.lines().map(|line| line.rev);
        let known = self.ids.values().map(|id| id.rev.max(id.recall));
        let stamps = stamps.flatten();
        let all = stamps.chain(recorded).chain(logged).chain(known);
        let last = all.max().unwrap_or(0).max(self.greatest_epoch);
        self.now.max(last.saturating_add(1))
    }

    fn accepted(&self) -> u64 {
        let known = self.ids.values().map(|id| id.number).max();
        let least = self.head().max(self.log.len() as u64);
        self.number("accepted").or(known).unwrap_or(least)
    }

    /// The newest record, by revision, of those that contain the room's details.
    fn newest(&self) -> Option<&AuditRecord> {
        let recorded = self.records.iter().filter(|record| record.head.is_some());
        recorded.max_by_key(|record| record.rev)
    }

    /// The peers in the members' records of a direct room. If only one user is in the room, this is the user who left it last.
    fn peers(&self) -> Option<String> {
        let mut records: Vec<&AuditRecord> = self.records.iter().collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.rev));
        let mut peers: Vec<&str> = records.iter().map(|record| record.peer.as_str()).collect();
        peers.retain(|peer| !peer.is_empty());
        peers.dedup();
        peers.truncate(2);
        (!peers.is_empty()).then(|| peers.join(","))
    }

    fn times(&self) -> impl Iterator<Item = i64> {
        let logged = self.lines().filter(|line| line.position > 0);
        let known = self.ids.values().filter(|id| !id.silent);
        let logged = logged.map(|line| line.time);
        logged.chain(known.map(|id| id.time))
    }

    fn created(&self) -> i64 {
        let recorded = self.newest().map(AuditRecord::created);
        let began = self.number("born").or(self.least_epoch).unwrap_or(self.now);
        let created = self.meta.get("created").and_then(|text| text.parse().ok());
        created
            .or(recorded)
            .or_else(|| self.times().min())
            .unwrap_or_else(|| millis(began))
            .max(0)
    }

    /// What a field of the meta must have held; `None`: no source shows it, and the room can do without.
    pub(super) fn field(&self, field: &str) -> Option<String> {
        let details = self.newest();
        let text = match field {
            "rev" => self.next_rev().to_string(),
            // A pod that has cached the list of members by another version reads it again.
            "mrev" => match self.number("rev") {
                Some(rev) => rev.to_string(),
                None => self.next_rev().to_string(),
            },
            "born" => {
                // No membership may be older than the room, and there may be some that are not known here.
                self.least_epoch.unwrap_or(1).to_string()
            }
            "head" => self.head().to_string(),
            "kind" => {
                let large = self.records.iter().any(|record| record.head.is_none());
                match details {
                    Some(record) => record.kind.clone(),
                    None if large => "supergroup".to_owned(),
                    None => "group".to_owned(),
                }
            }
            "status" => details.map_or("1", |record| &record.status).to_owned(),
            "type" => details.map_or("", |record| &record.custom_type).to_owned(),
            "tags" => details.map_or("", |record| &record.tags).to_owned(),
            "created" => self.created().to_string(),
            "accepted" => self.accepted().to_string(),
            "mintime" => {
                let least = self.times().min();
                least.unwrap_or_else(|| self.created()).max(0).to_string()
            }
            "maxtime" => {
                let most = self.times().max();
                most.unwrap_or_else(|| millis(self.now)).to_string()
            }
            "parted" => self.peers()?,
            "last_id" => self.last_line()?.id.clone(),
            "last_position" => {
                let last = self.last_line()?;
                self.id(&last.id)?.position.to_string()
            }
            "last_time" => self.last_line()?.time.to_string(),
            "last_updated" => self.last_line()?.rev.to_string(),
            "last_at" => {
                let last = Last {
                    time: 0,
                    at: self.last_line()?.rev,
                    newest: self.lines().next_back()?.rev,
                };
                last.accepted()
            }
            _ => return None,
        };
        Some(text)
    }

    /// The number of a message in the order of acceptance, by its place in the history.
    fn number_at(&self, at: usize) -> u64 {
        let after = self.log.len().saturating_sub(at + 1) as u64;
        self.accepted().saturating_sub(after)
    }

    /// The entry in `ids` of a message that the history still has.
    pub(super) fn id(&self, id: &str) -> Option<KnownId> {
        let is = |line: &Option<LogLine>| line.as_ref().is_some_and(|line| line.id == id);
        let at = self.log.iter().rposition(is)?;
        self.id_at(at)
    }

    fn id_at(&self, at: usize) -> Option<KnownId> {
        let line = self.log.get(at)?.as_ref()?;
        let silent = line.position == 0;
        // The place of a silent message is the position of the last message before it that has one.
        let before = self.log.iter().take(at).rev().flatten();
        let position = match silent {
            true => before.map(|line| line.position).find(|at| *at > 0),
            false => Some(line.position),
        };
        let recalled = !silent && self.recalled.contains(&line.position);
        Some(KnownId {
            rev: line.rev,
            position: position.unwrap_or(0),
            time: line.time,
            recall: if recalled { line.rev } else { 0 },
            number: self.number_at(at),
            silent,
            more: String::new(),
        })
    }

    /// The entries in `ids` of all messages of the history, one for each id.
    pub(super) fn all_ids(&self) -> BTreeMap<String, KnownId> {
        let mut all = BTreeMap::new();
        let mut position = 0;
        for (at, line) in self.log.iter().enumerate() {
            let Some(line) = line else { continue };
            let silent = line.position == 0;
            if !silent {
                position = line.position;
            }
            let recalled = !silent && self.recalled.contains(&line.position);
            let known = KnownId {
                rev: line.rev,
                position,
                time: line.time,
                recall: if recalled { line.rev } else { 0 },
                number: self.number_at(at),
                silent,
                more: String::new(),
            };
            all.insert(line.id.clone(), known);
        }
        all
    }

    /// What an element of the history that can't be read must have been, by the entries in `ids`.
    pub(super) fn malformed_line(&self, stored: &[u8]) -> Option<LogLine> {
        let mut places = self
            .malformed
            .iter()
            .filter(|(_, element)| element == stored);
        // Two equal elements can't be told apart.
        let (Some((at, _)), None) = (places.next(), places.next()) else {
            return None;
        };
        let number = self.number_at(*at);
        let (id, known) = self.ids.iter().find(|(_, id)| id.number == number)?;
        Some(LogLine::of(id, known))
    }

    /// Whether it is a direct room; such a room does not keep recalled positions.
    pub(super) fn is_direct(&self) -> bool {
        let kind = self.meta.get("kind").cloned();
        kind.or_else(|| self.field("kind")).as_deref() == Some("direct")
    }

    /// The history by the entries in `ids`.
    pub(super) fn all_lines(&self) -> Vec<LogLine> {
        let mut all: Vec<(&String, &KnownId)> = self.ids.iter().collect();
        all.sort_by_key(|(_, id)| id.number);
        all.into_iter()
            .map(|(id, known)| LogLine::of(id, known))
            .collect()
    }
}

impl LogLine {
    fn of(id: &str, known: &KnownId) -> Self {
        Self {
            rev: known.rev,
            position: if known.silent { 0 } else { known.position },
            time: known.time,
            id: id.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(rev: u64, position: u64, id: &str) -> Option<LogLine> {
        Some(LogLine {
            rev,
            position,
            time: 1_000 + rev as i64,
            id: id.into(),
        })
    }

    fn sources() -> Sources {
        let mut sources = Sources {
            now: 50,
            log: vec![
                line(11, 3, "a"),
                line(12, 0, "quiet"),
                line(13, 4, "b"),
                line(14, 5, "c"),
            ],
            recalled: vec![4],
            records: vec![
                AuditRecord::of_room("j|5|9|1|4|0|0|g|1|old|x||0|").unwrap(),
                AuditRecord::of_room("j|7|9|0|5|0|0|g|1|t|x,y||3|1,0").unwrap(),
            ],
            ..Sources::default()
        };
        for entry in ["j|7|0", "i|5|0", "l|l|4"] {
            sources.add_member(&Membership::parse(entry).unwrap());
        }
        sources.meta.insert("accepted".into(), "9".into());
        sources
    }

    #[test]
    fn a_meta_follows_from_the_rest_of_the_room() {
        let sources = sources();
        let field = |name| sources.field(name).unwrap_or_default();
        for (name, expected) in [
            ("rev", "50"),
            ("mrev", "50"),
            ("born", "5"),
            ("head", "5"),
            ("kind", "group"),
            ("status", "1"),
            ("type", "t"),
            ("tags", "x,y"),
            ("created", "3"),
            ("accepted", "9"),
            ("mintime", "1011"),
            ("maxtime", "1014"),
            ("last_id", "c"),
            ("last_time", "1014"),
            ("last_at", "14"),
            ("name", ""),
        ] {
            assert_eq!(field(name), expected, "{name}");
        }
        assert!(sources.is_room() && !Sources::default().is_room());
        // A user who is alone in a direct room still has a peer: the user who left it last.
        assert_eq!(sources.field("parted"), None);
        let direct = |record: &str| AuditRecord::of_room(record).unwrap();
        let alone = Sources {
            records: vec![direct("j|7|9|0|5|0|0|d|1|||bob|3|1,0")],
            ..Sources::default()
        };
        assert_eq!(alone.field("parted").as_deref(), Some("bob"));
        // Without any source the fields still make a valid room.
        let nothing = Sources {
            now: 7_000,
            ..Sources::default()
        };
        let field = |name| nothing.field(name).unwrap_or_default();
        assert_eq!((field("head"), field("kind")), ("0".into(), "group".into()));
        assert_eq!((field("born"), field("created")), ("1".into(), "7".into()));
        assert_eq!(nothing.field("last_id"), None);
    }

    #[test]
    fn the_last_message_is_the_latest_by_its_time_as_far_as_its_acceptance_bears_that_out() {
        let line = |id: &str, accepted_ms: u64, time: i64| {
            Some(LogLine {
                rev: accepted_ms * 1_000,
                position: 1,
                time,
                id: id.into(),
            })
        };
        let mut sources = Sources::default();
        for (next, last, at) in [
            (line("a", 10, 5), "a", "10000"),
            (line("late", 11, 4), "a", "10000,11000"),
            (line("same", 12, 5), "same", "12000"),
            (line("future", 13, 99), "future", "13000"),
            (line("past", 14, 12), "future", "13000,14000"),
            (line("sooner", 15, 50), "sooner", "15000"),
        ] {
            sources.log.push(next);
            assert_eq!(sources.field("last_id").as_deref(), Some(last));
            assert_eq!(sources.field("last_at").as_deref(), Some(at), "{last}");
        }
        sources.meta.insert("last_at".into(), "15000,16000".into());
        assert_eq!(sources.next_rev(), 16_001);
    }

    #[test]
    fn ids_and_history_follow_from_each_other() {
        let mut sources = sources();
        let ids = sources.all_ids();
        assert_eq!(ids["a"].text(), "11|3|1011|0|6");
        assert_eq!(ids["quiet"].text(), "12|3|1012|0|7|s");
        assert_eq!(ids["b"].text(), "13|4|1013|13|8");
        for (id, known) in &ids {
            assert_eq!(sources.id(id).as_ref(), Some(known));
        }
        assert_eq!(sources.id("gone"), None);
        let lines: Vec<LogLine> = sources.log.iter().flatten().cloned().collect();
        sources.ids = ids;
        sources.log[1] = None;
        sources.malformed.push((1, b"x".to_vec()));
        assert_eq!(sources.malformed_line(b"x").as_ref(), lines.get(1));
        assert_eq!(sources.malformed_line(b"y"), None);
        sources.malformed.push((2, b"x".to_vec()));
        assert_eq!(sources.malformed_line(b"x"), None);
        assert_eq!(sources.all_lines(), lines);
        assert_eq!(lines[2].text(), "13|4|1013|b");
    }
}
