//! Realtime clocks that a test sets, one for each process that it puts them into (`clock/shim.rs` says how). Linux only.

use std::ffi::OsString;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

/// Lengths of time in microseconds, in which clocks are set here.
pub const MS: i64 = 1_000;
pub const SECOND: i64 = 1_000 * MS;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;
pub const YEAR: i64 = 365 * DAY;

/// A length of time in words.
pub fn in_words(micros: i64) -> String {
    let units = [
        (YEAR, "years"),
        (DAY, "days"),
        (HOUR, "h"),
        (MINUTE, "min"),
        (SECOND, "s"),
        (MS, "ms"),
    ];
    let fits = |(unit, _): &&(i64, &str)| micros.abs() >= *unit;
    let (unit, name) = units.iter().find(fits).unwrap_or(&(1, "microseconds"));
    let count = micros as f64 / *unit as f64;
    format!("{:+} {name}", (count * 1_000.0).round() / 1_000.0)
}

/// How far the realtime clock of some processes is ahead of the true one. Copies set the same clock.
#[derive(Clone)]
pub struct Clock(Arc<tempfile::NamedTempFile>);

impl Clock {
    /// One that is right.
    pub fn new() -> Self {
        let clock = Self(Arc::new(tempfile::NamedTempFile::new().unwrap()));
        clock.set(0);
        clock
    }

    /// Microseconds ahead of the true clock; negative: behind it. The process sees that at its next look.
    pub fn set(&self, ahead: i64) {
        let file = self.0.as_file();
        file.write_all_at(&ahead.to_ne_bytes(), 0).unwrap();
    }

    pub fn ahead(&self) -> i64 {
        let mut bytes = [0; 8];
        self.0.as_file().read_exact_at(&mut bytes, 0).unwrap();
        i64::from_ne_bytes(bytes)
    }

    /// So many microseconds forward, or back where negative. One thread at a time.
    pub fn step(&self, by: i64) {
        self.set(self.ahead() + by);
    }

    /// What the environment of a process has to hold to run by this clock.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", SHIM.as_os_str().to_owned()),
            ("TEST_CLOCK_FILE", self.0.path().as_os_str().to_owned()),
        ]
    }
}

/// The library, compiled once for each run of the tests.
static SHIM: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Another run may be using the last one's.
    let fresh = target.join(format!("libclock-{}.so", std::process::id()));
    let library = target.join("libclock.so");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let done = Command::new(rustc)
        .current_dir(root)
        .args(["--edition", "2024", "--crate-type", "cdylib", "-O"])
        .args(["-C", "panic=abort", "-o"])
        .arg(&fresh)
        .arg("tests/support/clock/shim.rs")
        .output()
        .expect("rustc runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "the clock does not compile: {said}");
    std::fs::rename(&fresh, &library).unwrap();
    library
});
