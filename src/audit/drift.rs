//! A difference between what is stored and what follows from the positions.

/// A stored value that differs from what follows from the positions or from the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drift {
    /// Which of the user's keys: `counts`, `rooms`, `supers`, `refs`, `marks`.
    pub key: &'static str,
    /// The field of that key, as it stands in Redis.
    pub field: String,
    /// The part of a record that differs from the room, such as `head`.
    pub part: Option<&'static str>,
    /// The stored value; `None`: there is none.
    pub stored: Option<String>,
    /// The value that has to be there; `None`: none.
    pub expected: Option<String>,
}
