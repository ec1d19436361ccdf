//! One watched user.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::mailbox::Mailbox;
use super::{YOUNG, lock};
use crate::counts::Totals;
use crate::engine::read::{Contribution, Followed, Shown, Supergroup};
use crate::error::Result;
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

/// What is done for a user in a supergroup that has changed.
#[derive(Debug)]
pub(super) enum Recount {
    /// The room is asked for its contribution by this record. The number is that of the read.
    Asks(u64, Arc<Supergroup>),
    /// The user is read.
    Reads,
    /// Nothing: the user is about to be read anyway.
    Waits,
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
    /// When the window is over of what was shown last: before then nothing further is.
    window_ends: Option<Instant>,
    /// Supergroups have answered meanwhile, the last one to the read of this number: what they add is shown then.
    shows_later: Option<u64>,
    /// Whether the last read has failed, so that what is known is not what there is.
    has_failed: bool,
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
                window_ends: None,
                shows_later: None,
                has_failed: false,
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

    /// Whether nothing was read of the user, or only zeros, as of a user of whom nothing is known.
    pub(super) fn may_be_unknown(&self) -> bool {
        let state = lock(&self.state);
        let newest = state.newest.as_ref();
        newest.is_none_or(|(_, shown)| shown.totals == Totals::default())
    }

    /// Whether it is to be read from now on, and was not before.
    pub(super) fn becomes_due(&self) -> bool {
        !std::mem::replace(&mut lock(&self.state).due, true)
    }

    pub(super) fn is_old(&self, now: Instant) -> bool {
        let state = lock(&self.state);
        !state.due && state.again <= now
    }

    /// It has been read, and is read again then.
    pub(super) fn was_read(&self, again: Instant) {
        let mut state = lock(&self.state);
        (state.again, state.has_failed) = (again, false);
    }

    /// It could not be read, which is tried again then.
    pub(super) fn could_not_be_read(&self, again: Instant) {
        let mut state = lock(&self.state);
        (state.again, state.has_failed) = (again, true);
    }

    /// When it may be read: in one window nothing is shown twice.
    pub(super) fn may_be_read_at(&self, now: Instant) -> Instant {
        lock(&self.state).window_ends.unwrap_or(now)
    }

    /// Begins a read, and a window. Answers its number, and whether somebody wants rooms.
    pub(super) fn begin_read(&self, window: Duration) -> (u64, bool) {
        let mut state = lock(&self.state);
        state.due = false;
        state.window_ends = Some(Instant::now() + window);
        state.begun += 1;
        (state.begun, state.with_rooms > 0)
    }

    /// Begins to ask one supergroup for its contribution.
    pub(super) fn begin_recount(&self, room: &Enc) -> Recount {
        let rooms = self.rooms();
        let Some(known) = rooms.get(room.as_str()) else {
            return Recount::Reads;
        };
        let mut state = lock(&self.state);
        let mut places = state.watchers.values();
        // A stream that waits for its first read is shown nothing that was read before it came.
        let is_awaited = places.any(|place| place.waits_for.is_some());
        if state.due || state.has_failed || is_awaited || state.newest.is_none() {
            return Recount::Waits;
        }
        if state.with_rooms > 0 {
            return Recount::Reads;
        }
        state.begun += 1;
        Recount::Asks(state.begun, Arc::clone(&known.followed.record))
    }

    /// A supergroup contributes that now. Whether that can be: else the user's record of it is out of date.
    pub(super) fn recounted(&self, room: &Enc, contribution: Contribution) -> bool {
        let mut rooms = self.rooms();
        let Some(known) = rooms.get_mut(room.as_str()) else {
            return false;
        };
        let goes_back = contribution.goes_back(known.followed.contribution);
        if !goes_back {
            known.followed.contribution = contribution;
        }
        !goes_back
    }

