//! Bodies that stall, that are many, and that take long to take apart: what they cost, and what others notice.

/// Bodies made to take long or much.
mod hostile;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{App, Config, PATIENCE, Pod, RedisServer, Wait, eventually};

const MIB: usize = 1 << 20;

/// The longest body with events.
const LONGEST: usize = 8 * MIB;

/// The time that the busiest HTTP worker has spent on a core so far. There is one for the endpoints and one for `/metrics`.
fn worker_time(pod: &Pod) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pod.pid())).unwrap();
    let ticks = tasks.filter_map(|task| {
        let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        let (name, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let spent = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
        name.contains("actix").then_some(spent)
    });
    Duration::from_millis(ticks.max().unwrap() * 10)
}

/// A Redis, a pod with one HTTP worker and two apps.
struct Scene {
    redis: RedisServer,
    pod: Pod,
    hostile: App,
    victim: App,
}

impl Scene {
    async fn new(server: &str) -> Self {
        let redis = RedisServer::start();
        let config = Config::apps(2);
        let toml = config
            .toml(&redis.url())
            .replace("[server]\n", &format!("[server]\nworkers = 1\n{server}\n"));
        let pod = Pod::start_toml(&toml);
        eventually("the pod is ready", || async {
            pod.is_ready().then_some(()).ok_or_else(String::new)
        })
        .await;
        let [hostile, victim] = [0, 1].map(|n| App::new(&config.apps[n], &pod.base));
        for app in [&hostile, &victim] {
            app.must(&json!([
                {"type": "room.updated", "room": "r"},
                {"type": "member.joined", "room": "r", "users": ["u", "v"]},
                {"type": "message.sent", "room": "r", "id": "0"},
            ]))
            .await;
        }
        Self {
            redis,
            pod,
            hostile,
            victim,
        }
    }

    /// A connection that has sent the head of a request with events, which announces a body, or one in chunks.
    async fn begun(&self, app: &App, length: Option<usize>) -> TcpStream {
        let length = match length {
            Some(length) => format!("Content-Length: {length}"),
            None => "Transfer-Encoding: chunked".to_owned(),
        };
        self.head(&format!(
            "POST /v1/events HTTP/1.1\r\nHost: pod\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\n{length}\r\n\r\n",
            app.keys.server_key
        ))
        .await
    }

    async fn head(&self, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.pod.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }
}

