//! Streams of counts: clients of `/v1/live` over Server-Sent Events and over WebSocket, which know nothing of the program's own
//! code.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::{App, escaped};
use super::wait::PATIENCE;

/// One message of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub id: Option<String>,
    pub data: Value,
}

/// How a WebSocket was closed.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    pub code: u16,
    pub why: String,
}

/// An open stream of events. It reads only when it is asked for the next one.
pub struct Events {
    response: reqwest::Response,
    /// What has come and is not read yet.
    bytes: Vec<u8>,
    /// What `retry:` said last.
    pub retry: Option<u64>,
}

impl App {
    /// Opens a stream with the server key.
    pub async fn watch(&self, query: &str) -> Events {
        self.watch_by(self.to_watch(query).bearer_auth(&self.keys.server_key))
            .await
    }

    /// The call that opens a stream, without credentials. It has no time limit.
    pub fn to_watch(&self, query: &str) -> reqwest::RequestBuilder {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client
            .get(format!("{}/v1/live{query}", self.base))
            .header("accept", "text/event-stream")
    }

    pub async fn watch_by(&self, request: reqwest::RequestBuilder) -> Events {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let kind = response.headers()["content-type"].to_str().unwrap();
        assert_eq!(kind, "text/event-stream");
        Events::of(response)
    }

    /// Opens a stream of these users, with the server key.
    pub async fn watch_users(&self, users: &[&str]) -> Events {
        let users: Vec<String> = users.iter().map(|user| escaped(user)).collect();
        self.watch(&format!("?users={}", users.join(","))).await
    }
}

impl Events {
    pub fn of(response: reqwest::Response) -> Self {
        Self {
            response,
            bytes: Vec::new(),
            retry: None,
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.response.headers().get(name)?.to_str().unwrap())
    }

    /// The next message that is no beat; none: the stream has ended.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let event = self.next_of_all().await?;
            if event.name != "beat" {
                return Some(event);
            }
        }
    }

    /// The next message; none: the stream has ended.
    pub async fn next_of_all(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.bytes.drain(..end + 2).collect();
                let block = String::from_utf8(block).unwrap();
                if let Some(event) = self.read(&block) {
                    return Some(event);
                }
                continue;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            let chunk = chunk.expect("something from the stream in time").ok()??;
            self.bytes.extend_from_slice(&chunk);
        }
    }

    fn read(&mut self, block: &str) -> Option<Event> {
        let mut event = Event {
            name: String::new(),
            id: None,
            data: Value::Null,
        };
        for line in block.lines() {
            let (field, value) = line.split_once(": ").unwrap_or((line, ""));
            match field {
                "event" => event.name = value.to_owned(),
                "id" => event.id = Some(value.to_owned()),
                "data" => event.data = serde_json::from_str(value).unwrap(),
                "retry" => self.retry = Some(value.parse().unwrap()),
                "" => {}
                other => panic!("a field {other}"),
            }
        }
        (!event.name.is_empty()).then_some(event)
    }

    /// The next counts, as the body has them.
    pub async fn counts(&mut self) -> Value {
        let event = self.next().await.expect("the stream goes on");
        assert_eq!(event.name, "counts", "{event:?}");
        event.data
    }

    /// Reads until a message says that; answers how long that took.
    pub async fn until(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Duration {
        let start = Instant::now();
        loop {
            let wait = PATIENCE.saturating_sub(start.elapsed());
            let counts = tokio::time::timeout(wait, self.counts()).await;
            let counts = counts.unwrap_or_else(|_| panic!("gave up waiting: {what}"));
            if is(&counts) {
                return start.elapsed();
            }
        }
    }

    /// Whether nothing but beats comes within that time.
    pub async fn is_silent_for(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.next()).await.is_err()
    }
}

/// What a client of a stream knows of its users, from what it was sent.
#[derive(Default)]
pub struct Known {
    pub users: BTreeMap<String, Value>,
    /// The rooms of each, by id.
    pub rooms: BTreeMap<String, BTreeMap<String, Value>>,
    /// The stamps of what it knows whole.
    pub stamps: BTreeMap<String, String>,
}

impl Known {
    pub fn take(&mut self, counts: &Value) {
        let user = counts["user"].as_str().unwrap().to_owned();
        if counts["more"] == true {
            self.stamps.remove(&user);
        } else {
            let stamp = counts["stamp"].as_str().unwrap();
            self.stamps.insert(user.clone(), stamp.to_owned());
        }
        let rooms = self.rooms.entry(user.clone()).or_default();
        if counts["all"] == true {
            rooms.clear();
        }
        for row in counts["rooms"].as_array().into_iter().flatten() {
            rooms.insert(row["room"].as_str().unwrap().to_owned(), row.clone());
        }
        for room in counts["gone"].as_array().into_iter().flatten() {
            rooms.remove(room.as_str().unwrap());
        }
        let mut totals = counts.clone();
        for part in ["rooms", "gone", "all", "more", "event"] {
            totals.as_object_mut().unwrap().remove(part);
        }
        self.users.insert(user, totals);
    }
}

