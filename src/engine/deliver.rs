//! Fan-out: bringing a room's jobs to the slots of their audience. A delivery reports what slots refuse and never changes a
//! membership: [`Writer::finish`](crate::engine::write::Writer) acts on the report.

mod fan_out;
mod plan;
mod work;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::fan_out::FanOut;
use self::plan::{Marks, Plan, Target};
use crate::connection::Redis;
use crate::counts::room::{Job, Membership, names};
use crate::engine::faults::Faults;
use crate::engine::members::{LONGEST, MemberList, MemberLists};
use crate::engine::onlookers::Onlookers;
use crate::engine::reply::Reply;
use crate::engine::snapshot::Snapshot;
use crate::error::{Error, Result};
use crate::keys::{Enc, RoomKeys};
use crate::names::AppId;
use crate::scripts;
use crate::telemetry::metrics::Metrics;

pub(crate) use self::work::SingleDelivery;
pub(super) use self::work::{Decision, Decisions, Delivered, Reason, Refused, Work};

/// How long a pod has for a job before another pod may take it over, in microseconds.
pub(super) const LEASE_MICROS: u64 = 5_000_000;
/// The most jobs, memberships or users in one call to the room's slot.
const PER_ROOM_CALL: usize = 500;

/// Delivers to users' slots what rooms accepted.
#[derive(Clone)]
pub(super) struct Delivery {
    redis: Redis,
    lists: Arc<MemberLists>,
    faults: Faults,
    onlookers: Arc<Onlookers>,
    metrics: Arc<Metrics>,
}

