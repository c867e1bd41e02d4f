//! Entering and leaving guests, and the invalidations by virtual processor and by second dimension.
//!
//! Rows R21 and R22 of the hardware reference: linear and combined mappings carry the identifier of
//! the virtual processor, combined and guest-physical mappings the root of the second dimension.
//! INVVPID leaves guest-physical mappings alone, INVEPT leaves linear mappings of the host alone
//! (Intel SDM vol. 3C 29.4.3; AMD APM vol. 2, 15.16).

use super::Mmu;
use super::registers::{Cr0, Cr3, Cr4};
use super::spaces::{Eptp, Space, Vpid};
use crate::addr::Va;
use crate::frames::Frames;
use crate::rules::Privilege;

/// State a virtual processor brings, or the host gets back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmEntry {
    /// Identifier; `None` runs the guest without one (Intel without VPID).
    pub vpid: Option<Vpid>,
    /// Root of the second dimension; [`Eptp::NONE`] with shadow page tables.
    pub eptp: Eptp,
    /// The guest's CR0.
    pub cr0: Cr0,
    /// The guest's CR3.
    pub cr3: Cr3,
    /// The guest's CR4.
    pub cr4: Cr4,
    /// Privilege the guest runs at.
    pub privilege: Privilege,
}

/// What INVVPID invalidates: linear and combined mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvVpid {
    /// Type 0: one address, of any PCID and globally.
    Address(Vpid, Va),
    /// Type 1: one identifier.
    Context(Vpid),
    /// Type 2: all but those of the host, whose identifier is 0.
    All,
    /// Type 3: one identifier, globals kept.
    ContextButGlobals(Vpid),
}

/// What INVEPT invalidates: combined and guest-physical mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvEpt {
    /// Type 1: one second dimension.
    Context(Eptp),
    /// Type 2: all.
    All,
}

/// TLB_CONTROL of an SVM control block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlbControl {
    /// Nothing is flushed.
    Nothing,
    /// All ASIDs, that of the host included.
    AllAsids,
    /// What belongs to the guest's ASID.
    ThisAsid,
    /// What belongs to the guest's ASID and is not global.
    ThisAsidButGlobals,
}

impl Mmu {
    /// VM entry, or VM exit with the host's state: with an identifier nothing is flushed, without one
    /// linear and combined mappings of identifier 0 are (R21). Returns the state to go back to.
    pub fn vm_transition(&mut self, frames: &mut impl Frames, to: VmEntry) -> VmEntry {
        let from = self.vm_state();
        let tagged = |state: &VmEntry| state.vpid.is_some();
        if !tagged(&to) || !self.runs_tagged {
            self.drop_spaces(frames, |s| s.vpid() == Some(Vpid::HOST));
        }
        self.enter_state(frames, to);
        from
    }

    /// VMRUN with TLB_CONTROL (R22). Returns the state to go back to with [`Mmu::svm_exit`].
    pub fn vmrun(&mut self, frames: &mut impl Frames, to: VmEntry, control: TlbControl) -> VmEntry {
        let from = self.vm_state();
        // AMD has no invalidation by second dimension: flushing an ASID takes the nested mappings along.
        let asid = to.vpid.unwrap_or(Vpid::HOST);
        let nested = |s: Space| matches!(s, Space::GuestPhysical(owner, _) if owner == asid);
        let of_guest = |s: Space| s.vpid() == Some(asid) || nested(s);
        match control {
            TlbControl::Nothing => {}
            TlbControl::AllAsids => self.drop_spaces(frames, |_| true),
            TlbControl::ThisAsid => self.drop_spaces(frames, of_guest),
            TlbControl::ThisAsidButGlobals => {
                self.drop_spaces(frames, |s| of_guest(s) && !s.is_global());
            }
        }
        self.enter_state(frames, to);
        from
    }

    /// #VMEXIT of SVM: the host's ASID is 0 and nothing is flushed.
    pub fn svm_exit(&mut self, frames: &mut impl Frames, host: VmEntry) {
        self.enter_state(frames, host);
    }

    /// INVVPID (R21).
    pub fn invvpid(&mut self, frames: &mut impl Frames, what: InvVpid) {
        match what {
            InvVpid::Address(vpid, va) => {
                let hit = |s: Space| s.vpid() == Some(vpid);
                let tags = self.spaces.tags_where(hit);
                for asid in tags {
                    self.tlb.invalidate_page(asid, va.vpn(), frames);
                    self.psc.invalidate_page(asid, va.vpn());
                }
            }
            InvVpid::Context(vpid) => self.drop_spaces(frames, |s| s.vpid() == Some(vpid)),
            InvVpid::All => self.drop_spaces(frames, |s| s.vpid().is_some_and(|v| v != Vpid::HOST)),
            InvVpid::ContextButGlobals(vpid) => {
                self.drop_spaces(frames, |s| s.vpid() == Some(vpid) && !s.is_global());
            }
        }
    }

    /// INVEPT (R21).
    pub fn invept(&mut self, frames: &mut impl Frames, what: InvEpt) {
        match what {
            InvEpt::Context(eptp) => {
                self.drop_spaces(frames, |s| s.eptp() == eptp && s.eptp() != Eptp::NONE);
            }
            InvEpt::All => self.drop_spaces(frames, |s| s.eptp() != Eptp::NONE),
        }
    }

    fn vm_state(&self) -> VmEntry {
        VmEntry {
            vpid: self.runs_tagged.then_some(self.vpid),
            eptp: self.eptp,
            cr0: self.cr0,
            cr3: self.cr3,
            cr4: self.cr4,
            privilege: self.rules.privilege,
        }
    }

    fn enter_state(&mut self, frames: &mut impl Frames, state: VmEntry) {
        self.runs_tagged = state.vpid.is_some();
        self.vpid = state.vpid.unwrap_or(Vpid::HOST);
        self.eptp = state.eptp;
        (self.cr0, self.cr3, self.cr4) = (state.cr0, state.cr3, state.cr4);
        self.change_rules(|rules| {
            rules.privilege = state.privilege;
            rules.write_protect = state.cr0.write_protect;
            (rules.smep, rules.smap) = (state.cr4.smep, state.cr4.smap);
        });
        self.enter_context(frames);
    }
}
