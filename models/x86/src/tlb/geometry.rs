//! The shape of a CPU's TLBs, as machine files give it.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::level::MOST_SHARING;
use crate::page_size::{PageSize, PageSizes};

/// Which slot of a full set gives way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Replacement {
    /// The slot used longest ago.
    #[default]
    Lru,
    /// The slot a binary tree of "look the other way" bits points at; ways are a power of two.
    TreePlru,
    /// Any slot, drawn from a 16-bit linear-feedback shift register.
    Random,
}

/// How a page number chooses its set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexFunction {
    /// The page number modulo the number of sets.
    #[default]
    Modulo,
    /// The low bits of the page number xor the same number of bits above them; sets are a power of
    /// two. Skylake's second level works like this (Gras et al., "Translation Leak-aside Buffer",
    /// USENIX Security 2018, section 4.1).
    XorFold,
}

/// Number of slots and ways. Slots are a positive multiple of ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawShape", into = "RawShape")]
pub struct Shape {
    entries: u32,
    ways: u32,
    replacement: Replacement,
    index: IndexFunction,
}

/// Why an array of that shape cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidGeometry {
    /// Entries are not a positive multiple of ways.
    Entries {
        /// Entries asked for.
        entries: u32,
        /// Ways asked for.
        ways: u32,
    },
    /// More slots than a slot number can name.
    TooLarge {
        /// Entries asked for.
        entries: u32,
    },
    /// A tree needs a power of two of ways.
    TreeWays {
        /// Ways asked for.
        ways: u32,
    },
    /// Folding needs a power of two of sets.
    FoldedSets {
        /// Sets that result.
        sets: u32,
    },
}

impl fmt::Display for InvalidGeometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidGeometry::Entries { entries, ways } => write!(
                f,
                "{entries} entries and {ways} ways: entries must be a positive multiple of ways"
            ),
            InvalidGeometry::TooLarge { entries } => {
                write!(
                    f,
                    "{entries} entries: at most {} are possible",
                    Shape::MOST_ENTRIES
                )
            }
            InvalidGeometry::TreeWays { ways } => write!(
                f,
                "tree-plru over {ways} ways: a tree needs 1, 2, 4 ... {} ways; use lru or random",
                Shape::MOST_TREE_WAYS
            ),
            InvalidGeometry::FoldedSets { sets } => write!(
                f,
                "xor-fold over {sets} sets: folding needs 2, 4, 8 ... sets; use modulo"
            ),
        }
    }
}

impl Error for InvalidGeometry {}

impl Shape {
    /// Most slots of one array: a slot number has 16 bits, one value of which means none.
    pub const MOST_ENTRIES: u32 = 1 << (u16::BITS - 1);

    /// Most ways of a tree: its inner nodes are bits of one word.
    pub const MOST_TREE_WAYS: u32 = u64::BITS;

    /// An array of `entries` slots in sets of `ways`, true LRU, indexed modulo.
    ///
    /// # Errors
    /// If `entries` is not a positive multiple of `ways`, or too many.
    pub const fn new(entries: u32, ways: u32) -> Result<Self, InvalidGeometry> {
        if entries == 0 || ways == 0 || !entries.is_multiple_of(ways) {
            return Err(InvalidGeometry::Entries { entries, ways });
        }
        if entries > Self::MOST_ENTRIES {
            return Err(InvalidGeometry::TooLarge { entries });
        }
        Ok(Shape {
            entries,
            ways,
            replacement: Replacement::Lru,
            index: IndexFunction::Modulo,
        })
    }

    /// The same with another replacement.
    ///
    /// # Errors
    /// If a tree is asked for and the ways are no power of two, or more than 64.
    pub const fn with_replacement(self, replacement: Replacement) -> Result<Self, InvalidGeometry> {
        let tree = self.ways.is_power_of_two() && self.ways <= Self::MOST_TREE_WAYS;
        if matches!(replacement, Replacement::TreePlru) && !tree {
            return Err(InvalidGeometry::TreeWays { ways: self.ways });
        }
        Ok(Shape { replacement, ..self })
    }

    /// The same with another index function.
    ///
    /// # Errors
    /// If folding is asked for and the sets are no power of two.
    pub const fn with_index(self, index: IndexFunction) -> Result<Self, InvalidGeometry> {
        if matches!(index, IndexFunction::XorFold) && !self.sets().is_power_of_two() {
            return Err(InvalidGeometry::FoldedSets { sets: self.sets() });
        }
        Ok(Shape { index, ..self })
    }

    /// Says whether banks of these shapes fit one array.
    ///
    /// # Errors
    /// If they have more slots together than slot numbers there are.
    pub fn check_together(shapes: impl Iterator<Item = Shape>) -> Result<(), String> {
        let most = Self::MOST_ENTRIES;
        match shapes.map(|shape| u64::from(shape.entries())).sum::<u64>() {
            slots if slots > u64::from(most) => Err(format!(
                "{slots} entries in all banks: at most {most} are possible"
            )),
            _ => Ok(()),
        }
    }

    /// Slots.
    #[must_use]
    pub const fn entries(self) -> u32 {
        self.entries
    }

    /// Slots in a set; equal to the entries if fully associative.
    #[must_use]
    pub const fn ways(self) -> u32 {
        self.ways
    }

