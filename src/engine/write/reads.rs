//! Reads: of one room, or of all rooms of a user.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::room::{Worker, with_taken};
use super::steps::{RoomSteps, Step};
use super::{Numbered, ROOMS_AT_ONCE, Writer};
use crate::connection::Item;
use crate::counts::record::{RoomRecord, SupergroupRecord};
use crate::counts::room::Membership;
use crate::engine::deliver::LEASE_MICROS;
use crate::engine::reply::maybe_text;
use crate::error::Result;
use crate::event::{Change, EventOutcome, Place, Rejection, UpTo, Wait};
use crate::keys::{Enc, UserKeys, encode};
use crate::names::{AppId, UserId};
use crate::scripts;

impl Writer {
    pub(super) async fn read_all(
        &self,
        app: &AppId,
        user: &UserId,
        up_to: &UpTo,
        kinds: &[&str],
        [key, key_in_rooms]: [String; 2],
        wait: Wait,
    ) -> Result<EventOutcome> {
        let name = encode(user.as_str());
        let mut own = vec![(0, name.clone(), key.clone())];
        own.retain(|_| !key.is_empty());
        // Its key is taken when all is told: whoever sends it again is told so at once.
        let wait = if own.is_empty() { wait } else { Wait::Applied };
        if let Some((_, known)) = self.user_keys(app, &own, false).await?.pop() {
            return Ok(known);
        }
        let Some(rooms) = self.inner.reader.joined_rooms(app, &name, kinds).await? else {
            return Ok(EventOutcome::Rejected(Rejection::UserNotFound(
                user.clone(),
            )));
        };
        self.announce_rooms(app, rooms.iter()).await?;
        let read: Vec<Vec<Numbered<EventOutcome>>> = stream::iter(rooms)
            .map(|room| {
                let step = Step {
                    // Each room remembers it, so that a repetition after half of them reads nothing that has come since.
                    key: key_in_rooms.clone(),
                    ..Step::own(Change::Read {
                        place: Place::Room(room.clone()),
                        user: user.clone(),
                        up_to: up_to.clone(),
                    })
                };
                // Left or deleted meanwhile: then there is nothing to read. A room that has forgotten what it had at that time
                // stays unread.
                let steps = vec![step];
                self.room(app, RoomSteps { name: room, steps }, wait)
            })
            .buffer_unordered(ROOMS_AT_ONCE)
            .try_collect()
            .await?;
        let mut outcomes = read.into_iter().flatten().map(|(_, outcome)| outcome);
        let stops = |outcome: &EventOutcome| {
            matches!(outcome, EventOutcome::Rejected(Rejection::Unreadable(_)))
        };
        if let Some(stops) = outcomes.find(stops) {
            return Ok(stops);
        }
        match self.user_keys(app, &own, true).await?.pop() {
            Some((_, refused)) if stops(&refused) => Ok(refused),
            _ => Ok(EventOutcome::Applied { position: None }),
        }
    }
}

impl Worker<'_> {
    pub(super) async fn read(
        &mut self,
        user: &Enc,
        up_to: &UpTo,
        key: &str,
    ) -> Result<EventOutcome> {
        let (how, value) = match up_to {
            UpTo::Head => ("all", String::new()),
            UpTo::Id(id) => ("id", encode(id.as_str()).as_str().to_owned()),
            UpTo::Time(time) => ("time", time.to_string()),
        };
        let history = &self.writer.inner.history;
        let keys = &self.keys;
        let own = || {
            [
                keys.meta(),
                keys.members(),
                keys.ids(),
                keys.log(),
                keys.pending(),
            ]
        };
        let call = |token: u64, has_read: u64| {
            scripts::ROOM_READ
                .call(&with_taken(keys, own()))
                .arg(token)
                .arg(LEASE_MICROS)
                .arg(key)
                .arg(history.max_messages)
                .arg(history.max_age_micros())
                .arg(user.as_str())
                .arg(how)
                .arg(&value)
                .arg(has_read)
        };
        let mut reply = self.accept(|token| call(token, 0)).await?;
        let mut code = reply.text()?;
        if code == "OLD" {
            // The room has forgotten it. That is no matter to who has read all that is forgotten.
            let (forgotten, born) = (reply.number()?, reply.number()?);
            let has_read = self.has_read(user, born).await?;
            if has_read >= forgotten {
                reply = self.accept(|token| call(token, has_read)).await?;
                code = reply.text()?;
            }
        }
        let outcome = match code.as_str() {
            "OLD" => self.refused("MESSAGE")?,
            code => self.applied(code, reply)?,
        };
        if !self.work.passing.is_empty() {
            // The user may be a member by what has not been told yet.
            self.work.also.insert(user.clone());
        }
        Ok(outcome)
    }

    /// A position up to which a user has read the room for certain: what has not been told yet may be more.
    pub(super) async fn has_read(&self, user: &Enc, born: u64) -> Result<u64> {
        if !self.work.jobs.is_empty() {
            // What came before it in the same request is told first.
            self.still_there(BTreeSet::from([user.clone()])).await?;
        }
        let slot = UserKeys::new(self.app, user);
        let room = encode(self.id.as_str());
        let get = |key: String| {
            let mut get = redis::cmd("HGET");
            get.arg(key).arg(room.as_str());
            Item::Plain(get)
        };
        let items = [get(slot.rooms()), get(slot.supers())];
        let mut records = self.writer.inner.redis.batch(&items).await?.into_iter();
        let mut next = || maybe_text(records.next().unwrap_or(redis::Value::Nil));
        let (key, read) = match (next()?, next()?) {
            (Some(record), _) => {
                let read = RoomRecord::read(&record).and_then(RoomRecord::named);
                (slot.rooms(), read.map(|r| (r.state, r.epoch, r.read)))
            }
            (None, Some(record)) => {
                let read = SupergroupRecord::read(&record);
                (slot.supers(), read.map(|r| (r.state, r.epoch, r.read)))
            }
            (None, None) => return Ok(0),
        };
        let (state, epoch, read) = self.writer.inner.faults.at(read, || key)?;
        // A record of an earlier room by that name says nothing of this one.
        let is_here = state == 'j' && epoch >= born;
        Ok(if is_here { read } else { 0 })
    }

    /// What a refusal comes to in a room that was found by the peer. Where the user has left it since, there is nothing to read.
    /// Who is invited has not joined, and is told so.
    pub(super) async fn or_nothing_to_read(
        &self,
        user: &Enc,
        refused: EventOutcome,
    ) -> Result<EventOutcome> {
        let gone = EventOutcome::Applied { position: None };
        match refused {
            EventOutcome::Rejected(Rejection::RoomNotFound(_)) => Ok(gone),
            EventOutcome::Rejected(Rejection::NotAMember) => {
                let mut get = redis::cmd("HGET");
                get.arg(self.keys.members()).arg(user.as_str());
                let entry = maybe_text(self.writer.inner.redis.query(&get).await?)?;
                let entry = entry.map(|entry| Membership::parse(&entry)).transpose()?;
                Ok(match entry {
                    Some(entry) if entry.state == 'i' => refused,
                    _ => gone,
                })
            }
            refused => Ok(refused),
        }
    }
}
