//! The TLBs as an MMU drives them: translations one by one and in runs, after misses, missing rights
//! and clean pages, against a model that keeps every slot in a list. Software changes the tables and
//! flushes or forgets to, so that stale entries must be kept and used alike too.
#![allow(missing_docs)]

mod naive;
mod world;

use std::collections::BTreeMap;

use naive::geometry::geometry;
use naive::tlb::{Counts, Found, Held, Naive};
use proptest::prelude::*;
use world::{Count, G, K, M, WITH_PCID, World, pcid};
use x86::mmu::{Bit63, Cr3, Mmu, PermissionMiss};
use x86::tlb::Stop;
use x86::{
    Access, Asid, Context, Entry, EntryFlags, Frames, Generation, Level, Machine, Observer, PageSize,
    PagingMode, Pfn, Reference, Rights, Slots, TableId, TlbEntry, TlbGeometry, Va,
};

/// Small pages side by side from here, then places of 2 MiB that are one large page or hold small ones,
/// then places of 1 GiB.
const SMALL_AT: u64 = 0x1000_0000_0000;
const LARGE_AT: u64 = 0x2000_0000_0000;
const HUGE_AT: u64 = 0x3000_0000_0000;
const SMALLS: u64 = 64;
const LARGES: u64 = 12;
const HUGES: u64 = 3;

/// What the tables say of a page, by the page's address.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    size: PageSize,
    frame: u32,
    rights: Rights,
    global: bool,
    dirty: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Access(u64, Access),
    /// A run, and what it stops at, until all are through.
    Batch(Vec<(u64, Access)>),
    Invlpg(u64),
    Switch(u16, Bit63),
    /// Changes a leaf; nothing is flushed.
    Change(u64, Rights, bool, u32),
    Clean(u64),
    Absent(u64),
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0..SMALLS).prop_map(|page| SMALL_AT + (page << 12)),
        3 => (0..LARGES, 0_u64..3).prop_map(|(place, page)| LARGE_AT + (place << 21) + (page << 12)),
        1 => (0..HUGES, 0_u64..2, 0_u64..2).prop_map(|(place, m, k)| HUGE_AT + (place << 30) + (m << 21) + (k << 12)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let access = || prop::sample::select(vec![Access::Read, Access::Read, Access::Write, Access::Fetch]);
    let rights = prop::sample::select(vec![Rights::ALL, Rights::USER_WRITE, Rights::USER, Rights::NONE]);
    let batch = prop::collection::vec((address(), access()), 1..60);
    let bit63 = prop_oneof![3 => Just(Bit63::Set), 1 => Just(Bit63::Clear)];
    prop_oneof![
        10 => (address(), access()).prop_map(|(va, a)| Op::Access(va, a)),
        6 => batch.prop_map(Op::Batch),
        2 => address().prop_map(Op::Invlpg),
        1 => (0_u16..3, bit63).prop_map(|(space, bit)| Op::Switch(space, bit)),
        2 => (address(), rights, prop::bool::weighted(0.3), 1_u32..9).prop_map(|(va, r, g, f)| Op::Change(va, r, g, f)),
        1 => address().prop_map(Op::Clean),
        1 => address().prop_map(Op::Absent),
    ]
}

/// Counts slots, and lets every entry be used.
struct Following<'a>(&'a mut Count);

impl Slots for Following<'_> {
    fn gained(&mut self, pfn: Pfn) {
        self.0.gained(pfn);
    }
    fn dropped(&mut self, pfn: Pfn) {
        self.0.dropped(pfn);
    }
}

impl Frames for Following<'_> {
    fn generation(&self, pfn: Pfn) -> Generation {
        self.0.generation(pfn)
    }
}

impl Observer for Following<'_> {
    fn is_sound(&self, _: &TlbEntry) -> bool {
        true
    }
    fn second_level_hit(&mut self, _: &TlbEntry) {}
}

/// The numbers an MMU gives its address spaces: in order of their first use, globals after the first.
const SPACES: [Context; 3] = [numbered(0), numbered(2), numbered(3)];

const fn numbered(own: u16) -> Context {
    Context {
        own: Asid::new(own),
        global: Asid::new(1),
    }
}

struct Pair {
    world: World,
    root: TableId,
    mmu: Mmu,
    naive: Naive,
    leaves: BTreeMap<u64, Leaf>,
    space: usize,
    policy: PermissionMiss,
    count: Count,
}

