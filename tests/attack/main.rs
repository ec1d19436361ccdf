//! Attacks: the real binary and real Redis processes under what a hostile or broken world does to them. `make test-attack`.
//!
//! What an attack by callers costs the pod is read from `/proc` and has to be bounded; nobody else may notice much; and whoever
//! is refused has to be told so in words.
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

/// A pod that stops in the middle of its work (shared).
#[path = "../it/wire.rs"]
mod wire;

/// Clocks step, and clocks differ.
#[cfg(target_os = "linux")]
mod clocks;

/// Keys of another type, records in another form, keys that nobody wrote.
mod poison;

/// Bodies that stall, that are many, and that take long to take apart.
#[cfg(target_os = "linux")]
mod bodies;
