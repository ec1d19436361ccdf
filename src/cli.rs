//! The command line: reads, sets up logs, builds, runs. Whatever goes wrong is one readable line each on standard error.

mod token;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{App, Stop};
use crate::audit::Scope;
use crate::config::{self, Config, ConfigError, Flags, WeakSecret};
use crate::error::Error;
use crate::keys::encode;
use crate::names::{AppId, RoomId, UserId};
use crate::{admin, demo, http, telemetry};

/// What the exit code of any command says; `docs/operate.md` has the same table.
const EXIT_CODES: &str = "Exit codes:
  0  done, and all is well
  1  done, and something is not: drift, an event that was rejected, a check that failed; or nothing is kept of what was named
  2  wrong flags, a wrong configuration, or what else kept the command from running to its end
  3  Redis is away: it can't be reached, refuses us, or does not answer in time";

/// Exact unread counts for chat back ends, kept in Redis, answered in the wire formats of several vendors.
#[derive(Debug, Parser)]
#[command(name = "unread", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one pod until SIGTERM or ctrl-c
    Serve {
        #[command(flatten)]
        file: ConfigFile,
        /// Address of the four endpoints and /v1
        #[arg(long, value_name = "HOST:PORT")]
        listen: Option<String>,
        /// Address of /livez, /readyz and /metrics
        #[arg(long, value_name = "HOST:PORT")]
        admin_listen: Option<String>,
        /// Redis to use; without one, a private redis-server is started
        #[arg(long, value_name = "URL")]
        redis_url: Option<String>,
        /// Where a private redis-server keeps its data
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Run with a built-in app, a private Redis and sample data, and print calls to try
    Demo {
        /// Address of the four endpoints and /v1
        #[arg(long, value_name = "HOST:PORT")]
        listen: Option<String>,
        /// Address of /livez, /readyz and /metrics
        #[arg(long, value_name = "HOST:PORT")]
        admin_listen: Option<String>,
    },
    /// Check the configuration and print what it comes to, secrets masked
    CheckConfig {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print a valid token or UserSig
    Token {
        #[command(subcommand)]
        wanted: token::Wanted,
    },
    /// Recompute every count from the positions and report what differs, and what can't be read; writes nothing
    Verify {
        #[command(flatten)]
        of: Checked,
    },
    /// Repair what `verify` finds; exit code 1: something is left
    Rebuild {
        #[command(flatten)]
        of: Checked,
        /// Mend what can't be read, as far as other data tell it, and remove the rest of it
        #[arg(long)]
        mend: bool,
        /// Only tell what --mend would do, and write nothing
        #[arg(long, requires = "mend")]
        dry_run: bool,
    },
    /// Show one user or one room as it stands in Redis, with the redis-cli lines that show the same
    Inspect {
        #[command(flatten)]
        redis: RedisOf,
        /// The app's id
        #[arg(long)]
        app: String,
        #[command(flatten)]
        what: Inspected,
        /// Show instead what the data take in Redis, for each user and room: of a sample, or of --user
        #[arg(long, conflicts_with = "room")]
        memory: bool,
        /// How many users, and how many rooms, are weighed
        #[arg(long, value_name = "COUNT", default_value_t = 1_000, requires = "memory",
              value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        sample: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Apply the events of a file, one JSON object a line
    Import {
        #[command(flatten)]
        redis: RedisOf,
        /// The app's id
        #[arg(long)]
        app: String,
        /// Begin with this line, the first being 1
        #[arg(long, value_name = "LINE", default_value_t = 1)]
        from_line: u64,
        /// What the lines are known by: the same file imported again under the same name within a day changes nothing
        /// [default: the file's path; of standard input: none]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// How long to go on trying while Redis is away
        #[arg(long, value_name = "SECONDS", default_value_t = 60,
              value_parser = clap::value_parser!(u64).range(..=86_400))]
        patience_seconds: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The file; - is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Check the Redis that is configured and say what to change
    Doctor {
        #[command(flatten)]
        redis: RedisOf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct RedisOf {
    #[command(flatten)]
    file: ConfigFile,
    /// Redis to use; without one, the private redis-server of a pod that runs in redis.data_dir
    #[arg(long, value_name = "URL")]
    redis_url: Option<String>,
}

#[derive(Debug, Args)]
struct Checked {
    #[command(flatten)]
    redis: RedisOf,
    /// Only this app; default: every app that is in Redis
    #[arg(long)]
    app: Option<String>,
    /// Only this user of it
    #[arg(long)]
    user: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

// The command checks by itself that one of them is given: the parser would report both as missing.
#[derive(Debug, Args)]
struct Inspected {
    /// The user to show
    #[arg(long)]
    user: Option<String>,
    /// The room to show, instead of a user
    #[arg(long)]
    room: Option<String>,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file; default: the one that UNREAD_CONFIG names, if any
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why a command did not run to its end, or had nothing to run on.
#[derive(Debug)]
pub enum Failure {
    /// Nothing is kept, or configured, of what was named.
    NotThere(String),
    /// What was given is wrong, or it could not be done.
    Failed(String),
    /// Redis can't be reached, refuses us, or did not answer in time. The same again may work.
    RedisAway(String),
}

impl Failure {
    /// The exit code, as [`EXIT_CODES`] has it, and why.
    fn told(self) -> (u8, String) {
        match self {
            Failure::NotThere(why) => (1, why),
            Failure::Failed(why) => (2, why),
            Failure::RedisAway(why) => (REDIS_AWAY, why),
        }
    }

    /// The same failure, with what it means for the command.
    pub fn map(self, words: impl FnOnce(String) -> String) -> Self {
        match self {
            Failure::NotThere(why) => Failure::NotThere(words(why)),
            Failure::Failed(why) => Failure::Failed(words(why)),
            Failure::RedisAway(why) => Failure::RedisAway(words(why)),
        }
    }
}

const REDIS_AWAY: u8 = 3;

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Failure::Failed(why)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::Failed(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.is_transient() {
            true => Failure::RedisAway(error.to_string()),
            false => Failure::Failed(error.to_string()),
        }
    }
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let all = Cli::command()
        .after_help(EXIT_CODES)
        .mut_subcommands(|command| command.after_help(EXIT_CODES));
    let given = Cli::from_arg_matches(&all.get_matches()).unwrap_or_else(|error| error.exit());
    let (code, text) = match run(given.command) {
        Ok(code) => return ExitCode::from(code),
        Err(failure) => failure.told(),
    };
    for line in text.lines() {
        eprintln!("unread: {line}");
    }
    ExitCode::from(code)
}

/// Runs a command; answers the exit code of one that ran to its end.
fn run(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Serve {
            file,
            listen,
            admin_listen,
            redis_url,
            data_dir,
        } => {
            let flags = Flags {
                file: file.config,
                listen,
                admin_listen,
                redis_url,
                data_dir,
            };
            let config = config::load(&flags, &http::sections())?;
            telemetry::init(&config.log);
            on_runtime(serve(config)).map(|()| 0)
        }
        Command::Demo {
            listen,
            admin_listen,
        } => {
            let config = demo::config(&Flags {
                listen,
                admin_listen,
                ..Flags::default()
            })?;
            telemetry::init(&config.log);
            on_runtime(async {
                ignore_signals()?;
                demo::run(config, signals()?).await.map_err(Failure::Failed)
            })
            .map(|()| 0)
        }
        Command::CheckConfig { file } => {
            let config = loaded(file)?;
            // Not on standard output, which is a configuration again; and no failure, since it can be run with.
            for WeakSecret { setting, why } in config::weak_secrets(&config, &http::sections()) {
                eprintln!("unread: warning: {setting} {why}");
            }
            print(&config::effective(&config));
            Ok(0)
        }
        Command::Token { wanted } => token::print_token(wanted).map(|()| 0),
        Command::Verify { of } => {
            let (config, scope, json) = checked(of)?;
            Ok(on_runtime(admin::verify(&config, scope, json))?.into())
        }
        Command::Rebuild { of, mend, dry_run } => {
            let (config, scope, json) = checked(of)?;
            let mending = match (mend, dry_run) {
                (_, true) => admin::Mending::Try,
                (true, false) => admin::Mending::Yes,
                (false, false) => admin::Mending::No,
            };
            Ok(on_runtime(admin::rebuild(&config, scope, mending, json))?.into())
        }
        Command::Inspect {
            redis,
            app,
            what,
            memory,
            sample,
            json,
        } => {
            let app = app_id(app)?;
            if memory {
                let user = what.user.map(user_id).transpose()?;
                let config = redis.config()?;
                let weighed = admin::memory(&config, &app, user.as_ref(), sample as usize, json);
                return on_runtime(weighed).map(|()| 0);
            }
            let subject = match (what.user, what.room) {
                (Some(user), None) => admin::Subject::User(user_id(user)?),
                (None, Some(room)) => {
                    let room = RoomId::parse(room);
                    admin::Subject::Room(
                        room.map_err(|why| Failure::Failed(format!("--room {why}")))?,
                    )
                }
                (given, _) => {
                    let given = given.map_or("neither was given", |_| "both were given");
                    let why = format!("inspect shows one of --user and --room, and {given}");
                    return Err(Failure::Failed(why));
                }
            };
            let config = redis.config()?;
            on_runtime(admin::inspect(&config, &app, &subject, json)).map(|()| 0)
        }
        Command::Import {
            redis,
            app,
            from_line,
            name,
            patience_seconds,
            json,
            file,
        } => {
            let app = app_id(app)?;
            let config = redis.config()?;
            if !config.apps.is_empty() && !config.apps.iter().any(|one| one.id == app) {
                return Err(not_configured(app.as_str()));
            }
            let what = admin::Import {
                app: &app,
                file: &file,
                name: name.as_deref(),
                from_line,
                patience: Duration::from_secs(patience_seconds),
                json,
            };
            let rejected = on_runtime(async {
                let mut signals = signals()?;
                let stop = async {
                    let _: Stop = signals.next().await;
                };
                admin::import(&config, &what, stop).await
            });
            Ok(rejected?.into())
        }
        Command::Doctor { redis, json } => {
            let config = redis.config()?;
            on_runtime(async {
                Ok(match admin::doctor(&config, json).await? {
                    admin::Health::Fine => 0,
                    admin::Health::Ill => 1,
                    admin::Health::Away => REDIS_AWAY,
                })
            })
        }
    }
}

impl RedisOf {
    /// The configuration, for a command whose output is all that is to be seen.
    fn config(self) -> Result<Config, Failure> {
        let flags = Flags {
            file: self.file.config,
            redis_url: self.redis_url,
            ..Flags::default()
        };
        let mut config = config::load(&flags, &http::sections())?;
        config.log.level = "error".to_owned();
        telemetry::init(&config.log);
        Ok(config)
    }
}

fn app_id(app: String) -> Result<AppId, Failure> {
    let why = || Failure::Failed(format!("--app {app:?} is no app id"));
    AppId::parse(app.as_str()).ok_or_else(why)
}

fn user_id(user: String) -> Result<UserId, Failure> {
    UserId::parse(user).map_err(|why| Failure::Failed(format!("--user {why}")))
}

fn checked(of: Checked) -> Result<(Config, Scope, bool), Failure> {
    let app = of.app.map(app_id).transpose()?;
    let user = of.user.map(user_id).transpose()?;
    let config = of.redis.config()?;
    let app = match (app, &user, config.apps.as_slice()) {
        // A user is one of an app's; where there is only one, it is that.
        (None, Some(_), [one]) => Some(one.id.clone()),
        (None, Some(_), _) => {
            return Err(Failure::Failed("--user wants --app as well".into()));
        }
        (app, ..) => app,
    };
    let user = user.map(|user| encode(user.as_str()));
    Ok((config, Scope { app, user }, of.json))
}

fn loaded(file: ConfigFile) -> Result<Config, ConfigError> {
    let flags = Flags {
        file: file.config,
        ..Flags::default()
    };
    config::load(&flags, &http::sections())
}

/// Prints what was asked for. Nobody there to read it (a closed pipe) is no reason to fail.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn not_configured(app: &str) -> Failure {
    Failure::NotThere(format!("no app {app:?} is configured"))
}

fn on_runtime<T, E: From<String>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    // The HTTP workers have threads of their own; this runtime carries the links to Redis and what runs beside requests.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cores / 2).clamp(2, 8))
        .enable_all()
        .build()
        .map_err(|error| E::from(format!("cannot start: {error}")))?
        .block_on(work)
}

async fn serve(config: Config) -> Result<(), Failure> {
    let nobody = config.apps.is_empty();
    let weak = config::weak_secrets(&config, &http::sections());
    ignore_signals()?;
    let mut signals = signals()?;
    let app = tokio::select! {
        app = App::build(config) => app.map_err(|error| Failure::Failed(error.to_string()))?,
        _ = signals.next() => return Ok(()),
    };
    for WeakSecret { setting, why } in weak {
        tracing::warn!(setting, "this secret {why}");
    }
    if nobody {
        tracing::warn!("no app is configured: every call will be refused");
    }
    app.run(signals.stop()).await;
    Ok(())
}

fn signals() -> Result<Signals, Failure> {
    Ok(Signals {
        term: listen(SignalKind::terminate())?,
        int: listen(SignalKind::interrupt())?,
    })
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::Failed(format!("cannot listen for signals: {error}")))
}

/// Takes the signals that others take for a wish to reload, to reopen a log or to tell more: by default each of them would kill
/// us. (SIGPIPE is ignored by the standard library.)
fn ignore_signals() -> Result<(), Failure> {
    for (name, kind) in [
        ("SIGHUP", SignalKind::hangup()),
        ("SIGUSR1", SignalKind::user_defined1()),
        ("SIGUSR2", SignalKind::user_defined2()),
    ] {
        let mut signals = listen(kind)?;
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                tracing::warn!(signal = name, "ignored: settings are read at the start");
            }
        });
    }
    Ok(())
}

/// SIGTERM and ctrl-c.
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.term.recv() => Stop::Drain,
            _ = self.int.recv() => Stop::Now,
        }
    }

    /// How the first signal wants us to stop. From then on a second one ends the process at once.
    pub async fn stop(mut self) -> Stop {
        let stop = self.next().await;
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("second signal: exiting at once");
            std::process::exit(1);
        });
        stop
    }
}
