//! Processes that the tests start.

use std::process::{Child, Command};

/// Sends a signal to one process that we started and have not reaped yet, so its pid cannot be anybody else's.
pub fn signal(child: &Child, name: &str) {
    signal_to(child.id(), name);
}

/// The same by the pid.
pub(super) fn signal_to(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status()
        .unwrap();
    assert!(sent.success(), "kill -s {name} failed");
}

/// How many bytes of memory a process has: `VmRSS` now, `VmHWM` at most so far.
pub fn memory_of(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = |line: &str| {
        Some(
            line.strip_prefix(field)?
                .strip_prefix(':')?
                .trim()
                .to_owned(),
        )
    };
    let value = status.lines().find_map(value).unwrap();
    value.strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// A process that ends with its owner.
pub(super) struct Reaped(pub(super) Option<Child>);

impl Drop for Reaped {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
