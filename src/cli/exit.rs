//! What a command ends with: its exit code, and the words for a failure.

use crate::config::ConfigError;
use crate::error::{Error, Trouble};
use crate::names::AppId;

/// What the exit code of any command says; `docs/operate.md` has the same table.
pub(super) const EXIT_CODES: &str = "Exit codes:
  0  done, and all is well
  1  done, and not all is well: drift, a rejected event, a failed check; or there is no such app, user or room
  2  not done: wrong flags, a wrong configuration, or another error
  3  not done: Redis can't be reached, refuses the login or the command, or does not answer in time";

pub(super) const WELL: u8 = 0;
pub(super) const NOT_WELL: u8 = 1;
pub(super) const FAILED: u8 = 2;
pub(super) const REDIS_AWAY: u8 = 3;

/// The exit code of a command that ran to its end.
pub(super) fn well_if(well: bool) -> u8 {
    match well {
        true => WELL,
        false => NOT_WELL,
    }
}

/// Why a command did not run to its end, or had nothing to run on.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing is kept, or configured, of what was named.
    NotThere(String),
    /// What was given is wrong, or it could not be done.
    Failed(String),
    /// Redis can't be reached, refuses us, or did not answer in time. The same again may work.
    RedisAway(String),
    /// Nobody reads standard output any more, as after `| head`. There is nobody to tell.
    ReaderGone,
}

impl Failure {
    /// Nothing is kept of a user or a room of the app (`("user", "alice")`); of the whole app if none is named.
    pub(super) fn nothing_kept(app: &AppId, of: Option<(&str, &str)>) -> Self {
        let of = of.map(|(what, name)| format!("{what} {name:?} in "));
        let of = of.unwrap_or_default();
        Failure::NotThere(format!("nothing is kept of {of}app \"{app}\""))
    }

    /// The exit code, as [`EXIT_CODES`] has it, and why.
    pub(super) fn code_and_text(self) -> (u8, String) {
        match self {
            Failure::NotThere(why) => (NOT_WELL, why),
            Failure::Failed(why) => (FAILED, why),
            Failure::RedisAway(why) => (REDIS_AWAY, why),
            Failure::ReaderGone => (FAILED, String::new()),
        }
    }

    /// The same failure, with what it means for the command.
    pub(super) fn map(self, words: impl FnOnce(String) -> String) -> Self {
        match self {
            Failure::NotThere(why) => Failure::NotThere(words(why)),
            Failure::Failed(why) => Failure::Failed(words(why)),
            Failure::RedisAway(why) => Failure::RedisAway(words(why)),
            Failure::ReaderGone => Failure::ReaderGone,
        }
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Failure::Failed(why)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::Failed(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            // Trying again does not help.
            Error::Unavailable(why) if why.trouble == Trouble::Schema => {
                return Failure::Failed(why.to_string());
            }
            _ => {}
        }
        match error.is_transient() {
            true => Failure::RedisAway(error.to_string()),
            false => Failure::Failed(error.to_string()),
        }
    }
}
