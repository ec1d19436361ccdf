//! Counts files that are imported.

use super::*;

impl Commands {
    fn import(&self, name: &str, csv: &str, more: &[&str]) -> Ran {
        let path = self.file(name, csv);
        self.run(&[&["import", "--counts", path.to_str().unwrap()], more].concat())
    }
}

/// An export goes into an app that has nothing. It then says the same of it, and events count on top; the same file once more
/// changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_of_an_export_comes_to_the_same_counts() {
    let (from, into) = (crate::support::app(), crate::support::app());
    let url = from.redis_url();
    let (old, new) = (
        Commands::new(&url, &from.keys.id),
        Commands::new(&url, &into.keys.id),
    );
    let mut history = History::new(from.clone(), 421);
    if let Err(reason) = history.run(400, false).await {
        panic!("all events in {}: {reason}", history.save("import"));
    }
    let csv = old.export();
    let counts = exported(&csv);
    assert!(
        counts.values().any(|(_, unread, _)| *unread > 3),
        "{counts:?}"
    );
    assert!(
        counts.values().any(|(_, _, mentions)| *mentions > 0),
        "{counts:?}"
    );

    let ran = new.import("old.csv", &csv, &["--join"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let sums = format!(
        "{} events: {0} applied, 0 duplicates, 0 rejected; ",
        counts.len()
    );
    assert!(ran.stdout.starts_with(&sums), "{ran:?}");
    assert_eq!(exported(&new.export()), counts);
    let none_differs = format!("{} rows compared: none differs\n", counts.len());
    assert_eq!(new.compare(&csv, &[]).stdout, none_differs);
    assert_no_drift(&url, &into.keys.id);
    for user in history.model.users.keys() {
        let totals = |answer: Value| (answer["messages"].clone(), answer["mentions"].clone());
        let sums = counts.iter().filter(|((_, of), _)| of == user);
        let sum: u64 = sums.map(|(_, (_, unread, _))| unread).sum();
        if counts.keys().any(|(_, of)| of == user) {
            let (messages, _) = totals(into.unread(user, false).await.ok());
            assert_eq!(messages["total"], sum, "{user}");
        }
    }

    // A message counts on top, and stays when the file comes again.
    let room = rooms_with_two(&history.model).into_values().next().unwrap();
    into.must(&json!({"type": "message.sent", "room": room, "id": "after"}))
        .await;
    let more: Counts = counts
        .iter()
        .map(|(row, (kind, unread, mentions))| {
            let unread = unread + u64::from(row.0 == room);
            (row.clone(), (kind.clone(), unread, *mentions))
        })
        .collect();
    assert_eq!(exported(&new.export()), more);
    let ran = new.import("old.csv", &csv, &["--join"]);
    let sums = format!(
        "{} events: 0 applied, {0} duplicates, 0 rejected; ",
        counts.len()
    );
    assert!(ran.code == 0 && ran.stdout.starts_with(&sums), "{ran:?}");
    assert_eq!(exported(&new.export()), more);
}

/// A moment after all that has been sent.
fn now() -> String {
    (jiff::Timestamp::now().as_millisecond() + 1).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_those_who_are_not_there_are_rejected_unless_they_are_to_join() {
    let own = Own::start("");
    scene(&own.app).await;
    let commands = Commands::new(&own.redis.url(), "app-0");
    let csv = "room,user,kind,unread,mentions\n\
               orders,alice,group,7,2\n\
               orders,dave,group,1,\n\
               orders,erin,group,2,1\n\
               new,erin,supergroup,3,0\n\
               pair,alice,direct,1,\n\
               pair,bob,direct,2,\n\
               pair,carol,direct,3,\n\
               orders,bob,direct,4,\n\
               orders,carol,group,10001,10001\n";
    let now = now();
    let as_of = ["--as-of", &now];
    let ran = commands.import("some.csv", csv, &as_of);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""));
    let (rows, sums) = ran.stdout.trim_end().rsplit_once('\n').unwrap();
    assert!(
        sums.starts_with("9 events: 2 applied, 0 duplicates, 7 rejected; "),
        "{sums}"
    );
    assert_eq!(
        rows,
        "line 3: not_a_member: the user has not joined the room\n\
         line 4: not_a_member: the user has not joined the room\n\
         line 5: room_not_found: no room \"new\"\n\
         line 6: room_not_found: no room \"pair\"\n\
         line 7: room_not_found: no room \"pair\"\n\
         line 8: room_not_found: no room \"pair\"\n\
         line 10: invalid: mentions: can't be more than 10,000 of the unread messages"
    );
    let ran = commands.import(
        "some.csv",
        csv,
        &[&as_of[..], &["--join", "--json"]].concat(),
    );
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""));
    let sums = ran.json();
    let number = |field: &str| sums[field].as_u64().unwrap();
    assert_eq!(
        [
            number("events"),
            number("applied"),
            number("duplicates"),
            number("rejected")
        ],
        [9, 5, 2, 2]
    );
    let errors: Vec<(u64, &str)> = sums["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            (
                row["line"].as_u64().unwrap(),
                row["error"]["code"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(errors, [(8, "not_a_member"), (10, "invalid")]);
    assert_eq!(
        sums["notes"],
        json!([{"line": 8, "notes": ["this user was not let into the room: direct_room_full: a direct room takes at most two members"]}])
    );
    let ran = commands.compare(csv, &["--only-listed"]);
    assert_eq!(
        ran.stdout,
        "line 8: room \"pair\", user \"carol\": file 3, here not there\n\
         line 10: room \"orders\", user \"carol\": file 10001 (10001 mentions), here 2 (0 mentions)\n\
         9 rows compared: 2 differ\n"
    );
    // The kind of a room that is there stays, and its rows go in.
    let wrong = "room,user,kind,unread\norders,alice,direct,5\n";
    let now = self::now();
    let as_of = ["--as-of", &now];
    let ran = commands.import("wrong.csv", wrong, &[&as_of[..], &["--join"]].concat());
    let note = "line 2: note: from this row on: kind_change: a room's kind changes only from group to supergroup\n1 event: 1 applied, ";
    assert!(ran.code == 0 && ran.stdout.starts_with(note), "{ran:?}");
    assert_no_drift(&own.redis.url(), "app-0");
}

/// The row of the user who found the direct room full is named, wherever it stands and whatever the user is called.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_row_that_finds_a_direct_room_full_is_the_one_that_is_named() {
    let own = Own::start("");
    let commands = Commands::new(&own.redis.url(), "app-0");
    let csv = "room,user,kind,unread\npair,zoe,direct,1\npair,bob,direct,2\npair,alice,direct,3\n";
    let ran = commands.import("pair.csv", csv, &["--join", "--as-of", &now()]);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""), "{ran:?}");
    let (rows, sums) = ran.stdout.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(
        sorted(rows),
        [
            "line 4: not_a_member: the user has not joined the room",
            "line 4: note: this user was not let into the room: direct_room_full: a direct room takes at most two members",
        ]
    );
    assert!(sums.starts_with("3 events: 2 applied, "), "{sums}");
}

