//! The TLBs of a CPU against a model that keeps every slot in a list.
//!
//! The model follows the documents of the geometry: which bank keeps which size, turns by the low bits
//! of the page number where banks share one, fragments where a first level lacks a size, fills on walk
//! or on eviction, own translations before global ones and small pages before large ones (where two
//! translations for an address coexist a processor may use either; here it is always the same).
#![allow(missing_docs)]

mod naive;
mod world;

use naive::{Array, Gone, Numbers};
use proptest::prelude::*;
use world::Count;
use x86::tlb::{IndexFunction, Replacement, SecondLevelBank, SecondLevelFill, Serves};
use x86::{
    Access, Asid, ByAccess, Context, Entry, EntryFlags, Generation, Lookup, Machine, PageSize, PageSizes,
    Pfn, Rights, Shape, Tlb, TlbBank, TlbEntry, TlbGeometry, Vpn,
};

/// Pages a 57-bit address can name; of the bits above only copies remain.
const PAGES: u64 = 1 << 45;

/// What a slot translates, in plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    frame: u32,
    generation: u32,
    rights: Rights,
    dirty: bool,
    global: bool,
    size: PageSize,
    leaf: PageSize,
}

/// Tag, size, page in units of that size, and for whom the slot is if data and fetches do not use the
/// same banks.
type Key = (u16, PageSize, u64, Option<Client>);

impl Held {
    fn of(entry: &TlbEntry) -> Held {
        Held {
            frame: entry.pfn.get(),
            generation: entry.generation.get(),
            rights: entry.rights(),
            dirty: entry.dirty(),
            global: entry.is_global(),
            size: entry.size(),
            leaf: entry.leaf_size(),
        }
    }

