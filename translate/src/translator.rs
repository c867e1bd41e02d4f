//! A source through the MMUs of a machine, to its end, and what is watched on the way.

use x86::{Machine, PageSize, PagingMode};

use crate::engine::{Engine, EngineError, Events, Prices, Setup, Stale};
use crate::frames::Oracle;
use crate::mapping::PagePolicy;
use crate::pages::Page;
use crate::portions::Portions;
use crate::reuse::{Distances, ReuseDistances};
use crate::source::{Batch, Source, SourceError};
use crate::tally::Tally;

/// Whether reuse distances are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// They are not.
    #[default]
    Ignored,
    /// They are, which costs as much as the simulation again.
    Found,
}

/// What is done with a source.
#[derive(Clone, Debug)]
pub struct Task {
    /// What is simulated.
    pub setup: Setup,
    /// Other ways to map memory, simulated on the same references.
    pub what_if: Vec<PagePolicy>,
    /// Reuse distances.
    pub reuse: Reuse,
    /// References made before counting begins.
    pub warmup: u64,
    /// References counted at most.
    pub limit: u64,
}

impl Task {
    /// All references of a source through one setup.
    #[must_use]
    pub const fn new(setup: Setup) -> Self {
        Task {
            setup,
            what_if: Vec::new(),
            reuse: Reuse::Ignored,
            warmup: 0,
            limit: u64::MAX,
        }
    }
}

/// What a machine cannot do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// Page tables so deep.
    #[error("{machine} has no page tables of {asked} levels: use {most}, or another machine")]
    Levels {
        /// The machine.
        machine: String,
        /// Levels asked for.
        asked: u32,
        /// Most levels it has.
        most: u32,
    },
    /// Pages of this size.
    #[error("{machine} has no pages of {size}: it has {}", .sizes.join(", "))]
    Pages {
        /// The machine.
        machine: String,
        /// Size asked for.
        size: PageSize,
        /// Sizes it has.
        sizes: Vec<String>,
    },
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum TranslateError {
    /// The source cannot go on.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The pages are too many.
    #[error(transparent)]
    Engine(EngineError),
    /// Nothing is left to be counted.
    #[error("the source ended after {made} references, within the warm-up of {warmup}: warm up for less")]
    OnlyWarmup {
        /// References made.
        made: u64,
        /// References asked for.
        warmup: u64,
    },
}

/// What an engine counted up to some moment.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// By CPU.
    pub cpus: Vec<Tally>,
    /// What the MMUs do not count.
    pub events: Events,
    /// Regions that became large pages.
    pub collapses: u64,
    /// All pages with their cost, by size and then in the order of their first touch.
    pub pages: Vec<Page>,
}

impl Counts {
    fn of<O: Oracle>(engine: &Engine<O>) -> Self {
        Counts {
            cpus: engine.mmus().iter().map(Tally::of).collect(),
            events: *engine.events(),
            collapses: engine.collapses(),
            pages: engine.pages().all(),
        }
    }

    /// All CPUs together.
    #[must_use]
    pub fn total(&self) -> Tally {
        self.cpus.iter().fold(Tally::default(), |sum, cpu| sum + *cpu)
    }

    // What was counted after `before`. The pages stay those of all the time.
    fn since(mut self, before: &Counts) -> Self {
        for (cpu, earlier) in self.cpus.iter_mut().zip(&before.cpus) {
            *cpu = *cpu - *earlier;
        }
        self.events.references -= before.events.references;
        self.events.first_touches -= before.events.first_touches;
        self.events.non_canonical -= before.events.non_canonical;
        self.collapses -= before.collapses;
        for size in PageSize::ALL {
            let later = self.pages.iter_mut().filter(|page| page.size == size);
            let earlier = before.pages.iter().filter(|page| page.size == size);
            for (page, earlier) in later.zip(earlier) {
                page.cost.second_level_hits -= earlier.cost.second_level_hits;
                page.cost.walks -= earlier.cost.walks;
                page.cost.walk_cycles -= earlier.cost.walk_cycles;
            }
        }
        self
    }
}

/// An engine and what it had counted when counting began.
pub(crate) struct Lane<O> {
    pub(crate) engine: Engine<O>,
    before: Counts,
}

