//! Broadcast and virtualisation: rows R20 to R23 of the hardware reference.
#![allow(missing_docs)]

mod world;

use world::{APART, FAR, HERE, KERNEL, NEAR, World, cached, global, page, pcid};
use x86::mmu::{
    BroadcastRefused, Cr0, Cr3, Cr4, Eptp, Globals, InvEpt, InvVpid, Invlpgb, InvlpgbPages, Mmu, NestedFault,
    NestedTables, Network, TlbControl, VmEntry, Vpid,
};
use x86::{
    Access, CpuIndex, Entry, Gpa, Level, PageSize, PageTables, Pfn, Privilege, Rights, TableId, Va, Vpn, walk,
};

const SENDER: CpuIndex = CpuIndex::new(0);
const OTHER: CpuIndex = CpuIndex::new(1);
const ALL: [u64; 5] = [HERE, NEAR, APART, FAR, KERNEL];

/// Two CPUs of a machine with INVLPGB, everything cached on both, and the network between them.
struct Broadcast {
    world: World,
    mmus: Vec<Mmu>,
    network: Network,
}

impl Broadcast {
    fn new() -> Broadcast {
        let mut world = World::new("zen4-2022");
        let root = world.root();
        for (at, va) in ALL.into_iter().enumerate() {
            let entry = page(at as u32 + 1);
            world.map(root, va, if va == KERNEL { global(entry) } else { entry });
        }
        let mut mmus = vec![world.mmu(0, root), world.mmu(1, root)];
        for mmu in &mut mmus {
            for va in ALL {
                world.load(mmu, va).unwrap();
            }
        }
        let network = Network::new(2, world.machine.features.invlpgb_pages);
        Broadcast { world, mmus, network }
    }

    fn send(&mut self, what: Invlpgb) {
        self.network.invlpgb(SENDER, what).unwrap();
    }

    fn sync(&mut self) {
        self.network.tlbsync(SENDER, &mut self.mmus, &mut ());
    }

    fn held(&self, cpu: CpuIndex) -> Vec<u64> {
        let mmu = &self.mmus[cpu.get() as usize];
        ALL.into_iter().filter(|&va| cached(mmu, va)).collect()
    }
}

const EVERYTHING: Invlpgb = Invlpgb {
    asid: None,
    pcid: None,
    pages: None,
    globals: Globals::Kept,
};

fn pages(start: u64, count: u16, stride: PageSize) -> Invlpgb {
    Invlpgb {
        pages: Some(InvlpgbPages {
            start: Va::new(start),
            count,
            stride,
        }),
        ..EVERYTHING
    }
}

#[test]
fn r20_a_broadcast_is_complete_only_after_the_senders_tlbsync() {
    let mut b = Broadcast::new();
    b.send(pages(HERE, 1, PageSize::Size4K));
    assert!(
        b.held(OTHER).contains(&HERE),
        "another core may still use the page"
    );
    assert_eq!(b.world.load(&mut b.mmus[1], HERE), Ok(1));
    b.sync();
    for cpu in [SENDER, OTHER] {
        assert_eq!(b.held(cpu), [NEAR, APART, FAR, KERNEL]);
        assert!(!b.network.is_pending(cpu));
    }
}

#[test]
fn r20_a_core_may_apply_a_broadcast_before_the_tlbsync() {
    let mut b = Broadcast::new();
    b.send(pages(HERE, 1, PageSize::Size4K));
    b.network.deliver(OTHER, &mut b.mmus[1], &mut ());
    assert!(!b.held(OTHER).contains(&HERE));
    assert!(b.held(SENDER).contains(&HERE), "each core at its own time");
}

#[test]
fn r20_a_tlbsync_waits_for_what_its_own_core_sent() {
    let mut b = Broadcast::new();
    b.network.invlpgb(OTHER, pages(FAR, 1, PageSize::Size4K)).unwrap();
    b.sync();
    assert!(b.network.is_pending(SENDER) && b.network.is_pending(OTHER));
    assert!(b.held(SENDER).contains(&FAR));
}

