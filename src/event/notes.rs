//! What was left out of an event, in words for its sender.

use std::fmt::{Arguments, Write as _};

/// Notes, one a line of a single text. A body of many small events can bring ten notes for each event; one text takes less memory
/// than ten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Notes(String);

impl Notes {
    /// One note, which must be a single line.
    pub(crate) fn one(note: Arguments<'_>) -> Self {
        let mut notes = Self::default();
        notes.add(note);
        notes
    }

    /// Adds a note, which must be a single line.
    pub(super) fn add(&mut self, note: Arguments<'_>) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        // Writing to a String can't fail.
        let _ = self.0.write_fmt(note);
    }

    /// Whether there are no notes.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes all notes have together.
    pub(crate) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The notes, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.lines()
    }
}
