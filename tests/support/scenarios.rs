//! What happens to a cluster and to a master behind sentinels, at a length that the caller chooses: the bodies of
//! `tests/it/topology.rs` and of the longer tests in `tests/faults`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::check;
use super::history::{History, chosen_seeds, setting};
use super::servers::{Cluster, Sentinels};
use super::traffic::{self, Answered, Writer};
use super::watchers::{PROMISE, Watchers, change};
use super::{App, Config, PATIENCE, Pod, RateLimit, Reply, Wait, eventually, until};

/// How long a caller may be left without an answer, whatever Redis does.
const ANSWER: Duration = Duration::from_secs(8);

// ---------------------------------------------------------------------------------------------------------- histories

/// Random histories, each compared with the model step by step, on the Redis at `url`. Every other one is by time.
pub async fn histories(config: &mut Config, url: &str, seeds: std::ops::Range<u64>, steps: u64) {
    let seeds = chosen_seeds().unwrap_or_else(|| seeds.collect());
    *config = Config {
        redis: config.redis.clone(),
        ..Config::apps(seeds.len())
    };
    let pod = Pod::start_at(config, url);
    let mut tasks = tokio::task::JoinSet::new();
    for (seed, keys) in seeds.into_iter().zip(&config.apps) {
        let app = App::new(keys, &pod.base);
        tasks.spawn(async move {
            let start = match seed % 2 == 0 {
                true => History::by_time,
                false => History::new,
            };
            let mut history = start(app, seed);
            history
                .run(setting("TEST_STEPS").unwrap_or(steps), false)
                .await
                .map_err(|reason| {
                    let file = history.save("topology");
                    format!("seed {seed} (all events in {file}): {reason}")
                })
        });
    }
    check::all(tasks).await;
    pod.assert_no_secret_logged(config);
}

// ---------------------------------------------------------------------------------------------------------- load

/// Callers that send events all the time. Each request is sent again until it is answered.
struct Load {
    app: App,
    answered: Arc<Answered>,
    refused: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    writers: tokio::task::JoinSet<()>,
    /// Of everybody, on every pod.
    watchers: Watchers,
}

const WRITERS: usize = 4;

impl Load {
    /// On the first of these pods, whose rooms remember more than is ever sent here.
    async fn start(app: &App, pods: &[&Pod]) -> Self {
        app.must(&traffic::setup()).await;
        let mut load = Self {
            app: app.clone(),
            answered: Arc::default(),
            refused: Arc::default(),
            over: Arc::default(),
            writers: tokio::task::JoinSet::new(),
            watchers: watchers(app, pods),
        };
        for name in 0..WRITERS {
            let app = app.on(&app.base);
            let answered = Arc::clone(&load.answered);
            let (refused, over) = (Arc::clone(&load.refused), Arc::clone(&load.over));
            load.writers.spawn(async move {
                let mut writer = Writer::new(name, StdRng::seed_from_u64(name as u64));
                while !over.load(Ordering::Relaxed) {
                    let events = writer.batch(3);
                    answered.record(&events, &insist(&app, &events, &refused).await);
                }
            });
        }
        load
    }

    /// Waits until so many more events have been answered.
    async fn more(&self, events: usize) {
        let next = self.answered.count() + events;
        eventually("more events are answered", || async {
            let count = self.answered.count();
            (count >= next)
                .then_some(())
                .ok_or_else(|| format!("{count} of {next}"))
        })
        .await;
    }

    fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Ends the callers, and compares all counts with what was answered. Whoever watches has been told it in time, and hears what
    /// changes then.
    async fn finish(self) {
        self.over.store(true, Ordering::Relaxed);
        self.writers.join_all().await;
        let model = self.answered.model();
        eventually("every acknowledged event counted once", || {
            traffic::compare(&self.app, &model)
        })
        .await;
        let told = self.watchers.agree(&self.app, PROMISE).await;
        self.app.must(&change(0)).await;
        let heard = self.watchers.hear(&self.app).await;
        println!("all told after {told:?}, then a change after {heard:?}");
    }
}

