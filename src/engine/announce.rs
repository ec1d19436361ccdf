//! Announcements: before a room (or user) accepts work, its name is written to an index. By that entry any pod finds the
//! unfinished jobs of a pod that died.
//!
//! An announcement has a *token*: a number that grows with every announcement of an entry. The sweep removes an entry only after
//! it has *sealed* the room (or user) with the entry's token, in the same script that found no unfinished job there. From then on
//! the accepting scripts refuse (`STALE`) that token and all smaller ones. So nothing is accepted on an announcement that has
//! been removed, however long a pod was stopped in between, and whatever the clocks say: the node of the index and the node of
//! the room never compare their clocks. When an entry is looked at does not depend on how often it is announced, so a room that
//! is announced all the time is looked at as often as any other.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::connection::Redis;
use crate::engine::reply::Reply;
use crate::error::Result;
use crate::{keys, scripts};

/// How old an announcement has to be before the sweep may seal its room and remove it. Also the time between two looks at an
/// entry. In microseconds.
pub(super) const SWEEP_MICROS: u64 = 5_000_000;
/// How long a pod relies on its own announcement before it renews it.
const RENEW: Duration = Duration::from_millis(1_000);
/// How many announcements of one index a pod remembers before it drops the old ones.
const REMEMBERED: usize = 4_096;
/// The most entries in one call.
const CHUNK: usize = 500;

/// Announces entries, and remembers which ones this pod has announced lately.
pub(super) struct Announcer {
    redis: Redis,
    shards: Vec<Mutex<Shard>>,
}

struct Shard {
    /// When each entry was announced, and its token.
    entries: HashMap<String, (Instant, u64)>,
    purged: Instant,
}

impl Announcer {
    pub(super) fn new(redis: Redis) -> Self {
        Self {
            redis,
            shards: (0..keys::PENDING_SHARDS)
                .map(|_| {
                    Mutex::new(Shard {
                        entries: HashMap::new(),
                        purged: Instant::now(),
                    })
                })
                .collect(),
        }
    }

    fn lookup(&self, entry: &str) -> Option<u64> {
        let shard = self.shards.get(keys::pending_shard(entry) as usize)?;
        let shard = shard
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        shard
            .entries
            .get(entry)
            .filter(|(since, _)| since.elapsed() < RENEW)
            .map(|(_, token)| *token)
    }

    fn remember(&self, entry: String, since: Instant, token: u64) {
        if let Some(shard) = self.shards.get(keys::pending_shard(&entry) as usize) {
            let mut shard = shard
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            if shard.entries.len() >= REMEMBERED && shard.purged.elapsed() >= RENEW {
                shard
                    .entries
                    .retain(|_, (since, _)| since.elapsed() < RENEW);
                shard.purged = Instant::now();
            }
            shard.entries.insert(entry, (since, token));
        }
    }

    /// Announces those of `entries` that this pod has not announced within the last second.
    pub(super) async fn announce(&self, entries: impl IntoIterator<Item = String>) -> Result<()> {
        let mut by_shard: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for entry in entries {
            if self.lookup(&entry).is_none() {
                by_shard
                    .entry(keys::pending_shard(&entry))
                    .or_default()
                    .push(entry);
            }
        }
        let calls = by_shard.iter().flat_map(|(shard, entries)| {
            entries
                .chunks(CHUNK)
                .map(|part| self.touch(*shard, part, 0))
        });
        futures_util::future::try_join_all(calls).await?;
        Ok(())
    }

    /// Announces entries of one index with tokens above `above`. Returns the token of the last one.
    async fn touch(&self, shard: u32, entries: &[String], above: u64) -> Result<u64> {
        let since = Instant::now();
        let mut call =
            scripts::PENDING_TOUCH.call(&[keys::pending_index(shard), keys::pending_look(shard)]);
        for entry in entries {
            call.push(entry);
            call.push(above);
        }
        let mut reply = Reply::new(self.redis.call(&call).await?)?;
        let mut token = reply.number()?;
        for entry in entries {
            token = reply.number()?;
            self.remember(entry.clone(), since, token);
        }
        Ok(token)
    }

    /// The token with which `entry` may accept work. Announces the entry first if this pod has not done so lately.
    pub(super) async fn token(&self, entry: &str) -> Result<u64> {
        match self.lookup(entry) {
            Some(token) => Ok(token),
            None => self.announce_above(entry, 0).await,
        }
    }

    /// Announces `entry` with a token above `above`.
    pub(super) async fn announce_above(&self, entry: &str, above: u64) -> Result<u64> {
        self.touch(keys::pending_shard(entry), &[entry.to_owned()], above)
            .await
    }
}
