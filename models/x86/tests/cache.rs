//! The caches under the walker against lists of lines, the one used last at the end.
#![allow(missing_docs)]

mod naive;

use naive::{Array, Gone, Numbers};
use proptest::prelude::*;
use x86::cache::{CacheArray, CacheGeometry, Caches, Inclusion, LastLevel, Line, Served};
use x86::{CpuIndex, Machine};

/// One kind of cache: every instance, and how many cores share each.
struct Kind {
    cores: u32,
    instances: Vec<Array<u64, ()>>,
}

impl Kind {
    fn new(array: &CacheArray, cores: u32) -> Kind {
        let lines = u64::from(array.kib) * 1024 / 64;
        let one = Array::lru(lines / u64::from(array.ways), array.ways as usize);
        Kind {
            cores: array.cores,
            instances: vec![one; cores.div_ceil(array.cores) as usize],
        }
    }

    fn of(&mut self, core: u32) -> &mut Array<u64, ()> {
        &mut self.instances[(core / self.cores) as usize]
    }
}

struct Naive {
    threads: u32,
    cores: u32,
    l1: Kind,
    l2: Kind,
    llc: Option<(Kind, Inclusion)>,
}

fn evicted(gone: Gone<u64, ()>) -> Option<u64> {
    match gone {
        Gone::Other(line, ()) => Some(line),
        Gone::Nothing | Gone::Same(()) => None,
    }
}

impl Naive {
    fn new(geometry: &CacheGeometry, cores: u32, threads: u32) -> Naive {
        let last = |llc: &LastLevel| (Kind::new(&llc.cache, cores), llc.inclusion);
        Naive {
            threads,
            cores,
            l1: Kind::new(&geometry.l1, cores),
            l2: Kind::new(&geometry.l2, cores),
            llc: geometry.llc.as_ref().map(last),
        }
    }

    fn access(&mut self, cpu: u32, line: u64) -> Served {
        let core = cpu / self.threads;
        if self.l1.of(core).touch(line, line).is_some() {
            return Served::L1;
        }
        self.l1.of(core).fill(line, line, ());
        if self.l2.of(core).touch(line, line).is_some() {
            return Served::L2;
        }
        let victim = evicted(self.l2.of(core).fill(line, line, ()));
        let Some((llc, inclusion)) = &mut self.llc else {
            return Served::Memory;
        };
        let (group, cache) = (core / llc.cores, llc.of(core));
        if *inclusion == Inclusion::Victim {
            let found = cache.remove(line, line).is_some();
            if let Some(victim) = victim {
                cache.fill(victim, victim, ());
            }
            return if found { Served::Llc } else { Served::Memory };
        }
        if cache.touch(line, line).is_some() {
            return Served::Llc;
        }
        let victim = evicted(cache.fill(line, line, ()));
        if let (Some(victim), Inclusion::Inclusive) = (victim, *inclusion) {
            let under = |core: &u32| core / llc.cores == group;
            for core in (0..self.cores).filter(under) {
                self.l1.of(core).remove(victim, victim);
                self.l2.of(core).remove(victim, victim);
            }
        }
        Served::Memory
    }

