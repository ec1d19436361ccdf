//! For the fuzz targets `tokens` and `queries`: who is let in, which rooms a query asks for, and whom a body asks for.
#![allow(missing_docs)]

use serde_json::Value;

use super::reads::{MAX_ROWS, MAX_USERS, parse_users, rows};
use super::{Tenants, users};
use crate::http::request::{Call, Query};

/// Whether the headers of a call let it in.
pub(crate) fn lets_in(call: &Call<'_>) -> bool {
    super::authenticate(call).is_ok()
}

/// Whether the headers of a call let it in as one of a user's own device. Also puts on an answer who may read it.
pub(crate) fn lets_user_in(call: &Call<'_>) -> bool {
    let tenants: &Tenants = call.tenants().unwrap();
    let mut response = actix_web::HttpResponse::Ok().finish();
    tenants.users.origins(call).tell(call.req, &mut response);
    let preflight = crate::http::cors::preflight(call.req, "GET", users::HEADERS);
    assert_eq!(preflight.status(), 204);
    users::enter(call, &tenants.users).is_ok()
}

/// A query of `GET /v1/users/{user}/unread`.
pub(crate) fn query(raw: &str, again: &str) {
    let found = rows(Query::new(raw)).ok();
    if let Some(Some(rows)) = &found {
        assert!(rows.limit.is_none_or(|most| (1..=MAX_ROWS).contains(&most)));
    }
    // The encoding of the query changes nothing, but what is no UTF-8 is encoded as another text.
    if found.is_some() || !again.contains("%EF%BF%BD") {
        let same = rows(Query::new(again)).ok();
        assert_eq!(format!("{found:?}"), format!("{same:?}"));
    }
}

/// A body of `POST /v1/unread`.
pub(crate) fn body(data: &[u8]) {
    let Ok(users) = parse_users(data) else {
        return;
    };
    assert!(users.len() <= MAX_USERS);
    let text = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    if let Ok(theirs) = serde_json::from_slice::<Value>(text) {
        let listed = theirs["users"].as_array().unwrap();
        assert_eq!(listed.len(), users.len());
        assert!(
            listed
                .iter()
                .zip(&users)
                .all(|(one, user)| one == user.as_str())
        );
    }
}
