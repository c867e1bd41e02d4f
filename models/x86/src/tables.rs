//! Page tables: an arena of 512-entry tables and the walks Linux makes over them.
//!
//! The arena knows tables, not address spaces: a root is the [`TableId`] of a PGD. A table that was
//! detached from its parent stays allocated until [`PageTables::free`]; the caller frees it after
//! the TLB flush, since a walker may still be inside it (reference rows R15, R23).

use std::cell::Cell;
use std::fmt;

use crate::addr::{ENTRIES_PER_TABLE, PAGE_SHIFT, PT_SPAN_PAGES, Va, Vpn, VpnRange};
use crate::entry::Entry;
use crate::page_size::PageSize;

const INDEX_BITS: u32 = ENTRIES_PER_TABLE.trailing_zeros();
const INDEX_MASK: u64 = ENTRIES_PER_TABLE as u64 - 1;

/// Names a table of the arena.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(u32);

impl TableId {
    /// The table with this number.
    #[inline]
    #[must_use]
    pub const fn new(number: u32) -> Self {
        TableId(number)
    }

    /// The number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    #[inline]
    const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {}", self.0)
    }
}

/// A level of the tree, by Linux's names. Ordered from the leaves up.
///
/// The root is a PGD in Linux whatever its depth; with four levels Linux folds the p4d into it. Here
/// the root of four levels is called [`Level::P4d`], so that a level covers the same in both modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Page table (PT): its entries map 4 KiB pages.
    Pte,
    /// Page middle directory (PD): its entries point at page tables or map 2 MiB each.
    Pmd,
    /// Page upper directory (PDPT): its entries cover 1 GiB each, and may map it.
    Pud,
    /// Fourth level (PML4): its entries cover 512 GiB each.
    P4d,
    /// Fifth level (PML5): its entries cover 256 TiB each.
    Pgd,
}

/// Depth of the page tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PagingMode {
    /// 48-bit linear addresses.
    #[default]
    FourLevel,
    /// 57-bit linear addresses (CR4.LA57).
    FiveLevel,
}

impl PagingMode {
    /// Level of the root table.
    #[inline]
    #[must_use]
    pub const fn root_level(self) -> Level {
        match self {
            PagingMode::FourLevel => Level::P4d,
            PagingMode::FiveLevel => Level::Pgd,
        }
    }

    /// Table levels, and so the references of a full walk to a 4 KiB leaf (reference rows R30, R31).
    #[inline]
    #[must_use]
    pub const fn levels(self) -> u32 {
        self.root_level().depth_below() + 1
    }

    /// Whether the bits above the translated ones are copies of the highest of them.
    #[inline]
    #[must_use]
    pub const fn is_canonical(self, va: Va) -> bool {
        let unused = u64::BITS - PAGE_SHIFT - self.levels() * INDEX_BITS;
        (va.get() << unused) as i64 >> unused == va.get() as i64
    }
}

impl Level {
    /// The levels whose entries point at tables, in the order a walk from `root` meets them.
    #[inline]
    pub fn upper(root: Level) -> impl Iterator<Item = Level> {
        const DOWN: [Level; 4] = [Level::Pgd, Level::P4d, Level::Pud, Level::Pmd];
        DOWN[(Level::Pgd.depth_below() - root.depth_below()) as usize..]
            .iter()
            .copied()
    }

    pub(crate) const fn depth_below(self) -> u32 {
        self as u32
    }

    /// The page size a leaf of this level maps, if there can be one.
    #[inline]
    #[must_use]
    pub const fn page_size(self) -> Option<PageSize> {
        match self {
            Level::Pte => Some(PageSize::Size4K),
            Level::Pmd => Some(PageSize::Size2M),
            Level::Pud => Some(PageSize::Size1G),
            Level::P4d | Level::Pgd => None,
        }
    }

    /// The level whose leaves map pages of this size.
    #[inline]
    #[must_use]
    pub const fn of_leaf(size: PageSize) -> Self {
        match size {
            PageSize::Size4K => Level::Pte,
            PageSize::Size2M => Level::Pmd,
            PageSize::Size1G => Level::Pud,
        }
    }

    const fn vpn_shift(self) -> u32 {
        self.depth_below() * INDEX_BITS
    }

    /// The level below, `None` for the lowest.
    #[must_use]
    pub const fn below(self) -> Option<Level> {
        match self {
            Level::Pte => None,
            Level::Pmd => Some(Level::Pte),
            Level::Pud => Some(Level::Pmd),
            Level::P4d => Some(Level::Pud),
            Level::Pgd => Some(Level::P4d),
        }
    }

    /// Index of an address in a table of this level.
    #[inline]
    #[must_use]
    pub const fn index(self, va: Va) -> usize {
        self.index_of(va.vpn())
    }

