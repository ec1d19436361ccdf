//! Tokens and signatures, made as the vendors make them and not as the program does.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

pub fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

pub fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// A JWT as IMKIT's own server issues it: HS256 over `{id, exp, iat}`.
pub fn imkit_token(secret: &str, user: &str, exp: u64) -> String {
    imkit_token_of(
        secret,
        &json!({ "id": user, "exp": exp, "iat": exp.saturating_sub(3600) }),
    )
}

pub fn imkit_token_of(secret: &str, claims: &Value) -> String {
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let body = URL_SAFE_NO_PAD.encode(claims.to_string());
    let signed = format!("{head}.{body}");
    let mac = URL_SAFE_NO_PAD.encode(hmac_sha256(secret.as_bytes(), signed.as_bytes()));
    format!("{signed}.{mac}")
}

/// A user token as a back end issues it: HS256 over `{sub, exp}`.
pub fn user_token(secret: &str, user: &str, exp: u64) -> String {
    imkit_token_of(secret, &json!({ "sub": user, "exp": exp }))
}

/// A UserSig as the vendor's packages make it (TLSSigAPIv2).
pub fn tencent_usersig(
    sdkappid: u64,
    key: &str,
    identifier: &str,
    time: u64,
    expire: u64,
) -> String {
    let signed = format!(
        "TLS.identifier:{identifier}\nTLS.sdkappid:{sdkappid}\nTLS.time:{time}\nTLS.expire:{expire}\n"
    );
    let sig = STANDARD.encode(hmac_sha256(key.as_bytes(), signed.as_bytes()));
    let document = json!({
        "TLS.ver": "2.0",
        "TLS.identifier": identifier,
        "TLS.sdkappid": sdkappid,
        "TLS.expire": expire,
        "TLS.time": time,
        "TLS.sig": sig,
    });
    pack_usersig(&document)
}

/// The document of a UserSig in the form in which it travels.
pub fn pack_usersig(document: &Value) -> String {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(document.to_string().as_bytes()).unwrap();
    STANDARD
        .encode(zlib.finish().unwrap())
        .replace('+', "*")
        .replace('/', "-")
        .replace('=', "_")
}
