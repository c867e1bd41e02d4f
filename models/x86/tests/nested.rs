//! Guests whose software, and whose host, flush as they must: what an access gives is what the guest's
//! tables and the second dimension say together, whatever the sizes of their pages.
#![allow(missing_docs)]

mod world;

use proptest::prelude::*;
use world::{Count, World, pcid};
use x86::mmu::{Cr0, Cr3, Cr4, Eptp, InvEpt, Mmu, NestedFault, NestedTables, TlbControl, VmEntry, Vpid};
use x86::{
    Access, Entry, EntryFlags, ErrorCode, Fault, Gpa, Level, Machine, PageSize, PageTables, PagingMode, Pfn,
    Privilege, Rights, TableId, Va,
};

/// Guest-linear memory: places of 1 GiB, each mapped by pages of one size, of which the first few are
/// used. Guest-physical memory: likewise.
const PLACES: usize = 4;
const PAGES: u64 = 3;
const LINEAR_AT: u64 = 0x40_0000_0000;
/// The guest's tables lie here, in small pages of the host.
const TABLES_AT: u64 = 0x70_0000_0000;

#[derive(Clone, Copy, Debug)]
struct Leaf {
    size: PageSize,
    /// Guest-physical or physical page number of the first small page.
    target: u32,
    rights: Rights,
    global: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Access(usize, u64, Access),
    /// The guest changes a place, and its virtual processors flush.
    Guest(usize, Place),
    /// The host changes a place and flushes it as its kind of machine does.
    Host(usize, Place),
    /// To another virtual processor, or the same.
    Enter(usize),
    /// To the host and back.
    Exit,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    size: PageSize,
    present: bool,
    rights: Rights,
    global: bool,
    to: usize,
}

