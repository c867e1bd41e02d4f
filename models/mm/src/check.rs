//! Conservation: what must add up when nothing is in flight.
//!
//! Checked at the end of every run (host-mm-paths F5, F6, F7, F13, F18, F21, F23, F24, F27): map counts equal
//! the present entries, reference counts equal map count + page and swap cache + pagevecs + pins, rss counters
//! equal the entries counted as such, every linked file VMA is in i_mmap, or, if it is nonlinear, on the list
//! of those, exactly once, VMAs are disjoint and found where they are, what a private mapping may write is its
//! own, no bracket is open, no CPU holds translations or upper-level entries of an address space whose mask it
//! is not in, and every loaded address space has its top-level table; every VMA with an anon_vma is on its
//! list exactly once, anon_vmas that were given back have none, the reverse map leads from every anonymous
//! page back to the entry that maps it, and `locked_vm` counts the locked pages. Slots and LRU lists:
//! check_swap.rs. Each line of an invariant ends in the number of the invariant.

use std::collections::{BTreeMap, BTreeSet};

use x86::{Level, Pfn, TableId, Va, VaRange, Vpn};

use crate::check_swap::NamedSlots;
use crate::frame::{Frames, LruList, Owner, PageFlags};
use crate::hugetlb::{HPAGE, audit_pool};
use crate::i_mmap::IntervalIndex as _;
use crate::kernel::{Kernel, State};
use crate::mm::MmId;
use crate::radix_tree::Tag;
use crate::swapops::NonPresent;
use crate::vma::{Backing, VmaId};
use crate::world::World;

/// Books that do not balance; each line names the object and both figures.
pub const CONSERVATION: &str = "conservation";

#[derive(Default)]
struct Counted {
    maps: BTreeMap<Pfn, u32>,
    cached: BTreeMap<Pfn, u32>,
    waiting: BTreeMap<Pfn, u32>,
    slots: NamedSlots,
    /// Entries of huge pages, each once however many address spaces share its table.
    huge: BTreeSet<(TableId, usize)>,
    huge_maps: BTreeMap<Pfn, u32>,
}

impl World {
    /// Everything that does not add up, a line each; empty when all is well. Only meaningful when no
    /// path is in flight.
    #[must_use]
    pub fn audit(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut counted = Counted::default();
        let mut frames = self.frames();
        for kernel in self.kernels() {
            // Slots are a kernel's own.
            counted.slots = NamedSlots::default();
            kernel.audit_into(&mut counted, &frames, &mut wrong);
            audit_pool(&mut frames, kernel.zone(), &mut wrong);
        }
        for kernel in self.kernels() {
            kernel.audit_lru(
                &counted.maps,
                &counted.cached,
                &counted.waiting,
                &frames,
                &mut wrong,
            );
        }
        for (pfn, frame) in frames.iter() {
            let maps = counted.maps.get(&pfn).copied().unwrap_or(0);
            let cached = counted.cached.get(&pfn).copied().unwrap_or(0);
            if frame.mapcount != maps {
                wrong.push(format!(
                    "{pfn}: mapcount {} but {maps} entries map it (F5)",
                    frame.mapcount
                ));
            }
            // Huge pages have references of their entries, but no mapcount (F5).
            let maps = maps + counted.huge_maps.get(&pfn).copied().unwrap_or(0);
            let waiting = counted.waiting.get(&pfn).copied().unwrap_or(0);
            // The first frame of a huge page has the references to all of it.
            let whole = frames.head(pfn) == pfn;
            let pins = if whole { frames.secondary(pfn).pins } else { 0 };
            if frame.count != maps + cached + waiting + pins {
                wrong.push(format!(
                    "{pfn}: count {} but {maps} entries + {cached} page or swap cache + {waiting} pagevecs + {pins} pins (F6)",
                    frame.count
                ));
            }
        }
        wrong
    }
}

