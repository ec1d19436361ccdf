//! Reads bodies: each one whole or not at all, within a time, and within the memory that this pod has for bodies. Work on a large
//! body is done on threads beside the workers, so that the workers go on answering other calls.
//!
//! A body that comes with its head, or right behind it, costs no more than its connection has cost already. For any other body,
//! memory is reserved before it is read, as much as its announced length. So a refused body costs no memory. The apps share this
//! memory ([`crate::shares`]). A body that stalls keeps its memory only until another body of its app needs it.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::web::Payload;
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};

use crate::shares::{Claim, Share, Shares};

/// The most bytes of a small body. It needs no memory of its own if all of it has come already, may use memory that large bodies
/// must leave free, and is worked on by the worker itself, which takes a millisecond at worst.
pub(crate) const SMALL: usize = 64 << 10;
/// The least memory of a body that has to be waited for.
const LEAST: usize = 4 << 10;
/// How long a body waits for memory.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many bodies may wait for memory. Each holds what its connection has read of it already, some 24 KiB at worst.
const WAITING: usize = 64;
/// A body stalls if nothing of it has come for this long. It also stalls if it began this long ago and comes too slowly to be
/// whole by its deadline.
const STALLED: Duration = Duration::from_millis(500);
/// How often a body that waits for memory has the stalled bodies of its app given up.
const LOOK: Duration = Duration::from_millis(100);

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is longer than allowed.
    #[error("the body is too large")]
    TooLarge,
    /// It was not whole by its deadline, or stalled while others waited for memory.
    #[error("the body did not arrive in time")]
    TimedOut,
    /// The connection or the framing broke.
    #[error("the body could not be read")]
    Broken,
    /// It is compressed or otherwise encoded: decoded, a small one could fill the memory.
    #[error("the body must not be encoded")]
    Encoded,
    /// This pod has no memory for it now.
    #[error("too many bodies are being read")]
    NoMemory,
}

/// What this pod has for bodies: memory, and threads for the work on large ones.
pub(crate) struct Bodies {
    memory: Shares,
    arriving: Vec<Mutex<Arriving>>,
    /// How many bodies may be worked on beside the workers at once, in all.
    threads: Arc<Semaphore>,
    /// The same for each app: one.
    threads_of_app: Vec<Arc<Semaphore>>,
    /// The runtime beside the workers. None: there is none, as in some tests.
    beside: Option<Handle>,
    deadline: Duration,
}

/// The bodies of one app that are arriving.
#[derive(Default)]
struct Arriving {
    bodies: HashMap<u64, Arc<BodyProgress>>,
    last_number: u64,
    /// When somebody last looked for stalled ones.
    looked: Option<Instant>,
}

/// How far a body has come.
struct BodyProgress {
    started: Instant,
    /// Bytes of its memory.
    memory: AtomicUsize,
    /// Bytes that have come.
    received: AtomicUsize,
    /// When the last of them came, in milliseconds after `started`.
    last: AtomicUsize,
    given_up: AtomicBool,
    give_up: Notify,
}

impl BodyProgress {
    fn stalls(&self, deadline: Duration) -> bool {
        let age = self.started.elapsed();
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed) as u64);
        let received = self.received.load(Ordering::Relaxed) as f64;
        let due = self.memory.load(Ordering::Relaxed) as f64 * age.as_secs_f64();
        age >= STALLED
            && (age.saturating_sub(last) >= STALLED || received * deadline.as_secs_f64() < due)
    }

    /// Waits for `work`. None: the body was given up before that.
    async fn unless_given_up<T>(&self, work: impl Future<Output = T> + Unpin) -> Option<T> {
        match select(work, pin!(self.give_up.notified())).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }

    /// Notes that more has come: `received` bytes by now.
    fn note_received(&self, received: usize) {
        let last = usize::try_from(self.started.elapsed().as_millis()).unwrap_or(usize::MAX);
        self.received.store(received, Ordering::Relaxed);
        self.last.store(last, Ordering::Relaxed);
    }
}

