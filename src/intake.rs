//! The way in for events that don't come over HTTP: lines of a file. From the writer on it is the same way.

mod import;
mod order;

pub(crate) use import::{
    EarlyEnd, ImportOptions, Imported, Importer, NotedLine, RefusedLine, Remarks,
};
