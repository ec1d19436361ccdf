//! The rows of a counts file: CSV, of which each row says how much one user has unread in one room. A row is one line, because no
//! name holds a line feed. So every row has a number that an editor shows, its length has a bound, and a quote that is never
//! closed spoils one line and not the rest of the file. No I/O.

use std::borrow::Cow;
use std::fmt;

use csv_core::{ReadRecordResult, Reader, WriteResult, Writer};

use crate::event::{self, MAX_UNREAD};
use crate::names::{NameError, RoomId, UserId};

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Room,
    User,
    Kind,
    Unread,
    Mentions,
    Time,
}

impl Column {
    /// All, in the order in which an export writes them.
    const ALL: [Column; 6] = [
        Column::Room,
        Column::User,
        Column::Kind,
        Column::Unread,
        Column::Mentions,
        Column::Time,
    ];

    fn name(self) -> &'static str {
        match self {
            Column::Room => "room",
            Column::User => "user",
            Column::Kind => "kind",
            Column::Unread => "unread",
            Column::Mentions => "mentions",
            Column::Time => "time",
        }
    }

    fn is_required(self) -> bool {
        matches!(self, Column::Room | Column::User | Column::Unread)
    }
}

/// How much one user has unread in one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// The room.
    pub room: RoomId,
    /// The user.
    pub user: UserId,
    /// The room's kind, if the file says it: `direct`, `group` or `supergroup`.
    pub kind: Option<&'static str>,
    /// Unread messages.
    pub unread: u64,
    /// The unread messages that mention the user, if the file says it: at most all of them.
    pub mentions: Option<u64>,
    /// The number of mentions that the file says, where that is more than the unread messages.
    pub mentions_beyond: Option<u64>,
    /// When it was so, if the file says it: milliseconds since the epoch.
    pub time: Option<i64>,
}

/// Why a line is no row, or why a file has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowFault {
    /// The column; `None`: it is the whole line.
    column: Option<&'static str>,
    problem: Cow<'static, str>,
}

impl RowFault {
    fn line(problem: impl Into<Cow<'static, str>>) -> Self {
        Self {
            column: None,
            problem: problem.into(),
        }
    }
}

impl fmt::Display for RowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(column) = self.column {
            write!(f, "{column}: ")?;
        }
        f.write_str(&self.problem)
    }
}

/// More fields than this are in no line: one more than there are columns.
const FIELDS: usize = Column::ALL.len() + 1;
/// The longest line, in bytes. Two names of nothing but quotes, each of them doubled, take a quarter of it.
pub(super) const LONGEST_ROW: usize = 4_096;

/// Reads the lines of one file.
#[derive(Debug)]
pub(crate) struct Rows {
    csv: Reader,
    columns: Vec<Column>,
    /// The present line with its line feed, its fields one behind the other, and where each of them ends.
    line: Vec<u8>,
    text: Vec<u8>,
    ends: [usize; FIELDS],
}

impl Rows {
    /// Reads the first line, which names the columns.
    pub(crate) fn with_header(line: &[u8]) -> Result<Self, RowFault> {
        let mut rows = Self {
            csv: Reader::new(),
            columns: Vec::new(),
            line: Vec::new(),
            text: Vec::new(),
            ends: [0; FIELDS],
        };
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let fields = rows.split(line)?.unwrap_or(0);
        let mut columns = Vec::with_capacity(fields);
        for at in 0..fields {
            let given = rows.field(at);
            let name = given.trim_ascii();
            let mut known = Column::ALL.into_iter();
            let column = known.find(|one| one.name().as_bytes() == name);
            let column = column.ok_or_else(|| not_a_column(name))?;
            // The rows of such a file would have the same blanks, and there they would be part of the ids.
            if name != given {
                return Err(RowFault::line(format!(
                    "a blank stands before or after the column {:?}: take it out, of the rows too: an id may begin or end with a blank",
                    column.name()
                )));
            }
            if columns.contains(&column) {
                return Err(RowFault::line(format!(
                    "the column {} is named twice",
                    column.name()
                )));
            }
            columns.push(column);
        }
        let missing = |column: &Column| column.is_required() && !columns.contains(column);
        if let Some(column) = Column::ALL.into_iter().find(missing) {
            return Err(RowFault::line(format!(
                "no column {}: {HEADER}",
                column.name()
            )));
        }
        rows.columns = columns;
        Ok(rows)
    }

