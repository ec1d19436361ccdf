//! A `redis-server` of our own, for those who have none running: reachable by a unix socket only, with an append-only
//! file in the data directory, started with us, watched while we run, stopped after us.
//!
//! One thread of its own starts and watches it, because Linux counts the *thread* that started a child as its parent
//! when it comes to `PR_SET_PDEATHSIG`: from a runtime's thread the child could die with an idle thread.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use tokio::sync::oneshot;

use crate::config::Secret;

/// `#!lua` scripts came with 7.0; the engine relies on them.
const OLDEST: (u32, u32) = (7, 0);
/// The kernel takes 108 bytes on Linux and 104 on macOS, the closing zero included.
const LONGEST_SOCKET: usize = 100;
const LOCK: &str = "unread.lock";
const SOCKET: &str = "redis.sock";
/// Where a socket that did not fit into the data directory is noted, so that an orphan behind it can be found.
const SOCKET_NOTE: &str = "redis.sock.path";
const LOG: &str = "redis.log";
/// Until a new server listens. Loading comes after that and takes as long as it takes.
const LISTEN_DEADLINE: Duration = Duration::from_secs(30);
/// Until a server that was told to stop has written its file out.
const STOP_DEADLINE: Duration = Duration::from_secs(8);
/// How often a child is looked at.
const TICK: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

const PATH_SAFE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.');

/// Why there is no private Redis. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No such program.
    #[error(
        "redis-server is not installed; install version 7.0 or newer (Debian, Ubuntu: apt-get install redis-server; \
         Fedora: dnf install redis; Alpine: apk add redis; macOS: brew install redis) or set redis.url to a running Redis"
    )]
    Missing,
    /// The program is too old.
    #[error(
        "redis-server is version {0}, but 7.0 or newer is needed; upgrade it or set redis.url to a running Redis"
    )]
    Old(String),
    /// The program does not say what it is.
    #[error("`redis-server --version` failed or could not be understood: {0}")]
    Version(String),
    /// Somebody else has the data directory.
    #[error("redis.data_dir {} is in use by another unread process; stop that one or choose another directory", .0.display())]
    InUse(PathBuf),
    /// An earlier server does not stop.
    #[error("an earlier redis-server still has {} and does not stop; stop it by hand", .0.display())]
    Orphan(PathBuf),
    /// The data directory, or a file in it, can't be used.
    #[error("{}: {error}", .path.display())]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The server did not come up.
    #[error("redis-server did not start: {why} (its log is {})", .log.display())]
    Failed {
        /// What happened, with the last thing that the server said.
        why: String,
        /// Its log.
        log: PathBuf,
    },
}

/// A running private server. Dropping it tells the server to stop without waiting for it.
pub struct PrivateRedis {
    url: Secret,
    stop: Sender<()>,
    stopped: oneshot::Receiver<()>,
}

impl PrivateRedis {
    /// Starts a server with its file in `data_dir` and waits until it answers.
    pub async fn start(data_dir: &Path) -> Result<Self, StartError> {
        let data_dir = data_dir.to_owned();
        let (stop, stop_asked) = channel();
        let (ready, became_ready) = oneshot::channel();
        let (stopping, stopped) = oneshot::channel();
        let spawned = thread::Builder::new()
            .name("private-redis".to_owned())
            .spawn(move || {
                run(&data_dir, &stop_asked, ready);
                // The caller may be gone.
                let _ = stopping.send(());
            });
        if let Err(error) = spawned {
            let path = PathBuf::from("thread for redis-server");
            return Err(StartError::Io { path, error });
        }
        match became_ready.await {
            Ok(started) => Ok(Self {
                url: started?,
                stop,
                stopped,
            }),
            Err(_) => Err(StartError::Version("stopped while starting".to_owned())),
        }
    }

    /// The address to give to a client.
    pub fn url(&self) -> &Secret {
        &self.url
    }

    /// Stops the server and waits until it is gone.
    pub async fn stop(self) {
        // An error of either means that the thread has ended, and the server with it.
        let _ = self.stop.send(());
        let _ = self.stopped.await;
    }
}

/// The address of the private server that a pod runs on `data_dir` now, if one does.
pub fn running(data_dir: &Path) -> Option<Secret> {
    let dir = data_dir.canonicalize().ok()?;
    let mut places = vec![dir.join(SOCKET)];
    if let Ok(elsewhere) = std::fs::read(dir.join(SOCKET_NOTE)) {
        places.push(PathBuf::from(std::ffi::OsStr::from_bytes(&elsewhere)));
    }
    let socket = places
        .into_iter()
        .find(|place| UnixStream::connect(place).is_ok())?;
    let url = percent_encode(socket.as_os_str().as_bytes(), PATH_SAFE);
    Some(Secret(format!("redis+unix://{url}")))
}

