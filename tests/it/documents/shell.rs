//! Runs the steps of a document in a shell of their own, against a demo of their own.

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use super::markdown::{Answer, Document, Step, console};
use crate::cli::Demo;
use crate::support::unread;

/// The addresses that the documents name, which are those of `make run`.
const LISTEN: &str = "127.0.0.1:8080";
const ADMIN_LISTEN: &str = "127.0.0.1:9090";

/// Stands in front of the exit code of a step, after what it printed.
const MARK: char = '\u{1e}';

/// What `bash -n` says of each block in shell.
pub(super) fn parse(document: &Document) -> Vec<(usize, String)> {
    let mut faults = Vec::new();
    for block in document.blocks.iter().filter(|block| block.is_shell()) {
        let text = match block.language.as_str() {
            "console" => {
                let commands = console(block).into_iter();
                commands.map(|step| step.command).collect()
            }
            _ => block.text.clone(),
        };
        let mut child = Command::new("bash")
            .arg("-n")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        let out = child.wait_with_output().unwrap();
        if !out.status.success() || text.trim().is_empty() {
            let said = String::from_utf8_lossy(&out.stderr);
            faults.push((block.line, format!("it is no shell: {said}")));
        }
    }
    faults
}

/// Runs them, and answers what differs.
pub(super) fn run(steps: &[Step]) -> Vec<(usize, String)> {
    let demo = Demo::start();
    let (listen, admin) = (demo.address("and /v1"), demo.address("/metrics"));
    let redis = demo.redis_url();
    let here =
        |text: &str| -> String { text.replace(LISTEN, &listen).replace(ADMIN_LISTEN, &admin) };
    let dir = tempfile::tempdir().unwrap();
    let path = furnish(dir.path(), redis);

    let mut script = "exec 2>&1\n".to_owned();
    for step in steps {
        script.push_str(&here(&step.command));
        script.push_str(&format!("echo \"{MARK}$?\"\n"));
    }
    let file = dir.path().join("script");
    std::fs::write(&file, script).unwrap();
    let mut command = Command::new("bash");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("UNREAD_") {
            command.env_remove(name);
        }
    }
    let out = command
        .arg(&file)
        .current_dir(dir.path().join("here"))
        .env("PATH", path)
        .env("UNREAD_REDIS__URL", redis)
        .env_remove("CDPATH")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&out.stdout);

    let mut faults = Vec::new();
    // Each piece but the first begins with what became of the step before it.
    let mut pieces = out.split(MARK);
    let mut printed = pieces.next().unwrap_or_default();
    for step in steps {
        let Some((status, after)) = pieces.next().and_then(|piece| piece.split_once('\n')) else {
            faults.push((step.line, format!("the shell ended here:\n{printed}")));
            break;
        };
        let why = match &step.answer {
            Answer::Success => (status != "0").then(|| format!("exit code {status}")),
            Answer::Json(answer) => (!same_json(&here(answer), printed)).then(|| differs(answer)),
            Answer::Text(answer) => (!same_text(&here(answer), printed)).then(|| differs(answer)),
        };
        if let Some(why) = why {
            let command = step.command.trim_end();
            faults.push((step.line, format!("{command}\n{why}\nprinted\n{printed}")));
        }
        printed = after;
    }
    faults
}

fn differs(answer: &str) -> String {
    format!("is to print\n{}", answer.trim_end())
}

/// Makes what the examples expect to find: the program where a release build leaves it and in `PATH`, the example file, and a
/// `redis-cli` for the demo's Redis. Answers `PATH`.
fn furnish(dir: &Path, redis: &str) -> String {
    let (bin, here) = (dir.join("bin"), dir.join("here"));
    let release = here.join("target/release");
    for dir in [&bin, &release] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let program = unread().get_program().to_owned();
    for dir in [&bin, &release] {
        symlink(&program, dir.join("unread")).unwrap();
    }
    let example = "unread.example.toml";
    std::fs::copy(super::root().join(example), here.join(example)).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let socket = redis.strip_prefix("redis+unix://").expect("a socket");
    let client = bin.join("redis-cli");
    let script =
        format!("#!/bin/sh\nPATH='{path}'\nexport PATH\nexec redis-cli -s '{socket}' \"$@\"\n");
    std::fs::write(&client, script).unwrap();
    std::fs::set_permissions(&client, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{path}", bin.display())
}

/// Whether `text` is `pattern`, in which what is `any` stands for any number of parts.
fn fits<P, T>(
    pattern: &[P],
    text: &[T],
    any: impl Fn(&P) -> bool,
    one: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut p, mut t) = (0, 0);
    // After the last `any`, and where in the text it was tried.
    let mut back: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p).is_some_and(&any) {
            p += 1;
            back = Some((p, t));
        } else if p < pattern.len() && t < text.len() && one(&pattern[p], &text[t]) {
            p += 1;
            t += 1;
        } else if p == pattern.len() && t == text.len() {
            return true;
        } else if let Some((after, tried)) = back.filter(|(_, tried)| *tried < text.len()) {
            back = Some((after, tried + 1));
            (p, t) = (after, tried + 1);
        } else {
            return false;
        }
    }
}

fn same_line(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.trim_end().chars().collect();
    let text: Vec<char> = text.trim_end().chars().collect();
    fits(&pattern, &text, |c| *c == '…', |one, other| one == other)
}

fn same_text(pattern: &str, text: &str) -> bool {
    let pattern: Vec<&str> = pattern.trim_end().lines().collect();
    let text: Vec<&str> = text.trim_end().lines().collect();
    fits(
        &pattern,
        &text,
        |line| line.trim() == "…",
        |one, other| same_line(one, other),
    )
}

/// Without the blanks between the parts of JSON.
fn same_json(pattern: &str, text: &str) -> bool {
    fn tight(text: &str) -> String {
        let (mut quoted, mut escaped) = (false, false);
        let kept = text.chars().filter(|c| {
            let keep = quoted || !c.is_whitespace();
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = quoted,
                '"' => quoted = !quoted,
                _ => {}
            }
            keep
        });
        kept.collect()
    }
    same_line(&tight(pattern), &tight(text))
}

#[test]
fn an_ellipsis_stands_for_anything() {
    assert!(same_line("a…c", "abbc") && same_line("…", "") && same_line("a…b…c", "a b b c"));
    assert!(!same_line("a…c", "abb") && !same_line("a", "b") && !same_line("a…", "b"));
    assert!(same_text("a\n…\nd\n", "a\nb\nc\nd") && same_text("…\nd", "d"));
    assert!(!same_text("a\n…\nd", "a\nb") && !same_text("a", "a\nb"));
    assert!(same_json(
        "{\"a\": \"b c\",\n \"n\": …}",
        "{\"a\":\"b c\",\"n\":7}\n"
    ));
    assert!(!same_json("{\"a\": \"b c\"}", "{\"a\":\"bc\"}"));
    assert!(!same_json("{\"a\": 1}", "{\"a\":1}{\"b\":2}"));
}
