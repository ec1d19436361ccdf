//! What the scripts answer of a room: the snapshot, and the fan-out that they recorded.

use std::time::Instant;

use crate::counts::Kind;
use crate::counts::room::{Job, Last};
use crate::engine::reply::{Reply, maybe_text};
use crate::error::{Error, Result};
use crate::keys::is_encoded;

/// The room as it was at one instant, in the words of the scripts.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// When this pod got it.
    pub(crate) since: Instant,
    /// Microseconds of the room's server clock.
    pub(crate) taken: u64,
    pub(crate) rev: u64,
    pub(crate) head: u64,
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) custom_type: String,
    pub(crate) tags: String,
    /// Revision at which the room was made; 0: there is no room.
    pub(crate) born: u64,
    /// Version of the list of members; only the same list has the same one.
    pub(crate) mrev: String,
    /// Milliseconds since the epoch.
    pub(crate) created: u64,
    pub(crate) last: Option<Last>,
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
    pub(crate) fn read(reply: &mut Reply) -> Result<Self> {
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
        read.check()?;
        Ok(read)
    }

    /// Refuses settings that no script writes: a delivery would spread them. Where there is no room they may be empty.
    fn check(&self) -> Result<()> {
        let there = self.born != 0;
        let is_list = |list: &str| list.is_empty() || list.split(',').all(is_encoded);
        if there || !self.kind.is_empty() {
            Kind::stored(&self.kind)?;
        }
        if (there || !self.status.is_empty()) && !matches!(self.status.as_str(), "0" | "1") {
            return Err(Error::unreadable("neither 0 nor 1"));
        }
        match (self.custom_type.is_empty() || is_encoded(&self.custom_type)) && is_list(&self.tags)
        {
            true => Ok(()),
            false => Err(Error::unreadable("no id is written like that")),
        }
    }

    /// What is told of it: a room that is not there is told as one that is gone.
    pub(crate) fn or_gone(self) -> Self {
        match self.born {
            0 => Self::gone(self.taken),
            _ => self,
        }
    }

    /// What is told of a room that is gone.
    pub(crate) fn gone(taken: u64) -> Self {
        Self {
            taken,
            kind: "group".into(),
            status: "0".into(),
            ..Self::default()
        }
    }
}

impl Last {
    /// Reads `last_at, last_time`.
    pub(crate) fn read(reply: &mut Reply) -> Result<Option<Self>> {
        let (at, time) = (maybe_text(reply.value()?)?, maybe_text(reply.value()?)?);
        Self::stored(&at.unwrap_or_default(), &time.unwrap_or_default())
    }
}

impl Job {
    /// Reads a job's id and record; an empty id is no job.
    pub(crate) fn read(reply: &mut Reply) -> Result<Option<Self>> {
        let (id, record) = (reply.text()?, reply.text()?);
        if id.is_empty() || record.is_empty() {
            return Ok(None);
        }
        Self::parse(&id, &record).map(Some)
    }
}
