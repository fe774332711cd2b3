//! What the three daemons and edgectl share.

pub mod random;
pub mod seal;
pub mod secret;
