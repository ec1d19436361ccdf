//! Reads the head of a request before the engine sees it. The engine reads each head that is let through here in the same way:
//! both use the same parser (httparse), and a head that could be understood in two ways is refused.

use std::fmt::Write as _;
use std::mem::MaybeUninit;

use actix_web::http::{Method, Uri};
use bytes::BytesMut;

use crate::http::unserved::Unserved;

/// The most header fields of a request. The engine takes no more.
const MAX_FIELDS: usize = 96;
/// The most bytes of a target, as it came or rewritten. The engine's type for it holds no more than 65,534.
const MAX_TARGET: usize = 65_000;

/// What has come of a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Its end has not come yet.
    Partial,
    /// All of it, which is so many bytes.
    Whole(usize, Framing),
    /// Something that can't be served.
    Bad(Unserved),
}

/// What the edge has to know of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Framing {
    /// How the body's end is found.
    pub body: BodyEnd,
    /// Whether the engine would refuse the target as it came: it gets the head that [`rewritten`] makes.
    pub rewrite: bool,
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyEnd {
    /// There is no body.
    None,
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection: the caller wants to go on in another protocol.
    Endless,
}

/// Reads a head of at most `max` bytes, with which `bytes` begins.
pub(super) fn read(bytes: &[u8], max: usize) -> Head {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length <= max => length,
        Ok(httparse::Status::Partial) if bytes.len() < max => return Head::Partial,
        Ok(_) => return Head::Bad(too_long(bytes, max)),
        Err(error) => return Head::Bad(unreadable(error)),
    };
    match check(&request) {
        Ok(request) => Head::Whole(length, request),
        Err(why) => Head::Bad(why),
    }
}

/// Says which part of a head is too long.
fn too_long(bytes: &[u8], max: usize) -> Unserved {
    let line = bytes.get(..max).unwrap_or(bytes);
    match memchr::memchr(b'\n', line) {
        Some(_) => Unserved::HeadTooLarge,
        None => Unserved::TargetTooLong,
    }
}

fn unreadable(error: httparse::Error) -> Unserved {
    use httparse::Error;
    Unserved::Malformed(match error {
        Error::TooManyHeaders => return Unserved::HeadTooLarge,
        Error::HeaderName | Error::HeaderValue => "a header holds bytes that no header may hold",
        Error::NewLine => "a line of the head does not end as it should",
        Error::Version => "the protocol is not HTTP/1.1 or HTTP/1.0",
        _ => "the request line is not of the form METHOD TARGET HTTP/1.1",
    })
}

/// Checks all that the engine would refuse, so that it never has to: its refusals have no body and log an error.
fn check(request: &httparse::Request<'_, '_>) -> Result<Framing, Unserved> {
    let (mut host, mut length, mut chunked, mut websocket) = (false, None, false, false);
    let is_http_1_1 = request.version == Some(1);
    for field in request.headers.iter() {
        // This runs for every request: the length of the name rules out most fields.
        match field.name.len() {
            4 if field.name.eq_ignore_ascii_case("host") => {
                let is_second = std::mem::replace(&mut host, true);
                once(is_second, "there are two Host headers")?;
            }
            7 if field.name.eq_ignore_ascii_case("upgrade") => {
                websocket |= field.value.trim_ascii().eq_ignore_ascii_case(b"websocket");
            }
            14 if field.name.eq_ignore_ascii_case("content-length") => {
                let is_second = length.replace(content_length(field.value)?).is_some();
                once(is_second, "there are two Content-Length headers")?;
            }
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                if !is_http_1_1 {
                    return Err(Unserved::Malformed("HTTP/1.0 knows no Transfer-Encoding"));
                }
                let known = field.value.trim_ascii().eq_ignore_ascii_case(b"chunked");
                if !known || std::mem::replace(&mut chunked, true) {
                    return Err(Unserved::Malformed(
                        "the one Transfer-Encoding that is understood is chunked",
                    ));
                }
            }
            _ => {}
        }
    }
    if chunked && length.is_some() {
        return Err(Unserved::Malformed(
            "there are both Content-Length and Transfer-Encoding",
        ));
    }
    if is_http_1_1 && !host {
        return Err(Unserved::Malformed("the Host header is missing"));
    }
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    let body = match length {
        _ if chunked => BodyEnd::Chunked,
        _ if websocket => BodyEnd::Endless,
        Some(0) => BodyEnd::None,
        Some(length) => BodyEnd::Length(length),
        None if !is_http_1_1 && method == "POST" => {
            return Err(Unserved::Malformed("Content-Length is missing"));
        }
        None => BodyEnd::None,
    };
    match Method::from_bytes(method.as_bytes()) {
        Ok(Method::CONNECT) => return Err(Unserved::Malformed("this is no proxy")),
        Ok(_) => {}
        Err(_) => return Err(Unserved::Malformed("the method is no word")),
    }
    if target.len() > MAX_TARGET {
        return Err(Unserved::TargetTooLong);
    }
    let rewrite = needs_rewriting(target);
    // A path without the bytes that `needs_rewriting` looks for is legal. A whole URL has more rules, which its parser knows.
    let is_path = target.starts_with('/') || target == "*";
    if !is_path && (rewrite || target.parse::<Uri>().is_err()) {
        return Err(Unserved::Malformed("the target of the request is no URL"));
    }
    Ok(Framing { body, rewrite })
}

