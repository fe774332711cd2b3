//! The host stands between two networks and never confuses them.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::fmt;
use std::ops::{Index, IndexMut};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which of the host's two networks.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Towards the Internet.
    External,
    /// Towards the organization.
    Internal,
}

impl Side {
    /// Both sides, the external one first.
    pub const BOTH: [Self; 2] = [Self::External, Self::Internal];

    /// The other network.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::External => Self::Internal,
            Self::Internal => Self::External,
        }
    }

    /// The word of configuration keys, metric labels and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::External => "external",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One `T` for each side; indexed by [`Side`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SidePair<T> {
    /// Of the external side.
    pub external: T,
    /// Of the internal side.
    pub internal: T,
}

impl<T> SidePair<T> {
    /// Makes one `T` per side.
    pub fn from_fn(mut make: impl FnMut(Side) -> T) -> Self {
        Self {
            external: make(Side::External),
            internal: make(Side::Internal),
        }
    }

    /// The same pair with `f` applied to both.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> SidePair<U> {
        SidePair {
            external: f(self.external),
            internal: f(self.internal),
        }
    }

    /// Both with their side, the external one first.
    pub fn iter(&self) -> impl Iterator<Item = (Side, &T)> {
        [
            (Side::External, &self.external),
            (Side::Internal, &self.internal),
        ]
        .into_iter()
    }
}

impl<T> Index<Side> for SidePair<T> {
    type Output = T;

    fn index(&self, side: Side) -> &T {
        match side {
            Side::External => &self.external,
            Side::Internal => &self.internal,
        }
    }
}

impl<T> IndexMut<Side> for SidePair<T> {
    fn index_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::External => &mut self.external,
            Side::Internal => &mut self.internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_indexed_by_side() {
        let mut pair = SidePair::from_fn(Side::as_str);
        assert_eq!(pair[Side::External], "external");
        assert_eq!(pair[Side::External.other()], "internal");
        pair[Side::Internal] = "inside";
        assert_eq!(
            pair.map(str::len),
            SidePair {
                external: 8,
                internal: 6
            }
        );
    }
}
