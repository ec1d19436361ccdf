//! A Redis Cluster: which node has which slot. A task learns that beside the requests and never in their way: it asks several
//! nodes at the same time, and a request needs its own node and nothing else. `connection.rs` says why the cluster connection of
//! the `redis` crate is not used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{Cmd, RedisResult, Value};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::node::{Node, Reconnect};
use super::settings::ConnectionSettings;
use crate::config::Host;
use crate::error::{Error, Result, Trouble};

/// The slots of a cluster.
const SLOTS: usize = 16_384;
/// Between two looks at the map when no request wants one.
const EVERY: Duration = Duration::from_secs(5);
/// Between two looks at the map at least.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the first answer waits for others, which may know better.
const GRACE: Duration = Duration::from_millis(100);
/// Nodes asked for the map at once.
const ASKED: usize = 8;

/// Which node has which slot, as far as is known.
struct Map {
    owners: Vec<Option<Arc<Node>>>,
    nodes: HashMap<Host, Arc<Node>>,
}

/// A cluster and the connections to its nodes.
pub(super) struct Cluster {
    settings: ConnectionSettings,
    seeds: Vec<Host>,
    map: RwLock<Arc<Map>>,
    /// Goes up whenever a map has been learned.
    learned: watch::Sender<u64>,
    wanted: Notify,
    /// The nodes of the last look, replicas included: those to ask when all masters are gone.
    known: Mutex<Vec<Host>>,
}

impl Cluster {
    /// Prepares connections and starts to learn the map. Needs a tokio runtime.
    pub(super) fn start(settings: ConnectionSettings, seeds: Vec<Host>) -> Result<Arc<Self>> {
        let map = Map {
            owners: vec![None; SLOTS],
            nodes: HashMap::new(),
        };
        let cluster = Arc::new(Self {
            settings,
            seeds,
            map: RwLock::new(Arc::new(map)),
            learned: watch::Sender::new(0),
            wanted: Notify::new(),
            known: Mutex::default(),
        });
        // Certificates that can't be used are an error now, and not with the first request.
        for seed in &cluster.seeds {
            cluster.node(seed)?;
        }
        let watched = Arc::downgrade(&cluster);
        tokio::spawn(async move {
            while let Some(cluster) = watched.upgrade() {
                cluster.learn().await;
                drop(cluster);
                tokio::time::sleep(PAUSE).await;
                let Some(cluster) = watched.upgrade() else {
                    return;
                };
                let wanted = cluster.wanted.notified();
                // The task ends at most so long after the last handle: nothing else tells it.
                let _ = tokio::time::timeout(EVERY, wanted).await;
            }
        });
        Ok(cluster)
    }

    fn map(&self) -> Arc<Map> {
        let map = self.map.read().unwrap_or_else(|held| held.into_inner());
        Arc::clone(&map)
    }

    /// The connections to a node, which are prepared if there are none.
    fn node(&self, host: &Host) -> Result<Arc<Node>> {
        if let Some(node) = self.map().nodes.get(host) {
            return Ok(Arc::clone(node));
        }
        let info = self.settings.host(host);
        let info =
            info.map_err(|_| Error::unavailable(Trouble::Nowhere, "a node has no address"))?;
        let made = Node::new(info, &self.settings, Reconnect::Brisk, None)?;
        let mut map = self.map.write().unwrap_or_else(|held| held.into_inner());
        let mut new = Map {
            owners: map.owners.clone(),
            nodes: map.nodes.clone(),
        };
        let node = new.nodes.entry(host.clone()).or_insert(Arc::new(made));
        let node = Arc::clone(node);
        *map = Arc::new(new);
        Ok(node)
    }

