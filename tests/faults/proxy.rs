//! A TCP proxy between a pod and Redis that misbehaves as told, switchable at any time.
//!
//! It knows nothing of Redis's protocol but what a message on a channel looks like: what a client sends in one go is a *request* here,
//! and what comes back first is its reply. It runs on a thread of its own, so a test that blocks does not hold it up.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// What to do with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    Pass,
    /// Later.
    Delay(Duration),
    /// The server gets it and answers, the client gets nothing but the end of the connection.
    SwallowReply,
    /// The server gets so many bytes of it, then the connection ends.
    CutRequest(usize),
    /// The client gets so many bytes of the reply, then the connection ends.
    CutReply(usize),
    /// The same by a reset instead of an orderly end.
    ResetReply(usize),
    /// The connection stays and nothing moves on it any more, ever: the other side is gone without a word.
    Silence,
}

impl Treatment {
    fn name(self) -> &'static str {
        match self {
            Self::Pass => "passed",
            Self::Delay(_) => "delayed",
            Self::SwallowReply => "replies swallowed",
            Self::CutRequest(_) => "requests cut",
            Self::CutReply(_) => "replies cut",
            Self::ResetReply(_) => "resets in a reply",
            Self::Silence => "fallen silent",
        }
    }
}

enum Plan {
    Always(Treatment),
    /// Once, for the request after so many others.
    Once(usize, Treatment),
    /// Mostly none, sometimes any of them.
    Random(Box<StdRng>),
}

impl Plan {
    fn next(&mut self) -> Treatment {
        match self {
            Self::Always(treatment) => *treatment,
            Self::Once(0, treatment) => {
                let treatment = *treatment;
                *self = Self::Always(Treatment::Pass);
                treatment
            }
            Self::Once(before, _) => {
                *before -= 1;
                Treatment::Pass
            }
            Self::Random(rng) => match rng.random_range(0..1000) {
                0..15 => Treatment::SwallowReply,
                15..30 => Treatment::CutRequest(rng.random_range(1..400)),
                30..45 => Treatment::CutReply(rng.random_range(1..40)),
                45..60 => Treatment::ResetReply(rng.random_range(0..40)),
                60..63 => Treatment::Silence,
                63..120 => Treatment::Delay(Duration::from_millis(rng.random_range(1..150))),
                _ => Treatment::Pass,
            },
        }
    }

    /// Whether a new connection is reset at once.
    fn shut(&mut self) -> bool {
        match self {
            Self::Random(rng) => rng.random_bool(0.1),
            _ => false,
        }
    }
}

/// Whether there is anybody listening.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    Shut,
    /// For good.
    Gone,
}

