//! Any head is refused, or leaves the gateway in the one form that every server reads alike.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|head: &[u8]| tidegate::proxy::fuzzing::request_head(head));
