//! Fan-out: bringing what a room accepted to the slots of its members. A delivery only reports what slots refuse, and never
//! changes who is in the room: that is for the writer ([`Writer::finish`](crate::engine::write::Writer)) to act on.

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
use crate::engine::members::{LIST, MemberList, MemberLists};
use crate::engine::reply::Reply;
use crate::engine::snapshot::Snapshot;
use crate::error::{Error, Result};
use crate::keys::{Enc, RoomKeys};
use crate::names::AppId;
use crate::scripts;
use crate::telemetry::metrics::Metrics;

pub(crate) use self::work::{Answer, Answers, Delivered, Refused, Tell, Why, Work};

/// How long a pod has for a fan-out before another one takes it over, in microseconds.
pub(crate) const LEASE_MICROS: u64 = 5_000_000;
/// Jobs and departures cleared in one call.
pub(crate) const CLEAR: usize = 500;

/// Brings what rooms accepted to the slots of their members.
#[derive(Clone)]
pub(crate) struct Delivery {
    redis: Redis,
    lists: Arc<MemberLists>,
    faults: Faults,
    metrics: Arc<Metrics>,
}

impl Delivery {
    pub(crate) fn new(
        redis: Redis,
        lists: Arc<MemberLists>,
        faults: Faults,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            redis,
            lists,
            faults,
            metrics,
        }
    }

    /// Delivers to everybody concerned, or to some of them.
    pub(crate) async fn deliver(
        &self,
        app: &AppId,
        room: &Enc,
        work: &Work,
        only: Option<&Answers>,
    ) -> Result<Delivered> {
        let keys = RoomKeys::new(app, room);
        let plan = Plan::new(work, only);
        let mut fan_out = FanOut {
            service: self,
            app,
            room,
            keys: &keys,
            work,
            plan: &plan,
            delivered: Delivered::default(),
            swept: Vec::new(),
        };
        if plan.full && (only.is_none() || work.snapshot.kind == "direct") {
            match self.members(app, room, &keys, &work.snapshot.mrev).await? {
                Some(list) => {
                    let seen: BTreeSet<&Enc> = list.entries.iter().map(|(user, _)| user).collect();
                    let direct = work.snapshot.kind == "direct";
                    let targets = list.entries.iter().filter_map(|(user, entry)| {
                        let peer = direct.then(|| list.peer(user, work.snapshot.born));
                        plan.member(user, *entry, peer.flatten())
                    });
                    let strangers = plan
                        .own
                        .keys()
                        .filter(|u| !seen.contains(*u))
                        .filter_map(|u| plan.stranger(u));
                    let targets = targets.chain(strangers).collect();
                    fan_out.send(targets).await?;
                }
                None => fan_out.deliver_by_scan().await?,
            }
        } else {
            let users: Vec<&Enc> = match only {
                Some(only) => only.keys().collect(),
                None => plan.own.keys().collect(),
            };
            fan_out.deliver_to(&users).await?;
        }
        fan_out.sweep().await?;
        Ok(fan_out.delivered)
    }

    /// The list of members of version `mrev` or a later one; `None`: too long to be held.
    async fn members(
        &self,
        app: &AppId,
        room: &Enc,
        keys: &RoomKeys,
        mrev: &str,
    ) -> Result<Option<Arc<MemberList>>> {
        let name = (app.clone(), room.clone());
        // A cache that speeds up and never decides: it is used only if the room says that this list is current.
        if !mrev.is_empty()
            && let Some(list) = self.lists.get(&name)
            && list.mrev == mrev
        {
            return Ok(Some(list));
        }
        let call = scripts::ROOM_MEMBERS
            .call(&[keys.meta(), keys.members()])
            .arg(LIST);
        let mut reply = Reply::new(self.redis.call(&call).await?)?;
        let (born, mrev) = (reply.number()?, reply.text()?);
        let (parted, length) = (names(&reply.text()?), reply.number()?);
        if length > LIST as u64 {
            return Ok(None);
        }
        let list = Arc::new(MemberList {
            born,
            mrev,
            parted,
            entries: self.readable_members(reply, keys)?,
        });
        // When an entry is mended the list does not become another version.
        let is_whole = list.entries.len() as u64 == length;
        if list.born != 0 && is_whole {
            self.lists.remember(app, room, &list);
        }
        Ok(Some(list))
    }

    /// The members in a reply, without those whose entries can't be read: that is said, and hides nobody else.
    fn readable_members(&self, reply: Reply, keys: &RoomKeys) -> Result<Vec<(Enc, Membership)>> {
        let mut members = Vec::new();
        for (user, entry) in reply.pairs()? {
            match Membership::parse(&entry) {
                Ok(entry) => members.push((Enc::stored(user), entry)),
                Err(error) => self.pass_by(error, keys),
            }
        }
        Ok(members)
    }

    /// Says of a member's entry that it can't be read.
    fn pass_by(&self, error: Error, keys: &RoomKeys) {
        if let Err(error) = self.faults.at::<()>(Err(error), || keys.members()) {
            self.faults.complain(&error);
        }
    }

    /// Brings one user a room as it is, outside of any fan-out.
    pub(crate) async fn tell(
        &self,
        app: &AppId,
        room: &Enc,
        user: &Enc,
        told: Tell<'_>,
    ) -> Result<Delivered> {
        let work = Work {
            snapshot: told.snapshot,
            ..Work::default()
        };
        let target = Target {
            user,
            state: told.membership.state,
            epoch: told.membership.epoch,
            base: told.membership.base,
            peer: told.peer.to_owned(),
            marks: Marks {
                holes: told.holes.iter().map(|at| (u64::MAX, *at)).collect(),
                ..Marks::default()
            },
            answer: Answer {
                vouched: told.membership.vouched,
                named: None,
            },
        };
        let plan = Plan::new(&work, None);
        let mut fan_out = FanOut {
            service: self,
            app,
            room,
            keys: &RoomKeys::new(app, room),
            work: &work,
            plan: &plan,
            delivered: Delivered::default(),
            swept: Vec::new(),
        };
        fan_out.send(vec![target]).await?;
        Ok(fan_out.delivered)
    }

    /// Drops jobs that are finished. Answers nothing if they are; or, if a slot has seen a stamp that the room has lost, the
    /// room as it goes on above that stamp: then they have to be delivered again.
    pub(crate) async fn clear(
        &self,
        keys: &RoomKeys,
        jobs: &[Job],
        ahead: u64,
    ) -> Result<Option<Snapshot>> {
        let mut rest = jobs;
        if ahead > 0 {
            let (first, later) = rest.split_at(rest.len().min(CLEAR));
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
        for jobs in rest.chunks(CLEAR) {
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
