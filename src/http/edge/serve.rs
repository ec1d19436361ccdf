//! The server itself: accepts, gives places or says why not, and carries each connection from its first byte to its last.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt::Debug;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_http::error::PayloadError;
use actix_http::{ConnectionType, HttpService, KeepAlive, Payload, Request, Response};
use actix_server::Server;
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, fn_factory, fn_service, map_config,
};
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::http::StatusCode;
use bytes::Bytes;
use futures_util::Stream;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection::Connection;
use super::places::{Held, NoPlace, Place, Places};
use super::wire::Input;
use super::worker::{ListenerShared, Worker};
use super::{Edge, head, words};
use crate::http::address::network;
use crate::http::unserved::{Unserved, unseen};
use crate::telemetry::metrics::Connected;

/// What the engine gathers before it writes, and the most that it gets of a large answer at once.
const WRITE: usize = 16 * 1024;
/// Bytes that the kernel buffers beyond what is in flight. With this bound our writes show what the peer has taken, and a peer that
/// takes nothing costs no more.
const UNSENT: u32 = 16 * 1024;

/// Builds the server of a listener. `app` is called once in each worker, on its own thread.
pub(crate) fn server<F, I, S>(
    listener: std::net::TcpListener,
    edge: &Edge,
    app: F,
) -> io::Result<Server>
where
    F: Fn() -> I + Clone + Send + 'static,
    I: IntoServiceFactory<S, Request> + 'static,
    S: ServiceFactory<
            Request,
            Config = AppConfig,
            Response = ServiceResponse,
            Error = actix_web::Error,
        > + 'static,
    S::InitError: Debug,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
{
    let bounds = edge.bounds;
    let workers = match edge.workers {
        0 => std::thread::available_parallelism().map_or(2, |cores| cores.get().min(512)),
        workers => workers,
    };
    // Those who are too many are counted and told here. The server's own bound, which leaves newcomers in the backlog, lies higher: it
    // also counts connections that are accepted but not yet refused, because each has a file open.
    let accepted = bounds.max_connections + 2 * bounds.max_turned_away;
    let builder = Server::build()
        .disable_signals()
        .workers(workers)
        .max_concurrent_connections(accepted.div_ceil(workers))
        .shutdown_timeout(edge.grace_seconds);
    let shared = Arc::new(ListenerShared {
        bounds,
        places: Arc::new(Places::new(
            bounds.max_connections,
            bounds.max_connections_per_address,
            edge.trusted_proxies.clone(),
        )),
        answers: Arc::clone(&edge.answers),
        turned_away: Arc::new(Places::new(bounds.max_turned_away, 0, Vec::new())),
        metrics: edge.metrics.clone(),
        refuse: edge.refuse,
        workers,
        leaving: Arc::clone(&edge.leaving),
        full: AtomicBool::new(false),
    });
    let stop = builder.graceful_shutdown_signal();
    let builder = builder.listen(edge.name, listener, move || {
        let (shared, stop, app) = (Arc::clone(&shared), stop.clone(), app.clone());
        fn_factory(move || {
            let (shared, stop, app) = (Arc::clone(&shared), stop.clone(), app.clone());
            async move {
                let worker = Worker::start(shared, stop);
                let app = map_config(app(), |()| AppConfig::default());
                let app = app.new_service(()).await.map_err(|_| ())?;
                let app = Rc::new(app);
                let answering = fn_service(move |mut request: Request| {
                    let connection = request.conn_data::<Rc<Connection>>().cloned();
                    if let Some(connection) = &connection {
                        watch_body(connection, &mut request);
                    }
                    let answer = app.call(request);
                    async move {
                        let response: Response<BoxBody> = match answer.await {
                            Ok(response) => response.into(),
                            Err(error) => error.error_response().into(),
                        };
                        Ok::<_, Infallible>(Answer::of(connection, response))
                    }
                });
                let engine = HttpService::build()
                    // The sweep has the time.
                    .keep_alive(KeepAlive::Os)
                    .client_request_timeout(std::time::Duration::ZERO)
                    .client_disconnect_timeout(std::time::Duration::ZERO)
                    .h1_write_buffer_size(WRITE)
                    .on_connect_ext(|io: &Io, data| {
                        data.insert(Rc::clone(&io.0));
                    })
                    .h1(answering);
                let engine = Rc::new(engine.new_service(()).await?);
                Ok::<_, ()>(fn_service(move |stream: TcpStream| {
                    let carried = accept(&worker, &engine, stream);
                    async move {
                        if let Some(carried) = carried {
                            carried.await;
                        }
                        Ok::<_, ()>(())
                    }
                }))
            }
        })
    })?;
    Ok(builder.run())
}

/// Has the body of a request read under its connection's eye.
fn watch_body(connection: &Rc<Connection>, request: &mut Request) {
    if let Payload::H1 { payload } = request.take_payload() {
        let body = BodyStream {
            payload,
            connection: Rc::clone(connection),
        };
        *request.payload() = Payload::Stream {
            payload: Box::pin(body),
        };
    }
}

/// A body on its way from the engine to a handler.
struct BodyStream {
    payload: actix_http::h1::Payload,
    connection: Rc<Connection>,
}

impl Stream for BodyStream {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(Pin::new(&mut self.payload).poll_next(cx));
        if let Some(Ok(bytes)) = &item {
            self.connection.body_read(bytes.len());
        }
        Poll::Ready(item)
    }
}

impl Drop for BodyStream {
    fn drop(&mut self) {
        self.connection.body_unwanted();
    }
}

/// An answer's body on its way from a handler to the engine, in parts, so that the engine never copies a large one whole.
struct Answer {
    connection: Option<Rc<Connection>>,
    size: BodySize,
    content: Content,
    _held: Option<Held>,
}

