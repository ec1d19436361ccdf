//! The forms of `redis.url`, as text. What goes wrong is told without repeating the address: it may hold a password.

use std::ops::RangeInclusive;

use percent_encoding::percent_decode_str;

/// Where the counts live and how they are reached.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RedisAddress {
    /// Whether connections are encrypted.
    pub tls: bool,
    /// ACL user; the default user if there is none.
    pub user: Option<String>,
    /// Password of that user.
    pub password: Option<String>,
    /// What stands there.
    pub destination: Destination,
}

/// What an address leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// One server.
    Server {
        /// Where it listens.
        host: Host,
        /// Number of the database.
        db: u16,
    },
    /// One server, by the file of its socket.
    Socket {
        /// The file.
        path: String,
        /// Number of the database.
        db: u16,
    },
    /// A cluster, by some of its nodes.
    Cluster(Vec<Host>),
    /// A master that sentinels watch.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<Host>,
        /// The name that they know the master by.
        master: String,
        /// Number of the database.
        db: i64,
        /// ACL user at the sentinels.
        user: Option<String>,
        /// Password at the sentinels.
        password: Option<String>,
    },
}

/// Host and port.
pub(crate) type Host = (String, u16);

// The passwords in it must never be printed.
impl std::fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("****")
    }
}

const SERVER: &str = "must be redis://[user:password@]host[:port][/db], the same with rediss:// for TLS, \
     redis+unix:///path, redis+cluster://host[:port],host[:port] or \
     redis+sentinel://host[:port],host[:port]/master (rediss+cluster://, rediss+sentinel:// for TLS)";
const CLUSTER: &str = "must be redis+cluster://[user:password@]host[:port],host[:port],...";
const SENTINEL: &str = "must be redis+sentinel://[user:password@]host[:port],host[:port],.../master[/db]\
     [?sentinel_user=...&sentinel_password=...]";
const DATABASES: RangeInclusive<i64> = 0..=65_535;

impl RedisAddress {
    /// Where it is, for people: without user and password.
    pub(crate) fn place(&self) -> String {
        let list = |hosts: &[Host]| hosts.iter().map(shown).collect::<Vec<_>>().join(",");
        let database = |db: i64| match db {
            0 => String::new(),
            db => format!("/{db}"),
        };
        match &self.destination {
            Destination::Server { host, db } => {
                format!("{}{}", shown(host), database((*db).into()))
            }
            Destination::Socket { path, db: 0 } => path.clone(),
            Destination::Socket { path, db } => format!("{path}, database {db}"),
            Destination::Cluster(nodes) => format!("the cluster of {}", list(nodes)),
            Destination::Sentinel {
                sentinels,
                master,
                db,
                ..
            } => format!(
                "{master:?}{} by the sentinels {}",
                database(*db),
                list(sentinels)
            ),
        }
    }

    /// Reads the value of `redis.url`.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or(SERVER)?;
        match scheme {
            "redis" | "rediss" => server(scheme, rest),
            "redis+unix" | "unix" if rest.starts_with('/') => socket(rest),
            "redis+cluster" | "rediss+cluster" => cluster(scheme, rest),
            "redis+sentinel" | "rediss+sentinel" => sentinel(scheme, rest),
            _ => Err(SERVER.to_owned()),
        }
    }
}

fn server(scheme: &str, rest: &str) -> Result<RedisAddress, String> {
    if rest.contains('#') {
        return Err("must not have a fragment (#...): certificates are always verified".to_owned());
    }
    let rest = rest.split('?').next().unwrap_or_default();
    let (authority, db) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = login(authority).ok_or(SERVER)?;
    let host = host(hosts, 6379).ok_or(SERVER)?;
    let number = "the part after the host must be the number of a database";
    let db = match db {
        "" => 0,
        _ => db.parse().map_err(|_| number)?,
    };
    let (user, password) = login;
    Ok(RedisAddress {
        tls: scheme == "rediss",
        user,
        password,
        destination: Destination::Server { host, db },
    })
}

/// The client reads the same address once more: what stands behind the `?` there is `db`, `user` and `pass`.
fn socket(rest: &str) -> Result<RedisAddress, String> {
    let rest = rest.split('#').next().unwrap_or_default();
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (mut db, mut user, mut password) = (0, None, None);
    for pair in query.split('&') {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let text = decoded(&text.replace('+', " "));
        match (name, text) {
            ("db", text) => {
                let number = text.and_then(|text| text.parse().ok());
                db = number.ok_or("db must be the number of a database")?;
            }
            ("user", text) => user = text,
            ("pass", text) => password = text,
            _ => {}
        }
    }
    Ok(RedisAddress {
        tls: false,
        user,
        password,
        destination: Destination::Socket {
            path: percent_decode_str(path).decode_utf8_lossy().into_owned(),
            db,
        },
    })
}

fn cluster(scheme: &str, rest: &str) -> Result<RedisAddress, String> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if matches!(path, "0" | "") {
        let ((user, password), hosts) = login(authority).ok_or(CLUSTER)?;
        Ok(RedisAddress {
            tls: scheme == "rediss+cluster",
            user,
            password,
            destination: Destination::Cluster(list(hosts, 6379).ok_or(CLUSTER)?),
        })
    } else {
        Err(format!("{CLUSTER}; a cluster has only database 0"))
    }
}

