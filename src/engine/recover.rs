//! Finding and finishing the fan-outs of pods that died. Every pod sweeps; leases keep two from doing the same work. What can't be
//! read is named, counted and left where it is, and stops nothing else.

use std::sync::Weak;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use redis::Value;

use crate::connection::Item;
use crate::counts::room::Job;
use crate::engine::announce::SWEEP_MICROS;
use crate::engine::deliver::LEASE_MICROS;
use crate::engine::deliver::Work;
use crate::engine::reply::{Reply, maybe_text, number};
use crate::engine::snapshot::Snapshot;
use crate::engine::write::{Inner, Writer};
use crate::error::Result;
use crate::keys::{self, Enc, Owner, RoomKeys, UserKeys};
use crate::names::AppId;
use crate::scripts::{self, Call};

/// Between two sweeps, give or take a fifth, so that pods don't march in step.
const EVERY: Duration = Duration::from_millis(1_000);
/// Entries looked at in one go.
const ENTRIES: usize = 128;
/// Fan-outs taken over at once from one room. All of a dead pod's, as a rule: members are then brought from what they had been
/// told before to what there is, without a state in between.
const JOBS: usize = 20_000;
/// Fan-outs of others in the same room that are taken along, at most.
const PASSING: u64 = 100_000;
/// Rooms whose work is finished at once.
const AT_ONCE: usize = 8;
/// Indexes looked through at once.
const SHARDS_AT_ONCE: usize = 4;
/// How long a pod has for what it took over, in microseconds. No lease is longer: one that ends later was given by a clock
/// that has stepped back since.
const TAKEN_LEASE_MICROS: u64 = LEASE_MICROS * 3;
/// How long the seal of a room or user is kept that does not exist, in milliseconds.
const KEEP_SEAL_MS: u64 = 24 * 3600 * 1000;
/// Sweeps until the last handle of the writer is gone.
pub(crate) async fn run(writer: Weak<Inner>) {
    loop {
        tokio::time::sleep(EVERY.mul_f64(rand::random_range(0.8..1.2))).await;
        let Some(writer) = Writer::upgrade(&writer) else {
            return;
        };
        // Failures are Redis being away: the connection has logged that, and the next sweep comes.
        let _ = Sweep { writer }.sweep().await;
    }
}

/// What looking at entries came to.
#[derive(Default)]
struct Pending {
    pending: u64,
    oldest_micros: u64,
}

impl Pending {
    fn add(&mut self, other: &Pending) {
        self.pending += other.pending;
        self.oldest_micros = self.oldest_micros.max(other.oldest_micros);
    }
}

/// An entry's jobs, taken over.
#[derive(Default)]
struct Claim {
    found: Pending,
    /// Whether the room or user is sealed, so that the entry may be forgotten.
    sealed: bool,
    snapshot: Snapshot,
    jobs: Vec<Job>,
}

/// An entry of the index that is due to be looked at.
struct Due {
    entry: String,
    /// The token it was announced by, if that was long enough ago for it to be sealed and forgotten.
    token: Option<String>,
}

/// One sweep of a pod.
struct Sweep {
    writer: Writer,
}

impl Sweep {
    async fn sweep(&self) -> Result<()> {
        let shards: Vec<Result<Pending>> = stream::iter(0..keys::PENDING_SHARDS)
            .map(|shard| self.sweep_shard(shard))
            .buffer_unordered(SHARDS_AT_ONCE)
            .collect()
            .await;
        let mut found = Pending::default();
        for swept in shards {
            match swept {
                Ok(swept) => found.add(&swept),
                // One index that can't be read does not keep the others waiting.
                Err(error) => self.writer.inner.faults.complain(&error),
            }
        }
        self.writer
            .inner
            .metrics
            .pending(found.pending, found.oldest_micros as f64 / 1e6);
        Ok(())
    }

