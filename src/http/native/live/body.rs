//! The body of a stream. What it sends next is made when the connection takes it: it owes each user's newest counts at most once,
//! however many there were since.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::ws::CloseCode;
use actix_web::body::{BodySize, MessageBody};
use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, Sleep};

use super::frames::{Protocol, Reason, Update, Writer};
use super::socket::{Socket, Wish};
use crate::engine::{Shown, TooMany, Watcher};
use crate::http::request::unix_seconds;
use crate::names::UserId;
use crate::telemetry::metrics::Metrics;

/// The most bytes that the connection is given at once: it keeps buffers as large as they ever were.
const PIECE: usize = 4 << 10;
/// How long before its token expires a stream ends, so that its client has time to get another one.
const BEFORE_EXPIRY: u64 = 25;
/// How long the pod keeps a WebSocket open whose token has expired as it begins: its client may come again at once.
const HELD: Duration = Duration::from_secs(2);

/// What all streams of a call's kind have in common.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) protocol: Protocol,
    pub(super) rooms: bool,
    pub(super) beat: Duration,
    pub(super) lifetime: Duration,
    pub(super) metrics: Arc<Metrics>,
}

/// How a stream ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending {
    /// It is said goodbye to.
    Bye(Reason),
    /// The client has said what it may not say.
    Refused(CloseCode, &'static str),
    /// The client has said goodbye.
    Answered(Option<CloseCode>),
}

/// What the client has of a user.
enum Has {
    /// It says that it has what this stamp stands for.
    Stamp(String),
    Sent(Arc<Shown>),
}

/// A stream.
pub(super) struct LiveBody {
    setting: Setting,
    writer: Writer,
    watcher: Option<Watcher>,
    socket: Option<Socket>,
    /// Whether messages carry ids.
    pub(super) has_one_user: bool,
    has: HashMap<u32, Has>,
    update: Option<(u32, Update)>,
    out: BytesMut,
    timer: Pin<Box<Sleep>>,
    next_beat: Instant,
    ends: Instant,
    expires: Option<Instant>,
    ending: Option<Ending>,
    /// Whether the first event is still to say when to come again.
    owes_retry: bool,
    /// The reason of a `bye` that was sent, while the stream stays open so that the client does not come again at once.
    held: Option<Reason>,
    is_over: bool,
}

impl LiveBody {
    /// A stream that has begun. `until`: when its token expires, in seconds since the epoch.
    pub(super) fn new(setting: Setting, watcher: Watcher, until: Option<u64>) -> Self {
        let mut body = Self::bare(setting, Some(watcher));
        body.writer.begin(&mut body.out);
        body.owes_retry = true;
        body.expires = until.map(before);
        body.set_timer();
        body
    }

    /// A stream that ends as it begins.
    pub(super) fn ended(setting: Setting, reason: Reason) -> Self {
        Self {
            ending: Some(Ending::Bye(reason)),
            ..Self::bare(setting, None)
        }
    }

    fn bare(setting: Setting, watcher: Option<Watcher>) -> Self {
        let now = Instant::now();
        // In the second half of the time.
        let lifetime = setting.lifetime.mul_f64(rand::random_range(0.5..1.0));
        // The first beat comes at any time, so that streams that have begun together don't beat together.
        let first = setting.beat.mul_f64(rand::random_range(0.3..1.0));
        Self {
            writer: Writer {
                protocol: setting.protocol,
            },
            watcher,
            socket: None,
            has_one_user: false,
            has: HashMap::new(),
            update: None,
            out: BytesMut::new(),
            timer: Box::pin(tokio::time::sleep_until(now)),
            next_beat: now + first,
            ends: now + lifetime,
            expires: None,
            ending: None,
            owes_retry: false,
            held: None,
            is_over: false,
            setting,
        }
    }

    /// Has it hear what the client says.
    pub(super) fn listen(&mut self, socket: Socket) {
        self.socket = Some(socket);
    }

    /// Watches a user, of whom the client may have what a stamp stands for.
    pub(super) fn watch(&mut self, user: &UserId, stamp: Option<String>) -> Result<(), TooMany> {
        let Some(watcher) = &mut self.watcher else {
            return Ok(());
        };
        if let Some(name) = watcher.watch(user, self.setting.rooms)?
            && let Some(stamp) = stamp
        {
            self.has.insert(name, Has::Stamp(stamp));
        }
        Ok(())
    }

    fn leave(&mut self, user: &UserId) {
        let name = self
            .watcher
            .as_mut()
            .and_then(|watcher| watcher.leave(user));
        if let Some(name) = name {
            self.has.remove(&name);
            if self.update.as_ref().is_some_and(|(of, _)| *of == name) {
                self.update = None;
            }
        }
    }

    /// When the next thing happens that nobody else causes.
    fn next_moment(&self) -> Instant {
        let leaves = self.watcher.as_ref().and_then(Watcher::leaves);
        let ends = [Some(self.ends), self.expires, leaves];
        let ends = ends.into_iter().flatten().min();
        ends.map_or(self.next_beat, |ends| ends.min(self.next_beat))
    }

    fn set_timer(&mut self) {
        let next = self.next_moment();
        if self.timer.deadline() != next {
            self.timer.as_mut().reset(next);
        }
    }

