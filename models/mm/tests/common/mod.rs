//! A world for tests: one kernel, one address space, busy CPUs.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part of it"
)]

pub mod huge;
pub mod mappers;
pub mod nonlinear;
pub mod probe;
pub mod scribe;

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use mm::notifier::{CallbackFuture, Design, MmuKind, Subscriber};
use mm::{
    Backing, Kernel, KernelPreemption, KernelProfile, KernelSpec, MapRequest, MmId, Prot, Sharing, World,
};
use sim::{
    Account, Action, Affinity, CpuId, Cx, Cycles, End, Engine, EngineConfig, Object, Role, Schedule, Seeded,
    TaskSpec,
};
use x86::{Access, Context, Lookup, Machine, Pfn, Pgoff, Va, VaRange};

/// Where tests put their mapping: aligned to a PMD table's span, so that far neighbours at
/// [`FAR_BELOW`] and [`FAR_ABOVE`] share its PUD table but nothing below.
pub const BASE: Va = Va::new(0x7f40_0000_0000);
/// A neighbour 4 GiB below.
pub const FAR_BELOW: Va = Va::new(0x7f3f_0000_0000);
/// A neighbour 4 GiB above.
pub const FAR_ABOVE: Va = Va::new(0x7f41_0000_0000);

/// Account of busy loops.
pub const BUSY: Account = mm::account::USER;

pub struct Bench {
    pub engine: Rc<Engine>,
    pub world: Rc<World>,
    pub kernel: Rc<Kernel>,
    pub mm: MmId,
    stop: Rc<Cell<bool>>,
}

#[derive(Clone)]
pub struct Setup {
    pub profile: KernelProfile,
    pub design: Design,
    pub cpus: u32,
}

impl Setup {
    pub fn linux_2_6_27() -> Setup {
        Setup {
            profile: KernelProfile::LINUX_2_6_27,
            design: Design::V8,
            cpus: 8,
        }
    }

    pub fn preempt(mut self, preemption: KernelPreemption) -> Setup {
        self.profile.preemption = preemption;
        self
    }

    pub fn design(mut self, design: Design) -> Setup {
        self.profile = KernelProfile::by_name(design.profile)
            .expect("a design names its profile")
            .clone();
        self.design = design;
        self
    }

    pub fn build(self) -> Bench {
        self.build_with(Schedule::Timed(Box::new(Seeded::new(1))))
    }

    pub fn build_with(self, schedule: Schedule) -> Bench {
        let mut config = EngineConfig::without_costs(self.cpus as u16);
        config.preemption = self.profile.preemption;
        config.max_events = 3_000_000;
        config.preempt_limit = mm::profile::PREEMPT_COUNT_LIMIT;
        let engine = Engine::new(config, schedule);
        let machine = Rc::new(Machine::preset("harpertown-2008").expect("a preset"));
        let world = World::new(Rc::clone(&engine), machine);
        let kernel = world.add_kernel(KernelSpec {
            name: "host".into(),
            profile: self.profile,
            design: self.design,
            first_cpu: CpuId::new(0),
            cpus: self.cpus,
        });
        let mm = kernel.new_mm("job".into());
        Bench {
            engine,
            world,
            kernel,
            mm,
            stop: Rc::default(),
        }
    }
}

impl Bench {
    /// A task of the address space that the run waits for.
    pub fn thread<F: Future<Output = ()> + 'static>(
        &self,
        cpu: u32,
        mm: Option<MmId>,
        body: impl FnOnce(Cx, Rc<Kernel>) -> F,
    ) -> sim::TaskId {
        let spec = TaskSpec {
            name: format!("thread{cpu}").into(),
            cpu: self.kernel.cpu(cpu),
            affinity: Affinity::Pinned,
            role: Role::Worker,
        };
        let kernel = Rc::clone(&self.kernel);
        let task = self.engine.spawn(spec, |cx| body(cx, kernel));
        self.kernel.set_task_mm(task, mm);
        task
    }

    /// Keeps CPUs `1..cpus` busy in user mode of `mm` until the work is done.
    pub fn busy(&self, cpus: u32, mm: MmId) {
        for cpu in 1..cpus {
            let stop = Rc::clone(&self.stop);
            self.thread(cpu, Some(mm), move |cx, _| async move {
                while !stop.get() {
                    cx.charge(BUSY, Cycles::new(2_000));
                    cx.step(Object::None, Action::Run).await;
                }
            });
        }
    }

    /// Runs `work` on CPU 0 in the address space while the busy CPUs spin, and ends them afterwards.
    pub fn work<F: Future<Output = ()> + 'static>(
        &self,
        body: impl FnOnce(Cx, Rc<Kernel>) -> F + 'static,
    ) -> End {
        let stop = Rc::clone(&self.stop);
        self.thread(0, Some(self.mm), move |cx, k| async move {
            // Lets the busy threads get onto their CPUs.
            cx.charge(BUSY, Cycles::new(10_000));
            cx.step(Object::None, Action::Run).await;
            let inner = cx.clone();
            body(inner, k).await;
            stop.set(true);
        });
        self.engine.run()
    }
}

