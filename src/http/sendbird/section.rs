//! The section `[apps.sendbird]` of the configuration.

use crate::config::rules::{NeededSecret, NeededText, Secrets};
use crate::config::{Credential, Secret, Section, SectionKind, settings};

pub(super) static SECTION: SectionKind = SectionKind::of::<SendbirdConfig>(
    "sendbird",
    &[
        "load-master-token",
        "load-api-token",
        "limited-master-token",
        "limited-api-token",
        "sdk-test-api-token",
    ],
);

settings! {
    /// What an app needs to be called like this.
    pub(crate) struct SendbirdConfig {
        /// The application id, as in the host name `api-APPLICATION_ID.…`: 1 to 63 of A-Z a-z 0-9 - _.
        application_id: String = NeededText(application_id),
        /// The master API token.
        master_token: Secret = NeededSecret,
        /// The other API tokens that are good.
        api_tokens: Vec<Secret> = Secrets,
    }
}

/// Checks an application id, which is a part of a host name.
fn application_id(id: &str) -> Result<(), String> {
    let part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let legal = !id.is_empty() && id.len() <= 63 && id.bytes().all(part);
    legal
        .then_some(())
        .ok_or_else(|| "must be 1 to 63 of A-Z a-z 0-9 - _".into())
}

impl Section for SendbirdConfig {
    fn credentials(&self) -> Vec<Credential> {
        let mut all = vec![Credential::secret(
            "token",
            "master_token",
            &self.master_token,
        )];
        let tokens = self.api_tokens.iter();
        all.extend(tokens.map(|token| Credential::secret("token", "api_tokens", token)));
        all.push(Credential {
            kind: "application id",
            key: "application_id",
            // Case does not matter in host names.
            value: Secret(self.application_id.to_ascii_lowercase()),
        });
        all
    }
}
