//! Every setting, its default, unit and range. `load` puts the layers on top of each other, `read` checks and turns them
//! into these types, `show` prints them back with the secrets masked, `secrets` names those that are no protection. No setting is read after start.

mod address;
mod load;
mod read;
mod secrets;
mod show;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use ipnet::IpNet;

use crate::names::{AppId, DirectRoomIds};

pub use address::{Host, Place, RedisAddress};
pub use load::{ConfigError, Flags, load, load_from, load_text};
pub use secrets::{WeakSecret, weak_secrets};
pub use show::effective;

/// The example file, which the demo runs with. Its secrets are published, and so no secrets.
pub const EXAMPLE: &str = include_str!("../unread.example.toml");

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
    /// How far back message ids are known, per room, and keys of events.
    pub history: HistoryConfig,
    /// Logs.
    pub log: LogConfig,
    /// The tenants.
    pub apps: Vec<AppConfig>,
}

/// The HTTP side.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Address of the four endpoints and `/v1`. Port 0: any free one, told in the log. Default `127.0.0.1:8080`.
    pub listen: String,
    /// Address of `/livez`, `/readyz`, `/metrics`. Default `127.0.0.1:9090`.
    pub admin_listen: String,
    /// Worker threads, 0 to 512; 0 (the default) = one per core.
    pub workers: usize,
    /// Events in one request, 1 to 100,000. Default 10,000.
    pub max_events: usize,
    /// Bytes in the body of `POST /v1/events`, 1 KiB to 1 GiB. Default 8 MiB.
    pub max_events_bytes: usize,
    /// Bytes in the body of every other request, 1 KiB to 64 MiB; `POST /v1/unread` may have 2 MiB. Default 64 KiB.
    pub max_body_bytes: usize,
    /// Bytes of all bodies that are being read or worked on, 1 MiB to 64 GiB, and 4 times the longest body at least. Default:
    /// that, or 32 MiB where that is more.
    pub max_bodies_bytes: usize,
    /// Milliseconds until a body must have arrived whole, 100 to 600,000. Default 10,000.
    pub body_timeout_ms: u64,
    /// Open connections in all, 1 to 1,000,000. Default 12,000; 10,000 hostile ones of every kind take less than
    /// 512 MB. Those beyond are answered with a refusal. When fifteen of sixteen are taken, those that only wait make room.
    pub max_connections: usize,
    /// Open connections from one address (of IPv6: one network of 64 bits), 0 to 1,000,000; 0 (the default) = no bound, since all
    /// connections may come from one proxy. Those from `trusted_proxies` are never bound by it.
    pub max_connections_per_address: usize,
    /// Bytes in a request's line and headers, 1 KiB to 64 KiB. Default 32 KiB.
    pub max_head_bytes: usize,
    /// Milliseconds until they must have arrived whole, 100 to 600,000. Default 15,000.
    pub head_timeout_ms: u64,
    /// Milliseconds that a caller may leave its answer waiting, 100 to 600,000; every 4 KiB that it takes earn it another second.
    /// Default 10,000.
    pub write_timeout_ms: u64,
    /// Seconds until a connection without a request is closed, 1 to 3,600. Default 75: longer than the idle time of the usual
    /// balancers (60), so that it is they who close.
    pub keep_alive_seconds: u64,
    /// Bytes of finished answers that wait to be taken, those of up to 16 KiB not counted, 1 MiB to 1 TiB. Default 64 MiB. Answers
    /// beyond are refusals; from half of it on, callers who take nothing for a second are cut off, the slowest first.
    pub max_answers_bytes: usize,
    /// Reads being worked on at once; more are refused at once.
    pub max_reads: usize,
    /// Requests with events being worked on at once; a few more wait up to a second.
    pub max_writes: usize,
    /// Seconds between not ready and not accepting, after SIGTERM (not after ctrl-c), 0 to 3,600. Default 5.
    pub drain_seconds: u64,
    /// Seconds for requests in flight, after that, 0 to 3,600. Default 20.
    pub grace_seconds: u64,
    /// The proxies whose word on the caller's address is taken, by their own addresses. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which they name it: `forwarded` (RFC 7239), or one that holds addresses with commas between, such as
    /// `x-forwarded-for` (the default).
    pub client_address_header: String,
    /// How often credentials from one address may be refused before the refusals become those of a limit.
    pub refused_credentials: RefusedCredentials,
}

