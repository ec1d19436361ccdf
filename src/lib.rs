//! `unread`: exact unread counts for chat back ends, kept in Redis, answered in the wire formats of three vendors.
//!
//! # The map
//!
//! A request comes in through [`app`] (listeners, start and stop) and [`http`] (the tables of the dialects' calls). A dialect
//! parses, asks the [`limiter`], makes one call of the [`store`], and renders. The store speaks to Redis through [`scripts`]
//! (one atomic operation per file in `lua/`) on [`connection`], with keys that only [`keys`] spells.
//!
//! Dependencies point one way; `tests/it/layering.rs` holds them:
//!
//! ```text
//! main → cli (commands) → app → http (dialects) → limiter, store → scripts, keys, connection → redis, deadpool_redis
//! cli, app → demo (sample data, the private redis-server)
//! anyone → names, json, event, quota, shares, error, outcome          config ← cli, app, http, store          telemetry ← anyone
//! ```
//!
//! # How an event gets counted
//!
//! 1. `POST /v1/events` turns each object into an [`event::Event`], from the bytes of the body and one by one; what is no event
//!    is rejected, the others go on.
//! 2. The store groups them by room, announces the rooms in an index outside their slots, and runs each room's accepting
//!    script: it numbers messages, remembers ids, and records the *fan-out* in the room's slot, in one atomic step.
//! 3. The fan-out brings every member's slot a snapshot of the room and the event's own mark. `deliver.lua` merges: repeated,
//!    late and reordered deliveries end in the same state, because it keeps positions and moves the plain counts by the
//!    difference. Then the record is cleared, and the caller is told `applied`.
//! 4. A pod that dies in between leaves the record behind. Every pod sweeps the index and finishes what it finds.
//!
//! The commands of [`cli`] look after the data from beside the pods: `verify` recomputes every plain count from the positions and
//! compares the positions with their rooms.
//! `import` is the other door for events: lines of a file, past HTTP, on the same way from step 2 on.
//!
//! A supergroup has no step 3: its members' counts are worked out from the room's head when they are read.
//!
//! # How rooms are listed
//!
//! The snapshot of step 3 also says when the room was made and when its last message was, so a user's slot is enough to
//! filter and sort thousands of rooms. Only those of the page are asked what they are called and who is in them.
//!
//! # What is not here, on purpose
//!
//! No handler talks to Redis. No script builds a key, and every key of a call is declared. No increment per message: a count
//! is a difference of positions. No script runs while its slot of a cluster is in two places ([`keys::guard`]), and no
//! request is sent to all nodes. No `MULTI`, no `WATCH`, no blocking command but the `WAIT` of
//! durability, which has connections of its own. No lock is held across an await. No setting is
//! read after the start. Pods hold nothing that matters: the list of members that a pod keeps is used only if the room
//! says that it is current.

pub mod names;
pub mod json;
pub mod event;
pub mod error;
pub mod outcome;
pub mod quota;
pub mod shares;

pub mod config;
pub mod cli;
pub mod demo;
pub mod app;
pub mod open_files;

pub mod http;
pub mod limiter;

pub mod counts;
pub mod engine;
pub mod intake;
pub mod audit;
pub mod scripts;
pub mod keys;
pub mod connection;

pub mod telemetry;
