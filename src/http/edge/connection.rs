//! The state of one connection: whether it waits, serves a request or ends, and until when it may do so. The engine reads and
//! writes through it, the handler's reading of the body tells it how much more the engine may have, and the sweep ends what is
//! overdue.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::clock::{Tick, ticks};
use super::head;
use super::patience::Patience;
use super::places::{Held, NoPlace};
use super::wire::{Input, Keeper, Wire};
use super::words;
use super::worker::{Cut, Swept, Worker};
use crate::http::unserved::{Unserved, unseen};

/// How many bytes of a body the engine may have that the handler has not read.
const WINDOW: usize = 8 * 1024;
/// How many pieces of a body the engine may have: each piece costs more than its bytes.
const MAX_PIECES: u32 = 64;
/// How long a peer may take to receive a refusal and to go.
const LINGER: Duration = Duration::from_secs(2);
/// By how much the edge waits longer for a body than the handler does, so that it is the handler that answers for a late body.
const BODY_MARGIN: Duration = Duration::from_secs(5);
/// How long a peer may take nothing of an answer that has no end. It may pause for half a minute.
const STREAM_PATIENCE: Duration = Duration::from_secs(40);
/// After what time the kernel gives up a peer that confirms nothing, or whose window is shut. It is longer than the patience of the
/// sweep, which counts what it cuts.
const KERNEL_PATIENCE: Duration = Duration::from_secs(50);
/// How long a connection without a place has to show the path of its request, which names the dialect of the refusal.
const TURN_AWAY: Duration = Duration::from_millis(250);

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It waits for a whole head.
    Waiting,
    /// It serves a request: the kernel does not have all of the answer yet.
    Serving,
    /// It serves nothing more.
    Ending,
}

/// Whether the connection has an engine, which costs some 20 KB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HasEngine {
    No,
    Yes,
    /// It has one that the sweep has found idle: the task is to drop it.
    Idle,
}

/// A connection, as its engine, its handlers and the sweep see it. All of them run on one thread.
pub(super) struct Connection {
    worker: Rc<Worker>,
    /// The network that it comes from, as places are counted.
    address: Option<IpAddr>,
    /// Where it stands in the worker's list.
    index: Cell<usize>,
    /// Whether it has its next request already and waits for its turn.
    queued: Cell<bool>,
    /// Whether its task has ended.
    gone: Cell<bool>,
    /// Why it got no place. None: it has one. Without a place nothing is served but a refusal.
    turned_away: Option<NoPlace>,
    wire: RefCell<Wire>,
    phase: Cell<Phase>,
    engine: Cell<HasEngine>,

    /// How many bytes of the body the engine has that the handler has not read.
    given_bytes: Cell<usize>,
    /// How many pieces of the body the engine has been given since the handler had read all.
    given_pieces: Cell<u32>,
    /// Whether the engine has as much of the body as it may have, so that reading waits for the handler.
    blocked: Cell<bool>,
    /// Whether the handler wants no more of the body.
    body_unwanted: Cell<bool>,
    /// Whether the engine has all of the answer.
    answered: Cell<bool>,
    /// Whether the answer has no end that is known.
    streams: Cell<bool>,
    /// How many bytes of its answer are counted in `Answers`.
    holds: Cell<usize>,

    /// When the present phase began.
    since: Cell<Tick>,
    /// When the sweep ends it, unless the phase has ended by then.
    deadline: Cell<Tick>,
    patience: Cell<Patience>,
    /// What the sweep has decided, until the task carries it out.
    cut: Cell<Option<Cut>>,
    /// Wakes its task.
    waker: RefCell<Option<Waker>>,
}

