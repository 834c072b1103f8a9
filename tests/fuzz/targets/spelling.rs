//! Whether a head is written in the one way that everybody reads alike does not hang on how it comes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tidegate::server::fuzzing::spelling(bytes));
