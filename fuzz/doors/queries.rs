//! For the fuzz target `queries`: paths, queries, hosts, and the bodies of calls that ask for counts, of all dialects.
#![allow(missing_docs)]

use crate::http::request::{Query, decode_segment};
use crate::http::{imkit, native, sendbird, tencent};

fn query(raw: &str) {
    let own: Vec<_> = Query::new(raw).collect();
    let reference: Vec<_> = form_urlencoded::parse(raw.as_bytes()).collect();
    assert_eq!(own, reference);
    let again = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(&own)
        .finish();
    assert_eq!(Query::new(&again).collect::<Vec<_>>(), own);
    imkit::fuzzing::query(raw, &again);
    sendbird::fuzzing::query(raw, &again);
    native::fuzzing::query(raw, &again);
    tencent::fuzzing::number(raw);
}

fn segment(raw: &str) {
    if let Some(text) = decode_segment(raw) {
        let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
        assert_eq!(decode_segment(&encoded.replace('+', "%20")), Some(text));
    }
    sendbird::fuzzing::host(raw);
}

/// The first byte says what the others are.
pub fn check(data: &[u8]) {
    let Some((select, rest)) = data.split_first() else {
        return;
    };
    match (select % 5, std::str::from_utf8(rest)) {
        (0, Ok(text)) => query(text),
        (1, Ok(text)) => segment(text),
        (2, _) => imkit::fuzzing::body(rest),
        (3, _) => tencent::fuzzing::body(rest),
        (4, _) => native::fuzzing::body(rest),
        _ => {}
    }
}
