//! Builds the two servers and runs them: the public one (vendor endpoints and `/v1`) and the [`admin`] one. Stopping is a future
//! passed in, so that tests can stop an app without signals.

mod admin;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::web;
use tokio::net::{TcpSocket, lookup_host};
use tokio::task::JoinHandle;

use crate::audit::{Audit, Check, Doctor, KnownServers};
use crate::config::Config;
use crate::demo::private_redis::{PrivateRedis, StartError};
use crate::engine::{self, Engine, Live, RedisState, SchemaState, this_is_a_worker};
use crate::http;
use crate::http::edge::{self, Bounds, Edge};
use crate::huge_pages;
use crate::inspector::Inspector;
use crate::open_files::{self, OpenFiles};
use crate::pages::chat::Chat;
use crate::pages::console::Console;
use crate::telemetry::metrics::Metrics;
use admin::{ADMIN_CONNECTIONS, Readiness, SERVING, STOPPING, admin_server};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 4096;
/// How many connections beyond `max_connections` are kept at a time, only to answer that there are too many.
const TURNED_AWAY: usize = 256;
/// The pause between two searches for Redis servers that have not been checked.
const POLL_SERVERS: Duration = Duration::from_secs(5);
/// The pause between two probes of a Redis that does not serve reads.
const POLL_STARTING: Duration = Duration::from_millis(200);
/// The pause between two probes of a Redis that does.
const POLL_RUNNING: Duration = Duration::from_secs(1);

