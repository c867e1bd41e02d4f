//! A machine with address spaces to try rules on.
#![allow(dead_code, reason = "each test program uses its part")]

use std::collections::BTreeMap;

use x86::mmu::{Bit63, Cr3, Cr4, Found, Memory, Mmu, Pcid, Translated};
use x86::{
    Access, CpuIndex, Entry, EntryFlags, ErrorCode, Fault, Frames, Generation, Level, Machine, PageSize,
    PageTables, PagingMode, Pfn, Rights, Slots, TableId, Tlb, Va,
};

pub(crate) const K: PageSize = PageSize::Size4K;
pub(crate) const M: PageSize = PageSize::Size2M;
pub(crate) const G: PageSize = PageSize::Size1G;

/// A page, another of the same page table, one of another page table, one of another root entry, and
/// one in the upper half.
pub(crate) const HERE: u64 = 0x1234_5678_9000;
pub(crate) const NEAR: u64 = HERE + 0x1000;
pub(crate) const APART: u64 = HERE + (1 << 21);
pub(crate) const FAR: u64 = 0x4321_0000_0000;
pub(crate) const KERNEL: u64 = 0xffff_8000_0000_5000;

/// A user's writable page.
pub(crate) const fn page(pfn: u32) -> Entry {
    Entry::leaf(Pfn::new(pfn), Rights::USER_WRITE)
}

/// A user's writable page of a size.
pub(crate) const fn page_of(size: PageSize, pfn: u32) -> Entry {
    Entry::leaf_of(size, Pfn::new(pfn), Rights::USER_WRITE)
}

/// The same, global.
pub(crate) const fn global(entry: Entry) -> Entry {
    entry.with(EntryFlags::GLOBAL)
}

pub(crate) fn pcid(number: u16) -> Pcid {
    Pcid::new(number).unwrap()
}

/// The error code of a page fault.
pub(crate) fn code(result: Result<u32, Fault>) -> ErrorCode {
    match result {
        Err(Fault::Page { code, .. }) => code,
        other => panic!("a page fault was expected: {other:?}"),
    }
}

pub(crate) struct World {
    pub(crate) machine: Machine,
    pub(crate) memory: Memory,
}

impl World {
    pub(crate) fn new(machine: &str) -> World {
        World::of(Machine::preset(machine).unwrap(), PagingMode::FourLevel)
    }

    pub(crate) fn of(machine: Machine, mode: PagingMode) -> World {
        let memory = Memory::new(&machine, PageTables::with_mode(mode));
        World { machine, memory }
    }

    pub(crate) fn root(&mut self) -> TableId {
        self.memory.tables.alloc()
    }

    pub(crate) fn mmu(&self, cpu: u32, root: TableId) -> Mmu {
        Mmu::new(&self.machine, CpuIndex::new(cpu), root)
    }

    /// The table that holds the entry of a level for an address.
    pub(crate) fn table(&mut self, root: TableId, level: Level, va: u64) -> TableId {
        self.memory
            .tables
            .populate_to(root, Va::new(va).vpn(), level, |_, _| {})
    }

    pub(crate) fn set_at(&mut self, root: TableId, level: Level, va: u64, entry: Entry) {
        let table = self.table(root, level, va);
        self.memory.tables.set(table, level.index(Va::new(va)), entry);
    }

    pub(crate) fn get_at(&mut self, root: TableId, level: Level, va: u64) -> Entry {
        let table = self.table(root, level, va);
        self.memory.tables.get(table, level.index(Va::new(va)))
    }

    pub(crate) fn map(&mut self, root: TableId, va: u64, entry: Entry) {
        self.set_at(root, Level::Pte, va, entry);
    }

    pub(crate) fn map_of(&mut self, root: TableId, size: PageSize, va: u64, entry: Entry) {
        self.set_at(root, Level::of_leaf(size), va, entry);
    }

    pub(crate) fn pte(&mut self, root: TableId, va: u64) -> Entry {
        self.get_at(root, Level::Pte, va)
    }

    pub(crate) fn translate(&mut self, mmu: &mut Mmu, access: Access, va: u64) -> Result<Translated, Fault> {
        mmu.translate(&mut self.memory, &mut (), access, Va::new(va))
    }

    pub(crate) fn access(&mut self, mmu: &mut Mmu, access: Access, va: u64) -> Result<u32, Fault> {
        self.translate(mmu, access, va).map(|done| done.pfn.get())
    }

    pub(crate) fn load(&mut self, mmu: &mut Mmu, va: u64) -> Result<u32, Fault> {
        self.access(mmu, Access::Read, va)
    }

