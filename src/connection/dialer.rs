//! How a connection is made: over TCP, TLS or a unix socket, logged in, to a server that answers.

use std::io;
use std::time::Duration;

use redis::io::tcp::socket2::SockRef;
use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, RedisResult};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::condition::{CROWDED, words};

/// The longest line that a login waits for.
const LINE: usize = 64 << 10;

/// How a connection is made, and how long anything may take.
pub(super) struct Dialer {
    pub(super) info: ConnectionInfo,
    pub(super) tls: Option<TlsConnector>,
    pub(super) connect: Duration,
    pub(super) response: Duration,
    /// How often a connection is tried once more before the requests that wait for it fail.
    pub(super) retries: u32,
}

impl Dialer {
    /// Makes a connection and logs in.
    pub(super) async fn make(&self) -> RedisResult<Box<dyn Stream>> {
        let mut stream: Box<dyn Stream> = match (self.info.addr(), &self.tls) {
            (ConnectionAddr::Unix(path), _) => Box::new(UnixStream::connect(path).await?),
            (ConnectionAddr::Tcp(host, port), None) => Box::new(self.tcp(host, *port).await?),
            (ConnectionAddr::TcpTls { host, port, .. }, Some(tls)) => {
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                Box::new(tls.connect(name, self.tcp(host, *port).await?).await?)
            }
            _ => return Err((ErrorKind::InvalidClientConfig, "no address to connect to").into()),
        };
        self.log_in(&mut stream).await?;
        Ok(stream)
    }

    async fn tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let settings = self.info.tcp_settings();
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(settings.nodelay())?;
        let socket = SockRef::from(&stream);
        if let Some(keepalive) = settings.keepalive() {
            socket.set_tcp_keepalive(keepalive)?;
        }
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(settings.user_timeout())?;
        Ok(stream)
    }

    /// Logs in, and makes sure that the server answers.
    async fn log_in(&self, stream: &mut Box<dyn Stream>) -> RedisResult<()> {
        let login = self.info.redis_settings();
        let mut cmds = Vec::new();
        if let Some(password) = login.password() {
            let mut auth = redis::cmd("AUTH");
            auth.arg(login.username()).arg(password);
            cmds.push((auth, Some(ErrorKind::AuthenticationFailed)));
        }
        if login.db() != 0 {
            let mut select = redis::cmd("SELECT");
            select.arg(login.db());
            cmds.push((select, Some(ErrorKind::InvalidClientConfig)));
        }
        cmds.push((redis::cmd("PING"), None));
        for (cmd, kind) in cmds {
            stream.write_all(&cmd.get_packed_command()).await?;
            stream.flush().await?;
            let value = redis::parse_redis_value(&line(stream).await?)?;
            match (value.extract_error(), kind) {
                (Ok(_), _) => {}
                (Err(error), Some(kind)) => {
                    return Err((kind, "the login was refused", words(&error)).into());
                }
                (Err(error), None) if is_shut_out(&error) => {
                    let refused = io::ErrorKind::ConnectionRefused;
                    return Err(io::Error::new(refused, words(&error)).into());
                }
                // Whatever else it refuses now, such as while it loads its data, it refuses to each request.
                (Err(_), None) => {}
            }
        }
        Ok(())
    }
}

/// One line with its end, which is all that a server answers to a login.
async fn line(stream: &mut Box<dyn Stream>) -> RedisResult<Vec<u8>> {
    let mut line = Vec::new();
    // Byte by byte: what follows is the connection's.
    while !line.ends_with(b"\r\n") {
        if line.len() == LINE {
            return Err((ErrorKind::Parse, "a line without an end").into());
        }
        let byte = stream.read_u8().await;
        line.push(byte.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ended(),
            _ => error.into(),
        })?);
    }
    Ok(line)
}

/// Whether the server takes no more connections: it says so to each that is made, and closes it.
fn is_shut_out(error: &RedisError) -> bool {
    let detail = error.detail().unwrap_or_default();
    error.code() == Some("DENIED") || detail.contains(CROWDED)
}

/// A connection of any kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(super) fn timed_out(why: &str) -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, why.to_owned()).into()
}

pub(super) fn ended() -> RedisError {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the connection has been closed",
    )
    .into()
}
