//! Random programs on a hugetlbfs file: nothing panics, no check fires, the books balance, and in the end
//! all huge pages are back in the pool.

mod common;

use common::huge::{huge, huge_range, with_pool};
use common::{BASE, Setup};
use mm::hugetlb::HPAGE_PAGES;
use mm::{FileId, Kernel, MapError, MapRequest, MmId, Prot, Sharing};
use proptest::prelude::*;
use sim::{Cx, End, RandomWalk, Schedule, Seeded};
use x86::{Access, Pgoff};

/// One step of a random program on a hugetlbfs file.
#[derive(Clone, Copy, Debug)]
enum Step {
    Map {
        at: u64,
        pages: u64,
        offset: u64,
        sharing: bool,
    },
    Unmap {
        at: u64,
        pages: u64,
    },
    Touch {
        at: u64,
        write: bool,
    },
    Protect {
        at: u64,
        pages: u64,
        write: bool,
    },
    Truncate {
        pages: u64,
    },
    Fork,
}

fn steps() -> impl Strategy<Value = Vec<(bool, Step)>> {
    let at = || 0_u64..6;
    let pages = || 1_u64..4;
    let step = prop_oneof![
        3 => (at(), pages(), 0_u64..4, any::<bool>())
            .prop_map(|(at, pages, offset, sharing)| Step::Map { at, pages, offset, sharing }),
        2 => (at(), pages()).prop_map(|(at, pages)| Step::Unmap { at, pages }),
        6 => (at(), any::<bool>()).prop_map(|(at, write)| Step::Touch { at, write }),
        1 => (at(), pages(), any::<bool>()).prop_map(|(at, pages, write)| Step::Protect { at, pages, write }),
        1 => (0_u64..8).prop_map(|pages| Step::Truncate { pages }),
        1 => Just(Step::Fork),
    ];
    prop::collection::vec((any::<bool>(), step), 1..40)
}

async fn step(cx: &Cx, k: &Kernel, mm: MmId, file: FileId, step: Step) -> Option<MmId> {
    let place = |at: u64| BASE.add_pages(at * HPAGE_PAGES);
    match step {
        Step::Map {
            at,
            pages,
            offset,
            sharing,
        } => {
            let sharing = if sharing {
                Sharing::Shared
            } else {
                Sharing::Private
            };
            let request = MapRequest {
                pgoff: Pgoff::new(offset * HPAGE_PAGES),
                ..huge(place(at), pages, file, sharing)
            };
            let _ = k.sys_mmap(cx, mm, request).await;
        }
        Step::Unmap { at, pages } => k
            .sys_munmap(cx, mm, huge_range(place(at), pages))
            .await
            .expect("cut between huge pages"),
        Step::Touch { at, write } => {
            let access = if write { Access::Write } else { Access::Read };
            if k.task_mm(cx.task()) == Some(mm) {
                let _ = k.access(cx, mm, place(at).add_pages(17), access).await;
                return None;
            }
            // Not through the CPU, which runs in another address space.
            let _sem = cx.lock_shared(k.mmap_sem(mm)).await;
            if let Ok(page) = k.get_user_page(cx, mm, place(at).add_pages(17), access).await {
                k.put_page(cx, page.pfn).await;
            }
        }
        Step::Protect { at, pages, write } => {
            let prot = if write { Prot::READ_WRITE } else { Prot::READ };
            let changed = k.sys_mprotect(cx, mm, huge_range(place(at), pages), prot).await;
            assert!(matches!(changed, Ok(()) | Err(MapError::Hole)), "{changed:?}");
        }
        Step::Truncate { pages } => k.do_truncate(cx, file, pages * HPAGE_PAGES).await,
        Step::Fork => return Some(k.sys_fork(cx, mm, "child".into()).await),
    }
    None
}

