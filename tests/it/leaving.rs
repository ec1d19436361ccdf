//! A pod that is told to end, and signals that must not end one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::{Config, PATIENCE, Pod, RedisServer, unread, until};

const CALL: &[u8] = b"GET /v1/users/alice/unread HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer server-key-of-app-0\r\n\r\n";

/// A connection that is kept.
struct Kept(BufReader<TcpStream>);

impl Kept {
    /// None: nobody listens any more.
    fn open(address: &str) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Self(BufReader::new(stream)))
    }

    /// One call and its whole answer: whether the connection is to be closed after it. An error: it was cut.
    fn call(&mut self) -> std::io::Result<bool> {
        self.0.get_mut().write_all(CALL)?;
        let (mut length, mut close, mut line) = (0, false, String::new());
        loop {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if let Some(value) = text.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            close |= text == "connection: close";
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(close)
    }

    /// Reads to the end of the connection, and answers how many bytes came. An error: it was cut.
    fn ends(&mut self) -> std::io::Result<usize> {
        self.0.read_to_end(&mut Vec::new())
    }
}

fn pod(drain: &str, redis: &RedisServer) -> Pod {
    let mut command = unread();
    command.env("UNREAD_SERVER__DRAIN_SECONDS", drain);
    let pod = Pod::start_by(command, &Config::apps(1).toml(&redis.url()));
    pod.until_ready();
    pod
}

/// Thirty clients call. When an answer closes its connection, the client connects again, until nobody takes new connections.
/// Answers how many calls were answered after the signal.
fn deploy(drain: &str) -> usize {
    let redis = RedisServer::start();
    let mut pod = pod(drain, &redis);
    let told = Arc::new(AtomicBool::new(false));
    let (before, after) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..30)
        .map(|client| {
            let (address, told) = (pod.address().to_owned(), Arc::clone(&told));
            let (before, after) = (Arc::clone(&before), Arc::clone(&after));
            std::thread::spawn(move || {
                while let Some(mut kept) = Kept::open(&address) {
                    loop {
                        let told = told.load(Ordering::SeqCst);
                        let close = kept.call().unwrap_or_else(|error| panic!("cut: {error}"));
                        match told {
                            true => after.fetch_add(1, Ordering::SeqCst),
                            false => before.fetch_add(1, Ordering::SeqCst),
                        };
                        if close {
                            break;
                        }
                        // Some are busy, some call now and then.
                        std::thread::sleep(std::time::Duration::from_millis(client * 4));
                    }
                    kept.ends()
                        .unwrap_or_else(|error| panic!("cut at its end: {error}"));
                }
            })
        })
        .collect();
    until("calls", || {
        (before.load(Ordering::SeqCst) > 300).then_some(())
    });
    told.store(true, Ordering::SeqCst);
    pod.ask_to_end();
    let cut: Vec<_> = clients
        .into_iter()
        .filter_map(|client| client.join().err())
        .collect();
    assert_eq!(cut.len(), 0, "clients saw a connection cut");
    assert_eq!(pod.ended(), Some(0));
    after.load(Ordering::SeqCst)
}

#[test]
fn no_client_of_a_pod_that_drains_sees_a_connection_cut() {
    assert!(deploy("2") > 100);
}

#[test]
fn no_client_of_a_pod_that_stops_at_once_sees_a_connection_cut() {
    for _ in 0..5 {
        deploy("0");
    }
}

/// Answers say that their connection ends, and it does; one that was never used ends, too.
#[test]
fn a_pod_that_drains_answers_and_closes() {
    let redis = RedisServer::start();
    let mut pod = pod("2", &redis);
    let mut busy = Kept::open(pod.address()).unwrap();
    let mut idle = Kept::open(pod.address()).unwrap();
    let mut unused = Kept::open(pod.address()).unwrap();
    assert!(!busy.call().unwrap());
    assert!(!idle.call().unwrap());
    pod.ask_to_end();
    until("the drain", || {
        (pod.admin_status("/readyz") == Some(503)).then_some(())
    });
    assert!(busy.call().unwrap());
    assert_eq!(busy.ends().unwrap(), 0);
    // Who comes now is answered, and told the same.
    let mut late = Kept::open(pod.address()).unwrap();
    assert!(late.call().unwrap());
    assert_eq!(idle.ends().unwrap(), 0);
    assert_eq!(unused.ends().unwrap(), 0);
    assert_eq!(pod.ended(), Some(0));
}

/// The lines about a signal.
fn ignored(log: &[String], name: &str) -> usize {
    let lines = log
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["signal"] == name).count()
}

#[test]
fn signals_that_ask_for_nothing_we_do_end_no_pod() {
    let redis = RedisServer::start();
    let mut pod = pod("0", &redis);
    let mut kept = Kept::open(pod.address()).unwrap();
    for name in ["HUP", "USR1", "USR2", "PIPE"] {
        pod.signal(name);
        if name != "PIPE" {
            let line = format!("SIG{name}");
            until(&line, || (ignored(&pod.log(), &line) == 1).then_some(()));
        }
        assert!(!kept.call().unwrap(), "{name}");
    }
    assert!(pod.is_ready());
    assert_eq!(pod.term(), Some(0));
}

/// Its Redis lives as long as it does.
#[test]
fn signals_end_no_pod_with_a_redis_of_its_own() {
    let data = tempfile::tempdir().unwrap();
    let config = Config::apps(1);
    let dir = crate::support::quoted(data.path().to_str().unwrap());
    let mut pod = Pod::start_toml(&config.toml_with(&format!("data_dir = {dir}")));
    let mut kept = Kept::open(pod.address()).unwrap();
    for name in ["HUP", "USR1", "USR2", "PIPE"] {
        pod.signal(name);
        assert!(!kept.call().unwrap(), "{name}");
    }
    for name in ["HUP", "USR1", "USR2"] {
        let line = format!("SIG{name}");
        until(&line, || (ignored(&pod.log(), &line) == 1).then_some(()));
    }
    assert!(pod.is_ready());
    assert_eq!(pod.term(), Some(0));
}
