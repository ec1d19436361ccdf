//! One server: a few connections that all requests share, and a small pool for admin work.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use deadpool_redis::{Manager, Pool, PoolError, Runtime, TimeoutType};
use redis::aio::ConnectionLike;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, Value,
};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::condition::Condition;
use super::link::{Link, NO_CONNECTION, Outgoing};
use super::route::{Route, timed_out};
use super::tls;
use crate::config::{Host, RedisAddress, RedisConfig};
use crate::error::{Error, Result};
use crate::telemetry::metrics::Metrics;

/// Commands that one pipeline may hold, so that a reply is never held up behind thousands of others.
const PIPELINE: usize = 128;
/// How long a peer that is gone without a word is taken for alive.
const SILENCE: Duration = Duration::from_secs(10);

/// How connections are made and how long anything may take.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) connect: Duration,
    pub(super) response: Duration,
    connections: usize,
    certificates: Option<TlsCertificates>,
    tls: Option<TlsConnector>,
    login: RedisConnectionInfo,
}

impl Settings {
    pub(super) fn new(config: &RedisConfig, address: &RedisAddress) -> Result<Self> {
        let read = |key: &str, file: &Option<std::path::PathBuf>| match file {
            Some(path) => std::fs::read(path).map(Some).map_err(|error| {
                Error::Internal(format!("redis.{key}: {}: {error}", path.display()))
            }),
            None => Ok(None),
        };
        let certificates = match address.tls {
            true => Some(TlsCertificates {
                root_cert: read("ca_file", &config.ca_file)?,
                client_tls: read("cert_file", &config.cert_file)?
                    .zip(read("key_file", &config.key_file)?)
                    .map(|(client_cert, client_key)| ClientTlsConfig {
                        client_cert,
                        client_key,
                    }),
            }),
            false => None,
        };
        if certificates.is_some() {
            // An error means that there is one already.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let tls = certificates.as_ref().map(tls::connector).transpose();
        let tls = tls.map_err(bad_files)?;
        Ok(Self {
            connect: Duration::from_millis(config.connect_timeout_ms),
            response: Duration::from_millis(config.response_timeout_ms),
            connections: config.connections.max(1),
            certificates,
            tls,
            login: login(address.user.as_deref(), address.password.as_deref()),
        })
    }

    /// One deadline over connecting, being sent elsewhere, and answering.
    pub(super) fn deadline(&self) -> Duration {
        self.connect + self.response
    }

    /// The same connections with another login.
    pub(super) fn with_login(&self, user: Option<&str>, password: Option<&str>) -> Self {
        Self {
            login: login(user, password),
            ..self.clone()
        }
    }

    /// The same connections to another database.
    pub(super) fn with_db(&self, db: i64) -> Self {
        Self {
            login: self.login.clone().set_db(db),
            ..self.clone()
        }
    }

    /// A server of a cluster, or a master.
    pub(super) fn host(&self, (host, port): &Host) -> RedisResult<ConnectionInfo> {
        let (host, port) = (host.clone(), *port);
        let addr = match self.certificates {
            Some(_) => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            },
            None => ConnectionAddr::Tcp(host, port),
        };
        Ok(addr
            .into_connection_info()?
            .set_redis_settings(self.login.clone()))
    }

    /// A client with the TCP and TLS settings filled in, of which all connections are made.
    fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
        let keepalive = TcpKeepalive::new()
            .with_time(SILENCE / 2)
            .with_interval(SILENCE / 4)
            .with_retries(2);
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(keepalive);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(SILENCE);
        // The library would tell the server its name by CLIENT SETINFO, which Redis 7.0 does not know and which our user
        // need not be allowed: a denial would stand in the server's log.
        let login = info.redis_settings().clone().set_skip_set_lib_name();
        let info = info.set_tcp_settings(tcp).set_redis_settings(login);
        match (&self.certificates, info.addr()) {
            (Some(certificates), ConnectionAddr::TcpTls { .. }) => {
                Client::build_with_tls(info, certificates.clone())
            }
            _ => Client::open(info),
        }
    }
}

fn bad_files(why: impl std::fmt::Display) -> Error {
    Error::Internal(format!(
        "redis.ca_file, cert_file or key_file can't be used: {why}"
    ))
}

fn login(user: Option<&str>, password: Option<&str>) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default();
    if let Some(user) = user {
        login = login.set_username(user);
    }
    if let Some(password) = password {
        login = login.set_password(password);
    }
    login
}

