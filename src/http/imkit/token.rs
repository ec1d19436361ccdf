//! The users' tokens: JWTs with the claim `id` or `_id` (I6).

use std::sync::Arc;

pub(super) use crate::http::jwt::Unusable;
use crate::http::jwt::{self, Claim};
use crate::names::UserId;

/// Checks the tokens of one app.
pub(super) struct Verifier(jwt::Verifier<()>);

impl Verifier {
    /// A verifier for tokens signed with `secret`.
    pub(super) fn new(secret: &str) -> Self {
        // Some back ends name the claim `_id`.
        let claims = &[Claim::Id, Claim::UnderscoredId];
        Self(jwt::Verifier::new(claims, [(secret, ())]))
    }

    /// The user that a token names, if it is good at `now` (Unix seconds).
    pub(super) fn verify(&self, token: &str, now: u64) -> Result<Arc<UserId>, Unusable> {
        self.0.verify(token, now).map(|(user, ())| user)
    }
}

/// Makes a token of `user` that is valid from `now` for `lifetime` seconds. `None` only if it can't be signed.
pub(super) fn make_token(secret: &str, user: &UserId, now: u64, lifetime: u64) -> Option<String> {
    jwt::make_token(secret, Claim::Id, user, now, lifetime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::jwt::MAX_BYTES;
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
