//! Who is told what by a delivery: from jobs and members to targets.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use super::work::{Answer, Answers, Work};
use crate::counts::number::short;
use crate::counts::room::{Act, Audience, Job, Membership};
use crate::engine::snapshot::Snapshot;
use crate::keys::Enc;

/// When a user was named, and the job by which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Naming {
    pub(crate) stamp: u64,
    pub(crate) job: u64,
}

/// What one user gets beside the snapshot.
#[derive(Debug, Default, Clone)]
pub(crate) struct Marks {
    pub(crate) named: Option<Naming>,
    /// Stamp of the act, and how far is read by it.
    pub(crate) reads: Vec<(u64, u64)>,
    pub(crate) holes: Vec<(u64, u64)>,
    pub(crate) mentions: Vec<(u64, u64)>,
    pub(crate) prefs: Vec<(u64, String)>,
}

impl Marks {
    pub(crate) fn is_empty(&self) -> bool {
        self.named.is_none()
            && self.reads.is_empty()
            && self.holes.is_empty()
            && self.mentions.is_empty()
            && self.prefs.is_empty()
    }
}

pub(crate) struct Plan<'a> {
    pub(crate) snapshot: &'a Snapshot,
    /// The fan-outs under way, in order, and when their lease was last known to run anew.
    pub(crate) jobs: Vec<u64>,
    pub(crate) leased: Mutex<Instant>,
    /// Positions that don't count for anybody, and that mention everybody.
    pub(crate) common_holes: Vec<u64>,
    pub(crate) common_mentions: Vec<u64>,
    /// Marks for some.
    pub(crate) own: BTreeMap<Enc, Marks>,
    /// Marks of other calls' fan-outs.
    pub(crate) passing: BTreeMap<Enc, Marks>,
    /// The first job that brings somebody in, and the position to begin with.
    pub(crate) brings: BTreeMap<Enc, (u64, u64)>,
    pub(crate) gone: Option<u64>,
    pub(crate) full: bool,
    /// Whether nothing but positions moves, for most.
    pub(crate) light: bool,
    /// Only these, with what the room has said of them.
    pub(crate) only: Option<&'a Answers>,
}

pub(crate) struct Target<'a> {
    pub(crate) user: &'a Enc,
    pub(crate) state: char,
    pub(crate) epoch: u64,
    pub(crate) base: u64,
    pub(crate) peer: String,
    pub(crate) marks: Marks,
    pub(crate) answer: Answer,
}

impl Target<'_> {
    /// Whether nothing but positions moves, as far as can be told from here.
    pub(crate) fn is_light(&self) -> bool {
        let marks = &self.marks;
        let none = marks.holes.is_empty() && marks.mentions.is_empty() && marks.prefs.is_empty();
        none && self.answer.vouched.is_none() && matches!(self.state, 'j' | 'i')
    }

    /// State and epoch as they stand in a record, and what the membership is known to come after.
    pub(crate) fn membership(&self) -> String {
        let membership = format!("{}|{}", self.state, short(self.epoch));
        match self.answer.vouched {
            Some(stamp) => format!("{membership}|{stamp}"),
            None => membership,
        }
    }

    /// What is said beside state, epoch and base, which is mostly nothing.
    pub(crate) fn more(&self) -> String {
        let marks = &self.marks;
        let read = marks.reads.iter().map(|(_, to)| to).max();
        if self.peer.is_empty() && marks.is_empty() {
            return String::new();
        }
        let named = match (marks.named, self.answer.named) {
            (Some(naming), Some(deletion)) => format!("{}!{deletion}", naming.stamp),
            (Some(naming), None) => naming.stamp.to_string(),
            (None, _) => String::new(),
        };
        format!(
            "{}\n{}\n{}\n{}\n{}\n{}",
            self.peer,
            named,
            read.map(u64::to_string).unwrap_or_default(),
            positions(&marks.holes),
            positions(&marks.mentions),
            settings(&marks.prefs)
        )
    }
}