/// Clients on each of these pods that watch everybody.
fn watchers(app: &App, pods: &[&Pod]) -> Watchers {
    let pods: Vec<&str> = pods.iter().map(|pod| pod.base.as_str()).collect();
    Watchers::start(app, &pods, &traffic::everybody())
}

/// Sends the events again until they are taken. Each attempt has to be answered in time, and a refusal has to be a 503.
async fn insist(app: &App, events: &Value, refused: &AtomicUsize) -> Reply {
    let start = Instant::now();
    loop {
        let reply = tokio::time::timeout(ANSWER, app.events(events, Wait::Applied))
            .await
            .unwrap_or_else(|_| panic!("no answer within {ANSWER:?}"));
        if reply.status == 200 {
            return reply;
        }
        assert_eq!(reply.status, 503, "{}", reply.text);
        refused.fetch_add(1, Ordering::Relaxed);
        assert!(
            start.elapsed() < PATIENCE,
            "refused for too long: {}",
            reply.text
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A pod whose rooms forget nothing of what these tests send.
fn config() -> Config {
    let mut config = Config::apps(1);
    config.extra = "[history]\nmax_messages = 100_000\n".to_owned();
    config
}

/// Keys of everything that the load touches, one for each slot.
fn keys(app: &App) -> Vec<String> {
    let app = &app.keys.id;
    let users = (0..10).map(|n| format!("unread:v1:{{{app}:u:user%20{n}}}:counts"));
    let rooms = [
        "direct%20%7B1%7D",
        "direct%202",
        "group%20a",
        "group%20b",
        "super",
    ];
    let rooms = rooms.map(|room| format!("unread:v1:{{{app}:r:{room}}}:meta"));
    let indexes = (0..16).map(|shard| format!("unread:v1:{{pending:{shard}}}"));
    users.chain(rooms).chain(indexes).collect()
}

// ---------------------------------------------------------------------------------------------------------- cluster

pub async fn slots_move(moves: usize) {
    let cluster = Cluster::start(15_000);
    let config = config();
    let pods = [(); 2].map(|()| Pod::start_at(&config, &cluster.url()));
    let app = App::new(&config.apps[0], &pods[0].base);
    let load = Load::start(&app, &[&pods[0], &pods[1]]).await;
    let slots: Vec<u16> = keys(&app).iter().map(|key| cluster.slot(key)).collect();
    let mover = tokio::task::spawn_blocking(move || {
        let mut rng = StdRng::seed_from_u64(11);
        for _ in 0..moves {
            let slot = *slots.choose(&mut rng).unwrap();
            let from = cluster.owner(slot, 0);
            let to = (from + rng.random_range(1..3)) % 3;
            cluster.move_slot(slot, from, to);
        }
        cluster
    });
    let cluster = mover.await.unwrap();
    load.more(20).await;
    let sent_on: BTreeMap<&str, u64> = ["MOVED", "ASK", "TRYAGAIN"]
        .map(|code| {
            let counts = cluster.nodes.iter().filter_map(|node| {
                let count = node.info(&format!("errorstat_{code}"))?;
                count.strip_prefix("count=")?.parse::<u64>().ok()
            });
            (code, counts.sum())
        })
        .into();
    println!(
        "{} requests were refused while {moves} slots moved; {sent_on:?}",
        load.refused()
    );
    assert!(
        sent_on["MOVED"] > 0 && sent_on["ASK"] + sent_on["TRYAGAIN"] > 0,
        "nothing was ever sent where it no longer belonged: {sent_on:?}"
    );
    cluster.rights_were_enough();
    load.finish().await;
}

/// The master that has the user's slot.
fn needs(cluster: &Cluster, app: &App, user: usize) -> usize {
    let key = format!("unread:v1:{{{}:u:user%20{user}}}:counts", app.keys.id);
    cluster.owner(cluster.slot(&key), 0)
}

/// The master that has the key `needed` is frozen. Requests that need it are refused; others are answered meanwhile.
pub async fn freeze_a_master(needed: &str) {
    let cluster = Cluster::start(60_000);
    let mut config = config();
    // Long enough to see what waits for the frozen one and what does not.
    config.redis = "response_timeout_ms = 3000".to_owned();
    config.apps[0].rate_limit = RateLimit {
        per_second: 10_000,
        burst: 10_000,
        scope: "cluster",
    };
    let pod = Pod::start_at(&config, &cluster.url());
    let app = App::new(&config.apps[0], &pod.base);
    let load = Load::start(&app, &[&pod]).await;
    load.more(100).await;

    // The one that readiness looks at first, or the one that has the limits of a busy endpoint: neither is needed.
    let victim = cluster.owner(cluster.slot(needed), 0);
    let (theirs, others): (Vec<usize>, Vec<usize>) =
        (0..10).partition(|user| needs(&cluster, &app, *user) == victim);
    assert!(
        !theirs.is_empty() && !others.is_empty(),
        "choose other names"
    );
    cluster.nodes[victim].freeze();
    let frozen = Instant::now();

    let name = |user: usize| format!("user {user}");
    let stuck = tokio::spawn({
        let (app, user) = (app.clone(), name(theirs[0]));
        async move {
            tokio::time::timeout(ANSWER, app.tencent_total(&user))
                .await
                .expect("an answer in time, if a refusal")
        }
    });
    // All of these are answered while that request still waits.
    for round in 0..5 {
        let user = name(others[round % others.len()]);
        let reply = app.tencent_total(&user).await.ok();
        assert_eq!(reply["ActionStatus"], "OK", "{reply}");
    }
    assert!(
        !stuck.is_finished(),
        "the request to the frozen master was answered too early to show anything"
    );
    let reply = stuck.await.unwrap();
    assert_eq!(reply.body["ErrorCode"], 91000, "{}", reply.text);
    // From now on one request at a time waits for the frozen master, and the others are refused at once.
    for round in 0..2 {
        let (victim, user) = (name(theirs[0]), name(others[round % others.len()]));
        let (stuck, fine) = tokio::join!(
            tokio::time::timeout(ANSWER, app.tencent_total(&victim)),
            app.tencent_total(&user),
        );
        assert_eq!(stuck.unwrap().body["ErrorCode"], 91000);
        assert_eq!(fine.body["ActionStatus"], "OK", "{}", fine.text);
    }
    // Neither does a pod that starts now need the frozen one.
    let late = Pod::start_at(&config, &cluster.url());
    let reply = app
        .on(&late.base)
        .tencent_total(&name(others[0]))
        .await
        .ok();
    assert_eq!(reply["ActionStatus"], "OK", "{reply}");
    let asked = usize::from(victim == 0);
    let owner = cluster.owner(cluster.slot(needed), asked);
    assert_eq!(owner, victim, "a replica has taken over meanwhile");

    cluster.nodes[victim].thaw();
    let thawed = Instant::now();
    load.more(100).await;
    println!(
        "frozen for {:?}; 100 events {:?} after that",
        thawed - frozen,
        thawed.elapsed()
    );
    load.finish().await;
}

/// In each round a master is killed when its replica has everything: without `wait`, nothing more is promised.
pub async fn replicas_take_over(rounds: u64) {
    let mut cluster = Cluster::start(1_000);
    let config = config();
    let pods = [(); 2].map(|()| Pod::start_at(&config, &cluster.url()));
    let app = App::new(&config.apps[0], &pods[0].base);
    app.must(&traffic::setup()).await;
    let watchers = watchers(&app, &[&pods[0], &pods[1]]);
    let answered = Answered::default();
    let refused = AtomicUsize::new(0);
    let mut rng = StdRng::seed_from_u64(5);
    let mut writer = Writer::new(0, StdRng::seed_from_u64(6));
    for round in 0..rounds {
        let events = writer.batch(50);
        answered.record(&events, &insist(&app, &events, &refused).await);
        cluster.replicated();
        let masters: Vec<usize> = cluster.masters().collect();
        let victim = *masters.choose(&mut rng).unwrap();
        cluster.nodes[victim].kill9();
        let died = Instant::now();
        for _ in 0..20 {
            let events = writer.batch(10);
            answered.record(&events, &insist(&app, &events, &refused).await);
        }
        println!(
            "200 events {:?} after a master's death, {} refusals",
            died.elapsed(),
            refused.load(Ordering::Relaxed)
        );
        let model = answered.model();
        eventually("every acknowledged event counted once", || {
            traffic::compare(&app, &model)
        })
        .await;
        let told = watchers.agree(&app, PROMISE).await;
        let events = change(round);
        answered.record(&events, &insist(&app, &events, &refused).await);
        let heard = watchers.hear(&app).await;
        println!("all told after {told:?}, then a change after {heard:?}");
        // Comes back empty, as a replica.
        cluster.nodes[victim].restart();
        cluster.settled();
    }
}

// ---------------------------------------------------------------------------------------------------------- sentinel

pub async fn failovers(rounds: u64) {
    // On a machine with much to do a server that is well may be silent for a second or two; the sentinels must not take
    // that for a death, since the other one of the two is empty then.
    let mut sentinels = Sentinels::start(4_000);
    let config = config();
    let pods = [(); 2].map(|()| Pod::start_at(&config, &sentinels.url()));
    let app = App::new(&config.apps[0], &pods[0].base);
    app.must(&traffic::setup()).await;
    let watchers = watchers(&app, &[&pods[0], &pods[1]]);
    let answered = Answered::default();
    let refused = AtomicUsize::new(0);
    let mut writer = Writer::new(0, StdRng::seed_from_u64(8));
    for round in 0..rounds {
        let events = writer.batch(50);
        answered.record(&events, &insist(&app, &events, &refused).await);
        sentinels.replicated();
        let old = sentinels.master();
        sentinels.servers[old].kill9();
        let (died, mut switched) = (Instant::now(), None);
        let events = writer.batch(10);
        let taken = insist(&app, &events, &refused);
        tokio::pin!(taken);
        let reply = loop {
            tokio::select! {
                reply = &mut taken => break reply,
                () = tokio::time::sleep(Duration::from_millis(10)) => {
                    if switched.is_none() && sentinels.master() != old {
                        switched = Some(died.elapsed());
                    }
                }
            }
        };
        println!(
            "sentinels switched after {switched:?}, the pod after {:?}",
            died.elapsed()
        );
        answered.record(&events, &reply);

        sentinels.agree_on(1 - old);
        // It comes back as the master that it was, for as long as the sentinels let it: empty, and ready to take writes.
        sentinels.servers[old].restart();
        until("the old master is told to follow", || {
            (sentinels.servers[old].info("role")? == "slave").then_some(())
        });
        for _ in 0..20 {
            let events = writer.batch(5);
            answered.record(&events, &insist(&app, &events, &refused).await);
        }
        for command in ["eval", "evalsha"] {
            let stat = sentinels.servers[old].info(&format!("cmdstat_{command}"));
            assert_eq!(stat, None, "the old master was written to");
        }
        let model = answered.model();
        eventually("every acknowledged event counted once", || {
            traffic::compare(&app, &model)
        })
        .await;
        let told = watchers.agree(&app, PROMISE).await;
        let events = change(round);
        answered.record(&events, &insist(&app, &events, &refused).await);
        let heard = watchers.hear(&app).await;
        println!("all told after {told:?}, then a change after {heard:?}");
        sentinels.settled();
    }
}
