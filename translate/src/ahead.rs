//! Where the page tables of a trace are, for reading ahead.
//!
//! A look-up here takes the host one step where the tables take three. It has no counterpart in the
//! simulated machine.

use x86::{Level, PageTables, TableId, Vpn};

#[derive(Clone, Copy)]
struct Known {
    // Number of the page table's span.
    span: u64,
    table: TableId,
}

// A power of two: 8 GiB of small pages.
const KNOWN: usize = 4096;
const NOT_KNOWN: Known = Known {
    span: u64::MAX,
    table: TableId::new(0),
};

/// Page tables found lately.
pub(crate) struct Ahead {
    known: Box<[Known; KNOWN]>,
}

impl Default for Ahead {
    fn default() -> Self {
        Ahead {
            known: Box::new([NOT_KNOWN; KNOWN]),
        }
    }
}

impl Ahead {
    /// The page table that covers a page, and the index of its entry, if there is one.
    #[inline]
    pub(crate) fn place(&mut self, tables: &PageTables, root: TableId, vpn: Vpn) -> Option<(TableId, usize)> {
        let span = vpn.get() / Level::Pte.span_pages();
        let known = &mut self.known[span as usize % KNOWN];
        if known.span != span {
            let table = tables.leaf_table(root, vpn)?;
            *known = Known { span, table };
        }
        Some((known.table, Level::Pte.index_of(vpn)))
    }

    /// Page tables are about to be freed.
    pub(crate) fn forget(&mut self) {
        self.known.fill(NOT_KNOWN);
    }
}
