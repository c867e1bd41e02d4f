//! Two partitions for tests: an exporting and an importing process.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part of it"
)]

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use mm::notifier::{Design, Subscriber};
use mm::{Backing, FileId, Kernel, KernelProfile, KernelSpec, MapRequest, MmId, Prot, Sharing, World};
use sim::{Affinity, CpuId, Cx, Cycles, End, Engine, EngineConfig, Role, Schedule, Seeded, TaskSpec};
use x86::{Access, Machine, Pgoff, Va, VaRange};
use xpmem::{Mode, Pins, Xpmem, XpmemConfig};

pub const BASE: Va = Va::new(0x7f40_0000_0000);
pub const CPUS: u32 = 4;
/// A run that needs more does not end.
pub const MAX_EVENTS: u64 = 3_000_000;

/// A step of a script has been reached.
#[derive(Clone, Default)]
pub struct Flag(Rc<Cell<bool>>);

impl Flag {
    pub fn raise(&self) {
        self.0.set(true);
    }

    pub fn is_up(&self) -> bool {
        self.0.get()
    }

    pub async fn wait(&self, cx: &Cx) {
        while !self.0.get() {
            cx.sleep(Cycles::new(500)).await;
        }
    }
}

#[derive(Clone)]
pub struct Setup {
    pub profile: KernelProfile,
    pub design: Design,
    pub pins: Pins,
    pub mode: Mode,
    pub pages: u64,
    pub rtt: Cycles,
}

impl Setup {
    pub fn sleepable(pages: u64) -> Setup {
        Setup {
            profile: KernelProfile::LINUX_2_6_27_SLEEPABLE,
            design: Design::V9,
            pins: Pins::Held,
            mode: Mode::Notified,
            pages,
            rtt: Cycles::new(60_000),
        }
    }

    pub fn merged(pages: u64, mode: Mode) -> Setup {
        Setup {
            profile: KernelProfile::LINUX_2_6_27,
            design: Design::V8,
            mode,
            ..Setup::sleepable(pages)
        }
    }

    pub fn pins(mut self, pins: Pins) -> Setup {
        self.pins = pins;
        self
    }

    pub fn build(self, schedule: Schedule) -> Bench {
        let mut config = EngineConfig::without_costs(2 * CPUS as u16);
        config.max_events = MAX_EVENTS;
        let engine = Engine::new(config, schedule);
        let machine = Rc::new(Machine::preset("harpertown-2008").expect("a preset"));
        let world = World::new(Rc::clone(&engine), machine);
        let kernel = |name: &str, first: u16| {
            world.add_kernel(KernelSpec {
                name: name.into(),
                profile: self.profile.clone(),
                design: self.design.clone(),
                first_cpu: CpuId::new(first),
                cpus: CPUS,
            })
        };
        let exporter = kernel("exporter", 0);
        let importer = kernel("importer", CPUS as u16);
        let mm = exporter.new_mm("producer".into());
        let importer_mm = importer.new_mm("consumer".into());
        let link = Xpmem::new(
            &exporter,
            mm,
            &importer,
            importer_mm,
            XpmemConfig {
                name: "peer".into(),
                segments: vec![range(BASE, self.pages)],
                rtt: self.rtt,
                pins: self.pins,
                mode: self.mode,
            },
            exporter.cpu(CPUS - 1),
            importer.cpu(CPUS - 1),
        );
        Bench {
            engine,
            world,
            exporter,
            importer,
            mm,
            importer_mm,
            link,
            mode: self.mode,
        }
    }

    pub fn timed(self, seed: u64) -> Bench {
        self.build(Schedule::Timed(Box::new(Seeded::new(seed))))
    }
}

pub struct Bench {
    pub engine: Rc<Engine>,
    pub world: Rc<World>,
    pub exporter: Rc<Kernel>,
    pub importer: Rc<Kernel>,
    pub mm: MmId,
    pub importer_mm: MmId,
    pub link: Rc<Xpmem>,
    mode: Mode,
}

/// What a script works with.
#[derive(Clone)]
pub struct Side {
    pub kernel: Rc<Kernel>,
    pub mm: MmId,
    pub link: Rc<Xpmem>,
    mode: Mode,
}

impl Side {
    /// Registers the link with this (the exporter's) address space if its mode says so.
    pub async fn register(&self, cx: &Cx) {
        if self.mode == Mode::Notified {
            let link: Rc<dyn Subscriber> = Rc::clone(&self.link) as _;
            self.kernel.mmu_notifier_register(cx, self.mm, link).await;
        }
    }

    pub async fn map(&self, cx: &Cx, request: MapRequest) {
        self.kernel
            .sys_mmap(cx, self.mm, request)
            .await
            .expect("a free place");
    }

    pub async fn touch(&self, cx: &Cx, pages: u64) {
        for vpn in range(BASE, pages).vpns() {
            let touched = self.kernel.access(cx, self.mm, vpn.va(), Access::Write).await;
            touched.expect("mapped");
        }
    }

    pub async fn read_all(&self, cx: &Cx) {
        for page in 0..self.link.pages() {
            self.link.access(cx, page, Access::Read).await.expect("exported");
        }
    }
}

impl Bench {
    pub fn exporting<F: Future<Output = ()> + 'static>(&self, cpu: u32, body: impl FnOnce(Cx, Side) -> F) {
        self.thread(&self.exporter, self.mm, cpu, body);
    }

    pub fn importing<F: Future<Output = ()> + 'static>(&self, cpu: u32, body: impl FnOnce(Cx, Side) -> F) {
        self.thread(&self.importer, self.importer_mm, cpu, body);
    }

    fn thread<F: Future<Output = ()> + 'static>(
        &self,
        kernel: &Rc<Kernel>,
        mm: MmId,
        cpu: u32,
        body: impl FnOnce(Cx, Side) -> F,
    ) {
        let side = Side {
            kernel: Rc::clone(kernel),
            mm,
            link: Rc::clone(&self.link),
            mode: self.mode,
        };
        let spec = TaskSpec {
            name: format!("{}{cpu}", kernel.name).into(),
            cpu: kernel.cpu(cpu),
            affinity: Affinity::Pinned,
            role: Role::Worker,
        };
        let task = self.engine.spawn(spec, |cx| body(cx, side));
        kernel.set_task_mm(task, Some(mm));
    }

    /// Runs to the end, which is `Completed` with balanced books.
    pub fn complete(&self) {
        assert_eq!(self.engine.run(), End::Completed);
        assert_eq!(self.world.audit(), Vec::<String>::new());
    }

    /// Entries of the importer that lead to frames.
    pub fn importer_entries(&self) -> usize {
        let pages = 0..self.link.pages();
        let present = |p: &u64| {
            self.link
                .address_of(*p)
                .is_some_and(|va| self.importer.peek_pte(self.importer_mm, va).present())
        };
        pages.filter(present).count()
    }

    pub fn pinned(&self) -> u64 {
        self.world.frames().pinned().0
    }

    pub fn exporter_frames(&self) -> u64 {
        self.world.frames().in_use(self.exporter.zone()).0
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

pub fn shared_file(at: Va, pages: u64, file: FileId) -> MapRequest {
    MapRequest {
        backing: Backing::File(file),
        sharing: Sharing::Shared,
        ..anonymous(at, pages)
    }
}

pub fn range(at: Va, pages: u64) -> VaRange {
    VaRange::from_pages(at, pages).expect("not empty")
}
