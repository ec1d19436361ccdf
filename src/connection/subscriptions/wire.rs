//! What a server says on a connection for subscriptions, in RESP2.

/// The longest text that is taken. Names of channels are shorter.
const MAX: usize = 64 << 10;

/// Something that a server has said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// On this channel this was said.
    Message(String, String),
    /// This channel is subscribed.
    Subscribed(String),
    /// This channel is subscribed no more, because we asked for that or because the server has given the slot away.
    Unsubscribed(String),
    /// It has refused something.
    Error(String),
    /// Anything else, such as the answer to a PING.
    Other,
}

/// The server says what nobody can read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Garbled;

/// Reads the first thing that was said, and how many bytes it has; none: it has not come whole.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Said, usize)>, Garbled> {
    let mut at = 0;
    let Some(line) = line(bytes, &mut at)? else {
        return Ok(None);
    };
    let (kind, rest) = line.split_first().ok_or(Garbled)?;
    let said = match kind {
        b'+' | b':' => Said::Other,
        b'-' => Said::Error(String::from_utf8_lossy(rest).into_owned()),
        b'*' => {
            let count = number(rest)?;
            let mut words = Vec::new();
            if !(1..=8).contains(&count) {
                return Err(Garbled);
            }
            for _ in 0..count {
                match word(bytes, &mut at)? {
                    Some(word) => words.push(word),
                    None => return Ok(None),
                }
            }
            meant(words)
        }
        _ => return Err(Garbled),
    };
    Ok(Some((said, at)))
}

fn meant(words: Vec<String>) -> Said {
    let mut words = words.into_iter();
    let (kind, channel) = (words.next(), words.next());
    match (kind.as_deref(), channel) {
        (Some("smessage"), Some(channel)) => {
            Said::Message(channel, words.next().unwrap_or_default())
        }
        (Some("ssubscribe"), Some(channel)) => Said::Subscribed(channel),
        (Some("sunsubscribe"), Some(channel)) => Said::Unsubscribed(channel),
        _ => Said::Other,
    }
}

/// The next line, without its end.
fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, Garbled> {
    let rest = bytes.get(*at..).unwrap_or_default();
    let Some(length) = memchr::memchr(b'\n', rest) else {
        return match rest.len() > MAX {
            true => Err(Garbled),
            false => Ok(None),
        };
    };
    *at += length + 1;
    let line = rest.get(..length).and_then(|line| line.strip_suffix(b"\r"));
    line.map(Some).ok_or(Garbled)
}

/// An element of a list: a text, a number, or nothing.
fn word(bytes: &[u8], at: &mut usize) -> Result<Option<String>, Garbled> {
    let Some(line) = line(bytes, at)? else {
        return Ok(None);
    };
    let (kind, rest) = line.split_first().ok_or(Garbled)?;
    match kind {
        b'$' if rest == b"-1" => Ok(Some(String::new())),
        b'$' => {
            let length = number(rest)?;
            if length > MAX {
                return Err(Garbled);
            }
            let Some(text) = bytes.get(*at..*at + length + 2) else {
                return Ok(None);
            };
            *at += length + 2;
            let text = text.strip_suffix(b"\r\n").ok_or(Garbled)?;
            Ok(Some(String::from_utf8_lossy(text).into_owned()))
        }
        b':' | b'+' => Ok(Some(String::from_utf8_lossy(rest).into_owned())),
        _ => Err(Garbled),
    }
}

fn number(digits: &[u8]) -> Result<usize, Garbled> {
    let digits = std::str::from_utf8(digits).map_err(|_| Garbled)?;
    digits.parse().map_err(|_| Garbled)
}

/// Writes a command.
pub(super) fn write<'a>(into: &mut Vec<u8>, words: impl ExactSizeIterator<Item = &'a str>) {
    into.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        into.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<Said> {
        let mut rest = text.as_bytes();
        let mut said = Vec::new();
        while let Some((one, length)) = read(rest).unwrap() {
            said.push(one);
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
        said
    }

    #[test]
    fn what_redis_says_is_read() {
        let text = "*3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$3\r\nb c\r\n\
                    *2\r\n$4\r\npong\r\n$0\r\n\r\n+PONG\r\n-MOVED 5 h:1\r\n\
                    *3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n*3\r\n$12\r\nsunsubscribe\r\n$-1\r\n:0\r\n";
        let a = || "a".to_owned();
        let expected = [
            Said::Subscribed(a()),
            Said::Message(a(), "b c".to_owned()),
            Said::Other,
            Said::Other,
            Said::Error("MOVED 5 h:1".to_owned()),
            Said::Unsubscribed(a()),
            Said::Unsubscribed(String::new()),
        ];
        assert_eq!(all(text), expected);
        // Part by part.
        let first = "*3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n";
        for end in 0..first.len() {
            assert_eq!(read(&first.as_bytes()[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn what_is_no_resp_is_refused() {
        for text in [
            "x\r\n",
            "*x\r\n",
            "*0\r\n",
            "*999999999\r\n",
            "*1\r\n$99999999\r\n",
            "*1\r\n*1\r\n",
            "\r\n",
            "+\n",
        ] {
            assert_eq!(read(text.as_bytes()), Err(Garbled), "{text:?}");
        }
        assert_eq!(read(&vec![b'+'; MAX + 1]), Err(Garbled));
    }

    #[test]
    fn a_command_is_written_as_a_list() {
        let mut bytes = Vec::new();
        write(&mut bytes, ["SSUBSCRIBE", "ä"].into_iter());
        assert_eq!(bytes, "*2\r\n$10\r\nSSUBSCRIBE\r\n$2\r\nä\r\n".as_bytes());
    }
}
