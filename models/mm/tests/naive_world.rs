//! Random programs of several processes, one call at a time, against a dictionary of what each address should hold:
//! after every call, entries, map counts, reference counts, rss and page cache are what the dictionary says.
//!
//! What crosses in time is the subject of `random_programs.rs`.

mod common;
#[path = "naive_world/naive.rs"]
mod naive;

use std::cell::RefCell;
use std::rc::Rc;

use common::{BASE, Setup, range};
use mm::notifier::Design;
use mm::profile::IMmapIndex;
use mm::{Backing, Destination, FileId, Kernel, KernelPreemption, MapRequest, MmId, Prot, Sharing};
use naive::{Mremap, Naive, Source};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;
use sim::{Cx, End};
use x86::{Access, Pgoff, Va};

/// Pages on either side of a border between page tables.
const FIRST: u64 = 490;
const PAGES: u64 = 44;
/// Size of each file at the beginning; mappings reach beyond it.
const FILE_PAGES: u64 = 70;
const FILES: usize = 2;
const PROCESSES: usize = 4;

/// Pages from one on.
#[derive(Clone, Copy, Debug)]
struct Part {
    first: u64,
    pages: u64,
}

impl Part {
    fn at(self) -> Va {
        BASE.add_pages(self.first)
    }

    fn iter(self) -> impl Iterator<Item = u64> {
        self.first..self.first + self.pages
    }
}

/// What a mapping is of.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Anonymous(Sharing),
    File(usize, u64, Sharing),
}

#[derive(Clone, Debug)]
enum Op {
    Mmap(Index, Part, Kind, Prot),
    Munmap(Index, Part),
    Touch(Index, Part, Access),
    Mprotect(Index, Part, Prot),
    Dontneed(Index, Part),
    Fork(Index),
    Exit(Index),
    Truncate(Index, u64),
    Mremap(Index, Mremap),
    Reclaim(u64),
}

fn part() -> impl Strategy<Value = Part> {
    (0..PAGES, 1..16_u64).prop_map(|(first, pages)| Part {
        first: FIRST + first,
        pages: pages.min(PAGES - first),
    })
}

