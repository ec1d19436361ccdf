//! A difference between what is stored and what follows from the positions.

/// Something stored that is not what the positions, or the room, say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Which of the user's keys: `counts`, `rooms`, `supers`, `refs`, `marks`.
    pub key: &'static str,
    /// The field of that key, as it stands in Redis.
    pub field: String,
    /// The part of a record that differs from the room, such as `head`.
    pub part: Option<&'static str>,
    /// What is there.
    pub stored: Option<String>,
    /// What ought to be there.
    pub expected: Option<String>,
}
