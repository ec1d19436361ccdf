//! Shares the limited resources of a pod, such as memory for bodies, among the apps.
//!
//! An app may take at most as much as it leaves free for the others: one app alone takes at most half, two apps a third each, and
//! so on (the *dynamic thresholds* of Choudhury and Hahne, by which switches share a buffer). So an app that comes last always
//! finds something, however much the others have taken. If only one app is configured, it may take everything.
//!
//! A claim that does not fit waits for a while in a queue. The queue has a bounded length, which the apps share in the same way.
//! Among the waiting claims of one app, a smaller claim is served before a larger one, and takes its place if the queue is full.
//! Equal claims stay in order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// A shared resource. All clones stand for the same one.
#[derive(Clone)]
pub(crate) struct Shares(Arc<Inner>);

struct Inner {
    /// The size of the resource.
    all: usize,
    /// How many claims may wait.
    longest_queue: usize,
    ledger: Mutex<Ledger>,
}

/// Who has taken how much, and who waits.
#[derive(Default)]
struct Ledger {
    taken: usize,
    apps: Vec<AppUse>,
    queue: VecDeque<Waiter>,
}

/// One app's part of the ledger.
#[derive(Default, Clone, Copy)]
struct AppUse {
    /// How much its shares amount to.
    taken: usize,
    /// How many of its claims are in the queue.
    waiting: usize,
}

/// A claim in the queue.
struct Waiter {
    claim: Claim,
    /// Closed when its caller no longer waits.
    reply: oneshot::Sender<Share>,
}

/// What a caller asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    /// The app's place in the configuration. An app that is not configured counts as the last one.
    pub app: usize,
    /// How much.
    pub amount: usize,
    /// Whether the claim has to leave a quarter of the whole free for others.
    pub large: bool,
}

/// What came of a claim that did not fit at first.
enum SecondTry {
    /// It fits now, because others have given back meanwhile.
    Taken(Share),
    /// It waits in the queue. The receiver gets the share.
    Queued(oneshot::Receiver<Share>),
}

/// What a caller has taken. Dropping it gives it back.
pub(crate) struct Share {
    of: Arc<Inner>,
    claim: Claim,
}

impl Shares {
    /// A resource of the size `all` for `apps` apps, with a queue of at most `longest_queue` claims.
    pub(crate) fn new(all: usize, apps: usize, longest_queue: usize) -> Self {
        Self(Arc::new(Inner {
            all,
            longest_queue,
            ledger: Mutex::new(Ledger {
                apps: vec![AppUse::default(); apps.max(1)],
                ..Ledger::default()
            }),
        }))
    }

    /// Takes a share now, or returns `None`.
    pub(crate) fn try_take(&self, claim: Claim) -> Option<Share> {
        let mut ledger = self.0.ledger();
        let claim = ledger.of_known_app(claim);
        if ledger.app(claim.app).waiting > 0 {
            ledger.forget_those_who_left();
        }
        self.0
            .take_in_turn(&mut ledger, claim)
            .then(|| self.0.share(claim))
    }

    /// Takes a share now, or waits for it up to `patience`. `None`: the queue has no place, or the wait was too short.
    pub(crate) async fn take(&self, claim: Claim, patience: Duration) -> Option<Share> {
        if let Some(share) = self.try_take(claim) {
            return Some(share);
        }
        match self.enqueue(claim)? {
            SecondTry::Taken(share) => Some(share),
            SecondTry::Queued(share) => tokio::time::timeout(patience, share).await.ok()?.ok(),
        }
    }

    /// Whether a claim would now get its share or a place in the queue.
    pub(crate) fn has_room(&self, claim: Claim) -> bool {
        let mut ledger = self.0.ledger();
        let claim = ledger.of_known_app(claim);
        if !ledger.queue.is_empty() {
            ledger.forget_those_who_left();
        }
        self.0.fits(&ledger, claim) || self.0.may_wait(&ledger, claim.app)
    }

