//! `mmu_gather`: pages and page tables that wait for a TLB flush before they are freed.
//!
//! Follows include/asm-generic/tlb.h and include/asm-x86/tlb.h of 2.6.27 (host-mm-paths A.6): one gather a
//! CPU, so preemption is off from `tlb_gather_mmu` to `tlb_finish_mmu`; 506 pages, page tables among them; the
//! flush is always `flush_tlb_mm`, and none if nothing was cleared. After each flush the pages waiting in this
//! CPU's pagevecs go to the LRU lists (`lru_add_drain`, the first thing `free_pages_and_swap_cache` of
//! mm/swap_state.c does), also inside the pte lock where that is held: a page that waited there and in the
//! gather is free after it. With a single CPU online pages are freed at once and the TLB is flushed at the end
//! (`tlb_fast_mode`). The sleepable profile keeps the gather on the stack with preemption on.
//!
//! The gather owns what was unmapped: the only way to get rid of it is [`Gather::finish`], which
//! flushes first.

use sim::{Cx, PreemptGuard};
use x86::{Pfn, TableId};

use crate::account::PAGE_ALLOC;
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::page::FreeOrder;
use crate::profile::{FREE_PTE_NR, GatherKind, PAGEVEC_SIZE, PteLocks};

#[derive(Clone, Copy, Debug)]
enum Queued {
    Page(Pfn),
    Table(TableId),
}

/// Whether something must be flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NeedFlush {
    No,
    Yes,
}

/// Where a flush of a gather happens; decides which counter it shows up in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FlushPoint {
    /// The gather is full of what zap_pte_range removed, whose pte lock is held.
    FullUnderPtl,
    /// A page table made the gather full; `free_pgtables` holds no lock of one.
    FullOfTables,
    /// A zap block is used up.
    BlockEnd,
    /// The last `tlb_finish_mmu` of the operation.
    Final,
}

/// Room in a gather after something was queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Room {
    /// There is some left.
    Left,
    /// It is full: flush and free now.
    Full,
    /// One CPU is online, so pages are not queued (`tlb_fast_mode`): free this one now.
    None,
}

/// Pages and tables on their way out.
#[must_use = "what was unmapped is only freed by finishing the gather"]
pub(crate) struct Gather<'a> {
    kernel: &'a Kernel,
    cx: &'a Cx,
    mm: MmId,
    queue: Vec<Queued>,
    need_flush: NeedFlush,
    order: FreeOrder,
    _preempt_off: Option<PreemptGuard<'a>>,
}

impl<'a> Gather<'a> {
    /// `tlb_gather_mmu`.
    pub(crate) fn new(kernel: &'a Kernel, cx: &'a Cx, mm: MmId) -> Self {
        let _span = cx.span("tlb_gather_mmu");
        let preempt_off = (kernel.profile.gather == GatherKind::PerCpu).then(|| cx.preempt_disable());
        let order = if kernel.nr_cpus() == 1 {
            FreeOrder::FastMode
        } else {
            FreeOrder::Flushed
        };
        Gather {
            kernel,
            cx,
            mm,
            queue: Vec::new(),
            need_flush: NeedFlush::No,
            order,
            _preempt_off: preempt_off,
        }
    }

    /// An entry was cleared.
    #[inline]
    pub(crate) fn cleared_entry(&mut self) {
        self.need_flush = NeedFlush::Yes;
    }

    /// `tlb_remove_page`, without the flush when it becomes full.
    #[inline]
    pub(crate) fn remove_page(&mut self, pfn: Pfn) -> Room {
        self.need_flush = NeedFlush::Yes;
        if self.order == FreeOrder::FastMode {
            return Room::None;
        }
        self.push(Queued::Page(pfn))
    }

    /// The rest of `tlb_remove_page` for a page of zap_pte_range, which holds its pte lock.
    pub(crate) async fn make_room(&mut self, pfn: Pfn, room: Room) {
        match room {
            Room::Left => {}
            Room::Full => self.flush_mmu(FlushPoint::FullUnderPtl).await,
            // `free_page_and_swap_cache`
            Room::None => {
                self.kernel.free_swap_cache(self.cx, pfn).await;
                self.kernel.put(self.cx, pfn, FreeOrder::FastMode).await;
            }
        }
    }

