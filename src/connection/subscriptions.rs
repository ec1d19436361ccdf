//! Subscriptions to sharded channels: one connection to each server that has any, over which nothing else goes. Each channel is
//! subscribed at the server that has its slot. The connections of the `redis` crate can't do that: their RESP2 knows no messages of
//! sharded channels, and none of them subscribes anew when a server says that it has given a slot away.
//!
//! - `post`: the connection to one server, made again for as long as it has channels.
//! - `wire`: what a server says on it.
//!
//! The [`Listener`] hears what comes on a channel, and also whenever a channel has been subscribed, anew or for the first time: what
//! was said until then is lost, so it has to look for itself.

mod post;
mod wire;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use self::post::Post;
use super::node::Node;
use super::{Redis, Topology, cluster_slot};

/// Between two looks at which server has what, unless something asks for one.
const EVERY: Duration = Duration::from_millis(500);
/// Between two such looks at least.
const PAUSE: Duration = Duration::from_millis(10);

/// Who hears.
pub(crate) trait Listener: Send + Sync {
    /// This was said on a channel.
    fn heard(&self, channel: &str, what: &str);
    /// From now on the channel is heard.
    fn subscribed(&self, channel: &str);
}

/// The channels that are wanted, and the connections on which they are heard.
#[derive(Clone)]
pub(crate) struct Subscriptions(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    wake: Notify,
    /// Whether slots may have moved.
    moved: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The channels, each with the name of the server at which it is subscribed; none: at no one's yet.
    channels: HashMap<Arc<str>, Option<Arc<str>>>,
    /// Those that have no server yet.
    unplaced: Vec<Arc<str>>,
    posts: HashMap<Arc<str>, Arc<Post>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriptions {
    /// Hears a channel from soon on. The listener is told when.
    pub(crate) fn add(&self, channel: &Arc<str>) {
        let mut state = self.0.state();
        if !state.channels.contains_key(channel) {
            state.channels.insert(Arc::clone(channel), None);
            state.unplaced.push(Arc::clone(channel));
            drop(state);
            self.0.wake.notify_one();
        }
    }

    /// Hears a channel no more.
    pub(crate) fn remove(&self, channel: &Arc<str>) {
        let mut state = self.0.state();
        if let Some(Some(at)) = state.channels.remove(channel)
            && let Some(post) = state.posts.get(&at)
        {
            post.remove(channel);
        }
    }

    /// Whether a channel is heard, as far as is known.
    pub(crate) fn hears(&self, channel: &str) -> bool {
        let state = self.0.state();
        let at = state.channels.get(channel).and_then(Option::as_ref);
        let post = at.and_then(|at| state.posts.get(at));
        post.is_some_and(|post| post.hears(channel))
    }

    /// How long ago the server was last heard that has been silent for longest; none: there is nothing to hear.
    pub(crate) fn silence(&self) -> Option<Duration> {
        let state = self.0.state();
        state.posts.values().map(|post| post.silence()).max()
    }
}

impl Redis {
    /// Prepares subscriptions; a connection is made with the first channel. Needs a tokio runtime.
    pub(crate) fn subscriptions(&self, listener: Arc<dyn Listener>) -> Subscriptions {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Notify::new(),
            moved: AtomicBool::new(false),
        });
        let keeper = Keeper {
            redis: self.clone(),
            listener,
            shared: Arc::clone(&shared),
        };
        tokio::spawn(keeper.run());
        Subscriptions(shared)
    }

    /// The server that has a slot, as far as is known now.
    fn serves_now(&self, slot: u16) -> Option<Arc<Node>> {
        match &self.inner.topology {
            Topology::One(node) => Some(Arc::clone(node)),
            Topology::Cluster(cluster) => cluster.known_owner(slot),
            Topology::Sentinel(sentinel) => sentinel.current(),
        }
    }

    /// Takes note of a redirect that a subscription was answered with.
    fn redirected(&self, from: &Node, address: &str, slot: u16) {
        if let Topology::Cluster(cluster) = &self.inner.topology {
            cluster.redirected(from, address, Some(slot));
        }
    }
}

/// Places channels at servers, and moves them when their slots have moved.
struct Keeper {
    redis: Redis,
    listener: Arc<dyn Listener>,
    shared: Arc<Shared>,
}

impl Keeper {
    async fn run(self) {
        let mut looked = Instant::now();
        loop {
            let _ = tokio::time::timeout(EVERY, self.shared.wake.notified()).await;
            if self.shared.moved.swap(false, Ordering::Relaxed) || looked.elapsed() >= EVERY {
                looked = Instant::now();
                self.unplace();
            }
            self.place();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Takes the channels from servers that do not have their slots any more.
    fn unplace(&self) {
        let mut state = self.shared.state();
        let state = &mut *state;
        for (channel, at) in &mut state.channels {
            let Some(name) = at else { continue };
            if self
                .serves(channel)
                .is_some_and(|node| *node.name == **name)
            {
                continue;
            }
            if let Some(post) = state.posts.get(name) {
                post.remove(channel);
            }
            *at = None;
            state.unplaced.push(Arc::clone(channel));
        }
    }

    /// Gives the channels servers that have none.
    fn place(&self) {
        let mut state = self.shared.state();
        let state = &mut *state;
        let mut lost = false;
        for channel in std::mem::take(&mut state.unplaced) {
            let Some(at) = state.channels.get_mut(&channel).filter(|at| at.is_none()) else {
                continue;
            };
            let Some(node) = self.serves(&channel) else {
                lost = true;
                state.unplaced.push(channel);
                continue;
            };
            let name: Arc<str> = node.name.as_str().into();
            let post = state.posts.entry(Arc::clone(&name)).or_insert_with(|| {
                let wake = Arc::clone(&self.shared);
                Post::start(
                    self.redis.clone(),
                    node,
                    Arc::clone(&self.listener),
                    move || {
                        wake.moved.store(true, Ordering::Relaxed);
                        wake.wake.notify_one();
                    },
                )
            });
            post.add(&channel);
            *at = Some(name);
        }
        state.posts.retain(|_, post| !post.ends_if_idle());
        if lost {
            self.redis.refresh();
        }
    }

    fn serves(&self, channel: &str) -> Option<Arc<Node>> {
        self.redis.serves_now(cluster_slot::of(channel.as_bytes()))
    }
}
