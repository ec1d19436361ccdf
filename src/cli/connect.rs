//! The services as a command uses them from beside the pods.

use std::sync::Arc;

use super::exit::Failure;
use crate::config::{Config, RedisAddress};
use crate::demo::private_redis;
use crate::engine::Engine;
use crate::telemetry::metrics::Metrics;

/// The configuration with an address, which is named on standard error. Without one: that of the private Redis of a pod that runs
/// on this data directory.
fn addressed(config: &Config) -> Result<Config, Failure> {
    let mut config = config.clone();
    if config.redis.url.is_none() {
        let running = private_redis::running(&config.redis.data_dir);
        config.redis.url = Some(running.ok_or_else(|| {
            let dir = &config.redis.data_dir;
            let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
            Failure::RedisAway(format!(
                "redis.url is not set, and no private redis-server runs in {}: give --redis-url URL, or --config FILE",
                dir.display()
            ))
        })?);
    }
    // A variable of an earlier session may lead elsewhere than one thinks.
    let url = config.redis.url.as_ref().map(|url| url.0.as_str());
    let address = url.and_then(|url| RedisAddress::parse(url).ok());
    if let Some(address) = address {
        eprintln!("unread: Redis: {}", address.place());
    }
    Ok(config)
}

/// Connections to what is kept, and the configuration with its address. They do nothing by themselves.
pub(super) fn observe(config: &Config) -> Result<(Engine, Config), Failure> {
    let config = addressed(config)?;
    let engine = Engine::observe(&config, Arc::new(Metrics::new()))?;
    Ok((engine, config))
}

/// For so long at least, in milliseconds, a command waits for each answer. Nobody waits for a command as callers wait for a pod, so
/// a Redis that is busy for a moment ends none that has run for an hour.
const PATIENCE_MS: u64 = 10_000;

/// The same, for a command that needs data it can read.
pub(super) async fn readable(config: &Config) -> Result<(Engine, Config), Failure> {
    let mut patient = config.clone();
    let wait = &mut patient.redis.response_timeout_ms;
    *wait = PATIENCE_MS.max(*wait);
    let (engine, config) = observe(&patient)?;
    engine.health.readable().await?;
    Ok((engine, config))
}

/// The same as [`readable`], and meanwhile they finish what a pod has left unfinished.
pub(super) async fn connect(config: &Config, metrics: Arc<Metrics>) -> Result<Engine, Failure> {
    let engine = Engine::connect(&addressed(config)?, metrics).await?;
    engine.health.readable().await?;
    Ok(engine)
}