    /// The row of a line; `None` if the line is blank.
    pub(crate) fn row(&mut self, line: &[u8]) -> Result<Option<Row>, RowFault> {
        let Some(fields) = self.split(line)? else {
            return Ok(None);
        };
        if fields != self.columns.len() {
            return Err(RowFault::line(format!(
                "has {} where the first line names {}",
                match fields {
                    1 => "1 field".to_owned(),
                    FIELDS => format!("more than {} fields", FIELDS - 1),
                    more => format!("{more} fields"),
                },
                match self.columns.len() {
                    1 => "1 column".to_owned(),
                    more => format!("{more} columns"),
                }
            )));
        }
        let room = self.of(Column::Room, |text| RoomId::parse(text).map_err(name_fault))?;
        let user = self.of(Column::User, |text| UserId::parse(text).map_err(name_fault))?;
        let unread = self.of(Column::Unread, |text| number(text).map(Some))?;
        let unread = unread.flatten().ok_or_else(|| missing(Column::Unread))?;
        let mentions = self.of(Column::Mentions, optional_number)?.flatten();
        Ok(Some(Row {
            room: room.ok_or_else(|| missing(Column::Room))?,
            user: user.ok_or_else(|| missing(Column::User))?,
            kind: self.of(Column::Kind, kind)?.flatten(),
            unread,
            mentions: mentions.map(|mentions| mentions.min(unread)),
            mentions_beyond: mentions.filter(|mentions| *mentions > unread),
            time: self.of(Column::Time, time)?.flatten(),
        }))
    }

    /// Splits a line into fields; `None`: it is blank. The line may have its line feed, and the last one of a file may have none.
    fn split(&mut self, line: &[u8]) -> Result<Option<usize>, RowFault> {
        if line.len() > LONGEST_ROW {
            return Err(RowFault::line("the line is longer than 4096 bytes"));
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        if line.contains(&b'\r') {
            return Err(RowFault::line(
                "a carriage return stands inside of the line",
            ));
        }
        self.line.clear();
        self.line.extend_from_slice(line);
        self.line.push(b'\n');
        self.text.resize(self.line.len(), 0);
        let (result, _, _, fields) =
            self.csv
                .read_record(&self.line, &mut self.text, &mut self.ends);
        if matches!(result, ReadRecordResult::Record) {
            return Ok(Some(fields));
        }
        self.csv.reset();
        match result {
            ReadRecordResult::OutputEndsFull => Ok(Some(FIELDS)),
            // To the reader, the line feed was one more byte of that field.
            _ => Err(RowFault::line("a quoted field is not closed")),
        }
    }

    /// A field of the present line.
    fn field(&self, at: usize) -> &[u8] {
        let start = match at.checked_sub(1) {
            Some(before) => self.ends.get(before).copied().unwrap_or(0),
            None => 0,
        };
        let end = self.ends.get(at).copied().unwrap_or(start);
        self.text.get(start..end).unwrap_or_default()
    }

    /// What stands in a column of the present line, read by `parse`; `None` if the file has no such column.
    fn of<T>(
        &self,
        column: Column,
        parse: impl Fn(&str) -> Result<T, Cow<'static, str>>,
    ) -> Result<Option<T>, RowFault> {
        let Some(at) = self.columns.iter().position(|one| *one == column) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(self.field(at));
        let parsed = text.map_err(|_| "must be UTF-8".into()).and_then(parse);
        match parsed {
            Ok(value) => Ok(Some(value)),
            Err(problem) => Err(RowFault {
                column: Some(column.name()),
                problem,
            }),
        }
    }
}

/// Whether a line is the first one of a counts file, if perhaps with mistakes.
pub(crate) fn names_columns(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let names = |column: &Column| {
        let mut fields = line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        fields.any(|field| field == column.name().as_bytes())
    };
    let mut required = Column::ALL.iter().filter(|column| column.is_required());
    required.all(names)
}

/// What is said of a first line that does not name the columns.
const HEADER: &str = "the first line has to name the columns: room, user, unread, and if they are there kind, mentions, time";

fn not_a_column(name: &[u8]) -> RowFault {
    let name: String = String::from_utf8_lossy(name).chars().take(40).collect();
    RowFault::line(format!("{name:?} is no column: {HEADER}"))
}

fn missing(column: Column) -> RowFault {
    RowFault {
        column: Some(column.name()),
        problem: "is missing".into(),
    }
}

fn name_fault(why: NameError) -> Cow<'static, str> {
    why.to_string().into()
}

