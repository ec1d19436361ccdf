//! Checks whether the Redis user has the rights that the program needs.

use super::Doctor;
use super::check::{Checks, Level};
use crate::connection::Server;
use crate::engine::reply::{Reply, text};
use crate::{keys, scripts};

/// The commands that pods run; `@` stands for a key. A unit test compares them with the scripts.
pub(super) const NEEDED: [&str; 42] = [
    "EVALSHA 0123456789012345678901234567890123456789 1 @",
    "EVAL x 1 @",
    "SCRIPT LOAD x",
    "INFO server",
    "PING",
    "TIME",
    "UNWATCH",
    "WAIT 0 0",
    "GET @",
    "SET @ x",
    "DEL @",
    "UNLINK @",
    "EXISTS @",
    "PEXPIRE @ 1",
    "PERSIST @",
    "SCAN 0",
    "HGET @ f",
    "HMGET @ f",
    "HGETALL @",
    "HKEYS @",
    "HLEN @",
    "HEXISTS @ f",
    "HSCAN @ 0",
    "HSET @ f v",
    "HSETNX @ f v",
    "HDEL @ f",
    "ZADD @ 0 m",
    "ZREM @ m",
    "ZRANGE @ 0 -1",
    "ZRANGEBYLEX @ - +",
    "ZREMRANGEBYLEX @ - +",
    "ZSCORE @ m",
    "ZMSCORE @ m",
    "ZCOUNT @ 0 1",
    "SPUBLISH @ m",
    "SSUBSCRIBE @",
    "SUNSUBSCRIBE @",
    "RPUSH @ v",
    "LPOP @",
    "LLEN @",
    "LINDEX @ 0",
    "LRANGE @ 0 1",
];

/// Commands that no pod runs, and which of our commands do.
const BESIDE_PODS: [(&str, &str); 2] = [
    ("ZCARD @", "inspect --room"),
    ("MEMORY USAGE @", "inspect --memory"),
];

/// Commands that are used only if they are allowed: by `unread doctor`, and by a client when it connects.
pub(super) const WELCOME: [&str; 7] = [
    "acl|whoami",
    "config|get",
    "cluster|slots",
    "cluster|info",
    "select",
    "role",
    "asking",
];

/// The command that gives a user the least rights that work.
pub(super) fn command_for_least_rights() -> String {
    let beside = BESIDE_PODS.iter().map(|(line, _)| line);
    let commands = NEEDED.iter().chain(beside);
    let commands = commands.map(|line| name(line).to_lowercase().replace(' ', "|"));
    let all: Vec<String> = commands
        .chain(WELCOME.map(str::to_owned))
        .map(|command| format!("+{command}"))
        .collect();
    format!(
        "ACL SETUSER NAME on >PASSWORD resetkeys resetchannels ~{} &{} -@all {}",
        keys::RIGHTS,
        keys::ALL,
        all.join(" ")
    )
}

/// The command of such a line, without its arguments.
fn name(line: &str) -> &str {
    let subcommands = ["SCRIPT ", "CLUSTER ", "MEMORY "]
        .iter()
        .any(|command| line.starts_with(command));
    let mut ends = line.match_indices(' ').map(|(at, _)| at);
    let end = ends.nth(usize::from(subcommands));
    end.and_then(|end| line.get(..end)).unwrap_or(line)
}

