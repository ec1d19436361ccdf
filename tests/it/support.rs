//! Servers, pods, configuration and one client with a method per endpoint.
//!
//! Processes are started and stopped here and nowhere else, always by the handle of the process that we started
//! ourselves. Whatever takes time is polled with [`until`]; there is no fixed sleep to tune.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use sha2::Sha256;

/// Clocks that a test sets.
#[path = "clock.rs"]
#[allow(dead_code, reason = "not every suite sets all of them")]
pub mod clock;

/// Generous: a loaded machine must not fail a test that would pass on an idle one.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);

/// Blocks until `done` answers something, or panics after [`PATIENCE`].
pub fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "gave up waiting: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Like [`until`], for a condition that has to ask over HTTP; reports the last reason on giving up.
pub async fn eventually<F: Future<Output = Result<(), String>>>(
    what: &str,
    mut check: impl FnMut() -> F,
) {
    let start = Instant::now();
    loop {
        let Err(reason) = check().await else { return };
        assert!(
            start.elapsed() < PATIENCE,
            "gave up waiting: {what}\n{reason}"
        );
        tokio::time::sleep(LOOK * 5).await;
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// The text of a script as the program gives it to Redis: the file, after its header what it takes from `lua/lib/`.
pub fn script(name: &str) -> String {
    let read = |name: &str| {
        std::fs::read_to_string(format!("{}/lua/{name}.lua", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let file = read(name);
    let Some((head, body)) = file.split_once("\n-- Lib: ") else {
        return file;
    };
    let (names, body) = body.split_once('\n').unwrap();
    let lib: String = names
        .split(", ")
        .map(|name| read(&format!("lib/{name}")))
        .collect();
    format!("{head}\n-- Lib: {names}\n{lib}{body}")
}

/// Sends a signal to one process that we started and have not reaped yet, so its pid cannot be anybody else's.
pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success(), "kill -s {name} failed");
}

// ---------------------------------------------------------------------------------------------------------- Redis

/// A private `redis-server` with a directory of its own; gone when dropped.
pub struct RedisServer {
    child: Option<Child>,
    pub port: u16,
    dir: tempfile::TempDir,
    options: Vec<String>,
    /// Who asks here, where the default user may not.
    login: Option<(String, String)>,
    /// What its environment has beside ours.
    environment: Environment,
}

/// Variables and their values.
type Environment = Vec<(&'static str, OsString)>;

impl RedisServer {
    /// Without persistence: what a test needs that never restarts it.
    pub fn start() -> Self {
        Self::start_with(&["--appendonly", "no"])
    }

    /// Every write is on disk before it is answered: what a test needs that kills it.
    pub fn start_durable() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub fn start_with(options: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), None, options)
    }

    /// By that clock, also when it is started again.
    #[allow(dead_code, reason = "not every suite sets clocks")]
    pub fn by_clock(clock: &clock::Clock, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_as(dir, None, options, clock.environment())
    }

    /// In a directory that may hold what the options name, asked by that user.
    pub fn start_in(
        dir: tempfile::TempDir,
        login: Option<(String, String)>,
        options: &[&str],
    ) -> Self {
        Self::start_as(dir, login, options, Vec::new())
    }

    fn start_as(
        dir: tempfile::TempDir,
        login: Option<(String, String)>,
        options: &[&str],
        environment: Environment,
    ) -> Self {
        let mut server = Self {
            child: None,
            port: 0,
            dir,
            options: options.iter().map(ToString::to_string).collect(),
            login,
            environment,
        };
        // Somebody else may take the port between our looking for it and Redis's binding it.
        for _ in 0..50 {
            server.port = free_port();
            if server.try_start() {
                return server;
            }
        }
        panic!("redis-server does not start: {}", server.log());
    }

    /// True when *our* process answers on the port; false when it has ended without getting there.
    fn try_start(&mut self) -> bool {
        let child = self.spawn(&[]);
        let mine = format!("process_id:{}\r", child.id());
        // Belongs to us from now on, so that it ends also when the waiting is given up.
        let mut child = Reaped(Some(child));
        let up = until("redis-server", || {
            if child.0.as_mut()?.try_wait().unwrap().is_some() {
                return Some(false);
            }
            let info = self.inline("INFO server")?;
            (info.contains(&mine) && self.inline("PING")?.contains("+PONG")).then_some(true)
        });
        if up {
            self.child = child.0.take();
        }
        up
    }

    fn spawn(&self, more: &[&str]) -> Child {
        let mut command = Command::new("redis-server");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let conf = self.dir.path().join("sentinel.conf");
        if conf.exists() {
            command.arg(conf).arg("--sentinel");
        } else {
            command.args(["--save", ""]);
        }
        command
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--daemonize",
                "no",
            ])
            .args([
                "--dir",
                self.dir.path().to_str().unwrap(),
                "--logfile",
                "redis.log",
            ])
            .args(&self.options)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed")
    }

    /// One inline command over a connection of its own; nothing when there is no answer.
    fn inline(&self, command: &str) -> Option<String> {
        if self.dir.path().join("sentinel.conf").exists() {
            // A sentinel knows no QUIT.
            let answer = self.cli(&command.split(' ').collect::<Vec<_>>());
            return Some(answer.replace("PONG", "+PONG")).filter(|answer| !answer.is_empty());
        }
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let login = match &self.login {
            Some((user, password)) => format!("AUTH {user} {password}\r\n"),
            None => String::new(),
        };
        stream
            .write_all(format!("{login}{command}\r\nQUIT\r\n").as_bytes())
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    #[allow(dead_code, reason = "only the fault tests point a proxy at it")]
    pub fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Runs `redis-cli` against this server.
    pub fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        if let Some((user, password)) = &self.login {
            command.args(["--no-auth-warning", "--user", user, "--pass", password]);
        }
        let out = command
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("redis-cli is installed");
        String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
    }

    /// Ends it as an operator would.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(&child, "TERM");
            child.wait().unwrap();
        }
    }

    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it in the middle of whatever it does; its connections stay.
    pub fn freeze(&self) {
        signal(self.child.as_ref().expect("it runs"), "STOP");
    }

    /// It goes on as if nothing had been.
    pub fn thaw(&self) {
        signal(self.child.as_ref().expect("it runs"), "CONT");
    }

    /// The value of one field of `INFO`.
    pub fn info(&self, field: &str) -> Option<String> {
        let info = self.inline("INFO everything")?;
        let value = info.lines().find_map(|line| line.strip_prefix(field))?;
        Some(value.strip_prefix(':')?.trim().to_owned())
    }

    /// A replica of this server, once it has caught up.
    pub fn replica(&self) -> Self {
        let master = self.port.to_string();
        let replica =
            Self::start_with(&["--appendonly", "no", "--replicaof", "127.0.0.1", &master]);
        until("the replica is in step", || {
            let info = replica.cli(&["INFO", "replication"]);
            info.contains("master_link_status:up").then_some(())
        });
        replica
    }

    /// The same port and directory again.
    pub fn restart(&mut self) {
        self.stop();
        until("redis-server on its old port", || {
            self.try_start().then_some(())
        });
    }

    /// The same port and directory again, with these options on top; answers as soon as it says that it is loading.
    #[allow(dead_code, reason = "only the fault tests look at a server that loads")]
    pub fn restart_loading(&mut self, options: &[&str]) {
        self.stop();
        self.child = Some(self.spawn(options));
        until("redis-server loading", || {
            self.inline("PING")?.starts_with("-LOADING").then_some(())
        });
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("redis.log")).unwrap_or_default()
    }
}