thread_local! {
    /// Which of the HTTP workers this thread is.
    static WORKER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Says that this thread is an HTTP worker: it then has a line of its own to each server (or shares it with few others),
/// which it drives itself, so that neither commands nor answers have to wake another thread.
pub(super) fn this_is_a_worker() {
    static WORKERS: AtomicUsize = AtomicUsize::new(0);
    WORKER.set(Some(WORKERS.fetch_add(1, Ordering::Relaxed)));
}

/// How stubbornly a connection is made again.
#[derive(Clone, Copy)]
pub(super) enum Reconnect {
    /// A caller waits for it: there is nowhere else to go.
    Patient,
    /// A caller is told at once: somebody else may have taken over.
    Brisk,
}

/// One shared connection. It makes itself anew when it breaks, but not when it has gone silent, which nobody tells: then
/// another one takes its place.
#[derive(Clone)]
struct Line {
    link: Link,
    answers: Arc<AtomicU64>,
}

/// A shared connection that something is sent over.
struct Sending {
    line: Line,
    /// Of the lines it is one of.
    renewals: u64,
    /// What had been answered before.
    before: u64,
}

/// All shared connections to a server.
struct Lines {
    /// How often all were made anew.
    renewals: u64,
    /// One half for the HTTP workers, the other one for all other threads: a line is driven by who uses it first.
    all: Vec<Line>,
}

/// One server.
pub(super) struct Node {
    /// What the log calls it: host and port, never a password.
    pub(super) name: String,
    pub(super) host: String,
    shared: ArcSwap<Lines>,
    next: AtomicUsize,
    /// How they are made.
    route: Arc<Route>,
    admin: Pool,
    /// Whether it answered when last asked.
    up: AtomicBool,
    /// How often it stopped to answer.
    losses: AtomicU64,
    /// When it answered last, in milliseconds since `born`.
    answered: AtomicU64,
    born: Instant,
    response: Duration,
    /// Whether something sent to it was not answered in time, and nothing has been answered since. Then one request at
    /// a time waits for it, and all others are refused at once: they would fill the pod up with waiting.
    stuck: AtomicBool,
    /// Whether that one is waiting.
    tried: AtomicBool,
    /// Only a master that sentinels may replace.
    retired: Option<watch::Sender<bool>>,
    /// What is known to be wrong with it.
    pub(super) condition: Condition,
}

impl Lines {
    /// So many, prepared; they are made when first used.
    fn new(route: &Arc<Route>, count: usize, renewals: u64) -> Arc<Self> {
        let line = |_| Line {
            link: Link::new(Arc::clone(route)),
            answers: Arc::default(),
        };
        let all = (0..count).map(line).collect();
        Arc::new(Self { renewals, all })
    }

    fn half(&self) -> usize {
        (self.all.len() / 2).max(1)
    }
}

impl Node {
    /// Prepares the connections; they are made when first used.
    pub(super) fn new(
        info: ConnectionInfo,
        settings: &Settings,
        reconnect: Reconnect,
        metrics: Option<Arc<Metrics>>,
    ) -> Result<Self> {
        // A cause of an address error could repeat the address, which may hold a password: it isn't shown.
        let bad = |error: RedisError| match settings.certificates {
            Some(_) => bad_files(error),
            None => Error::Unavailable("redis.url can't be used as an address".into()),
        };
        let client = settings.client(info).map_err(bad)?;
        let retries = match reconnect {
            Reconnect::Patient => 6,
            Reconnect::Brisk => 0,
        };
        let info = client.get_connection_info().clone();
        let route = Arc::new(Route {
            info: info.clone(),
            tls: settings.tls.clone(),
            connect: settings.connect,
            response: settings.response,
            retries,
        });
        let shared = Lines::new(&route, 2 * settings.connections, 0);
        let long = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.connect))
            .set_response_timeout(Some(settings.response * 5));
        let (host, name) = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                (host.clone(), format!("{host}:{port}"))
            }
            other => (String::new(), other.to_string()),
        };
        let admin = Pool::builder(Manager::new_with_config(info, long).map_err(bad)?)
            .max_size(4)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(settings.connect))
            .create_timeout(Some(settings.connect))
            .recycle_timeout(Some(settings.connect))
            .build()
            .map_err(|_| Error::Internal("no connections can be prepared".into()))?;
        Ok(Self {
            condition: Condition::new(name.clone(), metrics),
            name,
            host,
            shared: ArcSwap::new(shared),
            next: AtomicUsize::new(0),
            route,
            admin,
            up: AtomicBool::new(false),
            losses: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            born: Instant::now(),
            response: settings.response,
            stuck: AtomicBool::new(false),
            tried: AtomicBool::new(false),
            retired: None,
        })
    }

    /// One that may be [retired](Self::retire).
    pub(super) fn retirable(self) -> Self {
        Self {
            retired: Some(watch::Sender::new(false)),
            ..self
        }
    }

    /// One of the shared connections, to send something over.
    fn line(&self, at: usize) -> RedisResult<Sending> {
        let lines = self.shared.load();
        let line = lines.all.get(at);
        let line = line.ok_or((ErrorKind::Client, "no connection is configured"))?;
        Ok(Sending {
            line: line.clone(),
            renewals: lines.renewals,
            before: line.answers.load(Ordering::Relaxed),
        })
    }

    /// Takes note of what came back over a connection.
    fn came<T>(&self, sending: &Sending, answer: &RedisResult<T>) {
        let answers = &sending.line.answers;
        match answer {
            Ok(_) => {
                answers.fetch_add(1, Ordering::Relaxed);
            }
            // Nothing at all has come for as long as an answer may take.
            Err(error)
                if error.is_timeout() && answers.load(Ordering::Relaxed) == sending.before =>
            {
                self.renew(sending.renewals);
            }
            Err(_) => {}
        }
    }

    /// New lines for all, once: what befell one has most likely befallen the others. What is still to come over the old
    /// ones comes.
    fn renew(&self, renewals: u64) {
        let old = self.shared.load();
        if old.renewals == renewals {
            let new = Lines::new(&self.route, old.all.len(), renewals + 1);
            self.shared.compare_and_swap(&old, new);
        }
    }

    /// Which line this thread uses next.
    fn turn(&self) -> usize {
        let half = self.shared.load().half();
        match WORKER.get() {
            Some(worker) => worker % half,
            None => half + self.next.fetch_add(1, Ordering::Relaxed) % half,
        }
    }

    /// Sends one command.
    pub(super) async fn one(&self, cmd: Outgoing<'_>) -> RedisResult<Value> {
        let sending = self.line(self.turn())?;
        let trial = self.trial()?;
        let link = &sending.line.link;
        let answer = match self.retired {
            None => link.one(cmd).await,
            Some(_) => Box::pin(self.unless_retired(link.one(cmd))).await,
        };
        self.came(&sending, &answer);
        let answer = answer.and_then(Value::extract_error);
        self.answered_by(&answer);
        drop(trial);
        answer
    }

    /// Sends one command that no request waits for, always on the same connection.
    pub(super) async fn ask(&self, cmd: &Cmd) -> RedisResult<Value> {
        let sending = self.line(self.shared.load().half())?;
        let answer = sending.line.link.one(cmd.into()).await;
        self.came(&sending, &answer);
        answer?.extract_error()
    }

    /// Sends independent commands in as few round trips as possible. Each has an answer of its own.
    pub(super) async fn many(&self, cmds: &[Outgoing<'_>]) -> Vec<RedisResult<Value>> {
        if let [cmd] = cmds
            && !cmd.asking
        {
            return vec![self.one(*cmd).await];
        }
        if cmds.len() <= PIPELINE {
            return self.pipeline(cmds).await;
        }
        let parts = cmds.chunks(PIPELINE).map(|part| self.pipeline(part));
        let parts = Box::pin(futures_util::future::join_all(parts)).await;
        parts.into_iter().flatten().collect()
    }

    async fn pipeline(&self, cmds: &[Outgoing<'_>]) -> Vec<RedisResult<Value>> {
        match self.together(cmds).await {
            Ok(answers) => answers,
            Err(error) => cmds.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn together(&self, cmds: &[Outgoing<'_>]) -> RedisResult<Vec<RedisResult<Value>>> {
        let sending = self.line(self.turn())?;
        let trial = self.trial()?;
        let ask = redis::cmd("ASKING");
        let before = |cmd: &Outgoing<'_>| cmd.asking.then_some((&ask).into());
        let all: Vec<Outgoing<'_>>;
        let sent = match cmds.iter().any(|cmd| cmd.asking) {
            false => cmds,
            true => {
                let cmds = cmds.iter();
                all = cmds
                    .flat_map(|cmd| before(cmd).into_iter().chain([*cmd]))
                    .collect();
                &all
            }
        };
        let link = &sending.line.link;
        let answers = match self.retired {
            None => link.many(sent).await,
            Some(_) => Box::pin(self.unless_retired(link.many(sent))).await,
        };
        self.came(&sending, &answers);
        self.answered_by(&answers);
        drop(trial);
        let mut answers = answers?.into_iter();
        let answers: Vec<RedisResult<Value>> = cmds
            .iter()
            .filter_map(|cmd| {
                if cmd.asking {
                    answers.next();
                }
                answers.next().map(Value::extract_error)
            })
            .collect();
        if answers.len() == cmds.len() {
            Ok(answers)
        } else {
            let why = "a pipeline answered fewer replies than commands";
            Err((ErrorKind::UnexpectedReturnType, why).into())
        }
    }

    /// A connection that nobody else uses meanwhile. Its errors speak of the server and not of how we keep connections, for
    /// callers read them.
    async fn one_of_its_own(&self) -> RedisResult<deadpool_redis::Connection> {
        let why = match self.admin.get().await {
            Ok(connection) => return Ok(connection),
            Err(PoolError::Backend(error)) => return Err(error),
            // It may be well: all are in use.
            Err(PoolError::Timeout(TimeoutType::Wait)) => {
                return Err((ErrorKind::Client, "too much is being asked at once").into());
            }
            Err(PoolError::Timeout(_)) => NO_CONNECTION,
            Err(PoolError::Closed) => return Err(replaced()),
            Err(_) => "no connection could be made",
        };
        Err(timed_out(why))
    }

    /// Sends one command on a connection of its own.
    pub(super) async fn admin(&self, cmd: &Cmd) -> RedisResult<Value> {
        let mut connection = self.one_of_its_own().await?;
        let answer = connection.req_packed_command(cmd);
        self.unless_retired(async { answer.await?.extract_error() })
            .await
    }

    /// Writes a key and waits for replicas, on a connection of its own; answers how many have it.
    pub(super) async fn confirm(
        &self,
        key: &str,
        replicas: u32,
        timeout: Duration,
    ) -> RedisResult<u64> {
        let mut connection = self.one_of_its_own().await?;
        let mut pipe = redis::Pipeline::with_capacity(2);
        pipe.cmd("SET").arg(key).arg(1).ignore();
        pipe.cmd("WAIT")
            .arg(replicas)
            .arg(timeout.as_millis() as u64);
        let answer = pipe.query_async::<(u64,)>(&mut connection);
        self.unless_retired(answer).await.map(|(have,)| have)
    }

    /// From now on nothing is sent to it, and what is under way is not waited for: another server has its place.
    pub(super) fn retire(&self) {
        self.condition.retire();
        if let Some(retired) = &self.retired {
            retired.send_replace(true);
        }
        self.admin.close();
    }

    /// Leave to wait for an answer, unless somebody else waits already for a server that is stuck.
    fn trial(&self) -> RedisResult<Option<Trial<'_>>> {
        match self.stuck.load(Ordering::Relaxed) {
            true => Trial::of(self).map(Some),
            false => Ok(None),
        }
    }

    /// Takes note of what came of a request.
    fn answered_by<T>(&self, answer: &RedisResult<T>) {
        let now = self.millis();
        match answer {
            // Others may have been answered meanwhile: then it is a connection that is silent, or the server is only slow.
            Err(error) if error.is_timeout() => {
                let lately = Duration::from_millis(
                    now.saturating_sub(self.answered.load(Ordering::Relaxed)),
                );
                if lately >= self.response {
                    self.stuck.store(true, Ordering::Relaxed);
                }
            }
            Err(error) if error.is_io_error() => {}
            // A refusal is an answer too.
            _ => {
                // Written once in a while only: all workers read it.
                if self.answered.load(Ordering::Relaxed) != now {
                    self.answered.store(now, Ordering::Relaxed);
                }
                if self.stuck.load(Ordering::Relaxed) {
                    self.stuck.store(false, Ordering::Relaxed);
                }
            }
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn unless_retired<T>(
        &self,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        let Some(retired) = &self.retired else {
            return answer.await;
        };
        let mut retired = retired.subscribe();
        tokio::select! {
            biased;
            _ = retired.wait_for(|retired| *retired) => {
                Err(replaced())
            }
            answer = answer => answer,
        }
    }

    /// How often it stopped to answer. Another number: another process may stand there now.
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// It answers; `freely`: what it refuses wherever it takes no writes.
    pub(super) fn answered(&self, freely: bool) {
        if !self.up.load(Ordering::Relaxed) {
            self.up.store(true, Ordering::Relaxed);
        }
        self.condition.answered(freely);
    }

    /// It does not answer.
    pub(super) fn lost(&self) {
        if self.up.swap(false, Ordering::Relaxed) {
            self.losses.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The error of a command whose master was replaced by another server.
fn replaced() -> RedisError {
    let why = "another server has become the master";
    std::io::Error::new(std::io::ErrorKind::ConnectionAborted, why).into()
}

/// The one request that waits for a server that is stuck.
struct Trial<'a>(&'a Node);

impl<'a> Trial<'a> {
    fn of(node: &'a Node) -> RedisResult<Self> {
        if node.tried.swap(true, Ordering::Acquire) {
            let why = "the server has not answered lately";
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, why).into());
        }
        Ok(Self(node))
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.0.tried.store(false, Ordering::Release);
    }
}
