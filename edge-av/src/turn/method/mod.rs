//! One file for each method of RFC 8489 and RFC 8656.

pub(super) mod allocate;
pub(super) mod binding;
pub(super) mod channel_bind;
pub(super) mod create_permission;
pub(super) mod refresh;
