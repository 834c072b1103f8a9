//! Frames of a WebSocket end in the same places, however the bytes come.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tidegate::proxy::fuzzing::websocket_frames(bytes));