    fn own(&mut self, cpu: u32, line: u64) {
        let core = cpu / self.threads;
        for kind in [&mut self.l1, &mut self.l2] {
            for (at, instance) in kind.instances.iter_mut().enumerate() {
                if at as u32 != core / kind.cores {
                    instance.remove(line, line);
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Access(u32, u64),
    Own(u32, u64),
}

const CORES: u32 = 4;

/// Lines that fall into few sets of any of the small caches: 960 is a multiple of their 64, 80 and 96
/// sets.
fn line() -> impl Strategy<Value = u64> {
    (0_u64..3, prop_oneof![0_u64..6, 0_u64..40]).prop_map(|(set, turn)| set + turn * 960)
}

fn op() -> impl Strategy<Value = Op> {
    let cpu = 0..2 * CORES;
    prop_oneof![
        12 => (cpu.clone(), line()).prop_map(|(cpu, line)| Op::Access(cpu, line)),
        1 => (cpu, line()).prop_map(|(cpu, line)| Op::Own(cpu, line)),
    ]
}

fn array(sharing: &'static [u32]) -> impl Strategy<Value = CacheArray> {
    // 64 sets of 1, 2, 3 and 8 ways, 80 sets of 1 and 2, 96 sets of 1, 2 and 9.
    let sizes = vec![
        (4, 1),
        (8, 2),
        (12, 3),
        (32, 8),
        (5, 1),
        (10, 2),
        (6, 1),
        (12, 2),
        (54, 9),
    ];
    (prop::sample::select(sizes), prop::sample::select(sharing)).prop_map(|((kib, ways), cores)| CacheArray {
        cores,
        ..CacheArray::new(kib, ways)
    })
}

fn geometry() -> impl Strategy<Value = CacheGeometry> {
    let kinds = vec![Inclusion::NonInclusive, Inclusion::Inclusive, Inclusion::Victim];
    let last = (array(&[1, 2, 4]), prop::sample::select(kinds))
        .prop_map(|(cache, inclusion)| LastLevel { cache, inclusion });
    (array(&[1]), array(&[1, 2]), prop::option::weighted(0.8, last)).prop_map(|(l1, l2, mut llc)| {
        // A last level serves at least the cores of the caches above it.
        if let Some(llc) = &mut llc {
            llc.cache.cores = llc.cache.cores.max(l2.cores);
        }
        CacheGeometry { l1, l2, llc }
    })
}

fn agree(real: &mut Caches, naive: &mut Naive, op: Op) {
    match op {
        Op::Access(cpu, line) => {
            let served = real.access(CpuIndex::new(cpu), Line::new(line));
            assert_eq!(served, naive.access(cpu, line), "{op:?}");
        }
        Op::Own(cpu, line) => {
            real.own(CpuIndex::new(cpu), Line::new(line));
            naive.own(cpu, line);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_caches_serve_as_lists_of_lines_do(
        geometry in geometry(),
        threads in 1_u32..3,
        ops in prop::collection::vec(op(), 1..500),
    ) {
        geometry.check().unwrap();
        let mut real = Caches::new(&geometry, CORES, threads);
        let mut naive = Naive::new(&geometry, CORES, threads);
        for &op in &ops {
            let cpus = CORES * threads;
            let op = match op {
                Op::Access(cpu, line) => Op::Access(cpu % cpus, line),
                Op::Own(cpu, line) => Op::Own(cpu % cpus, line),
            };
            agree(&mut real, &mut naive, op);
        }
    }
}

#[test]
fn the_caches_of_every_machine_serve_as_lists_of_lines_do() {
    for name in Machine::presets() {
        let machine = Machine::preset(name).unwrap();
        // One complex and a core beyond it, in caches of a sixteenth of the size.
        let mut geometry = machine.caches.clone();
        let shrink = |array: &mut CacheArray| {
            let sets = array.lines() / u64::from(array.ways);
            // As many sets, divided by 16 if enough remain.
            if sets >= 1024 && sets.is_multiple_of(16) {
                array.kib /= 16;
            }
        };
        shrink(&mut geometry.l1);
        shrink(&mut geometry.l2);
        let mut shared = geometry.l2.cores;
        if let Some(llc) = &mut geometry.llc {
            llc.cache.cores = llc.cache.cores.min(4);
            shrink(&mut llc.cache);
            shared = llc.cache.cores;
        }
        geometry.check().unwrap();
        let cores = shared + 1;
        let mut real = Caches::new(&geometry, cores, 1);
        let mut naive = Naive::new(&geometry, cores, 1);
        let mut numbers = Numbers(3);
        let sets = geometry.llc.as_ref().map_or(&geometry.l2, |llc| &llc.cache);
        let turn = sets.lines() / u64::from(sets.ways);
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..30_000 {
            let cpu = numbers.below(u64::from(cores)) as u32;
            let reach = [8, 60, 400][numbers.below(3) as usize];
            let line = numbers.below(2) + numbers.below(reach) * turn;
            let op = if numbers.below(40) == 0 {
                Op::Own(cpu, line)
            } else {
                Op::Access(cpu, line)
            };
            agree(&mut real, &mut naive, op);
            if let Op::Access(..) = op {
                let served = real.access(CpuIndex::new(cpu), Line::new(line));
                assert_eq!(served, naive.access(cpu, line));
                assert_eq!(served, Served::L1, "what was just used is nearest");
                let again = numbers.below(reach) * turn;
                *seen
                    .entry(real.access(CpuIndex::new(cpu), Line::new(again)))
                    .or_insert(0) += 1;
                naive.access(cpu, again);
            }
        }
        let levels = if geometry.llc.is_some() { 4 } else { 3 };
        assert_eq!(seen.len(), levels, "{name}: every level must have served some");
    }
}

#[test]
fn two_cores_of_harpertown_share_a_second_level_and_the_next_pair_does_not() {
    let machine = Machine::preset("harpertown-2008").unwrap();
    let cores = machine.sockets * machine.cores_per_socket;
    let mut caches = Caches::new(&machine.caches, cores, machine.threads_per_core);
    let line = Line::new(77);
    let mut serve = |cpu| caches.access(CpuIndex::new(cpu), line);
    assert_eq!(
        [serve(0), serve(1), serve(2), serve(3)],
        [Served::Memory, Served::L2, Served::Memory, Served::L2]
    );
    assert_eq!([serve(0), serve(4)], [Served::L1, Served::Memory]);
}

#[test]
fn a_store_takes_the_line_from_other_cores_but_not_from_the_second_level_shared_with_them() {
    let machine = Machine::preset("harpertown-2008").unwrap();
    let mut caches = Caches::new(&machine.caches, 8, 1);
    let line = Line::new(77);
    for cpu in 0..4 {
        caches.access(CpuIndex::new(cpu), line);
    }
    caches.own(CpuIndex::new(1), line);
    let served = [1, 0, 2, 3].map(|cpu| caches.access(CpuIndex::new(cpu), line));
    assert_eq!(served, [Served::L1, Served::L2, Served::Memory, Served::L2]);
}

#[test]
fn lines_of_tables_and_of_frames_are_never_the_same() {
    let machine = Machine::preset("modern-2s").unwrap();
    let mut caches = Caches::new(&machine.caches, 1, 1);
    let cpu = CpuIndex::new(0);
    let last = (1_u32 << x86::cache::CACHED_FRAME_BITS) - 1;
    let lines = [
        Line::of_entry(x86::TableId::new(3), 8),
        Line::of_byte(x86::Pfn::new(3), 64),
        Line::of_entry(x86::TableId::new(last), 511),
        Line::of_byte(x86::Pfn::new(last), 4095),
    ];
    for line in lines {
        assert_eq!(caches.access(cpu, line), Served::Memory);
    }
    assert_eq!(
        caches.access(cpu, Line::of_entry(x86::TableId::new(3), 15)),
        Served::L1,
        "eight entries a line"
    );
    assert_eq!(
        caches.access(cpu, Line::of_entry(x86::TableId::new(3), 16)),
        Served::Memory
    );
}