fn number(text: &str) -> Result<u64, Cow<'static, str>> {
    let text = text.trim_ascii();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| text.parse().ok()).flatten();
    number
        .filter(|number| *number <= MAX_UNREAD)
        .ok_or(event::NO_NUMBER.into())
}

fn optional_number(text: &str) -> Result<Option<u64>, Cow<'static, str>> {
    match text.trim_ascii() {
        "" => Ok(None),
        text => number(text).map(Some),
    }
}

fn kind(text: &str) -> Result<Option<&'static str>, Cow<'static, str>> {
    match text.trim_ascii() {
        "" => Ok(None),
        "direct" => Ok(Some("direct")),
        "group" => Ok(Some("group")),
        "supergroup" => Ok(Some("supergroup")),
        _ => Err("must be direct, group or supergroup".into()),
    }
}

/// The time that a text stands for, in milliseconds since the epoch.
pub(crate) fn time_of(text: &str) -> Result<i64, &'static str> {
    event::time_of_text(text.trim_ascii())
}

fn time(text: &str) -> Result<Option<i64>, Cow<'static, str>> {
    match text.trim_ascii() {
        "" => Ok(None),
        text => time_of(text).map(Some).map_err(Cow::from),
    }
}

/// Writes rows as a counts file has them.
#[derive(Debug)]
pub(crate) struct RowWriter {
    csv: Writer,
    text: Vec<u8>,
}

impl RowWriter {
    /// Begins a file with the names of the columns.
    pub(crate) fn new() -> Self {
        let mut rows = Self {
            csv: Writer::new(),
            text: Vec::new(),
        };
        rows.line(&Column::ALL.map(Column::name));
        rows
    }

    /// Adds a row. `time`: milliseconds since the epoch.
    pub(crate) fn add(&mut self, room: &str, user: &str, kind: &str, counts: [u64; 2], time: i64) {
        let [unread, mentions] = counts.map(|count| count.to_string());
        self.line(&[room, user, kind, &unread, &mentions, &time.to_string()]);
    }

    fn line(&mut self, fields: &[&str]) {
        // Twice the longest name, and the quotes around it.
        let mut out = [0; 1_024];
        for (at, field) in fields.iter().enumerate() {
            if at > 0 {
                let (_, wrote) = self.csv.delimiter(&mut out);
                self.text.extend(out.get(..wrote).unwrap_or_default());
            }
            let mut input = field.as_bytes();
            loop {
                let (result, read, wrote) = self.csv.field(input, &mut out);
                self.text.extend(out.get(..wrote).unwrap_or_default());
                input = input.get(read..).unwrap_or_default();
                if matches!(result, WriteResult::InputEmpty) {
                    break;
                }
            }
        }
        let (_, wrote) = self.csv.terminator(&mut out);
        self.text.extend(out.get(..wrote).unwrap_or_default());
    }

