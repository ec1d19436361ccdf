//! A worker's own share of the edge: its clock, its list of connections, and the sweep over it. The sweep stands in for the timers
//! that each connection would otherwise have to wind and stop with every request.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use actix_server::GracefulShutdownSignal;
use futures_util::FutureExt as _;
use tokio::sync::Notify;

use super::clock::{TICK, Tick};
use super::places::{Answers, Places};
use super::{Bounds, Refuse};
use crate::telemetry::metrics::Metrics;

/// How many pipelined requests (those that came together with the one before them) a worker serves between two looks at the sockets.
/// The others wait for their turn, so that a thousand peers with a thousand requests each delay anybody else by a few requests only.
const TURNS: usize = 4;
/// Bytes that are read at once where they don't go straight to the engine.
pub(super) const READ: usize = 8 * 1024;

/// What the workers of a listener share.
pub(super) struct ListenerShared {
    /// What a connection may cost.
    pub bounds: Bounds,
    /// Who may be connected.
    pub places: Arc<Places>,
    /// What finished answers take.
    pub answers: Arc<Answers>,
    /// Those that are told why they get no place, and not longer than it takes.
    pub turned_away: Arc<Places>,
    /// What is counted; absent: nothing.
    pub metrics: Option<Arc<Metrics>>,
    /// The words of a dialect.
    pub refuse: Refuse,
    /// How many workers there are.
    pub workers: usize,
    /// Whether answers say that the connection ends with them.
    pub leaving: Arc<AtomicBool>,
    /// Whether newcomers are being refused, as the log knows it.
    pub full: AtomicBool,
}

/// Why a connection is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// No request came, or its head did not end.
    Head,
    /// A body did not end.
    Body,
    /// An answer is not taken.
    Write,
    /// Large answers are not taken, and take too much memory.
    Answers,
    /// Somebody else needs the place.
    Room,
    /// Its end took too long.
    Linger,
}

impl Cut {
    /// Its word in a metric; none where it is the ordinary end.
    pub(super) fn word(self) -> Option<&'static str> {
        match self {
            Cut::Body => Some("body"),
            Cut::Write => Some("write"),
            Cut::Answers => Some("answers"),
            Cut::Room => Some("room"),
            Cut::Head | Cut::Linger => None,
        }
    }
}

/// A connection, as its worker sees it.
pub(super) trait Swept {
    /// Whose it is, as far as shares go.
    fn address(&self) -> Option<IpAddr>;
    /// Its place in the worker's list.
    fn index(&self) -> &Cell<usize>;
    /// Whether its task has ended.
    fn is_gone(&self) -> bool;
    /// It waits for its turn from now on, and the sweep leaves it alone. False: it waits already.
    fn joins_queue(&self) -> bool;
    /// Its turn has come. Waiting for it was not its peer's fault, so its time for the next head starts now.
    fn leaves_queue(&self);
    /// Wakes the task that carries it.
    fn wake(&self);
    /// Looks whether something is due.
    fn sweep(&self, now: Tick, stopping: bool);
    /// How many ticks it has only waited, if it does.
    fn waited(&self, now: Tick) -> Option<u32>;
    /// For how many ticks it has taken nothing of an answer, if there is one to take.
    fn stalled(&self, now: Tick) -> Option<u32>;
    /// Bytes of its answer that count in the common sum.
    fn holds(&self) -> usize;
    /// Has its task end it.
    fn cut(&self, cut: Cut);
}

/// One worker's share.
pub(super) struct Worker {
    /// What it shares with the others.
    pub shared: Arc<ListenerShared>,
    started: Instant,
    now: Cell<Tick>,
    connections: RefCell<Vec<Rc<dyn Swept>>>,
    scratch: RefCell<Vec<u8>>,
    stopping: Cell<bool>,
    /// Turns given since the last look at the sockets, and who waits for one.
    given: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<dyn Swept>>>,
    first_given: Notify,
}

impl Worker {
    /// Begins to sweep, on the worker's own thread.
    pub(super) fn start(shared: Arc<ListenerShared>, stop: GracefulShutdownSignal) -> Rc<Self> {
        let worker = Rc::new(Self {
            shared,
            started: Instant::now(),
            now: Cell::new(Tick::START),
            connections: RefCell::default(),
            scratch: RefCell::new(vec![0; READ]),
            stopping: Cell::new(false),
            given: Cell::new(0),
            waiting: RefCell::default(),
            first_given: Notify::new(),
        });
        let sweeping = Rc::clone(&worker);
        // Ends with the worker's runtime.
        tokio::task::spawn_local(async move {
            let mut stopped = std::pin::pin!(stop.notified().fuse());
            loop {
                futures_util::select! {
                    () = stopped => sweeping.stopping.set(true),
                    () = Box::pin(tokio::time::sleep(TICK).fuse()) => {}
                }
                sweeping.sweep();
            }
        });
        let giving = Rc::clone(&worker);
        tokio::task::spawn_local(async move { giving.give_turns().await });
        worker
    }

    /// The time, up to a tick behind.
    pub(super) fn now(&self) -> Tick {
        self.now.get()
    }

    /// Whether the server stops: who waits for a request waits for nothing.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Whether answers say that the connection ends with them.
    pub(super) fn is_leaving(&self) -> bool {
        self.stopping.get() || self.shared.leaving.load(Ordering::Relaxed)
    }

