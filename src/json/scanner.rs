//! The grammar: where each value ends.

use super::raw::Raw;

/// The deepest nesting that is followed.
pub(super) const MAX_DEPTH: u32 = 127;

/// Bytes of a string that are looked at before the rest is searched.
const FEW: u32 = 12;

/// A text that is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotJson {
    /// How many bytes of it were read, the one that is wrong included.
    pub read: usize,
    /// Whether it is only nested too deeply.
    pub deep: bool,
}

/// Reads a text from its beginning to its end, once.
#[derive(Debug, Clone)]
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Begins at that byte of the text.
    pub(crate) fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    /// The next byte that is not blank; it is not passed.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Passes the next byte that is not blank, if it is this one.
    pub(crate) fn pass(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// The fault of the byte that is next.
    pub(crate) fn fault(&self) -> NotJson {
        NotJson {
            read: (self.at + 1).min(self.text.len()),
            deep: false,
        }
    }

    /// Nothing but blanks may follow.
    pub(crate) fn end(&mut self) -> Result<(), NotJson> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault()),
        }
    }

    /// Whether a list or an object whose opening bracket has been passed has another entry: its comma is passed, or the
    /// closing bracket.
    pub(crate) fn has_another(&mut self, first: &mut bool, close: u8) -> Result<bool, NotJson> {
        if std::mem::take(first) {
            return Ok(!self.pass(close));
        }
        if self.pass(b',') {
            Ok(true)
        } else if self.pass(close) {
            Ok(false)
        } else {
            Err(self.fault())
        }
    }

    /// The next key of an object, and its colon.
    pub(crate) fn key(&mut self) -> Result<Raw<'a>, NotJson> {
        if self.peek() != Some(b'"') {
            return Err(self.fault());
        }
        let from = self.at;
        self.string()?;
        let key = self.raw_since(from);
        match self.pass(b':') {
            true => Ok(key),
            false => Err(self.fault()),
        }
    }

    /// The next value, whatever it is, from its first byte to its last.
    pub(crate) fn value(&mut self) -> Result<Raw<'a>, NotJson> {
        self.peek();
        let from = self.at;
        self.skip()?;
        Ok(self.raw_since(from))
    }

    fn raw_since(&self, from: usize) -> Raw<'a> {
        Raw::new(self.text.get(from..self.at).unwrap_or_default(), from)
    }

    fn skip(&mut self) -> Result<(), NotJson> {
        // What is open around the value: a bit for each, 1 for an object, and how many.
        let (mut open, mut depth) = (0_u128, 0_u32);
        loop {
            match self.peek() {
                Some(b'"') => self.string()?,
                Some(bracket @ (b'{' | b'[')) => {
                    if depth == MAX_DEPTH {
                        return Err(NotJson {
                            deep: true,
                            ..self.fault()
                        });
                    }
                    self.at += 1;
                    let object = bracket == b'{';
                    let close = if object { b'}' } else { b']' };
                    if !self.pass(close) {
                        open = open << 1 | u128::from(object);
                        depth += 1;
                        if object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                _ => return Err(self.fault()),
            }
            // A value has ended, and with it perhaps what is around it.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let object = open & 1 == 1;
                if self.pass(b',') {
                    if object {
                        self.key()?;
                    }
                    break;
                }
                if !self.pass(if object { b'}' } else { b']' }) {
                    return Err(self.fault());
                }
                open >>= 1;
                depth -= 1;
            }
        }
    }

    /// To behind the quote that ends the string whose first quote is next. What is in it is not looked at.
    fn string(&mut self) -> Result<(), NotJson> {
        self.at += 1;
        // Few bytes are looked at one by one sooner than a search has begun.
        let mut few = FEW;
        loop {
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 2;
                    few = FEW;
                }
                Some(_) if few > 0 => {
                    self.at += 1;
                    few -= 1;
                }
                _ => {
                    let rest = self.text.get(self.at..).unwrap_or_default();
                    let Some(length) = memchr::memchr2(b'"', b'\\', rest) else {
                        self.at = self.text.len();
                        return Err(self.fault());
                    };
                    self.at += length;
                }
            }
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), NotJson> {
        for byte in word {
            if self.text.get(self.at) != Some(byte) {
                return Err(self.fault());
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), NotJson> {
        let next = |scanner: &Self| scanner.text.get(scanner.at).copied();
        self.at += usize::from(next(self) == Some(b'-'));
        match next(self) {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if next(self) == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = next(self) {
            self.at += 1;
            self.at += usize::from(matches!(next(self), Some(b'+' | b'-')));
            self.digits()?;
        }
        // `01` is two numbers without anything between them, which the caller would take for a missing comma.
        Ok(())
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        let from = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        match self.at > from {
            true => Ok(()),
            false => Err(self.fault()),
        }
    }
}
