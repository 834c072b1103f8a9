//! What a backend's response says does not depend on how its bytes come.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tidegate::upstream::fuzzing::response(bytes));
