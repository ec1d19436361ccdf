//! For the fuzz target `resp`: what Redis answers, in pieces of any size.
#![allow(missing_docs)]

use redis::Value;

use super::resp::{Parser, texts};

/// Lists in lists that are followed.
const DEPTH: usize = 32;

/// What came of a stream of replies.
struct Replies {
    /// Each with where it ends.
    values: Vec<(Value, usize)>,
    /// How far it was read.
    read: usize,
    broken: bool,
    midway: bool,
}

/// Reads them as a connection does: what has been read is dropped when the next piece comes.
fn read(bytes: &[u8], mut pieces: impl Iterator<Item = usize>, flat: bool) -> Replies {
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
            match parser.next(&buffer, &mut at, flat) {
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

/// The texts of a list as a caller sees them, up to the first thing that is none.
fn leading(list: &[Value]) -> Vec<Option<&[u8]>> {
    let text = |value| match value {
        &Value::BulkString(ref text) => Some(Some(text.as_slice())),
        Value::Nil => Some(None),
        _ => None,
    };
    list.iter().map_while(text).collect()
}

/// The first byte says how many of those behind it are sizes of pieces; the rest is what Redis said.
pub fn check(data: &[u8]) {
    let Some((&count, rest)) = data.split_first() else {
        return;
    };
    let Some((sizes, bytes)) = rest.split_at_checked(usize::from(count & 7)) else {
        return;
    };
    let pieces = || sizes.iter().cycle().map(|size| usize::from(*size) + 1);
    let whole = read(bytes, std::iter::empty(), false);
    let cut = read(bytes, pieces(), false);
    assert_eq!(whole.values, cut.values);
    assert_eq!((whole.read, whole.broken), (cut.read, cut.broken));
    assert_eq!(whole.midway, cut.midway);

    let flat = read(bytes, std::iter::empty(), true);
    let flat_cut = read(bytes, pieces(), true);
    assert_eq!(flat.values, flat_cut.values);
    // What is flat is dropped as it is read, whatever the pieces.
    assert_eq!((flat.read, flat.broken), (flat_cut.read, flat_cut.broken));

    let mut from = 0;
    for (place, (value, to)) in whole.values.iter().enumerate() {
        let raw = &bytes[from..*to];
        from = *to;
        assert!(depth(value) <= DEPTH + 1);
        // The crate does not read all of it, but what it reads is the same.
        if let Ok(theirs) = redis::parse_redis_value(raw) {
            assert_eq!(*value, theirs);
        }
        let Some((flat, end)) = flat.values.get(place) else {
            panic!("a reply is missing where lists are left flat");
        };
        assert_eq!(end, to);
        let list = match (value, flat) {
            (Value::Array(list), Value::BulkString(flat)) => {
                assert_eq!(flat, raw);
                list
            }
            // `*-1`
            (Value::Nil, Value::BulkString(flat)) if raw.starts_with(b"*") => {
                assert_eq!(flat, raw);
                assert!(texts(flat).is_err());
                continue;
            }
            (value, flat) => {
                assert_eq!(value, flat);
                continue;
            }
        };
        match texts(raw) {
            Ok(found) => {
                let found: Vec<_> = found.collect();
                assert_eq!(found.len(), list.len());
                let leading = leading(list);
                for (found, text) in found.iter().zip(&leading) {
                    assert_eq!(found.as_ref().unwrap().map(str::as_bytes), *text);
                }
                assert!(found[leading.len()..].iter().all(Result::is_err));
            }
            Err(_) => assert!(std::str::from_utf8(raw).is_err()),
        }
    }
}
