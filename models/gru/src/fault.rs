//! Accesses and TLB misses.
//!
//! Follows grufault.c of 2.6.27/2.6.28 (secondary-mmus 2.3). A hit needs nobody. On a miss the fault
//! handle is read, `ms_range_active` and then the page-table entry are looked at (each a synchronisation
//! point, in that order, as the driver's read barriers demand), and the translation is written to the
//! handle. In interrupt context nothing may sleep: mmap_sem is only tried, and entries that are absent
//! (or clean or read-only on a write) are left to polling. The polled path holds mmap_sem for read and
//! the context's mutex, sleeps until no window is open, and may call get_user_pages; the reference it
//! gets is dropped *before* the drop-in.
//!
//! The entry gets the dirty bit if the miss was a write; a later write through a clean entry misses
//! again, whatever the page table says by then.

use mm::Refused;
use mm::account::{FAULT_GRU, USER};
use sim::{Action, Cx, Mark, Object, Scope};
use x86::{Access, Generation, Pfn, Rights, TlbEntry, Va};

use crate::asid::GruAsid;
use crate::costs::{DROPIN, FAULT_HANDLE_READ, PTE_LOOKUP_READS};
use crate::{DropinCancel, Gru, Life, MissMode, STEP_OBJECT};

static DROPPED_IN: Mark = Mark {
    name: "gru_dropin",
    args: ["pfn", "generation", "va"],
    scope: Scope::Object,
};
static IGNORED: Mark = Mark {
    name: "gru_dropin_ignored",
    args: ["pfn", "generation", "va"],
    scope: Scope::Object,
};

/// Whether the caller may sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Context {
    Interrupt,
    Process,
}

/// What became of a try.
enum Tried {
    /// The command was written (or the context is gone): the instruction restarts.
    Restart,
    /// Later, from the polled path.
    Again,
    /// An exception for the program.
    Exception(Refused),
}

/// A TLB fault handle as read, and the purges the hardware had seen by then.
#[derive(Clone, Copy)]
struct FaultHandle {
    chiplet: u32,
    va: Va,
    access: Access,
    asid: GruAsid,
    purges: u64,
}

/// A frame found by a page-table walk.
struct Found {
    pfn: Pfn,
    generation: Generation,
}

impl Gru {
    /// One load or store of a GRU instruction issued by the running thread on a chiplet. Loads a context
    /// if the address space has none there.
    ///
    /// # Errors
    /// When the access has no mapping, right or page behind it, or the GRU was destroyed.
    pub async fn access(&self, cx: &Cx, chiplet: u32, va: Va, access: Access) -> Result<(), Refused> {
        self.sync_read(cx, chiplet).await;
        if let Some(entry) = self.lookup(chiplet, va, access) {
            self.st().metrics.hits += 1;
            self.use_entry(cx, entry);
            return Ok(());
        }
        self.st().metrics.faults += 1;
        let served = self.access_missed(cx, chiplet, va, access).await;
        if served.is_err() {
            self.st().metrics.refused += 1;
        }
        served
    }

    async fn access_missed(&self, cx: &Cx, chiplet: u32, va: Va, access: Access) -> Result<(), Refused> {
        loop {
            if self.st().life == Life::Destroyed {
                return Err(Refused::NoMapping);
            }
            if self.contexts(chiplet) == 0 {
                self.segment_fault(cx, chiplet).await;
            } else {
                self.st().metrics.misses += 1;
                self.serve_miss(cx, chiplet, va, access).await?;
            }
            self.sync_read(cx, chiplet).await;
            if let Some(entry) = self.lookup(chiplet, va, access) {
                self.use_entry(cx, entry);
                return Ok(());
            }
        }
    }

    async fn sync_read(&self, cx: &Cx, chiplet: u32) {
        if cx.must_sync() {
            cx.step(Object::Other(STEP_OBJECT, u64::from(chiplet)), Action::Read)
                .await;
            cx.cond_resched().await;
        }
    }

