//! A virtual machine: its configuration, its tables, its locks.

use std::cell::{RefCell, RefMut};
use std::rc::{Rc, Weak};

use mm::lock_order::{LockRow, SECONDARY, SECONDARY_INNER};
use mm::notifier::SubscriptionId;
use mm::{Kernel, MmId};
use sim::{Cx, LockId, LockKind, Object};
use x86::{Asid, Context, Gfn, Machine, PageTables, Pfn, TableId};

use crate::config::{KvmConfig, Notified, SpteReference};
use crate::metrics::KvmMetrics;
use crate::slots::Slots;
use crate::vcpu::Vcpu;

/// Class of a virtual machine's sptes among the objects of steps.
const SPTES: u16 = 0x10;
/// Class of a virtual machine's vCPU requests among the objects of steps.
const REQUESTS: u16 = 0x11;

/// Tag of the machine's translations in its vCPUs' TLBs (VPID or ASID). Each vCPU has a TLB to
/// itself, so one tag serves all machines; zero is the host's.
pub(crate) const GUEST: Context = Context {
    own: Asid::new(1),
    global: Context::UNTAGGED.global,
};

/// Frames whose counted sptes were removed by one group and are not flushed yet.
pub(crate) struct Draining {
    pub(crate) group: u64,
    pub(crate) pfns: Rc<[Pfn]>,
}

/// Plain data; no borrow of it lives across an await or a call that frees frames.
pub(crate) struct State {
    pub(crate) tables: PageTables,
    pub(crate) root: TableId,
    pub(crate) slots: Slots,
    pub(crate) vcpus: Vec<Vcpu>,
    /// `mmu_notifier_count`.
    pub(crate) notifier_count: u64,
    /// `mmu_notifier_seq`.
    pub(crate) notifier_seq: u64,
    pub(crate) draining: Vec<Draining>,
    /// Groups made so far; numbers them.
    pub(crate) groups: u64,
    /// Remote flushes begun so far; numbers them.
    pub(crate) flushes: u64,
    pub(crate) metrics: KvmMetrics,
    pub(crate) subscription: Option<SubscriptionId>,
}

/// Whether TLB entries carry a tag that lets them survive VM exits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TlbTags {
    Tagged,
    Untagged,
}

/// Callbacks take it, perhaps under a pte lock.
const MMU_LOCK: LockRow = LockRow::single(
    "mmu_lock",
    Some(SECONDARY),
    LockKind::Spin,
    "host-mm-paths E; virt/kvm/kvm_main.c 2.6.27",
);
/// Around a flush's requests, inside or after mmu_lock.
const REQUESTS_LOCK: LockRow = LockRow::single(
    "requests_lock",
    Some(SECONDARY_INNER),
    LockKind::Spin,
    "inferred from virt/kvm/kvm_main.c 2.6.32 (secondary-mmus 1.5)",
);

/// KVM's lock classes.
pub const LOCKS: [LockRow; 2] = [MMU_LOCK, REQUESTS_LOCK];

/// A virtual machine (`struct kvm`).
pub struct Kvm {
    pub(crate) config: KvmConfig,
    pub(crate) spte_reference: SpteReference,
    // The kernel's list of subscribers owns the machine, so the machine does not own the kernel.
    kernel: Weak<Kernel>,
    pub(crate) machine: Rc<Machine>,
    pub(crate) mm: MmId,
    pub(crate) tags: TlbTags,
    /// `mmu_lock`.
    pub(crate) mmu_lock: LockId,
    /// `requests_lock`, 2.6.32.
    pub(crate) requests_lock: LockId,
    number: u64,
    state: RefCell<State>,
}

impl Kvm {
    /// A virtual machine in an address space, without vCPUs and not registered yet; see
    /// [`Kvm::register`]. Follows `kvm_create_vm` and `kvm_mmu_load` (the root exists from the start).
    ///
    /// # Panics
    /// If [`KvmConfig::check`] refuses the configuration on this machine.
    #[must_use]
    pub fn new(kernel: &Rc<Kernel>, mm: MmId, config: KvmConfig) -> Rc<Kvm> {
        let machine = Rc::clone(&kernel.machine);
        if let Err(misfit) = config.check(&machine) {
            panic!("{}: {misfit}", config.name);
        }
        let lock = |row: &LockRow| {
            let class = kernel.engine().lock_class(row.class());
            kernel.engine().new_lock(class)
        };
        let mut tables = PageTables::new();
        let root = tables.alloc();
        Rc::new(Kvm {
            spte_reference: config.spte_reference(),
            kernel: Rc::downgrade(kernel),
            mm,
            tags: if machine.nested_paging.is_available() {
                TlbTags::Tagged
            } else {
                TlbTags::Untagged
            },
            machine,
            mmu_lock: lock(&MMU_LOCK),
            requests_lock: lock(&REQUESTS_LOCK),
            number: u64::from(kernel.id.0) << u32::BITS | mm.index() as u64,
            state: RefCell::new(State {
                tables,
                root,
                slots: Slots::new(&config.slots),
                vcpus: Vec::new(),
                notifier_count: 0,
                notifier_seq: 0,
                draining: Vec::new(),
                groups: 0,
                flushes: 0,
                metrics: KvmMetrics::default(),
                subscription: None,
            }),
            config,
        })
    }

    /// Becomes a subscriber of its address space (`kvm_init_mmu_notifier`); nothing under
    /// [`Notified::PinsOnly`]. [`Kvm::destroy`] takes the subscription back.
    pub async fn register(self: &Rc<Self>, cx: &Cx) {
        if self.config.notified == Notified::PinsOnly {
            return;
        }
        let kernel = self.kernel();
        let handler = Rc::clone(self);
        let id = kernel.mmu_notifier_register(cx, self.mm, handler).await;
        self.st().subscription = Some(id);
    }

    /// What it was built from.
    #[must_use]
    pub fn config(&self) -> &KvmConfig {
        &self.config
    }

    /// The address space behind guest memory.
    #[must_use]
    pub fn mm(&self) -> MmId {
        self.mm
    }

    /// Whether each spte holds a page reference.
    #[must_use]
    pub fn spte_reference(&self) -> SpteReference {
        self.spte_reference
    }

    /// Size of guest memory, all slots together.
    #[must_use]
    pub fn guest_pages(&self) -> u64 {
        self.st().slots.pages()
    }

    /// The n-th page of guest memory, counting through the slots in the order of the configuration;
    /// `None` beyond the last.
    #[must_use]
    pub fn gfn_of_index(&self, index: u64) -> Option<Gfn> {
        self.st().slots.gfn_of_index(index)
    }

    /// Counters so far, with what the vCPUs' TLBs counted themselves.
    #[must_use]
    pub fn metrics(&self) -> KvmMetrics {
        let st = self.st();
        let mut m = st.metrics.clone();
        for vcpu in &st.vcpus {
            let stats = vcpu.tlb.stats();
            m.tlb_hits += (stats.l1_hits + stats.l2_hits).total();
            m.tlb_misses += stats.misses.total();
            m.tlb_flushed += stats.flushed_entries;
        }
        m
    }

    pub(crate) fn kernel(&self) -> Rc<Kernel> {
        self.kernel
            .upgrade()
            .expect("the kernel outlives its virtual machines")
    }

    #[inline]
    pub(crate) fn st(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    pub(crate) fn sptes_object(&self) -> Object {
        Object::Other(SPTES, self.number)
    }

    pub(crate) fn requests_object(&self) -> Object {
        Object::Other(REQUESTS, self.number)
    }
}
