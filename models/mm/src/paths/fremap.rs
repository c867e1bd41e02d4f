//! `remap_file_pages`: other pages of a file into a part of a shared mapping of it.
//!
//! Follows mm/fremap.c of 2.6.27 (host-mm-paths B.15). mmap_sem is taken for read. If the mapping must
//! become nonlinear, it is dropped and taken again for write, and everything is looked at anew. From
//! there on there are two ways:
//!
//! - Dirty pages of the file are accounted (file systems on a disk): page_mkclean could not find them
//!   through a nonlinear mapping, so the call is emulated by a linear mapping of its own in place of the
//!   range (`mmap_region`, which unmaps what was there). It stays unpopulated, as the kernel passes on
//!   only MAP_NONBLOCK, not MAP_POPULATE. mmap_sem is held for write to the end.
//! - Otherwise (tmpfs): under i_mmap_lock the VMA moves from the i_mmap tree to the tail of the list of
//!   nonlinear ones. Then, between notifier start and end, page by page under a pte lock of its own: a
//!   present entry is cleared and flushed with a broadcast, its page loses map count and reference, and a
//!   file-offset entry is stored, also where nothing was. At the end a writer becomes a reader and all
//!   pages are faulted in, unless MAP_NONBLOCK forbids.
//!
//! What is promised: when the call returns, no TLB and, through the bracket, no secondary MMU has the
//! pages that were there; the references are dropped inside the bracket, after each flush.
//!
//! Deviation: an offset is refused if an entry of [`x86`] cannot hold it (40 bits; the kernel of x86-64
//! allows 46 and keeps 34 of them).

use sim::Cx;
use x86::{Level, PAGE_SHIFT, PgoffRange, Va, VaRange};

use crate::FileId;
use crate::account::{ENTRY, PAGE_TABLE};
use crate::frame::PageFlags;
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::notifier::{Path, Point};
use crate::paths::zap_nonpresent::CountedIn;
use crate::paths::{MapError, MapFlags, MapRequest};
use crate::profile::work;
use crate::swapops::NonPresent;
use crate::vma::{Linearity, Prot, Sharing, VmaId};

/// Bits of a file offset, in pages, that an entry holds: those of a frame number in an entry of x86-64
/// (`PTE_FILE_MAX_BITS`; x86 bits 12 to 51).
const FILE_ENTRY_BITS: u32 = 52 - PAGE_SHIFT;

/// Whether the pages are made present at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prefault {
    /// Yes.
    Yes,
    /// Each when it is touched (MAP_NONBLOCK).
    No,
}

/// What to map where.
#[derive(Clone, Copy, Debug)]
pub struct RemapRequest {
    /// A part of one mapping.
    pub range: VaRange,
    /// Rights; none but PROT_NONE, which stands for those of the mapping, are accepted.
    pub prot: Prot,
    /// Page of the file for the first page of the range.
    pub pgoff: x86::Pgoff,
    /// MAP_NONBLOCK.
    pub prefault: Prefault,
}

/// Why pages of a file cannot be mapped elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemapError {
    /// Rights were asked for; the range is not inside one mapping; the mapping is not a shared one of a
    /// file that can be nonlinear; no entry can hold the offset (-EINVAL).
    Invalid,
    /// The linear mapping that emulates the call cannot be made.
    Map(MapError),
}

/// How mmap_sem is held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Read,
    Write,
}

impl Kernel {
    /// remap_file_pages(2).
    ///
    /// # Errors
    /// As the system call: see [`RemapError`].
    pub async fn sys_remap_file_pages(
        &self,
        cx: &Cx,
        mm: MmId,
        request: RemapRequest,
    ) -> Result<(), RemapError> {
        let _span = cx.span("sys_remap_file_pages");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let range = request.range;
        let pages = PgoffRange::from_pages(request.pgoff, range.pages()).ok_or(RemapError::Invalid)?;
        if request.prot != Prot::NONE || pages.last().get() >> FILE_ENTRY_BITS != 0 {
            return Err(RemapError::Invalid);
        }
        let lock = self.mmap_sem(mm);
        let (mut sem, mut held) = (cx.lock_shared(lock).await, Held::Read);
        loop {
            let (vma, file) = self.remappable(cx, mm, range)?;
            let (nonlinear, in_place, kind) = {
                let st = self.st();
                let v = st.vma(vma);
                let in_place = v.pgoff_of(range.start()) == request.pgoff;
                (v.is_nonlinear(), in_place, st.file(file).kind)
            };
            if nonlinear {
                break;
            }
            if in_place {
                return Ok(());
            }
            if held == Held::Read {
                drop(sem);
                (sem, held) = (cx.lock(lock).await, Held::Write);
                continue;
            }
            if kind.accounts_dirty_pages() {
                return self.emulate_remap(cx, mm, vma, &request).await;
            }
            self.make_nonlinear(cx, vma, file).await;
            break;
        }
        self.remap_range(cx, mm, range, pages).await;
        if request.prefault == Prefault::Yes {
            if held == Held::Write {
                sem = sem.downgrade();
            }
            // A page beyond the end of the file, or memory that is used up, ends it; the call succeeds.
            let _ignored = self.make_pages_present(cx, mm, range).await;
        }
        drop(sem);
        Ok(())
    }

