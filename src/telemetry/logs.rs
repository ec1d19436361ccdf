//! The subscriber of logs. No line holds a path, a query, a header or a user id: signatures travel in queries, user ids in paths.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Reads a log filter: a level, or `target=level`, or several of these with commas between.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    // The parser takes a misspelt level for the name of a target, which would silence the log.
    let legal = text.split(',').all(|part| {
        let part = part.trim();
        part.contains('=') || LEVELS.contains(&part.to_ascii_lowercase().as_str())
    });
    let parsed = if legal {
        EnvFilter::try_new(text).ok()
    } else {
        None
    };
    let filter = parsed.ok_or(
        "must be off, error, warn, info, debug or trace, or several such as `info,unread=debug`",
    )?;
    // The lines of actix's server at info repeat what the program says itself. At debug and trace they are shown.
    let quiet = !text.contains("actix") && !text.contains("debug") && !text.contains("trace");
    match "actix_server=warn".parse() {
        Ok(directive) if quiet && text.contains("info") => Ok(filter.add_directive(directive)),
        _ => Ok(filter),
    }
}

/// Sends this process's log lines to standard error, as text or as JSON. A second call changes nothing.
pub(crate) fn init(level: &str, as_json: bool) {
    let filter = filter(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    // An error means that there is a subscriber already, as when a test calls this twice.
    let _ = match as_json {
        false => builder
            .with_ansi(std::io::stderr().is_terminal())
            .finish()
            .try_init(),
        true => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .finish()
            .try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused() {
        for good in ["info", "WARN", "info,unread=debug", "unread::store=trace"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["", "verbose", "info,verbos", "unread=loud"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
