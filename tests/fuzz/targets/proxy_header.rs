//! A PROXY header ends in one place, however much of it has come.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tidegate::server::fuzzing::proxy_header(bytes));
