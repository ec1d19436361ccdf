//! Redis in the shapes that it takes in production: a cluster with replicas, a master behind sentinels, and a server that
//! wants certificates and a user of its own.

use std::path::Path;
use std::sync::LazyLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

use crate::support::clock::Clock;
use crate::support::{RedisServer, free_port, until};

/// The line of `docs/redis.md` that makes the user that `unread` logs in as, from the rights on.
pub static RIGHTS: LazyLock<&str> = LazyLock::new(|| {
    const DOCUMENT: &str = include_str!("../../docs/redis.md");
    const START: &str = "\nACL SETUSER unread on >PASSWORD ";
    let (_, line) = DOCUMENT
        .split_once(START)
        .expect("the document has the line");
    line.lines().next().unwrap_or_default()
});
/// Its password, as it stands in an address.
const LOGIN: &str = "unread:p%40ss%20word";

/// The options of a server that knows that user.
fn user() -> Vec<&'static str> {
    let mut options = vec!["--user", "unread", "on", ">p@ss word"];
    options.extend(RIGHTS.split_whitespace());
    options
}

/// By a clock, if there is one to set; a step of it then ends no replication.
fn start(clock: Option<&Clock>, options: &[&str]) -> RedisServer {
    const PATIENT: [&str; 2] = ["--repl-timeout", "1000000"];
    match clock {
        Some(clock) => RedisServer::by_clock(clock, &[options, &PATIENT].concat()),
        None => RedisServer::start_with(options),
    }
}

/// Panics when that user tried anything that its rights do not cover.
pub fn rights_were_enough(server: &RedisServer) {
    assert_eq!(server.cli(&["ACL", "LOG"]), "");
}

// ---------------------------------------------------------------------------------------------------------- cluster

/// Slots of a cluster.
const SLOTS: u16 = 16_384;
const MASTERS: usize = 3;

/// Three masters, and three replicas of them.
pub struct Cluster {
    pub nodes: Vec<RedisServer>,
    /// Each node's, in the same order, where they can be set.
    #[allow(dead_code, reason = "not every suite sets clocks")]
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
    #[allow(dead_code, reason = "not every suite sets clocks")]
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
    #[allow(dead_code, reason = "not every suite hands over")]
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
    #[allow(dead_code, reason = "not every suite hands over")]
    pub fn replica_of(&self, master: usize) -> usize {
        let id = self.nodes[master].cli(&["CLUSTER", "MYID"]);
        until("a master knows its replica", || {
            let replicas = self.nodes[master].cli(&["CLUSTER", "REPLICAS", &id]);
            let of = |node: &RedisServer| replicas.contains(&format!(":{}@", node.port));
            self.nodes.iter().position(of)
        })
    }

    /// `redis+cluster://` with all nodes.
    /// As somebody who may do everything.
    pub fn operators_url(&self) -> String {
        let nodes = [0, 1].map(|index| format!("127.0.0.1:{}", self.port(index)));
        format!("redis+cluster://{}", nodes.join(","))
    }

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
        let mut connection = self.connect(asked);
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

    fn connect(&self, node: usize) -> redis::Connection {
        redis::Client::open(self.nodes[node].url())
            .unwrap()
            .get_connection()
            .unwrap()
    }

    /// Moves a slot as `redis-cli --cluster reshard` does, key by key. Between two keys the slot is in two places.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let (mut source, mut target) = (self.connect(from), self.connect(to));
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
            set(&mut self.connect(other), "NODE", &to_id);
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

/// Waits until the replicas of a master have all that it has.
fn replicated(master: &RedisServer) {
    until("the replicas have it all", || {
        let info = master.cli(&["INFO", "replication"]);
        let field = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name))?;
            Some(value.trim().to_owned())
        };
        let offset = field("master_repl_offset:")?;
        let replica = field("slave0:")?;
        replica.contains(&format!("offset={offset},")).then_some(())
    });
}

// ---------------------------------------------------------------------------------------------------------- sentinel

/// A master, a replica and three sentinels.
pub struct Sentinels {
    pub servers: Vec<RedisServer>,
    /// Those of the two servers, where they can be set.
    #[allow(dead_code, reason = "not every suite sets clocks")]
    pub clocks: Vec<Clock>,
    pub sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// `down_after`: milliseconds after which a master that does not answer is replaced.
    pub fn start(down_after: u32) -> Self {
        Self::start_with(down_after, Vec::new())
    }

    /// The master and the replica run by clocks of their own.
    #[allow(dead_code, reason = "not every suite sets clocks")]
    pub fn start_by_clocks(down_after: u32) -> Self {
        Self::start_with(down_after, vec![Clock::new(), Clock::new()])
    }

    fn start_with(down_after: u32, clocks: Vec<Clock>) -> Self {
        // After this a failover that is not done is given up. One that a test asks for is to be done, however slowly.
        let give_up = if clocks.is_empty() { 5_000 } else { 60_000 };
        let options = ["--appendonly", "no", "--repl-diskless-sync-delay", "0"];
        let options = [&options[..], &user()].concat();
        let master = start(clocks.first(), &options);
        let port = master.port.to_string();
        let follow = [&options[..], &["--replicaof", "127.0.0.1", &port]].concat();
        let servers = vec![master, start(clocks.get(1), &follow)];
        until("the replica follows", || {
            (servers[1].info("master_link_status")? == "up").then_some(())
        });
        let sentinels: Vec<RedisServer> = (0..3)
            .map(|_| {
                let dir = tempfile::tempdir().unwrap();
                let conf = format!(
                    "sentinel monitor mymaster 127.0.0.1 {port} 2\n\
                     sentinel down-after-milliseconds mymaster {down_after}\n\
                     sentinel failover-timeout mymaster {give_up}\n"
                );
                std::fs::write(dir.path().join("sentinel.conf"), conf).unwrap();
                RedisServer::start_in(dir, None, &[])
            })
            .collect();
        let this = Self {
            servers,
            clocks,
            sentinels,
        };
        this.settled();
        this
    }

