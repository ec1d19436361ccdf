//! A master with a replica, and three sentinels.

use super::{LOGIN, replicated, rights_were_enough, start, user};
use crate::support::clock::Clock;
use crate::support::{RedisServer, until};

/// A master, a replica and three sentinels.
pub struct Sentinels {
    pub servers: Vec<RedisServer>,
    /// Those of the two servers, where they can be set.
    pub clocks: Vec<Clock>,
    pub sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// `down_after`: milliseconds after which a master that does not answer is replaced.
    pub fn start(down_after: u32) -> Self {
        Self::start_with(down_after, Vec::new())
    }

    /// The master and the replica run by clocks of their own.
    pub fn start_by_clocks(down_after: u32) -> Self {
        Self::start_with(down_after, vec![Clock::new(), Clock::new()])
    }

    fn start_with(down_after: u32, clocks: Vec<Clock>) -> Self {
        // A failover that takes longer is given up. A failover that a test asks for may be slow.
        let give_up = if clocks.is_empty() { 5_000 } else { 60_000 };
        let options = ["--appendonly", "no", "--repl-diskless-sync-delay", "0"];
        let options = [&options[..], &user()].concat();
        let master = start(clocks.first(), &options);
        let port = master.port.to_string();
        let follow = [&options[..], &["--replicaof", "127.0.0.1", &port]].concat();
        let servers = vec![master, start(clocks.get(1), &follow)];
        servers[1].in_step();
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
    pub fn hand_over(&self) {
        self.replicated();
        self.fail_over();
        self.followed();
    }

    /// The other server becomes the master, with what it has. The old one takes writes until the sentinels make it a replica.
    pub fn fail_over(&self) {
        let old = self.master();
        until("a sentinel begins the failover", || {
            let answer = self.sentinels[0].cli(&["SENTINEL", "FAILOVER", "mymaster"]);
            (answer == "OK").then_some(())
        });
        self.agree_on(1 - old);
    }

    /// Waits until the server that is not the master follows the one that is.
    pub fn followed(&self) {
        let old = &self.servers[1 - self.master()];
        until("the old master follows", || {
            (old.info("master_link_status")? == "up").then_some(())
        });
    }
}
