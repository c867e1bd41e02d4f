//! Building the world of a scenario, preparing it, and letting its threads run.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use mm::{Device, DiskSpec, FileId, FileKind, Kernel, KernelId, KernelSpec, World};
use sim::{
    Affinity, Completion, CpuId, Cx, Cycles, Engine, EngineConfig, Histogram, Role, Schedule, Seeded, TaskId,
    TaskSpec,
};
use x86::{CpuIndex, Machine};

use super::attach::{self, Baseline, Importer, Mmu};
use super::exec::{Life, Next, Thread};
use super::process::{Barrier, Process, barriers_of, children_of};
use super::resolve::Resolved;
use super::{Outcome, Request, RunError, result};
use crate::ast::{
    self, AtEnd, AttachDef, Birth, FileDef, FilePages, Op, ProcessDef, RegisterWhen, Scenario, ThreadDef,
};
use crate::check::DEFAULT_PARTITION;

/// A scenario at work.
pub(super) struct Run {
    pub(super) engine: Rc<Engine>,
    pub(super) world: Rc<World>,
    pub(super) resolved: Resolved,
    files: BTreeMap<(KernelId, String), FileId>,
    pub(super) processes: BTreeMap<String, Rc<Process>>,
    barriers: BTreeMap<String, Barrier>,
    /// Ordinal of each thread, by process and name.
    ordinals: BTreeMap<(String, String), u32>,
    pub(super) start: Completion,
    pub(super) at_end: AtEnd,
    ops: RefCell<BTreeMap<&'static str, Histogram>>,
    error: OnceCell<RunError>,
    pub(super) baseline: Baseline,
    /// Tasks to be prepared before the start, in order.
    pub(super) prepared: Cell<u32>,
}

/// Builds a [`Run`].
pub(super) struct WorldBuilder<'a> {
    scenario: &'a Scenario,
    resolved: Resolved,
    logging: sim::Logging,
    max_events: Option<u64>,
}

/// Stopping a run because its script makes no sense; replaced by the run error afterwards.
const SCRIPT_ERROR: &str = "script-error";

impl<'a> WorldBuilder<'a> {
    pub(super) fn new(request: &Request<'a>, resolved: Resolved) -> Self {
        WorldBuilder {
            scenario: request.scenario,
            resolved,
            logging: request.logging,
            max_events: request.max_events,
        }
    }

    pub(super) fn build(self) -> Result<Rc<Run>, RunError> {
        let partitions = self.partitions();
        let cpus = self.resolved.cpus * partitions.len() as u32;
        if cpus as usize > sim::MAX_CPUS {
            return Err(RunError {
                message: format!("{cpus} CPUs in {} partitions", partitions.len()),
                help: format!("a world has at most {}; lower `cpus`", sim::MAX_CPUS),
            });
        }
        let config = self.engine_config(cpus);
        let engine = Engine::new(config, Schedule::Timed(Box::new(Seeded::new(self.resolved.seed))));
        engine.set_logging(self.logging);
        let world = World::new(Rc::clone(&engine), Rc::new(self.resolved.machine.clone()));
        let kernels: BTreeMap<&str, Rc<Kernel>> = partitions
            .iter()
            .enumerate()
            .map(|(n, name)| (name.as_str(), self.add_kernel(&world, n as u32, name)))
            .collect();
        let mut files = BTreeMap::new();
        for kernel in kernels.values() {
            self.boot(kernel)?;
            for (name, def) in &self.scenario.files {
                let file = match def.page_size {
                    FilePages::Small => kernel.new_file_of(kind(def), name, def.pages),
                    FilePages::Huge => kernel.new_hugetlb_file(name, def.pages),
                };
                files.insert((kernel.id, name.clone()), file);
            }
        }
        let mut next_cpu: BTreeMap<KernelId, u32> = BTreeMap::new();
        let mut processes = BTreeMap::new();
        for (name, def) in &self.scenario.processes {
            let kernel = &kernels[def.partition.as_deref().unwrap_or(DEFAULT_PARTITION)];
            let process = self.process(&engine, name, def, kernel, &kernels, &mut next_cpu);
            processes.insert(name.clone(), Rc::new(process));
        }
        let start = Completion::new(&engine, "start of the threads");
        Ok(Rc::new(Run {
            barriers: self.barriers(&engine),
            ordinals: self.ordinals(),
            engine,
            world,
            at_end: self.scenario.at_end,
            resolved: self.resolved,
            files,
            processes,
            start,
            ops: RefCell::default(),
            error: OnceCell::new(),
            baseline: RefCell::default(),
            prepared: Cell::new(0),
        }))
    }

