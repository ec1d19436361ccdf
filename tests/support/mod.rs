//! What all test binaries share: processes, a client, the model and what compares answers with it.
//!
//! Processes are started and stopped here and nowhere else, always by the handle of the process that we started ourselves. What
//! takes time is waited for with [`until`] or [`eventually`]; a sleep is the pace of a caller, or the length of a fault.
//!
//! It is a module and not a crate, so each binary compiles it anew. Measured: as a crate it would save a twelfth of the CPU time
//! that all four binaries take to compile, and cost `make test`, which compiles one of them, two fifths more.
#![allow(dead_code, unreachable_pub, reason = "no binary uses all of it")]

/// Waiting for conditions.
pub mod wait;

/// Processes, by their handles.
mod process;

/// One `redis-server`.
mod redis_server;

/// Redis as a cluster, behind sentinels, and over TLS.
pub mod servers;

/// Realtime clocks that a test sets.
pub mod clock;

/// The configuration of a pod.
mod config;

/// The program, and its commands that run to their end.
mod program;

/// A running pod.
mod pod;

/// A client with a method for each endpoint.
mod client;

/// Clients of streams.
pub mod stream;

/// Clients of streams that come again.
pub mod watchers;

/// Tokens and signatures.
mod tokens;

/// A Redis and a pod, shared by many tests or a test's own.
mod fixture;

/// The Lua scripts as Redis gets them.
pub mod scripts;

/// What every answer has to be.
#[path = "../model/mod.rs"]
pub mod model;

/// What a random history may be without.
pub mod words;

/// Asks every endpoint and compares the answers with the model's.
pub mod check;

/// Random histories against the model.
pub mod history;

/// Traffic whose outcome does not depend on its order.
pub mod traffic;

/// What each dialect says when Redis does not answer.
pub mod refusal;

/// What happens to a cluster and behind sentinels, at a length that the caller chooses.
pub mod scenarios;

/// A pod that stops at a script.
pub mod stopped;

#[allow(unused_imports, reason = "no binary uses all of them")]
pub use self::{
    client::{App, Reply, Wait, escaped, raw},
    config::{AppKeys, Config, RateLimit, quoted},
    fixture::{Own, app},
    pod::Pod,
    process::{memory_of, signal},
    program::{Ran, assert_no_drift, run, run_unread, unread},
    redis_server::{RedisServer, free_port},
    tokens::{
        hmac_sha256, imkit_token, imkit_token_of, now_seconds, pack_usersig, tencent_usersig,
        user_token,
    },
    wait::{PATIENCE, eventually, until},
};