    /// Takes out what has been written so far.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER_LINE: &[u8] = b"room,user,unread,mentions\n";

    fn row(header: &[u8], line: &[u8]) -> Result<Option<Row>, String> {
        let mut rows = Rows::with_header(header).map_err(|fault| fault.to_string())?;
        rows.row(line).map_err(|fault| fault.to_string())
    }

    fn plain(room: &str, user: &str, unread: u64, mentions: Option<u64>) -> Row {
        Row {
            room: RoomId::parse(room).unwrap(),
            user: UserId::parse(user).unwrap(),
            kind: None,
            unread,
            mentions,
            mentions_beyond: None,
            time: None,
        }
    }

    #[test]
    fn a_row_is_read_whatever_the_order_of_the_columns() {
        let expected = plain("r", "alice", 3, Some(1));
        for (header, line) in [
            (HEADER_LINE, &b"r,alice,3,1\n"[..]),
            (HEADER_LINE, b"r,alice,3,1\r\n"),
            (HEADER_LINE, b"r,alice,3,1"),
            (HEADER_LINE, b"\"r\",\"alice\",\"3\", 1 \n"),
            (
                b"\xef\xbb\xbfroom,user,unread,mentions\r\n",
                b"r,alice,3,1\n",
            ),
            (b"\"mentions\",user,unread,\"room\"", b"1,alice,3,r"),
        ] {
            let line_shown = String::from_utf8_lossy(line).into_owned();
            assert_eq!(
                row(header, line),
                Ok(Some(expected.clone())),
                "{line_shown}"
            );
        }
        let all = b"room,user,kind,unread,mentions,time";
        let read = row(all, b"r,alice,direct,3,,2026-01-05T09:00:00Z")
            .unwrap()
            .unwrap();
        assert_eq!(
            (read.kind, read.mentions, read.time),
            (Some("direct"), None, Some(1_767_603_600_000))
        );
        let read = row(all, b"r,alice,,3,0,1767603600000").unwrap().unwrap();
        assert_eq!(
            (read.kind, read.mentions, read.time),
            (None, Some(0), Some(1_767_603_600_000))
        );
        assert_eq!(row(HEADER_LINE, b" \r\n"), Ok(None));
        assert_eq!(row(HEADER_LINE, b"\n"), Ok(None));
    }

    #[test]
    fn what_is_no_row_is_named_with_its_column() {
        for (line, expected) in [
            (
                &b"r,alice,3\n"[..],
                "has 3 fields where the first line names 4 columns",
            ),
            (b"r\n", "has 1 field where the first line names 4 columns"),
            (
                b"r,alice,3,1,\n",
                "has 5 fields where the first line names 4 columns",
            ),
            (
                b"r,a,1,1,1,1,1,1,1,1\n",
                "has more than 6 fields where the first line names 4 columns",
            ),
            (b",alice,3,1\n", "room: must not be empty"),
            (b"r,,3,1\n", "user: must not be empty"),
            (
                b"r,al\x07ice,3,1\n",
                "user: must not hold control characters",
            ),
            (b"r,al\xffice,3,1\n", "user: must be UTF-8"),
            (
                b"r,alice,3,some\n",
                "mentions: must be a whole number from 0 to 1,000,000,000",
            ),
            (b"r,\"alice,3,1\n", "a quoted field is not closed"),
            (b"r,alice,3,\"1\n", "a quoted field is not closed"),
            (b"r,alice,3,\"1", "a quoted field is not closed"),
            (
                b"r,alice,3,1\rr,bob,3,1\n",
                "a carriage return stands inside of the line",
            ),
        ] {
            assert_eq!(row(HEADER_LINE, line), Err(expected.to_owned()), "{line:?}");
        }
        for bad in ["", "-1", "+1", "1e3", "1000000001"] {
            let expected = "unread: must be a whole number from 0 to 1,000,000,000";
            let line = format!("r,alice,{bad},1\n");
            assert_eq!(row(HEADER_LINE, line.as_bytes()), Err(expected.to_owned()));
        }
        let all = b"room,user,kind,unread,mentions,time";
        for (line, expected) in [
            (
                &b"r,a,channel,1,1,\n"[..],
                "kind: must be direct, group or supergroup",
            ),
            (
                b"r,a,group,1,1,1767603600\n",
                "time: is before 1973-03-03: these are seconds, where milliseconds belong",
            ),
            (
                b"r,a,group,1,1,now\n",
                "time: must be milliseconds since the epoch or RFC 3339 with a zone, between 1973-03-03 and 9999",
            ),
        ] {
            assert_eq!(row(all, line), Err(expected.to_owned()));
        }
    }

