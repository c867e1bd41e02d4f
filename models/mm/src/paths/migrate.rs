//! `sys_move_pages`, `migrate_pages`: pages move to other frames while programs use them.
//!
//! Follows mm/migrate.c of 2.6.27 (host-mm-paths B.14). All pagevecs are drained, so that every page is on
//! a list; then each page is isolated, which takes a reference. Up to ten passes try each that is left:
//!
//! 1. PG_locked of the old page (only tried in the first three passes); PG_writeback is waited for.
//! 2. `try_to_unmap`: each entry is cleared, flushed, told, and becomes a *migration entry*, which names the
//!    old frame and whether stores were allowed. A fault that meets one waits for PG_locked of the old page, with
//!    a reference of its own, and is tried again.
//! 3. The mapping is moved if nobody else has a reference: an anonymous page without a mapping has 1 left
//!    (ours), a page of the page cache or the swap cache 2; the latter are compared and replaced in the
//!    tree under its tree_lock with the count frozen, so that no look-up can get one in between.
//! 4. The contents are copied, and what the old page's flags said.
//! 5. `remove_migration_ptes`: the reverse map is walked again, and each migration entry becomes one of the
//!    new page, under its pte lock and without a flush, as nothing was cached of an entry that was not
//!    present (F26). If 3. failed, each becomes one of the old page again.
//! 6. PG_locked goes, which wakes the faults; old and new page go to the LRU lists through a pagevec,
//!    one of them only to be freed when that is drained.
//!
//! An anonymous page is held together by an RCU reader from 2. to 5., because nothing else keeps its
//! anon_vma once no entry maps it. Where rmap locks sleep a reference to the anon_vma does that
//! (host-mm-paths E, point 3).
//!
//! A page with other references (a device's, a pagevec's, a waiting fault's) fails with -EAGAIN in each pass and is
//! counted. An anonymous page in the swap cache leaves swap entries behind, not migration entries, and is
//! found in the cache again.
//!
//! mmap_sem of the caller's address space is held for read throughout; other mappers' are not. So fork, mprotect,
//! mremap, zaps and truncate meet migration entries (fork.rs, mprotect.rs, zap_nonpresent.rs): what a child
//! inherits is a reader's entry where pages are copied on write, what loses its write right becomes one.
//!
//! The new frame is taken if more than `pages_low` are free; nothing is reclaimed for it, and when there is none
//! the call ends with what it has moved (GFP_THISNODE).
//!
//! Deviations: the kernel picks a frame of the target node; a kernel has one zone here, so another frame
//! of it is taken. Files have no buffers, so no page has a third reference for them. Whoever zaps or forks
//! a migration entry counts it in rss; 2.6.27 forgets to (mainline fixed that in 3.4), which only its rss
//! counters tell. A mapping that becomes nonlinear between 2. and 5. is searched at the page's linear
//! place; 2.6.27 leaves the entry behind for ever and stops at a BUG (fixed in 3.14). anon_vmas are never
//! freed, so the reference to one costs its atomic operations and nothing else. Pages in nonlinear mappings
//! are moved as far as try_to_unmap reaches them.

use sim::{Cx, Guard, ReaderGuard};
use x86::{Entry, Level, Pfn, PgoffRange, Rights, TableId, Va, VaRange};

use super::fault::Fault;
use super::writeback::WasDirty;
use crate::account::{BOOKKEEPING, ENTRY, PAGE_TABLE};
use crate::file::CachedPage;
use crate::frame::{LruList, Owner, PageFlags};
use crate::kernel::{Kernel, State};
use crate::mm::MmId;
use crate::profile::{MIGRATE_PASSES, MIGRATE_PASSES_TRYING, RmapLocks, work};
use crate::rmap::UnmapFor;
use crate::swapops::{MigrationAccess, NonPresent};
use crate::vma::{Backing, Sharing, VmaId};

/// Which pages of a range are to be moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// Those that nobody else maps (MPOL_MF_MOVE).
    Own,
    /// All (MPOL_MF_MOVE_ALL).
    All,
}

