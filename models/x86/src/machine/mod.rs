//! Machine descriptions: shape, TLB and the price of each primitive.
//!
//! A machine is a data file. The presets are embedded from `machines/`; others can be read with
//! [`Machine::from_json`]. Row ids in the files (`T2`, `W1`) are rows of docs/sources/hardware.md.
//! Nanoseconds become cycles once, when the file is read. Kernel policy is not here, with one marked
//! exception: `sched_slice`, which depends on the machine's number of CPUs.

mod costs;
mod error;
mod spec;

use costs::CostSheet;
pub use costs::Costs;
pub use error::{MachineError, UnknownMachine};
use serde::{Deserialize, Serialize};
use sim::Cycles;
use spec::CostSpec;
pub use spec::CostUnit;

use crate::tlb::TlbGeometry;

const PRESETS: [(&str, &str); 3] = [
    (
        "harpertown-2008",
        include_str!("../../machines/harpertown-2008.json"),
    ),
    (
        "barcelona-2008",
        include_str!("../../machines/barcelona-2008.json"),
    ),
    ("modern-2s", include_str!("../../machines/modern-2s.json")),
];
const PRESET_NAMES: [&str; PRESETS.len()] = {
    let mut names = [""; PRESETS.len()];
    let mut at = 0;
    while at < PRESETS.len() {
        names[at] = PRESETS[at].0;
        at += 1;
    }
    names
};

/// Whether the CPUs can walk a guest's tables through the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NestedPaging {
    /// They cannot: a hypervisor must shadow the guest's tables.
    Absent,
    /// AMD nested page tables.
    Npt,
    /// Intel extended page tables.
    Ept,
}

impl NestedPaging {
    /// Whether two-dimensional paging works on this machine.
    #[must_use]
    pub const fn is_available(self) -> bool {
        !matches!(self, NestedPaging::Absent)
    }
}

/// Number of a CPU inside one machine, counted thread by thread, core by core, socket by socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuIndex(u32);

impl CpuIndex {
    /// The CPU with this number.
    #[inline]
    #[must_use]
    pub const fn new(number: u32) -> Self {
        CpuIndex(number)
    }

    /// The number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// How far apart two CPUs are for a cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Distance {
    /// The same CPU, or threads of one core: the line is already there.
    SameCore,
    /// Cores of one socket.
    SameSocket,
    /// Different sockets.
    CrossSocket,
}

/// A composite the machine is expected to come out at: a target to calibrate against, never charged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Name, unique in the machine.
    pub name: String,
    /// Value in `unit`.
    pub value: u64,
    /// Unit of value and range.
    pub unit: CostUnit,
    /// Lowest plausible value.
    pub low: u64,
    /// Highest plausible value.
    pub high: u64,
    /// Rows of the hardware reference, or other origin.
    pub source: String,
    /// What it covers, how it was derived.
    pub note: String,
}

/// One line of [`Machine::cost_table`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostRow {
    /// Name of the primitive: a field of [`Costs`].
    pub name: &'static str,
    /// What it is.
    pub description: &'static str,
    /// Value in force, in cycles; differs from the file's after [`Machine::set_cost`].
    pub value_cycles: Cycles,
    /// Value as the file gives it, in `unit`.
    pub value_as_given: u64,
    /// Unit of value, low and high.
    pub unit: CostUnit,
    /// Lowest plausible value.
    pub low: u64,
    /// Highest plausible value.
    pub high: u64,
    /// Rows of the hardware reference, or other origin.
    pub source: String,
    /// How it was derived and how far to trust it.
    pub note: String,
}

