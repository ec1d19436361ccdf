//! What the audit finds, as rows of a JSON document.

use serde_json::{Value, json};

use crate::audit::{Drift, UnreadableData};

/// A value is shown up to so many characters.
const VALUE: usize = 4_000;

/// The fields that differ, in a document. `names`: of the value that is stored and of the one that should be.
pub(crate) fn drift_rows(drift: &[Drift], names: [&str; 2]) -> Vec<Value> {
    let [stored, expected] = names;
    let beginning = |text: &str| text.chars().take(VALUE).collect::<String>();
    let row = |drift: &Drift| {
        json!({
            "key": drift.key,
            "field": beginning(&drift.field),
            "part": drift.part,
            stored: drift.stored.as_deref().map(beginning),
            expected: drift.expected.as_deref().map(beginning),
        })
    };
    drift.iter().map(row).collect()
}

/// Something that can't be read, in a document.
pub(crate) fn unreadable_row(unreadable: &UnreadableData) -> Value {
    json!({
        "key": unreadable.key, "field": unreadable.field, "reason": unreadable.why, "stored": unreadable.stored,
        "log": (!unreadable.log.is_empty()).then_some(&unreadable.log),
        "repaired_by": if unreadable.derived { "rebuild" } else { "rebuild --mend" },
    })
}
