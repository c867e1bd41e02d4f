//! What kind of virtual machine to build: which release of KVM, which paging, which memory.

use std::error::Error;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use x86::{Gfn, Machine, Va, VaRange};

/// A release of the kernel whose KVM is imitated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    major: u16,
    minor: u16,
    patch: u16,
}

impl Version {
    /// The first release with mmu notifiers.
    pub const LINUX_2_6_27: Version = Version::new(2, 6, 27);
    /// The first whose `release` callback drops all sptes (secondary-mmus 1.5).
    pub const LINUX_2_6_29: Version = Version::new(2, 6, 29);
    /// The first without a page reference for each spte (commit acb66dd051d0), and the one
    /// `requests_lock` was read in.
    pub const LINUX_2_6_32: Version = Version::new(2, 6, 32);
    /// Read to flush before `mmu_lock` is released, and to have no `requests_lock` (secondary-mmus
    /// 1.2, 1.5).
    pub const LINUX_4_9: Version = Version::new(4, 9, 0);

    /// A release by its numbers; the last is zero where a release has only two.
    #[must_use]
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Version { major, minor, patch }
    }

    /// Whether an spte holds a reference, given that notifiers exist.
    #[must_use]
    pub fn spte_reference(self) -> SpteReference {
        if self < Version::LINUX_2_6_32 {
            SpteReference::Held
        } else {
            SpteReference::None
        }
    }

    pub(crate) fn release_zaps(self) -> bool {
        self >= Version::LINUX_2_6_29
    }

    pub(crate) fn serialises_requests(self) -> bool {
        (Version::LINUX_2_6_32..Version::LINUX_4_9).contains(&self)
    }

    pub(crate) fn flushes_under_mmu_lock(self) -> bool {
        self >= Version::LINUX_4_9
    }
}

impl Default for Version {
    fn default() -> Self {
        Version::LINUX_2_6_27
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch > 0 {
            write!(f, ".{}", self.patch)?;
        }
        Ok(())
    }
}

/// A text that names no release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadVersion(pub String);

impl fmt::Display for BadVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a kernel release like 2.6.27 or 4.9", self.0)
    }
}

impl Error for BadVersion {}

impl FromStr for Version {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let bad = || BadVersion(text.to_owned());
        let mut parts = text.split('.').map(|part| part.parse::<u16>().map_err(|_| bad()));
        let major = parts.next().ok_or_else(bad)??;
        let minor = parts.next().ok_or_else(bad)??;
        let patch = parts.next().transpose()?.unwrap_or(0);
        match parts.next() {
            None => Ok(Version::new(major, minor, patch)),
            Some(_) => Err(bad()),
        }
    }
}

/// Whether each spte holds a page reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpteReference {
    /// It does: the page is pinned.
    Held,
    /// It does not: only the notifier keeps it honest.
    None,
}

/// How guest addresses become host addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paging {
    /// Two-dimensional paging (NPT, EPT): the processor walks the guest's and KVM's tables.
    #[default]
    Tdp,
    /// KVM's tables alone, for a guest that has paging off; works on any machine.
    Direct,
}

/// Order of flushing and dropping references for a group of removed sptes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnpinOrder {
    /// sptes invalid, flush, unpin: safe.
    #[default]
    FlushFirst,
    /// Each reference is dropped while its spte is cleared, the flush comes at the end of the group,
    /// as `rmap_remove` and `kvm_mmu_page_unlink_children` of 2.6.25 do: safe only while somebody
    /// else holds the page (notifier-variants 10.17).
    UnpinFirst,
}

/// Whether the host tells the virtual machine of its changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Notified {
    /// It is a subscriber of its address space.
    #[default]
    Registered,
    /// It is told nothing, and each spte pins its page under every version (design V0).
    PinsOnly,
}

/// A range of guest memory and the host memory behind it (`kvm_memory_slot`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemSlot {
    /// First guest frame.
    pub base_gfn: Gfn,
    /// Length.
    pub pages: u64,
    /// Host address of the first page (`userspace_addr`).
    pub hva: Va,
}

impl MemSlot {
    /// Host range behind it; `None` for an empty slot or one beyond the address space.
    #[must_use]
    pub fn hva_range(&self) -> Option<VaRange> {
        VaRange::from_pages(self.hva, self.pages)
    }
}

/// A virtual machine to build.
#[derive(Clone, Debug)]
pub struct KvmConfig {
    /// Name in the scenario.
    pub name: Rc<str>,
    /// Release of KVM.
    pub version: Version,
    /// Paging.
    pub paging: Paging,
    /// Guest memory.
    pub slots: Vec<MemSlot>,
    /// Order in a group.
    pub unpin: UnpinOrder,
    /// Subscriber or not.
    pub notified: Notified,
}

