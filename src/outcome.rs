//! What became of a call, in one set of words for all dialects: some of them hide it behind a status of 200 or 400, and an alert must
//! not have to know that. Whoever makes an error says which it is.

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was answered.
    Ok,
    /// It can't be understood, or asks for what there is not: a body, a parameter, a method.
    BadRequest,
    /// Its credentials are missing or not good.
    Unauthorized,
    /// What it names is not there: a path, a user, a room.
    NotFound,
    /// Its app, user or address called too often.
    Limited,
    /// This pod has too much to do.
    Overloaded,
    /// Redis can't do its part, or did not in time.
    Redis,
    /// A bug, or data that can't be read.
    Internal,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 8] = [
        Outcome::Ok,
        Outcome::BadRequest,
        Outcome::Unauthorized,
        Outcome::NotFound,
        Outcome::Limited,
        Outcome::Overloaded,
        Outcome::Redis,
        Outcome::Internal,
    ];

    /// Its word in metrics and logs.
    pub fn word(self) -> &'static str {
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

    /// What a status of HTTP says where nobody has said more: for dialects that hide nothing behind it.
    pub const fn of_status(status: u16) -> Outcome {
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
