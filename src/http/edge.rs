//! The edge stands between an accepted socket and the HTTP engine (actix-http). It bounds what a connection costs, whatever its
//! peer does.
//!
//! The engine alone sets no such bounds. It parses all requests of a read of 128 KiB before it counts them, wakes itself as long
//! as more bytes are there, keeps up to 128 KiB of an unfinished head, and waits for ever for a peer that takes nothing. So the
//! edge gives it a stream of its own in place of the socket:
//!
//! - `head`: the engine gets one request at a time, and only when its head is whole, legal and short enough. Any other request
//!   the edge answers itself, in the words of the dialect that the path names.
//! - `wire`: the socket and its buffers: which bytes the engine may see, and when. The next request of a connection waits until
//!   the kernel has the answer to the one before. Of a body the engine gets at most 8 KiB more than the handler has read.
//! - `chunks`: a chunked body is put into new chunks, so that the engine never sees the peer's own.
//! - `connection`: the state of one connection, for the engine, the handlers and the sweep.
//! - `patience`: how long a peer may leave its answer waiting.
//! - `worker`: all connections of one thread, and the sweep that looks at each of them every 250 ms. It ends what is overdue. It
//!   also takes the engine from a connection that has waited for a second: without one, a connection costs some 10 KB.
//! - `clock`: the time that the sweep goes by.
//! - `places`: how many connections there may be, and how much memory the answers may hold that their peers have not taken.
//! - `serve`: accepts connections, and runs each to its end. `door`: closes a listener. `words`: answers written without the
//!   engine.
//!
//! So a connection costs at most `max_head_bytes` while it waits for a request. While a request is served, it costs some 20 KB
//! for the engine, 8 KiB of the body or 32 KiB of the answer, and what `places` counts of a large answer.

mod chunks;
mod clock;
mod connection;
mod door;
mod head;
mod patience;
mod places;
mod serve;
mod wire;
mod words;
mod worker;
#[cfg(fuzzing)]
#[path = "../../fuzz/doors/heads.rs"]
#[doc(hidden)]
pub mod fuzzing;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::HttpResponse;
use ipnet::IpNet;

use crate::http::unserved::Unserved;
use crate::telemetry::metrics::Metrics;

pub(crate) use door::shut;
pub(crate) use places::Answers;
pub(crate) use serve::server;

/// Makes the answer to a refused request, in the words of the dialect that the path names.
pub(crate) type Refuse = fn(path: &[u8], why: Unserved) -> HttpResponse;

/// The bounds of what connections may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Open connections of all workers together.
    pub max_connections: usize,
    /// Open connections from one address; 0: no bound.
    pub max_connections_per_address: usize,
    /// Connections beyond these that are being told that there is no place.
    pub max_turned_away: usize,
    /// Bytes of a request's line and headers.
    pub max_head_bytes: usize,
    /// How long a head may take: the first one from the start of the connection, each later one from its first byte.
    pub head_timeout: Duration,
    /// How long a body may take.
    pub body_timeout: Duration,
    /// How long a peer may leave its answer waiting; see `patience`.
    pub write_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub keep_alive: Duration,
}

/// A listener's edge, before it is served.
pub(crate) struct Edge {
    /// What the server is called in its own log lines.
    pub name: &'static str,
    /// The bounds of what connections may cost.
    pub bounds: Bounds,
    /// Proxies, each of which stands for many callers: `max_connections_per_address` does not hold for them.
    pub trusted_proxies: Vec<IpNet>,
    /// Makes the answer to a refused request.
    pub refuse: Refuse,
    /// Where connections are counted. None: they are not, as at the admin address.
    pub metrics: Option<Arc<Metrics>>,
    /// The memory that answers may hold.
    pub answers: Arc<Answers>,
    /// Worker threads; 0: one per core.
    pub workers: usize,
    /// How many seconds requests have to end when the server stops.
    pub grace_seconds: u64,
    /// When this is set, every answer says that its connection ends with it.
    pub leaving: Arc<AtomicBool>,
}

/// From now on every answer says that its connection ends with it, so that callers go elsewhere before the server stops.
pub(crate) fn leave(leaving: &AtomicBool) {
    leaving.store(true, Ordering::Relaxed);
}
