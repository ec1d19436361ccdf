//! `unread probe`: asks a pod whether it is ready, for health checks of images that hold no other HTTP client.

use std::io::{Error, ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use clap::Args;

use super::exit::{self, Failure};
use super::output::print;

#[derive(Debug, Args)]
pub(super) struct ProbeArgs {
    /// The address to ask, over plain HTTP
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:9090/readyz"
    )]
    url: String,
    /// Seconds to wait for the answer, up to 600
    #[arg(long, value_name = "SECONDS", default_value_t = 3,
          value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout_seconds: u64,
}

impl ProbeArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let patience = Duration::from_secs(self.timeout_seconds);
        print(&ready(&self.url, patience)?);
        Ok(exit::WELL)
    }
}

/// The most that is read of an answer.
const MOST: u64 = 64 << 10;

/// What a ready pod says at that address. An answer other than 2xx, or none within that time, is "not ready" (exit code 1): to a
/// health check a pod that can't be reached is as unhealthy as one that says so, and Docker reserves the exit code 2.
fn ready(url: &str, patience: Duration) -> Result<String, Failure> {
    let (authority, path) = parts(url)
        .ok_or_else(|| Failure::Failed(format!("--url {url:?} is not http://HOST[:PORT]/PATH")))?;
    let not_ready = |why: String| Failure::NotThere(format!("not ready: {why}"));
    let answer = ask(&authority, path, patience).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            not_ready(format!("{authority} does not answer in time"))
        }
        _ => not_ready(format!("{authority}: {error}")),
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1));
    match status {
        Some(status) if status.len() == 3 && status.starts_with('2') => {
            Ok(format!("{}\n", body.trim()))
        }
        Some(status) => Err(not_ready(format!("{status} {}", body.trim()))),
        None => Err(not_ready(format!("{authority}: the answer is not HTTP"))),
    }
}

/// Host with port, and the path, of an address of plain HTTP.
fn parts(url: &str) -> Option<(String, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    // They go into the head of a request as they are.
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if authority.is_empty() || authority.contains('@') || !plain(authority) || !plain(path) {
        return None;
    }
    // A colon inside brackets is part of an IPv6 address.
    let has_port = authority.rfind(':') > authority.rfind(']');
    let port = if has_port { "" } else { ":80" };
    Some((format!("{authority}{port}"), path))
}

fn ask(authority: &str, path: &str, patience: Duration) -> Result<String, Error> {
    let deadline = Instant::now() + patience;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would be no bound at all.
        left.max(Duration::from_millis(1))
    };
    let mut last = Error::new(ErrorKind::NotFound, "no such host");
    for address in authority.to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&address, left()) {
            Ok(stream) => stream,
            Err(error) => {
                last = error;
                continue;
            }
        };
        stream.set_write_timeout(Some(left()))?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut piece = [0; 4 << 10];
        while Instant::now() < deadline && (answer.len() as u64) < MOST {
            stream.set_read_timeout(Some(left()))?;
            match stream.read(&mut piece)? {
                0 => return Ok(String::from_utf8_lossy(&answer).into_owned()),
                bytes => answer.extend_from_slice(piece.get(..bytes).unwrap_or_default()),
            }
        }
        return Err(ErrorKind::TimedOut.into());
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let some = |authority: &str, path: &'static str| Some((authority.to_owned(), path));
        for (url, expected) in [
            ("http://a:1/readyz", some("a:1", "/readyz")),
            ("http://a/readyz?x", some("a:80", "/readyz?x")),
            ("http://a", some("a:80", "/")),
            ("http://[::1]:9090/", some("[::1]:9090", "/")),
            ("http://[::1]/", some("[::1]:80", "/")),
            ("https://a/", None),
            ("a:1/readyz", None),
            ("http:///readyz", None),
            ("http://user@a/", None),
            ("http://a/b c", None),
            ("http://a/\r\nX: y", None),
        ] {
            assert_eq!(parts(url), expected, "{url}");
        }
    }
}
