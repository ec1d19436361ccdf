//! Decodes what stands between the quotes of a string.

/// What is wrong inside a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TextFault {
    /// Its bytes are not UTF-8.
    #[error("is not valid UTF-8")]
    Utf8,
    /// It holds an escape for only one half of a surrogate pair.
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
pub(crate) struct BadText {
    /// What is wrong.
    pub fault: TextFault,
    /// How many bytes of the whole text stand before the fault.
    pub at: usize,
}

/// What to do about half a surrogate pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surrogates {
    /// Refuse the string.
    Refuse,
    /// Put U+FFFD in its place.
    Replace,
}

/// The character that an escape stands for, and how long the escape is.
pub(super) fn unescape(
    text: &[u8],
    at: usize,
    surrogates: Surrogates,
) -> Result<(char, usize), TextFault> {
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

/// The text that is written between two quotes, or the beginning of it. What can't be read in it becomes U+FFFD.
pub(super) fn lossy(inside: &[u8]) -> String {
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
    // The value of a byte that is no digit. Shifted and joined with the others, it is still more than any four digits can be.
    const NO_DIGIT: u32 = 1 << 16;
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => u32::from(byte - b'0'),
        b'a'..=b'f' => u32::from(byte - b'a') + 10,
        b'A'..=b'F' => u32::from(byte - b'A') + 10,
        _ => NO_DIGIT,
    };
    let [a, b, c, d] = <[u8; 4]>::try_from(text.get(from..from + 4)?).ok()?;
    let number = digit(a) << 12 | digit(b) << 8 | digit(c) << 4 | digit(d);
    (number < NO_DIGIT).then_some(number)
}

/// The character of a surrogate pair. Its first half `high` has been read; the escape of the second half begins at `from`.
fn pair(text: &[u8], from: usize, high: u32) -> Option<char> {
    let low = match text.get(from..from + 2) {
        Some(b"\\u") => four_digits(text, from + 2)?,
        _ => return None,
    };
    let is_pair = high & 0xfc00 == 0xd800 && low & 0xfc00 == 0xdc00;
    let character = 0x1_0000 + ((high & 0x3ff) << 10 | (low & 0x3ff));
    is_pair.then(|| char::from_u32(character)).flatten()
}
