//! What waits to be sealed: plaintext in its order, and marks on the frames that may give way.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

/// A queue of plaintext. It refuses nothing itself: its owner knows what else waits.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    bytes: BytesMut,
    /// What the bytes are, if some of them are media: boxed, as most streams never carry any and all pay for the room.
    frames: Option<Box<Frames>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Has to arrive.
    Kept,
    /// Gives way to newer media.
    Media,
}

#[derive(Debug)]
struct Frames(VecDeque<Frame>);

#[derive(Clone, Copy, Debug)]
struct Frame {
    len: usize,
    kind: Kind,
}

impl Outbound {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives a queue that has no room yet the room of another that is done.
    pub(super) fn lend_room(&mut self, room: BytesMut) {
        self.bytes = room;
    }

    /// No further frame may be marked, however short.
    pub(super) fn is_fragmented(&self) -> bool {
        self.frames
            .as_ref()
            .is_some_and(|frames| frames.0.len() >= FRAMES_MAX)
    }

    pub(super) fn push(&mut self, bytes: &[u8], kind: Kind) {
        self.mark(bytes.len(), kind);
        self.bytes.extend_from_slice(bytes);
    }

    /// The oldest `len` bytes.
    pub(super) fn front(&self, len: usize) -> &[u8] {
        &self.bytes[..len]
    }

    /// The oldest `len` bytes are sealed. If they were all, the room comes back.
    pub(super) fn consume(&mut self, len: usize) -> Option<BytesMut> {
        if len == self.bytes.len() {
            self.frames = None;
            return Some(std::mem::take(&mut self.bytes));
        }
        self.bytes.advance(len);
        if let Some(frames) = &mut self.frames {
            frames.consume(len);
        }
        None
    }

    /// Drops media from the front until `excess` bytes are gone, or none is left. Says how many frames it dropped.
    pub(super) fn drop_media(&mut self, mut excess: usize) -> u32 {
        let Some(frames) = self.frames.take() else {
            return 0;
        };
        let mut marks = frames.0.len();
        let mut dropped = 0;
        let (mut kept_frames, mut kept) = (VecDeque::new(), BytesMut::new());
        for frame in frames.0 {
            let bytes = self.bytes.split_to(frame.len);
            let too_much = excess > 0 || marks > FRAMES_MAX / 2;
            if frame.kind == Kind::Media && too_much {
                excess = excess.saturating_sub(frame.len);
                marks -= 1;
                dropped += 1;
            } else {
                kept.extend_from_slice(&bytes);
                kept_frames.push_back(frame);
            }
        }
        self.bytes = kept;
        self.frames = Some(Box::new(Frames(kept_frames)));
        dropped
    }

    fn mark(&mut self, len: usize, kind: Kind) {
        if self.frames.is_none() && kind == Kind::Kept {
            return;
        }
        let before = Frame {
            len: self.bytes.len(),
            kind: Kind::Kept,
        };
        let frames = self
            .frames
            .get_or_insert_with(|| Box::new(Frames(VecDeque::from([before]))));
        match frames.0.back_mut() {
            Some(last) if last.kind == Kind::Kept && kind == Kind::Kept => last.len += len,
            Some(_) | None => frames.0.push_back(Frame { len, kind }),
        }
    }
}

impl Frames {
    fn consume(&mut self, mut len: usize) {
        while let Some(frame) = self.0.front_mut()
            && len > 0
        {
            if frame.len <= len {
                len -= frame.len;
                self.0.pop_front();
            } else {
                // Its beginning is on the way: the rest has to follow.
                frame.len -= len;
                frame.kind = Kind::Kept;
                len = 0;
            }
        }
    }
}

/// Each frame costs a mark; this many are a second of the fastest media with room to spare.
const FRAMES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_media_gives_way_and_the_rest_keeps_its_order() {
        let mut queue = Outbound::default();
        queue.push(b"<a>", Kind::Kept);
        for frame in [b"11", b"22", b"33"] {
            queue.push(frame, Kind::Media);
        }
        queue.push(b"<b>", Kind::Kept);
        queue.push(b"44", Kind::Media);
        assert_eq!(queue.drop_media(3), 2);
        assert_eq!(queue.front(queue.len()), b"<a>33<b>44");
    }

    #[test]
    fn a_frame_whose_beginning_is_sealed_stays() {
        let mut queue = Outbound::default();
        queue.push(b"1111", Kind::Media);
        queue.push(b"2222", Kind::Media);
        assert_eq!(queue.consume(1), None);
        assert_eq!(queue.drop_media(100), 1);
        assert_eq!(queue.front(queue.len()), b"111");
    }

    #[test]
    fn marks_end_with_the_queue() {
        let mut queue = Outbound::default();
        queue.push(b"11", Kind::Media);
        assert!(queue.consume(2).is_some());
        assert!(queue.frames.is_none());
        queue.push(b"<a>", Kind::Kept);
        assert!(queue.frames.is_none(), "no media, no marks");
        assert_eq!(queue.drop_media(100), 0);
        assert_eq!(queue.len(), 3);
    }

    #[test]
    fn tiny_frames_are_bounded_by_their_number() {
        let mut queue = Outbound::default();
        while !queue.is_fragmented() {
            queue.push(b"1", Kind::Media);
        }
        assert!(queue.len() <= FRAMES_MAX);
        assert!(queue.drop_media(0) > 0);
        assert!(!queue.is_fragmented());
    }
}