impl<'a> Plan<'a> {
    pub(crate) fn new(work: &'a Work, only: Option<&'a Answers>) -> Self {
        let jobs = &work.jobs;
        let mut plan = Plan {
            snapshot: &work.snapshot,
            jobs: jobs.iter().map(|job| job.stamp).collect(),
            leased: Mutex::new(Instant::now()),
            common_holes: Vec::new(),
            common_mentions: Vec::new(),
            own: BTreeMap::new(),
            passing: BTreeMap::new(),
            brings: BTreeMap::new(),
            gone: None,
            // The two of a direct room see each other, so the whole list is needed to tell one of them.
            full: work.snapshot.kind == "direct" && work.snapshot.born != 0,
            light: false,
            only,
        };
        plan.jobs.sort_unstable();
        for user in &work.also {
            plan.own.entry(user.clone()).or_default();
        }
        for job in jobs {
            plan.add(job);
        }
        for job in &work.passing {
            // A later one is for the delivery that tells of a later head.
            if job.stamp <= work.snapshot.rev && !plan.has(job.stamp) {
                plan.pass(job);
            }
        }
        plan.light = !jobs.is_empty()
            && plan.common_holes.is_empty()
            && plan.common_mentions.is_empty()
            && jobs.iter().all(|job| job.act.only_moves());
        plan
    }

    pub(crate) fn has(&self, job: u64) -> bool {
        self.jobs.binary_search(&job).is_ok()
    }

    pub(crate) fn add(&mut self, job: &Job) {
        let stamp = job.stamp;
        match &job.audience {
            Audience::All => self.full = true,
            Audience::Gone => {
                self.full = true;
                self.gone = self.gone.max(Some(stamp));
            }
            Audience::Some(users) => {
                for user in users {
                    self.own.entry(user.clone()).or_default();
                }
            }
            Audience::Leave(_) => {}
        }
        self.common(job);
        mark(&mut self.own, job);
        let Act::Message { own, sender, .. } = &job.act else {
            return;
        };
        // A sender who has joined is known by that.
        if let Some(sender) = sender
            && *own == 'n'
        {
            let marks = self.own.entry(sender.clone()).or_default();
            marks.named = marks.named.max(Some(Naming { stamp, job: stamp }));
        }
        self.bring(job);
    }

    /// Puts down whom a message brings into the room.
    pub(crate) fn bring(&mut self, job: &Job) {
        let Act::Message {
            brings: Some((two, base)),
            ..
        } = &job.act
        else {
            return;
        };
        for user in two {
            let first = self
                .brings
                .entry(user.clone())
                .or_insert((job.stamp, *base));
            *first = (*first).min((job.stamp, *base));
        }
    }

    /// Takes along what another call's fan-out means to those whom this delivery is for.
    pub(crate) fn pass(&mut self, job: &Job) {
        self.common(job);
        mark(&mut self.passing, job);
        self.bring(job);
    }

    /// What is for everybody, unless it is of an earlier room by the same name.
    pub(crate) fn common(&mut self, job: &Job) {
        if job.stamp <= self.snapshot.born || self.snapshot.born == 0 {
            return;
        }
        match &job.act {
            Act::Message {
                at,
                everybody: true,
                ..
            } => self.common_mentions.push(*at),
            Act::Recall(at) => self.common_holes.push(*at),
            _ => {}
        }
    }

    pub(crate) fn answer(&self, user: &Enc) -> Answer {
        let answer = self.only.and_then(|only| only.get(user));
        answer.copied().unwrap_or_default()
    }

    pub(crate) fn concerns(&self, user: &Enc) -> bool {
        self.only.is_none_or(|only| only.contains_key(user))
    }

