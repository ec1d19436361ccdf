//! The support module's own tests.

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::support::{RedisServer, hmac_sha256, imkit_token_of, tencent_usersig};

#[test]
fn tokens_agree_with_the_vendors_vectors() {
    let claims: Value =
        serde_json::from_str(r#"{"id":"alice","exp":1700604800,"iat":1700000000}"#).unwrap();
    let token = imkit_token_of("imkit-test-secret-not-real", &claims);
    let signature = |token: &str, text: &str| {
        let head = token.split('.').next().unwrap();
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(text));
        URL_SAFE_NO_PAD.encode(hmac_sha256(
            b"imkit-test-secret-not-real",
            signed.as_bytes(),
        ))
    };
    // The vector's order of the claims is the vendor's; ours may differ, the construction may not.
    assert_eq!(
        signature(
            &token,
            r#"{"id":"alice","exp":1700604800,"iat":1700000000}"#
        ),
        "GHxJYe4ZD1UISLdWtthL5oc0VSgv7Hw_n3LaEgEpf-Y"
    );

    let usersig = tencent_usersig(
        1_400_000_001,
        "unread-test-key-0001-not-a-real-secret",
        "administrator",
        1_700_000_000,
        86_400,
    );
    let bytes = STANDARD
        .decode(
            usersig
                .replace('*', "+")
                .replace('-', "/")
                .replace('_', "="),
        )
        .unwrap();
    let mut text = String::new();
    flate2::read::ZlibDecoder::new(bytes.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        document["TLS.sig"],
        "ggKkeFaSAmBJaUW1wtnZB3sDDUsMxkxMPwKWbyUxRNI="
    );
}

/// The processes' own side of the house: what restarts keeps its data, what is dropped is gone.
#[test]
fn a_durable_redis_survives_its_own_death() {
    let mut redis = RedisServer::start_durable();
    assert_eq!(redis.cli(&["SET", "k", "v"]), "OK");
    redis.kill9();
    assert!(redis.inline("PING").is_none());
    redis.restart();
    assert_eq!(redis.cli(&["GET", "k"]), "v");
    redis.stop();
}
