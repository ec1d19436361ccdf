//! For the fuzz targets `tokens` and `queries`: who is let in, and what a query asks for.
#![allow(missing_docs)]

use super::items::{ItemQuery, KEYS, MAX_TYPES};
use crate::http::request::{Call, Query};

/// Whether the headers of a call let it in.
pub(crate) fn lets_in(call: &Call<'_>) -> bool {
    super::authenticate(call).is_ok()
}

/// What a query asks for, in the order asked.
fn asked(raw: &str) -> Option<(Vec<&'static str>, Option<Vec<String>>)> {
    let asked = ItemQuery::parse(Query::new(raw)).ok()?;
    let keys = asked.keys.iter().map(|key| key.name).collect();
    let types = asked
        .types
        .map(|types| types.iter().map(|t| t.as_str().to_owned()).collect());
    Some((keys, types))
}

/// A query of `unread_item_count`.
pub(crate) fn query(raw: &str, again: &str) {
    let found = asked(raw);
    assert_eq!(found, asked(again));
    let Some((keys, asked_types)) = found else {
        return;
    };
    let types = asked_types.clone().unwrap_or_default();
    assert!((1..=KEYS.len()).contains(&keys.len()) && types.len() <= MAX_TYPES);
    for list in [
        &mut keys.clone(),
        &mut types.iter().map(String::as_str).collect(),
    ] {
        let length = list.len();
        list.sort_unstable();
        list.dedup();
        assert_eq!(list.len(), length);
    }
    assert!(
        types
            .iter()
            .all(|name| !name.is_empty() && !name.contains(','))
    );
    // Written as one list each, keys and types ask for the same.
    let encode = |text: String| {
        percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let list = format!(
        "item_keys={}&custom_types={}",
        encode(keys.join(",")),
        match &asked_types {
            // No room can have this one.
            Some(types) if types.is_empty() => encode("\0".to_owned()),
            _ => encode(types.join(",")),
        }
    );
    assert_eq!(asked(&list), Some((keys, asked_types)));
}

/// A host names the application with its name and no other.
pub(crate) fn host(host: &str) {
    let tenants = super::Tenants {
        tokens: crate::http::keys::KeyRing::new([]),
        hosts: std::collections::HashMap::from([("demo".to_owned(), 1), ("a.b".to_owned(), 2)]),
    };
    let host = host.to_ascii_lowercase();
    match tenants.by_host(&host) {
        Some(1) => assert!(host.starts_with("api-demo.")),
        Some(_) => assert!(host.starts_with("api-a.b.")),
        None => assert!(!host.starts_with("api-demo.") && !host.starts_with("api-a.b.")),
    }
}
