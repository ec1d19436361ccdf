//! The section `[apps.tencent]` of the configuration.

use crate::config::rules::{NeededNumber, NeededSecret, Texts};
use crate::config::{Credential, Secret, Section, SectionKind, settings};

pub(super) static SECTION: SectionKind = SectionKind::of::<TencentConfig>(
    "tencent",
    &["load-tencent-secret", "limited-tencent-secret"],
);

settings! {
    /// What an app needs to be called like this.
    pub(crate) struct TencentConfig {
        /// The SDKAppID that names this app.
        sdkappid: u64 = NeededNumber(1..=i64::MAX.unsigned_abs()),
        /// The key that signs UserSigs, used as the bytes of its text.
        secret_key: Secret = NeededSecret,
        /// The identifiers that are administrators. Only they may call.
        admins: Vec<String> = Texts(&["administrator"], admin),
    }
}

/// Checks the name of an administrator.
fn admin(name: &str) -> Result<(), String> {
    match name.is_empty() {
        true => Err("must not hold an empty name".into()),
        false => Ok(()),
    }
}

impl Section for TencentConfig {
    fn credentials(&self) -> Vec<Credential> {
        vec![
            Credential::secret("secret key", "secret_key", &self.secret_key),
            Credential {
                kind: "sdkappid",
                key: "sdkappid",
                value: Secret(self.sdkappid.to_string()),
            },
        ]
    }
}
