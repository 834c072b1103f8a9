//! A coding is chosen that the client wants and the route offers, the one that a plain reading of the header leads to.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|fields: &[u8]| tidegate::proxy::fuzzing::accept_encoding(fields));
