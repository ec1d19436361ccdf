//! Finding what a secret key belongs to without telling, by the time it takes, how much of a guess was right.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

type Fingerprint = [u8; 32];

/// Keys, kept as SHA-256 only, and what each belongs to.
pub(crate) struct KeyRing<T> {
    /// By the first eight bytes of the digest; the whole digest is then compared in constant time.
    slots: HashMap<u64, Vec<(Fingerprint, T)>>,
}

impl<T> KeyRing<T> {
    /// A ring of the given keys. Empty keys are left out: they would let in whoever sends none.
    pub(crate) fn new<'a>(keys: impl IntoIterator<Item = (&'a str, T)>) -> Self {
        let mut slots: HashMap<u64, Vec<(Fingerprint, T)>> = HashMap::new();
        for (key, value) in keys {
            if !key.is_empty() {
                let digest = fingerprint(key);
                slots
                    .entry(slot(&digest))
                    .or_default()
                    .push((digest, value));
            }
        }
        Self { slots }
    }

    /// What the key belongs to.
    pub(crate) fn find(&self, key: &str) -> Option<&T> {
        let digest = fingerprint(key);
        let candidates = self.slots.get(&slot(&digest))?;
        candidates
            .iter()
            .find(|(known, _)| bool::from(known.ct_eq(&digest)))
            .map(|(_, value)| value)
    }
}

fn fingerprint(key: &str) -> Fingerprint {
    Sha256::digest(key.as_bytes()).into()
}

fn slot(digest: &Fingerprint) -> u64 {
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