/// A process that ends with its owner.
struct Reaped(Option<Child>);

impl Drop for Reaped {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- config

#[derive(Clone, Copy)]
pub struct RateLimit {
    pub per_second: u32,
    pub burst: u32,
    pub scope: &'static str,
}

/// No limit at all.
const UNLIMITED: RateLimit = RateLimit {
    per_second: 0,
    burst: 1,
    scope: "pod",
};

/// All that a client of one app has to know.
#[derive(Clone)]
pub struct AppKeys {
    pub id: String,
    pub server_key: String,
    pub client_key: String,
    pub jwt_secret: String,
    pub sdkappid: u64,
    pub secret_key: String,
    pub admin: String,
    pub application_id: String,
    pub master_token: String,
    pub api_token: String,
    pub rate_limit: RateLimit,
    /// How much of that one IMKIT user may use.
    pub user_share: f64,
}

impl AppKeys {
    fn numbered(n: usize) -> Self {
        Self {
            id: format!("app-{n}"),
            server_key: format!("server-key-of-app-{n}"),
            client_key: format!("client-key-of-app-{n}"),
            jwt_secret: format!("jwt-secret-of-{n}-not-a-real-one"),
            sdkappid: 1_400_000_000 + n as u64,
            secret_key: format!("tencent-secret-of-{n}-not-a-real-one"),
            admin: format!("administrator{n}"),
            application_id: format!("APP-{n}"),
            master_token: format!("master-token-of-app-{n}"),
            api_token: format!("api-token-of-app-{n}"),
            rate_limit: UNLIMITED,
            // Most tests ask about one user.
            user_share: 1.0,
        }
    }

