//! Finds the app whose credentials a call has.

use std::collections::{HashMap, HashSet};

use super::fault::{ACCOUNT, ADMIN, APP_FORM, APP_MISSING, APP_UNKNOWN, Fault, SIG_EMPTY};
use super::section::TencentConfig;
use super::usersig::Verifier;
use crate::config::AppConfig;
use crate::http::request::{self, Call};
use crate::names::AppId;

/// The apps by SDKAppID.
pub(super) struct Tenants(HashMap<u64, Tenant>);

/// An app.
pub(super) struct Tenant {
    /// Its place in the configuration.
    pub index: usize,
    /// Its id.
    pub id: AppId,
    signatures: Verifier,
    admins: HashSet<String>,
}

impl Tenants {
    /// Indexes the apps that have a section of this dialect.
    pub(super) fn new(apps: &[AppConfig]) -> Self {
        let tenant = |(index, app): (usize, &AppConfig)| {
            let config = app.section::<TencentConfig>()?;
            let tenant = Tenant {
                index,
                id: app.id.clone(),
                signatures: Verifier::new(config.sdkappid, &config.secret_key.0),
                admins: config.admins.iter().cloned().collect(),
            };
            Some((config.sdkappid, tenant))
        };
        Self(apps.iter().enumerate().filter_map(tenant).collect())
    }
}

/// The app whose administrator's UserSig a call has.
pub(super) fn authenticate<'a>(call: &Call<'a>) -> Result<&'a Tenant, Fault> {
    let (mut app, mut identifier, mut usersig) = (None, None, None);
    for (name, value) in call.query() {
        let slot = match &*name {
            "sdkappid" => &mut app,
            "identifier" => &mut identifier,
            "usersig" => &mut usersig,
            _ => continue,
        };
        slot.get_or_insert(value);
    }
    let app = app.filter(|app| !app.is_empty()).ok_or(APP_MISSING)?;
    let app = digits(&app).ok_or(APP_FORM)?;
    let Tenants(tenants) = call.tenants()?;
    let tenant = tenants.get(&app).ok_or(APP_UNKNOWN)?;
    let identifier = identifier.filter(|id| !id.is_empty()).ok_or(ACCOUNT)?;
    let usersig = usersig.ok_or(ACCOUNT)?;
    if usersig.is_empty() {
        return Err(SIG_EMPTY);
    }
    let now = request::unix_seconds();
    tenant.signatures.verify(&usersig, &identifier, now)?;
    if !tenant.admins.contains(&*identifier) {
        return Err(ADMIN);
    }
    Ok(tenant)
}

/// A decimal number. It has no sign, which `parse` alone would take.
pub(super) fn digits(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_numbers_are_plain_digits() {
        assert_eq!(digits("1400000001"), Some(1_400_000_001));
        assert_eq!(digits("+1"), None);
        assert_eq!(digits("-1"), None);
        assert_eq!(digits("1x"), None);
        assert_eq!(digits("99999999999999999999"), None);
    }
}
