//! One delivery on its way: calls of `deliver.lua` in batches, with the lease of its jobs renewed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::LEASE_MICROS;
use super::plan::{Plan, Target, commas};
use super::work::{Delivered, Refused, Why, Work};
use super::{CLEAR, Delivery};
use crate::connection::Item;
use crate::counts::number::{parse, short, unreadable};
use crate::counts::room::Membership;
use crate::engine::reply::{Reply, maybe_text};
use crate::error::{Error, Result};
use crate::keys::{Enc, RoomKeys, UserKeys};
use crate::names::AppId;
use crate::scripts;

/// Users in one call of the script where only positions move, and where more is to be done: enough to save round trips, few
/// enough that other callers of Redis do not wait long.
const USERS_PER_CALL: usize = 50;
const USERS_PER_HEAVY_CALL: usize = 20;

/// Users in one batch of calls where each call is for one user.
const USERS_PER_BATCH: usize = 32;

/// Batches under way at once for one fan-out.
const BATCHES_AT_ONCE: usize = 8;

/// Users of a fan-out that has many batches under way at once; a wider one has two of smaller calls, so that Redis has the
/// next one when it is done with one, and others wait for no more than these.
const WIDE: usize = 500;
const WIDE_AT_ONCE: usize = 2;
const USERS_PER_WIDE_CALL: usize = 25;

/// Batches that may fail on a cluster before a fan-out is given up, to be taken up again later. On one server: one.
const FAILURES: usize = 16;

/// Marks for everybody in one call of the script, over all its users: a call with more of them is for fewer users. All of
/// one user's go into one call, so that nobody is shown a part of them.
const MARKS_PER_CALL: usize = 2_000;

/// Between two renewals of a fan-out's lease, well within the lease.
const RENEW: Duration = Duration::from_secs(1);

/// The latest stamp there can be, in microseconds: in the year 2112.
const FARTHEST: u64 = 1 << 52;

/// How old a snapshot may be that is delivered. A user's slot remembers for an hour at least which rooms the user has left;
/// a snapshot older than that could bring one back.
const OLDEST: Duration = Duration::from_secs(600);

/// Calls that are sent together, and those whom they are for.
struct Batch<'a> {
    calls: Vec<Item>,
    targets: &'a [&'a Target<'a>],
}

/// What the slots of a batch answered.
#[derive(Default)]
struct Report<'a> {
    /// Targets whose slots refused, why, and the stamp that the slot named.
    refused: Vec<(&'a Target<'a>, Why, u64)>,
    /// Targets that were left unchanged: the caller sends them again with all seven keys.
    needs_all: Vec<&'a Target<'a>>,
    /// Targets whose slots can't be read. The delivery passes them by; the repair that mends them tells them the state of things.
    unreadable: Vec<&'a Target<'a>>,
    ahead: u64,
}

impl<'a> Report<'a> {
    fn join(&mut self, other: Self) {
        self.refused.extend(other.refused);
        self.needs_all.extend(other.needs_all);
        self.unreadable.extend(other.unreadable);
        self.ahead = self.ahead.max(other.ahead);
    }

