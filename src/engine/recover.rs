//! The sweep: every pod looks through the announcements and finishes the jobs of pods that died. Leases keep two pods from
//! finishing the same job. Unreadable data is named, counted and left as it is; it does not stop the rest of the sweep.

use std::sync::Weak;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use redis::Value;

use crate::connection::Item;
use crate::counts::room::Job;
use crate::engine::announce::SWEEP_MICROS;
use crate::engine::deliver::{LEASE_MICROS, Work};
use crate::engine::reply::{Reply, maybe_text, number};
use crate::engine::snapshot::Snapshot;
use crate::engine::write::{Inner, Writer};
use crate::error::Result;
use crate::keys::{self, Enc, Owner, RoomKeys, UserKeys};
use crate::names::AppId;
use crate::scripts::{self, ScriptCall};

/// Time between two sweeps. It varies by a fifth, so that pods don't all sweep at the same time.
const EVERY: Duration = Duration::from_millis(1_000);
/// How many entries are looked at together.
const ENTRIES: usize = 128;
/// How many jobs of one room are taken over together. As a rule these are all jobs that a dead pod left, so that members' slots
/// reach the current state in one step.
const JOBS: usize = 20_000;
/// The most passing jobs that a delivery takes along.
const PASSING: u64 = 100_000;
/// How many rooms are finished at the same time.
const AT_ONCE: usize = 8;
/// How many indexes are looked through at the same time.
const SHARDS_AT_ONCE: usize = 4;
/// How long a pod has for jobs that it took over, in microseconds. No lease is longer. One that ends later was given by a clock
/// that has been set back since.
const TAKEN_LEASE_MICROS: u64 = LEASE_MICROS * 3;
/// How long a seal is kept if the room or user does not exist, in milliseconds.
const KEEP_SEAL_MS: u64 = 24 * 3600 * 1000;

/// Sweeps until the last handle of the writer is dropped.
pub(super) async fn run(writer: Weak<Inner>) {
    loop {
        tokio::time::sleep(EVERY.mul_f64(rand::random_range(0.8..1.2))).await;
        let Some(writer) = Writer::upgrade(&writer) else {
            return;
        };
        // Redis is not available then. The link has logged that, and there is a next sweep.
        let _ = Sweep { writer }.sweep().await;
    }
}

/// Unfinished jobs of some entries.
#[derive(Default)]
struct Backlog {
    jobs: u64,
    oldest_micros: u64,
}

impl Backlog {
    fn add(&mut self, other: &Backlog) {
        self.jobs += other.jobs;
        self.oldest_micros = self.oldest_micros.max(other.oldest_micros);
    }
}

/// The jobs of an entry that this pod takes over.
#[derive(Default)]
struct Takeover {
    backlog: Backlog,
    /// Whether the room or user is sealed, so that the entry may be removed from the index.
    sealed: bool,
    snapshot: Snapshot,
    jobs: Vec<Job>,
}

/// An entry of the index that is due to be looked at.
struct Due {
    entry: String,
    /// The token of its announcement, if that is old enough for the room or user to be sealed with it.
    token: Option<String>,
}

/// One sweep of a pod.
struct Sweep {
    writer: Writer,
}

impl Sweep {
    async fn sweep(&self) -> Result<()> {
        let shards: Vec<Result<Backlog>> = stream::iter(0..keys::PENDING_SHARDS)
            .map(|shard| self.sweep_shard(shard))
            .buffer_unordered(SHARDS_AT_ONCE)
            .collect()
            .await;
        let mut total = Backlog::default();
        for swept in shards {
            match swept {
                Ok(swept) => total.add(&swept),
                // An unreadable index does not stop the sweep of the others.
                Err(error) => self.writer.inner.faults.complain(&error),
            }
        }
        self.writer
            .inner
            .metrics
            .pending(total.jobs, total.oldest_micros as f64 / 1e6);
        Ok(())
    }

    async fn sweep_shard(&self, shard: u32) -> Result<Backlog> {
        let (index, look) = (keys::pending_index(shard), keys::pending_look(shard));
        let mut total = Backlog::default();
        loop {
            let due = self.due(&index, &look).await?;
            let full = due.len() >= ENTRIES;
            let takeovers = self.takeovers(due, &index, &look).await?;
            for (_, takeover) in &takeovers {
                total.add(&takeover.backlog);
            }
            let with_jobs = takeovers
                .into_iter()
                .filter(|(_, takeover)| !takeover.jobs.is_empty());
            let finished: Vec<Result<()>> = stream::iter(with_jobs)
                .map(|(entry, takeover)| self.finish_takeover(entry, takeover))
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            for failure in finished.into_iter().filter_map(Result::err) {
                if !failure.is_transient() {
                    tracing::error!(error = %failure, "a fan-out that was taken over could not be finished");
                }
            }
            if !full {
                return Ok(total);
            }
        }
    }

    /// Takes over the jobs of due entries, and notes in the index that the entries have been looked at.
    async fn takeovers(
        &self,
        due: Vec<Due>,
        index: &str,
        look: &str,
    ) -> Result<Vec<(String, Takeover)>> {
        let calls: Vec<Option<ScriptCall>> = due.iter().map(takeover_call).collect();
        let items: Vec<Item> = calls.iter().flatten().cloned().map(Item::Script).collect();
        let mut answers = self.writer.inner.redis.send_each(&items).await?.into_iter();
        let mut looked = scripts::PENDING_LOOKED.call(&[index, look]);
        let mut takeovers = Vec::with_capacity(due.len());
        for (due, call) in due.into_iter().zip(calls) {
            let answer = match call {
                Some(_) => answers.next().unwrap_or(Ok(Value::Nil)),
                None => Ok(Value::Nil),
            };
            let takeover = answer.and_then(|answer| self.read_takeover(&due.entry, answer));
            let takeover = takeover.unwrap_or_else(|error| {
                self.writer.inner.faults.complain(&error);
                Takeover::default()
            });
            looked.push(&due.entry);
            looked.push(match &due.token {
                Some(token) if takeover.sealed => token.as_str(),
                _ => "",
            });
            takeovers.push((due.entry, takeover));
        }
        self.writer.inner.redis.call(&looked).await?;
        Ok(takeovers)
    }

