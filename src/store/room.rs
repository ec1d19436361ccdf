//! What a room's slot says: snapshots, members' entries, and the records of fan-outs that have not reached everybody.

use std::time::Instant;

use super::form;
use super::reply::{Reply, count, maybe_text, parse, stamp, unreadable};
use crate::error::{Error, Result};
use crate::keys::Enc;

/// The room as it was at one instant, in the words of the scripts.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    /// When this pod got it.
    pub(super) since: Instant,
    /// Microseconds of the room's server clock.
    pub(super) taken: u64,
    pub(super) rev: u64,
    pub(super) head: u64,
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) custom_type: String,
    pub(super) tags: String,
    /// Revision at which the room was made; 0: there is no room.
    pub(super) born: u64,
    /// Version of the list of members; only the same list has the same one.
    pub(super) mrev: String,
    /// Milliseconds since the epoch.
    pub(super) created: u64,
    pub(super) last: Option<Last>,
}

/// When the room's last message was accepted (microseconds; the order among all messages), and its time (milliseconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) time: i64,
    pub(super) at: u64,
    /// When the newest message was accepted: later than `at` if its time did not let it take the place of the last one.
    pub(super) newest: u64,
}

impl Last {
    /// Reads `last_at, last_time`.
    pub(super) fn read(reply: &mut Reply) -> Result<Option<Self>> {
        let (at, time) = (maybe_text(reply.value()?)?, maybe_text(reply.value()?)?);
        Self::stored(&at.unwrap_or_default(), &time.unwrap_or_default())
    }

    /// Reads them as they stand in the room: `at` or `at,newest`, and the time; nothing is no message.
    pub(super) fn stored(at: &str, time: &str) -> Result<Option<Self>> {
        let number = |text: &str| match text {
            "" => Ok(0),
            text => count(text),
        };
        let (at, newest) = at.split_once(',').unwrap_or((at, at));
        let (at, newest) = (number(at)?, number(newest)?);
        let time = i64::try_from(number(time)?).map_err(|_| unreadable())?;
        Ok((at != 0).then_some(Self { time, at, newest }))
    }

    /// `at` as it stands in the room.
    pub(super) fn accepted(self) -> String {
        match self.newest > self.at {
            true => format!("{},{}", self.at, self.newest),
            false => self.at.to_string(),
        }
    }

    /// What messages are ordered by.
    pub(super) fn order(self) -> (i64, u64) {
        (self.time, self.at)
    }

    /// As it stands in the record of revision `rev`: `rev - at,time - at`, in microseconds and milliseconds, which are
    /// small numbers, and `,newest - at` if that is not 0.
    pub(super) fn record(self, rev: u64) -> String {
        let back = rev.saturating_sub(self.at);
        let after = self.time - millis(self.at);
        match self.newest.saturating_sub(self.at) {
            0 => format!("{back},{after}"),
            later => format!("{back},{after},{later}"),
        }
    }

    /// Reads it there; an empty text is no message.
    pub(super) fn recorded(text: &str, rev: u64) -> Result<Option<Self>> {
        if text.is_empty() {
            return Ok(None);
        }
        let (back, after) = text.split_once(',').ok_or_else(unreadable)?;
        let (after, later) = match after.split_once(',') {
            Some((after, later)) => (after, parse(Some(later))?),
            None => (after, 0),
        };
        let at = rev.saturating_sub(parse(Some(back))?);
        let after: i64 = parse(Some(after))?;
        let time = millis(at).saturating_add(after);
        let newest = at.saturating_add(later);
        Ok(Some(Self { time, at, newest }))
    }
}

/// The millisecond of a stamp.
pub(super) fn millis(micros: u64) -> i64 {
    i64::try_from(micros / 1_000).unwrap_or(i64::MAX)
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            taken: 0,
            rev: 0,
            head: 0,
            kind: String::new(),
            status: String::new(),
            custom_type: String::new(),
            tags: String::new(),
            born: 0,
            mrev: String::new(),
            created: 0,
            last: None,
        }
    }
}

impl Snapshot {
    /// Reads `now, rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time`.
    pub(super) fn read(reply: &mut Reply) -> Result<Self> {
        let read = Self {
            since: Instant::now(),
            taken: reply.number()?,
            rev: reply.number()?,
            head: reply.number()?,
            kind: maybe_text(reply.value()?)?.unwrap_or_default(),
            status: maybe_text(reply.value()?)?.unwrap_or_default(),
            custom_type: maybe_text(reply.value()?)?.unwrap_or_default(),
            tags: maybe_text(reply.value()?)?.unwrap_or_default(),
            born: reply.number()?,
            mrev: maybe_text(reply.value()?)?.unwrap_or_default(),
            created: reply.number()?,
            last: Last::read(reply)?,
        };
        form::settings(&read).map_err(Error::unreadable)?;
        Ok(read)
    }

