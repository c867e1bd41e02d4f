//! A world for tests: one kernel, one address space, one GRU.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part of it"
)]

use std::future::Future;
use std::rc::Rc;

use gru::{DropinCancel, Gru, GruConfig, MissMode};
use mm::notifier::Design;
use mm::{Backing, Kernel, KernelProfile, KernelSpec, MapRequest, MmId, Prot, Sharing, World};
use sim::{
    Affinity, Chooser, CpuId, Cx, Cycles, Engine, EngineConfig, KernelPreemption, Role, Schedule, Seeded,
    TaskSpec,
};
use x86::{Access, Machine, Pgoff, Va, VaRange};

pub const BASE: Va = Va::new(0x7f40_0000_0000);
const CPUS: u32 = 4;
/// No test needs as many; a livelock ends here.
const MOST_EVENTS: u64 = 1_000_000;

pub struct Bench {
    pub engine: Rc<Engine>,
    pub world: Rc<World>,
    pub kernel: Rc<Kernel>,
    pub mm: MmId,
    pub gru: Rc<Gru>,
}

pub struct Setup {
    pub design: Design,
    pub chiplets: u32,
    pub miss: MissMode,
    pub dropin_cancel: DropinCancel,
}

impl Setup {
    pub fn v8() -> Setup {
        Setup {
            design: Design::V8,
            chiplets: 3,
            miss: MissMode::Interrupt,
            dropin_cancel: DropinCancel::On,
        }
    }

    pub fn timed(self) -> Bench {
        self.build(Schedule::Timed(Box::new(Seeded::new(1))), Cycles::NEVER)
    }

    /// Kernel code is preempted when its task has used up a time slice and another one waits.
    pub fn preemptible(self, slice: Cycles) -> Bench {
        self.build(Schedule::Timed(Box::new(Seeded::new(1))), slice)
    }

    pub fn explored(self, chooser: impl Chooser + 'static) -> Bench {
        self.build(Schedule::Explored(Box::new(chooser)), Cycles::NEVER)
    }

    fn build(self, schedule: Schedule, slice: Cycles) -> Bench {
        let mut config = EngineConfig::without_costs(CPUS as u16);
        config.max_events = MOST_EVENTS;
        let mut profile = KernelProfile::LINUX_2_6_27;
        if slice < Cycles::NEVER {
            profile.preemption = KernelPreemption::Full;
            config.preemption = KernelPreemption::Full;
            config.time_slice = slice;
        }
        let engine = Engine::new(config, schedule);
        let machine = Rc::new(Machine::preset("harpertown-2008").expect("a preset"));
        let world = World::new(Rc::clone(&engine), machine);
        let kernel = world.add_kernel(KernelSpec {
            name: "host".into(),
            profile,
            design: self.design,
            first_cpu: CpuId::new(0),
            cpus: CPUS,
        });
        let mm = kernel.new_mm("job".into());
        let config = GruConfig {
            name: "gru0".into(),
            chiplets: self.chiplets,
            miss: self.miss,
            dropin_cancel: self.dropin_cancel,
        };
        let gru = Gru::new(&kernel, mm, config);
        Bench {
            engine,
            world,
            kernel,
            mm,
            gru,
        }
    }
}

impl Bench {
    /// A task that the run waits for.
    pub fn thread<F: Future<Output = ()> + 'static>(
        &self,
        name: &str,
        cpu: u32,
        mm: Option<MmId>,
        body: impl FnOnce(Cx, Rc<Kernel>, Rc<Gru>) -> F,
    ) {
        let spec = TaskSpec {
            name: name.into(),
            cpu: self.kernel.cpu(cpu),
            affinity: Affinity::Pinned,
            role: Role::Worker,
        };
        let (kernel, gru) = (Rc::clone(&self.kernel), Rc::clone(&self.gru));
        let task = self.engine.spawn(spec, |cx| body(cx, kernel, gru));
        self.kernel.set_task_mm(task, mm);
    }

    /// The only task of a run.
    pub fn run<F: Future<Output = ()> + 'static>(
        &self,
        body: impl FnOnce(Cx, Rc<Kernel>, Rc<Gru>) -> F,
    ) -> sim::End {
        self.thread("main", 0, Some(self.mm), body);
        self.engine.run()
    }

    /// Books that do not balance, the GRU's included.
    pub fn audit(&self) -> Vec<String> {
        let mut wrong = self.world.audit();
        let live: usize = (0..self.gru.config().chiplets)
            .map(|c| self.gru.live_entries(c))
            .sum();
        let frames = self.world.frames();
        let usable: u32 = frames.iter().map(|(pfn, _)| frames.secondary(pfn).usable).sum();
        let pinned = frames.pinned().1;
        drop(frames);
        if live != usable as usize {
            wrong.push(format!("{live} live GRU entries, but {usable} counted"));
        }
        if pinned != 0 {
            wrong.push(format!("{pinned} pages were pinned"));
        }
        wrong
    }
}

pub fn anonymous(pages: u64) -> MapRequest {
    MapRequest {
        at: Some(BASE),
        pages,
        backing: Backing::Anonymous,
        pgoff: Pgoff::new(0),
        sharing: Sharing::Private,
        prot: Prot::READ_WRITE,
        flags: mm::MapFlags::NONE,
    }
}

pub fn shared_file(pages: u64, file: mm::FileId) -> MapRequest {
    MapRequest {
        backing: Backing::File(file),
        sharing: Sharing::Shared,
        ..anonymous(pages)
    }
}

pub fn range(pages: u64) -> VaRange {
    VaRange::from_pages(BASE, pages).expect("not empty")
}

/// Registers the GRU, maps anonymous memory and writes it on the host.
pub async fn prepare(cx: &Cx, k: &Kernel, gru: &Rc<Gru>, pages: u64) {
    k.mmu_notifier_register(cx, gru.mm(), gru.clone()).await;
    k.sys_mmap(cx, gru.mm(), anonymous(pages))
        .await
        .expect("a free place");
    for vpn in range(pages).vpns() {
        k.access(cx, gru.mm(), vpn.va(), Access::Write)
            .await
            .expect("mapped");
    }
}

/// The GRU touches every page from a chiplet.
pub async fn touch(cx: &Cx, gru: &Gru, chiplet: u32, pages: u64, access: Access) {
    for vpn in range(pages).vpns() {
        gru.access(cx, chiplet, vpn.va(), access).await.expect("mapped");
    }
}
