//! Whatever a backend says of its health, what is shown of it is short and printable.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tidegate::health::fuzzing::answer(bytes));
