//! The invariants that are checked at the very step that could break them; the table is `invariants.rs`.
//!
//! Each check asks state that the step itself does not keep: the context tracker for locks, the TLBs for
//! translations, the subscribers' list for who was told. Checks cost no virtual time, change nothing that a
//! path looks at, and take a few instructions on the paths that run a page at a time; the longer ones run
//! once an operation.

use sim::{Cx, Mode};
use x86::{Access, Entry, Generation, Level, Pfn, Pgoff, PgoffRange, TableId, TlbEntry, Va, VaRange, Vpn};
use x86::{Context, PageTables};

use crate::FileId;
use crate::file::CachedPage;
use crate::frame::{Frame, Owner, PageFlags};
use crate::hugetlb::HPAGE;
use crate::invariants::{
    DIRTY_BIT_LOST, FILLED_OUTSIDE_MASK, MAPPED_BEYOND_EOF, MAPPED_IN_BRACKET, PAGE_NOTICE_TOO_EARLY,
    PTE_WITHOUT_LOCK, RANGE_OVER_TOO_EARLY, REPLACED_WITHOUT_FLUSH, ROOT_FREED_WHILE_LOADED,
    TABLES_FREED_WHILE_LINKED, UNCACHED_WHILE_MAPPED, UNMAPPED_BEFORE_RELEASE, UPPER_ENTRY_WITHOUT_LOCK,
    WRITABLE_AFTER_FORK, WRITABLE_SHARED_PAGE,
};
use crate::kernel::{Kernel, State};
use crate::mm::{MmId, Notified};
use crate::notifier::{Path, Point, SubscriptionId, UNBALANCED_BRACKET};
use crate::vma::{Backing, VmaId};

/// A bracket that a subscriber heard open and not close yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OpenBracket {
    pub(crate) mm: MmId,
    pub(crate) range: VaRange,
    pub(crate) subscriber: SubscriptionId,
}

/// What a subscription is going through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// It hears of everything.
    Listening,
    /// Its release is running.
    Releasing,
    /// Its release is over.
    Released,
}

/// The right to change the leaf entries of one table; see [`Kernel::locked_ptes`].
#[must_use = "entries are changed through it"]
#[derive(Clone, Copy)]
pub struct LockedPtes<'a> {
    cx: &'a Cx,
    table: TableId,
}

impl LockedPtes<'_> {
    /// Stores an entry. One that maps a page does not turn into one that maps another (F26).
    #[inline]
    pub fn set(self, st: &mut State, index: usize, entry: Entry) {
        if entry.present() {
            let old = st.tables.get(self.table, index);
            if old.present() && old.pfn() != entry.pfn() {
                report_replaced(self.cx, old.pfn(), entry.pfn());
            }
        }
        st.tables.set(self.table, index, entry);
    }
}

#[cold]
fn report_unlocked(cx: &Cx, table: TableId) {
    let text = format!(
        "entries of page table {} are changed without the table's lock (F3)",
        table.get()
    );
    cx.engine().violate(PTE_WITHOUT_LOCK, text, None);
}

#[cold]
fn report_replaced(cx: &Cx, old: Pfn, new: Pfn) {
    let text = format!("an entry goes from {old} to {new} without having been empty and flushed (F26)");
    cx.engine()
        .violate(REPLACED_WITHOUT_FLUSH, text, Some(("pfn", u64::from(old.get()))));
}

#[cold]
fn report_outside_mask(cx: &Cx, st: &State, mm: MmId) {
    let text = format!(
        "cpu{} gets a translation of {}, whose mask it is not in (F18)",
        cx.cpu().index(),
        st.mm(mm).name
    );
    cx.engine().violate(FILLED_OUTSIDE_MASK, text, None);
}

