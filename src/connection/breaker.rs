//! The circuit breaker of one server. When the server no longer answers, one request at a time tries it, and all others are
//! refused at once. Otherwise they would all wait for the time-out, and fill the pod with waiting requests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::RedisResult;

use super::dialer::timed_out;

/// Closed: all requests pass. Open: one trial at a time passes.
pub(super) struct Breaker {
    /// How long a server may be silent, while a request waits, before the breaker opens.
    patience: Duration,
    open: AtomicBool,
    /// Whether a trial is under way.
    on_trial: AtomicBool,
    /// When the server answered last, in milliseconds since `start`.
    last_reply: AtomicU64,
    start: Instant,
}

impl Breaker {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            open: AtomicBool::new(false),
            on_trial: AtomicBool::new(false),
            last_reply: AtomicU64::new(0),
            start: Instant::now(),
        }
    }

    /// Admits a request. While the breaker is open the request becomes the trial, which lasts as long as the guard; if there
    /// is a trial already, the request is refused.
    pub(super) fn admit(&self) -> RedisResult<Option<Trial<'_>>> {
        if !self.open.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match self.on_trial.swap(true, Ordering::Acquire) {
            false => Ok(Some(Trial(self))),
            true => Err(timed_out("the server has not answered lately")),
        }
    }

    /// Takes note of the result of a request.
    pub(super) fn record<T>(&self, result: &RedisResult<T>) {
        match result {
            // Where others were answered meanwhile, one connection is silent or the server is slow. Neither opens the breaker.
            Err(error) if error.is_timeout() => {
                let silence = self
                    .now()
                    .saturating_sub(self.last_reply.load(Ordering::Relaxed));
                if Duration::from_millis(silence) >= self.patience {
                    self.open.store(true, Ordering::Relaxed);
                }
            }
            Err(error) if error.is_io_error() => {}
            // An error reply is a reply too.
            _ => {
                // Stored only when it differs: all workers read these, and a store takes the cache line from them.
                let now = self.now();
                if self.last_reply.load(Ordering::Relaxed) != now {
                    self.last_reply.store(now, Ordering::Relaxed);
                }
                if self.open.load(Ordering::Relaxed) {
                    self.open.store(false, Ordering::Relaxed);
                }
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The one request that an open breaker has let through.
pub(super) struct Trial<'a>(&'a Breaker);

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.0.on_trial.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent() -> RedisResult<()> {
        Err(timed_out("no answer in time"))
    }

    #[test]
    fn silence_opens_it_for_one_trial_at_a_time_and_a_reply_closes_it() {
        let breaker = Breaker::new(Duration::ZERO);
        assert!(breaker.admit().unwrap().is_none());
        breaker.record(&silent());
        let trial = breaker.admit().unwrap();
        assert!(trial.is_some());
        assert!(breaker.admit().err().unwrap().is_timeout());
        drop(trial);
        // A trial without a reply leaves it open.
        breaker.record(&silent());
        assert!(breaker.admit().unwrap().is_some());
        breaker.record(&Ok(()));
        assert!(breaker.admit().unwrap().is_none());
    }

    #[test]
    fn one_silent_connection_does_not_open_it() {
        let breaker = Breaker::new(Duration::from_secs(60));
        breaker.record(&Ok(()));
        breaker.record(&silent());
        assert!(breaker.admit().unwrap().is_none());
    }

    #[test]
    fn an_error_reply_closes_it_and_a_broken_connection_does_not() {
        let breaker = Breaker::new(Duration::ZERO);
        breaker.record(&silent());
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        breaker.record::<()>(&Err(broken.into()));
        assert!(breaker.admit().unwrap().is_some());
        let refused = redis::parse_redis_value(b"-READONLY no\r\n").unwrap();
        breaker.record(&refused.extract_error());
        assert!(breaker.admit().unwrap().is_none());
    }
}
