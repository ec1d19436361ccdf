//! The supergroups that watched users are in. A change of one concerns all of them, so the more they are, the longer is the least
//! time between two looks at it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::by_time::ByTime;
use super::watched::{FollowedRoom, Watched};
use super::{EARLIEST, lock};
use crate::connection::Subscriptions;
use crate::engine::read::Followed;
use crate::keys::{Enc, RoomKeys};
use crate::names::AppId;

/// By so much the least time between two looks grows with each user.
const PER_USER: Duration = Duration::from_micros(100);
/// The longest that it can be.
const LONGEST: Duration = Duration::from_secs(1);

/// The supergroups of one app.
#[derive(Default)]
pub(super) struct Rooms(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// By their channels.
    rooms: HashMap<Arc<str>, WatchedRoom>,
    /// The channels of those that are due, by the time at which each may be looked at. A room may have left meanwhile.
    due: ByTime<Arc<str>>,
}

struct WatchedRoom {
    room: Enc,
    channel: Arc<str>,
    /// By their channels.
    users: HashMap<Arc<str>, Arc<Watched>>,
    due: bool,
    /// Before then it is not looked at again.
    not_before: Instant,
    /// Then its mark is set again, if it was not before.
    again: Instant,
}

/// Where channels are heard.
pub(super) trait Channels {
    fn add(&self, channel: &Arc<str>);
    fn remove(&self, channel: &Arc<str>);
}

impl Channels for Subscriptions {
    fn add(&self, channel: &Arc<str>) {
        Self::add(self, channel);
    }

    fn remove(&self, channel: &Arc<str>) {
        Self::remove(self, channel);
    }
}

/// A room that has changed, and whom that concerns.
pub(super) struct Due {
    pub(super) room: Enc,
    channel: Arc<str>,
    pub(super) users: Vec<Arc<Watched>>,
}

impl WatchedRoom {
    /// It is due from now on, among these. Whether it was not before.
    fn becomes_due(&mut self, due: &mut ByTime<Arc<str>>) -> bool {
        let is_new = !std::mem::replace(&mut self.due, true);
        if is_new {
            due.add(self.not_before, Arc::clone(&self.channel));
        }
        is_new
    }
}

impl Rooms {
    /// A room has changed. Whether it is known here, and was not due before.
    pub(super) fn becomes_due(&self, channel: &str) -> bool {
        let Held { rooms, due } = &mut *lock(&self.0);
        let room = rooms.get_mut(channel);
        room.is_some_and(|room| room.becomes_due(due))
    }

    /// When the first of them may be looked at that are due; none: none is.
    pub(super) fn next(&self) -> Option<Instant> {
        lock(&self.0).due.next()
    }

    /// Has the marks set again that may be lost. Whether there are any.
    pub(super) fn sweep(&self, now: Instant) -> bool {
        let Held { rooms, due } = &mut *lock(&self.0);
        let mut any = false;
        for room in rooms.values_mut().filter(|room| room.again <= now) {
            any |= room.becomes_due(due);
        }
        any
    }

    /// Some of the rooms that are due, and whose time has come.
    pub(super) fn take_due(&self, now: Instant, most: usize) -> Vec<Due> {
        let Held { rooms, due } = &mut *lock(&self.0);
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(channel) = due.take(now)
        {
            // It may have left, or wait for a later time as well.
            let Some(room) = rooms.get_mut(&channel) else {
                continue;
            };
            if !room.due || room.not_before > now {
                continue;
            }
            room.due = false;
            let users = u32::try_from(room.users.len()).unwrap_or(u32::MAX);
            room.not_before = now + PER_USER.saturating_mul(users).min(LONGEST);
            room.again = now + EARLIEST;
            taken.push(Due {
                room: room.room.clone(),
                users: room.users.values().cloned().collect(),
                channel,
            });
        }
        taken
    }

