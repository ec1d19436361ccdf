//! Finding and finishing the fan-outs of pods that died. Every pod sweeps; leases keep two from doing the same work.

use std::sync::Weak;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::announce::SWEEP_MICROS;
use super::deliver::Work;
use super::reply::Reply;
use super::room::{Job, Snapshot};
use super::write::LEASE_MICROS;
use super::{Inner, Store};
use crate::error::Result;
use crate::keys::{self, Enc, Entry, RoomKeys, UserKeys};
use crate::names::AppId;
use crate::scripts;

/// Between two sweeps, give or take a fifth, so that pods don't march in step.
const EVERY: Duration = Duration::from_millis(1_000);
/// Entries looked at in one sweep of one index.
const ENTRIES: usize = 200;
/// Fan-outs taken over at once from one room.
const JOBS: usize = 200;
/// Indexes swept at once.
const SHARDS_AT_ONCE: usize = 4;
/// Rooms of one index worked on at once.
const AT_ONCE: usize = 4;
/// How long a pod has for what it took over, in microseconds.
const TAKEN_LEASE_MICROS: u64 = LEASE_MICROS * 3;

/// Sweeps until the last handle of the store is gone.
pub(super) async fn run(store: Weak<Inner>) {
    loop {
        tokio::time::sleep(EVERY.mul_f64(rand::random_range(0.8..1.2))).await;
        let Some(inner) = store.upgrade() else { return };
        // Failures are Redis being away: the connection has logged that, and the next sweep comes.
        let _ = Store { inner }.sweep().await;
    }
}

/// What one entry turned out to hold.
#[derive(Default)]
struct Found {
    pending: u64,
    oldest_micros: u64,
}

impl Found {
    fn add(&mut self, other: &Found) {
        self.pending += other.pending;
        self.oldest_micros = self.oldest_micros.max(other.oldest_micros);
    }
}

impl Store {
    async fn sweep(&self) -> Result<()> {
        let shards: Vec<Result<Found>> = stream::iter(0..keys::PENDING_SHARDS)
            .map(|shard| self.sweep_one(keys::pending_index(shard)))
            .buffer_unordered(SHARDS_AT_ONCE)
            .collect()
            .await;
        let mut all = Found::default();
        let mut failure = None;
        // A node of a cluster that does not answer keeps nobody from the work that lies elsewhere.
        for found in shards {
            match found {
                Ok(found) => all.add(&found),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => {
                let oldest = all.oldest_micros as f64 / 1e6;
                self.inner.metrics.pending(all.pending, oldest);
                Ok(())
            }
        }
    }

    async fn sweep_one(&self, index: String) -> Result<Found> {
        // The clock of the server that has the index: it wrote the scores.
        let time = redis::cmd("TIME");
        let mut time = Reply::new(self.inner.redis.query_beside(&index, &time).await?)?;
        let now = time.number()? * 1_000_000 + time.number()?;
        let mut range = redis::cmd("ZRANGE");
        range
            .arg(&index)
            .arg("-inf")
            .arg(now.saturating_sub(SWEEP_MICROS))
            .arg("BYSCORE")
            .arg("LIMIT")
            .arg(0)
            .arg(ENTRIES)
            .arg("WITHSCORES");
        let entries = Reply::new(self.inner.redis.query(&range).await?)?.pairs()?;
        let found: Vec<Result<Found>> = stream::iter(entries)
            .map(|(entry, score)| self.entry(&index, entry, score))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut all = Found::default();
        let mut failure = None;
        for found in found {
            match found {
                Ok(found) => all.add(&found),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(all), Err)
    }

    async fn entry(&self, index: &str, entry: String, score: String) -> Result<Found> {
        let found = match keys::parse_entry(&entry) {
            Some(Entry::Room(app, room)) => self.recover_room(&app, &room).await?,
            Some(Entry::User(app, user)) => self.recover_user(&app, &user).await?,
            None => Found::default(),
        };
        if found.pending == 0 {
            let call = scripts::PENDING_DROP.call(&[index]).arg(entry).arg(score);
            self.inner.redis.call(&call).await?;
        }
        Ok(found)
    }

    async fn claim(&self, meta: String, pending: String) -> Result<(Found, Snapshot, Vec<Job>)> {
        let call = scripts::JOBS_CLAIM
            .call(&[meta, pending])
            .arg(TAKEN_LEASE_MICROS)
            .arg(JOBS);
        let mut reply = Reply::new(self.inner.redis.call(&call).await?)?;
        let left = reply.number()?;
        let snapshot = Snapshot::read(&mut reply)?;
        let mut jobs = Vec::new();
        while !reply.is_empty() {
            jobs.extend(Job::read(&mut reply)?);
        }
        // A job's id is the moment of its acceptance, so it tells its age.
        let oldest = jobs.iter().map(|job| job.stamp).min();
        let found = Found {
            pending: left,
            oldest_micros: oldest.map_or(0, |stamp| snapshot.taken.saturating_sub(stamp)),
        };
        Ok((found, snapshot, jobs))
    }

    async fn recover_room(&self, app: &AppId, room: &Enc) -> Result<Found> {
        let keys = RoomKeys::new(app, room);
        let (mut found, snapshot, jobs) = self.claim(keys.meta(), keys.pending()).await?;
        if !jobs.is_empty() {
            let n = jobs.len() as u64;
            let work = Work {
                snapshot: if snapshot.born == 0 {
                    Snapshot::gone(snapshot.taken)
                } else {
                    snapshot
                },
                jobs,
                ..Work::default()
            };
            self.deliver(app, room, &work).await?;
            self.recovered(n);
            found.pending = found.pending.saturating_sub(n);
        }
        Ok(found)
    }

    async fn recover_user(&self, app: &AppId, user: &Enc) -> Result<Found> {
        let keys = UserKeys::new(app, user);
        // A user's slot has no room behind its jobs; the script then answers an empty snapshot.
        let (mut found, _, jobs) = self.claim(keys.pending(), keys.pending()).await?;
        if !jobs.is_empty() {
            let n = jobs.len() as u64;
            self.leave_rooms(app, user, &jobs).await?;
            self.recovered(n);
            found.pending = found.pending.saturating_sub(n);
        }
        Ok(found)
    }

    fn recovered(&self, n: u64) {
        self.inner.metrics.recovered(n);
        tracing::info!(fanouts = n, "finished fan-outs that another pod had left");
    }
}
