//! What the definition of the counts has and the server does not have yet.
//!
//! The model knows all of it. The tests against the server leave it out, of what they send and of what they expect, until its
//! word stands in [`SERVER_KNOWS`]. This file goes when all words do.

/// Events and fields, as a history may have them, and fields of answers.
pub static ALL: [&str; 11] = [
    "room.unread",
    "room.cleared",
    "counts.set",
    "message.updated",
    "except",
    // `sender` and `to` of a recall.
    "recall.to",
    // `up_to_position` of `room.read`.
    "position",
    // Of `pref.updated`.
    "count",
    "extra",
    // `?order=time`.
    "order",
    // Of answers.
    "unread_rooms",
];

/// Those that the server has by now.
pub const SERVER_KNOWS: &[&str] = &[
    "room.unread",
    "counts.set",
    "room.cleared",
    "message.updated",
    "except",
    "recall.to",
    "position",
    "count",
    "extra",
    "order",
    "unread_rooms",
];

/// The same for histories by arrival alone: those under faults, whose clocks the model does not have.
pub const BY_ARRIVAL: &[&str] = &[
    "room.unread",
    "counts.set",
    "room.cleared",
    "message.updated",
    "except",
    "recall.to",
    "position",
    "count",
    "extra",
    "unread_rooms",
];

pub fn server_knows(word: &str) -> bool {
    assert!(ALL.contains(&word), "no such word: {word}");
    SERVER_KNOWS.contains(&word)
}
