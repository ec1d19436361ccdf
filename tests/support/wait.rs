//! Waiting for conditions. No test sleeps and then hopes that something has happened: a sleep is the pace of a caller, or the
//! length of a fault.

use std::time::{Duration, Instant};

/// How long a test waits before it fails. Generous: a loaded machine must not fail a test that would pass on an idle one.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);

/// Blocks until `done` answers something, or panics after [`PATIENCE`].
pub fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "gave up waiting: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Like [`until`], for a condition that has to ask over HTTP; reports the last reason on giving up.
pub async fn eventually<F: Future<Output = Result<(), String>>>(
    what: &str,
    mut check: impl FnMut() -> F,
) {
    let start = Instant::now();
    loop {
        let Err(reason) = check().await else { return };
        assert!(
            start.elapsed() < PATIENCE,
            "gave up waiting: {what}\n{reason}"
        );
        tokio::time::sleep(LOOK * 5).await;
    }
}
