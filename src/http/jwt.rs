//! Tokens of users: JWTs signed with HS256, with the claim `exp` and one that names the user.

#[cfg(fuzzing)]
#[path = "../../fuzz/doors/jwt.rs"]
#[doc(hidden)]
pub(crate) mod fuzzing;

use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, TokenData, Validation};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::names::UserId;

/// The most bytes of a token.
pub(crate) const MAX_BYTES: usize = 8 * 1024;
/// The most bytes of a token that is remembered.
const MAX_CACHED_BYTES: usize = 1024;
/// How many verified tokens each verifier remembers: at most 16 MiB of them.
const CACHED: usize = 16 * 1024;

/// The latest `exp`, in the year 2286. One in milliseconds, as JavaScript has the time, is later; taken for seconds it would make
/// a token good for ever.
const LATEST_EXPIRY: f64 = 1e10;

/// A claim that can name the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// `id`
    Id,
    /// `_id`
    UnderscoredId,
    /// `sub`
    Subject,
}

#[derive(Deserialize)]
struct Claims {
    id: Option<Value>,
    #[serde(rename = "_id")]
    underscored: Option<Value>,
    sub: Option<Value>,
    // Fractions are legal (RFC 7519, NumericDate).
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
}

impl Claims {
    /// The user whom the first of these claims names that is there. All of them must be texts.
    fn user(&self, claims: &[Claim]) -> Option<UserId> {
        let mut user = None;
        for claim in claims {
            let value = match claim {
                Claim::Id => &self.id,
                Claim::UnderscoredId => &self.underscored,
                Claim::Subject => &self.sub,
            };
            if let Some(value) = value {
                let named = value.as_str()?;
                user = user.or(Some(named));
            }
        }
        UserId::parse(user?).ok()
    }
}

/// Why a token lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// It is signed with none of the secrets, or says nothing that can be used.
    #[error("the token is signed with no secret that is known here")]
    Forged,
    /// It is signed with one of the secrets, but it has expired or is not valid yet.
    #[error(
        "the token has expired, or is not valid yet: its exp has passed, or its nbf is still to come"
    )]
    Untimely,
    /// It is signed with one of the secrets, but its `exp` is no time in seconds.
    #[error("the claim exp must be in seconds since the epoch, and not after the year 2286")]
    NotSeconds,
}

/// A good token: whose it is, what its secret belongs to, and when it expires.
pub(crate) type Good<T> = (Arc<UserId>, T, u64);

/// Checks tokens. It remembers the good ones until they expire, so that the next call with one needs no cryptography.
pub(crate) struct Verifier<T: Copy> {
    /// The secrets, and what each belongs to.
    keys: Vec<(DecodingKey, T)>,
    /// The claims that name the user; the first one that a token has holds.
    claims: &'static [Claim],
    rules: Validation,
    /// None gets in that no secret has signed, so a stranger can't push any out.
    good: Cache<Box<str>, Good<T>>,
}

impl<T: Copy> Verifier<T> {
    /// A verifier for tokens signed with one of these secrets, whichever of them belongs to whom.
    pub(crate) fn new<'a>(
        claims: &'static [Claim],
        secrets: impl IntoIterator<Item = (&'a str, T)>,
    ) -> Self {
        // The algorithm is ours to choose, never the token's.
        let mut rules = Validation::new(Algorithm::HS256);
        // `verify` checks both, by a clock that a test can set.
        rules.validate_exp = false;
        rules.validate_nbf = false;
        // A token may be made for other services too.
        rules.validate_aud = false;
        let keys = secrets.into_iter();
        let keys = keys.map(|(secret, owner)| (DecodingKey::from_secret(secret.as_bytes()), owner));
        Self {
            keys: keys.collect(),
            claims,
            rules,
            good: Cache::new(CACHED),
        }
    }

    /// The user that a token names and what its secret belongs to, if it is good at `now` (Unix seconds).
    pub(crate) fn verify(&self, token: &str, now: u64) -> Result<(Arc<UserId>, T), Unusable> {
        let (user, owner, _) = self.verify_until(token, now)?;
        Ok((user, owner))
    }

    /// The same, and when the token expires.
    pub(crate) fn verify_until(&self, token: &str, now: u64) -> Result<Good<T>, Unusable> {
        if let Some((user, owner, until)) = self.good.get(token) {
            if now < until {
                return Ok((user, owner, until));
            }
            self.good.remove(token);
            return Err(Unusable::Untimely);
        }
        if token.len() > MAX_BYTES {
            return Err(Unusable::Forged);
        }
        let (data, owner) = self.decode(token).ok_or(Unusable::Forged)?;
        // `crit` names extensions that a verifier must understand (RFC 7515, 4.1.11). This one understands none.
        if data.header.crit.is_some() {
            return Err(Unusable::Forged);
        }
        if data.claims.exp > LATEST_EXPIRY {
            return Err(Unusable::NotSeconds);
        }
        // The token is not valid at `exp` or later (RFC 7519, 4.1.4): not from the first whole second on that is not before it.
        let until = data.claims.exp.ceil() as u64;
        let started = data.claims.nbf.is_none_or(|nbf| nbf <= now as f64);
        if now >= until || !started {
            return Err(Unusable::Untimely);
        }
        let user = data.claims.user(self.claims).ok_or(Unusable::Forged)?;
        let user = Arc::new(user);
        if token.len() <= MAX_CACHED_BYTES {
            let good = (Arc::clone(&user), owner, until);
            self.good.insert(token.into(), good);
        }
        Ok((user, owner, until))
    }

