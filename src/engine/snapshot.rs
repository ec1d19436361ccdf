//! Parts of the scripts' replies about a room: the snapshot, the last message and the job.

use std::time::Instant;

use crate::counts::Kind;
use crate::counts::room::{Job, Last};
use crate::engine::reply::{Reply, maybe_text};
use crate::error::{Error, Result};
use crate::keys::is_encoded;

/// A room's details, head and revision at one moment, as a script answers them.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// When this pod received it.
    pub(crate) since: Instant,
    /// When it was taken, by the clock of the room's server, in microseconds.
    pub(crate) taken: u64,
    pub(crate) rev: u64,
    pub(crate) head: u64,
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) custom_type: String,
    pub(crate) tags: String,
    /// Revision at which the room was made; 0: there is no room.
    pub(crate) born: u64,
    /// Version of the list of members. Two different lists never have the same one.
    pub(crate) mrev: String,
    /// When the room was made, in milliseconds since 1970.
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

    /// Refuses details that no script writes, because a delivery would copy them to every member. If the room does not exist
    /// they may be empty.
    fn check(&self) -> Result<()> {
        let exists = self.born != 0;
        let is_list = |list: &str| list.is_empty() || list.split(',').all(is_encoded);
        if exists || !self.kind.is_empty() {
            Kind::stored(&self.kind)?;
        }
        if (exists || !self.status.is_empty()) && !matches!(self.status.as_str(), "0" | "1") {
            return Err(Error::unreadable("neither 0 nor 1"));
        }
        match (self.custom_type.is_empty() || is_encoded(&self.custom_type)) && is_list(&self.tags)
        {
            true => Ok(()),
            false => Err(Error::unreadable("no id is written like that")),
        }
    }

    /// The snapshot to deliver. For a room that does not exist it is the snapshot of a deleted room.
    pub(super) fn or_deleted(self) -> Self {
        match self.born {
            0 => Self::deleted(self.taken),
            _ => self,
        }
    }

    /// The snapshot of a deleted room.
    pub(crate) fn deleted(taken: u64) -> Self {
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
    /// Reads a job's id and record. `None`: there is no such job.
    pub(super) fn read(reply: &mut Reply) -> Result<Option<Self>> {
        let (id, record) = (reply.text()?, reply.text()?);
        if id.is_empty() || record.is_empty() {
            return Ok(None);
        }
        Self::parse(&id, &record).map(Some)
    }

    /// Reads pending jobs, id and record in turn. A job that this version can't read is left to pods of the version that wrote it.
    pub(super) fn read_all(pending: Reply) -> Result<Vec<Self>> {
        let jobs = pending.pairs()?.into_iter();
        Ok(jobs
            .filter_map(|(id, record)| Self::parse(&id, &record).ok())
            .collect())
    }
}