/// What became of the pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Migrated {
    /// Pages in other frames now, or freed meanwhile.
    pub moved: u64,
    /// Pages that stayed where they were.
    pub failed: u64,
}

/// How far a pass goes for a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Force {
    /// Pages that are locked or under writeback are left for later.
    No,
    /// They are waited for.
    Yes,
}

/// What a pass achieved for a page.
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
enum Outcome {
    Moved,
    /// -EAGAIN.
    Again,
    /// -ENOMEM.
    NoMemory,
}

/// What keeps the anon_vma of a page that no entry maps.
enum AnonKept<'a> {
    Rcu {
        _reader: ReaderGuard<'a>,
    },
    Reference,
    /// A page of a file: PG_locked is enough.
    NotNeeded,
}

impl Kernel {
    /// move_pages(2) for the pages of a range. The caller is a user of the address space.
    pub async fn sys_move_pages(&self, cx: &Cx, mm: MmId, range: VaRange, which: Which) -> Migrated {
        let _span = cx.span("sys_move_pages");
        cx.charge(ENTRY, self.machine.costs.syscall_entry_exit);
        let _sem = cx.lock_shared(self.mmap_sem(mm)).await;
        // `migrate_prep`.
        self.lru_add_drain_all(cx).await;
        let mut pages = Vec::new();
        for vpn in range.vpns() {
            if let Some(pfn) = self.take_for_migration(cx, mm, vpn.va(), which).await {
                pages.push(pfn);
            }
        }
        self.migrate_pages(cx, pages).await
    }

    /// The loop of `do_move_pages`: a page that may be moved, isolated.
    async fn take_for_migration(&self, cx: &Cx, mm: MmId, va: Va, which: Which) -> Option<Pfn> {
        let vma = self.find_vma(cx, mm, va)?;
        // `vma_migratable`.
        let migratable = !matches!(self.st().vma(vma).backing, Backing::Driver | Backing::Huge(_));
        if !migratable {
            return None;
        }
        let pfn = self.follow_page_get(cx, mm, va).await?;
        let shared = self.frames.borrow().get(pfn).mapcount > 1;
        let isolated = (which == Which::All || !shared) && self.isolate_lru_page(cx, pfn).await;
        self.put_page(cx, pfn).await;
        isolated.then_some(pfn)
    }

    /// `follow_page` with FOLL_GET.
    async fn follow_page_get(&self, cx: &Cx, mm: MmId, va: Va) -> Option<Pfn> {
        let (table, ptl) = {
            let st = self.st();
            let table = st.tables.leaf_table(st.mm(mm).pgd, va.vpn())?;
            (table, st.ptl(table))
        };
        let _ptl = cx.lock(ptl).await;
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        let entry = self.st().tables.get(table, Level::Pte.index(va));
        entry.maps_page().then(|| {
            self.frames().get_page(entry.pfn());
            entry.pfn()
        })
    }

    /// `isolate_lru_page`: off its list, with a reference; says whether it was on one.
    async fn isolate_lru_page(&self, cx: &Cx, pfn: Pfn) -> bool {
        if !self.frames.borrow().get(pfn).flags.has(PageFlags::LRU) {
            return false;
        }
        let _irqs = cx.irq_disable();
        let _lock = cx.lock(self.locks.lru_lock).await;
        self.touch_lines(cx, work::LRU);
        let mut frames = self.frames();
        if !frames.get(pfn).flags.has(PageFlags::LRU) {
            return false;
        }
        let _ = frames.lru_del(pfn);
        frames.get_page(pfn);
        true
    }

