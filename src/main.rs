//! The program: everything is in [`unread::cli`].

use std::process::ExitCode;

/// Requests make many small allocations on several threads at once, which the system's own allocator is slower at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    unread::cli::main()
}
