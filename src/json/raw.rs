//! One value, in the bytes that it is written in.

use std::borrow::Cow;

use super::text::{BadText, Surrogates, TextFault, lossy, unescape};

/// A value, as the bytes that it is written in. Its grammar has been checked; the text of strings has not.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raw<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Raw<'a> {
    /// The bytes of a value, and how many bytes of the whole text stand before it.
    pub(super) fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    /// The bytes that it is written in.
    pub(crate) fn as_bytes(self) -> &'a [u8] {
        self.text
    }

    /// How many bytes of the whole text stand before it.
    pub(crate) fn at(self) -> usize {
        self.at
    }

    /// How many bytes it has.
    pub(crate) fn bytes(self) -> usize {
        self.text.len()
    }

    /// Whether it is `null`.
    pub(crate) fn is_null(self) -> bool {
        self.text == b"null"
    }

    /// Whether it is a string.
    pub(crate) fn is_text(self) -> bool {
        self.text.first() == Some(&b'"')
    }

    /// Its value, if it is `true` or `false`.
    pub(crate) fn flag(self) -> Option<bool> {
        match self.text {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    /// Its value, if it is a number without fraction and exponent, and fits. `-0` is refused: `serde_json` does not take it for
    /// an integer either.
    pub(crate) fn integer(self) -> Option<i64> {
        let digits = std::str::from_utf8(self.text).ok()?;
        let is_number = digits.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        (is_number && digits != "-0")
            .then(|| digits.parse().ok())
            .flatten()
    }

    /// The beginning of the value, by which people can find it again: at most `characters` characters, and no control characters.
    /// What can't be read in a string becomes U+FFFD.
    pub(crate) fn excerpt(self, characters: usize) -> String {
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

    /// The bytes of a string between its quotes, if nothing in it is escaped. That is enough to recognize a known key. The bytes
    /// may hold control characters and broken UTF-8.
    pub(crate) fn plain(self) -> Option<&'a [u8]> {
        let inside = self.inside()?;
        memchr::memchr(b'\\', inside).is_none().then_some(inside)
    }

    fn inside(self) -> Option<&'a [u8]> {
        self.text.strip_prefix(b"\"")?.strip_suffix(b"\"")
    }

    /// The decoded text, if it is a string.
    pub(crate) fn text(self, surrogates: Surrogates) -> Option<Result<Cow<'a, str>, BadText>> {
        let inside = self.inside()?;
        let plain = memchr::memchr(b'\\', inside).unwrap_or(inside.len());
        if plain < inside.len() {
            return Some(self.unescaped(inside, plain, surrogates).map(Cow::Owned));
        }
        Some(self.checked(inside, 0).map(Cow::Borrowed))
    }

    /// Checks a stretch of the string that has no escapes. It begins `from` bytes after the first quote.
    fn checked(self, stretch: &'a [u8], from: usize) -> Result<&'a str, BadText> {
        let bad = |fault, at: usize| BadText {
            fault,
            at: self.at + 1 + from + at,
        };
        // `fold` looks at all bytes and never stops early: the compiler turns such a loop into vector instructions.
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
        // An escape never stands for more bytes than it is written in.
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
