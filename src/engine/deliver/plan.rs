//! The plan of a delivery: which users are targets, and which marks each of them gets.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use super::work::{Decision, Decisions, Work};
use crate::counts::number::short;
use crate::counts::room::{Act, Audience, Before, Job, Membership};
use crate::engine::snapshot::Snapshot;
use crate::keys::Enc;

/// When a user was named as a sender, and so began to exist, and the job by which that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Naming {
    pub(super) stamp: u64,
    pub(super) job: u64,
}

/// Whether a message mentions a user after an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mentions {
    No,
    Yes,
    /// As before, in a supergroup: by everybody now, by name until then.
    StillByEverybody,
    /// As before, in a supergroup: by name now, by everybody until then.
    StillByName,
    /// A supergroup's message, which mentions everybody from now on, mentions the user so.
    ByEverybody,
    /// As before.
    Same,
}

/// An edit that changes for everybody whether a message mentions them.
#[derive(Debug, Clone, Copy)]
struct CommonEdit {
    stamp: u64,
    at: u64,
    says: Mentions,
    /// Whether it is only for members who have had a reset.
    only_reset: bool,
}

/// What one user gets beside the snapshot. Each mark has the stamp of its job.
#[derive(Debug, Default, Clone)]
pub(super) struct Marks {
    pub(super) naming: Option<Naming>,
    /// Read positions.
    pub(super) reads: Vec<(u64, u64)>,
    pub(super) holes: Vec<(u64, u64)>,
    pub(super) mentions: Vec<(u64, u64)>,
    /// Edits: the position of a message, and what the edit says of it.
    pub(super) edits: Vec<(u64, u64, Mentions)>,
    /// Preferences: lines of name and value in turn.
    pub(super) prefs: Vec<(u64, String)>,
    /// Resets of the read position, as `deliver.lua` takes them.
    pub(super) resets: Vec<(u64, String)>,
}

impl Marks {
    fn is_empty(&self) -> bool {
        self.naming.is_none()
            && self.reads.is_empty()
            && self.holes.is_empty()
            && self.mentions.is_empty()
            && self.edits.is_empty()
            && self.prefs.is_empty()
            && self.resets.is_empty()
    }

    /// Whether there are any that come before or after a reset.
    fn has_positions(&self) -> bool {
        let positions = [&self.reads, &self.holes, &self.mentions];
        positions.into_iter().any(|marks| !marks.is_empty())
            || !self.edits.is_empty()
            || !self.resets.is_empty()
    }
}

/// The stamp of a job by which everybody has read, up to which position, and who reads up to another one or none.
type CommonRead<'a> = (u64, u64, &'a [(Enc, Option<u64>)]);

pub(super) struct Plan<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// The stamps of the jobs to deliver, in order.
    pub(super) jobs: Vec<u64>,
    /// When the lease of these jobs last began.
    pub(super) leased: Mutex<Instant>,
    /// Positions that don't count for anybody, with the stamps of their jobs.
    pub(super) common_holes: Vec<(u64, u64)>,
    /// Positions that mention everybody, with the stamps of their jobs.
    pub(super) common_mentions: Vec<(u64, u64)>,
    /// Positions up to which everybody who has joined has read, with the stamps of their jobs.
    common_reads: Vec<CommonRead<'a>>,
    common_edits: Vec<CommonEdit>,
    /// Users whom a job names, with their own marks.
    pub(super) marks: BTreeMap<Enc, Marks>,
    /// Marks of passing jobs. They make nobody a target.
    passing: BTreeMap<Enc, Marks>,
    /// Users who become members of a direct room by a message: the first job that does so, and the base.
    pub(super) brought_in: BTreeMap<Enc, (u64, u64)>,
    /// The deletion of the room, if a job is about it.
    deleted: Option<u64>,
    /// Whether the list of members is needed to find the targets.
    pub(super) needs_members: bool,
    /// Whether, of members whom no job names, only those are targets who have had a reset.
    only_reset: bool,
    /// Whether most targets only get positions moved, for which two keys of a slot are enough.
    pub(super) only_moves: bool,
    /// If given, only these users are targets.
    resend: Option<&'a Decisions>,
}

