//! What is no request, and what breaks off: each dialect answers in its own envelope, and no answer is without a body.

use serde_json::{Value, json};

use super::fields;
use crate::support::{Config, Pod, RedisServer, app, raw};

/// Whose words an answer is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    Native,
    Imkit,
    Tencent,
    Sendbird,
}

use Words::{Imkit, Native, Sendbird, Tencent};

/// A path of each dialect, and of none; of Sendbird's also one behind somebody's own base path.
const PATHS: [(&str, Words); 12] = [
    ("/v1/events", Native),
    ("/v1/rooms/r/unread", Native),
    ("/nope", Native),
    ("/", Native),
    ("/rooms", Imkit),
    ("/badges/byRoomTags", Imkit),
    ("//rooms/", Imkit),
    ("/v4/openim/get_c2c_unread_msg_num", Tencent),
    ("/v4/nope", Tencent),
    ("/v3/users/u/unread_item_count", Sendbird),
    ("/v3/nope", Sendbird),
    ("/sb/v3/users/u/unread_item_count", Sendbird),
];

/// Status, content type and body of the last answer in what came.
fn taken_apart(answer: &str) -> (u16, String, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let (head, body) = match head.contains(" 100 ") {
        true => body.split_once("\r\n\r\n").unwrap_or((body, "")),
        false => (head, body),
    };
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let content_type = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    (
        status.unwrap_or_default(),
        content_type.map_or(String::new(), |(_, value)| value.to_owned()),
        serde_json::from_str(body).unwrap_or_default(),
    )
}

#[track_caller]
fn in_words_of(words: Words, status: u16, answer: &str, what: &str) {
    let (found, content_type, body) = taken_apart(answer);
    let shown = || format!("{what}: {answer}");
    let expected = match words {
        Tencent => 200,
        Sendbird => 400,
        _ => status,
    };
    assert_eq!(found, expected, "{}", shown());
    let problem = content_type == "application/problem+json";
    assert_eq!(problem, words == Native, "{}", shown());
    let texts: &[&Value] = match words {
        Native => {
            assert_eq!(
                fields(&body),
                ["detail", "status", "title", "type"],
                "{}",
                shown()
            );
            assert_eq!(body["status"], status, "{}", shown());
            &[&body["detail"]]
        }
        Imkit => {
            assert_eq!(fields(&body), ["RC", "RM", "error"], "{}", shown());
            assert_eq!(body["RC"], status, "{}", shown());
            &[
                &body["RM"],
                &body["error"]["code"],
                &body["error"]["message"],
            ]
        }
        Tencent => {
            assert_eq!(
                fields(&body),
                ["ActionStatus", "ErrorCode", "ErrorInfo"],
                "{}",
                shown()
            );
            assert_eq!(body["ActionStatus"], "FAIL", "{}", shown());
            assert!(
                body["ErrorCode"].as_u64().is_some_and(|code| code > 60_000),
                "{}",
                shown()
            );
            &[&body["ErrorInfo"]]
        }
        Sendbird => {
            assert_eq!(fields(&body), ["code", "error", "message"], "{}", shown());
            assert_eq!(body["error"], true, "{}", shown());
            assert!(
                body["code"].as_u64().is_some_and(|code| code > 400_000),
                "{}",
                shown()
            );
            &[&body["message"]]
        }
    };
    for text in texts {
        assert!(
            text.as_str().is_some_and(|text| !text.is_empty()),
            "{}",
            shown()
        );
    }
}

