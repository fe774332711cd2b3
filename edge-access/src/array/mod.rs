//! The members of an array hand each other what is for a connection of another one.
//!
//! Pure: [`frame`] is what they say, [`heart`] whether the other one is still there. With sockets: [`link`].

pub mod frame;
pub mod heart;
#[cfg(feature = "io")]
pub mod link;
