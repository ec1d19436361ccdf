//! One room's steps of a request: the room accepts them in their order, then the writer delivers their jobs together.

use std::collections::BTreeSet;

use super::steps::{IncomingMessage, Numbered, RoomSteps, SentAt, Step, fits};
use super::{Writer, unexpected_reply};
use crate::connection::Item;
use crate::counts::room::Job;
use crate::engine::deliver::{LEASE_MICROS, Work};
use crate::engine::reply::Reply;
use crate::engine::snapshot::Snapshot;
use crate::error::{Error, Result, Unreadable};
use crate::event::{Change, EventOutcome, Rejection, RoomOrPeer, Wait};
use crate::keys::{self, Enc, RoomKeys, encode};
use crate::names::{AppId, RoomId, UserId};
use crate::scripts::{self, ScriptCall};

/// How long the revision of a deleted room is kept, in milliseconds.
const KEEP_DELETED_MS: u64 = 24 * 3600 * 1000;

/// A room with at most this many jobs, and this many members, is so small that a call may finish the jobs of other calls.
const FEW: usize = 64;

/// Passing jobs that a delivery takes along at most. More of them were left by a pod that died, and the sweep takes over all of
/// them together.
const MAX_PASSING: usize = 2_000;
/// Passing jobs that a call reads at most, to find some of them.
const MAX_READ: usize = 100_000;

impl Writer {
    /// Has one room accept its events in their order, then delivers their jobs together. Unreadable data makes the events
    /// rejected that depend on it.
    pub(super) async fn apply_room(
        &self,
        app: &AppId,
        room: RoomSteps,
        wait: Wait,
    ) -> Result<Vec<Numbered<EventOutcome>>> {
        let mut outcomes = Vec::with_capacity(room.steps.len());
        if let Err(error) = self.try_apply_room(app, room, wait, &mut outcomes).await {
            // The accepted events are delivered when the data has been mended. Until then none of them counts as done.
            let rejection = self.unreadable_rejection(error)?;
            for (_, outcome) in &mut outcomes {
                if !matches!(outcome, EventOutcome::Rejected(_)) {
                    *outcome = EventOutcome::Rejected(rejection.clone());
                }
            }
        }
        Ok(outcomes)
    }

    async fn try_apply_room(
        &self,
        app: &AppId,
        room: RoomSteps,
        wait: Wait,
        outcomes: &mut Vec<Numbered<EventOutcome>>,
    ) -> Result<()> {
        let name = encode(room.name.as_str());
        let mut worker = RoomWorker {
            writer: self,
            app,
            id: &room.name,
            entry: keys::room_entry(app, &name),
            keys: RoomKeys::new(app, &name),
            work: Work::default(),
            unfinished: 0,
            wants_trim: false,
            has_rejected: false,
            unreadable: BTreeSet::new(),
            outcomes: Vec::with_capacity(room.steps.len()),
        };
        let indices: Vec<usize> = room.steps.iter().map(|step| step.index).collect();
        let single_users: Vec<Numbered<Enc>> =
            room.steps.iter().filter_map(Step::single_user).collect();
        let wait = match room.steps.iter().any(Step::takes_users_key) {
            true => Wait::Applied,
            false => wait,
        };
        let accepted = worker.run(room.steps).await;
        *outcomes = std::mem::take(&mut worker.outcomes);
        if let Err(error) = accepted {
            // The events before the unreadable data are delivered all the same.
            let rejection = self.unreadable_rejection(error)?;
            let known: BTreeSet<usize> = outcomes.iter().map(|(index, _)| *index).collect();
            let rest = indices.into_iter().filter(|index| !known.contains(index));
            outcomes.extend(rest.map(|index| (index, EventOutcome::Rejected(rejection.clone()))));
        }
        let wants_trim = worker.wants_trim;
        let mut unreadable = std::mem::take(&mut worker.unreadable);
        let work = worker.into_work().await?;
        if wants_trim {
            self.inner.trimmer.trim_later(app, &name);
        }
        let finished = self.hand_over(app, name, work, wait).await?;
        unreadable.extend(finished.unreadable);
        // An event that concerns one user only is not done if that user's slot can't be read; the caller repeats it.
        for (index, user) in single_users {
            if unreadable.contains(&user)
                && let Some((_, outcome)) = outcomes.iter_mut().find(|(at, _)| *at == index)
                && !matches!(outcome, EventOutcome::Rejected(_))
            {
                *outcome = EventOutcome::Rejected(unreadable_user());
            }
        }
        Ok(())
    }
}