    /// The node that has `slot`, as far as is known; waits for the first map.
    pub(super) async fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        let known = |map: Arc<Map>| map.owners.get(usize::from(slot)).cloned().flatten();
        if let Some(node) = known(self.map()) {
            return Some(node);
        }
        let mut learned = self.learned.subscribe();
        if let Some(node) = known(self.map()) {
            return Some(node);
        }
        self.refresh();
        // Only the first map is waited for. A slot that no node has then is not there.
        let first = learned.wait_for(|n| *n > 0);
        let _ = tokio::time::timeout(self.settings.connect, first).await;
        known(self.map())
    }

    /// The node that has `slot`, if it is known now.
    pub(super) fn known_owner(&self, slot: u16) -> Option<Arc<Node>> {
        self.map().owners.get(usize::from(slot)).cloned().flatten()
    }

    /// The node that a redirect names. `moved`: the slot that the node has for good, which goes into the map at once.
    pub(super) fn redirected(
        &self,
        from: &Node,
        address: &str,
        moved: Option<u16>,
    ) -> Option<Arc<Node>> {
        let (host, port) = address.rsplit_once(':')?;
        // Without a host: that of the node which redirects.
        let host = if host.is_empty() { &from.host } else { host };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let node = self.node(&(host.to_owned(), port.parse().ok()?)).ok()?;
        if let Some(slot) = moved {
            let mut map = self.map.write().unwrap_or_else(|held| held.into_inner());
            let mut owners = map.owners.clone();
            if let Some(owner) = owners.get_mut(usize::from(slot)) {
                *owner = Some(Arc::clone(&node));
            }
            *map = Arc::new(Map {
                owners,
                nodes: map.nodes.clone(),
            });
            drop(map);
            self.refresh();
        }
        Some(node)
    }

    /// Has the map learned anew, soon.
    pub(super) fn refresh(&self) {
        self.wanted.notify_one();
    }

    /// The masters that have slots; waits for the first map.
    pub(super) async fn masters(&self) -> Vec<Arc<Node>> {
        self.owner(0).await;
        self.known_masters()
    }

    /// The same, as far as they are known.
    pub(super) fn known_masters(&self) -> Vec<Arc<Node>> {
        let map = self.map();
        let mut masters: Vec<Arc<Node>> = Vec::new();
        for node in map.owners.iter().flatten() {
            if !masters.iter().rev().any(|known| Arc::ptr_eq(known, node)) {
                masters.push(Arc::clone(node));
            }
        }
        masters
    }

    /// Asks nodes for the map, and adopts what they answer.
    async fn learn(&self) {
        let hosts = self.hosts();
        let mut slots = Cmd::new();
        slots.arg("CLUSTER").arg("SLOTS");
        let slots = &slots;
        let mut asked: FuturesUnordered<_> = hosts
            .iter()
            .filter_map(|host| self.node(host).ok())
            .map(|node| async move { (node.ask(slots).await, node) })
            .collect();
        let mut views = Vec::new();
        let mut until = Instant::now() + self.settings.deadline();
        while let Ok(Some((answer, node))) = tokio::time::timeout_at(until, asked.next()).await {
            if let Some(view) = view(answer, &node.host) {
                node.note_answer(false);
                until = until.min(Instant::now() + GRACE);
                views.push(view);
            }
        }
        drop(asked);
        if !views.is_empty() {
            self.adopt(&views);
            self.learned.send_modify(|n| *n += 1);
        }
    }

    /// The nodes to ask: seeds and known nodes in turn. The names of seeds may lead to new nodes.
    fn hosts(&self) -> Vec<Host> {
        let known = self.known.lock().unwrap_or_else(|held| held.into_inner());
        let mut hosts: Vec<Host> = Vec::new();
        let mut seeds = self.seeds.iter();
        // From a random point, so that the same few frozen nodes don't use up all questions.
        let turn = rand::random_range(0..known.len().max(1));
        let mut known = known.iter().cycle().skip(turn).take(known.len());
        while hosts.len() < ASKED {
            let next = [seeds.next(), known.next()];
            if next.iter().all(Option::is_none) {
                break;
            }
            for host in next.into_iter().flatten() {
                if !hosts.contains(host) {
                    hosts.push(host.clone());
                }
            }
        }
        hosts
    }

    /// Takes for each slot the owner that most answers name.
    fn adopt(&self, views: &[View]) {
        let mut known: Vec<Host> = views.iter().flat_map(|view| view.nodes.clone()).collect();
        known.sort();
        known.dedup();
        let mut owners: Vec<Option<Host>> = Vec::with_capacity(SLOTS);
        for slot in 0..SLOTS {
            let named = views.iter().filter_map(|view| view.owner(slot));
            let mut votes: Vec<(&Host, usize)> = Vec::new();
            for host in named {
                match votes.iter_mut().find(|(known, _)| *known == host) {
                    Some((_, votes)) => *votes += 1,
                    None => votes.push((host, 1)),
                }
            }
            let most = votes.iter().map(|(_, votes)| *votes).max();
            let chosen = votes.iter().find(|(_, votes)| Some(*votes) == most);
            owners.push(chosen.map(|(host, _)| (*host).clone()));
        }
        let mut nodes = HashMap::new();
        let mut keep = |host: &Host| {
            if let Some(node) = nodes.get(host) {
                return Some(Arc::clone(node));
            }
            let node = self.node(host).ok()?;
            nodes.insert(host.clone(), Arc::clone(&node));
            Some(node)
        };
        let owners = owners
            .iter()
            .map(|owner| owner.as_ref().and_then(&mut keep))
            .collect();
        // Replicas and seeds keep their connections: they are asked for the map.
        for host in known.iter().chain(&self.seeds) {
            keep(host);
        }
        *self.known.lock().unwrap_or_else(|held| held.into_inner()) = known;
        let mut map = self.map.write().unwrap_or_else(|held| held.into_inner());
        *map = Arc::new(Map { owners, nodes });
    }
}

