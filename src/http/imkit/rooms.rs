//! `GET /rooms`: the caller's rooms. The query says which rooms and in which order; the reader finds them; then they are shown as
//! the vendor does.

mod clause;
mod filter;
mod listing;
mod moment;
mod show;
#[cfg(test)]
mod tests;

use std::time::Instant;

use actix_web::HttpResponse;
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;

use super::fault::{Fault, query};
use super::success;
use crate::counts::{Kind, Pref};
use crate::engine::RoomBrief;
use crate::http::request::Call;
use crate::limiter::Entry;
use crate::names::{AppId, UserId};
pub(super) use listing::Listing;

/// What is wrong with a query. It names the parameter and the rule, never the value.
pub(super) type QueryError = &'static str;

/// Answers a call that is let in.
pub(super) async fn rooms(
    call: &Call<'_>,
    app: &AppId,
    user: &UserId,
    entry: &mut Entry<'_>,
) -> Result<HttpResponse, Fault> {
    let start = Instant::now();
    let listing = Listing::parse(call.query(), user).map_err(query)?;
    let matches = |room: &RoomBrief<'_>| listing.matches(room);
    let by_pref = |pref: &Pref| listing.matches_pref(pref);
    let query = listing.query(&matches, &by_pref);
    let page = call.state.reader.rooms(app, user, &query, entry).await?;
    let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let query = listing.inspect(app.as_str(), user);
    success(&show::show(app.as_str(), &page, query, took))
}

/// A time as the vendor writes it: `2020-10-16T03:01:07.923Z`. A time beyond the calendar is written as the calendar's first or
/// last.
fn iso(ms: i64) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
    let time = Timestamp::from_millisecond(ms).unwrap_or(match ms {
        0.. => Timestamp::MAX,
        _ => Timestamp::MIN,
    });
    PRINTER.timestamp_to_string(&time)
}

/// The vendor's name for a kind.
fn room_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Direct => "direct",
        // The vendor knows no larger kind.
        Kind::Group | Kind::Supergroup => "group",
    }
}
