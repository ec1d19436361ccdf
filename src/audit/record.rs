//! The audit's own reader and writer of users' records of rooms. It is a second reader beside `counts/record.rs` on purpose: the
//! audit must not repeat a fault of the first. The golden records in `lua/records.txt` hold both to the same reading.

use crate::counts::number::{parse, short, stamp, unreadable};
use crate::counts::room::{Last, millis};
use crate::error::Result;
use crate::keys::is_encoded;

/// A user's record of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AuditRecord {
    /// `j` or `i`.
    pub(super) state: char,
    pub(super) epoch: u64,
    pub(super) rev: u64,
    /// Below 0 where another system knows of more messages than the room.
    pub(super) read: i64,
    /// `None` for a supergroup: only the room knows it.
    pub(super) head: Option<u64>,
    pub(super) holes: u64,
    pub(super) mentions: u64,
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) custom_type: String,
    pub(super) tags: String,
    pub(super) peer: String,
    /// When the room was made, in milliseconds relative to `epoch`. A supergroup's record has neither this nor the fields below.
    pub(super) made: i64,
    pub(super) last: Option<Last>,
    /// Which of the user's preferences are true, by their first letters; `e` if there are marks of edits; then the digit of the
    /// user's count preference, if it is not the default. A supergroup's record has no letters of preferences.
    pub(super) flags: String,
    /// The last reset of the read position.
    pub(super) reset: Option<AuditReset>,
}

/// The last reset of a read position: its revision, and up to where each position counts, recalled or not (0: nowhere).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AuditReset {
    pub(super) rev: u64,
    pub(super) unknown: u64,
}

impl AuditReset {
    /// `reset` or `reset,unknown`, the reset as its distance from the epoch.
    fn parse(text: &str, epoch: &str) -> Result<Self> {
        let mut parts = text.splitn(2, ',');
        let (_, rev) = since(epoch, parts.next().unwrap_or_default())?;
        let unknown = match parts.next() {
            Some(unknown) => parse(Some(unknown))?,
            None => 0,
        };
        Ok(Self { rev, unknown })
    }

    fn text(self, epoch: u64) -> String {
        let after = short(self.rev.saturating_sub(epoch));
        match self.unknown {
            0 => after,
            unknown => format!("{after},{unknown}"),
        }
    }
}

impl AuditRecord {
    /// `state|epoch|rev|read|head|holes|mentions|kind|status|type|tags|peer|made|last`, and where needed `|flags` and `|reset`,
    /// as `deliver.lua` explains it.
    pub(super) fn of_room(record: &str) -> Result<Self> {
        let parts: Vec<&str> = record.split('|').collect();
        let (parts, flags, reset) = match parts.as_slice() {
            [parts @ .., flags] if parts.len() == 14 && is_flags(flags) => (parts, *flags, ""),
            [parts @ .., flags, reset]
                if parts.len() == 14 && (flags.is_empty() || is_flags(flags)) =>
            {
                (parts, *flags, *reset)
            }
            parts => (parts, "", ""),
        };
        let has_reset = record.split('|').count() == 16;
        let [
            s,
            e,
            v,
            r,
            h,
            nh,
            nm,
            kind,
            status,
            custom_type,
            tags,
            peer,
            made,
            last,
        ] = parts
        else {
            return Err(unreadable());
        };
        let name = |text: &str| text.is_empty() || is_encoded(text);
        let tagged = tags.is_empty() || tags.split(',').all(is_encoded);
        if !matches!(*status, "0" | "1") || !name(custom_type) || !name(peer) || !tagged {
            return Err(unreadable());
        }
        let kind = match *kind {
            "d" => "direct",
            "g" => "group",
            _ => return Err(unreadable()),
        };
        let (epoch, rev) = since(e, v)?;
        Ok(Self {
            state: state(s)?,
            epoch,
            rev,
            read: parse(Some(r))?,
            head: Some(parse(Some(h))?),
            holes: parse(Some(nh))?,
            mentions: parse(Some(nm))?,
            kind: kind.to_owned(),
            status: (*status).to_owned(),
            custom_type: (*custom_type).to_owned(),
            tags: (*tags).to_owned(),
            peer: (*peer).to_owned(),
            made: parse(Some(made))?,
            last: Last::recorded(last, rev)?,
            flags: flags.to_owned(),
            reset: has_reset.then(|| AuditReset::parse(reset, e)).transpose()?,
        })
    }

