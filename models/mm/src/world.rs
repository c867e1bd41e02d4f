//! All kernels of a simulation, over one set of frames, and what the engine asks of them: what a context
//! switch and an interrupt do on one of their CPUs.

use std::cell::{RefCell, RefMut};
use std::rc::{Rc, Weak};

use sim::{CpuId, Cycles, Engine, Handled, Interrupt, Platform, TaskId};
use x86::{Machine, Pfn, Vector};

use crate::Owner;
use crate::disk::DISK_VECTOR;
use crate::frame::Frames;
use crate::kernel::{Kernel, KernelId};
use crate::notifier::Design;
use crate::profile::KernelProfile;

/// How to create a kernel.
pub struct KernelSpec {
    /// Name of the partition.
    pub name: Rc<str>,
    /// Profile.
    pub profile: KernelProfile,
    /// Notifier design.
    pub design: Design,
    /// First of its CPUs in the world.
    pub first_cpu: CpuId,
    /// Number of its CPUs.
    pub cpus: u32,
}

/// All kernels of a simulation.
pub struct World {
    /// The engine.
    pub engine: Rc<Engine>,
    /// The machine, the same in every partition.
    pub machine: Rc<Machine>,
    frames: Rc<RefCell<Frames>>,
    kernels: RefCell<Vec<Rc<Kernel>>>,
}

struct WorldPlatform(Weak<World>);

impl World {
    /// A world without kernels, hooked into the engine.
    #[must_use]
    pub fn new(engine: Rc<Engine>, machine: Rc<Machine>) -> Rc<Self> {
        let world = Rc::new(World {
            engine: Rc::clone(&engine),
            machine,
            frames: Rc::default(),
            kernels: RefCell::default(),
        });
        engine.set_platform(Rc::new(WorldPlatform(Rc::downgrade(&world))));
        world
    }

    /// Adds a kernel. Its CPUs must exist in the engine and belong to no other kernel.
    pub fn add_kernel(&self, spec: KernelSpec) -> Rc<Kernel> {
        let mut kernels = self.kernels.borrow_mut();
        let id = KernelId(kernels.len() as u8);
        let kernel = Kernel::boot(spec, id, &self.engine, &self.machine, &self.frames);
        kernels.push(Rc::clone(&kernel));
        kernel
    }

    /// The kernels, by number.
    #[must_use]
    pub fn kernels(&self) -> Vec<Rc<Kernel>> {
        self.kernels.borrow().clone()
    }

    /// Frames of all kernels.
    pub fn frames(&self) -> RefMut<'_, Frames> {
        self.frames.borrow_mut()
    }

    fn kernel_of(&self, cpu: CpuId) -> Option<Rc<Kernel>> {
        let kernels = self.kernels.borrow();
        kernels.iter().rev().find(|k| k.first_cpu <= cpu).map(Rc::clone)
    }

    /// What a frame is, for messages.
    #[must_use]
    pub fn describe(&self, pfn: Pfn) -> String {
        let frames = self.frames.borrow();
        let frame = frames.get(pfn);
        match frame.owner() {
            Owner::File(_) => format!("{pfn} (file page {})", frame.index().get()),
            Owner::Anon(_) => format!("{pfn} (anonymous page)"),
            Owner::None => format!("{pfn}"),
        }
    }
}

impl Platform for WorldPlatform {
    fn switch(&self, _: &Engine, cpu: CpuId, _: Option<TaskId>, to: Option<TaskId>) -> Cycles {
        let world = self.0.upgrade().expect("the world outlives its engine's run");
        world
            .kernel_of(cpu)
            .map_or(Cycles::ZERO, |k| k.switch_to(cpu, to))
    }

    fn interrupt(&self, _: &Engine, cpu: CpuId, interrupt: Interrupt) -> Handled {
        let world = self.0.upgrade().expect("the world outlives its engine's run");
        let kernel = world.kernel_of(cpu).expect("interrupts go to CPUs of kernels");
        let exit = kernel.interrupt_exit(cpu);
        let body = match Vector::new(interrupt.vector).slot() {
            Some(_) => kernel.smp_invalidate_interrupt(cpu, interrupt),
            None if interrupt.vector == DISK_VECTOR => kernel.disk_interrupt(cpu, interrupt),
            None => kernel.machine.costs.atomic_op,
        };
        Handled {
            until_ack: exit + body + kernel.machine.costs.ipi_ack,
            after_ack: kernel.machine.costs.interrupt_entry_exit,
        }
    }
}
