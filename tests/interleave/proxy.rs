//! A proxy between a pod and Redis. It understands requests well enough to hold back the commands of one case and of no other.
//!
//! A case has an app of its own, and every key and every index entry begins with the app's id: so every command says which case
//! it belongs to. Replies leave in the order in which their commands came; a command that is held back holds back
//! the replies behind it on its connection, but not the commands.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use crate::support::scripts;

/// The answer to a command of a case to which the pod is dead. It is what a full Redis says: the pod gives the request up at once
/// and does not send it again.
const DEAD: &[u8] = b"-OOM this pod is dead to this case\r\n";

/// Scripts of the sweep, which runs when it likes and is no step of an operation.
const SWEEP: [&str; 3] = ["jobs_claim", "jobs_renew", "pending_looked"];

/// Where to stop.
#[derive(Clone, Debug)]
pub(crate) enum Stop {
    /// Before the next command, when so many have gone through.
    Before(usize),
    /// Before the first call of this script.
    Script(&'static str),
}

#[derive(Default)]
struct CaseState {
    stop: Option<Stop>,
    /// From here on nothing passes.
    holding: bool,
    dead: bool,
    /// How many commands went through since it was armed.
    passed: usize,
    /// How many of these Redis has not answered.
    outstanding: usize,
    /// Names of the commands. The first `passed` of them went through.
    log: Vec<String>,
    changed: Arc<Notify>,
}

struct Shared {
    target: SocketAddr,
    cases: Mutex<HashMap<usize, CaseState>>,
    /// Changes when connections have to look again at what they hold back.
    looked: watch::Sender<u64>,
    /// Names of scripts, by the digests that call them.
    scripts: Mutex<HashMap<String, String>>,
    /// Commands that belong to several cases and are not the sweep's. Nobody could say which case they belong to, so there must
    /// be none.
    mixed: Mutex<Vec<String>>,
    unknown: Mutex<BTreeSet<String>>,
    /// Whether the log shows arguments.
    verbose: bool,
    /// Whether the pod's sweep may find unfinished work.
    sweeps: bool,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What is to be done with a command.
enum Fate {
    Pass,
    Hold,
    Dead,
    Nothing,
}

impl Proxy {
    /// Passes everything on to `target`. `sweeps`: whether the pod behind it may find unfinished work. A pod that is dead to one
    /// case and alive to another would take over half of a batch and drop it.
    pub(crate) async fn start(target: SocketAddr, sweeps: bool, verbose: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            cases: Mutex::default(),
            looked: watch::Sender::new(0),
            scripts: Mutex::new(by_digest()),
            mixed: Mutex::default(),
            unknown: Mutex::default(),
            verbose,
            sweeps,
        });
        let serving = Arc::clone(&shared);
        // Ends with the runtime of the test.
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(shared.target).await {
                        let _ = (client.set_nodelay(true), server.set_nodelay(true));
                        // A connection that breaks is the pod's to notice.
                        let _ = Connection::new(shared).run(client, server).await;
                    }
                });
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// From now on the case's commands are counted; from `stop` on they are held back.
    pub(crate) fn arm(&self, case: usize, stop: Stop) {
        let state = CaseState {
            stop: Some(stop),
            ..CaseState::default()
        };
        self.shared.cases().insert(case, state);
    }

    /// Waits until a command is held back and Redis has answered all that went through.
    pub(crate) async fn held(&self, case: usize) {
        loop {
            let changed = {
                let mut cases = self.shared.cases();
                let state = cases.entry(case).or_default();
                if state.holding && state.outstanding == 0 {
                    return;
                }
                Arc::clone(&state.changed).notified_owned()
            };
            changed.await;
        }
    }

    /// The case goes on as if nothing had been held back.
    pub(crate) fn release(&self, case: usize) {
        self.change(case, |state| {
            state.stop = None;
            state.holding = false;
        });
    }

    /// To this case the pod is dead: what is held back and all that follows never reaches Redis.
    pub(crate) fn kill(&self, case: usize) {
        self.change(case, |state| state.dead = true);
    }

    /// From now on all of the case's commands pass. A pod that was dead to the case is taken for a new pod.
    pub(crate) fn forget(&self, case: usize) {
        self.shared.cases().remove(&case);
    }

    /// The case is over. A pod that is dead to it stays dead to it.
    pub(crate) fn forget_unless_dead(&self, case: usize) {
        let mut cases = self.shared.cases();
        if cases.get(&case).is_some_and(|state| !state.dead) {
            cases.remove(&case);
        }
    }

    /// The case's commands so far, and how many of them went through before it was held.
    pub(crate) fn log(&self, case: usize) -> (Vec<String>, usize) {
        let mut cases = self.shared.cases();
        let state = cases.entry(case).or_default();
        (state.log.clone(), state.passed)
    }

    /// Digests of scripts that have no name here.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let known = self.shared.scripts.lock().unwrap();
        let called = self.shared.unknown.lock().unwrap();
        let unknown = called.iter().filter(|digest| !known.contains_key(*digest));
        unknown.cloned().collect()
    }

    pub(crate) fn mixed(&self) -> Vec<String> {
        self.shared.mixed.lock().unwrap().clone()
    }

    fn change(&self, case: usize, how: impl FnOnce(&mut CaseState)) {
        how(self.shared.cases().entry(case).or_default());
        self.shared.looked.send_modify(|n| *n += 1);
    }
}

