//! One server: the links that all requests share, a small pool for admin work, and what is known of its state.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use deadpool_redis::{Manager, Pool, PoolError, Runtime, TimeoutType};
use redis::aio::ConnectionLike;
use redis::{Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, RedisResult, Value};
use tokio::sync::watch;

use super::breaker::{Breaker, Trial};
use super::condition::Condition;
use super::condition::{NO_CONNECTION, is_no_connection};
use super::dialer::{Dialer, timed_out};
use super::link::Link;
use super::outgoing::Outgoing;
use super::settings::ConnectionSettings;
use crate::error::{Error, Result};
use crate::telemetry::metrics::Metrics;

/// Commands that one pipeline may hold, so that a reply is never held up behind thousands of others.
const PIPELINE: usize = 128;
/// Connections for admin work.
const ADMIN: usize = 4;

thread_local! {
    /// Which of the HTTP workers this thread is.
    static WORKER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Says that this thread is an HTTP worker: it then has a link of its own to each server (or shares it with few others),
/// which it drives itself, so that neither commands nor replies have to wake another thread.
pub(super) fn this_is_a_worker() {
    static WORKERS: AtomicUsize = AtomicUsize::new(0);
    WORKER.set(Some(WORKERS.fetch_add(1, Ordering::Relaxed)));
}

/// What a request does while there is no connection.
#[derive(Clone, Copy)]
pub(super) enum Reconnect {
    /// It waits while the link tries again and again: there is nowhere else to go.
    Patient,
    /// It fails at the first refusal: another server may have taken over.
    Brisk,
}

/// All shared links to a server. A link reconnects by itself when its connection breaks, but nothing tells it that the
/// connection has gone silent. Then new links take the place of all.
struct Links {
    /// How often they were replaced.
    generation: u64,
    /// The first half is for the HTTP workers, the second one for all other threads: the thread that uses a link first drives it.
    all: Vec<SharedLink>,
}

#[derive(Clone)]
struct SharedLink {
    link: Link,
    /// Requests that were answered over it.
    answered: Arc<AtomicU64>,
}

/// A request that is under way over one of the links.
struct Attempt<'a> {
    shared: SharedLink,
    generation: u64,
    /// What `answered` was when it began.
    answered_before: u64,
    _trial: Option<Trial<'a>>,
}

/// One server.
pub(super) struct Node {
    /// What the log calls it: host and port, never a password.
    pub(super) name: String,
    pub(super) host: String,
    links: ArcSwap<Links>,
    /// The link that a thread which is no worker uses next.
    next: AtomicUsize,
    dialer: Arc<Dialer>,
    admin: Pool,
    breaker: Breaker,
    /// Whether it answered when last asked.
    up: AtomicBool,
    /// How often it went from up to down.
    outages: AtomicU64,
    /// Only of a master that sentinels may replace: whether they have.
    retired: Option<watch::Sender<bool>>,
    /// What is known to be wrong with it.
    pub(super) condition: Condition,
}

impl Links {
    /// Prepares `count` links, which connect when they are first used.
    fn new(dialer: &Arc<Dialer>, count: usize, generation: u64) -> Arc<Self> {
        let shared = |_| SharedLink {
            link: Link::new(Arc::clone(dialer)),
            answered: Arc::default(),
        };
        let all = (0..count).map(shared).collect();
        Arc::new(Self { generation, all })
    }

    fn half(&self) -> usize {
        (self.all.len() / 2).max(1)
    }
}

