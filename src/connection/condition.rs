//! The state of a server, as far as its answers show it. The log says once when something begins to be wrong, and once when it is
//! over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error::{Trouble, Unavailable};
use crate::telemetry::metrics::Metrics;

/// How the error begins where no connection could be had.
pub(super) const NO_CONNECTION: &str = "no connection in time";

/// How long nothing must have gone wrong before it is over. Where some calls fail and others don't, each would be a line in the
/// log.
const CALM: Duration = Duration::from_secs(1);
/// The same for a command that is forbidden: all other commands are answered meanwhile.
const CALM_OF_RIGHTS: Duration = Duration::from_secs(60);

/// What a server says that takes no more connections.
pub(super) const CROWDED: &str = "max number of clients";

/// The state of one server.
pub(super) struct Condition {
    /// What the log calls it.
    server: String,
    /// Nothing for one node of several, whose state is not that of all of Redis.
    metrics: Option<Arc<Metrics>>,
    /// Whether it has answered and nothing is known to be wrong. Most answers look at nothing else.
    well: AtomicBool,
    state: Mutex<ServerState>,
}

#[derive(Default)]
struct ServerState {
    /// Whether it has ever answered.
    answered: bool,
    /// Nothing is said of it any more: another server has its place.
    retired: bool,
    ill: Option<KnownTrouble>,
}

struct KnownTrouble {
    why: Unavailable,
    /// When it was seen last.
    last: Instant,
}