struct Shared {
    target: Mutex<SocketAddr>,
    plan: Mutex<Plan>,
    done: Mutex<BTreeMap<&'static str, usize>>,
    door: watch::Sender<Door>,
    /// Whether what is said on channels gets lost.
    loses_notices: AtomicBool,
    /// Moves on when all connections are to end.
    severed: watch::Sender<u64>,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Passes everything on to `target`.
    pub(crate) fn start(target: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            plan: Mutex::new(Plan::Always(Treatment::Pass)),
            done: Mutex::default(),
            door: watch::Sender::new(Door::Open),
            loses_notices: AtomicBool::new(false),
            severed: watch::Sender::new(0),
        });
        let listening = Arc::clone(&shared);
        let (told, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (holder, address) = port();
                told.send(address).unwrap();
                listen(address, listening).await;
                drop(holder);
            });
        });
        Self {
            address: address.recv().unwrap(),
            shared,
            thread: Some(thread),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    fn plan(&self, plan: Plan) {
        *self.shared.plan.lock().unwrap() = plan;
    }

    /// With every request from now on.
    pub(crate) fn always(&self, treatment: Treatment) {
        self.plan(Plan::Always(treatment));
    }

    /// Once, with the request after so many others.
    pub(crate) fn once(&self, after: usize, treatment: Treatment) {
        self.plan(Plan::Once(after, treatment));
    }

    /// Whether what [`Proxy::once`] asked for has not come up yet.
    pub(crate) fn waiting(&self) -> bool {
        matches!(*self.shared.plan.lock().unwrap(), Plan::Once(..))
    }

    pub(crate) fn random(&self, seed: u64) {
        self.plan(Plan::Random(Box::new(StdRng::seed_from_u64(seed))));
    }

    /// Nobody listens, and whoever was connected is not any more.
    pub(crate) fn refuse(&self) {
        self.shared.door.send_replace(Door::Shut);
        self.sever();
    }

    /// All is well again, for new connections: those that fell silent stay so.
    pub(crate) fn heal(&self) {
        self.always(Treatment::Pass);
        self.shared.door.send_replace(Door::Open);
    }

    /// Whether what is said on channels gets lost from now on, and nothing else.
    pub(crate) fn loses_notices(&self, loses: bool) {
        self.shared.loses_notices.store(loses, Ordering::Relaxed);
    }

    /// Resets all connections.
    pub(crate) fn sever(&self) {
        self.shared.severed.send_modify(|times| *times += 1);
    }

    /// New connections go there, and the old ones end.
    pub(crate) fn point_at(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = target;
        self.sever();
    }

    /// How often what was done, in words.
    pub(crate) fn done(&self) -> String {
        let done = self.shared.done.lock().unwrap();
        let done: Vec<String> = done
            .iter()
            .filter(|(name, _)| **name != Treatment::Pass.name())
            .map(|(name, times)| format!("{times} {name}"))
            .collect();
        done.join(", ")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.door.send_replace(Door::Gone);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A free port, held by a socket that does not listen, so that it stays ours while connections are to be refused.
fn port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn listener(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(1024).unwrap()
}

async fn listen(address: SocketAddr, shared: Arc<Shared>) {
    let mut door = shared.door.subscribe();
    loop {
        let now = *door.borrow_and_update();
        match now {
            Door::Gone => return,
            Door::Shut => {
                let _ = door.changed().await;
                continue;
            }
            Door::Open => {}
        }
        let listener = listener(address);
        loop {
            tokio::select! {
                _ = door.changed() => break,
                accepted = listener.accept() => {
                    let Ok((client, _)) = accepted else { continue };
                    if shared.plan.lock().unwrap().shut() {
                        count(&shared, "connections reset at once");
                        reset(&client);
                        continue;
                    }
                    let severed = shared.severed.subscribe();
                    // Asked only now: whoever shuts the door severs after that, and this one has to hear of one or the
                    // other.
                    if *shared.door.borrow() != Door::Open {
                        reset(&client);
                        continue;
                    }
                    tokio::spawn(serve(client, Arc::clone(&shared), severed));
                }
            }
        }
    }
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>, mut severed: watch::Receiver<u64>) {
    let target = *shared.target.lock().unwrap();
    let Ok(mut server) = TcpStream::connect(target).await else {
        reset(&client);
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let end = tokio::select! {
        _ = severed.changed() => End::Reset,
        end = pump(&mut client, &mut server, &shared) => end.unwrap_or(End::Orderly),
    };
    if end == End::Reset {
        reset(&client);
    }
}

#[derive(PartialEq, Eq)]
enum End {
    Orderly,
    Reset,
}

async fn pump(
    client: &mut TcpStream,
    server: &mut TcpStream,
    shared: &Shared,
) -> std::io::Result<End> {
    let (mut request, mut reply) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            n = client.read(&mut request) => {
                let n = n?;
                if n == 0 {
                    return Ok(End::Orderly);
                }
                let sent = &request[..n];
                let treatment = shared.plan.lock().unwrap().next();
                count(shared, treatment.name());
                match treatment {
                    Treatment::Pass => server.write_all(sent).await?,
                    Treatment::Delay(time) => {
                        tokio::time::sleep(time).await;
                        server.write_all(sent).await?;
                    }
                    Treatment::CutRequest(most) => {
                        server.write_all(&sent[..most.min(n)]).await?;
                        return Ok(End::Orderly);
                    }
                    Treatment::SwallowReply | Treatment::CutReply(_) | Treatment::ResetReply(_) => {
                        server.write_all(sent).await?;
                        let got = server.read(&mut reply).await?;
                        let (most, end) = match treatment {
                            Treatment::CutReply(most) => (most, End::Orderly),
                            Treatment::ResetReply(most) => (most, End::Reset),
                            _ => (0, End::Orderly),
                        };
                        client.write_all(&reply[..most.min(got)]).await?;
                        return Ok(end);
                    }
                    Treatment::Silence => while client.read(&mut request).await? > 0 {},
                }
            }
            n = server.read(&mut reply) => {
                let n = n?;
                if n == 0 {
                    return Ok(End::Orderly);
                }
                let said = &reply[..n];
                if shared.loses_notices.load(Ordering::Relaxed) && is_notice(said) {
                    count(shared, "notices lost");
                    continue;
                }
                client.write_all(said).await?;
            }
        }
    }
}

/// Whether a server says on a channel what was published there. It says whole things at once.
fn is_notice(said: &[u8]) -> bool {
    const WORD: &[u8] = b"\r\nsmessage\r\n";
    said.windows(WORD.len()).any(|bytes| bytes == WORD)
}

fn count(shared: &Shared, what: &'static str) {
    *shared.done.lock().unwrap().entry(what).or_default() += 1;
}

/// The connection will end by a reset when it is dropped.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// A replica connects again as soon as its connection is cut. It once got in while the door was closing and was served from then
/// on; so a test waited for refusals that never came.
#[test]
fn a_connection_made_while_the_door_closes_is_not_let_in() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(server.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                std::io::copy(&mut stream.try_clone().unwrap(), &mut stream)
            });
        }
    });
    let answered = |stream: &mut std::net::TcpStream| {
        let mut byte = [0];
        stream.write_all(b"?").is_ok() && stream.read_exact(&mut byte).is_ok()
    };
    for round in 0..100 {
        let connect = || std::net::TcpStream::connect(proxy.address).ok();
        let stream = crate::support::until("the open door", connect);
        let shut = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            let again = scope.spawn(move || {
                let mut stream = Some(stream);
                let mut since = 0;
                while let Some(mut connected) = stream {
                    while answered(&mut connected) {
                        since += usize::from(shut.load(Ordering::Relaxed));
                        assert!(since < 20, "round {round}: served behind a shut door");
                    }
                    stream = connect();
                }
            });
            proxy.refuse();
            shut.store(true, Ordering::Relaxed);
            again.join().unwrap();
        });
        proxy.heal();
    }
}
