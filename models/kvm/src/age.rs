//! `kvm_age_hva`: whether the guest used a page.
//!
//! Follows `kvm_mmu_notifier_clear_flush_young` of virt/kvm/kvm_main.c and `kvm_age_rmapp` of arch/x86/kvm/mmu.c,
//! 2.6.27 (secondary-mmus 1.5). Under mmu_lock the accessed bit of each spte of the page is tested and
//! cleared; if one was set, the guest's TLBs are flushed after the lock, so that the next access sets it again. An
//! extended page table (EPT) of that time has no accessed bits: the answer is always no, and a page that only the
//! guest uses looks cold to the host.
//!
//! The sequence of mmu_notifier_retry is not touched: a fault in flight installs a young spte, which is
//! right.
//!
//! Deviation: later releases zap the spte of an EPT without accessed bits instead; here all behave like 2.6.27.

use mm::account::PAGE_TABLE;
use mm::notifier::Young;
use sim::{Action, Cx};
use x86::{NestedPaging, Va, VaRange};

use crate::config::Paging;
use crate::vm::{Kvm, State};
use crate::work;

/// Whether the hardware notes in sptes that they were used (`shadow_accessed_mask`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AccessedBits {
    /// It does: shadow tables and NPT.
    Kept,
    /// It does not: EPT.
    None,
}

impl Kvm {
    pub(crate) fn accessed_bits(&self) -> AccessedBits {
        match (self.config.paging, self.machine.nested_paging) {
            (Paging::Tdp, NestedPaging::Ept) => AccessedBits::None,
            (Paging::Tdp | Paging::Direct, _) => AccessedBits::Kept,
        }
    }

    /// `kvm_mmu_notifier_clear_flush_young`.
    pub(crate) async fn clear_flush_young(&self, cx: &Cx, at: Va) -> Young {
        let young = {
            let _lock = cx.lock(self.mmu_lock).await;
            self.age_hva(cx, at).await
        };
        if young == Young::Yes {
            self.flush_remote_tlbs(cx).await;
        }
        young
    }

    /// `kvm_age_hva`, under mmu_lock.
    async fn age_hva(&self, cx: &Cx, at: Va) -> Young {
        let page = VaRange::page_of(at);
        let slots = self.st().slots.len();
        self.kernel().touch_lines(cx, slots * work::SLOT_COMPARE);
        cx.step(self.sptes_object(), Action::Write).await;
        if self.accessed_bits() == AccessedBits::None {
            return Young::No;
        }
        let mut st = self.st();
        let st: &mut State = &mut st;
        let mut young = Young::No;
        let mut visited = 0;
        for slot in st.slots.iter_mut() {
            for rmap in slot.covered(page).filter_map(|index| slot.rmap[index].as_ref()) {
                visited += 1;
                let spte = st.tables.get(rmap.table, rmap.index);
                if spte.accessed() {
                    st.tables.set(rmap.table, rmap.index, spte.without_accessed());
                    st.metrics.sptes_aged += 1;
                    young = Young::Yes;
                }
            }
        }
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access * visited);
        young
    }
}
