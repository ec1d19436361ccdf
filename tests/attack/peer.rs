//! Peers that mean harm, and what a pod costs meanwhile.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{
    AppKeys, PATIENCE, Pod, eventually, imkit_token, memory_of, now_seconds, tencent_usersig,
};

/// What one connection may cost at most, whatever its peer does.
pub(crate) const EACH: u64 = 64 << 10;

/// Panics where so many connections have cost more than that.
#[track_caller]
pub(crate) fn assert_cheap(grown: u64, number: u64) {
    assert!(grown < EACH * number, "{} KB each", (grown / number) >> 10);
}

/// What a pod has taken so far, by its file in `/proc`.
pub(crate) struct Costs(u32);

impl Costs {
    pub(crate) fn of(pod: &Pod) -> Self {
        Self(pod.pid())
    }

    /// Resident bytes.
    pub(crate) fn memory(&self) -> u64 {
        memory_of(self.0, "VmRSS")
    }

    /// The most of them so far.
    pub(crate) fn peak(&self) -> u64 {
        memory_of(self.0, "VmHWM")
    }

    /// Time on any core, in the kernel and outside; the grain is a hundredth of a second.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap();
        // Behind the name, which may hold anything.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let ticks = |field: usize| fields[field].parse::<u64>().unwrap();
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    /// Waits until the pod does next to nothing for a second: less than a tenth of a core.
    pub(crate) async fn quiet(&self, what: &str) {
        let start = Instant::now();
        loop {
            let before = self.cpu();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let spent = self.cpu() - before;
            if spent < Duration::from_millis(100) {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{what}: still {} % of a core",
                spent.as_millis() / 10
            );
        }
    }
}

/// Waits until a number of `/metrics` is as it should be.
pub(crate) async fn metric_until(pod: &Pod, name: &str, right: impl Fn(i64) -> bool) {
    eventually(name, || async {
        let now = pod.metric(name);
        match now.is_some_and(&right) {
            true => Ok(()),
            false => Err(format!("it is {now:?}")),
        }
    })
    .await;
}

/// Lines of the log that nobody should be able to cause from outside.
pub(crate) fn complaints(pod: &Pod) -> Vec<String> {
    let bad = |line: &String| line.contains("\"ERROR\"") || line.contains("panicked");
    pod.log().into_iter().filter(bad).collect()
}

/// As many files as this process may have.
pub(crate) fn raise_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

/// The address of a pod's endpoints.
pub(crate) fn address(pod: &Pod) -> SocketAddr {
    pod.address().parse().unwrap()
}

/// A connection from one of the many addresses of this machine to itself.
pub(crate) async fn connect_from(pod: &Pod, last: u8) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0).into())?;
    socket.connect(address(pod)).await
}

/// A connection whose own side takes next to nothing that it does not read.
pub(crate) async fn narrow(pod: &Pod) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(address(pod)).await
}

pub(crate) async fn connect(pod: &Pod) -> TcpStream {
    TcpStream::connect(address(pod)).await.unwrap()
}

/// Sends as much of it as is taken until nothing has been for a second.
pub(crate) async fn stuff(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    let mut sent = 0;
    while sent < bytes.len() {
        let write = stream.write(&bytes[sent..]);
        match tokio::time::timeout(Duration::from_secs(1), write).await {
            Ok(Ok(more)) => sent += more,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    sent
}

/// All that comes until the end; what was read before a reset counts too.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut part = [0; 16384];
    let reading = async {
        while let Ok(bytes @ 1..) = stream.read(&mut part).await {
            all.extend_from_slice(&part[..bytes]);
        }
    };
    let ended = tokio::time::timeout(PATIENCE, reading).await;
    assert!(ended.is_ok(), "the connection does not end");
    String::from_utf8_lossy(&all).into_owned()
}

/// An answer in its parts.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub status: u16,
    pub head: String,
    pub text: String,
    /// Null where it is not JSON.
    pub body: Value,
}

impl Answer {
    pub(crate) fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Self {
            status: status.unwrap_or(0),
            head: head.to_ascii_lowercase(),
            text: body.to_owned(),
            body: serde_json::from_str(body).unwrap_or(Value::Null),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines();
        let value = lines.filter_map(|line| line.split_once(": "));
        value
            .into_iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }
}

/// Sends it all, and reads the one answer, after which the pod has to close.
pub(crate) async fn exchange(pod: &Pod, request: &[u8]) -> Answer {
    let mut stream = connect(pod).await;
    // Refused in the middle, the rest of it is not wanted.
    let _ = stream.write_all(request).await;
    Answer::parse(&rest(&mut stream).await)
}

