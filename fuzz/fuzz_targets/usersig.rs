//! Tencent's UserSig, which anybody may send.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unread::fuzzing::usersig::Case;
use unread_fuzz::bounded;

/// The most bytes that one verification may hold: the inflater with its window, and the document.
const MOST: usize = 96 << 10;

fuzz_target!(|data: &[u8]| {
    if let Some(case) = Case::new(data) {
        let found = bounded(MOST, || case.verify());
        case.check(found);
    }
});
