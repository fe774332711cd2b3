//! What an operator sees from outside: logs, metrics, health, the admin socket, and copies of messages.

pub mod admin;
pub mod hep;
pub mod http;
pub mod log;
pub mod metrics;
