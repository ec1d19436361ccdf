//! A connection to a server that any number of requests share: the multiplexed connection of the `redis` crate, with what the
//! crate leaves to its callers.
//!
//! - The first request that needs a connection starts a task. The task makes the connection, drives it, and ends when the
//!   connection ends. The next request starts another task.
//! - A request that waits for a connection has not been sent. It waits for the connection and for its reply no longer than
//!   `connect` and `response` together. If there is no connection by then, the error says why.
//! - Requests of the same instant leave in one write, see [`Gathering`].
//!
//! When a connection breaks, all requests that it was given fail: the server may have executed them. A request that was still
//! queued fails too, because the crate does not say whether a request was written.

#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, RedisResult, Value,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::condition::NO_CONNECTION;
use super::dialer::{Dialer, Stream, ended, timed_out};
use super::outgoing::Outgoing;

/// Requests that the connection has taken and not written yet. The callers of further requests wait until it takes them.
const QUEUE: usize = 1_024;
/// When so many bytes are gathered, they are written before the connection takes another request.
const GATHERED: usize = 64 << 10;
/// The pause between the first two attempts to connect. It is doubled after every further attempt.
const DELAY: Duration = Duration::from_millis(50);
/// The longest such pause.
const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// A handle to the connection. The connection ends when the last clone is dropped and no request is under way.
#[derive(Clone)]
pub(super) struct Link(Arc<Shared>);

struct Shared {
    dialer: Arc<Dialer>,
    state: Mutex<LinkState>,
}

/// What the handles know of the task.
#[derive(Default)]
struct LinkState {
    /// How many tasks were started.
    started: u64,
    /// How far the last task has come; `None` when it has ended.
    progress: Option<watch::Receiver<LinkProgress>>,
    connection: Option<MultiplexedConnection>,
}

/// How far a task has come.
#[derive(Clone)]
enum LinkProgress {
    /// There is no connection yet. If an attempt has failed, the last one failed by this error.
    Connecting(Option<RedisError>),
    Connected,
    /// The task makes no further attempt.
    Failed(RedisError),
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Prepares a connection; it is made when first used.
    pub(super) fn new(dialer: Arc<Dialer>) -> Self {
        Self(Arc::new(Shared {
            dialer,
            state: Mutex::default(),
        }))
    }

    /// Sends one command.
    pub(super) async fn send(&self, request: Outgoing<'_>) -> RedisResult<Value> {
        let mut connection = self.connection().await?;
        let reply = connection.send_packed_command(request.cmd).await;
        reply.map_err(in_our_words)
    }

    /// Sends commands one after the other; each has a reply of its own.
    pub(super) async fn send_all(&self, requests: &[Outgoing<'_>]) -> RedisResult<Vec<Value>> {
        let mut connection = self.connection().await?;
        // The crate packs a pipeline from commands of its own.
        let mut pipeline = redis::Pipeline::with_capacity(requests.len());
        for request in requests {
            pipeline.add_command(request.cmd.clone());
        }
        let replies = connection.send_packed_commands(&pipeline, 0, requests.len());
        replies.await.map_err(in_our_words)
    }

    /// The connection. A request waits for it if there is none.
    async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        if let Some(connection) = &self.0.state().connection {
            return Ok(connection.clone());
        }
        Box::pin(self.connected()).await
    }

    /// Waits for the connection. The reply then has to come within the time that is left of the request's.
    async fn connected(&self) -> RedisResult<MultiplexedConnection> {
        let dialer = &self.0.dialer;
        let until = Instant::now() + dialer.connect + dialer.response;
        let mut progress = self.progress();
        let made = progress.wait_for(|progress| !matches!(progress, LinkProgress::Connecting(_)));
        // The outer error: the time is over. The inner error: the task is gone, because its runtime has ended.
        let made = tokio::time::timeout_at(until, made).await;
        let made = made.map(|made| made.map(|progress| progress.clone()));
        match made.unwrap_or_else(|_| Ok(progress.borrow().clone())) {
            Ok(LinkProgress::Connected) => {}
            Ok(LinkProgress::Failed(error)) => return Err(not_sent(error)),
            Ok(LinkProgress::Connecting(why)) => {
                return Err(match why.filter(|why| !why.is_timeout()) {
                    Some(why) => timed_out(&format!("{NO_CONNECTION}: {why}")),
                    None => timed_out(NO_CONNECTION),
                });
            }
            Err(_) => return Err(not_sent(ended())),
        }
        let connection = self.0.state().connection.clone();
        let mut connection = connection.ok_or_else(|| not_sent(ended()))?;
        let left = until.saturating_duration_since(Instant::now());
        connection.set_response_timeout(left.min(dialer.response));
        Ok(connection)
    }

