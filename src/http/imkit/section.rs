//! The section `[apps.imkit]` of the configuration.

use crate::config::rules::{Choice, Fraction, NeededSecret, NeededSecrets};
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
        /// The values of `IM-CLIENT-KEY` that name this app.
        client_keys: Vec<Secret> = NeededSecrets,
        /// The secret that signs the users' tokens (HS256).
        jwt_secret: Secret = NeededSecret,
        /// The part of the app's limit that one user may use on each endpoint; 1: all of it.
        user_share: f64 = Fraction(0.5),
        /// Which ids direct rooms get that a message with `to` makes: `own`, or `imkit`: those that the vendor's SDKs work
        /// out.
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
