//! Clocks that step and clocks that differ, under random histories and under load: back by a millisecond to a year, forward
//! by less than the shortest time for which anything is remembered; nodes apart by a millisecond to an hour; masters that
//! hand over to replicas whose clocks are behind. No count is wrong, nothing is refused for it, and no pod ends.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::report::{self, Row};
use crate::storm::{Scene, Seen, config, set_up, storm};
use crate::support::check;
use crate::support::clock::{Clock, HOUR, MINUTE, MS, SECOND, YEAR, in_words};
use crate::support::history::{History, chosen_seeds, setting};
use crate::support::servers::{Cluster, Sentinels};
use crate::support::{App, Config, Pod, RedisServer, Wait, assert_no_drift, until};

/// All steps forward together, of whichever clock: less than the ten minutes after which a delivery counts as late.
const FORWARD: i64 = 9 * MINUTE;
/// All steps back of one clock together.
const BACK: i64 = 20 * YEAR;

// ---------------------------------------------------------------------------------------------------------- steps

/// Clocks, how far each may still go back and all of them forward, and what was done with them.
struct Steps {
    rng: StdRng,
    clocks: Vec<(String, Clock, i64)>,
    forward_left: i64,
    done: Vec<String>,
}

impl Steps {
    fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            clocks: Vec::new(),
            forward_left: FORWARD,
            done: Vec::new(),
        }
    }

    fn add(&mut self, name: &str, clock: &Clock) {
        self.clocks.push((name.to_owned(), clock.clone(), BACK));
    }

    /// Microseconds between two bounds, any order of magnitude as likely as any other.
    fn length_between(&mut self, least: i64, most: i64) -> i64 {
        let (least, most) = ((least as f64).ln(), (most as f64).ln());
        self.rng.random_range(least..=most).exp() as i64
    }

    /// Each clock is put ahead or behind by up to an hour.
    fn apart(&mut self) {
        for at in 0..self.clocks.len() {
            let by = self.length_between(MS, HOUR) * if self.rng.random_bool(0.5) { 1 } else { -1 };
            let (name, clock, _) = &self.clocks[at];
            clock.step(by);
            self.done.push(format!("{name} begins at {}", in_words(by)));
        }
    }

    /// One of the clocks steps, back or forward.
    fn step(&mut self) {
        if self.clocks.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.clocks.len());
        let back = self.rng.random_bool(0.7);
        let size = self.length_between(MS, if back { YEAR } else { FORWARD });
        let (name, clock, back_left) = &mut self.clocks[at];
        let left = if back {
            back_left
        } else {
            &mut self.forward_left
        };
        if size > *left {
            return;
        }
        *left -= size;
        let by = if back { -size } else { size };
        clock.step(by);
        self.done.push(format!("{name} steps {}", in_words(by)));
    }

    /// What was done, the last of it in full.
    fn report(&self) -> String {
        let last = self.done.len().saturating_sub(20);
        let mut text = format!("{} steps of clocks, the last ones:", self.done.len());
        for step in &self.done[last..] {
            write!(text, "\n  {step}").unwrap();
        }
        text
    }
}

/// Steps of the one clock by which a server runs to which events come by time. What the order of time remembers is either as good as
/// untouched by them - the clock stays between the times of the events and the ends of what is remembered, which hold for ten
/// minutes - or forgotten, after a step back of an hour or more.
const NEAR_BACK: i64 = 40 * SECOND;
const NEAR_FORWARD: i64 = MINUTE;

impl Steps {
    /// One such step.
    fn step_near_or_far(&mut self, clock: &Clock, left: &mut (i64, i64)) {
        let by = match self.rng.random_range(0..20) {
            0 => -self.length_between(HOUR, YEAR),
            1..12 => -self.length_between(MS, NEAR_BACK),
            _ => self.length_between(MS, NEAR_FORWARD),
        };
        if by > -HOUR {
            let left = if by < 0 { &mut left.0 } else { &mut left.1 };
            if by.abs() > *left {
                return;
            }
            *left -= by.abs();
        }
        clock.step(by);
        self.done.push(format!("Redis steps {}", in_words(by)));
    }
}

type SharedSteps = Arc<Mutex<Steps>>;

/// Prints what was done with the clocks when a test fails.
struct StepsOnFailure<'a>(&'a SharedSteps);

impl Drop for StepsOnFailure<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}", locked(self.0).report());
        }
    }
}

fn shared(steps: Steps) -> SharedSteps {
    Arc::new(Mutex::new(steps))
}

fn locked(steps: &SharedSteps) -> MutexGuard<'_, Steps> {
    steps.lock().unwrap_or_else(PoisonError::into_inner)
}

// ---------------------------------------------------------------------------------------------------------- histories

