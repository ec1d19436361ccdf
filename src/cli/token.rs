//! `unread token`: a token as a back end would make it, to try calls with. Each dialect says which it has.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Subcommand};

use super::args::{ConfigArgs, not_configured};
use super::exit::{self, Failure};
use super::output::print;
use crate::config::{AppConfig, Flags};
use crate::demo;
use crate::http;
use crate::http::dialect::{NoToken, TokenKind};

#[derive(Debug, Args)]
struct AppArgs {
    #[command(flatten)]
    file: ConfigArgs,
    /// The app's id
    #[arg(long)]
    app: String,
    /// Seconds for which the token is valid, up to 315360000 (ten years)
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400,
          value_parser = clap::value_parser!(u64).range(1..=315_360_000))]
    ttl_seconds: u64,
}

/// The token that is asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    kind: &'static str,
    of: AppArgs,
    named: String,
}

/// The tokens that there are.
fn kinds() -> impl Iterator<Item = &'static TokenKind> {
    http::dialects().filter_map(|dialect| dialect.token())
}

fn kind(name: &str) -> Option<&'static TokenKind> {
    kinds().find(|kind| kind.name == name)
}

impl Subcommand for Wanted {
    fn augment_subcommands(command: Command) -> Command {
        kinds().fold(command, |command, kind| {
            let named = Arg::new(kind.flag)
                .long(kind.flag)
                .value_name("ID")
                .required(true)
                .help(kind.help);
            let made = AppArgs::augment_args(Command::default().name(kind.name).about(kind.about));
            command.subcommand(made.arg(named))
        })
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        kind(name).is_some()
    }
}

impl FromArgMatches for Wanted {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (name, matches) = matches.subcommand().ok_or_else(missing)?;
        let kind = kind(name).ok_or_else(missing)?;
        let named = matches.get_one::<String>(kind.flag).cloned();
        Ok(Self {
            kind: kind.name,
            of: AppArgs::from_arg_matches(matches)?,
            named: named.unwrap_or_default(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Makes the token and prints it.
pub(super) fn print_token(wanted: Wanted) -> Result<u8, Failure> {
    let Wanted {
        kind: name,
        of,
        named,
    } = wanted;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let Some(kind) = kind(name) else {
        return Err(Failure::Failed(format!(
            "there are no tokens called {name}"
        )));
    };
    let ttl = of.ttl_seconds;
    let app = app(of)?;
    let token = (kind.make)(&app, &named, now, ttl).map_err(|why| {
        let (id, flag) = (&app.id, kind.flag);
        Failure::Failed(match why {
            NoToken::Missing(what) => format!("app \"{id}\" has no {what}"),
            NoToken::Bad(why) => format!("--{flag} {why}"),
            NoToken::Unsigned => format!("--{flag} can't be signed"),
        })
    })?;
    print(&format!("{token}\n"));
    Ok(exit::WELL)
}

/// The app asked for. Where nothing at all is configured there is the demo's, so that its calls can be tried further.
fn app(of: AppArgs) -> Result<AppConfig, Failure> {
    let mut apps = of.file.load()?.apps;
    let is_demo = apps.is_empty();
    if is_demo {
        apps = demo::config(&Flags::default(), Vec::new(), &http::sections())?.apps;
    }
    let known: Vec<String> = apps
        .iter()
        .map(|app| format!("{:?}", app.id.as_str()))
        .collect();
    let mut apps = apps.into_iter();
    let app = apps.find(|app| app.id.as_str() == of.app);
    app.ok_or_else(|| {
        let failure = not_configured(&of.app);
        if !is_demo {
            return failure;
        }
        let known = known.join(", ");
        failure.map(|why| {
            format!(
                "{why}: no configuration with apps was given (--config FILE), so only the demo's app, {known}, is known"
            )
        })
    })
}
