//! Loading and unloading contexts, and the identifier that goes with them.
//!
//! Follows `gru_load_context`, `gru_load_mm_tracker`, `gru_unload_context`, `gru_unload_mm_tracker` of
//! grumain.c, 2.6.28 (secondary-mmus 2.5, 2.6). All contexts of an address space on a chiplet share one
//! identifier. It may be kept from an earlier load, because an invalidation that found no loaded context
//! took it away. Locks: `ts_ctxlock`, then `ms_asid_lock`, then `gs_asid_lock`, then the purge handle if
//! the identifiers wrap.

use mm::account::FAULT_GRU;
use sim::{Action, Cx, LockId, Object};

use crate::asid::{Assigned, GruAsid};
use crate::costs::{CONTEXT_HANDLE, CONTEXTS_PER_CHIPLET, PURGE};
use crate::{Gru, Life, STEP_OBJECT};

impl Gru {
    /// Loads a context of the running thread on a chiplet. After [`Gru::destroy`] this does nothing.
    ///
    /// A chiplet holds 16 contexts; a further one makes another context of the address space leave,
    /// whose own unloading later finds nothing to do.
    pub async fn load_context(&self, cx: &Cx, chiplet: u32) {
        let _span = cx.span("gru_load_context");
        let _context = cx.lock(self.ctxlock(cx, chiplet)).await;
        self.load_locked(cx, chiplet).await;
    }

    /// `gru_fault`: the first touch of a segment whose context is not loaded; others may have loaded one
    /// meanwhile.
    pub(crate) async fn segment_fault(&self, cx: &Cx, chiplet: u32) {
        let _span = cx.span("gru_fault");
        let _booking = cx.book_to(FAULT_GRU);
        cx.charge(FAULT_GRU, self.kernel.machine.costs.exception_entry_exit);
        let _context = cx.lock(self.ctxlock(cx, chiplet)).await;
        if self.contexts(chiplet) == 0 {
            self.load_locked(cx, chiplet).await;
        }
    }

    async fn load_locked(&self, cx: &Cx, chiplet: u32) {
        if self.st().life == Life::Destroyed {
            return;
        }
        cx.charge(FAULT_GRU, CONTEXT_HANDLE.on(&self.kernel.machine));
        let _asids = cx.lock(self.locks.ms_asid_lock).await;
        // Somebody may have closed the last segment meanwhile.
        if self.st().life == Life::Destroyed {
            return;
        }
        self.load_mm_tracker(cx, chiplet).await;
        let mut st = self.st();
        let c = &mut st.chiplets[chiplet as usize];
        let full = c.contexts == CONTEXTS_PER_CHIPLET;
        if full {
            c.stolen += 1;
        } else {
            c.contexts += 1;
        }
        st.metrics.context_loads += 1;
        st.metrics.context_steals += u64::from(full);
    }

    /// `gru_load_mm_tracker`; the caller holds `ms_asid_lock`.
    async fn load_mm_tracker(&self, cx: &Cx, chiplet: u32) {
        let usable = {
            let st = self.st();
            let c = &st.chiplets[chiplet as usize];
            c.asid.is_some() && c.generation == c.asids.generation()
        };
        if usable {
            self.st().metrics.asid_reuse += 1;
            return;
        }
        let asid = self.assign_asid(cx, chiplet).await;
        let mut st = self.st();
        st.metrics.asid_new += 1;
        let c = &mut st.chiplets[chiplet as usize];
        c.asid = Some(asid);
        c.generation = c.asids.generation();
        c.purges += 1;
    }

    /// `gru_assign_asid`.
    async fn assign_asid(&self, cx: &Cx, chiplet: u32) -> GruAsid {
        let _space = cx.lock(self.locks.gs_asid_locks[chiplet as usize]).await;
        let assigned = self.st().chiplets[chiplet as usize].asids.assign();
        match assigned {
            Assigned::Next(asid) => asid,
            Assigned::Wrapped(asid) => {
                self.flush_all_tlb(cx, chiplet).await;
                asid
            }
        }
    }

    /// `gru_flush_all_tlb`: everything in the chiplet, whoever it belongs to.
    async fn flush_all_tlb(&self, cx: &Cx, chiplet: u32) {
        let _span = cx.span("gru_flush_all_tlb");
        let _handle = cx.lock(self.locks.tgh_locks[chiplet as usize]).await;
        cx.charge(FAULT_GRU, PURGE.on(&self.kernel.machine));
        cx.step(Object::Other(STEP_OBJECT, u64::from(chiplet)), Action::Write)
            .await;
        let mut st = self.st();
        let c = &mut st.chiplets[chiplet as usize];
        c.purges += 1;
        let entries = c.tlb.purge_all(&mut self.unmapped());
        st.metrics.asid_wraps += 1;
        st.metrics.purges += 1;
        st.metrics.purged_entries += entries;
    }

    /// Unloads a context of the address space from a chiplet; the identifier stays until the next
    /// invalidation. Without a loaded context this does nothing.
    pub async fn unload_context(&self, cx: &Cx, chiplet: u32) {
        let _span = cx.span("gru_unload_context");
        let _context = cx.lock(self.ctxlock(cx, chiplet)).await;
        self.unload_locked(cx, chiplet).await;
    }

    async fn unload_locked(&self, cx: &Cx, chiplet: u32) {
        // Interrupts the context and waits until its instructions have stopped (`cch_interrupt_sync`).
        cx.charge(FAULT_GRU, CONTEXT_HANDLE.on(&self.kernel.machine));
        let _asids = cx.lock(self.locks.ms_asid_lock).await;
        let mut st = self.st();
        let c = &mut st.chiplets[chiplet as usize];
        if c.stolen > 0 {
            c.stolen -= 1;
        } else if c.contexts > 0 {
            c.contexts -= 1;
            st.metrics.context_unloads += 1;
        }
    }