impl Shared {
    fn cases(&self) -> MutexGuard<'_, HashMap<usize, CaseState>> {
        self.cases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at a command that has just come.
    fn arrived(&self, command: &Command<'_>) -> (Option<usize>, Fate) {
        let name = self.name(command);
        if SWEEP.contains(&name.as_str()) || command.is_of_the_index() {
            let asks = name == "ZRANGE";
            let dead = command.cases().iter().any(|case| {
                let cases = self.cases();
                cases.get(case).is_some_and(|state| state.dead)
            });
            return match (asks && !self.sweeps, dead) {
                (true, _) => (None, Fate::Nothing),
                (false, true) => (None, Fate::Dead),
                (false, false) => (None, Fate::Pass),
            };
        }
        let case = match command.cases().as_slice() {
            [] => return (None, Fate::Pass),
            [case] => *case,
            several => {
                let mut mixed = self.mixed.lock().unwrap();
                mixed.push(format!("{name} of {several:?}"));
                return (None, Fate::Pass);
            }
        };
        let mut cases = self.cases();
        let Some(state) = cases.get_mut(&case) else {
            return (None, Fate::Pass);
        };
        if state.dead {
            return (Some(case), Fate::Dead);
        }
        let stop = match &state.stop {
            Some(Stop::Before(so_many)) => state.passed >= *so_many,
            Some(Stop::Script(script)) => name == *script,
            None => false,
        };
        state.log.push(match self.verbose {
            true => format!("{name} {}", command.summary()),
            false => name,
        });
        if state.holding || stop {
            state.holding = true;
            state.changed.notify_waiters();
            return (Some(case), Fate::Hold);
        }
        if state.stop.is_some() {
            state.passed += 1;
        }
        state.outstanding += 1;
        (Some(case), Fate::Pass)
    }

    /// Looks again at a command that was held back.
    fn looked_at(&self, case: usize) -> Fate {
        let mut cases = self.cases();
        let Some(state) = cases.get_mut(&case) else {
            return Fate::Pass;
        };
        match (state.dead, state.holding) {
            (true, _) => Fate::Dead,
            (false, true) => Fate::Hold,
            (false, false) => {
                state.outstanding += 1;
                Fate::Pass
            }
        }
    }

    fn answered(&self, case: Option<usize>) {
        let mut cases = self.cases();
        if let Some(state) = case.and_then(|case| cases.get_mut(&case)) {
            state.outstanding = state.outstanding.saturating_sub(1);
            if state.outstanding == 0 {
                state.changed.notify_waiters();
            }
        }
    }