    /// What must never be seen in a log.
    pub fn secrets(&self) -> [&str; 5] {
        [
            &self.server_key,
            &self.jwt_secret,
            &self.secret_key,
            &self.master_token,
            &self.api_token,
        ]
    }
}

/// The configuration of a pod: numbered apps, everything else as it comes.
#[derive(Clone)]
pub struct Config {
    pub apps: Vec<AppKeys>,
    /// More TOML, whole tables, for what a test needs beyond the apps.
    pub extra: String,
    /// More lines of the table `[redis]`.
    pub redis: String,
    /// More lines of the table `[server]`.
    pub server: String,
}

impl Config {
    /// So many apps without a rate limit.
    pub fn apps(count: usize) -> Self {
        Self {
            apps: (0..count).map(AppKeys::numbered).collect(),
            extra: String::new(),
            redis: String::new(),
            // All tests call from one address, and many with credentials that are refused.
            server: "refused_credentials = { burst = 1_000_000 }\n".to_owned(),
        }
    }

    /// So many apps, each with that limit.
    pub fn limited(count: usize, limit: RateLimit) -> Self {
        let mut config = Self::apps(count);
        for app in &mut config.apps {
            app.rate_limit = limit;
        }
        config
    }

    pub fn toml(&self, redis_url: &str) -> String {
        self.toml_with(&format!("url = {}", quoted(redis_url)))
    }

    /// With that in the table `[redis]`.
    pub fn toml_with(&self, redis: &str) -> String {
        // A machine with too much to do must not look like a Redis that does not answer.
        let said = [redis, &self.redis, &self.extra];
        let patient = match said.iter().any(|text| text.contains("response_timeout_ms")) {
            true => "",
            false => "response_timeout_ms = 3000\n",
        };
        let mut text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{}\n[redis]\n{redis}\n{patient}{}\n\n{}\n",
            self.server, self.redis, self.extra
        );
        for app in &self.apps {
            let RateLimit {
                per_second,
                burst,
                scope,
            } = app.rate_limit;
            write!(
                text,
                "[[apps]]\nid = {}\nserver_keys = [{}]\n\
                 rate_limit = {{ per_second = {per_second}, burst = {burst}, scope = \"{scope}\" }}\n\
                 [apps.imkit]\nclient_keys = [{}]\njwt_secret = {}\nuser_share = {:?}\n\
                 [apps.tencent]\nsdkappid = {}\nsecret_key = {}\nadmins = [{}]\n\
                 [apps.sendbird]\napplication_id = {}\nmaster_token = {}\napi_tokens = [{}]\n\n",
                quoted(&app.id),
                quoted(&app.server_key),
                quoted(&app.client_key),
                quoted(&app.jwt_secret),
                app.user_share,
                app.sdkappid,
                quoted(&app.secret_key),
                quoted(&app.admin),
                quoted(&app.application_id),
                quoted(&app.master_token),
                quoted(&app.api_token),
            )
            .unwrap();
        }
        text
    }
}

/// A TOML basic string; JSON's escapes are a subset of TOML's.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

// ---------------------------------------------------------------------------------------------------------- commands

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

