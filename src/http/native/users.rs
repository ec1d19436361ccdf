//! The calls of users' own devices, which have a user token in the place of a server key. Pages of other origins may make them.

use std::sync::Arc;

use actix_web::http::StatusCode;

use super::bearer;
use super::problem::Problem;
use crate::config::AppConfig;
use crate::error::Error;
use crate::http::cors::Origins;
use crate::http::dialect::{NoToken, TokenKind};
use crate::http::jwt::{self, Claim, Unusable, Verifier};
use crate::http::request::{self, Call};
use crate::limiter::{Allowance, Endpoint, Entry};
use crate::names::{AppId, UserId};

/// The headers that pages send, beside those that every page may.
pub(super) const HEADERS: &str = "Authorization, If-None-Match, Last-Event-ID, Content-Type";

/// Each user has a limit: a token in a browser must not take up what the app's own calls need.
pub(super) const LIMIT: Endpoint = Endpoint {
    name: "native-me-unread",
    allowance: Allowance::OfEachUser(|app| app.users.rate_limit),
};

pub(super) static TOKEN: TokenKind = TokenKind {
    name: "user",
    about: "Print a user token, with which a user's own device asks for the user's counts",
    flag: "user",
    help: "The user whose token it is",
    make: |app, named, now, ttl| {
        let secret = app.users.token_secret.first();
        let secret = secret.ok_or(NoToken::Missing("token_secret in [apps.users]"))?;
        let user = UserId::parse(named).map_err(|why| NoToken::Bad(why.to_string()))?;
        jwt::make_token(&secret.0, Claim::Subject, &user, now, ttl).ok_or(NoToken::Unsigned)
    },
};

/// What lets users in, and whose pages may read the answers.
pub(super) struct Users {
    /// Each secret belongs to the app at that place in the configuration.
    pub(super) tokens: Verifier<usize>,
    /// By the app's place in the configuration.
    origins: Vec<Origins>,
    /// Those of all apps that take user tokens, for calls that belong to no app.
    all: Origins,
}

impl Users {
    /// Indexes the apps.
    pub(super) fn new(apps: &[AppConfig]) -> Self {
        let secrets = apps.iter().enumerate().flat_map(|(index, app)| {
            let secrets = app.users.token_secret.iter();
            secrets.map(move |secret| (secret.0.as_str(), index))
        });
        let origins = |app: &AppConfig| Origins::new(&app.users.allowed_origins);
        let mut all = Origins::default();
        for app in apps.iter().filter(|app| !app.users.token_secret.is_empty()) {
            all.add(&origins(app));
        }
        Self {
            tokens: Verifier::new(&[Claim::Subject], secrets),
            origins: apps.iter().map(origins).collect(),
            all,
        }
    }

    /// The origins whose pages may read the answer to a call.
    pub(super) fn origins(&self, call: &Call<'_>) -> &Origins {
        let of_app = call.app.get().and_then(|app| self.origins.get(app));
        of_app.unwrap_or(&self.all)
    }

    /// The origins whose pages may open streams of an app's users.
    pub(super) fn origins_of(&self, app: usize) -> Option<&Origins> {
        self.origins.get(app)
    }
}

/// Whether a call is one of those of users' own devices, by its path.
pub(super) fn is_users_own(call: &Call<'_>) -> bool {
    matches!(
        call.segments.as_slice(),
        ["v1", "me", ..] | ["v1", "live" | "live.js"]
    )
}

/// The app and the user whose token a call has, and the call's entry in the user's limit. Counts a refusal.
pub(super) fn enter<'a>(
    call: &Call<'a>,
    users: &Users,
) -> Result<(&'a AppId, Arc<UserId>, Entry<'a>), Problem> {
    let verified = match bearer(call) {
        Some(token) => users.tokens.verify(token, request::unix_seconds()),
        None => Err(Unusable::Forged),
    };
    let refused = Problem::new(
        StatusCode::UNAUTHORIZED,
        "a valid user token is needed as bearer token",
    );
    let (user, index) = match verified {
        Ok(verified) => verified,
        Err(Unusable::Forged) => {
            return Err(call.refused().map_or(refused, Problem::too_many));
        }
        // The app has signed it: the caller does not try to guess one, and has to hear what is wrong.
        Err(why @ (Unusable::Untimely | Unusable::NotSeconds)) => {
            call.known_refused();
            return Err(Problem::new(StatusCode::UNAUTHORIZED, why.to_string()));
        }
    };
    call.is_of(index);
    let app = call.state.config.apps.get(index);
    let app = app.ok_or_else(|| Error::Internal("an app is missing".into()))?;
    let mut entry = call.enter_as(index, &user);
    // Other pods learn that this user calls often.
    if let Some(tab) = entry.report() {
        call.state.limits.report(tab);
    }
    Ok((&app.id, user, entry))
}
