//! The TLB against a model that keeps each set as a plain list, oldest first.
#![allow(missing_docs)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use x86::tlb::SecondLevelBank;
use x86::{
    Asid, Generation, Lookup, PageSizes, Pfn, Rights, Shape, Tlb, TlbBank, TlbEntry, TlbGeometry, TlbStats,
    Vpn,
};

type Page = (u16, u64);

struct NaiveBank {
    ways: usize,
    sets: Vec<Vec<(Page, TlbEntry)>>,
}

impl NaiveBank {
    fn new(level: Shape) -> Self {
        let sets = level.sets() as usize;
        NaiveBank {
            ways: level.ways() as usize,
            sets: vec![Vec::new(); sets],
        }
    }

    fn set(&mut self, page: Page) -> &mut Vec<(Page, TlbEntry)> {
        let set = page.1 as usize % self.sets.len();
        &mut self.sets[set]
    }

    fn get(&self, page: Page) -> Option<TlbEntry> {
        let set = &self.sets[page.1 as usize % self.sets.len()];
        set.iter().find(|(p, _)| *p == page).map(|(_, e)| *e)
    }

    fn touch(&mut self, page: Page) -> Option<TlbEntry> {
        let set = self.set(page);
        let at = set.iter().position(|(p, _)| *p == page)?;
        let found = set.remove(at);
        set.push(found);
        Some(found.1)
    }

    fn fill(&mut self, page: Page, entry: TlbEntry, dropped: &mut Vec<Pfn>) -> bool {
        let ways = self.ways;
        let set = self.set(page);
        let mut evicted = false;
        if let Some(at) = set.iter().position(|(p, _)| *p == page) {
            dropped.push(set.remove(at).1.pfn);
        } else if set.len() == ways {
            dropped.push(set.remove(0).1.pfn);
            evicted = true;
        }
        set.push((page, entry));
        evicted
    }

    fn remove_where(&mut self, doomed: impl Fn(Page) -> bool, dropped: &mut Vec<Pfn>) -> u64 {
        let mut count = 0;
        for set in &mut self.sets {
            set.retain(|(page, entry)| {
                if doomed(*page) {
                    dropped.push(entry.pfn);
                    count += 1;
                }
                !doomed(*page)
            });
        }
        count
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// Look up; promote on a second-level hit, fill on a miss.
    Access(u16, u64, u32),
    Fill(u16, u64, u32),
    Update(u16, u64),
    InvalidatePage(u16, u64),
    FlushAsid(u16),
    FlushAll,
}

fn op() -> impl Strategy<Value = Op> {
    let asid = 0u16..3;
    // Few enough pages to hit often, enough to overflow the larger banks.
    let vpn = prop_oneof![0u64..24, 0u64..200];
    let pfn = 0u32..40;
    prop_oneof![
        60 => (asid.clone(), vpn.clone(), pfn.clone()).prop_map(|(a, v, p)| Op::Access(a, v, p)),
        10 => (asid.clone(), vpn.clone(), pfn).prop_map(|(a, v, p)| Op::Fill(a, v, p)),
        5 => (asid.clone(), vpn.clone()).prop_map(|(a, v)| Op::Update(a, v)),
        10 => (asid.clone(), vpn).prop_map(|(a, v)| Op::InvalidatePage(a, v)),
        2 => asid.prop_map(Op::FlushAsid),
        1 => Just(Op::FlushAll),
    ]
}

fn geometry() -> impl Strategy<Value = TlbGeometry> {
    let level = |entries, ways| Shape::new(entries, ways).unwrap();
    prop::sample::select(vec![
        two_levels(level(1, 1), None),
        two_levels(level(4, 2), Some(level(8, 4))),
        two_levels(level(16, 4), Some(level(256, 4))),
        two_levels(level(48, 48), Some(level(64, 4))),
        two_levels(level(17, 17), Some(level(24, 24))),
        // Three sets, as the 3072 x 8 array of row G8 has a number of sets that is no power of two.
        two_levels(level(72, 72), Some(level(12, 4))),
    ])
}

fn entry(pfn: u32, rights: Rights) -> TlbEntry {
    TlbEntry {
        pfn: Pfn::new(pfn),
        generation: Generation::new(pfn),
        rights,
        dirty: false,
    }
}

struct Pair {
    real: Tlb,
    first: NaiveBank,
    second: Option<NaiveBank>,
    stats: TlbStats,
    real_drops: Vec<Pfn>,
    naive_drops: Vec<Pfn>,
    /// Gains less drops of each frame.
    held: BTreeMap<Pfn, i64>,
}

impl Pair {
    fn gain(&mut self, pfn: u32, slots: u32) {
        *self.held.entry(Pfn::new(pfn)).or_default() += i64::from(slots);
    }