    async fn remap_range(&self, cx: &Cx, mm: MmId, range: VaRange, pages: PgoffRange) {
        let bracket = self.notify_open(cx, mm, Path::Remap, range).await;
        self.populate_range(cx, mm, range, pages).await;
        self.notify_close(cx, bracket).await;
    }

    /// The mapping and its file, if the range lies in one that may be (or is) nonlinear.
    fn remappable(&self, cx: &Cx, mm: MmId, range: VaRange) -> Result<(VmaId, FileId), RemapError> {
        let vma = self.find_vma(cx, mm, range.start()).ok_or(RemapError::Invalid)?;
        let st = self.st();
        let v = st.vma(vma);
        // hugetlbfs does not set VM_CAN_NONLINEAR.
        let file = v
            .file()
            .filter(|f| !st.is_huge(vma) && st.file(*f).kind.can_nonlinear());
        match file {
            Some(file) if v.sharing == Sharing::Shared && v.range.contains_range(&range) => Ok((vma, file)),
            _ => Err(RemapError::Invalid),
        }
    }

    /// `mmap_region` in place of a part of a mapping, with its rights.
    async fn emulate_remap(
        &self,
        cx: &Cx,
        mm: MmId,
        vma: VmaId,
        request: &RemapRequest,
    ) -> Result<(), RemapError> {
        let (linear, flags) = {
            let st = self.st();
            let v = st.vma(vma);
            let linear = MapRequest {
                at: Some(request.range.start()),
                pages: request.range.pages(),
                backing: v.backing,
                pgoff: request.pgoff,
                sharing: v.sharing,
                prot: v.prot,
                flags: MapFlags::NONE,
            };
            (linear, v.flags)
        };
        let mapped = self.mmap_region(cx, mm, request.range, &linear, flags);
        mapped.await.map_err(RemapError::Map)?;
        Ok(())
    }

    /// VM_NONLINEAR, which must be set before anything is mapped elsewhere. mmap_sem is held for write.
    async fn make_nonlinear(&self, cx: &Cx, vma: VmaId, file: FileId) {
        let lock = self.st().file(file).i_mmap_lock;
        let _i_mmap = cx.lock(lock).await;
        self.touch_lines(cx, work::I_MMAP_NODE);
        self.i_mmap_remove(file, vma);
        self.st().vma_mut(vma).linearity = Linearity::Nonlinear;
        self.i_mmap_insert(file, vma);
    }

    /// `populate_range`.
    async fn populate_range(&self, cx: &Cx, mm: MmId, range: VaRange, pages: PgoffRange) {
        let _span = cx.span("populate_range");
        for page in 0..range.pages() {
            let pgoff = x86::Pgoff::new(pages.first().get() + page);
            self.install_file_pte(cx, mm, range.start().add_pages(page), NonPresent::File(pgoff))
                .await;
        }
    }

    /// `install_file_pte`: `get_locked_pte`, then what was there goes and the new entry is stored.
    async fn install_file_pte(&self, cx: &Cx, mm: MmId, va: Va, file_page: NonPresent) {
        let known = {
            let st = self.st();
            st.tables.leaf_table(st.mm(mm).pgd, va.vpn())
        };
        let table = match known {
            Some(table) => table,
            None => self.pte_alloc(cx, mm, va).await,
        };
        let ptl = self.st().ptl(table);
        let _ptl = cx.lock(ptl).await;
        let index = Level::Pte.index(va);
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        let old = self.st().tables.get(table, index);
        if old.maps_page() {
            // `zap_pte`: ptep_clear_flush, then the page.
            self.set_pte(cx, &mut self.st(), table, index, x86::Entry::NONE);
            self.flush_tlb_page(cx, mm, va).await;
            self.notify_page(cx, mm, (Path::Remap, Point::AfterFlush), va, Some(old.pfn()))
                .await;
            self.touch_lines(cx, work::RMAP);
            self.forget_file_page(mm, old);
            self.put_page(cx, old.pfn()).await;
        } else if let Some(meaning) = NonPresent::of(old) {
            // Only files can be nonlinear.
            if self.forget_nonpresent(cx, meaning).await != CountedIn::Nothing {
                self.st().mm_mut(mm).file_rss -= 1;
            }
        }
        let mut st = self.st();
        self.set_pte(cx, &mut st, table, index, file_page.entry());
        st.metrics.pages_remapped += 1;
    }

    /// Dirty bit, `page_remove_rmap` and rss of a page of a file; its reference is left to the caller.
    fn forget_file_page(&self, mm: MmId, old: x86::Entry) {
        let mut frames = self.frames();
        let frame = frames.get_mut(old.pfn());
        if old.dirty() {
            frame.flags.set(PageFlags::DIRTY);
        }
        frame.mapcount -= 1;
        self.check_dirty_kept(old.pfn(), frame);
        self.st().mm_mut(mm).file_rss -= 1;
    }
}