/// Makes a directory that only we can enter, with a name that nobody can guess beforehand.
pub fn fresh_dir(prefix: &str) -> io::Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("{prefix}-{:016x}", rand::random::<u64>()));
    DirBuilder::new().mode(0o700).create(&dir)?;
    Ok(dir)
}

/// The life of the thread.
fn run(data_dir: &Path, stop: &Receiver<()>, ready: oneshot::Sender<Result<Secret, StartError>>) {
    let mut server = match Server::prepare(data_dir) {
        Ok(server) => server,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    match server.launch(stop) {
        Ok(Some(child)) => {
            let url = percent_encode(server.socket.as_os_str().as_bytes(), PATH_SAFE);
            let started = ready.send(Ok(Secret(format!("redis+unix://{url}"))));
            // A caller that is gone wants no server.
            if started.is_ok() {
                server.supervise(child, stop);
            } else {
                end(child);
            }
        }
        Ok(None) => {}
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    }
    server.clear();
}

/// A prepared data directory. The lock is held as long as this lives.
struct Server {
    dir: PathBuf,
    socket: PathBuf,
    /// The directory made for the socket, if it is not the data directory.
    socket_dir: Option<PathBuf>,
    _lock: File,
}

impl Server {
    fn prepare(data_dir: &Path) -> Result<Self, StartError> {
        check_version()?;
        let dir = private_dir(data_dir)?;
        let lock = lock(&dir)?;
        let inside = dir.join(SOCKET);
        let note = dir.join(SOCKET_NOTE);
        end_orphan(&inside)?;
        if let Ok(elsewhere) = std::fs::read(&note) {
            end_orphan(Path::new(std::ffi::OsStr::from_bytes(&elsewhere)))?;
        }
        let (socket, socket_dir) = if inside.as_os_str().len() <= LONGEST_SOCKET {
            (inside, None)
        } else {
            let made = fresh_dir("unread").map_err(at(&std::env::temp_dir()))?;
            let socket = made.join(SOCKET);
            std::fs::write(&note, socket.as_os_str().as_bytes()).map_err(at(&note))?;
            (socket, Some(made))
        };
        Ok(Self {
            dir,
            socket,
            socket_dir,
            _lock: lock,
        })
    }

    /// Starts a server and waits until it answers. `None`: told to stop meanwhile.
    fn launch(&mut self, stop: &Receiver<()>) -> Result<Option<Child>, StartError> {
        let mut child = self.spawn()?;
        let started = Instant::now();
        let mut told_loading = false;
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                let said = last_line(&self.dir.join(LOG)).unwrap_or_default();
                return Err(self.failed(format!("{status}; {said}")));
            }
            match ask(&self.socket, "PING") {
                Ok(answer) if answer.starts_with("+PONG") => return Ok(Some(child)),
                Ok(answer) if answer.starts_with("-LOADING") => {
                    if !std::mem::replace(&mut told_loading, true) {
                        tracing::info!("redis-server is loading its data");
                    }
                }
                Ok(_) | Err(_) if !told_loading && started.elapsed() > LISTEN_DEADLINE => {
                    end(child);
                    return Err(self.failed("it does not answer".to_owned()));
                }
                Ok(_) | Err(_) => {}
            }
            // Short at first: a server without data is up within milliseconds.
            let pause = TICK.min(Duration::from_millis(5) + started.elapsed() / 10);
            if asked(stop, pause) {
                end(child);
                return Ok(None);
            }
        }
    }

    fn spawn(&self) -> Result<Child, StartError> {
        let log_path = self.dir.join(LOG);
        let log = open_log(&log_path).map_err(at(&log_path))?;
        let errors = log.try_clone().map_err(at(&log_path))?;
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
            // Short records stay in the compact encoding, which is where the memory goal is won.
            .args([
                "--hash-max-listpack-entries",
                "512",
                "--hash-max-listpack-value",
                "256",
            ])
            .arg("--unixsocket")
            .arg(&self.socket)
            .arg("--dir")
            .arg(&self.dir)
            .current_dir(&self.dir)
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

    /// Watches the server until told to stop, and starts it again when it dies.
    fn supervise(&mut self, mut child: Child, stop: &Receiver<()>) {
        let mut backoff = TICK;
        loop {
            let started = Instant::now();
            let status = loop {
                if asked(stop, TICK) {
                    return end(child);
                }
                match child.try_wait() {
                    Ok(Some(status)) => break status.to_string(),
                    Ok(None) => {}
                    Err(error) => break error.to_string(),
                }
            };
            let log = self.dir.join(LOG);
            tracing::error!(status, log = %log.display(), "redis-server died, starting it again");
            if started.elapsed() > Duration::from_secs(30) {
                backoff = TICK;
            }
            child = loop {
                if asked(stop, backoff) {
                    return;
                }
                backoff = (backoff * 2).min(LONGEST_BACKOFF);
                match self.launch(stop) {
                    Ok(Some(child)) => break child,
                    Ok(None) => return,
                    Err(error) => tracing::error!(%error, "redis-server did not start again"),
                }
            };
            tracing::info!("redis-server is back");
        }
    }

    fn failed(&self, why: String) -> StartError {
        let log = self.dir.join(LOG);
        StartError::Failed { why, log }
    }

    /// Removes what only a running server needs. What can't be removed does no harm.
    fn clear(&self) {
        let _ = std::fs::remove_file(&self.socket);
        if let Some(dir) = &self.socket_dir {
            let _ = std::fs::remove_dir(dir);
            let _ = std::fs::remove_file(self.dir.join(SOCKET_NOTE));
        }
    }
}

