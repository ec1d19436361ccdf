//! Counts files: `unread import --counts` and `unread compare`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unread::fuzzing::counts::check;
use unread_fuzz::bounded;

fuzz_target!(|data: &[u8]| check(data, |most, work| bounded(most, work)));
