//! One `redis-server` process: what it is started with, and how it is asked and ended.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::error::{StartError, at};

/// `#!lua` scripts came with 7.0; the engine relies on them.
const OLDEST: (u32, u32) = (7, 0);
/// Until a server that was told to stop has written its file out.
pub(super) const STOP_DEADLINE: Duration = Duration::from_secs(8);

/// Checks that the program is there and not too old.
pub(super) fn check_version() -> Result<(), StartError> {
    let output = Command::new("redis-server")
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StartError::Missing,
            _ => StartError::Version(error.to_string()),
        })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default().trim();
    let found = version_of(line).ok_or_else(|| StartError::Version(format!("it says {line:?}")))?;
    if (found.0, found.1) < OLDEST {
        return Err(StartError::Old(format!("{}.{}", found.0, found.1)));
    }
    Ok(())
}

/// The version in `Redis server v=7.0.15 sha=…`.
fn version_of(line: &str) -> Option<(u32, u32)> {
    let version = line.split_whitespace().find_map(|w| w.strip_prefix("v="))?;
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Starts a server with its data in that directory.
pub(super) fn spawn(dir: &Path, socket: &Path, log_path: &Path) -> Result<Child, StartError> {
    let log = open_log(log_path).map_err(at(log_path))?;
    let errors = log.try_clone().map_err(at(log_path))?;
    let mut command = Command::new("redis-server");
    command
        .args([
            "--port",
            "0",
            "--unixsocketperm",
            "700",
            "--daemonize",
            "no",
        ])
        .args([
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "everysec",
        ])
        .args(["--maxmemory-policy", "noeviction"])
        // Short records stay in the compact encoding, which takes the least memory.
        .args([
            "--hash-max-listpack-entries",
            "512",
            "--hash-max-listpack-value",
            "256",
        ])
        .arg("--unixsocket")
        .arg(socket)
        .arg("--dir")
        .arg(dir)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // A ctrl-c in the terminal must not reach it: it has to outlive our last request.
        .process_group(0);
    die_with_us(&mut command);
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StartError::Missing,
        _ => StartError::Io {
            path: PathBuf::from("redis-server"),
            error,
        },
    })
}

/// The log, for appending; begun anew when an earlier run has made it large.
fn open_log(path: &Path) -> io::Result<File> {
    let large = std::fs::metadata(path).is_ok_and(|m| m.len() > 1 << 20);
    if large {
        std::fs::write(path, b"")?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// One inline command, and the first line of the answer.
pub(super) fn ask(socket: &Path, command: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

/// Asks the server to stop, waits for it, and kills it if it does not.
pub(super) fn end(mut child: Child) {
    terminate(&child);
    let deadline = Instant::now() + STOP_DEADLINE;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    tracing::error!("redis-server did not stop and was killed");
    // Errors mean that it is gone already.
    let _ = child.kill();
    let _ = child.wait();
}

/// Sends SIGTERM to this one process.
#[expect(unsafe_code, reason = "std can only send SIGKILL")]
fn terminate(child: &Child) {
    if let Ok(pid) = libc::pid_t::try_from(child.id()) {
        // SAFETY: kill() takes plain numbers. The child has not been waited for, so its id can't belong to another yet.
        unsafe {
            libc::kill(pid, libc::SIGTERM);
        }
    }
}

/// Has the kernel stop the child when this thread, and so this process, dies in whatever way.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "std has no PR_SET_PDEATHSIG")]
fn die_with_us(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. prctl() and getppid() are such system
    // calls; nothing is allocated, no lock is taken.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                return Err(io::Error::last_os_error());
            }
            // We may have died before the call above.
            if libc::getppid().unsigned_abs() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// Elsewhere an orphan is found and stopped at the next start.
#[cfg(not(target_os = "linux"))]
fn die_with_us(_command: &mut Command) {}

#[cfg(test)]
mod tests {
    use super::version_of;

    #[test]
    fn versions_are_read() {
        let line = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64";
        assert_eq!(version_of(line), Some((7, 0)));
        assert_eq!(version_of("Valkey server v=8.1.0 sha=1"), Some((8, 1)));
        assert_eq!(version_of("something else"), None);
    }
}
