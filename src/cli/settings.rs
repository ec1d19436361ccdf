//! `unread settings`.

use std::fmt::Write as _;

use super::exit::{self, Failure};
use super::output::print;
use crate::config;
use crate::http;

/// Prints every setting with its type, range, default and meaning.
pub(super) fn print_settings() -> Result<u8, Failure> {
    let mut text = String::new();
    for (path, row) in config::reference(&http::sections()) {
        let help = row.help.replace('\n', " ");
        let file = match row.secret {
            true => format!("; or {path}_file, the path of a file with it"),
            false => String::new(),
        };
        // Writing to a text can't fail.
        let _ = writeln!(text, "{path}\n    {}{file}\n    {help}", row.form);
    }
    print(&text);
    Ok(exit::WELL)
}