    /// `hugepages=` on the command line, and swapon.
    fn boot(&self, kernel: &Kernel) -> Result<(), RunError> {
        if let Some(disk) = self.scenario.disk {
            let spec = DiskSpec {
                read_ns: disk.read_ns,
                write_ns: disk.write_ns,
            };
            kernel.set_disk(Device::Files, spec);
        }
        if let Some(swap) = self.scenario.swap {
            kernel.set_swap(swap.pages);
            let spec = DiskSpec {
                read_ns: swap.read_ns,
                write_ns: swap.write_ns,
            };
            kernel.set_disk(Device::Swap, spec);
        }
        let pages = self.resolved.hugepages;
        kernel.add_hugepages(pages).map_err(|_| RunError {
            message: format!("{pages} huge pages do not fit into memory"),
            help: "lower `hugepages`".to_owned(),
        })
    }

    /// Partitions in order of first mention; the default one comes first.
    fn partitions(&self) -> Vec<String> {
        let mut names = vec![DEFAULT_PARTITION.to_owned()];
        let mut add = |name: &str| {
            if !names.iter().any(|n| n == name) {
                names.push(name.to_owned());
            }
        };
        for process in self.scenario.processes.values() {
            process.partition.as_deref().into_iter().for_each(&mut add);
            for mmu in process.attach.values() {
                if let AttachDef::Xpmem(d) = mmu {
                    add(&d.importer);
                }
            }
        }
        names
    }

    fn engine_config(&self, cpus: u32) -> EngineConfig {
        let machine = &self.resolved.machine;
        let costs = &machine.costs;
        let half = Cycles::new(costs.lock_uncontended.get() / 2);
        // Partitions do not share sockets.
        let socket = |cpu: u32| {
            let (partition, local) = (cpu / self.resolved.cpus, cpu % self.resolved.cpus);
            (partition * machine.sockets + machine.socket_of(CpuIndex::new(local))) as u16
        };
        let complexes = machine.sockets * machine.complexes_per_socket();
        let complex = |cpu: u32| {
            let (partition, local) = (cpu / self.resolved.cpus, cpu % self.resolved.cpus);
            (partition * complexes + machine.complex_of(CpuIndex::new(local))) as u16
        };
        EngineConfig {
            socket_of: (0..cpus).map(socket).collect(),
            complex_of: costs
                .line_transfer_complex
                .map(|_| (0..cpus).map(complex).collect())
                .unwrap_or_default(),
            lock_acquire: half,
            lock_release: costs.lock_uncontended - half,
            transfer_complex: machine.line_transfer_closest(),
            transfer_near: costs.line_transfer_near,
            transfer_far: costs.line_transfer_far,
            context_switch: costs.context_switch,
            wakeup: costs.wakeup,
            ipi_latency: costs.ipi_latency,
            ipi_per_target: costs.ipi_ack,
            time_slice: costs.sched_slice,
            preemption: self.resolved.profile.preemption,
            preempt_limit: mm::profile::PREEMPT_COUNT_LIMIT,
            max_events: self.max_events.unwrap_or(u64::MAX),
        }
    }

    fn add_kernel(&self, world: &World, number: u32, name: &str) -> Rc<Kernel> {
        world.add_kernel(KernelSpec {
            name: name.into(),
            profile: self.resolved.profile.clone(),
            design: self.resolved.design.clone(),
            first_cpu: CpuId::new((number * self.resolved.cpus) as u16),
            cpus: self.resolved.cpus,
        })
    }

