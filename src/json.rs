//! JSON taken apart where it lies. A value stays the bytes that it is written in until somebody asks what it holds, so a body
//! costs no memory but its own, whatever it holds, and what nobody asks for is passed over. No recursion. No I/O.
//!
//! Two kinds of fault are told apart. A fault of the *grammar* ([`NotJson`]) leaves no way to tell where a value ends. A fault
//! inside a *string* ([`BadText`]) does: the string still ends at its quote, so whoever reads a list of values can refuse one
//! and go on with the next.

mod entries;
mod raw;
mod scanner;
mod text;

pub(crate) use raw::Raw;
pub(crate) use scanner::{NotJson, Scanner};
pub(crate) use text::{BadText, Surrogates};

/// Finds the positions of bytes, in order, without looking at any byte twice.
#[derive(Debug)]
pub(crate) struct LineIndex<'a> {
    text: &'a [u8],
    seen: usize,
    line: usize,
    line_start: usize,
}

impl<'a> LineIndex<'a> {
    /// Of the bytes of this text.
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            seen: 0,
            line: 1,
            line_start: 0,
        }
    }

    /// Line and column of the byte at `at`, which is not before one that was asked for earlier. Both count from 1, columns in
    /// bytes.
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

/// The byte order mark that some programs put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How many bytes of a byte order mark the text begins with.
pub(crate) fn byte_order_mark(text: &[u8]) -> usize {
    match text.starts_with(BYTE_ORDER_MARK) {
        true => BYTE_ORDER_MARK.len(),
        false => 0,
    }
}

/// The whole of a text as one value.
pub(crate) fn parse(text: &[u8]) -> Result<Raw<'_>, NotJson> {
    let mut scanner = Scanner::new(text, byte_order_mark(text));
    let value = scanner.value()?;
    scanner.end()?;
    Ok(value)
}

#[cfg(test)]
mod tests;
