//! One connection to a server that any number of requests share: what they send in the same instant leaves in one write,
//! and what comes back is read in place. It is the hot path, so it is our own; the `redis` crate makes commands and values.
//!
//! A task drives the connection, on the runtime of whoever used it first. It is made when something is to be sent, and made
//! anew when it breaks: what had been sent then fails, since nobody knows what became of it, and what had not been sent goes
//! over the next one. Nothing waits longer than it may, whatever becomes of the connection: the task has one timer for all.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use redis::{Cmd, RedisError, RedisResult, Value};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::resp::Parser;
use super::route::{Route, Stream, ended, protocol, timed_out};

/// Requests that one connection may owe replies to.
const WAITING: u64 = 16_384;
/// The same with those whose replies nobody has taken yet.
const HELD: usize = 1 << 20;
/// Bytes not written yet that one connection may have, and one request more.
const UNSENT: usize = 8 << 20;
/// What is read at once, and what a buffer goes back to after something larger.
const READ: usize = 64 << 10;
/// What a buffer may keep while it is empty.
const KEPT: usize = 1 << 20;
/// Between the first two attempts to connect; doubled with every further one.
const DELAY: Duration = Duration::from_millis(50);
/// The longest such pause.
const LONGEST_DELAY: Duration = Duration::from_millis(500);
pub(super) const NO_CONNECTION: &str = "no connection in time";

/// A command on its way.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) cmd: &'a Cmd,
    /// Whether it has been sent there by the owner of its slot.
    pub(super) asking: bool,
    /// Whether its reply is to be left [flat](super::resp::texts).
    pub(super) flat: bool,
}

impl<'a> From<&'a Cmd> for Outgoing<'a> {
    fn from(cmd: &'a Cmd) -> Self {
        Self {
            cmd,
            asking: false,
            flat: false,
        }
    }
}

/// A handle to the connection; it ends when the last clone is gone and nothing is waited for.
#[derive(Clone)]
pub(super) struct Link(Arc<Handle>);

struct Handle(Arc<Shared>);

struct Shared {
    route: Arc<Route>,
    state: Mutex<State>,
    /// Told when there is room again for one who found none.
    room: Notify,
}

#[derive(Default)]
struct State {
    /// What is to be written next.
    out: Vec<u8>,
    /// In the order of sending.
    waiting: VecDeque<Waiting>,
    /// The number of the first of `waiting`; numbers go up by one with each request.
    first: u64,
    /// The number of the one whose reply comes next.
    answering: u64,
    /// Everything before this number has been sent, wholly or in part.
    sent: u64,
    connected: bool,
    /// Whether there is a task.
    driven: bool,
    /// The task, while it sleeps.
    driver: Option<Waker>,
    /// Whether somebody waits for room.
    starved: bool,
    /// Whether no handle is left.
    closed: bool,
}

/// One request: a command or several.
struct Waiting {
    /// What it takes in `out`.
    bytes: usize,
    /// Replies that are still to come.
    missing: usize,
    /// Of each reply whether it is to be left flat; empty: none is.
    flat: Vec<bool>,
    outcome: Outcome,
    waker: Option<Waker>,
    until: Instant,
}

enum Outcome {
    /// So far.
    Replies(Vec<Value>),
    /// The only one.
    Reply(Value),
    Failed(RedisError),
    /// Nobody waits for it, any more.
    Gone,
}

impl Waiting {
    fn is_over(&self) -> bool {
        self.missing == 0 || matches!(self.outcome, Outcome::Failed(_))
    }

    /// Somebody waits for its reply.
    fn is_open(&self) -> bool {
        !self.is_over() && !matches!(self.outcome, Outcome::Gone)
    }

    /// It fails, and its replies, should any come, mean nothing. What is over stays as it is.
    fn fail(&mut self, error: &RedisError) -> Option<Waker> {
        if !self.is_open() {
            return None;
        }
        self.outcome = Outcome::Failed(error.clone());
        self.waker.take()
    }
}

impl State {
    fn next(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    fn place(&mut self, number: u64) -> Option<&mut Waiting> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.waiting.get_mut(index)
    }

