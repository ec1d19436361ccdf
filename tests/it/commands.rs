//! What the commands beside the pods have in common: their exit codes, what they say of what is not there, numbers in words, and
//! lines that can be pasted.

/// The lines that `inspect` shows for pasting.
mod lines;

use std::net::TcpListener;

use serde_json::json;

use crate::support::{Config, Own, Ran, RedisServer, run, run_unread, unread};

/// A Redis of an app `app-0` that has one user in one room with one message.
async fn one_of_each() -> RedisServer {
    let (app, _pod, redis) = Own::start("").parts();
    app.must(&json!([
        {"type": "room.updated", "room": "r"},
        {"type": "member.joined", "room": "r", "user": "alice"},
        {"type": "message.sent", "room": "r", "id": "1"},
    ]))
    .await;
    redis
}

/// A file of events, and one of a configuration with the apps `app-0` and so on and that Redis.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(apps: usize, url: &str, events: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("events"), events).unwrap();
        std::fs::write(dir.path().join("config"), Config::apps(apps).toml(url)).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
}

/// Nothing on standard output, and one line on standard error that says this.
#[track_caller]
fn says(ran: &Ran, code: i32, what: &str) {
    assert_eq!(ran.code, code, "{ran:?}");
    ran.assert_failed_in_one_line(&[what]);
}

// ---------------------------------------------------------------------------------------------------------- exit codes

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_exit_1_with_a_message() {
    let redis = one_of_each().await;
    let url = redis.url();
    let before = redis.cli(&["DBSIZE"]);
    for (what, args) in [
        ("app \"other\"", &["--app", "other"][..]),
        (
            "user \"nobody\" in app \"app-0\"",
            &["--app", "app-0", "--user", "nobody"],
        ),
        (
            "user \"alice\" in app \"other\"",
            &["--app", "other", "--user", "alice"],
        ),
    ] {
        for command in [
            &["verify"][..],
            &["verify", "--json"],
            &["rebuild"],
            &["rebuild", "--json"],
            &["rebuild", "--mend"],
            &["rebuild", "--mend", "--dry-run"],
            &["inspect", "--memory"],
        ] {
            let ran = run_unread(&[command, args, &["--redis-url", &url]].concat());
            says(&ran, 1, &format!("nothing is kept of {what}"));
        }
    }
    let files = Files::new(0, &url, "room,user,unread\nr,alice,0\n");
    for command in [
        &["export", "--counts"][..],
        &["compare", &files.path("events")],
    ] {
        let of = ["--app", "other", "--redis-url", &url];
        let ran = run_unread(&[command, &of].concat());
        says(&ran, 1, "nothing is kept of app \"other\"");
    }
    for args in [&["--user", "nobody"], &["--room", "nowhere"]] {
        let ran = run_unread(
            &[
                &["inspect", "--app", "app-0", "--redis-url", &url][..],
                args,
            ]
            .concat(),
        );
        says(&ran, 1, "nothing is kept of ");
    }
    assert_eq!(redis.cli(&["DBSIZE"]), before);

    // Where apps are configured, whatever takes an app's name takes one of theirs. One that has nothing yet has no drift.
    let files = Files::new(2, &url, "");
    let config = ["--config", &files.path("config")];
    let events = files.path("events");
    for args in [
        &["import", "--app", "other", &events][..],
        &["token", "imkit", "--app", "other", "--user", "u"],
        &["token", "tencent", "--app", "other", "--identifier", "i"],
    ] {
        says(
            &run_unread(&[args, &config].concat()),
            1,
            "no app \"other\" is configured",
        );
    }
    let ran = run_unread(&[&["verify", "--app", "app-1"][..], &config].concat());
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "no drift: 0 users and 0 memberships looked at\n")
    );
    let ran = run_unread(&[&["export", "--counts", "--app", "app-1"][..], &config].concat());
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "room,user,kind,unread,mentions,time\n")
    );
}

