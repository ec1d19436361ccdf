//! Paths, queries, hosts, and the bodies of calls that ask for counts, of all dialects.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unread::fuzzing::queries::check;
use unread_fuzz::bounded;

fuzz_target!(|data: &[u8]| bounded((256 << 10) + 256 * data.len(), || check(data)));
