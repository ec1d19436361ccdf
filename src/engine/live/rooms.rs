//! The supergroups that watched users are in. A change of one concerns all of them, so the more they are, the longer is the least time
//! between two reads.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::watched::{FollowedRoom, Watched};
use super::{EARLIEST, lock};
use crate::connection::Subscriptions;
use crate::engine::read::Followed;
use crate::keys::{Enc, RoomKeys};
use crate::names::AppId;

/// By so much the least time between two reads grows with each user.
const PER_USER: Duration = Duration::from_micros(100);
/// The longest that it can be.
const LONGEST: Duration = Duration::from_secs(1);

/// The supergroups of one app, by their channels.
#[derive(Default)]
pub(super) struct Rooms {
    rooms: Mutex<HashMap<Arc<str>, WatchedRoom>>,
    /// Whether one of them may be due.
    any_due: AtomicBool,
}

struct WatchedRoom {
    room: Enc,
    /// By their channels.
    users: HashMap<Arc<str>, Arc<Watched>>,
    due: bool,
    /// Before then it is not looked at again.
    not_before: Instant,
    /// Then its mark is set again, if it was not before.
    again: Instant,
}

/// A room that has changed, and whom that concerns.
pub(super) struct Due {
    pub(super) room: Enc,
    channel: Arc<str>,
    pub(super) users: Vec<Arc<Watched>>,
}

impl Rooms {
    /// Whether a room is known here and has changed from now on.
    pub(super) fn becomes_due(&self, channel: &str) -> bool {
        let mut rooms = lock(&self.rooms);
        let room = rooms.get_mut(channel);
        let is_new = room.is_some_and(|room| !std::mem::replace(&mut room.due, true));
        self.any_due.fetch_or(is_new, Ordering::AcqRel);
        is_new
    }

    /// Whether one of them may be due, now or later.
    pub(super) fn any_due(&self) -> bool {
        self.any_due.load(Ordering::Acquire)
    }

    /// Has the marks set again that may be lost. Whether there are any.
    pub(super) fn sweep(&self, now: Instant) -> bool {
        let mut any = false;
        for room in lock(&self.rooms).values_mut() {
            room.due |= room.again <= now;
            any |= room.due && room.not_before <= now;
        }
        self.any_due.fetch_or(any, Ordering::AcqRel);
        any
    }

    /// Some of the rooms that have changed, and whose time has come.
    pub(super) fn take_due(&self, now: Instant, most: usize) -> Vec<Due> {
        let mut rooms = lock(&self.rooms);
        let any_waits = rooms.values().any(|room| room.due && room.not_before > now);
        self.any_due.store(any_waits, Ordering::Release);
        let due = rooms.iter_mut();
        let due = due.filter(|(_, room)| room.due && room.not_before <= now);
        let due = due.take(most).map(|(channel, room)| {
            room.due = false;
            let users = u32::try_from(room.users.len()).unwrap_or(u32::MAX);
            room.not_before = now + PER_USER.saturating_mul(users).min(LONGEST);
            room.again = now + EARLIEST;
            Due {
                room: room.room.clone(),
                channel: Arc::clone(channel),
                users: room.users.values().cloned().collect(),
            }
        });
        due.collect()
    }

    /// These could not be looked at.
    pub(super) fn again(&self, due: &[Due], not_before: Instant) {
        let mut rooms = lock(&self.rooms);
        self.any_due.store(true, Ordering::Release);
        for one in due {
            if let Some(room) = rooms.get_mut(&one.channel) {
                room.due = true;
                room.not_before = not_before;
            }
        }
    }

    /// A watched user is in these rooms, and in no others. Whether one of them is new, so that the user has to be read again.
    pub(super) fn follow(
        &self,
        app: &AppId,
        watched: &Arc<Watched>,
        now_in: Vec<Followed>,
        is_watched: impl Fn() -> bool,
        subscriptions: &Subscriptions,
    ) -> bool {
        let mut known = watched.rooms();
        if known.is_empty() && now_in.is_empty() {
            return false;
        }
        let now = Instant::now();
        let mut rooms = lock(&self.rooms);
        // Nobody may watch the user any more; its rooms are let go of then, under the same lock.
        let now_in = if is_watched() { now_in } else { Vec::new() };
        let mut left = std::mem::take(&mut *known);
        let mut is_new = false;
        for followed in now_in {
            let room = followed.record.room.clone();
            let channel: Arc<str> = match left.remove(room.as_str()) {
                Some(known) => known.channel,
                None => {
                    let channel: Arc<str> = RoomKeys::new(app, &room).live().into();
                    is_new = true;
                    let entry = rooms.entry(Arc::clone(&channel));
                    let entry = entry.or_insert_with(|| {
                        subscriptions.add(&channel);
                        WatchedRoom {
                            room: room.clone(),
                            users: HashMap::new(),
                            due: false,
                            not_before: now,
                            again: now,
                        }
                    });
                    entry
                        .users
                        .insert(Arc::clone(&watched.channel), Arc::clone(watched));
                    channel
                }
            };
            let name = room.as_str().to_owned();
            known.insert(name, FollowedRoom { channel, followed });
        }
        leave(&mut rooms, watched, left, subscriptions);
        is_new
    }

    /// Nobody watches a user any more.
    pub(super) fn forget(&self, watched: &Watched, subscriptions: &Subscriptions) {
        let mut known = watched.rooms();
        if !known.is_empty() {
            let left = std::mem::take(&mut *known);
            leave(&mut lock(&self.rooms), watched, left, subscriptions);
        }
    }
}

fn leave(
    rooms: &mut HashMap<Arc<str>, WatchedRoom>,
    watched: &Watched,
    left: BTreeMap<String, FollowedRoom>,
    subscriptions: &Subscriptions,
) {
    for FollowedRoom { channel, .. } in left.into_values() {
        if let Some(room) = rooms.get_mut(&channel) {
            room.users.remove(&watched.channel);
            if room.users.is_empty() {
                rooms.remove(&channel);
                subscriptions.remove(&channel);
            }
        }
    }
}
