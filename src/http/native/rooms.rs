//! The reads of rooms: counts by member, what a room is, and who is in it.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::Serialize;

use super::problem::Problem;
use super::reads::{MAX_USERS, limit, ok, parse_segment, read_users};
use super::{Times, enter, includes, parameters};
use crate::counts::{RoomCounts, RoomDetails, RoomMember};
use crate::http::request::Call;
use crate::names::{AppId, RoomId, UserId};

/// The members on a page, if the call does not say how many.
const MEMBERS: usize = 1_000;

/// `GET /v1/rooms/{room}/unread`.
pub(super) async fn unread(call: &Call<'_>) -> Result<HttpResponse, Problem> {
    let (_, app) = enter(call)?;
    let room = parse_segment(call.parameter(0), RoomId::parse)?;
    let mut users: Option<Vec<UserId>> = None;
    let mut positions = false;
    let parse = |user: &str| {
        UserId::parse(user).map_err(|error| Problem::bad(format!("a user id {error}")))
    };
    // `users` is a list with commas; `user` is one user, whose id may hold a comma.
    let known = [
        ("users", Times::Many),
        ("user", Times::Many),
        ("include", Times::Many),
    ];
    for (name, value) in parameters(call, &known)? {
        if name == "include" {
            positions |= includes(&value, "read")?;
            continue;
        }
        let users = users.get_or_insert_default();
        if name == "user" {
            users.push(parse(&value)?);
            continue;
        }
        for user in value.split(',').filter(|user| !user.is_empty()) {
            users.push(parse(user)?);
        }
    }
    // Left out, it would ask for everybody. Most likely the caller's list is empty by mistake.
    if users.as_ref().is_some_and(Vec::is_empty) {
        return Err(Problem::bad("users names nobody"));
    }
    if users.as_ref().is_some_and(|users| users.len() > MAX_USERS) {
        let detail = format!("at most {MAX_USERS} users can be asked for at once");
        return Err(Problem::bad(detail));
    }
    counts(call, app, &room, users.as_deref(), positions).await
}

/// `POST /v1/rooms/{room}/unread`: the same, but the body names the users, since a URL is too short for a thousand.
pub(super) async fn unread_of(call: &mut Call<'_>) -> Result<HttpResponse, Problem> {
    let (index, app) = enter(call)?;
    let room = parse_segment(call.parameter(0), RoomId::parse)?;
    let mut positions = false;
    for (_, value) in parameters(call, &[("include", Times::Many)])? {
        positions |= includes(&value, "read")?;
    }
    let users = read_users(call, index).await?;
    counts(call, app, &room, Some(&users), positions).await
}

async fn counts(
    call: &Call<'_>,
    app: &AppId,
    room: &RoomId,
    users: Option<&[UserId]>,
    positions: bool,
) -> Result<HttpResponse, Problem> {
    #[derive(Serialize)]
    struct AnswerBody {
        unread: BTreeMap<String, u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        read: Option<BTreeMap<String, i64>>,
    }
    let reader = &call.state.reader;
    match reader.room_unread(app, room, users, positions).await? {
        RoomCounts::Counts(counts) => {
            let read = counts.iter().map(|count| (count.user.clone(), count.read));
            let read = positions.then(|| read.collect());
            let unread = counts.into_iter().map(|count| (count.user, count.unread));
            let unread = unread.collect();
            Ok(ok(&AnswerBody { unread, read }))
        }
        RoomCounts::NoRoom => Err(no_room()),
        RoomCounts::TooLarge => Err(Problem::bad(
            "the room has too many members to answer for all: name up to 1,000 users",
        )),
    }
}

fn no_room() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no such room")
}

/// `GET /v1/rooms/{room}`.
pub(super) async fn room(call: &Call<'_>) -> Result<HttpResponse, Problem> {
    let (_, app) = enter(call)?;
    let room = parse_segment(call.parameter(0), RoomId::parse)?;
    parameters(call, &[])?;
    let details = call.state.reader.room(app, &room).await?;
    let details = details.ok_or_else(no_room)?;
    Ok(ok(&RoomBody::new(&room, &details)))
}

/// A room, by the names that events have for its details.
#[derive(Serialize)]
struct RoomBody<'a> {
    room: &'a str,
    kind: &'static str,
    custom_type: Option<&'a str>,
    tags: &'a [String],
    status: u8,
    name: &'a str,
    cover: &'a str,
    description: &'a str,
    webhook: &'a str,
    bot_state: &'a str,
    bot_mode: bool,
    encrypted: bool,
    service_status: i64,
    created: i64,
    head: u64,
    members: u64,
}

impl<'a> RoomBody<'a> {
    fn new(room: &'a RoomId, details: &'a RoomDetails) -> Self {
        let shown = &details.shown;
        Self {
            room: room.as_str(),
            kind: details.kind.as_str(),
            custom_type: details.custom_type.as_deref(),
            tags: &details.tags,
            status: details.active.into(),
            name: &shown.name,
            cover: &shown.cover,
            description: &shown.description,
            webhook: &shown.webhook,
            bot_state: &shown.bot_state,
            bot_mode: shown.bot_mode,
            encrypted: shown.encrypted,
            service_status: shown.service_status,
            created: details.created,
            head: details.head,
            members: details.members,
        }
    }
}

/// `GET /v1/rooms/{room}/members`.
pub(super) async fn members(call: &Call<'_>) -> Result<HttpResponse, Problem> {
    let (_, app) = enter(call)?;
    let room = parse_segment(call.parameter(0), RoomId::parse)?;
    let (mut after, mut most) = (None, MEMBERS);
    for (name, value) in parameters(call, &[("after", Times::Once), ("limit", Times::Once)])? {
        match name {
            "limit" => most = limit(&value)?,
            // The first page.
            "after" if value.is_empty() => {}
            _ => {
                let user = UserId::parse(value.into_owned());
                let bad = |error| Problem::bad(format!("after: a user id {error}"));
                after = Some(user.map_err(bad)?);
            }
        }
    }
    let reader = &call.state.reader;
    let members = reader.members(app, &room, after.as_ref(), most).await?;
    let members = members.ok_or_else(no_room)?;
    #[derive(Serialize)]
    struct AnswerBody<'a> {
        members: Vec<MemberRow<'a>>,
    }
    let members = members.iter().map(MemberRow::new).collect();
    Ok(ok(&AnswerBody { members }))
}

#[derive(Serialize)]
struct MemberRow<'a> {
    user: &'a str,
    state: &'static str,
    /// Milliseconds since the epoch.
    since: i64,
}

impl<'a> MemberRow<'a> {
    fn new(member: &'a RoomMember) -> Self {
        Self {
            user: &member.user,
            state: match member.has_joined {
                true => "joined",
                false => "invited",
            },
            since: member.since,
        }
    }
}
