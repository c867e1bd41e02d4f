//! Secondary MMUs of a process: whether the design carries them, when they come to life, and how a
//! thread drives them.
//!
//! What a design cannot carry follows the scenario's `unsupported`: with `pin` it falls back to page
//! references if it can hold them, else it is left out; with `omit` it is left out; with `break` it is
//! attached as if the design carried it, and the oracle tells what happens.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use gru::{DropinCancel, Gru, GruConfig, MissMode};
use kvm::{Kvm, KvmConfig, MemSlot, Notified, Paging, Version};
use mm::notifier::{Carries, Design, MmuKind, Needs, Subscriber, SubscriptionId};
use mm::{Kernel, MmId, Refused};
use reports::schema::Carried;
use sim::{Completion, CpuId, Cx};
use x86::{Access, Gfn, Va, VaRange};
use xpmem::{Mode, Pins, Xpmem, XpmemConfig};

use super::RunError;
use super::process::Process;
use crate::ast::{AttachDef, GruMiss, RangeDef, RegisterWhen, Switch, UnpinOrder, Unsupported};
use crate::check::{MAX_SHADOWED, parse_address};

/// A secondary MMU of a process.
pub(super) struct Mmu {
    pub(super) name: Rc<str>,
    pub(super) def: AttachDef,
    pub(super) carried: Carried,
    pub(super) reason: &'static str,
    /// Made when it is registered.
    pub(super) device: OnceCell<Device>,
    pub(super) subscription: Cell<Option<SubscriptionId>>,
    /// It was registered once, whatever became of it.
    pub(super) begun: Cell<bool>,
    /// Kernel and process of the importing side (XPMEM).
    pub(super) importer: Option<Importer>,
}

/// Where an XPMEM importer lives.
pub(super) struct Importer {
    pub(super) kernel: Rc<Kernel>,
    pub(super) mm: MmId,
    /// A rank has begun to attach the segments.
    pub(super) attaching: Cell<bool>,
    /// They are attached; the other ranks wait for that.
    pub(super) attached: Completion,
    /// Ranks that have not ended; the last one detaches.
    pub(super) users: Cell<u32>,
}

/// A secondary MMU at work.
pub(super) enum Device {
    Kvm {
        kvm: Rc<Kvm>,
        slots: Vec<(VaRange, Gfn)>,
    },
    Gru {
        gru: Rc<Gru>,
        chiplets: u32,
    },
    Xpmem {
        xpmem: Rc<Xpmem>,
        segments: Vec<VaRange>,
    },
}

/// A thread's grip on the MMU it drives.
pub(super) enum Driver {
    Vcpu(Rc<Kvm>, kvm::VcpuId),
    GruJob(Rc<Gru>, u32),
    Rank(Rc<Xpmem>),
}

pub(super) fn kind(def: &AttachDef) -> MmuKind {
    match def {
        AttachDef::Kvm(_) => MmuKind::Kvm,
        AttachDef::Gru(_) => MmuKind::Gru,
        AttachDef::Xpmem(_) => MmuKind::Xpmem,
    }
}

fn needs(def: &AttachDef) -> Needs {
    match def {
        AttachDef::Kvm(_) => kvm::NEEDS,
        AttachDef::Gru(_) => gru::NEEDS,
        AttachDef::Xpmem(_) => xpmem::NEEDS,
    }
}

/// Whether and how the design carries an MMU.
pub(super) fn carried(design: &Design, unsupported: Unsupported, def: &AttachDef) -> (Carried, &'static str) {
    match (design.carries(needs(def)), unsupported) {
        (Carries::Yes, _) => (Carried::Full, ""),
        (Carries::OnlyPinned(reason), Unsupported::Pin) => (Carried::Pinned, reason),
        (Carries::OnlyPinned(reason) | Carries::No(reason), Unsupported::Break) => (Carried::Broken, reason),
        (Carries::OnlyPinned(reason), Unsupported::Omit) | (Carries::No(reason), _) => {
            (Carried::Omitted, reason)
        }
    }
}

pub(super) fn register_when(def: &AttachDef) -> RegisterWhen {
    match def {
        AttachDef::Kvm(d) => d.register,
        AttachDef::Gru(d) => d.register,
        AttachDef::Xpmem(d) => d.register,
    }
}

