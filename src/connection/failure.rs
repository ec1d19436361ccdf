//! What a failed request means: for its caller an [`Error`], for the metrics a word, for the log the state of a server.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::Redis;
use super::condition::{Meaning, words};
use super::node::Node;
use super::outgoing::Outgoing;
use crate::error::{Error, Trouble, Unavailable, Unreadable};
use crate::keys;

/// The cause of a request that had no reply within its deadline.
pub(super) const IN_TIME: &str = "no answer in time";

impl Redis {
    /// The error of a request; where data can't be read, it names the key.
    pub(super) fn failed_at(&self, node: &Node, request: Outgoing<'_>, error: RedisError) -> Error {
        let Some(why) = unreadable(&error) else {
            return self.failed(node, error);
        };
        // An error reply is a reply: the server is up.
        node.note_answer(false);
        let place = match request.script {
            Some(call) => keys::label_of_several(call.keys()),
            None => keys::label(request.key().unwrap_or_default(), false),
        };
        self.inner.metrics.redis_error("response");
        self.inner.metrics.unreadable(place.kind);
        Error::Unreadable(Box::new(Unreadable {
            place: place.text,
            why: match request.script {
                Some(call) => format!("{why} (script {})", call.script.name),
                None => why,
            },
        }))
    }

    pub(super) fn failed(&self, node: &Node, error: RedisError) -> Error {
        match Meaning::of(&error) {
            Meaning::Kept(kind, trouble) => self.note_trouble(node, kind, trouble, words(&error)),
            Meaning::Strange => {
                self.inner.metrics.redis_error("response");
                Error::Internal(error.to_string())
            }
        }
    }

    /// The error of a request that had no reply within its deadline.
    pub(super) fn no_reply_in_time(&self, node: &Node) -> Error {
        self.note_trouble(node, "timeout", Trouble::Silent, IN_TIME.to_owned())
    }

    /// Notes that a server can't do its work. The log says so if it is new.
    fn note_trouble(
        &self,
        node: &Node,
        kind: &'static str,
        trouble: Trouble,
        cause: String,
    ) -> Error {
        self.inner.metrics.redis_error(kind);
        let why = Unavailable { trouble, cause };
        if matches!(kind, "io" | "timeout") {
            self.refresh();
            node.lost();
        }
        // These two say nothing of the server.
        if !matches!(trouble, Trouble::Moving | Trouble::Unfinished) {
            node.condition.note_trouble(&why);
        }
        Error::Unavailable(why)
    }

    /// The error where no server is known that could be asked.
    pub(super) fn no_server(&self, why: &'static str) -> Error {
        self.unavailable("client", Trouble::Nowhere, why.to_owned())
    }

    pub(super) fn unavailable(&self, kind: &'static str, trouble: Trouble, cause: String) -> Error {
        self.inner.metrics.redis_error(kind);
        Error::unavailable(trouble, cause)
    }
}

/// Why stored data can't be read: a key has another type, a script says so, or a script stopped at a record in a form that it
/// does not know.
fn unreadable(error: &RedisError) -> Option<String> {
    let detail = error.detail().unwrap_or_default();
    match (error.kind(), error.code()) {
        (_, Some("WRONGTYPE")) => Some("a key is of another type".into()),
        (_, Some("UNREADABLE")) => Some(detail.split(" script: ").next()?.to_owned()),
        (ErrorKind::Server(ServerErrorKind::ResponseError), _)
            if detail.contains("user_script") =>
        {
            Some(detail.split(" script: ").next()?.to_owned())
        }
        _ => None,
    }
}

/// Whether the server does not know the script of an EVALSHA.
pub(super) fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
