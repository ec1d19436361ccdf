//! `unread export --counts`, `unread compare` and `unread import --counts`: what every user has unread in every room, as CSV.

/// Counts files that are imported.
mod import;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::history::History;
use crate::support::model::Model;
use crate::support::servers::Cluster;
use crate::support::{App, Config, Own, Pod, Ran, assert_no_drift, run, run_unread, unread};

/// Kind, unread messages and mentions, by room and user.
type Counts = BTreeMap<(String, String), (String, u64, u64)>;

/// The records of a CSV, by RFC 4180 and nothing else.
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            c => field.push(c),
        }
    }
    assert!(!quoted && record.is_empty() && field.is_empty(), "{text}");
    records
}

/// What an export says. Every row has a time between the two.
fn exported(csv: &str) -> Counts {
    let mut records = records(csv).into_iter();
    let names = ["room", "user", "kind", "unread", "mentions", "time"];
    assert_eq!(records.next().unwrap(), names);
    let mut counts = Counts::new();
    let now = jiff::Timestamp::now().as_millisecond();
    for record in records {
        let [room, user, kind, unread, mentions, time] = record.try_into().unwrap();
        let time: i64 = time.parse().unwrap();
        assert!((now - 600_000..=now).contains(&time), "{time}");
        let numbers = (kind, unread.parse().unwrap(), mentions.parse().unwrap());
        let before = counts.insert((room, user), numbers);
        assert_eq!(before, None, "a row comes twice");
    }
    counts
}

/// What the definition says.
fn defined(model: &Model) -> Counts {
    let rows = model.users.keys().flat_map(|user| {
        model.rooms_of(user).map(move |(id, room)| {
            let counts = (
                room.kind.name().to_owned(),
                room.unread(user),
                room.mentions(user),
            );
            ((id.to_owned(), user.clone()), counts)
        })
    });
    rows.collect()
}

/// The commands, on one Redis and one app.
struct Commands {
    url: String,
    app: String,
    dir: tempfile::TempDir,
}