fn place() -> impl Strategy<Value = Place> {
    let size = prop::sample::select(PageSize::ALL.to_vec());
    let rights = prop::sample::select(vec![Rights::ALL, Rights::ALL, Rights::USER_WRITE, Rights::USER]);
    (size, prop::bool::weighted(0.9), rights, any::<bool>(), 0..PLACES).prop_map(
        |(size, present, rights, global, to)| Place {
            size,
            present,
            rights,
            global,
            to,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let access = prop::sample::select(Access::ALL.to_vec());
    // Bytes spread so that pieces of large pages are met.
    let inside = (0..PAGES, 0_u64..4, 0_u64..2)
        .prop_map(|(large, small, far)| (far << 29) + (large << 21) + (small << 12));
    prop_oneof![
        12 => (0..PLACES, inside, access).prop_map(|(p, at, a)| Op::Access(p, at, a)),
        2 => (0..PLACES, place()).prop_map(|(p, place)| Op::Guest(p, place)),
        2 => (0..PLACES, place()).prop_map(|(p, place)| Op::Host(p, place)),
        1 => (0_usize..2).prop_map(Op::Enter),
        1 => Just(Op::Exit),
    ]
}

struct Machines {
    world: World,
    guest: PageTables,
    guest_root: TableId,
    host_root: TableId,
    mmu: Mmu,
    count: Count,
    linear: [Option<Leaf>; PLACES],
    physical: [Option<Leaf>; PLACES],
    svm: bool,
    /// Identifiers of the two virtual processors, which share both dimensions, and who runs.
    ids: [u16; 2],
    running: usize,
}

const EPTP: Eptp = Eptp(1);

/// Maps a place of 1 GiB with pages of one size, as far as accesses reach, from a table that is empty.
fn fill(tables: &mut PageTables, root: TableId, start: u64, leaf: &Leaf) {
    let reach: Vec<u64> = match leaf.size {
        PageSize::Size1G => vec![0],
        PageSize::Size2M => [0, 1 << 29]
            .iter()
            .flat_map(|far| (0..PAGES).map(move |n| far + (n << 21)))
            .collect(),
        PageSize::Size4K => [0, 1 << 29]
            .iter()
            .flat_map(|far| (0..PAGES).flat_map(move |n| (0..4).map(move |k| far + (n << 21) + (k << 12))))
            .collect(),
    };
    for at in reach {
        let (vpn, level) = (Va::new(start + at).vpn(), Level::of_leaf(leaf.size));
        let table = tables.populate_to(root, vpn, level, |_, _| {});
        let frame = Pfn::new(leaf.target + (at >> 12) as u32);
        let mut entry = Entry::leaf_of(leaf.size, frame, leaf.rights);
        if leaf.global {
            entry = entry.with(EntryFlags::GLOBAL);
        }
        tables.set(table, level.index_of(vpn), entry);
    }
}

/// Takes a place out by its one entry above; what hung below stays, detached.
fn clear(tables: &mut PageTables, root: TableId, start: u64) {
    let vpn = Va::new(start).vpn();
    let table = tables.populate_to(root, vpn, Level::Pud, |_, _| {});
    tables.set(table, Level::Pud.index_of(vpn), Entry::NONE);
}

impl Machines {
    fn new(machine: &str, five: bool) -> Machines {
        let mode = if five {
            PagingMode::FiveLevel
        } else {
            PagingMode::FourLevel
        };
        let mut world = World::of(Machine::preset(machine).unwrap(), mode);
        let [own, host_root] = [world.root(), world.root()];
        let mut guest = PageTables::with_mode(mode);
        let guest_root = guest.alloc();
        // More tables than the guest will ever have.
        for table in 0..2048_u64 {
            world.map(
                host_root,
                TABLES_AT + (table << 12),
                Entry::leaf(Pfn::new(0x10_0000 + table as u32), Rights::USER_WRITE),
            );
        }
        let mmu = world.mmu(0, own);
        let svm = world.machine.features.svm_asids.is_some();
        let mut machines = Machines {
            world,
            guest,
            guest_root,
            host_root,
            mmu,
            count: Count::default(),
            linear: [None; PLACES],
            physical: [None; PLACES],
            svm,
            ids: [1, 2],
            running: 0,
        };
        machines.enter(0);
        machines
    }

    fn state(&self) -> VmEntry {
        VmEntry {
            vpid: Some(Vpid(self.ids[self.running])),
            eptp: EPTP,
            cr0: Cr0 {
                paging: true,
                write_protect: true,
            },
            cr3: Cr3 {
                root: self.guest_root,
                pcid: pcid(0),
            },
            cr4: Cr4 {
                global_pages: true,
                ..Cr4::default()
            },
            privilege: Privilege::User,
        }
    }

    fn enter(&mut self, virtual_processor: usize) {
        self.running = virtual_processor;
        let state = self.state();
        self.mmu.vmrun(&mut self.count, state, TlbControl::Nothing);
    }

    fn change_guest(&mut self, place: usize, new: Place) {
        let start = LINEAR_AT + ((place as u64) << 30);
        clear(&mut self.guest, self.guest_root, start);
        // Each virtual processor flushes, global pages too.
        let running = self.running;
        for virtual_processor in [1 - running, running] {
            self.enter(virtual_processor);
            let on = self.state().cr4;
            self.mmu.mov_cr4(&mut self.count, Cr4::default()).unwrap();
            self.mmu.mov_cr4(&mut self.count, on).unwrap();
        }
        self.linear[place] = new.present.then_some(Leaf {
            size: new.size,
            target: (new.to as u32) << 18,
            rights: new.rights,
            global: new.global,
        });
        if let Some(leaf) = &self.linear[place] {
            fill(&mut self.guest, self.guest_root, start, leaf);
        }
    }

    fn change_host(&mut self, place: usize, new: Place) {
        let start = (place as u64) << 30;
        clear(&mut self.world.memory.tables, self.host_root, start);
        match (self.svm, new.global) {
            // Identifiers that nobody used stand for a flush (R22).
            (true, true) => {
                self.ids = self.ids.map(|id| id + 2);
                self.enter(self.running);
            }
            (true, false) => {
                let state = self.state();
                self.mmu.vmrun(&mut self.count, state, TlbControl::AllAsids);
            }
            (false, true) => self.mmu.invept(&mut self.count, InvEpt::Context(EPTP)),
            (false, false) => self.mmu.invept(&mut self.count, InvEpt::All),
        }
        self.physical[place] = new.present.then_some(Leaf {
            size: new.size,
            target: (new.to as u32 + 8) << 18,
            rights: new.rights | Rights::USER,
            global: false,
        });
        if let Some(leaf) = &self.physical[place] {
            fill(&mut self.world.memory.tables, self.host_root, start, leaf);
        }
    }

    fn access(&mut self, place: usize, inside: u64, access: Access) {
        let va = Va::new(LINEAR_AT + ((place as u64) << 30) + inside + 0x123);
        let mut nested = NestedTables {
            guest: &mut self.guest,
            tables_at: Gpa::new(TABLES_AT),
            host_root: self.host_root,
        };
        let (memory, count) = (&mut self.world.memory, &mut self.count);
        let got = self.mmu.translate_nested(memory, &mut nested, count, access, va);
        let got = got.map(|done| done.pfn.get());
        let needed = match access {
            Access::Read => Rights::USER,
            Access::Write => Rights::USER_WRITE,
            Access::Fetch => Rights::USER | Rights::EXEC,
        };
        let inside = (inside >> 12) as u32;
        let Some(guest) = self.linear[place].filter(|leaf| leaf.rights.contains(needed)) else {
            let present = self.linear[place].is_some();
            let Err(NestedFault::Guest(Fault::Page { va: at, code })) = got else {
                panic!("{got:?}")
            };
            assert_eq!((at, code.has(ErrorCode::PRESENT)), (va, present));
            return;
        };
        let page = guest.target + inside;
        let host = self.physical[(page >> 18) as usize];
        match host.filter(|leaf| leaf.rights.contains(needed)) {
            Some(host) => assert_eq!(got, Ok(host.target + (page & 0x3_ffff))),
            None => {
                let Err(NestedFault::Host { gpa, code }) = got else {
                    panic!("{got:?}")
                };
                assert_eq!(gpa.get() >> 12, u64::from(page));
                assert_eq!(code.has(ErrorCode::PRESENT), host.is_some());
            }
        }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Access(place, inside, access) => self.access(place, inside, access),
            Op::Guest(place, new) => self.change_guest(place, new),
            Op::Host(place, new) => self.change_host(place, new),
            Op::Enter(virtual_processor) => self.enter(virtual_processor),
            Op::Exit => {
                let state = self.state();
                let host = VmEntry {
                    vpid: Some(Vpid::HOST),
                    eptp: Eptp::NONE,
                    ..state
                };
                self.mmu.vm_transition(&mut self.count, host);
                self.mmu.vm_transition(&mut self.count, state);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_guest_sees_what_both_dimensions_say(
        machine in prop::sample::select(vec!["nehalem-2009", "barcelona-2008", "zen4-2022", "modern-2s"]),
        five in any::<bool>(),
        ops in prop::collection::vec(op(), 1..150),
    ) {
        let huge = Machine::preset(machine).unwrap().features.page_sizes.contains(PageSize::Size1G);
        let usual = |mut place: Place| {
            if !huge && place.size == PageSize::Size1G {
                place.size = PageSize::Size2M;
            }
            place
        };
        let mut machines = Machines::new(machine, five);
        for place in 0..PLACES {
            let size = usual(Place { size: PageSize::ALL[place % 3], present: true, rights: Rights::ALL, global: place == 1, to: place });
            machines.change_guest(place, size);
            machines.change_host(place, Place { global: false, ..size });
        }
        for op in &ops {
            let op = match op.clone() {
                Op::Guest(at, place) => Op::Guest(at, usual(place)),
                Op::Host(at, place) => Op::Host(at, usual(place)),
                other => other,
            };
            machines.step(&op);
            machines.count.check(machines.mmu.tlb());
        }
    }
}
