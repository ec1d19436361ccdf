//! Accepting events: each room's in the order given, rooms side by side, then the fan-out.

use std::collections::{BTreeMap, HashMap};

use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use super::Store;
use super::deliver::Work;
use super::reply::{Reply, maybe_text};
use super::room::{Audience, Entry, Job, Snapshot};
use crate::connection::Item;
use crate::error::{Error, Result};
use crate::event::{Change, Event, MemberState, Mentions, Message, Place, UpTo};
use crate::keys::{self, Enc, RoomKeys, UserKeys, encode};
use crate::names::{AppId, RoomId, UserId};
use crate::scripts::{self, Call};

/// When a caller wants its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// When every member's counts show the events.
    Applied,
    /// When the events are safe in Redis.
    Accepted,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every member's counts show it.
    Applied {
        /// The number of a message that counts.
        position: Option<u64>,
    },
    /// It is safe in Redis; the counts follow.
    Accepted {
        /// The number of a message that counts.
        position: Option<u64>,
    },
    /// It was known; nothing changed.
    Duplicate {
        /// The number it got the first time.
        position: Option<u64>,
    },
    /// It was refused; nothing changed.
    Rejected(Rejection),
}

/// Why an event was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// There is no such room.
    RoomNotFound(RoomId),
    /// There is no direct room with that user.
    NoRoomWith(UserId),
    /// There is no such user.
    UserNotFound(UserId),
    /// There is no such message, or it is older than the history.
    MessageNotFound,
    /// The user has not joined the room.
    NotAMember,
    /// The kind of a room changes only from group to supergroup.
    KindChange,
    /// A direct room takes two.
    DirectRoomFull,
}

impl Rejection {
    /// The code of the native API, and what it means here.
    pub fn said(&self) -> (&'static str, String) {
        match self {
            Rejection::RoomNotFound(room) => {
                ("room_not_found", format!("no room {:?}", room.as_str()))
            }
            Rejection::NoRoomWith(peer) => (
                "room_not_found",
                format!("no direct room with {:?}", peer.as_str()),
            ),
            Rejection::UserNotFound(user) => {
                ("user_not_found", format!("no user {:?}", user.as_str()))
            }
            Rejection::MessageNotFound => (
                "message_not_found",
                "no such message in the room, or it is older than the history".into(),
            ),
            Rejection::NotAMember => ("not_a_member", "the user has not joined the room".into()),
            Rejection::KindChange => (
                "kind_change",
                "a room's kind changes only from group to supergroup".into(),
            ),
            Rejection::DirectRoomFull => (
                "direct_room_full",
                "a direct room takes at most two members".into(),
            ),
        }
    }
}

/// How long a pod has for a fan-out before another one takes it over, in microseconds.
pub(super) const LEASE_MICROS: u64 = 5_000_000;
/// For how long the revision of a deleted room is kept, in milliseconds.
const KEEP_DELETED_MS: u64 = 24 * 3600 * 1000;
/// Rooms worked on at once for one request.
const ROOMS_AT_ONCE: usize = 32;
/// Messages in one call of the script.
const MESSAGES_PER_CALL: usize = 100;
/// Mentions in one call of the script, give or take one message's.
const MENTIONS_PER_CALL: usize = 10_000;
/// Ids that the direct room of two users may have, beside the first.
const ATTEMPTS: u8 = 16;
/// Users in one call of the script.
const USERS_PER_CALL: usize = 1_000;

/// What is to become of memberships.
#[derive(Debug, Clone, Copy)]
struct Membership {
    state: MemberState,
    /// One may be ended only up to this epoch.
    up_to: Option<u64>,
    /// The position to begin with, if not the head of now.
    from: Option<u64>,
}

impl Membership {
    fn now(state: MemberState) -> Self {
        Self {
            state,
            up_to: None,
            from: None,
        }
    }
}