enum Content {
    Whole(Bytes),
    Stream(BoxBody),
}

impl Answer {
    fn of(connection: Option<Rc<Connection>>, response: Response<BoxBody>) -> Response<Self> {
        let mut response = response.map_body(|_, body| {
            let size = body.size();
            let content = match body.try_into_bytes() {
                Ok(bytes) => Content::Whole(bytes),
                Err(body) => Content::Stream(body),
            };
            let held = match (&connection, &content) {
                (Some(connection), Content::Whole(bytes)) => connection.hold_answer(bytes.len()),
                _ => None,
            };
            Self {
                connection: connection.clone(),
                size,
                content,
                _held: held,
            }
        });
        let leaving = connection.is_some_and(|connection| connection.is_leaving());
        if leaving && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let head = response.head_mut();
            head.set_connection_type(ConnectionType::Close);
        }
        response
    }
}

impl MessageBody for Answer {
    type Error = Box<dyn StdError>;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        match &mut self.content {
            Content::Stream(body) => Pin::new(body).poll_next(cx),
            Content::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Whole(bytes) => {
                let part = bytes.split_to(bytes.len().min(WRITE));
                Poll::Ready(Some(Ok(part)))
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.answered();
        }
    }
}

/// Takes a connection in, or says why not. `None`: it is gone already.
fn accept<E>(worker: &Rc<Worker>, engine: &Rc<E>, stream: TcpStream) -> Option<Carried<E>>
where
    E: Service<(Io, Option<SocketAddr>)>,
{
    let shared = &worker.shared;
    let peer = stream.peer_addr().ok();
    let address = peer.map(|peer| peer.ip());
    let (place, turned_away) = match shared.places.take(address) {
        Ok(place) => (place, None),
        Err(why) => {
            if let Some(metrics) = &shared.metrics {
                metrics.connection_refused(why.word());
                unseen(metrics, Unserved::Full);
            }
            if why == NoPlace::Full && !shared.full.swap(true, Ordering::Relaxed) {
                let max = shared.bounds.max_connections;
                tracing::warn!(max_connections = max, "full: new connections are refused");
            }
            let Ok(place) = shared.turned_away.take(None) else {
                // Whoever is gone already can't be told.
                let _ = turn_away_at_once(worker, stream);
                return None;
            };
            (place, Some(why))
        }
    };
    // Answers are short and go out one by one.
    let _ = stream.set_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
    let connection = Connection::new(worker, stream, address.map(network), turned_away);
    Some(Carried {
        engine: Rc::clone(engine),
        peer,
        connection,
        stage: Stage::Waiting,
        _place: place,
        _connected: shared.metrics.as_ref().map(|metrics| metrics.connected()),
    })
}

/// In the words that fit what has come, if anything has, and without waiting for any of it to be taken.
fn turn_away_at_once(worker: &Worker, stream: TcpStream) -> io::Result<()> {
    // Of the runtime's own stream nothing is known yet, so it would not even try.
    let mut stream = stream.into_std()?;
    let mut scratch = worker.scratch();
    let read = stream.read(&mut scratch).unwrap_or(0);
    let seen = scratch.get(..read).unwrap_or_default();
    let (method, path) = head::sighted(seen);
    let answer = (worker.shared.refuse)(path, Unserved::Full);
    stream.write_all(&words::written(answer, method == b"HEAD"))?;
    stream.shutdown(std::net::Shutdown::Write)
}

/// The stream that the engine has.
struct Io(Rc<Connection>);

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush()
    }

    /// The engine is done. The end of the connection is carried without it.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.begin_end();
        Poll::Ready(Ok(()))
    }
}

/// A connection's task. It has an engine only while it has something for it to do.
struct Carried<E: Service<(Io, Option<SocketAddr>)>> {
    engine: Rc<E>,
    peer: Option<SocketAddr>,
    connection: Rc<Connection>,
    stage: Stage<E::Future>,
    _place: Place,
    _connected: Option<Connected>,
}

enum Stage<F> {
    /// For a head.
    Waiting,
    Serving(Pin<Box<F>>),
    Closing,
}

impl<E: Service<(Io, Option<SocketAddr>)>> Future for Carried<E> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let connection = &this.connection;
        connection.carried_by(cx.waker());
        loop {
            if let Some(cut) = connection.verdict() {
                if connection.carry_out(cut, cx) {
                    return Poll::Ready(());
                }
                if connection.is_ending() {
                    this.stage = Stage::Closing;
                }
            }
            match &mut this.stage {
                Stage::Waiting => match ready!(connection.poll_head(cx)) {
                    Ok(Input::Ready | Input::Given) => {
                        let io = Io(Rc::clone(connection));
                        let engine = this.engine.call((io, this.peer));
                        connection.has_engine();
                        this.stage = Stage::Serving(Box::pin(engine));
                    }
                    Ok(Input::End) => {
                        if !connection.is_ending() {
                            connection.begin_end();
                        }
                        this.stage = Stage::Closing;
                    }
                    Err(_) => return Poll::Ready(()),
                },
                Stage::Serving(engine) => {
                    let done = engine.as_mut().poll(cx).is_ready();
                    if connection.is_ending() {
                        this.stage = Stage::Closing;
                    } else if done {
                        // The connection broke.
                        return Poll::Ready(());
                    } else if connection.parts_with_engine() {
                        this.stage = Stage::Waiting;
                    } else {
                        return Poll::Pending;
                    }
                }
                Stage::Closing => return connection.poll_end(cx).map(|_| ()),
            }
        }
    }
}

impl<E: Service<(Io, Option<SocketAddr>)>> Drop for Carried<E> {
    fn drop(&mut self) {
        self.connection.forget();
    }
}