impl Mmu {
    /// Makes the device for the process's present address space and registers it if the design has
    /// anybody to tell.
    pub(super) async fn come_to_life(
        self: &Rc<Self>,
        cx: &Cx,
        process: &Process,
        mm: MmId,
    ) -> Result<(), RunError> {
        if self.begun.replace(true) {
            return Err(RunError {
                message: format!("secondary MMU `{}` is registered a second time", self.name),
                help: "attach one MMU for each registration".to_owned(),
            });
        }
        if self.carried == Carried::Omitted {
            return Ok(());
        }
        let device = self.make(process, mm)?;
        let subscriber = device.subscriber();
        if let Device::Gru { gru, chiplets } = &device {
            for chiplet in 0..*chiplets {
                gru.load_context(cx, chiplet).await;
            }
        }
        let notified =
            matches!(self.carried, Carried::Full | Carried::Broken) && process.kernel.design.notifies();
        if notified {
            let id = process.kernel.mmu_notifier_register(cx, mm, subscriber).await;
            self.subscription.set(Some(id));
        }
        let _ = self.device.set(device);
        Ok(())
    }

    fn make(&self, process: &Process, mm: MmId) -> Result<Device, RunError> {
        let kernel = &process.kernel;
        Ok(match &self.def {
            AttachDef::Kvm(d) => {
                let ranges = self.ranges(process, &d.maps, &d.ranges)?;
                let mut next = Gfn::new(0);
                let mut slots = Vec::new();
                for range in ranges {
                    slots.push((range, next));
                    next = next.add(range.pages());
                }
                let slot = |(r, base): &(VaRange, Gfn)| MemSlot {
                    base_gfn: *base,
                    pages: r.pages(),
                    hva: r.start(),
                };
                let config = KvmConfig {
                    name: Rc::clone(&self.name),
                    version: d.version.parse::<Version>().map_err(|e| RunError {
                        message: format!("kvm version `{}`: {e}", d.version),
                        help: "write a kernel release such as 2.6.27".to_owned(),
                    })?,
                    paging: match d.paging {
                        crate::ast::GuestPaging::Tdp => Paging::Tdp,
                        crate::ast::GuestPaging::Direct => Paging::Direct,
                    },
                    slots: slots.iter().map(slot).collect(),
                    unpin: match d.unpin {
                        UnpinOrder::FlushFirst => kvm::UnpinOrder::FlushFirst,
                        UnpinOrder::UnpinFirst => kvm::UnpinOrder::UnpinFirst,
                    },
                    notified: if self.carried == Carried::Pinned {
                        Notified::PinsOnly
                    } else {
                        Notified::Registered
                    },
                };
                config.check(&kernel.machine).map_err(|e| RunError {
                    message: format!("secondary MMU `{}`: {e}", self.name),
                    help: "mend its `maps`, `ranges` or `paging`".to_owned(),
                })?;
                Device::Kvm {
                    kvm: Kvm::new(kernel, mm, config),
                    slots,
                }
            }
            AttachDef::Gru(d) => {
                let config = GruConfig {
                    name: Rc::clone(&self.name),
                    chiplets: d.chiplets,
                    miss: match d.miss {
                        GruMiss::Interrupt => MissMode::Interrupt,
                        GruMiss::UserPolling => MissMode::UserPolling,
                    },
                    dropin_cancel: DropinCancel::On,
                };
                Device::Gru {
                    gru: Gru::new(kernel, mm, config),
                    chiplets: d.chiplets,
                }
            }
            AttachDef::Xpmem(d) => {
                let segments = self.ranges(process, &d.maps, &d.ranges)?;
                let importer = self.importer.as_ref().expect("an XPMEM export has an importer");
                let pinned = self.carried == Carried::Pinned;
                let config = XpmemConfig {
                    name: Rc::clone(&self.name),
                    segments: segments.clone(),
                    rtt: kernel.machine.ns(d.rtt_ns),
                    pins: if pinned || d.pins == Switch::On {
                        Pins::Held
                    } else {
                        Pins::None
                    },
                    mode: if pinned { Mode::PinsOnly } else { Mode::Notified },
                };
                let last = |k: &Kernel| k.cpu(k.nr_cpus() as u32 - 1);
                let (here, there) = (last(kernel), last(&importer.kernel));
                let xpmem = Xpmem::new(kernel, mm, &importer.kernel, importer.mm, config, here, there);
                Device::Xpmem { xpmem, segments }
            }
        })
    }

