//! How `redis-cli` reaches the Redis that is configured, in lines for a shell to paste. No line holds a password.

use std::path::PathBuf;

use crate::config::{Destination, Host, RedisAddress, RedisConfig};
use crate::shell::quote;

/// `redis-cli` with what it needs to get to one Redis.
pub(super) struct RedisCli {
    start: String,
    /// Whether a password has to come from `REDISCLI_AUTH`, and one for the sentinels from `SENTINEL_AUTH`.
    passwords: (bool, bool),
}

impl RedisCli {
    /// For the address in the configuration.
    pub(super) fn new(config: &RedisConfig) -> Result<Self, String> {
        let url = config.url.as_ref().map_or("", |url| url.0.as_str());
        let address = RedisAddress::parse(url).map_err(|why| format!("redis.url {why}"))?;
        let tls = tls(config, &address);
        let mut words = vec!["redis-cli".to_owned()];
        let mut sentinel_password = false;
        let database = match &address.destination {
            Destination::Socket { path, db } => {
                words.extend(["-s".into(), quote(path)]);
                u64::from(*db)
            }
            Destination::Server { host, db } => {
                // What redis-cli does by itself.
                if *host != ("127.0.0.1".to_owned(), 6379) {
                    words.extend(at(host));
                }
                u64::from(*db)
            }
            Destination::Cluster(nodes) => {
                words.extend(nodes.first().map(at).into_iter().flatten());
                words.push("-c".into());
                0
            }
            Destination::Sentinel {
                sentinels,
                master,
                db,
                user,
                password,
            } => {
                let mut ask = vec!["redis-cli".to_owned()];
                ask.extend(sentinels.first().map(at).into_iter().flatten());
                ask.extend(tls.iter().cloned());
                ask.extend(login(user.as_deref()));
                let name = quote(master);
                ask.push(format!("SENTINEL get-master-addr-by-name {name}"));
                // The servers' password is not the sentinels'.
                let auth = match password {
                    Some(_) => "REDISCLI_AUTH=$SENTINEL_AUTH ",
                    None => "unset REDISCLI_AUTH; ",
                };
                sentinel_password = password.is_some();
                let ask = |line| format!("\"$({auth}{} | sed -n {line}p)\"", ask.join(" "));
                words.extend(["-h".into(), ask(1), "-p".into(), ask(2)]);
                u64::try_from(*db).unwrap_or(0)
            }
        };
        words.extend(tls);
        words.extend(login(address.user.as_deref()));
        if database > 0 {
            words.extend(["-n".into(), database.to_string()]);
        }
        Ok(Self {
            start: words.join(" "),
            passwords: (address.password.is_some(), sentinel_password),
        })
    }

    /// A line that runs one command.
    pub(super) fn line(&self, words: &[&str]) -> String {
        let mut line = self.start.clone();
        for word in words {
            line.push(' ');
            line.push_str(&quote(word));
        }
        line
    }

    /// Which passwords the lines want, and where; nothing: none.
    pub(super) fn passwords(&self) -> Option<&'static str> {
        match self.passwords {
            (false, false) => None,
            (true, false) => Some("the password in REDISCLI_AUTH"),
            (false, true) => Some("the sentinels' password in SENTINEL_AUTH"),
            (true, true) => {
                Some("the password in REDISCLI_AUTH, and the sentinels' in SENTINEL_AUTH")
            }
        }
    }
}

fn at((host, port): &Host) -> [String; 4] {
    ["-h".into(), quote(host), "-p".into(), port.to_string()]
}

fn login(user: Option<&str>) -> Vec<String> {
    user.map(|user| vec!["--user".into(), quote(user)])
        .unwrap_or_default()
}

/// Certificates as they are configured, wherever the line is pasted.
fn tls(config: &RedisConfig, address: &RedisAddress) -> Vec<String> {
    if !address.tls {
        return Vec::new();
    }
    let mut words = vec!["--tls".to_owned()];
    let mut file = |flag: &str, path: &Option<PathBuf>| {
        if let Some(path) = path {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            words.extend([flag.to_owned(), quote(&path.to_string_lossy())]);
        }
    };
    file("--cacert", &config.ca_file);
    file("--cert", &config.cert_file);
    file("--key", &config.key_file);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Secret, load_text};

    fn cli(url: &str) -> RedisCli {
        let mut config = load_text("", &crate::config::Flags::default(), &[]).unwrap();
        config.redis.url = Some(Secret(url.into()));
        config.redis.ca_file = Some("/etc/a b.pem".into());
        RedisCli::new(&config.redis).unwrap()
    }

    fn start(url: &str) -> String {
        cli(url).line(&["PING"])
    }

    #[test]
    fn every_address_becomes_options_and_no_password_is_shown() {
        assert_eq!(start("redis://127.0.0.1:6379"), "redis-cli PING");
        assert_eq!(start("redis://127.0.0.1"), "redis-cli PING");
        assert_eq!(
            start("redis://h:7000/2"),
            "redis-cli -h h -p 7000 -n 2 PING"
        );
        assert_eq!(
            start("rediss://me:s%3Acret@h:7000"),
            "redis-cli -h h -p 7000 --tls --cacert '/etc/a b.pem' --user me PING"
        );
        assert_eq!(
            cli("redis://:pw@h").passwords(),
            Some("the password in REDISCLI_AUTH")
        );
        assert_eq!(cli("redis://h").passwords(), None);
        assert_eq!(start("redis://[::1]:7000"), "redis-cli -h ::1 -p 7000 PING");
        assert_eq!(
            start("redis+unix:///run/a%20b.sock?db=3&user=me&pass=pw"),
            "redis-cli -s '/run/a b.sock' --user me -n 3 PING"
        );
        assert_eq!(
            start("redis+cluster://a:1,b:2"),
            "redis-cli -h a -p 1 -c PING"
        );
        let url = "redis+sentinel://:pw@a,b/mymaster";
        assert!(start(url).contains(
            "$(unset REDISCLI_AUTH; redis-cli -h a -p 26379 SENTINEL get-master-addr-by-name mymaster | sed -n 2p)"
        ));
        assert!(!start(url).contains("pw"));
        let guarded = format!("{url}?sentinel_user=su&sentinel_password=sp");
        assert!(start(&guarded).contains(
            "$(REDISCLI_AUTH=$SENTINEL_AUTH redis-cli -h a -p 26379 --user su SENTINEL "
        ));
        assert!(!start(&guarded).contains("sp "), "{}", start(&guarded));
    }
}
