//! Every setting, its default, unit and range.

use std::path::PathBuf;

use crate::names::AppId;

/// A text that must never be printed: keys, tokens, and addresses that may hold a password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("****")
    }
}

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The HTTP side.
    pub server: ServerConfig,
    /// Where the counts live.
    pub redis: RedisConfig,
    /// How far back ids are known, per room.
    pub history: HistoryConfig,
    /// Logs.
    pub log: LogConfig,
    /// The tenants.
    pub apps: Vec<AppConfig>,
}

/// The HTTP side.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Address of the four endpoints and `/v1`. Port 0: any free one, told in the log.
    pub listen: String,
    /// Address of `/livez`, `/readyz`, `/metrics`.
    pub admin_listen: String,
    /// Worker threads; 0 = one per core.
    pub workers: usize,
    /// Events in one request, 1 to 100,000.
    pub max_events: usize,
    /// Bytes in the body of `POST /v1/events`.
    pub max_events_bytes: usize,
    /// Bytes in the body of every other request.
    pub max_body_bytes: usize,
    /// Milliseconds until a body must have arrived whole.
    pub body_timeout_ms: u64,
    /// Open connections per worker.
    pub max_connections: usize,
    /// Seconds between not ready and not accepting, after SIGTERM (not after ctrl-c).
    pub drain_seconds: u64,
    /// Seconds for requests in flight, after that.
    pub grace_seconds: u64,
}

/// Where the counts live.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `redis://…`; absent: a private `redis-server`.
    pub url: Option<Secret>,
    /// Where the private `redis-server` keeps its append-only file.
    pub data_dir: PathBuf,
    /// Shared multiplexed connections, 1 to 64.
    pub connections: usize,
    /// Milliseconds until a connection must stand.
    pub connect_timeout_ms: u64,
    /// Milliseconds until a command must be answered.
    pub response_timeout_ms: u64,
}

/// How far back ids are known, per room.
#[derive(Debug, Clone)]
pub struct HistoryConfig {
    /// Messages per room, 1 to 1,000,000.
    pub max_messages: u32,
    /// Days since acceptance, 1 to 3,650.
    pub max_age_days: u32,
}

/// Logs.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// `text` or `json`.
    pub format: LogFormat,
    /// A filter such as `info` or `unread=debug`.
    pub level: String,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// One tenant.
#[derive(Debug, Clone)]
pub struct AppConfig {
    /// Its id, part of every key.
    pub id: AppId,
    /// Bearer keys of the native API.
    pub server_keys: Vec<Secret>,
    /// The limit of each vendor endpoint.
    pub rate_limit: RateLimit,
    /// IMKIT credentials, if that dialect is used.
    pub imkit: Option<ImkitConfig>,
    /// Tencent Chat credentials, if that dialect is used.
    pub tencent: Option<TencentConfig>,
    /// Sendbird credentials, if that dialect is used.
    pub sendbird: Option<SendbirdConfig>,
}

/// The limit of each vendor endpoint of one app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Calls per second; 0 = no limit.
    pub per_second: u32,
    /// Calls that may come at once on top of it, at least 1.
    pub burst: u32,
    /// Whose calls count together.
    pub scope: Scope,
}

/// Whose calls count together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of one pod.
    Pod,
    /// Those of all pods.
    Cluster,
}

/// IMKIT credentials.
#[derive(Debug, Clone)]
pub struct ImkitConfig {
    /// Values of `IM-CLIENT-KEY`.
    pub client_keys: Vec<Secret>,
    /// HS256 secret of the users' tokens.
    pub jwt_secret: Secret,
}

/// Tencent Chat credentials.
#[derive(Debug, Clone)]
pub struct TencentConfig {
    /// SDKAppID.
    pub sdkappid: u64,
    /// The key that signs UserSigs, used as raw bytes.
    pub secret_key: Secret,
    /// App administrators.
    pub admins: Vec<String>,
}

/// Sendbird credentials.
#[derive(Debug, Clone)]
pub struct SendbirdConfig {
    /// Application id, as in the host name.
    pub application_id: String,
    /// The master API token.
    pub master_token: Secret,
    /// The secondary API tokens.
    pub api_tokens: Vec<Secret>,
}