// ---------------------------------------------------------------------------------------------------------- pods

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
    /// Started, listening and ready.
    pub fn start(config: &Config, redis: &RedisServer) -> Self {
        Self::start_at(config, &redis.url())
    }

    /// The same, with the address of whatever it is.
    pub fn start_at(config: &Config, redis_url: &str) -> Self {
        let pod = Self::start_unready(config, redis_url);
        until("the pod's /readyz", || pod.is_ready().then_some(()));
        pod
    }

    /// Started and listening; whether it is ready is the test's own question.
    pub fn start_unready(config: &Config, redis_url: &str) -> Self {
        Self::start_toml(&config.toml(redis_url))
    }

    /// By that clock; ready.
    #[allow(dead_code, reason = "not every suite sets clocks")]
    pub fn by_clock(clock: &clock::Clock, config: &Config, redis_url: &str) -> Self {
        let mut command = unread();
        command.env("UNREAD_SERVER__DRAIN_SECONDS", "0");
        command.envs(clock.environment());
        let pod = Self::start_by(command, &config.toml(redis_url));
        until("the pod's /readyz", || pod.is_ready().then_some(()));
        pod
    }

    /// The same with the whole file given.
    pub fn start_toml(toml: &str) -> Self {
        let mut command = unread();
        command.env("UNREAD_SERVER__DRAIN_SECONDS", "0");
        Self::start_by(command, toml)
    }

    /// The same by a command to which `serve` and its file are only to be added.
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

    #[allow(dead_code, reason = "only the fault tests look at its memory")]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the pod still runs").id()
    }

    pub fn is_ready(&self) -> bool {
        self.admin_status("/readyz") == Some(200)
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

    /// Is told to end; [`Pod::ended`] waits for it.
    pub fn ask_to_end(&self) {
        signal(self.child.as_ref().expect("the pod still runs"), "TERM");
    }

    /// Is sent a signal.
    #[allow(dead_code, reason = "not every suite sends one")]
    pub fn signal(&self, name: &str) {
        signal(self.child.as_ref().expect("the pod still runs"), name);
    }

    /// The most memory it has had so far, in bytes.
    #[cfg(target_os = "linux")]
    pub fn peak_memory(&self) -> u64 {
        let pid = self.child.as_ref().expect("the pod still runs").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .unwrap();
        peak.parse::<u64>().unwrap() * 1024
    }

    /// Dies at once, in the middle of whatever it does.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Is asked to end; answers its exit code (none when a signal ended it).
    pub fn term(&mut self) -> Option<i32> {
        self.ask_to_end();
        self.ended()
    }

    /// The exit code of a pod that was told to end (none when a signal ended it).
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

// ---------------------------------------------------------------------------------------------------------- fixture

/// More than there are tests that call [`app`].
const SHARED_APPS: usize = 128;

/// One Redis and one pod for all tests of this process that need nothing special; each test has an app of its own.
struct Shared {
    pod: Pod,
    config: Config,
    handed_out: AtomicUsize,
    /// The log is shown once, however many clients a failing test drops.
    shown: AtomicBool,
    redis: RedisServer,
}

/// Weak, so that the last test to end also ends the servers: a static is never dropped.
static SHARED: Mutex<Weak<Shared>> = Mutex::new(Weak::new());

/// A fresh app on the shared pod.
pub fn app() -> App {
    // A test that panicked while starting the servers must not fail the others by poisoning.
    let mut slot = SHARED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let shared = slot.upgrade().unwrap_or_else(|| {
        let redis = RedisServer::start();
        let config = Config::apps(SHARED_APPS);
        let pod = Pod::start(&config, &redis);
        Arc::new(Shared {
            pod,
            config,
            handed_out: AtomicUsize::new(0),
            shown: AtomicBool::new(false),
            redis,
        })
    });
    *slot = Arc::downgrade(&shared);
    drop(slot);
    let n = shared.handed_out.fetch_add(1, Ordering::Relaxed);
    let keys = shared
        .config
        .apps
        .get(n)
        .expect("raise SHARED_APPS")
        .clone();
    let mut app = App::new(&keys, &shared.pod.base);
    app.shared = Some(shared);
    app
}

// ---------------------------------------------------------------------------------------------------------- client

/// When `POST /v1/events` answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    Applied,
    Accepted,
}

/// An HTTP answer, read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    /// Null when the body was not JSON.
    pub body: Value,
    pub text: String,
}

impl Reply {
    /// The body of an answer that has to be a 200.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.body
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// A client of one app, speaking all five dialects to one pod.
#[derive(Clone)]
pub struct App {
    pub keys: AppKeys,
    pub base: String,
    client: reqwest::Client,
    shared: Option<Arc<Shared>>,
}

impl App {
    pub fn new(keys: &AppKeys, base: &str) -> Self {
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .no_proxy()
            .build()
            .unwrap();
        Self {
            keys: keys.clone(),
            base: base.to_owned(),
            client,
            shared: None,
        }
    }

