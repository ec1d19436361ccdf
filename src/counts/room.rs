//! What a room's slot holds: memberships, the last message, and the jobs that have not reached their whole audience.

#[cfg(test)]
mod tests;

mod edit;

use crate::counts::number::{Stored as _, count, parse, stamp, unreadable, whole_number};
use crate::error::Result;
use crate::keys::Enc;

pub(crate) use self::edit::{Before, Named};

/// The moments of a room's last message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Last {
    /// Its time, in milliseconds.
    pub(crate) time: i64,
    /// When the room accepted it, in microseconds.
    pub(crate) at: u64,
    /// When the room accepted its newest message. This is later than `at` if the newest message is not the last one, because
    /// its time is earlier.
    pub(crate) newest: u64,
}

impl Last {
    /// Reads two fields of the room's meta: `at` or `at,newest`, and the time. `None` if there is no message.
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

    /// `at`, or `at,newest`, as it stands in the room's meta.
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

    /// As it stands in a record of revision `rev`: `rev - at` in microseconds, `time - at` in milliseconds, and, if it is not 0,
    /// `newest - at` in microseconds. These differences are small numbers, which keeps records short.
    pub(crate) fn record(self, rev: u64) -> String {
        let back = rev.saturating_sub(self.at);
        let after = self.time - millis(self.at);
        match self.newest.saturating_sub(self.at) {
            0 => format!("{back},{after}"),
            later => format!("{back},{after},{later}"),
        }
    }

    /// Reads it from a record of revision `rev`; an empty text means no message.
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

/// A user's entry in the list of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Membership {
    /// `j` joined, `i` invited, `l` left.
    pub(crate) state: char,
    pub(crate) epoch: u64,
    /// The read position with which the membership begins. In state `l`: the epoch of the membership that ended, or 0 if the
    /// user was deleted.
    pub(crate) base: u64,
    /// The stamp that the user's slot named when it refused the membership. The room has decided since that the membership
    /// comes after it.
    pub(crate) vouched: Option<u64>,
    /// The stamp above which the room's jobs are for this membership, if it is not the epoch.
    pub(crate) since: Option<u64>,
    /// The revision of the last reset of the read position.
    pub(crate) reset: Option<u64>,
}

/// How many digits an epoch has that stands first in an entry.
const EPOCH_DIGITS: usize = 10;
/// How many digits the base behind it has at most.
const BASE_DIGITS: usize = 15;

impl Membership {
    /// Reads `state|epoch|base`, stamps in base 36, and `|vouched|since|reset`, in decimal, where they are known; or, of a user
    /// who has joined, `epoch|base` or `epoch`, as `lua/lib/entry.lua` says.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (first, base) = text.split_once('|').unwrap_or((text, "0"));
        let is_epoch = first.len() == EPOCH_DIGITS
            && first.starts_with(|first: char| first.is_ascii_lowercase());
        if is_epoch && base.len() <= BASE_DIGITS {
            return Ok(Self {
                state: 'j',
                epoch: stamp(Some(first))?,
                base: parse(Some(base))?,
                vouched: None,
                since: None,
                reset: None,
            });
        }
        let mut parts = text.split('|');
        let (state, epoch) = (parse(parts.next())?, stamp(parts.next())?);
        let base = parts.next();
        let base = match state {
            'l' => stamp(base)?,
            // Behind it may stand h: the user has read or sent anything since joining; and when the last read by arrival was.
            'j' | 'i' => parse(base.and_then(|base| base.split('h').next()))?,
            _ => return Err(unreadable()),
        };
        let mut more = || match parts.next() {
            None | Some("") => Ok(None),
            more => parse(more).map(Some),
        };
        let (vouched, since, reset) = (more()?, more()?, more()?);
        if parts.next().is_some() {
            return Err(unreadable());
        }
        Ok(Self {
            state,
            epoch,
            base,
            vouched,
            since,
            reset,
        })
    }

    /// The stamp above which marks and clearings are later than this membership's beginning and its last reset.
    pub(crate) fn marked_since(&self) -> u64 {
        self.reset.unwrap_or(self.epoch).max(self.epoch)
    }

    /// Whether the job of that stamp is for this membership: the one that began it, or a later one.
    pub(crate) fn owns(&self, stamp: u64) -> bool {
        stamp == self.epoch || stamp > self.since.unwrap_or(self.epoch)
    }

    /// Whether this is a membership of the room that was made at `born`.
    pub(crate) fn is_member(&self, born: u64) -> bool {
        self.state != 'l' && born != 0 && self.epoch >= born
    }

    pub(crate) fn is_joined(&self, born: u64) -> bool {
        self.state == 'j' && self.is_member(born)
    }
}

