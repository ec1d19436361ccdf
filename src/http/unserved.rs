//! The reasons why no handler answers a request. The words for each reason stand in the folder of each dialect.

use actix_web::http::StatusCode;

use crate::outcome::Outcome;
use crate::telemetry::metrics::Metrics;

/// The endpoint of a request that the edge refuses, in metrics.
pub(super) const NONE: &str = "none";

/// Why no handler answers a request. The first reasons are the edge's, before a handler could see the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// It is not HTTP, or could be understood in two ways. Says what is wrong, in words that repeat nothing of the request.
    Malformed(&'static str),
    /// Its first line is too long.
    TargetTooLong,
    /// Its headers are too long, or too many.
    HeadTooLarge,
    /// Its head did not arrive in time.
    HeadTimeout,
    /// There are as many connections as may be.
    Full,
    /// Answers that their peers have not taken fill the memory that there is for answers.
    Overloaded,
    /// There is no such path.
    NoPath,
    /// Its path takes other methods: those that the header `Allow` then names.
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

    /// The outcome of the call.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Unserved::Full | Unserved::Overloaded => Outcome::Overloaded,
            Unserved::NoPath => Outcome::NotFound,
            Unserved::Broken => Outcome::Internal,
            _ => Outcome::BadRequest,
        }
    }

    /// The status that suits it, for dialects that use the statuses of HTTP.
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

    /// The words for it, for dialects that have none of their own.
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

/// Counts a request that the edge refuses.
pub(super) fn unseen(metrics: &Metrics, why: Unserved) {
    metrics.request(None, NONE, why.outcome());
}