    /// The name of a script, or of a command.
    fn name(&self, command: &Command<'_>) -> String {
        let word = |at: usize| command.0.get(at).map(|arg| String::from_utf8_lossy(arg));
        let name = word(0).unwrap_or_default().to_uppercase();
        match name.as_str() {
            "EVALSHA" => {
                let digest = word(1).unwrap_or_default().into_owned();
                if let Some(name) = self.scripts.lock().unwrap().get(&digest) {
                    return name.clone();
                }
                self.unknown.lock().unwrap().insert(digest);
                "?".to_owned()
            }
            "EVAL" => {
                let text = word(1).unwrap_or_default();
                let mut scripts = self.scripts.lock().unwrap();
                let file = scripts::all()
                    .into_iter()
                    .find(|(_, own)| text.contains(own));
                let name = file.map_or_else(|| "?".to_owned(), |(name, _)| name);
                scripts.insert(scripts::digest(&text), name.clone());
                name
            }
            _ => name,
        }
    }
}

/// Names of the program's scripts, by their digests.
fn by_digest() -> HashMap<String, String> {
    let named = |(name, text): (String, String)| (scripts::digest(&text), name);
    scripts::all().into_iter().map(named).collect()
}

// ---------------------------------------------------------------------------------------------------------- a connection

/// The place of a command in the order of replies. It is given up when the reply leaves.
struct Place {
    case: Option<usize>,
    /// The command, while it is held back.
    held: Option<Vec<u8>>,
    reply: Option<Vec<u8>>,
}

