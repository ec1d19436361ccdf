//! What there is to deliver of one room, and what a delivery reports.

use std::collections::{BTreeMap, BTreeSet};

use crate::counts::room::{Act, Audience, Job, Membership};
use crate::engine::snapshot::Snapshot;
use crate::keys::Enc;

/// The most users that a passing job may name if this call adopts it.
const ADOPTED_USERS: usize = 100;

/// What is to be delivered of one room.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) snapshot: Snapshot,
    pub(crate) jobs: Vec<Job>,
    /// Jobs of other calls that have not reached everybody. The delivery takes their marks along to its own targets, so that no
    /// target sees the room's head without them.
    pub(crate) passing: Vec<Job>,
    /// The messages that an edit has left as they were, because an earlier one had said the same: this call finishes that one.
    pub(crate) repeated: BTreeSet<u64>,
    /// Users to send the state to although nothing changed for them: an earlier delivery may not have reached them.
    pub(crate) refresh: BTreeSet<Enc>,
}

impl Job {
    /// Whether another call may finish the job. `to_all`: that call delivers to every member in any case.
    fn is_adoptable(&self, to_all: bool) -> bool {
        let named = match &self.act {
            Act::Message {
                mentions, except, ..
            } => mentions.len() + except.len(),
            Act::Edit { on, off, .. } => on.users.len() + off.users.len(),
            _ => 0,
        };
        let is_small = match &self.audience {
            Audience::All | Audience::Gone | Audience::Reset => to_all,
            Audience::Some(users) => users.len() <= ADOPTED_USERS,
            Audience::Leave(_) => false,
        };
        // These two decide who is in the room and who exists. Any other job is adopted only where that costs nothing.
        let decides_who = matches!(self.act, Act::Nothing | Act::Message { own: 'n', .. });
        is_small && named <= ADOPTED_USERS && (to_all || decides_who)
    }
}

impl Work {
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.refresh.is_empty()
    }

    /// The messages of which the passing jobs are needed: those that an edit has left as they were, and those of which an edit
    /// keeps what a reset has made of a mention, which follows from the jobs before it.
    pub(crate) fn needs_jobs_of(&self) -> BTreeSet<u64> {
        let keeping = self
            .jobs
            .iter()
            .filter(|job| job.audience == Audience::Reset);
        let kept = keeping.filter_map(|job| job.act.message());
        kept.chain(self.repeated.iter().copied()).collect()
    }

    /// Adopts passing jobs where that costs little. This call's outcome may depend on them, so a caller that gets this outcome
    /// must see their effects too. `is_small`: the room has few members.
    pub(crate) fn adopt(&mut self, is_small: bool) {
        let is_small = is_small || self.snapshot.kind == "direct";
        let to_all = is_small || self.jobs.iter().any(|job| job.audience == Audience::All);
        let repeated = std::mem::take(&mut self.repeated);
        let (adopted, passing) = std::mem::take(&mut self.passing)
            .into_iter()
            .partition(|job| {
                let covered = self.snapshot.born == 0 || job.stamp <= self.snapshot.rev;
                let is_repeated = matches!(job.act, Act::Edit { at, .. } if repeated.contains(&at));
                covered && (is_repeated || job.is_adoptable(to_all))
            });
        self.passing = passing;
        self.jobs.extend(adopted);
    }

    /// Whether the work only moves counts of members: no membership begins or ends by it, and no user begins to exist.
    pub(crate) fn only_counts(&self) -> bool {
        let of_member = |job: &Job| matches!(job.act, Act::Message { own, ref sender, .. } if own != 'n' || sender.is_none());
        self.refresh.is_empty() && self.jobs.iter().all(of_member)
    }
}

/// What the room decided about a user whose slot refused a delivery.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Decision {
    /// The membership comes after this stamp, which the slot gave with its refusal.
    pub(crate) vouched: Option<u64>,
    /// The user was named as a sender after this deletion, and so exists again.
    pub(crate) named_after: Option<u64>,
    /// The slot did not have this reset, and its job was looked for.
    pub(crate) sought_reset: Option<u64>,
    /// The job of this reset is gone: the slot takes the reset for known.
    pub(crate) lost_reset: Option<u64>,
}

pub(crate) type Decisions = BTreeMap<Enc, Decision>;

/// Why a slot refused a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The user was deleted, and the slot has never had this membership: it may have begun before the deletion or after it.
    Deleted,
    /// The user was deleted, and the slot had this membership before: it is over.
    Over,
    /// The slot has seen a later stamp of the room.
    Ahead,
    /// The user was deleted, and the delivery only names the user as a sender.
    Naming,
    /// The slot does not have the last reset of the read position yet.
    Reset,
}

/// A refusal: a user's slot left itself unchanged.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) user: Enc,
    /// The membership's epoch. If the delivery only names the user: the job's stamp.
    pub(crate) epoch: u64,
    pub(crate) reason: Reason,
    /// The deletion, or the room's stamp, that the slot gave with its refusal.
    pub(crate) stamp: u64,
    /// The first job that makes the user a member of a direct room, and the base of that membership.
    pub(crate) brought_in: Option<(u64, u64)>,
}

/// The report of a delivery.
#[derive(Default)]
pub(crate) struct Delivered {
    pub(crate) refused: Vec<Refused>,
    /// Users whose slots can't be read, so that the delivery left them out.
    pub(crate) unreadable: BTreeSet<Enc>,
    /// The latest stamp of the room in a slot that is later than the snapshot; 0 if there is none.
    pub(crate) ahead: u64,
}

/// What one user is sent of a room without a job.
pub(crate) struct SingleDelivery<'a> {
    pub(crate) snapshot: Snapshot,
    /// The user's membership; state `l` if there is none.
    pub(crate) membership: Membership,
    /// The peer in a direct room, or ''.
    pub(crate) peer: &'a str,
    /// Positions that don't count.
    pub(crate) holes: &'a [u64],
}
