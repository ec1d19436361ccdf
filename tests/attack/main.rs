//! Attacks: the real binary and real Redis processes under what hostile peers and a broken world do to them. `make test-attack`.
//!
//! What an attack by peers has to show: what it costs the pod, read from `/proc`, is bounded; nobody else notices much; and
//! whoever is refused is told so in words. What clocks and foreign bytes have to show: no answer is wrong for good, and no pod
//! ends.
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

/// Clocks step, and clocks differ.
#[cfg(target_os = "linux")]
mod clocks;

/// Keys of another type, records in another form, keys that nobody wrote.
mod poison;

/// Bodies that stall, that are many, and that take long to take apart.
#[cfg(target_os = "linux")]
mod bodies;
/// Peers that mean harm, and what a pod costs meanwhile.
mod peer;

/// Somebody who asks meanwhile.
mod victim;

/// What is measured in time, and runs alone.
mod alone;

/// Requests by the thousand, and nobody reads the answers.
mod pipelining;

/// Heads that are slow, endless, or no heads.
mod heads;

/// Bodies that are slow or endless, and connections on which nothing happens.
mod slow;

/// Streams whose readers stop, and streams that are opened and dropped by the thousand.
#[cfg(target_os = "linux")]
mod streams;

/// What each of them is told, dialect by dialect.
mod words;

/// More connections than there are places, and fewer files than there should be.
mod full;

/// Ten thousand at once.
mod crowd;

/// Well-behaved callers, in all the ways that the bounds could get in theirs.
mod calm;