    /// The progress of the task. Starts a task if there is none.
    fn progress(&self) -> watch::Receiver<LinkProgress> {
        let mut state = self.0.state();
        if let Some(progress) = &state.progress {
            return progress.clone();
        }
        let (sender, progress) = watch::channel(LinkProgress::Connecting(None));
        state.started += 1;
        state.progress = Some(progress.clone());
        // A runtime that ends may drop the future before it has run. The task exists already then, so that its drop is noted.
        let task = LinkTask {
            shared: Arc::downgrade(&self.0),
            number: state.started,
            dialer: Arc::clone(&self.0.dialer),
        };
        drop(state);
        tokio::spawn(task.run(sender));
        progress
    }
}

/// Makes a connection and drives it. When it is dropped, the next request starts another one.
struct LinkTask {
    shared: Weak<Shared>,
    /// What [`LinkState::started`] was when the task began.
    number: u64,
    dialer: Arc<Dialer>,
}

impl LinkTask {
    async fn run(self, progress: watch::Sender<LinkProgress>) {
        // The dialer logs in.
        let no_login = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(self.dialer.response))
            .set_pipeline_buffer_size(QUEUE)
            .set_write_backpressure_boundary(GATHERED);
        let made = match self.stream(&progress).await {
            Ok(stream) => {
                let stream = Gathering::new(stream);
                MultiplexedConnection::new_with_config(&no_login, stream, config).await
            }
            Err(error) => Err(error),
        };
        let (connection, driver) = match made {
            Ok(made) => made,
            Err(error) => {
                self.forget();
                progress.send_replace(LinkProgress::Failed(error));
                return;
            }
        };
        // If the last handle is gone by now, the connection is dropped here. Its driver would not end as long as it exists.
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        shared.state().connection = Some(connection);
        drop(shared);
        progress.send_replace(LinkProgress::Connected);
        driver.await;
    }

    /// Connects and logs in. After a failure it tries again as often as the dialer says, and only while a request waits.
    async fn stream(&self, progress: &watch::Sender<LinkProgress>) -> RedisResult<Box<dyn Stream>> {
        let (mut delay, mut retries) = (DELAY, self.dialer.retries);
        loop {
            let made = tokio::time::timeout(self.dialer.connect, self.dialer.make());
            let made = made.await.unwrap_or_else(|_| Err(timed_out(NO_CONNECTION)));
            let error = match made {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            // What the server refuses, it refuses again. The handles have one receiver, and each waiting request has one.
            if !error.is_io_error() || retries == 0 || progress.receiver_count() <= 1 {
                return Err(error);
            }
            retries -= 1;
            progress.send_replace(LinkProgress::Connecting(Some(error)));
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(LONGEST_DELAY);
        }
    }

    /// Makes the next request start another task.
    fn forget(&self) {
        if let Some(shared) = self.shared.upgrade() {
            let mut state = shared.state();
            if state.started == self.number {
                state.progress = None;
                state.connection = None;
            }
        }
    }
}

impl Drop for LinkTask {
    fn drop(&mut self) {
        self.forget();
    }
}

/// The error of a request that was not sent, because the connection broke before. As a refused connection it may be tried again.
fn not_sent(error: RedisError) -> RedisError {
    match error.is_io_error() && !error.is_timeout() {
        true => io::Error::new(io::ErrorKind::ConnectionRefused, error.to_string()).into(),
        false => error,
    }
}

/// An error of the crate, in the words of this module. An error reply does not come here: to the crate it is a value.
fn in_our_words(error: RedisError) -> RedisError {
    match error.kind() {
        _ if error.is_timeout() => timed_out("no answer in time"),
        // Bytes that are no reply, or the end of the stream within a reply: the crate closes the connection there.
        ErrorKind::Parse => ended(),
        _ => error,
    }
}

/// A stream that lets other tasks run before it writes. The runtime looks at the sockets once more meanwhile, so requests of
/// several callers come together. One write for all of them costs the pod and Redis less than several writes.
struct Gathering {
    stream: Box<dyn Stream>,
    stage: WriteStage,
}

enum WriteStage {
    /// Everything has been written. Other tasks run before the next write.
    Flushed,
    Yielding(Pin<Box<dyn Future<Output = ()> + Send>>),
    Writing,
}

impl Gathering {
    fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            stage: WriteStage::Flushed,
        }
    }
}

impl AsyncRead for Gathering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Gathering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let WriteStage::Flushed = self.stage {
            self.stage = WriteStage::Yielding(Box::pin(tokio::task::yield_now()));
        }
        if let WriteStage::Yielding(others) = &mut self.stage {
            ready!(others.as_mut().poll(context));
            self.stage = WriteStage::Writing;
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stage = WriteStage::Flushed;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
