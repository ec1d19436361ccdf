//! One delivery under way: it calls `deliver.lua` in batches and renews the lease of its jobs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::plan::{Plan, Target, stamped_list};
use super::work::{Delivered, Reason, Refused};
use super::{Delivery, LEASE_MICROS, PER_ROOM_CALL};
use crate::connection::Item;
use crate::counts::number::{parse, short, unreadable};
use crate::counts::room::Membership;
use crate::engine::reply::{Reply, maybe_text};
use crate::error::{Error, Result};
use crate::keys::{Enc, RoomKeys, UserKeys};
use crate::names::AppId;
use crate::scripts;

/// The most users in one call of the script: if only positions move, and otherwise. So many users save round trips, and are few
/// enough that other callers of Redis do not wait long.
const USERS_PER_CALL: usize = 50;
const USERS_PER_HEAVY_CALL: usize = 20;

/// The most users in one batch if each call is for one user.
const USERS_PER_BATCH: usize = 32;

/// The most batches that one fan-out has under way at once.
const BATCHES_AT_ONCE: usize = 8;

/// A fan-out to more users than this has fewer batches under way, and smaller calls. They are enough for Redis to have the next
/// call when it is done with one, and few enough that other callers do not wait long.
const WIDE: usize = 500;
const WIDE_AT_ONCE: usize = 2;
const USERS_PER_WIDE_CALL: usize = 25;

/// How many batches may fail on a cluster before the fan-out is given up and another pod takes it over later. On one server: one.
const FAILURES: usize = 16;

/// Marks for everybody in one call of the script, over all its users: a call with more marks is for fewer users. All marks of
/// one user go into one call, so that no user sees a part of them.
const MARKS_PER_CALL: usize = 2_000;

/// Time between two renewals of the lease of the jobs, well within the lease.
const RENEW: Duration = Duration::from_secs(1);

/// The latest stamp there can be, in microseconds: in the year 2112.
const LATEST_STAMP: u64 = 1 << 52;

/// How old a snapshot may be to be delivered. A user's slot keeps a tombstone for an hour at least. An older snapshot could bring
/// a room back that the user has left.
const OLDEST_SNAPSHOT: Duration = Duration::from_secs(600);

/// Calls that are sent together, and their targets.
struct CallBatch<'a> {
    calls: Vec<Item>,
    targets: &'a [&'a Target<'a>],
}

/// What the slots of a batch answered.
#[derive(Default)]
struct SlotAnswers<'a> {
    /// Targets whose slots refused, the reason, and the stamp that the slot gave.
    refused: Vec<(&'a Target<'a>, Reason, u64)>,
    /// Targets whose slots left themselves unchanged because they need all seven keys: the fan-out sends to them again.
    needs_all: Vec<&'a Target<'a>>,
    /// Targets whose slots can't be read. The delivery leaves them out; the repair that mends a slot also sends it the state.
    unreadable: Vec<&'a Target<'a>>,
    /// The latest stamp in a slot that is later than the snapshot; 0 if there is none.
    ahead: u64,
}

impl<'a> SlotAnswers<'a> {
    fn join(&mut self, other: Self) {
        self.refused.extend(other.refused);
        self.needs_all.extend(other.needs_all);
        self.unreadable.extend(other.unreadable);
        self.ahead = self.ahead.max(other.ahead);
    }

    /// Reads the reply to one call, which is about the next of `targets`.
    fn read(
        &mut self,
        reply: redis::Value,
        targets: &mut impl Iterator<Item = &'a Target<'a>>,
    ) -> Result<()> {
        let unexpected_reply = || Error::Internal("unexpected reply to a delivery".into());
        let mut reply = Reply::new(reply)?;
        while !reply.is_empty() {
            let text = reply.text()?;
            let (letter, stamp) = text.split_at_checked(1).ok_or_else(unexpected_reply)?;
            if letter == ">" {
                self.ahead = self.ahead.max(slot_stamp(stamp)?);
                continue;
            }
            let target = targets.next().ok_or_else(unexpected_reply)?;
            let reason = match letter {
                "K" => continue,
                "C" => {
                    self.needs_all.push(target);
                    continue;
                }
                "D" if matches!(target.state, '-' | 'l') => Reason::Naming,
                "D" => Reason::Deleted,
                "O" => Reason::Over,
                "A" => Reason::Ahead,
                "R" => Reason::Reset,
                _ => return Err(unexpected_reply()),
            };
            self.refused.push((target, reason, slot_stamp(stamp)?));
        }
        Ok(())
    }
}