/// Runs the calls, each in the first or in the latest address space, and tears everything down.
fn all_come_back(program: Vec<(bool, Step)>) {
    // More than promised pages, copies of children and the cache can take, so that nobody's are taken
    // back.
    let (end, wrong) = with_pool(Setup::linux_2_6_27(), 400, 1, move |cx, k, mm, file| async move {
        k.do_truncate(&cx, file, 8 * HPAGE_PAGES).await;
        let mut mms = vec![mm, k.new_mm("other".into())];
        for (latest, what) in program {
            let mm = if latest { *mms.last().expect("two") } else { mm };
            mms.extend(step(&cx, &k, mm, file, what).await);
        }
        // The first is torn down by hand: the task still runs in it.
        k.sys_munmap(&cx, mm, huge_range(BASE, 16)).await.expect("mapped");
        for mm in mms.split_off(1) {
            k.mmput(&cx, mm).await;
        }
        k.do_truncate(&cx, file, 0).await;
        let pool = k.huge_pool();
        assert_eq!((pool.free, pool.reserved), (pool.total, 0));
    });
    assert_eq!(end, End::Completed);
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_huge_page_that_was_promised_and_never_touched_comes_back() {
    let (at, pages, offset) = (0, 1, 0);
    for sharing in [false, true] {
        all_come_back(vec![(
            false,
            Step::Map {
                at,
                pages,
                offset,
                sharing,
            },
        )]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_huge_pages_all_come_back(program in steps()) {
        all_come_back(program);
    }
}

const THREADS: u64 = 4;
const STEPS: u64 = 40;

/// xorshift64: the programs' own dice, apart from the engine's.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn step(&mut self) -> Step {
        let (at, pages) = (self.below(6), 1 + self.below(3));
        let chance = self.below(2) == 0;
        match self.below(14) {
            0..=2 => Step::Map {
                at,
                pages,
                offset: self.below(4),
                sharing: chance,
            },
            3..=4 => Step::Unmap { at, pages },
            5..=10 => Step::Touch { at, write: chance },
            11 => Step::Protect {
                at,
                pages,
                write: chance,
            },
            12 => Step::Truncate { pages: self.below(8) },
            _ => Step::Fork,
        }
    }
}

/// Four threads in two address spaces. No mapping is long enough to share tables: those that are torn down
/// can be found by others, which loses pages in 2.6.27.
fn together(seed: u64, schedule: Schedule) {
    let mut setup = Setup::linux_2_6_27();
    setup.cpus = THREADS as u32;
    let b = setup.build_with(schedule);
    b.kernel.add_hugepages(100).expect("memory");
    let file = b.kernel.new_hugetlb_file("huge", 8 * HPAGE_PAGES);
    let spaces = [b.mm, b.kernel.new_mm("second".into())];
    for thread in 0..THREADS {
        let mm = spaces[thread as usize % spaces.len()];
        if thread as usize >= spaces.len() {
            b.kernel.mmget(mm);
        }
        let mut dice = Dice((seed * THREADS + thread + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        b.thread(thread as u32, Some(mm), move |cx, k| async move {
            for _ in 0..STEPS {
                if let Some(child) = step(&cx, &k, mm, file, dice.step()).await {
                    k.mmput(&cx, child).await;
                }
            }
            k.exit_mm(&cx, mm).await;
        });
    }
    assert_eq!(b.engine.run(), End::Completed, "seed {seed}");
    assert_eq!(b.world.audit(), Vec::<String>::new(), "seed {seed}");
    let kernel = &b.kernel;
    let cached = kernel.st().file(file).pages.len();
    assert_eq!(kernel.huge_pool().free + cached, 100, "seed {seed}");
}

#[test]
fn threads_that_work_on_the_same_huge_pages_keep_the_books_in_the_order_of_time() {
    for seed in 0..60 {
        together(seed, Schedule::Timed(Box::new(Seeded::new(seed))));
    }
}

#[test]
fn threads_that_work_on_the_same_huge_pages_keep_the_books_in_random_order() {
    for seed in 0..40 {
        together(seed, Schedule::Explored(Box::new(RandomWalk::new(seed))));
    }
}
