//! Reads replies in RESP2 where they lie, and goes on where it stopped when the rest of one has come.

use redis::{ErrorKind, RedisResult, Value};

/// The longest text that a reply may hold: Redis' own bound for what a client sends.
const LONGEST: usize = 512 << 20;
/// The longest line.
const LINE: usize = 64 << 10;
/// The longest number, with its sign.
const DIGITS: usize = 20;
/// Lists in lists.
const DEPTH: usize = 32;
/// Places made at once for the values of a list.
const EXPECTED: usize = 1 << 16;

/// What has been read of a reply that is not all there.
pub(super) struct Parser {
    /// The lists that are open.
    open: Vec<List>,
    flat: Option<Flat>,
}

struct List {
    values: Vec<Value>,
    missing: usize,
}

/// A list as it came.
struct Flat {
    bytes: Vec<u8>,
    missing: usize,
}

impl Parser {
    pub(super) fn new() -> Self {
        Self {
            open: Vec::new(),
            flat: None,
        }
    }

    /// The next reply, if all of it is there; `at` goes past what has been read of `bytes`, which may be a part of it. A
    /// list that is wanted `flat` is one text, to be read by [`texts`].
    pub(super) fn next(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        flat: bool,
    ) -> RedisResult<Option<Value>> {
        if flat && self.open.is_empty() && self.flat.is_none() && bytes.get(*at) == Some(&b'*') {
            self.flat = Some(Flat {
                bytes: Vec::new(),
                missing: 1,
            });
        }
        if self.flat.is_some() {
            return self.flat(bytes, at);
        }
        loop {
            let Some(token) = Token::first(bytes.get(*at..).unwrap_or_default())? else {
                return Ok(None);
            };
            *at += token.length;
            let mut value = match token.kind {
                Kind::Line(line) => redis::parse_redis_value(line)?,
                Kind::Okay => Value::Okay,
                Kind::Number(number) => Value::Int(number),
                Kind::Nil => Value::Nil,
                Kind::Text(text) => Value::BulkString(text.to_vec()),
                Kind::List(0) => Value::Array(Vec::new()),
                Kind::List(count) => {
                    if self.open.len() == DEPTH {
                        return Err(unreadable());
                    }
                    // The shortest value takes three bytes.
                    let there = bytes.len().saturating_sub(*at) / 3;
                    self.open.push(List {
                        values: Vec::with_capacity(count.min(EXPECTED).min(there)),
                        missing: count,
                    });
                    continue;
                }
            };
            // It may be the last of its list, and that one the last of another.
            loop {
                let Some(list) = self.open.last_mut() else {
                    return Ok(Some(value));
                };
                list.values.push(value);
                list.missing -= 1;
                if list.missing > 0 {
                    break;
                }
                let values = self.open.pop().map(|list| list.values);
                value = Value::Array(values.unwrap_or_default());
            }
        }
    }

    /// Whether a part of a reply has been read.
    pub(super) fn is_midway(&self) -> bool {
        self.flat.is_some() || !self.open.is_empty()
    }

    fn flat(&mut self, bytes: &[u8], at: &mut usize) -> RedisResult<Option<Value>> {
        let Some(flat) = &mut self.flat else {
            return Ok(None);
        };
        let start = *at;
        while flat.missing > 0 {
            let Some(token) = Token::first(bytes.get(*at..).unwrap_or_default())? else {
                break;
            };
            *at += token.length;
            flat.missing -= 1;
            if let Kind::List(count) = token.kind {
                flat.missing = flat.missing.saturating_add(count);
            }
        }
        flat.bytes
            .extend_from_slice(bytes.get(start..*at).unwrap_or_default());
        if flat.missing > 0 {
            return Ok(None);
        }
        let whole = self.flat.take().map(|flat| flat.bytes);
        Ok(whole.map(Value::BulkString))
    }
}