fn sentinel(scheme: &str, rest: &str) -> Result<RedisAddress, String> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').ok_or(SENTINEL)?;
    let ((user, password), hosts) = login(authority).ok_or(SENTINEL)?;
    let (master, db) = path.split_once('/').unwrap_or((path, "0"));
    let db = db.parse().ok().filter(|db| DATABASES.contains(db));
    let db = db.ok_or("the part after the master must be the number of a database")?;
    let master = decoded(master)
        .filter(|name| !name.is_empty())
        .ok_or(SENTINEL)?;
    let (mut sentinel_user, mut sentinel_password) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sentinel_user", text)) => sentinel_user = decoded(text),
            Some(("sentinel_password", text)) => sentinel_password = decoded(text),
            _ => {
                return Err(
                    "only sentinel_user and sentinel_password can follow the `?`".to_owned(),
                );
            }
        }
    }
    Ok(RedisAddress {
        tls: scheme == "rediss+sentinel",
        user,
        password,
        destination: Destination::Sentinel {
            sentinels: list(hosts, 26379).ok_or(SENTINEL)?,
            master,
            db,
            user: sentinel_user,
            password: sentinel_password,
        },
    })
}

type Login = (Option<String>, Option<String>);

/// The login and what follows it.
fn login(authority: &str) -> Option<(Login, &str)> {
    let Some((login, hosts)) = authority.rsplit_once('@') else {
        return Some(((None, None), authority));
    };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let some = |text| decoded(text).map(|text| Some(text).filter(|text| !text.is_empty()));
    Some(((some(user)?, some(password)?), hosts))
}

fn decoded(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    Some(text.into_owned())
}

fn list(hosts: &str, port: u16) -> Option<Vec<Host>> {
    hosts.split(',').map(|one| host(one, port)).collect()
}

fn shown((host, port): &Host) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn host(text: &str, default: u16) -> Option<Host> {
    let (host, port) = match text.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']')?;
            match after {
                "" => (host, ""),
                _ => (host, after.strip_prefix(':')?),
            }
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let port = match port {
        "" => default,
        _ => port.parse().ok()?,
    };
    let legal = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control());
    legal.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_and_sentinels_have_many_hosts() {
        let cluster = RedisAddress::parse("rediss+cluster://me:p%40s@a,b:7001,[::1]:7002").unwrap();
        assert!(cluster.tls);
        assert_eq!(cluster.user.as_deref(), Some("me"));
        assert_eq!(cluster.password.as_deref(), Some("p@s"));
        let hosts = [("a", 6379), ("b", 7001), ("::1", 7002)].map(|(h, p)| (h.to_owned(), p));
        assert_eq!(cluster.destination, Destination::Cluster(hosts.to_vec()));

        let url = "redis+sentinel://:pw@a,b:1/my%20master/3?sentinel_user=s&sentinel_password=t";
        let sentinel = RedisAddress::parse(url).unwrap();
        assert!(!sentinel.tls && sentinel.user.is_none());
        assert_eq!(sentinel.password.as_deref(), Some("pw"));
        assert_eq!(
            sentinel.destination,
            Destination::Sentinel {
                sentinels: vec![("a".to_owned(), 26379), ("b".to_owned(), 1)],
                master: "my master".to_owned(),
                db: 3,
                user: Some("s".to_owned()),
                password: Some("t".to_owned()),
            }
        );
        assert!(!format!("{sentinel:?}").contains("pw"));
    }

    #[test]
    fn a_place_has_no_password() {
        for (url, place) in [
            ("redis://h", "h:6379"),
            ("rediss://me:pw@[::1]:7000/3", "[::1]:7000/3"),
            ("redis+unix:///run/a%20b.sock", "/run/a b.sock"),
            ("redis+unix:///s?db=2&user=me&pass=pw", "/s, database 2"),
            (
                "redis+cluster://me:pw@a,b:7001",
                "the cluster of a:6379,b:7001",
            ),
            (
                "redis+sentinel://:pw@a,b:1/m/3?sentinel_password=t",
                "\"m\"/3 by the sentinels a:26379,b:1",
            ),
        ] {
            assert_eq!(RedisAddress::parse(url).unwrap().place(), place);
        }
    }

    #[test]
    fn one_server_has_a_host_or_a_socket() {
        let server = RedisAddress::parse("rediss://me:pw@h/3").unwrap();
        let host = ("h".to_owned(), 6379);
        assert_eq!(server.destination, Destination::Server { host, db: 3 });
        let socket =
            RedisAddress::parse("redis+unix:///a%20b%3F?db=2&user=m%40e&pass=p+w").unwrap();
        assert_eq!(socket.user.as_deref(), Some("m@e"));
        assert_eq!(socket.password.as_deref(), Some("p w"));
        let path = "/a b?".to_owned();
        assert_eq!(socket.destination, Destination::Socket { path, db: 2 });
        for wrong in ["redis://h/x", "redis+unix:///s?db=x", "redis+unix://s"] {
            assert!(RedisAddress::parse(wrong).is_err(), "{wrong}");
        }
    }
}
