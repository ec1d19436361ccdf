//! For the fuzz targets `tokens` and `queries`: who is let in, and whom a body asks for.
#![allow(missing_docs)]

use serde_json::Value;

use super::reads::{MAX_USERS, parse_users};
use crate::http::request::Call;

/// Whether the headers of a call let it in.
pub(crate) fn lets_in(call: &Call<'_>) -> bool {
    super::authenticate(call).is_ok()
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
