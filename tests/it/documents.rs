//! The documents are right: every link leads somewhere, every example is run, every setting exists.
//!
//! How an example is written:
//!
//! - A block in `sh` is run as it stands, and what it prints is compared with the block in `json` or `text` right after it, if
//!   there is one. Without one it has to succeed. JSON is compared without the blanks between its parts.
//! - In a block in `console` a line that begins with `$ ` is run, and what it prints is compared with the lines up to the next
//!   one.
//! - `…` in an answer stands for anything, on a line of its own for any number of lines.
//! - `<!-- not run: why -->` above a block says why it is not run here. It is still parsed.
//!
//! A document's blocks run in one shell, from top to bottom, against a demo of their own (`unread demo`); its addresses stand in
//! the place of 127.0.0.1:8080 and 127.0.0.1:9090. In `PATH` are `unread` and a `redis-cli` that asks the demo's Redis, to which
//! `UNREAD_REDIS__URL` leads as well.

mod markdown;
mod settings;
mod shell;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use markdown::Document;

/// The most lines that the README may have: a stranger's first five minutes.
const README_LINES: usize = 150;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents that are checked, by their path from the root.
fn documents() -> BTreeMap<PathBuf, Document> {
    let top = ["README", "CHANGELOG", "CONTRIBUTING", "SECURITY"];
    let mut paths: Vec<PathBuf> = top.map(|name| format!("{name}.md").into()).into();
    paths.push("loadtest/README.md".into());
    for file in std::fs::read_dir(root().join("docs")).unwrap() {
        let path = PathBuf::from("docs").join(file.unwrap().file_name());
        if path.extension().is_some_and(|ext| ext == "md") {
            paths.push(path);
        }
    }
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(root().join(&path))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, Document::parse(&text))
    };
    paths.into_iter().map(read).collect()
}

/// A path without `.` and `..`; none: it leads out of the repository.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::ParentDir if plain.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(plain)
}

/// What is wrong with a link from a document, and the document that it leads to if it is one of these.
fn follow(
    documents: &BTreeMap<PathBuf, Document>,
    from: &Path,
    link: &str,
) -> Result<Option<PathBuf>, String> {
    if link.contains("://") {
        return Ok(None);
    }
    let (path, anchor) = match link.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (link, None),
    };
    let to = match path {
        "" => from.to_owned(),
        path => {
            let path = from.parent().unwrap_or(Path::new("")).join(path);
            plain(&path).ok_or("it leads out of the repository")?
        }
    };
    if !root().join(&to).exists() {
        return Err("there is no such file".to_owned());
    }
    match (anchor, documents.get(&to)) {
        (None, found) => Ok(found.map(|_| to)),
        (Some(anchor), Some(found)) if found.anchors.contains(anchor) => Ok(Some(to)),
        (Some(_), Some(_)) => Err("the document has no such heading".to_owned()),
        (Some(_), None) => Err("it has an anchor, and leads to no document".to_owned()),
    }
}

#[test]
fn every_link_leads_somewhere_and_every_document_is_linked() {
    let documents = documents();
    let mut faults = Vec::new();
    let mut reached = BTreeSet::from([PathBuf::from("README.md")]);
    for (from, document) in &documents {
        for (line, link) in &document.links {
            match follow(&documents, from, link) {
                Ok(Some(to)) if to != *from => drop(reached.insert(to)),
                Ok(_) => {}
                Err(why) => faults.push(format!("{}:{line}: {link}: {why}", from.display())),
            }
        }
    }
    for path in documents.keys().filter(|path| !reached.contains(*path)) {
        faults.push(format!("{}: nothing links to it", path.display()));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_readme_is_short() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let lines = readme.lines().count();
    assert!(lines <= README_LINES, "README.md has {lines} lines");
}

/// The table that `make fault-report` writes stands in the document as well.
#[test]
fn the_faults_are_those_that_were_measured() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let (measured, shown) = (read("loadtest/results/faults.md"), read("docs/faults.md"));
    let shown: BTreeSet<&str> = shown.lines().collect();
    let rows = measured.lines().filter(|line| line.starts_with('|'));
    let missing: Vec<&str> = rows.filter(|row| !shown.contains(row)).collect();
    assert!(
        missing.is_empty(),
        "docs/faults.md lacks\n{}",
        missing.join("\n")
    );
}

#[test]
fn every_setting_that_is_named_exists() {
    let known = settings::Known::read();
    let mut faults = Vec::new();
    for (path, document) in documents() {
        for (line, name) in settings::unknown(&document, &known) {
            faults.push(format!(
                "{}:{line}: there is no setting {name}",
                path.display()
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_example_is_run_and_answers_what_it_says() {
    let mut faults = Vec::new();
    let mut run = 0;
    // What concerns the load tests is run by theirs.
    let theirs = Path::new("loadtest/README.md");
    for (path, document) in documents().iter().filter(|(path, _)| *path != theirs) {
        let mut found = document.misplaced();
        let steps = document.steps();
        let parsed = shell::parse(document);
        if parsed.is_empty() && !steps.is_empty() {
            run += steps.len();
            found.extend(shell::run(&steps));
        }
        found.extend(parsed);
        let path = path.display();
        faults.extend(
            found
                .into_iter()
                .map(|(line, why)| format!("{path}:{line}: {why}")),
        );
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    assert!(run > 20, "only {run} examples were run");
}
