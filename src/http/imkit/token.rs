//! The users' tokens: JWTs signed with HS256, with the claims `exp` and `id` or `_id` (I6).

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};

use crate::names::UserId;

/// The most bytes of a token.
const MAX_BYTES: usize = 8 * 1024;
/// The most bytes of a token that is remembered.
const MAX_CACHED_BYTES: usize = 1024;
/// How many verified tokens are remembered for each app: at most 16 MiB of them.
const CACHED: usize = 16 * 1024;

#[derive(Deserialize)]
struct Claims {
    id: Option<String>,
    // Some back ends name it so.
    #[serde(rename = "_id")]
    underscored: Option<String>,
    // Fractions are legal (RFC 7519, NumericDate).
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
}

/// Why a token lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    /// The app has not signed it.
    #[error("the token is not one of the app")]
    Forged,
    /// The app has signed it, but it has expired or is not valid yet.
    #[error("the token is not valid now")]
    Untimely,
}

/// Checks the tokens of one app. It remembers the good ones until they expire, so that the next call with one needs no
/// cryptography.
pub(super) struct Verifier {
    key: DecodingKey,
    rules: Validation,
    /// The good tokens: whose each is, and when it expires. None gets in that the app has not signed, so a stranger can't push
    /// any out.
    good: Cache<Box<str>, (Arc<UserId>, u64)>,
}

impl Verifier {
    /// A verifier for tokens signed with `secret`.
    pub(super) fn new(secret: &str) -> Self {
        // The algorithm is ours to choose, never the token's.
        let mut rules = Validation::new(Algorithm::HS256);
        // `verify` checks both, by a clock that a test can set.
        rules.validate_exp = false;
        rules.validate_nbf = false;
        // A token may be made for other services too.
        rules.validate_aud = false;
        Self {
            key: DecodingKey::from_secret(secret.as_bytes()),
            rules,
            good: Cache::new(CACHED),
        }
    }

    /// The user that a token names, if it is good at `now` (Unix seconds).
    pub(super) fn verify(&self, token: &str, now: u64) -> Result<Arc<UserId>, Unusable> {
        if let Some((user, until)) = self.good.get(token) {
            if now < until {
                return Ok(user);
            }
            self.good.remove(token);
            return Err(Unusable::Untimely);
        }
        if token.len() > MAX_BYTES {
            return Err(Unusable::Forged);
        }
        let data = jsonwebtoken::decode::<Claims>(token, &self.key, &self.rules);
        let data = data.map_err(|_| Unusable::Forged)?;
        // `crit` names extensions that a verifier must understand (RFC 7515, 4.1.11). This one understands none.
        if data.header.crit.is_some() {
            return Err(Unusable::Forged);
        }
        // The token is not valid at `exp` or later (RFC 7519, 4.1.4): not from the first whole second on that is not before it.
        let until = data.claims.exp.ceil() as u64;
        let started = data.claims.nbf.is_none_or(|nbf| nbf <= now as f64);
        if now >= until || !started {
            return Err(Unusable::Untimely);
        }
        let named = data.claims.id.or(data.claims.underscored);
        let user = named.ok_or(Unusable::Forged)?;
        let user = UserId::parse(user).map_err(|_| Unusable::Forged)?;
        let user = Arc::new(user);
        if token.len() <= MAX_CACHED_BYTES {
            self.good.insert(token.into(), (Arc::clone(&user), until));
        }
        Ok(user)
    }
}

