//! Readiness: whether Redis answers, is new enough, and runs our scripts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::connection::{Redis, Server};
use crate::engine::reply::text;
use crate::error::{Error, Result, Trouble};
use crate::{keys, scripts};

/// The oldest Redis that runs scripts the way ours are written (`#!lua`).
const OLDEST: (u32, u32) = (7, 0);

/// What came of asking Redis.
#[derive(Debug)]
pub struct Probe {
    /// Whether a pod can serve: reads at least.
    pub serves: bool,
    failure: Option<Error>,
}

/// How Redis is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// In a word: `up`, `partly` (some servers of a cluster), or what is wrong.
    pub state: &'static str,
    /// Why, for an operator; empty where nothing is wrong.
    pub why: String,
    /// Whether a server has it in the log. What is wrong with none of them is for the caller to log.
    pub logged: bool,
}

/// Asks Redis how it is.
#[derive(Clone)]
pub struct Health {
    redis: Redis,
    /// Whether the server was found new enough and given the scripts.
    prepared: Arc<AtomicBool>,
}

impl Health {
    pub(crate) fn new(redis: Redis) -> Self {
        Self {
            redis,
            prepared: Arc::default(),
        }
    }

    /// Asks Redis whether it takes writes and runs our scripts. The first time it also looks at the server's version and hands
    /// over the scripts, so that the first calls find them there.
    pub async fn probe(&self) -> Probe {
        let probed = match self.prepared().await {
            Ok(()) => self.probe_all().await,
            Err(error) => vec![Err(error)],
        };
        let answered = |answer: &Result<()>| match answer {
            Ok(()) => true,
            Err(Error::Unavailable(why)) => why.trouble == Trouble::Full,
            Err(_) => false,
        };
        Probe {
            serves: probed.iter().any(answered),
            failure: probed.into_iter().find_map(Result::err),
        }
    }

    /// How Redis is, by what came of asking it last and of all calls since.
    pub fn standing(&self, last: &Probe) -> Standing {
        let (ill, servers) = self.redis.ill();
        let named = ill.iter().map(|(name, why)| format!("{why} ({name})"));
        let named = named.collect::<Vec<_>>().join("; ");
        let (state, why) = match (ill.first(), &last.failure) {
            (Some(_), _) if last.serves && ill.len() < servers => ("partly", named),
            (Some((_, why)), _) => (why.trouble.word(), named),
            (None, Some(Error::Unavailable(why))) => (why.trouble.word(), why.to_string()),
            (None, Some(error)) => ("unusable", error.to_string()),
            (None, None) => ("up", named),
        };
        Standing {
            state,
            why,
            logged: !ill.is_empty() || last.failure.is_none(),
        }
    }

    /// Whether Redis, or some of a cluster, takes writes and runs our scripts.
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

    /// Asks the server, or wherever the indexes of a cluster are, which is nearly all of its servers.
    async fn probe_all(&self) -> Vec<Result<()>> {
        let shards = match self.redis.spans_slots() {
            true => keys::PENDING_SHARDS,
            false => 1,
        };
        futures_util::future::join_all((0..shards).map(|shard| self.probe_shard(shard))).await
    }

    /// Runs a script that Redis refuses wherever it takes no writes, and that writes nothing here.
    async fn probe_shard(&self, shard: u32) -> Result<()> {
        let keys = [keys::pending_index(shard), keys::pending_look(shard)];
        let call = scripts::PENDING_TOUCH.call(&keys);
        self.redis.call(&call).await.map(|_| ())
    }

    /// Looks at each server that takes writes. One that does not answer is passed over as long as another does: it will
    /// be given the scripts when it is first called, and the rest of a cluster has to be served without it.
    async fn prepare(&self) -> Result<()> {
        let masters = self.redis.masters().await?;
        let prepared = masters.iter().map(Self::prepare_one);
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

    async fn prepare_one(server: &Server) -> Result<()> {
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
        for script in scripts::all() {
            server
                .admin(redis::cmd("SCRIPT").arg("LOAD").arg(&script.text))
                .await?;
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
