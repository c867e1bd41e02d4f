//! The MMU of one logical CPU: registers, TLBs, paging-structure caches and walker together.
//!
//! What each instruction here empties is what the architecture requires (Intel SDM vol. 3A 4.10.4.1;
//! reference rows R1 to R10) and no more, so that a translation that may survive does. A processor may
//! always drop more (R11): [`Mmu::drop_where`] is that freedom, legal at any moment. Where a processor
//! may use either of two answers, [`PermissionMiss`] says which this one gives.
//!
//! Entries remember the generation of their frame. [`Frames`] is how the layer that owns the frames
//! hears of each slot filled and emptied; `()` is a layer that does not care.

mod broadcast;
mod memory;
mod nested;
mod registers;
mod spaces;
mod stats;
mod virtualization;

pub use broadcast::{BroadcastRefused, Globals, Invlpgb, InvlpgbPages, Network};
pub use memory::Memory;
use memory::Seat;
pub use nested::{NestedFault, NestedTables};
pub use registers::{Bit63, Cr0, Cr3, Cr4, GeneralProtection, Pcid};
use spaces::Spaces;
pub use spaces::{Eptp, Space, Vpid};
pub use stats::{References, WalkReferences, WalkStats};
pub use virtualization::{InvEpt, InvVpid, TlbControl, VmEntry};

use crate::addr::{Pfn, Va, Vpn};
use crate::fault::{ErrorCode, Fault};
use crate::frames::{Frames, Observer};
use crate::machine::{CpuIndex, Machine, NestedPaging};
use crate::page_size::PageSizes;
use crate::psc::Psc;
use crate::reference::Reference;
use crate::rules::{Privilege, Rules};
use crate::tables::TableId;
use crate::tlb::{Check, Context, Generation, Lookup, Presence, Run, Stop, Tlb, TlbEntry};
use crate::walker::{self, Access, DirtyAssist, WalkOutcome};

/// What a processor does when it finds a cached translation that does not allow the access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PermissionMiss {
    /// It walks again, and faults only if the tables refuse too.
    #[default]
    Rewalk,
    /// It faults at once if rights are missing: the spurious fault of reference row R13. A clean
    /// translation is walked again for a store all the same.
    Fault,
}

/// How a translation was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// In the first level.
    First,
    /// In the second level.
    Second,
    /// By a walk.
    Walked {
        /// Where an entry was found that did not let the access pass, if one was.
        after: Refused,
        /// Its references.
        references: WalkReferences,
        /// Whether D had to be set.
        assist: DirtyAssist,
    },
}

/// An entry that was found and did not let an access pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// None was found.
    Nowhere,
    /// It was in the first level.
    First,
    /// It was in the second level.
    Second,
}

/// A translated access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    /// The frame accessed.
    pub pfn: Pfn,
    /// The translation used.
    pub entry: TlbEntry,
    /// How it was found.
    pub found: Found,
}

/// The MMU of one logical CPU.
#[derive(Clone)]
pub struct Mmu {
    seat: Seat,
    cr0: Cr0,
    cr3: Cr3,
    cr4: Cr4,
    rules: Rules,
    // By access, what `rules` asks of a cached translation.
    checks: [Check; Access::ALL.len()],
    permission_miss: PermissionMiss,
    vpid: Vpid,
    eptp: Eptp,
    // The virtual processor, or the host, runs with an identifier: changing it flushes nothing.
    runs_tagged: bool,
    spaces: Spaces,
    context: Context,
    has_pcid: bool,
    has_invpcid: bool,
    nested_paging: NestedPaging,
    tlb: Tlb,
    psc: Psc,
    // Entries of second dimensions.
    guest_physical: Psc,
    stats: WalkStats,
}

