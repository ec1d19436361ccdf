//! A user's record of a room: its one reader, which borrows from the text. `deliver.lua` writes the records and explains them.
//!
//! The audit has a second reader (`audit/position.rs`), written from the definition and not from this one, so that each finds
//! the other's faults. The lines in `lua/records.txt` hold both to the same reading.

use crate::counts::Kind;
use crate::counts::number::{LARGEST, parse, stamp, unreadable};
use crate::counts::room::{Last, millis};
use crate::error::Result;
use crate::keys::is_encoded;

/// The record of a direct room or group:
/// `state|epoch|rev|read|head|holes|mentions|kind|status|type|tags|peer|made|last`, and `|flags` if there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoomRecord<'a> {
    /// `j` (joined) or `i` (invited).
    pub(crate) state: char,
    /// When the membership began: a stamp of the room.
    pub(crate) epoch: u64,
    /// Revision of the room that was delivered last.
    pub(crate) rev: u64,
    /// Read position: every message up to it is read.
    pub(crate) read: u64,
    /// Position of the room's last message, as of `rev`.
    pub(crate) head: u64,
    /// Positions above `read` that don't count.
    pub(crate) holes: u64,
    /// Positions above `read` that mention the user.
    pub(crate) mentions: u64,
    pub(crate) kind: Kind,
    pub(crate) active: bool,
    /// Encoded; empty if none.
    pub(crate) custom_type: &'a str,
    /// Encoded, with commas between.
    pub(crate) tags: &'a str,
    /// Encoded; of a direct room.
    peer: &'a str,
    /// When the room was made, in milliseconds after `epoch`.
    made: i64,
    pub(crate) last: Option<Last>,
    /// Which of the user's settings are true: some of `hsm`, in that order.
    pub(crate) flags: &'a str,
}

impl<'a> RoomRecord<'a> {
    /// Reads a record; it may contradict itself and hold names that are none.
    pub(crate) fn read(record: &'a str) -> Result<Self> {
        Self::read_if(record, |_, _| true)?.ok_or_else(unreadable)
    }

    /// The same of a room that is listed: joined and active. Of another one the rest is not read, and so need not be in form.
    pub(crate) fn read_listed(record: &'a str) -> Result<Option<Self>> {
        Self::read_if(record, |state, active| state == 'j' && active)
    }

    /// Stops at a room that is not wanted, which is known first by its state alone.
    fn read_if(record: &'a str, wanted: fn(char, bool) -> bool) -> Result<Option<Self>> {
        let mut parts = Parts(record);
        let state = state(parts.text()?)?;
        if !wanted(state, true) {
            return Ok(None);
        }
        let (epoch, after, read) = (parts.stamp()?, parts.stamp()?, parts.number()?);
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
        if flags.is_some_and(|flags| !is_flags(flags)) {
            return Err(unreadable());
        }
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
            flags: flags.unwrap_or_default(),
        }))
    }

    /// Refuses numbers that can't be those of one membership: holes and mentions are among what is unread.
    pub(crate) fn sound(self) -> Result<Self> {
        let above = self.head.checked_sub(self.read).ok_or_else(unreadable)?;
        let marked = self.holes.saturating_add(self.mentions);
        (marked <= above).then_some(self).ok_or_else(unreadable)
    }

    /// Refuses names that this program does not write.
    pub(crate) fn named(self) -> Result<Self> {
        let is_name = |text: &str| text.is_empty() || is_encoded(text);
        let tagged = self.tags.is_empty() || self.tags.split(',').all(is_encoded);
        (is_name(self.custom_type) && is_name(self.peer) && tagged)
            .then_some(self)
            .ok_or_else(unreadable)
    }

    /// Unread messages; 0 of a room that the user has not joined or that is not active.
    pub(crate) fn unread(&self) -> u64 {
        match self.counts() {
            true => self
                .head
                .saturating_sub(self.read)
                .saturating_sub(self.holes),
            false => 0,
        }
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

/// The record of a supergroup, whose head only the room knows: `state|epoch|rev|read|holes|mentions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SupergroupRecord {
    /// `j` (joined) or `i` (invited).
    pub(crate) state: char,
    /// When the membership began: a stamp of the room.
    pub(crate) epoch: u64,
    /// Read position: every message up to it is read.
    pub(crate) read: u64,
}

impl SupergroupRecord {
    /// Reads a record.
    pub(crate) fn read(record: &str) -> Result<Self> {
        let mut parts = Parts(record);
        let state = state(parts.text()?)?;
        let (epoch, _after, read) = (parts.stamp()?, parts.stamp()?, parts.number()?);
        let _holes = parts.number()?;
        let _mentions: u64 = parse(Some(parts.0))?;
        Ok(Self { state, epoch, read })
    }
}

/// The read position that stands in a record of either form, if the record is in form up to there.
pub(crate) fn read_position(record: &str) -> Option<u64> {
    let mut parts = Parts(record);
    for _ in 0..3 {
        parts.text().ok()?;
    }
    parts.number().ok()
}

fn state(text: &str) -> Result<char> {
    match text {
        "j" => Ok('j'),
        "i" => Ok('i'),
        _ => Err(unreadable()),
    }
}

/// Whether these are some of the letters of settings, in their order.
fn is_flags(text: &str) -> bool {
    let mut letters = "hsm".chars();
    let mut flags = text.chars();
    !text.is_empty() && flags.all(|flag| letters.any(|letter| letter == flag))
}

/// What is left of a record, to be read from the front. Thousands are read for one answer.
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

    fn number(&mut self) -> Result<u64> {
        let part = self.text()?;
        // So many digits can't be too large for the type.
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
