//! The pool of huge pages of a kernel, and who may take from it.
//!
//! Follows mm/hugetlb.c of 2.6.27 for pages of 2 MiB. The pool is filled at boot (`hugepages=`), from
//! contiguous aligned frames; its pages never go back to the allocator. A free one lies on the pool's own
//! list, first in, last out (`enqueue_huge_page`), and a page that loses its last reference returns there
//! (`free_huge_page`). A huge page is a compound page: its first frame carries references, pins, TLB slots
//! and generation of all 512, and whoever names another one of them means the first
//! ([`Frames::head`](crate::Frames::head)); translations remember the frame they lead to. Huge pages have no
//! mapcount (host-mm-paths F5) and are in no rss counter.
//!
//! Reservations: mmap promises pages, so that a fault finds one. A shared mapping promises what no mapping of
//! the file promised before (the region list of the inode); a private one promises its whole length to its
//! owner, the process that made it, and remembers what of that was used (`struct resv_map`, which parts of a
//! split mapping share); before 2.6.27 a private mapping was promised nothing
//! ([`HugetlbReserve`]). A forked child is promised nothing. Who is promised
//! nothing, or does not want to use a promise up, only gets pages that are promised to nobody.
//!
//! Deviations: one page size; no overcommit (`nr_overcommit_hugepages` is 0, as by default), so no surplus
//! pages; no file system quota; one pool a kernel, not one a node. A promise is used up once: 2.6.27 counts
//! it again when the owner loses a page to truncation and faults anew, and `resv_huge_pages` falls short.
//! `hugetlb_lock` protects a few counters for a few instructions, has no rank in host-mm-paths E, and is
//! not taken, as the allocator's locks are not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use x86::{PageSize, Pfn, Pgoff, TableId, Va};

use crate::frame::{Frames, OutOfMemory, PageFlags, Zone};
use crate::kernel::{Kernel, State};
use crate::profile::HugetlbReserve;
use crate::vma::VmaId;
use crate::{Backing, FileId, Owner, Sharing};

/// Size of a huge page (`HPAGE_SIZE`).
pub const HPAGE: PageSize = PageSize::Size2M;
/// Pages of 4 KiB in a huge page (`pages_per_huge_page`).
pub const HPAGE_PAGES: u64 = HPAGE.base_pages();

/// Huge pages of a zone (`struct hstate`).
#[derive(Clone, Debug, Default)]
pub(crate) struct HugePool {
    free: Vec<Pfn>,
    total: u64,
    reserved: u64,
    most_in_use: u64,
}

/// Whether an allocation may use up what was promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Promised {
    /// A page that was promised to the taker.
    Page,
    /// A page that is promised to nobody (also `avoid_reserve`).
    Nothing,
}

impl HugePool {
    /// A page returns.
    pub(crate) fn give(&mut self, pfn: Pfn) {
        self.free.push(pfn);
    }

    /// `dequeue_huge_page_vma`.
    fn take(&mut self, promised: Promised) -> Option<Pfn> {
        if promised == Promised::Nothing && self.free.len() as u64 == self.reserved {
            return None;
        }
        let pfn = self.free.pop()?;
        if promised == Promised::Page {
            self.forget(1);
        }
        self.most_in_use = self.most_in_use.max(self.in_use());
        Some(pfn)
    }

    /// `hugetlb_acct_memory` of more pages.
    fn promise(&mut self, pages: u64) -> Result<(), OutOfMemory> {
        if self.reserved + pages > self.free.len() as u64 {
            return Err(OutOfMemory);
        }
        self.reserved += pages;
        Ok(())
    }

    /// `hugetlb_acct_memory` of fewer pages. A truncation that a fault crosses gives one promise back too
    /// often, as in the kernel, where the counter would wrap.
    fn forget(&mut self, pages: u64) {
        self.reserved = self.reserved.saturating_sub(pages);
    }

    fn in_use(&self) -> u64 {
        self.total - self.free.len() as u64
    }

    /// Maxima count from now on.
    pub(crate) fn start_measuring(&mut self) {
        self.most_in_use = self.in_use();
    }

    /// Pages in use at most.
    pub(crate) fn most_in_use(&self) -> u64 {
        self.most_in_use
    }
}

/// Counts of a kernel's pool, as in /proc/meminfo.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolState {
    /// `HugePages_Total`.
    pub total: u64,
    /// `HugePages_Free`.
    pub free: u64,
    /// `HugePages_Rsvd`: free, but promised.
    pub reserved: u64,
}

/// Huge pages of a file, or of a private mapping, that were promised or used: a region list.
type Regions = BTreeSet<u64>;

