//! The program itself, and its commands that run to their end.

use std::process::{Command, Output, Stdio};
use std::sync::mpsc;

use serde_json::{Value, json};

use super::process::signal_to;
use super::wait::PATIENCE;

/// The program, with no setting from the environment that the tests run in.
pub fn unread() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unread"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("UNREAD_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// What a command of the program came to.
#[derive(Debug)]
pub struct Ran {
    /// -1 when a signal ended it.
    pub code: i32,
    pub stdout: String,
    /// Without the lines that name the Redis, and an app that begins with an import.
    pub stderr: String,
    /// The Redis that a command beside the pods names before it begins.
    pub redis: Option<String>,
    /// The app that begins with an import.
    pub new_app: Option<String>,
}

impl From<Output> for Ran {
    fn from(out: Output) -> Self {
        let said = String::from_utf8_lossy(&out.stderr);
        let named = said.strip_prefix("unread: Redis: ");
        let named = named.and_then(|rest| rest.split_once('\n'));
        let (redis, stderr) = match named {
            Some((redis, rest)) => (Some(redis.to_owned()), rest),
            None => (None, &*said),
        };
        let named = stderr.strip_prefix("unread: nothing is kept of app \"");
        let named = named.and_then(|rest| rest.split_once("\" yet: it begins with this import\n"));
        let (new_app, stderr) = match named {
            Some((app, rest)) => (Some(app.to_owned()), rest),
            None => (None, stderr),
        };
        Self {
            code: out.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: stderr.to_owned(),
            redis,
            new_app,
        }
    }
}

impl Ran {
    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Panics unless it has failed and said nothing but one line on standard error, which names all of these.
    #[track_caller]
    pub fn assert_failed_in_one_line(&self, names: &[&str]) {
        assert!(self.code > 0, "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.starts_with("unread: "), "{self:?}");
        for name in names {
            assert!(self.stderr.contains(name), "no {name:?}: {self:?}");
        }
    }
}

/// Runs the program with these arguments, to its end.
pub fn run_unread(args: &[&str]) -> Ran {
    run(unread().args(args))
}

/// Runs a command to its end. A command that does not end is killed, and the test fails.
#[track_caller]
pub fn run(command: &mut Command) -> Ran {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let (done, output) = mpsc::channel();
    // Reads both pipes, so that neither fills up. The process is reaped only here: until then its pid is its own.
    std::thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(output) = output.recv_timeout(PATIENCE * 4) else {
        signal_to(pid, "KILL");
        panic!("{command:?} does not end");
    };
    output.unwrap().into()
}

/// Panics unless `unread verify` finds nothing at all in this app.
#[track_caller]
pub fn assert_no_drift(redis_url: &str, app: &str) {
    let ran = run_unread(&["verify", "--redis-url", redis_url, "--app", app, "--json"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let result = ran.json();
    assert_eq!(result["drift"], json!([]));
    assert_eq!(result["in_flight"], 0, "{result}");
    assert_eq!(result["unreadable_total"], 0, "{result}");
    assert_ne!(result["users"], 0, "{result}");
}
