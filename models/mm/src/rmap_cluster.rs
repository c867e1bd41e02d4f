//! `try_to_unmap` for nonlinear mappings: `try_to_unmap_cluster`.
//!
//! Follows mm/rmap.c of 2.6.27 (host-mm-paths B.12). Where a page is in a nonlinear mapping cannot be told, and
//! nobody looks for it: as many entries as map the page are taken away wherever the scan comes to, page or
//! no page, so that with luck some of it goes. All nonlinear mappings of the file are scanned in turn, a
//! cluster of 32 pages of each under one hold of its pte lock, from where the last scan stopped
//! (`vm_private_data`); after each round i_mmap_lock is given up if somebody wants the CPU; where it may be slept
//! with (host-mm-paths E, point 2), it is kept meanwhile. An entry that was young is flushed and stays, whatever
//! the page is unmapped for; any other is cleared, flushed and told to the secondary MMUs, and a page that is
//! not at its linear place leaves a file-offset entry.
//!
//! Reclaim passes over locked mappings, migration over none. If only locked ones are on the list they want
//! the page. When everything was scanned the cursors of all of them begin again.
//!
//! Under a design that tells its subscribers after the pte lock, a bracket spans each cluster instead, and
//! nobody is asked for the age of a translation (inferred: many entries change under one hold).
//!
//! Deviations: the list is read again after the lock was given up, so a mapping that left it is not visited;
//! the kernel's own walk would continue from where it was.

use sim::{Cx, Guard, LockId};
use x86::{Level, PAGE_SHIFT, Pfn, VaRange};

use crate::FileId;
use crate::account::PAGE_TABLE;
use crate::kernel::Kernel;
use crate::notifier::{Path, Point, Young};
use crate::profile::{RmapLocks, work};
use crate::rmap::{Mapping, UnmapFor, Unmapped};
use crate::swapops::NonPresent;
use crate::vma::VmaId;

/// Bytes of a cluster: `CLUSTER_SIZE`, the smaller of 32 pages and a page table's span.
const CLUSTER_SIZE: u64 = 32 << PAGE_SHIFT;

