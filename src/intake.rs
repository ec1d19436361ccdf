//! Takes in events that don't come over HTTP, but from the lines of a file. The writer applies them like any others.

mod import;
mod order;

pub(crate) use import::{
    EarlyEnd, ImportOptions, Imported, Importer, NotedLine, RefusedLine, Remarks,
};
