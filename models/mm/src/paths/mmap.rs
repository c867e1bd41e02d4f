//! `do_mmap_pgoff`, `sys_brk`, `do_brk`.
//!
//! Follows mm/mmap.c of 2.6.27 (host-mm-paths B.4): mmap_sem for write; what lies at a fixed address is
//! unmapped first, after length, file pages and the number of mappings were looked at; a mapping that
//! continues its neighbours is merged with them. With MAP_LOCKED (or after mlockall(MCL_FUTURE), heap
//! included) and MAP_POPULATE all pages are made present before mmap_sem is given back; a page that cannot be
//! is no error of the call. No TLB flush and no notifier on pure growth; shrinking brk is a munmap. Deviation:
//! the search for free space goes down from `mmap_base`, as in the top-down layout, but keeps the next
//! candidate instead of walking the VMAs (`arch_get_unmapped_area_topdown` with its cache); addresses change
//! no count.

use sim::Cx;
use x86::{PAGE_SIZE, Pgoff, PgoffRange, Va, VaRange};

use crate::access::Refused;
use crate::account::ENTRY;
use crate::hugetlb::Reserve;
use crate::kernel::Kernel;
use crate::mm::MmId;
use crate::profile::{MAX_MAP_COUNT, work};
use crate::vma::{Accounted, Backing, Growth, Linearity, Locked, Prot, Sharing, VmFlags, Vma, VmaId};
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
    /// Flags that change what becomes of the pages.
    pub flags: MapFlags,
}

/// Whether a new mapping's pages are made present at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Populate {
    /// When they are touched.
    #[default]
    OnDemand,
    /// Before mmap(2) returns (MAP_POPULATE).
    Now,
}

/// `flags` of mmap(2), as far as they concern pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MapFlags {
    /// MAP_LOCKED.
    pub locked: Locked,
    /// MAP_POPULATE.
    pub populate: Populate,
    /// MAP_GROWSDOWN.
    pub growth: Growth,
}

impl MapFlags {
    /// None of them.
    pub const NONE: MapFlags = MapFlags {
        locked: Locked::No,
        populate: Populate::OnDemand,
        growth: Growth::None,
    };
}

/// Why a mapping cannot be made or changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// The length is zero (-EINVAL), the range leaves the user half (-ENOMEM; of mremap -EINVAL), or its pages
    /// are more than a file can have (-EOVERFLOW).
    BadRange,
    /// mremap of a range that is not inside one mapping, or that may not be moved (-EFAULT).
    NotOneMapping,
    /// Some of the range is not mapped (-ENOMEM).
    Hole,
    /// A mapping the call is not made for (-EINVAL).
    Unsuitable,
    /// A page that must be present cannot be (-ENOMEM; without memory -EAGAIN).
    NotPresent(Refused),
    /// `sysctl_max_map_count` mappings already (-ENOMEM).
    TooManyMappings,
    /// No gap in the address space is large enough (-ENOMEM).
    NoSpace,
    /// The pool has not enough huge pages that are promised to nobody (-ENOMEM).
    NoHugePages,
    /// What lies there are huge pages, and the range begins or ends inside one (-EINVAL of `split_vma`;
    /// mmap makes it -ENOMEM).
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