    /// What a token says, and what the secret belongs to that has signed it.
    fn decode(&self, token: &str) -> Option<(TokenData<Claims>, T)> {
        for (key, owner) in &self.keys {
            match jsonwebtoken::decode(token, key, &self.rules) {
                Ok(data) => return Some((data, *owner)),
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => {}
                Err(_) => return None,
            }
        }
        None
    }
}

/// Makes a token of `user` that is valid from `now` for `lifetime` seconds. `None` only if it can't be signed.
pub(crate) fn make_token(
    secret: &str,
    claim: Claim,
    user: &UserId,
    now: u64,
    lifetime: u64,
) -> Option<String> {
    #[derive(Serialize)]
    struct Claims<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none", rename = "_id")]
        underscored: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        sub: Option<&'a str>,
        iat: u64,
        exp: u64,
    }
    let named = |one| (one == claim).then(|| user.as_str());
    let claims = Claims {
        id: named(Claim::Id),
        underscored: named(Claim::UnderscoredId),
        sub: named(Claim::Subject),
        iat: now,
        exp: now.saturating_add(lifetime),
    };
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;
    const CLAIMS: &[Claim] = &[Claim::Subject];

    fn token(secret: &str, claim: Claim, user: &str) -> String {
        let user = UserId::parse(user).unwrap();
        make_token(secret, claim, &user, NOW, 60).unwrap()
    }

    #[test]
    fn each_secret_says_what_it_belongs_to() {
        let verifier = Verifier::new(CLAIMS, [("one", 1), ("two", 2), ("older two", 2)]);
        for (secret, owner) in [("one", 1), ("two", 2), ("older two", 2)] {
            let token = token(secret, Claim::Subject, "alice");
            // Verified, then remembered.
            for _ in 0..2 {
                let (user, found) = verifier.verify(&token, NOW + 59).unwrap();
                assert_eq!((user.as_str(), found), ("alice", owner));
            }
            assert_eq!(verifier.verify(&token, NOW + 60), Err(Unusable::Untimely));
        }
        let another = token("three", Claim::Subject, "alice");
        assert_eq!(verifier.verify(&another, NOW), Err(Unusable::Forged));
        let nobody: Verifier<()> = Verifier::new(CLAIMS, []);
        let token = token("one", Claim::Subject, "alice");
        assert_eq!(nobody.verify(&token, NOW), Err(Unusable::Forged));
    }

    #[test]
    fn an_expiry_in_milliseconds_is_refused() {
        let verifier = Verifier::new(CLAIMS, [("one", ())]);
        let key = EncodingKey::from_secret(b"one");
        for (exp, is_good) in [
            (NOW as f64 + 60.5, true),
            (1e10, true),
            (10_000_000_001.0, false),
            (NOW as f64 * 1e3, false),
            (1e15, false),
        ] {
            let claims = serde_json::json!({"sub": "alice", "exp": exp});
            let token =
                jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
            // Asked twice: neither is remembered as good.
            for _ in 0..2 {
                let found = verifier.verify(&token, NOW).map(|_| ());
                let expected = if is_good {
                    Ok(())
                } else {
                    Err(Unusable::NotSeconds)
                };
                assert_eq!(found, expected, "{exp}");
            }
        }
    }

    #[test]
    fn only_the_claims_that_are_asked_for_name_the_user() {
        let verifier = Verifier::new(CLAIMS, [("one", ())]);
        for claim in [Claim::Id, Claim::UnderscoredId] {
            let token = token("one", claim, "alice");
            assert_eq!(verifier.verify(&token, NOW), Err(Unusable::Forged));
        }
        let sign = |claims: Value| {
            let key = EncodingKey::from_secret(b"one");
            jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
        };
        let exp = NOW + 9;
        let token = sign(serde_json::json!({"sub": "alice", "id": 7, "exp": exp}));
        let (user, ()) = verifier.verify(&token, NOW).unwrap();
        assert_eq!(user.as_str(), "alice");
        for bad in [
            serde_json::json!({"sub": 7, "exp": exp}),
            serde_json::json!({"sub": null, "exp": exp}),
            serde_json::json!({"sub": "", "exp": exp}),
            serde_json::json!({"sub": "a\n", "exp": exp}),
            serde_json::json!({"sub": "alice"}),
            serde_json::json!({"exp": exp}),
        ] {
            let found = verifier.verify(&sign(bad.clone()), NOW);
            assert_eq!(found, Err(Unusable::Forged), "{bad}");
        }
    }
}
