//! hugetlbfs: mapping a file of huge pages, and truncating it.
//!
//! Follows fs/hugetlbfs/inode.c of 2.6.27 (host-mm-paths B.17). mmap wants length, address and offset aligned to
//! a huge page (-EINVAL); what lies at a fixed address is unmapped before the offset is looked at and pages
//! are promised. The promise is made under the inode's i_mutex, inside mmap_sem; a mapping with the right to
//! write that reaches beyond the end of the file makes the file longer.
//!
//! Truncation: the caller holds i_mutex and W(i_alloc_sem). i_size becomes what it is told, also more than it
//! was (since 2.6.24, commit 7aa91e104028), and the rest is the same either way; under i_mmap_lock, one hold for
//! all mappings, each mapping that reaches beyond is unmapped by `__unmap_hugepage_range`, one bracket and one
//! unconditional flush each, from the new end of the file to *its* end. There is no lock break, no
//! `truncate_count`, and no second pass: faults look at i_size again under page_table_lock. Then
//! `truncate_hugepages`: the pages leave the cache in pagevecs of 14, each under its PG_locked, and promises
//! that were not used are taken back.
//!
//! Pages are counted in 4 KiB here as everywhere, and the page cache in huge pages. Files cannot end
//! inside a huge page (-EINVAL; nothing happens). Deviation: i_mutex is taken only where
//! something can follow from it, as the kernel does, but `i_lock` for i_blocks is not.

use sim::Cx;
use x86::{Pgoff, PgoffRange, VaRange};

use crate::FileId;
use crate::file::CachedPage;
use crate::frame::{Owner, PageFlags};
use crate::hugetlb::{HPAGE_PAGES, is_huge_aligned};
use crate::kernel::Kernel;
use crate::paths::MapError;
use crate::profile::{PAGEVEC_SIZE, work};
use crate::vma::{Backing, Vma};

/// When a page left the page cache.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// We took it out.
    Now,
    /// It was gone when we had its lock.
    Before,
}

impl Kernel {
    /// `hugetlb_get_unmapped_area` of a fixed address, or of one that was chosen aligned.
    pub(super) fn hugetlb_get_unmapped_area(&self, backing: Backing, range: VaRange) -> Result<(), MapError> {
        let huge = match backing {
            Backing::File(file) | Backing::Huge(file) => self.st().is_hugetlbfs(file),
            Backing::Anonymous | Backing::Driver => false,
        };
        let aligned = is_huge_aligned(range.start()) && is_huge_aligned(range.end());
        if huge && !aligned {
            return Err(MapError::BadRange);
        }
        Ok(())
    }

    /// `hugetlbfs_file_mmap`; mmap_sem is held for write. Other mappings pass.
    pub(super) async fn hugetlbfs_file_mmap(&self, cx: &Cx, vma: Vma) -> Result<Vma, MapError> {
        let Backing::Huge(file) = vma.backing else {
            return Ok(vma);
        };
        if !vma.pgoff.get().is_multiple_of(HPAGE_PAGES) {
            return Err(MapError::BadRange);
        }
        let _span = cx.span("hugetlbfs_file_mmap");
        let i_mutex = self.st().file(file).i_mutex;
        let _inode = cx.lock(i_mutex).await;
        self.touch_lines(cx, work::LINK_VMA);
        let pages = vma.range.pages();
        let reserve = self
            .hugetlb_reserve_pages(file, vma.pgoff.get(), pages, vma.sharing)
            .map_err(|_| MapError::NoHugePages)?;
        let mut st = self.st();
        let size = &mut st.file_mut(file).size;
        if vma.prot.can_write() {
            *size = (*size).max(vma.pgoff.get() + pages);
        }
        Ok(Vma { reserve, ..vma })
    }

    /// `hugetlbfs_setattr` and `hugetlb_vmtruncate`; i_mutex and i_alloc_sem are held.
    pub(super) async fn hugetlb_vmtruncate(&self, cx: &Cx, file: FileId, pages: u64) {
        let _span = cx.span("hugetlb_vmtruncate");
        let lock = {
            let mut st = self.st();
            if !pages.is_multiple_of(HPAGE_PAGES) {
                return;
            }
            st.file_mut(file).size = pages;
            st.file(file).i_mmap_lock
        };
        {
            let _i_mmap = cx.lock(lock).await;
            let gone = PgoffRange::to_eof(Pgoff::new(pages));
            for vma in self.mappers(cx, file, &gone) {
                let part = self.st().vma(vma).addresses_of(&gone);
                let part = part.expect("the tree visits mappers only");
                self.unmap_hugepage_range_locked(cx, vma, part, None).await;
            }
        }
        let from = pages / HPAGE_PAGES;
        let freed = self.truncate_hugepages(cx, file, from).await;
        self.hugetlb_unreserve_pages(file, from, freed);
    }

    /// `truncate_hugepages`. Returns how many pages left the cache.
    async fn truncate_hugepages(&self, cx: &Cx, file: FileId, from: u64) -> u64 {
        let _span = cx.span("truncate_hugepages");
        let (start, mut next) = (Pgoff::new(from), Pgoff::new(from));
        let mut freed = 0;
        loop {
            let batch = self.pagevec_lookup(cx, file, next).await;
            if batch.is_empty() {
                if next == start {
                    return freed;
                }
                // From the start again, for what was faulted in meanwhile.
                next = start;
                continue;
            }
            let mut released = Vec::with_capacity(PAGEVEC_SIZE);
            for (index, page) in batch {
                next = index.add(1);
                match self.truncate_huge_page(cx, file, index, page).await {
                    Left::Now => freed += 1,
                    Left::Before => {}
                }
                released.push(page.pfn);
            }
            // huge_pagevec_release: these pages were never on an LRU list.
            for pfn in released {
                self.put_page(cx, pfn).await;
            }
        }
    }

    /// `truncate_huge_page`.
    async fn truncate_huge_page(&self, cx: &Cx, file: FileId, index: Pgoff, page: CachedPage) -> Left {
        let locked = cx.lock(page.lock).await;
        if self.st().file(file).pages.get(index.get()) != Some(page) {
            return Left::Before;
        }
        let tree_lock = self.st().file(file).tree_lock;
        {
            let _irqs = cx.irq_disable();
            let _tree = cx.lock(tree_lock).await;
            let removed = self.st().file_mut(file).pages.remove(index.get());
            self.touch_lines(cx, removed.nodes * work::PAGE_CACHE_NODE);
            let mut frames = self.frames();
            let frame = frames.get_mut(page.pfn);
            self.check_uncached(cx, &page, frame);
            frame.set_owner(Owner::None);
            frame.flags.clear(PageFlags::CACHED);
            frame.flags.clear(PageFlags::DIRTY);
        }
        self.put_page(cx, page.pfn).await;
        drop(locked);
        Left::Now
    }
}
