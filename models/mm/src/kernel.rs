//! A kernel instance: its memory, its CPUs, its locks.
//!
//! A [`World`](crate::world::World) holds several kernels (XPMEM partitions) over one set of frames. State is
//! plain data behind one `RefCell` a kernel; no borrow of it lives across an await. Paths are methods of
//! [`Kernel`], one kernel path a file in `paths/`.

use std::cell::{RefCell, RefMut};
use std::rc::{Rc, Weak};

use sim::{ClassId, CpuId, CpuSet, Cx, Cycles, DomainId, Engine, LockId, ReaderKind, TaskId};
use x86::cache::Served;
use x86::psc::Psc;
use x86::{Asid, CpuIndex, Machine, PageTables, Pfn, TableId, Tlb, TlbStats, Va, Vpn};

use crate::access::Cached;
use crate::disk::Disks;
use crate::file::{AddressSpace, FileKind};
use crate::frame::{Frames, Zone};
use crate::hugetlb::Hugetlb;
use crate::lock_order::{self, HostLock};
use crate::lru::Pagevecs;
use crate::metrics::MmMetrics;
use crate::mm::{AnonVma, AnonVmaId, Mm, MmId, Notified, OnMmlist};
use crate::notifier::{Design, Subscription, Table};
use crate::page_lock::PageLocks;
use crate::paths::ReclaimState;
use crate::profile::KernelProfile;
use crate::swap::Swap;
use crate::vma::{Vma, VmaId, VmaTree};
use crate::walk::Walks;
use crate::watch::OpenBracket;
use crate::world::KernelSpec;
use crate::{FileId, account};

/// Number of a kernel in its world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KernelId(pub u8);

/// Lazy-TLB state of a CPU (`mmu_state`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum TlbState {
    /// Runs a task of `active_mm`.
    Ok,
    /// Runs a kernel thread or idles with `active_mm` still loaded.
    Lazy,
}

/// What a CPU executes besides the host kernel; decides what an interrupt costs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum CpuMode {
    /// Host code.
    Host,
    /// A guest: any interrupt forces a VM exit first.
    Guest,
}

/// State of one CPU (`pda`).
pub struct CpuState {
    /// Its TLB.
    pub tlb: Tlb,
    /// Its paging-structure caches.
    pub psc: Psc,
    /// `active_mm`.
    pub active_mm: Option<MmId>,
    /// `mmu_state`.
    pub tlb_state: TlbState,
    /// Host or guest.
    pub mode: CpuMode,
    /// Pages on their way to the LRU lists.
    pub pagevecs: Pagevecs,
}

impl CpuState {
    fn new(machine: &Machine) -> Self {
        CpuState {
            tlb: Tlb::new(&machine.tlb),
            psc: Psc::new(&machine.psc),
            active_mm: None,
            tlb_state: TlbState::Lazy,
            mode: CpuMode::Host,
            pagevecs: Pagevecs::default(),
        }
    }

    /// A write to CR3: everything cached of the address space goes, the oracle hears of translations
    /// (hardware-costs R5; nothing is global here).
    pub(crate) fn flush_all(&mut self, frames: &mut Frames) {
        self.tlb.flush_all(frames);
        self.psc.flush_all();
    }

    /// INVLPG: the translation of one page goes, and all upper-level entries whatever their address
    /// (hardware-costs R1; there is one PCID).
    pub(crate) fn flush_one(&mut self, frames: &mut Frames, va: Va) {
        self.tlb.invalidate_page(Asid::UNTAGGED, va.vpn(), frames);
        self.psc.flush_all();
    }

    /// A page fault: what was used for the page goes (hardware-costs R10).
    pub(crate) fn page_fault(&mut self, frames: &mut Frames, vpn: Vpn, cached: Cached) {
        if cached != Cached::Absent {
            self.tlb.invalidate_page(Asid::UNTAGGED, vpn, frames);
        }
        self.psc.invalidate_page(Asid::UNTAGGED, vpn);
    }
}

