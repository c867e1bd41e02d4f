//! Synthetic streams: references that a formula makes, as many as asked for.
//!
//! A stream touches words of a region. All of it follows from the description and a seed: the same two
//! give the same references on every host.

mod parse;
mod pattern;
mod random;
mod size;
mod zipf;

use std::sync::Arc;

use x86::addr::LOWER_HALF_END;
use x86::{PAGE_SIZE, Va};

pub use parse::{Form, OPTION_FORMS, PATTERN_FORMS};
pub use size::Bytes;

use crate::source::{BATCH, Batch, Source, SourceError, ThreadId};
use pattern::{Chase, Cycle, Maker, Phases, Strided, Uniform, Words};
use random::Draws;
use zipf::{Popularity, Zipf};

/// Where a region begins unless told: far from where Linux puts programs, heaps and stacks, so that a
/// stream beside a recording does not collide with it. Inferred, any free place would do.
pub const DEFAULT_START: Va = Va::new(0x1000_0000_0000);

/// Size of a word unless told: the widest register of general use (x86-64).
pub const DEFAULT_GRAIN: Bytes = Bytes(8);

/// Window of `phases` unless told: 1024 pages, more than a first-level TLB holds and less than most
/// second levels do. Inferred.
pub const DEFAULT_WINDOW: Bytes = Bytes(4 << 20);

/// Accesses in a phase unless told: each page of the default window is then met about a hundred
/// times. Inferred.
pub const DEFAULT_PHASE: u64 = 100_000;

/// Most threads of a stream: what Linux lets one process have is of this order (`threads-max`).
const MOST_THREADS: u32 = 1 << 16;

/// Most pages of a pointer chase: the cycle takes 4 bytes a page, so 1 GiB for a region of 1 TiB.
const MOST_CHASED: u64 = 1 << 28;

/// Steepest exponent of `zipf`: at 20 the second page has one access in a million.
const STEEPEST: f64 = 20.0;

/// Which words are touched, in which order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// One word after the other, from the start again at the end.
    Sequential,
    /// Words so far apart, modulo the footprint.
    Stride(Bytes),
    /// Any word, all with the same chance.
    Uniform,
    /// Any word of a page, and pages by Zipf's law: the k-th in popularity with a chance in proportion
    /// to 1/k^exponent. Popular pages are scattered over the region.
    Zipf(f64),
    /// The first word of each page in one random cycle through all pages: every access depends on the
    /// one before.
    Chase,
    /// Any word of a window, which moves to a random place after so many accesses.
    Phases {
        /// Size of the window.
        window: Bytes,
        /// Accesses between moves.
        every: u64,
    },
}

/// Share of stores among the accesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteShare(u16);

impl WriteShare {
    /// Loads only.
    pub const NONE: WriteShare = WriteShare(0);
    /// Stores only.
    pub const ALL: WriteShare = WriteShare(WriteShare::WHOLE);

    const WHOLE: u16 = 1000;

    /// The share in thousandths, up to a thousand.
    #[must_use]
    pub const fn per_thousand(thousandths: u16) -> Option<Self> {
        if thousandths <= WriteShare::WHOLE {
            Some(WriteShare(thousandths))
        } else {
            None
        }
    }

    /// The share in thousandths.
    #[must_use]
    pub const fn thousandths(self) -> u16 {
        self.0
    }

    /// A random number of 63 bits is below this with the chance of a store.
    #[inline]
    fn threshold(self) -> u64 {
        ((u128::from(self.0) << 63) / u128::from(Self::WHOLE)) as u64
    }
}

/// What the threads of a stream touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Regions {
    /// All the same region.
    #[default]
    Shared,
    /// Each its own, one after the other.
    Private,
}

/// Description of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamSpec {
    /// Which words are touched.
    pub pattern: Pattern,
    /// Where the region, or the first of them, begins.
    pub start: Va,
    /// Size of a region.
    pub footprint: Bytes,
    /// Size of a word. Words are aligned, so that no access crosses a page.
    pub grain: Bytes,
    /// Stores among the accesses.
    pub writes: WriteShare,
    /// Threads, which take turns batch by batch.
    pub threads: u32,
    /// What the threads touch.
    pub regions: Regions,
}

/// Why there is no such stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stream `{spec}`: {problem}; {remedy}")]
pub struct SpecError {
    /// The description.
    pub spec: String,
    /// What is wrong with it.
    pub problem: String,
    /// A way out.
    pub remedy: String,
}

impl StreamSpec {
    /// A pattern over so many bytes, everything else by default: loads of one thread.
    #[must_use]
    pub const fn new(pattern: Pattern, footprint: Bytes) -> Self {
        StreamSpec {
            pattern,
            start: DEFAULT_START,
            footprint,
            grain: DEFAULT_GRAIN,
            writes: WriteShare::NONE,
            threads: 1,
            regions: Regions::Shared,
        }
    }

