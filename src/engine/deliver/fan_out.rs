//! One delivery on its way: calls of `deliver.lua` in batches, with the lease of its jobs renewed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::plan::{Plan, Target, commas};
use super::work::{Delivered, Refused, Why, Work};
use super::{CLEAR, Delivery};
use crate::connection::Item;
use crate::counts::number::{parse, short, unreadable};
use crate::counts::room::Entry;
use crate::engine::reply::{Reply, maybe_text};
use crate::engine::write::LEASE_MICROS;
use crate::error::{Error, Result};
use crate::keys::{Enc, RoomKeys, UserKeys};
use crate::names::AppId;
use crate::scripts;

/// Users in one call of the script, where nothing but positions moves and where more has to be done: enough to save round
/// trips, few enough not to hold up other callers of Redis.
pub(crate) const USERS_PER_CALL: usize = 50;

pub(crate) const USERS_PER_HEAVY_CALL: usize = 20;

/// Users in one batch of calls where each call is for one user.
pub(crate) const USERS_PER_BATCH: usize = 32;

/// Batches under way at once for one fan-out.
pub(crate) const BATCHES_AT_ONCE: usize = 8;

/// Users of a fan-out that has many batches under way at once; a wider one has two of smaller calls, so that Redis has the
/// next one when it is done with one, and others wait for no more than these.
pub(crate) const WIDE: usize = 500;

pub(crate) const WIDE_AT_ONCE: usize = 2;

pub(crate) const USERS_PER_WIDE_CALL: usize = 25;

/// Batches that may fail on a cluster before a fan-out is given up, to be taken up again later. On one server: one.
pub(crate) const FAILURES: usize = 16;

/// Marks for everybody in one call of the script, over all its users: a call with more of them is for fewer users. All of
/// one user's go into one call, so that nobody is shown a part of them.
pub(crate) const MARKS_PER_CALL: usize = 2_000;

/// Between two renewals of a fan-out's lease, well within the lease.
pub(crate) const RENEW: Duration = Duration::from_secs(1);

/// The latest stamp there can be, in microseconds: in the year 2112.
pub(crate) const FARTHEST: u64 = 1 << 52;

/// How old a snapshot may be that is delivered. A user's slot remembers for an hour at least which rooms the user has left;
/// a snapshot older than that could bring one back.
pub(crate) const OLDEST: Duration = Duration::from_secs(600);

/// Calls that are sent together, and those whom they are for.
pub(crate) struct Batch<'a> {
    pub(crate) calls: Vec<Item>,
    pub(crate) targets: &'a [&'a Target<'a>],
}

/// What came of them.
#[derive(Default)]
pub(crate) struct Told<'a> {
    /// Targets whose slots refused, why, and what they named.
    pub(crate) refused: Vec<(&'a Target<'a>, Why, u64)>,
    /// Targets that need all keys of their slots.
    pub(crate) closer: Vec<&'a Target<'a>>,
    /// Targets whose slots can't be read. They are passed by: when they are mended they are told the state of things.
    pub(crate) unreadable: Vec<&'a Target<'a>>,
    pub(crate) ahead: u64,
}

impl<'a> Told<'a> {
    pub(crate) fn join(&mut self, other: Self) {
        self.refused.extend(other.refused);
        self.closer.extend(other.closer);
        self.unreadable.extend(other.unreadable);
        self.ahead = self.ahead.max(other.ahead);
    }

    /// Takes a reply to calls for these.
    pub(crate) fn hear(
        &mut self,
        answer: redis::Value,
        targets: &mut impl Iterator<Item = &'a Target<'a>>,
    ) -> Result<()> {
        let unexpected = || Error::Internal("unexpected reply to a delivery".into());
        let mut reply = Reply::new(answer)?;
        while !reply.is_empty() {
            let text = reply.text()?;
            let (letter, stamp) = text.split_at_checked(1).ok_or_else(unexpected)?;
            if letter == ">" {
                self.ahead = self.ahead.max(named(stamp)?);
                continue;
            }
            let target = targets.next().ok_or_else(unexpected)?;
            let why = match letter {
                "K" => continue,
                "C" => {
                    self.closer.push(target);
                    continue;
                }
                "D" if matches!(target.state, '-' | 'l') => Why::Naming,
                "D" => Why::Deleted,
                "O" => Why::Over,
                "A" => Why::Ahead,
                _ => return Err(unexpected()),
            };
            self.refused.push((target, why, named(stamp)?));
        }
        Ok(())
    }
}