#[test]
fn r20_one_broadcast_covers_at_most_eight_pages_of_either_stride() {
    let mut b = Broadcast::new();
    let refused = b.network.invlpgb(SENDER, pages(HERE, 9, PageSize::Size4K));
    assert_eq!(refused, Err(BroadcastRefused::TooManyPages { most: 8 }));
    b.send(pages(HERE, 8, PageSize::Size4K));
    b.sync();
    assert_eq!(b.held(OTHER), [APART, FAR, KERNEL], "eight pages of 4 KiB");
    b.send(pages(HERE, 8, PageSize::Size2M));
    b.sync();
    assert_eq!(b.held(OTHER), [FAR, KERNEL], "all that lies in eight times 2 MiB");
    let mut none = Network::new(2, World::new("skylake-sp-2017").machine.features.invlpgb_pages);
    assert_eq!(
        none.invlpgb(SENDER, EVERYTHING),
        Err(BroadcastRefused::Unsupported)
    );
}

#[test]
fn r20_a_broadcast_hits_what_fits_every_criterion() {
    let other_asid = Invlpgb {
        asid: Some(Vpid(9)),
        ..EVERYTHING
    };
    let other_pcid = Invlpgb {
        pcid: Some(pcid(9)),
        ..EVERYTHING
    };
    for what in [other_asid, other_pcid] {
        let mut b = Broadcast::new();
        b.send(what);
        b.sync();
        assert_eq!(b.held(OTHER), ALL, "{what:?}");
    }
    let mut b = Broadcast::new();
    b.send(EVERYTHING);
    b.sync();
    assert_eq!(b.held(OTHER), [KERNEL], "globals only if asked");
    b.send(Invlpgb {
        globals: Globals::Included,
        ..EVERYTHING
    });
    b.sync();
    assert_eq!(b.held(OTHER), []);
}

/// A host with a guest: the guest maps [`HERE`] to guest frame 5, the host that to frame 50.
struct Guest {
    world: World,
    mmu: Mmu,
    guest_tables: PageTables,
    guest_root: TableId,
    host_root: TableId,
}

const ONE: Vpid = Vpid(1);
const TWO: Vpid = Vpid(2);
const FIRST: Eptp = Eptp(1);
const SECOND: Eptp = Eptp(2);
const TABLES_AT: Gpa = Gpa::new(1 << 32);

impl Guest {
    fn new(machine: &str) -> Guest {
        let mut world = World::new(machine);
        let root = world.root();
        world.map(root, HERE, page(1));
        let host_root = world.root();
        let mut guest_tables = PageTables::new();
        let guest_root = guest_tables.alloc();
        let table = guest_tables.populate(guest_root, Va::new(HERE).vpn(), |_, _| {});
        guest_tables.set(table, Level::Pte.index(Va::new(HERE)), page(5));
        // The guest's page, and the guest frames of its tables.
        world.map(host_root, 5 << 12, page(50));
        for table in 0..8 {
            let gpa = TABLES_AT.get() + (table << 12);
            world.map(host_root, gpa, page(60 + table as u32));
        }
        let mut mmu = world.mmu(0, root);
        world.load(&mut mmu, HERE).unwrap();
        Guest {
            world,
            mmu,
            guest_tables,
            guest_root,
            host_root,
        }
    }

    fn state(&self, vpid: Option<Vpid>, eptp: Eptp) -> VmEntry {
        VmEntry {
            vpid,
            eptp,
            ..host_state(self.guest_root)
        }
    }

    fn access(&mut self) -> Result<u32, NestedFault> {
        let mut nested = NestedTables {
            guest: &mut self.guest_tables,
            tables_at: TABLES_AT,
            host_root: self.host_root,
        };
        self.mmu
            .translate_nested(
                &mut self.world.memory,
                &mut nested,
                &mut (),
                Access::Read,
                Va::new(HERE),
            )
            .map(|done| done.pfn.get())
    }

    /// Runs the guest for one access and goes back to the host.
    fn visit(&mut self, vpid: Option<Vpid>, eptp: Eptp) {
        let host = self.mmu.vm_transition(&mut (), self.state(vpid, eptp));
        assert_eq!(self.access(), Ok(50));
        self.mmu.vm_transition(&mut (), host);
    }