impl Commands {
    fn new(url: &str, app: &str) -> Self {
        Self {
            url: url.to_owned(),
            app: app.to_owned(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn run(&self, args: &[&str]) -> Ran {
        let of = ["--redis-url", &self.url, "--app", &self.app];
        run_unread(&[args, &of].concat())
    }

    /// The CSV of an export that has nothing to complain of.
    fn export(&self) -> String {
        let ran = self.run(&["export", "--counts"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        ran.stdout
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn compare(&self, csv: &str, more: &[&str]) -> Ran {
        let path = self.file("compare.csv", csv);
        self.run(&[&["compare", path.to_str().unwrap()], more].concat())
    }
}

/// After a random history an export says what the model says, and a comparison with it finds nothing; after one more message it
/// finds the rows that this message changes, and no others. Answers the kinds of the rooms that got such a message.
async fn an_export_agrees_with_the_model(app: App, url: &str, seed: u64) -> Vec<&'static str> {
    let commands = Commands::new(url, &app.keys.id);
    let mut history = History::new(app.clone(), seed);
    if let Err(reason) = history.run(250, false).await {
        panic!(
            "seed {seed}, all events in {}: {reason}",
            history.save("export")
        );
    }
    let csv = commands.export();
    let before = defined(&history.model);
    assert_eq!(exported(&csv), before);
    assert!(before.len() > 5, "{} rows", before.len());
    let ran = commands.compare(&csv, &[]);
    let expected = format!("{} rows compared: none differs\n", before.len());
    assert_eq!(
        (ran.code, ran.stdout, ran.stderr),
        (0, expected, String::new())
    );

    let rooms = rooms_with_two(&history.model);
    for room in rooms.values() {
        let csv = commands.export();
        let before = defined(&history.model);
        let event =
            json!({"type": "message.sent", "room": room, "id": "one more", "mentions": "all"});
        history.model.apply(&event);
        app.must(&event).await;
        let now = defined(&history.model);
        let changed: Counts = now
            .into_iter()
            .filter(|(row, counts)| before[row] != *counts)
            .collect();
        assert!(changed.len() >= 2, "{changed:?}");
        let ran = commands.compare(&csv, &["--json"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        let found = ran.json();
        assert_eq!(found["differing_rows"], changed.len());
        assert_eq!(
            (&found["rows"], &found["left_out"]),
            (&json!(before.len()), &json!(0))
        );
        let lines: Vec<Vec<String>> = records(&csv);
        let mut named = Counts::new();
        for row in found["differences"].as_array().unwrap() {
            let text = |field: &str| row[field].as_str().unwrap().to_owned();
            let name = (text("room"), text("user"));
            let line = row["line"].as_u64().unwrap() as usize;
            assert_eq!(
                [&lines[line - 1][0], &lines[line - 1][1]],
                [&name.0, &name.1]
            );
            let (kind, unread, mentions) = &before[&name];
            assert_eq!(row["file"], json!({"unread": unread, "mentions": mentions}));
            let here = |field: &str| row["here"][field].as_u64().unwrap();
            named.insert(name, (kind.clone(), here("unread"), here("mentions")));
        }
        assert_eq!(named, changed);
    }
    rooms.into_keys().collect()
}

/// A room of each kind that two users or more have joined, as far as there is one.
fn rooms_with_two(model: &Model) -> BTreeMap<&'static str, String> {
    let mut rooms = BTreeMap::new();
    for (id, room) in &model.rooms {
        if room.active && room.joined().count() >= 2 {
            rooms.insert(room.kind.name(), id.clone());
        }
    }
    rooms
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_what_the_model_says_and_a_comparison_finds_each_difference() {
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 411..415 {
        let app = crate::support::app();
        let url = app.redis_url();
        tasks.spawn(async move { an_export_agrees_with_the_model(app, &url, seed).await });
    }
    let kinds: BTreeSet<&str> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(kinds.len(), 3, "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_read_all_nodes_of_a_cluster() {
    let cluster = Cluster::start(15_000);
    let config = Config::apps(1);
    let pod = Pod::start_at(&config, &cluster.url());
    let app = App::new(&config.apps[0], &pod.base);
    an_export_agrees_with_the_model(app, &cluster.operators_url(), 412).await;
}

/// Two users in a group, one of them in a supergroup and in an inactive room too.
async fn scene(app: &App) {
    app.must(&json!([
        {"type": "room.updated", "room": "orders"},
        {"type": "member.joined", "room": "orders", "users": ["alice", "bob", "carol"]},
        {"type": "room.updated", "room": "all, of us", "kind": "supergroup"},
        {"type": "member.joined", "room": "all, of us", "users": ["alice", "bob"]},
        {"type": "room.updated", "room": "closed"},
        {"type": "member.joined", "room": "closed", "users": ["alice", "bob"]},
        {"type": "member.invited", "room": "orders", "users": ["dave"]},
        {"type": "message.sent", "room": "orders", "id": "1", "sender": "bob"},
        {"type": "message.sent", "room": "orders", "id": "2", "sender": "bob", "mentions": ["alice"]},
        {"type": "message.sent", "room": "all, of us", "id": "1", "sender": "bob"},
        {"type": "message.sent", "room": "closed", "id": "1", "sender": "bob"},
        {"type": "room.updated", "room": "closed", "status": 0},
    ]))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_difference_has_its_words() {
    let own = Own::start("");
    scene(&own.app).await;
    let commands = Commands::new(&own.redis.url(), "app-0");
    let without_times = without_times(&commands.export());
    assert_eq!(
        sorted(&without_times),
        [
            "all, of us|alice|supergroup|1|0",
            "all, of us|bob|supergroup|0|0",
            "orders|alice|group|2|1",
            "orders|bob|group|0|0",
            "orders|carol|group|2|0",
            "room|user|kind|unread|mentions",
        ]
    );
    let csv = "unread,mentions,user,room\n\
               2,1,alice,orders\n\
               2,0,alice,orders\n\
               2,,alice,orders\n\
               \n\
               3,1,alice,orders\n\
               3,,alice,orders\n\
               0,,dave,orders\n\
               0,,alice,closed\n\
               0,,nobody,orders\n\
               0,,\"bo\"\"b\",nowhere\n\
               0,,bob,\"all, of us\"\n";
    let rows = "line 3: room \"orders\", user \"alice\": file 2 (0 mentions), here 2 (1 mention)\n\
                line 6: room \"orders\", user \"alice\": file 3 (1 mention), here 2 (1 mention)\n\
                line 7: room \"orders\", user \"alice\": file 3, here 2\n\
                line 8: room \"orders\", user \"dave\": file 0, here not there\n\
                line 9: room \"closed\", user \"alice\": file 0, here not there\n\
                line 10: room \"orders\", user \"nobody\": file 0, here not there\n\
                line 11: room \"nowhere\", user \"bo\\\"b\": file 0, here not there\n";
    let ran = commands.compare(csv, &["--only-listed"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""));
    assert_eq!(ran.stdout, format!("{rows}10 rows compared: 7 differ\n"));

    // What the file leaves out has 0 there.
    let ran = commands.compare(csv, &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""));
    let (first, more) = ran.stdout.split_at(rows.len());
    assert_eq!(first, rows);
    assert_eq!(
        sorted(more),
        [
            "10 rows compared: 7 differ, and 2 rooms with unread messages are not in the file",
            "room \"all, of us\", user \"alice\": not in the file, here 1",
            "room \"orders\", user \"carol\": not in the file, here 2",
        ]
    );
    let ran = commands.compare(
        "room,user,unread\norders,alice,2\norders,carol,2\n",
        &["--json"],
    );
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.json(),
        json!({
            "rows": 2, "differing_rows": 0, "left_out": 1,
            "differences": [{
                "line": null, "room": "all, of us", "user": "alice", "file": null,
                "here": {"unread": 1, "mentions": 0}, "unreadable": null,
            }],
        })
    );

    // From standard input, which is read twice all the same.
    let all = commands.file("all.csv", commands.export());
    let mut command = unread();
    command
        .args([
            "compare",
            "-",
            "--app",
            "app-0",
            "--redis-url",
            &own.redis.url(),
        ])
        .stdin(Stdio::from(std::fs::File::open(all).unwrap()));
    let ran = run(&mut command);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "5 rows compared: none differs\n"),
        "{ran:?}"
    );
}

/// Whoever reads the export stops early, as `head` does: no word of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_whose_reader_is_gone_ends_without_a_word() {
    let own = Own::start("");
    scene(&own.app).await;
    let mut command = unread();
    let url = own.redis.url();
    command
        .args(["export", "--counts", "--app", "app-0", "--redis-url", &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (2, ""), "{ran:?}");
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_a_bad_line_is_refused_as_a_whole() {
    let own = Own::start("");
    scene(&own.app).await;
    let commands = Commands::new(&own.redis.url(), "app-0");
    let path = commands.file("bad.csv", b"\xef\xbb\xbfroom,user,unread\r\norders,alice,2\r\norders,bob,-1\r\n\r\norders,\"carol,2\r\norders,al\xffice,2\r\n,bob,0\r\norders,bob\r\n");
    let path = path.to_str().unwrap();
    let ran = commands.run(&["compare", path]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    let expected = [
        "line 3: unread: must be a whole number from 0 to 1,000,000,000",
        "line 5: a quoted field is not closed",
        "line 6: user: must be UTF-8",
        "line 7: room: must not be empty",
        "line 8: has 2 fields where the first line names 3 columns",
    ];
    let expected: String = expected
        .iter()
        .map(|line| format!("unread: {path}: {line}\n"))
        .collect();
    let end = format!("unread: nothing was compared: 5 lines of {path} are wrong\n");
    assert_eq!(ran.stderr, expected + &end);

    for (text, says) in [
        (
            "",
            "line 1: no column room: the first line has to name the columns",
        ),
        (
            "orders,alice,2\n",
            "line 1: \"orders\" is no column: the first line has to name the columns",
        ),
        ("room,user,unread,read\n", "line 1: \"read\" is no column"),
        ("room,user\norders,alice\n", "line 1: no column unread"),
    ] {
        let ran = commands.compare(text, &[]);
        assert_eq!(ran.code, 2);
        ran.assert_failed_in_one_line(&[says, "compare.csv"]);
    }
    let ran = commands.run(&["compare", "no such file"]);
    ran.assert_failed_in_one_line(&["no such file: No such file"]);
    // Nothing but the first twenty is shown.
    let ran = commands.compare(&format!("room,user,unread\n{}", "x\n".repeat(1_000)), &[]);
    assert_eq!(
        (ran.code, ran.stderr.lines().count()),
        (2, 21),
        "{}",
        ran.stderr
    );
}

/// What can't be read is said, and hides nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_cant_be_read_is_named_and_no_other_is_left_out() {
    let own = Own::start("");
    scene(&own.app).await;
    let commands = Commands::new(&own.redis.url(), "app-0");
    let csv = commands.export();
    own.redis.cli(&[
        "HSET",
        "unread:v1:{app-0:u:alice}:rooms",
        "orders",
        "poison",
    ]);
    let ran = commands.run(&["export", "--counts"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.starts_with("unread: left out: user \"alice\": "),
        "{ran:?}"
    );
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    let users: Vec<String> = records(&ran.stdout)
        .into_iter()
        .map(|row| row[1].clone())
        .collect();
    assert_eq!(sorted(&users.join("\n")), ["bob", "bob", "carol", "user"]);

    let ran = commands.compare(&csv, &["--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let found = ran.json();
    assert_eq!(
        (&found["differing_rows"], &found["left_out"]),
        (&json!(2), &json!(1))
    );
    for row in found["differences"].as_array().unwrap() {
        assert_eq!(
            (&row["user"], &row["here"]),
            (&json!("alice"), &Value::Null)
        );
        assert_ne!(row["unreadable"], Value::Null);
    }
}

/// Without what is different in each export.
fn without_times(csv: &str) -> String {
    records(csv)
        .iter()
        .map(|row| row[..5].join("|") + "\n")
        .collect()
}
