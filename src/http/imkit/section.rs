//! The section `[apps.imkit]` of the configuration.

use crate::config::rules::{Choice, NeededSecret, NeededSecrets, Part};
use crate::config::{AppConfig, Credential, Secret, Section, SectionKind, settings};
use crate::names::DirectRoomIds;

pub(super) static SECTION: SectionKind = SectionKind::of::<ImkitConfig>(
    "imkit",
    &[
        "load-client-key",
        "load-imkit-secret",
        "limited-client-key",
        "limited-imkit-secret",
        "imkit-test-secret-not-real",
    ],
);

settings! {
    /// What an app needs to be called like this.
    pub(crate) struct ImkitConfig {
        /// Values of `IM-CLIENT-KEY`.
        client_keys: Vec<Secret> = NeededSecrets,
        /// HS256 secret of the users' tokens.
        jwt_secret: Secret = NeededSecret,
        /// How much of the app's limit one user may use on each endpoint; 1: all of it.
        user_share: f64 = Part(0.5),
        /// How the direct rooms are called that messages make: `own`, or `imkit`, as that vendor's SDKs do.
        direct_room_ids: DirectRoomIds = Choice(
            DirectRoomIds::Own,
            &[("own", DirectRoomIds::Own), ("imkit", DirectRoomIds::LoweredMd5)],
        ),
    }
}

impl Section for ImkitConfig {
    fn credentials(&self) -> Vec<Credential> {
        let keys = self.client_keys.iter();
        let keys = keys.map(|key| Credential::secret("client key", "client_keys", key));
        let secret = Credential::secret("jwt secret", "jwt_secret", &self.jwt_secret);
        keys.chain([secret]).collect()
    }

    fn direct_room_ids(&self) -> Option<DirectRoomIds> {
        Some(self.direct_room_ids)
    }
}

/// How much of an app's limit one user may use. There is such a share because the users' own devices call.
pub(super) fn user_share(app: &AppConfig) -> f64 {
    let config: Option<&ImkitConfig> = app.section();
    config.map_or(1.0, |config| config.user_share)
}
