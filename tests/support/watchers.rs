//! Clients that watch users, and come again whenever a stream ends, as a page does: at the next pod, with the stamps that they have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::App;
use super::stream::{Events, Known};

/// Within this time everything is made good, whatever was lost.
pub const PROMISE: Duration = Duration::from_secs(15);

/// Within this time a change is told that was heard of, on a machine with much to do. Who has to wait for being read again waits
/// longer: 9 seconds at least.
const AT_ONCE: Duration = Duration::from_secs(8);

/// Whoever has to wait for longer has most likely not heard of a change.
const SOON: Duration = Duration::from_secs(2);

/// Something that all of [`traffic::everybody`](super::traffic::everybody) but one are told of; `n`: a new number.
pub fn change(n: u64) -> Value {
    let message = |room: &str, time: u64| {
        json!({
            "type": "message.sent", "room": room, "sender": "user 0", "id": format!("change {n}"),
            // Later than those of a writer, and no two at one time.
            "time": 1_750_000_000_000_u64 + 2 * n + time,
        })
    };
    json!([message("group a", 0), message("super", 1)])
}

/// Where the pods are. It may change at any time.
pub type Addresses = Arc<Mutex<Vec<String>>>;

/// Clients that watch users: the first, the third and so on with rooms, all others only their totals.
pub struct Watchers {
    clients: Vec<(Vec<String>, Arc<Mutex<Client>>)>,
    _tasks: tokio::task::JoinSet<()>,
}

#[derive(Default)]
struct Client {
    known: Known,
    /// When it has got a stream, and of which pod.
    opened: Vec<(Instant, String)>,
}

impl Watchers {
    /// One client on each of these pods.
    pub fn start(app: &App, pods: &[&str], users: &[String]) -> Self {
        let addresses = pods.iter().map(|base| (*base).to_owned()).collect();
        Self::following(app, &Arc::new(Mutex::new(addresses)), users)
    }

    /// One client on each of the pods at these addresses, as they are from time to time.
    pub fn following(app: &App, addresses: &Addresses, users: &[String]) -> Self {
        let count = addresses.lock().unwrap().len();
        Self::many(app, addresses, vec![users.to_vec(); count])
    }

    /// So many clients, with the users that each of them watches.
    pub fn many(app: &App, addresses: &Addresses, clients: Vec<Vec<String>>) -> Self {
        let mut tasks = tokio::task::JoinSet::new();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let clients = clients.into_iter().enumerate().map(|(n, users)| {
            let client = Arc::<Mutex<Client>>::default();
            let task = Task {
                http: http.clone(),
                key: app.keys.server_key.clone(),
                addresses: Arc::clone(addresses),
                users: users.clone(),
                with_rooms: has_rooms(n),
                client: Arc::clone(&client),
            };
            tasks.spawn(task.run(n));
            (users, client)
        });
        Self {
            clients: clients.collect(),
            _tasks: tasks,
        }
    }

    /// When each client got its first stream of a pod; none: it has not had one yet.
    pub fn opened(&self, base: &str) -> Vec<Option<Instant>> {
        let first = |(_, client): &(_, Arc<Mutex<Client>>)| {
            let client = client.lock().unwrap();
            let mut opened = client.opened.iter();
            opened.find(|(_, at)| at == base).map(|(opened, _)| *opened)
        };
        self.clients.iter().map(first).collect()
    }

    /// Waits until every client has been sent what is read now; for that long at most. Nothing may happen meanwhile.
    pub async fn agree(&self, app: &App, within: Duration) -> Duration {
        self.until_same(app, within, true).await
    }

    /// The same right after a change that was taken: what is said of it is heard. Only totals, since a row in which nothing but a
    /// position moves is not told at once.
    pub async fn hear(&self, app: &App) -> Duration {
        self.until_same(app, AT_ONCE, false).await
    }

    async fn until_same(&self, app: &App, within: Duration, rows: bool) -> Duration {
        let start = Instant::now();
        let mut is_said = false;
        loop {
            let late = start.elapsed() > within;
            let Err(why) = self.compare(app, rows).await else {
                return start.elapsed();
            };
            assert!(!late, "not told within {within:?}: {why}");
            if start.elapsed() > SOON && !std::mem::replace(&mut is_said, true) {
                println!("not told after {SOON:?}: {why}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn compare(&self, app: &App, rows: bool) -> Result<(), String> {
        let mut read = BTreeMap::new();
        for user in self.clients.iter().flat_map(|(users, _)| users) {
            if !read.contains_key(user) {
                let reply = app.unread(user, true).await;
                let counts = match reply.status {
                    200 => Some(reply.body),
                    404 => None,
                    _ => return Err(reply.text),
                };
                read.insert(user, counts);
            }
        }
        for (n, (users, client)) in self.clients.iter().enumerate() {
            let client = client.lock().unwrap();
            for user in users {
                same(
                    &client.known,
                    user,
                    read[user].as_ref(),
                    rows && has_rooms(n),
                )
                .map_err(|why| format!("client {n}, {user:?}: {why}"))?;
            }
        }
        Ok(())
    }
}

/// Whether the client of this number watches rooms.
fn has_rooms(n: usize) -> bool {
    n.is_multiple_of(2)
}

/// Whether a client has been sent what is read of a user, with or without rows.
fn same(known: &Known, user: &str, read: Option<&Value>, with_rows: bool) -> Result<(), String> {
    let Some(told) = known.users.get(user) else {
        return Err("nothing was said".to_owned());
    };
    let rooms = &known.rooms[user];
    let differs = match read {
        None => told["messages"]["total"] != 0 || (with_rows && !rooms.is_empty()),
        Some(read) => {
            let rows = read["rooms"].as_array().unwrap().iter();
            let other_rows = told["stamp"] != read["stamp"] || !rows.eq(rooms.values());
            ["messages", "mentions", "invitations", "unread_rooms"]
                .iter()
                .any(|family| told[family] != read[family])
                || (with_rows && other_rows)
        }
    };
    match differs {
        true => Err(format!("told {told} {rooms:?}, read {read:?}")),
        false => Ok(()),
    }
}

struct Task {
    http: reqwest::Client,
    key: String,
    addresses: Addresses,
    users: Vec<String>,
    with_rooms: bool,
    client: Arc<Mutex<Client>>,
}

impl Task {
    /// Watches for ever: first at the pod of this number, and after each end at the next one.
    async fn run(self, first: usize) {
        for attempt in first.. {
            let base = {
                let addresses = self.addresses.lock().unwrap();
                addresses[attempt % addresses.len()].clone()
            };
            let mut pause = Duration::from_millis(50);
            if let Ok(response) = self.ask(&base).send().await
                && response.status() == 200
            {
                let opened = (Instant::now(), base);
                self.client.lock().unwrap().opened.push(opened);
                let mut stream = Events::of(response);
                while let Some(event) = stream.next().await {
                    match event.name.as_str() {
                        "counts" => self.client.lock().unwrap().known.take(&event.data),
                        "bye" => {
                            pause = Duration::from_millis(event.data["retry_ms"].as_u64().unwrap())
                        }
                        other => panic!("a message {other}"),
                    }
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn ask(&self, base: &str) -> reqwest::RequestBuilder {
        let stamps = &self.client.lock().unwrap().known.stamps;
        let mut body = json!({"users": self.users, "stamps": stamps});
        if self.with_rooms {
            body["include"] = json!(["rooms"]);
        }
        self.http
            .post(format!("{base}/v1/live"))
            .bearer_auth(&self.key)
            .header("accept", "text/event-stream")
            .header("content-type", "application/json")
            .body(body.to_string())
    }
}
