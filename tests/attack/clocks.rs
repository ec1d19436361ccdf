//! Clocks that step and clocks that differ. The promise: no count becomes wrong, no pod ends, nothing is refused or left
//! lying, and no limit holds longer than one burst, whatever the realtime clocks of Redis' nodes and of the pods say.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::check::{self, Check, Questions};
use crate::support::clock::Clock;
use crate::support::model::{Model, Outcome};
use crate::support::servers::Cluster;
use crate::support::{App, Config, Pod, RedisServer, Wait, eventually, unread};

/// The shim itself.
mod shim;

/// A user is deleted and named again.
mod deleted;

/// Nodes of a cluster whose clocks differ for good.
mod apart;

/// Rate limits.
mod limits;

/// Fan-outs that a dead pod left.
mod abandoned;

/// Data of an earlier day, and revisions that come again.
mod restored;

/// What is remembered for a time.
mod memory;

/// Events that are placed by their own times.
mod order;

/// What is seen while the work of a dead pod is finished.
mod prefixes;

/// How long a caller may wait for an answer, whatever the clocks say.
const ANSWER: Duration = Duration::from_secs(5);

/// The time of the first event of a story, in milliseconds.
const START: i64 = 1_750_000_000_000;

/// One app by way of some pods, and what its counts have to be.
struct Story {
    pods: Vec<Pod>,
    apps: Vec<App>,
    redis_url: String,
    model: Model,
    /// Whose counts are compared.
    users: Vec<String>,
    told: i64,
}

impl Story {
    fn start(redis_url: &str, pods: usize) -> Self {
        let mut story = Self {
            pods: Vec::new(),
            apps: Vec::new(),
            redis_url: redis_url.to_owned(),
            model: Model::default(),
            users: Vec::new(),
            told: 0,
        };
        story.start_pods(pods);
        story
    }

    /// The same data, with pods that know nothing yet.
    fn start_pods(&mut self, pods: usize) {
        let config = Config::apps(1);
        let start = |_| Pod::start_at(&config, &self.redis_url);
        self.pods = (0..pods).map(start).collect();
        let app = |pod: &Pod| App::new(&config.apps[0], &pod.base);
        self.apps = self.pods.iter().map(app).collect();
    }

    /// Gives each event the next time.
    fn timed(&mut self, events: Vec<Value>) -> Vec<Value> {
        let mut events = events;
        for event in &mut events {
            self.told += 1;
            event["time"] = (START + self.told * 1_000).into();
        }
        events
    }

    /// One request to that pod; it is answered in time as the model says. Counts are not looked at.
    async fn send(&mut self, pod: usize, events: Vec<Value>) -> Check {
        let events = self.timed(events);
        let expected: Vec<Outcome> = events.iter().map(|event| self.model.apply(event)).collect();
        let body = json!(events);
        let asked = self.apps[pod].try_events(&body, Wait::Applied);
        let reply = tokio::time::timeout(ANSWER, asked)
            .await
            .map_err(|_| format!("no answer within {ANSWER:?} to {body}"))?
            .map_err(|error| format!("{}, asked {body}: {error}", self.state_of(pod)))?;
        check::results(&events, &reply, &expected, false)
            .map_err(|why| format!("{why}, asked {body}"))
    }

    /// The same, and another pod then shows all counts right.
    async fn tell(&mut self, pod: usize, events: Vec<Value>) -> Check {
        let asked = json!(events);
        self.send(pod, events).await?;
        self.alive()?;
        self.compare_on((pod + 1) % self.pods.len())
            .await
            .map_err(|why| format!("{why}\nafter {asked}"))
    }

    /// Every pod shows all counts right.
    async fn compare(&self) -> Check {
        self.alive()?;
        for pod in 0..self.pods.len() {
            self.compare_on(pod).await?;
        }
        Ok(())
    }

    async fn compare_on(&self, pod: usize) -> Check {
        for user in &self.users {
            check::user(&self.apps[pod], &self.model, user, &Questions::default()).await?;
        }
        Ok(())
    }

    fn alive(&self) -> Check {
        let dead = |pod: &usize| self.pods[*pod].admin_status("/livez") != Some(200);
        match (0..self.pods.len()).find(dead) {
            Some(pod) => Err(self.state_of(pod)),
            None => Ok(()),
        }
    }

    fn state_of(&self, pod: usize) -> String {
        let pod = &self.pods[pod];
        let log = pod.log();
        let overflow = log.iter().find(|line| line.contains("overflowed"));
        match (pod.admin_status("/livez"), overflow) {
            (Some(200), _) => "the pod lives".to_owned(),
            (_, Some(line)) => format!("the pod has died: {}", line.trim()),
            _ => format!("the pod has died: {:?}", log.last()),
        }
    }

    /// `unread import` of these lines.
    fn import(&mut self, events: Vec<Value>) -> Check {
        let events = self.timed(events);
        let mut text = String::new();
        for event in &events {
            writeln!(text, "{event}").unwrap();
            if let Outcome::Rejected(code) = self.model.apply(event) {
                return Err(format!("the model refuses {event}: {code}"));
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let file: PathBuf = dir.path().join("events.ndjson");
        std::fs::write(&file, text).unwrap();
        let done = unread()
            .args(["import", "--app", "app-0", "--redis-url", &self.redis_url])
            .arg(file)
            .output()
            .unwrap();
        match done.status.code() {
            Some(0) => Ok(()),
            _ => Err(format!(
                "{:?}: {}",
                done.status,
                String::from_utf8_lossy(&done.stderr)
            )),
        }
    }
}

/// The first name of that stem whose slot lies on that one of a cluster's first masters; `letter`: `u` for a user, `r` for a
/// room.
fn name_on(cluster: &Cluster, node: usize, letter: char, stem: &str) -> String {
    let mut connection = cluster.nodes[0].connect();
    let mut on_node = |name: &String| {
        let mut ask = redis::cmd("CLUSTER");
        ask.arg("KEYSLOT")
            .arg(format!("unread:v1:{{app-0:{letter}:{name}}}:counts"));
        let slot: usize = ask.query(&mut connection).unwrap();
        // The masters share the 16,384 slots out in their order.
        slot / (16_384 / 3 + 1) == node
    };
    let mut names = (0..).map(|n| format!("{stem}-{n}"));
    names.find(&mut on_node).unwrap_or_default()
}

/// A Redis by a clock of its own, without persistence.
fn one_redis() -> (RedisServer, Clock) {
    let clock = Clock::new();
    (
        RedisServer::by_clock(&clock, &["--appendonly", "no"]),
        clock,
    )
}

fn deleted(user: &str) -> Value {
    json!({"type": "user.deleted", "user": user})
}

fn room(room: &str, kind: &str) -> Value {
    json!({"type": "room.updated", "room": room, "kind": kind})
}

fn joined(room: &str, users: &[&str]) -> Value {
    json!({"type": "member.joined", "room": room, "users": users})
}

fn invited(room: &str, user: &str) -> Value {
    json!({"type": "member.invited", "room": room, "user": user})
}

fn left(room: &str, user: &str) -> Value {
    json!({"type": "member.left", "room": room, "user": user})
}

fn message(room: &str, id: &str, sender: &str) -> Value {
    json!({"type": "message.sent", "room": room, "sender": sender, "id": id, "text": id})
}

/// Panics with all that went wrong, and not with the logs of pods that saw none of it.
#[track_caller]
fn none_failed(story: Story, failures: &[String]) {
    drop(story);
    let all = failures.join("\n\n");
    assert!(failures.is_empty(), "{} failed:\n{all}", failures.len());
}
