//! vCPUs: entering and leaving the guest, and the guest's accesses.
//!
//! Follows `vcpu_enter_guest` of arch/x86/kvm/x86.c, 2.6.27 (secondary-mmus 1.6): requests are
//! consumed right before entry. While a task is in guest mode its CPU is marked so
//! ([`CpuMode::Guest`]), and an interrupt there costs a VM exit first. The price of an exit covers
//! the entry after it ([`x86::Costs::vm_exit`]); the very first entry is free.
//!
//! Guest mode lasts from one access to the next. Whoever drives a vCPU calls [`Kvm::exit`] before the
//! task does anything else that takes time, as any ioctl return would. The guest cannot be preempted
//! inside an access: where the host wants the CPU back, the vCPU leaves the guest first
//! (`need_resched` in `__vcpu_run`).
//!
//! A look-up is counted once an access; the instruction that restarts after a fault walks again but
//! is not another access, as on the host.

use std::rc::Rc;

use mm::account::{FAULT_KVM, TLB_FLUSH, USER, WALK};
use mm::{CpuMode, Frames, Kernel, Refused};
use sim::{Action, CpuId, Cx, Mark, Object, Scope};
use x86::psc::Psc;
use x86::walker::{HOST_LEVELS, nested_references, walk_cached};
use x86::{Access, Gfn, Lookup, PageSize, Pfn, Rules, Slots, Tlb, TlbEntry, Vpn, WalkOutcome};

use crate::config::Paging;
use crate::vm::{GUEST, Kvm, State, TlbTags};
use crate::work;

/// Levels of the guest's own page tables.
const GUEST_LEVELS: u32 = 4;

static VCPU_FLUSH: Mark = Mark {
    name: "kvm_x86_ops->tlb_flush",
    args: ["vcpu", "", ""],
    scope: Scope::Global,
};

/// Number of a vCPU in its virtual machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VcpuId(u32);

impl VcpuId {
    /// Index, for tables kept a vCPU.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a vCPU is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// In host code, or not running.
    Outside,
    /// In the guest.
    Guest,
    /// Forced out of the guest by a kick; the task has not noticed yet.
    Kicked,
}

/// `KVM_REQ_TLB_FLUSH`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FlushRequest {
    None,
    /// Set, by the remote flush of this number.
    Pending(u64),
}

/// `struct kvm_vcpu`.
pub(crate) struct Vcpu {
    pub(crate) name: Rc<str>,
    pub(crate) tlb: Tlb,
    /// Upper levels of the sptes that one-dimensional walks start from.
    pub(crate) psc: Psc,
    /// Last-known CPU.
    pub(crate) cpu: Option<CpuId>,
    pub(crate) mode: Mode,
    pub(crate) request: FlushRequest,
}

impl Vcpu {
    /// Empties the TLB, telling the oracle, and the paging-structure caches (hardware-costs R5 where
    /// there are no tags).
    pub(crate) fn drop_tlb(&mut self, kernel: &Kernel) {
        let mut frames = kernel.frames();
        self.tlb.flush_asid(GUEST.own, &mut Usable(&mut frames));
        self.psc.flush_all();
    }
}

/// Slots of vCPU TLBs are secondary translations that hold no reference.
struct Usable<'a>(&'a mut Frames);

impl Slots for Usable<'_> {
    #[inline]
    fn gained(&mut self, pfn: Pfn) {
        self.0.secondary_mut(pfn).usable += 1;
    }
    #[inline]
    fn dropped(&mut self, pfn: Pfn) {
        self.0.secondary_mut(pfn).usable -= 1;
    }
}

enum Walked {
    Mapped,
    Missing,
}

impl Kvm {
    /// A vCPU that has never run (`kvm_vm_ioctl_create_vcpu`). It runs on whatever CPU the task that
    /// drives it runs on; one task drives one vCPU.
    pub fn add_vcpu(&self) -> VcpuId {
        let mut st = self.st();
        let id = VcpuId(st.vcpus.len() as u32);
        st.vcpus.push(Vcpu {
            name: format!("{} vcpu{}", self.config.name, id.0).into(),
            tlb: Tlb::new(&self.machine.tlb),
            psc: Psc::new(&self.machine.psc),
            cpu: None,
            mode: Mode::Outside,
            request: FlushRequest::None,
        });
        id
    }

