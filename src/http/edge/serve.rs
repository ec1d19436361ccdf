//! The server: it accepts connections, gives them places or says that there are none, and runs each one from its first byte to
//! its last.

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
use std::time::Duration;

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

/// How many bytes the engine gathers before it writes, and the most that it gets of a large answer at once.
const WRITE: usize = 16 * 1024;
/// How many bytes the kernel buffers of an answer beyond those in flight. With this bound the writes show how much the peer has
/// taken, and the kernel holds no more for a peer that takes nothing.
const UNSENT: u32 = 16 * 1024;

/// Builds the server of a listener. It calls `app` once for each worker, on the worker's own thread.
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
    let workers = match edge.workers {
        0 => std::thread::available_parallelism().map_or(2, |cores| cores.get().min(512)),
        workers => workers,
    };
    // The edge itself counts and refuses connections that are too many. The server's own bound, beyond which newcomers stay in
    // the backlog, lies higher: it also counts connections that are accepted and not refused yet, each of which has a file open.
    let accepted = edge.bounds.max_connections + 2 * edge.bounds.max_turned_away;
    let builder = Server::build()
        .disable_signals()
        .workers(workers)
        .max_concurrent_connections(accepted.div_ceil(workers))
        .shutdown_timeout(edge.grace_seconds);
    let shared = Arc::new(shared(edge, workers));
    let stop = builder.graceful_shutdown_signal();
    let builder = builder.listen(edge.name, listener, move || {
        let (shared, stop, app) = (Arc::clone(&shared), stop.clone(), app.clone());
        fn_factory(move || {
            let (shared, stop, app) = (Arc::clone(&shared), stop.clone(), app.clone());
            async move {
                let worker = Worker::start(shared, stop);
                let app = map_config(app(), |()| AppConfig::default());
                let app = Rc::new(app.new_service(()).await.map_err(|_| ())?);
                let engine = HttpService::build()
                    // The sweep ends what is overdue.
                    .keep_alive(KeepAlive::Os)
                    .client_request_timeout(Duration::ZERO)
                    .client_disconnect_timeout(Duration::ZERO)
                    .h1_write_buffer_size(WRITE)
                    .on_connect_ext(|io: &Io, data| {
                        data.insert(Rc::clone(&io.0));
                    })
                    .h1(fn_service(move |request| answer(&*app, request)));
                let engine = Rc::new(engine.new_service(()).await?);
                Ok::<_, ()>(fn_service(move |stream: TcpStream| {
                    let task = accept(&worker, &engine, stream);
                    async move {
                        if let Some(task) = task {
                            task.await;
                        }
                        Ok::<_, ()>(())
                    }
                }))
            }
        })
    })?;
    Ok(builder.run())
}

/// What the workers of a listener share.
fn shared(edge: &Edge, workers: usize) -> ListenerShared {
    let bounds = edge.bounds;
    ListenerShared {
        bounds,
        metrics: edge.metrics.clone(),
        refuse: edge.refuse,
        answers: Arc::clone(&edge.answers),
        leaving: Arc::clone(&edge.leaving),
        workers,
        places: Arc::new(Places::new(
            bounds.max_connections,
            bounds.max_connections_per_address,
            edge.trusted_proxies.clone(),
        )),
        turned_away: Arc::new(Places::new(bounds.max_turned_away, 0, Vec::new())),
        full: AtomicBool::new(false),
    }
}

/// Has the app answer a request, whose connection learns how far body and answer have come.
fn answer<S>(
    app: &S,
    mut request: Request,
) -> impl Future<Output = Result<Response<Answer>, Infallible>> + use<S>
where
    S: Service<Request, Response = ServiceResponse, Error = actix_web::Error>,
{
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
        Ok(Answer::of(connection, response))
    }
}

/// Has the connection of a request learn how much of the body the handler reads.
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

/// A body on its way from the engine to a handler. Its connection learns how much is read, and when the handler drops it.
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

