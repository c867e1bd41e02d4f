//! The first store through a shared mapping of a file: `page_mkwrite`, and how the page becomes dirty.
//!
//! Follows mm/memory.c (`__do_fault`, `do_wp_page`, `set_page_dirty_balance`) and fs/buffer.c
//! (`block_page_mkwrite`, which is all that XFS's does) of 2.6.27 (host-mm-paths B.5). A file system that
//! accounts dirty pages is asked before an entry becomes writable. It locks the page itself, so the fault lets
//! go of its lock (PG_locked of a new page, the pte lock of one that is mapped) and looks again afterwards.
//! The entry is set writable and dirty; after the pte lock is dropped the page is marked dirty, too. In
//! `do_wp_page` that waits until nobody has the page locked: a writeback that found the entry clean, and is
//! about to clear PG_dirty, must be through.
//!
//! Deviations: `page_mkwrite` marks the page dirty and has no blocks to allocate. It refuses a page whose
//! first byte is the end of the file, where the kernel refuses only one that begins behind the end
//! (`page_offset(page) > size`) and lets a page without a byte of the file pass; sizes are whole pages here,
//! so that is the page at index i_size alone.

use sim::{Cx, Guard};
use x86::{Entry, Pfn};

use super::fault::{Fault, Served, Still};
use crate::FileId;
use crate::access::Refused;
use crate::file::CachedPage;
use crate::frame::Owner;
use crate::kernel::Kernel;

impl Kernel {
    /// The part of `__do_fault` that asks the file system: the page comes locked and goes locked, or not
    /// at all if it left the file meanwhile. The caller's reference is put in that case.
    pub(super) async fn fault_mkwrite<'a>(
        &self,
        cx: &'a Cx,
        file: FileId,
        page: CachedPage,
        locked: Guard<'a>,
    ) -> Result<Option<Guard<'a>>, Refused> {
        if !self.accounts_dirty_pages(file) {
            return Ok(Some(locked));
        }
        drop(locked);
        if let Err(refused) = self.page_mkwrite(cx, file, page.pfn).await {
            self.put_page(cx, page.pfn).await;
            return Err(refused);
        }
        let locked = self.lock_page(cx, page.pfn).await;
        if self.frames.borrow().get(page.pfn).owner() == Owner::File(file) {
            return Ok(Some(locked));
        }
        drop(locked);
        self.put_page(cx, page.pfn).await;
        Ok(None)
    }

    /// `block_page_mkwrite`; the caller holds a reference.
    async fn page_mkwrite(&self, cx: &Cx, file: FileId, pfn: Pfn) -> Result<(), Refused> {
        let _span = cx.span("block_page_mkwrite");
        self.st().metrics.faults_mkwrite += 1;
        let _locked = self.lock_page(cx, pfn).await;
        let (owner, index) = {
            let frames = self.frames.borrow();
            (frames.get(pfn).owner(), frames.get(pfn).index())
        };
        if owner != Owner::File(file) || index.get() >= self.st().file(file).size {
            return Err(Refused::BeyondEof);
        }
        self.set_page_dirty(cx, pfn).await;
        Ok(())
    }

    /// `do_wp_page` of a shared mapping; the pte lock is held.
    pub(super) async fn wp_page_shared(
        &self,
        cx: &Cx,
        fault: Fault,
        entry: Entry,
        ptl: Guard<'_>,
    ) -> Result<Served, Refused> {
        let pfn = entry.pfn();
        let file = self.st().vma(fault.vma).file();
        if let Some(file) = file
            && self.accounts_dirty_pages(file)
        {
            self.frames().get_page(pfn);
            drop(ptl);
            if let Err(refused) = self.page_mkwrite(cx, file, pfn).await {
                self.put_page(cx, pfn).await;
                return Err(refused);
            }
            let (ptl, _, still) = self.relock(cx, &fault, entry).await;
            self.put_page(cx, pfn).await;
            if still == Still::Changed {
                return Ok(Served::Otherwise);
            }
            self.wp_page_reuse(cx, &fault, entry, ptl).await;
        } else {
            self.wp_page_reuse(cx, &fault, entry, ptl).await;
        }
        self.wait_on_page_locked(cx, pfn).await;
        self.set_page_dirty(cx, pfn).await;
        self.put_page(cx, pfn).await;
        Ok(Served::MayWrite)
    }

    /// The entry becomes writable; the page gets a reference that keeps it until it is marked dirty.
    async fn wp_page_reuse(&self, cx: &Cx, fault: &Fault, entry: Entry, ptl: Guard<'_>) {
        self.frames().get_page(entry.pfn());
        let writable = entry.with_write().with_accessed().with_dirty();
        self.set_pte(cx, &mut self.st(), fault.table, fault.index, writable);
        self.flush_tlb_page(cx, fault.mm, fault.va).await;
        self.st().metrics.faults_reuse += 1;
        drop(ptl);
    }
}