impl Connection {
    /// The connection of a socket that has just been accepted.
    pub(super) fn new(
        worker: &Rc<Worker>,
        stream: TcpStream,
        address: Option<IpAddr>,
        turned_away: Option<NoPlace>,
    ) -> Rc<Self> {
        let now = worker.now();
        let bounds = &worker.shared.bounds;
        let first_head = match turned_away {
            Some(_) => TURN_AWAY,
            None => bounds.head_timeout,
        };
        let connection = Rc::new(Self {
            worker: Rc::clone(worker),
            address,
            index: Cell::new(0),
            queued: Cell::new(false),
            gone: Cell::new(false),
            turned_away,
            wire: RefCell::new(Wire::new(stream)),
            phase: Cell::new(Phase::Waiting),
            engine: Cell::new(HasEngine::No),
            given_bytes: Cell::new(0),
            given_pieces: Cell::new(0),
            blocked: Cell::new(false),
            body_unwanted: Cell::new(false),
            answered: Cell::new(false),
            streams: Cell::new(false),
            holds: Cell::new(0),
            since: Cell::new(now),
            deadline: Cell::new(now.plus(ticks(first_head))),
            patience: Cell::new(Patience::new(now, ticks(bounds.write_timeout))),
            cut: Cell::new(None),
            waker: RefCell::new(None),
        });
        worker.add(Rc::<Self>::clone(&connection));
        connection
    }

    /// Its task has ended: takes it out of the sweep.
    pub(super) fn forget(&self) {
        self.gone.set(true);
        self.worker.forget(self);
    }

    /// Keeps the waker of its task, for the sweep, for its handlers, and for when its turn comes.
    pub(super) fn keep_waker(&self, waker: &Waker) {
        let mut kept = self.waker.borrow_mut();
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
    }

    fn enter(&self, phase: Phase, deadline: Tick) {
        self.phase.set(phase);
        self.since.set(self.worker.now());
        self.deadline.set(deadline);
    }

    fn tick_after(&self, duration: Duration) -> Tick {
        self.worker.now().plus(ticks(duration))
    }

    /// What the sweep has decided, if the task has not heard of it yet.
    pub(super) fn take_cut(&self) -> Option<Cut> {
        self.cut.take()
    }

    /// Carries out what the sweep has decided. Answers true if nothing is left to do but to drop the connection.
    pub(super) fn carry_out(&self, cut: Cut, cx: &mut Context<'_>) -> bool {
        let wire = &mut *self.wire.borrow_mut();
        match (cut, self.turned_away) {
            (Cut::Head, Some(why)) => {
                self.turn_away(wire, why);
                return false;
            }
            (Cut::Head, None) if wire.has_begun() => {
                self.refuse(wire, Unserved::HeadTimeout);
                return false;
            }
            // Bytes that have come just now are still served.
            (Cut::Head | Cut::Place, _) if wire.has_unread(cx) => return false,
            (Cut::Place, None) if wire.has_begun() => {
                self.refuse(wire, Unserved::Full);
                return false;
            }
            // A silent peer gets no answer: it has asked nothing.
            (Cut::Head, None) => return true,
            _ => {}
        }
        if cut != Cut::Place {
            // What the kernel still holds of the answer goes too.
            wire.abort();
        }
        if let Some(word) = cut.word() {
            tracing::debug!(reason = word, "a connection was cut");
            if let Some(metrics) = &self.worker.shared.metrics {
                metrics.connection_cut(word);
            }
        }
        true
    }

    /// Its task has started an engine.
    pub(super) fn engine_started(&self) {
        self.engine.set(HasEngine::Yes);
    }

    /// Whether the task is to drop the engine: the sweep has found it idle, and it still is.
    pub(super) fn drops_engine(&self) -> bool {
        if self.engine.get() != HasEngine::Idle {
            return false;
        }
        let still_idle = self.phase.get() == Phase::Waiting && !self.wire.borrow().is_ready();
        self.engine.set(match still_idle {
            true => HasEngine::No,
            false => HasEngine::Yes,
        });
        still_idle
    }

    /// Waits, without an engine, until there is a whole head for one.
    pub(super) fn poll_head(&self, cx: &mut Context<'_>) -> Poll<io::Result<Input>> {
        if self.phase.get() == Phase::Ending {
            return Poll::Ready(Ok(Input::End));
        }
        self.wire.borrow_mut().poll_head(self, cx, None)
    }

    /// The handler has read so many bytes of the body.
    pub(super) fn body_read(&self, bytes: usize) {
        let left = self.given_bytes.get().saturating_sub(bytes);
        self.given_bytes.set(left);
        if left == 0 {
            self.given_pieces.set(0);
        }
        if !self.engine_has_enough() && self.blocked.replace(false) {
            self.wake();
        }
    }