/// Leaf entries.
impl Kernel {
    /// The right to change the leaf entries of a table, whose lock the caller holds (F3). It lasts until
    /// the caller awaits something: loops over many entries ask once for each stretch.
    #[inline]
    pub fn locked_ptes<'a>(&self, cx: &'a Cx, st: &State, table: TableId) -> LockedPtes<'a> {
        if cx.holds(st.ptl(table)).is_none() {
            report_unlocked(cx, table);
        }
        LockedPtes { cx, table }
    }

    /// `set_pte_at`: stores one leaf entry of a table, whose lock the caller holds.
    #[inline]
    pub fn set_pte(&self, cx: &Cx, st: &mut State, table: TableId, index: usize, entry: Entry) {
        self.locked_ptes(cx, st, table).set(st, index, entry);
    }

    /// `set_huge_pte_at`, `pud_populate` and `pud_clear` of hugetlb: an entry of a PMD or PUD table of an address
    /// space, whose page_table_lock the caller holds (F3, F4).
    pub fn set_huge_entry(
        &self,
        cx: &Cx,
        st: &mut State,
        mm: MmId,
        (table, index): (TableId, usize),
        entry: Entry,
    ) {
        if cx.holds(st.mm(mm).page_table_lock).is_none() {
            report_unlocked(cx, table);
        }
        st.tables.set(table, index, entry);
    }

    /// F26, second half: the entry is empty and about to map another page.
    pub(crate) fn check_flushed(&self, cx: &Cx, mm: MmId, va: Va, old: Pfn) {
        if let Some(who) = self.still_translates(&self.st(), mm, va.vpn(), old) {
            let text = format!(
                "{who} can still use {old} at {:#x}, which gets another page (F26)",
                va.get()
            );
            cx.engine()
                .violate(REPLACED_WITHOUT_FLUSH, text, Some(("pfn", u64::from(old.get()))));
        }
    }

    /// A CPU whose TLB leads from a page of an address space to a frame.
    fn still_translates(&self, st: &State, mm: MmId, vpn: Vpn, pfn: Pfn) -> Option<String> {
        const KINDS: [Access; 3] = [Access::Read, Access::Write, Access::Fetch];
        let leads = |tlb: &x86::Tlb| {
            KINDS
                .into_iter()
                .filter_map(|access| tlb.probe(access, Context::UNTAGGED, vpn))
                .any(|entry| entry.frame_of(vpn) == pfn)
        };
        let mut loaded = st
            .cpus
            .iter()
            .enumerate()
            .filter(|(_, cpu)| cpu.active_mm == Some(mm));
        let (n, _) = loaded.find(|(_, cpu)| leads(&cpu.tlb))?;
        Some(format!("the TLB of cpu{}", self.cpu(n as u32).index()))
    }

    /// F15: the entry of a file page was dropped; what was stored through any of them must be known to
    /// the page when the last one goes.
    #[inline]
    pub(crate) fn check_dirty_kept(&self, pfn: Pfn, frame: &Frame) {
        if frame.mapcount == 0 && frame.flags.has(PageFlags::STORED) && !frame.flags.has(PageFlags::DIRTY) {
            let text = format!("{pfn} was written, and its last mapping goes without the page knowing (F15)");
            self.engine
                .violate(DIRTY_BIT_LOST, text, Some(("pfn", u64::from(pfn.get()))));
        }
    }

    /// A CPU's TLB gets a translation: F18, and for a store F21 as far as the page alone can tell.
    /// Anonymous pages are only mapped privately, so one that may be written is mapped once. Returns the
    /// frame's generation.
    #[inline]
    pub(crate) fn check_fill(
        &self,
        cx: &Cx,
        st: &mut State,
        frame: &mut Frame,
        (mm, vpn): (MmId, Vpn),
        (pfn, access): (Pfn, Access),
    ) -> Generation {
        if !st.mm(mm).cpu_vm_mask.contains(cx.cpu()) {
            report_outside_mask(cx, st, mm);
        }
        if access.is_write() {
            frame.flags.set(PageFlags::STORED);
            if frame.mapcount > 1 && frame.is_anon() {
                self.report_shared(cx, st, (mm, vpn), pfn, frame.mapcount);
            }
        }
        frame.generation
    }

    /// A driver's mapping shares what its driver says.
    #[cold]
    fn report_shared(&self, cx: &Cx, st: &mut State, (mm, vpn): (MmId, Vpn), pfn: Pfn, mapcount: u32) {
        let vma = st.mm_mut(mm).vmas.find(vpn.va());
        if vma.is_some_and(|v| st.vma(v).backing == Backing::Driver) {
            return;
        }
        let text = format!("{pfn} can be written, but {mapcount} entries map it (F21)");
        cx.engine()
            .violate(WRITABLE_SHARED_PAGE, text, Some(("pfn", u64::from(pfn.get()))));
    }

    /// F20: mmap_sem is held for write, the parent's flush is over.
    pub(crate) fn check_forked(&self, cx: &Cx, parent: MmId) {
        let mut st = self.st();
        let st = &mut *st;
        let writable = |entry: &TlbEntry| entry.rights().writable();
        let mut found = None;
        for cpu in st.cpus.iter().filter(|cpu| cpu.active_mm == Some(parent)) {
            for (_, vpn, _) in cpu.tlb.translations().filter(|(_, _, entry)| writable(entry)) {
                let vma = st.mms[parent.index()].vmas.find(vpn.va());
                if vma.is_some_and(|v| st.vmas[v.0 as usize].is_cow()) {
                    found = found.or(Some(vpn));
                }
            }
        }
        if let Some(vpn) = found {
            let text = format!(
                "after fork a TLB still lets {} write at {:#x}, which the child shares (F20)",
                st.mm(parent).name,
                vpn.va().get()
            );
            cx.engine().violate(WRITABLE_AFTER_FORK, text, None);
        }
    }
}