    /// `state|epoch|rev|read|holes|mentions`, and where needed `|` with `e` and the digit of the count preference, or one of
    /// them, and `|reset`.
    pub(super) fn of_supergroup(record: &str) -> Result<Self> {
        let parts: Vec<&str> = record.split('|').collect();
        let is_tail = |flags: &str| is_flags(flags) && !flags.starts_with(['h', 's', 'm']);
        let (parts, flags, reset) = match parts.as_slice() {
            [parts @ .., flags] if parts.len() == 6 && is_tail(flags) => (parts, *flags, ""),
            [parts @ .., flags, reset]
                if parts.len() == 6 && (flags.is_empty() || is_tail(flags)) =>
            {
                (parts, *flags, *reset)
            }
            parts => (parts, "", ""),
        };
        let has_reset = record.split('|').count() == 8;
        let [s, e, v, r, nh, nm] = parts else {
            return Err(unreadable());
        };
        let (epoch, rev) = since(e, v)?;
        Ok(Self {
            state: state(s)?,
            epoch,
            rev,
            read: parse(Some(r))?,
            head: None,
            holes: parse(Some(nh))?,
            mentions: parse(Some(nm))?,
            kind: "supergroup".into(),
            status: "1".into(),
            custom_type: String::new(),
            tags: String::new(),
            peer: String::new(),
            made: 0,
            last: None,
            flags: flags.to_owned(),
            reset: has_reset.then(|| AuditReset::parse(reset, e)).transpose()?,
        })
    }

    /// The text of this record.
    pub(super) fn record(&self) -> String {
        let Self {
            state,
            epoch,
            rev,
            read,
            holes,
            mentions,
            kind,
            status,
            custom_type,
            tags,
            peer,
            made,
            ..
        } = self;
        let last = self.last.map(|last| last.record(*rev)).unwrap_or_default();
        let kind = kind.get(..1).unwrap_or_default();
        let ends = match (self.flags.as_str(), self.reset) {
            ("", None) => String::new(),
            (flags, None) => format!("|{flags}"),
            (flags, Some(reset)) => format!("|{flags}|{}", reset.text(*epoch)),
        };
        let (epoch, after) = (short(*epoch), short(rev.saturating_sub(*epoch)));
        match self.head {
            Some(head) => format!(
                "{state}|{epoch}|{after}|{read}|{head}|{holes}|{mentions}|{kind}|{status}|{custom_type}|{tags}|{peer}|{made}|{last}{ends}"
            ),
            None => format!("{state}|{epoch}|{after}|{read}|{holes}|{mentions}{ends}"),
        }
    }

    /// When the room was made, in milliseconds since the Unix epoch.
    pub(super) fn created(&self) -> i64 {
        millis(self.epoch).saturating_add(self.made)
    }

    pub(super) fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.split(',').filter(|tag| !tag.is_empty())
    }

    /// Notes that there are marks of edits.
    pub(super) fn edited(&mut self) {
        if !self.flags.contains('e') {
            let at = self.flags.len() - usize::from(self.flags.ends_with(['1', '2', '3']));
            self.flags.insert(at, 'e');
        }
    }

    /// Whether the user's sums have the room's messages, and whether they have its mentions.
    pub(super) fn counted(&self) -> (bool, bool) {
        match self.flags.chars().next_back() {
            Some('1') => (true, false),
            Some('2') => (false, true),
            Some('3') => (false, false),
            _ => (true, true),
        }
    }

    /// Whether the member's count subtracts a hole at this position.
    pub(super) fn has_holes_at(&self, at: u64) -> bool {
        let unknown = self.reset.map_or(0, |reset| reset.unknown);
        at > unknown && i64::try_from(at).is_ok_and(|at| at > self.read)
    }

    /// Unread messages of a direct room or group.
    pub(super) fn unread(&self) -> u64 {
        if self.state != 'j' || self.status != "1" {
            return 0;
        }
        let head = self.head.and_then(|head| i64::try_from(head).ok());
        let above = head.map_or(0, |head| head.saturating_sub(self.read));
        u64::try_from(above).unwrap_or(0).saturating_sub(self.holes)
    }
}

