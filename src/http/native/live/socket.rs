//! What a client says over WebSocket.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_http::ws::{CloseCode, Codec, Frame, Message, ProtocolError};
use actix_web::web;
use bytes::BytesMut;
use futures_util::Stream as _;
use serde::Deserialize;
use tokio_util::codec::Decoder as _;

use super::super::reads::MAX_USERS;
use super::entry::{Caller, users};
use crate::error::Result;
use crate::http::jwt::Unusable;
use crate::http::native::Tenants;
use crate::http::request::{Call, unix_seconds};
use crate::http::state::State;
use crate::names::UserId;

/// The most bytes of a message: a thousand users of usual names.
const MAX_MESSAGE: usize = 64 << 10;
/// The most bytes of a frame before its message.
const MAX_HEAD: usize = 14;
/// How many messages are worked on before others have their turn.
const AT_ONCE: usize = 16;

/// The client's side of a WebSocket.
pub(super) struct Socket {
    payload: web::Payload,
    codec: Codec,
    input: BytesMut,
    state: Option<web::Data<State>>,
    index: usize,
    user: Option<Arc<UserId>>,
    in_a_row: usize,
    /// What came last is no message, and what follows it can't be read.
    is_broken: bool,
}

/// What the client wants.
pub(super) enum Wish {
    Subscribe(Vec<(UserId, Option<String>)>),
    Unsubscribe(Vec<UserId>),
    /// The token is good until then, in seconds since the epoch.
    Renewed(u64),
    Expired,
    Pong(Message),
    /// It says goodbye, or nothing more.
    Close(Option<CloseCode>),
    /// It says what it may not say.
    Bad(CloseCode, &'static str),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    subscribe: Option<Vec<String>>,
    stamps: Option<HashMap<String, String>>,
    unsubscribe: Option<Vec<String>>,
    token: Option<String>,
}

impl Socket {
    pub(super) fn new(payload: web::Payload, caller: &Caller, call: &Call<'_>) -> Result<Self> {
        let (index, user) = match caller {
            Caller::Known { index, user, .. } => (*index, user.clone()),
            Caller::Expired => (0, None),
        };
        Ok(Self {
            payload,
            codec: Codec::new().max_size(MAX_MESSAGE),
            input: BytesMut::new(),
            state: call.req.app_data::<web::Data<State>>().cloned(),
            index,
            user,
            in_a_row: 0,
            is_broken: false,
        })
    }

    /// The next that the client wants.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Wish> {
        if self.is_broken {
            return Poll::Pending;
        }
        loop {
            match self.codec.decode(&mut self.input) {
                Ok(Some(frame)) => {
                    self.in_a_row += 1;
                    if let Some(wish) = self.wish(frame) {
                        return Poll::Ready(wish);
                    }
                    if self.in_a_row > AT_ONCE {
                        self.in_a_row = 0;
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    continue;
                }
                // The codec looks at a frame's length when it has the whole frame.
                Ok(None) if self.input.len() <= MAX_MESSAGE + MAX_HEAD => {}
                Ok(None) | Err(ProtocolError::Overflow) => {
                    self.is_broken = true;
                    return Poll::Ready(Wish::Bad(CloseCode::Size, "the message is too long"));
                }
                Err(_) => {
                    self.is_broken = true;
                    return Poll::Ready(Wish::Bad(CloseCode::Protocol, "no WebSocket frame"));
                }
            }
            self.in_a_row = 0;
            match Pin::new(&mut self.payload).poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => self.input.extend_from_slice(&bytes),
                Poll::Ready(_) => return Poll::Ready(Wish::Close(None)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// None: nothing.
    fn wish(&self, frame: Frame) -> Option<Wish> {
        Some(match frame {
            Frame::Text(text) => self.said(&text),
            Frame::Ping(bytes) => Wish::Pong(Message::Pong(bytes)),
            Frame::Pong(_) => return None,
            Frame::Close(reason) => {
                let code = reason.map_or(CloseCode::Normal, |reason| reason.code);
                Wish::Close(Some(code))
            }
            Frame::Binary(_) | Frame::Continuation(_) => {
                Wish::Bad(CloseCode::Policy, "only whole text messages are taken")
            }
        })
    }

    fn said(&self, text: &[u8]) -> Wish {
        const UNKNOWN: Wish = Wish::Bad(
            CloseCode::Policy,
            "a message is subscribe, unsubscribe or token",
        );
        const BAD_USER: Wish = Wish::Bad(
            CloseCode::Policy,
            "a user id is 1 to 255 bytes of UTF-8 without control characters",
        );
        let Ok(said) = serde_json::from_slice::<Said>(text) else {
            return UNKNOWN;
        };
        let is_back_end = self.user.is_none();
        match (said.subscribe, said.unsubscribe, said.token) {
            (Some(named), None, None) if is_back_end => {
                let too_many = named.len() > MAX_USERS;
                match users(named, &mut said.stamps.unwrap_or_default()) {
                    Ok(users) => Wish::Subscribe(users),
                    Err(_) if too_many => {
                        Wish::Bad(CloseCode::Policy, "subscribe: at most 1000 user ids")
                    }
                    Err(_) => BAD_USER,
                }
            }
            (None, Some(named), None) if is_back_end && said.stamps.is_none() => {
                let users: Result<_, _> = named.into_iter().map(UserId::parse).collect();
                users.map_or(BAD_USER, Wish::Unsubscribe)
            }
            (None, None, Some(token)) if !is_back_end && said.stamps.is_none() => {
                self.renewed(&token)
            }
            (None, None, Some(_)) if is_back_end => {
                Wish::Bad(CloseCode::Policy, "a server key needs no token")
            }
            (Some(_), None, None) | (None, Some(_), None) => {
                Wish::Bad(CloseCode::Policy, "a user token is good for its own user")
            }
            _ => UNKNOWN,
        }
    }

    fn renewed(&self, token: &str) -> Wish {
        let tenants = self.state.as_ref().map(|state| state.tenants::<Tenants>());
        let Some(Ok(tenants)) = tenants else {
            return Wish::Bad(CloseCode::Error, "");
        };
        match tenants.users.tokens.verify_until(token, unix_seconds()) {
            Ok((user, index, until))
                if index == self.index && Some(&user) == self.user.as_ref() =>
            {
                Wish::Renewed(until)
            }
            Ok(_) => Wish::Bad(CloseCode::Policy, "the token is another user's"),
            Err(Unusable::Untimely) => Wish::Expired,
            Err(Unusable::Forged | Unusable::NotSeconds) => {
                Wish::Bad(CloseCode::Policy, "the token is not valid")
            }
        }
    }
}
