//! What the three daemons and edgectl share.

pub mod cert;
pub mod config;
pub mod credential;
#[cfg(feature = "io")]
pub mod dns;
pub mod host_name;
pub mod limit;
pub mod net;
pub mod partner_proof;
pub mod peer_range;
pub mod ports;
#[cfg(feature = "io")]
pub mod private_file;
pub mod random;
#[cfg(feature = "io")]
pub mod run;
pub mod seal;
pub mod secret;
#[cfg(feature = "io")]
pub mod secret_files;
pub mod side;
pub mod sip;
pub mod srv;
pub mod time;
pub mod timer;
