//! A running pod.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use serde_json::Value;

use super::client::{address, raw};
use super::clock;
use super::config::Config;
use super::process::{memory_of, signal};
use super::program::unread;
use super::redis_server::RedisServer;
use super::wait::{PATIENCE, until};

/// One running `unread serve`; gone when dropped.
pub struct Pod {
    child: Option<Child>,
    /// `http://127.0.0.1:PORT` of the endpoints.
    pub base: String,
    /// `127.0.0.1:PORT` of `/livez`, `/readyz` and `/metrics`.
    pub admin: String,
    log: Arc<Mutex<Vec<String>>>,
    _dir: tempfile::TempDir,
}

impl Pod {
    /// Starts a pod and waits until it is ready.
    pub fn start(config: &Config, redis: &RedisServer) -> Self {
        Self::start_at(config, &redis.url())
    }

    /// The same; the address may be that of a cluster, of sentinels or of a proxy.
    pub fn start_at(config: &Config, redis_url: &str) -> Self {
        let pod = Self::start_unready(config, redis_url);
        pod.until_ready();
        pod
    }

    /// Starts a pod that listens. It may not be ready yet.
    pub fn start_unready(config: &Config, redis_url: &str) -> Self {
        Self::start_toml(&config.toml(redis_url))
    }

    /// Starts a pod that runs by that clock, and waits until it is ready.
    pub fn by_clock(clock: &clock::Clock, config: &Config, redis_url: &str) -> Self {
        let mut command = unread();
        command.env("UNREAD_SERVER__DRAIN_SECONDS", "0");
        command.envs(clock.environment());
        let pod = Self::start_by(command, &config.toml(redis_url));
        pod.until_ready();
        pod
    }

    /// Starts a pod with the whole text of its configuration. It listens, and may not be ready yet.
    pub fn start_toml(toml: &str) -> Self {
        let mut command = unread();
        command.env("UNREAD_SERVER__DRAIN_SECONDS", "0");
        Self::start_by(command, toml)
    }

    /// The same by a command that has everything but `serve` and the file.
    pub fn start_by(mut command: Command, toml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file: PathBuf = dir.path().join("unread.toml");
        std::fs::write(&file, toml).unwrap();
        let mut child = command
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .current_dir(dir.path())
            .env("UNREAD_LOG__FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();

        let log = Arc::new(Mutex::new(Vec::new()));
        let (found, addresses) = mpsc::channel();
        let stderr = child.stderr.take().unwrap();
        let kept = Arc::clone(&log);
        // Ends by itself when the pod does, and takes `found` with it.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if let Some(pair) = listening(&line) {
                    let _ = found.send(pair);
                }
                kept.lock().unwrap().push(line);
            }
        });

        let mut pod = Self {
            child: Some(child),
            base: String::new(),
            admin: String::new(),
            log,
            _dir: dir,
        };
        match addresses.recv_timeout(PATIENCE) {
            Ok((listen, admin)) => {
                pod.base = format!("http://{listen}");
                pod.admin = admin;
            }
            Err(_) => panic!("the pod never said that it listens:\n{}", pod.log_tail()),
        }
        pod
    }

    /// `127.0.0.1:PORT` of the endpoints.
    pub fn address(&self) -> &str {
        address(&self.base)
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the pod still runs").id()
    }

    pub fn is_ready(&self) -> bool {
        self.admin_status("/readyz") == Some(200)
    }

    /// Blocks until it is ready.
    pub fn until_ready(&self) {
        until("the pod's /readyz", || self.is_ready().then_some(()));
    }

    /// The status of a `GET` on the admin address; nothing when there is no answer.
    pub fn admin_status(&self, path: &str) -> Option<u16> {
        self.admin_get(path)?.split(' ').nth(1)?.parse().ok()
    }

    /// The whole answer to a `GET` on the admin address.
    pub fn admin_get(&self, path: &str) -> Option<String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        raw(&self.admin, request.as_bytes()).ok()
    }

    /// The number that `/metrics` has for `name`, a metric with its labels; none: there is no such line, or no answer.
    pub fn metric<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        let metrics = self.admin_get("/metrics")?;
        let number = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        metrics.lines().find_map(number)
    }

    /// Tells the pod to end. [`Pod::ended`] waits until it has.
    pub fn ask_to_end(&self) {
        signal(self.child.as_ref().expect("the pod still runs"), "TERM");
    }

    /// Sends the pod a signal.
    pub fn signal(&self, name: &str) {
        signal(self.child.as_ref().expect("the pod still runs"), name);
    }

    /// The memory that it has now, in bytes. Linux only, as are the other two.
    pub fn memory(&self) -> u64 {
        memory_of(self.pid(), "VmRSS")
    }

    /// The most memory that it has had so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        memory_of(self.pid(), "VmHWM")
    }

    /// From now on [`Pod::peak_memory`] looks at nothing that was before.
    pub fn forget_peak_memory(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    /// Kills the pod at once, in the middle of its work.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Tells the pod to end and waits for that; answers its exit code (none: a signal ended it).
    pub fn term(&mut self) -> Option<i32> {
        self.ask_to_end();
        self.ended()
    }

    /// Waits for the end of a pod that got SIGTERM. Answers its exit code; none: a signal ended it.
    pub fn ended(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("the pod still runs");
        until("the pod's end after SIGTERM", || child.try_wait().unwrap()).code()
    }

    /// All lines logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        log[log.len().saturating_sub(60)..].join("\n")
    }

    /// Panics when a secret of the configuration was logged.
    pub fn assert_no_secret_logged(&self, config: &Config) {
        let log = self.log().join("\n");
        for app in &config.apps {
            for secret in app.secrets() {
                assert!(
                    !log.contains(secret),
                    "the log shows a secret of {}: {secret}",
                    app.id
                );
            }
        }
    }
}

/// The two addresses out of the log line that tells them.
fn listening(line: &str) -> Option<(String, String)> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["message"] != "listening" {
        return None;
    }
    Some((
        line["listen"].as_str()?.to_owned(),
        line["admin_listen"].as_str()?.to_owned(),
    ))
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!(
                "--- the pod at {} logged last:\n{}",
                self.base,
                self.log_tail()
            );
        }
    }
}