/// Refuses a field that stands in a head twice.
fn once(is_second: bool, why: &'static str) -> Result<(), Unserved> {
    match is_second {
        true => Err(Unserved::Malformed(why)),
        false => Ok(()),
    }
}

fn content_length(value: &[u8]) -> Result<u64, Unserved> {
    let digits = value.trim_ascii();
    let number = std::str::from_utf8(digits)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok());
    number.ok_or(Unserved::Malformed("Content-Length is not a number"))
}

/// Whether a target holds bytes that the caller should have percent-encoded. The engine would refuse them.
fn needs_rewriting(target: &str) -> bool {
    let bytes = target.as_bytes();
    if !target.is_ascii() || memchr::memchr3(b'<', b'>', b'`', bytes).is_some() {
        return true;
    }
    memchr::memchr(b'"', bytes).is_some()
}

/// A whole head whose target is percent-encoded where the caller left that out. None: that makes the target too long.
pub(super) fn rewritten(head: &[u8]) -> Option<BytesMut> {
    let from = memchr::memchr(b' ', head)? + 1;
    let (before, rest) = head.split_at_checked(from)?;
    let to = memchr::memchr(b' ', rest)?;
    let (target, after) = rest.split_at_checked(to)?;
    let mut encoded = String::with_capacity(target.len() + 64);
    for &byte in target {
        match byte {
            b'"' | b'<' | b'>' | b'`' | 0x80.. => {
                // Writing to a String can't fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
            _ => encoded.push(char::from(byte)),
        }
    }
    if encoded.len() > MAX_TARGET {
        return None;
    }
    let mut whole = BytesMut::with_capacity(head.len() - target.len() + encoded.len());
    whole.extend_from_slice(before);
    whole.extend_from_slice(encoded.as_bytes());
    whole.extend_from_slice(after);
    Some(whole)
}

/// The method and the path in what has come of a head, even if that is no legal head. What has not come is empty.
pub(super) fn sighted(bytes: &[u8]) -> (&[u8], &[u8]) {
    let line = bytes.split(|byte| *byte == b'\n').next();
    let line = line.unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let target = match memchr::memmem::find(target, b"://") {
        // A whole URL, as clients send it to a proxy: the path comes after the host.
        Some(at) if !target.starts_with(b"/") => {
            let host = target.get(at + 3..).unwrap_or_default();
            let path = memchr::memchr(b'/', host);
            path.and_then(|path| host.get(path..)).unwrap_or_default()
        }
        _ => target,
    };
    let end = target.iter().position(|byte| b"?#\r".contains(byte));
    (
        method,
        target
            .get(..end.unwrap_or(target.len()))
            .unwrap_or_default(),
    )
}

/// Whether the path of a request has come to its end.
pub(super) fn shows_path(bytes: &[u8]) -> bool {
    let mut words = bytes.splitn(3, |byte| b" \n".contains(byte));
    words.nth(2).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1024;

    fn whole(text: &str) -> Framing {
        match read(text.as_bytes(), MAX) {
            Head::Whole(length, request) => {
                assert_eq!(length, text.find("\r\n\r\n").unwrap() + 4, "{text:?}");
                request
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn bad(text: &str) -> Unserved {
        match read(text.as_bytes(), MAX) {
            Head::Bad(why) => why,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn the_end_of_a_body_is_found_in_one_way_only() {
        for (fields, body) in [
            ("", BodyEnd::None),
            ("Content-Length: 0\r\n", BodyEnd::None),
            ("content-length:  17 \r\n", BodyEnd::Length(17)),
            ("Transfer-Encoding: Chunked\r\n", BodyEnd::Chunked),
            (
                "Upgrade: WebSocket\r\nContent-Length: 3\r\n",
                BodyEnd::Endless,
            ),
            ("Upgrade: h2c\r\n", BodyEnd::None),
        ] {
            let text = format!("GET /x HTTP/1.1\r\nHost: x\r\n{fields}\r\nbody");
            assert_eq!(whole(&text).body, body, "{fields}");
        }
        for fields in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: \r\n",
            "Host: y\r\n",
            "Name : x\r\n",
            "Name: \u{1}\r\n",
            " folded\r\n",
            "no colon\r\n",
        ] {
            let text = format!("POST /x HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
            assert!(matches!(bad(&text), Unserved::Malformed(_)), "{fields}");
        }
    }

    #[test]
    fn an_older_client_needs_no_host_but_a_length() {
        assert_eq!(whole("GET /x HTTP/1.0\r\n\r\n").body, BodyEnd::None);
        let posted = "POST /x HTTP/1.0\r\nContent-Length: 1\r\n\r\n";
        assert_eq!(whole(posted).body, BodyEnd::Length(1));
        for text in [
            "GET /x HTTP/1.1\r\n\r\n",
            "POST /x HTTP/1.0\r\n\r\n",
            "GET /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(matches!(bad(text), Unserved::Malformed(_)), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_request_is_told_at_once() {
        for text in [
            "\u{16}\u{3}\u{1}",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET /x HTTP/3.0\r\n",
            "GET  /x HTTP/1.1\r\n",
            "GET /a b HTTP/1.1\r\n",
            "GET /a\u{7f} HTTP/1.1\r\n",
            "GET /x\r\n",
            "(GET) /x HTTP/1.1\r\n",
            "G'T /x HTTP/1.1\r\nHost: x\r\n\r\n",
            "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            assert!(matches!(bad(text), Unserved::Malformed(_)), "{text:?}");
        }
        let latin = read(b"GET /\xe9 HTTP/1.1\r\nHost: x\r\n\r\n", MAX);
        assert!(matches!(latin, Head::Bad(Unserved::Malformed(_))));
    }

    #[test]
    fn what_is_too_long_is_told_from_what_is_not_whole() {
        let field = |bytes: usize| format!("GET /x HTTP/1.1\r\nX: {}", "x".repeat(bytes));
        assert_eq!(read(field(100).as_bytes(), MAX), Head::Partial);
        assert_eq!(bad(&field(2_000)), Unserved::HeadTooLarge);
        assert_eq!(
            bad(&format!("{}\r\n\r\n", field(2_000))),
            Unserved::HeadTooLarge
        );
        assert_eq!(
            bad(&format!("GET /{}", "x".repeat(2_000))),
            Unserved::TargetTooLong
        );
        let line = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(2_000));
        assert_eq!(bad(&line), Unserved::TargetTooLong);
        let many = format!("GET /x HTTP/1.1\r\n{}\r\n", "a:b\r\n".repeat(97));
        assert_eq!(bad(&many), Unserved::HeadTooLarge);
        let just = format!("GET /x HTTP/1.1\r\nHost: x\r\n{}\r\n", "a:b\r\n".repeat(95));
        assert_eq!(whole(&just).body, BodyEnd::None);
    }

    /// Each byte that a target may hold, in the path and in the query: the engine takes the target as it came, or rewritten.
    #[test]
    fn what_the_engine_would_not_take_is_rewritten() {
        for byte in (0x21..=0x7e).chain([0xe9]) {
            let byte = char::from(byte);
            for target in [format!("/a{byte}b"), format!("/a?b{byte}c")] {
                let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
                let request = whole(&head);
                let legal = target.parse::<Uri>().is_ok();
                assert!(legal || request.rewrite, "{target}");
                let new = rewritten(head.as_bytes()).unwrap();
                let new = std::str::from_utf8(&new).unwrap();
                let new_target = new.split(' ').nth(1).unwrap();
                assert!(new_target.parse::<Uri>().is_ok(), "{new_target}");
                assert!(!whole(new).rewrite, "{new}");
                if !request.rewrite {
                    assert_eq!(new, head);
                }
            }
        }
        let head = "GET /v3/users/\u{65e5}?a=\u{e9}\" HTTP/1.1\r\nHost: \u{e9}\r\n\r\n";
        let new = rewritten(head.as_bytes()).unwrap();
        let expected = "GET /v3/users/%E6%97%A5?a=%C3%A9%22 HTTP/1.1\r\nHost: \u{e9}\r\n\r\n";
        assert_eq!(std::str::from_utf8(&new).unwrap(), expected);
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "é".repeat(12_000));
        assert_eq!(rewritten(long.as_bytes()), None);
    }

    /// Heads at random, most of them a little wrong: the engine takes what is let through, and finds the same end of the body.
    #[actix_web::test]
    async fn what_is_let_through_the_engine_reads_in_the_same_way() {
        use actix_http::ServiceConfig;
        use actix_http::h1::{Codec, Message, MessageType};
        use tokio_util::codec::Decoder as _;

        const LINES: [&str; 22] = [
            "GET /x HTTP/1.1\r\n",
            "GET /x HTTP/1.0\r\n",
            "POST /v1/events?a=b HTTP/1.1\r\n",
            "POST http://h/x HTTP/1.0\r\n",
            "HEAD * HTTP/1.1\n",
            "OPTIONS /\u{e9}<>{}|^#x HTTP/1.1\r\n",
            "Host: x\r\n",
            "host:y\n",
            "Content-Length: 2\r\n",
            "Content-Length: 0\r\n",
            "content-length:\t7 \r\n",
            "Transfer-Encoding: chunked\r\n",
            "transfer-encoding:chunked \r\n",
            "Transfer-Encoding: identity\r\n",
            "Upgrade: websocket\r\n",
            "Connection: upgrade, close\r\n",
            "Expect: 100-continue\r\n",
            "X: \u{e9}\r\n",
            "Y:\r\n",
            "Z\r\n",
            " folded\r\n",
            "\r\n",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as usize % below
        };
        let config = ServiceConfig::default();
        let (mut let_through, mut with_body) = (0, 0);
        for _ in 0..200_000 {
            let mut bytes = LINES[random(6)].as_bytes().to_vec();
            if random(8) > 0 {
                bytes.extend_from_slice(b"Host: x\r\n");
            }
            for _ in 0..random(4) {
                bytes.extend_from_slice(LINES[6 + random(16)].as_bytes());
            }
            bytes.extend_from_slice(b"\r\n");
            for _ in 0..random(3) {
                let at = random(bytes.len());
                bytes[at] = u8::try_from(random(256)).unwrap();
            }
            let Head::Whole(length, request) = read(&bytes, MAX) else {
                continue;
            };
            let mut head = BytesMut::from(&bytes[..length]);
            if request.rewrite {
                head = rewritten(&head).unwrap();
            }
            let shown = String::from_utf8_lossy(&head).into_owned();
            let mut codec = Codec::new(config.clone());
            let decoded = codec.decode(&mut head);
            let Ok(Some(Message::Item(engines))) = decoded else {
                panic!("the engine refuses {shown:?}: {:?}", decoded.err());
            };
            assert!(head.is_empty(), "{shown:?} leaves {head:?}");
            let fields = &engines.head().headers;
            let is_chunked = fields.contains_key("transfer-encoding");
            let length = fields.get("content-length").map(|value| {
                let digits = value.to_str().unwrap().trim();
                digits.parse::<u64>().unwrap()
            });
            let engines = match (codec.message_type(), is_chunked, length) {
                (MessageType::None, ..) => BodyEnd::None,
                (MessageType::Stream, ..) => BodyEnd::Endless,
                (MessageType::Payload, true, _) => BodyEnd::Chunked,
                (MessageType::Payload, false, length) => BodyEnd::Length(length.unwrap()),
            };
            assert_eq!(request.body, engines, "{shown:?}");
            let_through += 1;
            with_body += usize::from(engines != BodyEnd::None);
        }
        assert!(
            let_through > 20_000 && with_body > 5_000,
            "{let_through}, {with_body}"
        );
    }

    #[test]
    fn a_path_is_sighted_in_what_there_is() {
        let sight = |text: &str| {
            let (method, path) = sighted(text.as_bytes());
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (text(method), text(path))
        };
        for (text, method, path) in [
            ("", "", ""),
            ("GE", "GE", ""),
            ("GET /v3", "GET", "/v3"),
            ("GET /v3/a?b HTTP/1.1\r\n", "GET", "/v3/a"),
            ("GET /v3/a\r\nX: /y", "GET", "/v3/a"),
            ("GET http://h/v4/x?http:// HTTP/1.1", "GET", "/v4/x"),
            ("GET http://h HTTP/1.1", "GET", ""),
            ("GET /r?u=http://h/x HTTP/1.1", "GET", "/r"),
            ("GET /a b HTTP/1.1", "GET", "/a"),
            ("\r\n", "\r", ""),
        ] {
            assert_eq!(
                sight(text),
                (method.to_owned(), path.to_owned()),
                "{text:?}"
            );
        }
        for (text, shown) in [
            ("", false),
            ("GET", false),
            ("GET /v3", false),
            ("GET /v3 ", true),
            ("GET /v3\r\n", true),
        ] {
            assert_eq!(shows_path(text.as_bytes()), shown, "{text:?}");
        }
    }
}
