//! What can go wrong below HTTP. No status codes here: each dialect picks its own.

/// Why the store could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Redis can't be reached, refuses (loading, read only, out of memory) or did not answer in time.
    /// Reads and writes may both be sent again: every write is safe to repeat.
    #[error("redis unavailable: {0}")]
    Unavailable(String),
    /// This pod has as much to do as it takes on. Nothing was begun.
    #[error("too many {0} are being worked on")]
    Overloaded(&'static str),
    /// The writes were made, but not confirmed by as many replicas as asked for: a failover may lose them, or not.
    /// They may be sent again.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Redis answered something that this program does not understand: a bug here, or data written by something else.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// Whether sending the same request again may succeed.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Error::Internal(_))
    }
}

/// A result of the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;