    async fn sweep_shard(&self, shard: u32) -> Result<Pending> {
        let (index, look) = (keys::pending_index(shard), keys::pending_look(shard));
        let mut total = Pending::default();
        loop {
            let due = self.due(&index, &look).await?;
            let full = due.len() >= ENTRIES;
            let calls: Vec<Option<Call>> = due.iter().map(claim_call).collect();
            let known: Vec<Item> = calls.iter().flatten().cloned().map(Item::Script).collect();
            let mut answers = self.writer.inner.redis.each(&known).await?.into_iter();
            let mut looked = scripts::PENDING_LOOKED.call(&[index.clone(), look.clone()]);
            let mut work = Vec::new();
            for (due, call) in due.into_iter().zip(calls) {
                let claim = match call {
                    Some(_) => answers.next().unwrap_or(Ok(Value::Nil)),
                    None => Ok(Value::Nil),
                };
                let claim = claim.and_then(|answer| self.read_claim(&due.entry, answer));
                let claim = claim.unwrap_or_else(|error| {
                    self.writer.inner.faults.complain(&error);
                    Claim::default()
                });
                looked.push(&due.entry);
                looked.push(match &due.token {
                    Some(token) if claim.sealed => token.as_str(),
                    _ => "",
                });
                total.add(&claim.found);
                if !claim.jobs.is_empty() {
                    work.push((due.entry, claim));
                }
            }
            self.writer.inner.redis.call(&looked).await?;
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

    /// Entries that nobody has looked at lately. A moment further ahead than the clock can have put it is due as well: the
    /// clock has stepped back since.
    async fn due(&self, index: &str, look: &str) -> Result<Vec<Due>> {
        let call = scripts::PENDING_TOUCH.call(&[index, look]);
        // Microseconds of the clock by which the index is kept.
        let now = Reply::new(self.writer.inner.redis.call(&call).await?)?.number()?;
        let (old, ahead) = (
            now.saturating_sub(SWEEP_MICROS),
            now.saturating_add(SWEEP_MICROS),
        );
        let range = |from: String, to: String| {
            let mut range = redis::cmd("ZRANGE");
            range.arg(look).arg(from).arg(to).arg("BYSCORE");
            range.arg("LIMIT").arg(0).arg(ENTRIES);
            Item::Plain(range)
        };
        let ranges = [
            range("-inf".into(), old.to_string()),
            range(format!("({ahead}"), "+inf".into()),
        ];
        let mut entries = Vec::new();
        for answer in self.writer.inner.redis.batch(&ranges).await? {
            let mut reply = Reply::new(answer)?;
            while !reply.is_empty() {
                entries.push(reply.text()?);
            }
        }
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        // How long ago each was announced is read before looking behind it, never after.
        let mut scores = redis::cmd("ZMSCORE");
        scores.arg(index).arg(&entries);
        let mut scores = Reply::new(self.writer.inner.redis.query(&scores).await?)?;
        let mut due = Vec::with_capacity(entries.len());
        for entry in entries {
            let token = maybe_text(scores.value()?)?.unwrap_or_else(|| "0".into());
            let at = number(&Value::BulkString(token.clone().into_bytes())).unwrap_or(u64::MAX);
            let idle = at <= old || at > ahead;
            due.push(Due {
                entry,
                token: idle.then_some(token),
            });
        }
        Ok(due)
    }

    /// Finishes what was taken over, and whatever else is there to be taken over from the same entry.
    async fn finish_claim(&self, entry: String, mut claim: Claim) -> Result<()> {
        loop {
            let n = claim.jobs.len() as u64;
            match keys::parse_entry(&entry) {
                Some(Owner::Room(app, room)) => self.recover_room(&app, &room, claim).await?,
                Some(Owner::User(app, user)) => {
                    self.writer.leave_rooms(&app, &user, &claim.jobs).await?
                }
                None => return Ok(()),
            }
            self.writer.inner.metrics.recovered(n);
            tracing::info!(fanouts = n, "finished fan-outs that another pod had left");
            let due = Due {
                entry: entry.clone(),
                token: None,
            };
            let Some(call) = claim_call(&due) else {
                return Ok(());
            };
            claim = self.read_claim(&entry, self.writer.inner.redis.call(&call).await?)?;
            if claim.jobs.is_empty() {
                return Ok(());
            }
        }
    }

    async fn recover_room(&self, app: &AppId, room: &Enc, claim: Claim) -> Result<()> {
        let Claim {
            found,
            snapshot,
            jobs,
            ..
        } = claim;
        let mut passing = Vec::new();
        if found.pending > jobs.len() as u64 && found.pending <= PASSING {
            let mut get = redis::cmd("HGETALL");
            get.arg(RoomKeys::new(app, room).pending());
            let open = Reply::new(self.writer.inner.redis.query(&get).await?)?;
            for (id, record) in open.pairs()? {
                passing.extend(Job::parse(&id, &record).ok());
            }
        }
        let work = Work {
            snapshot: snapshot.or_gone(),
            jobs,
            passing,
            ..Work::default()
        };
        self.writer.finish(app, room, work).await.map(|_| ())
    }

    fn read_claim(&self, entry: &str, answer: Value) -> Result<Claim> {
        let mut reply = Reply::new(answer)?;
        if reply.is_empty() {
            // What is no entry of ours holds nothing.
            return Ok(Claim {
                sealed: true,
                ..Claim::default()
            });
        }
        let (pending, sealed) = (reply.number()?, reply.number()? == 1);
        let snapshot = Snapshot::read(&mut reply)?;
        let (mut jobs, mut oldest) = (Vec::new(), None::<u64>);
        while !reply.is_empty() {
            let (id, record) = (reply.text(), reply.text());
            let job = id.and_then(|id| Job::parse(&id, &record?));
            match self.writer.inner.faults.at(job, || pending_key(entry)) {
                Ok(job) => {
                    oldest = Some(oldest.map_or(job.stamp, |oldest| oldest.min(job.stamp)));
                    jobs.push(job);
                }
                // Written by a newer version, whose pods will finish it, or garbled.
                Err(error) => self.writer.inner.faults.complain(&error),
            }
        }
        // A job's id is the moment of its acceptance, so it tells its age, unless the clock has stepped back since.
        let age = |stamp| match snapshot.taken.checked_sub(stamp) {
            Some(age) => age,
            None => SWEEP_MICROS,
        };
        Ok(Claim {
            found: Pending {
                pending,
                oldest_micros: oldest.map_or(0, age),
            },
            sealed,
            snapshot,
            jobs,
        })
    }
}

/// The key of an entry's unfinished work.
fn pending_key(entry: &str) -> String {
    match keys::parse_entry(entry) {
        Some(Owner::Room(app, room)) => RoomKeys::new(&app, &room).pending(),
        Some(Owner::User(app, user)) => UserKeys::new(&app, &user).pending(),
        None => String::new(),
    }
}

/// Takes over what an entry has pending, or seals it; `None`: not an entry of ours.
fn claim_call(due: &Due) -> Option<Call> {
    let (meta, pending, field) = match keys::parse_entry(&due.entry)? {
        Owner::Room(app, room) => {
            let keys = RoomKeys::new(&app, &room);
            (keys.meta(), keys.pending(), "sealed")
        }
        Owner::User(app, user) => {
            let keys = UserKeys::new(&app, &user);
            (keys.left(), keys.pending(), "!")
        }
    };
    let call = scripts::JOBS_CLAIM.call(&[meta, pending]);
    Some(
        call.arg(TAKEN_LEASE_MICROS)
            .arg(TAKEN_LEASE_MICROS)
            .arg(JOBS)
            .arg(due.token.as_deref().unwrap_or(""))
            .arg(field)
            .arg(KEEP_SEAL_MS),
    )
}