    /// Forgets what nobody waits for and no reply belongs to.
    fn tidy(&mut self) {
        while let Some(front) = self.waiting.front()
            && front.missing == 0
            && matches!(front.outcome, Outcome::Gone)
        {
            self.waiting.pop_front();
            self.first += 1;
        }
        self.answering = self.answering.max(self.first);
    }

    /// Whether anybody waits for a reply.
    fn is_awaited(&self) -> bool {
        self.waiting.iter().any(Waiting::is_open)
    }

    /// Whose reply comes next: somebody's who has been sent.
    fn front(&mut self) -> Option<&mut Waiting> {
        while self.answering < self.sent && self.place(self.answering)?.missing == 0 {
            self.answering += 1;
        }
        match self.answering < self.sent {
            true => self.place(self.answering),
            false => None,
        }
    }

    /// Whether one more may be queued.
    fn has_room(&self) -> bool {
        let owed = self.next() - self.answering;
        owed < WAITING && self.waiting.len() < HELD && self.out.len() < UNSENT
    }

    /// Whether the next reply is to be left flat.
    fn flat(&mut self) -> bool {
        self.front().is_some_and(|waiting| {
            let at = waiting.flat.len().checked_sub(waiting.missing);
            at.and_then(|at| waiting.flat.get(at)) == Some(&true)
        })
    }

    /// One reply, to whom it belongs. False: to nobody.
    fn answer(&mut self, value: Value, woken: &mut Vec<Waker>) -> bool {
        let Some(waiting) = self.front() else {
            return false;
        };
        waiting.missing -= 1;
        match &mut waiting.outcome {
            Outcome::Replies(values) => values.push(value),
            outcome @ Outcome::Reply(_) => *outcome = Outcome::Reply(value),
            Outcome::Failed(_) | Outcome::Gone => {}
        }
        if waiting.missing == 0 {
            woken.extend(waiting.waker.take());
            self.answering += 1;
            if self.first + 1 == self.answering {
                self.tidy();
            }
        }
        true
    }

    /// When the first of them has waited long enough. Whoever came later may wait longer.
    fn until(&self) -> Option<Instant> {
        let open = self.waiting.iter().find(|waiting| waiting.is_open());
        open.map(|waiting| waiting.until)
    }

    /// Those who have waited long enough are told.
    fn expire(&mut self, now: Instant, error: &RedisError) -> Vec<Waker> {
        let late = self.waiting.iter_mut().filter(|w| w.until <= now);
        late.filter_map(|waiting| waiting.fail(error)).collect()
    }

