//! A chunked body on its way to the engine: its data is taken out of the peer's chunks and put into new ones. So the engine sees
//! neither thousands of chunks of one byte nor endless extensions and trailers, and edge and engine agree on where the body ends.

use bytes::{Buf as _, BytesMut};

/// The most bytes of extensions and trailers in one body. Nobody here reads them.
const MAX_EXTRAS: usize = 16 * 1024;
/// The most digits of a chunk's size: enough for any allowed body, and too few to overflow a `u64`.
const MAX_DIGITS: u8 = 15;

/// How far a chunked body has come.
#[derive(Debug)]
pub(super) struct Chunks {
    expected: Expected,
    /// Bytes of extensions and trailers so far.
    extras: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// A digit of a chunk's size: the size so far, and how many digits it has. Or the end of the size.
    Size(u64, u8),
    /// More of an extension, which stands behind the size of a chunk on the same line; or the line's end.
    Extension(u64),
    /// The LF that ends the line with the size.
    SizeLf(u64),
    /// So many more bytes of data.
    Data(u64),
    /// The CR, then the LF, that end a chunk's data.
    DataCr,
    DataLf,
    /// The first byte of a line behind the last chunk: of a trailer, or of the empty line that ends the body.
    Trailer,
    /// More of a trailer; or the line's end.
    TrailerLine,
    /// The LF that ends a trailer.
    TrailerLf,
    /// The LF that ends the body.
    EndLf,
    /// Nothing: the body is over.
    Nothing,
}

/// The framing is broken, so nobody can tell where the body ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

impl Chunks {
    /// A body of which nothing has come.
    pub(super) fn new() -> Self {
        Self {
            expected: Expected::Size(0, 0),
            extras: 0,
        }
    }

    /// Whether the body is over.
    pub(super) fn is_over(&self) -> bool {
        self.expected == Expected::Nothing
    }

    /// Moves the data in `input` to `output`, as one chunk if there is any; at the body's end the last, empty chunk follows.
    /// Takes all of `input`, or all up to the body's end. Answers how many bytes of data it has moved.
    pub(super) fn carry(
        &mut self,
        input: &mut BytesMut,
        output: &mut BytesMut,
    ) -> Result<usize, Broken> {
        let mut data = Vec::new();
        while !self.is_over() {
            if let Expected::Data(left) = self.expected {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                if here == 0 {
                    break;
                }
                data.extend_from_slice(input.get(..here).unwrap_or_default());
                input.advance(here);
                let left = left.saturating_sub(here as u64);
                self.expected = match left {
                    0 => Expected::DataCr,
                    left => Expected::Data(left),
                };
                continue;
            }
            let Some(byte) = input.first().copied() else {
                break;
            };
            input.advance(1);
            self.expected = self.step(byte)?;
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

    /// What is expected after one more byte of the framing.
    fn step(&mut self, byte: u8) -> Result<Expected, Broken> {
        Ok(match (self.expected, byte) {
            (Expected::Size(size, digits), _)
                if byte.is_ascii_hexdigit() && digits < MAX_DIGITS =>
            {
                let digit = char::from(byte).to_digit(16).ok_or(Broken)?;
                Expected::Size(size * 16 + u64::from(digit), digits + 1)
            }
            (Expected::Size(size, 1..), b'\r') | (Expected::Extension(size), b'\r') => {
                Expected::SizeLf(size)
            }
            (Expected::Size(size, 1..), b';' | b' ' | b'\t') => Expected::Extension(size),
            (Expected::Extension(size), b'\t' | b' '..=b'~' | 0x80..) => {
                self.extra()?;
                Expected::Extension(size)
            }
            (Expected::SizeLf(0), b'\n') => Expected::Trailer,
            (Expected::SizeLf(size), b'\n') => Expected::Data(size),
            (Expected::DataCr, b'\r') => Expected::DataLf,
            (Expected::DataLf, b'\n') => Expected::Size(0, 0),
            (Expected::Trailer, b'\r') => Expected::EndLf,
            (Expected::EndLf, b'\n') => Expected::Nothing,
            (Expected::TrailerLine, b'\r') => Expected::TrailerLf,
            (Expected::TrailerLf, b'\n') => Expected::Trailer,
            (Expected::Trailer | Expected::TrailerLine, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extra()?;
                Expected::TrailerLine
            }
            _ => return Err(Broken),
        })
    }

    /// Counts a byte of an extension or a trailer.
    fn extra(&mut self) -> Result<(), Broken> {
        self.extras += 1;
        (self.extras <= MAX_EXTRAS).then_some(()).ok_or(Broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of a body whose bytes arrive in pieces of that size, and what is left behind the body.
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
                // `left` has only what came in the piece with the body's end; the pieces after it were not read.
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
