//! How connections to Redis are made: addresses, logins, certificates, TCP settings and time-outs.

use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates,
};
use tokio_rustls::TlsConnector;

use super::tls;
use crate::config::{Host, RedisAddress, RedisConfig};
use crate::error::{Error, Result};

/// How long a peer that is gone without a word is taken for alive.
const SILENCE: Duration = Duration::from_secs(10);

/// How connections are made and how long anything may take.
#[derive(Clone)]
pub(super) struct ConnectionSettings {
    pub(super) connect: Duration,
    pub(super) response: Duration,
    pub(super) connections: usize,
    pub(super) tls: Option<TlsConnector>,
    certificates: Option<TlsCertificates>,
    login: RedisConnectionInfo,
}

impl ConnectionSettings {
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
            tls,
            certificates,
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

    /// The error where no client can be made. A cause of an address error could repeat the address, which may hold a password: it
    /// isn't shown.
    pub(super) fn unusable(&self, error: RedisError) -> Error {
        match self.certificates {
            Some(_) => bad_files(error),
            None => Error::Unavailable("redis.url can't be used as an address".into()),
        }
    }

    /// A client with the TCP and TLS settings filled in, of which all connections are made.
    pub(super) fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
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

/// The error where the files for TLS can't be used.
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
