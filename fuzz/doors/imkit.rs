//! For the fuzz targets `tokens` and `queries`: tokens that anybody may send, queries of `GET /rooms`, and bodies.
#![allow(missing_docs)]

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use sha2::Sha256;

use super::badges::{MAX_TAGS, parse};
use super::rooms::Listing;
use super::token::{Unusable, Verifier};
use crate::counts::Pref;
use crate::http::request::{Call, Query};
use crate::names::UserId;

const SECRET: &str = "imkit-test-secret-not-real";
const NOW: u64 = 1_700_000_000;
/// A good token of `alice`.
const GOOD: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpZCI6ImFsaWNlIiwiZXhwIjoxNzAwNjA0ODAwLCJpYXQiOjE3MDAwMDAwMDB9.GHxJYe4ZD1UISLdWtthL5oc0VSgv7Hw_n3LaEgEpf-Y";

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| Verifier::new(SECRET));

fn mac(text: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    mac
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims {
    id: Option<String>,
    _id: Option<String>,
    exp: f64,
    nbf: Option<f64>,
}

/// Whose token it is and when it expires, read by other means than the verifier's.
fn read(token: &str) -> Option<(String, f64)> {
    let (signed, sig) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    mac(signed).verify_slice(&decoded(sig)?).ok()?;
    let header: Header = serde_json::from_slice(&decoded(header)?).ok()?;
    let claims: Claims = serde_json::from_slice(&decoded(claims)?).ok()?;
    if header.alg != "HS256" || header.crit.is_some() {
        return None;
    }
    if claims.nbf.is_some_and(|nbf| nbf > NOW as f64) {
        return None;
    }
    Some((claims.id.or(claims._id)?, claims.exp))
}

fn token(data: &[u8]) -> Option<String> {
    let (&mode, rest) = data.split_first()?;
    match mode % 3 {
        0 => String::from_utf8(rest.to_vec()).ok(),
        1 => {
            let end = rest.iter().position(|byte| *byte == 0)?;
            let [header, claims] =
                [&rest[..end], &rest[end + 1..]].map(|part| URL_SAFE_NO_PAD.encode(part));
            let signed = format!("{header}.{claims}");
            let sig = URL_SAFE_NO_PAD.encode(mac(&signed).finalize().into_bytes());
            Some(format!("{signed}.{sig}"))
        }
        _ => {
            let mut good = GOOD.as_bytes().to_vec();
            for change in rest.chunks_exact(2).take(4) {
                let at = usize::from(change[0]) * good.len() / 256;
                good[at] = change[1];
            }
            String::from_utf8(good).ok()
        }
    }
}

/// The first byte says what the others are: a token; a header and claims, which are signed here; or changes to a good token.
pub(crate) fn check_token(data: &[u8]) {
    let Some(token) = token(data) else {
        return;
    };
    let found = VERIFIER.verify(&token, NOW);
    assert_eq!(VERIFIER.verify(&token, NOW), found);
    let Ok(user) = found else {
        return;
    };
    let (whose, until) = read(&token).unwrap();
    assert_eq!(user.as_str(), whose);
    assert!(UserId::parse(whose).is_ok());
    assert!(until > NOW as f64);
    if until < u64::MAX as f64 {
        let until = until.ceil() as u64;
        assert_eq!(VERIFIER.verify(&token, until), Err(Unusable::Untimely));
        assert!(VERIFIER.verify(&token, until - 1).is_ok());
    }
}

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