    pub(crate) fn store(&mut self, mmu: &mut Mmu, va: u64) -> Result<u32, Fault> {
        self.access(mmu, Access::Write, va)
    }

    pub(crate) fn fetch(&mut self, mmu: &mut Mmu, va: u64) -> Result<u32, Fault> {
        self.access(mmu, Access::Fetch, va)
    }

    /// References of the walk that a load needs.
    pub(crate) fn references(&mut self, mmu: &mut Mmu, va: u64) -> u64 {
        match self.translate(mmu, Access::Read, va).unwrap().found {
            Found::Walked { references, .. } => references.total(),
            found => panic!("a walk was expected, not {found:?}"),
        }
    }
}

/// Whether a TLB of the CPU translates an address for some access, in the address space it runs.
pub(crate) fn cached(mmu: &Mmu, va: u64) -> bool {
    Access::ALL
        .iter()
        .any(|&access| mmu.probe(access, Va::new(va)).is_some())
}

/// Two address spaces under identifiers 1 and 2 on one CPU. Each maps the same addresses to frames of
/// its own, in tables of its own; [`KERNEL`] is a global page that both share.
pub(crate) struct Spaces {
    pub(crate) world: World,
    pub(crate) mmu: Mmu,
    pub(crate) one: Cr3,
    pub(crate) two: Cr3,
}

pub(crate) const WITH_PCID: Cr4 = Cr4 {
    global_pages: true,
    pcid_enable: true,
    smep: false,
    smap: false,
};

impl Spaces {
    /// All translations cached, identifier 1 loaded.
    pub(crate) fn new() -> Spaces {
        let mut world = World::new("modern-2s");
        let [one, two] = [1, 2].map(|number| {
            let root = world.root();
            for (at, va) in [HERE, NEAR, APART, FAR].into_iter().enumerate() {
                world.map(root, va, page(100 * number + at as u32));
            }
            world.map(root, KERNEL, global(page(7)));
            Cr3 {
                root,
                pcid: pcid(number as u16),
            }
        });
        let mut mmu = world.mmu(0, one.root);
        mmu.mov_cr4(&mut (), WITH_PCID).unwrap();
        let mut spaces = Spaces { world, mmu, one, two };
        for cr3 in [two, one] {
            spaces.switch(cr3);
            for va in [HERE, NEAR, APART, FAR, KERNEL] {
                spaces.world.load(&mut spaces.mmu, va).unwrap();
                assert!(cached(&spaces.mmu, va));
            }
        }
        spaces
    }

    /// Loads an address space and keeps what is cached of it (R7).
    pub(crate) fn switch(&mut self, cr3: Cr3) {
        self.mmu.mov_cr3(&mut (), cr3, Bit63::Set);
    }

    /// Which of the addresses are cached under an identifier, which stays loaded.
    pub(crate) fn held(&mut self, cr3: Cr3) -> Vec<u64> {
        self.switch(cr3);
        [HERE, NEAR, APART, FAR, KERNEL]
            .into_iter()
            .filter(|&va| cached(&self.mmu, va))
            .collect()
    }

    /// Whether the paging-structure caches lead to the page table of an address.
    pub(crate) fn leads(&mut self, cr3: Cr3, va: u64) -> bool {
        let table = self.world.table(cr3.root, Level::Pte, va);
        self.mmu.psc().leads_to(table)
    }
}

/// Counts slots by frame.
#[derive(Default)]
pub(crate) struct Count {
    pub(crate) slots: BTreeMap<u32, i64>,
    pub(crate) generation: u32,
}

impl Slots for Count {
    fn gained(&mut self, pfn: Pfn) {
        *self.slots.entry(pfn.get()).or_default() += 1;
    }
    fn dropped(&mut self, pfn: Pfn) {
        *self.slots.entry(pfn.get()).or_default() -= 1;
    }
}

impl Frames for Count {
    fn generation(&self, _: Pfn) -> Generation {
        Generation::new(self.generation)
    }
}

impl Count {
    /// Gains less drops of each frame must be the slots that translate to it.
    pub(crate) fn check(&mut self, tlb: &Tlb) {
        let mut filled: BTreeMap<u32, i64> = BTreeMap::new();
        for (_, _, entry) in tlb.translations() {
            *filled.entry(entry.pfn.get()).or_default() += 1;
        }
        self.slots.retain(|_, slots| *slots != 0);
        assert_eq!(self.slots, filled);
    }
}
