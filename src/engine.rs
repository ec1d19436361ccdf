//! The counts: services over Redis, each with what it uses. Types of Redis stay behind this module and `audit`.
//!
//! ```text
//! Writer → Reader, Delivery → limits, members, faults, reply → connection, scripts, keys
//! ```
//!
//! [`Delivery`](deliver::Delivery) reports what users' slots refuse; the [`Writer`] acts on that. The [`Reader`] writes nothing.

mod admission;
mod announce;
mod deliver;
mod durable;
mod faults;
mod health;
mod limits;
mod members;
mod read;
mod recover;
pub(crate) mod reply;
pub(crate) mod snapshot;
mod trim;
mod write;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::config::{Config, Durability};
use crate::connection::Redis;
use crate::error::{Error, Result};
use crate::telemetry::metrics::Metrics;

pub use crate::connection::this_is_a_worker;
pub use health::{Health, Probe, Standing};
pub use limits::Limits;
pub use read::Reader;
pub use read::rooms::{PrefQuery, RoomBrief, RoomQuery, SortBy};
pub use write::Writer;

pub(crate) use deliver::Tell;

/// The services of one process. A cheap handle; clones share connections.
#[derive(Clone)]
pub struct Engine {
    /// Answers what is asked of the counts.
    pub reader: Arc<Reader>,
    /// Takes events in.
    pub writer: Writer,
    /// The limits of the vendor endpoints.
    pub limits: Limits,
    /// Asks Redis how it is.
    pub health: Health,
    pub(crate) redis: Redis,
}

/// Deliveries under way that nobody waits for.
const BACKGROUND: usize = 256;

impl Engine {
    /// Prepares the connections (made when first used) and starts the sweep for unfinished fan-outs. Wants a tokio runtime.
    pub async fn connect(config: &Config, metrics: Arc<Metrics>) -> Result<Self> {
        let engine = Self::observe(config, metrics)?;
        tokio::spawn(recover::run(engine.writer.downgrade()));
        Ok(engine)
    }

    /// Prepares the connections and nothing else: for commands that look at the data from beside the pods.
    pub fn observe(config: &Config, metrics: Arc<Metrics>) -> Result<Self> {
        let url = config.redis.url.as_ref().map(|url| url.0.as_str());
        let url = url.ok_or_else(|| Error::Internal("no address of redis is set".into()))?;
        let redis = Redis::new(&config.redis, url, Arc::clone(&metrics))?;
        let durable = (config.redis.durability == Durability::Wait).then(|| {
            let timeout = Duration::from_millis(config.redis.durability_timeout_ms);
            durable::Durable::start(redis.clone(), config.redis.durability_replicas, timeout)
        });
        let admission =
            admission::Admission::new(&config.server, &config.apps, Arc::clone(&metrics));
        let admission = Arc::new(admission);
        let faults = faults::Faults::new(Arc::clone(&metrics));
        let lists = Arc::new(members::MemberLists::new());
        let limits = Limits::new(redis.clone());
        let background = Arc::new(Semaphore::new(BACKGROUND));
        let reader = Arc::new(Reader::new(
            redis.clone(),
            Arc::clone(&admission),
            limits.clone(),
            Arc::clone(&lists),
            faults.clone(),
        ));
        let writer = Writer::new(write::Inner {
            admission,
            announcer: announce::Announcer::new(redis.clone()),
            reader: Arc::clone(&reader),
            delivery: deliver::Delivery::new(
                redis.clone(),
                lists,
                faults.clone(),
                Arc::clone(&metrics),
            ),
            trimmer: trim::Trimmer {
                redis: redis.clone(),
                background: Arc::clone(&background),
                faults: faults.clone(),
            },
            history: write::History::new(&config.history),
            direct_rooms: (config.apps.iter())
                .map(|app| (app.id.clone(), app.direct_room_ids()))
                .collect(),
            background,
            durable,
            faults,
            metrics,
            redis: redis.clone(),
        });
        Ok(Self {
            reader,
            writer,
            limits,
            health: Health::new(redis.clone()),
            redis,
        })
    }
}
