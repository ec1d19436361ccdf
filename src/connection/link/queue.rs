//! The requests of one connection, in the order of sending, and which of them the next reply belongs to. No I/O.

use std::collections::VecDeque;
use std::task::Waker;

use redis::{RedisError, RedisResult, Value};
use tokio::time::Instant;

/// Requests that a connection may owe replies to.
pub(super) const OWED: u64 = 16_384;
/// The same with those whose replies nobody has taken yet.
const HELD: usize = 1 << 20;
/// Bytes not written yet that a connection may have, and one request more.
const UNSENT: usize = 8 << 20;

/// What requests and the driver share, behind one lock.
#[derive(Default)]
pub(super) struct Queue {
    /// The bytes of the requests that are not sent.
    pub(super) unsent: Vec<u8>,
    requests: VecDeque<Request>,
    /// The number of the first of `requests`; numbers go up by one with each request.
    first: u64,
    /// The number of the request that the next reply belongs to.
    replying: u64,
    /// All requests before this number have been sent, wholly or in part.
    sent: u64,
    pub(super) connected: bool,
    /// Whether there is a driver.
    pub(super) driven: bool,
    /// The driver, while it sleeps.
    pub(super) driver: Option<Waker>,
    /// Whether a caller waits for room.
    pub(super) starved: bool,
    /// Whether no handle is left.
    pub(super) closed: bool,
}

/// One request: a command, or a pipeline of several.
pub(super) struct Request {
    /// How many of the bytes in `unsent` are its own.
    pub(super) bytes: usize,
    /// Replies that are still to come.
    pub(super) missing: usize,
    pub(super) outcome: Outcome,
    pub(super) waker: Option<Waker>,
    /// How long its caller waits.
    pub(super) until: Instant,
}

/// What has become of a request so far.
pub(super) enum Outcome {
    /// The replies to a pipeline.
    Replies(Vec<Value>),
    /// The reply to a command; nothing before it has come.
    Reply(Option<Value>),
    Failed(RedisError),
    /// Its caller does not wait any more.
    Abandoned,
}

impl Request {
    fn is_over(&self) -> bool {
        self.missing == 0 || matches!(self.outcome, Outcome::Failed(_))
    }

    /// Whether its caller waits for a reply.
    fn is_awaited(&self) -> bool {
        !self.is_over() && !matches!(self.outcome, Outcome::Abandoned)
    }

    /// Fails it, if its caller still waits. Replies to it, should any come, are then dropped.
    fn fail(&mut self, error: &RedisError) -> Option<Waker> {
        if !self.is_awaited() {
            return None;
        }
        self.outcome = Outcome::Failed(error.clone());
        self.waker.take()
    }

    /// What has become of it, once: nothing while its caller has to wait, who is then woken.
    pub(super) fn take(&mut self, waker: &Waker) -> Option<RedisResult<Outcome>> {
        if !self.is_over() {
            match &mut self.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
            return None;
        }
        match std::mem::replace(&mut self.outcome, Outcome::Abandoned) {
            Outcome::Failed(error) => Some(Err(error)),
            outcome => Some(Ok(outcome)),
        }
    }
}

impl Queue {
    /// Appends a request, whose bytes are in `unsent` already. Answers its number.
    pub(super) fn push(&mut self, request: Request) -> u64 {
        let number = self.next();
        self.requests.push_back(request);
        number
    }

    /// The number that the next request gets.
    fn next(&self) -> u64 {
        self.first + self.requests.len() as u64
    }