    /// `migrate_pages`: moves isolated pages and puts all of them back.
    pub(crate) async fn migrate_pages(&self, cx: &Cx, pages: Vec<Pfn>) -> Migrated {
        let _span = cx.span("migrate_pages");
        let mut result = Migrated::default();
        let mut left = pages;
        let mut memory = Outcome::Moved;
        for pass in 0..MIGRATE_PASSES {
            let force = if pass < MIGRATE_PASSES_TRYING {
                Force::No
            } else {
                Force::Yes
            };
            for pfn in std::mem::take(&mut left) {
                cx.cond_resched().await;
                if memory == Outcome::NoMemory {
                    left.push(pfn);
                    continue;
                }
                match self.unmap_and_move(cx, pfn, force).await {
                    Outcome::Moved => result.moved += 1,
                    Outcome::Again => left.push(pfn),
                    Outcome::NoMemory => {
                        memory = Outcome::NoMemory;
                        left.push(pfn);
                    }
                }
            }
            if left.is_empty() || memory == Outcome::NoMemory {
                break;
            }
        }
        result.failed = left.len() as u64;
        // `putback_lru_pages`.
        for pfn in left {
            self.move_to_lru(cx, pfn).await;
        }
        let mut st = self.st();
        st.metrics.pages_migrated += result.moved;
        st.metrics.pages_migrate_failed += result.failed;
        result
    }

    /// `unmap_and_move`.
    async fn unmap_and_move(&self, cx: &Cx, old: Pfn, force: Force) -> Outcome {
        let _span = cx.span("unmap_and_move");
        // GFP_THISNODE: who asks for a page of this node only does not reclaim for it.
        let Ok(new) = self.alloc_page(cx) else {
            return Outcome::NoMemory;
        };
        // Freed under our hands: only our reference is left.
        let freed = self.frames.borrow().get(old).count == 1;
        let outcome = if freed {
            Outcome::Moved
        } else {
            self.move_locked(cx, old, new, force).await
        };
        if outcome == Outcome::Moved {
            self.move_to_lru(cx, old).await;
        }
        // If it was not needed it is freed when the pagevec is drained.
        self.move_to_lru(cx, new).await;
        outcome
    }

    /// The part of `unmap_and_move` with the old page locked.
    async fn move_locked(&self, cx: &Cx, old: Pfn, new: Pfn, force: Force) -> Outcome {
        let _locked = match self.trylock_page(cx, old).await {
            Some(locked) => locked,
            None if force == Force::No => return Outcome::Again,
            None => self.lock_page(cx, old).await,
        };
        if self.page_writeback(old) {
            if force == Force::No {
                return Outcome::Again;
            }
            self.wait_on_page_writeback(cx, old).await;
        }
        let _anon = self.keep_anon_vma(cx, old);
        // An orphan of truncate_complete_page: nobody finds it any more.
        if self.frames.borrow().get(old).owner() == Owner::None {
            return Outcome::Again;
        }
        let _ = self.try_to_unmap(cx, old, UnmapFor::Migration).await;
        let unmapped = self.frames.borrow().get(old).mapcount == 0;
        if unmapped && self.move_to_new_page(cx, new, old).await == Outcome::Moved {
            return Outcome::Moved;
        }
        self.remove_migration_ptes(cx, old, old).await;
        Outcome::Again
    }

