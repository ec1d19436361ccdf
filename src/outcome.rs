//! The outcome of a call, in one set of words for all dialects. Some dialects answer errors with a status of 200 or 400, so an
//! alert can't rely on the status; it relies on this word. The code that makes an error response names the outcome.

/// The outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// It was answered.
    Ok,
    /// It can't be understood: its body, a parameter, or a method that the path does not have.
    BadRequest,
    /// Its credentials are missing or wrong.
    Unauthorized,
    /// It names something that does not exist: a path, a user, a room.
    NotFound,
    /// Its app, user or address called too often.
    Limited,
    /// This pod takes on no more work at the moment.
    Overloaded,
    /// Redis can't do its work, or did not do it in time.
    Redis,
    /// A bug, or data that can't be read.
    Internal,
}

impl Outcome {
    /// All of them.
    pub(crate) const ALL: [Outcome; 8] = [
        Outcome::Ok,
        Outcome::BadRequest,
        Outcome::Unauthorized,
        Outcome::NotFound,
        Outcome::Limited,
        Outcome::Overloaded,
        Outcome::Redis,
        Outcome::Internal,
    ];

    /// The word for it in metrics and logs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::BadRequest => "bad_request",
            Outcome::Unauthorized => "unauthorized",
            Outcome::NotFound => "not_found",
            Outcome::Limited => "limited",
            Outcome::Overloaded => "overloaded",
            Outcome::Redis => "redis",
            Outcome::Internal => "internal",
        }
    }

    /// The outcome by the HTTP status alone, for responses whose code names none: right for dialects whose status says it.
    pub(crate) const fn of_status(status: u16) -> Outcome {
        match status {
            401 | 403 => Outcome::Unauthorized,
            404 => Outcome::NotFound,
            429 => Outcome::Limited,
            400..=499 => Outcome::BadRequest,
            503 => Outcome::Overloaded,
            500.. => Outcome::Internal,
            _ => Outcome::Ok,
        }
    }
}
