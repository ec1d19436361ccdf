//! The connections to Redis: one server, a cluster, or a master that sentinels watch, behind one type. A few shared
//! multiplexed connections per server that reconnect by themselves are the hot path; a small pool is for admin work that
//! wants a connection to itself. Time-outs live here, and so does the recovery from `NOSCRIPT`.
//!
//! What a server has refused is sent again, to another if need be, as long as the deadline allows: a refusal changes
//! nothing. What may have been executed is not: whether it may be repeated is for the caller to know.

mod cluster;
mod condition;
mod link;
mod node;
mod resp;
mod route;
mod sentinel;
mod tls;
#[cfg(fuzzing)]
#[path = "../fuzz/doors/replies.rs"]
#[doc(hidden)]
pub mod fuzzing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Arg, Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use crate::config::{Place, RedisAddress, RedisConfig};
use crate::error::{Error, Result, Trouble, Unavailable, Unreadable};
use crate::keys;
use crate::scripts::Call;
use crate::telemetry::metrics::Metrics;
use cluster::Cluster;
use condition::{Meaning, words};
use link::Outgoing;
use node::{Node, Reconnect, Settings};
use sentinel::Sentinel;

/// Before a refused command is sent again; doubled with every further time.
const PAUSE: Duration = Duration::from_millis(5);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

const IN_TIME: &str = "no answer in time";

/// Keys tried to find one that a server has: enough even for one that has a hundredth of the slots.
const CANDIDATES: u32 = 4_096;

/// One thing to send: a plain command or a call of a script. Its first key says where it goes.
pub enum Item {
    /// A plain command.
    Plain(Cmd),
    /// The same, whose answer is a list that [`texts`] reads: its values are not taken apart before that.
    Flat(Cmd),
    /// A script.
    Script(Call),
}

/// The same, borrowed.
#[derive(Clone, Copy)]
enum Sent<'a> {
    Plain(&'a Cmd),
    Flat(&'a Cmd),
    Script(&'a Call),
}

impl<'a> Sent<'a> {
    fn cmd(self) -> &'a Cmd {
        match self {
            Sent::Plain(cmd) | Sent::Flat(cmd) => cmd,
            Sent::Script(call) => &call.cmd,
        }
    }

    fn outgoing(self) -> Outgoing<'a> {
        Outgoing {
            flat: matches!(self, Sent::Flat(_)),
            ..self.cmd().into()
        }
    }

    /// A call that will not run in a slot that is in two places.
    fn guarded(self) -> Option<Call> {
        match self {
            Sent::Plain(_) | Sent::Flat(_) => None,
            Sent::Script(call) => Some(call.guarded()),
        }
    }

    /// Whether it is a script that Redis refuses wherever it takes no writes.
    fn writes_freely(self) -> bool {
        matches!(self, Sent::Script(call) if call.script.writes_freely())
    }

    /// The slot of the first key.
    fn slot(self) -> u16 {
        self.key().map_or(0, cluster::slot)
    }

    /// The first key.
    fn key(self) -> Option<&'a [u8]> {
        let at = match self {
            // The one command of ours whose first word is not all of its name.
            Sent::Plain(cmd) if matches!(cmd.args_iter().next(), Some(Arg::Simple(b"MEMORY"))) => 2,
            Sent::Plain(_) | Sent::Flat(_) => 1,
            Sent::Script(_) => 3,
        };
        match self.cmd().args_iter().nth(at) {
            Some(Arg::Simple(key)) => Some(key),
            _ => None,
        }
    }
}

impl<'a> From<&'a Item> for Sent<'a> {
    fn from(item: &'a Item) -> Self {
        match item {
            Item::Plain(cmd) => Sent::Plain(cmd),
            Item::Flat(cmd) => Sent::Flat(cmd),
            Item::Script(call) => Sent::Script(call),
        }
    }
}

/// What the answer to an [`Item::Flat`] lists: texts, and nothing where there is none.
pub fn texts(answer: &Value) -> Result<impl Iterator<Item = Result<Option<&str>>>> {
    let unreadable = |_: RedisError| Error::unreadable("what is no text");
    let Value::BulkString(list) = answer else {
        return Err(Error::Internal(
            "unexpected reply from redis: not a list".into(),
        ));
    };
    let texts = resp::texts(list).map_err(unreadable)?;
    Ok(texts.map(move |text| text.map_err(unreadable)))
}

