//! TLB flushing of x86-64, 2.6.25 to 2.6.27.
//!
//! Follows arch/x86/kernel/tlb_64.c and include/asm-x86/{tlbflush,mmu_context_64}.h of 2.6.27, as told in
//! host-mm-paths C.1 and C.4. There is no PCID: every CR3 write drops all non-global entries, and it as well
//! as INVLPG empties the paging-structure caches (hardware-costs R1, R5). A CPU's bit in `cpu_vm_mask` says
//! that it may hold translations of the address space; a CPU that merely still has the page table loaded (a
//! kernel thread, the idle loop) is lazy: it is interrupted once, then leaves the address space and is not
//! interrupted again.
//!
//! The sender publishes its request in a slot (CPU number modulo 8) under the slot's spinlock and
//! spins until all targets have cleared their bit, with preemption off and interrupts on. All of
//! this happens inside whatever locks the caller holds.

use sim::{Account, CpuId, CpuSet, Cx, Cycles, Interrupt, Mark, Scope, TaskId};
use x86::{ApicMode, Va, Vector};

use crate::account::TLB_FLUSH;
use crate::kernel::{CpuMode, Kernel, State, TlbState};
use crate::mm::MmId;

/// `TLB_FLUSH_ALL`: the request is for the whole address space.
const TLB_FLUSH_ALL: u64 = u64::MAX;

static FLUSH_MM: Mark = Mark {
    name: "flush_tlb_mm",
    args: ["mm", "targets", ""],
    scope: Scope::Global,
};
static FLUSH_PAGE: Mark = Mark {
    name: "flush_tlb_page",
    args: ["mm", "va", "targets"],
    scope: Scope::Global,
};
static INVALIDATE: Mark = Mark {
    name: "smp_invalidate_interrupt",
    args: ["mm", "va", ""],
    scope: Scope::Global,
};
static SWITCH_MM: Mark = Mark {
    name: "switch_mm",
    args: ["mm", "", ""],
    scope: Scope::Object,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    All,
    Page(Va),
}

impl Kernel {
    /// `flush_tlb_mm`; also what `flush_tlb_range` does, the range being ignored.
    pub async fn flush_tlb_mm(&self, cx: &Cx, mm: MmId) {
        let _span = cx.span("flush_tlb_mm");
        let _off = cx.preempt_disable();
        self.st().metrics.flush_mm += 1;
        let others = self.flush_here(cx, mm, Request::All);
        cx.mark(&FLUSH_MM, [u64::from(mm.0), u64::from(others.len()), 0]);
        self.flush_tlb_others(cx, others, mm, Request::All).await;
    }

    /// `flush_tlb_page`.
    pub async fn flush_tlb_page(&self, cx: &Cx, mm: MmId, va: Va) {
        let _span = cx.span("flush_tlb_page");
        let _off = cx.preempt_disable();
        self.st().metrics.flush_page += 1;
        let others = self.flush_here(cx, mm, Request::Page(va));
        cx.mark(&FLUSH_PAGE, [u64::from(mm.0), va.get(), u64::from(others.len())]);
        self.flush_tlb_others(cx, others, mm, Request::Page(va)).await;
    }

    /// The initiator's own part. Returns the other CPUs of the mask.
    fn flush_here(&self, cx: &Cx, mm: MmId, request: Request) -> CpuSet {
        let cpu = cx.cpu();
        let others = self.st().mm(mm).cpu_vm_mask.without(cpu);
        let has_mm = self.task_mm(cx.task()).is_some();
        let mut st = self.st();
        let st = &mut *st;
        if st.cpus[self.local(cpu)].active_mm != Some(mm) {
            return others;
        }
        st.metrics.flush_local += 1;
        if !has_mm {
            cx.charge(TLB_FLUSH, self.leave_mm(st, cpu));
            return others;
        }
        let mut frames = self.frames();
        let state = &mut st.cpus[self.local(cpu)];
        match request {
            Request::All => {
                state.flush_all(&mut frames);
                st.metrics.local_cr3 += 1;
                cx.charge(TLB_FLUSH, self.machine.costs.cr3_reload);
            }
            Request::Page(va) => {
                state.flush_one(&mut frames, va);
                st.metrics.local_invlpg += 1;
                cx.charge(TLB_FLUSH, self.machine.costs.invlpg);
            }
        }
        others
    }

    /// `flush_tlb_others`: slot lock, interrupts, wait.
    async fn flush_tlb_others(&self, cx: &Cx, targets: CpuSet, mm: MmId, request: Request) {
        if targets.is_empty() {
            return;
        }
        let _span = cx.span("flush_tlb_others");
        // Slots and vectors go by the CPU number within the kernel.
        let sender = CpuId::new(self.local(cx.cpu()) as u16);
        let _slot = cx.lock(self.locks.tlb_slots[Vector::sender_slot(sender)]).await;
        let icr_writes = ApicMode::for_cpus(self.nr_cpus()).icr_writes(targets.len());
        {
            let mut st = self.st();
            st.metrics.shootdown_rounds += 1;
            st.metrics.shootdown_ipis += u64::from(targets.len());
            st.metrics.icr_writes += u64::from(icr_writes);
        }
        cx.charge(TLB_FLUSH, self.machine.costs.icr_write * u64::from(icr_writes));
        let va = match request {
            Request::All => TLB_FLUSH_ALL,
            Request::Page(va) => va.get(),
        };
        let vector = Vector::invalidate_for(sender).get();
        cx.interrupt_and_wait(
            targets,
            Interrupt {
                vector,
                a: u64::from(mm.0),
                b: va,
            },
        )
        .await;
    }

