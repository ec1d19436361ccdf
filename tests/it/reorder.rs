//! Deliveries shuffled and repeated at the script level: every order ends in the state that the pod's own order left.
//!
//! A random history runs through a pod while `MONITOR` writes down each call of `deliver.lua`, keys and arguments. Then the
//! users' slots are emptied and the same calls made again, in an order of chance, a third of them more than once. What comes
//! before a reset that it has to follow is refused and comes again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redis::{Connection, Value};
use serde_json::{Value as Json, json};

use crate::support::check::{self, Questions};
use crate::support::history::History;
use crate::support::model::Model;
use crate::support::{App, Config, PATIENCE, Pod, RedisServer, scripts};

const SEEDS: [u64; 4] = [201, 202, 203, 204];
const STEPS: u64 = 300;
const ORDERS: usize = 5;

/// What a user's slot consists of, as far as deliveries write it, in the order of the script's keys.
const WRITTEN: [&str; 7] = [
    "counts", "rooms", "supers", "refs", "marks", "left", "prefs",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_in_any_order_and_number_end_in_the_same_state() {
    let redis = RedisServer::start();
    let config = Config::apps(SEEDS.len());
    let pod = Pod::start(&config, &redis);
    let monitor = Monitor::start(&redis);
    for (seed, keys) in SEEDS.into_iter().zip(&config.apps) {
        let mut history = History::new(App::new(keys, &pod.base), seed);
        // Deleting a user is no delivery: it takes its stamp when it runs, so it has a place in the order.
        history.deletes_users = false;
        history
            .run(STEPS, false)
            .await
            .unwrap_or_else(|reason| panic!("seed {seed}: {reason}"));
    }
    drop(pod);
    let calls = monitor.deliveries(&redis);
    assert!(
        calls.len() > 500,
        "only {} deliveries were seen",
        calls.len()
    );

    let mut connection = redis.connect();
    let slots = slots(&calls);
    let expected = state(&mut connection, &slots);
    let resets = calls.iter().filter(|call| !reset_by(call).is_empty());
    assert!(resets.count() > 20, "there are few resets");
    let mut rng = StdRng::seed_from_u64(7);
    for order in 0..ORDERS {
        let again = reordered(&calls, &mut rng);
        empty(&mut connection, &slots);
        let (closer, refused) = replay(&mut connection, again.iter());
        assert!(closer > 0, "nobody took a closer look");
        assert!(
            refused > 0,
            "no call came before a reset that it has to follow"
        );
        let got = state(&mut connection, &slots);
        for (key, value) in &expected {
            assert_eq!(got.get(key), Some(value), "order {order}: {key}");
        }
        assert_eq!(got.len(), expected.len());
    }
}

/// Every order in which the deliveries of a few events may come that move a read position back and forth, and then all of them
/// again. The events are a member's own from two devices, and messages by somebody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_of_a_few_deliveries_of_reads_and_marks_ends_in_the_same_state() {
    let of_a = |kind: &str, field: &str, value: Json| json!({"type": kind, "room": "r", "user": "a", field: value});
    let read = |id: &str| of_a("room.read", "up_to_id", id.into());
    let unread = |id: &str| of_a("room.unread", "from_id", id.into());
    let number = |unread: u64| of_a("counts.set", "unread", unread.into());
    let message = |id: &str| json!({"type": "message.sent", "room": "r", "id": id, "sender": "b", "mentions": ["a"]});
    let own = |id: &str| json!({"type": "message.sent", "room": "r", "id": id, "sender": "a"});
    let histories = [
        vec![read("2"), unread("1"), message("4")],
        vec![unread("1"), read("2"), message("4")],
        vec![read("3"), message("4"), unread("2"), read("4")],
        vec![message("4"), unread("3"), own("5"), unread("2")],
        vec![read("3"), number(5), message("4"), read("1")],
        vec![read("2"), unread("1"), number(1), message("4")],
    ];
    let redis = RedisServer::start();
    let kinds = ["direct", "group", "supergroup"];
    let config = Config::apps(kinds.len() * histories.len());
    let pod = Pod::start(&config, &redis);
    let mut keys = config.apps.iter();
    let (mut orders, mut refused) = (0, 0);
    for kind in kinds {
        for events in &histories {
            let app = App::new(keys.next().unwrap(), &pod.base);
            let monitor = Monitor::start(&redis);
            let mut model = Model::default();
            let mut before = vec![
                json!({"type": "room.updated", "room": "r", "kind": kind}),
                json!({"type": "member.joined", "room": "r", "users": ["a", "b"]}),
            ];
            before.extend(["1", "2", "3"].map(message));
            app.must(&json!(before)).await;
            for event in events {
                app.must(event).await;
            }
            for event in before.iter().chain(events) {
                model.apply(event);
            }
            check::user(&app, &model, "a", &Questions::default())
                .await
                .unwrap_or_else(|why| panic!("{kind} {events:?}: {why}"));
            let calls = monitor.deliveries(&redis);
            let mut connection = redis.connect();
            let slots = slots(&calls);
            let expected = state(&mut connection, &slots);
            for order in permutations(calls.len()) {
                if !comes_after_what_it_resets(&calls, &order) {
                    continue;
                }
                empty(&mut connection, &slots);
                let again = order.iter().chain(order.iter().rev());
                let done = replay(&mut connection, again.map(|at| &calls[*at]));
                assert_eq!(
                    state(&mut connection, &slots),
                    expected,
                    "{kind} {events:?} delivered as {order:?}"
                );
                orders += 1;
                refused += done.1;
            }
        }
    }
    println!("{orders} orders, {refused} refusals");
    assert!(orders > 500 && refused > 50, "{orders} {refused}");
}

