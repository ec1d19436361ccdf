//! What looks after the data from beside the pods: `verify`, `rebuild`, `migrate`, `inspect`, `memory`, `doctor`, `export`,
//! `compare`.

mod compare;
mod derive;
mod doctor;
mod drift;
mod form;
mod inspect;
mod listed;
mod look;
mod memory;
mod migrate;
mod mend;
mod record;
mod rebuild;
mod slot;
mod unreadable;
mod verify;
mod walk;
#[cfg(fuzzing)]
#[path = "../fuzz/doors/records.rs"]
#[doc(hidden)]
pub mod fuzzing;

use crate::connection::Redis;
use crate::engine::{Engine, Writer};

pub(crate) use doctor::{Check, Doctor, KnownServers, Level};
pub(crate) use drift::Drift;
pub(crate) use inspect::{ListedRoom, RoomShown, UserShown};
pub(crate) use listed::{CountsAudit, CountsHere, Difference, ListProgress, ListedCounts};
pub(crate) use memory::{KeyTotals, MemoryUse};
pub(crate) use mend::Mended;
pub(crate) use migrate::{Migrated, Migrator};
pub(crate) use rebuild::Repair;
pub(crate) use unreadable::UnreadableData;
pub(crate) use verify::{Finding, Progress, Scope};

/// Reads and checks what is stored. It writes nothing.
pub(crate) struct Audit {
    redis: Redis,
}

impl Audit {
    /// Of what this engine keeps.
    pub(crate) fn new(engine: &Engine) -> Self {
        Self {
            redis: engine.redis.clone(),
        }
    }
}

/// Repairs what the audit finds.
pub(crate) struct Repairer {
    audit: Audit,
    writer: Writer,
}

impl Repairer {
    /// Of what this engine keeps.
    pub(crate) fn new(engine: &Engine) -> Self {
        Self {
            audit: Audit::new(engine),
            writer: engine.writer.clone(),
        }
    }

    /// The audit that finds what to repair.
    pub(crate) fn audit(&self) -> &Audit {
        &self.audit
    }
}