    /// Shows what all supergroups add by now, as of the read of this number. Answers when that may be, if that is later: then
    /// [`Self::show_later`] does it.
    pub(super) fn show_recounted(
        &self,
        number: u64,
        window: Duration,
        now: Instant,
    ) -> Result<Option<Instant>> {
        let newest = {
            let state = lock(&self.state);
            match &state.newest {
                Some((_, newest)) if !state.due && !state.has_failed => Arc::clone(newest),
                // The pod reads the user after this.
                _ => return Ok(None),
            }
        };
        let mut totals = newest.totals;
        for family in [
            &mut totals.messages,
            &mut totals.mentions,
            &mut totals.invitations,
            &mut totals.unread_rooms,
        ] {
            family.supergroup = 0;
        }
        for known in self.rooms().values() {
            known.followed.contribution.add_to(&mut totals)?;
        }
        if totals == newest.totals {
            return Ok(None);
        }
        {
            let mut state = lock(&self.state);
            if let Some(at) = state.window_ends.filter(|at| *at > now) {
                let is_new = state.shows_later.replace(number).is_none();
                return Ok(is_new.then_some(at));
            }
            state.window_ends = Some(now + window);
        }
        let rooms = None;
        self.shows(number, Shown { totals, rooms });
        Ok(None)
    }

    /// The window is over in which supergroups have answered: shows what they add, unless a read has shown it.
    pub(super) fn show_later(&self, window: Duration, now: Instant) -> Result<Option<Instant>> {
        let number = lock(&self.state).shows_later.take();
        let Some(number) = number else {
            return Ok(None);
        };
        self.show_recounted(number, window, now)
    }

    /// The read of this number has come to this. Tells the streams that have not seen it.
    pub(super) fn shows(&self, number: u64, shown: Shown) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        state.shows_later = None;
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

#[cfg(test)]
mod tests {
    use super::super::rooms::tests::{channel, followed, watched};
    use super::*;
    use crate::counts::CountPref;
    use crate::keys::encode;

    const WINDOW: Duration = Duration::from_secs(1);

    /// A user in these supergroups whom a stream watches, after the first read.
    fn read_once(rooms: &[&str]) -> (Arc<Watched>, Arc<Mailbox>) {
        let (watched, mailbox) = (watched("u"), Arc::<Mailbox>::default());
        for room in rooms {
            let channel = channel(room).into();
            let followed = followed(room);
            let room = FollowedRoom { channel, followed };
            let name = room.followed.record.room.as_str().to_owned();
            watched.rooms().insert(name, room);
        }
        assert_eq!(watched.join(1, Arc::clone(&mailbox), 1, false, false), 1);
        let (number, _) = watched.begin_read(WINDOW);
        watched.was_read(Instant::now());
        watched.shows(number, Shown::default());
        assert_eq!(mailbox.take(), Some(1));
        (watched, mailbox)
    }

    fn asks(watched: &Watched, room: &str) -> Option<u64> {
        match watched.begin_recount(&encode(room)) {
            Recount::Asks(number, _) => Some(number),
            Recount::Reads | Recount::Waits => None,
        }
    }

    fn adds(watched: &Watched, room: &str, messages: u64) {
        let contribution = Contribution::new('j', CountPref::default(), messages, 0);
        assert!(watched.recounted(&encode(room), contribution));
    }

    fn messages_shown(watched: &Watched) -> u64 {
        watched.newest(0).unwrap().totals.messages.supergroup
    }

    #[test]
    fn a_stream_is_shown_nothing_that_was_read_before_it_came() {
        let (watched, _mailbox) = read_once(&["x"]);
        let late = asks(&watched, "x").unwrap();
        adds(&watched, "x", 1);
        let begun = Instant::now();
        let later = watched.show_recounted(late, WINDOW, begun).unwrap();
        let other = Arc::<Mailbox>::default();
        let since = watched.join(2, Arc::clone(&other), 1, false, false);
        assert!(late < since && asks(&watched, "x").is_none());
        // The read that was to be its first one fails: supergroups still say nothing of the rest.
        watched.becomes_due();
        let (number, _) = watched.begin_read(WINDOW);
        watched.could_not_be_read(Instant::now());
        assert!(number == since && asks(&watched, "x").is_none());
        watched.show_later(WINDOW, later.unwrap()).unwrap();
        assert!(other.take().is_none() && watched.newest(since).is_none());
        let (number, _) = watched.begin_read(WINDOW);
        watched.was_read(Instant::now());
        watched.shows(number, Shown::default());
        assert!(other.take().is_some() && watched.newest(since).is_some());
        assert!(asks(&watched, "x").is_some());
    }

