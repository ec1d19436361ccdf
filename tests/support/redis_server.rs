//! One `redis-server`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::clock;
use super::process::{Reaped, signal};
use super::wait::{PATIENCE, until};

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A private `redis-server` with a directory of its own; gone when dropped.
pub struct RedisServer {
    child: Option<Child>,
    pub port: u16,
    dir: tempfile::TempDir,
    options: Vec<String>,
    /// The user and password by which the tests ask, where the default user may not.
    login: Option<(String, String)>,
    /// More variables of its environment.
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

    /// A server that runs by that clock, also when it is started again. Its allocator has a thread that waits until moments of the
    /// realtime clock. On a clock that is behind these moments have passed already, and the thread would take a core for itself, so
    /// the server does without it.
    pub fn by_clock(clock: &clock::Clock, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = [options, &["--jemalloc-bg-thread", "no"]].concat();
        Self::start_as(dir, None, &options, clock.environment())
    }

    /// A server in that directory, which may hold files that the options name; `login`: the user by which the tests ask.
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
        // So that it ends also when the waiting is given up.
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
    pub fn inline(&self, command: &str) -> Option<String> {
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

    /// Ends the server as an operator would.
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

    /// Stops the server in the middle of its work; its connections stay.
    pub fn freeze(&self) {
        signal(self.child.as_ref().expect("it runs"), "STOP");
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        signal(self.child.as_ref().expect("it runs"), "CONT");
    }

    /// A connection of the test's own.
    pub fn connect(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_connection().unwrap()
    }

    /// How often each command was called since the statistics were reset.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        let calls = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let calls = rest.split(',').next()?.parse().ok()?;
            Some((name.to_owned(), calls))
        };
        let statistics = self.cli(&["INFO", "commandstats"]);
        statistics.lines().filter_map(calls).collect()
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
        replica.in_step();
        replica
    }

    /// Waits until this replica has caught up with its master.
    pub fn in_step(&self) {
        until("the replica is in step", || {
            (self.info("master_link_status")? == "up").then_some(())
        });
    }

    /// Stops the server and starts it with the same port and directory.
    pub fn restart(&mut self) {
        self.stop();
        until("redis-server on its old port", || {
            self.try_start().then_some(())
        });
    }

    /// The same, with these options on top. Comes back as soon as the server says that it is loading.
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

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
