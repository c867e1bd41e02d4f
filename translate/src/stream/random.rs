//! Random numbers for streams.
//!
//! A reference may cost no more than a few cycles to make, and ChaCha8 takes more than that for the 64
//! bits it needs. So ChaCha8 chooses where each thread begins, and from there on numbers come from
//! xoshiro256++ (D. Blackman, S. Vigna, "Scrambled linear pseudorandom number generators", ACM TOMS 47,
//! 2021): period 2^256 - 1, and every number as frequent as every other.

use std::convert::Infallible;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng, TryRng};

/// Rotations and shift of xoshiro256++ (Blackman and Vigna, section 5.3).
const SCRAMBLE: u32 = 23;
const SHIFT: u32 = 17;
const ROTATE: u32 = 45;

/// An unending row of random numbers.
#[derive(Clone, Debug)]
pub(super) struct Draws {
    state: [u64; 4],
}

impl Draws {
    /// The numbers of one consumer under a seed.
    pub(super) fn new(seed: u64, consumer: u64) -> Self {
        let mut chacha = ChaCha8Rng::seed_from_u64(seed);
        chacha.set_stream(consumer);
        // The one forbidden state, all zeroes, has a chance of 2^-256.
        Draws {
            state: std::array::from_fn(|_| chacha.next_u64()),
        }
    }

    /// The next number, uniform over 64 bits.
    #[inline]
    pub(super) fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let number = a.wrapping_add(d).rotate_left(SCRAMBLE).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << SHIFT), d.rotate_left(ROTATE)];
        number
    }

    /// A number below `bound` and what the draw leaves over.
    ///
    /// Multiply and shift (D. Lemire, "Fast random integer generation in an interval", 2019), without
    /// the rejection: the number is the integer part of `bound` times a fraction of 64 bits, the rest
    /// the fraction of that. Chances of two numbers differ by `bound / 2^64` of themselves at most,
    /// which is below 2^-32 up to 2^32 words, 32 GiB, and below 2^-20 for all of the address space;
    /// the rest is uniform as exactly, whatever the number.
    #[inline]
    pub(super) fn below(&mut self, bound: u64) -> (u64, Rest) {
        let wide = u128::from(self.next()) * u128::from(bound);
        ((wide >> u64::BITS) as u64, Rest(wide as u64))
    }
}

/// What is left of a draw: a fraction of 64 bits that says nothing about the number drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest(pub(super) u64);

/// `Draws` as a generator of the rand crates, for their distributions.
impl TryRng for Draws {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok((self.next() >> u32::BITS) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in bytes.chunks_mut(size_of::<u64>()) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_reference_implementation() {
        // What the authors' xoshiro256plusplus.c gives from this state.
        let mut draws = Draws { state: [1, 2, 3, 4] };
        let first: Vec<u64> = (0..5).map(|_| draws.next()).collect();
        assert_eq!(
            first,
            [
                41_943_041,
                58_720_359,
                3_588_806_011_781_223,
                3_591_011_842_654_386,
                9_228_616_714_210_784_205,
            ]
        );
    }

    #[test]
    fn a_draw_stays_below_its_bound() {
        let mut draws = Draws::new(1, 0);
        for bound in [1, 2, 3, 1000, u64::MAX] {
            assert!((0..1000).all(|_| draws.below(bound).0 < bound));
        }
    }

    #[test]
    fn consumers_draw_different_numbers() {
        assert_ne!(Draws::new(1, 0).next(), Draws::new(1, 1).next());
    }
}