/// One user of a fan-out, with what that user's slot is sent.
pub(super) struct Target<'a> {
    pub(super) user: &'a Enc,
    /// `j`, `i`, `l`, or `-` for a user who is no member.
    pub(super) state: char,
    pub(super) epoch: u64,
    pub(super) base: u64,
    /// The last reset of the membership, if marks are sent.
    pub(super) reset: Option<u64>,
    pub(super) peer: String,
    pub(super) marks: Marks,
    pub(super) decision: Decision,
}

impl Target<'_> {
    /// Whether the target only gets positions moved, as far as this can be known without its slot.
    pub(super) fn only_moves(&self) -> bool {
        let marks = &self.marks;
        let positions = [&marks.holes, &marks.mentions];
        let none = positions.into_iter().all(Vec::is_empty)
            && marks.edits.is_empty()
            && marks.prefs.is_empty();
        // With a reset, the slot has to tell whether it knows it.
        let plain = self.decision.vouched.is_none() && self.reset.is_none();
        none && plain && matches!(self.state, 'j' | 'i')
    }

    /// The membership as `deliver.lua` takes it: state and epoch, the stamp that it is known to come after, and its last reset.
    pub(super) fn membership(&self) -> String {
        let membership = format!("{}|{}", self.state, short(self.epoch));
        let reset = self.reset.and_then(|reset| reset.checked_sub(self.epoch));
        match (self.decision.vouched, reset.map(short)) {
            (Some(stamp), Some(reset)) => format!("{membership}|{stamp}|{reset}"),
            (Some(stamp), None) => format!("{membership}|{stamp}"),
            (None, Some(reset)) => format!("{membership}||{reset}"),
            (None, None) => membership,
        }
    }

    /// The peer and the marks as `deliver.lua` takes them. Most users have none.
    pub(super) fn extra(&self) -> String {
        let marks = &self.marks;
        let read = marks.reads.iter().map(|(_, to)| to).max();
        if self.peer.is_empty() && marks.is_empty() {
            return String::new();
        }
        let naming = match (marks.naming, self.decision.named_after) {
            (Some(naming), Some(deletion)) => format!("{}!{deletion}", naming.stamp),
            (Some(naming), None) => naming.stamp.to_string(),
            (None, _) => String::new(),
        };
        format!(
            "{}\n{}\n{}\n{}\n{}\n{}{}{}",
            self.peer,
            naming,
            read.map(u64::to_string).unwrap_or_default(),
            position_list(&marks.holes),
            position_list(&marks.mentions),
            reset_lines(&marks.resets),
            pref_lines(&marks.prefs),
            edit_lines(&marks.edits)
        )
    }
}

impl<'a> Plan<'a> {
    pub(super) fn new(work: &'a Work, resend: Option<&'a Decisions>) -> Self {
        let jobs = &work.jobs;
        let mut plan = Plan {
            snapshot: &work.snapshot,
            jobs: jobs.iter().map(|job| job.stamp).collect(),
            leased: Mutex::new(Instant::now()),
            common_holes: Vec::new(),
            common_mentions: Vec::new(),
            common_reads: Vec::new(),
            common_edits: Vec::new(),
            marks: BTreeMap::new(),
            passing: BTreeMap::new(),
            brought_in: BTreeMap::new(),
            deleted: None,
            // A delivery to a member of a direct room names the peer, who is found in the list.
            needs_members: work.snapshot.kind == "direct" && work.snapshot.born != 0,
            only_reset: false,
            only_moves: false,
            resend,
        };
        plan.jobs.sort_unstable();
        for user in &work.refresh {
            plan.marks.entry(user.clone()).or_default();
        }
        for job in jobs {
            plan.add_job(job);
        }
        if !plan.needs_members && jobs.iter().any(|job| job.audience == Audience::Reset) {
            (plan.needs_members, plan.only_reset) = (true, true);
        }
        for job in &work.passing {
            // The marks of a later job belong to a later head, and so to another delivery.
            if job.stamp <= work.snapshot.rev && !plan.has_job(job.stamp) {
                plan.add_passing(job);
            }
        }
        plan.only_moves = !jobs.is_empty()
            && plan.common_holes.is_empty()
            && plan.common_mentions.is_empty()
            && jobs.iter().all(|job| job.act.only_moves());
        plan
    }

