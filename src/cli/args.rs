//! The arguments that several commands share, read into what the commands work with.

use std::path::PathBuf;

use clap::Args;

use super::exit::Failure;
use super::process::begin_log;
use crate::audit::Scope;
use crate::config::{self, Config, ConfigError, Flags};
use crate::http;
use crate::keys::encode;
use crate::names::{AppId, UserId};

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// The configuration file; default: the one that UNREAD_CONFIG names, if any
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl ConfigArgs {
    pub(super) fn load(self) -> Result<Config, ConfigError> {
        let flags = Flags {
            file: self.config,
            ..Flags::default()
        };
        config::load(&flags, &http::sections())
    }
}

/// The arguments of a command that works on the data in Redis beside the pods.
#[derive(Debug, Args)]
pub(super) struct RedisArgs {
    #[command(flatten)]
    file: ConfigArgs,
    /// The Redis to use; without it and without redis.url, the private one of a pod that runs on redis.data_dir
    #[arg(long, value_name = "URL")]
    redis_url: Option<String>,
}

impl RedisArgs {
    /// The configuration, for a command whose output is all that is to be seen.
    pub(super) fn config(self) -> Result<Config, Failure> {
        let flags = Flags {
            file: self.file.config,
            redis_url: self.redis_url,
            ..Flags::default()
        };
        let mut config = config::load(&flags, &http::sections())?;
        config.log.level = "error".to_owned();
        begin_log(&config.log);
        Ok(config)
    }
}

/// The arguments of a command that looks through the data of all apps, of one app or of one user.
#[derive(Debug, Args)]
pub(super) struct ScopeArgs {
    #[command(flatten)]
    redis: RedisArgs,
    /// Only this app; default: every app that is in Redis
    #[arg(long)]
    app: Option<String>,
    /// Only this user of the app; --app can be left out if one app is configured
    #[arg(long)]
    user: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    pub(super) json: bool,
}

impl ScopeArgs {
    pub(super) fn config_and_scope(self) -> Result<(Config, Scope), Failure> {
        let app = self.app.map(app_id).transpose()?;
        let user = self.user.map(user_id).transpose()?;
        let config = self.redis.config()?;
        let app = match (app, &user, config.apps.as_slice()) {
            // A user is one of an app's; where there is only one app, it is that one's.
            (None, Some(_), [one]) => Some(one.id.clone()),
            (None, Some(_), _) => {
                return Err(Failure::Failed("--user wants --app as well".into()));
            }
            (app, ..) => app,
        };
        let user = user.map(|user| encode(user.as_str()));
        Ok((config, Scope { app, user }))
    }
}

pub(super) fn app_id(app: String) -> Result<AppId, Failure> {
    let why = || Failure::Failed(format!("--app {app:?} is no app id"));
    AppId::parse(app.as_str()).ok_or_else(why)
}

pub(super) fn user_id(user: String) -> Result<UserId, Failure> {
    UserId::parse(user).map_err(|why| Failure::Failed(format!("--user {why}")))
}

pub(super) fn not_configured(app: &str) -> Failure {
    Failure::NotThere(format!("no app {app:?} is configured"))
}
