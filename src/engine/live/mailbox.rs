//! What a stream is told by others: who has changed, and when it has to end.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;
use std::task::Context;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::lock;

/// What others tell a stream.
#[derive(Default)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct Mail {
    /// Who has changed, in this order, each once.
    changed: VecDeque<u32>,
    known: HashSet<u32>,
    leaves: Option<Instant>,
}

impl Mailbox {
    /// The user whom the stream calls by this name has changed.
    pub(super) fn has_changed(&self, name: u32) {
        let mut mail = lock(&self.mail);
        if mail.known.insert(name) {
            mail.changed.push_back(name);
            drop(mail);
            self.waker.wake();
        }
    }

    /// The stream has to end then.
    pub(super) fn leave_at(&self, when: Instant) {
        lock(&self.mail).leaves = Some(when);
        self.waker.wake();
    }

    /// Who has changed first of those that the stream was not told of.
    pub(super) fn take(&self) -> Option<u32> {
        let mut mail = lock(&self.mail);
        let name = mail.changed.pop_front()?;
        mail.known.remove(&name);
        Some(name)
    }

    /// When the stream has to end, if it has to.
    pub(super) fn leaves(&self) -> Option<Instant> {
        lock(&self.mail).leaves
    }

    /// The next mail wakes this task.
    pub(super) fn wakes(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }
}