impl Mmu {
    /// The MMU of a CPU just brought up: paging on with this root, WP and PGE set, PCIDE clear, user
    /// mode, nothing cached.
    #[must_use]
    pub fn new(machine: &Machine, cpu: CpuIndex, root: TableId) -> Self {
        let mut spaces = Spaces::default();
        let rules = Rules {
            page_sizes: machine.features.page_sizes,
            ..Rules::USER
        };
        let cr4 = Cr4 {
            global_pages: true,
            ..Cr4::default()
        };
        Mmu {
            seat: Seat {
                cpu,
                node: machine.node_of(cpu),
            },
            cr0: Cr0 {
                paging: true,
                write_protect: true,
            },
            cr3: Cr3 {
                root,
                pcid: Pcid::ZERO,
            },
            cr4,
            rules,
            checks: rules.checks(),
            permission_miss: PermissionMiss::default(),
            vpid: Vpid::HOST,
            eptp: Eptp::NONE,
            runs_tagged: true,
            context: spaces.context(Vpid::HOST, Eptp::NONE, Pcid::ZERO),
            spaces,
            has_pcid: machine.features.pcid,
            has_invpcid: machine.features.invpcid,
            nested_paging: machine.nested_paging,
            tlb: Tlb::new(&machine.tlb),
            psc: Psc::new(&machine.psc),
            guest_physical: Psc::new(&machine.psc),
            stats: WalkStats::default(),
        }
    }

    /// Translates one access: TLBs, else a walk that sets A and D and fills the caches.
    ///
    /// # Errors
    /// If the address is not canonical, or the tables refuse the access. A page fault drops what was
    /// cached for the page (reference row R10).
    pub fn translate(
        &mut self,
        memory: &mut Memory,
        frames: &mut impl Frames,
        access: Access,
        va: Va,
    ) -> Result<Translated, Fault> {
        if !memory.tables.mode().is_canonical(va) {
            return Err(Fault::NonCanonical { va });
        }
        let vpn = va.vpn();
        let found = match self.tlb.lookup(access, self.context, vpn) {
            Lookup::Hit1(entry) => Some((entry, Found::First)),
            Lookup::Hit2(entry) => Some((entry, Found::Second)),
            Lookup::Miss => None,
        };
        if let Some((entry, found)) = found {
            if self.rules.pass(access, &entry) {
                if found == Found::Second {
                    self.promote(frames, access, vpn, entry);
                }
                let pfn = entry.frame_of(vpn);
                return Ok(Translated { pfn, entry, found });
            }
            if self.permission_miss == PermissionMiss::Fault && !self.rules.permit(access, entry.rights()) {
                return Err(self.page_fault(frames, access, va, ErrorCode::PRESENT));
            }
        }
        let after = match found {
            Some((_, Found::Second)) => Refused::Second,
            Some(_) => Refused::First,
            None => Refused::Nowhere,
        };
        self.walk(memory, frames, access, va, after)
    }

    /// Makes the longest run of references at the front of `references` that the TLBs serve alone. What
    /// comes after it is for [`Mmu::resume`].
    #[inline]
    pub fn run(&mut self, references: &[Reference], observer: &mut impl Observer) -> Run {
        self.tlb.run(self.context, &self.checks, references, observer)
    }

    /// Translates the reference that a run stopped at: as [`Mmu::translate`], without looking it up
    /// again if it is known to be nowhere.
    ///
    /// # Errors
    /// As [`Mmu::translate`].
    #[inline(always)]
    pub fn resume(
        &mut self,
        memory: &mut Memory,
        frames: &mut impl Frames,
        reference: Reference,
        stop: Stop,
    ) -> Result<Translated, Fault> {
        let (access, va) = (reference.access(), reference.va());
        match stop {
            Stop::Missed if memory.tables.mode().is_canonical(va) => {
                self.tlb.count_miss(access);
                self.walk(memory, frames, access, va, Refused::Nowhere)
            }
            Stop::Missed | Stop::Refused | Stop::End => self.translate(memory, frames, access, va),
        }
    }

    fn promote(&mut self, frames: &mut impl Frames, access: Access, vpn: Vpn, entry: TlbEntry) {
        self.tlb.promote(access, self.context, vpn, entry, frames);
    }

