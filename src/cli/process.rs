//! What a command has of the process: its log, threads for the work beside requests, and signals.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Failure;
use crate::app::Stop;
use crate::config::{LogConfig, LogFormat};
use crate::telemetry::logs;

/// Begins the log, as it is configured.
pub(super) fn begin_log(config: &LogConfig) {
    logs::init(&config.level, config.format == LogFormat::Json);
}

/// Runs a command's work to its end.
pub(super) fn on_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    // The HTTP workers have threads of their own; this runtime carries the links to Redis and what runs beside requests.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cores / 2).clamp(2, 8))
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))?
        .block_on(work)
}

/// SIGTERM and ctrl-c.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// From now on neither ends the process by itself.
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
        })
    }

    /// How the next signal wants us to stop.
    pub(super) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.term.recv() => Stop::Drain,
            _ = self.int.recv() => Stop::Now,
        }
    }

    /// How the first signal wants us to stop. From then on a second one ends the process at once.
    pub(super) async fn stop(mut self) -> Stop {
        let stop = self.next().await;
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("second signal: exiting at once");
            std::process::exit(1);
        });
        stop
    }
}

/// Takes the signals that other programs take for a wish to reload, to reopen a log or to tell more: by default each of them
/// would kill us. (SIGPIPE is ignored by the standard library.)
pub(super) fn ignore_signals() -> Result<(), Failure> {
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

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::Failed(format!("cannot listen for signals: {error}")))
}