    /// Pages of a region.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.footprint.0 / PAGE_SIZE
    }

    /// The stream of `count` references, those of all threads taken together.
    ///
    /// # Errors
    /// If the parts of the description do not fit together.
    pub fn open(&self, seed: u64, count: u64) -> Result<Stream, SpecError> {
        self.check()?;
        // What the pattern prepares is the same for all threads: they find the same pages popular, and
        // follow the same pointers from different places.
        let layout = Layout::new(self, Draws::new(seed, LAYOUT));
        let threads = (0..u64::from(self.threads)).map(|thread| self.thread(thread, seed, &layout));
        Ok(Stream {
            threads: threads.collect(),
            writes: self.writes,
            turn: 0,
            left: count,
        })
    }

    fn thread(&self, thread: u64, seed: u64, layout: &Layout) -> Maker {
        let mut draws = Draws::new(seed, LAYOUT + 1 + thread);
        let offset = match self.regions {
            Regions::Shared => 0,
            Regions::Private => thread * self.footprint.0,
        };
        let words = Words::new(self.start.get() + offset, self.grain.0);
        let size = self.footprint.0;
        match (self.pattern, layout) {
            (_, Layout::Popularity(pages)) => Maker::Zipf(Zipf::new(words, draws, Arc::clone(pages))),
            (_, Layout::Cycle(cycle)) => {
                let (first, _) = draws.below(self.pages());
                Maker::Chase(Chase::new(words, draws, Arc::clone(cycle), first))
            }
            (Pattern::Stride(step), _) => Maker::Strided(Strided::new(words, draws, step.0, size)),
            (Pattern::Uniform, _) => Maker::Uniform(Uniform::new(words, draws, size)),
            (Pattern::Phases { window, every }, _) => {
                Maker::Phases(Phases::new(words, draws, window.0, every, size))
            }
            _ => Maker::Strided(Strided::new(words, draws, self.grain.0, size)),
        }
    }

    fn check(&self) -> Result<(), SpecError> {
        self.check_region()?;
        let refuse = |problem: String, remedy| Err(self.refuse(problem, remedy));
        match self.pattern {
            Pattern::Stride(step)
                if step.0 == 0 || step > self.footprint || !step.0.is_multiple_of(self.grain.0) =>
            {
                refuse(
                    format!("a stride of {step}"),
                    "a stride is a multiple of the grain and no larger than the region",
                )
            }
            Pattern::Zipf(exponent) if !(0.0..=STEEPEST).contains(&exponent) => refuse(
                format!("an exponent of {exponent}"),
                "an exponent lies between 0, which is uniform, and 20",
            ),
            Pattern::Chase if self.pages() > MOST_CHASED => refuse(
                format!("a pointer chase through {}", self.footprint),
                "a pointer chase covers up to 1t, since it keeps 4 bytes for each page",
            ),
            Pattern::Phases { window, .. } if !window.is_whole_pages() || window > self.footprint => refuse(
                format!("a window of {window}"),
                "a window is whole pages of 4k and no larger than the region",
            ),
            Pattern::Phases { every: 0, .. } => {
                refuse("a phase of no accesses".into(), "a phase has one access or more")
            }
            _ => Ok(()),
        }
    }

    fn check_region(&self) -> Result<(), SpecError> {
        if !self.footprint.is_whole_pages() {
            return Err(self.refuse(
                format!("a footprint of {}", self.footprint),
                "a footprint is whole pages of 4k, such as 64m",
            ));
        }
        if !self.grain.0.is_power_of_two() || self.grain.0 > PAGE_SIZE {
            return Err(self.refuse(
                format!("a grain of {}", self.grain),
                "a grain is a power of two up to 4k",
            ));
        }
        if !(1..=MOST_THREADS).contains(&self.threads) {
            return Err(self.refuse(
                format!("{} threads", self.threads),
                "a stream has 1 to 65536 threads",
            ));
        }
        if !self.start.is_page_aligned() || self.end().is_none_or(|end| end > LOWER_HALF_END) {
            return Err(self.refuse(
                format!("{} from {:#x} on", self.footprint, self.start.get()),
                "regions begin on a page and end below 0x800000000000",
            ));
        }
        Ok(())
    }

    /// Where the last region ends.
    fn end(&self) -> Option<u64> {
        let regions = match self.regions {
            Regions::Shared => 1,
            Regions::Private => u64::from(self.threads),
        };
        let size = self.footprint.0.checked_mul(regions)?;
        self.start.get().checked_add(size)
    }

    fn refuse(&self, problem: String, remedy: &str) -> SpecError {
        SpecError {
            spec: self.to_string(),
            problem,
            remedy: remedy.to_owned(),
        }
    }
}

/// Consumer of random numbers that lays out what all threads share; thread `n` is the `n + 1`-st.
const LAYOUT: u64 = 0;

/// What a pattern prepares once for all threads.
enum Layout {
    Plain,
    Popularity(Arc<Popularity>),
    Cycle(Arc<Cycle>),
}

impl Layout {
    fn new(spec: &StreamSpec, draws: Draws) -> Self {
        match spec.pattern {
            Pattern::Zipf(exponent) => {
                Layout::Popularity(Arc::new(Popularity::new(exponent, spec.pages(), draws)))
            }
            Pattern::Chase => Layout::Cycle(Arc::new(Cycle::random(spec.pages(), draws))),
            _ => Layout::Plain,
        }
    }
}

/// A stream under way.
#[derive(Debug)]
pub struct Stream {
    threads: Vec<Maker>,
    writes: WriteShare,
    /// Whose batch is next.
    turn: usize,
    /// References still to come.
    left: u64,
}

impl Source for Stream {
    fn next_batch(&mut self, batch: &mut Batch) -> Result<(), SourceError> {
        let count = self.left.min(BATCH as u64);
        batch.thread = ThreadId(self.turn as u32);
        batch.references.clear();
        self.threads[self.turn].fill(self.writes, count, &mut batch.references);
        self.left -= count;
        self.turn = (self.turn + 1) % self.threads.len();
        Ok(())
    }
}
