//! The program itself, and its commands that run to their end.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

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
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs the program to its end.
pub fn ran(args: &[&str]) -> Ran {
    let out = unread().args(args).output().unwrap();
    Ran {
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// Panics unless `unread verify` finds nothing at all in this app.
pub fn assert_no_drift(redis_url: &str, app: &str) {
    let ran = ran(&["verify", "--redis-url", redis_url, "--app", app, "--json"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let result = ran.json();
    assert_eq!(result["drift"], json!([]));
    assert_eq!(result["in_flight"], 0, "{result}");
    assert_eq!(result["unreadable_total"], 0, "{result}");
    assert_ne!(result["users"], 0, "{result}");
}