/// A stamp that a slot gave. One in the far future is from no clock, and no room may go on above it.
fn slot_stamp(stamp: &str) -> Result<u64> {
    match parse(Some(stamp))? {
        stamp if stamp <= LATEST_STAMP => Ok(stamp),
        _ => Err(unreadable()),
    }
}

/// The keys of a user's slot that a delivery is given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeySet {
    /// Counts and rooms, which are enough for most users.
    Two,
    /// All seven keys.
    Seven,
}

impl Delivery {
    /// Sends a batch.
    async fn send_batch<'t>(&self, batch: &CallBatch<'t>) -> Result<SlotAnswers<'t>> {
        let replies = self.redis.send_all(&batch.calls).await?;
        let mut answers = SlotAnswers::default();
        let mut targets = batch.targets.iter().copied();
        for reply in replies {
            answers.read(reply, &mut targets)?;
        }
        self.count_reached(batch.targets, &answers);
        Ok(answers)
    }

    /// Counts the targets whose slots took the delivery.
    fn count_reached(&self, targets: &[&Target<'_>], answers: &SlotAnswers<'_>) {
        let others = answers.needs_all.len() + answers.refused.len() + answers.unreadable.len();
        let reached = targets.len().saturating_sub(others);
        self.metrics.delivered(reached as u64);
    }
}

/// One delivery under way.
pub(super) struct FanOut<'a> {
    delivery: &'a Delivery,
    app: &'a AppId,
    room: &'a Enc,
    keys: &'a RoomKeys,
    plan: &'a Plan<'a>,
    pub(super) delivered: Delivered,
    /// Users whose slots have the end of their membership, with its epoch. The room can drop these memberships.
    ended: Vec<(Enc, u64)>,
}

/// The marks for everybody, as `deliver.lua` takes them.
struct CommonMarks {
    holes: String,
    mentions: String,
}

/// How a fan-out is cut into calls and batches.
struct Sizes {
    users_per_call: usize,
    calls_per_batch: usize,
    batches_at_once: usize,
    /// Batches that may fail before the fan-out is given up.
    failures: usize,
}

impl<'a> FanOut<'a> {
    pub(super) fn new(
        delivery: &'a Delivery,
        app: &'a AppId,
        room: &'a Enc,
        keys: &'a RoomKeys,
        plan: &'a Plan<'a>,
    ) -> Self {
        Self {
            delivery,
            app,
            room,
            keys,
            plan,
            delivered: Delivered::default(),
            ended: Vec::new(),
        }
    }

    /// Delivers to the named users, as far as the plan has something for them.
    pub(super) async fn deliver_to(&mut self, users: &[&Enc]) -> Result<()> {
        for users in users.chunks(PER_ROOM_CALL) {
            let mut get = redis::cmd("HMGET");
            get.arg(self.keys.members());
            for user in users {
                get.arg(user.as_str());
            }
            let mut memberships = Reply::new(self.delivery.redis.query(&get).await?)?;
            let mut targets = Vec::with_capacity(users.len());
            for user in users {
                targets.extend(match maybe_text(memberships.value()?)? {
                    None => self.plan.non_member(user),
                    Some(membership) => match Membership::parse(&membership) {
                        Ok(membership) => self.plan.member(user, membership, None),
                        Err(error) => {
                            self.delivery.report_unreadable_membership(error, self.keys);
                            None
                        }
                    },
                });
            }
            self.send(targets).await?;
        }
        Ok(())
    }

