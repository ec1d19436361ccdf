//! A master that sentinels watch. A task asks all of them at the same time, again and again, and believes the one that knows of
//! the latest failover. When another server has become the master, the old one is dropped at once with all requests that are
//! under way there: whatever it still acknowledged would be lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{Cmd, RedisResult, Value};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::condition::{Meaning, words};
use super::node::{Node, Reconnect};
use super::settings::ConnectionSettings;
use crate::config::Host;
use crate::error::{Error, Result, Trouble, Unavailable};
use crate::telemetry::metrics::Metrics;

/// Between two questions when nothing is wrong.
const EVERY: Duration = Duration::from_millis(500);
/// Between two questions at least.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the first answer waits for others, which may know better.
const GRACE: Duration = Duration::from_millis(100);

/// The connections to the server that is the master.
pub(super) struct Sentinel {
    settings: ConnectionSettings,
    current: watch::Receiver<Option<Arc<Node>>>,
    wanted: Arc<Notify>,
}

/// The task that asks the sentinels.
struct Watcher {
    sentinels: Vec<Arc<Node>>,
    question: Cmd,
    settings: ConnectionSettings,
    metrics: Arc<Metrics>,
    current: watch::Sender<Option<Arc<Node>>>,
    /// Its address, and the failover that made it the master.
    master: Option<(Host, u64)>,
}

impl Sentinel {
    /// Prepares connections to the sentinels, and starts to ask them. Needs a tokio runtime.
    pub(super) fn start(
        settings: ConnectionSettings,
        at_sentinels: &ConnectionSettings,
        sentinels: &[Host],
        master: &str,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let bad = |_| Error::unavailable(Trouble::Nowhere, "a sentinel has no address");
        let sentinels = sentinels
            .iter()
            .map(|host| {
                let info = at_sentinels.host(host).map_err(bad)?;
                Node::new(info, at_sentinels, Reconnect::Brisk, None).map(Arc::new)
            })
            .collect::<Result<Vec<_>>>()?;
        let mut question = Cmd::new();
        question.arg("SENTINEL").arg("MASTER").arg(master);
        let (sender, current) = watch::channel(None);
        let wanted = Arc::new(Notify::new());
        let watcher = Watcher {
            sentinels,
            question,
            settings: settings.clone(),
            metrics,
            current: sender,
            master: None,
        };
        tokio::spawn(watcher.run(Arc::clone(&wanted)));
        Ok(Self {
            settings,
            current,
            wanted,
        })
    }

    /// The master, as far as is known; waits for the first answer.
    pub(super) async fn master(&self) -> Option<Arc<Node>> {
        if let Some(node) = self.current.borrow().as_ref() {
            return Some(Arc::clone(node));
        }
        let mut current = self.current.clone();
        let first = current.wait_for(Option::is_some);
        match tokio::time::timeout(self.settings.connect, first).await {
            Ok(Ok(node)) => node.clone(),
            _ => None,
        }
    }

    /// The master, if one is known.
    pub(super) fn current(&self) -> Option<Arc<Node>> {
        self.current.borrow().clone()
    }

    /// Has the sentinels asked anew, at once.
    pub(super) fn refresh(&self) {
        self.wanted.notify_one();
    }
}

impl Watcher {
    async fn run(mut self, wanted: Arc<Notify>) {
        loop {
            if let Some((host, epoch)) = self.ask().await {
                self.adopt(host, epoch).await;
            }
            tokio::select! {
                () = self.current.closed() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            let _ = tokio::time::timeout(EVERY, wanted.notified()).await;
        }
    }

    /// The address that goes with the latest failover that any sentinel knows of.
    async fn ask(&self) -> Option<(Host, u64)> {
        let question = &self.question;
        let mut asked: FuturesUnordered<_> = self
            .sentinels
            .iter()
            .map(|sentinel| async move { (sentinel.ask(question).await, sentinel) })
            .collect();
        let mut best: Option<(Host, u64)> = None;
        let mut until = Instant::now() + self.settings.deadline();
        while let Ok(Some((answer, sentinel))) = tokio::time::timeout_at(until, asked.next()).await
        {
            match &answer {
                Err(error) => {
                    if let Meaning::Kept(_, trouble) = Meaning::of(error) {
                        let cause = words(error);
                        sentinel
                            .condition
                            .note_trouble(&Unavailable { trouble, cause });
                    }
                }
                Ok(_) => sentinel.note_answer(false),
            }
            if let Some((host, epoch)) = master(answer) {
                until = until.min(Instant::now() + GRACE);
                if best.as_ref().is_none_or(|(_, known)| *known < epoch) {
                    best = Some((host, epoch));
                }
            }
        }
        best
    }

    async fn adopt(&mut self, host: Host, epoch: u64) {
        if let Some((known, since)) = &self.master {
            // Sentinels learn of a failover one after the other. One that lags behind still names the old master.
            if *since > epoch || (*known == host && *since == epoch) {
                return;
            }
            if *known == host {
                self.master = Some((host, epoch));
                return;
            }
        }
        let Ok(info) = self.settings.host(&host) else {
            return;
        };
        let metrics = Some(Arc::clone(&self.metrics));
        let Ok(node) = Node::new(info, &self.settings, Reconnect::Brisk, metrics) else {
            return;
        };
        let node = Arc::new(node.retirable());
        match node.send((&redis::cmd("ROLE")).into()).await {
            Ok(role) if is_master(&role) => {}
            Ok(_) => {
                tracing::warn!(server = %node.name, "sentinels name a master that is none yet");
                return;
            }
            Err(error) => {
                // The old one is dropped all the same: it is not the master any more.
                tracing::warn!(server = %node.name, %error, "the master does not answer");
                if self.master.is_some() {
                    self.replace(None);
                }
                return;
            }
        }
        tracing::info!(server = %node.name, failover = epoch, "sentinels name the master");
        self.master = Some((host, epoch));
        self.replace(Some(node));
    }

    fn replace(&mut self, node: Option<Arc<Node>>) {
        if let Some(old) = self.current.send_replace(node) {
            old.retire();
        }
    }
}

/// Reads the answer to `SENTINEL MASTER`: field and value in turn.
fn master(answer: RedisResult<Value>) -> Option<(Host, u64)> {
    let fields: HashMap<String, String> = redis::from_redis_value(answer.ok()?).ok()?;
    let port = fields.get("port")?.parse().ok()?;
    let epoch = fields.get("config-epoch")?.parse().ok()?;
    Some(((fields.get("ip")?.clone(), port), epoch))
}

/// Whether an answer to `ROLE` is a master's.
fn is_master(role: &Value) -> bool {
    match role {
        Value::Array(parts) => matches!(
            parts.first(),
            Some(Value::BulkString(name)) if name == b"master"
        ),
        _ => false,
    }
}