    /// [`READ`] bytes to read into.
    pub(super) fn scratch(&self) -> RefMut<'_, Vec<u8>> {
        self.scratch.borrow_mut()
    }

    /// Takes a connection into the sweep.
    pub(super) fn add(&self, connection: Rc<dyn Swept>) {
        let mut connections = self.connections.borrow_mut();
        connection.index().set(connections.len());
        connections.push(connection);
    }

    /// Takes it out again.
    pub(super) fn forget(&self, connection: &dyn Swept) {
        let mut connections = self.connections.borrow_mut();
        let index = connection.index().get();
        if index < connections.len() {
            connections.swap_remove(index);
        }
        if let Some(moved) = connections.get(index) {
            moved.index().set(index);
        }
    }

    /// A connection has its next request already: it is woken when it is its turn.
    pub(super) fn wants_turn(&self, connection: &dyn Swept) {
        if self.given.get() < TURNS && self.waiting.borrow().is_empty() {
            self.give_turn(connection);
            return;
        }
        let connections = self.connections.borrow();
        if let Some(connection) = connections.get(connection.index().get())
            && connection.joins_queue()
        {
            self.waiting.borrow_mut().push_back(Rc::clone(connection));
        }
    }

    fn give_turn(&self, connection: &dyn Swept) {
        let given = self.given.get();
        self.given.set(given + 1);
        connection.wake();
        if given == 0 {
            self.first_given.notify_one();
        }
    }

    /// Gives the next turns whenever the runtime has looked at its sockets.
    async fn give_turns(&self) {
        loop {
            self.first_given.notified().await;
            loop {
                // The runtime comes back to a task that yields only after such a look.
                tokio::task::yield_now().await;
                self.given.set(0);
                while self.given.get() < TURNS
                    && let Some(connection) = self.next_waiting()
                {
                    connection.leaves_queue();
                    self.give_turn(&*connection);
                }
                if self.given.get() == 0 {
                    break;
                }
            }
        }
    }

    fn next_waiting(&self) -> Option<Rc<dyn Swept>> {
        let mut waiting = self.waiting.borrow_mut();
        loop {
            let next = waiting.pop_front()?;
            if !next.is_gone() {
                return Some(next);
            }
        }
    }

    fn sweep(&self) {
        let now = Tick::after(self.started.elapsed());
        self.now.set(now);
        let connections = self.connections.borrow();
        for connection in connections.iter() {
            connection.sweep(now, self.is_stopping());
        }
        let places = &self.shared.places;
        let crowd = places.to_be_freed();
        if crowd > 0 {
            make_room(
                &connections,
                places,
                now,
                crowd.div_ceil(self.shared.workers),
            );
        } else if self.shared.full.swap(false, Ordering::Relaxed) {
            tracing::info!(
                connections = places.taken(),
                "new connections are taken again"
            );
        }
        let excess = self.shared.answers.excess();
        if excess > 0 {
            give_up_answers(&connections, now, excess.div_ceil(self.shared.workers));
        }
    }
}

/// For how many ticks a connection has only waited.
type Waited<'a> = (u32, &'a Rc<dyn Swept>);

/// Ends so many connections that have only waited for a while: those of the addresses that have most of them, and of theirs those
/// that have waited longest. A trusted proxy's stand for many callers, each of them for another.
fn make_room(connections: &[Rc<dyn Swept>], places: &Places, now: Tick, wanted: usize) {
    let mut waiting: HashMap<Option<IpAddr>, Vec<Waited<'_>>> = HashMap::new();
    for connection in connections {
        if let Some(waited) = connection
            .waited(now)
            .filter(|waited| *waited > Tick::SECOND)
        {
            let of_address = waiting.entry(connection.address()).or_default();
            of_address.push((waited, connection));
        }
    }
    for of_address in waiting.values_mut() {
        of_address.sort_unstable_by_key(|(waited, _)| *waited);
    }
    let stands_for_many =
        |address: &Option<IpAddr>| address.is_some_and(|address| places.is_exempt(address));
    let sizes = waiting.iter().map(|(address, list)| {
        let size = if stands_for_many(address) {
            1
        } else {
            list.len()
        };
        (size, *address)
    });
    let mut largest: BinaryHeap<(usize, Option<IpAddr>)> = sizes.collect();
    for _ in 0..wanted {
        let Some((size, address)) = largest.pop() else {
            return;
        };
        let longest = waiting.get_mut(&address).and_then(Vec::pop);
        if let Some((_, connection)) = longest {
            connection.cut(Cut::Room);
        }
        let left = waiting.get(&address).map_or(0, Vec::len);
        if left > 0 {
            largest.push(((size - 1).max(1), address));
        }
    }
}

/// Cuts connections that don't take their large answers, the longest stalled first, until half of the memory is free.
fn give_up_answers(connections: &[Rc<dyn Swept>], now: Tick, mut excess: usize) {
    let stalled = connections.iter().filter_map(|connection| {
        let stalled = connection.stalled(now)?;
        (connection.holds() > 0 && stalled > Tick::SECOND).then_some((stalled, connection))
    });
    let mut stalled: Vec<_> = stalled.collect();
    stalled.sort_unstable_by_key(|(stalled, _)| std::cmp::Reverse(*stalled));
    for (_, connection) in stalled {
        if excess == 0 {
            return;
        }
        excess = excess.saturating_sub(connection.holds());
        connection.cut(Cut::Answers);
    }
}
