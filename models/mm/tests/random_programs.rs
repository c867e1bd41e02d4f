//! Random programs of six threads over two address spaces and two files, under every design, with and
//! without PREEMPT, in timed and in random order: nothing panics, no check fires, the books balance.

mod common;

use std::rc::Rc;

use common::huge::{huge, huge_range};
use common::{BASE, Bench, FAR_ABOVE, Listener, Setup, anonymous, range, wait};
use mm::hugetlb::HPAGE_PAGES;
use mm::notifier::{Design, Knob, Registration};
use mm::profile::{PteLocks, RmapLocks};
use mm::{
    Backing, FileId, FileKind, Kernel, KernelPreemption, KernelProfile, MapRequest, MmId, MmMetrics,
    Prefault, Prot, RemapRequest, Sharing, Which,
};
use sim::{Cx, End, RandomWalk, Schedule, Seeded};
use x86::{Access, Pgoff, Va};

const THREADS: u32 = 6;
const CPUS: u32 = 4;
const OPERATIONS: u32 = 40;
/// Of the file of huge pages.
const HUGE_PAGES: u64 = 4;
/// Of the pool: enough for every copy, for where none is left `unmap_ref_private` takes its locks in the
/// wrong order (host-mm-paths B.17).
const HUGE_POOL: u64 = 128;

/// xorshift64: the program's own dice, apart from the engine's.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Dice {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..5 {
            let _ = dice.below(2);
        }
        dice
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }

    fn place(&mut self) -> Va {
        BASE.add_pages(self.below(8) * 40 + self.of(&[0, 480]))
    }
}

fn mapping(dice: &mut Dice, at: Va, pages: u64, files: &[FileId]) -> MapRequest {
    let file = Backing::File(dice.of(files));
    let (backing, sharing) = dice.of(&[
        (Backing::Anonymous, Sharing::Private),
        (Backing::Anonymous, Sharing::Shared),
        (file, Sharing::Private),
        (file, Sharing::Shared),
    ]);
    let at = if dice.below(8) == 0 { None } else { Some(at) };
    MapRequest {
        at,
        backing,
        sharing,
        pgoff: Pgoff::new(dice.below(16)),
        ..anonymous(BASE, pages)
    }
}