    /// Whether the guest's page is cached for a virtual processor.
    fn guest_holds(&mut self, vpid: Vpid, eptp: Eptp) -> bool {
        let host = self
            .mmu
            .vmrun(&mut (), self.state(Some(vpid), eptp), TlbControl::Nothing);
        let held = cached(&self.mmu, HERE);
        self.mmu.svm_exit(&mut (), host);
        held
    }
}

fn host_state(root: TableId) -> VmEntry {
    VmEntry {
        vpid: Some(Vpid::HOST),
        eptp: Eptp::NONE,
        cr0: Cr0 {
            paging: true,
            write_protect: true,
        },
        cr3: Cr3 { root, pcid: pcid(0) },
        cr4: Cr4 {
            global_pages: true,
            ..Cr4::default()
        },
        privilege: Privilege::User,
    }
}

#[test]
fn r21_entry_and_exit_with_a_vpid_flush_nothing() {
    let mut g = Guest::new("modern-2s");
    g.visit(Some(ONE), FIRST);
    assert!(cached(&g.mmu, HERE), "the host's own");
    assert!(g.guest_holds(ONE, FIRST));
}

#[test]
fn r21_entry_and_exit_without_a_vpid_flush_identifier_0() {
    let mut g = Guest::new("modern-2s");
    g.visit(Some(ONE), FIRST);
    g.visit(None, FIRST);
    assert!(!cached(&g.mmu, HERE), "the host's own went");
    assert!(g.guest_holds(ONE, FIRST), "another identifier's did not");
}

#[test]
fn r21_invvpid_drops_linear_and_combined_mappings_of_an_identifier() {
    let cases = [
        (InvVpid::Address(ONE, Va::new(HERE)), [false, true]),
        (InvVpid::Address(ONE, Va::new(NEAR)), [true, true]),
        (InvVpid::Context(ONE), [false, true]),
        (InvVpid::ContextButGlobals(ONE), [false, true]),
        (InvVpid::All, [false, false]),
    ];
    for (what, after) in cases {
        let mut g = Guest::new("modern-2s");
        g.visit(Some(ONE), FIRST);
        g.visit(Some(TWO), SECOND);
        g.mmu.invvpid(&mut (), what);
        assert_eq!(g.guest_holds(ONE, FIRST), after[0], "{what:?}");
        assert_eq!(g.guest_holds(TWO, SECOND), after[1], "{what:?}");
        assert!(cached(&g.mmu, HERE), "the host's identifier is 0: {what:?}");
    }
}

#[test]
fn r21_invvpid_type_3_keeps_global_pages() {
    let mut g = Guest::new("modern-2s");
    let table = g
        .guest_tables
        .populate(g.guest_root, Va::new(HERE).vpn(), |_, _| {});
    g.guest_tables
        .set(table, Level::Pte.index(Va::new(HERE)), global(page(5)));
    g.visit(Some(ONE), FIRST);
    g.mmu.invvpid(&mut (), InvVpid::ContextButGlobals(ONE));
    assert!(g.guest_holds(ONE, FIRST));
    g.mmu.invvpid(&mut (), InvVpid::Context(ONE));
    assert!(!g.guest_holds(ONE, FIRST));
}

#[test]
fn r21_invept_drops_combined_mappings_of_a_second_dimension() {
    for (what, second_stays) in [(InvEpt::Context(FIRST), true), (InvEpt::All, false)] {
        let mut g = Guest::new("modern-2s");
        g.visit(Some(ONE), FIRST);
        g.visit(Some(TWO), SECOND);
        g.mmu.invept(&mut (), what);
        assert!(!g.guest_holds(ONE, FIRST));
        assert_eq!(g.guest_holds(TWO, SECOND), second_stays);
        assert!(cached(&g.mmu, HERE), "the host's mappings are linear");
    }
}

#[test]
fn r21_invvpid_leaves_guest_physical_mappings_and_invept_does_not() {
    let references = |drop: fn(&mut Mmu)| {
        let mut g = Guest::new("modern-2s");
        let start = g.mmu.stats().data.total();
        g.visit(Some(ONE), FIRST);
        let cold = g.mmu.stats().data.total() - start;
        drop(&mut g.mmu);
        g.visit(Some(ONE), FIRST);
        (cold, g.mmu.stats().data.total() - start - cold)
    };
    let (cold, after) = references(|mmu| mmu.invept(&mut (), InvEpt::Context(FIRST)));
    assert_eq!(after, cold, "nothing was left of either dimension");
    let (cold, after) = references(|mmu| mmu.invvpid(&mut (), InvVpid::Context(ONE)));
    assert!(
        after < cold,
        "entries of the second dimension were kept: {after} of {cold}"
    );
}

