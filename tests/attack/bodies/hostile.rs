//! Bodies made to take long or much: they hold no worker, and little memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use super::{LONGEST, MIB, Scene, all_is_well, worker_time};
use crate::support::{App, Reply};

/// What it is, the status that answers it, and its bytes.
type Body = (&'static str, u16, Vec<u8>);

/// A body of 8 MiB: `piece` again and again between `begin` and `end`.
fn body(what: &'static str, status: u16, begin: &str, piece: &str, end: &str) -> Body {
    let pieces = (LONGEST - begin.len() - end.len()) / piece.len();
    let mut body = String::with_capacity(LONGEST);
    body.push_str(begin);
    body.push_str(&piece.repeat(pieces));
    if body.ends_with(',') && end.starts_with([']', '}']) {
        body.pop();
    }
    body.push_str(end);
    (what, status, body.into_bytes())
}

/// A message, good or rejected by itself, with such a field.
fn message(what: &'static str, begin: &str, piece: &str, end: &str) -> Body {
    const START: &str = r#"{"type":"message.sent","room":"r","id":"1","#;
    body(what, 200, &format!("{START}{begin}"), piece, end)
}

/// The same, filled with texts that differ; one more, which is empty, stands at the end.
fn numbered(what: &'static str, begin: &str) -> Body {
    let (mut body, end) = (begin.to_owned(), "\"\"]}");
    let mut n = 0_u32;
    while body.len() < LONGEST - 20 - end.len() {
        body.push_str(&format!("\"{n:x}\","));
        n += 1;
    }
    body.push_str(end);
    (what, 200, body.into_bytes())
}

/// One line again and again.
fn lines(what: &'static str, status: u16, line: &str) -> Body {
    let line = line.to_owned() + "\n";
    (what, status, line.repeat(LONGEST / line.len()).into_bytes())
}

/// Bodies of 8 MiB that are hard to take apart.
fn hostile_bodies() -> Vec<Body> {
    let no_event = format!("{{\"type\":\"x\",\"text\":\"{}\"}},", "t".repeat(820));
    let id = r#"[{"type":"message.sent","room":"r","id":""#;
    let mentions = r#"{"type":"message.sent","room":"r","id":"1","mentions":["#;
    let members = r#"{"type":"member.joined","room":"r","users":["#;
    vec![
        body("objects with an empty key", 413, "[", r#"{"":0},"#, "]"),
        body("empty objects", 413, "[", "{},", "]"),
        body("lists in lists", 400, r#"[{"x":"#, "[", "]"),
        body("objects in objects", 400, "[", r#"{"a":"#, "]"),
        body("blanks", 400, "[", " ", ""),
        body("events that are none", 200, "[", &no_event, "]"),
        body("a long key", 200, r#"{""#, "k", r#"":0}"#),
        body(
            "many keys",
            200,
            r#"{"type":"x","#,
            r#""a":0,"#,
            r#""a":0}"#,
        ),
        body(
            "one key again and again",
            200,
            r#"{"type":"x","#,
            r#""id":0,"#,
            r#""id":0}"#,
        ),
        body("a huge id", 200, id, "x", r#""}]"#),
        message("a huge text", r#""text":""#, "x", r#""}"#),
        message("a text of escapes", r#""text":""#, r"\n", r#""}"#),
        message("a text of surrogates", r#""text":""#, r"\ud83d", r#""}"#),
        message("a huge number", r#""time":"#, "1", "}"),
        message("empty strings", r#""mentions":["#, r#""","#, "]}"),
        message(
            "empty strings that nobody wants",
            r#""x":["#,
            r#""","#,
            "]}",
        ),
        message("numbers that nobody wants", r#""x":["#, "1e3,", "]}"),
        message(
            "one mention again and again",
            r#""mentions":["#,
            r#""u","#,
            "]}",
        ),
        numbered("mentions", mentions),
        numbered("members and one that is none", members),
        lines("broken lines", 413, "{"),
        lines("long broken lines", 200, &r#"{"":"#.repeat(300)),
    ]
}

/// One app sends them over and over, and another one asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bodies_hold_no_worker_and_little_memory() {
    /// The body, what is made of it and its copies on the way to Redis: a text of 8 MiB, which is a good one, takes the most,
    /// nine times its bytes. More would mean that something grows with what is in the body.
    const MEMORY: u64 = 12 * LONGEST as u64;
    /// The worker only takes in what comes. A program without optimizations is some thirty times slower than the one that is
    /// installed.
    const WORKER: Duration = Duration::from_millis(400);
    const TIMES: u32 = 3;
    for (what, expected, body) in hostile_bodies() {
        // Each has a pod of its own: what the allocator keeps of one body would hide what the next one takes.
        let scene = Scene::new("").await;
        // So that what the pod makes only once is not counted below.
        all_is_well(&scene, || false).await;
        let memory_before = scene.pod.memory();
        let lines = what.ends_with("lines");
        let content_type = if lines {
            "application/x-ndjson"
        } else {
            "application/json"
        };
        let send = || {
            let request = scene.hostile.native(Method::POST, "/v1/events");
            let request = request.header("content-type", content_type);
            App::send(request.body(body.clone()))
        };
        let right = |reply: &Reply| {
            let text = &reply.text[..reply.text.len().min(300)];
            assert_eq!(reply.status, expected, "{what}: {text}");
        };
        scene.pod.forget_peak_memory();
        let time_before = worker_time(&scene.pod);
        right(&send().await);
        let time = worker_time(&scene.pod) - time_before;
        let done = AtomicBool::new(false);
        let (_, reads) = tokio::join!(
            async {
                for _ in 0..TIMES {
                    right(&send().await);
                }
                done.store(true, Ordering::Relaxed);
            },
            async {
                let mut reads = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    scene.victim.unread("u", true).await.ok();
                    reads.push(start.elapsed());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                reads.sort();
                reads
            }
        );
        let cost = scene.pod.peak_memory().saturating_sub(memory_before);
        println!(
            "{what}: {} MB, {} ms of the worker; {} reads of another app took {:.1} ms, the slowest {:.1}",
            cost >> 20,
            time.as_millis(),
            reads.len(),
            reads[reads.len() / 2].as_secs_f64() * 1e3,
            reads[reads.len() - 1].as_secs_f64() * 1e3
        );
        assert!(cost <= MEMORY, "{what}: {} MB", cost >> 20);
        assert!(time <= WORKER, "{what}: {time:?}");
    }
}

/// The other bodies, each as long as it may be and as hard as it gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bodies_of_the_other_calls_are_refused_for_little() {
    const MEMORY: u64 = 32 << 20;
    let scene = Scene::new("").await;
    let app = &scene.hostile;
    let filled = |length: usize, begin: &str, piece: &str, end: &str| {
        let pieces = (length - begin.len() - end.len()) / piece.len();
        format!("{begin}{}{end}", piece.repeat(pieces))
    };
    all_is_well(&scene, || false).await;
    scene.pod.forget_peak_memory();
    let (memory_before, time_before) = (scene.pod.memory(), worker_time(&scene.pod));
    for (begin, piece, end, unread, imkit, tencent) in [
        ("{\"@\":[", "[],", "0]}", 400, 400, 90018),
        ("{\"@\":[", "{\"\":0},", "0]}", 400, 400, 90018),
        ("{\"@\":[", "\"a\",", "\"a\"]}", 413, 400, 90018),
        // A tag that no room can have is one that nobody has used.
        ("{\"@\":[\"", "\\u0061", "\"]}", 400, 200, 0),
        ("{\"@\":[\"", "\\ud83d", "\"]}", 400, 400, 90001),
        ("{\"@\":", "[", "0}", 400, 400, 90001),
        ("{", "\"@\":[\"a\"],", "\"@\":[\"a\"]}", 200, 200, 0),
        ("{", "\"x\":0,", "\"@\":[\"a\"]}", 400, 200, 0),
    ] {
        let with = |length: usize, field: &str| {
            filled(
                length,
                &begin.replace('@', field),
                &piece.replace('@', field),
                &end.replace('@', field),
            )
        };
        let body = with(2 * MIB, "users");
        let reply = App::send(app.native(Method::POST, "/v1/unread").body(body)).await;
        assert_eq!(reply.status, unread, "{begin}{piece}: {}", reply.text);
        let body = with(65_536, "tags");
        let reply = App::send(
            app.imkit(Method::POST, "/badges/byRoomTags", "u")
                .body(body),
        )
        .await;
        assert_eq!(reply.status, imkit, "{begin}{piece}: {}", reply.text);
        let body = with(65_500, "Peer_Account").replacen('{', "{\"To_Account\":\"u\",", 1);
        let reply = App::send(app.tencent(&json!({})).body(body)).await;
        assert_eq!(
            reply.body["ErrorCode"], tencent,
            "{begin}{piece}: {}",
            reply.text
        );
    }
    let cost = scene.pod.peak_memory().saturating_sub(memory_before);
    let time = worker_time(&scene.pod) - time_before;
    println!(
        "bodies of the other calls: {} MB, {} ms of the worker",
        cost >> 20,
        time.as_millis()
    );
    assert!(cost <= MEMORY, "{} MB", cost >> 20);
}
