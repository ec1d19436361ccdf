//! The edge: what stands between an accepted socket and the HTTP engine (actix-http), so that a connection costs what is written
//! here whatever its peer does.
//!
//! The engine takes requests out of a whole read of 128 KiB before it looks how many it has, wakes itself as long as more is there,
//! keeps up to 128 KiB of an unfinished head, and never gives up writing. So it is given a stream of our own:
//!
//! - `head`: one request at a time, and only when its head is whole, legal and short enough; else we answer, in the words of the
//!   dialect that its path names. The next request of the same connection waits until the answer before it is with the kernel.
//! - `chunks`: a chunked body comes in chunks of ours. Of any body the engine gets 8 KiB more than the handler has read.
//! - `wire` and `connection`: what is read and written when; `patience`: how long a peer may leave its answer waiting.
//! - `worker`: the sweep over all connections of a worker, which has the time for them. After a second without a request a
//!   connection has no engine any more and costs some 10 KB.
//! - `places`: how many connections there may be, and how much memory finished answers may take that nobody takes.
//! - `serve`: accepts and carries; `door`: how a listener is closed.
//!
//! What a connection costs at most: its head (`max_head_bytes`) or, while a request is being served, some 20 KB for the engine and
//! 8 KiB of its body, or 32 KiB of its answer, and its share of the answers' sum.

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

/// The words for a refusal, in the dialect that the path names.
pub(crate) type Refuse = fn(path: &[u8], why: Unserved) -> HttpResponse;

/// What connections may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Open connections, of all workers together.
    pub max_connections: usize,
    /// Of them from one address; 0: no bound.
    pub max_connections_per_address: usize,
    /// Beyond them, those that are just being told so.
    pub max_turned_away: usize,
    /// Bytes of a request's line and headers.
    pub max_head_bytes: usize,
    /// Until a head must be there: from the start of the connection, then from the head's first byte.
    pub head_timeout: Duration,
    /// Until a body must be there.
    pub body_timeout: Duration,
    /// How long a peer may take nothing of its answer.
    pub write_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub keep_alive: Duration,
}

/// A listener's edge, before it is served.
pub(crate) struct Edge {
    /// What the server is called in its own log lines.
    pub name: &'static str,
    /// What connections may cost.
    pub bounds: Bounds,
    /// Addresses that stand for many callers, so that `max_connections_per_address` is not for them.
    pub trusted_proxies: Vec<IpNet>,
    /// The words of a refusal.
    pub refuse: Refuse,
    /// What is counted; absent: nothing.
    pub metrics: Option<Arc<Metrics>>,
    /// The memory of finished answers.
    pub answers: Arc<Answers>,
    /// Worker threads; 0: one per core.
    pub workers: usize,
    /// Seconds for requests in flight when the server stops.
    pub grace_seconds: u64,
    /// Set: every answer says that its connection ends with it.
    pub leaving: Arc<AtomicBool>,
}

/// Has every answer from now on say that its connection ends with it, so that callers go elsewhere before the server stops.
pub(crate) fn leave(leaving: &AtomicBool) {
    leaving.store(true, Ordering::Relaxed);
}
