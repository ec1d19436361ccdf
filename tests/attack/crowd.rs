//! Ten thousand at once, of every behaviour, against a pod with its default settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::peer::{Costs, Dialect, address, complaints, raise_files};
use crate::pipelining::{config, warm};
use crate::support::{AppKeys, RedisServer};
use crate::victim::{percentile, victim};

const CROWD: usize = 10_000;
const MEMORY: u64 = 512 << 20;

/// What a hostile connection does until the pod ends it; then it connects again.
#[derive(Clone, Copy)]
enum Behaviour {
    Silent,
    UnfinishedHead,
    SlowHead,
    SlowBody,
    SlowStranger,
    TinyChunks,
    Idle,
    Pipelining,
    HalfClosed,
    Garbage,
}

const BEHAVIOURS: [Behaviour; 10] = [
    Behaviour::Silent,
    Behaviour::UnfinishedHead,
    Behaviour::SlowHead,
    Behaviour::SlowBody,
    Behaviour::SlowStranger,
    Behaviour::TinyChunks,
    Behaviour::Idle,
    Behaviour::Pipelining,
    Behaviour::HalfClosed,
    Behaviour::Garbage,
];

impl Behaviour {
    /// What it sends at once, and what it sends every second after that.
    fn bytes(self, keys: &AppKeys) -> (String, &'static str) {
        match self {
            Behaviour::Silent => (String::new(), ""),
            Behaviour::UnfinishedHead => {
                let start = "GET /v1/x HTTP/1.1\r\nX: ".to_owned();
                (start + &"x".repeat(31_000), "")
            }
            Behaviour::SlowHead => ("GET /v4/x HTTP/1.1\r\nX: ".to_owned(), "x"),
            Behaviour::SlowBody => {
                let head = Dialect::Tencent.head(keys);
                (head + "Content-Length: 60000\r\n\r\n{", " ")
            }
            Behaviour::SlowStranger => {
                let head = "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{";
                (head.to_owned(), " ")
            }
            Behaviour::TinyChunks => {
                let head = Dialect::Imkit.head(keys);
                let head = head.replace("GET /rooms", "POST /badges/byRoomTags");
                (head + "Transfer-Encoding: chunked\r\n\r\n", "1;a\r\n \r\n")
            }
            Behaviour::Idle => (UNKNOWN.to_owned(), ""),
            Behaviour::Pipelining => (UNKNOWN.repeat(3_000), "\r\n"),
            Behaviour::HalfClosed => (UNKNOWN.repeat(1_000), ""),
            Behaviour::Garbage => ("\u{16}\u{3}\u{1} garbage".to_owned(), ""),
        }
    }
}

const UNKNOWN: &str = "GET /x HTTP/1.1\r\nHost: x\r\n\r\n";

/// One life of a hostile connection: it ends when the pod ends it.
async fn live(
    behaviour: Behaviour,
    mut stream: TcpStream,
    start: &str,
    drip: &str,
) -> std::io::Result<()> {
    const SECOND: Duration = Duration::from_secs(1);
    stream.write_all(start.as_bytes()).await?;
    if matches!(behaviour, Behaviour::HalfClosed) {
        stream.shutdown().await?;
    }
    if matches!(behaviour, Behaviour::Idle) {
        let mut answer = [0; 4096];
        // Whatever there is of it.
        let _ = stream.read(&mut answer).await?;
    }
    // Those that have answers to read don't look; whether the connection is still there shows when they write, or when their
    // time is up.
    let blind = matches!(behaviour, Behaviour::Pipelining | Behaviour::HalfClosed);
    for _ in 0..30 {
        let mut peeked = [0];
        match blind {
            true => tokio::time::sleep(SECOND).await,
            false => {
                let seen = tokio::time::timeout(SECOND, stream.peek(&mut peeked)).await;
                if seen.is_ok() {
                    return Ok(());
                }
            }
        }
        // What does not fit is left out.
        match stream.try_write(drip.as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn ten_thousand_hostile_connections_leave_a_default_pod_standing() {
    raise_files();
    let (redis, config) = (RedisServer::start(), config());
    let pod = Arc::new(warm(&config, &redis).await);
    let keys = Arc::new(config.apps[0].clone());
    let costs = Costs::of(&pod);
    let mut quiet = victim(&pod, &keys, Duration::from_secs(3));

    let stop = Arc::new(AtomicBool::new(false));
    let connected = Arc::new(AtomicUsize::new(0));
    let target = address(&pod);
    let bytes = Arc::new(BEHAVIOURS.map(|behaviour| behaviour.bytes(&keys)));
    let mut crowd = Vec::new();
    for n in 0..CROWD {
        let (stop, connected) = (Arc::clone(&stop), Arc::clone(&connected));
        let bytes = Arc::clone(&bytes);
        crowd.push(tokio::spawn(async move {
            let behaviour = BEHAVIOURS[n % BEHAVIOURS.len()];
            let (start, drip) = &bytes[n % BEHAVIOURS.len()];
            let mut first = true;
            while !stop.load(Ordering::Relaxed) {
                let socket = TcpSocket::new_v4().unwrap();
                // Its own side takes next to nothing, so that little fills it.
                socket.set_recv_buffer_size(4096).unwrap();
                // From ten addresses: one has no more than 28,000 ports.
                let own = [127, 0, 0, 10 + (n % 10) as u8];
                socket.bind((own, 0).into()).unwrap();
                if let Ok(stream) = socket.connect(target).await {
                    if std::mem::take(&mut first) {
                        connected.fetch_add(1, Ordering::Relaxed);
                    }
                    let _ = live(behaviour, stream, start, drip).await;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }));
    }
    let begun = Instant::now();
    while connected.load(Ordering::Relaxed) < CROWD {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the crowd does not get in"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let gathered = begun.elapsed();
    let spent = costs.cpu();
    let measured = Instant::now();
    // Those that came together are also cut together, so one look may fall between their end and their return.
    let (looked_at, look) = (Arc::clone(&pod), Duration::from_millis(200));
    let looks = std::thread::spawn(move || {
        let mut open = Vec::new();
        while measured.elapsed() < Duration::from_secs(14) {
            let now = looked_at.metric::<i64>("unread_connections");
            open.push(now.expect("the admin address answers"));
            std::thread::sleep(look);
        }
        open.sort_unstable();
        open[open.len() / 2]
    });
    let mut meanwhile = victim(&pod, &keys, Duration::from_secs(15));
    let open = looks.join().unwrap();
    assert_eq!(pod.admin_status("/livez"), Some(200));
    let cpu = (costs.cpu() - spent).as_secs_f64() / measured.elapsed().as_secs_f64();
    let peak = costs.peak();
    println!(
        "crowd in {gathered:?}; {open} open; peak {} MB; {cpu:.2} cores; victim p50 {:?} p99 {:?}, quiet p50 {:?} p99 {:?}",
        peak >> 20,
        percentile(&mut meanwhile, 50),
        percentile(&mut meanwhile, 99),
        percentile(&mut quiet, 50),
        percentile(&mut quiet, 99),
    );
    assert!(open > CROWD as i64 * 2 / 3, "{open}");
    assert!(peak < MEMORY, "{} MB", peak >> 20);
    // This machine carries the crowd as well; what is bounded here is only that nobody is left waiting.
    assert!(meanwhile.iter().all(|time| *time < Duration::from_secs(10)));
    stop.store(true, Ordering::Relaxed);
    for task in crowd {
        task.abort();
    }
    assert_eq!(complaints(&pod), [""; 0]);
}
