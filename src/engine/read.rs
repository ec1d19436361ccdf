//! Reading counts. A user's own slot is read at one instant, in one round trip, together with the call's charge against
//! its app's limit; supergroups are then asked in a second one. What few calls need is boxed: every call would carry its
//! place with it.

mod fields;
mod overview;
mod peers;
mod room;
pub(crate) mod rooms;
mod tags;
mod totals;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::connection::Redis;
use crate::engine::admission::Admission;
use crate::engine::faults::Faults;
use crate::engine::limits::Limits;
use crate::engine::members::MemberLists;
use crate::error::{Error, Result};
use crate::quota::Limit;

/// How long a call's charge is waited for where it lies elsewhere than what is read.
const CHARGE: Duration = Duration::from_millis(200);

/// Answers what is asked of the counts.
pub struct Reader {
    redis: Redis,
    admission: Arc<Admission>,
    limits: Limits,
    lists: Arc<MemberLists>,
    faults: Faults,
}

impl Reader {
    pub(crate) fn new(
        redis: Redis,
        admission: Arc<Admission>,
        limits: Limits,
        lists: Arc<MemberLists>,
        faults: Faults,
    ) -> Self {
        Self {
            redis,
            admission,
            limits,
            lists,
            faults,
        }
    }

    /// Has the charge made together with what is read; what a refused call read is thrown away.
    async fn charged<T>(
        &self,
        mut read: Pin<&mut impl Future<Output = Result<T>>>,
        limit: &mut dyn Limit,
    ) -> Result<T> {
        let Some(charge) = limit.charge() else {
            return read.await;
        };
        let redis = &self.redis;
        if let Some(verdict) = self.limits.on_credit(charge) {
            let read = read.await?;
            limit.settle(verdict).map_err(Error::Limited)?;
            return Ok(read);
        }
        // Boxed, or calls on credit would carry the place of all this with them.
        let both = async {
            let charged = self.limits.charge(charge);
            if !redis.spans_slots() {
                // Both go to the same server at the same time.
                return tokio::join!(charged, read.as_mut());
            }
            let late = |_| {
                Err(Error::Unavailable(
                    "the limit did not answer in time".into(),
                ))
            };
            let charged = tokio::time::timeout(CHARGE, charged);
            let (charged, read) = tokio::join!(charged, read.as_mut());
            (charged.unwrap_or_else(late), read)
        };
        let (verdict, read) = Box::pin(both).await;
        let read = read?;
        match verdict {
            Ok(verdict) => limit.settle(verdict).map_err(Error::Limited)?,
            // The limit may be on a node of a cluster that does not answer, and the user on another that does. What the
            // pod has let through by its own share then stands.
            Err(error) if error.is_transient() => {}
            Err(error) => return Err(error),
        }
        Ok(read)
    }
}
