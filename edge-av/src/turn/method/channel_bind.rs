//! ChannelBind: a number for a peer, so that four bytes stand for an address (RFC 8656 §12.2).

use edge_common::time::Now;

use crate::turn::allocation::BindError;
use crate::turn::answer::Reply;
use crate::turn::peer_policy::Leg;
use crate::turn::refusal::Refusal;
use crate::turn::{Request, Server};

impl Server {
    /// Binds, or binds again; either renews the permission as well.
    pub(in crate::turn) fn handle_channel_bind(
        &mut self,
        now: Now,
        request: &Request<'_>,
    ) -> Result<Reply, Refusal> {
        let family = self
            .allocation_of(request.from)
            .ok_or(Refusal::AllocationMismatch)?
            .relayed
            .family;
        let (number, peer) = request
            .fields
            .channel
            .zip(request.fields.peer)
            .ok_or(Refusal::BadRequest)?;
        if !(CHANNEL_FIRST..=CHANNEL_LAST).contains(&number) {
            return Err(Refusal::BadRequest);
        }
        let peer = self.admit(family, peer)?;
        // A permission is for an address, a channel for one port of it: ours has to be a relay port.
        if self.settings.policy.judge(peer.ip()) == Leg::Hairpin
            && self.shared.ports[family].index(peer.port()).is_none()
        {
            return Err(Refusal::Forbidden);
        }
        let limits = self.settings.limits.clone();
        let allocation = self
            .allocation_of_mut(request.from)
            .ok_or(Refusal::AllocationMismatch)?;
        allocation
            .channels
            .check(now.mono, number, peer, limits.channels)
            .map_err(refusal)?;
        if !allocation
            .permissions
            .have_room(now.mono, &[peer.ip()], limits.permissions)
        {
            return Err(Refusal::InsufficientCapacity);
        }
        allocation.permissions.install(now.mono, peer.ip());
        allocation.channels.bind(now.mono, number, peer);
        Ok(Reply::Done)
    }
}

const fn refusal(error: BindError) -> Refusal {
    match error {
        BindError::Conflict => Refusal::BadRequest,
        BindError::Full => Refusal::InsufficientCapacity,
    }
}

/// RFC 8656 §12 ends at 0x4FFF, but clients of RFC 5766 are in the field (coturn's among them) and use all of its range.
const CHANNEL_FIRST: u16 = 0x4000;
const CHANNEL_LAST: u16 = 0x7FFE;
