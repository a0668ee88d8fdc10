//! The durable log: append-only segments written by one thread. Must not decide anything about Raft.
//!
//! A segment is a preallocated file `log-<number>.seg`: a header, then frames, then zeros. A frame
//! is one group commit: it is written and fsynced as a whole before the next one is written. So a
//! damaged frame with a valid frame anywhere after it was durable once and is corruption; without
//! one it is a torn write that nobody was told about, and is cut.

mod frame;
mod memory;
mod recover;
mod store;
mod writer;

pub(crate) use memory::Memory;
pub(crate) use recover::{Sizes, create, open, read, wipe_unfinished};
pub(crate) use store::LogStore;
pub(crate) use writer::Writer;

/// A segment with these frames, for fixtures.
#[cfg(test)]
pub(crate) fn segment(number: u64, log: [u8; 16], frames: &[Vec<u8>]) -> Vec<u8> {
    segment_after(number, log, 0, frames).0
}

/// A segment behind one whose last frame has this checksum, and its own last checksum.
#[cfg(test)]
pub(crate) fn segment_after(
    number: u64,
    log: [u8; 16],
    mut chain: u32,
    frames: &[Vec<u8>],
) -> (Vec<u8>, u32) {
    let mut bytes = frame::Header { segment: number, log, chain }.encode();
    for body in frames {
        let (frame, sum) = frame::encode(number, chain, body);
        bytes.extend_from_slice(&frame);
        chain = sum;
    }
    (bytes, chain)
}