    /// Puts a claim into the queue, unless it fits by now. `None`: the queue has no place for it.
    fn enqueue(&self, claim: Claim) -> Option<SecondTry> {
        let mut ledger = self.0.ledger();
        let claim = ledger.of_known_app(claim);
        ledger.forget_those_who_left();
        // Others may have given back since the first attempt. They saw no waiting claim then, so nobody would wake this one.
        if self.0.take_in_turn(&mut ledger, claim) {
            return Some(SecondTry::Taken(self.0.share(claim)));
        }
        if !self.0.may_wait(&ledger, claim.app) {
            ledger.drop_a_larger(claim)?;
        }
        let (reply, share) = oneshot::channel();
        ledger.queue.push_back(Waiter { claim, reply });
        if let Some(app) = ledger.apps.get_mut(claim.app) {
            app.waiting += 1;
        }
        Some(SecondTry::Queued(share))
    }
}

impl Ledger {
    /// The claim with the place of an app that the ledger has.
    fn of_known_app(&self, claim: Claim) -> Claim {
        Claim {
            app: claim.app.min(self.apps.len().saturating_sub(1)),
            ..claim
        }
    }

    fn app(&self, app: usize) -> AppUse {
        self.apps.get(app).copied().unwrap_or_default()
    }

    /// Makes room in the queue for a claim: drops the largest waiting claim of the same app (of equal ones the last), if that is
    /// larger than this claim. `None`: there is no larger one.
    fn drop_a_larger(&mut self, claim: Claim) -> Option<()> {
        let waiting = self.queue.iter().enumerate();
        let (place, largest) = waiting
            .filter(|(_, waiter)| waiter.claim.app == claim.app)
            .max_by_key(|(_, waiter)| waiter.claim.amount)?;
        if largest.claim.amount <= claim.amount {
            return None;
        }
        self.queue.remove(place)?;
        let app = self.apps.get_mut(claim.app)?;
        app.waiting = app.waiting.saturating_sub(1);
        Some(())
    }

    /// Removes claims from the queue whose callers no longer wait.
    fn forget_those_who_left(&mut self) {
        let Self { queue, apps, .. } = self;
        queue.retain(|waiter| {
            let stays = !waiter.reply.is_closed();
            if let (false, Some(app)) = (stays, apps.get_mut(waiter.claim.app)) {
                app.waiting = app.waiting.saturating_sub(1);
            }
            stays
        });
    }
}

impl Inner {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn share(self: &Arc<Self>, claim: Claim) -> Share {
        Share {
            of: Arc::clone(self),
            claim,
        }
    }

    /// Whether the claim may be taken now. The app must then leave as much free as it has itself, unless it is the only app.
    fn fits(&self, ledger: &Ledger, claim: Claim) -> bool {
        let mut free = self.all.saturating_sub(ledger.taken);
        if claim.large {
            free = free.saturating_sub(self.all / 4);
        }
        let own = match ledger.apps.len() {
            1 => 0,
            _ => ledger.app(claim.app).taken,
        };
        own.saturating_add(claim.amount) <= free
    }

    /// Takes the claim if it fits, and tells whether it did.
    fn take(&self, ledger: &mut Ledger, claim: Claim) -> bool {
        let fits = self.fits(ledger, claim);
        if let (true, Some(app)) = (fits, ledger.apps.get_mut(claim.app)) {
            app.taken += claim.amount;
            ledger.taken += claim.amount;
        }
        fits
    }

    /// Takes the claim, unless a claim of the same app that is not larger has been waiting longer.
    fn take_in_turn(&self, ledger: &mut Ledger, claim: Claim) -> bool {
        let comes_first =
            |waiter: &Waiter| waiter.claim.app == claim.app && waiter.claim.amount <= claim.amount;
        let is_next = ledger.app(claim.app).waiting == 0 || !ledger.queue.iter().any(comes_first);
        is_next && self.take(ledger, claim)
    }

    /// Whether one more claim of the app may wait: the app must leave more places in the queue than it has.
    fn may_wait(&self, ledger: &Ledger, app: usize) -> bool {
        let free = self.longest_queue.saturating_sub(ledger.queue.len());
        let own = match ledger.apps.len() {
            1 => 0,
            _ => ledger.app(app).waiting,
        };
        own < free
    }

    /// Gives an amount back, and hands out shares to waiting claims that fit now.
    fn give_back(self: &Arc<Self>, app: usize, amount: usize) {
        let mut back = vec![(app, amount)];
        while let Some((app, amount)) = back.pop() {
            for (reply, share) in self.pass_on(app, amount) {
                // The lock is not held here, because a share whose receiver is gone has to be given back too.
                if let Err(share) = reply.send(share) {
                    back.push(share.into_parts());
                }
            }
        }
    }

