//! The integration tests: black box, over HTTP, against the real binary and real Redis processes.
//!
//! Nothing here links the server's own code. Whatever a test believes about the numbers it gets from [`support::model`], which
//! is written from the definition of the counts and not from the program; tokens and signatures are built anew in
//! [`support`] for the same reason.
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

/// The tests of that support itself.
mod tools;

/// The tests of the model.
mod model;

/// Long random histories against the model, step by step.
mod random;

/// The deliveries of a random history, shuffled and repeated at the script level.
mod reorder;

/// Many writers and readers at the same time.
mod concurrent;

/// Pods and Redis die, stall and fill up; nothing acknowledged is lost.
mod crash;

/// What once went wrong, each by name.
mod regressions;

/// Whatever has happened: totals are the sums of what is listed, and no two endpoints disagree.
mod numbers;

/// Direct rooms: who the other one is, and who comes in by a message.
mod direct;

/// What is answered only when replicas have it.
mod durability;

/// The same on a cluster, behind sentinels and over TLS; slots move, masters freeze and die.
mod topology;

/// The least rights that `docs/redis.md` gives.
mod rights;

/// Streams of counts as they change.
mod live;

/// Rate limits: how many calls get through, and what a refusal looks like in each dialect.
mod limits;

/// Credentials that are refused again and again: what their address is told, and whom that must not concern.
mod credentials;

/// What a pod says of a Redis that is not set up as it should be.
mod setup;

/// What a pod says of a Redis that can't do its work: in its log, to its callers, in `/readyz` and in its metrics.
mod trouble;

/// A pod that is told to end, and signals that must not end one.
mod leaving;

/// The rate limiter's script by itself: clocks that step, and garbage in its key.
mod gcra;

/// What the scripts make of the golden records that both readers of the program are tested with.
mod records;

/// Bad input and bad days, endpoint by endpoint: what each dialect says, field by field.
mod api;

/// What is in `deploy/`, and the commands that belong to it: `probe` and `completions`.
mod deploy;

/// The commands as an operator types them: exit codes, one clear line for each mistake, what is left behind.
mod cli;

/// The console's calls on the admin port.
mod console;

/// What the commands beside the pods have in common.
mod commands;

/// Events from files and standard input: what the API would have come to, once, in order.
mod import;

/// What is unread, as CSV: written, compared, taken.
mod counts_files;

/// Which word may stand in which file of the program.
mod layering;

/// `docs/openapi.yaml`, held against the program.
mod openapi;

/// The documents are right: every link leads somewhere, every example is run, every setting exists.
mod documents;

/// No circles among the modules of the program.
mod circles;

/// Events with keys, and requests with one as a whole: sent again they change nothing.
mod repeats;

/// The version of the data's schema, and `migrate`.
mod schema;

/// A room cleared, a message that excepts some, a read up to a position, what a room adds to sums.
mod words;

/// `GET /rooms`: what a page costs, and what it must not miss.
mod listing;

/// The self-check on the command line: drift made on purpose is found, named and repaired; live traffic is none.
mod selfcheck;
