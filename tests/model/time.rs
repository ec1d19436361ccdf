//! "The order of time": what is remembered of events that are placed by their own time, and for how long.

use serde_json::Value;

use super::fields::{INVALID, Point, time};
use super::messages::Edit;
use super::{Checked, Membership, Message, Model, Outcome, Room};

/// How long anything is remembered that places events by their time, in milliseconds.
pub const TEN_MINUTES: i64 = 600_000;

/// By what an event is placed.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Order {
    /// As accepted.
    #[default]
    Arrival,
    /// As its time says.
    Time,
    /// The same in `unread import`, where a join may be placed as far back as it says.
    Import,
}

/// When an event happened and when it is accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct When {
    pub(super) order: Order,
    pub(super) time: i64,
    pub(super) accepted: i64,
}

impl When {
    /// Of an event without a time it is that of its acceptance; by time it has to have one.
    pub(super) fn of(event: &Value, order: Order, accepted: i64) -> Checked<Self> {
        let time = match (time(event, "time")?, order) {
            (Some(time), _) => time,
            (None, Order::Arrival) => accepted,
            (None, _) => return Err(INVALID),
        };
        Ok(Self {
            order,
            time,
            accepted,
        })
    }

    pub(super) fn is_by_time(&self) -> bool {
        self.order != Order::Arrival
    }

    /// The moment as of which an event sets a read position: by time its `up_to_time`, else its `time`; by arrival that of its
    /// acceptance.
    pub(super) fn moment(&self, up_to_time: Option<i64>) -> i64 {
        match self.order {
            Order::Arrival => self.accepted,
            _ => up_to_time.unwrap_or(self.time),
        }
    }
}

/// A time that holds for ten minutes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lasting {
    pub(super) time: i64,
    accepted: i64,
}

impl Lasting {
    fn new(time: i64, when: &When) -> Self {
        Self {
            time,
            accepted: when.accepted,
        }
    }

    /// After a clock has stepped back it does so for a while longer, but what is too far ahead is due.
    fn holds(&self, now: i64) -> bool {
        (now - self.accepted).abs() < TEN_MINUTES
    }
}

/// What waits for a message.
#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) id: String,
    pub(super) what: Awaited,
    pub(super) when: When,
}

#[derive(Clone)]
pub(super) enum Awaited {
    Recall,
    Edit(Edit),
    Read { user: String },
    Unread { user: String },
}

impl Membership {
    /// "Bound": what a message's time is compared with on its arrival. Open: each time holds for ten minutes from the acceptance
    /// of its own event; a lower one neither shortens nor prolongs a higher one.
    fn bound(&self, now: i64) -> Option<i64> {
        let held = self.bounds.iter().filter(|bound| bound.holds(now));
        held.map(|bound| bound.time).max()
    }

    /// The bound becomes at least that time, taken as no later than the end of the second of the acceptance, so that a fast clock
    /// reads nothing in advance.
    pub(super) fn raise_bound(&mut self, time: i64, when: &When) {
        if when.is_by_time() {
            let end_of_second = when.accepted.div_euclid(1000) * 1000 + 999;
            self.bounds
                .push(Lasting::new(time.min(end_of_second), when));
        }
    }

    /// The bound goes back to before that time.
    pub(super) fn take_bound_back(&mut self, time: i64) {
        for bound in &mut self.bounds {
            bound.time = bound.time.min(time - 1);
        }
    }

    /// Whether a message of that time is read on arrival.
    pub(super) fn reads_on_arrival(&self, time: i64, now: i64) -> bool {
        self.bound(now).is_some_and(|bound| time <= bound)
    }

    /// Remembers as of which moment an event has set the read position. Open: it does so too where the position was there
    /// already.
    pub(super) fn set_at(&mut self, moment: i64, when: &When) {
        self.moments.push(Lasting::new(moment, when));
    }

    /// Whether the read position was set in the last ten minutes as of that moment, or of a later one.
    pub(super) fn was_set_since(&self, moment: i64, when: &When) -> bool {
        let mut held = self.moments.iter().filter(|set| set.holds(when.accepted));
        held.any(|set| set.time >= moment)
    }

    /// "Older than a reset": whether a by-time event as of that moment neither moves the position nor sets a bound.
    pub(super) fn is_reset_since(&self, moment: i64, when: &When) -> bool {
        when.is_by_time() && self.reset.is_some_and(|reset| moment <= reset)
    }

    /// Remembers a `room.unread` or a `counts.set`. Open: the last one is that of the latest time.
    pub(super) fn reset_at(&mut self, when: &When) {
        if when.is_by_time() {
            self.reset = self.reset.max(Some(when.time));
        }
    }
}

