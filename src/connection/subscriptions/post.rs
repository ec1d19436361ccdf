//! The connection to one server, on which channels are heard.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::Redis;
use super::super::node::Node;
use super::wire::{self, Said};
use super::{Listener, cluster_slot};

/// Between two questions whether the server is still there.
const PING: Duration = Duration::from_secs(1);
/// A server that says nothing for so long is taken for gone.
const SILENCE: Duration = Duration::from_secs(4);
/// After so many questions all that is not subscribed is asked for again.
const AGAIN: u32 = 3;
/// The pause before the second attempt to connect. It is doubled after each further one.
const DELAY: Duration = Duration::from_millis(50);
/// The longest such pause.
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// How many bytes of commands are put together at once.
const PART: usize = 32 << 10;
/// How many channels of one slot are subscribed by one command.
const CHANNELS: usize = 256;

/// One server's connection.
pub(super) struct Post {
    state: Mutex<PostState>,
    wake: Notify,
    ended: Notify,
}

struct PostState {
    channels: HashMap<Arc<str>, Stage>,
    /// What is to be sent: channels to subscribe (true) or to leave.
    todo: Vec<(Arc<str>, bool)>,
    heard: Instant,
    empty_since: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Wanted,
    Subscribed,
}

impl Post {
    /// Starts it. `moved` is called when the server says that a slot is not its own.
    pub(super) fn start(
        redis: Redis,
        node: Arc<Node>,
        listener: Arc<dyn Listener>,
        moved: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        let post = Arc::new(Self {
            state: Mutex::new(PostState {
                channels: HashMap::new(),
                todo: Vec::new(),
                heard: Instant::now(),
                empty_since: None,
            }),
            wake: Notify::new(),
            ended: Notify::new(),
        });
        let task = PostTask {
            redis,
            node,
            listener,
            moved: Box::new(moved),
            post: Arc::clone(&post),
            is_known_lost: false,
        };
        tokio::spawn(task.run());
        post
    }

    fn state(&self) -> MutexGuard<'_, PostState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, channel: &Arc<str>) {
        let mut state = self.state();
        state.channels.insert(Arc::clone(channel), Stage::Wanted);
        state.todo.push((Arc::clone(channel), true));
        state.empty_since = None;
        drop(state);
        self.wake.notify_one();
    }

    pub(super) fn remove(&self, channel: &Arc<str>) {
        let mut state = self.state();
        if state.channels.remove(channel).is_some() {
            state.todo.push((Arc::clone(channel), false));
            if state.channels.is_empty() {
                state.empty_since = Some(Instant::now());
            }
            drop(state);
            self.wake.notify_one();
        }
    }

    pub(super) fn hears(&self, channel: &str) -> bool {
        let state = self.state();
        state.heard.elapsed() < SILENCE && state.channels.get(channel) == Some(&Stage::Subscribed)
    }

    /// How long ago the server was last heard.
    pub(super) fn silence(&self) -> Duration {
        self.state().heard.elapsed()
    }

    /// Ends the connection if it has had no channels for a while; whether it has.
    pub(super) fn ends_if_idle(&self) -> bool {
        let idle = self.state().empty_since;
        let ends = idle.is_some_and(|since| since.elapsed() > SILENCE);
        if ends {
            self.ended.notify_one();
        }
        ends
    }
}

struct PostTask {
    redis: Redis,
    node: Arc<Node>,
    listener: Arc<dyn Listener>,
    moved: Box<dyn Fn() + Send + Sync>,
    post: Arc<Post>,
    /// Whether the log says that the connection is lost.
    is_known_lost: bool,
}

/// Why a connection has ended.
enum Lost {
    Broken(String),
    Silent,
    Garbled,
}