impl Doctor {
    pub(super) async fn rights(
        &self,
        node: &Server,
        cluster: Option<&String>,
        checks: &mut Checks,
    ) {
        let mut whoami = redis::cmd("ACL");
        whoami.arg("WHOAMI");
        let who = match node.admin(&whoami).await.map(text) {
            Ok(Ok(name)) => format!("user {name:?}"),
            _ => "this user".to_owned(),
        };
        let mut call = scripts::ACL_REFUSED.call(&[keys::pending_index(0)]);
        let beside = BESIDE_PODS.map(|(line, _)| line);
        for line in NEEDED.into_iter().chain(beside) {
            call.push(line.replace(' ', "\n"));
        }
        call.push(format!("GET\n{}", keys::SCHEMA));
        if cluster.is_some_and(|on| on == "1") {
            call.push("CLUSTER\nSLOTS");
        }
        let advice = command_for_least_rights();
        let refused = self.redis.call_without_data(&call).await.and_then(|value| {
            let mut reply = Reply::new(value)?;
            let mut refused = Vec::new();
            while !reply.is_empty() {
                refused.push(reply.text()?.replace('\n', " "));
            }
            Ok(refused)
        });
        match refused {
            Ok(refused) => {
                let mut pods: Vec<&str> = Vec::new();
                let mut others: Vec<String> = Vec::new();
                for line in &refused {
                    match BESIDE_PODS.iter().find(|(beside, _)| beside == line) {
                        Some((_, runs)) => others.push(format!("{} ({runs})", name(line))),
                        None if line.ends_with(keys::SCHEMA) => pods.push(line),
                        None => pods.push(name(line)),
                    }
                }
                if pods.is_empty() {
                    let need = match others.is_empty() {
                        true => "is needed",
                        false => "a pod needs",
                    };
                    let found = format!("{who} may run all that {need} on {}", keys::RIGHTS);
                    checks.add(Level::Ok, "rights", found, "");
                } else {
                    let found = format!("{who} may not run {}", pods.join(", "));
                    checks.add(Level::Fail, "rights", found, advice.clone());
                }
                if !others.is_empty() {
                    let found = format!("{who} may not run {}", others.join(", "));
                    let advice = format!("a pod does not need them, these commands do: {advice}");
                    checks.add(Level::Warn, "rights for commands", found, advice);
                }
            }
            Err(error) => checks.add(
                Level::Fail,
                "rights",
                format!("{who} can't be checked: {error}"),
                advice,
            ),
        }
    }
}

/// Which commands beyond those of pods our user may run. A script asks the server for the rights first, because the server logs
/// each command that it denies, and operators watch that log.
pub(super) struct Rights {
    pub(super) read_settings: bool,
    pub(super) see_cluster: bool,
}

impl Rights {
    pub(super) async fn ask(node: &Server) -> Self {
        let (settings, cluster) = ("CONFIG\nGET\nsave", "CLUSTER\nINFO");
        let mut eval = redis::cmd("EVAL");
        eval.arg(&scripts::ACL_REFUSED.text).arg(0);
        let answer = node.admin(eval.arg(settings).arg(cluster)).await;
        let refused: Option<Vec<String>> = answer
            .ok()
            .and_then(|value| redis::from_redis_value(value).ok());
        let may = |command: &str| {
            let refused = refused.as_ref();
            refused.is_some_and(|refused| refused.iter().all(|one| one != command))
        };
        Self {
            read_settings: may(settings),
            see_cluster: may(cluster),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCUMENT: &str = include_str!("../../../docs/redis.md");

    fn rights(text: &str) -> BTreeSet<&str> {
        text.split([' ', '`'])
            .filter(|word| word.starts_with('+'))
            .collect()
    }

    /// The line grants what the document gives to pods and to the commands beside them, a database, and nothing else.
    #[test]
    fn the_line_grants_what_the_document_gives() {
        let after = |start: &str| DOCUMENT.split_once(start).unwrap().1;
        let pods = after("\nACL SETUSER unread ").lines().next().unwrap();
        let commands = after(
            "`verify`, `rebuild`, `migrate`, `inspect`, `export`, `compare` and `doctor` also use `",
        );
        let mut given = rights(pods);
        given.extend(rights(commands.split('`').next().unwrap()));
        given.insert("+select");
        assert_eq!(rights(&command_for_least_rights()), given);
    }

    #[test]
    fn a_right_is_named_without_arguments() {
        assert_eq!(name("PING"), "PING");
        assert_eq!(name("SCAN 0"), "SCAN");
        assert_eq!(name("SCRIPT LOAD x"), "SCRIPT LOAD");
        assert_eq!(name("CLUSTER SLOTS"), "CLUSTER SLOTS");
    }

    #[test]
    fn every_command_of_the_scripts_is_asked_for() {
        for script in scripts::all() {
            let text = script.text.replace("redis.pcall('", "redis.call('");
            for part in text.split("redis.call('").skip(1) {
                let command = part.split('\'').next().unwrap();
                assert!(
                    NEEDED
                        .iter()
                        .any(|needed| needed.split(' ').next() == Some(command)),
                    "{command} of {}",
                    script.name
                );
            }
        }
    }
}
