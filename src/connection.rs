//! The connections to Redis: a few shared multiplexed ones that reconnect by themselves for the hot path, and a small pool
//! for admin work that wants a connection to itself. Time-outs live here, and so does the recovery from `NOSCRIPT`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_redis::{Manager, Pool, Runtime};
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use crate::config::RedisConfig;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::scripts::Call;

/// One thing to send: a plain command or a call of a script.
pub enum Item {
    /// A plain command.
    Plain(Cmd),
    /// A script.
    Script(Call),
}

impl Item {
    fn cmd(&self) -> &Cmd {
        match self {
            Item::Plain(cmd) => cmd,
            Item::Script(call) => &call.cmd,
        }
    }
}

/// A handle to Redis; clones share the connections.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Vec<ConnectionManager>,
    next: AtomicUsize,
    admin: Pool,
    deadline: Duration,
    up: AtomicBool,
    metrics: Arc<Metrics>,
}

/// Commands that one pipeline may hold, so that a reply is never held up behind thousands of others.
const PIPELINE: usize = 128;

impl Redis {
    /// Prepares the connections; they are made when first used, so this works while Redis is down.
    pub fn new(config: &RedisConfig, url: &str, metrics: Arc<Metrics>) -> Result<Self> {
        let connect = Duration::from_millis(config.connect_timeout_ms);
        let response = Duration::from_millis(config.response_timeout_ms);
        // A cause of an address error could repeat the address, which may hold a password: it isn't shown.
        let bad =
            |_: RedisError| Error::Unavailable("redis.url can't be used as an address".into());
        let info = redis::IntoConnectionInfo::into_connection_info(url).map_err(bad)?;
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let info = info.set_tcp_settings(tcp);
        let client = redis::Client::open(info.clone()).map_err(bad)?;
        let manager = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(connect))
            .set_response_timeout(Some(response))
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_millis(500))
            .set_exponent_base(2.0)
            .set_number_of_retries(6)
            .set_pipeline_buffer_size(1024);
        let shared = (0..config.connections.max(1))
            .map(|_| ConnectionManager::new_lazy_with_config(client.clone(), manager.clone()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(bad)?;
        let settings = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect))
            .set_response_timeout(Some(response * 5));
        let admin = Pool::builder(Manager::new_with_config(info, settings).map_err(bad)?)
            .max_size(4)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(connect))
            .create_timeout(Some(connect))
            .recycle_timeout(Some(connect))
            .build()
            .map_err(|_| Error::Internal("the admin pool can't be built".into()))?;
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                next: AtomicUsize::new(0),
                admin,
                // One deadline over reconnecting and answering.
                deadline: connect + response,
                up: AtomicBool::new(false),
                metrics,
            }),
        })
    }

    fn connection(&self) -> Result<ConnectionManager> {
        let n = self.inner.next.fetch_add(1, Ordering::Relaxed);
        self.inner
            .shared
            .get(n % self.inner.shared.len().max(1))
            .cloned()
            .ok_or_else(|| Error::Internal("no connection is configured".into()))
    }

    /// Runs one plain command.
    pub async fn query(&self, cmd: &Cmd) -> Result<Value> {
        let mut connection = self.connection()?;
        self.within(send(&mut connection, cmd)).await
    }

    /// Runs one script; a server that does not know it gets its text, once.
    pub async fn call(&self, call: &Call) -> Result<Value> {
        let mut connection = self.connection()?;
        let answer =
            tokio::time::timeout(self.inner.deadline, send(&mut connection, &call.cmd)).await;
        match answer {
            Ok(Err(error)) if is_no_script(&error) => {
                self.inner.metrics.script_reload();
                self.within(send(&mut connection, &call.with_text())).await
            }
            other => self.settle(other),
        }
    }

    /// Runs independent items in as few round trips as possible; their order among each other means nothing. The first
    /// error is the answer of all.
    pub async fn batch(&self, items: &[Item]) -> Result<Vec<Value>> {
        match items {
            [] => Ok(Vec::new()),
            [Item::Plain(cmd)] => Ok(vec![self.query(cmd).await?]),
            [Item::Script(call)] => Ok(vec![self.call(call).await?]),
            _ if items.len() <= PIPELINE => self.pipeline(items).await,
            _ => {
                let parts = items.chunks(PIPELINE).map(|part| self.pipeline(part));
                let parts = futures_util::future::try_join_all(parts).await?;
                Ok(parts.into_iter().flatten().collect())
            }
        }
    }

    async fn pipeline(&self, items: &[Item]) -> Result<Vec<Value>> {
        let mut connection = self.connection()?;
        let mut pipe = redis::Pipeline::with_capacity(items.len());
        pipe.ignore_errors();
        for item in items {
            pipe.add_command(item.cmd().clone());
        }
        let answers = self
            .within(connection.send_packed_commands(&pipe, 0, items.len()))
            .await?;
        let mut values = Vec::with_capacity(answers.len());
        for (item, answer) in items.iter().zip(answers) {
            match (item, answer) {
                (Item::Script(call), Value::ServerError(error))
                    if error.kind() == Some(ServerErrorKind::NoScript) =>
                {
                    self.inner.metrics.script_reload();
                    values.push(
                        self.within(send(&mut connection, &call.with_text()))
                            .await?,
                    );
                }
                (_, Value::ServerError(error)) => return Err(self.failed(error.into())),
                (_, value) => values.push(value),
            }
        }
        if values.len() != items.len() {
            return Err(Error::Internal(
                "a pipeline answered fewer replies than commands".into(),
            ));
        }
        Ok(values)
    }

    /// Runs one command on a connection of its own, for admin work.
    pub async fn admin(&self, cmd: &Cmd) -> Result<Value> {
        let mut connection = self
            .inner
            .admin
            .get()
            .await
            .map_err(|error| self.lost("pool", error.to_string()))?;
        self.within(send(&mut connection, cmd)).await
    }

    async fn within<T>(&self, answer: impl Future<Output = RedisResult<T>>) -> Result<T> {
        self.settle(tokio::time::timeout(self.inner.deadline, answer).await)
    }

    fn settle<T>(&self, answer: Result<RedisResult<T>, tokio::time::error::Elapsed>) -> Result<T> {
        match answer {
            Ok(Ok(value)) => {
                if !self.inner.up.load(Ordering::Relaxed)
                    && !self.inner.up.swap(true, Ordering::Relaxed)
                {
                    self.inner.metrics.redis_up(true);
                    tracing::info!("redis answers");
                }
                Ok(value)
            }
            Ok(Err(error)) => Err(self.failed(error)),
            Err(_) => Err(self.lost("timeout", "no answer in time".into())),
        }
    }

    fn failed(&self, error: RedisError) -> Error {
        let kind = match error.kind() {
            ErrorKind::Io if error.is_timeout() => "timeout",
            ErrorKind::Io => "io",
            ErrorKind::AuthenticationFailed => "auth",
            ErrorKind::Server(kind) => match kind {
                ServerErrorKind::BusyLoading => "loading",
                ServerErrorKind::ReadOnly => "readonly",
                ServerErrorKind::ResponseError
                | ServerErrorKind::ExecAbort
                | ServerErrorKind::CrossSlot => {
                    self.inner.metrics.redis_error("response");
                    return Error::Internal(error.to_string());
                }
                _ => "server",
            },
            ErrorKind::Extension => match error.code() {
                Some("OOM") => "oom",
                Some("NOAUTH" | "WRONGPASS" | "NOPERM") => "auth",
                Some("MISCONF" | "NOREPLICAS" | "BUSY" | "LOADING" | "READONLY") => "server",
                _ => {
                    self.inner.metrics.redis_error("response");
                    return Error::Internal(error.to_string());
                }
            },
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
                self.inner.metrics.redis_error("response");
                return Error::Internal(error.to_string());
            }
            _ => "client",
        };
        if matches!(kind, "io" | "timeout") {
            return self.lost(kind, error.to_string());
        }
        self.inner.metrics.redis_error(kind);
        Error::Unavailable(error.to_string())
    }

    /// Redis can't be reached: said once in the log when it begins, not once per request.
    fn lost(&self, kind: &'static str, why: String) -> Error {
        self.inner.metrics.redis_error(kind);
        if self.inner.up.swap(false, Ordering::Relaxed) {
            self.inner.metrics.redis_up(false);
            tracing::warn!(reason = %why, "redis does not answer");
        }
        Error::Unavailable(why)
    }
}

/// One command; an error that the server answered is an error here.
async fn send(connection: &mut impl ConnectionLike, cmd: &Cmd) -> RedisResult<Value> {
    connection.req_packed_command(cmd).await?.extract_error()
}

fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// A node that holds keys.
#[derive(Debug, Clone)]
pub struct Node {
    /// `host:port` on a cluster; empty where there is only one.
    pub name: String,
}

/// Work that concerns each node as a whole: scans, and what a server says of itself.
impl Redis {
    /// The nodes that hold keys: the masters of a cluster, otherwise the one server.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        Ok(vec![Node {
            name: String::new(),
        }])
    }

    /// Runs one command on that node, on a connection of its own.
    pub async fn on_node(&self, _node: &Node, cmd: &Cmd) -> Result<Value> {
        self.admin(cmd).await
    }
}
