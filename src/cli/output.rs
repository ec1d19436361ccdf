//! Standard output: what the command was asked for, and nothing else. How far a command has come goes to standard error.

use std::io::{ErrorKind, Write as _};

use super::exit::Failure;

/// Prints what was asked for. Nobody there to read it (a closed pipe) is no reason to fail.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes what was asked for, where a part of it would be taken for the whole.
pub(super) fn write_all(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|why| match why.kind() {
        ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::Failed(format!("standard output can't be written: {why}")),
    })
}

/// So many of something: `1 user`, `2 users`.
pub(super) fn counted(n: u64, one: &str) -> String {
    match (n, one.strip_suffix('y')) {
        (1, _) => format!("1 {one}"),
        (_, Some(stem)) => format!("{n} {stem}ies"),
        (_, None) => format!("{n} {one}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn one_is_told_from_many() {
        assert_eq!(counted(1, "user"), "1 user");
        assert_eq!(counted(0, "user"), "0 users");
        assert_eq!(counted(2, "delivery"), "2 deliveries");
        assert_eq!(counted(1, "delivery"), "1 delivery");
    }
}