    fn process(
        &self,
        engine: &Engine,
        name: &str,
        def: &ProcessDef,
        kernel: &Rc<Kernel>,
        kernels: &BTreeMap<&str, Rc<Kernel>>,
        next_cpu: &mut BTreeMap<KernelId, u32>,
    ) -> Process {
        let mmus = def
            .attach
            .iter()
            .map(|(n, d)| (n.clone(), Rc::new(self.mmu(engine, n, d, kernels))))
            .collect::<BTreeMap<_, _>>();
        let cpu_of = |(n, t): (&String, &ThreadDef)| {
            let imported = t
                .drives
                .as_ref()
                .and_then(|m| mmus.get(m))
                .and_then(|m: &Rc<Mmu>| attach::importer_cpu(m, t.cpu));
            let next = next_cpu.entry(kernel.id).or_default();
            let cpu = imported.unwrap_or_else(|| {
                kernel.cpu(t.cpu.unwrap_or_else(|| {
                    *next += 1;
                    (*next - 1) % self.resolved.cpus
                }))
            });
            (n.clone(), cpu)
        };
        let cpus = def.threads.iter().map(cpu_of).collect();
        Process {
            name: name.into(),
            kernel: Rc::clone(kernel),
            def: def.clone(),
            mm: Cell::new(def.forked.is_none().then(|| kernel.new_mm(name.into()))),
            maps: RefCell::default(),
            mmus,
            cpus,
            epoch: Cell::new(0),
            alive: Cell::new(0),
            born: Cell::new(0),
            exiting: Cell::new(false),
            changing: Cell::new(false),
            present: Cell::new(0),
            ended: engine.wait_queue("end of a thread"),
            parent: OnceCell::new(),
            never: Cell::new(false),
            children: engine.wait_queue("end of a process"),
            naps: RefCell::default(),
            done: Completion::new(engine, "end of a process"),
        }
    }

    fn mmu(&self, engine: &Engine, name: &str, def: &AttachDef, kernels: &BTreeMap<&str, Rc<Kernel>>) -> Mmu {
        let (carried, reason) = attach::carried(&self.resolved.design, self.resolved.unsupported, def);
        let importer = match def {
            AttachDef::Xpmem(d) => {
                let kernel = Rc::clone(&kernels[d.importer.as_str()]);
                let mm = kernel.new_mm(format!("{name}-importer").into());
                Some(Importer {
                    kernel,
                    mm,
                    attaching: Cell::new(false),
                    attached: Completion::new(engine, "xpmem attach"),
                    users: Cell::new(0),
                })
            }
            AttachDef::Kvm(_) | AttachDef::Gru(_) => None,
        };
        Mmu {
            name: name.into(),
            def: def.clone(),
            carried,
            reason,
            device: OnceCell::new(),
            subscription: Cell::new(None),
            begun: Cell::new(false),
            importer,
        }
    }

    fn threads(&self) -> impl Iterator<Item = (&String, &String, &ThreadDef)> {
        self.scenario
            .processes
            .iter()
            .flat_map(|(p, def)| def.threads.iter().map(move |(n, t)| (p, n, t)))
    }

    fn barriers(&self, engine: &Engine) -> BTreeMap<String, Barrier> {
        let mut members: BTreeMap<String, u32> = BTreeMap::new();
        for (_, _, thread) in self.threads() {
            for name in barriers_of(&thread.script) {
                *members.entry(name.to_owned()).or_default() += 1;
            }
        }
        members
            .into_iter()
            .map(|(name, n)| (name, Barrier::new(engine, n)))
            .collect()
    }

    fn ordinals(&self) -> BTreeMap<(String, String), u32> {
        self.threads()
            .zip(0..)
            .map(|((p, n, _), i)| ((p.clone(), n.clone()), i))
            .collect()
    }
}

impl Run {
    /// Runs everything and collects the result.
    pub(super) fn run(self: Rc<Self>, request: &Request<'_>) -> Result<Outcome, RunError> {
        let starting: Vec<Rc<Process>> = self
            .processes
            .values()
            .filter(|p| p.mm.get().is_some())
            .cloned()
            .collect();
        self.spawn_preparation(&starting);
        for process in &starting {
            self.spawn_threads(process);
        }
        let end = self.engine.run();
        if let Some(error) = self.error.get() {
            return Err(error.clone());
        }
        Ok(result::collect(&self, request, end))
    }

    pub(super) fn processes(&self) -> impl Iterator<Item = &Rc<Process>> {
        self.processes.values()
    }

    pub(super) fn process(&self, name: &str) -> Result<Rc<Process>, RunError> {
        self.processes.get(name).cloned().ok_or_else(|| RunError {
            message: format!("no process `{name}`"),
            help: "declare it under `processes`".to_owned(),
        })
    }