    #[test]
    fn more_mentions_than_unread_messages_are_as_many_as_these() {
        for (line, mentions, beyond) in [
            (&b"r,alice,3,5\n"[..], 3, Some(5)),
            (b"r,alice,0,1\n", 0, Some(1)),
            (b"r,alice,3,3\n", 3, None),
        ] {
            let read = row(HEADER_LINE, line).unwrap().unwrap();
            assert_eq!(
                (read.mentions, read.mentions_beyond),
                (Some(mentions), beyond)
            );
        }
    }

    #[test]
    fn a_bad_line_spoils_no_other() {
        let mut rows = Rows::with_header(HEADER_LINE).unwrap();
        let long = vec![b'x'; LONGEST_ROW + 1];
        for bad in [
            &b"r,\"alice,3,1\n"[..],
            &long,
            b"r,a,1,1,1,1,1,1,1,1\n",
            b"r\n",
            b"\"\n",
        ] {
            assert!(rows.row(bad).is_err());
            let read = rows.row(b"r,\"al,\"\"ice\",3,\n").unwrap();
            assert_eq!(read, Some(plain("r", "al,\"ice", 3, None)));
        }
    }

    #[test]
    fn a_first_line_that_names_no_columns_is_refused() {
        for (line, expected) in [
            (&b"orders,alice,3\n"[..], "\"orders\" is no column: "),
            (b"room;user;unread\n", "\"room;user;unread\" is no column: "),
            (b"room,user\n", "no column unread: "),
            (b"\n", "no column room: "),
            (b"", "no column room: "),
            (b"room,user,unread,user\n", "the column user is named twice"),
            (b"room,user,unread,\n", "\"\" is no column: "),
            (
                b"room, user, unread\n",
                "a blank stands before or after the column \"user\": take it out, of the rows too: an id may begin or end with a blank",
            ),
            (
                b"room,user,unread \n",
                "a blank stands before or after the column \"unread\": ",
            ),
            (b"room, name\n", "\"name\" is no column: "),
            (b"r\0o\0o\0m\0", "\"r\\0o\\0o\\0m\\0\" is no column: "),
        ] {
            let fault = Rows::with_header(line).unwrap_err().to_string();
            assert!(fault.starts_with(expected), "{fault}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let names = [
            "r",
            "a,b",
            "\"",
            "\"\"",
            " a ",
            "#",
            "=1+1",
            "ü 用户 🙂",
            "\u{feff}x",
            "'",
            "\\",
            ";",
            &"\"".repeat(255),
        ];
        let mut writer = RowWriter::new();
        for name in names {
            writer.add(name, name, "group", [7, 2], 1_767_603_600_000);
        }
        let text = String::from_utf8(writer.take()).unwrap();
        let mut lines = text.split_inclusive('\n').map(str::as_bytes);
        let mut rows = Rows::with_header(lines.next().unwrap()).unwrap();
        for name in names {
            let read = rows.row(lines.next().unwrap()).unwrap().unwrap();
            assert_eq!((read.room.as_str(), read.user.as_str()), (name, name));
            assert_eq!((read.unread, read.mentions), (7, Some(2)));
        }
        assert_eq!(lines.next(), None);
    }
}
