//! Who asks for a stream, and for whom.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use actix_web::http::header::ORIGIN;
use actix_web::http::{Method, StatusCode};
use serde::Deserialize;

use super::super::problem::Problem;
use super::super::reads::{MAX_USERS, MAX_USERS_BYTES};
use super::super::users::Users;
use super::super::{Media, Tenants, Times, bearer, media_type, parameters};
use crate::http::jwt::Unusable;
use crate::http::request::{Call, unix_seconds};
use crate::names::UserId;

/// Who asks.
pub(super) enum Caller {
    /// An app's back end, or one of its users' own devices.
    Known {
        /// The app's place in the configuration.
        index: usize,
        /// The user; none: it is a back end.
        user: Option<Arc<UserId>>,
        /// When the token expires, in seconds since the epoch.
        until: Option<u64>,
    },
    /// A user whose token is good no more.
    Expired,
}

/// What is asked for.
#[derive(Default)]
pub(super) struct Asked {
    /// The users, each with the stamp that the caller has.
    pub(super) users: Vec<(UserId, Option<String>)>,
    pub(super) rooms: bool,
    /// Whether the stream is about one user and has no other.
    pub(super) is_single: bool,
}

/// Where a token was found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Query,
    Cookie,
}

/// Finds out who asks. Counts a refusal.
pub(super) fn caller(call: &Call<'_>, upgrade: bool) -> Result<Caller, Problem> {
    let tenants: &Tenants = call.tenants()?;
    if let Some(key) = bearer(call)
        && let Some(index) = tenants.servers.find(key).copied()
    {
        call.is_of(index);
        is_let_in(call, &tenants.users, index, Place::Header, upgrade)?;
        return Ok(Caller::Known {
            index,
            user: None,
            until: None,
        });
    }
    let refused = || {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "a valid server key or user token is needed",
        )
    };
    let Some((place, token)) = token(call) else {
        return Err(call.refused().map_or_else(refused, Problem::too_many));
    };
    match tenants.users.tokens.verify_until(&token, unix_seconds()) {
        Ok((user, index, until)) => {
            call.is_of(index);
            is_let_in(call, &tenants.users, index, place, upgrade)?;
            Ok(Caller::Known {
                index,
                user: Some(user),
                until: Some(until),
            })
        }
        Err(Unusable::Untimely) => {
            call.known_refused();
            Ok(Caller::Expired)
        }
        Err(why @ Unusable::NotSeconds) => {
            call.known_refused();
            Err(Problem::new(StatusCode::UNAUTHORIZED, why.to_string()))
        }
        Err(Unusable::Forged) => Err(call.refused().map_or_else(refused, Problem::too_many)),
    }
}

/// The token of a call: in the header, the query or the cookie, in this order.
fn token<'a>(call: &Call<'a>) -> Option<(Place, Cow<'a, str>)> {
    if let Some(token) = bearer(call) {
        return Some((Place::Header, token.into()));
    }
    if let Some((_, token)) = call.query().find(|(name, _)| name == "token") {
        return Some((Place::Query, token));
    }
    let name = &call.state.config.live.token_cookie;
    if name.is_empty() {
        return None;
    }
    let mut cookies = call.headers("cookie").flat_map(|list| list.split(';'));
    let token = cookies.find_map(|cookie| {
        let (found, value) = cookie.trim().split_once('=')?;
        (found == name).then_some(value)
    });
    token.map(|token| (Place::Cookie, token.into()))
}

/// A page may only open a WebSocket, which no other rule keeps a page of another origin from, if its origin is let in. One that
/// has its token in a cookie does not show that it knows it: its origin has to be named, or be this server's own.
fn is_let_in(
    call: &Call<'_>,
    users: &Users,
    index: usize,
    place: Place,
    upgrade: bool,
) -> Result<(), Problem> {
    let Some(origin) = call.req.headers().get(ORIGIN).filter(|_| upgrade) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or_default();
    let host = origin.split_once("://").map_or("", |(_, host)| host);
    let by_name = place == Place::Cookie;
    let named = users.origins_of(index);
    let named = named.is_some_and(|origins| origins.lets(origin, by_name));
    match named || (!host.is_empty() && host.eq_ignore_ascii_case(call.host())) {
        true => Ok(()),
        false => {
            let detail = "pages of this origin may not open streams of this app";
            Err(Problem::new(StatusCode::FORBIDDEN, detail))
        }
    }
}

