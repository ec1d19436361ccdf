//! Accepting events: each room's in the order given, rooms side by side, then the fan-out.

mod direct_ids;
mod direct_rooms;
mod finish;
mod members;
mod messages;
mod reads;
mod room;
mod steps;
mod users;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use self::steps::{ByRoom, SentAt, Step};
use self::users::UserUpdates;
use crate::config::HistoryConfig;
use crate::connection::Redis;
use crate::engine::admission::Admission;
use crate::engine::announce::Announcer;
use crate::engine::deliver::{Delivery, Tell};
use crate::engine::durable::Durable;
use crate::engine::faults::Faults;
use crate::engine::read::Reader;
use crate::engine::reply::Reply;
use crate::engine::trim::Trimmer;
use crate::error::{Error, Result};
use crate::event::{Before, Change, Event, EventOutcome, Rejection, Wait};
use crate::keys::{self, Enc, encode};
use crate::names::{AppId, DirectRoomIds, RoomId, UserId};
use crate::scripts::Call;
use crate::telemetry::metrics::Metrics;

/// Rooms worked on at once for one request.
const ROOMS_AT_ONCE: usize = 32;
/// Users in one call of the script.
const USERS_PER_CALL: usize = 1_000;
/// Times that a delivery is made whose memberships keep being refused; two are enough unless users are deleted meanwhile.
const ROUNDS: usize = 4;

type Numbered<T> = (usize, T);

/// Takes events in, and sees that they reach everybody.
#[derive(Clone)]
pub struct Writer {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) redis: Redis,
    pub(crate) admission: Arc<Admission>,
    pub(crate) announcer: Announcer,
    pub(crate) reader: Arc<Reader>,
    pub(crate) delivery: Delivery,
    pub(crate) trimmer: Trimmer,
    pub(crate) history: History,
    pub(crate) direct_rooms: HashMap<AppId, DirectRoomIds>,
    /// Deliveries that nobody waits for.
    pub(crate) background: Arc<Semaphore>,
    /// With durability `wait`: what makes sure of it.
    pub(crate) durable: Option<Durable>,
    pub(crate) faults: Faults,
    pub(crate) metrics: Arc<Metrics>,
}

/// How far back messages and keys are remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct History {
    pub(crate) max_messages: u32,
    pub(crate) max_age_days: u32,
    /// How much of a message's text is kept.
    pub(crate) text_characters: usize,
    /// How long keys of events are remembered.
    pub(crate) keep_keys_micros: u64,
}

impl History {
    pub(crate) fn new(config: &HistoryConfig) -> Self {
        Self {
            max_messages: config.max_messages,
            max_age_days: config.max_age_days,
            text_characters: config.text_characters as usize,
            keep_keys_micros: u64::from(config.key_hours) * 3_600_000_000,
        }
    }

    pub(crate) fn max_age_micros(&self) -> u64 {
        u64::from(self.max_age_days) * 86_400_000_000
    }
}