/// A stamp that a slot named. One that lies a lifetime ahead was given by no clock, and no room is to go on above it.
pub(crate) fn named(stamp: &str) -> Result<u64> {
    match parse(Some(stamp))? {
        stamp if stamp <= FARTHEST => Ok(stamp),
        _ => Err(unreadable()),
    }
}

/// How many keys of a user's slot a delivery is given: what most need, or all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Quick,
    Close,
}

impl Delivery {
    /// Makes some calls.
    pub(crate) async fn send_one<'t>(&self, batch: &Batch<'t>) -> Result<Told<'t>> {
        let answers = self.redis.batch(&batch.calls).await?;
        let mut told = Told::default();
        let mut targets = batch.targets.iter().copied();
        for answer in answers {
            told.hear(answer, &mut targets)?;
        }
        self.reached(batch.targets, &told);
        Ok(told)
    }

    /// Counts those who were told.
    pub(crate) fn reached(&self, targets: &[&Target<'_>], told: &Told<'_>) {
        let others = told.closer.len() + told.refused.len() + told.unreadable.len();
        let reached = targets.len().saturating_sub(others);
        self.metrics.delivered(reached as u64);
    }
}

/// One delivery on its way.
pub(crate) struct FanOut<'a> {
    pub(crate) service: &'a Delivery,
    pub(crate) app: &'a AppId,
    pub(crate) room: &'a Enc,
    pub(crate) keys: &'a RoomKeys,
    pub(crate) work: &'a Work,
    pub(crate) plan: &'a Plan<'a>,
    pub(crate) came: Delivered,
    /// Members whose leaving has been delivered, and its epoch.
    pub(crate) swept: Vec<(Enc, u64)>,
}

