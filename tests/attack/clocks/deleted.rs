//! A user is deleted and named again, while the clock of the room that names it is not that of the user. The deletion has a
//! stamp of the user's node, what names the user has one of the room's: which came first must not be a question of clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::*;
use crate::support::clock::{HOUR, MS, SECOND, in_words};
use crate::support::servers::Sentinels;

/// Who and what a case is about: `u` is deleted, `w` is not, `room` is the one that names `u`, `other` is left by it.
#[derive(Clone)]
struct Cast {
    u: String,
    w: String,
    room: String,
    other: String,
}

impl Cast {
    fn named(stem: &str) -> Self {
        let name = |letter: &str| format!("{letter}-{stem}");
        Self {
            u: name("u"),
            w: name("w"),
            room: name("r"),
            other: name("o"),
        }
    }

    fn setup(&self, kind: &str) -> Vec<Value> {
        vec![
            room(&self.other, "group"),
            joined(&self.other, &[&self.u, &self.w]),
            message(&self.other, "before", &self.w),
            room(&self.room, kind),
            joined(&self.room, &[&self.w]),
            message(&self.room, "before", &self.w),
        ]
    }
}

/// What is asked, of which pod, one request after the other.
type Requests = Vec<(usize, Vec<Value>)>;

/// A name, the kind of the room, and what is asked.
fn cases(cast: &Cast) -> Vec<(&'static str, &'static str, Requests)> {
    let Cast { u, w, room, .. } = cast;
    let (del, join, ask) = (deleted(u), joined(room, &[u]), invited(room, u));
    let to_all = |id: &str| message(room, id, w);
    let own = |id: &str| message(room, id, u);
    let (one, two) = (to_all("one"), to_all("two"));
    let (del, join, ask) = (&del, &join, &ask);
    let each = |events: &[&Value]| -> Vec<Value> { events.iter().map(|e| (*e).clone()).collect() };
    vec![
        (
            "deleted and joined",
            "group",
            vec![(0, each(&[del, join])), (1, each(&[&one]))],
        ),
        (
            "deleted and invited",
            "group",
            vec![
                (0, each(&[del, ask])),
                (1, each(&[join])),
                (0, each(&[&one])),
            ],
        ),
        (
            "deleted and joined, and a message",
            "group",
            vec![(0, each(&[del, join, &one]))],
        ),
        (
            "deleted, invited and joined, a message after each",
            "group",
            vec![(0, each(&[del, ask, &one, join, &two]))],
        ),
        (
            "deleted and joined, and a message, in a supergroup",
            "supergroup",
            vec![(0, each(&[del, join, &one])), (1, each(&[&two]))],
        ),
        (
            "deleted, and joined by another pod",
            "group",
            vec![(0, each(&[del])), (1, each(&[join])), (0, each(&[&one]))],
        ),
        (
            "deleted, and joined by another pod with a message",
            "group",
            vec![(0, each(&[del])), (1, each(&[join, &one]))],
        ),
        (
            "joined and deleted, then joined by another pod",
            "group",
            vec![
                (0, each(&[join, &one, del])),
                (1, each(&[&two])),
                (1, each(&[join, &to_all("three")])),
            ],
        ),
        (
            "deleted, joined, left and joined",
            "group",
            vec![
                (0, each(&[del, join, &one, &left(room, u), join])),
                (1, each(&[&two])),
            ],
        ),
        (
            "deleted twice, joined twice",
            "group",
            vec![(0, each(&[del, join, &one, del, join, &two]))],
        ),
        // Mentioned again as a sender: known, and a member of nothing.
        (
            "deleted, then sends",
            "group",
            vec![(0, each(&[del, &own("own")])), (1, each(&[&one]))],
        ),
        (
            "deleted, then sends by another pod",
            "group",
            vec![(0, each(&[del])), (1, each(&[&own("own")]))],
        ),
        (
            "joined, sends and is deleted",
            "group",
            vec![(0, each(&[join, &own("own"), del])), (1, each(&[&one]))],
        ),
        (
            "sends and is deleted",
            "group",
            vec![(0, each(&[&own("own"), del])), (1, each(&[&one]))],
        ),
    ]
}

/// One case from its beginning, with pods that have seen nothing else; `before` runs before each request.
async fn play(
    story: &mut Story,
    cast: &Cast,
    case: (&str, &str, Requests),
    before: impl FnMut(usize),
) -> Result<(), String> {
    // What is there before is made by a pod that the others hear nothing from, and that the next case has as well.
    story.pods.truncate(1);
    story.apps.truncate(1);
    let made = story.send(0, cast.setup(case.1)).await;
    made.map_err(|why| format!("before {}: {why}", case.0))?;
    let maker = (story.pods.pop(), story.apps.pop());
    story.start_pods(2);
    let done = go_through(story, cast, case, before).await;
    story.pods.splice(0..0, maker.0);
    story.apps.splice(0..0, maker.1);
    done
}

