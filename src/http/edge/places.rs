//! What all connections of a listener share: how many there may be, in all and from one address; and how much memory the answers
//! may hold that wait to be sent.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

use crate::http::address::{is_among, network};

/// How many connections there may be, and how many there are.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    /// 0: no bound.
    max_per_address: usize,
    /// Addresses for which `max_per_address` does not hold.
    exempt: Vec<IpNet>,
    taken: AtomicUsize,
    /// How many are taken from each address. Empty where there is no such bound.
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// Why a connection gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// All places are taken.
    Full,
    /// All places that one address may have are taken.
    Address,
}

impl NoPlace {
    /// Its word in a metric.
    pub(super) fn word(self) -> &'static str {
        match self {
            NoPlace::Full => "full",
            NoPlace::Address => "address",
        }
    }
}

/// The place of one connection, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: Option<IpAddr>,
}

impl Places {
    /// `max` places, of which one address may have `max_per_address` (0: all) unless it is `exempt`.
    pub(super) fn new(max: usize, max_per_address: usize, exempt: Vec<IpNet>) -> Self {
        Self {
            max,
            max_per_address,
            exempt,
            taken: AtomicUsize::new(0),
            by_address: Mutex::default(),
        }
    }

    /// A place for a connection from that address.
    pub(super) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Place, NoPlace> {
        let more = |taken: usize| (taken < self.max).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .map_err(|_| NoPlace::Full)?;
        let mut place = Place {
            places: Arc::clone(self),
            address: None,
        };
        let Some(address) = address.filter(|address| self.is_bounded(*address)) else {
            return Ok(place);
        };
        let address = network(address);
        let mut by_address = self.by_address();
        let taken = by_address.entry(address).or_default();
        if *taken >= self.max_per_address {
            // Here `place` is dropped, which gives it back. It names no address yet, so that takes no second lock.
            return Err(NoPlace::Address);
        }
        *taken += 1;
        place.address = Some(address);
        Ok(place)
    }

    fn is_bounded(&self, address: IpAddr) -> bool {
        self.max_per_address > 0 && !self.is_exempt(address)
    }

    /// Whether an address is a trusted proxy's, which stands for many callers.
    pub(super) fn is_exempt(&self, address: IpAddr) -> bool {
        is_among(&self.exempt, address)
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// How many places to free so that newcomers find one: all that are taken beyond fifteen of sixteen.
    pub(super) fn to_be_freed(&self) -> usize {
        let kept_free = (self.max / 16).max(1);
        self.taken().saturating_sub(self.max - kept_free)
    }

    fn by_address(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        // A panic under the lock can't leave the map half changed.
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut by_address = self.places.by_address();
        if let Some(taken) = by_address.get_mut(&address) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                by_address.remove(&address);
            }
        }
    }
}

/// How much memory answers may hold that are finished and not sent yet, and how much they hold. Small ones are not counted: they
/// fit into the buffer that their connection has anyway.
#[derive(Debug)]
pub(crate) struct Answers {
    max: usize,
    held: AtomicUsize,
}

/// There is no memory for one more answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

/// The memory of one answer, given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    answers: Arc<Answers>,
    bytes: usize,
}

impl Answers {
    /// An answer of at most so many bytes is small: it is not counted.
    pub(crate) const SMALL: usize = 16 * 1024;