/// Upper levels and reverse maps.
impl Kernel {
    /// F4: tables were added to an address space.
    pub(crate) fn check_populated(&self, cx: &Cx, st: &State, mm: MmId) {
        if cx.holds(st.mm(mm).page_table_lock).is_none() {
            let text = format!(
                "tables of {} are added without page_table_lock (F4)",
                st.mm(mm).name
            );
            cx.engine().violate(UPPER_ENTRY_WITHOUT_LOCK, text, None);
        }
    }

    /// F4 and F12: the tables of these VMAs are about to go.
    pub(crate) fn check_hidden(&self, cx: &Cx, mm: MmId, vmas: &[VmaId]) {
        let st = self.st();
        let owner = st.mm(mm);
        if owner.users > 0 && cx.holds(owner.mmap_sem) != Some(Mode::Exclusive) {
            let text = format!(
                "tables of {} are freed without mmap_sem for write (F4)",
                owner.name
            );
            cx.engine().violate(UPPER_ENTRY_WITHOUT_LOCK, text, None);
        }
        for &vma in vmas {
            let v = st.vma(vma);
            let in_anon = v.anon_vma.is_some_and(|a| st.anon_vma(a).vmas.contains(&vma));
            let linked = |f| st.file(f).i_mmap.holds(vma) || st.file(f).i_mmap_nonlinear.contains(&vma);
            let in_i_mmap = v.file().is_some_and(linked);
            if in_anon || in_i_mmap {
                let which = if in_anon { "its anon_vma" } else { "i_mmap" };
                let text = format!(
                    "the page tables of {:#x} go while {which} still leads to them (F12)",
                    v.range.start().get()
                );
                cx.engine().violate(TABLES_FREED_WHILE_LINKED, text, None);
            }
        }
    }

    /// F14: a page leaves the page cache.
    pub fn check_uncached(&self, cx: &Cx, page: &CachedPage, frame: &Frame) {
        let mapcount = frame.mapcount;
        let text = if mapcount > 0 {
            format!(
                "{} leaves the page cache while {mapcount} entries map it (F14)",
                page.pfn
            )
        } else if cx.holds(page.lock).is_none() {
            format!("{} leaves the page cache without PG_locked (F14)", page.pfn)
        } else {
            return;
        };
        cx.engine().violate(
            UNCACHED_WHILE_MAPPED,
            text,
            Some(("pfn", u64::from(page.pfn.get()))),
        );
    }

    /// F16: vmtruncate returns. Asks the address spaces, not i_mmap, which is what it went by.
    pub(crate) fn check_truncated(&self, cx: &Cx, file: FileId, pages: u64) {
        let gone = PgoffRange::to_eof(Pgoff::new(pages));
        let st = self.st();
        for mm in &st.mms {
            for vma in mm
                .vmas
                .iter()
                .map(|v| st.vma(v))
                .filter(|v| v.file() == Some(file))
            {
                let mapped = if vma.is_nonlinear() {
                    // A page of the file may be anywhere in it.
                    let frames = self.frames.borrow();
                    let of_gone = |entry: Entry| {
                        let frame = frames.get(entry.pfn());
                        frame.owner() == Owner::File(file) && gone.contains(frame.index())
                    };
                    first_mapped(&st.tables, mm.pgd, vma.range, of_gone)
                } else {
                    vma.addresses_of(&gone)
                        .and_then(|part| first_mapped(&st.tables, mm.pgd, part, |_| true))
                };
                if let Some(vpn) = mapped {
                    let text = format!(
                        "{} still maps {:#x}, beyond the end of {} (F16)",
                        mm.name,
                        vpn.va().get(),
                        st.file(file).name
                    );
                    cx.engine().violate(MAPPED_BEYOND_EOF, text, None);
                    return;
                }
            }
        }
    }

    /// F27: a CPU loads an address space.
    #[inline]
    pub(crate) fn check_root(&self, st: &State, mm: MmId) {
        if !st.tables.is_live(st.mm(mm).pgd) {
            let text = format!(
                "a CPU loads {}, whose top-level table was freed (F27)",
                st.mm(mm).name
            );
            self.engine.violate(ROOT_FREED_WHILE_LOADED, text, None);
        }
    }
}

