//! Callers that send each request whole until it is answered, readers that watch all dialects meanwhile, and what is
//! measured while something goes wrong.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::proxy::Proxy;
use crate::report::{self, Row};
use crate::support::refusal;
use crate::support::traffic::{self, Answered, Batch, Writer};
use crate::support::watchers::{Addresses, PROMISE, Watchers, change};
use crate::support::{App, Config, PATIENCE, Pod, RedisServer, Reply, Wait, eventually, until};

/// A step that Redis does not answer is given up after 2 s (`connect_timeout_ms` + `response_timeout_ms`); twice that.
pub(crate) const DEADLINE: Duration = Duration::from_secs(4);

/// Events in one request.
const BATCH: usize = 5;
/// A caller's rest between two requests, so that a storm lasts as long as its fault and not as long as its messages.
const REST: Duration = Duration::from_millis(3);

/// One app, with ids known for longer than any storm sends.
pub(crate) fn config(redis: &str) -> Config {
    let mut config = Config::apps(1);
    // The program's own default, which other tests don't have.
    config.extra =
        format!("response_timeout_ms = 1000\n{redis}\n[history]\nmax_messages = 50000\n");
    config
}

/// A Redis, a proxy in front of it, and a pod that knows only the proxy.
pub(crate) struct Scene {
    pub pod: Pod,
    pub app: App,
    pub proxy: Proxy,
}

impl Scene {
    pub(crate) async fn new(redis: &RedisServer, config: Config) -> Self {
        let proxy = Proxy::start(redis.address());
        let pod = pod(&config, &proxy);
        let app = App::new(&config.apps[0], &pod.base);
        set_up(&app).await;
        Self { pod, app, proxy }
    }
}

/// Sends what has to be there before a storm, as any caller does: until it is answered.
pub(crate) async fn set_up(app: &App) {
    let events = traffic::setup();
    eventually("the rooms are made", || async {
        let reply = app.events(&events, Wait::Applied).await;
        if reply.status == 200 && reply.body["rejected"] == 0 {
            return Ok(());
        }
        Err(reply.text)
    })
    .await;
}

/// A pod that is ready and knows only the proxy.
pub(crate) fn pod(config: &Config, proxy: &Proxy) -> Pod {
    Pod::start_at(config, &proxy.url())
}

/// What is seen while it lasts.
pub(crate) struct Seen {
    pub answered: Answered,
    /// The requests that were acknowledged.
    acknowledged: Mutex<Vec<Value>>,
    requests: AtomicUsize,
    refused: AtomicUsize,
    slowest: Mutex<Duration>,
    /// From the end of the fault until the last of the callers was acknowledged.
    recovery: Mutex<Duration>,
    healed: Mutex<Option<Instant>>,
    over: AtomicBool,
    /// Where the pods are; more than one only where pods die, and then connections to them may break.
    pub addresses: Addresses,
    may_break: bool,
    /// Whether callers also send what depends on the order, to rooms of their own.
    alone: bool,
    /// Whether what was acknowledged may be gone, and with it what a later event speaks of.
    may_lose: AtomicBool,
    events: AtomicUsize,
}