/// What is no request, whatever its path, and the status that HTTP has for it.
fn no_requests(path: &str) -> Vec<(u16, Vec<u8>)> {
    let get = format!("GET {path} HTTP/1.1\r\nHost: x\r\n");
    let post = format!("POST {path} HTTP/1.1\r\nHost: x\r\n");
    let long = "x".repeat(70_000);
    let mut cases: Vec<(u16, Vec<u8>)> = [
        (
            414,
            format!("GET {path}?q={long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        ),
        (431, format!("{get}X-Long: {long}\r\n\r\n")),
        (431, format!("{get}{}\r\n", "X: y\r\n".repeat(200))),
        (
            400,
            format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ),
        (
            400,
            format!("{post}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        (400, format!("{post}Content-Length: many\r\n\r\n")),
        (400, format!("{post}Transfer-Encoding: gzip\r\n\r\n")),
        (400, format!("{get}Host: y\r\n\r\n")),
        (400, format!("GET {path} HTTP/1.1\r\n\r\n")),
        (400, format!("GET {path}\r\n\r\n")),
        (400, format!("GET {path} HTTP/2.0\r\nHost: x\r\n\r\n")),
        (400, format!("GET {path} HTTP/1.1 now\r\nHost: x\r\n\r\n")),
        (400, format!("GET {path}?a b HTTP/1.1\r\nHost: x\r\n\r\n")),
        (400, format!("G{{T {path} HTTP/1.1\r\nHost: x\r\n\r\n")),
        (400, format!("CONNECT {path} HTTP/1.1\r\nHost: x\r\n\r\n")),
        (400, format!("{get}no colon\r\n\r\n")),
        (400, format!("{get} folded\r\n\r\n")),
        (400, format!("POST {path} HTTP/1.0\r\n\r\n{{}}")),
        (
            400,
            format!("POST {path} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        (400, format!("GET {path}?\u{1} HTTP/1.1\r\nHost: x\r\n\r\n")),
        (400, format!("GET {path}?\0 HTTP/1.1\r\nHost: x\r\n\r\n")),
    ]
    .into_iter()
    .map(|(status, text)| (status, text.into_bytes()))
    .collect();
    let mut bytes = format!("GET {path}?q=").into_bytes();
    bytes.extend_from_slice(b"\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n");
    cases.push((400, bytes));
    cases
}

/// A pod whose callers may do as they like.
fn own_pod() -> (RedisServer, Pod) {
    let redis = RedisServer::start();
    let pod = Pod::start(&Config::apps(1), &redis);
    (redis, pod)
}

#[test]
fn what_is_no_request_is_answered_in_the_words_of_its_path() {
    let app = app();
    for (path, words) in PATHS {
        for (status, request) in no_requests(path) {
            let what = String::from_utf8_lossy(&request[..request.len().min(120)]).into_owned();
            let answer = raw(app.address(), &request).unwrap();
            in_words_of(words, status, &answer, &what);
        }
    }
}

#[test]
fn odd_requests_are_answered_in_the_words_of_their_path() {
    let (_redis, pod) = own_pod();
    let unauthorized = |words| match words {
        Native => 401,
        Imkit => 403,
        _ => 400,
    };
    for (path, words) in PATHS {
        let known = !["/nope", "/", "/v4/nope", "/v3/nope"].contains(&path);
        let is_post =
            ["/v1/events", "/badges/byRoomTags"].contains(&path) || path.starts_with("/v4");
        let method = if is_post { "POST" } else { "GET" };
        let token = if path.starts_with("/sb") {
            "Api-Token: x\r\n"
        } else {
            ""
        };
        let end = format!("Host: x\r\n{token}Connection: close\r\n");
        let refused = if known { unauthorized(words) } else { 404 };
        let other = if known { 405 } else { 404 };
        for (status, request) in [
            (
                refused,
                format!("{method} http://x{path} HTTP/1.1\r\n{end}\r\n"),
            ),
            (
                refused,
                format!("{method} {path}?a=%zz&b=%ff&c=\u{e9} HTTP/1.1\r\n{end}\r\n"),
            ),
            (refused, format!("{method} {path}#x HTTP/1.1\r\n{end}\r\n")),
            (
                refused,
                format!(
                    "{method} {path} HTTP/1.1\r\n{end}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{{}}"
                ),
            ),
            (
                refused,
                format!(
                    "{method} {path} HTTP/1.1\r\n{end}Upgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n"
                ),
            ),
            (
                refused,
                format!("{method} {path} HTTP/1.0\r\n{token}Content-Length: 0\r\n\r\n"),
            ),
            (
                refused,
                format!(
                    "{method} {path} HTTP/1.1\r\n{end}Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{{}}"
                ),
            ),
            (other, format!("BREW {path} HTTP/1.1\r\n{end}\r\n")),
            (other, format!("TRACE {path} HTTP/1.1\r\n{end}\r\n")),
            (
                other,
                format!("{} {path} HTTP/1.1\r\n{end}\r\n", "A".repeat(300)),
            ),
            (
                404,
                format!(
                    "{method} {}/%zz HTTP/1.1\r\n{end}\r\n",
                    path.trim_end_matches('/')
                ),
            ),
        ] {
            let answer = raw(pod.address(), request.as_bytes()).unwrap();
            in_words_of(words, status, &answer, &request);
        }
    }
    // A server as a whole, another protocol, and no protocol at all: no dialect is named.
    for (status, request) in [
        (
            404,
            "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        ),
        (400, "CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (400, "\u{16}\u{3}\u{1}\u{2}\0\u{1}\r\n\r\n"),
    ] {
        let answer = raw(pod.address(), request.as_bytes()).unwrap();
        in_words_of(Native, status, &answer, request);
    }
}

#[test]
fn a_body_that_breaks_is_answered_in_the_words_of_its_path() {
    let app = app();
    let json = json!({"To_Account": "u"});
    for (words, request) in [
        (Native, app.native(reqwest::Method::POST, "/v1/events")),
        (Native, app.native(reqwest::Method::POST, "/v1/unread")),
        (
            Native,
            app.native(reqwest::Method::POST, "/v1/rooms/r/unread"),
        ),
        (
            Imkit,
            app.imkit(reqwest::Method::POST, "/badges/byRoomTags", "u"),
        ),
        (Tencent, app.tencent(&json)),
    ] {
        let request = request.build().unwrap();
        let mut head = format!("POST {}", &request.url().as_str()[app.base.len()..]);
        head.push_str(" HTTP/1.1\r\nHost: x\r\n");
        for (name, value) in request.headers() {
            if name != "content-length" {
                head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
            }
        }
        for (status, rest) in [
            (400, "Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
            (400, "Transfer-Encoding: chunked\r\n\r\n-1\r\n"),
            (
                400,
                "Transfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n",
            ),
            (
                400,
                "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            ),
            (415, "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"),
            (413, "Content-Length: 99999999999\r\n\r\n{}"),
        ] {
            let answer = raw(app.address(), format!("{head}{rest}").as_bytes()).unwrap();
            let (found, ..) = taken_apart(&answer);
            // IMKIT knows no 415.
            let status = if words == Imkit && status == 415 {
                found
            } else {
                status
            };
            in_words_of(words, status, &answer, &format!("{head}{rest}"));
            assert!(words == Tencent || found >= 400, "{answer}");
        }
    }
}

#[test]
fn the_admin_port_answers_what_is_no_request_of_its_own_in_words() {
    let (_redis, pod) = own_pod();
    let admin = pod.admin.as_str();
    for path in [
        "/livez",
        "/readyz",
        "/metrics",
        "/nope",
        "/",
        "/v3/users/u/unread_item_count",
    ] {
        for (status, request) in no_requests(path) {
            let answer = raw(admin, &request).unwrap();
            in_words_of(Native, status, &answer, path);
        }
        let known = ["/livez", "/readyz", "/metrics", "/"].contains(&path);
        for method in ["POST", "OPTIONS", "DELETE", "BREW"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let answer = raw(admin, request.as_bytes()).unwrap();
            in_words_of(Native, if known { 405 } else { 404 }, &answer, &request);
            let head = answer.to_ascii_lowercase();
            assert_eq!(head.contains("\r\nallow: get, head\r\n"), known, "{answer}");
        }
        for method in ["GET", "HEAD"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let answer = raw(admin, request.as_bytes()).unwrap();
            let (status, ..) = taken_apart(&answer);
            assert_eq!(status == 404, !known, "{answer}");
            assert_eq!(answer.ends_with("\r\n\r\n"), method == "HEAD", "{answer}");
        }
    }
}