    /// At most `max` bytes in all answers together.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            held: AtomicUsize::new(0),
        }
    }

    /// Counts an answer, unless it is small. Refuses it if all together would hold too much; where there is no other one, it is
    /// counted whatever its size.
    pub(crate) fn try_hold(self: &Arc<Self>, bytes: u64) -> Result<Option<Held>, TooMany> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if bytes <= Self::SMALL {
            return Ok(None);
        }
        let more = |held: usize| {
            let sum = held.saturating_add(bytes);
            (held == 0 || sum <= self.max).then_some(sum)
        };
        self.held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .map_err(|_| TooMany)?;
        Ok(Some(Held {
            answers: Arc::clone(self),
            bytes,
        }))
    }

    /// How many bytes to free, by giving up answers that nobody takes: all that are held beyond half of the memory.
    pub(crate) fn excess(&self) -> usize {
        self.held
            .load(Ordering::Relaxed)
            .saturating_sub(self.max / 2)
    }

    /// Counts an answer, unless it is small, also where there is no memory for it.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        (bytes > Self::SMALL).then(|| {
            self.held.fetch_add(bytes, Ordering::Relaxed);
            Held {
                answers: Arc::clone(self),
                bytes,
            }
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.answers.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn places_are_bounded_in_all_and_by_address() {
        let places = Arc::new(Places::new(3, 2, Vec::new()));
        let one = places.take(address("10.0.0.1")).unwrap();
        let two = places.take(address("::ffff:10.0.0.1")).unwrap();
        assert_eq!(
            places.take(address("10.0.0.1")).unwrap_err(),
            NoPlace::Address
        );
        // The refused one holds nothing.
        assert_eq!(places.taken(), 2);
        let three = places.take(address("10.0.0.2")).unwrap();
        assert_eq!(places.take(address("10.0.0.3")).unwrap_err(), NoPlace::Full);
        drop(one);
        let again = places.take(address("10.0.0.1")).unwrap();
        drop((two, three, again));
        assert_eq!(places.taken(), 0);
        assert!(places.by_address().is_empty());
    }

    #[test]
    fn addresses_without_a_bound_are_not_kept() {
        let places = Arc::new(Places::new(2, 0, Vec::new()));
        let both = (places.take(address("::1")), places.take(None));
        assert!(both.0.is_ok() && both.1.is_ok() && places.by_address().is_empty());
    }

    #[test]
    fn exempt_addresses_are_bounded_in_all_only() {
        let exempt = ["10.0.0.0/24", "2001:db8::5/128"].map(|net| net.parse().unwrap());
        let places = Arc::new(Places::new(5, 1, exempt.to_vec()));
        let mut taken = Vec::new();
        for text in ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::5", "10.0.1.1"] {
            taken.push(places.take(address(text)).unwrap());
        }
        assert_eq!(
            places.take(address("10.0.1.1")).unwrap_err(),
            NoPlace::Address
        );
        taken.push(places.take(address("10.0.0.1")).unwrap());
        assert_eq!(places.take(address("10.0.0.1")).unwrap_err(), NoPlace::Full);
        drop(taken);
        assert!(places.taken() == 0 && places.by_address().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let places = Arc::new(Places::new(9, 1, Vec::new()));
        let taken = ["2001:db8::1", "2001:db8:0:1::1", "1.2.3.4"];
        let taken = taken.map(|text| places.take(address(text)).unwrap());
        for text in ["2001:db8::ffff:1:2", "::ffff:1.2.3.4"] {
            assert_eq!(places.take(address(text)).unwrap_err(), NoPlace::Address);
        }
        drop(taken);
        assert!(places.by_address().is_empty());
    }

    #[test]
    fn room_is_made_before_the_last_place_is_taken() {
        let places = Arc::new(Places::new(32, 0, Vec::new()));
        let mut taken: Vec<_> = (0..30).map(|_| places.take(None)).collect();
        assert_eq!(places.to_be_freed(), 0);
        taken.push(places.take(None));
        assert_eq!(places.to_be_freed(), 1);
        let few = Arc::new(Places::new(2, 0, Vec::new()));
        let taken = [few.take(None), few.take(None)];
        assert_eq!(few.to_be_freed(), 1);
        drop(taken);
    }

    #[test]
    fn large_answers_are_held_up_to_a_sum() {
        let answers = Arc::new(Answers::new(100_000));
        let may = |bytes: u64| answers.try_hold(bytes).is_ok();
        assert!(may(1 << 40), "there is no other answer");
        assert!(answers.hold(Answers::SMALL).is_none());
        let one = answers.try_hold(60_000).unwrap();
        assert_eq!(answers.excess(), 10_000);
        assert!(may(40_000) && !may(40_001));
        assert!(may(Answers::SMALL as u64));
        let rest = answers.try_hold(40_000).unwrap();
        assert!(!may(Answers::SMALL as u64 + 1), "all is held");
        drop((one, rest));
        assert!(answers.excess() == 0 && may(200_000));
    }
}
