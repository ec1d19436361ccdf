//! For the fuzz targets `tokens` and `queries`: who is let in, queries of `GET /rooms`, and bodies.
#![allow(missing_docs)]

use serde_json::Value;

use super::badges::{MAX_TAGS, parse};
use super::rooms::Listing;
use crate::counts::Pref;
use crate::http::request::{Call, Query};
use crate::names::UserId;

/// Whether the headers of a call let it in.
pub(crate) fn lets_in(call: &Call<'_>) -> bool {
    super::authenticate(call).is_ok()
}

/// A query of `GET /rooms`.
pub(crate) fn query(raw: &str, again: &str) {
    let caller = UserId::parse("alice").unwrap();
    let found = Listing::parse(Query::new(raw), &caller);
    // The encoding of the query changes nothing.
    let same = Listing::parse(Query::new(again), &caller);
    assert_eq!(format!("{found:?}"), format!("{same:?}"));
    if let Ok(listing) = found {
        assert!(listing.inspect("demo", &caller).is_object());
        let none = Pref::default();
        assert_eq!(listing.matches_pref(&none), listing.matches_pref(&none));
        assert!(listing.query(&|_| true, &|_| true).sort.len() <= 16);
    }
}

/// A body of `POST /badges/byRoomTags`.
pub(crate) fn body(data: &[u8]) {
    let Ok(wanted) = parse(data) else {
        return;
    };
    let many = wanted.tags.len() + wanted.impossible.len();
    assert!(many <= MAX_TAGS);
    let impossible = wanted.impossible.iter().map(|(_, name)| name.as_str());
    let tags = wanted.tags.iter().map(|tag| tag.as_str());
    let mut once: Vec<&str> = tags.chain(impossible).collect();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), many);
    let text = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    if let Ok(theirs) = serde_json::from_slice::<Value>(text) {
        let listed = theirs["tags"].as_array().cloned().unwrap_or_default();
        assert!(
            listed
                .iter()
                .all(|tag| once.contains(&tag.as_str().unwrap()))
        );
        assert!(once.iter().all(|tag| listed.iter().any(|one| one == tag)));
    }
}