    /// Sets.
    #[must_use]
    pub const fn sets(self) -> u32 {
        self.entries / self.ways
    }

    /// Which slot of a full set gives way.
    #[must_use]
    pub const fn replacement(self) -> Replacement {
        self.replacement
    }

    /// How a page number chooses its set.
    #[must_use]
    pub const fn index(self) -> IndexFunction {
        self.index
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawShape {
    entries: u32,
    ways: u32,
    #[serde(default)]
    replacement: Replacement,
    #[serde(default)]
    index: IndexFunction,
}

impl TryFrom<RawShape> for Shape {
    type Error = InvalidGeometry;
    fn try_from(raw: RawShape) -> Result<Self, InvalidGeometry> {
        Shape::new(raw.entries, raw.ways)?
            .with_replacement(raw.replacement)?
            .with_index(raw.index)
    }
}

impl From<Shape> for RawShape {
    fn from(shape: Shape) -> RawShape {
        RawShape {
            entries: shape.entries,
            ways: shape.ways,
            replacement: shape.replacement,
            index: shape.index,
        }
    }
}

/// One array of translations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlbBank {
    /// Slots, ways, replacement, index function.
    pub shape: Shape,
    /// Page sizes its slots can hold.
    pub holds: PageSizes,
    /// Rows of the hardware reference, or other origin.
    pub source: String,
    /// How far to trust it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl TlbBank {
    /// A bank without a source, for tests.
    #[must_use]
    pub fn new(shape: Shape, holds: PageSizes) -> Self {
        TlbBank {
            shape,
            holds,
            source: String::new(),
            note: String::new(),
        }
    }
}

/// Whose misses a bank of the second level serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Serves {
    /// Data and instructions.
    #[default]
    Both,
    /// Loads and stores.
    Data,
    /// Instruction fetches.
    Fetch,
}

impl Serves {
    /// Whether the bank serves data accesses.
    #[must_use]
    pub const fn data(self) -> bool {
        matches!(self, Serves::Both | Serves::Data)
    }

    /// Whether the bank serves instruction fetches.
    #[must_use]
    pub const fn fetch(self) -> bool {
        matches!(self, Serves::Both | Serves::Fetch)
    }
}

/// One array of the second level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondLevelBank {
    /// Whose misses it serves.
    #[serde(default)]
    pub serves: Serves,
    /// The array.
    pub bank: TlbBank,
}

/// What brings a translation into the second level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecondLevelFill {
    /// A walk fills both levels; a hit in the second is copied up. Neither level includes the other.
    #[default]
    OnWalk,
    /// A walk fills the first level; what the first level evicts goes into the second, and a hit in
    /// the second moves up. A walk made although the second has the page, for missing rights or D,
    /// leaves it there until the first evicts its own.
    OnEviction,
}

/// The TLBs of a logical CPU. Banks of one list that hold the same page size share its pages by the
/// lowest bits of the page number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlbGeometry {
    /// First level for loads, and for stores if they have none of their own.
    pub load: Vec<TlbBank>,
    /// First level for stores; empty if they use that of the loads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub store: Vec<TlbBank>,
    /// First level for instruction fetches.
    pub fetch: Vec<TlbBank>,
    /// Second level, if the machine has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub l2: Vec<SecondLevelBank>,
    /// What brings a translation into the second level.
    #[serde(default)]
    pub l2_fill: SecondLevelFill,
}

impl TlbGeometry {
    /// Says what makes the geometry unusable, if anything does: every first level needs a home for
    /// 4 KiB pages.
    ///
    /// # Errors
    /// What is missing and where.
    pub fn check(&self) -> Result<(), String> {
        let stores = if self.store.is_empty() {
            &self.load
        } else {
            &self.store
        };
        for (name, banks) in [("load", &self.load), ("store", stores), ("fetch", &self.fetch)] {
            if !banks.iter().any(|bank| bank.holds.contains(PageSize::Size4K)) {
                return Err(format!("tlb.{name}: no bank holds 4k pages"));
            }
            check_sharing(name, banks.iter())?;
        }
        let serving = |serves: fn(Serves) -> bool| self.l2.iter().filter(move |b| serves(b.serves));
        check_slots("l2", self.l2.iter().map(|b| b.bank.shape))?;
        check_sharing("l2", serving(Serves::data).map(|b| &b.bank))?;
        check_sharing("l2", serving(Serves::fetch).map(|b| &b.bank))
    }
}

fn check_sharing<'a>(name: &str, banks: impl Iterator<Item = &'a TlbBank> + Clone) -> Result<(), String> {
    check_slots(name, banks.clone().map(|bank| bank.shape))?;
    for size in PageSize::ALL {
        let sharing = banks.clone().filter(|bank| bank.holds.contains(size)).count();
        if sharing > MOST_SHARING {
            return Err(format!(
                "tlb.{name}: {sharing} banks hold {size} pages: at most {MOST_SHARING} can share a size"
            ));
        }
    }
    Ok(())
}

fn check_slots(name: &str, shapes: impl Iterator<Item = Shape>) -> Result<(), String> {
    Shape::check_together(shapes).map_err(|why| format!("tlb.{name}: {why}"))
}
