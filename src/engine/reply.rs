//! Reads replies of Redis. An unexpected reply is an error; nothing is guessed.

use redis::Value;

use crate::counts::number::{LARGEST, count, no_number, parse};
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

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the rest of the list holds only nil.
    pub(super) fn is_nothing(&self) -> bool {
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

    /// A position, which may be below 0.
    pub(crate) fn position(&mut self) -> Result<i64> {
        parse(Some(&self.text()?))
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

/// The texts in a list of fields, borrowed; `None` for a field that is missing.
pub(super) fn texts(answer: &Value) -> Result<impl Iterator<Item = Result<Option<&str>>>> {
    let Value::Array(list) = answer else {
        return Err(unexpected("not a list"));
    };
    Ok(list.iter().map(|value| match value {
        Value::Nil => Ok(None),
        Value::BulkString(text) => std::str::from_utf8(text).map(Some).map_err(|_| not_utf8()),
        _ => Err(Error::unreadable("what is no text")),
    }))
}

/// Reads such a list from the front.
pub(super) struct ReplyFields<I>(I);

/// The fields of an answer.
pub(super) fn fields(
    answer: &Value,
) -> Result<ReplyFields<impl Iterator<Item = Result<Option<&str>>>>> {
    Ok(ReplyFields(texts(answer)?))
}

impl<'a, I: Iterator<Item = Result<Option<&'a str>>>> ReplyFields<I> {
    /// The next field; `None` if Redis has no value for it.
    pub(super) fn text(&mut self) -> Result<Option<&'a str>> {
        let missing = || Err(unexpected("list too short"));
        self.0.next().unwrap_or_else(missing)
    }

    /// The next field as a number; 0 if Redis has no value for it.
    pub(super) fn number(&mut self) -> Result<u64> {
        self.text()?.map_or(Ok(0), count)
    }
}

/// A text. One that is not UTF-8 is unreadable: this program writes none.
pub(crate) fn text(value: Value) -> Result<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| not_utf8()),
        Value::SimpleString(text) => Ok(text),
        Value::Okay => Ok("OK".into()),
        Value::Int(n) => Ok(n.to_string()),
        _ => Err(unexpected("not a text")),
    }
}

/// A text as bytes. They need not be UTF-8.
pub(crate) fn bytes(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        value => text(value).map(String::into_bytes),
    }
}

/// Turns unreadable data into `None`; any other failure stays a failure.
pub(crate) fn readable<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Error::Unreadable(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A text, or `None` for nil.
pub(super) fn maybe_text(value: Value) -> Result<Option<String>> {
    match value {
        Value::Nil => Ok(None),
        value => text(value).map(Some),
    }
}

/// A number that is not negative; 0 for nil or an empty text.
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

/// A number as it is stored in a field; an empty text is unreadable.
pub(crate) fn stored(value: &Value) -> Result<u64> {
    match value {
        Value::BulkString(bytes) => count(std::str::from_utf8(bytes).map_err(|_| not_utf8())?),
        value => number(value),
    }
}

fn not_utf8() -> Error {
    Error::unreadable("not UTF-8")
}
