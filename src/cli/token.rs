//! `unread token`.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};

use super::args::{ConfigArgs, not_configured};
use super::exit::{self, Failure};
use super::output::print;
use crate::config::{AppConfig, Flags};
use crate::names::{AppId, UserId};
use crate::{demo, http};

#[derive(Debug, Args)]
pub(super) struct TokenOf {
    #[command(flatten)]
    file: ConfigArgs,
    /// The app's id
    #[arg(long)]
    app: String,
    /// How long it is valid
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400,
          value_parser = clap::value_parser!(u64).range(1..=315_360_000))]
    ttl_seconds: u64,
}

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// An IMKIT client token
    Imkit {
        #[command(flatten)]
        of: TokenOf,
        /// The user that it names
        #[arg(long)]
        user: String,
    },
    /// A Tencent Chat UserSig
    Tencent {
        #[command(flatten)]
        of: TokenOf,
        /// The administrator that it names
        #[arg(long)]
        identifier: String,
    },
}

impl Token {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let (token, id) = match self {
            Token::Imkit { of, user } => {
                let ttl = of.ttl_seconds;
                let app = app(of)?;
                let imkit = app.imkit.ok_or_else(|| without(&app.id, "imkit"))?;
                let id =
                    UserId::parse(user).map_err(|why| Failure::Failed(format!("--user {why}")))?;
                let secret = &imkit.jwt_secret.0;
                (http::imkit::make_token(secret, &id, now, ttl), "--user")
            }
            Token::Tencent { of, identifier } => {
                let ttl = of.ttl_seconds;
                let app = app(of)?;
                let tencent = app.tencent.ok_or_else(|| without(&app.id, "tencent"))?;
                let (sdkappid, key) = (tencent.sdkappid, &tencent.secret_key.0);
                let sig = http::tencent::make_usersig(sdkappid, key, &identifier, now, ttl);
                (sig, "--identifier")
            }
        };
        let token = token.ok_or_else(|| Failure::Failed(format!("{id} can't be signed")))?;
        print(&format!("{token}\n"));
        Ok(exit::WELL)
    }
}

fn without(app: &AppId, dialect: &str) -> Failure {
    Failure::Failed(format!("app \"{app}\" has no [apps.{dialect}] section"))
}

/// The app asked for. Where nothing at all is configured there is the demo's, so that its calls can be tried further.
fn app(of: TokenOf) -> Result<AppConfig, Failure> {
    let mut apps = of.file.load()?.apps;
    if apps.is_empty() {
        apps = demo::config(&Flags::default())?.apps;
    }
    apps.into_iter()
        .find(|app| app.id.as_str() == of.app)
        .ok_or_else(|| not_configured(&of.app))
}
