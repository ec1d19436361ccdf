//! One room's events on their way in: accepted in their order, then delivered together.

use std::collections::BTreeSet;

use super::steps::{RoomSteps, Sent, Step, fits};
use super::{Numbered, Writer, unexpected};
use crate::connection::Item;
use crate::counts::room::Job;
use crate::engine::deliver::LEASE_MICROS;
use crate::engine::deliver::Work;
use crate::engine::reply::Reply;
use crate::engine::snapshot::Snapshot;
use crate::error::{Error, Result, Unreadable};
use crate::event::{Change, EventOutcome, Place, Rejection, Wait};
use crate::keys::{self, Enc, RoomKeys, encode};
use crate::names::{AppId, RoomId};
use crate::scripts::{self, Call};

/// For how long the revision of a deleted room is kept, in milliseconds.
pub(super) const KEEP_DELETED_MS: u64 = 24 * 3600 * 1000;

/// Fan-outs and members of a room in which a call finishes what others have begun.
pub(super) const FEW: usize = 64;

/// Unfinished fan-outs of a room that a delivery takes along. A room with more has been left by a dead pod, and whoever
/// recovers it takes them all.
pub(super) const TAKEN_ALONG: usize = 2_000;

impl Writer {
    /// Accepts one room's events in their order, then delivers them together. Events that something unreadable is in the way of
    /// are rejected.
    pub(super) async fn room(
        &self,
        app: &AppId,
        room: RoomSteps,
        wait: Wait,
    ) -> Result<Vec<Numbered<EventOutcome>>> {
        let mut outcomes = Vec::with_capacity(room.steps.len());
        if let Err(error) = self.room_into(app, room, wait, &mut outcomes).await {
            // What was accepted is delivered when that is mended. Until then nobody is told that it is done.
            let rejection = self.unreadable(error)?;
            for (_, outcome) in &mut outcomes {
                if !matches!(outcome, EventOutcome::Rejected(_)) {
                    *outcome = EventOutcome::Rejected(rejection.clone());
                }
            }
        }
        Ok(outcomes)
    }

    pub(super) async fn room_into(
        &self,
        app: &AppId,
        room: RoomSteps,
        wait: Wait,
        outcomes: &mut Vec<Numbered<EventOutcome>>,
    ) -> Result<()> {
        let name = encode(room.name.as_str());
        let mut worker = Worker {
            writer: self,
            app,
            id: &room.name,
            entry: keys::room_entry(app, &name),
            keys: RoomKeys::new(app, &name),
            work: Work::default(),
            unfinished: 0,
            much: false,
            was_refused: false,
            outcomes: Vec::with_capacity(room.steps.len()),
        };
        let indices: Vec<usize> = room.steps.iter().map(|step| step.index).collect();
        let own: Vec<Numbered<Enc>> = room.steps.iter().filter_map(Step::of_one).collect();
        let wait = match room.steps.iter().any(Step::takes_users_key) {
            true => Wait::Applied,
            false => wait,
        };
        let accepted = worker.run(room.steps).await;
        *outcomes = std::mem::take(&mut worker.outcomes);
        if let Err(error) = accepted {
            // What came before it is delivered all the same.
            let rejection = self.unreadable(error)?;
            let known: BTreeSet<usize> = outcomes.iter().map(|(index, _)| *index).collect();
            let rest = indices.into_iter().filter(|index| !known.contains(index));
            outcomes.extend(rest.map(|index| (index, EventOutcome::Rejected(rejection.clone()))));
        }
        let much = worker.much;
        let work = worker.done().await?;
        if much {
            self.inner.trimmer.later(app, &name);
        }
        let finished = self.hand_over(app, name, work, wait).await?;
        // What is a user's own alone is not done if that user can't be told; the caller sends it again.
        for (index, user) in own {
            if finished.untold.contains(&user)
                && let Some((_, outcome)) = outcomes.iter_mut().find(|(at, _)| *at == index)
                && !matches!(outcome, EventOutcome::Rejected(_))
            {
                let what = Unreadable {
                    place: String::new(),
                    why: "what is stored of the user".into(),
                };
                *outcome = EventOutcome::Rejected(Rejection::Unreadable(Box::new(what)));
            }
        }
        Ok(())
    }
}

/// One room's events on their way in.
pub(super) struct Worker<'a> {
    pub(super) writer: &'a Writer,
    pub(super) app: &'a AppId,
    pub(super) id: &'a RoomId,
    pub(super) entry: String,
    pub(super) keys: RoomKeys,
    pub(super) work: Work,
    /// How many fan-outs had not reached everybody, where they were too many to be answered.
    pub(super) unfinished: usize,
    /// Whether the room has much to forget.
    pub(super) much: bool,
    /// Whether the room has refused something.
    pub(super) was_refused: bool,
    pub(super) outcomes: Vec<Numbered<EventOutcome>>,
}