    /// Index of a page in a table of this level.
    #[inline]
    #[must_use]
    pub const fn index_of(self, vpn: Vpn) -> usize {
        ((vpn.get() >> self.vpn_shift()) & INDEX_MASK) as usize
    }

    /// Pages covered by one entry of a table of this level (1 for [`Level::Pte`]).
    #[inline]
    #[must_use]
    pub const fn entry_pages(self) -> u64 {
        1 << self.vpn_shift()
    }

    /// Pages covered by one whole table of this level (512 for [`Level::Pte`]).
    #[inline]
    #[must_use]
    pub const fn span_pages(self) -> u64 {
        self.entry_pages() << INDEX_BITS
    }

    // Bytes covered by one entry.
    const fn entry_bytes(self) -> u64 {
        self.entry_pages() << PAGE_SHIFT
    }

    // First page of the next entry's span.
    #[inline]
    const fn next_entry(self, vpn: Vpn) -> Vpn {
        Vpn::new(((vpn.get() >> self.vpn_shift()) + 1) << self.vpn_shift())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Live,
    Free,
}

/// Where [`PageTables::scan_leaf_tables`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafScan {
    /// The next page table and the part of the asked range it covers, if one was found.
    pub found: Option<(TableId, VpnRange)>,
    /// Absent PGD, PUD and PMD entries stepped over.
    pub skipped: u64,
    /// Where to go on: the first page of the table found, or the first page not looked at.
    pub reached: Vpn,
}

/// All page tables of a simulated machine.
#[derive(Clone, Default)]
pub struct PageTables {
    // Table n lies at n * 512: one load a level, where a box a table would take two.
    entries: Vec<Entry>,
    uses: Vec<Use>,
    // Free tables are all zero.
    free: Vec<TableId>,
    mode: PagingMode,
    memo: Cell<Option<Memo>>,
}

/// The page table found last. It spares the host the upper levels of the next look-up nearby and has
/// no counterpart in the simulated machine.
#[derive(Clone, Copy)]
struct Memo {
    root: TableId,
    // Number of the page table's span.
    span: u64,
    table: TableId,
}

impl PageTables {
    /// No tables, four levels deep.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No tables, of this depth.
    #[must_use]
    pub fn with_mode(mode: PagingMode) -> Self {
        PageTables {
            mode,
            ..Self::default()
        }
    }

    /// Depth of all trees of the arena: CR4.LA57 cannot change while paging is on.
    #[inline]
    #[must_use]
    pub const fn mode(&self) -> PagingMode {
        self.mode
    }

    /// An empty table.
    ///
    /// # Panics
    /// If the simulated machine has more than 2^32 tables (16 TiB of them).
    pub fn alloc(&mut self) -> TableId {
        if let Some(id) = self.free.pop() {
            self.uses[id.index()] = Use::Live;
            return id;
        }
        let id = TableId(u32::try_from(self.uses.len()).expect("more than 2^32 page tables"));
        self.entries
            .resize(self.entries.len() + ENTRIES_PER_TABLE, Entry::NONE);
        self.uses.push(Use::Live);
        id
    }

    /// Gives a table back; its number may be used again.
    ///
    /// # Panics
    /// If the table is free already.
    pub fn free(&mut self, id: TableId) {
        assert!(self.is_live(id), "{id:?} freed twice");
        self.uses[id.index()] = Use::Free;
        self.memo.set(None);
        self.table_mut_unchecked(id).fill(Entry::NONE);
        self.free.push(id);
    }

    /// Whether the table is allocated.
    #[must_use]
    pub fn is_live(&self, id: TableId) -> bool {
        self.uses.get(id.index()) == Some(&Use::Live)
    }

    /// Tables allocated and not freed.
    #[must_use]
    pub fn live_tables(&self) -> usize {
        self.uses.len() - self.free.len()
    }

    /// An entry.
    #[inline]
    #[must_use]
    pub fn get(&self, id: TableId, index: usize) -> Entry {
        debug_assert!(self.is_live(id), "{id:?} used after free");
        debug_assert!(index < ENTRIES_PER_TABLE);
        self.entries[id.index() * ENTRIES_PER_TABLE + index]
    }

    /// Overwrites an entry.
    #[inline]
    pub fn set(&mut self, id: TableId, index: usize, entry: Entry) {
        debug_assert!(self.is_live(id), "{id:?} used after free");
        debug_assert!(index < ENTRIES_PER_TABLE);
        self.forget_unless(id);
        self.entries[id.index() * ENTRIES_PER_TABLE + index] = entry;
    }

