//! The reads of the native API: counts of users.

use std::collections::{BTreeMap, HashSet};

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::problem::Problem;
use super::{
    Media, Tenants, Times, enter, includes, media_type, named, parameters, parameters_of, users,
};
use crate::counts::{ByKind, RoomUnread, Totals, UserUnread};
use crate::engine::{Reader, RoomRows};
use crate::error::Error;
use crate::http::request::{
    Call, Query, decode_segment, json as answer, json_bytes, set, show_limit,
};
use crate::json::{self, LineIndex, NotJson, Surrogates};
use crate::names::{AppId, RoomId, UserId};

/// The most users in one `POST /v1/unread`.
pub(super) const MAX_USERS: usize = 1_000;
/// The most rows in one page of a list.
pub(super) const MAX_ROWS: usize = 10_000;
/// The most bytes of a body that names users: [`MAX_USERS`] of the longest ids, escaped, fit in.
pub(super) const MAX_USERS_BYTES: usize = 2 << 20;

/// `GET /v1/users/{user}/unread`.
pub(super) async fn user_unread(call: &Call<'_>) -> Result<HttpResponse, Problem> {
    let (_, app) = enter(call)?;
    let user = parse_segment(call.parameter(0), UserId::parse)?;
    user_counts(call, app, &user).await
}

/// `GET /v1/me/unread`: the same for the user whose token the call has.
pub(super) async fn me_unread(call: &Call<'_>) -> Result<HttpResponse, Problem> {
    let tenants: &Tenants = call.tenants()?;
    let (app, user, entry) = users::enter(call, &tenants.users)?;
    let answer = match entry.check() {
        Ok(()) => user_counts(call, app, &user).await,
        Err(limited) => Err(limited.into()),
    };
    let mut response = answer.unwrap_or_else(Problem::render);
    show_limit(&mut response, &entry);
    Ok(response)
}

async fn user_counts(call: &Call<'_>, app: &AppId, user: &UserId) -> Result<HttpResponse, Problem> {
    let rows = rows(call.query())?;
    match call
        .state
        .reader
        .user_unread(app, user, rows.as_ref())
        .await?
    {
        Some(unread) => tagged(call, &UserAnswer::new(user, &unread)?),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "no such user")),
    }
}

/// Which rooms a call asks for, if any. What narrows the list down asks for it as well.
pub(super) fn rows(query: Query<'_>) -> Result<Option<RoomRows>, Problem> {
    let known = [
        ("include", Times::Many),
        ("only", Times::Once),
        ("limit", Times::Once),
        ("after", Times::Once),
    ];
    let (mut rows, mut is_asked) = (RoomRows::default(), false);
    for (name, value) in parameters_of(query, &known)? {
        is_asked |= name != "include" || includes(&value, "rooms")?;
        match name {
            "only" if value == "unread" => rows.only_unread = true,
            "only" => return Err(Problem::bad("only can be unread")),
            "limit" => rows.limit = Some(limit(&value)?),
            // As a caller has it that keeps the last id of each page, before the first one.
            "after" if value.is_empty() => {}
            "after" => {
                let room = RoomId::parse(value.into_owned());
                let bad = |error| Problem::bad(format!("after: a room id {error}"));
                rows.after = Some(room.map_err(bad)?);
            }
            _ => {}
        }
    }
    Ok(is_asked.then_some(rows))
}

/// The length of a page.
pub(super) fn limit(value: &str) -> Result<usize, Problem> {
    // Not +5, which `parse` takes.
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| value.parse().ok()).flatten();
    let number = number.filter(|number| (1..=MAX_ROWS).contains(number));
    number.ok_or_else(|| Problem::bad(format!("limit must be 1 to {MAX_ROWS}")))
}

/// `POST /v1/unread`.
pub(super) async fn unread(call: &mut Call<'_>) -> Result<HttpResponse, Problem> {
    let (index, app) = enter(call)?;
    parameters(call, &[])?;
    let users = read_users(call, index).await?;
    let mut named = HashSet::with_capacity(users.len());
    let users: Vec<&UserId> = users.iter().filter(|user| named.insert(*user)).collect();
    let totals = call.state.reader.totals_of(app, &users).await?;
    let users: Vec<_> = users.into_iter().zip(totals).collect();
    #[derive(Serialize)]
    struct AnswerBody<'a> {
        users: Users<'a>,
    }
    Ok(ok(&AnswerBody {
        users: Users(&users),
    }))
}