/// Says that this thread is an HTTP worker, which is to have a connection of its own to each server.
pub fn this_is_a_worker() {
    node::this_is_a_worker();
}

/// A handle to Redis; clones share the connections.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<Inner>,
}

struct Inner {
    place: Servers,
    deadline: Duration,
    metrics: Arc<Metrics>,
}

enum Servers {
    One(Arc<Node>),
    Cluster(Arc<Cluster>),
    Sentinel(Sentinel),
}

/// One server that takes writes, for admin work on all of them.
#[derive(Clone)]
pub struct Server {
    redis: Redis,
    node: Arc<Node>,
}

/// Something that has no answer yet.
struct Open<'a> {
    index: usize,
    sent: Sent<'a>,
    /// With its text, for a server that does not know the script.
    text: Option<Cmd>,
    /// Where it has been sent on to, and whether it has to ask there.
    at: Option<(Arc<Node>, bool)>,
}

/// What an answer means for what is to be done next.
enum Next {
    Done(Value),
    /// Refused for now, or sent elsewhere.
    Again,
    Failed(Error),
}

impl Redis {
    /// Prepares the connections; they are made when first used, so this works while Redis is down. Wants a tokio runtime.
    pub fn new(config: &RedisConfig, url: &str, metrics: Arc<Metrics>) -> Result<Self> {
        let address =
            RedisAddress::parse(url).map_err(|why| Error::Internal(format!("redis.url {why}")))?;
        let settings = Settings::new(config, &address)?;
        let deadline = settings.deadline();
        let place = match address.place {
            Place::Server { .. } | Place::Socket { .. } => {
                // A cause of an address error could repeat the address, which may hold a password: it isn't shown.
                let info = redis::IntoConnectionInfo::into_connection_info(url).map_err(|_| {
                    Error::Unavailable("redis.url can't be used as an address".into())
                })?;
                let metrics = Some(Arc::clone(&metrics));
                let node = Node::new(info, &settings, Reconnect::Patient, metrics)?;
                Servers::One(Arc::new(node))
            }
            Place::Cluster(seeds) => Servers::Cluster(Cluster::start(settings, seeds)?),
            Place::Sentinel {
                sentinels,
                master,
                db,
                user,
                password,
            } => {
                let at_sentinels = settings.with_login(user.as_deref(), password.as_deref());
                Servers::Sentinel(Sentinel::start(
                    settings.with_db(db),
                    &at_sentinels,
                    &sentinels,
                    &master,
                    Arc::clone(&metrics),
                )?)
            }
        };
        Ok(Self {
            inner: Arc::new(Inner {
                place,
                deadline,
                metrics,
            }),
        })
    }

    /// Whether keys are spread over slots, so that a call may hold only keys of one.
    pub fn spans_slots(&self) -> bool {
        matches!(self.inner.place, Servers::Cluster(_))
    }

    /// Runs one plain command.
    pub async fn query(&self, cmd: &Cmd) -> Result<Value> {
        self.single(Sent::Plain(cmd)).await
    }

    /// Runs one script; a server that does not know it gets its text, once.
    pub async fn call(&self, call: &Call) -> Result<Value> {
        self.single(Sent::Script(call)).await
    }

    /// Runs one item.
    pub async fn one(&self, item: &Item) -> Result<Value> {
        self.single(item.into()).await
    }

    /// Runs independent items in as few round trips as possible; their order among each other means nothing. The first
    /// error is the answer of all.
    pub async fn batch(&self, items: &[Item]) -> Result<Vec<Value>> {
        match items {
            [] => Ok(Vec::new()),
            [one] => Ok(vec![self.single(one.into()).await?]),
            _ => match &self.inner.place {
                Servers::One(node) => self.pipelined(node, items, |a| a, |a| a).await,
                _ => {
                    let all = items.iter().map(Sent::from).collect();
                    let answers = Box::pin(self.run(all)).await?;
                    answers.into_iter().collect()
                }
            },
        }
    }