/// Why an app could not be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// An address can't be listened on.
    #[error("cannot listen on {address} (server.{setting}): {error}; choose another with --{flag}")]
    Listen {
        /// The address.
        address: String,
        /// The setting of the address.
        setting: &'static str,
        /// The flag for it.
        flag: &'static str,
        /// Why it can't be listened on.
        error: io::Error,
    },
    /// A server can't be set up.
    #[error("cannot start the HTTP server: {0}")]
    Server(#[from] io::Error),
    /// The private Redis can't be started.
    #[error("{0}")]
    Redis(#[from] StartError),
    /// The store can't be set up.
    #[error("{0}")]
    Engine(#[from] crate::error::Error),
    /// The lines for `redis-cli` can't be made.
    #[error("{0}")]
    RedisCli(String),
}

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The pod is not ready from now on, but serves for the drain time, because balancers still send calls for a while.
    Drain,
    /// Without the drain time, because somebody waits at the terminal.
    Now,
}

/// A built app: both listeners are bound, nothing is accepted yet on the public one.
pub(crate) struct App {
    config: Arc<Config>,
    readiness: Arc<Readiness>,
    public: Server,
    /// The listener of `public`, which is closed gently.
    door: TcpListener,
    listen: SocketAddr,
    /// If set, each answer of `public` says that its connection ends with it.
    leaving: Arc<AtomicBool>,
    live: Live,
    admin: RunningServer,
    admin_listen: SocketAddr,
    poll: JoinHandle<()>,
    redis: Option<PrivateRedis>,
}

struct RunningServer {
    handle: ServerHandle,
    task: JoinHandle<io::Result<()>>,
}

impl RunningServer {
    fn start(server: Server) -> Self {
        Self {
            handle: server.handle(),
            task: tokio::spawn(server),
        }
    }
}

impl App {
    /// Binds both listeners, serves the admin one, and starts what else is needed. An external Redis may be down.
    pub(crate) async fn build(config: Config) -> Result<App, BuildError> {
        Self::build_with(config, None).await
    }

    /// The same, with the demo's chat at the public address.
    pub(crate) async fn build_with(config: Config, chat: Option<Chat>) -> Result<App, BuildError> {
        let metrics = Arc::new(Metrics::new());
        let readiness = Arc::new(Readiness::default());
        huge_pages::refuse();
        let files = open_files::raise();
        let (public_socket, listen) = bind(&config.server.listen, "listen", "listen").await?;
        let (admin_socket, admin_listen) =
            bind(&config.server.admin_listen, "admin_listen", "admin-listen").await?;
        // This comes first, because a private Redis may need a long time to load its data.
        let state = Arc::clone(&readiness);
        let console = Console::new(
            &config.server,
            &config.apps,
            Arc::clone(&metrics),
            move || state.pod_state(),
        );
        let console = Arc::new(console);
        let admin = admin_server(
            admin_socket,
            &config,
            Arc::clone(&readiness),
            Arc::clone(&metrics),
            Arc::clone(&console),
        )?;
        let admin = RunningServer::start(admin);

        let mut config = config;
        let redis = match &config.redis.url {
            Some(_) => None,
            None => {
                let redis = PrivateRedis::start(&config.redis.data_dir).await?;
                config.redis.url = Some(redis.url().clone());
                Some(redis)
            }
        };
        let config = Arc::new(config);
        let engine = match Engine::connect(&config, Arc::clone(&metrics)).await {
            Ok(engine) => engine,
            Err(error) => {
                if let Some(redis) = redis {
                    redis.stop().await;
                }
                return Err(error.into());
            }
        };
        let _ = readiness.engine.set(engine.health.clone());
        let inspector = Inspector::new(Audit::new(&engine), &config.redis);
        let inspector = inspector.map_err(BuildError::RedisCli)?;
        console.connect(inspector, Arc::clone(&engine.reader));
        // The first probe comes before the log line that the pod listens: who waits for that line finds the pod ready.
        probe_once(&engine.health, &readiness, &metrics).await;
        let setup = check_setup(Doctor::new(&engine), Arc::clone(&readiness));
        let poll = poll(
            engine.health.clone(),
            Arc::clone(&readiness),
            Arc::clone(&metrics),
        );
        let poll = tokio::spawn(async move {
            tokio::join!(poll, setup, console.take_samples());
        });
        let apps = config.apps.iter().map(|app| app.id.clone()).collect();
        let connections = config.server.max_connections;
        let connections = files.room(connections).unwrap_or(connections);
        let live = engine.live(&config.live, connections, apps, Arc::clone(&metrics));
        let state = http::state(
            Arc::clone(&config),
            engine,
            live.clone(),
            Arc::clone(&metrics),
        );
        let leaving = Arc::new(AtomicBool::new(false));
        let door = public_socket.try_clone()?;
        let chat = chat.map(|chat| chat.beside(admin_listen.port()));
        let public = public_server(public_socket, state, files, Arc::clone(&leaving), chat)?;
        Ok(App {
            config,
            readiness,
            public,
            door,
            listen,
            leaving,
            live,
            admin,
            admin_listen,
            poll,
            redis,
        })
    }

    /// The address of the vendor endpoints and `/v1`.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The address of the console, `/livez`, `/readyz` and `/metrics`.
    pub(crate) fn admin_listen(&self) -> SocketAddr {
        self.admin_listen
    }

    /// Serves until `stop`, then finishes the calls under way and stops everything that `build` started.
    pub(crate) async fn run(self, stop: impl Future<Output = Stop>) {
        let public = RunningServer::start(self.public);
        self.readiness.server.store(SERVING, Ordering::Release);
        tracing::info!(
            listen = %self.listen,
            admin_listen = %self.admin_listen,
            "listening"
        );

        let settings = &self.config.server;
        let stop = stop.await;
        self.readiness.server.store(STOPPING, Ordering::Release);
        edge::leave(&self.leaving);
        // Streams end one by one, so that their clients come to the other pods one by one. The last second is for the ends.
        let time = match stop {
            Stop::Drain => settings.drain_seconds + settings.grace_seconds,
            Stop::Now => settings.grace_seconds.min(2),
        };
        self.live.drain(Duration::from_secs(time.saturating_sub(1)));
        if stop == Stop::Drain && settings.drain_seconds > 0 {
            tracing::info!(seconds = settings.drain_seconds, "draining");
            tokio::time::sleep(Duration::from_secs(settings.drain_seconds)).await;
        }
        tracing::info!("stopping");
        edge::shut(&self.door).await;
        // The server itself keeps to the grace time. The margin is only for the case that it does not.
        let grace = Duration::from_secs(settings.grace_seconds + 2);
        let finished = tokio::time::timeout(grace, async {
            let stopped = public.handle.stop(true);
            drop(self.door);
            stopped.await;
            public.task.await
        });
        if finished.await.is_err() {
            tracing::warn!("requests in flight were cut off");
        }
        self.poll.abort();
        self.admin.handle.stop(false).await;
        // The result no longer matters.
        let _ = self.admin.task.await;
        if let Some(redis) = self.redis {
            redis.stop().await;
        }
        tracing::info!("stopped");
    }
}

/// A listener on the first of the addresses that `address` resolves to and that is free.
async fn bind(
    address: &str,
    setting: &'static str,
    flag: &'static str,
) -> Result<(TcpListener, SocketAddr), BuildError> {
    let failed = |error| BuildError::Listen {
        address: address.to_owned(),
        setting,
        flag,
        error,
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no such host");
    for candidate in lookup_host(address).await.map_err(failed)? {
        match listener(candidate) {
            Ok(listener) => {
                let bound = listener.local_addr().map_err(failed)?;
                return Ok((listener, bound));
            }
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A pod that starts right after another one must not wait until the system has forgotten the other's last connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

fn public_server(
    listener: TcpListener,
    state: http::State,
    files: OpenFiles,
    leaving: Arc<AtomicBool>,
    chat: Option<Chat>,
) -> io::Result<Server> {
    let settings = &state.config.server;
    let (max_connections, max_turned_away) = match files.room(settings.max_connections) {
        Some(room) => {
            tracing::warn!(
                open_files = files.limit(),
                max_connections = room,
                configured = settings.max_connections,
                "the limit of open files is too low for max_connections: raise it (ulimit -n, LimitNOFILE=)"
            );
            (room, TURNED_AWAY.min(room / 4))
        }
        None => (settings.max_connections, TURNED_AWAY),
    };
    let edge = Edge {
        name: "public",
        bounds: Bounds {
            max_connections,
            max_connections_per_address: settings.max_connections_per_address,
            max_turned_away,
            ..bounds(&state.config)
        },
        trusted_proxies: settings.trusted_proxies.clone(),
        refuse: http::refuse,
        metrics: Some(Arc::clone(&state.metrics)),
        answers: Arc::clone(&state.answers),
        workers: settings.workers,
        grace_seconds: settings.grace_seconds,
        leaving,
    };
    let state = web::Data::new(state);
    edge::server(listener, &edge, move || {
        this_is_a_worker();
        let chat = chat.clone();
        actix_web::App::new()
            .app_data(state.clone())
            .configure(|service| {
                if let Some(chat) = chat {
                    chat.add_to(service);
                }
            })
            .default_service(web::to(http::dispatch))
    })
}

/// The bounds of a connection, for both addresses.
fn bounds(config: &Config) -> Bounds {
    let settings = &config.server;
    Bounds {
        max_connections: ADMIN_CONNECTIONS,
        max_connections_per_address: 0,
        max_turned_away: 16,
        max_head_bytes: settings.max_head_bytes,
        head_timeout: Duration::from_millis(settings.head_timeout_ms),
        body_timeout: Duration::from_millis(settings.body_timeout_ms),
        write_timeout: Duration::from_millis(settings.write_timeout_ms),
        keep_alive: Duration::from_secs(settings.keep_alive_seconds),
    }
}

async fn poll(redis: engine::Health, readiness: Arc<Readiness>, metrics: Arc<Metrics>) {
    loop {
        let pause = match readiness.redis_serves.load(Ordering::Relaxed) {
            true => POLL_RUNNING,
            false => POLL_STARTING,
        };
        tokio::time::sleep(pause).await;
        probe_once(&redis, &readiness, &metrics).await;
    }
}

/// Probes Redis once. The link logs the trouble of a single server; trouble that is not one server's is logged here, once.
async fn probe_once(redis: &engine::Health, readiness: &Readiness, metrics: &Metrics) {
    let before = readiness.redis_state();
    let probe = redis.probe().await;
    readiness
        .redis_serves
        .store(probe.serves, Ordering::Relaxed);
    if probe.serves {
        readiness.redis_answered.store(true, Ordering::Relaxed);
    }
    let now = redis.redis_state(&probe);
    readiness.redis.store(Some(Arc::new(probe)));
    log_schema(redis, readiness);
    metrics.redis_up(now.state == "up");
    let RedisState { state, why, logged } = now;
    match before.filter(|before| !before.logged) {
        Some(before) if before.state == state => {}
        _ if !logged => tracing::warn!(state, reason = why, "redis can't be used"),
        Some(_) if state == "up" => tracing::warn!(state, "redis can be used again"),
        _ => {}
    }
}

/// Checks each Redis server that it has not met before (at the start, or after a failover or restart), and logs what should be
/// changed there. The server works as it is, so these are warnings. They have a log target of their own, so that a filter can
/// turn them off.
async fn check_setup(doctor: Doctor, readiness: Arc<Readiness>) {
    let mut known = KnownServers::default();
    loop {
        if readiness.redis_serves.load(Ordering::Relaxed) {
            for check in doctor.new_servers(&mut known).await {
                let Check {
                    name,
                    node,
                    found,
                    advice,
                    ..
                } = check;
                tracing::warn!(
                    target: "unread::redis_setup",
                    check = name, node, found, advice,
                    "redis should be set up otherwise"
                );
            }
            tokio::time::sleep(POLL_SERVERS).await;
        } else {
            tokio::time::sleep(POLL_STARTING).await;
        }
    }
}

/// Logs each change of the version of the data, once.
fn log_schema(redis: &engine::Health, readiness: &Readiness) {
    let SchemaState {
        state,
        why,
        refused,
    } = redis.schema_state();
    let before = readiness.schema.load().as_deref().copied();
    if before == Some(state) || state == "unknown" {
        return;
    }
    readiness.schema.store(Some(Arc::new(state)));
    if refused {
        tracing::error!(
            schema = state,
            reason = why,
            "the data can't be read: this pod is not ready"
        );
    } else if !why.is_empty() {
        tracing::warn!(
            schema = state,
            reason = why,
            "the data are of an earlier version"
        );
    } else if before.is_some() {
        tracing::info!(schema = state, "the data are of this version");
    }
}