    fn has_job(&self, stamp: u64) -> bool {
        self.jobs.binary_search(&stamp).is_ok()
    }

    fn add_job(&mut self, job: &'a Job) {
        let stamp = job.stamp;
        match &job.audience {
            Audience::All => self.needs_members = true,
            Audience::Gone => {
                self.needs_members = true;
                self.deleted = self.deleted.max(Some(stamp));
            }
            Audience::Some(users) => {
                for user in users {
                    self.marks.entry(user.clone()).or_default();
                }
            }
            Audience::Reset | Audience::Leave(_) => {}
        }
        self.add_common(job);
        add_marks(&mut self.marks, job);
        let Act::Message { own, sender, .. } = &job.act else {
            return;
        };
        // A sender who has joined exists already, because of the membership.
        if let Some(sender) = sender
            && *own == 'n'
        {
            let marks = self.marks.entry(sender.clone()).or_default();
            marks.naming = marks.naming.max(Some(Naming { stamp, job: stamp }));
        }
        self.add_brought_in(job);
    }

    fn add_passing(&mut self, job: &'a Job) {
        self.add_common(job);
        add_marks(&mut self.passing, job);
        self.add_brought_in(job);
    }

    /// Notes the users whom a message makes members of a direct room.
    fn add_brought_in(&mut self, job: &Job) {
        let Act::Message {
            brings: Some((two, base)),
            ..
        } = &job.act
        else {
            return;
        };
        for user in two {
            let first = self
                .brought_in
                .entry(user.clone())
                .or_insert((job.stamp, *base));
            *first = (*first).min((job.stamp, *base));
        }
    }

    /// Notes a job's marks for everybody, unless the job is of an earlier room by the same name.
    fn add_common(&mut self, job: &'a Job) {
        if job.stamp <= self.snapshot.born || self.snapshot.born == 0 {
            return;
        }
        match &job.act {
            Act::Message {
                at,
                everybody: true,
                ..
            } => self.common_mentions.push((job.stamp, *at)),
            Act::Recall(at) => self.common_holes.push((job.stamp, *at)),
            Act::Edit { at, on, off } => {
                let only_reset = job.audience == Audience::Reset;
                // A supergroup counts mentions of everybody by itself.
                let on_says = match only_reset {
                    true => Mentions::ByEverybody,
                    false => Mentions::Yes,
                };
                for (named, says) in [(off, Mentions::No), (on, on_says)] {
                    if named.everybody {
                        self.common_edits.push(CommonEdit {
                            stamp: job.stamp,
                            at: *at,
                            says,
                            only_reset,
                        });
                    }
                }
            }
            Act::Read(to, but) if job.audience == Audience::All => {
                self.common_reads.push((job.stamp, *to, but));
            }
            _ => {}
        }
    }

    fn decision(&self, user: &Enc) -> Decision {
        let decision = self.resend.and_then(|resend| resend.get(user));
        decision.copied().unwrap_or_default()
    }

    fn may_be_target(&self, user: &Enc) -> bool {
        self.resend.is_none_or(|resend| resend.contains_key(user))
    }

