//! Health: whether Redis answers, is new enough, and runs the scripts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::connection::schema::Schema;
use crate::connection::{Redis, Server};
use crate::engine::reply::text;
use crate::error::{Error, Result, Trouble};
use crate::{keys, scripts};

/// The oldest Redis that runs scripts with a `#!lua` header.
const OLDEST: (u32, u32) = (7, 0);

/// What a probe of Redis found.
#[derive(Debug)]
pub(crate) struct Probe {
    /// Whether a pod can serve: reads at least.
    pub serves: bool,
    failure: Option<Error>,
}

/// The state of Redis, for the log and the health endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RedisState {
    /// `up`, `partly` (some servers of a cluster answer, others don't), or one word for the trouble.
    pub state: &'static str,
    /// The cause, for an operator; empty if there is no trouble.
    pub why: String,
    /// Whether the link has logged the trouble. If not (the trouble is not one server's), the caller logs it.
    pub logged: bool,
}

/// The version of the data, for the log and the health endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SchemaState {
    /// `current`, `old`, `newer`, `unreadable`, or `unknown` as long as nobody has seen it.
    pub state: &'static str,
    /// What that means, for an operator; empty if all is well.
    pub why: String,
    /// Whether this program can't read the data.
    pub refused: bool,
}

/// Checks whether Redis can serve.
#[derive(Clone)]
pub(crate) struct Health {
    redis: Redis,
    /// Whether the servers were found new enough and have been given the scripts.
    prepared: Arc<AtomicBool>,
    /// By its name, how many of the scripts each server has been given. The next attempt goes on from there: over a link that loses
    /// one request in twenty hardly any attempt gets all of them through.
    given: Arc<Mutex<HashMap<String, usize>>>,
}

impl Health {
    pub(super) fn new(redis: Redis) -> Self {
        Self {
            redis,
            prepared: Arc::default(),
            given: Arc::default(),
        }
    }

    fn given(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks Redis whether it takes writes and runs the scripts. The first time it also checks the version and loads the scripts,
    /// so that the first calls find them there.
    pub(crate) async fn probe(&self) -> Probe {
        let probed = match self.prepared().await {
            Ok(()) => self.probe_all().await,
            Err(error) => vec![Err(error)],
        };
        // Where the key's server does not answer, what was known of the version stays; the probe itself says how Redis is.
        let looked = self.redis.look_at_schema().await;
        let usable = self.redis.schema().0.is_usable();
        let answered = |answer: &Result<()>| match answer {
            Ok(()) => true,
            Err(Error::Unavailable(why)) => why.trouble == Trouble::Full,
            Err(_) => false,
        };
        Probe {
            serves: usable && probed.iter().any(answered),
            failure: probed.into_iter().chain([looked]).find_map(Result::err),
        }
    }

    /// The version of the data, as the last look found it.
    pub(crate) fn schema_state(&self) -> SchemaState {
        let (schema, why) = self.redis.schema();
        SchemaState {
            state: schema.word(),
            why,
            refused: schema.is_refused(),
        }
    }

    /// Fails if this program can't read the data. Where that can't be seen, the caller will find out why.
    pub(crate) async fn readable(&self) -> Result<()> {
        let _ = self.redis.look_at_schema().await;
        match self.redis.schema() {
            (Schema::Newer | Schema::Unreadable, why) => {
                Err(Error::unavailable(Trouble::Schema, why))
            }
            _ => Ok(()),
        }
    }

    /// The state of Redis, from the last probe and from all calls since.
    pub(crate) fn redis_state(&self, last: &Probe) -> RedisState {
        let (ill, servers) = self.redis.ill();
        let causes = ill.iter().map(|(name, why)| format!("{why} ({name})"));
        let causes = causes.collect::<Vec<_>>().join("; ");
        let (state, why) = match (ill.first(), &last.failure) {
            (Some(_), _) if last.serves && ill.len() < servers => ("partly", causes),
            (Some((_, why)), _) => (why.trouble.word(), causes),
            (None, Some(Error::Unavailable(why))) => (why.trouble.word(), why.to_string()),
            (None, Some(error)) => ("unusable", error.to_string()),
            (None, None) => ("up", causes),
        };
        RedisState {
            state,
            why,
            logged: !ill.is_empty() || last.failure.is_none(),
        }
    }

    /// Checks that Redis, or a part of the cluster, takes writes and runs the scripts.
    pub(crate) async fn ping(&self) -> Result<()> {
        self.prepared().await?;
        let probed = self.probe_all().await;
        match probed.iter().any(Result::is_ok) {
            true => Ok(()),
            false => probed.into_iter().collect(),
        }
    }

    async fn prepared(&self) -> Result<()> {
        if !self.prepared.load(Ordering::Acquire) {
            self.prepare().await?;
            self.prepared.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Probes the server; of a cluster, the servers that hold the indexes of announcements, which are nearly all of them.
    async fn probe_all(&self) -> Vec<Result<()>> {
        let shards = match self.redis.spans_slots() {
            true => keys::PENDING_SHARDS,
            false => 1,
        };
        futures_util::future::join_all((0..shards).map(|shard| self.probe_shard(shard))).await
    }

    /// Runs a writing script with no entries. It changes nothing, and Redis refuses it where it takes no writes.
    async fn probe_shard(&self, shard: u32) -> Result<()> {
        let keys = [keys::pending_index(shard), keys::pending_look(shard)];
        let call = scripts::PENDING_TOUCH.call(&keys);
        self.redis.call_without_data(&call).await.map(|_| ())
    }

    /// Prepares each server that takes writes. One that does not answer is skipped as long as another one answers: it gets the
    /// scripts when it is first called, and until then the pod serves the rest of the cluster.
    async fn prepare(&self) -> Result<()> {
        let masters = self.redis.masters().await?;
        let prepared = masters.iter().map(|server| self.prepare_one(server));
        let prepared = futures_util::future::join_all(prepared).await;
        let mut failure = None;
        let mut answered = false;
        for one in prepared {
            match one {
                Ok(()) => answered = true,
                Err(error) if error.is_transient() => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        match failure {
            Some(error) if !answered => Err(error),
            _ => Ok(()),
        }
    }

    /// Checks the version of a server, and gives it those scripts that it has not been given yet. A server that has lost them since
    /// gets each with the first call that needs it.
    async fn prepare_one(&self, server: &Server) -> Result<()> {
        let info = text(server.admin(redis::cmd("INFO").arg("server")).await?)?;
        let version = info
            .lines()
            .find_map(|line| line.strip_prefix("redis_version:"))
            .unwrap_or_default()
            .trim();
        if parse_version(version).is_none_or(|version| version < OLDEST) {
            let (major, minor) = OLDEST;
            return Err(Error::Internal(format!(
                "redis {version:?} at {} can't be used: {major}.{minor} or newer is needed",
                server.name()
            )));
        }
        let given = self.given().get(server.name()).copied().unwrap_or(0);
        for (number, script) in scripts::all().into_iter().enumerate().skip(given) {
            server
                .admin(redis::cmd("SCRIPT").arg("LOAD").arg(&script.text))
                .await?;
            self.given().insert(server.name().to_owned(), number + 1);
        }
        Ok(())
    }
}

fn parse_version(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(parse_version("6.2.14") < Some(OLDEST));
        assert!(parse_version("7.0.15") >= Some(OLDEST));
        assert!(parse_version("10.1.0") >= Some(OLDEST));
        assert_eq!(parse_version("unknown"), None);
    }
}
