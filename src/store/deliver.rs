//! Fan-out: bringing what a room accepted to the slots of its members, and clearing the record when all have it.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::Store;
use super::reply::{Reply, maybe_text, short};
use super::room::{Act, Audience, Entry, Job, Snapshot};
use super::write::LEASE_MICROS;
use crate::connection::Item;
use crate::error::{Error, Result};
use crate::keys::{Enc, RoomKeys, UserKeys};
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
/// The longest list of members that is kept and read at once; longer ones are walked by HSCAN.
pub(super) const LIST: usize = 5_000;
/// Marks for everybody in one pass over the members.
const COMMON_MARKS: usize = 100;
/// Between two renewals of a fan-out's lease, well within the lease.
const RENEW: Duration = Duration::from_secs(1);
/// Jobs and departures cleared in one call.
const CLEAR: usize = 500;

/// What is to be delivered of one room.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) snapshot: Snapshot,
    pub(super) jobs: Vec<Job>,
    /// Users to be told the state of things although nothing changed for them: an earlier telling may be missing.
    pub(super) also: BTreeSet<Enc>,
    /// Users whom these events let in (`j`) or ask in (`i`), and the position they begin with if not the head of then.
    pub(super) joins: BTreeMap<Enc, (char, Option<u64>)>,
}

impl Work {
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.also.is_empty()
    }

    /// Whether it is all about messages of members, or there is nothing: nobody comes, goes or begins to exist by it.
    pub(super) fn only_counts(&self) -> bool {
        let member = |job: &Job| matches!(job.act, Act::Message { own, ref sender, .. } if own != 'n' || sender.is_none());
        self.also.is_empty() && self.jobs.iter().all(member)
    }
}

/// What one user gets beside the snapshot.
#[derive(Debug, Default, Clone)]
struct Marks {
    named: Option<u64>,
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

/// A list of members as it was at revision `mrev`.
pub(super) struct MemberList {
    pub(super) born: u64,
    pub(super) mrev: u64,
    pub(super) entries: Vec<(Enc, Entry)>,
}

impl MemberList {
    pub(super) fn weight(&self) -> u64 {
        self.entries.len() as u64 + 1
    }
}

struct Plan<'a> {
    snapshot: &'a Snapshot,
    /// The fan-outs under way, and when their lease was last known to run anew.
    jobs: Vec<u64>,
    leased: Mutex<Instant>,
    /// Stamps and positions that don't count for anybody, and that mention everybody.
    common_holes: Vec<(u64, u64)>,
    common_mentions: Vec<(u64, u64)>,
    /// Marks for some.
    own: BTreeMap<Enc, Marks>,
    gone: Option<u64>,
    full: bool,
    /// Whether nothing but positions moves, for most.
    light: bool,
}

struct Target<'a> {
    user: &'a Enc,
    state: char,
    epoch: u64,
    base: u64,
    peer: String,
    marks: Marks,
}

impl Target<'_> {
    /// Whether nothing but positions moves, as far as can be told from here.
    fn is_light(&self) -> bool {
        let marks = &self.marks;
        let none = marks.holes.is_empty() && marks.mentions.is_empty() && marks.prefs.is_empty();
        none && matches!(self.state, 'j' | 'i')
    }

    /// What is said beside state, epoch and base, which is mostly nothing.
    fn more(&self) -> String {
        let marks = &self.marks;
        let read = marks.reads.iter().map(|(_, to)| to).max();
        if self.peer.is_empty() && marks.is_empty() {
            return String::new();
        }
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        format!(
            "{}\n{}\n{}\n{}\n{}\n{}",
            self.peer,
            number(marks.named),
            number(read.copied()),
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
    /// Whose membership is older than their deletion.
    void: Vec<&'a Target<'a>>,
    /// Who was not told: it takes more than was looked at.
    closer: Vec<&'a Target<'a>>,
}

/// How many keys of a user's slot a delivery is given: what most need, or all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Quick,
    Close,
}

/// What one user is told of a room outside of any fan-out.
pub(super) struct Tell<'a> {
    pub(super) snapshot: Snapshot,
    /// The user's place in the room; `l`: none.
    pub(super) entry: Entry,
    /// The other one of a direct room.
    pub(super) peer: &'a str,
    /// Positions that don't count.
    pub(super) holes: &'a [u64],
}

