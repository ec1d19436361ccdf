//! `unread demo`: the example configuration, a private Redis that is thrown away at the end, and sample data sent through
//! the HTTP API like anybody's. Then it prints calls to paste.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::admin::quote;
use crate::app::{App, Stop};
use crate::cli::{Signals, print};
use crate::config::{self, AppConfig, Config, ConfigError, EXAMPLE, Flags};
use crate::http::{self, dialect::Sample};
use crate::private_redis::{self, fresh_dir};

const TTL_SECONDS: u64 = 86_400;

/// The demo's configuration: the example file, under the flags.
pub fn config(flags: &Flags) -> Result<Config, ConfigError> {
    let mut config = config::load_text(EXAMPLE, flags, &http::sections())?;
    // The terminal belongs to the calls to paste, and the Redis to the demo.
    config.log.level = "warn,unread::redis_setup=error".to_owned();
    // Nothing balances load to a demo.
    config.server.drain_seconds = 0;
    config.server.grace_seconds = 2;
    Ok(config)
}

/// Runs the demo until a signal.
pub async fn run(mut config: Config, signals: Signals) -> Result<(), String> {
    let dir = fresh_dir("unread-demo").map_err(|error| {
        let temp = std::env::temp_dir();
        format!(
            "{}: no directory can be made in it: {error}",
            temp.display()
        )
    })?;
    config.redis.data_dir.clone_from(&dir);
    let done = run_in(config, signals).await;
    // What is left behind lies in the system's directory for such things.
    let _ = std::fs::remove_dir_all(&dir);
    done
}

async fn run_in(config: Config, signals: Signals) -> Result<(), String> {
    let demo = config.apps.first().cloned().ok_or("there is no demo app")?;
    let data_dir = config.redis.data_dir.clone();
    let stop = signals.stop();
    tokio::pin!(stop);
    let app = tokio::select! {
        app = App::build(config) => app.map_err(|error| error.to_string())?,
        _ = &mut stop => return Ok(()),
    };
    let (listen, admin) = (reachable(app.listen()), reachable(app.admin_listen()));
    let (give_up, given_up) = oneshot::channel::<()>();
    let running = app.run(async {
        tokio::select! {
            stop = stop => stop,
            _ = given_up => Stop::Now,
        }
    });
    let filling = async {
        let filled = fill(listen, &demo).await;
        match filled {
            Ok(()) => {
                let redis = private_redis::running(&data_dir);
                let redis = redis.as_ref().map(|url| url.0.as_str());
                print(&instructions(listen, admin, &demo, redis));
                // Kept, or the app would stop.
                Ok(Some(give_up))
            }
            Err(why) => {
                let _ = give_up.send(());
                Err(format!("the sample data could not be sent: {why}"))
            }
        }
    };
    let ((), filled) = tokio::join!(running, filling);
    filled.map(drop)
}

/// The address under which a listener on all addresses is reached from this machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

async fn fill(listen: SocketAddr, app: &AppConfig) -> Result<(), String> {
    let key = app.server_keys.first().ok_or("the app has no server key")?;
    let body = Value::Array(sample()).to_string();
    let call = post_events(listen, &key.0, &body);
    let answer = tokio::time::timeout(Duration::from_secs(30), call)
        .await
        .map_err(|_| "no answer in 30 s".to_owned())?
        .map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let fine = head.split(' ').nth(1) == Some("200")
        && serde_json::from_str::<Value>(body)
            .is_ok_and(|body| body.get("rejected") == Some(&json!(0)));
    if fine {
        return Ok(());
    }
    let status = head.lines().next().unwrap_or_default();
    let body: String = body.chars().take(500).collect();
    Err(format!("{status}: {body}"))
}

