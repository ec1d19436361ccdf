//! One stream: whom it watches, and who of them has changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::mailbox::Mailbox;
use super::watched::Watched;
use super::{Hub, Watching, lock};
use crate::engine::read::Shown;
use crate::keys::UserKeys;
use crate::names::UserId;

/// One stream. When it is dropped, it watches nobody any more.
pub(crate) struct Watcher {
    hub: Arc<Hub>,
    watching: Arc<Watching>,
    stream: u64,
    /// Whether it is of a user's own device.
    is_own: bool,
    mailbox: Arc<Mailbox>,
    last_name: u32,
    names: HashMap<UserId, u32>,
    users: HashMap<u32, Subject>,
}

struct Subject {
    watched: Arc<Watched>,
    /// The first read that it may show.
    since: u64,
}

/// A stream watches as many users as it may, or a user has as many streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Watcher {
    pub(super) fn new(hub: Arc<Hub>, watching: Arc<Watching>, stream: u64, is_own: bool) -> Self {
        Self {
            hub,
            watching,
            stream,
            is_own,
            mailbox: Arc::default(),
            last_name: 0,
            names: HashMap::new(),
            users: HashMap::new(),
        }
    }

    pub(super) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
    }

    /// Watches a user, with or without rooms. Answers by what name [`Self::poll_changed`] will tell of the user; none: the stream
    /// watches that user already.
    pub(crate) fn watch(&mut self, user: &UserId, rooms: bool) -> Result<Option<u32>, TooMany> {
        if self.names.contains_key(user) {
            return Ok(None);
        }
        if self.names.len() >= self.hub.max_users {
            return Err(TooMany);
        }
        self.last_name += 1;
        let name = self.last_name;
        let channel: Arc<str> = UserKeys::of(&self.watching.app, user).live().into();
        let mut is_new = false;
        let (watched, since) = {
            let mut users = lock(&self.watching.users);
            let most = self.hub.max_streams_per_user;
            if self.is_own
                && users
                    .get(&channel)
                    .is_some_and(|one| one.own_streams() >= most)
            {
                return Err(TooMany);
            }
            let watched = users.entry(channel).or_insert_with_key(|channel| {
                is_new = true;
                Arc::new(Watched::new(user.clone(), Arc::clone(channel)))
            });
            let since = watched.join(self.stream, self.mailbox(), name, rooms, self.is_own);
            if is_new && let Some(subscriptions) = self.hub.subscriptions.get() {
                // Under the lock, so that the end of another stream can't come between.
                subscriptions.add(&watched.channel);
            }
            (Arc::clone(watched), since)
        };
        self.watching.enqueue(&watched);
        self.names.insert(user.clone(), name);
        self.users.insert(name, Subject { watched, since });
        Ok(Some(name))
    }

    /// Watches a user no more. Answers what the user was called.
    pub(crate) fn leave(&mut self, user: &UserId) -> Option<u32> {
        let name = self.names.remove(user)?;
        if let Some(subject) = self.users.remove(&name) {
            self.forget(&subject.watched);
        }
        Some(name)
    }

    fn forget(&self, watched: &Watched) {
        let mut users = lock(&self.watching.users);
        if watched.leave(self.stream) {
            users.remove(&watched.channel);
            if watched.may_be_unknown() {
                lock(&self.watching.left).push(watched.user.clone());
                self.watching.wake.notify_one();
            }
            let Some(subscriptions) = self.hub.subscriptions.get() else {
                return;
            };
            // Under the lock, so that the begin of another stream can't come between.
            subscriptions.remove(&watched.channel);
            drop(users);
            self.watching.rooms.forget(watched, subscriptions);
        }
    }

    /// The next of the watched users who has changed, or was read for the first time: the name and what there is to show.
    pub(crate) fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<(u32, Arc<Shown>)> {
        self.mailbox.wakes(cx);
        while let Some(name) = self.mailbox.take() {
            let subject = self.users.get(&name);
            let shown = subject.and_then(|subject| subject.watched.newest(subject.since));
            if let Some(shown) = shown {
                return Poll::Ready((name, shown));
            }
        }
        Poll::Pending
    }

    /// Who it is that the stream knows by this name.
    pub(crate) fn user(&self, name: u32) -> Option<&UserId> {
        self.users.get(&name).map(|subject| &subject.watched.user)
    }

    /// When the stream has to end, if the pod is about to stop.
    pub(crate) fn leaves(&self) -> Option<Instant> {
        self.mailbox.leaves()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        for subject in std::mem::take(&mut self.users).into_values() {
            self.forget(&subject.watched);
        }
        self.watching.streams.fetch_sub(1, Ordering::Relaxed);
        let mut streams = lock(&self.hub.streams);
        streams.remove(&self.stream);
        let count = streams.len();
        drop(streams);
        self.hub.metrics.live_streams(count);
    }
}