    /// What the time has brought. Whether something is to be sent.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> bool {
        self.set_timer();
        if self.timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        let now = Instant::now();
        if let Some(reason) = self.held.filter(|_| self.ends <= now) {
            self.ending = Some(Ending::Refused(reason.code(), reason.word()));
            return true;
        }
        let leaves = self.watcher.as_ref().and_then(Watcher::leaves);
        for (when, reason) in [
            (leaves, Reason::Draining),
            (self.expires, Reason::Expired),
            (Some(self.ends), Reason::Lifetime),
        ] {
            if when.is_some_and(|when| when <= now) {
                self.ending = Some(Ending::Bye(reason));
                return true;
            }
        }
        if self.next_beat <= now {
            self.next_beat = now + self.setting.beat.mul_f64(rand::random_range(0.75..1.25));
            self.say_retry();
            self.writer.beat(&mut self.out);
        }
        self.set_timer();
        // The timer has to be polled again.
        true
    }

    /// What the client has said. Whether something has come of it.
    fn poll_socket(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(socket) = &mut self.socket else {
            return false;
        };
        let Poll::Ready(wish) = socket.poll(cx) else {
            return false;
        };
        match wish {
            Wish::Close(code) => self.ending = Some(Ending::Answered(code)),
            Wish::Pong(pong) => self.writer.message(pong, &mut self.out),
            // The client has its `bye`: what it asks for now is not done.
            _ if self.held.is_some() => {}
            Wish::Subscribe(users) => {
                for (user, stamp) in users {
                    if self.watch(&user, stamp) == Err(TooMany) {
                        self.ending = Some(Ending::Bye(Reason::Full));
                        break;
                    }
                }
            }
            Wish::Unsubscribe(users) => {
                for user in &users {
                    self.leave(user);
                }
            }
            Wish::Renewed(until) => self.expires = Some(before(until)),
            Wish::Expired => self.ending = Some(Ending::Bye(Reason::Expired)),
            Wish::Bad(code, why) => self.ending = Some(Ending::Refused(code, why)),
        }
        true
    }

    /// Begins to tell of a user who has changed. Whether there is one.
    fn poll_change(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        let Poll::Ready((name, shown)) = watcher.poll_changed(cx) else {
            return false;
        };
        let Some(user) = watcher.user(name) else {
            return true;
        };
        let (before, stamp) = match self.has.remove(&name) {
            Some(Has::Sent(before)) => (Some(before), None),
            Some(Has::Stamp(stamp)) => (None, Some(stamp)),
            None => (None, None),
        };
        let update = Update::new(
            user.as_str(),
            Arc::clone(&shown),
            before,
            self.setting.rooms,
            self.has_one_user,
        );
        match update {
            Ok(Some(update)) if stamp.as_ref() != Some(&update.stamp) => {
                self.setting.metrics.live_update();
                self.update = Some((name, update));
            }
            _ => {}
        }
        self.has.insert(name, Has::Sent(shown));
        true
    }

    fn say_retry(&mut self) {
        if std::mem::take(&mut self.owes_retry) {
            self.writer.retry(&mut self.out);
        }
    }

    fn end(&mut self, ending: Ending) {
        match ending {
            Ending::Bye(reason) => {
                self.setting.metrics.live_ended(reason.word());
                let on_arrival = self.watcher.is_none();
                self.writer.bye(reason, on_arrival, &mut self.out);
                if on_arrival && self.socket.is_some() {
                    self.held = Some(reason);
                    self.ends = Instant::now() + HELD;
                    // No beat comes any more.
                    self.next_beat = self.ends;
                    return;
                }
                self.writer
                    .close(reason.code(), reason.word(), &mut self.out);
            }
            Ending::Refused(code, why) => self.writer.close(code, why, &mut self.out),
            Ending::Answered(Some(code)) => self.writer.close(code, "", &mut self.out),
            Ending::Answered(None) => {}
        }
        self.is_over = true;
        // It watches nobody any more.
        self.watcher = None;
        self.socket = None;
        self.update = None;
    }
}

/// The moment at which a stream ends whose token expires then.
fn before(until: u64) -> Instant {
    let left = until.saturating_sub(unix_seconds());
    // A token that is good for a short time only is used for half of it, and for a second at least: its client may be one that
    // comes again at once with the same.
    let left = left.saturating_sub(BEFORE_EXPIRY).max(left / 2).max(1);
    Instant::now() + Duration::from_secs(left)
}

impl MessageBody for LiveBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let this = self.get_mut();
        loop {
            if !this.out.is_empty() {
                let piece = this.out.split_to(this.out.len().min(PIECE)).freeze();
                return Poll::Ready(Some(Ok(piece)));
            }
            if this.out.capacity() > 0 {
                // A stream that waits keeps no buffer.
                this.out = BytesMut::new();
            }
            if this.is_over {
                return Poll::Ready(None);
            }
            if let Some(ending) = this.ending.take() {
                this.end(ending);
                continue;
            }
            if this.update.is_some() {
                this.say_retry();
            }
            if let Some((_, update)) = &mut this.update {
                if update.write(this.writer, &mut this.out) {
                    this.update = None;
                }
                continue;
            }
            if this.poll_time(cx) || this.poll_socket(cx) || this.poll_change(cx) {
                continue;
            }
            return Poll::Pending;
        }
    }
}
