//! `do_mmap_pgoff`, `do_brk`.
//!
//! Follows mm/mmap.c of 2.6.27 (host-mm-paths B.4): mmap_sem for write; what lies at a fixed address
//! is unmapped first; a mapping that continues its neighbour is merged into it. No TLB flush and no
//! notifier on pure growth; shrinking brk is a munmap. Deviation: the search for free space goes
//! down from `mmap_base`, as in the top-down layout, but keeps the next candidate instead of
//! walking the VMAs (`arch_get_unmapped_area_topdown` with its cache); addresses change no count.

use sim::Cx;
use x86::{PAGE_SIZE, Pgoff, PgoffRange, Va, VaRange};

use crate::account::ENTRY;
use crate::hugetlb::Reserve;
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::profile::{MAX_MAP_COUNT, work};
use crate::vma::{Backing, Linearity, Prot, Sharing, Vma, VmaId};
use crate::{FileId, FileKind};

/// What to map.
#[derive(Clone, Copy, Debug)]
pub struct MapRequest {
    /// MAP_FIXED address; `None` lets the kernel choose.
    pub at: Option<Va>,
    /// Length.
    pub pages: u64,
    /// Source.
    pub backing: Backing,
    /// First page of the file.
    pub pgoff: Pgoff,
    /// Shared or private.
    pub sharing: Sharing,
    /// Rights.
    pub prot: Prot,
}

/// Why a mapping cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// The length is zero or the range leaves the user half (-EINVAL).
    BadRange,
    /// `sysctl_max_map_count` mappings already (-ENOMEM).
    TooManyMappings,
    /// No gap in the address space is large enough (-ENOMEM).
    NoSpace,
    /// The pool has not enough huge pages that are promised to nobody (-ENOMEM).
    NoHugePages,
    /// What lies there are huge pages, and the range begins or ends inside one (-ENOMEM).
    CutsHugePage,
}

/// A range inside the user half.
pub(super) fn user_range(start: Va, pages: u64) -> Result<VaRange, MapError> {
    let range = VaRange::from_pages(start, pages).ok_or(MapError::BadRange)?;
    if range.end().get() > x86::addr::LOWER_HALF_END {
        Err(MapError::BadRange)
    } else {
        Ok(range)
    }
}

/// Alignment of addresses that the kernel chooses here, in pages: one page table, so that the
/// page-table arithmetic of a scenario does not depend on what was mapped before.
const CHOSEN_ALIGN_PAGES: u64 = x86::PT_SPAN_PAGES;

impl Kernel {
    /// mmap(2).
    ///
    /// # Errors
    /// As the system call: see [`MapError`].
    pub async fn sys_mmap(&self, cx: &Cx, mm: MmId, request: MapRequest) -> Result<VaRange, MapError> {
        let _span = cx.span("sys_mmap");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let _sem = cx.lock(self.mmap_sem(mm)).await;
        self.do_mmap(cx, mm, request).await
    }

    /// `do_mmap_pgoff`; the caller holds mmap_sem for write.
    pub(crate) async fn do_mmap(&self, cx: &Cx, mm: MmId, request: MapRequest) -> Result<VaRange, MapError> {
        let _span = cx.span("do_mmap_pgoff");
        let start = match request.at {
            Some(at) => at,
            None => self.get_unmapped_area(mm, request.pages)?,
        };
        let range = user_range(start, request.pages)?;
        PgoffRange::from_pages(request.pgoff, request.pages).ok_or(MapError::BadRange)?;
        self.hugetlb_get_unmapped_area(request.backing, range)?;
        if self.st().cuts_huge_page(mm, range) {
            return Err(MapError::CutsHugePage);
        }
        self.do_munmap(cx, mm, range).await;
        if self.st().mm(mm).vmas.len() >= MAX_MAP_COUNT {
            return Err(MapError::TooManyMappings);
        }
        // Shared anonymous memory is the whole of its file.
        let pgoff = match (request.backing, request.sharing) {
            (Backing::File(_) | Backing::Huge(_) | Backing::Driver, _) => request.pgoff,
            (Backing::Anonymous, Sharing::Private) => Pgoff::new(start.vpn().get()),
            (Backing::Anonymous, Sharing::Shared) => Pgoff::new(0),
        };
        let vma = Vma {
            range,
            prot: request.prot,
            sharing: request.sharing,
            backing: self.backing_of(&request),
            pgoff,
            anon_vma: None,
            linearity: Linearity::Linear,
            scan_cursor: 0,
            truncate_count: 0,
            reserve: Reserve::None,
        };
        let vma = self.hugetlbfs_file_mmap(cx, vma).await?;
        if self.vma_merge(cx, mm, &vma).await.is_none() {
            self.vma_link(cx, mm, vma).await;
        }
        Ok(range)
    }

