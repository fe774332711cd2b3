//! Refresh: keep an allocation, or end it (RFC 8656 §8).

use std::time::Duration;

use edge_common::time::Now;

use super::allocate::granted;
use crate::turn::answer::Reply;
use crate::turn::output::Closed;
use crate::turn::refusal::Refusal;
use crate::turn::relayed::Family;
use crate::turn::{Request, Server};

impl Server {
    /// A lifetime of zero ends the allocation; a client that ended one already takes 437 as success.
    pub(in crate::turn) fn handle_refresh(
        &mut self,
        now: Now,
        request: &Request<'_>,
    ) -> Result<Reply, Refusal> {
        let relayed = self
            .allocation_of(request.from)
            .ok_or(Refusal::AllocationMismatch)?
            .relayed;
        if let Some(octet) = request.fields.family
            && Family::from_wire(octet) != Some(relayed.family)
        {
            return Err(Refusal::PeerFamilyMismatch);
        }
        if request.fields.lifetime == Some(0) {
            self.close(now, relayed, Closed::Released);
            return Ok(Reply::Lifetime(Duration::ZERO));
        }
        let lifetime = granted(request.fields.lifetime);
        self.prolong(relayed, now.mono + lifetime);
        Ok(Reply::Lifetime(lifetime))
    }
}
