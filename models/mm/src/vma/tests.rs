//! Random scripts against a list of VMAs.

use proptest::prelude::*;
use x86::PAGE_SIZE;

use super::*;

/// The VMAs in no order at all.
#[derive(Default)]
struct Naive(Vec<(VaRange, VmaId)>);

impl Naive {
    fn find(&self, va: Va) -> Option<VmaId> {
        let holds = |range: &VaRange| range.start() <= va && va < range.end();
        self.0.iter().find(|(range, _)| holds(range)).map(|(_, id)| *id)
    }

    fn overlapping(&self, range: VaRange) -> Vec<VmaId> {
        let meets = |other: &VaRange| other.start() < range.end() && range.start() < other.end();
        let mut met: Vec<_> = self.0.iter().filter(|(other, _)| meets(other)).copied().collect();
        met.sort_by_key(|(range, _)| range.start());
        met.into_iter().map(|(_, id)| id).collect()
    }

    fn end_before(&self, va: Va) -> Va {
        let ends = self.0.iter().map(|(range, _)| range.end());
        ends.filter(|end| *end <= va).max().unwrap_or(Va::new(0))
    }

    fn start_after(&self, va: Va) -> Option<Va> {
        let starts = self.0.iter().map(|(range, _)| range.start());
        starts.filter(|start| *start >= va).min()
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// If the place is free.
    Insert(VaRange),
    Remove(prop::sample::Index),
    /// Most often nothing begins there.
    RemoveAt(Va),
    /// A VMA that gives up its upper part, as `split_vma` does it: out, then in again in two.
    Split(prop::sample::Index),
    Find(Va),
    /// Every page of a VMA, so that the cache is hit and left.
    Sweep(prop::sample::Index),
    Overlapping(VaRange),
    Around(Va),
}

/// Few pages, so that neighbours touch; addresses within pages, and the ends of the address space.
fn va() -> impl Strategy<Value = Va> {
    prop_oneof![
        8 => (0..48_u64).prop_map(|page| Va::new(page * PAGE_SIZE)),
        2 => (0..48_u64, 1..PAGE_SIZE).prop_map(|(page, byte)| Va::new(page * PAGE_SIZE + byte)),
        1 => Just(Va::new(x86::addr::LOWER_HALF_END - PAGE_SIZE)),
    ]
}

fn range() -> impl Strategy<Value = VaRange> {
    (0..48_u64, 1..9_u64)
        .prop_map(|(page, pages)| VaRange::from_pages(Va::new(page * PAGE_SIZE), pages).unwrap())
}

fn op() -> impl Strategy<Value = Op> {
    let which = any::<prop::sample::Index>;
    prop_oneof![
        6 => range().prop_map(Op::Insert),
        2 => which().prop_map(Op::Remove),
        1 => va().prop_map(Op::RemoveAt),
        2 => which().prop_map(Op::Split),
        4 => va().prop_map(Op::Find),
        1 => which().prop_map(Op::Sweep),
        2 => range().prop_map(Op::Overlapping),
        3 => va().prop_map(Op::Around),
    ]
}

struct Scripted {
    tree: VmaTree,
    naive: Naive,
    next: u32,
}

impl Scripted {
    fn insert(&mut self, range: VaRange) {
        let id = VmaId(self.next);
        self.next += 1;
        self.tree.insert(range, id);
        self.naive.0.push((range, id));
    }

    fn remove(&mut self, start: Va) {
        let at = self.naive.0.iter().position(|(range, _)| range.start() == start);
        let due = at.map(|at| self.naive.0.swap_remove(at).1);
        assert_eq!(self.tree.remove(start), due);
    }

    fn find(&mut self, va: Va) {
        // The second answer comes from the cache.
        for _ in 0..2 {
            assert_eq!(self.tree.find(va), self.naive.find(va), "{va:?}");
        }
    }

    fn apply(&mut self, op: &Op) {
        let chosen = |which: &prop::sample::Index| {
            let vmas = &self.naive.0;
            (!vmas.is_empty()).then(|| which.get(vmas).0)
        };
        match op {
            Op::Insert(range) => {
                if self.naive.overlapping(*range).is_empty() {
                    self.insert(*range);
                }
            }
            Op::Remove(which) => {
                if let Some(range) = chosen(which) {
                    self.remove(range.start());
                }
            }
            Op::RemoveAt(start) => self.remove(*start),
            Op::Split(which) => {
                if let Some(range) = chosen(which)
                    && range.pages() > 1
                {
                    let at = range.start().add_pages(range.pages() / 2);
                    self.remove(range.start());
                    self.insert(VaRange::new(range.start(), at).unwrap());
                    self.insert(VaRange::new(at, range.end()).unwrap());
                }
            }
            Op::Find(va) => self.find(*va),
            Op::Sweep(which) => {
                if let Some(range) = chosen(which) {
                    for page in 0..=range.pages() {
                        self.find(range.start().add_pages(page));
                    }
                }
            }
            Op::Overlapping(range) => {
                let met: Vec<_> = self.tree.overlapping(*range).collect();
                assert_eq!(met, self.naive.overlapping(*range));
            }
            Op::Around(va) => {
                assert_eq!(self.tree.end_before(*va), self.naive.end_before(*va));
                assert_eq!(self.tree.start_after(*va), self.naive.start_after(*va));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_list(ops in prop::collection::vec(op(), 1..120)) {
        let mut scripted = Scripted { tree: VmaTree::default(), naive: Naive::default(), next: 0 };
        for op in &ops {
            scripted.apply(op);
            let Scripted { tree, naive, .. } = &scripted;
            prop_assert_eq!((tree.len(), tree.is_empty()), (naive.0.len(), naive.0.is_empty()));
            let everything = VaRange::new(Va::new(0), Va::new(x86::addr::LOWER_HALF_END)).unwrap();
            prop_assert_eq!(tree.iter().collect::<Vec<_>>(), naive.overlapping(everything));
        }
    }
}

#[test]
fn the_cache_forgets_what_was_removed_or_split() {
    let page = |n: u64| Va::new(n * PAGE_SIZE);
    let range = |first, last| VaRange::new(page(first), page(last)).unwrap();
    let mut tree = VmaTree::default();
    tree.insert(range(1, 5), VmaId(0));
    assert_eq!(tree.find(page(4)), Some(VmaId(0)));
    assert_eq!(tree.remove(page(1)), Some(VmaId(0)));
    assert_eq!(tree.find(page(4)), None);
    tree.insert(range(1, 3), VmaId(0));
    tree.insert(range(3, 5), VmaId(1));
    assert_eq!(tree.find(page(4)), Some(VmaId(1)));
    // The end is not part of it.
    assert_eq!(tree.find(page(5)), None);
}

#[test]
fn a_mapping_across_an_address_is_neither_before_nor_after_it() {
    let page = |n: u64| Va::new(n * PAGE_SIZE);
    let mut tree = VmaTree::default();
    tree.insert(VaRange::new(page(1), page(2)).unwrap(), VmaId(0));
    tree.insert(VaRange::new(page(4), page(8)).unwrap(), VmaId(1));
    assert_eq!(tree.end_before(page(6)), page(2));
    assert_eq!(tree.end_before(page(8)), page(8));
    assert_eq!(tree.start_after(page(6)), None);
    assert_eq!(tree.start_after(page(4)), Some(page(4)));
}
