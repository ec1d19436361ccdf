//! Redis in the shapes that it takes in production: a cluster with replicas, a master behind sentinels, and a server that
//! wants certificates and a user of its own.

mod cluster;
mod sentinels;
mod tls;

use std::sync::LazyLock;

pub use cluster::Cluster;
pub use sentinels::Sentinels;
#[allow(unused_imports, reason = "not every binary talks TLS")]
pub use tls::TlsServer;

use super::clock::Clock;
use super::{RedisServer, until};

/// The line of `docs/redis.md` that makes the user that `unread` logs in as, from the rights on.
pub static RIGHTS: LazyLock<&str> = LazyLock::new(|| {
    const DOCUMENT: &str = include_str!("../../../docs/redis.md");
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
