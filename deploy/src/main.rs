//! `edgectl`, the operator's one tool.
fn main() {}
