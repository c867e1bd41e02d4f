//! A program's memory access: TLB, page walk, page fault, retry.
//!
//! The TLB belongs to the CPU and is changed by interrupts, so an access synchronises first. A
//! look-up is counted once an access; the instruction that restarts after a fault walks again but
//! is not another access. Stores through a clean translation walk to set the dirty bit
//! (hardware-costs R17).

use sim::{Action, Cx, Object};
use x86::{Access, Context, Lookup, Rules, TlbEntry, Va, Vpn, WalkOutcome};

use crate::account::{USER, WALK};
use crate::kernel::{Kernel, State};
use crate::mm::MmId;
use crate::page::STALE_USE;

/// Why an access cannot be served: what the program would get as a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// No mapping, or not with this right (SIGSEGV).
    NoMapping,
    /// A file mapping beyond the end of its file (SIGBUS).
    BeyondEof,
    /// No frame left, or no huge page.
    OutOfMemory,
    /// A huge page that the owner of the private mapping took back, for want of another one (SIGBUS).
    TakenBack,
}

/// What a walk led to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    /// The access was made.
    Hit,
    /// The page tables do not allow it.
    Fault,
}

/// What the TLB knows of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cached {
    /// A translation that allows the access; it was made.
    Allows,
    /// A translation that does not.
    Refuses,
    /// Nothing.
    Absent,
}

/// How far an access got without letting anybody else go first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an access that is not done must be finished"]
pub enum Now {
    /// It is made.
    Done,
    /// The TLB does not allow it: it needs a walk.
    Missed(Cached),
    /// Somebody else comes first; nothing was looked up yet.
    MustSync,
}

impl Kernel {
    /// One load or store of the running task in its address space.
    ///
    /// # Errors
    /// When the access has no mapping, right or page behind it; it is counted and skipped.
    pub async fn access(&self, cx: &Cx, mm: MmId, va: Va, access: Access) -> Result<(), Refused> {
        match self.access_now(cx, va, access) {
            Now::Done => Ok(()),
            begun => self.finish_access(cx, mm, va, access, begun).await,
        }
    }

    /// The part of an access that needs nobody else: a TLB hit. Loops over many accesses call this
    /// first and await [`Kernel::finish_access`] only if there is something left to do.
    #[inline]
    pub fn access_now(&self, cx: &Cx, va: Va, access: Access) -> Now {
        if cx.must_sync() {
            return Now::MustSync;
        }
        match self.try_tlb(cx, va.vpn(), access) {
            Cached::Allows => Now::Done,
            cached => Now::Missed(cached),
        }
    }

    /// The rest of an access that [`Kernel::access_now`] began.
    ///
    /// # Errors
    /// As [`Kernel::access`].
    pub async fn finish_access(
        &self,
        cx: &Cx,
        mm: MmId,
        va: Va,
        access: Access,
        begun: Now,
    ) -> Result<(), Refused> {
        let vpn = va.vpn();
        let cached = match begun {
            Now::Done => return Ok(()),
            Now::Missed(cached) => cached,
            Now::MustSync => {
                cx.step(Object::Cpu(cx.cpu().index() as u16), Action::Read).await;
                cx.cond_resched().await;
                self.try_tlb(cx, vpn, access)
            }
        };
        if cached == Cached::Allows {
            return Ok(());
        }
        self.access_slow(cx, mm, vpn, access, cached).await
    }

    /// Looks the page up in this CPU's TLB and makes the access if it is there with this right.
    #[inline]
    pub(crate) fn try_tlb(&self, cx: &Cx, vpn: Vpn, access: Access) -> Cached {
        let slot = self.local(cx.cpu());
        let mut st = self.st();
        let found = st.cpus[slot].tlb.lookup(access, Context::UNTAGGED, vpn);
        match found {
            Lookup::Hit1(e) if Rules::USER.pass(access, &e) => {
                cx.charge(USER, self.machine.costs.cacheline_touch);
                self.check_generation(cx, e);
                Cached::Allows
            }
            Lookup::Hit2(e) if Rules::USER.pass(access, &e) => {
                cx.charge(WALK, self.machine.costs.tlb_l2_hit);
                cx.charge(USER, self.machine.costs.cacheline_touch);
                self.check_generation(cx, e);
                let mut frames = self.frames();
                let tlb = &mut st.cpus[slot].tlb;
                tlb.promote(access, Context::UNTAGGED, vpn, e, &mut *frames);
                Cached::Allows
            }
            Lookup::Hit1(_) | Lookup::Hit2(_) => Cached::Refuses,
            Lookup::Miss => Cached::Absent,
        }
    }

    async fn access_slow(
        &self,
        cx: &Cx,
        mm: MmId,
        vpn: Vpn,
        access: Access,
        mut cached: Cached,
    ) -> Result<(), Refused> {
        loop {
            match self.try_walk(cx, mm, vpn, access, cached) {
                Tried::Hit => {
                    cx.charge(USER, self.machine.costs.cacheline_touch);
                    return Ok(());
                }
                Tried::Fault => self.do_page_fault(cx, mm, vpn.va(), access).await?,
            }
            cached = Cached::Absent;
            if cx.must_sync() {
                cx.step(Object::Cpu(cx.cpu().index() as u16), Action::Read).await;
            }
        }
    }

    /// Hardware walk; fills the TLB when the entry allows the access.
    pub(crate) fn try_walk(&self, cx: &Cx, mm: MmId, vpn: Vpn, access: Access, cached: Cached) -> Tried {
        let slot = self.local(cx.cpu());
        let mut st = self.st();
        let st: &mut State = &mut st;
        let pgd = st.mm(mm).pgd;
        let cpu = &mut st.cpus[slot];
        let index = self.index(cx.cpu());
        let (walk, cost) = st.walks.walk(
            &self.machine,
            index,
            &mut cpu.psc,
            &mut st.tables,
            pgd,
            vpn,
            access,
        );
        cx.charge(WALK, cost);
        let mut frames = self.frames();
        let WalkOutcome::Leaf { entry, size, .. } = walk.outcome else {
            cpu.page_fault(&mut frames, vpn, cached);
            return Tried::Fault;
        };
        let pfn = entry.frame(size);
        let generation = self.check_fill(cx, st, frames.get_mut(pfn), (mm, vpn), (pfn, access));
        let filled = TlbEntry::of_leaf(entry, size, generation);
        let cpu = &mut st.cpus[slot];
        cpu.tlb.fill(access, Context::UNTAGGED, vpn, filled, &mut *frames);
        Tried::Hit
    }

    #[inline]
    fn check_generation(&self, cx: &Cx, e: TlbEntry) {
        if self.frames.borrow().get(e.pfn).generation != e.generation {
            let text = format!(
                "{} reads or writes {} through a TLB entry from before it was freed",
                cx.cpu(),
                e.pfn
            );
            cx.engine()
                .violate(STALE_USE, text, Some(("pfn", u64::from(e.pfn.get()))));
        }
    }
}