    /// The same, but an item that can't be read has that as its own answer and does not hide the others. (On a cluster an item
    /// that its node did not take, too.)
    pub async fn each(&self, items: &[Item]) -> Result<Vec<Result<Value>>> {
        match (items, &self.inner.place) {
            ([], _) => Ok(Vec::new()),
            (_, Servers::One(node)) => {
                let own = |answer| match answer {
                    Err(error @ Error::Unreadable(_)) => Ok(Err(error)),
                    answer => answer.map(Ok),
                };
                self.pipelined(node, items, own, Ok).await
            }
            _ => Box::pin(self.run(items.iter().map(Sent::from).collect())).await,
        }
    }

    /// All to the one server that there is; scripts that it does not know are then sent with their text. `first` and `again` say what
    /// becomes of an answer of the one round and of the other: an error of theirs is the answer of all.
    async fn pipelined<T>(
        &self,
        node: &Node,
        items: &[Item],
        first: fn(Result<Value>) -> Result<T>,
        again: fn(Result<Value>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let cmds: Vec<Outgoing<'_>> = items
            .iter()
            .map(|item| Sent::from(item).outgoing())
            .collect();
        let mut values = Vec::with_capacity(items.len());
        let (mut places, mut unknown) = (Vec::new(), Vec::new());
        let answers = node.many(&cmds).await;
        for (at, (item, answer)) in items.iter().zip(answers).enumerate() {
            let answer = match answer {
                Err(error) if is_no_script(&error) => {
                    places.push(at);
                    unknown.push(Sent::from(item));
                    Ok(Value::Nil)
                }
                answer => answer.map_err(|error| self.failed_at(node, Sent::from(item), error)),
            };
            values.push(first(answer)?);
        }
        node.answered(items.iter().any(|item| Sent::from(item).writes_freely()));
        if !unknown.is_empty() {
            let answers = Box::pin(self.run(unknown)).await?;
            for (at, answer) in places.into_iter().zip(answers) {
                if let Some(place) = values.get_mut(at) {
                    *place = again(answer)?;
                }
            }
        }
        Ok(values)
    }

    /// Which server has `key`, and how often it was lost: what is told apart by this may have another hash seed, so that
    /// a walk by HSCAN that began at the one can't go on at the other.
    pub async fn serving(&self, key: &str) -> Result<(String, u64)> {
        let node = self.owner(cluster::slot(key.as_bytes())).await?;
        Ok((node.name.clone(), node.losses()))
    }

    /// The servers that take writes: one, or each master of a cluster.
    pub async fn masters(&self) -> Result<Vec<Server>> {
        let nodes = match &self.inner.place {
            Servers::Cluster(cluster) => cluster.masters().await,
            _ => vec![self.owner(0).await?],
        };
        if nodes.is_empty() {
            return Err(self.refused("no node of the cluster answers"));
        }
        let redis = self;
        Ok(nodes
            .into_iter()
            .map(|node| Server {
                redis: redis.clone(),
                node,
            })
            .collect())
    }

    /// On each server that takes writes: writes a key and waits until `replicas` have it and all that was written before.
    /// Answers how many replicas that is of the server that has the fewest. `key` makes the keys to choose from.
    pub async fn confirm(
        &self,
        key: impl Fn(u32) -> String,
        replicas: u32,
        timeout: Duration,
    ) -> Result<u64> {
        let masters = self.masters().await?;
        let confirmed = masters.iter().map(|server| async {
            let key = self.key_at(&server.node, &key).await?;
            let answer = server.node.confirm(&key, replicas, timeout);
            match tokio::time::timeout(timeout + self.inner.deadline, answer).await {
                Ok(Ok(have)) => Ok(have),
                Ok(Err(error)) => Err(self.failed(&server.node, error)),
                Err(_) => Err(self.late(&server.node)),
            }
        });
        let confirmed = futures_util::future::try_join_all(confirmed).await?;
        Ok(confirmed.into_iter().min().unwrap_or(0))
    }

    /// One of the keys that the server has.
    async fn key_at(&self, node: &Arc<Node>, key: impl Fn(u32) -> String) -> Result<String> {
        for n in 0..CANDIDATES {
            let key = key(n);
            if Arc::ptr_eq(&self.owner(cluster::slot(key.as_bytes())).await?, node) {
                return Ok(key);
            }
        }
        Err(Error::Unavailable(
            "no key is known to be on a server".into(),
        ))
    }

    async fn owner(&self, slot: u16) -> Result<Arc<Node>> {
        let found = match &self.inner.place {
            Servers::One(node) => return Ok(Arc::clone(node)),
            Servers::Cluster(cluster) => cluster.owner(slot).await.ok_or("no node has this slot"),
            Servers::Sentinel(sentinel) => {
                sentinel.master().await.ok_or("no sentinel knows a master")
            }
        };
        found.map_err(|why| self.refused(why))
    }

    async fn plainly(
        &self,
        node: &Node,
        answer: impl Future<Output = RedisResult<Value>>,
    ) -> Result<Value> {
        match tokio::time::timeout(self.inner.deadline * 2, answer).await {
            Ok(Ok(value)) => Ok(value),
            // One who only looks, and may have fewer rights than those who work.
            Ok(Err(error)) if matches!(Meaning::of(&error), Meaning::Kept(_, Trouble::Rights)) => {
                Err(self.unavailable("auth", Trouble::Rights, words(&error)))
            }
            Ok(Err(error)) => Err(self.failed(node, error)),
            Err(_) => Err(self.late(node)),
        }
    }

    async fn single(&self, sent: Sent<'_>) -> Result<Value> {
        // Nearly always the one node answers at once.
        if let Servers::One(node) = &self.inner.place {
            match node.one(sent.outgoing()).await {
                Ok(value) => {
                    node.answered(sent.writes_freely());
                    return Ok(value);
                }
                Err(error) if is_no_script(&error) => {}
                Err(error) => return Err(self.failed_at(node, sent, error)),
            }
        }
        // Kept out of what every request carries with it.
        let values = Box::pin(self.run(vec![sent])).await?;
        let missing = || Err(Error::Internal("a command without an answer".into()));
        values.into_iter().next().unwrap_or_else(missing)
    }

    /// Sends all, each to the server that has its slot, until each has an answer or the deadline has come.
    async fn run(&self, mut all: Vec<Sent<'_>>) -> Result<Vec<Result<Value>>> {
        let until = Instant::now() + self.inner.deadline;
        let guarded: Vec<Option<Call>>;
        if self.spans_slots() {
            guarded = all.iter().copied().map(Sent::guarded).collect();
            for (sent, guarded) in all.iter_mut().zip(&guarded) {
                if let Some(call) = guarded {
                    *sent = Sent::Script(call);
                }
            }
        }
        let running = self.run_until(all, until);
        match tokio::time::timeout_at(until.into(), running).await {
            Ok(answer) => answer,
            Err(_) => {
                self.refresh();
                Err(self.unavailable("timeout", Trouble::Silent, IN_TIME.to_owned()))
            }
        }
    }

    async fn run_until(&self, all: Vec<Sent<'_>>, until: Instant) -> Result<Vec<Result<Value>>> {
        let mut values: Vec<Option<Result<Value>>> = all.iter().map(|_| None).collect();
        let mut open: Vec<Open<'_>> = all
            .into_iter()
            .enumerate()
            .map(|(index, sent)| Open {
                index,
                sent,
                text: None,
                at: None,
            })
            .collect();
        let mut pause = PAUSE;
        loop {
            let groups = self.grouped(std::mem::take(&mut open)).await?;
            let answers = groups.into_iter().map(|(node, group)| async move {
                let cmds: Vec<Outgoing<'_>> = group
                    .iter()
                    .map(|open| {
                        let sent = open.sent.outgoing();
                        Outgoing {
                            cmd: open.text.as_ref().unwrap_or(sent.cmd),
                            asking: open.at.as_ref().is_some_and(|(_, asking)| *asking),
                            ..sent
                        }
                    })
                    .collect();
                let answers = node.many(&cmds).await;
                drop(cmds);
                (node, group, answers)
            });
            let answers = futures_util::future::join_all(answers).await;
            let mut refusal = None;
            for (node, group, answers) in answers {
                for (mut item, answer) in group.into_iter().zip(answers) {
                    let answer = match self.next(&node, &mut item, answer, &mut refusal) {
                        Next::Done(value) => Ok(value),
                        Next::Failed(error) => Err(error),
                        Next::Again => {
                            open.push(item);
                            continue;
                        }
                    };
                    if let Some(place) = values.get_mut(item.index) {
                        *place = Some(answer);
                    }
                }
            }
            let over = match &refusal {
                Some(_) => Instant::now() + pause >= until,
                None => open.is_empty(),
            };
            if over {
                let why = refusal
                    .unwrap_or_else(|| Error::Internal("a command without an answer".into()));
                let missing = || Err(why.clone());
                return Ok(values
                    .into_iter()
                    .map(|value| value.unwrap_or_else(missing))
                    .collect());
            }
            if refusal.is_some() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Puts together what goes to the same server.
    async fn grouped<'a>(&self, open: Vec<Open<'a>>) -> Result<Vec<(Arc<Node>, Vec<Open<'a>>)>> {
        let mut groups: Vec<(Arc<Node>, Vec<Open<'a>>)> = Vec::new();
        for item in open {
            let node = match (&item.at, &self.inner.place) {
                (Some((node, _)), _) => Arc::clone(node),
                (None, Servers::One(node)) => Arc::clone(node),
                (None, Servers::Sentinel(_)) => match groups.first() {
                    Some((node, _)) => Arc::clone(node),
                    None => self.owner(0).await?,
                },
                (None, Servers::Cluster(_)) => self.owner(item.sent.slot()).await?,
            };
            match groups
                .iter_mut()
                .find(|(known, _)| Arc::ptr_eq(known, &node))
            {
                Some((_, group)) => group.push(item),
                None => groups.push((node, vec![item])),
            }
        }
        Ok(groups)
    }

    /// Looks at one answer. What was refused and may be sent again leaves a `refusal` where a pause is called for.
    fn next(
        &self,
        node: &Node,
        item: &mut Open<'_>,
        answer: RedisResult<Value>,
        refusal: &mut Option<Error>,
    ) -> Next {
        let error = match answer {
            Ok(value) => {
                node.answered(item.sent.writes_freely());
                return Next::Done(value);
            }
            Err(error) => error,
        };
        if let (true, Sent::Script(call), None) = (is_no_script(&error), item.sent, &item.text) {
            self.inner.metrics.script_reload();
            item.text = Some(call.with_text());
            return Next::Again;
        }
        let cluster = match &self.inner.place {
            Servers::One(_) => return Next::Failed(self.failed_at(node, item.sent, error)),
            Servers::Cluster(cluster) => Some(cluster),
            Servers::Sentinel(_) => None,
        };
        let again = match error.kind() {
            ErrorKind::Server(kind @ (ServerErrorKind::Moved | ServerErrorKind::Ask)) => {
                let moved = kind == ServerErrorKind::Moved;
                let to =
                    cluster
                        .zip(error.redirect_node())
                        .and_then(|(cluster, (address, slot))| {
                            cluster.redirected(node, address, moved.then_some(slot))
                        });
                // Once at once; two that send each other the same are not kept busy with it.
                let first = item.at.is_none();
                item.at = to.map(|node| (node, !moved));
                if first && item.at.is_some() {
                    return Next::Again;
                }
                true
            }
            ErrorKind::Server(
                ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::BusyLoading
                | ServerErrorKind::ReadOnly,
            ) => {
                item.at = None;
                true
            }
            // Nobody has seen the command.
            _ if error.is_connection_refusal() => {
                item.at = None;
                true
            }
            _ => false,
        };
        if !again {
            return Next::Failed(self.failed_at(node, item.sent, error));
        }
        if error.kind() != ErrorKind::Server(ServerErrorKind::TryAgain) {
            self.refresh();
        }
        *refusal = Some(self.failed(node, error));
        Next::Again
    }

    /// Has it looked up anew who has what.
    fn refresh(&self) {
        match &self.inner.place {
            Servers::One(_) => {}
            Servers::Cluster(cluster) => cluster.refresh(),
            Servers::Sentinel(sentinel) => sentinel.refresh(),
        }
    }

    /// What failed, with the key that can't be read if that is why.
    fn failed_at(&self, node: &Node, sent: Sent<'_>, error: RedisError) -> Error {
        let Some(why) = unreadable(&error) else {
            return self.failed(node, error);
        };
        // It answers, even if not what was hoped for.
        node.answered(false);
        let place = match sent {
            Sent::Script(call) => keys::place_of_several(call.keys()),
            _ => keys::place(sent.key().unwrap_or_default(), false),
        };
        self.inner.metrics.redis_error("response");
        self.inner.metrics.unreadable(place.kind);
        Error::Unreadable(Box::new(Unreadable {
            place: place.text,
            why: match sent {
                Sent::Script(call) => format!("{why} (script {})", call.script.name),
                _ => why,
            },
        }))
    }

    fn failed(&self, node: &Node, error: RedisError) -> Error {
        let (kind, trouble) = match Meaning::of(&error) {
            Meaning::Kept(kind, trouble) => (kind, trouble),
            Meaning::Strange => {
                self.inner.metrics.redis_error("response");
                return Error::Internal(error.to_string());
            }
        };
        self.kept(node, kind, trouble, words(&error))
    }

    /// Nothing has come in time.
    fn late(&self, node: &Node) -> Error {
        self.kept(node, "timeout", Trouble::Silent, IN_TIME.to_owned())
    }

    /// Notes that a server can't do its work, and logs that if it is new.
    fn kept(&self, node: &Node, kind: &'static str, trouble: Trouble, cause: String) -> Error {
        self.inner.metrics.redis_error(kind);
        let why = Unavailable { trouble, cause };
        if matches!(kind, "io" | "timeout") {
            self.refresh();
            node.lost();
        }
        // Neither says anything of the server.
        if !matches!(trouble, Trouble::Moving | Trouble::Unfinished) {
            node.condition.found(&why);
        }
        Error::Unavailable(why)
    }

    /// There is no server to ask.
    fn refused(&self, why: &'static str) -> Error {
        self.unavailable("client", Trouble::Nowhere, why.to_owned())
    }

    fn unavailable(&self, kind: &'static str, trouble: Trouble, cause: String) -> Error {
        self.inner.metrics.redis_error(kind);
        Error::unavailable(trouble, cause)
    }

    /// What is wrong with the servers that take writes, each by what the log calls it, and how many they are.
    pub fn ill(&self) -> (Vec<(String, Unavailable)>, usize) {
        let nodes = match &self.inner.place {
            Servers::One(node) => vec![Arc::clone(node)],
            Servers::Cluster(cluster) => cluster.known_masters(),
            Servers::Sentinel(sentinel) => sentinel.current().into_iter().collect(),
        };
        let ill = nodes.iter().filter_map(|node| {
            let why = node.condition.ill()?;
            Some((node.name.clone(), why))
        });
        (ill.collect(), nodes.len())
    }
}

impl Server {
    /// What the log calls it: host and port, never a password.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Runs one command there, on a connection of its own.
    pub async fn admin(&self, cmd: &Cmd) -> Result<Value> {
        self.redis.plainly(&self.node, self.node.admin(cmd)).await
    }
}

/// Why the data at hand can't be worked with: a key is of another type, a script says so, or a script stopped at a record in
/// another form than its own.
fn unreadable(error: &RedisError) -> Option<String> {
    let detail = error.detail().unwrap_or_default();
    match (error.kind(), error.code()) {
        (_, Some("WRONGTYPE")) => Some("a key is of another type".into()),
        (_, Some("UNREADABLE")) => Some(detail.split(" script: ").next()?.to_owned()),
        (ErrorKind::Server(ServerErrorKind::ResponseError), _)
            if detail.contains("user_script") =>
        {
            Some(detail.split(" script: ").next()?.to_owned())
        }
        _ => None,
    }
}

fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
