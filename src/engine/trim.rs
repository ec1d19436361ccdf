//! Trimming: a room forgets the positions of recalled messages and of mentions of everybody when no count needs them any more:
//! when they are below every member's read position and older than the history.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::connection::{Item, Redis};
use crate::counts::record::read_position;
use crate::counts::room::{Membership, cleared_up_to, exempt_from, logged_position};
use crate::engine::faults::Faults;
use crate::engine::members::parse_members;
use crate::engine::reply::{Reply, maybe_text, number};
use crate::error::{Error, Result};
use crate::keys::{Enc, RoomKeys, UserKeys};
use crate::names::AppId;
use crate::scripts;

/// How many members' read positions are looked up in one batch.
const PAGE: usize = 500;
/// The most positions of each kind that one call forgets.
const PER_CALL: u64 = 10_000;
/// How many of the oldest messages of the log are searched for the first one that counts.
const OLDEST: i64 = 100;

/// Trims rooms.
#[derive(Clone)]
pub(super) struct Trimmer {
    pub(super) redis: Redis,
    pub(super) background: Arc<Semaphore>,
    pub(super) faults: Faults,
}

impl Trimmer {
    /// Trims a room in the background. If too much runs there already, nothing happens: the room asks for a trim again.
    pub(super) fn trim_later(&self, app: &AppId, room: &Enc) {
        let Ok(permit) = Arc::clone(&self.background).try_acquire_owned() else {
            return;
        };
        let (trimmer, app, room) = (self.clone(), app.clone(), room.clone());
        tokio::spawn(async move {
            if let Err(error) = trimmer.trim(&app, &room).await {
                tracing::debug!(%error, "a room could not be trimmed");
            }
            drop(permit);
        });
    }

    /// Forgets positions that no count needs any more. Returns how many.
    async fn trim(&self, app: &AppId, room: &Enc) -> Result<u64> {
        let keys = RoomKeys::new(app, room);
        let mut meta = redis::cmd("HMGET");
        meta.arg(keys.meta()).arg(&["born", "head"]);
        let mut log = redis::cmd("LRANGE");
        log.arg(keys.log()).arg(0).arg(OLDEST - 1);
        let mut answers = self
            .redis
            .send_all(&[Item::Plain(meta), Item::Plain(log)])
            .await?
            .into_iter();
        let mut next = || Reply::new(answers.next().unwrap_or(redis::Value::Nil));
        let (mut meta, mut log) = (next()?, next()?);
        let (born, head) = (meta.number()?, meta.number()?);
        if born == 0 {
            return Ok(0);
        }
        // The history begins with the first message of the log that counts.
        let mut bound = head;
        while !log.is_empty() {
            let line = log.text()?;
            if let Some(position @ 1..) = logged_position(&line) {
                bound = position - 1;
                break;
            }
        }
        bound = match self.least_read(app, room, born, bound).await {
            Ok(least) => least,
            // A member's read position is unknown, so every position may still be needed.
            Err(error @ Error::Unreadable(_)) => {
                self.faults.complain(&error);
                0
            }
            Err(error) => return Err(error),
        };
        // The script is called even if nothing can be forgotten. The room then asks again only when it has twice as many
        // positions.
        let call = scripts::ROOM_TRIM
            .call(&[keys.meta(), keys.recalled(), keys.allmentions()])
            .arg(born)
            .arg(bound)
            .arg(PER_CALL);
        let mut forgotten = 0;
        loop {
            let removed = number(&self.redis.call(&call).await?)?;
            forgotten += removed;
            if removed < PER_CALL {
                return Ok(forgotten);
            }
        }
    }

    /// The least read position of a joined member, or `bound` if that is less. A member who joins meanwhile begins above it.
    async fn least_read(&self, app: &AppId, room: &Enc, born: u64, bound: u64) -> Result<u64> {
        let keys = RoomKeys::new(app, room);
        let members = keys.members();
        let mut get = redis::cmd("HMGET");
        get.arg(keys.meta()).arg("cleared").arg("late");
        let mut meta = Reply::new(self.redis.query(&get).await?)?;
        let cleared = maybe_text(meta.value()?)?.unwrap_or_default();
        // By-time events may have left clearings that are too old for some members.
        let may_exempt = !cleared.is_empty() && maybe_text(meta.value()?)?.is_some();
        let serving = self.redis.serving(&members).await?;
        let (mut least, mut cursor) = (bound, "0".to_owned());
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(&members).arg(&cursor).arg("COUNT").arg(PAGE);
            let mut page = Reply::new(self.redis.query(&scan).await?)?;
            cursor = page.text()?;
            let joined: Vec<(Enc, Membership)> = parse_members(page.list()?)?
                .into_iter()
                .filter(|(_, membership)| membership.is_joined(born))
                .collect();
            let record = |key: String| {
                let mut get = redis::cmd("HGET");
                get.arg(key).arg(room.as_str());
                Item::Plain(get)
            };
            let items: Vec<Item> = joined
                .iter()
                .flat_map(|(name, _)| {
                    let user = UserKeys::new(app, name);
                    let mut resets = redis::cmd("HGET");
                    resets
                        .arg(keys.arrived())
                        .arg(format!("r|{}", name.as_str()));
                    let resets = may_exempt.then_some(Item::Plain(resets));
                    let records = [record(user.rooms()), record(user.supers())];
                    resets.into_iter().chain(records)
                })
                .collect();
            let mut answers = self.redis.send_all(&items).await?.into_iter();
            for (_, membership) in &joined {
                let resets = match may_exempt {
                    true => maybe_text(answers.next().unwrap_or(redis::Value::Nil))?,
                    false => None,
                };
                let exempt = resets.as_deref().map_or("", exempt_from);
                // A member without a record has read nothing since joining. A reset may have gone back below the base.
                let base = if membership.reset.is_some() {
                    0
                } else {
                    membership.base
                };
                let since = membership.marked_since();
                let cleared = cleared_up_to(&cleared, since, exempt).unwrap_or(0);
                let mut read = base.max(cleared);
                for answer in answers.by_ref().take(2) {
                    let record = maybe_text(answer)?.unwrap_or_default();
                    let position = read_position(&record).unwrap_or(0);
                    read = read.max(u64::try_from(position).unwrap_or(0));
                }
                least = least.min(read);
            }
            if cursor == "0" || least == 0 {
                break;
            }
        }
        // A cursor means nothing to another server, such as a replica that took over. Members may have been left out then.
        match self.redis.serving(&members).await? == serving {
            true => Ok(least),
            false => Ok(0),
        }
    }
}
