//! Lines for a shell to paste.

/// A word as a shell takes it, whatever is in it.
pub(crate) fn quote(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_./:@%+=,-".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn words_are_quoted_for_any_shell() {
        assert_eq!(quote("HGETALL"), "HGETALL");
        assert_eq!(quote("unread:v1:{demo:u:a}:x"), "'unread:v1:{demo:u:a}:x'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("$(rm x)`;&"), "'$(rm x)`;&'");
    }
}