    pub(super) fn get(&mut self, number: u64) -> Option<&mut Request> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.requests.get_mut(index)
    }

    /// The caller of a request does not wait any more, or has taken the outcome.
    pub(super) fn abandon(&mut self, number: u64) {
        if let Some(request) = self.get(number) {
            request.outcome = Outcome::Abandoned;
            request.waker = None;
        }
        self.forget();
    }

    /// Drops the first requests as far as their callers are gone and no reply belongs to them.
    fn forget(&mut self) {
        while let Some(front) = self.requests.front()
            && front.missing == 0
            && matches!(front.outcome, Outcome::Abandoned)
        {
            self.requests.pop_front();
            self.first += 1;
        }
        self.replying = self.replying.max(self.first);
    }

    /// Whether any caller waits for a reply.
    pub(super) fn is_awaited(&self) -> bool {
        self.requests.iter().any(Request::is_awaited)
    }

    /// The request that the next reply belongs to: one that has been sent.
    pub(super) fn front(&mut self) -> Option<&mut Request> {
        while self.replying < self.sent && self.get(self.replying)?.missing == 0 {
            self.replying += 1;
        }
        match self.replying < self.sent {
            true => self.get(self.replying),
            false => None,
        }
    }

    /// Whether one more may be queued.
    pub(super) fn has_room(&self) -> bool {
        let owed = self.next() - self.replying;
        owed < OWED && self.requests.len() < HELD && self.unsent.len() < UNSENT
    }

    /// Moves all bytes that are not sent to `writing`, which is empty.
    pub(super) fn send(&mut self, writing: &mut Vec<u8>) {
        std::mem::swap(writing, &mut self.unsent);
        self.sent = self.next();
    }

    /// Gives a reply to the request that it belongs to. False: it belongs to none.
    pub(super) fn reply(&mut self, reply: Value, woken: &mut Vec<Waker>) -> bool {
        let Some(request) = self.front() else {
            return false;
        };
        request.missing -= 1;
        match &mut request.outcome {
            Outcome::Replies(replies) => replies.push(reply),
            Outcome::Reply(place) => *place = Some(reply),
            Outcome::Failed(_) | Outcome::Abandoned => {}
        }
        if request.missing == 0 {
            woken.extend(request.waker.take());
            self.replying += 1;
            if self.first + 1 == self.replying {
                self.forget();
            }
        }
        true
    }

    /// When the first of the callers stops waiting. A caller that came later may stop later.
    pub(super) fn until(&self) -> Option<Instant> {
        let awaited = self.requests.iter().find(|request| request.is_awaited());
        awaited.map(|request| request.until)
    }

    /// Fails the requests whose time is over.
    pub(super) fn expire(&mut self, now: Instant, error: &RedisError) -> Vec<Waker> {
        let late = self.requests.iter_mut().filter(|r| r.until <= now);
        late.filter_map(|request| request.fail(error)).collect()
    }

    /// How many of `requests` have been sent.
    fn sent(&self) -> usize {
        usize::try_from(self.sent.saturating_sub(self.first)).unwrap_or(usize::MAX)
    }

    /// There is a connection: from now on no caller waits longer than until `until`. Requests whose callers have given up
    /// before anything was sent are not sent.
    pub(super) fn connected(&mut self, until: Instant) {
        self.connected = true;
        let sent = self.sent();
        let all = std::mem::take(&mut self.unsent);
        let mut at = 0;
        for request in self.requests.iter_mut().skip(sent) {
            let bytes = all.get(at..at + request.bytes).unwrap_or_default();
            at += request.bytes;
            match request.is_awaited() {
                true => self.unsent.extend_from_slice(bytes),
                false => (request.missing, request.bytes) = (0, 0),
            }
        }
        self.forget();
        for request in &mut self.requests {
            request.until = request.until.min(until);
        }
    }

    /// The connection has broken: what has been sent gets no reply.
    pub(super) fn broken(&mut self, error: &RedisError) -> Vec<Waker> {
        let sent = self.sent();
        let mut woken = Vec::new();
        for request in self.requests.iter_mut().take(sent) {
            woken.extend(request.fail(error));
            request.missing = 0;
        }
        self.connected = false;
        self.replying = self.sent;
        self.forget();
        woken
    }

    /// No connection can be had: nothing will be sent.
    pub(super) fn given_up(&mut self, error: &RedisError) -> Vec<Waker> {
        self.unsent = Vec::new();
        self.sent = self.next();
        self.broken(error)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_been_sent_has_no_reply() {
        let mut queue = Queue::default();
        queue.push(Request {
            bytes: 0,
            missing: 1,
            outcome: Outcome::Reply(None),
            waker: None,
            until: Instant::now(),
        });
        let reply = |queue: &mut Queue, n| queue.reply(Value::Int(n), &mut Vec::new());
        assert!(!reply(&mut queue, 1));
        queue.send(&mut Vec::new());
        assert!(reply(&mut queue, 1));
        assert!(!reply(&mut queue, 2));
    }
}
