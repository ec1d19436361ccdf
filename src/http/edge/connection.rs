//! One connection: what of it the engine may see, and when. It hands on one request at a time, the next one when the answer before it
//! is with the kernel; of a body only as much as the handler has read, and a little; of a head nothing before it is whole.

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

/// Bytes of a body that the engine holds at most and the handler has not read.
const WINDOW: usize = 8 * 1024;
/// Parts of a body that it holds at most: each costs more than its bytes.
const MAX_PIECES: u32 = 64;
/// For a refusal to be sent and the peer to go.
const LINGER: Duration = Duration::from_secs(2);
/// Longer than the handler's own deadline for a body, so that it is the handler that says so.
const BODY_MARGIN: Duration = Duration::from_secs(5);
/// For a connection without a place to show what it wanted.
const TURN_AWAY: Duration = Duration::from_millis(250);

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// At waiting for a whole head.
    Waiting,
    /// At a request: its answer is not yet, or not all, with the kernel.
    Serving,
    /// At its end.
    Closing,
}

/// Whether there is an engine, which costs some 20 KB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EngineState {
    None,
    Running,
    /// It has had nothing to do for a while.
    Idle,
}

/// A connection, as its engine, its handlers and the sweep see it. All of them run on one thread.
pub(super) struct Connection {
    worker: Rc<Worker>,
    /// Whose it is, as far as shares go.
    address: Option<IpAddr>,
    /// Its place in the worker's list.
    index: Cell<usize>,
    /// Whether it has its next request already and waits for its turn.
    queued: Cell<bool>,
    /// Whether its task has ended.
    gone: Cell<bool>,
    /// Nothing is served here: there was no place.
    turned_away: Option<NoPlace>,
    wire: RefCell<Wire>,
    phase: Cell<Phase>,
    engine: Cell<EngineState>,

    /// Bytes of the body that the engine has and the handler has not.
    unread: Cell<usize>,
    pieces: Cell<u32>,
    /// Whether reading waits for the handler.
    blocked: Cell<bool>,
    /// Whether the handler wants no more of the body.
    body_unwanted: Cell<bool>,
    /// Whether the engine has all of the answer.
    answered: Cell<bool>,
    /// Bytes of the answer that count in the common sum.
    holds: Cell<usize>,

    /// Since when it has been at what it is at.
    since: Cell<Tick>,
    deadline: Cell<Tick>,
    patience: Cell<Patience>,
    cut: Cell<Option<Cut>>,
    waker: RefCell<Option<Waker>>,
}