    /// The same app by way of another pod, with connections of its own.
    pub fn on(&self, base: &str) -> Self {
        let mut other = Self::new(&self.keys, base);
        other.shared.clone_from(&self.shared);
        other
    }

    /// Only for an app of the shared fixture: that its pod kept all secrets of all apps to itself.
    pub fn assert_no_secret_logged(&self) {
        let shared = self.shared.as_ref().expect("an app of the shared fixture");
        shared.pod.assert_no_secret_logged(&shared.config);
    }

    /// Only for an app of the shared fixture: the address of its Redis.
    pub fn redis_url(&self) -> String {
        let shared = self.shared.as_ref().expect("an app of the shared fixture");
        shared.redis.url()
    }

    pub fn request(
        &self,
        method: reqwest::Method,
        path_and_query: &str,
    ) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}{path_and_query}", self.base))
    }

    /// Sends, and reads the answer; an error is one of the connection, never of HTTP.
    pub async fn try_send(request: reqwest::RequestBuilder) -> Result<Reply, reqwest::Error> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect();
        let text = response.text().await?;
        // So that a shell's prompt does not stand behind it.
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "no line feed at the end: {text}"
        );
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Reply {
            status,
            headers,
            body,
            text,
        })
    }

    pub async fn send(request: reqwest::RequestBuilder) -> Reply {
        Self::try_send(request).await.unwrap()
    }

    // ------------------------------------------------------------------------------------------------ native

    pub fn native(&self, method: reqwest::Method, path_and_query: &str) -> reqwest::RequestBuilder {
        self.request(method, path_and_query)
            .bearer_auth(&self.keys.server_key)
    }

    fn post_events(&self, wait: Wait, content_type: &str, body: String) -> reqwest::RequestBuilder {
        let wait = match wait {
            Wait::Applied => "applied",
            Wait::Accepted => "accepted",
        };
        self.native(reqwest::Method::POST, &format!("/v1/events?wait={wait}"))
            .header("content-type", content_type)
            .body(body)
    }

    /// One event object or an array of them.
    pub async fn events(&self, events: &Value, wait: Wait) -> Reply {
        Self::send(self.post_events(wait, "application/json", events.to_string())).await
    }

    /// Like [`App::events`], for a test that expects connections to break.
    pub async fn try_events(&self, events: &Value, wait: Wait) -> Result<Reply, reqwest::Error> {
        Self::try_send(self.post_events(wait, "application/json", events.to_string())).await
    }

    /// One event on each line.
    pub async fn events_ndjson(&self, events: &[Value], wait: Wait) -> Reply {
        let lines: Vec<String> = events.iter().map(Value::to_string).collect();
        Self::send(self.post_events(wait, "application/x-ndjson", lines.join("\n"))).await
    }

    /// Sends events of which none may be rejected; answers their results.
    #[track_caller]
    pub fn must<'a>(&'a self, events: &'a Value) -> impl Future<Output = Vec<Value>> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let reply = self.events(events, Wait::Applied).await;
            assert_eq!(reply.status, 200, "events sent at {caller}: {}", reply.text);
            assert_eq!(
                reply.body["rejected"], 0,
                "events sent at {caller}: {}",
                reply.text
            );
            reply.body["results"].as_array().unwrap().clone()
        }
    }

    pub async fn unread(&self, user: &str, include_rooms: bool) -> Reply {
        let include = if include_rooms { "?include=rooms" } else { "" };
        Self::send(self.native(
            reqwest::Method::GET,
            &format!("/v1/users/{}/unread{include}", escaped(user)),
        ))
        .await
    }

    pub async fn unread_many<S: AsRef<str>>(&self, users: &[S]) -> Reply {
        let users: Vec<&str> = users.iter().map(AsRef::as_ref).collect();
        Self::send(
            self.native(reqwest::Method::POST, "/v1/unread")
                .json(&json!({ "users": users })),
        )
        .await
    }

    /// `users` go into a comma list, so none of them may have a comma.
    pub async fn room_unread<S: AsRef<str>>(&self, room: &str, users: Option<&[S]>) -> Reply {
        let users = users.map_or(String::new(), |users| {
            let users: Vec<String> = users.iter().map(|user| escaped(user.as_ref())).collect();
            format!("?users={}", users.join(","))
        });
        Self::send(self.native(
            reqwest::Method::GET,
            &format!("/v1/rooms/{}/unread{users}", escaped(room)),
        ))
        .await
    }

    // ------------------------------------------------------------------------------------------------ IMKIT

    pub fn imkit(
        &self,
        method: reqwest::Method,
        path_and_query: &str,
        user: &str,
    ) -> reqwest::RequestBuilder {
        self.request(method, path_and_query)
            .header("IM-CLIENT-KEY", &self.keys.client_key)
            .header(
                "IM-Authorization",
                imkit_token(&self.keys.jwt_secret, user, now_seconds() + 3600),
            )
    }

    /// `None`: no body at all.
    pub async fn imkit_badges<S: AsRef<str>>(&self, user: &str, tags: Option<&[S]>) -> Reply {
        let request = self.imkit(reqwest::Method::POST, "/badges/byRoomTags", user);
        Self::send(match tags {
            Some(tags) => {
                let tags: Vec<&str> = tags.iter().map(AsRef::as_ref).collect();
                request.json(&json!({ "tags": tags }))
            }
            None => request,
        })
        .await
    }

    /// `query`: parameters, not yet encoded.
    pub async fn imkit_rooms(&self, user: &str, query: &[(String, String)]) -> Reply {
        let query: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
            .collect();
        let path = if query.is_empty() {
            "/rooms".to_owned()
        } else {
            format!("/rooms?{}", query.join("&"))
        };
        Self::send(self.imkit(reqwest::Method::GET, &path, user)).await
    }

    // ------------------------------------------------------------------------------------------------ Tencent

    pub fn tencent(&self, body: &Value) -> reqwest::RequestBuilder {
        let AppKeys {
            sdkappid,
            secret_key,
            admin,
            ..
        } = &self.keys;
        let usersig = tencent_usersig(*sdkappid, secret_key, admin, now_seconds(), 3600);
        let query = format!(
            "sdkappid={sdkappid}&identifier={}&usersig={}&random=99999999&contenttype=json",
            escaped(admin),
            escaped(&usersig)
        );
        self.request(
            reqwest::Method::POST,
            &format!("/v4/openim/get_c2c_unread_msg_num?{query}"),
        )
        .body(body.to_string())
    }

    pub async fn tencent_total(&self, to: &str) -> Reply {
        Self::send(self.tencent(&json!({ "To_Account": to }))).await
    }

    pub async fn tencent_peers<S: AsRef<str>>(&self, to: &str, peers: &[S]) -> Reply {
        let peers: Vec<&str> = peers.iter().map(AsRef::as_ref).collect();
        Self::send(self.tencent(&json!({ "To_Account": to, "Peer_Account": peers }))).await
    }

    // ------------------------------------------------------------------------------------------------ Sendbird

    pub fn sendbird_request(
        &self,
        user: &str,
        keys: Option<&str>,
        types: Option<&str>,
    ) -> reqwest::RequestBuilder {
        let mut query = Vec::new();
        if let Some(keys) = keys {
            query.push(format!("item_keys={}", escaped(keys)));
        }
        if let Some(types) = types {
            query.push(format!("custom_types={}", escaped(types)));
        }
        let query = if query.is_empty() {
            String::new()
        } else {
            format!("?{}", query.join("&"))
        };
        self.request(
            reqwest::Method::GET,
            &format!("/v3/users/{}/unread_item_count{query}", escaped(user)),
        )
        .header("Api-Token", &self.keys.api_token)
    }

    /// `keys` and `types` as comma lists; `None`: the parameter is left out.
    pub async fn sendbird(&self, user: &str, keys: Option<&str>, types: Option<&str>) -> Reply {
        Self::send(self.sendbird_request(user, keys, types)).await
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // The shared pod outlives the test that fails, so its log is shown from here.
        if let (true, Some(shared)) = (std::thread::panicking(), &self.shared)
            && !shared.shown.swap(true, Ordering::Relaxed)
        {
            eprintln!("--- the shared pod logged last:\n{}", shared.pod.log_tail());
        }
    }
}

