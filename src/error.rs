//! What can go wrong below HTTP. There are no status codes here: each dialect has its own.

use std::borrow::Cow;
use std::fmt;

use crate::outcome::Outcome;
use crate::quota::Verdict;

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Error {
    /// Redis can't be reached, refuses (loading, read only, out of memory) or did not answer in time. The caller may send reads
    /// and writes again: every write is safe to repeat.
    #[error("{0}")]
    Unavailable(Unavailable),
    /// This pod takes on no more work at the moment. It has begun nothing of this call.
    #[error("too many {0} are being worked on")]
    Overloaded(&'static str),
    /// The call is over its limit, with this verdict. What it read along with the charge is thrown away.
    #[error("the call is over its limit")]
    Limited(Verdict),
    /// The writes were made, but fewer replicas than configured have confirmed them: a failover may lose them. The caller may
    /// send them again.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// A stored key has another type, or a stored record another form, than this program writes.
    #[error("{0}")]
    Unreadable(Box<Unreadable>),
    /// Redis answered something that this program does not understand: a bug here.
    #[error("internal error: {0}")]
    Internal(String),
}

/// What keeps Redis from doing its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It can't be reached.
    Away,
    /// It does not answer in time.
    Silent,
    /// It takes no more connections.
    Crowded,
    /// It is reading its data.
    Loading,
    /// It has reached its memory limit, and takes no writes.
    Full,
    /// It is a replica.
    ReadOnly,
    /// It takes no writes because it failed to save earlier ones.
    Unsaved,
    /// It takes no writes because it has too few replicas.
    Alone,
    /// It is a replica that has no master.
    MasterDown,
    /// No node serves some of the cluster's slots.
    ClusterDown,
    /// The cluster is moving the slot from one node to another.
    Moving,
    /// No server is known to have the data.
    Nowhere,
    /// It refuses the user or the password.
    Login,
    /// It accepts the user, and denies a command.
    Rights,
    /// A script has been running in it for too long.
    Busy,
    /// The data are of a version that this program can't read.
    Schema,
    /// A pod gave up for another reason; the cause says which.
    Unfinished,
}

impl Trouble {
    /// The word for it in `/readyz` and in the log.
    pub(crate) fn word(self) -> &'static str {
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
            Trouble::Schema => "schema",
            Trouble::Unfinished => "unfinished",
        }
    }

    /// What it is, for people; empty for [`Trouble::Unfinished`], where only the cause says it.
    pub(crate) fn sentence(self) -> &'static str {
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
            Trouble::Schema => "the data in redis are of another version of this program",
            Trouble::Unfinished => "",
        }
    }

    /// Whether it stops writes only. Then an answer to a read is no sign that the trouble is over.
    pub(crate) fn is_of_writes(self) -> bool {
        matches!(
            self,
            Trouble::Full | Trouble::ReadOnly | Trouble::Unsaved | Trouble::Alone | Trouble::Rights
        )
    }
}

/// What keeps Redis from doing its work, and the cause in the words of Redis or of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unavailable {
    /// What it is.
    pub trouble: Trouble,
    /// The cause, for the log and for operators. A caller sees it only with [`Trouble::Unfinished`], which has no other text.
    pub cause: String,
}

impl Unavailable {
    /// The sentence for a caller. It contains no address.
    pub(crate) fn sentence(&self) -> Cow<'static, str> {
        match self.trouble {
            Trouble::Unfinished => Cow::Owned(self.cause.clone()),
            trouble => Cow::Borrowed(trouble.sentence()),
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.trouble.sentence())?;
        if !self.trouble.sentence().is_empty() && !self.cause.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.cause)
    }
}

/// The cause of [`Trouble::Unfinished`].
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

/// Stored data that can't be read. A log may show this: it contains no name of a user or a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// Which key, such as `user counts #1a2b3c4d`; empty until some caller that knows the key fills it in.
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
    /// Redis can't do its work: what keeps it from that, and the cause.
    pub(crate) fn unavailable(trouble: Trouble, cause: impl Into<String>) -> Self {
        Error::Unavailable(Unavailable {
            trouble,
            cause: cause.into(),
        })
    }

    /// Stored data that can't be read. The caller that knows the key fills in the place.
    pub(crate) fn unreadable(why: impl Into<String>) -> Self {
        Error::Unreadable(Box::new(Unreadable {
            place: String::new(),
            why: why.into(),
        }))
    }

    /// Whether sending the same request again may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        !matches!(self, Error::Internal(_) | Error::Unreadable(_))
    }

    /// The outcome of a call that fails with this error.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Error::Unavailable(_) | Error::Unknown(_) => Outcome::Redis,
            Error::Overloaded(_) => Outcome::Overloaded,
            Error::Limited(_) => Outcome::Limited,
            Error::Unreadable(_) | Error::Internal(_) => Outcome::Internal,
        }
    }
}

/// The result of a call.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;
