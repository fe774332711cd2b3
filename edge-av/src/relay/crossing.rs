//! Packets on their way from one core to another: a hairpin between allocations of two shards.
//!
//! Each core owns some buffers. A packet is copied into one, the other core sends it on and gives the buffer back by
//! its own mailbox, so that nothing is allocated while packets flow. When all buffers are on their way, the packet is
//! dropped and counted; the mailboxes hold more than all buffers together and are never full.

use std::net::SocketAddr;

use edge_common::net::mailbox::{Full, Outbox};

use super::batch::{DATAGRAM_MAX, SLOT_LEN};
use crate::turn::drop_reason::Reason;
use crate::turn::header::HEADROOM;
use crate::turn::port_pool::ShardId;
use crate::turn::relayed::Relayed;

/// What one core writes to another.
#[derive(Debug)]
pub enum ToShard {
    /// A payload for one of your allocations.
    Packet(Crossing),
    /// One of your buffers, empty.
    Return(Buffer),
}

/// A payload with its way.
#[derive(Debug)]
pub struct Crossing {
    /// The relayed address it goes to.
    pub relayed: Relayed,
    /// The relayed address it comes from.
    pub from: SocketAddr,
    /// Bytes of payload, from [`HEADROOM`] on.
    pub len: u16,
    /// Whose buffer it is.
    pub owner: ShardId,
    /// Headroom, payload, tailroom.
    pub buffer: Buffer,
}

/// Room for one packet.
#[derive(Debug)]
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// Headroom, payload and tailroom.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// The way out of one core.
#[derive(Debug)]
pub struct Crossings {
    shard: ShardId,
    outbox: Outbox<ToShard>,
    spare: Vec<Buffer>,
}

impl Crossings {
    /// Makes this core's buffers: their number keeps the mailboxes, which hold `mailbox` messages each, from filling.
    #[must_use]
    pub fn new(shard: ShardId, outbox: Outbox<ToShard>, mailbox: usize) -> Self {
        // A mailbox may get every other core's packets and this core's own buffers back.
        let buffers = (mailbox / outbox.cores().max(1)).clamp(1, BUFFERS_MAX);
        let spare = (0..buffers)
            .map(|_| Buffer(vec![0; SLOT_LEN].into()))
            .collect();
        Self {
            shard,
            outbox,
            spare,
        }
    }

    /// Sends a payload across, or says why it is dropped.
    pub fn send(
        &mut self,
        to: ShardId,
        relayed: Relayed,
        from: SocketAddr,
        payload: &[u8],
    ) -> Result<(), Reason> {
        if payload.len() > DATAGRAM_MAX {
            return Err(Reason::TooLong);
        }
        let mut buffer = self.spare.pop().ok_or(Reason::NoBuffer)?;
        buffer.0[HEADROOM..HEADROOM + payload.len()].copy_from_slice(payload);
        let crossing = Crossing {
            relayed,
            from,
            len: payload.len() as u16,
            owner: self.shard,
            buffer,
        };
        let Err(Full(back)) = self
            .outbox
            .send(usize::from(to.0), ToShard::Packet(crossing))
        else {
            return Ok(());
        };
        if let ToShard::Packet(Crossing { buffer, .. }) = back {
            self.spare.push(buffer);
        }
        Err(Reason::MailboxFull)
    }

    /// Gives a buffer back to the core that owns it.
    pub fn give_back(&mut self, owner: ShardId, buffer: Buffer) {
        if let Err(Full(_)) = self
            .outbox
            .send(usize::from(owner.0), ToShard::Return(buffer))
        {
            // Only when that core has ended; then nobody misses the buffer.
            tracing::trace!(shard = owner.0, "a buffer came back to nobody");
        }
    }

    /// Takes one of our own buffers back.
    pub fn take_back(&mut self, buffer: Buffer) {
        self.spare.push(buffer);
    }
}

/// 2 MiB of buffers for each core.
const BUFFERS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::relayed::Family;
    use edge_common::net::mailbox;

    #[test]
    fn buffers_go_and_come_back_and_their_number_is_the_bound() {
        let mut boxes = mailbox::mesh(2, 8);
        let mut far = boxes.pop().expect("two cores");
        let mut near = boxes.pop().expect("two cores");
        let mut here = Crossings::new(ShardId(0), near.outbox, 8);
        let mut there = Crossings::new(ShardId(1), far.outbox, 8);
        let relayed = Relayed {
            family: Family::V4,
            port: 50_000,
        };
        let from = SocketAddr::from(([198, 51, 100, 12], 50_001));
        for _ in 0..3 {
            for n in 0..4 {
                assert_eq!(here.send(ShardId(1), relayed, from, &[n; 5]), Ok(()));
            }
            assert_eq!(
                here.send(ShardId(1), relayed, from, b"one too many"),
                Err(Reason::NoBuffer)
            );
            for n in 0..4 {
                let Some(ToShard::Packet(mut crossing)) = far.inbox.try_recv() else {
                    panic!("a packet crossed");
                };
                assert_eq!(
                    &crossing.buffer.bytes()[HEADROOM..HEADROOM + usize::from(crossing.len)],
                    [n; 5]
                );
                there.give_back(crossing.owner, crossing.buffer);
            }
            while let Some(ToShard::Return(buffer)) = near.inbox.try_recv() {
                here.take_back(buffer);
            }
        }
        assert_eq!(
            here.send(ShardId(1), relayed, from, &[0; DATAGRAM_MAX + 1]),
            Err(Reason::TooLong)
        );
        // That core has ended: nobody empties its mailbox.
        for n in 0..8 {
            let full = here.outbox.send(1, ToShard::Return(Buffer([n].into())));
            assert!(full.is_ok());
        }
        assert_eq!(
            here.send(ShardId(1), relayed, from, b"late"),
            Err(Reason::MailboxFull)
        );
        assert_eq!(here.spare.len(), 4, "the buffer is not lost");
    }
}
