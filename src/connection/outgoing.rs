//! What is sent to Redis.

use redis::{Arg, Cmd};

use super::cluster_slot;
use crate::scripts::ScriptCall;

/// One request, as its caller makes it. Its first key says which server it goes to.
pub(crate) enum Item {
    /// A plain command.
    Plain(Cmd),
    /// A call of a script.
    Script(ScriptCall),
}

/// A request on its way: what its caller has made, borrowed, and how it is sent.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) cmd: &'a Cmd,
    pub(super) script: Option<&'a ScriptCall>,
    /// Whether the owner of its slot has redirected it by `-ASK`: then ASKING goes before it.
    pub(super) asking: bool,
}

impl<'a> Outgoing<'a> {
    /// Whether Redis refuses it wherever Redis takes no writes.
    pub(super) fn writes(self) -> bool {
        self.script.is_some_and(|call| call.script.writes_freely())
    }

    /// The slot of the first key.
    pub(super) fn slot(self) -> u16 {
        self.key().map_or(0, cluster_slot::of)
    }

    /// The first key.
    pub(super) fn key(self) -> Option<&'a [u8]> {
        let mut words = self.cmd.args_iter();
        let at = match self.script {
            Some(_) => 3,
            // The only command in use whose name has two words.
            None if matches!(words.clone().next(), Some(Arg::Simple(b"MEMORY"))) => 2,
            None => 1,
        };
        match words.nth(at) {
            Some(Arg::Simple(key)) => Some(key),
            _ => None,
        }
    }
}

impl<'a> From<&'a Cmd> for Outgoing<'a> {
    fn from(cmd: &'a Cmd) -> Self {
        Self {
            cmd,
            script: None,
            asking: false,
        }
    }
}

impl<'a> From<&'a ScriptCall> for Outgoing<'a> {
    fn from(call: &'a ScriptCall) -> Self {
        Self {
            script: Some(call),
            ..Self::from(&call.cmd)
        }
    }
}

impl<'a> From<&'a Item> for Outgoing<'a> {
    fn from(item: &'a Item) -> Self {
        match item {
            Item::Plain(cmd) => cmd.into(),
            Item::Script(call) => call.into(),
        }
    }
}