    /// The target for a user whom the room's list has; `None`: there is nothing to send.
    pub(super) fn member(
        &self,
        user: &'a Enc,
        membership: Membership,
        peer: Option<&Enc>,
    ) -> Option<Target<'a>> {
        if !self.may_be_target(user) {
            return None;
        }
        let has_reset = membership.state == 'j' && membership.reset.is_some();
        if self.only_reset && !has_reset && !self.marks.contains_key(user) {
            return None;
        }
        let target = |state, epoch, base, marks| {
            Some(Target {
                user,
                state,
                epoch,
                base,
                reset: None,
                peer: peer.map(|p| p.as_str().to_owned()).unwrap_or_default(),
                marks,
                decision: self.decision(user),
            })
        };
        if let Some(deleted) = self.deleted
            && membership.epoch < deleted
        {
            return target('l', deleted, 0, self.leaving_marks(user, membership));
        }
        if membership.state == 'l' {
            let marks = self.leaving_marks(user, membership);
            return target('l', membership.epoch, 0, marks);
        }
        // The membership is of an earlier room by the same name, or it began after the snapshot. In the second case the job that
        // began it has a delivery of its own, and the snapshot here may be of an earlier room by the same name.
        if !membership.is_member(self.snapshot.born) || membership.epoch > self.snapshot.rev {
            return self.non_member(user);
        }
        let mut marks = self.marks.get(user).cloned().unwrap_or_default();
        if let Some(passing) = self.passing.get(user) {
            marks.reads.extend(&passing.reads);
            marks.holes.extend(&passing.holes);
            marks.mentions.extend(&passing.mentions);
            marks.edits.extend(&passing.edits);
            marks.resets.extend(passing.resets.iter().cloned());
        }
        for edit in &self.common_edits {
            // What an edit says of this user by name goes before what it says of everybody.
            let is_named = |own: &(u64, u64, Mentions)| (own.0, own.1) == (edit.stamp, edit.at);
            if (has_reset || !edit.only_reset) && !marks.edits.iter().any(is_named) {
                marks.edits.push((edit.stamp, edit.at, edit.says));
            }
        }
        if membership.state == 'j' {
            for (stamp, to, but) in &self.common_reads {
                let own = but.iter().find(|(one, _)| one == user);
                let to = own.map_or(Some(*to), |(_, to)| *to);
                marks.reads.extend(to.map(|to| (*stamp, to)));
            }
        }
        // A member exists already, because of the membership.
        marks.naming = None;
        // What is older than the last reset was delivered before the room accepted the reset.
        let is_own = |stamp: &u64| {
            membership.owns(*stamp) && membership.reset.is_none_or(|reset| *stamp > reset)
        };
        marks.reads.retain(|(stamp, _)| is_own(stamp));
        marks.holes.retain(|(stamp, _)| is_own(stamp));
        marks.mentions.retain(|(stamp, _)| is_own(stamp));
        marks
            .edits
            .retain(|(stamp, _, says)| is_own(stamp) && *says != Mentions::Same);
        // What a later edit keeps is what an earlier one said.
        marks.edits.sort_by_key(|(stamp, ..)| *stamp);
        marks.prefs.retain(|(stamp, _)| membership.owns(*stamp));
        marks
            .resets
            .retain(|(stamp, _)| membership.reset == Some(*stamp));
        marks.resets.dedup();
        let decision = self.decision(user);
        if let Some(lost) = decision.lost_reset.filter(|_| marks.resets.is_empty())
            && membership.reset == Some(lost)
        {
            marks.resets.push((lost, "-".to_owned()));
        }
        let is_marked = marks.has_positions()
            || !self.common_holes.is_empty()
            || !self.common_mentions.is_empty();
        let reset = membership.reset.filter(|_| is_marked);
        let target = target(membership.state, membership.epoch, membership.base, marks);
        target.map(|target| Target { reset, ..target })
    }

    fn only_naming(&self, user: &Enc) -> Marks {
        Marks {
            naming: self.marks.get(user).and_then(|marks| marks.naming),
            ..Marks::default()
        }
    }

    /// The marks for a user whose membership ends. Such a user exists at the latest since that membership began. The delivery of
    /// its beginning may not have reached the slot, so the delivery of its end names the user too.
    fn leaving_marks(&self, user: &Enc, membership: Membership) -> Marks {
        let mut marks = self.only_naming(user);
        let (stamp, job) = match membership.state {
            'l' => (membership.base, membership.epoch),
            _ => (membership.epoch, self.deleted.unwrap_or(0)),
        };
        if stamp != 0 && self.has_job(job) {
            marks.naming = marks.naming.max(Some(Naming { stamp, job }));
        }
        marks
    }

    /// The target for a user who is no member: it only names the user. `None`: no job names the user as a sender.
    pub(super) fn non_member(&self, user: &'a Enc) -> Option<Target<'a>> {
        let marks = self.only_naming(user);
        if marks.naming.is_none() || !self.may_be_target(user) {
            return None;
        }
        Some(Target {
            user,
            state: '-',
            epoch: 0,
            base: 0,
            reset: None,
            peer: String::new(),
            marks,
            decision: self.decision(user),
        })
    }
}