#[test]
fn r21_a_guest_page_that_the_host_lacks_exits_and_one_the_guest_lacks_faults() {
    let mut g = Guest::new("modern-2s");
    g.world.map(g.host_root, 5 << 12, Entry::NONE);
    g.mmu.vm_transition(&mut (), g.state(Some(ONE), FIRST));
    let gpa = Gpa::new(5 << 12);
    assert!(matches!(g.access(), Err(NestedFault::Host { gpa: at, .. }) if at == gpa));
    g.guest_tables.free_pgd_range(
        g.guest_root,
        Va::new(HERE),
        Va::new(NEAR),
        Va::new(0),
        None,
        |_, _| {},
    );
    g.mmu.invvpid(&mut (), InvVpid::Context(ONE));
    assert!(matches!(g.access(), Err(NestedFault::Guest(_))));
}

#[test]
fn r22_tlb_control_says_what_vmrun_flushes() {
    let cases = [
        (TlbControl::Nothing, [true, true, true]),
        (TlbControl::ThisAsid, [false, true, true]),
        (TlbControl::ThisAsidButGlobals, [false, true, true]),
        (TlbControl::AllAsids, [false, false, false]),
    ];
    for (control, after) in cases {
        let mut g = Guest::new("barcelona-2008");
        g.visit(Some(ONE), FIRST);
        g.visit(Some(TWO), FIRST);
        let host = g.mmu.vmrun(&mut (), g.state(Some(ONE), FIRST), control);
        g.mmu.svm_exit(&mut (), host);
        let held = [
            g.guest_holds(ONE, FIRST),
            g.guest_holds(TWO, FIRST),
            cached(&g.mmu, HERE),
        ];
        assert_eq!(held, after, "{control:?}");
    }
}

#[test]
fn r22_a_new_asid_needs_no_flush() {
    let mut g = Guest::new("barcelona-2008");
    g.visit(Some(ONE), FIRST);
    assert!(!g.guest_holds(TWO, FIRST), "nothing of the old ASID is seen");
    assert!(g.guest_holds(ONE, FIRST), "and nothing was flushed");
}

/// Row R23: what a core that has acknowledged early, but not flushed yet, can still reach.
#[test]
fn r23_an_early_acknowledgement_is_safe_for_leaves_and_not_for_tables() {
    let mut world = World::new("modern-2s");
    let root = world.root();
    world.map(root, HERE, page(1));
    world.map(root, NEAR, page(2));
    let mut late = world.mmu(1, root);
    world.load(&mut late, HERE).unwrap();

    // A leaf: the frame is kept until the flush, so what the late core reads is the old page.
    world.map(root, HERE, Entry::NONE);
    assert_eq!(world.load(&mut late, HERE), Ok(1));

    // A table: freed at once and used again, it is a page of leaves to the walk that was under way.
    let table = world.table(root, Level::Pte, NEAR);
    let parent = world.table(root, Level::Pmd, NEAR);
    world
        .memory
        .tables
        .set(parent, Level::Pmd.index(Va::new(NEAR)), Entry::NONE);
    assert!(late.psc().leads_to(table));
    world.memory.tables.free(table);
    let again = world.memory.tables.alloc();
    assert_eq!(again, table, "another process's table");
    let stranger = Entry::leaf(Pfn::new(666), Rights::USER_WRITE);
    world
        .memory
        .tables
        .set(again, Level::Pte.index(Va::new(NEAR)), stranger);
    assert_eq!(world.load(&mut late, NEAR), Ok(666), "a page of somebody else");

    // A flush before the table is freed rules that out.
    late.invlpg(&mut (), Va::new(NEAR));
    assert!(!late.psc().leads_to(table));
    assert!(world.load(&mut late, NEAR).is_err());
    let vpn: Vpn = Va::new(NEAR).vpn();
    assert_eq!(
        walk(&mut world.memory.tables, root, vpn, Access::Read).references,
        3
    );
}
