//! One Redis, the pod that is held and the one that is not, and everything that meets in front of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::case::{Case, Pending};
use crate::operations::{OPERATIONS, SCENES, Stage};
use crate::plan::{End, Meeting};
use crate::proxy::Proxy;
use crate::report::{Failure, Fault, Site};
use crate::support::model::Order;
use crate::support::{App, Config, Pod, RedisServer, Wait, eventually, run_unread};

/// Cases under way at once. The pod that is held has a worker, and so a connection to Redis, for each: what one case holds back
/// holds up nobody else's replies, as a rule.
pub(crate) const LANES: usize = 12;
/// More commands than any operation has.
const MOST_COMMANDS: usize = 60;
/// Indexes of announced work.
const SHARDS: usize = 16;

pub(crate) struct World {
    redis: RedisServer,
    config: Config,
    held: Pod,
    free: Pod,
    pub wire: Proxy,
    /// Before the other pod, if its commands are to be shown.
    pub free_wire: Option<Proxy>,
    /// Cases begun.
    next: AtomicUsize,
    /// The id of the room that a message between `a` and `b` makes.
    pub pair: String,
    pub pending: Mutex<Vec<Pending>>,
    pub failures: Mutex<Vec<Failure>>,
    /// By the numbers of the cases.
    sites: Mutex<HashMap<usize, Site>>,
    pub verbose: bool,
}

impl World {
    /// With place for so many cases.
    pub(crate) async fn start(cases: usize, verbose: bool) -> Self {
        let redis = RedisServer::start();
        let mut config = Config::apps(cases + 2);
        // Nothing that is held back is to be given up.
        config.redis = format!("connections = {LANES}\nresponse_timeout_ms = 60000\n");
        let wire = Proxy::start(redis.address(), false, verbose).await;
        let free_wire = match verbose {
            true => Some(Proxy::start(redis.address(), true, true).await),
            false => None,
        };
        let workers = format!("[server]\nworkers = {LANES}\n");
        let held = config.toml(&wire.url()).replace("[server]\n", &workers);
        let held = Pod::start_toml(&held);
        let url = free_wire.as_ref().map_or(redis.url(), Proxy::url);
        let free = Pod::start_unready(&config, &url);
        for pod in [&held, &free] {
            eventually("the pod's /readyz", || async {
                pod.is_ready().then_some(()).ok_or_else(String::new)
            })
            .await;
        }
        let mut world = Self {
            redis,
            config,
            held,
            free,
            wire,
            free_wire,
            next: AtomicUsize::new(0),
            pair: String::new(),
            pending: Mutex::default(),
            failures: Mutex::default(),
            sites: Mutex::default(),
            verbose,
        };
        world.warm_up().await;
        world
    }

    /// Everything is done once, so that from then on Redis knows every script; and the room of `a` and `b` is learned.
    async fn warm_up(&mut self) {
        let lane = self.lane();
        let (_, held, free) = self.begin(&lane, None);
        let made = json!([{"type": "message.sent", "sender": "a", "to": "b", "id": "1"}]);
        held.must(&made).await;
        let rows = free.unread("b", true).await.ok();
        self.pair = rows["rooms"][0]["room"].as_str().unwrap().to_owned();
        let (_, held, _) = self.begin(&lane, None);
        for scene in SCENES.iter().filter(|scene| scene.main) {
            let room = scene.room(&self.pair);
            for stage in scene.stages(&self.pair) {
                let (Stage::Sent(events) | Stage::Cut(events, _)) = stage;
                held.must(&json!(events)).await;
            }
            for operation in OPERATIONS.iter().filter(|operation| operation.is_of(scene)) {
                let events = operation.events(room, "x", "y", 100_000);
                let mut held = held.clone();
                held.by_time = operation.order != Order::Arrival;
                let reply = held.events(&json!(events), Wait::Applied).await;
                assert_eq!(reply.status, 200, "{}: {}", operation.name, reply.text);
            }
            let deleted = json!({"type": "room.deleted", "room": room});
            held.events(&deleted, Wait::Applied).await;
        }
    }

    /// A client for cases that come one after the other.
    pub(crate) fn lane(&self) -> Lane {
        Lane {
            held: App::new(&self.config.apps[0], &self.held.base),
            free: App::new(&self.config.apps[0], &self.free.base),
        }
    }

