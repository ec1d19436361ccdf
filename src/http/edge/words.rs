//! Answers that are written without the engine.

use actix_web::HttpResponse;
use actix_web::body::MessageBody as _;
use actix_web::http::header::{self, HttpDate};
use bytes::BytesMut;

use crate::telemetry::access::REQUEST_ID;

/// The bytes of an answer that ends its connection.
pub(super) fn written(answer: HttpResponse, without_body: bool) -> BytesMut {
    let (answer, body) = answer.into_parts();
    let body = body.try_into_bytes().unwrap_or_default();
    let status = answer.status();
    let mut out = BytesMut::with_capacity(512 + body.len());
    let mut put = |parts: &[&[u8]]| {
        for part in parts {
            out.extend_from_slice(part);
        }
    };
    let reason = status.canonical_reason().unwrap_or_default();
    put(&[
        b"HTTP/1.1 ",
        status.as_str().as_bytes(),
        b" ",
        reason.as_bytes(),
        b"\r\n",
    ]);
    for (name, value) in answer.headers() {
        if *name != header::CONNECTION && *name != header::CONTENT_LENGTH {
            put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
    }
    let date = HttpDate::from(std::time::SystemTime::now()).to_string();
    put(&[b"date: ", date.as_bytes(), b"\r\n"]);
    let id = crate::telemetry::access::new_request_id();
    put(&[
        REQUEST_ID.as_str().as_bytes(),
        b": ",
        id.as_bytes(),
        b"\r\n",
    ]);
    let length = body.len().to_string();
    put(&[b"content-length: ", length.as_bytes(), b"\r\n"]);
    put(&[b"connection: close\r\n\r\n"]);
    if !without_body {
        put(&[&body]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_and_the_last_one() {
        let answer = || {
            HttpResponse::ServiceUnavailable()
                .insert_header(("retry-after", "1"))
                .content_type("application/json")
                .body("{}")
        };
        let text = |bytes: BytesMut| String::from_utf8(bytes.to_vec()).unwrap();
        let whole = text(written(answer(), false));
        let (head, body) = whole.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "{}");
        let lines: Vec<&str> = head.split("\r\n").collect();
        assert_eq!(lines[0], "HTTP/1.1 503 Service Unavailable");
        for line in [
            "retry-after: 1",
            "content-type: application/json",
            "content-length: 2",
            "connection: close",
        ] {
            assert!(lines.contains(&line), "{line} not in {head}");
        }
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("date: ") && line.ends_with(" GMT"))
        );
        let id = lines
            .iter()
            .find_map(|line| line.strip_prefix("x-request-id: "));
        assert_eq!(id.unwrap().len(), 16);
        assert!(text(written(answer(), true)).ends_with("connection: close\r\n\r\n"));
    }
}
