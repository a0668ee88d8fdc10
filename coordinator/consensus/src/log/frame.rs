//! Layout of segments, byte by byte. Must not touch files.
//!
//! Header, 64 bytes: magic `MUSTLOG\n`, format u32, segment number u64, log id 16 bytes, checksum of
//! the last frame before this segment u32, zeros, checksum u32. Frame, padded to 8 bytes: magic u32,
//! length u32, checksum of the frame before u32, checksum u32, body. All integers little endian;
//! a checksum is CRC-32 over everything before it in the header or frame and the body, seeded for
//! frames with the segment number, so a frame is valid only in its own segment.

use crate::history::SEGMENT;

pub(super) const HEADER: u64 = 64;
pub(super) const FRAME_HEAD: u64 = 16;
const MAGIC: &[u8; 8] = b"MUSTLOG\n";
const FRAME_MAGIC: u32 = 0x4d46_7231;
const ALIGN: u64 = 8;

pub(super) fn name(segment: u64) -> String {
    format!("log-{segment:012}.seg")
}

/// Segment number of a file name.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?.strip_suffix(".seg")?;
    digits.parse().ok()
}

/// Bytes that a frame with this body takes.
pub(super) fn frame_size(body: usize) -> u64 {
    (FRAME_HEAD + body as u64).next_multiple_of(ALIGN)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub segment: u64,
    pub log: [u8; 16],
    /// Checksum of the last frame of the segment before.
    pub chain: u32,
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER as usize);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&SEGMENT.to_le_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.log);
        out.extend_from_slice(&self.chain.to_le_bytes());
        out.resize(HEADER as usize - 4, 0);
        let sum = crc32fast::hash(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let head = bytes.get(..HEADER as usize).ok_or("shorter than its header")?;
        let (content, sum) = head.split_at(HEADER as usize - 4);
        if !content.starts_with(MAGIC) || word(sum, 0) != crc32fast::hash(content) {
            return Err("damaged header".into());
        }
        let format = word(content, 8);
        if format != SEGMENT {
            return Err(format!("format {format} is not known to this version"));
        }
        let mut log = [0; 16];
        log.copy_from_slice(&content[20..36]);
        let mut segment = [0; 8];
        segment.copy_from_slice(&content[12..20]);
        Ok(Self { segment: u64::from_le_bytes(segment), log, chain: word(content, 36) })
    }
}

/// One frame and its checksum, which the next frame repeats.
pub(super) fn encode(segment: u64, chain: u32, body: &[u8]) -> (Vec<u8>, u32) {
    let size = usize::try_from(frame_size(body.len())).unwrap_or(usize::MAX);
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&chain.to_le_bytes());
    let sum = checksum(segment, &out, body);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(body);
    out.resize(size, 0);
    (out, sum)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub body: &'a [u8],
    pub chain: u32,
    pub sum: u32,
    /// Offset of the next frame.
    pub next: usize,
}

/// The frame at this offset, if one is whole there, whatever comes before it.
pub(super) fn decode(segment: u64, bytes: &[u8], at: usize) -> Option<Frame<'_>> {
    let rest = bytes.get(at..)?;
    let head = rest.get(..FRAME_HEAD as usize)?;
    let length = word(head, 4) as usize;
    if word(head, 0) != FRAME_MAGIC || length == 0 {
        return None;
    }
    let body = rest.get(FRAME_HEAD as usize..(FRAME_HEAD as usize).checked_add(length)?)?;
    let sum = word(head, 12);
    let next = at.checked_add(usize::try_from(frame_size(length)).ok()?)?;
    (checksum(segment, &head[..12], body) == sum).then(|| Frame { body, chain: word(head, 8), sum, next })
}

/// Offset of the first whole frame that begins after `at` and before `end`.
pub(super) fn find_between(segment: u64, bytes: &[u8], at: usize, end: usize) -> Option<usize> {
    let step = ALIGN as usize;
    (at + step..end).step_by(step).find(|&offset| decode(segment, bytes, offset).is_some())
}

fn checksum(segment: u64, head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}
