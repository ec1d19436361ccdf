//! What can go wrong below HTTP. No status codes here: each dialect picks its own.

use std::borrow::Cow;
use std::fmt;

use crate::outcome::Outcome;
use crate::quota::Verdict;

/// Why the store could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Redis can't be reached, refuses (loading, read only, out of memory) or did not answer in time.
    /// Reads and writes may both be sent again: every write is safe to repeat.
    #[error("{0}")]
    Unavailable(Unavailable),
    /// This pod has as much to do as it takes on. Nothing was begun.
    #[error("too many {0} are being worked on")]
    Overloaded(&'static str),
    /// The call is over its limit, of which this was said. What it read is thrown away.
    #[error("the call is over its limit")]
    Limited(Verdict),
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

/// What keeps Redis from doing its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It can't be reached.
    Away,
    /// It does not answer in time.
    Silent,
    /// It has no place for one more connection.
    Crowded,
    /// It is reading its data.
    Loading,
    /// It has as much data as it may have.
    Full,
    /// It is a replica.
    ReadOnly,
    /// It could not save what was written.
    Unsaved,
    /// It has fewer replicas than it wants.
    Alone,
    /// It is a replica that has no master.
    MasterDown,
    /// Some of the cluster's slots are served by nobody.
    ClusterDown,
    /// Slots are on their way from one server to another.
    Moving,
    /// No server is known to have the data.
    Nowhere,
    /// It does not know us.
    Login,
    /// It knows us, and forbids a command.
    Rights,
    /// A script of somebody keeps it.
    Busy,
    /// Work was given up for another reason, which is said.
    Unfinished,
}

impl Trouble {
    /// Its word in `/readyz` and in the log.
    pub fn word(self) -> &'static str {
        match self {
            Trouble::Away | Trouble::Silent | Trouble::Crowded => "down",
            Trouble::Loading => "loading",
            Trouble::Full => "full",
            Trouble::ReadOnly => "read_only",
            Trouble::Unsaved => "unsaved",
            Trouble::Alone => "too_few_replicas",
            Trouble::MasterDown => "master_down",
            Trouble::ClusterDown => "cluster_down",
            Trouble::Moving => "moving",
            Trouble::Nowhere => "no_server",
            Trouble::Login => "login_refused",
            Trouble::Rights => "not_allowed",
            Trouble::Busy => "busy",
            Trouble::Unfinished => "unfinished",
        }
    }

    /// What it is, for people; nothing where only its cause says it.
    pub fn said(self) -> &'static str {
        match self {
            Trouble::Away => "redis can't be reached",
            Trouble::Silent => "redis did not answer in time",
            Trouble::Crowded => "redis takes no more connections",
            Trouble::Loading => "redis is loading its data",
            Trouble::Full => "redis is full and takes no writes",
            Trouble::ReadOnly => "redis is read-only: it is a replica",
            Trouble::Unsaved => "redis takes no writes because it can't save them",
            Trouble::Alone => "redis takes no writes because it has too few replicas",
            Trouble::MasterDown => "redis is a replica that has lost its master",
            Trouble::ClusterDown => "the redis cluster is down",
            Trouble::Moving => "redis is moving the data to another server",
            Trouble::Nowhere => "no redis server has the data",
            Trouble::Login => "redis refuses the login",
            Trouble::Rights => "redis denies a command",
            Trouble::Busy => "redis is busy with a script",
            Trouble::Unfinished => "",
        }
    }

    /// Whether it keeps Redis from writes alone, so that an answer to a read does not mean that it is over.
    pub fn is_of_writes(self) -> bool {
        matches!(
            self,
            Trouble::Full | Trouble::ReadOnly | Trouble::Unsaved | Trouble::Alone | Trouble::Rights
        )
    }
}

/// What keeps Redis from its work, and the cause as Redis or the system words it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// What it is.
    pub trouble: Trouble,
    /// The cause: for the log and for operators. Only of [`Trouble::Unfinished`] it is all that there is to say.
    pub cause: String,
}

impl Unavailable {
    /// The sentence for a caller. It holds no address.
    pub fn told(&self) -> Cow<'static, str> {
        match self.trouble {
            Trouble::Unfinished => Cow::Owned(self.cause.clone()),
            trouble => Cow::Borrowed(trouble.said()),
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.trouble.said())?;
        if !self.trouble.said().is_empty() && !self.cause.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.cause)
    }
}

/// Work that was given up, and why.
impl From<&str> for Unavailable {
    fn from(cause: &str) -> Self {
        cause.to_owned().into()
    }
}

impl From<String> for Unavailable {
    fn from(cause: String) -> Self {
        Self {
            trouble: Trouble::Unfinished,
            cause,
        }
    }
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
    /// Redis can't do its part: what keeps it, and the cause.
    pub fn unavailable(trouble: Trouble, cause: impl Into<String>) -> Self {
        Error::Unavailable(Unavailable {
            trouble,
            cause: cause.into(),
        })
    }

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

    /// What a call has come to that fails by this.
    pub fn outcome(&self) -> Outcome {
        match self {
            Error::Unavailable(_) | Error::Unknown(_) => Outcome::Redis,
            Error::Overloaded(_) => Outcome::Overloaded,
            Error::Limited(_) => Outcome::Limited,
            Error::Unreadable(_) | Error::Internal(_) => Outcome::Internal,
        }
    }
}

/// A result of the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;
