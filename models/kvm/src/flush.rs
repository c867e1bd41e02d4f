//! The remote TLB flush.
//!
//! Follows `kvm_flush_remote_tlbs` of virt/kvm/kvm_main.c, 2.6.27 (secondary-mmus 1.6), inside
//! `get_cpu`; 2.6.32 holds `requests_lock` from the first bit to the last acknowledgement, so that
//! nobody passes over a vCPU whose interrupt is still on its way.

use std::rc::Rc;

use mm::Kernel;
use sim::{Action, CpuId, CpuSet, Cx, Mark, Scope};

use crate::vcpu::{FlushRequest, Mode};
use crate::vm::Kvm;
use crate::work;

static FLUSH: Mark = Mark {
    name: "kvm_flush_remote_tlbs",
    args: ["kicked", "passed_over", ""],
    scope: Scope::Global,
};

/// Whom a remote flush interrupts.
struct Kick {
    flush: u64,
    targets: CpuSet,
}

impl Kvm {
    /// `kvm_flush_remote_tlbs`.
    pub(crate) async fn flush_remote_tlbs(&self, cx: &Cx) {
        let _span = cx.span("kvm_flush_remote_tlbs");
        let kernel = self.kernel();
        let _serial = if self.config.version.serialises_requests() {
            Some(cx.lock(self.requests_lock).await)
        } else {
            None
        };
        let _off = cx.preempt_disable();
        cx.step(self.requests_object(), Action::Write).await;
        let kick = self.make_requests(cx, &kernel);
        if kick.targets.is_empty() {
            return;
        }
        kernel.kick_cpus(cx, kick.targets).await;
        self.kicked(&kernel, kick.flush);
    }

    /// Sets `KVM_REQ_TLB_FLUSH` everywhere. A vCPU outside the guest loses its TLB at once as far as
    /// anybody can tell, see the head of the crate.
    fn make_requests(&self, cx: &Cx, kernel: &Rc<Kernel>) -> Kick {
        let here = cx.cpu();
        let mut st = self.st();
        let st = &mut *st;
        st.metrics.flush_requests += 1;
        st.flushes += 1;
        let flush = st.flushes;
        let mut targets = CpuSet::EMPTY;
        let mut in_guest = CpuSet::EMPTY;
        let mut passed_over = 0;
        cx.charge(
            mm::account::TLB_FLUSH,
            self.machine.costs.atomic_op * st.vcpus.len() as u64,
        );
        kernel.touch_lines(cx, work::REQUEST * st.vcpus.len() as u64);
        for vcpu in &mut st.vcpus {
            if vcpu.request != FlushRequest::None {
                passed_over += 1;
                continue;
            }
            vcpu.request = FlushRequest::Pending(flush);
            let elsewhere = vcpu.cpu.filter(|cpu| *cpu != here);
            if let Some(cpu) = elsewhere {
                targets.insert(cpu);
            }
            match elsewhere {
                Some(cpu) if vcpu.mode == Mode::Guest => in_guest.insert(cpu),
                Some(_) | None => {
                    vcpu.drop_tlb(kernel);
                    // Its CPU executes this, so the guest has been left.
                    if vcpu.mode == Mode::Guest {
                        vcpu.mode = Mode::Kicked;
                    }
                }
            }
        }
        let outside = |cpu: &CpuId| !in_guest.contains(*cpu);
        st.metrics.flush_passed_over += passed_over;
        st.metrics.flush_kicks += u64::from(targets.len());
        st.metrics.flush_kicks_outside += targets.iter().filter(outside).count() as u64;
        st.metrics.flush_remote += u64::from(!targets.is_empty());
        cx.mark(&FLUSH, [u64::from(targets.len()), passed_over, 0]);
        Kick { flush, targets }
    }

    /// All CPUs have acknowledged: the vCPUs that this flush asked, and that have not entered again
    /// since, are out of the guest, and their TLBs with them.
    fn kicked(&self, kernel: &Rc<Kernel>, flush: u64) {
        let asked = FlushRequest::Pending(flush);
        for vcpu in self.st().vcpus.iter_mut().filter(|v| v.request == asked) {
            vcpu.drop_tlb(kernel);
            if vcpu.mode == Mode::Guest {
                vcpu.mode = Mode::Kicked;
            }
        }
    }
}