    /// The handler wants no more of the body.
    pub(super) fn body_unwanted(&self) {
        self.body_unwanted.set(true);
        if self.blocked.replace(false) {
            self.wake();
        }
    }

    /// The engine has all of the answer.
    pub(super) fn answered(&self) {
        self.answered.set(true);
        self.holds.set(0);
    }

    /// Its answer has no end that is known: it may last, but not for a peer that is gone or takes nothing.
    pub(super) fn streams(&self) {
        self.streams.set(true);
        self.deadline.set(Tick::NEVER);
        let patience = Patience::new(self.worker.now(), ticks(STREAM_PATIENCE));
        self.patience.set(patience);
        self.wire.borrow().streams(KERNEL_PATIENCE);
    }

    /// Counts its answer in `Answers`, unless it is small.
    pub(super) fn hold_answer(&self, bytes: usize) -> Option<Held> {
        let held = self.worker.shared.answers.hold(bytes)?;
        self.holds.set(bytes);
        Some(held)
    }

    /// Whether answers say that the connection ends with them.
    pub(super) fn is_leaving(&self) -> bool {
        self.worker.is_leaving()
    }

    fn engine_has_enough(&self) -> bool {
        self.given_bytes.get() >= WINDOW || self.given_pieces.get() >= MAX_PIECES
    }

    /// Reads for the engine.
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &mut *self.wire.borrow_mut();
        loop {
            if wire.hand_on(buf) {
                return Poll::Ready(Ok(()));
            }
            let next = match self.phase.get() {
                Phase::Waiting => ready!(wire.poll_head(self, cx, Some(buf)))?,
                Phase::Serving => ready!(wire.poll_body(self, cx, buf))?,
                Phase::Ending => Input::End,
            };
            match next {
                Input::Ready => {}
                Input::Given | Input::End => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Writes for the engine, and keeps account of how long the peer lets it wait.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wire = &mut *self.wire.borrow_mut();
        let written = wire.poll_write(cx, buf);
        let mut patience = self.patience.get();
        match written {
            Poll::Pending => {
                patience.note_wait(self.worker.now());
                self.patience.set(patience);
            }
            Poll::Ready(Ok(bytes)) if patience.stalled().is_some() => {
                patience.note_taken(bytes, self.worker.now());
                self.patience.set(patience);
            }
            Poll::Ready(_) => {}
        }
        written
    }

    /// The engine has written all that it had to write. If that was the whole answer, the request is over.
    pub(super) fn poll_flush(&self) -> Poll<io::Result<()>> {
        let mut patience = self.patience.get();
        if patience.stalled().is_some() {
            patience.note_rest(self.worker.now());
            self.patience.set(patience);
        }
        if self.answered.replace(false) {
            let wire = &*self.wire.borrow();
            if wire.body_is_over() {
                let keep_alive = self.tick_after(self.worker.shared.bounds.keep_alive);
                self.enter(Phase::Waiting, keep_alive);
                if wire.has_more() {
                    self.worker.wants_turn(self);
                }
            } else {
                // The rest of the body would be taken for a request.
                self.begin_end();
            }
        }
        // A socket has nothing to flush.
        Poll::Ready(Ok(()))
    }

    /// Nothing more is served from now on. The kernel has all that was written.
    pub(super) fn begin_end(&self) {
        self.enter(Phase::Ending, self.tick_after(LINGER));
    }

    /// Whether nothing more is served.
    pub(super) fn is_ending(&self) -> bool {
        self.phase.get() == Phase::Ending
    }

    /// Sends a refusal if there is one, ends our side, and reads away what the peer still sends; see [`Wire::poll_end`].
    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.borrow_mut().poll_end(&self.worker, cx)
    }
}

impl Swept for Connection {
    fn address(&self) -> Option<IpAddr> {
        self.address
    }

    fn index(&self) -> &Cell<usize> {
        &self.index
    }

    fn is_gone(&self) -> bool {
        self.gone.get()
    }

    fn joins_queue(&self) -> bool {
        !self.queued.replace(true)
    }