    pub(super) fn file(&self, kernel: &Kernel, name: &str) -> Result<FileId, RunError> {
        self.files
            .get(&(kernel.id, name.to_owned()))
            .copied()
            .ok_or_else(|| RunError {
                message: format!("no file `{name}`"),
                help: "declare it under `files`".to_owned(),
            })
    }

    pub(super) fn barrier(&self, name: &str) -> &Barrier {
        &self.barriers[name]
    }

    pub(super) fn mmu(&self, process: &Process, name: &str) -> Result<Rc<Mmu>, RunError> {
        process.mmus.get(name).cloned().ok_or_else(|| RunError {
            message: format!("process `{}` has no secondary MMU `{name}`", process.name),
            help: "declare it under `attach`".to_owned(),
        })
    }

    pub(super) fn record_latency(&self, op: &'static str, latency: Cycles) {
        self.ops.borrow_mut().entry(op).or_default().record(latency.get());
    }

    pub(super) fn latencies(&self) -> BTreeMap<&'static str, Histogram> {
        self.ops.borrow().clone()
    }

    pub(super) fn fail(&self, error: RunError) {
        let message = error.message.clone();
        let _ = self.error.set(error);
        self.engine.violate(SCRIPT_ERROR, message, None);
    }

    /// Ends all threads of a process but the caller.
    pub(super) fn end_others(&self, process: &Process) {
        process.epoch.set(process.epoch.get() + 1);
        self.nudge_barriers();
        for queue in [process.children, process.ended]
            .iter()
            .chain(process.naps.borrow().iter())
        {
            self.engine.wake_all(*queue);
        }
    }

    /// All threads of a process have ended.
    fn finish(&self, process: &Process) {
        process.done.complete_all(&self.engine);
        if let Some(parent) = process.parent.get() {
            self.engine.wake_all(parent.children);
        }
    }

    /// A script ended: what it could have forked and did not will never be.
    fn disown(&self, process: &Process, script: &[Op]) {
        for child in children_of(script)
            .into_iter()
            .filter_map(|name| self.processes.get(name))
        {
            if child.mm.get().is_some() || child.never.replace(true) {
                continue;
            }
            for thread in child.def.threads.values() {
                for name in barriers_of(&thread.script) {
                    self.barrier(name).leave(&self.engine);
                }
                self.disown(child, &thread.script);
            }
            self.engine.wake_all(process.children);
        }
    }

    /// Lets threads that wait at barriers look whether they must end.
    fn nudge_barriers(&self) {
        for barrier in self.barriers.values() {
            barrier.nudge(&self.engine);
        }
    }

    pub(super) fn task(&self, name: &str, cpu: CpuId) -> TaskSpec {
        TaskSpec {
            name: name.into(),
            cpu,
            affinity: Affinity::Pinned,
            role: Role::Worker,
        }
    }

    // -- threads --------------------------------------------------------------------------------

    /// Creates the threads of a process that has an address space.
    pub(super) fn spawn_threads(self: &Rc<Self>, process: &Rc<Process>) {
        let mm = process.mm.get().expect("threads need an address space");
        let epoch = process.epoch.get();
        process.alive.set(process.def.threads.len() as u32);
        process.present.set(process.def.threads.len() as u32);
        if process.def.threads.is_empty() {
            self.finish(process);
        }
        for (name, def) in &process.def.threads {
            let drives = def.drives.as_ref().and_then(|m| process.mmus.get(m)).cloned();
            let imports = drives.as_ref().is_some_and(|m| m.importer.is_some());
            if let Some(importer) = drives.as_ref().and_then(|m| m.importer.as_ref()) {
                importer.users.set(importer.users.get() + 1);
            }
            let nap = process.may_be_ended(name).then(|| {
                let nap = self.engine.wait_queue("end of a sleep");
                process.naps.borrow_mut().push(nap);
                nap
            });
            let unborn = !imports && def.birth == Birth::FirstBarrier;
            let (kernel, own_mm) = match drives.as_ref().and_then(|m| m.importer.as_ref()) {
                Some(importer) => (Rc::clone(&importer.kernel), importer.mm),
                None => (Rc::clone(&process.kernel), mm),
            };
            if !unborn {
                kernel.mmget(own_mm);
            }
            if !unborn && !imports {
                process.born.set(process.born.get() + 1);
            }
            let life = match (unborn, imports) {
                (true, _) => Life::Unborn,
                (false, true) => Life::Elsewhere,
                (false, false) => Life::Born(epoch),
            };
            let thread = Thread {
                run: Rc::clone(self),
                process: Rc::clone(process),
                name: name.clone(),
                ordinal: self.ordinals[&(process.name.to_string(), name.clone())],
                drives,
                driver: None,
                nap,
                mm: own_mm,
                life,
            };
            let script = def.script.clone();
            let spec = self.task(&format!("{}/{name}", process.name), process.cpus[name]);
            let task: TaskId = self
                .engine
                .spawn(spec, |cx| async move { thread_main(cx, thread, script).await });
            kernel.set_task_mm(task, (!unborn).then_some(own_mm));
        }
    }

    /// fork(2) and the start of the child's threads.
    pub(super) async fn fork(self: &Rc<Self>, cx: &Cx, parent: &Thread, child: &str) -> Result<(), RunError> {
        let child = self.process(child)?;
        if child.mm.get().is_some() || child.never.get() {
            return Err(RunError {
                message: format!("process `{}` is forked a second time", child.name),
                help: "declare one process a fork".to_owned(),
            });
        }
        if !child.def.maps.is_empty() {
            return Err(RunError {
                message: format!("process `{}` is forked, but has mappings of its own", child.name),
                help: "let a thread of it map them".to_owned(),
            });
        }
        let kernel = &parent.process.kernel;
        let mm = kernel.sys_fork(cx, parent.mm, Rc::clone(&child.name)).await;
        child.mm.set(Some(mm));
        let _ = child.parent.set(Rc::clone(&parent.process));
        *child.maps.borrow_mut() = parent.process.maps.borrow().clone();
        for mmu in child.mmus.values() {
            if attach::register_when(&mmu.def) == RegisterWhen::Start {
                mmu.come_to_life(cx, &child, mm).await?;
            }
        }
        self.spawn_threads(&child);
        // sys_fork left one user: the child itself, which its threads have joined.
        kernel.mmput(cx, mm).await;
        Ok(())
    }
}