/// A machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Name, as scenarios write it.
    pub name: String,
    /// One line for listings.
    pub title: String,
    /// What it stands for and where its figures are weak.
    pub description: String,
    /// Length of a cycle in picoseconds.
    pub cycle_ps: u64,
    /// Sockets.
    pub sockets: u32,
    /// Cores in each socket.
    pub cores_per_socket: u32,
    /// Hardware threads in each core.
    pub threads_per_core: u32,
    /// Pages of memory, 4 KiB each.
    pub memory_pages: u64,
    /// Whether the CPUs can walk two dimensions.
    pub nested_paging: NestedPaging,
    /// Data TLB of each CPU.
    pub tlb: TlbGeometry,
    /// Price of each primitive.
    pub costs: Costs,
    sheet: CostSheet,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MachineFile {
    name: String,
    title: String,
    description: String,
    cycle_ps: u64,
    sockets: u32,
    cores_per_socket: u32,
    threads_per_core: u32,
    memory_pages: u64,
    nested_paging: NestedPaging,
    tlb: TlbGeometry,
    costs: CostSheet,
    #[serde(default)]
    targets: Vec<TargetFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetFile {
    name: String,
    value: u64,
    unit: CostUnit,
    range: (u64, u64),
    source: String,
    #[serde(default)]
    note: String,
}

impl Machine {
    /// A machine that comes with the simulator.
    ///
    /// # Errors
    /// If there is none of that name.
    ///
    /// # Panics
    /// If an embedded file is invalid, which a test rules out.
    pub fn preset(name: &str) -> Result<Machine, UnknownMachine> {
        let (_, text) = PRESETS
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| UnknownMachine::new(name, &PRESET_NAMES))?;
        Ok(Machine::from_json(text).expect("embedded machine files are valid"))
    }

    /// Names of the machines that come with the simulator.
    #[must_use]
    pub const fn presets() -> &'static [&'static str] {
        &PRESET_NAMES
    }

    /// Reads a machine file.
    ///
    /// # Errors
    /// If the text is not JSON of the right shape, or a number contradicts its own range.
    pub fn from_json(text: &str) -> Result<Machine, MachineError> {
        let file: MachineFile = serde_json::from_str(text).map_err(MachineError::Json)?;
        let invalid = |what: String| MachineError::Invalid {
            machine: file.name.clone(),
            what,
        };
        for (what, value) in [
            ("cycle_ps", file.cycle_ps),
            ("sockets", u64::from(file.sockets)),
            ("cores_per_socket", u64::from(file.cores_per_socket)),
            ("threads_per_core", u64::from(file.threads_per_core)),
            ("memory_pages", file.memory_pages),
        ] {
            if value == 0 {
                return Err(invalid(format!("{what} is zero")));
            }
        }
        if file.memory_pages > u64::from(u32::MAX) {
            return Err(invalid("memory_pages exceeds 32-bit frame numbers".to_owned()));
        }
        for (name, _, spec) in file.costs.rows() {
            spec.check()
                .map_err(|why| invalid(format!("cost `{name}`: {why}")))?;
        }
        let mut targets: Vec<Target> = Vec::with_capacity(file.targets.len());
        for target in file.targets {
            let target = target.checked(&file.name)?;
            if targets.iter().any(|known| known.name == target.name) {
                let what = format!("target `{}` is given twice", target.name);
                return Err(MachineError::Invalid {
                    machine: file.name,
                    what,
                });
            }
            targets.push(target);
        }
        Ok(Machine {
            costs: file.costs.in_cycles(file.cycle_ps),
            name: file.name,
            title: file.title,
            description: file.description,
            cycle_ps: file.cycle_ps,
            sockets: file.sockets,
            cores_per_socket: file.cores_per_socket,
            threads_per_core: file.threads_per_core,
            memory_pages: file.memory_pages,
            nested_paging: file.nested_paging,
            tlb: file.tlb,
            sheet: file.costs,
            targets,
        })
    }

    /// Logical CPUs.
    #[must_use]
    pub const fn cpus(&self) -> u32 {
        self.sockets * self.cores_per_socket * self.threads_per_core
    }

    /// The core of a CPU, counted over all sockets.
    #[inline]
    #[must_use]
    pub const fn core_of(&self, cpu: CpuIndex) -> u32 {
        cpu.get() / self.threads_per_core
    }

    /// The socket of a CPU.
    #[inline]
    #[must_use]
    pub const fn socket_of(&self, cpu: CpuIndex) -> u32 {
        self.core_of(cpu) / self.cores_per_socket
    }

    /// How far apart two CPUs are.
    #[inline]
    #[must_use]
    pub const fn distance(&self, a: CpuIndex, b: CpuIndex) -> Distance {
        if self.core_of(a) == self.core_of(b) {
            Distance::SameCore
        } else if self.socket_of(a) == self.socket_of(b) {
            Distance::SameSocket
        } else {
            Distance::CrossSocket
        }
    }

    /// Cost of moving a cache line from one CPU to another; none inside a core.
    #[inline]
    #[must_use]
    pub const fn line_transfer(&self, from: CpuIndex, to: CpuIndex) -> Cycles {
        match self.distance(from, to) {
            Distance::SameCore => Cycles::ZERO,
            Distance::SameSocket => self.costs.line_transfer_near,
            Distance::CrossSocket => self.costs.line_transfer_far,
        }
    }

    /// Nanoseconds in cycles of this machine, rounded to the nearest.
    #[inline]
    #[must_use]
    pub const fn ns(&self, ns: u64) -> Cycles {
        spec::ns_to_cycles(ns, self.cycle_ps)
    }

    /// Cycles of this machine in nanoseconds, rounded down.
    #[inline]
    #[must_use]
    pub const fn to_ns(&self, cycles: Cycles) -> u64 {
        spec::cycles_to_ns(cycles, self.cycle_ps)
    }

    /// Every primitive with value, range and source.
    #[must_use]
    pub fn cost_table(&self) -> Vec<CostRow> {
        let row = |(name, description, spec): (&'static str, &'static str, &CostSpec)| CostRow {
            name,
            description,
            value_cycles: self.costs.get(name).unwrap_or(Cycles::ZERO),
            value_as_given: spec.value,
            unit: spec.unit,
            low: spec.range.0,
            high: spec.range.1,
            source: spec.source.clone(),
            note: spec.note.clone(),
        };
        self.sheet.rows().into_iter().map(row).collect()
    }

    /// Changes the price of a primitive, for sweeps and calibration.
    ///
    /// # Errors
    /// If there is no primitive of that name.
    pub fn set_cost(&mut self, name: &str, cycles: Cycles) -> Result<(), MachineError> {
        match self.costs.get_mut(name) {
            Some(cost) => {
                *cost = cycles;
                Ok(())
            }
            None => Err(MachineError::UnknownCost {
                name: name.to_owned(),
                suggestion: error::nearest(name, Costs::NAMES),
            }),
        }
    }

    /// Composites the machine should come out at.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// A target by name.
    #[must_use]
    pub fn target(&self, name: &str) -> Option<&Target> {
        self.targets.iter().find(|target| target.name == name)
    }
}

impl Target {
    /// The value in cycles of a machine.
    #[must_use]
    pub const fn in_cycles(&self, machine: &Machine) -> Cycles {
        self.unit.to_cycles(self.value, machine.cycle_ps)
    }
}

impl TargetFile {
    fn checked(self, machine: &str) -> Result<Target, MachineError> {
        let spec = CostSpec {
            value: self.value,
            unit: self.unit,
            range: self.range,
            source: self.source,
            note: self.note,
        };
        spec.check().map_err(|why| MachineError::Invalid {
            machine: machine.to_owned(),
            what: format!("target `{}`: {why}", self.name),
        })?;
        Ok(Target {
            name: self.name,
            value: spec.value,
            unit: spec.unit,
            low: spec.range.0,
            high: spec.range.1,
            source: spec.source,
            note: spec.note,
        })
    }
}