    /// No reply will come to what has been sent.
    fn broken(&mut self, error: &RedisError) -> Vec<Waker> {
        let sent = usize::try_from(self.sent.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let mut woken = Vec::new();
        for waiting in self.waiting.iter_mut().take(sent) {
            woken.extend(waiting.fail(error));
            waiting.missing = 0;
        }
        self.connected = false;
        self.answering = self.sent;
        self.tidy();
        woken
    }

    /// Who does not wait any more before anything was sent has nothing sent.
    fn forget_late(&mut self) {
        let sent = usize::try_from(self.sent.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let all = std::mem::take(&mut self.out);
        let mut at = 0;
        for waiting in self.waiting.iter_mut().skip(sent) {
            let bytes = all.get(at..at + waiting.bytes).unwrap_or_default();
            at += waiting.bytes;
            match waiting.is_open() {
                true => self.out.extend_from_slice(bytes),
                false => (waiting.missing, waiting.bytes) = (0, 0),
            }
        }
        self.tidy();
    }

    /// Nothing will be sent.
    fn given_up(&mut self, error: &RedisError) -> Vec<Waker> {
        self.out = Vec::new();
        self.sent = self.next();
        self.broken(error)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes whom that concerns.
    fn wake(&self, change: impl FnOnce(&mut State) -> Vec<Waker>) {
        let (woken, starved) = {
            let mut state = self.state();
            (change(&mut state), std::mem::take(&mut state.starved))
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
            state: Mutex::default(),
            room: Notify::new(),
        }))))
    }

    /// Sends one command.
    pub(super) async fn one(&self, cmd: Outgoing<'_>) -> RedisResult<Value> {
        let flat = if cmd.flat { vec![true] } else { Vec::new() };
        let answer = self.send(Outcome::Reply(Value::Nil), 1, flat, |out| {
            cmd.cmd.write_packed_command(out);
        });
        match answer.await? {
            Outcome::Reply(value) => Ok(value),
            _ => Err(protocol("a reply of another request")),
        }
    }

    /// Sends commands one after the other; each has a reply of its own.
    pub(super) async fn many(&self, cmds: &[Outgoing<'_>]) -> RedisResult<Vec<Value>> {
        let flat = match cmds.iter().any(|cmd| cmd.flat) {
            true => cmds.iter().map(|cmd| cmd.flat).collect(),
            false => Vec::new(),
        };
        let replies = Outcome::Replies(Vec::with_capacity(cmds.len()));
        let answer = self.send(replies, cmds.len(), flat, |out| {
            for cmd in cmds {
                cmd.cmd.write_packed_command(out);
            }
        });
        match answer.await? {
            Outcome::Replies(values) => Ok(values),
            _ => Err(protocol("a reply of another request")),
        }
    }

    /// Sends a request and waits for what becomes of it.
    async fn send(
        &self,
        outcome: Outcome,
        replies: usize,
        flat: Vec<bool>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> RedisResult<Outcome> {
        if !self.0.0.state().has_room() {
            Box::pin(self.room()).await?;
        }
        self.queue(outcome, replies, flat, write).await
    }

    /// Waits until there is room for one more.
    async fn room(&self) -> RedisResult<()> {
        let shared = &self.0.0;
        let until = Instant::now() + shared.route.response;
        loop {
            let room = shared.room.notified();
            {
                let mut state = shared.state();
                if state.has_room() {
                    return Ok(());
                }
                state.starved = true;
            }
            let room = tokio::time::timeout_at(until, room).await;
            room.map_err(|_| timed_out("no room in the queue"))?;
        }
    }

    fn queue(
        &self,
        outcome: Outcome,
        replies: usize,
        flat: Vec<bool>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Answer<'_> {
        let shared = &self.0.0;
        let mut state = shared.state();
        let number = state.next();
        let before = state.out.len();
        write(&mut state.out);
        let bytes = state.out.len() - before;
        let until = Instant::now() + shared.route.bound(state.connected);
        state.waiting.push_back(Waiting {
            bytes,
            missing: replies,
            flat,
            outcome,
            waker: None,
            until,
        });
        let driver = state.driver.take();
        let undriven = !std::mem::replace(&mut state.driven, true);
        drop(state);
        if undriven {
            // Made here, since what is spawned may be dropped before it has begun.
            let end = End {
                shared: Arc::clone(shared),
                told: false,
            };
            tokio::spawn(drive(end));
        } else if let Some(driver) = driver {
            driver.wake();
        }
        Answer { shared, number }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let driver = {
            let mut state = self.0.state();
            state.closed = true;
            state.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

/// Waits for what becomes of a request. Dropped before, its replies mean nothing.
struct Answer<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Future for Answer<'_> {
    type Output = RedisResult<Outcome>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.state();
        let Some(waiting) = state.place(self.number) else {
            return Poll::Ready(Err(protocol("a request without a place")));
        };
        if !waiting.is_over() {
            match &mut waiting.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            return Poll::Pending;
        }
        Poll::Ready(
            match std::mem::replace(&mut waiting.outcome, Outcome::Gone) {
                Outcome::Failed(error) => Err(error),
                outcome => Ok(outcome),
            },
        )
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(waiting) = state.place(self.number) {
            waiting.outcome = Outcome::Gone;
            waiting.waker = None;
        }
        state.tidy();
    }
}

/// The task: ends when nothing is connected and nothing waits, so that a server that is gone keeps nobody busy.
async fn drive(mut end: End) {
    let shared = Arc::clone(&end.shared);
    loop {
        let stream = match connected(&shared).await {
            Ok(stream) => stream,
            Err(error) => return end.given_up(&error),
        };
        let mut running = Running::new(&shared, stream);
        let error = std::future::poll_fn(|context| running.poll(context)).await;
        shared.wake(|state| state.broken(&error));
        if end.is_reached() {
            return;
        }
    }
}

/// Says that there is no task any more, also when the runtime ends before it.
struct End {
    shared: Arc<Shared>,
    told: bool,
}

impl End {
    /// Those who wait are told why.
    fn given_up(&mut self, error: &RedisError) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        self.shared.wake(|state| {
            state.driven = false;
            state.given_up(error)
        });
    }

    /// Whether nobody waits.
    fn is_reached(&mut self) -> bool {
        self.shared.wake(|state| {
            if state.is_awaited() {
                return Vec::new();
            }
            // What is left in the queue is for those who don't wait any more.
            self.told = true;
            state.driven = false;
            state.given_up(&ended())
        });
        self.told
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.given_up(&ended());
    }
}

/// A connection for those who wait, or why there is none to be had.
async fn connected(shared: &Shared) -> RedisResult<Box<dyn Stream>> {
    let route = &shared.route;
    let (mut delay, mut retries) = (DELAY, route.retries);
    loop {
        let error = match attempt(shared).await {
            Ok(stream) => {
                let now = Instant::now();
                let mut state = shared.state();
                state.connected = true;
                state.forget_late();
                for waiting in &mut state.waiting {
                    waiting.until = waiting.until.min(now + route.response);
                }
                return Ok(stream);
            }
            Err(error) => error,
        };
        // What the server refuses it refuses again.
        if !error.is_io_error() || retries == 0 || !shared.state().is_awaited() {
            return Err(error);
        }
        retries -= 1;
        let why = format!("{NO_CONNECTION}: {error}");
        in_time(shared, &why, tokio::time::sleep(delay)).await;
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

async fn attempt(shared: &Shared) -> RedisResult<Box<dyn Stream>> {
    let made = tokio::time::timeout(shared.route.connect, shared.route.make());
    let made = in_time(shared, NO_CONNECTION, made).await;
    made.unwrap_or_else(|_| Err(timed_out(NO_CONNECTION)))
}

/// Meanwhile those who have waited long enough are told.
async fn in_time<T>(shared: &Shared, why: &str, done: impl Future<Output = T>) -> T {
    let mut done = std::pin::pin!(done);
    loop {
        let until = shared.state().until();
        let until = until.unwrap_or_else(|| Instant::now() + shared.route.bound(false));
        tokio::select! {
            biased;
            done = &mut done => return done,
            () = tokio::time::sleep_until(until) => {
                let error = timed_out(why);
                shared.wake(|state| state.expire(Instant::now(), &error));
            }
        }
    }
}

/// A connection that is up.
struct Running<'a> {
    shared: &'a Shared,
    stream: Box<dyn Stream>,
    writing: Vec<u8>,
    written: usize,
    /// What TLS makes of it may still be on its way.
    flushing: bool,
    /// What has been read and not parsed lies between `start` and `end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    parser: Parser,
    timer: Pin<Box<Sleep>>,
    armed: bool,
    /// Others have their turn before something is written.
    gathering: Option<Turn>,
}

type Turn = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<'a> Running<'a> {
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
        self.look_at_the_clock(context);
        Ok(())
    }

    /// Whether to let others have their say before anything is written: the runtime looks once more for what has come for
    /// them. One write for all of it costs both sides less than several.
    fn gathers(&mut self, context: &mut Context<'_>) -> bool {
        if self.gathering.is_none() {
            if !self.writing.is_empty() || self.shared.state().out.is_empty() {
                return false;
            }
            self.gathering = Some(Box::pin(tokio::task::yield_now()));
        }
        let pending = |turn: &mut Turn| turn.as_mut().poll(context).is_pending();
        if self.gathering.as_mut().is_some_and(pending) {
            return true;
        }
        self.gathering = None;
        false
    }

    /// Takes what is to be written, unless something still is, and says that the task sleeps from here on.
    fn take(&mut self, context: &mut Context<'_>) -> RedisResult<()> {
        let mut state = self.shared.state();
        if state.closed && !state.is_awaited() {
            return Err(ended());
        }
        state.driver = Some(context.waker().clone());
        if self.writing.is_empty() && !state.out.is_empty() {
            std::mem::swap(&mut self.writing, &mut state.out);
            state.sent = state.next();
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
            if self.start == self.end {
                (self.start, self.end) = (0, 0);
                if self.buffer.len() > KEPT {
                    self.buffer = vec![0; READ];
                }
            }
            if self.end == self.buffer.len() {
                // What is left of a reply goes to the front; one that fills the buffer gets a larger one.
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
                if self.end * 2 > self.buffer.len() {
                    self.buffer.resize(self.buffer.len() * 2, 0);
                }
            }
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

    fn parse(&mut self) -> RedisResult<()> {
        let read = self.buffer.get(..self.end).unwrap_or_default();
        let (parser, start) = (&mut self.parser, &mut self.start);
        let mut outcome = Ok(());
        self.shared.wake(|state| {
            let mut woken = Vec::new();
            outcome = loop {
                let flat = state.flat();
                match parser.next(read, start, flat) {
                    Ok(Some(value)) => {
                        if !state.answer(value, &mut woken) {
                            break Err(protocol("a reply that nobody asked for"));
                        }
                    }
                    Ok(None) => {
                        let partly = *start < read.len() || parser.is_midway();
                        match partly && state.front().is_none() {
                            true => break Err(protocol("a reply that nobody asked for")),
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

    /// The timer goes off when the first of those who wait has waited long enough, or somewhat before that.
    fn look_at_the_clock(&mut self, context: &mut Context<'_>) {
        loop {
            if !self.armed {
                let Some(until) = self.shared.state().until() else {
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
                .wake(|state| state.expire(Instant::now(), &error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use redis::ConnectionAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// A peer that does as the test says, and a link to it.
    async fn peer() -> (TcpListener, Link) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (host, port) = (
            "127.0.0.1".to_owned(),
            listener.local_addr().unwrap().port(),
        );
        let info = redis::IntoConnectionInfo::into_connection_info(ConnectionAddr::Tcp(host, port));
        let link = Link::new(Arc::new(Route {
            info: info.unwrap(),
            tls: None,
            connect: Duration::from_secs(60),
            response: Duration::from_secs(60),
            retries: 3,
        }));
        (listener, link)
    }

    /// The next connection, logged in.
    async fn accept(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut ping = [0; "*1\r\n$4\r\nPING\r\n".len()];
        stream.read_exact(&mut ping).await.unwrap();
        stream.write_all(b"+PONG\r\n").await.unwrap();
        stream
    }

    /// Reads until so many commands have come, each of which is one word of one letter.
    async fn commands(stream: &mut TcpStream, count: usize) -> String {
        let mut bytes = vec![0; count * "*1\r\n$1\r\na\r\n".len()];
        stream.read_exact(&mut bytes).await.unwrap();
        let text = String::from_utf8(bytes).unwrap();
        text.lines().skip(2).step_by(3).collect()
    }

    /// Expects one command and answers it.
    async fn exchange(stream: &mut TcpStream, command: &str, reply: &str) {
        assert_eq!(commands(stream, 1).await, command);
        stream.write_all(reply.as_bytes()).await.unwrap();
    }

    /// Has the link make a connection for one command, which is answered.
    async fn connected_for(
        listener: &TcpListener,
        link: &Link,
        command: &str,
        reply: &str,
    ) -> (TcpStream, RedisResult<Value>) {
        let serve = async {
            let mut stream = accept(listener).await;
            exchange(&mut stream, command, reply).await;
            stream
        };
        let cmd = redis::cmd(command);
        tokio::join!(serve, link.one((&cmd).into()))
    }

    #[tokio::test]
    async fn what_is_sent_at_once_is_answered_in_its_order() {
        let (listener, link) = peer().await;
        let (a, b, c) = (redis::cmd("a"), redis::cmd("b"), redis::cmd("c"));
        let serve = async {
            let mut stream = accept(&listener).await;
            assert_eq!(commands(&mut stream, 4).await, "abca");
            for reply in [":1\r\n:", "2\r\n$1\r\n", "3\r\n-ERR no\r\n"] {
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
            stream
        };
        let asked = async {
            let two = [(&b).into(), (&c).into()];
            tokio::join!(
                link.one((&a).into()),
                link.many(&two),
                link.one((&a).into())
            )
        };
        let (_stream, (first, two, last)) = tokio::join!(serve, asked);
        assert_eq!(first.unwrap(), Value::Int(1));
        let three = Value::BulkString(b"3".to_vec());
        assert_eq!(two.unwrap(), [Value::Int(2), three]);
        assert!(last.unwrap().extract_error().is_err());
    }

    #[tokio::test]
    async fn who_gives_up_leaves_no_reply_to_others() {
        let (listener, link) = peer().await;
        let (a, b) = (redis::cmd("a"), redis::cmd("b"));
        // Given up before there is a connection: not sent at all.
        assert!(link.one((&a).into()).now_or_never().is_none());
        let mut stream = accept(&listener).await;
        let serve = async {
            exchange(&mut stream, "b", ":1\r\n").await;
        };
        let ((), answer) = tokio::join!(serve, link.one((&b).into()));
        assert_eq!(answer.unwrap(), Value::Int(1));
        // Given up after it was sent.
        assert!(link.one((&a).into()).now_or_never().is_none());
        assert_eq!(commands(&mut stream, 1).await, "a");
        let serve = async {
            exchange(&mut stream, "b", ":2\r\n:3\r\n").await;
        };
        let ((), answer) = tokio::join!(serve, link.one((&b).into()));
        assert_eq!(answer.unwrap(), Value::Int(3));
        assert_eq!(link.0.0.state().waiting.len(), 0);
    }

    #[tokio::test]
    async fn what_is_said_unasked_is_nobodys_reply() {
        for unasked in [":7\r\n", "*1\r\n", "$5\r\nh"] {
            let (listener, link) = peer().await;
            let (mut stream, answer) = connected_for(&listener, &link, "a", ":1\r\n").await;
            assert_eq!(answer.unwrap(), Value::Int(1));
            stream.write_all(unasked.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            while stream.read(&mut [0]).await.unwrap() > 0 {}
            let (_stream, answer) = connected_for(&listener, &link, "b", ":2\r\n").await;
            assert_eq!(answer.unwrap(), Value::Int(2), "{unasked:?}");
        }
    }

    #[test]
    fn what_has_not_been_sent_has_no_reply() {
        let mut state = State::default();
        state.waiting.push_back(Waiting {
            bytes: 0,
            missing: 1,
            flat: Vec::new(),
            outcome: Outcome::Reply(Value::Nil),
            waker: None,
            until: Instant::now(),
        });
        assert!(!state.answer(Value::Int(1), &mut Vec::new()));
        state.sent = 1;
        assert!(state.answer(Value::Int(1), &mut Vec::new()));
        assert!(!state.answer(Value::Int(2), &mut Vec::new()));
    }

    #[test]
    fn a_runtime_that_ends_takes_nobody_with_it() {
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap()
        };
        let first = runtime();
        let (listener, link) = first.block_on(peer());
        let listener = listener.into_std().unwrap();
        let a = redis::cmd("a");
        // The task has not even begun.
        let mut waiting = Box::pin(link.one((&a).into()));
        first.block_on(async { assert!((&mut waiting).now_or_never().is_none()) });
        drop(first);
        let next = runtime();
        assert!(next.block_on(waiting).unwrap_err().is_connection_dropped());
        let answer = next.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            connected_for(&listener, &link, "a", ":1\r\n").await.1
        });
        assert_eq!(answer.unwrap(), Value::Int(1));
    }

    #[tokio::test]
    async fn a_server_that_has_no_place_for_us_has_not_seen_the_request() {
        let (listener, link) = peer().await;
        let a = redis::cmd("a");
        let serve = async {
            for refusal in [
                "-ERR max number of clients reached\r\n",
                "-DENIED no\r\n",
                "",
            ] {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(refusal.as_bytes()).await.unwrap();
            }
            let mut stream = accept(&listener).await;
            exchange(&mut stream, "a", ":1\r\n").await;
            stream
        };
        let (_stream, answer) = tokio::join!(serve, link.one((&a).into()));
        assert_eq!(answer.unwrap(), Value::Int(1));
    }

    #[tokio::test]
    async fn a_break_fails_what_was_sent_and_a_new_connection_is_made_for_the_next() {
        let (listener, link) = peer().await;
        let a = redis::cmd("a");
        let serve = async {
            let mut stream = accept(&listener).await;
            assert_eq!(commands(&mut stream, 2).await, "aa");
            // An end in the middle of a reply.
            stream.write_all(b":1\r\n$5\r\nha").await.unwrap();
        };
        let asked = async { tokio::join!(link.one((&a).into()), link.one((&a).into())) };
        let ((), (first, second)) = tokio::join!(serve, asked);
        assert_eq!(first.unwrap(), Value::Int(1));
        assert!(second.unwrap_err().is_connection_dropped());
        let (_stream, answer) = connected_for(&listener, &link, "b", "+OK\r\n").await;
        assert_eq!(answer.unwrap(), Value::Okay);
    }

    #[tokio::test]
    async fn a_reply_that_comes_too_late_is_nobodys() {
        let (listener, link) = peer().await;
        let (a, b) = (redis::cmd("a"), redis::cmd("b"));
        let (mut stream, answer) = connected_for(&listener, &link, "a", ":1\r\n").await;
        assert_eq!(answer.unwrap(), Value::Int(1));
        tokio::time::pause();
        let late = link.one((&a).into()).await;
        tokio::time::resume();
        assert!(late.unwrap_err().is_timeout());
        exchange(&mut stream, "a", ":1\r\n").await;
        let serve = async {
            exchange(&mut stream, "b", ":2\r\n").await;
        };
        let ((), answer) = tokio::join!(serve, link.one((&b).into()));
        assert_eq!(answer.unwrap(), Value::Int(2));
    }

    #[tokio::test]
    async fn a_reply_that_nobody_asked_for_ends_the_connection() {
        let (listener, link) = peer().await;
        let a = redis::cmd("a");
        let serve = async {
            let mut stream = accept(&listener).await;
            exchange(&mut stream, "a", ":1\r\n:2\r\n").await;
            // Closed from there.
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        };
        let ((), answer) = tokio::join!(serve, link.one((&a).into()));
        assert_eq!(answer.unwrap(), Value::Int(1));
    }

    #[tokio::test]
    async fn the_connection_ends_with_its_last_handle() {
        let (listener, link) = peer().await;
        let serve = async {
            let mut stream = accept(&listener).await;
            exchange(&mut stream, "a", ":1\r\n").await;
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        };
        let asked = async {
            let other = link.clone();
            drop(link);
            other.one((&redis::cmd("a")).into()).await.unwrap()
        };
        let ((), answer) = tokio::join!(serve, asked);
        assert_eq!(answer, Value::Int(1));
    }

    #[tokio::test]
    async fn a_full_queue_makes_callers_wait_in_turn() {
        let (listener, link) = peer().await;
        let a = redis::cmd("a");
        let all = futures_util::future::join_all((0..2 * WAITING).map(|_| link.one((&a).into())));
        let serve = async {
            let mut stream = accept(&listener).await;
            for _ in 0..2 {
                commands(&mut stream, WAITING as usize).await;
                assert!(stream.read(&mut [0]).now_or_never().is_none());
                let replies = ":1\r\n".repeat(WAITING as usize);
                stream.write_all(replies.as_bytes()).await.unwrap();
            }
            stream
        };
        let (_stream, answers) = tokio::join!(serve, all);
        assert!(
            answers
                .into_iter()
                .all(|answer| answer.unwrap() == Value::Int(1))
        );
    }
}