/// An import takes more mentions than unread messages as many as these, and says so; a comparison does the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_and_a_comparison_agree_on_more_mentions_than_unread_messages() {
    let own = Own::start("");
    let commands = Commands::new(&own.redis.url(), "app-0");
    let csv = "room,user,unread,mentions\nr,alice,3,5\nr,bob,2,2\n";
    let ran = commands.import("more.csv", csv, &["--join", "--as-of", &now()]);
    let note = "line 2: note: mentions: 5 are more than the unread messages: taken as 3\n2 events: 2 applied, ";
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.starts_with(note), "{ran:?}");
    let ran = commands.compare(csv, &[]);
    assert_eq!(ran.stdout, "2 rows compared: none differs\n", "{ran:?}");
}

/// Where there is nothing to take, the command says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_of_nothing_says_that_there_was_nothing() {
    let own = Own::start("");
    let commands = Commands::new(&own.redis.url(), "app-0");
    let header = "room,user,unread,time\n";
    let row = format!("{header}r,alice,1,{}\n", now());
    for (text, more, says) in [
        (
            header,
            &["--counts"][..],
            "nothing to import: line 1 is the last one, and no line holds a row\n",
        ),
        (
            &row,
            &["--counts", "--from-line", "9"],
            "nothing to import: line 2 is the last one, and --from-line is 9\n",
        ),
        (
            "{}\n{}\n",
            &["--from-line", "9"],
            "nothing to import: line 2 is the last one, and --from-line is 9\n",
        ),
        (
            "\n \n",
            &[],
            "nothing to import: line 2 is the last one, and no line holds an event\n",
        ),
        ("", &[], "nothing to import: the file is empty\n"),
    ] {
        let path = commands.file("nothing", text);
        let ran = commands.run(&[&["import", path.to_str().unwrap()], more].concat());
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
        assert!(
            ran.stdout.starts_with(&format!("{says}0 events: ")),
            "{text:?} {ran:?}"
        );
        let ran = commands.run(&[&["import", path.to_str().unwrap(), "--json"], more].concat());
        assert_eq!(ran.json()["events"], 0, "{ran:?}");
    }
}

/// A counts file that is given without `--counts` is known by its first line, before anything is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counts_file_without_its_flag_is_told_of_it() {
    let own = Own::start("");
    let commands = Commands::new(&own.redis.url(), "app-0");
    for header in ["room,user,unread\n", "\u{feff}user,room,unread,time\r\n"] {
        let path = commands.file("counts.csv", format!("{header}r,alice,1\n"));
        let ran = commands.run(&["import", path.to_str().unwrap()]);
        assert_eq!(ran.code, 2, "{ran:?}");
        ran.assert_failed_in_one_line(&[
            "counts.csv: line 1 names the columns of a counts file: give --counts",
        ]);
    }
}

