//! Announcing work before it is accepted, in the index by which any pod finds the unfinished work of a dead one.
//!
//! An announcement is a token: a number that grows with every announcement of an entry. The sweep forgets an entry only after it
//! has *sealed* the room (or user) behind it, in the same script that found nothing unfinished there: from then on the
//! accepting scripts refuse (`STALE`) that token and all before it. So nothing can be accepted on the strength of an entry that
//! is gone, however long a pod was stopped in between, and whatever any clock says: the nodes of the index and of the room
//! never compare theirs. When an entry is looked at does not depend on how often it is announced: a room that is never quiet
//! gets its turn like any other.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::connection::Redis;
use crate::engine::reply::Reply;
use crate::error::Result;
use crate::{keys, scripts};

/// How old an announcement is before it is sealed and forgotten, and how long an entry waits to be looked at, in microseconds.
pub(crate) const SWEEP_MICROS: u64 = 5_000_000;
/// How long a pod relies on its own announcement before it renews it.
const RENEW: Duration = Duration::from_millis(1_000);
/// Entries remembered per shard before the old ones are thrown out.
const REMEMBERED: usize = 4_096;
/// Entries in one call.
const CHUNK: usize = 500;

/// Announces work, and keeps what this pod has announced lately.
pub(crate) struct Announcer {
    redis: Redis,
    shards: Vec<Mutex<Shard>>,
}

struct Shard {
    /// When it was announced, and by which token.
    entries: HashMap<String, (Instant, u64)>,
    purged: Instant,
}

impl Announcer {
    pub(crate) fn new(redis: Redis) -> Self {
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

    /// Announces all of `entries` that were not announced within the last second.
    pub(crate) async fn announce(&self, entries: impl IntoIterator<Item = String>) -> Result<()> {
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

    /// Announces entries of one index by tokens above `above`; answers the last one's.
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

    /// The token by which work on `entry` may be accepted; announces it if need be.
    pub(crate) async fn token(&self, entry: &str) -> Result<u64> {
        match self.lookup(entry) {
            Some(token) => Ok(token),
            None => self.announce_above(entry, 0).await,
        }
    }

    /// Announces `entry` by a token above that one.
    pub(crate) async fn announce_above(&self, entry: &str, above: u64) -> Result<u64> {
        self.touch(keys::pending_shard(entry), &[entry.to_owned()], above)
            .await
    }
}
