//! The A/V Edge.