/// Head and body of the answer; nothing when the connection ends without one.
async fn answer(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    let reading = async {
        loop {
            match stream.read(&mut part).await {
                Ok(0) | Err(_) => return,
                Ok(bytes) => all.extend_from_slice(&part[..bytes]),
            }
            let text = String::from_utf8_lossy(&all);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_ascii_lowercase();
                let length = head
                    .lines()
                    .find_map(|l| l.strip_prefix("content-length: "));
                if length.is_some_and(|length| body.len() >= length.parse::<usize>().unwrap()) {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("an answer");
    String::from_utf8_lossy(&all).into_owned()
}

fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    status.unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

/// One event of so many bytes.
fn event_of(length: usize) -> String {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    let id = SENT.fetch_add(1, Ordering::Relaxed).to_string();
    let event = json!({"type": "message.sent", "sender": "u", "to": "u", "id": id, "text": ""});
    let event = event.to_string();
    let padding = "x".repeat(length - event.len());
    event.replace("\"text\":\"\"", &format!("\"text\":\"{padding}\""))
}

/// Reads, and sends small and large events, in both apps, while something goes on: all is answered. Answers the number of rounds.
async fn all_is_well(scene: &Scene, while_it_lasts: impl Fn() -> bool) -> usize {
    let large = event_of(200_000);
    let mut rounds = 0;
    loop {
        for app in [&scene.victim, &scene.hostile] {
            app.unread("u", false).await.ok();
            app.must(&json!({"type": "user.updated", "user": "u"}))
                .await;
            let request = app.native(Method::POST, "/v1/events").body(large.clone());
            App::send(request).await.ok();
        }
        rounds += 1;
        if !while_it_lasts() {
            return rounds;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_hundred_stalled_bodies(announced: bool) {
    const STALLED: usize = 100;
    let scene = Arc::new(Scene::new("").await);
    // So that what the pod makes only once is not counted below.
    all_is_well(&scene, || false).await;
    scene.pod.forget_peak_memory();
    let before = scene.pod.memory();

    let mut stalled = JoinSet::new();
    for _ in 0..STALLED {
        let scene = Arc::clone(&scene);
        stalled.spawn(async move {
            let length = announced.then_some(MIB);
            let mut stream = scene.begun(&scene.hostile, length).await;
            let body = match announced {
                true => " ".repeat(MIB - 1),
                false => format!("{MIB:x}\r\n{}", " ".repeat(MIB - 1)),
            };
            // Whoever is refused may be cut off before it is all sent; the answer is there all the same.
            let (mut read, mut write) = stream.split();
            let mut answer = Vec::new();
            let mut part = [0; 4096];
            tokio::select! {
                biased;
                _ = async {
                    let _ = write.write_all(body.as_bytes()).await;
                    std::future::pending::<()>().await
                } => {}
                bytes = read.read(&mut part) => answer.extend_from_slice(&part[..bytes.unwrap_or(0)]),
            }
            String::from_utf8_lossy(&answer).into_owned()
        });
    }
    let done = Arc::new(AtomicBool::new(false));
    let (answers, rounds) = tokio::join!(
        async {
            let answers = stalled.join_all().await;
            done.store(true, Ordering::Relaxed);
            answers
        },
        all_is_well(&scene, || !done.load(Ordering::Relaxed))
    );
    let cost = scene.pod.peak_memory().saturating_sub(before);
    let refused = answers
        .iter()
        .filter(|answer| status(answer) == 503)
        .count();
    println!(
        "{STALLED} stalled bodies: {} MB, {refused} refused at once, {rounds} rounds of others",
        cost >> 20
    );
    for answer in &answers {
        match status(answer) {
            408 => assert!(answer.contains("did not arrive in time"), "{answer}"),
            503 => {
                assert!(
                    answer
                        .to_ascii_lowercase()
                        .contains("\r\nretry-after: 1\r\n"),
                    "{answer}"
                );
                assert!(
                    answer.contains("too many bodies are being read"),
                    "{answer}"
                );
            }
            _ => panic!("{answer}"),
        }
    }
    assert!(cost <= 100 << 20, "{} MB", cost >> 20);
    let counted = scene
        .pod
        .metric::<u64>("unread_overload_refusals_total{cause=\"bodies\"}");
    assert_eq!(counted, Some(refused as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_stalled_bodies_of_a_mebibyte_cost_a_hundred_mebibytes_at_most() {
    a_hundred_stalled_bodies(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_stalled_bodies_of_unknown_length_cost_a_hundred_mebibytes_at_most() {
    a_hundred_stalled_bodies(false).await;
}

/// A client that sends its bodies slowly, but in time, has its share and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_of_one_app_take_no_room_from_another_app() {
    let scene = Scene::new("").await;
    // All of them on their way, and not one of them stalls.
    let mut streams = Vec::new();
    for _ in 0..16 {
        let mut stream = scene.begun(&scene.hostile, Some(LONGEST)).await;
        // Far ahead of the pace of ten seconds.
        let _ = tokio::time::timeout(
            Duration::from_millis(200),
            stream.write_all(&vec![b' '; 3 * MIB]),
        )
        .await;
        streams.push(stream);
    }
    let mut refused = 0;
    let mut on_the_way = Vec::new();
    for mut stream in streams {
        let mut first = [0; 12];
        match tokio::time::timeout(Duration::from_millis(100), stream.peek(&mut first)).await {
            Ok(_) => {
                let answer = answer(&mut stream).await;
                assert_eq!(status(&answer), 503, "{answer}");
                refused += 1;
            }
            Err(_) => on_the_way.push(stream),
        }
    }
    println!("{refused} refused, {} on the way", on_the_way.len());
    assert!(!on_the_way.is_empty());
    // The other app has its own.
    let body = event_of(LONGEST);
    let request = scene.victim.native(Method::POST, "/v1/events").body(body);
    let start = Instant::now();
    App::send(request).await.ok();
    let took = start.elapsed();
    println!("the other app's {LONGEST} bytes took {took:?}");
    drop(on_the_way);
}

/// When there is no room for another body, each dialect that takes bodies says so in its own words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_without_room_is_refused_in_the_words_of_its_dialect() {
    const BODY: usize = 60_000;
    let scene = Scene::new("max_events_bytes = 65_536\nmax_bodies_bytes = 1_048_576").await;
    // Bodies that are nearly there, and go on by a byte now and then, so that none of them stalls.
    let stop = Arc::new(AtomicBool::new(false));
    let mut holders = JoinSet::new();
    for _ in 0..12 {
        let mut stream = scene.begun(&scene.hostile, Some(BODY)).await;
        stream.write_all(&vec![b' '; BODY - 200]).await.unwrap();
        let stop = Arc::clone(&stop);
        holders.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if stream.write_all(b" ").await.is_err() {
                    break;
                }
            }
        });
    }
    eventually("there is no room", || async {
        let refused = scene
            .pod
            .metric::<u64>("unread_overload_refusals_total{cause=\"bodies\"}");
        (refused > Some(0))
            .then_some(())
            .ok_or_else(|| "nobody refused".to_owned())
    })
    .await;

    // A body that comes behind its head.
    let slowly = async |request: reqwest::RequestBuilder| {
        let request = request.body(" ").build().unwrap();
        let url = request.url();
        let mut head = format!(
            "POST {}?{} HTTP/1.1\r\nHost: pod\r\nContent-Length: 1000\r\n",
            url.path(),
            url.query().unwrap_or_default()
        );
        for (name, value) in request.headers() {
            if name != "content-length" {
                head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
            }
        }
        let mut stream = scene.head(&format!("{head}\r\n")).await;
        answer(&mut stream).await
    };
    let app = &scene.hostile;
    let native = slowly(app.native(Method::POST, "/v1/events")).await;
    let imkit = slowly(app.imkit(Method::POST, "/badges/byRoomTags", "u")).await;
    let tencent = slowly(app.tencent(&json!({}))).await;
    for (answer, status_expected, part) in [
        (
            &native,
            503,
            json!({"status": 503, "detail": "too many bodies are being read; the whole request may be sent again"}),
        ),
        (
            &imkit,
            503,
            json!({"RC": 503, "error": {"code": "SERVICE_UNAVAILABLE", "message": "Temporarily unavailable, please retry"}}),
        ),
        (
            &tencent,
            200,
            json!({"ActionStatus": "FAIL", "ErrorCode": 91000}),
        ),
    ] {
        assert_eq!(status(answer), status_expected, "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.to_ascii_lowercase().contains("\r\nretry-after: 1"),
            "{answer}"
        );
        let body: Value = serde_json::from_str(body).unwrap();
        for (key, value) in part.as_object().unwrap() {
            assert_eq!(&body[key], value, "{answer}");
        }
    }
    // What comes in one piece needs no room, and the other app has its own.
    app.must(&json!({"type": "user.updated", "user": "u"}))
        .await;
    let mut stream = scene.begun(&scene.victim, Some(BODY)).await;
    let body = event_of(BODY);
    for part in body.as_bytes().chunks(BODY / 4) {
        stream.write_all(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = answer(&mut stream).await;
    assert_eq!(status(&answer), 200, "{answer}");
    stop.store(true, Ordering::Relaxed);
    holders.join_all().await;
}

/// Events of an app that finds no place are refused before their body is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_without_a_place_are_refused_before_their_body_is_read() {
    let scene = Arc::new(Scene::new("max_writes = 1").await);
    scene.redis.freeze();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for _ in 0..10 {
        let (scene, stop) = (Arc::clone(&scene), Arc::clone(&stop));
        writers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let event = json!({"type": "user.updated", "user": "u"});
                scene.hostile.events(&event, Wait::Applied).await;
            }
        });
    }
    let start = Instant::now();
    let refused = loop {
        // Of this body nothing ever comes.
        let mut stream = scene.begun(&scene.hostile, Some(MIB)).await;
        let mut first = [0; 1];
        let soon = Duration::from_millis(500);
        if tokio::time::timeout(soon, stream.peek(&mut first))
            .await
            .is_ok()
        {
            break answer(&mut stream).await;
        }
        assert!(start.elapsed() < PATIENCE, "never refused");
    };
    stop.store(true, Ordering::Relaxed);
    scene.redis.thaw();
    writers.join_all().await;
    assert_eq!(status(&refused), 503, "{refused}");
    assert!(
        refused.contains("too many events are being worked on"),
        "{refused}"
    );
    assert!(
        scene
            .pod
            .metric::<u64>("unread_overload_refusals_total{cause=\"events\"}")
            > Some(0)
    );
}

/// Slow is not stalled: as long as nobody waits for its room, a body has all its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_are_taken_however_they_come() {
    let scene = Scene::new("").await;
    for (announced, length) in [(true, 300), (true, 300_000), (false, 300), (false, 300_000)] {
        let body = event_of(length);
        let mut stream = scene
            .begun(&scene.victim, announced.then_some(length))
            .await;
        for part in body.as_bytes().chunks(length / 3) {
            if !announced {
                let size = format!("{:x}\r\n", part.len());
                stream.write_all(size.as_bytes()).await.unwrap();
            }
            stream.write_all(part).await.unwrap();
            if !announced {
                stream.write_all(b"\r\n").await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(900)).await;
        }
        if !announced {
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
        let answer = answer(&mut stream).await;
        assert!(
            answer.contains("\"applied\":1"),
            "{announced} {length}: {answer}"
        );
    }
}
