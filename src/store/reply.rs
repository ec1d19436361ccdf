//! Reading what Redis answered. Anything unexpected is an error, never a guess.

use redis::Value;

use crate::connection::texts;
use crate::error::{Error, Result};

fn unexpected(what: &str) -> Error {
    Error::Internal(format!("unexpected reply from redis: {what}"))
}

/// No number in Redis is larger: scripts calculate in floating point, which is exact up to here.
pub(super) const LARGEST: u64 = (1 << 53) - 1;

/// A list, read from the front.
pub(super) struct Reply(std::vec::IntoIter<Value>);

impl Reply {
    pub(super) fn new(value: Value) -> Result<Self> {
        match value {
            Value::Array(items) => Ok(Self(items.into_iter())),
            Value::Map(pairs) => {
                let flat: Vec<Value> = pairs.into_iter().flat_map(|(k, v)| [k, v]).collect();
                Ok(Self(flat.into_iter()))
            }
            Value::Nil => Ok(Self(Vec::new().into_iter())),
            _ => Err(unexpected("not a list")),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all that is left are places where nothing stands.
    pub(super) fn is_nothing(&self) -> bool {
        self.0
            .as_slice()
            .iter()
            .all(|value| matches!(value, Value::Nil))
    }

    pub(super) fn value(&mut self) -> Result<Value> {
        self.0.next().ok_or_else(|| unexpected("list too short"))
    }

    pub(super) fn text(&mut self) -> Result<String> {
        text(self.value()?)
    }

    pub(super) fn number(&mut self) -> Result<u64> {
        number(&self.value()?)
    }

    pub(super) fn list(&mut self) -> Result<Reply> {
        Reply::new(self.value()?)
    }

    /// The rest as pairs of text.
    pub(super) fn pairs(mut self) -> Result<Vec<(String, String)>> {
        let mut pairs = Vec::with_capacity(self.0.len() / 2);
        while !self.is_empty() {
            pairs.push((self.text()?, self.text()?));
        }
        Ok(pairs)
    }
}

/// What was asked of an [`Item::Flat`](crate::connection::Item::Flat), read from the front where it lies.
pub(super) struct Fields<I>(I);

/// The fields of such an answer.
pub(super) fn fields(answer: &Value) -> Result<Fields<impl Iterator<Item = Result<Option<&str>>>>> {
    Ok(Fields(texts(answer)?))
}

impl<'a, I: Iterator<Item = Result<Option<&'a str>>>> Fields<I> {
    /// What the next one holds, if anything.
    pub(super) fn text(&mut self) -> Result<Option<&'a str>> {
        let missing = || Err(unexpected("list too short"));
        self.0.next().unwrap_or_else(missing)
    }

    /// The number that the next one holds; nothing is 0.
    pub(super) fn number(&mut self) -> Result<u64> {
        self.text()?.map_or(Ok(0), count)
    }
}

/// Text; what isn't UTF-8 was not written by us.
pub(super) fn text(value: Value) -> Result<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| not_utf8()),
        Value::SimpleString(text) => Ok(text),
        Value::Okay => Ok("OK".into()),
        Value::Int(n) => Ok(n.to_string()),
        _ => Err(unexpected("not a text")),
    }
}

/// Text that may be anything, as it lies there.
pub(super) fn bytes(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        value => text(value).map(String::into_bytes),
    }
}

/// What can't be read is nothing; any other failure stays one.
pub(super) fn readable<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Error::Unreadable(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Text, or nothing.
pub(super) fn maybe_text(value: Value) -> Result<Option<String>> {
    match value {
        Value::Nil => Ok(None),
        value => text(value).map(Some),
    }
}

/// A number that is not negative; nothing is 0.
pub(super) fn number(value: &Value) -> Result<u64> {
    match value {
        Value::Nil => Ok(0),
        Value::Int(n) => match u64::try_from(*n) {
            Ok(n) if n <= LARGEST => Ok(n),
            _ => Err(no_number()),
        },
        Value::BulkString(bytes) if bytes.is_empty() => Ok(0),
        Value::BulkString(bytes) => count(std::str::from_utf8(bytes).map_err(|_| not_utf8())?),
        _ => Err(unexpected("not a number")),
    }
}

/// A number that stands in a field as it is; an empty field is none.
pub(super) fn stored(value: &Value) -> Result<u64> {
    match value {
        Value::BulkString(bytes) => count(std::str::from_utf8(bytes).map_err(|_| not_utf8())?),
        value => number(value),
    }
}

/// Adds a number to a sum, which is to stay one that can be calculated with.
pub(super) fn add(sum: &mut u64, number: u64) -> Result<()> {
    let more = sum.checked_add(number).filter(|more| *more <= LARGEST);
    *sum = more.ok_or_else(no_number)?;
    Ok(())
}

/// A number written out.
pub(super) fn count(text: &str) -> Result<u64> {
    whole(text).ok_or_else(no_number)
}

/// A number as this program writes it: digits and nothing else, up to [`LARGEST`].
pub(super) fn whole(text: &str) -> Option<u64> {
    // So many digits can't be too large for the type.
    if !(1..=16).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| *number <= LARGEST)
}

/// What stands in a record as a text of its own.
pub(super) trait Stored: Sized {
    /// Reads it; nothing if this program would not write it like that.
    fn stored(text: &str) -> Option<Self>;
}

impl Stored for u64 {
    fn stored(text: &str) -> Option<Self> {
        whole(text)
    }
}

impl Stored for i64 {
    fn stored(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let number = i64::try_from(whole(digits)?).ok()?;
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

/// Parses a number or a letter inside a record.
pub(super) fn parse<T: Stored>(text: Option<&str>) -> Result<T> {
    text.and_then(T::stored).ok_or_else(unreadable)
}

/// A stamp as it stands in records: in base 36, of which ten digits do until 2085.
pub(super) fn short(stamp: u64) -> String {
    let (mut digits, mut rest) = (Vec::with_capacity(13), stamp);
    loop {
        digits.extend(char::from_digit((rest % 36) as u32, 36));
        rest /= 36;
        if rest == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

/// Reads such a stamp.
pub(super) fn stamp(text: Option<&str>) -> Result<u64> {
    // So many digits can't be too large.
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
pub(super) fn unreadable() -> Error {
    Error::unreadable("a record in a form that this program does not write")
}

fn no_number() -> Error {
    Error::unreadable("no number where one is expected, or one beyond 2^53")
}

fn not_utf8() -> Error {
    Error::unreadable("not UTF-8")
}