    /// What is told of it: a room that is not there is told as one that is gone.
    pub(super) fn or_gone(self) -> Self {
        match self.born {
            0 => Self::gone(self.taken),
            _ => self,
        }
    }

    /// What is told of a room that is gone.
    pub(super) fn gone(taken: u64) -> Self {
        Self {
            taken,
            kind: "group".into(),
            status: "0".into(),
            ..Self::default()
        }
    }
}

/// A member's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// `j`, `i` or `l`.
    pub(super) state: char,
    pub(super) epoch: u64,
    /// The read position to begin with; of somebody who left: the epoch of the membership that ended, 0 if the user was
    /// deleted.
    pub(super) base: u64,
    /// What the user's slot named when it refused the membership, and what the room has said since that it comes after.
    pub(super) vouched: Option<u64>,
    /// The stamp above which the room's fan-outs are this membership's, if that is not its epoch.
    pub(super) since: Option<u64>,
}

impl Entry {
    /// `state|epoch|base`, stamps in base 36, and `|vouched|since` where they are known, in decimal.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut parts = text.split('|');
        let (state, epoch) = (parse(parts.next())?, stamp(parts.next())?);
        let base = parts.next();
        let base = match state {
            'l' => stamp(base)?,
            'j' | 'i' => parse(base)?,
            _ => return Err(unreadable()),
        };
        let mut more = || match parts.next() {
            None | Some("") => Ok(None),
            more => parse(more).map(Some),
        };
        let (vouched, since) = (more()?, more()?);
        if parts.next().is_some() {
            return Err(unreadable());
        }
        Ok(Self {
            state,
            epoch,
            base,
            vouched,
            since,
        })
    }

    /// Whether a fan-out of that stamp is this membership's: what happened before it began is none of its business.
    pub(super) fn owns(&self, stamp: u64) -> bool {
        stamp > self.since.unwrap_or(self.epoch)
    }

    /// Whether this is a membership of the room that was made at `born`.
    pub(super) fn is_member(&self, born: u64) -> bool {
        self.state != 'l' && born != 0 && self.epoch >= born
    }

    pub(super) fn is_joined(&self, born: u64) -> bool {
        self.state == 'j' && self.is_member(born)
    }
}

/// Whom a fan-out is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Audience {
    /// Every member.
    All,
    /// These, and whom the act names.
    Some(Vec<Enc>),
    /// Everybody whose membership is older than the deletion of the room.
    Gone,
    /// (In a user's slot) the rooms that a deleted user still has to leave, and the epoch of the membership that ends; a
    /// record of an earlier version has no epoch.
    Leave(Vec<(Enc, Option<u64>)>),
}

/// What a fan-out carries beside the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    Message {
        at: u64,
        /// What the message is to its sender: `r` read up to here, `h` does not count, `q` nothing; `n`: the sender has not
        /// joined.
        own: char,
        sender: Option<Enc>,
        everybody: bool,
        mentions: Vec<Enc>,
        /// The two whom it brings into their direct room, and the position to begin with.
        brings: Option<(Vec<Enc>, u64)>,
    },
    Recall(u64),
    Read(u64),
    /// Lines of field and JSON value in turn.
    Prefs(String),
}

impl Act {
    /// Whether it only moves positions.
    pub(super) fn only_moves(&self) -> bool {
        match self {
            Act::Message { everybody, .. } => !everybody,
            Act::Read(_) => true,
            _ => false,
        }
    }
}

/// A fan-out: recorded with the event, cleared when it has reached everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) stamp: u64,
    pub(super) audience: Audience,
    pub(super) act: Act,
}

/// The names of a comma list.
pub(super) fn names(list: &str) -> Vec<Enc> {
    list.split(',')
        .filter(|n| !n.is_empty())
        .map(Enc::stored)
        .collect()
}

/// Rooms and epochs, `room:epoch`.
fn left(list: &str) -> Result<Vec<(Enc, Option<u64>)>> {
    let rooms = list.split(',').filter(|room| !room.is_empty());
    let room = |text: &str| match text.split_once(':') {
        Some((room, epoch)) => Ok((Enc::stored(room), Some(stamp(Some(epoch))?))),
        None => Ok((Enc::stored(text), None)),
    };
    rooms.map(room).collect()
}