/// An answer's body on its way from a handler to the engine. It goes in parts, so that the engine never copies a large one whole.
/// Its connection learns when the engine drops it, which it does when it has all of it.
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
            if let (Some(connection), BodySize::Stream) = (&connection, size) {
                connection.streams();
            }
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

/// Gives a new connection its place, or notes that there is none, and makes its task. None: it was turned away at once.
fn accept<E>(worker: &Rc<Worker>, engine: &Rc<E>, stream: TcpStream) -> Option<Task<E>>
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
                // An error means that the peer has gone.
                let _ = turn_away_at_once(worker, stream);
                return None;
            };
            (place, Some(why))
        }
    };
    // An answer need not wait for more to send: the next one comes after the next request only.
    let _ = stream.set_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
    let connection = Connection::new(worker, stream, address.map(network), turned_away);
    Some(Task {
        engine: Rc::clone(engine),
        peer,
        connection,
        stage: Stage::Waiting,
        _place: place,
        _connected: shared.metrics.as_ref().map(|metrics| metrics.connected()),
    })
}

/// Sends a refusal, in the dialect of the path if that has come already, and closes the connection. Waits for nothing.
fn turn_away_at_once(worker: &Worker, stream: TcpStream) -> io::Result<()> {
    // The runtime has not looked at the socket yet, so its stream would not even try to read or write.
    let mut stream = stream.into_std()?;
    let mut scratch = worker.scratch();
    let read = stream.read(&mut scratch).unwrap_or(0);
    let seen = scratch.get(..read).unwrap_or_default();
    let (method, path) = head::sighted(seen);
    let answer = (worker.shared.refuse)(path, Unserved::Full);
    stream.write_all(&words::written(answer, method == b"HEAD"))?;
    stream.shutdown(std::net::Shutdown::Write)
}

/// The stream that the engine gets in place of the socket.
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

    /// The engine is done. The task of the connection ends it without the engine.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.begin_end();
        Poll::Ready(Ok(()))
    }
}

/// The task of a connection. It has an engine only while there is a request, and for about a second after it.
struct Task<E: Service<(Io, Option<SocketAddr>)>> {
    engine: Rc<E>,
    peer: Option<SocketAddr>,
    connection: Rc<Connection>,
    stage: Stage<E::Future>,
    _place: Place,
    _connected: Option<Connected>,
}

enum Stage<F> {
    /// There is no engine: the task waits for a head.
    Waiting,
    /// The engine has the connection.
    Serving(Pin<Box<F>>),
    /// Nothing more is served: the task ends the connection.
    Ending,
}

impl<E: Service<(Io, Option<SocketAddr>)>> Future for Task<E> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let connection = &this.connection;
        connection.keep_waker(cx.waker());
        loop {
            if let Some(cut) = connection.take_cut() {
                if connection.carry_out(cut, cx) {
                    return Poll::Ready(());
                }
                if connection.is_ending() {
                    this.stage = Stage::Ending;
                }
            }
            match &mut this.stage {
                Stage::Waiting => match ready!(connection.poll_head(cx)) {
                    Ok(Input::Ready | Input::Given) => {
                        let io = Io(Rc::clone(connection));
                        let engine = this.engine.call((io, this.peer));
                        connection.engine_started();
                        this.stage = Stage::Serving(Box::pin(engine));
                    }
                    Ok(Input::End) => {
                        if !connection.is_ending() {
                            connection.begin_end();
                        }
                        this.stage = Stage::Ending;
                    }
                    Err(_) => return Poll::Ready(()),
                },
                Stage::Serving(engine) => {
                    let done = engine.as_mut().poll(cx).is_ready();
                    if connection.is_ending() {
                        this.stage = Stage::Ending;
                    } else if done {
                        // The connection broke.
                        return Poll::Ready(());
                    } else if connection.drops_engine() {
                        this.stage = Stage::Waiting;
                    } else {
                        return Poll::Pending;
                    }
                }
                Stage::Ending => return connection.poll_end(cx).map(|_| ()),
            }
        }
    }
}

impl<E: Service<(Io, Option<SocketAddr>)>> Drop for Task<E> {
    fn drop(&mut self) {
        self.connection.forget();
    }
}
