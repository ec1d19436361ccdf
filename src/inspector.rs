//! Shows people what stands in Redis of one user or one room, as one JSON document, each part with the line for `redis-cli` that
//! shows the same. The command `unread inspect` prints that document, and the console shows it. Nothing is written.

mod document;
mod findings;
mod redis_cli;

use serde_json::Value;

use crate::audit::Audit;
use crate::config::RedisConfig;
use crate::error::Result;
use crate::keys::encode;
use crate::names::{AppId, RoomId, UserId};
use redis_cli::RedisCli;

pub(crate) use findings::{drift_rows, unreadable_row};

/// Members of a room that are shown, and pending jobs.
const FIRST: usize = 20;

/// Shows one user or one room.
pub(crate) struct Inspector {
    audit: Audit,
    cli: RedisCli,
}

impl Inspector {
    /// By this audit; the lines reach the Redis that is configured.
    pub(crate) fn new(audit: Audit, redis: &RedisConfig) -> std::result::Result<Self, String> {
        Ok(Self {
            audit,
            cli: RedisCli::new(redis)?,
        })
    }

    /// A user's counts, rooms, supergroups and tombstones. None: nothing is kept of the user.
    pub(crate) async fn user(&self, app: &AppId, user: &UserId) -> Result<Option<Value>> {
        let name = encode(user.as_str());
        let shown = self.audit.inspect_user(app, &name).await?;
        Ok(shown.map(|shown| document::user_document(app, user, &name, &shown, &self.cli)))
    }

    /// A room's head, members, pending jobs and history. None: nothing is kept of the room.
    pub(crate) async fn room(&self, app: &AppId, room: &RoomId) -> Result<Option<Value>> {
        let name = encode(room.as_str());
        let shown = self.audit.inspect_room(app, &name, FIRST).await?;
        Ok(shown.map(|shown| document::room_document(app, room, &name, &shown, &self.cli)))
    }

    /// Which passwords the lines want, and where; nothing: none.
    pub(crate) fn passwords(&self) -> Option<&'static str> {
        self.cli.passwords()
    }
}
