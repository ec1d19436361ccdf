//! For the fuzz target `tokens`: IMKIT's tokens and user tokens, which anybody may send.
#![allow(missing_docs)]

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use sha2::Sha256;

use super::{Claim, Unusable, Verifier};
use crate::names::UserId;

const SECRET: &str = "imkit-test-secret-not-real";
const NOW: u64 = 1_700_000_000;
/// A good token of `alice`, and one that names her as user tokens do.
const GOOD: [&str; 2] = [
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpZCI6ImFsaWNlIiwiZXhwIjoxNzAwNjA0ODAwLCJpYXQiOjE3MDAwMDAwMDB9.GHxJYe4ZD1UISLdWtthL5oc0VSgv7Hw_n3LaEgEpf-Y",
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MTcwMDYwNDgwMCwiaWF0IjoxNzAwMDAwMDAwfQ.RSPy9gCOIQbLHAKvdj9RuYASH1eVFtK5hsKXjAGawp8",
];

/// Whose tokens: the claims that name the user, and the secrets.
static VERIFIERS: LazyLock<[Verifier<u8>; 2]> = LazyLock::new(|| {
    [
        Verifier::new(&[Claim::Id, Claim::UnderscoredId], [(SECRET, 1)]),
        Verifier::new(&[Claim::Subject], [("another", 2), (SECRET, 1)]),
    ]
});

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
    id: Option<Value>,
    _id: Option<Value>,
    sub: Option<Value>,
    exp: f64,
    nbf: Option<f64>,
}

/// Whose token it is and when it expires, read by other means than the verifier's.
fn read(token: &str, of_users: bool) -> Option<(String, f64)> {
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
    let named = match of_users {
        true => claims.sub?,
        false => claims.id.or(claims._id)?,
    };
    Some((named.as_str()?.to_owned(), claims.exp))
}

fn token(form: u8, of_users: bool, rest: &[u8]) -> Option<String> {
    match form % 3 {
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
            let mut good = GOOD[usize::from(of_users)].as_bytes().to_vec();
            for change in rest.chunks_exact(2).take(4) {
                let at = usize::from(change[0]) * good.len() / 256;
                good[at] = change[1];
            }
            String::from_utf8(good).ok()
        }
    }
}

/// The first byte says what the others are: a token; a header and claims, which are signed here; or changes to a good token. Its
/// bit of value 8: it is a user token.
pub(crate) fn check(data: &[u8]) {
    let Some((&form, rest)) = data.split_first() else {
        return;
    };
    let of_users = form & 8 != 0;
    let Some(token) = token(form & 7, of_users, rest) else {
        return;
    };
    let verifier = &VERIFIERS[usize::from(of_users)];
    let found = verifier.verify(&token, NOW);
    assert_eq!(verifier.verify(&token, NOW), found);
    let Ok((user, owner)) = found else {
        return;
    };
    let (whose, until) = read(&token, of_users).unwrap();
    assert_eq!((user.as_str(), owner), (whose.as_str(), 1));
    assert!(UserId::parse(whose).is_ok());
    assert!(until > NOW as f64);
    if until < u64::MAX as f64 {
        let until = until.ceil() as u64;
        assert_eq!(verifier.verify(&token, until), Err(Unusable::Untimely));
        assert!(verifier.verify(&token, until - 1).is_ok());
    }
}
