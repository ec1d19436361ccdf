//! How many files this process may have open: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files for all else: the connections to Redis, those of the admin address, those that are being refused, logs, pollers.
const RESERVED: usize = 1024;

/// The limit of open files, as far as it could be raised.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenFiles(Option<u64>);

/// Raises the limit of this process to what the system lets it have.
pub(crate) fn raise() -> OpenFiles {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => OpenFiles(maximum),
        // Some systems allow less than they say.
        Err(_) => OpenFiles(current),
    }
}

impl OpenFiles {
    /// The limit; absent: none.
    pub(crate) fn limit(self) -> Option<u64> {
        self.0
    }

    /// How many connections there may be if the wanted ones are too many: beside them there has to be room for all else.
    pub(crate) fn room(self, wanted: usize) -> Option<usize> {
        let limit = usize::try_from(self.0?).unwrap_or(usize::MAX);
        let room = limit.saturating_sub(RESERVED.min(limit / 8 * 5));
        (room < wanted).then(|| room.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_else_has_its_files() {
        assert_eq!(OpenFiles(None).room(1_000_000), None);
        assert_eq!(OpenFiles(Some(u64::MAX)).room(1_000_000), None);
        assert_eq!(OpenFiles(Some(20_000)).room(12_000), None);
        assert_eq!(OpenFiles(Some(13_000)).room(12_000), Some(11_976));
        assert_eq!(OpenFiles(Some(1_024)).room(12_000), Some(384));
        assert_eq!(OpenFiles(Some(256)).room(12_000), Some(96));
        assert_eq!(OpenFiles(Some(256)).room(96), None);
        assert_eq!(OpenFiles(Some(1)).room(12_000), Some(1));
    }

    #[test]
    fn the_limit_is_raised() {
        let limit = raise().limit();
        assert_eq!(getrlimit(Resource::Nofile).current, limit);
    }
}
