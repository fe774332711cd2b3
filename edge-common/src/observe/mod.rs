//! What an operator sees from outside: logs, metrics, health, and the admin socket.

pub mod admin;
pub mod http;
pub mod log;
pub mod metrics;
