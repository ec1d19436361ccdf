//! What there is to deliver of one room, and what came of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::counts::room::{Act, Audience, Job, Membership};
use crate::engine::snapshot::Snapshot;
use crate::keys::Enc;

/// Users of another call's fan-out that is finished along with an own one.
pub(crate) const ADOPTED: usize = 100;

/// What is to be delivered of one room.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) snapshot: Snapshot,
    pub(crate) jobs: Vec<Job>,
    /// Fan-outs of other calls that have not reached everybody. What they mean to a user goes along with what that user
    /// gets anyway, so that the head of the room never comes without it.
    pub(crate) passing: Vec<Job>,
    /// Users to be told the state of things although nothing changed for them: an earlier telling may be missing.
    pub(crate) also: BTreeSet<Enc>,
}

impl Job {
    /// Whether another call may finish it; `full`: one that tells every member anyway.
    pub(crate) fn is_adoptable(&self, full: bool) -> bool {
        let named = match &self.act {
            Act::Message { mentions, .. } => mentions.len(),
            _ => 0,
        };
        let small = match &self.audience {
            Audience::All | Audience::Gone => full,
            Audience::Some(users) => users.len() <= ADOPTED,
            Audience::Leave(_) => false,
        };
        // Who is in the room, and who exists. The rest is only adopted where it costs nothing.
        let matters = matches!(self.act, Act::Nothing | Act::Message { own: 'n', .. });
        small && named <= ADOPTED && (full || matters)
    }
}

impl Work {
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.also.is_empty()
    }

    /// Makes fan-outs of other calls its own, where that costs little: what this call was answered may rest on them, so whoever
    /// sees its answer is to see what they say as well. `few`: the room has few members.
    pub(crate) fn adopt(&mut self, few: bool) {
        let few = few || self.snapshot.kind == "direct";
        let full = few || self.jobs.iter().any(|job| job.audience == Audience::All);
        let (adopted, passing) = std::mem::take(&mut self.passing)
            .into_iter()
            .partition(|job| {
                let known = self.snapshot.born == 0 || job.stamp <= self.snapshot.rev;
                known && job.is_adoptable(full)
            });
        self.passing = passing;
        self.jobs.extend(adopted);
    }

    /// Whether it is all about messages of members, or there is nothing: nobody comes, goes or begins to exist by it.
    pub(crate) fn only_counts(&self) -> bool {
        let member = |job: &Job| matches!(job.act, Act::Message { own, ref sender, .. } if own != 'n' || sender.is_none());
        self.also.is_empty() && self.jobs.iter().all(member)
    }
}

/// What the room has said of a user whose slot had refused it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Answer {
    /// The membership comes after what the slot named.
    pub(crate) vouched: Option<u64>,
    /// The user is to be known, after this deletion.
    pub(crate) named: Option<u64>,
}

pub(crate) type Answers = BTreeMap<Enc, Answer>;

/// Why a slot refused what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The user was deleted, and the membership had not been told before.
    Deleted,
    /// The user was deleted, and the membership had been told before that.
    Over,
    /// The slot has seen a later stamp of the room.
    Ahead,
    /// The user was deleted, and is not known.
    Naming,
}

/// What a user's slot refused. It was left as it is.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) user: Enc,
    /// The membership's; of a naming the job's.
    pub(crate) epoch: u64,
    pub(crate) why: Why,
    /// What the slot named.
    pub(crate) stamp: u64,
    /// The job that brings the user in, and the position to begin with.
    pub(crate) brings: Option<(u64, u64)>,
}

/// What came of a delivery.
#[derive(Default)]
pub(crate) struct Delivered {
    pub(crate) refused: Vec<Refused>,
    /// Users who were passed by, since their slots can't be read.
    pub(crate) untold: BTreeSet<Enc>,
    /// The latest stamp of the room in a slot that is later than the snapshot; 0: none is.
    pub(crate) ahead: u64,
}

/// What one user is told of a room outside of any fan-out.
pub(crate) struct Tell<'a> {
    pub(crate) snapshot: Snapshot,
    /// The user's place in the room; `l`: none.
    pub(crate) membership: Membership,
    /// The other one of a direct room.
    pub(crate) peer: &'a str,
    /// Positions that don't count.
    pub(crate) holes: &'a [u64],
}
