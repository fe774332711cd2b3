//! The lab and the simulated world.