/// How often credentials from one address may be refused at one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedCredentials {
    /// Per second, 0 to 1,000,000; 0: no limit. Default 20.
    pub per_second: u32,
    /// At once, 1 to 1,000,000. Default 200.
    pub burst: u32,
}

/// Where the counts live.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `redis://…`, or another form that [`RedisAddress`] knows; absent: a private `redis-server`.
    pub url: Option<Secret>,
    /// PEM file of the authorities that may have signed the servers' certificates. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the certificate to show to the servers.
    pub cert_file: Option<PathBuf>,
    /// PEM file of that certificate's key.
    pub key_file: Option<PathBuf>,
    /// Where the private `redis-server` keeps its append-only file. Default `./data`.
    pub data_dir: PathBuf,
    /// Shared multiplexed connections to each server, 1 to 64: so many for the HTTP workers, and as many for all else.
    /// Default 4; best one for each worker, which then drives it itself.
    pub connections: usize,
    /// Milliseconds until a connection must stand, 10 to 60,000. Default 1,000.
    pub connect_timeout_ms: u64,
    /// Milliseconds until a command must be answered, 10 to 60,000. Default 1,000.
    pub response_timeout_ms: u64,
    /// When events count as safe. Default `none`.
    pub durability: Durability,
    /// Replicas that must have them, with `wait`, 1 to 16. Default 1.
    pub durability_replicas: u32,
    /// Milliseconds until they must have them, 10 to 5,000. Default 1,000.
    pub durability_timeout_ms: u64,
}

/// When events count as safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When the master has them.
    None,
    /// When so many replicas have them as well.
    Wait,
}

/// How far back message ids are known, per room, and keys of events.
#[derive(Debug, Clone)]
pub struct HistoryConfig {
    /// Messages per room, 1 to 1,000,000. Default 1,000.
    pub max_messages: u32,
    /// Days since acceptance, 1 to 3,650. Default 7.
    pub max_age_days: u32,
    /// Characters (Unicode scalar values) kept of the text of a room's last message, 0 to 100,000. Default 1,000. Texts of any
    /// length are taken.
    pub text_characters: u32,
    /// Hours for which the key of an event is known at least, 1 to 8,760. Default 24.
    pub key_hours: u32,
}

/// Logs.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// `text` (default) or `json`.
    pub format: LogFormat,
    /// A filter such as `info` (default), `warn` or `info,unread=debug`.
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
    /// What users' own devices may do.
    pub users: UsersConfig,
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
    /// Calls per second, 0 to 1,000,000; 0 = no limit. Default 200, as Tencent documents.
    pub per_second: u32,
    /// Calls that may come at once on top of it, 1 to 1,000,000. Default: as many as `per_second`.
    pub burst: u32,
    /// Whose calls count together. Default `cluster`.
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

/// What users' own devices may do.
#[derive(Debug, Clone)]
pub struct UsersConfig {
    /// The origins whose pages may read the answers to users' devices (CORS), in lower case; `*` is any. Default `["*"]`.
    pub allowed_origins: Vec<String>,
}

/// IMKIT credentials.
#[derive(Debug, Clone)]
pub struct ImkitConfig {
    /// Values of `IM-CLIENT-KEY`.
    pub client_keys: Vec<Secret>,
    /// HS256 secret of the users' tokens.
    pub jwt_secret: Secret,
    /// How much of the app's limit one user may use on each endpoint, 0.001 to 1; 1: all of it. Default 0.5.
    pub user_share: f64,
    /// How the direct rooms are called that messages make: `own` (default), or `imkit`, as that vendor's SDKs do.
    pub direct_room_ids: DirectRoomIds,
}

impl AppConfig {
    /// How the direct rooms are called that messages make.
    pub fn direct_room_ids(&self) -> DirectRoomIds {
        let imkit = self.imkit.as_ref();
        imkit.map(|imkit| imkit.direct_room_ids).unwrap_or_default()
    }
}

/// Tencent Chat credentials.
#[derive(Debug, Clone)]
pub struct TencentConfig {
    /// SDKAppID.
    pub sdkappid: u64,
    /// The key that signs UserSigs, used as raw bytes.
    pub secret_key: Secret,
    /// App administrators. Default `["administrator"]`.
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
