//! Long random histories against the model, step by step.

/// What the generator makes, and what holds of the model whatever comes. No server is asked.
mod generator;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::support::check;
use crate::support::history::{History, Universe, chosen_seeds, setting};
use crate::support::model::{Model, Outcome};
use crate::support::{App, Config, Pod, RedisServer, app, assert_no_drift};

/// Fixed seeds: a history that fails can be run again.
const SEEDS: [u64; 5] = [4, 5, 6, 7, 8];

/// Runs all seeds at the same time, each in an app of its own. `start` makes the history.
async fn histories(
    label: &'static str,
    start: fn(App, u64) -> History,
    seeds: &[u64],
    twice: bool,
) {
    let seeds = chosen_seeds().unwrap_or_else(|| seeds.to_vec());
    let steps = setting("TEST_STEPS").unwrap_or(500);
    let apps: Vec<App> = seeds.iter().map(|_| app()).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for (seed, app) in seeds.into_iter().zip(&apps) {
        let app = app.clone();
        tasks.spawn(async move {
            let mut history = start(app, seed);
            history.run(steps, twice).await.map_err(|reason| {
                let file = history.save(label);
                format!(
                    "TEST_SEED={seed} (all events in {file}), after {} events: {reason}",
                    history.events()
                )
            })
        });
    }
    check::all(tasks).await;
    apps[0].assert_no_secret_logged();
    // Nor is there anything that no endpoint shows and that does not add up.
    for app in &apps {
        assert_no_drift(&app.redis_url(), &app.keys.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_agrees_with_the_model() {
    histories("once", History::new, &SEEDS, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_agrees_with_the_model_by_time() {
    histories("time", History::by_time, &[1, 2, 321], false).await;
}

/// A room that has forgotten all but its last four messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_older_than_the_history_is_answered_as_the_model_does() {
    let redis = RedisServer::start();
    let seeds = chosen_seeds().unwrap_or_else(|| vec![201, 202, 203, 205, 206]);
    let mut config = Config::apps(seeds.len());
    config.extra = "[history]\nmax_messages = 4\n".to_owned();
    let pod = Pod::start(&config, &redis);
    let mut tasks = tokio::task::JoinSet::new();
    for (seed, keys) in seeds.into_iter().zip(config.apps) {
        let start = match seed < 203 {
            true => History::new,
            false => History::by_time,
        };
        let mut history = start(App::new(&keys, &pod.base), seed);
        history.model.history = Some(4);
        tasks.spawn(async move {
            let steps = setting("TEST_STEPS").unwrap_or(400);
            history.run(steps, false).await.map_err(|reason| {
                let file = history.save("edges");
                format!("TEST_SEED={seed} (all events in {file}): {reason}")
            })
        });
    }
    check::all(tasks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_may_be_sent_twice() {
    histories("twice", History::new, &[101], true).await;
    histories("twice-by-time", History::by_time, &[102], true).await;
}

#[test]
fn the_generator_reaches_every_outcome() {
    let universe = Universe::new();
    let mut rng = StdRng::seed_from_u64(1);
    let mut model = Model::default();
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..20_000 {
        let event = universe.event(&model, &mut rng);
        // Nobody here to name the rooms that `to` makes.
        if event.get("to").is_some() || !universe.is_defined(&model, &event) {
            continue;
        }
        let outcome = match model.apply(&event) {
            Outcome::Applied(_) => "applied",
            Outcome::Duplicate(_) => "duplicate",
            Outcome::Rejected(code) => code,
        };
        *seen
            .entry((event["type"].as_str().unwrap_or("").to_owned(), outcome))
            .or_insert(0) += 1;
    }
    for expected in [
        ("message.sent", "applied"),
        ("message.sent", "duplicate"),
        ("message.sent", "room_not_found"),
        ("message.updated", "applied"),
        ("message.updated", "duplicate"),
        ("message.updated", "message_not_found"),
        ("message.updated", "room_not_found"),
        ("message.recalled", "applied"),
        ("message.recalled", "duplicate"),
        ("message.recalled", "message_not_found"),
        ("room.read", "applied"),
        ("room.read", "not_a_member"),
        ("room.read", "message_not_found"),
        ("room.updated", "kind_change"),
        ("member.joined", "direct_room_full"),
        ("member.joined", "room_not_found"),
        ("pref.updated", "applied"),
        ("pref.updated", "not_a_member"),
        ("user.deleted", "user_not_found"),
        ("user.read_all", "applied"),
        ("user.read_all", "duplicate"),
        ("room.read", "duplicate"),
        ("room.read", "invalid"),
        ("room.cleared", "applied"),
        ("room.cleared", "duplicate"),
        ("room.cleared", "message_not_found"),
        ("room.cleared", "room_not_found"),
        ("room.updated", "duplicate"),
        ("member.joined", "duplicate"),
        ("pref.updated", "duplicate"),
        ("user.updated", "invalid"),
    ] {
        let count = seen
            .get(&(expected.0.to_owned(), expected.1))
            .copied()
            .unwrap_or(0);
        assert!(count >= 3, "{expected:?} came {count} times: {seen:?}");
    }
}
