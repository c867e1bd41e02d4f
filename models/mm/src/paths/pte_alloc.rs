//! `__pud_alloc`, `__pmd_alloc`, `__pte_alloc`: the page tables above an address.
//!
//! Follows mm/memory.c of 2.6.27 (host-mm-paths B.5, F4). The caller holds mmap_sem. Each missing level, from
//! the top: a page is allocated and cleared without a lock; under page_table_lock the entry above is looked
//! at again and set; whoever finds that somebody else was faster gives the page back, an upper table with
//! the lock still held, one of the lowest level (which `nr_ptes` counts) after it.
//!
//! Deviation: page-table pages take no frame of the zone, so there is always one.

use sim::Cx;
use x86::{Level, TableId, Va};

use crate::account::{PAGE_ALLOC, PAGE_COPY, PAGE_TABLE};
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::profile::PteLocks;

impl Kernel {
    /// `pud_alloc`, `pmd_alloc`, `pte_alloc_map`.
    pub(crate) async fn pte_alloc(&self, cx: &Cx, mm: MmId, va: Va) -> TableId {
        self.alloc_tables(cx, mm, va, Level::Pte).await
    }

    /// The table of a level that covers an address, with those above it.
    pub(crate) async fn alloc_tables(&self, cx: &Cx, mm: MmId, va: Va, lowest: Level) -> TableId {
        let root = self.st().tables.mode().root_level();
        let below_root = Level::upper(root).filter_map(Level::below);
        for level in below_root.take_while(|level| *level >= lowest) {
            if self.table_of(mm, va, level).is_none() {
                self.alloc_table(cx, mm, va, level).await;
            }
        }
        self.table_of(mm, va, lowest)
            .expect("with mmap_sem held nobody takes a table away")
    }

    fn table_of(&self, mm: MmId, va: Va, level: Level) -> Option<TableId> {
        let st = self.st();
        st.tables.table_at(st.mm(mm).pgd, va.vpn(), level)
    }

    /// One table; those above it exist.
    async fn alloc_table(&self, cx: &Cx, mm: MmId, va: Va, level: Level) {
        cx.charge(PAGE_ALLOC, self.machine.costs.page_alloc);
        cx.charge(PAGE_COPY, self.machine.costs.clear_page);
        let lock = self.st().mm(mm).page_table_lock;
        let locked = cx.lock(lock).await;
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        if self.table_of(mm, va, level).is_none() {
            return self.hang_in(cx, mm, va, level);
        }
        // Dropped here, or when the page is gone.
        let _upper = (level != Level::Pte).then_some(locked);
        cx.charge(PAGE_ALLOC, self.machine.costs.page_free);
    }

    /// `pgd_populate`, `pud_populate`, `pmd_populate`; page_table_lock is held.
    fn hang_in(&self, cx: &Cx, mm: MmId, va: Va, level: Level) {
        let cpu = self.index(cx.cpu());
        let mut st = self.st();
        let st = &mut *st;
        let pgd = st.mm(mm).pgd;
        let walks = &mut st.walks;
        let table = st.tables.populate_to(pgd, va.vpn(), level, |_, made| {
            walks.made(&self.machine, cpu, made);
        });
        self.check_populated(cx, st, mm);
        let slot = table.get() as usize;
        if st.pte_locks.len() <= slot {
            st.pte_locks.resize(slot + 1, None);
        }
        if level == Level::Pte {
            st.pte_locks[slot] = Some(match self.profile.pte_locks {
                PteLocks::PerTable => self.engine.new_lock(self.classes.pte),
                PteLocks::PerMm => st.mm(mm).page_table_lock,
            });
            st.mm_mut(mm).nr_ptes += 1;
        }
    }
}