impl<O: Oracle> Lane<O> {
    fn new(setup: Setup) -> Self {
        Lane {
            engine: Engine::new(setup),
            before: Counts::default(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts::of(&self.engine).since(&self.before)
    }

    pub(crate) fn prices(&self) -> Prices {
        Prices::of(&self.engine.setup().machine)
    }
}

/// Distances at the moment counting began.
#[derive(Default)]
struct Before {
    all: Distances,
    data: Distances,
    fetches: Distances,
}

/// Runs a source.
pub struct Translator<O> {
    pub(crate) task: Task,
    // The first is what was asked for, the others are what might be.
    pub(crate) lanes: Vec<Lane<O>>,
    reuse: Option<ReuseDistances>,
    reuse_before: Before,
    threads: u32,
    made: u64,
    violation: Option<String>,
}

impl<O: Oracle> Translator<O> {
    /// Nothing run so far.
    ///
    /// # Errors
    /// If the machine cannot do what is asked.
    pub fn new(task: Task) -> Result<Self, Unsupported> {
        let policies = std::iter::once(task.setup.pages).chain(task.what_if.iter().copied());
        let mut lanes = Vec::new();
        for pages in policies {
            check(&task.setup.machine, task.setup.mode, pages)?;
            let setup = task.setup.clone();
            lanes.push(Lane::new(Setup { pages, ..setup }));
        }
        let reuse = (task.reuse == Reuse::Found).then(ReuseDistances::default);
        Ok(Translator {
            task,
            lanes,
            reuse,
            reuse_before: Before::default(),
            threads: 0,
            made: 0,
            violation: None,
        })
    }

    /// Runs a source to its end, to the limit, or to the first stale translation. `progress` hears how
    /// many references were made so far, the warm-up's included.
    ///
    /// # Errors
    /// If the source fails, ends within the warm-up, or touches too many pages.
    pub fn run(&mut self, source: impl Source, mut progress: impl FnMut(u64)) -> Result<(), TranslateError> {
        let mut portions = Portions::new(source);
        let warmup = self.task.warmup;
        self.drive(&mut portions, warmup, &mut progress)?;
        if warmup > 0 {
            let made = self.made;
            if made < warmup && self.violation.is_none() {
                return Err(TranslateError::OnlyWarmup { made, warmup });
            }
            self.begin();
        }
        self.drive(&mut portions, self.task.limit, &mut progress)
    }

    // From here on references count.
    fn begin(&mut self) {
        for lane in &mut self.lanes {
            lane.before = Counts::of(&lane.engine);
        }
        if let Some(reuse) = &self.reuse {
            self.reuse_before = Before {
                all: reuse.all().clone(),
                data: reuse.data().clone(),
                fetches: reuse.fetches().clone(),
            };
        }
    }

    fn drive<S: Source>(
        &mut self,
        portions: &mut Portions<S>,
        most: u64,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), TranslateError> {
        let mut left = most;
        while left > 0 && self.violation.is_none() {
            let batch = portions.next(left)?;
            let count = batch.references.len() as u64;
            if count == 0 {
                break;
            }
            self.make(batch)?;
            left -= count;
            self.made += count;
            progress(self.made);
        }
        Ok(())
    }

    fn make(&mut self, batch: &Batch) -> Result<(), TranslateError> {
        self.threads = self.threads.max(batch.thread.0 + 1);
        if let Some(reuse) = &mut self.reuse {
            reuse.observe(&batch.references);
        }
        for lane in &mut self.lanes {
            match lane.engine.run(batch) {
                Ok(()) => {}
                Err(EngineError::Stale(stale)) => {
                    let pages = lane.engine.setup().pages;
                    self.violation.get_or_insert_with(|| violation(&stale, pages));
                }
                Err(error @ EngineError::TooManyPages(_)) => return Err(TranslateError::Engine(error)),
            }
        }
        Ok(())
    }

    /// Distances of all, of data and of fetches, if they were found, since counting began.
    #[must_use]
    pub fn reuse(&self) -> Option<[Distances; 3]> {
        let (reuse, before) = (self.reuse.as_ref()?, &self.reuse_before);
        Some([
            reuse.all().since(&before.all),
            reuse.data().since(&before.data),
            reuse.fetches().since(&before.fetches),
        ])
    }

    /// Pages of 4 KiB touched so far, if anything counted them.
    pub(crate) fn touched_pages(&self) -> Option<u64> {
        let small = |lane: &&Lane<O>| lane.engine.setup().pages == PagePolicy::Fixed(PageSize::Size4K);
        let lane = self.lanes.iter().find(small);
        let counted = lane.map(|lane| lane.engine.pages().count(PageSize::Size4K));
        counted.or_else(|| self.reuse.as_ref().map(|reuse| reuse.all().cold()))
    }

    /// What the engine that was asked for counted since counting began.
    ///
    /// # Panics
    /// Never: there is always one.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lanes[0].counts()
    }

    /// Threads met.
    #[must_use]
    pub const fn threads(&self) -> u32 {
        self.threads
    }

    /// The first stale translation, if one was found.
    #[must_use]
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }
}

fn violation(stale: &Stale, pages: PagePolicy) -> String {
    format!("with {pages} pages: {stale}")
}

fn check(machine: &Machine, mode: PagingMode, pages: PagePolicy) -> Result<(), Unsupported> {
    let most = machine.features.levels;
    if mode.levels() > most {
        return Err(Unsupported::Levels {
            machine: machine.name.clone(),
            asked: mode.levels(),
            most,
        });
    }
    let size = match pages {
        PagePolicy::Fixed(size) => size,
        PagePolicy::Thp(_) => PageSize::Size2M,
    };
    let known = machine.features.page_sizes;
    if known.contains(size) {
        return Ok(());
    }
    Err(Unsupported::Pages {
        machine: machine.name.clone(),
        size,
        sizes: known.iter().map(|size| size.to_string()).collect(),
    })
}