/// The cluster as one node sees it.
struct View {
    /// For each slot, which of `masters` has it.
    owners: Vec<Option<usize>>,
    masters: Vec<Host>,
    nodes: Vec<Host>,
}

impl View {
    fn owner(&self, slot: usize) -> Option<&Host> {
        let owner = self.owners.get(slot).copied().flatten()?;
        self.masters.get(owner)
    }
}

/// Reads the answer to `CLUSTER SLOTS`: `[first, last, [host, port, id, ..] of the master, the same of each replica]`.
fn view(answer: RedisResult<Value>, asked: &str) -> Option<View> {
    let Ok(Value::Array(rows)) = answer else {
        return None;
    };
    let mut view = View {
        owners: vec![None; SLOTS],
        masters: Vec::new(),
        nodes: Vec::new(),
    };
    for row in rows {
        let Value::Array(row) = row else { return None };
        let mut row = row.into_iter();
        let (Some(Value::Int(first)), Some(Value::Int(last))) = (row.next(), row.next()) else {
            return None;
        };
        let hosts: Vec<Host> = row.filter_map(|node| host(node, asked)).collect();
        if let Some(master) = hosts.first() {
            let range = usize::try_from(first).ok()?..=usize::try_from(last).ok()?;
            for owner in view.owners.get_mut(range)? {
                *owner = Some(view.masters.len());
            }
            view.masters.push(master.clone());
        }
        view.nodes.extend(hosts);
    }
    (!view.masters.is_empty()).then_some(view)
}

fn host(node: Value, asked: &str) -> Option<Host> {
    let Value::Array(node) = node else {
        return None;
    };
    let mut node = node.into_iter();
    let host = match node.next()? {
        Value::BulkString(host) => String::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        Value::Nil => String::new(),
        _ => return None,
    };
    let Value::Int(port) = node.next()? else {
        return None;
    };
    let host = match host.as_str() {
        // A node that does not know its own address: the one that was asked.
        "" => asked.to_owned(),
        // It is configured to be known by a name, and has none yet.
        "?" => return None,
        _ => host,
    };
    Some((host, u16::try_from(port).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: i64) -> Value {
        Value::Array(vec![
            Value::BulkString(host.into()),
            Value::Int(port),
            Value::BulkString("id".into()),
        ])
    }

    #[test]
    fn a_view_names_masters_and_replicas() {
        let row = |first, last, nodes: Vec<Value>| {
            Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
        };
        let answer = Value::Array(vec![
            row(0, 99, vec![node("a", 1), node("b", 2)]),
            row(100, 16_383, vec![node("", 3), node("?", 4)]),
        ]);
        let view = view(Ok(answer), "asked").unwrap();
        assert_eq!(view.owner(99), Some(&("a".to_owned(), 1)));
        assert_eq!(view.owner(100), Some(&("asked".to_owned(), 3)));
        assert_eq!(view.nodes.len(), 3);
        assert!(super::view(Ok(Value::Array(vec![])), "asked").is_none());
    }
}