    fn leaves_queue(&self) {
        self.queued.set(false);
        if self.phase.get() == Phase::Waiting {
            let keep_alive = self.tick_after(self.worker.shared.bounds.keep_alive);
            self.enter(Phase::Waiting, keep_alive);
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn sweep(&self, now: Tick, stopping: bool) {
        if self.cut.get().is_some() {
            return;
        }
        let patience = self.patience.get();
        let waiting = self.phase.get() == Phase::Waiting;
        if patience.is_used_up(now) {
            self.cut(Cut::Write);
        } else if waiting && self.queued.get() {
            // It is we who let it wait.
        } else if self.deadline.get() <= now {
            self.cut(match self.phase.get() {
                Phase::Waiting => Cut::Head,
                Phase::Serving => Cut::Body,
                Phase::Ending => Cut::Linger,
            });
        } else if stopping && waiting && self.may_leave() {
            self.wake();
        } else if waiting
            && self.engine.get() == HasEngine::Yes
            && now.since(self.since.get()) > Tick::SECOND
        {
            self.engine.set(HasEngine::Idle);
            self.wake();
        }
    }

    fn cut(&self, cut: Cut) {
        self.cut.set(Some(cut));
        self.wake();
    }

    fn waited(&self, now: Tick) -> Option<u32> {
        let waits =
            self.phase.get() == Phase::Waiting && !self.queued.get() && self.turned_away.is_none();
        waits.then(|| now.since(self.since.get()))
    }

    fn stalled(&self, now: Tick) -> Option<u32> {
        self.patience.get().stalled().map(|since| now.since(since))
    }

    fn holds(&self) -> usize {
        self.holds.get()
    }
}

impl Keeper for Connection {
    fn worker(&self) -> &Worker {
        &self.worker
    }

    fn turned_away(&self) -> Option<NoPlace> {
        self.turned_away
    }

    fn may_leave(&self) -> bool {
        let idle = self.worker.now().since(self.since.get()) > Tick::SECOND;
        self.worker.is_stopping() && idle
    }

    fn head_begins(&self) {
        let timeout = self.worker.shared.bounds.head_timeout;
        self.deadline.set(self.tick_after(timeout));
    }

    fn request_begins(&self, without_body: bool) {
        let body_timeout = self.worker.shared.bounds.body_timeout;
        let deadline = match without_body {
            true => Tick::NEVER,
            false => self.tick_after(body_timeout + BODY_MARGIN),
        };
        self.enter(Phase::Serving, deadline);
        self.given_bytes.set(0);
        self.given_pieces.set(0);
        self.blocked.set(false);
        self.body_unwanted.set(false);
        self.answered.set(false);
        if self.streams.replace(false) {
            let full = ticks(self.worker.shared.bounds.write_timeout);
            self.patience.set(Patience::new(self.worker.now(), full));
        }
    }

    fn body_given(&self, bytes: usize) {
        self.given_bytes
            .set(self.given_bytes.get().saturating_add(bytes));
        self.given_pieces
            .set(self.given_pieces.get().saturating_add(1));
    }

    fn is_streaming(&self) -> bool {
        self.streams.get()
    }

    fn peer_has_gone(&self) {
        self.cut(Cut::Linger);
    }

    fn body_given_whole(&self) {
        self.deadline.set(Tick::NEVER);
    }

    fn is_body_unwanted(&self) -> bool {
        self.body_unwanted.get()
    }

    fn waits_for_handler(&self) -> bool {
        let waits = self.engine_has_enough();
        if waits {
            self.blocked.set(true);
        }
        waits
    }

    fn refuse(&self, wire: &mut Wire, why: Unserved) {
        let shared = &self.worker.shared;
        let (method, path) = head::sighted(wire.unread_input());
        let answer = words::written((shared.refuse)(path, why), method == b"HEAD");
        tracing::debug!(reason = why.word(), "a request was refused unread");
        if let Some(metrics) = &shared.metrics {
            metrics.unreadable_request(why.word());
            unseen(metrics, why);
        }
        wire.end_with(answer, true);
        self.begin_end();
    }

    fn turn_away(&self, wire: &mut Wire, why: NoPlace) {
        let (method, path) = head::sighted(wire.unread_input());
        let words = (self.worker.shared.refuse)(path, Unserved::Full);
        let answer = words::written(words, method == b"HEAD");
        // The peer is not waited for: others need the place of those that are turned away.
        wire.end_with(answer, false);
        self.begin_end();
        tracing::debug!(reason = why.word(), "a connection was refused");
    }
}
