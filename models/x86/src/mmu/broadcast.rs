//! INVLPGB and TLBSYNC: invalidations that an AMD core broadcasts (reference row R20; AMD APM vol. 3).
//!
//! A broadcast travels. Each core applies it at some moment of its own, [`Network::deliver`]; only the
//! sender's TLBSYNC, [`Network::tlbsync`], returns when every core has applied all that this sender
//! sent before.

use std::collections::VecDeque;

use super::spaces::{Space, Vpid};
use super::{Mmu, Pcid};
use crate::addr::{Va, Vpn};
use crate::frames::Frames;
use crate::machine::CpuIndex;
use crate::page_size::PageSize;
use crate::tlb::TlbEntry;

/// Pages one INVLPGB covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvlpgbPages {
    /// First byte of the first page.
    pub start: Va,
    /// Pages, at least one and at most what the processor says (CPUID 80000008 EDX\[15:0\] + 1).
    pub count: u16,
    /// Distance between pages: 4 KiB or 2 MiB.
    pub stride: PageSize,
}

/// Global pages of an address space that is invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Globals {
    /// Stay.
    Kept,
    /// Go too.
    Included,
}

/// What an INVLPGB invalidates: all that fits every criterion given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invlpgb {
    /// Only of this ASID.
    pub asid: Option<Vpid>,
    /// Only of this PCID.
    pub pcid: Option<Pcid>,
    /// Only of these pages.
    pub pages: Option<InvlpgbPages>,
    /// Whether global pages go too.
    pub globals: Globals,
}

/// Why an INVLPGB is refused with #GP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BroadcastRefused {
    /// The machine has no INVLPGB.
    Unsupported,
    /// No page, or another stride than 4 KiB and 2 MiB.
    NoSuchRange,
    /// More pages than one instruction covers.
    TooManyPages {
        /// Most there may be.
        most: u32,
    },
}

impl Invlpgb {
    fn hits(&self, space: Space, vpn: Vpn, entry: &TlbEntry) -> bool {
        let (asid, pcid) = match space {
            Space::Linear(asid, _, pcid) => (asid, Some(pcid)),
            Space::Global(asid, _) if self.globals == Globals::Included => (asid, None),
            Space::Global(..) | Space::GuestPhysical(..) => return false,
        };
        let pcid_fits = match (self.pcid, pcid) {
            (Some(wanted), Some(found)) => wanted == found,
            _ => true,
        };
        self.asid.is_none_or(|wanted| wanted == asid)
            && pcid_fits
            && self.pages.is_none_or(|p| p.hit(vpn, entry))
    }
}

impl InvlpgbPages {
    // Whether the page that the tables map, of which the slot may hold a fragment, has a part in it.
    fn hit(&self, vpn: Vpn, entry: &TlbEntry) -> bool {
        let first = crate::tlb::significant(self.stride.floor(self.start.vpn())).get();
        let end = first + u64::from(self.count) * self.stride.base_pages();
        let leaf = entry.leaf_size().floor(vpn).get();
        leaf < end && first < leaf + entry.leaf_size().base_pages()
    }
}

/// Broadcasts under way in a machine.
#[derive(Clone, Debug)]
pub struct Network {
    most_pages: Option<u32>,
    // For each CPU what it has not applied yet, in the order sent.
    pending: Vec<VecDeque<(CpuIndex, Invlpgb)>>,
}

impl Network {
    /// The network of a machine of so many CPUs. `most_pages` is what one INVLPGB covers, `None` if
    /// there is no such instruction.
    #[must_use]
    pub fn new(cpus: u32, most_pages: Option<u32>) -> Self {
        Network {
            most_pages,
            pending: vec![VecDeque::new(); cpus as usize],
        }
    }

    /// INVLPGB: sends to every CPU, the sender included.
    ///
    /// # Errors
    /// If the machine has no such instruction or the range is too long for one.
    pub fn invlpgb(&mut self, sender: CpuIndex, what: Invlpgb) -> Result<(), BroadcastRefused> {
        let most = self.most_pages.ok_or(BroadcastRefused::Unsupported)?;
        if let Some(InvlpgbPages { count, stride, .. }) = what.pages {
            if count == 0 || stride == PageSize::Size1G {
                return Err(BroadcastRefused::NoSuchRange);
            }
            if u32::from(count) > most {
                return Err(BroadcastRefused::TooManyPages { most });
            }
        }
        for queue in &mut self.pending {
            queue.push_back((sender, what));
        }
        Ok(())
    }

    /// A CPU applies what has reached it: everything sent so far.
    pub fn deliver(&mut self, cpu: CpuIndex, mmu: &mut Mmu, frames: &mut impl Frames) {
        for (_, what) in self.pending[cpu.get() as usize].drain(..) {
            mmu.drop_entries(frames, |space, vpn, entry| what.hits(space, vpn, entry));
        }
    }

    /// TLBSYNC: afterwards every CPU has applied all that the sender sent. `mmus` are those of the
    /// machine, by number of their CPU.
    pub fn tlbsync(&mut self, sender: CpuIndex, mmus: &mut [Mmu], frames: &mut impl Frames) {
        for (queue, mmu) in self.pending.iter_mut().zip(mmus) {
            // A CPU applies in order, so what others sent before goes along.
            let last = queue.iter().rposition(|(from, _)| *from == sender);
            for (_, what) in queue.drain(..last.map_or(0, |at| at + 1)) {
                mmu.drop_entries(frames, |space, vpn, entry| what.hits(space, vpn, entry));
            }
        }
    }

    /// Whether something sent has not been applied by a CPU.
    #[must_use]
    pub fn is_pending(&self, cpu: CpuIndex) -> bool {
        !self.pending[cpu.get() as usize].is_empty()
    }
}
