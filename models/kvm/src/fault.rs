//! The fault path.
//!
//! Follows `tdp_page_fault` and `nonpaging_page_fault` of arch/x86/kvm/mmu.c, 2.6.27, with
//! `mmu_notifier_retry` of include/linux/kvm_host.h (secondary-mmus 1.3): the reference got under
//! mmap_sem belongs to the spte afterwards, or goes back when the fault crossed an invalidation.
//! Without notifiers neither counter ever moves, which is the path of 2.6.26. From 2.6.32 on the
//! reference goes back right after the spte is set.
//!
//! `set_spte` of 2.6.27 sets the accessed and dirty bits at once, so a guest's first store through a
//! loaded translation does not walk again. The page is always asked for writing.

use mm::Refused;
use mm::account::{FAULT_KVM, PAGE_ALLOC, PAGE_COPY, PAGE_TABLE};
use sim::{Action, Cx, Mark, Scope};
use x86::{Access, Entry, Gfn, Level, Pfn, Rights, Vpn};

use crate::config::{Paging, SpteReference};
use crate::slots::Rmap;
use crate::vm::{Kvm, State};
use crate::work;
use crate::zap::Group;

static SPTE_SET: Mark = Mark {
    name: "set_spte",
    args: ["gfn", "pfn", "generation"],
    scope: Scope::Object,
};
static RETRY: Mark = Mark {
    name: "mmu_notifier_retry",
    args: ["gfn", "pfn", "count"],
    scope: Scope::Object,
};

enum Installed {
    /// A new spte.
    Fresh,
    /// Another vCPU had installed the same frame; it needs no reference of this fault.
    Already,
    /// Another frame was there, as can happen without notifiers.
    Replaced(Group),
}

impl Kvm {
    /// `kvm_mmu_page_fault`; the vCPU is outside the guest. Afterwards the guest tries again: the spte
    /// is there, or the fault crossed an invalidation and was discarded.
    pub(crate) async fn page_fault(&self, cx: &Cx, gfn: Gfn) -> Result<(), Refused> {
        let _span = cx.span(match self.config.paging {
            Paging::Tdp => "tdp_page_fault",
            Paging::Direct => "nonpaging_page_fault",
        });
        let _booking = cx.book_to(FAULT_KVM);
        let kernel = self.kernel();
        self.st().metrics.faults += 1;
        kernel.touch_lines(cx, work::TOPUP);
        let (seq, pfn) = match self.gfn_to_pfn(cx, gfn).await {
            Ok(got) => got,
            Err(refused) => {
                self.st().metrics.faults_refused += 1;
                return Err(refused);
            }
        };
        let installed = {
            let _lock = cx.lock(self.mmu_lock).await;
            if self.must_retry(cx, gfn, pfn, seq) {
                None
            } else {
                cx.step(self.sptes_object(), Action::Write).await;
                Some(self.install(cx, gfn, pfn).await)
            }
        };
        let spte_owns_it = matches!(installed, Some(Installed::Fresh | Installed::Replaced(_)))
            && self.spte_reference == SpteReference::Held;
        if !spte_owns_it {
            kernel.put_page(cx, pfn).await;
        }
        if let Some(Installed::Replaced(group)) = installed {
            self.flush_group(cx, group).await;
        }
        Ok(())
    }

    /// `mmu_notifier_seq`, then `gfn_to_pfn`, both under mmap_sem.
    async fn gfn_to_pfn(&self, cx: &Cx, gfn: Gfn) -> Result<(u64, Pfn), Refused> {
        let kernel = self.kernel();
        let _sem = cx.lock_shared(kernel.mmap_sem(self.mm)).await;
        let (seq, hva) = {
            let st = self.st();
            (st.notifier_seq, st.slots.hva(gfn))
        };
        let hva = hva.ok_or(Refused::NoMapping)?;
        let got = kernel.get_user_page(cx, self.mm, hva, Access::Write).await?;
        Ok((seq, got.pfn))
    }

    /// `mmu_notifier_retry`, under mmu_lock: first the count, then the sequence.
    fn must_retry(&self, cx: &Cx, gfn: Gfn, pfn: Pfn, seq: u64) -> bool {
        let mut st = self.st();
        let count = st.notifier_count;
        if count > 0 {
            st.metrics.retry_window += 1;
        } else if st.notifier_seq != seq {
            st.metrics.retry_seq += 1;
        } else {
            return false;
        }
        cx.mark(&RETRY, [gfn.get(), u64::from(pfn.get()), count]);
        true
    }

    /// `__direct_map` down to `mmu_set_spte`, under mmu_lock. The caller owns a reference to `pfn`.
    async fn install(&self, cx: &Cx, gfn: Gfn, pfn: Pfn) -> Installed {
        let kernel = self.kernel();
        let costs = &self.machine.costs;
        let vpn = Vpn::new(gfn.get());
        let generation = kernel.generation(pfn);
        let replaced = {
            let mut st = self.st();
            let st: &mut State = &mut st;
            let mut made = 0;
            let table = st.tables.populate(st.root, vpn, |_, _| made += 1);
            st.metrics.shadow_pages += made;
            cx.charge(PAGE_ALLOC, costs.page_alloc * made);
            cx.charge(PAGE_COPY, costs.clear_page * made);
            let index = Level::Pte.index_of(vpn);
            let old = st.tables.get(table, index);
            let spte = Entry::leaf(pfn, Rights::USER_WRITE.with(Rights::EXEC))
                .with_accessed()
                .with_dirty();
            st.tables.set(table, index, spte);
            cx.charge(PAGE_TABLE, costs.pte_access);
            if old.present() && old.pfn() == pfn {
                return Installed::Already;
            }
            let rmap = st.slots.rmap(gfn).expect("the fault found a slot");
            *rmap = Some(Rmap {
                table,
                index,
                generation,
            });
            st.metrics.sptes_installed += 1;
            if self.spte_reference == SpteReference::Held {
                let m = &mut st.metrics;
                m.pins_taken += 1;
                m.pins_end += 1;
                m.pins_max = m.pins_max.max(m.pins_end);
            }
            old.present().then_some(old)
        };
        kernel.touch_lines(cx, work::RMAP);
        match self.spte_reference {
            SpteReference::Held => kernel.keep_as_pin(cx, pfn),
            SpteReference::None => kernel.secondary_mapped(pfn),
        }
        let hva = self.st().slots.hva(gfn).expect("the fault found a slot");
        kernel.check_secondary_map(cx, self.mm, hva, &self.config.name);
        cx.mark(
            &SPTE_SET,
            [gfn.get(), u64::from(pfn.get()), u64::from(generation.get())],
        );
        match replaced {
            None => Installed::Fresh,
            Some(old) => Installed::Replaced(self.removed(cx, &[(gfn, old)]).await),
        }
    }
}