/// Plain data of a kernel.
pub struct State {
    /// Address spaces.
    pub mms: Vec<Mm>,
    /// VMAs; entries of removed ones stay.
    pub vmas: Vec<Vma>,
    /// Address space of each VMA.
    pub vma_mm: Vec<MmId>,
    /// Files.
    pub files: Vec<AddressSpace>,
    /// anon_vmas.
    pub anon_vmas: Vec<AnonVma>,
    /// anon_vmas that were given back, the last one at the end.
    pub(crate) free_anon_vmas: Vec<AnonVmaId>,
    /// `empty_zero_page`, once somebody has read untouched memory through get_user_pages.
    pub(crate) zero_page: Option<Pfn>,
    /// Page tables of all address spaces.
    pub tables: PageTables,
    /// pte lock of each page table, by table number.
    pub pte_locks: Vec<Option<LockId>>,
    /// CPUs of this kernel.
    pub cpus: Vec<CpuState>,
    /// Address space of each task (`task->mm`), by task number.
    pub task_mm: Vec<Option<MmId>>,
    /// Subscribers of all address spaces.
    pub subscriptions: Vec<Subscription>,
    /// Brackets that subscribers heard open and not close yet.
    pub(crate) open_brackets: Vec<OpenBracket>,
    /// Counters.
    pub metrics: MmMetrics,
    /// The swap device and the swap cache.
    pub swap: Swap,
    /// Block devices, and who waits for pages.
    pub(crate) disks: Disks,
    /// What reclaim remembers.
    pub(crate) reclaim: ReclaimState,
    /// PG_locked of the pages that were ever locked.
    pub(crate) page_locks: PageLocks,
    /// What the walkers of all CPUs share.
    pub(crate) walks: Walks,
    /// Huge pages: promises and shared tables.
    pub(crate) hugetlb: Hugetlb,
    /// What the TLBs had counted when measuring began.
    tlb_before: TlbStats,
}

/// Lock classes, named as in the era of the profile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Classes {
    pub(crate) mmap_sem: ClassId,
    pub(crate) page_table_lock: ClassId,
    pub(crate) pte: ClassId,
    pub(crate) i_mmap_lock: ClassId,
    pub(crate) anon_vma: ClassId,
    pub(crate) page_locked: ClassId,
    pub(crate) i_mutex: ClassId,
    pub(crate) hugetlbfs_i_mutex: ClassId,
    pub(crate) i_alloc_sem: ClassId,
    pub(crate) tree_lock: ClassId,
    pub(crate) notifier: ClassId,
}

/// Well-known locks of a kernel.
pub(crate) struct Locks {
    pub(crate) lru_lock: LockId,
    pub(crate) mm_all_locks: LockId,
    /// `hugetlb_instantiation_mutex`.
    pub(crate) hugetlb: LockId,
    /// tree_lock of `swapper_space`.
    pub(crate) swapper_tree_lock: LockId,
    /// Slots of the swap device.
    pub(crate) swap_lock: LockId,
    /// Address spaces that have swap entries (`init_mm.mmlist`).
    pub(crate) mmlist_lock: LockId,
    pub(crate) tlb_slots: Vec<LockId>,
}

/// A kernel.
pub struct Kernel {
    /// Number in the world.
    pub id: KernelId,
    /// Name of the partition.
    pub name: Rc<str>,
    /// Profile.
    pub profile: KernelProfile,
    /// Notifier design.
    pub design: Design,
    pub(crate) table: Table,
    /// Machine.
    pub machine: Rc<Machine>,
    pub(crate) engine: Rc<Engine>,
    /// Itself, for the tasks it starts.
    pub(crate) me: Weak<Kernel>,
    pub(crate) frames: Rc<RefCell<Frames>>,
    pub(crate) zone: Zone,
    pub(crate) first_cpu: CpuId,
    pub(crate) classes: Classes,
    pub(crate) locks: Locks,
    /// RCU of this kernel.
    pub(crate) rcu: DomainId,
    /// SRCU of the notifier core.
    pub(crate) srcu: DomainId,
    pub(crate) state: RefCell<State>,
}

/// Number of invalidate-TLB vectors and slots, 2.6.27 include/asm-x86/irq_vectors.h.
const TLB_SLOTS: usize = x86::ipi::INVALIDATE_VECTORS;

/// `CALL_FUNCTION_VECTOR`, 2.6.27 include/asm-x86/irq_vectors.h: smp_call_function_mask.
pub const CALL_FUNCTION_VECTOR: u8 = 0xfc;

/// Shortest classic RCU grace period, in nanoseconds: about one timer tick at HZ=250 until every
/// CPU has passed a quiescent state (inferred; range 1 to 20 ms).
const RCU_GRACE_PERIOD_NS: u64 = 4_000_000;

/// Shortest SRCU grace period, in nanoseconds: `synchronize_srcu` of 2.6.27 waits for three
/// `synchronize_sched` (kernel/srcu.c), so three RCU grace periods.
const SRCU_GRACE_PERIOD_NS: u64 = 3 * RCU_GRACE_PERIOD_NS;

/// Page-table entries in a cache line: 8 bytes each (include/asm-x86/pgtable_64.h 2.6.27) of 64.
const PTES_PER_LINE: u64 = 8;

