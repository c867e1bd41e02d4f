//! `vma_merge`: letting neighbours take over a range, instead of a VMA for it.
//!
//! Follows mm/mmap.c of 2.6.27 (host-mm-paths B.4). The caller holds mmap_sem for write. A range
//! [start, end), either free or part of VMAs whose flags are about to change, and what is to lie there;
//! the *predecessor* ends at its start, or is the VMA it is cut from; the *successor* begins at its end.
//! The cases have the numbers that mm/mmap.c gives them:
//!
//! | case | the range is | who takes it |
//! |---|---|---|
//! | 1 | a gap between two | predecessor, the successor goes |
//! | 2 | a gap behind one | predecessor |
//! | 3 | a gap before one | successor |
//! | 4 | the end of the predecessor | successor, the border moves down |
//! | 5 | the start of the VMA behind the predecessor | predecessor, the border moves up |
//! | 6 | all of a VMA between two | predecessor, both others go |
//! | 7 | all of a VMA behind one | predecessor, the VMA goes |
//! | 8 | all of a VMA before one | that VMA, the successor goes |
//!
//! Two mappings are alike if sharing, source, rights and [`VmFlags`](crate::vma::VmFlags) agree, follow
//! each other if their file pages (or indices among anonymous pages) do, and can live in one VMA only
//! if they have one anon_vma or at least one of them has none. Driver mappings (VM_PFNMAP) and those of
//! huge pages (VM_RESERVED) are never merged.

use sim::Cx;
use x86::{Pgoff, Va, VaRange};

use crate::kernel::{Kernel, State};
use crate::mm::{AnonVmaId, MmId};
use crate::paths::MapError;
use crate::paths::vma_adjust::NewHalf;
use crate::profile::work;
use crate::vma::{Prot, VmFlags, Vma, VmaId};

/// A merge that is possible: who takes the range, and its new borders.
struct Merge {
    survivor: VmaId,
    adjusted: VmaId,
    range: VaRange,
    pgoff: Pgoff,
}

impl Kernel {
    /// `vma_merge` of what `new` describes; `prev` is the VMA before it or the one it is cut from.
    /// Returns the VMA that has the range now; the caller sets its flags.
    pub(crate) async fn vma_merge(&self, cx: &Cx, mm: MmId, prev: Option<VmaId>, new: &Vma) -> Option<VmaId> {
        if !new.may_merge() {
            return None;
        }
        let merge = find_merge(&self.st(), mm, prev, new)?;
        let _span = cx.span("vma_merge");
        self.touch_lines(cx, work::UNLINK_VMA);
        self.vma_adjust(cx, mm, merge.adjusted, merge.range, merge.pgoff)
            .await;
        Some(merge.survivor)
    }

    /// What mprotect and mlock do with a part of a VMA whose flags change: it joins a neighbour, or is
    /// split off. Returns the VMA that is the part, or contains it already; the caller sets its flags.
    ///
    /// # Errors
    /// When a split would be one mapping too many; an earlier split stays.
    pub(crate) async fn merge_or_split(
        &self,
        cx: &Cx,
        mm: MmId,
        prev: Option<VmaId>,
        vma: VmaId,
        part: VaRange,
        to: (Prot, VmFlags),
    ) -> Result<VmaId, MapError> {
        let (whole, wanted) = {
            let st = self.st();
            let v = st.vma(vma);
            let wanted = Vma {
                range: part,
                pgoff: v.pgoff_of(part.start()),
                prot: to.0,
                flags: to.1,
                ..v.clone()
            };
            (v.range, wanted)
        };
        if let Some(merged) = self.vma_merge(cx, mm, prev, &wanted).await {
            return Ok(merged);
        }
        if part.start() != whole.start() {
            self.split_vma(cx, mm, vma, part.start(), NewHalf::Below).await?;
        }
        if part.end() != whole.end() {
            self.split_vma(cx, mm, vma, part.end(), NewHalf::Above).await?;
        }
        Ok(vma)
    }

    /// `find_mergeable_anon_vma`: the anon_vma of a neighbour that this VMA could be merged with, now or
    /// after an mprotect of either: the successor's rather than the predecessor's. Rights may differ;
    /// other flags, as VM_LOCKED, may not.
    pub(crate) fn find_mergeable_anon_vma(&self, mm: MmId, vma: VmaId) -> Option<AnonVmaId> {
        let st = self.st();
        let (v, vmas) = (st.vma(vma), &st.mm(mm).vmas);
        let next = vmas.at_or_after(v.range.end()).map(|n| st.vma(n));
        let prev = vmas.before(v.range.start()).map(|p| st.vma(p));
        let like = |near: &Vma| {
            alike(
                near,
                &Vma {
                    prot: near.prot,
                    ..v.clone()
                },
            )
        };
        let above = next.filter(|n| n.range.start() == v.range.end() && n.pgoff == v.pgoff_behind());
        let below = prev.filter(|p| p.range.end() == v.range.start() && p.pgoff_behind() == v.pgoff);
        let of = |near: Option<&Vma>| near.filter(|n| like(n)).and_then(|n| n.anon_vma);
        of(above).or_else(|| of(below))
    }
}

fn find_merge(st: &State, mm: MmId, prev: Option<VmaId>, new: &Vma) -> Option<Merge> {
    let vmas = &st.mm(mm).vmas;
    let (start, end) = (new.range.start(), new.range.end());
    let behind = |at: Va| vmas.at_or_after(at);
    let area = behind(prev.map_or(Va::new(0), |p| st.vma(p).range.end()));
    // Cases 6, 7, 8: the range is all of `area`.
    let next = match area {
        Some(a) if st.vma(a).range.end() == end => behind(end),
        other => other,
    };
    let next = next.filter(|n| {
        let n = st.vma(*n);
        n.range.start() == end && n.pgoff == new.pgoff_behind() && alike(n, new) && same_family(n, new)
    });
    let borders = |from, to| VaRange::new(from, to).expect("borders stay in order");
    if let Some(prev) = prev {
        let p = st.vma(prev);
        if p.range.end() == start && p.pgoff_behind() == new.pgoff && alike(p, new) && same_family(p, new) {
            let both = next.map(|n| st.vma(n)).filter(|n| same_family(p, n));
            let to = both.map_or(end, |n| n.range.end());
            return Some(Merge {
                survivor: prev,
                adjusted: prev,
                range: borders(p.range.start(), to),
                pgoff: p.pgoff,
            });
        }
    }
    let n = st.vma(next?);
    let cut_from = prev
        .map(|p| (p, st.vma(p)))
        .filter(|(_, p)| start < p.range.end());
    let area = area.expect("there is a successor");
    Some(match cut_from {
        Some((prev, p)) => Merge {
            survivor: area,
            adjusted: prev,
            range: borders(p.range.start(), start),
            pgoff: p.pgoff,
        },
        None => Merge {
            survivor: area,
            adjusted: area,
            range: borders(start, n.range.end()),
            pgoff: new.pgoff,
        },
    })
}

/// `is_mergeable_vma`: same rights, flags, sharing and source, both linear or both not.
fn alike(a: &Vma, b: &Vma) -> bool {
    let source = a.sharing == b.sharing && a.backing == b.backing && a.linearity == b.linearity;
    source && a.prot == b.prot && a.flags == b.flags && a.may_merge()
}

/// `is_mergeable_anon_vma`.
fn same_family(a: &Vma, b: &Vma) -> bool {
    a.anon_vma.is_none() || b.anon_vma.is_none() || a.anon_vma == b.anon_vma
}