/// The requests of one case.
async fn go_through(
    story: &mut Story,
    cast: &Cast,
    (what, _, requests): (&str, &str, Requests),
    mut before: impl FnMut(usize),
) -> Result<(), String> {
    story.users = vec![cast.u.clone(), cast.w.clone()];
    let told = async {
        for (index, (pod, events)) in requests.into_iter().enumerate() {
            before(index);
            story.tell(pod, events).await?;
        }
        story.alive()
    };
    told.await.map_err(|why| format!("{what}: {why}"))
}

/// Cases in a cluster where the room's node is so far ahead of the user's, or behind it.
async fn apart(cluster: &Cluster, story: &mut Story, ahead: i64, which: &[usize]) -> Vec<String> {
    let [user, other, room]: [usize; 3] = [0, 1, 2];
    cluster.clocks.iter().for_each(|clock| clock.set(0));
    cluster.clocks[room].set(ahead);
    let label = format!("the room's node {}", in_words(ahead));
    let mut failures = Vec::new();
    let count = cases(&Cast::named("")).len();
    for case in (0..count).filter(|case| which.contains(case)) {
        let stem = |letter: &str| format!("{letter}-{case}-{ahead}");
        let cast = Cast {
            u: name_on(cluster, user, 'u', &stem("u")),
            w: name_on(cluster, other, 'u', &stem("w")),
            room: name_on(cluster, room, 'r', &stem("r")),
            other: name_on(cluster, user, 'r', &stem("o")),
        };
        let case = cases(&cast).swap_remove(case);
        let done = play(story, &cast, case, |_| ()).await;
        failures.extend(done.err().map(|why| format!("{label}: {why}")));
    }
    failures
}

