//! `unread`: exact unread counts for chat back ends, kept in Redis, answered in the wire formats of three vendors.
//! (The map is written once the modules stand.)

pub mod config;
pub mod error;
pub mod http;
pub mod limiter;
pub mod names;
pub mod quota;
pub mod store;
