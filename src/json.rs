//! Reads JSON without building a tree of it. A value is kept as the bytes that it is written in, and is decoded only when the
//! caller asks for what it holds. So reading a body takes no memory beside the body, and values that nobody asks for are skipped.
//! No recursion. No I/O.
//!
//! There are two kinds of fault. After a fault of the *grammar* ([`NotJson`]) nobody can tell where the value ends. After a fault
//! inside a *string* ([`BadText`]) the end is known, because the string still ends at its quote. So a caller that reads a list
//! of values can refuse one value and go on with the next.

mod entries;
mod raw;
mod scanner;
mod text;

pub(crate) use raw::Raw;
pub(crate) use scanner::{NotJson, Scanner};
pub(crate) use text::{BadText, Surrogates};

/// Finds lines and columns of bytes, in ascending order, and looks at no byte twice.
#[derive(Debug)]
pub(crate) struct LineIndex<'a> {
    text: &'a [u8],
    seen: usize,
    line: usize,
    line_start: usize,
}

impl<'a> LineIndex<'a> {
    /// An index of this text.
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            seen: 0,
            line: 1,
            line_start: 0,
        }
    }

    /// Line and column of the byte at `at`. Each call must ask for the same byte as the call before, or a later one. Both numbers
    /// count from 1, columns in bytes.
    pub(crate) fn of(&mut self, at: usize) -> (usize, usize) {
        let new = self.text.get(self.seen..at).unwrap_or_default();
        for end in memchr::memchr_iter(b'\n', new) {
            self.line += 1;
            self.line_start = self.seen + end + 1;
        }
        self.seen = self.seen.max(at);
        (self.line, at.saturating_sub(self.line_start) + 1)
    }
}

/// The byte order mark that some programs put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The length of the byte order mark with which the text begins; 0 if there is none.
pub(crate) fn byte_order_mark(text: &[u8]) -> usize {
    match text.starts_with(BYTE_ORDER_MARK) {
        true => BYTE_ORDER_MARK.len(),
        false => 0,
    }
}

/// Reads a whole text as one value.
pub(crate) fn parse(text: &[u8]) -> Result<Raw<'_>, NotJson> {
    let mut scanner = Scanner::new(text, byte_order_mark(text));
    let value = scanner.value()?;
    scanner.end()?;
    Ok(value)
}

#[cfg(test)]
mod tests;