impl Condition {
    pub(super) fn new(server: String, metrics: Option<Arc<Metrics>>) -> Self {
        Self {
            server,
            metrics,
            well: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, ServerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong, if anything is.
    pub(super) fn ill(&self) -> Option<Unavailable> {
        if self.well.load(Ordering::Relaxed) {
            return None;
        }
        self.state().ill.as_ref().map(|ill| ill.why.clone())
    }

    /// It has answered; `wrote`: to a script that Redis refuses wherever it takes no writes.
    pub(super) fn note_answer(&self, wrote: bool) {
        if self.well.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state();
        if let Some(KnownTrouble { why, last }) = &state.ill {
            let calm = match why.trouble {
                // It has never answered before, so this answer is no exception.
                _ if !state.answered => Duration::ZERO,
                Trouble::Rights => CALM_OF_RIGHTS,
                _ => CALM,
            };
            if why.trouble.is_of_writes() && !wrote || last.elapsed() < calm {
                return;
            }
        }
        state.ill = None;
        let again = std::mem::replace(&mut state.answered, true);
        self.well.store(true, Ordering::Relaxed);
        if state.retired {
            return;
        }
        if let Some(metrics) = &self.metrics {
            metrics.redis_up(true);
        }
        let (server, state) = (self.server.as_str(), "up");
        match again {
            // At the same level as the line that it ends: a reader who saw that one sees this one.
            true => tracing::warn!(server, state, "redis is well again"),
            false => tracing::info!(server, state, "redis answers"),
        }
    }

    /// Something is wrong.
    pub(super) fn note_trouble(&self, why: &Unavailable) {
        let mut state = self.state();
        let now = Instant::now();
        if let Some(ill) = &mut state.ill {
            let same = ill.why.trouble.word() == why.trouble.word();
            // Where two things are wrong at once, each call meets one or the other. The log names the second one when the first
            // one is over; otherwise it would go back and forth.
            if same || now.duration_since(ill.last) < CALM {
                if same {
                    ill.last = now;
                }
                return;
            }
        }
        state.ill = Some(KnownTrouble {
            why: why.clone(),
            last: now,
        });
        self.well.store(false, Ordering::Relaxed);
        if state.retired {
            return;
        }
        if let Some(metrics) = &self.metrics {
            metrics.redis_up(false);
        }
        let (server, state) = (self.server.as_str(), why.trouble.word());
        let reason = why.cause.as_str();
        tracing::warn!(server, state, reason, "{}", why.trouble.sentence());
    }

    /// Nothing is said of it from now on.
    pub(super) fn retire(&self) {
        self.state().retired = true;
    }
}

/// An error in the words of the server, or of the system.
pub(super) fn words(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (None, Some(detail)) if error.kind() == ErrorKind::AuthenticationFailed => {
            detail.to_owned()
        }
        _ => error.to_string(),
    }
}

/// Whether a request was not sent, because there was no connection within its time.
pub(super) fn is_no_connection(error: &RedisError) -> bool {
    error.is_timeout() && error.to_string().starts_with(NO_CONNECTION)
}

/// What an error of a server means.
pub(super) enum Meaning {
    /// It can't do its work now: the word for the metric, and what keeps it.
    Kept(&'static str, Trouble),
    /// It has answered something that has no place here.
    Strange,
}

impl Meaning {
    pub(super) fn of(error: &RedisError) -> Self {
        let kept = Meaning::Kept;
        let detail = error.detail().unwrap_or_default();
        match error.kind() {
            // No connection could be had.
            ErrorKind::Io if error.is_timeout() => match is_no_connection(error) {
                true => kept("timeout", Trouble::Away),
                false => kept("timeout", Trouble::Silent),
            },
            ErrorKind::Io => match error.to_string() {
                text if text.contains(CROWDED) => kept("io", Trouble::Crowded),
                _ => kept("io", Trouble::Away),
            },
            // A reply that ends in the middle: the connection broke there.
            ErrorKind::Parse => kept("io", Trouble::Away),
            ErrorKind::AuthenticationFailed => kept("auth", Trouble::Login),
            ErrorKind::Server(kind) => match kind {
                ServerErrorKind::BusyLoading => kept("loading", Trouble::Loading),
                ServerErrorKind::ReadOnly => kept("readonly", Trouble::ReadOnly),
                ServerErrorKind::NoPerm => kept("auth", Trouble::Rights),
                ServerErrorKind::ClusterDown => kept("server", Trouble::ClusterDown),
                ServerErrorKind::MasterDown => kept("server", Trouble::MasterDown),
                ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::TryAgain => {
                    kept("server", Trouble::Moving)
                }
                // A server that wants a password says this to a large command, which it does not read. To a small one it says
                // `NOAUTH`.
                ServerErrorKind::ResponseError if detail.contains("unauthenticated") => {
                    kept("auth", Trouble::Login)
                }
                ServerErrorKind::ResponseError if detail.contains(CROWDED) => {
                    kept("io", Trouble::Crowded)
                }
                ServerErrorKind::ResponseError
                | ServerErrorKind::ExecAbort
                | ServerErrorKind::CrossSlot => Meaning::Strange,
                _ => kept("server", Trouble::Unfinished),
            },
            ErrorKind::Extension => match error.code() {
                Some("OOM") => kept("oom", Trouble::Full),
                Some("NOAUTH" | "WRONGPASS") => kept("auth", Trouble::Login),
                Some("NOPERM") => kept("auth", Trouble::Rights),
                Some("MISCONF") => kept("server", Trouble::Unsaved),
                Some("NOREPLICAS") => kept("server", Trouble::Alone),
                Some("BUSY") => kept("server", Trouble::Busy),
                Some("LOADING") => kept("server", Trouble::Loading),
                Some("READONLY") => kept("server", Trouble::ReadOnly),
                _ => Meaning::Strange,
            },
            ErrorKind::UnexpectedReturnType => Meaning::Strange,
            _ => kept("client", Trouble::Unfinished),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition() -> Condition {
        Condition::new("a:1".into(), None)
    }

    fn ill(condition: &Condition) -> Option<&'static str> {
        condition.ill().map(|why| why.trouble.word())
    }

    fn of(trouble: Trouble) -> Unavailable {
        Unavailable {
            trouble,
            cause: "x".into(),
        }
    }

    #[test]
    fn a_read_does_not_show_that_writes_are_taken() {
        let condition = condition();
        condition.note_trouble(&of(Trouble::Full));
        condition.note_answer(false);
        assert_eq!(ill(&condition), Some("full"));
        condition.note_answer(true);
        assert_eq!(ill(&condition), None);
    }

    #[test]
    fn some_that_fail_among_many_are_one_state() {
        let condition = condition();
        condition.note_answer(false);
        for _ in 0..100 {
            condition.note_trouble(&of(Trouble::Silent));
            condition.note_answer(true);
            assert_eq!(ill(&condition), Some("down"));
            // Two things at once.
            condition.note_trouble(&of(Trouble::Full));
            assert_eq!(ill(&condition), Some("down"));
        }
    }

    #[test]
    fn what_redis_refuses_is_told_apart() {
        let said = |line: &str| {
            let value = redis::parse_redis_value(line.as_bytes()).unwrap();
            let error = value.extract_error().unwrap_err();
            assert_eq!(format!("-{}\r\n", words(&error)), line);
            match Meaning::of(&error) {
                Meaning::Kept(_, trouble) => Some(trouble),
                Meaning::Strange => None,
            }
        };
        for (line, trouble) in [
            ("-OOM command not allowed\r\n", Trouble::Full),
            ("-READONLY You can't write\r\n", Trouble::ReadOnly),
            ("-LOADING Redis is loading\r\n", Trouble::Loading),
            ("-MISCONF Errors writing to the AOF\r\n", Trouble::Unsaved),
            ("-NOREPLICAS Not enough\r\n", Trouble::Alone),
            ("-MASTERDOWN Link with MASTER\r\n", Trouble::MasterDown),
            ("-CLUSTERDOWN Hash slot\r\n", Trouble::ClusterDown),
            ("-NOAUTH Authentication required.\r\n", Trouble::Login),
            ("-WRONGPASS invalid\r\n", Trouble::Login),
            ("-ERR unauthenticated bulk length\r\n", Trouble::Login),
            ("-NOPERM User has no permissions\r\n", Trouble::Rights),
            ("-BUSY Redis is busy\r\n", Trouble::Busy),
            ("-ERR max number of clients reached\r\n", Trouble::Crowded),
            ("-TRYAGAIN Multiple keys\r\n", Trouble::Moving),
            ("-MOVED 1 a:1\r\n", Trouble::Moving),
        ] {
            assert_eq!(said(line), Some(trouble), "{line}");
        }
        assert_eq!(said("-ERR unknown command\r\n"), None);
        assert_eq!(said("-SOMETHING new\r\n"), None);
    }
}
