//! The services that keep the counts and answer from them. Each one holds only the parts that it uses. Types of the `redis`
//! crate stay in this module and in `audit`.
//!
//! ```text
//! Writer → Reader, Delivery → limits, members, faults, reply → connection, scripts, keys
//! ```
//!
//! `Delivery` reports what users' slots refuse, and the [`Writer`] acts on that report. The [`Reader`]
//! writes nothing.

mod admission;
mod announce;
mod deliver;
mod durable;
mod faults;
mod health;
mod limits;
mod live;
mod members;
mod onlookers;
mod read;
mod recover;
pub(crate) mod reply;
pub(crate) mod snapshot;
mod trim;
mod write;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::config::{Config, Durability, LiveConfig};
use crate::connection::{self, Redis};
use crate::engine::admission::Admission;
use crate::engine::announce::Announcer;
use crate::engine::deliver::Delivery;
use crate::engine::durable::Durable;
use crate::engine::faults::Faults;
use crate::engine::members::MemberLists;
use crate::engine::onlookers::Onlookers;
use crate::engine::trim::Trimmer;
use crate::engine::write::{History, Inner};
use crate::error::{Error, Result};
use crate::names::AppId;
use crate::telemetry::metrics::Metrics;

pub(crate) use health::{Health, Probe, RedisState, SchemaState};
pub(crate) use limits::Limits;
pub(crate) use live::{Live, NoStream, TooMany, Watcher};
#[cfg(fuzzing)]
pub(crate) use read::rooms::set_pref;
pub(crate) use read::rooms::{PrefQuery, RoomBrief, RoomQuery, SortBy};
pub(crate) use read::{
    Concern, ConcernedTotals, MOST_CONCERNED, Reader, RoomRows, Shown, Supergroup, SupergroupReply,
};
pub(crate) use write::Writer;

pub(crate) use deliver::SingleDelivery;

/// The services of one process. Cheap to clone; clones share connections.
#[derive(Clone)]
pub(crate) struct Engine {
    /// Answers reads.
    pub reader: Arc<Reader>,
    /// Accepts events and delivers the jobs that follow from them.
    pub writer: Writer,
    /// The limits of the vendor endpoints.
    pub limits: Limits,
    /// Checks whether Redis can serve.
    pub health: Health,
    onlookers: Arc<Onlookers>,
    pub(crate) redis: Redis,
}

/// How many deliveries and trims run in the background at once, without a caller that waits for them.
const BACKGROUND: usize = 256;

impl Engine {
    /// Prepares the connections, which are opened when they are first used, and starts the sweep. Needs a tokio runtime.
    pub(crate) async fn connect(config: &Config, metrics: Arc<Metrics>) -> Result<Self> {
        let engine = Self::observe(config, metrics)?;
        engine.redis.begins_data();
        tokio::spawn(recover::run(engine.writer.downgrade()));
        Ok(engine)
    }

    /// Starts what streams of counts of these apps need, in a pod that may have so many connections. Needs a tokio runtime.
    pub(crate) fn live(
        &self,
        config: &LiveConfig,
        connections: usize,
        apps: Vec<AppId>,
        metrics: Arc<Metrics>,
    ) -> Live {
        let onlookers = Arc::clone(&self.onlookers);
        let reader = Arc::clone(&self.reader);
        Live::start(
            config,
            connections,
            apps,
            &self.redis,
            reader,
            onlookers,
            metrics,
        )
    }

    /// Prepares the connections without starting the sweep: for commands that inspect or repair the data while pods run.
    pub(crate) fn observe(config: &Config, metrics: Arc<Metrics>) -> Result<Self> {
        let url = config.redis.url.as_ref().map(|url| url.0.as_str());
        let url = url.ok_or_else(|| Error::Internal("no address of redis is set".into()))?;
        let redis = Redis::new(&config.redis, url, Arc::clone(&metrics))?;
        let admission = Admission::new(&config.server, &config.apps, Arc::clone(&metrics));
        let admission = Arc::new(admission);
        let faults = Faults::new(Arc::clone(&metrics));
        let apps = config.apps.iter().map(|app| &app.id);
        let onlookers = Arc::new(Onlookers::new(apps));
        let lists = Arc::new(MemberLists::new());
        let limits = Limits::new(redis.clone());
        let background = Arc::new(Semaphore::new(BACKGROUND));
        let reader = Arc::new(Reader::new(
            redis.clone(),
            Arc::clone(&admission),
            limits.clone(),
            Arc::clone(&lists),
            faults.clone(),
        ));
        let writer = Writer::new(Inner {
            admission,
            announcer: Announcer::new(redis.clone()),
            reader: Arc::clone(&reader),
            delivery: Delivery::new(
                redis.clone(),
                lists,
                faults.clone(),
                Arc::clone(&onlookers),
                Arc::clone(&metrics),
            ),
            trimmer: Trimmer {
                redis: redis.clone(),
                background: Arc::clone(&background),
                faults: faults.clone(),
            },
            history: History::new(&config.history),
            direct_rooms: (config.apps.iter())
                .map(|app| (app.id.clone(), app.direct_room_ids()))
                .collect(),
            background,
            durable: durable(config, &redis),
            faults,
            metrics,
            redis: redis.clone(),
        });
        Ok(Self {
            reader,
            writer,
            limits,
            health: Health::new(redis.clone()),
            onlookers,
            redis,
        })
    }
}

/// With durability `wait`: waits for replicas.
fn durable(config: &Config, redis: &Redis) -> Option<Durable> {
    let redis_config = &config.redis;
    (redis_config.durability == Durability::Wait).then(|| {
        let timeout = Duration::from_millis(redis_config.durability_timeout_ms);
        Durable::start(redis.clone(), redis_config.durability_replicas, timeout)
    })
}

/// Says that this thread is an HTTP worker, which is to have a connection of its own to each server.
pub(crate) fn this_is_a_worker() {
    connection::this_is_a_worker();
}