/// What a private mapping of huge pages may count on (`vm_private_data`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Reserve {
    /// Nothing: a shared mapping, which asks its file, or a forked child's.
    #[default]
    None,
    /// `HPAGE_RESV_OWNER`: every page was promised; the list remembers which were used.
    Owner(ResvMapId),
    /// `HPAGE_RESV_UNMAPPED`: the owner took a page back; new faults fail.
    Unmapped,
}

/// A `struct resv_map`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ResvMapId(u32);

/// What a kernel knows of its huge pages besides the pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hugetlb {
    /// Promised pages of each hugetlbfs file (`mapping->private_list`).
    inodes: BTreeMap<FileId, Regions>,
    /// Used pages of each private mapping.
    resv_maps: Vec<Regions>,
    /// References to PMD tables beyond the first: address spaces that share them.
    sharers: BTreeMap<TableId, u32>,
}

impl Hugetlb {
    /// Another address space uses a PMD table.
    pub(crate) fn share(&mut self, table: TableId) {
        *self.sharers.entry(table).or_default() += 1;
    }

    /// `put_page` of a PMD table that others use, too. False if nobody does: then it is the caller's to
    /// free.
    pub(crate) fn drop_share(&mut self, table: TableId) -> bool {
        let Some(others) = self.sharers.get_mut(&table) else {
            return false;
        };
        *others -= 1;
        if *others == 0 {
            self.sharers.remove(&table);
        }
        true
    }
}

/// The huge pages of a hugetlbfs file, or of a mapping of one, that lie in a range of 4 KiB pages.
fn huge_indices(first: u64, pages: u64) -> Range<u64> {
    first / HPAGE_PAGES..(first + pages) / HPAGE_PAGES
}

/// Whether an address begins a huge page.
#[must_use]
pub const fn is_huge_aligned(va: Va) -> bool {
    va.get().is_multiple_of(HPAGE.bytes())
}

impl State {
    /// Whether a file lies in hugetlbfs.
    #[must_use]
    pub fn is_hugetlbfs(&self, file: FileId) -> bool {
        self.hugetlb.inodes.contains_key(&file)
    }

    /// `is_vm_hugetlb_page`.
    #[must_use]
    pub fn is_huge(&self, vma: VmaId) -> bool {
        matches!(self.vma(vma).backing, Backing::Huge(_))
    }

    /// `vma_commit_reservation`: the page at this index of a mapping's file exists.
    fn vma_commit_reservation(&mut self, (file, sharing, reserve): (FileId, Sharing, Reserve), index: u64) {
        match (sharing, reserve) {
            (Sharing::Shared, _) => {
                self.hugetlb.inodes.entry(file).or_default().insert(index);
            }
            (Sharing::Private, Reserve::Owner(map)) => {
                self.hugetlb.resv_maps[map.0 as usize].insert(index);
            }
            (Sharing::Private, Reserve::None | Reserve::Unmapped) => {}
        }
    }

    /// `vma_hugecache_offset`: index of an address in the page cache of a hugetlbfs file, which counts huge
    /// pages; `vm_pgoff` counts pages of 4 KiB.
    #[must_use]
    pub(crate) fn huge_index(&self, vma: VmaId, va: Va) -> u64 {
        self.vma(vma).pgoff_of(va).get() / HPAGE_PAGES
    }
}

impl Kernel {
    /// Fills the pool with this many more huge pages, as `hugepages=` does at boot.
    ///
    /// # Errors
    /// When memory has not as many; those that there were are in the pool.
    pub fn add_hugepages(&self, pages: u64) -> Result<(), OutOfMemory> {
        let mut frames = self.frames();
        for _ in 0..pages {
            let head = frames.alloc_huge(self.zone)?;
            let pool = frames.huge_pool(self.zone);
            pool.total += 1;
            pool.give(head);
        }
        Ok(())
    }

    /// Counts of this kernel's pool.
    #[must_use]
    pub fn huge_pool(&self) -> PoolState {
        let mut frames = self.frames();
        let pool = frames.huge_pool(self.zone);
        PoolState {
            total: pool.total,
            free: pool.free.len() as u64,
            reserved: pool.reserved,
        }
    }

    /// Creates a file in hugetlbfs, `pages` pages of 4 KiB long: a multiple of a huge page's.
    ///
    /// Its i_mutex is of a class of its own: mmap takes it inside mmap_sem, the other way round than write(2)
    /// of other files (lockdep was told the same later).
    ///
    /// # Panics
    /// If the length is no multiple.
    pub fn new_hugetlb_file(&self, name: &str, pages: u64) -> FileId {
        assert!(pages.is_multiple_of(HPAGE_PAGES), "{name}: part of a huge page");
        let file = self.new_file(name, pages);
        let i_mutex = self.engine.new_lock(self.classes.hugetlbfs_i_mutex);
        let mut st = self.st();
        let other = std::mem::replace(&mut st.file_mut(file).i_mutex, i_mutex);
        self.engine.free_lock(other);
        st.hugetlb.inodes.insert(file, Regions::new());
        file
    }

