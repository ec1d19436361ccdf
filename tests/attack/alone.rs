//! What is measured in time, so that nothing else may run meanwhile: `make test-attack` runs this module by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::peer::{Costs, complaints, metric_until, narrow, raise_files, stuff};
use crate::pipelining::{UNKNOWN, config, repeated, stuffed, warm};
use crate::support::RedisServer;
use crate::victim::{percentile, victim};

/// Where an answer takes less than that at most times, the grain of the machine's own scheduler is all that is measured.
const GRAIN: Duration = Duration::from_millis(5);

/// Answers that nobody reads, on one connection and on two thousand: somebody else's slowest answers of a hundred take at most
/// twice as long as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_else_notices_little_of_answers_that_nobody_reads() {
    const LONG: Duration = Duration::from_secs(1);
    const WINDOWS: usize = 4;
    const TWO_THOUSAND: u64 = 2_000;
    raise_files();
    let (redis, mut config) = (RedisServer::start(), config());
    // Nobody is cut off while it is measured.
    config.server += "write_timeout_ms = 60000\n";
    let pod = Arc::new(warm(&config, &redis).await);
    let keys = Arc::new(config.apps[0].clone());
    // In the quietest of some windows: what else goes on in the machine only adds to it.
    let p99 = |what: &str| {
        let windows = (0..WINDOWS).map(|_| {
            let mut times = victim(&pod, &keys, LONG);
            let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
            println!("{what}: p50 {p50:?}, p99 {p99:?} of {}", times.len());
            p99
        });
        windows.min().unwrap()
    };
    let quiet = p99("quiet");
    let bound = 2 * quiet.max(GRAIN);

    // One, and ten more each second.
    let stop = Arc::new(AtomicBool::new(false));
    let one = {
        let (pod, stop) = (Arc::clone(&pod), Arc::clone(&stop));
        tokio::spawn(async move {
            let bytes = repeated(UNKNOWN, 600_000);
            let mut held = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let mut stream = narrow(&pod).await.unwrap();
                stuff(&mut stream, &bytes).await;
                held.push(stream);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    let meanwhile = p99("ten more each second");
    stop.store(true, Ordering::Relaxed);
    one.await.unwrap();
    assert!(meanwhile < bound, "{meanwhile:?}, quiet {quiet:?}");

    // Two thousand. What they get until nothing more is taken of it takes the pod, their own program and everybody else here a
    // while.
    let streams = stuffed(&pod, TWO_THOUSAND).await;
    p99("two thousand come");
    let costs = Costs::of(&pod);
    costs.quiet("two thousand that read nothing").await;
    let meanwhile = p99("two thousand are there");
    assert!(meanwhile < bound, "{meanwhile:?}, quiet {quiet:?}");
    let open = pod.metric::<u64>("unread_connections");
    assert!(open >= Some(TWO_THOUSAND), "{open:?}");
    drop(streams);
    metric_until(&pod, "unread_connections", |open| open == 0).await;
    assert_eq!(complaints(&pod), [""; 0]);
}
