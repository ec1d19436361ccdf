//! Checks whether the Redis user has the rights that the program needs.

use super::Doctor;
use super::check::{Checks, Level};
use crate::connection::Server;
use crate::engine::reply::{Reply, text};
use crate::{keys, scripts};

/// The commands that pods run; `@` stands for a key. A unit test compares them with the scripts.
pub(super) const NEEDED: [&str; 40] = [
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
    "RPUSH @ v",
    "LPOP @",
    "LLEN @",
    "LINDEX @ 0",
    "LRANGE @ 0 1",
    "ZCARD @",
    "SCAN 0",
];

/// Commands that are used only if they are allowed: by `unread doctor`, and by a client when it connects.
pub(super) const WELCOME: [&str; 7] = [
    "acl|whoami",
    "config|get",
    "memory|usage",
    "cluster",
    "select",
    "role",
    "asking",
];

/// The command that gives a user the least rights that work.
pub(super) fn command_for_least_rights() -> String {
    let commands = NEEDED.iter().map(|words| {
        let mut words = words.split(' ');
        let name = words.next().unwrap_or_default().to_lowercase();
        match words.next() {
            Some("LOAD") => format!("{name}|load"),
            _ => name,
        }
    });
    let all: Vec<String> = commands
        .chain(WELCOME.map(str::to_owned))
        .map(|command| format!("+{command}"))
        .collect();
    format!(
        "ACL SETUSER NAME on >PASSWORD resetkeys resetchannels ~{} -@all {}",
        keys::ALL,
        all.join(" ")
    )
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
        for command in NEEDED {
            call.push(command.replace(' ', "\n"));
        }
        if cluster.is_some_and(|on| on == "1") {
            call.push("CLUSTER\nSLOTS");
        }
        let advice = command_for_least_rights();
        let refused = self.redis.call(&call).await.and_then(|value| {
            let mut reply = Reply::new(value)?;
            let mut refused = Vec::new();
            while !reply.is_empty() {
                refused.push(reply.text()?.replace('\n', " "));
            }
            Ok(refused)
        });
        match refused {
            Ok(refused) if refused.is_empty() => checks.add(
                Level::Ok,
                "rights",
                format!("{who} may run all that is needed on {}", keys::ALL),
                "",
            ),
            Ok(refused) => {
                let names: Vec<&str> = refused
                    .iter()
                    .map(|command| command.split(" @").next().unwrap_or_default())
                    .collect();
                checks.add(
                    Level::Fail,
                    "rights",
                    format!("{who} may not run {}", names.join(", ")),
                    advice,
                );
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
    use super::*;

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
