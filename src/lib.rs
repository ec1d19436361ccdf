//! `unread`: exact unread counts for chat back ends, kept in Redis, answered in the wire formats of three vendors.
//! (The map is written once the modules stand.)

pub mod config;
pub mod names;
pub mod event;
pub mod error;
pub mod quota;

pub mod keys;
pub mod scripts;
pub mod connection;
pub mod store;
