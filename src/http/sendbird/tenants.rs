//! Finds the app whose credentials a call has.

use std::collections::HashMap;
use std::sync::Arc;

use super::fault::{Fault, TOKEN};
use super::section::SendbirdConfig;
use crate::config::AppConfig;
use crate::http::keys::KeyRing;
use crate::http::request::Call;
use crate::names::AppId;

/// The header that holds a token.
pub(super) const API_TOKEN: &str = "api-token";

/// The apps by token and by host name.
pub(super) struct Tenants {
    pub(super) tokens: KeyRing<Arc<Tenant>>,
    /// By application id in lower case: the app's place in the configuration.
    pub(super) hosts: HashMap<String, usize>,
}

/// An app.
pub(super) struct Tenant {
    /// Its place in the configuration.
    pub index: usize,
    /// Its id.
    pub id: AppId,
}

impl Tenants {
    /// Indexes the apps that have a section of this dialect.
    pub(super) fn new(apps: &[AppConfig]) -> Self {
        let mut tokens = Vec::new();
        let mut hosts = HashMap::new();
        for (index, app) in apps.iter().enumerate() {
            let Some(config) = app.section::<SendbirdConfig>() else {
                continue;
            };
            let tenant = Arc::new(Tenant {
                index,
                id: app.id.clone(),
            });
            for token in std::iter::once(&config.master_token).chain(&config.api_tokens) {
                tokens.push((token.0.as_str(), Arc::clone(&tenant)));
            }
            hosts.insert(config.application_id.to_ascii_lowercase(), index);
        }
        Self {
            tokens: KeyRing::new(tokens),
            hosts,
        }
    }

    /// The app that a host `api-{application_id}.…` names, if there is such an app.
    pub(super) fn by_host(&self, host: &str) -> Option<usize> {
        let host = host.to_ascii_lowercase();
        let rest = host.strip_prefix("api-")?;
        rest.match_indices('.')
            .filter_map(|(at, _)| rest.get(..at))
            .find_map(|id| self.hosts.get(id).copied())
    }
}

/// The app whose token a call has. A host that names another app is refused.
pub(super) fn authenticate<'a>(call: &Call<'a>) -> Result<&'a Tenant, Fault> {
    let tenants: &Tenants = call.tenants()?;
    // The first that is not empty: an SDK sends the header twice (S4).
    let token = call.header(API_TOKEN).ok_or(TOKEN)?;
    let tenant = tenants.tokens.find(token).ok_or(TOKEN)?;
    match tenants.by_host(call.host()) {
        Some(index) if index != tenant.index => Err(TOKEN),
        _ => Ok(tenant),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_an_app_by_application_id() {
        let tenants = Tenants {
            tokens: KeyRing::new([]),
            hosts: HashMap::from([("demo-app".into(), 3), ("a.b".into(), 4)]),
        };
        assert_eq!(tenants.by_host("api-DEMO-app.sendbird.com:443"), Some(3));
        assert_eq!(tenants.by_host("api-a.b.example.org"), Some(4));
        assert_eq!(tenants.by_host("API-other.sendbird.com"), None);
        assert_eq!(tenants.by_host("api-demo-app"), None);
        assert_eq!(tenants.by_host("demo-app.sendbird.com"), None);
    }
}
