//! What a room's slot says: memberships, the last message, and the fan-outs that have not reached everybody.

use crate::counts::number::{count, parse, stamp, unreadable, whole};
use crate::error::Result;
use crate::keys::Enc;

/// When the room's last message was accepted (microseconds; the order among all messages), and its time (milliseconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) time: i64,
    pub(crate) at: u64,
    /// When the newest message was accepted: later than `at` if its time did not let it take the place of the last one.
    pub(crate) newest: u64,
}

impl Last {
    /// Reads them as they stand in the room: `at` or `at,newest`, and the time; nothing is no message.
    pub(crate) fn stored(at: &str, time: &str) -> Result<Option<Self>> {
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
    pub(crate) fn accepted(self) -> String {
        match self.newest > self.at {
            true => format!("{},{}", self.at, self.newest),
            false => self.at.to_string(),
        }
    }

    /// What messages are ordered by.
    pub(crate) fn order(self) -> (i64, u64) {
        (self.time, self.at)
    }

    /// As it stands in the record of revision `rev`: `rev - at,time - at`, in microseconds and milliseconds, which are
    /// small numbers, and `,newest - at` if that is not 0.
    pub(crate) fn record(self, rev: u64) -> String {
        let back = rev.saturating_sub(self.at);
        let after = self.time - millis(self.at);
        match self.newest.saturating_sub(self.at) {
            0 => format!("{back},{after}"),
            later => format!("{back},{after},{later}"),
        }
    }

    /// Reads it there; an empty text is no message.
    pub(crate) fn recorded(text: &str, rev: u64) -> Result<Option<Self>> {
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
pub(crate) fn millis(micros: u64) -> i64 {
    i64::try_from(micros / 1_000).unwrap_or(i64::MAX)
}

/// A member's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Membership {
    /// `j`, `i` or `l`.
    pub(crate) state: char,
    pub(crate) epoch: u64,
    /// The read position to begin with; of somebody who left: the epoch of the membership that ended, 0 if the user was
    /// deleted.
    pub(crate) base: u64,
    /// What the user's slot named when it refused the membership, and what the room has said since that it comes after.
    pub(crate) vouched: Option<u64>,
    /// The stamp above which the room's fan-outs are this membership's, if that is not its epoch.
    pub(crate) since: Option<u64>,
}

impl Membership {
    /// `state|epoch|base`, stamps in base 36, and `|vouched|since` where they are known, in decimal.
    pub(crate) fn parse(text: &str) -> Result<Self> {
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
    pub(crate) fn owns(&self, stamp: u64) -> bool {
        stamp > self.since.unwrap_or(self.epoch)
    }

    /// Whether this is a membership of the room that was made at `born`.
    pub(crate) fn is_member(&self, born: u64) -> bool {
        self.state != 'l' && born != 0 && self.epoch >= born
    }

    pub(crate) fn is_joined(&self, born: u64) -> bool {
        self.state == 'j' && self.is_member(born)
    }
}

/// Whom a fan-out is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Audience {
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
pub(crate) enum Act {
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
    pub(crate) fn only_moves(&self) -> bool {
        match self {
            Act::Message { everybody, .. } => !everybody,
            Act::Read(_) => true,
            _ => false,
        }
    }
}

/// A fan-out: recorded with the event, cleared when it has reached everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) stamp: u64,
    pub(crate) audience: Audience,
    pub(crate) act: Act,
}

/// The names of a comma list.
pub(crate) fn names(list: &str) -> Vec<Enc> {
    list.split(',')
        .filter(|n| !n.is_empty())
        .map(Enc::stored)
        .collect()
}

/// The position of a message in a room's log, `rev|position|time|id`; 0: it does not count.
pub(crate) fn logged_position(line: &str) -> Option<u64> {
    line.split('|').nth(1).and_then(whole)
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
    /// Lines: end of the lease, audience, names, act.
    pub(crate) fn parse(id: &str, record: &str) -> Result<Self> {
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