impl Connection {
    /// Of a socket that has just been accepted.
    pub(super) fn new(
        worker: &Rc<Worker>,
        stream: TcpStream,
        address: Option<IpAddr>,
        turned_away: Option<NoPlace>,
    ) -> Rc<Self> {
        let now = worker.now();
        let bounds = &worker.shared.bounds;
        let first = match turned_away {
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
            engine: Cell::new(EngineState::None),
            unread: Cell::new(0),
            pieces: Cell::new(0),
            blocked: Cell::new(false),
            body_unwanted: Cell::new(false),
            answered: Cell::new(false),
            holds: Cell::new(0),
            since: Cell::new(now),
            deadline: Cell::new(now.plus(ticks(first))),
            patience: Cell::new(Patience::new(now, ticks(bounds.write_timeout))),
            cut: Cell::new(None),
            waker: RefCell::new(None),
        });
        worker.add(Rc::<Self>::clone(&connection));
        connection
    }

    /// Takes it out of the sweep.
    pub(super) fn forget(&self) {
        self.gone.set(true);
        self.worker.forget(self);
    }

    /// The task that carries it, to be woken by the sweep, by its handlers, and when it is its turn.
    pub(super) fn carried_by(&self, waker: &Waker) {
        let mut kept = self.waker.borrow_mut();
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
    }

    fn go_on(&self, phase: Phase, deadline: Tick) {
        self.phase.set(phase);
        self.since.set(self.worker.now());
        self.deadline.set(deadline);
    }

    fn tick_after(&self, duration: Duration) -> Tick {
        self.worker.now().plus(ticks(duration))
    }

    /// What the sweep has decided, once.
    pub(super) fn verdict(&self) -> Option<Cut> {
        self.cut.take()
    }

    /// Carries out what the sweep has decided. True: nothing is left to do but to drop it.
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
            // If bytes have come just now, they are served. A silent peer is closed without an answer: it has asked nothing.
            (Cut::Head | Cut::Room, _) if wire.has_unread(cx) => return false,
            (Cut::Room, None) if wire.has_begun() => {
                self.refuse(wire, Unserved::Full);
                return false;
            }
            (Cut::Head, None) => return true,
            _ => {}
        }
        if cut != Cut::Room {
            // At once, with all that the kernel still holds of it.
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

    /// There is an engine for it now.
    pub(super) fn has_engine(&self) {
        self.engine.set(EngineState::Running);
    }

    /// Whether the engine is to go: it has had nothing to do for a while, and holds nothing.
    pub(super) fn parts_with_engine(&self) -> bool {
        if self.engine.get() != EngineState::Idle {
            return false;
        }
        let idle = self.phase.get() == Phase::Waiting && !self.wire.borrow().is_ready();
        self.engine.set(match idle {
            true => EngineState::None,
            false => EngineState::Running,
        });
        idle
    }

    /// Without an engine: until there is a whole head for one.
    pub(super) fn poll_head(&self, cx: &mut Context<'_>) -> Poll<io::Result<Input>> {
        if self.phase.get() == Phase::Closing {
            return Poll::Ready(Ok(Input::End));
        }
        self.wire.borrow_mut().poll_head(self, cx, None)
    }

    /// The handler has taken so many bytes of the body.
    pub(super) fn body_read(&self, bytes: usize) {
        let unread = self.unread.get().saturating_sub(bytes);
        self.unread.set(unread);
        if unread == 0 {
            self.pieces.set(0);
        }
        if !self.is_full() && self.blocked.replace(false) {
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

    /// Counts an answer in the common sum, if it is large enough to matter.
    pub(super) fn hold_answer(&self, bytes: usize) -> Option<Held> {
        let held = self.worker.shared.answers.hold(bytes)?;
        self.holds.set(bytes);
        Some(held)
    }

    /// Whether answers say that the connection ends with them.
    pub(super) fn is_leaving(&self) -> bool {
        self.worker.is_leaving()
    }

    fn is_full(&self) -> bool {
        self.unread.get() >= WINDOW || self.pieces.get() >= MAX_PIECES
    }

    /// What the engine reads.
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
                Phase::Closing => Input::End,
            };
            match next {
                Input::Ready => {}
                Input::Given | Input::End => return Poll::Ready(Ok(())),
            }
        }
    }

    /// What the engine writes.
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

    /// The engine calls this once the kernel has all that it had to write.
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
                self.go_on(Phase::Waiting, keep_alive);
                if wire.has_more() {
                    self.worker.wants_turn(self);
                }
            } else {
                // What is left of the body would be taken for a request.
                self.begin_end();
            }
        }
        // A socket has nothing to flush.
        Poll::Ready(Ok(()))
    }

    /// Nothing more is served here, and the kernel has all that was.
    pub(super) fn begin_end(&self) {
        self.go_on(Phase::Closing, self.tick_after(LINGER));
    }

    /// Whether nothing more is served here.
    pub(super) fn is_ending(&self) -> bool {
        self.phase.get() == Phase::Closing
    }

    /// Says what is to be said, ends our side, and reads away what the peer has sent, or the kernel would take back what we said.
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
            self.go_on(Phase::Waiting, keep_alive);
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
            // It waits for us.
        } else if self.deadline.get() <= now {
            self.cut(match self.phase.get() {
                Phase::Waiting => Cut::Head,
                Phase::Serving => Cut::Body,
                Phase::Closing => Cut::Linger,
            });
        } else if stopping && waiting && self.may_leave() {
            self.wake();
        } else if waiting
            && self.engine.get() == EngineState::Running
            && now.since(self.since.get()) > Tick::SECOND
        {
            self.engine.set(EngineState::Idle);
            self.wake();
        }
    }

    fn cut(&self, cut: Cut) {
        self.cut.set(Some(cut));
        self.wake();
    }

    fn waited(&self, now: Tick) -> Option<u32> {
        let waits = self.phase.get() == Phase::Waiting && !self.queued.get();
        let waits = waits && self.turned_away.is_none();
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
        self.go_on(Phase::Serving, deadline);
        self.unread.set(0);
        self.pieces.set(0);
        self.blocked.set(false);
        self.body_unwanted.set(false);
        self.answered.set(false);
    }

    fn body_given(&self, bytes: usize) {
        self.unread.set(self.unread.get().saturating_add(bytes));
        self.pieces.set(self.pieces.get().saturating_add(1));
    }

    fn body_is_over(&self) {
        self.deadline.set(Tick::NEVER);
    }

    fn is_body_unwanted(&self) -> bool {
        self.body_unwanted.get()
    }

    fn waits_for_reader(&self) -> bool {
        let full = self.is_full();
        if full {
            self.blocked.set(true);
        }
        full
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
        // Without waiting for it to go: the next one is waiting.
        wire.end_with(answer, false);
        self.begin_end();
        tracing::debug!(reason = why.word(), "a connection was refused");
    }
}
