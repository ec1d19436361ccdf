//! The files that commands read.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek as _};
use std::path::Path;

use super::exit::Failure;
use super::output::counted;
use crate::intake::{CountsFile, Row, names_columns};

/// So many lines that are no rows are shown. The rest is counted.
const FIRST: usize = 20;
/// Bytes read at once.
const BUFFER: usize = 1 << 20;

/// What the lines of a file are known by. Standard input has no name, so each import of it is one of its own.
pub(super) fn name_of(file: &Path) -> String {
    match file.to_str() {
        Some("-") => rand::random::<u128>().to_string(),
        _ => {
            let path = std::fs::canonicalize(file);
            let path = path.unwrap_or_else(|_| file.to_owned());
            path.to_string_lossy().into_owned()
        }
    }
}

/// The lines of a file, and its length in bytes if that is known. `-` is standard input.
pub(super) fn open(path: &Path) -> Result<(Box<dyn BufRead + Send>, Option<u64>), Failure> {
    if path.to_str() == Some("-") {
        let input = BufReader::with_capacity(BUFFER, std::io::stdin());
        return Ok((Box::new(input), None));
    }
    let failed = |error| Failure::Failed(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    let length = about.is_file().then_some(about.len());
    Ok((Box::new(BufReader::with_capacity(BUFFER, file)), length))
}

/// Fails if the file is a counts file by its first line. Nothing is taken from `lines`. Standard input may have no line yet, and
/// is not looked at.
pub(super) fn reject_counts(path: &Path, lines: &mut impl BufRead) -> Result<(), Failure> {
    if path.to_str() == Some("-") {
        return Ok(());
    }
    // What can't be read is said by the one who reads on.
    let start = lines.fill_buf().unwrap_or_default();
    let line = start.split(|byte| *byte == b'\n').next();
    match names_columns(line.unwrap_or_default()) {
        true => Err(Failure::Failed(format!(
            "{}: line 1 names the columns of a counts file: give --counts",
            path.display()
        ))),
        false => Ok(()),
    }
}

/// A file that is read more than once.
pub(super) struct Rereadable {
    file: File,
    name: String,
}

impl Rereadable {
    /// Opens a file; `-` is standard input. What can't be read again from its beginning is copied to a file that has no name, so
    /// that nothing is left of it when the command ends.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let failed = |error| Failure::Failed(format!("{name}: {error}"));
        let (mut lines, length) = open(path)?;
        if length.is_some() {
            let file = File::open(path).map_err(failed)?;
            return Ok(Self { file, name });
        }
        let mut file = nameless()
            .map_err(|error| Failure::Failed(format!("a copy of {name} can't be made: {error}")))?;
        std::io::copy(&mut lines, &mut file).map_err(failed)?;
        Ok(Self { file, name })
    }

    /// What is in it, from the beginning. What was read before must not be read on.
    pub(super) fn lines(&self) -> Result<BufReader<File>, Failure> {
        let again = || {
            let mut file = self.file.try_clone()?;
            file.rewind()?;
            Ok(BufReader::with_capacity(BUFFER, file))
        };
        again().map_err(|error: std::io::Error| Failure::Failed(format!("{}: {error}", self.name)))
    }
}

impl Rereadable {
    /// Its length in bytes, if that can be found out.
    pub(super) fn length(&self) -> Option<u64> {
        self.file.metadata().ok().map(|about| about.len())
    }

    /// Looks at every line of a counts file. Answers the number of rows; an error: some lines are no rows, or `is_fit` says why
    /// they won't do, so that nothing was done.
    pub(super) fn check_rows(
        &self,
        done: &str,
        is_fit: impl Fn(&Row) -> Result<(), String>,
    ) -> Result<u64, Failure> {
        let (mut rows, mut bad) = (0, 0u64);
        let mut shown = Vec::new();
        for row in self.counts()? {
            let row = row.map_err(|why| self.failed(why))?;
            match row.row.and_then(|row| is_fit(&row)) {
                Ok(()) => rows += 1,
                Err(why) => {
                    bad += 1;
                    if shown.len() < FIRST {
                        shown.push(format!("{}: line {}: {why}", self.name, row.line));
                    }
                }
            }
        }
        if bad == 0 {
            return Ok(rows);
        }
        let is = if bad == 1 { "is" } else { "are" };
        let lines = counted(bad, "line");
        shown.push(format!(
            "nothing was {done}: {lines} of {} {is} wrong",
            self.name
        ));
        Err(Failure::Failed(shown.join("\n")))
    }

    /// The rows of a counts file, each with the number of its line.
    pub(super) fn rows(
        &self,
    ) -> Result<impl Iterator<Item = Result<(u64, Row), Failure>>, Failure> {
        Ok(self.counts()?.map(|row| {
            let row = row.map_err(|why| self.failed(why))?;
            let line = row.line;
            let row = row
                .row
                .map_err(|why| self.failed(format!("line {line}: {why}")))?;
            Ok((line, row))
        }))
    }

    fn counts(&self) -> Result<CountsFile<BufReader<File>>, Failure> {
        CountsFile::new(self.lines()?).map_err(|why| self.failed(why))
    }

    fn failed(&self, why: String) -> Failure {
        Failure::Failed(format!("{}: {why}", self.name))
    }
}

/// A new file that nobody can open by a name.
fn nameless() -> std::io::Result<File> {
    let path = std::env::temp_dir().join(format!("unread-{:032x}", rand::random::<u128>()));
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