impl Node {
    /// Prepares the connections; they are made when first used.
    pub(super) fn new(
        info: ConnectionInfo,
        settings: &ConnectionSettings,
        reconnect: Reconnect,
        metrics: Option<Arc<Metrics>>,
    ) -> Result<Self> {
        let client = settings
            .client(info)
            .map_err(|error| settings.unusable(error))?;
        let info = client.get_connection_info().clone();
        let dialer = Arc::new(Dialer {
            info: info.clone(),
            tls: settings.tls.clone(),
            connect: settings.connect,
            response: settings.response,
            retries: match reconnect {
                Reconnect::Patient => 6,
                Reconnect::Brisk => 0,
            },
        });
        let (host, name) = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                (host.clone(), format!("{host}:{port}"))
            }
            other => (String::new(), other.to_string()),
        };
        Ok(Self {
            condition: Condition::new(name.clone(), metrics),
            name,
            host,
            links: ArcSwap::new(Links::new(&dialer, 2 * settings.connections, 0)),
            next: AtomicUsize::new(0),
            dialer,
            admin: admin_pool(info, settings)?,
            breaker: Breaker::new(settings.response),
            up: AtomicBool::new(false),
            outages: AtomicU64::new(0),
            retired: None,
        })
    }

    /// How connections to it are made.
    pub(super) fn dialer(&self) -> Arc<Dialer> {
        Arc::clone(&self.dialer)
    }

    /// One that may be [retired](Self::retire).
    pub(super) fn retirable(self) -> Self {
        Self {
            retired: Some(watch::Sender::new(false)),
            ..self
        }
    }

    /// Which link this thread uses next.
    fn next_link(&self) -> usize {
        let half = self.links.load().half();
        match WORKER.get() {
            Some(worker) => worker % half,
            None => half + self.next.fetch_add(1, Ordering::Relaxed) % half,
        }
    }

    /// Begins a request over one of the links, whatever the breaker says.
    fn begin_over(&self, link: usize) -> RedisResult<Attempt<'_>> {
        let links = self.links.load();
        let shared = links.all.get(link);
        let shared = shared.ok_or((ErrorKind::Client, "no connection is configured"))?;
        Ok(Attempt {
            shared: shared.clone(),
            generation: links.generation,
            answered_before: shared.answered.load(Ordering::Relaxed),
            _trial: None,
        })
    }

    /// Begins a request, if the breaker admits it.
    fn begin(&self) -> RedisResult<Attempt<'_>> {
        let attempt = self.begin_over(self.next_link())?;
        Ok(Attempt {
            _trial: self.breaker.admit()?,
            ..attempt
        })
    }

    /// Takes note of the result of a request, for its link.
    fn note<T>(&self, attempt: &Attempt<'_>, result: &RedisResult<T>) {
        let answered = &attempt.shared.answered;
        match result {
            Ok(_) => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            // Nothing has come over the link since this request was sent.
            Err(error)
                if error.is_timeout()
                    && !is_no_connection(error)
                    && answered.load(Ordering::Relaxed) == attempt.answered_before =>
            {
                self.replace_links(attempt.generation);
            }
            Err(_) => {}
        }
    }

    /// Takes note of the result of a request, for its link and for the breaker.
    fn end<T>(&self, attempt: &Attempt<'_>, result: &RedisResult<T>) {
        self.note(attempt, result);
        self.breaker.record(result);
    }

    /// Puts new links in the place of all, once for each generation: what befell one has most likely befallen the others.
    /// Requests that are under way over the old ones still get their replies.
    fn replace_links(&self, generation: u64) {
        let old = self.links.load();
        if old.generation == generation {
            let new = Links::new(&self.dialer, old.all.len(), generation + 1);
            self.links.compare_and_swap(&old, new);
        }
    }

    /// Sends one request.
    pub(super) async fn send(&self, request: Outgoing<'_>) -> RedisResult<Value> {
        let attempt = self.begin()?;
        let link = &attempt.shared.link;
        let reply = match self.retired {
            None => link.send(request).await,
            Some(_) => Box::pin(self.unless_retired(link.send(request))).await,
        };
        self.end(&attempt, &reply);
        reply.and_then(Value::extract_error)
    }

    /// Asks for what no caller waits for, always over the same link and past the breaker.
    pub(super) async fn ask(&self, cmd: &Cmd) -> RedisResult<Value> {
        let attempt = self.begin_over(self.links.load().half())?;
        let reply = attempt.shared.link.send(cmd.into()).await;
        self.note(&attempt, &reply);
        reply?.extract_error()
    }

    /// Sends independent requests in as few round trips as possible. Each has a reply of its own.
    pub(super) async fn send_all(&self, requests: &[Outgoing<'_>]) -> Vec<RedisResult<Value>> {
        if let [request] = requests
            && !request.asking
        {
            return vec![self.send(*request).await];
        }
        if requests.len() <= PIPELINE {
            return self.pipeline(requests).await;
        }
        let parts = requests.chunks(PIPELINE).map(|part| self.pipeline(part));
        let parts = Box::pin(futures_util::future::join_all(parts)).await;
        parts.into_iter().flatten().collect()
    }

    async fn pipeline(&self, requests: &[Outgoing<'_>]) -> Vec<RedisResult<Value>> {
        match self.send_pipeline(requests).await {
            Ok(replies) => replies,
            Err(error) => requests.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// Sends one pipeline. A request that was redirected here by the owner of its slot has ASKING in front of it.
    async fn send_pipeline(
        &self,
        requests: &[Outgoing<'_>],
    ) -> RedisResult<Vec<RedisResult<Value>>> {
        let attempt = self.begin()?;
        let asking = redis::cmd("ASKING");
        let with_asking: Vec<Outgoing<'_>>;
        let sent = match requests.iter().any(|request| request.asking) {
            false => requests,
            true => {
                let before = |request: &Outgoing<'_>| request.asking.then_some((&asking).into());
                with_asking = requests
                    .iter()
                    .flat_map(|request| before(request).into_iter().chain([*request]))
                    .collect();
                &with_asking
            }
        };
        let link = &attempt.shared.link;
        let replies = match self.retired {
            None => link.send_all(sent).await,
            Some(_) => Box::pin(self.unless_retired(link.send_all(sent))).await,
        };
        self.end(&attempt, &replies);
        let mut replies = replies?.into_iter();
        let replies: Vec<RedisResult<Value>> = requests
            .iter()
            .filter_map(|request| {
                if request.asking {
                    replies.next();
                }
                replies.next().map(Value::extract_error)
            })
            .collect();
        match replies.len() == requests.len() {
            true => Ok(replies),
            false => {
                let why = "a pipeline answered fewer replies than commands";
                Err((ErrorKind::UnexpectedReturnType, why).into())
            }
        }
    }

    /// A connection that nobody else uses meanwhile. Operators read its errors, so they speak of the server and not of the pool.
    async fn exclusive(&self) -> RedisResult<deadpool_redis::Connection> {
        let why = match self.admin.get().await {
            Ok(connection) => return Ok(connection),
            Err(PoolError::Backend(error)) => return Err(error),
            // The server may be well: all connections are in use.
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
        let mut connection = self.exclusive().await?;
        let reply = connection.req_packed_command(cmd);
        self.unless_retired(async { reply.await?.extract_error() })
            .await
    }

    /// Writes a key and waits for replicas, on a connection of its own; answers how many have it.
    pub(super) async fn confirm(
        &self,
        key: &str,
        replicas: u32,
        timeout: Duration,
    ) -> RedisResult<u64> {
        let mut connection = self.exclusive().await?;
        let mut pipe = redis::Pipeline::with_capacity(2);
        pipe.cmd("SET").arg(key).arg(1).ignore();
        pipe.cmd("WAIT")
            .arg(replicas)
            .arg(timeout.as_millis() as u64);
        let reply = pipe.query_async::<(u64,)>(&mut connection);
        self.unless_retired(reply).await.map(|(have,)| have)
    }

    /// Another server has its place: from now on nothing is sent to it, and requests that are under way fail at once.
    pub(super) fn retire(&self) {
        self.condition.retire();
        if let Some(retired) = &self.retired {
            retired.send_replace(true);
        }
        self.admin.close();
    }

    async fn unless_retired<T>(
        &self,
        reply: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        let Some(retired) = &self.retired else {
            return reply.await;
        };
        let mut retired = retired.subscribe();
        tokio::select! {
            biased;
            _ = retired.wait_for(|retired| *retired) => Err(replaced()),
            reply = reply => reply,
        }
    }

    /// How often it went from up to down. If the number has changed, another process may answer by now.
    pub(super) fn outages(&self) -> u64 {
        self.outages.load(Ordering::Relaxed)
    }

    /// It has answered; `wrote`: to a script that Redis refuses wherever it takes no writes.
    pub(super) fn note_answer(&self, wrote: bool) {
        if !self.up.load(Ordering::Relaxed) {
            self.up.store(true, Ordering::Relaxed);
        }
        self.condition.note_answer(wrote);
    }

    /// It does not answer.
    pub(super) fn lost(&self) {
        if self.up.swap(false, Ordering::Relaxed) {
            self.outages.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The pool for admin work, whose commands may take longer than others.
fn admin_pool(info: ConnectionInfo, settings: &ConnectionSettings) -> Result<Pool> {
    let slow = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(settings.connect))
        .set_response_timeout(Some(settings.response * 5));
    let manager = Manager::new_with_config(info, slow).map_err(|error| settings.unusable(error))?;
    Pool::builder(manager)
        .max_size(ADMIN)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(settings.connect))
        .create_timeout(Some(settings.connect))
        .recycle_timeout(Some(settings.connect))
        .build()
        .map_err(|_| Error::Internal("no connections can be prepared".into()))
}

/// The error of a command whose master was replaced by another server.
fn replaced() -> RedisError {
    let why = "another server has become the master";
    std::io::Error::new(std::io::ErrorKind::ConnectionAborted, why).into()
}
