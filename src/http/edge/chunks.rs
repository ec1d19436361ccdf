//! A chunked body on its way to the engine: taken out of its sender's chunks and put into ours. So the engine sees neither
//! thousands of chunks of one byte each nor extensions and trailers without end, and both agree on where the body ends.

use bytes::{Buf as _, BytesMut};

/// Bytes of extensions and trailers in one body. Nobody here reads them.
const MAX_EXTRAS: usize = 16 * 1024;
/// Digits of a chunk's size: more than any body may have bytes, and far from overflowing.
const MAX_DIGITS: u8 = 15;

/// Where in its chunks a body is.
#[derive(Debug)]
pub(super) struct Chunks {
    place: ChunkState,
    /// Bytes of extensions and trailers so far.
    extras: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    /// In the size of a chunk: what it is so far, and how many digits that are.
    Size(u64, u8),
    /// Behind the size and before the end of its line.
    Extension(u64),
    /// At the second byte of the line's end.
    SizeLf(u64),
    /// In the data, of which so much is left.
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a line behind the last chunk.
    Trailer,
    /// Inside such a line.
    TrailerLine,
    TrailerLf,
    EndLf,
    End,
}

/// The framing is broken: what follows can't be told from anything.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

impl Chunks {
    /// Before the first chunk.
    pub(super) fn new() -> Self {
        Self {
            place: ChunkState::Size(0, 0),
            extras: 0,
        }
    }

    /// Whether the body is over.
    pub(super) fn is_over(&self) -> bool {
        self.place == ChunkState::End
    }

    /// Takes what it can from `input`, which is all of it until the body is over, and puts at most one chunk of the same data into
    /// `output`, and the last one at the end. Answers how many bytes of data that were.
    pub(super) fn carry(
        &mut self,
        input: &mut BytesMut,
        output: &mut BytesMut,
    ) -> Result<usize, Broken> {
        let mut data = Vec::new();
        while !self.is_over() {
            if let ChunkState::Data(left) = self.place {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                if here == 0 {
                    break;
                }
                data.extend_from_slice(input.get(..here).unwrap_or_default());
                input.advance(here);
                let left = left.saturating_sub(here as u64);
                self.place = match left {
                    0 => ChunkState::DataCr,
                    left => ChunkState::Data(left),
                };
                continue;
            }
            let Some(byte) = input.first().copied() else {
                break;
            };
            input.advance(1);
            self.place = self.step(byte)?;
        }
        if !data.is_empty() {
            output.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
            output.extend_from_slice(&data);
            output.extend_from_slice(b"\r\n");
        }
        if self.is_over() {
            output.extend_from_slice(b"0\r\n\r\n");
        }
        Ok(data.len())
    }

    /// One byte of the framing.
    fn step(&mut self, byte: u8) -> Result<ChunkState, Broken> {
        Ok(match (self.place, byte) {
            (ChunkState::Size(size, digits), _)
                if byte.is_ascii_hexdigit() && digits < MAX_DIGITS =>
            {
                let digit = char::from(byte).to_digit(16).ok_or(Broken)?;
                ChunkState::Size(size * 16 + u64::from(digit), digits + 1)
            }
            (ChunkState::Size(size, 1..), b'\r') | (ChunkState::Extension(size), b'\r') => {
                ChunkState::SizeLf(size)
            }
            (ChunkState::Size(size, 1..), b';' | b' ' | b'\t') => ChunkState::Extension(size),
            (ChunkState::Extension(size), b'\t' | b' '..=b'~' | 0x80..) => {
                self.extra()?;
                ChunkState::Extension(size)
            }
            (ChunkState::SizeLf(0), b'\n') => ChunkState::Trailer,
            (ChunkState::SizeLf(size), b'\n') => ChunkState::Data(size),
            (ChunkState::DataCr, b'\r') => ChunkState::DataLf,
            (ChunkState::DataLf, b'\n') => ChunkState::Size(0, 0),
            (ChunkState::Trailer, b'\r') => ChunkState::EndLf,
            (ChunkState::EndLf, b'\n') => ChunkState::End,
            (ChunkState::TrailerLine, b'\r') => ChunkState::TrailerLf,
            (ChunkState::TrailerLf, b'\n') => ChunkState::Trailer,
            (ChunkState::Trailer | ChunkState::TrailerLine, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extra()?;
                ChunkState::TrailerLine
            }
            _ => return Err(Broken),
        })
    }