/// One user's totals as `POST /v1/unread` shows them, for the console. None: there is no such user.
pub(crate) async fn totals(
    reader: &Reader,
    app: &AppId,
    user: &UserId,
) -> Result<Option<serde_json::Value>, Error> {
    let totals = reader.totals_of(app, &[user]).await?;
    let shown = totals.first().and_then(Option::as_ref).map(Families::from);
    Ok(shown.and_then(|shown| serde_json::to_value(shown).ok()))
}

/// Reads the body of a call. Answers the users that it names.
pub(super) async fn read_users(call: &mut Call<'_>, index: usize) -> Result<Vec<UserId>, Problem> {
    if matches!(media_type(call), Some(Media::Other | Media::Lines)) {
        let detail = "the body must be JSON: application/json, text/plain or application/x-www-form-urlencoded";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let most = MAX_USERS_BYTES.min(call.state.config.server.max_bodies_bytes / 4);
    let body = call.body(index, most).await?;
    let (users, _memory) = call.state.bodies.work(body, parse_users).await;
    users
}

/// The users that a body names: `{"users": […]}`.
pub(super) fn parse_users(body: &[u8]) -> Result<Vec<UserId>, Problem> {
    let value = json::parse(body).map_err(|fault| not_json(body, fault))?;
    let fields = value
        .fields()
        .ok_or_else(|| Problem::bad("the body must be an object"))?;
    let mut list = None;
    for (key, value) in fields {
        match key.text(Surrogates::Replace) {
            Some(Ok(key)) if key == "users" => list = value.items(),
            Some(Ok(key)) => {
                let key = named(&key);
                return Err(Problem::bad(format!("{key} is not a field of this call")));
            }
            _ => return Err(Problem::bad("a field's name can't be read")),
        }
    }
    let bad = || Problem::bad("users must be a list of user ids");
    let mut users = Vec::new();
    for user in list.ok_or_else(bad)? {
        if users.len() == MAX_USERS {
            let detail = format!("at most {MAX_USERS} users can be asked for at once");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        let user = match user.text(Surrogates::Refuse).ok_or_else(bad)? {
            Ok(user) => UserId::parse(user).map_err(|error| error.to_string()),
            Err(error) => Err(error.fault.to_string()),
        };
        users.push(user.map_err(|error| Problem::bad(format!("users: a user id {error}")))?);
    }
    Ok(users)
}

/// An id that stands in the path.
pub(super) fn parse_segment<T, E: std::fmt::Display>(
    segment: &str,
    parse: impl Fn(String) -> Result<T, E>,
) -> Result<T, Problem> {
    let decoded = decode_segment(segment)
        .ok_or_else(|| Problem::bad("the path is not percent-encoded UTF-8"))?;
    parse(decoded.into_owned()).map_err(|error| Problem::bad(format!("an id in the path {error}")))
}

#[derive(Serialize)]
struct Numbers {
    total: u64,
    direct: u64,
    group: u64,
    supergroup: u64,
}

impl From<&ByKind> for Numbers {
    fn from(counts: &ByKind) -> Self {
        Self {
            total: counts.total(),
            direct: counts.direct,
            group: counts.group,
            supergroup: counts.supergroup,
        }
    }
}

/// The stamp of what is shown of a user.
pub(super) fn stamp(totals: &Totals, rooms: Option<&[RoomUnread]>) -> Result<String, Problem> {
    let rooms: Option<Vec<_>> = rooms.map(|rooms| rooms.iter().map(RoomAnswer::new).collect());
    digest(&(&Families::from(totals), &rooms))
}

/// The stamp of a user's totals alone, for `unread watch`.
pub(crate) fn totals_stamp(totals: &Totals) -> Option<String> {
    stamp(totals, None).ok()
}

#[derive(Serialize)]
pub(super) struct Families {
    messages: Numbers,
    mentions: Numbers,
    invitations: Numbers,
    unread_rooms: Numbers,
}

impl From<&Totals> for Families {
    fn from(totals: &Totals) -> Self {
        Self {
            messages: (&totals.messages).into(),
            mentions: (&totals.mentions).into(),
            invitations: (&totals.invitations).into(),
            unread_rooms: (&totals.unread_rooms).into(),
        }
    }
}

#[derive(Serialize)]
struct UserAnswer<'a> {
    user: &'a str,
    #[serde(flatten)]
    families: Families,
    /// A digest of the totals and of the rooms.
    stamp: String,
    tags: &'a BTreeMap<String, u64>,
    types: &'a BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<Vec<RoomAnswer<'a>>>,
}

impl<'a> UserAnswer<'a> {
    fn new(user: &'a UserId, unread: &'a UserUnread) -> Result<Self, Problem> {
        let families = Families::from(&unread.totals);
        let rooms = unread.rooms.as_ref();
        let rooms: Option<Vec<_>> = rooms.map(|rooms| rooms.iter().map(RoomAnswer::new).collect());
        Ok(Self {
            user: user.as_str(),
            stamp: digest(&(&families, &rooms))?,
            families,
            tags: &unread.tags,
            types: &unread.types,
            rooms,
        })
    }
}

#[derive(Serialize)]
pub(super) struct RoomAnswer<'a> {
    room: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
    custom_type: Option<&'a str>,
    tags: &'a [String],
    messages: u64,
    mentions: u64,
    muted: bool,
    hidden: bool,
    /// Which of the room's counts are in the sums.
    count: &'static str,
    read_position: i64,
    head: u64,
}