async fn thread_main(cx: Cx, mut thread: Thread, script: Vec<crate::ast::Op>) {
    let run = Rc::clone(&thread.run);
    run.start.wait(&cx).await;
    match thread.script(&cx, &script).await {
        Ok(Next::Continue | Next::End) => {}
        Err(error) => run.fail(error),
    }
    for name in barriers_of(&script) {
        run.barrier(name).leave(&run.engine);
    }
    let process = Rc::clone(&thread.process);
    run.disown(&process, &script);
    let ended_early = thread.gone();
    process.alive.set(process.alive.get() - 1);
    let last_born = match thread.life {
        Life::Born(_) => {
            process.born.set(process.born.get() - 1);
            process.born.get() == 0
        }
        Life::Unborn | Life::Elsewhere => false,
    };
    if last_born {
        // Without a thread there is no process: what is not born now will not be.
        process.exiting.set(true);
        run.nudge_barriers();
    }
    run.engine.wake_all(process.ended);
    if run.at_end == AtEnd::Stay && !ended_early {
        if process.alive.get() == 0 {
            run.finish(&process);
        }
        return;
    }
    if last_born {
        process.wind_up(&cx).await;
    }
    match thread.life {
        Life::Unborn => {}
        Life::Born(_) => process.kernel.exit_mm(&cx, thread.mm).await,
        Life::Elsewhere => {
            if let Some(mmu) = &thread.drives {
                mmu.rank_ended(&cx).await;
            }
            let importer = thread.drives.as_ref().and_then(|m| m.importer.as_ref());
            let importer = importer.expect("only importers live elsewhere");
            importer.kernel.exit_mm(&cx, thread.mm).await;
        }
    }
    process.present.set(process.present.get() - 1);
    if process.present.get() == 0 {
        process.destroy(&cx).await;
        run.finish(&process);
    }
}

fn kind(def: &FileDef) -> FileKind {
    match def.kind {
        ast::FileKind::Disk => FileKind::Disk,
        ast::FileKind::Tmpfs => FileKind::Tmpfs,
    }
}

/// The machine's name for results.
pub(super) fn machine(run: &Run) -> &Machine {
    &run.resolved.machine
}
