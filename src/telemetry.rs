//! What a pod says of itself: its logs, its metrics, and the one access line of each request.

pub mod access;
pub mod logs;
pub mod metrics;