/// A bad line, or one of which nobody says when it was so: nothing is imported.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_file_with_a_bad_line_is_imported() {
    let own = Own::start("");
    scene(&own.app).await;
    let commands = Commands::new(&own.redis.url(), "app-0");
    let before = commands.export();
    let now = now();
    let as_of = ["--as-of", &now];
    let good = &format!("room,user,unread,time\norders,alice,7,{now}\n");
    for (last, more, says) in [
        (
            "orders,bob,x,\n",
            &[][..],
            "line 3: unread: must be a whole number",
        ),
        (
            "orders,bob,2000000000,\n",
            &as_of,
            "line 3: unread: must be a whole number from 0 to 1,000,000,000",
        ),
        (
            "orders,bob,1,\n",
            &[],
            "line 3: time: is missing: neither the row nor --as-of says when it was so",
        ),
        (
            "orders,bob,1,yesterday\n",
            &as_of,
            "line 3: time: must be milliseconds",
        ),
        (
            "orders,\"bob,1,\n",
            &as_of,
            "line 3: a quoted field is not closed",
        ),
    ] {
        let ran = commands.import("bad.csv", &format!("{good}{last}"), more);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
        let (first, last) = ran.stderr.trim_end().split_once('\n').unwrap();
        assert!(first.contains(says), "{ran:?}");
        assert!(
            last.starts_with("unread: nothing was imported: 1 line of "),
            "{ran:?}"
        );
        assert_eq!(
            sorted(&without_times(&commands.export())),
            sorted(&without_times(&before))
        );
    }
    for flags in [&["--as-of", "noon"][..], &["--as-of", "1767603600"]] {
        let ran = commands.import("good.csv", good, flags);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
        assert!(ran.stderr.contains("--as-of"), "{ran:?}");
    }
    let path = commands.file("good.csv", good);
    for flag in [&as_of[..], &["--join"]] {
        let ran = commands.run(&[&["import", path.to_str().unwrap()], flag].concat());
        assert!(ran.code == 2 && ran.stderr.contains("--counts"), "{ran:?}");
    }

    // From standard input, from a line on, and once more under its name.
    let csv = format!("{good}orders,bob,3,{now}\n\norders,carol,4,{now}\n");
    for sums in [
        "2 events: 2 applied, 0 duplicates, 0 rejected; ",
        "2 events: 0 applied, 2 duplicates, 0 rejected; ",
    ] {
        let path = commands.file("in.csv", &csv);
        let mut command = unread();
        let of = [
            "--app",
            "app-0",
            "--redis-url",
            &own.redis.url(),
            "--name",
            "first",
            "--from-line",
            "3",
        ];
        command
            .args(["import", "--counts", "-"])
            .args(of)
            .stdin(Stdio::from(std::fs::File::open(path).unwrap()));
        let ran = run(&mut command);
        assert!(ran.code == 0 && ran.stdout.starts_with(sums), "{ran:?}");
    }
    let counts = exported(&commands.export());
    let unread =
        ["alice", "bob", "carol"].map(|user| counts[&("orders".to_owned(), user.to_owned())].1);
    assert_eq!(unread, [2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_is_there_keeps_its_kind_whatever_a_row_says() {
    let own = Own::start("");
    scene(&own.app).await;
    let commands = Commands::new(&own.redis.url(), "app-0");
    let csv = "room,user,kind,unread\norders,alice,supergroup,2\nfresh,alice,supergroup,1\n";
    let ran = commands.import("kinds.csv", csv, &["--as-of", &now(), "--join"]);
    assert!(
        ran.stdout.contains("line 2: note: ") && ran.stdout.contains("2 applied"),
        "{ran:?}"
    );
    let rows = own.app.unread("alice", true).await.ok();
    for (room, kind) in [("orders", "group"), ("fresh", "supergroup")] {
        let mut all = rows["rooms"].as_array().unwrap().iter();
        let row = all.find(|row| row["room"] == room).unwrap();
        assert_eq!(row["kind"], kind, "{rows}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_of_the_future_is_refused_and_a_late_one_is_spoken_of() {
    let own = Own::start("");
    scene(&own.app).await;
    let commands = Commands::new(&own.redis.url(), "app-0");
    let csv = "room,user,unread\norders,alice,2\n";
    let ran = commands.import("n.csv", csv, &["--as-of", "2090-01-01T00:00:00Z"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert!(
        ran.stderr.contains("line 2: time: is in the future"),
        "{ran:?}"
    );
    let as_of = now();
    assert_eq!(commands.import("n.csv", csv, &["--as-of", &as_of]).code, 0);
    let corrected = csv.replace(",2\n", ",1\n");
    let ran = commands.import("n.csv", &corrected, &["--as-of", &as_of]);
    assert!(
        ran.stdout.contains("1 duplicate,") && ran.stderr.contains("duplicates changed nothing: "),
        "{ran:?}"
    );
}
