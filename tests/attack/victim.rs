//! Somebody who asks a pod now and then while others attack it, and how long the answers take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::peer::{DIALECTS, answer, connect};
use crate::support::{AppKeys, Pod};

/// The time within which so many of a hundred answers came.
pub(crate) fn percentile(times: &mut [Duration], hundredths: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * hundredths / 100).min(times.len() - 1)]
}

/// Asks now and then for so long, every second time on a new connection; answers how long each answer took. It has a thread of
/// its own: on the others it would wait for the crowd and not for the pod.
pub(crate) fn victim(pod: &Arc<Pod>, keys: &Arc<AppKeys>, long: Duration) -> Vec<Duration> {
    let (pod, keys) = (Arc::clone(pod), Arc::clone(keys));
    let asking = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(ask(&pod, &keys, long))
    });
    tokio::task::block_in_place(|| asking.join().unwrap())
}

async fn ask(pod: &Pod, keys: &AppKeys, long: Duration) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut kept: Option<TcpStream> = None;
    let begun = Instant::now();
    for n in 0.. {
        if begun.elapsed() > long {
            break;
        }
        let dialect = DIALECTS[n % DIALECTS.len()];
        let request = dialect.request(keys);
        let start = Instant::now();
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => connect(pod).await,
        };
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = answer(&mut stream, false).await;
        times.push(start.elapsed());
        dialect.assert_good(&answer);
        if n % 2 == 0 {
            kept = Some(stream);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    times
}
