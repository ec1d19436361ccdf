//! Takes in events that don't come over HTTP, but from the lines of a file. The writer applies them like any others.

mod counts_file;
mod import;
mod lines;
mod order;
mod rows;
#[cfg(fuzzing)]
#[path = "../fuzz/doors/counts.rs"]
#[doc(hidden)]
pub mod fuzzing;

pub(crate) use counts_file::CountsFile;
pub(crate) use import::{EarlyEnd, ImportOptions, Imported, Importer};
pub(crate) use lines::{LineForm, LineOptions, NO_TIME, NotedLine, RefusedLine, Remarks};
pub(crate) use rows::{Row, RowWriter, names_columns, time_of};
