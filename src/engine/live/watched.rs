//! One watched user.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::mailbox::Mailbox;
use super::{YOUNG, lock};
use crate::engine::read::{Followed, Shown, Supergroup, SupergroupShare};
use crate::keys::Enc;
use crate::names::UserId;

/// A user whom at least one stream watches.
pub(super) struct Watched {
    pub(super) user: UserId,
    pub(super) channel: Arc<str>,
    since: Instant,
    state: Mutex<WatchedState>,
    /// The supergroups that the user is in, as they were read last.
    rooms: Mutex<BTreeMap<String, FollowedRoom>>,
}

/// A supergroup that a watched user is in.
pub(super) struct FollowedRoom {
    pub(super) channel: Arc<str>,
    pub(super) followed: Followed,
}

struct WatchedState {
    /// What was read last, and the number of that read.
    newest: Option<(u64, Arc<Shown>)>,
    /// How many reads have begun.
    begun: u64,
    /// Whether it waits to be read.
    due: bool,
    /// When it was read last, or a supergroup of it.
    last_read: Option<Instant>,
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
    /// Whether it is of the user's own device.
    is_own: bool,
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
                last_read: None,
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

    pub(super) fn rooms(&self) -> MutexGuard<'_, BTreeMap<String, FollowedRoom>> {
        lock(&self.rooms)
    }

    /// How many streams watch the user.
    pub(super) fn streams(&self) -> usize {
        lock(&self.state).watchers.len()
    }

    /// How many of them are of the user's own devices.
    pub(super) fn own_streams(&self) -> usize {
        let state = lock(&self.state);
        state.watchers.values().filter(|place| place.is_own).count()
    }

    /// Adds a stream, which calls the user `name`. Answers which read will be the first that began after this.
    pub(super) fn join(
        &self,
        stream: u64,
        mailbox: Arc<Mailbox>,
        name: u32,
        rooms: bool,
        is_own: bool,
    ) -> u64 {
        let mut state = lock(&self.state);
        let first = state.begun + 1;
        state.with_rooms += usize::from(rooms);
        let place = WatcherPlace {
            mailbox,
            name,
            rooms,
            is_own,
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

    /// When it may be read, if between two reads there has to be so much time.
    pub(super) fn may_be_read_at(&self, window: Duration, now: Instant) -> Instant {
        lock(&self.state)
            .last_read
            .map_or(now, |last| last + window)
    }

    /// Begins a read. Answers its number, and whether somebody wants rooms.
    pub(super) fn begin_read(&self) -> (u64, bool) {
        let mut state = lock(&self.state);
        state.due = false;
        state.last_read = Some(Instant::now());
        state.begun += 1;
        (state.begun, state.with_rooms > 0)
    }

    /// Begins to work out anew what one supergroup adds: the number of that read, and the user's record of the room. `None`: the user
    /// has to be read, or is about to be, or was read just now.
    pub(super) fn begin_recount(
        &self,
        room: &Enc,
        window: Duration,
    ) -> Option<(u64, Arc<Supergroup>)> {
        let rooms = self.rooms();
        let record = Arc::clone(&rooms.get(room.as_str())?.followed.record);
        let mut state = lock(&self.state);
        let now = Instant::now();
        let is_early = state.last_read.is_some_and(|last| now < last + window);
        if state.due || is_early || state.with_rooms > 0 || state.newest.is_none() {
            return None;
        }
        state.last_read = Some(now);
        state.begun += 1;
        Some((state.begun, record))
    }

    /// The supergroup adds that much by the read of this number. `Err`: the user has to be read.
    pub(super) fn recounted(
        &self,
        room: &Enc,
        number: u64,
        share: SupergroupShare,
    ) -> Result<(), ()> {
        let newest = {
            let state = lock(&self.state);
            match &state.newest {
                // The pod reads a user who is due after this.
                _ if state.due => return Ok(()),
                Some((_, newest)) => newest.totals,
                None => return Err(()),
            }
        };
        let mut rooms = self.rooms();
        let Some(known) = rooms.get_mut(room.as_str()) else {
            return Err(());
        };
        if known.followed.share == share {
            return Ok(());
        }
        known.followed.share = share;
        let mut totals = newest;
        for family in [
            &mut totals.messages,
            &mut totals.mentions,
            &mut totals.invitations,
            &mut totals.unread_rooms,
        ] {
            family.supergroup = 0;
        }
        for known in rooms.values() {
            known.followed.share.add_to(&mut totals).map_err(drop)?;
        }
        drop(rooms);
        let rooms = None;
        self.shows(number, Shown { totals, rooms });
        Ok(())
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
