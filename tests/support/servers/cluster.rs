//! A cluster of three masters and their replicas.

use std::path::Path;

use super::tls::make_certificates;
use super::{LOGIN, replicated, rights_were_enough, start, user};
use crate::support::clock::Clock;
use crate::support::{RedisServer, free_port, until};

/// Slots of a cluster.
const SLOTS: u16 = 16_384;
const MASTERS: usize = 3;

/// Three masters, and three replicas of them.
pub struct Cluster {
    pub nodes: Vec<RedisServer>,
    /// Each node's, in the same order, where they can be set.
    pub clocks: Vec<Clock>,
    /// The ports and certificates of one that talks TLS.
    tls: Option<(Vec<u16>, tempfile::TempDir)>,
}

impl Cluster {
    /// `node_timeout`: milliseconds after which a master that does not answer is replaced.
    pub fn start(node_timeout: u32) -> Self {
        Self::start_with(node_timeout, None, Vec::new())
    }

    /// Every node runs by a clock of its own. A step of it makes no node take another for dead.
    pub fn start_by_clocks() -> Self {
        let clocks = (0..2 * MASTERS).map(|_| Clock::new()).collect();
        // Some days: longer than any step forward.
        Self::start_with(1_000_000_000, None, clocks)
    }

    /// Its nodes talk TLS with each other and with their clients.
    pub fn start_tls(node_timeout: u32) -> Self {
        let certificates = tempfile::tempdir().unwrap();
        make_certificates(certificates.path());
        // A node's other port is 10,000 higher.
        let ports = (0..2 * MASTERS).map(|_| {
            until("a low port", || {
                Some(free_port()).filter(|port| *port < 55_000)
            })
        });
        let tls = Some((ports.collect(), certificates));
        Self::start_with(node_timeout, tls, Vec::new())
    }

