//! Translation in two dimensions: a guest's tables lie in guest-physical memory, so each reference to
//! one of them is itself translated by the host's tables.
//!
//! With `g` guest levels and `h` host levels down to their leaves a cold walk makes
//! `(g + 1) * (h + 1) - 1` references (reference rows R32 to R34): `h` and one for each guest entry,
//! and `h` for the page itself. Paging-structure caches shorten both dimensions: those of the guest's
//! tables under the tag of the combined mapping, and others of the same shape, those of the host's,
//! under the tag of guest-physical mappings. Translations of guest-physical pages are not cached by themselves (AMD's nested TLB,
//! reference row G33, of which only the size is known).
//!
//! The page is cached as a combined mapping of the smaller of the two page sizes, with the rights that
//! both dimensions allow.

use super::memory::{Memory, Seat};
use super::spaces::{Space, Vpid};
use super::{Found, Mmu, Refused, Translated, WalkReferences, refusal};
use crate::addr::{Gpa, PAGE_SHIFT, Va, Vpn};
use crate::cache::{ENTRY_BYTES, Line};
use crate::fault::{ErrorCode, Fault};
use crate::frames::Frames;
use crate::machine::NestedPaging;
use crate::psc::Psc;
use crate::rules::{Privilege, Rules};
use crate::tables::{PageTables, TableId};
use crate::tlb::{Asid, Generation, Lookup, Presence, TlbEntry};
use crate::walker::{self, Access, DirtyAssist, Walk, WalkOutcome};

/// A guest's page tables and the host's second dimension under them.
#[derive(Debug)]
pub struct NestedTables<'a> {
    /// The guest's tables; CR3 of the virtual processor names the root.
    pub guest: &'a mut PageTables,
    /// Where they lie in guest-physical memory: table `n` begins `n` pages after this address.
    pub tables_at: Gpa,
    /// Root of the second dimension, among the host's tables. A guest-physical address takes the place
    /// of a linear one.
    pub host_root: TableId,
}

/// Why a guest's access is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NestedFault {
    /// The guest's own tables refuse: the guest gets the fault.
    Guest(Fault),
    /// The second dimension refuses (EPT violation, nested page fault): the guest exits.
    Host {
        /// The guest-physical address.
        gpa: Gpa,
        /// What was wrong.
        code: ErrorCode,
    },
}

impl Mmu {
    /// Translates one access of a guest.
    ///
    /// # Errors
    /// If one of the dimensions refuses.
    pub fn translate_nested(
        &mut self,
        memory: &mut Memory,
        nested: &mut NestedTables<'_>,
        frames: &mut impl Frames,
        access: Access,
        va: Va,
    ) -> Result<Translated, NestedFault> {
        if !nested.guest.mode().is_canonical(va) {
            return Err(NestedFault::Guest(Fault::NonCanonical { va }));
        }
        let vpn = va.vpn();
        let (entry, found) = match self.tlb.lookup(access, self.context, vpn) {
            Lookup::Hit1(entry) if self.rules.pass(access, &entry) => (entry, Found::First),
            Lookup::Hit2(entry) if self.rules.pass(access, &entry) => {
                self.promote(frames, access, vpn, entry);
                (entry, Found::Second)
            }
            Lookup::Hit1(_) | Lookup::Hit2(_) | Lookup::Miss => {
                return self.walk_nested(memory, nested, frames, access, va);
            }
        };
        let pfn = entry.frame_of(vpn);
        Ok(Translated { pfn, entry, found })
    }

    fn walk_nested(
        &mut self,
        memory: &mut Memory,
        nested: &mut NestedTables<'_>,
        frames: &mut impl Frames,
        access: Access,
        va: Va,
    ) -> Result<Translated, NestedFault> {
        let vpn = va.vpn();
        let guest_physical = self.guest_physical_space();
        let mut host = HostWalker {
            psc: &mut self.guest_physical,
            asid: self.spaces.number(guest_physical),
            root: nested.host_root,
            memory,
            seat: self.seat,
            references: WalkReferences::default(),
        };
        let tables_at = nested.tables_at;
        let walk = walker::walk_stoppable(
            nested.guest,
            &mut self.psc,
            self.context.own,
            self.cr3.root,
            vpn,
            access,
            &self.rules,
            |table, index| host.read_guest_entry(tables_at, table, index),
        );
        let end = walk.and_then(|walk| host.end_of(&walk, vpn, access));
        let references = host.references;
        self.book_nested(access, references, &end);
        let (entry, assist) = match end {
            Ok(Combined { entry, assist }) => (entry, assist),
            Err(GuestOrHost::Host(gpa, code)) => {
                self.drop_guest_physical(frames, vpn, gpa);
                return Err(NestedFault::Host { gpa, code });
            }
            Err(GuestOrHost::Guest(code)) => {
                return Err(NestedFault::Guest(self.page_fault(frames, access, va, code)));
            }
        };
        let entry = self.fill(frames, access, vpn, entry, Presence::Unknown);
        Ok(Translated {
            pfn: entry.frame_of(vpn),
            entry,
            found: Found::Walked {
                after: Refused::Nowhere,
                references,
                assist,
            },
        })
    }

