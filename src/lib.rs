//! `unread`: exact unread counts for chat back ends.
#![doc = "The map of the crate is written once the modules stand."]