    /// Number of vCPUs.
    #[must_use]
    pub fn vcpus(&self) -> usize {
        self.st().vcpus.len()
    }

    /// One load or store of the guest.
    ///
    /// # Errors
    /// When no slot, mapping or page is behind the address; the kernel would emulate a device.
    #[inline]
    pub async fn access(&self, cx: &Cx, vcpu: VcpuId, gfn: Gfn, access: Access) -> Result<(), Refused> {
        if cx.must_sync() || self.st().vcpus[vcpu.index()].mode != Mode::Guest {
            self.stay_in_guest(cx, vcpu).await;
        }
        if self.try_tlb(cx, vcpu, gfn, access) {
            return Ok(());
        }
        self.access_slow(cx, vcpu, gfn, access).await
    }

    async fn access_slow(&self, cx: &Cx, vcpu: VcpuId, gfn: Gfn, access: Access) -> Result<(), Refused> {
        loop {
            if cx.must_sync() {
                let _guest = cx.preempt_disable();
                cx.step(self.sptes_object(), Action::Read).await;
            }
            if self.st().vcpus[vcpu.index()].mode != Mode::Guest {
                self.enter(cx, vcpu).await;
            }
            match self.try_walk(cx, vcpu, gfn, access) {
                Walked::Mapped => {
                    cx.charge(USER, self.machine.costs.cacheline_touch);
                    return Ok(());
                }
                Walked::Missing => {
                    self.exit(cx, vcpu);
                    self.page_fault(cx, gfn).await?;
                    self.enter(cx, vcpu).await;
                }
            }
        }
    }

    /// Lets everything earlier happen and makes sure that the vCPU is in the guest afterwards.
    async fn stay_in_guest(&self, cx: &Cx, vcpu: VcpuId) {
        if self.st().vcpus[vcpu.index()].mode != Mode::Outside {
            {
                let _guest = cx.preempt_disable();
                cx.step(Object::Cpu(cx.cpu().index() as u16), Action::Read).await;
            }
            if cx.need_resched() {
                self.exit(cx, vcpu);
            }
        }
        if self.st().vcpus[vcpu.index()].mode != Mode::Guest {
            self.enter(cx, vcpu).await;
        }
    }

    /// Guest entry: gives way if the host wants the CPU, then consumes a flush request and enters.
    /// An access does this by itself. Nothing happens to a vCPU that is in the guest.
    pub async fn enter(&self, cx: &Cx, vcpu: VcpuId) {
        if self.st().vcpus[vcpu.index()].mode == Mode::Guest {
            return;
        }
        let _span = cx.span("vcpu_enter_guest");
        cx.cond_resched().await;
        let _off = cx.preempt_disable();
        cx.step(self.requests_object(), Action::Write).await;
        let kernel = self.kernel();
        let cpu = cx.cpu();
        kernel.touch_lines(cx, work::ENTRY_CHECKS);
        let mut st = self.st();
        let st = &mut *st;
        let v = &mut st.vcpus[vcpu.index()];
        let moved = v.cpu.replace(cpu).is_some_and(|before| before != cpu);
        let requested = std::mem::replace(&mut v.request, FlushRequest::None) != FlushRequest::None;
        if moved || requested || self.tags == TlbTags::Untagged {
            v.drop_tlb(&kernel);
        }
        if moved || requested {
            cx.charge(TLB_FLUSH, self.machine.costs.vm_flush);
            cx.mark(&VCPU_FLUSH, [u64::from(vcpu.0), 0, 0]);
        }
        st.metrics.vcpu_flushes += u64::from(requested);
        v.mode = Mode::Guest;
        kernel.set_cpu_mode(cpu, CpuMode::Guest);
    }