/// Highest user address below which mmap places mappings (x86-64 TASK_UNMAPPED area, top-down).
const MMAP_BASE: u64 = 0x7f00_0000_0000;

impl Classes {
    fn declare(engine: &Engine, profile: &KernelProfile) -> Self {
        let class = |lock| engine.lock_class(lock_order::row_of(lock, profile).class());
        Classes {
            mmap_sem: class(HostLock::MmapSem),
            page_table_lock: class(HostLock::PageTable),
            pte: class(HostLock::Pte),
            i_mmap_lock: class(HostLock::IMmap),
            anon_vma: class(HostLock::AnonVma),
            page_locked: class(HostLock::PageLocked),
            i_mutex: class(HostLock::IMutex),
            hugetlbfs_i_mutex: class(HostLock::HugetlbfsIMutex),
            i_alloc_sem: class(HostLock::IAllocSem),
            tree_lock: class(HostLock::Tree),
            notifier: class(HostLock::Notifier),
        }
    }
}

impl Locks {
    fn make(engine: &Engine, profile: &KernelProfile) -> Self {
        let lock = |lock| engine.new_lock(engine.lock_class(lock_order::row_of(lock, profile).class()));
        Locks {
            lru_lock: lock(HostLock::Lru),
            mm_all_locks: lock(HostLock::MmAllLocks),
            hugetlb: lock(HostLock::HugetlbInstantiation),
            swapper_tree_lock: lock(HostLock::Tree),
            swap_lock: lock(HostLock::Swap),
            mmlist_lock: lock(HostLock::Mmlist),
            tlb_slots: (0..TLB_SLOTS).map(|_| lock(HostLock::TlbState)).collect(),
        }
    }
}

impl Kernel {
    /// A kernel with all of the machine's memory, and no process yet.
    pub(crate) fn boot(
        spec: KernelSpec,
        id: KernelId,
        engine: &Rc<Engine>,
        machine: &Rc<Machine>,
        frames: &Rc<RefCell<Frames>>,
    ) -> Rc<Self> {
        let zone = frames.borrow_mut().add_zone(machine.memory_pages);
        let classes = Classes::declare(engine, &spec.profile);
        let locks = Locks::make(engine, &spec.profile);
        let kernel = Rc::new_cyclic(|me| Kernel {
            id,
            name: spec.name,
            profile: spec.profile,
            table: Table::of(&spec.design),
            design: spec.design,
            machine: Rc::clone(machine),
            engine: Rc::clone(engine),
            me: Weak::clone(me),
            frames: Rc::clone(frames),
            zone,
            first_cpu: spec.first_cpu,
            classes,
            locks,
            rcu: engine.domain(ReaderKind::Rcu, machine.ns(RCU_GRACE_PERIOD_NS)),
            srcu: engine.domain(ReaderKind::Srcu, machine.ns(SRCU_GRACE_PERIOD_NS)),
            state: RefCell::new(State::new(machine, spec.cpus)),
        });
        kernel.set_memory(machine.memory_pages);
        kernel
    }