impl Kernel {
    fn audit_into(&self, counted: &mut Counted, frames: &Frames, wrong: &mut Vec<String>) {
        let st = self.state.borrow();
        // Tables are numbered by each kernel for itself.
        counted.huge.clear();
        for file in &st.files {
            for (_, page) in file.pages.iter() {
                *counted.cached.entry(page.pfn).or_default() += 1;
            }
        }
        if let Some(zero) = st.zero_page {
            // The kernel's own reference.
            *counted.cached.entry(zero).or_default() += 1;
        }
        for index in 0..st.mms.len() {
            self.audit_mm(&st, MmId(index as u32), counted, frames, wrong);
        }
        self.audit_swap(&st, &counted.slots, &mut counted.cached, frames, wrong);
        audit_i_mmap(&st, wrong);
        for open in &st.open_brackets {
            let name = st.subscriptions[open.subscriber.0 as usize].handler.name();
            let (start, end) = (open.range.start().get(), open.range.end().get());
            wrong.push(format!(
                "{name}: the bracket {start:#x}-{end:#x} is still open (F7)"
            ));
        }
        audit_tags(&st, frames, wrong);
        audit_anon_vmas(&st, wrong);
        for (n, cpu) in st.cpus.iter().enumerate() {
            for list in [LruList::Inactive, LruList::Active] {
                for pfn in cpu.pagevecs.of(list).pages() {
                    *counted.waiting.entry(*pfn).or_default() += 1;
                }
            }
            for pfn in cpu.pagevecs.rotate() {
                *counted.waiting.entry(*pfn).or_default() += 1;
            }
            let global = self.cpu(n as u32);
            if cpu.active_mm.is_some_and(|mm| !st.tables.is_live(st.mm(mm).pgd)) {
                wrong.push(format!(
                    "{global:?} has an address space loaded whose top-level table is gone (F27)"
                ));
            }
            let allowed = cpu
                .active_mm
                .is_some_and(|mm| st.mm(mm).cpu_vm_mask.contains(global));
            if (!cpu.tlb.is_empty() || cpu.psc.filled_slots() > 0) && !allowed {
                wrong.push(format!(
                    "{global:?} holds translations or upper-level entries of an address space whose mask it is not in (F18)"
                ));
            }
        }
    }

    fn audit_mm(
        &self,
        st: &State,
        id: MmId,
        counted: &mut Counted,
        frames: &Frames,
        wrong: &mut Vec<String>,
    ) {
        let mm = st.mm(id);
        if !st.tables.is_live(mm.pgd) {
            return;
        }
        let (mut anon, mut file, mut locked) = (0, 0, 0);
        let mut end = 0;
        for vma in mm.vmas.iter() {
            let v = st.vma(vma);
            if v.range.start().get() < end {
                wrong.push(format!(
                    "{}: VMAs overlap at {:#x} (F24)",
                    mm.name,
                    v.range.start().get()
                ));
            }
            end = v.range.end().get();
            if mm.vmas.overlapping(v.range).ne([vma]) {
                wrong.push(format!(
                    "{}: the tree does not have {vma:?} where it lies (F24)",
                    mm.name
                ));
            }
            locked += if v.flags.is_locked() { v.range.pages() } else { 0 };
            if st.is_huge(vma) {
                count_huge(st, mm.pgd, v.range, counted);
                continue;
            }
            let mut at = v.range.start().vpn();
            while let Some((table, pages, _)) = st.tables.next_leaf_table(mm.pgd, at, v.range.end().vpn()) {
                for vpn in pages.iter() {
                    let entry = st.tables.get(table, x86::Level::Pte.index_of(vpn));
                    counted.slots.note(entry);
                    let pfn = match NonPresent::of(entry) {
                        _ if v.backing == Backing::Driver => continue,
                        // Maps nothing, and is in an rss counter all the same.
                        Some(NonPresent::Migration(pfn, _)) => pfn,
                        _ if !entry.maps_page() => continue,
                        _ => {
                            *counted.maps.entry(entry.pfn()).or_default() += 1;
                            entry.pfn()
                        }
                    };
                    let frame = frames.get(pfn);
                    let own = frame.is_anon() && frame.mapcount == 1;
                    if entry.maps_page() && entry.writable() && v.is_cow() && !own {
                        wrong.push(format!(
                            "{}: {:#x} may write {}, which is not its own (F21)",
                            mm.name,
                            vpn.va().get(),
                            entry.pfn()
                        ));
                    }
                    match frame.owner() {
                        Owner::Anon(family) => {
                            anon += 1;
                            if v.anon_vma != Some(family) || frame.index() != v.pgoff_of(vpn.va()) {
                                wrong.push(format!(
                                    "{}: the reverse map does not lead from {pfn} to {:#x}",
                                    mm.name,
                                    vpn.va().get()
                                ));
                            }
                        }
                        Owner::File(_) | Owner::None => file += 1,
                    }
                }
                at = pages.end();
            }
        }
        if (mm.anon_rss, mm.file_rss) != (anon, file) {
            wrong.push(format!(
                "{}: rss counters {} anon, {} file, but {anon} and {file} entries (F23)",
                mm.name, mm.anon_rss, mm.file_rss
            ));
        }
        if mm.users > 0 && mm.locked_vm != locked {
            wrong.push(format!(
                "{}: locked_vm {} but {locked} pages of locked mappings",
                mm.name, mm.locked_vm
            ));
        }
        if mm.vmas.is_empty()
            && st
                .tables
                .next_leaf_table(mm.pgd, Vpn::new(0), Vpn::new(1 << 35))
                .is_some()
        {
            wrong.push(format!("{}: page tables are left without a mapping", mm.name));
        }
    }
}

