#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edge_common::net::proxy_protocol::fuzz(bytes));
