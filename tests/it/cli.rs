//! The command line: every command, its exit code, and the one line that says what was wrong.

/// `check-config`.
mod configuration;

/// `token`.
mod token;

/// `serve`.
mod serve;

/// `demo`.
mod demo;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) use demo::Demo;

use crate::support::unread;

struct File {
    dir: tempfile::TempDir,
    path: PathBuf,
}

fn file(toml: &str) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("unread.toml");
    std::fs::write(&path, toml).unwrap();
    File { dir, path }
}

fn check(file: &File) -> Command {
    let mut command = unread();
    command.arg("check-config").arg("--config").arg(&file.path);
    command
}

fn parsed(toml: &str) -> toml::Table {
    toml.parse()
        .unwrap_or_else(|error| panic!("{error}\n{toml}"))
}

const REDIS: &str = "redis://somebody:a-password-of-24-letters@127.0.0.1:6399/3";

/// The process behind a private Redis's socket.
fn redis_pid(data: &Path) -> Option<String> {
    let mut stream = UnixStream::connect(data.join("redis.sock")).ok()?;
    stream.write_all(b"INFO server\r\nQUIT\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let pid = answer.split("process_id:").nth(1)?.lines().next()?;
    Some(pid.to_owned())
}

fn lives(pid: &str) -> bool {
    let mut signal = Command::new("kill");
    signal
        .args(["-0", pid])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    signal.status().unwrap().success()
}