/// A WebSocket, as a client has it.
pub struct WebSocket {
    stream: TcpStream,
    input: Vec<u8>,
    /// The head of the answer.
    pub head: String,
}

impl WebSocket {
    /// Asks for one. Answers the head of an answer that lets nobody in.
    pub async fn open(app: &App, query: &str, headers: &str) -> Result<Self, String> {
        let mut stream = TcpStream::connect(app.address()).await.unwrap();
        let key = STANDARD.encode([7; 16]);
        let request = format!(
            "GET /v1/live{query} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{headers}\r\n",
            app.address()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut input = Vec::new();
        let end = loop {
            if let Some(at) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            assert_ne!(stream.read_buf(&mut input).await.unwrap(), 0);
        };
        let head = String::from_utf8(input.drain(..end).collect()).unwrap();
        match head.starts_with("HTTP/1.1 101 ") {
            true => Ok(Self {
                stream,
                input,
                head,
            }),
            false => Err(head),
        }
    }

    /// The same with the server key.
    pub async fn of(app: &App, query: &str) -> Self {
        let key = format!("Authorization: Bearer {}\r\n", app.keys.server_key);
        Self::open(app, query, &key).await.unwrap()
    }

    /// Sends a frame: 1 is a text, 2 bytes, 8 a goodbye, 9 a ping.
    pub async fn send(&mut self, kind: u8, content: &[u8]) {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![0x80 | kind];
        match content.len() {
            short if short < 126 => frame.push(0x80 | short as u8),
            long if long < 1 << 16 => {
                frame.push(0x80 | 126);
                frame.extend((long as u16).to_be_bytes());
            }
            longest => {
                frame.push(0x80 | 127);
                frame.extend((longest as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(
            content
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        // It may be closed already.
        let _ = self.stream.write_all(&frame).await;
    }

    /// Sends bytes as they are, of which the other side may take a part only.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    pub async fn say(&mut self, message: &Value) {
        self.send(1, message.to_string().as_bytes()).await;
    }

    /// The next frame: its kind and content; none: the connection has ended.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((kind, start, length)) = self.whole() {
                let content = self.input[start..start + length].to_vec();
                self.input.drain(..start + length);
                return Some((kind, content));
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await;
            if !matches!(read.expect("something from the socket in time"), Ok(1..)) {
                return None;
            }
        }
    }

    /// Where the first frame's content begins and how long it is, if it has come whole.
    fn whole(&self) -> Option<(u8, usize, usize)> {
        let (first, second) = (*self.input.first()?, *self.input.get(1)?);
        assert_eq!(first & 0xf0, 0x80, "one whole frame, without extensions");
        assert_eq!(second & 0x80, 0, "a server masks nothing");
        let (start, length) = match second {
            126 => {
                let bytes = self.input.get(2..4)?.try_into().unwrap();
                (4, usize::from(u16::from_be_bytes(bytes)))
            }
            127 => {
                let bytes = self.input.get(2..10)?.try_into().unwrap();
                (10, u64::from_be_bytes(bytes) as usize)
            }
            short => (2, usize::from(short)),
        };
        (self.input.len() >= start + length).then_some((first & 15, start, length))
    }

    /// The next message that is no beat, or how it was closed.
    pub async fn next(&mut self) -> Result<Value, Closed> {
        loop {
            match self.frame().await {
                Some((1, text)) => {
                    let message: Value = serde_json::from_slice(&text).unwrap();
                    if message["event"] != "beat" {
                        return Ok(message);
                    }
                }
                Some((8, content)) => {
                    let code = content
                        .get(..2)
                        .map_or(0, |code| u16::from_be_bytes(code.try_into().unwrap()));
                    let why = content.get(2..).unwrap_or_default();
                    let why = String::from_utf8(why.to_vec()).unwrap();
                    return Err(Closed { code, why });
                }
                Some((10, _)) => {}
                Some(other) => panic!("a frame {other:?}"),
                None => {
                    return Err(Closed {
                        code: 0,
                        why: String::new(),
                    });
                }
            }
        }
    }

    /// The next counts.
    pub async fn counts(&mut self) -> Value {
        let message = self.next().await.expect("the socket stays open");
        assert_eq!(message["event"], "counts", "{message}");
        message
    }
}