    /// `smp_invalidate_interrupt`: the target's part. Returns what it costs up to the store that
    /// acknowledges.
    pub(crate) fn smp_invalidate_interrupt(&self, cpu: CpuId, interrupt: Interrupt) -> Cycles {
        let mm = MmId(interrupt.a as u32);
        self.engine.mark(cpu, &INVALIDATE, [interrupt.a, interrupt.b, 0]);
        let mut st = self.st();
        let st = &mut *st;
        let state = &mut st.cpus[self.local(cpu)];
        if state.active_mm != Some(mm) {
            return self.machine.costs.atomic_op;
        }
        if state.tlb_state == TlbState::Lazy {
            return self.leave_mm(st, cpu);
        }
        let mut frames = self.frames();
        if interrupt.b == TLB_FLUSH_ALL {
            state.flush_all(&mut frames);
            return self.machine.costs.cr3_reload;
        }
        state.flush_one(&mut frames, Va::new(interrupt.b));
        self.machine.costs.invlpg
    }

    /// `leave_mm`: load the kernel page table and leave the mask.
    fn leave_mm(&self, st: &mut State, cpu: CpuId) -> Cycles {
        st.metrics.leave_mm += 1;
        let state = &mut st.cpus[self.local(cpu)];
        state.flush_all(&mut self.frames());
        let left = state.active_mm;
        if let Some(mm) = left {
            st.mm_mut(mm).cpu_vm_mask.remove(cpu);
        }
        self.machine.costs.cr3_reload
    }

    /// `context_switch`'s part for address spaces: `switch_mm` or `enter_lazy_tlb`.
    pub(crate) fn switch_to(&self, cpu: CpuId, to: Option<TaskId>) -> Cycles {
        let next = to.and_then(|t| self.task_mm(t));
        let mut st = self.st();
        let st = &mut *st;
        let state = &mut st.cpus[self.local(cpu)];
        let Some(next) = next else {
            state.tlb_state = TlbState::Lazy;
            return Cycles::ZERO;
        };
        state.tlb_state = TlbState::Ok;
        if state.active_mm == Some(next) && st.mm(next).cpu_vm_mask.contains(cpu) {
            return Cycles::ZERO;
        }
        let state = &mut st.cpus[self.local(cpu)];
        let prev = state.active_mm.replace(next);
        state.flush_all(&mut self.frames());
        self.check_root(st, next);
        if let Some(prev) = prev {
            st.mm_mut(prev).cpu_vm_mask.remove(cpu);
        }
        st.mm_mut(next).cpu_vm_mask.insert(cpu);
        self.engine.mark(cpu, &SWITCH_MM, [u64::from(next.0), 0, 0]);
        self.machine.costs.cr3_reload
    }

    /// `enter_lazy_tlb` of the running task: it has no address space any more, but the page table stays
    /// loaded.
    pub(crate) fn enter_lazy_tlb(&self, cx: &Cx) {
        let cpu = self.local(cx.cpu());
        self.st().cpus[cpu].tlb_state = TlbState::Lazy;
    }

    /// `activate_mm` of the running task: exec, or the birth of a thread.
    pub fn activate_mm(&self, cx: &Cx, mm: MmId) {
        self.set_task_mm(cx.task(), Some(mm));
        let cost = self.switch_to(cx.cpu(), Some(cx.task()));
        cx.charge(Account::SCHED, cost);
    }

    /// What an interrupt costs its target before the handler: a VM exit if it runs a guest.
    pub(crate) fn interrupt_exit(&self, cpu: CpuId) -> Cycles {
        match self.st().cpus[self.local(cpu)].mode {
            CpuMode::Guest => self.machine.costs.vm_exit,
            CpuMode::Host => Cycles::ZERO,
        }
    }

    /// `smp_call_function_mask(mask, no-op, wait)`: makes CPUs leave guest mode.
    pub async fn kick_cpus(&self, cx: &Cx, targets: CpuSet) {
        let targets = targets.without(cx.cpu());
        if targets.is_empty() {
            return;
        }
        let _span = cx.span("smp_call_function_mask");
        let _off = cx.preempt_disable();
        let icr_writes = ApicMode::for_cpus(self.nr_cpus()).icr_writes(targets.len());
        cx.charge(TLB_FLUSH, self.machine.costs.icr_write * u64::from(icr_writes));
        let vector = crate::kernel::CALL_FUNCTION_VECTOR;
        cx.interrupt_and_wait(targets, Interrupt { vector, a: 0, b: 0 })
            .await;
    }

    /// Says what a CPU executes from now on.
    pub fn set_cpu_mode(&self, cpu: CpuId, mode: CpuMode) {
        let cpu = self.local(cpu);
        self.st().cpus[cpu].mode = mode;
    }
}
