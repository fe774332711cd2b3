//! Configurations for the tests of this crate.

use edge_common::config::{self, Config};

/// The packaged example of a single edge.
pub(crate) fn single() -> Config {
    parse(include_str!("../examples/single.toml"))
}

/// What a text means; it has no errors.
pub(crate) fn parse(text: &str) -> Config {
    let checked = config::check(text, None);
    checked
        .config
        .unwrap_or_else(|| panic!("{:?}", checked.findings))
}
