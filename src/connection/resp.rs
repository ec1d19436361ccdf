//! Reads replies in RESP2 where they lie, and goes on where it stopped when the rest of one has come.

use redis::{ErrorKind, RedisResult, Value};

/// The longest text that a reply may hold: Redis' own bound for what a client sends.
const LONGEST: usize = 512 << 20;
/// Lists in lists.
const DEPTH: usize = 32;
/// Places made for the values of a list before they have come.
const EXPECTED: usize = 1 << 16;

/// The lists that are open.
pub(super) struct Parser {
    open: Vec<List>,
}

struct List {
    values: Vec<Value>,
    missing: usize,
}

impl Parser {
    pub(super) fn new() -> Self {
        Self { open: Vec::new() }
    }

    /// The next reply, if all of it is there; `at` goes past what has been read of `bytes`, which may be a part of it.
    pub(super) fn next(&mut self, bytes: &[u8], at: &mut usize) -> RedisResult<Option<Value>> {
        loop {
            let Some(rest) = bytes.get(*at..).filter(|rest| !rest.is_empty()) else {
                return Ok(None);
            };
            let Some(token) = token(rest)? else {
                return Ok(None);
            };
            let mut value = match token {
                Token::Value(value, length) => {
                    *at += length;
                    value
                }
                Token::List(count, length) => {
                    *at += length;
                    if count > 0 {
                        if self.open.len() == DEPTH {
                            return Err(unreadable());
                        }
                        self.open.push(List {
                            values: Vec::with_capacity(count.min(EXPECTED)),
                            missing: count,
                        });
                        continue;
                    }
                    Value::Array(Vec::new())
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
}

/// A value, or the head of a list, and how many bytes it takes.
enum Token {
    Value(Value, usize),
    List(usize, usize),
}

fn token(bytes: &[u8]) -> RedisResult<Option<Token>> {
    let (Some(kind), Some(rest)) = (bytes.first(), bytes.get(1..)) else {
        return Ok(None);
    };
    if matches!(kind, b'+' | b'-') {
        return simple(bytes);
    }
    let Some((number, digits)) = number(rest)? else {
        return Ok(None);
    };
    let length = 1 + digits;
    let some = match (kind, usize::try_from(number)) {
        (b':', _) => Token::Value(Value::Int(number), length),
        (b'$' | b'*', Err(_)) => Token::Value(Value::Nil, length),
        (b'*', Ok(count)) => Token::List(count, length),
        (b'$', Ok(size)) if size <= LONGEST => {
            let Some(text) = bytes.get(length..length + size + 2) else {
                return Ok(None);
            };
            let Some(text) = text.strip_suffix(b"\r\n") else {
                return Err(unreadable());
            };
            Token::Value(Value::BulkString(text.to_vec()), length + size + 2)
        }
        _ => return Err(unreadable()),
    };
    Ok(Some(some))
}

/// A line of text. An error among them is put into its kind by the crate.
fn simple(bytes: &[u8]) -> RedisResult<Option<Token>> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else {
        return Ok(None);
    };
    let line = bytes.get(..end + 2).unwrap_or_default();
    let value = match line {
        b"+OK\r\n" => Value::Okay,
        line => redis::parse_redis_value(line)?,
    };
    Ok(Some(Token::Value(value, line.len())))
}

/// A number and how many bytes it takes with the end of its line.
fn number(bytes: &[u8]) -> RedisResult<Option<(i64, usize)>> {
    let negative = bytes.first() == Some(&b'-');
    let mut number: i64 = 0;
    let start = usize::from(negative);
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b'0'..=b'9' => {
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
    fn read(bytes: &[u8], piece: usize) -> RedisResult<Vec<Value>> {
        let (mut parser, mut at, mut values) = (Parser::new(), 0, Vec::new());
        for end in (0..bytes.len()).step_by(piece) {
            let end = (end + piece).min(bytes.len());
            while let Some(value) = parser.next(&bytes[..end], &mut at)? {
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
            assert_eq!(read(REPLIES, piece).unwrap(), expected, "pieces of {piece}");
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
            let error = read(bad.as_bytes(), bad.len()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Parse, "{bad:?}");
        }
        for part in ["", "$", "$3\r", "$3\r\nab", "*2\r\n:1\r\n", "+OK\r", "-ERR"] {
            assert_eq!(read(part.as_bytes(), 1).unwrap(), [], "{part:?}");
        }
    }
}
