//! What Redis answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unread::connection::fuzzing::check;
use unread_fuzz::bounded;

// A place for each value that can be in what has come, and what a vector grows by, of three readings at once.
fuzz_target!(|data: &[u8]| bounded((64 << 10) + 256 * data.len(), || check(data)));
