//! JSON taken apart where it lies. A value stays the bytes that it is written in until somebody asks what it holds, so a body
//! costs no memory but its own, whatever it holds, and what nobody asks for is passed over. No recursion. No I/O.
//!
//! Two kinds of fault are told apart. A fault of the *grammar* ([`NotJson`]) leaves no way to tell where a value ends. A fault
//! inside a *string* ([`BadText`]) does: the string still ends at its quote, so whoever reads a list of values can refuse one
//! and go on with the next.

use std::borrow::Cow;

/// The deepest nesting that is followed.
pub const MAX_DEPTH: u32 = 127;

/// Bytes of a string that are looked at before the rest is searched.
const FEW: u32 = 12;

/// A text that is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotJson {
    /// How many bytes of it were read, the one that is wrong included.
    pub read: usize,
    /// Whether it is only nested too deeply.
    pub deep: bool,
}

/// What is wrong inside a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextFault {
    /// Its bytes are not UTF-8.
    #[error("is not valid UTF-8")]
    Utf8,
    /// It holds one half of a surrogate pair, escaped.
    #[error("holds an unpaired surrogate")]
    Surrogate,
    /// It holds a control character that is not escaped.
    #[error("holds a control character that is not escaped")]
    Control,
    /// It holds an escape that JSON doesn't have.
    #[error("holds an escape that JSON does not have")]
    Escape,
}

/// A string that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadText {
    /// What is wrong.
    pub fault: TextFault,
    /// How many bytes of the whole text stand before it.
    pub at: usize,
}

/// What to do about half a surrogate pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surrogates {
    /// Refuse the string.
    Refuse,
    /// Put U+FFFD in its place.
    Replace,
}

/// Finds the positions of bytes, in order, without looking at any byte twice.
#[derive(Debug)]
pub struct Positions<'a> {
    text: &'a [u8],
    seen: usize,
    line: usize,
    line_start: usize,
}

impl<'a> Positions<'a> {
    /// Of the bytes of this text.
    pub fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            seen: 0,
            line: 1,
            line_start: 0,
        }
    }

    /// Line and column of the byte at `at`, which is not before one that was asked for earlier. Both count from 1, columns in
    /// bytes.
    pub fn of(&mut self, at: usize) -> (usize, usize) {
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
pub fn byte_order_mark(text: &[u8]) -> usize {
    match text.starts_with(BYTE_ORDER_MARK) {
        true => BYTE_ORDER_MARK.len(),
        false => 0,
    }
}

/// Reads a text from its beginning to its end, once.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Begins at that byte of the text.
    pub fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    /// The next byte that is not blank; it is not passed.
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Passes the next byte that is not blank, if it is this one.
    pub fn pass(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// The fault of the byte that is next.
    pub fn fault(&self) -> NotJson {
        NotJson {
            read: (self.at + 1).min(self.text.len()),
            deep: false,
        }
    }

    /// Nothing but blanks may follow.
    pub fn end(&mut self) -> Result<(), NotJson> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault()),
        }
    }

    /// Whether a list or an object whose opening bracket has been passed has another entry: its comma is passed, or the
    /// closing bracket.
    pub fn another(&mut self, first: &mut bool, close: u8) -> Result<bool, NotJson> {
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
    pub fn key(&mut self) -> Result<Raw<'a>, NotJson> {
        if self.peek() != Some(b'"') {
            return Err(self.fault());
        }
        let from = self.at;
        self.string()?;
        let key = self.since(from);
        match self.pass(b':') {
            true => Ok(key),
            false => Err(self.fault()),
        }
    }

    /// The next value, whatever it is, from its first byte to its last.
    pub fn value(&mut self) -> Result<Raw<'a>, NotJson> {
        self.peek();
        let from = self.at;
        self.skip()?;
        Ok(self.since(from))
    }

    fn since(&self, from: usize) -> Raw<'a> {
        Raw {
            text: self.text.get(from..self.at).unwrap_or_default(),
            at: from,
        }
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

