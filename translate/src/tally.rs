//! What an MMU counted, turned into counts of references.
//!
//! A page's first touch looks the TLBs up twice: once before the walk that finds the page missing, once
//! before the walk that finds it mapped. Both look-ups miss and both are counted, but it is one
//! reference that missed, so [`Tally::of`] takes the faults off the misses. After that every reference
//! with a canonical address is in exactly one of first-level hits, second-level hits and misses.

use std::ops::{Add, Sub};

use x86::cache::Served;
use x86::mmu::Mmu;
use x86::{Access, ByAccess};

use crate::engine::Prices;

/// A number for each kind of access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerAccess([u64; Access::ALL.len()]);

impl PerAccess {
    fn from_stats(counts: ByAccess) -> Self {
        PerAccess(Access::ALL.map(|access| counts.of(access)))
    }

    /// Of one kind.
    #[must_use]
    pub const fn of(self, access: Access) -> u64 {
        self.0[access as usize]
    }

    /// Of loads and stores, or of fetches.
    #[must_use]
    pub const fn of_client(self, client: Client) -> u64 {
        match client {
            Client::Data => self.of(Access::Read) + self.of(Access::Write),
            Client::Instructions => self.of(Access::Fetch),
        }
    }

    /// Of all kinds.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.of_client(Client::Data) + self.of_client(Client::Instructions)
    }
}

impl Add for PerAccess {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        PerAccess(std::array::from_fn(|at| self.0[at] + other.0[at]))
    }
}

impl Sub for PerAccess {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        PerAccess(std::array::from_fn(|at| self.0[at] - other.0[at]))
    }
}

/// For whom a walk is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// For loads and stores.
    Data,
    /// For instruction fetches.
    Instructions,
}

impl Client {
    /// Both.
    pub const ALL: [Client; 2] = [Client::Data, Client::Instructions];
}

/// Page-table references by who served them.
type ByServer = [u64; Served::ALL.len()];

/// Counts of one CPU, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// References that hit the first level.
    pub first_hits: PerAccess,
    /// References that hit the second level only.
    pub second_hits: PerAccess,
    /// References that missed all levels.
    pub misses: PerAccess,
    /// Walks that found a page.
    pub walks: PerAccess,
    /// Walks that found a page missing.
    pub faults: PerAccess,
    /// Walks that set the dirty bit, all of them for stores.
    pub dirty_assists: u64,
    served: [ByServer; Client::ALL.len()],
}

impl Tally {
    /// What an MMU counted since it was made.
    #[must_use]
    pub fn of(mmu: &Mmu) -> Self {
        let (tlb, walks) = (mmu.tlb().stats(), mmu.stats());
        let faults = PerAccess::from_stats(walks.faults);
        let served = [walks.data, walks.fetch].map(|references| Served::ALL.map(|by| references.by(by)));
        Tally {
            first_hits: PerAccess::from_stats(tlb.l1_hits),
            second_hits: PerAccess::from_stats(tlb.l2_hits),
            misses: PerAccess::from_stats(tlb.misses) - faults,
            walks: PerAccess::from_stats(walks.walks),
            faults,
            dirty_assists: walks.dirty_assists,
            served,
        }
    }

    /// References the TLBs were asked for.
    #[must_use]
    pub fn references(&self) -> PerAccess {
        self.first_hits + self.second_hits + self.misses
    }

    /// Page-table references served there.
    #[must_use]
    pub const fn served(&self, client: Client, by: Served) -> u64 {
        self.served[client as usize][by as usize]
    }

    /// Walks that set the dirty bit.
    #[must_use]
    pub const fn assists(&self, client: Client) -> u64 {
        match client {
            Client::Data => self.dirty_assists,
            Client::Instructions => 0,
        }
    }

    /// Cycles of second-level hits.
    #[must_use]
    pub fn hit_cycles(&self, client: Client, prices: &Prices) -> u64 {
        self.second_hits.of_client(client) * prices.second_level_hit.get()
    }

    /// Cycles of the fixed parts of all walks.
    #[must_use]
    pub fn base_cycles(&self, client: Client, prices: &Prices) -> u64 {
        (self.walks + self.faults).of_client(client) * prices.walk_base.get()
    }

    /// Cycles of the page-table references served there.
    #[must_use]
    pub fn served_cycles(&self, client: Client, by: Served, prices: &Prices) -> u64 {
        self.served(client, by) * prices.served[by as usize]
    }

    /// Cycles of setting dirty bits.
    #[must_use]
    pub fn assist_cycles(&self, client: Client, prices: &Prices) -> u64 {
        self.assists(client) * prices.dirty_assist.get()
    }

    /// Cycles of all walks.
    #[must_use]
    pub fn walk_cycles(&self, prices: &Prices) -> u64 {
        let of = |client| {
            let served = Served::ALL.map(|by| self.served_cycles(client, by, prices));
            self.base_cycles(client, prices) + served.iter().sum::<u64>() + self.assist_cycles(client, prices)
        };
        Client::ALL.map(of).iter().sum()
    }

    /// Cycles of translation.
    #[must_use]
    pub fn total_cycles(&self, prices: &Prices) -> u64 {
        let hits = Client::ALL.map(|client| self.hit_cycles(client, prices));
        hits.iter().sum::<u64>() + self.walk_cycles(prices)
    }

    // The same of two tallies, number by number.
    fn zip(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let per = |a: PerAccess, b: PerAccess| PerAccess(std::array::from_fn(|at| with(a.0[at], b.0[at])));
        let by = |a: ByServer, b: ByServer| std::array::from_fn(|at| with(a[at], b[at]));
        Tally {
            first_hits: per(self.first_hits, other.first_hits),
            second_hits: per(self.second_hits, other.second_hits),
            misses: per(self.misses, other.misses),
            walks: per(self.walks, other.walks),
            faults: per(self.faults, other.faults),
            dirty_assists: with(self.dirty_assists, other.dirty_assists),
            served: std::array::from_fn(|at| by(self.served[at], other.served[at])),
        }
    }
}

impl Add for Tally {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl Sub for Tally {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}