/// Why an event that concerns one user only is not done.
pub(super) fn unreadable_user() -> Rejection {
    let what = Unreadable {
        place: String::new(),
        why: "what is stored of the user".into(),
    };
    Rejection::Unreadable(Box::new(what))
}

/// Applies one room's steps.
pub(super) struct RoomWorker<'a> {
    pub(super) writer: &'a Writer,
    pub(super) app: &'a AppId,
    pub(super) id: &'a RoomId,
    entry: String,
    pub(super) keys: RoomKeys,
    pub(super) work: Work,
    /// The number of passing jobs, if they were too many for a script's reply.
    unfinished: usize,
    /// Whether the room asked for a trim.
    pub(super) wants_trim: bool,
    /// Whether the room rejected an event.
    pub(super) has_rejected: bool,
    /// Users whose slots could not be read in deliveries that were made before the end of the request.
    pub(super) unreadable: BTreeSet<Enc>,
    pub(super) outcomes: Vec<Numbered<EventOutcome>>,
}

/// A script's own keys of a room's slot, followed by those that hold the keys of events.
pub(super) fn with_event_keys<const N: usize>(keys: &RoomKeys, own: [String; N]) -> Vec<String> {
    own.into_iter().chain(keys.event_keys()).collect()
}

/// The same, then the keys of the order of time.
pub(super) fn with_event_and_time_keys<const N: usize>(
    keys: &RoomKeys,
    own: [String; N],
) -> Vec<String> {
    let mut all = with_event_keys(keys, own);
    all.extend(keys.of_time());
    all
}

/// The two users whose direct room an event about a message means, encoded; empty texts if it names the room.
pub(super) fn pair_of(place: &RoomOrPeer, sender: Option<&UserId>) -> [String; 2] {
    match (place, sender) {
        (RoomOrPeer::With(to), Some(sender)) => {
            [sender, to].map(|user| encode(user.as_str()).as_str().to_owned())
        }
        _ => Default::default(),
    }
}

