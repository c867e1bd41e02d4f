//! A world for tests: one kernel on a machine with nested paging, one guest on one mapping.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part of it"
)]

use std::future::Future;
use std::rc::Rc;

use kvm::{Kvm, KvmConfig, KvmMetrics, MemSlot, Notified, Paging, UnpinOrder, VcpuId, Version};
use mm::notifier::Design;
use mm::{Backing, Kernel, KernelProfile, KernelSpec, MapRequest, MmId, MmMetrics, Prot, Sharing, World};
use sim::{
    Affinity, Chooser, CpuId, Cx, Cycles, End, Engine, EngineConfig, Role, Schedule, Seeded, TaskId, TaskSpec,
};
use x86::{Access, Gfn, Machine, Pgoff, Va, VaRange};

pub const BASE: Va = Va::new(0x7f40_0000_0000);
pub const FIRST_GFN: Gfn = Gfn::new(0x100);

#[derive(Clone)]
pub struct Setup {
    pub profile: KernelProfile,
    pub design: Design,
    pub machine: &'static str,
    pub cpus: u32,
    pub pages: u64,
    pub version: Version,
    pub paging: Paging,
    pub unpin: UnpinOrder,
    pub explored: Option<u64>,
    pub max_events: u64,
}

impl Setup {
    pub fn new(design: Design, pages: u64) -> Setup {
        Setup {
            profile: KernelProfile::by_name(design.profile)
                .expect("designs name profiles")
                .clone(),
            design,
            machine: "barcelona-2008",
            cpus: 4,
            pages,
            version: Version::LINUX_2_6_27,
            paging: Paging::Tdp,
            unpin: UnpinOrder::FlushFirst,
            explored: None,
            max_events: u64::MAX,
        }
    }

    pub fn version(mut self, version: Version) -> Setup {
        self.version = version;
        self
    }

    pub fn build(self) -> Bench {
        let explored = self.explored;
        self.build_with(Box::new(sim::RandomWalk::new(explored.unwrap_or(0))))
    }

    pub fn build_with(self, walk: Box<dyn Chooser>) -> Bench {
        let mut config = EngineConfig::without_costs(self.cpus as u16);
        config.ipi_latency = Cycles::new(1_000);
        config.preemption = self.profile.preemption;
        config.max_events = self.max_events;
        let schedule = match self.explored {
            None => Schedule::Timed(Box::new(Seeded::new(1)) as Box<dyn Chooser>),
            Some(_) => Schedule::Explored(walk),
        };
        let engine = Engine::new(config, schedule);
        let machine = Rc::new(Machine::preset(self.machine).expect("a preset"));
        let world = World::new(Rc::clone(&engine), machine);
        let notified = if self.design.notifies() {
            Notified::Registered
        } else {
            Notified::PinsOnly
        };
        let kernel = world.add_kernel(KernelSpec {
            name: "host".into(),
            profile: self.profile,
            design: self.design,
            first_cpu: CpuId::new(0),
            cpus: self.cpus,
        });
        let mm = kernel.new_mm("vmm".into());
        let config = KvmConfig {
            name: "vm".into(),
            version: self.version,
            paging: self.paging,
            slots: vec![MemSlot {
                base_gfn: FIRST_GFN,
                pages: self.pages,
                hva: BASE,
            }],
            unpin: self.unpin,
            notified,
        };
        let kvm = Kvm::new(&kernel, mm, config);
        Bench {
            engine,
            world,
            kernel,
            mm,
            kvm,
            pages: self.pages,
        }
    }
}

pub struct Bench {
    pub engine: Rc<Engine>,
    pub world: Rc<World>,
    pub kernel: Rc<Kernel>,
    pub mm: MmId,
    pub kvm: Rc<Kvm>,
    pub pages: u64,
}

/// What a body of a test task works with.
#[derive(Clone)]
pub struct Hands {
    pub kernel: Rc<Kernel>,
    pub kvm: Rc<Kvm>,
    pub mm: MmId,
    pub pages: u64,
}

impl Hands {
    /// Maps guest memory.
    pub async fn map(&self, cx: &Cx) {
        let request = MapRequest {
            at: Some(BASE),
            pages: self.pages,
            backing: Backing::Anonymous,
            pgoff: Pgoff::new(0),
            sharing: Sharing::Private,
            prot: Prot::READ_WRITE,
            flags: mm::MapFlags::NONE,
        };
        self.kernel
            .sys_mmap(cx, self.mm, request)
            .await
            .expect("a free place");
    }

    /// The guest stores to every page once.
    pub async fn touch_guest(&self, cx: &Cx, vcpu: VcpuId) {
        for index in 0..self.pages {
            let gfn = self.kvm.gfn_of_index(index).expect("inside");
            self.kvm
                .access(cx, vcpu, gfn, Access::Write)
                .await
                .expect("mapped");
        }
    }

    pub fn range(&self, pages: u64) -> VaRange {
        VaRange::from_pages(BASE, pages).expect("not empty")
    }

    pub async fn munmap(&self, cx: &Cx) {
        self.kernel
            .sys_munmap(cx, self.mm, self.range(self.pages))
            .await
            .expect("mapped");
    }

    pub fn counts(&self) -> (KvmMetrics, MmMetrics) {
        (self.kvm.metrics(), self.kernel.metrics())
    }
}

impl Bench {
    pub fn hands(&self) -> Hands {
        Hands {
            kernel: Rc::clone(&self.kernel),
            kvm: Rc::clone(&self.kvm),
            mm: self.mm,
            pages: self.pages,
        }
    }

    /// A task of the address space on a CPU that the run waits for.
    pub fn thread<F: Future<Output = ()> + 'static>(
        &self,
        cpu: u32,
        body: impl FnOnce(Cx, Hands) -> F,
    ) -> TaskId {
        let spec = TaskSpec {
            name: format!("thread{cpu}").into(),
            cpu: self.kernel.cpu(cpu),
            affinity: Affinity::Pinned,
            role: Role::Worker,
        };
        let hands = self.hands();
        let task = self.engine.spawn(spec, |cx| body(cx, hands));
        self.kernel.set_task_mm(task, Some(self.mm));
        task
    }

    /// CPU 1: registers, maps, and a vCPU touches all of guest memory and leaves the guest. CPU 0:
    /// `after`.
    pub fn fill_then<F: Future<Output = ()> + 'static>(
        &self,
        after: impl FnOnce(Cx, Hands) -> F + 'static,
    ) -> End {
        let vcpu = self.kvm.add_vcpu();
        let filler = self.thread(1, move |cx, h| async move {
            h.kvm.register(&cx).await;
            h.map(&cx).await;
            h.touch_guest(&cx, vcpu).await;
            h.kvm.exit(&cx, vcpu);
        });
        self.thread(0, move |cx, h| async move {
            cx.join(filler).await;
            after(cx.clone(), h).await;
        });
        self.engine.run()
    }

    /// Asserts that the run was fine and its books balance.
    #[track_caller]
    pub fn assert_fine(&self, end: &End) {
        assert_eq!(*end, End::Completed);
        assert_eq!(self.world.audit(), Vec::<String>::new());
    }
}
