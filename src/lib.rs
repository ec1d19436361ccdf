//! `unread`: exact unread counts for chat back ends, kept in Redis, answered in the wire formats of three vendors.
//! (The map is written once the modules stand.)

pub mod app;
pub mod cli;
pub mod config;
pub mod connection;
pub mod demo;
pub mod error;
pub mod event;
pub mod http;
pub mod keys;
pub mod limiter;
pub mod metrics;
pub mod names;
pub mod private_redis;
pub mod quota;
pub mod scripts;
pub mod store;
pub mod telemetry;