/// An event of one room, or what a room is asked on behalf of a user.
#[derive(Debug, Clone)]
enum Op {
    Update {
        kind: Option<&'static str>,
        custom_type: Option<Option<Enc>>,
        tags: Option<Vec<Enc>>,
        active: Option<bool>,
        shown: Vec<(&'static str, String)>,
        time: i64,
    },
    Delete,
    Member {
        users: Vec<Enc>,
        to: Membership,
    },
    Message {
        message: Message,
        time: i64,
        /// Which of the ids that two users' room may have was tried; `None`: the room is there by another name.
        made: Option<u8>,
    },
    Recall(Enc),
    Read {
        user: Enc,
        up_to: UpTo,
    },
    Pref {
        user: Enc,
        settings: String,
    },
}

type Numbered<T> = (usize, T);

/// One room's share of a request.
struct RoomOps {
    name: RoomId,
    ops: Vec<Numbered<Op>>,
}

impl Store {
    /// Applies events: those of one room in the order given, and every event after those before it that it builds on.
    pub async fn apply(&self, app: &AppId, events: Vec<Event>, wait: Wait) -> Result<Vec<Outcome>> {
        let _place = self.inner.admission.write().await?;
        let now = now_ms();
        let mut outcomes: Vec<Option<Outcome>> = vec![None; events.len()];
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
                    put(&mut outcomes, index, self.delete_user(app, user).await?);
                    continue;
                }
                Change::ReadAll { user } => {
                    put(&mut outcomes, index, self.read_all(app, user, wait).await?);
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
                Some(Outcome::Applied { position }) if wait == Wait::Accepted => {
                    Ok(Outcome::Accepted { position })
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
        outcomes: &mut [Option<Outcome>],
    ) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let met = self.direct_rooms(app, &events).await?;
        let mut users: BTreeMap<Enc, BTreeMap<&'static str, String>> = BTreeMap::new();
        let mut rooms_ops: Vec<RoomOps> = Vec::new();
        let mut index_of: HashMap<RoomId, usize> = HashMap::new();
        for (index, Event { time, change }) in events {
            let time = time.unwrap_or(now);
            let (room, op) = match change {
                Change::UserUpdated { user, shown } => {
                    users
                        .entry(encode(user.as_str()))
                        .or_default()
                        .extend(shown);
                    put(outcomes, index, Outcome::Applied { position: None });
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
                    let op = Op::Update {
                        kind,
                        custom_type: custom_type.map(|t| t.map(|t| encode(t.as_str()))),
                        tags: tags.map(|tags| tags.iter().map(|t| encode(t.as_str())).collect()),
                        active,
                        shown,
                        time,
                    };
                    (room, op)
                }
                Change::RoomDeleted { room } => (room, Op::Delete),
                Change::Member { room, state, users } => {
                    let users = users.iter().map(|u| encode(u.as_str())).collect();
                    let to = Membership::now(state);
                    (room, Op::Member { users, to })
                }
                Change::Message(message) => {
                    let mut made = None;
                    let room = match &message.place {
                        Place::Room(room) => room.clone(),
                        Place::With(to) => {
                            match message.sender.as_ref().map(|s| (s.clone(), to.clone())) {
                                Some(pair) => {
                                    match met.get(&pair).and_then(|rooms| rooms.first()) {
                                        Some(room) => room.clone(),
                                        None => {
                                            made = Some(0);
                                            direct_room_id(&pair.0, &pair.1, 0)?
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
                    (
                        room,
                        Op::Message {
                            message,
                            time,
                            made,
                        },
                    )
                }
                Change::Recalled { room, id } => (room, Op::Recall(encode(id.as_str()))),
                Change::Read { place, user, up_to } => {
                    let room = match place {
                        Place::Room(room) => room,
                        Place::With(peer) => {
                            let rooms = met
                                .get(&(user.clone(), peer.clone()))
                                .cloned()
                                .unwrap_or_default();
                            let Some((room, more)) = rooms.split_first() else {
                                put(
                                    outcomes,
                                    index,
                                    Outcome::Rejected(Rejection::NoRoomWith(peer)),
                                );
                                continue;
                            };
                            // They may share several: it is read in each, and the named message is in one of them.
                            for room in more {
                                let user = encode(user.as_str());
                                let up_to = up_to.clone();
                                place_op(
                                    &mut rooms_ops,
                                    &mut index_of,
                                    room.clone(),
                                    (index, Op::Read { user, up_to }),
                                );
                            }
                            room.clone()
                        }
                    };
                    let user = encode(user.as_str());
                    (room, Op::Read { user, up_to })
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
            place_op(&mut rooms_ops, &mut index_of, room, (index, op));
        }
        self.update_users(app, users).await?;
        self.announce(
            rooms_ops
                .iter()
                .map(|room| keys::room_entry(app, &encode(room.name.as_str()))),
        )
        .await?;
        let done: Vec<Vec<Numbered<Outcome>>> = stream::iter(rooms_ops)
            .map(|room| self.room(app, room, wait))
            .buffer_unordered(ROOMS_AT_ONCE)
            .try_collect()
            .await?;
        for (index, outcome) in done.into_iter().flatten() {
            put(outcomes, index, outcome);
        }
        Ok(())
    }

    /// The direct rooms that the events speak of by naming the other one.
    async fn direct_rooms(
        &self,
        app: &AppId,
        events: &[Numbered<Event>],
    ) -> Result<HashMap<(UserId, UserId), Vec<RoomId>>> {
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
        self.direct_rooms_of(app, &pairs).await
    }

    /// The direct rooms that each of these has with the other.
    pub(super) async fn direct_rooms_of(
        &self,
        app: &AppId,
        pairs: &[(UserId, UserId)],
    ) -> Result<HashMap<(UserId, UserId), Vec<RoomId>>> {
        let items: Vec<Item> = pairs
            .iter()
            .map(|(user, peer)| {
                let mut get = redis::cmd("HGET");
                get.arg(UserKeys::of(app, user).refs())
                    .arg(format!("direct:{}", encode(peer.as_str()).as_str()));
                Item::Plain(get)
            })
            .collect();
        let answers = self.inner.redis.batch(&items).await?;
        let mut met = HashMap::new();
        for (pair, answer) in pairs.iter().zip(answers) {
            let rooms: Vec<RoomId> = maybe_text(answer)?
                .unwrap_or_default()
                .split(',')
                .filter_map(|room| RoomId::parse(keys::decode(room)).ok())
                .collect();
            met.insert(pair.clone(), rooms);
        }
        Ok(met)
    }

    async fn update_users(
        &self,
        app: &AppId,
        users: BTreeMap<Enc, BTreeMap<&'static str, String>>,
    ) -> Result<()> {
        let items: Vec<Item> = users
            .into_iter()
            .map(|(user, fields)| {
                let keys = UserKeys::new(app, &user);
                let mut call = scripts::USER_UPDATE.call(&[keys.counts(), keys.profile()]);
                for (field, value) in fields {
                    call.push(field);
                    call.push(value);
                }
                Item::Script(call)
            })
            .collect();
        self.inner.redis.batch(&items).await?;
        Ok(())
    }

    /// Accepts one room's events in their order, then delivers them together.
    async fn room(&self, app: &AppId, room: RoomOps, wait: Wait) -> Result<Vec<Numbered<Outcome>>> {
        let name = encode(room.name.as_str());
        let mut worker = Worker {
            store: self,
            app,
            id: &room.name,
            entry: keys::room_entry(app, &name),
            keys: RoomKeys::new(app, &name),
            work: Work::default(),
            outcomes: Vec::with_capacity(room.ops.len()),
        };
        worker.run(room.ops).await?;
        let Worker { work, outcomes, .. } = worker;
        self.finish(app, name, work, wait).await?;
        Ok(outcomes)
    }

    /// Delivers now, or hands the delivery to the background when the caller does not wait for it.
    async fn finish(&self, app: &AppId, room: Enc, work: Work, wait: Wait) -> Result<()> {
        // Who is in which room, and who exists, is told at once all the same: the next request may build on it.
        if wait == Wait::Accepted && work.only_counts() {
            // Bounded: past that, callers wait for the delivery after all.
            if let Ok(permit) = std::sync::Arc::clone(&self.inner.background).try_acquire_owned() {
                let delivery = self.clone().deliver_later(app.clone(), room, work);
                tokio::spawn(async move {
                    // A failure is logged by the connection, and the recorded jobs are found by the sweep.
                    let _ = delivery.await;
                    drop(permit);
                });
                return Ok(());
            }
        }
        self.deliver(app, &room, &work).await
    }

    /// Ends a membership, and delivers that.
    pub(super) async fn leave(
        &self,
        app: &AppId,
        room: &Enc,
        user: &Enc,
        up_to: Option<u64>,
    ) -> Result<()> {
        let left = Membership::now(MemberState::Left);
        self.change_member(app, room, user, Membership { up_to, ..left })
            .await
    }

    async fn change_member(
        &self,
        app: &AppId,
        room: &Enc,
        user: &Enc,
        to: Membership,
    ) -> Result<()> {
        let Ok(name) = RoomId::parse(keys::decode(room.as_str())) else {
            return Err(Error::Internal("a stored room has no legal name".into()));
        };
        let users = vec![user.clone()];
        let ops = vec![(0, Op::Member { users, to })];
        self.room(app, RoomOps { name, ops }, Wait::Applied).await?;
        Ok(())
    }

    /// Lets a user in (`j`) or asks it in (`i`), to count what comes after `from` or after now, and delivers that.
    pub(super) async fn let_in(
        &self,
        app: &AppId,
        room: &Enc,
        user: &Enc,
        (state, from): (char, Option<u64>),
    ) -> Result<()> {
        let state = if state == 'i' {
            MemberState::Invited
        } else {
            MemberState::Joined
        };
        let to = Membership {
            from,
            ..Membership::now(state)
        };
        self.change_member(app, room, user, to).await
    }

    async fn delete_user(&self, app: &AppId, user: &UserId) -> Result<Outcome> {
        let name = encode(user.as_str());
        let entry = keys::user_entry(app, &name);
        let keys = UserKeys::new(app, &name);
        let mut reply = self
            .accept(&entry, |trust| {
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
                    ])
                    .arg(trust)
                    .arg(LEASE_MICROS)
            })
            .await?;
        match reply.text()?.as_str() {
            "OK" => {
                if let Some(job) = Job::read(&mut reply)? {
                    self.leave_rooms(app, &name, &[job]).await?;
                }
                Ok(Outcome::Applied { position: None })
            }
            "USER" => Ok(Outcome::Rejected(Rejection::UserNotFound(user.clone()))),
            _ => Err(unexpected()),
        }
    }

    /// Takes a deleted user out of the rooms that still list it, and clears the record of that.
    pub(super) async fn leave_rooms(&self, app: &AppId, user: &Enc, jobs: &[Job]) -> Result<()> {
        let rooms = jobs.iter().flat_map(|job| match &job.audience {
            Audience::Leave(rooms) => rooms.iter().map(|room| (room.clone(), job.stamp)).collect(),
            _ => Vec::new(),
        });
        stream::iter(rooms.map(Ok::<_, Error>))
            .try_for_each_concurrent(ROOMS_AT_ONCE, |(room, stamp)| async move {
                // A membership that began after the deletion stays.
                self.leave(app, &room, user, Some(stamp)).await
            })
            .await?;
        let mut call = scripts::USER_DONE.call(&[UserKeys::new(app, user).pending()]);
        for job in jobs {
            call.push(job.stamp);
        }
        self.inner.redis.call(&call).await?;
        Ok(())
    }

    async fn read_all(&self, app: &AppId, user: &UserId, wait: Wait) -> Result<Outcome> {
        let name = encode(user.as_str());
        let Some(rooms) = self.joined_rooms(app, &name).await? else {
            return Ok(Outcome::Rejected(Rejection::UserNotFound(user.clone())));
        };
        self.announce(
            rooms
                .iter()
                .map(|room| keys::room_entry(app, &encode(room.as_str()))),
        )
        .await?;
        stream::iter(rooms.into_iter().map(Ok::<_, Error>))
            .try_for_each_concurrent(ROOMS_AT_ONCE, |room| {
                let op = Op::Read {
                    user: name.clone(),
                    up_to: UpTo::Head,
                };
                async move {
                    // Left or deleted meanwhile: then there is nothing to read.
                    let ops = vec![(0, op)];
                    self.room(app, RoomOps { name: room, ops }, wait)
                        .await
                        .map(|_| ())
                }
            })
            .await?;
        Ok(Outcome::Applied { position: None })
    }

    /// Runs an accepting script; announces again when the announcement has become too old on the way.
    async fn accept(&self, entry: &str, call: impl Fn(u64) -> Call) -> Result<Reply> {
        let mut renew = false;
        for _ in 0..3 {
            let trust = self.trust(entry, renew).await?;
            let value = self.inner.redis.call(&call(trust)).await?;
            if !is_stale(&value) {
                return Reply::new(value);
            }
            renew = true;
        }
        Err(Error::Unavailable(
            "redis is too slow to accept events".into(),
        ))
    }
}

fn is_stale(value: &redis::Value) -> bool {
    matches!(value, redis::Value::Array(items)
        if matches!(items.first(), Some(redis::Value::BulkString(code)) if code == b"STALE"))
}

fn unexpected() -> Error {
    Error::Internal("unexpected reply from a script".into())
}

/// Puts an event's outcome in its place. An event tried in several rooms is refused only if all of them refuse it.
fn put(outcomes: &mut [Option<Outcome>], index: usize, outcome: Outcome) {
    if let Some(slot) = outcomes.get_mut(index)
        && matches!(slot, None | Some(Outcome::Rejected(_)))
    {
        *slot = Some(outcome);
    }
}

/// Adds an operation to its room's, in the order of the events.
fn place_op(
    rooms: &mut Vec<RoomOps>,
    index_of: &mut HashMap<RoomId, usize>,
    room: RoomId,
    op: Numbered<Op>,
) {
    let at = *index_of.entry(room.clone()).or_insert_with(|| {
        rooms.push(RoomOps {
            name: room,
            ops: Vec::new(),
        });
        rooms.len() - 1
    });
    if let Some(room) = rooms.get_mut(at) {
        room.ops.push(op);
    }
}

/// Milliseconds since the epoch.
pub(super) fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}

/// The room that a first message between two users makes: the same whoever writes first, and different for any other two.
/// Should it be taken by others (one of the two left it, and somebody else joined), there is a next one.
pub(super) fn direct_room_id(one: &UserId, two: &UserId, attempt: u8) -> Result<RoomId> {
    let (first, second) = if one <= two { (one, two) } else { (two, one) };
    let mut hash = Sha256::new();
    hash.update((first.as_str().len() as u64).to_be_bytes());
    hash.update(first.as_str());
    hash.update(second.as_str());
    if attempt > 0 {
        hash.update([0, attempt]);
    }
    let hex: String = hash
        .finalize()
        .iter()
        .take(16)
        .map(|b| format!("{b:02x}"))
        .collect();
    RoomId::parse(hex).map_err(|_| Error::Internal("a direct room without a name".into()))
}

/// A message on its way into a room.
struct Sent {
    index: usize,
    message: Message,
    time: i64,
    made: Option<u8>,
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
    store: &'a Store,
    app: &'a AppId,
    id: &'a RoomId,
    entry: String,
    keys: RoomKeys,
    work: Work,
    outcomes: Vec<Numbered<Outcome>>,
}

impl Worker<'_> {
    async fn run(&mut self, ops: Vec<Numbered<Op>>) -> Result<()> {
        let mut messages: Vec<Sent> = Vec::new();
        for (index, op) in ops {
            if let Op::Message {
                message,
                time,
                made,
            } = op
            {
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
                    made,
                });
                continue;
            }
            self.send(std::mem::take(&mut messages)).await?;
            let outcome = match op {
                Op::Update {
                    kind,
                    custom_type,
                    tags,
                    active,
                    shown,
                    time,
                } => {
                    self.update(kind, custom_type, tags, active, &shown, time)
                        .await?
                }
                Op::Delete => self.delete().await?,
                Op::Member { users, to } => self.member(&users, to).await?,
                Op::Recall(id) => self.recall(&id).await?,
                Op::Read { user, up_to } => self.read(&user, &up_to).await?,
                Op::Pref { user, settings } => self.pref(&user, &settings).await?,
                Op::Message { .. } => return Err(unexpected()),
            };
            self.outcomes.push((index, outcome));
        }
        self.send(messages).await
    }

    async fn accept(&self, call: impl Fn(u64) -> Call) -> Result<Reply> {
        self.store.accept(&self.entry, call).await
    }

    fn refused(&self, code: &str) -> Result<Outcome> {
        Ok(Outcome::Rejected(match code {
            "ROOM" => Rejection::RoomNotFound(self.id.clone()),
            "MESSAGE" => Rejection::MessageNotFound,
            "MEMBER" => Rejection::NotAMember,
            "KIND" => Rejection::KindChange,
            "FULL" => Rejection::DirectRoomFull,
            _ => return Err(unexpected()),
        }))
    }

    /// Takes `job, record, snapshot`.
    fn take(&mut self, reply: &mut Reply) -> Result<()> {
        let job = Job::read(reply)?;
        self.work.snapshot = Snapshot::read(reply)?;
        self.work.jobs.extend(job);
        Ok(())
    }

    /// What a script that answers nothing beyond its fan-out and the snapshot has come to.
    fn applied(&mut self, mut reply: Reply) -> Result<Outcome> {
        match reply.text()?.as_str() {
            "OK" => {
                self.take(&mut reply)?;
                Ok(Outcome::Applied { position: None })
            }
            code => self.refused(code),
        }
    }

    async fn update(
        &mut self,
        kind: Option<&'static str>,
        custom_type: Option<Option<Enc>>,
        tags: Option<Vec<Enc>>,
        active: Option<bool>,
        shown: &[(&'static str, String)],
        time: i64,
    ) -> Result<Outcome> {
        let custom_type = match &custom_type {
            None => "",
            Some(None) => "*",
            Some(Some(custom_type)) => custom_type.as_str(),
        };
        let tags = tags.map_or(String::new(), |tags| {
            let tags: Vec<&str> = tags.iter().map(Enc::as_str).collect();
            format!("*{}", tags.join(","))
        });
        let status = active.map_or("", |active| if active { "1" } else { "0" });
        let reply = self
            .accept(|trust| {
                let mut call = scripts::ROOM_UPDATE
                    .call(&[self.keys.meta(), self.keys.pending()])
                    .arg(trust)
                    .arg(LEASE_MICROS)
                    .arg(kind.unwrap_or(""))
                    .arg(custom_type)
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
        self.applied(reply)
    }

    async fn delete(&mut self) -> Result<Outcome> {
        let keys = &self.keys;
        let mut reply = self
            .accept(|trust| {
                scripts::ROOM_DELETE
                    .call(&[
                        keys.meta(),
                        keys.members(),
                        keys.ids(),
                        keys.log(),
                        keys.recalled(),
                        keys.allmentions(),
                        keys.pending(),
                    ])
                    .arg(trust)
                    .arg(LEASE_MICROS)
                    .arg(KEEP_DELETED_MS)
            })
            .await?;
        match reply.text()?.as_str() {
            "OK" => {
                let job = Job::read(&mut reply)?;
                self.work.snapshot = Snapshot::gone(reply.number()?);
                self.work.jobs.extend(job);
                Ok(Outcome::Applied { position: None })
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

    async fn member(&mut self, users: &[Enc], to: Membership) -> Result<Outcome> {
        let Membership { state, up_to, from } = to;
        let letter = match state {
            MemberState::Joined => 'j',
            MemberState::Invited => 'i',
            MemberState::Left => 'l',
        };
        for users in users.chunks(USERS_PER_CALL) {
            let keys = &self.keys;
            let mut reply = self
                .accept(|trust| {
                    let mut call = scripts::MEMBER_CHANGE
                        .call(&[keys.meta(), keys.members(), keys.pending()])
                        .arg(trust)
                        .arg(LEASE_MICROS)
                        .arg(letter.to_string())
                        .arg(up_to.map(|n| n.to_string()).unwrap_or_default())
                        .arg(from.map(|n| n.to_string()).unwrap_or_default());
                    for user in users {
                        call.push(user.as_str());
                    }
                    call
                })
                .await?;
            match reply.text()?.as_str() {
                "OK" => {
                    let job = Job::read(&mut reply)?;
                    let stamp = job.as_ref().map(|job| job.stamp);
                    self.work.snapshot = Snapshot::read(&mut reply)?;
                    self.work.jobs.extend(job);
                    // Who was there before.
                    let mut there = Work::default();
                    for user in users {
                        let entry = maybe_text(reply.value()?)?.unwrap_or_default();
                        let entry = (!entry.is_empty()).then(|| Entry::parse(&entry));
                        let entry = entry.transpose()?;
                        if state == MemberState::Left {
                            self.work.joins.remove(user);
                            self.work.also.insert(user.clone());
                        } else if entry.is_some_and(|entry| Some(entry.epoch) != stamp) {
                            there.joins.insert(user.clone(), (letter, None));
                            there.also.insert(user.clone());
                        } else {
                            self.work.joins.insert(user.clone(), (letter, None));
                            self.work.also.insert(user.clone());
                        }
                    }
                    if !there.is_empty() {
                        // A user deleted since, whom nobody has taken out of the room yet, is let in anew by this, and
                        // the events that follow are to find that done.
                        there.snapshot = self.work.snapshot.clone();
                        let name = encode(self.id.as_str());
                        self.store.deliver(self.app, &name, &there).await?;
                    }
                }
                code => return self.refused(code),
            }
        }
        Ok(Outcome::Applied { position: None })
    }

    async fn send(&mut self, messages: Vec<Sent>) -> Result<()> {
        let Some(Sent {
            message: first,
            made,
            ..
        }) = messages.first()
        else {
            return Ok(());
        };
        let made = *made;
        let pair = match (&first.place, &first.sender) {
            (Place::With(to), Some(sender)) => Some((encode(sender.as_str()), encode(to.as_str()))),
            _ => None,
        };
        let history = &self.store.inner.history;
        let keys = &self.keys;
        let mut reply = self
            .accept(|trust| {
                let mut call = scripts::MESSAGE_SEND
                    .call(&[
                        keys.meta(),
                        keys.members(),
                        keys.ids(),
                        keys.log(),
                        keys.allmentions(),
                        keys.pending(),
                    ])
                    .arg(trust)
                    .arg(LEASE_MICROS)
                    .arg(history.max_messages)
                    .arg(history.max_age_micros())
                    .arg(pair.as_ref().map_or("", |(one, _)| one.as_str()))
                    .arg(pair.as_ref().map_or("", |(_, two)| two.as_str()));
                for sent in &messages {
                    push_message(&mut call, &sent.message, sent.time);
                }
                call
            })
            .await?;
        match reply.text()?.as_str() {
            "OK" => {
                self.take(&mut reply)?;
                let mut first = None;
                for Sent { index, .. } in &messages {
                    let status = reply.text()?;
                    let position = Some(reply.number()?).filter(|p| *p > 0);
                    if status == "A" {
                        first = first.or(position);
                    }
                    let outcome = match status.as_str() {
                        "A" => Outcome::Applied { position },
                        "D" => Outcome::Duplicate { position },
                        _ => return Err(unexpected()),
                    };
                    // A known message whose fan-out is unfinished is delivered again: whoever waits for the answer
                    // of this call is promised that the counts show it.
                    self.work.jobs.extend(Job::read(&mut reply)?);
                    self.outcomes.push((*index, outcome));
                }
                // Should one of the two turn out to have been deleted since it was let in: these messages name it again.
                if let (Some((one, two)), Some(first)) = (pair, first) {
                    for user in [one, two] {
                        self.work.joins.insert(user, ('j', Some(first - 1)));
                    }
                }
            }
            "FULL" | "KIND" if made.is_some_and(|attempt| attempt < ATTEMPTS) => {
                self.send_elsewhere(messages, made.unwrap_or_default() + 1)
                    .await?;
            }
            code => {
                for Sent { index, .. } in &messages {
                    self.outcomes.push((*index, self.refused(code)?));
                }
            }
        }
        Ok(())
    }

    /// Sends to the next room that the two may have.
    async fn send_elsewhere(&mut self, messages: Vec<Sent>, attempt: u8) -> Result<()> {
        let Some(Message {
            place: Place::With(to),
            sender: Some(sender),
            ..
        }) = messages.first().map(|sent| &sent.message)
        else {
            return Err(unexpected());
        };
        let name = direct_room_id(sender, to, attempt)?;
        let ops = messages
            .into_iter()
            .map(
                |Sent {
                     index,
                     message,
                     time,
                     ..
                 }| {
                    let made = Some(attempt);
                    (
                        index,
                        Op::Message {
                            message,
                            time,
                            made,
                        },
                    )
                },
            )
            .collect();
        let sent = self
            .store
            .room(self.app, RoomOps { name, ops }, Wait::Applied);
        self.outcomes.extend(Box::pin(sent).await?);
        Ok(())
    }

    async fn recall(&mut self, id: &Enc) -> Result<Outcome> {
        let history = &self.store.inner.history;
        let keys = &self.keys;
        let mut reply = self
            .accept(|trust| {
                scripts::MESSAGE_RECALL
                    .call(&[
                        keys.meta(),
                        keys.ids(),
                        keys.recalled(),
                        keys.allmentions(),
                        keys.pending(),
                    ])
                    .arg(trust)
                    .arg(LEASE_MICROS)
                    .arg(history.max_messages)
                    .arg(history.max_age_micros())
                    .arg(id.as_str())
            })
            .await?;
        match reply.text()?.as_str() {
            "OK" => {
                self.take(&mut reply)?;
                Ok(Outcome::Applied { position: None })
            }
            "DUP" => {
                self.take(&mut reply)?;
                Ok(Outcome::Duplicate { position: None })
            }
            code => self.refused(code),
        }
    }

    async fn read(&mut self, user: &Enc, up_to: &UpTo) -> Result<Outcome> {
        let (how, value) = match up_to {
            UpTo::Head => ("all", String::new()),
            UpTo::Id(id) => ("id", encode(id.as_str()).as_str().to_owned()),
            UpTo::Time(time) => ("time", time.to_string()),
        };
        let history = &self.store.inner.history;
        let keys = &self.keys;
        let reply = self
            .accept(|trust| {
                scripts::ROOM_READ
                    .call(&[
                        keys.meta(),
                        keys.members(),
                        keys.ids(),
                        keys.log(),
                        keys.pending(),
                    ])
                    .arg(trust)
                    .arg(LEASE_MICROS)
                    .arg(history.max_messages)
                    .arg(history.max_age_micros())
                    .arg(user.as_str())
                    .arg(how)
                    .arg(&value)
            })
            .await?;
        self.applied(reply)
    }

    async fn pref(&mut self, user: &Enc, settings: &str) -> Result<Outcome> {
        let keys = &self.keys;
        let reply = self
            .accept(|trust| {
                scripts::PREF_UPDATE
                    .call(&[keys.meta(), keys.members(), keys.pending()])
                    .arg(trust)
                    .arg(LEASE_MICROS)
                    .arg(user.as_str())
                    .arg(settings)
            })
            .await?;
        self.applied(reply)
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

fn push_message(call: &mut Call, message: &Message, time: i64) {
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
    call.push(time);
    call.push(u8::from(message.silent));
    call.push(u8::from(message.mark_read));
    call.push(mentions);
    call.push(&message.text);
    call.push(&message.message_type);
}