/// Whether the first delivery of each reset comes after all jobs that the room accepted before it for the same member.
fn comes_after_what_it_resets(calls: &[Call], order: &[usize]) -> bool {
    let place = |call: usize| order.iter().position(|at| *at == call);
    calls.iter().enumerate().all(|(at, call)| {
        let reset = reset_by(call);
        (0..at).all(|earlier| {
            let (room, users) = parts(&calls[earlier]);
            let concerns = users.iter().any(|(user, _)| reset.contains(&(room, *user)));
            !concerns || place(earlier) < place(at)
        })
    })
}

/// All orders of so many.
fn permutations(count: usize) -> Vec<Vec<usize>> {
    (0..count).fold(vec![Vec::new()], |all, next| {
        let insert = |order: &Vec<usize>, at: usize| {
            let mut order = order.clone();
            order.insert(at, next);
            order
        };
        let longer = all
            .iter()
            .flat_map(|order| (0..=order.len()).map(move |at| insert(order, at)));
        longer.collect()
    })
}

/// The users' slots that the calls write.
fn slots(calls: &[Call]) -> BTreeSet<String> {
    calls
        .iter()
        .flat_map(|call| call.iter().skip(3))
        .filter_map(|key| String::from_utf8(key.clone()).ok())
        .filter_map(|key| key.strip_suffix(":counts").map(str::to_owned))
        .filter(|slot| slot.starts_with("unread:v1:{"))
        .collect()
}

fn empty(connection: &mut Connection, slots: &BTreeSet<String>) {
    for slot in slots {
        let keys = WRITTEN.map(|what| format!("{slot}:{what}"));
        let _: Value = redis::cmd("DEL").arg(&keys).query(connection).unwrap();
    }
}