    /// Shared anonymous memory is a file of its own (`shmem_zero_setup`).
    fn backing_of(&self, request: &MapRequest) -> Backing {
        match (request.backing, request.sharing) {
            (Backing::Anonymous, Sharing::Shared) => Backing::File(self.shmem_file(request.pages)),
            (Backing::File(file), _) if self.st().is_hugetlbfs(file) => Backing::Huge(file),
            (backing, _) => backing,
        }
    }

    fn shmem_file(&self, pages: u64) -> FileId {
        self.new_file_of(FileKind::SharedAnonymous, "dev/zero", pages)
    }

    pub(crate) fn get_unmapped_area(&self, mm: MmId, pages: u64) -> Result<Va, MapError> {
        let span = CHOSEN_ALIGN_PAGES * PAGE_SIZE;
        let bytes = pages.checked_mul(PAGE_SIZE).ok_or(MapError::NoSpace)?;
        let mut st = self.st();
        let m = st.mm_mut(mm);
        let mut base = m.mmap_base.get();
        loop {
            // One unmapped page table's span to the next mapping on either side.
            let below = base.checked_sub(span).and_then(|top| top.checked_sub(bytes));
            base = below
                .map(|start| start / span * span)
                .filter(|s| *s > 0)
                .ok_or(MapError::NoSpace)?;
            let range = user_range(Va::new(base), pages)?;
            if m.vmas.overlapping(range).next().is_none() {
                m.mmap_base = Va::new(base);
                return Ok(m.mmap_base);
            }
        }
    }

    /// brk(2). The first call of an address space says where its heap starts.
    ///
    /// # Errors
    /// As the system call: see [`MapError`].
    pub async fn sys_brk(&self, cx: &Cx, mm: MmId, to: Va) -> Result<(), MapError> {
        let _span = cx.span("sys_brk");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let _sem = cx.lock(self.mmap_sem(mm)).await;
        // PAGE_ALIGN
        let to = if to.is_page_aligned() {
            to
        } else {
            to.page_floor().add_pages(1)
        };
        let Some((start, now)) = self.st().mm(mm).brk else {
            self.st().mm_mut(mm).brk = Some((to, to));
            return Ok(());
        };
        // Below its start the heap stays as it is.
        if to < start {
            return Ok(());
        }
        if let Some(gone) = VaRange::new(to, now) {
            self.do_munmap(cx, mm, gone).await;
        } else if let Some(grown) = VaRange::new(now, to) {
            // Something in the way, or right behind: the heap stays as it is.
            let wanted = VaRange::new(now, to.add_pages(1)).expect("a page more than something");
            if self.st().mm(mm).vmas.overlapping(wanted).next().is_some() {
                return Ok(());
            }
            self.do_mmap(
                cx,
                mm,
                MapRequest {
                    at: Some(now),
                    pages: grown.pages(),
                    backing: Backing::Anonymous,
                    pgoff: Pgoff::new(0),
                    sharing: Sharing::Private,
                    prot: Prot::READ_WRITE,
                },
            )
            .await?;
        }
        self.st().mm_mut(mm).brk = Some((start, to));
        Ok(())
    }

    /// The VMA of an address, for callers that hold mmap_sem.
    pub fn find_vma(&self, cx: &Cx, mm: MmId, va: Va) -> Option<VmaId> {
        self.touch_lines(cx, work::FIND_VMA);
        self.st().mm_mut(mm).vmas.find(va)
    }
}
