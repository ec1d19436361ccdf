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

pub use doctor::{Health, doctor};
pub use import::{Import, import};
pub use inspect::{Subject, inspect};
pub use memory::memory;
pub use selfcheck::{Mending, rebuild, verify};
pub use shell::quote;

use crate::cli::Failure;
use crate::config::Config;
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::names::AppId;
use crate::private_redis;

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

/// Connections to what is kept, and the configuration with its address. Nothing is written by it.
fn observe(config: &Config) -> Result<(Engine, Config), Failure> {
    let config = addressed(config)?;
    let engine = Engine::observe(&config, Arc::new(Metrics::new()))?;
    Ok((engine, config))
}

/// The same, and what a pod has left unfinished is finished meanwhile.
async fn connect(config: &Config, metrics: Arc<Metrics>) -> Result<Engine, Failure> {
    Ok(Engine::connect(&addressed(config)?, metrics).await?)
}

/// So many of something: `1 user`, `2 users`.
fn counted(n: u64, one: &str) -> String {
    match (n, one.strip_suffix('y')) {
        (1, _) => format!("1 {one}"),
        (_, Some(stem)) => format!("{n} {stem}ies"),
        (_, None) => format!("{n} {one}s"),
    }
}

/// That nothing is kept of somebody, or of anybody.
fn nothing_kept(app: &AppId, of: Option<(&str, &str)>) -> Failure {
    let of = of.map(|(what, name)| format!("{what} {name:?} in "));
    let of = of.unwrap_or_default();
    Failure::NotThere(format!("nothing is kept of {of}app \"{app}\""))
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn one_is_told_from_many() {
        assert_eq!(counted(1, "user"), "1 user");
        assert_eq!(counted(0, "user"), "0 users");
        assert_eq!(counted(2, "delivery"), "2 deliveries");
        assert_eq!(counted(1, "delivery"), "1 delivery");
    }
}
