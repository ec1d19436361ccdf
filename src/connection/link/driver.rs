//! The task that drives a connection: it connects, writes what is queued, reads replies, and keeps the time for all callers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use redis::{RedisError, RedisResult};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::super::condition::NO_CONNECTION;
use super::super::resp::Parser;
use super::super::route::{Stream, ended, protocol, timed_out};
use super::Shared;

/// What is read at once, and the size that the buffer goes back to after something larger.
const READ: usize = 64 << 10;
/// What a buffer may keep while it is empty.
const KEPT: usize = 1 << 20;
/// Between the first two attempts to connect; doubled with every further one.
const DELAY: Duration = Duration::from_millis(50);
/// The longest such pause.
const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// Runs until nothing is connected and no caller waits, so that a server that is gone keeps no task busy.
pub(super) async fn drive(mut driver: Driver) {
    let shared = Arc::clone(&driver.shared);
    loop {
        let stream = match connected(&shared).await {
            Ok(stream) => stream,
            Err(error) => return driver.give_up(&error),
        };
        let mut connection = Connection::new(&shared, stream);
        let error = std::future::poll_fn(|context| connection.poll(context)).await;
        shared.wake(|queue| queue.broken(&error));
        if driver.is_done() {
            return;
        }
    }
}

/// The right to drive. When it is dropped, also because the runtime ends before the task, the next caller starts another driver.
pub(super) struct Driver {
    shared: Arc<Shared>,
    ended: bool,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            ended: false,
        }
    }

    /// Ends; all callers get the error.
    fn give_up(&mut self, error: &RedisError) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.shared.wake(|queue| {
            queue.driven = false;
            queue.given_up(error)
        });
    }

    /// Ends if no caller waits, and answers whether it has.
    fn is_done(&mut self) -> bool {
        self.shared.wake(|queue| {
            if queue.is_awaited() {
                return Vec::new();
            }
            // What is left in the queue has no callers any more.
            self.ended = true;
            queue.driven = false;
            queue.given_up(&ended())
        });
        self.ended
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.give_up(&ended());
    }
}

