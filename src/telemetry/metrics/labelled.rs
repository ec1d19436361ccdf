//! Counters by label. The counter of a label is found without a lock.

use std::hash::Hash;
use std::sync::OnceLock;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// Counters with one label.
pub(super) struct Labelled<L: Clone + Eq + Hash> {
    pub(super) family: Family<L, Counter>,
    handles: Handles<Counter>,
}

impl<L> Labelled<L>
where
    L: Clone + Eq + Hash + From<&'static str>,
{
    pub(super) fn new() -> Self {
        Self {
            family: Family::default(),
            handles: Handles::default(),
        }
    }

    pub(super) fn add(&self, label: &'static str, n: u64) {
        let make = || self.family.get_or_create_owned(&L::from(label));
        self.handles.with(&(label, "", 0), make, |counter| {
            counter.inc_by(n);
        });
    }

    /// The sum of all counters, which are few enough to have a handle each.
    pub(super) fn total(&self) -> u64 {
        self.handles.all().map(Counter::get).sum()
    }
}

type HandleKey = (&'static str, &'static str, u16);

/// A hash table of metrics by their labels. It takes no lock: each slot is filled once and never changes.
pub(super) struct Handles<M> {
    slots: Box<[OnceLock<(HandleKey, M)>]>,
}

/// Enough for some twelve endpoints with two or three methods and six statuses each. What does not fit is found through the
/// family's lock.
const SLOTS: usize = 512;

impl<M> Default for Handles<M> {
    fn default() -> Self {
        Self {
            slots: std::iter::repeat_with(OnceLock::new).take(SLOTS).collect(),
        }
    }
}

impl<M> Handles<M> {
    fn all(&self) -> impl Iterator<Item = &M> {
        let filled = self.slots.iter().filter_map(OnceLock::get);
        filled.map(|(_, handle)| handle)
    }

    pub(super) fn with(&self, key: &HandleKey, make: impl Fn() -> M, f: impl FnOnce(&M)) {
        let start = hash(key);
        // A few steps are enough: the table is mostly empty.
        for step in 0..16 {
            let Some(slot) = self.slots.get((start + step) % SLOTS) else {
                break;
            };
            let (held, handle) = slot.get_or_init(|| (*key, make()));
            if held == key {
                return f(handle);
            }
        }
        f(&make());
    }
}

fn hash(key: &HandleKey) -> usize {
    // FNV-1a. No caller can choose labels that collide: they are fixed words.
    let bytes = key.0.bytes().chain(key.1.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ u64::from(key.2)).wrapping_mul(0x0100_0000_01b3);
    // The high half is better mixed.
    usize::try_from((hash >> 32) % SLOTS as u64).unwrap_or(0)
}
