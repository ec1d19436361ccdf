//! What looks after the data from beside the pods: `verify`, `rebuild`, `inspect`, `memory`, `doctor`.

mod compare;
mod derive;
mod doctor;
mod drift;
mod form;
mod inspect;
mod memory;
mod mend;
mod position;
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

pub use doctor::{Check, Doctor, KnownServers, Level};
pub use drift::Drift;
pub use inspect::{Listed, MemberShown, RoomShown, Shown, UserShown};
pub use memory::{MemoryUse, Part};
pub use mend::Mended;
pub use rebuild::Repair;
pub use unreadable::Unreadable;
pub use verify::{Finding, Progress, Scope, UserDrift};

/// Reads and checks what is stored. It writes nothing.
pub struct Audit {
    redis: Redis,
}

impl Audit {
    /// Of what this engine keeps.
    pub fn new(engine: &Engine) -> Self {
        Self {
            redis: engine.redis.clone(),
        }
    }
}

/// Repairs what the audit finds.
pub struct Repairer {
    audit: Audit,
    writer: Writer,
}

impl Repairer {
    /// Of what this engine keeps.
    pub fn new(engine: &Engine) -> Self {
        Self {
            audit: Audit::new(engine),
            writer: engine.writer.clone(),
        }
    }

    /// The audit that finds what to repair.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }
}