/// Two pods of one configuration.
struct Pods {
    config: Config,
    pods: [Pod; 2],
}

impl Pods {
    /// Each by a clock of its own.
    fn by_clocks(config: Config, url: &str, steps: &mut Steps) -> Self {
        let pods = ["pod A", "pod B"].map(|name| {
            let clock = Clock::new();
            let pod = Pod::by_clock(&clock, &config, url);
            steps.add(name, &clock);
            pod
        });
        Self { config, pods }
    }

    fn bases(&self) -> [String; 2] {
        [0, 1].map(|pod| self.pods[pod].base.clone())
    }

    /// Both are the processes that were started.
    fn assert_alive(&self) {
        for pod in &self.pods {
            assert_eq!(pod.admin_status("/livez"), Some(200), "a pod has died");
        }
    }

    /// Waits until both take writes for every master.
    fn found_the_master(&self) -> impl Fn() + Clone + Send + use<> {
        let rooms = (0..24).map(|n| format!("no such room {n}"));
        let probes: Value = rooms
            .map(|room| json!({"type": "room.deleted", "room": room}))
            .collect();
        let app = |base: &String| App::new(&self.config.apps[0], base);
        let apps: Vec<App> = self.bases().iter().map(app).collect();
        move || {
            let runtime = tokio::runtime::Handle::current();
            for app in &apps {
                until("the pods have found the new master", || {
                    let reply = runtime.block_on(app.events(&probes, Wait::Applied));
                    (reply.status == 200).then_some(())
                });
            }
        }
    }
}

/// `what` is done before every so many requests, and nothing else meanwhile.
fn before_every(
    requests: usize,
    what: impl Fn() + Clone + Send + 'static,
) -> impl FnMut() + Clone + Send + 'static {
    let mut turn = 0;
    move || {
        turn += 1;
        if turn % requests == 0 {
            tokio::task::block_in_place(&what);
        }
    }
}

/// Random histories at the same time, one for each seed, by way of both pods; `between` runs before each request.
async fn histories(
    seeds: std::ops::Range<u64>,
    events: u64,
    pods: &Pods,
    steps: &SharedSteps,
    between: impl FnMut() + Clone + Send + 'static,
    (fault, injected): (&str, &str),
) -> Result<(), String> {
    let _told = StepsOnFailure(steps);
    let mut tasks = tokio::task::JoinSet::new();
    for (seed, keys) in seeds.zip(&pods.config.apps) {
        let bases = pods.bases();
        let app = App::new(keys, &bases[0]);
        let (stepping, mut between) = (Arc::clone(steps), between.clone());
        tasks.spawn(async move {
            let mut history = History::new(app, seed);
            let mut rng = StdRng::seed_from_u64(seed);
            let way = bases.clone();
            history.before = Box::new(move |app| {
                app.base.clone_from(way.choose(&mut rng).unwrap());
                between();
                if rng.random_bool(0.6) {
                    locked(&stepping).step();
                }
            });
            let done = async {
                history.run(events, seed % 2 == 0).await?;
                for base in &bases {
                    history.compare_on(base).await?;
                }
                Ok(())
            };
            let done: Result<(), String> = done.await;
            let sent = history.events();
            done.map_err(|why| format!("seed {seed}, after {sent} events: {why}"))?;
            Ok((history.events(), history.asked))
        });
    }
    let mut row = Row {
        fault: fault.to_owned(),
        injected: String::new(),
        requests: 0,
        refused: 0,
        acknowledged: 0,
        lost: 0,
        slowest: Duration::ZERO,
        recovery: Duration::ZERO,
    };
    let mut failures: Vec<String> = Vec::new();
    for done in tasks.join_all().await {
        match done {
            Ok((events, (requests, slowest))) => {
                row.acknowledged += events;
                row.requests += requests;
                row.slowest = row.slowest.max(slowest);
            }
            Err(why) => failures.push(why),
        }
    }
    if !failures.is_empty() {
        return Err(format!(
            "{}\n{}",
            failures.join("\n\n"),
            locked(steps).report()
        ));
    }
    pods.assert_alive();
    let steps = locked(steps).done.len();
    row.injected = match steps {
        0 => injected.to_owned(),
        _ => format!("{injected}; {steps} steps"),
    };
    report::fault(row);
    Ok(())
}

