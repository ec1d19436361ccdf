//! Pods are killed while their connections misbehave.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::proxy::{Proxy, Treatment};
use crate::storm::{config, pod, set_up, storm_of_everything};
use crate::support::{App, RedisServer, scripts};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_pods_die_and_their_connections_misbehave() {
    const KILLS: usize = 12;
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let config = config("");
    let mut pods = [pod(&config, &proxy), pod(&config, &proxy)];
    let app = App::new(&config.apps[0], &pods[0].base);
    set_up(&app).await;
    let bases = pods.iter().map(|pod| pod.base.clone()).collect();
    let (after, (_pods, proxy)) = storm_of_everything(&app, bases, 30, move |seen| {
        let mut rng = StdRng::seed_from_u64(30);
        for kill in 0..KILLS {
            proxy.random(kill as u64);
            seen.acknowledged_more(rng.random_range(50..150));
            let victim = rng.random_range(0..2);
            pods[victim].kill9();
            // The next one starts into the same trouble.
            pods[victim] = pod(&config, &proxy);
            seen.addresses.lock().unwrap()[victim].clone_from(&pods[victim].base);
        }
        proxy.heal();
        (pods, proxy)
    })
    .await;
    after.nothing_lost().await;
    after.report(
        "pod `SIGKILL`",
        &format!(
            "{KILLS} times, one of two pods, with random connection faults: {}",
            proxy.done()
        ),
        0,
    );
}

/// A pod gives Redis its scripts one after the other. When it began again with the first one after each failure, a pod whose link lost one
/// request in sixteen took half a minute to be ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_whose_start_goes_wrong_goes_on_with_the_scripts_that_redis_lacks() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    // More than a pod asks before that, and fewer than there are scripts.
    proxy.once(20, Treatment::ResetReply(0));
    let _pod = pod(&config(""), &proxy);
    assert!(!proxy.waiting(), "nothing went wrong");
    let (loaded, scripts) = (redis.calls()["script|load"], scripts::all().len() as u64);
    // The one whose answer was lost is given once more.
    assert!(
        (scripts..=scripts + 1).contains(&loaded),
        "{loaded} were given, there are {scripts}"
    );
}