    /// A case's number, and its app by way of either pod.
    pub(crate) fn begin(&self, lane: &Lane, site: Option<Site>) -> (usize, App, App) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(site) = site {
            self.sites.lock().unwrap().insert(number, site);
        }
        let (mut held, mut free) = (lane.held.clone(), lane.free.clone());
        held.keys = self.config.apps[number].clone();
        free.keys = held.keys.clone();
        (number, held, free)
    }

    /// Whether there is place for a meeting in each lane.
    pub(crate) fn has_place(&self) -> bool {
        self.next.load(Ordering::Relaxed) + LANES * MOST_COMMANDS < self.config.apps.len()
    }

    pub(crate) fn cases(&self) -> usize {
        self.sites.lock().unwrap().len()
    }

    /// The first operation held before each of its commands in turn, or before one.
    pub(crate) async fn meet(&self, lane: &Lane, meeting: &Meeting, only: Option<usize>) {
        // Dead before it has done anything it has done nothing; and whatever came before anything was done came first.
        let first = match meeting.end {
            End::Killed => 1,
            End::Held => usize::from(!self.verbose),
        };
        for at in only.map_or(first..MOST_COMMANDS, |at| at..at + 1) {
            let mut case = Case::new(self, lane, meeting, at);
            let went_through = case.run().await;
            self.wire.forget_unless_dead(case.number);
            if went_through {
                return;
            }
        }
        assert!(only.is_some(), "{meeting} has no end");
    }

    pub(crate) fn failed(&self, fault: Fault, site: &Site, why: String) {
        if self.verbose {
            println!("FAILED {fault:?}: {why}");
        }
        let site = site.clone();
        let failure = Failure { fault, site, why };
        self.failures.lock().unwrap().push(failure);
    }

    /// Waits until the work of the dead has been finished, and looks at what is left to be looked at.
    pub(crate) async fn settle(self: &Arc<Self>) {
        eventually("nothing is pending", || self.left("unread:v1:*}:pending")).await;
        let pending = std::mem::take(&mut *self.pending.lock().unwrap());
        let queue = Arc::new(Mutex::new(pending));
        let mut lookers = tokio::task::JoinSet::new();
        for _ in 0..LANES {
            let (world, queue) = (Arc::clone(self), Arc::clone(&queue));
            lookers.spawn(async move {
                loop {
                    let Some(one) = queue.lock().unwrap().pop() else {
                        return;
                    };
                    if let Some((fault, why)) = one.looked_at().await {
                        world.failed(fault, &one.site, why);
                    }
                }
            });
        }
        lookers.join_all().await;
        // What was announced and came to nothing is forgotten as well, some seconds later.
        eventually("the index is empty", || async {
            for shard in 0..SHARDS {
                let index = format!("unread:v1:{{pending:{shard}}}:index");
                let left = self.redis.cli(&["ZCARD", &index]);
                if left != "0" {
                    return Err(format!("{left} entries in index {shard}"));
                }
            }
            Ok(())
        })
        .await;
        self.verify();
    }

    /// Fails while there are keys that match.
    async fn left(&self, what: &str) -> Result<(), String> {
        let left = self.redis.cli(&["EVAL", COUNT, "0", what]);
        if left == "0" {
            return Ok(());
        }
        // It is a walk through all keys.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Err(format!("{left} of {what}"))
    }

    fn verify(&self) {
        let ran = run_unread(&["verify", "--redis-url", &self.redis.url(), "--json"]);
        let found: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        let drift = found["drift"].as_array().cloned().unwrap_or_default();
        assert_eq!(
            ran.code == 0,
            drift.is_empty(),
            "{}{}",
            ran.stdout,
            ran.stderr
        );
        assert_eq!(found["in_flight"], 0, "{found}");
        for drift in drift {
            let number = drift["app"]
                .as_str()
                .and_then(|app| app.strip_prefix("app-")?.parse().ok());
            let sites = self.sites.lock().unwrap();
            let site = number.and_then(|number: usize| sites.get(&number).cloned());
            self.failed(
                Fault::Drift,
                &site.expect("drift of a case"),
                drift.to_string(),
            );
        }
        let mixed = self.wire.mixed();
        assert!(
            mixed.is_empty(),
            "commands of several cases at once: {mixed:?}"
        );
        let unknown = self.wire.unknown();
        assert!(
            unknown.is_empty(),
            "scripts that are not in lua/: {unknown:?}"
        );
        for pod in [&self.held, &self.free] {
            let log = pod.log();
            let panics: Vec<&String> = log
                .iter()
                .filter(|line| line.contains("panicked"))
                .collect();
            assert!(panics.is_empty(), "{panics:?}");
        }
    }
}

/// How many keys match.
const COUNT: &str = "
local cursor, found = '0', 0
repeat
  local page = redis.call('SCAN', cursor, 'MATCH', ARGV[1], 'COUNT', 10000)
  cursor = page[1]
  found = found + #page[2]
until cursor == '0'
return found";

/// A client of either pod.
pub(crate) struct Lane {
    held: App,
    free: App,
}