/// Waits for `pause`; whether the server is to stop (also because nobody is left who could say so).
fn asked(stop: &Receiver<()>, pause: Duration) -> bool {
    !matches!(stop.recv_timeout(pause), Err(RecvTimeoutError::Timeout))
}

fn at(path: &Path) -> impl Fn(io::Error) -> StartError + use<> {
    let path = path.to_owned();
    move |error| StartError::Io {
        path: path.clone(),
        error,
    }
}

fn check_version() -> Result<(), StartError> {
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

/// The data directory, absolute, made if it is not there.
fn private_dir(path: &Path) -> Result<PathBuf, StartError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(at(path))?;
    let dir = path.canonicalize().map_err(at(path))?;
    // Closed to others where it is ours. A directory with other things in it (say /tmp) is not for us to close: there
    // the socket's own mode still keeps others out.
    let ours =
        dir.join(LOCK).exists() || std::fs::read_dir(&dir).map_err(at(&dir))?.next().is_none();
    let mode = std::fs::metadata(&dir)
        .map_err(at(&dir))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        if ours && mode & 0o1000 == 0 {
            std::fs::set_permissions(&dir, Permissions::from_mode(0o700)).map_err(at(&dir))?;
        } else {
            tracing::warn!(data_dir = %dir.display(), "others can look into the data directory");
        }
    }
    Ok(dir)
}

fn lock(dir: &Path) -> Result<File, StartError> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(StartError::Io { path, error }),
    }
}

/// Stops a server that was left behind by a killed pod (where the kernel does not do it for us). The socket is in a
/// directory that we have locked, so it is one of ours.
fn end_orphan(socket: &Path) -> Result<(), StartError> {
    let is_socket = std::fs::symlink_metadata(socket).is_ok_and(|m| m.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    let deadline = Instant::now() + STOP_DEADLINE;
    let mut told = false;
    while UnixStream::connect(socket).is_ok() {
        if Instant::now() > deadline {
            return Err(StartError::Orphan(socket.to_owned()));
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!("stopping a redis-server that an earlier process left behind");
        }
        // Only snapshots are left out; the append-only file is always written out. No answer is the good answer.
        let _ = ask(socket, "SHUTDOWN NOSAVE");
        thread::sleep(TICK);
    }
    if told {
        // The socket closes before the process ends: let it let go of its files.
        thread::sleep(TICK * 2);
    }
    std::fs::remove_file(socket).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(at(socket)(error)),
    })
}

