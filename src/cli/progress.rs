//! How far a long command has come, on standard error: a bar on a terminal, now and then a line elsewhere.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::output::counted;
use crate::audit::{ListProgress, Progress};

const BAR: usize = 24;
/// Between two drawings of the bar.
const REDRAW: Duration = Duration::from_millis(200);
/// Between two lines.
const LINE: Duration = Duration::from_secs(10);

/// Shows progress; what is left of the bar goes with it.
pub(super) struct Meter {
    word: &'static str,
    terminal: bool,
    start: Instant,
    last: Cell<Option<Instant>>,
    /// Parts of several nodes, or a table that grows meanwhile, must not make it look as if it went back.
    best: Cell<f64>,
}

impl Meter {
    pub(super) fn new(word: &'static str) -> Self {
        Self {
            word,
            terminal: std::io::stderr().is_terminal(),
            start: Instant::now(),
            last: Cell::new(None),
            best: Cell::new(0.0),
        }
    }

    pub(super) fn show(&self, progress: &Progress) {
        self.update(Some(progress.fraction), || {
            let users = counted(progress.users, "user");
            format!("{users}, {}", counted(progress.members, "membership"))
        });
    }

    /// The same, where there is nothing but users.
    pub(super) fn show_users(&self, progress: &Progress) {
        self.update(Some(progress.fraction), || counted(progress.users, "user"));
    }

    /// Shows how far a list of counts has come.
    pub(super) fn show_list(&self, fraction: f64, progress: &ListProgress) {
        self.update(Some(fraction), || {
            let users = counted(progress.users, "user");
            format!("{users}, {}", counted(progress.rows, "row"))
        });
    }

    /// Shows how far it has come, if that is known, and what has been done.
    pub(super) fn update(&self, fraction: Option<f64>, done: impl FnOnce() -> String) {
        let every = if self.terminal { REDRAW } else { LINE };
        let since = self.last.get().unwrap_or(self.start).elapsed();
        if since < every {
            return;
        }
        self.last.set(Some(Instant::now()));
        self.best.set(self.best.get().max(fraction.unwrap_or(0.0)));
        let part = self.best.get().clamp(0.0, 1.0);
        let percent = fraction.map(|_| format!(" {:3.0} %", part * 100.0));
        let text = format!(
            "{}{}  {}, {} s",
            self.word,
            percent.unwrap_or_default(),
            done(),
            self.start.elapsed().as_secs()
        );
        if self.terminal {
            let full = (part * BAR as f64) as usize;
            let bar = format!("{}{}", "#".repeat(full), "-".repeat(BAR - full.min(BAR)));
            let bar = fraction.map(|_| format!("[{bar}] ")).unwrap_or_default();
            eprint!("\r\x1b[K{bar}{text}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("unread: {text}");
        }
    }

    /// Makes room for a line of output.
    pub(super) fn clear(&self) {
        if self.terminal && self.last.get().is_some() {
            eprint!("\r\x1b[K");
            let _ = std::io::stderr().flush();
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.clear();
    }
}
