//! The command line: which commands there are. Each is in a file of its own: its arguments, its work and what it prints.
//! Each thing that goes wrong is one line on standard error.

mod args;
mod compare;
mod completions;
mod connect;
mod demo;
mod doctor;
mod exit;
mod export;
mod files;
mod findings;
mod import;
mod inspect;
mod memory;
mod migrate;
mod output;
mod probe;
mod process;
mod progress;
mod rebuild;
mod serve;
mod settings;
mod token;
mod verify;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::{self, WeakSecret};
use crate::http;

use args::ConfigArgs;
use exit::{EXIT_CODES, Failure};
use output::print;

/// Exact unread counts for chat back ends, kept in Redis, answered in the wire formats of three vendors.
#[derive(Debug, Parser)]
#[command(name = "unread", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one pod until SIGTERM or ctrl-c
    Serve(serve::ServeArgs),
    /// Run one pod with a built-in app, a private Redis and sample data; serve a page to try it, and print calls to paste
    Demo(demo::DemoArgs),
    /// Check the configuration, print it with its defaults and with secrets masked, and warn of weak secrets
    CheckConfig(ConfigArgs),
    /// Print every setting with its type, range, default and meaning
    Settings,
    /// Print a valid token or UserSig, to try calls with
    Token {
        #[command(subcommand)]
        wanted: token::Wanted,
    },
    /// Recompute every count from the positions, and print what differs and what can't be read; writes nothing
    Verify(verify::VerifyArgs),
    /// Repair what `verify` finds, and print it; exit code 1: something is left
    Rebuild(rebuild::RebuildArgs),
    /// Bring the data of an earlier version up to this one, beside running pods; what was broken off goes on when it is run again
    Migrate(migrate::MigrateArgs),
    /// Show one user or one room as it stands in Redis, with the redis-cli lines that show the same
    Inspect(inspect::InspectArgs),
    /// Print a user's counts, and again whenever they change, until ctrl-c
    Watch(watch::WatchArgs),
    /// Apply the events of a file, one JSON object a line
    Import(import::ImportArgs),
    /// Write what is unread, as CSV
    Export(export::ExportArgs),
    /// Compare a CSV with what is unread here, and print what differs; exit code 1: something differs
    Compare(compare::CompareArgs),
    /// Check the Redis that is configured, and say what to change there
    Doctor(doctor::DoctorArgs),
    /// Ask a pod whether it is ready; exit code 1: it is not ready, or does not answer
    Probe(probe::ProbeArgs),
    /// Print the script that completes this command line in a shell
    Completions(completions::Completions),
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let all = Cli::command()
        .after_help(EXIT_CODES)
        .mut_subcommands(with_exit_codes);
    let given = Cli::from_arg_matches(&all.get_matches()).unwrap_or_else(|error| error.exit());
    let (code, text) = match run(given.command) {
        Ok(code) => return ExitCode::from(code),
        Err(failure) => failure.code_and_text(),
    };
    for line in text.lines() {
        eprintln!("unread: {line}");
    }
    ExitCode::from(code)
}

/// The help of every command ends with the exit codes, that of a command below another one too.
fn with_exit_codes(command: clap::Command) -> clap::Command {
    command
        .after_help(EXIT_CODES)
        .mut_subcommands(with_exit_codes)
}

/// Runs a command; answers the exit code of one that ran to its end.
fn run(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Serve(serve) => serve.run(),
        Command::Demo(demo) => demo.run(),
        Command::CheckConfig(file) => check_config(file),
        Command::Settings => settings::print_settings(),
        Command::Token { wanted } => token::print_token(wanted),
        Command::Verify(verify) => verify.run(),
        Command::Rebuild(rebuild) => rebuild.run(),
        Command::Migrate(migrate) => migrate.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Watch(watch) => watch.run(),
        Command::Import(import) => import.run(),
        Command::Export(export) => export.run(),
        Command::Compare(compare) => compare.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Probe(probe) => probe.run(),
        Command::Completions(completions) => completions.run(Cli::command()),
    }
}

fn check_config(file: ConfigArgs) -> Result<u8, Failure> {
    let config = file.load()?;
    // Not on standard output, which is a configuration again. No warning is a failure: a pod runs all the same.
    for idle in config::idle(&config) {
        eprintln!("unread: warning: {idle}");
    }
    for WeakSecret { setting, why } in config::weak_secrets(&config, &http::sections()) {
        eprintln!("unread: warning: {setting} {why}");
    }
    print(&config::effective(&config));
    Ok(exit::WELL)
}
