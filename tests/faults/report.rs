//! The table of faults, that of what was told after them, and the table of sizes. `FAULT_REPORT=FILE` (set by `make fault-report`) has them written there; they
//! are printed in any case.

use std::fmt::Write as _;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

/// What one fault came to.
pub(crate) struct Row {
    pub fault: String,
    pub injected: String,
    pub requests: usize,
    pub refused: usize,
    /// Events, not requests.
    pub acknowledged: usize,
    pub lost: usize,
    pub slowest: Duration,
    pub recovery: Duration,
}

#[derive(Default)]
struct Tables {
    faults: Vec<Row>,
    told: Vec<[String; 4]>,
    sizes: Vec<[String; 3]>,
}

static TABLES: LazyLock<Mutex<Tables>> = LazyLock::new(Mutex::default);

pub(crate) fn fault(row: Row) {
    println!("{}", line(&row));
    let mut tables = TABLES.lock().unwrap();
    tables.faults.push(row);
    write(&mut tables);
}

/// How long after all was quiet whoever watches had been told everything, and how long after another change they had heard of it.
pub(crate) fn told(fault: &str, injected: &str, told: Duration, heard: Duration) {
    let [told, heard] = [told, heard].map(|took| format!("{:.2} s", took.as_secs_f64()));
    println!("{fault}: {injected}: told {told}, heard {heard}");
    let mut tables = TABLES.lock().unwrap();
    let row = [fault.to_owned(), injected.to_owned(), told, heard];
    tables.told.push(row);
    write(&mut tables);
}

/// What was compared, and its two sides.
pub(crate) fn size(what: &str, small: &str, large: &str) {
    println!("{what}: {small}; {large}");
    let mut tables = TABLES.lock().unwrap();
    tables.sizes.push([what, small, large].map(str::to_owned));
    write(&mut tables);
}

fn line(row: &Row) -> String {
    format!(
        "| {} | {} | {} | {} | {} | {} | {:.1} s | {:.2} s |",
        row.fault,
        row.injected,
        row.requests,
        row.refused,
        row.acknowledged,
        if row.lost == 0 {
            "nothing".to_owned()
        } else {
            row.lost.to_string()
        },
        row.slowest.as_secs_f64(),
        row.recovery.as_secs_f64(),
    )
}

/// Writes the whole file anew with every row, in an order that does not depend on which test ended first.
fn write(tables: &mut Tables) {
    let Some(file) = std::env::var_os("FAULT_REPORT") else {
        return;
    };
    tables
        .faults
        .sort_by(|a, b| (&a.fault, &a.injected).cmp(&(&b.fault, &b.injected)));
    tables.told.sort();
    tables.sizes.sort();
    let mut text = "| fault | injected | requests | refused | events acknowledged | lost | slowest answer | recovery |\n\
                    | --- | --- | --: | --: | --: | --: | --: | --: |\n"
        .to_owned();
    for row in &tables.faults {
        writeln!(text, "{}", line(row)).unwrap();
    }
    text += "\n| fault | injected | all told after | then a change |\n| --- | --- | --: | --: |\n";
    for [fault, injected, told, heard] in &tables.told {
        writeln!(text, "| {fault} | {injected} | {told} | {heard} |").unwrap();
    }
    text += "\n| size | small | large |\n| --- | --: | --: |\n";
    for [what, small, large] in &tables.sizes {
        writeln!(text, "| {what} | {small} | {large} |").unwrap();
    }
    std::fs::write(file, text).unwrap();
}
