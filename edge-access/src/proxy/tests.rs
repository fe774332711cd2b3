//! The proxy in a simulated world: two cores, a clock, far ends that are bytes.

mod array;
mod bad_input;
mod callback;
mod client;
mod dialog;
mod federation;
mod hiding;
mod malformed;
mod property;
mod remote;
mod sipe;
mod transaction;
mod web;
pub(super) mod world;
