//! The socket and its buffers: which of the peer's bytes the engine sees, and when.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use super::chunks::Chunks;
use super::head::{self, BodyEnd, Framing, Head};
use super::places::NoPlace;
use super::worker::{READ, Worker};
use crate::http::unserved::Unserved;

/// How many bytes are read away of what a peer goes on sending after its last answer. If they were left unread, the kernel would
/// reset the connection, and the peer might lose the answer.
const LINGER_BYTES: usize = 32 * 1024 * 1024;

/// How many bytes the kernel may keep of an answer that has no end that is known.
const SEND_BUFFER: usize = 32 * 1024;

/// What the engine can read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// Bytes that are in its buffer already.
    Given,
    /// Bytes that [`Wire::hand_on`] hands on.
    Ready,
    /// Nothing more.
    End,
}

/// The connection that a wire belongs to: what the wire asks of it and tells it.
pub(super) trait Keeper: Sized {
    /// The worker whose clock and bounds hold.
    fn worker(&self) -> &Worker;
    /// Why the connection got no place. None: it has one.
    fn turned_away(&self) -> Option<NoPlace>;
    /// Whether the connection can end because the server stops. It can't when its peer has just connected or has just been
    /// answered: the next request may be on its way and would be lost. That request is answered, and its answer ends the
    /// connection.
    fn may_leave(&self) -> bool;
    /// The first byte of a further request has come.
    fn head_begins(&self);
    /// A request goes to the engine: its head, and a body unless it is `without_body`.
    fn request_begins(&self, without_body: bool);
    /// So many bytes of the body go to the engine.
    fn body_given(&self, bytes: usize);
    /// Whether the answer has no end that is known. It is for nobody once its peer has ended its side.
    fn is_streaming(&self) -> bool;
    /// Nobody takes the answer any more: the connection ends.
    fn peer_has_gone(&self);
    /// All of the body has gone to the engine.
    fn body_given_whole(&self);
    /// Whether the handler wants no more of the body.
    fn is_body_unwanted(&self) -> bool;
    /// Whether the engine has as much of the body as it may have. If so, the connection is woken once the handler has read some.
    fn waits_for_handler(&self) -> bool;
    /// Ends the connection with a refusal.
    fn refuse(&self, wire: &mut Wire, why: Unserved);
    /// Ends the connection with the answer that there is no place.
    fn turn_away(&self, wire: &mut Wire, why: NoPlace);
}

/// The socket, and the bytes between it and the engine.
pub(super) struct Wire {
    stream: TcpStream,
    /// Bytes as the peer sent them.
    input: BytesMut,
    /// How much of `input` has been searched for the end of a head.
    searched: usize,
    /// How long `input` was when it was last parsed.
    parsed: usize,
    /// Whether a request has gone to the engine. Before that, the deadline of the head runs from the start of the connection.
    has_served: bool,
    /// Whether the head of a further request has begun to come. Its deadline runs from then on.
    head_begun: bool,
    /// Bytes that the engine gets next.
    ready: BytesMut,
    rest: Rest,
    /// Whether something has come that has to wait until the present request is answered.
    more: bool,
    end: End,
}

/// What has not gone to the engine of the present request's body.
enum Rest {
    Nothing,
    Bytes(u64),
    Chunks(Chunks),
    /// All that comes.
    Anything,
    /// Something that is not read any more.
    Lost,
}

/// How far the end of the connection has come.
enum End {
    NotBegun,
    /// A refusal is being sent.
    Refusal {
        answer: BytesMut,
        then_drain: bool,
    },
    /// Our side is being shut down.
    Shutdown {
        then_drain: bool,
    },
    /// What the peer still sends is being read away, until it ends or so many more bytes have come.
    Drain {
        left: usize,
    },
    Done,
}

