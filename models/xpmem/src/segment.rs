//! Segments with their PFN tables, and page requests in flight (secondary-mmus 3.2).

use std::cell::{Cell, RefCell};
use std::ops::Range;

use mm::lock_order::LockRow;
use sim::{Engine, LockId, LockKind};
use x86::{Access, Pfn, Va, VaRange};

/// A page known to the PFN table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PfnEntry {
    pub(crate) pfn: Pfn,
    /// What the importer may do with it.
    pub(crate) access: Access,
}

/// What a segment is going through (secondary-mmus 3.5, both tables).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SegmentState {
    /// LIVE and IDLE.
    Idle,
    /// RECALLING: looking for a message slot.
    Sending,
    /// RECALLING: the importing partition works on it.
    WaitAck,
    /// RECALLING: no importer can use the pages any more, references are dropped.
    Unpin,
    /// Nothing of the range is known any more; faults may be served again.
    Drained,
    /// Removed.
    Destroyed,
}

/// A range of the exporting address space.
pub(crate) struct Segment {
    pub(crate) range: VaRange,
    /// `seg->sema`.
    pub(crate) sema: LockId,
    /// `seg->PFNtable_mutex`.
    pub(crate) pfn_table_mutex: LockId,
    pub(crate) state: Cell<SegmentState>,
    table: RefCell<Vec<Option<PfnEntry>>>,
}

const XPMEM_LOCKS: &str = "secondary-mmus 3.8";

const fn sleeping(name: &'static str, kind: LockKind) -> LockRow {
    LockRow::single(name, None, kind, XPMEM_LOCKS)
}

const SEG_SEMA: LockRow = sleeping("seg->sema", LockKind::RwSem);
const PFN_TABLE_MUTEX: LockRow = sleeping("seg->PFNtable_mutex", LockKind::Mutex);
pub(crate) const RECALL_MUTEX: LockRow = sleeping("tg->recall_PFNs_mutex", LockKind::Mutex);
pub(crate) const ATT_MUTEX: LockRow = sleeping("att->mutex", LockKind::Mutex);

/// XPMEM's lock classes. All sleep, and callbacks take them: no rank of the host's order fits them.
pub const LOCKS: [LockRow; 4] = [RECALL_MUTEX, SEG_SEMA, PFN_TABLE_MUTEX, ATT_MUTEX];

/// A lock of the driver. Segments and attachments of one link are visited one after the other, so
/// no two locks of a class are held together.
pub(crate) fn new_lock(engine: &Engine, row: &LockRow) -> LockId {
    engine.new_lock(engine.lock_class(row.class()))
}

impl Segment {
    pub(crate) fn new(engine: &Engine, range: VaRange) -> Self {
        Segment {
            range,
            sema: new_lock(engine, &SEG_SEMA),
            pfn_table_mutex: new_lock(engine, &PFN_TABLE_MUTEX),
            state: Cell::new(SegmentState::Idle),
            table: RefCell::new(vec![None; range.pages() as usize]),
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.state.get() != SegmentState::Destroyed
    }

    pub(crate) fn va(&self, page: u64) -> Va {
        self.range.start().add_pages(page)
    }

    /// Pages of the segment that lie in a range of the exporter.
    pub(crate) fn pages_in(&self, range: VaRange) -> Option<Range<u64>> {
        let part = self.range.intersect(&range)?;
        let first = part.start().vpn().get() - self.range.start().vpn().get();
        Some(first..first + part.pages())
    }

    pub(crate) fn get(&self, page: u64) -> Option<PfnEntry> {
        self.table.borrow()[page as usize]
    }

    pub(crate) fn set(&self, page: u64, entry: PfnEntry) {
        self.table.borrow_mut()[page as usize] = Some(entry);
    }

    pub(crate) fn knows_any(&self, pages: &Range<u64>) -> bool {
        self.table.borrow()[as_index(pages)].iter().any(Option::is_some)
    }

    /// UNKNOWN from now on; what was known is the caller's to give back.
    pub(crate) fn take(&self, page: u64) -> Option<PfnEntry> {
        self.table.borrow_mut()[page as usize].take()
    }

    pub(crate) fn holds(&self, pfn: Pfn) -> bool {
        self.table.borrow().iter().flatten().any(|e| e.pfn == pfn)
    }
}

fn as_index(pages: &Range<u64>) -> Range<usize> {
    pages.start as usize..pages.end as usize
}

/// Whether a page request still stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// Nothing crossed it.
    Valid,
    /// A recall overlapped it: what get_user_pages returned may be gone.
    Invalid,
}

/// Page requests in flight: `get_user_pages` running outside the gate.
#[derive(Default)]
pub(crate) struct Requests {
    next: Cell<u64>,
    list: RefCell<Vec<(u64, VaRange, Request)>>,
}

impl Requests {
    pub(crate) fn publish(&self, range: VaRange) -> u64 {
        let id = self.next.get();
        self.next.set(id + 1);
        self.list.borrow_mut().push((id, range, Request::Valid));
        id
    }

    pub(crate) fn withdraw(&self, id: u64) -> Request {
        let mut list = self.list.borrow_mut();
        let at = list.iter().position(|r| r.0 == id);
        list.swap_remove(at.expect("a request is withdrawn once")).2
    }

    /// Marks those that overlap.
    pub(crate) fn invalidate(&self, range: VaRange) {
        let mut list = self.list.borrow_mut();
        let crossed = list.iter_mut().filter(|r| r.1.overlaps(&range));
        crossed.for_each(|r| r.2 = Request::Invalid);
    }
}
