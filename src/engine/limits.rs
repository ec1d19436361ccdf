//! Charges calls to the limits of their apps. Calls that reach one thread at the same time are charged together, so that Redis
//! runs one script for all of them. One script for each call would cost Redis more than the reads that the calls are for.
//!
//! Near the limit every call waits for its charge. Far from the limit a call need not wait: a thread lets a few calls through on
//! credit, and charges them some milliseconds later. A thread may owe only a small part of what was left at its last charge, so
//! even hundreds of threads together don't exceed the limit. If they do, their calls are charged all the same, and the app has
//! that many calls fewer later. A limit of a few hundred calls per second leaves no room for credit.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::Shared;
use redis::Value;
use thread_local::ThreadLocal;
use tokio::sync::oneshot;

use crate::connection::Redis;
use crate::engine::reply::Reply;
use crate::error::{Error, Result};
use crate::quota::{Charge, Tab, Verdict};
use crate::{keys, scripts};

/// A bit of [`Group::calls`]: the charge is under way, so no call can join any more.
const CLOSED: u32 = 1 << 31;

/// For each `SHARE` calls that were left at its last charge, a thread may owe one call.
const SHARE: u32 = 256;
/// The most calls that a thread may owe.
const CREDIT: u32 = 1_024;
/// Time between two charges of calls on credit. Each charge is a script, which costs Redis more than a read.
const PAUSE: Duration = Duration::from_millis(10);
/// Time between two reports of one user's calls.
const REPORT: Duration = Duration::from_millis(20);
/// How long a thread relies on what its last charge left.
const FRESH: Duration = Duration::from_millis(50);

/// Calls that are to be charged, and what each thread knows of the limits.
#[derive(Default)]
struct Charges {
    open: ThreadLocal<RefCell<Vec<Arc<Group>>>>,
    accounts: ThreadLocal<RefCell<Accounts>>,
}

/// What one thread knows of limits, by the limit's place.
type Accounts = Vec<Arc<Mutex<Account>>>;

/// What one thread knows of one limit, and how much it owes.
#[derive(Default)]
struct Account {
    /// The last charge, and when it was made.
    last: Option<(Granted, Instant)>,
    /// Calls that were let through and not charged yet.
    owed: u32,
    /// Whether a task is under way that charges such calls.
    paying: bool,
}

/// Calls of one app's endpoint that are charged together.
struct Group {
    /// The place of the limit.
    limit: usize,
    /// The number of calls, and whether the group is closed.
    calls: AtomicU32,
    outcome: Shared<oneshot::Receiver<Result<Granted>>>,
}

/// What Redis answered to a charge.
#[derive(Debug, Clone, Copy)]
struct Granted {
    /// How many calls are let through: the first ones of the group.
    calls: u32,
    /// How many more calls could follow at once.
    remaining: u32,
    /// How long until one more call would be let through.
    wait: Duration,
    /// How long until the whole burst is available again.
    reset: Duration,
}

impl Charges {
    /// Lets a call through before it is charged, if there is credit for it.
    fn on_credit(&self, redis: &Redis, charge: &Charge) -> Option<Verdict> {
        let account = self.account(charge);
        let mut known = locked(&account);
        let verdict = known.owe(Instant::now(), charge.emission())?;
        if !known.paying {
            known.paying = true;
            tokio::spawn(pay(redis.clone(), charge.clone(), Arc::clone(&account)));
        }
        Some(verdict)
    }

    /// Charges one call, together with the calls that reach this thread before the charge is sent.
    async fn charge(&self, redis: &Redis, charge: &Charge) -> Result<Verdict> {
        let (group, place) = self.join(redis, charge, self.account(charge));
        let lost = |_| Err(Error::Unavailable("the charge was given up".into()));
        let granted = group.outcome.clone().await.unwrap_or_else(lost)?;
        Ok(granted.verdict(place, charge.emission()))
    }

    fn account(&self, charge: &Charge) -> Arc<Mutex<Account>> {
        let mut accounts = self.accounts.get_or_default().borrow_mut();
        if accounts.len() <= charge.place {
            accounts.resize_with(charge.place + 1, Arc::default);
        }
        accounts
            .get(charge.place)
            .map_or_else(Arc::default, Arc::clone)
    }

    /// Joins the open group of the charge's limit, or opens one. Returns the group and the call's place in it, from 0.
    fn join(
        &self,
        redis: &Redis,
        charge: &Charge,
        account: Arc<Mutex<Account>>,
    ) -> (Arc<Group>, u32) {
        let mut open = self.open.get_or_default().borrow_mut();
        let same = |group: &&Arc<Group>| group.limit == charge.place;
        if let Some(group) = open.iter().find(same)
            && let Some(place) = group.enter()
        {
            return (Arc::clone(group), place);
        }
        open.retain(|group| group.calls.load(Ordering::Acquire) < CLOSED);
        let (sender, receiver) = oneshot::channel();
        let group = Arc::new(Group {
            limit: charge.place,
            calls: AtomicU32::new(1),
            outcome: receiver.shared(),
        });
        open.push(Arc::clone(&group));
        let (redis, charge, closing) = (redis.clone(), charge.clone(), Arc::clone(&group));
        // This task runs when the thread has finished its current tasks. Calls that arrived at the same moment have joined by
        // then.
        tokio::spawn(async move {
            let granted = charge_all(&redis, &charge, closing.close(), false).await;
            locked(&account).learn(&granted);
            // All callers may have gone away.
            let _ = sender.send(granted);
        });
        (group, 0)
    }
}

