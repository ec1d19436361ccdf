//! Charging calls to their app's limit. Calls that come to one thread at the same time are charged together: Redis then runs
//! one script for all of them instead of one for each, which would cost more than the reads that they are for.
//!
//! Near the limit every call waits for what its charge comes to. Far from it a call needs not wait: a thread lets a few
//! through on credit, and pays for them some milliseconds later. What it may owe is so small a part of what was left when it
//! last looked that hundreds of threads together can't get over the limit by it; and should they, what they owe is charged
//! all the same, so that the app gets as much less later. A limit of some hundred calls per second leaves no room for credit.

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

/// Of [`Group::calls`]: the charge is on its way, nobody can join any more.
const CLOSED: u32 = 1 << 31;

/// Of what was left a thread may owe one part in so many.
const SHARE: u32 = 256;
/// Calls that a thread may owe at most.
const CREDIT: u32 = 1_024;
/// Between two payments of a thread. Each of them is a script, which costs Redis more than a read.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two reports of what a user who calls often has used.
const REPORT: Duration = Duration::from_millis(20);
/// How long it is believed what was left.
const FRESH: Duration = Duration::from_millis(50);

/// The calls that are waiting to be charged.
#[derive(Default)]
struct Charges {
    open: ThreadLocal<RefCell<Vec<Arc<Group>>>>,
    accounts: ThreadLocal<RefCell<Accounts>>,
}

/// What one thread knows of limits, each at its place.
type Accounts = Vec<Arc<Mutex<Account>>>;

/// What one thread knows of one limit, and owes it.
#[derive(Default)]
struct Account {
    /// What the last charge left, and when that was.
    last: Option<(Granted, Instant)>,
    /// Calls let through that have not been charged.
    owed: u32,
    /// Whether a charge for such calls is on its way.
    paying: bool,
}

/// Calls of one app's endpoint that are charged together.
struct Group {
    /// The limit's place.
    limit: usize,
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
    /// Lets a call through that is charged later, if so much is left that it does not matter.
    fn on_credit(&self, redis: &Redis, charge: &Charge) -> Option<Verdict> {
        let account = self.account(charge);
        let mut open = locked(&account);
        let verdict = open.owe(Instant::now(), charge.emission())?;
        if !open.paying {
            open.paying = true;
            tokio::spawn(pay(redis.clone(), charge.clone(), Arc::clone(&account)));
        }
        Some(verdict)
    }

    /// Charges one call, together with those that come to this thread before the charge is sent.
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

    /// A place in the open group of the charge's app and endpoint, the first being 0.
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
        // Runs when the thread is through with what it has in hand: calls that came in the same instant have then joined.
        tokio::spawn(async move {
            let granted = ask(&redis, &charge, closing.close(), false).await;
            locked(&account).learn(&granted);
            // Nobody may be left to hear it.
            let _ = sender.send(granted);
        });
        (group, 0)
    }
}

/// Charges what is owed, until nothing is.
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
        let granted = ask(&redis, &charge, owed, true).await;
        // Without an answer nothing is known to be left, so that calls wait for their charges again.
        locked(&account).learn(&granted);
    }
}

async fn ask(redis: &Redis, charge: &Charge, calls: u32, owed: bool) -> Result<Granted> {
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
pub struct Limits {
    redis: Redis,
    charges: Arc<Charges>,
}

impl Limits {
    pub(crate) fn new(redis: Redis) -> Self {
        Self {
            redis,
            charges: Arc::default(),
        }
    }

    /// Lets a call through that is charged later, if so much is left that it does not matter.
    pub(crate) fn on_credit(&self, charge: &Charge) -> Option<Verdict> {
        self.charges.on_credit(&self.redis, charge)
    }

    /// Charges one call, together with those that come to this thread before the charge is sent.
    pub(crate) async fn charge(&self, charge: &Charge) -> Result<Verdict> {
        self.charges.charge(&self.redis, charge).await
    }

    /// Tells Redis of a user's calls, beside them, for as long as more of them come, so that the pods together hold the user
    /// to its share. No call waits for it. What a pod lets through between two reports is charged all the same: the user
    /// then waits longer.
    pub fn report(&self, tab: Arc<Tab>) {
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
        let told = gcra(&redis, key, share.emission(), share.burst, calls, true).await;
        // Without an answer the user has this pod's share.
        tab.learn(told.map_or(Duration::ZERO, |granted| granted.wait));
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

    /// One call more is owed, if there is credit for it.
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