async fn program(cx: Cx, k: Rc<Kernel>, mm: MmId, files: Vec<FileId>, hugetlb: FileId, mut dice: Dice) {
    let mut subscribed = Vec::new();
    for _ in 0..OPERATIONS {
        let (at, pages) = (dice.place(), 1 + dice.below(60));
        match dice.below(22) {
            0 | 1 => {
                let request = mapping(&mut dice, at, pages, &files);
                let _ = k.sys_mmap(&cx, mm, request).await;
            }
            2 => k
                .sys_munmap(&cx, mm, range(at, pages))
                .await
                .expect("few mappings"),
            3..=5 => {
                for page in 0..pages {
                    let access = dice.of(&[Access::Read, Access::Write]);
                    let _ = k.access(&cx, mm, at.add_pages(page), access).await;
                }
            }
            6 => {
                let prot = dice.of(&[Prot::READ, Prot::READ_WRITE, Prot::NONE, Prot::ALL]);
                let _ = k.sys_mprotect(&cx, mm, range(at, pages), prot).await;
            }
            7 => {
                let _ = k.madvise_dontneed(&cx, mm, range(at, pages)).await;
            }
            8 => k.do_truncate(&cx, dice.of(&files), dice.below(70)).await,
            9 => {
                let to = dice.of(&[None, Some(BASE.add_pages(2000 + dice.clone().below(40) * 7))]);
                let (old, new) = (1 + dice.below(10), 1 + dice.below(20));
                let _ = k.sys_mremap(&cx, mm, range(at, old), new, to).await;
            }
            10 => {
                let child = k.sys_fork(&cx, mm, "child".into()).await;
                k.mmput(&cx, child).await;
            }
            11 => {
                let sem = k.mmap_sem(mm);
                let _sem = cx.lock_shared(sem).await;
                let access = dice.of(&[Access::Read, Access::Write]);
                if let Ok(page) = k.get_user_page(&cx, mm, at, access).await {
                    k.put_page(&cx, page.pfn).await;
                }
            }
            12 if subscribed.len() < 2 => {
                subscribed.push(
                    k.mmu_notifier_register(&cx, mm, Rc::new(Listener::default()))
                        .await,
                );
            }
            12 => k.mmu_notifier_unregister(&cx, subscribed.remove(0)).await,
            13 | 14 => {
                let request = RemapRequest {
                    range: range(at.add_pages(dice.below(8)), 1 + dice.below(12)),
                    prot: Prot::NONE,
                    pgoff: Pgoff::new(dice.below(70)),
                    prefault: dice.of(&[Prefault::Yes, Prefault::No]),
                };
                let _ = k.sys_remap_file_pages(&cx, mm, request).await;
            }
            15 => {
                let _ = k.madvise_remove(&cx, mm, range(at, pages)).await;
            }
            16 => match dice.below(3) {
                0 => k.sys_munlock(&cx, mm, range(at, pages)).await.unwrap_or(()),
                _ => {
                    let _ = k.sys_mlock(&cx, mm, range(at, 1 + dice.below(10))).await;
                }
            },
            17 => match dice.below(2) {
                0 => k.sys_fsync(&cx, dice.of(&files)).await,
                _ => k.sys_msync(&cx, mm, range(at, pages)).await,
            },
            18 => {
                let which = dice.of(&[Which::Own, Which::All]);
                let _ = k.sys_move_pages(&cx, mm, range(at, pages), which).await;
            }
            19 | 20 => huge_pages(&cx, &k, mm, hugetlb, &mut dice).await,
            _ => {
                wait(&cx, dice.below(5_000)).await;
                if k.st().swap.total() > 0 {
                    let _ = k.shrink_all_memory(&cx, 1 + dice.below(40)).await;
                }
            }
        }
    }
    if dice.below(2) == 0 {
        k.exit_mm(&cx, mm).await;
    }
}

/// One call on mappings of huge pages, which lie apart from the others.
async fn huge_pages(cx: &Cx, k: &Kernel, mm: MmId, file: FileId, dice: &mut Dice) {
    let at = FAR_ABOVE.add_pages(dice.below(4) * HPAGE_PAGES);
    let pages = 1 + dice.below(3);
    match dice.below(6) {
        0 | 1 => {
            let sharing = dice.of(&[Sharing::Private, Sharing::Shared]);
            let _ = k.sys_mmap(cx, mm, huge(at, pages, file, sharing)).await;
        }
        2 | 3 => {
            for page in 0..pages {
                let access = dice.of(&[Access::Read, Access::Write]);
                let _ = k.access(cx, mm, at.add_pages(page * HPAGE_PAGES), access).await;
            }
        }
        4 => {
            let _ = k.sys_munmap(cx, mm, huge_range(at, pages)).await;
        }
        _ => {
            k.do_truncate(cx, file, dice.below(HUGE_PAGES) * HPAGE_PAGES)
                .await
        }
    }
}