/// Makes a token of `user` that is valid from `now` for `lifetime` seconds. `None` only if it can't be signed.
pub(super) fn make_token(secret: &str, user: &UserId, now: u64, lifetime: u64) -> Option<String> {
    #[derive(Serialize)]
    struct Claims<'a> {
        id: &'a str,
        iat: u64,
        exp: u64,
    }
    let claims = Claims {
        id: user.as_str(),
        iat: now,
        exp: now.saturating_add(lifetime),
    };
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use hmac::{Hmac, Mac};
    use serde_json::{Value, json};
    use sha2::Sha256;

    const SECRET: &str = "imkit-test-secret-not-real";
    const NOW: u64 = 1_700_000_000;
    // Made with other means than this file's.
    const ALICE: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpZCI6ImFsaWNlIiwiZXhwIjoxNzAwNjA0ODAwLCJpYXQiOjE3MDAwMDAwMDB9.GHxJYe4ZD1UISLdWtthL5oc0VSgv7Hw_n3LaEgEpf-Y";
    const ALICE_UNTIL: u64 = 1_700_604_800;

    fn sign(header: Value, claims: Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&header), encode(&claims));
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        let mac = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        format!("{text}.{mac}")
    }

    fn hs256(claims: Value) -> String {
        sign(json!({"alg": "HS256", "typ": "JWT"}), claims)
    }

    fn user(token: &str) -> Option<String> {
        let user = Verifier::new(SECRET).verify(token, NOW).ok()?;
        Some(user.as_str().to_owned())
    }

    #[test]
    fn a_good_token_names_its_user_until_it_expires() {
        let verifier = Verifier::new(SECRET);
        for _ in 0..2 {
            let user = verifier.verify(ALICE, ALICE_UNTIL - 1).unwrap();
            assert_eq!(user.as_str(), "alice");
        }
        // From the cache, then without.
        assert_eq!(verifier.verify(ALICE, ALICE_UNTIL), Err(Unusable::Untimely));
        assert_eq!(verifier.verify(ALICE, ALICE_UNTIL), Err(Unusable::Untimely));
        let another = Verifier::new("another").verify(ALICE, NOW);
        assert_eq!(another, Err(Unusable::Forged));
    }

    #[test]
    fn ours_are_good_too() {
        let id = UserId::parse("测试 %").unwrap();
        let token = make_token(SECRET, &id, NOW, 60).unwrap();
        assert_eq!(user(&token).as_deref(), Some("测试 %"));
    }

    #[test]
    fn claims_are_checked() {
        assert!(user(&hs256(json!({"id": "a", "exp": NOW + 1}))).is_some());
        assert!(user(&hs256(json!({"id": "a", "exp": NOW as f64 + 0.5}))).is_some());
        assert!(
            user(&hs256(
                json!({"id": "a", "exp": NOW + 1, "nbf": NOW, "aud": "x"})
            ))
            .is_some()
        );
        let named = |claims| user(&hs256(claims));
        assert_eq!(
            named(json!({"_id": "b", "exp": NOW + 1})).as_deref(),
            Some("b")
        );
        let both = json!({"id": "a", "_id": "b", "exp": NOW + 1});
        assert_eq!(named(both).as_deref(), Some("a"));
        for bad in [
            json!({"_id": "a"}),
            json!({"_id": 7, "exp": NOW + 9}),
            json!({"_id": "", "exp": NOW + 9}),
            json!({"id": "a"}),
            json!({"id": "a", "exp": NOW}),
            json!({"id": "a", "exp": -1}),
            json!({"id": "a", "exp": (NOW + 9).to_string()}),
            json!({"id": "a", "exp": null}),
            json!({"exp": NOW + 9}),
            json!({"id": 7, "exp": NOW + 9}),
            json!({"id": "", "exp": NOW + 9}),
            json!({"id": "a\n", "exp": NOW + 9}),
            json!({"id": "a", "exp": NOW + 9, "nbf": NOW + 1}),
        ] {
            assert_eq!(user(&hs256(bad.clone())), None, "{bad}");
        }
    }

    #[test]
    fn the_algorithm_is_fixed_and_tampering_shows() {
        let claims = json!({"id": "a", "exp": NOW + 9});
        for alg in ["none", "HS384", "HS512", "RS256", "hs256"] {
            assert_eq!(
                user(&sign(json!({"alg": alg}), claims.clone())),
                None,
                "{alg}"
            );
        }
        assert_eq!(
            user(&sign(
                json!({"alg": "HS256", "crit": ["x"]}),
                claims.clone()
            )),
            None
        );
        let good = hs256(claims);
        let (text, _) = good.rsplit_once('.').unwrap();
        let other = hs256(json!({"id": "b", "exp": NOW + 9}));
        let (_, mac) = other.rsplit_once('.').unwrap();
        for bad in [
            "",
            "a.b.c",
            text,
            &format!("{text}."),
            &format!("{text}.{mac}"),
        ] {
            assert_eq!(user(bad), None, "{bad}");
        }
        assert_eq!(user(&"x".repeat(MAX_BYTES + 1)), None);
    }
}