/// Reads one answer that has a length, and leaves the connection as it is.
pub(crate) async fn answer(stream: &mut TcpStream, without_body: bool) -> Answer {
    let mut bytes = Vec::new();
    let reading = async {
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some(at) = text.find("\r\n\r\n") {
                let answer = Answer::parse(&text[..at + 4]);
                let length = answer
                    .header("content-length")
                    .map_or(0, |l| l.parse().unwrap());
                let length: usize = if without_body { 0 } else { length };
                if bytes.len() >= at + 4 + length {
                    assert_eq!(bytes.len(), at + 4 + length, "more than one answer: {text}");
                    return Answer::parse(&text);
                }
            }
            // Byte by byte up to the body, so as to take nothing of the next answer.
            let whole = bytes.windows(4).any(|end| end == b"\r\n\r\n");
            let mut part = vec![0; if whole { missing(&bytes) } else { 1 }];
            let read = stream.read(&mut part).await.unwrap();
            assert!(read > 0, "the end instead of an answer, after {text:?}");
            bytes.extend_from_slice(&part[..read]);
        }
    };
    let answer = tokio::time::timeout(PATIENCE, reading).await;
    answer.expect("no answer")
}

fn missing(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    let length = Answer::parse(&text)
        .header("content-length")
        .unwrap()
        .parse::<usize>();
    head.len() + 4 + length.unwrap() - bytes.len()
}

/// The dialects, each by one endpoint that only reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Native,
    Imkit,
    Tencent,
    Sendbird,
}

pub(crate) const DIALECTS: [Dialect; 4] = [
    Dialect::Native,
    Dialect::Imkit,
    Dialect::Tencent,
    Dialect::Sendbird,
];

impl Dialect {
    /// Its first line and its credentials, without the line that ends the head.
    pub(crate) fn head(self, keys: &AppKeys) -> String {
        match self {
            Dialect::Native => format!(
                "GET /v1/users/alice/unread HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n",
                keys.server_key
            ),
            Dialect::Imkit => format!(
                "GET /rooms HTTP/1.1\r\nHost: x\r\nIM-CLIENT-KEY: {}\r\nIM-Authorization: {}\r\n",
                keys.client_key,
                imkit_token(&keys.jwt_secret, "alice", now_seconds() + 3_600)
            ),
            Dialect::Tencent => format!(
                "POST /v4/openim/get_c2c_unread_msg_num?sdkappid={}&identifier={}&usersig={}&random=1&contenttype=json \
                 HTTP/1.1\r\nHost: x\r\n",
                keys.sdkappid,
                keys.admin,
                tencent_usersig(
                    keys.sdkappid,
                    &keys.secret_key,
                    &keys.admin,
                    now_seconds(),
                    3_600
                )
            ),
            Dialect::Sendbird => format!(
                "GET /v3/users/alice/unread_item_count HTTP/1.1\r\nHost: x\r\nApi-Token: {}\r\n",
                keys.api_token
            ),
        }
    }

    /// A whole good request, on a connection that stays.
    pub(crate) fn request(self, keys: &AppKeys) -> String {
        let head = self.head(keys);
        match self {
            Dialect::Tencent => {
                let body = r#"{"To_Account":"alice"}"#;
                format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
            }
            _ => format!("{head}\r\n"),
        }
    }

    /// A path of it where nothing is.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Dialect::Native => "/v1/x",
            Dialect::Imkit => "/rooms/x",
            Dialect::Tencent => "/v4/x",
            Dialect::Sendbird => "/v3/x",
        }
    }

    /// Panics unless that is a good answer of it.
    #[track_caller]
    pub(crate) fn assert_good(self, answer: &Answer) {
        let good = match self {
            Dialect::Native => answer.body["messages"]["total"].is_u64(),
            Dialect::Imkit => answer.body["RC"] == 0,
            Dialect::Tencent => answer.body["ActionStatus"] == "OK",
            Dialect::Sendbird => answer.body["group_channel_unread_message_count"].is_u64(),
        };
        assert!(answer.status == 200 && good, "{self:?}: {answer:?}");
    }

    /// Panics unless that is a refusal in its words, with the status that it has for one that HTTP would give this one.
    #[track_caller]
    pub(crate) fn assert_refusal(self, status: u16, answer: &Answer) {
        let body = &answer.body;
        let right = match self {
            Dialect::Native => {
                let problem = answer.header("content-type") == Some("application/problem+json");
                problem && body["status"] == status && answer.status == status
            }
            Dialect::Imkit => {
                let code = body["error"]["code"].is_string();
                code && body["RC"] == status && body["RM"].is_string() && answer.status == status
            }
            Dialect::Tencent => {
                let code = match status {
                    400 => 60002,
                    408 => 60008,
                    414 | 431 => 93000,
                    503 => 91000,
                    other => panic!("{other}"),
                };
                let fail = body["ActionStatus"] == "FAIL" && body["ErrorInfo"].is_string();
                fail && body["ErrorCode"] == code && answer.status == 200
            }
            Dialect::Sendbird => {
                let (status, code) = match status {
                    400 | 408 => (400, 400_404),
                    414 | 431 => (400, 400_110),
                    503 => (500, 500_901),
                    other => panic!("{other}"),
                };
                let error = body["error"] == true && body["message"].is_string();
                error && body["code"] == code && answer.status == status
            }
        };
        assert!(right, "{self:?} should say {status}: {answer:?}");
        let later = answer.header("retry-after").is_some();
        assert_eq!(later, status == 503, "{answer:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
        assert!(answer.header("x-request-id").is_some() && answer.header("date").is_some());
    }
}
