//! Faults on purpose: the real binary and real Redis processes, with something between them or inside them going wrong
//! while events flow. Minutes, not seconds, so `make test-faults` runs these and `make test` does not.
//!
//! What every one of them has to show: what was acknowledged is there and counted once, every caller was answered within
//! the deadline, and service came back without a restart. Each puts a row into the table that `make fault-report` writes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    dead_code,
    missing_docs
)]

/// Servers, pods, configuration and one client with a method per endpoint (shared with the integration tests).
#[path = "../it/support.rs"]
mod support;

/// Redis in the shapes that it takes in production (shared).
#[path = "../it/servers.rs"]
mod servers;

/// What every answer has to be (shared).
#[path = "../it/model.rs"]
mod model;

/// Asks every endpoint and compares the answers with the model's (shared).
#[path = "../it/check.rs"]
mod check;

/// Long random histories against the model (shared).
#[path = "../it/random.rs"]
mod random;

/// Traffic whose outcome does not depend on its order (shared).
#[path = "../it/traffic.rs"]
mod traffic;

/// What each dialect says when Redis does not answer (shared).
#[path = "../it/refusal.rs"]
mod refusal;

/// What happens to a cluster and behind sentinels, at a length that the caller chooses (shared).
#[path = "../it/scenarios.rs"]
mod scenarios;

/// A TCP proxy that misbehaves as told.
mod proxy;

/// Callers that send until they are answered, readers that watch, and what they measure.
mod storm;

/// The table of faults and the table of sizes.
mod report;

/// Connections misbehave at random, or in one chosen way.
mod connections;

/// One Redis is killed, frozen, flushed, full, loading, read only, or wants another password.
mod one_redis;

/// Pods are killed while their connections misbehave.
mod pods;

/// The master dies and a replica takes over.
mod failover;

/// Clocks step, and clocks differ.
#[cfg(target_os = "linux")]
mod clocks;

/// Rooms of 100,000 and of 10,000.
mod sizes;

/// Far more callers than can be served.
mod overload;

/// What `tests/it` does once to a cluster and behind sentinels is done again and again, with more of everything.
mod long;
