//! UserSigs (TLSSigAPIv2, T6): a UserSig is a compressed JSON document with an HMAC over four or five of its fields. It comes in
//! the URL, and anybody can send one. So the result of each step is bounded before the next step looks at it.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::bufread::ZlibDecoder;
use flate2::write::ZlibEncoder;
use hmac::{Hmac, Mac};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use thread_local::ThreadLocal;

/// The most characters of a UserSig.
const MAX_CHARS: usize = 2 * 1024;
/// The most bytes of the document in it.
const MAX_DOCUMENT: usize = 4 * 1024;
/// How many verified UserSigs are remembered for each app.
const CACHED: usize = 1_024;

/// Why a UserSig lets nobody in. The reasons stand in the order in which they are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    /// Not a UserSig at all.
    #[error("the UserSig can't be parsed")]
    Undecodable,
    /// Made for another app.
    #[error("the UserSig is for another SDKAppID")]
    OtherApp,
    /// Made for another user.
    #[error("the UserSig is for another identifier")]
    OtherUser,
    /// Not signed with this app's key.
    #[error("the UserSig's MAC is wrong")]
    Forged,
    /// It has expired.
    #[error("the UserSig has expired")]
    Expired,
}

/// The document in a UserSig.
#[derive(Serialize, Deserialize)]
struct Document {
    // No verifier reads it, and the MAC does not cover it.
    #[serde(rename = "TLS.ver", skip_deserializing)]
    version: &'static str,
    #[serde(rename = "TLS.identifier")]
    identifier: String,
    #[serde(rename = "TLS.sdkappid")]
    sdkappid: u64,
    // The lifetime in seconds. The vendor's package also signs negative ones: such a UserSig can be read, and has expired.
    #[serde(rename = "TLS.expire")]
    expire: i64,
    #[serde(rename = "TLS.time")]
    time: u64,
    #[serde(
        rename = "TLS.userbuf",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    userbuf: Option<String>,
    #[serde(rename = "TLS.sig")]
    sig: String,
}

impl Document {
    /// The HMAC of the fields that it covers.
    fn mac(&self, key: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
        mac.update(
            format!(
                "TLS.identifier:{}\nTLS.sdkappid:{}\nTLS.time:{}\nTLS.expire:{}\n",
                self.identifier, self.sdkappid, self.time, self.expire
            )
            .as_bytes(),
        );
        if let Some(userbuf) = &self.userbuf {
            mac.update(format!("TLS.userbuf:{userbuf}\n").as_bytes());
        }
        Some(mac)
    }
}

/// Checks the UserSigs of one app. It remembers the good ones until they expire.
pub(super) struct Verifier {
    sdkappid: u64,
    key: Vec<u8>,
    /// The good UserSigs: whose each is, and its last second. None gets in that was not made with the key, so a stranger can't
    /// push any out.
    good: Cache<Box<str>, (Arc<str>, u64)>,
    /// The last good UserSig of each thread, which is nearly always the next one too. A thread that finds it here waits for no
    /// lock.
    last: ThreadLocal<RefCell<Option<Good>>>,
}

/// A good UserSig, whose it is, and its last second.
struct Good {
    usersig: Box<str>,
    identifier: Arc<str>,
    until: u64,
}

impl Verifier {
    /// A verifier for the app's number and key. The key's text is the key: it is not decoded.
    pub(super) fn new(sdkappid: u64, key: &str) -> Self {
        Self {
            sdkappid,
            key: key.as_bytes().to_vec(),
            good: Cache::new(CACHED),
            last: ThreadLocal::new(),
        }
    }

    /// Whether `usersig` is one of this app for `identifier` and not expired at `now` (Unix seconds).
    pub(super) fn verify(&self, usersig: &str, identifier: &str, now: u64) -> Result<(), Unusable> {
        let last = self.last.get_or_default();
        let is_this = |good: &Good| {
            *good.usersig == *usersig && *good.identifier == *identifier && now <= good.until
        };
        if last.borrow().as_ref().is_some_and(is_this) {
            return Ok(());
        }
        if let Some((known, until)) = self.good.get(usersig) {
            return if *known != *identifier {
                Err(Unusable::OtherUser)
            } else if now > until {
                self.good.remove(usersig);
                Err(Unusable::Expired)
            } else {
                *last.borrow_mut() = Some(Good {
                    usersig: usersig.into(),
                    identifier: known,
                    until,
                });
                Ok(())
            };
        }
        let document = decode(usersig).ok_or(Unusable::Undecodable)?;
        if document.sdkappid != self.sdkappid {
            return Err(Unusable::OtherApp);
        }
        if document.identifier != identifier {
            return Err(Unusable::OtherUser);
        }
        let mac = document.mac(&self.key).ok_or(Unusable::Forged)?;
        let sig = STANDARD
            .decode(&document.sig)
            .map_err(|_| Unusable::Forged)?;
        // Compares in constant time.
        mac.verify_slice(&sig).map_err(|_| Unusable::Forged)?;
        // The UserSig is still good in its last second, as for the vendor's own verifiers.
        let until = document.time.checked_add_signed(document.expire);
        let until = until
            .filter(|until| now <= *until)
            .ok_or(Unusable::Expired)?;
        self.good.insert(usersig.into(), (identifier.into(), until));
        Ok(())
    }
}

