//! For the fuzz targets `usersig` and `queries`: UserSigs that anybody may send, and bodies.
#![allow(missing_docs)]

use std::io::{Read, Write};
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use hmac::{Hmac, Mac};
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;

use super::question::{MAX_PEERS, Question};
use super::usersig::{Unusable, Verifier};

const APP: u64 = 1_400_000_001;
const KEY: &str = "unread-test-key-0001-not-a-real-secret";
const NOW: u64 = 1_700_000_000;
/// A good UserSig of `administrator`, made by the vendor's package.
const GOOD: &str = "eJyrVgrxCdYrSy1SslJQMtIzUNJRAItkpqTmlWSmZUIkElNyM-Myi0uKEkvyi2BKilOyEwsKMlOACgxNDCDAECqXWlGQWZQKlLEwA0pBBUsyc0FChuZQxTDx4sx0kCXp6d7ZqW6JwY65Tl6JoeGG5SV5UU7GxS4uocW*FdkVvgHl3uFJlaEVQX6etkq1AFbvNk0_";

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| Verifier::new(APP, KEY));

/// What the verifier says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found(Result<(), Unusable>);

/// A UserSig, and whose it is said to be.
pub struct Case {
    usersig: String,
    identifier: String,
}

fn vary(text: String) -> String {
    let swap = |c| match c {
        '+' => '*',
        '/' => '-',
        '=' => '_',
        other => other,
    };
    text.chars().map(swap).collect()
}

fn pack(text: &[u8]) -> String {
    let mut deflater = ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    deflater.write_all(text).unwrap();
    vary(STANDARD.encode(deflater.finish().unwrap()))
}

/// The fields of the document in a UserSig.
#[derive(Deserialize)]
struct Document {
    #[serde(rename = "TLS.identifier")]
    identifier: String,
    #[serde(rename = "TLS.sdkappid")]
    app: u64,
    #[serde(rename = "TLS.time")]
    time: u64,
    #[serde(rename = "TLS.expire")]
    expire: i64,
    #[serde(rename = "TLS.userbuf")]
    userbuf: Option<String>,
    #[serde(rename = "TLS.sig", default)]
    sig: String,
}

impl Document {
    fn mac(&self) -> Vec<u8> {
        let mut signed = format!(
            "TLS.identifier:{}\nTLS.sdkappid:{}\nTLS.time:{}\nTLS.expire:{}\n",
            self.identifier, self.app, self.time, self.expire
        );
        if let Some(userbuf) = &self.userbuf {
            signed += &format!("TLS.userbuf:{userbuf}\n");
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        mac.finalize().into_bytes().to_vec()
    }
}

/// The document in a UserSig, read by other means than the verifier's.
fn document(usersig: &str) -> Option<Document> {
    let standard = usersig
        .replace('*', "+")
        .replace('-', "/")
        .replace('_', "=");
    let packed = STANDARD.decode(standard).ok()?;
    let mut text = Vec::new();
    let inflater = ZlibDecoder::new(packed.as_slice());
    inflater.take(4_097).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

impl Case {
    /// The first byte says what the others are: a UserSig, what is packed into one, what is compressed into one, what is signed
    /// beforehand, or changes to a good one.
    pub fn new(data: &[u8]) -> Option<Self> {
        let (&mode, rest) = data.split_first()?;
        let mut identifier = "administrator".to_owned();
        let usersig = match mode % 5 {
            0 => std::str::from_utf8(rest).ok()?.to_owned(),
            1 => vary(STANDARD.encode(rest)),
            2 => pack(rest),
            3 => {
                let document: Document = serde_json::from_slice(rest).ok()?;
                let mut fields: Value = serde_json::from_slice(rest).ok()?;
                let fields = fields.as_object_mut()?;
                let mac = STANDARD.encode(document.mac());
                fields.insert("TLS.sig".into(), mac.into());
                identifier = document.identifier;
                pack(serde_json::to_string(fields).unwrap().as_bytes())
            }
            _ => {
                let mut good = GOOD.as_bytes().to_vec();
                for change in rest.chunks_exact(2).take(4) {
                    let at = usize::from(change[0]) * good.len() / 256;
                    good[at] = change[1];
                }
                String::from_utf8(good).ok()?
            }
        };
        Some(Self {
            usersig,
            identifier,
        })
    }

    pub fn verify(&self) -> Found {
        Found(VERIFIER.verify(&self.usersig, &self.identifier, NOW))
    }

    /// Checks that the verifier may say so, and that it says so again.
    pub fn check(&self, found: Found) {
        assert_eq!(self.verify(), found);
        if found.0.is_err() {
            return;
        }
        let document = document(&self.usersig).unwrap();
        assert_eq!(STANDARD.decode(&document.sig).unwrap(), document.mac());
        let (app, identifier) = (document.app, &document.identifier);
        assert_eq!((app, identifier), (APP, &self.identifier));
        assert!(!self.identifier.is_empty() && !self.identifier.contains(char::is_control));
        let until = i128::from(document.time) + i128::from(document.expire);
        assert!(i128::from(NOW) <= until);
        // A remembered UserSig is good for the same user only, and only until it expires.
        assert_eq!(self.verify(), found);
        let other = VERIFIER.verify(&self.usersig, "somebody", NOW);
        assert!(other.is_err() || self.identifier == "somebody");
        let until = u64::try_from(until).unwrap();
        if let Some(late) = until.checked_add(1) {
            assert_eq!(
                VERIFIER.verify(&self.usersig, &self.identifier, late),
                Err(Unusable::Expired)
            );
        }
    }
}

/// A body of the dialect's one endpoint.
pub fn body(data: &[u8]) {
    let Ok(question) = Question::parse(data) else {
        return;
    };
    assert!(question.peers.len() <= MAX_PEERS && question.others().len() <= question.peers.len());
    let text = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    // serde reads the same from the two fields; it may refuse a body for a field that the reader does not look into.
    if let Ok(theirs) = serde_json::from_slice::<Value>(text) {
        assert_eq!(theirs["To_Account"], *question.user.as_str());
        let most = theirs["Peer_Account"].as_array().map_or(0, Vec::len);
        assert!(question.peers.len() <= most);
    }
}

/// The app's number in a query.
pub fn number(text: &str) {
    if let Some(number) = super::tenants::digits(text) {
        let plain = text.trim_start_matches('0');
        let plain = if plain.is_empty() { "0" } else { plain };
        assert!(number.to_string() == plain || text.is_empty());
    }
}