    /// What the chiplet finds by itself: only with a context loaded.
    fn lookup(&self, chiplet: u32, va: Va, access: Access) -> Option<TlbEntry> {
        let mut st = self.st();
        let c = &mut st.chiplets[chiplet as usize];
        let asid = c.asid.filter(|_| c.contexts > 0)?;
        c.tlb
            .lookup(asid, va.vpn())
            .filter(|e| !access.is_write() || e.dirty())
    }

    fn use_entry(&self, cx: &Cx, entry: TlbEntry) {
        // The hub is one crossing away from any memory.
        cx.charge(USER, self.kernel.machine.costs.line_transfer_far);
        self.kernel
            .check_use(cx, entry.pfn, entry.generation, &self.config.name);
    }

    async fn serve_miss(&self, cx: &Cx, chiplet: u32, va: Va, access: Access) -> Result<(), Refused> {
        let _booking = cx.book_to(FAULT_GRU);
        if self.config.miss == MissMode::Interrupt {
            match self.intr(cx, chiplet, va, access).await {
                Tried::Restart => return Ok(()),
                Tried::Exception(refused) => return Err(refused),
                Tried::Again => {}
            }
        }
        match self.handle_user_call_os(cx, chiplet, va, access).await {
            Tried::Exception(refused) => Err(refused),
            Tried::Restart | Tried::Again => Ok(()),
        }
    }

    /// `gru_intr`, on the CPU of the thread.
    async fn intr(&self, cx: &Cx, chiplet: u32, va: Va, access: Access) -> Tried {
        let _span = cx.span("gru_intr");
        self.st().metrics.interrupts += 1;
        cx.charge(FAULT_GRU, self.kernel.machine.costs.interrupt_entry_exit);
        let _irqs = cx.irq_disable();
        let Some(_sem) = cx.try_lock_shared(self.kernel.mmap_sem(self.mm)).await else {
            self.st().metrics.fail_mmap_sem += 1;
            return Tried::Again;
        };
        self.try_dropin(cx, chiplet, va, access, Context::Interrupt).await
    }

    /// `gru_handle_user_call_os` and `gru_user_dropin`.
    async fn handle_user_call_os(&self, cx: &Cx, chiplet: u32, va: Va, access: Access) -> Tried {
        let _span = cx.span("gru_handle_user_call_os");
        self.st().metrics.polled += 1;
        cx.charge(FAULT_GRU, self.kernel.machine.costs.syscall_entry_exit);
        let _sem = cx.lock_shared(self.kernel.mmap_sem(self.mm)).await;
        let _context = cx.lock(self.ctxlock(cx, chiplet)).await;
        loop {
            self.wait_for_windows(cx, chiplet).await;
            let tried = self.try_dropin(cx, chiplet, va, access, Context::Process).await;
            let Tried::Again = tried else {
                return tried;
            };
            self.st().metrics.call_os_retries += 1;
        }
    }

    /// `wait_event(ms_wait_queue, ms_range_active == 0)`.
    async fn wait_for_windows(&self, cx: &Cx, chiplet: u32) {
        loop {
            cx.step(Object::Other(STEP_OBJECT, u64::from(chiplet)), Action::Read)
                .await;
            if self.st().range_active == 0 {
                return;
            }
            self.st().metrics.call_os_waits += 1;
            cx.wait_on(self.wait_queue).await;
        }
    }

