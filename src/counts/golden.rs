//! Reads `lua/records.txt`, the golden records, for the tests of both readers of a record.

use std::collections::BTreeMap;

const FILE: &str = include_str!("../../lua/records.txt");

/// One golden record and the indented lines below it.
pub(crate) struct Golden {
    /// `room`, `supergroup`, `no-room`, `no-supergroup` or `job`.
    pub(crate) sort: &'static str,
    /// As it stands in a slot; in a job, `\n` is a line feed.
    pub(crate) record: &'static str,
    /// What it means, by name.
    pub(crate) meaning: BTreeMap<&'static str, String>,
}

/// The golden records of one sort.
pub(crate) fn all(sort: &str) -> Vec<Golden> {
    let mut found: Vec<Golden> = Vec::new();
    for line in FILE.lines().filter(|line| !line.starts_with('#')) {
        if let Some(meaning) = line.strip_prefix("  ") {
            let pairs = meaning.split(' ').map(|pair| pair.split_once('=').unwrap());
            let last = found.last_mut().unwrap();
            last.meaning
                .extend(pairs.map(|(name, value)| (name, value.to_owned())));
        } else if !line.is_empty() {
            let (sort, record) = line.split_once(' ').unwrap_or((line, ""));
            found.push(Golden {
                sort,
                record,
                meaning: BTreeMap::new(),
            });
        }
    }
    found.retain(|golden| golden.sort == sort);
    assert!(!found.is_empty(), "no golden {sort}");
    found
}

/// A meaning, from names and values.
pub(crate) fn meaning<const N: usize>(
    parts: [(&'static str, String); N],
) -> BTreeMap<&'static str, String> {
    parts.into_iter().collect()
}