    #[test]
    fn after_a_read_that_has_failed_a_supergroup_is_not_asked_by_what_was_known_before() {
        let (watched, _mailbox) = read_once(&["x"]);
        assert!(watched.becomes_due() && asks(&watched, "x").is_none());
        let _ = watched.begin_read(WINDOW);
        watched.could_not_be_read(Instant::now());
        assert!(asks(&watched, "x").is_none());
        let (number, _) = watched.begin_read(WINDOW);
        watched.was_read(Instant::now());
        watched.shows(number, Shown::default());
        assert!(asks(&watched, "x").is_some());
    }

    #[test]
    fn a_user_who_has_read_further_than_the_record_says_is_read() {
        let (watched, mailbox) = read_once(&["x"]);
        let now = Instant::now() + WINDOW;
        let answers = |messages, read| {
            let number = asks(&watched, "x").unwrap();
            let none = CountPref::default();
            let contribution = Contribution::new('j', none, messages, 0).by(read);
            let holds = watched.recounted(&encode("x"), contribution);
            if !holds {
                watched.becomes_due();
            }
            let shown = watched.show_recounted(number, Duration::ZERO, now);
            assert_eq!(shown.unwrap(), None);
            (holds, messages_shown(&watched))
        };
        assert_eq!(answers(6, 4), (true, 6));
        // The room knows of a read that has not come to the user's slot.
        assert_eq!(answers(1, 9), (true, 1));
        assert_eq!(answers(2, 9), (true, 2));
        // It has come there, which this pod has not heard yet.
        assert_eq!(answers(8, 4), (false, 2));
        assert_eq!((mailbox.take(), mailbox.take()), (Some(1), None));
        // A room that is gone, or that the user has been taken out of, knows no read position.
        let gone = Contribution::default();
        assert!(watched.recounted(&encode("x"), gone));
    }

    #[test]
    fn what_supergroups_add_is_shown_once_in_a_window() {
        let (watched, mailbox) = read_once(&["x", "y"]);
        let now = Instant::now();
        let shows = |number, now| watched.show_recounted(number, WINDOW, now).unwrap();
        // Within the window of the read: as one when it is over.
        let [x, y] = ["x", "y"].map(|room| asks(&watched, room).unwrap());
        adds(&watched, "x", 1);
        adds(&watched, "y", 2);
        let ends = shows(x, now).unwrap();
        assert!(ends > now && shows(y, now).is_none());
        assert_eq!((mailbox.take(), messages_shown(&watched)), (None, 0));
        assert_eq!(watched.show_later(WINDOW, ends).unwrap(), None);
        assert_eq!((mailbox.take(), messages_shown(&watched)), (Some(1), 3));
        // In one look, when it is over: at once, and as one.
        let next = ends + WINDOW;
        let [x, y] = ["x", "y"].map(|room| asks(&watched, room).unwrap());
        adds(&watched, "x", 3);
        adds(&watched, "y", 4);
        assert!(shows(x, next).is_none() && shows(y, next).is_none());
        assert_eq!((mailbox.take(), messages_shown(&watched)), (Some(1), 7));
        // A read comes before that: it has shown everything.
        let x = asks(&watched, "x").unwrap();
        adds(&watched, "x", 4);
        let ends = shows(x, next).unwrap();
        let (number, _) = watched.begin_read(WINDOW);
        watched.shows(number, Shown::default());
        assert_eq!(mailbox.take(), Some(1));
        assert_eq!(watched.show_later(WINDOW, ends).unwrap(), None);
        assert_eq!(mailbox.take(), None);
    }
}
