//! `demo`: the lines that it prints work as they stand.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use reqwest::Method;
use serde_json::Value;

use super::{lives, redis_pid};
use crate::support::model::ITEM_KEYS;
use crate::support::stream::Events;
use crate::support::{App, PATIENCE, Ran, signal, unread, until};

/// A running `unread demo` and what it printed up to the event; told to end, and waited for, when dropped.
pub(crate) struct Demo {
    child: Child,
    /// Every line that is one `curl`.
    calls: Vec<String>,
    /// The addresses, each in a line that says what answers there.
    addresses: Vec<String>,
    /// The line that shows what stands in Redis.
    inspect: String,
    /// The line that makes a user token.
    token: String,
    temp: tempfile::TempDir,
}

impl Demo {
    pub(crate) fn start() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut child = unread()
            .args([
                "demo",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .env("TMPDIR", temp.path())
            .current_dir(temp.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (found, lines) = mpsc::channel();
        // Ends with the demo's standard output.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = found.send(line);
            }
        });
        let mut demo = Self {
            child,
            calls: Vec::new(),
            addresses: Vec::new(),
            inspect: String::new(),
            token: String::new(),
            temp,
        };
        while !demo.calls.iter().any(|call| call.contains("/v1/events")) {
            let line = lines
                .recv_timeout(PATIENCE)
                .expect("the demo prints its calls");
            if line.starts_with("curl ") {
                demo.calls.push(line);
            } else if line.contains(" inspect ") {
                demo.inspect = line;
            } else if line.contains(" token user ") {
                demo.token = line;
            } else if line.contains(" http://") {
                demo.addresses.push(line);
            }
        }
        demo
    }

    /// `HOST:PORT` where that is answered.
    pub(crate) fn address(&self, what: &str) -> String {
        let line = self.addresses.iter().find(|line| line.contains(what));
        let (_, address) = line.and_then(|line| line.split_once(" http://")).unwrap();
        address.to_owned()
    }

    /// The address of its Redis.
    pub(crate) fn redis_url(&self) -> &str {
        let (_, rest) = self.inspect.split_once("--redis-url ").unwrap();
        rest.split(' ').next().unwrap()
    }

    fn call(&self, part: &str) -> &str {
        let mut found = self.calls.iter().filter(|call| call.contains(part));
        let call = found
            .next()
            .unwrap_or_else(|| panic!("no call of {part}: {:?}", self.calls));
        assert!(found.next().is_none(), "{:?}", self.calls);
        call
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pastes a line into a shell. Without `curl` the shell still takes the line apart, and the call is made from here.
async fn paste(line: &str) -> Value {
    let shell = |line: &str| {
        Command::new("sh")
            .args(["-c", line])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let out = shell(line);
    // What a shell says when there is no such program.
    if out.status.code() != Some(127) {
        assert!(
            out.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        return serde_json::from_slice(&out.stdout)
            .unwrap_or_else(|_| panic!("{line}: {}", String::from_utf8_lossy(&out.stdout)));
    }
    App::send(call_of(line)).await.body
}

/// The call that a line for `curl` makes, as a shell takes it apart.
fn call_of(line: &str) -> reqwest::RequestBuilder {
    let script = format!("curl() {{ printf '%s\\0' \"$@\"; }}; {line}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).stdin(Stdio::null());
    let out = shell.output().unwrap();
    let words = String::from_utf8(out.stdout).unwrap();
    let mut words = words.split_terminator('\0');
    let (mut method, mut url, mut body) = (Method::GET, "", None);
    let mut headers = BTreeMap::new();
    while let Some(word) = words.next() {
        match word {
            "-sS" | "-sSN" => {}
            "-X" => method = Method::from_bytes(words.next().unwrap().as_bytes()).unwrap(),
            "-H" => drop(headers.insert(words.next().unwrap().split_once(": ").unwrap(), ())),
            "-d" => body = words.next(),
            word => url = word,
        }
    }
    let mut request = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .request(method, url);
    for ((name, value), ()) in headers {
        request = request.header(name, value);
    }
    if let Some(body) = body {
        request = request.body(body.to_owned());
    }
    request
}

/// The line as it stands, in any directory, and the lines that it prints in turn.
#[tokio::test]
async fn the_demo_prints_an_inspect_line_for_its_own_redis() {
    let demo = Demo::start();
    let paste = |line: &str| {
        let out = Command::new("sh")
            .args(["-c", line])
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let ran = Ran::from(out);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
        ran.stdout
    };
    assert_ne!(demo.inspect, "", "no line of inspect was printed");
    let shown = paste(&demo.inspect);
    assert!(shown.starts_with("app: demo\nuser: alice\n"), "{shown}");
    assert!(shown.contains("\n  messages:direct 4\n"), "{shown}");
    let lines: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.trim().strip_prefix("$ "))
        .collect();
    assert!(lines.len() >= 8, "{shown}");
    for line in &lines {
        let answer = paste(line);
        assert!(!answer.starts_with("ERR"), "{line}: {answer}");
    }
    assert!(
        paste(lines[0]).contains("\nmessages:direct\n4\n"),
        "{shown}"
    );
}

#[tokio::test]
async fn the_demo_prints_calls_that_work() {
    let mut demo = Demo::start();
    let calls: [&str; 4] = [
        "/badges/byRoomTags",
        "/rooms?",
        "/v4/openim/get_c2c_unread_msg_num",
        "/v3/users/alice/unread_item_count",
    ];
    let event = "/v1/events";
    assert_eq!(demo.calls.len(), 7, "{:?}", demo.calls);

    let mut seen = Vec::new();
    for round in 0..2 {
        let badges = paste(demo.call(calls[0])).await;
        assert_eq!(badges["RC"], 0, "{badges}");
        assert!(
            badges["result"]["totalBadge"].as_u64() > Some(0),
            "{badges}"
        );
        let rooms = paste(demo.call(calls[1])).await;
        assert_eq!(rooms["RC"], 0, "{rooms}");
        let rows = rooms["result"]["data"].as_array().unwrap();
        assert!(
            rows.iter()
                .any(|row| row["unread"].as_u64() > Some(0) && row["pref"]["sticky"] == true),
            "{rooms}"
        );
        let direct: u64 = rows
            .iter()
            .filter(|row| row["roomType"] == "direct")
            .filter_map(|row| row["unread"].as_u64())
            .sum();
        let tencent = paste(demo.call(calls[2])).await;
        assert_eq!(tencent["ActionStatus"], "OK", "{tencent}");
        let sendbird = paste(demo.call(calls[3])).await;
        for key in ITEM_KEYS {
            assert!(sendbird[key].as_u64() > Some(0), "{key}: {sendbird}");
        }
        let found = (
            direct,
            tencent["AllC2CUnreadMsgNum"].as_u64().unwrap(),
            sendbird[ITEM_KEYS[2]].as_u64().unwrap(),
        );
        assert!(found.0 > 0 && found.0 == found.1, "{found:?}");
        seen.push(found);
        if round == 0 {
            let sent = paste(demo.call(event)).await;
            assert_eq!(sent["applied"], 1, "{sent}");
        }
    }
    let (before, after) = (seen[0], seen[1]);
    assert_eq!(after, (before.0 + 1, before.1 + 1, before.2 + 1));

    // Its data is thrown away with it.
    let data = std::fs::read_dir(demo.temp.path())
        .unwrap()
        .next()
        .expect("the demo's directory")
        .unwrap()
        .path();
    let pid = redis_pid(&data).expect("the demo's Redis answers");
    signal(&demo.child, "TERM");
    let code = until("the demo's end", || demo.child.try_wait().unwrap()).code();
    assert_eq!(code, Some(0));
    assert!(!lives(&pid), "redis-server outlived the demo");
    assert_eq!(std::fs::read_dir(demo.temp.path()).unwrap().count(), 0);
    let mut said = String::new();
    demo.child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(said, "");
}

#[tokio::test]
async fn the_demo_prints_calls_of_devices_and_of_streams_that_work() {
    let demo = Demo::start();
    let mine = paste(demo.call("/v1/me/unread")).await;
    assert_eq!(mine["user"], "alice", "{mine}");
    let live = demo.call("/v1/live?users=alice,bob");
    let stream = call_of(live).header("accept", "*/*").send().await.unwrap();
    let mut stream = Events::of(stream);
    let told = [stream.counts().await, stream.counts().await];
    let mut users = told.map(|counts| counts["user"].to_string());
    users.sort();
    assert_eq!(users, ["\"alice\"", "\"bob\""]);
    // The token that the line makes is good in place of the one that is printed.
    let token = Command::new("sh").args(["-c", &demo.token]).output();
    let token = String::from_utf8(token.unwrap().stdout).unwrap();
    let call = demo.call("/v1/me/unread");
    let (before, _) = call.split_once("Bearer ").unwrap();
    let mine = paste(&format!("{before}Bearer {}'", token.trim())).await;
    assert_eq!(mine["user"], "bob", "{mine}");
}

#[tokio::test]
async fn signals_that_ask_for_nothing_we_do_end_no_demo() {
    let mut demo = Demo::start();
    for name in ["HUP", "USR1", "USR2", "PIPE"] {
        signal(&demo.child, name);
        let badges = paste(demo.call("/badges/byRoomTags")).await;
        assert_eq!(badges["RC"], 0, "{name}: {badges}");
    }
    signal(&demo.child, "TERM");
    let code = until("the demo's end", || demo.child.try_wait().unwrap()).code();
    assert_eq!(code, Some(0));
    let mut said = String::new();
    let stderr = demo.child.stderr.take();
    stderr.unwrap().read_to_string(&mut said).unwrap();
    for name in ["SIGHUP", "SIGUSR1", "SIGUSR2"] {
        assert_eq!(said.matches(name).count(), 1, "{said}");
    }
    assert_eq!(said.lines().count(), 3, "{said}");
}
