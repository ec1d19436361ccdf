//! The commands that look after the data from beside the pods: `verify`, `rebuild`, `inspect`, `doctor`, `import`. The store does
//! the work; this turns it into text or JSON. What was asked for goes to standard output, how far it has come to standard
//! error.

mod doctor;
mod import;
mod inspect;
mod memory;
mod progress;
mod selfcheck;
mod shell;

use std::sync::Arc;

pub use doctor::doctor;
pub use import::{Import, import};
pub use inspect::{Subject, inspect};
pub use memory::memory;
pub use selfcheck::{Mending, rebuild, verify};

use crate::config::{Config, Secret};
use crate::metrics::Metrics;
use crate::private_redis;
use crate::store::Store;

/// The configuration with an address. Without one: that of the private Redis of a pod that runs on this data directory.
fn addressed(config: &Config) -> Result<(Config, Secret), String> {
    let mut config = config.clone();
    let url = match config.redis.url.take() {
        Some(url) => url,
        None => private_redis::running(&config.redis.data_dir).ok_or_else(|| {
            format!(
                "redis.url is not set, and no private redis-server runs in {}",
                config.redis.data_dir.display()
            )
        })?,
    };
    config.redis.url = Some(url.clone());
    Ok((config, url))
}

/// A store that only looks.
fn store(config: &Config) -> Result<(Store, Secret), String> {
    let (config, url) = addressed(config)?;
    let store = Store::observe(&config, Arc::new(Metrics::new())).map_err(|e| e.to_string())?;
    Ok((store, url))
}

/// A store that writes, and finishes what another one has left.
async fn writer(config: &Config, metrics: Arc<Metrics>) -> Result<Store, String> {
    let (config, _) = addressed(config)?;
    Store::connect(&config, metrics)
        .await
        .map_err(|e| e.to_string())
}