/// The texts of a list that has been left flat, and nothing where there is none. Anything else in it is an error.
pub(super) fn texts(list: &[u8]) -> RedisResult<impl Iterator<Item = RedisResult<Option<&str>>>> {
    let list = std::str::from_utf8(list).map_err(|_| unreadable())?;
    let head = Token::first(list.as_bytes())?.ok_or_else(unreadable)?;
    let Kind::List(count) = head.kind else {
        return Err(unreadable());
    };
    let mut at = head.length;
    Ok((0..count).map(move |_| {
        let rest = list.as_bytes().get(at..).unwrap_or_default();
        match Token::first(rest)? {
            Some(Token {
                kind: Kind::Text(text),
                length,
            }) => {
                at += length;
                let end = at - 2;
                let text = list.get(end - text.len()..end);
                text.map(Some).ok_or_else(unreadable)
            }
            Some(Token {
                kind: Kind::Nil,
                length,
            }) => {
                at += length;
                Ok(None)
            }
            _ => Err(unreadable()),
        }
    }))
}

/// A value, or the head of a list.
struct Token<'a> {
    kind: Kind<'a>,
    /// How many bytes it takes.
    length: usize,
}

enum Kind<'a> {
    Okay,
    /// Any other line of text, with its first byte and its end: the crate puts errors into their kinds.
    Line(&'a [u8]),
    Number(i64),
    Nil,
    Text(&'a [u8]),
    List(usize),
}

impl<'a> Token<'a> {
    /// The one that `bytes` begins with, if all of it is there.
    fn first(bytes: &'a [u8]) -> RedisResult<Option<Self>> {
        let (Some(kind), Some(rest)) = (bytes.first(), bytes.get(1..)) else {
            return Ok(None);
        };
        if matches!(kind, b'+' | b'-') {
            let line = bytes.get(..LINE).unwrap_or(bytes);
            let Some(end) = line.windows(2).position(|two| two == b"\r\n") else {
                return match line.len() == LINE {
                    true => Err(unreadable()),
                    false => Ok(None),
                };
            };
            let line = bytes.get(..end + 2).unwrap_or_default();
            return Ok(Some(Self {
                kind: match line {
                    b"+OK\r\n" => Kind::Okay,
                    line => Kind::Line(line),
                },
                length: line.len(),
            }));
        }
        let Some((number, digits)) = number(rest)? else {
            return Ok(None);
        };
        let length = 1 + digits;
        Ok(Some(match (kind, usize::try_from(number)) {
            (b':', _) => Self {
                kind: Kind::Number(number),
                length,
            },
            (b'$' | b'*', Err(_)) => Self {
                kind: Kind::Nil,
                length,
            },
            (b'*', Ok(count)) => Self {
                kind: Kind::List(count),
                length,
            },
            (b'$', Ok(size)) if size <= LONGEST => {
                let Some(text) = bytes.get(length..length + size + 2) else {
                    return Ok(None);
                };
                let text = text.strip_suffix(b"\r\n").ok_or_else(unreadable)?;
                Self {
                    kind: Kind::Text(text),
                    length: length + size + 2,
                }
            }
            _ => return Err(unreadable()),
        }))
    }
}

/// A number and how many bytes it takes with the end of its line.
fn number(bytes: &[u8]) -> RedisResult<Option<(i64, usize)>> {
    let negative = bytes.first() == Some(&b'-');
    let mut number: i64 = 0;
    let start = usize::from(negative);
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b'0'..=b'9' if at < DIGITS => {
                let digit = i64::from(byte - b'0');
                let digit = if negative { -digit } else { digit };
                let longer = number.checked_mul(10).and_then(|n| n.checked_add(digit));
                number = longer.ok_or_else(unreadable)?;
            }
            b'\r' if at > start => {
                return match bytes.get(at + 1) {
                    Some(b'\n') => Ok(Some((number, at + 2))),
                    Some(_) => Err(unreadable()),
                    None => Ok(None),
                };
            }
            _ => return Err(unreadable()),
        }
    }
    Ok(None)
}

