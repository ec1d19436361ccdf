//! From what was accepted to what everybody was told: a delivery, what the room says of memberships that users' slots refuse,
//! and the delivery again.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::steps::{RoomSteps, Step};
use super::{ROUNDS, USERS_PER_CALL, Writer, unexpected};
use crate::counts::room::{Job, Membership};
use crate::engine::deliver::LEASE_MICROS;
use crate::engine::deliver::{Answer, Answers, Refused, Why, Work};
use crate::engine::reply::maybe_text;
use crate::engine::snapshot::Snapshot;
use crate::error::{Error, Result};
use crate::event::{Change, EventOutcome, MemberState, Rejection, Wait};
use crate::keys::{self, Enc, RoomKeys};
use crate::names::{AppId, RoomId, UserId};
use crate::scripts;

impl Writer {
    /// Delivers now, or hands the delivery to the background when the caller does not wait for it.
    pub(super) async fn hand_over(
        &self,
        app: &AppId,
        room: Enc,
        work: Work,
        wait: Wait,
    ) -> Result<Finished> {
        // Who is in which room, and who exists, is told at once all the same: the next request may build on it.
        if wait == Wait::Accepted && work.only_counts() {
            // Bounded: past that, callers wait for the delivery after all.
            if let Ok(permit) = Arc::clone(&self.inner.background).try_acquire_owned() {
                let (writer, app) = (self.clone(), app.clone());
                tokio::spawn(async move {
                    // A failure is logged by the connection, and the recorded jobs are found by the sweep.
                    let _ = writer.finish(&app, &room, work).await;
                    drop(permit);
                });
                return Ok(Finished::default());
            }
        }
        self.finish(app, &room, work).await
    }

    /// Delivers to everybody concerned, has the room decide what becomes of memberships that users' slots refuse, and clears
    /// the jobs.
    pub(crate) async fn finish(&self, app: &AppId, room: &Enc, mut work: Work) -> Result<Finished> {
        let keys = RoomKeys::new(app, room);
        let (mut finished, mut ahead) = (Finished::default(), 0);
        let mut only: Option<Answers> = None;
        if work.is_empty() {
            return Ok(finished);
        }
        for _ in 0..ROUNDS {
            let delivered = self
                .inner
                .delivery
                .deliver(app, room, &work, only.as_ref())
                .await?;
            ahead = ahead.max(delivered.ahead);
            finished.untold.extend(delivered.untold);
            if !delivered.refused.is_empty() {
                let settled = self
                    .settle(app, room, &mut work, &delivered.refused)
                    .await?;
                finished.ended.extend(settled.ended);
                if settled.everybody || !settled.again.is_empty() {
                    only = (!settled.everybody).then_some(settled.again);
                    continue;
                }
            }
            // A slot may have seen a stamp of the room that this pod has not.
            let unseen = Some(ahead).filter(|ahead| *ahead > work.snapshot.rev);
            match self
                .inner
                .delivery
                .clear(&keys, &work.jobs, unseen.unwrap_or(0))
                .await?
            {
                None => return Ok(finished),
                Some(snapshot) => {
                    work.snapshot = snapshot;
                    only = None;
                }
            }
        }
        let why = "who is in the room keeps changing; the delivery will be made again";
        Err(Error::Unavailable(why.into()))
    }

    /// Has the room decide what becomes of memberships that users' slots refused.
    pub(super) async fn settle(
        &self,
        app: &AppId,
        room: &Enc,
        work: &mut Work,
        refused: &[Refused],
    ) -> Result<Settled> {
        let keys = RoomKeys::new(app, room);
        let entry = keys::room_entry(app, room);
        let mut settled = Settled::default();
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
                        call.push(match one.why {
                            Why::Deleted => "D",
                            Why::Over => "O",
                            Why::Ahead => "A",
                            Why::Naming => "N",
                        });
                        call.push(one.stamp);
                        let (job, base) = one.brings.unzip();
                        call.push(job.map(|job| job.to_string()).unwrap_or_default());
                        call.push(base.map(|base| base.to_string()).unwrap_or_default());
                    }
                    call
                })
                .await?;
            match reply.text()?.as_str() {
                "OK" => {
                    let job = Job::read(&mut reply)?;
                    // What others have under way was taken along before.
                    reply.value()?;
                    work.snapshot = Snapshot::read(&mut reply)?;
                    // The two of a direct room see each other.
                    settled.everybody |= job.is_some() && work.snapshot.kind == "direct";
                    work.jobs.extend(job);
                }
                "ROOM" => {
                    reply.value()?;
                }
                _ => return Err(unexpected()),
            }
            for one in refused {
                let said = maybe_text(reply.value()?)?.unwrap_or_default();
                settled.take(one, &said)?;
            }
        }
        Ok(settled)
    }

    /// Ends a membership, and delivers that.
    pub(crate) async fn leave(
        &self,
        app: &AppId,
        room: &Enc,
        user: &Enc,
        up_to: Option<u64>,
    ) -> Result<()> {
        let name = RoomId::parse(keys::decode(room.as_str()));
        let member = UserId::parse(keys::decode(user.as_str()));
        let (Ok(name), Ok(member)) = (name, member) else {
            return Err(Error::Internal("a stored name is no legal one".into()));
        };
        let step = Step {
            up_to,
            ..Step::own(Change::Member {
                room: name.clone(),
                state: MemberState::Left,
                users: vec![member],
            })
        };
        let steps = vec![step];
        let mut left = self
            .room(app, RoomSteps { name, steps }, Wait::Applied)
            .await?;
        match left.pop() {
            Some((_, EventOutcome::Rejected(Rejection::Unreadable(what)))) => {
                Err(Error::Unreadable(what))
            }
            _ => Ok(()),
        }
    }
}

/// What came of a delivery to its end.
#[derive(Default)]
pub(crate) struct Finished {
    /// Whose memberships have turned out to be over.
    pub(super) ended: BTreeSet<Enc>,
    /// Who could not be told.
    pub(super) untold: BTreeSet<Enc>,
}

/// What a room has said of memberships that were refused.
#[derive(Default)]
pub(super) struct Settled {
    /// Who is to be told again, and with what.
    pub(super) again: Answers,
    /// Whether everybody is.
    pub(super) everybody: bool,
    /// Whose membership is over.
    pub(super) ended: BTreeSet<Enc>,
}

impl Settled {
    /// Takes what the room said of one.
    pub(super) fn take(&mut self, refused: &Refused, said: &str) -> Result<()> {
        let mut answer = Answer::default();
        if refused.why == Why::Naming {
            answer.named = (said == "1").then_some(refused.stamp);
            if answer.named.is_some() {
                self.again.insert(refused.user.clone(), answer);
            }
            return Ok(());
        }
        let entry = match said {
            "" => None,
            said => Some(Membership::parse(said)?),
        };
        let over = entry.is_none_or(|entry| entry.state == 'l');
        if over {
            self.ended.insert(refused.user.clone());
        }
        let Some(entry) = entry else { return Ok(()) };
        answer.vouched = entry.vouched;
        // The same as before has nothing to say: the refusal was of something late.
        if entry.epoch != refused.epoch || entry.vouched == Some(refused.stamp) {
            self.again.insert(refused.user.clone(), answer);
        }
        Ok(())
    }
}