impl FanOut<'_> {
    /// Delivers to users by name.
    pub(crate) async fn some(&mut self, users: &[&Enc]) -> Result<()> {
        for users in users.chunks(CLEAR) {
            let mut get = redis::cmd("HMGET");
            get.arg(self.keys.members());
            for user in users {
                get.arg(user.as_str());
            }
            let mut entries = Reply::new(self.service.redis.query(&get).await?)?;
            let mut targets = Vec::with_capacity(users.len());
            for user in users {
                targets.extend(match maybe_text(entries.value()?)? {
                    None => self.plan.stranger(user),
                    Some(entry) => match Entry::parse(&entry) {
                        Ok(entry) => self.plan.member(user, entry, None),
                        Err(error) => {
                            self.service.pass_by(error, self.keys);
                            None
                        }
                    },
                });
            }
            self.send(targets).await?;
        }
        Ok(())
    }

    /// Delivers to a list too long to be read at once. HSCAN answers everybody who was in it all the time; who came or
    /// went meanwhile has a fan-out of his own.
    pub(crate) async fn walk(&mut self) -> Result<()> {
        let redis = &self.service.redis;
        let plan = self.plan;
        let members = self.keys.members();
        let serving = redis.serving(&members).await?;
        let mut cursor = "0".to_owned();
        let mut named: BTreeSet<Enc> = plan.own.keys().cloned().collect();
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(&members).arg(&cursor).arg("COUNT").arg(1_000);
            let mut page = Reply::new(redis.query(&scan).await?)?;
            cursor = page.text()?;
            let entries = self.service.readable_members(page.list()?, self.keys)?;
            let targets = entries
                .iter()
                .filter_map(|(user, entry)| {
                    named.remove(user);
                    plan.member(user, *entry, None)
                })
                .collect();
            self.send(targets).await?;
            if self.swept.len() >= CLEAR {
                self.sweep().await?;
            }
            if cursor == "0" {
                break;
            }
        }
        // A cursor means nothing to another server, such as a replica that took over: somebody may have been left out.
        if redis.serving(&members).await? != serving {
            let why = "the room moved to another server; the delivery will be made again";
            return Err(Error::Unavailable(why.into()));
        }
        let strangers = named
            .iter()
            .filter_map(|user| plan.stranger(user))
            .collect();
        self.send(strangers).await
    }

    pub(crate) async fn send(&mut self, targets: Vec<Target<'_>>) -> Result<()> {
        // A supergroup's positions are not in its members' slots.
        let quick = self.plan.light && self.work.snapshot.kind != "supergroup";
        let (light, mut rest): (Vec<&Target<'_>>, _) =
            targets.iter().partition(|t| quick && t.is_light());
        let (told, failure) = self.pass(&light, Look::Quick).await?;
        rest.extend(&told.closer);
        self.take(told);
        let (told, later) = self.pass(&rest, Look::Close).await?;
        self.take(told);
        let left = |target: &&Target<'_>| target.state == 'l';
        let refused: BTreeSet<&Enc> = self.came.refused.iter().map(|r| &r.user).collect();
        let swept = targets.iter().filter(left);
        let swept = swept.filter(|target| {
            !refused.contains(target.user) && !self.came.untold.contains(target.user)
        });
        self.swept
            .extend(swept.map(|target| (target.user.clone(), target.epoch)));
        failure.or(later).map_or(Ok(()), Err)
    }

    pub(crate) fn take(&mut self, told: Told<'_>) {
        let untold = told.unreadable.iter().map(|target| target.user.clone());
        self.came.untold.extend(untold);
        self.came.ahead = self.came.ahead.max(told.ahead);
        for (target, why, stamp) in told.refused {
            self.came.refused.push(Refused {
                user: target.user.clone(),
                epoch: match (why, target.marks.named) {
                    (Why::Naming, Some(naming)) => naming.job,
                    _ => target.epoch,
                },
                why,
                stamp,
                brings: self.plan.brings.get(target.user).copied(),
            });
        }
    }

    /// Tells some; answers what came of it, and the first failure: whoever can be reached is told all the same.
    pub(crate) async fn pass<'t>(
        &self,
        targets: &'t [&'t Target<'t>],
        look: Look,
    ) -> Result<(Told<'t>, Option<Error>)> {
        let mut all = Told::default();
        if targets.is_empty() {
            return Ok((all, None));
        }
        let plan = self.plan;
        let common = (
            commas(plan.common_holes.iter().copied()),
            commas(plan.common_mentions.iter().copied()),
        );
        let marks = plan.common_holes.len() + plan.common_mentions.len();
        let heavy = (MARKS_PER_CALL / marks.max(1)).clamp(1, USERS_PER_HEAVY_CALL);
        // Users of a cluster are in slots of their own: a call for each, and many calls in one batch.
        let spread = self.service.redis.spans_slots();
        let (users_per_call, calls_per_batch) = match (spread, look) {
            (true, _) => (1, (USERS_PER_BATCH * heavy / USERS_PER_HEAVY_CALL).max(1)),
            (false, Look::Quick) if targets.len() <= WIDE => (USERS_PER_CALL, 1),
            (false, Look::Quick) => (USERS_PER_WIDE_CALL, 1),
            (false, Look::Close) => (heavy, 1),
        };
        let at_once = match !spread && targets.len() > WIDE {
            true => WIDE_AT_ONCE,
            false => BATCHES_AT_ONCE,
        };
        let may_fail = match spread {
            true => FAILURES,
            false => 1,
        };
        let (mut failure, mut failures) = (None, 0);
        self.keep().await?;
        // So many batches at a time: a room may have more members than their calls should take memory.
        let mut rest = targets;
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < at_once && !rest.is_empty() {
                if self.work.snapshot.since.elapsed() > OLDEST {
                    let why = "a delivery took too long; it will be made again";
                    return Err(Error::Unavailable(why.into()));
                }
                let (targets, later) =
                    rest.split_at(rest.len().min(users_per_call * calls_per_batch));
                rest = later;
                let calls = targets
                    .chunks(users_per_call)
                    .map(|users| Item::Script(self.call(&common, users, look)))
                    .collect();
                let batch = Batch { calls, targets };
                under_way.push(async move {
                    let told = self.service.send_one(&batch).await;
                    (batch.targets, told)
                });
            }
            let Some((targets, mut answer)) = under_way.next().await else {
                break;
            };
            if let Err(Error::Unreadable(_)) = answer {
                answer = self.apart(&common, targets, look).await;
            }
            self.keep().await?;
            match answer {
                Ok(told) => all.join(told),
                Err(error) => {
                    failures += 1;
                    let first = failure.get_or_insert(error);
                    // Nobody seems to be.
                    if failures >= may_fail {
                        return Err(first.clone());
                    }
                }
            }
        }
        Ok((all, failure))
    }

    /// Tells each on its own, where some of them can't be: that is said, and hides nobody else.
    pub(crate) async fn apart<'t>(
        &self,
        common: &(String, String),
        targets: &'t [&'t Target<'t>],
        look: Look,
    ) -> Result<Told<'t>> {
        let calls: Vec<Item> = targets
            .iter()
            .map(|target| Item::Script(self.call(common, &[*target], look)))
            .collect();
        let mut told = Told::default();
        let answers = self.service.redis.each(&calls).await?;
        for (target, answer) in targets.iter().zip(answers) {
            let mut alone = Told::default();
            let heard = answer.and_then(|answer| alone.hear(answer, &mut std::iter::once(*target)));
            match heard {
                Ok(()) => told.join(alone),
                Err(error @ Error::Unreadable(_)) => {
                    let slot = || UserKeys::new(self.app, target.user).left();
                    if let Err(error) = self.service.faults.at_slot::<()>(Err(error), slot) {
                        self.service.faults.complain(&error);
                    }
                    told.unreadable.push(*target);
                }
                Err(error) => return Err(error),
            }
        }
        self.service.reached(targets, &told);
        Ok(told)
    }

    /// Renews the lease of fan-outs that take long, so that nobody begins them a second time.
    pub(crate) async fn keep(&self) -> Result<()> {
        let plan = self.plan;
        {
            let mut leased = plan.leased.lock().unwrap_or_else(|held| held.into_inner());
            if plan.jobs.is_empty() || leased.elapsed() < RENEW {
                return Ok(());
            }
            *leased = Instant::now();
        }
        for jobs in plan.jobs.chunks(CLEAR) {
            let mut call = scripts::JOBS_RENEW
                .call(&[self.keys.pending()])
                .arg(LEASE_MICROS);
            for job in jobs {
                call.push(*job);
            }
            self.service.redis.call(&call).await?;
        }
        Ok(())
    }

    /// Drops the entries of members whose leaving was delivered. That comes before the jobs are cleared: were it the other
    /// way round, a pod dying in between would leave the entries for good.
    pub(crate) async fn sweep(&mut self) -> Result<()> {
        for swept in self.swept.chunks(CLEAR) {
            let keys = [self.keys.meta(), self.keys.members()];
            let mut call = scripts::MEMBERS_SWEEP.call(&keys);
            for (user, epoch) in swept {
                call.push(user.as_str());
                call.push(*epoch);
            }
            self.service.redis.call(&call).await?;
        }
        self.swept.clear();
        Ok(())
    }

    pub(crate) fn call(
        &self,
        common: &(String, String),
        targets: &[&Target<'_>],
        look: Look,
    ) -> scripts::Call {
        let snapshot = &self.work.snapshot;
        let mut keys = Vec::with_capacity(targets.len() * 7);
        for target in targets {
            let user = UserKeys::new(self.app, target.user);
            keys.extend([user.counts(), user.rooms()]);
            if look == Look::Close {
                keys.extend([
                    user.supers(),
                    user.refs(),
                    user.marks(),
                    user.left(),
                    user.prefs(),
                ]);
            }
        }
        let mut call = scripts::DELIVER.call(&keys);
        call.push(self.room.as_str());
        call.push(snapshot.rev);
        call.push(snapshot.head);
        call.push(&snapshot.kind);
        call.push(&snapshot.status);
        call.push(&snapshot.custom_type);
        call.push(&snapshot.tags);
        call.push(snapshot.created);
        let last = snapshot.last.map(|last| last.record(snapshot.rev));
        call.push(last.unwrap_or_default());
        call.push(&common.0);
        call.push(&common.1);
        for target in targets {
            call.push(target.membership());
            let after = snapshot.rev.checked_sub(target.epoch);
            call.push(after.map(short).unwrap_or_default());
            call.push(target.base);
            call.push(target.more());
        }
        call
    }
}
