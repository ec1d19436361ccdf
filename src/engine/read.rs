//! The reader. It reads a user's slot at one moment, in one round trip, and at the same time charges the call to its app's limit;
//! a second round trip asks supergroups. Futures that few calls need are boxed, because otherwise every call would reserve memory
//! for them.

mod concerned;
mod details;
mod fields;
mod live;
mod overview;
mod peers;
mod room;
pub(crate) mod rooms;
mod supergroup;
mod tags;
mod totals;
mod user;
mod walk;

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

pub(crate) use concerned::{Concern, ConcernedTotals, MOST_CONCERNED};
pub(crate) use live::{Followed, Shown, SupergroupQuestion};
pub(crate) use supergroup::{Contribution, Supergroup, SupergroupReply};
pub(crate) use user::RoomRows;

/// How long a call waits for its charge if the limit may be on another node than the user's slot.
const CHARGE: Duration = Duration::from_millis(200);

/// Answers reads.
pub(crate) struct Reader {
    redis: Redis,
    admission: Arc<Admission>,
    limits: Limits,
    lists: Arc<MemberLists>,
    faults: Faults,
}

impl Reader {
    pub(super) fn new(
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

    /// Reads and charges the call at the same time. If the limit refuses the call, what it read is dropped.
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
        // Boxed: otherwise calls on credit would reserve memory for all of this too.
        let both = async {
            let charged = self.limits.charge(charge);
            if !redis.spans_slots() {
                // Both go to the same server, at the same time.
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
            // The limit may be on a node of the cluster that does not answer, while the user's node does. The call is answered
            // then: the pod has let it through by its own share.
            Err(error) if error.is_transient() => {}
            Err(error) => return Err(error),
        }
        Ok(read)
    }
}
