//! Finds the app and the user whose credentials a call has.

use std::sync::Arc;

use super::fault::{CLIENT_KEY, Fault, TOKEN};
use super::section::ImkitConfig;
use super::token::{Unusable, Verifier};
use crate::config::AppConfig;
use crate::http::cors::Origins;
use crate::http::keys::KeyRing;
use crate::http::request::{self, Call};
use crate::names::{AppId, UserId};

/// The apps by client key.
pub(super) struct Tenants {
    keys: KeyRing<Arc<Tenant>>,
    /// The origins of all apps together, for calls that belong to no app: preflights, and calls with an unknown key.
    origins: Origins,
    /// Whether the origins of some app are not simply all.
    differ: bool,
}

/// An app.
pub(super) struct Tenant {
    /// Its place in the configuration.
    pub index: usize,
    /// Its id.
    pub id: AppId,
    tokens: Verifier,
    origins: Origins,
}

impl Tenants {
    /// Indexes the apps that have a section of this dialect.
    pub(super) fn new(apps: &[AppConfig]) -> Self {
        let mut keys = Vec::new();
        let (mut origins, mut differ) = (Origins::default(), false);
        for (index, app) in apps.iter().enumerate() {
            let Some(config) = app.section::<ImkitConfig>() else {
                continue;
            };
            let tenant = Arc::new(Tenant {
                index,
                id: app.id.clone(),
                tokens: Verifier::new(&config.jwt_secret.0),
                origins: Origins::new(&app.users.allowed_origins),
            });
            origins.add(&tenant.origins);
            differ |= !tenant.origins.is_any();
            for key in &config.client_keys {
                keys.push((key.0.as_str(), Arc::clone(&tenant)));
            }
        }
        Self {
            keys: KeyRing::new(keys),
            origins,
            differ,
        }
    }

    /// The origins whose pages may read the answer to a call.
    pub(super) fn origins(&self, call: &Call<'_>) -> &Origins {
        let own = || self.keys.find(client_key(call)?);
        match self.differ.then(own).flatten() {
            Some(tenant) => &tenant.origins,
            None => &self.origins,
        }
    }
}

/// Why a call is not let in.
pub(super) enum Refusal {
    /// Nothing shows that the app ever gave this caller a credential.
    Stranger(Fault),
    /// The caller has a token that the app has signed, which is not good for this call: it does not try to guess one. So it never
    /// hears that there were too many refusals: each device with an expired token, however many there are, has to hear just that.
    Known(Fault),
}

/// The client key of a call, in the header of today or in the older one.
fn client_key<'a>(call: &Call<'a>) -> Option<&'a str> {
    let legacy = || call.header("client_key");
    call.header("im-client-key").or_else(legacy)
}

/// A token without the word `Bearer`, which some libraries put before it.
fn without_bearer(token: &str) -> &str {
    match token.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
        _ => token,
    }
}

/// The app and the user whose credentials a call has. An `IM-CLIENT-ID` (I2) that names another user is refused.
pub(super) fn authenticate<'a>(call: &Call<'a>) -> Result<(&'a Tenant, Arc<UserId>), Refusal> {
    const NO_KEY: Refusal = Refusal::Stranger(CLIENT_KEY);
    let key = client_key(call).ok_or(NO_KEY)?;
    let tenants: &Tenants = call
        .tenants()
        .map_err(|error| Refusal::Known(error.into()))?;
    let tenant = tenants.keys.find(key).ok_or(NO_KEY)?;
    let legacy = || call.header("authorization");
    let token = call.header("im-authorization").or_else(legacy);
    let token = without_bearer(token.ok_or(Refusal::Stranger(TOKEN))?);
    let user = tenant.tokens.verify(token, request::unix_seconds());
    let user = user.map_err(|why| match why {
        Unusable::Forged => Refusal::Stranger(TOKEN),
        Unusable::Untimely | Unusable::NotSeconds => Refusal::Known(TOKEN),
    })?;
    if call.headers("im-client-id").any(|id| id != user.as_str()) {
        return Err(Refusal::Known(TOKEN));
    }
    Ok((tenant, user))
}