    /// Enters in the ledger what an app gives back, and takes the waiting claims that fit now out of the queue.
    fn pass_on(
        self: &Arc<Self>,
        app: usize,
        amount: usize,
    ) -> Vec<(oneshot::Sender<Share>, Share)> {
        let mut ledger = self.ledger();
        ledger.taken = ledger.taken.saturating_sub(amount);
        if let Some(app) = ledger.apps.get_mut(app) {
            app.taken = app.taken.saturating_sub(amount);
        }
        if ledger.queue.is_empty() {
            return Vec::new();
        }
        ledger.forget_those_who_left();
        // Each app keeps its places in the queue, and has its smallest claims in the first of them.
        let mut waiting: Vec<Waiter> = std::mem::take(&mut ledger.queue).into();
        let places: Vec<usize> = waiting.iter().map(|waiter| waiter.claim.app).collect();
        waiting.sort_by_key(|waiter| waiter.claim.amount);
        let mut by_app: Vec<VecDeque<Waiter>> = Vec::new();
        by_app.resize_with(ledger.apps.len(), VecDeque::new);
        for waiter in waiting {
            if let Some(of_app) = by_app.get_mut(waiter.claim.app) {
                of_app.push_back(waiter);
            }
        }
        let mut given = Vec::new();
        let mut held_up = vec![false; ledger.apps.len()];
        for app in places {
            let waiter = by_app.get_mut(app).and_then(VecDeque::pop_front);
            let (Some(waiter), Some(held_up)) = (waiter, held_up.get_mut(app)) else {
                continue;
            };
            // A claim of the app that is not larger does not fit.
            if *held_up || !self.take(&mut ledger, waiter.claim) {
                *held_up = true;
                ledger.queue.push_back(waiter);
                continue;
            }
            if let Some(app) = ledger.apps.get_mut(app) {
                app.waiting = app.waiting.saturating_sub(1);
            }
            given.push((waiter.reply, self.share(waiter.claim)));
        }
        given
    }
}

impl Share {
    /// Adds another share to this one; both are given back together.
    pub(crate) fn join(&mut self, other: Share) {
        let (_, amount) = other.into_parts();
        self.claim.amount += amount;
    }

    /// The size of the share.
    pub(crate) fn amount(&self) -> usize {
        self.claim.amount
    }

