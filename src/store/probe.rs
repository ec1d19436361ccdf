//! Readiness: whether Redis answers, is new enough, and runs our scripts.

use std::sync::atomic::Ordering;

use super::Store;
use super::reply::{number, text};
use crate::connection::Server;
use crate::error::{Error, Result};
use crate::{keys, scripts};

/// The oldest Redis that runs scripts the way ours are written (`#!lua`).
const OLDEST: (u32, u32) = (7, 0);

impl Store {
    /// Whether Redis takes writes and runs our scripts. The first time it also looks at the server's version and hands
    /// over the scripts, so that the first calls find them there.
    pub async fn ping(&self) -> Result<()> {
        if !self.inner.prepared.load(Ordering::Acquire) {
            self.prepare().await?;
            self.inner.prepared.store(true, Ordering::Release);
        }
        let first = self.probe(0).await;
        match first {
            Err(error) if error.is_transient() && self.inner.redis.spans_slots() => {
                // Its node may be the only one that does not answer: the rest of the cluster is served all the same.
                let others = (1..keys::PENDING_SHARDS).map(|shard| Box::pin(self.probe(shard)));
                let any = futures_util::future::select_ok(others).await;
                any.map(|_| ()).map_err(|_| error)
            }
            answer => answer,
        }
    }

    async fn probe(&self, shard: u32) -> Result<()> {
        let keys = [keys::pending_index(shard), keys::pending_look(shard)];
        let call = scripts::PENDING_LOOKED.call(&keys);
        number(&self.inner.redis.call(&call).await?).map(|_| ())
    }

    /// Looks at each server that takes writes. One that does not answer is passed over as long as another does: it will
    /// be given the scripts when it is first called, and the rest of a cluster has to be served without it.
    async fn prepare(&self) -> Result<()> {
        let masters = self.inner.redis.masters().await?;
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