/// Whom a job is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Every member.
    All,
    /// These users, and those whom the act names.
    Some(Vec<Enc>),
    /// Who has joined and has had a reset, and those whom the act names.
    Reset,
    /// Everybody who was in a deleted room.
    Gone,
    /// In a user's slot: the rooms that a deleted user still has to leave, and the epoch of the membership that ends. An earlier
    /// version wrote no epoch.
    Leave(Vec<(Enc, Option<u64>)>),
}

/// What a job brings beside the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    Nothing,
    Message {
        at: u64,
        /// What the message is to its sender: `r` read up to here, `h` a hole, `q` nothing; `n` the sender has not joined.
        own: char,
        sender: Option<Enc>,
        everybody: bool,
        mentions: Vec<Enc>,
        /// The pair that the message lets into its direct room, and the base of their memberships.
        brings: Option<(Vec<Enc>, u64)>,
        /// Members for whom the message does not count.
        except: Vec<Enc>,
    },
    /// An edit changes whom a message mentions.
    Edit {
        at: u64,
        /// Whom the message mentions that it did not mention before, users or everybody; of a supergroup also whom it still
        /// mentions, now by name. Where `off` is everybody, also those for whom nothing changes.
        on: Named,
        /// Whom it no longer mentions; of a supergroup also whom it still mentions, now by everybody. Where `on` is everybody,
        /// also those for whom nothing changes.
        off: Named,
    },
    Recall(u64),
    /// Up to which position; and of members who read up to another one, since they read the message there on arrival: that one;
    /// or none, if the read is older than their last reset.
    Read(u64, Vec<(Enc, Option<u64>)>),
    /// Memberships that were placed by their time begin before these messages: of each user the holes and the mentions.
    Placed(Vec<(Enc, Vec<u64>, Vec<u64>)>),
    /// The deleted user leaves as of that time.
    AsOf(i64),
    /// A reset of the read position, as `deliver.lua` takes it.
    Reset(String),
    /// Lines of name and JSON value in turn.
    Prefs(String),
}

impl Act {
    /// The position of the message that it is about: one that was sent, or edited.
    pub(crate) fn message(&self) -> Option<u64> {
        match self {
            Act::Message { at, .. } | Act::Edit { at, .. } => Some(*at),
            _ => None,
        }
    }

    /// Whether the marks of this act only move positions.
    pub(crate) fn only_moves(&self) -> bool {
        match self {
            Act::Message { everybody, .. } => !everybody,
            Act::Read(..) => true,
            _ => false,
        }
    }
}

/// What a room still has to tell its members after a change. It is written with the event, and cleared when everybody has it.
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

/// The positions of a comma list.
fn positions(list: &str) -> Result<Vec<u64>> {
    let digits = list.split(',').filter(|digits| !digits.is_empty());
    digits.map(|digits| parse(Some(digits))).collect()
}

/// The position of a message in a room's log, `rev|position|time|id`; 0 for a silent message.
pub(crate) fn logged_position(line: &str) -> Option<u64> {
    line.split('|').nth(1).and_then(whole_number)
}

/// Up to which position a member of a supergroup has read it at least by clearings after the stamp `since`, by the field
/// `cleared` of its meta, as `lua/lib/cleared.lua` says: a comma list of `rev|position`. Of several positions with `;` between them
/// each holds for some members. `exempt`: the revisions of clearings that are too old for the member.
pub(crate) fn cleared_up_to(list: &str, since: u64, exempt: &str) -> Option<u64> {
    let cleared = list.split(',').filter_map(|one| one.split_once('|'));
    let position = |to: &str| whole_number(to.rsplit(':').next().unwrap_or_default());
    let lowest = |to: &str| to.split(';').filter_map(position).min();
    let numbers = cleared.filter_map(|(rev, to)| Some((whole_number(rev)?, lowest(to)?)));
    let is_exempt = |rev: u64| exempt.split(',').any(|one| whole_number(one) == Some(rev));
    let owned = numbers.filter(|(rev, _)| since < *rev && !is_exempt(*rev));
    owned.map(|(_, to)| to).max()
}

