//! Durability `wait`: before a caller is told that its events are in, so many replicas have them.
//!
//! `WAIT` counts the replicas that have all that its own connection wrote, and it blocks that connection. So it gets one of
//! its own, on which it is preceded by a write: replication is one stream, and what has that write has all before it.
//! Callers that come while one round is under way share the next one; nobody pays a round trip of his own.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::connection::Redis;
use crate::error::{Error, Result};
use crate::keys;

/// Callers waiting for the next round.
const WAITING: usize = 4_096;

type Asked = oneshot::Sender<Result<()>>;

/// What makes sure that replicas have it.
pub(crate) struct Durable {
    queue: mpsc::Sender<Asked>,
}

impl Durable {
    /// Starts the rounds: each wants `replicas` of them within `timeout`.
    pub(crate) fn start(redis: Redis, replicas: u32, timeout: Duration) -> Self {
        let (queue, asked) = mpsc::channel(WAITING);
        tokio::spawn(rounds(redis, replicas, timeout, asked));
        Self { queue }
    }

    /// Comes back when the replicas have all that was written before this call; otherwise what they have is unknown.
    pub(crate) async fn confirm(&self) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.queue
            .try_send(answer)
            .map_err(|_| unknown("too many events are waiting for replicas"))?;
        answered
            .await
            .unwrap_or_else(|_| Err(unknown("the server is stopping")))
    }
}

async fn rounds(redis: Redis, replicas: u32, timeout: Duration, mut asked: mpsc::Receiver<Asked>) {
    let mut round = Vec::new();
    while asked.recv_many(&mut round, WAITING).await > 0 {
        let confirmed = redis.confirm(keys::durable, replicas, timeout).await;
        let enough = match confirmed {
            Ok(have) => have >= u64::from(replicas),
            Err(_) => false,
        };
        for answer in round.drain(..) {
            // Whoever asked may have given up.
            let _ = answer.send(if enough {
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
