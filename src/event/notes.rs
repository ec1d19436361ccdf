//! What was left out of an event, in words for its sender.

use std::fmt::{Arguments, Write as _};

/// Some texts, kept as the lines of one: a body of many small events may need as many as ten for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Notes(String);

impl Notes {
    /// One more, which is one line.
    pub(super) fn add(&mut self, note: Arguments<'_>) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        // Writing to a String can't fail.
        let _ = self.0.write_fmt(note);
    }

    /// Whether there is nothing to say.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all of them.
    pub(crate) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// One after the other.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.lines()
    }
}