    /// All entries of a table.
    #[inline]
    #[must_use]
    pub fn table(&self, id: TableId) -> &[Entry; ENTRIES_PER_TABLE] {
        debug_assert!(self.is_live(id), "{id:?} used after free");
        let at = id.index() * ENTRIES_PER_TABLE;
        self.entries[at..at + ENTRIES_PER_TABLE]
            .try_into()
            .expect("a table has 512 entries")
    }

    /// All entries of a table, to be changed.
    #[inline]
    #[must_use]
    pub fn table_mut(&mut self, id: TableId) -> &mut [Entry; ENTRIES_PER_TABLE] {
        debug_assert!(self.is_live(id), "{id:?} used after free");
        self.forget_unless(id);
        self.table_mut_unchecked(id)
    }

    // Changing the page table found last changes no way to it; any other table may be on the way.
    #[inline]
    fn forget_unless(&self, id: TableId) {
        if self.memo.get().is_some_and(|memo| memo.table != id) {
            self.memo.set(None);
        }
    }

    fn table_mut_unchecked(&mut self, id: TableId) -> &mut [Entry; ENTRIES_PER_TABLE] {
        let at = id.index() * ENTRIES_PER_TABLE;
        (&mut self.entries[at..at + ENTRIES_PER_TABLE])
            .try_into()
            .expect("a table has 512 entries")
    }

    /// Present entries of a table.
    #[must_use]
    pub fn count_present(&self, id: TableId) -> usize {
        self.table(id).iter().filter(|entry| entry.present()).count()
    }

    /// The page table (lowest level) covering a page, if all tables above it exist.
    #[inline]
    #[must_use]
    pub fn leaf_table(&self, root: TableId, vpn: Vpn) -> Option<TableId> {
        self.descend(root, vpn).ok()
    }

    /// The leaf entry for a page; [`Entry::NONE`] if a table above it is missing.
    #[inline]
    #[must_use]
    pub fn leaf(&self, root: TableId, vpn: Vpn) -> Entry {
        match self.leaf_table(root, vpn) {
            Some(table) => self.get(table, Level::Pte.index_of(vpn)),
            None => Entry::NONE,
        }
    }

    /// The page table covering a page, creating the missing ones on the way. `on_new` hears the level
    /// of each new table, topmost first.
    ///
    /// # Panics
    /// If a large page is mapped on the way.
    #[inline]
    pub fn populate(&mut self, root: TableId, vpn: Vpn, on_new: impl FnMut(Level, TableId)) -> TableId {
        self.populate_to(root, vpn, Level::Pte, on_new)
    }

    /// The table of a level covering a page, creating the missing ones on the way. `on_new` hears the
    /// level of each new table, topmost first.
    ///
    /// # Panics
    /// If a large page is mapped on the way.
    #[inline]
    pub fn populate_to(
        &mut self,
        root: TableId,
        vpn: Vpn,
        lowest: Level,
        mut on_new: impl FnMut(Level, TableId),
    ) -> TableId {
        let mut table = root;
        for level in Level::upper(self.mode.root_level()) {
            if level <= lowest {
                break;
            }
            let index = level.index_of(vpn);
            let entry = self.get(table, index);
            assert!(!entry.is_large_leaf(), "{vpn} lies in a large page");
            table = match entry.table_id() {
                Some(next) => next,
                None => {
                    let next = self.alloc();
                    self.set(table, index, Entry::table(next));
                    on_new(level.below().expect("only the lowest level has none below"), next);
                    next
                }
            };
        }
        table
    }

    /// The table of a level covering a page, if all tables above it exist and no large page is mapped on
    /// the way.
    #[must_use]
    pub fn table_at(&self, root: TableId, vpn: Vpn, lowest: Level) -> Option<TableId> {
        let mut table = root;
        for level in Level::upper(self.mode.root_level()).take_while(|level| *level > lowest) {
            table = self.get(table, level.index_of(vpn)).table_id()?;
        }
        Some(table)
    }

    /// Where a walk for a page would end: table, level and index of a large leaf, or of the entry of a
    /// page table, which is not read.
    #[inline]
    #[must_use]
    pub fn locate(&self, root: TableId, vpn: Vpn) -> Option<(TableId, Level, usize)> {
        let mut table = root;
        for level in Level::upper(self.mode.root_level()) {
            let index = level.index_of(vpn);
            let entry = self.get(table, index);
            if entry.is_large_leaf() {
                return Some((table, level, index));
            }
            table = entry.table_id()?;
        }
        Some((table, Level::Pte, Level::Pte.index_of(vpn)))
    }

    /// Where a page is mapped: table, level and index of its leaf, of whatever size.
    #[must_use]
    pub fn find_leaf(&self, root: TableId, vpn: Vpn) -> Option<(TableId, Level, usize)> {
        let (table, level, index) = self.locate(root, vpn)?;
        self.get(table, index).present().then_some((table, level, index))
    }