    /// Delivers to a list of members that is too long to be read at once. HSCAN returns every member who is in it all the time; a
    /// member who joins or leaves meanwhile has a job of its own.
    pub(super) async fn deliver_by_scan(&mut self) -> Result<()> {
        let redis = &self.delivery.redis;
        let plan = self.plan;
        let members_key = self.keys.members();
        let serving = redis.serving(&members_key).await?;
        let mut cursor = "0".to_owned();
        let mut not_found: BTreeSet<Enc> = plan.marks.keys().cloned().collect();
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(&members_key).arg(&cursor).arg("COUNT").arg(1_000);
            let mut page = Reply::new(redis.query(&scan).await?)?;
            cursor = page.text()?;
            let members = self.delivery.readable_members(page.list()?, self.keys)?;
            let targets = members
                .iter()
                .filter_map(|(user, membership)| {
                    not_found.remove(user);
                    plan.member(user, *membership, None)
                })
                .collect();
            self.send(targets).await?;
            if self.ended.len() >= PER_ROOM_CALL {
                self.remove_ended().await?;
            }
            if cursor == "0" {
                break;
            }
        }
        // A cursor means nothing to another server, such as a replica that took over. Members may have been left out then.
        if redis.serving(&members_key).await? != serving {
            let why = "the room moved to another server; the delivery will be made again";
            return Err(Error::Unavailable(why.into()));
        }
        let others = not_found
            .iter()
            .filter_map(|user| plan.non_member(user))
            .collect();
        self.send(others).await
    }

    /// Sends to targets: first with two keys where two may be enough, then with all seven to the others.
    pub(super) async fn send(&mut self, targets: Vec<Target<'_>>) -> Result<()> {
        // A supergroup's positions are not in its members' slots.
        let two_may_do = self.plan.only_moves && self.plan.snapshot.kind != "supergroup";
        let (with_two, mut with_seven): (Vec<&Target<'_>>, _) = targets
            .iter()
            .partition(|target| two_may_do && target.only_moves());
        let (answers, failure) = self.send_batches(&with_two, KeySet::Two).await?;
        with_seven.extend(&answers.needs_all);
        self.add_answers(answers);
        let (answers, later_failure) = self.send_batches(&with_seven, KeySet::Seven).await?;
        self.add_answers(answers);
        let refused: BTreeSet<&Enc> = self.delivered.refused.iter().map(|r| &r.user).collect();
        let ended = targets.iter().filter(|target| {
            target.state == 'l'
                && !refused.contains(target.user)
                && !self.delivered.unreadable.contains(target.user)
        });
        self.ended
            .extend(ended.map(|target| (target.user.clone(), target.epoch)));
        failure.or(later_failure).map_or(Ok(()), Err)
    }

    fn add_answers(&mut self, answers: SlotAnswers<'_>) {
        let unreadable = answers.unreadable.iter().map(|target| target.user.clone());
        self.delivered.unreadable.extend(unreadable);
        self.delivered.ahead = self.delivered.ahead.max(answers.ahead);
        for (target, reason, stamp) in answers.refused {
            self.delivered.refused.push(Refused {
                user: target.user.clone(),
                epoch: match (reason, target.marks.naming) {
                    (Reason::Naming, Some(naming)) => naming.job,
                    _ => target.epoch,
                },
                reason,
                stamp,
                brought_in: self.plan.brought_in.get(target.user).copied(),
            });
        }
    }

    /// Sends to targets in batches. Returns the answers and the first failure: the other batches are sent in spite of it.
    async fn send_batches<'t>(
        &self,
        targets: &'t [&'t Target<'t>],
        keys: KeySet,
    ) -> Result<(SlotAnswers<'t>, Option<Error>)> {
        let mut all = SlotAnswers::default();
        if targets.is_empty() {
            return Ok((all, None));
        }
        let common = CommonMarks {
            holes: stamped_list(&self.plan.common_holes),
            mentions: stamped_list(&self.plan.common_mentions),
        };
        let sizes = self.sizes(targets.len(), keys);
        let (mut first_failure, mut failures) = (None, 0);
        self.renew_lease().await?;
        // Only a few batches exist at a time: all calls of a large room together would take too much memory.
        let mut rest = targets;
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < sizes.batches_at_once && !rest.is_empty() {
                let users = sizes.users_per_call * sizes.calls_per_batch;
                let (targets, later) = rest.split_at(rest.len().min(users));
                rest = later;
                let batch = self.batch(&common, targets, keys, sizes.users_per_call)?;
                under_way.push(async move {
                    let answers = self.delivery.send_batch(&batch).await;
                    (batch.targets, answers)
                });
            }
            let Some((targets, mut answers)) = under_way.next().await else {
                break;
            };
            if let Err(Error::Unreadable(_)) = answers {
                answers = self.send_one_by_one(&common, targets, keys).await;
            }
            self.renew_lease().await?;
            match answers {
                Ok(answers) => all.join(answers),
                Err(error) => {
                    failures += 1;
                    let first = first_failure.get_or_insert(error);
                    // So many failures mean that Redis can't be reached.
                    if failures >= sizes.failures {
                        return Err(first.clone());
                    }
                }
            }
        }
        Ok((all, first_failure))
    }

    fn sizes(&self, targets: usize, keys: KeySet) -> Sizes {
        let marks = self.plan.common_holes.len() + self.plan.common_mentions.len();
        let heavy = (MARKS_PER_CALL / marks.max(1)).clamp(1, USERS_PER_HEAVY_CALL);
        let is_wide = targets > WIDE;
        // On a cluster each user is in a slot of its own: one call for each, and many calls in one batch.
        if self.delivery.redis.spans_slots() {
            return Sizes {
                users_per_call: 1,
                calls_per_batch: (USERS_PER_BATCH * heavy / USERS_PER_HEAVY_CALL).max(1),
                batches_at_once: BATCHES_AT_ONCE,
                failures: FAILURES,
            };
        }
        Sizes {
            users_per_call: match keys {
                KeySet::Two if is_wide => USERS_PER_WIDE_CALL,
                KeySet::Two => USERS_PER_CALL,
                KeySet::Seven => heavy,
            },
            calls_per_batch: 1,
            batches_at_once: if is_wide {
                WIDE_AT_ONCE
            } else {
                BATCHES_AT_ONCE
            },
            failures: 1,
        }
    }

    /// The calls for some targets, unless the snapshot has become too old to be delivered.
    fn batch<'t>(
        &self,
        common: &CommonMarks,
        targets: &'t [&'t Target<'t>],
        keys: KeySet,
        users_per_call: usize,
    ) -> Result<CallBatch<'t>> {
        if self.plan.snapshot.since.elapsed() > OLDEST_SNAPSHOT {
            let why = "a delivery took too long; it will be made again";
            return Err(Error::Unavailable(why.into()));
        }
        let calls = targets
            .chunks(users_per_call)
            .map(|targets| Item::Script(self.call(common, targets, keys)))
            .collect();
        Ok(CallBatch { calls, targets })
    }

    /// Sends to each target by itself, so that an unreadable slot does not keep the others from their delivery.
    async fn send_one_by_one<'t>(
        &self,
        common: &CommonMarks,
        targets: &'t [&'t Target<'t>],
        keys: KeySet,
    ) -> Result<SlotAnswers<'t>> {
        let calls: Vec<Item> = targets
            .iter()
            .map(|target| Item::Script(self.call(common, &[*target], keys)))
            .collect();
        let mut answers = SlotAnswers::default();
        let replies = self.delivery.redis.send_each(&calls).await?;
        for (target, reply) in targets.iter().zip(replies) {
            let mut alone = SlotAnswers::default();
            let read = reply.and_then(|reply| alone.read(reply, &mut std::iter::once(*target)));
            match read {
                Ok(()) => answers.join(alone),
                Err(error @ Error::Unreadable(_)) => {
                    let slot = || UserKeys::new(self.app, target.user).left();
                    if let Err(error) = self.delivery.faults.at_slot::<()>(Err(error), slot) {
                        self.delivery.faults.complain(&error);
                    }
                    answers.unreadable.push(*target);
                }
                Err(error) => return Err(error),
            }
        }
        self.delivery.count_reached(targets, &answers);
        Ok(answers)
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
        for jobs in plan.jobs.chunks(PER_ROOM_CALL) {
            let mut call = scripts::JOBS_RENEW
                .call(&[self.keys.pending()])
                .arg(LEASE_MICROS);
            for job in jobs {
                call.push(*job);
            }
            self.delivery.redis.call(&call).await?;
        }
        Ok(())
    }

    /// Removes the memberships from the room whose end was delivered. This is done before the jobs are cleared: in the other
    /// order, a pod that dies in between would leave these memberships in the room for good.
    pub(super) async fn remove_ended(&mut self) -> Result<()> {
        for ended in self.ended.chunks(PER_ROOM_CALL) {
            let keys = [self.keys.meta(), self.keys.members()];
            let mut call = scripts::MEMBERS_SWEEP.call(&keys);
            for (user, epoch) in ended {
                call.push(user.as_str());
                call.push(*epoch);
            }
            self.delivery.redis.call(&call).await?;
        }
        self.ended.clear();
        Ok(())
    }

    /// One call of `deliver.lua`.
    fn call(
        &self,
        common: &CommonMarks,
        targets: &[&Target<'_>],
        set: KeySet,
    ) -> scripts::ScriptCall {
        let snapshot = self.plan.snapshot;
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
        call.push(&common.holes);
        call.push(&common.mentions);
        for target in targets {
            call.push(target.membership());
            let after = snapshot.rev.checked_sub(target.epoch);
            call.push(after.map(short).unwrap_or_default());
            call.push(target.base);
            call.push(target.extra());
        }
        if !self.delivery.onlookers.may_be_watched(self.app) {
            call.push("");
        }
        call
    }
}