impl Delivery {
    pub(super) fn new(
        redis: Redis,
        lists: Arc<MemberLists>,
        faults: Faults,
        onlookers: Arc<Onlookers>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            redis,
            lists,
            faults,
            onlookers,
            metrics,
        }
    }

    /// Delivers jobs to their audience. With `resend` it sends only to those users whose slots refused the delivery before, with
    /// what the room has decided since.
    pub(super) async fn deliver(
        &self,
        app: &AppId,
        room: &Enc,
        work: &Work,
        resend: Option<&Decisions>,
    ) -> Result<Delivered> {
        let keys = RoomKeys::new(app, room);
        let plan = Plan::new(work, resend);
        let mut fan_out = FanOut::new(self, app, room, &keys, &plan);
        let is_direct = work.snapshot.kind == "direct";
        if plan.needs_members && (resend.is_none() || is_direct) {
            match self.members(app, room, &keys, &work.snapshot.mrev).await? {
                Some(list) => {
                    let known: BTreeSet<&Enc> = list.members.iter().map(|(user, _)| user).collect();
                    let targets = list.members.iter().filter_map(|(user, membership)| {
                        let peer = is_direct.then(|| list.peer(user, work.snapshot.born));
                        plan.member(user, *membership, peer.flatten())
                    });
                    let others = plan.marks.keys().filter(|user| !known.contains(*user));
                    let others = others.filter_map(|user| plan.non_member(user));
                    fan_out.send(targets.chain(others).collect()).await?;
                }
                None => fan_out.deliver_by_scan().await?,
            }
        } else {
            let users: Vec<&Enc> = match resend {
                Some(resend) => resend.keys().collect(),
                None => plan.marks.keys().collect(),
            };
            fan_out.deliver_to(&users).await?;
        }
        fan_out.remove_ended().await?;
        Ok(fan_out.delivered)
    }

    /// The room's list of members, of version `mrev` or a later one. `None`: the list is too long to be read at once.
    async fn members(
        &self,
        app: &AppId,
        room: &Enc,
        keys: &RoomKeys,
        mrev: &str,
    ) -> Result<Option<Arc<MemberList>>> {
        let name = (app.clone(), room.clone());
        // The pod's own list is used only if the room named this version.
        if !mrev.is_empty()
            && let Some(list) = self.lists.get(&name)
            && list.mrev == mrev
        {
            return Ok(Some(list));
        }
        let call = scripts::ROOM_MEMBERS
            .call(&[keys.meta(), keys.members()])
            .arg(LONGEST);
        let mut reply = Reply::new(self.redis.call(&call).await?)?;
        let (born, mrev) = (reply.number()?, reply.text()?);
        let (parted, length) = (names(&reply.text()?), reply.number()?);
        if length > LONGEST as u64 {
            return Ok(None);
        }
        let list = Arc::new(MemberList {
            born,
            mrev,
            parted,
            members: self.readable_members(reply, keys)?,
        });
        // A list with a gap is not kept: the version stays the same when the unreadable membership is mended.
        let is_whole = list.members.len() as u64 == length;
        if list.born != 0 && is_whole {
            self.lists.remember(app, room, &list);
        }
        Ok(Some(list))
    }

    /// Reads users and memberships, in turn. A membership that can't be read is reported and left out; the others stay.
    fn readable_members(&self, reply: Reply, keys: &RoomKeys) -> Result<Vec<(Enc, Membership)>> {
        let mut members = Vec::new();
        for (user, membership) in reply.pairs()? {
            match Membership::parse(&membership) {
                Ok(membership) => members.push((Enc::stored(user), membership)),
                Err(error) => self.report_unreadable_membership(error, keys),
            }
        }
        Ok(members)
    }

    pub(super) fn report_unreadable_membership(&self, error: Error, keys: &RoomKeys) {
        if let Err(error) = self.faults.at_key::<()>(Err(error), || keys.members()) {
            self.faults.complain(&error);
        }
    }

    /// Sends one user the state of a room, without a job.
    pub(super) async fn deliver_single(
        &self,
        app: &AppId,
        room: &Enc,
        user: &Enc,
        single: SingleDelivery<'_>,
    ) -> Result<Delivered> {
        let work = Work {
            snapshot: single.snapshot,
            ..Work::default()
        };
        let target = Target {
            user,
            state: single.membership.state,
            epoch: single.membership.epoch,
            base: single.membership.base,
            reset: single.membership.reset,
            peer: single.peer.to_owned(),
            marks: Marks {
                holes: single.holes.iter().map(|at| (u64::MAX, *at)).collect(),
                // A slot that has lost the last reset would refuse all marks that are later.
                resets: single
                    .membership
                    .reset
                    .map(|reset| (reset, "-".to_owned()))
                    .into_iter()
                    .collect(),
                ..Marks::default()
            },
            decision: Decision {
                vouched: single.membership.vouched,
                ..Decision::default()
            },
        };
        let keys = RoomKeys::new(app, room);
        let plan = Plan::new(&work, None);
        let mut fan_out = FanOut::new(self, app, room, &keys, &plan);
        fan_out.send(vec![target]).await?;
        Ok(fan_out.delivered)
    }

    /// Clears finished jobs, and returns `None`. If a slot has seen a later stamp of the room (`ahead`) than the room has itself,
    /// the room has lost data: then the jobs stay, the room goes on above that stamp, and the jobs have to be delivered again
    /// with the snapshot that is returned.
    pub(super) async fn clear(
        &self,
        keys: &RoomKeys,
        jobs: &[Job],
        ahead: u64,
    ) -> Result<Option<Snapshot>> {
        let mut rest = jobs;
        if ahead > 0 {
            let (first, later) = rest.split_at(rest.len().min(PER_ROOM_CALL));
            let mut call = scripts::JOBS_CLEAR.call(&[keys.meta(), keys.pending()]);
            call.push(ahead);
            for job in first {
                call.push(job.stamp);
            }
            let mut reply = Reply::new(self.redis.call(&call).await?)?;
            if !reply.is_empty() {
                return Ok(Some(Snapshot::read(&mut reply)?));
            }
            rest = later;
        }
        for jobs in rest.chunks(PER_ROOM_CALL) {
            let mut clear = redis::cmd("HDEL");
            clear.arg(keys.pending());
            for job in jobs {
                clear.arg(job.stamp);
            }
            self.redis.query(&clear).await?;
        }
        Ok(None)
    }
}