pub fn anonymous(at: Va, pages: u64) -> MapRequest {
    MapRequest {
        at: Some(at),
        pages,
        backing: Backing::Anonymous,
        pgoff: Pgoff::new(0),
        sharing: Sharing::Private,
        prot: Prot::READ_WRITE,
        flags: mm::MapFlags::NONE,
    }
}

pub fn shared_file(at: Va, pages: u64, file: mm::FileId) -> MapRequest {
    MapRequest {
        backing: Backing::File(file),
        sharing: Sharing::Shared,
        ..anonymous(at, pages)
    }
}

pub fn range(at: Va, pages: u64) -> VaRange {
    VaRange::from_pages(at, pages).expect("not empty")
}

/// Maps the far neighbours and touches one page of each.
pub async fn far_neighbours(cx: &Cx, k: &Kernel, mm: MmId) {
    for at in [FAR_BELOW, FAR_ABOVE] {
        k.sys_mmap(cx, mm, anonymous(at, 1)).await.expect("a free place");
        k.access(cx, mm, at, Access::Write).await.expect("mapped");
    }
}

/// Touches every page of a range.
pub async fn touch(cx: &Cx, k: &Kernel, mm: MmId, r: VaRange, access: Access) {
    for vpn in r.vpns() {
        k.access(cx, mm, vpn.va(), access).await.expect("mapped");
    }
}

/// A subscriber that counts what it is told and may be slow to release.
#[derive(Default)]
pub struct Listener {
    pub pages: Cell<u32>,
    pub starts: Cell<u32>,
    pub ends: Cell<u32>,
    pub blocks: Cell<u32>,
    pub releases: Cell<u32>,
    pub releasing: Cell<u32>,
    pub slow: u64,
}

fn count(cell: &Cell<u32>) -> CallbackFuture<'static> {
    cell.set(cell.get() + 1);
    Box::pin(async {})
}

impl Subscriber for Listener {
    fn name(&self) -> Rc<str> {
        "listener".into()
    }

    fn kind(&self) -> MmuKind {
        MmuKind::Device
    }

    fn invalidate_page<'a>(&'a self, _: &'a Cx, _: Va) -> CallbackFuture<'a> {
        count(&self.pages)
    }

    fn invalidate_range_start<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        count(&self.starts)
    }

    fn invalidate_range_end<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        count(&self.ends)
    }

    fn invalidate_pages<'a>(&'a self, _: &'a Cx, _: VaRange) -> CallbackFuture<'a> {
        count(&self.blocks)
    }

    fn release<'a>(&'a self, cx: &'a Cx) -> CallbackFuture<'a> {
        const STEPS: u64 = 10;
        Box::pin(async move {
            self.releases.set(self.releases.get() + 1);
            self.releasing.set(self.releasing.get() + 1);
            for _ in 0..STEPS {
                wait(cx, self.slow / STEPS).await;
            }
            self.releasing.set(self.releasing.get() - 1);
        })
    }

    fn reaches(&self, _: Pfn) -> bool {
        false
    }
}

/// Computes for some cycles and lets everything earlier happen.
pub async fn wait(cx: &Cx, cycles: u64) {
    cx.charge(BUSY, Cycles::new(cycles));
    cx.step(Object::None, Action::Run).await;
}

/// The frame that the running CPU's TLB leads to: the one an access just used.
pub fn cached_frame(k: &Kernel, cx: &Cx, va: Va) -> Pfn {
    let cpu = k.local(cx.cpu());
    match k.st().cpus[cpu]
        .tlb
        .lookup(Access::Read, Context::UNTAGGED, va.vpn())
    {
        Lookup::Hit1(entry) | Lookup::Hit2(entry) => entry.pfn,
        Lookup::Miss => panic!("{va} was accessed just now"),
    }
}