impl Room {
    /// "Joining", placed by time: the highest position among counted messages whose time is at or before it, but not before what
    /// the room accepted more than ten minutes ago. Open: what is older than the history has been read.
    pub(super) fn position_on_joining(&self, when: &When, history: Option<usize>) -> i64 {
        let is_before = |m: &Message| match when.order {
            Order::Arrival => true,
            Order::Time => m.time <= when.time || when.accepted - m.accepted > TEN_MINUTES,
            Order::Import => m.time <= when.time,
        };
        let known = (1..).zip(self.counted());
        let before = known.filter(|(_, m)| is_before(m));
        let highest = before.map(|(position, _)| position).max().unwrap_or(0);
        highest.max(self.first_known(history) - 1)
    }

    /// "A `member.*` event": whether its time is before that of the by-time event that made the membership's present state.
    pub(super) fn is_overtaken(&self, user: &str, when: &When) -> bool {
        let made = self.states.get(user);
        when.is_by_time()
            && made.is_some_and(|made| made.holds(when.accepted) && when.time < made.time)
    }

    /// Remembers the time of the event that made the present state. Open: an event that finds the state as it says confirms it as
    /// of its own time, so that a leave that is told before its join is the last word; and a state that was made by arrival has
    /// no time.
    pub(super) fn state_made(&mut self, user: &str, is_new: bool, when: &When) {
        if when.is_by_time() {
            // It is not overtaken, so no time that is still remembered is later.
            let made = Lasting::new(when.time, when);
            self.states.insert(user.to_owned(), made);
        } else if is_new {
            self.states.remove(user);
        }
    }

    /// "Ids not yet known": what names the message waits for it.
    pub(super) fn wait(&mut self, id: &str, what: Awaited, when: When) -> Outcome {
        let id = id.to_owned();
        self.waiting.push(Waiting { id, what, when });
        Outcome::Applied(None)
    }

    /// A later `room.unread` or `counts.set` of the member cancels the waiting reads. Open: by time the later one is the one with
    /// the later time.
    pub(super) fn cancel_waiting_reads(&mut self, user: &str, reset: &When) {
        self.waiting.retain(|one| {
            let is_theirs = matches!(&one.what, Awaited::Read { user: reader } if reader == user);
            !is_theirs || reset.is_by_time() && one.when.time > reset.time
        });
    }

    /// Leaving ends what waits for the member.
    pub(super) fn end_waiting(&mut self, user: &str) {
        self.waiting.retain(|one| match &one.what {
            Awaited::Read { user: whose } | Awaited::Unread { user: whose } => whose != user,
            Awaited::Recall | Awaited::Edit(_) => true,
        });
    }

    /// The message that has just arrived is read by the members whose bound is not before its time.
    pub(super) fn read_on_arrival(&mut self, id: &str, when: &When) {
        if !when.is_by_time() {
            return;
        }
        for (_, membership) in self.memberships_mut() {
            if membership.reads_on_arrival(when.time, when.accepted) {
                membership.read_on_arrival.insert(id.to_owned());
            }
        }
    }

    /// What has waited for the message that has just arrived takes effect, as if it came now. Open: in whatever order the message
    /// itself arrives; and reads before `room.unread`, so that these end as in the order of their times: one that is older than a
    /// read is late.
    pub(super) fn waited_for(&mut self, id: &str, accepted: i64, history: Option<usize>) {
        let is_due = |one: &mut Waiting| one.id == id;
        let mut due: Vec<Waiting> = self.waiting.extract_if(.., is_due).collect();
        due.sort_by_key(|one| matches!(one.what, Awaited::Unread { .. }));
        for Waiting { what, when, .. } in due {
            if (accepted - when.accepted).abs() >= TEN_MINUTES {
                continue;
            }
            let when = When { accepted, ..when };
            let point = Point::Id(id.to_owned());
            // It was answered when it came; that the user is no member any more, or that it is late by now, tells nobody.
            let _ = match what {
                Awaited::Recall => self.recall(id, history),
                Awaited::Edit(edit) => self.edit(id, &edit, history),
                Awaited::Read { user } => {
                    self.read_as_far_as_known(&user, Some(&point), &when, history)
                }
                Awaited::Unread { user } => self.unread_from(&user, &point, &when, history),
            };
        }
    }
}

impl Model {
    /// An event of now in that room. Own messages and clearings that come by arrival are remembered by the room's stamp.
    pub(super) fn stamped(&mut self, room: &str, when: &When) -> When {
        let stamp = self.stamps.entry(room.to_owned()).or_default();
        *stamp = when.accepted.max(*stamp);
        match when.order {
            Order::Arrival => When {
                accepted: *stamp,
                ..*when
            },
            _ => *when,
        }
    }

    /// The stamp of what the room accepts now.
    pub(super) fn stamp(&self, room: &str) -> i64 {
        self.stamps.get(room).copied().unwrap_or_default()
    }

    /// The time of now, or the one that a test has set.
    pub(super) fn clock(&self) -> i64 {
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        self.now
            .unwrap_or_else(|| i64::try_from(now().unwrap().as_millis()).unwrap())
    }
}
