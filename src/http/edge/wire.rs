//! The socket, and what of its bytes the engine sees when.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use super::chunks::Chunks;
use super::head::{self, BodyEnd, Framing, Head};
use super::places::NoPlace;
use super::worker::{READ, Worker};
use crate::http::unserved::Unserved;

/// Bytes that are read away, for as long as a peer may linger, of what it goes on sending after its answer. If they were left
/// unread the system would reset the connection, and the peer might lose the answer with it.
const LINGER_BYTES: usize = 32 * 1024 * 1024;

/// What there is to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// It is in the reader's own buffer.
    Given,
    /// It is ready to be handed on.
    Ready,
    /// Nothing more.
    End,
}

/// The connection that a wire belongs to: what the wire asks of it, and tells it.
pub(super) trait Keeper: Sized {
    /// Whose clock and limits hold here.
    fn worker(&self) -> &Worker;
    /// Why nothing is served here, if nothing is.
    fn turned_away(&self) -> Option<NoPlace>;
    /// Whether the server stops and nothing has come for a while. Of somebody who has just come, or has just been answered, the
    /// next request may be on its way, and would be cut: it is waited for, and its answer says that the connection ends.
    fn may_leave(&self) -> bool;
    /// The first byte of another request has come.
    fn head_begins(&self);
    /// A request goes to the engine, with a body behind its head or without.
    fn request_begins(&self, without_body: bool);
    /// So many bytes of the body go to the engine.
    fn body_given(&self, bytes: usize);
    /// All of the body has gone to the engine.
    fn body_is_over(&self);
    /// Whether the handler wants no more of the body.
    fn is_body_unwanted(&self) -> bool;
    /// Whether the engine has as much of the body as it may have; if so, the handler's reading wakes the connection.
    fn waits_for_reader(&self) -> bool;
    /// Answers in place of a handler, and ends.
    fn refuse(&self, wire: &mut Wire, why: Unserved);
    /// Says that there is no place, and ends.
    fn turn_away(&self, wire: &mut Wire, why: NoPlace);
}

/// The socket, and the bytes that are between it and the engine.
pub(super) struct Wire {
    stream: TcpStream,
    /// As they came.
    input: BytesMut,
    /// How much of `input` has been looked through for the end of a head, and how much when it was last parsed.
    searched: usize,
    parsed: usize,
    /// Whether a request has been served here, and whether the head of the next one has begun to come: from then on it has its own
    /// deadline. The first one's runs from the start.
    used: bool,
    begun: bool,
    /// As the engine is to see them.
    ready: BytesMut,
    rest: Rest,
    /// Whether something came that has to wait for the answer before it.
    more: bool,
    end: End,
}

/// What is still to come of a body.
enum Rest {
    Nothing,
    Bytes(u64),
    Chunks(Chunks),
    Anything,
    /// It can't be had any more.
    Lost,
}

/// How far the end has come.
enum End {
    NotYet,
    /// A refusal that is to be sent first, and whether the peer is then waited for.
    Words {
        words: BytesMut,
        then_drain: bool,
    },
    Finish {
        then_drain: bool,
    },
    Drain {
        left: usize,
    },
    Done,
}

