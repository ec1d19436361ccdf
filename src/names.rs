//! The names that callers choose: users, rooms, messages, tags and custom types. A value of these types can only come from
//! parsing, so code that has one needs no further check. No I/O.

use std::fmt;

/// The longest name, in bytes of UTF-8.
pub(crate) const MAX_NAME_BYTES: usize = 255;

/// Why a text can't be a name. The message names the rule, never the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    /// The text has no bytes.
    #[error("must not be empty")]
    Empty,
    /// The text is longer than [`MAX_NAME_BYTES`].
    #[error("must be at most 255 bytes of UTF-8")]
    TooLong,
    /// The text holds a control character.
    #[error("must not hold control characters")]
    Control,
    /// A custom type holds a comma, which the wire formats use between types.
    #[error("must not hold a comma")]
    Comma,
}

/// How to name the direct room that the first message between two users makes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum DirectRoomIds {
    /// A hash that no other two users share. If other users have that room all the same, there are further ids to try.
    #[default]
    Own,
    /// The MD5, in hexadecimal digits, of both ids in lower case, sorted, with `_` between them. Clients that know both users
    /// can compute it. There is only one such id for two users, and two others can have the same one.
    LoweredMd5,
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        Err(NameError::Empty)
    } else if text.len() > MAX_NAME_BYTES {
        Err(NameError::TooLong)
    } else if text.chars().any(char::is_control) {
        Err(NameError::Control)
    } else {
        Ok(())
    }
}

/// Whether a text can be a name: 1 to 255 bytes without control characters.
pub(crate) fn is_name(text: &str) -> bool {
    check(text).is_ok()
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) struct $type(String);

        impl $type {
            /// Takes the text if it is 1 to 255 bytes of UTF-8 without control characters.
            pub(crate) fn parse(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text))
            }

            /// The name as the caller wrote it.
            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A user of an app.
    UserId
);
name!(
    /// A room of an app.
    RoomId
);
name!(
    /// A message, unique in its room.
    MessageId
);
name!(
    /// A tag of a room.
    Tag
);
name!(
    /// The key of an event, by which a repeated event is known.
    EventKey
);

impl EventKey {
    /// The key of an event in a request whose key covers all its events; `place` is the event's place there, from 0.
    pub(crate) fn nth_of(request: &Self, place: usize) -> Self {
        Self(format!("{}/{place}", request.0))
    }

    /// A digest as a key, in hexadecimal digits.
    pub(crate) fn of_digest(digest: [u8; 12]) -> Self {
        Self(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// A room's custom type: a name without a comma.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CustomType(String);

impl CustomType {
    /// Takes the text if it is a name and holds no comma.
    pub(crate) fn parse(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        check(&text)?;
        if text.contains(',') {
            return Err(NameError::Comma);
        }
        Ok(Self(text))
    }

    /// The type as the caller wrote it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The id of a configured app: 1 to 64 of `[A-Za-z0-9_.-]`, so that it reads the same in a key, a label and a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AppId(String);

impl AppId {
    /// Takes the text if it is a legal app id.
    pub(crate) fn parse(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let legal = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        legal.then_some(Self(text))
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_255_bytes_and_refuse_256_and_controls() {
        assert!(UserId::parse("x".repeat(255)).is_ok());
        assert_eq!(UserId::parse("x".repeat(256)), Err(NameError::TooLong));
        assert_eq!(UserId::parse(""), Err(NameError::Empty));
        assert_eq!(UserId::parse("a\nb"), Err(NameError::Control));
        assert_eq!(UserId::parse("a\u{85}b"), Err(NameError::Control));
        assert!(RoomId::parse("{a}*?[x]:/% \"'é🙂").is_ok());
        assert_eq!(CustomType::parse("a,b"), Err(NameError::Comma));
        assert!(Tag::parse("a,b").is_ok());
    }
}
