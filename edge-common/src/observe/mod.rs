//! What an operator sees from outside: logs, metrics, health, and the admin socket.

pub mod metrics;
