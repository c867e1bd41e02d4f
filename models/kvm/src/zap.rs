//! Removing sptes: `kvm_unmap_hva` for the callbacks and `kvm_mmu_zap_all` for everything.
//!
//! Follows `kvm_handle_hva`, `rmap_remove`, `kvm_mmu_page_unlink_children` and `kvm_mmu_zap_all` of
//! arch/x86/kvm/mmu.c, 2.6.27 (secondary-mmus 1.5, 1.7). The loop over each 4 KiB page of a range and
//! each slot is charged in full and counted, but carried out on the intersections only: nobody can
//! tell, since mmu_lock is held and the frames of the range are not freed before the flush.
//!
//! A *group* is what is removed before one flush: all sptes of a callback, or those of one shadow
//! page. When its references go is [`UnpinOrder`]'s to say.

use std::rc::Rc;

use mm::account::PAGE_TABLE;
use mm::frame::PageFlags;
use mm::page::FREE_WHILE_WALKED;
use sim::{Action, Cx, Mark, Scope};
use x86::addr::LOWER_HALF_END;
use x86::{Entry, Gfn, Level, Pfn, TableId, Va, VaRange, Vpn, VpnRange};

use crate::age::AccessedBits;
use crate::config::{SpteReference, UnpinOrder};
use crate::vm::{Draining, Kvm, State};
use crate::work;

static SPTE_DROP: Mark = Mark {
    name: "rmap_remove",
    args: ["gfn", "pfn", ""],
    scope: Scope::Object,
};

/// Frames whose sptes were removed and may still be in TLBs.
#[must_use = "a group must be flushed"]
pub(crate) struct Group {
    number: u64,
    pfns: Rc<[Pfn]>,
    unpin: UnpinLater,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum UnpinLater {
    /// The group holds a reference to each frame.
    Yes,
    /// The references are gone, or there were none.
    No,
}

impl Group {
    pub(crate) fn is_empty(&self) -> bool {
        self.pfns.is_empty()
    }
}

impl Kvm {
    /// `kvm_unmap_hva` for each page of a range, under mmu_lock.
    pub(crate) async fn unmap_hva_range(&self, cx: &Cx, range: VaRange) -> Group {
        let kernel = self.kernel();
        let compares = range.pages() * self.st().slots.len();
        self.st().metrics.pages_checked += compares;
        kernel.touch_lines(cx, compares * work::SLOT_COMPARE);
        cx.step(self.sptes_object(), Action::Write).await;
        let (removed, visited) = {
            let mut st = self.st();
            let st: &mut State = &mut st;
            let mut removed = Vec::new();
            let mut visited = 0;
            for slot in st.slots.iter_mut() {
                let covered = slot.covered(range);
                visited += covered.len() as u64;
                for index in covered {
                    if let Some(rmap) = slot.rmap[index].take() {
                        let spte = st.tables.get(rmap.table, rmap.index);
                        st.tables.set(rmap.table, rmap.index, Entry::NONE);
                        removed.push((slot.base_gfn.add(index as u64), spte));
                    }
                }
            }
            (removed, visited)
        };
        kernel.touch_lines(cx, visited * work::RMAP_VISIT);
        self.removed(cx, &removed).await
    }

    /// `kvm_mmu_zap_all`: removes every spte, a shadow page at a time, each followed by a flush, all
    /// under mmu_lock; then frees the tables below the root and flushes once more.
    pub async fn zap_all(&self, cx: &Cx) {
        let _span = cx.span("kvm_mmu_zap_all");
        {
            let _lock = cx.lock(self.mmu_lock).await;
            let mut from = Vpn::new(0);
            while let Some((table, pages)) = self.next_shadow_page(from) {
                cx.step(self.sptes_object(), Action::Write).await;
                let group = self.unlink_children(cx, table, pages).await;
                self.flush_group(cx, group).await;
                from = pages.end();
            }
            self.free_tables();
        }
        self.flush_remote_tlbs(cx).await;
    }

    /// The VM's file descriptor is closed (`kvm_destroy_vm`): the notifier goes, then every spte. The
    /// vCPUs are not stopped: one that still runs faults everything in again.
    pub async fn destroy(&self, cx: &Cx) {
        let _span = cx.span("kvm_destroy_vm");
        let subscription = self.st().subscription.take();
        if let Some(id) = subscription {
            self.kernel().mmu_notifier_unregister(cx, id).await;
        }
        self.zap_all(cx).await;
    }

    fn next_shadow_page(&self, from: Vpn) -> Option<(TableId, VpnRange)> {
        let st = self.st();
        let end = Va::new(LOWER_HALF_END).vpn();
        let (table, pages, _) = st.tables.next_leaf_table(st.root, from, end)?;
        Some((table, pages))
    }

