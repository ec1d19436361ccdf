//! For the fuzz target `resp`: what Redis answers, in pieces of any size.
#![allow(missing_docs)]

use redis::Value;

use super::resp::Parser;

/// How deep lists may lie in lists.
const DEPTH: usize = 32;

/// What came of a stream of replies.
#[derive(Debug, PartialEq)]
struct Replies {
    /// Each with where it ends.
    values: Vec<(Value, usize)>,
    /// How far it was read.
    read: usize,
    broken: bool,
    midway: bool,
}

/// Reads them as a connection does: what has been read is dropped when the next piece comes.
fn read(bytes: &[u8], mut pieces: impl Iterator<Item = usize>) -> Replies {
    let mut parser = Parser::new();
    let mut replies = Replies {
        values: Vec::new(),
        read: 0,
        broken: false,
        midway: false,
    };
    let (mut buffer, mut came) = (Vec::new(), 0);
    while came < bytes.len() && !replies.broken {
        let piece = pieces.next().unwrap_or(bytes.len());
        let end = came.saturating_add(piece.max(1)).min(bytes.len());
        buffer.extend_from_slice(&bytes[came..end]);
        came = end;
        let mut at = 0;
        loop {
            match parser.next(&buffer, &mut at) {
                Ok(Some(value)) => replies.values.push((value, replies.read + at)),
                Ok(None) => break,
                Err(_) => {
                    replies.broken = true;
                    break;
                }
            }
        }
        assert!(at <= buffer.len());
        buffer.drain(..at);
        replies.read += at;
        replies.midway = parser.is_midway();
    }
    replies
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The first byte says how many of those behind it are sizes of pieces; the rest is what Redis said.
pub fn check(data: &[u8]) {
    let Some((&count, rest)) = data.split_first() else {
        return;
    };
    let Some((sizes, bytes)) = rest.split_at_checked(usize::from(count & 7)) else {
        return;
    };
    let pieces = sizes.iter().cycle().map(|size| usize::from(*size) + 1);
    let whole = read(bytes, std::iter::empty());
    assert_eq!(whole, read(bytes, pieces));
    let mut from = 0;
    for (value, to) in &whole.values {
        let raw = &bytes[from..*to];
        from = *to;
        assert!(depth(value) <= DEPTH + 1);
        // The crate does not read all of it, but what it reads is the same.
        if let Ok(theirs) = redis::parse_redis_value(raw) {
            assert_eq!(*value, theirs);
        }
    }
}
