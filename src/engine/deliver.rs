//! Fan-out: bringing what a room accepted to the slots of its members. A delivery only reports what slots refuse, and never
//! changes who is in the room: that is for the writer ([`Writer::finish`](crate::engine::write::Writer)) to act on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::connection::{Item, Redis};
use crate::counts::number::{parse, short, unreadable};
use crate::counts::room::{Act, Audience, Entry, Job, names};
use crate::engine::faults::Faults;
use crate::engine::members::{LIST, MemberList, MemberLists};
use crate::engine::reply::{Reply, maybe_text};
use crate::engine::snapshot::Snapshot;
use crate::engine::write::LEASE_MICROS;
use crate::error::{Error, Result};
use crate::keys::{Enc, RoomKeys, UserKeys};
use crate::metrics::Metrics;
use crate::names::AppId;
use crate::scripts;

/// Users in one call of the script, where nothing but positions moves and where more has to be done: enough to save round
/// trips, few enough not to hold up other callers of Redis.
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
/// Users of another call's fan-out that is finished along with an own one.
const ADOPTED: usize = 100;
/// Between two renewals of a fan-out's lease, well within the lease.
const RENEW: Duration = Duration::from_secs(1);
/// Jobs and departures cleared in one call.
pub(crate) const CLEAR: usize = 500;
/// The latest stamp there can be, in microseconds: in the year 2112.
const FARTHEST: u64 = 1 << 52;
/// How old a snapshot may be that is delivered. A user's slot remembers for an hour at least which rooms the user has left;
/// a snapshot older than that could bring one back.
const OLDEST: Duration = Duration::from_secs(600);

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
    fn is_adoptable(&self, full: bool) -> bool {
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

/// When a user was named, and the job by which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Naming {
    stamp: u64,
    job: u64,
}

/// What one user gets beside the snapshot.
#[derive(Debug, Default, Clone)]
struct Marks {
    named: Option<Naming>,
    /// Stamp of the act, and how far is read by it.
    reads: Vec<(u64, u64)>,
    holes: Vec<(u64, u64)>,
    mentions: Vec<(u64, u64)>,
    prefs: Vec<(u64, String)>,
}

impl Marks {
    fn is_empty(&self) -> bool {
        self.named.is_none()
            && self.reads.is_empty()
            && self.holes.is_empty()
            && self.mentions.is_empty()
            && self.prefs.is_empty()
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

struct Plan<'a> {
    snapshot: &'a Snapshot,
    /// The fan-outs under way, in order, and when their lease was last known to run anew.
    jobs: Vec<u64>,
    leased: Mutex<Instant>,
    /// Positions that don't count for anybody, and that mention everybody.
    common_holes: Vec<u64>,
    common_mentions: Vec<u64>,
    /// Marks for some.
    own: BTreeMap<Enc, Marks>,
    /// Marks of other calls' fan-outs.
    passing: BTreeMap<Enc, Marks>,
    /// The first job that brings somebody in, and the position to begin with.
    brings: BTreeMap<Enc, (u64, u64)>,
    gone: Option<u64>,
    full: bool,
    /// Whether nothing but positions moves, for most.
    light: bool,
    /// Only these, with what the room has said of them.
    only: Option<&'a Answers>,
}

struct Target<'a> {
    user: &'a Enc,
    state: char,
    epoch: u64,
    base: u64,
    peer: String,
    marks: Marks,
    answer: Answer,
}

impl Target<'_> {
    /// Whether nothing but positions moves, as far as can be told from here.
    fn is_light(&self) -> bool {
        let marks = &self.marks;
        let none = marks.holes.is_empty() && marks.mentions.is_empty() && marks.prefs.is_empty();
        none && self.answer.vouched.is_none() && matches!(self.state, 'j' | 'i')
    }

    /// State and epoch as they stand in a record, and what the membership is known to come after.
    fn membership(&self) -> String {
        let membership = format!("{}|{}", self.state, short(self.epoch));
        match self.answer.vouched {
            Some(stamp) => format!("{membership}|{stamp}"),
            None => membership,
        }
    }

    /// What is said beside state, epoch and base, which is mostly nothing.
    fn more(&self) -> String {
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

/// Calls that are sent together, and those whom they are for.
struct Batch<'a> {
    calls: Vec<Item>,
    targets: &'a [&'a Target<'a>],
}