    /// What a user in the list of members is to be told, if anything.
    pub(crate) fn member(
        &self,
        user: &'a Enc,
        membership: Membership,
        peer: Option<&Enc>,
    ) -> Option<Target<'a>> {
        if !self.concerns(user) {
            return None;
        }
        let target = |state, epoch, base, marks| {
            Some(Target {
                user,
                state,
                epoch,
                base,
                peer: peer.map(|p| p.as_str().to_owned()).unwrap_or_default(),
                marks,
                answer: self.answer(user),
            })
        };
        if let Some(gone) = self.gone
            && membership.epoch < gone
        {
            return target('l', gone, 0, self.leaving(user, membership));
        }
        if membership.state == 'l' {
            return target('l', membership.epoch, 0, self.leaving(user, membership));
        }
        // No membership of this room, or one that began after the snapshot: it has a telling of its own, and what is told
        // here may be of an earlier room by the same name.
        if !membership.is_member(self.snapshot.born) || membership.epoch > self.snapshot.rev {
            return self.stranger(user);
        }
        let mut marks = self.own.get(user).cloned().unwrap_or_default();
        if let Some(passing) = self.passing.get(user) {
            marks.reads.extend(&passing.reads);
            marks.holes.extend(&passing.holes);
            marks.mentions.extend(&passing.mentions);
        }
        // A member is known by being one.
        marks.named = None;
        marks.reads.retain(|(stamp, _)| membership.owns(*stamp));
        marks.holes.retain(|(stamp, _)| membership.owns(*stamp));
        marks.mentions.retain(|(stamp, _)| membership.owns(*stamp));
        marks.prefs.retain(|(stamp, _)| membership.owns(*stamp));
        target(membership.state, membership.epoch, membership.base, marks)
    }

    pub(crate) fn named_only(&self, user: &Enc) -> Marks {
        Marks {
            named: self.own.get(user).and_then(|m| m.named),
            ..Marks::default()
        }
    }

    /// A user who leaves came to exist, at the latest, when the membership began that ends now. The delivery of that may be
    /// missing, so the one that tells of the end says it as well.
    pub(crate) fn leaving(&self, user: &Enc, membership: Membership) -> Marks {
        let mut marks = self.named_only(user);
        let (stamp, job) = match membership.state {
            'l' => (membership.base, membership.epoch),
            _ => (membership.epoch, self.gone.unwrap_or(0)),
        };
        if stamp != 0 && self.has(job) {
            marks.named = marks.named.max(Some(Naming { stamp, job }));
        }
        marks
    }

    /// Somebody who is in no list: told only that it exists, if it was named as a sender.
    pub(crate) fn stranger(&self, user: &'a Enc) -> Option<Target<'a>> {
        let marks = self.named_only(user);
        if marks.named.is_none() || !self.concerns(user) {
            return None;
        }
        Some(Target {
            user,
            state: '-',
            epoch: 0,
            base: 0,
            peer: String::new(),
            marks,
            answer: self.answer(user),
        })
    }
}

/// Puts down what a fan-out means to the users that it names.
pub(crate) fn mark(marks: &mut BTreeMap<Enc, Marks>, job: &Job) {
    let stamp = job.stamp;
    if let Audience::Some(users) = &job.audience {
        for user in users {
            let marks = marks.entry(user.clone()).or_default();
            match &job.act {
                Act::Read(to) => marks.reads.push((stamp, *to)),
                Act::Prefs(lines) => marks.prefs.push((stamp, lines.clone())),
                _ => {}
            }
        }
    }
    let Act::Message {
        at,
        own,
        sender,
        mentions,
        ..
    } = &job.act
    else {
        return;
    };
    for user in mentions {
        let marks = marks.entry(user.clone()).or_default();
        marks.mentions.push((stamp, *at));
    }
    if let Some(sender) = sender {
        let marks = marks.entry(sender.clone()).or_default();
        match own {
            'r' => marks.reads.push((stamp, *at)),
            // Not the own message: it does not count, and so can't mention.
            'h' => marks.holes.push((stamp, *at)),
            _ => {}
        }
    }
}

pub(crate) fn positions(list: &[(u64, u64)]) -> String {
    commas(list.iter().map(|(_, position)| *position))
}

pub(crate) fn commas(positions: impl Iterator<Item = u64>) -> String {
    let mut out = String::new();
    for position in positions {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(&position.to_string());
    }
    out
}

pub(crate) fn settings(prefs: &[(u64, String)]) -> String {
    let mut out = String::new();
    for (stamp, lines) in prefs {
        let mut lines = lines.lines();
        while let (Some(field), Some(value)) = (lines.next(), lines.next()) {
            out.push_str(&format!("{field}\n{stamp}\n{value}\n"));
        }
    }
    out
}
