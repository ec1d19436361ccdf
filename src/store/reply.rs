//! Reading what Redis answered. Anything unexpected is an error, never a guess.

use redis::Value;

use crate::connection::texts;
use crate::error::{Error, Result};

fn unexpected(what: &str) -> Error {
    Error::Internal(format!("unexpected reply from redis: {what}"))
}

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
        self.text()?.map_or(Ok(0), digits)
    }
}

/// Text; what isn't UTF-8 was not written by us.
pub(super) fn text(value: Value) -> Result<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| unexpected("not UTF-8")),
        Value::SimpleString(text) => Ok(text),
        Value::Okay => Ok("OK".into()),
        Value::Int(n) => Ok(n.to_string()),
        _ => Err(unexpected("not a text")),
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
        Value::Int(n) => u64::try_from(*n).map_err(|_| unexpected("a negative number")),
        Value::BulkString(bytes) => {
            let text = std::str::from_utf8(bytes);
            digits(text.map_err(|_| unexpected("not UTF-8"))?)
        }
        _ => Err(unexpected("not a number")),
    }
}

/// A number written out; no text is 0.
fn digits(text: &str) -> Result<u64> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| unexpected("not a number"))
}

/// Parses a number inside a record.
pub(super) fn parse<T: std::str::FromStr>(text: Option<&str>) -> Result<T> {
    text.and_then(|text| text.parse().ok())
        .ok_or_else(unreadable)
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

/// A record in a shape that this program did not write.
pub(super) fn unreadable() -> Error {
    unexpected("a record that can't be read")
}
