//! A world to time paths in: one kernel with real costs, one thread, nothing else runnable, the
//! coherence oracle on as always.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mm::notifier::Design;
use mm::{Backing, Kernel, KernelProfile, KernelSpec, MapRequest, MmId, Prot, Sharing, World};
use sim::{Affinity, CpuId, Cx, Cycles, End, Engine, EngineConfig, Role, Schedule, Seeded, TaskSpec};
use x86::{Machine, Pgoff, Va, VaRange};

/// Where mappings lie.
pub const BASE: Va = Va::new(0x7f40_0000_0000);

/// An engine with the costs of the 2008 two-socket machine.
#[must_use]
pub fn engine(machine: &Machine, cpus: u32) -> Rc<Engine> {
    let costs = &machine.costs;
    let mut config = EngineConfig::without_costs(cpus as u16);
    config.lock_acquire = Cycles::new(costs.lock_uncontended.get() / 2);
    config.lock_release = Cycles::new(costs.lock_uncontended.get() / 2);
    config.transfer_near = costs.line_transfer_near;
    config.transfer_far = costs.line_transfer_far;
    config.context_switch = costs.context_switch;
    config.wakeup = costs.wakeup;
    config.ipi_latency = costs.ipi_latency;
    config.ipi_per_target = costs.ipi_ack;
    Engine::new(config, Schedule::Timed(Box::new(Seeded::new(1))))
}

/// A pinned worker.
#[must_use]
pub fn worker(cpu: u32) -> TaskSpec {
    TaskSpec {
        name: "bench".into(),
        cpu: CpuId::new(cpu as u16),
        affinity: Affinity::Pinned,
        role: Role::Worker,
    }
}

/// Runs `body` as the only thread of a fresh address space and returns what it measured.
///
/// # Panics
/// If the run does not complete, or the books do not balance afterwards.
pub fn in_world<F>(body: impl FnOnce(Cx, Rc<Kernel>, MmId, Stopwatch) -> F) -> Duration
where
    F: Future<Output = ()> + 'static,
{
    in_world_of(Machine::preset("harpertown-2008").expect("a preset"), body)
}

/// [`in_world`] on a machine of the caller's.
///
/// # Panics
/// As [`in_world`].
pub fn in_world_of<F>(machine: Machine, body: impl FnOnce(Cx, Rc<Kernel>, MmId, Stopwatch) -> F) -> Duration
where
    F: Future<Output = ()> + 'static,
{
    let engine = engine(&machine, 8);
    let world = World::new(Rc::clone(&engine), Rc::new(machine));
    let kernel = world.add_kernel(KernelSpec {
        name: "host".into(),
        profile: KernelProfile::LINUX_2_6_27,
        design: Design::V8,
        first_cpu: CpuId::new(0),
        cpus: 8,
    });
    let mm = kernel.new_mm("bench".into());
    let watch = Stopwatch::default();
    let for_body = watch.clone();
    let task_kernel = Rc::clone(&kernel);
    let task = engine.spawn(worker(0), move |cx| body(cx, task_kernel, mm, for_body));
    kernel.set_task_mm(task, Some(mm));
    assert_eq!(engine.run(), End::Completed);
    assert_eq!(world.audit(), Vec::<String>::new());
    watch.total()
}

/// Adds up measured stretches of host time.
#[derive(Clone, Default)]
pub struct Stopwatch(Rc<Cell<Duration>>);

impl Stopwatch {
    /// Host time measured so far.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.0.get()
    }

    /// Measures one stretch, and gives what came of it.
    #[expect(clippy::disallowed_methods, reason = "benches measure host time")]
    pub async fn time<T>(&self, work: impl Future<Output = T>) -> T {
        let begin = Instant::now();
        let result = work.await;
        self.0.set(self.0.get() + begin.elapsed());
        result
    }
}

/// Private anonymous memory at [`BASE`].
#[must_use]
pub fn anonymous(pages: u64) -> (MapRequest, VaRange) {
    let request = MapRequest {
        at: Some(BASE),
        pages,
        backing: Backing::Anonymous,
        pgoff: Pgoff::new(0),
        sharing: Sharing::Private,
        prot: Prot::READ_WRITE,
        flags: mm::MapFlags::NONE,
    };
    (request, VaRange::from_pages(BASE, pages).expect("not empty"))
}

/// Host time of a call.
#[expect(clippy::disallowed_methods, reason = "benches measure host time")]
pub fn measure(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

/// Numbers without pattern, the same on every host (xorshift64).
pub fn dice(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}