    /// State, for the paths; never held across an await.
    #[inline]
    pub fn st(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// Frames of the world.
    #[inline]
    pub fn frames(&self) -> RefMut<'_, Frames> {
        self.frames.borrow_mut()
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Rc<Engine> {
        &self.engine
    }

    /// This kernel's zone of memory.
    #[must_use]
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// CPU number within this kernel.
    #[inline]
    #[must_use]
    pub fn local(&self, cpu: CpuId) -> usize {
        cpu.index() - self.first_cpu.index()
    }

    /// CPU number within the machine this kernel runs on.
    #[inline]
    pub(crate) fn index(&self, cpu: CpuId) -> CpuIndex {
        CpuIndex::new(self.local(cpu) as u32)
    }

    /// Global number of this kernel's n-th CPU.
    #[must_use]
    pub fn cpu(&self, local: u32) -> CpuId {
        CpuId::new((self.first_cpu.index() + local as usize) as u16)
    }

    /// Number of CPUs.
    #[must_use]
    pub fn nr_cpus(&self) -> usize {
        self.state.borrow().cpus.len()
    }

    /// Charges a number of touched cache lines as software bookkeeping.
    #[inline]
    pub fn touch_lines(&self, cx: &Cx, lines: u64) {
        cx.charge(account::BOOKKEEPING, self.machine.costs.cacheline_touch * lines);
    }

    /// Passing over a page-table entry in a walk of a table, without touching a page for it.
    #[inline]
    pub(crate) fn none_pte_cost(&self) -> Cycles {
        Cycles::new(self.machine.costs.cacheline_touch.get() / PTES_PER_LINE)
    }

    /// Creates an empty address space with one user.
    pub fn new_mm(&self, name: Rc<str>) -> MmId {
        let lock = |class| self.engine.new_lock(class);
        let mut st = self.st();
        let pgd = st.tables.alloc();
        st.walks.reserve(pgd);
        let slots = st.pte_locks.len().max(pgd.get() as usize + 1);
        st.pte_locks.resize(slots, None);
        st.mms.push(Mm {
            name,
            vmas: VmaTree::default(),
            pgd,
            users: 1,
            mmap_sem: lock(self.classes.mmap_sem),
            page_table_lock: lock(self.classes.page_table_lock),
            cpu_vm_mask: CpuSet::EMPTY,
            file_rss: 0,
            anon_rss: 0,
            nr_ptes: 0,
            locked_vm: 0,
            def_locked: crate::vma::Locked::No,
            subscribers: Vec::new(),
            notified: Notified::Never,
            notifier_lock: lock(self.classes.notifier),
            brk: None,
            mmap_base: Va::new(MMAP_BASE),
            on_mmlist: OnMmlist::No,
        });
        MmId((st.mms.len() - 1) as u32)
    }

    /// Creates a file of `pages` pages on a disk, nothing of it cached.
    pub fn new_file(&self, name: &str, pages: u64) -> FileId {
        self.new_file_of(FileKind::Disk, name, pages)
    }

    /// Creates a file of `pages` pages, nothing of it cached.
    pub fn new_file_of(&self, kind: FileKind, name: &str, pages: u64) -> FileId {
        let lock = |class| self.engine.new_lock(class);
        let mut st = self.st();
        st.files.push(AddressSpace {
            name: name.to_owned(),
            kind,
            size: pages,
            pages: crate::radix_tree::RadixTree::new(),
            on_disk: std::collections::BTreeSet::new(),
            i_mmap: crate::i_mmap::IMmap::new(self.profile.i_mmap_index),
            i_mmap_nonlinear: Vec::new(),
            // Not page aligned, as the counter must never look like a restart address.
            truncate_count: 1,
            i_mmap_lock: lock(self.classes.i_mmap_lock),
            tree_lock: lock(self.classes.tree_lock),
            i_mutex: lock(self.classes.i_mutex),
            i_alloc_sem: lock(self.classes.i_alloc_sem),
            shmem: crate::file::ShmemInode::EMPTY,
        });
        FileId((st.files.len() - 1) as u32)
    }

    /// `anon_vma_alloc`: the object freed last, if there is one, with the lock it always had.
    pub(crate) fn new_anon_vma(&self, st: &mut State) -> AnonVmaId {
        if let Some(recycled) = st.free_anon_vmas.pop() {
            return recycled;
        }
        let lock = self.engine.new_lock(self.classes.anon_vma);
        st.anon_vmas.push(AnonVma {
            vmas: Vec::new(),
            lock,
        });
        AnonVmaId((st.anon_vmas.len() - 1) as u32)
    }

    /// Says which address space a task runs in (`task->mm`). Takes effect at its next switch.
    pub fn set_task_mm(&self, task: TaskId, mm: Option<MmId>) {
        let mut st = self.st();
        let need = task.index() + 1;
        if st.task_mm.len() < need {
            st.task_mm.resize(need, None);
        }
        st.task_mm[task.index()] = mm;
    }

    /// `task->mm`.
    #[must_use]
    pub fn task_mm(&self, task: TaskId) -> Option<MmId> {
        self.state.borrow().task_mm.get(task.index()).copied().flatten()
    }

    /// Forgets what was counted so far; what happened before was preparation.
    pub fn start_measuring(&self) {
        let mut st = self.st();
        st.metrics = MmMetrics::default();
        st.metrics.swap_slots_max = st.swap.in_use();
        st.tlb_before = st.tlb_totals();
        st.walks.start_measuring();
        for subscription in &st.subscriptions {
            subscription.reset_counts();
        }
        self.frames().start_measuring();
    }

    /// Counters so far, with what the hardware counted itself.
    #[must_use]
    pub fn metrics(&self) -> MmMetrics {
        let st = self.state.borrow();
        let mut m = st.metrics.clone();
        let (now, before) = (st.tlb_totals(), &st.tlb_before);
        m.tlb_l1_hits = now.l1_hits.total() - before.l1_hits.total();
        m.tlb_l2_hits = now.l2_hits.total() - before.l2_hits.total();
        m.tlb_misses = now.misses.total() - before.misses.total();
        let (served, dirty_assists) = st.walks.counted();
        m.walk_references = served.total();
        m.walk_l1 = served.by(Served::L1);
        m.walk_l2 = served.by(Served::L2);
        m.walk_llc = served.by(Served::Llc);
        m.walk_memory = served.by(Served::Memory);
        m.walk_remote = served.by(Served::Remote);
        m.walk_dirty_assists = dirty_assists;
        let mut frames = self.frames();
        m.pages_in_use_max = frames.in_use(self.zone).1;
        m.huge_in_use_max = frames.huge_pool(self.zone).most_in_use();
        (m.pages_allocated, m.pages_freed) = frames.turnover(self.zone);
        (m.pages_pinned_end, m.pages_pinned_max) = frames.pinned();
        m.preempt_depth_max = u64::from(self.engine.max_preempt_depth());
        m
    }

    /// The mmap_sem of an address space, for drivers that take it themselves.
    #[must_use]
    pub fn mmap_sem(&self, mm: MmId) -> LockId {
        self.state.borrow().mms[mm.index()].mmap_sem
    }
}

impl State {
    fn new(machine: &Machine, cpus: u32) -> Self {
        State {
            mms: Vec::new(),
            vmas: Vec::new(),
            vma_mm: Vec::new(),
            files: Vec::new(),
            anon_vmas: Vec::new(),
            free_anon_vmas: Vec::new(),
            zero_page: None,
            tables: PageTables::new(),
            pte_locks: Vec::new(),
            cpus: (0..cpus).map(|_| CpuState::new(machine)).collect(),
            task_mm: Vec::new(),
            subscriptions: Vec::new(),
            open_brackets: Vec::new(),
            metrics: MmMetrics::default(),
            swap: Swap::default(),
            disks: Disks::default(),
            reclaim: ReclaimState::default(),
            page_locks: PageLocks::default(),
            walks: Walks::new(machine, cpus),
            hugetlb: Hugetlb::default(),
            tlb_before: TlbStats::default(),
        }
    }

