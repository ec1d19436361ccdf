//! A multiplexed connection to a server: any number of requests share it. What they send in the same instant leaves in one
//! write, and replies are read in place. `connection.rs` says why it is not the connection of the `redis` crate.
//!
//! A task drives the connection, on the runtime of the first caller. The connection is made when something is to be sent, and
//! made again when it breaks: what had been sent then fails, since it may have been executed or not; what had not been sent goes
//! over the next one. No caller waits longer than it may, whatever becomes of the connection: the task has one timer for all.

mod driver;
mod queue;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use redis::{RedisResult, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::request::Outgoing;
use super::route::{Route, protocol, timed_out};
use driver::{Driver, drive};
use queue::{Outcome, Queue, Request};

/// A handle to the connection; it ends when the last clone is gone and no caller waits.
#[derive(Clone)]
pub(super) struct Link(Arc<Handle>);

struct Handle(Arc<Shared>);

/// What the handles and the driver share.
struct Shared {
    route: Arc<Route>,
    queue: Mutex<Queue>,
    /// Notified when there is room again for callers that found none.
    room: Notify,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue, and wakes the callers that this concerns.
    fn wake(&self, change: impl FnOnce(&mut Queue) -> Vec<Waker>) {
        let (woken, starved) = {
            let mut queue = self.queue();
            (change(&mut queue), std::mem::take(&mut queue.starved))
        };
        woken.into_iter().for_each(Waker::wake);
        if starved {
            self.room.notify_waiters();
        }
    }
}

impl Link {
    /// Prepares a connection; it is made when first used.
    pub(super) fn new(route: Arc<Route>) -> Self {
        Self(Arc::new(Handle(Arc::new(Shared {
            route,
            queue: Mutex::default(),
            room: Notify::new(),
        }))))
    }

    /// Sends one command.
    pub(super) async fn one(&self, request: Outgoing<'_>) -> RedisResult<Value> {
        match self.send(&[request], Outcome::Reply(None)).await? {
            Outcome::Reply(Some(reply)) => Ok(reply),
            _ => Err(protocol("a reply of another request")),
        }
    }

    /// Sends commands one after the other; each has a reply of its own.
    pub(super) async fn many(&self, requests: &[Outgoing<'_>]) -> RedisResult<Vec<Value>> {
        let replies = Outcome::Replies(Vec::with_capacity(requests.len()));
        match self.send(requests, replies).await? {
            Outcome::Replies(replies) => Ok(replies),
            _ => Err(protocol("a reply of another request")),
        }
    }

    /// Sends commands as one request, and waits for what becomes of it.
    async fn send(&self, commands: &[Outgoing<'_>], outcome: Outcome) -> RedisResult<Outcome> {
        if !self.0.0.queue().has_room() {
            Box::pin(self.room()).await?;
        }
        self.queue(commands, outcome).await
    }

    /// Waits until there is room for one more request.
    async fn room(&self) -> RedisResult<()> {
        let shared = &self.0.0;
        let until = Instant::now() + shared.route.response;
        loop {
            let room = shared.room.notified();
            {
                let mut queue = shared.queue();
                if queue.has_room() {
                    return Ok(());
                }
                queue.starved = true;
            }
            let room = tokio::time::timeout_at(until, room).await;
            room.map_err(|_| timed_out("no room in the queue"))?;
        }
    }

    fn queue(&self, commands: &[Outgoing<'_>], outcome: Outcome) -> Answer<'_> {
        let shared = &self.0.0;
        let mut queue = shared.queue();
        let before = queue.unsent.len();
        for command in commands {
            command.cmd.write_packed_command(&mut queue.unsent);
        }
        let request = Request {
            bytes: queue.unsent.len() - before,
            missing: commands.len(),
            outcome,
            waker: None,
            until: Instant::now() + shared.route.bound(queue.connected),
        };
        let number = queue.push(request);
        let driver = queue.driver.take();
        let undriven = !std::mem::replace(&mut queue.driven, true);
        drop(queue);
        if undriven {
            // The runtime may drop what is spawned before it has begun: the driver exists from here on.
            tokio::spawn(drive(Driver::new(Arc::clone(shared))));
        } else if let Some(driver) = driver {
            driver.wake();
        }
        Answer { shared, number }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let driver = {
            let mut queue = self.0.queue();
            queue.closed = true;
            queue.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

/// Waits for what becomes of a request. If it is dropped before, the replies are dropped when they come.
struct Answer<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Future for Answer<'_> {
    type Output = RedisResult<Outcome>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut queue = self.shared.queue();
        let Some(request) = queue.get(self.number) else {
            return Poll::Ready(Err(protocol("a request without a place")));
        };
        match request.take(context.waker()) {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        self.shared.queue().abandon(self.number);
    }
}
