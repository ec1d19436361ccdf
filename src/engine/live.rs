//! Users whose counts are watched: what a stream shows of them is the newest that was read, and whatever changes them has them
//! read again. Nothing is queued for a stream but the names of the users that have changed, so memory is bounded by who is
//! watched.
//!
//! A change is noticed in two ways. The script that makes it says so on the user's channel ([`crate::connection`]), if the mark
//! of the watched is set in the user's slot (`lua/user_watch.lua` sets it with each read). And whatever has not been read for a
//! while is read again: so what was not heard, because a connection broke, a server died or a slot moved, is seen within
//! [`LATEST`] all the same. A channel is subscribed first, then the mark is set, then the counts are read: in this order nothing
//! falls between.
//!
//! A message to a supergroup changes the slots only of its sender and of whom it names. So a pod also hears of the supergroups
//! that its watched users are in, in the same way. It asks the room for its contribution to the totals of all of them, by their
//! records of the room that it read last. Whatever changes such a record is said on the user's own channel. The pod reads a
//! user as a whole if a stream watches the user with rooms.
//!
//! A task that holds one of these locks takes only those that stand after it: the streams of the pod, a user's rooms, the supergroups
//! of the app, the users of the app, a user's state, a stream's mailbox; and last the subscriptions' own. Nobody holds another
//! one while looking up who is due.
//!
//! - `rooms`: the supergroups of watched users. `look`: what they are asked when they have changed.
//! - `watched`: one watched user.
//! - `watcher`: one stream. `mailbox`: what it is told by others.
//! - `by_time`: what waits for its time.

mod by_time;
mod look;
mod mailbox;
mod rooms;
mod watched;
mod watcher;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::by_time::ByTime;
use self::mailbox::Mailbox;
use self::rooms::Rooms;
use self::watched::Watched;
use crate::config::LiveConfig;
use crate::connection::{Listener, Redis, Subscriptions};
use crate::engine::onlookers::Onlookers;
use crate::engine::read::{Followed, Reader};
use crate::keys::{self, ONLOOKERS, Owner, UserKeys};
use crate::names::{AppId, UserId};
use crate::telemetry::metrics::Metrics;

pub(crate) use watcher::{TooMany, Watcher};

/// A watched user is read again after this time at the earliest.
const EARLIEST: Duration = Duration::from_secs(9);
/// A watched user is read again after this time at the latest.
pub(super) const LATEST: Duration = Duration::from_secs(12);
/// A user is read again after this time who is watched only since lately: other pods may not know yet that the app has streams.
const YOUNG: Duration = Duration::from_secs(1);
/// A read that has failed is made again after this time.
const RETRY: Duration = Duration::from_millis(500);
/// Between two sweeps for who has not been read for a while.
const SWEEP: Duration = Duration::from_millis(250);
const SECOND: Duration = Duration::from_secs(1);
/// How many users are read at once; also how many supergroups one look takes, and how many questions go together.
const BATCH: usize = 128;

/// Why there is no further stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoStream {
    /// The pod, or the app, has as many as it may have.
    Full,
    /// The pod is about to stop.
    Draining,
}

/// The streams of this pod, and whom they watch. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Live(Arc<Hub>);

struct Hub {
    onlookers: Arc<Onlookers>,
    /// An app has its first stream.
    begins: Notify,
    reader: Arc<Reader>,
    metrics: Arc<Metrics>,
    subscriptions: OnceLock<Subscriptions>,
    window: Duration,
    max_streams: usize,
    max_streams_per_app: usize,
    max_streams_per_user: usize,
    max_users: usize,
    apps: HashMap<AppId, Arc<Watching>>,
    streams: Mutex<HashMap<u64, Arc<Mailbox>>>,
    last_stream: AtomicU64,
    draining: AtomicBool,
}

