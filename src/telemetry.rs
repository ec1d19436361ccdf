//! What a pod says of itself: its logs, its metrics, and the one access line of each request.

pub(crate) mod access;
pub(crate) mod logs;
pub(crate) mod metrics;
