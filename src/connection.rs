//! The connections to Redis: one server, a cluster, or a master that sentinels watch, behind one type. All requests of a pod
//! share a few multiplexed connections to each server, which reconnect by themselves; a small pool is for admin work that
//! wants a connection to itself. Time-outs live here, and so does the recovery from `NOSCRIPT`.
//!
//! A request that a server has refused has changed nothing: it is sent again, to another server if need be, as long as the
//! deadline allows. A request that may have been executed is not sent again: only its caller knows whether it may be repeated.
//!
//! # Why routing and watching are our own
//!
//! - **Routing in a cluster.** While the cluster connection of `redis` 1.8 learns the slots anew or reconnects to its seeds, it
//!   sends nothing to any node, and a node that is frozen makes that long: one sick node holds up requests to the healthy ones.
//!   [Issue 2092](https://github.com/redis-rs/redis-rs/issues/2092) tells of it; since 1.4 the repair of one connection is out of
//!   the way, these two are not. Here a request needs its own node and nothing else.
//! - **Watching sentinels.** `SentinelClient` asks for the master when it makes a connection. A connection that is there follows
//!   no later failover, and what the old master still acknowledges is lost. Here the old master is dropped at once.
//!
//! The connections themselves are the crate's. `docs/performance.md` ("The Redis link") says what connections of our own would
//! save, and why that is too little.

mod breaker;
mod cluster;
mod cluster_slot;
mod condition;
mod dialer;
mod failure;
mod link;
mod node;
mod outgoing;
mod router;
pub(crate) mod schema;
mod sentinel;
mod settings;
mod subscriptions;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, RedisResult, Value};

use crate::config::{Destination, RedisAddress, RedisConfig};
use crate::error::{Error, Result, Trouble, Unavailable};
use crate::scripts::ScriptCall;
use crate::telemetry::metrics::Metrics;
use cluster::Cluster;
use condition::{Meaning, words};
use failure::is_no_script;
use node::{Node, Reconnect};
use outgoing::Outgoing;
use sentinel::Sentinel;
use settings::ConnectionSettings;

pub(crate) use outgoing::Item;
pub(crate) use subscriptions::{Listener, Subscriptions};

/// How many keys are tried to find one that a server has: enough even for a server with a hundredth of the slots.
const CANDIDATES: u32 = 4_096;

/// Says that this thread is an HTTP worker, which is to have a connection of its own to each server.
pub(crate) fn this_is_a_worker() {
    node::this_is_a_worker();
}

/// A handle to Redis; clones share the connections.
#[derive(Clone)]
pub(crate) struct Redis {
    inner: Arc<Inner>,
}

struct Inner {
    topology: Topology,
    deadline: Duration,
    metrics: Arc<Metrics>,
    schema: schema::Known,
}

enum Topology {
    One(Arc<Node>),
    Cluster(Arc<Cluster>),
    Sentinel(Sentinel),
}

/// One server that takes writes, for admin work on all of them.
#[derive(Clone)]
pub(crate) struct Server {
    redis: Redis,
    node: Arc<Node>,
}

impl Redis {
    /// Prepares the connections; they are made when first used, so this works while Redis is down. Needs a tokio runtime.
    pub(crate) fn new(config: &RedisConfig, url: &str, metrics: Arc<Metrics>) -> Result<Self> {
        let address =
            RedisAddress::parse(url).map_err(|why| Error::Internal(format!("redis.url {why}")))?;
        let settings = ConnectionSettings::new(config, &address)?;
        let deadline = settings.deadline();
        let topology = match address.destination {
            Destination::Server { .. } | Destination::Socket { .. } => {
                // A cause of an address error could repeat the address, which may hold a password: it isn't shown.
                let info = redis::IntoConnectionInfo::into_connection_info(url).map_err(|_| {
                    Error::Unavailable("redis.url can't be used as an address".into())
                })?;
                let metrics = Some(Arc::clone(&metrics));
                let node = Node::new(info, &settings, Reconnect::Patient, metrics)?;
                Topology::One(Arc::new(node))
            }
            Destination::Cluster(seeds) => Topology::Cluster(Cluster::start(settings, seeds)?),
            Destination::Sentinel {
                sentinels,
                master,
                db,
                user,
                password,
            } => {
                let at_sentinels = settings.with_login(user.as_deref(), password.as_deref());
                Topology::Sentinel(Sentinel::start(
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
                topology,
                deadline,
                metrics,
                schema: schema::Known::default(),
            }),
        })
    }

