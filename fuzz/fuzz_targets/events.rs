//! The body of `POST /v1/events`, and lines that are imported.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unread::fuzzing::events::check;
use unread_fuzz::bounded;

fuzz_target!(|data: &[u8]| check(data, |most, work| bounded(most, work)));
