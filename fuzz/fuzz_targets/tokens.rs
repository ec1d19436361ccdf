//! IMKIT's tokens, user tokens, and the headers that hold credentials.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unread::fuzzing::tokens::check;

fuzz_target!(|data: &[u8]| check(data));