    /// `gru_try_dropin`; mmap_sem is held for read.
    async fn try_dropin(&self, cx: &Cx, chiplet: u32, va: Va, access: Access, context: Context) -> Tried {
        let _span = cx.span("gru_try_dropin");
        cx.charge(FAULT_GRU, FAULT_HANDLE_READ.on(&self.kernel.machine));
        let object = Object::Other(STEP_OBJECT, u64::from(chiplet));
        cx.step(object, Action::Read).await;
        let Some(handle) = self.read_fault_handle(chiplet, va, access) else {
            return Tried::Restart;
        };
        cx.step(object, Action::Read).await;
        if self.st().range_active != 0 {
            self.st().metrics.dropin_fail_range_active += 1;
            return Tried::Again;
        }
        if self.kernel.find_vma(cx, self.mm, va).is_none() {
            return Tried::Exception(Refused::NoMapping);
        }
        cx.step(object, Action::Read).await;
        let found = match (self.atomic_pte_lookup(cx, va, access), context) {
            (Some(found), _) => found,
            (None, Context::Interrupt) => {
                self.st().metrics.dropin_fail_upm += 1;
                return Tried::Again;
            }
            (None, Context::Process) => match self.non_atomic_pte_lookup(cx, va, access).await {
                Ok(found) => found,
                Err(refused) => return Tried::Exception(refused),
            },
        };
        cx.charge(FAULT_GRU, DROPIN.on(&self.kernel.machine));
        cx.step(object, Action::Write).await;
        self.write_restart(cx, handle, &found);
        Tried::Restart
    }

    /// None if the context is being unloaded (asid 0: EAGAIN).
    fn read_fault_handle(&self, chiplet: u32, va: Va, access: Access) -> Option<FaultHandle> {
        let st = self.st();
        let c = &st.chiplets[chiplet as usize];
        let asid = c.asid.filter(|_| c.contexts > 0)?;
        Some(FaultHandle {
            chiplet,
            va,
            access,
            asid,
            purges: c.purges,
        })
    }

    /// `atomic_pte_lookup`: without any lock on the page table.
    fn atomic_pte_lookup(&self, cx: &Cx, va: Va, access: Access) -> Option<Found> {
        cx.charge(
            FAULT_GRU,
            self.kernel.machine.costs.cacheline_touch * PTE_LOOKUP_READS,
        );
        let entry = self.kernel.peek_pte(self.mm, va);
        let usable = entry.present() && (!access.is_write() || (entry.writable() && entry.dirty()));
        usable.then(|| Found {
            pfn: entry.pfn(),
            generation: self.kernel.generation(entry.pfn()),
        })
    }

    /// `non_atomic_pte_lookup`: the reference is given back at once.
    async fn non_atomic_pte_lookup(&self, cx: &Cx, va: Va, access: Access) -> Result<Found, Refused> {
        self.st().metrics.slow_walks += 1;
        let page = self.kernel.get_user_page(cx, self.mm, va, access).await?;
        let generation = self.kernel.generation(page.pfn);
        self.kernel.put_page(cx, page.pfn).await;
        Ok(Found {
            pfn: page.pfn,
            generation,
        })
    }

    /// `tfh_write_restart`, and what the hardware makes of it.
    fn write_restart(&self, cx: &Cx, handle: FaultHandle, found: &Found) {
        let mut st = self.st();
        st.metrics.dropin += 1;
        let c = &mut st.chiplets[handle.chiplet as usize];
        let crossed = c.purges != handle.purges && self.config.dropin_cancel == DropinCancel::On;
        let args = [
            u64::from(found.pfn.get()),
            u64::from(found.generation.get()),
            handle.va.get(),
        ];
        if crossed || c.asid != Some(handle.asid) {
            st.metrics.dropin_ignored += 1;
            cx.mark(&IGNORED, args);
            return;
        }
        let write = handle.access.is_write();
        let entry = if write {
            TlbEntry::new(found.pfn, Rights::USER_WRITE, found.generation).with_dirty()
        } else {
            TlbEntry::new(found.pfn, Rights::USER_READ, found.generation)
        };
        c.tlb
            .fill(handle.asid, handle.va.vpn(), entry, &mut self.unmapped());
        let live = c.tlb.live() as u64;
        self.kernel.secondary_mapped(found.pfn);
        self.kernel
            .check_secondary_map(cx, self.mm, handle.va, &self.config.name);
        st.metrics.live_entries_max = st.metrics.live_entries_max.max(live);
        cx.mark(&DROPPED_IN, args);
    }
}