    /// The first page table covering part of `from..end`, the part it covers, and the absent PGD, PUD
    /// and PMD entries stepped over before it. Absent entries after the last page table are not
    /// reported; [`PageTables::scan_leaf_tables`] does.
    #[must_use]
    pub fn next_leaf_table(&self, root: TableId, from: Vpn, end: Vpn) -> Option<(TableId, VpnRange, u64)> {
        let scan = self.scan_leaf_tables(root, from, end, u64::MAX);
        scan.found.map(|(table, range)| (table, range, scan.skipped))
    }

    /// Like [`PageTables::next_leaf_table`], but gives up after `most_skips` absent entries and always
    /// says how many there were and where it stopped.
    ///
    /// Linux 2.6.27's `unmap_page_range` charges one byte of its zap block for each absent entry and
    /// stops when the block is used up, so both numbers matter to it.
    #[must_use]
    pub fn scan_leaf_tables(&self, root: TableId, from: Vpn, end: Vpn, most_skips: u64) -> LeafScan {
        let mut at = from;
        let mut skipped = 0;
        while at < end && skipped < most_skips {
            match self.descend(root, at) {
                Ok(table) => {
                    let stop = Level::Pmd.next_entry(at).min(end);
                    let found = VpnRange::new(at, stop).map(|range| (table, range));
                    return LeafScan {
                        found,
                        skipped,
                        reached: at,
                    };
                }
                Err(absent) => {
                    skipped += 1;
                    at = absent.next_entry(at).min(end);
                }
            }
        }
        LeafScan {
            found: None,
            skipped,
            reached: at,
        }
    }

    /// The page table covering a page, or the level of the entry that is absent.
    #[inline]
    pub(crate) fn descend(&self, root: TableId, vpn: Vpn) -> Result<TableId, Level> {
        let span = vpn.get() / PT_SPAN_PAGES;
        if let Some(memo) = self.memo.get()
            && memo.span == span
            && memo.root == root
        {
            return Ok(memo.table);
        }
        let mut table = root;
        for level in Level::upper(self.mode.root_level()) {
            table = self.get(table, level.index_of(vpn)).table_id().ok_or(level)?;
        }
        self.memo.set(Some(Memo { root, span, table }));
        Ok(table)
    }

    /// Detaches the tables that only `start..end` used, as `free_pgd_range` of Linux 2.6.27 mm/memory.c
    /// does with `floor` the end of the previous mapping (0 if none) and `ceiling` the start of the next
    /// (`None` if none): a table is detached exactly if its whole span, as rounded, lies inside
    /// `floor..ceiling`. `on_freed` hears each table after its parent's entry was cleared, children
    /// before parents.
    ///
    /// Detached tables stay allocated; give them to [`PageTables::free`] after the TLB flush. The root
    /// is never detached. As in Linux, entries inside a detached table are not looked at.
    pub fn free_pgd_range(
        &mut self,
        root: TableId,
        start: Va,
        end: Va,
        floor: Va,
        ceiling: Option<Va>,
        mut on_freed: impl FnMut(Level, TableId),
    ) {
        let bounds = Bounds {
            floor: floor.get(),
            ceiling: ceiling.map_or(u64::MAX, Va::get),
        };
        if start >= end {
            return;
        }
        self.free_level(
            root,
            self.mode.root_level(),
            start.get(),
            end.get(),
            bounds,
            &mut on_freed,
        );
    }

    fn free_level(
        &mut self,
        table: TableId,
        level: Level,
        start: u64,
        end: u64,
        bounds: Bounds,
        on_freed: &mut impl FnMut(Level, TableId),
    ) {
        let Some(below) = level.below() else { return };
        let entry_bytes = level.entry_bytes();
        let mut at = start;
        while at < end {
            let span_start = at & !(entry_bytes - 1);
            let span_end = span_start.saturating_add(entry_bytes);
            let index = level.index(Va::new(at));
            if let Some(child) = self.get(table, index).table_id() {
                self.free_level(child, below, at, end.min(span_end), bounds, on_freed);
                if bounds.enclose(span_start, span_end) {
                    self.set(table, index, Entry::NONE);
                    on_freed(below, child);
                }
            }
            at = span_end;
        }
    }
}

// What no neighbouring mapping uses, in bytes.
#[derive(Clone, Copy)]
struct Bounds {
    floor: u64,
    ceiling: u64,
}

impl Bounds {
    const fn enclose(self, start: u64, end: u64) -> bool {
        self.floor <= start && end <= self.ceiling
    }
}

impl fmt::Debug for PageTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} live page tables", self.live_tables())
    }
}
