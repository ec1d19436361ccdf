//! The writer: it accepts events, those of one room in the order given and several rooms at once, and then delivers the jobs.

mod direct_ids;
mod direct_rooms;
mod finish;
mod members;
mod messages;
mod reads;
mod resets;
mod room;
mod steps;
mod users;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use self::steps::{ByRoom, DirectRooms, Numbered, SentAt, Step, UserUpdates};
use crate::config::HistoryConfig;
use crate::connection::Redis;
use crate::engine::admission::Admission;
use crate::engine::announce::Announcer;
use crate::engine::deliver::{Delivery, SingleDelivery};
use crate::engine::durable::Durable;
use crate::engine::faults::Faults;
use crate::engine::read::Reader;
use crate::engine::reply::Reply;
use crate::engine::trim::Trimmer;
use crate::error::{Error, Result};
use crate::event::{Before, Change, Event, EventOutcome, Rejection, Wait};
use crate::keys::{self, Enc, encode};
use crate::names::{AppId, DirectRoomIds, RoomId, UserId};
use crate::scripts::ScriptCall;
use crate::telemetry::metrics::Metrics;

/// How many rooms one request works on at once.
const ROOMS_AT_ONCE: usize = 32;
/// The most users in one call of the script.
const USERS_PER_CALL: usize = 1_000;
/// The most rounds of a delivery that slots refuse. Two rounds are enough, unless users are deleted meanwhile.
const ROUNDS: usize = 4;

/// Accepts events, and delivers the jobs that follow from them.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) redis: Redis,
    pub(super) admission: Arc<Admission>,
    pub(super) announcer: Announcer,
    pub(super) reader: Arc<Reader>,
    pub(super) delivery: Delivery,
    pub(super) trimmer: Trimmer,
    pub(super) history: History,
    pub(super) direct_rooms: HashMap<AppId, DirectRoomIds>,
    /// Permits for work that no caller waits for.
    pub(super) background: Arc<Semaphore>,
    /// With durability `wait`: waits for replicas.
    pub(super) durable: Option<Durable>,
    pub(super) faults: Faults,
    pub(super) metrics: Arc<Metrics>,
}

/// How far back messages and keys are remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct History {
    max_messages: u32,
    max_age_days: u32,
    /// How many characters of a message's text are kept.
    text_characters: usize,
    /// How long keys of events are remembered.
    keep_keys_micros: u64,
}

