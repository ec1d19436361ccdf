//! The state that every call sees.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::engine::{Engine, Limits, Live, Reader, Writer};
use crate::error::{Error, Result};
use crate::http::address::Refusals;
use crate::http::body::Bodies;
use crate::http::edge::Answers;
use crate::limiter::{Endpoint, Limiter};
use crate::telemetry::metrics::Metrics;

/// A dialect's index of credentials, of a type that only the dialect knows.
pub(crate) type Tenants = Box<dyn Any + Send + Sync>;

/// What all calls share. It is built once, before the workers start.
pub(crate) struct State {
    /// The whole configuration.
    pub config: Arc<Config>,
    /// Reads counts.
    pub reader: Arc<Reader>,
    /// Takes events in.
    pub writer: Writer,
    /// The streams of counts.
    pub live: Live,
    /// The part of the limits that all pods share.
    pub limits: Limits,
    /// The part of the limits of vendor endpoints that this pod keeps.
    pub limiter: Limiter,
    /// For each dialect, which app a credential belongs to.
    tenants: Vec<Tenants>,
    /// Counts refused credentials by address.
    pub refusals: Refusals,
    /// Reads bodies, and has the memory for them.
    pub bodies: Bodies,
    /// What is counted for `/metrics`.
    pub metrics: Arc<Metrics>,
    /// The memory that answers may hold until their peers have taken them.
    pub answers: Arc<Answers>,
}

impl State {
    /// The state of a pod: `endpoints` are those with a limit, `tenants` has each dialect's index of credentials.
    pub(crate) fn new(
        config: Arc<Config>,
        engine: Engine,
        live: Live,
        metrics: Arc<Metrics>,
        endpoints: &[Endpoint],
        tenants: Vec<Tenants>,
    ) -> Self {
        Self {
            limiter: Limiter::new(&config.apps, endpoints, Arc::clone(&metrics)),
            tenants,
            refusals: Refusals::new(&config.server),
            bodies: Bodies::new(
                config.server.max_bodies_bytes,
                config.apps.len(),
                Duration::from_millis(config.server.body_timeout_ms),
            ),
            answers: Arc::new(Answers::new(config.server.max_answers_bytes)),
            config,
            reader: engine.reader,
            writer: engine.writer,
            limits: engine.limits,
            live,
            metrics,
        }
    }

    /// A dialect's index of credentials, by its type.
    pub(crate) fn tenants<T: 'static>(&self) -> Result<&T> {
        let mut all = self.tenants.iter();
        let found = all.find_map(|tenants| tenants.downcast_ref());
        found.ok_or_else(|| Error::Internal("a dialect has no index of credentials".into()))
    }
}
