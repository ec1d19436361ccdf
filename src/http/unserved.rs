//! Why no handler answers a request. What each dialect says then stands in its own folder.

use actix_web::http::StatusCode;

use crate::outcome::Outcome;
use crate::telemetry::metrics::Metrics;

/// The endpoint of a request that no handler sees, in metrics.
pub(super) const NONE: &str = "none";

/// Why no handler answers a request: it is answered before one sees it, or in a handler's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// It is no HTTP, or says two things at once. What is wrong with it, in words that repeat nothing of it.
    Malformed(&'static str),
    /// Its first line is too long.
    TargetTooLong,
    /// Its headers are too long, or too many.
    HeadTooLarge,
    /// Its head did not arrive in time.
    HeadTimeout,
    /// There are as many connections as there may be.
    Full,
    /// Finished answers that nobody takes fill the memory that there is for them.
    Overloaded,
    /// There is no such path.
    NoPath,
    /// Its path takes other methods: these.
    WrongMethod(&'static str),
    /// Its handler panicked: a bug of ours.
    Broken,
}

impl Unserved {
    /// Its word in a metric and in the log.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Unserved::Malformed(_) => "malformed",
            Unserved::TargetTooLong => "target_too_long",
            Unserved::HeadTooLarge => "head_too_large",
            Unserved::HeadTimeout => "head_timeout",
            Unserved::Full => "full",
            Unserved::Overloaded => "overloaded",
            Unserved::NoPath => "no_path",
            Unserved::WrongMethod(_) => "wrong_method",
            Unserved::Broken => "broken",
        }
    }

    /// What the call has come to.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Unserved::Full | Unserved::Overloaded => Outcome::Overloaded,
            Unserved::NoPath => Outcome::NotFound,
            Unserved::Broken => Outcome::Internal,
            _ => Outcome::BadRequest,
        }
    }

    /// The status that HTTP has for it.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Unserved::Malformed(_) => StatusCode::BAD_REQUEST,
            Unserved::TargetTooLong => StatusCode::URI_TOO_LONG,
            Unserved::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Unserved::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Unserved::Full | Unserved::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Unserved::NoPath => StatusCode::NOT_FOUND,
            Unserved::WrongMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Unserved::Broken => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What to tell a caller whose dialect has no words of its own for it.
    pub(crate) fn detail(self) -> &'static str {
        match self {
            Unserved::Malformed(why) => why,
            Unserved::TargetTooLong => "the URL is too long",
            Unserved::HeadTooLarge => "the headers are too long or too many",
            Unserved::HeadTimeout => "the head of the request did not arrive in time",
            Unserved::Full => "too many connections are open; please try again",
            Unserved::Overloaded => "too many answers wait to be taken; please try again",
            Unserved::NoPath => "no such path",
            Unserved::WrongMethod(_) => "this path takes another method",
            Unserved::Broken => "the server failed; the fault is logged",
        }
    }
}

/// Counts a request that no handler sees.
pub(super) fn unseen(metrics: &Metrics, why: Unserved) {
    metrics.request(None, NONE, why.outcome());
}
