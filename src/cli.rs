//! The command line: reads, sets up logs, builds, runs. Whatever goes wrong is one readable line each on standard error.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{App, Stop};
use crate::config::{self, AppConfig, Config, ConfigError, Flags};
use crate::names::{AppId, UserId};
use crate::{demo, http, telemetry};

/// Exact unread counts for chat back ends, kept in Redis, answered in the wire formats of IMKIT, Tencent Chat and
/// Sendbird.
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
        kind: Token,
    },
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file; default: the one that UNREAD_CONFIG names, if any
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct TokenOf {
    #[command(flatten)]
    file: ConfigFile,
    /// The app's id
    #[arg(long)]
    app: String,
    /// How long it is valid
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400,
          value_parser = clap::value_parser!(u64).range(1..=315_360_000))]
    ttl_seconds: u64,
}

#[derive(Debug, Subcommand)]
enum Token {
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

/// Why a command failed.
enum Failure {
    /// What was given is wrong: exit code 2, as for a wrong flag.
    Usage(String),
    /// It could not be done: exit code 1.
    Run(String),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::Usage(error.to_string())
    }
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let (code, text) = match run(Cli::parse().command) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => (2, text),
        Err(Failure::Run(text)) => (1, text),
    };
    for line in text.lines() {
        eprintln!("unread: {line}");
    }
    ExitCode::from(code)
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve {
            file,
            listen,
            admin_listen,
            redis_url,
            data_dir,
        } => {
            let config = config::load(&Flags {
                file: file.config,
                listen,
                admin_listen,
                redis_url,
                data_dir,
            })?;
            telemetry::init(&config.log);
            on_runtime(serve(config))
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
            on_runtime(async { demo::run(config, signals()?).await.map_err(Failure::Run) })
        }
        Command::CheckConfig { file } => {
            print(&config::effective(&loaded(file)?));
            Ok(())
        }
        Command::Token { kind } => token(kind),
    }
}

fn loaded(file: ConfigFile) -> Result<Config, ConfigError> {
    config::load(&Flags {
        file: file.config,
        ..Flags::default()
    })
}

/// Prints what was asked for. Nobody there to read it (a closed pipe) is no reason to fail.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn token(kind: Token) -> Result<(), Failure> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (token, id) = match kind {
        Token::Imkit { of, user } => {
            let ttl = of.ttl_seconds;
            let app = app(of)?;
            let imkit = app.imkit.ok_or_else(|| without(&app.id, "imkit"))?;
            let id = UserId::parse(user).map_err(|why| Failure::Usage(format!("--user {why}")))?;
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
    let token = token.ok_or_else(|| Failure::Usage(format!("{id} can't be signed")))?;
    print(&format!("{token}\n"));
    Ok(())
}

fn without(app: &AppId, dialect: &str) -> Failure {
    Failure::Usage(format!("app \"{app}\" has no [apps.{dialect}] section"))
}

/// The app asked for. Where nothing at all is configured there is the demo's, so that its calls can be tried further.
fn app(of: TokenOf) -> Result<AppConfig, Failure> {
    let mut apps = loaded(of.file)?.apps;
    if apps.is_empty() {
        apps = demo::config(&Flags::default())?.apps;
    }
    apps.into_iter()
        .find(|app| app.id.as_str() == of.app)
        .ok_or_else(|| Failure::Usage(format!("no app {:?} is configured", of.app)))
}

fn on_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    // The HTTP workers have threads of their own; this runtime carries the links to Redis and what runs beside requests.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cores / 2).clamp(2, 8))
        .enable_all()
        .build()
        .map_err(|error| Failure::Run(format!("cannot start: {error}")))?
        .block_on(work)
}

async fn serve(config: Config) -> Result<(), Failure> {
    let nobody = config.apps.is_empty();
    let mut signals = signals()?;
    let app = tokio::select! {
        app = App::build(config) => app.map_err(|error| Failure::Run(error.to_string()))?,
        _ = signals.next() => return Ok(()),
    };
    if nobody {
        tracing::warn!("no app is configured: every call will be refused");
    }
    app.run(signals.stop()).await;
    Ok(())
}

fn signals() -> Result<Signals, Failure> {
    let failed = |error| Failure::Run(format!("cannot listen for signals: {error}"));
    Ok(Signals {
        term: signal(SignalKind::terminate()).map_err(failed)?,
        int: signal(SignalKind::interrupt()).map_err(failed)?,
    })
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
