//! What the three daemons and edgectl share.