    /// Waits until all sentinels know each other and the replica.
    pub fn settled(&self) {
        until("the sentinels know each other and the replica", || {
            self.sentinels
                .iter()
                .all(|sentinel| {
                    let field = Self::state(sentinel);
                    field("num-other-sentinels")
                        .is_some_and(|n| n.parse::<u8>().is_ok_and(|n| n >= 2))
                        && field("num-slaves").as_deref() == Some("1")
                        && field("flags").as_deref() == Some("master")
                        && sentinel
                            .cli(&["SENTINEL", "CKQUORUM", "mymaster"])
                            .starts_with("OK")
                })
                .then_some(())
        });
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        format!("redis+sentinel://{LOGIN}@{}/mymaster", hosts.join(","))
    }

    pub fn rights_were_enough(&self) {
        self.servers.iter().for_each(rights_were_enough);
    }

    /// Which of the two servers the sentinels call the master.
    pub fn master(&self) -> usize {
        let answer = self.sentinels[0].cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]);
        let port: u16 = answer.lines().last().unwrap().parse().unwrap();
        let at = |server: &RedisServer| server.port == port;
        self.servers.iter().position(at).unwrap()
    }

    /// Waits until every sentinel knows this one as the master, and is done with making it so.
    pub fn agree_on(&self, server: usize) {
        let port = self.servers[server].port.to_string();
        until("the sentinels agree on the new master", || {
            let agrees = |sentinel: &RedisServer| {
                let state = Self::state(sentinel);
                state("port") == Some(port.clone()) && state("flags").as_deref() == Some("master")
            };
            self.sentinels.iter().all(agrees).then_some(())
        });
    }

    /// The fields of what a sentinel says about the master.
    fn state(sentinel: &RedisServer) -> impl Fn(&str) -> Option<String> {
        let state = sentinel.cli(&["SENTINEL", "MASTER", "mymaster"]);
        move |name| {
            let mut lines = state.lines().skip_while(|line| *line != name);
            lines.nth(1).map(str::to_owned)
        }
    }

    pub fn replicated(&self) {
        replicated(&self.servers[self.master()]);
    }

    /// The other server becomes the master, with all that the present one has as long as nobody writes.
    #[allow(dead_code, reason = "not every suite hands over")]
    pub fn hand_over(&self) {
        self.replicated();
        self.fail_over();
        self.followed();
    }

    /// The other server becomes the master, with what it has. The old one takes writes until the sentinels get round to it.
    #[allow(dead_code, reason = "not every suite hands over")]
    pub fn fail_over(&self) {
        let old = self.master();
        until("a sentinel begins the failover", || {
            let answer = self.sentinels[0].cli(&["SENTINEL", "FAILOVER", "mymaster"]);
            (answer == "OK").then_some(())
        });
        self.agree_on(1 - old);
    }

    /// Waits until the server that is not the master follows the one that is.
    #[allow(dead_code, reason = "not every suite hands over")]
    pub fn followed(&self) {
        let old = &self.servers[1 - self.master()];
        until("the old master follows", || {
            (old.info("master_link_status")? == "up").then_some(())
        });
    }
}

// ---------------------------------------------------------------------------------------------------------- TLS

/// A Redis that talks TLS, wants a certificate of its clients, and knows no default user.
pub struct TlsServer {
    pub server: RedisServer,
    tls_port: u16,
    certificates: tempfile::TempDir,
}

impl TlsServer {
    pub fn start() -> Self {
        let certificates = tempfile::tempdir().unwrap();
        let dir = certificates.path();
        make_certificates(dir);
        let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let (ca, cert, key) = (file("ca.pem"), file("server.pem"), file("server.key"));
        let tls_port = free_port();
        let tls_port_text = tls_port.to_string();
        let mut options = vec![
            "--appendonly",
            "no",
            "--tls-port",
            &tls_port_text,
            "--tls-ca-cert-file",
            &ca,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--user",
            "default",
            "off",
            "--user",
            "tests",
            "on",
            ">tests-password",
            "~*",
            "&*",
            "+@all",
        ];
        options.extend(user());
        let login = ("tests".to_owned(), "tests-password".to_owned());
        let server = RedisServer::start_in(tempfile::tempdir().unwrap(), Some(login), &options);
        Self {
            server,
            tls_port,
            certificates,
        }
    }

    pub fn url(&self) -> String {
        format!("rediss://unread:p%40ss%20word@127.0.0.1:{}", self.tls_port)
    }

    pub fn rights_were_enough(&self) {
        rights_were_enough(&self.server);
    }

    /// What goes into `[redis]`.
    pub fn settings(&self) -> String {
        let file = |name: &str| self.certificates.path().join(name).display().to_string();
        format!(
            "ca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\n",
            file("ca.pem"),
            file("client.pem"),
            file("client.key")
        )
    }
}

/// An authority of our own, and what it has signed for the server and for its client.
fn make_certificates(dir: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "tests");
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = CertifiedIssuer::self_signed(ca, key).unwrap();
    std::fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    for (name, purposes) in [
        // The nodes of a cluster are each other's clients too.
        (
            "server",
            vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        ),
        ("client", vec![ExtendedKeyUsagePurpose::ClientAuth]),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = purposes;
        let certificate = params.signed_by(&key, &ca).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
