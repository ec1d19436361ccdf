//! The reader of users' records of rooms. It borrows from the text. `deliver.lua` writes the records and explains their parts.
//!
//! The audit has a second reader (`audit/record.rs`). It was written from the definition of a record and not from this code,
//! so that each finds the other's faults. Golden records in `lua/records.txt` hold both, and the scripts, to the same reading.

use crate::counts::number::{LARGEST, parse, stamp, unreadable};
use crate::counts::room::{Last, millis};
use crate::counts::{CountPref, Kind};
use crate::error::Result;
use crate::keys::is_encoded;

/// The record of a direct room or group:
/// `state|epoch|rev|read|head|holes|mentions|kind|status|type|tags|peer|made|last`, and where needed `|flags` and `|reset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoomRecord<'a> {
    /// `j` (joined) or `i` (invited).
    pub(crate) state: char,
    /// When the membership began: a stamp of the room.
    pub(crate) epoch: u64,
    /// Revision of the room that was delivered last.
    pub(crate) rev: u64,
    /// Read position: every message up to it is read. Below 0 where another system knows of more messages than the room.
    pub(crate) read: i64,
    /// Position of the room's last message, as of `rev`.
    pub(crate) head: u64,
    /// How many positions above `read` don't count.
    pub(crate) holes: u64,
    /// How many positions above `read` mention the user.
    pub(crate) mentions: u64,
    pub(crate) kind: Kind,
    pub(crate) active: bool,
    /// Encoded; empty if none.
    pub(crate) custom_type: &'a str,
    /// Encoded, a comma list.
    pub(crate) tags: &'a str,
    /// Encoded; empty if the room is not direct.
    pub(crate) peer: &'a str,
    /// When the room was made, in milliseconds relative to `epoch`: usually 0 or less.
    made: i64,
    pub(crate) last: Option<Last>,
    /// Which of the user's preferences are true: some of `hsm`, in that order; `e` if there are marks of edits; then the digit of
    /// the user's count preference, if it is not the default.
    pub(crate) flags: &'a str,
    /// The last reset of the read position.
    pub(crate) reset: Option<Reset>,
}

/// The last reset of a member's read position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reset {
    /// Its revision.
    pub(crate) stamp: u64,
    /// Each position up to this one counts, recalled or not; 0: none above the read position.
    pub(crate) unknown: u64,
}

impl Reset {
    /// Reads `reset` or `reset,unknown`; the first is the distance of its revision from `epoch`, in base 36.
    fn read(text: &str, epoch: u64) -> Result<Self> {
        let (after, unknown) = match text.split_once(',') {
            Some((after, unknown)) => (after, parse(Some(unknown))?),
            None => (text, 0),
        };
        let stamp = epoch.saturating_add(stamp(Some(after))?);
        Ok(Self { stamp, unknown })
    }

    /// Reads the reset of a record; an empty text: there was none.
    pub(crate) fn recorded(text: &str, epoch: u64) -> Result<Option<Self>> {
        match text {
            "" => Ok(None),
            text => Self::read(text, epoch).map(Some),
        }
    }
}

impl<'a> RoomRecord<'a> {
    /// Reads a record. Its numbers may contradict each other and its names may be invalid: see [`Self::sound`], [`Self::named`].
    pub(crate) fn read(record: &'a str) -> Result<Self> {
        Self::read_if(record, |_, _| true)?.ok_or_else(unreadable)
    }

    /// Reads the record of a room for a list, which shows joined and active rooms. `None` for any other room, whose record is
    /// not read to its end and may be malformed there.
    pub(crate) fn read_listed(record: &'a str) -> Result<Option<Self>> {
        Self::read_if(record, |state, active| state == 'j' && active)
    }

    /// Stops reading as soon as `wanted` is false. It is called after the state (with `true`), and again after the status.
    fn read_if(record: &'a str, wanted: fn(char, bool) -> bool) -> Result<Option<Self>> {
        let mut parts = Parts(record);
        let state = state(parts.text()?)?;
        if !wanted(state, true) {
            return Ok(None);
        }
        let (epoch, after, read) = (parts.stamp()?, parts.stamp()?, parts.position()?);
        let (head, holes, mentions) = (parts.number()?, parts.number()?, parts.number()?);
        let (kind, status) = (parts.text()?, parts.text()?);
        let active = match status {
            "1" => true,
            "0" => false,
            _ => return Err(unreadable()),
        };
        if !wanted(state, active) {
            return Ok(None);
        }
        let (custom_type, tags, peer) = (parts.text()?, parts.text()?, parts.text()?);
        let made = parse(Some(parts.text()?))?;
        let (last, flags) = match parts.0.split_once('|') {
            Some((last, flags)) => (last, Some(flags)),
            None => (parts.0, None),
        };
        let (flags, reset) = ending(flags)?;
        let rev = epoch.saturating_add(after);
        Ok(Some(Self {
            state,
            epoch,
            rev,
            read,
            head,
            holes,
            mentions,
            kind: Kind::recorded(kind)?,
            active,
            custom_type,
            tags,
            peer,
            made,
            last: Last::recorded(last, rev)?,
            flags,
            reset: Reset::recorded(reset, epoch)?,
        }))
    }