/// An entry of [`Arriving`], taken out when dropped.
struct Arrival<'a> {
    bodies: &'a Bodies,
    app: usize,
    number: u64,
    progress: Arc<BodyProgress>,
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.bodies.arriving(self.app, |arriving| {
            arriving.bodies.remove(&self.number);
        });
    }
}

/// A body that has been read.
pub(crate) struct Body {
    bytes: Bytes,
    /// Its memory. None: it needed none.
    memory: Option<Share>,
    /// The place in the configuration of the app that is called.
    app: usize,
}

impl Body {
    /// Whether the work on it is to be done beside the workers.
    pub(crate) fn is_large(&self) -> bool {
        self.bytes.len() > SMALL
    }
}

impl Bodies {
    /// `bytes` of memory for `apps` apps, whose bodies must be whole within `deadline`. The work beside the workers is done on
    /// the runtime that this is called on; where there is none, the workers do it.
    pub(crate) fn new(bytes: usize, apps: usize, deadline: Duration) -> Self {
        let apps = apps.max(1);
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            memory: Shares::new(bytes, apps, WAITING),
            arriving: std::iter::repeat_with(Mutex::default).take(apps).collect(),
            threads: Arc::new(Semaphore::new(cores.max(2))),
            threads_of_app: (0..apps).map(|_| Arc::new(Semaphore::new(1))).collect(),
            beside: Handle::try_current().ok(),
            deadline,
        }
    }

    fn arriving<T>(&self, app: usize, f: impl FnOnce(&mut Arriving) -> T) -> Option<T> {
        let arriving = self.arriving.get(app)?;
        let mut arriving = arriving.lock().unwrap_or_else(PoisonError::into_inner);
        Some(f(&mut arriving))
    }

    /// Reads a body of at most `limit` bytes, which is to have `announced` bytes if that is known.
    pub(crate) async fn read(
        &self,
        payload: &mut Payload,
        app: usize,
        announced: Option<usize>,
        limit: usize,
    ) -> Result<Body, BodyError> {
        if announced.is_some_and(|bytes| bytes > limit) {
            return Err(BodyError::TooLarge);
        }
        let mut first_bytes = FirstBytes::default();
        // The engine hands out a body that came with its head after one wait, so that this body needs no timer.
        let mut waited = false;
        let is_whole = poll_fn(|context| match first_bytes.poll(payload, context, limit) {
            Poll::Ready(whole) => Poll::Ready(whole),
            Poll::Pending if waited => Poll::Ready(Ok(false)),
            Poll::Pending => {
                waited = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
        });
        if is_whole.await? {
            return Ok(Body {
                bytes: first_bytes.bytes(),
                memory: None,
                app,
            });
        }
        // Boxed, so that the future of every other call stays small.
        let rest = Box::pin(timeout(
            self.deadline,
            self.read_rest(payload, app, first_bytes.bytes(), announced, limit),
        ));
        rest.await.unwrap_or(Err(BodyError::TimedOut))
    }

    /// Reads the rest of a body whose beginning has come.
    async fn read_rest(
        &self,
        payload: &mut Payload,
        app: usize,
        first_bytes: Bytes,
        announced: Option<usize>,
        limit: usize,
    ) -> Result<Body, BodyError> {
        let size = announced
            .unwrap_or(first_bytes.len())
            .max(first_bytes.len())
            .max(LEAST);
        let mut memory = self.reserve(app, size, size).await?;
        let mut whole = Vec::with_capacity(size.min(limit));
        whole.extend_from_slice(&first_bytes);
        // Its beginning is a slice of the connection's buffer, which it would keep alive.
        drop(first_bytes);
        let arrival = self.arrival(app, size, whole.len());
        let progress = &*arrival.progress;
        loop {
            let piece = progress.unless_given_up(payload.next()).await;
            let Some(piece) = piece.ok_or(BodyError::TimedOut)? else {
                break;
            };
            let piece = piece.map_err(|_| BodyError::Broken)?;
            let length = whole.len().saturating_add(piece.len());
            if length > limit {
                return Err(BodyError::TooLarge);
            }
            if length > memory.amount() {
                // A body that does not say how long it is gets twice the memory each time.
                let most = limit.saturating_sub(memory.amount());
                let more = memory.amount().min(most).max(length - memory.amount());
                let waiting = pin!(self.reserve(app, more, memory.amount() + more));
                let more = progress.unless_given_up(waiting).await;
                memory.join(more.ok_or(BodyError::NoMemory)??);
                whole.reserve_exact(memory.amount().min(limit).saturating_sub(whole.len()));
                progress.memory.store(memory.amount(), Ordering::Relaxed);
            }
            whole.extend_from_slice(&piece);
            progress.note_received(length);
        }
        Ok(Body {
            bytes: Bytes::from(whole),
            memory: Some(memory),
            app,
        })
    }

    fn arrival(&self, app: usize, memory: usize, received: usize) -> Arrival<'_> {
        let progress = Arc::new(BodyProgress {
            started: Instant::now(),
            memory: AtomicUsize::new(memory),
            received: AtomicUsize::new(received),
            last: AtomicUsize::new(0),
            given_up: AtomicBool::new(false),
            give_up: Notify::new(),
        });
        let number = self.arriving(app, |arriving| {
            arriving.last_number += 1;
            let entry = Arc::clone(&progress);
            arriving.bodies.insert(arriving.last_number, entry);
            arriving.last_number
        });
        Arrival {
            bodies: self,
            app,
            number: number.unwrap_or_default(),
            progress,
        }
    }

    /// Reserves `amount` bytes of memory for a body that then has `size`. Waits for them, and has stalled bodies given up
    /// meanwhile.
    async fn reserve(&self, app: usize, amount: usize, size: usize) -> Result<Share, BodyError> {
        let claim = Claim {
            app,
            amount,
            large: size > SMALL,
        };
        if let Some(share) = self.memory.try_take(claim) {
            return Ok(share);
        }
        let mut taking = pin!(self.memory.take(claim, PATIENCE));
        loop {
            self.give_up_stalled(app, amount);
            if let Ok(share) = timeout(LOOK, taking.as_mut()).await {
                return share.ok_or(BodyError::NoMemory);
            }
        }
    }

    /// Gives up stalled bodies of that app, until they free as many bytes as are `wanted`.
    fn give_up_stalled(&self, app: usize, wanted: usize) {
        self.arriving(app, |arriving| {
            let now = Instant::now();
            if arriving
                .looked
                .is_some_and(|looked| now - looked < LOOK / 2)
            {
                return;
            }
            arriving.looked = Some(now);
            let mut freed = 0;
            for progress in arriving.bodies.values() {
                if freed >= wanted {
                    break;
                }
                if progress.stalls(self.deadline) {
                    freed += progress.memory.load(Ordering::Relaxed);
                    if !progress.given_up.swap(true, Ordering::Relaxed) {
                        progress.give_up.notify_one();
                    }
                }
            }
        });
    }

    /// Does the work on a body: on this worker if the body is small, else on a thread beside the workers, one body of an app at a
    /// time. Answers what the work came to, and the body's memory. The caller keeps the memory until it has dropped all parts of
    /// the body.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        body: Body,
        work: impl FnOnce(&[u8]) -> T + Send + 'static,
    ) -> (T, Option<Share>) {
        if !body.is_large() {
            return (work(&body.bytes), body.memory);
        }
        Box::pin(self.work_beside(body, work)).await
    }

    async fn work_beside<T: Send + 'static>(
        &self,
        body: Body,
        work: impl FnOnce(&[u8]) -> T + Send + 'static,
    ) -> (T, Option<Share>) {
        // These semaphores are never closed. The thread holds its permits itself: it works on when the caller hangs up.
        let of_app = match self.threads_of_app.get(body.app) {
            Some(threads) => Arc::clone(threads).acquire_owned().await.ok(),
            None => None,
        };
        let thread = Arc::clone(&self.threads).acquire_owned().await.ok();
        let work = move || {
            let done = (work(&body.bytes), body.memory);
            drop((of_app, thread));
            done
        };
        match &self.beside {
            Some(beside) => outcome(beside.spawn_blocking(work).await).await,
            None => work(),
        }
    }

    /// Does long work that has to wait in between, as a task beside the workers. The task ends when its call is dropped.
    pub(crate) async fn beside<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let Some(beside) = &self.beside else {
            return work.await;
        };
        let mut tasks = JoinSet::new();
        tasks.spawn_on(work, beside);
        match tasks.join_next().await {
            Some(done) => outcome(done).await,
            None => std::future::pending().await,
        }
    }
}