/// What came of them.
#[derive(Default)]
struct Told<'a> {
    /// Targets whose slots refused, why, and what they named.
    refused: Vec<(&'a Target<'a>, Why, u64)>,
    /// Targets that need all keys of their slots.
    closer: Vec<&'a Target<'a>>,
    /// Targets whose slots can't be read. They are passed by: when they are mended they are told the state of things.
    unreadable: Vec<&'a Target<'a>>,
    ahead: u64,
}

impl<'a> Told<'a> {
    fn join(&mut self, other: Self) {
        self.refused.extend(other.refused);
        self.closer.extend(other.closer);
        self.unreadable.extend(other.unreadable);
        self.ahead = self.ahead.max(other.ahead);
    }

    /// Takes a reply to calls for these.
    fn hear(
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
                    self.closer.push(target);
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

/// How many keys of a user's slot a delivery is given: what most need, or all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Quick,
    Close,
}

/// What one user is told of a room outside of any fan-out.
pub(crate) struct Tell<'a> {
    pub(crate) snapshot: Snapshot,
    /// The user's place in the room; `l`: none.
    pub(crate) entry: Entry,
    /// The other one of a direct room.
    pub(crate) peer: &'a str,
    /// Positions that don't count.
    pub(crate) holes: &'a [u64],
}