    /// Ranges named by maps and by address; if nothing is said, all mappings declared with the process,
    /// or inherited by one that was forked.
    fn ranges(
        &self,
        process: &Process,
        maps: &[String],
        by_address: &[RangeDef],
    ) -> Result<Vec<VaRange>, RunError> {
        let known = process.maps.borrow();
        let mut out = Vec::new();
        for name in maps {
            out.push(*known.get(name).ok_or_else(|| RunError {
                message: format!(
                    "process `{}` has no mapping `{name}` when its MMU is attached",
                    process.name
                ),
                help: "map it first, or name an address range".to_owned(),
            })?);
        }
        for range in by_address {
            let at = parse_address(&range.at).map_err(|e| RunError {
                message: format!("address of an attached range: {e}"),
                help: "write a page aligned user address".to_owned(),
            })?;
            out.extend(VaRange::from_pages(Va::new(at), range.pages));
        }
        if maps.is_empty() && by_address.is_empty() {
            let declared =
                |name: &String| process.def.forked.is_some() || process.def.maps.contains_key(name);
            out.extend(
                known
                    .iter()
                    .filter(|(name, _)| declared(name))
                    .map(|(_, range)| *range),
            );
        }
        let pages = out.iter().map(VaRange::pages).fold(0, u64::saturating_add);
        if pages > MAX_SHADOWED {
            return Err(RunError {
                message: format!("secondary MMU `{}` shadows {pages} pages", self.name),
                help: format!("at most {MAX_SHADOWED} are possible"),
            });
        }
        Ok(out)
    }

    /// `mmu_notifier_unregister` by request of the script.
    ///
    /// A GRU job unmaps its segment first: nobody would purge what its contexts drop in afterwards.
    pub(super) async fn leave(&self, cx: &Cx, kernel: &Kernel) {
        self.wind_up(cx).await;
        self.unregister(cx, kernel).await;
    }

    async fn unregister(&self, cx: &Cx, kernel: &Kernel) {
        if let Some(id) = self.subscription.take() {
            kernel.mmu_notifier_unregister(cx, id).await;
        }
    }

    /// The process is about to exit: its GRU job waits for its instructions and unmaps the segment,
    /// which unloads the contexts. Left to the VMA's close that would come after the pages were freed
    /// (notifier-variants 10.26b); a well-behaved job does not leave it to that.
    pub(super) async fn wind_up(&self, cx: &Cx) {
        if let Some(Device::Gru { gru, .. }) = self.device.get() {
            gru.destroy(cx).await;
        }
    }

    /// The owning process is gone: the driver unregisters and gives up everything.
    pub(super) async fn destroy(&self, cx: &Cx, kernel: &Kernel) {
        self.unregister(cx, kernel).await;
        match self.device.get() {
            Some(Device::Kvm { kvm, .. }) => kvm.destroy(cx).await,
            Some(Device::Xpmem { xpmem, .. }) => xpmem.destroy(cx).await,
            Some(Device::Gru { .. }) | None => {}
        }
    }

    /// A thread begins to drive it. None if it was left out or is not there (yet).
    pub(super) async fn driver(&self, cx: &Cx, ordinal: u32) -> Option<Driver> {
        match self.device.get()? {
            Device::Kvm { kvm, .. } => Some(Driver::Vcpu(Rc::clone(kvm), kvm.add_vcpu())),
            Device::Gru { gru, chiplets } => Some(Driver::GruJob(Rc::clone(gru), ordinal % chiplets)),
            Device::Xpmem { xpmem, .. } => {
                let importer = self.importer.as_ref()?;
                if importer.attaching.replace(true) {
                    importer.attached.wait(cx).await;
                } else {
                    xpmem.attach(cx).await;
                    importer.attached.complete_all(cx.engine());
                }
                Some(Driver::Rank(Rc::clone(xpmem)))
            }
        }
    }

