//! The paging-structure caches against a model that keeps every slot in a list and follows the tables
//! with its own walk.
#![allow(missing_docs)]

mod naive;
mod world;

use naive::Array;
use proptest::prelude::*;
use world::{K, M};
use x86::psc::{Psc, PscBank, PscLevel};
use x86::tlb::{IndexFunction, Replacement};
use x86::walker::walk_cached;
use x86::{
    Access, Asid, Entry, EntryFlags, Level, Machine, PageTables, PagingMode, Pfn, Rights, Rules, Shape,
    TableId, Va, Vpn, WalkOutcome,
};

/// Levels whose entries can be kept, lowest first, and how many pages an entry covers.
const LEVELS: [(PscLevel, Level, u64); 4] = [
    (PscLevel::Pde, Level::Pmd, 1 << 9),
    (PscLevel::Pdpte, Level::Pud, 1 << 18),
    (PscLevel::Pml4e, Level::P4d, 1 << 27),
    (PscLevel::Pml5e, Level::Pgd, 1 << 36),
];

/// Tag, level, and what part of the address space, counted in entries of that level.
type Key = (u16, Level, u64);

/// The table below an entry, and the rights of all levels down to the entry.
type Kept = Array<Key, (TableId, Rights)>;

struct Naive {
    banks: Vec<(Vec<PscLevel>, Kept)>,
}

/// What a walk should do: entries it reads, and the leaf's rights if it is allowed to use it.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    reads: Vec<(TableId, usize)>,
    rights: Option<Rights>,
}

impl Naive {
    fn new(banks: &[PscBank]) -> Naive {
        let bank = |bank: &PscBank| (bank.holds.clone(), Array::new(bank.shape));
        Naive {
            banks: banks.iter().map(bank).collect(),
        }
    }

    fn bank(&mut self, level: PscLevel) -> Option<&mut Kept> {
        let first = self.banks.iter_mut().find(|(holds, _)| holds.contains(&level));
        first.map(|(_, array)| array)
    }

    fn walk(&mut self, tables: &PageTables, asid: u16, root: TableId, vpn: u64) -> Expected {
        let page = vpn % (1 << 45);
        let mut at = (tables.mode().root_level(), root, Rights::ALL);
        for (name, level, pages) in LEVELS {
            if let Some(array) = self.bank(name)
                && let Some((table, rights)) = array.touch(page / pages, (asid, level, page / pages))
            {
                at = (level.below().unwrap(), table, rights);
                break;
            }
        }
        let (mut level, mut table, mut rights) = at;
        let mut reads = Vec::new();
        loop {
            let index = level.index_of(Vpn::new(vpn));
            reads.push((table, index));
            let entry = tables.get(table, index);
            if !entry.present() {
                return Expected { reads, rights: None };
            }
            rights = rights.common(entry.rights());
            if level == Level::Pte || entry.has(EntryFlags::PAGE_SIZE) {
                let allowed = rights.contains(Rights::USER).then_some(rights);
                return Expected {
                    reads,
                    rights: allowed,
                };
            }
            let next = entry.table_id().unwrap();
            let (name, _, pages) = LEVELS.into_iter().find(|(_, l, _)| *l == level).unwrap();
            if let Some(array) = self.bank(name) {
                array.fill(page / pages, (asid, level, page / pages), (next, rights));
            }
            (level, table) = (level.below().unwrap(), next);
        }
    }

    fn remove(&mut self, doomed: impl Fn(&Key) -> bool) {
        for (_, array) in &mut self.banks {
            array.remove_where(|key, _| doomed(key));
        }
    }

