//! How long a peer may leave its answer waiting.

use super::clock::Tick;

/// Bytes of an answer for which a peer earns one tick: who takes 4 KiB a second never uses up its ticks.
const BYTES_PER_TICK: usize = 1024;

/// How many ticks a peer may still leave its answer waiting. It spends them while a write waits. It earns them back by what it
/// takes, and by time in which no write waits. A plain timeout that starts again with each byte taken would let a peer that takes
/// one byte now and then stay for ever.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// The most ticks that a peer can have.
    full: u32,
    /// The ticks that were left at the moment `at`.
    left: u32,
    at: Tick,
    /// Since when a write has waited without any byte taken. None: no write waits.
    stalled: Option<Tick>,
    /// Bytes taken that have not earned a tick yet.
    bytes: usize,
}

impl Patience {
    /// A new peer has all of its `full` ticks.
    pub(super) fn new(now: Tick, full: u32) -> Self {
        Self {
            full,
            left: full,
            at: now,
            stalled: None,
            bytes: 0,
        }
    }

    /// Since when the peer has taken nothing, if a write waits.
    pub(super) fn stalled(&self) -> Option<Tick> {
        self.stalled
    }

    /// Whether the peer has left its answer waiting for too long.
    pub(super) fn is_used_up(&self, now: Tick) -> bool {
        self.stalled.is_some() && now.since(self.at) >= self.left
    }

    /// A write has to wait.
    pub(super) fn note_wait(&mut self, now: Tick) {
        if self.stalled.is_none() {
            self.left = self.left.saturating_add(now.since(self.at)).min(self.full);
            self.at = now;
            self.stalled = Some(now);
        }
    }

    /// The peer has taken so many bytes of a write that had to wait.
    pub(super) fn note_taken(&mut self, bytes: usize, now: Tick) {
        self.bytes = self.bytes.saturating_add(bytes);
        let earned = u32::try_from(self.bytes / BYTES_PER_TICK).unwrap_or(u32::MAX);
        self.bytes %= BYTES_PER_TICK;
        let left = self.left.saturating_sub(now.since(self.at));
        self.left = left.saturating_add(earned).min(self.full);
        self.at = now;
        self.stalled = Some(now);
    }

    /// The kernel has all that was written: no write waits any more.
    pub(super) fn note_rest(&mut self, now: Tick) {
        self.left = self.left.saturating_sub(now.since(self.at));
        self.at = now;
        self.stalled = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u32 = 40;

    fn at(tick: u32) -> Tick {
        Tick::START.plus(tick)
    }

    #[test]
    fn it_is_used_up_by_waiting_only() {
        let mut patience = Patience::new(at(0), FULL);
        assert!(!patience.is_used_up(at(1_000)));
        patience.note_wait(at(1_000));
        assert!(!patience.is_used_up(at(1_039)) && patience.is_used_up(at(1_040)));
        // Another try changes nothing.
        patience.note_wait(at(1_030));
        assert!(patience.is_used_up(at(1_040)));
        patience.note_rest(at(1_030));
        assert!(!patience.is_used_up(at(2_000)));
        // What was spent comes back with time, and not at once.
        patience.note_wait(at(1_035));
        assert!(!patience.is_used_up(at(1_049)) && patience.is_used_up(at(1_050)));
    }

    #[test]
    fn a_byte_now_and_then_is_not_enough_and_a_steady_flow_is() {
        let lasts = |bytes: usize, every: u32| {
            let mut patience = Patience::new(at(0), FULL);
            patience.note_wait(at(0));
            let mut now = 0;
            while now < 100_000 && !patience.is_used_up(at(now)) {
                now += 1;
                if now % every == 0 {
                    patience.note_taken(bytes, at(now));
                }
            }
            now
        };
        assert_eq!(lasts(1, 1), FULL);
        assert_eq!(lasts(1, 240), FULL);
        assert!(
            (FULL..2 * FULL).contains(&lasts(2_000, 4)),
            "{}",
            lasts(2_000, 4)
        );
        assert_eq!(lasts(BYTES_PER_TICK, 1), 100_000);
        // A slow link takes a buffer of the kernel's at once, and then nothing for seconds.
        assert_eq!(lasts(20 * BYTES_PER_TICK, 20), 100_000);
    }

    #[test]
    fn small_answers_to_a_slow_peer_do_not_renew_it() {
        let mut patience = Patience::new(at(0), FULL);
        let mut now = 0;
        while now < 10_000 {
            patience.note_wait(at(now));
            now += 3;
            if patience.is_used_up(at(now)) {
                break;
            }
            patience.note_taken(250, at(now));
            patience.note_rest(at(now));
        }
        assert!(now < 2 * FULL, "{now}");
    }
}
