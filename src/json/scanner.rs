//! The grammar of JSON: finds where each value ends.

use super::raw::Raw;

/// The deepest nesting that is allowed.
pub(super) const MAX_DEPTH: u32 = 127;

/// How many bytes of a string are looked at one by one before `memchr` searches the rest.
const FEW: u32 = 12;

/// A text that is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotJson {
    /// How many bytes of the text were read, including the one that is wrong.
    pub read: usize,
    /// Whether the fault is only that the nesting is too deep.
    pub deep: bool,
}

/// Reads a text once, from beginning to end.
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

    /// The next byte that is not blank. Blanks are passed, that byte is not.
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

    /// The fault that the next byte is wrong.
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

    /// Whether a list or an object has another entry. Its opening bracket must have been passed; this passes the comma before the
    /// next entry, or the closing bracket.
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

    /// Passes the next value, with all that is in it.
    fn skip(&mut self) -> Result<(), NotJson> {
        // The lists and objects that are open around the value: their number, and for each a bit, which is 1 for an object.
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
            // A value has ended. The lists and objects around it may end here too.
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

    /// Passes a string. Its first quote must be the next byte. What is in the string is not checked.
    fn string(&mut self) -> Result<(), NotJson> {
        self.at += 1;
        // For a few bytes, looking at them one by one is faster than starting a search.
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
        // `01` needs no check here: it is read as two numbers, and the caller misses a comma between them.
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