    /// A rank has ended; the last one detaches the segments.
    pub(super) async fn rank_ended(&self, cx: &Cx) {
        let Some(importer) = &self.importer else { return };
        importer.users.set(importer.users.get() - 1);
        if importer.users.get() == 0
            && importer.attached.is_done()
            && let Some(Device::Xpmem { xpmem, .. }) = self.device.get()
        {
            xpmem.detach(cx).await;
        }
    }

    /// Number of pages it shadows; for the GRU, none in particular.
    pub(super) fn pages(&self) -> u64 {
        match self.device.get() {
            Some(Device::Kvm { slots, .. }) => slots.iter().map(|(r, _)| r.pages()).sum(),
            Some(Device::Xpmem { segments, .. }) => segments.iter().map(VaRange::pages).sum(),
            Some(Device::Gru { .. }) | None => 0,
        }
    }

    /// Index, among the pages it shadows, of a virtual address of the process.
    pub(super) fn index_of(&self, va: Va) -> Option<u64> {
        let find = |ranges: &mut dyn Iterator<Item = VaRange>| {
            let mut before = 0;
            for range in ranges {
                if range.contains(va) {
                    return Some(before + (va.vpn().get() - range.start().vpn().get()));
                }
                before += range.pages();
            }
            None
        };
        match self.device.get()? {
            Device::Kvm { slots, .. } => find(&mut slots.iter().map(|(r, _)| *r)),
            Device::Xpmem { segments, .. } => find(&mut segments.iter().copied()),
            Device::Gru { .. } => None,
        }
    }
}

impl Device {
    fn subscriber(&self) -> Rc<dyn Subscriber> {
        match self {
            Device::Kvm { kvm, .. } => Rc::clone(kvm) as Rc<dyn Subscriber>,
            Device::Gru { gru, .. } => Rc::clone(gru) as Rc<dyn Subscriber>,
            Device::Xpmem { xpmem, .. } => Rc::clone(xpmem) as Rc<dyn Subscriber>,
        }
    }
}

/// One page of an access through a secondary MMU.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// By index among the pages the MMU shadows.
    Index(u64),
    /// By address of the process.
    Va(Va),
}

impl Driver {
    /// The thread has something else to do than to drive.
    pub(super) fn rest(&self, cx: &Cx) {
        if let Driver::Vcpu(kvm, vcpu) = self {
            kvm.exit(cx, *vcpu);
        }
    }

    /// One access.
    pub(super) async fn access(&self, cx: &Cx, place: Place, access: Access) -> Result<(), Refused> {
        match (self, place) {
            (Driver::Vcpu(kvm, vcpu), Place::Index(i)) => kvm.access(cx, *vcpu, Gfn::new(i), access).await,
            (Driver::Rank(xpmem), Place::Index(i)) => xpmem.access(cx, i, access).await,
            (Driver::GruJob(gru, chiplet), Place::Va(va)) => gru.access(cx, *chiplet, va, access).await,
            (Driver::GruJob(..), Place::Index(_)) | (Driver::Vcpu(..) | Driver::Rank(_), Place::Va(_)) => {
                Err(Refused::NoMapping)
            }
        }
    }
}

/// CPU of a driver thread on its importer's partition, if it drives an XPMEM import.
pub(super) fn importer_cpu(mmu: &Mmu, wanted: Option<u32>) -> Option<CpuId> {
    mmu.importer.as_ref().map(|i| i.kernel.cpu(wanted.unwrap_or(0)))
}

/// Counters of a device, by metric.
pub(super) type DeviceMetrics = Vec<(&'static sim::MetricDef, u64)>;

/// What a device counted.
pub(super) fn metrics(device: &Device) -> DeviceMetrics {
    match device {
        Device::Kvm { kvm, .. } => kvm.metrics().values().collect(),
        Device::Gru { gru, .. } => gru.metrics().values().collect(),
        Device::Xpmem { xpmem, .. } => xpmem.metrics().values().collect(),
    }
}

/// All metrics that devices may count.
pub(super) fn metric_defs() -> impl Iterator<Item = &'static sim::MetricDef> {
    kvm::KvmMetrics::DEFS
        .iter()
        .chain(gru::GruMetrics::DEFS)
        .chain(xpmem::XpmemMetrics::DEFS)
}

/// What devices had counted when measuring began.
pub(super) type Baseline = RefCell<Vec<(Rc<str>, DeviceMetrics)>>;