    /// `hugetlb_reserve_pages`: promises what a new mapping may need.
    pub(crate) fn hugetlb_reserve_pages(
        &self,
        file: FileId,
        first: u64,
        pages: u64,
        sharing: Sharing,
    ) -> Result<Reserve, OutOfMemory> {
        let wanted = huge_indices(first, pages);
        let mut st = self.st();
        let mut frames = self.frames();
        let pool = frames.huge_pool(self.zone);
        match sharing {
            Sharing::Private if self.profile.hugetlb_reserve == HugetlbReserve::SharedOnly => {
                Ok(Reserve::None)
            }
            Sharing::Private => {
                pool.promise(wanted.end - wanted.start)?;
                st.hugetlb.resv_maps.push(Regions::new());
                Ok(Reserve::Owner(ResvMapId(st.hugetlb.resv_maps.len() as u32 - 1)))
            }
            Sharing::Shared => {
                let regions = st.hugetlb.inodes.entry(file).or_default();
                let known = regions.range(wanted.clone()).count() as u64;
                pool.promise(wanted.end - wanted.start - known)?;
                regions.extend(wanted);
                Ok(Reserve::None)
            }
        }
    }

    /// `hugetlb_vm_op_close` of VMAs that are gone: promises to their owner that were not used are taken
    /// back.
    pub(crate) fn hugetlb_vm_close(&self, vmas: &[VmaId]) {
        let st = self.st();
        for v in vmas.iter().map(|vma| st.vma(*vma)) {
            let Reserve::Owner(map) = v.reserve else { continue };
            let all = huge_indices(v.pgoff.get(), v.range.pages());
            let used = &st.hugetlb.resv_maps[map.0 as usize];
            let used = used.range(all.clone()).count() as u64;
            self.frames()
                .huge_pool(self.zone)
                .forget(all.end - all.start - used);
        }
    }

    /// `hugetlb_unreserve_pages`: a file lost what lies behind `from`, `freed` huge pages among it; what was
    /// promised and never used is taken back.
    pub(crate) fn hugetlb_unreserve_pages(&self, file: FileId, from: u64, freed: u64) {
        let mut st = self.st();
        let regions = st.hugetlb.inodes.entry(file).or_default();
        let gone = regions.split_off(&from).len() as u64;
        let unused = gone.saturating_sub(freed);
        self.frames().huge_pool(self.zone).forget(unused);
    }

    /// `alloc_huge_page` for an address of a VMA, without what it costs: a page with one reference.
    pub(crate) fn take_huge_page(&self, vma: VmaId, va: Va, wish: Promised) -> Result<Pfn, OutOfMemory> {
        let mut st = self.st();
        let index = st.huge_index(vma, va);
        let v = st.vma(vma);
        let (sharing, reserve) = (v.sharing, v.reserve);
        let file = v.file().expect("huge pages are a file's");
        let has_promise = match (sharing, reserve) {
            (Sharing::Shared, _) => st.hugetlb.inodes[&file].contains(&index),
            (Sharing::Private, Reserve::Owner(map)) => !st.hugetlb.resv_maps[map.0 as usize].contains(&index),
            (Sharing::Private, Reserve::None | Reserve::Unmapped) => false,
        };
        let promised = if has_promise { wish } else { Promised::Nothing };
        let mut frames = self.frames();
        let pfn = frames.huge_pool(self.zone).take(promised).ok_or(OutOfMemory)?;
        let frame = frames.get_mut(pfn);
        frame.count = 1;
        frame.set_owner(Owner::File(file));
        frame.set_index(Pgoff::new(index));
        st.vma_commit_reservation((file, sharing, reserve), index);
        Ok(pfn)
    }
}

/// What of a zone's pool does not add up.
pub(crate) fn audit_pool(frames: &mut Frames, zone: Zone, wrong: &mut Vec<String>) {
    let held = frames
        .iter()
        .filter(|(_, f)| f.zone() == zone && f.flags.has(PageFlags::HUGE) && f.count > 0)
        .count() as u64;
    let pool = frames.huge_pool(zone);
    let free = pool.free.len() as u64;
    if free + held != pool.total {
        wrong.push(format!(
            "{} huge pages, but {free} are free and {held} have references",
            pool.total
        ));
    }
    if pool.reserved > free {
        wrong.push(format!(
            "{} huge pages are promised, {free} are free",
            pool.reserved
        ));
    }
}
