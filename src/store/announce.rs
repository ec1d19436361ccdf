//! Announcing work before it is accepted, in the index by which any pod finds the unfinished work of a dead one.
//!
//! An announcement holds for [`TRUST_MICROS`] of Redis' own clock; the accepting scripts refuse (`STALE`) one that is older.
//! The sweep forgets an entry only when, before it looked for pending work behind it and found none, the announcement was
//! older than [`SWEEP_MICROS`], and it has not been renewed since. So nothing can be accepted on the strength of an entry that
//! is gone, however long a pod was stopped in between. When an entry is looked at does not depend on how often it is
//! announced: a room that is never quiet gets its turn like any other.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use redis::Value;

use super::Store;
use super::reply::number;
use crate::error::Result;
use crate::keys;
use crate::scripts;

/// How long an announcement holds, in microseconds of Redis' clock.
const TRUST_MICROS: u64 = 2_500_000;
/// How old an announcement is before it may be forgotten, and how long an entry waits to be looked at, in microseconds.
pub(super) const SWEEP_MICROS: u64 = 5_000_000;
/// How long a pod relies on its own announcement before it renews it.
const RENEW: Duration = Duration::from_millis(1_000);
/// Entries remembered per shard before the old ones are thrown out.
const REMEMBERED: usize = 4_096;
/// Entries in one call.
const CHUNK: usize = 500;

/// What this pod has announced lately.
pub(super) struct Announcer {
    shards: Vec<Mutex<Shard>>,
}

struct Shard {
    /// When it was announced, and until when that holds.
    entries: HashMap<String, (Instant, u64)>,
    purged: Instant,
}

impl Announcer {
    pub(super) fn new() -> Self {
        Self {
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
            .map(|(_, trust)| *trust)
    }

    fn remember(&self, entry: String, since: Instant, trust: u64) {
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
            shard.entries.insert(entry, (since, trust));
        }
    }
}

impl Store {
    /// Announces all of `entries` that were not announced within the last second.
    pub(super) async fn announce(&self, entries: impl IntoIterator<Item = String>) -> Result<()> {
        let mut by_shard: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for entry in entries {
            if self.inner.announcer.lookup(&entry).is_none() {
                by_shard
                    .entry(keys::pending_shard(&entry))
                    .or_default()
                    .push(entry);
            }
        }
        let calls = by_shard.iter().flat_map(|(shard, entries)| {
            entries.chunks(CHUNK).map(|part| self.touch(*shard, part))
        });
        futures_util::future::try_join_all(calls).await?;
        Ok(())
    }

    async fn touch(&self, shard: u32, entries: &[String]) -> Result<u64> {
        let since = Instant::now();
        let mut call =
            scripts::PENDING_TOUCH.call(&[keys::pending_index(shard), keys::pending_look(shard)]);
        for entry in entries {
            call.push(entry);
        }
        let answer: Value = self.inner.redis.call(&call).await?;
        let trust = number(&answer)? + TRUST_MICROS;
        for entry in entries {
            self.inner.announcer.remember(entry.clone(), since, trust);
        }
        Ok(trust)
    }

    /// Until when (microseconds of Redis' clock) work on `entry` may be accepted; announces it if need be.
    pub(super) async fn trust(&self, entry: &str, renew: bool) -> Result<u64> {
        match self.inner.announcer.lookup(entry) {
            Some(trust) if !renew => Ok(trust),
            _ => {
                self.touch(keys::pending_shard(entry), &[entry.to_owned()])
                    .await
            }
        }
    }
}
