//! Pages by Zipf's law.
//!
//! Up to [`TABLED`] pages a table answers in constant time (A. Walker, "An efficient method for
//! generating discrete random variables with general distributions", 1977; built as M. Vose, "A linear
//! algorithm for generating random numbers with a given distribution", 1991): one draw picks a slot, and
//! what the draw leaves over decides between the slot and its partner. Chances are exact to 2^-32 of a
//! slot. Beyond that, the rejection-inversion of `rand_distr` needs no memory, and takes the time of a
//! slot that the host's caches do not hold.
//!
//! Powers come from `libm`, in both cases, so that all hosts compute the same.

use std::sync::Arc;

use rand_distr::Distribution;
use x86::{PAGE_SHIFT, PAGE_SIZE, Reference};

use super::pattern::{Mix, Words};
use super::random::Draws;

/// Most pages in a table: 16 GiB of them, in 32 MiB.
const TABLED: u64 = 1 << 22;

/// How often which page is met.
#[derive(Debug)]
pub(super) enum Popularity {
    Table(Vec<Slot>),
    Formula {
        ranks: rand_distr::Zipf<f64>,
        pages: u64,
        spread: u64,
    },
}

/// A page, and the page that takes over what the first does not fill of an even share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// Share of the slot that is its own page's, in 2^-32.
    own: u32,
    other: u32,
}

impl Popularity {
    pub(super) fn new(exponent: f64, pages: u64, mut draws: Draws) -> Self {
        if pages > TABLED
            && let Ok(ranks) = rand_distr::Zipf::new(pages as f64, exponent)
        {
            return Popularity::Formula {
                ranks,
                pages,
                spread: spread(pages),
            };
        }
        let mut weights: Vec<f64> = (1..=pages)
            .map(|rank| libm::pow(rank as f64, -exponent))
            .collect();
        shuffle(&mut weights, &mut draws);
        Popularity::Table(alias_table(&weights))
    }
}

/// Scatters popularity over the region, every order having the same chance (Fisher and Yates).
fn shuffle(weights: &mut [f64], draws: &mut Draws) {
    for last in (1..weights.len()).rev() {
        let (other, _) = draws.below(last as u64 + 1);
        weights.swap(last, other as usize);
    }
}

/// A factor that scatters ranks when there are too many to shuffle: without a common divisor with the
/// number of pages, so that rank times factor modulo pages meets each page once, and near the golden
/// section, so that neighbours in rank lie far apart.
fn spread(pages: u64) -> u64 {
    const GOLDEN: u128 = 0x9e37_79b9_7f4a_7c15;
    let mut factor = ((u128::from(pages) * GOLDEN) >> u64::BITS) as u64;
    while gcd(factor, pages) != 1 {
        factor += 1;
    }
    factor
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// One slot a page; those with less than an even share are topped up by those with more.
fn alias_table(weights: &[f64]) -> Vec<Slot> {
    let even = weights.iter().sum::<f64>() / weights.len() as f64;
    let mut shares: Vec<f64> = weights.iter().map(|weight| weight / even).collect();
    let whole = |page| Slot {
        own: u32::MAX,
        other: page,
    };
    let mut table: Vec<Slot> = (0..weights.len() as u32).map(whole).collect();
    let (mut small, mut large): (Vec<u32>, Vec<u32>) =
        (0..weights.len() as u32).partition(|page| shares[*page as usize] < 1.0);
    while let (Some(poor), Some(rich)) = (small.pop(), large.last().copied()) {
        let own = shares[poor as usize];
        table[poor as usize] = Slot {
            own: (own * (1u64 << u32::BITS) as f64) as u32,
            other: rich,
        };
        shares[rich as usize] -= 1.0 - own;
        if shares[rich as usize] < 1.0 {
            large.pop();
            small.push(rich);
        }
    }
    table
}

/// Any word of a page, pages by their popularity.
#[derive(Debug)]
pub(super) struct Zipf {
    words: Words,
    draws: Draws,
    pages: Arc<Popularity>,
}

impl Zipf {
    pub(super) fn new(words: Words, draws: Draws, pages: Arc<Popularity>) -> Self {
        Zipf { words, draws, pages }
    }

    pub(super) fn fill(&mut self, mix: impl Mix, count: u64, out: &mut Vec<Reference>) {
        let words = self.words;
        let words_in_page = words.within(PAGE_SIZE);
        let mut draws = self.draws.clone();
        let word_of = |page: u64, draws: &mut Draws| {
            let (word, rest) = draws.below(words_in_page);
            words.word(words.within(page << PAGE_SHIFT) + word, mix.access(|| rest))
        };
        match &*self.pages {
            Popularity::Table(table) => out.extend((0..count).map(|_| {
                let page = pick(table, &mut draws);
                word_of(page, &mut draws)
            })),
            Popularity::Formula { ranks, pages, spread } => out.extend((0..count).map(|_| {
                let rank = ranks.sample(&mut draws) as u64 - 1;
                let page = u128::from(rank) * u128::from(*spread) % u128::from(*pages);
                word_of(page as u64, &mut draws)
            })),
        }
        self.draws = draws;
    }
}

#[inline]
fn pick(table: &[Slot], draws: &mut Draws) -> u64 {
    let (slot, rest) = draws.below(table.len() as u64);
    let Slot { own, other } = table[slot as usize];
    // An index, since a branch would be mispredicted every few draws.
    [slot, u64::from(other)][usize::from((rest.0 >> u32::BITS) as u32 > own)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chance of each page according to the table.
    fn chances(table: &[Slot]) -> Vec<f64> {
        let mut chances = vec![0.0; table.len()];
        for (page, slot) in table.iter().enumerate() {
            let own = (f64::from(slot.own) + 1.0) / (1u64 << u32::BITS) as f64;
            chances[page] += own / table.len() as f64;
            chances[slot.other as usize] += (1.0 - own) / table.len() as f64;
        }
        chances
    }

    #[test]
    fn the_table_gives_each_page_the_chance_of_its_weight() {
        let weights: Vec<f64> = (1..=1000).map(|rank| libm::pow(f64::from(rank), -0.99)).collect();
        let total: f64 = weights.iter().sum();
        for (chance, weight) in chances(&alias_table(&weights)).iter().zip(&weights) {
            assert!((chance - weight / total).abs() < 1e-9, "{chance} {weight}");
        }
    }

    #[test]
    fn ranks_beyond_a_table_meet_every_page_once() {
        for pages in [1, 2, 12, 1000, 4099] {
            let mut met: Vec<u64> = (0..pages).map(|rank| rank * spread(pages) % pages).collect();
            met.sort_unstable();
            assert!(met.into_iter().eq(0..pages));
        }
    }
}