/// Makes the calls in that order. Answers how often users took a closer look, and how many calls were refused and came again.
fn replay<'a>(
    connection: &mut Connection,
    again: impl Iterator<Item = &'a Call>,
) -> (usize, usize) {
    let (mut closer, mut refused) = (0, 0);
    let mut rest: VecDeque<&Call> = again.collect();
    let (mut waiting, mut told) = (Vec::new(), BTreeSet::new());
    while let Some(call) = rest.pop_front() {
        let mut reply = call_again(connection, call);
        if reply.iter().any(|letter| letter == "C") {
            closer += 1;
            reply = call_again(connection, &with_all_keys(call));
        }
        if !reset_by(call).is_empty() && told.insert(std::ptr::from_ref(call)) {
            // What was refused for the lack of a reset comes again before anything else, as a pod sends it.
            waiting.drain(..).for_each(|call| rest.push_front(call));
        }
        // What is late says so, and is kept or let be all the same.
        reply.retain(|word| !word.starts_with('>') && !word.starts_with('A'));
        if reply.iter().any(|word| word.starts_with('R')) {
            refused += 1;
            waiting.push(call);
            reply.retain(|word| !word.starts_with('R'));
        }
        assert!(reply.iter().all(|letter| letter == "K"), "{reply:?}");
    }
    assert!(waiting.is_empty(), "a reset is missing");
    (closer, refused)
}

type Pair<'a> = (&'a [u8], &'a [u8]);

/// One call as the pod made it: words, keys, arguments.
type Call = Vec<Vec<u8>>;

/// Room and users of a call: of each user the key of the counts and what the user got.
fn parts(call: &[Vec<u8>]) -> (&[u8], Vec<Pair<'_>>) {
    let count: usize = std::str::from_utf8(&call[2]).unwrap().parse().unwrap();
    let (keys, arguments) = call[3..].split_at(count);
    let counts = keys.iter().filter(|key| key.ends_with(b":counts"));
    let got = arguments[11..].chunks(4).map(|four| four[3].as_slice());
    (&arguments[0], counts.map(Vec::as_slice).zip(got).collect())
}

/// The users whom a call tells of a reset.
fn reset_by(call: &[Vec<u8>]) -> Vec<Pair<'_>> {
    let (room, users) = parts(call);
    let is_reset = |got: &[u8]| got.windows(3).any(|part| part == b"\n<\n");
    let users = users.into_iter().filter(|(_, got)| is_reset(got));
    users.map(|(user, _)| (room, user)).collect()
}

/// The calls in an order of chance, a third of them twice. A room accepts a reset of a member when all that is older has reached
/// that member: so the first time a reset is told, everything that was told before it has been told.
fn reordered(calls: &[Call], rng: &mut StdRng) -> Vec<Call> {
    let mut latest: BTreeMap<Pair<'_>, f64> = BTreeMap::new();
    let mut placed: Vec<(f64, &Call)> = Vec::new();
    for call in calls {
        let mut place: f64 = rng.random();
        for user in reset_by(call) {
            let before = latest.get(&user).copied().unwrap_or(0.0);
            place = place.max(before.next_up());
        }
        let (room, users) = parts(call);
        for (user, _) in users {
            let latest = latest.entry((room, user)).or_default();
            *latest = latest.max(place);
        }
        placed.push((place, call));
    }
    for n in rand::seq::index::sample(rng, placed.len(), placed.len() / 3) {
        let (first, call) = placed[n];
        placed.push((rng.random_range(first..=1.0), call));
    }
    placed.sort_by(|one, two| one.0.total_cmp(&two.0));
    placed.into_iter().map(|(_, call)| call.clone()).collect()
}

fn call_again(connection: &mut Connection, call: &[Vec<u8>]) -> Vec<String> {
    let mut cmd = redis::Cmd::new();
    for part in call {
        cmd.arg(part.as_slice());
    }
    cmd.query(connection).unwrap()
}