fn prot() -> impl Strategy<Value = Prot> {
    prop_oneof![
        5 => Just(Prot::READ_WRITE),
        2 => Just(Prot::READ),
        1 => Just(Prot::NONE),
        1 => Just(Prot::READ_EXEC),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    let sharing = || select(&[Sharing::Private, Sharing::Shared][..]);
    prop_oneof![
        2 => Just(Kind::Anonymous(Sharing::Private)),
        1 => Just(Kind::Anonymous(Sharing::Shared)),
        // Page 64 begins the second leaf of the page cache.
        4 => (0..FILES, prop_oneof![0..8_u64, 55..70_u64], sharing())
            .prop_map(|(file, from, sharing)| Kind::File(file, from, sharing)),
    ]
}

/// To a place inside what is looked at, or in place.
fn mremap() -> impl Strategy<Value = Mremap> {
    (part(), part(), any::<bool>()).prop_map(|(old, target, moves)| Mremap {
        old,
        new: if moves {
            target.pages
        } else {
            target.pages.min(FIRST + PAGES - old.first)
        },
        to: moves.then_some(target.first),
    })
}

fn op() -> impl Strategy<Value = Op> {
    let p = any::<Index>;
    let access = || select(&[Access::Read, Access::Write][..]);
    prop_oneof![
        5 => (p(), part(), kind(), prot()).prop_map(|(p, part, kind, prot)| Op::Mmap(p, part, kind, prot)),
        1 => (p(), part()).prop_map(|(p, part)| Op::Munmap(p, part)),
        8 => (p(), part(), access()).prop_map(|(p, part, access)| Op::Touch(p, part, access)),
        2 => (p(), part(), prot()).prop_map(|(p, part, prot)| Op::Mprotect(p, part, prot)),
        1 => (p(), part()).prop_map(|(p, part)| Op::Dontneed(p, part)),
        2 => p().prop_map(Op::Fork),
        1 => p().prop_map(Op::Exit),
        2 => (p(), prop_oneof![0..80_u64, 60..70_u64]).prop_map(|(file, pages)| Op::Truncate(file, pages)),
        3 => (p(), mremap()).prop_map(|(p, call)| Op::Mremap(p, call)),
        3 => prop_oneof![1..6_u64, 1..60_u64].prop_map(Op::Reclaim),
    ]
}

/// The program under way: the kernel and what should be.
struct Program {
    kernel: Rc<Kernel>,
    naive: Naive,
    /// Calls of mremap that succeeded.
    moved: u64,
}

impl Program {
    fn process(&self, which: &Index) -> usize {
        which.index(self.naive.processes.len())
    }

    fn mm(&self, process: usize) -> MmId {
        self.naive.processes[process].mm
    }

    async fn apply(&mut self, cx: &Cx, op: Op) -> Result<(), String> {
        let k = Rc::clone(&self.kernel);
        match op {
            Op::Mmap(p, part, kind, prot) => {
                let p = self.process(&p);
                self.mmap(cx, p, part, kind, prot).await?;
            }
            Op::Munmap(p, part) => {
                let p = self.process(&p);
                // Holes are passed over.
                let _ = k.sys_munmap(cx, self.mm(p), range(part.at(), part.pages)).await;
                self.naive.munmap(p, part.iter());
            }
            Op::Touch(p, part, access) => {
                let p = self.process(&p);
                k.activate_mm(cx, self.mm(p));
                for page in part.iter() {
                    let done = k.access(cx, self.mm(p), BASE.add_pages(page), access).await;
                    let due = self.naive.touch(p, page, access);
                    if done != due {
                        return Err(format!("{access:?} of page {page}: {done:?}, not {due:?}"));
                    }
                }
            }
            Op::Mprotect(p, part, prot) => {
                let p = self.process(&p);
                // What lies behind a hole stays as it is.
                let _ = k
                    .sys_mprotect(cx, self.mm(p), range(part.at(), part.pages), prot)
                    .await;
                self.naive.mprotect(p, part.iter(), prot);
            }
            Op::Dontneed(p, part) => {
                let p = self.process(&p);
                // Holes are passed over.
                let _ = k
                    .madvise_dontneed(cx, self.mm(p), range(part.at(), part.pages))
                    .await;
                self.naive.forget(p, part.iter());
            }
            Op::Fork(p) if self.naive.processes.len() < PROCESSES => {
                let p = self.process(&p);
                let mm = self.mm(p);
                let child = k.sys_fork(cx, mm, "child".into()).await;
                self.naive.fork(p, child, |page| has_anon_vma(&k, mm, page));
            }
            Op::Exit(p) if self.naive.processes.len() > 1 => {
                let p = self.process(&p);
                self.exit(cx, p).await;
            }
            Op::Truncate(file, pages) => {
                let file = file.index(self.naive.files.len());
                k.do_truncate(cx, self.naive.files[file].id, pages).await;
                self.naive.truncate(file, pages);
            }
            Op::Mremap(p, call) => {
                let p = self.process(&p);
                self.mremap(cx, p, call).await?;
            }
            Op::Reclaim(pages) => {
                let _ = k.shrink_all_memory(cx, pages).await;
                self.settle(cx).await;
                self.naive.reclaimed(&k)?;
            }
            Op::Fork(_) | Op::Exit(_) => {}
        }
        self.settle(cx).await;
        self.naive.check(&k)
    }

    /// Whatever is on its way arrives: pages at their devices, and those in pagevecs, whose references the naive
    /// model does not know.
    async fn settle(&self, cx: &Cx) {
        const LONG_NS: u64 = 1_000_000_000;
        let k = &self.kernel;
        if k.st().swap.total() > 0 {
            cx.sleep(k.machine.ns(LONG_NS)).await;
        }
        k.lru_add_drain_all(cx).await;
    }

    async fn mremap(&mut self, cx: &Cx, p: usize, call: Mremap) -> Result<(), String> {
        let Mremap { old, new, to } = call;
        let destination = to.map_or(Destination::InPlace, |to| Destination::Fixed(BASE.add_pages(to)));
        let mm = self.mm(p);
        let done = self
            .kernel
            .sys_mremap(cx, mm, range(old.at(), old.pages), new, destination)
            .await;
        let due = range(BASE.add_pages(to.unwrap_or(old.first)), new);
        if done.is_ok_and(|at| at != due) {
            return Err(format!("mremap: {done:?}, not {due:?}"));
        }
        self.moved += u64::from(done.is_ok());
        self.naive.mremap(p, call, done.is_ok())
    }

    async fn mmap(&mut self, cx: &Cx, p: usize, part: Part, kind: Kind, prot: Prot) -> Result<(), String> {
        let (backing, from, sharing) = match kind {
            Kind::Anonymous(sharing) => (Backing::Anonymous, 0, sharing),
            Kind::File(file, from, sharing) => (Backing::File(self.naive.files[file].id), from, sharing),
        };
        let request = MapRequest {
            flags: mm::MapFlags::NONE,
            at: Some(part.at()),
            pages: part.pages,
            backing,
            pgoff: Pgoff::new(from),
            sharing,
            prot,
        };
        let mm = self.mm(p);
        let mapped = self.kernel.sys_mmap(cx, mm, request).await;
        if mapped != Ok(range(part.at(), part.pages)) {
            return Err(format!("mmap: {mapped:?}"));
        }
        let source = match kind {
            Kind::Anonymous(Sharing::Private) => Source::Anonymous,
            Kind::Anonymous(Sharing::Shared) => {
                // A file of its own.
                let id = file_of(&self.kernel, mm, part.at());
                if self.naive.files.iter().any(|file| Some(file.id) == id) {
                    return Err("shared memory that is not new".to_owned());
                }
                let id = id.ok_or("shared memory without a file")?;
                Source::File(self.naive.add_file(id, part.pages), 0)
            }
            Kind::File(file, from, _) => Source::File(file, from),
        };
        self.naive.mmap(p, part.iter(), source, sharing, prot);
        Ok(())
    }

    /// The task runs in another address space meanwhile, if there is one.
    async fn exit(&mut self, cx: &Cx, p: usize) {
        let mm = self.naive.processes.remove(p).mm;
        match self.naive.processes.first() {
            Some(other) => {
                self.kernel.activate_mm(cx, other.mm);
                self.kernel.mmput(cx, mm).await;
            }
            None => {
                self.kernel.activate_mm(cx, mm);
                self.kernel.exit_mm(cx, mm).await;
            }
        }
    }
}

fn file_of(k: &Kernel, mm: MmId, at: Va) -> Option<FileId> {
    let mut st = k.st();
    let vma = st.mm_mut(mm).vmas.find(at)?;
    st.vma(vma).file()
}

/// Whether fork copies the entries of a mapping rather than let the child fault. This alone is taken from the
/// kernel's word: it follows from how VMAs were split and merged, and nobody but the counts of faults can tell.
fn has_anon_vma(k: &Kernel, mm: MmId, page: u64) -> bool {
    let mut st = k.st();
    let vma = st.mm_mut(mm).vmas.find(BASE.add_pages(page));
    vma.is_some_and(|vma| st.vma(vma).anon_vma.is_some())
}

/// Returns how many calls of mremap succeeded.
async fn run(cx: &Cx, kernel: Rc<Kernel>, mm: MmId, ops: Vec<Op>) -> Result<u64, String> {
    let mut program = Program {
        moved: 0,
        naive: Naive::new(mm),
        kernel: Rc::clone(&kernel),
    };
    for file in 0..FILES {
        let id = kernel.new_file(&format!("f{file}"), FILE_PAGES);
        program.naive.add_file(id, FILE_PAGES);
    }
    for (n, op) in ops.into_iter().enumerate() {
        let text = format!("call {n}, {op:?}");
        let done = program.apply(cx, op).await;
        done.map_err(|wrong| format!("{text}: {wrong}"))?;
    }
    while !program.naive.processes.is_empty() {
        program.exit(cx, 0).await;
        program.settle(cx).await;
        program.naive.check(&kernel)?;
    }
    for file in 0..program.naive.files.len() {
        kernel.do_truncate(cx, program.naive.files[file].id, 0).await;
        program.naive.truncate(file, 0);
    }
    kernel.lru_add_drain_all(cx).await;
    program.naive.check(&kernel)?;
    Ok(program.moved)
}

fn setup(design: Design, preemption: KernelPreemption, index: IMmapIndex) -> Setup {
    let mut setup = Setup::linux_2_6_27().design(design).preempt(preemption);
    setup.cpus = 1;
    setup.profile.i_mmap_index = index;
    setup
}

/// How often something was met that a random program might miss.
#[derive(Default, Debug)]
struct Met {
    moved: u64,
    swapped_out: u64,
    swapped_in: u64,
    dropped: u64,
}

#[test]
fn every_address_holds_what_a_dictionary_says() {
    let config = ProptestConfig {
        cases: 400,
        failure_persistence: None,
        max_shrink_iters: 4000,
        ..ProptestConfig::default()
    };
    let programs = (
        prop::collection::vec(op(), 1..60),
        select(Design::ALL.to_vec()),
        select(&[KernelPreemption::Full, KernelPreemption::Voluntary][..]),
        select(&[IMmapIndex::PrioTree, IMmapIndex::IntervalTree][..]),
        select(&[0, 20, 400][..]),
    );
    let met = RefCell::new(Met::default());
    TestRunner::new(config)
        .run(&programs, |(ops, design, preemption, index, slots)| {
            let bench = setup(design, preemption, index).build();
            bench.kernel.set_swap(slots);
            let result = Rc::new(RefCell::new(Err("it did not get to its end".to_owned())));
            let out = Rc::clone(&result);
            let mm = bench.mm;
            bench.thread(0, Some(mm), move |cx, k| async move {
                let done = run(&cx, k, mm, ops).await;
                *out.borrow_mut() = done;
            });
            prop_assert_eq!(bench.engine.run(), End::Completed);
            let done = result.borrow().clone();
            let m = bench.kernel.metrics();
            let mut met = met.borrow_mut();
            met.moved += *done.as_ref().unwrap_or(&0);
            met.swapped_out += m.swap_out;
            met.swapped_in += m.swap_in;
            met.dropped += m.reclaim_freed - m.swap_out.min(m.reclaim_freed);
            prop_assert!(done.is_ok(), "{}", done.unwrap_err());
            prop_assert_eq!(bench.world.audit(), Vec::<String>::new());
            Ok(())
        })
        .unwrap_or_else(|found| panic!("{found}"));
    let met = met.into_inner();
    assert!(
        met.moved > 200 && met.swapped_out > 100 && met.swapped_in > 20 && met.dropped > 400,
        "{met:?}"
    );
}