/// What a task came to. Its panic goes on in this call.
async fn outcome<T>(done: Result<T, JoinError>) -> T {
    match done.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down, and nobody waits for this call any more.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// What has come of a body without a wait.
#[derive(Default)]
struct FirstBytes {
    /// The first piece. Most bodies have no other, and are then not copied.
    first: Bytes,
    /// All pieces, if there are several.
    joined: Vec<u8>,
}

impl FirstBytes {
    /// Takes all that has come. Answers true once the body is whole, false once it is longer than a small one.
    fn poll(
        &mut self,
        payload: &mut Payload,
        context: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<bool, BodyError>> {
        loop {
            let piece = match Pin::new(&mut *payload).poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(true)),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(BodyError::Broken)),
                Poll::Ready(Some(Ok(piece))) => piece,
            };
            if self.first.is_empty() {
                self.first = piece;
            } else {
                if self.joined.is_empty() {
                    self.joined.extend_from_slice(&self.first);
                }
                self.joined.extend_from_slice(&piece);
            }
            let length = self.first.len().max(self.joined.len());
            if length > limit {
                return Poll::Ready(Err(BodyError::TooLarge));
            }
            if length > SMALL {
                return Poll::Ready(Ok(false));
            }
        }
    }

    fn bytes(self) -> Bytes {
        match self.joined.is_empty() {
            true => self.first,
            false => self.joined.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::FromRequest as _;
    use actix_web::error::PayloadError;
    use actix_web::test::TestRequest;
    use futures_util::{FutureExt as _, stream};

    const MIB: usize = 1 << 20;
    const DEADLINE: Duration = Duration::from_secs(10);

    // Where the order matters in which bodies take their memory, the reads are joined with `biased`: without it `join!` begins
    // each poll with another one of them.

    type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>>;

    async fn payload(pieces: Pieces) -> Payload {
        let request = TestRequest::default().to_http_request();
        let mut payload = actix_web::dev::Payload::from(pieces);
        Payload::from_request(&request, &mut payload).await.unwrap()
    }

    /// So many pieces of so many bytes, one at each tick.
    fn pieces(count: usize, length: usize, tick: Duration) -> Pieces {
        Box::pin(stream::unfold(0, move |n| async move {
            if n > 0 {
                tokio::time::sleep(tick).await;
            }
            (n < count).then(|| (Ok(Bytes::from(vec![b' '; length])), n + 1))
        }))
    }

    /// A beginning, and nothing more.
    fn stalled(length: usize) -> Pieces {
        let begin = stream::iter([Ok(Bytes::from(vec![b' '; length]))]);
        Box::pin(begin.chain(stream::pending()))
    }

    async fn read(
        bodies: &Bodies,
        pieces: Pieces,
        announced: Option<usize>,
    ) -> Result<Body, BodyError> {
        let mut payload = payload(pieces).await;
        bodies.read(&mut payload, 0, announced, 8 * MIB).await
    }

    fn refusal(read: Result<Body, BodyError>) -> BodyError {
        read.map(|body| body.bytes.len()).unwrap_err()
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_at_once_takes_no_memory_and_all_else_does() {
        let bodies = Bodies::new(4 * MIB, 1, DEADLINE);
        let body = read(&bodies, pieces(4, 1_000, Duration::ZERO), Some(4_000)).await;
        assert!(body.unwrap().memory.is_none());
        let tick = Duration::from_millis(900);
        for (announced, memory) in [(Some(500_000), 500_000), (None, 800_000)] {
            let body = read(&bodies, pieces(5, 100_000, tick), announced).await;
            let body = body.unwrap();
            assert_eq!(body.bytes.len(), 500_000);
            assert_eq!(body.memory.as_ref().map(Share::amount), Some(memory));
            let (length, memory) = bodies.work(body, <[u8]>::len).await;
            assert!(length == 500_000 && memory.is_some());
        }
        let too_long = read(&bodies, pieces(9, MIB, Duration::ZERO), None).await;
        assert_eq!(refusal(too_long), BodyError::NoMemory);
        let too_long = read(&bodies, pieces(1, 1, tick), Some(8 * MIB + 1)).await;
        assert_eq!(refusal(too_long), BodyError::TooLarge);
        let broken = stream::iter([
            Ok(Bytes::from_static(b" ")),
            Err(PayloadError::EncodingCorrupted),
        ]);
        let broken = read(&bodies, Box::pin(broken), Some(2)).await;
        assert_eq!(refusal(broken), BodyError::Broken);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_has_all_its_time_until_another_one_needs_its_memory() {
        let bodies = Bodies::new(4 * MIB, 1, DEADLINE);
        let started = Instant::now();
        let alone = read(&bodies, stalled(100), Some(3 * MIB)).await;
        assert_eq!(refusal(alone), BodyError::TimedOut);
        assert_eq!(started.elapsed(), DEADLINE);

        let started = Instant::now();
        let tick = Duration::from_millis(100);
        let (first, second) = tokio::join!(
            biased;
            read(&bodies, stalled(100), Some(3 * MIB)),
            read(&bodies, pieces(20, 50_000, tick), Some(2 * MIB)),
        );
        assert_eq!(refusal(first), BodyError::TimedOut);
        assert_eq!(second.unwrap().bytes.len(), 1_000_000);
        assert!(started.elapsed() < Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_at_its_pace_keeps_its_memory() {
        let bodies = Bodies::new(4 * MIB, 1, DEADLINE);
        let tick = Duration::from_millis(400);
        let (first, second, small) = tokio::join!(
            biased;
            read(&bodies, pieces(20, 150_000, tick), Some(3 * MIB)),
            read(&bodies, stalled(100), Some(2 * MIB)),
            // It uses the memory that large bodies must leave free.
            read(&bodies, pieces(2, 10_000, tick), Some(20_000)),
        );
        assert_eq!(first.unwrap().bytes.len(), 3_000_000);
        assert_eq!(refusal(second), BodyError::NoMemory);
        assert_eq!(small.unwrap().bytes.len(), 20_000);
        // One that comes too slowly.
        let started = Instant::now();
        let (slow, other) = tokio::join!(
            biased;
            read(&bodies, pieces(100, 1_000, tick), Some(3 * MIB)),
            read(&bodies, pieces(4, 50_000, tick), Some(2 * MIB)),
        );
        assert_eq!(refusal(slow), BodyError::TimedOut);
        assert_eq!(other.unwrap().bytes.len(), 200_000);
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_panic_beside_the_workers_is_the_calls_own() {
        let bodies = Bodies::new(4 * MIB, 1, DEADLINE);
        let large = |bodies: &Bodies| Body {
            bytes: vec![b' '; SMALL + 1].into(),
            memory: bodies.memory.try_take(Claim {
                app: 0,
                amount: 3 * MIB,
                large: true,
            }),
            app: 0,
        };
        let caught = std::panic::AssertUnwindSafe(bodies.work(large(&bodies), |_| {
            if true {
                panic!("on purpose");
            }
        }));
        assert!(caught.catch_unwind().await.is_err());
        // Its memory and its thread are free again.
        let body = large(&bodies);
        assert!(body.memory.is_some());
        let (length, _memory) = bodies.work(body, <[u8]>::len).await;
        assert_eq!(length, SMALL + 1);
        let caught = std::panic::AssertUnwindSafe(bodies.beside(async { panic!("on purpose") }));
        let caught: Result<(), _> = caught.catch_unwind().await;
        assert!(caught.is_err());
        assert_eq!(bodies.beside(async { 7 }).await, 7);
    }
}
