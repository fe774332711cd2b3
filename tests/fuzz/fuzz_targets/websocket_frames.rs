#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edge_access::ws::content::fuzz_frames(bytes));