/// The document in a UserSig. None: it is not a UserSig.
fn decode(usersig: &str) -> Option<Document> {
    if usersig.len() > MAX_CHARS {
        return None;
    }
    let standard: Vec<u8> = usersig
        .bytes()
        .map(|byte| match byte {
            b'*' => Some(b'+'),
            b'-' => Some(b'/'),
            b'_' => Some(b'='),
            b'+' | b'/' | b'=' => None,
            other => Some(other),
        })
        .collect::<Option<_>>()?;
    let packed = STANDARD.decode(standard).ok()?;
    let mut inflater = ZlibDecoder::new(packed.as_slice());
    let mut text = Vec::new();
    // One byte more than allowed tells a document that is too long from one that just fits.
    let bound = MAX_DOCUMENT as u64 + 1;
    inflater.by_ref().take(bound).read_to_end(&mut text).ok()?;
    if text.len() > MAX_DOCUMENT || !inflater.into_inner().is_empty() {
        return None;
    }
    // serde would also take an array for the document.
    if !text.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let document: Document = serde_json::from_slice(&text).ok()?;
    // Checked before the signed text is put together: a line break in a field could pass for the start of the next field.
    let clean = !document.identifier.is_empty() && !document.identifier.contains(char::is_control);
    let userbuf = document.userbuf.as_deref().unwrap_or_default();
    (clean && STANDARD.decode(userbuf).is_ok()).then_some(document)
}

/// Makes a UserSig of `identifier` that is valid from `now` for `lifetime` seconds. `None` for an identifier with control
/// characters.
pub(super) fn make_usersig(
    sdkappid: u64,
    key: &str,
    identifier: &str,
    now: u64,
    lifetime: u64,
) -> Option<String> {
    make(sdkappid, key, identifier, now, lifetime, None)
}

/// The same, with the bytes of a `userbuf`.
fn make(
    sdkappid: u64,
    key: &str,
    identifier: &str,
    now: u64,
    lifetime: u64,
    userbuf: Option<&[u8]>,
) -> Option<String> {
    if identifier.is_empty() || identifier.contains(char::is_control) {
        return None;
    }
    let mut document = Document {
        version: "2.0",
        identifier: identifier.to_owned(),
        sdkappid,
        expire: i64::try_from(lifetime).ok()?,
        time: now,
        userbuf: userbuf.map(|bytes| STANDARD.encode(bytes)),
        sig: String::new(),
    };
    let mac = document.mac(key.as_bytes())?.finalize();
    document.sig = STANDARD.encode(mac.into_bytes());
    let text = serde_json::to_vec(&document).ok()?;
    pack(&text, Compression::default())
}

