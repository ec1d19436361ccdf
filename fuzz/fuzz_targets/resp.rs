//! What Redis answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unread::connection::fuzzing::check;
use unread_fuzz::bounded;

// A place for each value that can be in what has come, in each of the lists in lists.
fuzz_target!(|data: &[u8]| bounded((64 << 10) + 2_048 * data.len(), || check(data)));