/// One inline command, and the first line of the answer.
fn ask(socket: &Path, command: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

/// The log, for appending; begun anew when an earlier run has made it large.
fn open_log(path: &Path) -> io::Result<File> {
    let large = std::fs::metadata(path).is_ok_and(|m| m.len() > 1 << 20);
    if large {
        std::fs::write(path, b"")?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

fn last_line(path: &Path) -> Option<String> {
    let text = String::from_utf8_lossy(&std::fs::read(path).ok()?).into_owned();
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().to_owned())
}

/// Asks the server to stop, waits for it, and kills it if it does not.
fn end(mut child: Child) {
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
    use super::*;

    fn command(socket: &Path, command: &str) -> String {
        ask(socket, command).unwrap().trim().to_owned()
    }

    async fn started(dir: &Path) -> (PrivateRedis, PathBuf) {
        let redis = PrivateRedis::start(dir).await.unwrap();
        let socket = redis.url().0.strip_prefix("redis+unix://").unwrap();
        let socket = percent_encoding::percent_decode_str(socket)
            .decode_utf8()
            .unwrap()
            .into_owned();
        (redis, socket.into())
    }

    fn pid(socket: &Path) -> libc::pid_t {
        let stream = UnixStream::connect(socket).unwrap();
        (&stream).write_all(b"INFO server\r\n").unwrap();
        BufReader::new(stream)
            .lines()
            .find_map(|line| line.unwrap().strip_prefix("process_id:")?.parse().ok())
            .unwrap()
    }

    #[test]
    fn versions_are_read() {
        let line = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64";
        assert_eq!(version_of(line), Some((7, 0)));
        assert_eq!(version_of("Valkey server v=8.1.0 sha=1"), Some((8, 1)));
        assert_eq!(version_of("something else"), None);
    }

    #[tokio::test]
    async fn data_survives_a_stop_and_the_server_is_as_promised() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a b%7B{}").join("data");
        let (redis, socket) = started(&dir).await;
        assert_eq!(command(&socket, "SET k v"), "+OK");
        for (setting, value) in [
            ("port", "0"),
            ("appendonly", "yes"),
            ("appendfsync", "everysec"),
            ("save", ""),
            ("maxmemory-policy", "noeviction"),
            ("hash-max-listpack-entries", "512"),
            ("hash-max-listpack-value", "256"),
        ] {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream
                .write_all(format!("CONFIG GET {setting}\r\n").as_bytes())
                .unwrap();
            let lines: Vec<String> = BufReader::new(stream)
                .lines()
                .take(5)
                .map(Result::unwrap)
                .collect();
            assert_eq!(lines[4], value, "{setting}");
        }
        let mode = std::fs::metadata(&dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        redis.stop().await;
        assert!(!socket.exists());

        let (redis, socket) = started(&dir).await;
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(b"GET k\r\n").unwrap();
        let value = BufReader::new(stream).lines().nth(1).unwrap().unwrap();
        assert_eq!(value, "v");
        redis.stop().await;
    }

    #[tokio::test]
    async fn a_data_directory_has_one_owner_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let (first, _) = started(temp.path()).await;
        let second = PrivateRedis::start(temp.path()).await;
        let Err(StartError::InUse(_)) = second else {
            panic!("two owners");
        };
        first.stop().await;
        let (third, _) = started(temp.path()).await;
        third.stop().await;
    }

    #[tokio::test]
    async fn a_server_that_dies_is_started_again() {
        let temp = tempfile::tempdir().unwrap();
        let (redis, socket) = started(temp.path()).await;
        let old = pid(&socket);
        assert_eq!(command(&socket, "SET k v"), "+OK");
        #[expect(unsafe_code, reason = "kills the child that this test started")]
        unsafe {
            libc::kill(old, libc::SIGKILL);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !ask(&socket, "EXISTS k").is_ok_and(|line| line.starts_with(":1")) {
            assert!(Instant::now() < deadline, "not back");
            tokio::time::sleep(TICK).await;
        }
        assert_ne!(pid(&socket), old);
        redis.stop().await;
        assert!(ask(&socket, "PING").is_err());
    }

    #[tokio::test]
    async fn an_orphan_is_stopped_first_and_its_data_kept() {
        let temp = tempfile::tempdir().unwrap();
        let socket = temp.path().join(SOCKET);
        let mut orphan = Command::new("redis-server")
            .args(["--port", "0", "--appendonly", "yes", "--save", ""])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(temp.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !ask(&socket, "SET k v").is_ok_and(|line| line.starts_with("+OK")) {
            assert!(Instant::now() < deadline, "the orphan does not answer");
            thread::sleep(TICK);
        }
        let (redis, socket) = started(temp.path()).await;
        assert!(orphan.wait().unwrap().success());
        assert_eq!(command(&socket, "EXISTS k"), ":1");
        redis.stop().await;
    }

    #[tokio::test]
    async fn a_long_path_gets_its_socket_elsewhere() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("x".repeat(100));
        let (redis, socket) = started(&dir).await;
        assert!(socket.as_os_str().len() <= LONGEST_SOCKET);
        assert_eq!(command(&socket, "PING"), "+PONG");
        redis.stop().await;
        assert!(!socket.parent().unwrap().exists());
    }
}
