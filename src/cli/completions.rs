//! `unread completions`: the script that completes this command line in a shell.

use clap_complete::{Shell, generate};

/// The script for a shell.
pub fn script(shell: Shell, mut command: clap::Command) -> String {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    generate(shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