impl<'a> RoomAnswer<'a> {
    pub(super) fn new(room: &'a RoomUnread) -> Self {
        Self {
            room: &room.room,
            kind: room.kind.as_str(),
            peer: room.peer.as_deref(),
            custom_type: room.custom_type.as_deref(),
            tags: &room.tags,
            messages: room.messages,
            mentions: room.mentions,
            muted: room.muted,
            hidden: room.hidden,
            count: room.count.as_str(),
            read_position: room.read_position,
            head: room.head,
        }
    }
}

/// Written as an object that holds, under each user's id, the user's numbers, or null where there is no such user.
pub(super) struct Users<'a>(pub &'a [(&'a UserId, Option<Totals>)]);

impl Serialize for Users<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let users = self.0.iter();
        serializer.collect_map(
            users.map(|(user, totals)| (user.as_str(), totals.as_ref().map(Families::from))),
        )
    }
}

/// A digest of what is shown, 16 hexadecimal digits.
fn digest(shown: &impl Serialize) -> Result<String, Problem> {
    let mut digest = Sha256::new();
    serde_json::to_writer(&mut digest, shown).map_err(|_| broken())?;
    Ok(short(digest))
}

fn short(digest: Sha256) -> String {
    let digest = digest.finalize();
    let start = digest.first_chunk().copied();
    format!("{:016x}", u64::from_be_bytes(start.unwrap_or_default()))
}

/// An answer with an entity tag, or, if the caller has it already, only the tag.
fn tagged(call: &Call<'_>, body: &impl Serialize) -> Result<HttpResponse, Problem> {
    let body = serde_json::to_vec(body).map_err(|_| broken())?;
    let tag = format!("\"{}\"", short(Sha256::new_with_prefix(&body)));
    let mut known = call
        .headers("if-none-match")
        .flat_map(|tags| tags.split(','));
    let is_known = known.any(|known| {
        let known = known.trim();
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
    });
    let mut response = match is_known {
        true => HttpResponse::new(StatusCode::NOT_MODIFIED),
        false => json_bytes(StatusCode::OK, body),
    };
    set(&mut response, header::ETAG, tag);
    // A browser asks again each time, with the tag.
    let caching = HeaderValue::from_static("private, no-cache");
    set(&mut response, header::CACHE_CONTROL, caching);
    Ok(response)
}

fn broken() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "")
}

pub(super) fn ok(body: &impl Serialize) -> HttpResponse {
    answer(StatusCode::OK, body).unwrap_or_else(|| broken().render())
}

/// Says where the body stops being JSON, without repeating any of it.
pub(super) fn not_json(body: &[u8], fault: NotJson) -> Problem {
    let (line, column) = LineIndex::new(body).of(fault.read.saturating_sub(1));
    let what = match fault.deep {
        true => "nested too deeply",
        false => "not JSON",
    };
    Problem::bad(format!("the body is {what}: line {line}, column {column}"))
}