    /// Refuses numbers that contradict each other: holes and mentions are different positions above the read position.
    pub(crate) fn sound(self) -> Result<Self> {
        let above = self.above().ok_or_else(unreadable)?;
        let marked = self.holes.saturating_add(self.mentions);
        (marked <= above).then_some(self).ok_or_else(unreadable)
    }

    /// Refuses names that are not encoded in the way of this program.
    pub(crate) fn named(self) -> Result<Self> {
        let is_name = |text: &str| text.is_empty() || is_encoded(text);
        let tagged = self.tags.is_empty() || self.tags.split(',').all(is_encoded);
        (is_name(self.custom_type) && is_name(self.peer) && tagged)
            .then_some(self)
            .ok_or_else(unreadable)
    }

    /// Unread messages; 0 if the user has not joined or the room is not active.
    pub(crate) fn unread(&self) -> u64 {
        match self.counts() {
            true => self.above().unwrap_or(0).saturating_sub(self.holes),
            false => 0,
        }
    }

    /// How many positions are above the read position; `None`: it is above the head.
    fn above(&self) -> Option<u64> {
        self.head.checked_add_signed(self.read.checked_neg()?)
    }

    /// Unread messages that mention the user.
    pub(crate) fn unread_mentions(&self) -> u64 {
        if self.counts() { self.mentions } else { 0 }
    }

    /// When the room was made, in milliseconds since the Unix epoch.
    pub(crate) fn created(&self) -> i64 {
        millis(self.epoch).saturating_add(self.made)
    }

    fn counts(&self) -> bool {
        self.state == 'j' && self.active
    }
}

/// The record of a supergroup, whose head only the room knows: `state|epoch|rev|read|holes|mentions`, and where needed `|flags`
/// and `|reset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SupergroupRecord {
    /// `j` (joined) or `i` (invited).
    pub(crate) state: char,
    /// When the membership began: a stamp of the room.
    pub(crate) epoch: u64,
    /// Read position: every message up to it is read, unless the room was cleared further.
    pub(crate) read: i64,
    /// What the room adds to the user's sums.
    pub(crate) count: CountPref,
    /// Whether there are marks of edits.
    pub(crate) has_edits: bool,
    /// The last reset of the read position.
    pub(crate) reset: Option<Reset>,
}

impl SupergroupRecord {
    /// Reads a record.
    pub(crate) fn read(record: &str) -> Result<Self> {
        let mut parts = Parts(record);
        let state = state(parts.text()?)?;
        let (epoch, _after, read) = (parts.stamp()?, parts.stamp()?, parts.position()?);
        let _holes = parts.number()?;
        let (mentions, flags) = match parts.0.split_once('|') {
            Some((mentions, flags)) => (mentions, Some(flags)),
            None => (parts.0, None),
        };
        let _mentions: u64 = parse(Some(mentions))?;
        let (flags, reset) = ending(flags)?;
        let (has_edits, count) = match CountPref::at_end(flags) {
            ("", count) => (false, count),
            ("e", count) => (true, count),
            _ => return Err(unreadable()),
        };
        Ok(Self {
            state,
            epoch,
            read,
            count,
            has_edits,
            reset: Reset::recorded(reset, epoch)?,
        })
    }
}

/// The read position in a record of either form, or `None` if the record is malformed up to there.
pub(crate) fn read_position(record: &str) -> Option<i64> {
    let mut parts = Parts(record);
    for _ in 0..3 {
        parts.text().ok()?;
    }
    parts.position().ok()
}

fn state(text: &str) -> Result<char> {
    match text {
        "j" => Ok('j'),
        "i" => Ok('i'),
        _ => Err(unreadable()),
    }
}

/// The end of a record, behind its last part: flags, and the last reset. Either may be missing, but with a reset the bar of the
/// flags is there.
fn ending(text: Option<&str>) -> Result<(&str, &str)> {
    let Some(text) = text else {
        return Ok(("", ""));
    };
    let (flags, reset) = text.split_once('|').unwrap_or((text, ""));
    let has_bar = flags.len() < text.len();
    let is_right =
        (is_flags(flags) || (flags.is_empty() && has_bar)) && has_bar != reset.is_empty();
    is_right.then_some((flags, reset)).ok_or_else(unreadable)
}

