//! One watched user.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

use super::mailbox::Mailbox;
use super::{YOUNG, lock};
use crate::engine::read::Shown;
use crate::names::UserId;

/// A user whom at least one stream watches.
pub(super) struct Watched {
    pub(super) user: UserId,
    pub(super) channel: Arc<str>,
    since: Instant,
    state: Mutex<WatchedState>,
    /// The channels of the supergroups that the user is in, by the rooms.
    rooms: Mutex<BTreeMap<String, Arc<str>>>,
}

struct WatchedState {
    /// What was read last, and the number of that read.
    newest: Option<(u64, Arc<Shown>)>,
    /// How many reads have begun.
    begun: u64,
    /// Whether it waits to be read.
    due: bool,
    /// When it is read again, if nothing has it read before.
    again: Instant,
    /// How many of the watchers want rooms.
    with_rooms: usize,
    /// By the numbers of their streams.
    watchers: HashMap<u64, WatcherPlace>,
}

struct WatcherPlace {
    mailbox: Arc<Mailbox>,
    /// What the stream calls the user.
    name: u32,
    rooms: bool,
    /// The read that it waits for, if it has been told of none yet.
    waits_for: Option<u64>,
}

impl Watched {
    pub(super) fn new(user: UserId, channel: Arc<str>) -> Self {
        Self {
            user,
            channel,
            since: Instant::now(),
            rooms: Mutex::default(),
            state: Mutex::new(WatchedState {
                newest: None,
                begun: 0,
                due: false,
                again: Instant::now(),
                with_rooms: 0,
                watchers: HashMap::new(),
            }),
        }
    }

    /// Whether the user is watched only since lately.
    pub(super) fn is_young(&self) -> bool {
        self.since.elapsed() < YOUNG * 3
    }

    pub(super) fn rooms(&self) -> MutexGuard<'_, BTreeMap<String, Arc<str>>> {
        lock(&self.rooms)
    }

    /// How many streams watch the user.
    pub(super) fn streams(&self) -> usize {
        lock(&self.state).watchers.len()
    }

    /// Adds a stream, which calls the user `name`. Answers which read will be the first that began after this.
    pub(super) fn join(&self, stream: u64, mailbox: Arc<Mailbox>, name: u32, rooms: bool) -> u64 {
        let mut state = lock(&self.state);
        let first = state.begun + 1;
        state.with_rooms += usize::from(rooms);
        let place = WatcherPlace {
            mailbox,
            name,
            rooms,
            waits_for: Some(first),
        };
        state.watchers.insert(stream, place);
        first
    }

    /// Takes a stream out. Answers whether none is left.
    pub(super) fn leave(&self, stream: u64) -> bool {
        let mut state = lock(&self.state);
        if let Some(place) = state.watchers.remove(&stream) {
            state.with_rooms -= usize::from(place.rooms);
        }
        state.watchers.is_empty()
    }

    /// Whether it is to be read from now on, and was not before.
    pub(super) fn becomes_due(&self) -> bool {
        !std::mem::replace(&mut lock(&self.state).due, true)
    }

    pub(super) fn is_old(&self, now: Instant) -> bool {
        let state = lock(&self.state);
        !state.due && state.again <= now
    }

    pub(super) fn read_at(&self, again: Instant) {
        lock(&self.state).again = again;
    }

    /// Begins a read. Answers its number, and whether somebody wants rooms.
    pub(super) fn begin_read(&self) -> (u64, bool) {
        let mut state = lock(&self.state);
        state.due = false;
        state.begun += 1;
        (state.begun, state.with_rooms > 0)
    }

    /// The read of this number has come to this. Tells the streams that have not seen it.
    pub(super) fn shows(&self, number: u64, shown: Shown) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let same = state.newest.take().filter(|(_, newest)| **newest == shown);
        let is_new = same.is_none();
        let shown = same.map_or_else(|| Arc::new(shown), |(_, same)| same);
        state.newest = Some((number, shown));
        for place in state.watchers.values_mut() {
            let waited = place.waits_for.is_some_and(|first| first <= number);
            if waited {
                place.waits_for = None;
            }
            if waited || (is_new && place.waits_for.is_none()) {
                place.mailbox.has_changed(place.name);
            }
        }
    }

    /// What was read last, if that read is this one or a later one.
    pub(super) fn newest(&self, since: u64) -> Option<Arc<Shown>> {
        let state = lock(&self.state);
        let newest = state.newest.as_ref().filter(|(number, _)| *number >= since);
        newest.map(|(_, shown)| Arc::clone(shown))
    }
}
