//! The state that every call sees.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::engine::{Engine, Limits, Reader, Writer};
use crate::error::{Error, Result};
use crate::http::address::Refusals;
use crate::http::body::Bodies;
use crate::http::edge::Answers;
use crate::limiter::{Endpoint, Limiter};
use crate::telemetry::metrics::Metrics;

/// An index of credentials, of the dialect's own type.
pub(crate) type Tenants = Box<dyn Any + Send + Sync>;

/// What all calls share. Built once, before the workers.
pub(crate) struct State {
    /// The whole configuration.
    pub config: Arc<Config>,
    /// Answers what is asked of the counts.
    pub reader: Arc<Reader>,
    /// Takes events in.
    pub writer: Writer,
    /// What users call beside their app's limit, as all pods together keep it.
    pub limits: Limits,
    /// The limits of the vendor endpoints.
    pub limiter: Limiter,
    /// Which app a credential belongs to: an index for each dialect.
    tenants: Vec<Tenants>,
    /// Where credentials were refused.
    pub refusals: Refusals,
    /// Room for bodies.
    pub bodies: Bodies,
    /// What is counted for `/metrics`.
    pub metrics: Arc<Metrics>,
    /// The memory of answers that nobody has taken yet.
    pub answers: Arc<Answers>,
}

impl State {
    /// Builds the limiter, and takes each dialect's index of credentials.
    pub(crate) fn new(
        config: Arc<Config>,
        engine: Engine,
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
