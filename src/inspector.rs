//! Shows people what stands in Redis of one user or one room, as one JSON document, each part with the line for `redis-cli` that
//! shows the same. The command `unread inspect` prints that document, and the console shows it. Nothing is written.

mod document;
mod findings;
mod redis_cli;

use std::cell::RefCell;

use serde_json::{Value, json};

use crate::audit::{Audit, Finding, Scope};
use crate::config::RedisConfig;
use crate::error::Result;
use crate::keys::encode;
use crate::names::{AppId, RoomId, UserId};
use redis_cli::RedisCli;

pub(crate) use findings::{drift_rows, unreadable_row};

/// Members of a room that are shown, and pending jobs.
const FIRST: usize = 20;

/// The most differences of a user that are shown.
const MOST: usize = 1_000;

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

    /// Checks one user as `unread verify` does, and says what it found.
    pub(crate) async fn verify(&self, app: &AppId, user: &UserId) -> Result<Value> {
        let scope = Scope {
            app: Some(app.clone()),
            user: Some(encode(user.as_str())),
        };
        let found = RefCell::new((Vec::new(), Vec::new()));
        let add = async |finding| {
            let mut found = found.borrow_mut();
            match finding {
                Finding::Drift(of_user) => {
                    let rows = drift_rows(&of_user.drift, ["stored", "expected"]);
                    let room = MOST.saturating_sub(found.0.len());
                    found.0.extend(rows.into_iter().take(room));
                }
                Finding::Unreadable(unreadable) => found.1.push(unreadable_row(&unreadable)),
            }
            Ok(())
        };
        let done = self.audit.verify(&scope, add, |_| {}).await?;
        let (drift, unreadable) = found.into_inner();
        Ok(json!({
            "app": app.as_str(), "user": user.as_str(), "drift": drift, "unreadable": unreadable,
            "clean": drift.is_empty() && done.unreadable == 0 && done.in_flight == 0,
            "rooms_asked": done.members, "in_flight": done.in_flight,
            "unreadable_total": done.unreadable,
        }))
    }

    /// Which passwords the lines want, and where; nothing: none.
    pub(crate) fn passwords(&self) -> Option<&'static str> {
        self.cli.passwords()
    }
}
