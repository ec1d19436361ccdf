//! Set-ups that many tests share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::client::App;
use super::config::Config;
use super::pod::Pod;
use super::redis_server::RedisServer;

/// More than there are tests that call [`app`].
const SHARED_APPS: usize = 256;

/// One Redis and one pod for all tests of this process that need nothing special; each test has an app of its own.
pub(super) struct Shared {
    pub(super) pod: Pod,
    pub(super) config: Config,
    handed_out: AtomicUsize,
    /// The log is shown once, however many clients a failing test drops.
    pub(super) shown: AtomicBool,
    pub(super) redis: RedisServer,
}

/// Weak, so that the last test to end also ends the servers: a static is never dropped.
static SHARED: Mutex<Weak<Shared>> = Mutex::new(Weak::new());

/// A fresh app on the shared pod.
pub fn app() -> App {
    // A test that panicked while starting the servers must not fail the others by poisoning.
    let mut slot = SHARED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let shared = slot.upgrade().unwrap_or_else(|| {
        let redis = RedisServer::start();
        let config = Config::apps(SHARED_APPS);
        let pod = Pod::start(&config, &redis);
        Arc::new(Shared {
            pod,
            config,
            handed_out: AtomicUsize::new(0),
            shown: AtomicBool::new(false),
            redis,
        })
    });
    *slot = Arc::downgrade(&shared);
    drop(slot);
    let n = shared.handed_out.fetch_add(1, Ordering::Relaxed);
    let keys = shared
        .config
        .apps
        .get(n)
        .expect("raise SHARED_APPS")
        .clone();
    App::of_shared(&keys, shared)
}

/// A Redis, a pod and one app that no other test uses.
pub struct Own {
    pub app: App,
    pub pod: Pod,
    pub config: Config,
    pub redis: RedisServer,
}

impl Own {
    /// With more TOML in the configuration, or none.
    pub fn start(extra: &str) -> Self {
        let mut config = Config::apps(1);
        config.extra = extra.to_owned();
        Self::with(config)
    }

    /// With that configuration.
    pub fn with(config: Config) -> Self {
        Self::on(RedisServer::start(), config)
    }

    /// With that configuration, on that Redis.
    pub fn on(redis: RedisServer, config: Config) -> Self {
        let pod = Pod::start(&config, &redis);
        let app = App::new(&config.apps[0], &pod.base);
        Self {
            app,
            pod,
            config,
            redis,
        }
    }

    /// The app, the pod and the Redis. The pod ends when it is dropped.
    pub fn parts(self) -> (App, Pod, RedisServer) {
        (self.app, self.pod, self.redis)
    }
}