    fn extra(&mut self) -> Result<(), Broken> {
        self.extras += 1;
        (self.extras <= MAX_EXTRAS).then_some(()).ok_or(Broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a body comes to whose bytes arrive in pieces of that size, and what is left behind it.
    fn carried(body: &str, piece: usize) -> Result<(String, String), Broken> {
        let mut chunks = Chunks::new();
        let (mut input, mut data) = (BytesMut::new(), String::new());
        for bytes in body.as_bytes().chunks(piece) {
            input.extend_from_slice(bytes);
            let mut output = BytesMut::new();
            let carried = chunks.carry(&mut input, &mut output)?;
            let mut text = std::str::from_utf8(&output).unwrap();
            if chunks.is_over() {
                let before = text.strip_suffix("0\r\n\r\n");
                text = before.unwrap_or(text);
            } else {
                assert!(input.is_empty(), "{input:?}");
            }
            if carried > 0 {
                let text = text.strip_prefix(&format!("{carried:x}\r\n")).unwrap();
                let text = text.strip_suffix("\r\n").unwrap();
                assert_eq!(text.len(), carried);
                data.push_str(text);
            } else {
                assert_eq!(text, "");
            }
        }
        assert!(chunks.is_over(), "{body:?} is not over");
        Ok((data, String::from_utf8(input.to_vec()).unwrap()))
    }

    #[test]
    fn a_body_comes_out_whole_however_it_is_cut() {
        for (body, data) in [
            ("0\r\n\r\n", ""),
            ("1\r\na\r\n0\r\n\r\n", "a"),
            ("4\r\nwiki\r\n5\r\npedia\r\n0\r\n\r\n", "wikipedia"),
            ("A\r\n0123456789\r\n00\r\n\r\n", "0123456789"),
            (
                "0a \t;x=\"é;\"\r\n0123456789\r\n0;last\r\nX: y\r\nZ:\r\n\r\n",
                "0123456789",
            ),
            ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
        ] {
            let followed = format!("{body}GET /");
            for piece in 1..followed.len() {
                let expected = (data.to_owned(), "GET /".to_owned());
                let (got, mut left) = carried(&followed, piece).unwrap();
                // What had come by the end of the body; the rest was never asked for.
                left.push_str(&"GET /"[left.len().min(5)..]);
                assert_eq!((got, left), expected, "{body:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_body_of_tiny_chunks_comes_out_as_one() {
        let body = "1;x\r\na\r\n".repeat(1_000) + "0\r\n\r\n";
        let (mut input, mut output) = (BytesMut::from(body.as_str()), BytesMut::new());
        let carried = Chunks::new().carry(&mut input, &mut output);
        assert_eq!(carried, Ok(1_000));
        let expected = format!("3e8\r\n{}\r\n0\r\n\r\n", "a".repeat(1_000));
        assert_eq!(output, expected.as_bytes());
    }

    #[test]
    fn broken_framing_is_told() {
        let extension = format!("1;{}\r\n", "x".repeat(MAX_EXTRAS + 1));
        let trailer = format!("0\r\n{}", "a: b\r\n".repeat(MAX_EXTRAS));
        for body in [
            "\r\n",
            ";\r\n",
            "g\r\n",
            "+1\r\n",
            "1\n",
            "1 a\u{1}\r\n",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\rb",
            "1;\u{0}",
            "1;\n",
            "0\r\n\n",
            "0\r\na\n",
            "0\r\n\ra",
            "1111111111111111\r\n",
            &extension,
            &trailer,
        ] {
            let mut input = BytesMut::from(body);
            let carried = Chunks::new().carry(&mut input, &mut BytesMut::new());
            assert_eq!(carried, Err(Broken), "{:.40}", body);
        }
    }
}