/// One connection of the pod.
struct Connection {
    shared: Arc<Shared>,
    places: VecDeque<Place>,
    /// The number of the first place.
    first: usize,
    /// Places in the order in which Redis was asked.
    asked: VecDeque<usize>,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

impl Connection {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            places: VecDeque::new(),
            first: 0,
            asked: VecDeque::new(),
            to_server: Vec::new(),
            to_client: Vec::new(),
        }
    }

    async fn run(mut self, mut client: TcpStream, mut server: TcpStream) -> std::io::Result<()> {
        let mut looked = self.shared.looked.subscribe();
        let (mut calls, mut replies) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                read = client.read_buf(&mut calls) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    self.take_commands(&mut calls);
                }
                read = server.read_buf(&mut replies) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    self.take_replies(&mut replies);
                }
                changed = looked.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.look_again();
                }
            }
            while let Some(reply) = self.places.front_mut().and_then(|place| place.reply.take()) {
                self.to_client.extend(reply);
                self.places.pop_front();
                self.first += 1;
            }
            server.write_all(&self.to_server).await?;
            client.write_all(&self.to_client).await?;
            self.to_server.clear();
            self.to_client.clear();
        }
    }

    fn take_commands(&mut self, bytes: &mut Vec<u8>) {
        let mut at = 0;
        while let Some((command, length)) = Command::first(&bytes[at..]) {
            let whole = &bytes[at..at + length];
            at += length;
            let (case, fate) = self.shared.arrived(&command);
            let mut place = Place {
                case,
                held: None,
                reply: None,
            };
            match fate {
                Fate::Pass => {
                    self.to_server.extend_from_slice(whole);
                    self.asked.push_back(self.first + self.places.len());
                }
                Fate::Hold => place.held = Some(whole.to_vec()),
                Fate::Dead => place.reply = Some(DEAD.to_vec()),
                Fate::Nothing => place.reply = Some(b"*0\r\n".to_vec()),
            }
            self.places.push_back(place);
        }
        bytes.drain(..at);
    }

    fn take_replies(&mut self, bytes: &mut Vec<u8>) {
        let mut at = 0;
        while let Some(length) = reply_length(&bytes[at..]) {
            let number = self.asked.pop_front().expect("a reply without a command");
            let place = &mut self.places[number - self.first];
            place.reply = Some(bytes[at..at + length].to_vec());
            at += length;
            self.shared.answered(place.case);
        }
        bytes.drain(..at);
    }

    fn look_again(&mut self) {
        for (at, place) in self.places.iter_mut().enumerate() {
            let (Some(case), Some(command)) = (place.case, place.held.take()) else {
                continue;
            };
            match self.shared.looked_at(case) {
                Fate::Hold => place.held = Some(command),
                Fate::Pass => {
                    self.to_server.extend(command);
                    self.asked.push_back(self.first + at);
                }
                Fate::Dead | Fate::Nothing => place.reply = Some(DEAD.to_vec()),
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- the protocol

/// A command taken apart.
struct Command<'a>(Vec<&'a [u8]>);

impl<'a> Command<'a> {
    /// The first command, if all of it is there, and how long it is.
    fn first(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let (head, mut at) = line(bytes)?;
        let count = number(head.strip_prefix(b"*").expect("commands are lists"));
        let mut args = Vec::with_capacity(count);
        for _ in 0..count {
            let (head, length) = line(bytes.get(at..)?)?;
            at += length;
            let size = number(head.strip_prefix(b"$").expect("arguments are texts"));
            args.push(bytes.get(at..at + size)?);
            bytes.get(at + size + 1)?;
            at += size + 2;
        }
        Some((Self(args), at))
    }

    /// The cases whose names stand in keys or index entries.
    fn cases(&self) -> Vec<usize> {
        let mut cases: Vec<usize> = self.0.iter().filter_map(|arg| case_of(arg)).collect();
        cases.sort_unstable();
        cases.dedup();
        cases
    }

    /// Whether the sweep asks the index what there is to do.
    fn is_of_the_index(&self) -> bool {
        let script =
            self.0[0].eq_ignore_ascii_case(b"EVALSHA") || self.0[0].eq_ignore_ascii_case(b"EVAL");
        let index = self
            .0
            .get(1)
            .is_some_and(|key| key.starts_with(b"unread:v1:{pending:"));
        !script && index
    }

    /// What it is about, short enough to be read.
    fn summary(&self) -> String {
        let script = self.0[0].eq_ignore_ascii_case(b"EVALSHA");
        let words = self.0.iter().skip(if script { 3 } else { 1 });
        let short = |word: &&[u8]| {
            let text = String::from_utf8_lossy(word).replace('\n', "⏎");
            let text = text.strip_prefix("unread:v1:").unwrap_or(&text).to_owned();
            match text.chars().count() > 60 {
                true => text.chars().take(60).chain(['…']).collect(),
                false if text.is_empty() => "''".to_owned(),
                false => text,
            }
        };
        words.map(short).collect::<Vec<String>>().join(" ")
    }
}

/// The case of `unread:v1:{app-N:…` and of `app-N:…`.
fn case_of(arg: &[u8]) -> Option<usize> {
    let name = arg.strip_prefix(b"unread:v1:{").unwrap_or(arg);
    let rest = name.strip_prefix(b"app-")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (rest.get(digits) == Some(&b':')).then(|| number(&rest[..digits]))
}

fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.iter().position(|byte| *byte == b'\r')?;
    bytes.get(end + 1)?;
    Some((&bytes[..end], end + 2))
}

fn number(digits: &[u8]) -> usize {
    std::str::from_utf8(digits).unwrap().parse().unwrap()
}

/// How long the first reply is, if all of it is there.
fn reply_length(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut missing) = (0, 1_usize);
    while missing > 0 {
        let (head, length) = line(bytes.get(at..)?)?;
        at += length;
        missing -= 1;
        match (head[0], &head[1..]) {
            (b'$' | b'*', b"-1") => {}
            (b'$', size) => at += number(size) + 2,
            (b'*', count) => missing += number(count),
            _ => {}
        }
    }
    (at <= bytes.len()).then_some(at)
}

#[test]
fn commands_and_replies_come_apart() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$29\r\nunread:v1:{app-17:u:a}:counts\r\n*1\r\n$4\r\nPI";
    let (command, length) = Command::first(bytes).unwrap();
    assert_eq!((command.cases(), length), (vec![17], 49));
    assert!(Command::first(&bytes[length..]).is_none());
    assert_eq!(case_of(b"app-3:r:x"), Some(3));
    assert_eq!(case_of(b"app-3"), None);
    for (reply, length) in [
        (&b"+OK\r\n:1"[..], Some(5)),
        (b"$3\r\nabc\r\n", Some(9)),
        (b"$3\r\nabc\r", None),
        (b"$-1\r\n", Some(5)),
        (b"*2\r\n*1\r\n:1\r\n$0\r\n\r\n:2\r\n", Some(18)),
        (b"*2\r\n:1\r\n", None),
        (b"*2\r\n$5\r\nab", None),
    ] {
        assert_eq!(reply_length(reply), length, "{reply:?}");
    }
}