/// Entries of huge pages in a range.
fn count_huge(st: &State, pgd: TableId, range: VaRange, counted: &mut Counted) {
    for start in (range.start().get()..range.end().get()).step_by(HPAGE.bytes() as usize) {
        let va = Va::new(start);
        let Some(table) = st.tables.table_at(pgd, va.vpn(), Level::Pmd) else {
            continue;
        };
        let index = Level::Pmd.index(va);
        let entry = st.tables.get(table, index);
        if entry.maps_page() && counted.huge.insert((table, index)) {
            *counted.huge_maps.entry(entry.frame(HPAGE)).or_default() += 1;
        }
    }
}

/// The tags of the page cache say what the pages' flags say (host-mm-paths A.7). Not the other way round for
/// dirty pages: a driver may mark a page alone, as KVM does.
fn audit_tags(st: &State, frames: &Frames, wrong: &mut Vec<String>) {
    for file in &st.files {
        for (index, page) in file.pages.iter() {
            let flags = frames.get(page.pfn).flags;
            let tagged = |tag| file.pages.tagged(index, tag).found;
            if tagged(Tag::Writeback) != flags.has(PageFlags::WRITEBACK) {
                wrong.push(format!(
                    "file {}: the writeback tag of page {index} is not what {} says",
                    file.name, page.pfn
                ));
            }
            if tagged(Tag::Dirty) && !flags.has(PageFlags::DIRTY) {
                wrong.push(format!(
                    "file {}: page {index} is tagged dirty, {} is not",
                    file.name, page.pfn
                ));
            }
        }
    }
}

fn audit_anon_vmas(st: &State, wrong: &mut Vec<String>) {
    let mut expected: Vec<Vec<VmaId>> = vec![Vec::new(); st.anon_vmas.len()];
    for vma in st.mms.iter().flat_map(|mm| mm.vmas.iter()) {
        if let Some(anon) = st.vma(vma).anon_vma {
            expected[anon.0 as usize].push(vma);
        }
    }
    for (number, (anon, mut expected)) in st.anon_vmas.iter().zip(expected).enumerate() {
        let mut listed = anon.vmas.clone();
        listed.sort_unstable();
        expected.sort_unstable();
        let free = st.free_anon_vmas.iter().any(|f| f.0 as usize == number);
        if listed != expected || listed.is_empty() != free {
            wrong.push(format!(
                "anon_vma {number} lists {} VMAs, {} belong to it",
                listed.len(),
                expected.len()
            ));
        }
    }
}

/// F13: linear VMAs of the file in the tree, the others on the list, each exactly once.
fn audit_i_mmap(st: &State, wrong: &mut Vec<String>) {
    for file in &st.files {
        let of_file = |v: &VmaId| st.vma(*v).file().is_some_and(|f| std::ptr::eq(st.file(f), file));
        let vmas = st.mms.iter().flat_map(|mm| mm.vmas.iter()).filter(of_file);
        let (mut nonlinear, mut linear): (Vec<_>, Vec<_>) = vmas.partition(|v| st.vma(*v).is_nonlinear());
        let mut in_tree = file.i_mmap.visit(0, u64::MAX).ids().collect::<Vec<_>>();
        let mut on_list = file.i_mmap_nonlinear.clone();
        for (index, found, expected) in [
            ("i_mmap", &mut in_tree, &mut linear),
            ("i_mmap_nonlinear", &mut on_list, &mut nonlinear),
        ] {
            found.sort_unstable();
            expected.sort_unstable();
            if found != expected {
                wrong.push(format!(
                    "file {}: {index} holds {} VMAs, {} are linked (F13)",
                    file.name,
                    found.len(),
                    expected.len()
                ));
            }
        }
    }
}
