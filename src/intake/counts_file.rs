//! A counts file, read line by line: its rows, and what is no row of it. What is held of it is one line.

use std::io::BufRead;

use super::lines::line;
use super::rows::{LONGEST_ROW, Row, Rows};

/// A line of a counts file that is not blank.
#[derive(Debug)]
pub(crate) struct NumberedRow {
    /// Its number, from 1. The first line names the columns.
    pub line: u64,
    /// The row; an error: what is wrong, in words.
    pub row: Result<Row, String>,
}

/// The rows of a file.
pub(crate) struct CountsFile<R> {
    from: R,
    rows: Rows,
    text: Vec<u8>,
    line: u64,
}

impl<R: BufRead> CountsFile<R> {
    /// Reads the first line.
    pub(crate) fn new(mut from: R) -> Result<Self, String> {
        let mut text = Vec::new();
        line(&mut from, &mut text, LONGEST_ROW + 1).map_err(|why| unread(1, &why))?;
        let rows = Rows::with_header(&text).map_err(|fault| format!("line 1: {fault}"))?;
        Ok(Self {
            from,
            rows,
            text,
            line: 1,
        })
    }
}

impl<R: BufRead> Iterator for CountsFile<R> {
    /// An error: the file can't be read any further.
    type Item = Result<NumberedRow, String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.line += 1;
            match line(&mut self.from, &mut self.text, LONGEST_ROW + 1) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(why) => return Some(Err(unread(self.line, &why))),
            }
            if let Some(row) = self.rows.row(&self.text).transpose() {
                return Some(Ok(NumberedRow {
                    line: self.line,
                    row: row.map_err(|fault| fault.to_string()),
                }));
            }
        }
    }
}

fn unread(line: u64, why: &std::io::Error) -> String {
    format!("line {line} can't be read: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<(u64, bool)> {
        let file = CountsFile::new(text).unwrap();
        file.map(|row| row.unwrap())
            .map(|row| (row.line, row.row.is_ok()))
            .collect()
    }

    #[test]
    fn rows_have_the_numbers_of_their_lines() {
        let text = b"room,user,unread\r\n\r\nr,a,1\r\nr,\"b,1\r\n\r\n \r\nr,c\r\nr,d,1";
        assert_eq!(lines(text), [(3, true), (4, false), (7, false), (8, true)]);
        assert_eq!(lines(b"room,user,unread"), []);
    }

    #[test]
    fn a_quote_that_is_never_closed_and_a_line_without_end_are_bounded() {
        let mut text = b"room,user,unread\nr,\"".to_vec();
        text.extend(vec![b'x'; 1 << 20]);
        text.extend(b"\nr,a,1\n");
        let mut file = CountsFile::new(&text[..]).unwrap();
        let long = file.next().unwrap().unwrap();
        assert_eq!(long.row.unwrap_err(), "the line is longer than 4096 bytes");
        assert!(file.next().unwrap().unwrap().row.is_ok());
        assert!(file.text.capacity() < 100_000);
    }

    #[test]
    fn a_file_whose_first_line_names_no_columns_has_no_rows() {
        for (text, expected) in [
            (&b""[..], "line 1: no column room: "),
            (b"orders,alice,3\n", "line 1: \"orders\" is no column: "),
        ] {
            let fault = CountsFile::new(text).err().unwrap();
            assert!(fault.starts_with(expected), "{fault}");
        }
    }
}
