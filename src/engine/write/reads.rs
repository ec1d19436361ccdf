//! Reads of one room, or of all rooms of a user.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::room::{RoomWorker, with_event_and_time_keys};
use super::steps::{Numbered, RoomSteps, SentAt, Step};
use super::{ROOMS_AT_ONCE, Writer};
use crate::connection::Item;
use crate::counts::record::{RoomRecord, SupergroupRecord};
use crate::engine::deliver::LEASE_MICROS;
use crate::engine::reply::maybe_text;
use crate::error::Result;
use crate::event::{Change, EventOutcome, Rejection, RoomOrPeer, UpTo, Wait};
use crate::keys::{Enc, UserKeys, encode};
use crate::names::{AppId, UserId};
use crate::scripts;

impl Writer {
    pub(super) async fn read_all(
        &self,
        app: &AppId,
        user: &UserId,
        (up_to, kinds): (&UpTo, &[&str]),
        [key, key_in_rooms]: [String; 2],
        sent_at: SentAt,
        wait: Wait,
    ) -> Result<EventOutcome> {
        let name = encode(user.as_str());
        let mut keyed = vec![(0, name.clone(), key.clone())];
        keyed.retain(|_| !key.is_empty());
        // The user's slot takes the key only when all rooms are delivered: a repetition is then a duplicate at once.
        let wait = if keyed.is_empty() {
            wait
        } else {
            Wait::Applied
        };
        if let Some((_, known)) = self.user_keys(app, &keyed, false).await?.pop() {
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
                    // Each room keeps the key too: if the event is repeated after some of the rooms were read, messages that came
                    // since stay unread there.
                    key: key_in_rooms.clone(),
                    sent_at,
                    ..Step::internal(Change::Read {
                        place: RoomOrPeer::Room(room.clone()),
                        user: user.clone(),
                        up_to: up_to.clone(),
                    })
                };
                // A room that the user has left meanwhile, or that was deleted, has nothing to read. A room that has forgotten
                // its messages of that time stays unread.
                let steps = vec![step];
                self.apply_room(app, RoomSteps { name: room, steps }, wait)
            })
            .buffer_unordered(ROOMS_AT_ONCE)
            .try_collect()
            .await?;
        let mut outcomes = read.into_iter().flatten().map(|(_, outcome)| outcome);
        let is_unreadable = |outcome: &EventOutcome| {
            matches!(outcome, EventOutcome::Rejected(Rejection::Unreadable(_)))
        };
        if let Some(unreadable) = outcomes.find(is_unreadable) {
            return Ok(unreadable);
        }
        match self.user_keys(app, &keyed, true).await?.pop() {
            Some((_, rejected)) if is_unreadable(&rejected) => Ok(rejected),
            _ => Ok(EventOutcome::Applied { position: None }),
        }
    }
}

impl RoomWorker<'_> {
    pub(super) async fn read(
        &mut self,
        user: &Enc,
        up_to: &UpTo,
        sent_at: SentAt,
        key: &str,
    ) -> Result<EventOutcome> {
        let (order, time) = sent_at.order_and_time();
        let (how, value) = bound(up_to);
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
        let call = |token: u64, has_read: Option<i64>| {
            scripts::ROOM_READ
                .call(&with_event_and_time_keys(keys, own()))
                .arg(token)
                .arg(LEASE_MICROS)
                .arg(key)
                .arg(history.max_messages)
                .arg(history.max_age_micros())
                .arg(user.as_str())
                .arg(how)
                .arg(&value)
                .arg(has_read.map(|to| to.to_string()).unwrap_or_default())
                .arg(order)
                .arg(&time)
        };
        let mut reply = self.accept(|token| call(token, None)).await?;
        let mut code = reply.text()?;
        if code == "OLD" {
            // The room has forgotten the message. For a user who has read everything that is forgotten, this changes nothing.
            let (forgotten, born) = (reply.number()?, reply.number()?);
            let has_read = self.has_read(user, born).await?;
            if has_read.is_some_and(|to| u64::try_from(to).is_ok_and(|to| to >= forgotten)) {
                reply = self.accept(|token| call(token, has_read)).await?;
                code = reply.text()?;
            }
        }
        let outcome = match code.as_str() {
            "OLD" => self.reject("MESSAGE")?,
            code => self.outcome(code, reply)?,
        };
        if !self.work.passing.is_empty() {
            // The user may be a member by a passing job that has not reached the user's slot.
            self.work.refresh.insert(user.clone());
        }
        Ok(outcome)
    }

    /// Reads the room for everybody who has joined it.
    pub(super) async fn clear(
        &mut self,
        up_to: &UpTo,
        sent_at: SentAt,
        key: &str,
    ) -> Result<EventOutcome> {
        let (how, value) = bound(up_to);
        let (order, time) = sent_at.order_and_time();
        let history = &self.writer.inner.history;
        let keys = &self.keys;
        let own = || [keys.meta(), keys.ids(), keys.log(), keys.pending()];
        let mut reply = self
            .accept(|token| {
                let mut all = with_event_and_time_keys(keys, own());
                all.push(keys.members());
                scripts::ROOM_CLEAR
                    .call(&all)
                    .arg(token)
                    .arg(LEASE_MICROS)
                    .arg(key)
                    .arg(history.max_messages)
                    .arg(history.max_age_micros())
                    .arg(how)
                    .arg(&value)
                    .arg(order)
                    .arg(&time)
            })
            .await?;
        let code = reply.text()?;
        self.outcome(&code, reply)
    }

    /// A position up to which the user has certainly read the room. Undelivered jobs may raise the read position further.
    async fn has_read(&self, user: &Enc, born: u64) -> Result<Option<i64>> {
        if !self.work.jobs.is_empty() {
            // The user's marks of earlier events of the request are delivered first.
            self.confirm_members(BTreeSet::from([user.clone()])).await?;
        }
        let slot = UserKeys::new(self.app, user);
        let room = encode(self.id.as_str());
        let get = |key: String| {
            let mut get = redis::cmd("HGET");
            get.arg(key).arg(room.as_str());
            Item::Plain(get)
        };
        let items = [get(slot.rooms()), get(slot.supers())];
        let mut records = self.writer.inner.redis.send_all(&items).await?.into_iter();
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
            (None, None) => return Ok(None),
        };
        let (state, epoch, read) = self.writer.inner.faults.at_key(read, || key)?;
        // A record of an earlier room by that name says nothing about this one.
        let is_current = state == 'j' && epoch >= born;
        Ok(is_current.then_some(read))
    }

    /// The outcome when the room rejects a read that named the peer. A user who has left the room has nothing to read, so the
    /// read is applied. The rejection stays for a user who is invited and has not joined.
    pub(super) async fn rejected_read_by_peer(
        &self,
        user: &Enc,
        rejected: EventOutcome,
    ) -> Result<EventOutcome> {
        let nothing_to_read = EventOutcome::Applied { position: None };
        match rejected {
            EventOutcome::Rejected(Rejection::RoomNotFound(_)) => Ok(nothing_to_read),
            EventOutcome::Rejected(Rejection::NotAMember) if !self.is_invited(user).await? => {
                Ok(nothing_to_read)
            }
            rejected => Ok(rejected),
        }
    }
}

/// How far a read goes, as the scripts take it.
fn bound(up_to: &UpTo) -> (&'static str, String) {
    match up_to {
        UpTo::Head => ("all", String::new()),
        UpTo::Id(id) => ("id", encode(id.as_str()).as_str().to_owned()),
        UpTo::Time(time) => ("time", time.to_string()),
        UpTo::Position(position) => ("position", position.to_string()),
    }
}