    /// These could not be looked at.
    pub(super) fn again(&self, due: &[Due], not_before: Instant) {
        let Held {
            rooms,
            due: waiting,
        } = &mut *lock(&self.0);
        for one in due {
            if let Some(room) = rooms.get_mut(&one.channel) {
                room.due = true;
                room.not_before = not_before;
                waiting.add(not_before, Arc::clone(&one.channel));
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
        subscriptions: &impl Channels,
    ) -> bool {
        let mut known = watched.rooms();
        if known.is_empty() && now_in.is_empty() {
            return false;
        }
        let now = Instant::now();
        let rooms = &mut lock(&self.0).rooms;
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
                            channel: Arc::clone(&channel),
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
        leave(rooms, watched, left, subscriptions);
        is_new
    }

    /// Nobody watches a user any more.
    pub(super) fn forget(&self, watched: &Watched, subscriptions: &impl Channels) {
        let mut known = watched.rooms();
        if !known.is_empty() {
            let left = std::mem::take(&mut *known);
            leave(&mut lock(&self.0).rooms, watched, left, subscriptions);
        }
    }
}

fn leave(
    rooms: &mut HashMap<Arc<str>, WatchedRoom>,
    watched: &Watched,
    left: BTreeMap<String, FollowedRoom>,
    subscriptions: &impl Channels,
) {
    for FollowedRoom { channel, .. } in left.into_values() {
        if let Some(room) = rooms.get_mut(&channel) {
            // The user may be watched again already, and be in the room as another one.
            let one = room.users.get(&watched.channel);
            if one.is_some_and(|one| std::ptr::eq(Arc::as_ptr(one), watched)) {
                room.users.remove(&watched.channel);
            }
            if room.users.is_empty() {
                rooms.remove(&channel);
                subscriptions.remove(&channel);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::engine::read::{Contribution, Supergroup};
    use crate::keys::{UserKeys, encode};
    use crate::names::UserId;

    #[derive(Default)]
    struct Heard(Mutex<std::collections::HashSet<Arc<str>>>);

    impl Channels for Heard {
        fn add(&self, channel: &Arc<str>) {
            lock(&self.0).insert(Arc::clone(channel));
        }

        fn remove(&self, channel: &Arc<str>) {
            lock(&self.0).remove(channel);
        }
    }

    fn app() -> AppId {
        AppId::parse("a".to_owned()).unwrap()
    }

    pub(in super::super) fn watched(user: &str) -> Arc<Watched> {
        let user = UserId::parse(user.to_owned()).unwrap();
        let channel: Arc<str> = UserKeys::of(&app(), &user).live().into();
        Arc::new(Watched::new(user, channel))
    }

    pub(in super::super) fn followed(room: &str) -> Followed {
        Followed {
            record: Arc::new(Supergroup::just_joined(room)),
            contribution: Contribution::default(),
        }
    }

    pub(in super::super) fn channel(room: &str) -> String {
        RoomKeys::new(&app(), &encode(room)).live()
    }

    fn names(due: &[Due]) -> Vec<&str> {
        due.iter().map(|due| due.room.as_str()).collect()
    }

    #[test]
    fn rooms_are_looked_at_in_the_order_in_which_their_times_come() {
        let (rooms, heard, user) = (Rooms::default(), Heard::default(), watched("u"));
        let now_in = ["x", "y", "z"].map(followed).into();
        rooms.follow(&app(), &user, now_in, || true, &heard);
        let start = Instant::now();
        assert!(rooms.next().is_none() && rooms.take_due(start, 9).is_empty());
        for room in ["y", "z", "x"] {
            assert!(rooms.becomes_due(&channel(room)));
            assert!(!rooms.becomes_due(&channel(room)), "it is due already");
        }
        assert!(!rooms.becomes_due(&channel("nobody is in it")));
        assert_eq!(names(&rooms.take_due(start, 2)), ["y", "z"]);
        // `y` has changed again: it waits for longer than `x` from before.
        assert!(rooms.becomes_due(&channel("y")));
        assert_eq!(names(&rooms.take_due(start, 9)), ["x"]);
        let next = rooms.next().unwrap();
        assert!(next > start && rooms.take_due(start, 9).is_empty());
        let due = rooms.take_due(next, 9);
        assert_eq!(names(&due), ["y"]);
        // It changed once more while it was looked at in vain.
        assert!(rooms.becomes_due(&channel("y")));
        let later = next + LONGEST * 2;
        rooms.again(&due, later);
        assert_eq!(rooms.take_due(later - PER_USER, 9).len(), 0);
        assert_eq!(names(&rooms.take_due(later, 9)), ["y"]);
        assert!(rooms.next().is_none());
        // Whose mark may be lost is looked at again.
        assert!(!rooms.sweep(start));
        assert!(rooms.sweep(later + EARLIEST));
        assert_eq!(rooms.take_due(later + EARLIEST, 9).len(), 3);
    }

    #[test]
    fn a_room_that_has_left_is_not_looked_at() {
        let (rooms, heard, user) = (Rooms::default(), Heard::default(), watched("u"));
        rooms.follow(&app(), &user, vec![followed("x")], || true, &heard);
        assert!(rooms.becomes_due(&channel("x")));
        rooms.forget(&user, &heard);
        let now = Instant::now();
        assert!(rooms.take_due(now, 9).is_empty() && rooms.next().is_none());
        assert!(lock(&heard.0).is_empty());
    }

    #[test]
    fn a_user_who_is_watched_again_keeps_what_the_one_before_lets_go_of() {
        let (rooms, heard) = (Rooms::default(), Heard::default());
        let [before, again] = [watched("u"), watched("u")];
        let now_in = || vec![followed("x")];
        rooms.follow(&app(), &before, now_in(), || true, &heard);
        rooms.follow(&app(), &again, now_in(), || true, &heard);
        rooms.forget(&before, &heard);
        assert_eq!(lock(&heard.0).len(), 1);
        assert!(rooms.becomes_due(&channel("x")));
        let due = rooms.take_due(Instant::now(), 9);
        assert!(Arc::ptr_eq(&due[0].users[0], &again));
    }
}
