//! The parser of replies in RESP2. It reads them in the buffer of the connection, and goes on where it stopped when the rest of
//! a reply has come.

use redis::{ErrorKind, RedisResult, Value};

/// The longest text that a reply may hold: the bound that Redis itself sets to what a client sends.
const LONGEST: usize = 512 << 20;
/// The longest line.
const LINE: usize = 64 << 10;
/// The longest number, with its sign.
const DIGITS: usize = 20;
/// The shortest value: an empty line.
const SHORTEST: usize = "+\r\n".len();
/// How deep lists may lie in lists.
const DEPTH: usize = 32;
/// Between two calls, the part of a reply that has been read.
pub(super) struct Parser {
    /// The lists whose end has not come, from the outside to the inside.
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

    /// The next reply, if all of it is there. `at` goes past what has been read of `bytes`, also of a part of a reply.
    pub(super) fn next(&mut self, bytes: &[u8], at: &mut usize) -> RedisResult<Option<Value>> {
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
                    let there = bytes.len().saturating_sub(*at) / SHORTEST;
                    let free = there.saturating_sub(self.places());
                    self.open.push(List {
                        values: Vec::with_capacity(count.min(free)),
                        missing: count,
                    });
                    continue;
                }
            };
            // It may be the last value of its list, and that list the last value of another.
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

    /// Places that are made and not filled. A list may claim any number of values, and so may the lists in it: no more places
    /// are made in advance than values can be in the bytes that have come.
    fn places(&self) -> usize {
        let free = |list: &List| list.values.capacity() - list.values.len();
        self.open.iter().map(free).sum()
    }

    /// Whether a part of a reply has been read.
    pub(super) fn is_midway(&self) -> bool {
        !self.open.is_empty()
    }
}

/// A value that is no list, or the head of a list.
struct Token<'a> {
    kind: Kind<'a>,
    /// How many bytes it takes.
    length: usize,
}

enum Kind<'a> {
    Okay,
    /// Any other line, with its first byte and its end: the crate reads it, so that errors have the kinds of the crate.
    Line(&'a [u8]),
    Number(i64),
    Nil,
    Text(&'a [u8]),
    List(usize),
}

impl<'a> Token<'a> {
    /// The token that `bytes` begins with, if all of it is there.
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

/// A number, and how many bytes it takes with the end of its line.
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
    use rand::rngs::StdRng;
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};

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

    #[test]
    fn lists_in_lists_take_no_memory_for_values_that_have_not_come() {
        let heads = "*1000000\r\n".repeat(DEPTH);
        let mut parser = Parser::new();
        assert_eq!(parser.next(heads.as_bytes(), &mut 0).unwrap(), None);
        assert!(parser.places() <= heads.len() / SHORTEST);
    }

    const SEEDS: u64 = if cfg!(debug_assertions) {
        2_000
    } else {
        50_000
    };

    /// A value of chance, with lists `depth` deep at most.
    fn value(rng: &mut StdRng, depth: usize) -> Value {
        match rng.random_range(0..if depth == 0 { 6 } else { 8 }) {
            0 => Value::Nil,
            1 => Value::Int(rng.random()),
            2 => Value::Int(rng.random_range(-10..10)),
            3 => Value::Okay,
            4 => Value::SimpleString("PONG".into()),
            5 => {
                let length = rng.random_range(0..40);
                Value::BulkString((0..length).map(|_| any_byte(rng)).collect())
            }
            _ => {
                let count = rng.random_range(0..6);
                Value::Array((0..count).map(|_| value(rng, depth - 1)).collect())
            }
        }
    }

    /// Any byte; those that mean something more often than others.
    fn any_byte(rng: &mut StdRng) -> u8 {
        match rng.random_bool(0.5) {
            true => *b"+-:$*\r\n019".choose(rng).unwrap(),
            false => rng.random(),
        }
    }

    fn encode(value: &Value, out: &mut Vec<u8>) {
        match value {
            Value::Nil => out.extend(b"$-1\r\n"),
            Value::Int(number) => out.extend(format!(":{number}\r\n").bytes()),
            Value::Okay => out.extend(b"+OK\r\n"),
            Value::SimpleString(line) => out.extend(format!("+{line}\r\n").bytes()),
            Value::BulkString(text) => {
                out.extend(format!("${}\r\n", text.len()).bytes());
                out.extend(text);
                out.extend(b"\r\n");
            }
            Value::Array(values) => {
                out.extend(format!("*{}\r\n", values.len()).bytes());
                values.iter().for_each(|value| encode(value, out));
            }
            other => panic!("{other:?} is not RESP2"),
        }
    }

    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Reads a stream in pieces of chance, as a connection does: what has been read is dropped when the next piece comes.
    fn read_in_pieces(bytes: &[u8], rng: &mut StdRng) -> (Vec<Value>, bool) {
        let (mut parser, mut buffer, mut values) = (Parser::new(), Vec::new(), Vec::new());
        let mut rest = bytes;
        while !rest.is_empty() {
            let most = if rng.random() { 3 } else { rest.len() };
            let (piece, after) = rest.split_at(rng.random_range(1..=most.min(rest.len())));
            rest = after;
            buffer.extend_from_slice(piece);
            let mut at = 0;
            loop {
                let next = parser.next(&buffer, &mut at);
                assert!(at <= buffer.len());
                assert!(parser.open.len() <= DEPTH);
                // A vector that grows makes up to as many places as it has, and four at least.
                assert!(parser.places() <= 2 * (bytes.len() - rest.len()));
                match next {
                    Ok(Some(value)) => values.push(value),
                    Ok(None) => break,
                    Err(_) => return (values, false),
                }
            }
            buffer.drain(..at);
        }
        (values, !parser.is_midway() && buffer.is_empty())
    }

    #[test]
    fn replies_of_chance_are_read_whatever_the_cuts() {
        for seed in 0..SEEDS {
            let rng = &mut StdRng::seed_from_u64(seed);
            let count = rng.random_range(1..5);
            let sent: Vec<Value> = (0..count).map(|_| value(rng, 4)).collect();
            let mut bytes = Vec::new();
            sent.iter().for_each(|value| encode(value, &mut bytes));
            assert_eq!(read_in_pieces(&bytes, rng), (sent, true), "seed {seed}");
        }
    }

    #[test]
    fn garbage_is_an_error_or_a_reply_whatever_the_cuts() {
        for seed in 0..SEEDS {
            let rng = &mut StdRng::seed_from_u64(seed);
            let mut bytes = Vec::new();
            match rng.random_range(0..3) {
                0 => bytes.extend((0..rng.random_range(1..200)).map(|_| any_byte(rng))),
                1 => bytes.extend(b"*9\r\n".repeat(rng.random_range(1..2 * DEPTH))),
                _ => (0..3).for_each(|_| encode(&value(rng, 4), &mut bytes)),
            }
            for _ in 0..rng.random_range(0..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = any_byte(rng);
            }
            let (values, whole) = read_in_pieces(&bytes, rng);
            assert!(values.iter().all(|value| depth(value) <= DEPTH + 1));
            // The same replies, and the same end, when all of it comes at once.
            let (mut parser, mut at, mut again) = (Parser::new(), 0, Vec::new());
            let end = loop {
                match parser.next(&bytes, &mut at) {
                    Ok(Some(value)) => again.push(value),
                    Ok(None) => break at == bytes.len() && !parser.is_midway(),
                    Err(_) => break false,
                }
            };
            assert_eq!((again, end), (values, whole), "seed {seed}");
        }
    }
}