    #[inline]
    fn walk(
        &mut self,
        memory: &mut Memory,
        frames: &mut impl Frames,
        access: Access,
        va: Va,
        after: Refused,
    ) -> Result<Translated, Fault> {
        let vpn = va.vpn();
        let presence = match after {
            Refused::Nowhere => Presence::Absent,
            Refused::First | Refused::Second => Presence::Unknown,
        };
        let mut references = WalkReferences::default();
        let (tables, mut server) = memory.for_walk(self.seat);
        let walk = walker::walk_cached(
            tables,
            &mut self.psc,
            self.context.own,
            self.cr3.root,
            vpn,
            access,
            &self.rules,
            |table, index| references.count(server.serve(table, index)),
        );
        let WalkOutcome::Leaf {
            entry,
            size,
            rights,
            assist,
            ..
        } = walk.outcome
        else {
            self.stats.book(access, references, None);
            return Err(self.page_fault(frames, access, va, refusal(&walk.outcome)));
        };
        self.stats.book(access, references, Some(assist));
        let entry = TlbEntry::of_leaf(entry, size, Generation::FIRST).with_rights(rights);
        let entry = self.fill(frames, access, vpn, entry, presence);
        Ok(Translated {
            pfn: entry.frame_of(vpn),
            entry,
            found: Found::Walked {
                after,
                references,
                assist,
            },
        })
    }

    // Returns the entry as it is kept: global only if PGE is set, with its frame's generation.
    #[inline]
    fn fill(
        &mut self,
        frames: &mut impl Frames,
        access: Access,
        vpn: Vpn,
        entry: TlbEntry,
        presence: Presence,
    ) -> TlbEntry {
        let entry = if self.cr4.global_pages {
            entry
        } else {
            entry.without_global()
        };
        let generation = frames.generation(entry.frame_of(vpn));
        let entry = entry.with_generation(generation);
        self.tlb
            .fill_with(access, self.context, vpn, entry, presence, frames);
        entry
    }

    fn page_fault(&mut self, frames: &mut impl Frames, access: Access, va: Va, code: ErrorCode) -> Fault {
        self.drop_page(frames, va.vpn());
        self.psc.invalidate_page(self.context.own, va.vpn());
        Fault::Page {
            va,
            code: code.with(ErrorCode::of(access, self.rules.privilege)),
        }
    }

    // Entries for a page of the current identifier, and global ones: of the current virtual processor,
    // under whatever second dimension (Intel SDM vol. 3C 29.4.3.1).
    fn drop_page(&mut self, frames: &mut impl Frames, vpn: Vpn) {
        if self.spaces.has_second_dimensions() {
            let (vpid, pcid) = (self.vpid, self.pcid());
            let tags = self
                .spaces
                .tags_where(|s| s.belongs(vpid, pcid) || s.is_global_of(vpid));
            for asid in tags {
                self.tlb.invalidate_page(asid, vpn, frames);
            }
            return;
        }
        self.tlb.invalidate_page(self.context.own, vpn, frames);
        self.tlb.invalidate_page(self.context.global, vpn, frames);
    }

    // The identifier in use: CR3's with PCIDE, else 0.
    const fn pcid(&self) -> Pcid {
        if self.cr4.pcid_enable {
            self.cr3.pcid
        } else {
            Pcid::ZERO
        }
    }

    /// INVLPG (R1): the page under the current identifier and globally; of the paging-structure
    /// caches, everything of the current identifier.
    pub fn invlpg(&mut self, frames: &mut impl Frames, va: Va) {
        self.drop_page(frames, va.vpn());
        let (spaces, vpid, pcid) = (&self.spaces, self.vpid, self.pcid());
        self.psc.flush_where(|asid| spaces.of(asid).belongs(vpid, pcid));
    }

