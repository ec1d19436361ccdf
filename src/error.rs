//! What can go wrong below HTTP. No status codes here: each dialect picks its own.

use std::fmt;

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
    /// A stored key is of another type, or a stored record in another form, than this program writes.
    #[error("{0}")]
    Unreadable(Box<Unreadable>),
    /// Redis answered something that this program does not understand: a bug here.
    #[error("internal error: {0}")]
    Internal(String),
}

/// What can't be read, as a log may show it: it holds no user's and no room's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Which key, such as `user counts #1a2b3c4d`; empty where that is not known yet.
    pub place: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stored data can't be read: ")?;
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.why)
    }
}

impl Error {
    /// Something stored that can't be read; whoever knows the key says so by filling in the place.
    pub fn unreadable(why: impl Into<String>) -> Self {
        Error::Unreadable(Box::new(Unreadable {
            place: String::new(),
            why: why.into(),
        }))
    }

    /// Whether sending the same request again may succeed.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Error::Internal(_) | Error::Unreadable(_))
    }
}

/// A result of the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;