/// Adds a job's marks for the users whom the job names.
fn add_marks(marks: &mut BTreeMap<Enc, Marks>, job: &Job) {
    let stamp = job.stamp;
    if let Audience::Some(users) = &job.audience {
        for user in users {
            let marks = marks.entry(user.clone()).or_default();
            match &job.act {
                Act::Read(to, _) => marks.reads.push((stamp, *to)),
                Act::Prefs(lines) => marks.prefs.push((stamp, lines.clone())),
                Act::Reset(text) => marks.resets.push((stamp, text.clone())),
                _ => {}
            }
        }
    }
    if let Act::Edit { at, on, off } = &job.act {
        for (named, says, still) in [
            (on, Mentions::Yes, Mentions::StillByName),
            (off, Mentions::No, Mentions::StillByEverybody),
        ] {
            for named in &named.users {
                let says = match named.before {
                    Before::Other => says,
                    Before::Mentioned => still,
                    Before::Same => Mentions::Same,
                };
                let marks = marks.entry(named.user.clone()).or_default();
                marks.edits.push((stamp, *at, says));
            }
        }
    }
    if let Act::Placed(placed) = &job.act {
        for (user, holes, mentions) in placed {
            let marks = marks.entry(user.clone()).or_default();
            marks.holes.extend(holes.iter().map(|at| (stamp, *at)));
            marks
                .mentions
                .extend(mentions.iter().map(|at| (stamp, *at)));
        }
    }
    let Act::Message {
        at,
        own,
        sender,
        mentions,
        except,
        ..
    } = &job.act
    else {
        return;
    };
    for user in except {
        let marks = marks.entry(user.clone()).or_default();
        marks.holes.push((stamp, *at));
    }
    for user in mentions {
        let marks = marks.entry(user.clone()).or_default();
        marks.mentions.push((stamp, *at));
    }
    if let Some(sender) = sender {
        let marks = marks.entry(sender.clone()).or_default();
        match own {
            'r' => marks.reads.push((stamp, *at)),
            // The sender's own message does not count, so it can't mention the sender either.
            'h' => marks.holes.push((stamp, *at)),
            _ => {}
        }
    }
}

fn position_list(marks: &[(u64, u64)]) -> String {
    comma_list(marks.iter().map(|(_, position)| position.to_string()))
}

/// Positions with the stamps of their jobs.
pub(super) fn stamped_list(marks: &[(u64, u64)]) -> String {
    comma_list(marks.iter().map(|(stamp, at)| format!("{at}:{stamp}")))
}

/// As lines of `<`, stamp and what the reset is. There is one at most.
fn reset_lines(resets: &[(u64, String)]) -> String {
    let line = |(stamp, text): &(u64, String)| format!("<\n{stamp}\n{text}\n");
    resets.iter().take(1).map(line).collect()
}

fn comma_list(positions: impl Iterator<Item = String>) -> String {
    let mut out = String::new();
    for position in positions {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(&position);
    }
    out
}

/// As lines of `@` and the position, stamp, and a digit.
fn edit_lines(edits: &[(u64, u64, Mentions)]) -> String {
    let line = |(stamp, at, says): &(u64, u64, Mentions)| {
        let digit = match says {
            Mentions::No => 0,
            Mentions::Yes => 1,
            Mentions::StillByEverybody => 2,
            Mentions::StillByName => 3,
            Mentions::ByEverybody => 4,
            // The plan leaves these out.
            Mentions::Same => return String::new(),
        };
        format!("@{at}\n{stamp}\n{digit}\n")
    };
    edits.iter().map(line).collect()
}

fn pref_lines(prefs: &[(u64, String)]) -> String {
    let mut out = String::new();
    for (stamp, lines) in prefs {
        let mut lines = lines.lines();
        while let (Some(field), Some(value)) = (lines.next(), lines.next()) {
            out.push_str(&format!("{field}\n{stamp}\n{value}\n"));
        }
    }
    out
}