fn build(seed: u64, schedule: Schedule) -> Bench {
    let mut dice = Dice::new(seed);
    let design = match dice.of(&Design::ALL) {
        // Its own registration excludes no bracket in flight, and these programs meet that
        // (notifier-variants 10.1).
        v4 if v4.short == "v4" => v4.with(Knob::Registration(Registration::TakeAllLocks)),
        other => other,
    };
    let preemption = dice.of(&[KernelPreemption::Full, KernelPreemption::Voluntary]);
    let mut setup = Setup::linux_2_6_27().design(design).preempt(preemption);
    if setup.profile.rmap_locks == RmapLocks::Spin {
        let base = dice.of(&[KernelProfile::LINUX_2_6_25, KernelProfile::LINUX_2_6_27]);
        setup.profile = KernelProfile { preemption, ..base };
    }
    setup.profile.pte_locks = dice.of(&[PteLocks::PerTable, PteLocks::PerMm]);
    setup.cpus = CPUS;
    let b = setup.build_with(schedule);
    let kinds = [FileKind::Disk, FileKind::Tmpfs];
    let files: Vec<FileId> = kinds.map(|kind| b.kernel.new_file_of(kind, "f", 64)).to_vec();
    let hugetlb = b.kernel.new_hugetlb_file("huge", HUGE_PAGES * HPAGE_PAGES);
    let spaces = [b.mm, b.kernel.new_mm("second".into())];
    for thread in 0..THREADS {
        let mm = spaces[(thread % 2) as usize];
        if thread >= 2 {
            b.kernel.mmget(mm);
        }
        let (files, dice) = (files.clone(), Dice::new(dice.below(u64::MAX / 2)));
        b.thread(thread % CPUS, Some(mm), move |cx, k| {
            program(cx, k, mm, files, hugetlb, dice)
        });
    }
    b
}

fn check(seed: u64, schedule: Schedule) -> MmMetrics {
    let b = build(seed, schedule);
    b.kernel.add_hugepages(HUGE_POOL).expect("memory");
    run(seed, b)
}

/// What the calls did that a random program might fail to do.
fn assert_met(all: &MmMetrics) {
    let met = [
        ("migrated", all.pages_migrated),
        ("written", all.io_writes),
        ("cleaned", all.rmap_cleaned),
        ("huge faults", all.faults_huge),
        ("huge copies", all.faults_huge_cow),
        ("huge zaps", all.huge_zapped),
    ];
    for (what, times) in met {
        assert!(times > 0, "{what}: never");
    }
}

/// Little memory: most of the time something is being reclaimed. With few slots the device fills up.
fn check_pressed(seed: u64, schedule: Schedule) -> MmMetrics {
    const MEMORY: u64 = 110;
    let b = build(seed, schedule);
    b.kernel.set_memory(MEMORY);
    b.kernel.set_swap(if seed.is_multiple_of(3) { 50 } else { 500 });
    run(seed, b)
}

fn run(seed: u64, b: Bench) -> MmMetrics {
    let end = b.engine.run();
    assert_eq!(end, End::Completed, "seed {seed}");
    assert_eq!(b.world.audit(), Vec::<String>::new(), "seed {seed}");
    b.kernel.metrics()
}

#[test]
fn random_programs_keep_the_books_in_the_order_of_time() {
    let mut all = MmMetrics::default();
    for seed in 0..160 {
        all.merge(&check(seed, Schedule::Timed(Box::new(Seeded::new(seed)))));
    }
    assert_met(&all);
    // The programs in random order happen to meet none of these.
    assert!(all.pages_migrate_failed > 0);
}

#[test]
fn random_programs_keep_the_books_when_memory_is_short() {
    let (mut direct, mut background, mut swapped_in, mut pinned) = (0, 0, 0, 0);
    for seed in 0..80 {
        let m = check_pressed(seed, Schedule::Timed(Box::new(Seeded::new(seed))));
        direct += m.reclaim_direct;
        background += m.kswapd_runs;
        swapped_in += m.swap_in;
        pinned += m.reclaim_pinned;
    }
    assert!(
        direct > 0 && background > 0 && swapped_in > 0 && pinned > 0,
        "{direct} {background} {swapped_in} {pinned}"
    );
}

#[test]
fn random_programs_keep_the_books_when_memory_is_short_in_random_order() {
    for seed in 0..40 {
        check_pressed(seed, Schedule::Explored(Box::new(RandomWalk::new(seed))));
    }
}

#[test]
fn random_programs_keep_the_books_in_random_order() {
    let mut all = MmMetrics::default();
    for seed in 0..60 {
        all.merge(&check(seed, Schedule::Explored(Box::new(RandomWalk::new(seed)))));
    }
    assert_met(&all);
}
