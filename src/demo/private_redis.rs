//! A `redis-server` of our own, for those who have none running: reachable by a unix socket only, with an append-only
//! file in the data directory, started with us, watched while we run, stopped after us.
//!
//! One thread of its own starts and watches it, because Linux counts the *thread* that started a child as its parent
//! when it comes to `PR_SET_PDEATHSIG`: from a runtime's thread the child could die with an idle thread.

mod child;
mod dir;
mod error;

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::config::Secret;
use child::{ask, check_version, end, spawn};
use dir::DataDir;

pub(crate) use dir::{fresh_dir, running};
pub(crate) use error::StartError;

/// Until a new server listens. Loading comes after that and takes as long as it takes.
const LISTEN_DEADLINE: Duration = Duration::from_secs(30);
/// How often a child is looked at.
const TICK: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// A running private server. Dropping it tells the server to stop without waiting for it.
pub(crate) struct PrivateRedis {
    url: Secret,
    stop: Sender<()>,
    stopped: oneshot::Receiver<()>,
}

impl PrivateRedis {
    /// Starts a server with its file in `data_dir` and waits until it answers.
    pub(crate) async fn start(data_dir: &Path) -> Result<Self, StartError> {
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
    pub(crate) fn url(&self) -> &Secret {
        &self.url
    }

    /// Stops the server and waits until it is gone.
    pub(crate) async fn stop(self) {
        // An error of either means that the thread has ended, and the server with it.
        let _ = self.stop.send(());
        let _ = self.stopped.await;
    }
}

/// The life of the thread.
fn run(data_dir: &Path, stop: &Receiver<()>, ready: oneshot::Sender<Result<Secret, StartError>>) {
    let mut server = match LocalServer::prepare(data_dir) {
        Ok(server) => server,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    match server.launch(stop) {
        Ok(Some(child)) => {
            let started = ready.send(Ok(server.dir.url()));
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
    server.dir.clear();
}

/// A server in its data directory.
struct LocalServer {
    dir: DataDir,
}

impl LocalServer {
    fn prepare(data_dir: &Path) -> Result<Self, StartError> {
        check_version()?;
        let dir = DataDir::prepare(data_dir)?;
        Ok(Self { dir })
    }

    /// Starts a server and waits until it answers. `None`: told to stop meanwhile.
    fn launch(&mut self, stop: &Receiver<()>) -> Result<Option<Child>, StartError> {
        let mut child = spawn(self.dir.path(), self.dir.socket(), &self.dir.log())?;
        let started = Instant::now();
        let mut told_loading = false;
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                let said = self.dir.last_words().unwrap_or_default();
                return Err(self.failed(format!("{status}; {said}")));
            }
            match ask(self.dir.socket(), "PING") {
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
            if stop_within(stop, pause) {
                end(child);
                return Ok(None);
            }
        }
    }

    /// Watches the server until told to stop, and starts it again when it dies.
    fn supervise(&mut self, mut child: Child, stop: &Receiver<()>) {
        let mut backoff = TICK;
        loop {
            let started = Instant::now();
            let status = loop {
                if stop_within(stop, TICK) {
                    return end(child);
                }
                match child.try_wait() {
                    Ok(Some(status)) => break status.to_string(),
                    Ok(None) => {}
                    Err(error) => break error.to_string(),
                }
            };
            let log = self.dir.log();
            tracing::error!(status, log = %log.display(), "redis-server died, starting it again");
            if started.elapsed() > Duration::from_secs(30) {
                backoff = TICK;
            }
            child = loop {
                if stop_within(stop, backoff) {
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
        let log = self.dir.log();
        StartError::Failed { why, log }
    }
}

/// Waits for `pause`; whether the server is to stop (also because nobody is left who could say so).
fn stop_within(stop: &Receiver<()>, pause: Duration) -> bool {
    !matches!(stop.recv_timeout(pause), Err(RecvTimeoutError::Timeout))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    use super::dir::{LONGEST_SOCKET, SOCKET};
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
