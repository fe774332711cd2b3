#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edge_webconf::ewrp::control::fuzz(bytes));