/// A variable of an earlier session may lead elsewhere than one thinks. So each command names its Redis first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_command_names_its_redis_and_no_password() {
    let redis = one_of_each().await;
    redis.cli(&["CONFIG", "SET", "requirepass", "a-password"]);
    let at = format!("127.0.0.1:{}", redis.port);
    let url = format!("redis://:a-password@{at}/0");
    let events = Files::new(1, &url, "{\"type\": \"user.updated\", \"user\": \"a\"}\n");
    let counts = events.path("counts");
    std::fs::write(&counts, "room,user,unread\nr,alice,1\n").unwrap();
    for args in [
        &["verify"][..],
        &["rebuild"],
        &["migrate"],
        &["doctor"],
        &["import", "--app", "app-0", &events.path("events")],
        &["compare", "--app", "app-0", &counts],
        &["export", "--counts", "--app", "app-0"],
        &["inspect", "--app", "app-0", "--user", "alice"],
    ] {
        let ran = run_unread(&[args, &["--redis-url", &url]].concat());
        assert!(ran.code <= 1, "{ran:?}");
        assert_eq!(ran.redis.as_deref(), Some(at.as_str()), "{ran:?}");
        assert!(!format!("{ran:?}").contains("a-password"), "{ran:?}");
    }
    // The environment's too, and also where nobody answers.
    let away = "redis://me:a-password@127.0.0.1:1/3";
    let ran = run(unread().arg("verify").env("UNREAD_REDIS__URL", away));
    assert_eq!(
        (ran.code, ran.redis.as_deref()),
        (3, Some("127.0.0.1:1/3")),
        "{ran:?}"
    );
}

