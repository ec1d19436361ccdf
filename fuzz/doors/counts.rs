//! For the fuzz target `counts`: counts files, as people and other programs write them.
#![allow(missing_docs)]

use super::rows::{LONGEST_ROW, Row, RowWriter, Rows};
use super::{CountsFile, time_of};

/// Runs a closure, and fails if it holds more bytes than allowed.
type Bounded = fn(usize, &mut dyn FnMut());

/// The most bytes that reading may hold, however long the file is: a line, the same taken apart, and a row.
const MOST: usize = 64 << 10;

fn read(text: &[u8], mut each: impl FnMut(u64, Result<&Row, &str>)) -> Result<(), String> {
    for row in CountsFile::new(text)? {
        let row = row.unwrap();
        each(row.line, row.row.as_ref().map_err(String::as_str));
    }
    Ok(())
}

/// A row that says all is read again from what an export writes of it.
fn written_again(row: &Row) {
    let (Some(kind), Some(mentions), Some(time)) = (row.kind, row.mentions, row.time) else {
        return;
    };
    let mut writer = RowWriter::new();
    let (room, user) = (row.room.as_str(), row.user.as_str());
    writer.add(room, user, kind, [row.unread, mentions], time);
    let mut again = None;
    read(&writer.take(), |line, row| {
        assert_eq!(line, 2);
        again = Some(row.unwrap().clone());
    })
    .unwrap();
    let row = Row {
        mentions_beyond: None,
        ..row.clone()
    };
    assert_eq!(again, Some(row));
}

/// A counts file, and a time of `--as-of`.
pub fn check(data: &[u8], bounded: Bounded) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(time) = time_of(text)
    {
        assert_eq!(time_of(&time.to_string()), Ok(time));
    }
    bounded(MOST, &mut || {
        let _ = read(data, |_, _| ());
    });
    // Each line is read as if it were the only one.
    let lines: Vec<&[u8]> = data.split_inclusive(|byte| *byte == b'\n').collect();
    let first = lines.first().copied().unwrap_or_default();
    let mut last = 1;
    let all = read(data, |line, row| {
        assert!(line > last);
        last = line;
        let text = lines[line as usize - 1];
        let alone = Rows::with_header(first).unwrap().row(text);
        match (row, &alone) {
            (Ok(row), Ok(Some(alone))) => {
                assert_eq!(row, alone);
                written_again(row);
            }
            (Err(why), Err(alone)) => assert_eq!(why, alone.to_string()),
            other => panic!("{other:?}"),
        }
        assert!(text.len() <= LONGEST_ROW || row.is_err());
    });
    assert!(all.is_ok() || Rows::with_header(first).is_err());
}
