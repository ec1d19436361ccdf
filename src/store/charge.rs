//! Charging calls to their app's limit. Calls that come to one thread at the same time are charged together: Redis then runs
//! one script for all of them instead of one for each, which would cost more than the reads that they are for.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Shared;
use redis::Value;
use thread_local::ThreadLocal;
use tokio::sync::oneshot;

use super::reply::Reply;
use crate::connection::Redis;
use crate::error::{Error, Result};
use crate::keys;
use crate::names::AppId;
use crate::quota::{Charge, Verdict};
use crate::scripts::{self, Call};

/// Of [`Group::calls`]: the charge is on its way, nobody can join any more.
const CLOSED: u32 = 1 << 31;

/// The calls that are waiting to be charged.
#[derive(Default)]
pub(super) struct Charges {
    open: ThreadLocal<RefCell<Vec<Arc<Group>>>>,
}

/// Calls of one app's endpoint that are charged together.
struct Group {
    app: AppId,
    endpoint: &'static str,
    /// How many, until the charge is made.
    calls: AtomicU32,
    outcome: Shared<oneshot::Receiver<Result<Granted>>>,
}

/// What came of a charge.
#[derive(Debug, Clone, Copy)]
struct Granted {
    /// How many calls are let through: those that came first.
    calls: u32,
    /// How many more could follow at once.
    remaining: u32,
    /// How long until one more would be let through.
    wait: Duration,
    /// How long until the whole burst is there again.
    reset: Duration,
}

impl Charges {
    /// Charges one call, together with those that come to this thread before the charge is sent.
    pub(super) async fn charge(&self, redis: &Redis, charge: &Charge) -> Result<Verdict> {
        let (group, place) = self.join(redis, charge);
        let lost = |_| Err(Error::Unavailable("the charge was given up".into()));
        let granted = group.outcome.clone().await.unwrap_or_else(lost)?;
        Ok(granted.verdict(place, charge.emission()))
    }

    /// A place in the open group of the charge's app and endpoint, the first being 0.
    fn join(&self, redis: &Redis, charge: &Charge) -> (Arc<Group>, u32) {
        let mut open = self.open.get_or_default().borrow_mut();
        let same = |group: &&Arc<Group>| {
            group.endpoint == charge.endpoint && group.app.as_str() == charge.app.as_str()
        };
        if let Some(group) = open.iter().find(same)
            && let Some(place) = group.enter()
        {
            return (Arc::clone(group), place);
        }
        open.retain(|group| group.calls.load(Ordering::Acquire) < CLOSED);
        let (sender, receiver) = oneshot::channel();
        let group = Arc::new(Group {
            app: charge.app.clone(),
            endpoint: charge.endpoint,
            calls: AtomicU32::new(1),
            outcome: receiver.shared(),
        });
        open.push(Arc::clone(&group));
        let (redis, charge, closing) = (redis.clone(), charge.clone(), Arc::clone(&group));
        // Runs when the thread is through with what it has in hand: calls that came in the same instant have then joined.
        tokio::spawn(async move {
            let answer = redis.call(&gcra(&charge, closing.close())).await;
            // Nobody may be left to hear it.
            let _ = sender.send(answer.and_then(Granted::read));
        });
        (group, 0)
    }
}

impl Group {
    fn enter(&self) -> Option<u32> {
        let one_more = |calls: u32| (calls < CLOSED - 1).then(|| calls + 1);
        self.calls
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .ok()
    }

    /// How many there are, and no more.
    fn close(&self) -> u32 {
        self.calls.fetch_or(CLOSED, Ordering::AcqRel)
    }
}

impl Granted {
    fn read(value: Value) -> Result<Self> {
        let mut reply = Reply::new(value)?;
        let mut count = || Ok::<_, Error>(u32::try_from(reply.number()?).unwrap_or(u32::MAX));
        let (calls, remaining) = (count()?, count()?);
        Ok(Self {
            calls,
            remaining,
            wait: Duration::from_micros(reply.number()?),
            reset: Duration::from_micros(reply.number()?),
        })
    }

    /// What that is to the call at `place`: as if those after it had not come yet.
    fn verdict(&self, place: u32, emission: Duration) -> Verdict {
        if place >= self.calls {
            return Verdict {
                allowed: false,
                remaining: 0,
                retry_after: self.wait,
                reset: self.reset,
            };
        }
        let later = self.calls - 1 - place;
        Verdict {
            allowed: true,
            remaining: self.remaining.saturating_add(later),
            retry_after: Duration::ZERO,
            reset: self.reset.saturating_sub(emission.saturating_mul(later)),
        }
    }
}

fn gcra(charge: &Charge, calls: u32) -> Call {
    scripts::GCRA
        .call(&[keys::limit(&charge.app, charge.endpoint)])
        .arg(charge.emission().as_micros() as u64)
        .arg(charge.burst)
        .arg(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_calls_charged_together_the_first_are_let_through() {
        let granted = Granted {
            calls: 2,
            remaining: 0,
            wait: Duration::from_micros(7),
            reset: Duration::from_micros(100),
        };
        let emission = Duration::from_micros(10);
        let verdicts: Vec<Verdict> = (0..3).map(|n| granted.verdict(n, emission)).collect();
        let shown: Vec<_> = verdicts
            .iter()
            .map(|v| {
                (
                    v.allowed,
                    v.remaining,
                    v.retry_after.as_micros(),
                    v.reset.as_micros(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [(true, 1, 0, 90), (true, 0, 0, 100), (false, 0, 7, 100)]
        );
    }

    #[test]
    fn nobody_joins_a_group_whose_charge_is_on_its_way() {
        let (_sender, receiver) = oneshot::channel();
        let group = Group {
            app: AppId::parse("a").unwrap(),
            endpoint: "x",
            calls: AtomicU32::new(1),
            outcome: receiver.shared(),
        };
        assert_eq!((group.enter(), group.enter()), (Some(1), Some(2)));
        assert_eq!(group.close(), 3);
        assert_eq!(group.enter(), None);
    }
}