impl Seen {
    /// Blocks until so many more events have been acknowledged.
    pub(crate) fn acknowledged_more(&self, events: usize) {
        let wanted = self.events.load(Ordering::Relaxed) + events;
        until("more events acknowledged", || {
            (self.events.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    }

    /// From now on an acknowledgement proves nothing: [`Aftermath::lost`] is to be asked.
    pub(crate) fn may_lose(&self) {
        self.may_lose.store(true, Ordering::Relaxed);
    }

    /// Blocks until so many more requests have been refused.
    pub(crate) fn refused_more(&self, requests: usize) {
        let wanted = self.refused.load(Ordering::Relaxed) + requests;
        until("more requests refused", || {
            (self.refused.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    }

    /// Blocks while requests are being refused, for that long.
    pub(crate) fn refused_for(&self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.refused_more(5);
        }
    }

    fn answered_in(&self, time: Duration, what: impl Fn() -> String) {
        assert!(time < DEADLINE, "answered after {time:?}: {}", what());
        let mut slowest = self.slowest.lock().unwrap();
        *slowest = time.max(*slowest);
    }

    /// The events of one request, sent until they are answered.
    async fn insist(&self, app: &mut App, name: usize, batch: &Batch, wait: Wait) -> Reply {
        let first = Instant::now();
        let events = &batch.events;
        app.by_time = batch.by_time;
        for attempt in name.. {
            {
                let addresses = self.addresses.lock().unwrap();
                app.base.clone_from(&addresses[attempt % addresses.len()]);
            }
            let start = Instant::now();
            let reply = app.try_events(events, wait).await;
            self.requests.fetch_add(1, Ordering::Relaxed);
            match reply {
                Ok(reply) => {
                    self.answered_in(start.elapsed(), || reply.text.clone());
                    if reply.status == 200 {
                        return reply;
                    }
                    refusal::native_refusal(&reply).unwrap();
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => assert!(self.may_break, "no answer: {error}"),
            }
            assert!(first.elapsed() < PATIENCE, "still not answered: {events}");
            tokio::time::sleep(REST).await;
        }
        unreachable!("there is always another attempt")
    }

    async fn call(self: Arc<Self>, mut app: App, name: usize, seed: u64) {
        let rng = StdRng::seed_from_u64(seed * 1_000 + name as u64);
        let mut writer = Writer::new(name, rng);
        if self.alone {
            writer = writer.with_rooms_of_its_own();
        }
        for round in 0.. {
            let batch = writer.next(BATCH);
            let wait = if round % 2 == 0 {
                Wait::Applied
            } else {
                Wait::Accepted
            };
            let healed = *self.healed.lock().unwrap();
            let reply = self.insist(&mut app, name, &batch, wait).await;
            if !self.may_lose.load(Ordering::Relaxed) {
                self.answered.record_batch(&batch, &reply);
            }
            let rejected = reply.body["rejected"].as_u64().unwrap() as usize;
            let count = batch.events.as_array().unwrap().len();
            self.events.fetch_add(count - rejected, Ordering::Relaxed);
            self.acknowledged.lock().unwrap().push(batch.events);
            // The one that was sent after the fault's end, and all that were held up by it, are through.
            if let Some(healed) = healed {
                let mut recovery = self.recovery.lock().unwrap();
                *recovery = healed.elapsed().max(*recovery);
                return;
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// Whatever is answered comes in time, and is either an answer or a refusal in the dialect's own form.
    async fn watch(self: Arc<Self>, mut app: App, seed: usize) {
        let users = traffic::everybody();
        for user in users.iter().cycle().skip(seed) {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            {
                let addresses = self.addresses.lock().unwrap();
                app.base.clone_from(&addresses[seed % addresses.len()]);
            }
            let start = Instant::now();
            match refusal::answered_or_refused(&app, user).await {
                Ok(refused) => {
                    self.answered_in(start.elapsed(), || format!("reads of {user:?}"));
                    self.requests.fetch_add(5, Ordering::Relaxed);
                    self.refused.fetch_add(refused, Ordering::Relaxed);
                }
                // Where events may be lost, so may a user that they made.
                Err(why) => {
                    let lossy = self.may_break || self.may_lose.load(Ordering::Relaxed);
                    assert!(lossy, "{why}");
                }
            }
            tokio::time::sleep(REST).await;
        }
    }
}

/// What a storm came to.
pub(crate) struct Aftermath {
    pub seen: Arc<Seen>,
    pub app: App,
    /// Clients on every pod that watch everybody, since before the fault.
    watchers: Watchers,
    /// How long after all was quiet these had been told everything, and how long after another change they had heard of it.
    told: Mutex<[Option<Duration>; 2]>,
}

/// Lets `callers` write and two readers read by way of `bases` while `inject` does its worst on a thread of its own; it
/// answers when the fault is over, and the storm ends when every caller has been acknowledged once more.
pub(crate) async fn storm<T: Send + 'static>(
    app: &App,
    bases: Vec<String>,
    seed: u64,
    inject: impl FnOnce(&Seen) -> T + Send + 'static,
) -> (Aftermath, T) {
    storm_of(app, bases, seed, false, inject).await
}

/// The same, where something happens to a Redis once the first events are acknowledged.
pub(crate) async fn storm_on(
    mut redis: RedisServer,
    app: &App,
    bases: Vec<String>,
    seed: u64,
    inject: impl FnOnce(&mut RedisServer, &Seen) + Send + 'static,
) -> (Aftermath, RedisServer) {
    let injected = move |seen: &Seen| {
        seen.acknowledged_more(50);
        inject(&mut redis, seen);
        redis
    };
    storm(app, bases, seed, injected).await
}

/// The same with all sorts of events. Nothing that was acknowledged may be lost, and no clock may change.
pub(crate) async fn storm_of_everything<T: Send + 'static>(
    app: &App,
    bases: Vec<String>,
    seed: u64,
    inject: impl FnOnce(&Seen) -> T + Send + 'static,
) -> (Aftermath, T) {
    storm_of(app, bases, seed, true, inject).await
}

async fn storm_of<T: Send + 'static>(
    app: &App,
    bases: Vec<String>,
    seed: u64,
    alone: bool,
    inject: impl FnOnce(&Seen) -> T + Send + 'static,
) -> (Aftermath, T) {
    const CALLERS: usize = 8;
    let seen = Arc::new(Seen {
        answered: Answered::default(),
        acknowledged: Mutex::default(),
        requests: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
        slowest: Mutex::default(),
        recovery: Mutex::default(),
        healed: Mutex::new(None),
        over: AtomicBool::new(false),
        may_break: bases.len() > 1,
        alone,
        may_lose: AtomicBool::new(false),
        events: AtomicUsize::new(0),
        addresses: Arc::new(Mutex::new(bases)),
    });
    let watchers = Watchers::following(app, &seen.addresses, &traffic::everybody());
    let mut callers = JoinSet::new();
    for name in 0..CALLERS {
        callers.spawn(Arc::clone(&seen).call(app.on(&app.base), name, seed));
    }
    let mut readers = JoinSet::new();
    for n in 0..2 {
        readers.spawn(Arc::clone(&seen).watch(app.on(&app.base), n));
    }
    let injecting = {
        let seen = Arc::clone(&seen);
        tokio::task::spawn_blocking(move || inject(&seen))
    };
    let back = injecting.await.unwrap();
    *seen.healed.lock().unwrap() = Some(Instant::now());
    callers.join_all().await;
    seen.over.store(true, Ordering::Relaxed);
    readers.join_all().await;
    let after = Aftermath {
        seen,
        app: app.clone(),
        watchers,
        told: Mutex::default(),
    };
    (after, back)
}

impl Aftermath {
    /// Everything acknowledged is there, counted once, at every one of these addresses, and whoever watches was told it.
    pub(crate) async fn nothing_lost(&self) {
        self.all_counted_and_told().await;
        self.changes_are_heard().await;
    }

    /// The same, where what changes may not be heard.
    pub(crate) async fn all_counted_and_told(&self) {
        let model = self.seen.answered.model();
        let addresses = self.seen.addresses.lock().unwrap().clone();
        for address in addresses {
            let app = self.app.on(&address);
            eventually("every acknowledged event counted once", || {
                traffic::compare(&app, &model)
            })
            .await;
        }
        self.all_told().await;
    }

    /// Whoever watches was told everything.
    pub(crate) async fn all_told(&self) {
        let took = self.watchers.agree(&self.app_now(), PROMISE).await;
        self.told.lock().unwrap()[0] = Some(took);
    }

    /// A further change, of which the model knows nothing.
    pub(crate) async fn change(&self) {
        let n = rand::random::<u32>().into();
        self.app_now().must(&change(n)).await;
    }

    /// Whoever watches is told a further change at once.
    pub(crate) async fn changes_are_heard(&self) {
        self.change().await;
        let took = self.watchers.hear(&self.app_now()).await;
        self.told.lock().unwrap()[1] = Some(took);
    }

    /// The app, where the first of the pods is now.
    fn app_now(&self) -> App {
        self.app.on(&self.seen.addresses.lock().unwrap()[0])
    }

    /// Sends everything acknowledged once more; answers how many messages were no longer known. After that everything
    /// has to be right again.
    pub(crate) async fn lost(&self) -> usize {
        let again = Answered::default();
        let mut lost = 0;
        let requests = self.seen.acknowledged.lock().unwrap().clone();
        for events in &requests {
            // What is recalled or read up to may itself be in a request that is still to come.
            let messages: Value = messages(events);
            let reply = self.app.events(&messages, Wait::Applied).await;
            again.record(&messages, &reply);
            let results = reply.body["results"].as_array().unwrap();
            lost += results
                .iter()
                .filter(|r| r["status"] != "duplicate")
                .count();
        }
        for events in &requests {
            let reply = self.app.events(events, Wait::Applied).await;
            again.record(events, &reply);
        }
        let model = again.model();
        eventually("all right after everything was sent again", || {
            traffic::compare(&self.app, &model)
        })
        .await;
        self.all_told().await;
        self.changes_are_heard().await;
        lost
    }

    /// A row of the table.
    pub(crate) fn report(&self, fault: &str, injected: &str, lost: usize) {
        let seen = &self.seen;
        if let [Some(told), Some(heard)] = *self.told.lock().unwrap() {
            report::told(fault, injected, told, heard);
        }
        report::fault(Row {
            fault: fault.to_owned(),
            injected: injected.to_owned(),
            requests: seen.requests.load(Ordering::Relaxed),
            refused: seen.refused.load(Ordering::Relaxed),
            acknowledged: seen.events.load(Ordering::Relaxed),
            lost,
            slowest: *seen.slowest.lock().unwrap(),
            recovery: *seen.recovery.lock().unwrap(),
        });
    }
}

fn messages(events: &Value) -> Value {
    let all = events.as_array().unwrap().iter();
    all.filter(|event| event["type"] == "message.sent")
        .cloned()
        .collect()
}