    /// Whether keys are spread over slots, so that a call may hold only keys of one.
    pub(crate) fn spans_slots(&self) -> bool {
        matches!(self.inner.topology, Topology::Cluster(_))
    }

    /// Fails while the data are of a version that this program can't read.
    async fn ready(&self) -> Result<()> {
        if self.is_open() {
            return Ok(());
        }
        // Boxed: the future of every request would carry it.
        Box::pin(self.admit()).await
    }

    /// Runs one plain command.
    pub(crate) async fn query(&self, cmd: &Cmd) -> Result<Value> {
        self.ready().await?;
        self.single(cmd.into()).await
    }

    /// Runs one script; a server that does not know it gets its text, once.
    pub(crate) async fn call(&self, call: &ScriptCall) -> Result<Value> {
        self.ready().await?;
        self.single(call.into()).await
    }

    /// The same for a script that neither reads nor writes data, whatever version they are of.
    pub(crate) async fn call_without_data(&self, call: &ScriptCall) -> Result<Value> {
        self.single(call.into()).await
    }

    /// Runs one request.
    pub(crate) async fn send(&self, item: &Item) -> Result<Value> {
        self.ready().await?;
        self.single(item.into()).await
    }

    /// Runs independent requests in as few round trips as possible, in no certain order. The first error is the answer of all.
    pub(crate) async fn send_all(&self, items: &[Item]) -> Result<Vec<Value>> {
        self.ready().await?;
        match (items, &self.inner.topology) {
            ([], _) => Ok(Vec::new()),
            ([one], _) => Ok(vec![self.single(one.into()).await?]),
            (_, Topology::One(node)) => self.pipelined(node, items, |a| a, |a| a).await,
            _ => {
                let replies = Box::pin(self.route(items.iter().map(Outgoing::from).collect()));
                replies.await?.into_iter().collect()
            }
        }
    }

    /// The same, but an item whose data can't be read fails alone. (In a cluster, an item whose node fails does so too.)
    pub(crate) async fn send_each(&self, items: &[Item]) -> Result<Vec<Result<Value>>> {
        self.ready().await?;
        self.sent_each(items).await
    }

    /// The same, whatever version the data are of.
    async fn sent_each(&self, items: &[Item]) -> Result<Vec<Result<Value>>> {
        match (items, &self.inner.topology) {
            ([], _) => Ok(Vec::new()),
            (_, Topology::One(node)) => {
                let own = |answer| match answer {
                    Err(error @ Error::Unreadable(_)) => Ok(Err(error)),
                    answer => answer.map(Ok),
                };
                self.pipelined(node, items, own, Ok).await
            }
            _ => Box::pin(self.route(items.iter().map(Outgoing::from).collect())).await,
        }
    }