impl RoomWorker<'_> {
    async fn run(&mut self, steps: Vec<Step>) -> Result<()> {
        let mut messages: Vec<IncomingMessage> = Vec::new();
        for step in steps {
            let change = match step.change {
                Change::Message(message) => {
                    if !fits(&messages, &message) {
                        self.send(std::mem::take(&mut messages)).await?;
                    }
                    messages.push(IncomingMessage {
                        index: step.index,
                        message,
                        sent_at: step.sent_at,
                        found: step.found,
                    });
                    continue;
                }
                change => change,
            };
            self.send(std::mem::take(&mut messages)).await?;
            let waits = change.message_id().is_some().then(|| change.clone());
            let outcome = self
                .apply(change, step.sent_at, step.up_to, &step.key)
                .await?;
            let outcome = match (outcome, waits) {
                // The message may still come, into another room of the two.
                (EventOutcome::Rejected(Rejection::DirectRoomFull), Some(waits)) => {
                    self.wait_elsewhere((step.found, waits), step.sent_at, step.key)
                        .await?
                }
                (outcome, _) => outcome,
            };
            self.outcomes.push((step.index, outcome));
        }
        self.send(messages).await
    }

    /// Applies a change that is no message.
    async fn apply(
        &mut self,
        change: Change,
        sent_at: SentAt,
        up_to: Option<u64>,
        key: &str,
    ) -> Result<EventOutcome> {
        match change {
            Change::RoomUpdated { .. } => self.update(&change, sent_at.time, key).await,
            Change::RoomDeleted { .. } => self.delete(key).await,
            Change::Member { state, users, .. } => {
                let users: Vec<Enc> = users.iter().map(|user| encode(user.as_str())).collect();
                self.change_members(&users, state, up_to, sent_at, key)
                    .await
            }
            Change::Recalled { place, sender, id } => {
                let pair = pair_of(&place, sender.as_ref());
                self.recall(&encode(id.as_str()), pair, sent_at).await
            }
            Change::Edited(edit) => self.edit(&edit, sent_at, key).await,
            Change::Read { place, user, up_to } => {
                let user = encode(user.as_str());
                match (self.read(&user, &up_to, sent_at, key).await?, place) {
                    (rejected @ EventOutcome::Rejected(_), RoomOrPeer::With(_)) => {
                        self.rejected_read_by_peer(&user, rejected).await
                    }
                    (outcome, _) => Ok(outcome),
                }
            }
            Change::Unread { place, user, from } => {
                let user = encode(user.as_str());
                let outcome = self.unread_from(&user, &from, sent_at, key).await?;
                self.with_peer(&place, &user, outcome).await
            }
            Change::CountsSet {
                place,
                user,
                unread,
                mentions,
            } => {
                let user = encode(user.as_str());
                let outcome = self
                    .set_counts(&user, unread, mentions, sent_at, key)
                    .await?;
                self.with_peer(&place, &user, outcome).await
            }
            Change::Cleared { up_to, .. } => self.clear(&up_to, sent_at, key).await,
            Change::Pref { user, prefs, .. } => {
                self.pref(&encode(user.as_str()), &prefs, key).await
            }
            Change::Message(_)
            | Change::UserUpdated { .. }
            | Change::UserDeleted { .. }
            | Change::ReadAll { .. } => {
                Err(Error::Internal("an event stands where it can't".into()))
            }
        }
    }

    pub(super) async fn accept(&self, call: impl Fn(u64) -> ScriptCall) -> Result<Reply> {
        self.writer.accept(&self.entry, call).await
    }

    pub(super) fn reject(&mut self, code: &str) -> Result<EventOutcome> {
        self.has_rejected = true;
        Ok(EventOutcome::Rejected(match code {
            "ROOM" => Rejection::RoomNotFound(self.id.clone()),
            "MESSAGE" => Rejection::MessageNotFound,
            "MEMBER" => Rejection::NotAMember,
            "KIND" => Rejection::KindChange,
            "FULL" => Rejection::DirectRoomFull,
            "KEY" => Rejection::KeyTaken,
            _ => return Err(unexpected_reply()),
        }))
    }

    /// Reads `job, record, passing jobs, snapshot` of a script's reply into the work. Returns the job's stamp.
    pub(super) fn read_accepted(&mut self, reply: &mut Reply) -> Result<Option<u64>> {
        let job = Job::read(reply)?;
        let stamp = job.as_ref().map(|job| job.stamp);
        self.read_unfinished(reply.list()?)?;
        // If the room has been deleted since, a repeated event waits for the jobs of that deletion.
        self.work.snapshot = Snapshot::read(reply)?.or_deleted();
        self.work.jobs.extend(job);
        Ok(stamp)
    }

    /// Reads the pending jobs of a script's reply, or their number if there are many.
    pub(super) fn read_unfinished(&mut self, mut unfinished: Reply) -> Result<()> {
        match unfinished.len() {
            1 => self.unfinished = self.unfinished.max(unfinished.number()? as usize),
            _ => self.work.passing.extend(Job::read_all(unfinished)?),
        }
        Ok(())
    }

    /// Whether jobs of other calls have not reached everybody.
    pub(super) fn has_passing(&self) -> bool {
        self.unfinished > 0 || !self.work.passing.is_empty()
    }

    /// Reads the passing jobs that were too many for a script's reply. If they are too many for a delivery, only those without
    /// which it would do something else than it should are taken along.
    async fn read_passing(&mut self) -> Result<()> {
        let needed = self.work.needs_jobs_of();
        let takes_all = self.unfinished <= MAX_PASSING;
        let reads = takes_all || !needed.is_empty();
        if reads && (1..=MAX_READ).contains(&self.unfinished) {
            let mut get = redis::cmd("HGETALL");
            get.arg(self.keys.pending());
            let unfinished = self.writer.inner.redis.query(&get).await?;
            let mut found = Job::read_all(Reply::new(unfinished)?)?;
            found.retain(|job| {
                takes_all || job.act.message().is_some_and(|at| needed.contains(&at))
            });
            self.work.passing.extend(found);
        }
        self.unfinished = 0;
        Ok(())
    }

    /// Delivers what this call has accepted in the room so far.
    pub(super) async fn deliver_so_far(&mut self) -> Result<()> {
        if self.work.is_empty() {
            return Ok(());
        }
        self.read_passing().await?;
        let mut work = std::mem::take(&mut self.work);
        work.adopt(false);
        self.work.snapshot = work.snapshot.clone();
        let name = encode(self.id.as_str());
        let finished = self.writer.finish(self.app, &name, work).await?;
        self.unreadable.extend(finished.unreadable);
        Ok(())
    }

    /// The work to deliver, when all steps have been applied.
    async fn into_work(mut self) -> Result<Work> {
        self.read_passing().await?;
        let is_small = self.has_rejected && self.add_jobs_of_others().await?;
        self.work.adopt(is_small);
        Ok(self.work)
    }

    /// A rejection may rest on a change by another call that has not reached everybody. Adds the jobs of such changes. Returns
    /// whether the room is so small that this call may finish them.
    async fn add_jobs_of_others(&mut self) -> Result<bool> {
        let length = |key: String| {
            let mut length = redis::cmd("HLEN");
            length.arg(key);
            Item::Plain(length)
        };
        let mut jobs = redis::cmd("HGETALL");
        jobs.arg(self.keys.pending());
        let redis = &self.writer.inner.redis;
        let lengths = [length(self.keys.pending()), length(self.keys.members())];
        let mut lengths = Reply::new(redis::Value::Array(redis.send_all(&lengths).await?))?;
        let (pending, members) = (lengths.number()? as usize, lengths.number()? as usize);
        if pending == 0 || pending > FEW || members > FEW {
            return Ok(false);
        }
        let snapshot = scripts::ROOM_SNAPSHOT.call(&[self.keys.meta()]);
        let items = [Item::Plain(jobs), Item::Script(snapshot)];
        let mut answers = redis.send_all(&items).await?.into_iter();
        let mut next = || Reply::new(answers.next().unwrap_or(redis::Value::Nil));
        // The jobs are read before the snapshot, so that none of them is later than it.
        let (jobs, mut snapshot) = (next()?, next()?);
        self.work.passing.extend(Job::read_all(jobs)?);
        self.work.snapshot = Snapshot::read(&mut snapshot)?.or_deleted();
        Ok(true)
    }

    /// The outcome of a script whose reply is this code and then only what [`Self::read_accepted`] reads.
    pub(super) fn outcome(&mut self, code: &str, mut reply: Reply) -> Result<EventOutcome> {
        match code {
            "OK" => {
                self.read_accepted(&mut reply)?;
                Ok(EventOutcome::Applied { position: None })
            }
            "DUP" => {
                self.read_accepted(&mut reply)?;
                Ok(EventOutcome::Duplicate { position: None })
            }
            code => self.reject(code),
        }
    }

    /// Changes the room's details. A detail that the event does not name stays as it is.
    async fn update(&mut self, change: &Change, time: i64, key: &str) -> Result<EventOutcome> {
        let Change::RoomUpdated {
            kind,
            makes,
            custom_type,
            tags,
            active,
            shown,
            ..
        } = change
        else {
            return Err(unexpected_reply());
        };
        let custom_type = custom_type.as_ref().map(|text| encode(text.as_str()));
        let tags = tags.as_ref().map_or(String::new(), |tags| {
            let tags: Vec<Enc> = tags.iter().map(|tag| encode(tag.as_str())).collect();
            let tags: Vec<&str> = tags.iter().map(Enc::as_str).collect();
            format!("*{}", tags.join(","))
        });
        let status = active.map_or("", |active| if active { "1" } else { "0" });
        let kind = kind.map_or(String::new(), |kind| match makes {
            true => format!("+{kind}"),
            false => kind.to_owned(),
        });
        let mut reply = self
            .accept(|token| {
                let mut call = scripts::ROOM_UPDATE
                    .call(&with_event_keys(
                        &self.keys,
                        [self.keys.meta(), self.keys.pending()],
                    ))
                    .arg(token)
                    .arg(LEASE_MICROS)
                    .arg(key)
                    .arg(&kind)
                    .arg(custom_type.as_ref().map_or("", Enc::as_str))
                    .arg(&tags)
                    .arg(status)
                    .arg(time);
                for (field, value) in shown {
                    call.push(*field);
                    call.push(value);
                }
                call
            })
            .await?;
        let code = reply.text()?;
        self.outcome(&code, reply)
    }

    async fn delete(&mut self, key: &str) -> Result<EventOutcome> {
        let keys = &self.keys;
        let mut reply = self
            .accept(|token| {
                let own = [
                    keys.meta(),
                    keys.members(),
                    keys.ids(),
                    keys.log(),
                    keys.recalled(),
                    keys.allmentions(),
                    keys.pending(),
                ];
                scripts::ROOM_DELETE
                    .call(&with_event_and_time_keys(keys, own))
                    .arg(token)
                    .arg(LEASE_MICROS)
                    .arg(key)
                    .arg(KEEP_DELETED_MS)
            })
            .await?;
        match reply.text()?.as_str() {
            code @ ("OK" | "DUP") => {
                let job = Job::read(&mut reply)?;
                if code == "OK" || job.is_some() {
                    self.work.snapshot = Snapshot::deleted(reply.number()?);
                    self.work.jobs.extend(job);
                }
                Ok(match code {
                    "OK" => EventOutcome::Applied { position: None },
                    _ => EventOutcome::Duplicate { position: None },
                })
            }
            "ROOM" => {
                // The room was deleted before. If that has not reached everybody, this call delivers it too.
                if let Some(job) = Job::read(&mut reply)? {
                    self.work.snapshot = Snapshot::deleted(reply.number()?);
                    self.work.jobs.push(job);
                }
                self.reject("ROOM")
            }
            code => self.reject(code),
        }
    }

    /// Takes a message back; `pair`: the two users whose direct room the event means, or empty.
    async fn recall(
        &mut self,
        id: &Enc,
        pair: [String; 2],
        sent_at: SentAt,
    ) -> Result<EventOutcome> {
        let history = &self.writer.inner.history;
        let keys = &self.keys;
        let [one, two] = &pair;
        let mut reply = self
            .accept(|token| {
                let [timed, bounds, arrived] = keys.of_time();
                scripts::MESSAGE_RECALL
                    .call(&[
                        keys.meta(),
                        keys.members(),
                        keys.ids(),
                        keys.recalled(),
                        keys.allmentions(),
                        keys.pending(),
                        timed,
                        bounds,
                        arrived,
                    ])
                    .arg(token)
                    .arg(LEASE_MICROS)
                    .arg(history.max_messages)
                    .arg(history.max_age_micros())
                    .arg(id.as_str())
                    .arg(one)
                    .arg(two)
                    .arg(sent_at.order_and_time().0)
            })
            .await?;
        match reply.text()?.as_str() {
            "OK" => {
                self.read_accepted(&mut reply)?;
                self.wants_trim |= reply.number()? == 1;
                Ok(EventOutcome::Applied { position: None })
            }
            "DUP" => {
                self.read_accepted(&mut reply)?;
                Ok(EventOutcome::Duplicate { position: None })
            }
            code => self.reject(code),
        }
    }

    async fn pref(
        &mut self,
        user: &Enc,
        prefs: &[(&'static str, String)],
        key: &str,
    ) -> Result<EventOutcome> {
        let lines = prefs
            .iter()
            .flat_map(|(field, value)| [*field, "\n", value, "\n"]);
        let prefs: String = lines.collect();
        let keys = &self.keys;
        let mut reply = self
            .accept(|token| {
                let own = [keys.meta(), keys.members(), keys.pending()];
                scripts::PREF_UPDATE
                    .call(&with_event_keys(keys, own))
                    .arg(token)
                    .arg(LEASE_MICROS)
                    .arg(key)
                    .arg(user.as_str())
                    .arg(&prefs)
            })
            .await?;
        let code = reply.text()?;
        self.outcome(&code, reply)
    }
}