impl Kernel {
    /// The second half of `try_to_unmap_file`; i_mmap_lock is held.
    pub(crate) async fn try_to_unmap_nonlinear<'a>(
        &self,
        cx: &'a Cx,
        pfn: Pfn,
        file: FileId,
        purpose: UnmapFor,
        held: Guard<'a>,
    ) -> Unmapped {
        if self.st().file(file).i_mmap_nonlinear.is_empty() {
            return Unmapped::NotAll;
        }
        let vmas = self.nonlinear_vmas(file, purpose);
        let (mut max_cursor, mut max_size) = (0, 0);
        {
            let st = self.st();
            for &vma in &vmas {
                max_cursor = max_cursor.max(st.vma(vma).scan_cursor);
                max_size = max_size.max(size_of_mapping(st.vma(vma).range));
            }
        }
        if max_size == 0 {
            return Unmapped::Wanted;
        }
        let mut left = self.frames.borrow().get(pfn).mapcount;
        if left == 0 {
            return Unmapped::NotAll;
        }
        let lock = held.lock();
        let mut held = self.cond_resched_lock(cx, held, lock).await;
        let max_size = max_size.next_multiple_of(CLUSTER_SIZE);
        max_cursor = max_cursor.max(CLUSTER_SIZE);
        loop {
            for vma in self.nonlinear_vmas(file, purpose) {
                if self.scan_clusters(cx, vma, max_cursor, &mut left).await == Scan::Enough {
                    return Unmapped::NotAll;
                }
            }
            held = self.cond_resched_lock(cx, held, lock).await;
            max_cursor += CLUSTER_SIZE;
            if max_cursor > max_size {
                break;
            }
        }
        self.forget_cursors(file);
        drop(held);
        Unmapped::NotAll
    }

    /// The nonlinear mappings of a file that are scanned.
    fn nonlinear_vmas(&self, file: FileId, purpose: UnmapFor) -> Vec<VmaId> {
        let st = self.st();
        let passed_over = |vma: VmaId| purpose == UnmapFor::Reclaim && st.vma(vma).flags.is_locked();
        let mut vmas = st.file(file).i_mmap_nonlinear.clone();
        vmas.retain(|vma| !passed_over(*vma));
        vmas
    }

    /// All cursors begin again, those of locked mappings, too.
    fn forget_cursors(&self, file: FileId) {
        let mut st = self.st();
        for vma in st.file(file).i_mmap_nonlinear.clone() {
            st.vma_mut(vma).scan_cursor = 0;
        }
    }

    /// The clusters of a mapping up to a cursor.
    async fn scan_clusters(&self, cx: &Cx, vma: VmaId, max_cursor: u64, left: &mut u32) -> Scan {
        self.touch_lines(cx, work::I_MMAP_NODE);
        let (range, mut cursor) = {
            let st = self.st();
            (st.vma(vma).range, st.vma(vma).scan_cursor)
        };
        while cursor < max_cursor && cursor < size_of_mapping(range) {
            self.try_to_unmap_cluster(cx, vma, cursor, left).await;
            cursor += CLUSTER_SIZE;
            self.st().vma_mut(vma).scan_cursor = cursor;
            if *left == 0 {
                return Scan::Enough;
            }
        }
        self.st().vma_mut(vma).scan_cursor = max_cursor;
        Scan::GoOn
    }

    /// `try_to_unmap_cluster`.
    async fn try_to_unmap_cluster(&self, cx: &Cx, vma: VmaId, cursor: u64, left: &mut u32) {
        let (mm, table, cluster) = {
            let st = self.st();
            let range = st.vma(vma).range;
            let start = x86::Va::new((range.start().get() + cursor) / CLUSTER_SIZE * CLUSTER_SIZE);
            let end = x86::Va::new(start.get() + CLUSTER_SIZE).min(range.end());
            let cluster = VaRange::new(start.max(range.start()), end).expect("the cursor is inside");
            let mm = st.mm_of(vma);
            let Some(table) = st.tables.leaf_table(st.mm(mm).pgd, cluster.start().vpn()) else {
                return;
            };
            (mm, table, cluster)
        };
        let _span = cx.span("try_to_unmap_cluster");
        self.st().metrics.rmap_clusters += 1;
        let bracket = self.notify_open(cx, mm, Path::Cluster, cluster).await;
        let lock = self.st().ptl(table);
        let mut ptl = cx.lock(lock).await;
        for vpn in cluster.vpns() {
            let index = Level::Pte.index_of(vpn);
            cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
            let entry = self.st().tables.get(table, index);
            if !entry.maps_page() {
                continue;
            }
            let mapping = Mapping {
                mm,
                va: vpn.va(),
                table,
                index,
                entry,
                ptl,
            };
            if self.unmap_of_cluster(cx, vma, &mapping).await == Young::No {
                *left = left.saturating_sub(1);
            }
            ptl = mapping.ptl;
        }
        drop(ptl);
        self.notify_close(cx, bracket).await;
    }

    /// One entry of a cluster, unless it is young.
    async fn unmap_of_cluster(&self, cx: &Cx, vma: VmaId, mapping: &Mapping<'_>) -> Young {
        let (mm, va, pfn) = (mapping.mm, mapping.va, mapping.entry.pfn());
        let primary = self.ptep_clear_flush_young(cx, mapping).await;
        let secondary = self.notify_young(cx, mm, Point::AfterFlush, va).await;
        if primary == Young::Yes || secondary == Young::Yes {
            return Young::Yes;
        }
        let entry = self.ptep_clear_flush(cx, mapping).await;
        self.notify_page(cx, mm, (Path::Cluster, Point::AfterFlush), va, Some(pfn))
            .await;
        {
            let mut st = self.st();
            let index = self.frames.borrow().get(pfn).index();
            if index != st.vma(vma).pgoff_of(va) {
                let place = NonPresent::File(index).entry();
                self.set_pte(cx, &mut st, mapping.table, mapping.index, place);
            }
        }
        if entry.dirty() {
            self.set_page_dirty(cx, pfn).await;
        }
        {
            let mut st = self.st();
            let mut frames = self.frames();
            let frame = frames.get_mut(pfn);
            frame.mapcount -= 1;
            self.check_dirty_kept(pfn, frame);
            st.mm_mut(mm).file_rss -= 1;
            st.metrics.rmap_unmapped += 1;
        }
        self.put_page(cx, pfn).await;
        Young::No
    }

    /// `cond_resched_lock`: lets go of a lock for a moment if somebody wants the CPU, or, with
    /// CONFIG_PREEMPT, the lock. One that sleeps is kept.
    async fn cond_resched_lock<'a>(&self, cx: &'a Cx, held: Guard<'a>, lock: LockId) -> Guard<'a> {
        if self.profile.rmap_locks == RmapLocks::RwSem {
            cx.cond_resched().await;
            return held;
        }
        if !self.must_break_lock(cx, lock).await {
            return held;
        }
        drop(held);
        cx.cond_resched().await;
        cx.lock(lock).await
    }
}

/// Whether a scan of nonlinear mappings has taken away enough entries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scan {
    Enough,
    GoOn,
}

fn size_of_mapping(range: VaRange) -> u64 {
    range.pages() << PAGE_SHIFT
}
