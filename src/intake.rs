//! How events come in beside HTTP: lines of a file, on the same way from the writer on.

mod import;
mod order;

pub use import::{Cut, ImportOptions, Imported, Importer, NotedLine, RefusedLine, Remarks};
