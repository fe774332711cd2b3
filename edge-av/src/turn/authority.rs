//! Who may have an allocation: the server asks, the credentials answer.

use edge_common::time::Now;
use zeroize::Zeroizing;

use super::quota::UserId;

/// Knows the password that belongs to a user name.
///
/// Nothing is looked up in a store: user names are tokens of the A/V authentication service, or times signed with a
/// shared secret, so that every member of an array can tell (see [`crate::credentials`]).
pub trait Authority: Send + Sync + std::fmt::Debug {
    /// What `username` stands for now.
    fn verify(&self, now: Now, username: &[u8]) -> Result<Verified, Denied>;
}

/// A user name that is ours and has not expired; whoever sent it has still to prove that it knows the password.
#[derive(Debug)]
pub struct Verified {
    /// The other half of the credential; several while a shared secret is being changed.
    pub passwords: Vec<Zeroizing<Vec<u8>>>,
    /// Whose allocations are counted together.
    pub user: UserId,
}

/// Why a user name is worth nothing. All look alike on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denied {
    /// Nobody of this array made it.
    Unknown,
    /// It was good once.
    Expired,
}
