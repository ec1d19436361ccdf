//! All that is stored in Redis, and the keys that it is stored under.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unread::fuzzing::records::check;
use unread_fuzz::bounded;

fuzz_target!(|data: &[u8]| bounded((64 << 10) + 256 * data.len(), || check(data)));