#[track_caller]
fn fine(done: Result<(), String>) {
    if let Err(why) = done {
        panic!("{why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_agree_with_the_model_on_one_redis_whose_clock_steps() {
    let clock = Clock::new();
    let redis = RedisServer::by_clock(&clock, &["--appendonly", "no"]);
    let mut steps = Steps::new(501);
    steps.add("Redis", &clock);
    let pods = Pods::by_clocks(Config::apps(4), &redis.url(), &mut steps);
    let steps = shared(steps);
    let row = (
        "clocks step, one Redis",
        "random histories; Redis and both pods, 1 ms to 1 year back, less than 9 min forward in all",
    );
    fine(histories(501..505, 400, &pods, &steps, || (), row).await);
    for app in &pods.config.apps {
        assert_no_drift(&redis.url(), &app.id);
    }
}

/// By time the model has to know the server's clock: one history for each.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_by_time_agree_with_the_model_on_one_redis_whose_clock_steps() {
    let seeds = chosen_seeds().unwrap_or_else(|| (506..510).collect());
    let mut tasks: tokio::task::JoinSet<check::Check> = tokio::task::JoinSet::new();
    for seed in seeds {
        tasks.spawn(async move {
            let clock = Clock::new();
            let redis = RedisServer::by_clock(&clock, &["--appendonly", "no"]);
            let pods = Pods::by_clocks(Config::apps(1), &redis.url(), &mut Steps::new(seed));
            let mut history =
                History::by_time(App::new(&pods.config.apps[0], &pods.bases()[0]), seed);
            let (way, stepping) = (pods.bases(), shared(Steps::new(seed)));
            let (mut left, steps, ticking) = (
                (NEAR_BACK, NEAR_FORWARD),
                Arc::clone(&stepping),
                clock.clone(),
            );
            history.before = Box::new(move |app| {
                let mut steps = locked(&steps);
                app.base.clone_from(way.choose(&mut steps.rng).unwrap());
                if steps.rng.random_bool(0.3) {
                    steps.step_near_or_far(&ticking, &mut left);
                }
            });
            history.ahead = Box::new(move || Some(clock.ahead() / MS));
            let steps = setting("TEST_STEPS").unwrap_or(400);
            history.run(steps, seed % 2 == 0).await.map_err(|why| {
                let file = history.save("clock");
                let report = locked(&stepping).report();
                format!("seed {seed} (all events in {file}): {why}\n{report}")
            })?;
            pods.assert_alive();
            assert_no_drift(&redis.url(), &pods.config.apps[0].id);
            Ok(())
        });
    }
    check::all(tasks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_agree_with_the_model_behind_sentinels_that_fail_over_to_a_clock_behind() {
    let sentinels = Arc::new(Sentinels::start_by_clocks(60_000));
    let mut steps = Steps::new(511);
    for (n, clock) in sentinels.clocks.iter().enumerate() {
        steps.add(&format!("server {n}"), clock);
    }
    let pods = Pods::by_clocks(Config::apps(1), &sentinels.url(), &mut steps);
    let steps = shared(steps);
    let (servers, stepping) = (Arc::clone(&sentinels), Arc::clone(&steps));
    let found = pods.found_the_master();
    let fail_over = move || {
        behind(&servers, &stepping);
        servers.hand_over();
        found();
    };
    let row = (
        "clocks step, sentinels",
        "random history; steps as above and failovers to a clock 1 ms to 1 hour behind",
    );
    let between = before_every(40, fail_over);
    fine(histories(512..513, 400, &pods, &steps, between, row).await);
    let master = sentinels.servers[sentinels.master()].url();
    assert_no_drift(&master, "app-0");
}

/// Puts the clock of the server that is not the master behind the master's.
fn behind(sentinels: &Sentinels, steps: &SharedSteps) {
    let mut steps = locked(steps);
    let master = sentinels.master();
    let by = steps.length_between(MS, HOUR);
    sentinels.clocks[1 - master].set(sentinels.clocks[master].ahead() - by);
    steps
        .done
        .push(format!("over to a server at {}", in_words(-by)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_agree_with_the_model_on_a_cluster_whose_clocks_differ_and_step() {
    let cluster = Arc::new(Cluster::start_by_clocks());
    let mut steps = Steps::new(521);
    for (n, clock) in cluster.clocks.iter().enumerate() {
        steps.add(&format!("node {n}"), clock);
    }
    steps.apart();
    let pods = Pods::by_clocks(Config::apps(1), &cluster.url(), &mut steps);
    let steps = shared(steps);
    let (nodes, stepping) = (Arc::clone(&cluster), Arc::clone(&steps));
    let found = pods.found_the_master();
    let fail_over = move || {
        let mut steps = locked(&stepping);
        let (master, next) = until("a master knows its replica", || {
            let known = |master| Some((master, nodes.known_replica(master)?));
            let known: Vec<_> = nodes.masters().filter_map(known).collect();
            known.choose(&mut steps.rng).copied()
        });
        let by = steps.length_between(MS, HOUR);
        nodes.clocks[next].set(nodes.clocks[master].ahead() - by);
        let over = format!("over from node {master} to {next} at {}", in_words(-by));
        steps.done.push(over);
        drop(steps);
        nodes.hand_over(master);
        found();
    };
    let row = (
        "clocks step, cluster",
        "random history; nodes up to 1 hour apart, steps and failovers as above",
    );
    let between = before_every(40, fail_over);
    fine(histories(522..523, 400, &pods, &steps, between, row).await);
    assert_no_drift(&cluster.operators_url(), "app-0");
}

/// Nodes that stay as far apart as they are: a history of its own for each distance, with pods that have seen no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_agree_with_the_model_on_a_cluster_whose_clocks_differ_for_good() {
    let cluster = Cluster::start_by_clocks();
    let distances = [
        (MS, "1 ms"),
        (30 * MS, "30 ms"),
        (SECOND, "1 s"),
        (11 * MINUTE, "11 min"),
        (HOUR, "1 hour"),
    ];
    let mut failures: Vec<String> = Vec::new();
    for (n, (apart, name)) in distances.into_iter().enumerate() {
        for (node, clock) in cluster.clocks.iter().enumerate() {
            clock.set([0, apart, -apart][node % 3]);
        }
        let mut config = Config::apps(n + 1);
        config.apps.drain(..n);
        let pods = [0, 1].map(|_| Pod::start_at(&config, &cluster.url()));
        let pods = Pods { config, pods };
        // No clock, so none that steps.
        let steps = shared(Steps::new(0));
        let seed = 531 + n as u64;
        let injected = format!("random history; nodes {name} apart, and twice that");
        let row = ("clocks apart for good, cluster", injected.as_str());
        match histories(seed..seed + 1, 250, &pods, &steps, || (), row).await {
            Ok(()) => assert_no_drift(&cluster.operators_url(), &pods.config.apps[0].id),
            Err(why) => failures.push(format!("{name} apart: {why}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

// ---------------------------------------------------------------------------------------------------------- load

/// The clocks step so often, while events flow.
fn step_often(steps: &SharedSteps, times: usize, seen: &Seen) {
    for _ in 0..times {
        seen.acknowledged_more(15);
        locked(steps).step();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_under_load_while_the_clock_of_one_redis_steps() {
    let clock = Clock::new();
    let redis = RedisServer::by_clock(&clock, &["--appendonly", "no"]);
    let mut steps = Steps::new(541);
    steps.add("Redis", &clock);
    let steps = shared(steps);
    let Scene { pod, app, proxy } = Scene::new(&redis, config("")).await;
    let (after, _proxy) = storm(&app, vec![pod.base.clone()], 54, move |seen| {
        step_often(&steps, 60, seen);
        proxy
    })
    .await;
    after.nothing_lost().await;
    assert_eq!(pod.admin_status("/livez"), Some(200));
    after.report(
        "clock steps, one Redis",
        "under load, 60 times, 1 ms to 1 year back, less than 9 min forward in all",
        0,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_under_load_while_the_clocks_of_a_cluster_differ_and_step() {
    let cluster = Cluster::start_by_clocks();
    let mut steps = Steps::new(551);
    for (n, clock) in cluster.clocks.iter().enumerate() {
        steps.add(&format!("node {n}"), clock);
    }
    steps.apart();
    let pods = Pods::by_clocks(config(""), &cluster.url(), &mut steps);
    let steps = shared(steps);
    let bases = pods.bases();
    let app = App::new(&pods.config.apps[0], &bases[0]);
    set_up(&app).await;
    let (after, ()) = storm(&app, bases.into(), 55, move |seen| {
        step_often(&steps, 60, seen)
    })
    .await;
    after.nothing_lost().await;
    pods.assert_alive();
    after.report(
        "clocks step, cluster",
        "under load, 60 times; nodes up to 1 hour apart",
        0,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_under_load_while_masters_fail_over_to_clocks_behind() {
    let sentinels = Arc::new(Sentinels::start_by_clocks(60_000));
    let config =
        config("durability = \"wait\"\ndurability_replicas = 1\ndurability_timeout_ms = 500\n");
    let mut steps = Steps::new(561);
    let pods = Pods::by_clocks(config, &sentinels.url(), &mut steps);
    let steps = shared(steps);
    let bases = pods.bases();
    let app = App::new(&pods.config.apps[0], &bases[0]);
    set_up(&app).await;
    let servers = Arc::clone(&sentinels);
    let (after, ()) = storm(&app, bases.into(), 56, move |seen| {
        for _ in 0..3 {
            seen.acknowledged_more(100);
            behind(&servers, &steps);
            servers.fail_over();
            seen.acknowledged_more(100);
        }
    })
    .await;
    after.nothing_lost().await;
    pods.assert_alive();
    after.report(
        "failover to a clock behind, durability `wait`",
        "under load, 3 times, 1 ms to 1 hour behind",
        0,
    );
}
