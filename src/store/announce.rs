//! Announcing work before it is accepted, in the index by which any pod finds the unfinished work of a dead one.
//!
//! An announcement holds for [`TRUST_MICROS`] of Redis' own clock; the accepting scripts refuse (`STALE`) one that is older.
//! The sweep drops an entry only when it is older than [`SWEEP_MICROS`] and nothing is pending behind it, so nothing can be
//! accepted on the strength of an entry that is gone, however long a pod was stopped in between.

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
/// How old an entry is when the sweep looks at it, in microseconds.
pub(super) const SWEEP_MICROS: u64 = 5_000_000;
/// How long a pod relies on its own announcement before it renews it.
const RENEW: Duration = Duration::from_millis(1_000);
/// Entries remembered per shard before the old ones are thrown out.
const REMEMBERED: usize = 4_096;
/// Entries in one call.
const CHUNK: usize = 500;

/// What this pod has announced lately.
pub(super) struct Announcer {
    shards: Vec<Mutex<HashMap<String, (Instant, u64)>>>,
}

impl Announcer {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..keys::PENDING_SHARDS)
                .map(|_| Mutex::default())
                .collect(),
        }
    }

    fn lookup(&self, entry: &str) -> Option<u64> {
        let shard = self.shards.get(keys::pending_shard(entry) as usize)?;
        let shard = shard
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        shard
            .get(entry)
            .filter(|(since, _)| since.elapsed() < RENEW)
            .map(|(_, trust)| *trust)
    }

    fn remember(&self, entry: String, since: Instant, trust: u64) {
        if let Some(shard) = self.shards.get(keys::pending_shard(&entry) as usize) {
            let mut shard = shard
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            if shard.len() >= REMEMBERED {
                shard.retain(|_, (since, _)| since.elapsed() < RENEW);
            }
            shard.insert(entry, (since, trust));
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
        let mut call = scripts::PENDING_TOUCH.call(&[keys::pending_index(shard)]);
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