/// Pages of the user half (`TASK_SIZE`).
const TASK_PAGES: u64 = x86::addr::LOWER_HALF_END / PAGE_SIZE;

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
        if request.pages > TASK_PAGES {
            return Err(MapError::NoSpace);
        }
        PgoffRange::from_pages(request.pgoff, request.pages).ok_or(MapError::BadRange)?;
        // One more than the limit is let through, as the kernel does.
        if self.st().mm(mm).vmas.len() > MAX_MAP_COUNT {
            return Err(MapError::TooManyMappings);
        }
        let start = match request.at {
            Some(at) => at,
            None => self.get_unmapped_area(mm, request.pages)?,
        };
        let range = user_range(start, request.pages)?;
        self.hugetlb_get_unmapped_area(request.backing, range)?;
        let flags = self.calc_vm_flags(mm, &request);
        self.mmap_region(cx, mm, range, &request, flags).await
    }

    /// `mmap_region`; the caller holds mmap_sem for write.
    pub(super) async fn mmap_region(
        &self,
        cx: &Cx,
        mm: MmId,
        range: VaRange,
        request: &MapRequest,
        flags: VmFlags,
    ) -> Result<VaRange, MapError> {
        self.do_munmap(cx, mm, range).await?;
        // Shared anonymous memory is the whole of its file.
        let pgoff = match (request.backing, request.sharing) {
            (Backing::File(_) | Backing::Huge(_) | Backing::Driver, _) => request.pgoff,
            (Backing::Anonymous, Sharing::Private) => Pgoff::new(range.start().vpn().get()),
            (Backing::Anonymous, Sharing::Shared) => Pgoff::new(0),
        };
        let vma = Vma {
            range,
            prot: request.prot,
            sharing: request.sharing,
            flags,
            backing: self.backing_of(request),
            pgoff,
            anon_vma: None,
            linearity: Linearity::Linear,
            scan_cursor: 0,
            truncate_count: 0,
            reserve: Reserve::None,
        };
        let vma = self.hugetlbfs_file_mmap(cx, vma).await?;
        let locked = flags.locked;
        let prev = self.st().mm(mm).vmas.before(range.start());
        if self.vma_merge(cx, mm, prev, &vma).await.is_none() {
            self.vma_link(cx, mm, vma).await;
        }
        if locked == Locked::Yes {
            self.st().mm_mut(mm).locked_vm += range.pages();
        }
        if locked == Locked::Yes || request.flags.populate == Populate::Now {
            let _ignored = self.make_pages_present(cx, mm, range).await;
        }
        Ok(range)
    }

    /// `calc_vm_flag_bits` and `def_flags`; private memory that can be written is accounted,
    /// but for huge pages, which are promised instead, and drivers'.
    fn calc_vm_flags(&self, mm: MmId, request: &MapRequest) -> VmFlags {
        let promised = match request.backing {
            Backing::File(file) => self.st().is_hugetlbfs(file),
            Backing::Huge(_) | Backing::Driver => true,
            Backing::Anonymous => false,
        };
        let private = request.sharing == Sharing::Private && !promised;
        let locked = match request.flags.locked {
            Locked::Yes => Locked::Yes,
            Locked::No => self.st().mm(mm).def_locked,
        };
        VmFlags {
            locked,
            growth: request.flags.growth,
            accounted: if private && request.prot.can_write() {
                Accounted::Yes
            } else {
                Accounted::No
            },
        }
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

    /// brk(2). The first call of an address space says where its heap starts. Returns where the heap ends now, in
    /// whole pages: where it did before if the call cannot be served, which is all that tells.
    pub async fn sys_brk(&self, cx: &Cx, mm: MmId, to: Va) -> Va {
        let _span = cx.span("sys_brk");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let _sem = cx.lock(self.mmap_sem(mm)).await;
        // PAGE_ALIGN
        let to = if to.is_page_aligned() {
            to
        } else {
            to.page_floor().add_pages(1)
        };
        let (start, now) = self.st().mm(mm).brk.unwrap_or((to, to));
        if to < start {
            return now;
        }
        let served = if let Some(gone) = VaRange::new(to, now) {
            self.do_munmap(cx, mm, gone).await
        } else if let Some(grown) = VaRange::new(now, to) {
            self.do_brk(cx, mm, grown).await
        } else {
            Ok(())
        };
        if served.is_err() {
            return now;
        }
        self.st().mm_mut(mm).brk = Some((start, to));
        to
    }

    /// The growing part of `sys_brk`, and `do_brk`; mmap_sem is held for write.
    async fn do_brk(&self, cx: &Cx, mm: MmId, grown: VaRange) -> Result<(), MapError> {
        // Something in the way, or right behind.
        let wanted = VaRange::from_pages(grown.start(), grown.pages() + 1).ok_or(MapError::BadRange)?;
        if self.st().mm(mm).vmas.overlapping(wanted).next().is_some() {
            return Err(MapError::NoSpace);
        }
        let _span = cx.span("do_brk");
        let range = user_range(grown.start(), grown.pages())?;
        if self.st().mm(mm).vmas.len() > MAX_MAP_COUNT {
            return Err(MapError::TooManyMappings);
        }
        let request = MapRequest {
            at: Some(range.start()),
            pages: range.pages(),
            backing: Backing::Anonymous,
            pgoff: Pgoff::new(0),
            sharing: Sharing::Private,
            prot: Prot::READ_WRITE,
            flags: MapFlags::NONE,
        };
        let flags = self.calc_vm_flags(mm, &request);
        self.mmap_region(cx, mm, range, &request, flags).await?;
        Ok(())
    }

    /// The VMA of an address, for callers that hold mmap_sem.
    pub fn find_vma(&self, cx: &Cx, mm: MmId, va: Va) -> Option<VmaId> {
        self.touch_lines(cx, work::FIND_VMA);
        self.st().mm_mut(mm).vmas.find(va)
    }
}
