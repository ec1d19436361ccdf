//! Numbers as they stand in Redis: decimal numbers up to 2^53 - 1, and stamps in base 36. A reader takes only what this
//! program writes.

use crate::error::{Error, Result};

/// The largest number in Redis: scripts calculate in floating point, which is exact up to here.
pub(crate) const LARGEST: u64 = (1 << 53) - 1;

/// Adds a number to a sum; an error if the sum gets larger than [`LARGEST`].
pub(crate) fn add(sum: &mut u64, number: u64) -> Result<()> {
    let more = sum.checked_add(number).filter(|more| *more <= LARGEST);
    *sum = more.ok_or_else(no_number)?;
    Ok(())
}

/// Reads a number like [`whole_number`]. A text that is not such a number is an error.
pub(crate) fn count(text: &str) -> Result<u64> {
    whole_number(text).ok_or_else(no_number)
}

/// A number as this program writes it: digits and nothing else, up to [`LARGEST`].
pub(crate) fn whole_number(text: &str) -> Option<u64> {
    // Sixteen digits always fit into the type.
    if !(1..=16).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| *number <= LARGEST)
}

/// A value that is one part of a record.
pub(crate) trait Stored: Sized {
    /// Reads the value. `None`: this program does not write it like that.
    fn stored(text: &str) -> Option<Self>;
}

impl Stored for u64 {
    fn stored(text: &str) -> Option<Self> {
        whole_number(text)
    }
}

impl Stored for i64 {
    fn stored(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let number = i64::try_from(whole_number(digits)?).ok()?;
        Some(if digits.len() < text.len() {
            -number
        } else {
            number
        })
    }
}

impl Stored for char {
    fn stored(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// Reads a number or a letter that is one part of a record.
pub(crate) fn parse<T: Stored>(text: Option<&str>) -> Result<T> {
    text.and_then(T::stored).ok_or_else(unreadable)
}

/// A stamp as it stands in records: in base 36. Ten digits are enough until 2085.
pub(crate) fn short(stamp: u64) -> String {
    let (mut digits, mut rest) = (Vec::with_capacity(13), stamp);
    loop {
        digits.extend(char::from_digit((rest % 36) as u32, 36));
        rest /= 36;
        if rest == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

/// Reads a stamp in base 36.
pub(crate) fn stamp(text: Option<&str>) -> Result<u64> {
    // Twelve digits always fit into the type.
    text.filter(|text| (1..=12).contains(&text.len()))
        .and_then(|text| {
            text.bytes().try_fold(0, |stamp, byte| match byte {
                b'0'..=b'9' => Some(stamp * 36 + u64::from(byte - b'0')),
                b'a'..=b'z' => Some(stamp * 36 + u64::from(byte - b'a') + 10),
                _ => None,
            })
        })
        .ok_or_else(unreadable)
}

/// A record in a form that this program does not write.
pub(crate) fn unreadable() -> Error {
    Error::unreadable("a record in a form that this program does not write")
}

pub(crate) fn no_number() -> Error {
    Error::unreadable("no number where one is expected, or one beyond 2^53")
}
