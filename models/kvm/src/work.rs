//! Software work in units of hardware primitives: cache lines touched, each charged as
//! [`x86::Costs::cacheline_touch`]. No source gives these; they are inferred from the structures
//! involved and shift costs, never counts.

/// Comparing one address with one memory slot in `kvm_handle_hva`: the slot's line.
pub(crate) const SLOT_COMPARE: u64 = 1;
/// Reverse maps looked at for an address inside a slot: the 4 KiB one and the large-page one
/// (secondary-mmus 1.9).
pub(crate) const RMAP_VISIT: u64 = 2;
/// `rmap_add` or `rmap_remove` of one spte: the gfn's head and the shadow page's gfn array.
pub(crate) const RMAP: u64 = 2;
/// `mmu_topup_memory_caches` that finds its caches full.
pub(crate) const TOPUP: u64 = 3;
/// Setting the request bit of one vCPU and reading its CPU: the vCPU's line.
pub(crate) const REQUEST: u64 = 1;
/// Checks before guest entry (`vcpu_enter_guest`): requests, pending interrupts, timers.
pub(crate) const ENTRY_CHECKS: u64 = 2;
