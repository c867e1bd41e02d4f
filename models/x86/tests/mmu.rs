//! An MMU whose software flushes as it must, against a map from pages to what they allow.
#![allow(missing_docs)]

mod world;

use std::collections::BTreeMap;

use proptest::prelude::*;
use world::{Count, World};
use x86::mmu::Mmu;
use x86::{
    Access, Entry, EntryFlags, ErrorCode, Fault, Level, Machine, PageSize, PagingMode, Pfn, Rights, TableId,
    Va,
};

/// Regions of 1 GiB that pages are mapped in, in different tables of every level.
const REGIONS: [u64; 3] = [0x40_0000_0000, 0x41_0000_0000, 0x7f00_0000_0000];
/// Places in a region, 2 MiB apart; each holds a large page or a few small ones.
const PLACES: u64 = 4;
const SMALL: u64 = 3;

#[derive(Clone, Debug)]
enum Op {
    Map(u64, PageSize, u8, bool),
    Unmap(u64),
    Protect(u64),
    Access(u64, Access),
}

/// An address of one of the small pages.
fn address() -> impl Strategy<Value = u64> {
    (0..REGIONS.len(), 0..PLACES, 0..SMALL, 0_u64..4096)
        .prop_map(|(region, place, page, offset)| REGIONS[region] + (place << 21) + (page << 12) + offset)
}

fn op() -> impl Strategy<Value = Op> {
    let access = prop::sample::select(Access::ALL.to_vec());
    let size = prop::sample::select(vec![PageSize::Size4K, PageSize::Size4K, PageSize::Size2M]);
    prop_oneof![
        3 => (address(), size, 0_u8..8, any::<bool>()).prop_map(|(va, s, r, g)| Op::Map(va, s, r, g)),
        1 => address().prop_map(Op::Unmap),
        1 => address().prop_map(Op::Protect),
        12 => (address(), access).prop_map(|(va, a)| Op::Access(va, a)),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Mapped {
    size: PageSize,
    frame: u32,
    rights: Rights,
}

struct Tried {
    world: World,
    root: TableId,
    mmu: Mmu,
    count: Count,
    model: BTreeMap<u64, Mapped>,
    next_frame: u32,
}

impl Tried {
    fn new(machine: &str, mode: PagingMode) -> Tried {
        let mut world = World::of(Machine::preset(machine).unwrap(), mode);
        let root = world.root();
        let mmu = world.mmu(0, root);
        Tried {
            world,
            root,
            mmu,
            count: Count::default(),
            model: BTreeMap::new(),
            next_frame: 512,
        }
    }

    /// The page an address lies in, if it is mapped.
    fn find(&self, va: u64) -> Option<(u64, Mapped)> {
        let (&start, &mapped) = self.model.range(..=va).next_back()?;
        (va - start < mapped.size.bytes()).then_some((start, mapped))
    }

    /// Takes out what lies in a page, and flushes it.
    fn unmap(&mut self, start: u64, size: PageSize) {
        let around = self.find(start).filter(|&(at, _)| at != start);
        let inside = self.model.range(start..start + size.bytes());
        let gone: Vec<(u64, Mapped)> = around
            .into_iter()
            .chain(inside.map(|(&at, &mapped)| (at, mapped)))
            .collect();
        for (at, mapped) in gone {
            self.model.remove(&at);
            self.world
                .set_at(self.root, Level::of_leaf(mapped.size), at, Entry::NONE);
            self.mmu.invlpg(&mut self.count, Va::new(at));
        }
    }

    fn map(&mut self, va: u64, size: PageSize, rights: Rights, global: bool) {
        let start = va & !(size.bytes() - 1);
        self.unmap(start, size);
        // A page table without entries gives way to a large page; R15 wants it flushed first.
        if size == PageSize::Size2M {
            self.world.set_at(self.root, Level::Pmd, start, Entry::NONE);
            self.mmu.invlpg(&mut self.count, Va::new(start));
        }
        let frame = self.next_frame;
        self.next_frame += 512;
        let leaf = Entry::leaf_of(size, Pfn::new(frame), rights);
        let leaf = if global {
            leaf.with(EntryFlags::GLOBAL)
        } else {
            leaf
        };
        self.world.set_at(self.root, Level::of_leaf(size), start, leaf);
        self.model.insert(start, Mapped { size, frame, rights });
    }

    fn protect(&mut self, va: u64) {
        let Some((start, mapped)) = self.find(va) else {
            return;
        };
        let level = Level::of_leaf(mapped.size);
        let entry = self.world.get_at(self.root, level, start);
        self.world.set_at(self.root, level, start, entry.without_write());
        self.mmu.invlpg(&mut self.count, Va::new(va));
        let rights = mapped.rights.without(Rights::WRITE);
        self.model.insert(start, Mapped { rights, ..mapped });
    }

    fn access(&mut self, va: u64, access: Access) {
        let memory = &mut self.world.memory;
        let got = self
            .mmu
            .translate(memory, &mut self.count, access, Va::new(va))
            .map(|done| done.pfn.get());
        let needed = match access {
            Access::Read => Rights::USER,
            Access::Write => Rights::USER | Rights::WRITE,
            Access::Fetch => Rights::USER | Rights::EXEC,
        };
        match self.find(va) {
            Some((start, mapped)) if mapped.rights.contains(needed) => {
                assert_eq!(
                    got,
                    Ok(mapped.frame + ((va - start) >> 12) as u32),
                    "{va:#x} {access:?}"
                );
            }
            found => {
                let Err(Fault::Page { va: at, code }) = got else {
                    panic!("{va:#x} {access:?}: {got:?}")
                };
                assert_eq!(at.get(), va);
                assert_eq!(code.has(ErrorCode::PRESENT), found.is_some());
                assert_eq!(code.has(ErrorCode::WRITE), access == Access::Write);
                assert_eq!(code.has(ErrorCode::FETCH), access == Access::Fetch);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn software_that_flushes_sees_what_the_tables_say(
        ops in prop::collection::vec(op(), 1..300),
        machine in prop::sample::select(vec!["harpertown-2008", "barcelona-2008", "nehalem-2009", "zen4-2022", "modern-2s"]),
        five in any::<bool>(),
    ) {
        let mode = if five { PagingMode::FiveLevel } else { PagingMode::FourLevel };
        let mut tried = Tried::new(machine, mode);
        for op in ops {
            match op {
                Op::Map(va, size, bits, global) => {
                    let right = |bit: u8, right| if bits & bit == 0 { Rights::NONE } else { right };
                    // Mostly a user's page.
                    let user = if bits == 0 { Rights::NONE } else { Rights::USER };
                    let rights = user | right(1, Rights::WRITE) | right(2, Rights::EXEC);
                    tried.map(va, size, rights, global);
                }
                Op::Unmap(va) => tried.unmap(va & !4095, PageSize::Size4K),
                Op::Protect(va) => tried.protect(va),
                Op::Access(va, access) => tried.access(va, access),
            }
            tried.count.check(tried.mmu.tlb());
        }
    }
}