    /// The vCPU leaves the guest by itself, for a fault or because the task has something else to do.
    /// Nothing happens to one that is outside.
    pub fn exit(&self, cx: &Cx, vcpu: VcpuId) {
        let before = {
            let mut st = self.st();
            let v = &mut st.vcpus[vcpu.index()];
            let before = std::mem::replace(&mut v.mode, Mode::Outside);
            st.metrics.exits += u64::from(before == Mode::Guest);
            before
        };
        if before == Mode::Outside {
            return;
        }
        self.kernel().set_cpu_mode(cx.cpu(), CpuMode::Host);
        // A kick has cost the exit already.
        if before == Mode::Guest {
            cx.charge(FAULT_KVM, self.machine.costs.vm_exit);
        }
    }

    #[inline]
    fn try_tlb(&self, cx: &Cx, vcpu: VcpuId, gfn: Gfn, access: Access) -> bool {
        let costs = &self.machine.costs;
        let vpn = Vpn::new(gfn.get());
        let entry = {
            let mut st = self.st();
            let v = &mut st.vcpus[vcpu.index()];
            match v.tlb.lookup(access, GUEST, vpn) {
                Lookup::Hit1(e) if Rules::USER.pass(access, &e) => e,
                Lookup::Hit2(e) if Rules::USER.pass(access, &e) => {
                    cx.charge(WALK, costs.tlb_l2_hit);
                    let kernel = self.kernel();
                    let mut frames = kernel.frames();
                    v.tlb.promote(access, GUEST, vpn, e, &mut Usable(&mut frames));
                    e
                }
                Lookup::Hit1(_) | Lookup::Hit2(_) | Lookup::Miss => return false,
            }
        };
        cx.charge(USER, costs.cacheline_touch);
        self.check_use(cx, vcpu, entry);
        true
    }

    /// The processor walks; a translation found goes into the TLB.
    fn try_walk(&self, cx: &Cx, vcpu: VcpuId, gfn: Gfn, access: Access) -> Walked {
        let kernel = self.kernel();
        let vpn = Vpn::new(gfn.get());
        let found = {
            let mut st = self.st();
            let st: &mut State = &mut st;
            let v = &mut st.vcpus[vcpu.index()];
            let (walk, references) = match self.config.paging {
                Paging::Tdp => (
                    x86::walk(&mut st.tables, st.root, vpn, access),
                    nested_references(GUEST_LEVELS, HOST_LEVELS),
                ),
                Paging::Direct => {
                    let (psc, rules) = (&mut v.psc, &Rules::USER);
                    let walk = walk_cached(
                        &mut st.tables,
                        psc,
                        GUEST.own,
                        st.root,
                        vpn,
                        access,
                        rules,
                        |_, _| {},
                    );
                    (walk, walk.references)
                }
            };
            st.metrics.walk_references += u64::from(references);
            cx.charge(WALK, x86::walk_cost(&self.machine.costs, references));
            let mut frames = kernel.frames();
            let mut usable = Usable(&mut frames);
            match walk.outcome {
                WalkOutcome::NotPresent { .. }
                | WalkOutcome::Reserved { .. }
                | WalkOutcome::Protection { .. } => {
                    v.tlb.invalidate_page(GUEST.own, vpn, &mut usable);
                    v.psc.invalidate_page(GUEST.own, vpn);
                    None
                }
                WalkOutcome::Leaf { entry, .. } => {
                    let rmap = st.slots.rmap(gfn).and_then(|r| *r);
                    let generation = rmap.expect("a present spte is in its rmap").generation;
                    let filled = TlbEntry::of_leaf(entry, PageSize::Size4K, generation);
                    v.tlb.fill(access, GUEST, vpn, filled, &mut usable);
                    Some(filled)
                }
            }
        };
        let Some(filled) = found else {
            return Walked::Missing;
        };
        self.check_use(cx, vcpu, filled);
        Walked::Mapped
    }

    #[inline]
    fn check_use(&self, cx: &Cx, vcpu: VcpuId, entry: TlbEntry) {
        let kernel = self.kernel();
        if kernel.generation(entry.pfn) != entry.generation {
            let name = Rc::clone(&self.st().vcpus[vcpu.index()].name);
            kernel.check_use(cx, entry.pfn, entry.generation, &name);
        }
    }
}
