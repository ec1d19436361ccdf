//! Durability `wait`: a caller gets the outcomes of its events only after a configured number of replicas has the events.
//!
//! `WAIT` counts the replicas that have everything that its own connection wrote, and it blocks that connection. So it has a
//! connection of its own and writes there first: replication is one stream, and a replica that has this write has everything
//! before it. Callers that arrive while one round is under way share the next round, so no caller pays a round trip of its own.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::connection::Redis;
use crate::error::{Error, Result};
use crate::keys;

/// Callers waiting for the next round.
const WAITING: usize = 4_096;

/// Where a waiting caller gets its answer.
type WaitingCaller = oneshot::Sender<Result<()>>;

/// Waits for replicas on behalf of many callers.
pub(super) struct Durable {
    queue: mpsc::Sender<WaitingCaller>,
}

impl Durable {
    /// Starts the rounds. Each one waits until `replicas` of them have confirmed, or until `timeout` is over.
    pub(super) fn start(redis: Redis, replicas: u32, timeout: Duration) -> Self {
        let (queue, callers) = mpsc::channel(WAITING);
        tokio::spawn(rounds(redis, replicas, timeout, callers));
        Self { queue }
    }

    /// Returns when enough replicas have everything that was written before this call. After an error it is unknown what they
    /// have.
    pub(super) async fn confirm(&self) -> Result<()> {
        let (caller, answer) = oneshot::channel();
        self.queue
            .try_send(caller)
            .map_err(|_| unknown("too many events are waiting for replicas"))?;
        answer
            .await
            .unwrap_or_else(|_| Err(unknown("the server is stopping")))
    }
}

async fn rounds(
    redis: Redis,
    replicas: u32,
    timeout: Duration,
    mut callers: mpsc::Receiver<WaitingCaller>,
) {
    let mut round = Vec::new();
    while callers.recv_many(&mut round, WAITING).await > 0 {
        let confirmed = redis.confirm(keys::for_durability, replicas, timeout).await;
        let enough = match confirmed {
            Ok(confirmed) => confirmed >= u64::from(replicas),
            Err(_) => false,
        };
        for caller in round.drain(..) {
            // The caller may have gone away.
            let _ = caller.send(if enough {
                Ok(())
            } else {
                Err(unknown("not enough replicas have the events"))
            });
        }
    }
}

fn unknown(why: &str) -> Error {
    Error::Unknown(why.to_owned())
}
