//! Accepting events: each room's in the order given, rooms side by side, then the fan-out.

mod pair;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Weak};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use crate::config::HistoryConfig;
use crate::connection::{Item, Redis};
use crate::counts::record::{RoomRecord, SupergroupRecord};
use crate::counts::room::{Audience, Entry, Job};
use crate::engine::admission::Admission;
use crate::engine::announce::Announcer;
use crate::engine::deliver::{Answer, Answers, Delivery, Refused, Tell, Why, Work};
use crate::engine::durable::Durable;
use crate::engine::faults::Faults;
use crate::engine::read::Reader;
use crate::engine::reply::{Reply, maybe_text};
use crate::engine::snapshot::Snapshot;
use crate::engine::trim::Trimmer;
use crate::error::{Error, Result, Unreadable};
use crate::event::{
    Change, Event, EventOutcome, MemberState, Mentions, Message, Place, Rejection, UpTo, Wait,
};
use crate::keys::{self, Enc, RoomKeys, UserKeys, encode};
use crate::metrics::Metrics;
use crate::names::{AppId, DirectRoomIds, RoomId, UserId};
use crate::scripts::{self, Call};

/// How long a pod has for a fan-out before another one takes it over, in microseconds.
pub(crate) const LEASE_MICROS: u64 = 5_000_000;
/// For how long the revision of a deleted room is kept, in milliseconds.
const KEEP_DELETED_MS: u64 = 24 * 3600 * 1000;
/// Rooms worked on at once for one request.
const ROOMS_AT_ONCE: usize = 32;
/// Messages in one call of the script.
const MESSAGES_PER_CALL: usize = 100;
/// Mentions in one call of the script, give or take one message's.
const MENTIONS_PER_CALL: usize = 10_000;
/// Users in one call of the script.
const USERS_PER_CALL: usize = 1_000;
/// Times that a delivery is made whose memberships keep being refused; two are enough unless users are deleted meanwhile.
const ROUNDS: usize = 4;
/// Fan-outs and members of a room in which a call finishes what others have begun.
const FEW: usize = 64;
/// Unfinished fan-outs of a room that a delivery takes along. A room with more has been left by a dead pod, and whoever
/// recovers it takes them all.
const TAKEN_ALONG: usize = 2_000;

/// How the room of a message was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The event names it; or one of the two whom the event names has it, and it is theirs only if both are in it.
    There,
    /// It is what the two have after another look, and who has left it comes back.
    Again,
    /// The two have none: it is made, by the one of the ids that their room may have.
    Made(u8),
}

/// Settings that a room is to have; what is absent stays.
#[derive(Debug, Clone)]
struct RoomUpdate {
    kind: Option<&'static str>,
    custom_type: Option<Option<Enc>>,
    tags: Option<Vec<Enc>>,
    active: Option<bool>,
    shown: Vec<(&'static str, String)>,
    time: i64,
}

/// An event of one room, or what a room is asked on behalf of a user.
#[derive(Debug, Clone)]
enum Op {
    Update(RoomUpdate),
    Delete,
    Member {
        users: Vec<Enc>,
        state: MemberState,
        /// Where users are deleted: the epoch up to which a membership ends.
        up_to: Option<u64>,
    },
    Message {
        message: Message,
        time: Sending,
        how: Found,
    },
    Recall(Enc),
    Read {
        user: Enc,
        up_to: UpTo,
        /// Whether the event names the room by the other one in it.
        by_peer: bool,
    },
    Pref {
        user: Enc,
        settings: String,
    },
}

/// When a message was sent.
#[derive(Debug, Clone, Copy)]
struct Sending {
    /// Milliseconds since the epoch.
    time: i64,
    /// Whether the event said so; if not, it is the time of arrival, and no message is late by that.
    given: bool,
}

type Numbered<T> = (usize, T);

/// An operation with its place among the events of the request, and the event's key as the scripts take it, or ''.
struct Step {
    index: usize,
    op: Op,
    key: String,
}

/// One room's share of a request.
struct RoomOps {
    name: RoomId,
    steps: Vec<Step>,
}

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