impl<'a> Plan<'a> {
    fn new(work: &'a Work, jobs: &[Job]) -> Self {
        let mut plan = Plan {
            snapshot: &work.snapshot,
            jobs: jobs.iter().map(|job| job.stamp).collect(),
            leased: Mutex::new(Instant::now()),
            common_holes: Vec::new(),
            common_mentions: Vec::new(),
            own: BTreeMap::new(),
            gone: None,
            // The two of a direct room see each other, so the whole list is needed to tell one of them.
            full: work.snapshot.kind == "direct" && work.snapshot.born != 0,
            light: !jobs.is_empty() && jobs.iter().all(|job| job.act.only_moves()),
        };
        for user in &work.also {
            plan.own.entry(user.clone()).or_default();
        }
        for job in jobs {
            plan.add(job);
        }
        plan
    }

    fn user(&mut self, user: &Enc) -> &mut Marks {
        self.own.entry(user.clone()).or_default()
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
                    let marks = self.user(user);
                    match &job.act {
                        Act::Read(to) => marks.reads.push((stamp, *to)),
                        Act::Prefs(lines) => marks.prefs.push((stamp, lines.clone())),
                        _ => {}
                    }
                }
            }
            Audience::Leave(_) => {}
        }
        match &job.act {
            Act::Message {
                at,
                own,
                sender,
                everybody,
                mentions,
            } => {
                if *everybody {
                    self.common_mentions.push((stamp, *at));
                }
                for user in mentions {
                    self.user(user).mentions.push((stamp, *at));
                }
                if let Some(sender) = sender {
                    let marks = self.user(sender);
                    marks.named = marks.named.max(Some(stamp));
                    match own {
                        'r' => marks.reads.push((stamp, *at)),
                        // Not the own message: it does not count, and so can't mention.
                        'h' => marks.holes.push((stamp, *at)),
                        _ => {}
                    }
                }
            }
            Act::Recall(at) => self.common_holes.push((stamp, *at)),
            _ => {}
        }
    }

    /// What a user in the list of members is to be told, if anything.
    fn member(&self, user: &'a Enc, entry: Entry, peer: Option<&Enc>) -> Option<Target<'a>> {
        let target = |state, epoch, base, marks| {
            Some(Target {
                user,
                state,
                epoch,
                base,
                peer: peer.map(|p| p.as_str().to_owned()).unwrap_or_default(),
                marks,
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
        // What happened before this membership began is none of its business; positions of an earlier room by the
        // same id even less.
        marks.reads.retain(|(stamp, _)| *stamp > entry.epoch);
        marks.holes.retain(|(stamp, _)| *stamp > entry.epoch);
        marks.mentions.retain(|(stamp, _)| *stamp > entry.epoch);
        marks.prefs.retain(|(stamp, _)| *stamp > entry.epoch);
        target(entry.state, entry.epoch, entry.base, marks)
    }

    fn named_only(&self, user: &Enc) -> Marks {
        Marks {
            named: self.own.get(user).and_then(|m| m.named),
            ..Marks::default()
        }
    }

    /// Who leaves came to exist, at the latest, when the membership began that ends now: that delivery may be missing.
    fn leaving(&self, user: &Enc, entry: Entry) -> Marks {
        let mut marks = self.named_only(user);
        let began = if entry.state == 'l' {
            entry.base
        } else {
            entry.epoch
        };
        marks.named = marks.named.max(Some(began));
        marks
    }

    /// Somebody who is in no list: told only that it exists, if it was named as a sender.
    fn stranger(&self, user: &'a Enc) -> Option<Target<'a>> {
        let marks = self.named_only(user);
        marks.named?;
        Some(Target {
            user,
            state: '-',
            epoch: 0,
            base: 0,
            peer: String::new(),
            marks,
        })
    }
}

fn positions(list: &[(u64, u64)]) -> String {
    let mut out = String::new();
    for (_, position) in list {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(&position.to_string());
    }
    out
}

/// Stamps and positions as the script takes them.
fn stamped(list: &[(u64, u64)]) -> String {
    let list: Vec<String> = list
        .iter()
        .map(|(stamp, at)| format!("{stamp}/{at}"))
        .collect();
    list.join(",")
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

impl Store {
    /// [`Store::deliver`] with a type that can be named: a delivery may end a membership, which delivers in its turn.
    pub(super) fn deliver_later(
        self,
        app: AppId,
        room: Enc,
        work: Work,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> {
        Box::pin(async move { self.deliver(&app, &room, &work).await })
    }

    /// Delivers to everybody concerned, then clears the jobs.
    pub(super) async fn deliver(&self, app: &AppId, room: &Enc, work: &Work) -> Result<()> {
        if work.is_empty() {
            return Ok(());
        }
        let keys = RoomKeys::new(app, room);
        let mut rest = work.jobs.as_slice();
        loop {
            // Marks for everybody weigh as often as there are members, so they go out a hundred at a time.
            let marks = |job: &Job| {
                matches!(
                    &job.act,
                    Act::Recall(_)
                        | Act::Message {
                            everybody: true,
                            ..
                        }
                )
            };
            let mut heavy = rest.iter().enumerate().filter(|(_, job)| marks(job));
            let cut = heavy.nth(COMMON_MARKS).map_or(rest.len(), |(at, _)| at);
            let (jobs, later) = rest.split_at(cut);
            self.deliver_jobs(app, room, &keys, work, jobs).await?;
            rest = later;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    async fn deliver_jobs(
        &self,
        app: &AppId,
        room: &Enc,
        keys: &RoomKeys,
        work: &Work,
        jobs: &[Job],
    ) -> Result<()> {
        let plan = Plan::new(work, jobs);
        let mut swept: Vec<(Enc, u64)> = Vec::new();
        if plan.full {
            match self.members(app, room, keys, work.snapshot.mrev).await? {
                Some(list) => {
                    let list = &list.entries;
                    let seen: BTreeSet<&Enc> = list.iter().map(|(user, _)| user).collect();
                    let direct = work.snapshot.kind == "direct";
                    let targets = list.iter().filter_map(|(user, entry)| {
                        let peer = list
                            .iter()
                            .filter(|_| direct)
                            .find(|(other, e)| other != user && e.is_member(work.snapshot.born));
                        plan.member(user, *entry, peer.map(|(other, _)| other))
                    });
                    let strangers = plan
                        .own
                        .keys()
                        .filter(|u| !seen.contains(*u))
                        .filter_map(|u| plan.stranger(u));
                    let targets = targets.chain(strangers).collect();
                    self.send(app, room, work, &plan, targets, &mut swept)
                        .await?;
                }
                None => self.walk(app, room, keys, work, &plan, &mut swept).await?,
            }
        } else {
            self.some(app, room, keys, work, &plan, &mut swept).await?;
        }
        self.clear(keys, jobs, &swept).await
    }

    /// Delivers to the users that the plan names.
    async fn some(
        &self,
        app: &AppId,
        room: &Enc,
        keys: &RoomKeys,
        work: &Work,
        plan: &Plan<'_>,
        swept: &mut Vec<(Enc, u64)>,
    ) -> Result<()> {
        let users: Vec<&Enc> = plan.own.keys().collect();
        for users in users.chunks(CLEAR) {
            let mut get = redis::cmd("HMGET");
            get.arg(keys.members());
            for user in users {
                get.arg(user.as_str());
            }
            let mut entries = Reply::new(self.inner.redis.query(&get).await?)?;
            let mut targets = Vec::with_capacity(users.len());
            for user in users {
                targets.extend(match maybe_text(entries.value()?)? {
                    Some(entry) => plan.member(user, Entry::parse(&entry)?, None),
                    None => plan.stranger(user),
                });
            }
            self.send(app, room, work, plan, targets, swept).await?;
        }
        Ok(())
    }

    /// Delivers to a list too long to be read at once. HSCAN answers everybody who was in it all the time; who came or
    /// went meanwhile has a fan-out of his own.
    async fn walk(
        &self,
        app: &AppId,
        room: &Enc,
        keys: &RoomKeys,
        work: &Work,
        plan: &Plan<'_>,
        swept: &mut Vec<(Enc, u64)>,
    ) -> Result<()> {
        let serving = self.inner.redis.serving(&keys.members()).await?;
        let mut cursor = "0".to_owned();
        let mut named: BTreeSet<Enc> = plan.own.keys().cloned().collect();
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(keys.members())
                .arg(&cursor)
                .arg("COUNT")
                .arg(1_000);
            let mut page = Reply::new(self.inner.redis.query(&scan).await?)?;
            cursor = page.text()?;
            let entries = parse_members(page.list()?)?;
            let targets = entries
                .iter()
                .filter_map(|(user, entry)| {
                    named.remove(user);
                    plan.member(user, *entry, None)
                })
                .collect();
            self.send(app, room, work, plan, targets, swept).await?;
            if swept.len() >= CLEAR {
                self.clear(keys, &[], swept).await?;
                swept.clear();
            }
            if cursor == "0" {
                break;
            }
        }
        // A cursor means nothing to another server, such as a replica that took over: somebody may have been left out.
        if self.inner.redis.serving(&keys.members()).await? != serving {
            let why = "the room moved to another server; the delivery will be made again";
            return Err(Error::Unavailable(why.into()));
        }
        let strangers = named
            .iter()
            .filter_map(|user| plan.stranger(user))
            .collect();
        self.send(app, room, work, plan, strangers, swept).await
    }

    /// The list of members at revision `mrev` or later; `None`: too long to be held.
    async fn members(
        &self,
        app: &AppId,
        room: &Enc,
        keys: &RoomKeys,
        mrev: u64,
    ) -> Result<Option<Arc<MemberList>>> {
        let name = (app.clone(), room.clone());
        // A cache that speeds up and never decides: it is used only if the room says that this list is current.
        if mrev != 0
            && let Some(list) = self.inner.members.get(&name)
            && list.mrev == mrev
        {
            return Ok(Some(list));
        }
        let call = scripts::ROOM_MEMBERS
            .call(&[keys.meta(), keys.members()])
            .arg(LIST);
        let mut reply = Reply::new(self.inner.redis.call(&call).await?)?;
        let (born, mrev, length) = (reply.number()?, reply.number()?, reply.number()?);
        if length > LIST as u64 {
            return Ok(None);
        }
        let list = Arc::new(MemberList {
            born,
            mrev,
            entries: parse_members(reply)?,
        });
        if list.born != 0 {
            self.inner.members.insert(name, Arc::clone(&list));
        }
        Ok(Some(list))
    }

    /// Brings one user a room as it is, outside of any fan-out.
    pub(super) async fn tell(
        &self,
        app: &AppId,
        room: &Enc,
        user: &Enc,
        told: Tell<'_>,
    ) -> Result<()> {
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
        };
        let plan = Plan::new(&work, &[]);
        self.send(app, room, &work, &plan, vec![target], &mut Vec::new())
            .await
    }

    async fn send(
        &self,
        app: &AppId,
        room: &Enc,
        work: &Work,
        plan: &Plan<'_>,
        targets: Vec<Target<'_>>,
        swept: &mut Vec<(Enc, u64)>,
    ) -> Result<()> {
        swept.extend(
            targets
                .iter()
                .filter(|t| t.state == 'l')
                .map(|t| (t.user.clone(), t.epoch)),
        );
        // A supergroup's positions are not in its members' slots.
        let quick = plan.light && work.snapshot.kind != "supergroup";
        let (light, mut rest): (Vec<&Target<'_>>, _) =
            targets.iter().partition(|t| quick && t.is_light());
        let (closer, failure) = self
            .pass(app, room, work, plan, &light, Look::Quick)
            .await?;
        rest.extend(closer);
        let (_, later) = self.pass(app, room, work, plan, &rest, Look::Close).await?;
        failure.or(later).map_or(Ok(()), Err)
    }

    /// Tells some; answers who has to be told with a closer look, and the first failure: whoever can be reached is told all
    /// the same.
    async fn pass<'t>(
        &self,
        app: &AppId,
        room: &Enc,
        work: &Work,
        plan: &Plan<'_>,
        targets: &'t [&'t Target<'t>],
        look: Look,
    ) -> Result<(Vec<&'t Target<'t>>, Option<Error>)> {
        let mut closer = Vec::new();
        if targets.is_empty() {
            return Ok((closer, None));
        }
        let common = (stamped(&plan.common_holes), stamped(&plan.common_mentions));
        // Users of a cluster are in slots of their own: a call for each, and many calls in one batch.
        let spread = self.inner.redis.spans_slots();
        let (users_per_call, calls_per_batch) = match (spread, look) {
            (true, _) => (1, USERS_PER_BATCH),
            (false, Look::Quick) if targets.len() <= WIDE => (USERS_PER_CALL, 1),
            (false, Look::Quick) => (USERS_PER_WIDE_CALL, 1),
            (false, Look::Close) => (USERS_PER_HEAVY_CALL, 1),
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
        self.keep(app, room, plan).await?;
        // So many batches at a time: a room may have more members than their calls should take memory.
        let mut rest = targets;
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < at_once && !rest.is_empty() {
                let (targets, later) =
                    rest.split_at(rest.len().min(users_per_call * calls_per_batch));
                rest = later;
                let snapshot = &work.snapshot;
                let calls = targets
                    .chunks(users_per_call)
                    .map(|users| {
                        Item::Script(deliver_call(app, room, snapshot, &common, users, look))
                    })
                    .collect();
                under_way.push(self.send_one(Batch { calls, targets }));
            }
            let Some(answer) = under_way.next().await else {
                break;
            };
            self.keep(app, room, plan).await?;
            match answer {
                Ok(told) => {
                    closer.extend(told.closer);
                    self.end(app, room, work, told.void).await?;
                }
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
        Ok((closer, failure))
    }

    /// Renews the lease of fan-outs that take long, so that nobody begins them a second time.
    async fn keep(&self, app: &AppId, room: &Enc, plan: &Plan<'_>) -> Result<()> {
        {
            let mut leased = plan.leased.lock().unwrap_or_else(|held| held.into_inner());
            if plan.jobs.is_empty() || leased.elapsed() < RENEW {
                return Ok(());
            }
            *leased = Instant::now();
        }
        for jobs in plan.jobs.chunks(CLEAR) {
            let mut call = scripts::JOBS_RENEW
                .call(&[RoomKeys::new(app, room).pending()])
                .arg(LEASE_MICROS);
            for job in jobs {
                call.push(*job);
            }
            self.inner.redis.call(&call).await?;
        }
        Ok(())
    }

    /// Ends memberships that are older than the user's deletion and were told after it, unless what is being delivered
    /// is that the user is let in (again).
    async fn end(
        &self,
        app: &AppId,
        room: &Enc,
        work: &Work,
        void: Vec<&Target<'_>>,
    ) -> Result<()> {
        for target in void {
            let user = target.user;
            Box::pin(self.leave(app, room, user, Some(target.epoch))).await?;
            if let Some(joining) = work.joins.get(user) {
                Box::pin(self.let_in(app, room, user, *joining)).await?;
            }
        }
        Ok(())
    }

    /// Makes some calls.
    async fn send_one<'t>(&self, batch: Batch<'t>) -> Result<Told<'t>> {
        let answers = self.inner.redis.batch(&batch.calls).await?;
        let mut told = Told::default();
        let mut targets = batch.targets.iter().copied();
        for answer in answers {
            let mut reply = Reply::new(answer)?;
            while !reply.is_empty() {
                match (reply.text()?.as_str(), targets.next()) {
                    ("K", Some(_)) => {}
                    ("V", Some(target)) => told.void.push(target),
                    ("C", Some(target)) => told.closer.push(target),
                    ("STALE", _) => {
                        let why = "a delivery took too long; it will be made again";
                        return Err(Error::Unavailable(why.into()));
                    }
                    _ => return Err(Error::Internal("unexpected reply to a delivery".into())),
                }
            }
        }
        let reached = batch.targets.len() - told.closer.len();
        self.inner.metrics.delivered(reached as u64);
        Ok(told)
    }

    /// Clears jobs, and the entries of members whose leaving was delivered.
    async fn clear(&self, keys: &RoomKeys, jobs: &[Job], swept: &[(Enc, u64)]) -> Result<()> {
        // Departures first: were their entries swept after the job, a pod dying in between would leave them for good.
        for swept in swept.chunks(CLEAR) {
            let mut call = scripts::MEMBERS_SWEEP.call(&[keys.meta(), keys.members()]);
            for (user, epoch) in swept {
                call.push(user.as_str());
                call.push(*epoch);
            }
            self.inner.redis.call(&call).await?;
        }
        for jobs in jobs.chunks(CLEAR) {
            let mut clear = redis::cmd("HDEL");
            clear.arg(keys.pending());
            for job in jobs {
                clear.arg(job.stamp);
            }
            self.inner.redis.query(&clear).await?;
        }
        Ok(())
    }
}

fn deliver_call(
    app: &AppId,
    room: &Enc,
    snapshot: &Snapshot,
    common: &(String, String),
    targets: &[&Target<'_>],
    look: Look,
) -> scripts::Call {
    let mut keys = Vec::with_capacity(targets.len() * 7);
    for target in targets {
        let user = UserKeys::new(app, target.user);
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
    call.push(room.as_str());
    call.push(snapshot.taken);
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
        call.push(format!("{}|{}", target.state, short(target.epoch)));
        let after = snapshot.rev.checked_sub(target.epoch);
        call.push(after.map(short).unwrap_or_default());
        call.push(target.base);
        call.push(target.more());
    }
    call
}

pub(super) fn parse_members(reply: Reply) -> Result<Vec<(Enc, Entry)>> {
    reply
        .pairs()?
        .into_iter()
        .map(|(user, entry)| Ok((Enc::stored(user), Entry::parse(&entry)?)))
        .collect()
}