fn needed(access: Access) -> Rights {
    match access {
        Access::Read => Rights::USER,
        Access::Write => Rights::USER_WRITE,
        Access::Fetch => Rights::USER | Rights::EXEC,
    }
}

impl Pair {
    fn new(geometry: &TlbGeometry, policy: PermissionMiss) -> Pair {
        let mut machine = Machine::preset("modern-2s").unwrap();
        machine.tlb = geometry.clone();
        // Walks always read the tables, which then are all that the model must know.
        machine.psc = Vec::new();
        let mut world = World::of(machine, PagingMode::FourLevel);
        let root = world.root();
        let mut mmu = world.mmu(0, root);
        mmu.mov_cr4(&mut (), WITH_PCID).unwrap();
        mmu.set_permission_miss(policy);
        let mut pair = Pair {
            world,
            root,
            mmu,
            naive: Naive::new(geometry),
            leaves: BTreeMap::new(),
            space: 0,
            policy,
            count: Count::default(),
        };
        for space in [1, 2, 0] {
            pair.switch(space, Bit63::Set);
        }
        let smalls = (0..SMALLS).map(|page| (SMALL_AT + (page << 12), K));
        let larges = (0..LARGES).map(|place| (LARGE_AT + (place << 21), M));
        let huges = (0..HUGES).map(|place| (HUGE_AT + (place << 30), G));
        for (at, (va, size)) in smalls.chain(larges).chain(huges).enumerate() {
            let global = at % 13 == 5;
            pair.map(
                va,
                Leaf {
                    size,
                    frame: (at as u32 + 16) << 18 >> 9,
                    rights: Rights::ALL,
                    global,
                    dirty: at % 3 == 0,
                },
            );
        }
        pair
    }

    fn map(&mut self, va: u64, mut leaf: Leaf) {
        leaf.frame &= !(leaf.size.base_pages() as u32 - 1);
        let mut entry = Entry::leaf_of(leaf.size, Pfn::new(leaf.frame), leaf.rights);
        if leaf.global {
            entry = entry.with(EntryFlags::GLOBAL);
        }
        if leaf.dirty {
            entry = entry.with_dirty();
        }
        self.world.map_of(self.root, leaf.size, va, entry);
        self.leaves.insert(va, leaf);
    }

    fn find(&self, va: u64) -> Option<(u64, Leaf)> {
        let (&start, &leaf) = self.leaves.range(..=va).next_back()?;
        (va - start < leaf.size.bytes()).then_some((start, leaf))
    }

    fn switch(&mut self, space: u16, bit63: Bit63) {
        self.space = usize::from(space);
        let cr3 = Cr3 {
            root: self.root,
            pcid: pcid(space),
        };
        self.mmu.mov_cr3(&mut self.count, cr3, bit63);
        if bit63 == Bit63::Clear {
            let own = SPACES[self.space].own.get();
            self.naive.remove_where(|&(tag, ..), _| tag == own);
        }
    }

    fn drop_page(&mut self, va: u64) {
        let context = SPACES[self.space];
        for tag in [context.own, context.global] {
            self.naive.remove_page(tag.get(), va >> 12);
        }
    }

    /// What the access should give: a frame, or nothing if it faults.
    fn expect(&mut self, va: u64, access: Access) -> Option<u32> {
        let (context, vpn) = (SPACES[self.space], va >> 12);
        let frame = |held: Held| held.frame + (vpn % held.size.base_pages()) as u32;
        let found = self.naive.lookup(access, context, vpn);
        if let Found::First(held) | Found::Second(held) = found {
            let permitted = held.rights.contains(needed(access));
            if permitted && (held.dirty || access != Access::Write) {
                if let Found::Second(_) = found {
                    self.naive.promote(access, context, vpn, held);
                }
                return Some(frame(held));
            }
            if !permitted && self.policy == PermissionMiss::Fault {
                self.drop_page(va);
                return None;
            }
        }
        let Some((start, leaf)) = self
            .find(va)
            .filter(|(_, leaf)| leaf.rights.contains(needed(access)))
        else {
            self.drop_page(va);
            return None;
        };
        let dirty = leaf.dirty || access == Access::Write;
        self.leaves.insert(start, Leaf { dirty, ..leaf });
        let held = Held {
            frame: leaf.frame,
            generation: 0,
            rights: leaf.rights,
            dirty,
            global: leaf.global,
            size: leaf.size,
            leaf: leaf.size,
        };
        self.naive.fill(access, context, vpn, held);
        Some(frame(held))
    }