/// Whether these are letters of preferences, each at most once and in their order, and perhaps one digit.
fn is_flags(text: &str) -> bool {
    let mut letters = "hsme".chars();
    !text.is_empty()
        && text
            .strip_suffix(['1', '2', '3'])
            .unwrap_or(text)
            .chars()
            .all(|flag| letters.any(|letter| letter == flag))
}

/// Reads epoch and revision; the record has the revision as its distance from the epoch.
fn since(epoch: &str, after: &str) -> Result<(u64, u64)> {
    let (epoch, after) = (stamp(Some(epoch))?, stamp(Some(after))?);
    Ok((epoch, epoch.saturating_add(after)))
}

fn state(text: &str) -> Result<char> {
    match text {
        "j" => Ok('j'),
        "i" => Ok('i'),
        _ => Err(unreadable()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::golden::{all, meaning};

    fn shown(reset: Option<AuditReset>) -> String {
        reset.map_or(String::new(), |reset| match reset.unknown {
            0 => reset.rev.to_string(),
            unknown => format!("{},{unknown}", reset.rev),
        })
    }

    #[test]
    fn golden_room_records_mean_what_the_file_says() {
        for golden in all("room") {
            let read = AuditRecord::of_room(golden.record);
            let record = read.unwrap_or_else(|refused| panic!("{}: {refused}", golden.record));
            let last = |part: fn(Last) -> String| record.last.map(part).unwrap_or_default();
            let got = meaning([
                ("state", record.state.to_string()),
                ("epoch", record.epoch.to_string()),
                ("revision", record.rev.to_string()),
                ("read", record.read.to_string()),
                ("head", record.head.unwrap().to_string()),
                ("holes", record.holes.to_string()),
                ("mentions", record.mentions.to_string()),
                ("unread", record.unread().to_string()),
                ("kind", record.kind.clone()),
                ("active", record.status.clone()),
                ("type", record.custom_type.clone()),
                ("tags", record.tags.clone()),
                ("peer", record.peer.clone()),
                ("created", record.created().to_string()),
                ("accepted", last(|last| last.at.to_string())),
                ("newest", last(|last| last.newest.to_string())),
                ("time", last(|last| last.time.to_string())),
                ("flags", record.flags.clone()),
                ("reset", shown(record.reset)),
            ]);
            assert_eq!(got, golden.meaning, "{}", golden.record);
            assert_eq!(record.record(), golden.record);
        }
    }

    #[test]
    fn golden_supergroup_records_mean_what_the_file_says() {
        for golden in all("supergroup") {
            let record = AuditRecord::of_supergroup(golden.record).unwrap();
            let got = meaning([
                ("state", record.state.to_string()),
                ("epoch", record.epoch.to_string()),
                ("revision", record.rev.to_string()),
                ("read", record.read.to_string()),
                ("holes", record.holes.to_string()),
                ("mentions", record.mentions.to_string()),
                ("flags", record.flags.clone()),
                ("reset", shown(record.reset)),
            ]);
            assert_eq!(got, golden.meaning, "{}", golden.record);
            assert_eq!(record.record(), golden.record);
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for golden in all("no-room") {
            let read = AuditRecord::of_room(golden.record);
            assert!(read.is_err(), "{}", golden.record);
        }
        for golden in all("no-supergroup") {
            let read = AuditRecord::of_supergroup(golden.record);
            assert!(read.is_err(), "{}", golden.record);
        }
    }

    #[test]
    fn records_come_back_as_they_were() {
        for record in [
            "j|5|9|1|3|0|0|d|1|||bob|-3|0,-2",
            "i|7|9|0|4|0|0|g|0|t|x,y||0|",
            "j|hof1iu4m6f|8s2pb4oq|1|3|0|0|g|1||||0|0,-2",
            "j|5|9|1|3|0|0|d|1|||bob|-3|0,-2|hsm",
        ] {
            assert_eq!(AuditRecord::of_room(record).unwrap().record(), record);
        }
        assert_eq!(
            AuditRecord::of_supergroup("j|8|9|2|1|0").unwrap().record(),
            "j|8|9|2|1|0"
        );
        assert!(AuditRecord::of_room("l|5|9|1|3|0|0|d|1|||bob|-3|0,-2").is_err());
        assert!(AuditRecord::of_room("j|5|9|1|3|0|0|s|1||||0|").is_err());
    }
}