/// Why a virtual machine cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// TDP on a machine that cannot walk two dimensions.
    NoNestedPaging,
    /// A slot is empty or leaves the address space.
    BadSlot(MemSlot),
    /// Two slots share guest frames.
    Overlap(MemSlot, MemSlot),
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfit::NoNestedPaging => f.write_str("paging \"tdp\" on a machine without nested paging"),
            Misfit::BadSlot(slot) => {
                write!(
                    f,
                    "memory slot at {} is empty or leaves the address space",
                    slot.base_gfn
                )
            }
            Misfit::Overlap(a, b) => {
                write!(
                    f,
                    "memory slots at {} and {} share guest frames",
                    a.base_gfn, b.base_gfn
                )
            }
        }
    }
}

impl Error for Misfit {}

impl KvmConfig {
    /// Whether this can be built on a machine.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn check(&self, machine: &Machine) -> Result<(), Misfit> {
        if self.paging == Paging::Tdp && !machine.nested_paging.is_available() {
            return Err(Misfit::NoNestedPaging);
        }
        for (n, slot) in self.slots.iter().enumerate() {
            let end = slot.base_gfn.get().checked_add(slot.pages);
            if slot.hva_range().is_none() || end.is_none_or(|end| end > Self::most_frames()) {
                return Err(Misfit::BadSlot(*slot));
            }
            let shares = |other: &&MemSlot| {
                slot.base_gfn < other.base_gfn.add(other.pages)
                    && other.base_gfn < slot.base_gfn.add(slot.pages)
            };
            if let Some(other) = self.slots[..n].iter().find(shares) {
                return Err(Misfit::Overlap(*other, *slot));
            }
        }
        Ok(())
    }

    /// What a four-level table in its lower half can map.
    fn most_frames() -> u64 {
        Va::new(x86::addr::LOWER_HALF_END).vpn().get()
    }

    /// Whether each spte holds a reference.
    #[must_use]
    pub fn spte_reference(&self) -> SpteReference {
        match self.notified {
            Notified::PinsOnly => SpteReference::Held,
            Notified::Registered => self.version.spte_reference(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_parse_order_and_print() {
        let v = |text: &str| text.parse::<Version>();
        assert_eq!(v("2.6.27"), Ok(Version::LINUX_2_6_27));
        assert_eq!(v("4.9"), Ok(Version::LINUX_4_9));
        let ordered = ["2.6.9", "2.6.27", "2.6.39", "3.0", "4.9", "4.13"].map(|text| v(text).unwrap());
        assert!(ordered.is_sorted());
        for bad in ["", "2", "2.6.27.1", "2.6.x", "linux"] {
            assert_eq!(v(bad), Err(BadVersion(bad.to_owned())));
        }
        for text in ["2.6.25", "4.9", "6.18"] {
            assert_eq!(v(text).map(|v| v.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn sptes_hold_references_up_to_2_6_31_and_always_without_notifiers() {
        let mut config = KvmConfig {
            name: "vm".into(),
            version: Version::new(2, 6, 31),
            paging: Paging::Tdp,
            slots: Vec::new(),
            unpin: UnpinOrder::FlushFirst,
            notified: Notified::Registered,
        };
        assert_eq!(config.spte_reference(), SpteReference::Held);
        config.version = Version::LINUX_2_6_32;
        assert_eq!(config.spte_reference(), SpteReference::None);
        config.notified = Notified::PinsOnly;
        assert_eq!(config.spte_reference(), SpteReference::Held);
    }

    #[test]
    fn misfits_are_told() {
        let slot = |gfn, pages| MemSlot {
            base_gfn: Gfn::new(gfn),
            pages,
            hva: Va::new(0x7000_0000),
        };
        let config = |slots| KvmConfig {
            name: "vm".into(),
            version: Version::default(),
            paging: Paging::Tdp,
            slots,
            unpin: UnpinOrder::default(),
            notified: Notified::default(),
        };
        let barcelona = Machine::preset("barcelona-2008").unwrap();
        let harpertown = Machine::preset("harpertown-2008").unwrap();
        assert_eq!(config(vec![slot(0, 4), slot(4, 4)]).check(&barcelona), Ok(()));
        assert_eq!(config(vec![]).check(&harpertown), Err(Misfit::NoNestedPaging));
        let overlap = config(vec![slot(0, 4), slot(3, 4)]).check(&barcelona);
        assert_eq!(overlap, Err(Misfit::Overlap(slot(0, 4), slot(3, 4))));
        assert_eq!(
            config(vec![slot(0, 0)]).check(&barcelona),
            Err(Misfit::BadSlot(slot(0, 0)))
        );
    }
}
