//! The walk of mprotect and mlock over the VMAs of a range.
//!
//! Follows sys_mprotect and do_mlock of mm/mprotect.c and mm/mlock.c, 2.6.27, whose loops are alike.
//! The caller holds mmap_sem for write. Every VMA of the range gives one part; the part may then be
//! merged with what lies behind it, so the walk goes on behind the VMA that has the part now. The walk
//! ends with -ENOMEM at the first address that is not mapped: the parts before it are done.

use x86::{Va, VaRange};

use crate::kernel::State;
use crate::mm::MmId;
use crate::paths::MapError;
use crate::vma::VmaId;

/// Where the walk stands: a part of one VMA.
pub(crate) struct Parts {
    end: Va,
    /// The part.
    pub(crate) part: VaRange,
    /// The VMA it is part of.
    pub(crate) vma: VmaId,
    /// The VMA before the part: the same one if the part is not its beginning.
    pub(crate) prev: Option<VmaId>,
}

impl Parts {
    /// The first part of a range.
    ///
    /// # Errors
    /// When its first page is not mapped.
    pub(crate) fn first(st: &State, mm: MmId, range: VaRange) -> Result<Parts, MapError> {
        let vmas = &st.mm(mm).vmas;
        let vma = vmas.find_or_next(range.start()).ok_or(MapError::Hole)?;
        let v = st.vma(vma).range;
        if v.start() > range.start() {
            return Err(MapError::Hole);
        }
        let prev = if range.start() > v.start() {
            Some(vma)
        } else {
            vmas.before(v.start())
        };
        Ok(Parts {
            end: range.end(),
            part: clip(range.start(), v.end(), range.end()),
            vma,
            prev,
        })
    }

    /// The part behind, now that `has_it` is the VMA that has the present part; none at the end.
    ///
    /// # Errors
    /// When the range goes on but the mappings do not.
    pub(crate) fn next(self, st: &State, mm: MmId, has_it: VmaId) -> Result<Option<Parts>, MapError> {
        let at = self.part.end().max(st.vma(has_it).range.end());
        if at >= self.end {
            return Ok(None);
        }
        let vma = st.mm(mm).vmas.at_or_after(at).ok_or(MapError::Hole)?;
        let v = st.vma(vma).range;
        if v.start() != at {
            return Err(MapError::Hole);
        }
        Ok(Some(Parts {
            end: self.end,
            part: clip(at, v.end(), self.end),
            vma,
            prev: Some(has_it),
        }))
    }
}

fn clip(start: Va, vma_end: Va, end: Va) -> VaRange {
    VaRange::new(start, vma_end.min(end)).expect("a part is not empty")
}
