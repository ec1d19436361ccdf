//! Pods and Redis die, stall and fill up; nothing acknowledged is lost.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::support::refusal::{ANSWER, native_refusal, right_or_refused};
use crate::support::traffic::{self, Answered, Batch, Writer};
use crate::support::{
    App, Config, Own, PATIENCE, Pod, RedisServer, Reply, Wait, eventually, until,
};

// ---------------------------------------------------------------------------------------------------------- pods die

/// Sends to one address after the other until somebody answers.
async fn insist(
    app: &App,
    addresses: &Mutex<[String; 2]>,
    first: usize,
    batch: &Batch,
    wait: Wait,
) -> Reply {
    let start = Instant::now();
    let mut app = app.clone();
    app.by_time = batch.by_time;
    for attempt in first.. {
        app.base = addresses.lock().unwrap()[attempt % 2].clone();
        match app.try_events(&batch.events, wait).await {
            Ok(reply) if reply.status < 500 => return reply,
            Ok(reply) => assert!(start.elapsed() < PATIENCE, "still refused: {}", reply.text),
            Err(error) => assert!(start.elapsed() < PATIENCE, "still no answer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    unreachable!("there is always another attempt")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pods_killed_at_random_lose_nothing() {
    const KILLS: usize = 6;
    const WRITERS: usize = 8;
    let redis = RedisServer::start();
    let config = Config::apps(1);
    let mut pods = [Pod::start(&config, &redis), Pod::start(&config, &redis)];
    let addresses = Arc::new(Mutex::new([pods[0].base.clone(), pods[1].base.clone()]));
    let app = App::new(&config.apps[0], &pods[0].base);
    app.must(&traffic::setup()).await;

    let answered = Arc::new(Answered::default());
    let over = Arc::new(AtomicBool::new(false));
    let writing = Arc::new(AtomicUsize::new(WRITERS));
    let mut writers = tokio::task::JoinSet::new();
    for name in 0..WRITERS {
        let (app, addresses) = (app.on(&app.base), Arc::clone(&addresses));
        let (answered, over, writing) = (
            Arc::clone(&answered),
            Arc::clone(&over),
            Arc::clone(&writing),
        );
        writers.spawn(async move {
            let rng = StdRng::seed_from_u64(100 + name as u64);
            let mut writer = Writer::new(name, rng).with_rooms_of_its_own();
            for round in 0.. {
                // As long as there is killing, and never so much that a room outgrows its history.
                if over.load(Ordering::Relaxed) || round == 75 {
                    break;
                }
                let batch = writer.next(5);
                let wait = if round % 2 == 0 {
                    Wait::Applied
                } else {
                    Wait::Accepted
                };
                let reply = insist(&app, &addresses, name, &batch, wait).await;
                answered.record_batch(&batch, &reply);
            }
            writing.fetch_sub(1, Ordering::Relaxed);
        });
    }

    // One of the two dies whenever some more has been answered, and the others are in the middle of something.
    let seen = Arc::clone(&answered);
    let killer = tokio::task::spawn_blocking(move || {
        let mut rng = StdRng::seed_from_u64(7);
        for _ in 0..KILLS {
            let next = seen.count() + rng.random_range(20..80);
            until("answers between two kills", || {
                (seen.count() >= next || writing.load(Ordering::Relaxed) == 0).then_some(())
            });
            let victim = rng.random_range(0..2);
            pods[victim].kill9();
            pods[victim] = Pod::start(&config, &redis);
            addresses.lock().unwrap()[victim].clone_from(&pods[victim].base);
        }
        over.store(true, Ordering::Relaxed);
        (pods, redis)
    });
    let (pods, _redis) = killer.await.unwrap();
    writers.join_all().await;

    let model = answered.model();
    for pod in &pods {
        let app = app.on(&pod.base);
        eventually("every acknowledged event counted once", || {
            traffic::compare(&app, &model)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_pod_accepted_is_delivered_by_another() {
    let redis = RedisServer::start();
    let config = Config::apps(1);
    let survivor = Pod::start(&config, &redis);
    let app = App::new(&config.apps[0], &survivor.base);
    app.must(&traffic::setup()).await;
    let answered = Answered::default();
    let mut writer = Writer::new(0, StdRng::seed_from_u64(1));
    for _ in 0..5 {
        let mut victim = Pod::start(&config, &redis);
        let events = writer.batch(20);
        let reply = app.on(&victim.base).events(&events, Wait::Accepted).await;
        victim.kill9();
        answered.record(&events, &reply);
        let model = answered.model();
        eventually("the survivor delivers", || traffic::compare(&app, &model)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_asked_to_end_finishes_its_work() {
    let redis = RedisServer::start();
    let config = Config::apps(1);
    let mut leaving = Pod::start(&config, &redis);
    let staying = Pod::start(&config, &redis);
    let app = App::new(&config.apps[0], &staying.base);
    app.must(&traffic::setup()).await;
    let answered = Answered::default();
    let events = Writer::new(0, StdRng::seed_from_u64(2)).batch(50);
    answered.record(
        &events,
        &app.on(&leaving.base).events(&events, Wait::Accepted).await,
    );
    assert_eq!(leaving.term(), Some(0), "{}", leaving.log_tail());
    let model = answered.model();
    eventually("what it accepted is delivered", || {
        traffic::compare(&app, &model)
    })
    .await;
}

// ---------------------------------------------------------------------------------------------------------- Redis

/// One durable Redis, one pod, some unread messages and the model of them.
struct Scene {
    redis: RedisServer,
    _pod: Pod,
    app: App,
    answered: Answered,
    writer: Writer,
}

impl Scene {
    async fn new() -> Self {
        let (app, pod, redis) = Own::on(RedisServer::start_durable(), Config::apps(1)).parts();
        app.must(&traffic::setup()).await;
        let writer = Writer::new(0, StdRng::seed_from_u64(3));
        let mut scene = Self {
            redis,
            _pod: pod,
            app,
            answered: Answered::default(),
            writer,
        };
        scene.write().await;
        scene
    }

    /// Twenty more events, without trouble.
    async fn write(&mut self) {
        let events = self.writer.batch(20);
        self.answered
            .record(&events, &self.app.events(&events, Wait::Applied).await);
    }

    /// Sends again, whole, what may or may not have been taken, until it is answered; then everything has to be right.
    async fn recover(&self, events: &Value) {
        eventually("service returns by itself", || async {
            let reply = self.app.events(events, Wait::Applied).await;
            if reply.status == 503 {
                return Err(reply.text);
            }
            self.answered.record(events, &reply);
            Ok(())
        })
        .await;
        let model = self.answered.model();
        eventually("all counts right again", || {
            traffic::compare(&self.app, &model)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_dies_and_comes_back() {
    let mut scene = Scene::new().await;
    for _ in 0..2 {
        let model = scene.answered.model();
        scene.redis.kill9();
        right_or_refused(&scene.app, &model, "user 0", false)
            .await
            .unwrap();
        let events = scene.writer.batch(10);
        let reply = tokio::time::timeout(ANSWER, scene.app.events(&events, Wait::Applied))
            .await
            .unwrap();
        native_refusal(&reply).unwrap();
        scene.redis.restart();
        scene.recover(&events).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_scripts_are_loaded_again() {
    let mut scene = Scene::new().await;
    for _ in 0..5 {
        assert_eq!(scene.redis.cli(&["SCRIPT", "FLUSH"]), "OK");
        scene.write().await;
        assert_eq!(scene.redis.cli(&["SCRIPT", "FLUSH"]), "OK");
        traffic::compare(&scene.app, &scene.answered.model())
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_redis_gives_late_answers_or_errors() {
    let mut scene = Scene::new().await;
    let model = scene.answered.model();
    assert_eq!(scene.redis.cli(&["CLIENT", "PAUSE", "1500", "ALL"]), "OK");
    // Nothing is written meanwhile, so the old counts are the only right ones.
    right_or_refused(&scene.app, &model, "user 0", true)
        .await
        .unwrap();

    assert_eq!(scene.redis.cli(&["CLIENT", "PAUSE", "1500", "ALL"]), "OK");
    let events = scene.writer.batch(10);
    let reply = tokio::time::timeout(ANSWER, scene.app.events(&events, Wait::Applied))
        .await
        .unwrap();
    if reply.status == 200 {
        scene.answered.record(&events, &reply);
    } else {
        native_refusal(&reply).unwrap();
    }
    // Sending again must not hurt, also when the first answer was a good one.
    scene.recover(&events).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_refuses_and_recovers() {
    let mut scene = Scene::new().await;
    let model = scene.answered.model();
    assert_eq!(scene.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    let events = scene.writer.batch(10);
    let reply = tokio::time::timeout(ANSWER, scene.app.events(&events, Wait::Applied))
        .await
        .unwrap();
    native_refusal(&reply).unwrap();
    right_or_refused(&scene.app, &model, "user 0", true)
        .await
        .unwrap();
    assert_eq!(scene.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    scene.recover(&events).await;
}
