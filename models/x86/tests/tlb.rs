//! The TLBs of a CPU against a model that keeps every slot in a list.
#![allow(missing_docs)]

mod naive;
mod world;

use naive::Numbers;
use naive::geometry::geometry;
use naive::tlb::{Counts, Found, Held, Naive, PAGES};
use proptest::prelude::*;
use world::Count;
use world::{G, K, M};
use x86::{
    Access, Asid, Context, Entry, EntryFlags, Generation, Lookup, Machine, PageSize, Pfn, Rights, Tlb,
    TlbEntry, TlbGeometry, Vpn,
};

/// Both, fed alike.
struct Pair {
    real: Tlb,
    naive: Naive,
    slots: Count,
}

#[derive(Clone, Copy, Debug)]
struct Page {
    access: Access,
    space: usize,
    vpn: u64,
    size: PageSize,
    global: bool,
    dirty: bool,
    frame: u32,
}

#[derive(Clone, Debug)]
enum Op {
    /// Look up, bring up what the second level has, fill after a miss.
    Access(Page),
    /// Fill whatever is there: a walk for missing rights or D.
    Refill(Page),
    Invalidate(u16, u64),
    FlushTag(u16),
    FlushAll,
    FlushSize(PageSize),
    FlushFrames(u32),
}

/// Two address spaces of one virtual processor, and one of another.
const SPACES: [Context; 3] = [
    Context {
        own: Asid::new(0),
        global: Asid::new(7),
    },
    Context {
        own: Asid::new(1),
        global: Asid::new(7),
    },
    Context {
        own: Asid::new(2),
        global: Asid::new(u16::MAX),
    },
];
const TAGS: [u16; 5] = [0, 1, 2, 7, u16::MAX];

impl Page {
    fn entry(&self) -> TlbEntry {
        let rights = if self.dirty {
            Rights::USER_WRITE
        } else {
            Rights::USER
        };
        let first = self.frame << self.size.vpn_shift();
        let mut leaf = Entry::leaf_of(self.size, Pfn::new(first), rights).with_accessed();
        if self.dirty {
            leaf = leaf.with_dirty();
        }
        if self.global {
            leaf = leaf.with(EntryFlags::GLOBAL);
        }
        TlbEntry::of_leaf(leaf, self.size, Generation::new(self.frame + 5))
    }
}

impl Pair {
    fn new(geometry: &TlbGeometry) -> Pair {
        geometry.check().unwrap();
        Pair {
            real: Tlb::new(geometry),
            naive: Naive::new(geometry),
            slots: Count::default(),
        }
    }

    fn access(&mut self, page: &Page) {
        let context = SPACES[page.space];
        let real = self.real.lookup(page.access, context, Vpn::new(page.vpn));
        let naive = self.naive.lookup(page.access, context, page.vpn % PAGES);
        let same = match real {
            Lookup::Hit1(entry) => Found::First(Held::of(&entry)),
            Lookup::Hit2(entry) => Found::Second(Held::of(&entry)),
            Lookup::Miss => Found::Nowhere,
        };
        assert_eq!(same, naive, "{page:?}");
        match real {
            Lookup::Hit1(_) => {}
            Lookup::Hit2(entry) => {
                let vpn = Vpn::new(page.vpn);
                self.real
                    .promote(page.access, context, vpn, entry, &mut self.slots);
                self.naive
                    .promote(page.access, context, page.vpn % PAGES, Held::of(&entry));
            }
            Lookup::Miss => self.fill(page),
        }
    }

    fn fill(&mut self, page: &Page) {
        let (context, entry) = (SPACES[page.space], page.entry());
        self.real
            .fill(page.access, context, Vpn::new(page.vpn), entry, &mut self.slots);
        self.naive
            .fill(page.access, context, page.vpn % PAGES, Held::of(&entry));
    }

    fn step(&mut self, op: &Op) {
        let slots = &mut self.slots;
        let (real, naive) = match *op {
            Op::Access(page) => return self.access(&page),
            Op::Refill(page) => return self.fill(&page),
            Op::Invalidate(tag, vpn) => (
                self.real.invalidate_page(Asid::new(tag), Vpn::new(vpn), slots),
                self.naive.remove_page(tag, vpn % PAGES),
            ),
            Op::FlushTag(tag) => (
                self.real.flush_asid(Asid::new(tag), slots),
                self.naive.remove_where(|&(owner, ..), _| owner == tag),
            ),
            Op::FlushAll => (self.real.flush_all(slots), self.naive.remove_where(|_, _| true)),
            Op::FlushSize(size) => (
                self.real.flush_where(|_, _, entry| entry.size() == size, slots),
                self.naive.remove_where(|&(_, kept, ..), _| kept == size),
            ),
            Op::FlushFrames(rest) => (
                self.real.flush_where(
                    |_, vpn, entry| (vpn.get() + u64::from(entry.pfn.get())) % 3 == u64::from(rest),
                    slots,
                ),
                self.naive.remove_where(|&(_, size, page, _), held| {
                    (page * size.base_pages() + u64::from(held.frame)) % 3 == u64::from(rest)
                }),
            ),
        };
        assert_eq!(real, naive, "{op:?}");
    }

    fn compare(&mut self) {
        let slot = |(tag, vpn, entry): (Asid, Vpn, TlbEntry)| (tag.get(), vpn.get(), Held::of(&entry));
        let mut real: Vec<_> = self.real.translations().map(slot).collect();
        real.sort_unstable();
        let naive = self.naive.all();
        assert_eq!(real, naive);
        assert_eq!(self.real.filled_slots(), naive.len());
        assert_eq!(self.real.is_empty(), naive.is_empty());
        self.slots.check(&self.real);
        self.compare_stats();
    }

