//! Readiness: whether Redis answers, is new enough, and runs our scripts.

use std::sync::atomic::Ordering;

use super::Store;
use super::reply::{number, text};
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
        let call = scripts::PENDING_LOOKED.call(&[keys::pending_index(0), keys::pending_look(0)]);
        number(&self.inner.redis.call(&call).await?).map(|_| ())
    }

    async fn prepare(&self) -> Result<()> {
        let redis = &self.inner.redis;
        let info = text(redis.admin(redis::cmd("INFO").arg("server")).await?)?;
        let version = info
            .lines()
            .find_map(|line| line.strip_prefix("redis_version:"))
            .unwrap_or_default()
            .trim();
        if parse_version(version).is_none_or(|version| version < OLDEST) {
            let (major, minor) = OLDEST;
            return Err(Error::Internal(format!(
                "redis {version:?} can't be used: {major}.{minor} or newer is needed"
            )));
        }
        for script in scripts::all() {
            redis
                .admin(redis::cmd("SCRIPT").arg("LOAD").arg(script.text))
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
