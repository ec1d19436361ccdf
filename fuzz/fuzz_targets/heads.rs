//! Heads of requests, and chunked bodies: the engine reads what is let through in the same way.
#![no_main]

use actix_http::ServiceConfig;
use actix_http::h1::{Codec, Message, MessageType};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::Decoder;
use unread::fuzzing::heads::{End, carried, let_through};

thread_local! {
    /// The engine's configuration starts a clock as a task, which needs a runtime, though the clock never runs here.
    static CONFIG: ServiceConfig = {
        let system = actix_web::rt::System::new();
        let config = system.block_on(async { ServiceConfig::default() });
        std::mem::forget(system);
        config
    };
}

fn codec() -> Codec {
    CONFIG.with(|config| Codec::new(config.clone()))
}

fn head(bytes: &[u8]) {
    let Some((mut given, end)) = let_through(bytes, 4_096) else {
        return;
    };
    let mut codec = codec();
    let engines = match codec.decode(&mut given) {
        Ok(Some(Message::Item(engines))) => engines,
        other => panic!("the engine does not take it: {:?}", other.err()),
    };
    assert!(given.is_empty());
    let fields = engines.head().headers();
    let length = fields.get("content-length").map(|value| {
        let digits = value.to_str().unwrap().trim();
        digits.parse::<u64>().unwrap()
    });
    let is_chunked = fields.contains_key("transfer-encoding");
    let engines = match codec.message_type() {
        MessageType::None => End::AtOnce,
        MessageType::Stream => End::Never,
        MessageType::Payload if is_chunked => End::InChunks,
        MessageType::Payload => End::After(length.unwrap()),
    };
    assert_eq!(end, engines);
}

/// The data that the engine finds in a body, and what is left behind it, if the body is whole.
fn engines(body: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut input = BytesMut::from([head, body].concat().as_slice());
    let (mut codec, mut data) = (codec(), Vec::new());
    loop {
        match codec.decode(&mut input).ok()?? {
            Message::Item(_) => {}
            Message::Chunk(Some(chunk)) => data.extend_from_slice(&chunk),
            Message::Chunk(None) => return Some((data, input.to_vec())),
        }
    }
}

fn body(sizes: &[u8], body: &[u8]) {
    let pieces = || sizes.iter().cycle().map(|size| usize::from(*size) + 1);
    let whole = carried(body, std::iter::empty());
    let cut = carried(body, pieces());
    assert_eq!(whole.is_some(), cut.is_some());
    let (Some((whole, is_over, rest)), Some((cut, cut_is_over, cut_rest))) = (whole, cut) else {
        return;
    };
    assert_eq!((is_over, &rest), (cut_is_over, &cut_rest));
    if !is_over {
        return;
    }
    let (data, nothing) = engines(&whole).unwrap();
    assert!(nothing.is_empty());
    assert_eq!(engines(&cut).unwrap(), (data.clone(), nothing));
    // From the peer's own chunks the engine reads the same data.
    if let Some((theirs, _)) = engines(body) {
        assert_eq!(theirs, data);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((select, rest)) = data.split_first() else {
        return;
    };
    match rest.split_at_checked(usize::from(select >> 1) & 7) {
        Some((sizes, chunks)) if select & 1 == 1 => body(sizes, chunks),
        _ => head(rest),
    }
});
