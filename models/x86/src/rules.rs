//! What control registers make of an access: which rights it needs.

use crate::entry::Rights;
use crate::page_size::{PageSize, PageSizes};
use crate::tlb::{Check, TlbEntry};
use crate::walker::Access;

/// Current privilege.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Privilege {
    /// CPL 3.
    #[default]
    User,
    /// CPL 0 to 2.
    Supervisor,
}

/// Protection in force (Intel SDM vol. 3A 4.6.1): privilege, CR0.WP, CR4.SMEP, CR4.SMAP and the page
/// sizes the processor knows. IA32_EFER.NXE is set, as it is under every kernel modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Current privilege.
    pub privilege: Privilege,
    /// CR0.WP: supervisors heed R/W.
    pub write_protect: bool,
    /// CR4.SMEP: supervisors do not fetch from user pages.
    pub smep: bool,
    /// CR4.SMAP, with EFLAGS.AC clear: supervisors do not load from or store to user pages.
    pub smap: bool,
    /// Page sizes the processor knows; PS at another level is a reserved bit.
    pub page_sizes: PageSizes,
}

impl Rules {
    /// A user program on a processor that knows all page sizes.
    pub const USER: Rules = Rules {
        privilege: Privilege::User,
        write_protect: true,
        smep: false,
        smap: false,
        page_sizes: PageSizes::ALL,
    };

    /// What the bits of a cached translation must be for the access to go ahead: rights, and D for a
    /// store.
    pub(crate) const fn check(&self, access: Access) -> Check {
        let check = self.rights_check(access);
        match access {
            Access::Write => check.needing_dirty(),
            Access::Read | Access::Fetch => check,
        }
    }

    /// [`Rules::check`] by access.
    pub(crate) fn checks(&self) -> [Check; Access::ALL.len()] {
        Access::ALL.map(|access| self.check(access))
    }

    /// Whether rights allow an access.
    #[inline]
    #[must_use]
    pub const fn permit(&self, access: Access, rights: Rights) -> bool {
        self.rights_check(access).allows(rights)
    }

    /// Whether a cached translation lets an access go ahead without a walk: rights, and D for a store.
    #[inline]
    #[must_use]
    pub const fn pass(&self, access: Access, cached: &TlbEntry) -> bool {
        cached.satisfies(self.check(access))
    }

    const fn rights_check(&self, access: Access) -> Check {
        let any = Check::ANYTHING;
        match (self.privilege, access) {
            (Privilege::User, Access::Read) => any.needing(Rights::USER),
            (Privilege::User, Access::Write) => any.needing(Rights::USER).needing(Rights::WRITE),
            (Privilege::User, Access::Fetch) => any.needing(Rights::USER).needing(Rights::EXEC),
            (Privilege::Supervisor, Access::Fetch) if self.smep => {
                any.needing(Rights::EXEC).refusing(Rights::USER)
            }
            (Privilege::Supervisor, Access::Fetch) => any.needing(Rights::EXEC),
            (Privilege::Supervisor, Access::Read | Access::Write) => {
                let check = if self.smap {
                    any.refusing(Rights::USER)
                } else {
                    any
                };
                match access {
                    Access::Write if self.write_protect => check.needing(Rights::WRITE),
                    Access::Read | Access::Write | Access::Fetch => check,
                }
            }
        }
    }

    /// Whether PS may be set in an entry that could map a page of this size.
    #[inline]
    #[must_use]
    pub const fn knows(&self, size: PageSize) -> bool {
        self.page_sizes.contains(size)
    }
}
