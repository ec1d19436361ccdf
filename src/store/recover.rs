//! Finding and finishing the fan-outs of pods that died. Every pod sweeps; leases keep two from doing the same work.

use std::sync::Weak;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use redis::Value;

use super::announce::SWEEP_MICROS;
use super::deliver::Work;
use super::reply::{Reply, maybe_text, number};
use super::room::{Job, Snapshot};
use super::write::LEASE_MICROS;
use super::{Inner, Store};
use crate::connection::Item;
use crate::error::Result;
use crate::keys::{self, Enc, Entry, RoomKeys, UserKeys};
use crate::names::AppId;
use crate::scripts::{self, Call};

/// Between two sweeps, give or take a fifth, so that pods don't march in step.
const EVERY: Duration = Duration::from_millis(1_000);
/// Entries looked at in one go.
const ENTRIES: usize = 128;
/// Fan-outs taken over at once from one room.
const JOBS: usize = 200;
/// Rooms whose work is finished at once.
const AT_ONCE: usize = 8;
/// Indexes looked through at once.
const SHARDS_AT_ONCE: usize = 4;
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

/// What looking at entries came to.
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

/// An entry's jobs, taken over.
struct Claim {
    found: Found,
    snapshot: Snapshot,
    jobs: Vec<Job>,
}

impl Store {
    async fn sweep(&self) -> Result<()> {
        let shards: Vec<Result<Found>> = stream::iter(0..keys::PENDING_SHARDS)
            .map(|shard| self.sweep_shard(shard))
            .buffer_unordered(SHARDS_AT_ONCE)
            .collect()
            .await;
        let mut found = Found::default();
        for shard in shards {
            // One index that can't be read does not keep the others waiting; its fault is logged where it arose.
            found.add(&shard.unwrap_or_default());
        }
        self.inner
            .metrics
            .pending(found.pending, found.oldest_micros as f64 / 1e6);
        Ok(())
    }

    async fn sweep_shard(&self, shard: u32) -> Result<Found> {
        let (index, look) = (keys::pending_index(shard), keys::pending_look(shard));
        let mut total = Found::default();
        loop {
            let now = self.now(&index, &look).await?;
            let mut range = redis::cmd("ZRANGE");
            range
                .arg(&look)
                .arg("-inf")
                .arg(now.saturating_sub(SWEEP_MICROS))
                .arg("BYSCORE")
                .arg("LIMIT")
                .arg(0)
                .arg(ENTRIES);
            let mut reply = Reply::new(self.inner.redis.query(&range).await?)?;
            let mut entries = Vec::new();
            while !reply.is_empty() {
                entries.push(reply.text()?);
            }
            if entries.is_empty() {
                return Ok(total);
            }
            let full = entries.len() == ENTRIES;
            // How long ago each was announced is read before looking behind it, never after.
            let mut scores = redis::cmd("ZMSCORE");
            scores.arg(&index).arg(&entries);
            let mut scores = Reply::new(self.inner.redis.query(&scores).await?)?;
            let claims = entries
                .iter()
                .map(|entry| claim_call(entry))
                .collect::<Vec<_>>();
            let known: Vec<Item> = claims.iter().flatten().cloned().map(Item::Script).collect();
            let mut answers = self.inner.redis.batch(&known).await?.into_iter();
            let mut looked = scripts::PENDING_LOOKED.call(&[index.clone(), look.clone()]);
            let mut work = Vec::new();
            for (entry, call) in entries.into_iter().zip(claims) {
                let announced = maybe_text(scores.value()?)?;
                let claim = match call {
                    Some(_) => read_claim(answers.next().unwrap_or(Value::Nil))?,
                    None => Claim::nothing(),
                };
                let announced = announced.unwrap_or_else(|| "0".into());
                let old = announced.parse().unwrap_or(f64::MAX)
                    <= now.saturating_sub(SWEEP_MICROS) as f64;
                let idle = old && claim.found.pending == 0;
                looked.push(&entry);
                looked.push(if idle { announced.as_str() } else { "" });
                total.add(&claim.found);
                if !claim.jobs.is_empty() {
                    work.push((entry, claim));
                }
            }
            self.inner.redis.call(&looked).await?;
            let done: Vec<Result<()>> = stream::iter(work)
                .map(|(entry, claim)| self.finish_claim(entry, claim))
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            for failure in done.into_iter().filter_map(Result::err) {
                if !failure.is_transient() {
                    tracing::error!(error = %failure, "a fan-out that was taken over could not be finished");
                }
            }
            if !full {
                return Ok(total);
            }
        }
    }

    /// Microseconds of the clock by which the index is kept.
    async fn now(&self, index: &str, look: &str) -> Result<u64> {
        let call = scripts::PENDING_TOUCH.call(&[index, look]);
        number(&self.inner.redis.call(&call).await?)
    }

    async fn finish_claim(&self, entry: String, claim: Claim) -> Result<()> {
        let n = claim.jobs.len() as u64;
        match keys::parse_entry(&entry) {
            Some(Entry::Room(app, room)) => self.recover_room(&app, &room, claim).await?,
            Some(Entry::User(app, user)) => self.leave_rooms(&app, &user, &claim.jobs).await?,
            None => {}
        }
        self.inner.metrics.recovered(n);
        tracing::info!(fanouts = n, "finished fan-outs that another pod had left");
        Ok(())
    }

    async fn recover_room(&self, app: &AppId, room: &Enc, claim: Claim) -> Result<()> {
        let Claim { snapshot, jobs, .. } = claim;
        let work = Work {
            snapshot: if snapshot.born == 0 {
                Snapshot::gone(snapshot.taken)
            } else {
                snapshot
            },
            jobs,
            ..Work::default()
        };
        self.deliver(app, room, &work).await
    }
}

impl Claim {
    fn nothing() -> Self {
        Self {
            found: Found::default(),
            snapshot: Snapshot::default(),
            jobs: Vec::new(),
        }
    }
}

/// Takes over what an entry has pending; `None`: not an entry of ours.
fn claim_call(entry: &str) -> Option<Call> {
    let (meta, pending) = match keys::parse_entry(entry)? {
        Entry::Room(app, room) => {
            let keys = RoomKeys::new(&app, &room);
            (keys.meta(), keys.pending())
        }
        // A user's slot has no room behind its jobs; the script then answers an empty snapshot.
        Entry::User(app, user) => {
            let pending = UserKeys::new(&app, &user).pending();
            (pending.clone(), pending)
        }
    };
    let call = scripts::JOBS_CLAIM.call(&[meta, pending]);
    Some(call.arg(TAKEN_LEASE_MICROS).arg(JOBS))
}

fn read_claim(answer: Value) -> Result<Claim> {
    let mut reply = Reply::new(answer)?;
    let pending = reply.number()?;
    let snapshot = Snapshot::read(&mut reply)?;
    let mut jobs = Vec::new();
    while !reply.is_empty() {
        let (id, record) = (reply.text()?, reply.text()?);
        match Job::parse(&id, &record) {
            Ok(job) => jobs.push(job),
            // Written by a newer version: its pods will finish it.
            Err(_) => {
                tracing::warn!("a fan-out is recorded in words that this version does not know")
            }
        }
    }
    // A job's id is the moment of its acceptance, so it tells its age.
    let oldest = jobs.iter().map(|job| job.stamp).min();
    Ok(Claim {
        found: Found {
            pending,
            oldest_micros: oldest.map_or(0, |stamp| snapshot.taken.saturating_sub(stamp)),
        },
        snapshot,
        jobs,
    })
}
