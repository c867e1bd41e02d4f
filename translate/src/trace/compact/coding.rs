//! Tags and distances: how a reference becomes bytes and comes back.

use std::cmp::Ordering;

use x86::{Access, Reference, Va};

/// Extra bytes by the code in a tag.
const EXTRA: [u8; 4] = [0, 1, 3, MOST_EXTRA];
/// Most extra bytes of a reference.
pub(super) const MOST_EXTRA: u8 = 7;
/// Bits of the distance in the tag.
const TAG_BITS: u32 = 4;
const CODE_SHIFT: u32 = 2;
const BASE_MASK: u8 = 3;
/// Base and code together.
const HOW_MASK: u8 = 15;
const HOWS: usize = HOW_MASK as usize + 1;

/// The bases, by number.
const BASES: usize = 4;
const WRITE: u8 = 1;
const FETCH: u8 = 2;
/// Of the loads, which have two.
const LOADS: [u8; 2] = [0, 3];

/// The access by base.
const ACCESS: [Access; BASES] = [Access::Read, Access::Write, Access::Fetch, Access::Read];

/// What base and code of a tag mean.
#[derive(Clone, Copy)]
struct How {
    /// Which bits of the tag's upper half and the bytes behind it are distance.
    mask: u64,
    /// What is subtracted from the distance.
    bias: u64,
    /// Extra bytes.
    extra: usize,
    access: Access,
}

/// The meanings, side by side so that decoding looks up one place.
const HOW: [How; HOWS] = {
    let mut table = [How::new(0); HOWS];
    let mut how = 0;
    while how < HOWS {
        table[how] = How::new(how);
        how += 1;
    }
    table
};

impl How {
    const fn new(how: usize) -> Self {
        let (base, code) = (how & BASE_MASK as usize, how >> CODE_SHIFT);
        let bits = TAG_BITS + u8::BITS * EXTRA[code] as u32;
        let half = 1 << (bits - 1);
        How {
            mask: (1 << bits) - 1,
            bias: match (code, ACCESS[base]) {
                (0, Access::Fetch) => 0,
                (0, Access::Read) => half - 1,
                _ => half,
            },
            extra: EXTRA[code] as usize,
            access: ACCESS[base],
        }
    }
}

/// Addresses last made, by base.
pub(super) type Bases = [u64; BASES];

/// Kinds of the references of a row of tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TagCounts {
    pub(super) writes: u64,
    pub(super) fetches: u64,
}

impl TagCounts {
    pub(super) fn of(tags: &[u8]) -> Self {
        // A byte counts to 255, and the compiler counts 16 bytes at a time.
        let of = |base| move |tag: &u8| u8::from(tag & BASE_MASK == base);
        let count = |base| {
            let chunks = tags.chunks(u8::MAX.into());
            chunks
                .map(|chunk| u64::from(chunk.iter().map(of(base)).sum::<u8>()))
                .sum()
        };
        TagCounts {
            writes: count(WRITE),
            fetches: count(FETCH),
        }
    }
}

/// Decodes a row of tags, appending to `out`. Returns how many bytes of `extras` it took.
///
/// `extras` should go 8 bytes beyond what the tags take; of anything less, the missing is zero.
pub(super) fn decode(tags: &[u8], extras: &[u8], bases: &mut Bases, out: &mut Vec<Reference>) -> usize {
    let mut at = 0;
    let mut local = *bases;
    out.extend(tags.iter().map(|tag| {
        let how = &HOW[usize::from(tag & HOW_MASK)];
        let word = extras
            .get(at..)
            .and_then(<[u8]>::first_chunk)
            .map_or(0, |word| u64::from_le_bytes(*word));
        at += how.extra;
        let distance = (word << TAG_BITS | u64::from(tag >> TAG_BITS)) & how.mask;
        let base = &mut local[usize::from(tag & BASE_MASK)];
        *base = base.wrapping_add(distance).wrapping_sub(how.bias);
        Reference::truncating(how.access, Va::new(*base))
    }));
    *bases = local;
    at
}

/// The tag of a distance, and its extra bytes, the first of 8.
struct Coded {
    tag: u8,
    extra: u64,
    length: u8,
}

/// What a writer remembers of the block so far.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    bases: Bases,
    /// The base of the last load.
    load: u8,
}

