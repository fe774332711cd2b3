//! What the lab shows, step by step. Each file adds its rows to the report.

pub mod array;
pub mod browser;
pub mod call;
pub mod closed;
pub mod conference;
pub mod conference_array;
pub mod federation;
pub mod federation_depth;
pub mod metrics;
pub mod operator;
pub mod services;
pub mod sign_in;
pub mod units;