impl PostTask {
    async fn run(mut self) {
        let post = Arc::clone(&self.post);
        tokio::select! {
            () = post.ended.notified() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        let mut delay = DELAY;
        loop {
            let connected = Instant::now();
            let why = match self.serve().await {
                Lost::Broken(why) => why,
                Lost::Silent => "it says nothing any more".to_owned(),
                Lost::Garbled => "it says what is no reply".to_owned(),
            };
            for stage in self.post.state().channels.values_mut() {
                *stage = Stage::Wanted;
            }
            if !std::mem::replace(&mut self.is_known_lost, true) {
                // What is wrong with the server, its links say.
                tracing::info!(server = %self.node.name, reason = why, "changes are not heard at once: the subscriptions were lost");
            }
            (self.moved)();
            if connected.elapsed() > LONGEST_DELAY {
                delay = DELAY;
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(LONGEST_DELAY);
        }
    }

    /// Connects, subscribes everything and hears, until the connection ends.
    async fn serve(&mut self) -> Lost {
        let dialer = self.node.dialer();
        let made = tokio::time::timeout(dialer.connect, dialer.make()).await;
        let stream = match made {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Lost::Broken(error.to_string()),
            Err(_) => return Lost::Broken("no connection in time".to_owned()),
        };
        let (mut reading, mut writing) = tokio::io::split(stream);
        self.begin_anew();
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        let mut last = Instant::now();
        let (mut pings, mut asked) = (tokio::time::interval(PING), 0);
        loop {
            if output.is_empty() {
                self.take_todo(&mut output);
            }
            tokio::select! {
                read = reading.read_buf(&mut input) => {
                    match read {
                        Ok(0) => return Lost::Broken("the connection has been closed".to_owned()),
                        Ok(_) => {}
                        Err(error) => return Lost::Broken(error.to_string()),
                    }
                    last = Instant::now();
                    self.post.state().heard = last;
                    loop {
                        match wire::read(&input) {
                            Ok(Some((said, length))) => {
                                input.advance(length);
                                if let Err(lost) = self.hear(said) {
                                    return lost;
                                }
                            }
                            Ok(None) => break,
                            Err(wire::Garbled) => return Lost::Garbled,
                        }
                    }
                }
                written = writing.write(&output), if !output.is_empty() => {
                    match written {
                        Ok(0) => return Lost::Broken("the connection has been closed".to_owned()),
                        Ok(length) => output.advance(length),
                        Err(error) => return Lost::Broken(error.to_string()),
                    }
                    if output.is_empty() && let Err(error) = writing.flush().await {
                        return Lost::Broken(error.to_string());
                    }
                }
                () = self.post.wake.notified() => {}
                _ = pings.tick() => {
                    if last.elapsed() > SILENCE {
                        return Lost::Silent;
                    }
                    asked += 1;
                    if asked % AGAIN == 0 {
                        self.ask_again();
                    }
                    if output.is_empty() {
                        command(&mut output, &["PING"]);
                    }
                }
            }
        }
    }

    /// Nothing is subscribed on a new connection.
    fn begin_anew(&self) {
        let mut state = self.post.state();
        let state = &mut *state;
        for stage in state.channels.values_mut() {
            *stage = Stage::Wanted;
        }
        state.todo = state
            .channels
            .keys()
            .map(|channel| (Arc::clone(channel), true))
            .collect();
        // Those of one slot go together.
        if self.redis.spans_slots() {
            let slot = |channel: &str| cluster_slot::of(channel.as_bytes());
            state.todo.sort_by_key(|(channel, _)| slot(channel));
        }
    }

    /// Asks once more for what has not been answered.
    fn ask_again(&self) {
        let mut state = self.post.state();
        if state.todo.is_empty() {
            let wanted = state.channels.iter();
            let wanted = wanted.filter(|(_, stage)| **stage == Stage::Wanted);
            state.todo = wanted
                .map(|(channel, _)| (Arc::clone(channel), true))
                .collect();
        }
    }

    /// Makes commands of what is to be sent, as many as go at once.
    fn take_todo(&self, output: &mut BytesMut) {
        let mut state = self.post.state();
        let state = &mut *state;
        let mut taken = 0;
        while output.len() < PART
            && let Some((first, joins)) = state.todo.get(taken)
        {
            let joins = *joins;
            let slot = |channel: &str| match self.redis.spans_slots() {
                true => cluster_slot::of(channel.as_bytes()),
                false => 0,
            };
            let of = slot(first);
            let part: Vec<Arc<str>> = state
                .todo
                .iter()
                .skip(taken)
                .take(CHANNELS)
                .take_while(|(channel, also)| *also == joins && slot(channel) == of)
                .map(|(channel, _)| Arc::clone(channel))
                .collect();
            taken += part.len();
            let channels: Vec<&str> = part
                .iter()
                // What is not wanted any more is not asked for, and what is wanted again is not left.
                .filter(|channel| state.channels.contains_key(*channel) == joins)
                .map(|channel| &**channel)
                .collect();
            if channels.is_empty() {
                continue;
            }
            let verb = if joins { "SSUBSCRIBE" } else { "SUNSUBSCRIBE" };
            let words: Vec<&str> = std::iter::once(verb).chain(channels).collect();
            command(output, &words);
        }
        state.todo.drain(..taken.min(state.todo.len()));
    }

    fn hear(&mut self, said: Said) -> Result<(), Lost> {
        match said {
            Said::Message(channel, what) => self.listener.heard(&channel, &what),
            Said::Subscribed(channel) => {
                let mut state = self.post.state();
                let wanted = state.channels.get_mut(channel.as_str());
                let is_new = wanted.is_some_and(|stage| {
                    std::mem::replace(stage, Stage::Subscribed) == Stage::Wanted
                });
                drop(state);
                if is_new {
                    self.listener.subscribed(&channel);
                }
                if std::mem::take(&mut self.is_known_lost) {
                    tracing::info!(server = %self.node.name, "changes are heard at once again");
                }
            }
            Said::Unsubscribed(channel) => {
                let mut state = self.post.state();
                // The answer to our own request comes before that to a later one to subscribe, and so while the channel is wanted
                // only. It is not waited for: a server that has given the slot away refuses it.
                if let Some(stage) = state.channels.get_mut(channel.as_str())
                    && *stage == Stage::Subscribed
                {
                    // The slot has gone elsewhere. Where that is, the keeper finds out.
                    *stage = Stage::Wanted;
                    drop(state);
                    self.redis.refresh();
                    (self.moved)();
                }
            }
            Said::Error(why) => {
                let mut words = why.split(' ');
                match (words.next(), words.next(), words.next()) {
                    (Some("MOVED"), Some(slot), Some(address)) => {
                        if let Ok(slot) = slot.parse() {
                            self.redis.redirected(&self.node, address, slot);
                        }
                        (self.moved)();
                    }
                    // It is asked again until it is.
                    (Some("CLUSTERDOWN" | "TRYAGAIN" | "LOADING"), ..) => {}
                    _ => {
                        if !std::mem::replace(&mut self.is_known_lost, true) {
                            tracing::warn!(server = %self.node.name, reason = why, "changes are not heard at once: a subscription was refused");
                        }
                    }
                }
            }
            Said::Other => {}
        }
        Ok(())
    }
}

fn command(output: &mut BytesMut, words: &[&str]) {
    let mut bytes = Vec::new();
    wire::write(&mut bytes, words.iter().copied());
    output.extend_from_slice(&bytes);
}