/// A connection, or why there is none to be had.
async fn connected(shared: &Shared) -> RedisResult<Box<dyn Stream>> {
    let route = &shared.route;
    let (mut delay, mut retries) = (DELAY, route.retries);
    loop {
        let error = match attempt(shared).await {
            Ok(stream) => {
                shared.queue().connected(Instant::now() + route.response);
                return Ok(stream);
            }
            Err(error) => error,
        };
        // What the server refuses it refuses again.
        if !error.is_io_error() || retries == 0 || !shared.queue().is_awaited() {
            return Err(error);
        }
        retries -= 1;
        let why = format!("{NO_CONNECTION}: {error}");
        expiring(shared, &why, tokio::time::sleep(delay)).await;
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

async fn attempt(shared: &Shared) -> RedisResult<Box<dyn Stream>> {
    let made = tokio::time::timeout(shared.route.connect, shared.route.make());
    let made = expiring(shared, NO_CONNECTION, made).await;
    made.unwrap_or_else(|_| Err(timed_out(NO_CONNECTION)))
}

/// Waits for `done`; requests whose time is over meanwhile fail.
async fn expiring<T>(shared: &Shared, why: &str, done: impl Future<Output = T>) -> T {
    let mut done = std::pin::pin!(done);
    loop {
        let until = shared.queue().until();
        let until = until.unwrap_or_else(|| Instant::now() + shared.route.bound(false));
        tokio::select! {
            biased;
            done = &mut done => return done,
            () = tokio::time::sleep_until(until) => {
                let error = timed_out(why);
                shared.wake(|queue| queue.expire(Instant::now(), &error));
            }
        }
    }
}

/// A connection that is up.
struct Connection<'a> {
    shared: &'a Shared,
    stream: Box<dyn Stream>,
    writing: Vec<u8>,
    written: usize,
    /// Whether TLS may still hold some of what was written.
    flushing: bool,
    /// What has been read and not parsed lies between `start` and `end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    parser: Parser,
    timer: Pin<Box<Sleep>>,
    armed: bool,
    /// Lets other tasks run before something is written.
    gathering: Option<Yield>,
}

type Yield = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<'a> Connection<'a> {
    fn new(shared: &'a Shared, stream: Box<dyn Stream>) -> Self {
        Self {
            shared,
            stream,
            writing: Vec::new(),
            written: 0,
            flushing: false,
            buffer: vec![0; READ],
            start: 0,
            end: 0,
            parser: Parser::new(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: false,
            gathering: None,
        }
    }

    /// Ready when the connection is at its end.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<RedisError> {
        match self.step(context) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    }

    fn step(&mut self, context: &mut Context<'_>) -> RedisResult<()> {
        if self.gathers(context) {
            return self.read(context);
        }
        loop {
            self.take(context)?;
            if self.writing.is_empty() && !self.flushing {
                break;
            }
            self.write(context)?;
            if !self.writing.is_empty() || self.flushing {
                break;
            }
        }
        self.read(context)?;
        self.keep_time(context);
        Ok(())
    }

    /// Whether other tasks run first. The runtime polls the sockets once more meanwhile, so that requests of several callers
    /// are queued: one write for all of them costs the pod and Redis less than several.
    fn gathers(&mut self, context: &mut Context<'_>) -> bool {
        if self.gathering.is_none() {
            if !self.writing.is_empty() || self.shared.queue().unsent.is_empty() {
                return false;
            }
            self.gathering = Some(Box::pin(tokio::task::yield_now()));
        }
        let pending = |others: &mut Yield| others.as_mut().poll(context).is_pending();
        if self.gathering.as_mut().is_some_and(pending) {
            return true;
        }
        self.gathering = None;
        false
    }

    /// Takes what is to be written, unless something still is. From here on callers wake this task.
    fn take(&mut self, context: &mut Context<'_>) -> RedisResult<()> {
        let mut queue = self.shared.queue();
        if queue.closed && !queue.is_awaited() {
            return Err(ended());
        }
        queue.driver = Some(context.waker().clone());
        if self.writing.is_empty() && !queue.unsent.is_empty() {
            queue.send(&mut self.writing);
        }
        Ok(())
    }

    fn write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while let Some(rest) = self.writing.get(self.written..).filter(|r| !r.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(context, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => self.written += n,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        self.written = 0;
        self.writing.clear();
        self.writing.shrink_to(KEPT);
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(flushed) => {
                self.flushing = false;
                flushed
            }
            Poll::Pending => {
                self.flushing = true;
                Ok(())
            }
        }
    }

    fn read(&mut self, context: &mut Context<'_>) -> RedisResult<()> {
        loop {
            self.make_room();
            let free = self.buffer.get_mut(self.end..).unwrap_or_default();
            let mut into = ReadBuf::new(free);
            match Pin::new(&mut self.stream).poll_read(context, &mut into) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Ready(Ok(())) => {}
            }
            let read = into.filled().len();
            if read == 0 {
                return Err(ended());
            }
            self.end += read;
            self.parse()?;
        }
    }

    /// Makes room in the buffer for what is read next.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > KEPT {
                self.buffer = vec![0; READ];
            }
        }
        if self.end == self.buffer.len() {
            // What is left of a reply moves to the front. A buffer that one reply fills is doubled.
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.end * 2 > self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
    }

    /// Gives all replies that have been read to their requests.
    fn parse(&mut self) -> RedisResult<()> {
        let read = self.buffer.get(..self.end).unwrap_or_default();
        let (parser, start) = (&mut self.parser, &mut self.start);
        let mut outcome = Ok(());
        let unasked = || Err(protocol("a reply that nobody asked for"));
        self.shared.wake(|queue| {
            let mut woken = Vec::new();
            outcome = loop {
                match parser.next(read, start) {
                    Ok(Some(reply)) => {
                        if !queue.reply(reply, &mut woken) {
                            break unasked();
                        }
                    }
                    Ok(None) => {
                        let partly = *start < read.len() || parser.is_midway();
                        match partly && queue.front().is_none() {
                            true => break unasked(),
                            false => break Ok(()),
                        }
                    }
                    Err(error) => break Err(error),
                }
            };
            woken
        });
        outcome
    }

    /// Fails the requests whose time is over, and sets the timer for the next one.
    fn keep_time(&mut self, context: &mut Context<'_>) {
        loop {
            if !self.armed {
                // It may go off early: the request that it was set for may have its reply by then.
                let Some(until) = self.shared.queue().until() else {
                    return;
                };
                self.timer.as_mut().reset(until);
                self.armed = true;
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return;
            }
            self.armed = false;
            let error = timed_out("no answer in time");
            self.shared
                .wake(|queue| queue.expire(Instant::now(), &error));
        }
    }
}
