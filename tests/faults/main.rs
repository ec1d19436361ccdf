//! Faults for minutes: what `tests/it` does once is done here again and again, with more of everything. Run by
//! `make test-faults`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    dead_code,
    missing_docs
)]

#[path = "../it/support.rs"]
mod support;

#[path = "../it/servers.rs"]
mod servers;

#[path = "../it/model.rs"]
mod model;

#[path = "../it/check.rs"]
mod check;

#[path = "../it/random.rs"]
mod random;

#[path = "../it/traffic.rs"]
mod traffic;

#[path = "../it/scenarios.rs"]
mod scenarios;

/// The tests of this binary; those of the modules above belong to the other one.
mod long;
