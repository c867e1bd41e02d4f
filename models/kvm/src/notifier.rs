//! The mmu notifier's callbacks.
//!
//! Follows `kvm_mmu_notifier_ops` of virt/kvm/kvm_main.c, 2.6.27 (secondary-mmus 1.5): everything
//! under mmu_lock, the flush after it (before it is released from 4.9 on). The end of a bracket
//! raises the sequence before it lowers the count. `release` does nothing before 2.6.29.

use std::rc::Rc;

use mm::notifier::{
    AgeFuture, CallbackFuture, MmuKind, Needs, PinAbility, Sleepable, Subscriber, UNBALANCED_BRACKET,
};
use sim::Cx;
use x86::{Pfn, Va, VaRange};

use crate::config::SpteReference;
use crate::vm::Kvm;

/// What KVM needs of a design: its callbacks do not sleep, and an spte can hold a reference.
pub const NEEDS: Needs = Needs {
    sleeps: Sleepable::No,
    pins: PinAbility::CanPin,
};

/// What a callback does to the counters when it takes mmu_lock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Announce {
    /// One page, or a block, without a window: faults in flight are discarded.
    Sequence,
    /// A window opens.
    Window,
}

impl Kvm {
    async fn invalidate(&self, cx: &Cx, range: VaRange, announce: Announce) {
        let group = {
            let _lock = cx.lock(self.mmu_lock).await;
            {
                let mut st = self.st();
                match announce {
                    Announce::Sequence => st.notifier_seq += 1,
                    Announce::Window => st.notifier_count += 1,
                }
            }
            let group = self.unmap_hva_range(cx, range).await;
            if self.config.version.flushes_under_mmu_lock() {
                self.flush_group(cx, group).await;
                return;
            }
            group
        };
        self.flush_group(cx, group).await;
    }

    async fn window_closes(&self, cx: &Cx) {
        let _lock = cx.lock(self.mmu_lock).await;
        let mut st = self.st();
        st.notifier_seq += 1;
        let Some(count) = st.notifier_count.checked_sub(1) else {
            drop(st);
            let text = format!("{} closes a bracket that it never saw open", self.config.name);
            cx.engine().violate(UNBALANCED_BRACKET, text, None);
            return;
        };
        st.notifier_count = count;
    }
}

impl Subscriber for Kvm {
    fn name(&self) -> Rc<str> {
        Rc::clone(&self.config.name)
    }

    fn kind(&self) -> MmuKind {
        MmuKind::Kvm
    }

    fn invalidate_page<'a>(&'a self, cx: &'a Cx, at: Va) -> CallbackFuture<'a> {
        Box::pin(async move {
            let _span = cx.span("kvm_mmu_notifier_invalidate_page");
            self.invalidate(cx, VaRange::page_of(at), Announce::Sequence)
                .await;
        })
    }

    fn invalidate_range_start<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a> {
        Box::pin(async move {
            let _span = cx.span("kvm_mmu_notifier_invalidate_range_start");
            self.invalidate(cx, range, Announce::Window).await;
        })
    }

    fn invalidate_range_end<'a>(&'a self, cx: &'a Cx, _range: VaRange) -> CallbackFuture<'a> {
        Box::pin(async move {
            let _span = cx.span("kvm_mmu_notifier_invalidate_range_end");
            self.window_closes(cx).await;
        })
    }

    fn invalidate_pages<'a>(&'a self, cx: &'a Cx, range: VaRange) -> CallbackFuture<'a> {
        Box::pin(async move {
            let _span = cx.span("kvm_mmu_notifier_invalidate_pages");
            self.invalidate(cx, range, Announce::Sequence).await;
        })
    }

    fn clear_flush_young<'a>(&'a self, cx: &'a Cx, at: Va) -> AgeFuture<'a> {
        Box::pin(async move {
            let _span = cx.span("kvm_mmu_notifier_clear_flush_young");
            Kvm::clear_flush_young(self, cx, at).await
        })
    }

    fn release<'a>(&'a self, cx: &'a Cx) -> CallbackFuture<'a> {
        Box::pin(async move {
            let _span = cx.span("kvm_mmu_notifier_release");
            if self.config.version.release_zaps() {
                self.zap_all(cx).await;
            }
        })
    }

    fn reaches(&self, pfn: Pfn) -> bool {
        let st = self.st();
        let cached = || st.vcpus.iter().any(|v| v.tlb.holds_pfn(pfn).is_some());
        let draining = || st.draining.iter().any(|d| d.pfns.contains(&pfn));
        let mapped = || {
            let mut heads = st.slots.iter().flat_map(|s| s.rmap.iter().flatten());
            self.spte_reference == SpteReference::None
                && heads.any(|r| st.tables.get(r.table, r.index).pfn() == pfn)
        };
        cached() || draining() || mapped()
    }
}