    /// Unloads all contexts and gives up the identifiers for good: what closing the last segment of a
    /// process does (`gru_vma_close`). Nothing in a chiplet can be used afterwards; accesses are
    /// refused. Unregistering is the caller's.
    pub async fn destroy(&self, cx: &Cx) {
        let _span = cx.span("gru_vma_close");
        self.st().life = Life::Destroyed;
        for chiplet in 0..self.config.chiplets {
            let _context = cx.lock(self.ctxlock(cx, chiplet)).await;
            while self.contexts(chiplet) > 0 {
                self.unload_locked(cx, chiplet).await;
            }
            let _asids = cx.lock(self.locks.ms_asid_lock).await;
            self.st().chiplets[chiplet as usize].forget_asid(&mut self.unmapped());
        }
    }

    /// `ts_ctxlock` of the running thread's state on a chiplet.
    pub(crate) fn ctxlock(&self, cx: &Cx, chiplet: u32) -> LockId {
        let class = self.locks.ts_ctxlock;
        *self
            .st()
            .ctxlocks
            .entry((cx.task(), chiplet))
            .or_insert_with(|| cx.engine().new_lock(class))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use mm::notifier::Design;
    use mm::{Backing, Kernel, KernelProfile, KernelSpec, MapRequest, MmId, Prot, Sharing, World};
    use sim::{Affinity, CpuId, Cycles, End, Engine, EngineConfig, Role, Schedule, Seeded, TaskSpec};
    use x86::{Access, Machine, Pgoff, Va};

    use crate::{DropinCancel, Gru, GruConfig, MissMode};

    struct Setup {
        engine: Rc<Engine>,
        world: Rc<World>,
        kernel: Rc<Kernel>,
        mm: MmId,
        gru: Rc<Gru>,
    }

    /// A machine with `cpus` CPUs and one chiplet, and a process whose GRU is not registered yet.
    fn setup(cpus: u16) -> Setup {
        let engine = Engine::new(
            EngineConfig::without_costs(cpus),
            Schedule::Timed(Box::new(Seeded::new(1))),
        );
        let machine = Rc::new(Machine::preset("harpertown-2008").expect("a preset"));
        let world = World::new(Rc::clone(&engine), machine);
        let kernel = world.add_kernel(KernelSpec {
            name: "host".into(),
            profile: KernelProfile::LINUX_2_6_27,
            design: Design::V8,
            first_cpu: CpuId::new(0),
            cpus: cpus.into(),
        });
        let mm = kernel.new_mm("job".into());
        let config = GruConfig {
            name: "gru0".into(),
            chiplets: 1,
            miss: MissMode::Interrupt,
            dropin_cancel: DropinCancel::On,
        };
        let gru = Gru::new(&kernel, mm, config);
        Setup {
            engine,
            world,
            kernel,
            mm,
            gru,
        }
    }

    fn on(cpu: u16, name: &str) -> TaskSpec {
        TaskSpec {
            name: name.into(),
            cpu: CpuId::new(cpu),
            affinity: Affinity::Pinned,
            role: Role::Worker,
        }
    }

    #[test]
    fn a_load_that_waited_for_the_destruction_loads_nothing() {
        let s = setup(2);
        let g = Rc::clone(&s.gru);
        s.engine
            .spawn(on(0, "loader"), |cx| async move { g.load_context(&cx, 0).await });
        let g = Rc::clone(&s.gru);
        s.engine.spawn(on(1, "closer"), |cx| async move {
            // The loader has begun by then.
            cx.sleep(Cycles::new(1)).await;
            g.destroy(&cx).await;
        });
        assert_eq!(s.engine.run(), End::Completed);
        assert_eq!((s.gru.contexts(0), s.gru.asid(0)), (0, None));
    }

    /// secondary-mmus R-G7: the chiplet is purged before identifiers are used again.
    #[test]
    fn a_wrap_purges_the_chiplet_and_starts_a_generation() {
        const AT: Va = Va::new(0x7f40_0000_0000);
        let Setup {
            engine,
            world,
            kernel,
            mm,
            gru,
        } = setup(1);
        let (k, g) = (Rc::clone(&kernel), Rc::clone(&gru));
        let task = engine.spawn(on(0, "main"), |cx| async move {
            k.mmu_notifier_register(&cx, mm, g.clone()).await;
            let request = MapRequest {
                at: Some(AT),
                pages: 1,
                backing: Backing::Anonymous,
                pgoff: Pgoff::new(0),
                sharing: Sharing::Private,
                prot: Prot::READ_WRITE,
                flags: mm::MapFlags::NONE,
            };
            let mapped = k.sys_mmap(&cx, mm, request).await.expect("free");
            g.access(&cx, 0, AT, Access::Write).await.expect("mapped");
            let first = g.asid(0);
            g.unload_context(&cx, 0).await;
            k.madvise_dontneed(&cx, mm, mapped).await.expect("mapped");
            assert_eq!(g.asid(0), None);
            g.st().chiplets[0].asids.exhaust();
            g.access(&cx, 0, AT, Access::Write).await.expect("mapped");
            assert_eq!(g.asid(0), first, "numbers start again");
            let m = g.metrics();
            assert_eq!((m.asid_wraps, m.purges, m.asid_new, m.misses), (1, 1, 2, 2));
            g.destroy(&cx).await;
        });
        kernel.set_task_mm(task, Some(mm));
        assert_eq!(engine.run(), End::Completed);
        assert_eq!(world.audit(), Vec::<String>::new());
    }
}