    fn batch(&mut self, accesses: &[(u64, Access)]) {
        let expected: Vec<Option<u32>> = accesses
            .iter()
            .map(|&(va, access)| self.expect(va, access))
            .collect();
        let reference = |&(va, access): &(u64, Access)| Reference::new(access, Va::new(va)).unwrap();
        let references: Vec<Reference> = accesses.iter().map(reference).collect();
        let mut done = 0;
        while done < references.len() {
            let run = self.mmu.run(&references[done..], &mut Following(&mut self.count));
            // What a run serves is allowed; which frame it is, the slots at the end tell.
            assert!(expected[done..done + run.length].iter().all(Option::is_some));
            done += run.length;
            let Some(next) = references.get(done) else {
                assert_eq!(run.stop, Stop::End);
                break;
            };
            let got = self
                .mmu
                .resume(&mut self.world.memory, &mut self.count, *next, run.stop);
            assert_eq!(got.ok().map(|done| done.pfn.get()), expected[done], "{next:?}");
            done += 1;
        }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Access(va, access) => {
                let expected = self.expect(va, access);
                let (memory, count) = (&mut self.world.memory, &mut self.count);
                let got = self.mmu.translate(memory, count, access, Va::new(va));
                assert_eq!(got.ok().map(|done| done.pfn.get()), expected, "{op:?}");
            }
            Op::Batch(ref accesses) => self.batch(accesses),
            Op::Invlpg(va) => {
                self.mmu.invlpg(&mut self.count, Va::new(va));
                self.drop_page(va);
            }
            Op::Switch(space, bit63) => self.switch(space, bit63),
            Op::Change(va, rights, global, frame) => {
                if let Some((start, leaf)) = self.find(va) {
                    self.map(
                        start,
                        Leaf {
                            rights,
                            global,
                            frame: frame << 18,
                            dirty: false,
                            ..leaf
                        },
                    );
                }
            }
            Op::Clean(va) => {
                if let Some((start, leaf)) = self.find(va) {
                    self.map(start, Leaf { dirty: false, ..leaf });
                }
            }
            Op::Absent(va) => self.absent(va),
        }
    }

    /// A page goes; a large place that has none becomes one of small pages, and large again.
    fn absent(&mut self, va: u64) {
        if let Some((start, leaf)) = self.find(va) {
            self.world.map_of(self.root, leaf.size, start, Entry::NONE);
            self.leaves.remove(&start);
            return;
        }
        let place = va & !(M.bytes() - 1);
        let leaf = Leaf {
            size: K,
            frame: 1 << 20,
            rights: Rights::ALL,
            global: false,
            dirty: false,
        };
        if (LARGE_AT..HUGE_AT).contains(&va) {
            self.world.set_at(self.root, Level::Pmd, place, Entry::NONE);
            let gone: Vec<u64> = self
                .leaves
                .range(place..place + M.bytes())
                .map(|(&va, _)| va)
                .collect();
            for va in &gone {
                self.leaves.remove(va);
            }
            if gone.is_empty() {
                self.map(va, leaf);
            } else {
                self.map(place, Leaf { size: M, ..leaf });
            }
        } else if va < LARGE_AT {
            self.map(va, leaf);
        }
    }

    fn compare(&mut self) {
        let slot = |(tag, vpn, entry): (Asid, x86::Vpn, TlbEntry)| (tag.get(), vpn.get(), Held::of(&entry));
        let mut real: Vec<_> = self.mmu.tlb().translations().map(slot).collect();
        real.sort_unstable();
        assert_eq!(real, self.naive.all());
        assert_eq!(Counts::of(self.mmu.tlb().stats()), self.naive.counts);
        self.count.check(self.mmu.tlb());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_an_mmu_does_its_tlbs_agree_with_lists_of_slots(
        geometry in geometry(),
        fault in any::<bool>(),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        prop_assume!(geometry.check().is_ok());
        let policy = if fault { PermissionMiss::Fault } else { PermissionMiss::Rewalk };
        let mut pair = Pair::new(&geometry, policy);
        for op in &ops {
            pair.step(op);
            pair.compare();
        }
    }

    #[test]
    fn those_of_every_machine_do(
        name in prop::sample::select(Machine::presets().to_vec()),
        ops in prop::collection::vec(op(), 20..80),
    ) {
        let mut pair = Pair::new(&Machine::preset(name).unwrap().tlb, PermissionMiss::Rewalk);
        for op in &ops {
            pair.step(op);
            pair.compare();
        }
    }
}