    /// Entries that no pod has looked at lately. An entry whose time to be looked at is further ahead than the clock can have set
    /// it is due too: the clock has been set back since.
    async fn due(&self, index: &str, look: &str) -> Result<Vec<Due>> {
        let call = scripts::PENDING_TOUCH.call(&[index, look]);
        // Microseconds, by the clock of the index's server.
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
        for answer in self.writer.inner.redis.send_all(&ranges).await? {
            let mut reply = Reply::new(answer)?;
            while !reply.is_empty() {
                entries.push(reply.text()?);
            }
        }
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        // The announcements are read before the rooms and users behind them are looked at, never after.
        let mut scores = redis::cmd("ZMSCORE");
        scores.arg(index).arg(&entries);
        let mut scores = Reply::new(self.writer.inner.redis.query(&scores).await?)?;
        let mut due = Vec::with_capacity(entries.len());
        for entry in entries {
            let token = maybe_text(scores.value()?)?.unwrap_or_else(|| "0".into());
            let at = number(&Value::BulkString(token.clone().into_bytes())).unwrap_or(u64::MAX);
            let is_old = at <= old || at > ahead;
            due.push(Due {
                entry,
                token: is_old.then_some(token),
            });
        }
        Ok(due)
    }

    /// Finishes the jobs that were taken over, and then any other jobs of the same entry whose lease has ended.
    async fn finish_takeover(&self, entry: String, mut takeover: Takeover) -> Result<()> {
        loop {
            let mut jobs = takeover.jobs.len() as u64;
            match keys::parse_entry(&entry) {
                Some(Owner::Room(app, room)) => {
                    jobs -= self.recover_room(&app, &room, takeover).await?.min(jobs);
                }
                Some(Owner::User(app, user)) => {
                    self.writer.leave_rooms(&app, &user, &takeover.jobs).await?
                }
                None => return Ok(()),
            }
            if jobs == 0 {
                return Ok(());
            }
            self.writer.inner.metrics.recovered(jobs);
            tracing::info!(
                fanouts = jobs,
                "finished fan-outs that another pod had left"
            );
            let due = Due {
                entry: entry.clone(),
                token: None,
            };
            let Some(call) = takeover_call(&due) else {
                return Ok(());
            };
            takeover = self.read_takeover(&entry, self.writer.inner.redis.call(&call).await?)?;
            if takeover.jobs.is_empty() {
                return Ok(());
            }
        }
    }

    /// Returns how many jobs stay pending, because they are for users whose slots can't be read.
    async fn recover_room(&self, app: &AppId, room: &Enc, takeover: Takeover) -> Result<u64> {
        let Takeover {
            backlog,
            snapshot,
            jobs,
            ..
        } = takeover;
        let mut passing = Vec::new();
        if backlog.jobs > jobs.len() as u64 && backlog.jobs <= PASSING {
            let mut get = redis::cmd("HGETALL");
            get.arg(RoomKeys::new(app, room).pending());
            passing = Job::read_all(Reply::new(self.writer.inner.redis.query(&get).await?)?)?;
        }
        let work = Work {
            snapshot: snapshot.or_deleted(),
            jobs,
            passing,
            ..Work::default()
        };
        let finished = self.writer.finish(app, room, work).await?;
        Ok(finished.kept)
    }

    fn read_takeover(&self, entry: &str, answer: Value) -> Result<Takeover> {
        let mut reply = Reply::new(answer)?;
        if reply.is_empty() {
            // This program did not write the entry, so no job belongs to it.
            return Ok(Takeover {
                sealed: true,
                ..Takeover::default()
            });
        }
        let (unfinished, sealed) = (reply.number()?, reply.number()? == 1);
        let snapshot = Snapshot::read(&mut reply)?;
        let (mut jobs, mut oldest) = (Vec::new(), None::<u64>);
        while !reply.is_empty() {
            let (id, record) = (reply.text(), reply.text());
            let job = id.and_then(|id| Job::parse(&id, &record?));
            match self.writer.inner.faults.at_key(job, || pending_key(entry)) {
                Ok(job) => {
                    oldest = Some(oldest.map_or(job.stamp, |oldest| oldest.min(job.stamp)));
                    jobs.push(job);
                }
                // A newer version wrote the job, and its pods will finish it; or the job is damaged.
                Err(error) => self.writer.inner.faults.complain(&error),
            }
        }
        // A job's id is the moment of its acceptance and so gives its age, unless the clock has been set back since.
        let age = |stamp| match snapshot.taken.checked_sub(stamp) {
            Some(age) => age,
            None => SWEEP_MICROS,
        };
        Ok(Takeover {
            backlog: Backlog {
                jobs: unfinished,
                oldest_micros: oldest.map_or(0, age),
            },
            sealed,
            snapshot,
            jobs,
        })
    }
}

/// The key of an entry's jobs.
fn pending_key(entry: &str) -> String {
    match keys::parse_entry(entry) {
        Some(Owner::Room(app, room)) => RoomKeys::new(&app, &room).pending(),
        Some(Owner::User(app, user)) => UserKeys::new(&app, &user).pending(),
        None => String::new(),
    }
}

/// The call that takes over an entry's jobs, or seals its room or user. `None`: this program did not write the entry.
fn takeover_call(due: &Due) -> Option<ScriptCall> {
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