    fn keep_anon_vma<'a>(&self, cx: &'a Cx, old: Pfn) -> AnonKept<'a> {
        if !self.frames.borrow().get(old).is_anon() {
            return AnonKept::NotNeeded;
        }
        match self.profile.rmap_locks {
            RmapLocks::Spin => AnonKept::Rcu {
                _reader: cx.read_lock(self.rcu),
            },
            RmapLocks::RwSem => {
                // Taken now, put later.
                cx.charge(BOOKKEEPING, self.machine.costs.atomic_op * 2);
                AnonKept::Reference
            }
        }
    }

    /// `move_to_new_page`.
    async fn move_to_new_page(&self, cx: &Cx, new: Pfn, old: Pfn) -> Outcome {
        // Nobody else knows it; whoever had the frame before may not have let go yet in virtual time.
        let Some(_locked) = self.trylock_page(cx, new).await else {
            return Outcome::Again;
        };
        {
            let mut frames = self.frames();
            let (owner, index) = (frames.get(old).owner(), frames.get(old).index());
            let frame = frames.get_mut(new);
            frame.set_owner(owner);
            frame.set_index(index);
        }
        if self.migrate_page_move_mapping(cx, new, old).await == Outcome::Again {
            self.frames().get_mut(new).set_owner(Owner::None);
            return Outcome::Again;
        }
        self.migrate_page_copy(cx, new, old).await;
        self.remove_migration_ptes(cx, old, new).await;
        // What entries that still named it were counted as had to be known until now.
        self.frames().get_mut(old).set_owner(Owner::None);
        Outcome::Moved
    }

    /// `migrate_page_move_mapping`: the page cache or the swap cache has the new page from now on. The count
    /// is frozen while it is compared and the page replaced: nothing can happen in between here.
    async fn migrate_page_move_mapping(&self, cx: &Cx, new: Pfn, old: Pfn) -> Outcome {
        const OURS: u32 = 1;
        const OURS_AND_THE_TREES: u32 = 2;
        let Some(tree_lock) = self.page_tree_lock(old) else {
            let alone = self.frames.borrow().get(old).count == OURS;
            return if alone { Outcome::Moved } else { Outcome::Again };
        };
        let _irqs = cx.irq_disable();
        let _tree = cx.lock(tree_lock).await;
        let (count, owner, index) = {
            let frames = self.frames.borrow();
            let frame = frames.get(old);
            (frame.count, frame.owner(), frame.index())
        };
        if count != OURS_AND_THE_TREES {
            return Outcome::Again;
        }
        let nodes = match owner {
            Owner::File(file) => {
                let page = CachedPage {
                    pfn: new,
                    lock: self.page_lock(new),
                };
                let mut st = self.st();
                let left = st.file(file).pages.get(index.get());
                let left = left.expect("it has the tree's reference");
                self.check_uncached(cx, &left, self.frames.borrow().get(old));
                st.file_mut(file).pages.replace(index.get(), page).nodes
            }
            Owner::Anon(_) | Owner::None => {
                let swap = &mut self.st().swap;
                let slot = swap.uncache(old).expect("a page in the swap cache has a slot");
                swap.cache(slot, new);
                1
            }
        };
        self.touch_lines(cx, nodes * work::PAGE_CACHE_NODE);
        let mut frames = self.frames();
        for bit in [PageFlags::CACHED, PageFlags::SWAPCACHE] {
            if frames.get_mut(old).flags.test_and_clear(bit) {
                frames.get_mut(new).flags.set(bit);
            }
        }
        frames.get_page(new);
        let _ = frames.put_testzero(old);
        Outcome::Moved
    }

    /// `migrate_page_copy`.
    async fn migrate_page_copy(&self, cx: &Cx, new: Pfn, old: Pfn) {
        self.check_unreachable(old);
        self.copy_page(cx, old, new);
        {
            let mut frames = self.frames();
            let referenced = frames.get(old).flags.has(PageFlags::REFERENCED);
            if referenced {
                frames.get_mut(new).flags.set(PageFlags::REFERENCED);
            }
            if frames.get_mut(old).flags.test_and_clear(PageFlags::ACTIVE) {
                frames.get_mut(new).flags.set(PageFlags::ACTIVE);
            }
        }
        let dirty = self.frames.borrow().get(old).flags.has(PageFlags::DIRTY);
        if dirty && self.clear_page_dirty_for_io(cx, old).await == WasDirty::Yes {
            self.set_page_dirty(cx, new).await;
        }
    }

    /// `remove_migration_ptes`: what names the old page maps the new one from now on. Nobody is told.
    async fn remove_migration_ptes(&self, cx: &Cx, old: Pfn, new: Pfn) {
        let _span = cx.span("remove_migration_ptes");
        let owner = self.frames.borrow().get(new).owner();
        match owner {
            Owner::None => {}
            Owner::Anon(anon) => {
                let lock = self.st().anon_vma(anon).lock;
                let _lock = cx.lock(lock).await;
                let mut walk = self.anon_mappers(anon);
                while let Some(vma) = self.next_mapper(cx, &mut walk) {
                    self.remove_migration_pte(cx, vma, old, new).await;
                }
            }
            Owner::File(file) => {
                let lock = self.st().file(file).i_mmap_lock;
                let _lock = cx.lock(lock).await;
                let mut walk = self.file_mappers(new, file);
                while let Some(vma) = self.next_mapper(cx, &mut walk) {
                    self.remove_migration_pte(cx, vma, old, new).await;
                }
                let nonlinear = self.st().file(file).i_mmap_nonlinear.clone();
                for vma in nonlinear {
                    self.remove_migration_pte(cx, vma, old, new).await;
                }
            }
        }
    }

    /// `remove_migration_pte`.
    async fn remove_migration_pte(&self, cx: &Cx, vma: VmaId, old: Pfn, new: Pfn) {
        let Some((mm, va, table)) = self.page_address_in_vma(vma, new) else {
            return;
        };
        let at = Level::Pte.index(va);
        let names_old = |entry: Entry| match NonPresent::of(entry) {
            Some(NonPresent::Migration(pfn, access)) if pfn == old => Some(access),
            _ => None,
        };
        // Not worth the lock if it is neither a migration nor a swap entry (`is_swap_pte`).
        let entry = NonPresent::of(self.st().tables.get(table, at));
        if !matches!(entry, Some(NonPresent::Migration(..) | NonPresent::Swap(_))) {
            return;
        }
        let ptl = self.st().ptl(table);
        let _ptl = cx.lock(ptl).await;
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        let mut st = self.st();
        let Some(access) = names_old(st.tables.get(table, at)) else {
            return;
        };
        let entry = mk_pte(&st, vma, new, access);
        self.set_pte(cx, &mut st, table, at, entry);
        debug_assert_eq!(st.mm_of(vma), mm);
        drop(st);
        let mut frames = self.frames();
        frames.get_page(new);
        frames.get_mut(new).mapcount += 1;
        drop(frames);
        self.touch_lines(cx, work::RMAP);
    }

    /// `page_address_in_vma`, and the table its entry is in.
    fn page_address_in_vma(&self, vma: VmaId, pfn: Pfn) -> Option<(MmId, Va, TableId)> {
        let st = self.st();
        let index = self.frames.borrow().get(pfn).index();
        let only = PgoffRange::new(index, index).expect("one page");
        let va = st.vma(vma).addresses_of(&only)?.start();
        let mm = st.mm_of(vma);
        let table = st.tables.leaf_table(st.mm(mm).pgd, va.vpn())?;
        Some((mm, va, table))
    }

    /// `move_to_lru`: into the pagevec in front of its list; the caller's reference is put.
    async fn move_to_lru(&self, cx: &Cx, pfn: Pfn) {
        let list = if self.frames().get_mut(pfn).flags.test_and_clear(PageFlags::ACTIVE) {
            LruList::Active
        } else {
            LruList::Inactive
        };
        self.lru_cache_add(cx, pfn, list).await;
        self.put_page(cx, pfn).await;
    }

    /// `migration_entry_wait`: until the page is unlocked, with a reference so that it stays.
    pub(super) async fn migration_entry_wait(&self, cx: &Cx, fault: &Fault) {
        let _span = cx.span("migration_entry_wait");
        let ptl: Guard<'_> = cx.lock(fault.ptl).await;
        cx.charge(PAGE_TABLE, self.machine.costs.pte_access);
        let entry = self.st().tables.get(fault.table, fault.index);
        let Some(NonPresent::Migration(pfn, _)) = NonPresent::of(entry) else {
            return;
        };
        self.st().metrics.faults_migration += 1;
        self.frames().get_page(pfn);
        drop(ptl);
        self.wait_on_page_locked(cx, pfn).await;
        self.put_page(cx, pfn).await;
    }
}

/// `mk_pte` with `vm_page_prot`, old and clean; writable only if the mapping it replaces was.
fn mk_pte(st: &State, vma: VmaId, pfn: Pfn, access: MigrationAccess) -> Entry {
    let v = st.vma(vma);
    let mut rights = v.rights();
    if v.sharing == Sharing::Private || st.vma_wants_writenotify(v) {
        rights = rights.without(Rights::WRITE);
    }
    if access == MigrationAccess::Write {
        rights = rights.with(Rights::WRITE);
    }
    let entry = Entry::leaf(pfn, rights);
    if v.prot.can_read() {
        entry
    } else {
        entry.with_no_access()
    }
}
