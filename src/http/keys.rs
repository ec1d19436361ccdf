//! Finds what a secret key belongs to. The time that this takes does not show how much of a guessed key was right.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

type Fingerprint = [u8; 32];

/// Secret keys, of which only the SHA-256 is kept, and what each belongs to.
pub(crate) struct KeyRing<T> {
    /// By the first eight bytes of the digest. Of those that share them, the whole digest is compared in constant time.
    by_prefix: HashMap<u64, Vec<(Fingerprint, T)>>,
}

impl<T> KeyRing<T> {
    /// A ring of the given keys. An empty key is left out: it would let in every caller that sends none.
    pub(crate) fn new<'a>(keys: impl IntoIterator<Item = (&'a str, T)>) -> Self {
        let mut by_prefix: HashMap<u64, Vec<(Fingerprint, T)>> = HashMap::new();
        for (key, value) in keys {
            if !key.is_empty() {
                let digest = fingerprint(key);
                by_prefix
                    .entry(prefix(&digest))
                    .or_default()
                    .push((digest, value));
            }
        }
        Self { by_prefix }
    }

    /// What the key belongs to.
    pub(crate) fn find(&self, key: &str) -> Option<&T> {
        let digest = fingerprint(key);
        let candidates = self.by_prefix.get(&prefix(&digest))?;
        candidates
            .iter()
            .find(|(known, _)| bool::from(known.ct_eq(&digest)))
            .map(|(_, value)| value)
    }
}

fn fingerprint(key: &str) -> Fingerprint {
    Sha256::digest(key.as_bytes()).into()
}

fn prefix(digest: &Fingerprint) -> u64 {
    digest
        .first_chunk()
        .map_or(0, |start| u64::from_be_bytes(*start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_key_is_found() {
        let ring = KeyRing::new([("one", 1), ("two", 2), ("", 3)]);
        assert_eq!(ring.find("one"), Some(&1));
        assert_eq!(ring.find("two"), Some(&2));
        assert_eq!(ring.find("On"), None);
        assert_eq!(ring.find(""), None);
    }
}