    // Nested mappings carry the ASID on AMD, so that a new ASID sees none of the old (reference row
    // R22); on Intel only the root (R21).
    const fn guest_physical_space(&self) -> Space {
        let owner = match self.nested_paging {
            NestedPaging::Npt => self.vpid,
            NestedPaging::Ept | NestedPaging::Absent => Vpid::HOST,
        };
        Space::GuestPhysical(owner, self.eptp)
    }

    // An EPT violation drops the guest-physical mappings used for its address, and combined mappings of
    // the linear one (Intel SDM vol. 3C 29.4.3.1), so that it cannot repeat once software has mended the
    // second dimension.
    fn drop_guest_physical(&mut self, frames: &mut impl Frames, vpn: Vpn, gpa: Gpa) {
        self.drop_page(frames, vpn);
        self.psc.invalidate_page(self.context.own, vpn);
        let asid = self.spaces.number(self.guest_physical_space());
        self.guest_physical.invalidate_page(asid, gfn_as_vpn(gpa));
    }

    fn book_nested(
        &mut self,
        access: Access,
        references: WalkReferences,
        end: &Result<Combined, GuestOrHost>,
    ) {
        let assist = match end {
            Ok(combined) => Some(combined.assist),
            Err(_) => None,
        };
        self.stats.book(access, references, assist);
    }
}

/// Who refuses, as an error of the two-dimensional walk.
enum GuestOrHost {
    Guest(ErrorCode),
    Host(Gpa, ErrorCode),
}

/// What both dimensions make of a page.
struct Combined {
    entry: TlbEntry,
    assist: DirtyAssist,
}

/// Walks the second dimension and counts all references of the walk in two.
struct HostWalker<'a> {
    psc: &'a mut Psc,
    asid: Asid,
    root: TableId,
    memory: &'a mut Memory,
    seat: Seat,
    references: WalkReferences,
}

/// The second dimension's permissions are those of a user's pages: Linux sets U/S in nested page
/// tables, and EPT has no such bit.
const HOST_RULES: Rules = Rules::USER;

impl HostWalker<'_> {
    fn read_guest_entry(&mut self, tables_at: Gpa, table: TableId, index: usize) -> Result<(), GuestOrHost> {
        let offset = index as u64 * ENTRY_BYTES;
        let gpa = Gpa::new(tables_at.get() + (u64::from(table.get()) << PAGE_SHIFT) + offset);
        let (page, _) = self.page(gpa, Access::Read)?;
        let line = Line::of_byte(page.frame_of(gfn_as_vpn(gpa)), offset);
        self.references.count(self.memory.serve_data(self.seat, line));
        Ok(())
    }

    // A leaf of the second dimension for a guest-physical address.
    fn page(&mut self, gpa: Gpa, access: Access) -> Result<(TlbEntry, DirtyAssist), GuestOrHost> {
        let references = &mut self.references;
        let (tables, mut server) = self.memory.for_walk(self.seat);
        let walk = walker::walk_cached(
            tables,
            self.psc,
            self.asid,
            self.root,
            gfn_as_vpn(gpa),
            access,
            &HOST_RULES,
            |table, index| references.count(server.serve(table, index)),
        );
        match walk.outcome {
            WalkOutcome::Leaf {
                entry,
                size,
                rights,
                assist,
                ..
            } => {
                let entry = TlbEntry::of_leaf(entry, size, Generation::FIRST).with_rights(rights);
                Ok((entry, assist))
            }
            refused => {
                let code = refusal(&refused).with(ErrorCode::of(access, Privilege::User));
                Err(GuestOrHost::Host(gpa, code))
            }
        }
    }

    // The page itself, once the guest's walk has ended.
    fn end_of(&mut self, walk: &Walk, vpn: Vpn, access: Access) -> Result<Combined, GuestOrHost> {
        let WalkOutcome::Leaf {
            entry,
            size,
            rights,
            assist,
            ..
        } = walk.outcome
        else {
            return Err(GuestOrHost::Guest(refusal(&walk.outcome)));
        };
        let guest = TlbEntry::of_leaf(entry, size, Generation::FIRST).with_rights(rights);
        let gpa = Gpa::new(u64::from(guest.frame_of(vpn).get()) << PAGE_SHIFT);
        let (host, host_assist) = self.page(gpa, access)?;
        let assist = match (assist, host_assist) {
            (DirtyAssist::None, DirtyAssist::None) => DirtyAssist::None,
            _ => DirtyAssist::Taken,
        };
        let entry = guest.through(&host, vpn, gfn_as_vpn(gpa));
        Ok(Combined { entry, assist })
    }
}

// The host's tables are walked by guest-physical page number.
const fn gfn_as_vpn(gpa: Gpa) -> Vpn {
    Vpn::new(gpa.gfn().get())
}