    /// The app and the amount. The share is empty then, so nothing is given back when it is dropped.
    fn into_parts(mut self) -> (usize, usize) {
        (self.claim.app, std::mem::take(&mut self.claim.amount))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.claim.amount > 0 {
            self.of.give_back(self.claim.app, self.claim.amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    fn claim(app: usize, amount: usize) -> Claim {
        Claim {
            app,
            amount,
            large: false,
        }
    }

    /// Takes one at a time until there is no more.
    fn all_of(shares: &Shares, app: usize) -> Vec<Share> {
        std::iter::from_fn(|| shares.try_take(claim(app, 1))).collect()
    }

    #[test]
    fn an_app_alone_takes_all_and_one_among_others_leaves_half() {
        assert_eq!(all_of(&Shares::new(64, 1, 0), 0).len(), 64);
        let shares = Shares::new(64, 3, 0);
        let first = all_of(&shares, 0);
        assert_eq!(first.len(), 32);
        let second = all_of(&shares, 1);
        assert_eq!(second.len(), 16);
        // An app that is not configured counts as the last one that is.
        let third = all_of(&shares, 7);
        assert_eq!(third.len(), 8);
        assert_eq!(all_of(&shares, 2).len(), 0);
        drop((first, second));
        assert_eq!(all_of(&shares, 2).len(), 32 - third.len());
    }

    #[test]
    fn large_claims_leave_a_quarter_to_small_ones() {
        let large = |amount| Claim {
            large: true,
            ..claim(0, amount)
        };
        let shares = Shares::new(64, 1, 0);
        assert!(shares.try_take(large(49)).is_none());
        let most = shares.try_take(large(48));
        assert!(most.is_some());
        assert!(shares.try_take(large(1)).is_none());
        assert_eq!(all_of(&shares, 0).len(), 16);
    }

    /// Between a claim that found nothing and its place in the queue, others may have given back with no claim in the queue.
    #[test]
    fn a_claim_looks_again_before_it_waits() {
        let shares = Shares::new(4, 1, 8);
        assert!(matches!(
            shares.enqueue(claim(0, 4)),
            Some(SecondTry::Taken(_))
        ));
        let all = shares.try_take(claim(0, 4));
        assert!(matches!(
            shares.enqueue(claim(0, 1)),
            Some(SecondTry::Queued(_))
        ));
        drop(all);
        assert_eq!(all_of(&shares, 0).len(), 4);
    }

    #[test]
    fn what_is_joined_is_given_back_once() {
        let shares = Shares::new(4, 1, 0);
        let mut one = shares.try_take(claim(0, 1)).unwrap();
        one.join(shares.try_take(claim(0, 3)).unwrap());
        assert_eq!(one.amount(), 4);
        assert!(shares.try_take(claim(0, 1)).is_none());
        drop(one);
        assert_eq!(all_of(&shares, 0).len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_served_in_order_and_small_claims_pass_large_ones() {
        let shares = Shares::new(4, 1, 8);
        let [two, one] = [2, 1].map(|amount| shares.try_take(claim(0, amount)).unwrap());
        let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
        for (n, amount) in [(0, 3), (1, 2), (2, 2), (3, 4)] {
            let (shares, served) = (shares.clone(), served.clone());
            tokio::spawn(async move {
                let share = shares.take(claim(0, amount), SOON).await;
                served.send((n, share)).unwrap();
            });
            tokio::task::yield_now().await;
        }
        // One is free, and no waiting claim is that small.
        let smallest = shares.try_take(claim(0, 1)).unwrap();
        drop(two);
        let (first, pair) = order.recv().await.unwrap();
        assert!(first == 1 && pair.is_some());
        // Two are free, but an earlier claim waits for two.
        assert!(shares.try_take(claim(0, 2)).is_none());
        drop(pair);
        let (second, other) = order.recv().await.unwrap();
        assert!(second == 2 && other.is_some());
        drop((other, one));
        let (third, three) = order.recv().await.unwrap();
        assert!(third == 0 && three.is_some());
        // The last claim is not served in time.
        let (last, none) = order.recv().await.unwrap();
        assert!(last == 3 && none.is_none());
        drop((smallest, three));
        assert_eq!(all_of(&shares, 0).len(), 4);
    }

    /// Also where the larger one has waited longer and would fit: large claims one after the other must not starve a small one.
    #[tokio::test(start_paused = true)]
    async fn a_small_claim_does_not_wait_for_large_ones() {
        let shares = Shares::new(6, 2, 8);
        let held = shares.try_take(claim(0, 3)).unwrap();
        let mut large = Box::pin(shares.take(claim(0, 3), SOON));
        let mut small = Box::pin(shares.take(claim(0, 1), SOON));
        let other = shares.try_take(claim(1, 3));
        assert!(futures_util::FutureExt::now_or_never(&mut large).is_none());
        assert!(futures_util::FutureExt::now_or_never(&mut small).is_none());
        assert!(other.is_some());
        drop(held);
        assert!(futures_util::FutureExt::now_or_never(&mut large).is_none());
        let small = futures_util::FutureExt::now_or_never(&mut small);
        assert!(small.flatten().is_some());
        assert!(large.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_shared_like_what_it_is_for() {
        let shares = Shares::new(3, 2, 6);
        let held = [all_of(&shares, 0), all_of(&shares, 1)];
        let mut waiting: Vec<_> = (0..8)
            .map(|n| Box::pin(shares.take(claim(n / 4, 1), SOON)))
            .collect();
        let refused = |waiting: &mut Vec<_>| {
            let before = waiting.len();
            waiting.retain_mut(|taking| futures_util::FutureExt::now_or_never(taking).is_none());
            before - waiting.len()
        };
        // Three of the first app and two of the second wait.
        assert_eq!(refused(&mut waiting), 3);
        assert!(!shares.has_room(claim(0, 1)));
        drop(waiting);
        assert!(shares.has_room(claim(0, 1)));
        // A smaller claim takes the place of a larger one.
        let mut large: Vec<_> = (0..6)
            .map(|_| Box::pin(shares.take(claim(0, 2), SOON)))
            .collect();
        let mut small = Box::pin(shares.take(claim(0, 1), SOON));
        assert_eq!(refused(&mut large), 3);
        assert!(futures_util::FutureExt::now_or_never(&mut small).is_none());
        assert_eq!(refused(&mut large), 1);
        drop((large, small));
        drop(held);
        assert_eq!(all_of(&shares, 0).len(), 2);
    }
}
