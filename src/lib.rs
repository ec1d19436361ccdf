//! `unread`: exact unread counts for chat back ends, kept in Redis, answered in the wire formats of three vendors.
//!
//! # The map
//!
//! Each module, and the modules that it may use. A test (`tests/it/circles.rs`) holds every arrow and finds every other one.
//!
//! ```text
//! cli → app, audit, config, demo, engine, error, http, inspector, intake, keys, names, pages, shell, telemetry
//! app → audit, config, demo, engine, error, http, huge_pages, inspector, open_files, pages, telemetry
//! pages → config, engine, error, http, inspector, names, telemetry
//! demo → config
//! http → config, counts, engine, error, event, json, limiter, names, outcome, shares, telemetry
//! limiter → config, error, names, quota, telemetry
//! inspector → audit, config, error, keys, names, shell
//! audit → connection, counts, engine, error, keys, names, scripts
//! intake → engine, error, event, names
//! engine → config, connection, counts, error, event, keys, names, quota, scripts, shares, telemetry
//! counts → error, keys, names
//! connection → config, error, keys, scripts, telemetry
//! scripts → keys
//! keys → names
//! event → error, json, names
//! telemetry → outcome
//! config → names, telemetry
//! error → outcome, quota
//! quota → names
//! ```
//!
//! Which word may stand in which file is for `tests/it/layering.rs`: one file spells keys, types of Redis stay behind `engine`
//! and `audit`, a vendor is named in its folder and in one list. What each word means stands in `docs/glossary.md`.
//!
//! # How a request is answered
//!
//! [`app`] starts the listeners. [`http`] finds out whose a request is: each dialect is a folder with a table of routes. A handler
//! parses, makes one call of a service of the [`engine`], and renders. A call over its limit fails by [`error::Error::Limited`].
//!
//! # How an event gets counted
//!
//! `docs/architecture.md` says it in four steps: [`event`] reads it, the writer of the [`engine`] accepts and delivers it by
//! [`scripts`], and a pod that finds an unfinished job finishes it. Lines of a file come in through [`intake`], past HTTP.
//!
//! # What looks after the data
//!
//! [`audit`] reads beside the pods and writes nothing: it recomputes every plain count from the positions, and compares the
//! positions with their rooms. Its repairer writes, through the writer; its migrator brings data of an earlier version up to
//! date.
//!
//! # What is not here, on purpose
//!
//! No handler talks to Redis. No script builds a key, and every key of a call is declared. No increment per message: a count
//! is a difference of positions. No script runs while its slot of a cluster is in two places ([`keys::guard`]), and no
//! request is sent to all nodes. No `MULTI`, no `WATCH`, no blocking command but the `WAIT` of
//! durability, which has connections of its own. No lock is held across an await. No setting is
//! read after the start. Pods hold nothing that matters: the list of members that a pod keeps is used only if the room
//! says that it is current.

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "a program: its documentation is for those who change it"
)]

pub(crate) mod names;
pub(crate) mod json;
pub(crate) mod event;
pub(crate) mod error;
pub(crate) mod outcome;
pub(crate) mod quota;
pub(crate) mod shares;
pub(crate) mod shell;

pub(crate) mod config;
pub mod cli;
pub(crate) mod demo;
pub(crate) mod app;
pub(crate) mod huge_pages;
pub(crate) mod open_files;

pub(crate) mod pages;
pub(crate) mod http;
pub(crate) mod limiter;

pub(crate) mod counts;
pub(crate) mod engine;
pub(crate) mod intake;
pub(crate) mod audit;
pub(crate) mod inspector;
pub(crate) mod scripts;
pub(crate) mod keys;
pub(crate) mod connection;

pub(crate) mod telemetry;

#[cfg(fuzzing)]
#[doc(hidden)]
#[path = "../fuzz/doors/all.rs"]
pub mod fuzzing;