impl Job {
    /// Reads a job's id and record; an empty id is no job.
    pub(super) fn read(reply: &mut Reply) -> Result<Option<Self>> {
        let (id, record) = (reply.text()?, reply.text()?);
        if id.is_empty() || record.is_empty() {
            return Ok(None);
        }
        Self::parse(&id, &record).map(Some)
    }

    /// Lines: end of the lease, audience, names, act.
    pub(super) fn parse(id: &str, record: &str) -> Result<Self> {
        let mut lines = record.splitn(4, '\n').skip(1);
        let audience = lines.next().unwrap_or_default();
        let listed = lines.next().unwrap_or_default();
        let act = lines.next().unwrap_or_default();
        let audience = match audience {
            "all" => Audience::All,
            "gone" => Audience::Gone,
            "leave" => Audience::Leave(left(listed)?),
            "some" => Audience::Some(names(listed)),
            _ => return Err(unreadable()),
        };
        let (letter, rest) = act.split_once('|').unwrap_or((act, ""));
        let act = match letter {
            "" => Act::Nothing,
            "c" => Act::Recall(parse(Some(rest))?),
            "r" => Act::Read(parse(Some(rest))?),
            "p" => Act::Prefs(rest.to_owned()),
            "m" => {
                let mut parts = rest.split('|');
                let at = parse(parts.next())?;
                let own = parse(parts.next())?;
                let sender = parts.next().filter(|s| !s.is_empty()).map(Enc::stored);
                let mentions = parts.next().unwrap_or_default();
                Act::Message {
                    at,
                    own,
                    sender,
                    everybody: mentions == "*",
                    mentions: if mentions == "*" {
                        Vec::new()
                    } else {
                        names(mentions)
                    },
                    brings: match (parts.next(), parts.next()) {
                        (Some(two), Some(base)) => Some((names(two), parse(Some(base))?)),
                        _ => None,
                    },
                }
            }
            _ => return Err(unreadable()),
        };
        Ok(Self {
            stamp: parse(Some(id))?,
            audience,
            act,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_message_is_small_in_a_record() {
        let last = Last {
            time: 1_795_350_735_079,
            at: 1_795_350_735_089_094,
            newest: 1_795_350_735_089_094,
        };
        let late = Last {
            newest: last.at + 70,
            ..last
        };
        for (last, rev, text) in [
            (last, last.at, "0,-10"),
            (last, last.at + 3_000_000, "3000000,-10"),
            (late, last.at + 70, "70,-10,70"),
        ] {
            assert_eq!(last.record(rev), text);
            assert_eq!(Last::recorded(text, rev).unwrap(), Some(last));
            let stored = Last::stored(&last.accepted(), "1795350735079");
            assert_eq!(stored.unwrap(), Some(last));
        }
        assert_eq!(late.accepted(), "1795350735089094,1795350735089164");
        assert_eq!(Last::recorded("", 5).unwrap(), None);
        assert_eq!(Last::stored("", "").unwrap(), None);
        for bad in ["1", "-1,0", "x,0", "0,", "0,0,", "0,0,-1", "0,0,0,0"] {
            assert!(Last::recorded(bad, 5).is_err(), "{bad}");
        }
        for bad in ["x", "5,6,7", "-5", "5,x"] {
            assert!(Last::stored(bad, "1").is_err(), "{bad}");
        }
    }

    #[test]
    fn records_of_the_scripts_can_be_read() {
        let job = Job::parse("17", "99\nsome\n\nm|4|h|bob|a,c").unwrap();
        assert_eq!(job.audience, Audience::Some(vec![]));
        assert_eq!(
            job.act,
            Act::Message {
                at: 4,
                own: 'h',
                sender: Some(Enc::stored("bob")),
                everybody: false,
                mentions: vec![Enc::stored("a"), Enc::stored("c")],
                brings: None,
            }
        );
        let job = Job::parse("17", "99\nall\n\nm|4|r|bob||al,bob|3").unwrap();
        assert!(matches!(job.act, Act::Message { brings: Some((two, 3)), .. } if two.len() == 2));
        assert_eq!(
            Job::parse("17", "99\nleave\na:7,b").unwrap().audience,
            Audience::Leave(vec![(Enc::stored("a"), Some(7)), (Enc::stored("b"), None)])
        );
        assert_eq!(Job::parse("17", "99\nall").unwrap().act, Act::Nothing);
        assert_eq!(
            Job::parse("17", "99\nsome\nbob\np|hidden\ntrue")
                .unwrap()
                .act,
            Act::Prefs("hidden\ntrue".into())
        );
        assert!(Job::parse("17", "99\nnobody").is_err());
        assert!(Job::parse("x", "99\nall").is_err());
    }
}
