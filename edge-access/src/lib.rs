//! The Access Edge.
