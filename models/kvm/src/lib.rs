//! KVM as a secondary MMU: sptes filled by vCPU faults, guest TLBs, and mmu notifiers that take both
//! away again.
//!
//! # Protocol
//!
//! Follows virt/kvm/kvm_main.c, arch/x86/kvm/{mmu,x86,vmx,svm}.c and include/linux/kvm_host.h of
//! 2.6.27 (secondary-mmus 1.1 to 1.8, notifier-variants 3.1); where a later release is imitated the
//! [`Version`] says from when on.
//!
//! A guest access looks into the vCPU's TLB. A miss walks the tables; a missing spte is a VM exit.
//! The fault handler holds mmap_sem for read, samples `mmu_notifier_seq`, gets the page with
//! `get_user_pages(write=1)`, drops mmap_sem, takes `mmu_lock`, and installs the spte only if
//! `mmu_notifier_count` is zero and `mmu_notifier_seq` is what it was; else the reference goes back
//! and the guest runs into the same fault again. Callbacks change the two counters and drop sptes
//! under `mmu_lock`, and flush the vCPUs' TLBs once, after it, if they dropped anything.
//!
//! A remote flush sets a request bit at every vCPU and interrupts each CPU a vCPU last ran on, other
//! than this one, guest mode or not; a vCPU whose bit is set already is passed over. The interrupt's
//! body is empty: a CPU in guest mode leaves it, and before a vCPU enters again it consumes its
//! request and drops its whole tagged TLB.
//!
//! # What the coherence oracle is told
//!
//! Two things can reach a frame: an spte, and a slot of a vCPU's TLB. The oracle counts for each
//! frame the translations that hold no reference (`Kernel::secondary_mapped`), and objects when a
//! frame with a count above zero is freed.
//!
//! * A TLB slot never holds a reference. It is counted when it is filled and uncounted when it is
//!   emptied, whatever the spte holds: while a reference exists the frame cannot be freed, and the
//!   count only matters once the last reference has gone.
//! * An spte that holds a reference (until 2.6.31, and always without notifiers) is a pin, not
//!   counted. An spte without one is counted from its installation until the flush that followed its
//!   removal is complete: a processor may have speculatively filled its TLB from it, so it is not
//!   gone when it is cleared. A reference is dropped after that flush
//!   ([`UnpinOrder::FlushFirst`]) or while the spte is cleared ([`UnpinOrder::UnpinFirst`]); in
//!   the second case only TLB slots remain counted, and if the reference was the last one, freeing
//!   the frame is found out at once (notifier-variants 10.17).
//! * TLB slots of a vCPU that is outside guest mode are unreachable from the moment its flush
//!   request is set, because it consumes the request before it enters; they are emptied then. Those
//!   of a vCPU in guest mode are emptied when all interrupts of that flush are acknowledged. In
//!   truth each vCPU loses its own at its own acknowledgement, a little earlier; nobody can free a
//!   frame in between, since the flush has not returned. The price of either (one `vm_flush`) is
//!   paid by the vCPU when it enters again.
//! * Slots of a vCPU outside guest mode that was not asked to flush stay counted: it could enter and
//!   use them.
//!
//! Each rmap entry and each TLB slot remembers the generation of its frame, and every use is checked
//! against it. The races of the original stay possible: flushing after `mmu_lock` (secondary-mmus
//! R-K3) before 4.9, and passing over a vCPU whose interrupt is still on its way (R-K4) before
//! 2.6.32.
//!
//! # Deviations
//!
//! * The guest's page tables map each address to itself and never change: guest-virtual equals
//!   guest-physical, a TLB slot holds the combined translation, and one look-up makes the references
//!   that the architecture says for two dimensions: all 24, since there are no guest tables for
//!   paging-structure caches and a nested TLB to remember. [`Paging::Direct`] is a guest with paging
//!   off on one-dimensional tables (`nonpaging_page_fault`): at most 4 references, less what the
//!   vCPU's paging-structure caches keep; they are emptied with its TLB.
//! * Every reference of a guest's walk is priced as a hit in the first-level cache
//!   ([`x86::walk_cost`]): the guest's own tables have no place in memory, and those of sptes do not
//!   compete with the host's for the caches. That changes the latency of walks only.
//! * A vCPU has a TLB of the machine's shape to itself; it does not compete with the host's entries
//!   on the same CPU. Machines without nested paging have no tags either (VPID and EPT both came
//!   with Nehalem), so there a vCPU starts with an empty TLB at each entry; on a tagged machine the
//!   TLB survives exits, and is lost when the vCPU moves to another CPU.
//! * Only 4 KiB sptes. Memory slots do not change, so `slots_lock` does not exist. Guest and host
//!   share page-size alignment. MMIO emulation ends as [`mm::Refused`].
//! * Shadow pages are never recycled: with one leaf for each 512 pages a pool of 2 % of the guest
//!   never runs out. Their frames are not taken from the simulated memory; making one is charged.
//! * `kvm_mmu_zap_all` flushes once for each shadow page that held leaves and once at the end; the
//!   original flushes for each upper page, too. The root stays.
//! * A CPU that leaves guest mode for an interrupt that is not KVM's enters again without consuming
//!   a pending request; the interrupt of the flush that set the request follows anyway.

mod age;
mod config;
mod fault;
mod flush;
mod metrics;
mod notifier;
mod slots;
mod vcpu;
mod vm;
mod work;
mod zap;

pub use config::{
    BadVersion, KvmConfig, MemSlot, Misfit, Notified, Paging, SpteReference, UnpinOrder, Version,
};
pub use metrics::KvmMetrics;
pub use notifier::NEEDS;
pub use vcpu::VcpuId;
pub use vm::{Kvm, LOCKS};