    fn all(&self) -> Vec<TableId> {
        self.banks
            .iter()
            .flat_map(|(_, array)| array.all())
            .map(|(_, (table, _))| table)
            .collect()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Walk(u16, u64),
    InvalidatePage(u16, u64),
    FlushTag(u16),
    FlushAll,
    /// Points an entry of a page directory at another page table; the old one stays, detached.
    Replace(u16, u64),
    /// Takes W, U or X from an upper entry.
    Weaken(u16, u64, usize, Rights),
}

fn vpn() -> impl Strategy<Value = u64> {
    let part = |most| 0_u64..most;
    (part(2), part(3), part(4), part(12), part(3), any::<bool>()).prop_map(
        |(five, four, three, two, one, upper)| {
            let page = five << 36 | four << 27 | three << 18 | two << 9 | one;
            if upper { page | 0xf_fff8_0000_0000 } else { page }
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let asid = 0_u16..3;
    let right = prop::sample::select(vec![Rights::WRITE, Rights::USER, Rights::EXEC]);
    prop_oneof![
        60 => (asid.clone(), vpn()).prop_map(|(a, v)| Op::Walk(a, v)),
        6 => (asid.clone(), vpn()).prop_map(|(a, v)| Op::InvalidatePage(a, v)),
        1 => asid.clone().prop_map(Op::FlushTag),
        1 => Just(Op::FlushAll),
        6 => (asid.clone(), vpn()).prop_map(|(a, v)| Op::Replace(a, v)),
        3 => (asid, vpn(), 0_usize..3, right).prop_map(|(a, v, l, r)| Op::Weaken(a, v, l, r)),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let sizes = prop::sample::select(vec![
        (1_u32, 1_u32),
        (1, 2),
        (1, 4),
        (2, 4),
        (3, 2),
        (8, 4),
        (1, 24),
    ]);
    let random = prop::sample::select(vec![Replacement::Lru, Replacement::TreePlru, Replacement::Random]);
    let fold = prop::sample::select(vec![IndexFunction::Modulo, IndexFunction::XorFold]);
    (sizes, random, fold).prop_map(|((sets, ways), replacement, index)| {
        let plain = Shape::new(sets * ways, ways).unwrap();
        let replaced = plain.with_replacement(replacement).unwrap_or(plain);
        replaced.with_index(index).unwrap_or(replaced)
    })
}

fn banks() -> impl Strategy<Value = Vec<PscBank>> {
    use PscLevel::{Pde, Pdpte, Pml4e, Pml5e};
    let splits: Vec<Vec<Vec<PscLevel>>> = vec![
        vec![],
        vec![vec![Pde]],
        vec![vec![Pml4e]],
        vec![vec![Pdpte, Pml5e]],
        vec![vec![Pde], vec![Pdpte], vec![Pml4e]],
        vec![vec![Pde], vec![Pdpte], vec![Pml4e], vec![Pml5e]],
        vec![vec![Pdpte, Pml4e, Pml5e], vec![Pde]],
        vec![vec![Pde, Pdpte, Pml4e, Pml5e]],
        // The first bank that names a level keeps it.
        vec![vec![Pde], vec![Pde, Pdpte]],
    ];
    let shapes = prop::collection::vec(shape(), 4);
    (prop::sample::select(splits), shapes).prop_map(|(split, shapes)| {
        let bank = |(holds, shape)| PscBank {
            shape,
            holds,
            source: String::new(),
            note: String::new(),
        };
        split.into_iter().zip(shapes).map(bank).collect()
    })
}

/// Three address spaces with pages of both sizes and holes, some upper entries not yet accessed.
fn tables(mode: PagingMode) -> (PageTables, Vec<TableId>) {
    let mut tables = PageTables::with_mode(mode);
    let roots: Vec<TableId> = (0..3).map(|_| tables.alloc()).collect();
    for (at, &root) in roots.iter().enumerate() {
        for two in 0..12_u64 {
            for rest in 0..12_u64 {
                let vpn = Vpn::new((rest % 3) << 27 | (rest / 3) << 18 | two << 9);
                let (size, level) = if (two + rest) % 5 == 4 {
                    (M, Level::Pmd)
                } else {
                    (K, Level::Pte)
                };
                let table = tables.populate_to(root, vpn, level, |_, _| {});
                if (two + at as u64) % 4 != 3 {
                    let leaf = Entry::leaf_of(size, Pfn::new(512), Rights::USER_WRITE | Rights::EXEC);
                    tables.set(table, level.index_of(vpn), leaf);
                }
            }
        }
        let first = tables.populate_to(root, Vpn::new(0), Level::Pud, |_, _| {});
        let entry = tables.get(first, 0);
        tables.set(first, 0, entry.without_accessed());
    }
    (tables, roots)
}

fn entry_above(tables: &PageTables, root: TableId, vpn: u64, above: usize) -> Option<(TableId, usize)> {
    let mut table = root;
    let stop = [Level::Pmd, Level::Pud, Level::P4d][above];
    for level in Level::upper(tables.mode().root_level()) {
        let index = level.index_of(Vpn::new(vpn));
        tables.get(table, index).table_id()?;
        if level == stop {
            return Some((table, index));
        }
        table = tables.get(table, index).table_id()?;
    }
    None
}

struct Pair {
    tables: PageTables,
    roots: Vec<TableId>,
    real: Psc,
    naive: Naive,
}

impl Pair {
    fn new(banks: &[PscBank], mode: PagingMode) -> Pair {
        let (tables, roots) = tables(mode);
        Pair {
            tables,
            roots,
            real: Psc::new(banks),
            naive: Naive::new(banks),
        }
    }

    fn walk(&mut self, asid: u16, vpn: u64) {
        let root = self.roots[asid as usize];
        let expected = self.naive.walk(&self.tables, asid, root, vpn);
        let mut reads = Vec::new();
        let walk = walk_cached(
            &mut self.tables,
            &mut self.real,
            Asid::new(asid),
            root,
            Vpn::new(vpn),
            Access::Read,
            &Rules::USER,
            |table, index| reads.push((table, index)),
        );
        assert_eq!(walk.references as usize, reads.len());
        let rights = match walk.outcome {
            WalkOutcome::Leaf { rights, .. } => Some(rights),
            _ => None,
        };
        assert_eq!(Expected { reads, rights }, expected);
        for &(table, index) in &expected.reads[..expected.reads.len() - 1] {
            assert!(
                self.tables.get(table, index).accessed(),
                "an entry that was used has A set"
            );
        }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Walk(asid, vpn) => self.walk(asid, vpn),
            Op::InvalidatePage(asid, vpn) => {
                self.real.invalidate_page(Asid::new(asid), Vpn::new(vpn));
                let page = vpn % (1 << 45);
                let pages = |level: Level| LEVELS.into_iter().find(|(_, l, _)| *l == level).unwrap().2;
                self.naive
                    .remove(|&(tag, level, part)| tag == asid && part == page / pages(level));
            }
            Op::FlushTag(asid) => {
                self.real.flush_where(|tag| tag.get() == asid);
                self.naive.remove(|&(tag, ..)| tag == asid);
            }
            Op::FlushAll => {
                self.real.flush_all();
                self.naive.remove(|_| true);
            }
            Op::Replace(asid, vpn) => {
                if let Some((table, index)) = entry_above(&self.tables, self.roots[asid as usize], vpn, 0) {
                    let fresh = self.tables.alloc();
                    self.tables
                        .set(fresh, Level::Pte.index_of(Vpn::new(vpn)), world::page(9));
                    self.tables.set(table, index, Entry::table(fresh));
                }
            }
            Op::Weaken(asid, vpn, above, right) => {
                let found = entry_above(&self.tables, self.roots[asid as usize], vpn, above);
                if let Some((table, index)) = found {
                    let entry = self.tables.get(table, index);
                    let weaker = match right {
                        Rights::EXEC => entry.with(EntryFlags::NO_EXECUTE),
                        Rights::USER => entry.without(EntryFlags::USER),
                        _ => entry.without_write(),
                    };
                    self.tables.set(table, index, weaker);
                }
            }
        }
    }

    fn compare(&self) {
        let kept = self.naive.all();
        assert_eq!(self.real.filled_slots(), kept.len());
        for table in kept {
            assert!(self.real.leads_to(table));
        }
        assert!(!self.real.leads_to(self.roots[0]));
    }
}

fn mode() -> impl Strategy<Value = PagingMode> {
    prop::sample::select(vec![PagingMode::FourLevel, PagingMode::FiveLevel])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_paging_structure_caches_agree_with_lists_of_slots(
        banks in banks(),
        mode in mode(),
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let mut pair = Pair::new(&banks, mode);
        for op in &ops {
            pair.step(op);
            pair.compare();
        }
    }

    #[test]
    fn those_of_every_machine_agree_with_lists_of_slots(
        name in prop::sample::select(Machine::presets().to_vec()),
        mode in mode(),
        ops in prop::collection::vec(op(), 100..300),
    ) {
        let mut pair = Pair::new(&Machine::preset(name).unwrap().psc, mode);
        for op in &ops {
            pair.step(op);
        }
        pair.compare();
    }
}

#[test]
fn a_walk_from_a_kept_entry_keeps_the_rights_of_the_levels_above_it() {
    // The root entry allows no stores. A walk that starts below must know that.
    let mut tables = PageTables::new();
    let root = tables.alloc();
    let (one, other) = (Va::new(world::HERE).vpn(), Va::new(world::NEAR).vpn());
    for vpn in [one, other] {
        let table = tables.populate(root, vpn, |_, _| {});
        tables.set(table, Level::Pte.index_of(vpn), world::page(1));
    }
    let index = Level::P4d.index_of(one);
    let entry = tables.get(root, index);
    tables.set(root, index, entry.without_write());
    let mut psc = Psc::new(&Machine::preset("modern-2s").unwrap().psc);
    for (vpn, references) in [(one, 4), (other, 1)] {
        let walk = walk_cached(
            &mut tables,
            &mut psc,
            Asid::UNTAGGED,
            root,
            vpn,
            Access::Write,
            &Rules::USER,
            |_, _| {},
        );
        assert_eq!(walk.references, references);
        assert!(matches!(walk.outcome, WalkOutcome::Protection { .. }));
    }
}
