//! Whom an edit names in its job.

use crate::keys::Enc;

/// Whom a list of an edit names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// Everybody of the job's audience whom the edit does not name one by one.
    pub(crate) everybody: bool,
    pub(crate) users: Vec<NamedUser>,
}

/// A user whom an edit names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedUser {
    pub(crate) user: Enc,
    pub(crate) before: Before,
}

/// What the message was to a user before the edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// The edit changes whether the message mentions the user.
    Other,
    /// Of a supergroup: it mentioned the user before, and still does, by name instead of by everybody, or the other way round.
    Mentioned,
    /// It mentioned the user before, and nothing changes.
    Same,
}

impl Named {
    /// Reads a comma list of users, whose ids hold no `+`, `!` or `*`. Before a user, + says that the message mentioned the user
    /// before, and ! that nothing changes for the user; * in place of a user is everybody.
    pub(super) fn parse(list: &str) -> Self {
        let mut named = Self::default();
        for name in list.split(',').filter(|name| !name.is_empty()) {
            let (before, name) = match name.split_at_checked(1) {
                Some(("*", "")) => {
                    named.everybody = true;
                    continue;
                }
                Some(("+", name)) => (Before::Mentioned, name),
                Some(("!", name)) => (Before::Same, name),
                _ => (Before::Other, name),
            };
            let user = Enc::stored(name);
            named.users.push(NamedUser { user, before });
        }
        named
    }
}