    fn fill(&mut self, page: Page, pfn: u32) {
        let (asid, vpn) = (Asid::new(page.0), Vpn::new(page.1));
        let new = entry(pfn, Rights::USER);
        let drops = &mut self.real_drops;
        let gained = self.real.fill(asid, vpn, new, &mut |p| drops.push(p));
        self.gain(pfn, gained);
        self.stats.fills += 1;
        self.stats.evictions += u64::from(self.first.fill(page, new, &mut self.naive_drops));
        if let Some(second) = &mut self.second {
            self.stats.evictions += u64::from(second.fill(page, new, &mut self.naive_drops));
        }
    }

    fn access(&mut self, page: Page, pfn: u32) {
        let (asid, vpn) = (Asid::new(page.0), Vpn::new(page.1));
        let found = self.real.lookup(asid, vpn);
        if let Some(e) = self.first.touch(page) {
            assert_eq!(found, Lookup::Hit1(e));
            self.stats.l1_hits += 1;
        } else if let Some(e) = self.second.as_mut().and_then(|bank| bank.touch(page)) {
            assert_eq!(found, Lookup::Hit2(e));
            self.stats.l2_hits += 1;
            let drops = &mut self.real_drops;
            let gained = self.real.promote(asid, vpn, e, &mut |p| drops.push(p));
            self.gain(e.pfn.get(), gained);
            self.stats.evictions += u64::from(self.first.fill(page, e, &mut self.naive_drops));
        } else {
            assert_eq!(found, Lookup::Miss);
            self.stats.misses += 1;
            self.fill(page, pfn);
        }
    }

    fn update(&mut self, page: Page) {
        let (asid, vpn) = (Asid::new(page.0), Vpn::new(page.1));
        let Some(old) = self.real.probe(asid, vpn) else {
            return;
        };
        let new = TlbEntry {
            rights: Rights::USER_WRITE,
            dirty: true,
            ..old
        };
        let mut expected = 0;
        for bank in std::iter::once(&mut self.first).chain(&mut self.second) {
            for (p, e) in bank.set(page) {
                if *p == page && e.pfn == new.pfn {
                    *e = new;
                    expected += 1;
                }
            }
        }
        assert_eq!(self.real.update(asid, vpn, new), expected);
    }

    fn flush(&mut self, doomed: impl Fn(Page) -> bool, emptied: u64) {
        let mut count = self.first.remove_where(&doomed, &mut self.naive_drops);
        if let Some(second) = &mut self.second {
            count += second.remove_where(&doomed, &mut self.naive_drops);
        }
        assert_eq!(emptied, count);
        self.stats.flushed_entries += count;
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Access(a, v, p) => self.access((a, v), p),
            Op::Fill(a, v, p) => self.fill((a, v), p),
            Op::Update(a, v) => self.update((a, v)),
            Op::InvalidatePage(a, v) => {
                let drops = &mut self.real_drops;
                let emptied = self
                    .real
                    .invalidate_page(Asid::new(a), Vpn::new(v), &mut |p| drops.push(p));
                self.flush(|page| page == (a, v), u64::from(emptied));
            }
            Op::FlushAsid(a) => {
                let drops = &mut self.real_drops;
                let emptied = self.real.flush_asid(Asid::new(a), &mut |p| drops.push(p));
                self.flush(|page| page.0 == a, emptied);
            }
            Op::FlushAll => {
                let drops = &mut self.real_drops;
                let emptied = self.real.flush_all(&mut |p| drops.push(p));
                self.flush(|_| true, emptied);
                assert!(self.real.is_empty());
            }
        }
    }

