//! For the fuzz target `heads`: requests' heads, and bodies in chunks.
#![allow(missing_docs)]

use bytes::BytesMut;

use super::chunks::Chunks;
use super::head::{self, BodyEnd, Head};

/// How the end of a body is found.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    AtOnce,
    After(u64),
    InChunks,
    Never,
}

/// The head as the engine gets it, and how its body ends. None: the head is not let through.
pub fn let_through(bytes: &[u8], max: usize) -> Option<(BytesMut, End)> {
    let _ = (head::sighted(bytes), head::shows_path(bytes));
    let Head::Whole(length, request) = head::read(bytes, max) else {
        return None;
    };
    assert!(length <= max);
    let whole = &bytes[..length];
    // What follows the head changes nothing, and a shorter head is not whole.
    let (method, path) = head::sighted(whole);
    assert_eq!(head::sighted(bytes), (method, path));
    let shorter = head::read(&whole[..length - 1], max);
    assert!(!matches!(shorter, Head::Whole(..)));
    let end = match request.body {
        BodyEnd::None => End::AtOnce,
        BodyEnd::Length(length) => End::After(length),
        BodyEnd::Chunked => End::InChunks,
        BodyEnd::Endless => End::Never,
    };
    let given = match request.rewrite {
        false => BytesMut::from(whole),
        true => head::rewritten(whole)?,
    };
    match head::read(&given, usize::MAX) {
        Head::Whole(length, again) => {
            assert!(length == given.len() && again.body == request.body && !again.rewrite);
        }
        other => panic!("{other:?}"),
    }
    Some((given, end))
}

/// What the engine gets of a chunked body that comes in such pieces, whether that is all of it, and what is left behind it. None:
/// the framing is broken.
pub fn carried(
    body: &[u8],
    mut pieces: impl Iterator<Item = usize>,
) -> Option<(BytesMut, bool, Vec<u8>)> {
    let (mut chunks, mut came) = (Chunks::new(), 0);
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut data = 0;
    while came < body.len() && !chunks.is_over() {
        let piece = pieces.next().unwrap_or(body.len()).max(1);
        let end = came.saturating_add(piece).min(body.len());
        input.extend_from_slice(&body[came..end]);
        came = end;
        data += chunks.carry(&mut input, &mut output).ok()?;
        assert!(input.is_empty() || chunks.is_over());
    }
    assert!(data <= came);
    let mut rest = input.to_vec();
    rest.extend_from_slice(&body[came..]);
    Some((output, chunks.is_over(), rest))
}
