//! From accepted jobs to finished jobs: the writer delivers, has the room decide about memberships that users' slots refuse,
//! delivers again to these users, and clears the jobs.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::steps::{RoomSteps, SentAt, Step};
use super::{ROUNDS, USERS_PER_CALL, Writer, unexpected_reply};
use crate::counts::room::{Audience, Job, Membership};
use crate::engine::deliver::{Decision, Decisions, LEASE_MICROS, Reason, Refused, Work};
use crate::engine::reply::{Reply, maybe_text, number};
use crate::engine::snapshot::Snapshot;
use crate::error::{Error, Result};
use crate::event::{Change, EventOutcome, MemberState, Rejection, Wait};
use crate::keys::{self, Enc, RoomKeys};
use crate::names::{AppId, RoomId, UserId};
use crate::scripts;

/// A room with more pending jobs than this keeps none for users whose slots can't be read.
const KEPT: u64 = 1_000;

impl Writer {
    /// Delivers now, or hands the delivery to the background when the caller does not wait for it.
    pub(super) async fn hand_over(
        &self,
        app: &AppId,
        room: Enc,
        work: Work,
        wait: Wait,
    ) -> Result<Finished> {
        // A change of memberships, or of which users exist, is always delivered now: the caller's next event may build on it.
        if wait == Wait::Accepted && work.only_counts() {
            // If too many deliveries run in the background already, the caller waits for this one.
            if let Ok(permit) = Arc::clone(&self.inner.background).try_acquire_owned() {
                let (writer, app) = (self.clone(), app.clone());
                tokio::spawn(async move {
                    // The link logs a failure, and the sweep finds the jobs.
                    let _ = writer.finish(&app, &room, work).await;
                    drop(permit);
                });
                return Ok(Finished::default());
            }
        }
        self.finish(app, &room, work).await
    }

    /// Delivers jobs to their audience, has the room decide about memberships that users' slots refuse, and clears the jobs.
    pub(crate) async fn finish(&self, app: &AppId, room: &Enc, mut work: Work) -> Result<Finished> {
        let keys = RoomKeys::new(app, room);
        let (mut finished, mut ahead) = (Finished::default(), 0);
        let mut resend: Option<Decisions> = None;
        if work.is_empty() {
            return Ok(finished);
        }
        for _ in 0..ROUNDS {
            let delivered = self
                .inner
                .delivery
                .deliver(app, room, &work, resend.as_ref())
                .await?;
            ahead = ahead.max(delivered.ahead);
            finished.unreadable.extend(delivered.unreadable);
            if !delivered.refused.is_empty() {
                let (resets, refused): (Vec<Refused>, Vec<Refused>) = delivered
                    .refused
                    .into_iter()
                    .partition(|one| one.reason == Reason::Reset);
                let mut settlement = self.settle_refusals(app, room, &mut work, &refused).await?;
                self.add_resets(&keys, &mut work, &resets, resend.as_ref(), &mut settlement)
                    .await?;
                finished.over.extend(settlement.over);
                finished.unreadable.extend(settlement.unreadable);
                if settlement.to_all || !settlement.resend.is_empty() {
                    resend = (!settlement.to_all).then_some(settlement.resend);
                    continue;
                }
            }
            // A slot may have seen a later stamp of the room than this pod has.
            let unseen = Some(ahead).filter(|ahead| *ahead > work.snapshot.rev);
            finished.kept += self.keep(&keys, &mut work, &finished).await?;
            match self
                .inner
                .delivery
                .clear(&keys, &work.jobs, unseen.unwrap_or(0))
                .await?
            {
                None => return Ok(finished),
                Some(snapshot) => {
                    work.snapshot = snapshot;
                    resend = None;
                }
            }
        }
        let why = "who is in the room keeps changing; the delivery will be made again";
        Err(Error::Unavailable(why.into()))
    }

    /// Takes out of `work` the jobs for one user alone whose slot can't be read: they stay pending until it has been mended, so
    /// that nothing of them is lost. Returns how many. In a room that has [`KEPT`] jobs, no more are kept.
    async fn keep(&self, keys: &RoomKeys, work: &mut Work, finished: &Finished) -> Result<u64> {
        let waits = |job: &Job| match &job.audience {
            Audience::Some(users) => match users.as_slice() {
                [user] => finished.unreadable.contains(user),
                _ => false,
            },
            _ => false,
        };
        if !work.jobs.iter().any(waits) {
            return Ok(0);
        }
        let mut length = redis::cmd("HLEN");
        length.arg(keys.pending());
        if number(&self.inner.redis.query(&length).await?)? > KEPT {
            return Ok(0);
        }
        let all = work.jobs.len();
        work.jobs.retain(|job| !waits(job));
        Ok((all - work.jobs.len()) as u64)
    }

    /// Adds to `work` the resets that users' slots do not have yet. If the job of a reset is gone and a second delivery is
    /// refused as well, the slot has lost it: the next delivery says so.
    async fn add_resets(
        &self,
        keys: &RoomKeys,
        work: &mut Work,
        refused: &[Refused],
        before: Option<&Decisions>,
        settlement: &mut Settlement,
    ) -> Result<()> {
        for refused in refused.chunks(USERS_PER_CALL) {
            let mut get = redis::cmd("HMGET");
            get.arg(keys.pending());
            for one in refused {
                get.arg(one.stamp);
            }
            let mut records = Reply::new(self.inner.redis.query(&get).await?)?;
            for one in refused {
                let earlier = before.and_then(|before| before.get(&one.user)).copied();
                let mut decision = earlier.unwrap_or_default();
                match maybe_text(records.value()?)? {
                    Some(record) => {
                        let job = Job::parse(&one.stamp.to_string(), &record)?;
                        if work.jobs.iter().all(|known| known.stamp != job.stamp) {
                            work.jobs.push(job);
                        }
                    }
                    None if decision.sought_reset == Some(one.stamp) => {
                        decision.lost_reset = Some(one.stamp);
                    }
                    None => {}
                }
                decision.sought_reset = Some(one.stamp);
                settlement.resend.insert(one.user.clone(), decision);
            }
        }
        Ok(())
    }