/// All cases at the first distance, some of each sort at the others.
async fn in_a_cluster(ahead: [i64; 4]) {
    let cluster = Cluster::start_by_clocks();
    let mut story = Story::start(&cluster.url(), 1);
    let mut failures = Vec::new();
    let all: Vec<usize> = (0..cases(&Cast::named("")).len()).collect();
    for (nth, ahead) in ahead.into_iter().enumerate() {
        let which: &[usize] = if nth == 0 { &all } else { &[2, 6, 7, 10] };
        failures.extend(apart(&cluster, &mut story, ahead, which).await);
    }
    none_failed(story, &failures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_user_begins_anew_where_the_rooms_node_is_behind() {
    in_a_cluster([-300 * MS, -5 * MS, -5 * SECOND, -HOUR]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_user_begins_anew_where_the_rooms_node_is_ahead() {
    in_a_cluster([300 * MS, 20 * MS, 5 * SECOND, HOUR]).await;
}

/// `unread import` has a pod's work to do, and no pod's restart to help it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_user_begins_anew_in_an_import() {
    let cluster = Cluster::start_by_clocks();
    let mut story = Story::start(&cluster.url(), 1);
    let mut failures = Vec::new();
    for ahead in [-20 * MS, -300 * MS, -HOUR, 5 * SECOND] {
        cluster.clocks.iter().for_each(|clock| clock.set(0));
        let stem = format!("{ahead}");
        let cast = Cast {
            room: name_on(&cluster, 2, 'r', &format!("r{stem}")),
            u: name_on(&cluster, 0, 'u', &format!("u{stem}")),
            ..Cast::named(&stem)
        };
        let done = async {
            story.users = vec![cast.u.clone(), cast.w.clone()];
            story.tell(0, cast.setup("group")).await?;
            cluster.clocks[2].set(ahead);
            story.import(vec![
                deleted(&cast.u),
                joined(&cast.room, &[&cast.u]),
                message(&cast.room, "one", &cast.w),
            ])?;
            story.start_pods(1);
            story.compare().await
        };
        let done: Result<(), String> = done.await;
        failures.extend(done.err().map(|why| format!("{}: {why}", in_words(ahead))));
    }
    none_failed(story, &failures);
}

/// Named by a message to the user alone, in whatever slot the room of the two is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_user_begins_anew_by_a_message_from_somebody() {
    let cluster = Cluster::start_by_clocks();
    let mut story = Story::start(&cluster.url(), 1);
    let mut failures = Vec::new();
    for ahead in [-300 * MS, -HOUR, HOUR] {
        cluster.clocks.iter().for_each(|clock| clock.set(0));
        let u = name_on(&cluster, 0, 'u', &format!("to{ahead}"));
        let senders: Vec<String> = (0..6).map(|n| format!("from{n}{ahead}")).collect();
        let to = |sender: &String, id: &str| json!({"type": "message.sent", "to": u, "sender": sender, "id": id});
        let done = async {
            let before = senders.iter().map(|sender| to(sender, "before")).collect();
            story.send(0, before).await?;
            cluster.clocks[1].set(ahead);
            cluster.clocks[2].set(ahead);
            story.start_pods(2);
            // The room of the two is the one that `u` has left, and each message brings `u` back into it.
            let mut events = vec![deleted(&u)];
            events.extend(senders.iter().map(|sender| to(sender, "one")));
            story.send(0, events).await?;
            story.alive()?;
            for app in &story.apps {
                let counts = app.unread(&u, true).await.ok();
                if counts["messages"]["direct"] != 6 {
                    return Err(format!("6 messages came, but {counts}"));
                }
            }
            Ok(())
        };
        let done: Result<(), String> = done.await;
        failures.extend(done.err().map(|why| format!("{}: {why}", in_words(ahead))));
        story.start_pods(1);
    }
    none_failed(story, &failures);
}

/// One Redis, whose clock steps back between the requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_user_begins_anew_while_the_clock_steps_back() {
    let (redis, clock) = one_redis();
    let mut story = Story::start(&redis.url(), 1);
    let mut failures = Vec::new();
    // Those with several requests.
    let plays: [(i64, &[usize]); 4] = [
        (300 * MS, &[0, 1, 4, 5, 6, 7, 8, 11]),
        (20 * MS, &[6, 11]),
        (5 * SECOND, &[6, 7]),
        (HOUR, &[6, 11]),
    ];
    for (back, which) in plays {
        for case in which {
            clock.set(0);
            let cast = Cast::named(&format!("{case}-{back}"));
            let case = cases(&cast).swap_remove(*case);
            let back_it_steps = |request| clock.step(if request == 0 { 0 } else { -back });
            let done = play(&mut story, &cast, case, back_it_steps).await;
            failures.extend(done.err().map(|why| format!("{}: {why}", in_words(-back))));
        }
    }
    none_failed(story, &failures);
}

/// A clock that steps back and forth all the time, until this is dropped.
struct Shaking {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Shaking {
    fn start(clock: &Clock) -> Self {
        let (clock, over) = (clock.clone(), Arc::new(AtomicBool::new(false)));
        let until = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            for back in [0, 300 * MS, 7 * MS, 2 * SECOND].iter().cycle() {
                if until.load(Ordering::Relaxed) {
                    return;
                }
                clock.set(-back);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let thread = Some(thread);
        Self { over, thread }
    }
}

impl Drop for Shaking {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// One Redis, whose clock steps back and forth in the middle of every request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_user_begins_anew_while_the_clock_steps_back_and_forth() {
    const ROUNDS: usize = 3;
    let (redis, clock) = one_redis();
    let mut story = Story::start(&redis.url(), 2);
    let mut failures = Vec::new();
    let shaking = Shaking::start(&clock);
    for round in 0..ROUNDS {
        for case in 0..cases(&Cast::named("")).len() {
            let cast = Cast::named(&format!("{case}-{round}"));
            let case = cases(&cast).swap_remove(case);
            let done = async {
                story.send(0, cast.setup(case.1)).await?;
                go_through(&mut story, &cast, case, |_| ()).await
            };
            let done: Check = done.await;
            if done.is_err() {
                story.start_pods(2);
            }
            failures.extend(done.err());
        }
    }
    drop(shaking);
    none_failed(story, &failures);
}

/// The master hands over to a replica whose clock is behind, with all that was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_user_begins_anew_over_a_failover() {
    let sentinels = Sentinels::start_by_clocks(60_000);
    let master = sentinels.master();
    sentinels.clocks[1 - master].set(-HOUR);
    let mut story = Story::start(&sentinels.url(), 2);
    let mut failures = Vec::new();
    // In one failover: what is asked first in each of these cases, and then the rest.
    let mut later = Vec::new();
    for case in [5, 6, 11] {
        let cast = Cast::named(&format!("{case}"));
        let (what, kind, mut requests) = cases(&cast).swap_remove(case);
        story.send(0, cast.setup(kind)).await.unwrap();
        for (pod, events) in requests.drain(..1) {
            story.send(pod, events).await.unwrap();
        }
        later.push((cast, (what, kind, requests)));
    }
    sentinels.hand_over();
    for (cast, case) in later {
        story.start_pods(2);
        let done = go_through(&mut story, &cast, case, |_| ()).await;
        failures.extend(done.err());
    }
    none_failed(story, &failures);
}