    /// INVPCID (R2 to R4).
    ///
    /// # Errors
    /// If the processor has no such instruction, or an identifier other than 0 is named without PCIDE.
    pub fn invpcid(&mut self, frames: &mut impl Frames, what: Invpcid) -> Result<(), GeneralProtection> {
        if !self.has_invpcid {
            return Err(GeneralProtection::NoInvpcid);
        }
        let vpid = self.vpid;
        if let Invpcid::Address(pcid, _) | Invpcid::Context(pcid) = what
            && pcid != Pcid::ZERO
            && !self.cr4.pcid_enable
        {
            return Err(GeneralProtection::PcidNotEnabled);
        }
        match what {
            Invpcid::Address(pcid, va) => {
                for asid in self.spaces.tags_where(|s| s.belongs(vpid, pcid)) {
                    self.tlb.invalidate_page(asid, va.vpn(), frames);
                    self.psc.invalidate_page(asid, va.vpn());
                }
            }
            Invpcid::Context(pcid) => self.drop_spaces(frames, |s| s.belongs(vpid, pcid)),
            Invpcid::AllWithGlobals => self.drop_spaces(frames, |s| s.vpid() == Some(vpid)),
            Invpcid::AllButGlobals => {
                self.drop_spaces(frames, |s| s.vpid() == Some(vpid) && !s.is_global());
            }
        }
        Ok(())
    }

    /// MOV to CR3: without PCIDE everything but globals goes (R5); with PCIDE what belongs to the
    /// identifier loaded, unless bit 63 is set (R6, R7).
    pub fn mov_cr3(&mut self, frames: &mut impl Frames, value: Cr3, bit63: Bit63) {
        self.cr3 = value;
        let vpid = self.vpid;
        if !self.cr4.pcid_enable {
            return self.drop_spaces(frames, |s| s.vpid() == Some(vpid) && !s.is_global());
        }
        self.enter_context(frames);
        if bit63 == Bit63::Clear {
            self.drop_spaces(frames, |s| s.belongs(vpid, value.pcid));
        }
    }

    /// MOV to CR4: changing PGE or clearing PCIDE drops everything (R8), setting SMEP what belongs to
    /// the current identifier (R9, whose PAE cannot change in long mode).
    ///
    /// # Errors
    /// If PCIDE is set without the feature, or while CR3 holds another identifier than 0.
    pub fn mov_cr4(&mut self, frames: &mut impl Frames, value: Cr4) -> Result<(), GeneralProtection> {
        let old = self.cr4;
        if value.pcid_enable && !self.has_pcid {
            return Err(GeneralProtection::NoPcid);
        }
        if value.pcid_enable && !old.pcid_enable && self.cr3.pcid != Pcid::ZERO {
            return Err(GeneralProtection::PcidNotZero);
        }
        self.cr4 = value;
        self.change_rules(|rules| (rules.smep, rules.smap) = (value.smep, value.smap));
        let vpid = self.vpid;
        if old.global_pages != value.global_pages || (old.pcid_enable && !value.pcid_enable) {
            self.drop_spaces(frames, |s| s.vpid() == Some(vpid));
        } else if !old.smep && value.smep {
            let pcid = self.pcid();
            self.drop_spaces(frames, |s| s.belongs(vpid, pcid) || s.is_global_of(vpid));
        }
        self.enter_context(frames);
        Ok(())
    }

    /// MOV to CR0: clearing PG drops everything (R8). Accesses without paging are not modelled: they
    /// would go to the physical address; long mode, where all kernels run, does not allow it. WP changes no cached translation, only what it
    /// allows.
    ///
    /// # Errors
    /// If PG is cleared while CR4.PCIDE is set.
    pub fn mov_cr0(&mut self, frames: &mut impl Frames, value: Cr0) -> Result<(), GeneralProtection> {
        if !value.paging && self.cr4.pcid_enable {
            return Err(GeneralProtection::PagingNeededByPcid);
        }
        if self.cr0.paging && !value.paging {
            let vpid = self.vpid;
            self.drop_spaces(frames, |s| s.vpid() == Some(vpid));
        }
        self.cr0 = value;
        self.change_rules(|rules| rules.write_protect = value.write_protect);
        Ok(())
    }