    /// Has the room decide what becomes of memberships that users' slots refused. Adds the job that follows to `work`.
    async fn settle_refusals(
        &self,
        app: &AppId,
        room: &Enc,
        work: &mut Work,
        refused: &[Refused],
    ) -> Result<Settlement> {
        let keys = RoomKeys::new(app, room);
        let entry = keys::room_entry(app, room);
        let mut settlement = Settlement::default();
        for refused in refused.chunks(USERS_PER_CALL) {
            let mut reply = self
                .accept(&entry, |token| {
                    let mut call = scripts::MEMBER_SETTLE
                        .call(&[keys.meta(), keys.members(), keys.pending()])
                        .arg(token)
                        .arg(LEASE_MICROS);
                    for one in refused {
                        call.push(one.user.as_str());
                        call.push(one.epoch);
                        call.push(match one.reason {
                            Reason::Deleted => "D",
                            Reason::Over => "O",
                            Reason::Ahead => "A",
                            Reason::Naming => "N",
                            Reason::Reset => "",
                        });
                        call.push(one.stamp);
                        let (job, base) = one.brought_in.unzip();
                        call.push(job.map(|job| job.to_string()).unwrap_or_default());
                        call.push(base.map(|base| base.to_string()).unwrap_or_default());
                    }
                    call
                })
                .await?;
            match reply.text()?.as_str() {
                "OK" => {
                    let job = Job::read(&mut reply)?;
                    // Skips the passing jobs, which `work` has already.
                    reply.value()?;
                    work.snapshot = Snapshot::read(&mut reply)?;
                    // In a direct room the peer's slot changes too.
                    settlement.to_all |= job.is_some() && work.snapshot.kind == "direct";
                    work.jobs.extend(job);
                }
                "ROOM" => {
                    reply.value()?;
                }
                _ => return Err(unexpected_reply()),
            }
            for one in refused {
                let answer = maybe_text(reply.value()?)?.unwrap_or_default();
                if let Err(error) = settlement.add(one, &answer) {
                    self.inner
                        .delivery
                        .report_unreadable_membership(error, &keys);
                    settlement.unreadable.insert(one.user.clone());
                }
            }
        }
        Ok(settlement)
    }

    /// Ends a membership (with `up_to`: one that began at that epoch at the latest), and delivers the end.
    pub(crate) async fn leave(
        &self,
        app: &AppId,
        room: &Enc,
        user: &Enc,
        up_to: Option<u64>,
        as_of: Option<i64>,
    ) -> Result<()> {
        let name = RoomId::parse(keys::decode(room.as_str()));
        let member = UserId::parse(keys::decode(user.as_str()));
        let (Ok(name), Ok(member)) = (name, member) else {
            return Err(Error::Internal("a stored name is no legal one".into()));
        };
        let step = Step {
            up_to,
            sent_at: as_of.map(SentAt::placed).unwrap_or_default(),
            ..Step::internal(Change::Member {
                room: name.clone(),
                state: MemberState::Left,
                users: vec![member],
            })
        };
        let steps = vec![step];
        let mut outcomes = self
            .apply_room(app, RoomSteps { name, steps }, Wait::Applied)
            .await?;
        match outcomes.pop() {
            Some((_, EventOutcome::Rejected(Rejection::Unreadable(what)))) => {
                Err(Error::Unreadable(what))
            }
            _ => Ok(()),
        }
    }
}

/// The report of jobs that were finished.
#[derive(Default)]
pub(crate) struct Finished {
    /// Users whose memberships turned out to be over.
    pub(super) over: BTreeSet<Enc>,
    /// Users whose slots can't be read, so that nothing was delivered to them.
    pub(super) unreadable: BTreeSet<Enc>,
    /// How many jobs stay pending for that reason.
    pub(crate) kept: u64,
}

/// What the room decided about refusals.
#[derive(Default)]
struct Settlement {
    /// Users to deliver to again, with what the room decided about them.
    resend: Decisions,
    /// Whether to deliver to the whole audience again instead.
    to_all: bool,
    /// Users whose membership is over.
    over: BTreeSet<Enc>,
    /// Users whose entries can't be read.
    unreadable: BTreeSet<Enc>,
}

impl Settlement {
    /// Adds the room's answer about one user: the membership or '' for none; about a naming 1 if the user is to exist.
    fn add(&mut self, refused: &Refused, answer: &str) -> Result<()> {
        let mut decision = Decision::default();
        if refused.reason == Reason::Naming {
            decision.named_after = (answer == "1").then_some(refused.stamp);
            if decision.named_after.is_some() {
                self.resend.insert(refused.user.clone(), decision);
            }
            return Ok(());
        }
        let membership = match answer {
            "" => None,
            answer => Some(Membership::parse(answer)?),
        };
        let is_over = membership.is_none_or(|membership| membership.state == 'l');
        if is_over {
            self.over.insert(refused.user.clone());
        }
        let Some(membership) = membership else {
            return Ok(());
        };
        decision.vouched = membership.vouched;
        // An unchanged membership needs no second delivery: the slot refused something late.
        if membership.epoch != refused.epoch || membership.vouched == Some(refused.stamp) {
            self.resend.insert(refused.user.clone(), decision);
        }
        Ok(())
    }
}