/// The first page of a range whose entry maps one that matters.
fn first_mapped(
    tables: &PageTables,
    pgd: TableId,
    part: VaRange,
    matters: impl Fn(Entry) -> bool,
) -> Option<Vpn> {
    let end = part.end().vpn();
    let mut at = part.start().vpn();
    while let Some((table, pages, _)) = tables.next_leaf_table(pgd, at, end) {
        let maps = |vpn: &Vpn| {
            let entry = tables.get(table, Level::Pte.index_of(*vpn));
            entry.maps_page() && matters(entry)
        };
        if let Some(vpn) = pages.iter().find(maps) {
            return Some(vpn);
        }
        at = pages.end();
    }
    None
}

/// The first huge page of a range whose entry matters.
fn first_huge(
    tables: &PageTables,
    pgd: TableId,
    part: VaRange,
    matters: impl Fn(Entry) -> bool,
) -> Option<Vpn> {
    let (start, end) = (part.start().get(), part.end().get());
    let mut heads = (start.next_multiple_of(HPAGE.bytes())..end).step_by(HPAGE.bytes() as usize);
    heads.find_map(|at| {
        let va = Va::new(at);
        let table = tables.table_at(pgd, va.vpn(), Level::Pmd)?;
        let entry = tables.get(table, Level::Pmd.index(va));
        (entry.is_large_leaf() && matters(entry)).then(|| va.vpn())
    })
}

/// The notifier.
impl Kernel {
    /// A subscriber has heard a start. It may have left the list while it was told.
    pub(crate) fn bracket_opened(&self, mm: MmId, range: VaRange, subscriber: SubscriptionId) {
        let mut st = self.st();
        if st.subscriptions[subscriber.0 as usize].life.get() == Life::Listening {
            st.open_brackets.push(OpenBracket {
                mm,
                range,
                subscriber,
            });
        }
    }

    /// A subscriber is about to hear an end (F7). One that has left the list since the walk of it began
    /// still hears it, which is what the grace period of unregistration is for.
    pub(crate) fn bracket_closes(&self, cx: &Cx, mm: MmId, range: VaRange, subscriber: SubscriptionId) {
        let mut st = self.st();
        let ends = OpenBracket {
            mm,
            range,
            subscriber,
        };
        if let Some(at) = st.open_brackets.iter().rposition(|open| *open == ends) {
            st.open_brackets.remove(at);
            return;
        }
        if st.subscriptions[subscriber.0 as usize].life.get() != Life::Listening {
            return;
        }
        let name = st.subscriptions[subscriber.0 as usize].handler.name();
        let text = format!("{name} is told the end of a bracket whose start it never saw (F7)");
        cx.engine()
            .violate(UNBALANCED_BRACKET, text, Some(("mm", u64::from(mm.0))));
    }

    /// A bracket is over: whoever heard its start and still listens has heard its end (F7).
    pub(crate) fn check_ended(&self, cx: &Cx, mm: MmId, told: &[SubscriptionId], ended: &[SubscriptionId]) {
        let st = self.st();
        let listens = |s: &&SubscriptionId| st.subscriptions[s.0 as usize].life.get() == Life::Listening;
        let forgotten = told.iter().filter(listens).find(|s| !ended.contains(s));
        if let Some(s) = forgotten {
            let name = st.subscriptions[s.0 as usize].handler.name();
            let text = format!("{name} was told the start of a bracket and is not told its end (F7)");
            cx.engine()
                .violate(UNBALANCED_BRACKET, text, Some(("mm", u64::from(mm.0))));
        }
    }

    /// F10: subscribers are about to be told that a range is over. Whoever holds mmap_sem for write keeps
    /// others from changing its entries back.
    pub fn check_range_over(&self, cx: &Cx, mm: MmId, path: Path, range: VaRange) {
        let st = self.st();
        if cx.holds(st.mm(mm).mmap_sem) != Some(Mode::Exclusive) {
            return;
        }
        let (tables, pgd) = (&st.tables, st.mm(mm).pgd);
        let left = match path {
            Path::Zap | Path::Munmap | Path::ZapRange | Path::Hugetlb | Path::Mremap => {
                first_mapped(tables, pgd, range, |_| true)
                    .or_else(|| first_huge(tables, pgd, range, |_| true))
            }
            Path::Fork => first_mapped(tables, pgd, range, Entry::writable),
            Path::Mprotect => st.mm(mm).vmas.overlapping(range).find_map(|vma| {
                let vma = st.vma(vma);
                let part = range.intersect(&vma.range).filter(|_| !vma.prot.can_write())?;
                first_mapped(tables, pgd, part, Entry::writable)
            }),
            _ => None,
        };
        if let Some(vpn) = left {
            let text = format!(
                "subscribers are told that {:#x}-{:#x} is over, but {:#x} is as it was (F10)",
                range.start().get(),
                range.end().get(),
                vpn.va().get()
            );
            cx.engine()
                .violate(RANGE_OVER_TOO_EARLY, text, Some(("mm", u64::from(mm.0))));
        }
    }

