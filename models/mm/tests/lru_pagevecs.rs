//! Pagevecs in front of the LRU lists, through the paths that fill and drain them, against plain vectors: 14 pages
//! at most, one of each list on each CPU (host-mm-paths A.6, B.9, G.22).

mod common;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use common::{BASE, FAR_ABOVE, Setup, anonymous, range, shared_file, wait};
use mm::frame::LruList;
use mm::{Kernel, MmId};
use proptest::prelude::*;
use sim::{Cx, End};
use x86::{Access, Pfn, Va};

/// `PAGEVEC_SIZE` of 2.6.27.
const PAGEVEC: usize = 14;
const PAGES: u64 = 400;
const CPUS: usize = 2;
const LISTS: [LruList; 2] = [LruList::Inactive, LruList::Active];

#[derive(Clone, Copy, Debug)]
enum Op {
    /// So many first touches on this CPU: of anonymous memory, whose pages become active, or of a file, whose
    /// pages become inactive.
    Touch(usize, LruList, u64),
    /// madvise on this CPU: of anonymous pages that were touched, the n-th from the first.
    Dontneed(usize, prop::sample::Index),
    /// All CPUs.
    DrainAll,
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..CPUS, prop::sample::select(&LISTS[..]), 1..20_u64).prop_map(|(c, l, n)| Op::Touch(c, l, n)),
        2 => (0..CPUS, any::<prop::sample::Index>()).prop_map(|(cpu, which)| Op::Dontneed(cpu, which)),
        1 => Just(Op::DrainAll),
    ]
}

/// Lists, heads first; and pagevecs, oldest first.
#[derive(Default)]
struct Model {
    lists: [Vec<Pfn>; 2],
    pagevecs: [[Vec<Pfn>; 2]; CPUS],
    /// Only a pagevec holds them: they are freed when it is drained.
    orphans: BTreeSet<Pfn>,
}

impl Model {
    fn drain(&mut self, cpu: usize, list: usize) {
        for pfn in self.pagevecs[cpu][list].drain(..) {
            if !self.orphans.remove(&pfn) {
                self.lists[list].insert(0, pfn);
            }
        }
    }

    fn add(&mut self, cpu: usize, list: usize, pfn: Pfn) {
        self.pagevecs[cpu][list].push(pfn);
        if self.pagevecs[cpu][list].len() == PAGEVEC {
            self.drain(cpu, list);
        }
    }

    /// What lru_add_drain does before a zap, and then the page goes, unless another CPU's pagevec holds it.
    fn zap(&mut self, cpu: usize, pfn: Pfn) {
        for list in 0..LISTS.len() {
            self.drain(cpu, list);
        }
        for list in &mut self.lists {
            list.retain(|listed| *listed != pfn);
        }
        if self
            .pagevecs
            .iter()
            .flatten()
            .flatten()
            .any(|waiting| *waiting == pfn)
        {
            self.orphans.insert(pfn);
        }
    }

    fn check(&self, k: &Kernel) {
        for list in LISTS {
            let (st, frames) = (k.st(), k.frames());
            let listed: Vec<Pfn> = frames.lru_pages(k.zone(), list).collect();
            assert_eq!(listed, self.lists[list as usize], "{list:?}");
            for (cpu, pagevecs) in self.pagevecs.iter().enumerate() {
                let waiting = st.cpus[cpu].pagevecs.of(list).pages();
                assert_eq!(waiting, pagevecs[list as usize], "{list:?} of CPU {cpu}");
                for pfn in waiting {
                    // Its own reference, beside that of an entry and of the page cache.
                    let frame = frames.get(*pfn);
                    let cached = u32::from(list == LruList::Inactive);
                    assert_eq!(frame.count, frame.mapcount + cached + 1);
                }
            }
        }
    }
}

/// The script, whose calls run on the CPU they name. The model asks the kernel only which frame a page got.
struct Script {
    k: Rc<Kernel>,
    mm: MmId,
    model: Model,
    touched: [u64; 2],
    anonymous: Vec<Va>,
}

impl Script {
    async fn step(&mut self, cx: &Cx, cpu: usize, op: Op) {
        match op {
            Op::Touch(_, list, pages) => {
                for _ in 0..pages {
                    let base = if list == LruList::Active { BASE } else { FAR_ABOVE };
                    let at = base.add_pages(self.touched[list as usize]);
                    if self.touched[list as usize] == PAGES {
                        return;
                    }
                    self.touched[list as usize] += 1;
                    self.k
                        .access(cx, self.mm, at, Access::Read)
                        .await
                        .expect("mapped");
                    let pfn = self.k.peek_pte(self.mm, at).pfn();
                    self.model.add(cpu, list as usize, pfn);
                    if list == LruList::Active {
                        self.anonymous.push(at);
                    }
                }
            }
            Op::Dontneed(_, which) if !self.anonymous.is_empty() => {
                let at = self.anonymous.swap_remove(which.index(self.anonymous.len()));
                let pfn = self.k.peek_pte(self.mm, at).pfn();
                let done = self.k.madvise_dontneed(cx, self.mm, range(at, 1)).await;
                done.expect("mapped");
                self.model.zap(cpu, pfn);
            }
            Op::Dontneed(..) => {}
            Op::DrainAll => {
                self.k.lru_add_drain_all(cx).await;
                for cpu in 0..CPUS {
                    for list in 0..LISTS.len() {
                        self.model.drain(cpu, list);
                    }
                }
            }
        }
        self.model.check(&self.k);
    }
}

fn agree(script: Vec<Op>) {
    let mut setup = Setup::linux_2_6_27();
    setup.cpus = CPUS as u32;
    let b = setup.build();
    let (mm, file) = (b.mm, b.kernel.new_file("f", PAGES));
    let state = Rc::new(RefCell::new(Some(Script {
        k: Rc::clone(&b.kernel),
        mm,
        model: Model::default(),
        touched: [0; 2],
        anonymous: Vec::new(),
    })));
    // Which call is next; each thread makes those of its CPU.
    let turn = Rc::new(Cell::new(None));
    for cpu in 0..CPUS {
        let (script, state, turn) = (script.clone(), Rc::clone(&state), Rc::clone(&turn));
        if cpu > 0 {
            b.kernel.mmget(mm);
        }
        b.thread(cpu as u32, Some(mm), move |cx, k| async move {
            if cpu == 0 {
                k.sys_mmap(&cx, mm, anonymous(BASE, PAGES)).await.expect("free");
                k.sys_mmap(&cx, mm, shared_file(FAR_ABOVE, PAGES, file))
                    .await
                    .expect("free");
                turn.set(Some(0));
            }
            loop {
                match turn.get() {
                    Some(at) if at == script.len() => return,
                    Some(at) if on(script[at]) == cpu => {
                        let mut mine = state.take().expect("nobody else's turn");
                        mine.step(&cx, cpu, script[at]).await;
                        *state.borrow_mut() = Some(mine);
                        turn.set(Some(at + 1));
                    }
                    _ => wait(&cx, 100).await,
                }
            }
        });
    }
    assert_eq!(b.engine.run(), End::Completed);
    assert_eq!(b.world.audit(), Vec::<String>::new());
}

fn on(op: Op) -> usize {
    match op {
        Op::Touch(cpu, ..) | Op::Dontneed(cpu, _) => cpu,
        Op::DrainAll => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pages_wait_in_pagevecs_of_fourteen_and_reach_the_lists_in_order(
        script in prop::collection::vec(ops(), 1..40),
    ) {
        agree(script);
    }
}