/// What is watched of one app. Each app's users are read by a task of its own, so that one app's don't hold up another's.
struct Watching {
    app: AppId,
    /// By their channels.
    users: Mutex<HashMap<Arc<str>, Arc<Watched>>>,
    /// The supergroups that they are in.
    rooms: Rooms,
    /// Who is to be read, each once.
    due: Mutex<Vec<Arc<Watched>>>,
    /// Who is watched no more, and may be unknown.
    left: Mutex<Vec<UserId>>,
    wake: Notify,
    streams: AtomicUsize,
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    /// Prepares it, for a pod that may have so many connections. Needs a tokio runtime.
    pub(super) fn start(
        config: &LiveConfig,
        connections: usize,
        apps: Vec<AppId>,
        redis: &Redis,
        reader: Arc<Reader>,
        onlookers: Arc<Onlookers>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let LiveConfig {
            max_streams,
            max_streams_per_app,
            max_streams_per_user,
            max_users,
            window_ms,
            ..
        } = *config;
        let apps = apps.into_iter().map(|app| {
            let watching = Watching::new(app.clone());
            (app, Arc::new(watching))
        });
        // Calls that are no streams keep their part of the connections.
        let most = connections / 5 * 4;
        let hub = Arc::new(Hub {
            onlookers,
            begins: Notify::new(),
            reader,
            metrics,
            subscriptions: OnceLock::new(),
            window: Duration::from_millis(window_ms),
            max_streams: max_streams.min(most),
            max_streams_per_app,
            max_streams_per_user,
            max_users,
            apps: apps.collect(),
            streams: Mutex::default(),
            last_stream: AtomicU64::new(0),
            draining: AtomicBool::new(false),
        });
        let listener: Arc<dyn Listener> = Arc::clone(&hub) as _;
        let subscriptions = redis.subscriptions(listener);
        subscriptions.add(&ONLOOKERS.into());
        let _ = hub.subscriptions.set(subscriptions);
        for watching in hub.apps.values() {
            tokio::spawn(Arc::clone(&hub).run(Arc::clone(watching)));
        }
        tokio::spawn(Arc::clone(&hub).report());
        Self(hub)
    }

    /// A further stream of an app, which watches nobody yet. `is_own`: it is of a user's own device.
    pub(crate) fn open(&self, app: &AppId, is_own: bool) -> Result<Watcher, NoStream> {
        let hub = &self.0;
        if hub.draining.load(Ordering::Acquire) {
            return Err(NoStream::Draining);
        }
        let watching = hub.apps.get(app).ok_or(NoStream::Full)?;
        let of_app = watching.streams.fetch_add(1, Ordering::Relaxed);
        if of_app == 0 {
            hub.onlookers.note(app.as_str());
            hub.begins.notify_one();
        }
        // From here on its drop counts it out again.
        let id = hub.last_stream.fetch_add(1, Ordering::Relaxed);
        let watcher = Watcher::new(Arc::clone(hub), Arc::clone(watching), id, is_own);
        let mut streams = lock(&hub.streams);
        if of_app >= hub.max_streams_per_app || streams.len() >= hub.max_streams {
            drop(streams);
            return Err(NoStream::Full);
        }
        streams.insert(id, watcher.mailbox());
        let count = streams.len();
        drop(streams);
        hub.metrics.live_streams(count);
        // The pod may have been told to stop meanwhile.
        match hub.draining.load(Ordering::Acquire) {
            true => Err(NoStream::Draining),
            false => Ok(watcher),
        }
    }

    /// From now on there is no further stream, and those that there are end one by one within this time.
    pub(crate) fn drain(&self, within: Duration) {
        self.0.draining.store(true, Ordering::Release);
        let streams = lock(&self.0.streams);
        let count = u32::try_from(streams.len()).unwrap_or(u32::MAX).max(1);
        let now = Instant::now();
        for (n, mailbox) in (0_u32..).zip(streams.values()) {
            // Evenly, in the order of the map, which is a random one.
            mailbox.leave_at(now + within / count * n);
        }
    }
}

impl Listener for Hub {
    fn heard(&self, channel: &str, what: &str) {
        if channel == ONLOOKERS {
            return self.onlookers.note(what);
        }
        self.metrics.live_notice();
        self.is_due(channel);
    }