impl Wire {
    /// The wire of a socket that has just been accepted.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            searched: 0,
            parsed: 0,
            has_served: false,
            head_begun: false,
            ready: BytesMut::new(),
            rest: Rest::Nothing,
            more: false,
            end: End::NotBegun,
        }
    }

    /// What has come and has not gone to the engine.
    pub(super) fn unread_input(&self) -> &[u8] {
        &self.input
    }

    /// Whether a head has begun to come.
    pub(super) fn has_begun(&self) -> bool {
        !self.input.is_empty()
    }

    /// Whether there are bytes to hand on.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether the kernel has something to read, or the peer's end.
    pub(super) fn has_unread(&self, cx: &mut Context<'_>) -> bool {
        self.stream.poll_read_ready(cx).is_ready()
    }

    /// Hands on the bytes that are ready. Answers false if there are none.
    pub(super) fn hand_on(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.ready.is_empty() {
            return false;
        }
        let bytes = self.ready.len().min(buf.remaining());
        buf.put_slice(&self.ready.split_to(bytes));
        true
    }

    /// Whether all of the request's body has gone to the engine.
    pub(super) fn body_is_over(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }

    /// Whether something has come that had to wait until the request was answered.
    pub(super) fn has_more(&self) -> bool {
        self.more
    }

    /// Sets the answer with which the connection ends. With `then_drain`, what the peer goes on sending is read away for a while.
    pub(super) fn end_with(&mut self, answer: BytesMut, then_drain: bool) {
        self.end = End::Refusal { answer, then_drain };
    }

    /// Has the kernel throw away all that it still holds of the connection when it is dropped.
    pub(super) fn abort(&self) {
        // Where the kernel can't do that, the connection ends as others do.
        let _ = self.stream.set_zero_linger();
    }

    /// Prepares the socket for an answer that has no end that is known: the kernel gives up after this time on a peer that
    /// confirms or takes nothing, and it keeps little of what the peer has not taken.
    pub(super) fn streams(&self, patience: Duration) {
        let socket = SockRef::from(&self.stream);
        // Where the kernel can't do that, the sweep finds such a peer.
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket.set_tcp_user_timeout(Some(patience));
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = patience;
    }

    /// Writes what the kernel takes.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// Sends a refusal if there is one, ends our side, and reads away what the peer still sends: with unread bytes the kernel
    /// would reset the connection, and the peer might lose its answer.
    pub(super) fn poll_end(
        &mut self,
        worker: &Worker,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match &mut self.end {
                End::NotBegun => {
                    let all_read = self.body_is_over() && self.input.is_empty();
                    self.end = End::Shutdown {
                        then_drain: !all_read,
                    };
                }
                End::Refusal { answer, then_drain } => {
                    let then_drain = *then_drain;
                    let bytes = ready!(Pin::new(&mut self.stream).poll_write(cx, answer))?;
                    answer.advance(bytes.min(answer.len()));
                    if bytes == 0 || answer.is_empty() {
                        self.end = End::Shutdown { then_drain };
                    }
                }
                End::Shutdown { then_drain } => {
                    let then_drain = *then_drain;
                    ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                    self.input = BytesMut::new();
                    // Where all had been read, the peer may have sent more by now.
                    let drain =
                        then_drain || matches!(self.poll_discard(worker, cx), Poll::Ready(Ok(1..)));
                    self.end = match drain {
                        true => End::Drain { left: LINGER_BYTES },
                        false => End::Done,
                    };
                }
                End::Drain { left } => {
                    let left = *left;
                    let bytes = ready!(self.poll_discard(worker, cx))?;
                    self.end = match left.checked_sub(bytes) {
                        Some(left) if bytes > 0 => End::Drain { left },
                        _ => End::Done,
                    };
                }
                End::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Reads until there is a whole head. It reads into `buf`, the engine's buffer, where there is one and nothing has come
    /// before: nearly always.
    pub(super) fn poll_head(
        &mut self,
        connection: &impl Keeper,
        cx: &mut Context<'_>,
        mut buf: Option<&mut ReadBuf<'_>>,
    ) -> Poll<io::Result<Input>> {
        let worker = connection.worker();
        let max = worker.shared.bounds.max_head_bytes;
        loop {
            if let Some(next) = self.take_head(connection) {
                return Poll::Ready(Ok(next));
            }
            let empty = self.input.is_empty();
            if !empty && self.has_served && !std::mem::replace(&mut self.head_begun, true) {
                connection.head_begins();
            }
            let read = match buf.as_deref_mut().filter(|_| empty) {
                Some(buf) => {
                    let read = self.poll_straight(connection, cx, buf);
                    if let Poll::Ready(Ok(Some(next))) = read {
                        return Poll::Ready(Ok(next));
                    }
                    read.map_ok(|_| 1)
                }
                None => {
                    let room = max.saturating_sub(self.input.len()).clamp(1, READ);
                    self.poll_scratch(worker, cx, room)
                }
            };
            match read {
                Poll::Ready(Ok(0)) if empty => return Poll::Ready(Ok(Input::End)),
                Poll::Ready(Ok(0)) => {
                    const ENDED: Unserved =
                        Unserved::Malformed("the head of the request ends early");
                    connection.refuse(self, ENDED);
                    return Poll::Ready(Ok(Input::End));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // Only without a part of a head: one that has begun keeps its time.
                Poll::Pending if empty && connection.may_leave() => {
                    return Poll::Ready(Ok(Input::End));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Reads into the engine's buffer. If that brings a request, its head and its body stay there; else nothing does. The rest
    /// goes to `input`. None: no request can go to the engine like this.
    fn poll_straight(
        &mut self,
        connection: &impl Keeper,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Option<Input>>> {
        let max = connection.worker().shared.bounds.max_head_bytes;
        let start = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let new = buf.filled().get(start..).unwrap_or_default();
        if new.is_empty() {
            return Poll::Ready(Ok(Some(Input::End)));
        }
        if let Head::Whole(
            length,
            Framing {
                body,
                rewrite: false,
            },
        ) = head::read(new, max)
            && body != BodyEnd::Chunked
        {
            let (head, behind) = new.split_at_checked(length).unwrap_or((new, &[]));
            let (own, rest) = match body {
                BodyEnd::Length(bytes) => {
                    let own = behind
                        .len()
                        .min(usize::try_from(bytes).unwrap_or(usize::MAX));
                    (own, Rest::bytes(bytes.saturating_sub(own as u64)))
                }
                BodyEnd::Endless => (behind.len(), Rest::Anything),
                BodyEnd::None | BodyEnd::Chunked => (0, Rest::Nothing),
            };
            let whole = head.len() + own;
            self.input
                .extend_from_slice(new.get(whole..).unwrap_or_default());
            buf.set_filled(start + whole);
            self.begin(connection, rest);
            if own > 0 {
                connection.body_given(own);
            }
            return Poll::Ready(Ok(Some(Input::Given)));
        }
        self.input.extend_from_slice(new);
        buf.set_filled(start);
        Poll::Ready(Ok(None))
    }

    /// Reads at most so many bytes to the end of `input`.
    fn poll_scratch(
        &mut self,
        worker: &Worker,
        cx: &mut Context<'_>,
        at_most: usize,
    ) -> Poll<io::Result<usize>> {
        let mut scratch = worker.scratch();
        let mut part = ReadBuf::new(scratch.get_mut(..at_most.min(READ)).unwrap_or_default());
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        self.input.extend_from_slice(part.filled());
        Poll::Ready(Ok(part.filled().len()))
    }

    /// Reads some bytes away.
    fn poll_discard(&mut self, worker: &Worker, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = worker.scratch();
        let mut part = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        Poll::Ready(Ok(part.filled().len()))
    }

    /// Takes a whole head out of `input`. None: there is none yet.
    fn take_head(&mut self, connection: &impl Keeper) -> Option<Input> {
        if self.input.is_empty() {
            return None;
        }
        // Empty lines before a request are ignored (RFC 9112, 2.2).
        let line_ends = self.input.iter().take_while(|byte| b"\r\n".contains(byte));
        let line_ends = line_ends.count();
        self.input.advance(line_ends);
        if self.input.is_empty() {
            self.searched = 0;
            self.parsed = 0;
            return None;
        }
        let max = connection.worker().shared.bounds.max_head_bytes;
        if let Some(why) = connection.turned_away() {
            let is_enough = head::shows_path(&self.input) || self.input.len() >= max;
            return is_enough.then(|| {
                connection.turn_away(self, why);
                Input::End
            });
        }
        if !self.is_worth_parsing(max) {
            return None;
        }
        match head::read(&self.input, max) {
            Head::Partial => None,
            Head::Bad(why) => {
                connection.refuse(self, why);
                Some(Input::End)
            }
            Head::Whole(length, request) => {
                let head = self.input.split_to(length);
                self.searched = 0;
                self.parsed = 0;
                self.ready = match request.rewrite {
                    false => head,
                    true => match head::rewritten(&head) {
                        Some(head) => head,
                        None => {
                            self.input = head;
                            connection.refuse(self, Unserved::TargetTooLong);
                            return Some(Input::End);
                        }
                    },
                };
                let rest = match request.body {
                    BodyEnd::None => Rest::Nothing,
                    BodyEnd::Length(bytes) => Rest::bytes(bytes),
                    BodyEnd::Chunked => Rest::Chunks(Chunks::new()),
                    BodyEnd::Endless => Rest::Anything,
                };
                self.begin(connection, rest);
                Some(Input::Ready)
            }
        }
    }

    /// Whether to parse `input`: at first, when a head may have come to its end, and when there is twice as much as the last
    /// time. So a peer that sends byte by byte has its head parsed a few times, and not once for each byte.
    fn is_worth_parsing(&mut self, max: usize) -> bool {
        let from = self.searched.saturating_sub(3);
        let new = self.input.get(from..).unwrap_or_default();
        let may_be_whole = [b"\n\r\n".as_slice(), b"\n\n"]
            .iter()
            .any(|end| memchr::memmem::find(new, end).is_some());
        let length = self.input.len();
        self.searched = length;
        let is_worth_it = may_be_whole || length >= self.parsed.saturating_mul(2) || length >= max;
        if is_worth_it {
            self.parsed = length;
        }
        is_worth_it
    }

    /// A request goes to the engine, with `rest` of its body to come.
    fn begin(&mut self, connection: &impl Keeper, rest: Rest) {
        connection.request_begins(matches!(rest, Rest::Nothing));
        self.has_served = true;
        self.head_begun = false;
        self.rest = rest;
        self.more = !self.input.is_empty();
        if !self.more && self.input.capacity() > 0 {
            // A connection that waits keeps no buffer.
            self.input = BytesMut::new();
        }
    }

    /// Reads as much of the body as the engine may have. Behind the body it reads nothing until the request is answered.
    pub(super) fn poll_body(
        &mut self,
        connection: &impl Keeper,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Input>> {
        loop {
            let left = match &self.rest {
                Rest::Nothing if connection.is_streaming() => {
                    return self.wait_for_end(connection, cx);
                }
                Rest::Nothing => return self.wait_for_answer(cx),
                Rest::Lost => return Poll::Ready(Ok(Input::End)),
                _ if connection.is_body_unwanted() => return self.lose_rest(),
                _ if connection.waits_for_handler() => return Poll::Pending,
                Rest::Bytes(left) => Some(*left),
                Rest::Anything => None,
                Rest::Chunks(_) => {
                    if self.input.is_empty()
                        && ready!(self.poll_scratch(connection.worker(), cx, READ))? == 0
                    {
                        return self.lose_rest();
                    }
                    if let Some(next) = self.carry_chunks(connection) {
                        return Poll::Ready(Ok(next));
                    }
                    continue;
                }
            };
            let at_most = left.map_or(usize::MAX, |left| {
                usize::try_from(left).unwrap_or(usize::MAX)
            });
            let at_most = at_most.min(READ).min(buf.remaining());
            let bytes = if self.input.is_empty() {
                let mut part = ReadBuf::new(buf.initialize_unfilled_to(at_most));
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
                let bytes = part.filled().len();
                buf.advance(bytes);
                bytes
            } else {
                let bytes = at_most.min(self.input.len());
                buf.put_slice(&self.input.split_to(bytes));
                bytes
            };
            if bytes == 0 {
                return self.lose_rest();
            }
            connection.body_given(bytes);
            if let Some(left) = left {
                self.rest = Rest::bytes(left.saturating_sub(bytes as u64));
                if self.body_is_over() {
                    connection.body_given_whole();
                }
            }
            return Poll::Ready(Ok(Input::Given));
        }
    }

    /// Puts what has come of a chunked body into `ready`. None: no data has come, only framing.
    fn carry_chunks(&mut self, connection: &impl Keeper) -> Option<Input> {
        let Rest::Chunks(chunks) = &mut self.rest else {
            return Some(Input::End);
        };
        let Ok(bytes) = chunks.carry(&mut self.input, &mut self.ready) else {
            self.rest = Rest::Lost;
            return Some(Input::End);
        };
        if bytes > 0 {
            connection.body_given(bytes);
        }
        if chunks.is_over() {
            self.rest = Rest::Nothing;
            connection.body_given_whole();
        }
        (!self.ready.is_empty()).then_some(Input::Ready)
    }

    /// The rest of the body can't be read, or the handler does not want it.
    fn lose_rest(&mut self) -> Poll<io::Result<Input>> {
        self.rest = Rest::Lost;
        Poll::Ready(Ok(Input::End))
    }

    /// Reads nothing more while the answer goes on. Only looks whether the peer has ended its side.
    /// If it has, the connection ends at once: the engine would not know until it writes.
    fn wait_for_end(
        &mut self,
        connection: &impl Keeper,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Input>> {
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        match ready!(self.stream.poll_peek(cx, &mut byte))? {
            0 => connection.peer_has_gone(),
            // A further request, for after the answer.
            _ => self.more = true,
        }
        Poll::Pending
    }

    /// Reads nothing more until the request is answered. Only notes whether something has come.
    fn wait_for_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Input>> {
        self.more = self.more || !self.input.is_empty() || self.has_unread(cx);
        Poll::Pending
    }
}

impl Rest {
    /// So many bytes.
    fn bytes(left: u64) -> Self {
        match left {
            0 => Rest::Nothing,
            left => Rest::Bytes(left),
        }
    }
}
