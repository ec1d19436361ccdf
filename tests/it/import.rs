//! `unread import`: events from a file or standard input come to what the API would have come to.

mod by_time;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{App, Own, Pod, Ran, RedisServer, assert_no_drift, run, unread, until};

/// A Redis, a pod to ask, and a directory for files.
struct Scene {
    redis: RedisServer,
    _pod: Pod,
    app: App,
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let (app, pod, redis) = Own::start("").parts();
        let dir = tempfile::tempdir().unwrap();
        Self {
            redis,
            _pod: pod,
            app,
            dir,
        }
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join("events.ndjson");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = unread();
        command
            .args(["import", "--app", "app-0", "--redis-url", &self.redis.url()])
            .args(more);
        command
    }

    fn import(&self, text: &str, more: &[&str]) -> Ran {
        let path = self.file(text);
        run(self.command(more).arg(path))
    }

    async fn unread(&self, user: &str) -> Value {
        self.app.unread(user, true).await.ok()
    }
}

fn lines(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

/// Rooms that depend on the order of what happens in them, direct ones by name and by their two included.
fn history(rounds: usize) -> Vec<Value> {
    let mut events = Vec::new();
    for n in 0..40 {
        let room = format!("r{n}");
        events.push(json!({"type": "room.updated", "room": room, "tags": [format!("t{}", n % 3)]}));
        events.push(
            json!({"type": "member.joined", "room": room, "users": ["a", "b", format!("u{n}")]}),
        );
    }
    for round in 0..rounds {
        for n in 0..40 {
            let (room, id) = (format!("r{n}"), format!("m{round}"));
            let user = format!("u{}", (n + round) % 40);
            events.push(json!({"type": "message.sent", "room": room, "sender": "a", "id": id}));
            if round % 3 == 1 {
                events.push(json!({"type": "room.read", "room": room, "user": "b"}));
            }
            // A first message makes the room; so does whoever is first, and never both.
            events.push(json!({"type": "message.sent", "to": user, "sender": "b", "id": id}));
            events.push(json!({"type": "message.sent", "to": "b", "sender": user, "id": format!("back {id}")}));
            if n % 7 == 0 {
                events.push(json!({"type": "room.read", "peer": user, "user": "b"}));
            }
            if n == 20 {
                events.push(json!({"type": "user.read_all", "user": "u7"}));
                events.push(json!({"type": "member.left", "room": room, "user": "a"}));
                events.push(json!({"type": "member.joined", "room": room, "user": "a"}));
            }
        }
        // A direct room by name, for two who write to each other by their names.
        let (one, two) = (format!("x{round}"), format!("y{round}"));
        let room = format!("dm{round}");
        events.push(json!({"type": "room.updated", "room": room, "kind": "direct"}));
        events.push(json!({"type": "member.joined", "room": room, "users": [one, two]}));
        events.push(json!({"type": "message.sent", "to": one, "sender": two, "id": "1"}));
        events.push(json!({"type": "message.recalled", "room": room, "id": "1"}));
        events.push(json!({"type": "message.sent", "to": one, "sender": two, "id": "2"}));
        events.push(json!({"type": "room.deleted", "room": room}));
        events.push(json!({"type": "message.sent", "to": one, "sender": two, "id": "3"}));
    }
    events.push(json!({"type": "user.deleted", "user": "u9"}));
    events.push(json!({"type": "message.sent", "to": "u9", "sender": "a", "id": "after"}));
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_comes_to_what_the_api_comes_to_and_may_be_repeated() {
    let (by_file, by_api) = (Scene::new(), Scene::new());
    let events = history(12);
    let text = lines(&events);
    let said = by_file.import(&text, &["--json"]);
    assert_eq!(
        (said.code, said.stderr.as_str()),
        (0, ""),
        "{}",
        said.stdout
    );
    let sums = said.json();
    assert_eq!(sums["events"], events.len());
    assert_eq!(sums["applied"], events.len());
    assert_eq!(
        (&sums["duplicates"], &sums["rejected"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(
        (&sums["complete"], &sums["done_to_line"]),
        (&json!(true), &json!(events.len()))
    );
    assert!(sums["deliveries"].as_u64().unwrap() > 100, "{sums}");
    for part in events.chunks(1_000) {
        by_api.app.must(&json!(part)).await;
    }
    let mut users: Vec<String> = (0..40).map(|n| format!("u{n}")).collect();
    users.extend(["a", "b", "x3", "y3"].map(str::to_owned));
    let mut right = Vec::new();
    for user in &users {
        right.push(by_api.unread(user).await);
        assert_eq!(by_file.unread(user).await, *right.last().unwrap(), "{user}");
    }
    assert_no_drift(&by_file.redis.url(), "app-0");

    // Without what ends and begins anew: the same again changes nothing.
    let again: Vec<Value> = events
        .iter()
        .filter(|event| event["type"] == "message.sent" && event.get("room").is_some())
        .cloned()
        .collect();
    let said = by_file.import(&lines(&again), &[]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let expected = format!(
        "{0} events: 0 applied, {0} duplicates, 0 rejected; ",
        again.len()
    );
    assert!(said.stdout.starts_with(&expected), "{}", said.stdout);
    for (user, right) in users.iter().zip(&right) {
        assert_eq!(by_file.unread(user).await, *right, "{user}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_line_is_named_and_stops_nothing() {
    let scene = Scene::new();
    let mut text = lines(&[
        json!({"type": "room.updated", "room": "r"}),
        json!({"type": "member.joined", "room": "r", "users": ["a", "b"]}),
    ]);
    text.push_str("\n{\"type\": \n");
    text.push_str("{\"type\": \"message.sent\", \"room\": \"r\", \"sender\": \"a\"}\r\n");
    text.push_str(&lines(&[
        json!({"type": "message.sent", "room": "nowhere", "sender": "a", "id": "1"}),
        json!({"type": "message.sent", "room": "r", "sender": "a", "id": "1"}),
        json!([]),
        json!({"type": "message.recalled", "room": "r", "id": "other"}),
    ]));
    // The last line has no end.
    text.push_str(
        &json!({"type": "message.sent", "room": "r", "sender": "a", "id": "2"}).to_string(),
    );
    let said = scene.import(&text, &[]);
    assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
    let mut rows: Vec<&str> = said.stdout.lines().collect();
    let sums = rows.pop().unwrap();
    assert!(
        sums.starts_with("9 events: 4 applied, 0 duplicates, 5 rejected; "),
        "{sums}"
    );
    assert_eq!(
        rows,
        [
            "line 4: invalid: not JSON: column 8",
            "line 5: invalid: id: is missing",
            "line 6: room_not_found: no room \"nowhere\"",
            "line 8: invalid: event: must be an object",
            "line 9: message_not_found: no such message in the room, or it is older than the history",
        ]
    );
    assert_eq!(scene.unread("b").await["messages"]["total"], 2);

    // A byte order mark, and strings that can't be read: half an emoji in a text is replaced.
    let mut text = b"\xef\xbb\xbf".to_vec();
    text.extend_from_slice(
        br#"{"type":"message.sent","room":"r","id":"3","text":"\ud83d","sender":null}"#,
    );
    text.extend_from_slice(
        b"\n\xef\xbb\xbf\n{\"type\":\"message.sent\",\"room\":\"r\",\"id\":\"\xff\"}\n",
    );
    text.extend_from_slice(br#"{"type":"message.sent","room":"r","id":"\ud83d"}"#);
    let path = scene.dir.path().join("bytes.ndjson");
    std::fs::write(&path, text).unwrap();
    let said = run(scene.command(&[]).arg(&path));
    assert_eq!(
        said.stdout.lines().take(2).collect::<Vec<_>>(),
        [
            "line 3: invalid: id: is not valid UTF-8: column 41",
            "line 4: invalid: id: holds an unpaired surrogate: column 41",
        ],
        "{}",
        said.stderr
    );
    assert!(
        said.stdout
            .contains("\n3 events: 1 applied, 0 duplicates, 2 rejected; "),
        "{}",
        said.stdout
    );
    assert_eq!(scene.unread("b").await["messages"]["total"], 3);

    // What is left out of a line is said, and costs it nothing.
    let noted = |n: usize| {
        lines(&[
            json!({"type": "message.sent", "room": "r", "sender": "a", "id": format!("noted {n}"),
                       "mentions": ["b", "", n]}),
        ])
    };
    let said = scene.import(&noted(0), &[]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let rows: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(
        rows[0],
        "line 1: note: mentions: \"\" is left out: must not be empty; mentions: 0 is left out: must be a string"
    );
    assert!(
        rows[1].starts_with("1 event: 1 applied, "),
        "{}",
        said.stdout
    );
    let many: String = (1..=25).map(noted).collect();
    let sums = scene.import(&many, &["--json"]);
    assert_eq!(sums.code, 0);
    let sums = sums.json();
    assert_eq!(
        (&sums["applied"], &sums["noted"], &sums["notes_not_shown"]),
        (&json!(25), &json!(25), &json!(5))
    );
    assert_eq!(sums["notes"].as_array().unwrap().len(), 20);
    assert_eq!(
        sums["notes"][1],
        json!({"line": 2, "notes": ["mentions: \"\" is left out: must not be empty",
                                    "mentions: 2 is left out: must be a string"]})
    );
    let said = scene.import(&many, &["--name", "again"]);
    assert!(
        said.stdout
            .contains("\n5 more lines have notes\n25 events: 0 applied, 25 duplicates"),
        "{}",
        said.stdout
    );
    assert_eq!(scene.unread("b").await["mentions"]["total"], 26);

    // The first are shown, the others counted.
    let many = "nonsense\n".repeat(500);
    let sums = scene.import(&many, &["--json"]);
    assert_eq!(sums.code, 1);
    let sums = sums.json();
    assert_eq!(sums["rejected"], 500);
    assert_eq!(sums["errors"].as_array().unwrap().len(), 20);
    assert_eq!(sums["errors"][19]["line"], 20);
    assert_eq!(sums["errors_not_shown"], 480);
    let said = scene.import(&many, &[]);
    assert!(
        said.stdout.contains("480 more lines were rejected\n"),
        "{}",
        said.stdout
    );

    // Mistakes of the command line.
    for (args, name) in [
        (&["--app", "not an app"][..], "--app"),
        (&["/nowhere/events"], "/nowhere/events"),
    ] {
        let mut command = unread();
        let url = scene.redis.url();
        command.args(["import", "--redis-url", &url]).args(args);
        if !args.contains(&"--app") {
            command.args(["--app", "app-0"]);
        } else {
            command.arg("-");
        }
        let said = run(&mut command);
        assert_eq!(said.code, 2, "{}", said.stderr);
        assert!(said.stderr.contains(name), "{}", said.stderr);
    }
}

/// The import takes many rooms side by side, with bad lines among good ones. It reports the bad lines in their order, the first
/// ones by name, as if it took one event after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_told_in_the_order_of_the_lines() {
    let scene = Scene::new();
    let (mut text, mut bad) = (String::new(), Vec::new());
    for n in 1..=4_000_u32 {
        let room = format!("r{}", n % 50);
        let (event, code) = match n % 100 {
            0 => ("nonsense".to_owned(), Some("invalid")),
            1 => (
                json!({"type": "message.recalled", "room": room, "id": "x"}).to_string(),
                Some("message_not_found"),
            ),
            2 => (
                json!({"type": "message.sent", "room": format!("no{n}"), "id": "1"}).to_string(),
                Some("room_not_found"),
            ),
            _ if n <= 50 => (
                json!({"type": "room.updated", "room": room}).to_string(),
                None,
            ),
            _ => (
                json!({"type": "message.sent", "room": room, "id": n.to_string()}).to_string(),
                None,
            ),
        };
        // The first ones make the rooms.
        let (event, code) = match n <= 50 {
            true => (
                json!({"type": "room.updated", "room": room}).to_string(),
                None,
            ),
            false => (event, code),
        };
        writeln!(text, "{event}").unwrap();
        bad.extend(code.map(|code| format!("line {n}: {code}: ")));
    }
    let said = scene.import(&text, &[]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    let rows: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(rows.len(), 22, "{}", said.stdout);
    for (row, expected) in rows.iter().zip(&bad).take(20) {
        assert!(
            row.starts_with(expected),
            "{row}, where {expected} was to come:\n{}",
            said.stdout
        );
    }
    assert_eq!(
        rows[20],
        format!("{} more lines were rejected", bad.len() - 20)
    );
    let sums = scene.import(&text, &["--json", "--name", "again"]).json();
    let lines: Vec<u64> = sums["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["line"].as_u64().unwrap())
        .collect();
    let expected: Vec<u64> = (1..40)
        .flat_map(|n| [n * 100, n * 100 + 1, n * 100 + 2])
        .take(20)
        .collect();
    assert_eq!(lines, expected);
    assert_eq!(sums["errors_not_shown"], bad.len() - 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_input_is_read_while_it_comes() {
    let scene = Scene::new();
    let mut child = scene
        .command(&["--from-line", "2", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // Passed over, as it stands before the line to begin with.
    writeln!(input, "nonsense").unwrap();
    for n in 0..5_000 {
        let event = json!({"type": "message.sent", "to": "a", "sender": "b", "id": n.to_string()});
        writeln!(input, "{event}").unwrap();
    }
    input.flush().unwrap();
    until("the first ones applied", || {
        let total = scene
            .redis
            .cli(&["HGET", "unread:v1:{app-0:u:a}:counts", "messages:direct"]);
        total
            .trim()
            .parse::<u64>()
            .is_ok_and(|n| n > 0)
            .then_some(())
    });
    drop(input);
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(0), "{text}");
    assert!(text.starts_with("5000 events: 5000 applied, "), "{text}");
    assert_eq!(scene.unread("a").await["messages"]["direct"], 5_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_away_in_the_middle_is_waited_for_and_then_it_says_how_far_it_came() {
    let scene = Scene::new();
    let mut text = lines(&[
        json!({"type": "room.updated", "room": "r"}),
        json!({"type": "member.joined", "room": "r", "users": ["a", "b"]}),
    ]);
    for n in 0..20_000 {
        let event =
            json!({"type": "message.sent", "room": "r", "sender": "a", "id": n.to_string()});
        writeln!(text, "{event}").unwrap();
    }
    let path = scene.file(&text);
    let counted = |scene: &Scene| {
        let total = scene
            .redis
            .cli(&["HGET", "unread:v1:{app-0:u:b}:counts", "messages:group"]);
        total.trim().parse::<u64>().unwrap_or(0)
    };
    let start = |more: &[&str]| {
        scene
            .command(more)
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let child = start(&["--patience-seconds", "1"]);
    until("it is under way", || (counted(&scene) > 500).then_some(()));
    scene.redis.freeze();
    let since = Instant::now();
    let out = child.wait_with_output().unwrap();
    scene.redis.thaw();
    assert_eq!(out.status.code(), Some(3));
    assert!(since.elapsed() < Duration::from_secs(20));
    let err = String::from_utf8(out.stderr).unwrap();
    let done: usize = err
        .split("all lines up to ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("{err}"));
    assert!((100..20_002).contains(&done), "{err}");
    assert!(err.contains(&format!("--from-line {}", done + 1)), "{err}");

    // It goes on from there, this time over a short absence.
    let from = (done + 1).to_string();
    let before = counted(&scene);
    let child = start(&["--from-line", &from, "--json"]);
    until("it is under way again", || {
        (counted(&scene) > before + 200).then_some(())
    });
    scene.redis.freeze();
    // The length of the absence: longer than the import waits for an answer, shorter than its patience.
    std::thread::sleep(Duration::from_millis(2_500));
    scene.redis.thaw();
    let out = child.wait_with_output().unwrap();
    let sums: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(0), "{sums}");
    assert_eq!(sums["done_to_line"], 20_002, "{sums}");
    assert_eq!(scene.unread("b").await["messages"]["group"], 20_000);
    assert_eq!(scene.unread("a").await["messages"]["group"], 0);
    assert_no_drift(&scene.redis.url(), "app-0");
}

/// What has no id of its own: a repetition would leave and join again, read what has come since, and take back settings.
fn without_ids(rounds: usize) -> Vec<Value> {
    let mut events = vec![
        json!({"type": "room.updated", "room": "r", "tags": ["old"]}),
        json!({"type": "member.joined", "room": "r", "users": ["a", "b"]}),
    ];
    for n in 0..rounds {
        events.extend([
            json!({"type": "member.left", "room": "r", "user": "a"}),
            json!({"type": "member.joined", "room": "r", "user": "a"}),
            json!({"type": "message.sent", "room": "r", "sender": "b", "id": format!("m{n}")}),
        ]);
    }
    events.extend([
        json!({"type": "room.read", "room": "r", "user": "b"}),
        json!({"type": "user.read_all", "user": "b"}),
        json!({"type": "pref.updated", "room": "r", "user": "a", "muted": true}),
        json!({"type": "user.updated", "user": "a", "nickname": "A"}),
        json!({"type": "user.deleted", "user": "b"}),
        json!({"type": "room.updated", "room": "gone"}),
        json!({"type": "room.deleted", "room": "gone"}),
    ]);
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_of_a_file_changes_nothing() {
    let scene = Scene::new();
    let text = lines(&without_ids(5));
    let first = scene.import(&text, &["--json"]).json();
    assert_eq!(first["rejected"], 0, "{first}");
    // What has come since stays as it is.
    let since = json!([
        {"type": "room.updated", "room": "r", "tags": ["new"]},
        {"type": "pref.updated", "room": "r", "user": "a", "muted": false},
        {"type": "user.updated", "user": "a", "nickname": "other"},
        {"type": "member.joined", "room": "r", "user": "b"},
        {"type": "room.updated", "room": "gone"},
        {"type": "message.sent", "room": "r", "id": "last"},
    ]);
    scene.app.must(&since).await;
    let before = scene.unread("a").await;
    assert_eq!(before["messages"]["total"], 2, "{before}");
    let again = scene.import(&text, &["--json"]).json();
    assert_eq!(again["duplicates"], again["events"], "{again}");
    assert_eq!(scene.unread("a").await, before);
    assert_eq!(scene.unread("b").await["messages"]["total"], 1);
    assert_eq!(
        scene
            .redis
            .cli(&["HGET", "unread:v1:{app-0:u:a}:profile", "nickname"]),
        "other"
    );

    // Under another name the lines are others, and so they are in another place of a file.
    let other = scene.import(&text, &["--json", "--name", "other"]).json();
    assert_eq!(other["duplicates"], 5, "{other}");
    let moved = scene.import(&format!("\n{text}"), &["--json"]).json();
    assert_eq!(moved["duplicates"], 5, "{moved}");
}

/// Redis hangs again and again for longer than an answer may take, so that batches are sent again that were taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_own_retries_lose_nothing_and_do_nothing_twice() {
    const ROOMS: usize = 2_000;
    let scene = Scene::new();
    let mut events = Vec::new();
    for n in 0..ROOMS {
        let room = format!("r{n}");
        let member =
            |what: &str| json!({"type": format!("member.{what}"), "room": room, "user": "a"});
        events.extend([
            json!({"type": "room.updated", "room": room}),
            member("joined"),
            member("left"),
            member("joined"),
            json!({"type": "message.sent", "room": room, "id": "1"}),
        ]);
    }
    let path = scene.file(&lines(&events));
    let mut command = scene.command(&["--json"]);
    command.env("UNREAD_REDIS__RESPONSE_TIMEOUT_MS", "100");
    let child = command
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let known = || {
        let rooms = scene.redis.cli(&["HLEN", "unread:v1:{app-0:u:a}:rooms"]);
        rooms.parse::<usize>().unwrap()
    };
    for part in 1..8 {
        until("some more rooms are there", || {
            (known() >= part * ROOMS / 8).then_some(())
        });
        scene.redis.freeze();
        // As long as a hang has to be for the import to give up on an answer.
        std::thread::sleep(Duration::from_millis(250));
        scene.redis.thaw();
    }
    let out = child.wait_with_output().unwrap();
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(said["complete"], true, "{said}");
    assert_eq!(said["rejected"], 0, "{said}");
    assert_ne!(said["duplicates"], 0, "nothing was sent again: {said}");
    // One message has come into each room since the last joining.
    assert_eq!(scene.unread("a").await["messages"]["total"], ROOMS);
    assert_no_drift(&scene.redis.url(), "app-0");
}