    fn cut(self, vpn: u64, size: PageSize) -> Held {
        let start = vpn - vpn % size.base_pages();
        let skipped = start % self.size.base_pages();
        Held {
            frame: self.frame + skipped as u32,
            size,
            ..self
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Data,
    Fetch,
}

struct Bank {
    holds: PageSizes,
    serves: Serves,
    array: Array<Key, Held>,
}

impl Bank {
    fn new(bank: &TlbBank, serves: Serves) -> Bank {
        Bank {
            holds: bank.holds,
            serves,
            array: Array::new(bank.shape),
        }
    }

    fn keeps(&self, client: Client, size: PageSize) -> bool {
        let serves = match client {
            Client::Data => self.serves != Serves::Fetch,
            Client::Fetch => self.serves != Serves::Data,
        };
        serves && self.holds.contains(size)
    }
}

/// A list of banks that are asked together.
struct Banks(Vec<Bank>);

impl Banks {
    fn place(&mut self, client: Client, size: PageSize, vpn: u64) -> Option<(&mut Array<Key, Held>, u64)> {
        let mut homes: Vec<&mut Bank> = self.0.iter_mut().filter(|b| b.keeps(client, size)).collect();
        let turns = homes.len() as u64;
        if turns == 0 {
            return None;
        }
        let page = vpn / size.base_pages();
        let home = homes.swap_remove((page % turns) as usize);
        Some((&mut home.array, page / turns))
    }

    fn key(&self, client: Client, tag: u16, size: PageSize, vpn: u64) -> Key {
        let differs = |bank: &Bank| bank.keeps(Client::Data, size) != bank.keeps(Client::Fetch, size);
        let owner = self.0.iter().any(differs).then_some(client);
        (tag, size, vpn / size.base_pages(), owner)
    }

    fn find(&mut self, client: Client, context: Context, vpn: u64) -> Option<(Key, Held)> {
        for tag in [context.own.get(), context.global.get()] {
            for size in PageSize::ALL {
                let key = self.key(client, tag, size, vpn);
                if let Some((array, number)) = self.place(client, size, vpn)
                    && let Some(held) = array.get(number, key)
                {
                    return Some((key, held));
                }
            }
        }
        None
    }

    fn touch(&mut self, client: Client, context: Context, vpn: u64) -> Option<Held> {
        let (key, held) = self.find(client, context, vpn)?;
        let (array, number) = self.place(client, key.1, vpn)?;
        array.touch(number, key);
        Some(held)
    }

    fn fill(&mut self, client: Client, tag: u16, vpn: u64, held: Held) -> Option<Gone<Key, Held>> {
        let key = self.key(client, tag, held.size, vpn);
        let (array, number) = self.place(client, held.size, vpn)?;
        Some(array.fill(number, key, held))
    }

    fn all(&self) -> impl Iterator<Item = (Key, Held)> {
        self.0.iter().flat_map(|bank| bank.array.all())
    }
}

#[derive(Default, Debug, PartialEq, Eq)]
struct Counts {
    first: [u64; 3],
    second: [u64; 3],
    misses: [u64; 3],
    fills: u64,
    evictions: u64,
    flushed: u64,
}

struct Naive {
    load: Banks,
    store: Option<Banks>,
    fetch: Banks,
    second: Banks,
    l2_fill: SecondLevelFill,
    counts: Counts,
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    First(Held),
    Second(Held),
    Nowhere,
}

fn client(access: Access) -> Client {
    match access {
        Access::Read | Access::Write => Client::Data,
        Access::Fetch => Client::Fetch,
    }
}

impl Naive {
    fn new(geometry: &TlbGeometry) -> Naive {
        let first = |banks: &[TlbBank]| Banks(banks.iter().map(|b| Bank::new(b, Serves::Both)).collect());
        let second = |bank: &SecondLevelBank| Bank::new(&bank.bank, bank.serves);
        Naive {
            load: first(&geometry.load),
            store: (!geometry.store.is_empty()).then(|| first(&geometry.store)),
            fetch: first(&geometry.fetch),
            second: Banks(geometry.l2.iter().map(second).collect()),
            l2_fill: geometry.l2_fill,
            counts: Counts::default(),
        }
    }

    fn first(&mut self, access: Access) -> &mut Banks {
        match (access, &mut self.store) {
            (Access::Fetch, _) => &mut self.fetch,
            (Access::Write, Some(store)) => store,
            _ => &mut self.load,
        }
    }

    fn lookup(&mut self, access: Access, context: Context, vpn: u64) -> Found {
        if let Some(held) = self.first(access).touch(client(access), context, vpn) {
            self.counts.first[access as usize] += 1;
            return Found::First(held);
        }
        if let Some(held) = self.second.touch(client(access), context, vpn) {
            self.counts.second[access as usize] += 1;
            return Found::Second(held);
        }
        self.counts.misses[access as usize] += 1;
        Found::Nowhere
    }

    fn probe(&mut self, access: Access, context: Context, vpn: u64) -> Option<Held> {
        let first = self.first(access).find(client(access), context, vpn);
        let found = first.or_else(|| self.second.find(client(access), context, vpn));
        found.map(|(_, held)| held)
    }

    fn tag(context: Context, held: Held) -> u16 {
        if held.global {
            context.global.get()
        } else {
            context.own.get()
        }
    }

    fn account<K, V>(&mut self, gone: &Gone<K, V>) {
        if let Gone::Other(..) = gone {
            self.counts.evictions += 1;
        }
    }

    fn fill_first(&mut self, access: Access, context: Context, vpn: u64, held: Held) {
        let client = client(access);
        let banks = self.first(access);
        let kept = PageSize::ALL
            .into_iter()
            .rfind(|&size| size <= held.size && banks.0.iter().any(|bank| bank.keeps(client, size)));
        let kept = held.cut(vpn, kept.expect("a first level keeps small pages"));
        let gone = banks
            .fill(client, Naive::tag(context, held), vpn, kept)
            .expect("it keeps that size");
        self.account(&gone);
        if let Gone::Other((tag, size, page, _), old) = gone
            && self.l2_fill == SecondLevelFill::OnEviction
        {
            self.fill_second(client, tag, page * size.base_pages(), old);
        }
    }

    fn fill_second(&mut self, client: Client, tag: u16, vpn: u64, held: Held) {
        if let Some(gone) = self.second.fill(client, tag, vpn, held) {
            self.account(&gone);
        }
    }

    // Takes the translation that a look-up in the second level finds out of it.
    fn leave_second(&mut self, access: Access, context: Context, vpn: u64) -> Option<Held> {
        let (key, _) = self.second.find(client(access), context, vpn)?;
        let (array, number) = self.second.place(client(access), key.1, vpn)?;
        array.remove(number, key)
    }

    fn fill(&mut self, access: Access, context: Context, vpn: u64, held: Held) {
        self.counts.fills += 1;
        self.fill_first(access, context, vpn, held);
        if self.l2_fill == SecondLevelFill::OnWalk {
            self.fill_second(client(access), Naive::tag(context, held), vpn, held);
        }
    }

    fn promote(&mut self, access: Access, context: Context, vpn: u64, held: Held) {
        if self.l2_fill == SecondLevelFill::OnEviction {
            self.leave_second(access, context, vpn);
        }
        self.fill_first(access, context, vpn, held);
    }

    fn levels(&mut self) -> impl Iterator<Item = &mut Bank> {
        let firsts = std::iter::once(&mut self.load)
            .chain(&mut self.store)
            .chain([&mut self.fetch, &mut self.second]);
        firsts.flat_map(|banks| &mut banks.0)
    }

    fn remove_where(&mut self, doomed: impl Fn(&Key, &Held) -> bool) -> u64 {
        let gone: Vec<_> = self
            .levels()
            .flat_map(|bank| bank.array.remove_where(&doomed))
            .collect();
        self.counts.flushed += gone.len() as u64;
        gone.len() as u64
    }

    fn all(&self) -> Vec<(u16, u64, Held)> {
        let levels = [&self.load, &self.fetch, &self.second]
            .into_iter()
            .chain(&self.store);
        let slots = levels.flat_map(Banks::all);
        let mut all: Vec<_> = slots
            .map(|((tag, size, page, _), held)| (tag, page * size.base_pages(), held))
            .collect();
        all.sort_unstable();
        all
    }
}

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
                self.naive.remove_where(|&(owner, size, page, _), held| {
                    let leaf = held.leaf.base_pages();
                    owner == tag && page * size.base_pages() / leaf == vpn % PAGES / leaf
                }),
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
        let stats = self.real.stats();
        let by = |counts: &ByAccess| Access::ALL.map(|access| counts.of(access));
        let real = Counts {
            first: by(&stats.l1_hits),
            second: by(&stats.l2_hits),
            misses: by(&stats.misses),
            fills: stats.fills,
            evictions: stats.evictions,
            flushed: stats.flushed_entries,
        };
        assert_eq!(real, self.naive.counts);
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

const K: PageSize = PageSize::Size4K;
const M: PageSize = PageSize::Size2M;
const G: PageSize = PageSize::Size1G;

fn shape() -> impl Strategy<Value = Shape> {
    let sets = prop::sample::select(vec![1_u32, 1, 2, 3, 4, 5, 8]);
    let ways = prop::sample::select(vec![1_u32, 2, 3, 4, 8, 17]);
    let replacement =
        prop::sample::select(vec![Replacement::Lru, Replacement::TreePlru, Replacement::Random]);
    let index = prop::sample::select(vec![IndexFunction::Modulo, IndexFunction::XorFold]);
    // What a shape refuses falls back to what every shape can do.
    (sets, ways, replacement, index).prop_map(|(sets, ways, replacement, index)| {
        let plain = Shape::new(sets * ways, ways).unwrap();
        let replaced = plain.with_replacement(replacement).unwrap_or(plain);
        replaced.with_index(index).unwrap_or(replaced)
    })
}

/// Banks of one level by the sizes each holds.
fn banks(splits: Vec<Vec<&'static [PageSize]>>) -> impl Strategy<Value = Vec<TlbBank>> {
    let shapes = prop::collection::vec(shape(), 3);
    (prop::sample::select(splits), shapes).prop_map(|(split, shapes)| {
        let bank = |(sizes, shape): (&&[PageSize], Shape)| TlbBank::new(shape, PageSizes::of(sizes));
        split.iter().zip(shapes).map(bank).collect()
    })
}

fn first_level() -> impl Strategy<Value = Vec<TlbBank>> {
    banks(vec![
        vec![&[K]],
        vec![&[K, M]],
        vec![&[K, M, G]],
        vec![&[K], &[M]],
        vec![&[K], &[M], &[G]],
        vec![&[K], &[G]],
        vec![&[K], &[K]],
        vec![&[K], &[K], &[K, M]],
        vec![&[K, M], &[K, G]],
    ])
}

fn second_level() -> impl Strategy<Value = Vec<SecondLevelBank>> {
    let all = || {
        banks(vec![
            vec![&[K]],
            vec![&[M]],
            vec![&[K, M]],
            vec![&[K, M, G]],
            vec![&[K], &[M]],
            vec![&[K], &[M], &[G]],
            vec![&[K, M], &[K, G]],
            vec![&[K], &[K], &[K]],
        ])
    };
    let serving = |serves: Serves, banks: Vec<TlbBank>| {
        let serve = move |bank| SecondLevelBank { serves, bank };
        banks.into_iter().map(serve).collect::<Vec<_>>()
    };
    prop_oneof![
        1 => Just(Vec::new()),
        4 => all().prop_map(move |banks| serving(Serves::Both, banks)),
        1 => all().prop_map(move |banks| serving(Serves::Data, banks)),
        1 => all().prop_map(move |banks| serving(Serves::Fetch, banks)),
        3 => (all(), all()).prop_map(move |(data, fetch)| {
            let mut banks = serving(Serves::Data, data);
            banks.extend(serving(Serves::Fetch, fetch));
            banks
        }),
        1 => (all(), all()).prop_map(move |(both, data)| {
            let mut banks = serving(Serves::Both, both);
            banks.extend(serving(Serves::Data, data));
            banks
        }),
    ]
}

fn geometry() -> impl Strategy<Value = TlbGeometry> {
    let store = prop_oneof![2 => Just(Vec::new()), 1 => first_level()];
    let fill = prop::sample::select(vec![SecondLevelFill::OnWalk, SecondLevelFill::OnEviction]);
    (first_level(), store, first_level(), second_level(), fill).prop_map(
        |(load, store, fetch, l2, l2_fill)| TlbGeometry {
            load,
            store,
            fetch,
            l2,
            l2_fill,
        },
    )
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