    fn subscribed(&self, channel: &str) {
        self.is_due(channel);
    }
}

impl Hub {
    /// Has the user with this channel read, or those that are in the room with this channel.
    fn is_due(&self, channel: &str) {
        match keys::parse_key(channel) {
            Some((Owner::User(app, _), _)) => {
                let watching = self.apps.get(&app);
                let user =
                    watching.and_then(|watching| lock(&watching.users).get(channel).cloned());
                if let (Some(watching), Some(user)) = (watching, user) {
                    watching.enqueue(&user);
                }
            }
            Some((Owner::Room(app, _), _)) => {
                if let Some(watching) = self.apps.get(&app)
                    && watching.rooms.becomes_due(channel)
                {
                    watching.wake.notify_one();
                }
            }
            None => {}
        }
    }

    /// Reads an app's watched users, when they have changed and from time to time: each as soon as it has changed, but once in a
    /// window at most. Supergroups are looked at once in a window.
    async fn run(self: Arc<Self>, watching: Arc<Watching>) {
        let mut swept = Instant::now();
        // Who has changed within a window, and is read when it is over.
        let mut waiting = ByTime::default();
        // Who is shown then what supergroups have added within a window.
        let mut later = ByTime::default();
        let mut rooms_at = swept;
        loop {
            let is_idle = lock(&watching.users).is_empty();
            let rooms = watching.rooms.next().map(|at| at.max(rooms_at));
            let next = [waiting.next(), later.next(), rooms];
            let next = next.into_iter().flatten().min();
            let wake = watching.wake.notified();
            match is_idle && next.is_none() {
                true => wake.await,
                false => {
                    let swept = swept + SWEEP;
                    let next = next.map_or(swept, |next| next.min(swept));
                    drop(tokio::time::timeout_at(next, wake).await);
                }
            }
            let now = Instant::now();
            if swept + SWEEP <= now {
                swept = now;
                watching.sweep(now);
            }
            self.unwatch(&watching).await;
            if rooms_at <= now && watching.rooms.next().is_some_and(|at| at <= now) {
                rooms_at = now + self.window;
                self.look_at_rooms(&watching, &mut later, now).await;
            }
            self.show_later(&watching, &mut later, now);
            let mut ready = Vec::new();
            let due = std::mem::take(&mut *lock(&watching.due));
            for watched in due {
                let at = watched.may_be_read_at(now);
                if at <= now {
                    ready.push(watched);
                } else {
                    waiting.add(at, watched);
                }
            }
            ready.extend(std::iter::from_fn(|| waiting.take(now)));
            // Nobody may watch a user any more.
            ready.retain(|watched| watched.streams() > 0);
            for batch in ready.chunks(BATCH) {
                self.read(&watching, batch).await;
            }
        }
    }

    /// Sees to it that nothing is left of unknown users whom no stream watches any more.
    async fn unwatch(&self, watching: &Watching) {
        let mut left = std::mem::take(&mut *lock(&watching.left));
        left.retain(|user| {
            let channel = UserKeys::of(&watching.app, user).live();
            !lock(&watching.users).contains_key(channel.as_str())
        });
        for batch in left.chunks(BATCH) {
            self.reader.unwatch(&watching.app, batch).await;
        }
    }

    async fn read(&self, watching: &Watching, batch: &[Arc<Watched>]) {
        let begun = batch.iter().map(|watched| watched.begin_read(self.window));
        let begun: Vec<_> = begun.collect();
        let users: Vec<_> = batch
            .iter()
            .zip(&begun)
            .map(|(watched, (_, rooms))| (watched.user.clone(), *rooms))
            .collect();
        let answers = match self.reader.watch(&watching.app, users).await {
            Ok(answers) => answers,
            Err(error) => {
                self.reader.complain(&error);
                for watched in batch {
                    watched.could_not_be_read(Instant::now() + RETRY);
                }
                return;
            }
        };
        for ((watched, (number, _)), answer) in batch.iter().zip(begun).zip(answers) {
            match answer {
                Ok((shown, supergroups)) => {
                    let pause = match watched.is_young() {
                        true => YOUNG,
                        false => {
                            EARLIEST + (LATEST - EARLIEST).mul_f64(rand::random_range(0.0..1.0))
                        }
                    };
                    watched.was_read(Instant::now() + pause);
                    watched.shows(number, shown);
                    self.follow(watching, watched, supergroups);
                }
                Err(error) => {
                    self.reader.complain(&error);
                    watched.could_not_be_read(Instant::now() + RETRY);
                }
            }
        }
    }