    /// A subscription has left the list; it hears no more ends.
    pub(crate) fn subscription_leaves(&self, id: SubscriptionId) {
        let mut st = self.st();
        st.subscriptions[id.0 as usize].life.set(Life::Releasing);
        st.open_brackets.retain(|open| open.subscriber != id);
    }

    /// Its release is over.
    pub(crate) fn subscription_left(&self, id: SubscriptionId) {
        self.st().subscriptions[id.0 as usize].life.set(Life::Released);
    }

    /// A subscriber reports that it has just made a translation of a page of an address space (F8). The
    /// one that did is known by its name.
    pub fn check_secondary_map(&self, cx: &Cx, mm: MmId, at: Va, who: &str) {
        let st = self.st();
        let covers = |open: &&OpenBracket| {
            open.mm == mm
                && open.range.contains(at)
                && *st.subscriptions[open.subscriber.0 as usize].handler.name() == *who
        };
        if st.open_brackets.iter().any(|open| covers(&open)) {
            let text = format!(
                "{who} makes a translation of {:#x} between the start and the end of a bracket around it (F8)",
                at.get()
            );
            cx.engine()
                .violate(MAPPED_IN_BRACKET, text, Some(("mm", u64::from(mm.0))));
        }
    }

    /// F9: subscribers are about to be told of one page; `pfn` is what its entry mapped.
    pub(crate) fn check_page_notice(
        &self,
        cx: &Cx,
        mm: MmId,
        (path, point): (Path, Point),
        at: Va,
        pfn: Pfn,
    ) {
        let st = self.st();
        let pgd = st.mm(mm).pgd;
        let leaf = st.tables.leaf_table(pgd, at.vpn());
        let mapped = st.tables.find_leaf(pgd, at.vpn());
        let entry = mapped.map_or(Entry::NONE, |(table, _, index)| st.tables.get(table, index));
        // Without a table of the lowest level it is a huge page.
        let lock = leaf.map_or(st.mm(mm).page_table_lock, |table| st.ptl(table));
        let locked = cx.holds(lock).is_some();
        // After the lock was dropped the new entry is there: of a clean page it leads to the same page.
        let cleaned = path == Path::Mkclean && point == Point::AfterPtl;
        let is_back = cleaned || (point == Point::AfterPtl && entry.pfn() != pfn);
        let wrong = if entry.present() && !is_back {
            Some("its entry still maps it".to_owned())
        } else if entry.writable() && path == Path::Mkclean {
            Some("its entry may be written through".to_owned())
        } else if point != Point::AfterPtl && !locked {
            Some("the pte lock is not held".to_owned())
        } else if self.frames.borrow().get(pfn).count == 0 {
            Some("the page has no reference any more".to_owned())
        } else if cleaned || point == Point::AfterClear {
            None
        } else {
            let who = self.still_translates(&st, mm, at.vpn(), pfn);
            who.map(|who| format!("{who} still leads to it"))
        };
        if let Some(wrong) = wrong {
            let text = format!(
                "subscribers are told of {pfn} at {:#x}, but {wrong} (F9)",
                at.get()
            );
            cx.engine()
                .violate(PAGE_NOTICE_TOO_EARLY, text, Some(("pfn", u64::from(pfn.get()))));
        }
    }

    /// F11: exit_mmap is about to clear entries.
    pub(crate) fn check_released(&self, cx: &Cx, mm: MmId) {
        let st = self.st();
        let early = self.table.at(Path::Exit, Point::TeardownBegin).is_some();
        if !early || st.mm(mm).notified == Notified::Never {
            return;
        }
        let lives = |s: &&crate::notifier::Subscription| s.mm == mm && s.life.get() != Life::Released;
        if let Some(s) = st.subscriptions.iter().find(lives) {
            let text = format!(
                "{} is torn down before {} has released it (F11)",
                st.mm(mm).name,
                s.handler.name()
            );
            cx.engine()
                .violate(UNMAPPED_BEFORE_RELEASE, text, Some(("mm", u64::from(mm.0))));
        }
    }
}