/// A value in the bytes that it is written in, whose grammar is right.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Raw<'a> {
    /// The bytes that it is written in.
    pub fn as_bytes(self) -> &'a [u8] {
        self.text
    }

    /// How many bytes of the whole text stand before it.
    pub fn at(self) -> usize {
        self.at
    }

    /// How many bytes it has.
    pub fn bytes(self) -> usize {
        self.text.len()
    }

    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        self.text == b"null"
    }

    /// Whether it is a string.
    pub fn is_text(self) -> bool {
        self.text.first() == Some(&b'"')
    }

    /// What it says, if it is `true` or `false`.
    pub fn flag(self) -> Option<bool> {
        match self.text {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    /// Its value, if it is a whole number without fraction and exponent that fits. `-0` is a fraction, as `serde_json` has it.
    pub fn integer(self) -> Option<i64> {
        let digits = std::str::from_utf8(self.text).ok()?;
        let is_number = digits.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        (is_number && digits != "-0")
            .then(|| digits.parse().ok())
            .flatten()
    }

    /// The value for people to find it again: at most so many characters, none of them a control character. What can't be read of a
    /// string is U+FFFD.
    pub fn excerpt(self, characters: usize) -> String {
        // No character has more bytes than an escaped one.
        let most = characters.saturating_add(1).saturating_mul(12);
        let (quote, text) = match self.inside() {
            Some(inside) => ("\"", lossy(inside.get(..most).unwrap_or(inside))),
            None => {
                let text = self.text.get(..most).unwrap_or(self.text);
                ("", String::from_utf8_lossy(text).into_owned())
            }
        };
        let mut clean = text.chars().filter(|character| !character.is_control());
        let mut excerpt = String::from(quote);
        excerpt.extend(clean.by_ref().take(characters));
        if clean.next().is_some() {
            excerpt.push('…');
        }
        excerpt + quote
    }

    /// Its items, if it is a list.
    pub fn items(self) -> Option<Items<'a>> {
        self.entries(b'[').map(Items)
    }

    /// Keys and values, if it is an object. A key may come twice.
    pub fn fields(self) -> Option<Fields<'a>> {
        self.entries(b'{').map(Fields)
    }

    fn entries(self, open: u8) -> Option<Entries<'a>> {
        let mut scanner = Scanner::new(self.text, 0);
        scanner.pass(open).then_some(Entries {
            scanner,
            first: true,
            offset: self.at,
        })
    }

    /// Of each of these keys the last value, if it is an object; `null` is none.
    pub fn pick<const N: usize>(self, keys: [&str; N]) -> Option<[Option<Raw<'a>>; N]> {
        let mut picked = [None; N];
        for (key, value) in self.fields()? {
            let is_key = |known: &&str| match key.plain() {
                Some(plain) => plain == known.as_bytes(),
                None => key
                    .text(Surrogates::Refuse)
                    .is_some_and(|text| text.is_ok_and(|text| text == **known)),
            };
            let place = keys.iter().position(is_key);
            if let Some(place) = place.and_then(|place| picked.get_mut(place)) {
                *place = (!value.is_null()).then_some(value);
            }
        }
        Some(picked)
    }

    /// The text of a string between its quotes, if nothing in it is escaped: enough to tell a known key. Control characters and
    /// broken UTF-8 are still in it.
    pub fn plain(self) -> Option<&'a [u8]> {
        let inside = self.inside()?;
        memchr::memchr(b'\\', inside).is_none().then_some(inside)
    }

    fn inside(self) -> Option<&'a [u8]> {
        self.text.strip_prefix(b"\"")?.strip_suffix(b"\"")
    }

    /// The text, if it is a string.
    pub fn text(self, surrogates: Surrogates) -> Option<Result<Cow<'a, str>, BadText>> {
        let inside = self.inside()?;
        let plain = memchr::memchr(b'\\', inside).unwrap_or(inside.len());
        if plain < inside.len() {
            return Some(self.unescaped(inside, plain, surrogates).map(Cow::Owned));
        }
        Some(self.checked(inside, 0).map(Cow::Borrowed))
    }

    /// A stretch of the string without escapes, `from` bytes behind its first quote.
    fn checked(self, stretch: &'a [u8], from: usize) -> Result<&'a str, BadText> {
        let bad = |fault, at: usize| BadText {
            fault,
            at: self.at + 1 + from + at,
        };
        // Without an end to stop at, which the compiler makes vectors of.
        if stretch.iter().fold(false, |any, byte| any | (*byte < 0x20)) {
            let at = stretch.iter().position(|byte| *byte < 0x20);
            return Err(bad(TextFault::Control, at.unwrap_or_default()));
        }
        std::str::from_utf8(stretch).map_err(|error| bad(TextFault::Utf8, error.valid_up_to()))
    }

    fn unescaped(
        self,
        inside: &'a [u8],
        first: usize,
        surrogates: Surrogates,
    ) -> Result<String, BadText> {
        // No escape stands for more bytes than it has.
        let mut text = String::with_capacity(inside.len());
        text.push_str(self.checked(inside.get(..first).unwrap_or_default(), 0)?);
        let mut at = first;
        while let Some(byte) = inside.get(at) {
            if *byte == b'\\' {
                let (character, length) = unescape(inside, at, surrogates).map_err(|fault| {
                    let at = self.at + 1 + at;
                    BadText { fault, at }
                })?;
                text.push(character);
                at += length;
            } else {
                let rest = inside.get(at..).unwrap_or_default();
                let length = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
                let stretch = rest.get(..length).unwrap_or_default();
                text.push_str(self.checked(stretch, at)?);
                at += length;
            }
        }
        Ok(text)
    }
}