/// A member of a room that has no keys of its own is no stranger: something is amiss with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_keys_are_gone_is_there_and_drifts() {
    let redis = one_of_each().await;
    for what in redis.cli(&["KEYS", "unread:v1:{app-0:u:alice}:*"]).lines() {
        redis.cli(&["DEL", what]);
    }
    let url = redis.url();
    let of = ["--app", "app-0", "--user", "alice", "--redis-url", &url];
    let found = run_unread(&[&["verify"][..], &of].concat());
    assert_eq!(found.code, 1, "{found:?}");
    assert!(
        found
            .stdout
            .starts_with("drift: app app-0, user \"alice\"\n"),
        "{found:?}"
    );
    assert_eq!(run_unread(&[&["rebuild"][..], &of].concat()).code, 0);
    assert_eq!(run_unread(&[&["verify"][..], &of].concat()).code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_away_is_exit_3_in_every_command_that_asks_it() {
    // Nobody listens there: the port is ours, and refuses.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("redis://{}", taken.local_addr().unwrap());
    drop(taken);
    let silent = one_of_each().await;
    let stranger = silent
        .url()
        .replace("redis://", "redis://nobody:wrong-password@");
    silent.freeze();
    let frozen = silent.url();
    let check = |url: &str, why: &str| {
        let files = Files::new(1, url, "{\"type\": \"user.updated\", \"user\": \"a\"}\n");
        let (config, events) = (files.path("config"), files.path("events"));
        let counts = files.path("counts");
        std::fs::write(&counts, "room,user,unread\nr,alice,0\n").unwrap();
        let commands = [
            &["verify"][..],
            &["verify", "--app", "app-0", "--user", "alice"],
            &["rebuild", "--app", "app-0"],
            &["rebuild", "--mend"],
            &["migrate"],
            &["inspect", "--app", "app-0", "--user", "alice"],
            &["inspect", "--app", "app-0", "--room", "r"],
            &["inspect", "--app", "app-0", "--memory"],
            &[
                "import",
                "--app",
                "app-0",
                "--patience-seconds",
                "0",
                &events,
            ],
            &["export", "--counts", "--app", "app-0"],
            &["compare", "--app", "app-0", &counts],
            &["doctor"],
        ];
        let config = config.as_str();
        // All at once: some wait for as long as a Redis that is there may take.
        std::thread::scope(|all| {
            for args in commands {
                all.spawn(move || {
                    let ran = run_unread(&[args, &["--config", config]].concat());
                    assert_eq!(ran.code, 3, "{why}: {args:?}: {ran:?}");
                    let said = format!("{}{}", ran.stdout, ran.stderr).to_lowercase();
                    for inner in [
                        "pool",
                        "creating a new object",
                        "waiting for a slot",
                        "internal error",
                    ] {
                        assert!(!said.contains(inner), "{why}: {args:?}: {ran:?}");
                    }
                });
            }
        });
    };
    check(&nobody, "nobody listens");
    check(&frozen, "it does not answer");
    silent.thaw();
    check(&stranger, "it does not know us");

    // No address, and nobody runs in the data directory.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("unread.toml");
    std::fs::write(&file, format!("[redis]\ndata_dir = {:?}\n", dir.path())).unwrap();
    for command in ["verify", "rebuild", "doctor"] {
        let ran = run_unread(&[command, "--config", file.to_str().unwrap()]);
        let path = dir.path().display();
        let why = format!(
            "no private redis-server runs in {path}: give --redis-url URL, or --config FILE"
        );
        says(&ran, 3, &why);
    }
    // Beside a relative path one can't tell where it looked.
    let mut command = unread();
    let ran = run(command.arg("verify").current_dir(dir.path()));
    let data = std::fs::canonicalize(dir.path()).unwrap().join("data");
    says(
        &ran,
        3,
        &format!("runs in {}: give --redis-url", data.display()),
    );

    // What does not ask Redis does not mind.
    let files = Files::new(1, &nobody, "");
    let config = ["--config", &files.path("config")];
    assert_eq!(
        run_unread(&[&["check-config"][..], &config].concat()).code,
        0
    );
    let token = ["token", "imkit", "--app", "app-0", "--user", "u"];
    assert_eq!(run_unread(&[&token[..], &config].concat()).code, 0);
}

#[test]
fn wrong_use_is_exit_2_in_every_command() {
    let files = Files::new(1, "redis://127.0.0.1:1", "");
    std::fs::write(files.path("broken"), "[server]\nlisen = 1\n").unwrap();
    let (broken, events) = (files.path("broken"), files.path("events"));
    let counts = files.path("counts");
    std::fs::write(&counts, "room,user,unread\n").unwrap();
    for args in [
        &["serve"][..],
        &["verify"],
        &["rebuild"],
        &["inspect", "--app", "a", "--user", "u"],
        &["inspect", "--app", "a", "--memory"],
        &["import", "--app", "a", &events],
        &["export", "--app", "a", "--counts"],
        &["compare", "--app", "a", &counts],
        &["doctor"],
        &["check-config"],
        &["token", "imkit", "--app", "a", "--user", "u"],
        &["token", "tencent", "--app", "a", "--identifier", "u"],
    ] {
        says(
            &run_unread(&[args, &["--config", &broken]].concat()),
            2,
            "server.lisen",
        );
        let wrong = run_unread(&[args, &["--no-such-flag"]].concat());
        assert_eq!(wrong.code, 2, "{wrong:?}");
    }
    for command in ["import", "compare"] {
        let missing = [command, "--app", "a", "/nowhere/events"];
        says(&run_unread(&missing), 2, "/nowhere/events");
    }
    let ran = run_unread(&["export", "--app", "a"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("--counts"), "{ran:?}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = files.path("config");
    let serve = ["serve", "--config", &config, "--listen", &address];
    says(&run_unread(&serve), 2, &address);
    says(&run_unread(&["demo", "--listen", &address]), 2, &address);
}

#[test]
fn every_setting_is_told_with_its_range_and_meaning() {
    let told = run_unread(&["settings"]);
    assert_eq!(told.code, 0, "{told:?}");
    let lines: Vec<&str> = told.stdout.lines().collect();
    let settings: Vec<_> = lines.chunks(3).collect();
    assert!(settings.iter().all(|setting| {
        let [path, form, help] = setting else {
            return false;
        };
        !path.starts_with(' ') && form.starts_with("    ") && help.starts_with("    ")
    }));
    let one = |path: &str| settings.iter().find(|setting| setting[0] == path).unwrap()[1].trim();
    assert_eq!(one("server.max_events"), "1 to 100000, default 10000");
    // Settings in a line of others, and those of a dialect.
    assert!(one("apps.rate_limit.per_second").contains("default 200"));
    assert!(one("apps.sendbird.master_token").contains("master_token_file"));
}

#[test]
fn the_help_of_every_command_tells_the_exit_codes() {
    let document = include_str!("../../docs/operate.md");
    for command in [
        &[][..],
        &["serve"],
        &["demo"],
        &["verify"],
        &["rebuild"],
        &["inspect"],
        &["import"],
        &["export"],
        &["compare"],
        &["doctor"],
        &["check-config"],
        &["settings"],
        &["token"],
    ] {
        let help = run_unread(&[command, &["--help"]].concat());
        assert_eq!(help.code, 0, "{help:?}");
        let (_, codes) = help
            .stdout
            .split_once("\nExit codes:\n")
            .expect("the codes");
        for (code, line) in (0..=3).zip(codes.lines()) {
            let (number, what) = line.trim().split_once("  ").unwrap();
            assert_eq!(number, code.to_string(), "{help:?}");
            // The document says the same in its table.
            assert!(
                document.contains(&format!("| {number} | {what} |")),
                "{line}"
            );
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- words

#[test]
fn inspect_asks_for_one_of_user_and_room() {
    for args in [&[][..], &["--user", "u", "--room", "r"], &["--json"]] {
        let ran = run_unread(&[&["inspect", "--app", "a"][..], args].concat());
        says(&ran, 2, "one of --user and --room");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_thing_is_told_in_the_singular() {
    let redis = one_of_each().await;
    let url = redis.url();
    let run = |args: &[&str]| run_unread(&[args, &["--redis-url", &url]].concat());
    let first = |ran: &Ran| ran.stdout.lines().last().unwrap_or_default().to_owned();
    assert_eq!(
        run(&["verify"]).stdout,
        "no drift: 1 user and 1 membership looked at\n"
    );
    let counts = "unread:v1:{app-0:u:alice}:counts";
    redis.cli(&["HINCRBY", counts, "messages:group", "1"]);
    let found = run(&["verify"]);
    assert_eq!(
        first(&found),
        "1 field of 1 user drifts: 1 user and 1 membership looked at"
    );
    redis.cli(&["HINCRBY", counts, "room:r", "1"]);
    let found = run(&["verify"]);
    assert_eq!(
        first(&found),
        "2 fields of 1 user drift: 1 user and 1 membership looked at"
    );
    let mended = run(&["rebuild"]);
    assert_eq!(
        first(&mended),
        "1 user rebuilt: 1 user and 1 membership looked at"
    );
    let weighed = run(&["inspect", "--app", "app-0", "--memory"]);
    assert!(
        weighed
            .stdout
            .contains("\nsample: 1 user in 1 room (pairs of user and room); 1 room of 1 member\n"),
        "{weighed:?}"
    );
    redis.cli(&["DEL", "unread:v1:{app-0:u:alice}:refs"]);
    redis.cli(&["SET", "unread:v1:{app-0:u:alice}:refs", "poison"]);
    let tried = run(&["rebuild", "--mend", "--dry-run"]);
    assert_eq!(
        first(&tried),
        "1 key or field would be mended or removed; nothing was written"
    );
    run(&["rebuild", "--mend"]);

    let imported = |events: &str| {
        let files = Files::new(1, &url, events);
        run(&["import", "--app", "app-0", &files.path("events")])
    };
    let one = "{\"type\": \"message.sent\", \"room\": \"r\", \"id\": \"2\"}\n";
    let said = imported(one).stdout;
    assert!(
        said.starts_with("1 event: 1 applied, 0 duplicates, 0 rejected; 1 delivery; "),
        "{said}"
    );
    let said = imported(&format!("{one}{one}")).stdout;
    assert!(
        said.starts_with("2 events: 0 applied, 2 duplicates, 0 rejected; 0 deliveries; "),
        "{said}"
    );
    let said = imported(one).stdout;
    assert!(
        said.starts_with("1 event: 0 applied, 1 duplicate, 0 rejected; "),
        "{said}"
    );
    let said = imported(&"nonsense\n".repeat(21)).stdout;
    assert!(
        said.contains("\n1 more line was rejected\n21 events: "),
        "{said}"
    );
}

/// Without a configuration nothing else would tell of a misspelt name.
#[tokio::test]
async fn an_app_that_begins_with_an_import_is_said_to() {
    let redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.ndjson");
    let event = json!({"type": "user.updated", "user": "u"});
    std::fs::write(&file, event.to_string()).unwrap();
    for new_app in [Some("new"), None] {
        let mut command = unread();
        command.args(["import", "--app", "new", "--redis-url", &redis.url()]);
        let ran = run(command.arg(&file));
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(ran.new_app.as_deref(), new_app, "{ran:?}");
    }
}
