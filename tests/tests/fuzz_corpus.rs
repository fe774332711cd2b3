//! Replays the corpora of the fuzz targets with the bodies that the targets call, on the compiler of the product.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

type Body = fn(&[u8]);

/// Every target and its body. `tests/fuzz/README.md` tells how one is added.
const TARGETS: [(&str, Body); 17] = [
    ("sip_framer", edge_common::sip::fuzz::framer),
    ("sip_message", edge_common::sip::fuzz::message),
    ("sip_request", edge_access::proxy::request::fuzz),
    ("via", edge_common::sip::fuzz::via),
    ("name_addr", edge_common::sip::fuzz::name_addr),
    ("uri", edge_common::sip::fuzz::uri),
    ("cseq", edge_common::sip::fuzz::cseq),
    ("max_forwards", edge_common::sip::fuzz::hops),
    ("token", edge_access::proxy::token::fuzz),
    ("proxy_v2", edge_common::net::proxy_protocol::fuzz),
    ("websocket_frames", edge_access::ws::content::fuzz_frames),
    ("websocket_handshake", edge_access::ws::handshake::fuzz),
    ("ewrp_control", edge_webconf::ewrp::control::fuzz),
    ("ewrp_hello", edge_webconf::ewrp::data::fuzz_hello),
    ("ewrp_open", edge_webconf::ewrp::data::fuzz_open),
    ("scan", edge_webconf::scan::fuzz),
    ("preface", edge_webconf::preface::fuzz),
];

#[test]
fn every_target_is_listed_and_calls_the_body_that_is_replayed() {
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).expect("the manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let bins = manifest["bin"].as_array().expect("targets");
    let named: BTreeSet<_> = bins.iter().filter_map(|bin| bin["name"].as_str()).collect();
    let listed: BTreeSet<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(named, listed);
}

#[test]
fn no_input_of_the_corpora_breaks_its_body() {
    for (name, body) in TARGETS {
        let inputs = fs::read_dir(folder().join("corpus").join(name));
        let inputs: Vec<_> = inputs
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .collect();
        assert!(inputs.len() >= 2, "{name} has {} inputs", inputs.len());
        for input in inputs {
            let bytes = fs::read(input.expect("an entry").path()).expect("an input");
            body(&bytes);
            // What was cut off on its way is an input as well.
            (0..bytes.len()).for_each(|end| body(&bytes[..end]));
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}
