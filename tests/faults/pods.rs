//! Pods are killed while their connections misbehave.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::proxy::Proxy;
use crate::storm::{config, pod, set_up, storm_of_everything};
use crate::support::{App, RedisServer};

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
