//! Reading what Redis answered. Anything unexpected is an error, never a guess.

use redis::Value;

use crate::connection::texts;
use crate::counts::number::{LARGEST, count, no_number};
use crate::error::{Error, Result};

fn unexpected(what: &str) -> Error {
    Error::Internal(format!("unexpected reply from redis: {what}"))
}

/// A list, read from the front.
pub(crate) struct Reply(std::vec::IntoIter<Value>);

impl Reply {
    pub(crate) fn new(value: Value) -> Result<Self> {
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

    pub(crate) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all that is left are places where nothing stands.
    pub(crate) fn is_nothing(&self) -> bool {
        self.0
            .as_slice()
            .iter()
            .all(|value| matches!(value, Value::Nil))
    }

    pub(crate) fn value(&mut self) -> Result<Value> {
        self.0.next().ok_or_else(|| unexpected("list too short"))
    }

    pub(crate) fn text(&mut self) -> Result<String> {
        text(self.value()?)
    }

    pub(crate) fn number(&mut self) -> Result<u64> {
        number(&self.value()?)
    }

    pub(crate) fn list(&mut self) -> Result<Reply> {
        Reply::new(self.value()?)
    }

    /// The rest as pairs of text.
    pub(crate) fn pairs(mut self) -> Result<Vec<(String, String)>> {
        let mut pairs = Vec::with_capacity(self.0.len() / 2);
        while !self.is_empty() {
            pairs.push((self.text()?, self.text()?));
        }
        Ok(pairs)
    }
}

/// What was asked of an [`Item::Flat`](crate::connection::Item::Flat), read from the front where it lies.
pub(crate) struct Fields<I>(I);

/// The fields of such an answer.
pub(crate) fn fields(answer: &Value) -> Result<Fields<impl Iterator<Item = Result<Option<&str>>>>> {
    Ok(Fields(texts(answer)?))
}

impl<'a, I: Iterator<Item = Result<Option<&'a str>>>> Fields<I> {
    /// What the next one holds, if anything.
    pub(crate) fn text(&mut self) -> Result<Option<&'a str>> {
        let missing = || Err(unexpected("list too short"));
        self.0.next().unwrap_or_else(missing)
    }

    /// The number that the next one holds; nothing is 0.
    pub(crate) fn number(&mut self) -> Result<u64> {
        self.text()?.map_or(Ok(0), count)
    }
}

/// Text; what isn't UTF-8 was not written by us.
pub(crate) fn text(value: Value) -> Result<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| not_utf8()),
        Value::SimpleString(text) => Ok(text),
        Value::Okay => Ok("OK".into()),
        Value::Int(n) => Ok(n.to_string()),
        _ => Err(unexpected("not a text")),
    }
}

/// Text that may be anything, as it lies there.
pub(crate) fn bytes(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        value => text(value).map(String::into_bytes),
    }
}

/// What can't be read is nothing; any other failure stays one.
pub(crate) fn readable<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Error::Unreadable(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Text, or nothing.
pub(crate) fn maybe_text(value: Value) -> Result<Option<String>> {
    match value {
        Value::Nil => Ok(None),
        value => text(value).map(Some),
    }
}

/// A number that is not negative; nothing is 0.
pub(crate) fn number(value: &Value) -> Result<u64> {
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
pub(crate) fn stored(value: &Value) -> Result<u64> {
    match value {
        Value::BulkString(bytes) => count(std::str::from_utf8(bytes).map_err(|_| not_utf8())?),
        value => number(value),
    }
}

fn not_utf8() -> Error {
    Error::unreadable("not UTF-8")
}