    fn start_with(
        node_timeout: u32,
        tls: Option<(Vec<u16>, tempfile::TempDir)>,
        clocks: Vec<Clock>,
    ) -> Self {
        let timeout = node_timeout.to_string();
        let options = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            &timeout,
            "--cluster-require-full-coverage",
            "no",
            "--cluster-replica-validity-factor",
            "0",
            "--repl-diskless-sync-delay",
            "0",
            "--appendonly",
            "no",
        ];
        let shared = [&options[..], &user()].concat();
        let nodes: Vec<RedisServer> = std::thread::scope(|scope| {
            let started: Vec<_> = (0..2 * MASTERS)
                .map(|index| {
                    let options = match &tls {
                        Some((ports, dir)) => node_tls(ports[index], dir.path()),
                        None => Vec::new(),
                    };
                    let mut all: Vec<String> = options;
                    all.extend(shared.iter().map(ToString::to_string));
                    let clock = clocks.get(index);
                    scope.spawn(move || {
                        let all: Vec<&str> = all.iter().map(String::as_str).collect();
                        start(clock, &all)
                    })
                })
                .collect();
            started.into_iter().map(|s| s.join().unwrap()).collect()
        });
        let cluster = Self { nodes, clocks, tls };
        for (index, node) in cluster.nodes.iter().enumerate() {
            let epoch = (index + 1).to_string();
            assert_eq!(node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]), "OK");
            if index < MASTERS {
                let share = SLOTS / MASTERS as u16 + 1;
                let first = share * index as u16;
                let last = (first + share).min(SLOTS) - 1;
                let (first, last) = (first.to_string(), last.to_string());
                assert_eq!(node.cli(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]), "OK");
            }
            let port = cluster.port(0).to_string();
            if index > 0 {
                assert_eq!(node.cli(&["CLUSTER", "MEET", "127.0.0.1", &port]), "OK");
            }
        }
        until("all nodes know each other", || {
            let met = |node: &RedisServer| {
                let known = node.cli(&["CLUSTER", "NODES"]);
                known.lines().count() == 2 * MASTERS && !known.contains("handshake")
            };
            cluster.nodes.iter().all(met).then_some(())
        });
        for index in 0..MASTERS {
            let (master, replica) = (&cluster.nodes[index], &cluster.nodes[MASTERS + index]);
            let id = master.cli(&["CLUSTER", "MYID"]);
            until("the replica takes its master", || {
                (replica.cli(&["CLUSTER", "REPLICATE", &id]) == "OK").then_some(())
            });
        }
        cluster.settled();
        cluster
    }

    /// Waits until all slots are served and all replicas have what their masters have.
    pub fn settled(&self) {
        until("the cluster is whole", || {
            let whole = self.nodes.iter().all(|node| {
                let info = node.cli(&["CLUSTER", "INFO"]);
                let linked = node.info("role").as_deref() == Some("master")
                    || node.info("master_link_status").as_deref() == Some("up");
                linked
                    && info.contains("cluster_state:ok")
                    && info.contains("cluster_slots_ok:16384")
                    && !node.cli(&["CLUSTER", "NODES"]).contains("fail")
            });
            let masters: Vec<_> = self.masters().collect();
            let followed = masters.iter().all(|master| {
                self.nodes[*master]
                    .info("connected_slaves")
                    .is_some_and(|n| n != "0")
            });
            (whole && masters.len() == MASTERS && followed).then_some(())
        });
    }

    /// Waits until no replica lags behind its master.
    pub fn replicated(&self) {
        for master in self.masters() {
            replicated(&self.nodes[master]);
        }
    }

    pub fn masters(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len())
            .filter(|index| self.nodes[*index].info("role").as_deref() == Some("master"))
    }

    /// The replica of a master takes its place, with all that the master has as long as nobody writes; answers which one.
    pub fn hand_over(&self, master: usize) -> usize {
        replicated(&self.nodes[master]);
        let next = self.replica_of(master);
        let answer = self.nodes[next].cli(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
        assert_eq!(answer, "OK");
        until("the old master follows", || {
            (self.nodes[master].info("role")? == "slave").then_some(())
        });
        self.settled();
        next
    }

    /// Which node follows that master.
    pub fn replica_of(&self, master: usize) -> usize {
        until("a master knows its replica", || self.known_replica(master))
    }

    /// Which node follows that master, as far as the master knows. After a step of its clock it may not hear of it for long.
    pub fn known_replica(&self, master: usize) -> Option<usize> {
        let id = self.nodes[master].cli(&["CLUSTER", "MYID"]);
        let replicas = self.nodes[master].cli(&["CLUSTER", "REPLICAS", &id]);
        let of = |node: &RedisServer| replicas.contains(&format!(":{}@", node.port));
        self.nodes.iter().position(of)
    }

    /// The address as an operator has it: two nodes, and a user who may do everything.
    pub fn operators_url(&self) -> String {
        let nodes = [0, 1].map(|index| format!("127.0.0.1:{}", self.port(index)));
        format!("redis+cluster://{}", nodes.join(","))
    }

    /// The address as a pod has it: all nodes, and the user with the least rights.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = (0..self.nodes.len())
            .map(|index| format!("127.0.0.1:{}", self.port(index)))
            .collect();
        let scheme = match self.tls {
            Some(_) => "rediss",
            None => "redis",
        };
        format!("{scheme}+cluster://{LOGIN}@{}", hosts.join(","))
    }

    /// What goes into `[redis]` where it talks TLS.
    pub fn settings(&self) -> String {
        let (_, dir) = self.tls.as_ref().expect("it talks TLS");
        format!("ca_file = {:?}\n", dir.path().join("ca.pem"))
    }

    /// Where clients and other nodes find it.
    fn port(&self, node: usize) -> u16 {
        match &self.tls {
            Some((ports, _)) => ports[node],
            None => self.nodes[node].port,
        }
    }

    pub fn rights_were_enough(&self) {
        self.nodes.iter().for_each(rights_were_enough);
    }

    /// The slot of a key.
    pub fn slot(&self, key: &str) -> u16 {
        let slot = self.nodes[0].cli(&["CLUSTER", "KEYSLOT", key]);
        slot.parse().unwrap()
    }

    /// Which node is the master of a slot, asked of one that is up.
    pub fn owner(&self, slot: u16, asked: usize) -> usize {
        let mut connection = self.nodes[asked].connect();
        let rows: Vec<Vec<redis::Value>> = redis::cmd("CLUSTER")
            .arg("SLOTS")
            .query(&mut connection)
            .unwrap();
        for row in rows {
            let (first, last, (_, port)): (u16, u16, (String, u16)) = (
                redis::from_redis_value(row[0].clone()).unwrap(),
                redis::from_redis_value(row[1].clone()).unwrap(),
                match &row[2] {
                    redis::Value::Array(node) => (
                        redis::from_redis_value(node[0].clone()).unwrap(),
                        redis::from_redis_value(node[1].clone()).unwrap(),
                    ),
                    other => panic!("{other:?}"),
                },
            );
            if (first..=last).contains(&slot) {
                let at = |node: &RedisServer| node.port == port;
                return self.nodes.iter().position(at).unwrap();
            }
        }
        panic!("nobody has slot {slot}");
    }

    /// Moves a slot as `redis-cli --cluster reshard` does, key by key. Between two keys the slot is in two places.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let (mut source, mut target) = (self.nodes[from].connect(), self.nodes[to].connect());
        let id = |connection: &mut redis::Connection| -> String {
            redis::cmd("CLUSTER").arg("MYID").query(connection).unwrap()
        };
        let (from_id, to_id) = (id(&mut source), id(&mut target));
        let set = |connection: &mut redis::Connection, state: &str, id: &str| {
            let mut set = redis::cmd("CLUSTER");
            set.arg("SETSLOT").arg(slot).arg(state).arg(id);
            let _: String = set.query(connection).unwrap();
        };
        set(&mut target, "IMPORTING", &from_id);
        set(&mut source, "MIGRATING", &to_id);
        loop {
            let mut get = redis::cmd("CLUSTER");
            get.arg("GETKEYSINSLOT").arg(slot).arg(1);
            let keys: Vec<Vec<u8>> = get.query(&mut source).unwrap();
            if keys.is_empty() {
                break;
            }
            let mut migrate = redis::cmd("MIGRATE");
            migrate
                .arg("127.0.0.1")
                .arg(self.nodes[to].port)
                .arg("")
                .arg(0)
                .arg(5_000)
                .arg("KEYS");
            for key in keys {
                migrate.arg(key);
            }
            let _: String = migrate.query(&mut source).unwrap();
        }
        set(&mut target, "NODE", &to_id);
        set(&mut source, "NODE", &to_id);
        for other in self.masters().filter(|index| ![from, to].contains(index)) {
            set(&mut self.nodes[other].connect(), "NODE", &to_id);
        }
    }
}

/// The options of a node that talks TLS.
fn node_tls(port: u16, dir: &Path) -> Vec<String> {
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    [
        ("--tls-port", port.to_string()),
        ("--tls-cluster", "yes".to_owned()),
        ("--tls-replication", "yes".to_owned()),
        ("--tls-auth-clients", "no".to_owned()),
        ("--tls-ca-cert-file", file("ca.pem")),
        ("--tls-cert-file", file("server.pem")),
        ("--tls-key-file", file("server.key")),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .collect()
}