    /// Reads the reply to one call, which is for the next of these targets.
    fn read(
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
                    self.needs_all.push(target);
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
fn named(stamp: &str) -> Result<u64> {
    match parse(Some(stamp))? {
        stamp if stamp <= FARTHEST => Ok(stamp),
        _ => Err(unreadable()),
    }
}

/// The keys of a user's slot that a delivery is given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeySet {
    /// The two that most users need.
    Two,
    /// All seven.
    Seven,
}

impl Delivery {
    /// Sends a batch.
    async fn send_one<'t>(&self, batch: &Batch<'t>) -> Result<Report<'t>> {
        let answers = self.redis.batch(&batch.calls).await?;
        let mut report = Report::default();
        let mut targets = batch.targets.iter().copied();
        for answer in answers {
            report.read(answer, &mut targets)?;
        }
        self.reached(batch.targets, &report);
        Ok(report)
    }

    /// Counts the targets whose slots took the delivery.
    fn reached(&self, targets: &[&Target<'_>], report: &Report<'_>) {
        let others = report.needs_all.len() + report.refused.len() + report.unreadable.len();
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
    pub(crate) delivered: Delivered,
    /// Members who have left and to whom that was delivered, with the epoch.
    pub(crate) swept: Vec<(Enc, u64)>,
}

impl FanOut<'_> {
    /// Delivers to users by name.
    pub(crate) async fn deliver_to(&mut self, users: &[&Enc]) -> Result<()> {
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
                    Some(entry) => match Membership::parse(&entry) {
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

    /// Delivers to a list that is too long to be read at once. HSCAN answers every member who was in it all the time; a member who
    /// comes or goes meanwhile has a job of their own.
    pub(crate) async fn deliver_by_scan(&mut self) -> Result<()> {
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

    /// Sends to targets: first with two keys to those for whom two may do, then with all seven to the rest.
    pub(crate) async fn send(&mut self, targets: Vec<Target<'_>>) -> Result<()> {
        // A supergroup's positions are not in its members' slots.
        let quick = self.plan.light && self.work.snapshot.kind != "supergroup";
        let (light, mut rest): (Vec<&Target<'_>>, _) =
            targets.iter().partition(|t| quick && t.is_light());
        let (report, failure) = self.send_batches(&light, KeySet::Two).await?;
        rest.extend(&report.needs_all);
        self.take(report);
        let (report, later) = self.send_batches(&rest, KeySet::Seven).await?;
        self.take(report);
        let left = |target: &&Target<'_>| target.state == 'l';
        let refused: BTreeSet<&Enc> = self.delivered.refused.iter().map(|r| &r.user).collect();
        let swept = targets.iter().filter(left);
        let swept = swept.filter(|target| {
            !refused.contains(target.user) && !self.delivered.untold.contains(target.user)
        });
        self.swept
            .extend(swept.map(|target| (target.user.clone(), target.epoch)));
        failure.or(later).map_or(Ok(()), Err)
    }

    fn take(&mut self, report: Report<'_>) {
        let untold = report.unreadable.iter().map(|target| target.user.clone());
        self.delivered.untold.extend(untold);
        self.delivered.ahead = self.delivered.ahead.max(report.ahead);
        for (target, why, stamp) in report.refused {
            self.delivered.refused.push(Refused {
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

    /// Sends to targets in batches. Answers the report and the first failure: a failure does not keep the others from being sent.
    async fn send_batches<'t>(
        &self,
        targets: &'t [&'t Target<'t>],
        keys: KeySet,
    ) -> Result<(Report<'t>, Option<Error>)> {
        let mut all = Report::default();
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
        let (users_per_call, calls_per_batch) = match (spread, keys) {
            (true, _) => (1, (USERS_PER_BATCH * heavy / USERS_PER_HEAVY_CALL).max(1)),
            (false, KeySet::Two) if targets.len() <= WIDE => (USERS_PER_CALL, 1),
            (false, KeySet::Two) => (USERS_PER_WIDE_CALL, 1),
            (false, KeySet::Seven) => (heavy, 1),
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
        self.renew_lease().await?;
        // Only so many batches exist at a time: the calls of a large room together would take too much memory.
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
                    .map(|users| Item::Script(self.call(&common, users, keys)))
                    .collect();
                let batch = Batch { calls, targets };
                under_way.push(async move {
                    let report = self.service.send_one(&batch).await;
                    (batch.targets, report)
                });
            }
            let Some((targets, mut answer)) = under_way.next().await else {
                break;
            };
            if let Err(Error::Unreadable(_)) = answer {
                answer = self.send_one_by_one(&common, targets, keys).await;
            }
            self.renew_lease().await?;
            match answer {
                Ok(report) => all.join(report),
                Err(error) => {
                    failures += 1;
                    let first = failure.get_or_insert(error);
                    // Nothing seems to be reachable.
                    if failures >= may_fail {
                        return Err(first.clone());
                    }
                }
            }
        }
        Ok((all, failure))
    }

    /// Sends to each target by itself, so that one whose slot can't be read does not hide the others.
    async fn send_one_by_one<'t>(
        &self,
        common: &(String, String),
        targets: &'t [&'t Target<'t>],
        keys: KeySet,
    ) -> Result<Report<'t>> {
        let calls: Vec<Item> = targets
            .iter()
            .map(|target| Item::Script(self.call(common, &[*target], keys)))
            .collect();
        let mut report = Report::default();
        let answers = self.service.redis.each(&calls).await?;
        for (target, answer) in targets.iter().zip(answers) {
            let mut alone = Report::default();
            let read = answer.and_then(|answer| alone.read(answer, &mut std::iter::once(*target)));
            match read {
                Ok(()) => report.join(alone),
                Err(error @ Error::Unreadable(_)) => {
                    let slot = || UserKeys::new(self.app, target.user).left();
                    if let Err(error) = self.service.faults.at_slot::<()>(Err(error), slot) {
                        self.service.faults.complain(&error);
                    }
                    report.unreadable.push(*target);
                }
                Err(error) => return Err(error),
            }
        }
        self.service.reached(targets, &report);
        Ok(report)
    }

    /// Renews the lease of the jobs when a delivery takes long, so that no other pod takes them over.
    async fn renew_lease(&self) -> Result<()> {
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

    /// Drops the memberships whose end was delivered. This comes before the jobs are cleared: the other way round, a pod that
    /// dies in between would leave them for good.
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

    /// One call of `deliver.lua`.
    fn call(
        &self,
        common: &(String, String),
        targets: &[&Target<'_>],
        set: KeySet,
    ) -> scripts::Call {
        let snapshot = &self.work.snapshot;
        let mut keys = Vec::with_capacity(targets.len() * 7);
        for target in targets {
            let user = UserKeys::new(self.app, target.user);
            keys.extend([user.counts(), user.rooms()]);
            if set == KeySet::Seven {
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