    /// Hears of the supergroups that a watched user is in.
    fn follow(&self, watching: &Watching, watched: &Arc<Watched>, supergroups: Vec<Followed>) {
        let Some(subscriptions) = self.subscriptions.get() else {
            return;
        };
        let is_watched = || watching.watches(watched);
        // What has changed in a room between the read and now was told to the others in it.
        if watching.rooms.follow(
            &watching.app,
            watched,
            supergroups,
            is_watched,
            subscriptions,
        ) {
            watching.enqueue(watched);
        }
    }

    /// Says once a second which apps have streams here, and keeps up to date what nothing else does.
    async fn report(self: Arc<Self>) {
        loop {
            let _ = tokio::time::timeout(SECOND, self.begins.notified()).await;
            let streams = self.apps.values();
            let streams = streams.filter(|app| app.streams.load(Ordering::Relaxed) > 0);
            let streams: Vec<&AppId> = streams.map(|watching| &watching.app).collect();
            if !streams.is_empty() {
                for app in &streams {
                    self.onlookers.note(app.as_str());
                }
                // Said again in a second; the link logs what is wrong.
                let _ = self.reader.tell_onlookers(&streams).await;
            }
            let Some(subscriptions) = self.subscriptions.get() else {
                continue;
            };
            self.onlookers.hears(subscriptions.hears(ONLOOKERS));
            let silence = subscriptions.silence();
            self.metrics.live_silence(silence.unwrap_or_default());
            for watching in self.apps.values() {
                if watching.rooms.sweep(Instant::now()) {
                    watching.wake.notify_one();
                }
            }
            let watched = self.apps.values().map(|app| lock(&app.users).len());
            self.metrics.live_users(watched.sum());
        }
    }
}

impl Watching {
    fn new(app: AppId) -> Self {
        Self {
            app,
            users: Mutex::default(),
            rooms: Rooms::default(),
            due: Mutex::default(),
            wake: Notify::new(),
            left: Mutex::default(),
            streams: AtomicUsize::new(0),
        }
    }

    /// Whether a stream watches the user, as this one: who was watched before and is watched again is another one.
    fn watches(&self, watched: &Arc<Watched>) -> bool {
        let users = lock(&self.users);
        let one = users.get(&watched.channel);
        one.is_some_and(|one| Arc::ptr_eq(one, watched))
    }

    /// Has a user read, once, however often this is called before it is.
    fn enqueue(&self, watched: &Arc<Watched>) {
        if watched.becomes_due() {
            lock(&self.due).push(Arc::clone(watched));
            self.wake.notify_one();
        }
    }

    /// Has those read that have not been for a while.
    fn sweep(&self, now: Instant) {
        let old: Vec<_> = lock(&self.users)
            .values()
            .filter(|watched| watched.is_old(now))
            .cloned()
            .collect();
        for watched in old {
            self.enqueue(&watched);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_who_was_watched_before_is_not_the_one_who_is_watched() {
        let watching = Watching::new(AppId::parse("a".to_owned()).unwrap());
        let user = UserId::parse("u".to_owned()).unwrap();
        let [before, now] =
            [(); 2].map(|()| Arc::new(Watched::new(user.clone(), Arc::from("channel"))));
        assert!(!watching.watches(&before));
        lock(&watching.users).insert(Arc::clone(&now.channel), Arc::clone(&now));
        assert!(watching.watches(&now) && !watching.watches(&before));
    }
}