    /// How the direct rooms of an app are called that messages make.
    pub(crate) fn direct_room_ids(&self, app: &AppId) -> DirectRoomIds {
        let ids = self.inner.direct_rooms.get(app);
        ids.copied().unwrap_or_default()
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
        // Whether the segment changes who is in which room; whether it may make a direct room.
        let (mut moves, mut makes) = (false, false);
        for (index, event) in events.into_iter().enumerate() {
            let builds_on_it = match &event.change {
                Change::UserDeleted { .. } | Change::ReadAll { .. } => true,
                Change::Message(Message {
                    place: Place::With(_),
                    ..
                }) => moves,
                Change::Read {
                    place: Place::With(_),
                    ..
                } => moves || makes,
                _ => false,
            };
            if builds_on_it {
                let before = std::mem::take(&mut segment);
                self.segment(app, before, Wait::Applied, now, &mut outcomes)
                    .await?;
                (moves, makes) = (false, false);
            }
            match &event.change {
                Change::UserDeleted { user } => {
                    let outcome = self.delete_user(app, user, self.key(&event)).await;
                    let outcome = self.or_unreadable(outcome)?;
                    put(&mut outcomes, index, outcome);
                    continue;
                }
                Change::ReadAll { user, up_to, kinds } => {
                    let keys = [self.key(&event), self.key_of(&event, user)];
                    let outcome = self.read_all(app, user, up_to, kinds, keys, wait).await;
                    let outcome = self.or_unreadable(outcome)?;
                    put(&mut outcomes, index, outcome);
                    continue;
                }
                Change::Message(Message {
                    place: Place::With(_),
                    ..
                }) => makes = true,
                Change::RoomUpdated { .. } | Change::RoomDeleted { .. } | Change::Member { .. } => {
                    moves = true
                }
                _ => {}
            }
            segment.push((index, event));
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
        let met = self.direct_rooms(app, &events).await?;
        let known_in = self.rooms_that_know(app, &events, &met).await?;
        let by_peer = self.reads_by_peer(&events);
        let known = self.user_keys(app, &by_peer, false).await?;
        for (index, outcome) in known {
            put(outcomes, index, outcome);
        }
        let mut users = UserUpdates::default();
        let mut rooms_ops: Vec<RoomOps> = Vec::new();
        let mut index_of: HashMap<RoomId, usize> = HashMap::new();
        for (index, event) in events {
            if outcomes.get(index).is_some_and(Option::is_some) {
                continue;
            }
            let key = self.key(&event);
            let Event { time, change, .. } = event;
            let given = time.is_some();
            let time = time.unwrap_or(now);
            let (room, op) = match change {
                Change::UserUpdated { user, shown } => {
                    users.add(encode(user.as_str()), index, key, shown);
                    continue;
                }
                Change::RoomUpdated {
                    room,
                    kind,
                    custom_type,
                    tags,
                    active,
                    shown,
                } => {
                    let update = RoomUpdate {
                        kind,
                        custom_type: custom_type.map(|t| Some(encode(t.as_str()))),
                        tags: tags.map(|tags| tags.iter().map(|t| encode(t.as_str())).collect()),
                        active,
                        shown,
                        time,
                    };
                    (room, Op::Update(update))
                }
                Change::RoomDeleted { room } => (room, Op::Delete),
                Change::Member { room, state, users } => {
                    let users = users.iter().map(|u| encode(u.as_str())).collect();
                    let up_to = None;
                    (
                        room,
                        Op::Member {
                            users,
                            state,
                            up_to,
                        },
                    )
                }
                Change::Message(message) => {
                    let mut how = Found::There;
                    let room = match &message.place {
                        Place::Room(room) => room.clone(),
                        Place::With(to) => {
                            match message.sender.as_ref().map(|s| (s.clone(), to.clone())) {
                                Some(pair) => {
                                    let first = match met.get(&pair) {
                                        Some(Err(error)) => {
                                            let outcome = self.or_unreadable(Err(error.clone()))?;
                                            put(outcomes, index, outcome);
                                            continue;
                                        }
                                        Some(Ok(rooms)) => known_in.get(&index).or(rooms.first()),
                                        None => None,
                                    };
                                    // Who has left it is still the peer of the one who is there.
                                    let (one, two) = pair.clone();
                                    let theirs = met.get(&(two, one));
                                    let theirs =
                                        theirs.and_then(|rooms| rooms.as_ref().ok()?.first());
                                    match (first, theirs) {
                                        (Some(room), _) => room.clone(),
                                        (None, Some(room)) => {
                                            how = Found::Again;
                                            room.clone()
                                        }
                                        (None, None) => {
                                            how = Found::Made(0);
                                            self.direct_room_ids(app).of(&pair.0, &pair.1, 0)?
                                        }
                                    }
                                }
                                None => {
                                    return Err(Error::Internal(
                                        "a message to a user without a sender".into(),
                                    ));
                                }
                            }
                        }
                    };
                    let time = Sending { time, given };
                    (room, Op::Message { message, time, how })
                }
                Change::Recalled { room, id } => (room, Op::Recall(encode(id.as_str()))),
                Change::Read { place, user, up_to } => {
                    let by_peer = matches!(place, Place::With(_));
                    let room = match place {
                        Place::Room(room) => room,
                        Place::With(peer) => {
                            let rooms = met.get(&(user.clone(), peer.clone())).cloned();
                            let rooms = match rooms.unwrap_or_else(|| Ok(Vec::new())) {
                                Ok(rooms) => rooms,
                                Err(error) => {
                                    put(outcomes, index, self.or_unreadable(Err(error))?);
                                    continue;
                                }
                            };
                            let Some((room, more)) = rooms.split_first() else {
                                // There is nothing to read.
                                put(outcomes, index, EventOutcome::Applied { position: None });
                                continue;
                            };
                            // They may share several: it is read in each, and the named message is in one of them.
                            for room in more {
                                let user = encode(user.as_str());
                                let up_to = up_to.clone();
                                let op = Op::Read {
                                    user,
                                    up_to,
                                    by_peer,
                                };
                                let key = key.clone();
                                let step = Step { index, op, key };
                                place_op(&mut rooms_ops, &mut index_of, room.clone(), step);
                            }
                            room.clone()
                        }
                    };
                    let user = encode(user.as_str());
                    let op = Op::Read {
                        user,
                        up_to,
                        by_peer,
                    };
                    (room, op)
                }
                Change::Pref {
                    room,
                    user,
                    settings,
                } => {
                    let settings = settings
                        .iter()
                        .flat_map(|(field, value)| [*field, "\n", value, "\n"])
                        .collect();
                    let user = encode(user.as_str());
                    (room, Op::Pref { user, settings })
                }
                Change::UserDeleted { .. } | Change::ReadAll { .. } => {
                    return Err(Error::Internal("an event stands where it can't".into()));
                }
            };
            let step = Step { index, op, key };
            place_op(&mut rooms_ops, &mut index_of, room, step);
        }
        self.update_users(app, users, outcomes).await?;
        self.announce_rooms(app, rooms_ops.iter().map(|room| &room.name))
            .await?;
        let done: Vec<Vec<Numbered<EventOutcome>>> = stream::iter(rooms_ops)
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

    /// The events with a key that read by the peer: place, user, key. Which room that is may be another one when the event is
    /// sent again, so beside the room's name the user's takes the key, for that peer.
    fn reads_by_peer(&self, events: &[Numbered<Event>]) -> Vec<(usize, Enc, String)> {
        let by_peer = |(index, event): &Numbered<Event>| match &event.change {
            Change::Read {
                place: Place::With(peer),
                user,
                ..
            } => {
                let key = self.key_of(event, peer);
                (!key.is_empty()).then(|| (*index, encode(user.as_str()), key))
            }
            _ => None,
        };
        events.iter().filter_map(by_peer).collect()
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

    /// The direct rooms that the events speak of by naming the other one; of a message's sender who has none those of the
    /// receiver too.
    async fn direct_rooms(
        &self,
        app: &AppId,
        events: &[Numbered<Event>],
    ) -> Result<HashMap<(UserId, UserId), Result<Vec<RoomId>>>> {
        let mut pairs: Vec<(UserId, UserId)> = events
            .iter()
            .filter_map(|(_, event)| match &event.change {
                Change::Message(Message {
                    place: Place::With(to),
                    sender: Some(sender),
                    ..
                }) => Some((sender.clone(), to.clone())),
                Change::Read {
                    place: Place::With(peer),
                    user,
                    ..
                } => Some((user.clone(), peer.clone())),
                _ => None,
            })
            .collect();
        pairs.sort();
        pairs.dedup();
        let mut met = self.direct_rooms_of(app, &pairs).await?;
        let sent = events.iter().filter_map(|(_, event)| match &event.change {
            Change::Message(Message {
                place: Place::With(to),
                sender: Some(sender),
                ..
            }) => Some((sender, to)),
            _ => None,
        });
        self.of_the_others(app, sent, &mut met).await?;
        Ok(met)
    }

    /// Looks also at the direct rooms that the second of two has with the first, where the first has none.
    pub(crate) async fn of_the_others(
        &self,
        app: &AppId,
        pairs: impl Iterator<Item = (&UserId, &UserId)>,
        met: &mut HashMap<(UserId, UserId), Result<Vec<RoomId>>>,
    ) -> Result<()> {
        let mut missing = BTreeSet::new();
        for (one, two) in pairs {
            let (pair, other) = ((one.clone(), two.clone()), (two.clone(), one.clone()));
            let none = met
                .get(&pair)
                .is_some_and(|rooms| matches!(rooms, Ok(rooms) if rooms.is_empty()));
            if none && !met.contains_key(&other) {
                missing.insert(other);
            }
        }
        let missing: Vec<(UserId, UserId)> = missing.into_iter().collect();
        if !missing.is_empty() {
            met.extend(self.direct_rooms_of(app, &missing).await?);
        }
        Ok(())
    }

    /// Of messages to somebody with whom the sender has several rooms: the room that knows the message. It was sent before, when
    /// that was the one that the two had.
    async fn rooms_that_know(
        &self,
        app: &AppId,
        events: &[Numbered<Event>],
        met: &HashMap<(UserId, UserId), Result<Vec<RoomId>>>,
    ) -> Result<HashMap<usize, RoomId>> {
        let (mut items, mut asked) = (Vec::new(), Vec::new());
        for (index, event) in events {
            let Change::Message(Message {
                place: Place::With(to),
                sender: Some(sender),
                id,
                ..
            }) = &event.change
            else {
                continue;
            };
            let Some(Ok(rooms)) = met.get(&(sender.clone(), to.clone())) else {
                continue;
            };
            for room in rooms.iter().filter(|_| rooms.len() > 1) {
                let mut get = redis::cmd("HGET");
                get.arg(RoomKeys::new(app, &encode(room.as_str())).ids())
                    .arg(encode(id.as_str()).as_str());
                items.push(Item::Plain(get));
                asked.push((*index, room));
            }
        }
        let mut known = HashMap::new();
        if items.is_empty() {
            return Ok(known);
        }
        let answers = self.inner.redis.each(&items).await?;
        for ((index, room), answer) in asked.into_iter().zip(answers) {
            // What can't be read there the room finds out for itself.
            if matches!(answer, Ok(redis::Value::BulkString(_))) {
                known.insert(index, room.clone());
            }
        }
        Ok(known)
    }

    /// The direct rooms that each of these has with the other; what can't be read has that as its own answer.
    pub(crate) async fn direct_rooms_of(
        &self,
        app: &AppId,
        pairs: &[(UserId, UserId)],
    ) -> Result<HashMap<(UserId, UserId), Result<Vec<RoomId>>>> {
        let items: Vec<Item> = pairs
            .iter()
            .map(|(user, peer)| {
                let mut get = redis::cmd("HGET");
                get.arg(UserKeys::of(app, user).refs())
                    .arg(format!("direct:{}", encode(peer.as_str()).as_str()));
                Item::Plain(get)
            })
            .collect();
        let answers = self.inner.redis.each(&items).await?;
        let mut met = HashMap::new();
        for (pair, answer) in pairs.iter().zip(answers) {
            let list = answer.and_then(|answer| {
                self.inner
                    .faults
                    .at(maybe_text(answer), || UserKeys::of(app, &pair.0).refs())
            });
            let rooms = match list {
                Ok(list) => Ok(list
                    .unwrap_or_default()
                    .split(',')
                    .filter_map(|room| RoomId::parse(keys::decode(room)).ok())
                    .collect()),
                Err(error @ Error::Unreadable(_)) => Err(error),
                Err(error) => return Err(error),
            };
            met.insert(pair.clone(), rooms);
        }
        Ok(met)
    }

    /// Whether each of these rooms is a direct one. A room that is not there yet is not: an event that says so makes it one, or a
    /// message between two.
    pub(crate) async fn are_direct(&self, app: &AppId, rooms: &[&RoomId]) -> Result<Vec<bool>> {
        let kind_of = |room: &&RoomId| {
            let mut get = redis::cmd("HGET");
            get.arg(RoomKeys::new(app, &encode(room.as_str())).meta())
                .arg("kind");
            Item::Plain(get)
        };
        let items: Vec<Item> = rooms.iter().map(kind_of).collect();
        let kinds = self.inner.redis.each(&items).await?;
        let is_direct = |kind| match kind {
            Err(Error::Unreadable(_)) => Ok(false),
            kind => Ok(matches!(maybe_text(kind?), Ok(Some(kind)) if kind == "direct")),
        };
        kinds.into_iter().map(is_direct).collect()
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

    async fn update_users(
        &self,
        app: &AppId,
        mut users: UserUpdates,
        outcomes: &mut [Option<EventOutcome>],
    ) -> Result<()> {
        // Mostly there is one for each user; what follows for a user waits for what comes before.
        while !users.0.is_empty() {
            let mut items = Vec::with_capacity(users.0.len());
            let mut under_way = Vec::with_capacity(users.0.len());
            users.0.retain(|user, updates| {
                if let Some(update) = updates.pop_front() {
                    let keys = UserKeys::new(app, user);
                    let [one, two] = keys.taken();
                    let mut call =
                        scripts::USER_UPDATE.call(&[keys.counts(), keys.profile(), one, two]);
                    call.push(&update.key);
                    for (field, value) in update.shown {
                        call.push(field);
                        call.push(value);
                    }
                    items.push(Item::Script(call));
                    under_way.push(update.indices);
                }
                !updates.is_empty()
            });
            let answers = self.inner.redis.each(&items).await?;
            for (answer, indices) in answers.into_iter().zip(under_way) {
                let outcome = self.or_unreadable(answer.and_then(of_key))?;
                for index in indices {
                    put(outcomes, index, outcome.clone());
                }
            }
        }
        Ok(())
    }

    /// Accepts one room's events in their order, then delivers them together. Events that something unreadable is in the way of
    /// are rejected.
    async fn room(
        &self,
        app: &AppId,
        room: RoomOps,
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

    async fn room_into(
        &self,
        app: &AppId,
        room: RoomOps,
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
        let own = |step: &Step| match &step.op {
            Op::Read { user, .. } | Op::Pref { user, .. } => Some((step.index, user.clone())),
            _ => None,
        };
        let own: Vec<Numbered<Enc>> = room.steps.iter().filter_map(own).collect();
        // The user's name takes the key of these when they are done.
        let by_key =
            |step: &Step| !step.key.is_empty() && matches!(step.op, Op::Read { by_peer: true, .. });
        let wait = match room.steps.iter().any(by_key) {
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

    /// Delivers now, or hands the delivery to the background when the caller does not wait for it.
    async fn hand_over(&self, app: &AppId, room: Enc, work: Work, wait: Wait) -> Result<Finished> {
        // Who is in which room, and who exists, is told at once all the same: the next request may build on it.
        if wait == Wait::Accepted && work.only_counts() {
            // Bounded: past that, callers wait for the delivery after all.
            if let Ok(permit) = Arc::clone(&self.inner.background).try_acquire_owned() {
                let (writer, app) = (self.clone(), app.clone());
                tokio::spawn(async move {
                    // A failure is logged by the connection, and the recorded jobs are found by the sweep.
                    let _ = writer.finish(&app, &room, work).await;
                    drop(permit);
                });
                return Ok(Finished::default());
            }
        }
        self.finish(app, &room, work).await
    }

    /// Delivers to everybody concerned, has the room decide what becomes of memberships that users' slots refuse, and clears
    /// the jobs.
    pub(crate) async fn finish(&self, app: &AppId, room: &Enc, mut work: Work) -> Result<Finished> {
        let keys = RoomKeys::new(app, room);
        let (mut finished, mut ahead) = (Finished::default(), 0);
        let mut only: Option<Answers> = None;
        if work.is_empty() {
            return Ok(finished);
        }
        for _ in 0..ROUNDS {
            let came = self
                .inner
                .delivery
                .deliver(app, room, &work, only.as_ref())
                .await?;
            ahead = ahead.max(came.ahead);
            finished.untold.extend(came.untold);
            if !came.refused.is_empty() {
                let settled = self.settle(app, room, &mut work, &came.refused).await?;
                finished.ended.extend(settled.ended);
                if settled.everybody || !settled.again.is_empty() {
                    only = (!settled.everybody).then_some(settled.again);
                    continue;
                }
            }
            // A slot may have seen a stamp of the room that this pod has not.
            let unseen = Some(ahead).filter(|ahead| *ahead > work.snapshot.rev);
            match self
                .inner
                .delivery
                .clear(&keys, &work.jobs, unseen.unwrap_or(0))
                .await?
            {
                None => return Ok(finished),
                Some(snapshot) => {
                    work.snapshot = snapshot;
                    only = None;
                }
            }
        }
        let why = "who is in the room keeps changing; the delivery will be made again";
        Err(Error::Unavailable(why.into()))
    }

    /// Has the room decide what becomes of memberships that users' slots refused.
    async fn settle(
        &self,
        app: &AppId,
        room: &Enc,
        work: &mut Work,
        refused: &[Refused],
    ) -> Result<Settled> {
        let keys = RoomKeys::new(app, room);
        let entry = keys::room_entry(app, room);
        let mut settled = Settled::default();
        for refused in refused.chunks(USERS_PER_CALL) {
            let mut reply = self
                .accept(&entry, |token| {
                    let mut call = scripts::MEMBER_SETTLE
                        .call(&[keys.meta(), keys.members(), keys.pending()])
                        .arg(token)
                        .arg(LEASE_MICROS);
                    for one in refused {
                        call.push(one.user.as_str());
                        call.push(one.epoch);
                        call.push(match one.why {
                            Why::Deleted => "D",
                            Why::Over => "O",
                            Why::Ahead => "A",
                            Why::Naming => "N",
                        });
                        call.push(one.stamp);
                        let (job, base) = one.brings.unzip();
                        call.push(job.map(|job| job.to_string()).unwrap_or_default());
                        call.push(base.map(|base| base.to_string()).unwrap_or_default());
                    }
                    call
                })
                .await?;
            match reply.text()?.as_str() {
                "OK" => {
                    let job = Job::read(&mut reply)?;
                    // What others have under way was taken along before.
                    reply.value()?;
                    work.snapshot = Snapshot::read(&mut reply)?;
                    // The two of a direct room see each other.
                    settled.everybody |= job.is_some() && work.snapshot.kind == "direct";
                    work.jobs.extend(job);
                }
                "ROOM" => {
                    reply.value()?;
                }
                _ => return Err(unexpected()),
            }
            for one in refused {
                let said = maybe_text(reply.value()?)?.unwrap_or_default();
                settled.take(one, &said)?;
            }
        }
        Ok(settled)
    }

    /// Ends a membership, and delivers that.
    pub(crate) async fn leave(
        &self,
        app: &AppId,
        room: &Enc,
        user: &Enc,
        up_to: Option<u64>,
    ) -> Result<()> {
        let Ok(name) = RoomId::parse(keys::decode(room.as_str())) else {
            return Err(Error::Internal("a stored room has no legal name".into()));
        };
        let op = Op::Member {
            users: vec![user.clone()],
            state: MemberState::Left,
            up_to,
        };
        let steps = vec![Step {
            index: 0,
            op,
            key: String::new(),
        }];
        let mut left = self
            .room(app, RoomOps { name, steps }, Wait::Applied)
            .await?;
        match left.pop() {
            Some((_, EventOutcome::Rejected(Rejection::Unreadable(what)))) => {
                Err(Error::Unreadable(what))
            }
            _ => Ok(()),
        }
    }

    async fn delete_user(&self, app: &AppId, user: &UserId, key: String) -> Result<EventOutcome> {
        let name = encode(user.as_str());
        let entry = keys::user_entry(app, &name);
        let keys = UserKeys::new(app, &name);
        let [one, two] = &keys.taken();
        let mut reply = self
            .accept(&entry, |token| {
                scripts::USER_DELETE
                    .call(&[
                        keys.counts(),
                        keys.rooms(),
                        keys.supers(),
                        keys.refs(),
                        keys.marks(),
                        keys.left(),
                        keys.prefs(),
                        keys.profile(),
                        keys.pending(),
                        one.clone(),
                        two.clone(),
                    ])
                    .arg(token)
                    .arg(LEASE_MICROS)
                    .arg(&key)
            })
            .await?;
        match reply.text()?.as_str() {
            code @ ("OK" | "DUP") => {
                if let Some(job) = Job::read(&mut reply)? {
                    self.leave_rooms(app, &name, &[job]).await?;
                }
                Ok(match code {
                    "OK" => EventOutcome::Applied { position: None },
                    _ => EventOutcome::Duplicate { position: None },
                })
            }
            "KEY" => Ok(EventOutcome::Rejected(Rejection::KeyTaken)),
            "USER" => Ok(EventOutcome::Rejected(Rejection::UserNotFound(
                user.clone(),
            ))),
            _ => Err(unexpected()),
        }
    }

    /// Takes a deleted user out of the rooms that still list it, and clears the record of that.
    pub(crate) async fn leave_rooms(&self, app: &AppId, user: &Enc, jobs: &[Job]) -> Result<()> {
        let mut rooms = Vec::new();
        for job in jobs {
            if let Audience::Leave(left) = &job.audience {
                let left = left.iter().cloned();
                rooms.extend(left.map(|(room, epoch)| (room, epoch.unwrap_or(job.stamp))));
            }
        }
        // A membership that began after the deletion stays. Whichever room can be told is told.
        let left: Vec<Result<()>> = stream::iter(rooms)
            .map(|(room, epoch)| async move { self.leave(app, &room, user, Some(epoch)).await })
            .buffer_unordered(ROOMS_AT_ONCE)
            .collect()
            .await;
        left.into_iter().collect::<Result<()>>()?;
        let keys = UserKeys::new(app, user);
        let mut call = scripts::USER_DONE.call(&[keys.pending(), keys.left()]);
        for job in jobs {
            call.push(job.stamp);
        }
        self.inner.redis.call(&call).await?;
        Ok(())
    }

    async fn read_all(
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
                let op = Op::Read {
                    user: name.clone(),
                    up_to: up_to.clone(),
                    by_peer: false,
                };
                let step = Step {
                    index: 0,
                    op,
                    // Each room remembers it, so that a repetition after half of them reads nothing that has come since.
                    key: key_in_rooms.clone(),
                };
                // Left or deleted meanwhile: then there is nothing to read. A room that has forgotten what it had at that time
                // stays unread.
                let steps = vec![step];
                self.room(app, RoomOps { name: room, steps }, wait)
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

    /// Which of these events' keys the users' names have taken, and what the events come to then; takes the others if so asked.
    async fn user_keys(
        &self,
        app: &AppId,
        events: &[(usize, Enc, String)],
        take: bool,
    ) -> Result<Vec<Numbered<EventOutcome>>> {
        let item = |(_, user, key): &(usize, Enc, String)| {
            let call = scripts::USER_KEY.call(&UserKeys::new(app, user).taken());
            Item::Script(call.arg(key).arg(u8::from(take)))
        };
        let mut known = Vec::new();
        if events.is_empty() {
            return Ok(known);
        }
        let items: Vec<Item> = events.iter().map(item).collect();
        let answers = self.inner.redis.each(&items).await?;
        for ((index, _, _), answer) in events.iter().zip(answers) {
            let outcome = self.or_unreadable(answer.and_then(of_key))?;
            if !matches!(outcome, EventOutcome::Applied { .. }) {
                known.push((*index, outcome));
            }
        }
        Ok(known)
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

/// What came of a delivery to its end.
#[derive(Default)]
pub(crate) struct Finished {
    /// Whose memberships have turned out to be over.
    ended: BTreeSet<Enc>,
    /// Who could not be told.
    untold: BTreeSet<Enc>,
}

/// What a room has said of memberships that were refused.
#[derive(Default)]
struct Settled {
    /// Who is to be told again, and with what.
    again: Answers,
    /// Whether everybody is.
    everybody: bool,
    /// Whose membership is over.
    ended: BTreeSet<Enc>,
}

impl Settled {
    /// Takes what the room said of one.
    fn take(&mut self, refused: &Refused, said: &str) -> Result<()> {
        let mut answer = Answer::default();
        if refused.why == Why::Naming {
            answer.named = (said == "1").then_some(refused.stamp);
            if answer.named.is_some() {
                self.again.insert(refused.user.clone(), answer);
            }
            return Ok(());
        }
        let entry = match said {
            "" => None,
            said => Some(Entry::parse(said)?),
        };
        let over = entry.is_none_or(|entry| entry.state == 'l');
        if over {
            self.ended.insert(refused.user.clone());
        }
        let Some(entry) = entry else { return Ok(()) };
        answer.vouched = entry.vouched;
        // The same as before has nothing to say: the refusal was of something late.
        if entry.epoch != refused.epoch || entry.vouched == Some(refused.stamp) {
            self.again.insert(refused.user.clone(), answer);
        }
        Ok(())
    }
}

/// What an event has come to, by the word of a script that only looks at its key or does it at once.
fn of_key(answer: redis::Value) -> Result<EventOutcome> {
    match crate::engine::reply::text(answer)?.as_str() {
        "OK" => Ok(EventOutcome::Applied { position: None }),
        "DUP" => Ok(EventOutcome::Duplicate { position: None }),
        "KEY" => Ok(EventOutcome::Rejected(Rejection::KeyTaken)),
        _ => Err(unexpected()),
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

/// Adds an operation to its room's, in the order of the events.
fn place_op(
    rooms: &mut Vec<RoomOps>,
    index_of: &mut HashMap<RoomId, usize>,
    room: RoomId,
    step: Step,
) {
    let at = *index_of.entry(room.clone()).or_insert_with(|| {
        rooms.push(RoomOps {
            name: room,
            steps: Vec::new(),
        });
        rooms.len() - 1
    });
    if let Some(room) = rooms.get_mut(at) {
        room.steps.push(step);
    }
}

/// What is to become of what others see of users, for each in order.
#[derive(Default)]
struct UserUpdates(BTreeMap<Enc, VecDeque<UserUpdate>>);

/// Fields that are set by one call of the script, for one event with a key or several without.
struct UserUpdate {
    indices: Vec<usize>,
    key: String,
    shown: BTreeMap<&'static str, String>,
}

impl UserUpdates {
    fn add(&mut self, user: Enc, index: usize, key: String, shown: Vec<(&'static str, String)>) {
        let updates = self.0.entry(user).or_default();
        let last = updates.back_mut();
        if let Some(last) = last.filter(|last| last.key.is_empty() && key.is_empty()) {
            last.indices.push(index);
            last.shown.extend(shown);
            return;
        }
        updates.push_back(UserUpdate {
            indices: vec![index],
            key,
            shown: shown.into_iter().collect(),
        });
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

/// A message on its way into a room.
struct Sent {
    index: usize,
    message: Message,
    time: Sending,
    how: Found,
}

impl Sent {
    fn mentions(&self) -> usize {
        match &self.message.mentions {
            Mentions::Users(users) => users.len(),
            Mentions::All => 0,
        }
    }
}

/// One room's events on their way in.
struct Worker<'a> {
    writer: &'a Writer,
    app: &'a AppId,
    id: &'a RoomId,
    entry: String,
    keys: RoomKeys,
    work: Work,
    /// How many fan-outs had not reached everybody, where they were too many to be answered.
    unfinished: usize,
    /// Whether the room has much to forget.
    much: bool,
    /// Whether the room has refused something.
    was_refused: bool,
    outcomes: Vec<Numbered<EventOutcome>>,
}

/// What came of a change of memberships.
enum Changed {
    /// Made; these had been in the room before.
    Done(BTreeSet<Enc>),
    /// Its key is known.
    Known,
    /// Refused.
    Refused(EventOutcome),
}

/// A script's own keys of a room's slot, and those in which keys of events are remembered.
fn with_taken<const N: usize>(keys: &RoomKeys, own: [String; N]) -> Vec<String> {
    own.into_iter().chain(keys.taken()).collect()
}

/// Takes along fan-outs of other calls, job and record in turn. One that this version can't read is left to those who can.
fn take_along(work: &mut Work, open: Reply) -> Result<()> {
    for (id, record) in open.pairs()? {
        work.passing.extend(Job::parse(&id, &record).ok());
    }
    Ok(())
}

impl Worker<'_> {
    async fn run(&mut self, steps: Vec<Step>) -> Result<()> {
        let mut messages: Vec<Sent> = Vec::new();
        for Step { index, op, key } in steps {
            if let Op::Message { message, time, how } = op {
                let mentions: usize = messages.iter().map(Sent::mentions).sum();
                let together = messages
                    .last()
                    .is_none_or(|last| same_place(&last.message, &message));
                if !together || messages.len() >= MESSAGES_PER_CALL || mentions >= MENTIONS_PER_CALL
                {
                    self.send(std::mem::take(&mut messages)).await?;
                }
                messages.push(Sent {
                    index,
                    message,
                    time,
                    how,
                });
                continue;
            }
            self.send(std::mem::take(&mut messages)).await?;
            let outcome = match op {
                Op::Update(update) => self.update(&update, &key).await?,
                Op::Delete => self.delete(&key).await?,
                Op::Member {
                    users,
                    state,
                    up_to,
                } => self.member(&users, state, up_to, &key).await?,
                Op::Recall(id) => self.recall(&id).await?,
                Op::Read {
                    user,
                    up_to,
                    by_peer,
                } => match self.read(&user, &up_to, &key).await? {
                    refused @ EventOutcome::Rejected(_) if by_peer => {
                        self.or_nothing_to_read(&user, refused).await?
                    }
                    outcome => outcome,
                },
                Op::Pref { user, settings } => self.pref(&user, &settings, &key).await?,
                Op::Message { .. } => return Err(unexpected()),
            };
            self.outcomes.push((index, outcome));
        }
        self.send(messages).await
    }

    async fn accept(&self, call: impl Fn(u64) -> Call) -> Result<Reply> {
        self.writer.accept(&self.entry, call).await
    }

    fn refused(&mut self, code: &str) -> Result<EventOutcome> {
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
    fn take(&mut self, reply: &mut Reply) -> Result<Option<u64>> {
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
    async fn done(mut self) -> Result<Work> {
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
    async fn look_again(&mut self) -> Result<bool> {
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
    fn applied(&mut self, code: &str, mut reply: Reply) -> Result<EventOutcome> {
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

    async fn update(&mut self, update: &RoomUpdate, key: &str) -> Result<EventOutcome> {
        let custom_type = match &update.custom_type {
            None => "",
            Some(None) => "*",
            Some(Some(custom_type)) => custom_type.as_str(),
        };
        let tags = update.tags.as_ref().map_or(String::new(), |tags| {
            let tags: Vec<&str> = tags.iter().map(Enc::as_str).collect();
            format!("*{}", tags.join(","))
        });
        let status = update
            .active
            .map_or("", |active| if active { "1" } else { "0" });
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
                    .arg(update.kind.unwrap_or(""))
                    .arg(custom_type)
                    .arg(&tags)
                    .arg(status)
                    .arg(update.time);
                for (field, value) in &update.shown {
                    call.push(*field);
                    call.push(value);
                }
                call
            })
            .await?;
        let code = reply.text()?;
        self.applied(&code, reply)
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

    async fn member(
        &mut self,
        users: &[Enc],
        state: MemberState,
        up_to: Option<u64>,
        key: &str,
    ) -> Result<EventOutcome> {
        let mut outcome = EventOutcome::Applied { position: None };
        for (part, users) in users.chunks(USERS_PER_CALL).enumerate() {
            // Each call takes a key of its own.
            let mut key = match key.split_once('\n') {
                Some((name, rest)) if part > 0 => format!("{name}#{part}\n{rest}"),
                _ => key.to_owned(),
            };
            let mut users = users.to_vec();
            let mut rounds = 0..ROUNDS;
            while !users.is_empty() {
                if rounds.next().is_none() {
                    let why = "users who join keep being deleted";
                    return Err(Error::Unavailable(why.into()));
                }
                let there = match self.change(&users, state, up_to, &key).await? {
                    Changed::Done(there) => there,
                    Changed::Known => {
                        outcome = EventOutcome::Duplicate { position: None };
                        break;
                    }
                    Changed::Refused(refused) => return Ok(refused),
                };
                // A user who was there already may have been deleted since, with nobody having taken it out of the room yet.
                // That membership is over then, and the user comes in anew; the events that follow are to find that done.
                users = self.still_there(there).await?;
                key.clear();
            }
        }
        Ok(outcome)
    }

    /// Tells users who had been in the room before of it; answers whose membership turned out to be over.
    async fn still_there(&self, users: BTreeSet<Enc>) -> Result<Vec<Enc>> {
        let there = Work {
            snapshot: self.work.snapshot.clone(),
            passing: [&self.work.passing[..], &self.work.jobs[..]].concat(),
            also: users,
            ..Work::default()
        };
        let name = encode(self.id.as_str());
        let users = there.also.clone();
        let finished = self.writer.finish(self.app, &name, there).await?;
        // In a direct room the other one is told as well, and may be gone.
        Ok(finished.ended.intersection(&users).cloned().collect())
    }

    /// Changes memberships.
    async fn change(
        &mut self,
        users: &[Enc],
        state: MemberState,
        up_to: Option<u64>,
        key: &str,
    ) -> Result<Changed> {
        let letter = match state {
            MemberState::Joined => "j",
            MemberState::Invited => "i",
            MemberState::Left => "l",
        };
        let keys = &self.keys;
        let mut reply = self
            .accept(|token| {
                let own = [keys.meta(), keys.members(), keys.pending()];
                let mut call = scripts::MEMBER_CHANGE
                    .call(&with_taken(keys, own))
                    .arg(token)
                    .arg(LEASE_MICROS)
                    .arg(key)
                    .arg(letter)
                    .arg(up_to.map(|n| n.to_string()).unwrap_or_default());
                for user in users {
                    call.push(user.as_str());
                }
                call
            })
            .await?;
        match reply.text()?.as_str() {
            "OK" => {}
            "DUP" => {
                self.take(&mut reply)?;
                return Ok(Changed::Known);
            }
            code => return self.refused(code).map(Changed::Refused),
        }
        let stamp = self.take(&mut reply)?;
        let mut there = BTreeSet::new();
        for user in users {
            let entry = maybe_text(reply.value()?)?.unwrap_or_default();
            let began = match entry.as_str() {
                "" => None,
                entry => Some(Entry::parse(entry)?.epoch),
            };
            if state != MemberState::Left && began != stamp {
                there.insert(user.clone());
            } else {
                self.work.also.insert(user.clone());
            }
        }
        Ok(Changed::Done(there))
    }

    async fn send(&mut self, messages: Vec<Sent>) -> Result<()> {
        let Some(Sent {
            message: first,
            how,
            ..
        }) = messages.first()
        else {
            return Ok(());
        };
        let how = *how;
        let pair = match (&first.place, &first.sender) {
            (Place::With(to), Some(sender)) => Some((encode(sender.as_str()), encode(to.as_str()))),
            _ => None,
        };
        let history = &self.writer.inner.history;
        let keys = &self.keys;
        let mut reply = self
            .accept(|token| {
                let mut call = scripts::MESSAGE_SEND
                    .call(&[
                        keys.meta(),
                        keys.members(),
                        keys.ids(),
                        keys.log(),
                        keys.allmentions(),
                        keys.pending(),
                    ])
                    .arg(token)
                    .arg(LEASE_MICROS)
                    .arg(history.max_messages)
                    .arg(history.max_age_micros())
                    .arg(pair.as_ref().map_or("", |(one, _)| one.as_str()))
                    .arg(pair.as_ref().map_or("", |(_, two)| two.as_str()))
                    .arg(match how {
                        Found::Made(_) => 0,
                        Found::There => 1,
                        Found::Again => 2,
                    });
                for sent in &messages {
                    push_message(&mut call, &sent.message, sent.time, history.text_characters);
                }
                call
            })
            .await?;
        let last = Found::Made(self.writer.direct_room_ids(self.app).last());
        match reply.text()?.as_str() {
            "OK" => {
                self.take(&mut reply)?;
                self.much |= reply.number()? == 1;
                for Sent { index, .. } in &messages {
                    let status = reply.text()?;
                    let position = Some(reply.number()?).filter(|p| *p > 0);
                    let outcome = match status.as_str() {
                        "A" => EventOutcome::Applied { position },
                        "D" => EventOutcome::Duplicate { position },
                        _ => return Err(unexpected()),
                    };
                    // A known message whose fan-out is unfinished is delivered again: whoever waits for the answer
                    // of this call is promised that the counts show it.
                    self.work.jobs.extend(Job::read(&mut reply)?);
                    self.outcomes.push((*index, outcome));
                }
            }
            // The room that the two had is no longer theirs, whether or not they have been told: they have none then, and get
            // one.
            "FULL" | "KIND" | "LEFT" if pair.is_some() && how != last => {
                self.was_refused = true;
                self.send_elsewhere(messages, how).await?;
            }
            code => {
                let refused = self.refused(code)?;
                for Sent { index, .. } in &messages {
                    self.outcomes.push((*index, refused.clone()));
                }
            }
        }
        Ok(())
    }

    /// Sends to another room that the two have, or to the next one that they may have.
    async fn send_elsewhere(&mut self, messages: Vec<Sent>, tried: Found) -> Result<()> {
        let Some(Message {
            place: Place::With(to),
            sender: Some(sender),
            ..
        }) = messages.first().map(|sent| &sent.message)
        else {
            return Err(unexpected());
        };
        let ids = self.writer.direct_room_ids(self.app);
        let (name, how) = match tried {
            Found::There => self.look_for_room(sender, to).await?,
            Found::Again => (ids.of(sender, to, 0)?, Found::Made(0)),
            Found::Made(n) => (ids.of(sender, to, n + 1)?, Found::Made(n + 1)),
        };
        let step = |sent: Sent| Step {
            index: sent.index,
            op: Op::Message {
                message: sent.message,
                time: sent.time,
                how,
            },
            key: String::new(),
        };
        let steps = messages.into_iter().map(step).collect();
        let sent = self
            .writer
            .room(self.app, RoomOps { name, steps }, Wait::Applied);
        self.outcomes.extend(Box::pin(sent).await?);
        Ok(())
    }

    /// The direct room of two, of whom one is not in the room that was theirs a moment ago: another one that either of them
    /// has by now, else that one again.
    async fn look_for_room(&self, one: &UserId, two: &UserId) -> Result<(RoomId, Found)> {
        let pairs = [(one.clone(), two.clone()), (two.clone(), one.clone())];
        let met = self.writer.direct_rooms_of(self.app, &pairs).await?;
        let met: Vec<Vec<RoomId>> = met.into_values().collect::<Result<_>>()?;
        let rooms: Vec<&RoomId> = met.iter().flatten().collect();
        let other = rooms.iter().find(|room| **room != self.id);
        Ok(match other.or(rooms.first()) {
            Some(room) => ((*room).clone(), Found::Again),
            None => {
                let ids = self.writer.direct_room_ids(self.app);
                (ids.of(one, two, 0)?, Found::Made(0))
            }
        })
    }

    async fn recall(&mut self, id: &Enc) -> Result<EventOutcome> {
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

    async fn read(&mut self, user: &Enc, up_to: &UpTo, key: &str) -> Result<EventOutcome> {
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
    async fn has_read(&self, user: &Enc, born: u64) -> Result<u64> {
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
    async fn or_nothing_to_read(&self, user: &Enc, refused: EventOutcome) -> Result<EventOutcome> {
        let gone = EventOutcome::Applied { position: None };
        match refused {
            EventOutcome::Rejected(Rejection::RoomNotFound(_)) => Ok(gone),
            EventOutcome::Rejected(Rejection::NotAMember) => {
                let mut get = redis::cmd("HGET");
                get.arg(self.keys.members()).arg(user.as_str());
                let entry = maybe_text(self.writer.inner.redis.query(&get).await?)?;
                let entry = entry.map(|entry| Entry::parse(&entry)).transpose()?;
                Ok(match entry {
                    Some(entry) if entry.state == 'i' => refused,
                    _ => gone,
                })
            }
            refused => Ok(refused),
        }
    }

    async fn pref(&mut self, user: &Enc, settings: &str, key: &str) -> Result<EventOutcome> {
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
                    .arg(settings)
            })
            .await?;
        let code = reply.text()?;
        self.applied(&code, reply)
    }
}

/// Whether two messages can go in by one call: to a room, or between the same two.
fn same_place(one: &Message, two: &Message) -> bool {
    match (&one.place, &two.place) {
        (Place::Room(_), Place::Room(_)) => true,
        (Place::With(a), Place::With(b)) => {
            (a == b && one.sender == two.sender)
                || (one.sender.as_ref() == Some(b) && two.sender.as_ref() == Some(a))
        }
        _ => false,
    }
}

/// The first characters of a text.
fn first(text: &str, characters: usize) -> &str {
    let end = text.char_indices().nth(characters).map(|(at, _)| at);
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

fn push_message(call: &mut Call, message: &Message, time: Sending, characters: usize) {
    let mentions = match &message.mentions {
        Mentions::All => "*".to_owned(),
        Mentions::Users(users) => {
            let users: Vec<Enc> = users.iter().map(|u| encode(u.as_str())).collect();
            let users: Vec<&str> = users.iter().map(Enc::as_str).collect();
            users.join(",")
        }
    };
    call.push(encode(message.id.as_str()).as_str());
    call.push(
        message
            .sender
            .as_ref()
            .map(|s| encode(s.as_str()).as_str().to_owned())
            .unwrap_or_default(),
    );
    call.push(time.time);
    call.push(u8::from(message.silent));
    call.push(u8::from(message.mark_read));
    call.push(mentions);
    call.push(first(&message.text, characters));
    call.push(&message.message_type);
    call.push(u8::from(time.given));
    call.push(message.payload.as_deref().unwrap_or_default());
}