    fn compare(&mut self) {
        self.real_drops.sort();
        self.naive_drops.sort();
        assert_eq!(self.real_drops, self.naive_drops);
        for pfn in self.real_drops.drain(..) {
            *self.held.entry(pfn).or_default() -= 1;
        }
        self.naive_drops.clear();
        assert_eq!(*self.real.stats(), self.stats);
        let mut occupied: BTreeMap<Pfn, i64> = BTreeMap::new();
        let mut contents = Vec::new();
        for (asid, vpn, e) in self.real.translations() {
            *occupied.entry(e.pfn).or_default() += 1;
            contents.push(((asid.get(), vpn.get()), e.pfn, e.rights));
        }
        self.held.retain(|_, slots| *slots != 0);
        assert_eq!(occupied, self.held, "gains less drops must be the filled slots");
        let mut expected: Vec<_> = std::iter::once(&self.first)
            .chain(&self.second)
            .flat_map(|bank| bank.sets.iter().flatten())
            .map(|(page, e)| (*page, e.pfn, e.rights))
            .collect();
        let key = |(page, pfn, rights): &(Page, Pfn, Rights)| (*page, *pfn, *rights);
        contents.sort_by_key(key);
        expected.sort_by_key(key);
        assert_eq!(contents, expected);
        for &(page, ..) in &expected {
            let first = self.first.get(page);
            let want = first.or_else(|| self.second.as_ref().and_then(|bank| bank.get(page)));
            assert_eq!(self.real.probe(Asid::new(page.0), Vpn::new(page.1)), want);
        }
        for pfn in occupied.keys() {
            let (asid, vpn) = self.real.holds_pfn(*pfn).unwrap();
            assert!(
                contents
                    .iter()
                    .any(|c| c.0 == (asid.get(), vpn.get()) && c.1 == *pfn)
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn agrees_with_the_naive_model(
        shape in geometry(),
        ops in prop::collection::vec(op(), 1..400),
    ) {
        let mut pair = Pair {
            real: Tlb::new(&shape),
            first: NaiveBank::new(shape.load[0].shape),
            second: shape.l2.first().map(|second| NaiveBank::new(second.bank.shape)),
            stats: TlbStats::default(),
            real_drops: Vec::new(),
            naive_drops: Vec::new(),
            held: BTreeMap::new(),
        };
        for op in &ops {
            pair.step(op);
            pair.compare();
        }
    }
}

#[test]
fn update_leaves_a_slot_of_another_frame_alone() {
    let mut tlb = Tlb::new(&two_levels(Shape::new(4, 4).unwrap(), None));
    let (asid, vpn) = (Asid::UNTAGGED, Vpn::new(1));
    tlb.fill(asid, vpn, entry(7, Rights::USER), &mut |_| {});
    assert_eq!(tlb.update(asid, vpn, entry(8, Rights::USER_WRITE)), 0);
    assert_eq!(tlb.probe(asid, vpn), Some(entry(7, Rights::USER)));
    assert_eq!(tlb.holds_pfn(Pfn::new(8)), None);
}

#[test]
fn levels_that_do_not_divide_into_sets_are_refused() {
    assert!(Shape::new(0, 1).is_err());
    assert!(Shape::new(8, 0).is_err());
    let error = Shape::new(10, 4).unwrap_err();
    assert!(error.to_string().starts_with("10 entries and 4 ways"));
}

fn two_levels(l1: Shape, l2: Option<Shape>) -> TlbGeometry {
    let bank = |shape| TlbBank::new(shape, PageSizes::SMALL);
    TlbGeometry {
        load: vec![bank(l1)],
        store: Vec::new(),
        fetch: vec![bank(l1)],
        l2: l2
            .map(|shape| SecondLevelBank {
                serves: Default::default(),
                bank: bank(shape),
            })
            .into_iter()
            .collect(),
        l2_fill: Default::default(),
    }
}