/// A script's own keys of a room's slot, and those in which keys of events are remembered.
pub(super) fn with_taken<const N: usize>(keys: &RoomKeys, own: [String; N]) -> Vec<String> {
    own.into_iter().chain(keys.taken()).collect()
}

/// Takes along fan-outs of other calls, job and record in turn. One that this version can't read is left to those who can.
pub(super) fn take_along(work: &mut Work, open: Reply) -> Result<()> {
    for (id, record) in open.pairs()? {
        work.passing.extend(Job::parse(&id, &record).ok());
    }
    Ok(())
}

impl Worker<'_> {
    pub(super) async fn run(&mut self, steps: Vec<Step>) -> Result<()> {
        let mut messages: Vec<Sent> = Vec::new();
        for step in steps {
            let Step {
                index,
                key,
                sent,
                change,
                how,
                up_to,
            } = step;
            let change = match change {
                Change::Message(message) => {
                    if !fits(&messages, &message) {
                        self.send(std::mem::take(&mut messages)).await?;
                    }
                    messages.push(Sent {
                        index,
                        message,
                        at: sent,
                        how,
                    });
                    continue;
                }
                change => change,
            };
            self.send(std::mem::take(&mut messages)).await?;
            let outcome = match change {
                Change::RoomUpdated { .. } => self.update(&change, sent.time, &key).await?,
                Change::RoomDeleted { .. } => self.delete(&key).await?,
                Change::Member { state, users, .. } => {
                    let users: Vec<Enc> = users.iter().map(|user| encode(user.as_str())).collect();
                    self.member(&users, state, up_to, &key).await?
                }
                Change::Recalled { id, .. } => self.recall(&encode(id.as_str())).await?,
                Change::Read { place, user, up_to } => {
                    let user = encode(user.as_str());
                    match (self.read(&user, &up_to, &key).await?, place) {
                        (refused @ EventOutcome::Rejected(_), Place::With(_)) => {
                            self.or_nothing_to_read(&user, refused).await?
                        }
                        (outcome, _) => outcome,
                    }
                }
                Change::Pref { user, settings, .. } => {
                    self.pref(&encode(user.as_str()), &settings, &key).await?
                }
                Change::Message(_)
                | Change::UserUpdated { .. }
                | Change::UserDeleted { .. }
                | Change::ReadAll { .. } => {
                    return Err(Error::Internal("an event stands where it can't".into()));
                }
            };
            self.outcomes.push((index, outcome));
        }
        self.send(messages).await
    }

    pub(super) async fn accept(&self, call: impl Fn(u64) -> Call) -> Result<Reply> {
        self.writer.accept(&self.entry, call).await
    }

    pub(super) fn refused(&mut self, code: &str) -> Result<EventOutcome> {
        self.was_refused = true;
        Ok(EventOutcome::Rejected(match code {
            "ROOM" => Rejection::RoomNotFound(self.id.clone()),
            "MESSAGE" => Rejection::MessageNotFound,
            "MEMBER" => Rejection::NotAMember,
            "KIND" => Rejection::KindChange,
            "FULL" => Rejection::DirectRoomFull,
            "KEY" => Rejection::KeyTaken,
            _ => return Err(unexpected()),
        }))
    }

    /// Takes `job, record, unfinished fan-outs, snapshot`; answers the job's stamp.
    pub(super) fn take(&mut self, reply: &mut Reply) -> Result<Option<u64>> {
        let job = Job::read(reply)?;
        let stamp = job.as_ref().map(|job| job.stamp);
        let mut open = reply.list()?;
        match open.len() {
            1 => self.unfinished = self.unfinished.max(open.number()? as usize),
            _ => take_along(&mut self.work, open)?,
        }
        // A duplicate waits for what is left of a room that has been deleted since.
        self.work.snapshot = Snapshot::read(reply)?.or_gone();
        self.work.jobs.extend(job);
        Ok(stamp)
    }

    /// What there is to deliver, once everything is accepted.
    pub(super) async fn done(mut self) -> Result<Work> {
        if (1..=TAKEN_ALONG).contains(&self.unfinished) {
            let mut get = redis::cmd("HGETALL");
            get.arg(self.keys.pending());
            let open = self.writer.inner.redis.query(&get).await?;
            take_along(&mut self.work, Reply::new(open)?)?;
        }
        let few = self.was_refused && self.look_again().await?;
        self.work.adopt(few);
        Ok(self.work)
    }

    /// What was refused may rest on what other calls have changed and not told everybody yet. Takes that along; answers whether
    /// the room is so small that it can be finished here.
    pub(super) async fn look_again(&mut self) -> Result<bool> {
        let length = |key: String| {
            let mut length = redis::cmd("HLEN");
            length.arg(key);
            Item::Plain(length)
        };
        let mut open = redis::cmd("HGETALL");
        open.arg(self.keys.pending());
        let redis = &self.writer.inner.redis;
        let lengths = [length(self.keys.pending()), length(self.keys.members())];
        let mut lengths = Reply::new(redis::Value::Array(redis.batch(&lengths).await?))?;
        let (pending, members) = (lengths.number()? as usize, lengths.number()? as usize);
        if pending == 0 || pending > FEW || members > FEW {
            return Ok(false);
        }
        let view = scripts::ROOM_SNAPSHOT.call(&[self.keys.meta()]);
        let items = [Item::Plain(open), Item::Script(view)];
        let mut answers = redis.batch(&items).await?.into_iter();
        let mut next = || Reply::new(answers.next().unwrap_or(redis::Value::Nil));
        // The fan-outs first: the room is then at least as far as they are.
        let (open, mut view) = (next()?, next()?);
        take_along(&mut self.work, open)?;
        self.work.snapshot = Snapshot::read(&mut view)?.or_gone();
        Ok(true)
    }

    /// What a script that answers nothing beyond its fan-out and the snapshot, after that code, has come to.
    pub(super) fn applied(&mut self, code: &str, mut reply: Reply) -> Result<EventOutcome> {
        match code {
            "OK" => {
                self.take(&mut reply)?;
                Ok(EventOutcome::Applied { position: None })
            }
            "DUP" => {
                self.take(&mut reply)?;
                Ok(EventOutcome::Duplicate { position: None })
            }
            code => self.refused(code),
        }
    }

    /// Changes settings; what is absent stays.
    pub(super) async fn update(
        &mut self,
        change: &Change,
        time: i64,
        key: &str,
    ) -> Result<EventOutcome> {
        let Change::RoomUpdated {
            kind,
            custom_type,
            tags,
            active,
            shown,
            ..
        } = change
        else {
            return Err(unexpected());
        };
        let custom_type = custom_type.as_ref().map(|text| encode(text.as_str()));
        let tags = tags.as_ref().map_or(String::new(), |tags| {
            let tags: Vec<Enc> = tags.iter().map(|tag| encode(tag.as_str())).collect();
            let tags: Vec<&str> = tags.iter().map(Enc::as_str).collect();
            format!("*{}", tags.join(","))
        });
        let status = active.map_or("", |active| if active { "1" } else { "0" });
        let mut reply = self
            .accept(|token| {
                let mut call = scripts::ROOM_UPDATE
                    .call(&with_taken(
                        &self.keys,
                        [self.keys.meta(), self.keys.pending()],
                    ))
                    .arg(token)
                    .arg(LEASE_MICROS)
                    .arg(key)
                    .arg(kind.unwrap_or(""))
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
        self.applied(&code, reply)
    }

    pub(super) async fn delete(&mut self, key: &str) -> Result<EventOutcome> {
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
                    .call(&with_taken(keys, own))
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
                    self.work.snapshot = Snapshot::gone(reply.number()?);
                    self.work.jobs.extend(job);
                }
                Ok(match code {
                    "OK" => EventOutcome::Applied { position: None },
                    _ => EventOutcome::Duplicate { position: None },
                })
            }
            "ROOM" => {
                // Deleted before, perhaps without everybody having been told: this caller waits for that, too.
                if let Some(job) = Job::read(&mut reply)? {
                    self.work.snapshot = Snapshot::gone(reply.number()?);
                    self.work.jobs.push(job);
                }
                self.refused("ROOM")
            }
            code => self.refused(code),
        }
    }

    pub(super) async fn recall(&mut self, id: &Enc) -> Result<EventOutcome> {
        let history = &self.writer.inner.history;
        let keys = &self.keys;
        let mut reply = self
            .accept(|token| {
                scripts::MESSAGE_RECALL
                    .call(&[
                        keys.meta(),
                        keys.ids(),
                        keys.recalled(),
                        keys.allmentions(),
                        keys.pending(),
                    ])
                    .arg(token)
                    .arg(LEASE_MICROS)
                    .arg(history.max_messages)
                    .arg(history.max_age_micros())
                    .arg(id.as_str())
            })
            .await?;
        match reply.text()?.as_str() {
            "OK" => {
                self.take(&mut reply)?;
                self.much |= reply.number()? == 1;
                Ok(EventOutcome::Applied { position: None })
            }
            "DUP" => {
                self.take(&mut reply)?;
                Ok(EventOutcome::Duplicate { position: None })
            }
            code => self.refused(code),
        }
    }

    pub(super) async fn pref(
        &mut self,
        user: &Enc,
        settings: &[(&'static str, String)],
        key: &str,
    ) -> Result<EventOutcome> {
        let lines = settings
            .iter()
            .flat_map(|(field, value)| [*field, "\n", value, "\n"]);
        let settings: String = lines.collect();
        let keys = &self.keys;
        let mut reply = self
            .accept(|token| {
                let own = [keys.meta(), keys.members(), keys.pending()];
                scripts::PREF_UPDATE
                    .call(&with_taken(keys, own))
                    .arg(token)
                    .arg(LEASE_MICROS)
                    .arg(key)
                    .arg(user.as_str())
                    .arg(&settings)
            })
            .await?;
        let code = reply.text()?;
        self.applied(&code, reply)
    }
}