    /// Sends all to the one server that there is. Scripts that it does not know are then sent again with their text. `first`
    /// looks at each answer of the first round, `again` at each answer of the second. If either returns an error, all items fail
    /// with it.
    async fn pipelined<T>(
        &self,
        node: &Node,
        items: &[Item],
        first: fn(Result<Value>) -> Result<T>,
        again: fn(Result<Value>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let requests: Vec<Outgoing<'_>> = items.iter().map(Outgoing::from).collect();
        let mut answers = Vec::with_capacity(items.len());
        let (mut places, mut unknown) = (Vec::new(), Vec::new());
        let replies = node.send_all(&requests).await;
        for (at, (request, reply)) in requests.iter().zip(replies).enumerate() {
            let answer = match reply {
                Err(error) if is_no_script(&error) => {
                    places.push(at);
                    unknown.push(*request);
                    Ok(Value::Nil)
                }
                reply => reply.map_err(|error| self.failed_at(node, *request, error)),
            };
            answers.push(first(answer)?);
        }
        node.note_answer(requests.iter().any(|request| request.writes()));
        if !unknown.is_empty() {
            let late = Box::pin(self.route(unknown)).await?;
            for (at, answer) in places.into_iter().zip(late) {
                if let Some(place) = answers.get_mut(at) {
                    *place = again(answer)?;
                }
            }
        }
        Ok(answers)
    }

    /// Which server has `key`, and how often that server was lost. Where either differs, another process may answer, with another
    /// hash seed: a walk by HSCAN that began at the one can't go on at the other.
    pub(crate) async fn serving(&self, key: &str) -> Result<(String, u64)> {
        let node = self.owner(cluster_slot::of(key.as_bytes())).await?;
        Ok((node.name.clone(), node.outages()))
    }

    /// The servers that take writes: one, or each master of a cluster.
    pub(crate) async fn masters(&self) -> Result<Vec<Server>> {
        let nodes = match &self.inner.topology {
            Topology::Cluster(cluster) => cluster.masters().await,
            _ => vec![self.owner(0).await?],
        };
        if nodes.is_empty() {
            return Err(self.no_server("no node of the cluster answers"));
        }
        let server = |node| Server {
            redis: self.clone(),
            node,
        };
        Ok(nodes.into_iter().map(server).collect())
    }

    /// On each server that takes writes: writes a key and waits until `replicas` have it and all that was written before.
    /// Answers how many replicas the server with the fewest has. `key` makes the keys to choose from.
    pub(crate) async fn confirm(
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
                Err(_) => Err(self.no_reply_in_time(&server.node)),
            }
        });
        let confirmed = futures_util::future::try_join_all(confirmed).await?;
        Ok(confirmed.into_iter().min().unwrap_or(0))
    }

    /// One of the keys that the server has.
    async fn key_at(&self, node: &Arc<Node>, key: impl Fn(u32) -> String) -> Result<String> {
        for n in 0..CANDIDATES {
            let key = key(n);
            if Arc::ptr_eq(&self.owner(cluster_slot::of(key.as_bytes())).await?, node) {
                return Ok(key);
            }
        }
        Err(Error::Unavailable(
            "no key is known to be on a server".into(),
        ))
    }

    async fn owner(&self, slot: u16) -> Result<Arc<Node>> {
        let found = match &self.inner.topology {
            Topology::One(node) => return Ok(Arc::clone(node)),
            Topology::Cluster(cluster) => cluster.owner(slot).await.ok_or("no node has this slot"),
            Topology::Sentinel(sentinel) => {
                sentinel.master().await.ok_or("no sentinel knows a master")
            }
        };
        found.map_err(|why| self.no_server(why))
    }

    /// The answer to admin work on a server.
    async fn administered(
        &self,
        node: &Node,
        answer: impl Future<Output = RedisResult<Value>>,
    ) -> Result<Value> {
        match tokio::time::timeout(self.inner.deadline * 2, answer).await {
            Ok(Ok(value)) => Ok(value),
            // An operator who only looks may have fewer rights than a pod: this says nothing of the server.
            Ok(Err(error)) if matches!(Meaning::of(&error), Meaning::Kept(_, Trouble::Rights)) => {
                Err(self.unavailable("auth", Trouble::Rights, words(&error)))
            }
            Ok(Err(error)) => Err(self.failed(node, error)),
            Err(_) => Err(self.no_reply_in_time(node)),
        }
    }

    async fn single(&self, request: Outgoing<'_>) -> Result<Value> {
        // Nearly always the one server answers at once.
        if let Topology::One(node) = &self.inner.topology {
            match node.send(request).await {
                Ok(reply) => {
                    node.note_answer(request.writes());
                    return Ok(reply);
                }
                Err(error) if is_no_script(&error) => {}
                Err(error) => return Err(self.failed_at(node, request, error)),
            }
        }
        // Boxed: the future of every request would carry it.
        let replies = Box::pin(self.route(vec![request])).await?;
        let missing = || Err(Error::Internal("a command without an answer".into()));
        replies.into_iter().next().unwrap_or_else(missing)
    }

    /// Has the map of the cluster, or the master, looked up anew.
    fn refresh(&self) {
        match &self.inner.topology {
            Topology::One(_) => {}
            Topology::Cluster(cluster) => cluster.refresh(),
            Topology::Sentinel(sentinel) => sentinel.refresh(),
        }
    }

    /// What is wrong with the servers that take writes, each by what the log calls it, and how many they are.
    pub(crate) fn ill(&self) -> (Vec<(String, Unavailable)>, usize) {
        let nodes = match &self.inner.topology {
            Topology::One(node) => vec![Arc::clone(node)],
            Topology::Cluster(cluster) => cluster.known_masters(),
            Topology::Sentinel(sentinel) => sentinel.current().into_iter().collect(),
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
    pub(crate) fn name(&self) -> &str {
        &self.node.name
    }

    /// Runs one command there, on a connection of its own.
    pub(crate) async fn admin(&self, cmd: &Cmd) -> Result<Value> {
        self.redis
            .administered(&self.node, self.node.admin(cmd))
            .await
    }
}