/// Charges what the thread owes, until it owes nothing.
async fn pay(redis: Redis, charge: Charge, account: Arc<Mutex<Account>>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let owed = {
            let mut account = locked(&account);
            account.paying = account.owed > 0;
            std::mem::take(&mut account.owed)
        };
        if owed == 0 {
            return;
        }
        let granted = charge_all(&redis, &charge, owed, true).await;
        // After a failure there is no credit, so calls wait for their charges again.
        locked(&account).learn(&granted);
    }
}

async fn charge_all(redis: &Redis, charge: &Charge, calls: u32, owed: bool) -> Result<Granted> {
    let key = keys::limit(&charge.app, charge.endpoint);
    gcra(redis, key, charge.emission(), charge.burst, calls, owed).await
}

async fn gcra(
    redis: &Redis,
    key: String,
    emission: Duration,
    burst: u32,
    calls: u32,
    owed: bool,
) -> Result<Granted> {
    let call = scripts::GCRA
        .call(&[key])
        .arg(emission.as_micros() as u64)
        .arg(burst)
        .arg(calls)
        .arg(u8::from(owed));
    Granted::read(redis.call(&call).await?)
}

/// The limits of the vendor endpoints, as all pods together keep them.
#[derive(Clone)]
pub(crate) struct Limits {
    redis: Redis,
    charges: Arc<Charges>,
}

impl Limits {
    pub(super) fn new(redis: Redis) -> Self {
        Self {
            redis,
            charges: Arc::default(),
        }
    }

    /// Lets a call through before it is charged, if there is credit for it.
    pub(super) fn on_credit(&self, charge: &Charge) -> Option<Verdict> {
        self.charges.on_credit(&self.redis, charge)
    }

    /// Charges one call, together with the calls that reach this thread before the charge is sent.
    pub(super) async fn charge(&self, charge: &Charge) -> Result<Verdict> {
        self.charges.charge(&self.redis, charge).await
    }

    /// Reports a user's calls to Redis in the background, for as long as the user goes on calling, so that all pods together hold
    /// the user to its share. No call waits for the report. Calls that a pod let through between two reports are charged all the
    /// same: the user then waits longer.
    pub(crate) fn report(&self, tab: Arc<Tab>) {
        tokio::spawn(report(self.redis.clone(), tab));
    }
}

async fn report(redis: Redis, tab: Arc<Tab>) {
    loop {
        tokio::time::sleep(REPORT).await;
        let Some(calls) = tab.take() else {
            return;
        };
        let share = tab.share();
        let key = keys::user_limit(&share.app, share.endpoint, tab.user());
        let granted = gcra(&redis, key, share.emission(), share.burst, calls, true).await;
        // After a failure only this pod limits the user.
        tab.learn(granted.map_or(Duration::ZERO, |granted| granted.wait));
    }
}

fn locked(account: &Mutex<Account>) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Account {
    fn learn(&mut self, granted: &Result<Granted>) {
        self.last = granted
            .as_ref()
            .ok()
            .map(|granted| (*granted, Instant::now()));
    }

    /// Owes one more call, if there is credit for it.
    fn owe(&mut self, now: Instant, emission: Duration) -> Option<Verdict> {
        let (left, at) = self.last.as_ref()?;
        if now.saturating_duration_since(*at) > FRESH
            || self.owed >= (left.remaining / SHARE).min(CREDIT)
        {
            return None;
        }
        self.owed += 1;
        Some(Verdict {
            allowed: true,
            remaining: left.remaining.saturating_sub(self.owed),
            retry_after: Duration::ZERO,
            reset: left
                .reset
                .saturating_add(emission.saturating_mul(self.owed)),
        })
    }
}

impl Group {
    fn enter(&self) -> Option<u32> {
        let one_more = |calls: u32| (calls < CLOSED - 1).then(|| calls + 1);
        self.calls
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .ok()
    }

    /// Closes the group, and returns the number of its calls.
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

    /// The verdict for the call at `place`, as if the calls after it had not arrived yet.
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
    fn a_thread_owes_a_small_part_of_what_was_left_lately() {
        let emission = Duration::from_micros(10);
        let now = Instant::now();
        let account = |remaining: u32| Account {
            last: Some((
                Granted {
                    calls: 1,
                    remaining,
                    wait: Duration::ZERO,
                    reset: Duration::from_micros(100),
                },
                now,
            )),
            ..Account::default()
        };
        let mut some = account(3 * SHARE);
        let owed = some.owe(now, emission).unwrap();
        assert_eq!(
            (owed.remaining, owed.reset.as_micros()),
            (3 * SHARE - 1, 110)
        );
        assert!(some.owe(now, emission).is_some() && some.owe(now, emission).is_some());
        assert_eq!(some.owe(now, emission), None);
        assert_eq!(some.owed, 3);
        // A limit of 200 per second.
        assert_eq!(account(200).owe(now, emission), None);
        assert_eq!(account(3 * SHARE).owe(now + 2 * FRESH, emission), None);
        let mut unknown = account(3 * SHARE);
        unknown.learn(&Err(Error::Overloaded("x")));
        assert_eq!(unknown.owe(now, emission), None);
    }

    #[test]
    fn nobody_joins_a_group_whose_charge_is_on_its_way() {
        let (_sender, receiver) = oneshot::channel();
        let group = Group {
            limit: 0,
            calls: AtomicU32::new(1),
            outcome: receiver.shared(),
        };
        assert_eq!((group.enter(), group.enter()), (Some(1), Some(2)));
        assert_eq!(group.close(), 3);
        assert_eq!(group.enter(), None);
    }
}
