//! What one worker thread of the edge has: its clock, the list of its connections, and the sweep, which looks at each of them in
//! every tick. Without the sweep each connection would have to start and stop timers with every request.

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

/// How many pipelined requests a worker serves between two looks at its sockets. A pipelined request is one that its peer has
/// sent before the answer to the one before. The others wait for their turn, so that a thousand peers with a thousand requests
/// each delay anybody else by a few requests only.
const TURNS: usize = 4;
/// The most bytes that are read at once where they don't go straight into the engine's buffer.
pub(super) const READ: usize = 8 * 1024;

/// What the workers of a listener share. `bounds`, `metrics`, `refuse`, `answers` and `leaving` are those of
/// [`Edge`](super::Edge).
pub(super) struct ListenerShared {
    /// The bounds of what connections may cost.
    pub bounds: Bounds,
    /// Where connections are counted.
    pub metrics: Option<Arc<Metrics>>,
    /// Makes the answer to a refused request.
    pub refuse: Refuse,
    /// The memory that answers may hold.
    pub answers: Arc<Answers>,
    /// Whether answers say that the connection ends with them.
    pub leaving: Arc<AtomicBool>,
    /// How many workers there are.
    pub workers: usize,
    /// The places of connections that are served.
    pub places: Arc<Places>,
    /// The places of connections that are being told that there is no place.
    pub turned_away: Arc<Places>,
    /// Whether newcomers are refused for want of places. It is logged when this changes.
    pub full: AtomicBool,
}

/// Why the sweep ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// No request came in time, or no whole head of one.
    Head,
    /// No whole body came in time.
    Body,
    /// The peer has left its answer waiting for too long.
    Write,
    /// The peer does not take its large answer, and answers hold too much memory.
    Answers,
    /// It only waits, and newcomers need its place.
    Place,
    /// It is at its end, and the peer does not go.
    Linger,
}

impl Cut {
    /// Its word in a metric. None: it is an ordinary end, which is not counted.
    pub(super) fn word(self) -> Option<&'static str> {
        match self {
            Cut::Body => Some("body"),
            Cut::Write => Some("write"),
            Cut::Answers => Some("answers"),
            // The metric's word for a place. It is not the room of the glossary.
            Cut::Place => Some("room"),
            Cut::Head | Cut::Linger => None,
        }
    }
}

/// What the worker asks of a connection, and tells it.
pub(super) trait Swept {
    /// The network that it comes from, as places are counted. None: unknown.
    fn address(&self) -> Option<IpAddr>;
    /// Where it stands in the worker's list.
    fn index(&self) -> &Cell<usize>;
    /// Whether its task has ended.
    fn is_gone(&self) -> bool;
    /// From now on it waits for its turn, and the sweep leaves it alone. Answers false if it waits already.
    fn joins_queue(&self) -> bool;
    /// Its turn has come. The wait was not its peer's fault, so the peer's time for a head begins now.
    fn leaves_queue(&self);
    /// Wakes its task.
    fn wake(&self);
    /// Ends it if it is overdue, and wakes its task if there is something to do.
    fn sweep(&self, now: Tick, stopping: bool);
    /// For how many ticks it has done nothing but wait for a request. None: it does something.
    fn waited(&self, now: Tick) -> Option<u32>;
    /// For how many ticks its peer has taken nothing of its answer. None: no write waits.
    fn stalled(&self, now: Tick) -> Option<u32>;
    /// How many bytes of its answer are counted in [`Answers`].
    fn holds(&self) -> usize;
    /// Has its task end it, for that reason.
    fn cut(&self, cut: Cut);
}

/// One worker thread of a listener.
pub(super) struct Worker {
    /// What it shares with the other workers.
    pub shared: Arc<ListenerShared>,
    started: Instant,
    now: Cell<Tick>,
    connections: RefCell<Vec<Rc<dyn Swept>>>,
    scratch: RefCell<Vec<u8>>,
    stopping: Cell<bool>,
    /// How many turns were given since the last look at the sockets.
    turns_given: Cell<usize>,
    /// The connections that wait for their turn.
    queue: RefCell<VecDeque<Rc<dyn Swept>>>,
    /// Wakes what waits for the first turn after a look at the sockets.
    first_turn: Notify,
}