    /// Changes the privilege level.
    pub fn set_privilege(&mut self, privilege: Privilege) {
        self.change_rules(|rules| rules.privilege = privilege);
    }

    fn change_rules(&mut self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.rules);
        self.checks = self.rules.checks();
    }

    /// Says what this processor does with a cached translation that does not allow an access.
    pub fn set_permission_miss(&mut self, policy: PermissionMiss) {
        self.permission_miss = policy;
    }

    /// Drops cached translations that `doomed` picks by space and page, which a processor may do at
    /// any moment (R11), and what the paging-structure caches hold of their spaces.
    pub fn drop_where(&mut self, frames: &mut impl Frames, doomed: impl Fn(Space, Vpn) -> bool) {
        let spaces = &self.spaces;
        self.tlb
            .flush_where(|asid, vpn, _| doomed(spaces.of(asid), vpn), frames);
        self.psc.flush_all();
        self.guest_physical.flush_all();
    }

    // What a broadcast hits, by space, page and entry; and the upper-level entries of its spaces.
    fn drop_entries(&mut self, frames: &mut impl Frames, doomed: impl Fn(Space, Vpn, &TlbEntry) -> bool) {
        let spaces = &self.spaces;
        self.tlb
            .flush_where(|asid, vpn, entry| doomed(spaces.of(asid), vpn, entry), frames);
        self.psc.flush_all();
    }

    fn drop_spaces(&mut self, frames: &mut impl Frames, doomed: impl Fn(Space) -> bool) {
        let spaces = &self.spaces;
        self.tlb.flush_where(|asid, _, _| doomed(spaces.of(asid)), frames);
        self.psc.flush_where(|asid| doomed(spaces.of(asid)));
        self.guest_physical.flush_where(|asid| doomed(spaces.of(asid)));
    }

    // The tags follow CR3 and the virtual processor.
    fn enter_context(&mut self, frames: &mut impl Frames) {
        if self.spaces.is_full() {
            self.tlb.flush_all(frames);
            self.psc.flush_all();
            self.guest_physical.flush_all();
            self.spaces.forget();
        }
        self.context = self.spaces.context(self.vpid, self.eptp, self.pcid());
    }

    /// The TLBs.
    #[must_use]
    pub const fn tlb(&self) -> &Tlb {
        &self.tlb
    }

    /// The paging-structure caches.
    #[must_use]
    pub const fn psc(&self) -> &Psc {
        &self.psc
    }

    /// Counts of walks.
    #[must_use]
    pub const fn stats(&self) -> &WalkStats {
        &self.stats
    }

    /// What a look-up would find now, without counting it or touching recency.
    #[must_use]
    pub fn probe(&self, access: Access, va: Va) -> Option<TlbEntry> {
        self.tlb.probe(access, self.context, va.vpn())
    }

    /// Page sizes the processor knows.
    #[must_use]
    pub const fn page_sizes(&self) -> PageSizes {
        self.rules.page_sizes
    }
}

// What a walk that found no leaf puts into the error code, beside what the access does.
const fn refusal(outcome: &WalkOutcome) -> ErrorCode {
    match outcome {
        WalkOutcome::NotPresent { .. } => ErrorCode::NONE,
        WalkOutcome::Reserved { .. } => ErrorCode::PRESENT.with(ErrorCode::RESERVED),
        WalkOutcome::Protection { .. } | WalkOutcome::Leaf { .. } => ErrorCode::PRESENT,
    }
}

/// What INVPCID invalidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invpcid {
    /// Type 0: one page of one identifier, globals kept.
    Address(Pcid, Va),
    /// Type 1: one identifier, globals kept.
    Context(Pcid),
    /// Type 2: all identifiers and globals.
    AllWithGlobals,
    /// Type 3: all identifiers, globals kept.
    AllButGlobals,
}