    /// `pte_free_tlb` and its relatives: a page table goes the way of pages.
    pub(crate) async fn remove_table(&mut self, table: TableId) {
        self.need_flush = NeedFlush::Yes;
        if self.order == FreeOrder::FastMode {
            self.free_table(table);
            return;
        }
        if self.push(Queued::Table(table)) == Room::Full {
            self.flush_mmu(FlushPoint::FullOfTables).await;
        }
    }

    #[inline]
    fn push(&mut self, what: Queued) -> Room {
        if self.queue.capacity() == 0 {
            self.queue.reserve_exact(FREE_PTE_NR);
        }
        self.queue.push(what);
        if self.queue.len() == FREE_PTE_NR {
            Room::Full
        } else {
            Room::Left
        }
    }

    /// `tlb_flush_mmu`: flush if anything was cleared, then free what is queued.
    pub(crate) async fn flush_mmu(&mut self, point: FlushPoint) {
        if self.need_flush == NeedFlush::No {
            return;
        }
        self.need_flush = NeedFlush::No;
        {
            let m = &mut self.kernel.st().metrics;
            match point {
                FlushPoint::FullUnderPtl => m.flush_under_ptl += 1,
                FlushPoint::FullOfTables => m.flush_of_tables += 1,
                FlushPoint::BlockEnd => m.flush_block_end += 1,
                FlushPoint::Final => m.flush_final += 1,
            }
        }
        self.kernel.flush_tlb_mm(self.cx, self.mm).await;
        if self.order == FreeOrder::Flushed {
            self.free_queued().await;
        }
    }

    /// `free_pages_and_swap_cache`: what waits for the LRU lists goes there; then in chunks of a pagevec;
    /// pages that are in the swap cache for nobody else leave it.
    async fn free_queued(&mut self) {
        self.kernel.lru_add_drain(self.cx).await;
        let mut queue = std::mem::take(&mut self.queue);
        for chunk in queue.chunks(PAGEVEC_SIZE) {
            let mut pages = [Pfn::new(0); PAGEVEC_SIZE];
            let mut n = 0;
            for item in chunk {
                match *item {
                    Queued::Page(pfn) => {
                        pages[n] = pfn;
                        n += 1;
                    }
                    Queued::Table(table) => self.free_table(table),
                }
            }
            for &pfn in &pages[..n] {
                if self.kernel.is_in_swap_cache(pfn) {
                    self.kernel.free_swap_cache(self.cx, pfn).await;
                }
            }
            self.kernel.release_pages(self.cx, &pages[..n]).await;
        }
        queue.clear();
        self.queue = queue;
    }

    fn free_table(&self, table: TableId) {
        self.cx.charge(PAGE_ALLOC, self.kernel.machine.costs.page_free);
        if self.kernel.st().hugetlb.drop_share(table) {
            return;
        }
        if self.order == FreeOrder::Flushed {
            self.kernel.check_unwalked(self.cx, table);
        }
        let mut st = self.kernel.st();
        if self.order == FreeOrder::FastMode {
            // A processor may drop more than it is told to (hardware-costs R11), and this one has to: the
            // table has no second life while a walk could still start at it.
            st.cpus.iter_mut().for_each(|cpu| cpu.psc.flush_all());
        }
        st.metrics.tables_freed += 1;
        st.tables.free(table);
        let lock = st.pte_locks[table.get() as usize].take();
        if let (Some(lock), PteLocks::PerTable) = (lock, self.kernel.profile.pte_locks) {
            self.kernel.engine.free_lock(lock);
        }
    }

    /// `tlb_finish_mmu`.
    pub(crate) async fn finish(mut self, point: FlushPoint) {
        let _span = self.cx.span("tlb_finish_mmu");
        self.flush_mmu(point).await;
        debug_assert!(self.queue.is_empty());
    }
}