impl Worker {
    /// Starts the sweep and the giving of turns. Call it on the worker's own thread.
    pub(super) fn start(shared: Arc<ListenerShared>, stop: GracefulShutdownSignal) -> Rc<Self> {
        let worker = Rc::new(Self {
            shared,
            started: Instant::now(),
            now: Cell::new(Tick::START),
            connections: RefCell::default(),
            scratch: RefCell::new(vec![0; READ]),
            stopping: Cell::new(false),
            turns_given: Cell::new(0),
            queue: RefCell::default(),
            first_turn: Notify::new(),
        });
        let sweeping = Rc::clone(&worker);
        // Both tasks end with the worker's runtime.
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

    /// The time, at most one tick behind.
    pub(super) fn now(&self) -> Tick {
        self.now.get()
    }

    /// Whether the server stops: connections need not wait for further requests.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Whether answers say that the connection ends with them.
    pub(super) fn is_leaving(&self) -> bool {
        self.stopping.get() || self.shared.leaving.load(Ordering::Relaxed)
    }

    /// A buffer of [`READ`] bytes to read into.
    pub(super) fn scratch(&self) -> RefMut<'_, Vec<u8>> {
        self.scratch.borrow_mut()
    }

    /// Takes a connection into the sweep.
    pub(super) fn add(&self, connection: Rc<dyn Swept>) {
        let mut connections = self.connections.borrow_mut();
        connection.index().set(connections.len());
        connections.push(connection);
    }

    /// Takes a connection out of the sweep.
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

    /// A connection has its next request already. It is woken when its turn comes.
    pub(super) fn wants_turn(&self, connection: &dyn Swept) {
        if self.turns_given.get() < TURNS && self.queue.borrow().is_empty() {
            self.give_turn(connection);
            return;
        }
        let connections = self.connections.borrow();
        if let Some(connection) = connections.get(connection.index().get())
            && connection.joins_queue()
        {
            self.queue.borrow_mut().push_back(Rc::clone(connection));
        }
    }

    fn give_turn(&self, connection: &dyn Swept) {
        let given = self.turns_given.get();
        self.turns_given.set(given + 1);
        connection.wake();
        if given == 0 {
            self.first_turn.notify_one();
        }
    }

    /// Gives the next turns each time the runtime has looked at its sockets.
    async fn give_turns(&self) {
        loop {
            self.first_turn.notified().await;
            loop {
                // The runtime looks at its sockets before it comes back to a task that has yielded.
                tokio::task::yield_now().await;
                self.turns_given.set(0);
                while self.turns_given.get() < TURNS
                    && let Some(connection) = self.next_in_queue()
                {
                    connection.leaves_queue();
                    self.give_turn(&*connection);
                }
                if self.turns_given.get() == 0 {
                    break;
                }
            }
        }
    }

    /// The first in the queue whose task has not ended.
    fn next_in_queue(&self) -> Option<Rc<dyn Swept>> {
        let mut queue = self.queue.borrow_mut();
        loop {
            let next = queue.pop_front()?;
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
        let to_free = places.to_be_freed();
        if to_free > 0 {
            // Each worker frees its part.
            let of_own = to_free.div_ceil(self.shared.workers);
            free_places(&connections, places, now, of_own);
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

/// A connection that only waits, and for how many ticks it has.
type Waited<'a> = (u32, &'a Rc<dyn Swept>);

/// Ends as many waiting connections as are `wanted`: each time one of the address that has most of them, and of that address the
/// one that has waited longest. A trusted proxy's connections come from many callers, so each counts as if it were the only one
/// of its address.
fn free_places(connections: &[Rc<dyn Swept>], places: &Places, now: Tick, wanted: usize) {
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
    let sizes = waiting.iter().map(|(address, list)| {
        let size = match address {
            Some(address) if places.is_exempt(*address) => 1,
            _ => list.len(),
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
            connection.cut(Cut::Place);
        }
        let left = waiting.get(&address).map_or(0, Vec::len);
        if left > 0 {
            largest.push(((size - 1).max(1), address));
        }
    }
}

/// Ends connections whose peers don't take their large answers, the longest stalled first, until `excess` bytes are free.
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
