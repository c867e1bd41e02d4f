//! Machine descriptions: topology, TLBs, caches, features and the price of each primitive.
//!
//! A machine is a data file. The presets are embedded from `machines/`; others are read with
//! [`Machine::load`], and may extend a preset or another file. Row ids in the files (`T2`, `W1`) are
//! rows of docs/sources/hardware.md. Nanoseconds become cycles once, when the file is read. Kernel
//! policy is not here, with one marked exception: `sched_slice`, which depends on the machine's number
//! of CPUs.

mod costs;
mod decode;
mod document;
mod error;
mod features;
mod file;
mod load;
mod preset;
mod spec;
mod topology;

use std::path::Path;

use costs::CostSheet;
pub use costs::Costs;
pub use error::{ContentError, MachineError, UnknownMachine};
use features::FeatureSheet;
pub use features::{FeatureRow, Features};
use serde::{Deserialize, Serialize};
use sim::Cycles;
use spec::CostSpec;
pub use spec::{CostUnit, Percent, WalkCharged};
pub use topology::{CpuIndex, Distance};

use crate::cache::CacheGeometry;
use crate::psc::PscBank;
use crate::tlb::TlbGeometry;

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
    /// Memory nodes, with equal shares of the cores: one a socket unless the file says otherwise.
    pub nodes: u32,
    /// Pages of memory, 4 KiB each.
    pub memory_pages: u64,
    /// Whether the CPUs can walk two dimensions.
    pub nested_paging: NestedPaging,
    /// What else the CPUs can do.
    pub features: Features,
    /// TLBs of each CPU.
    pub tlb: TlbGeometry,
    /// Paging-structure caches of each CPU; none is possible.
    pub psc: Vec<PscBank>,
    /// Caches of each CPU, and which cores share them.
    pub caches: CacheGeometry,
    /// How much of a walk delays the program; informational.
    pub walk_charged: WalkCharged,
    /// Price of each primitive.
    pub costs: Costs,
    sheet: CostSheet,
    feature_sheet: FeatureSheet,
    targets: Vec<Target>,
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
        match load::from_preset(name) {
            Ok(machine) => Ok(machine),
            Err(MachineError::Unknown(unknown)) => Err(unknown),
            Err(error) => panic!("embedded machine files are valid, but {error}"),
        }
    }

    /// Names of the machines that come with the simulator.
    #[must_use]
    pub const fn presets() -> &'static [&'static str] {
        preset::NAMES
    }

    /// Reads a machine file, and what it extends: a preset by name, or a file by a path relative to
    /// the file that names it.
    ///
    /// # Errors
    /// If a file cannot be read, says what cannot be, or extends itself.
    pub fn load(path: &Path) -> Result<Machine, MachineError> {
        load::from_file(path)
    }

    /// A preset by its name, or the machine file at a path seen from `folder`; a path ends in
    /// `.json` or `.jsonc`.
    ///
    /// # Errors
    /// If there is no such preset, or as [`Machine::load`].
    pub fn find(name: &str, folder: &Path) -> Result<Machine, MachineError> {
        load::find(name, folder)
    }

    /// Whether [`Machine::find`] takes a name for the path of a file.
    #[must_use]
    pub fn is_path(name: &str) -> bool {
        load::is_path(name)
    }

    /// Reads the text of a machine file; it can extend presets.
    ///
    /// # Errors
    /// If it says what cannot be.
    pub fn from_json(text: &str) -> Result<Machine, MachineError> {
        load::from_text(text)
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

    /// Every primitive the machine has, with value, range and source.
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

    /// Every feature with its value and source.
    #[must_use]
    pub fn feature_table(&self) -> Vec<FeatureRow> {
        self.feature_sheet.rows()
    }

    /// Changes the price of a primitive, for sweeps and calibration.
    ///
    /// # Errors
    /// If there is no primitive of that name, or this machine lacks it.
    pub fn set_cost(&mut self, name: &str, cycles: Cycles) -> Result<(), MachineError> {
        if let Some(cost) = self.costs.get_mut(name) {
            *cost = cycles;
            return Ok(());
        }
        let name = name.to_owned();
        if Costs::NAMES.contains(&name.as_str()) {
            let machine = self.name.clone();
            return Err(MachineError::AbsentCost { name, machine });
        }
        let suggestion = error::nearest(&name, Costs::NAMES);
        Err(MachineError::UnknownCost { name, suggestion })
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