    /// `kvm_mmu_page_unlink_children` of a shadow page with leaves.
    async fn unlink_children(&self, cx: &Cx, table: TableId, pages: VpnRange) -> Group {
        let removed = {
            let mut st = self.st();
            let st: &mut State = &mut st;
            let mut removed = Vec::new();
            for vpn in pages.iter() {
                let index = Level::Pte.index_of(vpn);
                let spte = st.tables.get(table, index);
                if spte.present() {
                    let gfn = Gfn::new(vpn.get());
                    let rmap = st.slots.rmap(gfn).and_then(Option::take);
                    debug_assert!(rmap.is_some(), "a present spte is in its rmap");
                    st.tables.set(table, index, Entry::NONE);
                    removed.push((gfn, spte));
                }
            }
            st.metrics.shadow_pages_zapped += 1;
            removed
        };
        self.removed(cx, &removed).await
    }

    fn free_tables(&self) {
        let mut st = self.st();
        let st: &mut State = &mut st;
        let root = st.root;
        let mut detached = Vec::new();
        st.tables.free_pgd_range(
            root,
            Va::new(0),
            Va::new(LOWER_HALF_END),
            Va::new(0),
            None,
            |_, table| detached.push(table),
        );
        let mut walked = None;
        for table in detached {
            walked = walked.or_else(|| st.vcpus.iter().find(|v| v.psc.leads_to(table)));
            st.tables.free(table);
        }
        if let Some(vcpu) = walked {
            let text = format!(
                "a table of sptes is freed while the paging-structure caches of {} lead to it",
                vcpu.name
            );
            self.kernel().engine().violate(FREE_WHILE_WALKED, text, None);
        }
    }

    /// `rmap_remove` of sptes that were present: what the hardware noted goes to the page, and a group
    /// is made of them.
    pub(crate) async fn removed(&self, cx: &Cx, sptes: &[(Gfn, Entry)]) -> Group {
        let kernel = self.kernel();
        let n = sptes.len() as u64;
        self.st().metrics.sptes_dropped += n;
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access * n);
        kernel.touch_lines(cx, n * work::RMAP);
        let mut accessed = Vec::new();
        for (gfn, spte) in sptes {
            cx.mark(&SPTE_DROP, [gfn.get(), u64::from(spte.pfn().get()), 0]);
            if spte.accessed() && self.accessed_bits() == AccessedBits::Kept {
                accessed.push(spte.pfn());
            }
            if spte.writable() {
                let mut frames = kernel.frames();
                frames.get_mut(spte.pfn()).flags.set(PageFlags::DIRTY);
            }
        }
        self.group(cx, sptes.iter().map(|(_, spte)| spte.pfn()).collect(), &accessed)
            .await
    }

    /// A group of removed sptes, in the order this machine unpins. Those that were accessed are a use of their
    /// page (`kvm_set_pfn_accessed`): the second use of an inactive page takes lru_lock inside mmu_lock.
    async fn group(&self, cx: &Cx, pfns: Vec<Pfn>, accessed: &[Pfn]) -> Group {
        let pfns: Rc<[Pfn]> = pfns.into();
        let number = {
            let mut st = self.st();
            st.groups += 1;
            let number = st.groups;
            if self.spte_reference == SpteReference::None && !pfns.is_empty() {
                st.draining.push(Draining {
                    group: number,
                    pfns: Rc::clone(&pfns),
                });
            }
            number
        };
        for &pfn in accessed {
            self.kernel().mark_page_accessed(cx, pfn).await;
        }
        let unpin = match (self.spte_reference, self.config.unpin) {
            (SpteReference::None, _) => UnpinLater::No,
            (SpteReference::Held, UnpinOrder::FlushFirst) => UnpinLater::Yes,
            (SpteReference::Held, UnpinOrder::UnpinFirst) => {
                self.unpin(cx, &pfns).await;
                UnpinLater::No
            }
        };
        Group { number, pfns, unpin }
    }

    /// Flushes the TLBs if the group has anything in it; after that nobody can use its translations,
    /// and its references go.
    pub(crate) async fn flush_group(&self, cx: &Cx, group: Group) {
        if group.is_empty() {
            return;
        }
        self.flush_remote_tlbs(cx).await;
        if group.unpin == UnpinLater::Yes {
            self.unpin(cx, &group.pfns).await;
        }
        if self.spte_reference == SpteReference::None {
            let kernel = self.kernel();
            for &pfn in &*group.pfns {
                kernel.secondary_unmapped(pfn);
            }
            self.st().draining.retain(|d| d.group != group.number);
        }
    }

    async fn unpin(&self, cx: &Cx, pfns: &[Pfn]) {
        let kernel = self.kernel();
        self.st().metrics.pins_end -= pfns.len() as u64;
        for &pfn in pfns {
            kernel.unpin_page(cx, pfn).await;
        }
    }
}
