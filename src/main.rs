//! The program: everything is in [`unread::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    unread::cli::main()
}