impl Encoder {
    /// Encodes a reference.
    pub(super) fn encode(&mut self, reference: Reference, tags: &mut Vec<u8>, extras: &mut Vec<u8>) {
        let address = reference.va().get();
        let Coded { tag, extra, length } = match reference.access() {
            Access::Read => self.load(address),
            Access::Write => self.code(WRITE, address),
            Access::Fetch => self.code(FETCH, address),
        };
        tags.push(tag);
        extras.extend_from_slice(&extra.to_le_bytes()[..usize::from(length)]);
        self.bases[usize::from(tag & BASE_MASK)] = address;
    }

    /// The shorter of two codes; the nearer base if both are the same length. When both are far, the base
    /// not used last gives way, so that two places read in turns get a base each.
    fn load(&mut self, address: u64) -> Coded {
        let coded = LOADS.map(|base| self.code(base, address));
        let [first, second] = &coded;
        let distance = |base: u8| (address.wrapping_sub(self.bases[usize::from(base)]) as i64).unsigned_abs();
        let choice = match first.length.cmp(&second.length) {
            Ordering::Less => 0,
            Ordering::Greater => 1,
            Ordering::Equal if first.length == MOST_EXTRA => usize::from(self.load == LOADS[0]),
            Ordering::Equal => usize::from(distance(LOADS[1]) < distance(LOADS[0])),
        };
        self.load = LOADS[choice];
        let [first, second] = coded;
        if choice == 0 { first } else { second }
    }

    /// The shortest code that holds the distance from a base. The longest holds any of two canonical
    /// addresses.
    fn code(&self, base: u8, address: u64) -> Coded {
        let distance = address.wrapping_sub(self.bases[usize::from(base)]);
        let coded = |code: usize| {
            let how = base | (code << CODE_SHIFT) as u8;
            let biased = distance.wrapping_add(HOW[usize::from(how)].bias);
            let coded = Coded {
                tag: how | ((biased as u8) << TAG_BITS),
                extra: biased >> TAG_BITS,
                length: EXTRA[code],
            };
            (biased <= HOW[usize::from(how)].mask, coded)
        };
        let longest = EXTRA.len() - 1;
        (0..longest)
            .map(coded)
            .find_map(|(holds, coded)| holds.then_some(coded))
            .unwrap_or_else(|| coded(longest).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tags and extra bytes of these references.
    fn encoded(references: &[(Access, u64)]) -> (Vec<u8>, Vec<u8>) {
        let (mut encoder, mut tags, mut extras) = (Encoder::default(), Vec::new(), Vec::new());
        for (access, address) in references {
            let reference = Reference::truncating(*access, Va::new(*address));
            encoder.encode(reference, &mut tags, &mut extras);
        }
        (tags, extras)
    }

    #[test]
    fn the_bytes_are_those_of_the_description() {
        use Access::{Fetch, Read, Write};
        for (access, addresses, tags, extras) in [
            // Forward by 15 at most, or by 8 up or down.
            (Fetch, vec![15], vec![0xf2], vec![]),
            (Fetch, vec![1, 4], vec![0x12, 0x32], vec![]),
            (Read, vec![8], vec![0xf0], vec![]),
            (Write, vec![u64::MAX - 7], vec![0x01], vec![]),
            // 9 + 2048 = 0x809.
            (Read, vec![9], vec![0x94], vec![0x80]),
            // 0x1000 + 2^27 = 0x8001000.
            (Write, vec![0x1000], vec![0x09], vec![0x00, 0x01, 0x80]),
            // 2^32 + 2^59.
            (Fetch, vec![1 << 32], vec![0x0e], vec![0, 0, 0, 0x10, 0, 0, 0x80]),
        ] {
            let references: Vec<_> = addresses.into_iter().map(|address| (access, address)).collect();
            assert_eq!(encoded(&references), (tags, extras), "{references:x?}");
        }
    }

    #[test]
    fn loads_of_two_places_in_turns_stay_short() {
        let turns: Vec<_> = (0..100)
            .flat_map(|n| [0x5555_0000_0000 + n * 8, 0x7fff_ffff_0000 - n * 8])
            .map(|address| (Access::Read, address))
            .collect();
        let (tags, extras) = encoded(&turns);
        assert!(tags.len() + extras.len() < 2 * turns.len());
    }
}
