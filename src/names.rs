//! The names that callers choose: users, rooms, messages, tags and custom types. Each can only be made
//! by parsing, so that code below the edge never checks again. No I/O.

use std::fmt;

/// The longest name, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 255;

/// Why a text can't be a name. The message names the rule, never the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
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

/// How the direct room is called that the first message between two users makes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DirectRoomIds {
    /// By a hash that no other two users share; should that room be taken by others, there are more.
    #[default]
    Own,
    /// By the MD5, in hexadecimal digits, of both ids in lower case, in order, with `_` between them: what clients that know
    /// both users work out by themselves. There is one such id, and other users may have the same.
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
pub fn is_name(text: &str) -> bool {
    check(text).is_ok()
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(String);

        impl $type {
            /// Takes the text if it is 1 to 255 bytes of UTF-8 without control characters.
            pub fn parse(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text))
            }

            /// The name as the caller wrote it.
            pub fn as_str(&self) -> &str {
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
    /// What tells that an event was sent before.
    EventKey
);

impl EventKey {
    /// The key of the event at a place, counted from 0, of a request that has a key as a whole.
    pub fn at(request: &Self, place: usize) -> Self {
        Self(format!("{}/{place}", request.0))
    }

    /// The key that a digest makes, in hex.
    pub fn of_digest(digest: [u8; 12]) -> Self {
        Self(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// A room's custom type: a name without a comma.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CustomType(String);

impl CustomType {
    /// Takes the text if it is a name and holds no comma.
    pub fn parse(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        check(&text)?;
        if text.contains(',') {
            return Err(NameError::Comma);
        }
        Ok(Self(text))
    }

    /// The type as the caller wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The id of a configured app: 1 to 64 of `[A-Za-z0-9_.-]`, so that it reads the same in a key, a label and a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppId(String);

impl AppId {
    /// Takes the text if it is a legal app id.
    pub fn parse(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let legal = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        legal.then_some(Self(text))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
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