/// Compresses a document, and writes it in the letters of a UserSig.
fn pack(text: &[u8], level: Compression) -> Option<String> {
    let mut deflater = ZlibEncoder::new(Vec::new(), level);
    deflater.write_all(text).ok()?;
    let packed = deflater.finish().ok()?;
    let swap = |c| match c {
        '+' => '*',
        '/' => '-',
        '=' => '_',
        other => other,
    };
    Some(STANDARD.encode(packed).chars().map(swap).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: u64 = 1_400_000_001;
    const KEY: &str = "unread-test-key-0001-not-a-real-secret";
    const NOW: u64 = 1_700_000_000;

    // Made by the vendor's packages for Python and Node (see T6) with the clock stopped. B has the userbuf `abc`.
    const A_PYTHON: &str = "eJyrVgrxCdYrSy1SslJQMtIzUNJRAItkpqTmlWSmZUIkElNyM-Myi0uKEkvyi2BKilOyEwsKMlOACgxNDCDAECqXWlGQWZQKlLEwA0pBBUsyc0FChuZQxTDx4sx0kCXp6d7ZqW6JwY65Tl6JoeGG5SV5UU7GxS4uocW*FdkVvgHl3uFJlaEVQX6etkq1AFbvNk0_";
    const A_NODE: &str = "eJw1ytEKwiAYBeB3*a9jaI0KoYvGCGotojUG3Rma-IgmKs2I3j3Y1rk73zkfuB6b7CU9MJhnBGZDRyFtxAcOzIVBiyF6Hp9*OgShuXMogNGcjKHjEtFIYHQ1KRlVJodeAlsv8z8FVMBAqUrLHW*2pjjwtqN9tLdiEcqyDXXSqT73VXd-t*ly2m-g*wPF7DTt";
    const B: &str = "eJyrVgrxCdYrSy1SslJQMtIzUNJRAItkpqTmlWSmZUIkElNyM-Myi0uKEkvyi2BKilOyEwsKMlOACgxNDCDAECqXWlGQWZQKlLEwA0pBBUsyc0FChuZQxTDx0uLUoqTSNJBFkeFeWXDzM9NBQs6pFUnumWbJHmYWwZ6Fnn4ejoZm5RZOYR4lfs5uhe4pXkH6voGW2WbFTtm2SrUAL0k7NQ__";
    const C_PYTHON: &str = "eJyrVgrxCdYrSy1SslJQMtIzUNJRAItkpqTmlWSmZUIkSotTi*JjSs1STJJiSi2SUkxhyopTshMLCjJTgIoMTQwgwBAql1pRkFmUCpQxMzCxMDCAipZk5oLEDM2hqmHixZnpIJuKk9J93JOjnPOq-Mo9ogojcwOMcw3cnYudDSpSvdKqkguM0kICfIwSC0sdbZVqARumNus_";
    const C_NODE: &str = "eJyrVgrxCdYrSy1SslIy0jNQ0gHzM1NS80oy0zLBwqXFqUXxz7Z2v1g-FSpdnJKdWFCQmaJkZWhiAAGGEJmSzNxUJStDc6ioAUQ0taIgsyhVycrMwMQCJlacma5kpVSclO7jnhzlnFflV*4RVRiZG2Cca*DuXOxsUJHqlVaVXGCUFhLgY5RYWOpoq1QLAFR3Ndg_";

    fn verify(usersig: &str, identifier: &str, now: u64) -> Result<(), Unusable> {
        Verifier::new(APP, KEY).verify(usersig, identifier, now)
    }

    fn json(fields: &str) -> String {
        pack(fields.as_bytes(), Compression::default()).unwrap()
    }

    #[test]
    fn the_vendors_own_signatures_are_good() {
        for usersig in [A_PYTHON, A_NODE, B] {
            assert_eq!(verify(usersig, "administrator", NOW), Ok(()));
        }
        for usersig in [C_PYTHON, C_NODE] {
            assert_eq!(verify(usersig, "user_测试", NOW), Ok(()));
        }
    }

    #[test]
    fn ours_hold_the_same_fields_and_mac() {
        let same = |ours: &str, theirs: &str| {
            let (ours, theirs) = (decode(ours).unwrap(), decode(theirs).unwrap());
            assert_eq!(ours.sig, theirs.sig);
            assert_eq!(ours.identifier, theirs.identifier);
            assert_eq!((ours.time, ours.expire), (theirs.time, theirs.expire));
            assert_eq!(ours.userbuf, theirs.userbuf);
        };
        let a = make_usersig(APP, KEY, "administrator", NOW, 86_400).unwrap();
        same(&a, A_PYTHON);
        assert_eq!(
            decode(&a).unwrap().sig,
            "ggKkeFaSAmBJaUW1wtnZB3sDDUsMxkxMPwKWbyUxRNI="
        );
        same(
            &make(APP, KEY, "administrator", NOW, 86_400, Some(b"abc")).unwrap(),
            B,
        );
        same(
            &make_usersig(APP, KEY, "user_测试", NOW, 604_800).unwrap(),
            C_NODE,
        );
        assert_eq!(make_usersig(APP, KEY, "a\nb", NOW, 1), None);
    }

    #[test]
    fn the_last_second_counts_and_the_next_does_not() {
        assert_eq!(verify(A_PYTHON, "administrator", NOW + 86_400), Ok(()));
        let late = NOW + 86_401;
        assert_eq!(
            verify(A_PYTHON, "administrator", late),
            Err(Unusable::Expired)
        );
        // The same from the cache.
        let verifier = Verifier::new(APP, KEY);
        assert_eq!(verifier.verify(A_NODE, "administrator", NOW), Ok(()));
        assert_eq!(
            verifier.verify(A_NODE, "administrator", NOW + 86_400),
            Ok(())
        );
        assert_eq!(
            verifier.verify(A_NODE, "somebody", NOW),
            Err(Unusable::OtherUser)
        );
        assert_eq!(
            verifier.verify(A_NODE, "administrator", late),
            Err(Unusable::Expired)
        );
        assert_eq!(
            verifier.verify(A_NODE, "administrator", late),
            Err(Unusable::Expired)
        );
        let forever = make_usersig(APP, KEY, "x", u64::MAX, 1).unwrap();
        assert_eq!(verify(&forever, "x", NOW), Err(Unusable::Expired));
    }

    #[test]
    fn the_first_thing_wrong_is_told() {
        let other = make_usersig(APP + 1, KEY, "administrator", NOW - 10, 1).unwrap();
        assert_eq!(verify(&other, "nobody", NOW), Err(Unusable::OtherApp));
        let expired = make_usersig(APP, "wrong", "administrator", NOW - 10, 1).unwrap();
        assert_eq!(verify(&expired, "nobody", NOW), Err(Unusable::OtherUser));
        assert_eq!(
            verify(&expired, "administrator", NOW),
            Err(Unusable::Forged)
        );
        let mut tampered = decode(B).unwrap();
        tampered.userbuf = Some("YWJk".into());
        let tampered = json(&serde_json::to_string(&tampered).unwrap());
        assert_eq!(
            verify(&tampered, "administrator", NOW),
            Err(Unusable::Forged)
        );
        let mut stripped = decode(B).unwrap();
        stripped.userbuf = None;
        let stripped = json(&serde_json::to_string(&stripped).unwrap());
        assert_eq!(
            verify(&stripped, "administrator", NOW),
            Err(Unusable::Forged)
        );
        let mut longer = decode(A_NODE).unwrap();
        longer.expire += 1;
        let longer = json(&serde_json::to_string(&longer).unwrap());
        assert_eq!(verify(&longer, "administrator", NOW), Err(Unusable::Forged));
    }

    #[test]
    fn what_is_not_a_usersig_is_told_so() {
        let good = r#"{"TLS.identifier":"a","TLS.sdkappid":1400000001,"TLS.expire":1,"TLS.time":1,"TLS.sig":""}"#;
        assert!(decode(&json(good)).is_some());
        for bad in [
            "",
            "x",
            "not base64 !",
            &A_PYTHON.replace('_', "="),
            &A_PYTHON[..100],
            &json(""),
            &json("[]"),
            &json(r#"["2.0","a",1400000001,1,1,null,"x"]"#),
            &json(&good.replace("\"a\"", "\"a\\nTLS.sdkappid:1\"")),
            &json(&good.replace("\"a\"", "\"\"")),
            &json(&good.replace(":1400000001", ":\"1400000001\"")),
            &json(&good.replace("\"TLS.time\":1", "\"TLS.time\":-1")),
            &json(&good.replace("}", ",\"TLS.userbuf\":\"x\\ny\"}")),
            &json(&good.replace("}", ",\"TLS.sig\":\"twice\"}")),
            &json(&format!("{good}{good}")),
        ] {
            assert_eq!(verify(bad, "a", NOW), Err(Unusable::Undecodable), "{bad}");
        }
    }

    #[test]
    fn any_compression_level_will_do_but_no_bomb_and_no_trailer() {
        let document = decode(A_PYTHON).unwrap();
        let text = serde_json::to_vec(&document).unwrap();
        for level in 0..=9 {
            let usersig = pack(&text, Compression::new(level)).unwrap();
            assert_eq!(
                verify(&usersig, "administrator", NOW),
                Ok(()),
                "level {level}"
            );
        }
        let mut padded = text.clone();
        padded.resize(MAX_DOCUMENT, b' ');
        let fits = pack(&padded, Compression::best()).unwrap();
        assert_eq!(verify(&fits, "administrator", NOW), Ok(()));
        padded.push(b' ');
        let long = pack(&padded, Compression::best()).unwrap();
        assert_eq!(
            verify(&long, "administrator", NOW),
            Err(Unusable::Undecodable)
        );
        padded.resize(1 << 20, b' ');
        let bomb = pack(&padded, Compression::best()).unwrap();
        assert!(
            bomb.len() < MAX_CHARS,
            "the bomb must get past the first bound"
        );
        assert_eq!(
            verify(&bomb, "administrator", NOW),
            Err(Unusable::Undecodable)
        );
        let mut deflater = ZlibEncoder::new(Vec::new(), Compression::default());
        deflater.write_all(&text).unwrap();
        let mut packed = deflater.finish().unwrap();
        packed.extend_from_slice(b"more");
        let trailed = STANDARD
            .encode(packed)
            .replace('+', "*")
            .replace('/', "-")
            .replace('=', "_");
        assert_eq!(
            verify(&trailed, "administrator", NOW),
            Err(Unusable::Undecodable)
        );
        let huge = "A".repeat(MAX_CHARS + 4);
        assert_eq!(verify(&huge, "a", NOW), Err(Unusable::Undecodable));
    }
}