impl History {
    pub(super) fn new(config: &HistoryConfig) -> Self {
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
    pub(super) fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// For the sweep, which must not keep the writer alive.
    pub(super) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.inner)
    }

    pub(super) fn upgrade(inner: &Weak<Inner>) -> Option<Self> {
        inner.upgrade().map(|inner| Self { inner })
    }

    pub(crate) fn history(&self) -> History {
        self.inner.history
    }

    /// Refuses a batch of events, before its body is read, if no place is free and no more batches may wait. [`Writer::apply`]
    /// takes the place, and may still refuse the batch.
    pub(crate) fn takes_events(&self, app: &AppId) -> Result<()> {
        self.inner.admission.takes_events(app)
    }

    /// Announces entries, so that any pod finds their unfinished jobs.
    pub(crate) async fn announce(&self, entries: impl IntoIterator<Item = String>) -> Result<()> {
        self.inner.announcer.announce(entries).await
    }

    /// Sends one user the state of a room, without a job.
    pub(crate) async fn deliver_single(
        &self,
        app: &AppId,
        room: &Enc,
        user: &Enc,
        single: SingleDelivery<'_>,
    ) -> Result<()> {
        let delivery = &self.inner.delivery;
        let delivered = delivery.deliver_single(app, room, user, single).await;
        delivered.map(|_| ())
    }

    /// Applies events: those of one room in the order given, and each event after all earlier ones that it builds on.
    pub(crate) async fn apply(
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
                self.apply_segment(app, first, Wait::Applied, now, &mut outcomes)
                    .await?;
                before = Before::default();
            }
            let outcome = match &event.change {
                Change::UserDeleted { user } => {
                    let sent_at = SentAt::of(&event, now);
                    self.delete_user(app, user, sent_at, self.key(&event)).await
                }
                Change::ReadAll { user, up_to, kinds } => {
                    let keys = [self.key(&event), self.key_of(&event, user)];
                    let sent_at = SentAt::of(&event, now);
                    self.read_all(app, user, (up_to, kinds), keys, sent_at, wait)
                        .await
                }
                change => {
                    before.add(change);
                    segment.push((index, event));
                    continue;
                }
            };
            set_outcome(&mut outcomes, index, self.reject_unreadable(outcome)?);
        }
        self.apply_segment(app, segment, wait, now, &mut outcomes)
            .await?;
        if let Some(durable) = &self.inner.durable {
            durable.confirm().await?;
        }
        let final_outcome = |outcome| match outcome {
            Some(EventOutcome::Applied { position }) if wait == Wait::Accepted => {
                Ok(EventOutcome::Accepted { position })
            }
            Some(outcome) => Ok(outcome),
            None => Err(Error::Internal(
                "an event was left without an outcome".into(),
            )),
        };
        outcomes.into_iter().map(final_outcome).collect()
    }

    /// Applies events of which none builds on another one, except that those of one room keep their order.
    async fn apply_segment(
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
            set_outcome(outcomes, index, outcome);
        }
        let (users, rooms) = self.steps_of(app, events, now, &direct, outcomes)?;
        self.update_users(app, users, outcomes).await?;
        self.announce_rooms(app, rooms.names()).await?;
        let applied: Vec<Vec<Numbered<EventOutcome>>> = stream::iter(rooms.into_rooms())
            .map(|room| self.apply_room(app, room, wait))
            .buffer_unordered(ROOMS_AT_ONCE)
            .try_collect()
            .await?;
        for (index, outcome) in applied.into_iter().flatten() {
            set_outcome(outcomes, index, outcome);
        }
        let mut read = by_peer;
        read.retain(|(index, _, _)| {
            let outcome = outcomes.get(*index).and_then(Option::as_ref);
            !matches!(outcome, Some(EventOutcome::Rejected(_)) | None)
        });
        for (index, outcome) in self.user_keys(app, &read, true).await? {
            // An event before it in this request, or another request, has taken the key since; or the key can't be kept, and a
            // repeated event would not be known.
            if let Some(place) = outcomes.get_mut(index) {
                *place = Some(outcome);
            }
        }
        Ok(())
    }

    /// Sorts events without an outcome into updates of users and steps of rooms.
    fn steps_of(
        &self,
        app: &AppId,
        events: Vec<Numbered<Event>>,
        now: i64,
        direct: &DirectRooms,
        outcomes: &mut [Option<EventOutcome>],
    ) -> Result<(UserUpdates, ByRoom)> {
        let mut users = UserUpdates::default();
        let mut by_room = ByRoom::default();
        for (index, event) in events {
            if outcomes.get(index).is_some_and(Option::is_some) {
                continue;
            }
            let key = self.key(&event);
            let sent_at = SentAt::of(&event, now);
            let change = event.change;
            if let Change::UserUpdated { user, shown } = change {
                users.add(encode(user.as_str()), index, key, shown);
                continue;
            }
            let (rooms, found) = match self.rooms_for(app, index, &change, direct) {
                Ok(rooms) => rooms,
                Err(error) => {
                    set_outcome(outcomes, index, self.reject_unreadable(Err(error))?);
                    continue;
                }
            };
            let step = Step {
                index,
                key,
                sent_at,
                change,
                found,
                up_to: None,
            };
            let Some((last, others)) = rooms.split_last() else {
                // The two users have no room, so there is nothing to read; what is unread can't be kept.
                let outcome = match (&step.change, step.change.peer()) {
                    (Change::Read { .. }, _) | (_, None) => {
                        EventOutcome::Applied { position: None }
                    }
                    (_, Some((_, peer))) => {
                        EventOutcome::Rejected(Rejection::NoDirectRoom(peer.clone()))
                    }
                };
                set_outcome(outcomes, index, outcome);
                continue;
            };
            // Two users may share several rooms. The read is applied to each of them; the message that it names is in one.
            for room in others {
                by_room.add(room.clone(), step.clone());
            }
            by_room.add(last.clone(), step);
        }
        Ok((users, by_room))
    }

    /// Announces rooms together. An unreadable index is no failure here: each of its rooms meets it again when it accepts its
    /// events, and only those events are rejected.
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

    /// Turns unreadable data into a rejection of one event. Any other failure is a failure of the whole call.
    fn reject_unreadable(&self, outcome: Result<EventOutcome>) -> Result<EventOutcome> {
        match outcome {
            Err(error) => Ok(EventOutcome::Rejected(self.unreadable_rejection(error)?)),
            outcome => outcome,
        }
    }

    fn unreadable_rejection(&self, error: Error) -> Result<Rejection> {
        self.inner.faults.complain(&error);
        match error {
            Error::Unreadable(what) => Ok(Rejection::Unreadable(what)),
            error => Err(error),
        }
    }

    /// An event's key as the scripts take it: the key, the event's type, and how long it is remembered. '' if the event has no
    /// key, or is known by its message's id.
    fn key(&self, event: &Event) -> String {
        self.key_with(event, "")
    }

    /// The same for an event that touches several rooms: in the rooms, the key stands for this user's event only.
    fn key_of(&self, event: &Event, user: &UserId) -> String {
        self.key_with(event, &format!("*{}", encode(user.as_str()).as_str()))
    }

    /// A key for a `room.unread` of this user that waited for its message. No event of a caller has a key of this form.
    fn key_of_waiting(&self, user: &Enc, accepted: u64) -> String {
        let keep = self.inner.history.keep_keys_micros;
        format!("waited*{}#{accepted}\nroom.unread\n{keep}", user.as_str())
    }

    fn key_with(&self, event: &Event, suffix: &str) -> String {
        let Some(key) = event.key.as_ref().filter(|_| !event.change.has_id()) else {
            return String::new();
        };
        let keep = self.inner.history.keep_keys_micros;
        let name = encode(key.as_str());
        let type_name = event.type_name;
        format!("{}{suffix}\n{type_name}\n{keep}", name.as_str())
    }

    /// Runs an accepting script. If the sweep has removed the announcement meanwhile, announces `entry` again and repeats.
    async fn accept(&self, entry: &str, call: impl Fn(u64) -> ScriptCall) -> Result<Reply> {
        let mut token = self.inner.announcer.token(entry).await?;
        for _ in 0..3 {
            let value = self.inner.redis.call(&call(token)).await?;
            let Some(sealed) = token_to_exceed(&value) else {
                return Reply::new(value);
            };
            token = self.inner.announcer.announce_above(entry, sealed?).await?;
        }
        Err(Error::Unavailable(
            "redis is too slow to accept events".into(),
        ))
    }
}

/// The token above which the entry has to be announced again, if the script refused an old token.
fn token_to_exceed(value: &redis::Value) -> Option<Result<u64>> {
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

fn unexpected_reply() -> Error {
    Error::Internal("unexpected reply from a script".into())
}

/// Sets an event's outcome. One that several rooms were told is applied if it is to one of them, and rejected only if all of them
/// reject it.
fn set_outcome(outcomes: &mut [Option<EventOutcome>], index: usize, outcome: EventOutcome) {
    let Some(place) = outcomes.get_mut(index) else {
        return;
    };
    let unreadable = |outcome: &EventOutcome| {
        matches!(outcome, EventOutcome::Rejected(Rejection::Unreadable(_)))
    };
    let replaced = match place {
        None => true,
        // One room could not be read, so the event is not finished.
        Some(before) if unreadable(before) => false,
        Some(EventOutcome::Rejected(_)) => true,
        Some(EventOutcome::Duplicate { .. }) if !matches!(outcome, EventOutcome::Rejected(_)) => {
            true
        }
        Some(_) => unreadable(&outcome),
    };
    if replaced {
        *place = Some(outcome);
    }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}