impl Wire {
    /// Of a socket that has just been accepted.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            searched: 0,
            parsed: 0,
            used: false,
            begun: false,
            ready: BytesMut::new(),
            rest: Rest::Nothing,
            more: false,
            end: End::NotYet,
        }
    }

    /// What has come and is not handed on.
    pub(super) fn unread_input(&self) -> &[u8] {
        &self.input
    }

    /// Whether a head has begun to come.
    pub(super) fn has_begun(&self) -> bool {
        !self.input.is_empty()
    }

    /// Whether something is to be handed on.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether the socket has something that nobody has read.
    pub(super) fn has_unread(&self, cx: &mut Context<'_>) -> bool {
        self.stream.poll_read_ready(cx).is_ready()
    }

    /// Hands on what is ready, if anything is.
    pub(super) fn hand_on(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.ready.is_empty() {
            return false;
        }
        let bytes = self.ready.len().min(buf.remaining());
        buf.put_slice(&self.ready.split_to(bytes));
        true
    }

    /// Whether the whole body of the request has been handed on.
    pub(super) fn body_is_over(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }

    /// Whether something came that has to wait for the answer before it.
    pub(super) fn has_more(&self) -> bool {
        self.more
    }

    /// To be said before the end. With `then_drain` what the peer goes on sending is read away for a while.
    pub(super) fn end_with(&mut self, words: BytesMut, then_drain: bool) {
        self.end = End::Words { words, then_drain };
    }

    /// Ends the connection at once when it is dropped, with all that the kernel still holds of it.
    pub(super) fn abort(&self) {
        // Where that can't be, it ends as others do.
        let _ = self.stream.set_zero_linger();
    }

    /// Writes what the kernel takes.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// Says what is to be said, ends our side, and reads away what the peer has sent, or the kernel would take back what we said.
    pub(super) fn poll_end(
        &mut self,
        worker: &Worker,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match &mut self.end {
                End::NotYet => {
                    let all_read = matches!(self.rest, Rest::Nothing) && self.input.is_empty();
                    self.end = End::Finish {
                        then_drain: !all_read,
                    };
                }
                End::Words { words, then_drain } => {
                    let then_drain = *then_drain;
                    let bytes = ready!(Pin::new(&mut self.stream).poll_write(cx, words))?;
                    words.advance(bytes.min(words.len()));
                    if bytes == 0 || words.is_empty() {
                        self.end = End::Finish { then_drain };
                    }
                }
                End::Finish { then_drain } => {
                    let then_drain = *then_drain;
                    ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                    self.input = BytesMut::new();
                    // Where all was read, only a peer that has sent more in the meantime is waited for.
                    let unread =
                        then_drain || matches!(self.poll_discard(worker, cx), Poll::Ready(Ok(1..)));
                    self.end = match unread {
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

    /// Reads on until there is a whole head: straight into the engine's buffer where that is possible, which it nearly always is.
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
            if !empty && self.used && !std::mem::replace(&mut self.begun, true) {
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
                // What had come by now was looked at. A head that has begun has its time.
                Poll::Pending if empty && connection.may_leave() => {
                    return Poll::Ready(Ok(Input::End));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Reads into the engine's buffer. What is not just one request, or a request and some of its body, is taken back out.
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

    /// Reads at most so many bytes behind what is there.
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

    /// Reads something away.
    fn poll_discard(&mut self, worker: &Worker, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = worker.scratch();
        let mut part = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        Poll::Ready(Ok(part.filled().len()))
    }

    /// Takes a whole head out of what has come. `None`: there is none yet.
    fn take_head(&mut self, connection: &impl Keeper) -> Option<Input> {
        if self.input.is_empty() {
            return None;
        }
        // Blank lines in front of a request are nothing, as ever.
        let blank = self.input.iter().take_while(|byte| b"\r\n".contains(byte));
        let blank = blank.count();
        self.input.advance(blank);
        if self.input.is_empty() {
            self.searched = 0;
            self.parsed = 0;
            return None;
        }
        let max = connection.worker().shared.bounds.max_head_bytes;
        if let Some(why) = connection.turned_away() {
            let seen = head::shows_path(&self.input) || self.input.len() >= max;
            return seen.then(|| {
                connection.turn_away(self, why);
                Input::End
            });
        }
        // Parsed at first, when the end may have come, and when there is twice as much: whoever sends byte by byte makes us read
        // everything a few times and not once for each byte.
        let from = self.searched.saturating_sub(3);
        let new = self.input.get(from..).unwrap_or_default();
        let ends = [b"\n\r\n".as_slice(), b"\n\n"];
        let ends = ends
            .iter()
            .any(|end| memchr::memmem::find(new, end).is_some());
        let length = self.input.len();
        self.searched = length;
        if !ends && length < self.parsed.saturating_mul(2) && length < max {
            return None;
        }
        self.parsed = length;
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

    /// A request goes to the engine.
    fn begin(&mut self, connection: &impl Keeper, rest: Rest) {
        connection.request_begins(matches!(rest, Rest::Nothing));
        self.used = true;
        self.begun = false;
        self.rest = rest;
        self.more = !self.input.is_empty();
        if !self.more && self.input.capacity() > 0 {
            // A connection that waits holds nothing.
            self.input = BytesMut::new();
        }
    }

    /// Of the body as much as the handler is going to read soon; behind it nothing, until the answer is out.
    pub(super) fn poll_body(
        &mut self,
        connection: &impl Keeper,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Input>> {
        loop {
            let left = match &self.rest {
                Rest::Nothing => return self.hold(cx),
                Rest::Lost => return Poll::Ready(Ok(Input::End)),
                _ if connection.is_body_unwanted() => return self.lose(),
                _ if connection.waits_for_reader() => return Poll::Pending,
                Rest::Bytes(left) => Some(*left),
                Rest::Anything => None,
                Rest::Chunks(_) => {
                    if self.input.is_empty()
                        && ready!(self.poll_scratch(connection.worker(), cx, READ))? == 0
                    {
                        return self.lose();
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
                return self.lose();
            }
            connection.body_given(bytes);
            if let Some(left) = left {
                self.rest = Rest::bytes(left.saturating_sub(bytes as u64));
                self.body_may_be_over(connection);
            }
            return Poll::Ready(Ok(Input::Given));
        }
    }

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
            self.body_may_be_over(connection);
        }
        (!self.ready.is_empty()).then_some(Input::Ready)
    }

    fn body_may_be_over(&self, connection: &impl Keeper) {
        if matches!(self.rest, Rest::Nothing) {
            connection.body_is_over();
        }
    }

    /// The rest of the body is not to be had, or not wanted.
    fn lose(&mut self) -> Poll<io::Result<Input>> {
        self.rest = Rest::Lost;
        Poll::Ready(Ok(Input::End))
    }

    /// Nothing more until the answer is out; only whether something is there is noted.
    fn hold(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Input>> {
        self.more = self.more || !self.input.is_empty() || self.has_unread(cx);
        Poll::Pending
    }
}

impl Rest {
    fn bytes(left: u64) -> Self {
        match left {
            0 => Rest::Nothing,
            left => Rest::Bytes(left),
        }
    }
}