    fn tlb_totals(&self) -> TlbStats {
        let mut sum = TlbStats::default();
        for stats in self.cpus.iter().map(|cpu| cpu.tlb.stats()) {
            sum.l1_hits += stats.l1_hits;
            sum.l2_hits += stats.l2_hits;
            sum.misses += stats.misses;
        }
        sum
    }

    /// An address space.
    #[inline]
    #[must_use]
    pub fn mm(&self, id: MmId) -> &Mm {
        &self.mms[id.index()]
    }

    /// An address space, to be changed.
    #[inline]
    pub fn mm_mut(&mut self, id: MmId) -> &mut Mm {
        &mut self.mms[id.index()]
    }

    /// A VMA.
    #[inline]
    #[must_use]
    pub fn vma(&self, id: VmaId) -> &Vma {
        &self.vmas[id.0 as usize]
    }

    /// A VMA, to be changed.
    #[inline]
    pub fn vma_mut(&mut self, id: VmaId) -> &mut Vma {
        &mut self.vmas[id.0 as usize]
    }

    /// A file.
    #[inline]
    #[must_use]
    pub fn file(&self, id: FileId) -> &AddressSpace {
        &self.files[id.0 as usize]
    }

    /// A file, to be changed.
    #[inline]
    pub fn file_mut(&mut self, id: FileId) -> &mut AddressSpace {
        &mut self.files[id.0 as usize]
    }

    /// An anon_vma.
    #[must_use]
    pub fn anon_vma(&self, id: AnonVmaId) -> &AnonVma {
        &self.anon_vmas[id.0 as usize]
    }

    /// An anon_vma, to be changed.
    pub fn anon_vma_mut(&mut self, id: AnonVmaId) -> &mut AnonVma {
        &mut self.anon_vmas[id.0 as usize]
    }

    pub(crate) fn add_vma(&mut self, mm: MmId, vma: Vma) -> VmaId {
        self.vmas.push(vma);
        self.vma_mm.push(mm);
        VmaId((self.vmas.len() - 1) as u32)
    }

    /// Address space of a VMA (`vma->vm_mm`).
    #[must_use]
    pub fn mm_of(&self, vma: VmaId) -> MmId {
        self.vma_mm[vma.0 as usize]
    }

    /// The pte lock of a page table.
    ///
    /// # Panics
    /// If the table is not a page table of the lowest level.
    #[inline]
    #[must_use]
    pub fn ptl(&self, table: TableId) -> LockId {
        self.pte_locks[table.get() as usize].expect("a page table has a lock")
    }
}