/// A call with two keys for each user as the pod makes it again for those who take a closer look.
fn with_all_keys(call: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let count: usize = std::str::from_utf8(&call[2]).unwrap().parse().unwrap();
    let (keys, args) = call[3..].split_at(count);
    let all: Vec<Vec<u8>> = keys
        .chunks(2)
        .flat_map(|two| {
            let slot = two[0].strip_suffix(b"counts").unwrap();
            WRITTEN.map(|what| [slot, what.as_bytes()].concat())
        })
        .collect();
    let head = [
        call[0].clone(),
        call[1].clone(),
        all.len().to_string().into_bytes(),
    ];
    head.into_iter().chain(all).chain(args.to_vec()).collect()
}

/// All that is in the slots but tombstones, which only have to be there, and since when a user is known.
fn state(connection: &mut Connection, slots: &BTreeSet<String>) -> BTreeMap<String, Vec<String>> {
    let mut state = BTreeMap::new();
    for slot in slots {
        for what in WRITTEN.iter().filter(|what| **what != "left") {
            let key = format!("{slot}:{what}");
            let mut read = if *what == "marks" {
                redis::cmd("ZRANGE")
            } else {
                redis::cmd("HGETALL")
            };
            read.arg(&key);
            if *what == "marks" {
                read.arg(0).arg(-1);
            }
            let flat: Vec<String> = read.query(connection).unwrap();
            let mut rows: Vec<String> = if *what == "marks" {
                flat
            } else {
                flat.chunks(2)
                    .filter(|pair| pair[0] != "known")
                    .map(|pair| pair.join(" = "))
                    .collect()
            };
            rows.sort();
            state.insert(key, rows);
        }
    }
    state
}

/// A connection on which Redis tells every command it gets.
struct Monitor {
    lines: BufReader<TcpStream>,
}

impl Monitor {
    fn start(redis: &RedisServer) -> Self {
        let address = redis.url().replace("redis://", "");
        let mut stream = TcpStream::connect(address.trim_end_matches('/')).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut lines = BufReader::new(stream);
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        assert_eq!(first.trim(), "+OK");
        // Nobody reads while the history runs: Redis must not give the connection up meanwhile.
        redis.cli(&[
            "CONFIG",
            "SET",
            "client-output-buffer-limit",
            "normal 0 0 0",
        ]);
        Self { lines }
    }

    /// The calls of `deliver.lua` so far, ready to be sent again.
    fn deliveries(mut self, redis: &RedisServer) -> Vec<Vec<Vec<u8>>> {
        redis.cli(&["ECHO", "that was all"]);
        let text = scripts::text("deliver");
        let sha = redis.cli(&["SCRIPT", "LOAD", &text]);
        let mut calls = Vec::new();
        loop {
            let mut line = Vec::new();
            self.lines.read_until(b'\n', &mut line).unwrap();
            let parts = words(&line);
            if parts.iter().any(|part| part == b"that was all") {
                return calls;
            }
            let by_sha = parts
                .get(1)
                .is_some_and(|part| part == sha.trim().as_bytes());
            let by_text = parts.get(1).is_some_and(|part| part == text.as_bytes());
            if by_sha || by_text {
                calls.push(parts);
            }
        }
    }
}

/// The quoted words of a line of MONITOR, unescaped.
fn words(line: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match (&mut word, byte) {
            (None, b'"') => word = Some(Vec::new()),
            (None, _) => {}
            (Some(_), b'"') => words.extend(word.take()),
            (Some(word), b'\\') => word.push(match bytes.next().unwrap() {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'a' => 7,
                b'b' => 8,
                b'x' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            }),
            (Some(word), byte) => word.push(byte),
        }
    }
    words
}

#[test]
fn lines_of_monitor_come_apart() {
    let line = br#"1763.5 [0 127.0.0.1:6] "evalsha" "a\"b" "" "\xe7\x94\xa8\n\\""#;
    let expected: Vec<Vec<u8>> = vec![
        b"evalsha".to_vec(),
        b"a\"b".to_vec(),
        vec![],
        "用\n\\".as_bytes().to_vec(),
    ];
    assert_eq!(words(line), expected);
}