    fn compare_stats(&self) {
        assert_eq!(Counts::of(self.real.stats()), self.naive.counts);
    }

    fn compare_probes(&mut self, page: &Page) {
        for access in Access::ALL {
            for context in SPACES {
                let real = self.real.probe(access, context, Vpn::new(page.vpn));
                let naive = self.naive.probe(access, context, page.vpn % PAGES);
                assert_eq!(real.as_ref().map(Held::of), naive, "{access:?} {context:?}");
            }
        }
        for (_, _, held) in self.naive.all() {
            let last = Pfn::new(held.frame + held.size.base_pages() as u32 - 1);
            assert!(self.real.holds_pfn(last).is_some());
        }
    }
}

fn vpn() -> impl Strategy<Value = u64> {
    // Both halves of both kinds of address space, the last pages of each half included.
    let base = prop::sample::select(vec![0, 1 << 27, (1 << 44) - 8, 0xf_fff8_0000_0000, (1 << 52) - 8]);
    let offset = prop_oneof![
        4 => 0_u64..8,
        4 => 0_u64..64,
        2 => (0_u64..6, 0_u64..3).prop_map(|(large, small)| large * 512 + small),
        2 => (0_u64..4, 0_u64..3, 0_u64..2).prop_map(|(huge, large, small)| huge << 18 | large << 9 | small),
    ];
    // Most accesses near each other, so that sets fill up.
    (prop_oneof![4 => Just(0), 1 => base], offset)
        .prop_map(|(base, offset)| (base + offset) & ((1 << 52) - 1))
}

fn page() -> impl Strategy<Value = Page> {
    let access = prop::sample::select(Access::ALL.to_vec());
    let size =
        prop_oneof![6 => Just(PageSize::Size4K), 3 => Just(PageSize::Size2M), 1 => Just(PageSize::Size1G)];
    (
        access,
        0..SPACES.len(),
        vpn(),
        size,
        prop::bool::weighted(0.2),
        any::<bool>(),
        0_u32..6,
    )
        .prop_map(|(access, space, vpn, size, global, dirty, frame)| Page {
            access,
            space,
            vpn,
            size,
            global,
            dirty,
            frame,
        })
}

fn op() -> impl Strategy<Value = Op> {
    let tag = prop::sample::select(TAGS.to_vec());
    let size = prop::sample::select(PageSize::ALL.to_vec());
    prop_oneof![
        60 => page().prop_map(Op::Access),
        8 => page().prop_map(Op::Refill),
        8 => (tag.clone(), vpn()).prop_map(|(tag, vpn)| Op::Invalidate(tag, vpn)),
        1 => tag.prop_map(Op::FlushTag),
        1 => Just(Op::FlushAll),
        1 => size.prop_map(Op::FlushSize),
        1 => (0_u32..3).prop_map(Op::FlushFrames),
    ]
}

/// Accesses to few pages again and again, some with a walk whatever the TLB holds.
fn few() -> impl Strategy<Value = Vec<(bool, u64, Access)>> {
    let access = prop::sample::select(Access::ALL.to_vec());
    prop::collection::vec((prop::bool::weighted(0.3), 0_u64..4, access), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn any_tlb_agrees_with_lists_of_slots(
        geometry in geometry(),
        ops in prop::collection::vec(op(), 1..250),
    ) {
        let mut pair = Pair::new(&geometry);
        for op in &ops {
            pair.step(op);
            pair.compare();
            if let Op::Access(page) | Op::Refill(page) = op {
                pair.compare_probes(page);
            }
        }
    }

    /// While all pages are of one size and none is global, look-ups take a short way, which must end
    /// when another size comes.
    #[test]
    fn a_tlb_that_held_one_size_only_agrees_when_another_comes(
        geometry in geometry(),
        phases in prop::collection::vec((prop::sample::select(PageSize::ALL.to_vec()), few()), 2..6),
    ) {
        let mut pair = Pair::new(&geometry);
        for (size, ops) in &phases {
            for &(fill, vpn, access) in ops {
                let page = Page { access, space: 0, vpn, size: *size, global: false, dirty: true, frame: 3 };
                pair.step(&if fill { Op::Refill(page) } else { Op::Access(page) });
            }
            pair.compare();
        }
    }
}

#[test]
fn the_tlbs_of_every_machine_agree_with_lists_of_slots_over_a_long_life() {
    for name in Machine::presets() {
        let mut pair = Pair::new(&Machine::preset(name).unwrap().tlb);
        let mut numbers = Numbers(11);
        // Long enough that arrays which log their uses write the log anew, and that every bank of
        // small pages overflows.
        for step in 0..24_000 {
            let size = match numbers.below(8) {
                0 => G,
                1 | 2 => M,
                _ => K,
            };
            let space = numbers.below(SPACES.len() as u64) as usize;
            let reach = [40, 300, 6000][numbers.below(3) as usize];
            let page = Page {
                access: Access::ALL[numbers.below(3) as usize],
                space,
                vpn: numbers.below(reach) << size.vpn_shift() | numbers.below(2),
                size,
                global: numbers.below(9) == 0,
                dirty: numbers.below(2) == 0,
                frame: numbers.below(50) as u32,
            };
            pair.step(&match numbers.below(4000) {
                0 => Op::FlushTag(SPACES[space].own.get()),
                1 => Op::FlushFrames(0),
                2..100 => Op::Invalidate(SPACES[space].own.get(), page.vpn),
                100..200 => Op::Refill(page),
                _ => Op::Access(page),
            });
            if step % 1000 == 999 {
                pair.compare();
            }
        }
    }
}
