//! Why there is no private Redis.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no private Redis. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// No such program.
    #[error(
        "redis-server is not installed; install version 7.0 or newer (Debian, Ubuntu: apt-get install redis-server; \
         Fedora: dnf install redis; Alpine: apk add redis; macOS: brew install redis) or set redis.url to a running Redis"
    )]
    Missing,
    /// The program is too old.
    #[error(
        "redis-server is version {0}, but 7.0 or newer is needed; upgrade it or set redis.url to a running Redis"
    )]
    Old(String),
    /// The program does not say what it is.
    #[error("`redis-server --version` failed or could not be understood: {0}")]
    Version(String),
    /// Somebody else has the data directory.
    #[error("redis.data_dir {} is in use by another unread process; stop that one or choose another directory", .0.display())]
    InUse(PathBuf),
    /// An earlier server does not stop.
    #[error("an earlier redis-server still has {} and does not stop; stop it by hand", .0.display())]
    Orphan(PathBuf),
    /// The data directory, or a file in it, can't be used.
    #[error("{}: {error}", .path.display())]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The server did not come up.
    #[error("redis-server did not start: {why} (its log is {})", .log.display())]
    Failed {
        /// What happened, with the last thing that the server said.
        why: String,
        /// Its log.
        log: PathBuf,
    },
}

/// The error of an I/O call on that path.
pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> StartError + use<> {
    let path = path.to_owned();
    move |error| StartError::Io {
        path: path.clone(),
        error,
    }
}