/// Bytes to an address over a connection of its own, and all that comes back. They have to ask for the connection's end.
pub fn raw(address: &str, request: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Everything but letters and digits percent-encoded: right in a path segment and in a query value alike.
pub fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

// ---------------------------------------------------------------------------------------------------------- tokens

pub fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// A JWT as IMKIT's own server issues it: HS256 over `{id, exp, iat}`.
pub fn imkit_token(secret: &str, user: &str, exp: u64) -> String {
    imkit_token_of(
        secret,
        &json!({ "id": user, "exp": exp, "iat": exp.saturating_sub(3600) }),
    )
}

pub fn imkit_token_of(secret: &str, claims: &Value) -> String {
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let body = URL_SAFE_NO_PAD.encode(claims.to_string());
    let signed = format!("{head}.{body}");
    let mac = URL_SAFE_NO_PAD.encode(hmac_sha256(secret.as_bytes(), signed.as_bytes()));
    format!("{signed}.{mac}")
}

/// A UserSig as the vendor's packages make it (TLSSigAPIv2).
pub fn tencent_usersig(
    sdkappid: u64,
    key: &str,
    identifier: &str,
    time: u64,
    expire: u64,
) -> String {
    let signed = format!(
        "TLS.identifier:{identifier}\nTLS.sdkappid:{sdkappid}\nTLS.time:{time}\nTLS.expire:{expire}\n"
    );
    let sig = STANDARD.encode(hmac_sha256(key.as_bytes(), signed.as_bytes()));
    let document = json!({
        "TLS.ver": "2.0",
        "TLS.identifier": identifier,
        "TLS.sdkappid": sdkappid,
        "TLS.expire": expire,
        "TLS.time": time,
        "TLS.sig": sig,
    });
    pack_usersig(&document)
}

/// The document of a UserSig in the form in which it travels.
pub fn pack_usersig(document: &Value) -> String {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(document.to_string().as_bytes()).unwrap();
    STANDARD
        .encode(zlib.finish().unwrap())
        .replace('+', "*")
        .replace('/', "-")
        .replace('=', "_")
}

#[test]
fn tokens_agree_with_the_vendors_vectors() {
    let claims: Value =
        serde_json::from_str(r#"{"id":"alice","exp":1700604800,"iat":1700000000}"#).unwrap();
    let token = imkit_token_of("imkit-test-secret-not-real", &claims);
    let signature = |token: &str, text: &str| {
        let head = token.split('.').next().unwrap();
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(text));
        URL_SAFE_NO_PAD.encode(hmac_sha256(
            b"imkit-test-secret-not-real",
            signed.as_bytes(),
        ))
    };
    // The vector's order of the claims is the vendor's; ours may differ, the construction may not.
    assert_eq!(
        signature(
            &token,
            r#"{"id":"alice","exp":1700604800,"iat":1700000000}"#
        ),
        "GHxJYe4ZD1UISLdWtthL5oc0VSgv7Hw_n3LaEgEpf-Y"
    );

    let usersig = tencent_usersig(
        1_400_000_001,
        "unread-test-key-0001-not-a-real-secret",
        "administrator",
        1_700_000_000,
        86_400,
    );
    let bytes = STANDARD
        .decode(
            usersig
                .replace('*', "+")
                .replace('-', "/")
                .replace('_', "="),
        )
        .unwrap();
    let mut text = String::new();
    flate2::read::ZlibDecoder::new(bytes.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        document["TLS.sig"],
        "ggKkeFaSAmBJaUW1wtnZB3sDDUsMxkxMPwKWbyUxRNI="
    );
}

/// The processes' own side of the house: what restarts keeps its data, what is dropped is gone.
#[test]
fn a_durable_redis_survives_its_own_death() {
    let mut redis = RedisServer::start_durable();
    assert_eq!(redis.cli(&["SET", "k", "v"]), "OK");
    redis.kill9();
    assert!(redis.inline("PING").is_none());
    redis.restart();
    assert_eq!(redis.cli(&["GET", "k"]), "v");
    redis.stop();
}

/// A Redis, a pod and one app that no other test uses.
#[allow(dead_code, reason = "only the integration tests use it")]
pub struct Own {
    pub redis: RedisServer,
    pub config: Config,
    pub pod: Pod,
    pub app: App,
}

#[allow(dead_code, reason = "only the integration tests use it")]
impl Own {
    /// With more TOML in the configuration, or none.
    pub fn start(extra: &str) -> Self {
        let redis = RedisServer::start();
        let mut config = Config::apps(1);
        config.extra = extra.to_owned();
        let pod = Pod::start(&config, &redis);
        let app = App::new(&config.apps[0], &pod.base);
        Self {
            redis,
            config,
            pod,
            app,
        }
    }
}