/// Whether these are letters of preferences, each at most once and in their order, and perhaps the digit of a count preference.
fn is_flags(text: &str) -> bool {
    let mut letters = "hsme".chars();
    let mut flags = CountPref::at_end(text).0.chars();
    !text.is_empty() && flags.all(|flag| letters.any(|letter| letter == flag))
}

/// The part of a record that is still to be read. One answer may need thousands of records, so this allocates nothing.
struct Parts<'a>(&'a str);

impl<'a> Parts<'a> {
    fn text(&mut self) -> Result<&'a str> {
        let end = self.0.bytes().position(|byte| byte == b'|');
        let (part, rest) = end
            .and_then(|end| Some((self.0.get(..end)?, self.0.get(end + 1..)?)))
            .ok_or_else(unreadable)?;
        self.0 = rest;
        Ok(part)
    }

    fn stamp(&mut self) -> Result<u64> {
        stamp(Some(self.text()?))
    }

    /// A position, which may be below 0.
    fn position(&mut self) -> Result<i64> {
        parse(Some(self.text()?))
    }

    fn number(&mut self) -> Result<u64> {
        let part = self.text()?;
        // Sixteen digits fit into the type.
        if !(1..=16).contains(&part.len()) {
            return Err(unreadable());
        }
        let number = part.bytes().try_fold(0, |sum, byte| match byte {
            b'0'..=b'9' => Ok(sum * 10 + u64::from(byte - b'0')),
            _ => Err(unreadable()),
        })?;
        (number <= LARGEST).then_some(number).ok_or_else(unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::golden::{all, meaning};

    fn shown(reset: Option<Reset>) -> String {
        match reset {
            None => String::new(),
            Some(Reset { stamp, unknown: 0 }) => stamp.to_string(),
            Some(Reset { stamp, unknown }) => format!("{stamp},{unknown}"),
        }
    }

    #[test]
    fn golden_room_records_mean_what_the_file_says() {
        for golden in all("room") {
            let read = RoomRecord::read(golden.record).and_then(|record| record.sound()?.named());
            let record = read.unwrap_or_else(|refused| panic!("{}: {refused}", golden.record));
            let last = |part: fn(Last) -> String| record.last.map(part).unwrap_or_default();
            let got = meaning([
                ("state", record.state.to_string()),
                ("epoch", record.epoch.to_string()),
                ("revision", record.rev.to_string()),
                ("read", record.read.to_string()),
                ("head", record.head.to_string()),
                ("holes", record.holes.to_string()),
                ("mentions", record.mentions.to_string()),
                ("unread", record.unread().to_string()),
                ("kind", record.kind.as_str().to_owned()),
                ("active", u8::from(record.active).to_string()),
                ("type", record.custom_type.to_owned()),
                ("tags", record.tags.to_owned()),
                ("peer", record.peer.to_owned()),
                ("created", record.created().to_string()),
                ("accepted", last(|last| last.at.to_string())),
                ("newest", last(|last| last.newest.to_string())),
                ("time", last(|last| last.time.to_string())),
                ("flags", record.flags.to_owned()),
                ("reset", shown(record.reset)),
            ]);
            assert_eq!(got, golden.meaning, "{}", golden.record);
            assert_eq!(read_position(golden.record), Some(record.read));
            // A list of rooms reads those that are joined and active, and reads them in the same way.
            let listed = RoomRecord::read_listed(golden.record).unwrap();
            let is_listed = record.state == 'j' && record.active;
            assert_eq!(listed, is_listed.then_some(record));
        }
    }

    #[test]
    fn golden_supergroup_records_mean_what_the_file_says() {
        for golden in all("supergroup") {
            let record = SupergroupRecord::read(golden.record).unwrap();
            let mut expected = golden.meaning;
            // This reader passes over the other parts; it only checks their form.
            expected.retain(|name, _| ["state", "epoch", "read", "flags", "reset"].contains(name));
            let got = meaning([
                ("state", record.state.to_string()),
                ("epoch", record.epoch.to_string()),
                ("read", record.read.to_string()),
                (
                    "flags",
                    format!(
                        "{}{}",
                        if record.has_edits { "e" } else { "" },
                        record.count.recorded()
                    ),
                ),
                ("reset", shown(record.reset)),
            ]);
            assert_eq!(got, expected, "{}", golden.record);
            assert_eq!(read_position(golden.record), Some(record.read));
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for golden in all("no-room") {
            let read = RoomRecord::read(golden.record).and_then(RoomRecord::named);
            assert!(read.is_err(), "{}", golden.record);
        }
        for golden in all("no-supergroup") {
            let read = SupergroupRecord::read(golden.record);
            assert!(read.is_err(), "{}", golden.record);
        }
    }
}
