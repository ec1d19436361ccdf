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
    missing_docs
)]

/// Processes, a client, the model, and what else all test binaries share.
#[path = "../support/mod.rs"]
mod support;

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

/// Streams of counts on two pods.
mod live;

/// Clocks step, and clocks differ.
#[cfg(target_os = "linux")]
mod clocks;

/// Rooms of 100,000 and of 10,000.
mod sizes;

/// Far more callers than can be served.
mod overload;

/// What `tests/it` does once to a cluster and behind sentinels is done again and again, with more of everything.
mod long;