/// The character that an escape stands for, and how long the escape is.
fn unescape(text: &[u8], at: usize, surrogates: Surrogates) -> Result<(char, usize), TextFault> {
    let character = match text.get(at + 1) {
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => {
            let unit = four_digits(text, at + 2).ok_or(TextFault::Escape)?;
            return match char::from_u32(unit).or_else(|| pair(text, at + 6, unit)) {
                Some(character) => Ok((character, if character > '\u{ffff}' { 12 } else { 6 })),
                None if surrogates == Surrogates::Replace => Ok((char::REPLACEMENT_CHARACTER, 6)),
                None => Err(TextFault::Surrogate),
            };
        }
        _ => return Err(TextFault::Escape),
    };
    Ok((character, 2))
}

/// The text that is written between two quotes, or the beginning of it. What can't be read of it is U+FFFD.
fn lossy(inside: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = inside;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (before, escape) = rest.split_at_checked(at).unwrap_or((rest, b""));
        text.push_str(&String::from_utf8_lossy(before));
        let read = unescape(escape, 0, Surrogates::Replace);
        let (character, length) = read.unwrap_or((char::REPLACEMENT_CHARACTER, 2));
        text.push(character);
        rest = escape.get(length..).unwrap_or_default();
    }
    text.push_str(&String::from_utf8_lossy(rest));
    text
}

/// The number that four hexadecimal digits stand for.
fn four_digits(text: &[u8], from: usize) -> Option<u32> {
    // Of a byte that is none. Shifted and put together with others it stays larger than what four digits can be.
    const NONE: u32 = 1 << 16;
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => u32::from(byte - b'0'),
        b'a'..=b'f' => u32::from(byte - b'a') + 10,
        b'A'..=b'F' => u32::from(byte - b'A') + 10,
        _ => NONE,
    };
    let [a, b, c, d] = <[u8; 4]>::try_from(text.get(from..from + 4)?).ok()?;
    let number = digit(a) << 12 | digit(b) << 8 | digit(c) << 4 | digit(d);
    (number < NONE).then_some(number)
}

/// The character that two halves of a surrogate pair stand for, of which the second one is still escaped.
fn pair(text: &[u8], from: usize, high: u32) -> Option<char> {
    let low = match text.get(from..from + 2) {
        Some(b"\\u") => four_digits(text, from + 2)?,
        _ => return None,
    };
    let is_pair = high & 0xfc00 == 0xd800 && low & 0xfc00 == 0xdc00;
    let character = 0x1_0000 + ((high & 0x3ff) << 10 | (low & 0x3ff));
    is_pair.then(|| char::from_u32(character)).flatten()
}

#[derive(Debug, Clone)]
struct Entries<'a> {
    scanner: Scanner<'a>,
    first: bool,
    offset: usize,
}

impl<'a> Entries<'a> {
    /// Goes to the next entry. The grammar was found right before, so an error is the end.
    fn next(&mut self, close: u8) -> Option<()> {
        let Self { scanner, first, .. } = self;
        scanner.another(first, close).ok()?.then_some(())
    }

    fn shifted(&self, raw: Raw<'a>) -> Raw<'a> {
        Raw {
            at: raw.at + self.offset,
            ..raw
        }
    }
}

/// The items of a list.
#[derive(Debug, Clone)]
pub struct Items<'a>(Entries<'a>);

impl<'a> Iterator for Items<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(b']')?;
        let value = self.0.scanner.value().ok()?;
        Some(self.0.shifted(value))
    }
}

/// The keys and values of an object, in order.
#[derive(Debug, Clone)]
pub struct Fields<'a>(Entries<'a>);

impl<'a> Iterator for Fields<'a> {
    type Item = (Raw<'a>, Raw<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(b'}')?;
        let key = self.0.scanner.key().ok()?;
        let value = self.0.scanner.value().ok()?;
        Some((self.0.shifted(key), self.0.shifted(value)))
    }
}

/// The whole of a text as one value.
pub fn whole(text: &[u8]) -> Result<Raw<'_>, NotJson> {
    let mut scanner = Scanner::new(text, byte_order_mark(text));
    let value = scanner.value()?;
    scanner.end()?;
    Ok(value)
}

#[cfg(test)]
mod tests;