fn unreadable() -> redis::RedisError {
    (ErrorKind::Parse, "a reply that can't be read").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that can be read when it comes in pieces of that size.
    fn read(bytes: &[u8], piece: usize, flat: bool) -> RedisResult<Vec<Value>> {
        let (mut parser, mut at, mut values) = (Parser::new(), 0, Vec::new());
        for end in (0..bytes.len()).step_by(piece) {
            let end = (end + piece).min(bytes.len());
            while let Some(value) = parser.next(&bytes[..end], &mut at, flat)? {
                values.push(value);
            }
        }
        Ok(values)
    }

    const REPLIES: &[u8] = b"+OK\r\n+PONG\r\n:-9223372036854775808\r\n:42\r\n$-1\r\n*-1\r\n$0\r\n\r\n$4\r\na\r\nb\r\n\
        *0\r\n*3\r\n$1\r\nx\r\n*2\r\n:1\r\n*1\r\n$-1\r\n:2\r\n-NOSCRIPT No matching script.\r\n-OOM no\r\n";

    #[test]
    fn replies_are_read_in_pieces_of_any_size_as_the_crate_reads_them() {
        let mut expected = Vec::new();
        let mut rest = REPLIES;
        while !rest.is_empty() {
            let value = (1..=rest.len())
                .find_map(|end| Some((redis::parse_redis_value(&rest[..end]).ok()?, end)));
            let (value, end) = value.unwrap();
            expected.push(value);
            rest = &rest[end..];
        }
        assert_eq!(expected.len(), 12);
        for piece in 1..=REPLIES.len() {
            assert_eq!(
                read(REPLIES, piece, false).unwrap(),
                expected,
                "pieces of {piece}"
            );
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error_and_what_is_a_part_of_one_is_awaited() {
        for bad in [
            "?1\r\n",
            "\r\n",
            "$\r\n",
            "$1x\r\n",
            "$1\rx",
            "$1\r\nxy\r\n",
            ":99999999999999999999\r\n",
            "$999999999999\r\n",
            ":-\r\n",
            &"*1\r\n".repeat(DEPTH + 1),
        ] {
            let error = read(bad.as_bytes(), bad.len(), false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Parse, "{bad:?}");
        }
        for part in ["", "$", "$3\r", "$3\r\nab", "*2\r\n:1\r\n", "+OK\r", "-ERR"] {
            assert_eq!(read(part.as_bytes(), 1, false).unwrap(), [], "{part:?}");
        }
    }

    /// A list may say that it has any number of values. Its place is made for those that can be in what has come.
    #[test]
    fn lists_in_lists_take_no_memory_for_values_that_have_not_come() {
        let heads = format!("*{EXPECTED}\r\n").repeat(DEPTH);
        let mut parser = Parser::new();
        let next = parser.next(heads.as_bytes(), &mut 0, false).unwrap();
        assert_eq!(next, None);
        let places: usize = parser.open.iter().map(|list| list.values.capacity()).sum();
        assert!(places <= DEPTH * heads.len(), "{places} places are made");
    }

    #[test]
    fn a_list_that_is_left_flat_has_the_same_texts() {
        let reply = "*4\r\n$1\r\na\r\n$0\r\n\r\n$-1\r\n$6\r\n\u{e9}\r\n\u{e9}\r\n".as_bytes();
        let all = [
            reply,
            b"*0\r\n",
            b"-ERR no\r\n",
            b"*1\r\n*1\r\n:1\r\n",
            reply,
        ]
        .concat();
        for piece in 1..=all.len() {
            let values = read(&all, piece, true).unwrap();
            let [
                Value::BulkString(one),
                Value::BulkString(none),
                error,
                Value::BulkString(nested),
                last,
            ] = &values[..]
            else {
                panic!("{values:?}");
            };
            let found: Vec<_> = texts(one).unwrap().map(Result::unwrap).collect();
            let wanted = [Some("a"), Some(""), None, Some("\u{e9}\r\n\u{e9}")];
            assert_eq!(found, wanted);
            assert_eq!(texts(none).unwrap().count(), 0);
            assert!(error.clone().extract_error().is_err());
            assert!(texts(nested).unwrap().all(|text| text.is_err()));
            assert_eq!(last, &values[0]);
        }
        for bad in [&b""[..], b":1\r\n", b"*1\r\n$1\r\n\xff\r\n", b"*1"] {
            assert!(texts(bad).is_err(), "{bad:?}");
        }
        assert!(
            texts(b"*2\r\n$1\r\na\r\n")
                .unwrap()
                .last()
                .unwrap()
                .is_err()
        );
    }
}
