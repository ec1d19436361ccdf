//! The store as a command uses it from beside the pods.

use std::sync::Arc;

use super::exit::Failure;
use crate::config::Config;
use crate::demo::private_redis;
use crate::metrics::Metrics;
use crate::store::Store;

/// The configuration with an address. Without one: that of the private Redis of a pod that runs on this data directory.
fn addressed(config: &Config) -> Result<Config, Failure> {
    let mut config = config.clone();
    if config.redis.url.is_none() {
        let running = private_redis::running(&config.redis.data_dir);
        config.redis.url = Some(running.ok_or_else(|| {
            Failure::RedisAway(format!(
                "redis.url is not set, and no private redis-server runs in {}",
                config.redis.data_dir.display()
            ))
        })?);
    }
    Ok(config)
}

/// A store that does no work of its own accord, and the configuration with its address.
pub(super) fn observer(config: &Config) -> Result<(Store, Config), Failure> {
    let config = addressed(config)?;
    let store = Store::observe(&config, Arc::new(Metrics::new()))?;
    Ok((store, config))
}

/// A store that also finishes the deliveries that others have left.
pub(super) async fn writer(config: &Config, metrics: Arc<Metrics>) -> Result<Store, Failure> {
    Ok(Store::connect(&addressed(config)?, metrics).await?)
}
