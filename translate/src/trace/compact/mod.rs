//! The compact form, `.mmt`: references in one to three bytes each, decoded faster than an MMU can be
//! simulated.
//!
//! # Format, version 1
//!
//! All numbers are little-endian.
//!
//! ```text
//! file   = header block* end
//! header = magic[8] version:u16 reserved[6]
//! block  = thread:u32 count:u32 extra:u32 crc:u32 tag[count] byte[extra]
//! end    =      0:u32     0:u32    16:u32 crc:u32 references:u64 blocks:u64
//! ```
//!
//! * The magic is `89 4d 4d 54 0d 0a 1a 0a`: not text, and damaged by whatever changes line ends.
//! * The reserved bytes are zero.
//! * A block holds `count` references of one thread, 1 to 65536 of them. It decodes on its own. Threads
//!   are numbered from 0 in the order of their first blocks.
//! * `crc` is the CRC-32 (IEEE 802.3, as in gzip) of the 12 bytes before it and all bytes of the block
//!   after it.
//! * The end counts the references and blocks before it, so that a missing block is noticed. Nothing
//!   follows it. A writer needs to know nothing in advance and never goes back.
//!
//! Each reference has a tag, and takes 0, 1, 3 or 7 of the block's extra bytes:
//!
//! | bits of the tag | meaning |
//! |---|---|
//! | 0-1 | base: 0 a load, 1 a store, 2 a fetch, 3 a load again |
//! | 2-3 | extra bytes: 0 none, 1 one, 2 three, 3 seven |
//! | 4-7 | the lower 4 bits of the distance; the extra bytes are those above |
//!
//! The address is the one last made with this base in the block, 0 at its start, plus the distance minus
//! a bias: half the range of the distance, so that it goes either way; with no extra bytes 0 for a
//! fetch, which mostly goes forward, 7 for a load and 8 for a store, so that one goes 8 bytes up and the
//! other 8 bytes down, as a stack does. Arithmetic is modulo 2^64; the lower 57 bits of an address
//! count. Loads have two bases, since a program that reads stack and heap in turns would otherwise take
//! 8 bytes for each; a writer chooses freely between them.
//!
//! Tags and extra bytes lie apart, so that a reader finds the extra bytes of a reference without having
//! looked at those before it.

mod coding;
mod reader;
mod writer;

pub(super) use reader::{Compact, begins};
pub use writer::CompactWriter;

/// How a recording begins.
const MAGIC: [u8; 8] = *b"\x89MMT\r\n\x1a\n";
/// The format described above.
const VERSION: u16 = 1;
/// Bytes of the header, and where its version is.
const HEADER: usize = 16;
const VERSION_AT: std::ops::Range<usize> = 8..10;
/// Most references in a block. Bounds what a reader keeps in memory to 512 KiB.
const MOST_REFERENCES: usize = 1 << 16;

/// Head of a block, or of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    thread: u32,
    count: u32,
    extra: u32,
    crc: u32,
}

impl Head {
    /// Bytes of a head, and of the part that the checksum covers.
    const SIZE: usize = 16;
    const CHECKED: usize = 12;
    /// What follows the head of the end.
    const END_EXTRA: u32 = 16;

    fn from_bytes(bytes: [u8; Head::SIZE]) -> Self {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Head {
            thread: word(0),
            count: word(4),
            extra: word(8),
            crc: word(Head::CHECKED),
        }
    }

    fn to_bytes(self) -> [u8; Head::SIZE] {
        let mut bytes = [0; Head::SIZE];
        let words = [self.thread, self.count, self.extra, self.crc];
        for (to, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
        bytes
    }

    /// The head with the checksum of itself and what follows it.
    fn checked(mut self, following: &[&[u8]]) -> Self {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.to_bytes()[..Head::CHECKED]);
        following.iter().for_each(|bytes| crc.update(bytes));
        self.crc = crc.finalize();
        self
    }
}
