//! The shape of the caches between the page walker and memory, as machine files give it.

use serde::{Deserialize, Serialize};

use super::LINE_BITS;
use super::array::MOST_WAYS;

/// Bytes in a cache line (every x86-64 machine modelled).
pub const LINE_BYTES: u64 = 64;

// A tag has 32 bits: what the set does not say of a line number must fit, and one value more.
const FEWEST_SETS: u64 = 1 << (LINE_BITS + 1 - u32::BITS);

// 4 GiB, several times the largest last level there is; it costs its host a twelfth of that.
const MOST_KIB: u32 = 1 << 22;

/// One cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheArray {
    /// Capacity in KiB.
    pub kib: u32,
    /// Ways; sets are `kib * 1024 / 64 / ways`, any whole number. Replacement is true LRU.
    pub ways: u32,
    /// Cores that share one such cache.
    #[serde(default = "one")]
    pub cores: u32,
    /// Rows of the hardware reference, or other origin.
    pub source: String,
    /// How far to trust it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

const fn one() -> u32 {
    1
}

impl CacheArray {
    /// A cache of one core without a source, for tests.
    #[must_use]
    pub fn new(kib: u32, ways: u32) -> Self {
        CacheArray {
            kib,
            ways,
            cores: 1,
            source: String::new(),
            note: String::new(),
        }
    }

    /// Lines it holds.
    #[must_use]
    pub const fn lines(&self) -> u64 {
        (self.kib as u64 * 1024) / LINE_BYTES
    }

    /// Says what makes the cache unusable, if anything does.
    ///
    /// # Errors
    /// If the lines are not a positive multiple of the ways, the ways too many or the sets too few.
    pub fn check(&self) -> Result<(), String> {
        let (lines, ways) = (self.lines(), u64::from(self.ways));
        if ways == 0 || lines == 0 || !lines.is_multiple_of(ways) {
            return Err(format!(
                "{lines} lines in {ways} ways: lines must be a positive multiple of ways"
            ));
        }
        if self.ways > MOST_WAYS {
            return Err(format!("{ways} ways: at most {MOST_WAYS} are possible"));
        }
        if lines / ways < FEWEST_SETS {
            return Err(format!(
                "{} sets: at least {FEWEST_SETS} are needed",
                lines / ways
            ));
        }
        if self.kib > MOST_KIB {
            return Err(format!("{} KiB: at most {MOST_KIB} are possible", self.kib));
        }
        if self.cores == 0 {
            return Err("shared by no core: write 1 for a private cache".to_owned());
        }
        Ok(())
    }
}

/// What the last-level cache holds in relation to the caches above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inclusion {
    /// Filled with every line from memory; evictions on either side leave the other alone.
    #[default]
    NonInclusive,
    /// Filled with every line from memory; a line evicted from it leaves the caches above as well.
    Inclusive,
    /// Filled with what the second level evicts; a line that hits moves up and leaves it.
    Victim,
}

/// The last-level cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastLevel {
    /// The cache.
    pub cache: CacheArray,
    /// What it holds in relation to the caches above it.
    #[serde(default)]
    pub inclusion: Inclusion,
}

/// The caches of a machine: a first and a second level, and in most a last level shared by more
/// cores. Latencies are primitives of the machine's price list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheGeometry {
    /// First-level data cache.
    pub l1: CacheArray,
    /// Second level.
    pub l2: CacheArray,
    /// Third level, if the machine has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llc: Option<LastLevel>,
}

impl CacheGeometry {
    /// Says what makes the geometry unusable, if anything does.
    ///
    /// # Errors
    /// Which cache is at fault and why.
    pub fn check(&self) -> Result<(), String> {
        let llc = self.llc.as_ref().map(|llc| &llc.cache);
        for (name, cache) in [("l1", Some(&self.l1)), ("l2", Some(&self.l2)), ("llc", llc)] {
            if let Some(Err(why)) = cache.map(CacheArray::check) {
                return Err(format!("caches.{name}: {why}"));
            }
        }
        Ok(())
    }
}