/// What is asked for, in the query or the body.
pub(super) async fn asked(
    call: &mut Call<'_>,
    caller: &Caller,
    upgrade: bool,
) -> Result<Asked, Problem> {
    let known = [
        ("users", Times::Many),
        ("include", Times::Many),
        ("stamp", Times::Once),
        ("token", Times::Once),
        // What libraries send in the place of the header.
        ("lastEventId", Times::Once),
        ("last_event_id", Times::Once),
    ];
    let (mut asked, mut stamp, mut is_for_one) = (Asked::default(), None, false);
    let mut names_users = false;
    let mut named: Vec<String> = Vec::new();
    for (name, value) in parameters(call, &known)? {
        match name {
            "users" => {
                names_users = true;
                let users = value.split(',').filter(|user| !user.is_empty());
                named.extend(users.map(str::to_owned));
            }
            "include" => asked.rooms |= super::super::includes(&value, "rooms")?,
            "token" => {}
            name => {
                is_for_one |= name == "stamp" && !value.is_empty();
                stamp = Some(value.into_owned());
            }
        }
    }
    let header = call.header("last-event-id").map(str::to_owned);
    let stamp = header.or(stamp).filter(|stamp| !stamp.is_empty());
    let mut stamps = HashMap::new();
    let index = match caller {
        Caller::Expired => return Ok(asked),
        Caller::Known { index, user, .. } => {
            if let Some(user) = user {
                if call.req.method() == Method::POST {
                    let detail = "POST is for server keys: with a user token ask by GET, and for its own user";
                    return Err(Problem::bad(detail));
                }
                if names_users {
                    let detail = "users is for server keys: a user token asks for its own user";
                    return Err(Problem::bad(detail));
                }
                asked.users.push((user.as_ref().clone(), stamp));
                asked.is_single = true;
                return Ok(asked);
            }
            *index
        }
    };
    if call.req.method() == Method::POST {
        let body = read_body(call, index).await?;
        asked.rooms |= match body.include.unwrap_or_default().as_slice() {
            [] => false,
            include if include.iter().all(|one| one == "rooms") => true,
            _ => return Err(Problem::bad("include can only name rooms")),
        };
        named.extend(body.users);
        stamps = body.stamps.unwrap_or_default();
    }
    asked.users = users(named, &mut stamps)?;
    match asked.users.as_mut_slice() {
        [] if !upgrade => return Err(Problem::bad("users are missing")),
        [] if names_users => {
            let detail = "users names nobody: a WebSocket that begins with nobody leaves it out";
            return Err(Problem::bad(detail));
        }
        [(_, known)] => {
            asked.is_single = !upgrade;
            if stamp.is_some() {
                *known = stamp;
            }
        }
        _ if is_for_one => {
            let detail =
                "stamp is for a stream of one user: the body's stamps are for those of many";
            return Err(Problem::bad(detail));
        }
        _ => {}
    }
    Ok(asked)
}

/// Names of users, with their stamps.
pub(super) fn users(
    named: Vec<String>,
    stamps: &mut HashMap<String, String>,
) -> Result<Vec<(UserId, Option<String>)>, Problem> {
    if named.len() > MAX_USERS {
        let detail = format!("at most {MAX_USERS} users can be asked for at once");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    let mut users = Vec::with_capacity(named.len());
    for user in named {
        let stamp = stamps.remove(&user);
        let user = UserId::parse(user)
            .map_err(|error| Problem::bad(format!("users: a user id {error}")))?;
        users.push((user, stamp));
    }
    Ok(users)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    users: Vec<String>,
    stamps: Option<HashMap<String, String>>,
    include: Option<Vec<String>>,
}

async fn read_body(call: &mut Call<'_>, index: usize) -> Result<Body, Problem> {
    if matches!(media_type(call), Some(Media::Other | Media::Lines)) {
        let detail = "the body must be application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let most = MAX_USERS_BYTES.min(call.state.config.server.max_bodies_bytes / 4);
    let body = call.body(index, most).await?;
    let (body, _memory) = call.state.bodies.work(body, parse_body).await;
    body
}

fn parse_body(body: &[u8]) -> Result<Body, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => "is not {users, stamps, include}",
            _ => "is not JSON",
        };
        let (line, column) = (error.line(), error.column());
        Problem::bad(format!("the body {what}: line {line}, column {column}"))
    })
}