impl<'a> Plan<'a> {
    fn new(work: &'a Work, only: Option<&'a Answers>) -> Self {
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

    fn has(&self, job: u64) -> bool {
        self.jobs.binary_search(&job).is_ok()
    }

    fn add(&mut self, job: &Job) {
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
    fn bring(&mut self, job: &Job) {
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
    fn pass(&mut self, job: &Job) {
        self.common(job);
        mark(&mut self.passing, job);
        self.bring(job);
    }

    /// What is for everybody, unless it is of an earlier room by the same name.
    fn common(&mut self, job: &Job) {
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

    fn answer(&self, user: &Enc) -> Answer {
        let answer = self.only.and_then(|only| only.get(user));
        answer.copied().unwrap_or_default()
    }

    fn concerns(&self, user: &Enc) -> bool {
        self.only.is_none_or(|only| only.contains_key(user))
    }

    /// What a user in the list of members is to be told, if anything.
    fn member(&self, user: &'a Enc, entry: Entry, peer: Option<&Enc>) -> Option<Target<'a>> {
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
            && entry.epoch < gone
        {
            return target('l', gone, 0, self.leaving(user, entry));
        }
        if entry.state == 'l' {
            return target('l', entry.epoch, 0, self.leaving(user, entry));
        }
        // No membership of this room, or one that began after the snapshot: it has a telling of its own, and what is told
        // here may be of an earlier room by the same name.
        if !entry.is_member(self.snapshot.born) || entry.epoch > self.snapshot.rev {
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
        marks.reads.retain(|(stamp, _)| entry.owns(*stamp));
        marks.holes.retain(|(stamp, _)| entry.owns(*stamp));
        marks.mentions.retain(|(stamp, _)| entry.owns(*stamp));
        marks.prefs.retain(|(stamp, _)| entry.owns(*stamp));
        target(entry.state, entry.epoch, entry.base, marks)
    }

    fn named_only(&self, user: &Enc) -> Marks {
        Marks {
            named: self.own.get(user).and_then(|m| m.named),
            ..Marks::default()
        }
    }

    /// A user who leaves came to exist, at the latest, when the membership began that ends now. The delivery of that may be
    /// missing, so the one that tells of the end says it as well.
    fn leaving(&self, user: &Enc, entry: Entry) -> Marks {
        let mut marks = self.named_only(user);
        let (stamp, job) = match entry.state {
            'l' => (entry.base, entry.epoch),
            _ => (entry.epoch, self.gone.unwrap_or(0)),
        };
        if stamp != 0 && self.has(job) {
            marks.named = marks.named.max(Some(Naming { stamp, job }));
        }
        marks
    }

    /// Somebody who is in no list: told only that it exists, if it was named as a sender.
    fn stranger(&self, user: &'a Enc) -> Option<Target<'a>> {
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
fn mark(marks: &mut BTreeMap<Enc, Marks>, job: &Job) {
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

fn positions(list: &[(u64, u64)]) -> String {
    commas(list.iter().map(|(_, position)| *position))
}

fn commas(positions: impl Iterator<Item = u64>) -> String {
    let mut out = String::new();
    for position in positions {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(&position.to_string());
    }
    out
}

fn settings(prefs: &[(u64, String)]) -> String {
    let mut out = String::new();
    for (stamp, lines) in prefs {
        let mut lines = lines.lines();
        while let (Some(field), Some(value)) = (lines.next(), lines.next()) {
            out.push_str(&format!("{field}\n{stamp}\n{value}\n"));
        }
    }
    out
}

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
        let mut delivery = FanOut {
            service: self,
            app,
            room,
            keys: &keys,
            work,
            plan: &plan,
            came: Delivered::default(),
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
                    delivery.send(targets).await?;
                }
                None => delivery.walk().await?,
            }
        } else {
            let users: Vec<&Enc> = match only {
                Some(only) => only.keys().collect(),
                None => plan.own.keys().collect(),
            };
            delivery.some(&users).await?;
        }
        delivery.sweep().await?;
        Ok(delivery.came)
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
    fn readable_members(&self, reply: Reply, keys: &RoomKeys) -> Result<Vec<(Enc, Entry)>> {
        let mut members = Vec::new();
        for (user, entry) in reply.pairs()? {
            match Entry::parse(&entry) {
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
            state: told.entry.state,
            epoch: told.entry.epoch,
            base: told.entry.base,
            peer: told.peer.to_owned(),
            marks: Marks {
                holes: told.holes.iter().map(|at| (u64::MAX, *at)).collect(),
                ..Marks::default()
            },
            answer: Answer {
                vouched: told.entry.vouched,
                named: None,
            },
        };
        let plan = Plan::new(&work, None);
        let mut delivery = FanOut {
            service: self,
            app,
            room,
            keys: &RoomKeys::new(app, room),
            work: &work,
            plan: &plan,
            came: Delivered::default(),
            swept: Vec::new(),
        };
        delivery.send(vec![target]).await?;
        Ok(delivery.came)
    }

    /// Makes some calls.
    async fn send_one<'t>(&self, batch: &Batch<'t>) -> Result<Told<'t>> {
        let answers = self.redis.batch(&batch.calls).await?;
        let mut told = Told::default();
        let mut targets = batch.targets.iter().copied();
        for answer in answers {
            told.hear(answer, &mut targets)?;
        }
        self.reached(batch.targets, &told);
        Ok(told)
    }

    /// Counts those who were told.
    fn reached(&self, targets: &[&Target<'_>], told: &Told<'_>) {
        let others = told.closer.len() + told.refused.len() + told.unreadable.len();
        let reached = targets.len().saturating_sub(others);
        self.metrics.delivered(reached as u64);
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

/// One delivery on its way.
struct FanOut<'a> {
    service: &'a Delivery,
    app: &'a AppId,
    room: &'a Enc,
    keys: &'a RoomKeys,
    work: &'a Work,
    plan: &'a Plan<'a>,
    came: Delivered,
    /// Members whose leaving has been delivered, and its epoch.
    swept: Vec<(Enc, u64)>,
}

impl FanOut<'_> {
    /// Delivers to users by name.
    async fn some(&mut self, users: &[&Enc]) -> Result<()> {
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
                    Some(entry) => match Entry::parse(&entry) {
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

    /// Delivers to a list too long to be read at once. HSCAN answers everybody who was in it all the time; who came or
    /// went meanwhile has a fan-out of his own.
    async fn walk(&mut self) -> Result<()> {
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

    async fn send(&mut self, targets: Vec<Target<'_>>) -> Result<()> {
        // A supergroup's positions are not in its members' slots.
        let quick = self.plan.light && self.work.snapshot.kind != "supergroup";
        let (light, mut rest): (Vec<&Target<'_>>, _) =
            targets.iter().partition(|t| quick && t.is_light());
        let (told, failure) = self.pass(&light, Look::Quick).await?;
        rest.extend(&told.closer);
        self.take(told);
        let (told, later) = self.pass(&rest, Look::Close).await?;
        self.take(told);
        let left = |target: &&Target<'_>| target.state == 'l';
        let refused: BTreeSet<&Enc> = self.came.refused.iter().map(|r| &r.user).collect();
        let swept = targets.iter().filter(left);
        let swept = swept.filter(|target| {
            !refused.contains(target.user) && !self.came.untold.contains(target.user)
        });
        self.swept
            .extend(swept.map(|target| (target.user.clone(), target.epoch)));
        failure.or(later).map_or(Ok(()), Err)
    }

    fn take(&mut self, told: Told<'_>) {
        let untold = told.unreadable.iter().map(|target| target.user.clone());
        self.came.untold.extend(untold);
        self.came.ahead = self.came.ahead.max(told.ahead);
        for (target, why, stamp) in told.refused {
            self.came.refused.push(Refused {
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

    /// Tells some; answers what came of it, and the first failure: whoever can be reached is told all the same.
    async fn pass<'t>(
        &self,
        targets: &'t [&'t Target<'t>],
        look: Look,
    ) -> Result<(Told<'t>, Option<Error>)> {
        let mut all = Told::default();
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
        let (users_per_call, calls_per_batch) = match (spread, look) {
            (true, _) => (1, (USERS_PER_BATCH * heavy / USERS_PER_HEAVY_CALL).max(1)),
            (false, Look::Quick) if targets.len() <= WIDE => (USERS_PER_CALL, 1),
            (false, Look::Quick) => (USERS_PER_WIDE_CALL, 1),
            (false, Look::Close) => (heavy, 1),
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
        self.keep().await?;
        // So many batches at a time: a room may have more members than their calls should take memory.
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
                    .map(|users| Item::Script(self.call(&common, users, look)))
                    .collect();
                let batch = Batch { calls, targets };
                under_way.push(async move {
                    let told = self.service.send_one(&batch).await;
                    (batch.targets, told)
                });
            }
            let Some((targets, mut answer)) = under_way.next().await else {
                break;
            };
            if let Err(Error::Unreadable(_)) = answer {
                answer = self.apart(&common, targets, look).await;
            }
            self.keep().await?;
            match answer {
                Ok(told) => all.join(told),
                Err(error) => {
                    failures += 1;
                    let first = failure.get_or_insert(error);
                    // Nobody seems to be.
                    if failures >= may_fail {
                        return Err(first.clone());
                    }
                }
            }
        }
        Ok((all, failure))
    }

    /// Tells each on its own, where some of them can't be: that is said, and hides nobody else.
    async fn apart<'t>(
        &self,
        common: &(String, String),
        targets: &'t [&'t Target<'t>],
        look: Look,
    ) -> Result<Told<'t>> {
        let calls: Vec<Item> = targets
            .iter()
            .map(|target| Item::Script(self.call(common, &[*target], look)))
            .collect();
        let mut told = Told::default();
        let answers = self.service.redis.each(&calls).await?;
        for (target, answer) in targets.iter().zip(answers) {
            let mut alone = Told::default();
            let heard = answer.and_then(|answer| alone.hear(answer, &mut std::iter::once(*target)));
            match heard {
                Ok(()) => told.join(alone),
                Err(error @ Error::Unreadable(_)) => {
                    let slot = || UserKeys::new(self.app, target.user).left();
                    if let Err(error) = self.service.faults.at_slot::<()>(Err(error), slot) {
                        self.service.faults.complain(&error);
                    }
                    told.unreadable.push(*target);
                }
                Err(error) => return Err(error),
            }
        }
        self.service.reached(targets, &told);
        Ok(told)
    }

    /// Renews the lease of fan-outs that take long, so that nobody begins them a second time.
    async fn keep(&self) -> Result<()> {
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

    /// Drops the entries of members whose leaving was delivered. That comes before the jobs are cleared: were it the other
    /// way round, a pod dying in between would leave the entries for good.
    async fn sweep(&mut self) -> Result<()> {
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

    fn call(
        &self,
        common: &(String, String),
        targets: &[&Target<'_>],
        look: Look,
    ) -> scripts::Call {
        let snapshot = &self.work.snapshot;
        let mut keys = Vec::with_capacity(targets.len() * 7);
        for target in targets {
            let user = UserKeys::new(self.app, target.user);
            keys.extend([user.counts(), user.rooms()]);
            if look == Look::Close {
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