impl Writer {
    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// What lives as long as a writer does.
    pub(crate) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.inner)
    }

    pub(crate) fn upgrade(inner: &Weak<Inner>) -> Option<Self> {
        inner.upgrade().map(|inner| Self { inner })
    }

    pub(crate) fn history(&self) -> History {
        self.inner.history
    }

    /// Refuses a batch of events at the door where it could neither be worked on now nor wait for its turn. Whether it is
    /// worked on in the end is decided in [`Writer::apply`].
    pub fn takes_events(&self, app: &AppId) -> Result<()> {
        self.inner.admission.takes_events(app)
    }

    /// Announces entries, so that work on them can be found.
    pub(crate) async fn announce(&self, entries: impl IntoIterator<Item = String>) -> Result<()> {
        self.inner.announcer.announce(entries).await
    }

    /// Brings one user a room as it is, outside of any fan-out.
    pub(crate) async fn tell(
        &self,
        app: &AppId,
        room: &Enc,
        user: &Enc,
        told: Tell<'_>,
    ) -> Result<()> {
        let told = self.inner.delivery.tell(app, room, user, told).await;
        told.map(|_| ())
    }

    /// Applies events: those of one room in the order given, and every event after those before it that it builds on.
    pub async fn apply(
        &self,
        app: &AppId,
        events: Vec<Event>,
        wait: Wait,
    ) -> Result<Vec<EventOutcome>> {
        let _place = self.inner.admission.write(app).await?;
        let now = now_ms();
        let mut outcomes: Vec<Option<EventOutcome>> = vec![None; events.len()];
        let mut segment: Vec<Numbered<Event>> = Vec::new();
        let mut before = Before::default();
        for (index, event) in events.into_iter().enumerate() {
            if event.change.builds_on(before) {
                let first = std::mem::take(&mut segment);
                self.segment(app, first, Wait::Applied, now, &mut outcomes)
                    .await?;
                before = Before::default();
            }
            let outcome = match &event.change {
                Change::UserDeleted { user } => self.delete_user(app, user, self.key(&event)).await,
                Change::ReadAll { user, up_to, kinds } => {
                    let keys = [self.key(&event), self.key_of(&event, user)];
                    self.read_all(app, user, up_to, kinds, keys, wait).await
                }
                change => {
                    before.add(change);
                    segment.push((index, event));
                    continue;
                }
            };
            put(&mut outcomes, index, self.or_unreadable(outcome)?);
        }
        self.segment(app, segment, wait, now, &mut outcomes).await?;
        if let Some(durable) = &self.inner.durable {
            durable.confirm().await?;
        }
        outcomes
            .into_iter()
            .map(|outcome| match outcome {
                Some(EventOutcome::Applied { position }) if wait == Wait::Accepted => {
                    Ok(EventOutcome::Accepted { position })
                }
                Some(outcome) => Ok(outcome),
                None => Err(Error::Internal(
                    "an event was left without an outcome".into(),
                )),
            })
            .collect()
    }

    /// Applies events that need nothing of each other but the order within a room.
    async fn segment(
        &self,
        app: &AppId,
        events: Vec<Numbered<Event>>,
        wait: Wait,
        now: i64,
        outcomes: &mut [Option<EventOutcome>],
    ) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let direct = self.direct_rooms(app, &events).await?;
        let by_peer = self.reads_by_peer(&events);
        let known = self.user_keys(app, &by_peer, false).await?;
        for (index, outcome) in known {
            put(outcomes, index, outcome);
        }
        let mut users = UserUpdates::default();
        let mut rooms = ByRoom::default();
        for (index, event) in events {
            if outcomes.get(index).is_some_and(Option::is_some) {
                continue;
            }
            let key = self.key(&event);
            let Event { time, change, .. } = event;
            let sent = SentAt {
                time: time.unwrap_or(now),
                given: time.is_some(),
            };
            if let Change::UserUpdated { user, shown } = change {
                users.add(encode(user.as_str()), index, key, shown);
                continue;
            }
            let (found, how) = match self.rooms_for(app, index, &change, &direct) {
                Ok(found) => found,
                Err(error) => {
                    put(outcomes, index, self.or_unreadable(Err(error))?);
                    continue;
                }
            };
            let step = Step {
                index,
                key,
                sent,
                change,
                how,
                up_to: None,
            };
            let Some((last, more)) = found.split_last() else {
                // There is nothing to read.
                put(outcomes, index, EventOutcome::Applied { position: None });
                continue;
            };
            // Two users may share several rooms: it is read in each, and the named message is in one of them.
            for room in more {
                rooms.add(room.clone(), step.clone());
            }
            rooms.add(last.clone(), step);
        }
        self.update_users(app, users, outcomes).await?;
        self.announce_rooms(app, rooms.names()).await?;
        let done: Vec<Vec<Numbered<EventOutcome>>> = stream::iter(rooms.into_all())
            .map(|room| self.room(app, room, wait))
            .buffer_unordered(ROOMS_AT_ONCE)
            .try_collect()
            .await?;
        for (index, outcome) in done.into_iter().flatten() {
            put(outcomes, index, outcome);
        }
        let mut read = by_peer;
        read.retain(|(index, _, _)| {
            let outcome = outcomes.get(*index).and_then(Option::as_ref);
            !matches!(outcome, Some(EventOutcome::Rejected(_)) | None)
        });
        for (index, outcome) in self.user_keys(app, &read, true).await? {
            // A key that can't be kept does not make it safe to repeat.
            if matches!(outcome, EventOutcome::Rejected(Rejection::Unreadable(_))) {
                put(outcomes, index, outcome);
            }
        }
        Ok(())
    }

    /// Announces rooms together. Where an index can't be read each of its rooms finds that out for itself.
    async fn announce_rooms(
        &self,
        app: &AppId,
        rooms: impl Iterator<Item = &RoomId>,
    ) -> Result<()> {
        let entries = rooms.map(|room| keys::room_entry(app, &encode(room.as_str())));
        match self.announce(entries).await {
            Err(Error::Unreadable(_)) => Ok(()),
            announced => announced,
        }
    }

    /// An event that something unreadable is in the way of is rejected alone.
    fn or_unreadable(&self, outcome: Result<EventOutcome>) -> Result<EventOutcome> {
        match outcome {
            Err(error) => Ok(EventOutcome::Rejected(self.unreadable(error)?)),
            outcome => outcome,
        }
    }

    fn unreadable(&self, error: Error) -> Result<Rejection> {
        self.inner.faults.complain(&error);
        match error {
            Error::Unreadable(what) => Ok(Rejection::Unreadable(what)),
            error => Err(error),
        }
    }

    /// An event's key as the scripts take it: the key, the type of event, and how long it is remembered; '' if it has none, or
    /// needs none.
    fn key(&self, event: &Event) -> String {
        self.key_with(event, "")
    }

    /// The same of an event that is of many rooms, for the place where only that user's events are meant by it.
    fn key_of(&self, event: &Event, user: &UserId) -> String {
        self.key_with(event, &format!("*{}", encode(user.as_str()).as_str()))
    }

    fn key_with(&self, event: &Event, more: &str) -> String {
        let Some(key) = event.key.as_ref().filter(|_| !event.change.has_id()) else {
            return String::new();
        };
        let keep = self.inner.history.keep_keys_micros;
        let name = encode(key.as_str());
        let kind = event.change.type_name();
        format!("{}{more}\n{kind}\n{keep}", name.as_str())
    }

    /// Runs an accepting script; announces again where the announcement has been forgotten meanwhile.
    async fn accept(&self, entry: &str, call: impl Fn(u64) -> Call) -> Result<Reply> {
        let mut token = self.inner.announcer.token(entry).await?;
        for _ in 0..3 {
            let value = self.inner.redis.call(&call(token)).await?;
            let Some(sealed) = stale(&value) else {
                return Reply::new(value);
            };
            token = self.inner.announcer.announce_above(entry, sealed?).await?;
        }
        Err(Error::Unavailable(
            "redis is too slow to accept events".into(),
        ))
    }
}

/// The token above which an entry has to be announced again, if that is the answer.
fn stale(value: &redis::Value) -> Option<Result<u64>> {
    match value {
        redis::Value::Array(items) => match items.as_slice() {
            [redis::Value::BulkString(code), sealed, ..] if code == b"STALE" => {
                Some(crate::engine::reply::number(sealed))
            }
            _ => None,
        },
        _ => None,
    }
}

fn unexpected() -> Error {
    Error::Internal("unexpected reply from a script".into())
}

/// Puts an event's outcome in its place. An event tried in several rooms is refused only if all of them refuse it.
fn put(outcomes: &mut [Option<EventOutcome>], index: usize, outcome: EventOutcome) {
    let Some(slot) = outcomes.get_mut(index) else {
        return;
    };
    let unreadable = |outcome: &EventOutcome| {
        matches!(outcome, EventOutcome::Rejected(Rejection::Unreadable(_)))
    };
    let replaced = match slot {
        None => true,
        // Where one of the rooms can't be read the event is not done.
        Some(before) if unreadable(before) => false,
        Some(EventOutcome::Rejected(_)) => true,
        Some(_) => unreadable(&outcome),
    };
    if replaced {
        *slot = Some(outcome);
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}