/// One request on a connection of its own; a whole HTTP client would be a lot for this.
async fn post_events(listen: SocketAddr, key: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(listen).await?;
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: {listen}\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Events that give `alice` something of everything. All ids are fixed, so sending them again changes nothing.
fn sample() -> Vec<Value> {
    let mut events: Vec<Value> = [
        ("alice", "Alice"),
        ("bob", "Bob"),
        ("carol", "Carol"),
        ("dave", "Dave"),
    ]
    .into_iter()
    .map(|(user, nickname)| json!({"type": "user.updated", "user": user, "nickname": nickname}))
    .collect();
    let rooms = [
        (
            "orders",
            "group",
            "support",
            json!(["work", "orders"]),
            "Orders",
        ),
        ("family", "group", "private", json!(["home"]), "Family"),
        (
            "town-hall",
            "supergroup",
            "news",
            json!(["work"]),
            "Town hall",
        ),
        (
            "project-x",
            "group",
            "support",
            json!(["work"]),
            "Project X",
        ),
        (
            "everybody",
            "supergroup",
            "news",
            json!(["work"]),
            "Everybody",
        ),
    ];
    for (room, kind, custom_type, tags, name) in rooms {
        events.push(
            json!({"type": "room.updated", "room": room, "kind": kind, "custom_type": custom_type,
                           "tags": tags, "name": name}),
        );
    }
    for room in ["orders", "family", "town-hall"] {
        events.push(json!({"type": "member.joined", "room": room, "users": ["alice", "bob", "carol", "dave"]}));
    }
    for room in ["project-x", "everybody"] {
        events.push(json!({"type": "member.joined", "room": room, "user": "bob"}));
        events.push(json!({"type": "member.invited", "room": room, "user": "alice"}));
    }
    let direct = [
        ("bob", "alice", "Lunch?"),
        ("bob", "alice", "12:30 at the corner?"),
        ("bob", "alice", "I'll book a table"),
        ("carol", "alice", "Can you look at the report?"),
        ("alice", "dave", "Thanks for yesterday"),
    ];
    for (number, (sender, to, text)) in (1..).zip(direct) {
        events.push(json!({"type": "message.sent", "to": to, "sender": sender, "id": format!("direct-{number}"),
                           "text": text}));
    }
    let messages = [
        ("orders", "bob", "Order 1017 is late", json!([])),
        (
            "orders",
            "carol",
            "@alice can you call them?",
            json!(["alice"]),
        ),
        ("orders", "dave", "They promise tomorrow", json!([])),
        ("family", "dave", "Photos of the weekend", json!([])),
        ("family", "carol", "Lovely!", json!([])),
        ("town-hall", "bob", "@all we meet at four", json!("all")),
        ("town-hall", "carol", "Agenda follows", json!([])),
    ];
    for (number, (room, sender, text, mentions)) in (1..).zip(messages) {
        events.push(json!({"type": "message.sent", "room": room, "sender": sender, "id": format!("room-{number}"),
                           "text": text, "mentions": mentions}));
    }
    events.push(
        json!({"type": "room.read", "room": "family", "user": "alice", "up_to_id": "room-4"}),
    );
    events.push(
        json!({"type": "pref.updated", "room": "orders", "user": "alice", "sticky": true,
                       "tags": ["urgent"], "tag_colors": {"urgent": "#d33a2c"}}),
    );
    events
}

/// What to paste. All values in the calls are made of characters that need no quoting inside '…'.
fn instructions(
    listen: SocketAddr,
    admin: SocketAddr,
    app: &AppConfig,
    redis: Option<&str>,
) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut out = format!(
        "\nunread {} is running with sample data; ctrl-c stops it and throws the data away.\n\n\
         \x20 the four endpoints and /v1   http://{listen}\n\
         \x20 /livez /readyz /metrics      http://{admin}\n",
        env!("CARGO_PKG_VERSION")
    );
    let sample = Sample {
        listen,
        now,
        ttl: TTL_SECONDS,
    };
    for dialect in http::dialects() {
        out.push_str(&dialect.samples(app, &sample));
    }
    // Writing to a String can't fail.
    if let Some(url) = redis {
        let program = std::env::current_exe().unwrap_or_else(|_| "unread".into());
        let (program, url) = (quote(&program.to_string_lossy()), quote(url));
        let _ = write!(
            out,
            "\n# What stands in Redis of alice, and how to look at it by redis-cli\n\
             {program} inspect --redis-url {url} --app {} --user alice\n",
            app.id
        );
    }
    if let Some(key) = app.server_keys.first() {
        let _ = write!(
            out,
            "\n# Send alice one more message, then ask again\n\
             curl -sS -X POST 'http://{listen}/v1/events' -H 'Authorization: Bearer {}' \
             -H 'Content-Type: application/json' -d '{{\"type\": \"message.sent\", \"to\": \"alice\", \
             \"sender\": \"bob\", \"id\": \"pasted-'\"$(date +%s)\"'\", \"text\": \"Are you there?\"}}'\n\n",
            key.0
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RateLimit, Scope};

    #[test]
    fn the_example_file_is_the_demo_app_of_the_contract() {
        let config = config(&Flags::default()).unwrap();
        assert_eq!(config.server.listen, "127.0.0.1:8080");
        assert_eq!(config.server.admin_listen, "127.0.0.1:9090");
        assert!(config.redis.url.is_none());
        let [app] = config.apps.as_slice() else {
            panic!("one app");
        };
        assert_eq!(app.id.as_str(), "demo");
        assert_eq!(app.server_keys[0].0, "demo-server-key");
        let limit = RateLimit {
            per_second: 200,
            burst: 200,
            scope: Scope::Cluster,
        };
        assert_eq!(app.rate_limit, limit);
        let imkit: &http::imkit::ImkitConfig = app.section().unwrap();
        assert_eq!(imkit.client_keys[0].0, "demo-client-key");
        assert_eq!(imkit.jwt_secret.0, "demo-imkit-secret");
        let tencent: &http::tencent::TencentConfig = app.section().unwrap();
        assert_eq!(tencent.sdkappid, 1_400_000_001);
        let key = "unread-test-key-0001-not-a-real-secret";
        assert_eq!(tencent.secret_key.0, key);
        assert_eq!(tencent.admins, ["administrator"]);
        let sendbird: &http::sendbird::SendbirdConfig = app.section().unwrap();
        assert_eq!(sendbird.application_id, "DEMO-APP");
        assert_eq!(sendbird.master_token.0, "demo-master-token");
        assert_eq!(sendbird.api_tokens[0].0, "demo-api-token");
    }

    #[test]
    fn every_endpoint_gets_a_call_and_an_event_to_paste() {
        let config = config(&Flags::default()).unwrap();
        let listen = "0.0.0.0:8080".parse().unwrap();
        let redis = Some("redis+unix:///tmp/a%20b/redis.sock");
        let text = instructions(reachable(listen), listen, &config.apps[0], redis);
        for path in [
            "http://127.0.0.1:8080/badges/byRoomTags'",
            "http://127.0.0.1:8080/rooms?",
            "http://127.0.0.1:8080/v4/openim/get_c2c_unread_msg_num?",
            "http://127.0.0.1:8080/v3/users/alice/unread_item_count'",
            "http://127.0.0.1:8080/v1/events'",
        ] {
            let lines = text.lines().filter(|line| line.contains(path));
            let [line] = lines.collect::<Vec<_>>()[..] else {
                panic!("{path} is not on one line of\n{text}");
            };
            assert!(line.starts_with("curl -sS "), "{line}");
        }
        let inspect =
            " inspect --redis-url redis+unix:///tmp/a%20b/redis.sock --app demo --user alice\n";
        assert!(text.contains(inspect), "{text}");
    }
}
