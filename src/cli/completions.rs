//! `unread completions`.

use clap::Args;
use clap_complete::{Shell, generate};

use super::exit::{self, Failure};
use super::output::print;

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell for which to print the script
    shell: Shell,
}

impl Completions {
    /// `command` is the whole command line.
    pub(super) fn run(self, mut command: clap::Command) -> Result<u8, Failure> {
        let mut script = Vec::new();
        let name = command.get_name().to_owned();
        generate(self.shell, &mut command, name, &mut script);
        print(&String::from_utf8_lossy(&script));
        Ok(exit::WELL)
    }
}