/// The revisions of clearings that are too old for a member, of what `lua/lib/arrived.lua` keeps of the member's resets.
pub(crate) fn exempt_from(resets: &str) -> &str {
    resets.rsplit('|').next().unwrap_or_default()
}

/// Whether a reset is in the form in which `read_reset.lua` writes it and `deliver.lua` takes it.
fn is_reset(text: &str) -> bool {
    let parts: Vec<&str> = text.split('|').collect();
    let [how, to, top, unknown, most, cleared, lists @ ..] = parts.as_slice() else {
        return false;
    };
    let is_list =
        |list: &&str| list.is_empty() || list.split(',').all(|at| whole_number(at).is_some());
    let is_number = |text: &&str| text.is_empty() || whole_number(text).is_some();
    matches!(*how, "u" | "n")
        && i64::stored(to).is_some()
        && whole_number(top).is_some()
        && [unknown, most, cleared].into_iter().all(is_number)
        && matches!(lists.len(), 4 | 6)
        && lists.iter().all(is_list)
}

/// Reads a comma list of `room:epoch`.
fn leaving(list: &str) -> Result<Vec<(Enc, Option<u64>)>> {
    let rooms = list.split(',').filter(|room| !room.is_empty());
    let room = |text: &str| match text.split_once(':') {
        Some((room, epoch)) => Ok((Enc::stored(room), Some(stamp(Some(epoch))?))),
        None => Ok((Enc::stored(text), None)),
    };
    rooms.map(room).collect()
}

impl Job {
    /// Reads the lines of a record: end of the lease, audience, names, act. `id` is the job's stamp.
    pub(crate) fn parse(id: &str, record: &str) -> Result<Self> {
        let mut lines = record.splitn(4, '\n').skip(1);
        let audience = lines.next().unwrap_or_default();
        let listed = lines.next().unwrap_or_default();
        let act = lines.next().unwrap_or_default();
        let audience = match audience {
            "all" => Audience::All,
            "gone" => Audience::Gone,
            "reset" => Audience::Reset,
            "leave" => Audience::Leave(leaving(listed)?),
            "some" => Audience::Some(names(listed)),
            _ => return Err(unreadable()),
        };
        let (letter, rest) = act.split_once('|').unwrap_or((act, ""));
        let act = match letter {
            "" => Act::Nothing,
            "e" => {
                let mut parts = rest.split('|');
                let at = parse(parts.next())?;
                let (Some(on), Some(off), None) = (parts.next(), parts.next(), parts.next()) else {
                    return Err(unreadable());
                };
                Act::Edit {
                    at,
                    on: Named::parse(on),
                    off: Named::parse(off),
                }
            }
            "c" => Act::Recall(parse(Some(rest))?),
            "r" => {
                let (to, but) = rest.split_once('|').unwrap_or((rest, ""));
                let but = but.split(',').filter(|one| !one.is_empty()).map(|one| {
                    let (user, to) = one.split_once(':').ok_or_else(unreadable)?;
                    let to = match to {
                        "" => None,
                        to => Some(parse(Some(to))?),
                    };
                    Ok((Enc::stored(user), to))
                });
                Act::Read(parse(Some(to))?, but.collect::<Result<_>>()?)
            }
            "j" => {
                let placed = rest.split('|').map(|one| {
                    let mut parts = one.split(':');
                    let (Some(user), Some(holes), Some(mentions), None) =
                        (parts.next(), parts.next(), parts.next(), parts.next())
                    else {
                        return Err(unreadable());
                    };
                    Ok((Enc::stored(user), positions(holes)?, positions(mentions)?))
                });
                Act::Placed(placed.collect::<Result<_>>()?)
            }
            "t" => Act::AsOf(parse(Some(rest))?),
            "b" if is_reset(rest) => Act::Reset(rest.to_owned()),
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
                        (Some(two), Some(base)) if !two.is_empty() => {
                            Some((names(two), parse(Some(base))?))
                        }
                        _ => None,
                    },
                    except: names(parts.next().unwrap_or_default()),
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
